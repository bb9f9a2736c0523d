"""Formats of other packages: who is asked when, and that a bad plugin is told in one line and harms nobody."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib import metadata

import mrcfile
import numpy as np
import pytest
import zarr
from tests.plugin_packages import ANNOTATIONS, VOLUMES, install, install_documented

from keypatch.errors import FormatError, ReadError, UsageError
from keypatch.formats.annotations import AnnotationOptions, read_annotations
from keypatch.formats.annotations import detect_format as detect_annotations
from keypatch.formats.annotations import plugin as annotation_plugin
from keypatch.formats.annotations import registry as annotation_registry
from keypatch.formats.volumes import VolumeOptions, detect_format, open_volume, volume_stem
from keypatch.formats.volumes import plugin as volume_plugin
from keypatch.formats.volumes import registry as volume_registry

SHAPE = (12, 14, 16)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that counts as one of installed packages; the registries forget what they knew of plugins."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for registry, plugin in ((volume_registry, volume_plugin), (annotation_registry, annotation_plugin)):
        own = frozenset(row.NAME for row in registry.FORMATS)
        monkeypatch.setattr(registry, "PLUGINS", plugin.plugin_group(own))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    importlib.invalidate_caches()


def write_blob(folder, shape=SHAPE, spacing=10.0):
    """A file of the page's volume format; every voxel has its own value."""
    path = folder / "tomo.blob"
    voxels = np.arange(np.prod(shape), dtype="<u2").reshape(shape)
    path.write_bytes(f"BLOB1 {' '.join(map(str, shape))} {spacing}\n".encode() + voxels.tobytes())
    return path, voxels


def write_spots(folder, *points):
    """A file of the page's annotation format: (class, x, y, z) in Å from the corner."""
    path = folder / "picks.spots"
    path.write_text("# spots\n" + "".join(f"{name} {x} {y} {z}\n" for name, x, y, z in points))
    return path


VOLUME = """
import numpy as np
from keypatch.formats.volumes import VolumeInfo
from keypatch.formats.volumes.reader import VolumeReader
NAME, SUFFIXES, DESCRIPTION = {name!r}, (".{name}",), "made up"
class Voxels(VolumeReader):
    def __init__(self, info, array):
        super().__init__(info)
        self.array = array
    def _read_box(self, z, y, x): return self.array[z, y, x]
def matches(peek): return {matches}
def open_volume(path, options):
    info = VolumeInfo(path, NAME, (2, 3, 4), np.dtype("uint8"), None, access="mapped")
    return Voxels(info, np.zeros((2, 3, 4), np.uint8))
"""


def install_volume(site, name="odd", code=VOLUME, matches="True", dist=None):
    module = f"plugin_{name}_{dist or ''}".replace("-", "_")
    files = {f"{module}.py": code.format(name=name, matches=matches) if code is VOLUME else code}
    return install(site, dist or f"{name}-reader", {VOLUMES: {name: module}}, files)


TABLE = """
from keypatch.formats.annotations import AnnotationTable, Convention
from keypatch.formats.annotations.base import point_frame
NAME, SUFFIXES, DESCRIPTION, USES = "odd", (".odd",), "made up", frozenset()
def matches(path, head): return {matches}
def read(path, options):
    points = point_frame([[1, 2, 3]], volume=[None], source_row=[0])
    return {result}
"""


def install_table(site, matches="True", result="AnnotationTable(path, NAME, Convention('voxel', 'zyx'), points)"):
    return install(
        site,
        "odd-table",
        {ANNOTATIONS: {"odd": "plugin_odd_table"}},
        {"plugin_odd_table.py": TABLE.format(matches=matches, result=result)},
    )


def text_file(folder, content="garbage of no format\n", name="garbage.odd"):
    path = folder / name
    path.write_text(content)
    return path


# ----- the page's own formats -----


def run(tmp_path, site, *command):
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "keypatch", *map(str, command)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )


