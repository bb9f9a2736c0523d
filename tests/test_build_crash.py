"""Builds that are killed, interrupted or lose a worker: what is reported, what is kept, and that they go on."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.builds import (
    GATED_UNIT,
    PATIENCE,
    digest_of,
    end,
    is_running,
    left_beside,
    make_gate,
    make_sources,
    plan_of,
    units_kept,
    wait_for,
    workers_at_work,
    workers_of,
)
from tests.sources import every_file, names_in

from keypatch import workers as worker_processes
from keypatch.converters.journal import Work
from keypatch.errors import BuildIncompleteError, WorkerError
from keypatch.formats.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

OTHERS = {0, 1, 3}
"""Units that finish while one worker waits at the pipe."""

AT_THE_GATE = Work("unit", GATED_UNIT)


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    return make_gate(tmp_path_factory.mktemp("gate"))


@pytest.fixture(scope="module")
def undisturbed(gate, tmp_path_factory):
    """The store that a build without any trouble makes."""
    out = tmp_path_factory.mktemp("undisturbed") / "out.zarr"
    with gate.open():
        digest_of(plan(gate), out, workers=1)
    return out


@pytest.fixture
def out(tmp_path):
    (tmp_path / "built").mkdir()
    return tmp_path / "built" / "out.zarr"


@pytest.fixture
def started(gate):
    """Starts builds on the command line, and ends them after the test whatever happens."""
    processes = []

    def start(out, *flags):
        processes.append(gate.start(out, *flags))
        return processes[-1]

    yield start
    for process in processes:
        end(process)


@contextlib.contextmanager
def one_worker_waits(gate, out, others=OTHERS, work=AT_THE_GATE):
    """Within the block the other units are kept and a worker is in the middle of its work; gives its process id."""
    with gate.holding_a_reader():
        wait_for(lambda: units_kept(out) == others, "the other units")
        (worker,) = [process for process, at in workers_at_work(out).items() if at == work]
        yield worker


def kill_a_worker(gate, out, **which):
    with one_worker_waits(gate, out, **which) as worker:
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not is_running(worker), "the worker to be gone")


def plan(gate, **settings):
    return plan_of(gate.folder, volumes=[f"{gate.folder}/g.zarr"], jitter=0, **settings)


def assert_goes_on(gate, out, undisturbed):
    """The same call completes the store, from what was kept."""
    assert not out.exists()
    with gate.open():
        digest = digest_of(plan(gate), out, workers=1)
    assert digest == Store(undisturbed).digest
    assert every_file(out) == every_file(undisturbed)
    assert left_beside(out) == []


# ----- a worker is killed -----


def test_a_killed_worker_is_reported_and_the_finished_units_are_kept(gate, out, undisturbed):
    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill_a_worker, gate, out)
        with pytest.raises(WorkerError, match=r"g\.zarr: .*unit 2 of volume g.*signal 9.*memory"):
            digest_of(plan(gate), out, workers=2)
        killed.result()
    assert units_kept(out) == OTHERS
    assert_goes_on(gate, out, undisturbed)


def test_a_worker_killed_while_it_measures_is_reported_with_its_volume(gate, out):
    which = {"others": set(), "work": Work("volume", 0)}
    measured = plan(gate, dtype="uint8", clip_percentiles=(1, 99))
    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill_a_worker, gate, out, **which)
        with pytest.raises(BuildIncompleteError, match="4 of 4 units") as caught:
            digest_of(measured, out, workers=2, on_error="skip")
        killed.result()
    assert set(caught.value.failures) == {0, 1, 2, 3}
    assert re.search(r"g\.zarr: expected a worker to measure volume g, found .*signal 9", caught.value.failures[0])
    assert left_beside(out) == []


def test_the_command_line_skips_the_unit_of_a_killed_worker(gate, out, undisturbed, started):
    build = started(out, "--on-error", "skip")
    kill_a_worker(gate, out)
    stdout, stderr = build.communicate(timeout=PATIENCE)
    assert build.returncode == 1
    assert stdout == ""
    assert re.fullmatch(r"keypatch: 1 of 4 units could not be built: unit 2: .*signal 9.*the same command.*\n", stderr)
    assert units_kept(out) == OTHERS
    assert_goes_on(gate, out, undisturbed)


def test_a_worker_that_never_began_is_reported(gate, out, monkeypatch):
    """As in a script without a guard, which every worker runs again."""
    monkeypatch.setattr(worker_processes, "_begin", _fail_to_begin)
    with pytest.raises(WorkerError, match="__main__"):
        digest_of(plan(gate), out, workers=2)
    assert left_beside(out) == []


def _fail_to_begin(_):
    os._exit(1)


SCRIPT = """
import sys
import keypatch
from keypatch.converters.build import BuildOptions

