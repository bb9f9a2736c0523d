"""Augmentation as a file that a colleague can use too, in TOML or JSON.

    [geometric]
    flip = "zyx"
    rot90 = true

    [mixing.cutmix]
    p = 0.5

A file without these two tables is the table ``geometric`` itself.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keypatch.augment.geometric import Geometric
from keypatch.augment.mixing import Mixing, mixing_from_mapping
from keypatch.errors import FormatError, ReadError, UsageError

if TYPE_CHECKING:
    from os import PathLike

_TABLES = ("geometric", "mixing")


@dataclass(frozen=True)
class Augmentation:
    """What a recipe says.

    Attributes:
        geometric: Of each sample.
        mixing: Of each batch, in this order.
    """

    geometric: Geometric
    mixing: tuple[Mixing, ...] = ()


def read_recipe(path: str | PathLike[str]) -> Augmentation:
    """Read a recipe of augmentation.

    Args:
        path: A file; one that ends in .json is JSON, any other TOML.

    Raises:
        ReadError: If it cannot be read.
        FormatError: If it is no TOML, or no JSON object.
        UsageError: If a key is unknown or a value is not what it must be.
    """
    file = Path(path)
    given = _parsed(file)
    tables = given if set(given) & set(_TABLES) else {"geometric": given}
    if unknown := sorted(set(tables) - set(_TABLES)):
        raise UsageError.at(file, expected=f"the tables {' and '.join(_TABLES)}", found=", ".join(unknown))
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError.at(file, expected=f"a table as {name}", found=repr(table))
    try:
        geometric = Geometric.from_mapping(tables.get("geometric", {}))
        return Augmentation(geometric, mixing_from_mapping(tables.get("mixing", {})))
    except UsageError as error:
        message = f"{file}: {error}"
        raise UsageError(message) from error


def _parsed(file: Path) -> dict[str, Any]:
    is_json = file.suffix.lower() == ".json"
    try:
        text = file.read_text(encoding="utf-8")
        given = json.loads(text) if is_json else tomllib.loads(text)
    except OSError as error:
        raise ReadError.at(file, expected="a recipe", found=error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise FormatError.at(file, expected="JSON" if is_json else "TOML", found=str(error)) from error
    if not isinstance(given, dict):
        raise FormatError.at(file, expected="a JSON object", found=type(given).__name__)
    return given
