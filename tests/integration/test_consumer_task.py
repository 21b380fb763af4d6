"""Callbacks to a Celery app that is none of ours: a plain worker with plain settings, on the test's Valkey."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from celery import current_app

from dispatcher.settings import load
from tests.support import Process, Server, until
from workers.consumer_task import ConsumerTasks, consumers_app
from workers.webhook import Answer, Outcome

#: What somebody else wrote: nothing is set but the broker.
SHOP: Final = """
import json, os
from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_BROKER"])

@app.task(name="billing.on_message", bind=True, default_retry_delay=0)
def on_message(self, id, state, event):
    with open("told.jsonl", "a") as told:
        words = {"id": id, "state": state, "event": event, "task": self.request.id, "tries": self.request.retries}
        told.write(json.dumps(words) + "\\n")
    if state == "failed" and not self.request.retries:
        raise self.retry()
"""

ID: Final = "evt_1700000000000-0"


def event(state: str = "sent") -> dict[str, Any]:
    data = {"id": "06h0568h984va3e9guc7ji3afk", "state": state, "seq": 3, "to": "+44 •••• 23"}
    return {
        "schema": 1,
        "cursor": ID.removeprefix("evt_"),
        "type": f"job.{state}",
        "at": "2026-01-01T00:00:00Z",
        "data": data,
    }


def tasks(url: str, broker: str = "") -> ConsumerTasks:
    return ConsumerTasks(load(redis_url=url, callback_broker_url=broker))


@pytest.fixture
def sender(redis_url: str) -> Iterator[ConsumerTasks]:
    one = tasks(redis_url)
    yield one
    one.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as one:
        yield one


def test_a_plain_worker_of_another_app_is_told(sender: ConsumerTasks, redis_url: str, tmp_path: Path) -> None:
    """In Celery's own default queue and in one that is named; and what it tries again itself comes again."""
    (tmp_path / "shop.py").write_text(SHOP)
    beside = {"SHOP_BROKER": redis_url, "PYTHONPATH": str(tmp_path)}
    arguments = (
        "-m celery -A shop worker -P solo -Q celery,billing --without-gossip --without-mingle --without-heartbeat"
    )
    worker = Process(arguments.split(), beside, tmp_path, "shop")
    try:
        assert sender.send("billing.on_message", "celery", ID, event()).outcome == Outcome.DELIVERED
        assert sender.send("billing.on_message", "billing", f"{ID}1", event("failed")).outcome == Outcome.DELIVERED
        told = tmp_path / "told.jsonl"
        until(lambda: told.exists() and len(told.read_text().splitlines()) == 3, what="three calls")
    finally:
        worker.stop()
    calls = sorted((json.loads(line) for line in told.read_text().splitlines()), key=lambda one: one["tries"])
    found = [(one["task"], one["id"], one["state"], one["event"]["type"], one["tries"]) for one in calls]
    job = event()["data"]["id"]
    assert sorted(found) == [
        (ID, job, "sent", "job.sent", 0),
        (f"{ID}1", job, "failed", "job.failed", 0),
        (f"{ID}1", job, "failed", "job.failed", 1),
    ]
    assert event() in [one["event"] for one in calls]


def test_a_task_lies_where_a_plain_celery_looks(sender: ConsumerTasks, client: Any) -> None:
    answer = sender.send("billing.on_message", "celery", ID, event())
    assert (answer.outcome, answer.status, answer.words) == (Outcome.DELIVERED, 0, "published")
    assert client.keys() == [b"celery"], "no prefix of ours, and nothing beside it"
    message = json.loads(client.lindex("celery", 0))
    assert message["content-type"] == "application/json"
    headers = message["headers"]
    assert (headers["task"], headers["id"], headers["lang"]) == ("billing.on_message", ID, "py")
    assert headers["kwargsrepr"] == "{'id': '06h0568h984va3e9guc7ji3afk', 'state': 'sent'}"
    assert headers["ignore_result"] is True


def test_what_is_no_jobs_has_an_id_and_no_state(sender: ConsumerTasks, client: Any) -> None:
    sender.send("shop.settled", "celery", ID, {"type": "batch.settled", "data": {"id": "july", "counts": {"sent": 3}}})
    headers = json.loads(client.lindex("celery", 0))["headers"]
    assert headers["kwargsrepr"] == "{'id': 'july', 'state': ''}"


def test_it_goes_to_the_broker_that_is_named(redis_url: str, valkey: Server, client: Any) -> None:
    elsewhere = f"redis://127.0.0.1:{valkey.port}/0"
    one = tasks(elsewhere, redis_url)
    try:
        assert one.send("billing.on_message", "billing", ID, event()).outcome == Outcome.DELIVERED
    finally:
        one.close()
    assert client.keys() == [b"billing"]


def test_an_applications_own_setting_does_not_take_it_elsewhere(
    redis_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    one = tasks(redis_url)
    try:
        assert one.send("billing.on_message", "celery", ID, event()).outcome == Outcome.DELIVERED
    finally:
        one.close()
    assert client.llen("celery") == 1


def test_it_becomes_nobodys_default() -> None:
    before = current_app._get_current_object()  # type: ignore[attr-defined]  # a proxy, of which the stubs know nothing
    with consumers_app(load(redis_url="redis://127.0.0.1:1/0")) as app:
        assert app is not before
    assert current_app._get_current_object() is before  # type: ignore[attr-defined]


def failed(broker: str) -> Answer:
    one = tasks("redis://127.0.0.1:1/0", broker)
    try:
        return one.send("billing.on_message", "celery", ID, event())
    finally:
        one.close()


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis://:canary-word@127.0.0.1:1/0", id="Redis that refuses"),
        pytest.param("amqp://guest:canary-word@127.0.0.1:1//", id="RabbitMQ that refuses"),
        pytest.param("nonsense://canary-word", id="a broker of no kind"),
    ],
)
def test_a_broker_that_is_away_is_tried_again_later(broker: str) -> None:
    answer = failed(broker)
    assert answer.outcome == Outcome.AGAIN
    assert answer.words.startswith("the consumers' broker did not take it")
    assert "canary-word" not in f"{answer}"


@pytest.mark.timeout(100)
def test_a_broker_that_says_nothing_is_given_up() -> None:
    """It takes connections and answers nothing, whichever of the two it is."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        where = f"127.0.0.1:{silent.getsockname()[1]}/0"
        answers = list(pool.map(failed, [f"redis://{where}", f"amqp://{where}"]))
    assert {one.outcome for one in answers} == {Outcome.AGAIN}
