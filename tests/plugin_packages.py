"""Packages with entry points, as an installer would leave them in a folder, without installing anything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DOC = Path(__file__).resolve().parent.parent / "docs" / "new-format.md"

VOLUMES, ANNOTATIONS = "keypatch.volumes", "keypatch.annotations"


def install(
    folder: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str],
    version: str = "1.0",
) -> Path:
    """Write modules and the dist-info that says what they bring; gives the folder, for sys.path."""
    for path, code in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(code, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in entry_points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


def install_documented(folder: Path) -> Path:
    """The package of docs/new-format.md, from the blocks on that page."""
    blocks = re.findall(r"```(\w+)\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
    files = {code.split("\n")[0].removeprefix("# "): code for kind, code in blocks if kind == "python"}
    (project,) = [tomllib.loads(code)["project"] for kind, code in blocks if kind == "toml"]
    return install(folder, project["name"], project["entry-points"], files, project["version"])
