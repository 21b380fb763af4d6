"""Places in a process, of which some are kept for the high lane: so that codes pass a campaign that fills the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager


class Places:
    """A number of places; each lane is served in order of arrival, the high lane first."""

    def __init__(self, count: int, kept: int) -> None:
        """Have `count` places, the last `kept` of which only the high lane may take; one is always for all."""
        kept = min(kept, count - 1)
        self._free = count
        self._most = {True: count, False: count - kept}
        self._kept = {True: 0, False: kept}
        self._waiting: dict[bool, deque[tuple[int, asyncio.Future[None]]]] = {True: deque(), False: deque()}

    @asynccontextmanager
    async def take(self, number: int = 1, *, high: bool) -> AsyncIterator[None]:
        """Hold `number` places, waiting for them; who wants more than there are holds all there are."""
        number = min(number, self._most[high])
        await self._acquire(number, high=high)
        try:
            yield
        finally:
            self._free += number
            self._wake()

    async def _acquire(self, number: int, *, high: bool) -> None:
        if not self._waiting[high] and self._fits(number, high=high):
            self._free -= number
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[high].append((number, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # It was given its places in the same moment.
                self._free += number
            self._wake()
            raise

    def _fits(self, number: int, *, high: bool) -> bool:
        return self._free - number >= self._kept[high]

    def _wake(self) -> None:
        for high, waiting in self._waiting.items():
            while waiting and (waiting[0][1].done() or self._fits(waiting[0][0], high=high)):
                number, place = waiting.popleft()
                if not place.done():
                    self._free -= number
                    place.set_result(None)


class Turns:
    """The connections of a process, and of those the few that a provider may take at once."""

    def __init__(self, connections: int, at_once: Mapping[str, int | None]) -> None:
        """Have `connections`, an eighth of them kept for the high lane; `at_once` by account, None for no limit."""
        self._connections = Places(connections, max(1, connections // 8))
        self._few = {account: Places(most, 0) for account, most in at_once.items() if most}

    @asynccontextmanager
    async def take(self, account: str, *, high: bool = False) -> AsyncIterator[None]:
        """Hold a connection for one request of `account`."""
        async with AsyncExitStack() as held:
            if account in self._few:
                await held.enter_async_context(self._few[account].take(high=high))
            await held.enter_async_context(self._connections.take(high=high))
            yield
