"""The command line at its edges: errors in the words that were typed, an output that takes no more, odd settings."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.errors import IdempotencyConflict
from tests.commands import Run, in_process
from tests.support import clean_environment
from tests.unit.support import HASH_KEY, NUMBER, SECRET_KEY, TEXT, URL, Bench


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dispatcher ARGUMENTS` with a Redis that is not there."""
    settings = {"REDIS_URL": URL, "SECRET_KEY": SECRET_KEY, "HASH_KEY": HASH_KEY}
    return in_process({f"DISPATCHER_{name}": value for name, value in settings.items()}, monkeypatch, capsys)


#: Arguments that can never work, and what the error begins with.
WORDS = {
    "a time too far ahead": (["send", NUMBER, TEXT, "--send-at", "2999-01-01T00:00:00+00:00"], "--send-at '2999-"),
    "a time of nowhere": (
        ["send", NUMBER, TEXT, "--send-at", "2026-12-24T09:00:00"],
        "--send-at '2026-12-24T09:00:00'",
    ),
    "no time to be valid": (["lookup", NUMBER, "--valid-for", "-1"], "--valid-for '-1.0': must be"),
    "a code that lives no second": (["verify", NUMBER, "--ttl", "0"], "--ttl "),
    "a sender too long": (["send", NUMBER, TEXT, "--sender", "x" * 50], "--sender: must be"),
    "an unknown lane": (["lookup", NUMBER, "--lane", "fast"], "--lane 'fast': must be"),
    "an unknown state": (["jobs", "--state", "lost"], "--state 'lost': must be"),
    "a number to list by": (["jobs", "--number", "nobody"], "--number "),
    "what is typed without a name": (["send", "nobody", TEXT], "to "),
    "what has a name elsewhere": (["send", NUMBER, ""], "text: is empty"),
}


@pytest.mark.parametrize(("arguments", "begins"), WORDS.values(), ids=WORDS)
def test_an_error_names_the_option_that_was_typed(run: Run, arguments: list[str], begins: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"dispatcher: {begins}")
    assert ended.err.count("\n") == 1


def test_a_conflict_names_the_option_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(*_: Any, **__: Any) -> None:
        raise IdempotencyConflict("06h00n32pvdoek4tipfuifv0jc")

    monkeypatch.setattr("dispatcher.client.Dispatcher.send", conflict)
    ended = run("send", NUMBER, TEXT, "--idempotency-key", "order-17")
    assert ended.code == 2
    assert ended.err.startswith("dispatcher: --idempotency-key: was used before")


@pytest.mark.parametrize("options", [["--timeout", "0.1"], ["--timeout", "0.1", "-f"], ["--timeout", "0"], []])
def test_events_are_waited_for_as_long_as_they_are_asked_to(
    run: Run, bench: Bench, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """`--timeout` alone shows what is kept, then goes on until it was quiet for so long."""
    asked: list[Any] = []

    def events(_: Any, after: str | None, *, timeout: float | None, **_more: object) -> Iterator[Any]:
        asked.append((after, timeout))
        yield from ()

    monkeypatch.setattr("dispatcher.client.Dispatcher.events", events)
    assert run("events", *options) == (0, "", "")
    seconds = float(options[1]) if options else 0
    assert asked == [(None if "-f" in options else "0", seconds)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_follows_events_stops_in_good_order_when_told_to(
    run: Run, bench: Bench, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """By Ctrl-C, and as services are stopped: what was in hand is given back."""
    closed = []

    def events(*_: Any, **__: Any) -> Iterator[Any]:
        try:
            while True:
                os.kill(os.getpid(), number)
                yield from ()
        finally:
            closed.append(True)

    monkeypatch.setattr("dispatcher.client.Dispatcher.events", events)
    before = signal.getsignal(number)
    assert run("events", "-f", "--group", "billing") == (code, "", "")
    assert closed == [True]
    assert signal.getsignal(number) == before


def test_a_time_that_was_no_time_is_refused(run: Run) -> None:
    ended = run("events", "--timeout", "-1")
    assert ended.code == 2
    assert "--timeout" in ended.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no file that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["init", "--json"], ["send", "--help"]])
def test_an_output_that_takes_no_more_is_one_line_of_error(tmp_path: Path, arguments: list[str]) -> None:
    """As a disk that is full; what is left in the buffer must not fail once more at the very end."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "dispatcher.cli", *arguments],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.stderr == f"dispatcher: the output could not be written: {os.strerror(28)}\n"
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("closed", "arguments", "code", "words"),
    [
        pytest.param("<&-", ["send", NUMBER, "-"], 2, "dispatcher: text: is empty; there is nothing ", id="input"),
        pytest.param("<&-", ["send-file", "-", "--text", "x"], 2, "dispatcher: FILE: is empty; it ", id="a file"),
        pytest.param(">&-", ["init", "--json"], 0, "", id="output"),
        pytest.param(">&- 2>&- <&-", ["jobs"], 1, "", id="all of them"),
    ],
)
def test_a_stream_that_is_closed_is_empty_or_nobodys(
    tmp_path: Path, closed: str, arguments: list[str], code: int, words: str
) -> None:
    """As some schedulers start their jobs."""
    ended = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "dispatcher.cli", *arguments],
        cwd=tmp_path,
        env={**clean_environment(), "DISPATCHER_REDIS_URL": URL},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.startswith(words)
    assert ended.stderr.count("\n") == bool(words)


@pytest.mark.parametrize(
    "arguments", [["send", NUMBER, "-"], ["check", "06h", "-"], ["op", "x", "y", "--arguments", "-"]]
)
def test_input_that_is_no_text_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    class Broken(io.StringIO):
        encoding = "utf-8"

        def read(self, size: int | None = -1) -> str:
            return b"\xff".decode()

    monkeypatch.setattr("tests.commands.io.StringIO", lambda _: Broken())
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "must be text, and standard input is none in utf-8" in ended.err


def test_an_output_that_cannot_carry_a_letter_is_one_line_of_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        "Grüße".encode("ascii")

    monkeypatch.setattr("dispatcher.client.Dispatcher.jobs", fail)
    ended = run("jobs")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("dispatcher: the output's encoding, ascii, cannot carry what is to be shown")


def test_an_error_of_another_file_is_no_error_of_the_output(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug shows itself."""

    def fail(*_: Any, **__: Any) -> None:
        raise IsADirectoryError(21, "Is a directory")

    monkeypatch.setattr("dispatcher.client.Dispatcher.jobs", fail)
    with pytest.raises(IsADirectoryError):
        run("jobs")


def test_a_demonstration_minds_no_setting_but_its_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    class Demo:
        def __init__(self, data: Path, *, as_json: bool) -> None:
            seen.append(data)

        def run(self) -> int:
            return 0

    monkeypatch.setattr("dispatcher.demo.Demo", Demo)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dispatcher.toml").write_text("this is no TOML")
    wrong = {"REDIS_URL": "nonsense", "LEASE": "1", "TICK": "soon", "HASH_KEY_FILE": "missing", "PROVIDERS": "x"}
    for name, value in {**wrong, "DATA": "elsewhere"}.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    assert run("demo") == (0, "", "")
    assert seen == [Path("elsewhere")]
