"""A person is forgotten: nothing private of theirs is left in Redis, whatever state their jobs were in; others stay."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from dispatcher import (
    ConfigurationError,
    Dispatcher,
    IllegalMove,
    InvalidRequest,
    Message,
    State,
    WaitTimeout,
)
from dispatcher.callbacks import CallbackCalls
from dispatcher.calls import MOST, Advance, Call, Word, script
from dispatcher.forgetting import mentions
from dispatcher.optouts import OptOuts, Text
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.records import encode_failure
from tests.unit.support import HASH_KEY, NUMBER, OTHER, SECRET_KEY, Bench, Clock, settings
from tests.unit.test_client import ALL, Shop
from tests.unit.test_retention import Story, lifetimes, strays

#: What must not be left; the last is the number as another party may write it.
CANARIES = ("canary-text", "canary-ref", "canary-meta", "canary-words", "canary-result", "canary-code", NUMBER[1:])
CODE = "canary-code"

FAILED = encode_failure(Failure(kind=FailureKind.REJECTED, code="17", message="canary-words is no text"))


def open_shop(clock: Clock, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> Shop:
    """Without a secret key unless told, so that whatever is private would be seen."""
    one = Shop(clock, **{"secret_key": "", "sandbox": False} | overrides)
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    one.serve("textgoto", *ALL, "verify.check")
    return one


@pytest.fixture
def shop(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return open_shop(clock, monkeypatch)


@pytest.fixture
def dispatcher(shop: Shop) -> Dispatcher:
    return shop.dispatcher


def send(shop: Shop, number: str = NUMBER, **terms: Any) -> str:
    usual = {"reference": "canary-ref", "metadata": {"canary-meta": "canary-meta"}, "tenant": "shop-a"}
    return shop.dispatcher.send(number, "canary-text", **usual | terms).id


def left(bench: Bench, *, but: tuple[str, ...] = ()) -> set[str]:
    """The canaries that are anywhere in Redis, keys included."""
    everything = repr({key: one for key, one in bench.dump().items() if not key.startswith(but or ("-",))})
    return {one for one in CANARIES if one in everything}


def ended(shop: Shop, to: str) -> str:
    """A job in a state, with everything that may come to lie in it."""
    id_ = send(shop)
    if to == "queued":
        return id_
    fields = {"m": "canary-ref", "c": "0.1 EUR", "r": '{"who": "canary-result"}', "vb": "canary-result"}
    token = shop.bench.claim(id_)
    if to in {"failed", "unknown", "undelivered"}:
        fields["e"] = FAILED.decode()
    told = {"tried": "accepted canary-ref", "detail": "rejected 17: canary-words"}
    first = "sent" if to == "undelivered" else to
    assert shop.bench.advance(id_, token, first, fields=fields, **told) == first
    if to == "undelivered":
        word = Word(provider="textgoto", own=id_, state=State.UNDELIVERED, detail="x: canary-words", fields=fields)
        assert shop.bench.run(shop.bench.calls.receipts([word])) == ["moved"]
    return id_


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "sent", "delivered", "undelivered", "failed", "unknown"])
def test_of_a_job_in_any_state_only_what_accounts_need_is_left(shop: Shop, state: str) -> None:
    id_ = ended(shop, state)
    assert left(shop.bench) >= {"canary-text", "canary-ref", "canary-meta"}
    told = shop.dispatcher.forget(NUMBER)
    assert (told.jobs, told.cancelled, told.complete) == (1, state == "queued", True)
    assert left(shop.bench) == set()
    job = shop.dispatcher.get(id_, reveal=True)
    assert job.state == ("cancelled" if state == "queued" else state)
    assert (job.to, job.text, job.sender, job.reference, job.metadata) == ("", "", "", "", {})
    assert (job.provider_ref, job.result) == (None, None)
    assert (job.tenant, job.category, job.segments, job.provider) == ("shop-a", "transactional", 1, "textgoto")
    assert job.history[-1].detail == "the person was forgotten"
    assert state == "queued" or job.price == "0.1 EUR"
    assert job.failure is None or job.failure.message == ""
    assert shop.dispatcher.jobs(number=NUMBER) == []


def test_where_they_are_is_forgotten(shop: Shop) -> None:
    """The zone was named for this person alone."""
    id_ = send(shop, timezone="Asia/Tokyo")
    shop.dispatcher.forget(NUMBER)
    assert "Tokyo" not in str(shop.bench.raw(id_))


def test_what_waits_for_the_morning_is_found_however_short_the_retention(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are found by day; it is kept for an hour from when it can be over, which is not before the night is."""
    clock.ms = round(datetime(2026, 11, 20, 22, tzinfo=UTC).timestamp() * 1000)
    monkeypatch.setattr("dispatcher.drafts.time", clock)
    shop = open_shop(clock, monkeypatch, retention=3600)
    id_ = send(shop, category="promotional")
    clock.advance(3 * 3600)
    shop.bench.sweep()
    assert shop.dispatcher.forget(NUMBER).cancelled == 1
    assert shop.dispatcher.get(id_).state == "cancelled"


