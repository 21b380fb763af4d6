"""Nothing shows a number, a text or a code unless it is asked to: every command, and every call that answers one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest

from dispatcher import Dispatcher, DispatcherError, Message
from dispatcher.accounts import KEY, Account
from dispatcher.endpoints import NoticeCalls, Told
from dispatcher.optouts import OptOuts, Text
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.records import encode_failure
from tests.commands import COMMANDS, Ended, Run, in_process
from tests.unit.support import HASH_KEY, SECRET_KEY, Bench, leaks, settings

#: None of them is in an example of the help.
NUMBER: Final = "+447700900077"
FOUND: Final = "+447700900078"
TEXT: Final = "canary text"
CODE: Final = "730192"
PRIVATE: Final = (NUMBER, "07700 900077", TEXT, CODE, FOUND)

#: What is known of a job that ended in each way.
IDS: dict[str, str] = {}


@pytest.fixture
def memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Have jobs of all kinds in a Redis in memory, with everything that may come to lie in their records."""
    monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, **__: bench.store)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_, **__: None)
    can = ["balance", "list.append", "lookup", "optout.add", "send", "verify", "verify.check"]
    account = Account(name="textgoto", adapter="textgoto", operations=can)
    bench.redis.hset(KEY, "textgoto", msgspec.json.encode(account))
    words = Failure(kind=FailureKind.REJECTED, code="17", message=f"{NUMBER} is on no list")
    with Dispatcher(bench.settings) as d:
        IDS["queued"] = d.send(NUMBER, TEXT).id
        IDS["failed"] = d.send(NUMBER, TEXT).id
        bench.advance(IDS["failed"], bench.claim(IDS["failed"]), "failed", fields={"e": encode_failure(words)})
        IDS["unknown"] = d.send(NUMBER, TEXT).id
        bench.advance(IDS["unknown"], bench.claim(IDS["unknown"]), "unknown")
        IDS["verify"] = d.verify(NUMBER, template=f"{TEXT} [CODE]").id
        hashed = bench.settings.hashed("code", IDS["verify"], CODE)
        sealed = bench.settings.sealer().seal(CODE.encode(), IDS["verify"])
        bench.advance(IDS["verify"], bench.claim(IDS["verify"]), "sent", fields={"vh": hashed, "vx": sealed})
        IDS["lookup"] = d.operation("textgoto", "balance", number=NUMBER).id
        result = msgspec.json.encode({"number": FOUND, "deep": [{"text": f"call {FOUND}"}], "n": int(FOUND[1:])})
        told = {"r": bench.settings.sealer().seal(result, IDS["lookup"])}
        bench.advance(IDS["lookup"], bench.claim(IDS["lookup"]), "completed", fields=told)
        d.send_many([Message(NUMBER, TEXT)], batch_id="spring")
        heard = d.send(NUMBER, TEXT, callback_url=f"https://hooks.example.com/{CODE}?{CODE}").id
        bench.advance(heard, bench.claim(heard), "sent")
        notices = NoticeCalls(bench.settings)
        (IDS["endpoint"],) = bench.run(notices.gather(publishes=True)).due
        (notice,) = bench.run(notices.take(IDS["endpoint"], "a", "b", 0)).notices
        bench.run(notices.done(IDS["endpoint"], "a", notice.cursor, Told.FAILED, words="500"))
        d.events(group="billing", after="0")
        d.opt_out(NUMBER, sender="ACME")
        said = Text(provider="textgoto", sender=NUMBER, to="1", text=TEXT, at="", received=bench.clock.ms)
        bench.run(OptOuts(bench.settings).said(said, "1"))
    return bench


@pytest.fixture
def run(memory: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    keys = {"SECRET_KEY": SECRET_KEY, "HASH_KEY": HASH_KEY, "REDIS_URL": memory.settings.redis_url}
    return in_process({f"DISPATCHER_{name}": one for name, one in keys.items()}, monkeypatch, capsys)


#: What each command that is about people is asked, with the ids of `IDS` in braces; and what it shows when told to
#: reveal it.
SHOWING: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "send": (f"send {NUMBER} TEXT --provider textgoto", (NUMBER,)),
    "verify": (f"verify {NUMBER} --provider textgoto", (NUMBER,)),
    "lookup": (f"lookup {NUMBER} --provider textgoto", (NUMBER,)),
    "op": (f"op textgoto list.append list=friends number={NUMBER}", ()),
    "job": ("job {lookup}", (FOUND,)),
    "jobs": ("jobs", (NUMBER,)),
    "events": ("events --after 0", (NUMBER,)),
    "events groups": ("events groups", ()),
    "events reset": ("events reset billing --after 0", ()),
    "events delete": ("events delete billing", ()),
    "wait": ("wait {lookup} --timeout 0", (FOUND,)),
    "cancel": ("cancel {queued}", ()),
    "resolve": (f"resolve {{unknown}} failed --note {NUMBER}", ()),
    "redrive": ("redrive {failed}", ()),
    "callbacks": ("callbacks", ()),
    "callbacks failed": ("callbacks failed", ()),
    "callbacks redrive": ("callbacks redrive --all", ()),
    "callbacks resume": ("callbacks resume {endpoint}", ()),
    "check": (f"check {{verify}} {CODE}", ()),
    "segments": ("segments TEXT", ()),
    "forget": (f"forget {NUMBER}", ()),
    "quiet-hours": (f"quiet-hours {NUMBER}", ()),
    "optouts add": (f"optouts add {NUMBER}", ()),
    "optouts check": (f"optouts check {NUMBER}", ()),
    "optouts remove": (f"optouts remove {NUMBER}", ()),
    "optouts export": ("optouts export", (NUMBER,)),
    "guards list": ("guards", ()),
    "limits": ("limits", ()),
    "usage": ("usage", ()),
    "budgets": ("budgets", ()),
    "providers": ("providers", ()),
}

