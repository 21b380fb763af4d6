"""Limits: how they are written, what follows from them, and what the limiter makes of them.

What the limiter promises is held to by its twin in memory and by the scripts alike; on a real server, whose clock goes
by itself, `tests/integration` does.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dispatcher.calls import Call, script
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.events import EventStream
from dispatcher.jobs import Kind, Lane, Lookup, Send, Verify, Work
from dispatcher.limits import Ask, Ended, Granted, Limit, Limits, Refused, What, parse, percentile, time_class
from dispatcher.outcomes import Accepted, Failure, FailureKind, Outcome
from dispatcher.states import State
from tests.support import phones
from tests.unit.memory_limiter import MemoryLimiter
from tests.unit.support import NUMBER, OTHER, AsyncOnSync, Bench, Clock, running
from tests.unit.test_execute import Plain
from workers.adapters import available
from workers.limits import Later, Permit, RedisLimiter, draws, letter, penalty
from workers.providers.base import Adapter, Group, Request

WHERE = "DISPATCHER_PROVIDERS__ACME__LIMITS"
OPERATIONS = ["send", "verify", "lookup", "balance", "number.buy"]
SECOND = 1_000_000
MINUTE = 60 * SECOND

#: Room for what a test takes of a clock that counts milliseconds.
CAUTIOUS = examples(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Limited(Plain):
    """A provider with limits."""

    def __init__(self, told: str) -> None:
        Adapter.__init__(self, "plain", {"limits": told})


def limits(told: str, vendor: str = "") -> Limits:
    return parse(told, WHERE, OPERATIONS, vendor)


# -- how they are written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "name", "expected"),
    [
        pytest.param("get=1000/60s", "get", Limit(1000, 60, "requests", 10), id="a window in seconds"),
        pytest.param("post=50/s", "post", Limit(50, 1), id="a second"),
        pytest.param("all=7/10s", "all", Limit(7, 10), id="ten seconds"),
        pytest.param("all=600/min", "all", Limit(600, 60, "requests", 6), id="a minute"),
        pytest.param("all=600/5min", "all", Limit(600, 300, "requests", 6), id="five minutes"),
        pytest.param("delete=1/h", "delete", Limit(1, 3600), id="an hour"),
        pytest.param("all=100/d", "all", Limit(100, 86400, "requests", 1), id="a day"),
        pytest.param("address=2/day", "address", Limit(2, 86400), id="a day in full"),
        pytest.param("send=100seg/s", "send", Limit(100, 1, "segments", 4), id="segments"),
        pytest.param("sender=9seg/min", "sender", Limit(9, 60, "segments"), id="segments of a sender"),
        pytest.param("send=3/s", "send", Limit(3, 1, "jobs"), id="messages"),
        pytest.param("number.buy=3/s", "number.buy", Limit(3, 1, "jobs"), id="an operation of the adapter"),
        pytest.param("get=1000/60s burst 20", "get", Limit(1000, 60, "requests", 20), id="a burst"),
        pytest.param("get=1000/60s  burst  0", "get", Limit(1000, 60, "requests", 0), id="no burst"),
        pytest.param(" get = 1000 / 60s , ", "get", Limit(1000, 60, "requests", 10), id="spaces, a comma too many"),
    ],
)  # fmt: skip
def test_a_limit_is_read(told: str, name: str, expected: Limit) -> None:
    read = limits(told)
    assert dict(read.buckets) == {name: expected}
    assert read
    assert limits(read.shown).buckets[name].most == expected.most, "it is shown as it may be written"


@pytest.mark.parametrize(
    ("told", "vendor", "expected"),
    [
        pytest.param("", "", "", id="none"),
        pytest.param("", "get=1000/60s", "get=1000/60s", id="the vendor's"),
        pytest.param("get=10/s", "get=1000/60s,post=5/s", "get=10/s,post=5/s", id="one replaced, one kept"),
        pytest.param("send=1/s", "get=1000/60s", "get=1000/60s,send=1/s", id="one added"),
        pytest.param("none", "get=1000/60s,concurrency=2", "", id="all lifted"),
        pytest.param("get=none", "get=1000/60s,concurrency=2", "concurrency=2", id="one lifted"),
        pytest.param("concurrency=none", "concurrency=2", "", id="any number at once"),
        pytest.param("concurrency=20", "concurrency=2/address", "concurrency=20", id="at once, over all addresses"),
        pytest.param("concurrency=2/address", "", "concurrency=2/address", id="at once, from each address"),
    ],
)
def test_what_is_set_replaces_the_vendors_own_bucket_by_bucket(told: str, vendor: str, expected: str) -> None:
    assert limits(told, vendor).shown == expected


@pytest.mark.parametrize(
    ("told", "part", "way_out"),
    [
        pytest.param("gets=1/s", "gets=1/s", "there are: all, get, post, delete, address,", id="an unknown bucket"),
        pytest.param("get=0/s", "get=0/s", "write a number above 0", id="nothing"),
        pytest.param("get=-5/s", "get=-5/s", "write it as get=1000/60s", id="less than nothing"),
        pytest.param("get=1.5/s", "get=1.5/s", "write it as get=1000/60s", id="a half"),
        pytest.param("get=²/s", "get=²/s", "write it as get=1000/60s", id="a digit that is none"),
        pytest.param("get=many", "get=many", "write it as get=1000/60s", id="a word"),
        pytest.param("get=10", "get=10", "write it as get=1000/60s", id="no window"),
        pytest.param("get", "get", "write it as get=1000/60s", id="no number"),
        pytest.param("get=10/0s", "get=10/0s", "write one like 60s, h or day", id="no time"),
        pytest.param("get=10/2d", "get=10/2d", "write one like 60s, h or day", id="two days"),
        pytest.param("get=10/25h", "get=10/25h", "write one like 60s, h or day", id="more than a day"),
        pytest.param("get=10/60", "get=10/60", "write it as get=1000/60s", id="no unit"),
        pytest.param("get=10/week", "get=10/week", "write it as get=1000/60s", id="a week"),
        pytest.param("get=10/ms", "get=10/ms", "write it as get=1000/60s", id="a millisecond"),
        pytest.param("get=1/s,get=2/s", "get=2/s", "leave one of them", id="twice"),
        pytest.param("concurrency=2,concurrency=3", "concurrency=3", "leave one of them", id="concurrency twice"),
        pytest.param("get=10seg/s", "get=10seg/s", "only send, verify, sender have any", id="segments of requests"),
        pytest.param("get=10/s burst 11", "get=10/s burst 11", "write a smaller one", id="a burst over the limit"),
        pytest.param("get=10/s burst 10", "get=10/s burst 10", "write a smaller burst", id="no rate left"),
        pytest.param("get=10/s burst", "get=10/s burst", "write it as get=1000/60s", id="a burst of what"),
        pytest.param("concurrency=0", "concurrency=0", "write it as concurrency=20", id="nothing at once"),
        pytest.param("concurrency=-1", "concurrency=-1", "write it as concurrency=20", id="less at once"),
        pytest.param("concurrency=5/s", "concurrency=5/s", "write it as concurrency=20", id="at once in a time"),
        pytest.param("concurrency=some", "concurrency=some", "write it as concurrency=20", id="some at once"),
        pytest.param("none,get=1/s", "none", "there are: all", id="none and one"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_names_setting_part_and_way_out(told: str, part: str, way_out: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        limits(told)
    assert str(refused.value).startswith(f"{WHERE} has {part!r}, which ")
    assert way_out in str(refused.value)


@given(told=st.text(max_size=30) | st.from_regex(r"[a-z]{2,8}=[0-9]{0,3}/?[0-9a-z]{0,4}", fullmatch=True))
@examples(deadline=None, max_examples=200)
def test_any_text_is_read_or_refused_in_our_words(told: str) -> None:
    words = ""
    try:
        read = limits(told)
        assert limits(read.shown or "none").shown == read.shown
    except ConfigurationError as error:
        words = str(error)
    assert not words or words.startswith(WHERE)


# -- what follows from them --------------------------------------------------------------------------------------------


@given(most=st.integers(1, 100_000), window=st.integers(1, 86400), burst=st.integers(0, 100_000) | st.none())
@examples(deadline=None, max_examples=200)
def test_burst_and_rate_fit_into_any_window_that_is_late(most: int, window: int, burst: int | None) -> None:
    one = Limit(most, window, "requests", most // 100 if burst is None else min(burst, most - 1))
    assert one.burst + one.rate * (window + one.late) <= most * (1 + 1e-12)
    assert one.late <= 3
    assert 1 <= one.at_once_normal <= one.at_once


@pytest.mark.parametrize(
    ("told", "at_once", "normal", "interval", "used"),
    [
        # (1000 - 10) / (60 + 3): 15.714 a second, 942.9 in 60 s
        pytest.param("get=1000/60s", 10, 5, 63_636.36, 0.943, id="1000 a minute"),
        # (60 - 0) / 63
        pytest.param("get=60/min", 1, 1, 1_050_000, 0.952, id="one a second"),
        # (2 - 0) / 1.05
        pytest.param("get=2/s", 1, 1, 525_000, 0.952, id="two a second"),
        # (1000 - 200) / 63
        pytest.param("get=1000/60s burst 200", 200, 100, 78_750, 0.762, id="a burst costs rate"),
    ],
)
def test_the_parameters_of(told: str, at_once: int, normal: int, interval: float, used: float) -> None:
    one = limits(told).buckets["get"]
    assert (one.at_once, one.at_once_normal) == (at_once, normal)
    assert one.interval == pytest.approx(interval, rel=1e-6)
    assert one.rate * one.window / one.most == pytest.approx(used, abs=0.001)


@pytest.mark.parametrize(
    ("told", "burst", "size"),
    [
        pytest.param("send=1000/60s", 10, 10, id="a hundredth of the limit"),
        pytest.param("send=10/s", 0, 1, id="one by one"),
        pytest.param("send=1000/60s,get=1000/60s", 10, 10, id="messages are no GETs"),
        pytest.param("send=1000/60s,post=5/s", 20, 20, id="as many as it can where requests are limited, too"),
        pytest.param("send=30/s,concurrency=2", 15, 15, id="half of the limit at most"),
        pytest.param("send=1000/60s burst 5", 5, 5, id="as the operator says"),
        pytest.param("send=600seg/60s", 6, 20, id="of segments a hundredth"),
        pytest.param("send=90seg/60s", 4, 20, id="of segments those of a long text"),
        pytest.param("send=600seg/60s,post=1/s", 40, 20, id="of segments two each where requests are limited"),
        pytest.param("sender=200/60s", 2, 2, id="of a sender"),
        pytest.param("verify=200/60s", 2, 20, id="a code travels alone"),
        pytest.param("post=200/60s", 2, 20, id="a request is one"),
    ],
)
def test_a_request_carries_no_more_messages_than_may_go_at_once(told: str, burst: int, size: int) -> None:
    one, *_ = parse(told, WHERE, OPERATIONS, together=20).buckets.values()
    assert one.burst == burst
    assert one.burst + one.rate * (one.window + one.late) <= one.most * (1 + 1e-12)
    account = {"uid": "a", "pwd": "b", "limits": told}
    jobs = [job(f"{n}", request=Send(to=number, text="Hi")) for n, number in enumerate(phones(25))]
    assert max(len(group.jobs) for group in available()["textgoto"]("acme", account).build(jobs).groups) == size


def test_times_are_known_within_a_quarter() -> None:
    times = [0.003, 0.05, 0.05, 0.06, 0.4, 2.0]
    counts = {one: sum(time_class(time) == one for time in times) for one in map(time_class, times)}
    assert percentile(counts, 0.5) == pytest.approx(0.05, rel=0.25)
    assert percentile(counts, 0.95) == pytest.approx(2.0, rel=0.25)
    assert percentile({}, 0.5) is None


# -- what a request draws, and what its end says -----------------------------------------------------------------------


def job(id_: str = "0001", lane: Lane = Lane.NORMAL, state: State = State.QUEUED, **fields: Any) -> Work:
    request = fields.pop("request", Send(to=NUMBER, text="Hello", sender="ACME"))
    kind = {"Send": Kind.SEND, "Verify": Kind.VERIFY, "Lookup": Kind.LOOKUP}[request.__class__.__name__]
    return Work(id=id_, provider="plain", kind=kind, operation=kind, request=request, lane=lane, state=state)


def group(*jobs: Work, cost: dict[str, int] | None = None, before: bool = False, high: bool = False) -> Group:
    request = Request(method="POST", url="https://plain.invalid/", body=b"")
    jobs = jobs or (job(lane=Lane.HIGH if high else Lane.NORMAL),)
    cost = {"post": 1, jobs[0].operation: len(jobs)} if cost is None else cost
    return Group(request=request, jobs=jobs, cost=cost, before=before)


LONG = Send(to=OTHER, text="x" * 161)

#: Three texts, of one and of two segments, one of which has another sender.
SOME = (job("a"), job("b", request=LONG), job("c", request=Send(to="+12125550100", text="Hi", sender="ACME")))


@pytest.mark.parametrize(
    ("told", "of", "expected"),
    [
        pytest.param("", group(), {"all": 1}, id="without limits, what the breaker needs"),
        pytest.param("post=5/s", group(), {"all": 1, "post": 1}, id="its verb"),
        pytest.param("get=5/s", group(), {"all": 1}, id="another's verb"),
        pytest.param("send=5/s", group(*SOME), {"all": 1, "send": 3}, id="its messages"),
        pytest.param("send=5seg/s", group(*SOME), {"all": 1, "send": 4}, id="their segments"),
        pytest.param("address=5/s", group(*SOME), {"all": 1, "address:web-1": 1}, id="where it leaves from"),
        pytest.param("sender=5/s", group(*SOME), {"all": 1, "sender:#ACME": 2, "sender:#": 1}, id="their senders"),
        pytest.param("sender=5seg/s", group(*SOME), {"all": 1, "sender:#ACME": 2, "sender:#": 2}, id="of each"),
        pytest.param(
            "sender=5/s,verify=9/s", group(job(request=Verify(to=NUMBER, template="It is [CODE]"))),
            {"all": 1, "verify": 1, "sender:#": 1}, id="a code that is a text",
        ),
        pytest.param("sender=5/s", group(job(request=Lookup(to=NUMBER))), {"all": 1}, id="no message, no sender"),
        pytest.param(
            "sender=5/s,get=5/s", group(job(state=State.SENT), cost={"get": 1, "report": 1}), {"all": 1, "get": 1},
            id="a question about a message",
        ),
        pytest.param(
            "sender=5/s,get=5/s", group(cost={"get": 1}, before=True), {"all": 1, "get": 1}, id="a read before it",
        ),
    ],
)  # fmt: skip
def test_a_request_draws(told: str, of: Group, expected: Mapping[str, int]) -> None:
    assert draws(limits(told), of, "web-1", lambda sender: f"#{sender}") == expected


def failed(kind: FailureKind, code: str = "", retry_after: float | None = None) -> Failure:
    return Failure(kind=kind, code=code, retry_after=retry_after)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(Accepted(ref="1"), "o", id="accepted"),
        *(
            pytest.param(failed(kind), expected, id=str(kind))
            for kind, expected in {
                FailureKind.INVALID: "o", FailureKind.REJECTED: "o", FailureKind.OPTED_OUT: "o",
                FailureKind.NOT_SENT: "e", FailureKind.AMBIGUOUS: "e",
                FailureKind.THROTTLED: "", FailureKind.UNAUTHORIZED: "", FailureKind.INSUFFICIENT_FUNDS: "",
                FailureKind.REFUSED: "", FailureKind.UNSUPPORTED: "", FailureKind.EXPIRED: "",
                FailureKind.INTERNAL: "",
            }.items()
        ),
        pytest.param(failed(FailureKind.AMBIGUOUS, "read_timeout"), "t", id="no answer in time"),
        pytest.param(failed(FailureKind.AMBIGUOUS, "deadline"), "t", id="no whole answer in time"),
        pytest.param(failed(FailureKind.NOT_SENT, "connect_timeout"), "t", id="no connection in time"),
        pytest.param(failed(FailureKind.NOT_SENT, "connect_refused"), "e", id="no connection"),
        pytest.param(
            Failure(kind=FailureKind.NOT_SENT, code="SEND_FAILURE", own=True), "o", id="one number cannot be texted"
        ),
    ],
)  # fmt: skip
def test_an_outcome_says_how_the_provider_is(outcome: Outcome, expected: str) -> None:
    assert letter(outcome) == expected


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([Accepted(), failed(FailureKind.AMBIGUOUS, retry_after=9)], None, id="nobody is too fast"),
        pytest.param([failed(FailureKind.THROTTLED)], 5, id="too fast, for how long it does not say"),
        pytest.param([failed(FailureKind.THROTTLED, retry_after=30)], 30, id="as it says"),
        pytest.param([failed(FailureKind.THROTTLED, retry_after=0)], 1, id="never less than permits lie ahead"),
        pytest.param([failed(FailureKind.THROTTLED, retry_after=9e9)], 3600, id="never more than an hour"),
        pytest.param([Accepted(), failed(FailureKind.THROTTLED, retry_after=7)], 7, id="one of several jobs"),
    ],
)
def test_nobody_asks_again_for(outcomes: Sequence[Outcome], expected: float | None) -> None:
    assert penalty(outcomes) == expected


# -- what the limiter promises, in memory and in Redis -----------------------------------------------------------------


class Kit(Protocol):
    """A limiter and its clock."""

    clock: Clock

    def permit(self, *asks: Ask) -> list[Granted | Refused]:
        """Ask for these, one after the other in one call."""

    def ended(self, *ends: Ended) -> None:
        """Tell how some ended."""

    def breaker(self) -> str:
        """How the breaker stands."""


class Twin:
    def __init__(self, clock: Clock, told: str, **settings: Any) -> None:
        self.clock = clock
        bench = Bench(clock, **settings)
        adapter = Limited(told)
        self.limiter = MemoryLimiter(bench.settings, {"plain": adapter}, lambda: clock.ms * 1000)

    def permit(self, *asks: Ask) -> list[Granted | Refused]:
        return self.limiter.permit("plain", asks)

    def ended(self, *ends: Ended) -> None:
        self.limiter.ended("plain", ends)

    def breaker(self) -> str:
        return self.limiter.breaker("plain")


class Scripts:
    def __init__(self, clock: Clock, told: str, **settings: Any) -> None:
        self.clock = clock
        self.bench = Bench(clock, **settings)
        self.limits = Limited(told).limited

    def permit(self, *asks: Ask, **more: Any) -> list[Granted | Refused]:
        return self.bench.run(self.bench.calls.permit("plain", self.limits, asks, **more))

    def ended(self, *ends: Ended) -> None:
        self.bench.run(self.bench.calls.learn("plain", self.limits, ends))

    def breaker(self) -> str:
        return self.bench.run(self.bench.calls.limits_shown("plain")).breaker.state

    def room(self, *, high: bool = False, ahead: int = 500) -> tuple[int, int]:
        """What `deal.lua` may hand out, and in how many ms more."""
        source = script("permit").source.partition("local function script()")[0]
        source += "local now = now_ms() local jobs, at = room(ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), now) "
        answer = self.bench.redis.eval(source + "return {jobs, at - now}", 0, "plain", "1" if high else "", ahead)
        return int(answer[0]), int(answer[1])

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        stream = EventStream(self.bench.store, self.bench.settings.sealer(), lambda ids, reveal: {})
        return [(event.type, event.data) for event in stream.told(self.bench.redis.xrange("d:e"), reveal=False)]


@pytest.fixture(params=[Twin, Scripts], ids=["twin", "scripts"])
def kit(request: pytest.FixtureRequest, clock: Clock) -> Any:
    """Makes a limiter: `kit("get=2/s")`, with settings by name."""
    return lambda told="", **settings: request.param(clock, told, **settings)


@pytest.fixture
def scripts(clock: Clock) -> Any:
    return lambda told="", **settings: Scripts(clock, told, **settings)


ids = map("r{}".format, itertools.count())


def ask(high: bool = False, jobs: int = 1, what: What = "job", **amounts: int) -> Ask:
    drawn = {name.replace("__", ":"): amount for name, amount in amounts.items()}
    ahead = 1_000_000 if high else 500_000
    return Ask(id=next(ids), high=high, jobs=jobs, what=what, ahead=ahead, draws={"all": 1} | drawn)


def granted(answers: Sequence[Granted | Refused]) -> list[Granted]:
    return [one for one in answers if isinstance(one, Granted)]


def ended(one: Ask, answer: Granted | Refused, letters: str = "o", throttled: float | None = None) -> Ended:
    assert isinstance(answer, Granted)
    wait = None if throttled is None else round(throttled * SECOND)
    limited = len(one.draws) > 1
    return Ended(id=one.id, moment=answer.moment, letters=letters, throttled=wait, limited=limited, seconds=0.1)


def saturate(one: Kit, seconds: float, make: Any = lambda: ask(get=1), step: float = 0.1) -> list[int]:
    """The moments of all that is granted to somebody who asks without end."""
    moments = []
    for _ in range(round(seconds / step)):
        while answers := granted(one.permit(make())):
            moments.append(answers[0].moment)
        one.clock.advance(step)
    return moments


def most_in(moments: Sequence[int], window: int) -> int:
    """The most of these moments that lie in any half-open window of so many µs."""
    ordered, most, first = sorted(moments), 0, 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= window:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_saturated_it_uses_94_percent_and_never_more_than_the_limit(kit: Any) -> None:
    one = kit("get=100/10s")
    one.clock.advance(60)
    moments = saturate(one, 33, step=0.5)
    assert most_in(moments, 10 * SECOND) <= 100
    assert most_in(moments, 10_500_000) <= 100, "though requests are half a second late"
    steady = [moment for moment in moments if moment >= moments[0] + 10 * SECOND]
    assert len(steady) / (steady[-1] - steady[0]) * 10 * SECOND >= 0.93 * 100


BUCKETS = {"all": "all=40/s burst 6", "get": "get=200/10s burst 3", "send": "send=100/s", "post": "post=60/s burst 12"}

arrivals = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 7, 30, 120, 900]),
        st.booleans(),
        st.dictionaries(st.sampled_from(["get", "send", "post"]), st.integers(1, 15), max_size=3),
    ),
    min_size=1,
    max_size=40,
)


@given(arrivals=arrivals, chosen=st.sets(st.sampled_from([*BUCKETS]), min_size=1))
@CAUTIOUS
def test_in_any_time_no_more_than_burst_and_rate_lets_through(
    arrivals: list[tuple[int, bool, dict[str, Any]]], chosen: set[str]
) -> None:
    """Over any arrivals, lanes, costs and buckets; and the twin grants exactly what the scripts do."""
    clock = Clock()
    told = ",".join(BUCKETS[name] for name in sorted(chosen))
    with running(clock):
        both: list[Any] = [Twin(clock, told), Scripts(clock, told)]
        log: list[tuple[int, Mapping[str, int]]] = []
        for wait, high, amounts in arrivals:
            clock.ms += wait
            one = ask(high, **amounts)
            mine, theirs = (each.permit(one)[0] for each in both)
            assert mine == theirs
            if isinstance(mine, Granted):
                log.append((mine.moment, one.draws))
    for name, limit in limits(told).buckets.items():
        drawn = sorted((moment, cost[name]) for moment, cost in log if name in cost)
        for first in range(len(drawn)):
            used = drawn[first][1]
            for moment, amount in drawn[first + 1 :]:
                used += amount
                assert used <= limit.at_once + limit.rate * (moment - drawn[first][0] + 1) / SECOND + 1e-6


def test_all_buckets_are_charged_or_none(kit: Any) -> None:
    """What one bucket has no room for takes nothing from the others."""
    one = kit("get=1/min,post=100/s burst 50")
    assert granted(one.permit(ask(get=1, post=1)))
    refused = one.permit(*(ask(get=1, post=20) for _ in range(50)))
    assert not granted(refused)
    assert len(granted(one.permit(ask(high=True, post=49)))) == 1


def test_a_refused_one_hears_when_the_next_comes_and_may_then_go(kit: Any) -> None:
    one = kit("get=60/min")
    assert granted(one.permit(ask(get=1)))
    (refused,) = one.permit(ask(get=1))
    # The next is due after 1.05 s, and granted when it is no more than half a second ahead.
    assert refused == Refused(delay=550_000)
    one.clock.advance(0.549)
    assert not granted(one.permit(ask(get=1)))
    one.clock.advance(0.001)
    assert one.permit(ask(get=1)) == [Granted(wait=500_000, moment=one.clock.ms * 1000 + 500_000)]


def test_permits_are_spaced_and_lie_ahead_as_far_as_their_lane_may(kit: Any) -> None:
    one = kit("get=1000/60s burst 0")
    waits = [answer.wait for answer in granted(one.permit(*(ask(get=1) for _ in range(40))))]
    assert max(waits) <= 500_000
    assert {later - sooner for sooner, later in itertools.pairwise(waits)} == {63_000}
    waits = [answer.wait for answer in granted(one.permit(*(ask(high=True, get=1) for _ in range(40))))]
    assert 900_000 < max(waits) <= 1_000_000


def test_the_high_lane_gets_in_while_the_other_asks_without_end(kit: Any) -> None:
    one = kit("get=600/60s burst 10")
    waits = []
    for _ in range(20):
        saturate(one, 0.5)
        while granted(one.permit(ask(get=1))):
            pass
        (code,) = one.permit(ask(high=True, get=1))
        assert isinstance(code, Granted)
        waits.append(code.wait)
    assert max(waits) <= 550_000, "less than those of the normal lane that wait already"


def test_half_of_the_burst_is_kept_for_the_high_lane(kit: Any) -> None:
    one = kit("get=1000/60s")
    normal = granted(one.permit(*(ask(get=1) for _ in range(10))))
    assert sum(answer.wait < 100 for answer in normal) == 5
    one.clock.advance(60)
    high = granted(one.permit(*(ask(high=True, get=1) for _ in range(20))))
    assert sum(answer.wait < 100 for answer in high) == 10


def test_a_request_dearer_than_the_burst_waits_until_nothing_is_drawn_and_is_paid_for(kit: Any) -> None:
    one = kit("send=100/s burst 10")
    assert granted(one.permit(ask(send=30)))
    # 30 at 85.7 a second
    assert granted(one.permit(ask(send=30)))[0].wait == 583_334, "all of the 30, and what is more than ten of its own"
    # and 30 more, of which the normal lane has five in advance
    assert one.permit(ask(send=1)) == [Refused(delay=386_668)]
    one.clock.advance(60)
    assert granted(one.permit(ask(send=30)))[0].wait == 0


def test_a_sender_of_its_own_holds_up_no_other(kit: Any) -> None:
    one = kit("sender=60/min,post=100/s burst 50")
    busy: dict[str, Any] = {"sender__b": 1, "post": 1}
    other: dict[str, Any] = {"sender__o": 1, "post": 1}
    answers = one.permit(ask(**busy), ask(**busy), ask(**other))
    assert [isinstance(answer, Granted) for answer in answers] == [True, False, True]
    assert answers[1] == Refused(delay=550_000, own=True)
    one = kit("sender=60/min,post=60/min")
    assert one.permit(ask(**busy), ask(**busy))[1] == Refused(delay=550_000, own=False), "others would wait, too"


# -- leases ------------------------------------------------------------------------------------------------------------


def test_no_more_are_on_the_wire_at_once_than_may_be(kit: Any) -> None:
    one = kit("concurrency=2")
    asks = [ask() for _ in range(3)]
    answers = one.permit(*asks)
    assert [isinstance(answer, Granted) for answer in answers] == [True, True, False]
    assert answers[2] == Refused(delay=250_000)
    one.ended(ended(asks[0], answers[0]))
    assert len(granted(one.permit(ask(), ask()))) == 1


def test_a_lease_ends_with_its_holder(kit: Any) -> None:
    """Two seconds after the deadline of its request, for nobody tells how a dead worker's ended."""
    one = kit("concurrency=1", deadline=3, lease=10)
    assert granted(one.permit(ask()))
    one.clock.advance(4.9)
    assert not granted(one.permit(ask()))
    one.clock.advance(0.1)
    assert granted(one.permit(ask()))