def test_the_formats_of_the_page_are_converted_by_spawned_workers_and_cut_again(tmp_path):
    site = install_documented(tmp_path / "site")
    path, voxels = write_blob(tmp_path)
    picks = write_spots(tmp_path, ("motor", 85, 75, 65), ("ribosome", 40, 50, 60))
    built = run(
        *(tmp_path, site, "convert", path, "-a", picks, "-o", "out.zarr", "--patch-shape", 4, "--ds-factor", 2),
        *("--jitter", 0, "--workers", 2, "--json"),
    )
    assert (built.returncode, built.stderr) == (0, "")
    store = zarr.open_group(tmp_path / "out.zarr", mode="r")
    (record,) = store["volumes"].attrs["keypatch"]["volumes"]
    assert (record["id"], record["format"], record["voxel_spacing"]) == ("tomo", "blob", [10.0, 10.0, 10.0])
    # 85 Å from the corner is the middle of voxel 8, whose patch of 4 begins 2 before it.
    assert store["annotations/coords"][:].tolist() == [[6.0, 7.0, 8.0], [5.5, 4.5, 3.5]]
    np.testing.assert_array_equal(store["image"][0], voxels[4:8, 5:9, 6:10])
    checked = run(tmp_path, site, "validate", "out.zarr", "--source", tmp_path, "--format", "json")
    assert (checked.returncode, json.loads(checked.stdout)[0]["findings"]) == (0, [])


def test_without_the_plugin_the_store_can_be_read_and_says_what_is_missing(tmp_path):
    site = install_documented(tmp_path / "site")
    path, _ = write_blob(tmp_path)
    picks = write_spots(tmp_path, ("motor", 85, 75, 65))
    small = ("--patch-shape", 4, "--ds-factor", 2, "--jitter", 0, "--workers", 1)
    assert run(tmp_path, site, "convert", path, "-a", picks, "-o", "out.zarr", *small).returncode == 0
    empty = tmp_path / "empty"
    assert run(tmp_path, empty, "validate", "out.zarr").returncode == 0
    checked = run(tmp_path, empty, "validate", "out.zarr", "--source", tmp_path, "--format", "json")
    (finding,) = json.loads(checked.stdout)[0]["findings"]
    assert (checked.returncode, finding["code"]) == (1, "KP502")
    assert "'blob'" in finding["found"]


def test_inspect_shows_both(tmp_path):
    site = install_documented(tmp_path / "site")
    path, _ = write_blob(tmp_path)
    picks = write_spots(tmp_path, ("motor", 85, 75, 65))
    volume = json.loads(run(tmp_path, site, "inspect", path, "--json").stdout)
    assert (volume["format"], volume["shape"]) == ("blob", list(SHAPE))
    annotations = json.loads(run(tmp_path, site, "inspect", picks, "--json").stdout)
    assert (annotations["format"], annotations["convention"]["zero"]) == ("spots", "corner")


def test_a_plugin_volume_of_the_page_that_is_cut_short_names_file_and_package(site, tmp_path):
    install_documented(site)
    path, _ = write_blob(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="cut short"):
        open_volume(path)
    path.write_bytes(b"BLOB1 12 x\n")
    with pytest.raises(FormatError, match=r"by the plugin blob of lab-formats 1\.0, found ValueError"):
        open_volume(path)


# ----- who is asked when -----


def claims_everything(site):
    install_volume(site, matches="True")
    install_table(site, matches="True")


@pytest.mark.parametrize(
    "name",
    [
        "mrc/TS_run1.rec",
        "mrc/tomo_int16.mrc",  # has no MAP id: ours by its suffix alone
        "tiff/mini-t1-head.tif",
        "ome-zarr/portal_input_omezarr.zarr",
    ],
)
def test_a_plugin_that_claims_everything_takes_no_volume_of_ours(site, real_data, name):
    before = detect_format(real_data / name).NAME
    claims_everything(site)
    assert detect_format(real_data / name).NAME == before != "odd"


@pytest.mark.parametrize(
    "name", ["csv/byu_train_labels.csv", "star/warp_m_dynamo2m.star", "matched/portal_fixture/copick.json"]
)
def test_a_plugin_that_claims_everything_takes_no_annotations_of_ours(site, real_data, name):
    before = detect_annotations(real_data / name).NAME
    claims_everything(site)
    assert detect_annotations(real_data / name).NAME == before != "odd"


def test_a_table_that_ours_reads_by_its_suffix_stays_ours(site, tmp_path):
    claims_everything(site)
    path = text_file(tmp_path, "1,2,3\n4,5,6\n", "points.csv")
    assert detect_annotations(path, AnnotationOptions(axis_order="zyx")).NAME == "table"
    assert detect_annotations(path).NAME == "odd"  # ours would refuse it: no header says what is what


