"""Detections as files that others read: a table, a BYU submission, copick picks, RELION's STAR.

Coordinates leave in the voxels of the volume's own file, also where the store was built with ``--resample-to``. Each
format is written as `keypatch.formats.annotations` reads it, unit, order and zero, so what is written comes back to the
last bit that a float64 keeps:

- csv: voxel indices z, y, x, the centre of the first voxel at 0; columns volume, class, z, y, x, score, n_views;
- byu: the same in ``Motor axis 0, 1, 2``, one row a tomogram, its best detection, the first
  of equals, -1 where there is none;
- copick: Å = index * spacing, x, y, z, one JSON file a volume and class below a folder, as in a copick project;
- relion5: ``rlnCenteredCoordinateX/Y/ZAngst`` = (index - size / 2) * spacing;
- relion4: ``rlnCoordinateX/Y/Z`` = index * spacing / pixel, pixels of the tilt series, whose size the optics table has.

A file appears under its name at once and whole; no clock is written, so the same detections give the same bytes.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from keypatch import geometry
from keypatch.errors import UsageError
from keypatch.formats.store.disk import sync_file, sync_folder, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from os import PathLike

    import pandas as pd
    from numpy.typing import NDArray

    from keypatch.formats.store import Store

COPICK_USER: Final = "keypatch"
COPICK_SESSION: Final = "1"
_COPICK_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\s_]')
"""What copick replaces by "-" in the names that make its files (``copick.util.escape``): "_" parts user and session."""

_STAR_NAME = re.compile(r"[^\s#'\"]+")
_STAR_RESERVED = ("data_", "loop_", "_", "<NA>")
_IDENTITY = np.eye(4).tolist()


@dataclass(frozen=True)
class Options:
    """What some formats need to be told.

    Attributes:
        classes: Only these, in the store's order; all when empty.
        pixel_angstrom: Å of a pixel of the unbinned tilt series, for relion4; the volume's voxel spacing when left out.
        user: Of copick picks.
        session: Of copick picks.
    """

    classes: tuple[str, ...] = ()
    pixel_angstrom: float | None = None
    user: str = COPICK_USER
    session: str = COPICK_SESSION


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        files: Of one path, or those below a folder.
        rows: Detections in them.
        notes: What a format could not hold, one line each.
    """

    files: tuple[Path, ...]
    rows: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Points:
    """The detections of one volume on the grid of its own file."""

    volume: str
    class_names: tuple[str, ...]
    index: NDArray[np.float64]
    score: NDArray[np.float64]
    n_views: NDArray[np.int64]
    shape: NDArray[np.float64]
    spacing: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Export:
    """All that a writer is given."""

    volumes: tuple[_Points, ...]
    classes: tuple[str, ...]
    options: Options

    @property
    def rows(self) -> int:
        return sum(len(points.index) for points in self.volumes)


_Writer: TypeAlias = "Callable[[Path, _Export], Exported]"


def export(
    detections: pd.DataFrame,
    store: Store,
    path: str | PathLike[str],
    format: str,  # noqa: A002 - the word of the command line
    options: Options = Options(),
) -> Exported:
    """Write detections in a format of the field.

    Args:
        detections: As `keypatch.detections.detect` gives them.
        store: Whose volumes they are of.
        path: The file; for copick, the folder that the project's ``ExperimentRuns`` go into. What is there is replaced.
        format: One of `FORMATS`.
        options: What some formats need to be told.

    Raises:
        UsageError: If the format or a class is unknown, the table is not one of this store's detections, or a name is
            one that the format cannot hold.
        WriteError: If the disk does not take it.
    """
    if format not in FORMATS:
        raise UsageError.at("--format", expected=f"one of {', '.join(FORMATS)}", found=repr(format))
    unknown = [name for name in options.classes if name not in store.classes]
    if unknown:
        raise UsageError.at("--class", expected=f"classes of {', '.join(store.classes)}", found=", ".join(unknown))
    classes = tuple(name for name in store.classes if not options.classes or name in options.classes)
    content = _Export(tuple(_by_volume(detections, store, classes)), classes, options)
    with writing(Path(path)):
        return _WRITERS[format](Path(path), content)


def _by_volume(detections: pd.DataFrame, store: Store, classes: Sequence[str]) -> list[_Points]:
    """The detections of wanted classes of every volume of the store, in its order, also of those with none."""
    needed = ["volume", "class_name", "z", "y", "x", "score", "n_views"]
    missing = [name for name in needed if name not in detections.columns]
    if missing:
        raise UsageError.at("detections", expected=f"the columns {', '.join(needed)}", found=f"no {', '.join(missing)}")
    strange = set(detections["volume"]) - set(store.volume_ids)
    if strange:
        raise UsageError.at(
            "detections", expected=f"volumes of {store.path}", found=", ".join(sorted(map(str, strange)))
        )
    wanted = detections[detections["class_name"].isin(classes)]
    groups = dict(iter(wanted.groupby("volume", sort=False)))
    return [_points(record, groups.get(record["id"], wanted.iloc[:0])) for record in store.volume_records]


