"""Groups of consumers on a Redis in memory: who gets which event when, what is never lost, and what is told of it."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from dispatcher import CursorExpired, Delivery, Dispatcher, Event, EventGroup, InvalidRequest, NotFound
from dispatcher.calls import Call, script
from dispatcher.cli.options import ago_or_moment
from dispatcher.doctor import late_groups
from dispatcher.events import parts
from tests.unit import test_client
from tests.unit.support import NUMBER, OTHER, TEXT
from tests.unit.test_client import Shop

shop = test_client.shop

#: Seconds after which a consumer here counts as silent, and some more than that.
AFTER = 60
SILENT = AFTER + 1

ROOT = Path(__file__).parents[2]
DAY = 86400

#: Readers whose process died: nobody closes them, and what they held in memory stays as it was.
DEAD: list[object] = []


def tell(shop: Shop, count: int, type_: str = "job.sent") -> list[str]:
    """Have so many events; their cursors."""
    return [shop.bench.redis.xadd("d:e", {"t": type_, "i": f"job{n}", "n": 1}).decode() for n in range(count)]


def read(shop: Shop, consumer: str | None = None, group: str = "billing", **more: Any) -> Iterator[Event]:
    """Read as a consumer of a group that begins with all that is kept."""
    return shop.dispatcher.events(**{"after": "0"} | more, timeout=0, group=group, consumer=consumer)


def taken(events: Iterator[Event], count: int) -> list[str]:
    """The cursors of the next so many; the last of them stays in hand."""
    return [next(events).cursor for _ in range(count)]


def all_of(events: Iterator[Event]) -> list[str]:
    return [one.cursor for one in events]


def in_order(cursors: Iterable[str]) -> list[str]:
    return sorted(cursors, key=parts)


def rewritten(shop: Shop) -> None:
    """Write the stream anew, as forgetting a person does."""
    while not shop.bench.run(Call(script("forget_events"), ["copy", 100], int)):
        pass


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers that say at once what they are done with, as those do who take their time."""
    monkeypatch.setattr("dispatcher.groups._TOGETHER", 0.0)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers that are so quick that they say it of a whole share."""
    monkeypatch.setattr("dispatcher.groups._TOGETHER", 1e9)


# -- one after the other -----------------------------------------------------------------------------------------------


def test_a_group_gets_every_event_once_in_order(shop: Shop) -> None:
    cursors = tell(shop, 25)
    assert all_of(read(shop)) == cursors
    assert all_of(read(shop)) == [], "done with"
    more = tell(shop, 3)
    assert all_of(read(shop, after=None)) == more, "it goes on where it was"


def test_groups_know_nothing_of_each_other(shop: Shop) -> None:
    cursors = tell(shop, 5)
    assert all_of(read(shop)) == all_of(read(shop, group="audit")) == cursors


def test_consumers_of_a_group_share(shop: Shop) -> None:
    cursors = tell(shop, 40)
    ann, bob = read(shop, "ann"), read(shop, "bob")
    both = [taken(ann, 10), taken(bob, 10), taken(ann, 10), taken(bob, 10)]
    assert in_order(chain(*both)) == cursors


def test_a_new_group_begins_when_it_is_asked_for(shop: Shop) -> None:
    """Not when its first event is: what comes in between is among its news."""
    tell(shop, 3)
    news = shop.dispatcher.events(group="billing", timeout=0)
    cursors = tell(shop, 2)
    assert all_of(news) == cursors


def test_a_new_group_may_begin_in_the_past(shop: Shop) -> None:
    tell(shop, 2)
    shop.clock.advance(60)
    since = datetime.fromtimestamp(shop.clock.ms / 1000, UTC)
    cursors = tell(shop, 2)
    assert all_of(shop.dispatcher.events(group="billing", since=since, timeout=0)) == cursors
    assert all_of(shop.dispatcher.events(group="audit", after=cursors[0], timeout=0)) == cursors[1:]


# -- at least once -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_what_is_in_hand_comes_again(shop: Shop) -> None:
    """It is done with when the next one is asked for: not before."""
    cursors = tell(shop, 3)
    ann = read(shop, "ann")
    assert taken(ann, 2) == cursors[:2]
    again = read(shop, "ann")
    event = next(again)
    assert isinstance(event, Delivery)
    assert (event.cursor, event.deliveries) == (cursors[1], 2)


def test_who_comes_back_gets_their_own_before_news(shop: Shop) -> None:
    cursors = tell(shop, 15)
    DEAD.append(ann := read(shop, "ann"))
    assert taken(ann, 1) == cursors[:1], "and nine more were handed to it"
    assert taken(read(shop, "bob"), 5) == cursors[10:]
    assert taken(read(shop, "ann"), 10) == cursors[:10]


def test_what_a_silent_consumer_had_goes_to_another(shop: Shop) -> None:
    cursors = tell(shop, 3)
    ann = read(shop, "ann")
    taken(ann, 1)
    assert all_of(read(shop, "bob")) == [], "it may still be at it"
    shop.clock.advance(SILENT)
    assert all_of(read(shop, "bob")) == cursors


def test_who_closes_gives_back_at_once(shop: Shop) -> None:
    cursors = tell(shop, 3)
    ann = shop.dispatcher.events("0", group="billing", timeout=0)
    taken(ann, 1)
    ann.close()
    assert all_of(read(shop, "bob")) == cursors


def test_what_was_taken_over_meanwhile_is_not_yielded_twice(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that hung and goes on drops what is another's by now."""
    now = [0.0]
    monkeypatch.setattr("dispatcher.groups.time", type("Now", (), {"monotonic": lambda: now[0]}))
    cursors = tell(shop, 4)
    ann, bob = read(shop, "ann"), read(shop, "bob")
    assert taken(ann, 1) == cursors[:1]
    shop.clock.advance(SILENT)
    now[0] += SILENT
    assert taken(bob, 3) == cursors[:3]
    assert taken(ann, 1) == cursors[3:], "the only one that bob did not take over"
    assert all_of(bob) == []


