"""Consent: what an entry is about, what a stop covers, who is answered, and what a provider blocks itself."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from dispatcher import Dispatcher, Event, InvalidRequest, Message
from dispatcher.calls import Claim
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.jobs import Lookup
from dispatcher.optouts import ANSWERS, By, OptOuts
from dispatcher.outcomes import Failure, FailureKind, Outcome
from tests.ringer import Ringer
from tests.unit import test_client
from tests.unit.support import HASH_KEY, NUMBER, OTHER, SECRET_KEY, TEXT, Bench, Clock, leaks, settings
from tests.unit.test_callbacks import Desk
from tests.unit.test_client import Shop
from tests.unit.test_execute import Road
from workers import consent

shop = test_client.shop

ALL: Final[dict[str, str]] = {}
SHOP: Final = {"tenant": "shop-a"}
ACME: Final = {"sender": "ACME"}
BOTH: Final = {"tenant": "shop-a", "sender": "ACME"}
OUR_NUMBER: Final = "+12125550100"


def claimed(shop: Shop, *ids: str, sender: str = "") -> list[str | None]:
    """Let a worker claim jobs to `NUMBER` whose account names `sender` where they name nobody."""
    bench, optouts = shop.bench, OptOuts(shop.bench.settings)
    token, hashed = bench.hold(*ids), bench.settings.hashed("number", NUMBER)
    jobs = shop.dispatcher.get_many(ids, reveal=True)
    scopes = {one: optouts.scopes(jobs[one].tenant, jobs[one].sender or sender) for one in ids}
    return bench.run(bench.calls.claim([Claim(token, one, "never", hashed, scopes=scopes[one]) for one in ids]))


# -- what an entry is about --------------------------------------------------------------------------------------------

#: The entry; the text; whether it is refused.
SCOPES: Final = [
    pytest.param(ALL, ALL, True, id="all, and a text of nobody's"),
    pytest.param(ALL, BOTH, True, id="all, and a text of a tenant's sender"),
    pytest.param(SHOP, ALL, False, id="a tenant, and a text of nobody's"),
    pytest.param(SHOP, SHOP, True, id="a tenant, and its text"),
    pytest.param(SHOP, BOTH, True, id="a tenant, and its text from a sender"),
    pytest.param(SHOP, {"tenant": "shop-b"}, False, id="a tenant, and another's text"),
    pytest.param(ACME, ACME, True, id="a sender, and its text"),
    pytest.param(ACME, {"sender": " acme"}, True, id="a sender, written otherwise"),
    pytest.param(ACME, BOTH, True, id="a sender, and its text of a tenant"),
    pytest.param(ACME, SHOP, False, id="a sender, and a text of a tenant"),
    pytest.param({"sender": OUR_NUMBER}, {"sender": "1 212 555 0100"}, True, id="a number, written otherwise"),
    pytest.param(BOTH, BOTH, True, id="both, and a text of both"),
    pytest.param(BOTH, SHOP, False, id="both, and a text of the tenant"),
    pytest.param(BOTH, ACME, False, id="both, and a text from the sender"),
    pytest.param(BOTH, {"tenant": "ACME", "sender": "shop-a"}, False, id="both, the other way round"),
]


@pytest.mark.parametrize(("entry", "text", "refused"), SCOPES)
class TestScopes:
    def test_as_it_is_enqueued(self, shop: Shop, entry: Any, text: Any, refused: bool) -> None:
        shop.dispatcher.opt_out(NUMBER, **entry)
        job = shop.dispatcher.send(NUMBER, TEXT, **text)
        assert job.state == ("failed" if refused else "queued")
        assert (shop.published == []) is refused

    def test_between_that_and_its_claim(self, shop: Shop, entry: Any, text: Any, refused: bool) -> None:
        job = shop.dispatcher.send(NUMBER, TEXT, **text)
        shop.dispatcher.opt_out(NUMBER, **entry)
        assert claimed(shop, job.id) == ["failed" if refused else None]
        assert (shop.dispatcher.get(job.id).failure is not None) is refused

    def test_as_it_is_asked_for(self, shop: Shop, entry: Any, text: Any, refused: bool) -> None:
        shop.dispatcher.opt_out(NUMBER, **entry)
        since = shop.dispatcher.opted_out(NUMBER, **text)
        assert since == (datetime.fromtimestamp(shop.clock.time(), UTC) if refused else None)

    def test_taken_off_again(self, shop: Shop, entry: Any, text: Any, refused: bool) -> None:
        shop.dispatcher.opt_out(NUMBER, **entry)
        assert shop.dispatcher.opt_in(NUMBER, **entry) is True
        assert shop.dispatcher.send(NUMBER, TEXT, **text).state == "queued"


def test_who_the_account_sends_as_counts_where_a_text_names_nobody(shop: Shop) -> None:
    """The worker knows it; whoever enqueues need not."""
    shop.dispatcher.opt_out(NUMBER, sender="ACME")
    job, named = shop.dispatcher.send(NUMBER, TEXT), shop.dispatcher.send(NUMBER, TEXT, sender="Other")
    assert job.state == "queued"
    assert claimed(shop, job.id, named.id, sender="Acme") == ["failed", None]


def test_of_a_batch_each_message_is_its_senders(shop: Shop) -> None:
    shop.dispatcher.opt_out(NUMBER, sender="ACME")
    messages = [Message(NUMBER, TEXT, sender=one) for one in ("ACME", "Other", None)]
    assert shop.dispatcher.send_many(messages, tenant="shop-a").counts == {"queued": 2, "failed": 1}


def test_a_redrive_is_held_against_it_too(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT, tenant="shop-a")
    shop.dispatcher.cancel(job.id)
    shop.dispatcher.opt_out(NUMBER, tenant="shop-a")
    with pytest.raises(InvalidRequest, match="no more texts"):
        shop.dispatcher.redrive(job.id)
    shop.dispatcher.opt_in(NUMBER, tenant="shop-a")
    assert shop.dispatcher.redrive(job.id).state == "queued"


def test_all_entries_of_a_number_are_told(shop: Shop) -> None:
    d = shop.dispatcher
    for scope in (ALL, SHOP, ACME, BOTH):
        d.opt_out(NUMBER, **scope)
    d.opt_out(OTHER)
    told = {(one.tenant, one.sender) for one in d.opt_outs(NUMBER, reveal=True)}
    assert told == {(None, None), ("shop-a", None), (None, "ACME"), ("shop-a", "ACME")}
    assert {(one.number, one.tenant) for one in d.opt_outs(NUMBER)} == {(None, None)}


@pytest.mark.parametrize("scope", [{"tenant": ""}, {"sender": " "}, {"sender": "-"}, {"sender": 7}])
@pytest.mark.parametrize("verb", ["opt_out", "opt_in", "opted_out"])
def test_what_an_entry_is_about_must_be_something(shop: Shop, verb: str, scope: dict[str, Any]) -> None:
    """Else an empty variable would lift the entry about all."""
    with pytest.raises(InvalidRequest, match=next(iter(scope))):
        getattr(shop.dispatcher, verb)(NUMBER, **scope)


def test_a_text_without_tenant_and_sender_asks_for_one_field(bench: Bench) -> None:
    assert OptOuts(bench.settings).scopes("", "") == ""
    assert len(OptOuts(bench.settings).scopes("shop-a", "ACME").split()) == 3


# -- codes that people ask for -----------------------------------------------------------------------------------------


class TestCodes:
    @pytest.fixture
    def shop(self, clock: Clock) -> Shop:
        one = Shop(clock, otp_to_opted_out=True, hash_key=HASH_KEY, secret_key=SECRET_KEY)
        one.serve("textgoto", "send", "verify")
        return one

    @pytest.mark.parametrize("first", [True, False], ids=["stopped before", "stopped between"])
    def test_they_get_them_though_they_stopped(self, shop: Shop, monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
        monkeypatch.setattr("dispatcher.client.publish", shop.publish)
        d = shop.dispatcher
        if first:
            d.opt_out(NUMBER)
        jobs = [d.verify(NUMBER), d.send(NUMBER, TEXT, category="otp")]
        d.opt_out(NUMBER)
        assert claimed(shop, *(job.id for job in jobs)) == [None, None]

    def test_other_texts_they_do_not_get(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dispatcher.client.publish", shop.publish)
        shop.dispatcher.opt_out(NUMBER)
        assert shop.dispatcher.send(NUMBER, TEXT).state == "failed"


# -- what people are answered ------------------------------------------------------------------------------------------

ANSWERED: Final = {
    "stop_text": "You get no more texts.",
    "start_text": "You get texts again.",
    "help_text": "ACME: call +44 20 7946 0000.",
}


def desk(clock: Clock, **more: Any) -> Desk:
    return Desk(Bench(clock, **{"hash_key": HASH_KEY, "secret_key": SECRET_KEY, **ANSWERED, **more}))


def sent(one: Desk) -> list[tuple[str, str, str, str]]:
    """The answers, the first first: words, sender, state, reference."""
    d = Dispatcher(one.bench.settings)
    d._store.redis = one.bench.redis
    jobs = sorted(d.jobs(provider="ringer", reveal=True), key=lambda job: job.id)
    return [(job.text, job.sender, str(job.state), job.reference) for job in jobs]


class TestAnswers:
    def test_one_confirms_a_stop(self, clock: Clock) -> None:
        one = desk(clock)
        assert one.text("STOP", to=OUR_NUMBER, ref="1") == "1 inbound, 1 optouts"
        assert sent(one) == [(ANSWERED["stop_text"], OUR_NUMBER, "queued", "answer to STOP")]
        (queue, (id_,)) = one.published[0]
        assert queue == "ringer.high"
        hashed = one.bench.settings.hashed("number", NUMBER)
        token = one.bench.hold(id_)
        assert one.bench.run(one.bench.calls.claim([Claim(token, id_, "never", hashed)])) == [None], (
            "though they stopped"
        )

    def test_a_second_stop_is_not_answered(self, clock: Clock) -> None:
        one = desk(clock)
        for ref in ("1", "2"):
            one.text("STOP", ref=ref)
            clock.advance(1)
        assert len(sent(one)) == 1

    def test_nor_is_one_that_is_told_again(self, clock: Clock) -> None:
        one = desk(clock)
        assert [one.text("HELP", ref="1"), one.text("HELP", ref="1")] == ["inbound", "duplicates"]
        assert len(sent(one)) == 1

    def test_start_and_help_are_answered(self, clock: Clock) -> None:
        one = desk(clock)
        for ref, word in enumerate(("HELP", "START", "STOP", "START", "HELP")):
            one.text(word, ref=str(ref))
            clock.advance(1)
        words = [ANSWERED[name] for name in ("help_text", "stop_text", "start_text", "help_text")]
        assert [told for told, *_ in sent(one)] == words, "the first START changed nothing"

    def test_help_is_answered_who_stopped_too(self, clock: Clock) -> None:
        one = desk(clock)
        one.text("STOP", ref="1")
        one.text("HELP", ref="2")
        assert [state for _, _, state, _ in sent(one)] == ["queued", "queued"]

    def test_a_start_that_another_stop_outlasts_is_not_confirmed(self, clock: Clock) -> None:
        """It would be no truth."""
        one = desk(clock, stop_scope="sender", providers={"ringer": {"sender": OUR_NUMBER}})
        d = Dispatcher(one.bench.settings)
        d._store.redis = one.bench.redis
        d.opt_out(NUMBER)
        for ref, word in enumerate(("STOP", "START")):
            one.text(word, to=OUR_NUMBER, ref=str(ref))
            clock.advance(1)
        assert [(words, state) for words, _, state, _ in sent(one)] == [
            (ANSWERED["stop_text"], "queued"), (ANSWERED["start_text"], "failed"),
        ]  # fmt: skip

    def test_two_machines_do_not_talk_for_ever(self, clock: Clock) -> None:
        one = desk(clock)
        for ref in range(2 * ANSWERS):
            one.text("HELP", ref=str(ref))
        assert len(sent(one)) == ANSWERS
        clock.advance(3601)
        one.text("HELP", ref="later")
        assert len(sent(one)) == ANSWERS + 1
        assert one.bench.ttl(one.bench.redis.keys("d:nt:*")[0].decode()) == 3600

    @pytest.mark.parametrize("word", ["STOP", "HELP"])
    def test_a_reader_that_dies_before_it_wrote_the_answer_is_read_again(self, clock: Clock, word: str) -> None:
        """And one that dies after it writes no second one."""
        one = desk(clock)
        id_ = one.put(kind="text", from_=NUMBER, to="60777", text=word, ref="1")
        for away, answers in (("create", 0), ("callbacks_done", 1), ("", 1)):
            one.store.away = {away}
            clock.advance(60)
            _read(one, id_)
            assert len(sent(one)) == answers
        assert not one.bench.redis.keys("d:cb:*")

    def test_without_words_nobody_is_answered(self, clock: Clock) -> None:
        one = desk(clock, stop_text="", start_text="", help_text="")
        for ref, word in enumerate(("STOP", "START", "HELP")):
            one.text(word, ref=str(ref))
        assert sent(one) == []
        assert not one.bench.redis.keys("d:nt:*")

    @pytest.mark.parametrize(
        ("sender", "to"),
        [pytest.param("60777", OUR_NUMBER, id="a short code"), pytest.param(OUR_NUMBER, "12125550100", id="ourselves")],
    )
    def test_who_is_nobody_is_not_answered(self, clock: Clock, sender: str, to: str) -> None:
        one = desk(clock)
        one.text("HELP", sender=sender, to=to)
        assert sent(one) == []

    def test_a_country_that_nobody_is_texted_in_is_not_either(self, clock: Clock) -> None:
        one = desk(clock)
        one.bench.redis.hset("d:kc", "GB", "1 ")
        one.text("HELP")
        assert [state for _, _, state, _ in sent(one)] == ["failed"]

    def test_what_may_not_be_sent_at_all_is_said_in_the_log(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = desk(clock, countries="US")
        assert one.text("STOP") == "1 inbound, 1 optouts"
        assert sent(one) == []
        assert "is not answered" in caplog.text
        assert leaks(caplog.text, NUMBER) == []


def _read(one: Desk, id_: str) -> None:
    """Read a callback whose end may not be written."""
    one.reader._settings = settings(lease=0.01, deadline=0.005)
    with suppress(StoreUnavailable):
        one.read(id_)


# -- what a stop covers ------------------------------------------------------------------------------------------------


class TestStopScope:
    """With `sender` a stop is about the number it was texted to, where it is known what comes from there."""

    @pytest.mark.parametrize(
        ("sender", "to", "narrow"),
        [
            pytest.param(OUR_NUMBER, OUR_NUMBER, True, id="the account's own number"),
            pytest.param(OUR_NUMBER, "60777", True, id="another number of an account that sends from numbers"),
            pytest.param("ACME", OUR_NUMBER, False, id="an account that sends as a name"),
            pytest.param("", OUR_NUMBER, False, id="an account whose texts need not say who they are from"),
            pytest.param(OUR_NUMBER, "honey", False, id="a keyword"),
            pytest.param(OUR_NUMBER, "", False, id="nowhere that is told"),
        ],
    )
    def test_it_is_about_one_number_or_else_about_all(self, clock: Clock, sender: str, to: str, narrow: bool) -> None:
        accounts = {"ringer": {"sender": sender} if sender else {}}
        one = desk(clock, stop_scope="sender", providers=accounts, **dict.fromkeys(ANSWERED, ""))
        d = Dispatcher(one.bench.settings)
        d._store.redis = one.bench.redis
        one.text("STOP", to=to, ref="1")
        assert bool(d.opted_out(NUMBER, sender="Other")) is not narrow
        assert d.opted_out(NUMBER, sender=to or "Other")
        clock.advance(1)
        one.text("START", to=to, ref="2")
        assert d.opt_outs(NUMBER) == [], "the same way back"

    def test_a_start_lifts_no_more_than_a_stop_could_have_put_there(self, clock: Clock) -> None:
        one = desk(clock, stop_scope="sender", providers={"ringer": {"sender": OUR_NUMBER}})
        d = Dispatcher(one.bench.settings)
        d._store.redis = one.bench.redis
        d.opt_out(NUMBER)
        d.opt_out(NUMBER, tenant="shop-a")
        clock.advance(1)
        one.text("START", to=OUR_NUMBER)
        assert len(d.opt_outs(NUMBER)) == 2

    def test_stops_of_before_are_lifted_by_a_start_whatever_the_scope_is_now(self, clock: Clock) -> None:
        one = desk(clock, stop_scope="sender", providers={"ringer": {"sender": OUR_NUMBER}})
        one.bench.redis.hset("d:no", one.bench.settings.hashed("number", NUMBER), "1700000000000 text")
        one.text("START", to=OUR_NUMBER)
        assert not one.bench.redis.exists("d:no")


# -- what a provider blocks itself -------------------------------------------------------------------------------------


def refused(bench: Bench, account: str = "ringer", code: str = "BLOCKED", number: str = NUMBER) -> None:
    """Let an account refuse a text, since the person opted out there."""
    told: Outcome = Failure(kind=FailureKind.OPTED_OUT, code=code)
    adapter = Ringer(account, {"uid": "x", "pwd": "x"})
    for call in consent.refusals(OptOuts(bench.settings), [(adapter, number, told)]):
        bench.run(call)


def told(d: Dispatcher) -> list[Event]:
    return [event for event in d.events("0", timeout=0) if event.type.startswith("optout.")]


class TestBlocks:
    def test_a_refusal_puts_them_on_the_list_of_all(self, shop: Shop) -> None:
        refused(shop.bench)
        d = shop.dispatcher
        assert d.opted_out(NUMBER)
        assert [*d.blocked_by(NUMBER)] == ["ringer"]
        (event,) = told(d)
        assert (event.data["by"], event.data["provider"]) == ("provider", "ringer")
        assert d.send(NUMBER, TEXT).state == "failed"

    @pytest.mark.parametrize("kind", [one for one in FailureKind if one != FailureKind.OPTED_OUT])
    def test_no_other_failure_does(self, shop: Shop, kind: FailureKind) -> None:
        adapter = Ringer("ringer", {"uid": "x", "pwd": "x"})
        assert [*consent.refusals(OptOuts(shop.bench.settings), [(adapter, NUMBER, Failure(kind=kind))])] == []

    def test_a_registers_word_is_not_theirs(self, shop: Shop) -> None:
        """That somebody wants no advertising is no reason to keep their codes from them."""
        refused(shop.bench, code="REGISTER")
        assert not shop.dispatcher.opted_out(NUMBER)
        assert [*shop.dispatcher.blocked_by(NUMBER)] == ["ringer"]

    def test_who_wants_texts_again_is_told_of_what_that_cannot_lift(self, shop: Shop) -> None:
        refused(shop.bench)
        shop.clock.advance(1)
        d = shop.dispatcher
        assert d.opt_in(NUMBER) is True
        assert told(d)[-1].data["blocked_by"] == ["ringer"]
        assert [*d.blocked_by(NUMBER)] == ["ringer"]
        assert d.send(NUMBER, TEXT).state == "queued"
        assert d.opt_in(NUMBER) is False

    def test_the_same_block_puts_nobody_back_on_the_list(self, shop: Shop) -> None:
        refused(shop.bench)
        shop.clock.advance(1)
        shop.dispatcher.opt_in(NUMBER)
        shop.clock.advance(1)
        refused(shop.bench)
        assert not shop.dispatcher.opted_out(NUMBER)

    def test_another_accounts_does(self, shop: Shop) -> None:
        refused(shop.bench)
        shop.clock.advance(1)
        shop.dispatcher.opt_in(NUMBER)
        shop.clock.advance(1)
        refused(shop.bench, "other")
        assert shop.dispatcher.opted_out(NUMBER)

    @pytest.mark.parametrize(
        ("fields", "to", "gone"),
        [
            pytest.param({"y": "none"}, "sent", True, id="taken, where no receipt would tell"),
            pytest.param({"y": "expected"}, "sent", False, id="taken, where one may tell otherwise"),
            pytest.param({}, "delivered", True, id="delivered"),
            pytest.param({}, "failed", False, id="refused again"),
        ],
    )
    def test_a_block_is_over_once_a_text_gets_through(
        self, shop: Shop, fields: dict[str, str], to: str, gone: bool
    ) -> None:
        """Then the next refusal is their word again."""
        shop.serve("textgoto", "send")
        refused(shop.bench, "textgoto")
        shop.clock.advance(1)
        shop.dispatcher.opt_in(NUMBER)
        id_ = shop.dispatcher.send(NUMBER, TEXT, provider="textgoto").id
        assert claimed(shop, id_) == [None], "it is asked, since nobody else is"
        token = shop.bench.redis.hget(f"d:j:{id_}", "f").decode()
        shop.bench.advance(id_, token, to, fields=fields)
        assert (shop.dispatcher.blocked_by(NUMBER) == {}) is gone
        shop.clock.advance(1)
        refused(shop.bench, "textgoto")
        assert bool(shop.dispatcher.opted_out(NUMBER)) is gone

    def test_a_text_goes_on_to_an_account_that_does_not_block_them(self, shop: Shop) -> None:
        for name in ("textgoto", "clubtexting"):
            shop.serve(name, "send")
        refused(shop.bench, "textgoto")
        shop.clock.advance(1)
        shop.dispatcher.opt_in(NUMBER)
        id_ = shop.dispatcher.send(NUMBER, TEXT, provider=["textgoto", "clubtexting"]).id
        assert claimed(shop, id_) == ["queued"]
        job = shop.dispatcher.get(id_)
        assert (job.provider, job.attempts) == ("clubtexting", 0)
        assert job.history[-1].detail == "moves to clubtexting: textgoto itself blocks them"
        assert shop.bench.due("clubtexting") == [id_]
        assert claimed(shop, id_) == [None]

    def test_a_provider_that_says_it_is_over_is_believed(self, clock: Clock) -> None:
        one = desk(clock)
        one.tell(kind="stop", number=NUMBER)
        clock.advance(1)
        one.tell(kind="start", number=NUMBER)
        assert not one.bench.redis.exists("d:no", "d:nb")

    def test_a_receipt_that_tells_of_it_is_enough(self, clock: Clock) -> None:
        one = desk(clock)
        one.sent("0001")
        one.receipt("undelivered", refused="1")
        assert one.bench.redis.hexists("d:nb", one.bench.settings.hashed("number", NUMBER))

    def test_of_who_was_forgotten_since_the_hash_alone_comes_onto_the_list(self, clock: Clock) -> None:
        """It is kept for ever, and so would the number be."""
        one = desk(clock)
        one.sent("0001")
        assert one.bench.run(one.bench.calls.forget([("0001", b'{"kind":"send","operation":"send"}')])) == ["forgotten"]
        assert one.receipt("undelivered", refused="1") == "late"
        d = Dispatcher(one.bench.settings)
        d._store.redis = one.bench.redis
        assert d.opted_out(NUMBER)
        assert [entry.number for entry in d.opt_outs(NUMBER, reveal=True)] == [None]
        assert [event.data["number"] for event in d.events("0", timeout=0, reveal=True) if "optout" in event.type] == [
            ""
        ]


def test_without_a_hash_key_there_is_no_list(clock: Clock) -> None:
    bench = Bench(clock, hash_key="", secret_key="")
    refused(bench)
    assert not bench.redis.exists("d:no", "d:nb")


@pytest.mark.parametrize(("sender", "said"), [("5215512345678", True), ("60777", True), (NUMBER, False)])
def test_a_stop_that_puts_nobody_on_the_list_is_told(
    clock: Clock, caplog: pytest.LogCaptureFixture, sender: str, said: bool
) -> None:
    """Such as a number in a form that its country gave up: whoever runs this must know that somebody said stop."""
    one = desk(clock)
    one.text("STOP", sender=sender, ref="1")
    assert ("a stop that came by ringer is from no number" in caplog.text) is said
    assert one.bench.redis.exists("d:no") == (not said)
    assert not leaks(caplog.text, sender)


class TestWithoutTheKey:
    """A worker that was started without a hash key, before there was a list, and still runs."""

    def test_it_texts_nobody_since_it_could_not_tell_who_wants_none(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        road = Road(clock)
        keyed = road.bench.settings
        road.enqueue("0001")
        road.bench.run(OptOuts(keyed).put(OTHER, By.APPLICATION, out=True))
        road.bench.settings = settings(hash_key="")
        word = road.run("0001")
        assert (word, road.wire.sent) == ("queued:worker", [])
        assert "DISPATCHER_HASH_KEY is not set here" in caplog.text
        assert not leaks(caplog.text, NUMBER, OTHER)
        road.bench.settings = keyed
        assert road.again("0001", word) == "sent", "whoever has the key sends it"

    def test_while_nobody_is_on_the_list_it_sends(self, clock: Clock) -> None:
        road = Road(clock, hash_key="")
        road.enqueue("0001")
        assert road.run("0001") == "sent"

    def test_what_asks_for_nothing_of_the_list_goes_on(self, clock: Clock) -> None:
        """No text, and what is sent whether they want texts or not."""
        road = Road(clock)
        road.bench.run(OptOuts(road.bench.settings).put(NUMBER, By.APPLICATION, out=True))
        road.enqueue("0001", Lookup(to=NUMBER))
        road.enqueue("0002")
        road.bench.redis.hset("d:j:0002", "ps", "1")
        road.bench.settings = settings(hash_key="")
        assert [road.run("0001"), road.run("0002")] == ["sent", "sent"]

    def test_it_leaves_a_stop_to_a_worker_that_can_read_it(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        one = desk(clock)
        keyed, one.reader._settings = one.reader._settings, settings(hash_key="")
        id_ = one.put(kind="text", from_=NUMBER, to=OUR_NUMBER, text="STOP")
        assert one.read(id_) == "left"
        assert "DISPATCHER_HASH_KEY is not set" in caplog.text
        one.reader._settings = keyed
        assert one.read(id_) == "1 inbound, 1 optouts"

    def test_whoever_tells_a_provider_to_leave_somebody_alone_needs_it_too(self, shop: Shop) -> None:
        """Else the provider would be told, and our own list not."""
        shop.dispatcher.opt_out(OTHER)
        with Dispatcher(settings(hash_key="", secret_key=SECRET_KEY, providers={"textgoto": {"uid": "x"}})) as d:
            d._store.redis = shop.bench.redis
            with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY"):
                d.operation("textgoto", "optout.add", number=NUMBER)
            assert d.jobs() == []
