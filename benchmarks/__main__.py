"""Measure beside the alternative, in one run: `python -m benchmarks [--only ROW] [--short] [--write PAGE]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import durability, failover, lanes, limits, lines

ROWS = {
    "durability": durability.run,
    "limits": limits.run,
    "lanes": lanes.run,
    "failover": failover.run,
    "lines": lines.run,
}


def main() -> None:
    """Run the rows that are asked for, all unless told, and print each table."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="this row, not all")
    parser.add_argument("--short", action="store_true", help="a small size, to see that it runs; it measures nothing")
    parser.add_argument("--write", type=Path, help="put the tables into this page, each between its marks")
    asked = parser.parse_args()
    for name in asked.only or ROWS:
        table = ROWS[name](short=asked.short)
        print(table)
        if asked.write:
            put(asked.write, name, table)


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