def test_what_is_being_sent_stays_and_is_told(shop: Shop) -> None:
    """Its worker has the text in its hands; done again once it ended, nothing is left."""
    id_ = send(shop)
    token = shop.bench.claim(id_)
    told = shop.dispatcher.forget(NUMBER)
    assert (told.jobs, told.sending, told.complete) == (0, 1, False)
    assert shop.bench.advance(id_, token, "sent") == "sent"
    assert shop.dispatcher.forget(NUMBER).jobs == 1
    assert left(shop.bench) == set()


def test_a_worker_that_holds_it_can_not_send_it(shop: Shop) -> None:
    """Taken, but not claimed: the claim is refused."""
    id_ = send(shop)
    token = shop.bench.hold(id_)
    assert shop.dispatcher.forget(NUMBER).cancelled == 1
    assert shop.bench.refused_claim(token, id_) == "cancelled"


LATE: dict[str, Callable[[Shop, str, str], object]] = {
    "its outcome, under its token": lambda shop, id_, token: shop.bench.advance(
        id_,
        token,
        "sent",
        "accepted: canary-words",
        tried="accepted canary-ref",
        fields={"m": "canary-ref", "r": "canary-result", "vh": "h", "e": FAILED, "c": "0.2 EUR"},
    ),
    "a receipt": lambda shop, id_, token: shop.bench.run(
        shop.bench.calls.receipts(
            [
                Word(
                    provider="textgoto",
                    own=id_,
                    state=State.UNDELIVERED,
                    detail="said: canary-words",
                    fields={"e": FAILED, "m": "canary-ref"},
                )
            ]
        )
    ),
    "what decides nothing": lambda shop, id_, token: shop.bench.run(
        shop.bench.calls.receipts([Word(provider="textgoto", own=id_, state=None, detail="said: canary-words")])
    ),
}


@pytest.mark.parametrize("news", LATE)
def test_late_news_of_a_forgotten_job_bring_nobody_back(shop: Shop, news: str) -> None:
    id_ = send(shop)
    token = shop.bench.claim(id_)
    assert shop.bench.advance(id_, token, "unknown") == "unknown"
    shop.dispatcher.forget(NUMBER)
    LATE[news](shop, id_, token)
    assert left(shop.bench) == set()


def test_its_price_is_told_late_all_the_same(shop: Shop) -> None:
    id_ = send(shop)
    token = shop.bench.claim(id_)
    shop.bench.advance(id_, token, "unknown")
    shop.dispatcher.forget(NUMBER)
    LATE["its outcome, under its token"](shop, id_, token)
    job = shop.dispatcher.get(id_)
    assert (job.state, job.price) == ("sent", "0.2 EUR")


