"""The generator of made-up tomograms: its truth has to be true, since the demonstration and other tests build on it."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile
import tensorstore
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from PIL import Image
from scipy import fft, ndimage
from tests.trials import trials

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))
density = importlib.import_module("_tomogram_density")
imaging = importlib.import_module("_tomogram_imaging")
layouts = importlib.import_module("_tomogram_layouts")
scenes = importlib.import_module("_tomogram_scene")
make = importlib.import_module("make_tomograms")
sys.path.remove(str(EXAMPLES))

SHAPE = (48, 96, 96)
SPACING = 26.6
SMALL = ["--shape", "32,64,64", "--voxel-spacing", "40", "--n", "1"]
LAYOUTS = ["byu", "copick", "relion5", "mrc-csv"]
coordinate = st.floats(15, 17, allow_subnormal=False)


def tree_digest(folder):
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def center_of_mass(volume):
    """Mean index weighted by the voxels, written out so that it shares nothing with the generator."""
    total = volume.sum(dtype=np.float64)
    grid = np.indices(volume.shape, dtype=np.float64)
    return np.array([(axis * volume).sum() / total for axis in grid])


def drawn(kind, scenario, seed, shape=SHAPE, spacing=SPACING):
    rng = np.random.default_rng(seed)
    return scenes.draw_scene(shape, spacing, kind, scenario, rng)


def rendered_alone(placements, shape=SHAPE, spacing=SPACING):
    volume = np.zeros(shape, np.float32)
    density.add_structures(volume, placements, spacing)
    return volume


class TestSeed:
    @pytest.mark.parametrize("kind", ["motors", "particles"])
    def test_gives_the_same_bytes_again(self, kind):
        first, again, other = (make.make_tomogram((32, 64, 64), 40.0, seed, kind, "few") for seed in (5, 5, 6))
        assert first.image.tobytes() == again.image.tobytes()
        assert first.coords_zyx.tobytes() == again.coords_zyx.tobytes()
        assert first.image.tobytes() != other.image.tobytes()
        assert not np.array_equal(first.coords_zyx, other.coords_zyx)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_gives_the_same_files_again(self, tmp_path, layout):
        digests = []
        for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
            arguments = [str(tmp_path / name), "--layout", layout, "--seed", seed, *SMALL]
            result = CliRunner().invoke(make.main, arguments)
            assert result.exit_code == 0, result.output
            digests.append(tree_digest(tmp_path / name))
        assert digests[0] == digests[1] != digests[2]


class TestTruth:
    @pytest.mark.parametrize("molecule", ["ribosome", "proteasome"])
    @settings(max_examples=trials(8), deadline=None)
    @given(position=st.tuples(coordinate, coordinate, coordinate), seed=st.integers(0, 99))
    def test_particle_has_its_mass_at_the_truth(self, molecule, position, seed):
        rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
        placed = density.Placement(getattr(density, molecule)(), np.array(position), rotation, molecule)
        volume = rendered_alone([placed], (33, 33, 33), 20.0)
        assert_allclose(center_of_mass(volume), position, atol=0.01)

    def test_the_centre_of_voxel_i_lies_at_i(self):
        placed = density.Placement(density.sphere(30, 1.0), np.array([4.0, 5.0, 6.0]), np.eye(3))
        volume = rendered_alone([placed], (9, 11, 13), 20.0)
        assert_allclose(volume, volume[::-1, ::-1, ::-1], atol=1e-7)
        assert np.unravel_index(volume.argmax(), volume.shape) == (4, 5, 6)

    @pytest.mark.parametrize("seed", range(4))
    def test_motor_sits_on_the_inner_membrane(self, seed):
        scene = drawn("motors", "many", seed)
        cell = scene.cell
        for placed in scene.keypoints():
            point = placed.position * SPACING
            back = np.clip((cell.pole - point) @ cell.axis, 0, cell.length)
            from_axis = point - (cell.pole - back * cell.axis)
            assert np.linalg.norm(from_axis) == pytest.approx(cell.radius, abs=1e-2)
            assert_allclose(placed.rotation[:, 0], from_axis / np.linalg.norm(from_axis), atol=1e-6)

    @pytest.mark.parametrize("seed", range(3))
    def test_motor_has_its_axis_and_its_ms_ring_at_the_truth(self, seed):
        """The rings are found again in the rendered volume by interpolation, at the radii of the literature."""
        spacing = 13.3
        placed = drawn("motors", "few", seed).keypoints()[0]
        placed = replace(placed, position=np.array([40.3, 40.8, 39.6]))
        volume = rendered_alone([placed], (80, 80, 80), spacing)
        off_axis = (placed.rotation.T @ (center_of_mass(volume) - placed.position))[1:]
        assert_allclose(off_axis, 0, atol=0.02)

        heights, angles = np.linspace(-35, 35, 71), np.linspace(0, 2 * np.pi, 120, endpoint=False)
        h, a = np.meshgrid(heights, angles, indexing="ij")
        local = np.stack([h, 100 * np.sin(a), 100 * np.cos(a)])
        points = placed.position[:, None, None] + np.einsum("ij,jhk->ihk", placed.rotation, local) / spacing
        profile = ndimage.map_coordinates(volume, points, order=3).mean(axis=1)
        a, b, _ = np.polyfit(heights, np.log(profile), 2)
        assert -b / (2 * a) / spacing == pytest.approx(0, abs=0.1)

    @pytest.mark.parametrize("kind", ["motors", "particles"])
    def test_keypoints_are_what_the_scene_renders(self, kind):
        """With and without its keypoints a scene differs by them alone; each is where the tomogram says."""
        scene = drawn(kind, "border", 7)
        tomogram = make.make_tomogram(SHAPE, SPACING, 7, kind, "border")
        assert_allclose(tomogram.coords_zyx, [placed.position for placed in scene.keypoints()])
        rest = tuple(placed for placed in scene.placements if placed.class_name is None)
        with_them, without = (
            scenes.render_density(each, np.random.default_rng(0)) for each in (scene, replace(scene, placements=rest))
        )
        difference = scenes.cropped(with_them - without, SHAPE)
        assert_allclose(difference, rendered_alone(scene.keypoints()), atol=2e-3)
        assert difference.max() > 0.3


class TestScenarios:
    @pytest.mark.parametrize("kind", ["motors", "particles"])
    @pytest.mark.parametrize("seed", range(3))
    def test_hold_what_they_promise(self, kind, seed):
        scene_of = {name: drawn(kind, name, seed) for name in scenes.SCENARIOS}
        count = {name: len(scene.keypoints()) for name, scene in scene_of.items()}
        assert count["none"] == 0
        assert count["many"] >= 2
        assert count["many"] > count["few"] >= 1
        assert count["border"] >= 1
        for scene in scene_of.values():
            for placed in scene.keypoints():
                assert np.all(placed.position >= 0)
                assert np.all(placed.position <= np.array(SHAPE) - 1)
        first = scene_of["border"].keypoints()[0].position
        assert np.minimum(first, np.array(SHAPE) - 1 - first).min() <= 6

    def test_a_tomogram_without_motors_has_none_to_find(self):
        """A matched filter finds the motor through wedge and noise, and nothing like it in a negative."""
        scene = drawn("motors", "few", 1)
        placed = scene.keypoints()[0]
        middle = np.array(SHAPE) // 2
        template = imaging.imaged(rendered_alone([replace(placed, position=middle.astype(float))]), SPACING)

        def scores(tomogram):
            spectrum = fft.rfftn(tomogram.image) * np.conj(fft.rfftn(np.roll(template, -middle, (0, 1, 2))))
            return fft.irfftn(spectrum, s=SHAPE) / np.linalg.norm(template)

        positive = scores(make.make_tomogram(SHAPE, SPACING, 1, "motors", "few"))
        found = np.unravel_index(positive.argmax(), SHAPE)
        assert_allclose(found, placed.position, atol=1.0)
        negative = make.make_tomogram(SHAPE, SPACING, 1, "motors", "none")
        assert negative.coords_zyx.shape == (0, 3)
        assert scores(negative).max() < 0.7 * positive.max()

    def test_a_volume_too_small_is_refused(self):
        with pytest.raises(scenes.SceneError, match="no room for two motors"):
            drawn("motors", "many", 0, (16, 16, 16), 10.0)


class TestImaging:
    def test_nothing_is_left_inside_the_missing_wedge(self):
        volume = np.random.default_rng(0).standard_normal((24, 30, 27)).astype(np.float32)
        power = np.abs(np.fft.fftn(imaging.imaged(volume, 13.3))) ** 2
        kz, _, kx = np.meshgrid(*(np.fft.fftfreq(n) for n in volume.shape), indexing="ij")
        elevation = np.degrees(np.arctan2(np.abs(kz), np.abs(kx)))
        assert power[elevation > 60.01].sum() < 1e-9 * power.sum()
        assert power[(elevation < 59.99) & (elevation > 45)].sum() > 0.05 * power.sum()

    def test_protein_is_dark_and_stays_where_it_is(self):
        bead = density.Placement(density.sphere(40, 1.0), np.array([20.0, 20.0, 20.0]), np.eye(3))
        volume = rendered_alone([bead], (41, 41, 41))
        image = imaging.imaged(volume, SPACING)
        assert np.unravel_index(image.argmin(), image.shape) == (20, 20, 20)
        assert image[20, 20, 20] < -3 * image.std()
        assert_allclose(image, image[::-1, ::-1, ::-1], atol=1e-5 * np.abs(image).max())

    def test_noise_falls_towards_high_frequencies(self):
        noise = imaging.coloured_noise((32, 48, 48), np.random.default_rng(0))
        assert noise.dtype == np.float32
        assert noise.mean() == pytest.approx(0, abs=1e-4)
        assert noise.std() == pytest.approx(1, abs=1e-4)
        power = np.abs(np.fft.fftn(noise)) ** 2
        k = np.linalg.norm(np.meshgrid(*(np.fft.fftfreq(n) for n in noise.shape), indexing="ij"), axis=0)
        assert 3 < power[np.abs(k - 0.12) < 0.02].mean() / power[np.abs(k - 0.48) < 0.02].mean() < 8

    def test_bytes_keep_the_order_of_grey_values(self):
        assert layouts.to_uint8(np.float32([-9, -3.5, 0, 3.5, 9])).tolist() == [0, 1, 128, 255, 255]


@pytest.fixture(scope="module")
def motors():
    return list(make.make_tomograms(4, (32, 64, 64), 40.0, 0, "motors"))


@pytest.fixture(scope="module")
def particles():
    return list(make.make_tomograms(3, (32, 64, 64), 40.0, 0, "particles", "TS_"))


class TestLayouts:
    def test_byu(self, tmp_path, motors, capsys):
        make.write_byu(tmp_path, motors)
        with (tmp_path / "train_labels.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["row_id"]) for row in rows] == list(range(len(rows)))
        for name, tomogram in motors:
            own = [row for row in rows if row["tomo_id"] == name]
            found = [[float(row[f"Motor axis {axis}"]) for axis in (0, 1, 2)] for row in own]
            expected = tomogram.coords_zyx if len(tomogram.coords_zyx) else [[-1, -1, -1]]
            assert_allclose(found, expected, rtol=0, atol=0)
            for row in own:
                assert [int(row[f"Array shape (axis {axis})"]) for axis in (0, 1, 2)] == [32, 64, 64]
                assert float(row["Voxel spacing"]) == 40.0
                assert int(row["Number of motors"]) == len(tomogram.coords_zyx)
            paths = sorted((tmp_path / "train" / name).iterdir())
            assert [path.name for path in paths] == [f"slice_{z:04d}.jpg" for z in range(32)]
            slices = [Image.open(path) for path in paths]
            assert {(s.format, s.mode) for s in slices} == {("JPEG", "L")}
            read = np.stack([np.asarray(s, np.float64) for s in slices])
            grey = np.clip(tomogram.image.astype(np.float64), -3.5, 3.5)
            assert np.corrcoef(read.ravel(), grey.ravel())[0, 1] > 0.98
        assert sum(row["Motor axis 0"] == "-1.0" for row in rows) == 1
        assert "train/{volume}" in capsys.readouterr().out

    def test_byu_has_the_header_of_the_real_file(self, tmp_path, real_data):
        make.write_byu(tmp_path, [])
        with (real_data / "csv" / "byu_train_labels.csv").open(encoding="utf-8") as file:
            assert (tmp_path / "train_labels.csv").read_text("utf-8") == file.readline()

    def test_byu_refuses_classes_that_it_cannot_hold(self, tmp_path, particles):
        with pytest.raises(ValueError, match="motors only, not ribosome and proteasome"):
            make.write_byu(tmp_path, particles)

    def test_copick(self, tmp_path, particles):
        make.write_copick(tmp_path, [(name, replace(tomogram, voxel_spacing=10.012)) for name, tomogram in particles])
        for name, tomogram in particles:
            volume = tmp_path / "static" / "ExperimentRuns" / name / "VoxelSpacing10.000" / "denoised.zarr"
            spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(volume / "0")}}
            assert np.array_equal(tensorstore.open(spec).result().read().result(), tomogram.image)
            scales = json.loads((volume / ".zattrs").read_text())["multiscales"][0]
            assert scales["version"] == "0.4"
            assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
            assert scales["datasets"] == [
                {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [10.012, 10.012, 10.012]}]}
            ]
            for class_name in ("ribosome", "proteasome"):
                picks_file = tmp_path / "overlay" / "ExperimentRuns" / name / "Picks" / f"{class_name}.json"
                picks = json.loads(picks_file.read_text())
                assert (picks["pickable_object_name"], picks["run_name"]) == (class_name, name)
                found = [[point["location"][axis] / 10.012 for axis in "zyx"] for point in picks["points"]]
                own = [label == class_name for label in tomogram.class_names]
                assert_allclose(np.reshape(found, (-1, 3)), tomogram.coords_zyx[own], atol=1e-9)

    def test_relion5(self, tmp_path, particles):
        make.write_relion5(tmp_path, particles)
        table = starfile.read(tmp_path / "tomograms.star").set_index("rlnTomoName")
        for class_name in ("ribosome", "proteasome"):
            chain = starfile.read(tmp_path / f"optimisation_set_{class_name}.star")
            assert chain["rlnTomoTomogramsFile"].tolist() == ["tomograms.star"]
            picks = starfile.read(tmp_path / chain["rlnTomoParticlesFile"][0])
            assert len(picks) > 0
            for name, tomogram in particles:
                own = picks[picks["rlnTomoName"] == name]
                angstrom = own[[f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]].to_numpy()
                expected = tomogram.coords_zyx[np.array(tomogram.class_names) == class_name]
                assert_allclose(angstrom / 40.0 + [16, 32, 32], expected.reshape(-1, 3), atol=1e-6)
        for name, _ in particles:
            row = table.loc[name]
            header = np.fromfile(tmp_path / row["rlnTomoReconstructedTomogram"], "<i4", 3)
            unbinned = row[["rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"]].to_numpy(int)
            assert unbinned.tolist() == (header * int(row["rlnTomoTomogramBinning"])).tolist() == [256, 256, 128]
            assert row["rlnTomoTiltSeriesPixelSize"] * row["rlnTomoTomogramBinning"] == pytest.approx(40.0)

    def test_relion5_of_one_class_without_any_particle(self, tmp_path, motors, capsys):
        make.write_relion5(tmp_path, [motors[2]])
        assert starfile.read(tmp_path / "optimisation_set.star")["rlnTomoParticlesFile"][0] == "particles.star"
        picks = starfile.read(tmp_path / "particles.star")
        assert len(picks) == 0
        assert "rlnCenteredCoordinateXAngst" in picks.columns
        for path in tmp_path.glob("*.star"):
            assert path.read_text().splitlines()[0] == "# version 50001"
        assert f" -a {tmp_path}/optimisation_set.star " in capsys.readouterr().out

    def test_mrc_csv(self, tmp_path, motors):
        make.write_mrc_csv(tmp_path, motors)
        with (tmp_path / "picks.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(len(tomogram.coords_zyx) for _, tomogram in motors) == len(rows) >= 4
        for name, tomogram in motors:
            assert mrcfile.validate(tmp_path / f"{name}.mrc")
            raw = (tmp_path / f"{name}.mrc").read_bytes()
            assert np.frombuffer(raw[:16], "<i4").tolist() == [64, 64, 32, 2]
            assert raw[224:1024].strip(b"\0 ") == b"Made by examples/make_tomograms.py"
            cell, sampling = np.frombuffer(raw[40:52], "<f4"), np.frombuffer(raw[28:40], "<i4")
            assert_allclose(cell / sampling, 40.0)
            assert np.array_equal(np.frombuffer(raw[1024:], "<f4").reshape(32, 64, 64), tomogram.image)
            found = [[float(row[axis]) for axis in "zyx"] for row in rows if row["volume"] == name]
            assert np.array_equal(np.reshape(found, (-1, 3)), tomogram.coords_zyx)
        assert {row["class"] for row in rows} == {"motor"}


class TestCommand:
    def test_runs_as_a_script_and_says_what_comes_next(self, tmp_path):
        script = [sys.executable, str(EXAMPLES / "make_tomograms.py"), str(tmp_path / "data"), *SMALL]
        done = subprocess.run(script, capture_output=True, text=True, check=True, timeout=60)
        convert, validate = done.stdout.splitlines()
        assert convert.startswith("keypatch convert ")
        assert convert.endswith(f" -o {tmp_path / 'data.zarr'} --patch-shape 16,32,32")
        assert validate.startswith(f"keypatch validate {tmp_path / 'data.zarr'}")
        assert done.stderr == ""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--layout", "byu", "--kind", "particles"], "holds motors only"),
            (["--shape", "96,192"], "expected three whole numbers"),
            (["--shape", "96,192,4"], "at least 16 voxels"),
            (["--shape", "16,16,16", "--voxel-spacing", "10"], "no room for two motors"),
            (["--voxel-spacing", "0"], "--voxel-spacing"),
        ],
    )
    def test_refuses_what_it_cannot_make(self, tmp_path, arguments, message):
        result = CliRunner().invoke(make.main, [str(tmp_path / "data"), *arguments])
        assert result.exit_code == 2
        assert message in result.output

    def test_names_the_store_after_the_folder_one_stands_in(self, tmp_path, monkeypatch):
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        result = CliRunner().invoke(make.main, [".", "--layout", "mrc-csv", *SMALL])
        assert result.exit_code == 0, result.output
        assert " -a picks.csv -o here.zarr " in result.output

    def test_does_not_mix_with_what_is_there(self, tmp_path):
        (tmp_path / "mine.txt").write_text("keep")
        result = CliRunner().invoke(make.main, [str(tmp_path), *SMALL])
        assert result.exit_code == 2
        assert "new or empty folder" in result.output
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
