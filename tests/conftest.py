"""What all tests share: the real files, where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says how busy the machine is, not whether it is right.
settings.register_profile("keypatch", deadline=None)
settings.load_profile("keypatch")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real files, from KEYPATCH_TEST_DATA or beside the checkout; skips where there is none."""
    folder = Path(os.environ.get("KEYPATCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "INDEX.md").is_file():
        pytest.skip(f"real test files: none at {folder}; set KEYPATCH_TEST_DATA to the folder that has them")
    return folder