def test_a_permit_that_was_not_used_gives_its_lease_back(kit: Any) -> None:
    one = kit("concurrency=1")
    first = ask()
    (answer,) = one.permit(first)
    one.ended(Ended(id=first.id, moment=answer.moment))
    assert granted(one.permit(ask()))


def test_a_lease_that_comes_free_goes_to_the_high_lane_that_waits_for_it(kit: Any) -> None:
    one = kit("concurrency=1")
    first = ask()
    (answer,) = one.permit(first)
    assert not granted(one.permit(ask(high=True)))
    one.ended(ended(first, answer))
    assert not granted(one.permit(ask()))
    assert granted(one.permit(ask(high=True)))


def test_a_high_one_that_does_not_come_back_keeps_its_lease_for_half_a_second(kit: Any) -> None:
    one = kit("concurrency=1")
    first = ask()
    (answer,) = one.permit(first)
    one.permit(ask(high=True))
    one.ended(ended(first, answer))
    one.clock.advance(0.5)
    assert granted(one.permit(ask()))


def test_each_address_has_its_own(scripts: Any) -> None:
    one = scripts("concurrency=2/address,address=60/min")
    here, there = {"address": "here"}, {"address": "there"}
    assert len(granted(one.permit(*(ask(address__here=1, high=True) for _ in range(3)), **here))) == 1
    assert len(granted(one.permit(*(ask(address__there=1, high=True) for _ in range(3)), **there))) == 1
    one = scripts("concurrency=2/address")
    assert [len(granted(one.permit(*(ask() for _ in range(3)), **where))) for where in (here, there, here)] == [2, 2, 0]


