"""What is lost and what is sent twice when a worker is killed (-9) under load, by the provider's own count."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from benchmarks.fleet import say, table
from benchmarks.provider import Counted
from benchmarks.rig import ACCOUNT, PEERS, Peer, Rig, messages, rig
from dispatcher import Message
from tests.support import Process, until

TEXTS: Final = 4_000
FEW: Final = 600

#: Texts that are enqueued once the rest is over: some look for what a dead worker held only when something comes.
MORE: Final = 10

#: Seconds after which what a dead worker held is given to another, where that can be set.
REDELIVER: Final = 15

#: Ours: a call of at most so many seconds, a claim twice that long.
TIMES: Final = {"deadline": "7", "lease": "15", "lost_after": "15", "sweep_every": "1"}

#: Seconds from the kill until the texts that follow; of silence that is the end once all have come.
_LATER: Final = 2 * REDELIVER
_SILENCE: Final = 8.0

_SET: Final = {
    "Celery": f"acks_late, reject_on_worker_lost, visibility_timeout {REDELIVER} s, unacked_restore_throttle 1",
    "dramatiq": f"heartbeat_timeout {REDELIVER} s, maintenance_chance 10 %",
    "taskiq": f"RedisStreamBroker, idle_timeout {REDELIVER} s",
    "arq": f"job_timeout {REDELIVER} s",
    "streaQ": f"idle_timeout {REDELIVER} s",
}


class Ran(NamedTuple):
    """What one run showed."""

    #: Texts that never came and of which nobody says so, and texts that came once more.
    lost: int
    repeated: int
    #: What is told of those that were being sent; only we tell anything.
    told: str
    #: Seconds from the kill to the last arrival.
    over: float


def run(*, short: bool = False) -> str:
    """Kill each one's worker; return a Markdown table."""
    count = FEW if short else TEXTS
    rows = [("Dispatcher", ", ".join(f"{name} {value} s" for name, value in TIMES.items()), *_cells(_ours(count)))]
    rows += [(name, _SET[name], *_cells(_theirs(peer, count))) for name, peer in PEERS.items()]
    head = (
        f"{count:,} texts, one `kill -9`",
        "set",
        "lost",
        "sent once more",
        "told as unknown",
        "the last came after",
    )
    about = (
        f"The provider answers after 50 ms; the worker is killed when 40 % of the texts have arrived, and started again"
        f" at once; {MORE} more texts {_LATER} s later."
    )
    return table(head, rows, about)


def _cells(ran: Ran) -> tuple[str, ...]:
    say(str(ran))
    return str(ran.lost), str(ran.repeated), ran.told, f"{ran.over:.0f} s"


def _ours(count: int) -> Ran:
    with rig(TIMES) as one:
        client = one.client()
        ids: list[str] = []

        def enqueue(count: int, first: int) -> None:
            ids.extend(client.send_many(messages(count, first), provider=ACCOUNT).jobs.ids)

        counted, killed = _kill(one, count, one.worker, enqueue)
        one.settled()
        there = {*one.provider.arrivals()}
        states = dict(zip(ids, client.states(ids), strict=True))
        texts = {_key(text): id_ for text, id_ in zip(messages(len(ids)), ids, strict=True)}
        away = [id_ for text, id_ in texts.items() if text not in there and states[id_] != "unknown"]
        unknown = Counter(map(str, states.values()))["unknown"]
        return Ran(len(away), counted.repeated, str(unknown), _over(one, count, killed))


def _theirs(peer: Peer, count: int) -> Ran:
    more = {"REDELIVER_AFTER": str(REDELIVER)}
    with rig() as one:
        counted, killed = _kill(
            one,
            count,
            lambda name: one.peer(peer, name=name, more=more),
            lambda count, first: one.enqueue(peer, count, first, more),
        )
        return Ran(count + MORE - counted.texts, counted.repeated, "", _over(one, count, killed))


def _kill(
    one: Rig, count: int, start: Callable[[str], Process], enqueue: Callable[[int, int], object]
) -> tuple[Counted, float]:
    """Play it; return what the provider counted, and when the worker was killed."""
    enqueue(count, 0)
    worker = start("first")
    until(lambda: one.provider.counted().texts >= 0.4 * count, 120, "the first texts")
    worker.kill()
    killed = time.monotonic()
    say(f"killed after {one.provider.counted().texts} texts")
    start("second")
    time.sleep(_LATER)
    enqueue(MORE, count)
    while True:
        counted = one.provider.counted()
        silent = time.monotonic() - counted.last
        # What ended unknown never comes; nobody's redelivery takes longer than that.
        if silent > (_SILENCE if counted.texts == count + MORE else _LATER):
            return counted, killed
        time.sleep(0.5)


def _over(one: Rig, count: int, killed: float) -> float:
    """Return the seconds from the kill until the last of the texts arrived, or came once more."""
    arrived = one.provider.arrivals()
    keys = {_key(text) for text in messages(count)}
    last = max(at for text, at in arrived.items() if text in keys)
    return max(last, one.provider.counted().last_repeated) - killed


def _key(text: Message) -> str:
    """Return what the provider calls a text."""
    return f"{text.to.removeprefix('+')} {text.text}"
