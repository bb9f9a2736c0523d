"""The catalog: every volume with its annotations, in voxel-index coordinates, and what could not be used and why.

Only headers and annotation files are read here. Nothing is guessed silently and nothing vanishes: what is given and not
used is in ``left_out``, what was assumed or contradicts itself is in ``warnings``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from keypatch import geometry
from keypatch.converters.catalog_volume import CatalogVolume
from keypatch.converters.check import CatalogFinding, Observed, check_points
from keypatch.converters.check.sets import check_classes, check_files, check_folds, check_omission
from keypatch.converters.check.stated import check_headers
from keypatch.converters.notes import Notes, Omission, point, row_items, some
from keypatch.converters.pairing import NOT_GIVEN, Header, Pairing, Source
from keypatch.converters.patterns import Match, expand
from keypatch.converters.placing import place
from keypatch.converters.points import Points
from keypatch.converters.resample import Resampling
from keypatch.errors import ReadError, UsageError
from keypatch.findings import SEVERITIES
from keypatch.formats.annotations import VolumeHint, read_annotations
from keypatch.formats.store.disk import resolved
from keypatch.formats.volumes import VolumeInfo, open_volume, volume_stem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from keypatch.converters.recipe import Recipe
    from keypatch.geometry import Vector3

DEFAULT_CLASS: Final = "keypoint"
"""Class of annotations where neither the file nor ``{class}`` names one."""

_UNNAMED: Final = "no annotation file names them (--unannotated negative takes them as empty)"
_DUPLICATES: Final = "duplicates of another in place and class"
_OMISSIONS: Final = {_UNNAMED: "KP631", NOT_GIVEN: "KP632", _DUPLICATES: "KP641"}
"""What is left out and is a finding of its own; points outside are told of by `check_points`."""


@dataclass(frozen=True)
class Catalog:
    """All volumes of a recipe, sorted by id.

    Attributes:
        volumes: With their annotations, in the order of the sources and their rows.
        classes: Names that ``class_index`` counts into.
        sources: One JSON object an annotation file, as in the store.
        source_paths: Where these files are now.
        left_out: What was given and is not used.
        warnings: One line each: what readers and pairing assumed.
        findings: Of the check of all this, the gravest first.
    """

    volumes: tuple[CatalogVolume, ...]
    classes: tuple[str, ...]
    sources: tuple[dict[str, Any], ...]
    source_paths: tuple[Path, ...]
    left_out: tuple[Omission, ...]
    warnings: tuple[str, ...]
    findings: tuple[CatalogFinding, ...] = ()

    @property
    def has_errors(self) -> bool:
        """Whether something cannot be right as it is read."""
        return any(found.severity == "error" for found in self.findings)


def build_catalog(recipe: Recipe, target: Path | None = None) -> Catalog:
    """Read all headers and annotations of a recipe and pair them.

    Args:
        recipe: Checked.
        target: Where the store will lie; see `keypatch.converters.plan.build_plan`.

    Raises:
        ReadError: If a file that the person named cannot be read, or a pattern matches nothing.
        UsageError: If names are not unique, nothing can be paired, or a spacing is needed and unknown.
    """
    notes = Notes()
    headers = _read_headers(recipe, target, notes)
    sources = _read_sources(recipe, notes)
    _warn_of_other_classes(sources, notes)
    pairing = Pairing(headers, sources, recipe.map, notes)
    points: dict[str, list[_Group]] = defaultdict(list)
    hints: dict[str, VolumeHint] = {}
    for index, source in enumerate(sources):
        for volume_id, hint, rows in pairing.rows(source):
            if hint is not None:
                hints[volume_id] = _merged(hints.get(volume_id), hint)
            points[volume_id].append(_Group(index, source, rows))
    named = _drop_unannotated(recipe, headers, points, notes)
    classes = _classes(recipe, points, notes)
    observed: list[Observed] = []
    volumes = tuple(
        _volume(
            recipe, headers[volume_id], points[volume_id], hints.get(volume_id, VolumeHint()), classes, notes, observed
        )
        for volume_id in sorted(named)
    )
    _check_any(recipe, volumes, notes)
    described = tuple(_described(source) for source in sources)
    paths = tuple(source.match.path for source in sources)
    files = [source.relative_path for source in sources]
    findings = [
        *check_points(observed),
        *check_headers(volumes, hints),
        *(check_omission(_OMISSIONS[entry.reason], entry) for entry in notes.left_out if entry.reason in _OMISSIONS),
        *check_files(volumes, classes, files),
        *check_classes(volumes, classes, _class_names(points)),
        *check_folds(volumes, classes, recipe.folds),
    ]
    findings.sort(key=lambda found: SEVERITIES.index(found.severity))
    return Catalog(volumes, classes, described, paths, notes.left_out, notes.warnings, tuple(findings))


@dataclass(frozen=True)
class _Group:
    """The rows of one annotation file that belong to one volume."""

    source_index: int
    source: Source
    rows: pd.DataFrame

    def class_names(self) -> NDArray[Any]:
        """The file's own names; else ``{class}``; else the default."""
        own = self.rows["class_name"]
        return own.where(own.notna(), self.source.match.fields.get("class") or DEFAULT_CLASS).to_numpy(dtype=object)


