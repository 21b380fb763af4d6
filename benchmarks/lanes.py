"""How long a code waits while a hundred thousand texts of a campaign do, and another tenant's few texts."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from benchmarks.fleet import Fleet, fleet, percentile, say, sleep_until, table
from dispatcher import Dispatcher
from tests.support import accepted, until

BULK, FEW = 100_000, 3_000
CODES, LESS = 200, 20

#: Seconds between two codes.
EVERY: Final = 0.3

#: Texts of the second tenant.
OTHERS: Final = 10

WORKERS: Final = 2

_PROVIDER: Final = "textgoto"


class Ran(NamedTuple):
    """What one run showed: seconds from the call to the provider's ledger."""

    name: str
    codes: list[float]
    others: list[float]
    #: Of the campaign, what still waited when the last code was accepted.
    left: int


def run(*, short: bool = False) -> str:
    """Measure on a limited provider and on one without limits; return a Markdown table."""
    bulk, codes = (FEW, LESS) if short else (BULK, CODES)
    ran = [_run("`all=1000/60s`", "all=1000/60s", bulk, codes), _run("no limit", "none", bulk, codes)]
    head = (
        f"{bulk:,} texts wait",
        f"`verify` until the provider has it, p50 of {codes}",
        "p99",
        "longest",
        f"{OTHERS} texts of another tenant: the first",
        "the last",
        "of the campaign still waiting then",
    )
    rows = [
        (
            one.name,
            f"{percentile(one.codes, 0.5):.2f} s",
            f"{percentile(one.codes, 0.99):.2f} s",
            f"{max(one.codes):.2f} s",
            f"{min(one.others):.1f} s",
            f"{max(one.others):.1f} s",
            f"{one.left:,}",
        )
        for one in ran
    ]
    return table(head, rows, f"One `verify` every {EVERY:g} s, beside it the other tenant's; {WORKERS} workers.")


def _run(name: str, limits: str, bulk: int, codes: int) -> Ran:
    with fleet({f"providers__{_PROVIDER}__limits": limits}) as one:
        client = one.client(_PROVIDER)
        one.workers(_PROVIDER, WORKERS)
        one.enqueue(client, bulk, provider=_PROVIDER, tenant="first")
        say(f"{name}: {one.open_jobs(_PROVIDER)} jobs wait")
        others = client.send_many(one.messages(OTHERS), provider=_PROVIDER, tenant="second").jobs.ids
        at = time.time()
        asked = _codes(one, client, codes)
        left = one.open_jobs(_PROVIDER)
        numbers = {client.get(id_, reveal=True).to: at for id_ in others}
        until(lambda: not {*asked, *numbers} - {*_taken(one)}, 300, "the codes, and the other tenant's texts")
        taken = _taken(one)
        say(f"{name}: {left} jobs wait still")
        return Ran(
            name,
            [taken[number] - began for number, began in asked.items()],
            [taken[number] - began for number, began in numbers.items()],
            left,
        )


def _codes(one: Fleet, client: Dispatcher, count: int) -> dict[str, float]:
    """Ask for codes at an even pace; return when each was asked for, by number."""
    asked: dict[str, float] = {}
    began = time.monotonic()
    for turn in range(count):
        sleep_until(began + turn * EVERY)
        number = one.number()
        asked[number] = time.time()
        client.verify(number, provider=_PROVIDER)
    return asked


def _taken(one: Fleet) -> dict[str, float]:
    """Return when the provider accepted a text, by number."""
    return {f"+{row.msisdn}": row.at for row in accepted(one.sandbox.ledger())}
