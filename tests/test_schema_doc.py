"""schema.md against the code and against a store that was really built: each names what the other has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import keypatch
from keypatch.converters.scaling import STORABLE
from keypatch.formats.store import schema
from keypatch.formats.store.digest import canonical_json
from keypatch.gaussian import REACH

if TYPE_CHECKING:
    from keypatch import Store

TEXT = (Path(__file__).resolve().parent.parent / "schema.md").read_text(encoding="utf-8")
ROWS = {"N": "patches", "N + 1": "patches+1", "K": "keypoints", "A": "annotations", "U": "units"}


def table_after(heading: str) -> list[list[str]]:
    """Cells of the first table below a line that begins with these words, without its head."""
    lines = TEXT[TEXT.index(f"\n{heading}") :].splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows[2:]


def keys_of(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table_after(heading)]


def documented_arrays() -> dict[str, tuple[str, str, str]]:
    return {path.strip("`"): (shape, dtype, content) for path, shape, dtype, content in table_after("## Layout")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that went the whole way, with folds, scaling, Gaussians and something left out."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(folder / f"{name}.npy", rng.normal(size=(24, 32, 40)).astype(np.float32))
    rows = ["volume,z,y,x,class", "a,12,16,20,motor", "b,10,11,12,ribosome", "c,1,2,3,motor"]
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    return keypatch.convert(
        [folder / "a.npy", folder / "b.npy"],
        folder / "points.csv",
        folder / "out.zarr",
        patch_shape=(16, 16, 16),
        ds_factor=(4, 4, 4),
        sigma_ds=1.0,
        voxel_spacing=10.0,
        folds=2,
        dtype="uint8",
    )


def test_every_table_of_the_code_is_in_the_text_and_the_other_way() -> None:
    documented = documented_arrays()
    assert list(documented) == [
        "zarr.json",
        "image",
        "gaussian",
        *(t.path for t in schema.TABLES if not t.path.startswith("integrity/")),
        "volumes/",
        *(t.path for t in schema.TABLES if t.path.startswith("integrity/")),
    ]


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda table: table.path)
def test_shape_dtype_and_meaning_of_a_table(table) -> None:
    shape, dtype, content = documented_arrays()[table.path]
    assert dtype == table.dtype
    assert content == table.meaning
    first, second = re.fullmatch(r"\(([NKAU](?: \+ 1)?),(?: (\d+))?\)", shape).groups()
    assert ROWS[first] == table.rows
    assert int(second or 0) == table.columns


def test_every_group_of_the_code_is_in_the_text() -> None:
    groups = {path.partition("/")[0] for path in documented_arrays() if "/" in path}
    assert groups == set(schema.GROUPS)


def test_constants_in_the_text() -> None:
    assert TEXT.startswith(f"# The keypatch store, schema {schema.SCHEMA_VERSION}\n")
    attributes = {row[0].strip("`"): row[1] for row in table_after("## Attributes of the root")}
    assert json.loads(attributes["schema_version"]) == schema.SCHEMA_VERSION
    assert json.loads(attributes["axes"]) == list(schema.AXES)
    assert json.loads(attributes["kinds"]) == list(schema.KINDS)
    assert f'"combine": "{schema.COMBINE}", "reach": {REACH}' in attributes["gaussian"]
    assert f"chunks of min(rows, {schema.TABLE_ROWS_PER_CHUNK}) rows" in TEXT
    assert f"`reach` = {REACH:g} sigmas" in TEXT


@pytest.mark.parametrize("name", ["local_rs", "local_ds", "angstrom_sigma"])
def test_the_coordinate_rule_is_that_of_the_text(name) -> None:
    """The text writes f, global and local_rs for what the store calls by its arrays' names."""
    rule = schema.COORDINATE_RULE[name if name == "angstrom_sigma" else f"{name}_coords"]
    words = rule.replace("_coords", "").replace("ds_factor", "f")
    assert f"{name} = {words}" in TEXT


def test_a_built_store_has_every_array_of_the_text_and_no_other(built) -> None:
    folder = Path(built.path)
    found = {
        path.parent.relative_to(folder).as_posix()
        for path in folder.rglob("zarr.json")
        if json.loads(path.read_text(encoding="utf-8"))["node_type"] == "array"
    }
    assert found == {path for path in documented_arrays() if not path.endswith(("/", ".json"))}


