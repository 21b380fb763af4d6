"""What is said of an operation before it is enqueued, on the command line: help, and refusals that repeat nothing."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from dispatcher.accounts import KEY, Account, ArgumentSchema, OperationSchema
from dispatcher.jobs import CARD_FIELDS
from tests.commands import Run, in_process
from tests.unit.support import HASH_KEY, SECRET_KEY, URL, Bench, leaks
from workers.adapters import available, schemas

NUMBER: Final = "+447700900077"
SECRET: Final = "canary"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dispatcher ARGUMENTS` with a Redis that is not there."""
    settings = {"REDIS_URL": URL, "SECRET_KEY": SECRET_KEY, "HASH_KEY": HASH_KEY}
    environment = {f"DISPATCHER_{name}": value for name, value in settings.items()}
    return in_process(environment | {"COLUMNS": "100"}, monkeypatch, capsys)


#: As the worker of a provider publishes it whose adapter is not installed here.
ELSEWHERE: Final = Account(
    name="shop", adapter="acme", operations=["send", "keyword.rent", "keyword.check"],
    unsupported={"voice": "no texts"},
    schemas={
        "keyword.rent": OperationSchema(
            about="Rent it.", source="document", paid=True,
            arguments={
                "keyword": ArgumentSchema(about="which", required=True),
                "card_number": ArgumentSchema(about="a card's"),
            },
        ),
        "keyword.check": OperationSchema(about="Ask for it.", arguments={"keyword": ArgumentSchema(required=True)}),
    },
)  # fmt: skip

#: As a worker of the release before publishes it.
BEFORE: Final = Account(name="old", adapter="textgoto", operations=["balance", "list.append", "send"])
STRANGER: Final = Account(name="strange", adapter="nobody", operations=["balance"])


