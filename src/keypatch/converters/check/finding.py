"""What the check of the sources finds: where, with which numbers, and the flag that settles it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keypatch.converters.check.codes import CODES
from keypatch.converters.notes import some
from keypatch.findings import Finding, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class CatalogFinding(Finding):
    """One finding about the sources of a store.

    Attributes:
        files: Annotation files that it is about, relative to the folder that all share.
        volumes: Ids of the volumes that it is about.
        settle: The flag, or what else, that settles it; "" where only the cure of the code helps.
        evidence: The numbers that it rests on, as plain JSON values.
    """

    files: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    settle: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{super().__str__()}; {self.settle}" if self.settle else super().__str__()

    def to_json(self) -> dict[str, Any]:
        """As it lies in the store."""
        return super().to_json() | {"files": list(self.files), "volumes": list(self.volumes)}


def finding(
    code: str,
    *,
    expected: str,
    found: str,
    files: Iterable[str] = (),
    volumes: Iterable[str] = (),
    settle: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> CatalogFinding:
    """A finding of a code of `CODES`, its place told by the first few files and volumes. Fields as there."""
    files, volumes = tuple(dict.fromkeys(files)), tuple(dict.fromkeys(volumes))
    where = " in ".join(filter(None, (some(files), some(volumes)))) or "sources"
    return CatalogFinding(
        code=code,
        severity=CODES[code].severity,
        where=one_line(where),
        expected=one_line(expected),
        found=one_line(found),
        files=files,
        volumes=volumes,
        settle=one_line(settle),
        evidence=evidence or {},
    )
