"""`DISPATCHER_DURABILITY=fsync`: what a caller was told and what is about to be sent is on the disk first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from dispatcher import ConfigurationError, Dispatcher, Message, StoreUnavailable, durability
from dispatcher.calls import MOST_MADE, Calls, Claim
from dispatcher.durability import Way, way
from dispatcher.settings import Settings, load
from dispatcher.store import AsyncJobStore
from tests.support import Server, phone, phones
from tests.unit.support import record


@pytest.fixture
def settings(own_valkey: Server) -> Settings:
    return load(redis_url=own_valkey.url, sandbox=True, durability="fsync", providers={"textgoto": {"uid": "sandbox"}})


@pytest.fixture
def d(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings) as one:
        yield one


@pytest.fixture
def server(own_valkey: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_valkey.url) as one:
        yield one


def waits(server: Any) -> int:
    """How often somebody waited for the disk."""
    return int(server.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"])


@pytest.fixture
def never(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not take anything in time."""
    server.config_set("appendfsync", "no")
    monkeypatch.setattr(durability, "WAIT", ("WAITAOF", 1, 0, 100))


def test_what_a_caller_is_told_is_on_the_disk(d: Dispatcher, server: redis.Redis) -> None:
    """Waited for once a call, once the server knows its script."""

    def all_that_is_told() -> int:
        before = waits(server)
        d.cancel(d.send(phone(1), "Hello").id)
        d.opt_out(phone(2))
        return waits(server) - before

    all_that_is_told()
    assert all_that_is_told() == 3


def test_many_wait_together_for_the_last_of_them(d: Dispatcher, server: redis.Redis) -> None:
    """What is written before is on the disk when that is. A wait for each portion would take up to a second each."""
    messages = [Message(one, "Hello") for one in phones(3 * MOST_MADE)]
    d.send_many(messages)
    before = waits(server)
    d.send_many(messages)
    assert waits(server) - before == 1


def test_many_are_refused_before_the_first_is_stored(d: Dispatcher, server: redis.Redis) -> None:
    server.config_set("appendonly", "no")
    with pytest.raises(ConfigurationError, match="DISPATCHER_DURABILITY=fsync needs a Redis that can promise it"):
        d.send_many([Message(one, "Hello") for one in phones(2 * MOST_MADE)])
    assert server.dbsize() == 0


def test_who_reads_waits_for_nothing(d: Dispatcher, server: redis.Redis) -> None:
    job = d.send(phone(1), "Hello")
    before = waits(server)
    d.get(job.id)
    d.jobs()
    assert waits(server) == before


@pytest.mark.usefixtures("never")
def test_what_is_not_on_the_disk_in_time_is_not_told(d: Dispatcher) -> None:
    with pytest.raises(StoreUnavailable, match="did not write to its disk within") as refused:
        d.send(phone(1), "Hello")
    assert len(refused.value.job_ids) == 1, "it may be stored all the same"


def test_without_it_nobody_waits(own_valkey: Server, server: redis.Redis) -> None:
    with Dispatcher(redis_url=own_valkey.url, sandbox=True, providers={"textgoto": {"uid": "sandbox"}}) as one:
        one.cancel(one.send(phone(1), "Hello").id)
    assert waits(server) == 0


def test_a_server_that_cannot_promise_it_is_refused_before_anything_is_stored(
    d: Dispatcher, server: redis.Redis
) -> None:
    server.config_set("appendonly", "no")
    with pytest.raises(ConfigurationError, match="DISPATCHER_DURABILITY=fsync needs a Redis that can promise it"):
        d.send(phone(1), "Hello")
    assert server.dbsize() == 0


@pytest.mark.parametrize(
    ("refusal", "config", "answer"),
    [
        pytest.param("", {}, Way.WAIT, id="a server that has WAITAOF"),
        pytest.param(
            "unknown command 'WAITAOF'", {"appendonly": "yes", "appendfsync": "always"}, Way.ALWAYS, id="each write"
        ),
        pytest.param("unknown command 'WAITAOF'", {"appendonly": "yes", "appendfsync": "everysec"}, None, id="old"),
        pytest.param("appendonly is disabled", {"appendonly": "no", "appendfsync": "always"}, None, id="no file"),
        pytest.param("unknown command 'WAITAOF'", {}, None, id="one that does not say"),
    ],
)
def test_the_way_is_the_one_that_the_server_offers(refusal: str, config: dict[str, str], answer: Way | None) -> None:
    if answer:
        assert way(refusal, config) is answer
    else:
        with pytest.raises(ConfigurationError, match="WAITAOF"):
            way(refusal, config)


class TestClaims:
    """In a worker, where many come at once."""

    def test_those_that_come_together_share_their_wait(self, settings: Settings, server: redis.Redis) -> None:
        calls = Calls(settings)

        async def all_at_once() -> list[Any]:
            store = AsyncJobStore(settings.redis, settings.redis_shown, fsync=True)
            try:
                for at in range(50):
                    await store.run(calls.create("textgoto", high=False, batch="", records=[record(f"{at}")]))
                    await store.run(calls.take("token", [f"{at}"]))
                before = waits(server)
                won = await asyncio.gather(
                    *(store.run(calls.claim([Claim("token", f"{at}", "never")])) for at in range(50))
                )
                return [won, waits(server) - before]
            finally:
                await store.close()

        won, waited = asyncio.run(all_at_once())
        assert won == [[None]] * 50
        assert 1 <= waited < 50

    @pytest.mark.usefixtures("never")
    def test_none_is_won_before_it_is_on_the_disk(self, settings: Settings) -> None:
        """So that no byte leaves under it."""
        calls = Calls(settings)

        async def claim() -> None:
            quick = AsyncJobStore(settings.redis, settings.redis_shown)
            store = AsyncJobStore(settings.redis, settings.redis_shown, fsync=True)
            try:
                await quick.run(calls.create("textgoto", high=False, batch="", records=[record("0001")]))
                await quick.run(calls.take("token", ["0001"]))
                await store.run(calls.claim([Claim("token", "0001", "never")]))
            finally:
                await store.close()
                await quick.close()

        with pytest.raises(StoreUnavailable, match="did not write to its disk"):
            asyncio.run(claim())
