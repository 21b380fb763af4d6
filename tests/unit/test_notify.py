"""The notify worker, with endpoints that answer as they are told: what it makes of each answer, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar
from unittest import mock

import fakeredis
import msgspec
import pytest

from dispatcher import notices
from dispatcher.endpoints import Health, NoticeCalls
from dispatcher.errors import StoreUnavailable
from dispatcher.notices import Target
from tests.unit import test_client
from tests.unit.support import NUMBER, TEXT, AsyncOnSync, Bench, Clock, leaks
from tests.unit.test_client import ALL, Shop
from workers.notify import Notifier
from workers.schedule import SCHEDULE
from workers.webhook import Answer, Outcome

shop = test_client.shop
T = TypeVar("T")

URL: Final = "https://hooks.example.com/a?token=canary"


class Store(AsyncOnSync):
    """The store of a test from an event loop."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.store)
        self.errors = bench.store.errors
        server = bench.redis.connection_pool.connection_kwargs["server"]
        self.redis: Any = fakeredis.FakeAsyncRedis(server=server)


class Hooks:
    """Endpoints over HTTP: what they were told, and how they answer."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        self.answer: Callable[[str], Answer] = lambda _: Answer(outcome=Outcome.DELIVERED, status=204)

    async def post(self, url: str, id: str, at: int, body: bytes) -> Answer:  # noqa: A002 - as the worker calls it
        assert at > 0
        self.told.append((url, id, msgspec.json.decode(body)))
        return self.answer(url)

    async def aclose(self) -> None:
        pass


class Tasks:
    """The consumers' broker."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, dict[str, Any]]] = []

    def send(self, task: str, queue: str, id: str, event: dict[str, Any]) -> Answer:  # noqa: A002 - as the worker calls it
        self.told.append((task, queue, id, event))
        return Answer(outcome=Outcome.DELIVERED, words="published")

    def close(self) -> None:
        pass


class Worker:
    """A notify worker beside a shop."""

    def __init__(self, shop: Shop, *, signs: bool = True) -> None:
        self.shop = shop
        self.hooks, self.tasks = Hooks(), Tasks()
        self.published: list[str] = []
        self.broker = True
        self._signs = signs

    def do(self, work: Callable[[Notifier], Coroutine[Any, Any, T]]) -> T:
        """Let one do something, from its start to its end."""

        async def publish(endpoint: str) -> bool:
            if self.broker:
                self.published.append(endpoint)
            return self.broker

        async def main() -> T:
            hooks: Any = self.hooks if self._signs else None
            tasks: Any = self.tasks
            store: Any = Store(self.shop.bench)
            one = Notifier(self.shop.bench.settings, store, publish, webhooks=hooks, tasks=tasks)
            try:
                return await work(one)
            finally:
                await one.close()
                await store.redis.aclose()

        return asyncio.run(main())

    def round(self) -> list[str]:
        """Move all on and tell all that is due; what is said of each message."""

        async def work(one: Notifier) -> list[str]:
            while (await one.look())[1] == 0:
                pass
            due, self.published = self.published, []
            return [await one.tell([each]) for each in due]

        return self.do(work)


def sent(shop: Shop, **told: Any) -> str:
    id_ = shop.dispatcher.send(NUMBER, TEXT, **told).id
    shop.bench.advance(id_, shop.bench.claim(id_), "sent")
    return id_


@pytest.fixture
def worker(shop: Shop) -> Worker:
    return Worker(shop)


def test_what_is_told_is_what_the_events_show(shop: Shop, worker: Worker) -> None:
    id_ = sent(shop, callback_url=URL)
    assert worker.round() == ["1 delivered"]
    ((url, told, document),) = worker.hooks.told
    (event,) = shop.dispatcher.events("0", timeout=0)
    assert url == URL
    assert told == f"evt_{event.cursor}"
    assert document == msgspec.to_builtins(event)
    assert document["data"]["id"] == id_
    assert not leaks(str(document), NUMBER, TEXT)
    assert worker.round() == []


def test_it_is_revealed_where_the_settings_say_so_but_never_to_a_broker(clock: Clock) -> None:
    shop = Shop(clock, callback_reveal=True)
    shop.serve("textgoto", *ALL)
    worker = Worker(shop)
    sent(shop, callback_url=URL, callback_task="billing.on_message", callback_queue="billing")
    worker.round()
    ((*_, document),) = worker.hooks.told
    assert document["data"]["to"] == NUMBER
    ((task, queue, id_, masked),) = worker.tasks.told
    assert (task, queue) == ("billing.on_message", "billing")
    assert id_ == worker.hooks.told[0][1]
    assert not leaks(str(masked), NUMBER, TEXT)


