"""What providers tell of jobs afterwards: receipts early, doubled and out of order, and when somebody asks for them."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.calls import Claim, Word
from dispatcher.states import State
from tests.unit.support import Bench

KEY = "the hash of a reference"
HOUR = 3600


def sent(bench: Bench, id_: str = "0001", *, look: float = 30, **fields: Any) -> None:
    """A job that a provider took, and that a receipt is expected for."""
    token = bench.started(id_, **fields)
    assert bench.advance(id_, token, "sent", receipt=KEY, look=look, fields={"m": "7", "y": "expected"})


def told(bench: Bench, state: str | None, detail: str = "the provider says so", **more: Any) -> str:
    """What became of the word that a provider tells of `KEY`, or of the job that it names."""
    word: dict[str, Any] = {"provider": "textgoto", "key": KEY} | more
    (answer,) = bench.run(bench.calls.receipts([Word(state=State(state) if state else None, detail=detail, **word)]))
    return answer


# -- by reference, by our own id ---------------------------------------------------------------------------------------


def test_a_receipt_is_found_by_the_providers_reference(bench: Bench) -> None:
    sent(bench)
    assert told(bench, "delivered", "DELIVRD") == "moved"
    assert bench.story("0001")[-1] == "delivered: DELIVRD"
    assert bench.raw("0001")["y"] == "received"
    assert bench.events()[-1] == ("job.delivered", "0001")


@pytest.mark.parametrize("where", ["sending", "unknown"])
def test_a_receipt_with_our_own_id_needs_no_answer_to_the_send(bench: Bench, where: str) -> None:
    """Its answer is on the way, or was lost: the receipt says as well that it was taken."""
    token = bench.started("0001")
    if where == "unknown":
        bench.advance("0001", token, "unknown")
    assert told(bench, "delivered", own="0001", key="") == "moved"
    assert bench.state("0001") == "delivered"
    assert bench.advance("0001", token, "sent") == "delivered", "the send's own answer does not lead back"
    assert bench.state("0001") == "delivered"
    assert bench.members("d:l") == set()


def test_an_id_of_ours_at_another_provider_is_somebody_elses(bench: Bench) -> None:
    sent(bench)
    assert told(bench, "delivered", own="0001", key="", provider="mobtexting") == "late"
    assert bench.state("0001") == "sent"


def test_a_receipt_may_come_before_the_answer_it_belongs_to(bench: Bench) -> None:
    token = bench.started("0001")
    assert told(bench, "delivered", "DELIVRD") == "early"
    assert bench.state("0001") == "sending"
    assert bench.advance("0001", token, "sent", receipt=KEY, look=30, fields={"y": "expected"}) == "delivered"
    assert bench.story("0001")[-2:] == ["sent: told", "delivered: DELIVRD"]
    assert not bench.redis.exists(f"d:ye:{KEY}")


def test_an_early_receipt_waits_for_three_days_and_no_longer(bench: Bench) -> None:
    assert told(bench, "delivered") == "early"
    assert bench.ttl(f"d:ye:{KEY}") == 72 * HOUR


def test_of_early_receipts_for_nobody_only_some_are_kept(bench: Bench) -> None:
    for number in range(150):
        told(bench, "delivered", f"word {number}")
    assert bench.redis.llen(f"d:ye:{KEY}") == 100


# -- never backwards, never lost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "end"),
    [
        pytest.param(["delivered", "delivered"], "delivered", id="twice"),
        pytest.param(["delivered", "undelivered"], "delivered", id="what is on the phone stays there"),
        pytest.param(["undelivered", "delivered"], "delivered", id="late good news"),
        pytest.param(["delivered", "sent"], "delivered", id="out of order"),
        pytest.param(["delivered", None], "delivered", id="nothing decisive"),
        pytest.param(["undelivered", "sent"], "undelivered", id="taken, and then not delivered"),
    ],
)
def test_news_never_leads_back(bench: Bench, words: list[str | None], end: str) -> None:
    sent(bench)
    first, second = (told(bench, word) for word in words)
    assert (first, second) == ("moved", "moved" if end != words[0] else "late")
    assert bench.state("0001") == end


@pytest.mark.parametrize("end", ["failed", "cancelled", "expired", "completed"])
def test_a_job_that_ended_otherwise_is_not_brought_back(bench: Bench, end: str) -> None:
    if end in {"failed", "completed"}:
        bench.ended("0001", end)
    else:
        bench.create("0001")
        bench.advance("0001", "=queued", end)
    assert told(bench, "delivered", own="0001") == "late"
    assert bench.state("0001") == end


def test_what_decides_nothing_is_noted_once(bench: Bench) -> None:
    bench.advance("0001", bench.started("0001"), "unknown")
    for _ in range(3):
        assert told(bench, None, "a text of that day: weak", own="0001") == "late"
    assert bench.story("0001")[-1] == "unknown: a text of that day: weak"
    assert len(bench.story("0001")) == 4


def test_an_undelivered_message_says_why(bench: Bench) -> None:
    sent(bench)
    told(bench, "undelivered", fields={"e": '{"kind":"opted_out","code":"DNDNUMB","message":"no"}'})
    assert bench.failure("0001") == {"kind": "opted_out", "code": "DNDNUMB", "message": "no"}
    told(bench, "delivered")
    assert bench.failure("0001") is None, "late good news leaves no failure behind"


def test_what_surely_did_not_happen_fails_though_it_was_in_doubt(bench: Bench) -> None:
    """Evidence outweighs the mark that keeps a job in doubt from ending as if nothing had happened."""
    bench.advance("0001", bench.started("0001"), "unknown", fields={"i": 1})
    assert told(bench, "failed", "number.list has no such number: strong", own="0001") == "moved"
    assert bench.story("0001")[-1] == "failed: number.list has no such number: strong"
    assert "i" not in bench.raw("0001")


def test_an_operation_turns_out_to_be_done(bench: Bench) -> None:
    bench.advance("0001", bench.started("0001"), "unknown")
    assert told(bench, "completed", own="0001", fields={"r": "sealed"}) == "moved"
    assert (bench.state("0001"), bench.raw("0001")["r"]) == ("completed", "sealed")


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "end"),
    [
        pytest.param([("delivered", 1), ("delivered", 2), ("delivered", 3)], "delivered", id="all are delivered"),
        pytest.param([("delivered", 1), ("delivered", 3)], "sent", id="one is still to come"),
        pytest.param([("delivered", 2), ("delivered", 2), ("delivered", 2)], "sent", id="one of them three times"),
        pytest.param([("delivered", 1), ("undelivered", 2)], "undelivered", id="one failed"),
        pytest.param(
            [("undelivered", 2), ("delivered", 1), ("delivered", 3), ("delivered", 2)], "undelivered",
            id="one failed, and the others came afterwards",
        ),
    ],
)  # fmt: skip
def test_a_message_of_three_parts_is_delivered_when_all_are(
    bench: Bench, words: list[tuple[str, int]], end: str
) -> None:
    sent(bench)
    for state, part in words:
        told(bench, state, part=part, parts=3)
    assert bench.state("0001") == end


# -- asking ------------------------------------------------------------------------------------------------------------


def asked(bench: Bench, *, sent: bool = True, unknown: bool = True) -> list[str]:
    return [raw[0].decode() for raw in bench.run(bench.calls.follow("textgoto", sent=sent, unknown=unknown, most=100))]


def test_a_job_is_asked_about_after_as_long_as_it_has_waited(bench: Bench) -> None:
    """Half a minute, a minute, two, ... three hours, until three days have passed."""
    sent(bench)
    begun, looks = bench.clock.ms, []
    while due := bench.redis.zscore("d:f:textgoto", "0001"):
        bench.clock.ms = int(due) - 1
        assert asked(bench) == [], "not before"
        bench.clock.ms += 1
        if asked(bench):
            looks.append((bench.clock.ms - begun) / 60_000)
    assert looks[:5] == [0.5, 1, 2, 4, 8]
    assert {round(after - before) for before, after in zip(looks[-12:-2], looks[-11:-1], strict=True)} == {180}
    assert 69 * 60 < looks[-1] < bench.clock.ms - begun == 72 * 3_600_000
    assert bench.raw("0001")["y"] == "timed_out"
    assert bench.story("0001")[-1] == "sent: no receipt came in time"
    assert bench.members("d:f:textgoto") == set()


def test_what_is_only_pushed_is_not_asked_for_and_given_up_in_time(bench: Bench) -> None:
    sent(bench, look=0)
    assert asked(bench, sent=False) == []
    bench.clock.advance(72 * HOUR - 1)
    assert asked(bench, sent=False) == []
    assert bench.raw("0001")["y"] == "expected"
    bench.clock.advance(1)
    assert asked(bench, sent=False) == []
    assert bench.raw("0001")["y"] == "timed_out"


def test_what_is_known_is_not_asked_about(bench: Bench) -> None:
    sent(bench)
    told(bench, "delivered")
    bench.clock.advance(HOUR)
    assert asked(bench) == []


def test_an_unknown_job_is_asked_about_where_the_provider_can_tell(bench: Bench) -> None:
    for id_ in ("0001", "0002"):
        bench.advance(id_, bench.started(id_), "unknown")
    bench.clock.advance(10)
    assert asked(bench) == ["0001", "0002"]
    bench.clock.advance(10)
    assert asked(bench, unknown=False) == []
    assert bench.members("d:f:textgoto") == set(), "nobody can ever tell"


def test_a_job_whose_worker_died_is_asked_about_too(bench: Bench) -> None:
    bench.started("0001")
    bench.clock.advance(61)
    bench.sweep()
    assert bench.state("0001") == "unknown"
    bench.clock.advance(10)
    assert asked(bench) == ["0001"]


def test_whoever_asks_is_told_all_that_decides(bench: Bench) -> None:
    token = bench.hold(*bench.create("0001").ids)
    bench.run(bench.calls.claim([Claim(token, "0001", "never", fields={"vb": "sealed baseline"})]))
    bench.advance("0001", token, "unknown", fields={"i": 1})
    bench.clock.advance(12)
    ((id_, *_, doubtful, _code, _card, _quiet, state, since, age, ref, baseline),) = bench.run(
        bench.calls.follow("textgoto", sent=True, unknown=True, most=100)
    )
    assert (id_, doubtful, state, int(age), ref, baseline) == (
        b"0001", b"1", b"unknown", 12_000, b"", b"sealed baseline",
    )  # fmt: skip
    assert int(since) == bench.clock.ms - 12_000


def test_notes_do_not_make_a_job_younger(bench: Bench) -> None:
    bench.advance("0001", bench.started("0001"), "unknown")
    bench.clock.advance(40)
    told(bench, None, "weak", own="0001")
    bench.clock.advance(60)
    ((*_, age, _ref, _baseline),) = bench.run(bench.calls.follow("textgoto", sent=True, unknown=True, most=9))
    assert int(age) == 100_000


def test_nobody_is_asked_about_a_job_that_went_on(bench: Bench) -> None:
    sent(bench)
    bench.advance("0001", "=sent", "queued", wait="retry")
    bench.clock.advance(HOUR)
    assert asked(bench) == []


# -- codes of ours -----------------------------------------------------------------------------------------------------


def verification(bench: Bench, ttl: int = 600) -> str:
    token = bench.hold(*bench.create("0001", code_ttl=ttl * 1000).ids)
    bench.run(bench.calls.claim([Claim(token, "0001", "never", fields={"vh": "hash", "vx": "sealed code"})]))
    return token


def test_a_code_of_ours_is_kept_for_the_next_attempt(bench: Bench) -> None:
    token = verification(bench)
    bench.advance("0001", token, "queued", wait="retry")
    bench.run(bench.calls.due("textgoto"))
    (raw,) = bench.take("0001").records
    assert raw[9] == b"sealed code"


@pytest.mark.parametrize("end", ["approved", "too many tries", "failed", "expired"])
def test_a_code_of_ours_is_erased_when_its_verification_ends(bench: Bench, end: str) -> None:
    token = verification(bench)
    if end == "failed":
        bench.advance("0001", token, "failed")
    else:
        bench.advance("0001", token, "sent", code_ttl=600)
        assert "vx" in bench.raw("0001")
    if end == "approved":
        assert bench.check("0001", "hash") == (1, "approved")
    elif end == "too many tries":
        assert bench.check("0001", "another", tries=1) == (0, "max_attempts_reached")
    elif end == "expired":
        bench.clock.advance(599)
        bench.sweep()
        assert "vx" in bench.raw("0001")
        bench.clock.advance(62)
        bench.sweep()
    assert "vx" not in bench.raw("0001")


def test_a_code_that_is_still_to_be_sent_is_kept_though_its_time_has_passed(bench: Bench) -> None:
    token = verification(bench, ttl=30)
    bench.advance("0001", token, "queued", wait="suspended", delay=500)
    bench.clock.advance(400)
    bench.sweep()
    assert "vx" in bench.raw("0001")


# -- cards -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["completed", "unknown", "failed", "expired", "cancelled"])
def test_a_card_is_erased_whatever_becomes_of_the_purchase(bench: Bench, end: str) -> None:
    bench.create("0001", card=b"sealed card", valid_for=10_000)
    assert "xc" in bench.raw("0001")
    if end == "cancelled":
        bench.advance("0001", "=queued", "cancelled")
    elif end == "expired":
        bench.clock.advance(11)
        bench.sweep()
    else:
        assert bench.take("0001", token="t").records[0][10] == b"sealed card"
        bench.advance("0001", bench.claim("0001", token="t"), end)
    assert bench.state("0001") == end
    assert "xc" not in bench.raw("0001")


def test_a_card_is_kept_for_the_next_attempt(bench: Bench) -> None:
    token = bench.started("0001", card=b"sealed card")
    bench.advance("0001", token, "queued", wait="retry")
    assert bench.raw("0001")["xc"] == "sealed card"
