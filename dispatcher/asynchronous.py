"""`AsyncDispatcher`: the verbs of `Dispatcher` for asyncio applications.

No verb is written twice: each is made of `Dispatcher`'s own method, which runs on a thread of a small pool while the
event loop goes on. What waits for long, `wait`, `check` and `events`, is done in short steps, each on a thread, and
sleeps on the loop in between: however many wait, no thread is held by it. All that wait for a job look together.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial, wraps
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from dispatcher import checks
from dispatcher.batches import Batch, Redriven, Steps, Until, ends
from dispatcher.calls import MOST
from dispatcher.client import Dispatcher
from dispatcher.events import Event, Reader
from dispatcher.jobs import Job
from dispatcher.states import State

if TYPE_CHECKING:
    from types import TracebackType

    from dispatcher.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

#: Calls that are made at once, each on a thread of its own; the others wait for one.
THREADS: Final = 16

#: Seconds between two looks for news while none come: doubling from the first to the second.
_PAUSES: Final = (0.02, 0.25)

#: Every so many looks at what is waited for somebody is looked for who has waited for a second.
_SLOWER: Final = 12

#: Entries of a long list that one call reads.
_PORTION: Final = 500

#: Connections that one process has at most: more threads would wait for them.
_MOST_THREADS: Final = 64


#: What a verb is made of.
_Verb: TypeAlias = Callable[Concatenate[Dispatcher, P], T]

#: What it becomes.
_AsyncVerb: TypeAlias = "Callable[Concatenate[AsyncDispatcher, P], Coroutine[Any, Any, T]]"


def _verb(method: _Verb[P, T]) -> _AsyncVerb[P, T]:
    """Return a verb as a coroutine that makes the whole call on a thread."""

    @wraps(method)
    async def verb(self: AsyncDispatcher, /, *args: P.args, **named: P.kwargs) -> T:
        return await self._run(method, self._dispatcher, *args, **named)

    return _named(verb)


def _batch_verb(method: _Verb[P, Batch]) -> _AsyncVerb[P, AsyncBatch]:
    """Return such a verb for one that answers a batch."""

    @wraps(method)
    async def verb(self: AsyncDispatcher, /, *args: P.args, **named: P.kwargs) -> AsyncBatch:
        return AsyncBatch(self, await self._run(method, self._dispatcher, *args, **named))

    return _named(verb)


def _waiting_verb(method: _Verb[P, T], steps: _Verb[P, Steps[T]]) -> _AsyncVerb[P, T]:
    """Return a verb that waits as a coroutine that takes `steps`, which are the same call's."""

    @wraps(method)
    async def verb(self: AsyncDispatcher, /, *args: P.args, **named: P.kwargs) -> T:
        return await self._walk(steps(self._dispatcher, *args, **named))

    return _named(verb)


def _listing_verb(
    method: _Verb[P, Iterator[T]],
) -> Callable[Concatenate[AsyncDispatcher, P], AsyncGenerator[T]]:
    """Return a verb that yields as an asynchronous iterator, which reads a portion at a time on a thread."""

    @wraps(method)
    async def verb(self: AsyncDispatcher, /, *args: P.args, **named: P.kwargs) -> AsyncGenerator[T]:
        listed = await self._run(method, self._dispatcher, *args, **named)
        while portion := await self._run(lambda: [*islice(listed, _PORTION)]):
            for one in portion:
                yield one

    return _named(verb)


def _events_verb(
    method: _Verb[P, Iterator[Event]], reader: _Verb[P, tuple[Reader, float | None]]
) -> Callable[Concatenate[AsyncDispatcher, P], AsyncGenerator[Event]]:
    """Return `events` as an asynchronous iterator over what the `reader` of the same call reads."""

    @wraps(method)
    def verb(self: AsyncDispatcher, /, *args: P.args, **named: P.kwargs) -> AsyncGenerator[Event]:
        made, timeout = reader(self._dispatcher, *args, **named)
        return self._follow(made, timeout)

    return _named(verb)


def _named(verb: Callable[P, T]) -> Callable[P, T]:
    """Say that a verb is ours, where a traceback or a help shows it."""
    verb.__module__, verb.__qualname__ = __name__, f"AsyncDispatcher.{verb.__name__}"
    return verb


