"""Read real files by deliberately wrong conventions and write down what the check says, in catalog-check.md.

    KEYPATCH_TEST_DATA=FOLDER python docs/wrong_conventions.py           write the page
    KEYPATCH_TEST_DATA=FOLDER python docs/wrong_conventions.py --check   exit 1 if it is out of date

Each case changes the numbers in a copy of an annotation file and leaves the volume as it is, which is what a person has
who got a convention wrong.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from keypatch.converters.catalog import Catalog, build_catalog
from keypatch.converters.check import CatalogFinding
from keypatch.converters.recipe import Recipe
from keypatch.errors import KeypatchError, ReadError

PAGE = Path(__file__).with_name("catalog-check.md")
SUSPICIONS = ("KP601", "KP602", "KP603", "KP604", "KP605", "KP606", "KP607", "KP608")
FACTORS = (2, 4, 10)


@dataclass(frozen=True)
class Place:
    """What a mistake has to know of a point's volume: shape and spacing, z, y, x, and the unit of the file."""

    shape: np.ndarray
    spacing: np.ndarray
    unit: str
    centered: bool = False

    @property
    def voxel(self) -> np.ndarray:
        """(3,) a voxel in the file's unit."""
        return np.ones(3) if self.unit == "voxel" else self.spacing


Change = Callable[[np.ndarray, Place], np.ndarray]
"""Of one point, (3,) z, y, x in the file's unit."""


@dataclass(frozen=True)
class Mistake:
    """One wrong convention.

    Attributes:
        text: What was done to the numbers.
        change: That.
        ambiguity: The notes that say that coordinates cannot tell.
        what: The part of a convention that it gets wrong, as KP613 names it.
    """

    text: str
    change: Change
    ambiguity: tuple[str, ...]
    what: tuple[str, ...] = ()

    def is_left_open_by(self, found: CatalogFinding) -> bool:
        """Whether a note says that this mistake cannot be told."""
        if found.code == "KP613":
            return any(name in found.evidence["taken"] for name in self.what)
        return found.code in self.ambiguity


@dataclass(frozen=True)
class DataSet:
    """Real annotations with their volumes.

    Attributes:
        name: Heading.
        text: What it is.
        unit: Of the file.
        write: Writes the annotation file with every point changed, and the volumes if they are made, into a folder;
            returns the settings of the recipe.
    """

    name: str
    text: str
    unit: str
    write: Callable[[Path, Change], Mapping[str, object]]


@dataclass(frozen=True)
class Result:
    """What the check says of one case.

    Attributes:
        mistake: None where the file is unchanged.
        findings: All of them.
        suspicions: Those that doubt the reading.
        refused: What the reader says where it does not take the file.
        undone: Whether the flag that was named puts every point where it belongs; None where no single flag was named.
    """

    mistake: Mistake | None
    findings: tuple[CatalogFinding, ...]
    suspicions: tuple[CatalogFinding, ...]
    undone: str | None
    refused: str = ""

    @property
    def notes(self) -> tuple[CatalogFinding, ...]:
        """Those that say that coordinates cannot tell this mistake from a right file."""
        return tuple(
            found for found in self.findings if self.mistake is not None and self.mistake.is_left_open_by(found)
        )


_OF_THE_WORLD = Mistake(
    "x and y with the other sign (LPS for RAS)", lambda point, _: point * np.array([1, -1, -1]), ("KP615",)
)


def mistakes(unit: str) -> list[Mistake]:
    """All that are made of a file in this unit, with the identity nowhere among them."""
    made = [*_orders(), *_factors(unit)]
    if unit == "mm":  # of a world, which has no first voxel
        return [*made, _OF_THE_WORLD]
    return [
        *made,
        Mistake("counted from 1", lambda point, at: point + at.voxel, (), ("index_base", "zero")),
        Mistake("corners for centres (+ half a voxel)", lambda point, at: point + at.voxel / 2, ("KP614",), ("zero",)),
        *_units(unit),
    ]


def _orders() -> list[Mistake]:
    return [
        Mistake(
            f"columns x y z written in the order {' '.join(order)}",
            lambda point, _, order=order: point[["zyx".index(order["xyz".index(axis)]) for axis in "zyx"]],
            ("KP611",),
        )
        for order in permutations("xyz")
        if order != ("x", "y", "z")
    ]


def _factors(unit: str) -> list[Mistake]:
    made = []
    for factor in FACTORS:
        up, down = f"multiplied by {factor}", f"divided by {factor}"
        if unit == "voxel":
            up, down = f"picked on voxels {factor} times as short", f"picked on voxels {factor} times as long"
        elif unit == "angstrom" and factor == 10:
            up, down = f"{up} (Å for nm)", f"{down} (nm for Å)"
        made += [Mistake(up, _scaled(factor), ("KP612",)), Mistake(down, _scaled(1 / factor), ("KP612",))]
    return made


