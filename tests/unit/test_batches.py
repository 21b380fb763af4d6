"""Batches: open until the last of their messages came, counted at every moment, told when settled, taken back whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dispatcher import Batch, InvalidRequest, Message, NotFound, WaitTimeout
from dispatcher.batches import in_words
from dispatcher.calls import MOST
from dispatcher.errors import IdempotencyConflict
from dispatcher.store import StoredIds
from tests.unit import test_client
from tests.unit.support import NUMBER, TEXT, Bench
from tests.unit.test_client import THREE, Passing, Shop

shop = test_client.shop
passing = test_client.passing

MONTH = 30 * 86400


def keyed(*keys: str) -> list[Message]:
    return [Message(NUMBER, f"Hi {key}", idempotency_key=key) for key in keys]


def told(shop: Shop) -> list[str]:
    """What a consumer is told, each event by its type and, for a batch, its counts."""
    return [
        f"{event.type} {event.data['counts']}" if event.type.startswith("batch") else event.type
        for event in shop.dispatcher.events(after="0", timeout=0)
    ]


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("bulk", "reading", "batches", "store"):
        monkeypatch.setattr(f"dispatcher.{module}.MOST", 2)
    monkeypatch.setattr("dispatcher.bulk.MOST_MADE", 2)
    monkeypatch.setattr("dispatcher.client.CHUNK", 2)


# -- open and closed ---------------------------------------------------------------------------------------------------


def test_a_batch_of_which_more_follows_is_not_settled_however_its_jobs_stand(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE[:1], batch_id="spring", more=True)
    shop.sent(batch.jobs.ids[0])
    assert (batch.counts, batch.settled) == ({"sent": 1}, False)
    assert told(shop) == ["job.sent"]

    last = shop.dispatcher.send_many(THREE[1:], batch_id="spring")
    assert (last.counts, last.settled) == ({"queued": 2, "sent": 1}, False)
    for id_ in last.jobs.ids:
        shop.sent(id_)
    assert (batch.counts, batch.settled, last.settled) == ({"sent": 3}, True, True)
    assert told(shop) == ["job.sent"] * 3 + ["batch.settled {'sent': 3}"]


def test_a_call_of_many_portions_is_open_between_them(
    shop: Shop, pages_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers may be quicker than their producer, and a consumer must not be told of an end that is none."""
    stands = []

    def publish(app: object, queue: str, ids: Sequence[str]) -> None:
        stands.append(shop.dispatcher.batch_state("spring").open)
        for id_ in ids:
            shop.sent(id_)

    monkeypatch.setattr("dispatcher.client.publish", publish)
    shop.dispatcher.send_many(THREE, batch_id="spring")
    assert stands == [True, False]
    assert told(shop) == ["job.sent"] * 3 + ["batch.settled {'sent': 3}"]


@pytest.mark.parametrize("when", ["before", "after"], ids=["before its jobs end", "after its jobs ended"])
def test_an_open_batch_is_closed_when_nothing_was_left_to_follow(shop: Shop, when: str) -> None:
    (id_,) = shop.dispatcher.send_many(THREE[:1], batch_id="spring", more=True).jobs.ids
    if when == "after":
        shop.sent(id_)
    batch = shop.dispatcher.close_batch("spring")
    assert (batch.settled, len(batch.jobs)) == (when == "after", 1)
    if when == "before":
        shop.sent(id_)
    assert shop.dispatcher.close_batch("spring").settled, "closing it again changes nothing"
    assert told(shop) == ["job.sent", "batch.settled {'sent': 1}"]


def test_only_what_there_is_is_closed(shop: Shop) -> None:
    with pytest.raises(NotFound, match="there is no batch gone"):
        shop.dispatcher.close_batch("gone")
    with pytest.raises(InvalidRequest, match=r"messages: is empty.*close_batch"):
        shop.dispatcher.send_many([], batch_id="gone")
    assert shop.bench.redis.keys("d:b:*") == []


