"""One store, however it is built: any number of workers, any executor, any order."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import random
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from tests.builds import digest_of, left_beside, make_sources, plan_of, units_kept
from tests.sources import assert_store_is_true, every_file, truth, write_csv, write_mrc, write_slices

from keypatch.converters import units
from keypatch.converters.build import BuildOptions, convert
from keypatch.errors import ReadError
from keypatch.formats.store import Store
from keypatch.formats.store.building import build_folder
from keypatch.formats.volumes import raw_data, slices

RANGE = {"dtype": "uint8", "clip_percentiles": (0.5, 99.5)}


class Disordered(Executor):
    """Runs calls in its own thread, of those that wait never the first; the order is drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._waiting: list[tuple[Future, object, tuple]] = []
        self._changed = threading.Condition()
        self._open = True
        self.order: list[int] = []
        self._n_calls = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        with self._changed:
            self._waiting.append((future, self._n_calls, (fn, args, kwargs)))
            self._n_calls += 1
            self._changed.notify()
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):  # noqa: ARG002 - as Executor's
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _run(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._waiting:
                    return
                # The build submits all it has before it waits; a moment is enough for that.
                self._changed.wait_for(lambda: False, timeout=0.01)
                later = len(self._waiting) > 1
                future, number, (fn, args, kwargs) = self._waiting.pop(self._draw.randrange(later, len(self._waiting)))
            if future.set_running_or_notify_cancel():
                self.order.append(number)
                future.set_result(fn(*args, **kwargs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp("sources"), "abc", n_points=3, dtype=np.float32)


@pytest.fixture(scope="module")
def plan(folder):
    return plan_of(folder, **RANGE)


@pytest.fixture(scope="module")
def serial(plan, tmp_path_factory):
    """The store that one process builds."""
    path = tmp_path_factory.mktemp("serial") / "out.zarr"
    digest_of(plan, path, workers=1)
    return path


def assert_same(out, serial):
    assert Store(out).digest == Store(serial).digest
    assert every_file(out) == every_file(serial)
    assert left_beside(out) == []


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_builds_the_same(plan, serial, tmp_path, workers):
    out = tmp_path / "out.zarr"
    digest_of(plan, out, workers=workers)
    assert_same(out, serial)


def test_a_second_serial_build_is_the_same(plan, serial, tmp_path):
    digest_of(plan, tmp_path / "out.zarr", workers=1)
    assert_same(tmp_path / "out.zarr", serial)


def test_what_is_built_is_true(folder, serial):
    known = {name: truth(i, n_points=3, dtype=np.float32) for i, name in enumerate("abc")}
    assert_store_is_true(serial, known)


def test_threads_build_the_same(plan, serial, tmp_path):
    with ThreadPoolExecutor(3) as executor:
        digest_of(plan, tmp_path / "out.zarr", executor=executor)
    assert_same(tmp_path / "out.zarr", serial)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("method", ["fork", "spawn"])
# Python warns of every fork of a process that has threads; the executor is the caller's choice.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_processes_of_the_callers_build_the_same(plan, serial, tmp_path, method):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as executor:
        digest_of(plan, tmp_path / "out.zarr", executor=executor)
        assert executor.submit(int).result() == 0  # still the caller's to use
    assert_same(tmp_path / "out.zarr", serial)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_of_completion_builds_the_same(plan, serial, tmp_path, seed):
    with Disordered(seed) as executor:
        digest_of(plan, tmp_path / "out.zarr", executor=executor, workers=4)
        assert executor.order != sorted(executor.order)
    assert_same(tmp_path / "out.zarr", serial)


# ----- an executor of the caller's -----


def test_no_call_is_left_running_when_a_build_ends(plan, tmp_path, monkeypatch):
    """A call that ran on would write into the folder of the next build, or make it anew."""
    running = threading.Event()
    finished = []

    def write_unit(store, layout, unit, patches):
        if unit == 0:
            assert running.wait(10)
            raise ReadError.at("a.npy", expected="voxels", found="none")
        if unit == 1:
            running.set()
            threading.Event().wait(0.3)
        record = original(store, layout, unit, patches)
        finished.append(unit)
        return record

    original = units.write_unit
    monkeypatch.setattr(units, "write_unit", write_unit)
    out = tmp_path / "out.zarr"
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(ReadError, match="found none"):
            digest_of(plan, out, executor=executor, workers=1)
        then = list(finished)
        assert 1 in then
        assert set(then) == units_kept(out)
        before = every_file(build_folder(out))
    assert finished == then
    assert every_file(build_folder(out)) == before


def test_a_thread_that_outlives_its_build_reads_the_next_builds_file(tmp_path):
    """What a worker decoded for one build is not what the next one asks for, though it has the same path and shape."""
    folder = tmp_path / "sources"
    with ThreadPoolExecutor(1) as executor:
        for seed in (1, 2):
            known = {"a": truth(seed, dtype=np.int16)}
            make_packed(folder, known)
            out = tmp_path / f"{seed}.zarr"
            digest_of(plan_of(folder, volumes=[f"{folder}/*.gz"]), out, executor=executor)
            assert_store_is_true(out, known)


# ----- decoding once -----


def make_packed(folder, known):
    """MRC volumes in gzip, and their points."""
    folder.mkdir(exist_ok=True)
    for name, volume in known.items():
        plain = write_mrc(folder / name, volume)
        (folder / f"{name}.mrc.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
    write_csv(folder, known)


@pytest.fixture(scope="module")
def known():
    return {"a": truth(1, n_points=5, dtype=np.int16), "b": truth(2, n_points=6, dtype=np.int16)}


@pytest.fixture(scope="module")
def packed(known, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    make_packed(folder, known)
    return folder


@pytest.mark.parametrize(("shard_size", "n_units"), [(1024, 77), (2048, 39)])
def test_a_packed_volume_is_decoded_once_for_all_its_units(packed, tmp_path, monkeypatch, shard_size, n_units):
    """Also where a unit begins in one volume and ends in the next: the first has 35 patches."""
    plan = plan_of(packed, volumes=[f"{packed}/*.gz"], shard_size=shard_size, centered=7)
    assert plan.layout.n_units == n_units
    decoded = []

    def decode(self):
        decoded.append(self.info.path.name)
        return original(self)

    original = raw_data.PackedVolume._decoded
    monkeypatch.setattr(raw_data.PackedVolume, "_decoded", decode)
    digest_of(plan, tmp_path / "out.zarr", workers=1)
    assert decoded == ["a.mrc.gz", "b.mrc.gz"]


def test_a_packed_volume_is_decoded_once_more_to_measure_it(packed, tmp_path, monkeypatch):
    """Not once a pass: float32 data takes two."""
    folder = tmp_path / "sources"
    make_packed(folder, {"a": truth(1, n_points=5, dtype=np.float32)})
    plan = plan_of(folder, volumes=[f"{folder}/*.gz"], **RANGE)
    decoded = []

    def decode(self):
        decoded.append(self.info.path.name)
        return original(self)

    original = raw_data.PackedVolume._decoded
    monkeypatch.setattr(raw_data.PackedVolume, "_decoded", decode)
    digest_of(plan, tmp_path / "out.zarr", workers=1)
    assert decoded == ["a.mrc.gz"] * 2


def test_each_slice_is_decoded_once_for_all_units(tmp_path, monkeypatch):
    folder = tmp_path / "sources"
    known = {name: truth(seed, n_points=5) for seed, name in enumerate("ab")}
    for name, volume in known.items():
        write_slices(folder / name, volume)
    write_csv(folder, known)
    plan = plan_of(folder, volumes=[f"{folder}/{name}" for name in known])
    assert plan.layout.n_units == 10
    decoded = []

    def decode(self, index):
        decoded.append(self._folder.files[index])
        return original(self, index)

    original = slices._SliceVolume._decode
    monkeypatch.setattr(slices._SliceVolume, "_decode", decode)
    digest_of(plan, tmp_path / "out.zarr", workers=1)
    assert len(set(decoded)) == len(decoded) > 20


def test_several_workers_share_out_packed_volumes_whole(packed, tmp_path):
    """One group a volume, so that no two workers decode the same one."""
    plan = plan_of(packed, volumes=[f"{packed}/*.gz"])
    calls = []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            calls.append(args[0])
            return super().submit(fn, *args, **kwargs)

    with Counting(2) as executor:
        digest_of(plan, tmp_path / "out.zarr", executor=executor)
    assert [sorted(group.sources) for group in calls] == [[0], [1]]
    assert [task.unit for group in calls for task in group.tasks] == list(range(11))


# ----- progress -----


class Told:
    def __init__(self):
        self.stages = []

    def start(self, what, total, done=0):
        self.stages.append([what, total, done])

    def step(self, n=1):
        self.stages[-1][2] += n


def test_progress_counts_every_volume_and_patch(plan, tmp_path):
    told = Told()
    convert(plan, tmp_path / "out.zarr", BuildOptions(workers=1), told)
    assert told.stages == [["measure", 3, 3], ["write", 9, 9]]