# -- penalty -----------------------------------------------------------------------------------------------------------


def throttle(one: Kit, seconds: float = 5, **amounts: Any) -> None:
    first = ask(high=True, **amounts)
    (answer,) = one.permit(first)
    one.ended(ended(first, answer, "", throttled=seconds))


def test_nobody_gets_a_permit_until_the_provider_wants_to_be_asked_again(kit: Any) -> None:
    one = kit("get=600/60s")
    throttle(one, 5, get=1)
    for high in (False, True):
        (refused,) = one.permit(ask(high))
        assert isinstance(refused, Refused)
        assert refused.delay == (4_000_000 if high else 4_500_000)
    one.clock.advance(4.4)
    assert not granted(one.permit(ask()))
    one.clock.advance(0.2)
    (answer,) = one.permit(ask())
    assert answer == Granted(wait=400_000, moment=one.clock.ms * 1000 + 400_000), "not before its end"


def test_the_rate_is_halved_and_comes_back_step_by_step(kit: Any) -> None:
    one = kit("get=600/60s burst 0")
    whole = 600 / 63 * 10
    throttle(one, 5, get=1)
    one.clock.advance(5)
    shares = [len(saturate(one, 10, step=0.5)) / whole for _ in range(6)]
    assert shares == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0, 1.0], abs=0.05)


