"""`AsyncDispatcher` on a Redis in memory: the same verbs, awaited, and nothing of it held up or left behind."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import pytest
import redis
import uvloop

from dispatcher import AsyncBatch, AsyncDispatcher, Dispatcher, InvalidRequest, Job, NotFound, State, WaitTimeout
from dispatcher.asynchronous import THREADS
from dispatcher.errors import StoreUnavailable
from tests.support import until
from tests.unit import test_client
from tests.unit.support import NUMBER, OTHER, TEXT
from tests.unit.test_client import THREE, Shop

shop = test_client.shop

T = TypeVar("T")

#: Verbs of `Dispatcher` that are called otherwise here.
OTHERWISE = {"close": "aclose"}


def verbs(of: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(of, inspect.isfunction) if not name.startswith("_")}


@pytest.fixture
def asynchronous(shop: Shop) -> Iterator[AsyncDispatcher]:
    before = {*threading.enumerate()}
    made = AsyncDispatcher(shop.bench.settings)
    made._dispatcher._store.redis = shop.bench.redis
    yield made
    asyncio.run(made.aclose())
    assert {*threading.enumerate()} <= before, "no thread is left"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine to its end, on each of the loops."""
    loop: Callable[[Coroutine[Any, Any, T]], T] = request.param
    return loop


# -- the same verbs ----------------------------------------------------------------------------------------------------


def test_every_verb_has_its_twin() -> None:
    assert verbs(AsyncDispatcher) == {OTHERWISE.get(name, name) for name in verbs(Dispatcher)}


@pytest.mark.parametrize("name", sorted(verbs(Dispatcher) - {*OTHERWISE}))
def test_a_verb_takes_what_its_twin_takes_and_explains_itself(name: str) -> None:
    ours, theirs = getattr(AsyncDispatcher, name), getattr(Dispatcher, name)
    taken = [inspect.signature(one).parameters for one in (ours, theirs)]
    assert [*taken[0].values()] == [*taken[1].values()]
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)
    assert ours.__qualname__ == f"AsyncDispatcher.{name}"
    yields = {"events", "export_opt_outs"}
    assert inspect.iscoroutinefunction(inspect.unwrap(ours, stop=lambda one: one is ours)) == (name not in yields)


@pytest.mark.parametrize(("whole", "steps"), [("wait", "_waiting"), ("check", "_checking"), ("events", "_reader")])
def test_what_is_done_in_steps_takes_the_same_arguments(whole: str, steps: str) -> None:
    """Told twice, once for each way, they must not come apart."""
    taken = [inspect.signature(getattr(Dispatcher, one)).parameters for one in (whole, steps)]
    assert [*taken[0].values()] == [*taken[1].values()]


async def test_types(d: AsyncDispatcher) -> None:
    """Never run: mypy reads it, and complains where an answer's type is lost."""
    job: Job = await d.send(NUMBER, TEXT, tenant="a")
    batch: AsyncBatch = await d.send_many([])
    states: list[State | None] = await d.states([job.id])
    counts: dict[str, int] = await batch.counts()
    waiting: Awaitable[Job] = d.wait(job.id, until="final", timeout=3)
    await d.send(NUMBER)  # type: ignore[call-arg]  # no text
    await d.wait(job.id, until="done")  # type: ignore[arg-type]  # no such end
    async for event in d.events("0", types="job.*"):
        cursor: str = event.cursor
    del states, counts, waiting, cursor


del test_types


def test_jobs_are_enqueued_read_and_taken_back(
    asynchronous: AsyncDispatcher, shop: Shop, run: Callable[..., Any]
) -> None:
    async def main() -> Job:
        job = await asynchronous.send(NUMBER, TEXT, tenant="a")
        assert await asynchronous.get(job.id) == job
        assert await asynchronous.states([job.id]) == [State.QUEUED]
        return await asynchronous.cancel(job.id)

    assert run(main()).state == State.CANCELLED
    assert shop.published


def test_errors_are_the_same(asynchronous: AsyncDispatcher) -> None:
    async def main() -> None:
        with pytest.raises(InvalidRequest, match="to"):
            await asynchronous.send("nobody", TEXT)
        with pytest.raises(NotFound):
            await asynchronous.get("nothing")
        with pytest.raises(NotFound):
            await asynchronous.batch("nothing")
        with pytest.raises(InvalidRequest, match="after"):
            asynchronous.events("yesterday")
        with pytest.raises(InvalidRequest, match="until"):
            await asynchronous.wait("nothing", until="done")  # type: ignore[arg-type]  # that is what is wrong

    asyncio.run(main())


