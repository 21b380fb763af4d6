"""The scripts on a real server: what fakeredis cannot show, and what a job costs there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from dispatcher import ConfigurationError, CursorExpired, Dispatcher, Message, StoreUnavailable
from dispatcher.calls import MOST, Advance, Calls, Claim, call_name
from dispatcher.jobs import Send, Terms, new_id
from dispatcher.records import Record, encode_public, encode_request
from dispatcher.settings import Settings, load
from dispatcher.states import State
from dispatcher.store import AsyncJobStore, JobStore
from tests.support import Server, phones, until
from tests.unit.test_retention import USAGE

QUEUE = "textgoto"

#: Keys that live for ever, by `lua/job.lua`: their size follows the accounts and the open jobs, not the past. The
#: stream of events and the sorted sets by state are trimmed by age instead.
FOR_EVER = ("d:mode", "d:hk", "d:p", "d:c", "d:e", "d:g:", "d:i:", "d:nd")


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return load(redis_url=redis_url, sandbox=True, lease=31)


@pytest.fixture
def store(settings: Settings) -> Iterator[JobStore]:
    one = JobStore(settings.redis, settings.redis_shown)
    yield one
    one.close()


@pytest.fixture
def calls(settings: Settings) -> Calls:
    return Calls(settings)


def record(settings: Settings, number: str = "+447700900001", text: str = "Hello") -> Record:
    id_, request = new_id(), Send(to=number, text=text)
    return Record(
        id=id_,
        public=encode_public(request, Terms(), "send", sandbox=True),
        private=settings.sealer().seal(encode_request(request), id_),
        number=settings.hashed("number", number),
    )


def create(store: JobStore, calls: Calls, records: list[Record], batch: str = "") -> list[str]:
    return store.run(calls.create(QUEUE, high=False, batch=batch, records=records)).ids


def settle(store: JobStore, calls: Calls, ids: list[str], state: State = State.SENT) -> None:
    """Take, claim and end jobs as a worker does."""
    for start in range(0, len(ids), 100):
        token, chunk = call_name(), ids[start : start + 100]
        assert len(store.run(calls.take(token, chunk)).records) == len(chunk)
        assert store.run(calls.claim([Claim(token, id_, "never") for id_ in chunk])) == [None] * len(chunk)
        moves = [
            Advance(id=id_, guard=token, state=state, detail="accepted by the provider", tried="accepted ",
                    fields={"y": "none"})
            for id_ in chunk
        ]  # fmt: skip
        assert store.run(calls.advance(moves)) == [state] * len(chunk)


class TestScripts:
    def test_flushed_scripts_are_loaded_again(self, store: JobStore, calls: Calls, settings: Settings) -> None:
        create(store, calls, [record(settings)])
        store.redis.script_flush()
        (id_,) = create(store, calls, [record(settings)])
        store.redis.script_flush()
        assert len(store.run(calls.take(call_name(), [id_])).records) == 1

    def test_flushed_scripts_are_loaded_again_from_a_loop(
        self, store: JobStore, calls: Calls, settings: Settings
    ) -> None:
        (id_,) = create(store, calls, [record(settings)])
        store.redis.script_flush()

        async def take() -> int:
            own = AsyncJobStore(settings.redis, settings.redis_shown)
            try:
                return len((await own.run(calls.take(call_name(), [id_]))).records)
            finally:
                await own.close()

        assert asyncio.run(take()) == 1

    def test_five_hundred_jobs_are_one_call(self, store: JobStore, calls: Calls, settings: Settings) -> None:
        records = [record(settings, number) for number in phones(MOST)]
        assert create(store, calls, records, batch="b") == [one.id for one in records]
        assert store.redis.hgetall("d:b:b") == {b"queued": b"500"}
        assert store.redis.zcard(f"d:o:{QUEUE}") == MOST

    def test_saying_it_twice_changes_nothing(self, store: JobStore, calls: Calls, settings: Settings) -> None:
        """A producer that lost the answer repeats the call."""
        records = [record(settings, number) for number in phones(3)]
        before = create(store, calls, records, batch="b"), everything(store)
        assert (create(store, calls, records, batch="b"), everything(store)) == before

    def test_of_two_that_take_at_once_one_claims(self, store: JobStore, calls: Calls, settings: Settings) -> None:
        ids = create(store, calls, [record(settings, number) for number in phones(200)])
        won: list[list[str]] = [[], []]
        together = threading.Barrier(2)

        def claim(mine: list[str]) -> None:
            own = JobStore(settings.redis, settings.redis_shown)
            together.wait()
            for id_ in ids:
                token = call_name()
                own.run(calls.take(token, [id_]))
                if own.run(calls.claim([Claim(token, id_, "never")])) == [None]:
                    mine.append(id_)
            own.close()

        both = [threading.Thread(target=claim, args=(mine,)) for mine in won]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert sorted(won[0] + won[1]) == sorted(ids), "each is claimed exactly once"

    def test_an_older_token_changes_nothing_but_may_lift(
        self, store: JobStore, calls: Calls, settings: Settings
    ) -> None:
        (id_,) = create(store, calls, [record(settings)])
        token = call_name()
        store.run(calls.take(token, [id_]))
        assert store.run(calls.claim([Claim(token, id_, "never")])) == [None]
        lost = Advance(id=id_, guard=token, state=State.UNKNOWN, detail="lost")
        stale = Advance(id=id_, guard="0", state=State.FAILED, detail="stale")
        news = Advance(id=id_, guard="0", state=State.SENT, detail="late news")
        assert store.run(calls.advance([lost])) == ["unknown"]
        assert store.run(calls.advance([stale])) == [""]
        assert store.run(calls.advance([news])) == ["sent"]

    def test_what_the_server_refuses_is_told_without_values(self, own_valkey: Server) -> None:
        """A full server must not put a payload into an error."""
        full = load(redis_url=own_valkey.url, sandbox=True)
        own = JobStore(full.redis, full.redis_shown)
        own.redis.config_set("maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="refused: command not allowed when used memory") as caught:
            create(own, Calls(full), [record(full, text="canary")])
        own.close()
        assert "canary" not in str(caught.value)


def test_live_and_sandbox_jobs_never_share_a_database(redis_url: str) -> None:
    account = {QUEUE: {"uid": "x"}}
    with Dispatcher(redis_url=redis_url, sandbox=True, providers=account) as sandbox:
        sandbox.send("+447700900001", "Hello")
    with (
        Dispatcher(redis_url=redis_url, sandbox=False, providers=account) as live,
        pytest.raises(
            ConfigurationError, match="holds sandbox jobs, and with DISPATCHER_SANDBOX as it is these are live ones"
        ),
    ):
        live.send("+447700900001", "Hello")
    with redis.Redis.from_url(redis_url) as client:
        assert client.zcard(f"d:o:{QUEUE}") == 1


def test_another_hash_key_is_refused(redis_url: str) -> None:
    """Its codes would never be right, and its numbers never be found."""
    account = {QUEUE: {"uid": "x"}}
    keys: dict[str, Any] = {"secret_key": "a secret", "hash_key": "one"}
    with Dispatcher(redis_url=redis_url, sandbox=False, providers=account, **keys) as first:
        first.send("+447700900001", "Hello")
    with (
        Dispatcher(redis_url=redis_url, sandbox=False, providers=account, **{**keys, "hash_key": "other"}) as second,
        pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY is not the one") as caught,
    ):
        second.send("+447700900001", "Hello")
    assert "other" not in str(caught.value)
    with redis.Redis.from_url(redis_url) as client:
        assert client.zcard(f"d:o:{QUEUE}") == 1


def everything(store: JobStore) -> dict[bytes, Any]:
    return {key: store.redis.dump(key) for key in sorted(store.redis.scan_iter(count=1000))}


class TestMemory:
    """Every byte a job costs is paid a million times."""

    JOBS = 2000
    TEXT = "Your parcel is on its way and will be with you between 10:00 and 12:00 today."

    def test_a_job_costs_little(self, own_valkey: Server, record_testsuite_property: Callable[..., None]) -> None:
        """All in all: its hash, its entries in the indexes, in its batch and in the events, and its number's list."""
        settings = load(redis_url=own_valkey.url, sandbox=True)
        store, calls = JobStore(settings.redis, settings.redis_shown), Calls(settings)
        redis: Any = store.redis

        def each() -> float:
            return float((redis.info("memory")["used_memory"] - start) / self.JOBS)

        # All of them go to the workers at once.
        redis.hset(f"d:qw:{QUEUE}", mapping={"n": 2 * self.JOBS, "at": 0})
        settle(store, calls, create(store, calls, [record(settings)]))
        start = redis.info("memory")["used_memory"]
        records = [record(settings, number, self.TEXT) for number in phones(self.JOBS)]
        for page in range(0, self.JOBS, MOST):
            create(store, calls, records[page : page + MOST], batch="b")
        costs = {"queued": each()}
        settle(store, calls, [one.id for one in records])
        costs["settled"] = each()
        costs["hash of a settled one"] = sum(redis.memory_usage(f"d:j:{one.id}") for one in records) / self.JOBS
        store.close()

        print(costs)
        record_testsuite_property("bytes of a job", costs)
        assert costs["queued"] <= 1000
        assert costs["settled"] <= 1400