def test_another_penalty_halves_what_is_left_and_a_part_always_is(kit: Any) -> None:
    one = kit("get=6000/60s burst 0")
    for _ in range(9):
        throttle(one, 1, get=1)
        one.clock.advance(1.2)
    assert len(saturate(one, 8)) / (6000 / 63 * 8) == pytest.approx(1 / 16, abs=0.02)


def test_those_that_were_on_their_way_tell_of_the_same_penalty(kit: Any) -> None:
    one = kit("get=600/60s burst 6")
    asks = [ask(get=1) for _ in range(6)]
    answers = one.permit(*asks)
    pairs = [(each, answer) for each, answer in zip(asks, answers, strict=True) if isinstance(answer, Granted)]
    assert len(pairs) > 3
    for each, answer in pairs:
        one.ended(ended(each, answer, "", throttled=2))
    one.clock.advance(2)
    assert len(saturate(one, 9)) / (594 / 63 * 9) == pytest.approx(0.5, abs=0.1)


def test_a_later_word_makes_it_longer_and_a_shorter_one_does_not(kit: Any) -> None:
    one = kit("get=600/60s")
    asks = [ask(get=1), ask(get=1)]
    answers = one.permit(*asks)
    one.ended(ended(asks[0], answers[0], "", throttled=5), ended(asks[1], answers[1], "", throttled=2))
    one.clock.advance(4)
    assert not granted(one.permit(ask()))


