"""The same as a taskiq task: `taskiq worker taskiq_task:broker --workers 1 --max-async-tasks 64`."""

from __future__ import annotations

import asyncio
from typing import Annotated

from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker
from textgoto import REDELIVER_AFTER, REDIS_URL, async_client

# How long a message may be in a worker's hands, in ms, and the lock under which that is looked for, in seconds.
SOON = {"idle_timeout": REDELIVER_AFTER * 1000, "unacknowledged_lock_timeout": REDELIVER_AFTER}

# The broker that acknowledges.
broker = RedisStreamBroker(REDIS_URL, **(SOON if REDELIVER_AFTER else {}))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state: TaskiqState) -> None:
    state.client = async_client()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state: TaskiqState) -> None:
    await state.client.aclose()


@broker.task
async def send(number: str, text: str, context: Annotated[Context, TaskiqDepends()]) -> None:
    await context.state.client.send(number, text)


def enqueue(messages: list[tuple[str, str]]) -> None:
    asyncio.run(_enqueue(messages))


async def _enqueue(messages: list[tuple[str, str]]) -> None:
    await broker.startup()
    for message in messages:
        await send.kiq(*message)
    await broker.shutdown()