def test_waiting_takes_until_an_open_batch_is_closed(shop: Shop, passing: Passing) -> None:
    batch = shop.dispatcher.send_many(THREE[:1], batch_id="spring", more=True)
    shop.sent(batch.jobs.ids[0])
    with pytest.raises(WaitTimeout, match="batch spring is still open: send its last messages or close_batch"):
        batch.wait(timeout=2)
    passing._meanwhile = lambda: shop.dispatcher.close_batch("spring")
    assert batch.wait(timeout=2) == {"sent": 1}


def test_a_producer_that_died_leaves_nothing_for_ever(shop: Shop) -> None:
    """Its batch stays open while jobs of it wait, and for its retention; then its name is free."""
    (id_,) = shop.dispatcher.send_many(THREE[:1], batch_id="spring", more=True).jobs.ids
    assert shop.bench.ttl("d:b:spring") is shop.bench.ttl("d:b:spring:j") is None
    shop.sent(id_)
    assert shop.bench.ttl("d:b:spring") == shop.bench.ttl("d:b:spring:j") == MONTH
    shop.clock.advance(MONTH + 1)
    with pytest.raises(NotFound):
        shop.dispatcher.batch("spring")


def test_an_open_batch_without_a_job_of_its_own_has_a_lifetime(shop: Shop) -> None:
    """All of its messages were enqueued before, by the same keys, in no batch."""
    first = shop.dispatcher.send(NUMBER, "Hi a", idempotency_key="a")
    batch = shop.dispatcher.send_many(keyed("a"), batch_id="spring", more=True)
    assert (batch.created, list(batch.jobs.ids)) == (0, [first.id])
    assert shop.bench.ttl("d:b:spring") == MONTH
    shop.dispatcher.close_batch("spring")
    assert shop.bench.ttl("d:b:spring") == MONTH
    assert told(shop) == ["batch.settled {}"], "closed, and none of its own is busy"
    assert shop.dispatcher.batch("spring").to_dict()["size"] == 0


# -- made now, or before -----------------------------------------------------------------------------------------------


def test_a_call_says_how_many_jobs_it_made(shop: Shop) -> None:
    assert shop.dispatcher.send_many(THREE).created == 3
    assert shop.dispatcher.send_many(keyed("a", "b"), batch_id="spring").created == 2
    assert shop.dispatcher.send_many(keyed("a", "b", "c"), batch_id="spring").created == 1
    assert shop.dispatcher.send_many(keyed("d", "d")).created == 1, "two messages, one job"
    assert shop.dispatcher.batch("spring").created == 0, "looking makes none"


@pytest.mark.parametrize("more", [False, True], ids=["in one call", "in portions"])
def test_a_campaign_that_is_run_again_is_neither_sent_nor_told_again(shop: Shop, more: bool) -> None:
    def run() -> Batch:
        batch = shop.dispatcher.send_many(keyed("a", "b"), batch_id="spring", more=more)
        if more:
            shop.dispatcher.close_batch("spring")
        return batch

    for id_ in run().jobs.ids:
        shop.sent(id_)
    again = run()
    assert (again.created, again.counts, again.settled) == (0, {"sent": 2}, True)
    assert told(shop) == ["job.sent", "job.sent", "batch.settled {'sent': 2}"]


def test_a_campaign_that_was_cut_short_goes_on(shop: Shop) -> None:
    """Its producer was killed between two portions; all that there is was sent meanwhile."""
    for id_ in shop.dispatcher.send_many(keyed("a", "b"), batch_id="spring", more=True).jobs.ids:
        shop.sent(id_)
    assert shop.dispatcher.send_many(keyed("a", "b"), batch_id="spring", more=True).created == 0
    last = shop.dispatcher.send_many(keyed("c"), batch_id="spring")
    assert (last.created, last.counts) == (1, {"queued": 1, "sent": 2})
    assert told(shop) == ["job.sent", "job.sent"]


