"""How many messages lie on a real broker: what decides whether a message that is late is lost."""

from __future__ import annotations

from dispatcher import Dispatcher
from dispatcher.queues import celery_app, depth


def test_the_depth_of_a_queue_is_what_lies_in_it(redis_url: str) -> None:
    """Told 0 of a backlog, the clock would publish all of it again, every minute."""
    with Dispatcher(redis_url=redis_url, sandbox=True, providers={"textgoto": {}}) as dispatcher:
        with celery_app(dispatcher.settings) as app:
            assert depth(app, "textgoto") == 0
            for _ in range(3):
                dispatcher.send("+447700900001", "Hello", provider="textgoto")
            dispatcher.send("+447700900001", "Hello", provider="textgoto", category="otp")
            assert (depth(app, "textgoto"), depth(app, "textgoto.high")) == (3, 1)
        before = dispatcher._store.redis.dbsize()
        with celery_app(dispatcher.settings) as app:
            assert depth(app, "nobody") == 0
        assert dispatcher._store.redis.dbsize() == before, "to look leaves nothing behind"