def test_a_built_store_has_the_documented_shapes_and_dtypes(built) -> None:
    sizes = {"N": len(built), "K": len(built.keypoints), "A": len(built.annotations)}
    sizes["U"] = built.attributes["counts"]["units"]
    for table in schema.TABLES:
        shape, dtype, _ = documented_arrays()[table.path]
        expected = eval(shape, {"__builtins__": {}}, sizes)
        values = built.table(table.path)
        assert (values.shape, values.dtype.name) == (expected, dtype), table.path
    assert built.image_array.shape == (len(built), *built.patch_shape)
    assert built.image_array.dtype.name in STORABLE
    assert built.gaussian_array.shape == (len(built), len(built.classes), *built.grid_shape)
    assert built.gaussian_array.dtype.name in documented_arrays()["gaussian"][1].split(" or ")


def test_a_built_store_has_every_attribute_of_the_text_and_no_other(built) -> None:
    assert list(built.attributes) == keys_of("## Attributes of the root")


def documented_object(cell: str) -> set[str]:
    """Keys of the first object that a cell shows: {"a", "b"} or {"a": …, "b": …}."""
    shown = cell[cell.index("{") : cell.index("}") + 1]
    return set(re.findall(r'"(\w+)"(?=[,:}\]])', re.sub(r': "[^"]*"', ":", shown)))


@pytest.mark.parametrize("key", ["gaussian", "counts", "digests", "report"])
def test_objects_among_the_attributes(built, key) -> None:
    attributes = {row[0].strip("`"): row[1] for row in table_after("## Attributes of the root")}
    documented = documented_object(attributes[key])
    if key == "report":
        assert set(built.attributes["report"]) == {"left_out", "warnings", "findings"}
        assert built.attributes["report"]["left_out"], "something was left out: a volume of the table that is not there"
        for entry in built.attributes["report"]["left_out"]:
            assert set(entry) == {"what", "reason", "count", "items"} == documented - {"left_out"}
        named = re.findall(r'"(\w+)"', attributes["report"][attributes["report"].index('"findings"') :])
        assert built.attributes["report"]["findings"]
        for entry in built.attributes["report"]["findings"]:
            assert set(entry) == set(named) - {"findings"}
        return
    assert set(built.attributes[key]) == documented


def test_objects_among_the_sources(built) -> None:
    attributes = {row[0].strip("`"): row[1] for row in table_after("## Attributes of the root")}
    for source in built.attributes["sources"]:
        assert {*source, *source["convention"]} - set(re.findall(r"\w+", attributes["sources"])) == set()


def test_a_volume_has_every_key_of_the_text_and_no_other(built) -> None:
    rows = {row[0].strip("`"): row[1] for row in table_after("The attribute of `volumes/`")}
    for record in built.volume_records:
        assert list(record) == list(rows)
        assert set(record["options"]) == documented_object(rows["options"])
        assert set(record["scaling"]) == documented_object(rows["scaling"])
        assert record["voxel_spacing_from"] in re.findall(r'"(\w+)"', rows["voxel_spacing_from"])


def test_scaling_is_the_formula_of_the_text(built) -> None:
    """source = stored * scale + offset, to half a step, for the voxels of every patch that lie in their volume."""
    for patch in built:
        record = built.volume_records[built.volume_ids.index(patch.volume)]
        scaling = record["scaling"]
        source = np.load(Path(built.path).parent / record["path"]).astype(np.float64)
        inside = tuple(slice(a, b) for a, b in zip(patch.valid_start, patch.valid_stop, strict=True))
        box = tuple(slice(o + s.start, o + s.stop) for o, s in zip(patch.origin, inside, strict=True))
        expected = np.clip(source[box], scaling["low"], scaling["high"])
        back = patch.image[inside] * scaling["scale"] + scaling["offset"]
        assert np.abs(back - expected).max() <= scaling["scale"] * 0.5 * (1 + 1e-9)


def test_canonical_json_is_as_the_text_says() -> None:
    value: dict[str, Any] = {"b": [1, 2.5, None, True], "a": {"é": "Å\n"}}
    assert canonical_json(value) == '{"a":{"é":"Å\\n"},"b":[1,2.5,null,true]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_versions() -> None:
    assert schema.parse_version(schema.SCHEMA_VERSION) == (1, 0)
    assert schema.parse_version("1.10") == (1, 10)
