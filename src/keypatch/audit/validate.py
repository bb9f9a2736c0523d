"""`validate`: finds what is wrong with a store, at three depths and against its sources."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from keypatch.audit import gaussians
from keypatch.audit.findings import Findings
from keypatch.audit.identities import check_identities
from keypatch.audit.jsonable import jsonable
from keypatch.audit.layout import Target, check_digests, check_shard_files, open_target
from keypatch.audit.ranges import check_ranges
from keypatch.audit.reach import check_reach
from keypatch.audit.recut import check_sources
from keypatch.audit.shards import UnitArray, check_hash
from keypatch.audit.voxels import check_finite, check_padding, check_target
from keypatch.errors import UsageError
from keypatch.findings import Finding
from keypatch.formats.store.schema import GAUSSIAN, IMAGE

if TYPE_CHECKING:
    from os import PathLike

Depth: TypeAlias = Literal["quick", "full", "deep"]
DEPTHS: Final[tuple[Depth, ...]] = get_args(Depth)


@dataclass
class Checked:
    """How much was looked at, so that "no findings" cannot mean "nothing checked".

    Attributes:
        files: In the store.
        tables: Small arrays read whole.
        rows: Of these.
        units: Whose shards were read.
        bytes_hashed: Of shards held against their sha256.
        chunks: Of shards decoded.
        patches: Images decoded.
        padded_patches: Of these, with padding held against the recipe.
        identities: Whether the tables were held against each other.
        gaussians: Stored Gaussians rendered again.
        gaussians_equal: Of these, with the same bytes.
        gaussian_difference: Largest absolute difference of a value.
        peaks: Peaks whose place was measured.
        peak_offset: Largest distance of a peak from its keypoint, coarse voxels, along one axis.
        recut: Patches cut again from their source.
    """

    files: int = 0
    tables: int = 0
    rows: int = 0
    units: int = 0
    bytes_hashed: int = 0
    chunks: int = 0
    patches: int = 0
    padded_patches: int = 0
    identities: bool = False
    gaussians: int = 0
    gaussians_equal: int = 0
    gaussian_difference: float = 0.0
    peaks: int = 0
    peak_offset: float = 0.0
    recut: int = 0

    def add(self, other: Checked) -> None:
        """Take over what was looked at elsewhere: numbers are summed, of the largest values the larger counts."""
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if isinstance(mine, float | bool) else mine + theirs)


@dataclass(frozen=True)
class ValidationReport:
    """What `validate` found.

    Attributes:
        path: The store.
        depth: "quick", "full" or "deep".
        findings: All of them; of many alike, the first and a count.
        checked: How much was looked at.
        digest: Of the store, computed from its present files; None where the subset leaves it out, or a file could not
            be read. At depth "full" without findings, every byte of the store is the one that it stands for.
    """

    path: Path
    depth: Depth
    findings: tuple[Finding, ...]
    checked: Checked = field(default_factory=Checked)
    digest: str | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make the store unfit."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that a person should know."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def passed(self, *, strict: bool = False) -> bool:
        """Whether the store is sound; ``strict`` takes warnings for errors."""
        return not (self.findings if strict else self.errors)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        result: dict[str, Any] = jsonable(self)
        return result | {"errors": len(self.errors), "warnings": len(self.warnings)}


def validate(
    path: str | PathLike[str],
    depth: str = "quick",
    source: str | PathLike[str] | None = None,
    subset: tuple[int, int] | None = None,
) -> ValidationReport:
    """Look for damage in a store; nothing in it is written.

    Args:
        path: A store in a local folder.
        depth: "quick" reads metadata and tables and holds file sizes, offsets, index ranges and digests against each
            other. "full" also reads every byte: hashes, checksums, NaN, padding, and every identity between tables.
            "deep" also renders every stored Gaussian again.
        source: Folder that all volumes share: patches are cut again from it and compared, at any depth.
        subset: (K, N), K from 1: of the units, every N-th, beginning with the K-th. What is no unit's (metadata,
            tables) is checked by K = 1 alone, so that the N subsets together check everything once.

    Returns:
        The report; findings do not raise.

    Raises:
        StoreError: If there is no keypatch store, or one of another major version.
        ReadError: If ``source`` is no folder.
        UsageError: If ``depth`` or ``subset`` is none.
    """
    known_depth = next((known for known in DEPTHS if known == depth), None)
    if known_depth is None:
        raise UsageError.at("--depth", expected=", ".join(DEPTHS), found=repr(depth))
    k, n = subset or (1, 1)
    if not 1 <= k <= n:
        raise UsageError.at("--subset", expected="K/N with 1 <= K <= N", found=f"{k}/{n}")
    findings, checked, digest = Findings(), Checked(), None
    # Damaged tables may hold any number: what they overflow to is reported, not warned about.
    with np.errstate(all="ignore"):
        target = open_target(path, findings)
        if k == 1:
            digest = _check_whole(target, known_depth, findings, checked)
        else:
            findings = Findings()
        units = range(k - 1, target.n_units, n)
        if depth != "quick":
            for unit in units:
                checked.add(check_unit(target, unit, findings, deep=depth == "deep"))
        if source is not None:
            checked.recut = check_sources(target, Path(source), units, findings)
    return ValidationReport(Path(path), known_depth, findings.listed(), checked, digest)


def _check_whole(target: Target, depth: Depth, findings: Findings, checked: Checked) -> str | None:
    """What is no unit's."""
    checked.files = len(target.tree.files)
    checked.tables = len(target.tables)
    checked.rows = sum(len(values) for values in target.tables.values())
    check_shard_files(target, findings)
    check_ranges(target, findings)
    if depth != "quick":
        check_identities(target, findings)
        check_reach(target, findings)
        checked.identities = True
    return check_digests(target, findings)


def check_unit(target: Target, unit: int, findings: Findings, *, deep: bool) -> Checked:
    """Read the shards of one unit: hashes, indices, chunks and values. Needs nothing of other units.

    Args:
        target: The store.
        unit: Its number.
        findings: Added to.
        deep: Whether Gaussians are rendered again.
    """
    checked = Checked(units=1)
    for name, spec in target.arrays.items():
        if unit >= spec.n_shards:
            continue
        checked.bytes_hashed += check_hash(target, name, unit, findings)
        with UnitArray(target, name, unit, findings) as shard:
            checked.chunks += shard.check_index()
            if name == IMAGE:
                _check_images(target, shard, findings, checked)
            if name == GAUSSIAN:
                _check_gaussians(target, shard, findings, checked, deep=deep)
    return checked


def _check_images(target: Target, shard: UnitArray, findings: Findings, checked: Checked) -> None:
    for patch, values in shard.items():
        checked.patches += 1
        if check_finite(f"image: patch {patch}", values, findings):
            checked.padded_patches += check_padding(target, patch, values, findings)


def _check_gaussians(target: Target, shard: UnitArray, findings: Findings, checked: Checked, *, deep: bool) -> None:
    deep = deep and gaussians.has_usable_offsets(target)
    for patch, values in shard.items():
        sound = check_target(f"gaussian: patch {patch}", values, findings)
        keypoints = gaussians.keypoints_of(target, patch) if deep and sound else None
        if keypoints is None:
            continue
        comparison = gaussians.check_gaussian(patch, values, keypoints, findings)
        checked.gaussians += 1
        checked.gaussians_equal += comparison.equal
        checked.gaussian_difference = max(checked.gaussian_difference, comparison.difference)
        checked.peaks += len(comparison.peak_offsets)
        checked.peak_offset = max(checked.peak_offset, float(comparison.peak_offsets.max(initial=0)))
