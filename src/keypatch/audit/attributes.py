"""The attributes of the root and the records of volumes and sources: complete, and at one with each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Final

from keypatch.audit.metadata import dig, integers, read_json
from keypatch.formats.store.schema import (
    ATTRIBUTE,
    AXES,
    COMBINE,
    COORDINATE_RULE,
    KINDS,
    NO_FOLD,
    SCHEMA_VERSION,
    parse_version,
)
from keypatch.gaussian import REACH
from keypatch.geometry import UNITS, ZEROS, resampled_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from keypatch.audit.findings import Findings
    from keypatch.audit.tree import Tree

_ROOT: Final = "zarr.json"
_VOLUMES: Final = "volumes/zarr.json"

_KINDS_OF_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "writer": (str, dict),
    "folds": int,
    "sources": list,
    "recipe": dict,
    "report": dict,
    "digests": dict,
}
"""Keys of the root that `keypatch.open` can do without and the schema cannot, with the JSON type of their value."""

_SPACINGS_FROM: Final = ("header", "flag", "annotations")
_FOLD_LIMIT: Final = 2**15
"""Beyond the range of ``patches/fold``."""

_NUMBER_LIMIT: Final = 1e300
"""JSON's integers have no end and float() refuses the long ones."""


@dataclass(frozen=True)
class VolumeRecord:
    """The record of a volume, checked.

    Attributes:
        id: Unique in the store.
        shape: Voxels, z, y, x.
        voxel_spacing: Å, z, y, x.
        fold: -1 where there are no folds.
        json: All of it.
    """

    id: str
    shape: tuple[int, ...]
    voxel_spacing: tuple[float, ...]
    fold: int
    json: Mapping[str, Any]


def check_attributes(attributes: Mapping[str, Any], findings: Findings) -> None:
    """Check the root's attributes against the schema and against each other; counts need the arrays."""

    def demand(key: str, met: bool, expected: object, code: str = "KP106") -> None:
        if not met:
            findings.add(code, f"{_ROOT}: {key}", expected=expected, found=repr(attributes.get(key))[:120])

    for key, kind in _KINDS_OF_KEYS.items():
        value = attributes.get(key)
        demand(key, isinstance(value, kind) and not isinstance(value, bool), f"a value of {_kind_name(kind)}")
    if is_newer(attributes):
        known = f"schema {SCHEMA_VERSION}, the newest that this keypatch knows"
        findings.add("KP118", f"{_ROOT}: schema_version", expected=known, found=attributes["schema_version"])
    demand("axes", attributes["axes"] == list(AXES), list(AXES))
    shape, factor = attributes["patch_shape"], attributes["ds_factor"]
    divides = all(n % f == 0 for n, f in zip(shape, factor, strict=True))
    demand("ds_factor", divides, f"a divisor of the patch shape {shape}")
    grid = [n // f for n, f in zip(shape, factor, strict=True)]
    demand("grid_shape", attributes["grid_shape"] == grid, f"{grid}, patch_shape / ds_factor")
    demand("classes", _are_names(attributes["classes"]), "names, each once, none empty", "KP108")
    demand("kinds", attributes["kinds"] == list(KINDS), list(KINDS), "KP108")
    demand("coordinate_rule", attributes.get("coordinate_rule") == COORDINATE_RULE, "the formulas of the schema")
    target = attributes["gaussian"]
    rule = (target.get("combine"), target.get("reach"))
    demand("gaussian", rule == (COMBINE, REACH), f"combine {COMBINE!r}, reach {REACH}")
    folds = attributes.get("folds")
    demand("folds", type(folds) is int and folds >= 0, "a number from 0")


def is_newer(attributes: Mapping[str, Any]) -> bool:
    """Whether the store's minor version is above the one that this program knows."""
    version, known = parse_version(attributes["schema_version"]), parse_version(SCHEMA_VERSION)
    return version is not None and known is not None and version[1] > known[1]


def check_counts(attributes: Mapping[str, Any], actual: Mapping[str, int | None], findings: Findings) -> None:
    """Hold ``counts`` against the arrays; a count that is None could not be taken."""
    counts = attributes["counts"]
    for name, number in actual.items():
        if number is not None and counts.get(name) != number:
            findings.add("KP107", f"{_ROOT}: counts.{name}", expected=number, found=counts.get(name))


def check_sources(attributes: Mapping[str, Any], findings: Findings) -> int:
    """Check the records of the annotation sources.

    Returns:
        How many there are.
    """
    sources = attributes.get("sources")
    if not isinstance(sources, list):
        return 0
    for k, source in enumerate(sources):
        where = f"{_ROOT}: sources[{k}]"
        if not isinstance(source, dict):
            findings.add("KP110", where, expected="an object", found=repr(source)[:80])
            continue
        for key, kind in (("path", str), ("format", str), ("convention", dict), ("rows", int), ("warnings", list)):
            if not isinstance(source.get(key), kind):
                findings.add("KP110", f"{where}.{key}", expected=_kind_name(kind), found=repr(source.get(key))[:80])
        if not _are_texts(source.get("warnings", [])):
            findings.add("KP110", f"{where}.warnings", expected="a list of lines", found=repr(source["warnings"])[:80])
        if isinstance(source.get("path"), str) and not is_below(source["path"]):
            findings.add("KP110", f"{where}.path", expected="a relative path", found=source["path"])
        if isinstance(source.get("convention"), dict):
            _check_convention(f"{where}.convention", source["convention"], findings)
    return len(sources)


def _check_convention(where: str, convention: Mapping[str, Any], findings: Findings) -> None:
    order = convention.get("axis_order")
    for key, met, expected in (
        ("unit", convention.get("unit") in UNITS, f"one of {', '.join(UNITS)}"),
        ("zero", convention.get("zero") in ZEROS, f"one of {', '.join(ZEROS)}"),
        ("axis_order", isinstance(order, str) and sorted(order) == ["x", "y", "z"], "x, y and z in some order"),
        ("index_base", type(convention.get("index_base")) is int, "0 or 1"),
        ("inferred", _are_texts(convention.get("inferred")), "a list of names"),
        ("notes", _are_texts(convention.get("notes")), "a list of lines"),
    ):
        if not met:
            findings.add("KP110", f"{where}.{key}", expected=expected, found=repr(convention.get(key))[:80])


_FINDING = ("code", "severity", "where", "expected", "found", "settle")


def check_report(attributes: Mapping[str, Any], findings: Findings) -> None:
    """Check the account of what was given and is not in the store."""
    report = attributes.get("report")
    if not isinstance(report, dict):
        return  # said by `check_attributes`
    left_out = report.get("left_out")
    if not isinstance(left_out, list) or not all(map(_is_omission, left_out)):
        expected = "a list of objects with what, reason, count and items"
        findings.add("KP106", f"{_ROOT}: report.left_out", expected=expected, found=repr(left_out)[:120])
    if not _are_texts(report.get("warnings")):
        found = repr(report.get("warnings"))[:120]
        findings.add("KP106", f"{_ROOT}: report.warnings", expected="a list of lines", found=found)
    told = report.get("findings", [])  # the first stores have none
    if not isinstance(told, list) or not all(map(_is_finding, told)):
        expected = f"a list of objects with {', '.join(_FINDING)}, files, volumes and evidence"
        findings.add("KP106", f"{_ROOT}: report.findings", expected=expected, found=repr(told)[:120])


def _is_omission(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in ("what", "reason"))
        and type(value.get("count")) is int
        and isinstance(value.get("items"), list)
    )


