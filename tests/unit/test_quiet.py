"""Quiet hours: what is quiet when and where, and what becomes of a text that may not go."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import phonenumbers
import pytest

from dispatcher import ConfigurationError, Dispatcher, InvalidRequest, Message, quiet, records, zones
from dispatcher.jobs import Category, Kind, Send, Work
from tests.support import phone
from tests.unit import test_cli, test_execute
from tests.unit.support import NUMBER, OTHER, TEXT, AsyncOnSync, Clock, settings
from tests.unit.test_cli import Run, one_paragraph
from tests.unit.test_client import ALL, Shop
from workers import policy
from workers.execute import Execution
from workers.providers.base import Response

away = test_cli.away
memory = test_cli.memory
run = test_cli.run

GB, US = "+447700900123", "+12125550100"
#: Kept for fiction, too: a French mobile number, an Australian one, one that is free to call from all over America.
FR, AU, AMERICA = "+33639980001", "+61491570006", "+18005550199"
#: Of no country; nobody has it.
WORLD = "+883510000000"
#: Quiet for so long that few hours are left where the zone is not known.
LONG = "18:00-10:00"
#: The metadata's own examples of numbers.
EXAMPLES = {
    country: phonenumbers.format_number(found, phonenumbers.PhoneNumberFormat.E164)
    for country in ("AC", "PS")
    if (found := phonenumbers.example_number(country))
}


def at(words: str) -> int:
    """Milliseconds since 1970 of a moment in UTC."""
    return round(datetime.fromisoformat(words).replace(tzinfo=UTC).timestamp() * 1000)


def told(milliseconds: int | None) -> str:
    return "now" if milliseconds is None else f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%m-%d %H:%M}"


# -- when it is quiet --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "when", "goes"),
    [
        pytest.param(GB, "2026-11-20T12:00", "now", id="at noon"),
        pytest.param(GB, "2026-11-20T19:59:59.9", "now", id="until the last moment"),
        pytest.param(GB, "2026-11-20T20:00", "11-21 09:00", id="from 20:00 on until the next morning"),
        pytest.param(GB, "2026-11-21T08:59:59", "11-21 09:00", id="in the morning"),
        pytest.param(GB, "2026-11-21T09:00", "now", id="from 9:00 on"),
        pytest.param(GB, "2026-06-20T08:00", "now", id="9:00 by summer time"),
        pytest.param(US, "2026-11-20T13:30", "11-20 14:00", id="8:30 in New York"),
        pytest.param(US, "2026-11-22T15:00", "11-22 17:00", id="a Sunday at 10:00 there: until noon"),
        pytest.param(FR, "2026-11-21T19:30", "11-23 08:00", id="from Saturday evening over Sunday to Monday, in Paris"),
        pytest.param(FR, "2026-12-25T11:00", "12-26 08:00", id="on Christmas Day, a Friday"),
        pytest.param(FR, "2027-05-01T11:00", "05-03 07:00", id="on Labour Day, a Saturday before a Sunday"),
        pytest.param(AU, "2026-11-21T05:59", "now", id="a Saturday until 17:00, wherever in Australia it is latest"),
        pytest.param(AU, "2026-11-21T06:00", "11-23 01:00", id="and over the Sunday until 9:00, where it is earliest"),
        pytest.param(AMERICA, "2026-11-20T18:30", "11-20 19:00", id="until it is 9:00 on Hawaii"),
        pytest.param(AMERICA, "2026-11-21T00:59", "now", id="and until it is 20:00 in New York"),
    ],
)
def test_a_promotion_goes_when_it_is_not_quiet_where_the_person_is(number: str, when: str, goes: str) -> None:
    assert told(quiet.hours((), number, "promotional", at=at(when)).until) == goes


@pytest.mark.parametrize(
    ("timezone", "goes"),
    [
        pytest.param("", "now", id="by the number, in New York"),
        pytest.param("America/Los_Angeles", "11-20 17:00", id="by the caller, in California"),
        pytest.param("Asia/Tokyo", "11-21 00:00", id="by the caller, abroad"),
    ],
)
def test_the_caller_knows_best_where_somebody_is(timezone: str, goes: str) -> None:
    assert told(quiet.hours((), US, "promotional", at=at("2026-11-20T14:30"), timezone=timezone).until) == goes


@pytest.mark.parametrize(
    ("number", "country", "where"),
    [
        pytest.param(GB, "GB", ["Europe/London"], id="a country of one zone"),
        pytest.param(US, "US", ["America/New_York"], id="an area code"),
        pytest.param("+18005550100", "US", None, id="a number that belongs to no region: the whole country"),
        pytest.param("+61412345678", "AU", None, id="a mobile number whose first digits look like a town's"),
        pytest.param("+61293744000", "AU", ["Australia/Sydney"], id="a town's number"),
        pytest.param(
            EXAMPLES["PS"], "PS", ["Asia/Gaza", "Asia/Hebron"], id="a region's zone that is another country's"
        ),
        pytest.param(EXAMPLES["AC"], "AC", ["Atlantic/St_Helena"], id="a country that the zones' table does not know"),
        pytest.param(WORLD, "001", [], id="a number of no country"),
    ],
)
def test_the_number_tells_where_somebody_may_be(number: str, country: str, where: list[str] | None) -> None:
    found = zones.plausible(number, country)
    assert [*found] == where if where is not None else len(found) > 8


@pytest.mark.parametrize(
    ("rule", "when", "goes"),
    [
        pytest.param("never", "2026-11-20T23:00", "now", id="never"),
        pytest.param("country=FR 12:00-14:00", "2026-11-20T23:00", "11-21 09:00", id="another country's"),
        pytest.param("country=GB 12:00-14:00", "2026-11-20T23:00", "now", id="the country's own"),
        pytest.param("country=gb 12:00-14:00", "2026-11-20T13:00", "11-20 14:00", id="however it is written"),
        pytest.param("12:00-14:00,18:00-06:00", "2026-11-20T13:00", "11-20 14:00", id="twice a day, at noon"),
        pytest.param("12:00-14:00,18:00-06:00", "2026-11-20T23:00", "11-21 06:00", id="twice a day, at night"),
        pytest.param("fri", "2026-11-20T00:00", "11-21 00:00", id="a whole day"),
        pytest.param("fri-mon=00:00-24:00", "2026-11-20T00:00", "11-24 00:00", id="over the end of the week"),
        pytest.param("20:00-09:00 fri=22:00-24:00", "2026-11-20T21:00", "now", id="a day's own hours"),
        pytest.param("20:00-09:00 fri=22:00-24:00", "2026-11-20T22:00", "11-21 09:00", id="and those of the next"),
        pytest.param("tenant=alarms never", "2026-11-20T23:00", "11-21 09:00", id="another tenant's"),
        pytest.param("tenant=shop never", "2026-11-20T23:00", "now", id="the tenant's own"),
        pytest.param("holidays=18:00-12:00 20:00-09:00", "2026-12-25T11:00", "12-25 12:00", id="holidays, shorter"),
        pytest.param("category=transactional sun", "2026-11-20T23:00", "11-21 09:00", id="another category's"),
    ],
)
def test_rules_of_the_settings_come_before_the_table(rule: str, when: str, goes: str) -> None:
    rules = quiet.parse([rule])
    assert told(quiet.hours(rules, GB, "promotional", at=at(when), tenant="shop").until) == goes


def test_what_the_person_waits_for_is_bound_by_a_rule_that_says_so_only() -> None:
    night = at("2026-11-20T23:00")
    assert quiet.hours((), GB, "transactional", at=night).until is None
    rules = quiet.parse(["category=transactional,promotional 22:00-06:00"])
    assert told(quiet.hours(rules, GB, "transactional", at=night).until) == "11-21 06:00"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        pytest.param("category=otp 20:00-09:00", "only promotional and transactional", id="a code"),
        pytest.param("country=XX sun", "two letters of ISO 3166", id="no country"),
        pytest.param("country=FR", "says nothing of what is quiet", id="no hours"),
        pytest.param("25:00-09:00", "neither a condition nor a time", id="no such hour"),
        pytest.param("sun=20-9", "'20-9' for a time", id="hours alone"),
        pytest.param("20:00-20:00", "'20:00-20:00' for a time", id="no time at all"),
        pytest.param("mon-sun", "leaves no hour of the week", id="always"),
        pytest.param("weekend", "'weekend', which is neither", id="no day"),
        pytest.param("never sun", "says never, and what is quiet", id="never and sometimes"),
    ],
)
def test_a_rule_that_cannot_be_is_told_with_the_way_out(rule: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match="QUIET_HOURS has a rule that cannot be, number 2") as refused:
        settings(quiet_hours=f"country=IS never; {rule}")
    assert words in str(refused.value)
    assert "write conditions" in str(refused.value)


def test_every_line_of_the_table_can_be_kept() -> None:
    table = list(quiet.table())
    assert {"", "US", "FR"} <= {country for country, _, _ in table}
    assert all(quiet.parse([words]) and basis for _, words, basis in table)


@pytest.mark.parametrize("when", ["2026-03-29T00:30", "2026-10-25T00:30", "2026-10-25T01:30"])
def test_where_clocks_are_changed_no_hour_is_waited_for_for_ever(when: str) -> None:
    rules = quiet.parse(["01:00-02:00,02:00-03:00"])
    until = quiet.hours(rules, GB, "promotional", at=at(when)).until
    assert until is None or 0 < until - at(when) <= 3 * 3600 * 1000


def test_little_time_is_told_of() -> None:
    hours = quiet.hours(quiet.parse([LONG]), AMERICA, "promotional", at=at("2026-11-20T09:00"))
    assert (hours.little, hours.left) == (True, 180)
    assert hours.words == (
        "quiet hours in US until 2026-11-20T20:00Z (anywhere in US, which leaves 3 h a day; give timezone=)"
    )
    assert not quiet.hours((), US, "promotional", at=at("2026-11-20T09:00")).little


@pytest.mark.parametrize("number", [pytest.param(WORLD, id="of no country"), pytest.param(AMERICA, id="too far apart")])
def test_where_nobody_can_tell_the_hour_the_caller_must(number: str) -> None:
    """Guessing would wake somebody."""
    rules = quiet.parse(["16:00-12:00"])
    with pytest.raises(InvalidRequest, match="timezone='Europe/London'") as refused:
        quiet.hours(rules, number, "promotional", at=at("2026-11-20T09:00"))
    assert number not in str(refused.value)
    assert quiet.hours(rules, number, "promotional", at=at("2026-11-20T13:00"), timezone="Europe/Oslo").until is None


# -- enqueued at night -------------------------------------------------------------------------------------------------

NIGHT, MORNING = at("2026-11-20T23:00"), at("2026-11-21T09:00")


@pytest.fixture
def shop(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    clock.ms = NIGHT
    one = Shop(clock)
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    monkeypatch.setattr("dispatcher.drafts.time", clock)
    one.serve("textgoto", *ALL)
    return one


@pytest.fixture
def dispatcher(shop: Shop) -> Dispatcher:
    return shop.dispatcher


def waits(job: Any) -> tuple[str, str, str]:
    """Its state, what it waits for, until when."""
    until = job.waiting and job.waiting.until
    return job.state, job.waiting.reason if job.waiting else "", f"{until:%m-%d %H:%M}" if until else ""


def test_a_promotion_waits_until_morning_and_a_code_goes(shop: Shop, dispatcher: Dispatcher) -> None:
    promotion = dispatcher.send(NUMBER, TEXT, category="promotional")
    assert waits(promotion) == waits(dispatcher.get(promotion.id)) == ("queued", "quiet_hours", "11-21 09:00")
    assert promotion.history == dispatcher.get(promotion.id).history
    assert promotion.history[0].detail == "created; quiet hours in GB until 2026-11-21T09:00Z (Europe/London)"
    others = [dispatcher.verify(NUMBER), dispatcher.send(NUMBER, TEXT), dispatcher.send(NUMBER, TEXT, category="otp")]
    assert {one.waiting.reason for one in others if one.waiting} == {"worker"}
    assert [id_ for _, ids in shop.published for id_ in ids] == [one.id for one in others]
    assert shop.bench.due() == []
    shop.clock.ms = MORNING
    assert shop.bench.due() == [promotion.id]
    assert waits(dispatcher.get(promotion.id)) == ("queued", "worker", "")


@pytest.mark.parametrize(
    ("terms", "ends"),
    [
        pytest.param({"valid_for": 600}, ("expired", "", ""), id="useless in ten minutes: at once"),
        pytest.param({"valid_for": 36000}, ("expired", "", ""), id="useless just when it could go"),
        pytest.param({"valid_for": 36001}, ("queued", "quiet_hours", "11-21 09:00"), id="good until then"),
        pytest.param(
            {"send_at": MORNING / 1000 + 3600, "valid_for": 600}, ("queued", "time", "11-21 10:00"), id="for later"
        ),
        pytest.param(
            {"send_at": MORNING / 1000 + 12 * 3600}, ("queued", "quiet_hours", "11-22 09:00"), id="for the next night"
        ),
        pytest.param(
            {"send_at": MORNING / 1000 + 12 * 3600, "valid_for": 3600}, ("expired", "", ""), id="and for that only"
        ),
        pytest.param({"timezone": "Asia/Tokyo"}, ("queued", "quiet_hours", "11-21 00:00"), id="in Tokyo: until 9:00"),
        pytest.param({"timezone": "America/Lima"}, ("queued", "worker", ""), id="in Lima, where it is afternoon"),
    ],
)
def test_its_times_are_looked_at_together(dispatcher: Dispatcher, terms: dict[str, Any], ends: tuple[str, ...]) -> None:
    job = dispatcher.send(NUMBER, TEXT, category="promotional", **terms)
    assert waits(job) == waits(dispatcher.get(job.id)) == ends


def test_what_is_certain_to_come_too_late_says_why(shop: Shop, dispatcher: Dispatcher) -> None:
    batch = dispatcher.send_many(
        [Message(NUMBER, TEXT), Message(US, TEXT)], category="promotional", valid_for=600, batch_id="b"
    )
    late, early = batch.jobs
    assert (late.state, early.state) == ("expired", "queued")
    assert late.failure is not None
    assert (late.failure.kind, late.failure.code) == ("expired", "quiet_hours")
    assert late.failure.message == (
        "quiet hours in GB until 2026-11-21T09:00Z (Europe/London); its time passes before that"
    )
    assert shop.bench.counts("b") == {"expired": 1, "queued": 1}
    assert shop.published == [("textgoto", [early.id])]


def test_a_message_may_say_for_itself_where_the_person_is(dispatcher: Dispatcher) -> None:
    messages = [Message(NUMBER, TEXT), Message(OTHER, TEXT, timezone="America/Lima")]
    assert [waits(job)[1] for job in dispatcher.send_many(messages, category="promotional").jobs] == [
        "quiet_hours", "worker",
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"messages\[0\].timezone 'Mars/Base': is no time zone"):
        dispatcher.send_many([Message(NUMBER, TEXT, timezone="Mars/Base")], category="promotional")


def test_a_call_made_again_finds_the_same(shop: Shop, dispatcher: Dispatcher) -> None:
    """Its answer was lost; the job waits, or has expired, all the same."""
    for valid_for, state in ((None, "queued"), (600, "expired")):
        terms: dict[str, Any] = {"category": "promotional", "valid_for": valid_for, "idempotency_key": f"k{valid_for}"}
        job, again = (dispatcher.send(NUMBER, TEXT, **terms) for _ in range(2))
        assert (again.id, again.state, len(again.history)) == (job.id, state, len(job.history))


def test_the_dispatcher_tells_when_a_text_may_go(shop: Shop, dispatcher: Dispatcher) -> None:
    hours = dispatcher.quiet_hours(NUMBER, at=NIGHT / 1000)
    assert hours.to_dict() == {
        "country": "GB", "zones": ["Europe/London"], "rule": "20:00-09:00",
        "basis": "custom: no rule of that country is known here", "allowed_at": "2026-11-21T09:00:00Z",
        "minutes_left": 660,
    }  # fmt: skip
    assert dispatcher.quiet_hours(NUMBER, category="transactional", at=NIGHT / 1000).allowed_at is None


# -- in the worker -----------------------------------------------------------------------------------------------------


def work(category: Category, number: str = NUMBER, **more: Any) -> Work:
    return Work(
        id="0001", provider="textgoto", kind=Kind.SEND, operation="send", request=Send(to=number, text=TEXT),
        category=category, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("job", "now", "delay"),
    [
        pytest.param(work(Category.PROMOTIONAL), NIGHT, 36000.0, id="a promotion at night"),
        pytest.param(work(Category.PROMOTIONAL), MORNING, None, id="in the morning"),
        pytest.param(
            work(Category.PROMOTIONAL), at("2026-11-20T19:59:56"), 46804.0, id="just before: it would be late"
        ),
        pytest.param(
            work(Category.PROMOTIONAL), at("2026-11-21T08:59:57"), 3.0, id="just before their end: it would be early"
        ),
        pytest.param(work(Category.TRANSACTIONAL), NIGHT, None, id="what the person waits for"),
        pytest.param(work(Category.OTP), NIGHT, None, id="a code"),
        pytest.param(work(Category.PROMOTIONAL, timezone="America/Lima"), NIGHT, None, id="in Lima"),
        pytest.param(work(Category.PROMOTIONAL, WORLD), NIGHT, 3600.0, id="nobody can tell: looked at again"),
    ],
)
def test_a_worker_looks_at_the_hour_again(job: Work, now: int, delay: float | None) -> None:
    held = policy.quiet((), job, now)
    assert (held.delay if held else None) == delay


def test_one_that_waited_for_its_turn_until_night_waits_for_the_morning(shop: Shop, dispatcher: Dispatcher) -> None:
    """It was enqueued by day, and the limits, or a worker that was away, held it up."""
    shop.clock.ms = at("2026-11-20T19:50")
    job = dispatcher.send(NUMBER, TEXT, category="promotional")
    useless = dispatcher.send(OTHER, TEXT, category="promotional", valid_for=3600)
    assert {one.waiting.reason for one in (job, useless) if one.waiting} == {"worker"}
    shop.clock.ms = at("2026-11-20T20:01")
    wire = worked(shop, [job.id, useless.id])
    assert wire == []
    assert waits(dispatcher.get(job.id)) == ("queued", "quiet_hours", "11-21 09:00")
    assert dispatcher.get(job.id).attempts == 0
    late = dispatcher.get(useless.id)
    assert (late.state, late.failure and late.failure.code) == ("expired", "quiet_hours")
    shop.clock.ms = MORNING
    assert shop.bench.due() == [job.id]
    assert worked(shop, [job.id]) == [job.id]
    assert dispatcher.get(job.id).state == "sent"


def test_night_falls_while_jobs_wait_for_a_connection(shop: Shop, dispatcher: Dispatcher) -> None:
    """A worker holds hundreds where a provider takes two requests at a time: what comes too late waits for morning."""
    shop.clock.ms = at("2026-11-20T19:58")
    british = [dispatcher.send(one, TEXT, category="promotional").id for one in map(phone, range(1, 6))]
    lima = dispatcher.send(OTHER, TEXT, category="promotional", timezone="America/Lima").id
    code = dispatcher.send(NUMBER, TEXT, category="otp").id
    wire, adapter, given_back = test_execute.Wire(), test_execute.Plain(), list[str]()
    adapter.at_once = 1  # type: ignore[misc]  # of this account only

    def slow() -> Response:
        shop.clock.advance(120)
        return test_execute.OK

    async def publish(queue: str, ids: list[str]) -> None:
        del queue
        given_back.extend(ids)

    wire.answers = [slow, slow, slow, slow]
    ids = [*british, lima, code]
    worked(shop, ids, wire=wire, adapter=adapter, publish=publish)
    sent = [id_ for body in wire.sent for id_ in body.split()]
    assert sent == [*british[:2], code], "two in the request that went at 19:58, and none at 20:00"
    assert [waits(dispatcher.get(one)) for one in british[2:]] == [("queued", "quiet_hours", "11-21 09:00")] * 3
    # It shared a request with one that waits now: it is taken anew, at once.
    assert given_back == [lima]
    assert worked(shop, given_back) == [lima]


def test_its_tries_count_from_the_morning(shop: Shop, dispatcher: Dispatcher) -> None:
    """A night is longer than a transactional text is tried for."""
    dispatcher.settings.__dict__["quiet"] = quiet.parse(["category=transactional 20:00-09:00"])
    job = dispatcher.send(NUMBER, TEXT)
    shop.clock.ms = MORNING
    shop.bench.due()
    assert begun(shop, job.id) == MORNING
    shop.clock.ms = at("2026-11-21T20:01")
    worked(shop, [job.id])
    assert waits(dispatcher.get(job.id)) == ("queued", "quiet_hours", "11-22 09:00")
    shop.clock.ms = at("2026-11-22T09:00")
    shop.bench.due()
    assert begun(shop, job.id) == at("2026-11-22T09:00")


def begun(shop: Shop, id_: str) -> int:
    """Since when a job is tried, as a worker that takes it learns; it gives it back."""
    token = "t"
    (raw,) = shop.bench.take(id_, token=token).records
    shop.bench.run(shop.bench.calls.release(token, [id_]))
    return records.work(raw, shop.bench.settings.sealer()).begins_at


def worked(
    shop: Shop,
    ids: list[str],
    *,
    wire: test_execute.Wire | None = None,
    adapter: test_execute.Plain | None = None,
    publish: Any = None,
) -> list[str]:
    """Let a worker execute jobs; those that it sent."""
    adapter, wire = adapter or test_execute.Plain(), wire or test_execute.Wire()
    execution = Execution(
        shop.bench.settings,
        {"textgoto": adapter},
        AsyncOnSync(shop.bench.store),
        test_execute.Gate(),
        wire,
        publish=publish or _nobody,
        clock=lambda: shop.clock.ms / 1000,
    )
    asyncio.run(execution.execute(ids, "textgoto"))
    return [id_ for body in wire.sent for id_ in body.split()]


async def _nobody(queue: str, ids: list[str]) -> None:
    del queue, ids


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_when_a_text_may_go(run: Run) -> None:
    ended = run("quiet-hours", GB, "--at", "2026-11-20T23:00:00+00:00")
    assert ended.out.splitlines()[:2] == [
        "a text to GB may go from 2026-11-21T09:00:00Z on", "quiet is 20:00-09:00 (Europe/London)",
    ]  # fmt: skip
    assert "may go now" in run("quiet-hours", GB, "--at", "2026-11-20T23:00:00+00:00", "--timezone", "America/Lima").out
    (document,) = run("quiet-hours", GB, "--at", "2026-11-20T23:00:00+00:00", "--json").documents
    assert document["allowed_at"] == "2026-11-21T09:00:00Z"
    assert "is no time zone" in one_paragraph(run("quiet-hours", GB, "--timezone", "Mars/Base"))


def test_the_command_lists_what_is_quiet_where_and_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_QUIET_HOURS", f"country=US {LONG}")
    assert run("quiet-hours", AMERICA).out.splitlines()[-1] == (
        "that the time zone is not known leaves 3 h a day; say it: --timezone"
    )
    first, *table = run("quiet-hours").out.splitlines()
    assert first.split() == ["*", "country=US", LONG, "DISPATCHER_QUIET_HOURS"]
    assert len(table) == len(list(quiet.table()))
    assert {one["country"] for one in run("quiet-hours", "--json").documents} >= {None, "US", "FR"}
