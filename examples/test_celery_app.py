"""The shop with Celery of its own, without Redis, broker or worker: its tasks are called as functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dispatcher.testing import FakeProviders


@pytest.fixture
def shop(messages: FakeProviders) -> Any:
    """Load the shop once `messages` is there: it makes its `Dispatcher` then."""
    import celery_app  # noqa: PLC0415 - see above

    assert not messages.sent
    celery_app.STATES.clear()
    return celery_app


def test_a_shipped_order_is_told_of_once(shop: Any, messages: FakeProviders) -> None:
    """However often its task runs."""
    assert shop.text_shipped(17) == shop.text_shipped(17)
    assert [(one.to, one.text) for one in messages.sent] == [("+447700900017", "Order 17 is on its way")]


def test_its_task_is_told_what_became_of_the_text(shop: Any, messages: FakeProviders) -> None:
    """By the name that the text was sent with; in any order, and twice."""
    messages.deliver(shop.text_shipped(17))
    messages.undelivered(shop.text_shipped(18))
    told = messages.callbacks
    for one in (*reversed(told), *told):
        assert one.queue == "celery"
        shop.app.tasks[one.task](**one.arguments)
    assert {order: state for order, (state, _) in shop.STATES.items()} == {
        "order-17": "delivered",
        "order-18": "undelivered",
    }


def test_its_follower_goes_on_from_the_cursor_it_kept(
    shop: Any,
    messages: FakeProviders,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Ended where there is no more news, as it would be by a deploy."""
    dispatcher = shop.dispatcher()
    events = dispatcher.events
    monkeypatch.setattr(dispatcher, "events", lambda cursor: events(cursor, timeout=0))
    for order in (17, 18):
        messages.accept(shop.text_shipped(order))
        shop.follow(tmp_path / "cursor")
    assert capsys.readouterr().out.splitlines() == ["order-17 job.sent", "order-18 job.sent"]
