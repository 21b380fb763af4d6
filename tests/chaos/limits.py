"""What happens to whoever keeps a provider's limit: workers die, stand still or misread the time, Redis forgets."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dispatcher import Dispatcher, State
from tests import support
from tests.chaos import clocks
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import Worker, accepted
from workers.sandbox.client import Sandbox
from workers.sandbox.limits import Window

#: Texts in every window of so many seconds, and how long each is under way at most.
_MOST, _WINDOW, _LATE = 600, 20, 0.4

#: What goes in a second, as docs/limits.md says it: less than a limit by what is late.
_RATE: Final = (_MOST - _MOST // 100) / (_WINDOW + 1)

#: Seconds that a breaker stays open at first.
_PAUSE: Final = 5.0

#: Requests on the wire at a time, and jobs that the breaker looks at before it opens.
_AT_ONCE: Final = 10
_SAMPLE: Final = 10

#: Who is asked first and who takes over.
_ROUTE: Final = ("clubtexting", "textgoto")


@contextmanager
def _limited(lab: Lab, seconds: float, away: float = 0.0) -> Iterator[float]:
    """Have texts wait for a limit that the provider holds, too, for so many seconds and until all are sent.

    For `away` seconds of it, more or less, nobody sends.
    """
    lab.deployment.settings |= {
        "providers__textgoto__limits": f"send={_MOST}/{_WINDOW}s",
        "providers__textgoto__group_size": "1",
    }
    windows = [Window(counts="send", most=_MOST, seconds=_WINDOW)]
    lab.sandbox.limits(provider="textgoto", late=_LATE, windows=windows)
    texts = round(_RATE * seconds)
    lab.send_many(texts)
    began = time.monotonic()
    yield began + seconds
    # What dead workers had is waited for, and a limit whose use was forgotten is taken for used up.
    lab.settle(60)
    took = time.monotonic() - began
    lab.say(f"{texts} texts took {took:.0f} s, at least {seconds:.0f} s by the limit")
    lab.in_time("to send them all", took, 1.5 * seconds + 20 + away)
    (seen,) = lab.sandbox.limited().counted
    lab.say(f"at most {seen.sliding} of {_MOST} in a window, {seen.refused} refused")


@scenario(
    "limit-worker-kills",
    "Of three workers that share a limit one is killed (-9) again and again, and started again.",
    proves="the limit holds in every window, and what the dead were permitted is lost, not used twice",
    full={"seconds": 24.0},
    short={"seconds": 4.0},
)
def worker_kills(lab: Lab, seconds: float) -> None:
    with _limited(lab, seconds) as ends:
        workers = [lab.start_worker() for _ in range(3)]
        while time.monotonic() < ends:
            victim = lab.random.randrange(len(workers))
            workers[victim].ready()
            lab.pause(1, 2)
            workers[victim].kill()
            lab.inject("kill -9 of one worker of three")
            workers[victim] = lab.start_worker()
        lab.heal()


@scenario(
    "limit-clock-skew",
    "Of two workers that share a limit one's clock is an hour slow and the other's an hour fast.",
    proves="slots, leases and windows go by Redis' clock alone",
    full={"seconds": 16.0},
)
def clock_skew(lab: Lab, seconds: float) -> None:
    with _limited(lab, seconds):
        for worker in [clocks._worker(lab, off) for off in clocks._OFF]:
            worker.ready()
        lab.heal()


@scenario(
    "limit-state-lost",
    "What was used of a limit is deleted, then Redis is killed (-9) and what was used long ago stands there again.",
    proves="after a few seconds of caution work goes on, and no window has more than its limit",
    full={"seconds": 12.0},
)
def state_lost(lab: Lab, seconds: float) -> None:
    with _limited(lab, seconds):
        for worker in [lab.start_worker() for _ in range(2)]:
            worker.ready()
        soon(lambda: len(accepted(lab.sandbox.ledger())) > _RATE, "some texts")
        old = {key: lab.redis.dump(key) for key in _keys(lab)}
        for _ in range(2):
            lab.pause(2, 4)
            lab.redis.delete(*_keys(lab))
            lab.inject("what was used of the limit deleted")
        lab.pause(2, 4)
        lab.server.kill()
        lab.server.start()
        for key, dumped in old.items():
            lab.redis.restore(key, 0, dumped, replace=True)
        lab.inject("kill -9 of Redis, and what was used long ago is there again")


def _keys(lab: Lab) -> list[bytes]:
    """Return the keys of limiter and breaker."""
    return [key for pattern in ("d:lm:*", "d:lc:*", "d:lu:*") for key in lab.redis.scan_iter(pattern)]


@scenario(
    "limit-script-flush",
    "Redis forgets its scripts (SCRIPT FLUSH) again and again while texts wait for a limit.",
    proves="nobody notices",
    full={"seconds": 12.0},
)
def script_flush(lab: Lab, seconds: float) -> None:
    with _limited(lab, seconds) as ends:
        for worker in [lab.start_worker() for _ in range(2)]:
            worker.ready()
        while time.monotonic() < ends:
            lab.redis.script_flush()
            lab.inject("SCRIPT FLUSH")
            lab.pause(0, 0.05)
    lab.demand(f"{lab.unknown()} are unknown", holds=lab.unknown() == 0)


@scenario(
    "limit-frozen-worker",
    "The only worker stands still (SIGSTOP) with permits in its hands and wakes seconds later, again and again.",
    proves="a permit whose second is over is not used: what it sends when it wakes is what the limit lets go then",
    full={"times": 2, "asleep": 7.0},
    short={"times": 1, "asleep": 3.0},
)
def frozen_worker(lab: Lab, times: int, asleep: float) -> None:
    # Its sleep is longer than a lease: what it had on the wire is unknown then, and may have opened its breaker.
    with _limited(lab, times * 5.0, away=times * (asleep + _PAUSE)):
        worker = lab.worker()
        for _ in range(times):
            lab.pause(2, 4)
            os.kill(worker.popen.pid, signal.SIGSTOP)
            wire = len(lab.sending())
            lab.inject(f"the worker frozen for {asleep:g} s", over=False)
            time.sleep(asleep)
            woken = time.time()
            os.kill(worker.popen.pid, signal.SIGCONT)
            lab.heal()
            time.sleep(1)
            rows = accepted(lab.sandbox.ledger())
            sent = sum(woken <= row.at <= woken + 1 for row in rows)
            # Each of them may also have been on the wire when it fell asleep.
            most = _MOST // 100 + _RATE + wire
            lab.demand(f"{sent} texts went in a second, at most {most:.0f} may", holds=sent <= most)


@scenario(
    "breaker-500",
    "A provider answers 500 from one moment on, so that nobody knows, and works again some seconds later.",
    proves="its breaker opens: no more are unknown than it looked at, were on the wire, and tried whether it works",
    full={"texts": 400, "seconds": 12.0},
    short={"texts": 150, "seconds": 3.0},
)
def breaker_500(lab: Lab, texts: int, seconds: float) -> None:
    lab.deployment.settings |= {
        "providers__textgoto__limits": f"concurrency={_AT_ONCE}",
        "providers__textgoto__group_size": "1",
        "breaker_sample": str(_SAMPLE),
        "breaker_pause": "2",
    }
    lab.sandbox.fault("latency", seconds=0.1)
    for worker in [lab.start_worker() for _ in range(2)]:
        worker.ready()
    lab.send_many(texts)
    soon(lambda: len(accepted(lab.sandbox.ledger())) > texts / 4, "some texts")
    lab.sandbox.clear()
    lab.sandbox.fault("500")
    lab.inject("500 to everything", over=False)
    time.sleep(seconds)
    lab.sandbox.clear()
    lab.heal()
    lab.settle()
    told = [event.type for event in lab.d.events("0", timeout=0)]
    probes = told.count("provider.breaker_half_open")
    lab.demand("the breaker opened and closed", holds={*_OPENED} <= {*told})
    most = _SAMPLE + _AT_ONCE + probes
    lab.demand(f"{lab.unknown()} are unknown, at most {most} may be", holds=lab.unknown() <= most)
    states = {str(job.state) for job in lab.jobs().values()}
    lab.demand(f"they are {states}", holds=states <= {State.SENT, State.UNKNOWN})


_OPENED: Final = ("provider.breaker_open", "provider.breaker_half_open", "provider.breaker_closed")


@scenario(
    "failover-refused",
    "The first of two providers refuses connections in the middle of a campaign, and is there again much later.",
    proves="the rest goes through the second one, and both ledgers together have each text once",
    full={"texts": 400, "seconds": 15.0},
    short={"texts": 120, "seconds": 6.0},
)
def failover_refused(lab: Lab, texts: int, seconds: float) -> None:
    first = _another_sandbox(lab)
    d = _two_accounts(lab, first)
    worker = lab.worker(queues=",".join(_ROUTE))
    lab.send_many(texts, client=d, provider=list(_ROUTE))
    soon(lambda: len(accepted(first.ledger())) > texts / 4, "some texts of the first provider's")
    first.fault("refuse", seconds=seconds)
    lab.inject(f"connections refused for {seconds:g} s", over=False)
    took = lab.settle(60)
    first.wait_ready(seconds + 10)
    lab.heal()
    lab.settle()
    _ended(lab, worker)
    lab.say(f"all were settled after {took:.1f} s; the first has {len(accepted(first.ledger()))} of {texts}")
    states = {str(job.state) for job in lab.jobs().values()}
    lab.demand(f"they are {states}", holds=states == {State.SENT})
    lab.demand("the second provider took over", holds=bool(accepted(lab.sandbox.ledger())))


def _another_sandbox(lab: Lab) -> Sandbox:
    """Have a second sandbox, which can go while the first stays."""
    one = lab.enter(support.sandbox(Path(lab.folder) / "another"))
    one.limits(provider=_ROUTE[0], at_once=None)
    lab.others.append(one)
    return one


def _two_accounts(lab: Lab, first: Sandbox) -> Dispatcher:
    lab.deployment.settings |= {
        "providers__clubtexting__base_url": first.url,
        "providers__clubtexting__limits": f"address=none,concurrency={_AT_ONCE}",
        "providers__clubtexting__group_size": "1",
        "providers__textgoto__group_size": "1",
    }
    for sandbox in (first, lab.sandbox):
        sandbox.fault("latency", seconds=0.05)
    return lab.client(providers={name: {"callback_token": ""} for name in _ROUTE})


def _ended(lab: Lab, worker: Worker) -> None:
    """Demand that the worker outlived it."""
    lab.demand("the worker outlives it", holds=worker.popen.poll() is None)