def test_a_code_is_checked(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    job = shop.verified()
    assert asyncio.run(asynchronous.check(job.id, "012837")).valid


def test_who_wants_no_texts_is_listed_a_portion_at_a_time(asynchronous: AsyncDispatcher) -> None:
    async def main() -> list[bool]:
        await asynchronous.opt_out(NUMBER)
        await asynchronous.opt_out(OTHER)
        return [one.by == "application" async for one in asynchronous.export_opt_outs()]

    assert asyncio.run(main()) == [True, True]


def test_what_is_set_around_a_call_is_seen_within(asynchronous: AsyncDispatcher) -> None:
    """As tracing does it: the call belongs to whoever awaits it."""
    trace = contextvars.ContextVar("trace", default="")

    async def main() -> str:
        trace.set("17")
        return await asynchronous._run(trace.get)

    assert asyncio.run(main()) == "17"


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_is_awaited(asynchronous: AsyncDispatcher, shop: Shop, run: Callable[..., Any]) -> None:
    async def main() -> None:
        batch = await asynchronous.send_many(THREE, batch_id="spring")
        assert (batch.id, batch.created, len(batch.jobs)) == ("spring", 3, 3)
        assert await batch.counts() == {"queued": 3}
        assert [job.id async for job in batch.jobs] == await batch.jobs.ids()
        assert not await batch.settled()
        waiting = asyncio.create_task(batch.wait(timeout=30))
        await asyncio.sleep(0.05)
        assert await batch.cancel() == await waiting == {"cancelled": 3}
        assert (await batch.to_dict())["settled"] is True
        found = await asynchronous.batch("spring")
        assert (await found.redrive(dry_run=True)).redriven == 0
        assert repr(found) == "AsyncBatch(spring, 3 jobs)"

    run(main())


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_who_waits_is_told(asynchronous: AsyncDispatcher, shop: Shop, run: Callable[..., Any]) -> None:
    async def main() -> Job:
        job = await asynchronous.send(NUMBER, TEXT)
        waiting = asyncio.create_task(asynchronous.wait(job.id, timeout=30))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        shop.sent(job.id)
        return await waiting

    assert run(main()).state == State.SENT


def test_hundreds_wait_on_a_few_threads(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    """And meanwhile other calls are made: no thread is held by a wait."""
    job = shop.dispatcher.send(NUMBER, TEXT)

    async def main() -> list[Job]:
        waiting = [asyncio.create_task(asynchronous.wait(job.id, timeout=60)) for _ in range(20 * THREADS)]
        await asyncio.sleep(0)
        assert (await asynchronous.get(job.id)).state == State.QUEUED
        assert threading.active_count() < 2 * THREADS + 10
        shop.sent(job.id)
        return await asyncio.gather(*waiting)

    assert {one.state for one in asyncio.run(main())} == {State.SENT}


def test_all_that_wait_look_together(
    asynchronous: AsyncDispatcher, shop: Shop, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    """Each looks once when it comes and once when it is over; in between one look is for all."""
    looked = list[int]()
    busy = Dispatcher._busy

    def look(self: Dispatcher, awaited: Any) -> set[str]:
        looked.append(len(awaited))
        return busy(self, awaited)

    monkeypatch.setattr(Dispatcher, "_busy", look)
    ids = [shop.dispatcher.send(NUMBER, TEXT).id for _ in range(50)]

    async def main() -> list[Job]:
        waiting = [asyncio.create_task(asynchronous.wait(one, timeout=60)) for one in ids]
        while max(looked, default=0) < len(ids):  # noqa: ASYNC110 - the others take their turns meanwhile
            await asyncio.sleep(0.01)
        for one in ids:
            shop.sent(one)
        return await asyncio.gather(*waiting)

    assert [one.id for one in run(main())] == ids
    assert looked.count(1) <= 2 * len(ids) + 10


def test_each_who_waits_is_told_what_they_wait_for(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    async def main() -> tuple[Job, Job]:
        id_ = (await asynchronous.send(NUMBER, TEXT)).id
        settled, final, gone = (
            asyncio.create_task(asynchronous.wait(id_, until=until, timeout=60))
            for until in ("settled", "final", "final")
        )
        await asyncio.sleep(0.05)
        gone.cancel()
        shop.sent(id_)
        first = await settled
        assert not final.done()
        shop.bench.redis.hset(f"d:j:{id_}", "s", "delivered")
        return first, await final

    assert [one.state for one in asyncio.run(main())] == [State.SENT, State.DELIVERED]


def test_who_waits_hears_that_redis_is_away(
    asynchronous: AsyncDispatcher, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("no")

    async def main() -> None:
        ids = [(await asynchronous.send(NUMBER, TEXT)).id for _ in range(3)]
        waiting = [asyncio.create_task(asynchronous.wait(one, timeout=60)) for one in ids]
        await asyncio.sleep(0.05)
        monkeypatch.setattr(shop.bench.redis.connection_pool, "get_connection", away)
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in told} == {StoreUnavailable}
        monkeypatch.undo()
        shop.sent(ids[0])
        assert (await asynchronous.wait(ids[0])).state == State.SENT

    asyncio.run(main())


def test_loops_that_are_over_are_not_held(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    id_ = shop.dispatcher.send(NUMBER, TEXT).id
    for _ in range(3):
        with pytest.raises(WaitTimeout):
            asyncio.run(asynchronous.wait(id_, timeout=0.05))

    def forgotten() -> bool:
        gc.collect()
        return len(asynchronous._looking) == 0

    # A thread that has just answered holds its last call for a moment.
    until(forgotten, what="the end of all loops")


def test_waiting_ends_in_time(asynchronous: AsyncDispatcher) -> None:
    async def main() -> None:
        job = await asynchronous.send(NUMBER, TEXT)
        with pytest.raises(WaitTimeout):
            await asynchronous.wait(job.id, timeout=0.05)

    asyncio.run(main())


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [None, "billing"])
def test_events_come_as_they_happen(
    asynchronous: AsyncDispatcher, shop: Shop, run: Callable[..., Any], group: str | None
) -> None:
    async def main() -> list[str]:
        told = list[str]()

        async def read() -> None:
            async for event in asynchronous.events("0", group=group, types="job.*"):
                told.append(event.data["id"])
                if len(told) == 2:
                    return

        reading = asyncio.create_task(read())
        ids = []
        for _ in range(2):
            ids.append((await asynchronous.send(NUMBER, TEXT)).id)
            shop.sent(ids[-1])
            await asyncio.sleep(0.05)
        await reading
        assert told == ids
        return told

    assert len(run(main())) == 2


def test_events_end_when_it_was_quiet(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    ids = [shop.dispatcher.send(NUMBER, TEXT).id for _ in range(3)]
    for id_ in ids:
        shop.sent(id_)

    async def main() -> list[str]:
        return [event.data["id"] async for event in asynchronous.events("0", timeout=0.05)]

    assert asyncio.run(main()) == ids


def test_who_stops_reading_gives_back_what_it_holds(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    """Cancelled, or closed in the middle: the next consumer need not wait."""
    for _ in range(3):
        shop.sent(shop.dispatcher.send(NUMBER, TEXT).id)

    async def main() -> None:
        async with aclosing(asynchronous.events("0", group="billing")) as events:
            assert (await anext(events)).type == "job.sent"

        async def stuck(events: AsyncIterator[Any]) -> None:
            async for _ in events:
                await asyncio.Event().wait()

        reading = asyncio.create_task(stuck(asynchronous.events(group="billing")))
        await asyncio.sleep(0.1)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        told = 0
        async with aclosing(asynchronous.events(group="billing", timeout=20)) as events:
            async for _ in events:
                told += 1
                if told == 3:
                    break
        assert told == 3, "long before they would be taken over"

    asyncio.run(main())


# -- its life ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_call_goes_on_and_is_waited_for(asynchronous: AsyncDispatcher, shop: Shop) -> None:
    begun, end = threading.Event(), threading.Event()
    done = list[str]()

    def slow() -> None:
        begun.set()
        end.wait(30)
        done.append("done")

    async def main() -> None:
        call = asyncio.create_task(asynchronous._run(slow))
        await asyncio.to_thread(begun.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        closing = asyncio.create_task(asynchronous.aclose())
        await asyncio.sleep(0.05)
        assert not closing.done()
        end.set()
        await closing

    asyncio.run(main())
    assert done == ["done"]


def test_who_does_not_wait_for_its_end_leaves_nothing_open(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end, closed = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        end.wait(30)

    async def main() -> None:
        d = AsyncDispatcher(shop.bench.settings)
        monkeypatch.setattr(d._dispatcher, "close", closed.set)
        call = asyncio.create_task(d._run(slow))
        await asyncio.to_thread(begun.wait)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(d.aclose(), 0.01)
        end.set()
        await call
        assert await asyncio.to_thread(closed.wait, 30)

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_off_has_threads_of_its_own(asynchronous: AsyncDispatcher) -> None:
    """As servers do it that load the application first: the threads of before are not there, and are not waited for."""

    async def main() -> int:
        async with asyncio.timeout(10):
            return await asynchronous._run(os.getpid)

    before = asyncio.run(main())
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(asyncio.run(main()) != os.getpid())
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(main()) == before == os.getpid()


def test_it_closes_its_connections_once(shop: Shop, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    closed = list[str]()

    async def main() -> None:
        async with AsyncDispatcher(shop.bench.settings) as d:
            monkeypatch.setattr(d._dispatcher, "close", lambda: closed.append(threading.current_thread().name))
            d._dispatcher._store.redis = shop.bench.redis
            await d.send(NUMBER, TEXT)
        await d.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await d.send(NUMBER, TEXT)

    run(main())
    (thread,) = closed
    assert thread.startswith("dispatcher-async"), "on no thread of the application's"


def test_a_wait_ends_with_it(asynchronous: AsyncDispatcher) -> None:
    async def main() -> None:
        job = await asynchronous.send(NUMBER, TEXT)
        waiting = asyncio.create_task(asynchronous.wait(job.id, timeout=60))
        await asyncio.sleep(0.05)
        await asynchronous.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await waiting

    asyncio.run(main())


@pytest.mark.parametrize("threads", [0, 65, True, "8"])
def test_threads_are_a_few(shop: Shop, threads: Any) -> None:
    with pytest.raises(InvalidRequest, match="threads"):
        AsyncDispatcher(shop.bench.settings, threads=threads)
