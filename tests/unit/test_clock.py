"""What a tick of the clock asks of Redis, and what it publishes."""

from __future__ import annotations

import asyncio
from typing import Any

import fakeredis
import pytest

from dispatcher.calls import Advance, Call
from dispatcher.states import State
from tests.unit.support import AsyncOnSync, Bench, record
from workers.clock import Clock


class Counting(AsyncOnSync):
    """A store that notes which scripts are called."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.store)
        self.called: list[str] = []

    async def run(self, call: Call[Any]) -> Any:
        self.called.append(call.script.name)
        return await super().run(call)


class Ticking:
    """A clock over a bench, with what it published."""

    def __init__(self, bench: Bench) -> None:
        self.store, self.published = Counting(bench), dict[str, list[str]]()

        async def publish(queue: str, ids: list[str]) -> None:
            self.published[queue] = ids

        async def empty(_: str) -> bool:
            return True

        self.clock = Clock(bench.settings, self.store, publish, empty)  # type: ignore[arg-type]  # a double of the store

    def tick(self) -> list[str]:
        """Tick once; return the scripts that were called."""
        self.store.called.clear()
        self.published.clear()
        asyncio.run(self.clock.tick())
        return self.store.called


@pytest.fixture
def ticking(bench: Bench) -> Ticking:
    return Ticking(bench)


def test_a_quiet_tick_is_one_call_however_many_accounts_there_are(bench: Bench, ticking: Ticking) -> None:
    for account in ("clubtexting", "mobtexting", "textgoto"):
        bench.redis.sadd("d:p", account)
    assert ticking.tick() == ["waiting"]
    assert ticking.published == {}


def test_only_the_queue_with_due_jobs_is_asked_for_them(bench: Bench, ticking: Ticking) -> None:
    bench.redis.sadd("d:p", "mobtexting")
    bench.create("a")
    bench.take("a", token="t")
    later = Advance(id="a", guard="=queued", state=State.QUEUED, detail="waits for limit", wait="limit", delay=5)
    bench.run(bench.calls.advance([later]))
    assert ticking.tick() == ["waiting"]
    bench.clock.advance(5)
    assert ticking.tick() == ["waiting", "due", "deal"]
    assert ticking.published == {"textgoto": ["a"]}
    assert ticking.tick() == ["waiting"]


def test_a_sweep_moves_events_on_to_who_is_told_before_it_trims_them(bench: Bench, ticking: Ticking) -> None:
    """Though nobody tells anybody, and the retention of events has passed."""
    made = [record("a", more={"cb": "endpoint sealed shown"})]
    bench.run(bench.calls.create("textgoto", high=False, batch="", records=made))
    bench.advance("a", bench.claim("a"), "sent")
    bench.clock.advance(8 * 86400)
    server = bench.redis.connection_pool.connection_kwargs["server"]

    async def sweep() -> None:
        ticking.store.redis = fakeredis.FakeAsyncRedis(server=server)  # type: ignore[attr-defined]  # the double has none
        await ticking.clock.sweep()
        await ticking.store.redis.aclose()  # type: ignore[attr-defined]  # as above

    asyncio.run(sweep())
    assert bench.redis.xlen("d:e") == 0
    assert bench.redis.zcard("d:tp:endpoint") == 1


def test_only_the_account_with_jobs_in_lines_is_asked_to_deal(bench: Bench, ticking: Ticking) -> None:
    bench.redis.sadd("d:p", "mobtexting")
    bench.create("a")
    bench.take("a", token="t")
    lined = Advance(
        id="a", guard="=queued", state=State.QUEUED, detail="waits for limit", wait="limit", delay=0, lined=True
    )
    bench.run(bench.calls.advance([lined]))
    assert ticking.tick() == ["waiting", "deal"]
    assert ticking.published == {"textgoto": ["a"]}
