"""What happens to Redis under load: it dies, stands still, is full, loads for long, forgets its scripts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import redis

from dispatcher import State, StoreUnavailable
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import WATCH, Server

#: Seconds after which work goes on: after a short outage, and after a longer one.
SHORT: Final = 5.0
LONG: Final = 10.0

#: Seconds that an outage is short for.
_SHORT_OUTAGE: Final = 10.0

#: Seconds that an application waits at most for a Redis that says nothing.
_PATIENCE: Final = 15.0

#: Seconds that a server which takes its time reads its file for, and microseconds that the shortest sleep costs.
_LOADING: Final = 3.0
_SLEEPS: Final = 60

#: What kombu logs where Redis forgot the script with which it renews its queues' bindings.
_KOMBU_REFRESHES: Final = re.compile(
    r"maybe_refresh_binding_expiry: Redis error, will retry.*?NoScriptError: [^\n]*", re.DOTALL
)

#: How an append-only file writes that a command begins.
_COMMAND: Final = b"\r\n*"


def promised(outage: float) -> float:
    """Return the seconds after which work goes on when Redis was away for so many."""
    return SHORT if outage <= _SHORT_OUTAGE else LONG


def goes_on(lab: Lab, limit: float) -> None:
    """Demand that a text of this moment is sent within `limit` seconds of the fault's end, which is now."""
    lab.heal()
    since, sent = time.monotonic(), list[str]()

    def gone() -> bool:
        # Several: what was popped just before an outage is lost, and found later.
        with contextlib.suppress(StoreUnavailable):
            sent.append(lab.send(lane="high").id)
            time.sleep(0.1)
            return State.SENT in lab.d.states(sent)
        return False

    soon(gone, "a text", 6 * limit)
    took = time.monotonic() - since
    lab.say(f"went on after {took:.1f} s")
    lab.in_time("to go on", took, limit)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """Let a server stand still meanwhile; its connections stay open."""
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


@contextmanager
def asked(lab: Lab) -> Iterator[None]:
    """Demand that a call which an application begins now ends in time, well or not."""

    def ask() -> None:
        began = time.monotonic()
        with contextlib.suppress(StoreUnavailable):
            lab.send()
        lab.in_time("an application's call", time.monotonic() - began, _PATIENCE)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@scenario(
    "redis-kill",
    "Redis is killed (-9) again and again under load and started again from its file; at last it is away for long.",
    proves="what was accepted is there, nothing is sent twice, and work goes on in 5 s, after a long outage in 10 s",
    full={"kills": 8, "away": 31.0},
    short={"kills": 1, "away": 0.0},
    alone=True,
)
def redis_kill(lab: Lab, kills: int, away: float) -> None:
    lab.sandbox.fault("latency", seconds=0.05)
    workers = [lab.start_worker(connections="20") for _ in range(2)]
    for one in workers:
        one.ready()
    with lab.load(rate=60):
        for outage in [*(lab.random.uniform(0.2, 3) for _ in range(kills)), *([away] if away else [])]:
            lab.pause(0.5, 2)
            lab.server.kill()
            lab.inject("kill -9 of Redis" if outage < _SHORT_OUTAGE else "Redis away for long", over=False)
            time.sleep(outage)
            lab.server.start()
            goes_on(lab, promised(outage))
    lab.settle()
    lab.demand("both workers outlive it", holds=all(one.popen.poll() is None for one in workers))


@scenario(
    "redis-frozen",
    "Redis stands still (SIGSTOP) under load, once for longer than any lease, and goes on.",
    proves="applications are told in time, nothing is sent twice, and work goes on soon after",
    full={"seconds": (5, 20, 70)},
    short={"seconds": (5,)},
    alone=True,
)
def redis_frozen(lab: Lab, seconds: Sequence[float]) -> None:
    lab.sandbox.fault("latency", seconds=0.05)
    lab.worker(connections="20")
    with lab.load(rate=60):
        for standing in seconds:
            lab.pause(0.5, 2)
            with stopped(lab.server), asked(lab):
                lab.inject(f"Redis frozen for {standing:g} s", over=False)
                time.sleep(standing)
            goes_on(lab, promised(standing))
    lab.settle()