def test_a_forgotten_job_never_waits_to_be_sent_again(shop: Shop) -> None:
    id_ = send(shop, on_unknown="resend")
    token = shop.bench.claim(id_, repeat="resend")
    shop.bench.advance(id_, token, "unknown")
    shop.dispatcher.forget(NUMBER)
    back = Advance(id=id_, guard="=unknown", state=State.QUEUED, detail="surely not taken", wait="retry")
    assert shop.bench.run(shop.bench.calls.advance([back])) == [""]
    assert shop.bench.state(id_) == "unknown"


@pytest.mark.parametrize("state", ["failed", "undelivered", "queued"])
def test_a_forgotten_job_is_not_redriven(shop: Shop, state: str) -> None:
    id_ = ended(shop, state)
    shop.dispatcher.forget(NUMBER)
    with pytest.raises(InvalidRequest, match="is about a person who was forgotten"):
        shop.dispatcher.redrive(id_)


def test_nor_where_it_was_read_before(shop: Shop) -> None:
    """A redrive that read the job, and writes the new one just after its person was forgotten."""
    id_ = ended(shop, "failed")
    redrive = shop.dispatcher._redrive()
    ((_, draft),) = redrive._looked([id_], None, resend=False)
    assert not isinstance(draft, str | Exception)
    shop.dispatcher.forget(NUMBER)
    made = shop.dispatcher._write("textgoto", draft.lane, "", [draft.record], more=False)
    assert made.ids == [""]
    assert left(shop.bench) == set()


def test_all_jobs_of_a_person_are_found_however_many(shop: Shop) -> None:
    """More than one look at the list, over several days."""
    shop.dispatcher.send_many([Message(NUMBER, "canary-text")] * (MOST + 20))
    shop.clock.advance(3 * 86400)
    send(shop)
    told = shop.dispatcher.forget(NUMBER)
    assert (told.jobs, told.cancelled) == (MOST + 21, MOST + 21)
    assert left(shop.bench) == set()


def test_others_are_left_alone(shop: Shop) -> None:
    """Also in the same batch, whose counts still add up."""
    batch = shop.dispatcher.send_many([Message(NUMBER, "a"), Message(OTHER, "b"), Message(OTHER, "c")])
    shop.dispatcher.forget(NUMBER)
    first, *others = shop.dispatcher.get_many(list(batch.jobs.ids), reveal=True).values()
    assert (first.to, first.state) == ("", "cancelled")
    assert [(one.to, one.text, one.state) for one in others] == [(OTHER, "b", "queued"), (OTHER, "c", "queued")]
    assert batch.counts == {"queued": 2, "cancelled": 1}
    assert len(shop.dispatcher.jobs(number=OTHER)) == 2


def test_a_job_that_waits_for_its_receipt_goes_nowhere_else(shop: Shop) -> None:
    shop.serve("mobtexting", *ALL)
    id_ = send(shop, provider=["textgoto", "mobtexting"], failover_after=60)
    assert shop.bench.advance(id_, shop.bench.claim(id_), "sent", watched=60) == "sent"
    assert not shop.dispatcher.get(id_).settled
    shop.dispatcher.forget(NUMBER)
    assert shop.dispatcher.get(id_).settled
    shop.clock.advance(120)
    shop.bench.sweep()
    job = shop.dispatcher.get(id_)
    assert (job.state, job.provider, job.settled) == ("sent", "textgoto", True)


def test_done_again_it_finds_nothing(shop: Shop) -> None:
    ended(shop, "sent")
    shop.dispatcher.forget(NUMBER)
    before = shop.bench.dump()
    told = shop.dispatcher.forget(NUMBER)
    assert (told.jobs, told.events, told.keys, told.complete) == (0, 0, 0, True)
    assert shop.bench.dump() == before


def test_a_dry_run_tells_the_same_and_changes_nothing(shop: Shop) -> None:
    for state in ("queued", "sent", "failed"):
        ended(shop, state)
    shop.bench.claim(send(shop))
    said(shop, "hello")
    before = shop.bench.dump()
    would = shop.dispatcher.forget(NUMBER, dry_run=True)
    assert shop.bench.dump() == before
    did = shop.dispatcher.forget(NUMBER)
    assert msgspec.structs.replace(would, dry_run=False, file=did.file) == did
    assert (did.jobs, did.cancelled, did.sending, did.events) == (3, 1, 1, 1)


