"""What the measurements of limits share: real workers on one Valkey, against sandboxes that count."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from dispatcher import Dispatcher, Message
from tests import support
from tests.support import Deployment, Server, Worker, phones, until
from workers.sandbox.client import Sandbox

#: Texts that one call of `send_many` enqueues.
_PORTION: Final = 10_000

#: Numbers for texts that are sent together; others are for those that are followed one by one.
_BULK: Final = 40_000

#: What workers are started with: shorter than usual, so that what a killed one had is over when the run is.
TIMES: Final = {"deadline": "10", "lease": "20", "lost_after": "20", "sweep_every": "1", "tick": "0.25"}


class Fleet:
    """One deployment for one measurement."""

    def __init__(self, place: Path, open_: ExitStack, settings: Mapping[str, str], *, sandboxes: int = 1) -> None:
        """Start Valkey and sandboxes; `settings` are those of the workers, as the environment has them."""
        self.server = open_.enter_context(Server(place / "valkey"))
        self.sandboxes = [open_.enter_context(support.sandbox(place / f"sandbox{at}")) for at in range(sandboxes)]
        self.deployment = Deployment(self.server.url, self.sandbox, place, {**TIMES, **settings})
        open_.callback(self.deployment.close)
        self._texts, self._numbers = count(), count(_BULK)

    @property
    def sandbox(self) -> Sandbox:
        """The first one."""
        return self.sandboxes[0]

    @property
    def redis(self) -> Any:
        """A client of its Redis."""
        return self.deployment.redis

    def client(self, *accounts: str) -> Dispatcher:
        """Return a `Dispatcher` that knows these accounts before any worker told of them."""
        # Nobody types the codes of a load.
        return self.deployment.client(providers={name: {"callback_token": ""} for name in accounts}, guards="off")

    def workers(self, queues: str, count: int, **settings: str) -> list[Worker]:
        """Start so many, and return once all of them consume."""
        started = [self.deployment.start_worker(queues=queues, name=f"worker{at}", **settings) for at in range(count)]
        return [one.ready() for one in started]

    def number(self) -> str:
        """Return a number that nothing else in this measurement has."""
        return phones(1, next(self._numbers))[0]

    def messages(self, number: int) -> list[Message]:
        """Return texts, each in words of its own, so that each is a request of its own.

        The first forty thousand go to a number of their own each; no more than that are nobody's.
        """
        texts = [next(self._texts) for _ in range(number)]
        return [Message(phones(1, n % _BULK)[0], f"Hello {n}") for n in texts]

    def enqueue(self, client: Dispatcher, count: int, **about: Any) -> list[str]:
        """Enqueue texts as batches; return the ids of all jobs."""
        ids: list[str] = []
        for start in range(0, count, _PORTION):
            ids += client.send_many(self.messages(min(_PORTION, count - start)), **about).jobs.ids
        return ids

    def open_jobs(self, *accounts: str) -> int:
        """Return how many jobs of these accounts are not over."""
        states = ("queued", "sending")
        return sum(int(self.redis.zcard(f"d:i:{name}:{state}")) for name in accounts for state in states)

    def settled(self, *accounts: str, within: float) -> None:
        """Return once nothing of these accounts is queued or being sent."""
        until(lambda: not self.open_jobs(*accounts), within, "the end of all jobs")


@contextmanager
def fleet(settings: Mapping[str, str], *, sandboxes: int = 1) -> Iterator[Fleet]:
    """Have one, all of which is gone afterwards."""
    with ExitStack() as open_:
        place = Path(open_.enter_context(TemporaryDirectory(prefix="bench-")))
        yield Fleet(place, open_, settings, sandboxes=sandboxes)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of them does not exceed."""
    return sorted(values)[math.ceil(len(values) * share) - 1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> str:
    """Return a Markdown table, and below it what it was measured on."""
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join([*lines, "", " ".join([*notes, f"Everything on one machine ({machine})."])])


def say(words: str) -> None:
    """Tell whoever watches how far it is."""
    print(f"{datetime.now().astimezone():%H:%M:%S} {words}", flush=True)


def sleep_until(moment: float) -> None:
    """Sleep until a moment of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))
