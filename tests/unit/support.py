"""What the unit tests share: a clock that moves only when told, a Redis in memory that goes by it, made-up jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar
from unittest import mock

import fakeredis
import msgspec

from dispatcher.calls import Advance, Call, Calls, Claim, Created, Taken, call_name
from dispatcher.jobs import Send
from dispatcher.records import Record
from dispatcher.settings import Settings, load
from dispatcher.states import State
from dispatcher.store import JobStore

T = TypeVar("T")

#: Nobody listens there: what reaches for the network fails.
URL: Final = "redis://127.0.0.1:1/0"

NUMBER: Final = "+447700900123"
OTHER: Final = "+447700900124"
TEXT: Final = "Your parcel is here"

#: Keys as an operator would set them.
SECRET_KEY: Final = "a secret key of tests"
HASH_KEY: Final = "a hash key of tests"


class Clock:
    """A clock that stands still until it is told to go on; it plays the module `time` to the Redis in memory."""

    def __init__(self, ms: int = 1_800_000_000_000) -> None:
        self.ms = ms

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return self.ms / 1000

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)


@contextmanager
def running(clock: Clock) -> Iterator[None]:
    """Let every Redis in memory go by `clock`; nothing else notices."""
    users = [
        module for name, module in [*sys.modules.items()]
        if name.startswith("fakeredis") and vars(module).get("time") is time
    ]  # fmt: skip
    assert users, "the Redis in memory takes its time from elsewhere by now"
    with ExitStack() as stack:
        for module in users:
            stack.enter_context(mock.patch.object(module, "time", clock))
        yield


def settings(**overrides: Any) -> Settings:
    """Settings with both keys set, so that payloads are sealed as in production."""
    usual = {"redis_url": URL, "secret_key": SECRET_KEY, "hash_key": HASH_KEY}
    return load(**usual | overrides)


class Bench:
    """The job store on a Redis of its own, with short words for what the scripts do."""

    def __init__(self, clock: Clock, **overrides: Any) -> None:
        self.clock = clock
        self.redis: Any = fakeredis.FakeRedis(server=fakeredis.FakeServer())  # Any: the stubs mix bytes and text
        self.settings = settings(**overrides)
        self.calls = Calls(self.settings)
        self.store = store_on(self.redis)

    def run(self, call: Call[T]) -> T:
        return self.store.run(call)

    # -- the scripts -------------------------------------------------------------------------------------------------

    def create(
        self,
        *ids: str,
        provider: str = "textgoto",
        high: bool = False,
        batch: str = "",
        more: bool = False,
        **fields: Any,
    ) -> Created:
        made = [record(one, **fields) for one in ids]
        return self.run(self.calls.create(provider, high=high, batch=batch, records=made, more=more))

    def take(self, *ids: str, token: str = "", alone: bool = False) -> Taken:
        """Take as a worker of its own, unless it is named by its `token`."""
        return self.run(self.calls.take(token or call_name(), ids, alone=alone))

    def taken(self, *ids: str, alone: bool = False) -> list[str]:
        """The ids of those that `take` handed over."""
        return [one[0].decode() for one in self.take(*ids, alone=alone).records]

    def hold(self, *ids: str) -> str:
        """Take what must be there to be taken; the taker's token."""
        token = call_name()
        assert [one[0].decode() for one in self.take(*ids, token=token, alone=True).records] == [*ids]
        return token

    def claim(self, *ids: str, repeat: str = "never", token: str = "") -> str:
        """Claim what must be there to be claimed, taking it before unless `token` did; the fencing token."""
        token = token or self.hold(*ids)
        assert self.run(self.calls.claim([Claim(token, one, repeat) for one in ids])) == [None] * len(ids)
        return token

    def refused_claim(self, token: str, id_: str) -> str | None:
        """The state that kept `token` from claiming a job; None where it was claimed."""
        (state,) = self.run(self.calls.claim([Claim(token, id_, "never")]))
        return state

    def advance(self, id_: str, guard: str, to: State | str, detail: str = "told", **told: Any) -> str:
        (state,) = self.run(self.calls.advance([Advance(id=id_, guard=guard, state=State(to), detail=detail, **told)]))
        return state

    def started(self, id_: str, repeat: str = "never", **fields: Any) -> str:
        """A job that a worker has just claimed; its fencing token."""
        self.create(id_, **fields)
        return self.claim(id_, repeat=repeat)

    def ended(self, id_: str, to: str, **fields: Any) -> str:
        """A job that ended as `to`; its fencing token."""
        token = self.started(id_, **fields)
        assert self.advance(id_, token, to) == to
        return token

    def due(self, queue: str = "textgoto", most: int = 500) -> list[str]:
        return self.run(self.calls.due(queue, most))[1]

    def deal(self, account: str = "textgoto", most: int = 500) -> dict[str, list[str]]:
        return self.run(self.calls.deal(account, most))

    def lost(self, queue: str = "textgoto", *, empty: bool = False, most: int = 500) -> list[str]:
        return self.run(self.calls.lost(queue, empty=empty, most=most))

    def sweep(self, most: int = 500) -> tuple[int, int]:
        return self.run(self.calls.sweep(most))

    def check(self, id_: str, code_hash: str, tries: int = 5) -> tuple[int, str]:
        return self.run(self.calls.check(id_, code_hash, tries))

    # -- what lies in Redis ------------------------------------------------------------------------------------------

    def raw(self, id_: str) -> dict[str, str]:
        """The fields of a job as they are stored, without the sealed ones."""
        stored: Mapping[bytes, bytes] = self.redis.hgetall(f"d:j:{id_}")
        return {name.decode(): value.decode(errors="replace") for name, value in stored.items() if name != b"x"}

    def state(self, id_: str) -> str:
        return self.raw(id_).get("s", "gone")

    def story(self, id_: str) -> list[str]:
        """The history as "state: detail"."""
        lines = self.raw(id_)["h"].split("\n")
        return [f"{state}: {detail}" for _, state, _, detail in (line.split(" ", 3) for line in lines)]

    def failure(self, id_: str) -> dict[str, Any] | None:
        stored = self.raw(id_).get("e")
        told: dict[str, Any] | None = msgspec.json.decode(stored) if stored else None
        return told

    def events(self) -> list[tuple[str, str]]:
        """All events as (type, job id)."""
        rows: list[tuple[bytes, dict[bytes, bytes]]] = self.redis.xrange("d:e")
        return [(fields[b"t"].decode(), fields[b"i"].decode()) for _, fields in rows]

    def members(self, key: str) -> set[str]:
        """The members of a sorted set."""
        return {one.decode() for one in self.redis.zrange(key, 0, -1)}

    def counts(self, batch: str) -> dict[str, int]:
        """The counts of a batch without zeroes."""
        stored: Mapping[bytes, bytes] = self.redis.hgetall(f"d:b:{batch}")
        marks = {b"o", b"c", b"e"}
        return {state.decode(): int(count) for state, count in stored.items() if state not in marks and int(count)}

    def names(self) -> set[str]:
        """All keys."""
        return {key.decode() for key in self.redis.scan_iter()}

    def dump(self) -> dict[str, Any]:
        """Everything there is, to see that something changed nothing."""
        names = sorted(self.names())
        with self.redis.pipeline(transaction=False) as pipe:
            readers: dict[bytes, Any] = {
                b"string": pipe.get, b"hash": pipe.hgetall, b"stream": pipe.xrange, b"set": pipe.smembers,
                b"list": lambda key: pipe.lrange(key, 0, -1),
                b"zset": lambda key: pipe.zrange(key, 0, -1, withscores=True),
            }  # fmt: skip
            for name in names:
                pipe.type(name)
            for name, kind in zip(names, pipe.execute(), strict=True):
                readers[kind](name)
            return dict(zip(names, pipe.execute(), strict=True))

    def ttl(self, key: str) -> float | None:
        """Seconds that a key has to live; None where it stays."""
        left: int = self.redis.pttl(key)
        return None if left == -1 else left / 1000


def store_on(redis: Any) -> JobStore:
    """A job store that makes its calls on this Redis."""
    store = JobStore(URL, "memory")
    store.redis = redis
    return store


class AsyncOnSync:
    """What `Execution` calls a store, on a `JobStore`."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def run(self, call: Call[T]) -> T:
        return self._store.run(call)


def record(id_: str, **fields: Any) -> Record:
    """A new job's record: a plain send with what is given laid over it; times are in milliseconds, as in records."""
    public = b'{"kind":"send","operation":"send"}'
    return Record(**{"id": id_, "public": public, "private": msgspec.json.encode(Send(to=NUMBER, text=TEXT))} | fields)


def leaks(shown: str, *private: str) -> Sequence[str]:
    """Which of the private words are shown; of a number also its digits without the plus."""
    words = [part for word in private for part in (word, word.removeprefix("+")) if part]
    return [word for word in words if word in shown]
