"""How many texts a second reach the provider: in bulk, in groups, one by one, with more processes, with more Redis.

All texts are enqueued before the worker starts, so that nobody enqueues beside it; what counts is the time from the
first arrival to the last, on the provider.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from benchmarks.fleet import table
from benchmarks.rig import (
    ACCOUNT,
    IN_FLIGHT,
    MOST,
    PEERS,
    ROUNDS,
    Peer,
    Rig,
    Spread,
    cpu,
    frozen,
    in_turn,
    messages,
    per_second,
    ratio,
    rig,
)

#: Texts of a run, and of one that only shows that it runs.
BULK, GROUPED, ONE_BY_ONE, FEW = 6_000, 40_000, 5_000, 600

#: Recipients of a request, where one takes many.
GROUP: Final = 100

_NOTHING: Final[Mapping[str, str]] = {}

_WIRE: Final = "over workers/wire.py"
_ENGINES: Final = {
    _WIRE: "ours",
    "over aiohttp (httpx-aiohttp)": "aiohttp",
    "over httpx' own (httpcore)": "httpx",
}

#: Texts that wait, where it is compared how many do.
FEW_WAIT: Final = 10_000
MANY_WAIT: Final = 1_000_000

_OURS, _BARE = "Dispatcher", "a bare loop of our transport"


class Ran(NamedTuple):
    """What one run showed: texts a second, and what part of a core each process took."""

    rate: float
    cpu: dict[str, float]


def bulk(*, short: bool = False) -> str:
    """Send texts, a request each, with everybody; return a Markdown table."""
    count, rounds = (FEW, 1) if short else (BULK, ROUNDS)
    ways: dict[str, Callable[[], float]] = {_OURS: partial(ours, count)}
    ways |= {name: partial(theirs, peer, count) for name, peer in PEERS.items()}
    given = {f"{name}, given our transport": peer for name, peer in PEERS.items() if name != "Celery"}
    ways |= {name: partial(theirs, peer, count, MOST, {"TRANSPORT": "ours"}) for name, peer in given.items()}
    ways[_BARE] = partial(bare, count)
    measured = in_turn(ways, rounds)
    rows = [
        (
            name,
            str(IN_FLIGHT if name in PEERS else MOST),
            Spread.of(rates).words(),
            "" if name == _OURS else ratio(measured[_OURS], rates).words(".2f", "x "),
        )
        for name, rates in measured.items()
    ]
    head = (f"{count:,} texts, a request each", "at once, at most", "texts/s", "ours is")
    return table(head, rows, _about(rounds))


def group(*, short: bool = False) -> str:
    """Send one text to many, a hundred in a request; return a Markdown table."""
    count, rounds = (10 * FEW, 1) if short else (GROUPED, ROUNDS)
    measured = in_turn({_OURS: partial(ours, count, alike=True, group_size=str(GROUP))}, rounds)
    rows = [(_OURS, Spread.of(measured[_OURS]).words())]
    head = (f"one text to {count:,}, {GROUP} in a request", "recipients/s")
    return table(head, rows, _about(rounds))


def singles(*, short: bool = False) -> str:
    """Send texts that were enqueued one by one; return a Markdown table."""
    count, rounds = (FEW, 1) if short else (ONE_BY_ONE, ROUNDS)
    celery = PEERS["Celery"]
    ways = {_OURS: partial(ours, count, one_by_one=True), celery.name: partial(theirs, celery, count)}
    measured = in_turn(ways, rounds)
    rows = [(_OURS, Spread.of(measured[_OURS]).words(), "")]
    rows.append(
        (
            f"{celery.name}, {IN_FLIGHT} threads",
            Spread.of(measured[celery.name]).words(),
            ratio(measured[_OURS], measured[celery.name]).words(".2f", "x "),
        )
    )
    head = (f"{count:,} texts, each by a `send` of its own", "texts/s", "ours is")
    return table(head, rows, _about(rounds))


def engines(*, short: bool = False) -> str:
    """Send over each engine that httpx can have, with nothing around it; return a Markdown table."""
    count, rounds = (FEW, 1) if short else (BULK, ROUNDS)
    measured = in_turn({name: partial(_engine, engine, count) for name, engine in _ENGINES.items()}, rounds)
    rows = [
        (name, Spread.of(rates).words(), ratio(measured[_WIRE], rates).words(".2f", "x ") if name != _WIRE else "")
        for name, rates in measured.items()
    ]
    about = f"Answered at once; {IN_FLIGHT} at once; medians of {rounds} rounds in turn."
    return table((f"{count:,} requests by `handle_async_request`", "requests/s", "ours is"), rows, about)


def _engine(name: str, count: int) -> float:
    with rig(delay=0) as one:
        one.engine(name, count)
        return per_second(one.drained(count))


def processes(*, short: bool = False) -> str:
    """Send with one worker process and with two; return a Markdown table."""
    return _watched({"one worker process": watched, "two": partial(watched, workers=2)}, short=short)


def servers(*, short: bool = False) -> str:
    """Send over one Redis, and with the broker on one of its own; return a Markdown table."""
    ways = {"one Redis": partial(watched, workers=2), "the broker apart": partial(watched, workers=2, apart=True)}
    return _watched(ways, short=short)


def _watched(ways: Mapping[str, Callable[[int], Ran]], *, short: bool) -> str:
    count, rounds = (FEW, 1) if short else (2 * BULK, ROUNDS)
    rans: dict[str, list[Ran]] = {name: [] for name in ways}

    def rate(name: str) -> float:
        rans[name].append(ways[name](count))
        return rans[name][-1].rate

    measured = in_turn({name: partial(rate, name) for name in ways}, rounds)
    first = measured[next(iter(ways))]
    rows = [
        (name, Spread.of(rates).words(), ratio(rates, first).words(".2f", "x "), _shares(rans[name]))
        for name, rates in measured.items()
    ]
    return table((f"{count:,} texts, a request each", "texts/s", "of the first row", "of a core"), rows, _about(rounds))


# -- one run -----------------------------------------------------------------------------------------------------------


def ours(count: int, *, alike: bool = False, one_by_one: bool = False, group_size: str = "") -> float:
    """Return how many texts a second our worker sends."""
    settings = {f"providers__{ACCOUNT}__group_size": group_size} if group_size else {}
    with rig(settings) as one:
        enqueue(one, count, alike=alike, one_by_one=one_by_one)
        one.worker()
        return per_second(one.drained(count))


def theirs(peer: Peer, count: int, in_flight: int = IN_FLIGHT, more: Mapping[str, str] = _NOTHING) -> float:
    """Return how many texts a second a peer's worker sends."""
    with rig() as one:
        one.enqueue(peer, count, more=more)
        one.peer(peer, in_flight, more)
        return per_second(one.drained(count))


