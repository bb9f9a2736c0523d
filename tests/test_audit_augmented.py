"""The sheet of patches before and after augmentation, and the recipe that it is drawn by."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tests.sources import Truth, converted, keypatch, write_csv, write_npy

import keypatch as package
from keypatch.audit import augmented
from keypatch.audit.augmented import augmented_sheet
from keypatch.audit.panels import color_of
from keypatch.augment import CutMix, Geometric, Patches
from keypatch.augment.recipe import read_recipe
from keypatch.errors import FormatError, ReadError, UsageError

POINT = (8.0, 6.0, 20.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One patch of 16 × 24 × 24, and a point away from its middle."""
    folder = tmp_path_factory.mktemp("augmented")
    known = {"v": Truth(np.random.default_rng(0).integers(0, 99, (16, 24, 24), dtype=np.uint8), (POINT,), ("motor",))}
    write_npy(folder / "v", known["v"])
    flags = ["--patch-shape", "16,24,24", "--ds-factor", "4", "--sigma-ds", "0.7", "--voxel-spacing", "10"]
    table = write_csv(folder, known)
    converted(folder / "v.npy", "-a", table, "-o", folder / "out.zarr", *flags, "--grid", "16,24,24", "--centered", "0")
    return package.open(folder / "out.zarr")


def dots(sheet, box):
    """Where the middle of the dots in a panel lies, in pixels of the panel."""
    pixels = np.asarray(sheet.crop(box), np.int64)
    near = np.abs(pixels - color_of(0)).sum(axis=2) < 30
    return np.argwhere(near).mean(axis=0) if near.any() else None


def panels(sheet, store, columns):
    """Boxes of the planes yx of a sheet of one patch, as the layout has them."""
    layout = augmented._Layout([store.patch_shape] * columns, 1)
    left, top = augmented._MARGIN, augmented._HEAD + 2 * augmented.LINE
    side = layout._pixels(24)
    return [
        (left + k * (side + augmented._GAP), top, left + k * (side + augmented._GAP) + side, top + side)
        for k in range(columns)
    ]


def test_a_column_is_what_that_epoch_gives(store):
    geometric = Geometric(flip="zyx", rot90=True)
    sheet = augmented_sheet(store, [0], geometric, seed=3, gaussian=False)
    patches = Patches(store, geometric=geometric, seed=3)
    scale = augmented._Layout([store.patch_shape], 1).whole
    expected = [np.array(POINT)] + [patches.sample(0, epoch=epoch).keypoints.local_rs[0] for epoch in range(4)]
    assert len({tuple(point) for point in expected}) > 2
    for box, point in zip(panels(sheet, store, 5), expected, strict=True):
        assert np.abs(dots(sheet, box) - (point[1:] + 0.5) * scale).max() < 1.0


def test_the_target_is_laid_over_unless_it_is_not_wanted(store):
    with_target, without = (augmented_sheet(store, [0], Geometric(), gaussian=g) for g in (True, False))
    for box in panels(with_target, store, 5):
        red = [np.asarray(sheet.crop(box), np.int64) for sheet in (with_target, without)]
        assert np.abs(red[0] - red[1]).max() > 50
        colored = np.ptp(red[1], axis=2) > 20
        assert colored.mean() < 0.1


def test_the_same_seed_gives_the_same_sheet_and_another_another(store):
    geometric = Geometric(flip="zyx")
    sheets = [augmented_sheet(store, [0], geometric, seed=seed) for seed in (1, 1, 2)]
    # The head names the seed.
    drawn = [sheet.crop((0, augmented._HEAD, *sheet.size)).tobytes() for sheet in sheets]
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_patches_are_more_rows(store):
    one, two = augmented_sheet(store, [0], Geometric()), augmented_sheet(store, [0, -1], Geometric(), epochs=4)
    assert two.width == one.width
    assert two.height > one.height + 200
    with pytest.raises(UsageError, match="at least one patch"):
        augmented_sheet(store, [], Geometric())
    with pytest.raises(UsageError, match="fewer patches"):
        augmented_sheet(store, [0] * 100, Geometric())


