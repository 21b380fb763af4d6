"""Nothing stays in Redis for ever: every way a job can go, and what is left of it, then and after its retention."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dispatcher import (
    ConfigurationError,
    Dispatcher,
    IdempotencyConflict,
    InvalidRequest,
    Job,
    Message,
    PrefixClosed,
    ResendTooSoon,
    lookups,
)
from dispatcher.calls import Calls, Claim
from dispatcher.guards import parse as parse_guards
from dispatcher.jobs import Category, Operation, Terms
from dispatcher.memory import Ask, LookupCalls
from dispatcher.optouts import OptOuts
from dispatcher.outcomes import Checked
from dispatcher.settings import load
from tests.unit import test_client
from tests.unit.support import NUMBER, OTHER, TEXT, Bench, Clock, settings
from tests.unit.test_client import Shop

shop = test_client.shop

DAY = 86400
MONTH = 30 * DAY

#: Seconds after which nothing is kept: what finds a job is kept for its retention from when it could be over, and one
#: is for tomorrow and may wait for a day; what finds it by its number goes as that day ends.
LONGEST = MONTH + 3 * DAY + 1

#: Keys that have no lifetime, and why none of them grows with the jobs of the past.
LASTING = {
    r"d:mode": "one word",
    r"d:hk": "one hash",
    r"d:c": "a count and a moment",
    r"d:er": "one run of the server",
    r"d:fs": "one mark",
    r"d:cw": "processes that claimed within the last hour, trimmed by each pulse",
    r"d:p": "names of accounts",
    r"d:nd": "days that have lists of jobs by number, trimmed by the sweep",
    r"d:a": "names of accounts, and what each can do",
    r"d:e": "the events, trimmed by age",
    r"d:et": "one cursor",
    r"d:tc": "one cursor",
    r"d:tf": "the one endpoint that is told by default",
    r"d:te": "endpoints where something waits, trimmed by age",
    r"d:ta": "endpoints by when something last came of them, trimmed by age",
    r"d:tx": "what was not delivered, trimmed by age",
    r"d:qw:[^:]+": "two words for each queue",
    r"d:g:[^:]+": "a few slots of each queue, folded by the sweep",
    r"d:lm:[^:]+": "what is drawn from an account's limits: one hash for each",
    r"d:s:[^:]+": "an entry for each thing that an account cannot do, until it is mended",
    r"d:f:[^:]+": "ids of jobs whose fate is asked for, taken out when it is known or given up; trimmed by age",
    r"d:v": "ids with a code of ours, taken out by the sweep once their verification is over",
    r"d:i:[^:]+:[a-z]+": "ids by state, trimmed by age once settled, and by each move before",
    r"d:no": "who wants no more texts: that is for ever",
    r"d:nb": "whom accounts block themselves, until a text gets through to them",
    r"d:pr": "a price of each account and country",
    r"d:kc": "countries that nobody is texted in",
    r"d:lb": "accounts whose balance is low",
    r"d:eg": "what each group of events asks for, until it is deleted",
    r"d:ak": "tokens of the HTTP API, until they are revoked",
    r"d:ca": "names of accounts",
    r"d:cn": "a few counts of each account",
    r"d:c[ux]": "receipts nobody wanted, callbacks set aside: trimmed by age",
}

#: Those of them that are there for ever, on a server whose jobs are all forgotten.
CONSTANT = {"d:mode", "d:hk", "d:c", "d:p", "d:pr", "d:a", "d:e", "d:et", "d:g:textgoto", "d:g:textgoto.high"}

#: What was used on a day, which has a retention of its own.
USAGE = "d:u:"


def strays(names: dict[str, int]) -> set[str]:
    """The keys that neither have a lifetime nor may be without; `names` has the ms that each has to live, or -1."""
    return {key for key, left in names.items() if left < 0 and not any(re.fullmatch(one, key) for one in LASTING)}


def lifetimes(redis: Any) -> dict[str, int]:
    """The keys of ours with the ms that each has to live, -1 for those that stay."""
    return {key.decode(): redis.pttl(key) for key in redis.scan_iter(match="d:*", count=1000)}


class Story:
    """Jobs of every kind, each brought to another end."""

    def __init__(self, bench: Bench, dispatcher: Dispatcher, name: str = "") -> None:
        """`name` keeps the idempotency keys and batches of several stories apart."""
        self.bench = bench
        self.d = dispatcher
        self.name = name
        #: What each job must end as, by its id.
        self.ends: dict[str, str] = {}

    def play(self) -> None:
        """Play all of it; the clock goes on by some leases meanwhile."""
        self.answered()
        self.remembered()
        self.taken_back()
        self.repeated()
        self.verified()
        self.in_batches()
        self.left_alone()
        self.waited_for()
        found = {id_: self.bench.state(id_) for id_ in self.ends}
        assert found == self.ends

    def send(self, end: str, **terms: Any) -> str:
        id_ = self.d.send(NUMBER, TEXT, **terms).id
        self.ends[id_] = end
        return id_

    def sent(self, id_: str, to: str = "sent", **told: Any) -> None:
        self.ends[id_] = to
        token = self.bench.claim(id_)
        assert self.bench.advance(id_, token, to, tried=f"{to} ref", **told) == to

    def answered(self) -> None:
        """By the provider, one way or another."""
        for end in ("sent", "failed", "unknown", "delivered", "undelivered"):
            self.sent(self.send(end), end, fields={"m": "ref", "c": "0.1 EUR", "y": "none"})
        self.sent(self.d.lookup(NUMBER).id, "completed", fields={"r": "result"})
        self.sent(self.d.operation("textgoto", "balance").id, "completed", fields={"r": "result"})
        late = self.send("sent")
        self.sent(late, "unknown")
        self.ends[late] = self.bench.advance(late, "=unknown", "sent")

    def remembered(self) -> None:
        """Looked up by one, whose answer another waits for; and by one that nobody ever hears of again."""
        calls, lookups_ = LookupCalls(self.bench.settings), [self.d.lookup(NUMBER).id for _ in range(2)]
        asks = [Ask(self.bench.hold(id_), id_, calls.hashed(NUMBER), fresh=True) for id_ in lookups_]
        assert [one.state for one in self.bench.run(calls.recall(asks))] == ["", "queued"]
        now = round(self.d_time() * 1000)
        found = lookups.result(NUMBER, lookups.Facts(), {}, "textgoto", now)
        self.bench.run(calls.remember(lookups_[0], calls.hashed(NUMBER), now, found))
        self.bench.claim(lookups_[0], token=asks[0].token)
        assert self.bench.advance(lookups_[0], asks[0].token, "completed", fields={"r": "result"}) == "completed"
        assert lookups_[1] in self.bench.due()
        assert self.bench.advance(lookups_[1], "=queued", "completed") == "completed"
        alone = self.d.lookup(OTHER).id
        self.bench.run(calls.recall([Ask(self.bench.hold(alone), alone, calls.hashed(OTHER))]))
        self.d.cancel(alone)
        self.ends |= {lookups_[0]: "completed", lookups_[1]: "completed", alone: "cancelled"}

    def taken_back(self) -> None:
        self.d.cancel(self.send("cancelled"))
        self.d.cancel(self.send("cancelled", send_at=self.d_time() + DAY, valid_for=DAY, lane="high"))

    def d_time(self) -> float:
        """Seconds since 1970 where the jobs are."""
        seconds, micros = self.bench.redis.time()
        return float(seconds + micros / 1e6)

    def repeated(self) -> None:
        """The same idempotency key, with the same request and another."""
        first = self.send("sent", idempotency_key=f"{self.name} k")
        assert self.send("sent", idempotency_key=f"{self.name} k") == first
        with pytest.raises(IdempotencyConflict):
            self.d.send(OTHER, TEXT, idempotency_key=f"{self.name} k")
        self.sent(first)

    def verified(self) -> None:
        """Approved, tried too often, too late, judged by the provider."""
        for code, tries in (("1", 1), ("2", 5), ("3", 1)):
            id_ = self.d.verify(NUMBER).id
            hashed = self.bench.settings.hashed("code", id_, "1")
            self.sent(id_, code_ttl=0.001 if code == "3" else 300, fields={"vh": hashed})
            if code == "3":
                self.bench.clock.advance(0.01)
            for _ in range(tries):
                self.d.check(id_, code)
        judged = self.d.verify(OTHER).id
        self.sent(judged)
        hashed = self.bench.settings.hashed("code", judged, "1")
        self.bench.check(judged, hashed)
        self.bench.run(
            self.bench.calls.judged(Checked(verification=judged, valid=True, status="approved"), hashed, tries=5)
        )
        self.again()

    def again(self) -> None:
        """Another code, and one too many; a prefix of which nobody types any."""
        first = self.d.verify(NUMBER, guard_keys={"ip": "203.0.113.7"})
        self.bench.clock.advance(self.bench.settings.resend_after)
        self.sent(self.d.resend(first.id).id)
        self.ends[first.id] = "cancelled"
        with pytest.raises(ResendTooSoon):
            self.d.resend(first.id)
        self.d.settings.__dict__["guarding"] = parse_guards("conversion=1/1d; country=1000/1d")
        try:
            self.sent(self.d.verify("+12125550100").id)
            with pytest.raises(PrefixClosed):
                self.d.verify("+12125550101")
        finally:
            del self.d.settings.__dict__["guarding"]

    def in_batches(self) -> None:
        """Closed, left open by a producer that died, cancelled while it was written, and without a job of its own."""
        keyed = [Message(NUMBER, TEXT, idempotency_key=f"{self.name} m"), Message(OTHER, TEXT)]
        for batch, more in (("closed", False), ("open", True)):
            for id_ in self.d.send_many(keyed, batch_id=f"{self.name}{batch}", more=more).jobs.ids:
                if self.bench.state(id_) == "queued":
                    self.sent(id_)
        self.d.send_many(keyed[:1], batch_id=f"{self.name}empty", more=True)
        self.d.send_many(keyed[:1], batch_id=f"{self.name}closed-empty", more=True)
        self.d.close_batch(f"{self.name}closed-empty")
        cancelled = self.d.send_many([Message(NUMBER, TEXT)] * 3, batch_id=f"{self.name}cancelled", more=True)
        again, wire, queued = cancelled.jobs.ids
        token, other = self.bench.claim(again), self.bench.claim(wire)
        cancelled.cancel()
        assert self.bench.advance(again, token, "queued", wait="retry") == "cancelled"
        assert self.bench.advance(wire, other, "sent") == "sent"
        self.ends |= {again: "cancelled", wire: "sent", queued: "cancelled"}
        with suppress(InvalidRequest):
            self.d.send_many([Message(NUMBER, TEXT)], batch_id=f"{self.name}cancelled")

    def left_alone(self) -> None:
        """Refused as they are enqueued and as they are claimed, since the person wants no more texts, until they do."""
        before = self.send("failed", valid_for=DAY)
        hashed = self.bench.settings.hashed("number", NUMBER)
        self.d.opt_out(NUMBER)
        self.send("failed", idempotency_key=f"{self.name} left alone", send_at=self.d_time() + DAY, valid_for=DAY)
        token = self.bench.hold(before)
        self.bench.run(self.bench.calls.claim([Claim(token, before, "never", hashed)]))
        self.d.opt_in(NUMBER)
        self.d.opt_out(NUMBER, tenant="shop-a", sender="ACME")
        self.send("failed", tenant="shop-a", sender="ACME")
        self.d.opt_in(NUMBER, tenant="shop-a", sender="ACME")
        optouts = OptOuts(self.bench.settings)
        self.bench.run(optouts.refused(NUMBER, "textgoto"))
        self.send("failed")
        self.bench.clock.advance(0.01)
        self.bench.run(optouts.told(NUMBER, "textgoto", int(self.d_time() * 1000) + 1, f"{self.name} over", out=False))

    def waited_for(self) -> None:
        """What takes time: schedules, passed times, dead workers, lost messages."""
        lease = self.bench.settings.lease
        soon = self.d_time() + lease
        scheduled = self.send("sent", send_at=soon)
        parked, released, lost = (self.send("sent") for _ in range(3))
        self.bench.advance(parked, "=queued", "queued", "waits for limit", wait="limit", delay=lease)
        token = self.bench.hold(released)
        self.bench.run(self.bench.calls.absolve(token, [released]))
        self.bench.run(self.bench.calls.release(token, [released]))
        self.bench.run(self.bench.calls.touch([lost]))
        for _ in range(2):
            # At its claim, and by the clock.
            useless = self.send("expired", valid_for=lease / 2)
        hands = self.bench.hold(useless)
        batch = f"{self.name}dead"
        dead, repeated, poison = self.d.send_many([Message(NUMBER, TEXT)] * 3, batch_id=batch, valid_for=DAY).jobs.ids
        self.ends |= {dead: "unknown", repeated: "unknown", poison: "failed"}
        self.bench.claim(dead)
        self.bench.claim(repeated, repeat="once")
        self.bench.hold(poison)

        self.bench.clock.advance(lease + 0.01)
        assert self.bench.refused_claim(hands, useless) == "expired"
        self.bench.sweep()
        assert lost in self.bench.lost(empty=True)
        for id_ in (released, lost):
            self.sent(id_)
        assert {scheduled, parked, repeated} == {*self.bench.due()}
        self.sent(scheduled)
        self.sent(parked)
        self.bench.claim(repeated, repeat="once")
        self.bench.hold(poison)

        self.bench.clock.advance(lease + 0.01)
        self.bench.sweep()
        assert self.bench.take(poison, alone=True).idle == [(poison, "failed")]
        assert self.d.batch(batch).settled


@pytest.fixture
def story(shop: Shop) -> Story:
    return Story(shop.bench, shop.dispatcher)


def test_once_all_jobs_ended_every_key_has_a_lifetime_or_does_not_grow(story: Story) -> None:
    story.play()
    found = lifetimes(story.bench.redis)
    assert strays(found) == set()
    assert {key.split(":")[1] for key in found} >= {"j", "k", "n", "b", "i"}, "the story has something of each"


def test_no_list_of_what_waits_or_runs_is_left(story: Story) -> None:
    """Each holds open jobs only, and a sorted set without members is none."""
    story.play()
    assert {key for key in lifetimes(story.bench.redis) if key.split(":")[1] in "owlx"} == set()


def test_after_their_retention_only_what_is_constant_is_left(story: Story) -> None:
    story.play()
    story.bench.clock.advance(LONGEST)
    story.bench.sweep()
    assert {key for key in lifetimes(story.bench.redis) if not key.startswith(USAGE)} == CONSTANT
    assert story.bench.redis.xlen("d:e") == 0


def test_another_life_leaves_no_more_than_the_first(story: Story) -> None:
    """Of what stays nothing grows: as many members of each, however many jobs there were."""
    sizes = []
    for name in ("one", "two", "three"):
        Story(story.bench, story.d, name).play()
        story.bench.clock.advance(LONGEST)
        story.bench.sweep()
        kept = {key: value for key, value in story.bench.dump().items() if not key.startswith(USAGE)}
        sizes.append({key: len(value) for key, value in kept.items() if key != "d:et"})
    assert sizes[0] == sizes[1] == sizes[2]


def test_settled_jobs_leave_the_indexes_as_their_records_go(story: Story) -> None:
    """Not before and not after: what is listed can be read."""
    story.play()
    for _ in range(7):
        story.bench.clock.advance(5 * DAY)
        story.bench.sweep()
        indexed = {id_ for key in story.bench.redis.keys("d:i:*") for id_ in story.bench.members(key.decode())}
        kept = {key.decode().removeprefix("d:j:") for key in story.bench.redis.keys("d:j:*")}
        assert indexed == kept
    assert indexed == set()


def test_the_pace_of_a_queue_that_loses_nothing_is_a_few_slots(bench: Bench) -> None:
    """Nobody asks about it; the sweep folds its slots all the same."""
    for number in range(200):
        bench.ended(f"{number:04}", "sent", high=number % 2 == 0)
        bench.clock.advance(10)
        bench.sweep()
        for queue in ("textgoto", "textgoto.high"):
            assert bench.redis.hlen(f"d:g:{queue}") <= 60 / 10 + 3


def test_a_folded_slot_still_tells_what_was_passed(bench: Bench) -> None:
    bench.create("0001")
    bench.clock.advance(1)
    bench.ended("0002", "sent")
    for _ in range(30):
        bench.clock.advance(10)
        bench.sweep()
    assert bench.redis.hlen("d:g:textgoto") == 1
    assert bench.lost() == ["0001"], "a message published later was taken long ago"


def test_what_was_used_on_a_day_is_kept_for_its_own_time(story: Story) -> None:
    """A hash a day, whose lifetime begins as the day ends; the settings say how long that is."""
    story.play()
    (key,) = (key for key in lifetimes(story.bench.redis) if key.startswith(USAGE))
    assert story.bench.ttl(key) == pytest.approx(400 * DAY, abs=DAY)
    story.bench.calls = Calls(settings(usage_retention=DAY))
    story.bench.sweep()
    story.bench.clock.advance(2 * DAY)
    assert key not in lifetimes(story.bench.redis)


# -- how long ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retention", "key_kept", "job_kept"),
    [
        pytest.param({}, MONTH, MONTH, id="as long as jobs unless told"),
        pytest.param({"retention": DAY}, DAY, DAY, id="as long as jobs that are kept for less"),
        pytest.param({"idempotency_retention": DAY}, DAY, MONTH, id="for less than jobs"),
        pytest.param({"idempotency_retention": MONTH}, MONTH, MONTH, id="for as long"),
    ],
)
def test_idempotency_keys_have_a_retention_of_their_own(
    clock: Clock, retention: dict[str, float], key_kept: float, job_kept: float
) -> None:
    bench = Bench(clock, **retention)
    bench.ended("0001", "sent", idempotency="key", fingerprint="f", number="hash")
    assert bench.ttl("d:k:key") == key_kept
    assert bench.ttl("d:j:0001") == job_kept
    (numbers,) = bench.redis.keys("d:n:*")
    listed = max(job_kept, 7 * DAY)
    assert listed < (bench.ttl(numbers.decode()) or 0) <= listed + DAY, "it may wait long before it is over"


def test_a_key_that_is_over_is_free_though_its_job_is_kept(clock: Clock) -> None:
    bench = Bench(clock, idempotency_retention=DAY)
    bench.ended("0001", "sent", idempotency="key", fingerprint="f")
    clock.advance(DAY - 1)
    assert bench.create("0002", idempotency="key", fingerprint="f").ids == ["0001"]
    clock.advance(2)
    assert bench.create("0002", idempotency="key", fingerprint="f").ids == ["0002"]
    assert bench.state("0001") == "sent"


@pytest.mark.parametrize("told", [{"idempotency_retention": 31 * DAY}, {"idempotency_retention": 9, "retention": 8}])
def test_a_key_is_not_kept_for_longer_than_its_job(told: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_IDEMPOTENCY_RETENTION .* DISPATCHER_RETENTION"):
        load(**told)


KEPT = "otp=86400,transactional=2592000,promotional=604800,lookup=3600"


def judged(d: Dispatcher) -> Job:
    return d._enqueue(Operation(arguments={"code": "1"}), "balance", Terms(category=Category.OTP), "textgoto", None)


@pytest.mark.parametrize(
    ("ask", "days"),
    [
        pytest.param(lambda d: d.verify(NUMBER), 1, id="a code"),
        pytest.param(lambda d: d.send(NUMBER, TEXT), 30, id="a receipt"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, category="promotional"), 7, id="a campaign's"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, category="otp"), 1, id="a code of one's own"),
        pytest.param(lambda d: d.lookup(NUMBER), 1 / 24, id="a lookup"),
        pytest.param(lambda d: d.operation("textgoto", "balance"), 30, id="an operation, as its category"),
        pytest.param(judged, 1, id="what judges a code, as the code"),
    ],
)
def test_each_category_is_kept_for_its_own_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Dispatcher], Job], days: float
) -> None:
    """Also after late news; and only what is kept for less than others says so in its record."""
    shop = Shop(clock, retention=KEPT)
    shop.serve("textgoto", *test_client.ALL)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    id_ = ask(shop.dispatcher).id
    shop.bench.advance(id_, shop.bench.claim(id_), "unknown")
    assert shop.bench.ttl(f"d:j:{id_}") == days * DAY
    shop.bench.clock.advance(days * DAY - 1)
    shop.bench.advance(id_, "=unknown", "sent")
    assert shop.bench.ttl(f"d:j:{id_}") == days * DAY
    assert ("kp" in shop.bench.raw(id_)) == (days < 30)


def test_a_code_is_known_for_as_long_as_it_lives(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes may be kept for less than that: then the right one would be no code, and its prefix be closed for it."""
    shop = Shop(clock, retention="otp=60")
    shop.serve("textgoto", *test_client.ALL)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    for ttl, kept in ((600, 600), (30, 60)):
        id_ = shop.dispatcher.verify(NUMBER, code_ttl=ttl).id
        shop.sent(id_)
        assert shop.bench.ttl(f"d:j:{id_}") == kept
        clock.advance(3600)


