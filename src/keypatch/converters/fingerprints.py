"""Noticing that a source changes while a store is built from it, or between two tries at building it."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from keypatch.errors import ReadError

if TYPE_CHECKING:
    from keypatch.converters.plan import Plan


def fingerprints(plan: Plan) -> dict[str, list[int]]:
    """What tells that a source was changed: number of files, bytes, latest change and a checksum, of each.

    The checksum is of the names, sizes and times of a folder's files, so that two slices that swap names are noticed.
    """
    paths = [volume.path for volume in plan.catalog.volumes] + list(plan.catalog.source_paths)
    return {str(path.resolve()): _fingerprint(path) for path in paths}


def _fingerprint(path: Path) -> list[int]:
    try:
        files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
        found = [(entry.relative_to(path).as_posix(), entry.stat()) for entry in files]
    except OSError as error:
        raise ReadError.at(path, expected="the source to stay there", found=error.strerror or str(error)) from error
    checksum = 0
    for name, stat in found:
        checksum = zlib.crc32(os.fsencode(f"{name}\n{stat.st_size} {stat.st_mtime_ns}\n"), checksum)
    sizes, times = [stat.st_size for _, stat in found], [stat.st_mtime_ns for _, stat in found]
    return [len(found), sum(sizes), max(times, default=0), checksum]


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
