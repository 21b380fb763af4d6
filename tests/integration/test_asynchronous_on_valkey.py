"""A slow Redis holds up nobody on an application's event loop but those who asked it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest
import uvloop

from dispatcher import AsyncDispatcher, Dispatcher
from dispatcher.settings import Settings, load
from tests.chaos.proxy import Proxy
from tests.support import phone

#: Seconds that each word to Redis takes, and from it: a call takes twice that at least.
DELAY: Final = 0.06

#: Seconds between two ticks of a loop that nothing holds up.
TICK: Final = 0.005


class Ticks:
    """What another coroutine of the application gets to do: when it was its turn."""

    def __init__(self) -> None:
        self.at = [time.monotonic()]

    async def during(self, stalled: Awaitable[object]) -> float:
        """Tick until something is done; returns the longest time between two ticks, in parts of the whole."""
        ticking = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        began = time.monotonic()
        await stalled
        took = time.monotonic() - began
        ticking.cancel()
        times = [*self.at, time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times)) / took

    async def _tick(self) -> None:
        while True:
            self.at.append(time.monotonic())
            await asyncio.sleep(TICK)


def at_best(measure: Callable[[], float], enough: float) -> float:
    """Measure until it is less than enough, some times at most: a busy machine may hold up anybody now and then."""
    return next((seen for seen in (measure() for _ in range(20)) if seen < enough), enough)


@pytest.fixture
def slow(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of an application whose Redis is far away."""
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    address, _, database = redis_url.rpartition("/")
    with Proxy(int(address.rpartition(":")[2])) as proxy:
        proxy.delay = DELAY
        yield load(
            redis_url=f"redis://127.0.0.1:{proxy.port}/{database}",
            hash_key="a hash key",
            providers={"textgoto": {"uid": "x"}},
        )


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_slow_redis_does_not_stall_the_loop(slow: Settings, run: Callable[..., float]) -> None:
    """Of the time that a call takes, the others wait for hardly any; called directly it would be all of it."""

    async def awaited() -> float:
        async with AsyncDispatcher(slow) as d:
            return await Ticks().during(d.send(phone(1), "Hello"))

    async def called() -> float:
        with Dispatcher(slow) as d:

            async def send() -> None:
                d.send(phone(1), "Hello")

            return await Ticks().during(send())

    assert at_best(lambda: run(awaited()), 0.5) < 0.5 < run(called())


def test_calls_wait_for_a_slow_redis_together(slow: Settings) -> None:
    """As many as there are threads, each for its own answer."""

    async def main() -> float:
        async with AsyncDispatcher(slow, threads=8) as d:
            began = time.monotonic()
            await d.states(["none"])
            one = time.monotonic() - began
            began = time.monotonic()
            await asyncio.gather(*(d.states(["none"]) for _ in range(8)))
            return (time.monotonic() - began) / one

    assert at_best(lambda: asyncio.run(main()), 4) < 4


def test_waits_and_readers_close_with_the_application(redis_url: str) -> None:
    """What is under way when it shuts down ends: no thread, no connection and no warning is left."""

    async def main() -> None:
        d = AsyncDispatcher(redis_url=redis_url)

        async def read() -> None:
            async for _ in d.events(group="billing"):
                pass

        tasks = [asyncio.create_task(read()) for _ in range(5)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in ended} == {asyncio.CancelledError}
        await d.aclose()

    asyncio.run(main(), debug=True)
