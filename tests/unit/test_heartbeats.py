"""How a worker is judged by its heartbeat, and what a beat leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import fakeredis
import pytest

from dispatcher import heartbeats
from dispatcher.accounts import KEY
from dispatcher.heartbeats import REMEMBERED, Health, Worker, read, serving
from dispatcher.queues import beat_queue, is_beat, node_name, provider_of
from dispatcher.store import AsyncJobStore
from tests.unit.support import Clock, running, settings, store_on
from workers.heartbeat import Heartbeat, answer

NODE = "textgoto-7@host"


def seen(**told: Any) -> Worker:
    usual = {"node": NODE, "accounts": ["textgoto"], "since": 0, "at": 100_000, "consumed": 99_000, "slots": 4}
    return Worker(**{**usual, **told})


#: What the worker told, in ms, when it is looked at, and what is to be thought of it. It beats every 5 s.
JUDGEMENTS: dict[str, tuple[dict[str, Any], int, Health]] = {
    "beats and takes messages": ({}, 100_000, Health.ALIVE),
    "missed two beats": ({}, 112_000, Health.ALIVE),
    "missed more than three": ({}, 115_001, Health.SILENT),
    "busy, but messages come through": ({"busy": 4}, 101_000, Health.ALIVE),
    "all slots taken, for a while": ({"busy": 4, "consumed": 60_000}, 100_000, Health.FULL),
    "all slots taken, for longer than any call may take": (
        {"busy": 4, "consumed": 100_000, "at": 500_000},
        500_000,
        Health.STUCK,
    ),
    "free slots and takes nothing": ({"busy": 3, "consumed": 79_000}, 100_000, Health.STUCK),
    "just started": ({"since": 99_000, "consumed": 0}, 100_000, Health.STARTING),
    "started long ago and never took anything": ({"since": 60_000, "consumed": 0}, 100_000, Health.STUCK),
    "back after Redis was away, its consumer not yet": ({"since": 90_000, "consumed": 10_000}, 100_000, Health.ALIVE),
    "back for a while, its consumer still not": ({"since": 79_000, "consumed": 10_000}, 100_000, Health.STUCK),
    "told to stop": ({"stopping": True, "consumed": 50_000}, 100_000, Health.STOPPING),
    "told to stop, and gone without a word": ({"stopping": True}, 120_000, Health.SILENT),
    "beats more often than others": ({"every": 0.5}, 101_600, Health.SILENT),
}


@pytest.mark.parametrize("label", JUDGEMENTS)
def test_a_worker_is_judged_by_what_came_through(label: str) -> None:
    told, now, health = JUDGEMENTS[label]
    assert seen(**told).health(now) == health


def test_only_those_that_do_their_work_count_as_serving() -> None:
    found = [
        seen(node="a@h"),
        seen(node="b@h", accounts=["broke"]),
        seen(node="c@h", at=50_000),
        seen(node="d@h", accounts=["textgoto", "broke"], busy=4, consumed=60_000),
    ]
    assert [one.node for one in serving(found, "textgoto", 100_000)] == ["a@h", "d@h"]


def test_a_workers_own_queue_is_nobody_elses() -> None:
    node = node_name(["textgoto", "shop_a"], 7, "host.example")
    assert node == "textgoto+shop_a-7@host.example"
    assert seen(node=node).host == "host.example"
    queue = beat_queue(node)
    assert is_beat(queue.name)
    assert not is_beat(provider_of("textgoto.high"))
    assert queue.as_dict()["expires"], "what nobody takes must not lie there for ever"


class Bed:
    """A heartbeat on a Redis in memory, by a clock that moves only when told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.server = fakeredis.FakeServer()
        self.redis: Any = fakeredis.FakeRedis(server=self.server)
        self.asked = 0
        self.busy = 0

    def run(self, work: Callable[[Heartbeat, AsyncJobStore], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            store = AsyncJobStore("redis://127.0.0.1:1/0", "here")
            store.redis = fakeredis.FakeAsyncRedis(server=self.server)
            beat = Heartbeat(
                settings(), store, NODE, {"textgoto": b"{}"}, slots=4, busy=lambda: self.busy, ask=self._ask
            )
            await work(beat, store)
            await store.close()

        asyncio.run(whole())

    async def _ask(self) -> None:
        self.asked += 1

    def workers(self) -> list[Worker]:
        return read(store_on(self.redis))


@pytest.fixture
def bed() -> Any:
    clock = Clock()
    with running(clock):
        yield Bed(clock)


def test_a_beat_says_who_serves_what(bed: Bed) -> None:
    async def work(beat: Heartbeat, store: AsyncJobStore) -> None:
        bed.busy = 9
        await beat.beat()

    bed.run(work)
    (worker,) = bed.workers()
    assert (worker.node, worker.accounts, worker.at, worker.since) == (NODE, ["textgoto"], bed.clock.ms, bed.clock.ms)
    assert (worker.busy, worker.slots, worker.consumed) == (4, 4, 0), "more than all is all"
    assert bed.redis.hget(KEY, "textgoto") == b"{}", "an emptied Redis learns of the account again"
    assert bed.redis.zscore(heartbeats.SERVED, "textgoto") == bed.clock.ms


def test_it_asks_its_consumer_once_and_again_only_after_the_answer(bed: Bed) -> None:
    async def beat_for(beat: Heartbeat, seconds: int) -> int:
        before = bed.asked
        for _ in range(seconds // 5):
            bed.clock.advance(5)
            await beat.beat()
            await asyncio.sleep(0)
        return bed.asked - before

    async def work(beat: Heartbeat, store: AsyncJobStore) -> None:
        assert await beat_for(beat, 5) == 1
        assert await beat_for(beat, 10) == 0, "a question is open"
        assert await beat_for(beat, 5) == 1, "the first may have been lost"
        await answer(store, NODE)
        assert await beat_for(beat, 5) == 1
        bed.redis.flushdb()
        assert await beat_for(beat, 5) == 1, "the question went with the rest, when Redis was emptied"
        beat.stop()
        await answer(store, NODE)
        assert await beat_for(beat, 10) == 0, "who stops takes nothing any more"

    bed.run(work)
    (worker,) = bed.workers()
    assert worker.stopping
    assert worker.consumed == bed.clock.ms - 10_000


def test_who_took_leave_is_not_missed(bed: Bed) -> None:
    async def work(beat: Heartbeat, store: AsyncJobStore) -> None:
        await beat.beat()
        await beat.leave()

    bed.run(work)
    assert bed.workers() == []
    assert bed.redis.keys("d:hb*") == []


def test_who_died_is_forgotten_after_a_while(bed: Bed) -> None:
    async def work(beat: Heartbeat, store: AsyncJobStore) -> None:
        await beat.beat()

    bed.run(work)
    bed.redis.zadd(heartbeats.WORKERS, {"old@host": bed.clock.ms})
    bed.clock.advance(REMEMBERED - 1)
    assert [one.health(bed.clock.ms) for one in bed.workers()] == [Health.SILENT]
    bed.clock.advance(2)
    assert bed.workers() == []
    bed.run(work)
    assert bed.redis.zrange(heartbeats.WORKERS, 0, -1) == [NODE.encode()]