def _read_headers(recipe: Recipe, target: Path | None, notes: Notes) -> dict[str, Header]:
    opened: list[tuple[Match, VolumeInfo]] = []
    strangers: list[str] = []
    for match in _in_order(expand(recipe.volumes)):
        if target is not None and resolved(match.path) == resolved(target) and not match.named:
            continue
        try:
            with open_volume(match.path, recipe.volume_options) as volume:
                opened.append((match, volume.info))
        except ReadError as error:
            if match.named:
                raise
            # The message may be of a file in a folder; what goes into a store has no absolute path.
            strangers.append(str(error).replace(str(match.path), match.path.name))
    notes.omit("volumes", "matched by the pattern, but not readable as a volume", strangers)
    if not opened:
        raise ReadError.at(
            ", ".join(recipe.volumes),
            expected="at least one volume",
            found="none",
            hint=strangers[0] if strangers else "",
        )
    root = _common_folder([match.path for match, _ in opened])
    headers: dict[str, Header] = {}
    for match, info in opened:
        volume_id = match.fields.get("volume") or volume_stem(match.path, [info.format])
        if volume_id in headers:
            raise UsageError.at(
                match.path,
                expected="a name of its own",
                found=f"{volume_id!r}, which is also that of {headers[volume_id].match.path}",
                hint="give a pattern with {volume} where the names differ",
            )
        header = headers[volume_id] = Header(volume_id, match, info, _relative(match.path, root))
        for warning in info.warnings:
            notes.warn(header.relative_path, warning)
    return headers


def _read_sources(recipe: Recipe, notes: Notes) -> list[Source]:
    matches = _in_order(expand(recipe.annotations))
    root = _common_folder([match.path for match in matches])
    sources = []
    for match in matches:
        source = Source(match, read_annotations(match.path, recipe.annotation_options), _relative(match.path, root))
        sources.append(source)
        for warning in source.table.warnings:
            notes.warn(source.relative_path, warning)
        for left_out in source.table.left_out:
            reason = f"{left_out.reason} ({left_out.detail})" if left_out.detail else left_out.reason
            notes.omit("annotations", reason, row_items(source.relative_path, left_out.rows))
    return sources


def _in_order(matches: Sequence[Match]) -> list[Match]:
    """By their paths: the order in which a person gives files does not change a store."""
    return sorted(matches, key=lambda match: os.path.abspath(match.path))  # noqa: PTH100 - see _relative


def _merged(earlier: VolumeHint | None, later: VolumeHint) -> VolumeHint:
    """The first file that says something counts."""
    if earlier is None:
        return later
    return VolumeHint(
        voxel_spacing=earlier.voxel_spacing or later.voxel_spacing,
        shape=earlier.shape or later.shape,
        file_stem=earlier.file_stem or later.file_stem,
    )


