"""`dispatcher budgets`, `usage`, `countries`, and what `send` and `send-file` refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit import test_cli, test_cli_send_file
from tests.unit.support import NUMBER, TEXT, Bench
from tests.unit.test_budgets import Desk
from tests.unit.test_cli import Run, one_paragraph
from tests.unit.test_cli_send_file import Command

away = test_cli.away
memory = test_cli.memory
run = test_cli.run
send_file = test_cli_send_file.send_file

US = "+12125550100"


@pytest.fixture
def spent(memory: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A deployment with budgets, of which one tenant's is used up."""
    rules = ("tenant=* messages=2/day", "money=1 USD/month")
    monkeypatch.setenv("DISPATCHER_BUDGETS", ";".join(rules))
    desk = Desk(memory, *rules)
    for tenant in ("shop-a", "shop-a", "shop-b"):
        id_, spending = desk.new(tenant=tenant, each="100000 USD")
        token = memory.hold(id_)
        desk.claim(id_, spending, token=token)
        memory.advance(id_, token, "sent", fields={"c": "0.2 USD"} if tenant == "shop-a" else {})
    return memory


def test_budgets_are_shown_and_one_that_is_used_up_shows_in_the_exit_code(run: Run, spent: Bench) -> None:
    ended = run("budgets")
    assert ended.code == 1
    first, *_ = [line.split() for line in ended.out.splitlines()[1:]]
    assert " ".join(first) == "tenant=* messages=2/day tenant=shop-a 2 2 100% 2027-01-16 00:00 UTC used up"
    documents = run("budgets", "--json").documents
    assert [(one["counts_for"], one["used"], one["state"]) for one in documents] == [
        ({"tenant": "shop-a"}, "2", "used up"), ({"tenant": "shop-b"}, "1", "ok"), ({}, "0.5 USD", "ok"),
    ]  # fmt: skip


def test_without_a_budget_none_is_used_up(run: Run, memory: Bench) -> None:
    assert run("budgets") == (0, "there is no budget in DISPATCHER_BUDGETS\n", "")
    assert run("budgets", "--json") == (0, "", "")


def test_a_budget_that_makes_no_sense_is_told_of_by_every_command(
    run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_BUDGETS", "messages=0/day")
    assert one_paragraph(run("budgets")).startswith("DISPATCHER_BUDGETS has the rule 'messages=0/day'")


def test_usage_is_shown_by_what_is_asked_for(run: Run, spent: Bench) -> None:
    rows = [line.split() for line in run("usage", "--by", "tenant,country").out.splitlines()]
    assert rows == [
        ["tenant", "country", "messages", "segments", "price", "estimated"],
        ["shop-a", "GB", "2", "2", "0.4", "USD"],
        ["shop-b", "GB", "1", "1", "0.1", "USD"],
    ]
    assert run("usage", "--json").documents == [
        {
            "day": "2027-01-15", "provider": "textgoto", "messages": 3, "segments": 3, "price": {"USD": "0.4"},
            "estimated": {"USD": "0.1"},
        },
    ]  # fmt: skip
    assert run("usage", "--until", "2027-01-14") == (0, "nothing was taken in that time\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["usage", "--by", "colour"], "--by 'colour'", id="by what there is not"),
        pytest.param(["usage", "--since", "monday"], "--since 'monday': must be a day", id="no day"),
        pytest.param(["countries", "block", "England"], "country 'England': must be two letters", id="no country"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, memory: Bench, arguments: list[str], words: str) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert words in one_paragraph(ended)


def test_a_country_is_blocked_and_let_go(run: Run, memory: Bench) -> None:
    assert run("countries") == (0, "no country is blocked\n", "")
    assert run("countries", "block", "us", "fraud since noon") == (0, "US is blocked\n", "")
    assert run("countries").out == "US is blocked since 2027-01-15 08:00:00 UTC: fraud since noon\n"
    (document,) = run("send", US, TEXT, "--json").documents
    assert document["failure"]["message"] == "country: nobody is texted in US (fraud since noon)"
    assert run("countries", "--json").documents == [
        {"country": "US", "since": "2027-01-15T08:00:00Z", "reason": "fraud since noon"}
    ]
    assert run("countries", "unblock", "US", "--json").documents == [{"country": "US", "blocked": False}]
    assert run("countries", "unblock", "US").out == "US was not blocked\n"


def test_a_text_that_is_too_long_is_refused(run: Run, memory: Bench) -> None:
    ended = run("send", NUMBER, "a" * 161, "--max-segments", "1")
    assert ended.code == 2
    assert "text: has 2 segments (161 characters in GSM-7)" in one_paragraph(ended)


def test_lines_of_a_file_that_are_too_long_or_not_allowed_are_rejected_and_the_rest_is_sent(
    memory: Bench, send_file: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_COUNTRIES", "GB")
    Path("people.csv").write_text(f"to,text\n{NUMBER},{TEXT}\n{US},{TEXT}\n{NUMBER},{'a' * 161}\n")
    ended = send_file("people.csv", "--provider", "textgoto", "--max-segments", "1")
    assert ended.code == 1
    assert "1 new" in ended.out
    assert "line 3: to: is a number of US, and DISPATCHER_COUNTRIES allows GB" in ended.out
    assert "line 4: text: has 2 segments" in ended.out
