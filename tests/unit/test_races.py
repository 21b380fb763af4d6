"""What may overtake what: receipts, answers, looks and opt-outs about the same job, in every order they can come in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher import Dispatcher
from dispatcher.calls import Calls, Word
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import Category, Operation, Terms, Verify
from dispatcher.optouts import OptOuts
from dispatcher.outcomes import Accepted
from dispatcher.states import State
from tests.unit.support import NUMBER, Bench, Clock, settings
from tests.unit.test_execute import OK, Road, failure
from tests.unit.test_inquiries import Curious, sent
from workers.adapters import receipt_key
from workers.inquiries import Inquiries
from workers.providers.base import Capabilities, Group, News, Request, Response

TAKEN = News(state=State.SENT, ref="7", evidence="our reference: AWAITING-DLR")


def told(bench: Bench, state: State | None, **more: Any) -> str:
    """What became of a provider's word."""
    word: dict[str, Any] = {"provider": "textgoto", "detail": "told"} | more
    (answer,) = bench.run(bench.calls.receipts([Word(state=state, **word)]))
    return answer


@pytest.fixture
def lifted(clock: Clock) -> Curious:
    """A message whose answer was lost, and that was found to be sent."""
    road = Curious(clock)
    sent(road, "0001", lost=True)
    road.clock.advance(10)
    road.news = {"0001": TAKEN}
    road.look()
    assert road.bench.state("0001") == "sent"
    return road


# -- what was unknown and turned out to be sent ------------------------------------------------------------------------


def test_it_is_asked_for_its_receipt_like_any_other(lifted: Curious) -> None:
    lifted.news = {"0001": News(state=State.DELIVERED, ref="7", evidence="DELIVRD")}
    lifted.clock.advance(3600)
    lifted.look()
    assert (lifted.bench.state("0001"), lifted.bench.raw("0001")["y"]) == ("delivered", "received")


def test_it_is_found_by_the_reference_that_was_learnt(lifted: Curious) -> None:
    key = receipt_key(lifted.bench.settings, lifted.adapter, "7", NUMBER)
    assert lifted.bench.raw("0001")["y"] == "expected"
    assert told(lifted.bench, State.DELIVERED, provider="plain", key=key) == "moved"


# -- a receipt that is quicker than the answer -------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "receipt"), [(State.DELIVERED, "received"), (State.SENT, "expected")])
def test_the_answer_after_it_still_tells_price_reference_and_try(clock: Clock, state: State, receipt: str) -> None:
    road = Road(clock)
    road.enqueue("0001")
    road.adapter.outcomes = {"0001": Accepted(ref="7", price="0.0055 USD")}

    def early() -> Response:
        assert told(road.bench, state, provider="plain", own="0001") == "moved"
        return OK

    road.wire.answers = [early]
    assert road.run("0001") == state
    raw = road.bench.raw("0001")
    assert (raw["m"], raw["c"], raw["y"]) == ("7", "0.0055 USD", receipt)
    assert raw["t"].endswith("plain accepted 7")
    assert (road.bench.members("d:f:plain") == {"0001"}) == (state == State.SENT)


# -- calls that are made again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["sending", "unknown"])
def test_a_repeated_create_after_a_stop_leaves_alone_what_went_on(bench: Bench, where: str) -> None:
    bench.create("0001", number="n", texts=True)
    token = bench.claim("0001")
    if where == "unknown":
        bench.advance("0001", token, "unknown")
    bench.redis.hset("d:no", "n", "1 text")
    bench.create("0001", number="n", texts=True)
    assert bench.state("0001") == where


@pytest.mark.parametrize("where", ["queued", "sending"])
def test_what_was_absent_before_a_try_does_not_end_that_try(bench: Bench, where: str) -> None:
    """Its worker came back from a broken network meanwhile, and said that it surely had not sent it."""
    token = bench.started("0001")
    bench.clock.advance(61)
    bench.sweep()
    assert bench.state("0001") == "unknown"
    assert bench.advance("0001", token, "queued", wait="retry") == "queued"
    second = ""
    if where == "sending":
        bench.clock.advance(1)
        bench.due()
        second = bench.claim("0001")
    told(bench, State.FAILED, own="0001", detail="absent: strong")
    assert bench.state("0001") == where
    assert not second or bench.advance("0001", second, "sent") == "sent"


def test_an_attempt_is_not_judged_by_what_was_read_before_an_earlier_one(clock: Clock) -> None:
    road = Curious(clock)
    seen = iter(["available", ""])
    before = Request(method="GET", url="https://plain.invalid/", body=b"before")
    road.adapter.before = lambda job: before  # type: ignore[method-assign]  # of this instance only
    road.adapter.remember = lambda response, job: next(seen)  # type: ignore[method-assign]  # the same
    road.enqueue("0001", Operation(arguments={"number": NUMBER}), "number.buy")
    road.adapter.outcomes = {"0001": failure("throttled")}
    word = road.run("0001")
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    assert road.again("0001", word) == "unknown"
    road.clock.advance(10)
    road.look()
    assert [job.baseline for job in road.asked] == [""]


