"""Kill builds at random moments and go on: every time the same digest, nothing left behind.

    python tests/soak/kill_builds.py [--times 100] [--seed 0]

Each round starts a build of one recipe with two workers, kills it with SIGKILL after a random share of the time that
an undisturbed build takes (half of the rounds the parent alone, so that workers are orphaned; half the whole process
group), and runs the same command again. Some rounds kill more than once, some overwrite a store that is there, some
also stop a build by Ctrl-C or SIGTERM, and some end with two builds at once, of which one leaves the other alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PATIENCE = 120


def make_sources(folder: Path) -> None:
    """Three float volumes, so that scalings are measured too, and their points."""
    rng = np.random.default_rng(0)
    rows = ["volume,z,y,x"]
    for name in ("a", "b", "c"):
        np.save(folder / f"{name}.npy", rng.normal(size=(96, 160, 160)).astype(np.float32))
        rows += [f"{name},{z:.3f},{y:.3f},{x:.3f}" for z, y, x in rng.uniform((10, 10, 10), (86, 150, 150), (12, 3))]
    (folder / "picks.csv").write_text("\n".join(rows) + "\n")


def command(folder: Path, out: Path, *flags: str) -> list[str]:
    """The build of one store."""
    sources = [f"{folder}/*.npy", "-a", str(folder / "picks.csv"), "--voxel-spacing", "10"]
    recipe = ["--patch-shape", "64", "--dtype", "uint8", "--centered", "2", "--workers", "2"]
    return [sys.executable, "-m", "keypatch", "convert", *sources, "-o", str(out), *recipe, "--json", *flags]


def build(folder: Path, out: Path, *flags: str) -> str:
    """Run a build to its end; gives the digest."""
    done = subprocess.run(command(folder, out, *flags), capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        sys.exit(f"the build ended with {done.returncode}: {done.stderr}")
    digest: str = json.loads(done.stdout)["digest"]
    return digest


def end_after(seconds: float, folder: Path, out: Path, *flags: str, number: int, group: bool) -> bool:
    """Start a build and end it by a signal; False where it was done before."""
    process = subprocess.Popen(
        command(folder, out, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(-process.pid if group else process.pid, number)
        process.wait(PATIENCE)
        return True
    return False


def race(seconds: float, folder: Path, out: Path) -> None:
    """Start two builds of one store, the second a little later; one of them builds it, the other says why not."""
    first = subprocess.Popen(command(folder, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    second = subprocess.run(command(folder, out), capture_output=True, text=True, timeout=PATIENCE, check=False)
    _, said = first.communicate(timeout=PATIENCE)
    if {first.returncode, second.returncode} != {0, 2}:
        sys.exit(f"two builds at once ended with {first.returncode}, {second.returncode}: {said}{second.stderr}")


def main() -> None:
    """Run the rounds and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "sources"
        folder.mkdir()
        make_sources(folder)
        out = Path(temporary) / "out" / "store.zarr"
        out.parent.mkdir()
        begin = time.monotonic()
        wanted = build(folder, out)
        took = time.monotonic() - begin
        kills = stops = races = late = mid_swap = 0
        while kills < arguments.times:
            overwrite = out.exists() and draw.random() < 0.3
            if not overwrite and out.exists():
                shutil.rmtree(out)
            flags = ("--overwrite",) if overwrite else ()
            for _ in range(draw.choice((1, 1, 2, 3))):
                number = draw.choices((signal.SIGKILL, signal.SIGINT, signal.SIGTERM), (8, 1, 1))[0]
                share, group = draw.uniform(0.2, 1.05), draw.random() < 0.5
                if not end_after(share * took, folder, out, *flags, number=number, group=group):
                    late += 1
                    break
                kills += number == signal.SIGKILL
                stops += number != signal.SIGKILL
            if not out.exists() and draw.random() < 0.2:
                race(draw.uniform(0, 0.5) * took, folder, out)
                races += 1
                flags = ("--overwrite",)
            elif out.exists() and not flags:
                mid_swap += 1  # killed between giving the name and ending
                flags = ("--overwrite",)
            found = build(folder, out, *flags)
            if found != wanted:
                sys.exit(f"after {kills} kills: digest {found}, expected {wanted}")
            left = [path.name for path in out.parent.iterdir() if path != out]
            if left:
                sys.exit(f"after {kills} kills: left beside the store: {left}")
        print(
            f"{kills} kills, {stops} other signals, {races} races ({late} builds were done before, {mid_swap} had just "
            f"got their name): always {wanted}"
        )


if __name__ == "__main__":
    main()
