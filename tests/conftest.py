"""What all tests share: the real files, where they are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tests.trials import USUAL

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("keypatch", deadline=None, max_examples=USUAL)
settings.register_profile("thorough", deadline=None, max_examples=20 * USUAL)
settings.load_profile("keypatch")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

FSYNC = os.fsync
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def no_fsync() -> Iterator[None]:
    """Do not wait for the disk: only a power failure would show the difference.

    Commands in processes of their own wait for it, and so does who asks for `real_fsync`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # an error for what is no open file, as from fsync
        yield


@pytest.fixture(scope="module")
def real_fsync() -> Iterator[None]:
    """For tests that look at the blocks that files take on the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", FSYNC)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real files, from KEYPATCH_TEST_DATA or beside the checkout; skips where there is none."""
    folder = Path(os.environ.get("KEYPATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "INDEX.md").is_file():
        pytest.skip(f"real test files: none at {folder}; set KEYPATCH_TEST_DATA to the folder that has them")
    return folder
