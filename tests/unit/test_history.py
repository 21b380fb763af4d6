"""When Redis' history goes back: what is asserted again, what is held, and by whose word."""

from __future__ import annotations

import pytest

from dispatcher.calls import Advance, Call, Claim
from dispatcher.states import State
from tests.unit.support import Bench, settings
from workers.history import History, Past, Statement, must_hold, read_statement, silent, unaccounted

PAST = Past(claims=100, known=50_000, workers=frozenset({"a", "b"}))

WHOLE = Statement(lost=False, since=10_000, claims=100, mine=0)
#: Twenty claims were lost; it had won some of these, or all.
LOST = Statement(lost=True, since=10_000, claims=120, mine=15)
ALL_MINE = Statement(lost=True, since=10_000, claims=120, mine=20)
THE_REST = Statement(lost=True, since=10_000, claims=118, mine=5)
#: Of one that remembers no further back than this.
SHORT = Statement(lost=True, since=50_001, claims=120, mine=20)


@pytest.mark.parametrize(
    ("told", "absent", "held"),
    [
        pytest.param({"a": WHOLE, "b": WHOLE}, set(), False, id="all are there and nothing was lost"),
        pytest.param({"a": ALL_MINE, "b": WHOLE}, set(), False, id="all are there, and one says what was lost"),
        pytest.param({"a": LOST, "b": THE_REST}, set(), False, id="all are there, and each says its part"),
        pytest.param({"a": LOST, "b": WHOLE}, set(), True, id="claims were lost that are nobody's"),
        pytest.param({"a": WHOLE}, {"b"}, True, id="one is gone, and nobody knows what it did last"),
        pytest.param({"a": ALL_MINE}, {"b"}, True, id="one is gone, and something was lost"),
        pytest.param({}, {"a", "b"}, True, id="nobody is left to say"),
        pytest.param({"a": WHOLE, "b": SHORT}, {"b"}, True, id="one remembers too little"),
        pytest.param(
            {"a": WHOLE, "b": WHOLE, "c": ALL_MINE}, set(), False, id="one that came in the lost part said all"
        ),
    ],
)
def test_what_may_have_been_sent_is_held_unless_all_who_sent_say_what_they_did(
    told: dict[str, Statement], absent: set[str], *, held: bool
) -> None:
    assert silent(PAST, told) == absent
    assert must_hold(PAST, told, fsync=False) is held


def test_claims_that_were_lost_are_counted_against_those_who_made_them() -> None:
    assert unaccounted(PAST, {"a": LOST, "b": WHOLE}) == 5
    assert unaccounted(PAST, {"a": LOST, "b": THE_REST}) == 0
    assert unaccounted(PAST, {}) == 0


def test_where_claims_were_on_the_disk_first_a_restart_that_nobody_saw_is_no_loss() -> None:
    assert must_hold(PAST, {}, fsync=False)
    assert not must_hold(PAST, {}, fsync=True)
    assert must_hold(PAST, {"a": ALL_MINE}, fsync=True), "lost all the same: a backup was restored"


def test_where_no_worker_was_there_nothing_is_held() -> None:
    assert not must_hold(Past(claims=100, known=50_000), {}, fsync=False)


def test_a_statement_is_read_as_it_was_written() -> None:
    for one in (WHOLE, LOST, SHORT):
        assert read_statement(one.line()) == one


# -- claims ------------------------------------------------------------------------------------------------------------


def claim(bench: Bench, token: str, *ids: str) -> tuple[Call[list[str | None]], list[object]]:
    """Claim what was taken; the call and its raw answer."""
    call = bench.calls.claim([Claim(token, one, "once", fields={"vb": "before"}) for one in ids])
    return call, bench.redis.eval(call.script.source, 0, *call.arguments)


def gone_back(bench: Bench, *ids: str) -> None:
    """Let Redis forget that these were claimed: it is as before they were taken."""
    for one in ids:
        bench.redis.delete(f"d:j:{one}", "d:l")
    bench.create(*ids, valid_for=60_000)


def test_each_claim_that_was_won_raises_the_count(bench: Bench) -> None:
    bench.create("0001", "0002", "0003")
    _, (first, *_) = claim(bench, bench.hold("0001"), "0001")
    _, (second, *_) = claim(bench, bench.hold("0002", "0003"), "0002", "0003")
    _, (third, word) = claim(bench, "someone", "0001")
    assert [first, second, third, word] == [1, 3, 3, b"sending"]
    assert bench.run(bench.calls.pulse("worker")) == (3, bench.clock.ms)


def test_a_claim_that_was_lost_is_asserted_and_what_came_of_it_written(bench: Bench) -> None:
    bench.create("0001", valid_for=60_000)
    token = bench.hold("0001")
    call, answer = claim(bench, token, "0001")
    gone_back(bench, "0001")

    assert bench.run(bench.calls.reclaim(call, answer)) == 1
    assert bench.state("0001") == "sending"
    assert bench.story("0001")[-1] == "sending: claimed before, and Redis had lost that"
    assert {name: bench.raw("0001")[name] for name in ("f", "a", "o", "vb")} == {
        "f": token, "a": "1", "o": "once", "vb": "before",
    }  # fmt: skip
    assert bench.members("d:l") == {"0001"}
    assert not bench.members("d:o:textgoto")
    assert bench.advance("0001", token, State.SENT) == "sent"


