"""What is no store, or a store full of traps: one line, the right exit code, and nothing written into it.

Every audit meets every case. In the table of cases, what an audit is expected to leave with stands for each.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zarr
from tests.permissions import as_nobody, open_folder
from tests.sources import every_file, keypatch, truth, write_ome

import keypatch as package
from keypatch.converters.journal import Journal
from keypatch.errors import EXIT_UNREADABLE, KeypatchError, StoreError
from keypatch.formats.store import disk
from keypatch.formats.store.building import build_folder

from .stores import Made, Spoiled, attribute, copy_of, edit_json, make_store, nested

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, links and permissions")

IMAGE1, TARGET1 = "image/c/1/0/0/0", "gaussian/c/1/0/0/0/0"
PATCH = 4
"""A patch of shard 1."""

HUGE = 10**18
PATIENCE = 60
"""Seconds after which a command counts as hanging."""

Make = Callable[[Made, Path], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def little_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "METADATA_BYTES", 2**20)


@pytest.fixture(scope="module")
def warm(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A store after every audit was there once, so that all modules are imported while root may still find them."""
    for arguments in commands(made.path, made.source, tmp_path_factory.mktemp("out")).values():
        ran = keypatch(*arguments)
        assert ran.code == 0, ran.err
    opened_and_read(made.path)
    return made


def commands(path: object, source: Path, out: Path) -> dict[str, list[object]]:
    """Every audit; none of these calls may write anything but the page."""
    return {
        "quick": ["validate", path, "--depth", "quick"],
        "full": ["validate", path],
        "deep": ["validate", path, "--depth", "deep", "--source", source],
        "stats": ["stats", path],
        "html": ["stats", path, "--html", out / "page.html"],
        "inspect": ["inspect", path],
        "patch": ["inspect", path, "--patch", PATCH],
        "dry": ["repair", path, "--source", source, "--dry-run"],
    }


def opened_and_read(path: object) -> None:
    """What a person does in Python."""
    store = package.open(str(path))
    store.patches, store.keypoints, store.annotations, store.volumes  # noqa: B018 - each is read when asked for
    store[PATCH].image  # noqa: B018
    store.read_gaussian(PATCH)


def listing(path: Path) -> dict[str, tuple[object, ...]]:
    """Each name beside and below a path: kind, size, permissions, time of change, bytes; links are not followed."""
    found = {}
    for place, folders, files in os.walk(path.parent):
        for name in (*folders, *files):
            entry = Path(place, name)
            status = entry.lstat()
            small = stat.S_ISREG(status.st_mode) and status.st_size < 2**20
            content = entry.read_bytes() if small and os.access(entry, os.R_OK) else b""
            found[str(entry)] = (status.st_mode, status.st_size, status.st_mtime_ns, content)
    return found


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """End what would wait for ever, such as for the writer of a pipe."""

    def end(*_: object) -> None:
        message = f"nothing came within {PATIENCE} s"
        raise RuntimeError(message)

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def audited(path: object, made: Made, out: Path, source: Path | None = None) -> dict[str, tuple[int, str, str]]:
    """Every audit's exit code, its stdout and the line on stderr."""
    results = {}
    for name, arguments in commands(path, source or made.source, out).items():
        with patience():
            ran = keypatch(*arguments)
        assert "Traceback" not in ran.err + ran.out, name
        assert "internal error" not in ran.err, (name, ran.err)
        line = ran.err.removesuffix(f"keypatch: wrote {out / 'page.html'}\n")
        assert line.count("\n") <= 1, (name, ran.err)
        results[name] = ran.code, ran.out, line
    return results


# ----- what is no store: every audit leaves with 3 -----


@dataclass(frozen=True)
class NoStore:
    """Something that is no store.

    Attributes:
        name: For a person.
        make: Makes it in a folder and gives its path.
        says: What every audit says of it.
        inspected: What `inspect` says, which also knows other things; None where it shows a volume.
    """

    name: str
    make: Make
    says: str
    inspected: str | None = ""

    def __str__(self) -> str:
        return self.name


