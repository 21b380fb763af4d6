"""The same as an arq job: `arq arq_task.WorkerSettings`."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from textgoto import IN_FLIGHT, REDELIVER_AFTER, REDIS_URL, async_client

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

#: No line of log for each job.
LOGGING = {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING"}}

redis = RedisSettings.from_dsn(REDIS_URL)


async def startup(ctx: dict[str, Any]) -> None:
    ctx["client"] = async_client()


async def shutdown(ctx: dict[str, Any]) -> None:
    await ctx["client"].aclose()


async def send(ctx: dict[str, Any], number: str, text: str) -> None:
    await ctx["client"].send(number, text)


class WorkerSettings:
    functions: ClassVar = [send]
    on_startup = startup
    on_shutdown = shutdown
    redis_settings = redis
    max_jobs = IN_FLIGHT
    keep_result = 0
    # What a dead worker held counts as in progress for as long as a job may take.
    job_timeout = REDELIVER_AFTER or 300


def enqueue(messages: list[tuple[str, str]]) -> None:
    asyncio.run(_enqueue(messages))


async def _enqueue(messages: list[tuple[str, str]]) -> None:
    pool = await create_pool(redis)
    for message in messages:
        await pool.enqueue_job("send", *message)
    await pool.aclose()