def _units(unit: str) -> list[Mistake]:
    if unit != "voxel":
        return [Mistake("voxels for Å", lambda point, at: point / at.spacing, ("KP612",), ("unit",))]
    return [
        Mistake("Å for voxels", lambda point, at: point * at.spacing, ("KP612",), ("unit",)),
        Mistake("nm for voxels", lambda point, at: point * at.spacing / 10, ("KP612",), ("unit",)),
        Mistake("fractions of the shape", lambda point, at: point / at.shape, ("KP612",), ("unit",)),
        Mistake("from the centre of the volume", lambda point, at: point - at.shape / 2, ("KP612",), ("zero",)),
    ]


def _scaled(factor: float) -> Change:
    def change(point: np.ndarray, at: Place) -> np.ndarray:
        # Voxels of two lengths share the corner of the volume, not the centre of the first voxel.
        half = 0.0 if at.centered or at.unit != "voxel" else 0.5
        return (point + half) * factor - half

    return change


# ----- the data sets -----


def data_sets(data: Path) -> list[DataSet]:
    """Those whose files are in the folder of real files, and two that are made."""
    return [
        DataSet(
            "Two microtubules, RELION 5",
            "`matched/cylindra_mt`: particles.star (5 picks, Å from the centre of the volume) and its two TIFF volumes "
            "of 36×206×94 and 44×136×84 voxels of 10.52 Å.",
            "angstrom",
            lambda folder, change: _microtubules(data / "matched" / "cylindra_mt", folder, change),
        ),
        DataSet(
            "Flagellar motors, BYU",
            "`csv/byu_train_labels.csv`: the rows of the first 24 tomograms with a motor, and volumes of zeros of the "
            "shapes that it states. Voxels, z y x; the spacings differ.",
            "voxel",
            lambda folder, change: _motors(data / "csv" / "byu_train_labels.csv", folder, change),
        ),
        DataSet(
            "Data Portal fixture, copick",
            "`matched/portal_fixture`: copick.json (4 picks, Å) and run1.rec of 4×4×4 voxels of 14.08 Å. Three of the "
            "picks lie outside it, also as the file is.",
            "angstrom",
            lambda folder, change: _portal(data / "matched" / "portal_fixture", folder, change, None),
        ),
        DataSet(
            "The same picks in a volume that holds them",
            "The same copick.json with a volume of zeros of 8×5×4 voxels of 14.08 Å.",
            "angstrom",
            lambda folder, change: _portal(data / "matched" / "portal_fixture", folder, change, (8, 5, 4)),
        ),
        DataSet(
            "Anatomical landmarks, 3D Slicer",
            "`matched/afids_mni`: 32 landmarks (fcsv, RAS, mm of the world) and the template that they are of, NIfTI, "
            "97×115×97 voxels of 2 mm.",
            "mm",
            lambda folder, change: _landmarks(data / "matched" / "afids_mni", folder, change),
        ),
        DataSet(
            "Made: three flat tomograms, a table",
            "100 points each in volumes of zeros of 60×240×200, 64×256×256 and 50×180×220 voxels of 13.48 Å.",
            "voxel",
            lambda folder, change: _made(
                folder, change, {"a": (60, 240, 200), "b": (64, 256, 256), "c": (50, 180, 220)}
            ),
        ),
        DataSet(
            "Made: one cube, a table",
            "20 points in a volume of zeros of 128×128×128 voxels of 8 Å; CSV, voxels.",
            "voxel",
            lambda folder, change: _made(folder, change, {"a": (128, 128, 128)}, n_points=20, spacing=8.0),
        ),
    ]


def _microtubules(source: Path, folder: Path, change: Change) -> dict[str, object]:
    shapes = {"TS_01": (36, 206, 94), "TS_02": (44, 136, 84)}
    lines = []
    for line in (source / "particles.star").read_text().splitlines():
        cells = line.split()
        if cells and cells[0] in shapes:
            at = Place(np.array(shapes[cells[0]]), np.full(3, 10.52), "angstrom", centered=True)
            point = change(np.array([float(cells[k]) for k in (3, 2, 1)]), at)
            lines.append(" ".join([cells[0], *(repr(float(value)) for value in point[::-1])]))
        else:
            lines.append(line)
    (folder / "particles.star").write_text("\n".join(lines) + "\n")
    return {
        "volumes": [str(source / "13pf_MT.tif"), str(source / "14pf_MT.tif")],
        "annotations": str(folder / "particles.star"),
        "map": {"TS_01": "13pf_MT", "TS_02": "14pf_MT"},
    }