def test_an_account_without_limits_is_slowed_to_half_of_what_it_used(kit: Any) -> None:
    one = kit("")
    for _ in range(10):
        assert len(granted(one.permit(*(ask() for _ in range(10))))) == 10
        one.clock.advance(0.5)
    throttle(one, 5)
    one.clock.advance(5)
    # It had made 20 a second.
    assert len(saturate(one, 9, ask)) / 9 == pytest.approx(10, rel=0.15)
    one.clock.advance(40)
    assert len(granted(one.permit(*(ask() for _ in range(500))))) == 500, "until it is lifted"


# -- a clock that goes back, and state that is lost --------------------------------------------------------------------


@pytest.mark.parametrize("back", [0.5, 30, 86400])
def test_a_clock_that_goes_back_stalls_nobody_and_lets_no_more_through(kit: Any, back: float) -> None:
    one = kit("get=600/60s burst 6,concurrency=100", deadline=1, lease=10)
    before = len(saturate(one, 2))
    one.clock.advance(-back)
    assert not granted(one.permit(ask(get=1))), "what was drawn is not forgotten"
    after = len(saturate(one, 2))
    assert before + after == pytest.approx(4 * 594 / 63 + 6, abs=6)


def test_a_penalty_ends_though_the_clock_goes_back(kit: Any) -> None:
    one = kit("get=600/60s")
    throttle(one, 5, get=1)
    one.clock.advance(-3600)
    assert not granted(one.permit(ask()))
    one.clock.advance(5)
    assert granted(one.permit(ask()))


def test_what_is_forgotten_is_taken_for_used_after_three_seconds_of_caution(scripts: Any) -> None:
    one = scripts("get=1000/60s")
    assert granted(one.permit(ask(get=1)))
    one.bench.redis.flushall()
    (refused,) = one.permit(ask(get=1), granted=True)
    assert isinstance(refused, Refused)
    one.clock.advance(2.4)
    assert not granted(one.permit(ask(get=1), granted=True))
    one.clock.advance(0.7)
    waits = [answer.wait for answer in granted(one.permit(*(ask(high=True, get=1) for _ in range(20))))]
    assert waits.count(0) <= 2, "there is no burst"


def test_another_run_of_the_server_may_have_forgotten_some(scripts: Any) -> None:
    one = scripts("get=1000/60s")
    assert granted(one.permit(ask(get=1), run="first"))
    assert granted(one.permit(ask(get=1), run="first"))
    assert not granted(one.permit(ask(get=1), run="second"))
    one.clock.advance(3.1)
    assert granted(one.permit(ask(get=1), run="second"))


@pytest.mark.parametrize("told", [{}, {"run": "first"}], ids=["no run known", "a run"])
def test_who_asks_for_the_first_time_ever_needs_no_caution(scripts: Any, told: dict[str, str]) -> None:
    assert granted(scripts("get=1000/60s").permit(ask(get=1), **told))


def test_without_limits_nothing_is_lost(scripts: Any) -> None:
    assert granted(scripts("").permit(ask(), granted=True, run="second"))


def test_a_script_that_the_server_forgot_is_sent_again(scripts: Any) -> None:
    one = scripts("get=60/min")
    assert granted(one.permit(ask(get=1)))
    one.bench.redis.script_flush()
    assert not granted(one.permit(ask(get=1))), "what it kept is still there"


def test_nothing_of_the_limiter_stays_but_a_hash_for_each_account(scripts: Any) -> None:
    one = scripts("get=600/60s,sender=9/s,concurrency=9")
    pairs = [(each := ask(get=1, sender__x=1), one.permit(each)[0]) for _ in range(2)]
    one.ended(ended(*pairs[0]))
    assert {key for key in one.bench.names() if one.bench.ttl(key) is None} == {"d:lm:plain"}


# -- breaker -----------------------------------------------------------------------------------------------------------


def send(one: Kit, letters: str, jobs: int = 1) -> None:
    """Let as many requests with a job each, or one of several, end so."""
    for part in [letters] if jobs > 1 else letters:
        each = ask(jobs=jobs)
        (answer,) = one.permit(each)
        one.ended(ended(each, answer, part))


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        pytest.param("e" * 19, "closed", id="too few to judge"),
        pytest.param("e" * 20, "open", id="all in error"),
        pytest.param("o" * 10 + "e" * 10, "open", id="half of them"),
        pytest.param("o" * 11 + "e" * 9, "closed", id="less than half"),
        pytest.param("o" * 14 + "t" * 6, "open", id="three in ten too slow"),
        pytest.param("o" * 15 + "t" * 5, "closed", id="a few too slow"),
        pytest.param("o" * 10 + "t" * 5 + "e" * 5, "open", id="errors and timeouts together"),
        pytest.param("e" * 9 + "o" * 20 + "e" * 9, "closed", id="only the latest count"),
        pytest.param("o" * 30 + "e" * 10, "open", id="however long it went well"),
    ],
)
def test_the_breaker_opens(kit: Any, letters: str, state: str) -> None:
    one = kit()
    send(one, letters)
    assert one.breaker() == state
    assert bool(granted(one.permit(ask()))) is (state == "closed")


