"""Asking providers what became of jobs, with doubles for all that is outside and a Redis in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from dispatcher.errors import StoreUnavailable
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Work
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.states import State
from tests.unit.support import NUMBER, TEXT, Clock
from tests.unit.test_execute import Road, failure
from workers.inquiries import Inquiries
from workers.limits import Later, Permit, Reason
from workers.providers.base import Argument, Capabilities, Group, News, Operation, Request, Response


class Curious(Road):
    """A worker whose provider can be asked what became of jobs, several in a request."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.adapter.capabilities = Capabilities(recipients=2, receipts="poll")  # type: ignore[misc]  # of this one
        self.adapter.operations = {  # type: ignore[misc]  # of this one
            "send": Operation(about="Send.", evidence="the log"),
            "number.buy": Operation(about="Buy.", arguments={"number": Argument(about="which")}),
        }
        self.adapter.inquire = self.inquire  # type: ignore[method-assign]
        self.adapter.news = self.read  # type: ignore[method-assign]
        #: What the provider knows, by job id.
        self.news: dict[str, News] | Failure = {}
        self.breaks: Callable[[], Any] = dict
        self.asked: list[Work] = []

    def inquire(self, jobs: Sequence[Work]) -> tuple[Group, ...]:
        self.asked += jobs
        body = b"about " + b" ".join(job.id.encode() for job in jobs)
        return (Group(request=Request(method="GET", url="https://plain.invalid/", body=body), jobs=tuple(jobs)),)

    def read(self, response: Response, group: Group) -> dict[str, News] | Failure:
        self.breaks()
        return self.news

    def inquiries(self) -> Inquiries:
        own = self.execution()
        return Inquiries(
            self.bench.settings,
            {"plain": self.adapter},
            self.store,
            self.gate,
            self.wire,
            turns=own.turns,
            suspensions=own.suspensions,
        )

    def look(self) -> int:
        return asyncio.run(self.inquiries().look())


@pytest.fixture
def road(clock: Clock) -> Curious:
    return Curious(clock)


def sent(road: Curious, *ids: str, lost: bool = False) -> None:
    for id_ in ids:
        if lost:
            road.adapter.outcomes[id_] = failure("ambiguous")
        road.enqueue(id_)
    road.run(*ids)
    road.wire.sent.clear()


DELIVERED = News(state=State.DELIVERED, evidence="DELIVRD")


def test_what_was_sent_is_asked_for_together_and_its_receipt_written(road: Curious) -> None:
    sent(road, "0001", "0002")
    road.news = {"0001": DELIVERED}
    road.clock.advance(29)
    assert road.look() == 0, "the phone has some seconds"
    road.clock.advance(1)
    assert road.look() == 2
    assert road.wire.sent == ["about 0001 0002"]
    assert (road.bench.state("0001"), road.bench.state("0002")) == ("delivered", "sent")


def test_a_job_is_shown_with_its_state_age_and_the_providers_id(road: Curious) -> None:
    sent(road, "0001", lost=True)
    road.clock.advance(12)
    road.look()
    (job,) = road.asked
    assert (job.state, job.age, job.ref, job.doubtful) == (State.UNKNOWN, 12.0, "", True)
    assert (job.to, job.text) == (NUMBER, TEXT)


@pytest.mark.parametrize(
    ("news", "state", "failed"),
    [
        pytest.param(DELIVERED, "delivered", None, id="it is on the phone"),
        pytest.param(News(state=State.SENT, ref="7", evidence="our reference"), "sent", None, id="it was taken"),
        pytest.param(
            News(state=State.FAILED, failure=failure("not_sent"), evidence="nothing in the log: strong"),
            "failed", FailureKind.NOT_SENT, id="it was not",
        ),
        pytest.param(News(evidence="a text of that day: weak"), "unknown", None, id="nobody can say"),
    ],
)  # fmt: skip
def test_a_lost_answer_is_cleared_up_and_the_history_says_by_what(
    road: Curious, news: News, state: str, failed: FailureKind | None
) -> None:
    sent(road, "0001", lost=True)
    road.clock.advance(10)
    road.news = {"0001": news}
    road.look()
    assert road.bench.state("0001") == state
    assert road.bench.story("0001")[-1] == f"{state}: {news.evidence}"
    assert road.bench.raw("0001").get("m", "") == news.ref
    if state != "unknown":
        assert (road.bench.failure("0001") or {}).get("kind") == failed, (
            "of what went well after all no failure is told"
        )


