"""Anything may happen to jobs in any order: on a real server, against the model of what is promised.

The scripts are the real ones but for the line that asks the server for the time: that is a key here, which stands still
until the model's clock goes on. What has a lifetime gets older with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha1
from typing import Any, Final

import msgspec

from dispatcher.calls import Call, Script, T
from dispatcher.store import JobStore
from tests.model import SETTINGS
from tests.unit.support import Bench, Clock
from tests.walk import walk

#: The line that asks for the time, and what stands in its place.
ASKS: Final = "local time = redis.call('TIME')\n"
TOLD: Final = (
    "local now = tonumber(redis.call('GET', 't:now'))\n  local time = {math.floor(now / 1000), now % 1000 * 1000}\n"
)


@cache
def at_rest(one: Script) -> Script:
    """Return a script that goes by the key."""
    assert one.source.count(ASKS) == one.source.count("'TIME'"), "the scripts take their time from elsewhere by now"
    source = one.source.replace(ASKS, TOLD)
    return Script(one.name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


class Standing(JobStore):
    """Makes calls at the time that the key tells."""

    def run(self, call: Call[T]) -> T:
        return super().run(msgspec.structs.replace(call, script=at_rest(call.script)))


class RealClock(Clock):
    """The model's clock, which the server goes by."""

    def __init__(self, client: Any) -> None:
        super().__init__(int(time.time() * 1000))
        self._redis = client
        self.advance(0)

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        self._redis.set("t:now", self.ms)
        keys = self._redis.keys("d:*") if seconds else []
        with self._redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.pttl(key)
            left = pipe.execute() if keys else []
            for key, ms in zip(keys, left, strict=True):
                if ms > 0:
                    pipe.pexpire(key, max(0, ms - round(seconds * 1000)))
            pipe.execute()


@contextmanager
def server(url: str) -> Iterator[Bench]:
    store = Standing(url, "the server")
    store.redis.flushdb()
    bench = Bench(RealClock(store.redis), **SETTINGS)
    bench.redis, bench.store = store.redis, store
    try:
        yield bench
    finally:
        store.close()


def test_whatever_happens_in_whatever_order_is_as_promised(redis_url: str) -> None:
    walk(partial(server, redis_url), part=4, examples=25, steps=40)
