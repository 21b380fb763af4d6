"""What a job costs Redis, from its first byte to its settled state, and so how many jobs a second a Redis carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from benchmarks.fleet import table
from benchmarks.rig import rig
from benchmarks.throughput import GROUP, enqueue

BULK: Final = 10_000
ONE_BY_ONE: Final = 3_000
FEW: Final = 300

#: Calls of scripts, as Redis names them.
_SCRIPTS: Final = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


class Spent(NamedTuple):
    """What a Redis did so far, or for one job."""

    commands: float
    scripts: float
    #: Microseconds of its main thread.
    cpu: float
    received: float
    sent: float
    written: float

    @classmethod
    def by(cls, redis: Any) -> Spent:
        """Ask a Redis."""
        told = redis.info("everything")
        calls = {name: stat["calls"] for name, stat in told.items() if name.startswith("cmdstat_")}
        return cls(
            sum(calls.values()),
            sum(calls.get(name, 0) for name in _SCRIPTS),
            1e6 * (told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"]),
            told["total_net_input_bytes"],
            told["total_net_output_bytes"],
            told["aof_current_size"],
        )

    def since(self, before: Spent, jobs: int) -> Spent:
        """Return what it did for each of so many jobs since another moment."""
        return Spent(*((now - then) / jobs for now, then in zip(self, before, strict=True)))


def run(*, short: bool = False) -> str:
    """Count for each road that a job can take; return a Markdown table."""
    bulk, single = (FEW, FEW) if short else (BULK, ONE_BY_ONE)
    roads: dict[str, tuple[int, Mapping[str, Any]]] = {
        "in bulk, a request each": (bulk, {}),
        f"in bulk, {GROUP} in a request": (bulk, {"alike": True}),
        "one by one": (single, {"one_by_one": True}),
    }
    rows = []
    for road, (count, how) in roads.items():
        for server, spent in _spent(count, how).items():
            cells = (f"{spent.commands:.2f}", f"{spent.scripts:.2f}", f"{spent.cpu:.0f} µs", f"{1e6 / spent.cpu:,.0f}")
            kibibytes = (f"{value / 1024:.2f}" for value in (spent.received, spent.sent, spent.written))
            rows.append((f"{road}: {server}", *cells, *kibibytes))
    head = (
        "a job, enqueued until settled",
        "commands, those of scripts too",
        "calls of scripts",
        "of Redis' one core",
        "jobs/s that fill it",
        "KiB in",
        "KiB out",
        "KiB appended",
    )
    return table(head, rows, "The broker on a Redis of its own, to tell them apart; on one Redis, a job costs the sum.")


def _spent(count: int, how: Mapping[str, Any]) -> dict[str, Spent]:
    """Return what a job cost the job store and the broker."""
    settings = {"providers__textgoto__group_size": str(GROUP)} if how.get("alike") else {}
    with rig(settings) as one:
        second = one.second_server()
        one.deployment.settings["broker_url"] = second.url
        servers = {"job store": one.redis, "broker": one.connected(second)}
        one.worker().ready()
        before = {name: Spent.by(redis) for name, redis in servers.items()}
        enqueue(one, count, **how)
        one.drained(count)
        one.settled()
        return {name: Spent.by(redis).since(before[name], count) for name, redis in servers.items()}
