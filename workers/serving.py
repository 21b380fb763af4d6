"""How our ASGI applications are served: by uvicorn, quietly, at a socket that is bound before anything is said."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

#: Seconds that requests may take to end when the server is told to stop.
_PATIENCE: Final = 10


class _Server(uvicorn.Server):
    """A server that says when it listens, and when it is told to stop."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], Awaitable[None]], stopping: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: caught here, they would end the process a second time when all is closed."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        await self._ready()

    def told(self, number: int) -> None:
        """Stop: let what goes on for long end now, and take no more."""
        self._stopping()
        self.handle_exit(number, None)


async def serve(
    app: Callable[..., Awaitable[None]],
    host: str,
    port: int,
    ready: Callable[[str], Awaitable[None]] | None = None,
    *,
    stopping: Callable[[], object] = lambda: None,
    **more: Any,
) -> None:
    """Listen until told to stop by a signal; port 0 takes a free one.

    `ready` is called with the origin, such as `http://127.0.0.1:8470`, once connections are taken; `stopping` when a
    signal came, before requests are waited for. Nothing is logged of a request: there may be a secret in it. `more` are
    options of uvicorn. Raises `OSError` where the address cannot be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        place, taken = bound.getsockname()[:2]
        origin = f"http://[{place}]:{taken}" if ":" in place else f"http://{place}:{taken}"

        async def told() -> None:
            if ready:
                await ready(origin)

        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level=logging.WARNING,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_PATIENCE,
            **more,
        )
        server = _Server(config, told, stopping)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.told, number)
        await server.serve(sockets=[bound])