#: The other ways in which those that are about many are asked.
MORE: Final = (
    "events --group billing", "jobs --batch spring", f"jobs --number {NUMBER}", "job {verify}", "job {failed}",
    "wait --batch spring --timeout 0", "cancel --batch spring", "redrive --state failed",
)  # fmt: skip

#: Those that have nothing to show here as JSON.
_EMPTY: Final = {"guards", "budgets"}

#: Commands that start something, or take a file; `tests/acceptance/test_privacy.py` and `test_cli_send_file.py` look at
#: what those say.
OTHERS: Final = {
    "demo", "up", "worker", "receiver", "send-file", "status", "doctor", "init", "sandbox", "optouts", "optouts import",
    "countries", "guards", "resend", "api", "api tokens",
    "callbacks ping",
}  # fmt: skip


def commands() -> Iterator[str]:
    root: Any = COMMANDS
    for name, command in root.commands.items():
        yield name
        for below in getattr(command, "commands", {}):
            yield f"{name} {below}"


def ask(run: Run, words: str, *more: str) -> Ended:
    return run(*[TEXT if one == "TEXT" else one for one in words.format(**IDS).split()], *more)


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["in words", "as JSON"])
@pytest.mark.parametrize("words", [*(words for words, _ in SHOWING.values()), *MORE])
def test_no_command_shows_what_is_private(run: Run, words: str, more: tuple[str, ...]) -> None:
    ended = ask(run, words, *more)
    assert leaks(ended.out + ended.err, *PRIVATE) == []
    assert ended.out or words in _EMPTY, "it shows something"


@pytest.mark.parametrize("command", [name for name, (_, shown) in SHOWING.items() if shown])
def test_but_where_it_is_told_to(run: Run, command: str) -> None:
    words, shown = SHOWING[command]
    ended = ask(run, words, "--reveal", "--json")
    assert set(leaks(ended.out, *shown)) >= {*shown}


def test_every_command_is_looked_at() -> None:
    """One that is new belongs in the table, or beside those that are looked at elsewhere."""
    known = {*SHOWING, *OTHERS}
    apart = {"sandbox", "countries", "guards"}
    unknown = {name for name in commands() if name not in known and name.split()[0] not in apart}
    assert unknown - {"providers resume", "providers list"} == set()
    revealing = {name for name in commands() if "--reveal" in str([one.opts for one in _command(name).params])}
    assert revealing <= known


def _command(name: str) -> Any:
    found: Any = COMMANDS
    for word in name.split():
        found = found.commands[word]
    return found


#: What each call that may reveal answers of what is in the memory.
CALLS: Final[dict[str, Callable[..., Any]]] = {
    "get": lambda d, **told: d.get(IDS["lookup"], **told),
    "get_many": lambda d, **told: list(d.get_many([*IDS.values()], **told).values()),
    "wait": lambda d, **told: d.wait(IDS["lookup"], timeout=0, **told),
    "jobs": lambda d, **told: d.jobs(**told),
    "events": lambda d, **told: list(d.events("0", timeout=0, **told)),
    "guards": lambda d, **told: d.guards(**told),
    "opt_outs": lambda d, **told: list(d.opt_outs(NUMBER, **told)),
    "export_opt_outs": lambda d, **told: list(d.export_opt_outs(**told)),
}


def documents(answer: Any) -> str:
    """Everything that an answer says, its repr included."""
    return repr(answer) + str(msgspec.to_builtins(answer))


@pytest.mark.parametrize("name", CALLS)
def test_no_call_answers_what_is_private_unless_it_is_asked(memory: Bench, name: str) -> None:
    with Dispatcher(memory.settings) as d:
        assert leaks(documents(CALLS[name](d)), *PRIVATE) == []
        revealed = CALLS[name](d, reveal=True)
        assert leaks(repr(revealed), *PRIVATE) == [], "a repr never does: it ends in logs"
        assert name == "guards" or leaks(str(msgspec.to_builtins(revealed)), *PRIVATE)


def test_every_call_that_may_reveal_is_in_the_table() -> None:
    there = {
        name
        for name, one in inspect.getmembers(Dispatcher, inspect.isfunction)
        if not name.startswith("_") and "reveal" in inspect.signature(one).parameters
    }
    assert there == {*CALLS}


ERRORS: Final[dict[str, Callable[[Dispatcher], object]]] = {
    "a number that is none": lambda d: d.send("+4477009000771234", TEXT),
    "an id that is none": lambda d: d.get(NUMBER),
    "another code for a number": lambda d: d.check(NUMBER, CODE),
    "a text too long": lambda d: d.send(NUMBER, TEXT * 100, max_segments=1),
    "a country that is not texted": lambda d: Dispatcher(settings(countries="US")).send(NUMBER, TEXT),
    "nobody to forget": lambda d: d.forget(f"{NUMBER}1234"),
}


@pytest.mark.parametrize("wrong", ERRORS)
def test_no_error_repeats_what_is_private(memory: Bench, wrong: str) -> None:
    with Dispatcher(memory.settings) as d, pytest.raises(DispatcherError) as error:
        ERRORS[wrong](d)
    assert leaks(f"{error.value!r} {error.value}", *PRIVATE) == []
