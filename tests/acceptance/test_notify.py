"""Consumers are told: a real notify worker, a real HTTP server that checks signatures with the public package."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from dispatcher import Message
from dispatcher.endpoints import Endpoint, Health
from tests.consumer import SECRET, Consumer, Heard, listening
from tests.support import Deployment, phone, phones, until

TEXT: Final = "Your parcel is here"

#: Whose code is always the same in the sandbox.
HAS_A_CODE: Final = "+447700900109"
CODE: Final = "012837"

SETTINGS: Final = {"callback_secret": SECRET, "callback_timeout": "20"}


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    with listening() as one:
        yield one


@pytest.fixture
def told(deployment: Deployment) -> Deployment:
    """A deployment that signs callbacks; the test starts its workers."""
    deployment.settings |= SETTINGS
    return deployment


def test_events_reach_who_asked_for_them_signed_and_in_order(told: Deployment, consumer: Consumer) -> None:
    told.worker(queues="textgoto,notify", callback_url=f"{consumer.url}/default")
    client = told.client()
    job = client.send(phone(1), TEXT, callback_url=f"{consumer.url}/own?token=canary")
    batch = client.send_many([Message(one, TEXT) for one in phones(3)], callback_url=f"{consumer.url}/batch")
    quiet = client.send(phone(2), TEXT, callback_url="")
    usual = client.send(phone(3), TEXT)
    for one in (job, quiet, usual):
        client.wait(one.id, timeout=60)
    until(
        lambda: consumer.types(batch.id) and consumer.types(usual.id) and consumer.types(job.id), what="the callbacks"
    )
    own = [one for one in consumer.heard if one.event["data"]["id"] == job.id]
    assert {one.path for one in own} == {"/own?token=canary"}
    assert [one.event["data"]["seq"] for one in own] == sorted(one.event["data"]["seq"] for one in own)
    assert own[0].id == f"evt_{own[0].event['cursor']}"
    assert phone(1) not in str(own[0].event), "what is told is masked"
    assert {one.path for one in consumer.heard if one.event["data"]["id"] == batch.id} == {"/batch"}
    assert consumer.types(batch.id) == ["batch.settled"]
    assert {one.path for one in consumer.heard if one.event["data"]["id"] == usual.id} == {"/default"}
    assert consumer.types(quiet.id) == []
    told_elsewhere = {event.cursor: event for event in client.events("0", timeout=0.1)}
    assert own[0].event["data"] == told_elsewhere[own[0].event["cursor"]].data


def test_a_worker_that_dies_between_outcome_and_notify_or_on_the_wire_loses_nothing(
    told: Deployment, consumer: Consumer
) -> None:
    """Told at least once, by the same id, and in the order of each job."""
    told.settings |= {"callback_timeout": "1", "lost_after": "1"}
    told.worker(queues="textgoto", name="sends")
    client = told.client()
    # Its events are in the stream before anybody moves them on.
    before = client.send(phone(1), TEXT, callback_url=consumer.url)
    client.wait(before.id, timeout=60)
    hanging = threading.Event()

    def hang(_: object) -> int:
        hanging.wait(20)
        return 204

    consumer.answer = hang
    first = told.worker(queues="notify", name="first")
    until(lambda: consumer.heard, what="the first callback")
    during = client.send(phone(1), TEXT, callback_url=consumer.url)
    client.wait(during.id, timeout=60)
    first.kill()
    consumer.answer = lambda _: 204
    hanging.set()
    told.worker(queues="notify", name="second")
    until(lambda: not any(one.waiting for one in client.callbacks()), 60, what="the end of what waits")
    seen = [one.id for one in consumer.heard]
    assert len(seen) > len({*seen}), "what was on the wire is told once more"
    for job in (before, during):
        expected = [one.type for one in client.events("0", timeout=0) if one.data["id"] == job.id]
        assert consumer.types(job.id) == expected
        seqs = [one.event["data"]["seq"] for one in consumer.heard if one.event["data"]["id"] == job.id]
        assert seqs == sorted(seqs)


def test_another_worker_tells_what_a_killed_one_had_in_hand_once_its_hold_is_over(
    told: Deployment, consumer: Consumer
) -> None:
    """A hold is `DISPATCHER_CALLBACK_TIMEOUT` and 5 s: nobody starts anything, and nothing is told any sooner."""
    told.settings |= {"callback_timeout": "5"}
    told.worker(queues="textgoto", name="sends")
    both = [told.start_worker(queues="notify", name=name) for name in ("one", "other")]
    for worker in both:
        worker.ready()
    hanging, told_at = threading.Event(), list[int]()

    def hang(_: object) -> int:
        hanging.wait(20)
        return 204

    def note(_: object) -> int:
        seconds, micros = told.redis.time()
        told_at.append(seconds * 1000 + micros // 1000)
        return 204

    consumer.answer = hang
    client = told.client()
    job = client.verify(HAS_A_CODE, callback_url=consumer.url)
    until(lambda: consumer.heard, what="the first callback")
    assert client.check(job.id, CODE).valid
    (holder,) = [worker for worker in both if "dispatcher.notify[" in worker.output()]
    holder.kill()
    (endpoint,) = client.callbacks()
    _, held_until = told.redis.hget(f"d:t:{endpoint.id}", "l").split()
    consumer.answer = note
    hanging.set()
    until(lambda: not any(one.waiting for one in client.callbacks()), 60, what="the end of what waits")
    assert [one.event["type"] for one in consumer.heard] == ["job.sent", "job.sent", "verification.approved"]
    assert consumer.heard[0].id == consumer.heard[1].id
    assert told_at[0] >= int(held_until)


def test_one_that_fails_or_hangs_holds_up_nobody_else(told: Deployment, consumer: Consumer) -> None:
    told.settings |= {"callback_timeout": "1"}
    told.worker(queues="textgoto,notify")
    client = told.client()
    bad = {"/500", "/slow"}

    def answer(heard: Heard) -> int:
        if heard.path == "/slow":
            threading.Event().wait(1.5)
        return 500 if heard.path == "/500" else 204

    consumer.answer = answer
    ids = [
        client.send(one, TEXT, callback_url=f"{consumer.url}{path}").id
        for path in ("/500", "/slow", "/good")
        for one in phones(10)
    ]
    good = ids[20:]
    until(lambda: all("job.sent" in consumer.types(one) for one in good), 60, what="the callbacks of the good one")

    def failing() -> list[Endpoint]:
        return [one for one in client.callbacks() if one.state == Health.FAILING]

    until(lambda: [one.waiting >= len(good) for one in failing()] == [True] * len(bad), what="both failures")
    shown = [one.endpoint for one in client.callbacks()]
    assert not [one for one in shown if any(path in one for path in bad)]


def test_who_is_gone_is_told_nothing_more_until_it_is_resumed(told: Deployment, consumer: Consumer) -> None:
    told.worker(queues="textgoto,notify")
    client = told.client()
    consumer.answer = lambda _: 410
    job = client.send(phone(0), TEXT, callback_url=consumer.url)
    until(lambda: [one for one in client.callbacks() if one.state == Health.GONE], what="the end of it")
    until(client.undelivered_callbacks, what="what was not delivered")
    client.wait(job.id, timeout=60)
    (endpoint,) = client.callbacks()
    consumer.answer = lambda _: 204
    consumer.heard.clear()
    assert client.resume_callbacks(endpoint.id)
    assert client.redrive_callbacks() > 0
    until(lambda: consumer.types(job.id), what="the callback")


def test_a_celery_task_of_the_application_is_sent_by_its_name(told: Deployment) -> None:
    told.worker(queues="textgoto,notify")
    client = told.client()
    job = client.send(phone(1), TEXT, callback_task="billing.on_message", callback_queue="billing")
    client.wait(job.id, timeout=60)
    raw: list[bytes] = until(lambda: told.redis.lrange("billing", 0, -1), what="the task")
    message = json.loads(raw[-1])
    assert message["headers"]["task"] == "billing.on_message"
    _, arguments, _ = json.loads(base64.b64decode(message["body"]))
    assert arguments["id"] == job.id
    assert message["headers"]["id"] == f"evt_{arguments['event']['cursor']}"
    assert phone(1) not in str(arguments)


def test_told_to_stop_a_worker_ends_what_is_on_the_wire(told: Deployment, consumer: Consumer) -> None:
    consumer.answer = lambda _: threading.Event().wait(1) or 204
    worker = told.worker(queues="textgoto,notify")
    client = told.client()
    job = client.send(phone(0), TEXT, callback_url=consumer.url)
    until(lambda: consumer.heard, what="the callback")
    worker.terminate()
    assert worker.wait() == 0
    assert consumer.types(job.id)
    (endpoint,) = client.callbacks()
    assert (endpoint.delivered, endpoint.waiting) == (len({*(one.id for one in consumer.heard)}), 0)