print("once", flush=True)
try:
    {call}
except keypatch.WorkerError as error:
    print(error, file=sys.stderr)
finally:
    print("tidied up", flush=True)
"""


def run_script(folder, call):
    (folder / "script.py").write_text(SCRIPT.format(call=call))
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, check=False)


def test_a_script_without_a_guard_is_told_so_in_one_line(tmp_path, undisturbed):
    """Every worker runs the script again, up to the call; what stands behind that is run by the script alone."""
    make_sources(tmp_path)
    settings = "'[a-c].npy', 'picks.csv', 'out.zarr', patch_shape=8, ds_factor=4, voxel_spacing=10, options="
    build = f"keypatch.convert({settings}BuildOptions(workers=2))"
    for call in (build, f"keypatch.validate({str(undisturbed)!r}, workers=2)"):
        ran = run_script(tmp_path, call)
        assert ran.stderr.count("\n") == 1, ran.stderr
        assert "found that each of them runs the calling script again; use one worker, or a script" in ran.stderr
        assert "if __name__ == '__main__':" in ran.stderr
        assert (ran.returncode, ran.stdout.count("tidied up")) == (0, 1)
        assert 2 <= ran.stdout.count("once") <= 3
        assert names_in(tmp_path) == {"a.npy", "b.npy", "c.npy", "picks.csv", "script.py"}


def test_a_script_without_a_guard_loses_nothing_that_was_built(tmp_path, gate, out, undisturbed):
    with ThreadPoolExecutor(1) as killer:
        killed = killer.submit(kill_a_worker, gate, out)
        with pytest.raises(WorkerError):
            digest_of(plan(gate), out, workers=2)
        killed.result()
    given = f"['{gate.folder}/g.zarr'], ['{gate.folder}/picks.csv'], {str(out)!r}"
    settings = "patch_shape=8, ds_factor=4, voxel_spacing=10, jitter=0"
    ran = run_script(tmp_path, f"keypatch.convert({given}, {settings}, options=BuildOptions(workers=2))")
    assert "runs the calling script again" in ran.stderr
    assert units_kept(out) == OTHERS
    assert_goes_on(gate, out, undisturbed)


# ----- the build itself is stopped -----


@pytest.mark.parametrize(
    ("number", "to_the_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["ctrl-c", "sigterm"],
)
def test_an_interrupted_build_says_how_to_go_on(gate, out, undisturbed, started, number, to_the_group, code):
    build = started(out)
    with one_worker_waits(gate, out):
        workers = workers_of(build.pid)
        begin = time.monotonic()
        (os.killpg if to_the_group else os.kill)(build.pid, number)
        stdout, stderr = build.communicate(timeout=PATIENCE)
        took = time.monotonic() - begin
    assert took < 2
    assert (build.returncode, stdout) == (code, "")
    assert stderr == "keypatch: interrupted; 3 of 4 units are finished and kept: the same command goes on\n"
    assert not any(map(is_running, workers))
    assert_goes_on(gate, out, undisturbed)


def test_ctrl_c_while_the_workers_start_prints_no_traceback(gate, out, started):
    build = started(out)
    wait_for(lambda: workers_of(build.pid), "a worker")
    os.killpg(build.pid, signal.SIGINT)
    _, stderr = build.communicate(timeout=PATIENCE)
    assert stderr == "keypatch: interrupted; 0 of 4 units are finished and kept: the same command goes on\n"
    assert build.returncode == 130
    assert left_beside(out) == []


def test_no_worker_outlives_a_build_that_was_killed(gate, out, undisturbed, started):
    build = started(out)
    with one_worker_waits(gate, out):
        workers = workers_of(build.pid)
        assert len(workers) == 2
        os.kill(build.pid, signal.SIGKILL)
        build.wait(PATIENCE)
        time.sleep(1)
        assert not any(map(is_running, workers))
    assert units_kept(out) == OTHERS
    assert_goes_on(gate, out, undisturbed)
