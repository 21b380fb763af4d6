"""Send as fast as one process can over one of the engines of httpx: `python engine.py NAME COUNT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import httpx
from enqueue import message
from httpx_aiohttp import AiohttpTransport
from textgoto import IN_FLIGHT, Engine, on_ours


def _own() -> Engine:
    limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
    return Engine(httpx.AsyncHTTPTransport(limits=limits))


ENGINES: dict[str, Callable[[], Engine]] = {
    "ours": on_ours,
    "aiohttp": lambda: Engine(AiohttpTransport()),
    "httpx": _own,
}


async def _loop(name: str, count: int) -> None:
    client, texts = ENGINES[name](), iter([message(n) for n in range(count)])

    async def send() -> None:
        for text in texts:
            await client.send(*text)

    await asyncio.gather(*(send() for _ in range(IN_FLIGHT)))
    await client.aclose()


def main() -> None:
    asyncio.run(_loop(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    main()
