"""What a check finds: a stable code with its severity, meaning and cure, and one violation of it.

The codes of damage in a store (KP1xx to KP5xx) are in `keypatch.audit.findings`, those of the sources before a store is
built (KP6xx) in `keypatch.converters.check.codes`. A code keeps its meaning for ever; new ones are added behind.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

Severity: TypeAlias = Literal["error", "warning", "note"]
"""An error makes a store unfit for use, or cannot be right in a source; a warning is something that a person should
know and that may be wrong; a note is what the check cannot tell, and only the person can."""

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The gravest first."""


@dataclass(frozen=True)
class Code:
    """The entry of a code in its table.

    Attributes:
        severity: Of all its findings.
        meaning: What the finding says, one sentence.
        cure: What to do about it.
    """

    severity: Severity
    meaning: str
    cure: str


@dataclass(frozen=True)
class Finding:
    """One violation.

    Attributes:
        code: Key of its table.
        severity: As there.
        where: Path below the store, with row, patch or chunk where there is one; or files and volumes of a source.
        expected: What should have been there.
        found: What was there.
    """

    code: str
    severity: Severity
    where: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.code} {self.severity} {self.where}: expected {self.expected}, found {self.found}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def one_line(value: object) -> str:
    """A text without line breaks and control signs, printable whatever bytes a file's name has."""
    text = " ".join(str(value).split())
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
