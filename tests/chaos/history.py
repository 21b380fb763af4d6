"""Redis' history goes back: its last writes are lost, or a backup takes its place, while workers are there or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import Past, accepted

#: Seconds of history that `appendfsync everysec` loses with the power.
_TAIL = 1.0


def _lose(lab: Lab, what: str, meddle: Callable[[], None]) -> None:
    """Kill Redis, meddle with its files, start it again."""
    lab.server.kill()
    meddle()
    lab.inject(what, over=False)
    lab.server.start()
    lab.heal()


def _excuse(lab: Lab) -> None:
    """Forget what was accepted in the part of history that was taken: it is in nobody's files any more."""
    ids = list(lab.accepted)
    with lab.redis.pipeline(transaction=False) as pipe:
        for one in ids:
            pipe.exists(f"d:j:{one}")
        gone = {one for one, there in zip(ids, pipe.execute(), strict=True) if not there}
    lab.excused |= gone
    if gone:
        lab.injected["job that was accepted in the part that is gone"] += len(gone)


def _took(lab: Lab, enough: int) -> bool:
    return len(accepted(lab.sandbox.ledger())) >= enough


def _asserted(lab: Lab) -> bool:
    return any("Redis had lost that" in entry.detail for job in lab.jobs().values() for entry in job.history)


@scenario(
    "history-tail-cut",
    "Redis loses the last second of its file with the power, again and again under load, while its worker lives.",
    proves="the worker asserts what it had sent, so that none of it is sent again",
    full={"cuts": 8},
    short={"cuts": 1},
)
def tail_cut(lab: Lab, cuts: int) -> None:
    # Slower than what comes in: so that what is sent in a second was known to Redis before it.
    lab.sandbox.fault("latency", seconds=0.25)
    lab.worker(connections="12")
    with lab.load(rate=80):
        for _ in range(cuts):
            lab.pause(1, 2)
            past = Past(lab.server)
            lab.pause(_TAIL, _TAIL)
            _lose(lab, f"the last {_TAIL:g} s of Redis' file cut", past.cut)
            lab.pause(1, 1)
    _excuse(lab)
    lab.settle()
    lab.demand("something of what was sent was lost and asserted again", holds=_asserted(lab))


@scenario(
    "history-backup",
    "A backup that is some seconds old takes the place of Redis' files, while its two workers live.",
    proves="what they sent since the backup is asserted, and not sent again",
    full={"seconds": 15.0},
    short={"seconds": 2.0},
)
def backup(lab: Lab, seconds: float) -> None:
    # Slower than what comes in, so that some of what is in the backup is sent after it.
    lab.sandbox.fault("latency", seconds=0.5)
    for one in [lab.start_worker(connections="8") for _ in range(2)]:
        one.ready()
    with lab.load(rate=80):
        lab.pause(1, 2)
        past = Past(lab.server)
        lab.pause(seconds, seconds)
    _lose(lab, f"a backup restored that is {seconds:g} s old", past.restore)
    _excuse(lab)
    lab.settle()
    lab.demand("something of what was sent was lost and asserted again", holds=_asserted(lab))


@scenario(
    "history-nobody-left",
    "Redis loses the last second of its file, and the worker that could have told dies with it.",
    proves="what may have been sent is held as unknown, and what was not due waits for its time",
    full={"times": 4},
    short={"times": 1},
)
def nobody_left(lab: Lab, times: int) -> None:
    lab.deployment.settings["heartbeat"] = "0.6"
    for _ in range(times):
        worker = lab.worker()
        lab.sandbox.fault("latency", seconds=0.05)
        now = time.time()
        lab.send_many(100, send_at=now + 2)
        lab.send_many(20, send_at=now + 3600)
        lab.pause(1, 1)
        past, before = Past(lab.server), len(accepted(lab.sandbox.ledger()))
        soon(partial(_took, lab, before + 20), "some of what is due")
        worker.kill()
        _lose(lab, "the worker killed, and the last seconds of Redis' file cut", past.cut)
        lab.worker().kill()
    lab.settle()
    lab.demand("all that was due is held", holds=lab.unknown() == 100 * times)
    lab.demand("what was not due still waits for its time", holds=int(lab.redis.zcard("d:w:textgoto")) == 20 * times)
