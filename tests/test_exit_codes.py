"""Every exit code of every command: one row a case, run through the command line.

docs/exit-codes.md is made of the rows:
python -m tests.test_exit_codes   writes the page
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.builds import PATIENCE, digest_of, end, make_gate, plan_of
from tests.permissions import as_nobody, open_folder
from tests.sources import Ran, every_file, keypatch, names_in, truth, write_csv, write_mrc, write_npy
from tests.stores import Made, copy_of, edit_attributes, flip, make_store, reseal

from keypatch import errors

PAGE = Path(__file__).resolve().parent.parent / "docs" / "exit-codes.md"

IMAGE1 = "out.zarr/image/c/1/0/0/0"

SMALL = "--voxel-spacing 10 --patch-shape 8 --ds-factor 4"
CONVERT = f"convert tomo.npy -a picks.csv -o new.zarr {SMALL}"
PEAKS = "peaks out.zarr/gaussian out.zarr -o points.csv"

Given = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One case.

    Attributes:
        case: What it is an example of.
        line: The command line behind `keypatch`, in a folder with the store out.zarr, the folder tomograms of its
            volumes, and the source tomo.npy with its picks.csv.
        code: It leaves with.
        err: What the last line on stderr holds; nothing is there where it is empty.
        out: Whether the result is on stdout; else nothing is.
        given: What else is the case, for a person.
        make: Makes that so.
        patch: A function of ours that does something else in this row, and what.
        nobody: Run by a user who owns nothing.
        more: Whether lines come before the last on stderr.
    """

    case: str
    line: str
    code: int
    err: str = ""
    out: bool = False
    given: str = ""
    make: Given | None = None
    patch: tuple[str, Callable[..., object]] | None = None
    nobody: bool = False
    more: bool = False

    def __str__(self) -> str:
        return f"{self.case}: {self.line or 'no command'}" + (f" ({self.given})" if self.given else "")


# ----- what is made so -----


def a_cut_shard() -> None:
    os.truncate(IMAGE1, 1000)


def an_edited_table() -> None:
    flip(Path("out.zarr/patches/kind/c/0"), 8)


def a_newer_store() -> None:
    edit_attributes(Path("out.zarr"), lambda attributes: attributes.update(schema_version="1.9"))
    reseal(Path("out.zarr"))


def a_newest_store() -> None:
    edit_attributes(Path("out.zarr"), lambda attributes: attributes.update(schema_version="2.0"))


def picks_outside() -> None:
    Path("picks.csv").write_text("volume,z,y,x\n" + "".join(f"tomo,{900 + k},5,5\n" for k in range(9)))


def a_pick_outside() -> None:
    with Path("picks.csv").open("a") as file:
        file.write("tomo,900,5,5,motor\n")


def a_volume_of_nan() -> None:
    np.save("nan.npy", np.full((20, 24, 28), np.nan, np.float32))
    np.save("tomo.npy", np.load("tomo.npy").astype(np.float32))
    with Path("picks.csv").open("a") as file:
        file.write("nan,10,10,10,motor\n")


def a_cut_volume() -> None:
    write_mrc(Path("tomo.mrc"), truth(1))
    os.truncate("tomo.mrc", 2000)


def an_empty_folder() -> None:
    Path("empty").mkdir()


def a_target_that_is_there() -> None:
    Path("new.zarr").mkdir()


def too_few_heatmaps() -> None:
    np.save("few.npy", np.zeros((2, 2, 4, 4, 6), np.float32))


def locked(name: str) -> Given:
    return lambda: Path(name).chmod(0)


def a_cut_shard_of_a_locked_store() -> None:
    a_cut_shard()
    Path("out.zarr/image").chmod(0o555)


def a_build() -> None:
    Path(".new.zarr.building").mkdir()
    Path(".new.zarr.building/build.json").write_text("{}")


def stopped_by(number: int) -> Callable[..., object]:
    return lambda *_, **__: signal.raise_signal(number)


def fails(*_: object, **__: object) -> None:
    message = "boom"
    raise RuntimeError(message)


def needs_memory(*_: object, **__: object) -> None:
    raise MemoryError


def _fail_to_begin(_: object) -> None:
    os._exit(1)