def test_a_plugin_reads_what_ours_refuse(site, tmp_path):
    claims_everything(site)
    assert open_volume(text_file(tmp_path)).info.format == "odd"
    assert open_volume(text_file(tmp_path, name="volume.rec")).info.format == "odd"  # no MRC, though called one
    assert read_annotations(text_file(tmp_path)).format == "odd"


def test_a_format_that_is_known_and_not_read_is_left_to_a_plugin(site, tmp_path):
    path = text_file(tmp_path, "<objects_of_no_known_kind/>\n", "a.unknown")
    with pytest.raises(FormatError):
        detect_annotations(path)
    install_table(site)
    annotation_registry.PLUGINS = annotation_plugin.plugin_group(frozenset())
    assert detect_annotations(path).NAME == "odd"


def test_a_name_settles_it(site, tmp_path, real_data):
    claims_everything(site)
    assert open_volume(real_data / "mrc/TS_run1.rec", VolumeOptions(format="odd")).info.format == "odd"
    options = AnnotationOptions(format="odd")
    assert read_annotations(real_data / "csv/byu_train_labels.csv", options).format == "odd"


def test_plugins_are_asked_in_the_order_of_their_names(site, tmp_path):
    for name in ("zeta", "alpha", "midway"):
        install_volume(site, name)
    assert detect_format(text_file(tmp_path)).NAME == "alpha"


def test_the_suffixes_of_a_plugin_count_for_its_volumes_alone(site):
    install_volume(site, "odd")
    assert volume_stem("a/tomo.odd", ["odd"]) == "tomo"
    assert volume_stem("a/tomo.odd", ["mrc"]) == "tomo.odd"
    assert volume_stem("tomo.odd") == "tomo.odd"


# ----- nothing is looked up before it is needed -----


def test_no_plugin_is_looked_for_where_ours_read(site, real_data, monkeypatch):
    def refuse(**_):
        pytest.fail("the installed packages were searched")

    monkeypatch.setattr(metadata, "entry_points", refuse)
    with open_volume(real_data / "mrc/TS_run1.rec") as volume:
        assert volume_stem("TS_run1.rec", [volume.info.format]) == "TS_run1"
    open_volume(real_data / "mrc/tomo_int16.mrc").close()
    open_volume(real_data / "mrc/TS_run1.rec", VolumeOptions(format="mrc")).close()
    read_annotations(real_data / "csv/byu_train_labels.csv")
    read_annotations(real_data / "star/warp_m_dynamo2m.star", AnnotationOptions(format="relion"))


def test_help_and_our_own_formats_import_no_plugin(tmp_path):
    site = tmp_path / "site"
    install_volume(site, code="raise SystemExit('imported')")
    np.save(tmp_path / "v.npy", np.zeros((4, 4, 4), np.uint8))
    text_file(tmp_path, "z,y,x\n1,2,3\n", "p.csv")
    small = ("--patch-shape", 4, "--ds-factor", 2, "--voxel-spacing", 10, "--workers", 1, "-o", "o.zarr")
    for command in (["--help"], ["convert", "--help"], ["convert", "v.npy", "-a", "p.csv", *small]):
        ran = run(tmp_path, site, *command)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_named_plugins_are_imported_alone(site, tmp_path):
    install_volume(site, "odd")
    install_volume(site, "broken", code="raise RuntimeError('imported')")
    assert open_volume(text_file(tmp_path), VolumeOptions(format="odd")).info.format == "odd"
    assert volume_registry.PLUGINS.problems == ()


# ----- bad plugins -----

