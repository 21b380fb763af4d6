"""The process: `dispatcher api`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dispatcher.errors import StoreUnavailable
from workers.api.app import Api
from workers.serving import serve

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.api")


def run(
    settings: Settings, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], Awaitable[None]] | None = None
) -> None:
    """Listen until told to stop by a signal; port 0 takes a free one.

    `ready` is called with the origin, such as `http://127.0.0.1:8480`, once connections are taken. Raises `OSError`
    where the address cannot be had, `ConfigurationError` where a setting is missing or the jobs in Redis are not ours.
    """
    asyncio.run(_serve(settings, host, port, ready))


async def _serve(settings: Settings, host: str, port: int, ready: Callable[[str], Awaitable[None]] | None) -> None:
    api = Api(settings)
    try:
        try:
            await api.enter()
        except StoreUnavailable as error:
            # It comes back; until then who asks is asked to come again.
            log.warning("%s", error)
        await serve(api, host, port, ready, stopping=api.following.stop)
    finally:
        await api.aclose()
