"""Jobs that ended badly are made anew: as they were asked for, once each, and none behind anybody's back."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pytest

from dispatcher import (
    ConfigurationError,
    Dispatcher,
    DispatcherError,
    IllegalMove,
    InvalidRequest,
    Job,
    Message,
    NotFound,
    Redriven,
    State,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
)
from dispatcher.calls import Word
from dispatcher.jobs import CHECK
from dispatcher.recovery import in_words
from tests.unit import test_cli, test_client
from tests.unit.support import NUMBER, OTHER, TEXT, Bench, Clock, leaks
from tests.unit.test_cli import ID, Run, one_paragraph
from tests.unit.test_client import TWO, Shop

shop = test_client.shop
dispatcher = test_client.dispatcher
away = test_cli.away
memory = test_cli.memory
run = test_cli.run

CARD: Final = {
    "amount": "1", "first_name": "Ann", "last_name": "Bee", "street": "1 Any Street", "city": "Any", "state": "CA",
    "zip": "90210", "country": "US", "credit_card_type_id": "1", "card_number": "4111111111111111",
    "security_code": "123", "expiration_month": "12", "expiration_year": "2030",
}  # fmt: skip

FAILED: Final = b'{"kind":"%s","code":"X","message":"no"}'

#: What keeps a listing by state from noticing what was made in the very same millisecond.
_LATER: Final = 1


def end(shop: Shop, job: Job | str, state: str = "failed", kind: str = "rejected") -> str:
    """Let a job end, as its worker or the clock would; its id."""
    id_ = job if isinstance(job, str) else job.id
    if state == "cancelled":
        shop.dispatcher.cancel(id_)
        return id_
    fields = {"e": FAILED % kind.encode()} if state in {"failed", "undelivered", "unknown", "expired"} else {}
    if state == "expired":
        shop.bench.advance(id_, "=queued", state, fields=fields)
    elif state in {"delivered", "undelivered"}:
        shop.sent(id_)
        word = Word(provider="textgoto", own=id_, state=State(state), detail="told", fields=fields)
        assert shop.bench.run(shop.bench.calls.receipts([word])) == ["moved"]
    elif state != "queued":
        token = shop.bench.claim(id_)
        _ = state == "sending" or shop.bench.advance(id_, token, state, fields=fields)
    assert shop.bench.state(id_) == state
    return id_


def ended(shop: Shop, state: str = "failed", kind: str = "rejected", **terms: Any) -> str:
    """A text that ended like that."""
    return end(shop, shop.dispatcher.send(NUMBER, TEXT, **terms), state, kind)


def public(shop: Shop, id_: str) -> dict[str, Any]:
    """The public part of a record, but for what tells the new one from the old."""
    told: dict[str, Any] = msgspec.json.decode(shop.bench.redis.hget(f"d:j:{id_}", "d"))
    return {name: one for name, one in told.items() if name not in {"redrive_of", "possible_duplicate"}}


def made_of(shop: Shop, *ids: str) -> list[str]:
    """The jobs that were made of these, by what the old ones remember."""
    return [shop.bench.raw(id_)["rd"] for id_ in ids]


# -- one ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled", "undelivered"])
def test_what_ended_badly_is_made_anew(shop: Shop, state: str) -> None:
    old = ended(shop, state)
    shop.published.clear()
    job = shop.dispatcher.redrive(old)
    assert (job.state, job.redrive_of, job.possible_duplicate, job.batch_id) == (State.QUEUED, old, False, None)
    assert [one.detail for one in job.history] == [f"created, to redrive {old}, which was {state}"]
    assert shop.published == [("textgoto", [job.id])]
    assert shop.bench.story(old)[-1] == f"{state}: redriven as {job.id}"
    assert shop.dispatcher.get(old).state == state
    assert shop.sent(job.id)


def test_it_is_asked_for_as_it_was(shop: Shop) -> None:
    shop.serve("other", "send")
    terms: dict[str, Any] = {
        "sender": "ACME", "provider": "other", "category": "promotional", "reference": "order-17", "lane": "high",
        "metadata": {"crm": 4}, "tenant": "shop-a", "valid_for": 600, "options": {"time": "x"}, "on_unknown": "resend",
    }  # fmt: skip
    old = ended(shop, idempotency_key="order-17-shipped", **terms)
    job = shop.dispatcher.redrive(old)
    assert public(shop, job.id) == public(shop, old)
    before, after = (shop.dispatcher.get(one, reveal=True) for one in (old, job.id))
    for name in ("to", "text", "sender", "provider", "reference", "metadata", "tenant", "category", "segments"):
        assert getattr(after, name) == getattr(before, name), name
    assert shop.published[-1] == ("other.high", [job.id])
    assert "ik" not in shop.bench.raw(job.id), "its key stays with the old one"
    assert shop.dispatcher.send(NUMBER, TEXT, idempotency_key="order-17-shipped", **terms).id == old
    assert job.id in {one.id for one in shop.dispatcher.jobs(number=NUMBER)}


def test_its_time_begins_again(shop: Shop) -> None:
    old = ended(shop, send_at=shop.clock.ms / 1000 + 60, valid_for=600, state="cancelled")
    shop.clock.advance(3600)
    job = shop.dispatcher.redrive(old)
    assert job.waiting is not None
    assert job.waiting.reason == "worker", "what was to be sent an hour ago is sent now"
    assert job.expires_at == datetime.fromtimestamp(shop.clock.ms / 1000 + 600, UTC)


def test_what_is_for_later_is_still_for_later(shop: Shop) -> None:
    old = ended(shop, send_at=shop.clock.ms / 1000 + 3600, state="cancelled")
    job = shop.dispatcher.redrive(old)
    assert job.waiting is not None
    assert job.waiting.until == datetime.fromtimestamp(shop.clock.ms / 1000 + 3600, UTC)


def test_a_verification_gets_another_code(shop: Shop) -> None:
    old = end(shop, shop.dispatcher.verify(NUMBER, template="[CODE]!", code_ttl=300))
    shop.clock.advance(1000)
    job = shop.dispatcher.redrive(old)
    assert job.verification is not None
    assert job.verification.status == "pending"
    assert job.verification.expires_at == datetime.fromtimestamp(shop.clock.ms / 1000 + 300, UTC)
    assert {"vx", "vh"} & {*shop.bench.raw(job.id)} == set()
    assert shop.published[-1] == ("textgoto.high", [job.id])


@pytest.mark.parametrize("verb", ["lookup", "operation"])
def test_so_is_what_is_no_text(shop: Shop, verb: str) -> None:
    ask = {"lookup": lambda d: d.lookup(NUMBER), "operation": lambda d: d.operation("textgoto", "balance")}
    old = end(shop, ask[verb](shop.dispatcher))
    job = shop.dispatcher.redrive(old)
    assert public(shop, job.id) == public(shop, old)
    assert job.redrive_of == old


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("queued", "it is not over"),
        ("sending", "it is not over"),
        ("sent", "there is nothing to redrive"),
        ("delivered", "there is nothing to redrive"),
        ("completed", "there is nothing to redrive"),
        ("unknown", "it may have been sent; redrive it with resend if twice is better than not at all, or resolve it"),
    ],
)
def test_what_went_well_or_goes_on_is_not(shop: Shop, state: str, why: str) -> None:
    old = ended(shop, state)
    before = shop.bench.dump()
    with pytest.raises(IllegalMove) as refused:
        shop.dispatcher.redrive(old)
    assert str(refused.value) == f"job {old} is {state}: {why}"
    assert shop.bench.dump() == before


@pytest.mark.parametrize("state", ["queued", "sending", "sent", "delivered", "completed"])
def test_nor_with_resend(shop: Shop, state: str) -> None:
    with pytest.raises(IllegalMove, match=f"is {state}: "):
        shop.dispatcher.redrive(ended(shop, state), resend=True)


def test_an_unknown_one_is_sent_all_the_same_by_who_says_so(shop: Shop) -> None:
    old = ended(shop, "unknown")
    job = shop.dispatcher.redrive(old, resend=True)
    assert job.possible_duplicate
    assert job.history[0].detail == f"created, to redrive {old}, which was unknown"
    assert shop.dispatcher.get(old).state == State.UNKNOWN, "of which nobody knows more than before"
    end(shop, job)
    again = shop.dispatcher.redrive(job.id)
    assert again.possible_duplicate, "what the first was is not forgotten"


def test_so_is_one_that_may_have_arrived_by_an_earlier_try(shop: Shop) -> None:
    """Sent twice by the caller's word; of the second it is known that it did not arrive, of the first nothing is."""
    job = shop.dispatcher.send(NUMBER, TEXT, on_unknown="resend")
    doubt: dict[str, Any] = {"fields": {"i": 1}, "tried": "ambiguous "}
    assert shop.bench.advance(job.id, shop.bench.claim(job.id), "queued", wait="retry", **doubt) == "queued"
    shop.bench.due()
    assert shop.dispatcher.redrive(end(shop, job, "undelivered")).possible_duplicate


