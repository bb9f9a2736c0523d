"""Time building and reading, side by side with a floor and with other libraries, and print one table.

    make bench                        about half an hour, 40 GB of disk
    python benchmarks --quick         a few minutes
    python benchmarks --only read     one part; each can also be run alone: python benchmarks/read_patches.py

Ratios within one run are what counts, not seconds: all contenders take turns. Peers come from the ``bench`` extra; one
that is not installed is skipped by name.
"""

from __future__ import annotations

import augment
import convert
import load
import memory
import read_patches
import size
import validate
from table import measure

PARTS = [(module.PART, module.run) for module in (convert, validate, read_patches, augment, load, memory, size)]

if __name__ == "__main__":
    measure(PARTS, __doc__ or "")