def test_a_key_whose_job_is_forgotten_is_free(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k", valid_for=86400)
    shop.sent(first.id)
    shop.clock.advance(MONTH + 1)
    second = shop.dispatcher.send(NUMBER, "Another text", idempotency_key="k")
    assert second.id != first.id
    with pytest.raises(IdempotencyConflict):
        shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k")


def test_a_key_finds_its_job_for_as_long_as_that_waits(shop: Shop) -> None:
    """However long no worker was there: repeated, the request must not be sent twice."""
    first = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k")
    shop.clock.advance(3 * MONTH)
    assert shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k").id == first.id
    shop.sent(first.id)
    shop.clock.advance(MONTH - 1)
    assert shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k").id == first.id


def test_a_key_whose_job_is_forgotten_is_free_for_many_too(shop: Shop, pages_of_two: None) -> None:
    shop.sent(shop.dispatcher.send(NUMBER, TEXT, idempotency_key="a", valid_for=86400).id)
    shop.clock.advance(MONTH + 1)
    assert shop.dispatcher.send_many(keyed("a", "b", "c")).created == 3


# -- counts and documents ----------------------------------------------------------------------------------------------


def test_counts_hold_states_only_whatever_is_kept_beside_them(shop: Shop) -> None:
    """Open, cancelled, told: each is a mark in the same hash."""
    batch = shop.dispatcher.send_many(THREE, batch_id="spring", more=True)
    assert batch.counts == {"queued": 3}
    shop.sent(batch.jobs.ids[0])
    assert batch.cancel() == batch.counts == {"sent": 1, "cancelled": 2}
    assert {b"c", b"e"} < {*shop.bench.redis.hkeys("d:b:spring")}


def test_a_batch_is_a_document(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE, batch_id="spring", more=True)
    shop.sent(batch.jobs.ids[0])
    usual = {"schema": 1, "id": "spring", "size": 3}
    assert batch.to_dict() == {
        **usual, "counts": {"queued": 2, "sent": 1}, "settled": False, "open": True, "cancelled": False,
    }  # fmt: skip
    batch.cancel()
    assert batch.to_dict() == {
        **usual, "counts": {"sent": 1, "cancelled": 2}, "settled": True, "open": False, "cancelled": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "marks", "words"),
    [
        pytest.param({}, {}, "0 jobs", id="none"),
        pytest.param({"sent": 1}, {}, "1 job: 1 sent", id="one"),
        pytest.param({"queued": 1, "sent": 2}, {"open": True}, "3 jobs: 1 queued, 2 sent; more may follow", id="open"),
        pytest.param({"cancelled": 2}, {"cancelled": True}, "2 jobs: 2 cancelled; takes no more", id="cancelled"),
    ],
)
def test_a_batch_in_words(counts: dict[str, int], marks: dict[str, bool], words: str) -> None:
    document = {"size": sum(counts.values()), "counts": counts, "open": False, "cancelled": False, **marks}
    assert in_words(document) == words


# -- the event ---------------------------------------------------------------------------------------------------------


def test_the_event_is_the_document_of_that_moment(shop: Shop) -> None:
    """A late answer lifts the unknown: that is the job's news, and the batch settled before."""
    batch = shop.dispatcher.send_many(THREE[:2], batch_id="spring")
    first, second = batch.jobs.ids
    shop.bench.claim(first)
    shop.dispatcher.cancel(second)
    shop.clock.advance(60)
    shop.bench.sweep()
    shop.bench.advance(first, "=unknown", "sent")
    *_, settled, late = shop.dispatcher.events(after="0", timeout=0)
    assert (settled.type, late.type) == ("batch.settled", "job.sent")
    assert settled.data == {
        "schema": 1, "id": "spring", "size": 2, "counts": {"unknown": 1, "cancelled": 1},
        "settled": True, "open": False, "cancelled": False,
    }  # fmt: skip
    assert batch.counts == {"sent": 1, "cancelled": 1}


def test_the_last_jobs_own_event_comes_first(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE)
    for id_ in batch.jobs.ids:
        shop.sent(id_)
    events = list(shop.dispatcher.events(after="0", timeout=0))
    assert [event.data["id"] for event in events] == [*batch.jobs.ids, batch.id]
    assert list(shop.dispatcher.events(after=events[-2].cursor, timeout=0)) == events[-1:]


