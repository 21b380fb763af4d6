"""The same as a streaQ task: `streaq run streaq_task:worker`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from streaq import Worker
from textgoto import IN_FLIGHT, REDELIVER_AFTER, REDIS_URL, AsyncClient, Engine, async_client


@asynccontextmanager
async def lifespan() -> AsyncIterator[AsyncClient | Engine]:
    client = async_client()
    try:
        yield client
    finally:
        await client.aclose()


worker = Worker(
    redis_url=REDIS_URL,
    concurrency=IN_FLIGHT,
    lifespan=lifespan,
    anyio_kwargs={"use_uvloop": True},
    # Seconds until what a dead worker held is given to another.
    idle_timeout=REDELIVER_AFTER or 60,
)


@worker.task(ttl=0, silent=True)
async def send(number: str, text: str) -> None:
    await worker.context.send(number, text)


def enqueue(messages: list[tuple[str, str]]) -> None:
    anyio.run(_enqueue, messages)


async def _enqueue(messages: list[tuple[str, str]]) -> None:
    async with worker:
        await worker.enqueue_many([send.enqueue(*message) for message in messages])
