"""`send_many` of more messages than one call writes: portions on their way while the next one is encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from dispatcher import IdempotencyConflict, InvalidNumber, InvalidRequest, Message, StoreUnavailable
from dispatcher.calls import Call
from dispatcher.records import Record
from dispatcher.store import JobStore
from tests.support import phones
from tests.unit.support import NUMBER, TEXT, Clock
from tests.unit.test_client import WRONG, Shop

#: Messages that one call writes here, and those that are given: three portions and a half.
PORTION = 4
SOME = [Message(number, f"Hi {at}") for at, number in enumerate(phones(14))]
ORDER = [at * PORTION for at in range(4)]


@pytest.fixture
def shop(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(clock)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    monkeypatch.setattr("dispatcher.bulk.MOST_MADE", PORTION)
    shop.serve("textgoto", "send")
    # So that Redis knows the script already, as it nearly always does.
    shop.dispatcher.cancel(shop.dispatcher.send(NUMBER, TEXT).id)
    shop.published.clear()
    return shop


def at(position: int, message: Message) -> list[Message]:
    return [*SOME[:position], message, *SOME[position + 1 :]]


def keyed(position: int, key: str = "k") -> list[Message]:
    return at(position, Message(NUMBER, TEXT, idempotency_key=key))


def texts(shop: Shop, ids: Sequence[str]) -> list[str]:
    found = shop.dispatcher.get_many(ids, reveal=True)
    return [found[one].text for one in ids]


def given(shop: Shop) -> list[str]:
    """The texts of the batch in the order of its list in Redis."""
    return texts(shop, list(shop.dispatcher.batch("spring").jobs.ids))


def broken(monkeypatch: pytest.MonkeyPatch, shop: Shop, *, at_answer: int, times: int = 1) -> None:
    """Let the connection break when that answer is read: its call was made, and so was the next one."""
    pool, seen = shop.bench.redis.connection_pool, [0]
    kind = pool.connection_class
    read = kind.read_response

    def read_response(self: Any, *arguments: Any, **named: Any) -> Any:
        seen[0] += 1
        if at_answer <= seen[0] < at_answer + times:
            self.disconnect()
            raise RedisConnectionError("Connection closed by server.")
        return read(self, *arguments, **named)

    monkeypatch.setattr(kind, "read_response", read_response)


# -- all are checked before the first is stored ------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 3, 4, 7, 13])
@pytest.mark.parametrize(
    ("message", "error", "field"),
    [
        pytest.param(Message(WRONG, TEXT), InvalidNumber, "to", id="no number"),
        pytest.param(Message(NUMBER, ""), InvalidRequest, "text", id="no text"),
        pytest.param(Message(NUMBER, TEXT, metadata={"a": "b" * 5000}), InvalidRequest, "metadata", id="much"),
    ],
)
def test_an_error_in_any_portion_names_its_message_and_leaves_nothing(
    shop: Shop, position: int, message: Message, error: type[InvalidRequest], field: str
) -> None:
    before = shop.bench.dump()
    with pytest.raises(error) as refused:
        shop.dispatcher.send_many(at(position, message))
    assert refused.value.field == f"messages[{position}].{field}"
    assert shop.bench.dump() == before


def test_a_conflict_in_the_third_portion_is_found_before_the_first_is_stored(shop: Shop) -> None:
    first = shop.dispatcher.send(NUMBER, "another", idempotency_key="k")
    before = shop.bench.dump()
    with pytest.raises(IdempotencyConflict) as refused:
        shop.dispatcher.send_many(keyed(9))
    assert (refused.value.field, refused.value.job_id) == ("messages[9].idempotency_key", first.id)
    assert shop.bench.dump() == before


def test_one_key_in_two_portions_is_found_before_the_first_is_stored(shop: Shop) -> None:
    before = shop.bench.dump()
    messages = keyed(2)
    messages[11] = Message(NUMBER, "another", idempotency_key="k")
    with pytest.raises(IdempotencyConflict) as refused:
        shop.dispatcher.send_many(messages)
    assert refused.value.field == "messages[11].idempotency_key"
    assert shop.bench.dump() == before


def test_a_conflict_that_comes_up_meanwhile_names_its_message_and_leaves_the_batch_open(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else took the key after we looked. What was written counts; the last portion was not, so it is open."""
    shop.dispatcher.send(NUMBER, "another", idempotency_key="k")
    monkeypatch.setattr(shop.dispatcher._bulk, "refuse_conflicts", lambda _: None)
    with pytest.raises(IdempotencyConflict) as refused:
        shop.dispatcher.send_many(keyed(6), batch_id="spring")
    assert refused.value.field == "messages[6].idempotency_key"
    state = shop.dispatcher.batch_state("spring")
    assert state.open
    assert PORTION <= sum(state.counts.values()) <= 2 * PORTION, "the one before it, and one that was on its way"


