"""What both sides share: names, messages that carry ids only, and a Celery that is nobody's default."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import Celery
from celery.exceptions import QueueNotFound
from celery.utils.saferepr import saferepr
from kombu.exceptions import OperationalError
from kombu.transport.memory import Transport
from kombu.transport.redis import Channel

from dispatcher.jobs import Lane
from dispatcher.queues import both_queues, celery_app, configuration, declared, provider_of, publish, queue_name
from tests.unit.support import settings


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose broker is in memory."""
    with celery_app(settings(broker_url="memory://")) as made:
        yield made
    Transport.global_state.clear()


def messages(app: Celery, queue: str) -> list[Any]:
    """What waits in a queue, taken out."""
    taken = []
    with app.connection_for_read() as connection:
        waiting = declared(queue)(connection.default_channel)
        waiting.declare()
        while (one := waiting.get(no_ack=True)) is not None:
            taken.append(one)
    return taken


@pytest.mark.parametrize(
    ("provider", "lane", "queue"),
    [
        ("textgoto", Lane.NORMAL, "textgoto"),
        ("textgoto", Lane.HIGH, "textgoto.high"),
        ("shop_a", Lane.HIGH, "shop_a.high"),
    ],
)
def test_each_lane_has_its_queue(provider: str, lane: Lane, queue: str) -> None:
    assert queue_name(provider, lane) == queue
    assert provider_of(queue) == provider


def test_the_queue_to_be_emptied_first_is_in_front() -> None:
    assert both_queues("textgoto") == ["textgoto.high", "textgoto"]


def test_a_single_job_is_found_in_flower_by_its_id(app: Celery) -> None:
    publish(app, "textgoto.high", ["0001"])
    (message,) = messages(app, "textgoto.high")
    assert message.headers["id"] == "0001"
    assert message.headers["task"] == "dispatcher.execute"
    assert messages(app, "textgoto") == []


@pytest.mark.parametrize(
    ("jobs", "chunks"),
    [(0, []), (2, [2]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])],
    ids=["none", "two", "just one message", "one too many", "many"],
)
def test_many_jobs_travel_a_hundred_in_a_message_in_order(app: Celery, jobs: int, chunks: list[int]) -> None:
    ids = [f"{number:04}" for number in range(jobs)]
    publish(app, "textgoto", ids)
    carried = [message.decode()[0][0] for message in messages(app, "textgoto")]
    assert [len(one) for one in carried] == chunks
    assert [id_ for one in carried for id_ in one] == ids


def test_a_message_carries_ids_and_nothing_else(app: Celery) -> None:
    publish(app, "textgoto", ["0001", "0002"])
    (message,) = messages(app, "textgoto")
    assert message.content_type == "application/json"
    arguments, named, _ = message.decode()
    assert (arguments, named) == ([["0001", "0002"]], {})
    assert message.headers["argsrepr"] == "(['0001', '0002'],)"


def test_messages_of_many_jobs_have_ids_of_their_own(app: Celery) -> None:
    publish(app, "textgoto", ["0001", "0002"])
    publish(app, "textgoto", ["0001", "0002"])
    ids = {message.headers["id"] for message in messages(app, "textgoto")}
    assert len(ids) == 2
    assert not ids & {"0001", "0002"}


def test_a_typo_in_a_queue_is_an_error_and_no_silent_backlog(app: Celery) -> None:
    with pytest.raises(QueueNotFound):
        app.send_task("dispatcher.execute", queue="textgot")


def test_our_celery_never_becomes_the_applications_default() -> None:
    before = celery.current_app.main
    celery_app(settings(broker_url="memory://"))
    assert celery.current_app.main == before != "dispatcher"


def test_a_worker_consumes_the_queues_of_its_accounts_and_a_producer_none() -> None:
    served = celery_app(settings(), ["textgoto", "a"]).conf.task_queues
    names = ["textgoto.high", "textgoto", "textgoto.receipts", "a.high", "a", "a.receipts"]
    assert [queue.name for queue in served] == names
    assert [provider_of(name) for name in names] == ["textgoto"] * 3 + ["a"] * 3
    assert celery_app(settings()).conf.task_queues == []


@pytest.mark.parametrize("name", ["textgoto", "textgoto.high"])
def test_a_queue_needs_no_binding_that_could_be_missing(name: str) -> None:
    queue = declared(name)
    assert (queue.exchange.name, queue.routing_key, queue.durable) == ("", name, True)


def test_only_json_is_taken_from_the_broker() -> None:
    """With pickle, whoever can write to the broker can run code in a worker."""
    told = configuration(settings())
    assert told["accept_content"] == ["json"]
    assert {told["task_serializer"], told["result_serializer"]} == {"json"}


@pytest.mark.parametrize("deadline", [1, 30, 1000])
def test_a_worker_that_stops_is_given_the_time_of_one_call(deadline: float) -> None:
    told = configuration(settings(deadline=deadline, lease=2 * deadline))
    assert told["worker_soft_shutdown_timeout"] > deadline


def test_redis_keeps_no_second_list_of_what_is_in_work() -> None:
    """What a dead worker held is in the outbox; the transport's own lists lose some of it and repeat the rest."""
    assert configuration(settings())["broker_transport_options"]["ack_emulation"] is False