def _points(record: Mapping[str, object], rows: pd.DataFrame) -> _Points:
    index = rows[["z", "y", "x"]].to_numpy(np.float64)
    if not np.isfinite(index).all():
        raise UsageError.at("detections", expected="finite coordinates", found=f"others in {record['id']}")
    shape, spacing = np.asarray(record["shape"], np.float64), np.asarray(record["voxel_spacing"], np.float64)
    resampling = record.get("resampling")
    if isinstance(resampling, dict):
        own = np.asarray(resampling["source_spacing"], np.float64)
        index = geometry.resampled(index, spacing, own)
        shape, spacing = np.asarray(resampling["source_shape"], np.float64), own
    return _Points(
        str(record["id"]),
        tuple(rows["class_name"]),
        index,
        rows["score"].to_numpy(np.float64),
        rows["n_views"].to_numpy(np.int64),
        shape,
        spacing,
    )


def _write_csv(path: Path, content: _Export) -> Exported:
    rows = [
        (points.volume, name, *index, score, int(n_views))
        for points in content.volumes
        for name, index, score, n_views in zip(
            points.class_names, points.index.tolist(), points.score.tolist(), points.n_views.tolist(), strict=True
        )
    ]
    _put(path, _csv(("volume", "class", "z", "y", "x", "score", "n_views"), rows))
    return Exported((path,), len(rows))


def _write_byu(path: Path, content: _Export) -> Exported:
    """The form of the competition's sample_submission.csv."""
    found = sorted({name for points in content.volumes for name in points.class_names})
    if len(found) > 1:
        hint = f"choose one with --class {found[0]}"
        raise UsageError.at("--format byu", expected="detections of one class", found=", ".join(found), hint=hint)
    rows: list[tuple[object, ...]] = []
    for points in content.volumes:
        best = points.index[points.score.argmax()].tolist() if len(points.index) else (-1, -1, -1)
        rows.append((points.volume, *best))
    _put(path, _csv(("tomo_id", "Motor axis 0", "Motor axis 1", "Motor axis 2"), rows))
    written = sum(1 for points in content.volumes if len(points.index))
    left = content.rows - written
    notes = (f"one row a tomogram: its best detection was written, {left} others were not",) if left else ()
    return Exported((path,), written, notes)


def _write_copick(folder: Path, content: _Export) -> Exported:
    files: dict[Path, str] = {}
    user, session = (_copick_name(text) for text in (content.options.user, content.options.session))
    for points in content.volumes:
        run = folder / "ExperimentRuns" / _file_name(points.volume) / "Picks"
        for name in content.classes:
            mine = np.array([own == name for own in points.class_names], np.bool_)
            if not mine.any():
                continue
            path = run / f"{user}_{session}_{_copick_name(name)}.json"
            if path in files:
                hint = "choose with --class"
                raise UsageError.at(
                    "--format copick", expected="one file a class", found=f"{path.name} twice", hint=hint
                )
            files[path] = json.dumps(_picks(points, name, mine, content.options), indent=1, ensure_ascii=False) + "\n"
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, text)
    return Exported(tuple(files), content.rows)


def _picks(points: _Points, name: str, mine: NDArray[np.bool_], options: Options) -> dict[str, object]:
    angstrom = (points.index[mine] * points.spacing)[:, ::-1].tolist()
    spacings = set(points.spacing.tolist())
    return {
        "pickable_object_name": name,
        "user_id": options.user,
        "session_id": options.session,
        "run_name": points.volume,
        "voxel_spacing": spacings.pop() if len(spacings) == 1 else None,
        "unit": "angstrom",
        "trust_orientation": False,
        "points": [
            {
                "location": dict(zip("xyz", point, strict=True)),
                "transformation_": _IDENTITY,
                "instance_id": 0,
                "score": score,
            }
            for point, score in zip(angstrom, points.score[mine].tolist(), strict=True)
        ],
    }


