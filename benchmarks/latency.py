"""How long a text takes from the call that enqueues it to its first byte at the provider, when nothing else goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from benchmarks.fleet import percentile, table
from benchmarks.rig import ACCOUNT, PEERS, Rig, messages, rig

TEXTS: Final = 300
FEW: Final = 30

#: Seconds between two texts, at least and at most.
PAUSE: Final = (0.03, 0.07)


def run(*, short: bool = False) -> str:
    """Measure each; return a Markdown table."""
    count = FEW if short else TEXTS
    ran = {"Dispatcher, high lane": _ours(count), "Celery": _celery(count)}
    rows = [
        (name, *(f"{1000 * value:.1f} ms" for value in (percentile(took, 0.5), percentile(took, 0.99), max(took))))
        for name, took in ran.items()
    ]
    head = (f"{count} texts, one every {PAUSE[0] * 1000:.0f} to {PAUSE[1] * 1000:.0f} ms", "p50", "p99", "longest")
    return table(head, rows, "From before the call that enqueues to the first byte of the request at the provider.")


def _ours(count: int) -> list[float]:
    with rig() as one:
        client = one.client()
        one.worker().ready()
        client.wait(client.send("+12125550100", "Warm", provider=ACCOUNT).id, timeout=30)
        one.provider.reset()
        asked = {}
        for text in messages(count):
            time.sleep(random.uniform(*PAUSE))
            asked[f"{text.to.removeprefix('+')} {text.text}"] = time.monotonic()
            client.send(text.to, text.text, provider=ACCOUNT, lane="high")
        return _took(one, asked)


def _celery(count: int) -> list[float]:
    with rig() as one:
        celery = PEERS["Celery"]
        one.peer(celery)
        one.enqueue(celery, 1)
        one.drained(1)
        one.provider.reset()
        told = one.paced(celery, count, PAUSE)
        return _took(one, msgspec.json.decode(told, type=dict[str, float]))


def _took(one: Rig, asked: Mapping[str, float]) -> list[float]:
    one.drained(len(asked))
    arrived = one.provider.arrivals()
    return [arrived[text] - at for text, at in asked.items()]
