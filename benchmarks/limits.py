"""Whether a limit holds over four worker processes, by the provider's own count, and how much of it is used."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from benchmarks.fleet import Fleet, fleet, say, sleep_until, table
from dispatcher import Dispatcher, WaitTimeout
from tests.support import until
from workers.sandbox.limits import Counted, Window

#: N in every window of so many seconds, what is asked of the workers and held by the provider.
MOST, WINDOW = 1000, 60

#: Seconds that a request is under way at most, each another time, before the provider counts it.
LATE: Final = 2.0

WORKERS: Final = 4

#: Seconds that a run lasts, and as a short form.
LONG, SHORT = 180, 20

#: Seconds between checks of codes, beside the reports.
_CHECK_EVERY: Final = 3.0


class Ran(NamedTuple):
    """What one run showed."""

    name: str
    counted: Counted
    #: Of the limit, what arrived while work waited, and permits that no request arrived for.
    used: float
    lost: int


def run(*, short: bool = False) -> str:
    """Play both runs; return a Markdown table."""
    seconds = SHORT if short else LONG
    ran = [_sends(seconds), _gets(seconds)]
    head = (
        "4 workers, one killed (-9) on the way",
        "most in any sliding 60 s",
        "in any fixed 60 s",
        "429",
        "of N used while work waited",
        "permits lost",
    )
    rows = [
        (
            f"`{one.name}`",
            str(one.counted.sliding),
            str(one.counted.fixed),
            str(one.counted.refused),
            f"{one.used:.1%}",
            str(one.lost),
        )
        for one in ran
    ]
    about = f"{seconds} s each; a request is under way for up to {LATE:g} s, each for another time."
    return table(head, rows, about)


def _sends(seconds: int) -> Ran:
    """Texts, each a request of its own, more than go in the time."""

    def enqueue(one: Fleet, client: Dispatcher, over: threading.Event) -> None:
        one.enqueue(client, _enough(seconds), provider="textgoto")

    return _run("textgoto", "send", seconds, enqueue)


def _gets(seconds: int) -> Ran:
    """Reports, more than go in the time, and beside them checks of codes, which overtake them."""

    def enqueue(one: Fleet, client: Dispatcher, over: threading.Event) -> None:
        codes = [client.verify(one.number(), provider="mobtexting").id for _ in range(4)]
        for id_ in codes:
            client.wait(id_, timeout=60)
        for _ in range(_enough(seconds)):
            client.operation("mobtexting", "report", cid=codes[0])
        threading.Thread(target=_check, args=(client, codes, over), daemon=True).start()

    return _run("mobtexting", "get", seconds, enqueue)


def _check(client: Dispatcher, codes: list[str], over: threading.Event) -> None:
    """Judge wrong codes; five times each, which is as often as one may try."""
    for turn in range(5 * len(codes)):
        if over.wait(_CHECK_EVERY):
            return
        with suppress(WaitTimeout):
            client.check(codes[turn % len(codes)], "000000", timeout=30)


def _enough(seconds: int) -> int:
    return round(MOST * seconds / WINDOW) + MOST // 10


def _run(account: str, bucket: str, seconds: int, enqueue: Callable[[Fleet, Dispatcher, threading.Event], None]) -> Ran:
    limit = f"{bucket}={MOST}/{WINDOW}s"
    with fleet({f"providers__{account}__limits": limit, "heartbeat": "1"}) as one:
        one.sandbox.limits(provider=account, late=LATE, windows=[Window(counts=bucket, most=MOST, seconds=WINDOW)])
        workers = one.workers(account, WORKERS)
        client, over = one.client(account), threading.Event()
        drawn = Drawn(one, account, bucket)
        enqueue(one, client, over)
        say(f"{limit}: {one.open_jobs(account)} jobs wait")
        before, began = until(lambda: _counted(one, bucket), what="the first request"), time.monotonic()
        drawn.until(began + random.uniform(0.3, 0.5) * seconds)
        workers[0].kill()
        say(f"{limit}: a worker is killed, after {time.monotonic() - began:.0f} s")
        drawn.until(began + seconds)
        took = time.monotonic() - began
        counted = _counted(one, bucket)
        assert before is not None
        assert counted is not None
        if not one.redis.zcard(f"d:i:{account}:queued"):
            say(f"{limit}: nothing waits any more, so that what was used says nothing")
        used = (counted.taken - before.taken) / (MOST * took / WINDOW)
        # The rest goes, so that what was drawn and what arrived can be compared.
        over.set()
        while one.open_jobs(account):
            drawn.until(time.monotonic() + 1)
        drawn.until(time.monotonic() + 2 * LATE)
        last = _counted(one, bucket) or counted
        say(f"{limit}: {last}, {drawn.total} drawn")
        counted = msgspec.structs.replace(counted, refused=last.refused, sliding=last.sliding, fixed=last.fixed)
        return Ran(limit, counted, used, drawn.total - last.taken)


def _counted(one: Fleet, bucket: str) -> Counted | None:
    """Return what the provider counted, once it counted any."""
    return next((seen for seen in one.sandbox.limited().counted if seen.counts == bucket and seen.taken), None)


class Drawn:
    """Adds up what was drawn from a bucket, slot by slot, of which Redis remembers the last minute."""

    def __init__(self, one: Fleet, account: str, bucket: str) -> None:
        self._one = one
        self._key, self._bucket = f"d:lu:{account}", f"{bucket} ".encode()
        self._slots: dict[int, int] = {}

    def until(self, moment: float) -> None:
        """Look every few seconds until a moment of the monotonic clock."""
        while True:
            for field, told in self._one.redis.hgetall(self._key).items():
                if field.startswith(self._bucket):
                    slot, amount = map(int, told.split())
                    self._slots[slot] = amount
            if time.monotonic() >= moment:
                return
            sleep_until(min(moment, time.monotonic() + 5))

    @property
    def total(self) -> int:
        """All that was drawn."""
        return sum(self._slots.values())
