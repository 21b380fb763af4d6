"""Places in a process, of which some are kept for the high lane: so that codes pass a campaign that fills the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager


class Places:
    """A number of places; each lane is served in order of arrival, the high lane first."""

    def __init__(self, count: int, kept: int) -> None:
        """Have `count` places, the last `kept` of which only the high lane may take; one is always for all."""
        kept = min(kept, count - 1)
        self._free = count
        self._most = {True: count, False: count - kept}
        self._kept = {True: 0, False: kept}
        self._waiting: dict[bool, deque[tuple[int, asyncio.Future[None]]]] = {True: deque(), False: deque()}

    def take(self, number: int = 1, *, high: bool) -> AbstractAsyncContextManager[None]:
        """Hold `number` places, waiting for them; who wants more than there are holds all there are."""
        return _Held(self, min(number, self._most[high]), high=high)

    def release(self, number: int) -> None:
        """Give places back."""
        self._free += number
        self._wake()

    async def acquire(self, number: int, *, high: bool) -> None:
        """Wait for places, which are there."""
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


class _Held(AbstractAsyncContextManager[None]):
    """Places that are held meanwhile; written out, since every request takes one."""

    __slots__ = ("_high", "_number", "_places")

    def __init__(self, places: Places, number: int, *, high: bool) -> None:
        self._places, self._number, self._high = places, number, high

    async def __aenter__(self) -> None:
        await self._places.acquire(self._number, high=self._high)

    async def __aexit__(self, *_: object) -> None:
        self._places.release(self._number)


class Turns:
    """The connections of a process, and of those the few that a provider may take at once."""

    def __init__(self, connections: int, at_once: Mapping[str, int | None]) -> None:
        """Have `connections`, an eighth of them kept for the high lane; `at_once` by account, None for no limit."""
        self._connections = Places(connections, max(1, connections // 8))
        self._few = {account: Places(most, 0) for account, most in at_once.items() if most}

    def take(self, account: str, *, high: bool = False) -> AbstractAsyncContextManager[None]:
        """Hold a connection for one request of `account`."""
        few = self._few.get(account)
        return self._connections.take(high=high) if few is None else self._take_both(few, high=high)

    @asynccontextmanager
    async def _take_both(self, few: Places, *, high: bool) -> AsyncIterator[None]:
        async with few.take(high=high), self._connections.take(high=high):
            yield