def test_a_batch_to_which_is_added_settles_again(shop: Shop) -> None:
    for one in THREE[:2]:
        shop.sent(shop.dispatcher.send_many([one], batch_id="spring").jobs.ids[0])
    assert [words for words in told(shop) if "batch" in words] == [
        "batch.settled {'sent': 1}",
        "batch.settled {'sent': 2}",
    ]


@pytest.mark.parametrize("closed", [False, True], ids=["at once", "when it is closed"])
def test_a_batch_to_which_only_what_ends_at_once_is_added_settles_again(shop: Shop, closed: bool) -> None:
    """It is busy and settles within one call; with other counts than those that were told."""
    shop.sent(shop.dispatcher.send_many([Message(NUMBER, TEXT)], batch_id="spring").jobs.ids[0])
    shop.dispatcher.opt_out(NUMBER)
    shop.dispatcher.send_many([Message(NUMBER, TEXT)], batch_id="spring", more=closed)
    if closed:
        shop.dispatcher.close_batch("spring")
    assert [one for one in told(shop) if one.startswith("batch")] == [
        "batch.settled {'sent': 1}",
        "batch.settled {'sent': 1, 'failed': 1}",
    ]


def test_an_event_outlives_its_batch(shop: Shop) -> None:
    shop.sent(shop.dispatcher.send_many(THREE[:1], batch_id="spring").jobs.ids[0])
    shop.bench.redis.delete("d:b:spring", "d:b:spring:j")
    *_, settled = shop.dispatcher.events(after="0", timeout=0)
    assert (settled.data["id"], settled.data["counts"]) == ("spring", {"sent": 1})


#: Calls that may be made twice, since redis-py repeats one whose answer was lost.
REPEATED: dict[str, Callable[[Bench], Any]] = {
    "the last portion": lambda bench: bench.create("0002", batch="b"),
    "a portion of which more follow": lambda bench: bench.create("0002", batch="b", more=True),
    "closing": lambda bench: bench.run(bench.calls.close("b")),
    "cancelling": lambda bench: bench.run(bench.calls.close("b", cancelled=True)),
    "an end": lambda bench: bench.advance("0001", "=queued", "cancelled"),
}


@pytest.mark.parametrize("call", list(REPEATED.values()), ids=list(REPEATED))
@pytest.mark.parametrize("ended", [False, True], ids=["while busy", "when all ended"])
def test_a_call_whose_answer_was_lost_changes_nothing_the_second_time(
    bench: Bench, call: Callable[[Bench], Any], ended: bool
) -> None:
    bench.create("0001", batch="b", more=True)
    if ended:
        bench.advance("0001", bench.claim("0001"), "sent")
    call(bench)
    before = bench.dump()
    call(bench)
    assert bench.dump() == before


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_of_a_cancelled_batch_what_is_queued_is_taken_back_and_what_is_on_the_wire_goes_on(
    shop: Shop, pages_of_two: None
) -> None:
    other = shop.dispatcher.send_many(THREE)
    batch = shop.dispatcher.send_many([*THREE, *THREE], batch_id="spring", send_at=None)
    sent, sending, parked, held, *_ = batch.jobs.ids
    shop.sent(sent)
    wire = shop.bench.claim(sending)
    shop.bench.advance(parked, "=queued", "queued", wait="limit", delay=60)
    hands = shop.bench.hold(held)

    assert batch.cancel() == {"sending": 1, "sent": 1, "cancelled": 4}
    assert shop.bench.refused_claim(hands, held) == "cancelled"
    job = batch.jobs[2]
    assert job.failure is not None
    assert (job.failure.kind, job.failure.code) == ("refused", "cancelled")
    assert other.counts == {"queued": 3}
    assert not batch.settled
    assert shop.bench.advance(sending, wire, "sent") == "sent"
    assert batch.cancel() == {"sent": 2, "cancelled": 4}, "once more changes nothing"
    assert told(shop)[-1] == "batch.settled {'sent': 2, 'cancelled': 4}"
    assert sum(words.startswith("batch") for words in told(shop)) == 1


