"""Measure beside the alternative, in one run: `python -m benchmarks [--only ROW] [--short] [--write]`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import (
    cost,
    durability,
    enqueuing,
    failover,
    flame,
    kill,
    lanes,
    latency,
    limits,
    lines,
    machine,
    memory,
    throughput,
)
from benchmarks.fleet import say

_DOCS: Final = Path(__file__).parent.parent / "docs"


class Row(NamedTuple):
    """One measurement."""

    run: Callable[..., str]
    #: The page that has a place for its table.
    page: str
    #: It is measured where no row is named. The others take longer, or ask something else than how fast.
    usual: bool = False


ROWS: Final = {
    "machine": Row(machine.run, "performance.md", usual=True),
    "bulk": Row(throughput.bulk, "performance.md", usual=True),
    "group": Row(throughput.group, "performance.md", usual=True),
    "singles": Row(throughput.singles, "performance.md", usual=True),
    "enqueue": Row(enqueuing.run, "performance.md", usual=True),
    "latency": Row(latency.run, "performance.md", usual=True),
    "kill": Row(kill.run, "performance.md", usual=True),
    "engines": Row(throughput.engines, "performance.md", usual=True),
    "processes": Row(throughput.processes, "performance.md", usual=True),
    "servers": Row(throughput.servers, "performance.md", usual=True),
    "cost": Row(cost.run, "performance.md", usual=True),
    "memory": Row(memory.run, "performance.md", usual=True),
    "profile": Row(flame.run, "performance.md"),
    "backlog": Row(throughput.backlog, "performance.md"),
    "durability": Row(durability.run, "guarantees.md"),
    "limits": Row(limits.run, "limits.md"),
    "lanes": Row(lanes.run, "limits.md"),
    "failover": Row(failover.run, "limits.md"),
    "lines": Row(lines.run, "limits.md"),
}


def main() -> None:
    """Run the rows that are asked for, the usual ones unless told, and print each table."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="this row, not the usual ones")
    parser.add_argument("--short", action="store_true", help="a small size, to see that it runs; it measures nothing")
    parser.add_argument("--write", action="store_true", help="put each table into its page, between its marks")
    asked = parser.parse_args()
    if asked.short and asked.write:
        parser.error("--short measures nothing that belongs on a page; leave out --write")
    for name in asked.only or [name for name, row in ROWS.items() if row.usual]:
        began = time.monotonic()
        table = ROWS[name].run(short=asked.short)
        print(table)
        say(f"{name} took {time.monotonic() - began:.0f} s")
        if asked.write:
            put(_DOCS / ROWS[name].page, name, table)


def put(page: Path, name: str, table: str) -> None:
    """Write a table between the two marks that it has in a page."""
    text = page.read_text()
    begin, end = f"<!-- make bench: {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, there, after = rest.partition(end)
    if not there:
        raise SystemExit(f"{page} has no place for {name}: {begin.strip()} and {end}")
    page.write_text(f"{before}{begin}{table}\n{end}{after}")


if __name__ == "__main__":
    main()
