"""Messages over RabbitMQ: Debian's server, run by the tests with a node, a folder and ports of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import pytest
from amqp import Connection
from kombu.exceptions import OperationalError

from dispatcher import State
from dispatcher.embedded import free_port
from dispatcher.queues import celery_app, depth
from tests.brokers import Brokered, OverABroker
from tests.support import WATCH, Process, phone
from workers.consumer_task import ConsumerTasks
from workers.webhook import Outcome

#: The server itself: what Debian has on the path hands over to a user of its own.
SERVER: Final = "/usr/lib/rabbitmq/bin/rabbitmq-server"

#: Becomes the command that is named.
BECOME: Final = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"

#: Seconds for it to start: Erlang takes its time.
START: Final = 90.0


class RabbitMQ:
    """A node on the loopback, without plugins."""

    def __init__(self, folder: Path) -> None:
        """Start what keeps the names of Erlang's nodes: left alone, the server starts one that stays when it ends."""
        self._folder = folder
        self._port, self._names, nodes = free_port(), free_port(), free_port()
        self._server: Process | None = None
        self._starts = 0
        (folder / "plugins").write_text("[].")
        (folder / "rabbitmq.conf").touch()
        places = {
            "NODENAME": "tests@localhost",
            "NODE_IP_ADDRESS": "127.0.0.1",
            "NODE_PORT": str(self._port),
            "DIST_PORT": str(nodes),
            "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "MNESIA_BASE": str(folder / "data"),
            "LOG_BASE": str(folder / "log"),
            "LOGS": "-",
            "PID_FILE": str(folder / "pid"),
            "ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "CONF_ENV_FILE": str(folder / "none"),
        }
        self._environment = {
            **{f"RABBITMQ_{name}": value for name, value in places.items()},
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        for port in (self._port, self._names, nodes):
            WATCH.port(port, "rabbitmq")
        self._registry = self._run("epmd", "epmd")

    def _run(self, name: str, command: str) -> Process:
        return Process(["-c", BECOME, command], self._environment, self._folder, name)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> Self:
        self._starts += 1
        self._server = self._run(f"rabbitmq{self._starts}", SERVER)
        self._server.wait_for("Server startup complete", START)
        return self

    def stop(self) -> None:
        assert self._server is not None
        self._server.stop(30)

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()

    def freeze(self) -> None:
        assert self._server is not None
        os.killpg(self._server.popen.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._server is not None
        os.killpg(self._server.popen.pid, signal.SIGCONT)

    def empty(self) -> None:
        with Connection(f"127.0.0.1:{self._port}") as connection:
            channel = connection.channel()
            for queue in ("textgoto.high", "textgoto.receipts", "textgoto"):
                channel.queue_declare(queue, durable=True, auto_delete=False)
                channel.queue_purge(queue)

    def close(self) -> None:
        if self._server is not None:
            self.stop()
        self._registry.stop()


class TestRabbitMQ(OverABroker):
    @pytest.fixture(scope="class")
    @classmethod
    def broker(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
        one = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
        try:
            yield one.start()
        finally:
            one.close()

    def test_frozen_it_keeps_nobody_for_ever(self, over: Brokered, broker: RabbitMQ) -> None:
        """Neither who looks into it, as the clock does, nor who has something to send."""
        with celery_app(over.known) as app, over.client() as d:
            d.send(phone(2), "Hello")
            broker.freeze()
            try:
                with pytest.raises((OperationalError, OSError)):
                    depth(app, "textgoto")
                # Over a connection that is there, of which an answer is wanted.
                job = d.send(phone(1), "Hello", lane="high")
            finally:
                broker.thaw()
            over.serve()
            assert d.wait(job.id).state == State.SENT

    def test_a_consumers_task_needs_its_queue(self, over: Brokered, broker: RabbitMQ) -> None:
        """Of Celery's own making, whatever arguments it has; one that is not there loses nothing."""
        tasks, told = ConsumerTasks(over.known), {"type": "job.sent", "data": {"id": "1", "state": "sent"}}
        try:
            assert tasks.send("billing.on_message", "billing", "evt_1-0", told).outcome == Outcome.AGAIN
            with Connection(broker.url.removeprefix("amqp://guest:guest@").removesuffix("//")) as connection:
                channel = connection.channel()
                arguments = {"x-queue-type": "quorum"}
                channel.queue_declare("billing", durable=True, auto_delete=False, arguments=arguments)
                assert tasks.send("billing.on_message", "billing", "evt_1-0", told).outcome == Outcome.DELIVERED
                message = channel.basic_get("billing", no_ack=True)
            assert message is not None
            assert message.headers is not None
            assert message.headers["task"] == "billing.on_message"
            assert message.properties["correlation_id"] == "evt_1-0"
        finally:
            tasks.close()
