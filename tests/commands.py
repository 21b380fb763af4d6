"""The command line in the tests' own process: most commands take less time than an interpreter to start."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import typer

from dispatcher.cli import app, main

#: Built once for all tests: that takes longer than most commands.
COMMANDS: Final = typer.main.get_command(app)


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The JSON objects that it printed, one a line."""
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in self.out.splitlines()]

    @property
    def document(self) -> dict[str, Any]:
        """The one that it printed."""
        (one,) = self.documents
        return one


Run = Callable[..., Ended]


def in_process(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Return what runs `dispatcher ARGUMENTS` with `environment`, and with `stdin` to read."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(typer.main, "get_command", lambda _: COMMANDS)

    def run(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "argv", ["dispatcher", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return run
