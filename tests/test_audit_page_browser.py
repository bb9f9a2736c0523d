"""The page of `stats --html` in a real headless Chromium: what a person presses, and what is then on the screen."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image

import keypatch
from keypatch.audit.page import document
from keypatch.audit.page.document import write_page
from keypatch.audit.stats import stats
from keypatch.audit.view import slice_center
from keypatch.formats.store import Store

from .chromium import PATIENCE, Chromium, chromium, find_chromium
from .stores import Made, edit_attributes, edit_json, make_store

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt install chromium")

HOSTILE = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
RED, OVERLAY = np.array([255, 82, 82]), 0.6
POINT = (20.3, 30.7, 33.2)
SHAPE, SIGMA = (32, 48, 48), 8.0
PLANES = {"yx": (0, 1, 2), "yz": (2, 1, 0), "zx": (1, 0, 2)}
"""Name to the axes normal to it, down and right."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Several kinds, folds and volumes, with a class and a volume whose names are code."""
    made = make_store(tmp_path_factory.mktemp("made"))
    edit_attributes(made.path, lambda attributes: attributes.update(classes=["motor", HOSTILE]))

    def rename(value: Any) -> None:
        value["attributes"]["keypatch"]["volumes"][1]["id"] = f"tomo_1{HOSTILE}{'long' * 40}"

    edit_json(made.path / "volumes/zarr.json", rename)
    return made


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "stats.html"
    write_page(stats(made.path), path)
    return path


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Iterator[Chromium]:
    """The page in a window of 1280 × 900; whatever a test does there, the console must stay silent."""
    browser.resize(1280)
    browser.open(page)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.run("window.pwned") is None


def value(browser: Chromium, element: str) -> str:
    return browser.run(f"document.querySelector('{element}').value")


def text(browser: Chromium, element: str) -> str:
    return browser.run(f"document.querySelector('{element}').textContent")


def focused(browser: Chromium) -> str:
    return browser.run(
        "(({id, name, className, tagName}) => id || name || className || tagName)(document.activeElement)"
    )


def chosen(browser: Chromium) -> int:
    return int(browser.run("document.querySelector('#strip [aria-selected=true]').dataset.index"))


def shown(browser: Chromium) -> list[int]:
    script = (
        "[...document.querySelectorAll('#strip li')].filter((li) => li.offsetParent).map((li) => +li.dataset.index)"
    )
    return browser.run(script)


def set_filter(browser: Chromium, name: str, option: str) -> None:
    """Choose the option with this text, as a hand would."""
    browser.run(
        f"""(() => {{ const select = document.getElementById("filter-{name}");
        const found = [...select.options].find((option) => option.textContent === {json.dumps(option)});
        select.value = found.value; select.dispatchEvent(new Event("change")); }})()"""
    )


def box_of(browser: Chromium, plane: str) -> list[float]:
    """Left, top, width and height of a plane in the window."""
    script = f"document.querySelector('canvas[data-plane={plane}]').getBoundingClientRect()"
    return browser.run(f"(({{x, y, width, height}}) => [x, y, width, height])({script})")


def pixels(browser: Chromium, plane: str) -> np.ndarray:
    """(height, width, 3) of a plane's canvas."""
    url = browser.run(f"document.querySelector('canvas[data-plane={plane}]').toDataURL()")
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.array(picture.convert("RGB")).astype(int)


# ----- loading, names, network -----


def test_it_opens_without_a_word_and_asks_for_nothing(opened: Chromium) -> None:
    assert text(opened, "#matches") == "10 of 10 shown"
    assert len(shown(opened)) == 10
    assert opened.run("document.querySelectorAll('img, iframe, link').length") == 0


def test_a_name_that_is_code_is_shown_as_a_name(opened: Chromium) -> None:
    options = opened.run("[...document.querySelectorAll('#filter-class option')].map((option) => option.textContent)")
    assert HOSTILE in options
    set_filter(opened, "class", HOSTILE)
    assert HOSTILE in text(opened, "#points")
    assert opened.run("window.pwned") is None