def _write_relion5(path: Path, content: _Export) -> Exported:
    labels = ("rlnTomoName", *(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"))
    rows = [
        (_star_name(points.volume), *point, *rest)
        for points in content.volumes
        for point, rest in zip(
            ((points.index - points.shape / 2) * points.spacing)[:, ::-1].tolist(),
            _star_rest(points, content),
            strict=True,
        )
    ]
    _put(path, _star_loop("particles", (*labels, *_star_labels(content)), rows))
    return Exported((path,), len(rows), _star_notes(content))


def _write_relion4(path: Path, content: _Export) -> Exported:
    """One optics group for each pixel size."""
    pixels = [_pixel(points, content.options) for points in content.volumes]
    groups = {size: k for k, size in enumerate(dict.fromkeys(pixels), 1)}
    optics = [(k, f"opticsGroup{k}", size) for size, k in groups.items()]
    rows = [
        (_star_name(points.volume), *point, groups[pixel], *rest)
        for points, pixel in zip(content.volumes, pixels, strict=True)
        for point, rest in zip(
            (points.index * points.spacing / pixel)[:, ::-1].tolist(), _star_rest(points, content), strict=True
        )
    ]
    labels = ("rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "rlnOpticsGroup")
    optics_labels = ("rlnOpticsGroup", "rlnOpticsGroupName", "rlnTomoTiltSeriesPixelSize")
    parts = [
        _star_loop("optics", optics_labels, optics),
        _star_loop("particles", (*labels, *_star_labels(content)), rows),
    ]
    _put(path, "\n".join(parts))
    return Exported((path,), len(rows), _star_notes(content))


def _pixel(points: _Points, options: Options) -> float:
    if options.pixel_angstrom is not None:
        if not 0 < options.pixel_angstrom < np.inf:
            raise UsageError.at("--pixel-size", expected="Å above 0", found=f"{options.pixel_angstrom}")
        return float(options.pixel_angstrom)
    sizes = sorted(set(points.spacing.tolist()))
    if len(sizes) > 1:
        found = " × ".join(f"{size:g}" for size in points.spacing)
        hint = "give --pixel-size, Å of a pixel of the tilt series"
        raise UsageError.at("--format relion4", expected="voxels of one size", found=f"{found} Å", hint=hint)
    return float(sizes[0])


def _star_labels(content: _Export) -> tuple[str, ...]:
    return ("rlnAutopickFigureOfMerit", *(("rlnClassNumber",) if len(content.classes) > 1 else ()))


def _star_rest(points: _Points, content: _Export) -> list[tuple[object, ...]]:
    """Score, and where there are several classes the number of the class, from 1."""
    if len(content.classes) == 1:
        return [(score,) for score in points.score.tolist()]
    number = {name: k for k, name in enumerate(content.classes, 1)}
    return [(score, number[name]) for score, name in zip(points.score.tolist(), points.class_names, strict=True)]


def _star_notes(content: _Export) -> tuple[str, ...]:
    if len(content.classes) == 1:
        return ()
    numbered = ", ".join(f"{k} {name}" for k, name in enumerate(content.classes, 1))
    return (f"rlnClassNumber is {numbered}; --columns class=rlnClassNumber reads it",)


def _star_loop(name: str, labels: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """RELION's layout; a blank line ends a loop."""
    head = [f"data_{name}", "", "loop_", *(f"_{label} #{k}" for k, label in enumerate(labels, 1))]
    return "\n".join([*head, *("\t".join(map(_cell, row)) for row in rows), ""]) + "\n"


def _star_name(name: str) -> str:
    if not _STAR_NAME.fullmatch(name) or name.startswith(_STAR_RESERVED):
        raise UsageError.at("STAR", expected="volumes named without blanks, quotes and #", found=repr(name))
    return name


def _csv(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "".join(",".join(map(_quoted, row)) + "\n" for row in [names, *rows])


def _quoted(value: object) -> str:
    text = _cell(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[,"\r\n]|^\s|\s$|^#', text) else text


def _cell(value: object) -> str:
    """The shortest text that is this number again."""
    return repr(value) if isinstance(value, float) else str(value)


def _copick_name(text: str) -> str:
    name = _COPICK_NAME.sub("-", text)
    return _file_name(name)


def _file_name(name: str) -> str:
    if name in ("", ".", "..") or re.search(r"[/\\\x00]", name):
        raise UsageError.at("--format copick", expected="names that can be files", found=repr(name))
    return name


def _put(path: Path, text: str) -> None:
    """Write a file whole: beside its place, to the disk, then renamed."""
    if path.is_dir():
        raise UsageError.at(path, expected="a file's name", found="a folder")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        sync_file(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.absolute().parent)


_WRITERS: Final[Mapping[str, _Writer]] = {
    "csv": _write_csv,
    "byu": _write_byu,
    "copick": _write_copick,
    "relion5": _write_relion5,
    "relion4": _write_relion4,
}

FORMATS: Final = tuple(_WRITERS)
"""Names of the formats."""
