"""What every error of ours promises: one line, an exit code, a built-in class that fits, and that it pickles."""

from __future__ import annotations

import builtins
import inspect
import pickle
from pathlib import Path

import pytest

import keypatch
from keypatch import errors
from keypatch.errors import BuildIncompleteError, FormatError, KeypatchError, MissingExtraError, ReadError, UsageError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, KeypatchError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_message_is_one_line_of_four_parts(kind) -> None:
    error = kind.at(
        Path("a  folder/b.mrc"), expected="3 axes\nor 4", found="2\taxes\r\n'x'", hint="give --array\nplease"
    )
    assert type(error) is kind
    assert str(error) == "a  folder/b.mrc: expected 3 axes or 4, found 2 axes 'x'; give --array please"
    assert str(kind.at("--sigma", expected="a number", found="'x'")) == "--sigma: expected a number, found 'x'"


@pytest.mark.parametrize("kind", CLASSES)
def test_it_pickles_between_processes(kind) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        error = kind.at("b.mrc", expected="3 axes", found="2")
        twin = pickle.loads(pickle.dumps(error, protocol))
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert twin.exit_code == error.exit_code


def test_a_build_that_lacks_units_keeps_their_reasons() -> None:
    error = BuildIncompleteError.of(9, {7: ReadError("c: expected x, found y"), 2: ValueError("odd")})
    twin = pickle.loads(pickle.dumps(error))
    assert twin.failures == error.failures == {2: "odd", 7: "c: expected x, found y"}
    assert str(twin).startswith("2 of 9 units could not be built: unit 2: odd; unit 7: c: expected x, found y;")


@pytest.mark.parametrize(
    ("kind", "also", "code"),
    [
        ("UsageError", ValueError, errors.EXIT_USAGE),
        ("ReadError", OSError, errors.EXIT_UNREADABLE),
        ("FormatError", ValueError, errors.EXIT_UNREADABLE),
        ("FormatError", OSError, errors.EXIT_UNREADABLE),
        ("StoreError", OSError, errors.EXIT_UNREADABLE),
        ("CorruptionError", OSError, errors.EXIT_UNREADABLE),
        ("WriteError", OSError, errors.EXIT_UNREADABLE),
        ("MissingExtraError", ImportError, errors.EXIT_USAGE),
        ("WorkerError", RuntimeError, errors.EXIT_INTERNAL),
        ("BuildIncompleteError", Exception, errors.EXIT_FINDINGS),
    ],
)
def test_what_catches_it(kind, also, code) -> None:
    error = getattr(keypatch, kind)("x")
    assert isinstance(error, KeypatchError)
    assert isinstance(error, also)
    assert error.exit_code == code


def test_every_error_is_public_and_shadows_no_builtin() -> None:
    for kind in CLASSES:
        assert getattr(keypatch, kind.__name__) is kind
        assert kind.__name__ in keypatch.__all__
        assert not hasattr(builtins, kind.__name__)
        assert kind.__doc__


def test_exit_codes_tell_findings_from_crashes() -> None:
    names = ("EXIT_OK", "EXIT_FINDINGS", "EXIT_USAGE", "EXIT_UNREADABLE", "EXIT_INTERNAL")
    assert [getattr(errors, name) for name in names] == [0, 1, 2, 3, 4]
    assert KeypatchError("x").exit_code == errors.EXIT_INTERNAL


def test_a_missing_library_names_its_extra() -> None:
    error = MissingExtraError.needs("a.tif: LZW compression", "tiff")
    assert str(error).endswith("run: pip install 'keypatch[tiff]'")
    assert isinstance(error, ImportError)


def test_format_errors_are_read_errors_and_usage_errors_are_not() -> None:
    assert issubclass(FormatError, ReadError)
    assert not issubclass(UsageError, ReadError)
