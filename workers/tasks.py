"""The thin layer between Celery and `workers.execute`: one event loop a process, and the task that hands it ids."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from kombu.exceptions import ChannelError, KombuError

from dispatcher.accounts import KEY
from dispatcher.queues import declared, publish
from dispatcher.store import AsyncJobStore, Calls, unavailable
from workers.adapters import adapters, described
from workers.clock import Clock
from workers.execute import Execution
from workers.limits import Unlimited
from workers.transport import Transport

if TYPE_CHECKING:
    from celery import Celery

    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")


class Runtime:
    """What one process needs: an event loop in a thread of its own, and everything that lives on it."""

    def __init__(self, app: Celery, settings: Settings, accounts: Sequence[str]) -> None:
        """Serve `accounts`.

        Raises `ConfigurationError` naming the setting at fault, also where this Redis holds live jobs and we are the
        sandbox's or the other way round; `StoreUnavailable` where it does not answer.
        """
        self._app = app
        self._settings = settings
        self._adapters = adapters(settings, accounts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dispatcher-loop", daemon=True)
        self._thread.start()
        self._clock: asyncio.Task[None] | None = None
        try:
            self.run(self._open())
        except BaseException:
            self._end_loop()
            raise

    async def _open(self) -> None:
        self._store = AsyncJobStore(self._settings.redis, self._settings.redis_shown)
        await self._store.run(Calls(self._settings).enter())
        deadline = self._settings.deadline
        self._transport = Transport(deadline=deadline, connect=min(3, deadline / 2), read=min(15, deadline))
        self.execution = Execution(
            self._settings, self._adapters, self._store, Unlimited(), self._transport, publish=self._publish
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for it, from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def announce(self) -> None:
        """Publish which accounts are served here and what they can do. Raises `StoreUnavailable`."""
        self.run(self._announce())

    def start_clock(self) -> None:
        """Begin to look after what is due."""
        self.run(self._start_clock())

    def stop(self) -> None:
        """Stop the clock, close every connection, end the loop."""
        self.run(self._close())
        self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _start_clock(self) -> None:
        clock = Clock(self._settings, self._store, self._publish, self._empty)
        self._clock = asyncio.create_task(clock.run())

    async def _close(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.wait([self._clock])
        await self._transport.aclose()
        await self._store.close()

    async def _announce(self) -> None:
        told = {
            name: msgspec.json.encode(described(one, sandbox=self._settings.sandbox))
            for name, one in self._adapters.items()
        }
        with unavailable(self._settings.redis_shown):
            await self._store.redis.hset(KEY, mapping=told)  # type: ignore[arg-type]  # the stubs know no dict of bytes

    async def _publish(self, queue: str, ids: list[str]) -> None:
        try:
            # kombu blocks; the loop must not.
            await asyncio.to_thread(publish, self._app, queue, ids)
        except (KombuError, OSError) as error:
            # They are in the outbox, where the clock finds them again.
            log.warning("%d jobs of %s could not be published: %s", len(ids), queue, error.__class__.__name__)

    async def _empty(self, queue: str) -> bool:
        return await asyncio.to_thread(self._count, queue) == 0

    def _count(self, queue: str) -> int:
        with self._app.connection_for_read() as connection:
            try:
                told: Any = declared(queue)(connection.default_channel).queue_declare(passive=True)
                return int(told.message_count)
            except ChannelError:
                # Redis has no list for a queue that is empty.
                return 0