def test_of_every_way_that_a_job_can_go_nobody_is_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the story of retention plays: guards, batches, codes, dead workers; no key stays without a lifetime."""
    shop = keyed(clock, monkeypatch)
    story = Story(shop.bench, shop.dispatcher)
    story.play()
    counts = shop.dispatcher.batch("closed").counts
    told = [shop.dispatcher.forget(number) for number in (NUMBER, OTHER, "+12125550100")]
    assert all(one.complete for one in told)
    people = [id_ for id_ in story.ends if "balance" not in shop.bench.raw(id_)["d"]]
    jobs = shop.dispatcher.get_many(people, reveal=True)
    assert sum(one.jobs for one in told) == len(jobs)
    assert {one.to + one.text for one in jobs.values()} == {""}
    assert {id_: story.ends[id_] for id_ in people} == {one.id: one.state for one in jobs.values()}
    assert shop.dispatcher.batch("closed").counts == counts
    assert strays(lifetimes(shop.bench.redis)) == set()


# -- codes -------------------------------------------------------------------------------------------------------------


def keyed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A verification needs both keys."""
    return open_shop(clock, monkeypatch, secret_key=SECRET_KEY)


def test_a_verification_is_over_and_no_code_is_right(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = keyed(clock, monkeypatch)
    job = shop.verified("012837")
    shop.dispatcher.forget(NUMBER)
    check = shop.dispatcher.check(job.id, "012837")
    assert (check.valid, check.status) == (False, "cancelled")
    assert {"vh", "vx"} & shop.bench.raw(job.id).keys() == set()
    assert ("verification.cancelled", job.id) in shop.bench.events()


def test_what_a_person_typed_is_forgotten_with_them(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider judges, it lies in a job that names no number."""
    shop = keyed(clock, monkeypatch)
    job = shop.dispatcher.verify(NUMBER)
    shop.sent(job.id, code_ttl=300, m="ref")
    with pytest.raises(WaitTimeout):
        shop.dispatcher.check(job.id, CODE, timeout=0.01)
    (asked,) = [one for one in shop.dispatcher.jobs(number=NUMBER) if one.operation == "verify.check"]
    assert shop.dispatcher.forget(NUMBER).jobs == 2
    assert shop.bench.redis.hget(f"d:j:{asked.id}", "x") == b""


# -- what they said ----------------------------------------------------------------------------------------------------


def said(shop: Shop, text: str, sender: str = NUMBER) -> None:
    told = Text(provider="textgoto", sender=sender, to="12345", text=text, at="now", received=shop.clock.ms)
    made = OptOuts(shop.bench.settings)
    verdict = made.verdict(text)
    shop.bench.run(made.said(msgspec.structs.replace(told, verdict=verdict), text + sender))


@pytest.mark.parametrize("key", ["", SECRET_KEY])
@pytest.mark.parametrize("sender", [NUMBER, NUMBER[1:], "00" + NUMBER[1:]])
def test_texts_from_a_person_leave_the_stream(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, key: str, sender: str
) -> None:
    shop = open_shop(clock, monkeypatch, secret_key=key)
    said(shop, "canary-text", sender)
    said(shop, "hello", OTHER)
    told = shop.dispatcher.forget(NUMBER)
    assert told.events == 1
    (event,) = shop.dispatcher.events("0", timeout=0, reveal=True)
    assert (event.data["from"], event.data["text"]) == (OTHER, "hello")
    assert left(shop.bench) == set()


def test_who_wants_texts_again_is_not_said_to_want_none(shop: Shop) -> None:
    """Though an account blocks them all the same, and the list remembers that."""
    refused = OptOuts(shop.bench.settings).refused(NUMBER, "textgoto")
    shop.bench.run(refused)
    shop.clock.advance(1)
    shop.dispatcher.opt_in(NUMBER)
    assert shop.bench.redis.hlen("d:no") == 1
    assert shop.dispatcher.forget(NUMBER).opted_out is False


def test_that_they_want_no_texts_is_kept_as_a_hash(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = open_shop(clock, monkeypatch, secret_key=SECRET_KEY)
    said(shop, "STOP")
    shop.dispatcher.opt_out(OTHER)
    before = shop.bench.redis.hgetall("d:no")
    told = shop.dispatcher.forget(NUMBER)
    assert (told.opted_out, told.events) == (True, 2)
    assert shop.dispatcher.opted_out(NUMBER) is not None
    assert send(shop) in {one.id for one in shop.dispatcher.jobs(state="failed")}
    listed = shop.bench.redis.hgetall("d:no")
    mine = shop.bench.settings.hashed("number", NUMBER).encode()
    assert len(listed[mine].split(b" ")) == 2, "when and by whom, and nothing sealed beside it"
    assert {one: listed[one] for one in listed if one != mine} == {one: before[one] for one in before if one != mine}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"from=%2B447700900123&text=x", id="a form"),
        pytest.param(b'{"from": "447700900123"}', id="JSON"),
        pytest.param(b'{"msisdn": 447700900123}', id="a number"),
        pytest.param(b"<from>07700 900 123</from>", id="in groups, as at home"),
    ],
)
def test_callbacks_that_mention_a_person(shop: Shop, body: bytes) -> None:
    """Set aside they go; one that waits to be read may be a STOP, and is read first."""
    calls = CallbackCalls(shop.bench.settings)
    for id_, content in (("aside", body), ("waits", body), ("others", body.replace(b"123", b"124"))):
        kept = msgspec.json.encode({"method": "POST", "query": "", "body": content})
        shop.bench.run(calls.put(id_, "textgoto", kept))
    for id_ in ("aside", "others"):
        for _ in range(3):
            shop.bench.run(calls.take([id_]))
        assert shop.bench.run(calls.failed(id_, blamed=True)) == 1
    told = shop.dispatcher.forget(NUMBER)
    assert (told.callbacks, told.unread, told.complete) == (1, 1, False)
    assert shop.bench.names() >= {"d:cb:waits", "d:cb:others"}
    assert "d:cb:aside" not in shop.bench.names()
    assert shop.bench.members("d:cx") == {"others"}


def test_what_is_sealed_with_another_key_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be theirs."""
    shop = open_shop(clock, monkeypatch, secret_key="another key")
    said(shop, "canary-text")
    again = Dispatcher(settings())
    again._store.redis = shop.bench.redis
    told = again.forget(NUMBER)
    assert (told.events, told.sealed, told.complete) == (0, 1, False)


def test_whatever_is_named_by_the_number_goes(shop: Shop) -> None:
    """What lookups remember and guards count, and what is yet to come."""
    mine, other = (shop.bench.settings.hashed("number", one) for one in (NUMBER, OTHER))
    for key in ("d:lk:{}", "d:vg:number:600000:{}", "d:lk:{}:textgoto", "d:zz:{}"):
        for hashed in (mine, other):
            shop.bench.redis.set(key.format(hashed), "canary-text")
    assert shop.dispatcher.forget(NUMBER).keys == 4
    assert len([key for key in shop.bench.names() if other in key]) == 4
    assert not [key for key in shop.bench.names() if mine in key]


@pytest.mark.parametrize(
    ("told", "found"),
    [
        pytest.param("+447700900123", True, id="E.164"),
        pytest.param({"a": [{"b": "0044 7700 900123"}]}, True, id="deep"),
        pytest.param({"447700900123": 1}, True, id="a key"),
        pytest.param("call 07700-900-123 now", True, id="as at home, in a text"),
        pytest.param("+447700900124", False, id="another"),
        pytest.param("4477009001234", False, id="a longer one"),
        pytest.param("id 9447700900123", False, id="part of a longer one"),
        pytest.param("", False, id="nothing"),
        pytest.param(None, False, id="null"),
    ],
)
def test_who_is_mentioned(told: Any, found: bool) -> None:
    assert mentions(told, NUMBER) is found


# -- the stream written anew -------------------------------------------------------------------------------------------


def rewrite(bench: Bench, name: str = "copy", most: int = 2) -> int:
    """One portion."""
    return bench.run(Call(script("forget_events"), [name, most], int))


def entries(bench: Bench) -> list[Any]:
    found: list[Any] = bench.redis.xrange("d:e")
    return found


def test_other_events_keep_their_cursors(shop: Shop) -> None:
    """A reader that was away goes on where it was, and what comes next comes behind all that there ever were."""
    for number in range(3):
        said(shop, f"{number}", OTHER)
        said(shop, f"{number}")
        shop.clock.advance(1)
    said(shop, "last words")
    others = entries(shop.bench)[0:-1:2]
    last = entries(shop.bench)[-1][0]
    assert shop.dispatcher.forget(NUMBER).events == 4
    assert entries(shop.bench) == others
    shop.clock.advance(-60)
    said(shop, "hello again", OTHER)
    assert entries(shop.bench)[-1][0] > last
    assert not [name for name in shop.bench.names() if name.startswith("d:ef:")]
    assert shop.bench.ttl("d:e") is None


def test_what_comes_while_it_is_copied_is_there_afterwards(shop: Shop) -> None:
    for number in range(5):
        said(shop, f"{number}", OTHER)
    assert [rewrite(shop.bench), rewrite(shop.bench)] == [0, 0]
    said(shop, "meanwhile", OTHER)
    before = entries(shop.bench)
    assert [rewrite(shop.bench), rewrite(shop.bench)] == [0, 1]
    assert entries(shop.bench) == before


@pytest.mark.parametrize("lost", ["deleted", "trimmed"])
def test_what_goes_while_it_is_copied_does_not_come_back(shop: Shop, lost: str) -> None:
    """Two who are forgotten at the same time, and the sweep."""
    for number in range(5):
        said(shop, f"{number}", OTHER)
    assert rewrite(shop.bench) == 0
    _, second, *_ = entries(shop.bench)
    if lost == "deleted":
        shop.bench.redis.xdel("d:e", second[0])
    else:
        shop.bench.redis.xtrim("d:e", minid=second[0])
    left = entries(shop.bench)
    while not rewrite(shop.bench):
        pass
    assert entries(shop.bench) == left


def test_a_copy_that_nobody_ends_is_gone_soon(shop: Shop) -> None:
    for number in range(5):
        said(shop, f"{number}", OTHER)
    rewrite(shop.bench)
    assert (shop.bench.ttl("d:ef:copy") or 0) <= 600


# -- around it ---------------------------------------------------------------------------------------------------------


def test_without_a_hash_key_nobody_is_found(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = open_shop(clock, monkeypatch, hash_key="")
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY is not set and finding what is kept"):
        shop.dispatcher.forget(NUMBER)


def test_with_another_hash_key_it_is_refused(shop: Shop) -> None:
    send(shop)
    again = Dispatcher(settings(hash_key=HASH_KEY + "!"))
    again._store.redis = shop.bench.redis
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY"):
        again.forget(NUMBER)


@pytest.mark.parametrize("number", ["", "12", None, "somebody"])
def test_what_is_no_number_is_refused(dispatcher: Dispatcher, number: Any) -> None:
    with pytest.raises(InvalidRequest, match="number"):
        dispatcher.forget(number)


def test_it_shows_no_number_and_logs_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    send(shop)
    told = shop.dispatcher.forget(NUMBER)
    assert NUMBER[1:] not in repr(told) + caplog.text + str(told.to_dict())
    assert told.number.endswith("23")


def test_a_forgotten_job_cannot_be_resolved_into_words(shop: Shop) -> None:
    """An operator's note is about the person, too."""
    id_ = ended(shop, "unknown")
    shop.dispatcher.forget(NUMBER)
    job = shop.dispatcher.resolve(id_, "failed", note="canary-words")
    assert job.state == "failed"
    assert left(shop.bench) == set()
    with pytest.raises(IllegalMove):
        shop.dispatcher.cancel(id_)
