"""Where annotations ended up, what came of a volume, which patches a choice means: against the tables, row by row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from keypatch.audit.selection import Selection, draw, select
from keypatch.audit.tracing import (
    describe_annotation,
    describe_patches,
    describe_stored_volume,
    describe_tree,
    find_annotations,
)
from keypatch.errors import UsageError
from keypatch.formats.store import Store

from .stores import Made, copy_of, edit_attributes, make_store

SHAPE = (16, 32, 24)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def store(made: Made) -> Store:
    return Store(made.path)


def _holds(made: Made, patch: int, annotation: int) -> bool:
    """Whether a patch holds an annotation, from volumes and origins alone."""
    columns = made.columns
    rs = columns["annotations/coords"][annotation] - columns["patches/origin"][patch]
    same = columns["annotations/volume_index"][annotation] == columns["patches/volume_index"][patch]
    return bool(same and all(-0.5 <= c < n - 0.5 for c, n in zip(rs, SHAPE, strict=True)))


def test_every_annotation_is_found_in_its_patches(made: Made, store: Store) -> None:
    columns, n_patches = made.columns, made.layout.n_patches
    for row, point in enumerate(columns["annotations/coords"]):
        found = describe_annotation(store, row)
        inside = [s.patch for s in found.sightings if s.inside]
        assert inside == [p for p in range(n_patches) if _holds(made, p, row)]
        assert [s.inside for s in found.sightings] == sorted((s.inside for s in found.sightings), reverse=True)
        assert {s.patch for s in found.sightings} == {
            int(np.searchsorted(columns["patches/keypoint_offsets"], k, side="right") - 1)
            for k in np.flatnonzero(columns["keypoints/annotation_index"] == row)
        }
        for sighting in found.sightings:
            origin = columns["patches/origin"][sighting.patch]
            assert sighting.origin == tuple(origin)
            assert sighting.local_rs == pytest.approx(point - origin)
            assert sighting.local_ds == pytest.approx((point - origin + 0.5) / (4, 8, 4) - 0.5)
        volume = int(columns["annotations/volume_index"][row])
        assert (found.row, found.volume, found.fold) == (row, f"tomo_{volume}", volume % 2)
        assert found.coords == tuple(point)
        assert found.class_name == ("motor", "ribosome")[columns["annotations/class_index"][row]]
        assert found.source == ("first.csv", "second.csv")[columns["annotations/source_index"][row]]
        json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(("name", "row"), [("0", 0), ("10", 10), ("first.csv:2", 2), ("second.csv:4", 4)])
def test_annotations_are_named_by_row_or_by_source(store: Store, name: str, row: int) -> None:
    assert find_annotations(store, name) == [row]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("11", "a row from 0 to 10, found 11"),
        ("-1", "ROW or FILE:ROW"),
        ("seven", "ROW or FILE:ROW"),
        ("first.csv:", "ROW or FILE:ROW"),
        ("third.csv:1", "one of the sources first.csv, second.csv, found 'third.csv', none of that name"),
        ("first.csv:4", "found 4, which is no annotation there"),
        ("first.csv:77", "found 77, which was left out: outside its volume"),
    ],
)
def test_an_annotation_that_is_not_there_is_explained(made: Made, tmp_path: Path, name: str, says: str) -> None:
    copy = copy_of(made, tmp_path)
    left_out = {"what": "annotations", "reason": "outside its volume", "count": 1, "items": ["first.csv row 77"]}
    edit_attributes(copy, lambda a: a["report"]["left_out"].append(left_out))
    with pytest.raises(UsageError) as error:
        find_annotations(Store(copy.path), name)
    assert says in str(error.value)


def test_sources_of_one_name_need_their_path(made: Made, tmp_path: Path) -> None:
    copy = copy_of(made, tmp_path)

    def rename(attributes: dict) -> None:
        for k, source in enumerate(attributes["sources"]):
            source["path"] = f"day{k}/picks.csv"

    edit_attributes(copy, rename)
    store = Store(copy.path)
    assert find_annotations(store, "day0/picks.csv:1") == [1]
    with pytest.raises(UsageError, match="several of that name"):
        find_annotations(store, "picks.csv:1")


def test_a_volume_is_described_with_what_came_of_it(made: Made, store: Store) -> None:
    found = describe_stored_volume(store, "tomo_1")
    columns = made.columns
    assert found.record["path"] == "day1/tomo_1.npy"
    assert [p.index for p in found.patches] == np.flatnonzero(columns["patches/volume_index"] == 1).tolist()
    assert [a.row for a in found.annotations] == np.flatnonzero(columns["annotations/volume_index"] == 1).tolist()
    for annotation in found.annotations:
        holders = [p for p in range(made.layout.n_patches) if _holds(made, p, annotation.row)]
        assert annotation.patches == tuple(holders)
    json.dumps(found.to_json(), allow_nan=False)
    with pytest.raises(UsageError, match="--volume: expected one of tomo_0, tomo_1, found 'tomo_2'"):
        describe_stored_volume(store, "tomo_2")


def test_patches_are_described_in_few_words(made: Made, store: Store) -> None:
    rows = describe_patches(store, list(range(len(store))))
    for patch, row in enumerate(rows):
        mine = [a for a in range(len(made.columns["annotations/coords"])) if _holds(made, patch, a)]
        assert sum(row.inside.values()) == len(mine)
        assert 0 not in row.inside.values()
        n_all = int(np.diff(made.columns["patches/keypoint_offsets"])[patch])
        assert row.beyond == n_all - len(mine)


def test_the_tree_is_what_lies_on_the_disk(made: Made, store: Store) -> None:
    nodes = {node.path: node for node in describe_tree(store)}
    on_disk = {path.parent.relative_to(made.path).as_posix() for path in made.path.rglob("zarr.json")} - {"."}
    assert set(nodes) == on_disk
    for name, node in nodes.items():
        files = [path for path in (made.path / name).rglob("*") if path.is_file()]
        assert (node.files, node.size) == (len(files), sum(path.stat().st_size for path in files))
        metadata = json.loads((made.path / name / "zarr.json").read_text())
        assert (node.shape is None) == (metadata["node_type"] == "group")
        if node.shape is not None:
            assert (list(node.shape), node.dtype) == (metadata["shape"], metadata["data_type"])
        assert node.meaning


# ----- choosing patches -----

GRID, CENTERED = 4, 0
CHOICES = [  # a choice, and the kinds and volumes (each of a fold of its own) that meet it
    (Selection(kinds=("grid",)), {GRID}, {0, 1}),
    (Selection(kinds=("grid", "centered")), {GRID, CENTERED}, {0, 1}),
    (Selection(folds=(1,)), {GRID, CENTERED}, {1}),
    (Selection(volumes=("tomo_0",)), {GRID, CENTERED}, {0}),
    (Selection(kinds=("grid",), folds=(1,), volumes=("tomo_1",)), {GRID}, {1}),
    (Selection(folds=(0,), volumes=("tomo_1",)), {GRID, CENTERED}, set()),
    (Selection(kinds=("negative",)), set(), {0, 1}),
    (Selection(), {GRID, CENTERED}, {0, 1}),
]


@pytest.mark.parametrize(("selection", "kinds", "volumes"), CHOICES)
def test_a_choice_means_the_patches_that_meet_it(
    made: Made, store: Store, selection: Selection, kinds: set[int], volumes: set[int]
) -> None:
    table = zip(made.columns["patches/kind"].tolist(), made.columns["patches/volume_index"].tolist(), strict=True)
    expected = [patch for patch, (kind, volume) in enumerate(table) if kind in kinds and volume in volumes]
    assert select(store, selection) == expected


@pytest.mark.parametrize("name", ["motor", "ribosome"])
def test_a_class_means_a_keypoint_inside(made: Made, store: Store, name: str) -> None:
    index = ("motor", "ribosome").index(name)
    mine = np.flatnonzero(made.columns["annotations/class_index"] == index)
    expected = [p for p in range(len(store)) if any(_holds(made, p, a) for a in mine)]
    assert select(store, Selection(classes=(name,))) == expected
    assert 0 < len(expected) < len(store)


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        (Selection(kinds=("odd",)), "--kind: expected one of centered, multi, hard_negative, negative, grid"),
        (Selection(classes=("odd",)), "--class: expected one of motor, ribosome, found 'odd'"),
        (Selection(folds=(7,)), "--fold: expected one of 0, 1, found '7'"),
        (Selection(volumes=("odd",)), "--volume: expected one of tomo_0, tomo_1, found 'odd'"),
    ],
)
def test_a_choice_of_nothing_that_exists_is_an_error(store: Store, selection: Selection, says: str) -> None:
    with pytest.raises(UsageError) as error:
        select(store, selection)
    assert says in str(error.value)


def test_a_draw_is_the_same_for_a_seed_and_in_order() -> None:
    indices = list(range(100, 200))
    drawn = draw(indices, 10, 3)
    assert drawn == sorted(set(drawn)) == draw(indices, 10, 3)
    assert len(drawn) == 10
    assert set(drawn) <= set(indices)
    assert drawn != draw(indices, 10, 4)
    assert draw(indices, 100) == draw(indices, 500) == indices
    assert draw([], 5) == []
