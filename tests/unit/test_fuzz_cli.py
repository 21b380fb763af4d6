"""The command line, given anything: an exit code, one paragraph of what went wrong, no change by what is refused.

Ten thousand command lines, the same ones each time, and some of them as processes; EXAMPLES=20 makes that many times
more, others.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import pytest
import typer

from dispatcher.cli import main
from tests.commands import COMMANDS
from tests.support import clean_environment
from tests.unit.strange import (
    CARD,
    FRESH_AFTER,
    INPUTS,
    NUMBER,
    PARTS,
    PLAIN,
    PRIVATE,
    TEXTS,
    TIMES,
    WORD,
    Enough,
    Passing,
    Shop,
    chance,
    listed,
)
from tests.unit.support import HASH_KEY, OTHER, SECRET_KEY, URL, Clock, leaks, settings

#: What runs until it is stopped, looks at this machine or takes no words: each has tests of its own.
NOT_HERE: Final = {"demo", "up", "worker", "receiver", "sandbox", "doctor", "status", "init"}

#: What private words may be given as.
PRIVATE_WORDS: Final = {"to", "number", "text", "template", "code", "sender", "option", "idempotency_key"}

SETTINGS: Final = {"REDIS_URL": URL, "SECRET_KEY": SECRET_KEY, "HASH_KEY": HASH_KEY, "ALLOW_CARD_DATA": "1"}


class Known(Protocol):
    """What there is to be named: jobs and a batch."""

    ids: list[str]
    batch: str


class Command(NamedTuple):
    """A command, and what it takes: click's own descriptions."""

    words: tuple[str, ...]
    parameters: list[Any]


def commands(group: Any, *words: str) -> Iterator[Command]:
    """Name the commands, with those below others."""
    for name, one in group.commands.items():
        if not words and name in NOT_HERE:
            continue
        if hasattr(one, "commands"):
            yield from commands(one, *words, name)
        else:
            yield Command((*words, name), one.params)


EVERY: Final = list(commands(COMMANDS))

#: What a word usually is, by the name of its parameter.
USUAL: Final[Mapping[str, Callable[[random.Random, Known], str]]] = {
    "to": lambda decide, shop: decide.choice([NUMBER, OTHER]),
    "number": lambda decide, shop: NUMBER,
    "text": lambda decide, shop: decide.choice([WORD, "-"]),
    "code": lambda decide, shop: decide.choice([WORD, "-"]),
    "template": lambda decide, shop: f"{WORD} [CODE]",
    "id_": lambda decide, shop: decide.choice(shop.ids),
    "batch": lambda decide, shop: shop.batch,
    "provider": lambda decide, shop: "textgoto",
    "name": lambda decide, shop: "textgoto",
    "operation": lambda decide, shop: decide.choice(["balance", "optout.add", "number.buy", "report", "send"]),
    "arguments": lambda decide, shop: decide.choice([f"number={NUMBER}", f"card_number={CARD}", "a=b"]),
    "from_json": lambda decide, shop: "-",
    "option": lambda decide, shop: f"time={WORD}",
    "metadata": lambda decide, shop: '{"a": 1}',
    "timeout": lambda decide, shop: decide.choice(["0", "0.1", "3"]),
    "valid_for": lambda decide, shop: "60",
    "ttl": lambda decide, shop: "60",
    "limit": lambda decide, shop: "3",
    "send_at": lambda decide, shop: "2027-01-15T09:00:00+01:00",
    "lane": lambda decide, shop: decide.choice(["high", "normal"]),
    "category": lambda decide, shop: decide.choice(["otp", "promotional"]),
    "state": lambda decide, shop: decide.choice(["queued", "unknown"]),
    "until": lambda decide, shop: decide.choice(["final", "settled"]),
    "after": lambda decide, shop: "0",
    "scope": lambda decide, shop: decide.choice(["account", "funds"]),
    "file": lambda decide, shop: decide.choice([*FILES, "nowhere.csv", "-"]),
    "encoding": lambda decide, shop: decide.choice(["utf-8", "cp1252", "utf-16"]),
    "delimiter": lambda decide, shop: decide.choice([",", ";", "tab"]),
    "format_": lambda decide, shop: decide.choice(["csv", "jsonl"]),
    "rejects": lambda decide, shop: decide.choice(["rejects.csv", "folder", "missing/rejects.csv"]),
    "batch_id": lambda decide, shop: decide.choice(["autumn", shop.batch]),
}

