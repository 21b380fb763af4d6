"""A call that says what has happened already is made again for as long as Redis is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from dispatcher.errors import StoreUnavailable

T = TypeVar("T")


async def insist(
    work: Callable[[], Awaitable[T]],
    seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """Do it again while Redis is away, and soon after it is back; raise `StoreUnavailable` after so many seconds."""
    # Nearly always once, and then without tenacity, which costs 70 µs a call.
    failed, ends = list[StoreUnavailable](), time.monotonic() + seconds
    try:
        return await work()
    except StoreUnavailable as error:
        failed.append(error)
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable),
        stop=lambda _: time.monotonic() >= ends,
        wait=wait_random_exponential(0.1, max=2),
        sleep=sleep,
        reraise=True,
    ):
        with attempt:
            if failed:
                raise failed.pop()
            answer = await work()
    return answer
