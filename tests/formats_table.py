"""Writes docs/formats.md from the registries and the proofs: python -m tests.formats_table."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tests.format_proofs import POINTS, VOLUMES, PointProof, VolumeProof

from keypatch.formats import annotations, volumes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"

HEAD = """# Formats

<!-- Made by: python -m tests.formats_table. A test holds it against the registries. -->

What keypatch reads, what it takes each file to mean, and the file and the number by which that was shown. Each number
was got without keypatch (from the file's text or bytes, or by another library) and is held against the reader in
tests/test_format_proofs.py. Files are real ones, described in the INDEX.md of the folder that KEYPATCH_TEST_DATA names;
where that has none of a format, "made" marks a file that the test writes.

"Inferred" is what no text states outright: the reader's assumption, recorded in the store, to be changed by a flag
(`--unit`, `--axis-order`, `--zero`, `--index-base`). Unit, axes and zero are those of the file that is shown;
a header may say others (RELION's versions, units in a table's header, RAS or LPS), and `keypatch inspect FILE` shows
what was read of a file of yours. "Extra" is what to install, for TIFF, slices and tables only where a file is
compressed or Parquet. Formats are told by content; the name is for `--volume-format` and `--format`. Formats of your
own: [new-format.md](new-format.md).
"""

VOLUME_COLUMNS = (
    *("format", "files", "reader", "extra", "spacing", "axes", "world", "inferred", "a box costs", "shown by"),
)
POINT_COLUMNS = (
    *("format", "reader", "extra", "unit", "axes", "zero", "first", "inferred", "heeds", "file", "row: value", "voxel"),
)

COST = {"mapped": "its voxels", "region": "its chunks", "slices": "its slices", "whole": "the volume, once"}


def page() -> str:
    """The whole text."""
    return "\n".join(
        [
            HEAD,
            "## Volumes",
            "",
            *_table(VOLUME_COLUMNS, map(_volume_row, volumes.FORMATS, VOLUMES)),
            "",
            "What a format says:",
            "",
            *(f"- {row.NAME}: {row.DESCRIPTION}" for row in volumes.FORMATS),
            "",
            "## Annotations",
            "",
            "The axes are those in which the file lists its three numbers, values below are z, y, x.",
            "",
            *_table(POINT_COLUMNS, map(_point_row, annotations.FORMATS, POINTS)),
            "",
            "What a format says:",
            "",
            *(f"- {row.NAME}: {row.DESCRIPTION}" for row in annotations.FORMATS),
            "",
        ]
    )


def _volume_row(row: Any, proof: VolumeProof) -> Sequence[str]:
    where = f"{'made ' if proof.make else ''}`{proof.file}`"
    array = f" `{proof.options['array']}`" if "array" in proof.options else ""
    shown = f"{where}{array}: voxel {_numbers(proof.index)} of {_numbers(proof.shape)} is {proof.value:g} ({proof.by})"
    return (
        row.NAME,
        ", ".join(row.SUFFIXES) or "folder",
        _module(row),
        proof.extra or "-",
        proof.unit,
        proof.axes,
        proof.world or "-",
        _names(proof.inferred),
        COST[proof.access],
        shown,
    )


def _point_row(row: Any, proof: PointProof) -> Sequence[str]:
    unit, axes, zero, base = proof.convention
    return (
        row.NAME,
        _module(row),
        proof.extra or "-",
        unit,
        axes,
        zero,
        str(base),
        _names(proof.inferred),
        _names(sorted(row.USES)),
        f"{'made ' if proof.made is not None else ''}`{proof.file}`",
        f"{proof.row}: {_numbers(proof.point)} ({proof.read})",
        f"{_numbers(proof.voxel)} ({proof.rule})",
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def _module(row: Any) -> str:
    assert isinstance(row, ModuleType)
    return f"`{row.__name__.rpartition('.')[2]}`"


def _names(values: Iterable[str]) -> str:
    return ", ".join(values) or "-"


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.7g}" for value in values)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