def _is_finding(value: object) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), str) for key in _FINDING)
        and all(_are_texts(value.get(key)) for key in ("files", "volumes"))
        and isinstance(value.get("evidence"), dict)
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def read_volumes(
    folder: Path, tree: Tree, attributes: Mapping[str, Any], findings: Findings
) -> tuple[VolumeRecord | None, ...] | None:
    """Read the records of the volumes.

    Returns:
        One record a volume, None in place of one that lacks what the tables are held against; None in place of all
        where there is no list.
    """
    if _VOLUMES not in tree.files:  # said by `check_groups`
        return None
    metadata = read_json(folder, tree, _VOLUMES, findings)
    records = dig(metadata, "attributes", ATTRIBUTE, "volumes")
    if not isinstance(records, list) or not records:
        findings.add("KP109", _VOLUMES, expected="a list of volumes", found=repr(records)[:80])
        return None
    _check_unique(records, findings)
    return tuple(_volume(k, record, attributes, findings) for k, record in enumerate(records))


def _check_unique(records: Sequence[Any], findings: Findings) -> None:
    seen: dict[str, int] = {}
    folds: dict[tuple[str, str], Any] = {}
    for k, record in enumerate(records):
        name, path = dig(record, "id"), dig(record, "path")
        if isinstance(name, str) and seen.setdefault(name, k) != k:
            found = f"{name!r} as in volumes[{seen[name]}]"
            findings.add("KP109", f"{_VOLUMES}: volumes[{k}].id", expected="an id of its own", found=found)
        if not isinstance(path, str):
            continue
        file = (path, str(dig(record, "options")))
        fold = folds.setdefault(file, dig(record, "fold"))
        if fold != dig(record, "fold"):
            found = f"{path} in folds {fold} and {dig(record, 'fold')}"
            findings.add("KP315", f"{_VOLUMES}: volumes[{k}]", expected="one fold a volume", found=found)


