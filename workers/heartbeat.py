"""A worker's heartbeat: `dispatcher.heartbeats` says what it means."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import accounts
from dispatcher.errors import StoreUnavailable
from dispatcher.heartbeats import REMEMBERED, SERVED, WORKERS, Worker, fields, key
from dispatcher.store import AsyncJobStore

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

#: Beats after which a question that nobody answered is asked again: its message may have been lost.
_ASK_AGAIN: Final = 2

#: Beats missed after which it begins anew, as after a start: its consumer, too, comes back from an outage.
_AWAY: Final = 3


class Heartbeat:
    """Tells of this worker every few seconds, and asks of its consumer to answer."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncJobStore,
        node: str,
        served: Mapping[str, bytes],
        *,
        also: Sequence[str] = (),
        slots: int,
        busy: Callable[[], int],
        ask: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Tell of `node`, which serves the accounts in `served`, each as it is published, and `also` other queues.

        `busy` says how many of its `slots` are taken; `ask` publishes a message that ends in `answer`.
        """
        self._settings = settings
        self._store = store
        self._served = served
        self._busy = busy
        self._ask = ask
        self._asked = 0
        self._asking: asyncio.Task[None] | None = None
        self._told = Worker(
            node=node,
            accounts=[*served, *also],
            since=0,
            at=0,
            slots=slots,
            every=settings.heartbeat,
            deadline=settings.deadline,
        )

    def stop(self) -> None:
        """Tell from the next beat on that this worker stops."""
        self._told = msgspec.structs.replace(self._told, stopping=True)

    async def run(self) -> None:
        """Beat until cancelled, whatever happens to Redis meanwhile."""
        while True:
            try:
                await self.beat()
            except StoreUnavailable:
                # The clock, which asks more often, says so.
                pass
            except Exception as error:  # noqa: BLE001 - a heart that stops would have a good worker restarted
                log.error("the heartbeat stumbled: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
            await asyncio.sleep(self._settings.heartbeat)

    async def beat(self) -> None:
        """Tell once, and ask unless an earlier question is still open. Raises `StoreUnavailable`."""
        node = self._told.node
        now = await self._store.now()
        beat = 1000 * self._settings.heartbeat
        since = self._told.since if now - self._told.at <= _AWAY * beat else now
        busy = min(self._busy(), self._told.slots)
        self._told = msgspec.structs.replace(self._told, at=now, since=since, busy=busy)
        with self._store.errors():
            async with self._store.redis.pipeline() as pipe:
                pipe.hset(key(node), mapping=fields(self._told))  # type: ignore[arg-type]  # the stubs know no dict of numbers
                pipe.pexpire(key(node), 1000 * REMEMBERED)
                pipe.zadd(WORKERS, {node: now})
                pipe.zremrangebyscore(WORKERS, "-inf", now - 1000 * REMEMBERED)
                # Told each time, so that an emptied Redis learns it again.
                if self._served:
                    pipe.hset(accounts.KEY, mapping=dict(self._served))  # type: ignore[arg-type]  # the stubs know no dict of bytes
                    pipe.zadd(SERVED, dict.fromkeys(self._served, now))
                pipe.hget(key(node), "consumed")
                new, *_, consumed = await pipe.execute()
        # Where there was nothing of us, Redis was emptied, and the question went with the rest.
        open_still = not new and int(consumed or 0) < self._asked and now - self._asked <= _ASK_AGAIN * beat
        if not open_still and not self._told.stopping:
            self._asked = now
            # Not waited for: a broker that hangs is no reason not to beat.
            self._asking = asyncio.create_task(self._ask())

    async def leave(self) -> None:
        """Take leave: a worker that was told to stop is not missed. Raises `StoreUnavailable`."""
        with self._store.errors():
            async with self._store.redis.pipeline() as pipe:
                pipe.delete(key(self._told.node))
                pipe.zrem(WORKERS, self._told.node)
                await pipe.execute()


async def answer(store: AsyncJobStore, node: str) -> None:
    """Note that a message came through the consumer of `node` and through its loop. Raises `StoreUnavailable`."""
    now = await store.now()
    with store.errors():
        async with store.redis.pipeline() as pipe:
            pipe.hset(key(node), "consumed", str(now))
            pipe.pexpire(key(node), 1000 * REMEMBERED)
            await pipe.execute()