COMMANDS = {
    "validate": ("validate out.zarr", "keypatch.audit.validate.validate"),
    "stats": ("stats out.zarr", "keypatch.audit.stats.stats"),
    "inspect": ("inspect out.zarr", "keypatch.cli.inspect_store.show"),
    "repair": ("repair out.zarr", "keypatch.audit.repair.repair"),
    "peaks": (PEAKS, "keypatch.detections.detect"),
    "convert": (CONVERT, "keypatch.converters.build.convert"),
}
"""Each command in its simplest form, and the function that does its work."""

FINE = [
    Row("fine", "validate out.zarr", 0, out=True),
    Row("fine", "validate out.zarr --depth deep --source tomograms", 0, out=True),
    Row("fine", "validate out.zarr --output report.txt", 0, "out.zarr: sound (0 errors, 0 warnings); see report.txt"),
    Row("fine", "stats out.zarr --json", 0, out=True),
    Row("fine", "stats out.zarr --html page.html", 0, "keypatch: wrote page.html", out=True),
    Row("fine", "inspect out.zarr", 0, out=True),
    Row("fine", "inspect out.zarr --patch 0 --png patch.png", 0, "wrote patch.png", out=True),
    Row("fine", "inspect tomo.npy", 0, out=True),
    Row("fine", "inspect picks.csv", 0, out=True),
    Row("fine", "repair out.zarr", 0, out=True),
    Row("fine", "repair out.zarr --source tomograms", 0, out=True, given="a shard was cut", make=a_cut_shard),
    Row("fine", PEAKS, 0, "keypatch: wrote points.csv", out=True),
    Row("fine", CONVERT, 0, out=True),
    Row("fine", f"{CONVERT} --dry-run", 0, out=True),
    Row("fine", "--version", 0, out=True),
    Row("fine", "validate --help", 0, out=True),
]

FINDINGS = [
    Row("findings", "validate out.zarr", 1, out=True, given="a shard was cut", make=a_cut_shard),
    Row(
        "findings", "validate out.zarr --output report.txt", 1, "NOT SOUND (3 errors, 0 warnings); see report.txt",
        given="a shard was cut", make=a_cut_shard,
    ),
    Row("findings", f"validate out.zarr --expect-digest {'0' * 8}", 1, out=True, given="it has another digest"),
    Row("findings", "repair out.zarr --dry-run", 1, out=True, given="a shard was cut", make=a_cut_shard),
    Row("findings", "repair out.zarr", 1, out=True, given="a shard was cut, and no source given", make=a_cut_shard),
    Row("findings", "repair out.zarr", 1, out=True, given="a table was edited", make=an_edited_table),
    Row(
        "findings", CONVERT, 1, "nothing was built: the sources cannot be right as they are read",
        given="all picks lie outside", make=picks_outside, more=True,
    ),
    Row(
        "findings", f"{CONVERT} --dry-run", 1, "nothing was built: the sources cannot be right as they are read",
        out=True, given="all picks lie outside", make=picks_outside,
    ),
    Row(
        "findings", f"{CONVERT.replace('tomo.npy', 'tomo.npy nan.npy')} --dtype uint8 --on-error skip", 1,
        "the same command tries only these again", given="a volume is all NaN", make=a_volume_of_nan, more=True,
    ),
]  # fmt: skip

STRICT = [
    Row("doubts", "validate out.zarr", 0, out=True, given="written by a newer keypatch", make=a_newer_store),
    Row("doubts with --strict", "validate out.zarr --strict", 1, out=True, given="written by a newer keypatch",
        make=a_newer_store),
    Row("doubts", CONVERT, 0, "tomo of 20×24×28 voxels", out=True, given="a pick lies outside",
        make=a_pick_outside, more=True),
    Row("doubts with --strict", f"{CONVERT} --strict", 1, "nothing was built: --strict", out=True,
        given="a pick lies outside", make=a_pick_outside, more=True),
]  # fmt: skip

USAGE = [
    Row("usage", "", 2, "points, and write them", given="no command: the help is on stderr", more=True),
    Row("usage", "valdate out.zarr", 2, "No such command 'valdate'"),
    *(Row("usage", f"{line} --nonsense", 2, "No such option") for line, _ in COMMANDS.values()),
    *(Row("usage", command, 2, "Missing argument") for command in COMMANDS),
    Row("usage", "validate out.zarr --subset 5/4", 2, "--subset: expected K/N"),
    Row("usage", "validate out.zarr --output out.zarr/report.txt", 2, "expected a place outside the store"),
    Row("usage", "stats out.zarr out.zarr --html page.html", 2, "--html: expected one store, found 2"),
    Row("usage", "stats out.zarr --html out.zarr/page.html", 2, "expected a file outside the store"),
    Row("usage", "inspect tomo.npy --patch 0", 2, "expected a store, to which --patch belong"),
    Row("usage", "inspect out.zarr --patch 99", 2, "--patch: expected 0 to 9, found 99"),
    Row("usage", "convert tomo.npy -a picks.csv", 2, "--out: expected where the store shall lie"),
    Row("usage", CONVERT, 2, "give --overwrite", given="new.zarr is there", make=a_target_that_is_there),
    Row("usage", "peaks few.npy out.zarr -o points.csv", 2, "expected one for each of the", given="2 heatmaps",
        make=too_few_heatmaps),
]  # fmt: skip