def test_who_is_slow_and_goes_on_keeps_what_it_has(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("dispatcher.groups.time", type("Now", (), {"monotonic": lambda: now[0]}))
    cursors = tell(shop, 10)
    ann, got = read(shop, "ann"), list[str]()
    for _ in cursors:
        got += taken(ann, 1)
        shop.clock.advance(AFTER - 1)
        now[0] += AFTER - 1
        assert all_of(read(shop, "bob")) == []
    assert got == cursors


def test_an_event_may_be_done_with_before_the_next_is_asked_for(shop: Shop) -> None:
    cursors = tell(shop, 3)
    ann = read(shop, "ann")
    taken(ann, 1)
    assert shop.dispatcher.acknowledge("billing", cursors[0]) == 1
    assert shop.dispatcher.acknowledge("billing", [cursors[0]]) == 0
    ann.close()  # type: ignore[attr-defined]  # a generator
    assert all_of(read(shop, "bob")) == cursors[1:]


@pytest.mark.usefixtures("together")
def test_who_is_quick_says_of_a_share_together_that_it_is_done_with(shop: Shop) -> None:
    """With the call that asks for the next share; who dies before has all of it again, and nothing else."""
    cursors = tell(shop, 30)
    DEAD.append(ann := read(shop, "ann"))
    assert taken(ann, 15) == cursors[:15]
    assert shop.dispatcher.event_groups()[0].pending == 10
    again = read(shop, "ann")
    assert taken(again, 10) == cursors[10:20]
    assert in_order(all_of(again)) == cursors[20:]
    assert shop.dispatcher.event_groups()[0].pending == 0


@pytest.mark.usefixtures("together")
def test_who_is_quick_and_closes_says_what_it_is_done_with(shop: Shop) -> None:
    cursors = tell(shop, 10)
    ann: Any = read(shop, "ann")
    taken(ann, 4)
    ann.close()
    assert all_of(read(shop, "bob")) == cursors[3:], "the fourth is in hand"


def test_who_is_slow_says_so_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("dispatcher.groups.time", type("Now", (), {"monotonic": lambda: now[0]}))
    tell(shop, 10)
    ann, pending = read(shop, "ann"), []
    for _ in range(6):
        taken(ann, 1)
        pending.append(shop.dispatcher.event_groups()[0].pending)
        now[0] += 0.02
    assert pending == [10, 10, 10, 7, 7, 7], "what is kept back is fifty milliseconds old at most"


@pytest.mark.usefixtures("together")
def test_what_was_done_with_and_trimmed_away_since_is_not_missed(shop: Shop) -> None:
    tell(shop, 10)
    ann = read(shop, "ann")
    taken(ann, 10)
    shop.clock.advance(7 * 86400 + 1)
    shop.bench.sweep()
    news = tell(shop, 1)
    assert taken(ann, 1) == news


# -- poison ------------------------------------------------------------------------------------------------------------


def test_an_event_that_kills_its_consumers_stops_no_other(shop: Shop) -> None:
    """It is tried again by itself, less and less often; how often is told. Its neighbours count for nothing."""
    poison, *others = tell(shop, 30)
    done, killed = list[str](), 0
    for _ in range(10):
        # The process that reads dies of it, and comes back.
        DEAD.append(ann := read(shop, "ann"))
        for event in ann:
            assert isinstance(event, Delivery)
            if event.cursor == poison:
                killed += 1
                assert event.deliveries == killed
                break
            done.append(event.cursor)
        shop.clock.advance(1)
    assert done == others
    assert killed == 5
    (group,) = shop.dispatcher.event_groups()
    assert (group.unread, group.pending, group.stuck) == (0, 1, 1)
    shop.clock.advance(SILENT)
    assert [one.cursor for one in read(shop, "bob")] == [poison], "it may have been mended"


def test_one_that_was_handed_out_again_and_again_is_given_up_with_its_retention(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    (poison,) = tell(shop, 1)
    for _ in range(5):
        taken(read(shop, "ann"), 1)
        shop.clock.advance(SILENT)
    shop.clock.advance(8 * 86400)
    shop.bench.sweep()
    news = tell(shop, 1)
    with caplog.at_level(logging.WARNING):
        assert all_of(read(shop, "bob")) == news
    assert poison in caplog.text


# -- what was trimmed away ---------------------------------------------------------------------------------------------


def unread(shop: Shop) -> None:
    all_of(read(shop))
    tell(shop, 2)


def in_hand(shop: Shop) -> None:
    taken(read(shop, "ann"), 2)


@pytest.mark.parametrize("left", [unread, in_hand])
def test_a_group_that_missed_events_says_so_until_it_is_reset(shop: Shop, left: Callable[[Shop], None]) -> None:
    tell(shop, 3)
    left(shop)
    shop.clock.advance(7 * 86400 + 1)
    news = tell(shop, 2)
    shop.bench.sweep()
    for _ in range(2):
        with pytest.raises(CursorExpired, match="reset_event_group"):
            read(shop, "bob")
    (group,) = shop.dispatcher.event_groups()
    assert group.expired
    assert "dispatcher events reset billing" in group.words
    shop.dispatcher.reset_event_group("billing", after="0")
    assert all_of(read(shop, "bob")) == news


def test_a_consumer_that_is_reading_is_told_too(shop: Shop) -> None:
    tell(shop, 11)
    ann = read(shop, "ann")
    taken(ann, 10)
    shop.clock.advance(7 * 86400 + 1)
    shop.bench.sweep()
    with pytest.raises(CursorExpired):
        next(ann)


def test_a_cursor_that_is_followed_is_trimmed_away_loudly(shop: Shop) -> None:
    """Also while somebody reads: one that is slower than the stream is long."""
    tell(shop, 300)
    slow = shop.dispatcher.events("0", timeout=0)
    taken(slow, 200)
    shop.clock.advance(7 * 86400 + 1)
    tell(shop, 1)
    shop.bench.sweep()
    with pytest.raises(CursorExpired):
        next(slow)


def test_a_new_group_cannot_begin_with_what_is_gone(shop: Shop) -> None:
    (first, *_) = tell(shop, 3)
    began = shop.clock.ms / 1000
    shop.clock.advance(7 * 86400 + 1)
    shop.bench.sweep()
    for begin in ({"after": first}, {"since": began, "after": None}):
        with pytest.raises(CursorExpired):
            read(shop, **begin)
    assert shop.dispatcher.event_groups() == []
    assert all_of(read(shop)) == [], "all that is kept"


def test_news_of_a_stream_that_was_deleted_are_no_gap(shop: Shop) -> None:
    tell(shop, 3)
    shop.clock.advance(7 * 86400 + 1)
    shop.bench.sweep()
    shop.bench.redis.delete("d:e")
    news = shop.dispatcher.events(group="billing", timeout=0)
    cursors = tell(shop, 1)
    assert all_of(news) == cursors


# -- where a person is forgotten ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_groups_and_what_is_in_hand_survive_that_the_stream_is_written_anew(shop: Shop) -> None:
    cursors = tell(shop, 30)
    ann, bob = read(shop, "ann"), read(shop, "bob")
    taken(ann, 2)
    taken(bob, 1)
    taken(read(shop, "cy", group="audit"), 1)
    before = shop.dispatcher.event_groups()
    shop.bench.redis.xdel("d:e", cursors[2], cursors[25])
    rewritten(shop)
    left = [one for one in cursors if one not in {cursors[0], cursors[2], cursors[25]}]
    after = shop.dispatcher.event_groups()
    assert [(one.name, one.cursor) for one in after] == [(one.name, one.cursor) for one in before]
    assert [one.pending for one in after] == [9, 18], "but for what was erased, and with it was in hand"
    assert taken(bob, 1) == cursors[11:12], "its consumers notice nothing"
    shop.clock.advance(SILENT)
    assert in_order(all_of(read(shop, "dee"))) == [one for one in left if one != cursors[10]]


def test_how_often_it_was_handed_out_is_carried_over(shop: Shop) -> None:
    tell(shop, 2)
    for _ in range(3):
        taken(read(shop, "ann"), 1)
    rewritten(shop)
    event = next(read(shop, "ann"))
    assert isinstance(event, Delivery)
    assert event.deliveries == 4


def test_an_event_that_was_erased_while_it_was_in_hand_is_nobodys(shop: Shop) -> None:
    cursors = tell(shop, 2)
    taken(read(shop, "ann"), 1)
    shop.bench.redis.xdel("d:e", *cursors)
    assert all_of(read(shop, "ann")) == []
    assert shop.dispatcher.event_groups()[0].pending == 0


# -- filters -----------------------------------------------------------------------------------------------------------


def ended(shop: Shop, number: str = NUMBER, **more: Any) -> str:
    job = shop.dispatcher.send(number, TEXT, **more)
    shop.sent(job.id)
    return job.id


@pytest.mark.parametrize("group", [None, "billing"])
class TestFilters:
    def read(self, shop: Shop, group: str | None, **wanted: Any) -> list[Event]:
        return list(shop.dispatcher.events("0", timeout=0, group=group, **wanted))

    @pytest.mark.parametrize(
        ("types", "found"),
        [
            pytest.param("job.*", ["job.sent", "job.cancelled"], id="a family"),
            pytest.param(["job.sent", "optout.added"], ["job.sent", "optout.added"], id="some"),
            pytest.param("*.added", ["optout.added"], id="an end"),
            pytest.param("*", ["job.sent", "job.cancelled", "optout.added"], id="all"),
            pytest.param("verification.*", [], id="none of them"),
        ],
    )
    def test_by_type(self, shop: Shop, group: str | None, types: Any, found: list[str]) -> None:
        ended(shop)
        shop.dispatcher.cancel(shop.dispatcher.send(OTHER, TEXT).id)
        shop.dispatcher.opt_out(OTHER)
        assert [one.type for one in self.read(shop, group, types=types)] == found
        assert group is None or shop.dispatcher.event_groups()[0].pending == 0, "the others are done with"

    def test_by_tenant(self, shop: Shop, group: str | None) -> None:
        """A job's, its batch's, and what else tells one."""
        mine = ended(shop, tenant="a")
        ended(shop, tenant="b")
        ended(shop)
        for tenant in ("a", "b"):
            batch = shop.dispatcher.send_many([test_client.TWO[0]], tenant=tenant, batch_id=f"batch-{tenant}")
            shop.sent(batch.jobs.ids[0])
            shop.dispatcher.opt_out(OTHER, tenant=tenant)
        told = self.read(shop, group, tenant="a")
        assert [one.type for one in told] == ["job.sent", "job.sent", "batch.settled", "optout.added"]
        assert (told[0].data["id"], told[2].data["id"]) == (mine, "batch-a")

    def test_by_batch(self, shop: Shop, group: str | None) -> None:
        for name in ("spring", "autumn"):
            shop.sent(shop.dispatcher.send_many([test_client.TWO[0]], batch_id=name).jobs.ids[0])
        told = self.read(shop, group, batch="spring")
        assert [(one.type, one.data.get("batch_id", one.data["id"])) for one in told] == [
            ("job.sent", "spring"), ("batch.settled", "spring"),
        ]  # fmt: skip

    def test_one_among_many(self, shop: Shop, group: str | None) -> None:
        """Read though some pages before it have none that is wanted."""
        tell(shop, 2500)
        tell(shop, 1, "batch.settled")
        shop.bench.redis.xadd("d:e", {"t": "batch.settled", "i": "spring", "b": "", "c": "0"})
        tell(shop, 10)
        shop.bench.redis.xdel("d:e", shop.bench.redis.xrange("d:e")[2500][0])
        assert [one.data["id"] for one in self.read(shop, group, types="batch.*")] == ["spring"]


def test_reading_may_begin_at_a_moment(shop: Shop) -> None:
    tell(shop, 2)
    shop.clock.advance(60)
    seconds = shop.clock.ms / 1000
    cursors = tell(shop, 2)
    for since in (seconds, datetime.fromtimestamp(seconds, UTC)):
        assert all_of(shop.dispatcher.events(since=since, timeout=0)) == cursors
    assert len(all_of(shop.dispatcher.events(since=0, timeout=0))) == 4


# -- looking after groups ----------------------------------------------------------------------------------------------


def test_a_group_tells_how_far_it_is(shop: Shop) -> None:
    began = shop.clock.ms / 1000
    tell(shop, 12)
    taken(read(shop, "ann"), 3)
    (group,) = shop.dispatcher.event_groups()
    assert (group.name, group.unread, group.pending, group.consumers) == ("billing", 2, 8, 1)
    assert group.waiting_since == datetime.fromtimestamp(began, UTC)
    assert (group.stuck, group.expired) == (0, False)
    assert group.to_dict()["cursor"] == group.cursor


def test_a_group_goes_on_where_it_is_told_to(shop: Shop) -> None:
    cursors = tell(shop, 5)
    all_of(read(shop))
    assert shop.dispatcher.reset_event_group("billing", after=cursors[2]) == cursors[2]
    assert all_of(read(shop)) == cursors[3:]
    shop.dispatcher.reset_event_group("billing", since=0)
    assert all_of(read(shop)) == cursors
    shop.dispatcher.reset_event_group("billing", after="0")
    shop.dispatcher.reset_event_group("billing")
    assert all_of(read(shop)) == [], "news only"


def test_a_group_that_is_deleted_is_gone(shop: Shop) -> None:
    tell(shop, 3)
    ann = read(shop, "ann")
    taken(ann, 3)
    assert [shop.dispatcher.delete_event_group("billing") for _ in range(2)] == [True, False]
    assert shop.dispatcher.event_groups() == []
    with pytest.raises(NotFound, match="billing"):
        next(ann)
    with pytest.raises(NotFound, match="billing"):
        shop.dispatcher.reset_event_group("billing")


def test_where_nothing_ever_happened_there_are_no_groups(shop: Shop) -> None:
    assert shop.dispatcher.event_groups() == []
    assert not shop.dispatcher.delete_event_group("billing")
    assert shop.dispatcher.acknowledge("billing", "1-0") == 0


@pytest.mark.parametrize(
    ("first", "other", "words"),
    [
        pytest.param({}, {"types": "job.*"}, r"read for all events, and cannot be read for types job\.\*", id="types"),
        pytest.param(
            {"tenant": "a"}, {"tenant": "b"}, "read for tenant a, and cannot be read for tenant b", id="tenant"
        ),
        pytest.param(
            {"types": ["job.*", "batch.*"]},
            {"types": "job.*", "batch": "spring"},
            r"read for types batch\.\*, job\.\*, and cannot be read for types job\.\* and batch spring",
            id="batch",
        ),
    ],
)
def test_a_consumer_that_asks_for_something_else_than_its_group_is_refused(
    shop: Shop, first: dict[str, Any], other: dict[str, Any], words: str
) -> None:
    """What one leaves out would be done with, and none of the others would get it."""
    tell(shop, 3)
    read(shop, "ann", **first)
    with pytest.raises(InvalidRequest, match=f"group 'billing': is {words} as well.*dispatcher events reset billing"):
        read(shop, "bob", **other)
    read(shop, "bob", group="audit", **other)


def test_the_moment_that_a_group_waits_since_may_be_typed_as_it_is_shown(shop: Shop) -> None:
    """So that one that begins anew there misses nothing."""
    tell(shop, 1)
    read(shop, after="0")
    (group,) = shop.dispatcher.event_groups()
    _, _, shown = group.words.partition("waiting since ")
    assert ago_or_moment(shown) == group.waiting_since


def test_the_same_filters_in_another_order_are_the_same(shop: Shop) -> None:
    told = tell(shop, 3)
    ann = read(shop, "ann", types=["job.*", "batch.settled"])
    bob = read(shop, "bob", types=["batch.settled", "job.*", "job.*"])
    assert all_of(chain(ann, bob)) == told


@pytest.mark.parametrize("anew", ["reset_event_group", "delete_event_group"])
def test_a_group_that_begins_anew_may_ask_for_something_else(shop: Shop, anew: str) -> None:
    """And those who still read it as before are refused, rather than lose what they leave out."""
    told = tell(shop, 12)
    ann = read(shop, "ann", types="job.*")
    taken(ann, 10)
    getattr(shop.dispatcher, anew)("billing")
    assert all_of(read(shop, "bob", after="0" if anew.startswith("delete") else None)) == (
        told if anew.startswith("delete") else []
    )
    with pytest.raises(InvalidRequest, match="is read for all events"):
        all_of(ann)


def test_a_group_of_an_earlier_release_takes_the_filters_of_the_first_that_reads_it(shop: Shop) -> None:
    told = tell(shop, 3)
    read(shop, "ann")
    shop.bench.redis.delete("d:eg")
    assert all_of(read(shop, "bob", types="job.*")) == told
    with pytest.raises(InvalidRequest, match="read for types"):
        read(shop, "ann")


def test_the_document_of_a_group_tells_its_schema(shop: Shop) -> None:
    """As those of jobs, batches, events and endpoints do."""
    all_of(read(shop))
    (group,) = shop.dispatcher.event_groups()
    assert group.to_dict()["schema"] == 1


def test_consumers_that_are_gone_are_forgotten(shop: Shop) -> None:
    tell(shop, 3)
    for _ in range(5):
        all_of(read(shop))
    shop.clock.advance(2 * 86400)
    all_of(read(shop))
    assert shop.dispatcher.event_groups()[0].consumers == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        pytest.param({"group": ""}, "group", id="no name"),
        pytest.param({"group": "a b"}, "group", id="a name with a space"),
        pytest.param({"consumer": "ann"}, "consumer", id="a consumer without a group"),
        pytest.param({"group": "a", "consumer": "x\n"}, "consumer", id="a consumer of two lines"),
        pytest.param({"group": "a", "take_over": 0}, "take_over", id="silent at once"),
        pytest.param({"group": "a", "take_over": "1"}, "take_over", id="text for seconds"),
        pytest.param({"types": []}, "types", id="no types at all"),
        pytest.param({"types": "jobs.*"}, "types", id="a family that there is not"),
        pytest.param({"types": ["job.*", 1]}, "types", id="a number for a type"),
        pytest.param({"tenant": 1}, "tenant", id="a number for a tenant"),
        pytest.param({"batch": b"x"}, "batch", id="bytes for a batch"),
        pytest.param({"since": 1, "after": "0"}, "since", id="two beginnings"),
        pytest.param({"since": "2h"}, "since", id="words for a moment"),
        pytest.param({"since": datetime(2026, 1, 1)}, "since", id="a moment without a zone"),  # noqa: DTZ001 - that is it
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_once(shop: Shop, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shop.dispatcher.events(**wrong)
    assert refused.value.field.split("[")[0] == field
    assert shop.dispatcher.event_groups() == []


@pytest.mark.parametrize(
    ("late", "told"),
    [
        pytest.param({"waiting_since": None}, [], id="nothing waits"),
        pytest.param({"waiting_since": datetime.fromtimestamp(4 * DAY, UTC)}, [], id="a day late"),
        pytest.param({"waiting_since": datetime.fromtimestamp(DAY, UTC)}, ["events.late"], id="most of a week late"),
        pytest.param({"waiting_since": None, "expired": True}, ["events.missed"], id="too late"),
    ],
)
def test_the_doctor_tells_who_reads_too_late(late: dict[str, Any], told: list[str]) -> None:
    usual: dict[str, Any] = {
        "name": "billing",
        "cursor": "0-0",
        "unread": 3,
        "consumers": 1,
        "pending": 0,
        "stuck": 0,
        "expired": False,
    }
    findings = [*late_groups([EventGroup(**usual | late)], now=5 * DAY, kept=7 * DAY)]
    assert [one.check for one in findings] == told


def test_what_the_page_about_events_shows_runs(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, **__: shop.bench.store)
    monkeypatch.setenv("DISPATCHER_REDIS_URL", shop.bench.settings.redis_url)
    ended(shop, tenant="shop-a")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "docs" / "events.md").read_text())
    names = dict[str, Any]()
    for block in blocks:
        exec(compile(block, "events.md", "exec"), names)  # noqa: S102 - it is ours
    assert len(blocks) == 4
    assert [one.name for one in shop.dispatcher.event_groups()] == ["audit", "billing"]


# -- whatever happens --------------------------------------------------------------------------------------------------


class Crew:
    """Consumers of one group that do what chance says, and what each event came to."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.readers = dict[str, Iterator[Event]]()
        self.in_hand = dict[str, str]()
        self.done = set[str]()

    def go_on(self, name: str) -> bool:
        """Be done with what is in hand, and ask for the next; whether there is one."""
        reader = self.readers.setdefault(name, read(self.shop, name, after=None, take_over=AFTER))
        held, event = self.in_hand.pop(name, None), next(reader, None)
        if held is not None:
            self.done.add(held)
        if event is None:
            del self.readers[name]
            return False
        self.in_hand[name] = event.cursor
        return True

    def die(self, name: str) -> None:
        DEAD.append(self.readers.pop(name, None))
        self.in_hand.pop(name, None)

    def close(self, name: str) -> None:
        self.in_hand.pop(name, None)
        closing: Any = self.readers.pop(name, None)
        if closing is not None:
            closing.close()


@pytest.mark.parametrize("said", ["at_once", "together"])
@pytest.mark.parametrize("seed", range(4))
def test_consumers_that_crash_at_any_moment_lose_nothing(
    shop: Shop, seed: int, said: str, request: pytest.FixtureRequest
) -> None:
    """Each event is done with, whoever dies when, though people are forgotten and others give up in between."""
    request.getfixturevalue(said)
    decide, told, crew = random.Random(seed), set[str](), Crew(shop)
    shop.dispatcher.events("0", group="billing", timeout=0)
    deeds: dict[Callable[[str], object], int] = {
        lambda _: told.update(tell(shop, decide.randrange(1, 15))): 5,
        crew.go_on: 12,
        crew.die: 2,
        crew.close: 1,
        lambda _: rewritten(shop): 1,
        lambda _: shop.clock.advance(decide.choice([1, SILENT])): 1,
    }
    for _ in range(150):
        (deed,) = decide.choices([*deeds], [*deeds.values()])
        deed(decide.choice(["ann", "bob", "cy"]))
    for name in ("ann", "bob", "cy"):
        crew.die(name)
    while (group := shop.dispatcher.event_groups()[0]).pending or group.unread:
        shop.clock.advance(3600)
        while crew.go_on("dee"):
            pass
    assert crew.done == told


def test_a_dispatcher_may_be_closed_while_it_reads(shop: Shop) -> None:
    cursors = tell(shop, 2)
    with Dispatcher(shop.bench.settings) as d:
        d._store.redis = shop.bench.redis
        assert next(iter(d.events("0", group="billing", timeout=0))).cursor == cursors[0]
