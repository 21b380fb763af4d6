"""The command line: `dispatcher send`, `dispatcher job`, `dispatcher worker`, ...

Each command takes `--json` (one object a line), exits 0 only when what it was asked came true, and says what is wrong
in one paragraph on standard error.

A command belongs into the module of its theme, `@app.command()` on that module's own `app`; a new theme is a new module
and a name in `_THEMES` here. What several commands take is in `options`, how they show and end in `output`.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final, NoReturn

import typer
from typer.exceptions import TyperException

from dispatcher.cli import (
    api,
    callbacks,
    countries,
    events,
    guards,
    jobs,
    money,
    optouts,
    privacy,
    providers,
    quiet,
    running,
    sandbox,
    sending,
    texts,
    watching,
)
from dispatcher.cli.commands import Commands
from dispatcher.cli.output import fail
from dispatcher.errors import DispatcherError, InvalidRequest
from dispatcher.privacy import mask_numbers, one_line

#: The modules whose commands stand at the top, in the order of `dispatcher --help`.
_THEMES: Final = (running, sending, texts, jobs, watching, money, quiet, privacy)

#: Those whose commands stand below a name of their own: `dispatcher sandbox inbox`.
_BELOW: Final = {
    "events": events,
    "sandbox": sandbox,
    "optouts": optouts,
    "providers": providers,
    "countries": countries,
    "guards": guards,
    "callbacks": callbacks,
    "api": api,
}

#: What a disk that takes no more says.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

#: Characters of what is said of a command's words.
_LONGEST_USAGE: Final = 500

app = typer.Typer(
    cls=Commands,
    name="dispatcher",
    help="Send texts, verify numbers and look them up through SMS providers. Try it: [bold]dispatcher demo[/bold]",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _theme in _THEMES:
    app.add_typer(_theme.app)
for _name, _below in _BELOW.items():
    app.add_typer(_below.app, name=_name)


def main() -> None:
    """Run a command. Nothing but one paragraph is said of an error that is nobody's bug."""
    _open_streams()
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
        raise SystemExit(code)
    except TyperException as error:
        _fail_usage(error)
    except InvalidRequest as error:
        fail(str(error), code=2)
    except DispatcherError as error:
        fail(str(error))
    except OSError as error:
        _fail_output(error)
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":
            raise
        fail(f"the output's encoding, {error.encoding}, cannot carry what is to be shown; set PYTHONIOENCODING=utf-8")


def _open_streams() -> None:
    """Read nothing and write to nobody where whoever started us closed a stream, as some schedulers do."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # In this order each gets the number that was closed, and no connection does.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open as long as we run


def _fail_output(error: OSError) -> NoReturn:
    """Say that the output could not be written; raise what is another matter."""
    if error.errno not in _NO_ROOM or error.filename:
        raise error
    try:
        sys.stdout.flush()
    except OSError:
        # What is left in the buffer would fail once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    fail(f"the output could not be written: {error.strerror}")


def _fail_usage(error: TyperException) -> NoReturn:
    """Say what is wrong with the words of a command, without those that may be a text or a code."""
    # Of a word that is none of those that may be given, no number and no whole page.
    message = mask_numbers(one_line(str(error.format_message())[:_LONGEST_USAGE])).rstrip(".")
    if not message:
        # Nothing was asked for, and the help was shown.
        raise SystemExit(2)
    if "extra argument" in message:
        message = "there is an argument too many; put a text that has spaces in quotes"
    stop = "" if message.endswith("?") else "."
    fail(f"{message[:1].lower()}{message[1:]}{stop} See `dispatcher --help` and `dispatcher COMMAND --help`", code=2)