def test_each_job_of_a_request_counts(kit: Any) -> None:
    one = kit()
    send(one, "e" * 20, jobs=20)
    assert one.breaker() == "open"


def test_what_was_long_ago_says_nothing(kit: Any) -> None:
    one = kit()
    send(one, "e" * 19)
    one.clock.advance(61)
    send(one, "e")
    assert one.breaker() == "closed"


def open_breaker(one: Kit) -> None:
    send(one, "e" * 20)
    assert one.breaker() == "open"


def test_an_open_breaker_leaves_the_provider_alone_for_five_seconds(kit: Any) -> None:
    one = kit()
    open_breaker(one)
    assert one.permit(ask(), ask(high=True)) == [Refused(delay=5_000_000, reason="breaker")] * 2
    one.clock.advance(4.999)
    assert not granted(one.permit(ask()))


def test_then_exactly_one_request_with_one_job_finds_out(kit: Any) -> None:
    one = kit()
    open_breaker(one)
    one.clock.advance(5)
    answers = one.permit(ask(jobs=5), ask(what="after"), ask(high=True), ask(), ask(what="before"))
    assert [type(answer) for answer in answers] == [Refused, Refused, Granted, Refused, Granted]
    assert [answer.probe for answer in granted(answers)] == [True, False], "a read before it may go, and tells nothing"
    assert {one.reason for one in answers if isinstance(one, Refused)} == {"breaker"}
    assert one.breaker() == "half_open"


def probe(one: Kit, letters: str = "", throttled: float | None = None) -> Granted:
    each = ask()
    (answer,) = one.permit(each)
    assert isinstance(answer, Granted)
    assert answer.probe
    one.ended(ended(each, answer, letters, throttled))
    return answer


def test_its_success_closes_the_breaker_and_all_is_forgotten(kit: Any) -> None:
    one = kit()
    open_breaker(one)
    one.clock.advance(5)
    probe(one, "o")
    assert one.breaker() == "closed"
    send(one, "e" * 19)
    assert one.breaker() == "closed"
    send(one, "e")
    one.clock.advance(5)
    assert granted(one.permit(ask())), "its pause is five seconds again"


@pytest.mark.parametrize("letters", ["e", "t"])
def test_its_failure_opens_it_again_for_twice_as_long(kit: Any, letters: str) -> None:
    one = kit()
    open_breaker(one)
    for pause in (5, 10, 20, 40, 60, 60):
        one.clock.advance(pause - 0.001)
        assert not granted(one.permit(ask()))
        one.clock.advance(0.001)
        probe(one, letters)
        assert one.breaker() == "open"


def test_what_is_not_the_breakers_lets_another_try(kit: Any) -> None:
    one = kit()
    open_breaker(one)
    one.clock.advance(5)
    probe(one)
    assert one.breaker() == "half_open"
    probe(one, "o")
    assert one.breaker() == "closed"


def test_a_probe_whose_holder_died_makes_room_for_another(kit: Any) -> None:
    one = kit("", deadline=3, lease=10)
    open_breaker(one)
    one.clock.advance(5)
    assert granted(one.permit(ask()))
    one.clock.advance(4.9)
    assert not granted(one.permit(ask()))
    one.clock.advance(0.1)
    assert granted(one.permit(ask()))


def test_a_probe_that_is_asked_for_again_is_the_same(kit: Any) -> None:
    """Its answer was lost on the way."""
    one = kit()
    open_breaker(one)
    one.clock.advance(5)
    each = ask()
    assert [answer.probe for answer in granted(one.permit(each) + one.permit(each))] == [True, True]


def test_what_was_on_its_way_when_it_opened_changes_nothing(kit: Any) -> None:
    one = kit()
    late = [ask() for _ in range(30)]
    answers = one.permit(*late)
    open_breaker(one)
    one.ended(*(ended(each, answer, "o") for each, answer in zip(late[:15], answers, strict=False)))
    one.clock.advance(5)
    assert granted(one.permit(ask()))
    one.ended(*(ended(each, answer, "e") for each, answer in zip(late[15:], answers[15:], strict=True)))
    assert one.breaker() == "half_open"


def test_of_an_outage_no_more_jobs_are_caught_than_the_sample_and_those_on_the_wire(kit: Any) -> None:
    """A thousand jobs, ten at once, and a provider that fails from the 300th on, for a minute."""
    one = kit()
    left, bad, wire, until = 1000, 0, 10, 0
    while left:
        asks = [ask() for _ in range(min(wire, left))]
        pairs = [(each, answer) for each, answer in zip(asks, one.permit(*asks), strict=True)
                 if isinstance(answer, Granted)]  # fmt: skip
        if left <= 700 and not until:
            until = one.clock.ms + 60_000
        down = one.clock.ms < until
        one.ended(*(ended(each, answer, "e" if down else "o") for each, answer in pairs))
        left, bad = left - len(pairs), bad + down * len(pairs)
        one.clock.advance(0.2 if pairs else 1)
    probes = 4  # after 5, 15, 35 and 75 s
    assert 10 <= bad <= 20 + wire + probes


def test_its_turns_are_events(scripts: Any) -> None:
    one = scripts()
    open_breaker(one)
    one.clock.advance(5)
    probe(one, "o")
    throttle(one, 5)
    told = [(event, {name: data.get(name) for name in ("provider", "errors", "of", "factor")})
            for event, data in one.events()]  # fmt: skip
    ring = {"provider": "plain", "errors": 20, "of": 20, "factor": None}
    assert told == [
        ("provider.breaker_open", ring),
        ("provider.breaker_half_open", ring),
        ("provider.breaker_closed", ring),
        ("provider.throttled", {"provider": "plain", "errors": None, "of": None, "factor": 0.5}),
    ]
    opened = one.events()[0][1]
    assert (opened["since"], opened["until"]) == ("2027-01-15T08:00:00Z", "2027-01-15T08:00:05Z")


# -- what may be handed to the workers ---------------------------------------------------------------------------------


def after(*steps: Any) -> Any:
    """Do these, one after the other."""

    def do(one: Scripts) -> None:
        for step in steps:
            step(one)

    return do


def asked(count: int = 1, **told: Any) -> Any:
    return lambda one: one.permit(*(ask(**told) for _ in range(count)))


def wait(seconds: float) -> Any:
    return lambda one: one.clock.advance(seconds)


