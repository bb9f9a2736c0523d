"""What ``keypatch inspect`` says, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keypatch.cli import printing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from keypatch.audit.inspect import (
        AnnotationsDescription,
        ArrayDescription,
        KeypointDescription,
        PatchDescription,
        StoreDescription,
        VolumeDescription,
    )
    from keypatch.audit.tracing import AnnotationDescription, Node, PatchRow, StoredVolumeDescription

SHOWN = 10
"""Volumes, keypoints or names that are listed one by one."""


def store_text(store: StoreDescription) -> str:
    """A store at a glance."""
    counts = store.counts
    pairs = [
        ("store", store.path),
        ("schema", f"{store.schema_version}, written by {store.writer}"),
        ("digest", store.digest),
        ("patches", f"{counts['patches']} of {printing.shape(store.patch_shape)} voxels"),
        ("grid", f"{printing.shape(store.grid_shape)}, 1/{printing.shape(store.ds_factor)} of it"),
        ("keypoints", f"{counts['keypoints']} as seen from the patches, of {counts['annotations']} annotations"),
        ("classes", ", ".join(store.classes)),
        ("folds", str(store.folds) if store.folds else "none"),
    ]
    pairs += [(array.name, _array(array)) for array in store.arrays]
    lines = [printing.rows(pairs), "volumes"]
    lines += [f"  {_volume_of_store(volume)}" for volume in store.volumes[:SHOWN]]
    lines += _more(len(store.volumes))
    lines.append("sources")
    lines += [f"  {s['path']}: {s['format']}, {_convention(s['convention'])}" for s in store.sources[:SHOWN]]
    lines += _more(len(store.sources))
    if store.left_out:
        lines += ["left out", printing.omissions(store.left_out)]
    if store.warnings:
        lines += ["warnings", *(f"  {warning}" for warning in store.warnings)]
    told = [found for found in store.findings if found["severity"] != "note"]
    if told:
        lines.append("check of the sources")
        lines += [f"  {found['code']} {found['where']}: {found['found']}" for found in told[:SHOWN]]
        lines += _more(len(told))
    return "\n".join(lines)


def _array(array: ArrayDescription) -> str:
    parts = [f"{printing.shape(array.shape)} {array.dtype}", f"{printing.size(array.raw)} raw"]
    if array.chunk_shape is not None:
        parts.append(f"chunks {printing.shape(array.chunk_shape)}")
    if array.shards is not None:
        parts.append(f"{printing.plural(array.shards, 'shard')} of {array.patches_per_shard}")
    return ", ".join([*parts, array.codec])


def _volume_of_store(volume: Mapping[str, Any]) -> str:
    return (
        f"{volume['id']}: {printing.shape(volume['shape'])} {volume['dtype']}, "
        f"{_angstrom(volume['voxel_spacing'])} ({volume['voxel_spacing_from']}), "
        f"{printing.plural(volume['patches'], 'patch', 'patches')}, "
        f"{printing.plural(volume['annotations'], 'annotation')}, {volume['path']}"
    )


def patch_text(patch: PatchDescription) -> str:
    """One patch and its keypoints."""
    box = " ".join(f"{axis}[{a}:{b}]" for axis, a, b in zip("zyx", patch.origin, patch.stop, strict=True))
    pairs = [
        ("patch", f"{patch.index}, {patch.kind}" + (f", fold {patch.fold}" if patch.fold >= 0 else "")),
        ("cut from", f"{patch.volume}, voxels {box} of {patch.file}"),
        ("padding", f"{patch.padded_share:.1%}" if patch.padded_share else "none"),
        ("spacing", _angstrom(patch.voxel_spacing)),
        ("sigma", f"{_numbers(patch.ds_sigma)} coarse voxels, {_angstrom(patch.angstrom_sigma)}"),
        ("image", f"{patch.minimum:g} to {patch.maximum:g}, mean {patch.mean:.4g}"),
    ]
    if patch.gaussian_maximum is not None:
        maxima = ", ".join(f"{name} {value:.3f}" for name, value in patch.gaussian_maximum.items())
        pairs.append(("gaussian", f"greatest value: {maxima}"))
    inside = [keypoint for keypoint in patch.keypoints if keypoint.inside]
    beyond = [keypoint for keypoint in patch.keypoints if not keypoint.inside]
    count = f"{printing.plural(len(inside), 'keypoint')} inside, {len(beyond)} beyond the border"
    lines = [printing.rows(pairs), count]
    lines += [_keypoint_line(keypoint) for keypoint in [*inside, *beyond][:SHOWN]]
    return "\n".join(lines + _more(len(patch.keypoints)))


def _keypoint_line(keypoint: KeypointDescription) -> str:
    where = "" if keypoint.inside else " (beyond)"
    return (
        f"  {keypoint.class_name}{where}: rs {_point(keypoint.local_rs)}, ds {_point(keypoint.local_ds)}, "
        f"volume {_point(keypoint.global_coords)}, {keypoint.source} row {keypoint.source_row}"
    )


def tree_text(path: str, nodes: Sequence[Node]) -> str:
    """Groups and arrays with what they hold, indented as they lie."""
    lines, named = [path], [(node, "  " * node.path.count("/") + node.path.rpartition("/")[2]) for node in nodes]
    width = max(len(name) for _, name in named)
    for node, name in named:
        of_a_group = node.shape is None
        is_array = "" if of_a_group else f"{printing.shape(node.shape or ())} {node.dtype}"
        size = "" if node.size is None else f"{printing.plural(node.files or 0, 'file')}, {printing.size(node.size)}"
        lines.append(f"  {name + '/' * of_a_group:<{width + 1}}  {is_array:<22}  {size:<18}  {node.meaning}".rstrip())
    return "\n".join(lines)


def patches_text(selection: str, patches: Sequence[PatchRow]) -> str:
    """The patches of a selection, the first ones one by one."""
    lines = [f"{printing.plural(len(patches), 'patch', 'patches')}: {selection}"]
    return "\n".join([*lines, *_patch_lines(patches)])


def _patch_lines(patches: Sequence[PatchRow]) -> list[str]:
    lines = []
    for patch in patches[:SHOWN]:
        fold = f", fold {patch.fold}" if patch.fold >= 0 else ""
        origin = ", ".join(map(str, patch.origin))
        held = printing.counted(patch.inside) if patch.inside else "no keypoint"
        beyond = f", {patch.beyond} beyond the border" if patch.beyond else ""
        lines.append(f"  {patch.index}: {patch.kind}{fold}, {patch.volume} from ({origin}), {held}{beyond}")
    return lines + _more(len(patches))


def stored_volume_text(volume: StoredVolumeDescription) -> str:
    """A volume of a store, its patches and its annotations."""
    record = volume.record
    kinds: dict[str, int] = {}
    for patch in volume.patches:
        kinds[patch.kind] = kinds.get(patch.kind, 0) + 1
    scaling = record.get("scaling", {})
    low, high = scaling.get("low"), scaling.get("high")
    as_they_are = f"as {scaling.get('dtype')}" + ("" if low is None else f", {low:g} to {high:g} in the source")
    pairs = [
        ("volume", str(record["id"]) + (f", fold {record['fold']}" if record.get("fold", -1) >= 0 else "")),
        ("file", f"{record['path']}, {record['format']}"),
        ("shape", f"{printing.shape(record['shape'])} (z, y, x) {record['dtype']}"),
        ("spacing", f"{_angstrom(record['voxel_spacing'])} ({record['voxel_spacing_from']})"),
        ("voxels", f"stored {as_they_are}"),
        *((key, _value(value)) for key, value in record.get("conventions", {}).items()),
        ("patches", f"{len(volume.patches)} ({printing.counted(kinds)})"),
    ]
    lines = [printing.rows(pairs), *_patch_lines(volume.patches)]
    lines.append(f"{printing.plural(len(volume.annotations), 'annotation')}")
    for row in volume.annotations[:SHOWN]:
        held = f"in patch {', '.join(map(str, row.patches[:SHOWN]))}" if row.patches else "in no patch"
        more = f" and {len(row.patches) - SHOWN} more" if len(row.patches) > SHOWN else ""
        lines.append(
            f"  {row.row}: {row.class_name} {_point(row.coords)}, {row.source} row {row.source_row}, {held}{more}"
        )
    return "\n".join(lines + _more(len(volume.annotations)))


def annotation_text(annotation: AnnotationDescription) -> str:
    """Where an annotation came from and where it ended up."""
    inside = [sighting for sighting in annotation.sightings if sighting.inside]
    beyond = [sighting for sighting in annotation.sightings if not sighting.inside]
    fold = f", fold {annotation.fold}" if annotation.fold >= 0 else ""
    held = printing.plural(len(inside), "patch", "patches") if inside else "no patch"
    score = "" if annotation.score is None else f", score {annotation.score:g}"
    pairs = [
        ("annotation", f"{annotation.row}, {annotation.class_name}{score}"),
        ("from", f"{annotation.source} row {annotation.source_row}"),
        ("volume", f"{annotation.volume}{fold}, at {_point(annotation.coords)}"),
        ("ended up", f"in {held}, and reaches into {len(beyond) or 'none'}{' more' if inside and beyond else ''}"),
    ]
    lines = [
        f"  patch {sighting.patch}, {sighting.kind}{'' if sighting.inside else ' (beyond)'}: "
        f"rs {_point(sighting.local_rs)}, ds {_point(sighting.local_ds)}"
        for sighting in annotation.sightings[:SHOWN]
    ]
    return "\n".join([printing.rows(pairs), *lines, *_more(len(annotation.sightings))])


def source_text(source: VolumeDescription | AnnotationsDescription) -> str:
    """What was read of a source, and what was assumed."""
    from keypatch.audit.inspect import VolumeDescription

    return _volume_text(source) if isinstance(source, VolumeDescription) else _annotations_text(source)


def _volume_text(volume: VolumeDescription) -> str:
    spacing = "not declared: give --voxel-spacing" if volume.voxel_spacing is None else _angstrom(volume.voxel_spacing)
    values = f"{volume.minimum:g} to {volume.maximum:g}, mean {volume.mean:.4g} ({volume.looked_at})"
    if volume.not_finite:
        values += f", and {volume.not_finite} NaN or infinite"
    access = {
        "mapped": "reads only its voxels, from a memory map",
        "region": "reads only the chunks that it touches",
        "slices": "reads whole slices",
        "whole": "reads all of it",
    }
    pairs = [
        ("volume", volume.path),
        ("format", volume.format),
        ("shape", f"{printing.shape(volume.shape)} (z, y, x) {volume.dtype}, {printing.size(volume.raw)}"),
        ("spacing", spacing),
        *([("extent", f"{_numbers(volume.extent)} Å")] if volume.extent else []),
        ("values", values),
        ("a patch", access.get(volume.access, volume.access)),
        *((key, _value(value)) for key, value in volume.conventions.items()),
    ]
    return "\n".join([printing.rows(pairs), *_warnings(volume.warnings)])


def _annotations_text(source: AnnotationsDescription) -> str:
    empty = sum(1 for n in source.by_volume.values() if not n)
    volumes = f"{len(source.by_volume)}" + (f", {empty} of them without a point" if empty else "")
    pairs = [
        ("annotations", source.path),
        ("format", source.format),
        ("read as", _convention(source.convention)),
        *[("", f"note: {note}") for note in source.convention["notes"]],
        ("points", str(source.points)),
        ("volumes", volumes),
        ("classes", printing.counted({name or "(none named)": n for name, n in source.by_class.items()})),
    ]
    if source.low is not None and source.high is not None:
        spans = (f"{axis} {a:.6g} to {b:.6g}" for axis, a, b in zip("zyx", source.low, source.high, strict=True))
        pairs.append(("range", ", ".join(spans)))
    lines = [printing.rows(pairs)]
    for name, n in list(source.by_volume.items())[:SHOWN]:
        hints = ", ".join(f"{key} {_value(value)}" for key, value in source.volume_hints.get(name, {}).items())
        named = f"  {name or '(no volume named)'}: {printing.plural(n, 'point')}"
        lines.append(f"{named}; {hints}" if hints else named)
    lines += _more(len(source.by_volume))
    for left_out in source.left_out:
        detail = f" ({left_out['detail']})" if left_out["detail"] else ""
        lines.append(f"left out: {printing.plural(len(left_out['rows']), 'row')}: {left_out['reason']}{detail}")
    return "\n".join([*lines, *_warnings(source.warnings)])


def _convention(convention: Mapping[str, Any]) -> str:
    """``angstrom, xyz, zero at volume-center (assumed)``: what was assumed is marked."""
    assumed = set(convention["inferred"])

    def marked(name: str, text: str) -> str:
        return f"{text} (assumed)" if name in assumed else text

    base = [marked("index_base", f"first voxel is {convention['index_base']}")] if convention["index_base"] else []
    return ", ".join(
        [
            marked("unit", str(convention["unit"])),
            marked("axis_order", f"values in the order {convention['axis_order']}"),
            marked("zero", f"zero at {convention['zero']}"),
            *base,
        ]
    )


def _warnings(warnings: Sequence[str]) -> list[str]:
    return ["warnings", *(f"  {warning}" for warning in warnings)] if warnings else []


def _more(n: int) -> list[str]:
    return [f"  … and {n - SHOWN} more (--json lists all)"] if n > SHOWN else []


def _value(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in (values[:1] if len(set(values)) == 1 else values))


def _angstrom(values: Sequence[float]) -> str:
    return f"{' '.join(f'{value:g}' for value in dict.fromkeys(round(v, 6) for v in values))} Å"


def _point(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values) + ")"
