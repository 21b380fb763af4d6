"""What it costs to have each claim, and what a caller is told, on the disk before anything follows from it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from dispatcher import Dispatcher, Message
from tests import support
from tests.support import Deployment, Server, phones

#: Times that each is measured, in turn.
ROUNDS: Final = 3

#: Calls of `send`, one after the other; texts of a campaign; texts of which each is waited for.
SENDS, MANY, SINGLES = 300, 2000, 40

#: Each way, by whether Redis syncs with each write and what the setting is; the first is what the others are held to.
WAYS: Final = {
    "`redis`, appendfsync everysec": (False, "redis"),
    "`fsync`, appendfsync always": (True, "fsync"),
    "`fsync`, appendfsync everysec": (False, "fsync"),
}

MEASURED: Final = ("`send` calls/s", "campaign, texts/s", "one text, ms until sent")


def run(*, short: bool = False) -> str:
    """Measure all ways in turn; return a Markdown table of medians and of their ratios to the first."""
    rounds = 1 if short else ROUNDS
    taken: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
    numbers = iter(phones(1, at)[0] for at in count())
    with ExitStack() as open_:
        folder = Path(open_.enter_context(TemporaryDirectory(prefix="bench-")))
        sandbox = open_.enter_context(support.sandbox(folder / "sandbox"))
        clients: dict[str, Dispatcher] = {}
        for position, (way, (always, durability)) in enumerate(WAYS.items()):
            place = folder / str(position)
            server = open_.enter_context(Server(place / "valkey", fsync=always))
            usual = {"deadline": "30", "lease": "60", "lost_after": "60", "sweep_every": "5", "tick": "0.25"}
            deployment = Deployment(server.url, sandbox, place, {**usual, "durability": durability})
            open_.callback(deployment.close)
            deployment.worker()
            clients[way] = deployment.client(durability=durability)
        for _ in range(rounds):
            for way, client in clients.items():
                taken[way].append(
                    (
                        _sends(client, numbers.__next__),
                        _many(client, numbers.__next__),
                        _single(client, numbers.__next__),
                    )
                )
    medians = {way: [statistics.median(column) for column in zip(*rows, strict=True)] for way, rows in taken.items()}
    return _table(medians, rounds)


def _sends(client: Dispatcher, number: Callable[[], str]) -> float:
    began = time.perf_counter()
    ids = [client.send(number(), "Hello").id for _ in range(SENDS)]
    took = time.perf_counter() - began
    client.wait(ids[-1], timeout=60)
    return SENDS / took


def _many(client: Dispatcher, number: Callable[[], str]) -> float:
    # A text of its own each, so that each is a request of its own.
    messages = [Message(one := number(), f"Hello {one}") for _ in range(MANY)]
    began = time.perf_counter()
    client.send_many(messages).wait(timeout=120)
    return MANY / (time.perf_counter() - began)


def _single(client: Dispatcher, number: Callable[[], str]) -> float:
    took = []
    for _ in range(SINGLES):
        began = time.perf_counter()
        client.wait(client.send(number(), "Hello").id, timeout=60)
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


def _table(medians: dict[str, list[float]], rounds: int) -> str:
    first = next(iter(medians.values()))
    lines = [f"| `DISPATCHER_DURABILITY` | {' | '.join(MEASURED)} |", "|---|--:|--:|--:|"]
    for way, values in medians.items():
        cells = [f"{value:,.0f} (×{value / usual:.2f})" for value, usual in zip(values, first, strict=True)]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join(
        [*lines, "", f"Medians of {rounds} rounds in turn; worker, Valkey and sandbox on one machine ({machine})."]
    )
