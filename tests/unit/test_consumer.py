"""What is told of tasks waits a moment for others, and is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery.worker.consumer
import pytest

from dispatcher.queues import celery_app
from tests.unit.support import settings
from workers.consumer import Consumer


class Hub:
    """Celery's event loop, whose turns and timers come when a test says so."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.later: list[Callable[[], object]] = []

    def call_soon(self, call: Callable[[], object]) -> None:
        self.soon.append(call)

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        assert 0 < seconds <= 0.1
        self.later.append(call)

    def turn(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def fire(self) -> None:
        calls, self.later = self.later, []
        for call in calls:
            call()


class Events:
    flushed = 0

    def flush(self) -> None:
        self.flushed += 1


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("stop", "on_close"):
        monkeypatch.setattr(celery.worker.consumer.Consumer, name, lambda _: None)
    made: Any = Consumer.__new__(Consumer)
    made.hub, made.event_dispatcher, made.connection_errors = Hub(), Events(), (ConnectionError,)
    return made


def test_many_events_are_told_at_once(consumer: Any) -> None:
    for _ in range(20):
        consumer.on_send_event_buffered()
    assert len(consumer.hub.soon) == 1
    consumer.hub.turn()
    assert consumer.event_dispatcher.flushed == 0
    consumer.hub.fire()
    assert consumer.event_dispatcher.flushed == 1


def test_an_event_after_that_is_told_too(consumer: Any) -> None:
    for told in (1, 2):
        consumer.on_send_event_buffered()
        consumer.hub.turn()
        consumer.hub.fire()
        assert consumer.event_dispatcher.flushed == told


def test_a_lost_connection_takes_the_timer_along_and_the_next_event_sets_another(consumer: Any) -> None:
    consumer.on_send_event_buffered()
    consumer.hub = Hub()
    consumer.on_close()
    consumer.on_send_event_buffered()
    consumer.hub.turn()
    consumer.hub.fire()
    assert consumer.event_dispatcher.flushed == 1


def test_a_worker_that_stops_tells_the_rest(consumer: Any) -> None:
    consumer.on_send_event_buffered()
    consumer.stop()
    assert consumer.event_dispatcher.flushed == 1


def test_a_worker_whose_broker_is_away_stops_all_the_same(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def flush(_: Events) -> None:
        raise ConnectionError

    monkeypatch.setattr(Events, "flush", flush)
    consumer.stop()


def test_the_workers_use_it() -> None:
    assert celery_app(settings()).conf.worker_consumer == f"{Consumer.__module__}:{Consumer.__name__}"