class AsyncDispatcher:
    """`Dispatcher` for asyncio: each verb is a coroutine with the same arguments, answer and errors.

    Make one per process, and close it: `async with AsyncDispatcher() as d: job = await d.send(...)`. It may be used
    from any loop, uvloop's too. Who cancels an await does not take back the call: begun, it goes on in its thread, and
    what it answers is thrown away. Repeat a `send` with the same `idempotency_key` then.

    Functions that are handed over (`progress`, `refused`), and what yields messages, run on such a thread, too.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        redis_url: str | None = None,
        threads: int = THREADS,
        **overrides: Any,
    ) -> None:
        """Take settings as `Dispatcher` does; `threads` is how many calls are made at once."""
        checks.whole("threads", threads, 1, _MOST_THREADS)
        self._dispatcher = Dispatcher(settings, redis_url=redis_url, **overrides)
        self.settings = self._dispatcher.settings
        self._threads = _Threads(threads)
        self._looking = WeakKeyDictionary[asyncio.AbstractEventLoop, _Looks]()

    async def __aenter__(self) -> Self:
        """Use it as a context manager to close it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for the calls that are being made, and close the connections and the threads; harmless twice."""
        await self._threads.aclose(self._dispatcher.close)

    def __repr__(self) -> str:
        """Show nothing of its settings."""
        return "AsyncDispatcher()"

    async def _run(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        return await self._threads.run(function, *args, **named)

    async def _walk(self, steps: Steps[T]) -> T:
        """Take steps on threads, and sleep on the loop in between."""
        while True:
            end, told = await self._run(_step, steps)
            if end:
                answer: T = told
                return answer
            await asyncio.sleep(told)

    def _looks(self) -> _Looks:
        """Return what looks for all that wait on this loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._looking:
            self._looking[loop] = _Looks(lambda some: self._run(self._dispatcher._busy, some))  # noqa: SLF001 - of the same verb
        return self._looking[loop]

    async def _follow(self, reader: Reader, timeout: float | None) -> AsyncGenerator[Event]:  # noqa: ASYNC109 - of no single await
        loop = asyncio.get_running_loop()
        try:
            await self._run(reader.begin)
            quiet_since, pause = loop.time(), _PAUSES[0]
            while True:
                late = timeout is not None and loop.time() - quiet_since >= timeout
                page = await self._run(reader.page, 0)
                for event in page.events:
                    yield event
                    quiet_since, pause = loop.time(), _PAUSES[0]
                if page.end and not page.events:
                    if late:
                        return
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _PAUSES[1])
        finally:
            # What is closed gives back what it holds, also where somebody cancels us twice.
            with suppress(RuntimeError):
                await asyncio.shield(self._run(reader.close))

    # -- enqueuing ---------------------------------------------------------------------------------------------------

    send = _verb(Dispatcher.send)
    send_many = _batch_verb(Dispatcher.send_many)
    close_batch = _batch_verb(Dispatcher.close_batch)
    verify = _verb(Dispatcher.verify)
    resend = _verb(Dispatcher.resend)
    check = _waiting_verb(Dispatcher.check, Dispatcher._checking)  # noqa: SLF001 - the same verb, in steps
    lookup = _verb(Dispatcher.lookup)
    lookup_many = _batch_verb(Dispatcher.lookup_many)
    line_types = _verb(Dispatcher.line_types)
    describe = _verb(Dispatcher.describe)
    operation = _verb(Dispatcher.operation)

    # -- reading, taking back, doing again ---------------------------------------------------------------------------

    get = _verb(Dispatcher.get)
    get_many = _verb(Dispatcher.get_many)

    @_named
    @wraps(Dispatcher.wait)
    async def wait(self, id_: str, *, until: Until = "settled", timeout: float = 30, reveal: bool = False) -> Job:  # noqa: ASYNC109, D102 - as `Dispatcher` has it
        steps = self._dispatcher._waiting(id_, until=until, timeout=timeout, reveal=reveal)  # noqa: SLF001 - the same verb, in steps
        late = asyncio.get_running_loop().time() + timeout
        while True:
            end, told = await self._run(_step, steps)
            if end:
                job: Job = told
                return job
            await self._looks().over(id_, ends(until), late)

    cancel = _verb(Dispatcher.cancel)
    cancel_batch = _verb(Dispatcher.cancel_batch)
    resolve = _verb(Dispatcher.resolve)
    redrive = _verb(Dispatcher.redrive)
    redrive_many = _verb(Dispatcher.redrive_many)
    jobs = _verb(Dispatcher.jobs)
    batch = _batch_verb(Dispatcher.batch)
    batch_state = _verb(Dispatcher.batch_state)
    states = _verb(Dispatcher.states)

    # -- events ------------------------------------------------------------------------------------------------------

    events = _events_verb(Dispatcher.events, Dispatcher._reader)  # noqa: SLF001 - the same verb, a page at a time

    acknowledge = _verb(Dispatcher.acknowledge)
    event_groups = _verb(Dispatcher.event_groups)
    reset_event_group = _verb(Dispatcher.reset_event_group)
    delete_event_group = _verb(Dispatcher.delete_event_group)

    callbacks = _verb(Dispatcher.callbacks)
    undelivered_callbacks = _verb(Dispatcher.undelivered_callbacks)
    redrive_callbacks = _verb(Dispatcher.redrive_callbacks)
    resume_callbacks = _verb(Dispatcher.resume_callbacks)

    # -- people ------------------------------------------------------------------------------------------------------

    opt_out = _verb(Dispatcher.opt_out)
    opt_in = _verb(Dispatcher.opt_in)
    opted_out = _verb(Dispatcher.opted_out)
    opt_outs = _verb(Dispatcher.opt_outs)
    blocked_by = _verb(Dispatcher.blocked_by)
    export_opt_outs = _listing_verb(Dispatcher.export_opt_outs)
    import_opt_outs = _verb(Dispatcher.import_opt_outs)
    guards = _verb(Dispatcher.guards)
    reopen = _verb(Dispatcher.reopen)
    forget = _verb(Dispatcher.forget)
    quiet_hours = _verb(Dispatcher.quiet_hours)

    # -- operating ---------------------------------------------------------------------------------------------------

    suspensions = _verb(Dispatcher.suspensions)
    limits = _verb(Dispatcher.limits)
    backlog = _verb(Dispatcher.backlog)
    resume = _verb(Dispatcher.resume)
    providers = _verb(Dispatcher.providers)
    budgets = _verb(Dispatcher.budgets)
    usage = _verb(Dispatcher.usage)
    block_country = _verb(Dispatcher.block_country)
    unblock_country = _verb(Dispatcher.unblock_country)
    blocked_countries = _verb(Dispatcher.blocked_countries)
    low_balances = _verb(Dispatcher.low_balances)


