"""How many examples of a property are tried."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100
"""Examples of a property that names no number, under the profile that conftest.py loads."""


def trials(n: int) -> int:
    """So many examples in `make test`, and as many times more under another profile as that one asks for."""
    return n * settings().max_examples // USUAL
