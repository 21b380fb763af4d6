"""Recovery you can wait for: one worker that outlives all that happens to its Redis, and is back at work in time.

Here messages count as lost after a minute only: what a worker had in its hands goes on by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import pytest

from dispatcher import Dispatcher, Job, Message, State, StoreUnavailable
from dispatcher.store import AsyncJobStore
from tests.chaos.proxy import Proxy
from tests.support import Deployment, Server, phones, taken_by_number, until
from workers.sandbox.client import Sandbox

#: Seconds after which work goes on at the latest: after a short outage, after a long one, and after one that nobody
#: was told of.
SHORT: Final = 5
LONG: Final = 10
HALF_OPEN: Final = 30

#: Everybody's number, once.
NUMBERS: Final = iter(phones(10_000))


class Place:
    """A worker that reaches its Redis through a proxy; applications reach it directly."""

    def __init__(self, server: Server, proxy: Proxy, deployment: Deployment) -> None:
        self.server = server
        self.proxy = proxy
        self.deployment = deployment
        reached = f"redis://127.0.0.1:{proxy.port}/0"
        self.worker = deployment.start_worker(redis_url=reached, providers__textgoto__group_size="1")
        self.dispatcher: Dispatcher = deployment.client()

    @property
    def redis(self) -> Any:
        return self.deployment.redis

    def goes_on(self, seconds: float) -> None:
        """Return once texts of this moment are sent; raises `AssertionError` after `seconds`."""
        sent = []

        def gone() -> bool:
            # Several: the last one that was popped before an outage is lost, and found again.
            with suppress(StoreUnavailable):
                sent.append(self.dispatcher.send(next(NUMBERS), "Hello").id)
            return any(job.state == State.SENT for job in self.dispatcher.get_many(sent).values())

        until(gone, seconds, "a text")
        assert self.worker.popen.poll() is None, "it is the same worker"


@pytest.fixture(scope="module")
def started_first(sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A worker that was started before its Redis."""
    folder = tmp_path_factory.mktemp("recovery")
    server = Server(folder / "valkey")
    with Proxy(server.port) as proxy:
        deployment = Deployment(server.url, sandbox_process, folder, {"lost_after": "60", "connections": "4"})
        try:
            yield Place(server, proxy, deployment)
        finally:
            deployment.close()
            server.stop()


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Job]]:
    """A producer that enqueues into a Redis which stands still; it takes its time beside the other tests."""
    with Server(tmp_path_factory.mktemp("frozen") / "valkey") as server, ThreadPoolExecutor(1) as pool:
        dispatcher = Dispatcher(redis_url=server.url, sandbox=True, providers={"textgoto": {"uid": "x"}})
        dispatcher.send(next(NUMBERS), "Hello")
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            yield pool.submit(dispatcher.send, next(NUMBERS), "Hello")
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
            dispatcher.close()


@pytest.fixture
def place(started_first: Place, sandbox: Sandbox) -> Place:
    """The same once its Redis is there, and with a sandbox in which nothing happened."""
    if started_first.server.process is None:
        started_first.worker.wait_for("Cannot connect to")
        started_first.server.start()
        started_first.worker.ready()
    return started_first


def test_a_worker_that_starts_before_its_redis_waits_for_it(frozen: Future[Job], place: Place) -> None:
    place.goes_on(SHORT)


def test_after_some_seconds_it_goes_on_with_what_it_had_and_with_what_is_new(place: Place) -> None:
    """The outage is as long as kombu's own patience is short: left alone, it tries after 2, 6 and 12 s."""
    place.deployment.sandbox.fault("latency", seconds=0.3)
    batch = place.dispatcher.send_many([Message(next(NUMBERS), "Hello") for _ in range(40)])
    until(lambda: len(place.deployment.sandbox.ledger()) >= 4, what="requests on the wire")
    place.server.kill()
    time.sleep(6.5)
    place.deployment.sandbox.clear()
    place.server.start()
    place.goes_on(SHORT)
    assert batch.wait(timeout=LONG) == {"sent": 40}, "what was on the wire, and what waited behind it"
    assert max(taken_by_number(place.deployment.sandbox).values()) == 1
    assert not [job for job in batch.jobs if "lost" in str(job.history)], "it was in good hands all the time"