@pytest.fixture
def memory(run: Run, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Have a Redis in memory, where workers have told what their accounts can do."""
    monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, **__: bench.store)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_, **__: None)
    one = available()["textgoto"]
    here = Account(name="textgoto", adapter="textgoto", operations=sorted(one.operations), schemas=schemas(one))
    for account in (here, ELSEWHERE, BEFORE, STRANGER):
        bench.redis.hset(KEY, account.name, msgspec.json.encode(account))
    return bench


def jobs(memory: Bench) -> list[str]:
    return [name for name in memory.names() if name.startswith("d:j:")]


# -- refused before anything is enqueued -------------------------------------------------------------------------------

#: What is typed after `dispatcher op`, and what the error says.
REFUSED: Final = {
    "send": (["textgoto", "send"], "has a command of its own: dispatcher send"),
    "verify": (["textgoto", "verify"], "has a command of its own: dispatcher verify"),
    "verify.check": (["textgoto", "verify.check"], "has a command of its own: dispatcher check"),
    "lookup": (["textgoto", "lookup"], "has a command of its own: dispatcher lookup"),
    "a mistyped operation": (["textgoto", "list.apend"], "did you mean list.append?"),
    "a mistyped operation of an account elsewhere": (["shop", "keyword.rnt"], "did you mean keyword.rent?"),
    "an operation of nobody": (["textgoto", "sing"], "textgoto does not offer it: It can do balance, list.append"),
    "an operation that is not done here": (["textgoto", "report"], "textgoto does not offer it"),
    "one that is not done elsewhere": (["shop", "voice"], "no texts"),
    "a mistyped argument": (["textgoto", "list.append", "lst=x"], "argument lst: is none of list.append; did you mean"),
    "an argument of nobody": (["textgoto", "balance", "colour=red"], "is none of balance; Its arguments: none"),
    "an argument is missing": (["textgoto", "list.append", "list=x"], "argument number: is missing: a number in inter"),
    "a malformed one": (["textgoto", "list.append", "list= ", f"number={NUMBER}"], "argument list: must be text"),
    "no number": (["textgoto", "list.append", "list=x", f"number={SECRET}"], "argument number: "),
    "elsewhere, one is missing": (["shop", "keyword.rent"], "argument keyword: is missing: which"),
    "elsewhere, a mistyped one": (["shop", "keyword.rent", "keywrd=x"], "did you mean keyword?"),
    "an older worker's, by the adapter here": (["old", "list.append", "lst=x"], "did you mean list?"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_what_could_never_work_is_told_at_once(run: Run, memory: Bench, words: list[str], told: str) -> None:
    ended = run("op", *words)
    assert (ended.code, ended.out, jobs(memory)) == (2, "", [])
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert not leaks(ended.err, SECRET, NUMBER)


def test_what_is_on_standard_input_is_checked_too(run: Run, memory: Bench) -> None:
    ended = run("op", "textgoto", "list.append", "--arguments", "-", stdin='{"list": "x", "nmber": "canary"}')
    assert (ended.code, jobs(memory)) == (2, [])
    assert "did you mean number?" in ended.err
    assert not leaks(ended.err, SECRET)


@pytest.mark.parametrize("field", sorted(CARD_FIELDS))
def test_a_cards_details_are_no_words_of_a_command(run: Run, memory: Bench, field: str) -> None:
    """Everybody on the machine can read them there, and the shell keeps them."""
    ended = run("op", "shop", "keyword.rent", "keyword=honey", f"{field}={SECRET}")
    assert (ended.code, jobs(memory)) == (2, [])
    assert f"argument {field}: is a card's; give those on standard input" in ended.err
    assert "--arguments -" in ended.err
    assert not leaks(ended.err, SECRET)


@pytest.mark.parametrize(
    "words",
    [["textgoto", "list.append", "list=x", f"number={NUMBER}"], ["old", "balance"], ["strange", "balance", "a=b"]],
    ids=["all is well", "an older worker's", "nobody knows what it takes"],
)
def test_what_may_work_is_enqueued(run: Run, memory: Bench, words: list[str]) -> None:
    ended = run("op", *words)
    assert (ended.code, ended.err, len(jobs(memory))) == (0, "", 1)


def test_a_mistyped_account_is_understood(run: Run, memory: Bench) -> None:
    ended = run("op", "textgotto", "balance")
    assert (ended.code, jobs(memory)) == (1, [])
    assert "did you mean textgoto?" in ended.err


def test_without_a_redis_what_is_wrong_is_told_first(run: Run) -> None:
    """By the adapter that is installed here."""
    assert "did you mean list?" in run("op", "textgoto", "list.append", "lst=x").err
    ended = run("op", "textgoto", "list.append", "list=x", f"number={NUMBER}")
    assert ended.code == 1
    assert "DISPATCHER_REDIS_URL" in ended.err


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_on_the_command_is_about_the_command(run: Run) -> None:
    ended = run("op", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: dispatcher op [OPTIONS]" in ended.out


@pytest.mark.parametrize("where", ["--help", "-h"])
@pytest.mark.parametrize("before", [True, False], ids=["first", "last"])
def test_help_on_an_operation_lists_its_arguments(run: Run, memory: Bench, where: str, before: bool) -> None:
    words = ["shop", "keyword.rent", "--timeout", "5"]
    ended = run("op", *([where, *words] if before else [*words, where]))
    assert (ended.code, ended.err) == (0, "")
    assert "Usage: dispatcher op shop keyword.rent keyword=... [--arguments -]" in ended.out
    assert [
        word for word in ("Rent it.", "costs money", "required", "which", "a card's") if word not in ended.out
    ] == []


def test_help_on_an_account_lists_its_operations(run: Run, memory: Bench) -> None:
    ended = run("op", "shop", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "Rent it. Costs money." in ended.out
    assert "Its command: dispatcher send" in ended.out


def test_help_is_one_document_where_that_is_asked_for(run: Run, memory: Bench) -> None:
    document: dict[str, Any] = msgspec.json.decode(run("op", "shop", "keyword.rent", "--json", "--help").out)
    assert document["arguments"]["keyword"] == {"about": "which", "required": True}
    assert set(msgspec.json.decode(run("op", "shop", "--json", "--help").out)) == {"keyword.rent", "keyword.check"}


@pytest.mark.parametrize("redis", [True, False], ids=["one that is away", "none"])
def test_without_a_redis_the_adapter_that_is_installed_tells(
    run: Run, monkeypatch: pytest.MonkeyPatch, redis: bool
) -> None:
    if not redis:
        monkeypatch.delenv("DISPATCHER_REDIS_URL")
    ended = run("op", "textgoto", "list.append", "--help")
    assert (ended.code, ended.err) == (0, "")
    assert "the list's name" in ended.out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        pytest.param(["textgotto"], 1, "did you mean textgoto?", id="a mistyped account"),
        pytest.param(["textgoto", "list.apend"], 2, "did you mean list.append?", id="a mistyped operation"),
        pytest.param(["textgoto", "balance", "--wiat"], 2, "--wiat", id="an option of nobody"),
    ],
)
def test_help_on_what_there_is_not_says_so(run: Run, memory: Bench, words: list[str], code: int, told: str) -> None:
    ended = run("op", *words, "--help")
    assert (ended.code, ended.out) == (code, "")
    assert told in ended.err