def _folder(_: Made, folder: Path) -> Path:
    (folder / "work").mkdir()
    (folder / "work" / "notes.txt").write_text("x")
    return folder / "work"


def _empty(_: Made, folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _file(_: Made, folder: Path) -> Path:
    (folder / "out.zarr").write_text("hello")
    return folder / "out.zarr"


def _pipe(_: Made, folder: Path) -> Path:
    os.mkfifo(folder / "out.zarr")
    return folder / "out.zarr"


def _loop(_: Made, folder: Path) -> Path:
    (folder / "out.zarr").symlink_to(folder / "out.zarr")
    return folder / "out.zarr"


def _spoiled(spoil: Callable[[Spoiled], object]) -> Make:
    def make(made: Made, folder: Path) -> Path:
        store = copy_of(made, folder)
        spoil(store)
        return store.path

    return make


def _as_pipe(name: str) -> Make:
    def spoil(store: Spoiled) -> None:
        (store / name).unlink()
        os.mkfifo(store / name)

    return _spoiled(spoil)


def _enormous(name: str) -> Make:
    """Larger than `little_metadata` lets metadata be, so that nothing has to read for long."""
    return _spoiled(lambda store: os.truncate(store / name, 2**20 + 1))


def _deep(name: str) -> Make:
    return _spoiled(lambda store: (store / name).write_text("[" * 99_999 + "]" * 99_999))


def _zarr3(_: Made, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_group(folder / "out.zarr", attributes={"of": "another"})
    return folder / "out.zarr"


def _zarr2(_: Made, folder: Path) -> Path:
    zarr.create_group(folder / "out.zarr", zarr_format=2)
    return folder / "out.zarr"


def _ome(version: str) -> Make:
    return lambda _, folder: write_ome(folder / "tomo", truth(1), version=version)


def _build(out: Path) -> Journal:
    """A build that was interrupted after a unit."""
    journal = Journal(build_folder(out))
    (journal.store / "image/c/0/0/0").mkdir(parents=True)
    (journal.store / "image/c/0/0/0/0").write_bytes(b"x")
    (journal.folder / "build.json").write_text('{"format": 1}')
    return journal


def _being_built(_: Made, folder: Path) -> Path:
    _build(folder / "out.zarr")
    return folder / "out.zarr"


def _build_folder(_: Made, folder: Path) -> Path:
    return _build(folder / "out.zarr").folder


def _half_a_store(_: Made, folder: Path) -> Path:
    return _build(folder / "out.zarr").store


BUILDING = (
    "expected a keypatch store, found a build of out.zarr that has not come to its end; wait for it; "
    "if it was interrupted, the same keypatch convert command goes on"
)

NO_STORES = [
    NoStore("folder", _folder, "found a folder without zarr.json", "a folder with 1 entries"),
    NoStore("empty folder", _empty, "found a folder without zarr.json", "an empty folder"),
    NoStore("file", _file, "out.zarr: expected a ", "out.zarr: expected annotations"),
    NoStore("missing path", lambda _, folder: folder / "out.zarr", "no such file or folder", "nothing at this path"),
    NoStore("path below a file", lambda m, f: _file(m, f) / "x", "no such file or folder", "x: expected a "),
    NoStore("long name", lambda _, folder: folder / ("o" * 300), "File name too long"),
    NoStore("pipe", _pipe, "found a pipe, socket or device", "found a device, socket or pipe"),
    NoStore("link in a loop", _loop, "symbolic links", "symbolic link"),
    NoStore("target of a build", _being_built, BUILDING),
    NoStore("folder of a build", _build_folder, BUILDING, "a folder with 2 entries"),
    NoStore("store of a build", _half_a_store, BUILDING, "a folder with 1 entries"),
    NoStore("newer store", _spoiled(attribute(schema_version="2.0")), "expected schema 1.x, found schema '2.0'"),
    NoStore("Zarr 3 of another tool", _zarr3, "found a Zarr group of something else", "out.zarr: expected"),
    NoStore("Zarr 2 of another tool", _zarr2, "found a folder without zarr.json", "out.zarr: expected"),
    NoStore("OME-Zarr 0.5", _ome("0.5"), "found a Zarr group of something else", None),
    NoStore("OME-Zarr 0.4", _ome("0.4"), "found a folder without zarr.json", None),
    NoStore("root a pipe", _as_pipe("zarr.json"), "zarr.json: expected a keypatch store, found a pipe"),
    NoStore("root enormous", _enormous("zarr.json"), "zarr.json: expected a keypatch store, found 1048577 bytes"),
    NoStore("root nested", _deep("zarr.json"), "zarr.json: expected JSON, found lists or objects nested too deeply"),
]


@pytest.mark.parametrize("case", NO_STORES, ids=str)
def test_what_is_no_store_is_one_line(made: Made, tmp_path: Path, case: NoStore) -> None:
    (tmp_path / "here").mkdir()
    path = case.make(made, tmp_path / "here")
    before = listing(path)
    results = audited(path, made, tmp_path)
    with patience(), pytest.raises(StoreError) as caught:
        opened_and_read(path)
    assert case.says in str(caught.value)
    assert keypatch("repair", path, "--source", made.source, "--remove-stray").code == EXIT_UNREADABLE
    assert listing(path) == before
    shown, of_a_patch = results.pop("inspect"), results.pop("patch")
    if case.inspected is None:
        assert (shown[0], shown[2]) == (0, "")
        assert of_a_patch[0] == 2
    else:
        assert (shown[0], shown[1]) == (EXIT_UNREADABLE, "")
        assert (case.inspected or case.says) in shown[2]
        assert of_a_patch[0] in (2, EXIT_UNREADABLE)
    for name, (code, out, line) in results.items():
        assert (code, out) == (EXIT_UNREADABLE, ""), name
        assert line.startswith("keypatch: "), name
        assert case.says in line, name
    assert not (tmp_path / "page.html").exists()


def test_a_store_that_is_being_replaced_is_a_store(made: Made, tmp_path: Path) -> None:
    """The old one stays under its name until the new one is whole."""
    store = copy_of(made, tmp_path)
    _build(store.path)
    assert keypatch("validate", store.path).code == 0
    opened_and_read(store.path)


def test_what_a_killed_repair_left_is_no_build(tmp_path: Path) -> None:
    (build_folder(tmp_path / "out.zarr") / "repair").mkdir(parents=True)
    ran = keypatch("validate", tmp_path / "out.zarr")
    assert (ran.code, "no such file or folder" in ran.err) == (EXIT_UNREADABLE, True)


# ----- stores with traps: what validate says of them, and what the others do -----


@dataclass(frozen=True)
class Trap:
    """A store that somebody made to be bad.

    Attributes:
        name: For a person.
        make: Makes it in a folder and gives its path.
        where: What `validate` names, at every depth.
        fails: Audits that leave with 3, as `keypatch.open` and what is read through it do where "open" is among them.
        repair: What `repair --dry-run` leaves with.
    """

    name: str
    make: Make
    where: str
    fails: frozenset[str] = field(default_factory=frozenset)
    repair: int = 1

    def __str__(self) -> str:
        return self.name


def _behind_a_link(name: str) -> Make:
    def spoil(store: Spoiled) -> None:
        outside = store.path.parent / "outside"
        shutil.move(store / name, outside)
        (store / name).symlink_to(outside)

    return _spoiled(spoil)


def _claims(n: int, *, rows: bool, chunks: bool) -> Make:
    """Attributes, `image` and `gaussian` that say ``n`` patches; tables and chunks too, if asked for."""

    def claim(metadata: dict[str, Any]) -> None:
        metadata["shape"][0] = n
        if chunks:
            metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = n

    def spoil(store: Spoiled) -> None:
        nested("zarr.json", "attributes", "keypatch", "counts", "patches", value=n)(store)
        tables = store.path.glob("patches/*/zarr.json") if rows else ()
        for path in (store / "image/zarr.json", store / "gaussian/zarr.json", *tables):
            edit_json(path, claim)

    return _spoiled(spoil)


def _counts(store: Spoiled) -> None:
    nested("zarr.json", "attributes", "keypatch", "counts", "patches", value=HUGE)(store)


ALL = frozenset({"stats", "html", "inspect", "patch", "open"})
FIGURES = frozenset({"stats", "html"})
READING = FIGURES | {"patch", "open"}

CLAIMS = [
    Trap("10^18 patches by attribute", _spoiled(_counts), "zarr.json: counts"),
    Trap("10^18 patches by metadata", _claims(HUGE, rows=False, chunks=False), "image/c/4/0/0/0", ALL),
    Trap("10^18 rows", _claims(HUGE, rows=True, chunks=False), "image/c/4/0/0/0", ALL),
    Trap("10^18 rows a chunk", _claims(HUGE, rows=True, chunks=True), "patches/", ALL),
    Trap("10^12 rows a chunk", _claims(10**12, rows=True, chunks=True), "patches/", ALL),
    Trap("10^30 rows a chunk", _claims(10**30, rows=True, chunks=True), "patches/", ALL),
]

TRAPS = [
    Trap("shard behind a link", _behind_a_link(IMAGE1), IMAGE1),
    Trap("root behind a link", _behind_a_link("zarr.json"), "zarr.json", repair=0),
    Trap("folder behind a link", _behind_a_link("annotations"), "annotations", FIGURES),
    Trap("shards behind a link", _behind_a_link("image/c"), "image/c", FIGURES),
    Trap("shard a pipe", _as_pipe(IMAGE1), IMAGE1, READING),
    Trap("shard of targets a pipe", _as_pipe(TARGET1), TARGET1, READING),
    Trap("image's metadata a pipe", _as_pipe("image/zarr.json"), "image/zarr.json", ALL),
    Trap("table's metadata a pipe", _as_pipe("patches/kind/zarr.json"), "patches/kind/zarr.json", READING),
    Trap("table a pipe", _as_pipe("patches/kind/c/0"), "patches/kind/c/0", READING),
    Trap("group's metadata a pipe", _as_pipe("patches/zarr.json"), "patches/zarr.json"),
    Trap("list of volumes a pipe", _as_pipe("volumes/zarr.json"), "volumes/zarr.json", ALL),
    Trap("image's metadata enormous", _enormous("image/zarr.json"), "image/zarr.json", ALL),
    Trap("table's metadata enormous", _enormous("patches/kind/zarr.json"), "patches/kind/zarr.json", READING),
    Trap("list of volumes enormous", _enormous("volumes/zarr.json"), "volumes/zarr.json", ALL),
    Trap("image's metadata nested", _deep("image/zarr.json"), "image/zarr.json", ALL),
    Trap("table's metadata nested", _deep("patches/kind/zarr.json"), "patches/kind/zarr.json", READING),
    Trap("list of volumes nested", _deep("volumes/zarr.json"), "volumes/zarr.json", ALL),
    *CLAIMS,
]


@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_a_store_full_of_traps_is_judged_and_not_touched(made: Made, tmp_path: Path, trap: Trap) -> None:
    (tmp_path / "here").mkdir()
    path = trap.make(made, tmp_path / "here")
    before = listing(path)
    results = audited(path, made, tmp_path)
    with patience(), contextlib.suppress(KeypatchError):
        opened_and_read(path)
        assert "open" not in trap.fails
    assert listing(path) == before
    for depth in ("quick", "full", "deep"):
        code, out, line = results.pop(depth)
        assert (code, line) == (1, ""), depth
        assert any(text.split(maxsplit=2)[1:2] and trap.where in text for text in out.splitlines()), (depth, out)
    code, out, line = results.pop("dry")
    assert (code, line) == (trap.repair, ""), out
    for name, (code, out, line) in results.items():
        if name in trap.fails:
            assert (code, out, line.count("\n")) == (EXIT_UNREADABLE, "", 1), (name, line)
        else:
            assert (code, line) == (0, ""), (name, line)


IN_LITTLE_MEMORY = """
import sys
from tests.sources import keypatch
from tests.test_audit_bad_input import commands
from pathlib import Path
for path in sys.argv[3:]:
    for name, arguments in commands(path, Path(sys.argv[1]), Path(sys.argv[2])).items():
        ran = keypatch(*arguments)
        assert ran.code in (0, 1, 3) and "memory" not in ran.err, (path, name, ran)
"""


def test_claims_of_many_patches_cost_neither_memory_nor_time(made: Made, tmp_path: Path) -> None:
    """No more of the processor than a minute, nor of memory than libraries alone come to."""
    paths = []
    for number, trap in enumerate(CLAIMS):
        (tmp_path / str(number)).mkdir()
        paths.append(trap.make(made, tmp_path / str(number)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    ran = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, str(made.source), str(tmp_path), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")


# ----- permissions -----


def _exposed(made: Made, folder: Path) -> tuple[Spoiled, Path]:
    """The store and its volumes in a folder that everyone may enter, and a folder that everyone may write into."""
    shutil.copytree(made.source, folder / "source")
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    return copy_of(made, folder), folder / "out"


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        (".", {"quick", "full", "deep", "stats", "html", "inspect", "patch", "dry"}),
        ("zarr.json", {"quick", "full", "deep", "stats", "html", "inspect", "patch", "dry"}),
        (IMAGE1, {"stats", "html", "patch"}),
        ("patches/kind/c/0", {"stats", "html", "patch"}),
        ("annotations", {"stats", "html", "inspect", "patch"}),
    ],
)
def test_what_may_not_be_read_is_one_line(warm: Made, tmp_path: Path, name: str, fails: set[str]) -> None:
    with open_folder() as folder:
        store, out_of_it = _exposed(warm, folder)
        before = every_file(store.path)
        (store / name).chmod(0)
        with as_nobody():
            results = audited(store, warm, out_of_it, folder / "source")
        (store / name).chmod(0o755)
        assert every_file(store.path) == before
    for result, (code, out, line) in results.items():
        if result in fails:
            assert (code, out) == (EXIT_UNREADABLE, ""), (result, line)
            assert line.startswith(f"keypatch: {store}"), result
        elif result == "inspect":
            assert (code, line) == (0, ""), result
        else:
            # quick reads no shard, so it cannot tell that one may not be read.
            assert (code, line) == (0 if (result, name) == ("quick", IMAGE1) else 1, ""), result


@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "damaged"])
def test_a_store_that_may_not_be_written_is_audited_all_the_same(warm: Made, damaged: bool) -> None:
    with open_folder() as folder:
        store, out_of_it = _exposed(warm, folder)
        if damaged:
            os.truncate(store / IMAGE1, 1000)
        for path in (store.path, *store.path.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        folder.chmod(0o555)
        before = every_file(store.path)
        with as_nobody():
            results = audited(store, warm, out_of_it, folder / "source")
        assert every_file(store.path) == before
    assert [code for code, _, _ in results.values()] == ([1, 1, 1, 3, 3, 0, 3, 1] if damaged else [0] * 8)


def test_volumes_that_may_not_be_looked_into_are_one_line(warm: Made) -> None:
    with open_folder() as folder:
        store, _ = _exposed(warm, folder)
        (folder / "source").chmod(0)
        with as_nobody():
            for command in ("validate", "repair"):
                ran = keypatch(command, store, "--source", folder / "source" / "day0")
                assert (ran.code, ran.out) == (EXIT_UNREADABLE, ""), command
                assert ran.err.endswith("found Permission denied; check --source\n"), command