#: Files to send to.
FILES: Final[Mapping[str, bytes]] = {
    "good.csv": f"to,name\n{NUMBER},{WORD}\n{OTHER},Bob\n".encode(),
    "bad.csv": f'to,name\n"{WORD},\n,,,\n{WORD},{WORD}\n'.encode(),
    "good.jsonl": msgspec.json.encode({"to": NUMBER, "text": WORD}) + b"\n",
    "bad.jsonl": b'{"to": 7}\n[]\n{"to"\n\xff\xfe\n',
    "empty.csv": b"",
    "bytes.csv": bytes(range(256)) * 3,
    "wide.csv": f"to,text\n{NUMBER},{WORD}\n".encode("utf-16"),
}

#: What somebody types or pipes in.
INPUT: Final = (
    b"", PLAIN.encode(), f'{{"number": "{NUMBER}"}}'.encode(), f'{{"card_number": "{CARD}"}}'.encode(), b"[1",
    b"{}\n{}", b'{"a": 1e999}', b'"\\ud83d"', b"\0", b"\xff", f"to,text\n{NUMBER},{WORD}\n".encode(),
)  # fmt: skip


def word(decide: random.Random, shop: Known, name: str) -> str:
    """Return a word for a parameter: as usual, or odd; of those that a terminal can type."""
    if name in USUAL and decide.random() < 0.7:
        return USUAL[name](decide, shop)
    odd: str = decide.choice(TEXTS)(WORD if name in PRIVATE_WORDS else PLAIN)
    # No word has an end of a string in it; bytes that are no text arrive as halves of their own.
    odd = odd.replace("\0", "").replace("\ud83d", "\udcff")
    if name in {"file", "rejects"}:
        # A file's name is shown as it is: many have digits in them.
        odd = odd.replace("7700", "name")
    return f"a={odd}" if name in {"option", "arguments"} and decide.random() < 0.7 else odd


def typed(decide: random.Random, shop: Known, command: Command) -> list[str]:
    """Return what somebody types after the command's name."""
    words: list[str] = []
    for one in command.parameters:
        if one.param_type_name == "argument":
            many = decide.choice([0, 1, 1, 1, 1, 2] if one.nargs == 1 else [0, 1, 2])
            many = 1 if one.required and decide.random() < 0.9 else many
            words += [word(decide, shop, one.name) for _ in range(many)]
    options = [one for one in command.parameters if one.param_type_name == "option"]
    for one in decide.sample(options, min(len(options), decide.choice([0, 0, 1, 2, 3]))):
        name = decide.choice(one.opts + one.secondary_opts)
        told = word(decide, shop, one.name)
        given = [name] if one.is_flag else decide.choice([[name, told], [f"{name}={told}"]])
        words[(at := decide.randrange(len(words) + 1)) : at] = given
    if options and decide.random() < 0.05:
        # Without what belongs to it.
        words.append(decide.choice(options).opts[0])
    if decide.random() < 0.03:
        words.insert(decide.randrange(len(words) + 1), decide.choice(["--", "-", "--nonsense", "-x", "--help", "-h"]))
    return words