def _drop_unannotated(
    recipe: Recipe, headers: Mapping[str, Header], points: Mapping[str, list[_Group]], notes: Notes
) -> list[str]:
    """Ids of the volumes to use. A volume that no file names is not the same as one that is stated to be empty."""
    silent = [volume_id for volume_id in headers if volume_id not in points]
    if recipe.unannotated == "skip":
        notes.omit("volumes", _UNNAMED, [headers[volume_id].relative_path for volume_id in silent])
        return [volume_id for volume_id in headers if volume_id in points]
    if silent:
        notes.warn("--unannotated", f"{len(silent)} volumes that no annotation file names are taken as empty")
    return list(headers)


def _classes(recipe: Recipe, points: Mapping[str, list[_Group]], notes: Notes) -> tuple[str, ...]:
    found = _class_names(points)
    if recipe.classes is None:
        return tuple(sorted(found)) or (DEFAULT_CLASS,)
    for name in recipe.classes:
        if name not in found:
            notes.warn("--classes", f"no annotation is of class {name!r}; found are {some(sorted(found))}")
    return recipe.classes


def _class_names(points: Mapping[str, list[_Group]]) -> set[str]:
    return {name for groups in points.values() for group in groups for name in group.class_names()}


def _volume(
    recipe: Recipe,
    header: Header,
    groups: Sequence[_Group],
    hint: VolumeHint,
    classes: tuple[str, ...],
    notes: Notes,
    observed: list[Observed],
) -> CatalogVolume:
    """One volume with its points; those of wanted classes, inside or not, are added to ``observed``."""
    spacing, origin = _spacing(recipe, header, hint)
    resampling = Resampling.towards(recipe.resample_to, header.match.path, header.info.shape, spacing)
    parts = []
    for group in groups:
        seen, wanted = _observe(recipe, header, group, hint, spacing, classes, notes)
        observed.append(seen)
        parts.append(_inside(seen, group, wanted, resampling, classes, notes))
    points = Points.concatenate(parts)
    return CatalogVolume(
        id=header.id,
        path=header.match.path,
        relative_path=header.relative_path,
        info=header.info if resampling is None else resampling.info(header.info),
        voxel_spacing=spacing if resampling is None else resampling.spacing,
        voxel_spacing_from=origin,
        points=_without_duplicates(header, groups, points, notes),
        resampling=resampling,
    )


def _observe(
    recipe: Recipe,
    header: Header,
    group: _Group,
    hint: VolumeHint,
    spacing: Vector3,
    classes: tuple[str, ...],
    notes: Notes,
) -> tuple[Observed, NDArray[np.bool_]]:
    """One group's points of wanted classes in voxel-index coordinates, and which of its rows these are."""
    rows, table = group.rows, group.source.table
    wanted = np.isin(group.class_names(), np.array(classes, dtype=object))
    row_numbers = rows["source_row"].to_numpy(np.int64)
    if not wanted.all():
        unwanted = row_items(group.source.relative_path, row_numbers[~wanted])
        notes.omit("annotations", "their class is not in --classes", unwanted)
    source = rows[["z", "y", "x"]].to_numpy(np.float64)[wanted]
    seen = Observed(
        file=group.source.relative_path,
        format=table.format,
        convention=table.convention,
        volume=header.id,
        info=header.info,
        spacing=spacing,
        coordinate_spacing=recipe.coordinate_spacing,
        hint=hint,
        source=source,
        coords=place(source, table.convention, spacing, header.info, recipe.coordinate_spacing),
        rows=row_numbers[wanted],
    )
    return seen, wanted