def test_an_injected_script_does_not_run(browser: Chromium, page: Path) -> None:
    """What the content security policy is for: even where text became markup, it would be refused."""
    browser.open(page)
    browser.run(
        """(() => { const script = document.createElement("script"); script.textContent = "window.pwned = 1";
        document.body.append(script); document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='pwned = 1'>");
        })()"""
    )
    browser.settle()
    assert browser.run("window.pwned") is None
    refused = [complaint for complaint in browser.complaints() if "Content Security Policy" in complaint]
    assert len(refused) >= 2
    failed = [event["params"] for event in browser.events if event["method"] == "Network.loadingFailed"]
    assert [failure["blockedReason"] for failure in failed] == ["csp"]


def test_the_figures_need_no_script(browser: Chromium, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.load(page)
        tree = json.dumps(browser.call("DOM.getDocument", depth=-1))
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Overlap of patches" in tree


# ----- filters -----


def test_filters_leave_the_patches_that_fit(opened: Chromium, made: Made) -> None:
    columns = made.columns
    kinds, volumes = columns["patches/kind"], columns["patches/volume_index"]
    set_filter(opened, "kind", "grid")
    assert shown(opened) == np.flatnonzero(kinds == 4).tolist()
    assert chosen(opened) == np.flatnonzero(kinds == 4)[0]
    set_filter(opened, "volume", "tomo_0")
    assert shown(opened) == np.flatnonzero((kinds == 4) & (volumes == 0)).tolist()
    set_filter(opened, "fold", "fold 1")
    assert shown(opened) == []
    assert text(opened, "#matches") == "no patch fits"
    assert opened.run("document.getElementById('viewer').hidden")
    for name in ("kind", "volume", "fold"):
        set_filter(opened, name, "all")
    assert len(shown(opened)) == 10
    offsets, size = columns["patches/keypoint_offsets"], np.array(made.layout.patch_shape)
    inside: dict[int, set[int]] = {}
    for i in range(10):
        rows = slice(offsets[i], offsets[i + 1])
        points = columns["keypoints/local_rs_coords"][rows]
        there = ((points >= -0.5) & (points < size - 0.5)).all(axis=1)
        inside[i] = set(columns["keypoints/class_index"][rows][there].tolist())
    for name, wanted in (("motor", {0}), (HOSTILE, {1})):
        set_filter(opened, "class", name)
        assert shown(opened) == [i for i in range(10) if wanted <= inside[i]]
    set_filter(opened, "class", "none inside")
    assert shown(opened) == [i for i in range(10) if not inside[i]]


def test_a_patch_opens_at_the_slices_that_its_picture_shows(opened: Chromium, made: Made) -> None:
    for patch in Store(made.path):
        opened.run(f"document.querySelector('#strip [data-index=\"{patch.index}\"]').click()")
        at = tuple(int(value(opened, f"#slice-{axis}")) for axis in "zyx")
        assert at == slice_center(patch), patch.index


# ----- the keyboard -----


def test_everything_is_reached_with_the_tab_key(opened: Chromium) -> None:
    order = []
    for _ in range(14):
        opened.press("Tab")
        order.append(focused(opened))
        outline = opened.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", order[-1]
    filters = [f"filter-{name}" for name in ("kind", "class", "fold", "volume")]
    switches = ["gaussian", "show-points", "show-lines"]
    assert order == ["skip", "scheme", *filters, "LI", *switches, "slice-z", "slice-x", "slice-y", "BUTTON"]


def test_every_control_has_a_name(opened: Chromium) -> None:
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "slider", "checkbox", "radio", "option", "listbox", "image", "link", "group"}
    nodes = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles]
    assert {node["role"]["value"] for node in nodes} >= {"button", "combobox", "slider", "option", "listbox", "radio"}
    unnamed = [node for node in nodes if not node.get("name", {}).get("value") and node["role"]["value"] != "group"]
    assert unnamed == []


def test_arrows_scroll_the_slices(opened: Chromium) -> None:
    for axis, n in (("z", 16), ("y", 32), ("x", 24)):
        opened.run(f"document.getElementById('slice-{axis}').focus()")
        opened.press("Home")
        assert value(opened, f"#slice-{axis}") == "0"
        opened.press("ArrowRight", "ArrowUp", "ArrowRight", "ArrowLeft")
        assert value(opened, f"#slice-{axis}") == "2"
        described = opened.run(f"document.getElementById('slice-{axis}').getAttribute('aria-valuetext')")
        assert described == f"{axis} 2 of {n}"
        opened.press("End")
        assert value(opened, f"#slice-{axis}") == str(n - 1)