def _motors(source: Path, folder: Path, change: Change, n_volumes: int = 24) -> dict[str, object]:
    with source.open(newline="") as file:
        head, *rows = list(csv.reader(file))
    names = list(dict.fromkeys(row[1] for row in rows if float(row[2]) >= 0))[:n_volumes]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        if row[1] not in names:
            continue
        shape, spacing = np.array([int(float(value)) for value in row[5:8]]), float(row[8])
        volume = folder / f"{row[1]}.npy"
        if not volume.exists():
            _empty_npy(volume, tuple(shape.tolist()))
        point = change(np.array([float(value) for value in row[2:5]]), Place(shape, np.full(3, spacing), "voxel"))
        writer.writerow([*row[:2], *(repr(float(value)) for value in point), *row[5:]])
    (folder / "train_labels.csv").write_text(out.getvalue())
    return {"volumes": str(folder / "*.npy"), "annotations": str(folder / "train_labels.csv")}


def _portal(source: Path, folder: Path, change: Change, shape: tuple[int, int, int] | None) -> dict[str, object]:
    picks = json.loads((source / "copick.json").read_text())
    at = Place(np.array(shape or (4, 4, 4)), np.full(3, 14.08), "angstrom")
    for entry in picks["points"]:
        point = change(np.array([entry["location"][axis] for axis in "zyx"]), at)
        entry["location"] = dict(zip("zyx", map(float, point), strict=True))
    (folder / "copick.json").write_text(json.dumps(picks))
    if shape is None:
        return {"volumes": str(source / "run1.rec"), "annotations": str(folder / "copick.json")}
    _empty_npy(folder / "run1.npy", shape)
    return {"volumes": str(folder / "run1.npy"), "annotations": str(folder / "copick.json"), "voxel_spacing": 14.08}


def _landmarks(source: Path, folder: Path, change: Change) -> dict[str, object]:
    at = Place(np.array((97, 115, 97)), np.full(3, 2.0), "mm")
    lines = []
    for line in (source / "tpl-MNI152NLin2009cAsym_afids.fcsv").read_text().splitlines():
        name, *cells = line.split(",")
        if not line.startswith("#"):
            point = change(np.array([float(value) for value in cells[2::-1]]), at)
            cells[:3] = [repr(float(value)) for value in point[::-1]]
        lines.append(",".join([name, *cells]))
    (folder / "afids.fcsv").write_text("\n".join(lines) + "\n")
    return {
        "volumes": str(source / "tpl-MNI152NLin2009cAsym_res-02_T1w.nii.gz"),
        "annotations": str(folder / "afids.fcsv"),
    }


def _made(
    folder: Path,
    change: Change,
    shapes: Mapping[str, tuple[int, int, int]],
    n_points: int = 100,
    spacing: float = 13.48,
) -> dict[str, object]:
    rng = np.random.default_rng(0)
    rows = ["volume,z,y,x"]
    for name, shape in shapes.items():
        _empty_npy(folder / f"{name}.npy", shape)
        at = Place(np.array(shape), np.full(3, spacing), "voxel")
        points = rng.uniform(0, np.array(shape) - 1, (n_points, 3))
        rows += [f"{name},{','.join(repr(float(value)) for value in change(point, at))}" for point in points]
    (folder / "picks.csv").write_text("\n".join(rows) + "\n")
    return {"volumes": str(folder / "*.npy"), "annotations": str(folder / "picks.csv"), "voxel_spacing": spacing}


def _empty_npy(path: Path, shape: Sequence[int]) -> None:
    """A volume of zeros as a sparse file: nothing but its header takes room."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
        file.truncate(file.tell() + int(np.prod(shape)))


# ----- what the check says -----


def run(data_set: DataSet) -> list[Result]:
    """The unchanged file, then every mistake."""
    with tempfile.TemporaryDirectory() as folder:
        right, places = _catalog(data_set, Path(folder), None)
    results = [Result(None, right.findings, _suspicions(right), undone=None)]
    for mistake in mistakes(data_set.unit):
        with tempfile.TemporaryDirectory() as folder:
            try:
                wrong, _ = _catalog(data_set, Path(folder), mistake)
            except ReadError as error:
                results.append(Result(mistake, (), (), None, str(error).replace(folder, "")))
                continue
            suspicions = _suspicions(wrong)
            undone = None if results[0].suspicions else _undone(data_set, Path(folder), mistake, suspicions, places)
        results.append(Result(mistake, wrong.findings, suspicions, undone))
    return results


def _catalog(
    data_set: DataSet, folder: Path, mistake: Mistake | None, more: Mapping[str, object] | None = None
) -> tuple[Catalog, list[np.ndarray]]:
    change = mistake.change if mistake else lambda point, _: point
    given = dict(data_set.write(folder, change)) | dict(more or {})
    catalog = build_catalog(Recipe.from_mapping(given))
    return catalog, [volume.points.coords for volume in catalog.volumes]


def _suspicions(catalog: Catalog) -> tuple[CatalogFinding, ...]:
    return tuple(found for found in catalog.findings if found.code in SUSPICIONS)


def _undone(
    data_set: DataSet, folder: Path, mistake: Mistake, suspicions: Sequence[CatalogFinding], places: list[np.ndarray]
) -> str:
    """Which of the flags that are named puts every point where it belongs."""
    named = next((found.settle.split(" or ") for found in suspicions if found.settle), [])
    settings = list(filter(None, map(_settings, named)))
    right = [_puts_right(data_set, folder, mistake, flags, places) for flags in settings]
    if not right:
        return ""
    if not any(right):
        return "no, it fits too"
    return "yes" if len(right) == 1 else "one of them"


def _puts_right(
    data_set: DataSet, folder: Path, mistake: Mistake, flags: Mapping[str, object], places: list[np.ndarray]
) -> bool:
    try:
        _, found = _catalog(data_set, folder, mistake, flags)
    except KeypatchError:
        return False
    return all(len(a) == len(b) and np.allclose(a, b, atol=0.02) for a, b in zip(found, places, strict=True))


def _settings(flags: str) -> dict[str, object]:
    """The settings of the flags, where each has a value and there is nothing else."""
    if not re.fullmatch(r"--\S+ \S+( --\S+ \S+)*", flags):
        return {}
    words = flags.split()
    return {name[2:].replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}


# ----- the page -----

INTRODUCTION = """\
# What the check says of wrong conventions

