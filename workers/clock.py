"""Due work: schedules and retries whose time has come, lost messages, dead workers, passed times.

Any worker serves it, for all accounts; two of them are harmless, since each step is one script that takes what it
answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from dispatcher.callbacks import CallbackCalls
from dispatcher.calls import MOST, Call, Calls
from dispatcher.endpoints import NoticeCalls
from dispatcher.errors import StoreUnavailable
from dispatcher.queues import both_queues, provider_of, receipts_queue
from dispatcher.store import AsyncJobStore, unavailable

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.clock")


class Clock:
    """Looks for due jobs every tick, and for what went wrong every few seconds."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncJobStore,
        publish: Callable[[str, list[str]], Awaitable[None]],
        empty: Callable[[str], Awaitable[bool]],
        look: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`publish(queue, ids)` puts a message on the broker; `empty(queue)` says whether there is none.

        `look` looks after what is suspended, with every tick.
        """
        self._settings = settings
        self._store = store
        self._publish = publish
        self._empty = empty
        self._look = look
        self._calls = Calls(settings)
        self._callbacks = CallbackCalls(settings)
        self._notices = NoticeCalls(settings)

    async def run(self) -> None:
        """Tick until cancelled, whatever happens to Redis or the broker meanwhile."""
        next_sweep = time.monotonic()
        told = ""
        while True:
            try:
                if time.monotonic() >= next_sweep:
                    next_sweep = time.monotonic() + self._settings.sweep_every
                    await self.sweep()
                await self.tick()
                if told:
                    log.warning("Redis answers again")
                    told = ""
            except StoreUnavailable as error:
                # Once: of what goes on for an hour, a line a second would bury all else.
                if str(error) != told:
                    told = str(error)
                    log.warning("%s", told)
                await asyncio.sleep(1)
            except Exception as error:  # noqa: BLE001 - a clock that stops would strand every waiting job
                log.error("the clock stumbled: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
                await asyncio.sleep(1)
            await asyncio.sleep(self._settings.tick)

    async def tick(self) -> int:
        """Publish the jobs that are due and those whose turn it is; return how many."""
        released = 0
        if self._look is not None:
            try:
                await self._look()
            except msgspec.MsgspecError as error:
                log.error("what is suspended cannot be read: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
        due, lined = await self._store.run(self._calls.waiting())
        for queue in due:
            released += await self._release(queue)
        # What was due may wait for its turn now.
        for account in dict.fromkeys([*map(provider_of, due), *lined]):
            released += await self._deal(account)
        return released

    async def _release(self, queue: str) -> int:
        released, due = 0, MOST
        while due >= MOST:
            due, out = await self._store.run(self._calls.due(queue))
            released += await self._told(queue, out)
        return released

    async def _deal(self, account: str) -> int:
        released, most = 0, MOST
        while most >= MOST:
            dealt = await self._store.run(self._calls.deal(account))
            released += sum([await self._told(queue, ids) for queue, ids in dealt.items()])
            most = max(map(len, dealt.values()))
        return released

    async def _told(self, queue: str, ids: list[str]) -> int:
        if ids:
            await self._publish(queue, ids)
        return len(ids)

    async def sweep(self) -> None:
        """End dead workers' leases, expire what was not sent in time, publish lost messages again."""
        # Nothing is trimmed that was not moved on to who is told of it.
        while (await self._store.run(self._notices.gather(publishes=False))).moved:
            pass
        while any(done := await self._store.run(self._calls.sweep())):
            log.info("ended %d leases, expired %d jobs", *done)
            if max(done) < MOST:
                break
        for queue in [queue for account in await self._accounts() for queue in both_queues(account)]:
            await self._find_lost(queue, f"d:o:{queue}", partial(self._calls.lost, queue))
        for account in await self._store.run(self._callbacks.sweep()):
            queue = receipts_queue(account)
            await self._find_lost(queue, f"d:co:{account}", partial(self._callbacks.lost, account))

    async def _find_lost(self, queue: str, outbox: str, lost_of: Callable[..., Call[list[str]]]) -> None:
        """Publish again what of a queue is lost; the broker is asked only where a message is late at all."""
        with unavailable(self._settings.redis_shown):
            now, _ = await self._store.redis.time()
            late = await self._store.redis.zcount(outbox, "-inf", (now - self._settings.lost_after) * 1000)
        if not late:
            return
        empty = await self._empty(queue)
        while lost := await self._store.run(lost_of(empty=empty)):
            log.warning("%d messages of %s were lost and are published again", len(lost), queue)
            await self._publish(queue, lost)
            if len(lost) < MOST:
                break

    async def _accounts(self) -> list[str]:
        with unavailable(self._settings.redis_shown):
            accounts: Any = await self._store.redis.smembers("d:p")
        return sorted(account.decode() for account in accounts)