BROKEN = {
    "missing library": ("import a_library_that_nobody_has", "ModuleNotFoundError: No module named 'a_library"),
    "syntax": ("def", "SyntaxError"),
    "raises": ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    "leaves": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "empty": ("", "it has no NAME, the format's name"),
    "no matches": (VOLUME.format(name="odd", matches="True").replace("def matches", "def other"), "it has no matches"),
    "no open": (VOLUME.format(name="odd", matches="True").replace("def open_volume", "def f"), "it has no open_volume"),
    "other name": (VOLUME.format(name="other", matches="True"), "its NAME is 'other', not that of its entry point"),
    "suffix": (VOLUME.format(name="odd", matches="True").replace("('.odd',)", "'.odd'").replace('(".odd",)', '".odd"'),
               "its SUFFIXES is '.odd', not a tuple of suffixes"),
    "matches fails": (VOLUME.format(name="odd", matches="peek.nothing"), "its matches() failed on a file"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "said"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_where_nothing_else_reads_and_breaks_no_other(site, tmp_path, code, said):
    install_volume(site, code=code)
    path = text_file(tmp_path)
    with pytest.raises(FormatError) as caught:
        open_volume(path)
    assert "the plugin odd of odd-reader 1.0 cannot be used: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(site) not in str(caught.value)
    install_volume(site, "zeta")
    volume_registry.PLUGINS = volume_plugin.plugin_group(frozenset({"mrc"}))
    importlib.invalidate_caches()
    assert open_volume(path).info.format == "zeta"


def test_a_broken_plugin_that_is_named_is_an_error_of_usage(site, tmp_path):
    install_volume(site, code="import a_library_that_nobody_has")
    with pytest.raises(UsageError, match=r"the plugin odd of odd-reader 1\.0 cannot be used: ModuleNotFoundError"):
        open_volume(text_file(tmp_path), VolumeOptions(format="odd"))


def test_no_traceback_on_the_command_line(tmp_path):
    site = tmp_path / "site"
    install_volume(site, code="import a_library_that_nobody_has")
    install(site, "table-reader", {ANNOTATIONS: {"odd": "no_such_module"}}, {})
    path = text_file(tmp_path)
    for command in (
        ["inspect", path],
        ["inspect", path, "--volume-format", "odd"],
        ["inspect", path, "--format", "odd"],
    ):
        ran = run(tmp_path, site, *command)
        assert ran.returncode in (2, 3)
        assert ran.stderr.count("\n") == 1
        assert "cannot be used: ModuleNotFoundError" in ran.stderr


def test_a_plugin_cannot_take_the_name_of_ours(site, tmp_path):
    install(site, "mrc-reader", {VOLUMES: {"mrc": "nowhere"}}, {})
    with pytest.raises(FormatError, match=r"mrc of mrc-reader 1\.0 cannot be used: the name is that of a format"):
        open_volume(text_file(tmp_path))


def test_of_two_plugins_of_one_name_neither_is_taken(site, tmp_path):
    install_volume(site, "odd", dist="one")
    install_volume(site, "odd", dist="two")
    with pytest.raises(FormatError, match="cannot be used: two packages bring a format of this name") as caught:
        open_volume(text_file(tmp_path))
    assert "one 1.0" in str(caught.value)
    assert "two 1.0" in str(caught.value)


def test_metadata_that_cannot_be_read_leaves_our_own_formats_alone(site, tmp_path, real_data, monkeypatch):
    def fail(**_):
        raise ValueError("a damaged file")

    monkeypatch.setattr(metadata, "entry_points", fail)
    open_volume(real_data / "mrc/TS_run1.rec").close()
    with pytest.raises(FormatError, match="cannot be read: ValueError: a damaged file"):
        open_volume(text_file(tmp_path))


# ----- plugins that do not keep their contract -----


def volume_with(old, new):
    code = VOLUME.format(name="odd", matches="True")
    assert old in code
    return code.replace(old, new)


INFOS = {
    "no info": (volume_with("Voxels(info, ", "Voxels(7, "), "a VolumeInfo from the plugin odd"),
    "two axes": (volume_with("(2, 3, 4), np.dtype", "(3, 4), np.dtype"), "a volume of 3 axes"),
    "no voxels": (volume_with("(2, 3, 4), np.dtype", "(2, 0, 4), np.dtype"), "at least one voxel"),
    "complex": (volume_with('"uint8"', '"complex64"'), "integers or floats"),
    "spacing": (volume_with('"), None', '"), (1, 0, 1)'), "voxel_spacing to be None or three lengths"),
    "access": (volume_with('"mapped"', '"fast"'), "access to be one of mapped"),
    "conventions": (volume_with('"mapped"', '"mapped", conventions={"a": np.float32(1)}'), "conventions to be values"),
    "world": (volume_with('"mapped"', '"mapped", world=((1, 2), (3, 4))'), "world to be None or a"),
}


@pytest.mark.parametrize(("code", "said"), INFOS.values(), ids=INFOS)
def test_a_header_that_breaks_the_contract(site, tmp_path, code, said):
    install_volume(site, code=code)
    with pytest.raises(FormatError, match=said):
        open_volume(text_file(tmp_path))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("np.zeros((2, 2, 4), np.uint8)", r"a box of \(2, 3, 4\) uint8 .*found \(2, 2, 4\) uint8; report it to the a"),
        ("np.zeros((2, 3, 4), np.float32)", r"found \(2, 3, 4\) float32"),
        ("{}[start]", r"voxels that can be read by the plugin odd of odd-reader 1\.0, found KeyError"),
    ],
)
def test_a_box_that_breaks_the_contract(site, tmp_path, result, said):
    volume = (
        "\nclass Bad:\n    def __init__(self, info): self.info = info\n"
        f"    def read(self, start, stop): return {result}\n    def close(self): pass\n"
    )
    install_volume(site, code=volume_with("Voxels(info, np.zeros((2, 3, 4), np.uint8))", "Bad(info)") + volume)
    with open_volume(text_file(tmp_path)) as volume, pytest.raises(FormatError, match=said):
        volume.read((0, 0, 0), (2, 3, 4))