# -- who has no keys, or others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "another"])
def test_a_worker_without_the_hash_key_of_the_jobs_does_not_enter(bench: Bench, key: str) -> None:
    """It would find nobody who wants no texts, and send codes that are never right."""
    bench.create("0001")
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY"):
        bench.run(Calls(settings(hash_key=key)).enter())


def test_no_code_is_sent_that_can_never_be_right(clock: Clock) -> None:
    road = Road(clock, hash_key="")
    road.adapter.capabilities = Capabilities(recipients=2)  # type: ignore[misc]  # of this instance only
    verify = Verify(to=NUMBER, template="Your code is [CODE]")
    road.enqueue("0001", verify, terms=Terms(category=Category.OTP, code_ttl=300))
    assert road.run("0001") == "queued:worker"
    assert road.wire.sent == []


@pytest.mark.parametrize("ask", ["opt_out", "opt_in", "opted_out"])
def test_nobody_is_put_on_the_list_under_another_hash_key(bench: Bench, ask: str) -> None:
    bench.create("0001")
    stranger = Dispatcher(settings(hash_key="another"))
    stranger._store.redis = bench.redis
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY"):
        getattr(stranger, ask)(NUMBER)


def test_a_card_goes_though_a_worker_of_the_release_before_ended_its_purchase(bench: Bench) -> None:
    """It knows nothing of cards, and leaves them where they are."""
    bench.started("0001", card=b"sealed card")
    bench.redis.hset("d:j:0001", "s", "unknown")
    bench.clock.advance(1)
    bench.sweep()
    assert "xc" not in bench.raw("0001")


# -- what comes in large, often, or from a later release ---------------------------------------------------------------


def test_a_long_text_is_no_word_and_not_searched_for_one() -> None:
    """What was around a word took the square of its length to take off: minutes, on the worker's event loop."""
    assert OptOuts(settings()).verdict("a" + " " * 1_000_000 + "a") == ""


def test_evidence_of_several_days_is_noted_once(bench: Bench) -> None:
    bench.advance("0001", bench.started("0001"), "unknown")
    before = len(bench.story("0001"))
    for _ in range(5):
        for day in ("11-21", "11-22"):
            told(bench, None, own="0001", detail=f"report by number and day ({day}): 1 there: weak")
    assert len(bench.story("0001")) == before + 2


def test_news_shows_nothing_private() -> None:
    assert NUMBER not in repr(News(state=State.COMPLETED, result={"number": NUMBER}))


def test_a_suspension_of_a_later_release_fails_no_job(clock: Clock) -> None:
    road = Road(clock)
    road.enqueue("0001")
    record = '{"scope":"funds","since":"1","next":"1","kind":"of_a_later_release"}'
    road.bench.redis.hset("d:s:plain", "funds", record)
    assert road.run("0001") == "queued:suspended"


def test_looks_leave_room_for_what_is_to_be_sent(clock: Clock) -> None:
    road = Curious(clock)
    sent(road, *(f"{number:04}" for number in range(40)))
    road.adapter.at_once = 2  # type: ignore[misc]  # of this instance only
    poll = Request(method="GET", url="https://plain.invalid/", body=b"poll")
    road.adapter.inquire = lambda jobs: tuple(  # type: ignore[method-assign]  # the same
        Group(request=poll, jobs=(job,)) for job in jobs
    )
    road.clock.advance(30)
    road.enqueue("9000")

    async def both() -> None:
        own = road.execution()
        looking = asyncio.create_task(inquiries(road, own).look())
        while "poll" not in road.wire.sent:  # noqa: ASYNC110 - the wire notes what it sends, and wakes nobody
            await asyncio.sleep(0)
        await own.execute(["9000"], "plain")
        await looking

    asyncio.run(both())
    assert road.wire.sent.count("poll") == 40
    assert road.wire.sent.index("9000") < 10


def inquiries(road: Curious, own: Any) -> Inquiries:
    return Inquiries(
        road.bench.settings, {"plain": road.adapter}, road.store, road.gate, road.wire,
        turns=own.turns, suspensions=own.suspensions,
    )  # fmt: skip


def test_an_account_that_hangs_holds_up_no_other(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    road = Curious(clock)
    road.bench.settings = settings(sweep_every=0.001)
    own = road.execution()
    both = Inquiries(
        road.bench.settings, {"plain": road.adapter, "slow": road.adapter}, road.store, road.gate, road.wire,
        turns=own.turns, suspensions=own.suspensions,
    )  # fmt: skip
    looked: list[str] = []
    enough = asyncio.Event()

    async def look_at(account: str) -> int:
        looked.append(account)
        if account == "slow":
            await asyncio.Event().wait()
        if looked.count("plain") > 2:
            enough.set()
        return 0

    monkeypatch.setattr(both, "_look_at", look_at)

    async def main(run: Callable[[], Any]) -> None:
        task = asyncio.create_task(run())
        await asyncio.wait_for(enough.wait(), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main(both.run))
    assert looked.count("slow") == 1
