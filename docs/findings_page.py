"""Write findings.md: every code, its level, meaning and cure.

python docs/findings_page.py           write the page
python docs/findings_page.py --check   exit 1 if it is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from keypatch.audit.findings import CODES as STORE_CODES
from keypatch.converters.check.codes import CODES as SOURCE_CODES
from keypatch.findings import Code

PAGE = Path(__file__).with_name("findings.md")

INTRODUCTION = """\
# Findings

Made from the code by `docs/findings_page.py`. A code keeps its meaning for ever.

An **error** makes a store unfit for use, or cannot be right in a source: exit code 1. A **warning** is probably wrong,
or something that a person should know: exit code 1 with `--strict`. A **note** is what the check cannot tell and only
the person can: it never changes an exit code.
"""

GROUPS = {
    "KP1": "Layout and metadata of a store (`keypatch validate`)",
    "KP2": "Bytes of a store (`keypatch validate`)",
    "KP3": "Tables and geometry of a store (`keypatch validate`)",
    "KP4": "Gaussians of a store (`keypatch validate --depth deep`)",
    "KP5": "A store against its sources (`keypatch validate --source`)",
    "KP6": "Sources before a store is built (`keypatch convert --dry-run`)",
}


def page(codes: Mapping[str, Code] | None = None) -> str:
    """The whole text."""
    codes = {**STORE_CODES, **SOURCE_CODES} if codes is None else codes
    parts = [INTRODUCTION]
    for group, title in GROUPS.items():
        parts.append(f"\n## {group}xx: {title}\n\n| code | level | meaning | what to do |\n|---|---|---|---|\n")
        parts += [
            f"| {name} | {code.severity} | {code.meaning} | {code.cure} |\n"
            for name, code in sorted(codes.items())
            if name.startswith(group)
        ]
    return "".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with --check only see whether it is up to date."""
    if "--check" in arguments:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
