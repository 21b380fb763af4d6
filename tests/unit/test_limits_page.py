"""`dispatcher limits`, and what other pages say of limits: how much is used, what waits for it, what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from typing import Any, Final

import pytest
from rich.console import Console

from dispatcher.accounts import Account
from dispatcher.backlog import MOST, LaneState
from dispatcher.doctor import slowed
from dispatcher.findings import Status
from dispatcher.jobs import Lane
from dispatcher.limits import Ask, BreakerState, BucketState, LimitState, parse
from dispatcher.limits_page import limits_view
from tests.unit import test_cli
from tests.unit.support import Bench
from tests.unit.test_cli import Run, one_paragraph

run, away, memory = test_cli.run, test_cli.away, test_cli.memory

AT: Final = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
LATER: Final = datetime(2027, 1, 15, 8, 0, 7, tzinfo=UTC)

OPEN: Final = BreakerState(state="open", since=AT, until=LATER, errors=12, timeouts=3, of=20)
HALF_OPEN: Final = BreakerState(state="half_open", since=AT, errors=12, of=20)


def state(**about: Any) -> LimitState:
    return LimitState(provider="textgoto", at=AT, **about)


def shown(*states: LimitState, lanes: tuple[LaneState, ...] = ()) -> list[str]:
    """Return the lines of the view, their spaces as one."""
    console = Console(width=200, record=True, file=StringIO())
    console.print(limits_view(states, lanes))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


# -- the view ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket", "line"),
    [
        pytest.param(
            BucketState(name="get", limit=1000, window=60, used=250, next_ms=380, burst=10, rate=15.714),
            "textgoto get 1,000 in 60 s 250 25% 0.38 s 10 15.71/s",
            id="requests, and when the next may go",
        ),
        pytest.param(
            BucketState(name="send", limit=50, window=1, unit="segments", used=0, burst=1, rate=47.6),
            "textgoto send 50 segments in 1 s 0 0% now 1 47.60/s",
            id="segments, and the next may go now",
        ),
        pytest.param(
            BucketState(name="sender", limit=1, window=1, unit="jobs", burst=1, rate=0.9),
            "textgoto sender 1 jobs in 1 s each by itself now 1 0.90/s",
            id="of senders, each of which has its own",
        ),
        pytest.param(
            BucketState(name="all", limit=0, window=0, next_ms=1500, rate=5),
            "textgoto all throttled 1.50 s 5.00/s",
            id="of nobody but the provider that throttles it",
        ),
    ],
)
def test_a_bucket_is_a_line(bucket: BucketState, line: str) -> None:
    assert line in shown(state(buckets=(bucket,)))


@pytest.mark.parametrize(
    ("by", "line"),
    [
        pytest.param("account", "textgoto concurrency 20 3 on the wire", id="of the account"),
        pytest.param("address", "textgoto concurrency 20 from each address 3 on the wire", id="of each address"),
    ],
)
def test_so_many_are_on_the_wire(by: Any, line: str) -> None:
    assert line in shown(state(leases=3, concurrency=20, concurrency_by=by))


def test_an_account_without_limits_has_none() -> None:
    assert "textgoto none" in shown(state())


def test_without_accounts_the_way_to_one_is_told() -> None:
    assert shown() == ["No account is known yet; one is once its worker has run: dispatcher worker NAME"]


def test_lanes_tell_what_waits_and_whose_it_is() -> None:
    """Of many tenants the next ones; the others are counted."""
    lines = {name: 1000 - at for at, name in enumerate(["acme", "", "shop", "d", "e", "f", "g"])}
    lanes = (
        LaneState(provider="textgoto", lane=Lane.HIGH, handed_out=2),
        LaneState(provider="textgoto", lane=Lane.NORMAL, handed_out=14, timed=3, lines=lines),
    )
    told = shown(state(), lanes=lanes)
    assert "textgoto high 0 2 0" in told
    assert "normal 6,979 14 3 acme 1,000, (no tenant) 999, shop 998, d 997, e 996, 2 more" in told


TROUBLES: Final = {
    "throttled": (
        state(penalty="throttled", penalty_until=LATER),
        "it is asked too often, it says; nothing goes until 08:00:07 UTC",
    ),
    "its use is forgotten": (
        state(penalty="caution", penalty_until=LATER),
        "what was used of its limits was forgotten; nothing goes until 08:00:07 UTC",
    ),
    "after a penalty": (
        state(factor=0.25),
        "it was asked too often, and gets 25% of the usual rate, more every ten seconds",
    ),
    "open": (
        state(breaker=OPEN),
        (
            "its breaker is open since 08:00:00 UTC, and one job tries it at 08:00:07 UTC "
            "(12 errors and 3 timeouts in the last 20 jobs)"
        ),
    ),
    "half open": (
        state(breaker=HALF_OPEN),
        (
            "its breaker is half open since 08:00:00 UTC: one job at a time tries it "
            "(12 errors and 0 timeouts in the last 20 jobs)"
        ),
    ),
}


@pytest.mark.parametrize(("one", "words"), TROUBLES.values(), ids=TROUBLES)
def test_what_is_wrong_is_told_by_the_view_and_the_doctor(one: LimitState, words: str) -> None:
    assert f"textgoto: {words}" in shown(one)
    (finding,) = slowed(one, None)
    assert (finding.status, finding.check) == (Status.WARNING, "limits.textgoto")
    assert finding.words.startswith(f"account textgoto: {words}")


def test_nothing_is_wrong_with_an_account_that_goes_as_it_may() -> None:
    assert list(slowed(state(limits="get=1000/60s"), account("get=1000/60s"))) == []
    assert not [line for line in shown(state()) if line.startswith("textgoto:")]


def test_the_doctor_tells_workers_that_do_not_agree() -> None:
    (finding,) = slowed(state(limits="get=1000/60s"), account("get=500/60s"))
    assert "different LIMITS, get=500/60s and get=1000/60s" in finding.words


def account(limits: str) -> Account:
    return Account(name="textgoto", adapter="textgoto", limits=limits)


# -- the command, on a Redis in memory ---------------------------------------------------------------------------------


def limited(bench: Bench, setting: str = "send=100/60s") -> None:
    """Have a worker ask for one permit."""
    ask = Ask(id="1", draws={"all": 1, "send": 1})
    bench.run(bench.calls.permit("textgoto", parse(setting, "LIMITS", ["send"]), [ask]))


def waits(bench: Bench, tenant: str, *ids: str, batch: str = "", high: bool = False) -> None:
    """Let jobs stand in a line."""
    queue = f"textgoto{'.high' if high else ''}"
    bench.redis.zadd(f"d:q:{queue}:{batch}:{tenant}", dict.fromkeys(ids, 1))
    bench.redis.zadd(f"d:qb:{queue}:{tenant}", {batch: 0})
    bench.redis.zadd(f"d:qt:{queue}", {tenant: 0})


def test_an_object_an_account(run: Run, memory: Bench) -> None:
    limited(memory)
    waits(memory, "acme", "1", "2")
    waits(memory, "acme", "3", batch="spring")
    waits(memory, "", "4", high=True)
    (told,) = run("limits", "--json").documents
    assert (told["provider"], told["limits"]) == ("textgoto", "send=100/60s")
    (bucket,) = told["buckets"]
    assert (bucket["name"], bucket["limit"], bucket["used"]) == ("send", 100, 1)
    high, normal = told["lanes"]
    assert (high["lane"], high["lines"]) == ("high", {"": 1})
    assert (normal["lane"], normal["lines"], normal["more"]) == ("normal", {"acme": 3}, False)


def test_once_is_a_table(run: Run, memory: Bench) -> None:
    """As it is without a terminal; the account may be named."""
    limited(memory)
    waits(memory, "acme", "1")
    for words in (("limits",), ("limits", "textgoto", "--once")):
        told = " ".join(run(*words).out.split())
        assert "textgoto send 100 in 60 s" in told or "textgoto send 100 jobs in 60 s" in told
        assert "acme 1" in told


def test_an_account_that_nobody_knows(run: Run, memory: Bench) -> None:
    ended = run("limits", "textgota")
    assert ended.code == 1
    assert "textgoto" in one_paragraph(ended)


def test_only_so_many_tenants_are_counted(run: Run, memory: Bench) -> None:
    """Whoever looks each second must not hold Redis up; that there are more is told."""
    for number in range(MOST + 5):
        waits(memory, f"tenant{number:03d}", f"{number}")
    (told,) = run("limits", "--json").documents
    normal = told["lanes"][1]
    assert (len(normal["lines"]), normal["more"]) == (MOST, True)
    assert f"{MOST}+" in run("limits").out


def test_providers_tell_how_each_account_is(run: Run, memory: Bench) -> None:
    limited(memory)
    (told,) = run("providers", "--json").documents
    assert told["state"]["breaker"]["state"] == "closed"
    assert told["low_balance"] is None
    assert "textgoto closed no" in " ".join(run("providers").out.split())


class Twice:
    """The module `time` to whoever looks each second: at the third look somebody presses Ctrl-C."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 2:
            raise KeyboardInterrupt


def test_it_is_watched_until_somebody_stops_it(run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(memory)
    monkeypatch.setattr("dispatcher.cli.watching.time", clock := Twice())
    ended = run("limits", "--watch")
    assert (ended.code, clock.slept) == (0, [1.0, 1.0])
    assert "textgoto" in ended.out


def test_objects_are_written_each_second(run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(memory)
    monkeypatch.setattr("dispatcher.cli.watching.time", Twice())
    ended = run("limits", "--watch", "--json")
    assert [one["provider"] for one in ended.documents] == ["textgoto", "textgoto"]
