"""Budgets: what a rule says, and that no more is sent than it allows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from dispatcher import ConfigurationError, Dispatcher
from dispatcher.budgets import (
    Budget,
    Facts,
    Money,
    Rule,
    Spending,
    applying,
    check_threshold,
    counter_name,
    low,
    money,
    parse,
    values,
)
from dispatcher.calls import Calls, Claim, call_name
from dispatcher.jobs import Send, Terms
from dispatcher.outcomes import Accepted
from dispatcher.settings import load
from dispatcher.store import JobStore
from tests.unit.support import NUMBER, TEXT, Bench, Clock, leaks, record, running, store_on
from tests.unit.test_client import Shop
from tests.unit.test_execute import Road

DAY = 86400

#: What the clock of the tests begins with, and the ends of its day and month.
TODAY = "2027-01-15"
TOMORROW, NEXT_MONTH = datetime(2027, 1, 16, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC)


def facts(**told: str) -> Facts:
    return Facts(**{"tenant": "a", "country": "GB", "category": "otp", "provider": "textgoto"} | told)


# -- what a rule says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "subject", "cap", "warn"),
    [
        pytest.param("messages=100000/day", "messages/day", 100_000, 80_000, id="of the whole deployment"),
        pytest.param("tenant=* messages=10/day", "messages/day tenant=*", 10, 8, id="of each tenant"),
        pytest.param(
            "tenant=shop-a  country=us segments=500/month warn=50%",
            "segments/month country=US tenant=shop-a", 500, 250, id="several conditions, in any order",
        ),
        pytest.param("category=otp money=50 USD/day", "USD/day category=otp", 50_000_000, 40_000_000, id="money"),
        pytest.param("money=0.5 credits/day", "credits/day", 500_000, 400_000, id="credits"),
        pytest.param("provider=a messages=1/day", "messages/day provider=a", 1, 1, id="one is its warning"),
        pytest.param("messages=3/day warn=100%", "messages/day", 3, 3, id="a warning at the cap"),
        pytest.param("messages=3/day warn=1%", "messages/day", 3, 1, id="rounded up"),
        pytest.param("tenant=ü% messages=3/day", "messages/day tenant=%C3%BC%25", 3, 3, id="any name of a tenant"),
    ],
)  # fmt: skip
def test_a_rule_is_read(written: str, subject: str, cap: int, warn: int) -> None:
    (rule,) = parse([written])
    assert (rule.subject, rule.cap, rule.warn) == (subject, cap, warn)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        pytest.param("messages=0/day", "a cap that is not above 0", id="zero"),
        pytest.param("money=0 USD/day", "a cap that is not above 0", id="no money"),
        pytest.param("money=0.0000001 USD/day", "a cap that is not above 0", id="less than is counted"),
        pytest.param("messages=9999999999/day", "at most 1000000000", id="more than is counted"),
        pytest.param("messages=-1/day", "a cap of '-1', which is no whole number", id="less than zero"),
        pytest.param("messages=many/day", "a cap of 'many', which is no whole number", id="no number"),
        pytest.param("messages=1.5/day", "a cap of '1.5', which is no whole number", id="half a message"),
        pytest.param("messages=²/day", "which is no whole number", id="a digit of another kind"),
        pytest.param("messages=5", "a cap without its period", id="for ever"),
        pytest.param("messages=5/", "a cap per nothing", id="per nothing"),
        pytest.param("messages=5/week", "a cap per week, and a period is a day or a month", id="a week"),
        pytest.param("money=50/day", "like 50 USD or 500 credits", id="money without currency"),
        pytest.param("money=50 dollars/day", "like 50 USD or 500 credits", id="no currency"),
        pytest.param("money=50 usd/day", "like 50 USD or 500 credits", id="small letters"),
        pytest.param("money=1e3 USD/day", "like 50 USD or 500 credits", id="an exponent"),
        pytest.param("tenant=a", "has no cap", id="no cap"),
        pytest.param("messages=1/day segments=2/day", "has several caps", id="two caps"),
        pytest.param("country=UK messages=1/day", "has country=UK, and a country is", id="no country"),
        pytest.param("country=ZZ messages=1/day", "has country=ZZ, and a country is", id="of nobody"),
        pytest.param("category=spam messages=1/day", "otp, transactional, promotional", id="no category"),
        pytest.param("tenant= messages=1/day", "names no tenant", id="an empty condition"),
        pytest.param("tenant=a tenant=b messages=1/day", "names tenant twice", id="twice"),
        pytest.param("colour=red messages=1/day", "has 'colour=red', which is no part of a rule", id="no condition"),
        pytest.param("messages=1/day per tenant", "has 'per', which is no part of a rule", id="words"),
        pytest.param("messages=1/day warn=101%", "a warning comes at 1% to 100%", id="a warning after the cap"),
        pytest.param("messages=1/day warn=0%", "a warning comes at 1% to 100%", id="a warning at nothing"),
        pytest.param("messages=1/day warn=80", "a warning comes at 1% to 100%", id="no share"),
    ],
)
def test_a_bad_rule_is_an_error_at_start_that_names_the_setting_the_rule_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch, written: str, why: str
) -> None:
    monkeypatch.setenv("DISPATCHER_BUDGETS", f"tenant=* messages=5/day; {written}")
    with pytest.raises(ConfigurationError) as refused:
        load()
    told = str(refused.value)
    assert told.startswith(f"DISPATCHER_BUDGETS has the rule '{written}'")
    assert why in told
    assert "write conditions" in told


def test_two_rules_that_count_the_same_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_BUDGETS has two rules that count the same"):
        load(budgets=["tenant=a country=US messages=5/day", "country=us tenant=a messages=6/day warn=50%"])


@pytest.mark.parametrize("told", [7, ["tenant=*", 7], {"tenant": "*"}])
def test_budgets_are_texts(told: Any) -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_BUDGETS must be rules"):
        load(budgets=told)


def test_the_environment_separates_rules_by_semicolons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_BUDGETS", " tenant=* messages=5/day; money=5 USD/day ;")
    assert [one.text for one in load().rules] == ["tenant=* messages=5/day", "money=5 USD/day"]


@pytest.mark.parametrize(
    ("rules", "told", "found"),
    [
        pytest.param(["messages=1/day"], {}, ["messages=1/day"], id="for all"),
        pytest.param(["tenant=b messages=1/day"], {}, [], id="another's"),
        pytest.param(["country=GB category=otp messages=1/day"], {"category": "promotional"}, [], id="half of it"),
        pytest.param(["tenant=* messages=1/day"], {"tenant": ""}, ["tenant=* messages=1/day"], id="no tenant is one"),
        pytest.param(
            ["tenant=* messages=1/day", "tenant=a messages=9/day"], {}, ["tenant=a messages=9/day"],
            id="who is named is an exception of *",
        ),
        pytest.param(
            ["tenant=* messages=1/day", "tenant=a messages=9/day"], {"tenant": "b"}, ["tenant=* messages=1/day"],
            id="and nobody else",
        ),
        pytest.param(
            ["tenant=* messages=1/day", "tenant=a segments=9/day"], {},
            ["tenant=* messages=1/day", "tenant=a segments=9/day"], id="of what is counted otherwise it is none",
        ),
    ],
)  # fmt: skip
def test_which_rules_are_for_a_text(rules: list[str], told: dict[str, str], found: list[str]) -> None:
    assert [one.text for one in applying(parse(rules), facts(**told)).values()] == found


@pytest.mark.parametrize("value", ["shop a", "a=b", "ü\n!", "*", "", "100%"])
def test_a_counter_tells_again_what_it_counts_for(value: str) -> None:
    name = counter_name("messages", "", "day", [("country", "GB"), ("tenant", value)])
    assert values(name) == {"country": "GB", "tenant": value}
    assert "\n" not in name


@pytest.mark.parametrize("written", ["0.0055 USD", "12 EUR", "1 credits", "0 USD"])
def test_money_is_read_to_the_millionth(written: str) -> None:
    assert str(money(written)) == written


@pytest.mark.parametrize(
    "written", ["", "1", "USD", "1USD", "-1 USD", "1 usd", "1 US", "1,5 USD", "nan USD", "1e3 USD"]
)
def test_what_is_no_money_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"write it like 0\.0055 USD"):
        money(written)


@pytest.mark.parametrize(
    ("balance", "currency", "threshold", "told"),
    [
        pytest.param("9.99", None, "10 USD", True, id="below"),
        pytest.param("10", None, "10", False, id="as much"),
        pytest.param("9", "USD", "10 USD", True, id="of the same currency"),
        pytest.param("9", "EUR", "10 USD", None, id="of another"),
        pytest.param("many", None, "10", None, id="no number"),
        pytest.param("NaN", None, "10", None, id="not a number"),
        pytest.param("-1", None, "0.5", True, id="in debt"),
    ],
)
def test_whether_a_balance_is_low(balance: str, currency: str | None, threshold: str, told: bool | None) -> None:
    assert low(balance, currency, threshold) is told


@pytest.mark.parametrize("written", ["0", "-1", "ten", "10 usd", "10USD", "1e3"])
def test_what_is_no_threshold_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="must be an amount above 0"):
        check_threshold(written)


# -- what is counted, and where it stops -------------------------------------------------------------------------------


class Desk:
    """Claims texts of tenants on a Redis in memory."""

    def __init__(self, bench: Bench, *rules: str) -> None:
        self.bench = bench
        self.rules: tuple[Rule, ...] = parse(rules)
        self.made = 0

    def new(self, **told: Any) -> tuple[str, Spending]:
        """A job that is queued, and what it uses up."""
        self.made += 1
        id_ = f"{self.made:04}"
        more = {"segments": 1} | {name: told.pop(name) for name in ("segments", "each") if name in told}
        asked = facts(**told)
        public = {"kind": "send", "operation": "send", "segments": more["segments"]} | msgspec.to_builtins(asked)
        self.bench.create(id_, provider=asked.provider, public=msgspec.json.encode(public))
        return id_, Spending(country=asked.country, **more, counters=applying(self.rules, asked))

    def claim(self, id_: str, spending: Spending, *, token: str = "", twice: bool = True) -> str:
        """Claim it, twice as if the answer was lost; the state it is in then."""
        call = self.bench.calls.claim([Claim(token or self.bench.hold(id_), id_, "never", text=spending)])
        self.bench.run(call)
        if twice:
            before = self.bench.dump()
            self.bench.run(call)
            assert self.bench.dump() == before
        return self.bench.state(id_)

    def send(self, **told: Any) -> str:
        return self.claim(*self.new(**told))

    def used(self, period: str = TODAY) -> dict[str, int]:
        stored = self.bench.redis.hgetall(f"d:bu:{period}")
        return {name.decode(): int(amount) for name, amount in stored.items() if not name.startswith(b"!")}

    def told(self) -> list[str]:
        """The events of budgets."""
        return [kind for kind, _ in self.bench.events() if kind.startswith("budget.")]


def test_at_its_cap_a_budget_stops_and_says_so(bench: Bench) -> None:
    desk = Desk(bench, "tenant=* messages=2/day")
    assert [desk.send() for _ in range(3)] == ["sending", "sending", "failed"]
    assert bench.failure("0003") == {
        "kind": "refused", "code": "budget",
        "message": "budget: tenant=* messages=2/day is used up until 2027-01-16 00:00 UTC",
    }  # fmt: skip
    assert bench.story("0003")[-1].startswith("failed: budget: tenant=* messages=2/day is used up")
    assert desk.send(tenant="b") == "sending", "each tenant has its own"
    assert desk.used() == {"messages/day tenant=a": 2, "messages/day tenant=b": 1}


def test_segments_count_as_many_as_they_are(bench: Bench) -> None:
    """What does not fit is refused; what is smaller may still fit."""
    desk = Desk(bench, "segments=5/month")
    assert [desk.send(segments=size) for size in (3, 3, 2, 1)] == ["sending", "failed", "sending", "failed"]
    assert desk.used("2027-01") == {"segments/month": 5}


def test_nothing_is_counted_of_what_one_of_several_budgets_refuses(bench: Bench) -> None:
    desk = Desk(bench, "messages=9/day", "tenant=a messages=1/day")
    assert [desk.send(), desk.send()] == ["sending", "failed"]
    assert desk.used() == {"messages/day": 1, "messages/day tenant=a": 1}


def test_a_day_ends_at_midnight_and_a_month_with_it(bench: Bench) -> None:
    desk = Desk(bench, "messages=1/day", "tenant=* messages=3/month")
    ends = [desk.send(), desk.send()]
    for _ in range(2):
        bench.clock.advance(DAY)
        ends.append(desk.send())
    bench.clock.advance(DAY)
    ends.append(desk.send())
    assert ends == ["sending", "failed", "sending", "sending", "failed"]
    assert bench.failure(f"{desk.made:04}")["message"].endswith("until 2027-02-01 00:00 UTC")  # type: ignore[index]  # it failed
    bench.clock.advance(14 * DAY)
    assert desk.send() == "sending"
    assert desk.used("2027-02") == {"messages/month tenant=a": 1}


@pytest.mark.parametrize(
    ("at", "day", "ends", "month", "month_ends"),
    [
        pytest.param("2027-12-31T23:59:59", "2027-12-31", "2028-01-01", "2027-12", "2028-01-01", id="a year's end"),
        pytest.param("2028-02-28T12:00:00", "2028-02-28", "2028-02-29", "2028-02", "2028-03-01", id="a leap year"),
        pytest.param("2028-02-29T00:00:00", "2028-02-29", "2028-03-01", "2028-02", "2028-03-01", id="its day"),
        pytest.param("2027-02-28T23:59:59", "2027-02-28", "2027-03-01", "2027-02", "2027-03-01", id="no leap year"),
        pytest.param("2027-01-31T00:00:00", "2027-01-31", "2027-02-01", "2027-01", "2027-02-01", id="long months"),
        pytest.param("2100-02-28T01:00:00", "2100-02-28", "2100-03-01", "2100-02", "2100-03-01", id="a century"),
    ],
)
def test_periods_are_those_of_the_calendar(at: str, day: str, ends: str, month: str, month_ends: str) -> None:
    clock = Clock(round(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() * 1000))
    with running(clock):
        bench = Bench(clock)
        for rule, period, end in (("messages=1/day", day, ends), ("messages=1/month", month, month_ends)):
            desk = Desk(bench, rule)
            desk.made = 10 * (rule == "messages=1/month")
            assert [desk.send(), desk.send()] == ["sending", "failed"]
            assert desk.used(period)
            assert bench.failure(f"{desk.made:04}")["message"].endswith(f"until {end} 00:00 UTC")  # type: ignore[index]  # it failed


def test_a_warning_and_the_end_are_told_once_in_a_period(bench: Bench) -> None:
    desk = Desk(bench, "messages=4/day warn=50%")
    seen = []
    for _ in range(6):
        desk.send()
        seen.append(len(desk.told()))
    assert seen == [0, 1, 1, 1, 2, 2]
    assert desk.told() == ["budget.warning", "budget.exceeded"]
    bench.clock.advance(DAY)
    for _ in range(5):
        desk.send()
    assert desk.told() == ["budget.warning", "budget.exceeded"] * 2


def test_a_retry_is_not_counted_again(bench: Bench) -> None:
    """Nor refused: its budget has it already."""
    desk = Desk(bench, "messages=1/day")
    id_, spending = desk.new()
    for _ in range(3):
        token = bench.hold(id_)
        assert desk.claim(id_, spending, token=token) == "sending"
        bench.advance(id_, token, "queued", wait="retry")
        bench.due()
    assert desk.used() == {"messages/day": 1}
    bench.clock.advance(DAY)
    assert desk.claim(id_, spending) == "sending"
    assert desk.used("2027-01-16") == {}, "it was counted on the day when it was first claimed"


def test_a_job_that_moves_counts_in_its_new_account_too(bench: Bench) -> None:
    desk = Desk(bench, "messages=9/day", "provider=* messages=9/day")
    id_, spending = desk.new()
    token = bench.hold(id_)
    desk.claim(id_, spending, token=token)
    bench.advance(id_, token, "queued", wait="retry")
    bench.due()
    moved = Spending(country="GB", segments=1, counters=applying(desk.rules, facts(provider="other")))
    desk.claim(id_, moved)
    assert desk.used() == {
        "messages/day": 1, "messages/day provider=textgoto": 1, "messages/day provider=other": 1
    }  # fmt: skip


def test_what_is_asserted_again_counts_as_it_did(bench: Bench) -> None:
    """Redis lost the claim and what it counted, or the claim alone was asserted twice: it counts once, though full."""
    desk = Desk(bench, "messages=1/day")
    id_, spending = desk.new()
    token = bench.hold(id_)
    call = bench.calls.claim([Claim(token, id_, "never", text=spending)])
    lost = bench.redis.dump(f"d:j:{id_}")
    (_, won) = bench.redis.evalsha(bench.redis.script_load(call.script.source), 0, *call.arguments)
    assert won == 1
    for _ in range(2):
        # As it was before the claim: another's took its place in the budget meanwhile.
        bench.redis.restore(f"d:j:{id_}", 0, lost, replace=True)
        bench.redis.delete(f"d:bu:{TODAY}")
        assert desk.send() == "sending"
        assert bench.run(bench.calls.reclaim(call, [1, 1])) == 1
        assert bench.run(bench.calls.reclaim(call, [1, 1])) == 0
        assert desk.used() == {"messages/day": 2}
        assert bench.state(id_) == "sending"


def test_looking_only_counts_nothing(bench: Bench) -> None:
    """It ends what has no room, and leaves the rest as it is."""
    desk = Desk(bench, "tenant=a messages=1/day")
    desk.send()
    full, fits = desk.new(), desk.new(tenant="b")
    token = bench.hold(full[0], fits[0])
    texts = dict([full, fits])
    call = bench.calls.claim([Claim(token, id_, "never", text=text) for id_, text in texts.items()], ends_only=True)
    assert bench.run(call) == ["failed:refused", "queued"]
    assert [bench.state(id_) for id_ in texts] == ["failed", "queued"]
    assert desk.used() == {"messages/day tenant=a": 1}
    assert desk.claim(*fits, token=token) == "sending"


def test_counters_are_forgotten_a_day_after_their_period(bench: Bench) -> None:
    Desk(bench, "messages=1/day", "segments=1/month").send()
    left = {name: bench.ttl(f"d:bu:{name}") for name in (TODAY, "2027-01")}
    assert all(0 < (one or 0) < 20 * DAY for one in left.values())
    bench.clock.advance(20 * DAY)
    assert not bench.redis.keys("d:bu:*")


def test_one_text_that_is_too_much_by_itself_leaves_nothing_for_ever(bench: Bench) -> None:
    assert Desk(bench, "segments=1/day").send(segments=2) == "failed"
    assert bench.ttl(f"d:bu:{TODAY}") is not None


# -- money -------------------------------------------------------------------------------------------------------------


def test_money_counts_as_the_settings_estimate_it_until_the_price_is_told(bench: Bench) -> None:
    desk = Desk(bench, "money=0.05 USD/day")
    id_, spending = desk.new(segments=2, each="10000 USD")
    token = bench.hold(id_)
    desk.claim(id_, spending, token=token)
    assert desk.used() == {"USD/day": 20_000}
    for _ in range(2):
        bench.advance(id_, token, "sent", fields={"c": "0.045 USD"})
        assert desk.used() == {"USD/day": 45_000}, "and once only"
    assert desk.send(each="10000 USD") == "failed"


def test_without_a_setting_the_last_price_of_account_and_country_is_the_estimate(bench: Bench) -> None:
    desk = Desk(bench, "money=0.05 USD/day")
    id_, spending = desk.new(segments=2)
    token = bench.hold(id_)
    desk.claim(id_, spending, token=token)
    assert desk.used() == {"USD/day": 0}, "nothing is known yet"
    bench.advance(id_, token, "sent", fields={"c": "0.01 USD"})
    assert bench.redis.hgetall("d:pr") == {b"textgoto GB": b"5000 USD"}
    assert desk.send(segments=3) == "sending"
    assert desk.send(country="US") == "sending"
    assert desk.used() == {"USD/day": 25_000}


@pytest.mark.parametrize(
    ("each", "price", "used"),
    [
        pytest.param("10000 EUR", "", 0, id="an estimate in another currency"),
        pytest.param("10000 USD", "0.02 EUR", 0, id="a price in another currency"),
        pytest.param("10000 USD", "0.02", 20_000, id="a price without one is in the setting's"),
        pytest.param("", "0.02", 20_000, id="or else in the budget's own"),
        pytest.param("10000 USD", "free", 10_000, id="no price"),
    ],
)
def test_a_budget_counts_its_own_currency(bench: Bench, each: str, price: str, used: int) -> None:
    desk = Desk(bench, "money=1 USD/day")
    id_, spending = desk.new(each=each)
    token = bench.hold(id_)
    desk.claim(id_, spending, token=token)
    bench.advance(id_, token, "sent", fields={"c": price} if price else {})
    assert desk.used() == {"USD/day": used}


def test_a_price_that_is_told_after_the_period_changes_nothing_any_more(bench: Bench) -> None:
    desk = Desk(bench, "money=1 USD/day")
    id_, spending = desk.new(each="10000 USD")
    token = bench.hold(id_)
    desk.claim(id_, spending, token=token)
    bench.clock.advance(3 * DAY)
    bench.advance(id_, token, "sent", fields={"c": "0.02 USD"})
    assert not bench.redis.keys("d:bu:*")


# -- in a worker -------------------------------------------------------------------------------------------------------


def test_a_worker_stops_at_the_budget_before_the_request(clock: Clock) -> None:
    road = Road(clock, budgets=["tenant=shop messages=1/day"])
    for id_ in ("0001", "0002"):
        road.enqueue(id_, Send(to=NUMBER, text=f"{TEXT} {id_}"), terms=Terms(tenant="shop"))
    road.enqueue("0003")
    assert road.run("0001") == "sent"
    assert road.run("0002") == "failed:refused"
    assert road.run("0003") == "sent"
    assert road.wire.sent == ["0001", "0003"]
    assert leaks(str(road.bench.redis.hgetall(f"d:bu:{TODAY}")), NUMBER, TEXT) == []


def test_of_one_request_those_that_fit_are_sent(clock: Clock) -> None:
    road = Road(clock, budgets=["messages=1/day"])
    for id_ in ("0001", "0002"):
        road.enqueue(id_)
    assert set(road.run("0001", "0002").split(", ")) == {"1 failed:refused", "1 sent"}
    assert road.wire.sent == ["0001"]


def test_what_has_no_room_takes_no_permits_from_others(clock: Clock) -> None:
    """Once a worker has met a budget that is used up, it asks before it waits for a permit."""
    road = Road(clock, budgets=["tenant=shop messages=1/day"])
    execution = road.execution()
    words = []
    for number in range(5):
        road.enqueue(f"000{number}", terms=Terms(tenant="shop"))
        words.append(asyncio.run(execution.execute([f"000{number}"], "plain")))
    assert words == ["sent"] + ["failed:refused"] * 4
    assert len(road.gate.asked) == 2, "the one that was sent, and the first that was not"
    road.now += 61
    clock.advance(DAY)
    road.enqueue("0006", terms=Terms(tenant="shop"))
    assert asyncio.run(execution.execute(["0006"], "plain")) == "sent"


def test_the_price_of_the_settings_is_the_estimate(clock: Clock) -> None:
    road = Road(clock, budgets=["money=0.02 USD/day"], providers={"plain": {"price": "0.015 USD"}})
    road.enqueue("0001")
    road.enqueue("0002", Send(to=NUMBER, text="Another"))
    road.adapter.outcomes = {"0001": Accepted(price="0.001 USD")}
    assert road.run("0001") == "sent"
    assert road.run("0002") == "sent", "the first was cheaper than thought"


# -- seen --------------------------------------------------------------------------------------------------------------


def test_budgets_are_seen(clock: Clock) -> None:
    rules = ["tenant=* messages=2/day", "tenant=big messages=9/day", "money=1 USD/month"]
    shop = Shop(clock, budgets=rules)
    desk = Desk(shop.bench, *rules)
    for tenant in ("a", "a", "big", ""):
        desk.send(tenant=tenant, each="200000 USD")
    seen = shop.dispatcher.budgets()
    assert [(one.rule, one.counts_for, one.used, one.cap, one.share, one.state) for one in seen] == [
        ("tenant=* messages=2/day", {"tenant": ""}, "1", "2", 0.5, "ok"),
        ("tenant=* messages=2/day", {"tenant": "a"}, "2", "2", 1.0, "used up"),
        ("tenant=big messages=9/day", {"tenant": "big"}, "1", "9", 0.1111, "ok"),
        ("money=1 USD/month", {}, "0.8 USD", "1 USD", 0.8, "warning"),
    ]
    assert [one.period_end for one in seen] == [TOMORROW, TOMORROW, TOMORROW, NEXT_MONTH]
    assert msgspec.json.decode(msgspec.json.encode(seen[0]), type=Budget) == seen[0]


def test_a_budget_that_nothing_was_counted_in_is_seen(clock: Clock) -> None:
    dispatcher: Dispatcher = Shop(clock, budgets=["messages=2/day", "tenant=* messages=2/day"]).dispatcher
    assert [(one.rule, one.used) for one in dispatcher.budgets()] == [("messages=2/day", "0")]


def test_events_tell_how_a_budget_stands(clock: Clock) -> None:
    shop = Shop(clock)
    desk = Desk(shop.bench, "tenant=* money=1 USD/day")
    desk.send(each="900000 USD", tenant="shop a")
    desk.send(each="900000 USD", tenant="shop a")
    events = [one for one in shop.dispatcher.events(after="0", timeout=0) if one.type.startswith("budget.")]
    told = {
        "rule": "tenant=* money=1 USD/day", "counts_for": {"tenant": "shop a"}, "used": "0.9 USD", "cap": "1 USD",
        "share": 0.9, "period_end": "2027-01-16T00:00:00Z",
    }  # fmt: skip
    assert [(one.type, one.data) for one in events] == [("budget.warning", told), ("budget.exceeded", told)]


def test_money_has_no_currency_where_nobody_said() -> None:
    assert str(Money(5500, "")) == "0.0055"


# -- many claimers at once ---------------------------------------------------------------------------------------------


def race(stores: Sequence[JobStore], calls: Calls, jobs: int, cap: int) -> tuple[int, dict[str, int]]:
    """Let several claimers want all of these jobs, each call made twice; how many were claimed, and what is used."""
    rules = parse([f"tenant=* messages={cap}/month", f"segments={2 * cap}/month", "money=1000 USD/month"])
    spending = Spending(country="GB", segments=2, each="5000 USD", counters=applying(rules, facts()))
    ids = [f"{number:04}" for number in range(jobs)]
    made = [record(one) for one in ids]
    stores[0].run(calls.create("textgoto", high=False, batch="b", records=made))

    def claimer(number: int) -> int:
        store, chance, won = stores[number], random.Random(number), 0
        mine = ids[number :: len(stores)]
        while mine:
            size = chance.randint(1, 4)
            some, mine = mine[:size], mine[size:]
            token = call_name()
            store.run(calls.take(token, some, alone=True))
            call = calls.claim([Claim(token, id_, "never", text=spending) for id_ in some])
            states = [store.run(call) for _ in range(2)]
            assert [one is None for one in states[0]] == [one is None for one in states[1]]
            won += states[0].count(None)
        return won

    with ThreadPoolExecutor(len(stores)) as pool:
        won = sum(pool.map(claimer, range(len(stores))))
    (key,) = (key for key in stores[0].redis.keys("d:bu:*"))
    stored: Any = stores[0].redis.hgetall(key)
    return won, {name.decode(): int(amount) for name, amount in stored.items() if not name.startswith(b"!")}


def test_claimers_at_once_never_pass_a_cap(bench: Bench) -> None:
    won, used = race([bench.store, store_on(bench.redis)], bench.calls, jobs=60, cap=20)
    assert won == 20
    assert used == {"messages/month tenant=a": 20, "segments/month": 40, "USD/month": 200_000}
    assert [kind for kind, _ in bench.events() if kind.startswith("budget.")].count("budget.exceeded") == 1