def test_a_big_endian_box_is_as_good(site, tmp_path):
    code = volume_with("np.zeros((2, 3, 4), np.uint8)", "np.arange(24, dtype='>u2').reshape(2, 3, 4)")
    install_volume(site, code=code.replace('"uint8"', '"uint16"'))
    with open_volume(text_file(tmp_path)) as volume:
        box = volume.read((0, 1, 0), (2, 3, 4))
    assert box.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(box, np.arange(24).reshape(2, 3, 4)[:, 1:])


READS = {
    "nothing": ("None", "found NoneType"),
    "unit": ("AnnotationTable(path, NAME, Convention('parsec', 'zyx'), points)", "parsec"),
    "columns": ("AnnotationTable(path, NAME, Convention('voxel', 'zyx'), points[['z', 'y', 'x']])", "with the columns"),
    "nan": ("AnnotationTable(path, NAME, Convention('voxel', 'zyx'), points.assign(y=float('nan')))", "in row 0"),
    "text": ("AnnotationTable(path, NAME, Convention('voxel', 'zyx'), points.assign(y='a'))", "in row 0"),
    "class": ("AnnotationTable(path, NAME, Convention('voxel', 'zyx'), points.assign(class_name=7))", "7 as the name"),
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize(("result", "said"), READS.values(), ids=READS)
def test_annotations_that_break_the_contract(site, tmp_path, result, said):
    install_table(site, result=result)
    with pytest.raises(FormatError, match=r"the plugin odd of odd-table 1\.0") as caught:
        read_annotations(text_file(tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_that_a_plugin_raises_on_purpose_stays_as_it_is(site, tmp_path):
    code = volume_with(
        "    return Voxels", "    from keypatch import ReadError\n    raise ReadError('just so')\n    return V"
    )
    install_volume(site, code=code)
    with pytest.raises(ReadError, match=r"^just so$"):
        open_volume(text_file(tmp_path))


def test_options_that_a_plugin_does_not_heed_are_told(site, tmp_path):
    install_table(site)
    options = AnnotationOptions(delimiter=";")
    assert read_annotations(text_file(tmp_path), options).warnings == ("not used for the format odd: delimiter",)


def test_a_plugin_and_ours_in_one_store(tmp_path):
    site = install_documented(tmp_path / "site")
    write_blob(tmp_path)
    with mrcfile.new(tmp_path / "other.mrc", data=np.ones(SHAPE, np.uint16)) as mrc:
        mrc.voxel_size = 10
    text_file(tmp_path, "volume,z,y,x\ntomo,6,7,8\nother.mrc,5,5,5\n", "picks.csv")
    small = ("--patch-shape", 4, "--ds-factor", 2, "--jitter", 0, "--workers", 1, "--json")
    ran = run(tmp_path, site, "convert", "*.[bm]*", "-a", "picks.csv", "-o", "out.zarr", *small)
    report = json.loads(ran.stdout)
    assert (report["volumes"], report["left_out"], report["warnings"]) == (2, [], [])
