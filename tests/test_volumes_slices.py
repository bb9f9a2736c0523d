"""Folders of slices: their order, their gaps, their channels."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from keypatch.errors import FormatError, ReadError
from keypatch.formats.volumes import detect_format, open_volume


def plane(z, dtype=np.uint8, shape=(6, 5)):
    return (np.arange(np.prod(shape)).reshape(shape) + 20 * z).astype(dtype)


def fill(folder, names, **options):
    """One PNG, JPEG or TIFF a name, the number of the plane by its place in the list."""
    folder.mkdir(exist_ok=True)
    for z, name in enumerate(names):
        save(folder / name, plane(z, **options))
    return folder


def save(path, array):
    if path.suffix.lower().startswith(".tif"):
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path, quality=95)


def read_all(path):
    with open_volume(path) as volume:
        return volume.read((0, 0, 0), volume.info.shape)


def info_of(path):
    with open_volume(path) as volume:
        return volume.info


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tomo_01"


class TestNames:
    @pytest.mark.parametrize(
        "names",
        [
            [f"slice_{z}.png" for z in range(12)],
            [f"slice_{z:04}.png" for z in range(12)],
            [f"{z}.PNG" for z in range(7, 19)],
            [f"TS_01_z{z}_bin4.png" for z in range(95, 107)],
            ["only.png"],
        ],
    )
    def test_natural_order(self, folder, names):
        fill(folder, names)
        assert read_all(folder)[:, 0, 0].tolist() == [20 * z for z in range(len(names))]
        assert info_of(folder).conventions["first_slice"] == names[0]

    def test_byu_jpegs(self, folder):
        fill(folder, [f"slice_{z:04}.jpg" for z in range(5)], shape=(32, 24))
        info = info_of(folder)
        assert (info.shape, info.dtype, info.voxel_spacing, info.access) == ((5, 32, 24), np.uint8, None, "slices")
        assert info.warnings == ()
        expected = np.stack([np.asarray(Image.open(folder / f"slice_{z:04}.jpg")) for z in range(5)])
        np.testing.assert_array_equal(read_all(folder), expected)

    def test_a_lost_slice_is_refused(self, folder):
        fill(folder, [f"slice_{z:04}.png" for z in (0, 1, 2, 4, 5)])
        with pytest.raises(FormatError, match="no slice between 2 and 4; put the missing slices back"):
            open_volume(folder)

    def test_equal_steps_are_no_gap_and_told(self, folder):
        fill(folder, [f"slice_{z:04}.png" for z in (0, 10, 20, 30)])
        info = info_of(folder)
        assert info.shape[0] == 4
        assert info.conventions["number_step"] == 10
        assert "go up by 10" in info.warnings[0]

    def test_one_slice_is_told(self, folder):
        assert "a single slice" in info_of(fill(folder, ["slice_0.png"])).warnings[0]

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["slice_1.png", "slice_2.jpg"], "slices of one kind, found JPEG and PNG"),
            (["slice_1.png", "preview_2.png"], "by their number alone, found preview_2.png and slice_1.png"),
            (["slice_1.png", "slice_2.png", "mean.png"], "by their number alone, found mean.png and slice_2.png"),
            (["slice_1.png", "slice_01.png"], r"occurs twice \(slice_01.png, slice_1.png\)"),
            (["s_1.png", "s_2.png", "s_02.png"], r"occurs twice \(s_02.png\)"),
            (["ts1_z1.png", "ts1_z2.png", "ts2_z1.png"], r"2 numbers that differ \(ts1_z1.png and ts2_z1.png\)"),
        ],
    )
    def test_what_is_not_one_series(self, folder, names, message):
        with pytest.raises(FormatError, match=message):
            open_volume(fill(folder, names))

    def test_other_files_are_ignored_and_counted(self, folder):
        fill(folder, ["s1.png", "s2.png"])
        for name in ("README.txt", "._s1.png", "Thumbs.db", ".DS_Store"):
            (folder / name).write_bytes(b"junk")
        (folder / "s3.png").mkdir()
        info = info_of(folder)
        assert info.shape[0] == 2
        assert info.conventions["files_ignored"] == 5

    def test_a_folder_without_images(self, folder):
        fill(folder, [])
        (folder / "notes.txt").write_text("none yet")
        with pytest.raises(FormatError, match=r"one of the formats .*a folder with 1 entries \(notes.txt\)"):
            open_volume(folder)

    def test_jpg_and_jpeg_are_one_kind(self, folder):
        assert info_of(fill(folder, ["s1.jpg", "s2.jpeg"])).shape[0] == 2

    def test_images_in_a_zarr_do_not_make_it_a_folder_of_slices(self, folder):
        fill(folder, ["s1.png"])
        (folder / "zarr.json").write_text("{}")
        assert detect_format(folder).NAME == "zarr"


class TestChannels:
    def test_equal_channels_are_one_and_told(self, folder):
        folder.mkdir()
        for z in range(3):
            save(folder / f"{z}.png", np.repeat(plane(z)[..., None], 3, axis=2))
        assert "three channels are equal" in info_of(folder).warnings[0]
        np.testing.assert_array_equal(read_all(folder), np.stack([plane(z) for z in range(3)]))

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_colours_are_refused(self, folder, suffix):
        folder.mkdir()
        colours = np.repeat(plane(0)[..., None], 3, axis=2)
        colours[2, 3, 1] += 1
        save(folder / f"0{suffix}", colours)
        with pytest.raises(FormatError, match="one grey channel, found colours"):
            open_volume(folder)

    def test_colours_in_a_middle_slice_are_refused_when_read(self, folder):
        folder.mkdir()
        for z in range(3):
            colours = np.repeat(plane(z)[..., None], 3, axis=2)
            colours[0, 0, 2] += z == 1
            save(folder / f"{z}.png", colours)
        with open_volume(folder) as volume, pytest.raises(FormatError, match=r"1\.png: expected one grey channel"):
            volume.read((0, 0, 0), (3, 1, 1))

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
    def test_other_modes_are_refused(self, folder, mode):
        folder.mkdir()
        Image.new(mode, (5, 6)).save(folder / "0.png")
        with pytest.raises(FormatError, match=f"found mode {mode}"):
            open_volume(folder)

    def test_cmyk_jpeg_is_refused(self, folder):
        folder.mkdir()
        Image.new("CMYK", (5, 6)).save(folder / "0.jpg")
        with pytest.raises(FormatError, match="found mode CMYK"):
            open_volume(folder)

    def test_16_bit_png(self, folder):
        fill(folder, ["0.png", "1.png"], dtype=np.uint16)
        assert info_of(folder).dtype == np.uint16

    def test_bilevel_png_is_uint8(self, folder):
        folder.mkdir()
        Image.fromarray(plane(0) % 3 == 0).save(folder / "0.png")
        assert read_all(folder).dtype == np.uint8
        np.testing.assert_array_equal(read_all(folder)[0], plane(0) % 3 == 0)

    def test_float_tiff(self, folder):
        fill(folder, ["0.tif", "1.tif"], dtype=np.float32)
        assert read_all(folder).dtype == np.float32

    def test_tiff_of_several_pages_is_refused(self, folder):
        folder.mkdir()
        tifffile.imwrite(folder / "0.tif", np.zeros((3, 6, 5), np.uint8), photometric="minisblack")
        with pytest.raises(FormatError, match="a TIFF of one page, found 3 pages"):
            open_volume(folder)

    def test_moving_png_is_refused(self, folder):
        folder.mkdir()
        frames = [Image.fromarray(plane(z)) for z in range(2)]
        frames[0].save(folder / "0.png", save_all=True, append_images=frames[1:])
        with pytest.raises(FormatError, match="2 frames"):
            open_volume(folder)


class TestEachSlice:
    @pytest.mark.parametrize("odd", [plane(1, shape=(6, 4)), plane(1, np.uint16)])
    def test_a_slice_that_differs(self, folder, odd):
        fill(folder, ["0.png", "1.png", "2.png"])
        save(folder / "1.png", odd)
        with open_volume(folder) as volume:
            volume.read((0, 0, 0), (1, 6, 5))
            with pytest.raises(FormatError, match=r"1\.png: expected 6 x 5 uint8 \(L\) as in the first slice"):
                volume.read((0, 0, 0), (2, 6, 5))

    def test_the_last_slice_is_checked_at_open(self, folder):
        fill(folder, ["0.png", "1.png", "2.png"])
        save(folder / "2.png", plane(1, shape=(7, 5)))
        with pytest.raises(FormatError, match=r"2\.png: .*found 7 x 5 uint8"):
            open_volume(folder)

    @pytest.mark.parametrize("name", ["1.png", "1.jpg", "1.tif"])
    @pytest.mark.parametrize("keep", [0, 10, 0.6])
    def test_a_damaged_slice_is_named(self, folder, name, keep):
        suffix = name[1:]
        fill(folder, [f"{z}{suffix}" for z in range(3)], shape=(40, 50))
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
        with open_volume(folder) as volume, pytest.raises(ReadError, match=name):
            volume.read((0, 0, 0), (3, 1, 1))

    def test_a_slice_of_another_kind_than_its_name(self, folder):
        fill(folder, ["0.png"])
        (folder / "0.png").rename(folder / "0.jpg")
        with pytest.raises(ReadError, match="an undamaged JPEG file"):
            open_volume(folder)

    def test_a_slice_that_vanished(self, folder):
        fill(folder, ["0.png", "1.png", "2.png"])
        with open_volume(folder) as volume:
            (folder / "1.png").unlink()
            with pytest.raises(ReadError, match=r"1\.png"):
                volume.read((1, 0, 0), (2, 1, 1))

    def test_overlapping_boxes_decode_each_slice_once(self, folder, monkeypatch):
        fill(folder, [f"{z}.png" for z in range(6)])
        opened = []
        original = Image.open
        monkeypatch.setattr(
            Image, "open", lambda file, **options: (opened.append(file.stem), original(file, **options))[1]
        )
        with open_volume(folder) as volume:
            volume.read((0, 0, 0), (4, 2, 2))
            volume.read((2, 3, 3), (6, 5, 5))
        assert opened == ["0", "5", "0", "1", "2", "3", "4"]
