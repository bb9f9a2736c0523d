"""The command line: it parses and prints, nothing else.

One module a command; each is imported when it runs, so that ``keypatch --help`` answers at once. Results go to stdout,
everything else to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from keypatch.cli import signals
from keypatch.errors import (
    EXIT_INTERNAL,
    EXIT_OK,
    EXIT_UNREADABLE,
    EXIT_USAGE,
    KeypatchError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS: Final = {
    "convert": "Build a store from volumes and annotations.",
    "inspect": "Show a store, a volume or an annotation file.",
    "validate": "Look for damage in stores.",
    "repair": "Make the damaged shards of a store again.",
    "stats": "Count what a store holds and what it saves.",
    "peaks": "Turn predicted heatmaps into points, and write them.",
}

DEBUG_VARIABLE: Final = "KEYPATCH_DEBUG"


class _Commands(click.Group):
    """Finds a command's module when it is asked for, and lists them without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"keypatch.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:  # noqa: ANN401 - click's own signature
        with _reader_may_leave(), _says_that_it_was_stopped():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        with _reader_may_leave(), _says_that_it_was_stopped():
            return super().invoke(ctx)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Leave quietly when the reader of our output (a pager, head) has what it wanted.

    click itself would leave with 1 and without a word, whichever pipe broke.
    """
    try:
        yield
    except BrokenPipeError as error:
        if not _stdout_is_broken():
            message = f"a pipe broke that is not stdout: {error}"
            raise RuntimeError(message) from error
        # Python flushes stdout once more at exit and must not complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(EXIT_OK) from None


@contextlib.contextmanager
def _says_that_it_was_stopped() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a line and an exit code; click itself would put an empty line before it."""
    try:
        yield
    except KeyboardInterrupt as end:
        click.echo("keypatch: interrupted", err=True)
        raise click.exceptions.Exit(signals.exit_code(end)) from None


def _stdout_is_broken() -> bool:
    if not hasattr(select, "poll"):
        return False
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from keypatch import __version__
        from keypatch.formats.store.schema import SCHEMA_VERSION

        click.echo(f"keypatch {__version__}, schema {SCHEMA_VERSION}")
        ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Turn tomograms and keypoints into a chunked training set, once.

    \b
    A first store from your own data:
      keypatch convert 'tomograms/*.mrc' -a picks.csv -o out.zarr --dry-run
      keypatch convert 'tomograms/*.mrc' -a picks.csv -o out.zarr
      keypatch validate out.zarr
      keypatch inspect out.zarr --patch 0 --png patch.png

    Exit codes: 0 fine, 1 findings, 2 wrong usage, 3 cannot read or write, 4 internal error or a worker that died.
    """  # noqa: D301 - \b is click's mark for text that is not to be wrapped
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def main() -> None:
    """Run the command line and leave with its exit code; an error is one line on stderr."""
    try:
        with signals.sigterm_as_ctrl_c():
            # An Exit comes back as its code; whatever else a command returns means that all went well.
            code = cli(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else EXIT_OK)
    except click.ClickException as error:
        click.echo(f"keypatch: {_one_line(error)}", err=True)
        sys.exit(EXIT_USAGE)
    except KeypatchError as error:
        click.echo(f"keypatch: {error}", err=True)
        sys.exit(error.exit_code)
    except MemoryError:
        click.echo("keypatch: not enough memory; give fewer --workers, or to convert a smaller --patch-shape", err=True)
        sys.exit(EXIT_UNREADABLE)
    except PermissionError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        click.echo(f"keypatch: {error.filename}: {error.strerror}", err=True)
        sys.exit(EXIT_UNREADABLE)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        click.echo(
            f"keypatch: internal error: {text}; set {DEBUG_VARIABLE}=1 for the traceback and report it", err=True
        )
        sys.exit(EXIT_INTERNAL)


def _one_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split()).removesuffix(".")
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return text if ctx is None else f"{text}; see {ctx.command_path} --help"
