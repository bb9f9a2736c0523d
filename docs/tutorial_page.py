"""Run docs/tutorial.md from its first block to its last, and keep its output and pictures up to date.

    python docs/tutorial_page.py            # writes what the blocks print, and the pictures
    python docs/tutorial_page.py --check    # 1 if the page says something else

Shell blocks run as they stand, with keypatch and python those of this interpreter; a block of Python is followed by a
block of text where it prints; a block marked ``python torch`` runs where torch is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

from PIL import Image

from keypatch import cli

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "tutorial.md"
PICTURES = DOCS / "pictures"

_BLOCK = re.compile(r"^```(?P<language>[a-z ]+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_COLORS = 160
"""Of a picture in the repository: grey noise and one colour over it need no more, for half of the bytes."""


def run(page: str, folder: Path) -> tuple[str, list[str]]:
    """Run the blocks of a page in a folder.

    Returns:
        The page with what its blocks print, and the languages of the blocks that were skipped.

    Raises:
        RuntimeError: If a command fails; blocks of Python raise what they raise.
    """
    scope: dict[str, object] = {}
    (folder / "keypatch").symlink_to(DOCS.parent, target_is_directory=True)
    parts, end, printed, skipped = [], 0, "", []
    with contextlib.chdir(folder):
        for block in _BLOCK.finditer(page):
            parts.append(page[end : block.start()])
            end = block.end()
            language, code = block["language"], block["code"]
            if language == "text":
                parts.append(f"```text\n{printed}```")
                continue
            parts.append(block.group())
            if language == "python torch" and importlib.util.find_spec("torch") is None:
                skipped.append(language)
            elif language.startswith("python"):
                printed = _printed(code, scope)
            elif language == "sh":
                _shell(code)
            elif language == "toml":
                Path(code.partition("\n")[0].removeprefix("# ")).write_text(code, encoding="utf-8")
    return "".join(parts) + page[end:], skipped


def _printed(code: str, scope: dict[str, object]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, PAGE.name, "exec"), scope)  # noqa: S102 - our own page
    return out.getvalue()


def _shell(code: str) -> None:
    programs = {"python": _run_python, "keypatch": _run_keypatch}
    for line in code.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        status, said = programs[program](arguments)
        if status:
            message = f"{line}: exit code {status}: {said}"
            raise RuntimeError(message)


def _run_python(arguments: list[str]) -> tuple[int, str]:
    ran = subprocess.run(  # noqa: S603 - our own page
        [sys.executable, *arguments], capture_output=True, text=True, env=_environment(), check=False
    )
    return ran.returncode, ran.stderr


def _run_keypatch(arguments: list[str]) -> tuple[int, str]:
    """In this process, as a dozen new ones would take most of the page's time."""
    out, err = io.StringIO(), io.StringIO()
    called = mock.patch.object(sys, "argv", ["keypatch", *arguments])
    with called, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as leaving:
            return int(leaving.code or 0), err.getvalue()
    return 0, err.getvalue()


def _environment() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "default"}


def main(arguments: list[str]) -> int:
    """Run the page; write it and its pictures, or say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        written, skipped = run(page, Path(name))
        pictures = sorted(Path(name).glob("tutorial_*.png"))
        if arguments == ["--check"]:
            return int(written != page)
        PICTURES.mkdir(exist_ok=True)
        for picture in pictures:
            with Image.open(picture) as drawn:
                drawn.quantize(_COLORS, Image.Quantize.MAXCOVERAGE).save(PICTURES / picture.name, optimize=True)
    PAGE.write_text(written, encoding="utf-8")
    for language in skipped:
        sys.stderr.write(f"a block of {language} was skipped: torch is not installed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
