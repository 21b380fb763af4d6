"""How many texts a second one process enqueues, validated and durable, beside `apply_async`."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.fleet import table
from benchmarks.rig import ACCOUNT, PEERS, ROUNDS, Spread, in_turn, ratio, rig

#: Jobs by `send_many`, and calls of `send` or `apply_async`; and as a short form.
MANY: Final = 50_000
ONE_BY_ONE: Final = 10_000
FEW: Final = 500

_UNSEALED: Final = "`send_many`, unsealed"
_SEALED: Final = "`send_many`, sealed"
_LOOP: Final = "a loop of `apply_async(number, text)`"
_SEND: Final = "`send`"
_SEND_SEALED: Final = "`send`, sealed"
_PUBLISH: Final = "a bare `apply_async` of the message that `send` publishes"


def run(*, short: bool = False) -> str:
    """Enqueue in each way; return a Markdown table."""
    many, calls = (10 * FEW, FEW) if short else (MANY, ONE_BY_ONE)
    ways: dict[str, Callable[[], float]] = {
        _UNSEALED: partial(_ours, "send_many", many),
        _SEALED: partial(_ours, "send_many", many, sealed=True),
        _LOOP: partial(_celery, calls),
        _SEND: partial(_ours, "send", calls),
        _SEND_SEALED: partial(_ours, "send", calls, sealed=True),
        _PUBLISH: partial(_ours, "publish", calls),
    }
    measured = in_turn(ways, 1 if short else ROUNDS)
    beside = {_UNSEALED: _LOOP, _SEALED: _LOOP, _SEND: _PUBLISH, _SEND_SEALED: _PUBLISH}
    rows = [
        (
            name,
            Spread.of(rates).words(),
            f"{ratio(rates, measured[beside[name]]).words('.2f', 'x ')} {beside[name]}" if name in beside else "",
        )
        for name, rates in measured.items()
    ]
    about = (
        f"One producer process, no worker; {many:,} jobs by `send_many`, 10,000 a call; {calls:,} calls of the others."
    )
    return table(("enqueued by", "jobs/s", "that is"), rows, about)


def _ours(how: str, count: int, *, sealed: bool = False) -> float:
    settings = {f"providers__{ACCOUNT}__{field}": "sandbox" for field in ("uid", "pwd")}
    if sealed:
        settings |= {name: base64.b64encode(os.urandom(32)).decode() for name in ("secret_key", "hash_key")}
    with rig(settings) as one:
        return one.figure(one.ours("benchmarks.producer", how, str(count)))


def _celery(count: int) -> float:
    with rig() as one:
        return one.enqueue(PEERS["Celery"], count)