# -- in order, once ----------------------------------------------------------------------------------------------------


def test_jobs_are_listed_and_wait_in_the_order_given(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody is served at once: all wait in a line. To make a portion takes time."""
    encode = shop.dispatcher._drafts.encode

    def encoded(drafts: Any, **public: Any) -> list[Record]:
        shop.clock.advance(0.001)
        return encode(drafts, **public)

    monkeypatch.setattr(shop.dispatcher._drafts, "encode", encoded)
    shop.bench.redis.hset("d:qw:textgoto", mapping={"n": 0, "at": shop.clock.ms})
    batch = shop.dispatcher.send_many(SOME, batch_id="spring")
    line: Any = shop.bench.redis.zrange("d:q:textgoto:spring:", 0, -1)
    lists = [list(batch.jobs.ids), list(shop.dispatcher.batch("spring").jobs.ids), [one.decode() for one in line]]
    assert [texts(shop, ids) for ids in lists] == [[one.text for one in SOME]] * 3
    assert (batch.created, batch.counts) == (14, {"queued": 14})
    assert not shop.dispatcher.batch_state("spring").open


def test_messages_may_come_one_by_one_and_are_read_once(shop: Shop) -> None:
    taken = list[int]()

    def stream() -> Iterator[Message]:
        for position, one in enumerate(SOME):
            taken.append(position)
            yield one

    assert shop.dispatcher.send_many(stream()).counts == {"queued": 14}
    assert taken == list(range(14))


def test_no_more_than_two_portions_are_encoded_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand messages are checked first; what is made of them comes and goes."""
    encode, read = shop.dispatcher._drafts.encode, shop.dispatcher._calls._read_created
    stands, there = list[int](), [0]

    def encoded(drafts: Any, **public: Any) -> list[Record]:
        there[0] += 1
        stands.append(there[0])
        return encode(drafts, **public)

    def answered(*about: Any) -> Any:
        there[0] -= 1
        return read(*about)

    monkeypatch.setattr(shop.dispatcher._drafts, "encode", encoded)
    monkeypatch.setattr(shop.dispatcher._calls, "_read_created", answered)
    shop.dispatcher.send_many(SOME)
    assert len(stands) == len(ORDER)
    assert max(stands) == 2


def test_accounts_of_a_portion_are_written_apart_and_answered_in_the_order_given(shop: Shop) -> None:
    """By rules, of which each number finds its own."""
    rules = ["prefix=+1200 -> one", "-> two"]
    other = Shop(shop.clock, routes=rules)
    other.serve("one", "send")
    other.serve("two", "send")
    batch = other.dispatcher.send_many(
        [Message(number, f"Hi {at}") for at, number in enumerate([*phones(3), NUMBER, *phones(2, 3), *phones(3, 60)])]
    )
    assert texts(other, list(batch.jobs.ids)) == [f"Hi {at}" for at in range(9)]
    assert [job.provider for job in batch.jobs] == ["one"] * 3 + ["two"] + ["one"] * 2 + ["two"] * 3
    assert not other.dispatcher.batch_state(batch.id).open


# -- what breaks in the middle -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [1, 2, 3])
def test_a_connection_that_breaks_makes_no_job_twice_and_none_less(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """The answer is lost, what was asked is done: it is asked again, and so is what was on its way behind it."""
    broken(monkeypatch, shop, at_answer=answer)
    batch = shop.dispatcher.send_many(SOME, batch_id="spring")
    monkeypatch.undo()
    assert given(shop) == [one.text for one in SOME]
    assert list(shop.dispatcher.batch("spring").jobs.ids) == list(batch.jobs.ids)
    assert (batch.created, batch.counts) == (14, {"queued": 14})
    assert not shop.dispatcher.batch_state("spring").open
    assert {id_ for _, ids in shop.published for id_ in ids} == set(batch.jobs.ids)


@pytest.mark.parametrize("portion", [0, 1, 2, 3])
def test_scripts_that_redis_forgot_in_the_middle_are_sent_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    encode, done = shop.dispatcher._drafts.encode, [0]

    def encoded(drafts: Any, **public: Any) -> list[Record]:
        if done[0] == portion:
            shop.bench.redis.script_flush()
        done[0] += 1
        return encode(drafts, **public)

    monkeypatch.setattr(shop.dispatcher._drafts, "encode", encoded)
    batch = shop.dispatcher.send_many(SOME, batch_id="spring")
    assert given(shop) == [one.text for one in SOME]
    assert batch.counts == {"queued": 14}
    assert not shop.dispatcher.batch_state("spring").open


def test_who_cannot_be_answered_is_told_of_all_that_may_be_stored(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order given. The batch stays open, and with idempotency keys the call can be repeated."""
    messages = [Message(one.to, one.text, idempotency_key=f"key {at}") for at, one in enumerate(SOME)]
    with monkeypatch.context() as patch:
        # From the second portion on, whatever is tried.
        broken(patch, shop, at_answer=3, times=1000)
        with pytest.raises(StoreUnavailable) as lost:
            shop.dispatcher.send_many(messages, batch_id="spring")
    stored = list(shop.dispatcher.batch("spring").jobs.ids)
    assert lost.value.job_ids[: len(stored)] == stored
    assert PORTION < len(stored) < len(messages)
    assert shop.dispatcher.batch_state("spring").open
    again = shop.dispatcher.send_many(messages, batch_id="spring")
    assert list(again.jobs.ids[: len(stored)]) == stored
    assert (again.created, again.counts) == (14 - len(stored), {"queued": 14})


class TestRunEach:
    """The calls of a stream, as the store makes them."""

    def test_they_are_answered_in_their_order(self, shop: Shop) -> None:
        assert list(shop.dispatcher._store.run_each(closes(shop, 5))) == [None] * 5

    def test_the_next_is_sent_before_an_answer_is_read(self, shop: Shop) -> None:
        asked = list[int]()
        shop.dispatcher._store.run(*closes(shop, 1))
        answers = shop.dispatcher._store.run_each(closes(shop, 5, asked.append))
        assert [(next(answers), len(asked))[1] for _ in range(5)] == [2, 3, 4, 5, 5]

    @pytest.mark.parametrize("answers", [0, 1, 3, 5])
    def test_a_connection_is_given_back_clean(self, shop: Shop, answers: int) -> None:
        """Whoever has it next must not read what was asked before."""
        stream = shop.dispatcher._store.run_each(closes(shop, 5))
        for _ in range(answers):
            next(stream)
        stream.close()
        assert [shop.bench.redis.ping() for _ in range(5)] == [True] * 5

    def test_nobody_there_is_told_at_once(self, shop: Shop) -> None:
        store = JobStore("redis://127.0.0.1:1/0", "127.0.0.1:1")
        with pytest.raises(StoreUnavailable, match="did not answer"):
            list(store.run_each(closes(shop, 3)))


def closes(shop: Shop, count: int, asked: Callable[[int], object] = lambda _: None) -> Iterator[Call[int | None]]:
    """Calls that change nothing."""
    for number in range(count):
        asked(number)
        yield shop.dispatcher._calls.close(f"no batch {number}")
