"""How limits and the state of providers look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dispatcher.backlog import LaneState
from dispatcher.limits import BucketState, LimitState
from dispatcher.privacy import one_line
from dispatcher.suspensions import Suspension
from dispatcher.usage import LowBalance

#: Tenants of a lane that are shown; the others are counted.
_TENANTS: Final = 5

#: How jobs of nobody's are called among the tenants.
_NOBODY: Final = "(no tenant)"

_BREAKER: Final = {"closed": "green", "half_open": "yellow", "open": "red"}


def limits_view(states: Sequence[LimitState], lanes: Sequence[LaneState]) -> RenderableType:
    """Return the limits of accounts, what waits for them, and what is wrong."""
    if not states:
        return Text("No account is known yet; one is once its worker has run: dispatcher worker NAME")
    parts: list[RenderableType] = [_buckets(states), Text(), _lanes(lanes)]
    wrong = [Text(f"{one.provider}: {words}", "yellow") for one in states for words in one.slowed]
    wrong += [Text(f"{one.provider}: {one.breaker.words}", "red") for one in states if one.breaker.words]
    parts += [Text(), *wrong] if wrong else []
    return Group(*parts)


def _buckets(states: Sequence[LimitState]) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("account")
    table.add_column("bucket")
    table.add_column("limit")
    for column in ("used of it", "", "next in", "at once", "rate"):
        table.add_column(column, justify="right")
    for one in states:
        rows = [_bucket(bucket) for bucket in one.buckets]
        if one.concurrency is not None:
            each = " from each address" if one.concurrency_by == "address" else ""
            on = Text(f"{one.leases}")
            rows.append((Text("concurrency"), Text(f"{one.concurrency}{each}"), on, Text("on the wire", "dim")))
        for at, cells in enumerate(rows or [(Text("none", "dim"),)]):
            table.add_row(Text("" if at else one.provider), *cells)
    return table


def _bucket(one: BucketState) -> tuple[Text, ...]:
    if not one.limit:
        # Nobody limits it but what the provider said.
        return (Text(one.name), Text("throttled", "red"), Text(), Text(), _next(one), Text(), Text(f"{one.rate:.2f}/s"))
    unit = "" if one.unit == "requests" else f" {one.unit}"
    used = "" if one.name == "sender" else f"{one.used:,}"
    return (
        Text(one_line(one.name)),
        Text(f"{one.limit:,}{unit} in {one.window:g} s"),
        Text(used),
        Text("each by itself", "dim") if one.name == "sender" else Text(f"{one.used / one.limit:.0%}", "dim"),
        _next(one),
        Text(f"{one.burst}"),
        Text(f"{one.rate:.2f}/s"),
    )


def _next(one: BucketState) -> Text:
    return Text("now", "green") if one.next_ms <= 0 else Text(f"{one.next_ms / 1000:.2f} s")


def _lanes(lanes: Sequence[LaneState]) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("account")
    table.add_column("lane")
    for column in ("wait for their turn", "with workers", "wait for a time"):
        table.add_column(column, justify="right")
    table.add_column("by tenant, the next one first")
    before = ""
    for one in lanes:
        waiting = f"{one.waiting:,}{'+' if one.more else ''}"
        first = "" if one.provider == before else one.provider
        before = one.provider
        table.add_row(first, one.lane, waiting, f"{one.handed_out:,}", f"{one.timed:,}", Text(_tenants(one)))
    return table


def _tenants(one: LaneState) -> str:
    shown = [f"{one_line(name) or _NOBODY} {count:,}" for name, count in list(one.lines.items())[:_TENANTS]]
    others = len(one.lines) - len(shown)
    return ", ".join([*shown, *([f"{others} more"] if others or one.more else [])])


def print_health(states: Iterable[LimitState], suspended: Iterable[Suspension], low: Mapping[str, LowBalance]) -> None:
    """Print how each account is: breaker, suspensions, errors and latency of the last five minutes, its money."""
    table = Table(box=None, header_style="dim")
    for column in ("account", "breaker", "suspended"):
        table.add_column(column)
    for column in ("requests", "errors", "throttled", "p50", "p95"):
        table.add_column(column, justify="right")
    table.add_column("balance")
    scopes: dict[str, list[str]] = {}
    for one in suspended:
        scopes.setdefault(one.provider, []).append(one.scope)
    for state in states:
        held = ", ".join(scopes.get(state.provider, ()))
        money = low.get(state.provider)
        table.add_row(
            state.provider,
            Text(state.breaker.state.replace("_", " "), _BREAKER[state.breaker.state]),
            Text(held or "no", "red" if held else "dim"),
            f"{state.requests:,}",
            Text(f"{state.error_share:.1%}", "red" if state.error_share else "dim") if state.requests else "",
            Text(f"{state.throttled}", "red") if state.throttled else "",
            _seconds(state.p50),
            _seconds(state.p95),
            Text(f"{money.balance}, below {money.below}", "red") if money else "",
        )
    if table.row_count:
        console = Console() if Console().is_terminal else Console(width=160)
        console.print(table)
        console.print(Text("Requests, errors and times are those of the last five minutes.", "dim"))
        console.print()


def _seconds(one: float | None) -> str:
    return "" if one is None else f"{one:.2f} s"