def _volume(k: int, record: object, attributes: Mapping[str, Any], findings: Findings) -> VolumeRecord | None:
    where = f"{_VOLUMES}: volumes[{k}]"
    if not isinstance(record, dict):
        findings.add("KP109", where, expected="an object", found=repr(record)[:80], within=_VOLUMES)
        return None
    n_folds = attributes.get("folds")
    bad = {key for key, (_, check) in _VOLUME_KEYS.items() if not check(record.get(key))}
    for key in sorted(bad):
        found = repr(record.get(key))[:80]
        findings.add("KP109", f"{where}.{key}", expected=_VOLUME_KEYS[key][0], found=found, within=_VOLUMES)
    if "fold" not in bad and type(n_folds) is int and not _is_fold(record["fold"], n_folds):
        found = record["fold"]
        findings.add("KP109", f"{where}.fold", expected=fold_range(n_folds), found=found, within=_VOLUMES)
    if not bad & {"shape", "voxel_spacing", "resampling"}:
        _check_resampling(where, record, findings)
    if bad & {"id", "shape", "voxel_spacing", "fold"}:
        return None
    return VolumeRecord(
        record["id"], tuple(record["shape"]), tuple(map(float, record["voxel_spacing"])), record["fold"], record
    )


def _check_resampling(where: str, record: Mapping[str, Any], findings: Findings) -> None:
    """Hold the shape and the spacing of a resampled volume against what was done to its source."""
    done = record.get("resampling")
    if done is None:
        return
    try:
        shape = list(resampled_shape(done["source_shape"], done["source_spacing"], done["spacing"]))
    except ArithmeticError:
        shape = []
    found = {key: record[key] for key in ("shape", "voxel_spacing")}
    if record["shape"] != shape or record["voxel_spacing"] != done["spacing"]:
        expected = {"shape": shape, "voxel_spacing": done["spacing"]}
        findings.add("KP109", f"{where}.resampling", expected=expected, found=found, within=_VOLUMES)


def _is_fold(fold: int, n_folds: int) -> bool:
    return 0 <= fold < n_folds if n_folds else fold == NO_FOLD


def fold_range(n_folds: int) -> str:
    """The folds that a store with this many has, as text."""
    return f"0 … {n_folds - 1}" if n_folds else f"{NO_FOLD}, since there are no folds"


def is_below(path: str) -> bool:
    """Whether a recorded path is relative and stays below its folder, on any system."""
    windows = PureWindowsPath(path)
    return (
        bool(path)
        and not windows.is_absolute()
        and not windows.drive
        and not windows.root
        and (".." not in PurePosixPath(path).parts and ".." not in windows.parts)
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and len(set(value)) == len(value) and all(n.strip() for n in value)


def _are_positive(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(n) in (int, float) and 0 < n < _NUMBER_LIMIT for n in value)
    )


def _is_scaling(value: object) -> bool:
    if not isinstance(value, dict) or not {"low", "high", "percentiles", "clipped_share"} <= value.keys():
        return False
    pair = value["percentiles"]
    return (
        isinstance(value.get("dtype"), str)
        and all(_is_number(value.get(key)) for key in ("scale", "offset"))
        and all(value[key] is None or _is_number(value[key]) for key in ("low", "high", "clipped_share"))
        and (pair is None or (isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _NUMBER_LIMIT


def _are_options(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("array"), str | None)
        and (value.get("level_spacing") is None or _is_number(value["level_spacing"]))
        and isinstance(value.get("unsigned"), bool)
    )


def _is_resampling(value: object) -> bool:
    if value is None:  # also where the key is missing, as in stores of before
        return True
    return (
        isinstance(value, dict)
        and _is_text(value.get("kernel"))
        and _is_shape(value.get("source_shape"))
        and _are_positive(value.get("source_spacing"))
        and _are_positive(value.get("spacing"))
    )


def _is_shape(value: object) -> bool:
    return len(shape := integers(value) or ()) == 3 and all(0 < n < 2**62 for n in shape)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


_VOLUME_KEYS: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "id": ("a name", _is_text),
    "path": ("a relative path that stays below the shared folder", lambda v: isinstance(v, str) and is_below(v)),
    "format": ("the name of a reader", _is_text),
    "options": ("array, level_spacing and unsigned", _are_options),
    "shape": ("3 numbers of voxels", _is_shape),
    "dtype": ("the name of a dtype", _is_text),
    "voxel_spacing": ("3 numbers above 0", _are_positive),
    "voxel_spacing_from": (f"one of {', '.join(_SPACINGS_FROM)}", lambda v: v in _SPACINGS_FROM),
    "resampling": ("null, or kernel, source_shape, source_spacing and spacing", _is_resampling),
    "fold": ("a number from -1", lambda v: type(v) is int and NO_FOLD <= v < _FOLD_LIMIT),
    "conventions": ("an object", lambda v: isinstance(v, dict)),
    "scaling": ("dtype, scale, offset, low, high, percentiles and clipped_share", _is_scaling),
}


def _kind_name(kind: type | tuple[type, ...]) -> str:
    names = {str: "text", dict: "an object", list: "a list", int: "a whole number"}
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(names[k] for k in kinds)