NO_STORE = [
    *(
        Row("not a store", line, 3, "expected a keypatch store, found a folder without zarr.json", given="empty folder",
            make=an_empty_folder)
        for line in ("validate empty", "stats empty", "repair empty", "peaks out.zarr/gaussian empty -o points.csv")
    ),
    Row("not a store", "inspect empty", 3, "found an empty folder", given="empty folder", make=an_empty_folder),
    Row("not a store", "validate tomo.npy", 3, "expected a store in a local folder"),
    *(
        Row("not a store", line, 3, "expected schema 1.x, found schema '2.0'", given="of the next major version",
            make=a_newest_store)
        for line in ("validate out.zarr", "stats out.zarr", "inspect out.zarr", "repair out.zarr")
    ),
    *(
        Row("not a store yet", line, 3, "the same keypatch convert command goes on", given="a build was interrupted",
            make=a_build)
        for line in ("validate new.zarr", "stats new.zarr", "inspect new.zarr", "repair new.zarr")
    ),
]  # fmt: skip

UNREADABLE = [
    *(
        Row("unreadable", line, 3, says, given="no such path")
        for line, says in (
            ("validate none.zarr", "found no such file or folder"),
            ("stats none.zarr", "found no such file or folder"),
            ("inspect none.zarr", "found nothing at this path"),
            ("inspect none.zarr --patch 0", "found nothing at this path"),
            ("repair none.zarr", "found no such file or folder"),
            ("peaks none.npy out.zarr -o points.csv", "found nothing there"),
            (CONVERT.replace("tomo.npy", "none.npy"), "found nothing of that name"),
            (CONVERT.replace("picks.csv", "none.csv"), "found nothing of that name"),
            ("validate out.zarr --source none", "check --source"),
            ("repair out.zarr --source none", "check --source"),
        )
    ),
    *(
        Row("unreadable", line, 3, says, given="a shard was cut", make=a_cut_shard)
        for line, says in (
            ("stats out.zarr", "expected shards of"),
            ("inspect out.zarr --patch 4", "image/c/1/0/0/0: expected"),
        )
    ),
    Row(
        "unreadable",
        CONVERT.replace("tomo.npy", "tomo.mrc"),
        3,
        "tomo.mrc: expected 27904 bytes",
        given="it was cut",
        make=a_cut_volume,
    ),
    *(
        Row("unreadable", line, 3, says, given=f"{name} may not be read", make=locked(name), nobody=True)
        for line, name, says in (
            ("validate out.zarr", "out.zarr", "found Permission denied"),
            ("stats out.zarr", "out.zarr", "found Permission denied"),
            ("inspect out.zarr", "out.zarr", "found Permission denied"),
            ("repair out.zarr", "out.zarr", "found Permission denied"),
            (PEAKS, "out.zarr", "found Permission denied"),
            ("inspect tomo.npy", "tomo.npy", "found no permission to read it"),
            ("inspect picks.csv", "picks.csv", "found no permission to read it"),
            ("validate out.zarr --source tomograms/day0", "tomograms", "found Permission denied; check --source"),
            (f"{CONVERT} --dry-run", "tomo.npy", "found no permission to read it"),
        )
    ),
]

