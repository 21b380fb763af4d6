"""The thin layer between Celery and `workers.execute`: one event loop a process, and the task that hands it ids."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from celery.worker import state
from kombu.exceptions import KombuError

from dispatcher.accounts import KEY
from dispatcher.calls import Calls
from dispatcher.errors import StoreUnavailable
from dispatcher.notices import NOTIFY
from dispatcher.queues import BEAT, beat_queue, depth, publish
from dispatcher.store import Caller
from workers import heartbeat, loops
from workers.adapters import adapters, described
from workers.callbacks import Reader
from workers.clock import Clock
from workers.execute import Execution
from workers.failpoints import Failpoints
from workers.heartbeat import Heartbeat
from workers.history import History, WatchedStore
from workers.inquiries import Inquiries
from workers.limits import Limiter, RedisLimiter
from workers.notify import Notifier
from workers.suspensions import Probes
from workers.transport import Transport

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")

#: Seconds that Redis is waited for once a worker was told to stop, beyond the time of what is on the wire.
_FAREWELL: Final = 2.0


class Runtime:
    """What one process needs: an event loop in a thread of its own, and everything that lives on it."""

    def __init__(
        self,
        app: Celery,
        settings: Settings,
        accounts: Sequence[str],
        points: Failpoints | None = None,
        *,
        notifies: bool = False,
    ) -> None:
        """Serve `accounts`, tell consumers where it `notifies`, and die at `points`.

        Raises `ConfigurationError` naming the setting at fault, also where this Redis holds live jobs and we are the
        sandbox's or the other way round; `StoreUnavailable` where it does not answer.
        """
        self._app = app
        self._settings = settings
        self._points = points
        self._notifies = notifies
        self._adapters = adapters(settings, accounts)
        self._described = {
            name: msgspec.json.encode(described(one, sandbox=settings.sandbox)) for name, one in self._adapters.items()
        }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatcher-loop", daemon=True)
        self._thread.start()
        self._calls: set[Future[Any]] = set()
        self._running: list[asyncio.Task[None]] = []
        self._giving_up: Future[None] | None = None
        self._heartbeat: Heartbeat | None = None
        self._probes: Probes | None = None
        self._notifier: Notifier | None = None
        try:
            self.run(self._open())
        except BaseException:
            self._end_loop()
            raise

    @property
    def accounts(self) -> list[str]:
        """The accounts that are served here."""
        return list(self._adapters)

    @property
    def serves(self) -> list[str]:
        """All that is served here: accounts, and the queue of notices."""
        return [*self._adapters, *([NOTIFY] if self._notifies else [])]

    async def _open(self) -> None:
        self._history = History(self._settings)
        self._store = WatchedStore(self._settings, self._history)
        await self._store.durability()
        await self._store.run(Calls(self._settings).enter())
        # Known before it claims anything, so that it is missed.
        await self._store.run(Calls(self._settings).pulse(self._history.name))
        self._running.append(asyncio.create_task(self._history.pulse(self._store)))
        deadline, points = self._settings.deadline, self._points
        self._transport = Transport(
            deadline=deadline,
            connect=min(3, deadline / 2),
            read=min(15, deadline),
            reached=None if points is None else points.reached,
        )
        store: Caller = self._store
        self._limiter = RedisLimiter(self._settings, self._adapters, self._store, lambda: self._history.run)
        limiter: Limiter = self._limiter
        if points is not None:
            store, limiter = points.store(store), points.limiter(limiter)
        self.execution = Execution(
            self._settings, self._adapters, store, limiter, self._transport, publish=self._publish
        )
        self._reader = Reader(self._settings, self._adapters, self._store, self._publish)
        if self._notifies:
            self._notifier = Notifier(self._settings, self._store, self._publish_endpoint)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for it, from any other thread.

        Raises `concurrent.futures.CancelledError` where it is given up because this process stops.
        """
        call = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._calls.add(call)
        try:
            return call.result()
        finally:
            self._calls.discard(call)

    def announce(self) -> None:
        """Publish which accounts are served here and what they can do. Raises `StoreUnavailable`."""
        self.run(self._announce())

    def start(self, node: str, slots: int) -> None:
        """Begin to look after what is due, and to beat as `node`, which has so many slots."""
        self.run(self._start(node, slots))

    def answer(self, node: str) -> None:
        """Answer that a beat came through. Raises `StoreUnavailable`."""
        self.run(heartbeat.answer(self._store, node))

    def hand_back(self) -> None:
        """Claim nothing any more, and say so; what then outlives its requests and waits for Redis is given up."""
        self.execution.stop()
        if self._notifier is not None:
            self._notifier.stop()
        self._giving_up = asyncio.run_coroutine_threadsafe(self._give_up(), self._loop)
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def stop(self) -> None:
        """Stop the clock and the heartbeat, close every connection, end the loop."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._end_loop()

    async def _give_up(self) -> None:
        await asyncio.sleep(self._settings.deadline + _FAREWELL)
        while self._calls:
            try:
                async with asyncio.timeout(1):
                    await self._store.run(Calls(self._settings).pulse(self._history.name))
            except (StoreUnavailable, TimeoutError):
                log.error("Redis is away: what became of %d messages cannot be written", len(self._calls))  # noqa: TRY400 - a traceback would not say more
                for call in tuple(self._calls):
                    call.cancel()
            await asyncio.sleep(1)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @property
    def reader(self) -> Reader:
        """What reads the callbacks of the accounts that are served here."""
        return self._reader

    async def notify(self, endpoints: Sequence[str]) -> str:
        """Tell endpoints what is due there; return a short word for whoever watches."""
        return await self._notifier.tell(endpoints) if self._notifier is not None else "not served here"

    async def _start(self, node: str, slots: int) -> None:
        self._probes = Probes(
            self._settings,
            self._adapters,
            self._store,
            self.execution.suspensions,
            ask=self.execution.ask,
            execute=self.execution.execute,
        )
        clock = Clock(self._settings, self._store, self._publish, self._empty, self._probes.look)
        self._heartbeat = Heartbeat(
            self._settings,
            self._store,
            node,
            self._described,
            slots=slots,
            also=[NOTIFY] if self._notifies else [],
            busy=lambda: len(state.reserved_requests),
            ask=lambda: self._ask(node),
        )
        inquiries = Inquiries(
            self._settings,
            self._adapters,
            self._store,
            self._limiter,
            self._transport,
            turns=self.execution.turns,
            suspensions=self.execution.suspensions,
        )
        loops_of_it = [clock.run(), self._heartbeat.run(), inquiries.run()]
        if self._notifier is not None:
            loops_of_it.append(self._notifier.run())
        self._running += [asyncio.create_task(one) for one in loops_of_it]

    async def _close(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
        await loops.end(*self._running)
        if self._probes is not None:
            await self._probes.close()
        with contextlib.suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(1):
                await self._limiter.close()
                await self._history.leave(self._store)
                if self._heartbeat is not None:
                    await self._heartbeat.leave()
        if self._notifier is not None:
            await self._notifier.close()
        await self._transport.aclose()
        await self._store.close()

    async def _announce(self) -> None:
        if not self._described:
            return
        with self._store.errors():
            await self._store.redis.hset(KEY, mapping=dict(self._described))  # type: ignore[arg-type]  # the stubs know no dict of bytes

    async def _publish(self, queue: str, ids: list[str]) -> None:
        try:
            # kombu blocks; the loop must not.
            await asyncio.to_thread(publish, self._app, queue, ids)
        except (KombuError, OSError) as error:
            # They are in the outbox, where the clock finds them again.
            log.warning("%d jobs of %s could not be published: %s", len(ids), queue, error.__class__.__name__)

    async def _publish_endpoint(self, endpoint: str) -> bool:
        try:
            await asyncio.to_thread(publish, self._app, NOTIFY, [endpoint])
        except (KombuError, OSError) as error:
            log.warning("callbacks could not be published: %s", error.__class__.__name__)
            return False
        return True

    async def _ask(self, node: str) -> None:
        # What keeps the question from the broker is what the heartbeat is there to show.
        with contextlib.suppress(KombuError, OSError):
            await asyncio.to_thread(self._app.send_task, BEAT, queue=beat_queue(node))  # type: ignore[arg-type]  # the stubs know names only

    async def _empty(self, queue: str) -> bool:
        return await asyncio.to_thread(depth, self._app, queue) == 0