def recipe(folder, text, name="augment.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_is_toml_or_json_flat_or_in_tables(tmp_path):
    wanted = Geometric(flip="yx", rot90=True)
    flat = recipe(tmp_path, 'flip = "yx"\nrot90 = true\n')
    tables = recipe(tmp_path, '[geometric]\nflip = "yx"\nrot90 = true\n[mixing.cutmix]\np = 0.25\n', "b.toml")
    as_json = recipe(tmp_path, json.dumps({"geometric": wanted.to_json()}), "c.json")
    assert read_recipe(flat).geometric == read_recipe(tables).geometric == read_recipe(as_json).geometric == wanted
    assert read_recipe(tables).mixing == (CutMix(p=0.25),)
    assert read_recipe(recipe(tmp_path, "", "d.toml")).geometric == Geometric()


@pytest.mark.parametrize(
    ("text", "name", "error", "words"),
    [
        ("flip = ", "a.toml", FormatError, "TOML"),
        ("[1]", "a.json", FormatError, "a JSON object"),
        ("{", "a.json", FormatError, "JSON"),
        ("[" * 100000, "a.json", FormatError, "JSON"),
        ("flop = 1", "a.toml", UsageError, "flop"),
        ("geometric = 1", "a.toml", UsageError, "a table as geometric"),
        ("[geometric]\n[other]", "a.toml", UsageError, "other"),
        ("[mixing.nothing]", "a.toml", UsageError, "mixing"),
    ],
)
def test_a_recipe_that_is_none(tmp_path, text, name, error, words):
    path = recipe(tmp_path, text, name)
    with pytest.raises(error) as raised:
        read_recipe(path)
    assert words in str(raised.value)
    assert name in str(raised.value)
    with pytest.raises(ReadError):
        read_recipe(tmp_path)
    with pytest.raises(ReadError):
        read_recipe(tmp_path / "none.toml")


def test_on_the_command_line(store, tmp_path):
    path, png = recipe(tmp_path, 'flip = "zyx"\n'), tmp_path / "x.png"
    for flags in (["--patch", "0"], ["--kind", "grid"], []):
        ran = keypatch("inspect", store.path, *flags, "--augment", path, "--png", png, "--no-picture")
        assert (ran.code, ran.err) == (0, f"keypatch: wrote {png}\n")
        with Image.open(png) as picture:
            assert picture.size == augmented_sheet(store, [0], Geometric(flip="zyx")).size
        png.unlink()
    seeds = []
    for seed in (0, 5):
        keypatch(
            "inspect", store.path, "--patch", "0", "--augment", path, "--png", png, "--seed", seed, "--no-gaussian"
        )
        seeds.append(png.read_bytes())
    assert seeds[0] != seeds[1]


def test_what_the_command_refuses(store, tmp_path):
    path = recipe(tmp_path, 'flip = "zyx"\n')
    bad = recipe(tmp_path, "flop = 1", "bad.toml")
    for flags, code, words in (
        (["--augment", path], 2, "--png or --picture"),
        (["--augment", path, "--png", tmp_path / "x.png", "--annotation", "0"], 2, "--annotation"),
        (["--augment", path, "--png", tmp_path / "x.png", "--tree"], 2, "no picture"),
        (["--augment", bad, "--png", tmp_path / "x.png", "--patch", "0"], 2, "flop"),
        (["--augment", tmp_path / "none", "--png", tmp_path / "x.png", "--patch", "0"], 3, "a recipe"),
    ):
        ran = keypatch("inspect", store.path, *flags)
        assert (ran.code, ran.err.count("\n")) == (code, 1), ran.err
        assert words in ran.err
        assert not (tmp_path / "x.png").exists()
    ran = keypatch("inspect", tmp_path / "bad.toml", "--augment", path)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
