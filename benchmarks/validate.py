"""Validating a store, every byte of it, against the least work: sha256 of the same bytes, and the same chunks decoded.

    python benchmarks/validate.py [--quick]

Two processes, page cache warm. The floor reads each shard from front to back into memory that it uses again, hashes
what it read and decodes each chunk by its own numcodecs; its processes were started before the clock. It looks at no
value, no checksum of a chunk, no table. keypatch is timed three times: the whole command, from the start of the
interpreter to its end; the call from Python, which starts its processes itself; and the call with processes that were
started before. Ratios on keypatch's rows are shares of the floor's speed. Subsets are timed one by one, as the jobs of
a CI run them, each by one process.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

import keypatch
from floor import started_pool
from keypatch.audit.validate import validate
from table import Row, Settings, measure, row
from timing import Contender, interleaved, settle, warm
from tomograms import SPACING, write_picks, write_volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor
    from pathlib import Path

PART = "validate"
PATCH = (160, 288, 288)
VOLUME = (256, 640, 640)
WORKERS = 2
WANTED = 0.8
SUBSETS = 4
WANTED_SUBSET = 0.8
"""Of a fourth of the time of the whole: the rest is what each job reads again, metadata and tables."""


@dataclass(frozen=True)
class Case:
    """A store.

    Attributes:
        dtype: Of its images.
        codec: As ``--codec`` takes it.
        n_patches: In it.
    """

    dtype: str
    codec: str
    n_patches: int

    @property
    def name(self) -> str:
        """In the table."""
        codec = "default codec" if self.codec == "auto" else "codec none"
        return f"{self.n_patches} of {'x'.join(map(str, PATCH))} {self.dtype}, {codec}, depth full"


def run(settings: Settings) -> list[Row]:
    """All cases."""
    if settings.quick:
        cases, repeats = [Case("uint8", "auto", 32), Case("float32", "auto", 16)], 3
    else:
        cases, repeats = [Case("uint8", "auto", 256), Case("float32", "auto", 96), Case("uint8", "none", 256)], 5
    rows: list[Row] = []
    for case in cases:
        settings.say(f"  {case.name}")
        store = _make(settings, case)
        rows += _against_floor(settings, case, store, repeats)
        if case.codec == "auto":
            rows += _subsets(case, store, repeats)
        settings.fresh("validate")
    return rows


def _make(settings: Settings, case: Case) -> Path:
    work = settings.fresh("validate")
    write_volume(work / "tomo.npy", VOLUME, case.dtype, seed=9)
    write_picks(work / "picks.csv", ["tomo"], VOLUME, case.n_patches, seed=10, margin=24)
    path = work / "out.zarr"
    keypatch.convert(
        work / "tomo.npy",
        work / "picks.csv",
        path,
        patch_shape=PATCH,
        voxel_spacing=SPACING,
        padding="inside",
        codec=case.codec,
    )
    (work / "tomo.npy").unlink()
    warm(path)
    settle()
    return path


def _against_floor(settings: Settings, case: Case, store: Path, repeats: int) -> list[Row]:
    shards = [
        path for name in ("image", "gaussian") for path in sorted((store / name / "c").rglob("*")) if path.is_file()
    ]
    n_bytes = sum(path.stat().st_size for path in shards)
    whole, call, ready, least = ("keypatch, whole command", "keypatch, call", "keypatch, processes ready", "floor")
    with started_pool(WORKERS) as pool:
        list(pool.map(_import_audit, range(4 * WORKERS)))
        contenders = [
            Contender(whole, lambda: _command(store)),
            Contender(call, lambda: _call(store)),
            Contender(ready, lambda: _call(store, pool)),
            Contender(least, lambda: _check_all(pool, shards)),
        ]
        spent = interleaved(contenders, repeats, pool._processes)  # nothing public tells them
    speeds = {name: [n_bytes / 1e6 / one.seconds for one in values] for name, values in spent.items()}
    rows = []
    for name in (least, whole, call, ready):
        seconds, processor = np.median(spent[name], axis=0)
        ratio = None if name == least else float(np.median(speeds[name]) / np.median(speeds[least]))
        # Of so few patches the start of interpreter and processes is most of the time: not judged.
        wanted = None if name == least or (settings.quick and name != ready) else WANTED
        note = f"{seconds:.2f} s, processor time {processor:.2f} s"
        rows.append(row(PART, case.name, name, speeds[name], "MB/s stored", ratio=ratio, wanted=wanted, note=note))
    return rows


def _subsets(case: Case, store: Path, repeats: int) -> list[Row]:
    """Seconds of each subset against a fourth of the whole's, by one process."""
    whole = "keypatch, the whole store"
    contenders = [Contender(whole, lambda: _call(store, workers=1))]
    names = {f"keypatch, subset {k}/{SUBSETS}": (k, SUBSETS) for k in range(1, SUBSETS + 1)}
    contenders += [
        Contender(name, lambda s=subset: _call(store, workers=1, subset=s)) for name, subset in names.items()
    ]
    spent = {name: [one.seconds for one in values] for name, values in interleaved(contenders, repeats).items()}
    fourth = float(np.median(spent[whole])) / SUBSETS
    name = case.name + ", one process"
    rows = [row(PART, name, whole, spent[whole], "s", note=f"a fourth of it: {fourth:.2f} s")]
    for subset in names:
        share = fourth / float(np.median(spent[subset]))
        rows.append(row(PART, name, subset, spent[subset], "s", ratio=share, wanted=WANTED_SUBSET))
    return rows


