"""The same on a real server: what the Redis in memory may take for granted, lifetimes above all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
import redis

from dispatcher import Dispatcher
from dispatcher.accounts import KEY, Account
from dispatcher.calls import Calls
from dispatcher.settings import load
from dispatcher.store import JobStore
from tests.unit.support import HASH_KEY, SECRET_KEY, Bench, Clock
from tests.unit.test_retention import CONSTANT, USAGE, Story, lifetimes, strays

#: Leases that are waited for.
SHORT: Final[dict[str, Any]] = {
    "secret_key": SECRET_KEY, "hash_key": HASH_KEY, "deadline": 0.2, "lease": 0.3, "lost_after": 0.05,
    "resend_after": 3.0,
}  # fmt: skip


class Patience(Clock):
    """A clock that is waited for."""

    def advance(self, seconds: float) -> None:
        time.sleep(seconds)


class Real(Bench):
    """The bench on a server that has its own time: leases are short."""

    def __init__(self, url: str) -> None:
        self.clock = Patience()
        self.settings = load(redis_url=url, **SHORT)
        self.redis = redis.Redis.from_url(url)
        self.calls = Calls(self.settings)
        self.store = JobStore(url, "valkey")


@pytest.fixture
def story(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    bench = Real(redis_url)
    account = Account(name="textgoto", adapter="textgoto", operations=["balance", "lookup", "send", "verify"])
    bench.redis.hset(KEY, "textgoto", msgspec.json.encode(account))
    with Dispatcher(bench.settings) as dispatcher:
        yield Story(bench, dispatcher)
    bench.store.close()
    bench.redis.close()


def test_nothing_is_left_but_what_is_constant(story: Story) -> None:
    """Every key has a lifetime or does not grow; once the lifetimes are over and the clock swept, the few are left."""
    story.play()
    found = lifetimes(story.bench.redis)
    assert strays(found) == set()
    assert max(left for key, left in found.items() if not key.startswith(USAGE)) <= (30 + 3) * 86400 * 1000

    # A month on a server that goes by its own time.
    for key, left in found.items():
        if left >= 0:
            story.bench.redis.pexpire(key, 1)
    for key in ("d:f:textgoto", "d:nd"):
        story.bench.redis.zadd(key, dict.fromkeys(story.bench.members(key), 1))
    time.sleep(0.01)
    over = load(**SHORT, retention=0.001, events_retention=0.001)
    story.bench.run(Calls(over).sweep())
    assert {*lifetimes(story.bench.redis)} == CONSTANT
    assert story.bench.redis.xlen("d:e") == 0
