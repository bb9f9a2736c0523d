"""A data set in workers, however they are started: every sample depends on (seed, epoch, index) alone."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import pytest
from tests.stores import Design, make_store

torch = pytest.importorskip("torch", reason="torch is not installed; make test-torch installs it")

SCRIPT = '''
"""Two epochs with and without workers, balanced, augmented and mixed: the same batches, and others in each epoch."""
import hashlib, sys, warnings
import numpy as np
from torch.utils.data import DataLoader
from keypatch.augment import CoarseDropout, CutMix, Geometric
from keypatch.torch import BalancedSampler, Collate, PatchDataset

def noisy(image):
    return image + np.random.normal(size=image.shape).astype(image.dtype)

def digest(batch):
    text = hashlib.sha256()
    for key in sorted(batch):
        value = batch[key]
        text.update(key.encode() + (repr(value).encode() if isinstance(value, list) else value.numpy().tobytes()))
    return text.hexdigest()

def digests(path, n_workers, method, persistent):
    dataset = PatchDataset(path, geometric=Geometric(flip="zyx", rot90=True), intensity=noisy, seed=5)
    sampler = BalancedSampler(dataset, n_draws=14)
    loader = DataLoader(
        dataset, 3, sampler=sampler, collate_fn=Collate([CutMix(p=0.7), CoarseDropout(p=0.5)]), num_workers=n_workers,
        multiprocessing_context=method if n_workers else None, persistent_workers=persistent,
    )
    found = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        found.append([digest(batch) for batch in loader])
        if persistent and epoch == 0:
            next(iter(loader))  # an epoch that is not read to its end
    return found

def main(path, method):
    alone = digests(path, 0, None, False)
    assert not set(alone[0]) & set(alone[1]) and len(set(alone[0])) == 5
    for n_workers, persistent in ((1, False), (2, True)):
        assert digests(path, n_workers, method, persistent) == alone, (n_workers, persistent)
    print("ok")

if __name__ == "__main__":
    main(*sys.argv[1:])
'''


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    design = Design(source_dtype="float32", dtype="float32")
    return str(make_store(tmp_path_factory.mktemp("workers"), design).path)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers(path, tmp_path, method) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    script = tmp_path / "load.py"
    script.write_text(SCRIPT)
    # From Python 3.12 a fork beside any thread warns; torch and zarr-python have threads.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(script), path, method]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "ok\n", "")
