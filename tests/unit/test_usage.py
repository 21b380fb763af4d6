"""What is counted of what was sent, countries that are not texted, texts that are too long, balances that are low."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from dispatcher import ConfigurationError, InvalidRequest, Job, Message
from dispatcher.budgets import Spending
from dispatcher.calls import Claim, Word
from dispatcher.jobs import Operation, Send, Terms
from dispatcher.outcomes import Accepted, Found
from dispatcher.records import encode_public
from dispatcher.settings import load
from dispatcher.states import State
from dispatcher.usage import Usage
from tests.unit import test_client
from tests.unit.support import NUMBER, TEXT, Bench, Clock, leaks
from tests.unit.test_client import Shop
from tests.unit.test_execute import Road
from workers.adapters import adapter

shop = test_client.shop

DAY = 86400
US = "+12125550100"
CANADA = "+14165550123"
LONG = "a" * 161


def send(shop: Shop, to: str = NUMBER, text: str = TEXT, **told: Any) -> Job:
    return shop.dispatcher.send(to, text, **told)


def take(shop: Shop, id_: str, **fields: Any) -> str:
    """Let a worker have sent it; its token."""
    token = shop.bench.claim(id_)
    assert shop.bench.advance(id_, token, "sent", fields=fields) == "sent"
    return token


def told(usage: list[Usage]) -> list[dict[str, Any]]:
    return [one.to_dict() for one in usage]


def total(shop: Shop) -> tuple[int, int, dict[str, str], dict[str, str]]:
    """Messages, segments, price, estimate of all there is."""
    (one,) = shop.dispatcher.usage(by=()) or [Usage(of={}, messages=0, segments=0, price={}, estimated={})]
    return one.messages, one.segments, one.price, one.estimated


# -- usage -------------------------------------------------------------------------------------------------------------


def test_usage_is_summed_by_whatever_one_asks_for(shop: Shop) -> None:
    for to, tenant, category, text in (
        (NUMBER, "a", "transactional", TEXT),
        (NUMBER, "a", "otp", LONG),
        (US, "b c", "promotional", TEXT),
        (CANADA, "", "promotional", TEXT),
    ):
        take(shop, send(shop, to, text, tenant=tenant, category=category).id, c="0.01 USD")
    by = shop.dispatcher.usage
    usual = {"segments": 1, "messages": 1, "price": {"USD": "0.01"}, "estimated": {}}
    assert told(by(by=["tenant"])) == [
        {"tenant": "", **usual},
        {"tenant": "a", "messages": 2, "segments": 3, "price": {"USD": "0.02"}, "estimated": {}},
        {"tenant": "b c", **usual},
    ]
    assert [(one.of["country"], one.messages) for one in by(by=["country"])] == [("CA", 1), ("GB", 2), ("US", 1)]
    assert [one.of for one in by(by="category,provider")] == [
        {"category": one, "provider": "textgoto"} for one in ("otp", "promotional", "transactional")
    ]
    assert [one.of for one in by()] == [{"day": "2027-01-15", "provider": "textgoto"}]
    assert leaks(str(shop.bench.redis.hgetall("d:u:2027-01-15")), NUMBER, US, TEXT) == []


def test_a_text_counts_when_it_was_taken_and_once(shop: Shop) -> None:
    """However often that is told, and by whom."""
    id_ = send(shop).id
    token = shop.bench.claim(id_)
    assert total(shop) == (0, 0, {}, {})
    for _ in range(2):
        shop.bench.advance(id_, token, "sent", fields={"m": "7", "c": "0.01 USD"}, receipt="hash")
        assert total(shop) == (1, 1, {"USD": "0.01"}, {})
    for state in (State.DELIVERED, State.DELIVERED, State.UNDELIVERED):
        shop.bench.run(shop.bench.calls.receipts([Word(provider="textgoto", key="hash", state=state, detail="told")]))
    assert total(shop) == (1, 1, {"USD": "0.01"}, {})


@pytest.mark.parametrize("to", ["failed", "unknown", "expired", "cancelled"])
def test_what_was_not_surely_taken_does_not_count(shop: Shop, to: str) -> None:
    id_ = send(shop).id
    if to in {"failed", "unknown"}:
        shop.bench.advance(id_, shop.bench.claim(id_), to)
    else:
        shop.bench.advance(id_, "=queued", to)
    assert total(shop) == (0, 0, {}, {})


@pytest.mark.parametrize("to", ["sent", "delivered", "undelivered"])
def test_what_nobody_knew_the_end_of_counts_once_it_is_known(shop: Shop, to: str) -> None:
    id_ = send(shop).id
    shop.bench.advance(id_, shop.bench.claim(id_), "unknown")
    shop.bench.clock.advance(DAY)
    shop.bench.run(shop.bench.calls.receipts([Word(provider="textgoto", own=id_, state=State(to), detail="told")]))
    assert [(one.of["day"], one.messages) for one in shop.dispatcher.usage()] == [("2027-01-16", 1)]


def test_lookups_are_no_messages_but_may_have_a_price(shop: Shop) -> None:
    id_ = shop.dispatcher.lookup(NUMBER).id
    token = shop.bench.claim(id_)
    for _ in range(2):
        shop.bench.advance(id_, token, "completed", fields={"r": "result", "c": "0.005 USD"})
    assert total(shop) == (0, 0, {"USD": "0.005"}, {})


def test_an_estimate_stands_apart_until_the_price_is_told(shop: Shop) -> None:
    """Also where that comes on another day: it counts on the day when the text was taken."""
    shop.bench.redis.hset("d:pr", "textgoto GB", "10000 USD")
    id_ = send(shop, text=LONG).id
    token = shop.bench.hold(id_)
    spending = Spending(country="GB", segments=2)
    shop.bench.run(shop.bench.calls.claim([Claim(token, id_, "never", text=spending)]))
    shop.bench.advance(id_, token, "sent")
    assert total(shop) == (1, 2, {}, {"USD": "0.02"})
    shop.bench.clock.advance(DAY)
    late = Word(provider="textgoto", own=id_, state=State.DELIVERED, detail="told", fields={"c": "0.03 EUR"})
    shop.bench.run(shop.bench.calls.receipts([late]))
    assert total(shop) == (1, 2, {"EUR": "0.03"}, {})
    assert [one.of["day"] for one in shop.dispatcher.usage()] == ["2027-01-15"]


def test_what_two_accounts_took_counts_at_each_and_once(shop: Shop) -> None:
    """It went on to another account; what the first says afterwards is of what was counted."""
    id_ = send(shop).id
    take(shop, id_, c="0.01 USD")
    for account, price in (("other", "0.02 USD"), ("textgoto", "0.01 USD")):
        shop.bench.advance(id_, "=sent", "queued", wait="retry")
        shop.bench.redis.hset(f"d:j:{id_}", "p", account)
        shop.bench.advance(id_, "=queued", "sent", fields={"c": price})
    assert [(one.of["provider"], one.messages, one.price) for one in shop.dispatcher.usage(by=["provider"])] == [
        ("other", 1, {"USD": "0.02"}), ("textgoto", 1, {"USD": "0.01"}),
    ]  # fmt: skip


def test_a_price_without_currency_is_told_as_such(shop: Shop) -> None:
    take(shop, send(shop).id, c="0.0055")
    take(shop, send(shop).id, c="2 credits")
    assert total(shop) == (2, 2, {"unknown": "0.0055", "credits": "2"}, {})


def test_usage_is_of_thirty_days_unless_one_asks_for_more(shop: Shop) -> None:
    for _ in range(3):
        take(shop, send(shop).id)
        shop.bench.clock.advance(20 * DAY)
    days = [one.of["day"] for one in shop.dispatcher.usage(by=["day"])]
    assert days == ["2027-02-24"]
    since = date(2027, 1, 15)
    for first in (since, "2027-01-15", datetime(2027, 1, 15, 23, tzinfo=UTC)):
        assert [one.of["day"] for one in shop.dispatcher.usage(since=first, by=["day"])] == [
            "2027-01-15", "2027-02-04", "2027-02-24",
        ]  # fmt: skip
    assert [one.of["day"] for one in shop.dispatcher.usage(since=since, until="2027-01-20", by=["day"])] == [
        "2027-01-15"
    ]


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        pytest.param("by", {"by": ["tenant", "number"]}, id="no dimension"),
        pytest.param("since", {"since": "yesterday"}, id="no day"),
        pytest.param("since", {"since": "2027-02-30"}, id="a day that is none"),
        pytest.param("until", {"until": 7}, id="a number"),
        pytest.param("since", {"since": "2027-02-01", "until": "2027-01-01"}, id="an end before its beginning"),
        pytest.param("since", {"since": datetime(2027, 1, 1)}, id="without zone"),  # noqa: DTZ001 - that is the case
    ],
)
def test_what_cannot_be_asked_of_usage_is_refused(shop: Shop, field: str, asked: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shop.dispatcher.usage(**asked)
    assert refused.value.field == field


def test_a_job_of_an_earlier_release_counts_without_its_country(bench: Bench) -> None:
    bench.ended("0001", "sent")
    assert bench.redis.hgetall("d:u:2027-01-15") == {
        b"m textgoto ZZ transactional ": b"1",
    }  # fmt: skip


# -- countries ---------------------------------------------------------------------------------------------------------


def test_a_blocked_country_is_texted_no_more(shop: Shop) -> None:
    assert shop.dispatcher.block_country("us", "fraud of +1 212 555 0100")
    job, other = send(shop, US), send(shop, CANADA)
    assert (job.state, other.state) == ("failed", "queued"), "shared codes are told apart"
    assert job.failure is not None
    assert (job.failure.kind, job.failure.code) == ("refused", "country")
    assert job.failure.message.startswith("country: nobody is texted in US (fraud of ")
    assert leaks(job.failure.message, "2125550100", "212 555 0100") == []
    assert (job.id not in str(shop.published), other.id in str(shop.published)) == (True, True)
    (blocked,) = shop.dispatcher.blocked_countries()
    assert (blocked.country, blocked.since) == ("US", datetime(2027, 1, 15, 8, tzinfo=UTC))
    assert not shop.dispatcher.block_country("US"), "it was"
    assert shop.dispatcher.unblock_country("US")
    assert not shop.dispatcher.unblock_country("US")
    assert send(shop, US).state == "queued"
    assert shop.dispatcher.blocked_countries() == []


def test_one_of_a_batch_that_is_blocked_stops_no_other(shop: Shop) -> None:
    shop.dispatcher.block_country("US")
    batch = shop.dispatcher.send_many([Message(US, TEXT), Message(NUMBER, TEXT)])
    assert batch.counts == {"failed": 1, "queued": 1}


def test_lookups_and_operations_are_no_texts(shop: Shop) -> None:
    shop.dispatcher.block_country("US")
    assert shop.dispatcher.lookup(US).state == "queued"
    assert shop.dispatcher.operation("textgoto", "optout.add", number=US).state == "queued"


@pytest.mark.parametrize("country", ["", "UK", "USA", "ZZ", "001", 7, None])
def test_what_is_no_country_is_refused(shop: Shop, country: Any) -> None:
    for call in (shop.dispatcher.block_country, shop.dispatcher.unblock_country):
        with pytest.raises(InvalidRequest, match="two letters of ISO 3166"):
            call(country)


def test_what_is_queued_already_is_not_sent_either(clock: Clock) -> None:
    """The claim is the last to look; what follows of that country asks for no permit any more."""
    road = Road(clock)
    execution = road.execution()
    for number in range(4):
        road.enqueue(f"000{number}", Send(to=US if number else NUMBER, text=TEXT))
    road.bench.redis.hset("d:kc", "US", f"{clock.ms} ")
    words = [asyncio.run(execution.execute([f"000{number}"], "plain")) for number in range(4)]
    assert words == ["sent", "failed:refused", "failed:refused", "failed:refused"]
    assert road.wire.sent == ["0000"]
    assert len(road.gate.asked) == 2
    assert road.bench.story("0001")[-1] == "failed: country: nobody is texted in US"


def test_the_country_of_a_job_that_an_earlier_release_made_is_found(clock: Clock) -> None:
    road = Road(clock)
    request = Send(to=US, text=TEXT)
    public = msgspec.json.decode(encode_public(request, Terms(), "send", sandbox=False))
    del public["country"]
    road.enqueue("0001", request, public=msgspec.json.encode(public))
    road.bench.redis.hset("d:kc", "US", f"{clock.ms} ")
    assert road.run("0001") == "failed:refused"


def test_only_the_countries_of_the_settings_are_texted(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, countries=" gb, CA ")
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("textgoto", "send", "lookup")
    assert [send(shop, to).state for to in (NUMBER, CANADA)] == ["queued", "queued"]
    with pytest.raises(InvalidRequest, match=r"to: is a number of US, and DISPATCHER_COUNTRIES allows CA, GB"):
        send(shop, US)
    with pytest.raises(InvalidRequest, match=r"^messages\[1\]\.to: is a number of US"):
        shop.dispatcher.send_many([Message(NUMBER, TEXT), Message(US, TEXT)])
    assert shop.dispatcher.lookup(US).state == "queued"


@pytest.mark.parametrize("countries", ["UK", "GB,ZZ", "GB;US", "England"])
def test_countries_that_are_none_are_an_error_at_start(countries: str) -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_COUNTRIES names '.*two letters of ISO 3166"):
        load(countries=countries)


# -- texts that are too long -------------------------------------------------------------------------------------------


def test_a_text_that_is_too_long_is_refused_where_one_asks_for_that(shop: Shop) -> None:
    with pytest.raises(InvalidRequest) as refused:
        send(shop, text=LONG, max_segments=1)
    assert str(refused.value) == (
        "text: has 2 segments (161 characters in GSM-7), and at most 1 may be sent; shorten it, or raise max_segments "
        "(DISPATCHER_MAX_SEGMENTS)"
    )
    assert send(shop, text=LONG, max_segments=2).segments == 2
    assert send(shop, text=LONG).segments == 2
    with pytest.raises(InvalidRequest, match=r"template: has 2 segments \(78 characters in UCS-2\)"):
        shop.dispatcher.verify(NUMBER, template="ш" * 70 + "[CODE]" + "ш" * 2, max_segments=1)
    code = "ш" * 64
    assert shop.dispatcher.verify(NUMBER, template=f"{code}[CODE]", max_segments=1).segments == 1, "with the code in it"


def test_of_many_the_message_s_own_limit_wins(shop: Shop) -> None:
    messages = [Message(NUMBER, LONG, max_segments=2), Message(NUMBER, TEXT)]
    assert shop.dispatcher.send_many(messages, max_segments=1).counts == {"queued": 2}
    with pytest.raises(InvalidRequest, match=r"^messages\[1\]\.text: has 2 segments"):
        shop.dispatcher.send_many([Message(NUMBER, TEXT), Message(NUMBER, LONG)], max_segments=1)


def test_the_settings_limit_what_says_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, max_segments=1)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("textgoto", "send")
    with pytest.raises(InvalidRequest, match="text: has 2 segments"):
        send(shop, text=LONG)
    job = send(shop, text=LONG, max_segments=2)
    shop.dispatcher.cancel(job.id)
    shop.bench.advance(send(shop).id, "=queued", "failed")
    ended = send(shop, text=LONG, max_segments=2).id
    shop.bench.advance(ended, "=queued", "failed")
    assert shop.dispatcher.redrive(ended).segments == 2, "it was allowed once"


@pytest.mark.parametrize("most", [0, -1, 1.5, "2", True, 256])
def test_a_limit_of_segments_is_a_whole_number(shop: Shop, most: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"max_segments.*whole number from 1 to 255"):
        send(shop, max_segments=most)


def test_no_segments_at_all_is_an_error_at_start() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_MAX_SEGMENTS"):
        load(max_segments=0)


# -- what an account's settings say of money ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("price", "0.0055"), ("price", "free"), ("price", "-1 USD"), ("low_balance", "0"), ("low_balance", "ten USD")],
)
def test_what_is_no_money_is_an_error_at_start(field: str, value: str) -> None:
    settings = load(sandbox=True, sandbox_url="http://127.0.0.1:1", providers={"textgoto": {field: value}})
    with pytest.raises(ConfigurationError, match=f"DISPATCHER_PROVIDERS__TEXTGOTO__{field.upper()}"):
        adapter(settings, "textgoto")


def test_a_low_balance_is_told_once_until_it_rose(clock: Clock) -> None:
    road = Road(clock, providers={"plain": {"low_balance": "10 USD"}})
    execution = road.execution()
    shop = Shop(clock)
    shop.dispatcher._store.redis = road.bench.redis

    def look(left: str, number: int) -> list[tuple[str, str, str]]:
        id_ = f"000{number}"
        road.enqueue(id_, Operation(), "balance")
        road.adapter.outcomes = {id_: Found(result={"balance": left, "available": left, "currency": None})}
        assert asyncio.run(execution.execute([id_], "plain")) == "completed"
        return [(one.provider, one.balance, one.below) for one in shop.dispatcher.low_balances()]

    seen = [look(left, number) for number, left in enumerate(["10", "9.5", "8", "11", "1"])]
    low = [[("plain", left, "10 USD")] for left in ("9.5", "8", "1")]
    assert seen == [[], low[0], low[1], [], low[2]]
    events = [one for one in shop.dispatcher.events(after="0", timeout=0) if one.type == "provider.low_balance"]
    usual = {"provider": "plain", "below": "10 USD", "since": "2027-01-15T08:00:00Z"}
    assert [one.data for one in events] == [{**usual, "balance": "9.5"}, {**usual, "balance": "1"}]


def test_a_price_in_an_answer_is_counted(clock: Clock) -> None:
    road = Road(clock)
    road.enqueue("0001")
    road.adapter.outcomes = {"0001": Accepted(ref="7", price="0.0055 USD")}
    assert road.run("0001") == "sent"
    shop = Shop(clock)
    shop.dispatcher._store.redis = road.bench.redis
    assert total(shop) == (1, 1, {"USD": "0.0055"}, {})