def test_what_was_on_the_wire_is_not_tried_again_when_its_batch_is_cancelled(shop: Shop) -> None:
    """Else a text would go out minutes after its campaign was stopped."""
    batch = shop.dispatcher.send_many(THREE[:2], batch_id="spring")
    sure, doubtful = batch.jobs.ids
    token, other = shop.bench.claim(sure), shop.bench.claim(doubtful)
    assert batch.cancel() == {"sending": 2}
    assert shop.bench.advance(sure, token, "queued", "not_sent", wait="retry", delay=5) == "cancelled"
    assert shop.bench.advance(doubtful, other, "queued", "lost", wait="retry", fields={"i": "1"}) == "unknown"
    assert batch.counts == {"unknown": 1, "cancelled": 1}
    assert batch.jobs[0].history[-1].detail == "its batch was cancelled by the caller"
    assert shop.bench.members("d:w:textgoto") == shop.bench.members("d:o:textgoto") == set()


def test_a_dead_workers_job_of_a_cancelled_batch_is_not_asked_again(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE[:1], batch_id="spring")
    shop.bench.claim(batch.jobs.ids[0], repeat="always")
    batch.cancel()
    shop.clock.advance(60)
    shop.bench.sweep()
    assert batch.counts == {"unknown": 1}, "it may have been taken"


def test_a_job_that_may_have_been_taken_ends_unknown_when_its_batch_is_cancelled(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE[:2], batch_id="spring")
    shop.bench.redis.hset(f"d:j:{batch.jobs.ids[0]}", "i", "1")
    assert batch.cancel() == {"unknown": 1, "cancelled": 1}


@pytest.mark.parametrize("more", [False, True])
def test_a_cancelled_batch_takes_no_more(shop: Shop, more: bool) -> None:
    batch = shop.dispatcher.send_many(keyed("a"), batch_id="spring", more=True)
    batch.cancel()
    before = shop.bench.dump()
    with pytest.raises(InvalidRequest, match=r"batch_id 'spring': was cancelled .* use another batch_id") as refused:
        shop.dispatcher.send_many(keyed("b"), batch_id="spring", more=more)
    assert refused.value.field == "batch_id"
    assert shop.bench.dump() == before
    assert shop.dispatcher.send_many(keyed("b"), batch_id="spring-2").created == 1, "the way out"


