"""What every loop in a worker needs: to be ended for sure."""

from __future__ import annotations

import asyncio
from typing import Any, Final

#: Seconds between cancellations.
_AGAIN: Final = 0.1


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return when they have ended.

    One cancellation is not enough: in the middle of a call redis-py (8.1) loses some, and the loop would go on.
    """
    left = set(tasks)
    while left:
        for one in left:
            one.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN)
