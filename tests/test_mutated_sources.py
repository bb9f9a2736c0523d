"""Damaged copies of the real files: a few of those that `make mutate-sources` tries by the thousand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "soak" / "mutate_sources.py"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and counted as Linux does it")
def test_no_damage_ends_in_a_traceback_a_hang_much_memory_or_another_file(real_data):
    ran = subprocess.run(
        [sys.executable, SCRIPT, "--times", "150", "--seed", "5"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KEYPATCH_TEST_DATA": str(real_data)},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "150 changes of" in ran.stdout
