"""What becomes of a thousand texts when the first of two providers fails in the middle of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from benchmarks.fleet import fleet, say, table
from tests.support import accepted, until
from workers.sandbox.client import Sandbox

TEXTS, FEW = 1_000, 200

WORKERS: Final = 2

#: Who is asked first, played by a sandbox of its own so that it alone can go, and who takes over.
ROUTE: Final = ("clubtexting", "textgoto")

#: Requests that the first has on the wire at most.
AT_ONCE: Final = 20

#: Seconds that connections are refused for, longer than the rest takes; the ledger is read afterwards.
_AWAY: Final = 45.0

#: Seconds that the end of all is waited for.
_PATIENCE: Final = 120.0


def _refuses(provider: Sandbox) -> None:
    provider.fault("refuse", seconds=_AWAY)


def _says_503(provider: Sandbox) -> None:
    provider.fault("503", provider=ROUTE[0])


def _says_500(provider: Sandbox) -> None:
    provider.fault("500", provider=ROUTE[0])


_FAULTS: Final[dict[str, Callable[[Sandbox], None]]] = {
    "refuses connections": _refuses,
    "answers 503": _says_503,
    "answers 500": _says_500,
}


class Ran(NamedTuple):
    """What one run showed."""

    name: str
    states: Counter[str]
    #: Texts in each ledger, those in neither and those that are there more than once.
    first: int
    second: int
    missing: int
    twice: int
    #: Requests of the first account on the wire when it failed.
    wire: int
    #: Seconds from then until all were settled.
    took: float


def run(*, short: bool = False) -> str:
    """Play each fault; return a Markdown table."""
    texts = FEW if short else TEXTS
    ran = [_run(name, fault, texts) for name, fault in _FAULTS.items()]
    head = (
        f"{ROUTE[0]} ...",
        "jobs",
        f"by {ROUTE[0]}",
        f"by {ROUTE[1]}",
        "in no ledger",
        "twice",
        "on the wire then",
        "settled after",
    )
    rows = [
        (
            one.name,
            ", ".join(f"{count} {state}" for state, count in sorted(one.states.items())),
            *map(str, (one.first, one.second, one.missing, one.twice, one.wire)),
            f"{one.took:.0f} s",
        )
        for one in ran
    ]
    return table(
        head, rows, f"{texts} texts with `provider={list(ROUTE)}`, the fault after about half; {WORKERS} workers."
    )


def _run(name: str, fault: Callable[[Sandbox], None], texts: int) -> Ran:
    # Its own limit, two a second, would make all of it take ten minutes.
    settings = {
        "providers__clubtexting__limits": f"address=none,concurrency={AT_ONCE}",
        "providers__clubtexting__group_size": "1",
    }
    with fleet(settings, sandboxes=2) as one:
        first, second = one.sandboxes
        one.deployment.settings["providers__clubtexting__base_url"] = first.url
        one.deployment.settings["sandbox_url"] = second.url
        # What a provider takes to answer, so that some are on the wire when it fails.
        first.limits(provider=ROUTE[0], at_once=None)
        for sandbox in one.sandboxes:
            sandbox.fault("latency", seconds=0.05)
        client = one.client(*ROUTE)
        one.workers(",".join(ROUTE), WORKERS)
        batch = client.send_many(one.messages(texts), provider=list(ROUTE))
        until(lambda: len(accepted(first.ledger())) >= texts // 2 - texts // 10, 120, "half of the texts")
        wire = int(one.redis.zcard("d:l"))
        before = _numbers(first)
        first.clear()
        fault(first)
        say(f"{name}: {sum(before.values())} are sent, {wire} on the wire")
        began = time.monotonic()
        with suppress(AssertionError):  # it is in the table then
            one.settled(*ROUTE, within=_PATIENCE)
        took = time.monotonic() - began
        first.wait_ready(2 * _AWAY)
        there = [_numbers(first), _numbers(second)]
        together = there[0] + there[1]
        states = Counter(str(state) for state in client.states(batch.jobs.ids))
        numbers = {job.to.removeprefix("+") for job in client.get_many(batch.jobs.ids, reveal=True).values() if job.to}
        return Ran(
            name,
            states,
            sum(there[0].values()),
            sum(there[1].values()),
            len(numbers - {*together}),
            sum(count > 1 for count in together.values()),
            wire,
            took,
        )


def _numbers(sandbox: Sandbox) -> Counter[str]:
    return Counter(row.msisdn for row in accepted(sandbox.ledger()))
