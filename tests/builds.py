"""Plans of tiny stores, and ways to stop their builds at a chosen point."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from tests.sources import truth, write_csv, write_npy

from keypatch.converters.build import BuildOptions, convert
from keypatch.converters.journal import Journal, Work
from keypatch.converters.plan import Plan, build_plan
from keypatch.converters.recipe import Recipe
from keypatch.formats.store.building import build_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SETTINGS: dict[str, Any] = {"patch_shape": 8, "ds_factor": 4, "voxel_spacing": 10}
PATIENCE = 30
"""Seconds after which a test that waits for another process gives up."""


def make_sources(folder: Path, names: str = "abc", n_points: int = 4, dtype: Any = np.uint8) -> Path:
    """NPY volumes and one table of their points; every patch becomes a unit of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {name: truth(i, n_points=n_points, dtype=dtype) for i, name in enumerate(names)}
    for name, volume in known.items():
        write_npy(folder / name, volume)
    write_csv(folder, known)
    return folder


def plan_of(folder: Path, **settings: Any) -> Plan:
    given = {"volumes": [f"{folder}/[a-z].*"], "annotations": [str(folder / "picks.csv")], **SETTINGS, **settings}
    return build_plan(Recipe.from_mapping(given))


def digest_of(plan: Plan, out: Path, **options: Any) -> str:
    """Build a store; gives its digest."""
    return convert(plan, out, BuildOptions(**options)).digest


def left_beside(out: Path) -> list[str]:
    """What lies in the store's folder besides the store."""
    return sorted(path.name for path in out.parent.iterdir() if path.name != out.name)


def units_kept(out: Path) -> set[int]:
    return {int(path.stem) for path in (build_folder(out) / "units").glob("[0-9]*.json")}


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition holds; gives what it gave."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.005)
    return found


# ----- a volume that stops its reader in the middle of a unit -----


@dataclass(frozen=True)
class Gate:
    """Sources of which one chunk is a pipe: who reads it waits until its bytes are let through.

    No fingerprint counts a pipe, so the sources stay the same whether anyone waits there or not.
    """

    folder: Path
    pipe: Path
    content: bytes

    def command(self, out: Path, *flags: object) -> list[str]:
        return [
            sys.executable, "-m", "keypatch", "convert", f"{self.folder}/g.zarr", "-a", f"{self.folder}/picks.csv",
            "-o", str(out), "--voxel-spacing", "10", "--patch-shape", "8", "--ds-factor", "4", "--jitter", "0",
            "--workers", "2", "--json", *map(str, flags),
        ]  # fmt: skip

    def start(self, out: Path, *flags: object) -> subprocess.Popen[str]:
        """Begin a build on the command line, in a process group of its own."""
        return subprocess.Popen(
            self.command(out, *flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_interrupts,  # noqa: PLW1509 - no thread of a test holds a lock here
        )

    @contextlib.contextmanager
    def holding_a_reader(self) -> Iterator[None]:
        """Wait until someone reads the pipe, and let it wait to the end of the block."""

        def opened() -> int | None:
            with contextlib.suppress(OSError):  # of a pipe that has no reader yet
                return os.open(self.pipe, os.O_WRONLY | os.O_NONBLOCK)
            return None

        descriptor = wait_for(opened, "a reader of the pipe")
        try:
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def open(self, times: int = 1) -> Iterator[None]:
        """Let this many readers through during the block."""
        thread = threading.Thread(target=self._feed, args=(times,), daemon=True)
        thread.start()
        yield
        thread.join(PATIENCE)
        assert not thread.is_alive(), "nobody read the pipe"

    def _feed(self, times: int) -> None:
        for _ in range(times):
            self.pipe.write_bytes(self.content)
            time.sleep(0.05)  # so that this reader has seen the end before the next one is served


def _heed_interrupts() -> None:
    """Where the tests run behind a shell's ``&`` or ``nohup``, what they start would be deaf to them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


GATED_UNIT = 2


def make_gate(folder: Path) -> Gate:
    """One Zarr volume of four chunks, a patch and unit each; the chunk of unit 2 is the pipe."""
    folder.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).integers(0, 60000, (8, 8, 32), dtype=np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array(folder / "g.zarr", data=array, chunks=(8, 8, 8), compressors=None)
    points = "".join(f"g,4,4,{x}\n" for x in (4, 12, 20, 28))
    (folder / "picks.csv").write_text(f"volume,z,y,x\n{points}")
    pipe = folder / "g.zarr" / "c" / "0" / "0" / str(GATED_UNIT)
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    return Gate(folder, pipe, content)


def workers_at_work(out: Path) -> dict[int, Work]:
    """Processes that are marked to be at something, and at what."""
    return Journal(build_folder(out)).active()


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def workers_of(process: int) -> set[int]:
    """Processes that a build has spawned to work for it."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in stat.with_name("cmdline").read_bytes():
                found.add(int(stat.parent.name))
    return found


def end(process: subprocess.Popen[str]) -> None:
    """Make sure that nothing of a build runs on after its test."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
