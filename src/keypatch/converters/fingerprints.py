"""Noticing that a source changes while a store is built from it, or between two tries at building it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keypatch.errors import ReadError

if TYPE_CHECKING:
    from keypatch.converters.plan import Plan


def fingerprints(plan: Plan) -> dict[str, list[int]]:
    """What tells that a source was changed: number of files, bytes and latest change of each."""
    paths = [volume.path for volume in plan.catalog.volumes] + list(plan.catalog.source_paths)
    return {str(path.resolve()): _fingerprint(path) for path in paths}


def _fingerprint(path: Path) -> list[int]:
    try:
        files = [entry for entry in path.rglob("*") if entry.is_file()] if path.is_dir() else [path]
        found = [entry.stat() for entry in files]
    except OSError as error:
        raise ReadError.at(path, expected="the source to stay there", found=error.strerror or str(error)) from error
    return [len(found), sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0)]


def check_unchanged(sources: dict[str, list[int]]) -> None:
    """See that the sources still are what `fingerprints` saw.

    Raises:
        ReadError: If one has changed or is gone.
    """
    for path, before in sources.items():
        if _fingerprint(Path(path)) != before:
            raise ReadError.at(
                path, expected="the source as it was", found="that it changed during the build", hint="give --restart"
            )
