"""Figures as text, the same on a terminal, in Markdown and on a page."""

from __future__ import annotations


def size(n_bytes: float) -> str:
    """Bytes in the unit that gives 1 to 999, decimal as disks are sold and ``ls --si`` prints."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def factor(value: float) -> str:
    """``2.00x``, ``4096x``."""
    return f"{value:.0f}x" if value >= 999.5 else f"{value:.2f}x"


def share(value: float) -> str:
    """A share as per cent; what is there but small does not look like nothing."""
    percent = 100 * value
    if 0 < percent < 0.001:
        return "<0.001%"
    return f"{percent:.3f}%" if 0 < percent < 0.1 else f"{percent:.1f}%"


def number(value: float | None) -> str:
    """Four significant digits at most; integers whole."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.4g}"


def plural(n: int, singular: str, several: str = "") -> str:
    """``1 patch``, ``2 patches``."""
    return f"{n} {singular if n == 1 else several or singular + 's'}"


def span(first: int, last: int) -> str:
    """``patch 3``, ``patches 3 … 5``."""
    return f"patch {first}" if first == last else f"patches {first} … {last}"


def duration(seconds: float) -> str:
    """``83 µs``, ``1.4 ms``."""
    value = seconds * 1e6
    for unit in ("µs", "ms"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} s"
