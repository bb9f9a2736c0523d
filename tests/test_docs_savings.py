"""docs/savings.md: every figure worked out anew, and held against `stats`, `os.stat`, `du` and stores really built."""

from __future__ import annotations

import ast
import operator
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import keypatch
from keypatch.audit.savings import find_savings, measure_parts
from keypatch.audit.stats import StoreStats, stats

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs/savings.md").read_text(encoding="utf-8")
SETTINGS = {
    "patch_shape": (160, 288, 288),
    "ds_factor": (16, 16, 16),
    "sigma_angstrom": 200,
    "voxel_spacing": 12.5,
    "centered": 1,
    "jitter": 0,
}
MEASURED = 0.01
"""How far a compressed size may be off with other versions of the codecs' libraries."""

OPERATIONS = {ast.Add: operator.add, ast.Mult: operator.mul, ast.Div: operator.truediv}


def section(heading: str) -> str:
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def blocks(text: str, kind: str) -> list[list[tuple[str, str]]]:
    """Name and the rest of each line, block by block."""
    found = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    return [[tuple(re.split(r"  +", line, maxsplit=1)) for line in block.splitlines()] for block in found]  # type: ignore[misc]


def figures(heading: str, block: int | None = None) -> dict[str, float]:
    """The results written in a section, by name."""
    chosen = blocks(section(heading), "figures")
    lines = [line for lines in (chosen if block is None else [chosen[block]]) for line in lines]
    return {name: float(rest.split(" = ")[1]) for name, rest in lines}


def measured(heading: str) -> dict[str, float]:
    return {name: float(rest) for lines in blocks(section(heading), "measured") for name, rest in lines}


