"""Calls that are made together: what is asked for while one is on its way travels in the next.

A quiet system pays nothing for it, since whoever asks alone is served at once; a busy one makes a call of many where
each would have made its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

#: Seconds between two calls: who is so busy that they follow each other makes fewer and larger ones.
_PAUSE: Final = 0.005


class Gathered(Generic[Asked, Answer]):
    """One kind of call, made for many at a time, one call after the other."""

    def __init__(
        self,
        make: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        most: int,
        *,
        size: Callable[[Any], int] = len,
        rank: Callable[[Asked], int] = lambda _: 0,
        unclaimed: Callable[[Asked, Answer], object] = lambda _asked, _answer: None,
    ) -> None:
        """`make` answers each of what it is handed, whose `size` is `most` in all unless it is a single one.

        Those with a lower `rank` go first, each in order of arrival; `unclaimed` is told of an answer whose asker was
        cancelled meanwhile.
        """
        self._make = make
        self._most = most
        self._size = size
        self._rank = rank
        self._unclaimed = unclaimed
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._flight: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answer:
        """Return the answer to `asked`. Raises what the call that it travelled with raised."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._flight is None:
            self._flight = asyncio.create_task(self._fly())
        return await answer

    async def _fly(self) -> None:
        """Make calls until nobody waits."""
        try:
            while together := self._next():
                await self._call(together)
                if 0 < len(self._waiting) < self._most:
                    await asyncio.sleep(_PAUSE)
        finally:
            self._flight = None

    async def _call(self, together: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._make([asked for asked, _ in together])
        except Exception as error:  # noqa: BLE001 - it is raised where they wait
            for _, waiting in together:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (asked, waiting), answer in zip(together, answers, strict=True):
            if waiting.done():
                self._unclaimed(asked, answer)
            else:
                waiting.set_result(answer)

    def _next(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        """Return those of the next call."""
        self._waiting = [one for one in self._waiting if not one[1].done()]
        self._waiting.sort(key=lambda one: self._rank(one[0]))
        count, size = 0, 0
        for asked, _ in self._waiting:
            size += self._size(asked)
            if count and size > self._most:
                break
            count += 1
        together, self._waiting = self._waiting[:count], self._waiting[count:]
        return together