def bare(count: int) -> float:
    """Return how many texts a second go where there is nothing but the transport."""
    with rig() as one:
        one.ours("benchmarks.bare", one.provider.url, str(count), str(MOST))
        return per_second(one.drained(count))


def watched(count: int, workers: int = 1, *, apart: bool = False) -> Ran:
    """Send texts while looking at what each process takes; with `apart`, the broker is a Redis of its own."""
    with rig() as one:
        servers = {"Redis": one.server}
        if apart:
            servers = {"job store": one.server, "broker": one.second_server()}
            one.deployment.settings["broker_url"] = servers["broker"].url
        started = [one.worker(f"worker{at}") for at in range(workers)]
        for worker in started:
            worker.ready()
        # All of them begin at the same moment, and nobody enqueues meanwhile.
        with frozen(started):
            enqueue(one, count)
        pids = {f"worker {at + 1}": worker.popen.pid for at, worker in enumerate(started)}
        pids |= {name: server.process.pid for name, server in servers.items() if server.process}
        pids |= {"provider": one.provider.process.popen.pid}
        before, began = {name: cpu(pid) for name, pid in pids.items()}, time.monotonic()
        counted = one.drained(count)
        took = time.monotonic() - began
        return Ran(per_second(counted), {name: (cpu(pid) - before[name]) / took for name, pid in pids.items()})


def backlog(*, short: bool = False) -> str:
    """Send while few texts wait and while very many do; return a Markdown table."""
    few, many, sent = (FEW, 10 * FEW, FEW // 2) if short else (FEW_WAIT, MANY_WAIT, FEW_WAIT)
    measured = in_turn({f"{count:,}": partial(_first, count, sent) for count in (few, many)}, 1 if short else ROUNDS)
    rows = [
        (name, Spread.of(rates).words(), ratio(rates, measured[f"{few:,}"]).words(".2f", "x "))
        for name, rates in measured.items()
    ]
    return table(("texts that wait", f"texts/s of the first {sent:,}", "of the first row"), rows)


def _first(count: int, sent: int) -> float:
    """Return how many texts a second go while so many wait."""
    with rig() as one:
        enqueue(one, count)
        one.worker()
        return per_second(one.drained(sent))


def enqueue(one: Rig, count: int, *, alike: bool = False, one_by_one: bool = False) -> None:
    """Enqueue texts with us."""
    client, texts = one.client(), messages(count, alike=alike)
    if one_by_one:
        for text in texts:
            client.send(text.to, text.text, provider=ACCOUNT)
        return
    for start in range(0, count, 10_000):
        client.send_many(texts[start : start + 10_000], provider=ACCOUNT)


def _shares(rans: Sequence[Ran]) -> str:
    """Say what part of a core each process took, the median of the rounds."""
    names = rans[0].cpu
    return ", ".join(f"{name} {statistics.median(ran.cpu[name] for ran in rans):.0%}" for name in names)


def _about(rounds: int) -> str:
    return (
        f"The provider answers after 50 ms; all is enqueued before it starts; from the first arrival"
        f" to the last; medians of {rounds} rounds in turn, in brackets their least and most."
    )