def _inside(
    seen: Observed,
    group: _Group,
    wanted: NDArray[np.bool_],
    resampling: Resampling | None,
    classes: tuple[str, ...],
    notes: Notes,
) -> Points:
    """Those that lie in their volume, in voxel-index coordinates of the grid that patches are cut on.

    All that a convention names (the volume's centre, its size, its spacing) is of the file, so that comes first.
    """
    items = [
        f"{seen.file} row {row} at {point(coords)} in {seen.volume} of {_shape(seen.info.shape)} voxels"
        for row, coords in zip(seen.rows[~seen.inside], seen.coords[~seen.inside], strict=True)
    ]
    notes.omit("annotations", "outside their volume", items)
    coords, used = seen.coords, seen.inside
    if resampling is not None:
        coords = resampling.coords(coords)
        cut_off = used & ~geometry.inside(coords, resampling.shape)
        items = row_items(seen.file, seen.rows[cut_off])
        notes.omit("annotations", "in the rest of a voxel that resampling cuts off at the far end of an axis", items)
        used = used & ~cut_off
    position = {name: k for k, name in enumerate(classes)}
    names, scores = group.class_names()[wanted], group.rows["score"].to_numpy(np.float64)[wanted]
    return Points(
        coords=coords[used],
        class_index=np.array([position[name] for name in names[used]], np.int32),
        source_index=np.full(int(used.sum()), group.source_index, np.int32),
        source_row=seen.rows[used],
        score=scores[used],
    )


def _without_duplicates(header: Header, groups: Sequence[_Group], points: Points, notes: Notes) -> Points:
    """Keep the first of annotations that are equal in place and class."""
    keys = np.column_stack([points.coords, points.class_index])
    keep = np.zeros(len(keys), bool)
    keep[np.unique(keys, axis=0, return_index=True)[1]] = True
    files = {group.source_index: group.source.relative_path for group in groups}
    again = [
        f"{files[points.source_index[k]]} row {points.source_row[k]} at {point(points.coords[k])} in {header.id}"
        for k in np.flatnonzero(~keep)
    ]
    notes.omit("annotations", _DUPLICATES, again)
    return points.select(keep)


def _spacing(recipe: Recipe, header: Header, hint: VolumeHint) -> tuple[Vector3, str]:
    """The spacing that counts: the flag's, else the header's, else the annotations'."""
    if recipe.voxel_spacing is not None:
        return recipe.voxel_spacing, "flag"
    own = header.info.voxel_spacing
    if own is not None:
        return own, "header"
    if hint.voxel_spacing is not None:
        return hint.voxel_spacing, "annotations"
    raise UsageError.at(
        header.match.path,
        expected="a voxel spacing in its header or in the annotations",
        found="none",
        hint="give --voxel-spacing in Å",
    )


def _check_any(recipe: Recipe, volumes: Sequence[CatalogVolume], notes: Notes) -> None:
    if volumes:
        return
    reasons = "; ".join(f"{omission.count} {omission.what}: {omission.reason}" for omission in notes.left_out)
    raise UsageError.at(
        ", ".join(recipe.annotations),
        expected="annotations of at least one of the volumes",
        found=f"none ({reasons})",
        hint="pair the names with {volume} patterns or --map NAME=VOLUME",
    )


def _warn_of_other_classes(sources: Sequence[Source], notes: Notes) -> None:
    for source in sources:
        by_path = source.match.fields.get("class")
        own = sorted(set(source.table.points["class_name"].dropna()) - {by_path})
        if by_path is not None and own:
            notes.warn(source.relative_path, f"is of class {some(own)}, which counts; its path says {by_path}")


def _described(source: Source) -> dict[str, Any]:
    table, convention = source.table, source.table.convention
    return {
        "path": source.relative_path,
        "format": table.format,
        "convention": {
            "unit": convention.unit,
            "axis_order": convention.axis_order,
            "zero": convention.zero,
            "index_base": convention.index_base,
            "inferred": list(convention.inferred),
            "notes": list(convention.notes),
        },
        "rows": len(table.points),
        "warnings": list(table.warnings),
    }


def _common_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))  # noqa: PTH100 - see _relative


def _relative(path: Path, root: Path) -> str:
    """Links keep the names that the person gave them: a folder of links is a layout like any other."""
    return Path(os.path.abspath(path)).relative_to(root).as_posix()  # noqa: PTH100 - Path.resolve follows links


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
