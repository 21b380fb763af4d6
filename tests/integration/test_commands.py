"""What a job costs Redis, in commands: exact, where times are not. One more in a script, and its row here differs.

A command costs a few microseconds, one more member of it a fraction of that: so what is said of a hundred jobs together
tells how many jobs a Redis carries, and what is said of one alone how long it is busy with a code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import pytest
import redis

from dispatcher.budgets import Spending
from dispatcher.calls import Advance, Call, Calls, Claim, call_name
from dispatcher.jobs import new_id
from dispatcher.limits import Ask, Ended, Granted, parse
from dispatcher.states import State
from dispatcher.store import JobStore
from tests.support import Server
from tests.unit.support import record, settings

T = TypeVar("T")

ACCOUNT: Final = "textgoto"
MANY: Final = 100
TEXT: Final = Spending(country="GB", segments=1, each="5000 USD")
LIMITED: Final = parse("get=60000/60s,concurrency=200", "LIMITS", ())

#: Not the scripts': what counts them.
_OURS: Final = frozenset({"evalsha", "info", "config|resetstat"})


class Desk:
    """Makes calls on a server of its own, and counts the commands that the last one made."""

    def __init__(self, url: str) -> None:
        self.redis: Any = redis.Redis.from_url(url)
        self.calls = Calls(settings())
        self.costs: dict[str, Counter[str]] = {}
        self._store = JobStore(url, "the test's")

    def run(self, label: str, call: Call[T]) -> T:
        """Make a call; its commands are kept under `label`."""
        self.redis.script_load(call.script.source)
        self.redis.config_resetstat()
        answer = self._store.run(call)
        counted = {
            name.removeprefix("cmdstat_"): told["calls"] for name, told in self.redis.info("commandstats").items()
        }
        self.costs[label] = Counter({name: count for name, count in counted.items() if name not in _OURS})
        return answer

    def create(self, label: str, ids: Sequence[str], batch: str) -> list[str]:
        made = [record(id_, number=f"hash of {id_}", texts=True) for id_ in ids]
        return self.run(label, self.calls.create(ACCOUNT, high=False, batch=batch, records=made, more=bool(batch))).out

    def work(self, label: str, ids: Sequence[str], receipt: str = "reference of ") -> None:
        """Take, claim and end them, each in one call."""
        token = call_name()
        assert len(self.run(f"take, {label}", self.calls.take(token, ids)).records) == len(ids)
        claims = [Claim(token, id_, "never", f"hash of {id_}", TEXT) for id_ in ids]
        assert self.run(f"claim, {label}", self.calls.claim(claims)) == [None] * len(ids)
        moves = [
            Advance(
                id=id_,
                guard=token,
                state=State.SENT,
                detail="accepted by the provider",
                account=ACCOUNT,
                tried="accepted 4711",
                receipt=receipt and receipt + id_,
                look=300,
                fields={"m": "4711", "y": "expected"},
            )
            for id_ in ids
        ]
        assert self.run(f"advance, {label}", self.calls.advance(moves)) == ["sent"] * len(ids)

    def limited(self, label: str, requests: int) -> None:
        """Ask for permits in one call, and tell in another how these requests ended."""
        asks = [Ask(id=call_name(), jobs=1, draws={"get": 1}) for _ in range(requests)]
        granted = self.run(f"permit, {label}", self.calls.permit("mobtexting", LIMITED, asks))
        assert all(isinstance(one, Granted) for one in granted)
        ends = [Ended(id=one.id, moment=0, letters="o", limited=True, seconds=0.05) for one in asks]
        self.run(f"learn, {label}", self.calls.learn("mobtexting", LIMITED, ends))


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    """What each call costs where many came before it."""
    with Server(tmp_path_factory.mktemp("valkey")) as server:
        desk = Desk(server.url)
        for label in ("first", "one"):
            alone = new_id()
            desk.create(f"create, {label}", [alone], "")
            desk.work(label, [alone])
            desk.limited(label, 1)
        for at, label in enumerate(("the first hundred", "a hundred")):
            out, lined = [new_id() for _ in range(MANY)], [new_id() for _ in range(MANY)]
            # So many are with the workers at once that these are the last of them.
            desk.redis.hset(f"d:qw:{ACCOUNT}", mapping={"n": MANY * (1 + at), "at": 0})
            assert desk.create(f"create, {label}", out, "b") == out
            assert desk.create(f"create, {label} that wait", lined, "b") == []
            desk.work(label, out)
            desk.redis.hset(f"d:qw:{ACCOUNT}", mapping={"n": 2 * MANY * (1 + at), "at": 0})
            assert desk.run(f"deal, {label}", desk.calls.deal(ACCOUNT, MANY))[ACCOUNT] == lined
        desk.work("a hundred without receipts", lined, receipt="")
        desk.limited("twenty", 20)
        return desk.costs


def counted(words: str) -> dict[str, int]:
    """Read "time zadd*2" as commands and how many there are of each."""
    pairs = [word.partition("*") for word in words.split()]
    return {name: int(times or 1) for name, _, times in pairs}


#: The call; how many commands it makes in all, and which. A job's share in a call of a hundred is a hundredth of it.
CASES: Final = [
    ("create, one", 13, "exists*3 hget hset mget sadd time zadd*4 zcard"),
    ("take, one", 6, "hget hgetall hset*2 time zmscore"),
    ("claim, one", 11, "exists hgetall hincrby hmget hset*2 time zadd*2 zrem*2"),
    ("advance, one", 13, "exists hgetall hincrby*2 hset pexpire set time xadd zadd*2 zrem*2"),
    ("permit, one", 10, "expire hget hgetall hset*2 pexpire time zadd zcard zremrangebyscore"),
    ("learn, one", 8, "expire hgetall hincrby*3 hset time zrem"),
    (
        "create, a hundred",
        119,
        "exists*3 hexists hget hincrby hmget hset*101 mget persist*2 rpush sadd time zadd*4 zcard",
    ),
    (
        "create, a hundred that wait",
        126,
        "exists*4 hexists hget hincrby hmget hset*101 mget persist*2 rpush sadd time zadd*6 zcard zrange*2 zscore*2",
    ),
    ("deal, a hundred", 21, "exists*5 hget*2 hgetall hmget hset time zadd zcard*2 zincrby*2 zpopmin zrange*2 zrem*2"),
    ("take, a hundred", 204, "hget hgetall*100 hset*101 time zmscore"),
    ("claim, a hundred", 211, "exists hgetall*100 hincrby*3 hmget hset*101 time zadd*2 zrem*2"),
    (
        "advance, a hundred",
        513,
        "exists hgetall*100 hincrby*4 hmget hset*100 persist*2 pexpire*100 set*100 time xadd*100 zadd*2 zrem*2",
    ),
    (
        "advance, a hundred without receipts",
        411,
        "hgetall*100 hincrby*4 hmget hset*100 persist*2 pexpire*100 time xadd*100 zadd zrem*2",
    ),
    ("permit, twenty", 10, "expire hget hgetall hset*2 pexpire time zadd zcard zremrangebyscore"),
    ("learn, twenty", 8, "expire hgetall hincrby*3 hset time zrem"),
]


@pytest.mark.parametrize(
    ("label", "total", "words"), [pytest.param(*one, id=f"{one[0]}: {one[1]} commands") for one in CASES]
)
def test_a_call_makes_these_commands_and_no_other(
    costs: dict[str, Counter[str]], label: str, total: int, words: str
) -> None:
    assert dict(costs[label]) == counted(words)
    assert costs[label].total() == total