UNWRITABLE = [
    Row("cannot write", "inspect out.zarr --patch 0 --png none/patch.png", 3,
        "none/patch.png: expected a folder to write in", given="no such folder"),
    Row("cannot write", "inspect out.zarr --patch 0 --png tomograms/patch.png", 3,
        "expected to write a picture there, found Permission denied", out=True,
        given="a folder of somebody else", nobody=True),
    *(
        Row("cannot write", line, 3, says, given="no such folder")
        for line, says in (
            ("validate out.zarr --output none/report.txt", "found no folder none"),
            ("stats out.zarr --html none/page.html", "expected a folder to write into"),
            (PEAKS.replace("points.csv", "none/points.csv"), "none/points.csv: expected to write there"),
            (CONVERT.replace("new.zarr", "none/new.zarr"), "expected a folder to write into"),
        )
    ),
    *(
        Row("cannot write", line, 3, "found Permission denied; choose another place",
            given="a folder of somebody else", nobody=True)
        for line in (
            "validate out.zarr --output tomograms/report.txt",
            "stats out.zarr --html tomograms/page.html",
            PEAKS.replace("points.csv", "tomograms/points.csv"),
            CONVERT.replace("new.zarr", "tomograms/new.zarr"),
        )
    ),
    Row("cannot write", "repair out.zarr --source tomograms", 3, "expected permission to write, to repair a store",
        given="a cut shard in a store of somebody else", make=a_cut_shard_of_a_locked_store, nobody=True),
]  # fmt: skip

STOPPED = [
    *(
        Row("interrupted", line, 130, "keypatch: interrupted", given="Ctrl-C", patch=(does, stopped_by(signal.SIGINT)))
        for line, does in COMMANDS.values()
    ),
    *(
        Row("terminated", line, 143, "keypatch: interrupted", given="SIGTERM", patch=(does, stopped_by(signal.SIGTERM)))
        for line, does in COMMANDS.values()
    ),
]

OURS = [
    *(
        Row("internal error", line, 4, "keypatch: internal error: RuntimeError: boom; set KEYPATCH_DEBUG=1",
            given="a bug", patch=(does, fails))
        for line, does in COMMANDS.values()
    ),
    *(
        Row("worker died", f"{line} --workers 2", 4, "found that one died by exit code 1",
            given="a worker process ended", patch=("keypatch.workers._begin", _fail_to_begin))
        for line, _ in (COMMANDS["validate"], COMMANDS["convert"])
    ),
    *(
        Row("no memory", line, 3, "keypatch: not enough memory", given="too little memory", patch=(does, needs_memory))
        for line, does in COMMANDS.values()
    ),
]  # fmt: skip

ROWS = [*FINE, *FINDINGS, *STRICT, *USAGE, *NO_STORE, *UNREADABLE, *UNWRITABLE, *STOPPED, *OURS]


# ----- the rows are true -----


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


def furnish(folder: Path, made: Made) -> None:
    """What every row finds in its folder."""
    copy_of(made, folder).path.rename(folder / "out.zarr")
    shutil.copytree(made.source, folder / "tomograms")
    write_npy(folder / "tomo", truth(1))
    write_csv(folder, {"tomo": truth(1)})