def test_a_batch_may_be_cancelled_while_it_is_being_written(
    shop: Shop, pages_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer learns of it one portion later at most; nothing is sent of what it wrote before."""
    shop.dispatcher.send(NUMBER, TEXT)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: shop.dispatcher.cancel_batch("spring"))
    with pytest.raises(InvalidRequest, match="batch_id 'spring': was cancelled"):
        shop.dispatcher.send_many([*THREE, *THREE], batch_id="spring")
    assert shop.dispatcher.batch("spring").counts == {"cancelled": 4}
    assert told(shop) == ["job.cancelled"] * 4 + ["batch.settled {'cancelled': 4}"]


def test_a_batch_that_never_was_cannot_be_cancelled(shop: Shop) -> None:
    with pytest.raises(NotFound, match="there is no batch gone"):
        shop.dispatcher.cancel_batch("gone")
    assert shop.bench.redis.keys("d:b:*") == []


def test_cancelling_begins_with_the_last_and_ends_where_nothing_is_queued(
    shop: Shop, pages_of_two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million texts all but the last few were sent: they need not be read."""
    batch = shop.dispatcher.send_many([*THREE, *THREE], batch_id="spring")
    for id_ in batch.jobs.ids[:4]:
        shop.sent(id_)
    asked: list[tuple[int, int]] = []
    lrange = shop.bench.redis.lrange

    def noted(key: str, first: int, last: int) -> Any:
        asked.append((first, last))
        return lrange(key, first, last)

    monkeypatch.setattr(shop.bench.redis, "lrange", noted)
    assert batch.cancel() == {"sent": 4, "cancelled": 2}
    assert asked == [(4, 5)]


# -- a million jobs ----------------------------------------------------------------------------------------------------

MANY = 1203


@pytest.fixture
def asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Note how many ids each read of a list asks for."""
    lengths: list[int] = []
    lrange = shop.bench.redis.lrange

    def noted(key: str, first: int, last: int) -> Any:
        assert 0 <= first <= last
        lengths.append(last - first + 1)
        return lrange(key, first, last)

    monkeypatch.setattr(shop.bench.redis, "lrange", noted)
    return lengths  # type: ignore[return-value]  # a fixture may also return


def listed(shop: Shop) -> tuple[StoredIds, list[str]]:
    ids = [f"{number:04}" for number in range(MANY)]
    shop.bench.redis.rpush("d:b:b:j", *ids)
    return StoredIds(shop.dispatcher._store, "d:b:b:j", range(MANY)), ids


CUTS = [
    slice(None), slice(3), slice(-3, None), slice(500, 1100), slice(None, None, -1), slice(None, None, 7),
    slice(1000, 10, -3), slice(5, 5), slice(2000, 3000), slice(None, None, 600),
]  # fmt: skip


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_ids_in_redis_are_cut_as_a_list_is_and_read_in_pages(shop: Shop, asked: list[int], cut: slice) -> None:
    lazy, ids = listed(shop)
    view = lazy[cut]
    assert asked == [], "nothing is read before it is looked at"
    assert len(view) == len(ids[cut])
    assert list(view) == ids[cut]
    assert list(view[1:-1]) == ids[cut][1:-1]
    assert max(asked, default=0) <= MOST


@pytest.mark.parametrize("position", [0, 1, 700, MANY - 1, -1, -MANY])
def test_one_id_is_one_read(shop: Shop, asked: list[int], position: int) -> None:
    lazy, ids = listed(shop)
    assert lazy[position] == ids[position]
    assert asked == [1]
    assert lazy[::-1][position] == ids[::-1][position]


@pytest.mark.parametrize("position", [MANY, -MANY - 1])
def test_a_position_that_is_none_is_no_read(shop: Shop, asked: list[int], position: int) -> None:
    lazy, _ = listed(shop)
    with pytest.raises(IndexError):
        _ = lazy[position]
    assert asked == []


def test_a_batch_is_found_without_reading_its_ids(shop: Shop, asked: list[int]) -> None:
    made = shop.dispatcher.send_many([*THREE, *THREE], batch_id="spring")
    batch = shop.dispatcher.batch("spring")
    assert (len(batch.jobs), asked) == (6, [])
    assert list(batch.jobs.ids) == list(made.jobs.ids)
    assert [job.id for job in batch.jobs] == list(made.jobs.ids)
    assert [job.id for job in batch.jobs[1:5:2]] == list(made.jobs.ids[1:5:2])
    assert batch.jobs[-1].id == made.jobs.ids[-1]
    assert repr(batch) == "Batch(spring, 6 jobs)"


def test_a_batch_that_is_forgotten_meanwhile_has_no_jobs(shop: Shop) -> None:
    shop.dispatcher.send_many(THREE, batch_id="spring")
    batch = shop.dispatcher.batch("spring")
    shop.bench.redis.delete("d:b:spring", "d:b:spring:j")
    assert (list(batch.jobs), list(batch.jobs.ids)) == ([], [])
    assert batch.counts == {}
    with pytest.raises(NotFound):
        _ = batch.jobs[0]


def test_the_jobs_of_a_large_batch_are_listed_a_page_at_a_time(
    shop: Shop, asked: list[int], pages_of_two: None
) -> None:
    made = shop.dispatcher.send_many([*THREE, *THREE], batch_id="spring")
    found = shop.dispatcher.jobs(batch="spring", limit=3)
    assert [job.id for job in found] == list(reversed(made.jobs.ids))[:3]
    assert asked == [2, 2]