def test_an_operation_that_was_done_gets_its_result(road: Curious) -> None:
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001", OperationRequest(arguments={"number": NUMBER}), "number.buy")
    assert road.run("0001") == "unknown"
    road.clock.advance(10)
    road.news = {"0001": News(state=State.COMPLETED, result={"number": NUMBER}, evidence="number.list has it: strong")}
    road.look()
    stored = road.bench.redis.hget("d:j:0001", "r")
    assert msgspec.json.decode(road.bench.settings.sealer().open(stored, "0001")) == {"number": NUMBER}
    assert NUMBER.encode() not in stored


def test_a_look_waits_for_its_permit_like_any_request(road: Curious) -> None:
    """What is not granted is asked for the next time."""
    sent(road, "0001")
    road.clock.advance(30)
    road.gate.grants = [Later(5)]
    assert road.look() == 1
    assert road.wire.sent == []
    road.clock.advance(30)
    road.look()
    assert road.wire.sent == ["about 0001"]


def test_a_look_waits_itself_for_a_permit_that_is_near(road: Curious) -> None:
    """Many are asked about at once: to ask for the rest the next time would be to ask twice as late, and so on."""
    sent(road, "0001")
    road.clock.advance(30)
    road.gate.grants = [Later(0.001), Later(0.001), Permit(0, "p")]
    road.look()
    assert road.wire.sent == ["about 0001"]
    assert [(permit.token, len(outcomes)) for permit, outcomes in road.gate.learnt][-1] == ("p", 1)


@pytest.mark.parametrize("reason", ["breaker", "suspended"])
def test_a_look_waits_for_no_provider_in_trouble(road: Curious, reason: Reason) -> None:
    sent(road, "0001")
    road.clock.advance(30)
    road.gate.grants = [Later(0.001, reason)]
    road.look()
    assert road.wire.sent == []


def test_one_refusal_stops_the_asking_too(road: Curious) -> None:
    """A wrong password is not tried again and again by whoever asks what became of jobs."""
    sent(road, "0001")
    road.news = failure("unauthorized")
    road.clock.advance(30)
    road.look()
    assert road.bench.redis.exists("d:s:plain")
    road.clock.advance(60)
    road.look()
    assert road.wire.sent == ["about 0001"]


def test_that_it_may_not_ask_stops_no_sending(road: Curious) -> None:
    """A token without the right to read reports is good for texts all the same."""
    sent(road, "0001")
    road.news = Failure(kind=FailureKind.UNAUTHORIZED, permission=True)
    road.clock.advance(30)
    road.look()
    assert not road.bench.redis.exists("d:s:plain")
    road.enqueue("0002")
    assert road.run("0002") == "sent"


def test_a_look_takes_its_turn_where_the_provider_takes_few_at_once(road: Curious) -> None:
    sent(road, "0001", "0002")
    road.adapter.at_once = 1  # type: ignore[misc]  # of this instance only
    road.adapter.inquire = lambda jobs: tuple(  # type: ignore[method-assign]
        Group(request=Request(method="GET", url="https://plain.invalid/", body=b"about"), jobs=(job,)) for job in jobs
    )
    road.clock.advance(30)
    road.wire.most = 0
    assert road.look() == 2
    assert road.wire.most == 1


@pytest.mark.parametrize("what", ["the wire", "the adapter's question", "the adapter's reading"])
def test_a_look_that_fails_is_made_again(road: Curious, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(road, "0001")
    road.news = {"0001": DELIVERED}
    road.clock.advance(30)
    with monkeypatch.context() as patch:
        if what == "the wire":
            road.wire.answers = [Failure(kind=FailureKind.AMBIGUOUS)]
        elif what == "the adapter's question":
            patch.setattr(road.adapter, "inquire", lambda jobs: 1 / 0)
        else:
            patch.setattr(road, "breaks", lambda: 1 / 0)
        assert road.look() == 1
        assert road.bench.state("0001") == "sent"
    road.clock.advance(30)
    road.look()
    assert road.bench.state("0001") == "delivered"


def test_what_is_sealed_for_others_is_left_to_them(road: Curious) -> None:
    sent(road, "0001")
    road.bench.redis.hset("d:j:0001", "x", b"\x01 sealed with another key")
    road.clock.advance(30)
    assert road.look() == 1
    assert road.asked == []


def test_it_goes_on_when_redis_comes_back(road: Curious, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async def look(account: str) -> int:
        looks.append(1)
        if len(looks) == 1:
            raise StoreUnavailable("Redis is away")
        if len(looks) == 2:
            raise KeyError("canary")
        raise asyncio.CancelledError

    async def sleep(seconds: float) -> None:
        """Do not."""

    one = road.inquiries()
    monkeypatch.setattr(one, "_look_at", look)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(one.run())
    assert len(looks) == 3
