"""The table of a run: on a terminal, and in a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.chaos.lab import Outcome

#: What stands before and after the table in a page; what is between them is written anew.
BEGIN: Final = "<!-- the last run of make chaos -->"
END: Final = "<!-- end of the last run -->"

HEAD: Final = ("scenario", "injected", "jobs", "lost", "repeated", "unknown", "recovery", "verdict")


def row(outcome: Outcome) -> tuple[str, ...]:
    """Return the cells of a scenario, as `HEAD` names them."""
    injected = "; ".join(what if times == 1 else f"{times} × {what}" for what, times in outcome.injected.items())
    rules = sorted({broken.rule.name.lower() for broken in outcome.broken})
    return (
        outcome.scenario,
        injected or "nothing",
        f"{outcome.jobs:,}",
        str(outcome.lost),
        str(outcome.repeated),
        str(outcome.unknown),
        recovery(outcome),
        f"BROKEN: {', '.join(rules)}" if rules else "holds",
    )


def recovery(outcome: Outcome) -> str:
    """Return how long it took, in seconds: until the provider accepted again, and until all were settled."""
    return " / ".join("-" if one is None else f"{one:.1f} s" for one in (outcome.resumed, outcome.settled))


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the table."""
    table = Table(*HEAD, title="recovery: from a fault's end until the provider accepts again / all are settled")
    for outcome in outcomes:
        table.add_row(*row(outcome), style="red" if outcome.broken else None)
    console.print(table)


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return the table as Markdown."""
    lines = [HEAD, ("---", "---", "--:", "--:", "--:", "--:", "--:", "---"), *map(row, outcomes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write(outcomes: Sequence[Outcome], page: Path) -> None:
    """Put the table between the two marks in a page; a scenario that did not run this time keeps its row.

    Raises `ValueError` where the page has no marks.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    there, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} has no {BEGIN} and {END}, between which the table stands")
    head, rows = _rows(markdown(outcomes))
    _, kept = _rows(there)
    table = "\n".join([*head, *(kept | rows).values()])
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _rows(markdown: str) -> tuple[list[str], dict[str, str]]:
    """Return the two lines of a table's head, and the others by their first cell."""
    lines = [line for line in markdown.split("\n") if line.startswith("|")]
    return lines[:2], {line.split(" ")[1]: line for line in lines[2:]}