def test_a_failover_under_its_feet_does_not_end_it(place: Place) -> None:
    """What it is connected to takes no writes for a while, and interrupts what waits."""
    place.redis.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable, match="read only"):
        place.dispatcher.send(next(NUMBERS), "Hello")
    time.sleep(1)
    place.redis.replicaof("NO", "ONE")
    place.goes_on(LONG)


def test_a_full_redis_refuses_new_jobs_and_takes_the_outcomes(place: Place) -> None:
    """What is in work comes to its end; the rest waits for memory, and nothing is half-written."""
    place.deployment.sandbox.fault("latency", seconds=0.5)
    batch = place.dispatcher.send_many([Message(next(NUMBERS), "Hello") for _ in range(12)])
    until(lambda: batch.counts.get("sending"), what="a request on the wire")
    jobs = set(place.redis.keys("d:j:*"))
    listed = place.redis.zcard("d:i:textgoto:queued")
    place.redis.config_set("maxmemory", 1)
    try:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                place.dispatcher.send(next(NUMBERS), "Hello")
        until(lambda: batch.counts.get("sent"), what="an outcome")
        assert set(place.redis.keys("d:j:*")) == jobs
        assert place.redis.zcard("d:i:textgoto:queued") <= listed
    finally:
        place.redis.config_set("maxmemory", 0)
        place.deployment.sandbox.clear()
    place.goes_on(SHORT)
    assert batch.wait(timeout=LONG) == {"sent": 12}
    assert place.redis.info("stats")["evicted_keys"] == 0


def test_a_producer_whose_redis_stands_still_is_told(frozen: Future[Job]) -> None:
    """Twice the time of one call at most, and which job may be there all the same."""
    with pytest.raises(StoreUnavailable, match="did not answer") as told:
        frozen.result(15)
    assert len(told.value.job_ids) == 1


def test_connections_that_fell_silent_are_given_up(place: Place) -> None:
    """No error ever comes, whether one writes or waits; what is new goes over new connections."""
    assert place.proxy.half_open() > 0
    place.goes_on(HALF_OPEN)


def test_a_worker_that_is_told_to_stop_does_not_wait_for_redis_for_long(place: Place) -> None:
    """As long as a request may take, and some seconds to close; what it could not write down ends with its lease."""
    place.deployment.sandbox.fault("latency", seconds=1)
    before = len(place.deployment.sandbox.ledger())
    place.dispatcher.send(next(NUMBERS), "Hello")
    until(lambda: len(place.deployment.sandbox.ledger()) > before, what="a request on the wire")
    place.server.kill()
    place.worker.terminate()
    assert place.worker.wait(float(place.deployment.settings["deadline"]) + LONG) == 0
    place.server.start()


def test_only_the_first_silent_connection_is_waited_for(place: Place) -> None:
    """The others of its age are dropped with it: in turn they would take seconds each."""
    assert place.worker.popen.poll() is not None, "what it says would be swallowed, too"

    async def lost() -> tuple[int, int]:
        store = AsyncJobStore(f"redis://127.0.0.1:{place.proxy.port}/0", "here", timeout=0.5)
        await asyncio.gather(*(store.redis.ping() for _ in range(20)))
        assert place.proxy.half_open() >= 20
        await store.redis.ping()
        after_one = place.proxy.swallowed
        await asyncio.gather(*(store.redis.ping() for _ in range(20)))
        await store.close()
        return after_one, place.proxy.swallowed

    after_one, after_all = asyncio.run(lost())
    assert after_one == after_all
