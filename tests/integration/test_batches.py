"""Batches on a real server, with workers, a producer that streams and whoever takes it all back, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from dispatcher import Dispatcher, InvalidRequest, Message
from dispatcher.calls import Advance, Calls, Claim, call_name
from dispatcher.settings import Settings, load
from dispatcher.states import State
from dispatcher.store import JobStore
from tests.support import phones

PORTION = 40
NUMBERS = phones(4000)


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return load(redis_url=redis_url, sandbox=True)


@pytest.fixture
def dispatcher(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    with Dispatcher(settings.model_copy(update={"providers": {"textgoto": {}}})) as one:
        yield one


class Crew:
    """Threads that stop when told, and whose errors are the test's."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the test sees it
                self.errors.append(error)

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
        assert self.errors == []


def work(settings: Settings, crew: Crew) -> None:
    """Send what is out, and put every tenth back to be tried again, until told to stop and nothing is out."""
    store, calls = JobStore(settings.redis, settings.redis_shown), Calls(settings)
    redis, token = store.redis, call_name()
    try:
        while True:
            waiting, _ = store.run(calls.due("textgoto"))
            store.run(calls.deal("textgoto"))
            ids = [one.decode() for one in redis.zrange("d:o:textgoto", 0, 20)]  # type: ignore[union-attr]  # the stubs mix sync and async
            taken = [raw[0].decode() for raw in store.run(calls.take(token, ids)).records] if ids else []
            states = store.run(calls.claim([Claim(token, id_, "never") for id_ in taken])) if taken else []
            ours = [id_ for id_, state in zip(taken, states, strict=True) if state is None]
            moves = [
                Advance(id=id_, guard=token, state=State.QUEUED if number % 10 == 9 else State.SENT, detail="told",
                        wait="retry", fields={})
                for number, id_ in enumerate(ours)
            ]  # fmt: skip
            if moves:
                store.run(calls.advance(moves))
            if crew.over.is_set() and not ids and not waiting:
                return
    finally:
        store.close()


def watch(dispatcher: Dispatcher, crew: Crew) -> None:
    """See the counts add up in every single look: a batch never shrinks, and no job is counted twice."""
    last = 0
    while not crew.over.is_set():
        size = dispatcher.batch_state("spring").to_dict("spring")["size"]
        assert last <= size <= len(NUMBERS)
        assert size % PORTION == 0, "a portion is there wholly or not at all"
        last = size


@pytest.mark.parametrize("cancelled", [False, True], ids=["sent to its end", "taken back meanwhile"])
def test_a_streamed_batch_adds_up_and_is_told_once(dispatcher: Dispatcher, settings: Settings, cancelled: bool) -> None:
    crew, halfway = Crew(), threading.Event()

    def produce() -> None:
        for start in range(0, len(NUMBERS), PORTION):
            messages = [Message(number, "Hi") for number in NUMBERS[start : start + PORTION]]
            try:
                dispatcher.send_many(messages, batch_id="spring", more=True)
            except InvalidRequest:
                if not cancelled:
                    raise
                return
            if start >= len(NUMBERS) // 2:
                halfway.set()
        dispatcher.close_batch("spring")

    def cancel() -> None:
        halfway.wait(30)
        assert "queued" not in dispatcher.cancel_batch("spring")

    if cancelled:
        crew.start(cancel)
    producer = crew.start(produce)
    crew.start(lambda: watch(dispatcher, crew))
    for _ in range(3):
        crew.start(lambda: work(settings, crew))
    producer.join(60)
    crew.over.set()
    crew.join()

    batch = dispatcher.batch("spring")
    assert set(batch.counts) == ({"sent", "cancelled"} if cancelled else {"sent"})
    assert sum(batch.counts.values()) == len(batch.jobs)
    events = list(dispatcher.events(after="0", timeout=0))
    told = [event for event in events if event.type == "batch.settled"]
    assert [event.data["counts"] for event in told] == [batch.counts]
    assert events[-1] == told[0], "after the event of its last job"
    assert len(events) == 1 + len(batch.jobs)