def test_one_try_that_did_not_arrive_is_no_duplicate(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    shop.bench.advance(job.id, shop.bench.claim(job.id), "unknown", fields={"i": 1}, tried="ambiguous ")
    word = Word(provider="textgoto", own=job.id, state=State.UNDELIVERED, detail="told")
    assert shop.bench.run(shop.bench.calls.receipts([word])) == ["moved"]
    assert not shop.dispatcher.redrive(job.id).possible_duplicate


def test_of_what_never_was_nothing_is_made(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound):
        dispatcher.redrive("0001")


def test_nothing_private_lies_in_redis_in_clear(shop: Shop) -> None:
    shop.dispatcher.redrive(ended(shop))
    assert not leaks(repr(shop.bench.dump()), NUMBER, TEXT)


# -- once --------------------------------------------------------------------------------------------------------------


def test_redriven_again_it_is_the_same_job(shop: Shop) -> None:
    old = ended(shop)
    first = shop.dispatcher.redrive(old)
    assert shop.dispatcher.redrive(old) == first
    end(shop, first)
    assert shop.dispatcher.redrive(old).id == first.id, "what ended badly itself is redriven by its own id"
    second = shop.dispatcher.redrive(first.id)
    assert second.redrive_of == first.id
    assert second.id != first.id


def test_that_lasts_as_long_as_the_old_one_is_kept(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, idempotency_retention=1)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("textgoto", "send")
    old = ended(shop)
    first = shop.dispatcher.redrive(old)
    shop.sent(first.id)
    clock.advance(20 * 86400)
    assert shop.dispatcher.redrive(old).id == first.id


def test_where_the_answer_was_lost_it_is_made_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ended(shop)
    real = shop.dispatcher._store.run

    def lose(call: Any) -> Any:
        answer = real(call)
        if call.script.name == "create":
            monkeypatch.setattr(shop.dispatcher._store, "run", real)
            real(call)
            raise StoreUnavailable("its answer was lost")
        return answer

    monkeypatch.setattr(shop.dispatcher._store, "run", lose)
    with pytest.raises(StoreUnavailable) as lost:
        shop.dispatcher.redrive(old)
    assert [shop.dispatcher.redrive(old).id] == lost.value.job_ids == made_of(shop, old)
    assert len(shop.bench.story(old)) == len(["queued", "sending", "failed", "redriven"])


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_two_who_redrive_at_the_same_moment_make_one_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    """Both have read that nobody did yet."""
    old = ended(shop)
    write, made = shop.dispatcher._write, []

    def meanwhile(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr(shop.dispatcher, "_write", write)
        made.append(shop.dispatcher.redrive(old).id)
        return write(*arguments, **more)

    monkeypatch.setattr(shop.dispatcher, "_write", meanwhile)
    if many:
        report = shop.dispatcher.redrive_many([old], batch_id="late")
        assert (report.redriven, report.known, report.good) == (0, 1, True)
        assert shop.bench.counts("late") == {}
    else:
        assert shop.dispatcher.redrive(old).id == made[0]
    assert [queue for queue, _ in shop.published[1:]] == ["textgoto"]
    assert made_of(shop, old) == made


def test_news_that_come_while_it_is_looked_at_win(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Undelivered when it was read, delivered when it is written: nobody wants it a second time."""
    old = ended(shop, "undelivered")
    write = shop.dispatcher._write

    def late(*arguments: Any, **more: Any) -> Any:
        word = Word(provider="textgoto", own=old, state=State.DELIVERED, detail="told late")
        assert shop.bench.run(shop.bench.calls.receipts([word])) == ["moved"]
        return write(*arguments, **more)

    monkeypatch.setattr(shop.dispatcher, "_write", late)
    shop.published.clear()
    with pytest.raises(InvalidRequest, match=f"id_ '{old}': went on while it was looked at; look again"):
        shop.dispatcher.redrive(old)
    assert shop.published == []
    assert "rd" not in shop.bench.raw(old)
    with pytest.raises(IllegalMove, match="is delivered: there is nothing to redrive"):
        shop.dispatcher.redrive(old)


# -- what cannot be asked for any more ---------------------------------------------------------------------------------


def reseal(shop: Shop, id_: str) -> None:
    with Dispatcher(msgspec_settings(shop, secret_key="another")) as other:
        other._store.redis = shop.bench.redis
        sealed = other._sealer.seal(b"{}", id_)
    shop.bench.redis.hset(f"d:j:{id_}", "x", sealed)


def msgspec_settings(shop: Shop, **other: Any) -> Any:
    return Bench(shop.clock, **other).settings


def rewrite(shop: Shop, id_: str, record: bytes) -> None:
    shop.bench.redis.hset(f"d:j:{id_}", "d", record)


#: What makes a redrive impossible; the error, and its words.
HOPELESS: dict[str, tuple[Callable[[Shop, str], object], type[DispatcherError], str]] = {
    "sealed with a key that is gone": (reseal, ConfigurationError, "was sealed with another key"),
    "of another schema": (
        lambda shop, id_: rewrite(shop, id_, b'{"schema":2,"kind":["new"]}'), InvalidRequest,
        "is a record of schema 2, which this release does not read",
    ),
    "no JSON": (
        lambda shop, id_: rewrite(shop, id_, b"{"), InvalidRequest, "a record that cannot be read: DecodeError",
    ),
    "of a kind that there is not": (
        lambda shop, id_: rewrite(shop, id_, b'{"kind":"fax","operation":"send"}'), InvalidRequest,
        "a record that cannot be read: ValidationError",
    ),
    "a request that is none": (
        lambda shop, id_: shop.bench.redis.hset(f"d:j:{id_}", "x", b"{}"), InvalidRequest,
        "a record that cannot be read: ValidationError",
    ),
    "to somebody who opted out": (
        lambda shop, _: shop.dispatcher.opt_out(NUMBER), InvalidRequest, "texts somebody who asked for no more texts",
    ),
    "of an account that is gone": (
        lambda shop, id_: shop.bench.redis.hset(f"d:j:{id_}", "p", "gone"), UnknownProvider, "'gone' is not known",
    ),
    "of what is not offered": (
        lambda shop, id_: rewrite(shop, id_, b'{"kind":"send","operation":"fax"}'), Unsupported, "does not offer it",
    ),
    "the check of a code": (
        lambda shop, id_: rewrite(shop, id_, b'{"kind":"operation","operation":"%s"}' % CHECK.encode()),
        InvalidRequest, "judged a code; ask check",
    ),
    "forgotten": (lambda shop, id_: shop.bench.redis.delete(f"d:j:{id_}"), NotFound, "there is no job"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "words"), HOPELESS.values(), ids=HOPELESS)
def test_what_cannot_be_asked_for_any_more_says_why(
    shop: Shop, change: Callable[[Shop, str], object], error: type[DispatcherError], words: str
) -> None:
    old = ended(shop)
    change(shop, old)
    before = shop.bench.dump()
    with pytest.raises(error, match=words) as refused:
        shop.dispatcher.redrive(old)
    assert not leaks(str(refused.value), NUMBER, TEXT)
    assert shop.bench.dump() == before


@pytest.mark.parametrize(("change", "error", "words"), HOPELESS.values(), ids=HOPELESS)
def test_and_stops_no_other(
    shop: Shop, change: Callable[[Shop, str], object], error: type[DispatcherError], words: str
) -> None:
    bad, good = ended(shop), end(shop, shop.dispatcher.send(OTHER, TEXT))
    change(shop, bad)
    report = shop.dispatcher.redrive_many([bad, good])
    assert (report.redriven, report.refused, report.good) == (1, 1, False)
    (refusal,) = report.refusals
    assert refusal.id == bad
    assert words.partition("(")[0] in refusal.reason
    assert shop.bench.state(*made_of(shop, good)) == "queued"


def test_a_purchase_by_a_card_is_not_made_without_one(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, allow_card_data=True)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("textgoto", "credits.buy")
    job = shop.dispatcher.operation("textgoto", "credits.buy", arguments=CARD)
    end(shop, job)
    assert "xc" not in shop.bench.raw(job.id)
    with pytest.raises(InvalidRequest, match="was paid for by a card whose details are erased; ask for it anew"):
        shop.dispatcher.redrive(job.id)
    stored = end(shop, shop.dispatcher.operation("textgoto", "credits.buy", amount="1", stored_credit_card="1111"))
    assert shop.dispatcher.redrive(stored).redrive_of == stored, "a card that the vendor has is another matter"


@pytest.mark.parametrize("key", ["secret_key", "hash_key"])
def test_a_verification_needs_the_keys(shop: Shop, key: str) -> None:
    old = end(shop, shop.dispatcher.verify(NUMBER))
    with Dispatcher(msgspec_settings(shop, **{key: ""})) as bare:
        bare._store.redis = shop.bench.redis
        with pytest.raises(ConfigurationError):
            bare.redrive(old)


def test_who_opts_out_in_the_last_moment_gets_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ended(shop)
    monkeypatch.setattr("dispatcher.recovery.Redrive._leave_alone", lambda *_: set())
    shop.dispatcher.opt_out(NUMBER)
    report = shop.dispatcher.redrive_many([old])
    assert (report.redriven, report.refused, report.counts) == (0, 1, {})
    job = shop.dispatcher.redrive(old)
    assert job.failure is not None
    assert (job.state, job.failure.kind) == (State.FAILED, "opted_out")


# -- many --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spring(shop: Shop) -> dict[str, str]:
    """A batch in which there is everything: ids by state."""
    states = ["queued", "sending", "sent", "delivered", "undelivered", "failed", "expired", "cancelled", "unknown"]
    messages = [Message(f"+1212555{100 + n:04}", f"Hi {state}", reference=state) for n, state in enumerate(states)]
    ids = shop.dispatcher.send_many(messages, batch_id="spring").jobs.ids
    return {state: end(shop, id_, state) for state, id_ in zip(states, ids, strict=True)}


def refs(shop: Shop, batch_id: str | None) -> list[str]:
    """The references of the jobs of a batch, in order: what they were made of."""
    assert batch_id is not None
    return [job.reference for job in shop.dispatcher.batch(batch_id).jobs]


def test_a_batch_is_made_anew_as_another_and_its_own_counts_stay(shop: Shop, spring: dict[str, str]) -> None:
    batch = shop.dispatcher.batch("spring")
    before = batch.counts
    report = batch.redrive()
    assert report == Redriven(
        batch_id=report.batch_id, redriven=3,
        counts={"undelivered": {"rejected": 1}, "failed": {"rejected": 1}, "expired": {"rejected": 1}},
    )  # fmt: skip
    assert refs(shop, report.batch_id) == ["undelivered", "failed", "expired"]
    assert batch.counts == before
    new = shop.dispatcher.batch(report.batch_id or "")
    assert (new.counts, new.to_dict()["open"]) == ({"queued": 3}, False)
    assert [job.redrive_of for job in new.jobs] == [spring[one] for one in ("undelivered", "failed", "expired")]


def test_with_resend_its_unknown_ones_too(shop: Shop, spring: dict[str, str]) -> None:
    report = shop.dispatcher.batch("spring").redrive(resend=True)
    assert refs(shop, report.batch_id) == ["undelivered", "failed", "expired", "unknown"]
    duplicates = [job.possible_duplicate for job in shop.dispatcher.batch(report.batch_id or "").jobs]
    assert duplicates == [False, False, False, True]


def test_what_was_taken_back_was_taken_back_on_purpose(shop: Shop, spring: dict[str, str]) -> None:
    report = shop.dispatcher.redrive_many(batch="spring", state="cancelled")
    assert refs(shop, report.batch_id) == ["cancelled"]


@pytest.mark.parametrize("resend", [False, True])
def test_a_dry_run_counts_what_it_would_do_and_does_nothing(shop: Shop, spring: dict[str, str], resend: bool) -> None:
    shop.dispatcher.opt_out("+12125550105")
    shop.dispatcher.redrive(spring["expired"])
    before = shop.bench.dump()
    dry = shop.dispatcher.batch("spring").redrive(dry_run=True, resend=resend)
    assert shop.bench.dump() == before
    done = shop.dispatcher.batch("spring").redrive(resend=resend)
    assert dry == msgspec.structs.replace(done, batch_id=None, dry_run=True)
    assert (done.redriven, done.known, done.refused) == (2 if resend else 1, 1, 1)


def shelf(shop: Shop) -> None:
    """Jobs of two accounts that ended in several ways, an hour apart, the last two now; a reference each."""
    shop.serve("other", "send")
    rows = [
        ("a", "textgoto", "failed", "throttled"), ("b", "textgoto", "failed", "rejected"),
        ("c", "other", "failed", "throttled"), ("d", "other", "expired", "expired"),
        ("e", "textgoto", "undelivered", "rejected"), ("f", "textgoto", "cancelled", "refused"),
        ("g", "textgoto", "unknown", "ambiguous"), ("h", "textgoto", "sent", ""),
        ("i", "textgoto", "failed", "expired"),
    ]  # fmt: skip
    for ref, provider, state, kind in rows:
        job = shop.dispatcher.send(NUMBER, ref, reference=ref, provider=provider)
        if provider == "textgoto":
            end(shop, job, state, kind)
        elif state == "failed":
            token = shop.bench.claim(job.id)
            shop.bench.advance(job.id, token, state, fields={"e": FAILED % kind.encode()})
        else:
            shop.bench.advance(job.id, "=queued", state, fields={"e": FAILED % kind.encode()})
        if ref != "h":
            shop.clock.advance(3600)
    shop.clock.advance(-3600 + _LATER)


HOUR: Final = 3600
FOUND: dict[str, tuple[dict[str, Any], str]] = {
    "of a state": ({"state": "failed"}, "abci"),
    "of a state that must be named": ({"state": "cancelled"}, "f"),
    "of an account": ({"provider": "textgoto"}, "abei"),
    "of an account, sent again": ({"provider": "textgoto", "resend": True}, "abegi"),
    "unknown ones, sent again": ({"state": "unknown", "resend": True}, "g"),
    "of a kind of failure": ({"failure": "throttled"}, "ac"),
    "of all that": ({"state": "failed", "provider": "other", "failure": "throttled"}, "c"),
    "since": ({"since": 1_800_000_000 + 3 * HOUR}, "dei"),
    "since a moment": ({"since": datetime.fromtimestamp(1_800_000_000 + 3 * HOUR, UTC), "provider": "other"}, "d"),
    "since later than any": ({"since": 1_800_000_000 + 24 * HOUR}, ""),
    "of nobody": ({"provider": "nobody"}, ""),
}


@pytest.mark.parametrize(("which", "chosen"), FOUND.values(), ids=FOUND)
def test_they_are_chosen(shop: Shop, which: dict[str, Any], chosen: str) -> None:
    shelf(shop)
    dry = shop.dispatcher.redrive_many(**which, dry_run=True)
    report = shop.dispatcher.redrive_many(**which)
    assert (dry.redriven, dry.counts) == (report.redriven, report.counts)
    assert sorted(refs(shop, report.batch_id) if chosen else []) == sorted(chosen)
    again = shop.dispatcher.redrive_many(**which)
    assert (again.redriven, again.known, again.batch_id) == (0, len(chosen), None), "and once only"


def test_since_is_when_it_ended_and_not_what_was_noted_later(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(TWO)
    first = end(shop, batch.jobs.ids[0])
    shop.clock.advance(60)
    second = end(shop, batch.jobs.ids[1])
    shop.bench.run(shop.bench.calls.receipts([Word(provider="textgoto", own=first, state=None, detail="a late word")]))
    assert shop.bench.story(first)[-1].endswith("a late word")
    report = shop.dispatcher.redrive_many(batch=batch.id, since=shop.clock.ms / 1000)
    assert report.redriven == 1
    assert "rd" in shop.bench.raw(second)


def test_a_code_that_nobody_waits_for_is_not_sent_again(shop: Shop) -> None:
    """After a resend the new code is the right one, by either id: one that a redrive sent would be typed in vain."""
    old = shop.dispatcher.verify(NUMBER)
    shop.clock.advance(30)
    new = shop.dispatcher.resend(old.id)
    assert shop.dispatcher.get(old.id).state == State.CANCELLED
    with pytest.raises(IllegalMove, match=f"another code was sent since, by job {new.id}"):
        shop.dispatcher.redrive(old.id)
    typed = shop.verified()
    shop.dispatcher.check(typed.id, "012837")
    word = Word(provider="textgoto", own=typed.id, state=State.UNDELIVERED, detail="told")
    assert shop.bench.run(shop.bench.calls.receipts([word])) == ["moved"]
    with pytest.raises(IllegalMove, match="its code was typed already"):
        shop.dispatcher.redrive(typed.id)
    report = shop.dispatcher.redrive_many(state="cancelled")
    assert (report.redriven, [one.id for one in report.refusals]) == (0, [old.id])


def test_the_checks_of_codes_are_nobodys_to_redrive(shop: Shop) -> None:
    old = ended(shop)
    rewrite(shop, old, b'{"kind":"operation","operation":"%s"}' % CHECK.encode())
    assert shop.dispatcher.redrive_many(state="failed") == Redriven()


def test_of_each_lane_and_account_into_its_queue(shop: Shop) -> None:
    shelf(shop)
    urgent = ended(shop, lane="high", provider="textgoto")
    shop.published.clear()
    shop.dispatcher.redrive_many(state="failed")
    assert sorted(queue for queue, _ in shop.published) == ["other", "textgoto", "textgoto.high"]
    assert ("textgoto.high", made_of(shop, urgent)) in shop.published


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        pytest.param({}, "ids", id="nothing to choose by"),
        pytest.param({"resend": True, "limit": 3}, "ids", id="nor is that"),
        pytest.param({"ids": ["1"], "state": "failed"}, "ids", id="both"),
        pytest.param({"ids": "0001"}, "ids", id="one id"),
        pytest.param({"ids": [1]}, "ids[0]", id="no id"),
        pytest.param({"state": "sent"}, "state", id="what went well"),
        pytest.param({"state": "unknown"}, "state", id="unknown, unasked"),
        pytest.param({"state": ""}, "state", id="no state"),
        pytest.param({"state": ["failed"]}, "state", id="states"),
        pytest.param({"failure": "bad luck"}, "failure", id="no failure"),
        pytest.param({"provider": 7}, "provider", id="no account"),
        pytest.param({"since": "2h"}, "since", id="no moment"),
        pytest.param({"since": datetime(2027, 1, 1)}, "since", id="no zone"),  # noqa: DTZ001 - what is refused
        pytest.param({"state": "failed", "limit": 0}, "limit", id="none at all"),
        pytest.param({"state": "failed", "limit": True}, "limit", id="no number"),
        pytest.param({"state": "failed", "resend": "no"}, "resend", id="a word for a flag"),
        pytest.param({"state": "failed", "dry_run": 1}, "dry_run", id="a number for a flag"),
        pytest.param({"state": "failed", "batch_id": "a b"}, "batch_id", id="no name"),
        pytest.param({"batch": "spring", "batch_id": "spring"}, "batch_id", id="into itself"),
        pytest.param({"state": "failed", "progress": 1}, "progress", id="no function"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(shop: Shop, arguments: dict[str, Any], field: str) -> None:
    old = ended(shop)
    with pytest.raises(InvalidRequest) as refused:
        shop.dispatcher.redrive_many(**arguments)
    assert refused.value.field == field
    assert "rd" not in shop.bench.raw(old)


def test_a_batch_that_never_was_is_not_found(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound):
        dispatcher.redrive_many(batch="gone")


def test_named_ones_are_told_one_by_one(shop: Shop, spring: dict[str, str]) -> None:
    report = shop.dispatcher.redrive_many([*spring.values(), spring["failed"], "0001"])
    assert (report.redriven, report.known, report.refused) == (4, 0, 6)
    told = {refusal.id: refusal.reason for refusal in report.refusals}
    assert told[spring["unknown"]].startswith(f"job {spring['unknown']} is unknown: it may have been sent")
    assert told["0001"] == "there is no job 0001; it never existed or its retention has passed"
    assert shop.dispatcher.redrive_many([]) == Redriven()


def test_refusals_are_counted_and_the_first_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.recovery._TOLD", 2)
    report = shop.dispatcher.redrive_many([f"{n:04}" for n in range(5)])
    assert (report.refused, len(report.refusals)) == (5, 2)


# -- page by page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("recovery", "store"):
        monkeypatch.setattr(f"dispatcher.{module}.MOST", 2)


@pytest.fixture
def failed(shop: Shop, pages_of_two: None) -> list[str]:
    """Eleven, most of which failed in the same millisecond."""
    batch = shop.dispatcher.send_many([Message(f"+1212555{100 + n:04}", f"Hi {n}") for n in range(11)], batch_id="old")
    for position, id_ in enumerate(batch.jobs.ids):
        shop.clock.advance(position in {1, 8, 9})
        end(shop, id_)
    shop.clock.advance(_LATER)
    return list(batch.jobs.ids)


WAYS: Final[list[dict[str, Any]]] = [{"state": "failed"}, {"batch": "old"}, {"provider": "textgoto", "since": 1}]


@pytest.mark.parametrize("which", WAYS, ids=["by state", "of a batch", "of an account since"])
def test_many_are_looked_at_a_page_at_a_time(shop: Shop, failed: list[str], which: dict[str, Any]) -> None:
    seen: list[int] = []
    report = shop.dispatcher.redrive_many(**which, progress=lambda so_far: seen.append(so_far.redriven))
    assert report.redriven == 11
    assert [one for one in seen if one][:6] == [2, 4, 6, 8, 10, 11]
    assert len(set(made_of(shop, *failed))) == 11
    assert shop.dispatcher.batch(report.batch_id or "").counts == {"queued": 11}


@pytest.mark.parametrize("which", WAYS, ids=["by state", "of a batch", "of an account since"])
@pytest.mark.parametrize("stops", [KeyboardInterrupt, StoreUnavailable("away")], ids=["by hand", "by Redis"])
def test_cut_short_and_made_again_it_goes_on(shop: Shop, failed: list[str], which: dict[str, Any], stops: Any) -> None:
    def stop(report: Redriven) -> None:
        if report.redriven >= 5:
            raise stops

    with pytest.raises((KeyboardInterrupt, StoreUnavailable)):
        shop.dispatcher.redrive_many(**which, batch_id="new", progress=stop)
    assert shop.bench.counts("new") == {"queued": 6}
    assert not shop.dispatcher.batch("new").to_dict()["open"], "whoever waits for it waits for those only"
    report = shop.dispatcher.redrive_many(**which, batch_id="new")
    assert (report.redriven, report.known) == (5, 6)
    assert shop.bench.counts("new") == {"queued": 11}
    assert len(set(made_of(shop, *failed))) == 11


def test_at_most_so_many_and_the_next_time_the_next(shop: Shop, failed: list[str]) -> None:
    shop.dispatcher.opt_out("+12125550109")
    reports = [shop.dispatcher.redrive_many(state="failed", limit=3) for _ in range(4)]
    assert [(one.redriven, one.known, one.refused) for one in reports] == [(3, 0, 0), (3, 3, 0), (3, 6, 0), (1, 9, 1)]
    assert [one.batch_id for one in reports] == list(dict.fromkeys(one.batch_id for one in reports))


def test_what_fails_again_at_once_is_not_made_again_by_the_same_run(shop: Shop, failed: list[str]) -> None:
    """Or it would send to a provider that refuses for as long as that does."""

    def refuse(report: Redriven) -> None:
        for id_ in shop.dispatcher.batch(report.batch_id or "").jobs.ids:
            if shop.bench.state(id_) == "queued":
                end(shop, id_)

    report = shop.dispatcher.redrive_many(state="failed", progress=refuse)
    assert (report.redriven, report.known) == (11, 0)
    assert shop.bench.counts(report.batch_id or "") == {"failed": 11}
    assert shop.bench.events()[-1] == ("batch.settled", report.batch_id)


def test_all_of_it_settles_as_one_batch(shop: Shop, failed: list[str]) -> None:
    report = shop.dispatcher.redrive_many(state="failed")
    for id_ in made_of(shop, *failed):
        shop.sent(id_)
    assert [id_ for event, id_ in shop.bench.events() if event == "batch.settled"] == ["old", report.batch_id]


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "words"),
    [
        pytest.param(Redriven(), "0 jobs redriven", id="nothing"),
        pytest.param(
            Redriven(batch_id="b", redriven=1, counts={"expired": {"expired": 1}}),
            "batch b: 1 job redriven (1 expired)", id="one",
        ),
        pytest.param(
            Redriven(batch_id="b", redriven=6, counts={"failed": {"throttled": 4, "": 1}, "unknown": {"": 1}}, known=1),
            "batch b: 6 jobs redriven (4 failed throttled, 1 failed, 1 unknown), 1 was redriven before", id="several",
        ),
        pytest.param(
            Redriven(dry_run=True, redriven=2, counts={"failed": {"rejected": 2}}, known=3, refused=1),
            "2 jobs would be redriven (2 failed rejected), 3 were redriven before, 1 cannot be; a dry run, nothing was "
            "enqueued", id="a dry run",
        ),
    ],
)  # fmt: skip
def test_it_is_told_in_a_line(report: Redriven, words: str) -> None:
    assert next(in_words(report)) == words


class TestCommand:
    @pytest.fixture
    def several(self, memory: Bench) -> list[str]:
        """Two that failed, and one that was sent."""
        ids = [f"{ID[:-1]}{end}" for end in "abc"]
        for id_, state in zip(ids, ["failed", "failed", "sent"], strict=True):
            memory.ended(id_, state)
        memory.clock.advance(1)
        return ids

    def test_named_ones_are_shown_as_what_they_became(self, run: Run, memory: Bench, several: list[str]) -> None:
        ended = run("redrive", *several[:2], "--json")
        assert (ended.code, ended.err) == (0, "")
        assert [one["redrive_of"] for one in ended.documents] == several[:2]
        again = run("redrive", several[0])
        assert again.out.startswith(f"{ended.documents[0]['id']} queued textgoto send")

    def test_one_that_cannot_be_stops_no_other(self, run: Run, memory: Bench, several: list[str]) -> None:
        ended = run("redrive", several[2], "0001", several[0], "--json")
        assert ended.code == 1
        assert [one["redrive_of"] for one in ended.documents] == [several[0]]
        assert ended.err.splitlines() == [
            f"dispatcher: job {several[2]} is sent: there is nothing to redrive",
            "dispatcher: there is no job 0001; it never existed or its retention has passed",
        ]

    def test_an_unknown_one_needs_its_own_word(self, run: Run, memory: Bench) -> None:
        memory.ended(ID, "unknown")
        assert run("redrive", ID).code == 1
        (document,) = run("redrive", ID, "--resend", "--json").documents
        assert document["possible_duplicate"]

    def test_some_are_chosen(self, run: Run, memory: Bench, several: list[str]) -> None:
        dry = run("redrive", "--state", "failed", "--dry-run")
        assert dry == (0, "2 jobs would be redriven (2 failed); a dry run, nothing was enqueued\n", "")
        (report,) = run("redrive", "--provider", "textgoto", "--since", "2h", "--limit", "1", "--json").documents
        assert report == {
            "schema": 1, "batch_id": report["batch_id"], "dry_run": False, "redriven": 1,
            "counts": {"failed": {"": 1}}, "known": 0, "refused": 0, "refusals": [],
        }  # fmt: skip
        ended = run("redrive", "--state", "failed", "--batch-id", "again")
        assert ended.out == "batch again: 1 job redriven (1 failed), 1 was redriven before\n"

    def test_named_ones_can_be_counted_too(self, run: Run, memory: Bench, several: list[str]) -> None:
        ended = run("redrive", *several, "--dry-run")
        assert ended.code == 1
        assert ended.out.splitlines() == [
            "2 jobs would be redriven (2 failed), 1 cannot be; a dry run, nothing was enqueued",
            f"  {several[2]}: job {several[2]} is sent: there is nothing to redrive",
        ]

    def test_of_many_refusals_some_are_shown(self, run: Run, memory: Bench) -> None:
        ended = run("redrive", *[f"{n:04}" for n in range(12)], "--dry-run")
        assert ended.code == 1
        assert ended.out.splitlines()[-1] == "  and 2 more"
        assert len(ended.out.splitlines()) == 12

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ([], "ID: is missing; give the ids of jobs, or choose some by --state, --provider,"),
            (["--resend"], "ID: is missing"),
            ([ID, "--state", "failed"], "ID: stands alone"),
            ([ID, "--limit", "1"], "ID: stands alone"),
            (["--state", "sent"], "--state 'sent': must be one of cancelled, expired, failed, undelivered"),
            (["--state", "unknown"], "--state 'unknown': may have been sent; what is unknown is redriven with resend"),
            (["--failure", "x"], "--failure 'x': must be one of"),
            (["--since", "soon"], "--since: must be a time such as"),
            (
                ["--since", "2w"],
                "--since: must be a time such as 2026-12-24T09:00:00+01:00, or how long ago: 30m, 2h, 3d",
            ),
            (["--state", "failed", "--batch-id", "a b"], "--batch-id 'a b': must be"),
        ],
        ids=" ".join,
    )
    def test_what_cannot_be_chosen_by_names_the_option(
        self, run: Run, memory: Bench, words: list[str], told: str
    ) -> None:
        ended = run("redrive", *words)
        assert ended.code == 2
        assert one_paragraph(ended).startswith(told)

    @pytest.mark.parametrize(
        ("since", "found"), [("30m", 1), ("2h", 2), ("1d", 3), ("2027-01-15T07:00:00+00:00", 2)], ids=str
    )
    def test_since_is_how_long_ago_or_a_moment(
        self, run: Run, memory: Bench, since: str, found: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Now(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return cls.fromtimestamp(memory.clock.ms / 1000, tz)

        monkeypatch.setattr("dispatcher.cli.options.datetime", Now)
        for id_, later in ((f"{ID[:-1]}a", 6 * 3600), (f"{ID[:-1]}b", 3600), (f"{ID[:-1]}c", 0)):
            memory.clock.ms = 1_800_000_000_000 - later * 1000
            memory.ended(id_, "failed")
        memory.clock.advance(1)
        (report,) = run("redrive", "--since", since, "--dry-run", "--json").documents
        assert report["redriven"] == found

    @pytest.fixture
    def pages_of_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dispatcher.recovery.MOST", 1)

    def test_stopped_by_hand_it_says_how_far_it_came(
        self, run: Run, memory: Bench, several: list[str], pages_of_one: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C is heard when a page is done."""
        real = Dispatcher._write

        def write(self: Dispatcher, *arguments: Any, **more: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return real(self, *arguments, **more)

        monkeypatch.setattr(Dispatcher, "_write", write)
        ended = run("redrive", "--state", "failed", "--batch-id", "again", "--json")
        assert ended.code == 130
        assert [one["redriven"] for one in ended.documents] == [1]
        assert ended.err == (
            "dispatcher: Stopped. Run the same command again and it goes on: no job is redriven twice\n"
        )
        monkeypatch.setattr(Dispatcher, "_write", real)
        assert run("redrive", "--state", "failed", "--batch-id", "again").code == 0
        assert memory.counts("again") == {"queued": 2}

    def test_stopped_by_redis_it_says_so_too(
        self, run: Run, memory: Bench, several: list[str], pages_of_one: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = Dispatcher._write
        pages: list[object] = []

        def write(self: Dispatcher, *arguments: Any, **more: Any) -> Any:
            pages.append(arguments)
            if len(pages) == 2:
                raise StoreUnavailable("Redis is away")
            return real(self, *arguments, **more)

        monkeypatch.setattr(Dispatcher, "_write", write)
        ended = run("redrive", "--state", "failed", "--json")
        assert ended.code == 1
        assert [one["redriven"] for one in ended.documents] == [1]
        assert ended.err.startswith("dispatcher: Redis is away. Run the same command again and it goes on")
