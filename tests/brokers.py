"""What holds over any broker that is not the job store's Redis: the tests of a second Redis and of RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
from kombu.exceptions import OperationalError

from dispatcher import Dispatcher, Message, State
from dispatcher.doctor import examine
from dispatcher.queues import both_queues, celery_app, depth
from dispatcher.settings import Settings, load
from dispatcher.status import Status, look
from tests.support import SHORT, Deployment, Server, Worker, accepted, phone, phones, taken_by_number, until
from workers.sandbox.client import Sandbox

#: Seconds that a request of a web application may wait for a broker that is not there, on a busy machine.
AT_ONCE: Final = 10.0


class Broker(Protocol):
    """A server that keeps messages."""

    @property
    def url(self) -> str: ...

    def start(self) -> Any: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def empty(self) -> None: ...


class Brokered(Deployment):
    """A deployment whose messages go over a broker of their own."""

    def __init__(self, store: Server, broker: Broker, sandbox: Sandbox, folder: Path) -> None:
        super().__init__(store.url, sandbox, folder, {"broker_url": broker.url, "heartbeat": "0.5"})
        self.broker = broker
        self._workers: list[Worker] = []

    @property
    def known(self) -> Settings:
        return load(redis_url=self.url, broker_url=self.broker.url, sandbox=True)

    def client(self, **overrides: Any) -> Dispatcher:
        return super().client(**{"broker_url": self.broker.url, **overrides})

    def serve(self, **settings: str) -> Worker:
        """Start a worker that lives until the test is over."""
        self._workers.append(self.worker(name=f"worker{len(self._workers)}", **settings))
        return self._workers[-1]

    def rest(self) -> None:
        """Have no worker, no job and no message."""
        for one in self._workers:
            one.kill()
        self.broker.empty()
        self.forget()
        self.sandbox.reset()

    def waiting(self) -> dict[str, int]:
        """Return how many messages lie in each queue."""
        with celery_app(self.known) as app:
            return {queue: depth(app, queue) for queue in both_queues("textgoto")}

    def status(self) -> Status:
        return look(self.known)


class OverABroker:
    """To be inherited with a fixture `broker` of the class' scope."""

    @pytest.fixture(scope="class")
    @classmethod
    def _over(
        cls, broker: Broker, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Brokered]:
        folder = tmp_path_factory.mktemp("brokered")
        with Server(folder / "store") as store:
            one = Brokered(store, broker, sandbox_process, folder)
            try:
                yield one
            finally:
                one.close()

    @pytest.fixture
    def over(self, _over: Brokered) -> Brokered:
        """Share it, with no worker, no job and no message."""
        _over.rest()
        return _over

    @pytest.fixture
    def d(self, over: Brokered) -> Iterator[Dispatcher]:
        with over.client() as one:
            yield one

    def test_every_kind_of_job_goes_its_way(self, over: Brokered, d: Dispatcher) -> None:
        """What waits is counted before, and of the messages nothing lies in the job store."""
        texts = [d.send(one, "Hello") for one in phones(3)]
        batch = d.send_many([Message(one, "Hi") for one in phones(150, start=3)])
        code = d.verify(phone(109))
        others = [d.lookup(phone(132)), d.operation("textgoto", "balance")]
        assert over.waiting() == {"textgoto.high": 1, "textgoto": 7}
        assert over.status().accounts[0].queues == over.waiting()
        assert over.redis.keys("disp:*") == []

        over.serve()
        assert batch.wait() == {"sent": 150}
        assert {d.wait(one.id).state for one in texts} == {State.SENT}
        assert {d.wait(one.id).state for one in others} == {State.COMPLETED}
        assert d.wait(code.id).state == State.SENT
        assert [d.check(code.id, one).valid for one in ("000000", "012837", "012837")] == [False, True, False]
        assert taken_by_number(over.sandbox) == dict.fromkeys([*phones(153), phone(109)], 1)
        until(lambda: not over.status().problems, what="an end of all problems")
        assert sum(over.waiting().values()) == 0
        assert over.redis.keys("disp:*") == []

    def test_doctor_finds_it(self, over: Brokered, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in over.environment.items():
            monkeypatch.setenv(name, value)
        found = {one.check: one for one in examine(lambda *_: ())}
        assert found["broker.reachable"].status == "ok", found["broker.reachable"]

    def test_codes_go_before_what_waited_already(self, over: Brokered, d: Dispatcher) -> None:
        d.send_many([Message(one, f"Hello {one}") for one in phones(600)])
        code = d.verify(phone(1))
        over.serve(providers__textgoto__concurrency="2")
        d.wait(code.id)
        (row,) = [row for row in accepted(over.sandbox.ledger()) if row.kind == "verify"]
        assert row.n <= 200, "it was in one of the first two messages that the worker took into its hands"

    def test_a_worker_killed_in_the_middle(self, over: Brokered, d: Dispatcher) -> None:
        """What it had on the wire nobody knows; what it had not begun others do; nothing is sent twice."""
        first = over.serve(connections="2", **SHORT)
        over.sandbox.fault("hang-after", times=1)
        batch = d.send_many([Message(one, f"Hello {one}") for one in phones(60)])
        until(lambda: batch.counts == {"queued": 59, "sending": 1} and len(over.sandbox.ledger()) == 1)
        first.kill()
        over.serve(**SHORT)
        assert batch.wait(timeout=60) == {"sent": 59, "unknown": 1}
        assert taken_by_number(over.sandbox) == dict.fromkeys(phones(60), 1)

    def test_emptied_it_costs_no_job(self, over: Brokered, d: Dispatcher) -> None:
        """The outbox has what its messages were about."""
        batch = d.send_many([Message(one, "Hello") for one in phones(300)])
        code = d.verify(phone(1))
        over.broker.empty()
        assert sum(over.waiting().values()) == 0
        over.serve()
        assert batch.wait(timeout=60) == {"sent": 300}
        assert d.wait(code.id).state == State.SENT
        assert taken_by_number(over.sandbox) == dict.fromkeys([*phones(300), phone(1)], 1)

    def test_killed_under_a_campaign_and_started_again(self, over: Brokered, d: Dispatcher) -> None:
        """What is accepted meanwhile is published later; the worker goes on; nothing is sent twice."""
        worker = over.serve(connections="20", lost_after="5")
        over.sandbox.fault("latency", seconds=0.1)
        batch = d.send_many([Message(one, f"Hello {one}") for one in phones(600)])
        until(lambda: len(over.sandbox.ledger()) >= 50, what="texts on the wire")
        with celery_app(over.known) as app, app.connection_for_write() as connection:
            node = app.control.mailbox.Node(  # type: ignore[attr-defined]  # the stubs do not know it
                "worker@here", channel=connection.default_channel
            )
            node.reply({"ok": "pong"}, "reply", "somebody", "ticket")
            over.broker.kill()
            # Who answers Flower does not wait for ever: that thread of a worker is the one that hears a TERM.
            with suppress(OperationalError, OSError):
                node.reply({"ok": "pong"}, "reply", "somebody", "ticket")
            connection.collect()
        began = time.monotonic()
        meanwhile = d.send(phone(2), "Hello")
        assert time.monotonic() - began < AT_ONCE
        assert meanwhile.state == State.QUEUED
        assert over.status().broker.problem
        over.broker.start()
        assert batch.wait(timeout=90) == {"sent": 600}
        assert d.wait(meanwhile.id, timeout=60).state == State.SENT
        assert taken_by_number(over.sandbox) == dict.fromkeys([*phones(600), phone(2)], 1)
        assert worker.popen.poll() is None, "it outlives its broker"
        until(lambda: not over.status().problems, 60, "an end of all problems")

    def test_what_lies_on_it_outlives_its_restart(self, over: Brokered, d: Dispatcher) -> None:
        jobs = [d.send(one, "Hello") for one in phones(5)]
        until(lambda: over.waiting()["textgoto"] == 5, what="all messages")
        over.broker.stop()
        over.broker.start()
        assert over.waiting() == {"textgoto.high": 0, "textgoto": 5}
        over.serve(lost_after="600")
        assert {d.wait(one.id).state for one in jobs} == {State.SENT}