def test_arrows_choose_the_patch(opened: Chromium) -> None:
    opened.run("document.querySelector('#strip [aria-selected=true]').focus()")
    opened.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert chosen(opened) == 1
    assert opened.run("document.activeElement.dataset.index") == "1"
    opened.press("End")
    assert chosen(opened) == 9
    assert text(opened, "#patch-title").startswith("Patch 9: grid, fold 1, tomo_1")
    opened.press("Home", "ArrowLeft")
    assert chosen(opened) == 0


def test_letters_act_within_the_browser_alone(opened: Chromium) -> None:
    opened.press("n")
    assert chosen(opened) == 0  # the focus was elsewhere
    opened.run("document.getElementById('slice-z').focus()")
    opened.press("n", "n", "p")
    assert chosen(opened) == 1
    states = []
    for _ in range(3):
        opened.press("g")
        states.append(opened.run("document.querySelector('input[name=gaussian]:checked').value"))
    assert states == ["grid", "off", "smooth"]
    opened.press("k", "l")
    assert not opened.run("document.getElementById('show-points').checked")
    assert not opened.run("document.getElementById('show-lines').checked")
    opened.run("document.getElementById('filter-kind').focus()")
    opened.press("n")
    assert chosen(opened) == 1  # a letter in a list looks for an entry


def test_letters_visit_the_keypoints(opened: Chromium, made: Made) -> None:
    set_filter(opened, "class", "motor")
    opened.run("document.getElementById('slice-z').focus()")
    opened.press("j")
    first = opened.run("document.querySelector('#points button').textContent").split(": ")[1].split(",")[0]
    at = [int(value(opened, f"#slice-{axis}")) for axis in "zyx"]
    limits = np.array(made.layout.patch_shape) - 1
    assert at == np.clip(np.floor(np.array(first.split(), float) + 0.5), 0, limits).astype(int).tolist()


# ----- the pointer -----


def test_the_wheel_scrolls_slices_and_then_the_page(opened: Chromium) -> None:
    opened.run("document.getElementById('viewer').scrollIntoView()")
    x, y, width, _ = box_of(opened, "yx")
    place = x + width / 2, y + 60
    before, top = int(value(opened, "#slice-z")), opened.run("scrollY")
    opened.wheel(*place, 100)
    opened.wheel(*place, 100)
    opened.wheel(*place, -100)
    assert int(value(opened, "#slice-z")) == before + 1
    assert opened.run("scrollY") == top
    go_to(opened, 0, 15)
    deadline = time.monotonic() + PATIENCE
    while opened.run("scrollY") == top:  # scrolling takes its time
        assert time.monotonic() < deadline
        opened.wheel(*place, 100)
    assert value(opened, "#slice-z") == "15"


def test_a_click_moves_the_other_planes_there(opened: Chromium) -> None:
    opened.run("document.getElementById('viewer').scrollIntoView()")
    x, y, width, height = box_of(opened, "yx")
    before = value(opened, "#slice-z")
    opened.click(x + width * 5.5 / 24, y + height * 20.5 / 32)
    assert [value(opened, f"#slice-{axis}") for axis in "zyx"] == [before, "20", "5"]
    assert text(opened, "#place").startswith(f"z y x: {before} 20 5 in the patch")


