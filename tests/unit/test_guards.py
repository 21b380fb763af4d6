"""Guards of verifications: what the setting says, and what is refused, counted, told and forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher import (
    ConfigurationError,
    CountryLimited,
    CountryRefused,
    Dispatcher,
    InvalidRequest,
    KeyLimited,
    NumberLimited,
    NumberTypeRefused,
    PrefixClosed,
    PrefixLimited,
    VerificationRefused,
)
from dispatcher.guards import USUAL, Conversion, Guards, Window, listed, parse
from dispatcher.outcomes import Checked
from tests.unit.support import NUMBER, OTHER, Clock, leaks, settings
from tests.unit.test_client import ALL, Shop

#: A number with other neighbours.
FAR = "+12125550100"
PREMIUM = "+19005550100"
TOLL_FREE = "+18005550100"

DAY = 86400

# -- the setting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param("off", Guards(), id="off"),
        pytest.param("", Guards(), id="nothing"),
        pytest.param("number=5/10m", Guards(number=(Window(5, 600),)), id="one"),
        pytest.param("number = 5/10m , 10/1d", Guards(number=(Window(5, 600), Window(10, DAY))), id="two windows"),
        pytest.param("prefix=off", Guards(), id="one that is off"),
        pytest.param(
            "key=10/1h; key.ip=20/1h",
            Guards(keys={"": (Window(10, 3600),), "ip": (Window(20, 3600),)}),
            id="a key of its own",
        ),
        pytest.param(
            "country=5/1d;country.us=20/1d;",
            Guards(countries={"": (Window(5, DAY),), "US": (Window(20, DAY),)}),
            id="a country of its own",
        ),
        pytest.param("conversion=50/24h", Guards(conversion=Conversion(Window(50, DAY))), id="none approved"),
        pytest.param("conversion=50/1d < 5%", Guards(conversion=Conversion(Window(50, DAY), 5)), id="few approved"),
    ],
)
def test_rules_are_read(written: str, read: Guards) -> None:
    assert parse(written) == read


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("number", "'number'.* is no name and its windows"),
        ("numbers=5/1h", "'numbers', which is no guard"),
        ("number=5", "'5', which is no count for a time"),
        ("number=5/1w", "'5/1w', which is no count for a time"),
        ("number=0/1h", "a count is 1 to 1000000"),
        ("number=5/31d", "a time at most 30 days"),
        ("number=5/0s", "a time at most 30 days"),
        ("number=5/1h; number=6/1h", "two rules for number"),
        ("country.XX=5/1h", "'XX', and a country is two letters"),
        ("key.IP=5/1h", "'key.IP', which is no guard"),
        ("conversion=50/1d<0%", "has a share that is none"),
        ("conversion=50/1d,5/1h", "which is no count for a time"),
        ("off; number=5/1h", "'off'"),
        ("number=5/10m,300/600s", "two windows of the same time"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_way_out(written: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^DISPATCHER_GUARDS has .*{says}.*number=5/10m,10/1d"):
        settings(guards=written)


def test_the_defaults_are_what_the_page_says() -> None:
    rules = parse(USUAL)
    assert [str(one) for one in rules.number] == ["5/10m", "10/1d"]
    assert [str(one) for one in (*rules.prefix, *rules.of_key("any"), *rules.of_country("US"))] == [
        "100/1h", "10/1h", "5000/1d",
    ]  # fmt: skip
    assert rules.conversion == Conversion(Window(50, DAY))


@pytest.mark.parametrize(
    ("written", "number", "keys", "has"),
    [
        (NUMBER, NUMBER, {}, True),
        (NUMBER, OTHER, {}, False),
        (f"{FAR}, +4477009001*", NUMBER, {}, True),
        ("ip:203.0.113.7", NUMBER, {"ip": "203.0.113.7"}, True),
        ("ip:203.0.113.7", NUMBER, {"session": "203.0.113.7"}, False),
        ("ip:2001:db8::1", NUMBER, {"ip": "2001:db8::1"}, True),
        ("", NUMBER, {"ip": ""}, False),
    ],
)
def test_numbers_beginnings_and_keys_are_listed(written: str, number: str, keys: dict[str, str], has: bool) -> None:
    assert listed(written, keys=True).has(number, keys) is has


@pytest.mark.parametrize(
    "given",
    [
        {"test_numbers": "07700 900468"},
        {"test_numbers": "ip:203.0.113.7"},
        {"guard_allow": "447700900468"},
        {"guard_allow": "ip:"},
    ],
)
def test_a_list_that_is_none_is_refused_without_repeating_it(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"write them like \+447700900123 or \+4477009\*") as refused:
        settings(**given)
    assert not leaks(str(refused.value), "900468", "447700900468")


def test_a_kind_of_range_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_VERIFY_REFUSE_TYPES names 'expensive'.*premium_rate"):
        settings(verify_refuse_types="expensive")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shop_with(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(**given: Any) -> Shop:
        one = Shop(clock, **given)
        monkeypatch.setattr("dispatcher.client.publish", one.publish)
        one.serve("textgoto", *ALL)
        return one

    return made


def refused(d: Dispatcher, number: str = NUMBER, **given: Any) -> VerificationRefused:
    """The refusal of one more code."""
    with pytest.raises(VerificationRefused) as error:
        d.verify(number, **given)
    return error.value


def neighbours(count: int) -> list[str]:
    return [f"{NUMBER[:-3]}{n:03}" for n in range(count)]


#: The rule; numbers and keys that use it up; one that it refuses and one it does not; the error; seconds until it may.
CASES: list[Any] = [
    pytest.param(
        "number=2/10m", [(NUMBER, {})] * 2, (NUMBER, {}), (OTHER, {}), NumberLimited, 600, id="a number"
    ),
    pytest.param(
        "prefix=2/1h", [(one, {}) for one in neighbours(2)], (NUMBER, {}), (FAR, {}), PrefixLimited, 3600,
        id="its neighbours",
    ),
    pytest.param(
        "key=2/1h", [(NUMBER, {"ip": "a"}), (FAR, {"ip": "a"})], (OTHER, {"ip": "a"}), (OTHER, {"session": "a"}),
        KeyLimited, 3600, id="a key",
    ),
    pytest.param(
        "key=9/1h; key.ip=1/1m", [(NUMBER, {"ip": "a", "session": "s"})], (FAR, {"ip": "a"}), (FAR, {"session": "s"}),
        KeyLimited, 60, id="a key of its own",
    ),
    pytest.param("country=1/1d", [(NUMBER, {})], (OTHER, {}), (FAR, {}), CountryLimited, DAY, id="a country"),
    pytest.param(
        "country=1/1d; country.GB=2/1d", [(NUMBER, {})] * 2, (OTHER, {}), (FAR, {}), CountryLimited, DAY,
        id="a country of its own",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "used", "one", "another", "error", "seconds"), CASES)
def test_one_code_too_many_is_refused_until_there_is_room(
    shop_with: Any, *, rule: str, used: Any, one: Any, another: Any, error: type[VerificationRefused], seconds: int
) -> None:
    shop = shop_with(guards=rule)
    d: Dispatcher = shop.dispatcher
    for number, keys in used:
        d.verify(number, guard_keys=keys)
    before = len(d.jobs())
    told = refused(d, one[0], guard_keys=one[1])
    assert (type(told), told.code, told.retry_after) == (error, error.code, seconds)
    assert len(d.jobs()) == before, "nothing was created"
    d.verify(another[0], guard_keys=another[1])
    shop.clock.advance(seconds - 0.001)
    assert refused(d, one[0], guard_keys=one[1]).retry_after == 1
    shop.clock.advance(0.001)
    d.verify(one[0], guard_keys=one[1])


def test_a_window_slides_exactly(shop_with: Any) -> None:
    """Each code has room again when one leaves, and not all at once."""
    shop = shop_with(guards="number=2/10m")
    for seconds in (0, 300):
        shop.clock.advance(seconds)
        shop.dispatcher.verify(NUMBER)
    assert refused(shop.dispatcher).retry_after == 300
    shop.clock.advance(300)
    shop.dispatcher.verify(NUMBER)
    assert refused(shop.dispatcher).retry_after == 300


def test_a_refusal_costs_nothing(shop_with: Any) -> None:
    """Whoever tries on is refused no longer for it; nor is another guard drawn from."""
    shop = shop_with(guards="number=1/10m; key=2/1h")
    d: Dispatcher = shop.dispatcher
    d.verify(NUMBER, guard_keys={"ip": "a"})
    for _ in range(9):
        assert isinstance(refused(d, guard_keys={"ip": "a"}), NumberLimited)
    d.verify(OTHER, guard_keys={"ip": "a"})
    shop.clock.advance(600)
    assert isinstance(refused(d, guard_keys={"ip": "a"}), KeyLimited)


def test_of_several_refusals_the_first_is_told_and_the_longest_wait(shop_with: Any) -> None:
    d = shop_with(guards="number=1/10m,1/1d").dispatcher
    d.verify(NUMBER)
    assert refused(d).retry_after == DAY


def test_many_are_counted_in_slices_that_never_let_more_through(shop_with: Any) -> None:
    """Of a limit beyond two hundred, a window is held as sixty counts: what leaves it does so a slice late at most."""
    shop = shop_with(guards="country=201/1h")
    d: Dispatcher = shop.dispatcher
    for _ in range(200):
        d.verify(NUMBER)
    shop.clock.advance(1800)
    d.verify(NUMBER)
    assert isinstance(refused(d), CountryLimited)
    shop.clock.advance(refused(d).retry_after or 0)
    for _ in range(200):
        d.verify(NUMBER)
    assert isinstance(refused(d), CountryLimited)
    (key,) = shop.bench.redis.keys("d:vg:country*")
    assert shop.bench.redis.hlen(key) <= 61


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("prefix=100/1h; country=300/1d", "prefix=300/1h; country=100/1d", id="another count"),
        pytest.param("conversion=5/1h", "conversion=5/1d", id="a longer watch"),
        pytest.param("conversion=5/1d", "conversion=5/1h", id="a shorter one"),
    ],
)
def test_rules_may_change_while_codes_are_counted(shop_with: Any, before: str, after: str) -> None:
    old, new = shop_with(guards=before), shop_with(guards=after)
    new.dispatcher._store.redis = new.bench.redis = old.bench.redis
    for _ in range(4):
        old.dispatcher.verify(NUMBER)
    for _ in range(4):
        new.dispatcher.verify(NUMBER)
        old.dispatcher.verify(NUMBER, idempotency_key="once")


@pytest.mark.parametrize(
    ("given", "number", "error"),
    [
        pytest.param({"verify_countries": "US,FR"}, NUMBER, CountryRefused, id="another country"),
        pytest.param({}, PREMIUM, NumberTypeRefused, id="premium rate"),
        pytest.param({}, TOLL_FREE, NumberTypeRefused, id="toll free"),
        pytest.param({"guards": "off"}, PREMIUM, NumberTypeRefused, id="premium rate, without guards"),
    ],
)
def test_some_numbers_get_no_code_at_any_time(shop_with: Any, given: Any, number: str, error: Any) -> None:
    shop = shop_with(**given)
    told = refused(shop.dispatcher, number)
    assert (type(told), told.retry_after) == (error, None)
    assert shop.dispatcher.jobs() == []
    assert not leaks(str(told), number)


def test_other_kinds_may_be_refused_instead(shop_with: Any) -> None:
    d = shop_with(verify_refuse_types="fixed_line_or_mobile").dispatcher
    d.verify(PREMIUM)
    assert isinstance(refused(d, FAR), NumberTypeRefused)


def test_texts_are_not_guarded(shop_with: Any) -> None:
    d = shop_with(guards="number=1/1d").dispatcher
    d.verify(NUMBER)
    d.send(NUMBER, "Hello")
    assert [key for key in d._store.redis.keys("d:vg:*") if b"number" not in key] == []


# -- who is left alone -------------------------------------------------------------------------------------------------


def test_a_test_number_is_refused_by_no_guard_and_counted_by_none(shop_with: Any) -> None:
    shop = shop_with(guards="number=1/1d; country=1/1d; key=1/1d", test_numbers=f"{NUMBER},+1900*", resend_after=60)
    d: Dispatcher = shop.dispatcher
    for number in (NUMBER, PREMIUM, NUMBER):
        d.resend(d.verify(number, guard_keys={"ip": "a"}).id)
    assert shop.bench.redis.keys("d:v[gc]:*") == []
    d.verify(OTHER, guard_keys={"ip": "a"})


@pytest.mark.parametrize("allow", [NUMBER, "+4477*", "ip:203.0.113.7"])
def test_the_allow_list_beats_each_guard_and_is_counted(shop_with: Any, allow: str) -> None:
    rules = "number=1/1d; prefix=2/1d; key=1/1d; country=1/1d,300/1h; conversion=1/1d"
    shop = shop_with(guards=rules, guard_allow=allow, verify_countries="US")
    keys = {"ip": "203.0.113.7"}
    for _ in range(3):
        shop.dispatcher.verify(NUMBER, guard_keys=keys)
    assert len(shop.bench.redis.keys("d:vg:*")) == 5
    for _ in range(4):
        shop.clock.advance(2000)
        shop.dispatcher.verify(NUMBER, guard_keys=keys)
    (slices,) = shop.bench.redis.keys("d:vg:country*3600000s:GB")
    assert shop.bench.redis.hlen(slices) == 2, "what is over is forgotten"


def test_what_an_idempotency_key_made_is_never_refused(shop_with: Any) -> None:
    d = shop_with(guards="number=1/1d").dispatcher
    first = d.verify(NUMBER, idempotency_key="sign-in 7")
    assert d.verify(NUMBER, idempotency_key="sign-in 7").id == first.id
    assert isinstance(refused(d, idempotency_key="sign-in 8"), NumberLimited)


def test_a_call_whose_answer_was_lost_counts_once(shop_with: Any) -> None:
    shop = shop_with(guards="number=2/1d")
    run = shop.dispatcher._store.run
    shop.dispatcher._store.run = lambda call: (run(call), run(call))[1]
    shop.dispatcher.verify(NUMBER)
    shop.dispatcher.verify(NUMBER)
    assert isinstance(refused(shop.dispatcher), NumberLimited)


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(["ip"], id="no dict"),
        pytest.param({"IP address": "a"}, id="a name that is none"),
        pytest.param({"ip": None}, id="no text"),
        pytest.param({"ip": ""}, id="empty"),
        pytest.param({f"k{n}": "a" for n in range(11)}, id="too many"),
    ],
)
def test_keys_that_are_none_are_refused(shop_with: Any, keys: Any) -> None:
    with pytest.raises(InvalidRequest, match="guard_keys"):
        shop_with().dispatcher.verify(NUMBER, guard_keys=keys)


# -- what is told and kept ---------------------------------------------------------------------------------------------


def told(shop: Shop, kind: str) -> list[dict[str, Any]]:
    return [json.loads(fields[b"j"]) for _, fields in shop.bench.redis.xrange("d:e") if fields[b"t"] == kind.encode()]


def test_a_refusal_is_an_event_once_a_minute_with_how_many_there_were(shop_with: Any) -> None:
    """A flood of refusals must not fill the stream."""
    shop = shop_with(guards="number=1/1d; key=1/1d")
    d: Dispatcher = shop.dispatcher
    d.verify(NUMBER, tenant="acme", guard_keys={"ip": "203.0.113.7"})
    for _ in range(10):
        refused(d, tenant="acme")
    refused(d, FAR, guard_keys={"ip": "203.0.113.7"})
    shop.clock.advance(60)
    refused(d, tenant="acme")
    first, key, second = (one.data for one in d.events("0", timeout=0) if one.type == "verification.refused")
    about = {"code": "number_limited", "country": "GB", "number": "+44********23", "tenant": "acme"}
    assert first == {**about, "times": 1, "retry_after": DAY}
    assert second == {**about, "times": 10, "retry_after": DAY - 60}
    assert (key["code"], key["key"], key["number"]) == ("key_limited", "ip", "+1********00")


def test_nothing_private_lies_in_what_guards_keep(shop_with: Any) -> None:
    shop = shop_with(guards="number=1/1d; prefix=1/1d; key=1/1d; country=300/1d; conversion=1/1d")
    d: Dispatcher = shop.dispatcher
    d.verify(NUMBER, guard_keys={"ip": "203.0.113.7", "session": "canary"})
    refused(d, guard_keys={"ip": "203.0.113.7", "session": "canary"})
    kept = {name: one for name, one in shop.bench.dump().items() if name.startswith(("d:v", "d:e"))}
    assert not leaks(repr(kept), NUMBER, NUMBER[:-3], "203.0.113.7", "canary")


def test_all_that_guards_keep_goes_by_itself(shop_with: Any) -> None:
    shop = shop_with(guards="number=1/10m; prefix=9/1h; key=9/1h; country=300/1d; conversion=1/1d")
    shop.dispatcher.verify(NUMBER, guard_keys={"ip": "a"})
    refused(shop.dispatcher)
    shop.clock.advance(2 * DAY)
    assert [key for key in shop.bench.names() if key.startswith(("d:vg", "d:vc", "d:vx"))] == []


# -- prefixes that nobody approves a code of ---------------------------------------------------------------------------


def typed(shop: Shop, number: str) -> None:
    """A verification that its person approves."""
    job = shop.dispatcher.verify(number)
    shop.sent(job.id, code_ttl=300, vh=shop.bench.settings.hashed("code", job.id, "012837"))
    assert shop.dispatcher.check(job.id, "012837").valid


def test_a_prefix_that_approves_no_code_is_closed_and_told_once(shop_with: Any) -> None:
    shop = shop_with(guards="conversion=5/1d")
    d: Dispatcher = shop.dispatcher
    for number in neighbours(5):
        d.verify(number)
    assert d.guards() == []
    assert [(type(one), one.retry_after) for one in (refused(d), refused(d))] == [(PrefixClosed, DAY)] * 2
    d.verify(FAR)
    (closed,) = told(shop, "prefix.closed")
    assert (closed["prefix"], closed["country"], closed["sent"], closed["approved"]) == ("+44*****00***", "GB", 5, 0)
    (event,) = (one for one in d.events("0", timeout=0) if one.type == "prefix.closed")
    assert event.data["until"] > event.data["since"]
    (shown,) = d.guards()
    assert (shown.prefix, shown.country, shown.sent, shown.approved) == ("+44*****00***", "GB", 5, 0)
    assert (shown.until - shown.since).total_seconds() == DAY
    assert d.guards(reveal=True)[0].prefix == NUMBER[:-3]
    assert closed["id"] == shown.id, "which reopens it"
    shop.clock.advance(DAY + 0.001)
    assert d.guards() == []
    for number in neighbours(5):
        d.verify(number)


@pytest.mark.parametrize("named", ["+44 7700 900", "+447700900*", "its id"])
def test_a_closed_prefix_can_be_opened_again(shop_with: Any, named: str) -> None:
    """Counting begins anew then."""
    shop = shop_with(guards="conversion=2/1d")
    d: Dispatcher = shop.dispatcher
    for number in neighbours(2):
        d.verify(number)
    refused(d)
    prefix = d.guards()[0].id if named == "its id" else named
    assert d.reopen(prefix)
    assert not d.reopen(prefix)
    assert d.guards() == []
    for number in neighbours(2):
        d.verify(number)
    assert isinstance(refused(d), PrefixClosed)


def test_one_approval_keeps_it_open(shop_with: Any) -> None:
    shop = shop_with(guards="conversion=3/1d")
    typed(shop, NUMBER)
    for number in neighbours(9):
        shop.dispatcher.verify(number)


def test_a_share_may_be_asked_for(shop_with: Any) -> None:
    shop = shop_with(guards="conversion=4/1d<50%")
    for number in neighbours(2):
        typed(shop, number)
    for number in neighbours(2):
        shop.dispatcher.verify(number)
    shop.dispatcher.verify(NUMBER)
    assert isinstance(refused(shop.dispatcher), PrefixClosed), "two of five are less than half"


def test_what_the_provider_judges_counts_as_approved(shop_with: Any) -> None:
    shop = shop_with(guards="conversion=1/1d")
    job = shop.dispatcher.verify(NUMBER)
    shop.sent(job.id)
    hashed = shop.bench.settings.hashed("code", job.id, "012837")
    shop.bench.check(job.id, hashed)
    told = Checked(verification=job.id, valid=True, status="approved")
    shop.bench.run(shop.bench.calls.judged(told, hashed, tries=5))
    shop.dispatcher.verify(NUMBER)


def test_codes_that_were_never_sent_say_nothing(shop_with: Any) -> None:
    """Of a provider that is down, or serves that country not, nobody gets what could be typed."""
    shop = shop_with(guards="conversion=2/1d")
    for end in ("failed", "cancelled"):
        for number in neighbours(3):
            job = shop.dispatcher.verify(number)
            if end == "failed":
                shop.bench.advance(job.id, shop.bench.claim(job.id), "failed")
            else:
                shop.dispatcher.cancel(job.id)
    for number in neighbours(2):
        shop.dispatcher.verify(number)
    assert isinstance(refused(shop.dispatcher), PrefixClosed)


def test_codes_of_long_ago_say_nothing_any_more(shop_with: Any) -> None:
    shop = shop_with(guards="conversion=2/1h")
    for number in neighbours(2):
        shop.dispatcher.verify(number)
        shop.clock.advance(1900)
    shop.dispatcher.verify(NUMBER)
