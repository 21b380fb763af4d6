"""Events for many who listen: the stream is read once for all of them, each gets what is theirs.

Who is behind reads by themselves until they are not. So a connection that waits costs a few kilobytes here, and Redis
nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher.errors import DispatcherError
from dispatcher.events import Event, Row, Wanted, parts

if TYPE_CHECKING:
    from workers.api.service import Service

#: Pages of the stream that are kept for those who are a little behind.
_PAGES: Final = 16

#: Seconds that one read of the stream waits for news, so that a stop is noticed.
_BLOCK: Final = 1.0

#: Seconds between two signs of life to one who listens: proxies cut what is silent for a minute.
HEARTBEAT: Final = 15.0


class Page:
    """Some rows of the stream, and what of them is for whom."""

    def __init__(self, before: str, rows: list[Row]) -> None:
        """`before` is the cursor that they come after."""
        self.before = parts(before)
        self.rows = rows
        self.last = rows[-1][0].decode()
        self._of: dict[tuple[str | None, str | None, bool], asyncio.Future[list[Event]]] = {}

    async def events(self, service: Service, wanted: Wanted, *, reveal: bool) -> list[Event]:
        """Return the events that are wanted, read once for all who may see the same."""
        kind = (wanted.tenant, wanted.batch, reveal)
        read = self._of.get(kind)
        if read is None or (read.done() and (read.cancelled() or read.exception())):
            whole = Wanted(tenant=wanted.tenant, batch=wanted.batch)
            read = asyncio.ensure_future(service.select(self.rows, whole, reveal=reveal))
            self._of[kind] = read
        # It is for others, too: one who goes away does not take it along.
        return [one for one in await asyncio.shield(read) if wanted.type_fits(one.type)]


class Following:
    """Tells events to those who listen, while there are any."""

    def __init__(self, service: Service, heartbeat: float = HEARTBEAT) -> None:
        """Read by the calls of `service`."""
        self._service = service
        self._heartbeat = heartbeat
        self._pages: deque[Page] = deque(maxlen=_PAGES)
        self._news = asyncio.Condition()
        self._tail: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = 0
        #: Where the tail began, None while there is none.
        self._begun: tuple[int, int] | None = None
        #: Counts what may be news.
        self._turn = 0
        self._error: DispatcherError | None = None
        self.closing = False

    @property
    def listening(self) -> int:
        """How many listen now."""
        return self._listening

    async def close(self) -> None:
        """Let everybody go, and read no more."""
        self.stop()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def stop(self) -> None:
        """Let everybody go: what is waited for ends with what there is."""
        self.closing = True
        self._start(self._wake())

    async def poll(self, cursor: str, wanted: Wanted, *, reveal: bool, seconds: float) -> tuple[list[Event], str]:
        """Return the next events after `cursor`, waiting at most `seconds` for them, and where to go on.

        Raises `CursorExpired` and `StoreUnavailable`.
        """
        with self._listen():
            return await self._next(cursor, wanted, reveal=reveal, seconds=seconds)

    async def stream(
        self, cursor: str, wanted: Wanted, *, reveal: bool, admitted: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[bytes]:
        """Yield events as server-sent ones, and signs of life, until nobody is `admitted` any more.

        It ends where Redis does not answer, or the cursor expired: whoever comes back is told so by a status.
        """
        yield b"retry: 2000\n\n"
        with self._listen():
            while not self.closing:
                try:
                    events, cursor = await self._next(cursor, wanted, reveal=reveal, seconds=self._heartbeat)
                    if not await admitted():
                        return
                except DispatcherError:
                    return
                # The last line is no event, since it has no data, and says where to go on all the same.
                yield b"".join(map(_told, events)) + b": here\nid: %s\n\n" % cursor.encode()

    # -- within ------------------------------------------------------------------------------------------------------

    async def _next(self, cursor: str, wanted: Wanted, *, reveal: bool, seconds: float) -> tuple[list[Event], str]:
        until = time.monotonic() + seconds
        while True:
            turn = self._turn
            page = self._page_after(cursor) or await self._read(cursor)
            if page is not None:
                events = await page.events(self._service, wanted, reveal=reveal)
                # A page for all may begin before where this one is.
                events = [one for one in events if parts(one.cursor) > parts(cursor)]
                cursor = page.last
                if events:
                    return events, cursor
            left = until - time.monotonic()
            if left <= 0 or self.closing:
                return [], cursor
            if page is None:
                await self._wait(cursor, left, turn)

    @contextmanager
    def _listen(self) -> Iterator[None]:
        self._listening += 1
        try:
            yield
        finally:
            self._listening -= 1

    def _page_after(self, cursor: str) -> Page | None:
        """Return the first page that is kept and has something after `cursor`, where none is missed by that."""
        if self._behind(cursor):
            return None
        return next((one for one in self._pages if parts(one.last) > parts(cursor)), None)

    async def _read(self, cursor: str) -> Page | None:
        rows = await self._service.rows(cursor, 0) if self._behind(cursor) else []
        return Page(cursor, rows) if rows else None

    def _behind(self, cursor: str) -> bool:
        """Say whether only Redis can tell what comes after `cursor`."""
        known = self._pages[0].before if self._pages else self._begun
        return known is None or known > parts(cursor)

    async def _wait(self, cursor: str, seconds: float, turn: int) -> None:
        """Return when there may be news since `turn`. Raises what kept them from being read."""
        if self._tail is None:
            self._error = None
            self._tail = self._start(self._follow(cursor))
        async with self._news:
            if self._turn != turn:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()
        if self._error is not None:
            raise self._error

    async def _follow(self, cursor: str) -> None:
        """Read the stream on from `cursor`, which is its end, or beyond where somebody made it up."""
        try:
            cursor = min(cursor, await self._service.start(None), key=parts)
            self._begun = parts(cursor)
            while self._listening and not self.closing:
                rows = await self._service.rows(cursor, _BLOCK)
                if rows:
                    self._pages.append(Page(cursor, rows))
                    cursor = self._pages[-1].last
                    await self._wake()
        except DispatcherError as error:
            self._error = error
        finally:
            self._tail = self._begun = None
            self._pages.clear()
            await self._wake()

    async def _wake(self) -> None:
        async with self._news:
            self._turn += 1
            self._news.notify_all()

    def _start(self, steps: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(steps)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _told(event: Event) -> bytes:
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (
        event.cursor.encode(), event.type.encode(), msgspec.json.encode(event),
    )  # fmt: skip
