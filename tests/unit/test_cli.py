"""The command line without a Redis or with one in memory: its help, its errors, its exit codes."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import typer

from dispatcher.accounts import KEY, Account
from dispatcher.cli import app, main
from dispatcher.outcomes import Failure, FailureKind
from tests.unit.support import HASH_KEY, SECRET_KEY, TEXT, Bench, leaks

PASSWORD = "hunter2"
#: Nobody listens there.
AWAY = f"redis://somebody:{PASSWORD}@127.0.0.1:1/0"
#: Not the number and the code of the help's examples.
NUMBER = "+447700900077"
CODE = "730192"
CARD = "4111111111111111"
#: As ids are.
ID = "06h00n32pvdoek4tipfuifv0jc"

#: What no output may hold, whatever is wrong with it.
PRIVATE = (NUMBER, "07700 900077", TEXT, PASSWORD, CODE, CARD)

#: Built once for all tests: that takes longer than most of them.
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


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dispatcher ARGUMENTS` here and now."""

    def run(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(typer.main, "get_command", lambda _: COMMANDS)
        monkeypatch.setattr(sys, "argv", ["dispatcher", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert leaks(told.out + told.err, *PRIVATE) == []
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return run


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a Redis that is not there."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", AWAY)
    monkeypatch.setenv("DISPATCHER_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("DISPATCHER_HASH_KEY", HASH_KEY)


@pytest.fixture
def memory(away: None, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Have a Redis in memory, where a worker has told what its account can do; nobody takes the messages."""
    monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, **__: bench.store)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_, **__: None)
    can = ["balance", "list.append", "lookup", "optout.add", "send", "verify"]
    account = Account(name="textgoto", adapter="textgoto", operations=can, unsupported={"report": "it has no call"})
    bench.redis.hset(KEY, "textgoto", msgspec.json.encode(account))
    return bench


def one_paragraph(ended: Ended) -> str:
    """Return the words of an error that is told as it must be."""
    assert ended.out == ""
    assert ended.err.startswith("dispatcher: ")
    assert ended.err.count("\n") == 1, "one paragraph, which the terminal wraps"
    assert ended.err.endswith("\n")
    assert "Traceback" not in ended.err
    return ended.err.removeprefix("dispatcher: ").rstrip()


# -- help --------------------------------------------------------------------------------------------------------------


def commands() -> Iterator[str]:
    """Name all commands, with those below others."""
    root: Any = COMMANDS
    for name, command in root.commands.items():
        yield name
        for below in getattr(command, "commands", {}):
            yield f"{name} {below}"


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_command_teaches_by_an_example_and_prints_json(run: Run, command: str) -> None:
    ended = run(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    words = " ".join(line for line in ended.out.splitlines() if not line.strip().startswith("Usage:"))
    assert f"dispatcher {command}" in " ".join(words.split())
    assert "--json" in words


def test_every_command_is_in_the_list_with_a_line_of_its_own(run: Run) -> None:
    groups = [name for name in commands() if " " not in name and f"{name} " in " ".join(commands())]
    listed = run("--help").out + "".join(run(name, "--help").out for name in groups)
    told = {name for name in commands() if re.search(rf"^│ {name.split()[-1]} +[A-Z]", listed, re.MULTILINE)}
    assert told == set(commands())


def test_no_word_is_the_same_as_help(run: Run) -> None:
    ended = run()
    assert ended.code == 2
    assert "dispatcher demo" in ended.out + ended.err


# -- errors: what the caller got wrong ---------------------------------------------------------------------------------

#: Arguments that can never work, standard input, and what the error names.
BAD = {
    "a number that is none": (["send", "07700 900077", TEXT], "", "to "),
    "a word for a number": (["lookup", "nobody"], "", "to "),
    "an empty text": (["send", NUMBER, ""], "", "text"),
    "a blank text": (["send", NUMBER, " \n"], "", "text"),
    "nothing on standard input": (["send", NUMBER, "-"], "", "text"),
    "bytes that are no text": (["send", NUMBER, "\udcff\udcfe"], "", "text"),
    "a template without a place for the code": (["verify", NUMBER, "--template", TEXT], "", "[CODE]"),
    "a code that lives no second": (["verify", NUMBER, "--ttl", "0"], "", "ttl"),
    "no code": (["check", ID, " "], "", "code"),
    "no code on standard input": (["check", ID, "-"], "\n", "code"),
    "metadata that is no JSON": (["send", NUMBER, TEXT, "--metadata", "{crm: 4}"], "", "--metadata"),
    "metadata that is no object": (["send", NUMBER, TEXT, "--metadata", "[4]"], "", "--metadata"),
    "a time that is none": (["send", NUMBER, TEXT, "--send-at", "tomorrow"], "", "--send-at"),
    "a time of nowhere": (["send", NUMBER, TEXT, "--send-at", "2026-12-24T09:00:00"], "", "time zone"),
    "an unknown category": (["send", NUMBER, TEXT, "--category", "spam"], "", "promotional"),
    "an unknown lane": (["lookup", NUMBER, "--lane", "fast"], "", "normal"),
    "no time to be valid": (["send", NUMBER, TEXT, "--valid-for", "-1"], "", "valid"),
    "no number to be valid for": (["send", NUMBER, TEXT, "--valid-for", "nan"], "", "valid"),
    "an option that is no pair": (["send", NUMBER, TEXT, "--option", PASSWORD], "", "key=value"),
    "an argument that is no pair": (["op", "textgoto", "optout.add", NUMBER], "", "key=value"),
    "a card that is no pair": (["op", "textgoto", "balance", CARD], "", "key=value"),
    "an argument without a name": (["op", "textgoto", "optout.add", f"={NUMBER}"], "", "key=value"),
    "arguments that are no JSON": (
        ["op", "textgoto", "balance", "--arguments", "-"],
        f"number={NUMBER}",
        "--arguments",
    ),
    "arguments that are no object": (["op", "textgoto", "balance", "--arguments", "-"], f'["{NUMBER}"]', "--arguments"),
    "an operation's number that is none": (["op", "textgoto", "optout.add", "number=nobody"], "", "number"),
    "an operation that has its own command": (["op", "textgoto", "send"], "", "send"),
    "an unknown end to wait for": (["wait", ID, "--until", "never"], "", "settled or final"),
    "an unknown end to wait for, sending": (["send", NUMBER, TEXT, "--wait", "--until", "never"], "", "final"),
    "an unknown state": (["jobs", "--state", "lost"], "", "unknown"),
    "a listed number that is none": (["jobs", "--number", "nobody"], "", "number"),
    "a cursor that is none": (["events", "--after", "yesterday"], "", "after"),
}


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize(("arguments", "stdin", "named"), BAD.values(), ids=BAD)
def test_bad_input_is_told_before_anything_is_done(run: Run, arguments: list[str], stdin: str, named: str) -> None:
    """Redis is not even asked: it is not there."""
    ended = run(*arguments, stdin=stdin)
    assert ended.code == 2
    assert named in one_paragraph(ended)


#: Words that the command line itself cannot read, and what the error names.
UNREADABLE = {
    "an unknown command": (["sned"], "sned"),
    "an unknown option": (["send", NUMBER, TEXT, "--wiat"], "--wiat"),
    "an argument is missing": (["check", ID], "code"),
    "a text without quotes": (["send", NUMBER, "Your", *TEXT.split()], "argument"),
    "a code too many": (["check", ID, CODE, CODE], "argument"),
    "an option without its value": (["send", NUMBER, TEXT, "--provider"], "--provider"),
    "a number of seconds that is none": (["wait", ID, "--timeout", "long"], "--timeout"),
    "a limit of none": (["jobs", "--limit", "0"], "--limit"),
}


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize(("arguments", "named"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_named_and_not_repeated(run: Run, arguments: list[str], named: str) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert named in ended.err
    assert "Traceback" not in ended.err
    assert leaks(ended.err, "parcel is here") == []


# -- errors: what the deployment lacks ---------------------------------------------------------------------------------

#: One call of each command that needs Redis.
CALLS = {
    "send": ["send", NUMBER, TEXT, "--provider", "textgoto"],
    "verify": ["verify", NUMBER, "--provider", "textgoto"],
    "check": ["check", ID, CODE],
    "lookup": ["lookup", NUMBER],
    "op": ["op", "textgoto", "balance"],
    "job": ["job", ID],
    "jobs": ["jobs"],
    "jobs of a number": ["jobs", "--number", NUMBER],
    "events": ["events", "-f"],
    "wait": ["wait", ID],
    "cancel": ["cancel", ID],
    "limits": ["limits"],
    "providers": ["providers", "--json"],
    "providers resume": ["providers", "resume", "textgoto"],
}


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
def test_a_redis_that_is_away_is_told_without_its_password(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 1
    assert "127.0.0.1:1" in one_paragraph(ended)
    assert "DISPATCHER_REDIS_URL" in ended.err


@pytest.mark.parametrize("arguments", [*CALLS.values(), ["worker", "textgoto"]], ids=[*CALLS, "worker"])
def test_no_redis_at_all_is_told_with_a_way_out(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)
    assert ended.code == 1
    assert "DISPATCHER_REDIS_URL" in one_paragraph(ended)
    assert "dispatcher up" in ended.err


async def _refuse_to_wait(event: asyncio.Event) -> None:
    raise AssertionError("the sandbox serves nevertheless")


#: Settings, a command, and what the error names.
SETTINGS = {
    "a URL that is none": ({"REDIS_URL": "localhost"}, ["jobs"], "DISPATCHER_REDIS_URL"),
    "a URL of something else": ({"REDIS_URL": "https://example.com"}, ["jobs"], "DISPATCHER_REDIS_URL"),
    "a port that is none": ({"REDIS_URL": "redis://localhost:port"}, ["jobs"], "DISPATCHER_REDIS_URL"),
    "a lease that is none": ({"LEASE": "long"}, ["jobs"], "DISPATCHER_LEASE"),
    "a lease too short": ({"LEASE": "1"}, ["jobs"], "DISPATCHER_DEADLINE"),
    "no key": ({"SECRET_KEY": ""}, ["verify", NUMBER], "DISPATCHER_SECRET_KEY"),
    "no key to find numbers by": ({"HASH_KEY": ""}, ["jobs", "--number", NUMBER], "DISPATCHER_HASH_KEY"),
    "a worker without credentials": ({}, ["worker", "textgoto"], "DISPATCHER_PROVIDERS__TEXTGOTO__UID"),
    "a worker for nobody": ({}, ["worker", "nobody"], "textgoto"),
    "a folder that is a file": ({"DATA": os.devnull}, ["demo"], "DISPATCHER_DATA"),
    "a sandbox that is away": (
        {"SANDBOX_URL": "http://127.0.0.1:1"},
        ["sandbox", "inbox", NUMBER],
        "http://127.0.0.1:1",
    ),
    "a sandbox at no port": ({"SANDBOX_URL": "http://127.0.0.1:port"}, ["sandbox"], "DISPATCHER_SANDBOX_URL"),
    "a port that cannot be": ({}, ["sandbox", "--port", "99999"], "--port"),
    "an address that is not ours": ({}, ["sandbox", "--host", "192.0.2.1", "--port", "0"], "192.0.2.1"),
}


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize(("settings", "arguments", "named"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_that_cannot_work_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], arguments: list[str], named: str
) -> None:
    monkeypatch.setattr("asyncio.Event.wait", _refuse_to_wait)
    for name, value in settings.items():
        monkeypatch.setenv(f"DISPATCHER_{name}", value)
    ended = run(*arguments)
    assert ended.code in {1, 2}
    words = ended.err if ended.code == 2 else one_paragraph(ended)
    assert named in words
    assert "Traceback" not in ended.err


def test_a_ledger_that_is_none_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncio.Event.wait", _refuse_to_wait)
    (tmp_path / "notes").write_text("Buy milk\n")
    ended = run("sandbox", "--port", "0", "--ledger", "notes")
    assert ended.code == 1
    assert "ledger" in one_paragraph(ended)


def test_a_file_of_settings_that_is_no_toml_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dispatcher.toml").write_text("redis_url = \n")
    ended = run("jobs")
    assert ended.code == 1
    assert "dispatcher.toml" in one_paragraph(ended)


# -- errors: what is not there -----------------------------------------------------------------------------------------

#: Arguments, the exit code, and what the error names.
MISSING = {
    "an unknown provider": (["send", NUMBER, TEXT, "--provider", "textgotoo"], 1, "known: textgoto"),
    "an unknown account": (["op", "nobody", "balance"], 1, "dispatcher worker nobody"),
    "an operation that is not offered": (["op", "textgoto", "report"], 2, "it has no call"),
    "an operation that is unknown": (["op", "textgoto", "number.buy"], 2, "can do balance"),
    "a job": (["job", ID], 1, ID),
    "a job to wait for": (["wait", ID], 1, ID),
    "a job to cancel": (["cancel", ID], 1, ID),
    "a verification": (["check", ID, CODE], 1, ID),
}


@pytest.mark.parametrize(("arguments", "code", "named"), MISSING.values(), ids=MISSING)
def test_what_is_not_there_is_told_and_leaves_nothing(
    run: Run, memory: Bench, arguments: list[str], code: int, named: str
) -> None:
    before = memory.names()
    ended = run(*arguments)
    assert ended.code == code
    assert named in one_paragraph(ended)
    assert memory.names() == before


@pytest.mark.parametrize("arguments", [CALLS["send"], CALLS["verify"], CALLS["lookup"], CALLS["op"]])
def test_nothing_is_enqueued_to_be_waited_for_in_vain(run: Run, memory: Bench, arguments: list[str]) -> None:
    """Whoever is told that it was wrong repeats it; that must not send it twice."""
    before = memory.names()
    assert run(*arguments, "--wait", "--until", "never").code == 2
    assert memory.names() == before


def test_a_job_that_ended_cannot_be_taken_back(run: Run, memory: Bench) -> None:
    memory.ended(ID, "sent")
    ended = run("cancel", ID)
    assert ended.code == 1
    assert "is sent and cannot become cancelled" in one_paragraph(ended)


# -- what is printed ---------------------------------------------------------------------------------------------------


def test_a_job_is_one_line(run: Run, memory: Bench) -> None:
    ended = run("send", NUMBER, TEXT)
    assert (ended.code, ended.err) == (0, "")
    (id_,) = (key.removeprefix("d:j:") for key in memory.names() if key.startswith("d:j:"))
    assert ended.out == f"{id_} queued textgoto send +44********77 (waits for worker)\n"


def test_a_job_is_one_document(run: Run, memory: Bench) -> None:
    (document,) = run("send", NUMBER, TEXT, "--json", "--reference", "order-17", "--metadata", '{"crm": 4}').documents
    assert document["state"] == "queued"
    assert (document["to"], document["text"]) == ("+44********77", "[19 characters]")
    assert (document["reference"], document["metadata"]) == ("order-17", {"crm": 4})


def test_a_text_comes_from_standard_input_without_its_last_line_end(run: Run, memory: Bench) -> None:
    """As `echo Hello | dispatcher send ... -` has it; a line end sent along costs a character."""
    document = run("send", NUMBER, "-", "--json", stdin="One line\nand another\n").documents[0]
    assert document["text"] == f"[{len('One line and another')} characters]"


def test_no_jobs_are_no_lines(run: Run, memory: Bench) -> None:
    assert run("jobs", "--json") == (0, "", "")
    assert run("events", "--json") == (0, "", "")


def test_an_account_is_one_document(run: Run, memory: Bench) -> None:
    (document,) = run("providers", "--json").documents
    assert (document["name"], document["adapter"]) == ("textgoto", "textgoto")
    assert "balance" in document["operations"]
    assert document["unsupported"] == {"report": "it has no call"}


WRONG = Failure(kind=FailureKind.UNAUTHORIZED, code="LOGIN", message="no")


def test_what_is_suspended_is_shown_with_the_account(run: Run, memory: Bench) -> None:
    memory.run(memory.calls.suspend("textgoto", "account", WRONG, ()))
    (document,) = run("providers", "--json").documents
    assert [(one["scope"], one["code"]) for one in document["suspended"]] == [("account", "LOGIN")]
    shown = " ".join(run("providers").out.split())
    assert "its credentials are refused" in shown
    assert "dispatcher providers resume textgoto" in shown


def test_what_was_suspended_is_lifted_and_told(run: Run, memory: Bench) -> None:
    for scope in ("account", "funds", "operation:send"):
        memory.run(memory.calls.suspend("textgoto", scope, WRONG, ()))
    ended = run("providers", "resume", "textgoto", "funds")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "textgoto goes on (funds); it was suspended since 2027-01-15 08:00:00 UTC\n"
    assert [one["scope"] for one in run("providers", "resume", "textgoto", "--json").documents] == [
        "account", "operation:send",
    ]  # fmt: skip
    ended = run("providers", "resume", "textgoto")
    assert (ended.code, ended.out) == (1, "")
    assert "nothing of textgoto is suspended" in one_paragraph(ended)
    assert "nothing of textgoto is suspended as funds" in run("providers", "resume", "textgoto", "funds").err
    assert run("providers", "resume", "textgoto", "send").code == 2, "no scope"


def test_what_was_not_reached_in_time_is_shown_and_told(run: Run, memory: Bench) -> None:
    ended = run("send", NUMBER, TEXT, "--wait", "--timeout", "0", "--json")
    assert ended.code == 1
    assert ended.documents[0]["state"] == "queued"
    assert "is queued and not settled after 0 s" in ended.err
    assert ended.err.count("\n") == 1


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["providers"], ["providers", "--json"], ["--help"], ["jobs", "--help"]])
def test_whoever_stops_reading_gets_no_traceback(
    run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """As `head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    # Closed, it would be written to; what it still holds is lost as it is when a process ends.
    with open(writing, "w", closefd=True) as closed:  # noqa: PTH123 - a descriptor has no path
        monkeypatch.setattr(sys, "stdout", closed)
        ended = run(*arguments)
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
    assert (ended.code, ended.err) == (1, "")


@pytest.mark.parametrize("arguments", [["events", "-f"], ["wait", ID], ["jobs", "--json"]])
def test_ctrl_c_is_no_error(run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for name in ("events", "get", "jobs"):
        monkeypatch.setattr(f"dispatcher.client.Dispatcher.{name}", interrupt)
    assert run(*arguments) == (130, "", "")


# -- numbers looked up -------------------------------------------------------------------------------------------------

#: Of London, kept for fiction.
LANDLINE = "+442079460123"


def test_what_a_number_says_of_itself_needs_no_redis(run: Run) -> None:
    ended = run("lookup", LANDLINE, "+12125550100", "--free", "--json", "--reveal")
    assert (ended.code, ended.err) == (0, "")
    assert [(one["number"], one["line_type"]) for one in ended.documents] == [
        (LANDLINE, "fixed_line"), ("+12125550100", "fixed_line_or_mobile"),
    ]  # fmt: skip
    shown = run("lookup", LANDLINE, "--free", "--reveal")
    assert "  line_type: fixed_line\n" in shown.out
    assert "  time_zones: Europe/London\n" in shown.out
    masked = run("lookup", LANDLINE, "--free")
    assert leaks(masked.out, LANDLINE, "7946", "0123") == []
    assert "  country: GB\n" in masked.out


def test_several_numbers_make_a_batch(run: Run, memory: Bench) -> None:
    ended = run("lookup", NUMBER, "+447700900124", NUMBER, "--batch-id", "list", "--json")
    assert ended.code == 0
    assert [(one["operation"], one["batch_id"]) for one in ended.documents] == [("lookup", "list")] * 2
    shown = run("lookup", NUMBER, "+447700900124")
    assert shown.out.splitlines()[-1].startswith("batch ")
    assert shown.out.count("lookup") == 2
    late = run("lookup", NUMBER, "+447700900124", "--wait", "--timeout", "0", "--json")
    assert (late.code, len(late.documents)) == (1, 2)
    assert memory.counts("list") == {"queued": 2}


def test_a_key_is_for_one_number(run: Run, memory: Bench) -> None:
    ended = run("lookup", NUMBER, "+447700900124", "--idempotency-key", "k")
    assert ended.code != 0
    assert "--batch-id" in one_paragraph(ended)
    assert "d:p" not in memory.names()
