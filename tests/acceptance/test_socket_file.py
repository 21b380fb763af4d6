"""A Redis at a socket file of the machine, with a password: `DISPATCHER_REDIS_URL=unix:///PATH?password=...`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis

from dispatcher import AsyncDispatcher, status
from tests.support import Deployment, Server, phone
from workers.sandbox.client import Sandbox

PASSWORD = "hunter2&+/"
QUOTED = "hunter2%26%2B%2F"


class AtAFile(Server):
    """A server that listens at a file, too."""

    @property
    def command(self) -> list[str]:
        return [*super().command, "--unixsocket", str(self.folder / "socket")]


def test_jobs_and_their_messages_go_over_a_socket_file(
    tmp_path: Path, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """Store, broker, events and `status`; and the password is in no log and on no page."""
    with AtAFile(tmp_path / "valkey") as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        url = f"unix://{server.folder}/socket?db=1&password={QUOTED}"
        deployment = Deployment(url, sandbox, tmp_path)
        try:
            worker = deployment.worker(queues="textgoto,notify")
            dispatcher = deployment.client()
            job = dispatcher.send(phone(1), "Hello", callback_task="billing.on_message")
            assert dispatcher.wait(job.id, timeout=60).state == "sent"

            async def followed() -> str:
                async with AsyncDispatcher(dispatcher.settings) as asynchronous:
                    return (await asynchronous.wait(job.id)).state

            assert asyncio.run(followed()) == "sent"
            told = status.look(dispatcher.settings)
            assert told.problems == []
            assert told.redis.address == told.broker.address == f"{server.folder}/socket"
            assert "hunter2" not in f"{told}{worker.output()}{''.join(capfd.readouterr())}"
        finally:
            deployment.close()