@scenario(
    "redis-full",
    "Redis is full (maxmemory, noeviction) for a while under load.",
    proves="what is new is refused whole, what was on the wire is written down, nothing is evicted, and work goes on",
    full={"times": 4, "seconds": 5.0},
    short={"times": 1, "seconds": 2.0},
    alone=True,
)
def redis_full(lab: Lab, times: int, seconds: float) -> None:
    lab.sandbox.fault("latency", seconds=0.5)
    worker = lab.worker(connections="20")
    with lab.load(rate=60):
        for _ in range(times):
            lab.pause(1, 2)
            soon(lab.sending, "texts on the wire")
            lab.redis.config_set("maxmemory", 1)
            lab.inject("Redis full", over=False)
            wire = list(lab.sending())
            time.sleep(seconds)
            still = lab.sending() & set(wire)
            lab.redis.config_set("maxmemory", 0)
            goes_on(lab, SHORT)
            lab.demand(f"{len(still)} of {len(wire)} that were on the wire had no outcome", holds=not still)
    lab.settle()
    refused = [one for one in lab.maybe if lab.redis.exists(f"d:j:{one}")]
    lab.demand("a full Redis refuses what is new", holds=bool(lab.maybe))
    lab.demand(f"{len(refused)} of {len(lab.maybe)} refused jobs are there all the same", holds=not refused)
    lab.demand("nothing is evicted", holds=lab.redis.info("stats")["evicted_keys"] == 0)
    lab.demand("the worker outlives it", holds=worker.popen.poll() is None)


@scenario(
    "redis-scripts-flushed",
    "Redis forgets its scripts (SCRIPT FLUSH) again and again under load.",
    proves="nobody notices",
    full={"seconds": 20.0},
    short={"seconds": 3.0},
)
def scripts_flushed(lab: Lab, seconds: float) -> None:
    lab.worker(connections="20")
    ends = time.monotonic() + seconds
    with lab.load(rate=100):
        while time.monotonic() < ends:
            lab.redis.script_flush()
            lab.inject("SCRIPT FLUSH")
            lab.pause(0, 0.02)
    lab.settle()
    logs = "".join(one.read_text(errors="replace") for one in lab.folder.rglob("*.log"))
    # Kombu's own scripts are not ours to mend: it says so, and tries again.
    ours = _KOMBU_REFRESHES.sub("", logs)
    lab.demand("no call fails for it", holds=not lab.maybe and "NOSCRIPT" not in ours and "NoScript" not in ours)


@scenario(
    "redis-loading",
    "Redis is killed (-9), and for seconds after its start it still reads a long file and refuses everybody.",
    proves="who comes too early waits, also a worker that is started then, and work goes on within 5 s",
    full={"times": 2, "jobs": 1000},
    short={"times": 1, "jobs": 300},
    alone=True,
)
def redis_loading(lab: Lab, times: int, jobs: int) -> None:
    lab.worker(connections="20")
    lab.send_many(jobs)
    with lab.load(rate=60):
        for _ in range(times):
            lab.pause(1, 2)
            lab.server.kill()
            lab.inject("kill -9 of Redis, which then loads for long", over=False)
            with _loads(lab.server):
                lab.demand("it refuses while it loads", holds=_refuses(lab))
                new = lab.start_worker()
            new.ready()
            goes_on(lab, SHORT)
    lab.settle()


@contextmanager
def _loads(server: Server) -> Iterator[None]:
    """Start a server that takes its time to read its file; it is ready afterwards."""
    commands = sum(one.read_bytes().count(_COMMAND) for one in server.folder.rglob("*.aof"))
    # An option for the server's own tests: microseconds of sleep after each command; below zero, the shortest sleep
    # after every so many.
    each = round(_LOADING * 1_000_000 / max(1, commands)) - _SLEEPS
    delay = each if each > 0 else -max(1, round(commands * _SLEEPS / (_LOADING * 1_000_000)))
    server.process = subprocess.Popen(
        [*server.command, "--key-load-delay", str(delay)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    WATCH.group(server.process.pid, "valkey")
    yield
    server.wait(server.process.pid)


def _refuses(lab: Lab) -> bool:
    """Say whether Redis answers that it is loading, once it answers at all."""
    ends = time.monotonic() + _LOADING
    while time.monotonic() < ends:
        try:
            lab.redis.get("d:mode")
        except redis.BusyLoadingError:
            return True
        except redis.ConnectionError:
            time.sleep(0.02)
        else:
            return False
    return False