class _Threads:
    """Makes calls on a few threads of its own; awaiting them holds up nobody else on the loop."""

    def __init__(self, most: int) -> None:
        """Make at most so many at once."""
        self._most = most
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(self._most, thread_name_prefix="dispatcher-async")
        self._calls = set[Future[Any]]()
        self._process = os.getpid()

    async def run(self, function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Return what `function` returns. Cancelled, it is not called, or goes on where it was called already."""
        if self._closed:
            raise RuntimeError("this AsyncDispatcher is closed")
        if self._process != os.getpid():
            # A process that was forked off has none of the threads, and would wait for them for ever.
            self._start()
        context = contextvars.copy_context()
        call = self._pool.submit(partial(context.run, function, *args, **named))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return await asyncio.wrap_future(call)

    async def aclose(self, last: Callable[[], object]) -> None:
        """Wait for what is called, call `last`, and end the threads."""
        if self._closed:
            return
        self._closed = True
        # Who waits for this no longer, or not for ever, leaves nothing open.
        await asyncio.shield(self._end(last))

    async def _end(self, last: Callable[[], object]) -> None:
        if self._process != os.getpid():
            self._start()
        # Those whose await was cancelled are waited for, too: they have connections in their hands.
        await asyncio.gather(*map(asyncio.wrap_future, [*self._calls]), return_exceptions=True)
        await asyncio.wrap_future(self._pool.submit(last))
        # They are all idle: this takes no time.
        self._pool.shutdown()


class _Wait(msgspec.Struct, eq=False):
    """Somebody who waits for a job to be in one of some states, since and until a moment of the loop's clock."""

    id: str
    states: AbstractSet[State]
    since: float
    late: float
    #: What ends the wait.
    over: asyncio.Future[None]


class _Looks:
    """Looks at all jobs together that the coroutines of one loop wait for: a thousand cost not much more than one."""

    def __init__(self, busy: Callable[[dict[str, AbstractSet[State]]], Coroutine[Any, Any, set[str]]]) -> None:
        """`busy(awaited)` answers which of the jobs are in none of the states that they are awaited in."""
        self._busy = busy
        self._waits = set[_Wait]()
        self._looking: asyncio.Task[None] | None = None

    async def over(self, id_: str, states: AbstractSet[State], late: float) -> None:
        """Return when a job is in one of the states, or it is late. Raises what looking raised."""
        loop = asyncio.get_running_loop()
        wait = _Wait(id_, states, loop.time(), late, loop.create_future())
        self._waits.add(wait)
        if self._looking is None:
            self._looking = loop.create_task(self._look())
        try:
            await wait.over
        finally:
            self._waits.discard(wait)

    async def _look(self) -> None:
        """Look for those who came of late at each turn, for the others now and then, while there are any."""
        now, turns = asyncio.get_running_loop().time, 0
        try:
            while self._waits:
                await asyncio.sleep(_PAUSES[0])
                turns += 1
                slow = turns % _SLOWER == 0
                await self._tell([one for one in self._waits if slow or now() < one.since + 1 or now() >= one.late])
        finally:
            # It holds the loop, which may be over long before we are.
            self._looking = None

    async def _tell(self, waits: Sequence[_Wait]) -> None:
        try:
            busy = await self._busy_among(waits)
        except Exception as error:  # noqa: BLE001 - it is theirs
            for one in waits:
                _end(one.over, error)
            return
        now = asyncio.get_running_loop().time()
        for one in waits:
            if one not in busy or now >= one.late:
                _end(one.over)

    async def _busy_among(self, waits: Sequence[_Wait]) -> set[_Wait]:
        """Return whose job is busy: of one that is awaited in several ways, each is asked."""
        ways = {frozenset(one.states) for one in waits}
        found = [(way, await self._busy({one.id: way for one in waits if one.states == way})) for way in ways]
        return {one for way, ids in found for one in waits if one.states == way and one.id in ids}


def _end(wait: asyncio.Future[None], error: Exception | None = None) -> None:
    if wait.done():
        return
    if error is None:
        wait.set_result(None)
    else:
        wait.set_exception(error)


def _step(steps: Steps[T]) -> tuple[bool, Any]:
    """Take one step: answers whether it was the last one, and what came of it, or the seconds to sleep."""
    try:
        return False, next(steps)
    except StopIteration as end:
        return True, end.value


class AsyncBatch:
    """Jobs that were enqueued together, as `Batch` has them; everything that asks Redis is awaited."""

    def __init__(self, dispatcher: AsyncDispatcher, batch: Batch) -> None:
        """`batch` is read by the calls of `dispatcher`."""
        self._dispatcher = dispatcher
        self._batch = batch
        self.id = batch.id
        #: How many jobs this call made; the others were there before, by their idempotency keys.
        self.created = batch.created
        #: What its messages became, in their order: `async for job in batch.jobs`, `len(batch.jobs)`.
        self.jobs = AsyncBatchJobs(dispatcher, batch)

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Async{self._batch!r}"

    async def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state now, by state; zeroes are left out."""
        return await self._dispatcher._run(lambda: self._batch.counts)  # noqa: SLF001 - one of the two

    async def settled(self) -> bool:
        """Return whether no job of it is busy now, and no more messages are to follow."""
        return await self._dispatcher._run(lambda: self._batch.settled)  # noqa: SLF001 - same

    async def to_dict(self) -> dict[str, Any]:
        """Return its document as it is now: schema, id, size, counts, settled, open, cancelled."""
        return await self._dispatcher._run(self._batch.to_dict)  # noqa: SLF001 - same

    async def wait(self, until: Until = "settled", timeout: float = 30) -> dict[str, int]:  # noqa: ASYNC109 - as `Batch` has it
        """Return the counts once it is closed and all its jobs are settled, or final. Raises `WaitTimeout`."""
        return await self._dispatcher._walk(self._batch.waiting(until, timeout))  # noqa: SLF001 - same

    async def cancel(self) -> dict[str, int]:
        """Take back what is still queued, refuse what comes later, and return the counts afterwards."""
        return await self._dispatcher._run(self._batch.cancel)  # noqa: SLF001 - same

    async def redrive(self, *, resend: bool = False, dry_run: bool = False, batch_id: str | None = None) -> Redriven:
        """Enqueue its jobs again that failed, expired or are undelivered, as a new batch; its own counts stay."""
        return await self._dispatcher._run(  # noqa: SLF001 - same
            self._batch.redrive, resend=resend, dry_run=dry_run, batch_id=batch_id
        )


class AsyncBatchJobs:
    """The jobs of a batch as they are when looked at, read a page at a time."""

    def __init__(self, dispatcher: AsyncDispatcher, batch: Batch) -> None:
        """Those that `batch` has."""
        self._dispatcher = dispatcher
        self._batch = batch

    def __len__(self) -> int:
        """Return how many there are, without asking Redis."""
        return len(self._batch.jobs)

    async def ids(self) -> list[str]:
        """Return their ids in order."""
        return await self._dispatcher._run(lambda: [*self._batch.jobs.ids])  # noqa: SLF001 - one of the three

    async def __aiter__(self) -> AsyncIterator[Job]:
        """Read the jobs in order."""
        jobs = iter(self._batch.jobs)
        while page := await self._dispatcher._run(lambda: [*islice(jobs, MOST)]):  # noqa: SLF001 - same
            for one in page:
                yield one
