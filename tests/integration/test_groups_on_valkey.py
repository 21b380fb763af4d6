"""Groups of consumers on a real server, by processes that are killed; `tests/unit/test_groups.py` has every case."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dispatcher import Delivery, Dispatcher
from dispatcher.calls import Call, script
from dispatcher.settings import load
from tests.support import Process, Server, until

#: Seconds after which a consumer counts as silent: the least there may be, and longer than a busy machine holds one up.
TAKE_OVER: Final = 1.0
PATIENT: Final = 60.0

#: A consumer that is at its first event when it dies.
HANGS: Final = """
import time
from dispatcher import Dispatcher
with Dispatcher() as d:
    for event in d.events(group="billing", consumer="ann"):
        print(event.cursor, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def d(redis_url: str) -> Iterator[Dispatcher]:
    with Dispatcher(load(redis_url=redis_url, hash_key="a hash key")) as one:
        yield one


def tell(d: Dispatcher, count: int) -> list[str]:
    """Have so many events; their cursors."""
    with d._store.redis.pipeline() as pipe:
        for number in range(count):
            pipe.xadd("d:e", {"t": "job.sent", "i": f"job{number}", "n": 1})
        return [cursor.decode() for cursor in pipe.execute()]


def read(d: Dispatcher, consumer: str, take_over: float = PATIENT) -> Any:
    return d.events("0", group="billing", consumer=consumer, timeout=0, take_over=take_over)


def rewritten(d: Dispatcher) -> None:
    """Write the stream anew, as forgetting a person does."""
    while not d._store.run(Call(script("forget_events"), ["copy", 100], int)):
        pass


def test_what_a_killed_process_was_at_is_done_by_another(d: Dispatcher, redis_url: str, tmp_path: Path) -> None:
    d.events("0", group="billing")
    cursors = tell(d, 15)
    process = Process(["-c", HANGS], {"DISPATCHER_REDIS_URL": redis_url}, tmp_path, "ann")
    try:
        process.wait_for(cursors[0])
    finally:
        process.kill()
    ours = [event.cursor for event in read(d, "bob")]
    assert ours == cursors[10:], "the rest of ann's share is still hers"
    told = list[Delivery]()

    def all_told() -> bool:
        told.extend(read(d, "bob", TAKE_OVER))
        return len(told) == 10

    until(all_told, what="ann's share")
    assert [(one.cursor, one.deliveries) for one in told] == [(cursor, 2) for cursor in cursors[:10]]
    assert d.event_groups()[0].pending == 0


def test_commands_that_are_killed_show_every_event(d: Dispatcher, redis_url: str, tmp_path: Path) -> None:
    """Whichever line was written last, what was not written is written by another."""
    d.events("0", group="billing")
    words = ["-m", "dispatcher.cli", "events", "-f", "--group", "billing", "--json", "--take-over", "1"]
    environment = {"DISPATCHER_REDIS_URL": redis_url}
    cursors, shown = tell(d, 400), set[str]()
    followers = [Process(words, environment, tmp_path, "first")]
    try:
        # It is among them when it dies.
        followers[0].wait_for(cursors[20].partition("-")[0])
        followers[0].kill()
        followers.append(Process(words, environment, tmp_path, "second"))
        cursors += tell(d, 100)

        def all_shown() -> bool:
            for one in followers:
                # The last line of a process that was killed may have been cut.
                for line in one.output().split("\n")[:-1]:
                    shown.add(json.loads(line)["cursor"])
            return shown == {*cursors}

        until(all_shown, what="every event")
        until(lambda: d.event_groups()[0].pending == 0, what="the end of the last")
        followers[1].popen.send_signal(signal.SIGINT)
        assert followers[1].wait() == 130
    finally:
        for one in followers:
            one.kill()


def test_a_stream_that_is_written_anew_keeps_its_groups(d: Dispatcher) -> None:
    cursors = tell(d, 30)
    ann, bob = read(d, "ann"), read(d, "bob")
    assert [next(one).cursor for one in (ann, ann, bob)] == [cursors[0], cursors[1], cursors[10]]
    time.sleep(0.05)
    d._store.redis.xdel("d:e", cursors[2], cursors[25])
    before: Any = d._store.redis.xpending_range("d:e", "billing", "-", "+", 100)
    rewritten(d)
    after: Any = d._store.redis.xpending_range("d:e", "billing", "-", "+", 100)
    kept = [one for one in before if one["message_id"].decode() != cursors[2]]
    same = ("message_id", "consumer", "times_delivered")
    assert [[one[field] for field in same] for one in after] == [[one[field] for field in same] for one in kept]
    assert all(
        now["time_since_delivered"] >= then["time_since_delivered"] for now, then in zip(after, kept, strict=True)
    )
    assert next(ann).cursor == cursors[2], "which it had read before"
    assert next(bob).cursor == cursors[11], "its consumers notice nothing"
    ann.close()
    bob.close()
    told = {event.cursor for event in read(d, "cy")}
    assert told == {*cursors[3:]} - {cursors[10], cursors[25]}


def test_who_follows_goes_on_though_the_stream_is_written_anew(d: Dispatcher) -> None:
    tell(d, 3)
    events = d.events(group="billing", timeout=60)
    for _ in range(3):
        rewritten(d)
        (cursor,) = tell(d, 1)
        assert next(events).cursor == cursor
    events.close()


def test_news_end_a_wait(own_valkey: Server) -> None:
    """A group waits on the server: news are there at once, and hardly any command is made meanwhile."""
    with Dispatcher(load(redis_url=own_valkey.url)) as d:
        events = d.events(group="billing", timeout=3)
        made = d._store.redis.info("stats")["total_commands_processed"]
        assert next(events, None) is None
        assert d._store.redis.info("stats")["total_commands_processed"] - made < 100
