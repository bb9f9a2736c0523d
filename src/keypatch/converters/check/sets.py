"""The data set as a whole: pairing, duplicates, classes, folds."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from keypatch.converters.check.finding import finding
from keypatch.converters.notes import point, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from keypatch.converters.catalog_volume import CatalogVolume
    from keypatch.converters.check.finding import CatalogFinding
    from keypatch.converters.notes import Omission

NEAR = 1.0
"""Voxels; two annotators, or two versions of a file, seldom agree to less by chance."""


def check_omission(code: str, omission: Omission) -> CatalogFinding:
    """What was left out while files were paired and merged, as a finding (KP631, KP632, KP641)."""
    expected = {
        "KP631": "annotations, or a statement that there are none, for every volume",
        "KP632": "the volumes that the annotations name",
        "KP641": "every point once",
    }
    what = omission.what.removesuffix("s") if omission.count == 1 else omission.what
    return finding(
        code,
        expected=expected[code],
        found=f"{omission.count} {what} left out: {some(omission.items)}",
        settle={"KP631": "--unannotated negative", "KP632": "--map NAME=VOLUME"}.get(code, ""),
        evidence={"count": omission.count},
    )


def check_files(
    volumes: Sequence[CatalogVolume], classes: Sequence[str], files: Sequence[str]
) -> Iterator[CatalogFinding]:
    """KP633 and KP642: several files for one class in one volume, and points of these that are nearly the same."""
    several: dict[tuple[str, ...], list[CatalogVolume]] = defaultdict(list)
    near: list[tuple[CatalogVolume, int, int]] = []
    for volume in volumes:
        for k in np.unique(volume.points.class_index):
            rows = np.flatnonzero(volume.points.class_index == k)
            owners = np.unique(volume.points.source_index[rows])
            if len(owners) > 1:
                several[classes[k], *(files[owner] for owner in owners)].append(volume)
                near += [(volume, *pair) for pair in _near(volume, rows)]
    for (name, *shared), of in several.items():
        yield finding(
            "KP633",
            files=shared,
            volumes=[volume.id for volume in of],
            expected="one file for the points of a class in a volume",
            found=f"{len(shared)} with points of {name!r} in {len(of)} volumes",
            evidence={"class": name, "volumes": len(of)},
        )
    if near:
        yield _near_finding(near, files)


def _near(volume: CatalogVolume, rows: Iterable[int]) -> list[tuple[int, int]]:
    """Rows of points of different files that are less than a voxel apart."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - 250 ms that other commands need not wait for

    chosen = np.asarray(rows)
    pairs = cKDTree(volume.points.coords[chosen]).query_pairs(np.nextafter(NEAR, 0), output_type="ndarray")
    first, second = chosen[pairs[:, 0]], chosen[pairs[:, 1]]
    apart = volume.points.source_index[first] != volume.points.source_index[second]
    return sorted(zip(first[apart].tolist(), second[apart].tolist(), strict=True))


def _near_finding(near: Sequence[tuple[CatalogVolume, int, int]], files: Sequence[str]) -> CatalogFinding:
    volume, first, second = near[0]
    points = volume.points
    one, other = (f"{files[points.source_index[k]]} row {points.source_row[k]}" for k in (first, second))
    apart = float(np.linalg.norm(points.coords[first] - points.coords[second]))
    owners = {files[v.points.source_index[k]] for v, *pair in near for k in pair}
    return finding(
        "KP642",
        files=sorted(owners),
        volumes=[v.id for v, _, _ in near],
        expected="points of different files at different places",
        found=f"{len(near)} pairs, such as {one} and {other}, {apart:.3g} voxels apart "
        f"at {point(points.coords[first])} in {volume.id}",
        evidence={"pairs": len(near), "distance": float(f"{apart:.6g}")},
    )


def check_classes(
    volumes: Sequence[CatalogVolume], classes: Sequence[str], names: Iterable[str]
) -> Iterator[CatalogFinding]:
    """KP643 and KP644.

    Args:
        volumes: With their points.
        classes: That ``class_index`` counts into.
        names: Of all classes in the files, also those that are not wanted.
    """
    counts = np.zeros(len(classes), np.int64)
    for volume in volumes:
        counts += np.bincount(volume.points.class_index, minlength=len(classes))
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if single and counts.sum() > 1:
        yield finding(
            "KP643",
            expected="classes of several points",
            found=f"one of {some(map(repr, single))}",
            settle="--classes",
            evidence={"classes": single},
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        alike[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
    for same in alike.values():
        if len(same) > 1:
            yield finding(
                "KP644",
                expected="names of classes that differ in more than case and separators",
                found=some(map(repr, same)),
                settle="--classes",
                evidence={"classes": same},
            )


def check_folds(volumes: Sequence[CatalogVolume], classes: Sequence[str], n_folds: int) -> Iterator[CatalogFinding]:
    """KP651 and KP652."""
    if n_folds > len(volumes):
        yield finding(
            "KP651",
            expected=f"at least {n_folds} volumes for {n_folds} folds",
            found=f"{len(volumes)} for {n_folds} folds",
            settle=f"--folds {len(volumes)}" if len(volumes) > 1 else "--folds 0",
            evidence={"folds": n_folds, "volumes": len(volumes)},
        )
        return
    holders = [sum(bool((v.points.class_index == k).any()) for v in volumes) for k in range(len(classes))]
    rare: Mapping[str, int] = {name: n for name, n in zip(classes, holders, strict=True) if 0 < n < n_folds}
    if rare:
        yield finding(
            "KP652",
            expected=f"every class in at least {n_folds} volumes",
            found=some(f"{name!r} in {n}" for name, n in rare.items()),
            settle="--folds",
            evidence={"volumes_with": dict(rare)},
        )
