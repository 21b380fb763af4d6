"""From the stream to the endpoints: who is told of what, in which order, and what becomes of an endpoint that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from unittest import mock

import pytest

from dispatcher import Dispatcher, Message, NotFound, endpoints, notices
from dispatcher.endpoints import Health, Notice, NoticeCalls, Taken, Told
from dispatcher.events import EventStream
from dispatcher.notices import Target
from dispatcher.optouts import OptOuts, Text
from dispatcher.settings import Settings
from tests.unit import test_client
from tests.unit.support import NUMBER, OTHER, TEXT, Bench, Clock
from tests.unit.test_client import ALL, Shop
from workers.schedule import SCHEDULE, delay

shop = test_client.shop

URL: Final = "https://hooks.example.com/a?token=canary"
OTHER_URL: Final = "https://other.example.com/b"
DAY: Final = 86400


class Teller:
    """A notify worker, one step at a time."""

    def __init__(self, bench: Bench, name: str = "one") -> None:
        self.bench = bench
        self.token = name
        self.calls = NoticeCalls(bench.settings)
        self._call = 0

    def gather(self) -> list[str]:
        """Move all on; the endpoints that are due."""
        gathered = self.bench.run(self.calls.gather(publishes=True))
        due = gathered.due
        while gathered.moved:
            gathered = self.bench.run(self.calls.gather(publishes=True))
            due += gathered.due
        return due

    def take(self, endpoint: str, flying: int = 0) -> Taken:
        self._call += 1
        return self.bench.run(self.calls.take(endpoint, self.token, f"{self.token}{self._call}", flying))

    def taken(self, endpoint: str) -> list[str]:
        """What is taken, as "<job> <type>"."""
        return [f"{one.fields[b'i'].decode()} {one.fields[b't'].decode()}" for one in self.take(endpoint).notices]

    def done(self, endpoint: str, one: Notice, told: Told = Told.DELIVERED, **more: Any) -> bool:
        return self.bench.run(self.calls.done(endpoint, self.token, one.cursor, told, **more))

    def leave(self, endpoint: str) -> None:
        self.bench.run(self.calls.leave(endpoint, self.token))

    def deliver(self, endpoint: str) -> list[str]:
        """Tell all that is due now, as "<subject> <type>"; then let it go."""
        said = []
        while found := self.take(endpoint).notices:
            for one in found:
                said.append(f"{one.fields[b's'].decode()} {one.fields[b't'].decode()}")
                assert self.done(endpoint, one)
        self.leave(endpoint)
        return said

    def fail(self, endpoint: str, told: Told = Told.AGAIN, **more: Any) -> None:
        """Fail at the one notice that is due."""
        (one,) = self.take(endpoint).notices
        assert self.done(endpoint, one, told, words="500: they failed", **more)
        self.leave(endpoint)


def callback(settings: Settings, url: str = URL) -> str:
    return notices.encode(Target(url=url), settings.keyed, settings.sealer())


def endpoint_of(settings: Settings, url: str = URL) -> str:
    return callback(settings, url).partition(" ")[0]


@pytest.fixture
def teller(shop: Shop) -> Teller:
    return Teller(shop.bench)


@pytest.fixture
def endpoint(shop: Shop) -> str:
    return endpoint_of(shop.bench.settings)


def ended(shop: Shop, *states: str, **told: Any) -> str:
    """A job that went through these states."""
    id_ = shop.dispatcher.send(NUMBER, TEXT, **told).id
    if states:
        first, *later = states
        shop.bench.advance(id_, shop.bench.claim(id_), first, fields={"y": "expected"})
        for one, before in zip(later, states, strict=False):
            shop.bench.advance(id_, f"={before}", one)
    return id_


def told(shop: Shop, **given: Any) -> str:
    """A job that was sent, whose callback is to hear of it."""
    return ended(shop, "sent", **{"callback_url": URL, **given})


def events(shop: Shop, prefix: str) -> list[dict[str, Any]]:
    """What the stream has of a kind, with the type as `is`."""
    found = [one for one in shop.dispatcher.events("0", timeout=0) if one.type.startswith(prefix)]
    return [{"is": one.type, **one.data} for one in found]


# -- who is told of what -----------------------------------------------------------------------------------------------


def test_a_job_is_told_in_order_and_once(shop: Shop, teller: Teller, endpoint: str) -> None:
    id_ = ended(shop, "unknown", "sent", callback_url=URL)
    assert teller.gather() == [endpoint]
    (one,) = teller.take(endpoint).notices
    assert one.fields[b"t"] == b"job.unknown", "and the next only when that is told"
    assert teller.take(endpoint, flying=1).notices == []
    assert teller.done(endpoint, one)
    assert not teller.done(endpoint, one), "its answer was lost"
    assert teller.deliver(endpoint) == [f"{id_} job.sent"]
    assert teller.gather() == []
    assert teller.deliver(endpoint) == []


def test_jobs_are_told_beside_each_other(shop: Shop, teller: Teller, endpoint: str) -> None:
    ids = [told(shop) for _ in range(3)]
    teller.gather()
    assert {one.split()[0] for one in teller.taken(endpoint)} == {*ids}


def test_no_more_go_at_once_than_the_settings_say(clock: Clock) -> None:
    shop = Shop(clock, callback_concurrency=2)
    shop.serve("textgoto", *test_client.ALL)
    teller, endpoint = Teller(shop.bench), endpoint_of(shop.bench.settings)
    for _ in range(4):
        told(shop)
    teller.gather()
    assert len(teller.take(endpoint).notices) == 2
    assert teller.take(endpoint, flying=2).notices == []
    assert len(teller.take(endpoint, flying=1).notices) == 1


def test_nobody_else_hears_of_it(shop: Shop, teller: Teller, endpoint: str) -> None:
    ended(shop, "sent")
    ended(shop, "sent", callback_url="")
    shop.dispatcher.send(NUMBER, TEXT, callback_url=URL)
    assert teller.gather() == []
    assert shop.bench.redis.keys("d:t[nlwp]:*") == []


def test_a_job_may_have_two_endpoints_and_each_goes_its_own_way(shop: Shop, teller: Teller) -> None:
    id_ = told(shop, callback_task="billing.on_message")
    first, second = teller.gather()
    teller.fail(first, again=60)
    assert teller.deliver(second) == [f"{id_} job.sent"]
    assert teller.deliver(first) == []


def test_the_batch_is_told_when_it_settled(shop: Shop, teller: Teller, endpoint: str) -> None:
    batch = shop.dispatcher.send_many([Message(NUMBER, TEXT), Message(OTHER, TEXT)], callback_url=URL, batch_id="b1")
    for one in batch.jobs.ids:
        shop.bench.advance(one, shop.bench.claim(one), "sent")
    teller.gather()
    assert sorted(teller.deliver(endpoint)) == sorted(
        [*(f"{one} job.sent" for one in batch.jobs.ids), "b:b1 batch.settled"]
    )


def test_a_verification_tells_how_it_ends(shop: Shop, teller: Teller, endpoint: str) -> None:
    id_ = shop.dispatcher.verify(NUMBER, callback_url=URL).id
    shop.dispatcher.cancel(id_)
    teller.gather()
    assert f"{id_} verification.cancelled" in teller.deliver(endpoint)


@pytest.mark.parametrize(
    ("patterns", "heard"),
    [
        pytest.param("job.*,verification.*,batch.*", ["job.sent"], id="as by default"),
        pytest.param("job.failed", [], id="another type"),
        pytest.param("inbound.text", ["inbound.text"], id="one type"),
        pytest.param("*", ["job.sent", "inbound.text"], id="all"),
    ],
)
def test_the_default_hears_what_it_wants(shop: Shop, teller: Teller, patterns: str, heard: list[str]) -> None:
    settings = shop.bench.settings
    told(shop)
    ended(shop, "sent")
    default = endpoint_of(settings, OTHER_URL)
    shop.bench.run(teller.calls.default(default, notices.patterns(patterns), callback(settings, OTHER_URL)))
    told(shop)
    ended(shop, "sent")
    ended(shop, "sent", callback_url="")
    said = Text(provider="textgoto", sender=OTHER, to="1", text=TEXT, at="", received=shop.bench.clock.ms)
    shop.bench.run(OptOuts(settings).said(said, "1"))
    teller.gather()
    assert sorted(one.split()[1] for one in teller.deliver(default)) == sorted(heard)


def test_a_default_that_was_known_before_misses_nothing_while_it_is_away(shop: Shop, teller: Teller) -> None:
    settings = shop.bench.settings
    default, wanted = endpoint_of(settings, OTHER_URL), notices.patterns("job.*")
    shop.bench.run(teller.calls.default(default, wanted, callback(settings, OTHER_URL)))
    id_ = ended(shop, "sent")
    shop.bench.run(teller.calls.default(default, wanted, callback(settings, OTHER_URL)))
    teller.gather()
    assert teller.deliver(default) == [f"{id_} job.sent"]
    shop.bench.run(teller.calls.default("", (), ""))
    ended(shop, "sent")
    assert teller.gather() == []


def test_the_document_is_that_of_the_stream(shop: Shop, teller: Teller, endpoint: str) -> None:
    told(shop)
    teller.gather()
    (one,) = teller.take(endpoint).notices
    stream = EventStream(
        shop.bench.store, shop.bench.settings.sealer(), lambda ids, reveal: shop.dispatcher.get_many(ids)
    )
    (made,) = stream.told([(one.cursor.encode(), {**one.fields})], reveal=False)
    (seen,) = shop.dispatcher.events("0", timeout=0)
    assert made == seen
    assert one.id == f"evt_{seen.cursor}"


# -- what must not be lost ---------------------------------------------------------------------------------------------


def test_the_sweep_trims_nothing_that_was_not_moved_on(shop: Shop, teller: Teller, endpoint: str) -> None:
    id_ = told(shop)
    shop.bench.clock.advance(8 * DAY)
    shop.bench.sweep()
    teller.gather()
    assert teller.deliver(endpoint) == [f"{id_} job.sent"]
    shop.bench.sweep()
    assert shop.bench.redis.xlen("d:e") == 0


def test_what_was_moved_on_is_told_though_the_stream_was_trimmed(shop: Shop, teller: Teller, endpoint: str) -> None:
    id_ = told(shop)
    teller.gather()
    shop.bench.redis.xtrim("d:e", maxlen=0)
    assert teller.deliver(endpoint) == [f"{id_} job.sent"]


def test_where_nobody_is_told_the_stream_is_trimmed_as_ever(shop: Shop) -> None:
    ended(shop, "sent")
    shop.bench.clock.advance(8 * DAY)
    shop.bench.sweep()
    assert shop.bench.redis.xlen("d:e") == 0


def test_a_message_that_was_lost_is_published_again(shop: Shop, teller: Teller, endpoint: str) -> None:
    told(shop)
    assert teller.gather() == [endpoint]
    told(shop)
    assert teller.gather() == [], "its message is out"
    shop.bench.clock.advance(shop.bench.settings.lost_after + 1)
    assert teller.gather() == [endpoint]


def test_what_a_dead_worker_had_in_hand_is_told_by_another(shop: Shop, teller: Teller, endpoint: str) -> None:
    id_ = told(shop)
    teller.gather()
    (one,) = teller.take(endpoint).notices
    other = Teller(shop.bench, "other")
    assert other.take(endpoint).busy
    shop.bench.clock.advance(shop.bench.settings.callback_timeout + 6)
    assert teller.gather() == [endpoint]
    (again,) = other.take(endpoint).notices
    assert again.id == one.id, "with the same id"
    assert not teller.done(endpoint, one, Told.AGAIN, words="late"), "whose word counts no more"
    assert teller.done(endpoint, one), "unless it was delivered"
    assert not other.done(endpoint, again)
    other.leave(endpoint)
    assert [one.state for one in shop.dispatcher.callbacks()] == [Health.HEALTHY]
    assert id_ not in str(shop.bench.redis.keys("d:t*"))


def test_a_take_whose_answer_was_lost_takes_the_same(shop: Shop, teller: Teller, endpoint: str) -> None:
    told(shop)
    told(shop)
    teller.gather()
    call = teller.calls.take(endpoint, teller.token, "once", 0)
    first, second = shop.bench.run(call), shop.bench.run(call)
    assert [one.id for one in first.notices] == [one.id for one in second.notices]


# -- one that fails ----------------------------------------------------------------------------------------------------


def test_what_failed_is_told_again_when_it_is_due_and_holds_up_its_job_alone(
    shop: Shop, teller: Teller, endpoint: str
) -> None:
    first = ended(shop, "unknown", "sent", callback_url=URL)
    teller.gather()
    teller.fail(endpoint, again=60)
    second = told(shop)
    assert teller.gather() == [endpoint]
    assert teller.deliver(endpoint) == [f"{second} job.sent"]
    assert teller.gather() == []
    shop.bench.clock.advance(61)
    assert teller.gather() == [endpoint]
    (one,) = teller.take(endpoint).notices
    assert one.tries == 1
    assert teller.done(endpoint, one)
    assert teller.deliver(endpoint) == [f"{first} job.sent"]


def paused(shop: Shop, teller: Teller, endpoint: str) -> None:
    """Have an endpoint fail until it is paused."""
    for _ in range(5):
        told(shop)
        teller.gather()
        teller.fail(endpoint, again=3600)
        shop.bench.clock.advance(16)
    assert state(shop) == Health.PAUSED


def state(shop: Shop) -> Health:
    return shop.dispatcher.callbacks()[0].state


def test_five_failures_in_a_minute_pause_it_and_nobody_else(shop: Shop, teller: Teller, endpoint: str) -> None:
    paused(shop, teller, endpoint)
    other = told(shop, callback_url=OTHER_URL)
    told(shop)
    assert teller.gather() == [endpoint_of(shop.bench.settings, OTHER_URL)]
    assert teller.deliver(endpoint_of(shop.bench.settings, OTHER_URL)) == [f"{other} job.sent"]
    assert teller.take(endpoint).notices == []
    teller.leave(endpoint)
    (event,) = events(shop, "callback.")
    assert event["is"] == "callback.paused"
    assert event["endpoint"] == "https://hooks.example.com/..."
    assert event["failures"] == 5
    assert "500" in event["error"]


def test_one_probe_says_whether_it_is_back(shop: Shop, teller: Teller, endpoint: str) -> None:
    paused(shop, teller, endpoint)
    for _ in range(3):
        told(shop)
    assert teller.gather() == []
    shop.bench.clock.advance(61)
    assert teller.gather() == [endpoint]
    teller.fail(endpoint, again=3600)
    shop.bench.clock.advance(61)
    assert teller.gather() == [], "twice as long as before"
    shop.bench.clock.advance(61)
    assert teller.gather() == [endpoint]
    (probe,) = teller.take(endpoint).notices
    assert teller.done(endpoint, probe)
    assert state(shop) == Health.HEALTHY
    assert len(teller.take(endpoint).notices) > 0
    assert [one["is"] for one in events(shop, "callback.")] == ["callback.paused", "callback.resumed"]


def test_the_pause_grows_to_an_hour(shop: Shop, teller: Teller, endpoint: str) -> None:
    paused(shop, teller, endpoint)
    pauses = []
    for _ in range(8):
        (one,) = shop.dispatcher.callbacks()
        assert one.until is not None
        pauses.append(round(one.until.timestamp() - shop.bench.clock.time()))
        shop.bench.clock.advance(3601)
        told(shop)
        teller.gather()
        teller.fail(endpoint, again=60)
    assert pauses[1:] == [120, 240, 480, 960, 1920, 3600, 3600]


def test_what_fails_is_told_by_few_and_slower(shop: Shop, teller: Teller, endpoint: str) -> None:
    for _ in range(8):
        told(shop)
    teller.gather()
    for one in teller.take(endpoint).notices[:3]:
        teller.done(endpoint, one, Told.AGAIN, words="500", again=60)
    teller.leave(endpoint)
    assert teller.gather() == []
    shop.bench.clock.advance(shop.bench.settings.callback_timeout + 6)
    assert teller.gather() == [endpoint]
    assert len(teller.take(endpoint).notices) == 2


def test_who_asks_to_be_left_alone_is(shop: Shop, teller: Teller, endpoint: str) -> None:
    told(shop)
    teller.gather()
    teller.fail(endpoint, again=30, pause=30)
    told(shop)
    assert teller.gather() == []
    shop.bench.clock.advance(31)
    assert teller.gather() == [endpoint]


def test_a_paused_endpoint_gives_up_what_is_too_old(shop: Shop, teller: Teller, endpoint: str) -> None:
    paused(shop, teller, endpoint)
    shop.bench.clock.advance(4 * DAY + 120)
    id_ = told(shop)
    teller.gather()
    (one,) = teller.take(endpoint).notices
    assert one.fields[b"i"].decode() == id_
    assert {one.why for one in shop.dispatcher.undelivered_callbacks()} == {"the endpoint was down for too long"}


def test_nothing_goes_without_a_word_where_events_are_kept_for_an_hour(clock: Clock) -> None:
    """Two events of a job, each told as often as there is time for, and then listed."""
    shop = Shop(clock, events_retention=3600)
    shop.serve("textgoto", *ALL)
    teller, endpoint = Teller(shop.bench), endpoint_of(shop.bench.settings)
    ended(shop, "unknown", "sent", callback_url=URL)
    teller.gather()
    tried = []
    while shop.bench.redis.exists(f"d:tw:{endpoint}"):
        for one in teller.take(endpoint).notices:
            again = delay(one.tries + 1, retry_after=None, random=lambda: 1.0)
            teller.done(endpoint, one, Told.FAILED if again is None else Told.AGAIN, words="400", again=again or 0)
            tried.append(one.fields[b"t"].decode())
        # What it takes of other jobs meanwhile keeps it from being paused.
        shop.bench.redis.hdel(f"d:t:{endpoint}", "f", "fs", "nb", "p", "pp")
        clock.advance(3000)
    assert tried.count("job.unknown") == len(SCHEDULE)
    assert tried.count("job.sent") > 1
    (known,) = shop.dispatcher.callbacks()
    assert known.undelivered == 2


# -- what was not delivered --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Told.FAILED, Told.REFUSED])
def test_what_is_given_up_is_listed_told_of_and_told_again(
    shop: Shop, teller: Teller, endpoint: str, outcome: Told
) -> None:
    id_ = ended(shop, "unknown", "sent", callback_url=URL)
    teller.gather()
    (first,) = teller.take(endpoint).notices
    teller.done(endpoint, first, outcome, words="500: they failed")
    (listed,) = shop.dispatcher.undelivered_callbacks()
    assert (listed.id, listed.type, listed.subject) == (first.id, "job.unknown", id_)
    assert (listed.endpoint_id, listed.endpoint, listed.why) == (
        endpoint,
        "https://hooks.example.com/...",
        "500: they failed",
    )
    assert [one["is"] for one in events(shop, "callback.")] == ["callback.failed"]
    assert shop.dispatcher.redrive_callbacks([first.id]) == 1
    assert shop.dispatcher.redrive_callbacks([first.id]) == 0, "it is on the list no more"
    shop.bench.clock.advance(1)
    assert teller.deliver(endpoint) == [f"{id_} job.unknown", f"{id_} job.sent"], "in the order in which they came"
    assert shop.dispatcher.undelivered_callbacks() == []


def test_what_is_redriven_waits_with_later_news_of_its_job_until_its_endpoint_is_resumed(
    shop: Shop, teller: Teller, endpoint: str
) -> None:
    id_ = ended(shop, "unknown", "sent", callback_url=URL)
    teller.gather()
    first = teller.take(endpoint).notices[0]
    teller.done(endpoint, first, Told.FAILED, words="500: they failed")
    teller.leave(endpoint)
    teller.fail(endpoint, again=36000)
    assert shop.dispatcher.redrive_callbacks() == 1
    shop.bench.clock.advance(10)
    assert teller.deliver(endpoint) == [], "the later one is tried in hours, and it keeps its place before that"
    shop.dispatcher.resume_callbacks(endpoint)
    assert teller.deliver(endpoint) == [f"{id_} job.unknown", f"{id_} job.sent"]


def test_of_many_failures_one_is_told_an_hour(shop: Shop, teller: Teller, endpoint: str) -> None:
    for _ in range(2):
        told(shop)
        teller.gather()
        teller.fail(endpoint, Told.REFUSED)
    assert len(events(shop, "callback.failed")) == 1
    shop.bench.clock.advance(3601)
    told(shop)
    teller.gather()
    teller.fail(endpoint, Told.REFUSED)
    assert [one["failed"] for one in events(shop, "callback.failed")] == [1, 3]


def test_one_that_is_gone_is_told_nothing_until_it_is_resumed(shop: Shop, teller: Teller, endpoint: str) -> None:
    waiting = [told(shop) for _ in range(3)]
    teller.gather()
    first, *_ = teller.take(endpoint).notices
    teller.done(endpoint, first, Told.GONE, words="410: gone")
    assert teller.take(endpoint).notices == []
    teller.leave(endpoint)
    late = told(shop)
    assert teller.gather() == []
    listed = shop.dispatcher.undelivered_callbacks()
    assert {one.subject for one in listed} == {*waiting, late}
    assert [one["is"] for one in events(shop, "callback.")] == ["callback.gone"]
    assert state(shop) == Health.GONE
    assert shop.dispatcher.redrive_callbacks() == 0, "it would be told nothing"
    assert shop.dispatcher.resume_callbacks(endpoint)
    assert shop.dispatcher.redrive_callbacks(endpoint=endpoint) == 4
    assert teller.gather() == [endpoint]
    assert len(teller.deliver(endpoint)) == 4


def test_a_paused_endpoint_may_be_resumed_at_once(shop: Shop, teller: Teller, endpoint: str) -> None:
    paused(shop, teller, endpoint)
    assert shop.dispatcher.resume_callbacks(endpoint)
    assert not shop.dispatcher.resume_callbacks(endpoint)
    told(shop)
    assert teller.gather() == [endpoint]


def test_what_waits_for_its_next_try_is_told_at_once_where_its_endpoint_is_resumed(
    shop: Shop, teller: Teller, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an outage: half a day on, its mended endpoint would be told for another half of it."""
    monkeypatch.setattr("dispatcher.endpoints.MOST", 2)
    monkeypatch.setattr("dispatcher.operating.MOST", 2)
    ids = [told(shop) for _ in range(5)]
    teller.gather()
    for one in teller.take(endpoint).notices:
        assert teller.done(endpoint, one, Told.AGAIN, words="500: they failed", again=36000)
    flying = told(shop)
    teller.gather()
    shop.bench.clock.advance(10)
    assert [one.fields[b"s"].decode() for one in teller.take(endpoint).notices] == [flying]
    assert shop.dispatcher.resume_callbacks(endpoint)
    assert sorted(one.fields[b"s"].decode() for one in teller.take(endpoint, flying=1).notices) == sorted(ids)
    assert not shop.dispatcher.resume_callbacks(endpoint), "and what is on its way is told once"


