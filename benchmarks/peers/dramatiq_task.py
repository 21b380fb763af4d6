"""The same as a dramatiq actor: `dramatiq dramatiq_task --processes 1 --threads 64`."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO
from textgoto import GIVEN_OURS, REDELIVER_AFTER, REDIS_URL, AsyncClient, Client, Engine, async_client

# How long without a heartbeat until a process is dead, in ms; at how many of a million commands that is looked for.
SOON = {"heartbeat_timeout": REDELIVER_AFTER * 1000, "maintenance_chance": 100_000}

broker = RedisBroker(url=REDIS_URL, **(SOON if REDELIVER_AFTER else {}))
dramatiq.set_broker(broker)

if GIVEN_OURS:
    broker.add_middleware(AsyncIO())
    clients: list[AsyncClient | Engine] = []

    @dramatiq.actor
    async def send(number: str, text: str) -> None:
        if not clients:  # made on the loop that it is used on
            clients.append(async_client())
        await clients[0].send(number, text)

else:
    client = Client()

    @dramatiq.actor
    def send(number: str, text: str) -> None:
        client.send(number, text)


def enqueue(messages: list[tuple[str, str]]) -> None:
    for message in messages:
        send.send(*message)