Made by `docs/wrong_conventions.py`, and kept up to date by a test. Each row changes the numbers in a copy of an
annotation file, as somebody would who got a convention wrong, and shows what `keypatch convert --dry-run` says of it.
The codes are in [findings.md](findings.md).

"Undone" tells whether the flag that is named puts every point back where it belongs (to 0.02 voxel). Where it does not,
the flag gives another reading that fits the volumes as well: coordinates cannot tell the two apart; a picture can. No
single flag helps where each volume needs another value.
"""


def rendered(results_of: Sequence[tuple[DataSet, Sequence[Result]]]) -> str:
    """The whole text."""
    parts = [INTRODUCTION]
    totals = {"named": 0, "noted": 0, "fitting": 0, "all": 0}
    for data_set, results in results_of:
        parts += [f"\n## {data_set.name}\n\n{data_set.text}\n\n", _table(results)]
        totals["all"] += len(results) - 1
        totals["named"] += sum(bool(result.suspicions or result.refused) for result in results[1:])
        totals["noted"] += sum(not result.suspicions and bool(result.notes) for result in results[1:])
        silent = [result for result in results[1:] if not (result.suspicions or result.refused or result.notes)]
        totals["fitting"] += len(silent) * bool(results[0].suspicions)
    silent = totals["all"] - totals["named"] - totals["noted"] - totals["fitting"]
    parts.append(
        f"\n## In all\n\nOf {totals['all']} wrong files, {totals['named']} are doubted by name; {totals['noted']} look "
        f"like right ones in all numbers, and a note says that coordinates cannot tell; "
        f"{totals['fitting']} fit only since they were changed; {silent} pass without a word.\n"
    )
    return "".join(parts)


def _table(results: Sequence[Result]) -> str:
    lines = ["| what was done to the numbers | named by | settled by | undone |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_row(result, fits_by_it=bool(results[0].suspicions)))} |" for result in results]
    return "\n".join(lines) + "\n"


def _row(result: Result, *, fits_by_it: bool) -> tuple[str, str, str, str]:
    text = "nothing (the file as it is)" if result.mistake is None else result.mistake.text
    if result.refused:
        return text, "its reader, which refuses such a file (exit code 3)", "", ""
    if result.suspicions:
        settled = next((f"`{found.settle}`" for found in result.suspicions if found.settle), "")
        counts = next((_outside(found) for found in result.suspicions if "outside" in found.evidence), "")
        named = ", ".join(dict.fromkeys(found.code for found in result.suspicions)) + counts
        return text, named, settled, result.undone or ""
    if result.mistake is None:
        return text, "nothing", "", ""
    if not result.notes:
        return text, "nothing: changed so, all points fit" if fits_by_it else "**nothing**", "", ""
    codes = ", ".join(dict.fromkeys(found.code for found in result.notes))
    return text, f"not detectable: all points stay inside; {codes} says so", "", ""


def _outside(found: CatalogFinding) -> str:
    return f" ({found.evidence['outside']} of {found.evidence['points']} outside)"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with --check only see whether it is up to date."""
    data = os.environ.get("KEYPATCH_TEST_DATA")
    if data is None:
        sys.stderr.write("set KEYPATCH_TEST_DATA to the folder of real files\n")
        return 2
    text = rendered([(data_set, run(data_set)) for data_set in data_sets(Path(data))])
    if "--check" in arguments:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
