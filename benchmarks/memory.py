"""What a job weighs in Redis, whether a worker grows with what it did, and what it takes while it does nothing."""

from __future__ import annotations

import base64
import os
import time
from typing import Final

from benchmarks.fleet import say, table
from benchmarks.rig import ACCOUNT, Rig, cpu, messages, resident, rig, used
from dispatcher import Message

#: Jobs that are weighed; jobs that one worker executes, so many at a time.
WEIGHED: Final = 20_000
EXECUTED: Final = 200_000
PORTION: Final = 20_000
FEW: Final = 1_000

#: Whether they are sealed, and whether Redis packs as production is advised to, or as it comes.
_WEIGHED: Final = {
    "unsealed": (False, True),
    "sealed": (True, True),
    "sealed, with the `hash-max-listpack-value 64` that Redis comes with": (True, False),
}

#: Characters of a text that is weighed.
LENGTH: Final = 77

#: Seconds that an idle worker is looked at.
IDLE: Final = 60
IDLE_SHORT: Final = 5

_MIB: Final = 1 << 20


def run(*, short: bool = False) -> str:
    """Measure all of it; return a Markdown table."""
    rows = []
    for name, (sealed, packed) in _WEIGHED.items():
        queued, settled = _weights(FEW if short else WEIGHED, sealed=sealed, packed=packed)
        rows.append((f"in Redis, a queued job, {name}", f"{queued:,.0f} bytes"))
        rows.append((f"in Redis, a settled job with its history, {name}", f"{settled:,.0f} bytes"))
    grown, idle = _worker(5 * FEW if short else EXECUTED, FEW if short else PORTION, IDLE_SHORT if short else IDLE)
    told = [jobs for jobs in (min(grown), max(grown) // 2, max(grown)) if jobs in grown]
    rows += [(f"a worker's memory after {jobs:,} jobs", f"{grown[jobs] / _MIB:.1f} MiB") for jobs in told]
    rows.append(("an idle worker", f"{idle:.2%} of a core"))
    about = f"Texts of {LENGTH} characters, each in words of its own; a queued one with its message on the broker."
    return table(("what", "how much"), rows, about)


def _weights(count: int, *, sealed: bool, packed: bool) -> tuple[float, float]:
    """Return the bytes of a queued and of a settled job."""
    keys = {name: base64.b64encode(os.urandom(32)).decode() for name in ("secret_key", "hash_key")} if sealed else {}
    with rig(keys) as one:
        if not packed:
            one.redis.config_set("hash-max-listpack-value", 64)
        client = one.client(**keys)
        client.send_many(_texts(1), provider=ACCOUNT)
        before = used(one.redis)
        for start in range(1, count + 1, PORTION):
            client.send_many(_texts(min(PORTION, count + 1 - start), start), provider=ACCOUNT)
        queued = used(one.redis) - before
        one.worker()
        one.drained(count + 1)
        one.settled()
        return queued / count, (used(one.redis) - before) / count


def _texts(count: int, first: int = 0) -> list[Message]:
    """Return texts of an ordinary length, each in words of its own."""
    return [
        Message(text.to, f"{text.text}, your parcel is on its way.".ljust(LENGTH, "."))
        for text in messages(count, first)
    ]


def _worker(count: int, portion: int, idle: int) -> tuple[dict[int, int], float]:
    """Return a worker's memory after so many jobs, and the part of a core that it takes with nothing to do."""
    grown: dict[int, int] = {}
    with rig() as one:
        client, worker = one.client(), one.worker().ready()
        for start in range(0, count, portion):
            client.send_many(messages(portion, start), provider=ACCOUNT)
            one.drained(start + portion)
            one.settled()
            grown[start + portion] = resident(worker.popen.pid)
            say(f"after {start + portion:,} jobs the worker has {grown[start + portion] / _MIB:.1f} MiB")
        return grown, _idle(one, worker.popen.pid, idle)


def _idle(one: Rig, pid: int, seconds: int) -> float:
    time.sleep(2)
    before, began = cpu(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu(pid) - before) / (time.monotonic() - began)