def test_a_key_does_not_outlive_a_job_that_is_kept_for_less(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, retention=KEPT)
    shop.serve("textgoto", *test_client.ALL)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    for category, days in (("otp", 1), ("transactional", 30)):
        id_ = shop.dispatcher.send(NUMBER, TEXT, category=category, idempotency_key=category).id
        shop.sent(id_)
        (key,) = (key for key in shop.bench.redis.keys("d:k:*") if shop.bench.redis.get(key).startswith(id_.encode()))
        assert shop.bench.ttl(key.decode()) == shop.bench.ttl(f"d:j:{id_}") == days * DAY


def test_listings_find_what_is_kept_behind_what_is_gone(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids by state and by number stay as long as those that are kept the longest."""
    shop = Shop(clock, retention=KEPT)
    shop.serve("textgoto", *test_client.ALL)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    kept = shop.dispatcher.send(NUMBER, TEXT).id
    shop.sent(kept)
    for _ in range(5):
        clock.advance(1)
        shop.sent(shop.dispatcher.send(NUMBER, TEXT, category="otp").id)
    clock.advance(2 * DAY)
    for found in (
        shop.dispatcher.jobs(limit=2),
        shop.dispatcher.jobs(state="sent", provider="textgoto", limit=2),
        shop.dispatcher.jobs(number=NUMBER, limit=2),
    ):
        assert [one.id for one in found] == [kept]
    clock.advance(32 * DAY)
    shop.bench.sweep()
    assert {key for key in lifetimes(shop.bench.redis) if not key.startswith(USAGE)} <= CONSTANT


@pytest.mark.parametrize(
    "told",
    [
        pytest.param("otp=1,other=2", id="a category that there is not"),
        pytest.param("otp=0", id="nothing"),
        pytest.param("otp=", id="no number"),
        pytest.param("otp", id="a name alone"),
        pytest.param("inf", id="for ever"),
    ],
)
def test_a_retention_that_cannot_be_is_refused(told: str) -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_RETENTION .* for some of otp, .*lookup, operation"):
        load(retention=told)


def test_a_table_of_toml_is_as_good(tmp_path: Path) -> None:
    Path("dispatcher.toml").write_text("[retention]\notp = 60\n")
    assert load().kept_for("verify", "otp") == 60
    assert load().longest_kept == MONTH


@pytest.mark.parametrize("seconds", ["0", "-1", "never"])
def test_a_retention_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    monkeypatch.setenv("DISPATCHER_IDEMPOTENCY_RETENTION", seconds)
    with pytest.raises(ConfigurationError, match="DISPATCHER_IDEMPOTENCY_RETENTION"):
        load()
