"""Redis' history goes back under real workers: a cut tail of its file, a restored backup; nothing is sent twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest

from dispatcher import Batch, Dispatcher, Message
from tests.support import Deployment, Past, Server, Worker, phones, taken_by_number, until
from workers.sandbox.client import Sandbox

#: Beats that let a worker be missed after two seconds.
SOON = {"heartbeat": "0.6"}

#: Jobs of each round.
MANY = 30

LOST = "claimed before, and Redis had lost that"


class Place(Deployment):
    """A deployment on a server of its own, whose history is meddled with."""

    def __init__(self, server: Server, sandbox: Sandbox, folder: Path, **settings: str) -> None:
        super().__init__(server.url, sandbox, folder, {**SOON, **settings})
        self.server = server
        self._numbers = count()

    def scheduled(self, dispatcher: Dispatcher, after: float = 4, **terms: Any) -> Batch:
        """Enqueue texts that Redis knows for a while before they are sent."""
        numbers = phones(MANY, MANY * next(self._numbers))
        messages = [Message(one, f"Hello {one}") for one in numbers]
        return dispatcher.send_many(messages, send_at=time.time() + after, **terms)

    def sent(self, batch: Batch) -> None:
        until(lambda: batch.counts == {"sent": MANY}, what="all texts")

    def restart(self, meddle: Callable[[], None]) -> Self:
        self.server.kill()
        meddle()
        self.server.start()
        return self

    def worker(self, *options: str, queues: str = "textgoto", name: str = "worker", **settings: str) -> Worker:
        """Start a worker and return once Redis knows of it."""
        before = self.redis.zcard("d:cw")
        one = super().worker(*options, queues=queues, name=name, **settings)
        until(lambda: self.redis.zcard("d:cw") > before, what=f"the first pulse of {name}")
        return one

    def ends(self, batch: Batch) -> dict[str, int]:
        """Return where the batch stands once none of its jobs is busy."""
        until(lambda: not {"queued", "sending"} & set(batch.counts), what="the end of all")
        return batch.counts


@pytest.fixture
def place(own_valkey: Server, sandbox: Sandbox, tmp_path: Path) -> Iterator[Place]:
    one = Place(own_valkey, sandbox, tmp_path)
    try:
        yield one
    finally:
        one.close()


def told(batch: Batch, words: str) -> int:
    """Return how many jobs have these words in their history."""
    return sum(any(words in entry.detail for entry in job.history) for job in batch.jobs)


def test_a_worker_that_is_there_asserts_what_it_did(place: Place) -> None:
    """Restarted as it was, with its tail cut, with an older backup in its place: it is all known again."""
    # It beats rarely enough not to be missed where the machine holds it up.
    dispatcher, worker = place.client(), place.worker(heartbeat="3")
    for name, lost in (("stay", 0), ("cut", MANY), ("restore", MANY)):
        batch = place.scheduled(dispatcher)
        past = Past(place.server)
        place.sent(batch)
        place.restart(getattr(past, name))
        assert place.ends(batch) == {"sent": MANY}, name
        assert told(batch, LOST) == lost, name
    assert worker.popen.poll() is None
    assert set(taken_by_number(place.sandbox).values()) == {1}
    assert len(taken_by_number(place.sandbox)) == 3 * MANY


def test_where_no_worker_is_left_to_say_what_may_have_been_sent_is_held(place: Place) -> None:
    dispatcher = place.client()
    for name in ("cut", "restore"):
        worker = place.worker(name=name)
        batch = place.scheduled(dispatcher)
        later = place.scheduled(dispatcher, after=3600)
        past = Past(place.server)
        place.sent(batch)
        worker.kill()
        place.restart(getattr(past, name))
        time.sleep(1)  # the server tells its start in whole seconds
        new = dispatcher.send("+447700900077", f"After it was {name}")
        successor = place.worker(name=f"after-{name}")

        assert place.ends(batch) == {"unknown": MANY}, name
        assert told(batch, "Redis lost recent history, in which it may have been sent") == MANY
        assert later.counts == {"queued": MANY}, "what was not due cannot have been sent"
        assert dispatcher.wait(new.id).state == "sent", "what was made since is"
        assert f"{worker.popen.pid}@" in successor.output(), "it says whom it missed"
        successor.kill()
    taken = taken_by_number(place.sandbox)
    assert taken.pop("+447700900077") == 2
    assert set(taken.values()) == {1}


def test_what_a_worker_that_died_may_have_sent_is_held_beside_what_the_other_says(
    own_valkey: Server, sandbox: Sandbox, tmp_path: Path
) -> None:
    place = Place(own_valkey, sandbox, tmp_path, providers__second__adapter="textgoto")
    try:
        dispatcher = place.client(providers={"textgoto": {"uid": "sandbox"}, "second": {"adapter": "textgoto"}})
        place.worker(name="alive")
        dead = place.worker(name="dead", queues="second")
        ours = place.scheduled(dispatcher, provider="textgoto")
        theirs = place.scheduled(dispatcher, provider="second")
        past = Past(place.server)
        place.sent(ours)
        place.sent(theirs)
        dead.kill()
        place.restart(past.cut)
        place.worker(name="heir", queues="second")
        assert place.ends(ours) == {"sent": MANY}
        assert place.ends(theirs) == {"unknown": MANY}
        assert set(taken_by_number(sandbox).values()) == {1}
    finally:
        place.close()


def test_with_every_claim_on_the_disk_first_nothing_needs_to_be_held(
    own_valkey: Server, sandbox: Sandbox, tmp_path: Path
) -> None:
    """All dies at once, and what was not sent is sent by the next."""
    place = Place(own_valkey, sandbox, tmp_path, durability="fsync")
    try:
        dispatcher, worker = place.client(durability="fsync"), place.worker(name="first")
        place.sent(place.scheduled(dispatcher, after=0.1))
        batch = place.scheduled(dispatcher)
        worker.kill()
        waits = place.redis.info("commandstats")["cmdstat_waitaof"]["calls"]
        assert waits >= 3, "each producer's call and each claim waits for the disk"
        place.restart(Past(place.server).stay)
        place.worker(name="second")
        assert place.ends(batch) == {"sent": MANY}
        assert set(taken_by_number(sandbox).values()) == {1}
    finally:
        place.close()
