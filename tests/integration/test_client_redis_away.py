"""An application whose Redis or broker is not there: told quickly and clearly, or not hindered at all."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import redis

from dispatcher import Dispatcher, Message, State, StoreUnavailable
from dispatcher.calls import MOST_MADE
from dispatcher.embedded import free_port
from tests.support import Deployment, Server, phones, taken_by_number, until

PASSWORD = "hunter2"

#: Seconds: nobody tries again and again, and a busy machine takes its time for what takes a moment.
AT_ONCE = 10.0


@pytest.fixture
def nowhere() -> str:
    return f"redis://somebody:{PASSWORD}@127.0.0.1:{free_port()}/0"


CALLS: dict[str, Callable[[Dispatcher], object]] = {
    "send": lambda d: d.send("+447700900001", "Hello"),
    "send to a named account": lambda d: d.send("+447700900001", "Hello", provider="textgoto"),
    "send many": lambda d: d.send_many([Message("+447700900001", "Hello")], provider="textgoto"),
    "verify": lambda d: d.verify("+447700900001", provider="textgoto"),
    "check": lambda d: d.check("some id", "012837"),
    "get": lambda d: d.get("some id"),
    "wait": lambda d: d.wait("some id"),
    "cancel": lambda d: d.cancel("some id"),
    "list": lambda d: d.jobs(),
    "batch": lambda d: d.batch("some id"),
    "events": lambda d: next(d.events("0")),
    "providers": lambda d: d.providers(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_redis_is_told_at_once_and_without_the_password(call: Callable[[Dispatcher], object], nowhere: str) -> None:
    began = time.monotonic()
    with (
        Dispatcher(redis_url=nowhere, sandbox=True, providers={"textgoto": {"uid": "x"}}) as dispatcher,
        pytest.raises(StoreUnavailable, match="DISPATCHER_REDIS_URL") as caught,
    ):
        call(dispatcher)
    assert time.monotonic() - began < AT_ONCE
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert PASSWORD not in repr(dispatcher.settings)


def test_many_are_enqueued_once_and_in_order_though_their_connection_breaks(
    own_valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, while one portion is on its way and the next is encoded; and the server forgets its scripts."""
    messages = [Message(one, f"Hi {at}") for at, one in enumerate(phones(8 * MOST_MADE))]
    with (
        Dispatcher(redis_url=own_valkey.url, sandbox=True, providers={"textgoto": {"uid": "x"}}) as dispatcher,
        redis.Redis.from_url(own_valkey.url) as server,
    ):
        encode, portions = dispatcher._drafts.encode, list[int]()

        def encoded(fresh: Any, **public: Any) -> Any:
            portions.append(len(fresh))
            if len(portions) in {2, 4, 5}:
                server.client_kill_filter(_type="normal", skipme=True)
            if len(portions) == 4:
                server.script_flush()
            return encode(fresh, **public)

        monkeypatch.setattr(dispatcher._drafts, "encode", encoded)
        batch = dispatcher.send_many(messages, provider="textgoto", batch_id="spring")
        assert portions == [MOST_MADE] * 8
        assert (batch.created, batch.counts) == (len(messages), {"queued": len(messages)})
        assert list(dispatcher.batch("spring").jobs.ids) == list(batch.jobs.ids)
        told = [job.text for job in dispatcher.get_many(batch.jobs.ids, reveal=True).values()]
        assert told == [one.text for one in messages]
        line = [one.decode() for one in server.zrange("d:q:textgoto:spring:", 0, -1)]
        assert line == list(batch.jobs.ids)[-len(line) :], "those that wait for their turn do so in the order given"
        assert not dispatcher.batch_state("spring").open


class TestBrokerAway:
    """The store has the job, so it is accepted; what is on the broker only says *look now*."""

    def test_jobs_are_accepted_quickly_and_sent_nevertheless(
        self, running: Deployment, nowhere: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Here the workers' broker is there, so their clock publishes what the application could not."""
        with running.client(broker_url=nowhere) as dispatcher:
            began = time.monotonic()
            job = dispatcher.send("+447700900001", "Hello", provider="textgoto")
            took = time.monotonic() - began
            batch = dispatcher.send_many([Message(one, "Hi") for one in phones(1000)], provider="textgoto")
            took_many = time.monotonic() - began - took
            assert job.state == State.QUEUED
            assert dispatcher.wait(job.id, timeout=60).state == State.SENT
            assert batch.wait(timeout=60) == {"sent": 1000}
        assert taken_by_number(running.sandbox) == {"+447700900001": 1, **dict.fromkeys(phones(1000), 1)}
        assert "their message is delayed" in caplog.text
        assert PASSWORD not in caplog.text
        assert took < AT_ONCE, "a request of a web application waits for this"
        assert took_many < AT_ONCE

    def test_another_applications_broker_is_left_alone(
        self, running: Deployment, monkeypatch: pytest.MonkeyPatch, nowhere: str
    ) -> None:
        """An application that uses Celery itself may name its own broker the way Celery reads it."""
        monkeypatch.setenv("CELERY_BROKER_URL", nowhere)
        with running.client() as dispatcher:
            job = dispatcher.send("+447700900001", "Hello", provider="textgoto", lane="high")
            until(lambda: dispatcher.get(job.id).state == State.SENT)
            assert "lost" not in str(dispatcher.get(job.id).history), "its message came at once"
