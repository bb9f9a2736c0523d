"""One store, read by threads, by forked, spawned and fork-served workers, after the parent has read."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from keypatch.formats.store import Store

SCRIPT = '''
"""Prints, for each worker's answer, the hash of what it read."""
import hashlib, multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor

def read(store, index):
    image, patch = store.read_image(index), store[index]
    text = hashlib.sha256(image.tobytes() + store.read_gaussian(index).tobytes() + patch.origin.tobytes())
    return index, text.hexdigest(), os.getpid()

def main(path, method):
    from keypatch.formats.store import Store
    import numcodecs
    store = Store(path)
    expected = [read(store, i)[:2] for i in range(len(store))]      # files, tables and codecs are in use here
    pool = ProcessPoolExecutor(3, mp_context=multiprocessing.get_context(method))
    with pool:
        indices = [i % len(store) for i in range(60)]
        answers = list(pool.map(read, [store] * 60, indices))
    assert [answer[:2] for answer in answers] == [expected[i] for i in indices], "other voxels"
    assert os.getpid() not in {answer[2] for answer in answers}
    if method == "fork":                                            # inherited, not pickled
        raw(store, expected)
    print("ok")

def raw(store, expected):
    """Bare forks that read at the same time through what they inherited."""
    children = []
    for k in range(3):
        child = os.fork()
        if not child:
            good = all(read(store, (i + k) % len(store))[:2] == expected[(i + k) % len(store)] for i in range(60))
            os._exit(0 if good else 1)
        children.append(child)
    good = all(read(store, i % len(store))[:2] == expected[i % len(store)] for i in range(60))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0] and good

if __name__ == "__main__":
    main(*sys.argv[1:])
'''


@pytest.fixture(scope="module", params=["folder", "zip"])
def path(request, made, tmp_path_factory) -> str:
    if request.param == "folder":
        return str(made.folder)
    zipped = tmp_path_factory.mktemp("zip") / "s.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in made.folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(made.folder).as_posix())
    return str(zipped)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers(path, tmp_path, method) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = tmp_path / "read.py"
    script.write_text(SCRIPT)
    # From Python 3.12 a fork beside any thread warns; zarr-python has threads, and the fork is the point here.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(script), path, method]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "ok\n", "")


def test_threads(path) -> None:
    store = Store(path)
    alone = Store(path)
    expected = [hashlib.sha256(alone.read_image(i)).digest() for i in range(len(alone))]
    with ThreadPoolExecutor(8) as pool:
        indices = [i % len(store) for i in range(200)]
        answers = pool.map(lambda i: hashlib.sha256(store.read_image(i)).digest(), indices)
        origins = pool.map(lambda i: store[i].origin.tolist(), indices)
    assert list(answers) == [expected[i] for i in indices]
    assert list(origins) == [alone[i].origin.tolist() for i in indices]


READ_ALL = """
import gc, sys
from keypatch.formats.store import Store
store = Store(sys.argv[1])
for i in range(len(store)):
    store.read_image(i), store.read_gaussian(i)
store.patches, store.keypoints, store.annotations, store.volumes
del store
gc.collect()
"""


def test_nothing_is_left_open(path) -> None:
    """A file that nobody closed warns when it is collected, on stderr."""
    # Not -X dev, by which asyncio also tells of whatever took long.
    command = [sys.executable, "-W", "error", "-c", READ_ALL, path]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")