# ----- layout -----


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1600])
def test_nothing_runs_over_the_side(opened: Chromium, width: int) -> None:
    opened.resize(width, 800)
    opened.run("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    opened.settle()
    assert opened.run("document.documentElement.scrollWidth") == width
    beyond = opened.run(
        f"""[...document.body.querySelectorAll("*")].filter((element) => {{
            const box = element.getBoundingClientRect();
            return box.width && box.right > {width} + 0.5 && !element.closest(".scroll, #strip, .skip, svg");
        }}).map((element) => element.outerHTML.slice(0, 90))"""
    )
    assert beyond == []
    assert opened.run("Math.min(...[...document.querySelectorAll('.slice input')].map((e) => e.clientWidth))") > 120


def test_dark_and_light(opened: Chromium) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(ground)
    opened.resize(1280, dark=True)
    dark = opened.run(ground)
    assert (light, dark) == ("rgb(246, 247, 249)", "rgb(18, 21, 26)")
    opened.run("document.getElementById('scheme').click()")
    assert opened.run(ground) == light
    opened.run("document.getElementById('scheme').click()")
    assert opened.run(ground) == dark


# ----- pixels -----


class Scene:
    """One patch of a volume whose voxels tell their place, with one keypoint, and its page."""

    def __init__(self, folder: Path, room: int | None) -> None:
        z, y, x = np.meshgrid(*map(np.arange, (48, 64, 64)), indexing="ij")
        np.save(folder / "t.npy", (z + 2 * y + 3 * x // 2).astype(np.uint8))
        (folder / "picks.csv").write_text(f"volume,z,y,x,class\nt,{','.join(map(str, POINT))},motor\n")
        settings: dict[str, Any] = {"patch_shape": SHAPE, "ds_factor": (8, 8, 8), "sigma_ds": 1.0, "voxel_spacing": 10}
        keypatch.convert(
            folder / "t.npy", folder / "picks.csv", folder / "s.zarr", centered=1, jitter=0, negatives=0, **settings
        )
        group = zarr.open_group(folder / "s.zarr", mode="r")
        self.image = np.asarray(group["image"][0]).astype(float)
        self.coarse = np.asarray(group["gaussian"][0, 0])
        self.point = np.array(POINT) - np.asarray(group["patches/origin"][0])
        self.page = folder / "stats.html"
        with pytest.MonkeyPatch.context() as patching:
            if room is not None:
                patching.setattr(document, "BUDGET", document._BESIDES + room)
            write_page(stats(folder / "s.zarr"), self.page)
        self.step = np.array(json.loads(self.page.read_text().split('"step":')[1].split("]")[0] + "]"))

    @cached_property
    def grey(self) -> np.ndarray:
        """Averaged and mapped to 0 … 255 by the percentiles 0.5 and 99.5, block by block."""
        corners = [range(0, n, s) for n, s in zip(SHAPE, self.step.tolist(), strict=True)]
        small = np.empty([len(axis) for axis in corners])
        for index in np.ndindex(small.shape):
            box = [slice(axis[k], axis[k] + s) for axis, k, s in zip(corners, index, self.step, strict=True)]
            small[index] = self.image[tuple(box)].mean()
        low, high = np.percentile(small, (0.5, 99.5))
        return np.clip((small - low) / (high - low), 0, 1) * 255

    def slices(self) -> np.ndarray:
        """Number of the shown voxel along each axis that holds the keypoint."""
        return np.floor((self.point + 0.5) / self.step).astype(int)


@pytest.fixture(scope="module", params=[None, 30_000], ids=["whole", "averaged"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"), request.param)


@pytest.fixture
def looking(browser: Chromium, scene: Scene) -> Iterator[Chromium]:
    browser.resize(1280)
    browser.open(scene.page)
    browser.run("document.getElementById('show-lines').click()")
    yield browser
    assert browser.complaints() == []


def go_to(browser: Chromium, axis: int, number: int) -> None:
    browser.run(
        f"""(() => {{ const slider = document.getElementById("slice-{"zyx"[axis]}");
        slider.value = {number}; slider.dispatchEvent(new Event("input")); }})()"""
    )


def marks(image: np.ndarray) -> np.ndarray:
    """(n, 2) y, x of the pixels with the light red of a mark; voxels are grey."""
    return np.argwhere(image[:, :, 0] - image[:, :, 2] > 40)


def middles(scene: Scene, axis: int) -> np.ndarray:
    first = np.arange(0, SHAPE[axis], scene.step[axis])
    return (first + np.minimum(first + scene.step[axis], SHAPE[axis]) - 1) / 2


@pytest.mark.parametrize("plane", PLANES)
def test_a_keypoint_is_drawn_where_it_is(looking: Chromium, scene: Scene, plane: str) -> None:
    normal, down, right = PLANES[plane]
    looking.run("document.querySelector('input[value=off]').click()")
    places = middles(scene, normal)
    sizes = []
    # Every second one, and the nearest itself.
    for number in sorted({*range(0, len(places), 2 if scene.step[normal] == 1 else 1), int(scene.slices()[normal])}):
        go_to(looking, normal, number)
        image = pixels(looking, plane)
        found = marks(image)
        distance = abs(scene.point[normal] - places[number])
        nearest = number == scene.slices()[normal]
        if distance > max(SIGMA, 1.5 * scene.step[normal]) and not nearest:
            assert len(found) == 0
            continue
        reach = max(SIGMA, 1.5 * scene.step[normal])
        share = math.sqrt(max(0.0, 1 - (distance / reach) ** 2))
        extent = [-(-SHAPE[axis] // scene.step[axis]) * scene.step[axis] for axis in (down, right)]
        scale = np.array(image.shape[:2]) / extent
        expected = (scene.point[[down, right]] + 0.5) * scale
        middle = (found.min(axis=0) + found.max(axis=0) + 1) / 2
        radius = (found.max(axis=0) + 1 - found.min(axis=0)) / 2
        np.testing.assert_allclose(middle, expected, atol=1.0)
        np.testing.assert_allclose(radius, np.maximum(share * SIGMA * scale, 2) + 1, atol=2.0)
        sizes.append(radius[0])
        cross = np.abs(found + 0.5 - expected).max(axis=1) < 2
        if share * SIGMA * scale[0] > 12:  # the ring itself is far from the middle
            assert cross.any() == nearest
    assert len(sizes) >= 3
    assert len(set(np.diff(sizes) > 0)) == 2  # grows, then shrinks


@pytest.mark.parametrize("plane", PLANES)
def test_voxels_lie_where_they_belong(looking: Chromium, scene: Scene, plane: str) -> None:
    normal, down, right = PLANES[plane]
    for switch in ("input[value=off]", "#show-points"):
        looking.run(f"document.querySelector('{switch}').click()")
    number = 3
    go_to(looking, normal, number)
    image = pixels(looking, plane)
    n = [-(-SHAPE[axis] // scene.step[axis]) for axis in (down, right)]
    for i, j in [(0, 0), (n[0] - 1, 0), (0, n[1] - 1), (n[0] // 2, n[1] // 3), (n[0] - 1, n[1] - 1)]:
        index = [0, 0, 0]
        index[normal], index[down], index[right] = number, i, j
        row, column = int((i + 0.5) * image.shape[0] / n[0]), int((j + 0.5) * image.shape[1] / n[1])
        assert image[row, column].tolist() == pytest.approx([scene.grey[tuple(index)]] * 3, abs=1)


@pytest.mark.parametrize("form", ["smooth", "grid"])
def test_the_gaussian_is_that_of_the_formula(looking: Chromium, scene: Scene, form: str) -> None:
    looking.run("document.getElementById('show-points').click()")
    looking.run(f"document.querySelector('input[value={form}]').click()")
    grey, at = scene.grey, scene.slices()
    for plane, (normal, down, right) in PLANES.items():
        image = pixels(looking, plane)
        n = [grey.shape[down], grey.shape[right]]
        for i in range(0, n[0], 3):
            for j in range(0, n[1], 4):
                index = at.copy()
                index[down], index[right] = i, j
                place = np.array([middles(scene, axis)[index[axis]] for axis in range(3)])
                if form == "grid":
                    strength = float(scene.coarse[tuple(np.floor((place + 0.5) / 8).astype(int))])
                else:
                    strength = math.exp(-0.5 * sum(((place - scene.point) / SIGMA) ** 2))
                opacity = OVERLAY * strength
                expected = grey[tuple(index)] * (1 - opacity) + RED * opacity
                row, column = int((i + 0.5) * image.shape[0] / n[0]), int((j + 0.5) * image.shape[1] / n[1])
                np.testing.assert_allclose(image[row, column], expected, atol=2.5)
        assert normal in (0, 1, 2)


def test_padding_is_striped(browser: Chromium, made: Made, page: Path) -> None:
    browser.resize(1280)
    browser.open(page)
    padded = next(i for i in range(10) if made.columns["patches/valid_start"][i].min() > 0)
    browser.run(f"document.querySelector('#strip [data-index=\"{padded}\"]').click()")
    for axis in range(3):
        go_to(browser, axis, 0)
    for plane in PLANES:
        image = pixels(browser, plane)
        assert (image[4, 4, 2] > image[4, 4, 0]).all()  # blue stripes, where voxels are grey
