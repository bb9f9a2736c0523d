"""`stats --html` without a browser: which patches, how small, how big the file, what is in it, where it may lie."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keypatch.audit.counts import KeypointRows
from keypatch.audit.page import document
from keypatch.audit.page.choice import choose_patches
from keypatch.audit.page.document import write_page
from keypatch.audit.page.plots import Bar, Segment, bars, histogram
from keypatch.audit.page.voxels import choose_step, shrink
from keypatch.audit.stats import StoreStats, stats
from keypatch.errors import CorruptionError, UsageError
from keypatch.formats.store import Store

from .sources import keypatch
from .stores import Design, Made, copy_of, edit_attributes, edit_json, flip, make_store

HOSTILE = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1"> & \u2028 "'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def figures(made: Made) -> StoreStats:
    return stats(made.path)


@pytest.fixture(scope="module")
def page(figures: StoreStats, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "stats.html"
    write_page(figures, path)
    return path.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match
    value: dict[str, Any] = json.loads(match[1])
    return value


def voxels_of(page: str, index: int, shape: list[int]) -> np.ndarray:
    match = re.search(rf'<script type="text/plain" id="voxels-{index}">([A-Za-z0-9+/=]*)</script>', page)
    assert match
    return np.frombuffer(base64.b64decode(match[1]), np.uint8).reshape(shape)


class Elements(HTMLParser):
    """Every element with its attributes, and every text that is not inside a script or style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] not in ("script", "style"):
            self.text += data


# ----- what is in the file -----


def test_every_patch_of_a_small_store_is_there(made: Made, page: str) -> None:
    data = data_of(page)
    assert [record["index"] for record in data["patches"]] == list(range(10))
    assert (data["step"], data["ds_factor"], data["patch_shape"]) == ([1, 1, 1], [4, 8, 4], [16, 32, 24])
    assert data["classes"] == ["motor", "ribosome"]
    columns = made.columns
    for i, record in enumerate(data["patches"]):
        rows = slice(*columns["patches/keypoint_offsets"][i : i + 2].tolist())
        order = np.lexsort((record["annotations"],))
        np.testing.assert_allclose(
            np.array(record["points"]).reshape(-1, 3)[order], columns["keypoints/local_rs_coords"][rows], atol=5e-4
        )
        classes = np.array(record["point_classes"], int)[order]
        assert classes.tolist() == columns["keypoints/class_index"][rows].tolist()
        assert record["sigma"] == (columns["patches/ds_sigma"][i] * [4, 8, 4]).tolist()
        assert record["origin"] == columns["patches/origin"][i].tolist()
        assert record["inside"] == sorted(record["inside"], reverse=True)
        assert (record["kind"], record["fold"]) == (
            "centered" if columns["patches/kind"][i] == 0 else "grid",
            columns["patches/fold"][i],
        )


def test_voxels_are_those_of_the_store_in_eight_bits(made: Made, page: str) -> None:
    for record in data_of(page)["patches"]:
        found = voxels_of(page, record["index"], record["shape"]).astype(np.float64)
        low, high = record["window"]
        image = made.images[record["index"]].astype(np.float64)
        valid = tuple(slice(a, b) for a, b in zip(*record["valid"], strict=True))
        assert [low, high] == np.percentile(image[valid], (0.5, 99.5)).tolist()
        back = low + found / 255 * (high - low)
        np.testing.assert_allclose(back, np.clip(image, low, high), atol=(high - low) / 255)


