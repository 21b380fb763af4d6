"""`dispatcher verify --guard-key`, `resend`, `guards`, and `cancel` of a code that was sent."""

from __future__ import annotations

import pytest

from tests.unit import test_cli
from tests.unit.support import NUMBER, OTHER, Bench, leaks
from tests.unit.test_cli import Run, one_paragraph

away = test_cli.away
memory = test_cli.memory
run = test_cli.run


def begun(run: Run, number: str = NUMBER, *options: str) -> str:
    (document,) = run("verify", number, "--json", *options).documents
    return str(document["id"])


def test_another_code_is_sent_under_a_new_id(run: Run, memory: Bench) -> None:
    first = begun(run)
    assert "a code may be asked for in 30 s" in one_paragraph(run("resend", first))
    memory.clock.advance(30)
    (document,) = run("resend", first, "--json").documents
    assert (document["resend_of"], document["to"]) == (first, "+44********23")
    assert run("resend", "gone").code == 1


def test_keys_are_counted(run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_GUARDS", "key=1/1h")
    begun(run, NUMBER, "--guard-key", "ip=203.0.113.7", "--guard-key", "session=s")
    told = one_paragraph(run("verify", OTHER, "--guard-key", "ip=203.0.113.7"))
    assert told.startswith("guard key ip got as many codes as DISPATCHER_GUARDS allows")
    assert not leaks(told, OTHER, "203.0.113.7")
    assert run("verify", OTHER, "--guard-key", "203.0.113.7").code == 2


def test_a_code_that_was_sent_is_taken_back(run: Run, memory: Bench) -> None:
    id_ = begun(run)
    memory.advance(id_, memory.claim(id_), "sent")
    (document,) = run("cancel", id_, "--json").documents
    assert (document["state"], document["verification"]["status"]) == ("sent", "cancelled")


def test_closed_prefixes_are_listed_masked_and_reopened(
    run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPATCHER_GUARDS", "conversion=1/1d")
    assert run("guards") == (0, "no prefix is closed; DISPATCHER_GUARDS is conversion=1/1d\n", "")
    begun(run)
    assert "hardly any was typed" in one_paragraph(run("verify", OTHER))
    (document,) = run("guards", "--json").documents
    shown = run("guards").out
    assert shown.startswith("+44*****00*** (GB) is closed until 2027-01-16 08:00:00 UTC: 0 of 1 codes approved; its id")
    assert document["id"] in shown
    assert not leaks(shown, NUMBER[:-3])
    assert run("guards", "--reveal", "--json").documents[0]["prefix"] == NUMBER[:-3]
    assert run("guards", "reopen", NUMBER[:-3]) == (0, "it gets codes again\n", "")
    assert run("guards", "reopen", document["id"], "--json") == (1, '{"reopened":false}\n', "")
    begun(run, OTHER)


def test_refusals_are_among_the_events(run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_GUARDS", "number=1/1h; conversion=1/1d")
    begun(run)
    run("verify", NUMBER)
    closed, refused = (line.split()[2:] for line in run("events").out.splitlines())
    (document,) = run("guards", "--json").documents
    assert closed == ["prefix.closed", document["id"], "+44*****00***"]
    assert refused == ["verification.refused", "prefix_closed", "+44********23"]