def _command(store: Path) -> None:
    command = [sys.executable, "-m", "keypatch", "validate", str(store), "--workers", str(WORKERS)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _call(
    store: Path, executor: Executor | None = None, *, workers: int = WORKERS, subset: tuple[int, int] | None = None
) -> None:
    report = validate(store, "full", subset=subset, workers=workers, executor=executor)
    if report.n_errors or not report.checked.bytes_hashed:  # of so many random patches two may be one, a warning
        message = f"a new store gives {report.errors[:1]}"
        raise AssertionError(message)


def _import_audit(_: int) -> None:
    import time

    import keypatch.audit.units  # noqa: F401

    time.sleep(0.02)  # long enough that no process takes all of these calls


# The floor


def _check_all(pool: Executor, shards: Sequence[Path]) -> None:
    digests = list(pool.map(check_shard, shards))
    if len(set(digests)) < 2:
        message = "all shards have one hash"
        raise AssertionError(message)


def check_shard(path: Path) -> str:
    """Hash a shard and decode its chunks, one after the other."""
    array = path
    while not (array / "zarr.json").exists():
        array = array.parent
    codec, index_bytes = _form_of(array)
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        file.seek(size - index_bytes)
        tail = file.read()
        index = np.frombuffer(tail[:-4], "<u8").reshape(-1, 2)
        index = index[index[:, 0] < size]
        sha256 = hashlib.sha256()
        file.seek(0)
        memory, values = _memory("encoded", int(index[:, 1].max())), None
        for offset, length in index[np.argsort(index[:, 0])].tolist():
            if file.tell() != offset:
                message = f"{path}: its chunks do not follow each other"
                raise AssertionError(message)
            file.readinto(memory[:length])
            sha256.update(memory[:length])
            if codec is not None:
                values = codec.decode(memory[: length - 4], values)
        sha256.update(tail)
    return sha256.hexdigest()


@cache
def _memory(_: str, n_bytes: int) -> memoryview:
    return memoryview(bytearray(n_bytes))


@cache
def _form_of(array: Path) -> tuple[Any, int]:
    """The codec of an array, by numcodecs, and the bytes of a shard's index."""
    from numcodecs import blosc, get_codec

    blosc.use_threads = False
    metadata = json.loads((array / "zarr.json").read_text(encoding="utf-8"))
    (sharding,) = metadata["codecs"]
    shard_shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    inner = sharding["configuration"]
    n_chunks = int(np.prod([n // c for n, c in zip(shard_shape, inner["chunk_shape"], strict=True)]))
    configurations = {codec["name"]: codec.get("configuration", {}) for codec in inner["codecs"]}
    if "zstd" in configurations:
        codec = get_codec({"id": "zstd", "level": configurations["zstd"]["level"]})
    elif "blosc" in configurations:
        codec = get_codec({"id": "blosc", "cname": configurations["blosc"]["cname"]})
    else:
        codec = None
    return codec, 16 * n_chunks + 4


if __name__ == "__main__":
    measure([(PART, run)], __doc__ or "")