@pytest.mark.parametrize(
    ("told", "before", "jobs"),
    [
        pytest.param("get=1000/60s", after(), 1_000_000, id="nobody ever asked: who serves it is not known yet"),
        pytest.param("", asked(), 1_000_000, id="no limits, no trouble"),
        # 0.5 s at 15.7 a second, and the five at once of the normal lane, of which one is gone
        pytest.param("get=1000/60s", asked(get=1), 11, id="what comes within half a second"),
        pytest.param("get=1000/60s", asked(get=1, jobs=20), 237, id="twenty jobs a request"),
        pytest.param("get=1000/60s", asked(99, get=1), 0, id="all is taken"),
        pytest.param("get=1000/60s", after(asked(99, get=1), wait(0.25)), 4, id="a quarter of a second later"),
        pytest.param("get=1000/60s", asked(post=1), 1_000_000, id="what this lane lately drew has no limit"),
        pytest.param("get=1000/60s,all=60/min", asked(get=1), 0, id="the scarcest"),
        pytest.param("send=100/s burst 10", asked(send=30, jobs=30), 17, id="jobs that each draw"),
        pytest.param("concurrency=4", asked(), 7, id="twice what may be at once, but for those out"),
        pytest.param("concurrency=4", asked(4, jobs=10), 40, id="at once, of ten jobs each"),
        pytest.param(
            "address=2/s", lambda one: one.permit(ask(address__here=1), address="here"), 0, id="from one address"
        ),
        pytest.param("", open_breaker, 0, id="an open breaker"),
        pytest.param("", after(open_breaker, wait(5)), 1, id="one that may be tried"),
        pytest.param("", after(open_breaker, wait(5), asked()), 0, id="a probe is out"),
        pytest.param("get=1000/60s", throttle, 0, id="a penalty"),
        pytest.param("", throttle, 0, id="a penalty without limits"),
        # 0.3 s at 7.9 a second, and the five at once
        pytest.param(
            "get=1000/60s", after(lambda one: throttle(one, get=1), wait(4.8)), 7, id="a penalty that ends soon"
        ),
        pytest.param("", after(throttle, wait(5)), 3, id="slow after a penalty without limits"),
    ],
)
def test_there_is_room_for(scripts: Any, told: str, before: Any, jobs: int) -> None:
    one = scripts(told)
    before(one)
    found, wait = one.room()
    assert found == jobs
    if not found:
        assert wait > 0


def test_where_there_is_no_room_it_says_when(scripts: Any) -> None:
    one = scripts("get=60/min")
    one.permit(ask(get=1))
    assert one.room() == (0, 550)
    one.clock.advance(0.55)
    assert one.room()[0] == 1
    one = scripts("")
    open_breaker(one)
    assert one.room() == (0, 5000)


def test_that_few_were_handed_out_makes_the_next_requests_no_smaller(scripts: Any) -> None:
    """Else one small request would be followed by smaller ones, and few requests would carry few jobs each."""
    one = scripts("")
    one.limits = parse("post=60/min", WHERE, OPERATIONS, together=20)
    found = []
    for jobs in (10, 3, 3, 1):
        one.clock.advance(60)
        one.permit(ask(post=1, jobs=jobs))
        one.clock.advance(60)
        found.append(one.room()[0])
    assert found[0] == 29, "one request now, the next in half a second"
    assert found == sorted(found, reverse=True)
    assert found[-1] > 20
    one.permit(*(ask(post=1) for _ in range(100)))
    one.clock.advance(60)
    assert one.room()[0] <= 3, "jobs that never travel together"


def test_the_high_lane_has_room_that_the_other_has_not(scripts: Any) -> None:
    one = scripts("get=1000/60s")
    one.permit(*(ask(get=1) for _ in range(50)))
    assert one.room()[0] == 0
    assert one.room(high=True)[0] == 5


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_an_account_that_nobody_asked_for_shows_nothing(scripts: Any) -> None:
    one = scripts("get=1000/60s")
    told = one.bench.run(one.bench.calls.limits_shown("plain"))
    assert (told.limits, told.buckets, told.leases, told.breaker.state, told.p50) == ("", (), 0, "closed", None)


def test_the_limits_are_shown_as_they_are(scripts: Any) -> None:
    one = scripts("get=60/min,send=100seg/s,concurrency=3")
    pairs = [(each := ask(get=1, send=2), one.permit(each)[0]) for _ in range(2)]
    one.ended(ended(*pairs[0], "e"))
    told = one.bench.run(one.bench.calls.limits_shown("plain"))
    assert told.limits == "get=60/60s,send=100seg/s,concurrency=3"
    shown = {
        bucket.name: (bucket.limit, bucket.window, bucket.unit, bucket.used, bucket.burst) for bucket in told.buckets
    }
    assert shown == {"get": (60, 60, "requests", 1, 1), "send": (100, 1, "segments", 2, 4)}
    assert told.buckets[0].next_ms == 1050
    assert (told.leases, told.concurrency, told.factor, told.penalty_until) == (0, 3, 1.0, None)
    assert (told.breaker.errors, told.breaker.of, told.error_share, told.requests) == (1, 1, 1.0, 1)
    assert told.p50 == pytest.approx(0.1, rel=0.25)


def test_what_was_used_leaves_with_its_window(scripts: Any) -> None:
    one = scripts("get=6000/60s")
    for _ in range(30):
        one.permit(ask(get=1))
        one.clock.advance(2)
    used = []
    for _ in range(4):
        used.append(one.bench.run(one.bench.calls.limits_shown("plain")).buckets[0].used)
        one.clock.advance(20)
    assert used == [30, 20, 10, 0]


def test_penalty_and_breaker_are_shown(scripts: Any) -> None:
    one = scripts("get=60/min")
    throttle(one, 7, get=1)
    told = one.bench.run(one.bench.calls.limits_shown("plain"))
    assert (told.penalty, told.factor, told.throttled) == ("throttled", 0.5, 1)
    assert told.penalty_until.timestamp() == one.clock.time() + 7
    one = scripts("")
    open_breaker(one)
    told = one.bench.run(one.bench.calls.limits_shown("plain")).breaker
    assert (told.state, told.errors, told.of) == ("open", 20, 20)
    assert told.until.timestamp() == one.clock.time() + 5


# -- the limiter of a worker -------------------------------------------------------------------------------------------


