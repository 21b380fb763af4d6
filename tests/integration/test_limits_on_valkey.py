"""The limiter on a real server, whose clock goes by itself: what is promised over all workers, in any time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dispatcher.calls import Calls
from dispatcher.limits import Ask, Ended, Granted, Limits, parse
from dispatcher.outcomes import Accepted, Failure, FailureKind
from dispatcher.settings import Settings, load
from dispatcher.store import AsyncJobStore, JobStore
from tests.support import Server
from tests.unit.test_limits import Limited, group
from workers.limits import Later, Permit, RedisLimiter

SECOND = 1_000_000


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return load(redis_url=redis_url, sandbox=True)


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    one = JobStore(settings.redis, settings.redis_shown)
    yield one
    one.close()


def limits(told: str) -> Limits:
    return parse(told, "LIMITS", ["send"])


def fits(moments: Sequence[tuple[int, int]], limit: Any) -> bool:
    """Say whether what was drawn at these moments is no more than burst and rate let through in any time."""
    drawn = sorted(moments)
    for first, (began, _) in enumerate(drawn):
        used = drawn[first][1]
        for moment, amount in drawn[first + 1 :]:
            used += amount
            if used > limit.at_once + limit.rate * (moment - began + 1) / SECOND:
                return False
    return True


arrivals = st.lists(
    st.tuples(st.sampled_from([0, 0, 0, 0.001, 0.004]), st.booleans(), st.integers(0, 1), st.integers(0, 9)),
    min_size=10,
    max_size=50,
)


@given(arrivals=arrivals)
@examples(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_any_time_no_more_than_burst_and_rate_lets_through(
    store: JobStore, settings: Settings, arrivals: list[tuple[float, bool, int, int]]
) -> None:
    store.redis.flushdb()
    calls, told = Calls(settings), limits("get=200/s burst 8,send=400/s burst 5")
    log: dict[str, list[tuple[int, int]]] = {"get": [], "send": []}
    for number, (wait, high, get, send) in enumerate(arrivals):
        time.sleep(wait)
        draws = {"all": 1, "get": get, "send": send}
        one = Ask(id=f"r{number}", high=high, draws={name: amount for name, amount in draws.items() if amount})
        (answer,) = store.run(calls.permit("acme", told, [one]))
        if isinstance(answer, Granted):
            for name, moments in log.items():
                moments.append((answer.moment, draws[name]))
    assert all(fits([one for one in log[name] if one[1]], told.buckets[name]) for name in log)


def moment_of(permit: Permit) -> int:
    """Return the moment of a permit, in microseconds on Redis' clock; only the limiter knows its token otherwise."""
    token: Any = permit.token
    return int(token.moment)


def test_workers_together_use_what_one_may_and_a_code_passes_all(settings: Settings) -> None:
    """Four workers ask for 100 a second as fast as they can; each gets its share, and who is high waits for nobody."""
    # A busy machine loses what it does not fetch within a fifth of a second.
    told = "post=100/s burst 20"

    async def scene() -> tuple[list[tuple[int, int]], list[float]]:
        stores = [AsyncJobStore(settings.redis, settings.redis_shown) for _ in range(4)]
        workers = [RedisLimiter(settings, {"plain": Limited(told)}, store) for store in stores]
        began, moments, codes = time.monotonic(), list[tuple[int, int]](), list[float]()

        async def campaign(one: RedisLimiter) -> None:
            while time.monotonic() < began + 2:
                answer = await one.acquire("plain", group())
                if isinstance(answer, Permit):
                    moments.append((moment_of(answer), 1))
                else:
                    await asyncio.sleep(min(answer.delay, 0.02))

        async def code(one: RedisLimiter) -> None:
            await asyncio.sleep(0.7)
            answer = await one.acquire("plain", group(high=True))
            assert isinstance(answer, Permit)
            moments.append((moment_of(answer), 1))
            codes.append(answer.wait)

        await asyncio.gather(*(campaign(one) for one in workers for _ in range(3)), *map(code, workers))
        for one, store in zip(workers, stores, strict=True):
            await one.close()
            await store.close()
        return moments, codes

    moments, codes = asyncio.run(scene())
    (limit,) = limits(told).buckets.values()
    assert fits(moments, limit)
    span = (max(moments)[0] - min(moments)[0]) / SECOND
    assert len(moments) - limit.at_once >= 0.8 * limit.rate * span, "without the burst, which was there at once"
    assert max(codes) <= 0.6


def test_a_script_that_the_server_forgot_is_sent_again_and_its_state_is_there(
    store: JobStore, settings: Settings
) -> None:
    calls, told = Calls(settings), limits("get=1/h")
    asks = [Ask(id=name, draws={"all": 1, "get": 1}) for name in "ab"]
    assert isinstance(store.run(calls.permit("acme", told, asks[:1]))[0], Granted)
    store.redis.script_flush()
    assert not isinstance(store.run(calls.permit("acme", told, asks[1:]))[0], Granted)
    store.redis.script_flush()
    assert store.run(calls.learn("acme", told, [Ended(id="a", moment=0, letters="o", seconds=0.1)])) == 1


async def refused(one: RedisLimiter) -> Later:
    """Ask until it is refused: what others learned is told by and by."""
    async with asyncio.timeout(60):
        while True:
            answer = await one.acquire("plain", group())
            if isinstance(answer, Later):
                return answer


def test_a_penalty_and_a_breaker_stop_every_worker(settings: Settings) -> None:
    async def scene() -> list[Any]:
        store = AsyncJobStore(settings.redis, settings.redis_shown)
        workers = [RedisLimiter(settings, {"plain": Limited("")}, store) for _ in range(2)]
        found: list[Any] = []
        for kind, count in ((FailureKind.THROTTLED, 1), (FailureKind.NOT_SENT, 20)):
            await store.redis.flushdb()
            for _ in range(count):
                permit = await workers[0].acquire("plain", group())
                assert isinstance(permit, Permit)
                workers[0].learn("plain", permit, {"0001": Failure(kind=kind)}, 0.1)
            found.append(await refused(workers[1]))
        for one in workers:
            await one.close()
        await store.close()
        return found

    throttled, broken = asyncio.run(scene())
    assert (throttled.reason, broken.reason) == ("limit", "breaker")
    assert throttled.delay > 3
    assert broken.delay > 3


def test_those_who_ask_together_travel_together(own_valkey: Server) -> None:
    """On a server of its own, where nobody else makes calls."""
    settings = load(redis_url=own_valkey.url, sandbox=True)

    async def scene() -> int:
        store = AsyncJobStore(settings.redis, settings.redis_shown)
        one = RedisLimiter(settings, {"plain": Limited("post=900000/s")}, store)
        before = (await store.redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        grants = await asyncio.gather(*(one.acquire("plain", group()) for _ in range(2000)))
        for grant in grants:
            assert isinstance(grant, Permit)
            one.learn("plain", grant, {"0001": Accepted()}, 0.1)
        await one.close()
        after = (await store.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await store.close()
        return int(after - before)

    assert asyncio.run(scene()) <= 60