def test_of_a_job_that_is_not_kept_any_more_its_id_is_told(shop: Shop, worker: Worker) -> None:
    id_ = sent(shop, callback_url=URL)
    shop.bench.run(NoticeCalls(shop.bench.settings).gather(publishes=False))
    shop.bench.redis.delete(f"d:j:{id_}")
    worker.round()
    assert worker.hooks.told[0][2]["data"] == {"id": id_}


@pytest.mark.parametrize(
    ("outcome", "says", "state", "listed"),
    [
        pytest.param(Outcome.AGAIN, "1 again", Health.FAILING, 0, id="again"),
        pytest.param(Outcome.GONE, "1 gone", Health.GONE, 1, id="gone"),
        pytest.param(Outcome.REFUSED, "1 refused", Health.HEALTHY, 1, id="refused"),
    ],
)
def test_each_answer_means_what_it_says(
    shop: Shop, worker: Worker, *, outcome: Outcome, says: str, state: Health, listed: int
) -> None:
    sent(shop, callback_url=URL)
    worker.hooks.answer = lambda _: Answer(outcome=outcome, status=400, words="they answered 400")
    assert worker.round() == [says]
    assert [one.state for one in shop.dispatcher.callbacks()] == [state]
    assert len(shop.dispatcher.undelivered_callbacks()) == listed


def test_it_is_tried_as_often_as_the_standard_says_and_then_listed(shop: Shop, worker: Worker) -> None:
    sent(shop, callback_url=URL)
    worker.hooks.answer = lambda _: Answer(outcome=Outcome.AGAIN, status=500, words="they answered 500")
    said = []
    for seconds in SCHEDULE:
        shop.bench.clock.advance(seconds * 1.2 + 1)
        said += worker.round()
    assert said == ["1 again"] * (len(SCHEDULE) - 1) + ["1 failed"]
    assert len({id_ for _, id_, _ in worker.hooks.told}) == 1
    (one,) = shop.dispatcher.undelivered_callbacks()
    assert one.why == "they answered 500"


def test_a_broker_that_is_away_is_asked_again(shop: Shop, worker: Worker) -> None:
    sent(shop, callback_url=URL)
    worker.broker = False

    async def work(one: Notifier) -> list[str]:
        await one.look()
        worker.broker = True
        await one.look()
        return worker.published

    assert len(worker.do(work)) == 1


def test_a_host_that_never_answers_takes_few_places_however_many_its_endpoints(shop: Shop, worker: Worker) -> None:
    """Each job has a URL of its own there; what is left alone loses no try, and comes when the host answers."""
    hooks = worker.hooks

    async def work(one: Notifier) -> None:
        over = asyncio.Event()

        async def post(url: str, id: str, at: int, body: bytes) -> Answer:  # noqa: A002 - as the worker calls it
            answer = await hooks.post(url, id, at, body)
            if "/each/" not in url or not hanging:
                return answer
            await over.wait()
            return Answer(outcome=Outcome.AGAIN, words="no answer came in time", seconds=15.0)

        async def due(*numbers: int, **urls: str) -> list[str]:
            for url in (*(f"https://hooks.example.com/each/{n}" for n in numbers), *urls.values()):
                sent(shop, callback_url=url)
            while (await one.look())[1] == 0:
                pass
            found, worker.published = worker.published, []
            return found

        one._webhooks = mock.Mock(post=post, aclose=hooks.aclose)
        hanging = True
        over.set()
        await one.tell(await due(*range(3)))
        over.clear()
        told = asyncio.gather(*(one.tell([each]) for each in await due(*range(10, 14))))
        while len(hooks.told) < 7:  # noqa: ASYNC110 - some turns of the loop
            await asyncio.sleep(0)
        later = await due(*range(20, 30), good="https://other.example.com")
        # Else this would wait for ever.
        assert await asyncio.wait_for(one.tell(later), 30) == "1 delivered, 10 left alone"
        assert len(hooks.told) == 8
        hanging = False
        over.set()
        await told
        for _ in range(4):
            shop.bench.clock.advance(shop.bench.settings.lost_after + 1)
            await one.tell(await due())
        assert not any(one.waiting for one in shop.dispatcher.callbacks())

    worker.do(work)