class TestRetention:
    @pytest.fixture
    def settings(self, redis_url: str) -> Settings:
        # What guards count goes with their windows, which are not waited for here.
        return load(redis_url=redis_url, sandbox=True, lease=31, retention=3, events_retention=2.5, guards="off")

    @pytest.fixture
    def dispatcher(self, settings: Settings) -> Iterator[Dispatcher]:
        with Dispatcher(settings, providers={}) as one:
            yield one

    def create_all_kinds(self, dispatcher: Dispatcher) -> list[str]:
        messages = [Message(number, "Hello", idempotency_key=number) for number in phones(20)]
        made = [
            *dispatcher.send_many(messages, batch_id="b").jobs.ids,
            dispatcher.verify("+447700900001", code_ttl=5).id,
            dispatcher.lookup("+447700900001").id,
            dispatcher.operation(QUEUE, "balance").id,
        ]
        dispatcher.cancel(dispatcher.send("+447700900001", "Later", send_at=time.time() + 1, valid_for=0.5).id)
        return made

    def test_what_ended_is_forgotten(self, redis_url: str, store: JobStore, calls: Calls, settings: Settings) -> None:
        """Nothing without a lifetime is left of jobs that ended, and nothing at all after it."""
        with Dispatcher(settings.model_copy(update={"providers": {QUEUE: {}}})) as dispatcher:
            settle(store, calls, self.create_all_kinds(dispatcher))
        store.run(calls.sweep())

        eternal = [
            key.decode()
            for key in store.redis.scan_iter(match="d:*", count=1000)
            if store.redis.ttl(key) == -1 and not key.decode().startswith(FOR_EVER)
        ]
        assert eternal == []

        def left() -> list[str]:
            store.run(calls.sweep())
            # What a day used has a retention of its own, a day at least; lists of numbers go as their day ends.
            keys = [key.decode() for key in store.redis.scan_iter(match="d:*", count=1000)]
            return [key for key in keys if not key.startswith((USAGE, "d:n"))]

        kept = {"d:mode", "d:hk", "d:p", "d:c", "d:e", "d:et", f"d:g:{QUEUE}", f"d:g:{QUEUE}.high"}
        until(lambda: set(left()) <= kept, what="the end")
        assert store.redis.xlen("d:e") == 0

    def test_events_are_trimmed_by_age_and_the_cursor_says_so(
        self, store: JobStore, calls: Calls, settings: Settings
    ) -> None:
        """The clock trims; nobody misses an event unawares, and who has read all that was trimmed misses none."""
        with Dispatcher(settings.model_copy(update={"providers": {QUEUE: {}}})) as dispatcher:
            old = create(store, calls, [record(settings, number) for number in phones(250)])
            settle(store, calls, old)
            events = list(dispatcher.events("0", timeout=0))
            assert len(events) == 250
            cursor, last_but_one, last = events[0].cursor, events[-2].cursor, events[-1].cursor
            assert len(list(dispatcher.events(cursor, timeout=0))) == 249

            time.sleep(settings.events_retention)
            settle(store, calls, create(store, calls, [record(settings, number) for number in phones(5)]))
            assert len(list(dispatcher.events(cursor, timeout=0))) == 254, "only the clock trims"
            store.run(calls.sweep())
            kept = list(dispatcher.events("0", timeout=0))
            assert len(kept) == 5
            for early in (cursor, last_but_one):
                with pytest.raises(CursorExpired) as caught:
                    next(dispatcher.events(early, timeout=0))
                assert caught.value.oldest == last, "after it all are kept"
            assert [event.cursor for event in dispatcher.events(last, timeout=0)] == [event.cursor for event in kept]