def test_nothing_reaches_outside(page: str) -> None:
    elements = Elements(page)
    for tag, attributes in elements.found:
        assert "src" not in attributes, tag
        assert attributes.get("href", "#figures") == "#figures"
        assert not any(name.startswith("on") for name in attributes)
        assert "style" not in attributes
    assert {"link", "iframe", "object", "img", "base"}.isdisjoint(tag for tag, _ in elements.found)
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_only_the_script_and_style_of_the_page_may_run(page: str) -> None:
    policy = next(a["content"] for _, a in Elements(page).found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_names_that_are_code_stay_names(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    edit_attributes(store, lambda attributes: attributes.update(classes=[HOSTILE, "</style>"]))

    def rename(value: Any) -> None:
        value["attributes"]["keypatch"]["volumes"][0]["id"] = HOSTILE

    edit_json(store / "volumes/zarr.json", rename)
    write_page(stats(store.path), tmp_path / "stats.html")
    page = (tmp_path / "stats.html").read_text(encoding="utf-8")
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert "img" not in tags
    assert tags.count("style") == 1
    assert len([a for tag, a in elements.found if tag == "script" and not a]) == 1
    assert HOSTILE in elements.text
    data = data_of(page)
    assert data["classes"][0] == HOSTILE
    assert HOSTILE in {record["volume"] for record in data["patches"]}


def test_every_figure_is_on_the_page(figures: StoreStats, page: str) -> None:
    text = Elements(page).text
    lost = f"{figures.uncovered[0].source} row {figures.uncovered[0].source_row}"
    for expected in (figures.digest, "Overlap of patches", "Stored voxels by volume", "tomo_1", lost):
        assert expected in text
    assert page.count('<svg class="plot"') == 10 + len(figures.intensity)
    assert "95 %" in text


def test_text_stands_out_enough() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1 for text, in both schemes; its formulas of relative luminance and contrast."""
    style = (Path(document.__file__).parent / "page.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r"\{([^{}]*--ground:[^{}]*)\}", style)
    ]
    assert len(schemes) == 3
    assert schemes[1] == schemes[2]

    def luminance(color: str) -> float:
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    for scheme in schemes:
        for text, ground, least in [
            ("text", "ground", 7), ("text", "card", 7), ("quiet", "ground", 4.5), ("quiet", "card", 4.5),
            ("accent", "card", 3), ("a", "card", 3),
        ]:  # fmt: skip
            bright, dark = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= least, (text, ground)


# ----- which patches -----


def test_a_choice_has_every_kind_fold_volume_and_class(made: Made) -> None:
    store = Store(made.path)
    rows = KeypointRows.of(store)
    for seed in range(5):
        chosen = choose_patches(store, rows, 4, seed)
        assert len(set(chosen)) == 4
        assert chosen == sorted(chosen) == choose_patches(store, rows, 4, seed)
        for table in ("kind", "fold", "volume_index"):
            values = store.table(f"patches/{table}")
            assert set(values[chosen]) == set(values)
        inside = rows.inside & np.isin(rows.owner, chosen)
        assert set(rows.class_index[inside]) == set(rows.class_index[rows.inside])
    assert len({tuple(choose_patches(store, rows, 2, seed)) for seed in range(12)}) > 1
    assert choose_patches(store, rows, 99) == list(range(10))


# ----- how small -----


@given(st.tuples(*[st.integers(1, 400)] * 3), st.integers(1, 10**6))
def test_a_patch_is_made_to_fit(shape: tuple[int, int, int], room: int) -> None:
    step = choose_step(shape, room)
    small = [-(-n // s) for n, s in zip(shape, step, strict=True)]
    assert math.prod(small) <= room
    assert step == (1, 1, 1) or math.prod(shape) > room


def test_steps_for_a_patch_like_byus() -> None:
    assert choose_step((160, 288, 288), 843_750) == (2, 3, 3)
    assert choose_step((64, 96, 96), 843_750) == (1, 1, 1)


def test_blocks_are_averaged(made: Made) -> None:
    store = Store(made.path)
    patch, step = store[3], (3, 5, 4)
    small = shrink(patch, step)
    assert small.voxels.shape == (6, 7, 6)
    low, high = small.window
    for z, y, x in [(0, 0, 0), (2, 3, 4), (5, 6, 5)]:
        block = patch.image[3 * z : 3 * z + 3, 5 * y : 5 * y + 5, 4 * x : 4 * x + 4]
        grey = (float(block.mean()) - low) / (high - low)
        assert small.voxels[z, y, x] == pytest.approx(255 * min(max(grey, 0), 1), abs=0.51)


def test_padding_does_not_darken_the_blocks_at_the_edge_of_the_volume(made: Made) -> None:
    bounds = {"valid_start": np.array([1, 7, 2]), "valid_stop": np.array([16, 31, 21])}
    patch = dataclasses.replace(Store(made.path)[3], **bounds)
    patch.image[...] = 0
    patch.image[1:16, 7:31, 2:21] = 100
    patch.image[1:16:2, 7:31, 2:21] = 200
    small = shrink(patch, (3, 5, 4))
    low, high = small.window
    assert 100 <= low < high <= 200
    for block, mean in (((0, 1, 0), 150), ((0, 6, 5), 150), ((1, 1, 0), 500 / 3), ((2, 3, 5), 400 / 3)):
        assert low + small.voxels[block] / 255 * (high - low) == pytest.approx(np.clip(mean, low, high), abs=0.2)
    assert not small.voxels[:, 0].any()  # rows 0 … 4 hold no voxel of the volume: they stay as they are


def test_voxels_that_are_no_numbers_are_black(tmp_path: Path) -> None:
    made = make_store(tmp_path, Design(source_dtype="float32", dtype="float32", gaussian_dtype=None))
    patch = Store(made.path)[0]
    patch.image[0, 0, :2] = np.nan, np.inf
    patch.image[1] = 3e38
    small = shrink(patch, (1, 1, 1))
    assert small.voxels[0, 0, 0] == 0
    assert np.isfinite(small.window).all()


def test_the_file_keeps_to_its_budget(made: Made, figures: StoreStats, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(document, "BUDGET", document._BESIDES + 20_000)
    write_page(figures, tmp_path / "small.html")
    write_page(figures, tmp_path / "few.html", patches=2)
    small, few = (data_of((tmp_path / name).read_text()) for name in ("small.html", "few.html"))
    for name, data in (("small.html", small), ("few.html", few)):
        page = (tmp_path / name).read_text()
        encoded = sum(len(text) for text in re.findall(r'id="voxels-\d+">([^<]*)<', page))
        assert encoded <= 20_000 + 4 * len(data["patches"])
        assert f"{' × '.join(map(str, data['step']))} voxels averaged to one" in page
    assert (len(small["patches"]), len(few["patches"])) == (10, 2)
    assert math.prod(few["step"]) < math.prod(small["step"])


def test_a_crowd_of_keypoints_is_cut_and_said(made: Made, figures: StoreStats, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(document, "KEYPOINTS", 2)
    write_page(figures, tmp_path / "stats.html")
    records = data_of((tmp_path / "stats.html").read_text())["patches"]
    counts = np.diff(made.columns["patches/keypoint_offsets"])
    assert [len(record["points"]) + record["hidden"] for record in records] == counts.tolist()
    assert max(len(record["points"]) for record in records) == 2
    assert any(record["hidden"] for record in records)


# ----- plots -----


def test_bars_are_as_long_as_their_values() -> None:
    rows = [Bar("one", "3", [Segment(3, "a", "x"), Segment(1, "b", "y")]), Bar("<b>", "2", [Segment(2, "a", "z")])]
    plot = bars(rows, 'a "plot" <i>')
    boxes = re.findall(r'class="fill (\w)" x="([\d.]+)" y="\d+" width="([\d.]+)"', plot)
    assert boxes == [("a", "0.00", "255.00"), ("b", "255.00", "85.00"), ("a", "0.00", "170.00")]
    assert "<b>" not in plot
    assert 'aria-label="a &quot;plot&quot; &lt;i&gt;"' in plot


def test_columns_are_as_high_as_their_counts() -> None:
    plot = histogram([1, 0, 4], [0, 1, 2, 3], "three", "mm")
    boxes = re.findall(r'class="fill a" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', plot)
    assert [(float(x), float(h)) for x, _, _, h in boxes] == [(0.0, 24.0), (226.67, 96.0)]
    assert "3 mm</text>" in plot
    assert "2 to 3 mm: 4</title>" in plot
    assert histogram([], [], "none") == ""


# ----- where it may lie -----


def test_the_command_writes_the_page_beside_the_text(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "stats.html"
    path.write_text("of before")
    result = keypatch("stats", made.path, "--html", path, "--html-patches", "3", "--json")
    assert result.code == 0
    assert json.loads(result.out)[0]["patches"] == 10
    assert f"wrote {path}" in result.err
    page = path.read_text(encoding="utf-8")
    assert len(data_of(page)["patches"]) == 3
    assert "3 of 10 patches" in Elements(page).text
    assert [file.name for file in tmp_path.iterdir()] == ["stats.html"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~document._umask()


@pytest.mark.parametrize("place", ["stats.html", "image/c/stats.html", "../store.zarr/stats.html"])
def test_never_inside_the_store(made: Made, place: str) -> None:
    before = sorted(made.path.rglob("*"))
    result = keypatch("stats", made.path, "--html", made.path / place)
    assert (result.code, result.out) == (2, "")
    assert "expected a file outside the store" in result.err
    assert sorted(made.path.rglob("*")) == before


def test_a_link_into_the_store_is_inside_it(made: Made, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made.path, target_is_directory=True)
    assert keypatch("stats", made.path, "--html", tmp_path / "link/stats.html").code == 2


def test_places_that_take_no_file(made: Made, tmp_path: Path) -> None:
    assert keypatch("stats", made.path, "--html", tmp_path).code == 2
    missing = keypatch("stats", made.path, "--html", tmp_path / "no/stats.html")
    assert (missing.code, missing.out) == (3, "")
    several = keypatch("stats", made.path, made.path, "--html", tmp_path / "stats.html")
    assert several.code == 2
    assert "expected one store" in several.err
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_fails_leaves_the_old_one(made: Made, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path)
    figures = stats(store.path)
    flip(store / "image/c/2/0/0/0", 50)
    path = tmp_path / "stats.html"
    path.write_text("of before")
    with pytest.raises(CorruptionError):
        write_page(figures, path)
    assert path.read_text() == "of before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.zarr", "stats.html"]
    with pytest.raises(UsageError):
        write_page(figures, store / "stats.html")