@pytest.mark.parametrize(
    ("broker", "named"),
    [("redis://127.0.0.1:1/0", []), ("rediss://127.0.0.1:1/0", []), ("memory://", ["textgoto"])],
    ids=["Redis", "Redis over TLS", "a broker that must know its queues"],
)
def test_a_queue_is_declared_where_it_would_not_be_there_otherwise(
    broker: str, named: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, told = celery_app(settings(broker_url=broker)), list[list[str]]()
    monkeypatch.setattr(app, "send_task", lambda *_, declare, **__: told.append([one.name for one in declare]))
    publish(app, "textgoto", ["0001"])
    assert told == [named]


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_what_publishes_to_redis_keeps_its_client(scheme: str) -> None:
    """To make one takes a quarter of the time that a message takes. Consumers are left as they are."""
    app: Any = celery_app(settings(broker_url=f"{scheme}://127.0.0.1:1/0"))  # Any: the stubs know no pool
    with app.pool.acquire() as connection:
        channel: Any = connection.transport.Channel
        assert channel is not Channel
        assert issubclass(channel, Channel)
    with app.connection_for_read() as connection:
        assert connection.transport.Channel is Channel


@pytest.mark.parametrize("count", [1, 2, 100])
def test_task_events_tell_as_many_ids_as_celery_would(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    app, told = celery_app(settings(broker_url="memory://")), list[str]()
    monkeypatch.setattr(app, "send_task", lambda *_, argsrepr, **__: told.append(argsrepr))
    ids = [f"{at:026}" for at in range(count)]
    publish(app, "textgoto", ids)
    assert [one for one in ids if repr(one) in told[0]] == [one for one in ids if repr(one) in saferepr((ids,), 1024)]
    assert len(told[0]) <= 1024


def test_our_messages_and_an_applications_own_do_not_meet_in_one_redis() -> None:
    assert configuration(settings())["broker_transport_options"]["global_keyprefix"] == "disp:"


def test_the_applications_own_broker_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery lets this variable win over any configuration."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://elsewhere//")
    made = celery_app(settings(broker_url="memory://"))
    assert made.connection_for_write().transport_cls == made.connection_for_read().transport_cls == "memory"


def test_a_message_lives_until_its_outcome_is_written() -> None:
    told = configuration(settings())
    assert told["task_acks_late"]
    assert told["task_reject_on_worker_lost"]
    assert told["worker_prefetch_multiplier"] == 1
    assert told["task_ignore_result"], "the job is the result"


@pytest.mark.parametrize(
    "asked", [{}, {"interval_max": 30}], ids=["by Celery's consumer", "by whoever has more patience"]
)
def test_a_broker_that_was_away_for_long_is_found_soon(asked: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone, kombu waits 30 s between two tries, and so would every worker after an outage."""
    slept: list[float] = []
    monkeypatch.setattr("kombu.utils.functional.sleep", slept.append)
    tried: list[float] = []

    def over(_error: Exception, wait: float) -> None:
        tried.append(wait)
        if len(tried) == 100:
            raise EOFError

    app: Any = celery_app(settings())  # Any: the stubs allow fewer arguments
    with app.connection_for_read() as connection, pytest.raises(EOFError):
        connection.ensure_connection(over, None, **asked)
    assert tried[:5] == [0.5, 1, 1.5, 2, 2]
    assert max(tried) == 2
    assert sum(slept) == sum(tried[:-1])


def test_who_does_not_try_for_ever_waits_no_longer_for_a_broker_that_hangs() -> None:
    """It takes the connection and says nothing: each try would wait for its own time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        app = celery_app(settings(broker_url=f"redis://127.0.0.1:{port}/0"))
        app.conf.broker_transport_options["socket_timeout"] = 0.1
        app.conf.broker_connection_timeout = 0.1
        tries: list[float] = []
        with app.connection_for_write() as connection, pytest.raises(OperationalError):
            connection.ensure_connection(lambda _error, wait: tries.append(wait), 50)
    assert len(tries) < 5


def test_a_worker_outlives_a_broker_that_refuses() -> None:
    """Full, or a replica after a failover, Redis answers with an error that Celery would end the worker for."""
    assert configuration(settings())["broker_channel_error_retry"]


def test_codes_overtake_campaigns_at_the_broker() -> None:
    assert configuration(settings())["broker_transport_options"]["queue_order_strategy"] == "priority"


@pytest.mark.parametrize(
    ("broker", "ours"),
    [
        ("", True), ("redis://127.0.0.1:1/1", True), ("rediss://127.0.0.1:1/1", True),
        ("amqp://127.0.0.1:1//", False), ("memory://", False),
    ],
)  # fmt: skip
def test_options_for_redis_are_given_to_redis_alone(broker: str, ours: bool) -> None:
    options = configuration(settings(broker_url=broker))["broker_transport_options"]
    assert ("queue_order_strategy" in options) == ours
    assert set(options) <= {"read_timeout", "write_timeout"} or ours


def test_the_broker_is_the_same_redis_unless_told_otherwise() -> None:
    assert configuration(settings())["broker_url"] == settings().redis
    assert configuration(settings(broker_url="memory://"))["broker_url"] == "memory://"