def test_one_that_is_resumed_while_it_is_told_is_found_though_its_teller_dies(
    shop: Shop, teller: Teller, endpoint: str
) -> None:
    told(shop)
    teller.gather()
    assert teller.take(endpoint).notices
    shop.dispatcher.resume_callbacks(endpoint)
    shop.bench.clock.advance(60)
    assert teller.gather() == [endpoint]


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda d: d.resume_callbacks("nobody"), id="resume"),
        pytest.param(lambda d: d.redrive_callbacks(endpoint="nobody"), id="redrive"),
        pytest.param(lambda d: d.undelivered_callbacks(endpoint="nobody"), id="list"),
    ],
)
def test_an_endpoint_that_there_is_not_is_named(shop: Shop, ask: Callable[[Dispatcher], object]) -> None:
    with pytest.raises(NotFound, match="endpoint nobody"):
        ask(shop.dispatcher)


def test_long_lists_are_read_to_their_end(shop: Shop, teller: Teller, endpoint: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("dispatcher.endpoints.MOST", 3)
    for number in range(10):
        told(shop)
        shop.bench.clock.advance(number % 3 == 0)
        teller.gather()
        teller.fail(endpoint, Told.REFUSED)
    listed = [*endpoints.undelivered(shop.bench.store)]
    assert len({one.id for one in listed}) == len(listed) == 10
    assert len(shop.dispatcher.undelivered_callbacks(limit=4)) == 4


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_person_who_is_forgotten_is_told_of_no_more(shop: Shop, teller: Teller) -> None:
    settings = shop.bench.settings
    default = endpoint_of(settings, OTHER_URL)
    shop.bench.run(teller.calls.default(default, ("*",), callback(settings, OTHER_URL)))
    for who in (NUMBER, OTHER):
        said = Text(provider="textgoto", sender=who, to="1", text=TEXT, at="", received=shop.bench.clock.ms)
        shop.bench.run(OptOuts(settings).said(said, who[-1]))
    teller.gather()
    first, _ = teller.take(default).notices
    teller.done(default, first, Told.REFUSED, words="500")
    assert shop.dispatcher.forget(NUMBER, dry_run=True).notices == 1
    assert shop.dispatcher.forget(NUMBER).notices == 1
    assert len(shop.bench.redis.keys("d:tn:*")) == 1
    assert shop.dispatcher.forget(OTHER).notices == 1
    assert shop.bench.redis.keys("d:t[nl]:*") == []
    assert shop.dispatcher.undelivered_callbacks() == []


def test_who_is_forgotten_is_looked_for_once_among_what_was_not_delivered(
    shop: Shop, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many endpoints there are: that list may be as long as theirs."""
    for path in "abc":
        told(shop, callback_url=f"https://hooks.example.com/{path}")
    for one in teller.gather():
        teller.fail(one, Told.REFUSED)
    store = shop.dispatcher._store
    spied = mock.Mock(wraps=store.redis.zrange)
    monkeypatch.setattr(store.redis, "zrange", spied)
    shop.dispatcher.forget(NUMBER, dry_run=True)
    assert [call.args[0] for call in spied.call_args_list].count(endpoints.UNDELIVERED) == 1


def test_what_waits_for_nobody_goes_by_itself(shop: Shop, teller: Teller, endpoint: str) -> None:
    for _ in range(3):
        told(shop)
    teller.gather()
    (one, *_) = teller.take(endpoint).notices
    teller.done(endpoint, one, Told.REFUSED, words="500")
    shop.bench.clock.advance(12 * DAY)
    teller.gather()
    shop.bench.clock.advance(1)
    left = {key.decode() for key in shop.bench.redis.keys("d:t*")}
    assert left == {"d:tc"}
