"""Every error that keypatch raises on purpose.

An error is one line: where it is, what was expected, what was found, what to do. The command line prints that
line and leaves with the class's ``exit_code``; library users catch ``KeypatchError``, or the built-in class
that fits (``OSError``, ``ValueError``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from keypatch.findings import Finding

GUARD_HINT = "a script has to call it below: if __name__ == '__main__':"
"""For workers that ended as soon as they had begun."""

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_USAGE = 2
EXIT_UNREADABLE = 3
EXIT_INTERNAL = 4
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""
EXIT_TERMINATED = 143
"""128 + SIGTERM."""


class KeypatchError(Exception):
    """Base of all errors that keypatch raises on purpose."""

    exit_code = EXIT_INTERNAL

    @classmethod
    def at(cls, where: str | PathLike[str], *, expected: str, found: str, hint: str = "") -> Self:
        """Build the error from its four parts.

        Args:
            where: The file, flag or part of a store that it is about.
            expected: What should have been there.
            found: What was there.
            hint: What to do about it, as an imperative; left out when empty.

        Returns:
            The error, its message one line. Only that string is kept, so the error pickles between processes.
        """
        message = f"{where}: expected {expected}, found {found}"
        # Line breaks and tabs go; spaces stay, since a path may hold two in a row.
        return cls(re.sub(r"[^\S ]+", " ", f"{message}; {hint}" if hint else message))


class UsageError(KeypatchError, ValueError):
    """A flag, a recipe or an argument that cannot be carried out as given."""

    exit_code = EXIT_USAGE


class ReadError(KeypatchError, OSError):
    """A file that is missing, unreadable, cut short or not what its format demands."""

    exit_code = EXIT_UNREADABLE


class FormatError(ReadError, ValueError):
    """A file whose content is not what its format demands."""


class StoreError(ReadError):
    """A path that holds no keypatch store, or one of a version this program does not know."""


class CorruptionError(StoreError):
    """A store whose bytes are not those that were written."""


class CheckError(KeypatchError, ValueError):
    """Sources that cannot be right as they are read; what the check of `keypatch convert --dry-run` calls an error."""

    exit_code = EXIT_FINDINGS

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Self:
        """Name the errors among the findings."""
        return cls("; ".join(str(found) for found in findings if found.severity == "error"))


class WriteError(KeypatchError, OSError):
    """A place that cannot be written: no permission, no space, no such folder."""

    exit_code = EXIT_UNREADABLE


class MissingExtraError(KeypatchError, ImportError):
    """A library that an optional format needs is not installed."""

    exit_code = EXIT_USAGE

    @classmethod
    def needs(cls, what: str, extra: str) -> Self:
        """Name the extra that installs the library which ``what`` needs."""
        return cls(f"{what}: needs a library that is not installed; run: pip install 'keypatch[{extra}]'")


class WorkerError(KeypatchError, RuntimeError):
    """A worker process that died, for instance killed for the memory it used; nothing is wrong with what was given."""

    exit_code = EXIT_INTERNAL

    @classmethod
    def not_guarded(cls, called: str) -> Self:
        """Say that the workers of ``called`` ran the calling script, since nothing in it keeps the call from them."""
        return cls.at(
            called,
            expected="worker processes",
            found="that each of them runs the calling script again",
            hint=f"use one worker, or {GUARD_HINT}",
        )


class BuildIncompleteError(KeypatchError):
    """Units of a store that could not be built, where the others were finished first.

    Attributes:
        failures: Unit to the reason.
    """

    exit_code = EXIT_FINDINGS
    failures: dict[int, str]

    @classmethod
    def of(cls, n_units: int, failures: Mapping[int, Exception]) -> Self:
        """Name the units and their reasons."""
        listed = "; ".join(f"unit {unit}: {error}" for unit, error in sorted(failures.items()))
        error = cls(
            f"{len(failures)} of {n_units} units could not be built: {listed}; "
            "the others are kept: the same command tries only these again"
        )
        error.failures = {unit: str(reason) for unit, reason in failures.items()}
        return error