def test_a_claim_that_is_there_is_not_made_twice(bench: Bench) -> None:
    bench.create("0001", "0002", "0003")
    token = bench.hold("0001", "0002", "0003")
    call, answer = claim(bench, token, "0001", "0002", "0003")
    bench.advance("0001", token, State.SENT)
    bench.advance("0002", token, State.QUEUED, wait="retry", delay=5)
    before = bench.dump()
    assert bench.run(bench.calls.reclaim(call, answer)) == 0
    assert bench.dump() == before


def test_what_another_had_won_is_not_asserted(bench: Bench) -> None:
    bench.create("0001", "0002", valid_for=60_000)
    mine = bench.hold("0001")
    bench.claim("0002")
    call, answer = claim(bench, mine, "0002", "0001", "9999")
    assert answer[1:] == [b"sending", 1, b"gone"]
    gone_back(bench, "0001", "0002")
    assert bench.run(bench.calls.reclaim(call, answer)) == 1
    assert (bench.state("0001"), bench.state("0002")) == ("sending", "queued")


# -- what is held ------------------------------------------------------------------------------------------------------


def test_what_was_out_or_due_is_held_and_what_came_since_is_not(bench: Bench) -> None:
    now = bench.clock.ms
    bench.create("out", batch="b")
    bench.create("code", high=True)
    bench.create("soon", due=now + 5_000)
    bench.create("later", due=now + 600_000)
    bench.ended("done", "sent")
    bench.started("busy")
    bench.clock.advance(10)
    bench.create("new")

    assert bench.run(bench.calls.hold("run", now + 3_000)) == 3
    assert bench.run(bench.calls.hold("run", now + 3_000)) == 0
    states = {one: bench.state(one) for one in ("out", "code", "soon", "later", "done", "busy", "new")}
    assert states == {
        "out": "unknown", "code": "unknown", "soon": "unknown",
        "later": "queued", "done": "sent", "busy": "sending", "new": "queued",
    }  # fmt: skip
    assert bench.story("out")[-1] == "unknown: Redis lost recent history, in which it may have been sent"
    assert bench.counts("b") == {"unknown": 1}
    assert bench.taken("out") == []


def test_once_jobs_are_sent_again_nothing_more_is_held(bench: Bench) -> None:
    bench.create("0001")
    bench.run(bench.calls.settle("run", 0))
    assert bench.run(bench.calls.hold("run", bench.clock.ms)) == 0
    assert bench.state("0001") == "queued"


def test_who_claims_is_known_for_an_hour(bench: Bench) -> None:
    bench.run(bench.calls.pulse("first"))
    bench.clock.advance(3500)
    bench.run(bench.calls.pulse("second"))
    assert bench.members("d:cw") == {"first", "second"}
    bench.clock.advance(200)
    bench.run(bench.calls.pulse("second"))
    assert bench.members("d:cw") == {"second"}


def test_who_settles_a_run_after_another_changes_nothing(bench: Bench) -> None:
    assert bench.run(bench.calls.settle("run 1", 100)) == 1
    assert bench.run(bench.calls.settle("run 1", 300)) == 0
    assert bench.run(bench.calls.settle("run 2", 50)) == 1
    assert bench.run(bench.calls.pulse("worker"))[0] == 100, "claims that somebody remembers are counted on from there"


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded_and_it_is_known_from_when_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.history._MOST", 60)
    moment = iter(range(1000))
    history = History(settings(), clock=lambda: float(next(moment)))
    began = history._since
    call = bench.calls.advance([Advance(id="0001", guard="token", state=State.SENT, detail="told")])
    for _ in range(3):
        history.remember(call, [b"sent"])
    assert history._since == began
    for _ in range(40):
        history.remember(call, [b"sent"])
    assert history._since > began
    assert sum(len(one.call.arguments) for one in history._memory) <= 60


@pytest.mark.parametrize(
    ("guard", "remembered"),
    [
        pytest.param("token", 1, id="an outcome under a claim"),
        pytest.param("=queued", 0, id="a job that was parked, refused or taken back"),
    ],
)
def test_what_happened_without_a_claim_is_not_made_again(bench: Bench, guard: str, remembered: int) -> None:
    """It could be another time of waiting by now."""
    history = History(settings())
    history.remember(bench.calls.advance([Advance(id="1", guard=guard, state=State.QUEUED, detail="t")]), [b"queued"])
    assert len(history._memory) == remembered


@pytest.mark.parametrize(
    ("began", "until"),
    [
        pytest.param(52_000, 52_000, id="started anew at once: what was made since is new"),
        pytest.param(900_000, 60_000, id="started anew much later: no worker was there in between"),
        pytest.param(1_000, 60_000, id="a replica that ran before and took over"),
    ],
)
def test_what_was_made_later_is_not_held(began: int, until: int) -> None:
    assert Past(claims=1, known=50_000, began=began).until == until
