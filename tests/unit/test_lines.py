"""Jobs that wait for their turn: in lines, of tenants and their batches, which are dealt to the workers."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from dispatcher.calls import Advance, Claim
from dispatcher.jobs import Category, Send, Terms
from dispatcher.limits import Ask, parse
from dispatcher.records import encode_public
from dispatcher.states import State
from tests.unit.support import AsyncOnSync, Bench, record
from workers.clock import Clock

#: A queue's first jobs go to the workers at once: as many as this.
AT_ONCE = 500


def make(
    bench: Bench, tenant: str, batch: str, *ids: str, high: bool = False, route: tuple[str, ...] = ()
) -> list[str]:
    """Make jobs; answer those that go to the workers at once."""
    public = encode_public(
        Send(to="+447700900123", text="Hello"), Terms(category=Category.PROMOTIONAL), "send", sandbox=True, route=route
    )
    records = [msgspec.structs.replace(record(id_), tenant=tenant, public=public) for id_ in ids]
    return bench.run(bench.calls.create("textgoto", high=high, batch=batch, records=records)).out


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:04}" for number in range(count)]


def take_all(bench: Bench, queue: str = "textgoto") -> None:
    """As workers do: what is out is brought to its end."""
    ids = [id_.decode() for id_ in bench.redis.zrange(f"d:o:{queue}", 0, -1)]
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        bench.take(*some, token="t")
        bench.run(bench.calls.claim([Claim("t", id_, "never") for id_ in some]))
        moves = [Advance(id=id_, guard="t", state=State.SENT, detail="accepted") for id_ in some]
        states = bench.run(bench.calls.advance(moves))
        assert states == ["sent"] * len(some)


@pytest.fixture
def small(bench: Bench) -> Bench:
    """Workers that take four jobs at a time, and are known to."""
    for queue in ("textgoto", "textgoto.high"):
        bench.redis.hset(f"d:qw:{queue}", mapping={"n": 4, "at": bench.clock.ms})
    return bench


def test_the_first_go_to_the_workers_at_once_and_the_others_wait_for_their_turn(bench: Bench) -> None:
    made = names("a", AT_ONCE)
    assert make(bench, "", "", *made) == made
    assert make(bench, "", "", "b0001") == []
    assert bench.deal() == {"textgoto.high": [], "textgoto": []}
    take_all(bench)
    assert bench.deal()["textgoto"] == ["b0001"]


def test_who_comes_later_does_not_pass_those_who_wait(small: Bench) -> None:
    make(small, "", "", *names("a", 6))
    take_all(small)
    small.clock.advance(0.001)
    assert make(small, "", "", "late") == []
    assert small.deal()["textgoto"] == ["a0004", "a0005", "late"]


def test_a_line_keeps_the_order_it_was_given(small: Bench) -> None:
    wanted = [f"job-{number}" for number in (7, 3, 9, 1, 8, 2, 5, 4, 6, 0)]
    out = make(small, "", "", *wanted)
    assert out == wanted[:4]
    for _ in range(5):
        take_all(small)
        out += small.deal()["textgoto"]
    assert out == wanted


def test_tenants_take_turns_however_many_jobs_one_has(small: Bench) -> None:
    """A second tenant's ten messages do not wait behind the first one's two thousand."""
    for part in range(4):
        make(small, "large", "campaign", *names(f"a{part}", 500))
    make(small, "small", "", *names("b", 10))
    small.redis.hset("d:qw:textgoto", "n", 100)
    take_all(small)
    dealt = small.deal()["textgoto"]
    assert Counter(id_[0] for id_ in dealt)["b"] == 10
    assert {id_[0] for id_ in dealt[:35]} == {"a", "b"}


def test_batches_of_a_tenant_share_its_turns(small: Bench) -> None:
    """A tenant with many batches has no more than one with a single one."""
    for batch in "vwxyz":
        make(small, "many", batch, *names(batch, 400))
    make(small, "one", "", *names("a", 400))
    small.redis.hset("d:qw:textgoto", "n", 400)
    take_all(small)
    dealt = Counter(id_[0] for id_ in small.deal()["textgoto"])
    assert dealt.pop("a") == sum(dealt.values())
    assert set(dealt) == set("vwxyz")


def test_a_newcomer_makes_up_for_nothing(small: Bench) -> None:
    """Who had no jobs until now has as many turns from now on as the others, not all of them."""
    make(small, "old", "", *names("a", 500))
    for _ in range(5):
        take_all(small)
        small.deal()
    make(small, "new", "", *names("b", 300))
    small.redis.hset("d:qw:textgoto", "n", 200)
    take_all(small)
    dealt = Counter(id_[0] for id_ in small.deal()["textgoto"])
    assert abs(dealt["a"] - dealt["b"]) <= 25


def test_the_high_lane_is_dealt_first(small: Bench) -> None:
    make(small, "", "", *names("a", 20))
    make(small, "", "", *names("h", 20), high=True)
    take_all(small)
    take_all(small, "textgoto.high")
    dealt = small.deal()
    assert dealt["textgoto.high"] == names("h", 20)[4:12]
    assert dealt["textgoto"] == names("a", 20)[4:12]


def test_a_queue_that_runs_short_is_given_more_and_one_that_is_slow_less(bench: Bench) -> None:
    bench.redis.hset("d:qw:textgoto", mapping={"n": 100, "at": bench.clock.ms})
    for part in range(4):
        make(bench, "", "", *names(f"a{part}", 500))
    given = []
    for _ in range(3):
        take_all(bench)
        bench.clock.advance(0.25)
        given.append(len(bench.deal(most=5000)["textgoto"]))
    assert given == [200, 400, 800]
    for _ in range(15):
        bench.clock.advance(1)
        bench.deal(most=5000)
    assert bench.redis.exists("d:qt:textgoto")
    assert int(bench.redis.hget("d:qw:textgoto", "n")) == 100


def test_what_the_limiter_holds_back_goes_back_to_its_place(small: Bench) -> None:
    make(small, "", "", *names("a", 8))
    small.take("a0000", token="t")
    move = Advance(
        id="a0000", guard="=queued", state=State.QUEUED, detail="waits for limit", wait="limit", delay=3, lined=True
    )
    small.run(small.calls.advance([move]))
    assert small.raw("a0000")["w"].startswith("limit ")
    take_all(small)
    assert small.deal()["textgoto"][0] == "a0000"
    assert "w" not in small.raw("a0000")


@pytest.mark.parametrize("high", [0, 3], ids=["a campaign alone", "beside codes"])
def test_of_a_limited_account_no_more_are_dealt_than_permits_come(small: Bench, high: int) -> None:
    """Those of the high lane that are with the workers draw from the same limit, and go first."""
    limits = parse("all=600/60s", "LIMITS", ["send"])
    small.run(small.calls.permit("textgoto", limits, [Ask(id="1", draws={"all": 1})]))
    # Codes that nobody has sent yet.
    for id_ in names("h", high):
        small.redis.zadd("d:o:textgoto.high", {id_: small.clock.ms})
    make(small, "", "", *names("a", 60))
    take_all(small)
    small.redis.hset("d:qw:textgoto", "n", 500)
    # Some of the burst, and what comes in the time that they are dealt ahead.
    assert len(small.deal()["textgoto"]) == 8 - high


def test_what_is_new_is_not_taken_for_what_came_back(small: Bench) -> None:
    """That stands in its line with whole milliseconds, and each costs a look at its job as it is dealt."""
    make(small, "", "", *names("a", 2004))  # each half a microsecond after the one before
    line: Any = small.redis.zrange("d:q:textgoto::", 0, -1, withscores=True)
    assert len(line) == 2000
    assert [id_ for id_, at in line if at.is_integer()] == []


@pytest.mark.parametrize("end", ["cancelled", "expired", "failed"])
def test_what_ends_in_its_line_leaves_it(small: Bench, end: str) -> None:
    make(small, "t", "b", *names("a", 5))
    assert small.redis.zcard("d:q:textgoto:b:t") == 1
    small.run(small.calls.advance([Advance(id="a0004", guard="=queued", state=State(end), detail="over")]))
    assert not [key for key in small.redis.scan_iter("d:q*") if not key.startswith(b"d:qw")]


@pytest.mark.parametrize(
    ("part", "seconds", "goes_on"),
    [
        pytest.param("0.125", 5, True, id="for the third time"),
        pytest.param("0.25", 5, False, id="for the second time"),
        pytest.param("0.125", -1, False, id="and that is over"),
    ],
)
def test_one_that_throttles_us_on_and_on_lets_them_go_on_too(
    small: Bench, part: str, seconds: int, goes_on: bool
) -> None:
    small.redis.hset("d:lm:textgoto", mapping={"pf": part, "pu": (small.clock.ms + seconds * 1000) * 1000})
    make(small, "", "routed", *names("a", 6), route=("textgoto", "clubtexting"))
    take_all(small)
    small.deal()
    assert (small.raw("a0005")["p"] == "clubtexting") is goes_on


def test_an_open_breaker_lets_those_go_on_that_have_another_account(small: Bench) -> None:
    small.redis.hset("d:lm:textgoto", mapping={"bs": "open"})
    make(small, "", "routed", *names("a", 6), route=("textgoto", "clubtexting"))
    make(small, "", "", *names("b", 3))
    take_all(small)
    small.deal()
    assert [small.raw(f"a000{number}")["p"] for number in (4, 5)] == ["clubtexting", "clubtexting"]
    assert "left alone" in small.raw("a0005")["h"]
    assert sorted(small.due("clubtexting")) == ["a0004", "a0005"]
    assert small.raw("b0002")["p"] == "textgoto"


def test_the_clock_hands_out_all_that_there_is_room_for(bench: Bench) -> None:
    """However many calls that takes: what a tick leaves lying, workers wait for until the next."""
    bench.redis.hset("d:qw:textgoto", mapping={"n": 2000, "at": bench.clock.ms})
    take_all(bench)
    make(bench, "", "", *names("a", 2000))
    waiting = names("b", 1200)
    make(bench, "", "", *waiting)
    take_all(bench)
    published: list[str] = []

    async def publish(queue: str, ids: list[str]) -> None:
        assert queue == "textgoto"
        published.extend(ids)

    async def empty(queue: str) -> bool:
        raise AssertionError(f"nobody asks whether {queue} is empty")

    store: Any = AsyncOnSync(bench.store)
    assert asyncio.run(Clock(bench.settings, store, publish, empty).tick()) == len(waiting)
    assert published == waiting