class Terminal:
    """Runs commands here, as a process would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(typer.main, "get_command", lambda _: COMMANDS)
        for name, value in SETTINGS.items():
            monkeypatch.setenv(f"DISPATCHER_{name}", value)

    def run(self, words: list[str], stdin: bytes) -> tuple[int | None, str, str]:
        """Return the exit code, None where it would wait for ever, and both outputs."""
        # As Python makes them: what cannot be written breaks the one and is escaped on the other.
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
        given = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)), encoding="utf-8")
        streams = {"argv": ["dispatcher", *words], "stdin": given, "stdout": out, "stderr": err}
        for name, value in streams.items():
            self._monkeypatch.setattr(sys, name, value)
        code: int | None = None
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Enough:
            pass
        return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()


def problem(code: int | None, out: str, err: str, *, reveals: bool) -> str:
    """Return what is wrong with how a command ended, or nothing."""
    if "Traceback" in err:
        return f"shows a traceback: {err[-200:]}"
    if leaks(err, *PRIVATE) or (not reveals and leaks(out, WORD, CARD)):
        return f"tells what is private: {err[:200]} / {out[:200]}"
    if code not in {None, 0, 1, 2}:
        return f"ended with {code}"
    if code == 2 and not (err.startswith("dispatcher: ") and err.endswith("\n") and err.count("\n") == 1):
        return "does not say in one paragraph what is wrong"
    if len(err) > 2000:
        return "says more than anybody reads"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_anything_that_is_typed_is_done_or_refused(
    part: int, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    passing = Passing()
    for module in ("reading", "batches", "events", "cli.watching"):
        monkeypatch.setattr(f"dispatcher.{module}.time", passing)
    monkeypatch.setattr("dispatcher.events._BLOCK", 0)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_, **__: None)
    # Read once: to read settings takes longer than most commands.
    read = settings(allow_card_data=True)
    monkeypatch.setattr("dispatcher.client.load", lambda **_: read)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    terminal = Terminal(monkeypatch)
    decide, wrong = chance("commands", part), dict[tuple[str, ...], list[str]]()
    shop = Shop(clock)
    for number in range(INPUTS * TIMES // PARTS):
        if number % FRESH_AFTER == 0:
            shop = Shop(clock)
            monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, _store=shop.dispatcher._store, **__: _store)
        command = decide.choice(EVERY)
        words = typed(decide, shop, command)
        passing.begin()
        try:
            code, out, err = terminal.run([*command.words, *words], decide.choice(INPUT))
            found = problem(code, out, err, reveals="--reveal" in words)
            if code == 2 and shop.changed():
                found = "was refused, and changed something"
        except Exception as error:  # noqa: BLE001 - that is what must not be
            found = f"raised {type(error).__name__}: {error!s:.60}"
        if code != 2:
            shop.changed()
        if found:
            wrong.setdefault((*command.words, found), [one[:40] for one in words])
    monkeypatch.undo()
    assert not wrong, listed(wrong)
    assert leaks(caplog.text, *PRIVATE) == []


# -- as processes ------------------------------------------------------------------------------------------------------

#: Processes that are started: each is another one, though all of them have loaded Python and the program but once.
PROCESSES: Final = 40 * TIMES

#: Starts commands one after the other, their streams files, and tells their exit codes.
STARTS: Final = """
import json, os, sys, typer
import dispatcher.cli, dispatcher.client, dispatcher.pages, dispatcher.send_file, workers.adapters, workers.operations
commands, codes = typer.main.get_command(dispatcher.cli.app), []
typer.main.get_command = lambda _: commands
dispatcher.client.Dispatcher().close()
workers.adapters.available()
for number, words in enumerate(json.load(open("commands.json"))):
    child = os.fork()
    if not child:
        for stream, (name, flags) in enumerate([("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY)]):
            os.dup2(os.open(f"{number}.{name}", flags | (flags and os.O_CREAT)), stream)
        sys.argv = ["dispatcher", *(os.fsdecode(bytes.fromhex(word)) for word in words)]
        dispatcher.cli.main()
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


def test_as_a_process_it_ends_as_well(tmp_path: Path) -> None:
    """No Redis answers here, and what is typed and read are bytes."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    decide = chance("processes")
    there = SimpleNamespace(ids=["06h00n32pvdoek4tipfuifv0jc"], batch="spring")
    lines = []
    for number in range(PROCESSES):
        command = decide.choice(EVERY)
        lines.append([*command.words, *typed(decide, there, command)])
        (tmp_path / f"{number}.in").write_bytes(decide.choice(INPUT))
    known = [[os.fsencode(word).hex() for word in words] for words in lines]
    (tmp_path / "commands.json").write_text(json.dumps(known))
    ended = subprocess.run(
        [sys.executable, "-c", STARTS],
        cwd=tmp_path,
        env={**clean_environment(), **{f"DISPATCHER_{name}": value for name, value in SETTINGS.items()}},
        capture_output=True,
        text=True,
        timeout=100 * TIMES,
        check=True,
    )
    wrong = {}
    for number, code in enumerate(json.loads(ended.stdout)):
        out, err = ((tmp_path / f"{number}.{name}").read_text(errors="replace") for name in ("out", "err"))
        if found := problem(code, out, err, reveals="--reveal" in lines[number]):
            wrong[found,] = lines[number]
    assert not wrong, listed(wrong)