def test_without_a_secret_those_over_http_wait_and_those_by_celery_go(clock: Clock) -> None:
    shop = Shop(clock)
    shop.serve("textgoto", *ALL)
    worker = Worker(shop, signs=False)
    sent(shop, callback_url=URL, callback_task="billing.on_message")
    assert sorted(worker.round()) == ["1 again", "1 delivered"]
    errors = [one.error for one in shop.dispatcher.callbacks() if one.error]
    assert errors == ["DISPATCHER_CALLBACK_SECRET is not set, which signs callbacks"]


def test_what_is_sealed_for_others_waits(shop: Shop, clock: Clock) -> None:
    sent(shop, callback_url=URL)
    other = Shop(clock, secret_key="another")
    other.bench.store, other.bench.redis = shop.bench.store, shop.bench.redis
    worker = Worker(other)
    assert worker.round() == ["1 again"]
    assert worker.hooks.told == []
    assert "another key" in shop.dispatcher.callbacks()[0].error


def test_the_default_is_told_from_when_it_began(shop: Shop, clock: Clock) -> None:
    usual = Shop(clock, callback_url="https://default.example.com/a", callback_events="job.sent")
    usual.bench.store, usual.bench.redis = shop.bench.store, shop.bench.redis
    worker = Worker(usual)
    sent(shop)
    worker.do(lambda one: one.begin())
    id_ = sent(shop)
    assert worker.round() == ["1 delivered"]
    assert [document["data"]["id"] for *_, document in worker.hooks.told] == [id_]


def test_told_to_stop_it_takes_no_more(shop: Shop, worker: Worker) -> None:
    sent(shop, callback_url=URL)

    async def work(one: Notifier) -> str:
        await one.look()
        one.stop()
        return await one.tell(worker.published)

    assert worker.do(work) == "nothing due"
    shop.bench.clock.advance(shop.bench.settings.lost_after + 1)
    worker.published = []
    assert worker.round() == ["1 delivered"]


def test_what_another_tells_is_left_to_it(shop: Shop, worker: Worker) -> None:
    sent(shop, callback_url=URL)
    calls = NoticeCalls(shop.bench.settings)
    (endpoint,) = shop.bench.run(calls.gather(publishes=True)).due
    shop.bench.run(calls.take(endpoint, "another", "call", 0))
    assert worker.do(lambda one: one.tell([endpoint])) == "1 told by another"


def test_nothing_private_is_logged(shop: Shop, worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent(shop, callback_url=URL)

    def broken(_: str) -> Answer:
        raise ValueError(f"no {URL} of {NUMBER}")

    worker.hooks.answer = broken
    assert worker.round() == ["1 again"]
    assert "cannot be told: ValueError" in caplog.text
    assert not leaks(caplog.text + str(shop.dispatcher.callbacks()), "canary", NUMBER, TEXT)


def test_what_came_of_a_notice_is_written_once_redis_is_back(
    shop: Shop, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the consumer would be told again, and again, of what it has taken."""
    sent(shop, callback_url=URL)
    away = iter([True])
    run = Store.run

    async def at_first(self: Store, call: Any) -> Any:
        if call.script.name == "notices_done" and next(away, False):
            raise StoreUnavailable("Redis did not answer")
        return await run(self, call)

    monkeypatch.setattr(Store, "run", at_first)
    assert worker.round() == ["1 delivered"]
    (endpoint,) = shop.dispatcher.callbacks()
    assert (endpoint.delivered, endpoint.waiting, len(worker.hooks.told)) == (1, 0, 1)


def test_a_redis_that_is_away_ends_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(shop)
    id_ = sent(shop, callback_url=URL)
    away = iter([True])
    run = Store.run

    async def sometimes(self: Store, call: Any) -> Any:
        if next(away, False):
            raise StoreUnavailable("Redis did not answer")
        return await run(self, call)

    monkeypatch.setattr(Store, "run", sometimes)
    monkeypatch.setattr("workers.notify._BLOCK", 0.01)

    async def work(one: Notifier) -> None:
        going = asyncio.create_task(one.run())
        while not worker.published:  # noqa: ASYNC110 - it is a list that others fill
            await asyncio.sleep(0.01)
        going.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going
        await one.tell(worker.published)

    worker.do(work)
    assert [document["data"]["id"] for *_, document in worker.hooks.told] == [id_]


def test_a_target_shows_nothing_of_its_url() -> None:
    assert not leaks(repr(Target(url=URL, task="t", queue="q")), "canary")
    assert notices.mask(URL) == "https://hooks.example.com/..."
