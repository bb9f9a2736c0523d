"""Damage stores at random, once each, and see that an audit finds it and names the right file.

    python tests/soak/mutate_store.py [--times 10000] [--seed 0] [--seconds S] [--processes P] [--only N]

Small but complete stores of several designs are copied and damaged in one of the ways of `tests/mutations.py`: a bit
flipped anywhere, a file emptied, cut, removed, swapped with another or made a link, a stray file or folder, any value
of any zarr.json edited, a row, a voxel or the place of a patch changed with checksums that fit. ``validate --depth
full`` must fail, say so of the damaged file by a fitting code, and blame no other; of undamaged stores it must say
nothing. What is missed is printed with its number: ``--seed S --only N`` tries it again and leaves the store.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import os
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.mutations import Ward, missed

BATCH = 25


def run_batch(folder: Path, seed: int, numbers: range) -> list[tuple[int, str, str]]:
    """Number, what was done and what was missed, of each mutation."""
    warnings.simplefilter("error")
    ward = _ward(folder / f"process-{os.getpid()}", seed)
    results = []
    for number in numbers:
        try:
            results.append((number, *ward.trial(number)))
        except Exception as error:  # a crash is a miss, and the others go on
            results.append((number, "?", f"{type(error).__name__}: {error}"))
            _ward.cache_clear()
    return results


@functools.cache
def _ward(folder: Path, seed: int) -> Ward:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Ward(folder, seed)


def try_again(seed: int, number: int) -> str:
    """One mutation, its store left behind; gives what was missed."""
    subject, mutation = Ward(Path(tempfile.mkdtemp(prefix="keypatch-mutation-")), seed).damage(number)
    print(f"{mutation.what}\nleft at {subject.path}")
    return missed(subject.path, mutation)


def main() -> None:
    """Run the rounds and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after about so long")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, metavar="N", help="try mutation N again")
    given = parser.parse_args()
    if given.only is not None:
        sys.exit(try_again(given.seed, given.only) or None)
    deadline = time.monotonic() + given.seconds
    done, misses = 0, []
    with tempfile.TemporaryDirectory() as temporary, ProcessPoolExecutor(given.processes) as pool:
        starts = iter(range(0, given.times, BATCH))
        pending = collections.deque()
        while True:
            wanted = 2 * given.processes - len(pending) if time.monotonic() < deadline else 0
            for start in itertools.islice(starts, wanted):
                numbers = range(start, min(start + BATCH, given.times))
                pending.append(pool.submit(run_batch, Path(temporary), given.seed, numbers))
            if not pending:
                break
            for number, what, problem in pending.popleft().result():
                done += 1
                if problem:
                    misses.append(number)
                    print(f"--seed {given.seed} --only {number}: {what}: {problem}", flush=True)
    print(f"{done} mutations, seed {given.seed}: {done - len(misses)} found, {len(misses)} missed")
    sys.exit(bool(misses))


if __name__ == "__main__":
    main()
