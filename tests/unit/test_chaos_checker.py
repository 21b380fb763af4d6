"""What judges a chaotic run: each rule, broken in each way, is seen; a clean run is clean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from dispatcher import Job, State
from dispatcher.jobs import Entry, Waiting
from tests.chaos import private
from tests.chaos.checker import Broken, Count, Rule, Run, judge, lost, repeated
from tests.support import phone, phones
from tests.unit.test_jobs import job
from workers.sandbox.limits import Counted
from workers.sandbox.world import Row

NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
NUMBER, OTHER = phones(2)


def history(*steps: str) -> list[Entry]:
    """Read "state detail" lines."""
    lines = [step.partition(" ") for step in steps]
    return [Entry(State(state), NOW, "textgoto", detail) for state, _, detail in lines]


def text(*steps: str, id_: str = "a", to: str = NUMBER, words: str = "Hello", **about: Any) -> Job:
    """A text that went through these states."""
    lines = history("queued created", *steps)
    usual = {"id": id_, "to": to, "text": words, "state": lines[-1].state, "history": lines, "seq": len(lines)}
    return job(**{**usual, **about})


def row(number: str = NUMBER, words: str = "Hello", *, kind: str = "send", accepted: bool = True) -> Row:
    return Row(
        provider="textgoto", action="SEND", kind=kind, msisdn=number[1:], text=words, accepted=accepted, result="0"
    )


def run(*jobs: Job, rows: tuple[Row, ...] = (), **about: Any) -> Run:
    usual = {"accepted": {one.id: one.to for one in jobs}, "now": NOW, "find": private.found}
    return Run(rows=rows, jobs={one.id: one for one in jobs}, **{**usual, **about})


def window(most: int | None = 10, *, sliding: int = 10, fixed: int = 10, refused: int = 0) -> Counted:
    """What a provider counted of its sends in 20 s."""
    return Counted(
        provider="textgoto", account="sandbox", counts="send", most=most, seconds=20, taken=50, refused=refused,
        sliding=sliding, fixed=fixed,
    )  # fmt: skip


SENT = ("sending attempt 1", "sent accepted")
ASKED = "queued ambiguous; it may have been taken, and is sent again as the caller asked"
LOST = ("sending attempt 1", "unknown its worker died")


def waiting(reason: str, seconds: float) -> Waiting:
    return Waiting(reason, NOW + timedelta(seconds=seconds))


CLEAN = [
    pytest.param(run(counted=[window(), window(None, sliding=99)]), id="a limit that is reached, and a mere count"),
    pytest.param(run(), id="nothing happened"),
    pytest.param(run(text(*SENT), rows=(row(),)), id="sent, and it has it"),
    pytest.param(run(text(*LOST), rows=(row(),)), id="unknown, and it has it"),
    pytest.param(run(text(*LOST)), id="unknown, and it has it not"),
    pytest.param(run(text(*SENT, "delivered by receipt"), rows=(row(),)), id="delivered"),
    pytest.param(run(text("failed refused"), rows=(row(accepted=False),)), id="refused"),
    pytest.param(run(text("sending 1", "queued not_sent", *SENT), rows=(row(accepted=False), row())), id="tried again"),
    pytest.param(run(text("queued its message was lost and is published again", *SENT), rows=(row(),)), id="a note"),
    pytest.param(run(text(state=State.QUEUED, waiting=waiting("time", 60))), id="scheduled"),
    pytest.param(
        run(text("sending 1", ASKED, *SENT, possible_duplicate=True), rows=(row(), row())), id="the caller's word"
    ),
    pytest.param(
        run(text(*LOST, "queued again, by an operator", *SENT, possible_duplicate=True), rows=(row(), row())),
        id="an operator's word",
    ),
    pytest.param(
        run(text("failed no"), text(*SENT, id_="b", redrive_of="a"), rows=(row(),)), id="redriven: a job of its own"
    ),
    pytest.param(
        run(text(*LOST), text(*SENT, id_="b", redrive_of="a"), rows=(row(), row())), id="redriven though it was taken"
    ),
    pytest.param(run(text(*SENT), text(*SENT, id_="b", words="Bye"), rows=(row(), row(words="Bye"))), id="two texts"),
    pytest.param(
        run(text("sending x", "completed x", operation="lookup", words=""), rows=2 * (row(kind="lookup", words=""),)),
        id="a number that was looked up twice",
    ),
    pytest.param(
        run(text(*SENT, operation="verify", words="Code [CODE]"), rows=(row(kind="verify", words="Code 314159"),)),
        id="a code",
    ),
    pytest.param(run(text(*SENT), rows=(row(),), accepted={}), id="accepted, though nobody was told"),
    pytest.param(run(accepted={"a": NUMBER}, excused=frozenset("a")), id="excused"),
    pytest.param(run(accepted={"a": NUMBER}, excused=frozenset("a"), rows=(row(),)), id="excused and taken"),
    pytest.param(run(text(*SENT, seq=30), rows=(row(),)), id="a long history: its beginning and its end are kept"),
    pytest.param(run(batches={"b": Count(3, {"sent": 2, "queued": 1})}), id="a batch"),
    pytest.param(run(seen={"the log": "job a sent, +1*******46"}), id="masked"),
]  # fmt: skip


@pytest.mark.parametrize("clean", CLEAN)
def test_a_clean_run_breaks_nothing(clean: Run) -> None:
    assert judge(clean) == []
    assert lost(clean) == []
    assert repeated(clean) == []


BROKEN = [
    pytest.param(run(text(*SENT), rows=(row(), row())), [(Rule.ONCE, "a")], id="taken twice"),
    pytest.param(run(text(*LOST), rows=(row(), row())), [(Rule.ONCE, "a")], id="unknown, and taken twice"),
    pytest.param(
        run(text("sending 1", "queued not_sent; attempt 2 in 0.1 s", *SENT), rows=(row(), row())),
        [(Rule.ONCE, "a")],
        id="tried again though it was taken",
    ),
    pytest.param(
        run(text(*LOST, "queued once more", *SENT, possible_duplicate=True), rows=(row(), row())),
        [(Rule.ONCE, "a")],
        id="sent again without a word of whose idea that was",
    ),
    pytest.param(
        run(text("sending 1", ASKED, *SENT, possible_duplicate=True), rows=(row(), row(), row())),
        [(Rule.ONCE, "a")],
        id="one word, and two more",
    ),
    pytest.param(
        run(text("sending 1", ASKED, *SENT), rows=(row(), row())),
        [(Rule.ONCE, "a")],
        id="the caller's word, and its readers are not told that a person may have it twice",
    ),
    pytest.param(
        run(accepted={"a": NUMBER}, excused=frozenset("a"), rows=(row(), row())),
        [(Rule.ONCE, "a send of nobody's")],
        id="excused, and taken twice",
    ),
    pytest.param(run(accepted={"a": NUMBER}), [(Rule.SETTLED, "a")], id="vanished"),
    pytest.param(run(text()), [(Rule.SETTLED, "a")], id="still queued"),
    pytest.param(run(text(), accepted={}), [(Rule.SETTLED, "a")], id="still queued, though nobody was told"),
    pytest.param(run(text("sending 1")), [(Rule.SETTLED, "a")], id="still sending"),
    pytest.param(run(text(waiting=waiting("time", -1))), [(Rule.SETTLED, "a")], id="scheduled, and its time is over"),
    pytest.param(run(text(waiting=waiting("retry", 60))), [(Rule.SETTLED, "a")], id="about to be tried again"),
    pytest.param(run(text(waiting=Waiting("time"))), [(Rule.SETTLED, "a")], id="scheduled for no time"),
    pytest.param(run(text(*SENT)), [(Rule.SENT, "a")], id="sent, and the ledger has it not"),
    pytest.param(run(text(*SENT), rows=(row(accepted=False),)), [(Rule.SENT, "a")], id="sent, and it was refused"),
    pytest.param(run(text(*SENT, "delivered x")), [(Rule.SENT, "a")], id="delivered, and the ledger has it not"),
    pytest.param(
        run(text(*SENT, words="Bye"), rows=(row(),)),
        [(Rule.SENT, "a"), (Rule.OWNED_UP, "a send of nobody's")],
        id="another text was sent",
    ),
    pytest.param(
        run(text(*SENT, to=OTHER), rows=(row(),)),
        [(Rule.SENT, "a"), (Rule.OWNED_UP, "a send of nobody's")],
        id="sent to another number",
    ),
    pytest.param(
        run(text(*SENT), text(*SENT, id_="b"), rows=(row(),)), [(Rule.SENT, "a+b")], id="two are sent, it has one"
    ),
    pytest.param(run(text("failed x"), rows=(row(),)), [(Rule.OWNED_UP, "a")], id="failed, and it has it"),
    pytest.param(run(text("expired x"), rows=(row(),)), [(Rule.OWNED_UP, "a")], id="expired, and it has it"),
    pytest.param(run(text("cancelled x"), rows=(row(),)), [(Rule.OWNED_UP, "a")], id="cancelled, and it has it"),
    pytest.param(
        run(text(), rows=(row(),)), [(Rule.SETTLED, "a"), (Rule.OWNED_UP, "a")], id="it has it, and we have it to do"
    ),
    pytest.param(
        run(accepted={"a": NUMBER}, rows=(row(),)),
        [(Rule.SETTLED, "a"), (Rule.OWNED_UP, "a send of nobody's")],
        id="it has it, and the job vanished",
    ),
    pytest.param(
        run(text("sent accepted", "queued x", *SENT), rows=(row(),)), [], id="sent, and another provider is tried"
    ),
    pytest.param(
        run(text(*SENT, "failed x"), rows=(row(),)),
        [(Rule.OWNED_UP, "a"), (Rule.MOVES, "a")],
        id="a move that is none: sent to failed",
    ),
    pytest.param(
        run(text(*SENT, "delivered x", "sent x"), rows=(row(),)), [(Rule.MOVES, "a")], id="a move back"
    ),
    pytest.param(
        run(text("cancelled x", *SENT), rows=(row(),)), [(Rule.MOVES, "a")], id="cancelled, and sent"
    ),
    pytest.param(
        run(text(*SENT, state=State.UNKNOWN), rows=(row(),)), [(Rule.MOVES, "a")], id="not where its history ends"
    ),
    pytest.param(
        run(text(*SENT, history=history(*SENT), seq=2), rows=(row(),)), [(Rule.MOVES, "a")], id="a lost beginning"
    ),
    pytest.param(
        run(batches={"b": Count(3, {"sent": 2})}), [(Rule.SUMS, "b")], id="a batch that counts too few"
    ),
    pytest.param(
        run(batches={"b": Count(3, {"sent": 3, "queued": 1})}), [(Rule.SUMS, "b")], id="a batch that counts too many"
    ),
    *(
        pytest.param(run(counted=[one]), [(Rule.LIMIT, "textgoto")], id=what)
        for what, one in {
            "too many in a window that slides": window(sliding=11),
            "too many in a window by the clock": window(fixed=11),
            "some that the provider refused": window(refused=1),
        }.items()
    ),
    *(
        pytest.param(run(seen={"the log": said}), [(Rule.PRIVATE, "the log")], id=f"{what} in a log")
        for what, said in {
            "a number": f"to {NUMBER}!",
            "a number without its plus": f"to={NUMBER[1:]}&",
            "a number as it is written at home": f"({NUMBER[2:]})",
            "a number that gets a code": private.NUMBER_OF_THE_CODE,
            "a text": f'{{"text": "{private.TEXT.upper()} 1"}}',
            "a text in base64": "Y2FuYTExcnk=",
            "a code": '"012837"',
            "a password": private.PASSWORD,
            "a key": private.KEYS["secret_key"][::-1],
        }.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "rules"), BROKEN)
def test_what_is_broken_is_seen(broken: Run, rules: list[tuple[Rule, str]]) -> None:
    assert [(one.rule, one.where) for one in judge(broken)] == rules


def test_every_rule_is_tried() -> None:
    """A scenario's own promises are judged by itself."""
    tried = {one.rule for case in BROKEN for one in judge(cast("Run", case.values[0]))}
    assert tried == set(Rule) - {Rule.PROMISE}


def test_what_is_lost_and_repeated_is_counted_by_job() -> None:
    stuck, twice = text("sending 1"), text(*SENT, id_="b", to=OTHER)
    seen = run(stuck, twice, rows=(row(OTHER), row(OTHER)), accepted={"a": NUMBER, "b": OTHER, "c": phone(1)})
    assert lost(seen) == ["c", "a"]
    assert repeated(seen) == ["b"]


def test_a_breach_is_told_in_a_line() -> None:
    assert str(Broken(Rule.ONCE, "a", "accepted 2 times")) == "ONCE a: accepted 2 times"