@pytest.fixture(scope="module")
def warm(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Every module is imported while it may be: Python itself may lie where only root looks."""
    folder = tmp_path_factory.mktemp("warm")
    furnish(folder, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for row in FINE:
            keypatch(*shlex.split(row.line))
    return made


@pytest.fixture(scope="module")
def sound(warm: Made) -> Iterator[Path]:
    """The folder of all rows that need it as it is; no command may change what it has found there."""
    with open_folder() as folder:
        furnish(folder, warm)
        before = every_file(folder)
        yield folder
        assert every_file(folder) == before


@pytest.fixture
def here(row: Row, warm: Made, sound: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test stands in the folder of its row."""
    if row.make is None:
        names = names_in(sound)
        monkeypatch.chdir(sound)
        yield
        for name in names_in(sound) - names:
            path = sound / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        with open_folder() as folder:
            furnish(folder, warm)
            monkeypatch.chdir(folder)
            yield
            monkeypatch.undo()


def run(row: Row, monkeypatch: pytest.MonkeyPatch) -> Ran:
    if row.make is not None:
        row.make()
    if row.patch is not None:
        monkeypatch.setattr(*row.patch)
    if not row.nobody:
        return keypatch(*shlex.split(row.line))
    with as_nobody():
        return keypatch(*shlex.split(row.line))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_case_leaves_with_its_code(here: None, monkeypatch: pytest.MonkeyPatch, row: Row) -> None:
    ran = run(row, monkeypatch)
    assert ran.code == row.code, ran
    assert bool(ran.out) == row.out, ran
    last = ran.err.rstrip("\n").rpartition("\n")[2]
    assert row.err in last, ran.err
    assert bool(ran.err) == bool(row.err), ran.err
    assert row.more or ran.err.count("\n") <= 1, ran.err
    assert "Traceback" not in ran.err


def test_every_command_has_every_case_that_it_can_have() -> None:
    cases = {command: {row.case for row in ROWS if row.line.startswith(command)} for command in COMMANDS}
    everywhere = {"fine", "usage", "unreadable", "interrupted", "terminated", "internal error", "no memory"}
    for command, found in cases.items():
        assert everywhere <= found, command
        assert ("not a store" in found) == (command != "convert"), command
        assert "cannot write" in found, command
        assert ("findings" in found) == (command in ("validate", "repair", "convert")), command
        assert ("worker died" in found) == (command in ("validate", "convert")), command


def test_every_code_is_one_of_ours() -> None:
    known = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {row.code for row in ROWS} == known
    assert len({str(row) for row in ROWS}) == len(ROWS)


@pytest.mark.skipif(sys.platform != "linux", reason="holds a process at a pipe")
@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("validate", signal.SIGINT, 130), ("validate", signal.SIGTERM, 143), ("repair", signal.SIGTERM, 143)],
)
def test_a_real_process_that_is_stopped(tmp_path: Path, command: str, number: int, code: int) -> None:
    """In the middle of its work, and with nothing of it left beside the store."""
    gate, out = make_gate(tmp_path / "gate"), tmp_path / "built" / "out.zarr"
    out.parent.mkdir()
    with gate.open():
        digest_of(plan_of(gate.folder, volumes=[f"{gate.folder}/g.zarr"], jitter=0), out, workers=1)
    if command == "repair":
        os.truncate(out / "image/c/2/0/0/0", 10)
    arguments = [sys.executable, "-m", "keypatch", command, str(out), "--source", str(gate.folder)]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        with gate.holding_a_reader():
            os.kill(process.pid, number)
        # Libraries read in threads of their own, for which Python waits: they end with the pipe.
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        end(process)
    assert (process.returncode, stdout, stderr) == (code, "", "keypatch: interrupted\n")
    assert [path.name for path in out.parent.iterdir()] == ["out.zarr"]


# ----- and so is the page -----

HEAD = """# Exit codes

<!-- Made by: python -m tests.test_exit_codes. A test runs every row. -->

| code | meaning |
|---|---|
| 0 | fine; also when there are doubts, without `--strict` |
| 1 | findings: a store is not sound or could not be repaired, sources cannot be right, or units could not be built |
| 2 | wrong usage: a flag, a recipe or an argument that cannot be carried out as given |
| 3 | cannot read or write: a missing path, no permission, a damaged file, not a store, a full disk, too little memory |
| 4 | our fault, or nobody's: an internal error (please report it), or a worker process that died |
| 130 | interrupted by Ctrl-C |
| 143 | ended by SIGTERM, as batch systems send it |

Results go to stdout: the report of `validate`, what `repair` did, figures, descriptions. JSON is there alone with
`--json` or `--format json`. Everything else goes to stderr: an error is one line, which names the path or flag, what
was expected, what was found and what to do; `convert` puts above it what it has to say of the sources. `validate` with
several stores reports on all of them and leaves with the gravest code. A reader that leaves early
(`keypatch stats out.zarr | head -1`) is no error.

After 130, 143 and a worker that died, `convert` has kept the units that were finished: the same command goes on. The
others have written nothing, or, as `repair`, only whole shards that are right.

In Python the same errors are exceptions, and their `exit_code` is the code below. What a report says, such as that of
`keypatch.validate`, is no exception: `report.passed()` is False.

The examples are run in a folder with a store `out.zarr`, the folder `tomograms` of its volumes, a volume `tomo.npy` and
its `picks.csv`; … stands for `--voxel-spacing 10 --patch-shape 8 --ds-factor 4`.

| case | given | `keypatch …` | code | stdout | words of the last line on stderr |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole text."""
    return HEAD + "".join(map(_line, ROWS))


def _line(row: Row) -> str:
    line = f"`{row.line.replace(SMALL, '…')}`" if row.line else ""
    out, err = "the result" if row.out else "-", row.err.replace("|", "/") or "-"
    return f"| {row.case} | {row.given or '-'} | {line} | {row.code} | {out} | {err} |\n"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.test_exit_codes"


def test_a_new_row_makes_the_page_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    before = page()
    monkeypatch.setattr(sys.modules[__name__], "ROWS", [*ROWS, Row("new", "validate x", 3, "y")])
    assert page() != before


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