def worked_out(expression: str) -> float:
    """Plain arithmetic of numbers, +, ×, / and brackets."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATIONS[type(node.op)](value(node.left), value(node.right))  # type: ignore[no-any-return]
        assert isinstance(node, ast.Constant)
        return float(node.value)  # type: ignore[arg-type]

    return value(ast.parse(expression.replace("×", "*"), mode="eval").body)


class Built:
    """The stores of the page."""

    def __init__(self, folder: Path) -> None:
        for dtype in ("uint8", "float32"):
            (folder / dtype).mkdir()
            for v in range(2):
                noise = np.random.default_rng(v).normal(127, 37, (160, 288, 288)).astype(np.float32)
                voxels = np.clip(np.rint(noise), 0, 255).astype(np.uint8) if dtype == "uint8" else noise
                np.save(folder / dtype / f"tomo_{v}.npy", voxels)
            picks = "".join(f"tomo_{v},80,144,144\n" for v in range(2))
            (folder / dtype / "picks.csv").write_text(f"volume,z,y,x\n{picks}")
        self.paths = {}
        for name, source, extra in (
            ("uint8", "uint8", {}),
            ("float32", "float32", {}),
            ("reduced", "float32", {"dtype": "uint8"}),
            ("uncompressed", "uint8", {"codec": "none"}),
        ):
            self.paths[name] = folder / f"{name}.zarr"
            sources = str(folder / source / "tomo_*.npy"), str(folder / source / "picks.csv")
            keypatch.convert(*sources, self.paths[name], **SETTINGS, **extra)
        self.uint8, self.float32 = stats(self.paths["uint8"]), stats(self.paths["float32"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, real_fsync: None) -> Built:
    return Built(tmp_path_factory.mktemp("byu"))


def raw(result: StoreStats) -> dict[str, int]:
    return {part.name: part.raw for part in result.parts}


def files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def full(result: StoreStats, dtype: str, codec: str = ""):
    return next(entry for entry in result.full_gaussian if entry.dtype == dtype and codec in entry.codec)


LINES = [line for lines in blocks(TEXT, "figures") for line in lines]


@pytest.mark.parametrize(("name", "line"), LINES, ids=[f"{k}-{line[0]}" for k, line in enumerate(LINES)])
def test_the_arithmetic_is_right(name: str, line: str) -> None:
    expression, result = line.split(" = ")
    decimals = len(result.partition(".")[2])
    assert round(worked_out(expression), decimals) == float(result), name


def test_there_is_as_much_as_was_written() -> None:
    assert len(LINES) == 40
    assert sum(map(len, blocks(TEXT, "measured"))) == 11


def test_geometry(built: Built) -> None:
    store = keypatch.open(built.paths["uint8"])
    assert figures("The geometry") == {
        "sigma on the coarse grid": store.table("patches/ds_sigma")[0, 1],
        "grid, z": store.grid_shape[0],
        "grid, y and x": store.grid_shape[1],
        "voxels of a patch": store[0].image.size,
        "values of its target": store.read_gaussian(0).size,
        "how many times fewer": built.uint8.savings.gaussian_grid,
    }
    assert store.grid_shape[1] == store.grid_shape[2]
    assert (len(store), len(store.table("keypoints/class_index"))) == (2, 2)


def test_raw_bytes(built: Built) -> None:
    parts = raw(built.uint8)
    assert figures("Raw bytes", 0) == {
        "image, uint8": parts["image"],
        "image, float32": raw(built.float32)["image"],
        **{name: parts[name] for name in ("gaussian", "patches", "keypoints", "annotations", "integrity")},
        "store, uint8": built.uint8.raw,
        "store, float32": built.float32.raw,
    }
    assert figures("Raw bytes", 1) == {
        f"full Gaussian, {dtype}": full(built.uint8, dtype).raw for dtype in ("uint8", "float16", "float32")
    }
    assert figures("Raw bytes", 2) == {
        **{
            f"uint8 image, {dtype} Gaussian": round(full(built.uint8, dtype).ratio_raw, 3)
            for dtype in ("uint8", "float16", "float32")
        },
        **{
            f"float32 image, {dtype} Gaussian": round(full(built.float32, dtype).ratio_raw, 3)
            for dtype in ("float16", "float32")
        },
    }


def test_memory(built: Built) -> None:
    memory = built.uint8.memory
    assert figures("In memory, one patch loaded") == {
        "image, uint8": memory.image,
        "coarse Gaussian": memory.gaussian,
        "keypoints": memory.keypoints,
        "full Gaussian, float32": memory.full_gaussian["float32"],
        "uint8 image, float32 Gaussian": round(full(built.uint8, "float32").ratio_in_memory, 3),
    }
    patch = keypatch.open(built.paths["uint8"])[0]
    assert (memory.image, memory.gaussian) == (patch.image.nbytes, patch.gaussian().nbytes)


def test_uncompressed_shards_to_the_byte(built: Built) -> None:
    path = built.paths["uncompressed"]
    assert figures("On the disk", 0) == {
        "shards of image, uncompressed": files(path / "image/c"),
        "shards of gaussian, uncompressed": files(path / "gaussian/c"),
    }


def test_compressed_sizes(built: Built) -> None:
    expected = {
        "image, uint8": files(built.paths["uint8"] / "image/c"),
        "image, float32": files(built.paths["float32"] / "image/c"),
        "gaussian": files(built.paths["uint8"] / "gaussian/c"),
        "full uint8 Gaussian, zstd": full(built.uint8, "uint8", "zstd").compressed.value,
        "full float16 Gaussian, zstd": full(built.uint8, "float16", "zstd").compressed.value,
        "full float16 Gaussian, lz4": full(built.uint8, "float16", "lz4").compressed.value,
        "full float32 Gaussian, zstd": full(built.uint8, "float32", "zstd").compressed.value,
        "full float32 Gaussian, lz4": full(built.uint8, "float32", "lz4").compressed.value,
        "store, uint8": files(built.paths["uint8"]),
        "store, float32": files(built.paths["float32"]),
    }
    assert measured("On the disk") == pytest.approx(expected, rel=MEASURED)


def test_ratios_on_the_disk(built: Built) -> None:
    assert figures("On the disk", 1) == pytest.approx(
        {
            "uint8 image, uint8 Gaussian": full(built.uint8, "uint8").ratio_on_disk.value,
            "uint8 image, float16 Gaussian": full(built.uint8, "float16", "zstd").ratio_on_disk.value,
            "uint8 image, float32 Gaussian": full(built.uint8, "float32", "lz4").ratio_on_disk.value,
            "float32 image, float32 Gaussian": full(built.float32, "float32").ratio_on_disk.value,
        },
        rel=MEASURED,
    )


def test_each_cause(built: Built) -> None:
    store = keypatch.open(built.paths["reduced"])
    savings = find_savings(store, measure_parts(store))
    totals = {step.name: step.total for step in savings.steps}
    found = figures("Each cause for itself") | measured("Each cause for itself")
    assert found["before: image and full Gaussian"] == totals["sources"]
    assert found["after the coarse grid"] == totals["gaussian"]
    assert found["after the dtype"] == totals["dtype"]
    assert found["after the codec"] == pytest.approx(totals["codec"], rel=MEASURED)
    assert found["saved by the coarse grid"] == round(totals["sources"] / totals["gaussian"], 3)
    assert found["saved by the dtype"] == round(totals["gaussian"] / totals["dtype"], 3)
    assert found["saved by the codec"] == pytest.approx(totals["dtype"] / totals["codec"], rel=MEASURED)
    assert savings.dtype == 4


@pytest.mark.parametrize("name", ["uint8", "float32"])
def test_stats_say_what_stat_and_du_say(built: Built, name: str) -> None:
    result: StoreStats = getattr(built, name)
    path = built.paths[name]
    for part in result.parts:
        if part.name in ("image", "gaussian"):
            assert part.on_disk == files(path / part.name / "c")
    assert result.on_disk == files(path)
    if shutil.which("du") is None:
        pytest.skip("no du on this machine")
    if "GNU" not in subprocess.run(["du", "--version"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("a du without --apparent-size")
    assert _du(path, "--apparent-size") == result.on_disk
    assert _du(path) == sum(part.allocated or 0 for part in result.parts)


def _du(folder: Path, *flags: str) -> int:
    """Bytes of all files by ``du``; what the folders themselves take is no part of a store."""
    command = ["du", "--all", "--block-size=1", *flags, str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    sizes = [line.split("\t", 1) for line in lines]
    return sum(int(size) for size, name in sizes if Path(name).is_file())