class Slow(AsyncOnSync):
    """A store whose calls take a moment, and which counts them."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.store)
        self.calls: list[Call[Any]] = []
        self.away = False

    async def run(self, call: Call[Any]) -> Any:
        self.calls.append(call)
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("Redis is away")
        return await super().run(call)

    def named(self, name: str) -> list[Call[Any]]:
        return [call for call in self.calls if call.script.name == name]


class Fleet:
    """Workers that serve one account."""

    def __init__(self, clock: Clock, told: str, count: int = 1, **settings: Any) -> None:
        self.bench = Bench(clock, **settings)
        self.clock = clock
        self.store = Slow(self.bench)
        self.run = ""
        self.adapter = Limited(told)
        self.workers = [
            RedisLimiter(self.bench.settings, {"plain": self.adapter}, self.store, lambda: self.run)
            for _ in range(count)
        ]

    async def acquire(self, *groups: Group, worker: int = 0) -> list[Permit | Later]:
        return await asyncio.gather(*(self.workers[worker].acquire("plain", one) for one in groups))


@pytest.fixture
def fleet(clock: Clock) -> Any:
    return lambda told="", count=1, **settings: Fleet(clock, told, count, **settings)


def test_those_who_ask_while_a_call_is_on_its_way_share_the_next(fleet: Any) -> None:
    one = fleet("post=1000/s")

    async def scene() -> None:
        await one.acquire(group())
        assert len(one.store.named("permit")) == 1
        first = asyncio.create_task(one.acquire(group()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await one.acquire(*(group() for _ in range(50)))
        await first
        assert len(one.store.named("permit")) == 3

    asyncio.run(scene())


def test_of_those_who_ask_together_the_high_lane_is_first(fleet: Any) -> None:
    one = fleet("post=60/min")
    normal, high = asyncio.run(one.acquire(group(), group(job(lane=Lane.HIGH))))
    assert (normal.__class__, high.__class__) == (Later, Permit)


def test_workers_together_get_no_more_than_one_alone(fleet: Any) -> None:
    one = fleet("post=600/60s burst 6", count=4)

    async def scene() -> int:
        total = 0
        for _ in range(50):
            grants = await asyncio.gather(*(one.acquire(*[group()] * 3, worker=n) for n in range(4)))
            total += sum(isinstance(grant, Permit) for some in grants for grant in some)
            one.clock.advance(0.1)
        return total

    # 5 s and what lies half a second ahead, at 9.43 a second
    assert asyncio.run(scene()) <= 6 + 594 / 63 * 5.5


def test_without_redis_nobody_gets_a_permit_and_all_hear_why(fleet: Any) -> None:
    one = fleet()
    one.store.away = True

    async def scene() -> list[Any]:
        asking = (one.workers[0].acquire("plain", group()) for _ in range(3))
        answers = await asyncio.gather(*asking, return_exceptions=True)
        one.store.away = False
        return [*answers, await one.workers[0].acquire("plain", group())]

    *failed, back = asyncio.run(scene())
    assert {error.__class__ for error in failed} == {StoreUnavailable}
    assert isinstance(back, Permit)


def test_good_news_is_gathered_and_bad_news_goes_at_once(fleet: Any) -> None:
    one = fleet()

    async def scene() -> None:
        permits = await one.acquire(*(group() for _ in range(5)))
        for permit in permits[:4]:
            one.workers[0].learn("plain", permit, {"0001": Accepted()}, 0.1)
        await asyncio.sleep(0)
        assert one.store.named("learn") == []
        one.workers[0].learn("plain", permits[4], {"0001": failed(FailureKind.AMBIGUOUS)}, 0.1)
        await asyncio.sleep(0.01)
        (call,) = one.store.named("learn")
        assert call.arguments[-4] == "e"
        assert len([one for one in call.arguments if one == "o"]) == 4

    asyncio.run(scene())


def test_a_lease_comes_back_before_the_next_is_asked_for(fleet: Any) -> None:
    one = fleet("concurrency=1")

    async def scene() -> Any:
        (permit,) = await one.acquire(group())
        one.workers[0].learn("plain", permit, {"0001": Accepted()}, 0.1)
        return await one.acquire(group())

    assert isinstance(asyncio.run(scene())[0], Permit)


def test_who_gave_up_waiting_keeps_no_lease(fleet: Any) -> None:
    one = fleet("concurrency=1")

    async def scene() -> Any:
        asking = asyncio.create_task(one.workers[0].acquire("plain", group()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0.01)
        return (await one.acquire(group()))[0]

    assert isinstance(asyncio.run(scene()), Permit)


def test_what_cannot_be_told_raises_nothing(fleet: Any) -> None:
    one = fleet()

    async def scene() -> None:
        (permit,) = await one.acquire(group())
        one.store.away = True
        one.workers[0].learn("plain", permit, {"0001": failed(FailureKind.THROTTLED)}, 0.1)
        one.workers[0].learn("plain", Permit(0, "nobody's"), {}, 0)
        one.workers[0].learn("unknown", permit, {}, 0)
        await asyncio.sleep(0.01)
        await one.workers[0].close()

    asyncio.run(scene())


def test_what_was_gathered_is_told_in_the_end(fleet: Any) -> None:
    one = fleet()

    async def scene() -> None:
        (permit,) = await one.acquire(group())
        one.workers[0].learn("plain", permit, {"0001": Accepted()}, 0.1)
        await one.workers[0].close()

    asyncio.run(scene())
    assert one.bench.run(one.bench.calls.limits_shown("plain")).requests == 1


def test_all_workers_obey_a_penalty_that_one_met(fleet: Any) -> None:
    one = fleet("post=600/60s", count=2)

    async def scene() -> Any:
        (permit,) = await one.acquire(group())
        one.workers[0].learn("plain", permit, {"0001": failed(FailureKind.THROTTLED, retry_after=7)}, 0.1)
        await asyncio.sleep(0.01)
        return (await one.acquire(group(), worker=1))[0]

    later = asyncio.run(scene())
    assert later == Later(6.5, "limit")


def test_what_only_asks_about_jobs_tells_the_breaker_nothing(fleet: Any) -> None:
    one = fleet()

    async def scene() -> None:
        about = group(job(state=State.SENT), cost={"get": 1, "report": 1})
        for permit in await one.acquire(*(about for _ in range(30))):
            one.workers[0].learn("plain", permit, {"0001": failed(FailureKind.AMBIGUOUS)}, 0.1)
        await one.workers[0].close()

    asyncio.run(scene())
    assert one.bench.run(one.bench.calls.limits_shown("plain")).breaker.of == 0


def test_an_answer_of_another_run_of_the_server_is_asked_for_again(fleet: Any) -> None:
    """The connection went over to it on the way; with what it forgot, nobody may begin at once."""
    one = fleet("post=1000/60s")
    one.run = "first"

    async def scene() -> Any:
        await one.acquire(group())
        run = one.store.run

        async def changed(call: Call[Any]) -> Any:
            one.run = "second"
            return await run(call)

        one.store.run = changed
        return (await one.acquire(group()))[0]

    assert isinstance(asyncio.run(scene()), Later)


def test_a_worker_that_was_granted_something_notices_that_it_is_forgotten(fleet: Any) -> None:
    one = fleet("post=1000/60s")

    async def scene() -> tuple[Any, Any]:
        await one.acquire(group())
        one.bench.redis.flushall()
        later = (await one.acquire(group()))[0]
        one.clock.advance(3.1)
        return later, (await one.acquire(group()))[0]

    later, then = asyncio.run(scene())
    assert isinstance(later, Later)
    assert isinstance(then, Permit)


def test_the_memory_limiter_speaks_like_the_other(clock: Clock) -> None:
    bench = Bench(clock)
    one = MemoryLimiter(bench.settings, {"plain": Limited("concurrency=1")}, lambda: clock.ms * 1000)

    async def scene() -> list[Any]:
        grants: list[Any] = [await one.acquire("plain", group()), await one.acquire("plain", group())]
        one.learn("plain", grants[0], {"0001": Accepted()}, 0.1)
        return [*grants, await one.acquire("plain", group())]

    grants = asyncio.run(scene())
    assert [grant.__class__ for grant in grants] == [Permit, Later, Permit]


@pytest.mark.parametrize(
    ("told", "grants"),
    [
        pytest.param("address=2/s", [Permit, Permit], id="its read is not for nothing: it waits for the next"),
        # Again and again it would read, and never go.
        pytest.param("all=2/min", [Permit, Later, Later, Permit], id="where that is far, it goes without another read"),
    ],
)
def test_a_job_follows_the_read_that_went_before_it(fleet: Any, told: str, grants: list[type]) -> None:
    one = fleet(told)

    async def scene() -> list[Any]:
        found = []
        for _ in range(2):
            found += await one.acquire(group(cost={"get": 1}, before=True))
            found += await one.acquire(group())
            if isinstance(found[-1], Permit):
                break
            one.clock.advance(60)
        return found

    assert [grant.__class__ for grant in asyncio.run(scene())] == grants


def test_no_sender_lies_in_redis_in_clear(fleet: Any) -> None:
    one = fleet("sender=9/s")
    asyncio.run(one.acquire(group()))
    assert not [key for key in one.bench.names() if "ACME" in key]
    assert [key for key in one.bench.names() if key.startswith("d:ls:plain:")]
