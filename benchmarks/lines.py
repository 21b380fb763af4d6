"""How fast a hundred thousand jobs are enqueued, and sent where nothing limits them."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.fleet import fleet, say, table
from dispatcher import Message

JOBS, FEW = 100_000, 5_000

WORKERS: Final = 2


def run(*, short: bool = False) -> str:
    """Measure both; return a Markdown table."""
    jobs = FEW if short else JOBS
    rows = []
    with fleet({}) as one:
        client = one.client("textgoto")
        one.workers("textgoto", WORKERS)
        for words, alike in (("each text another", False), ("one text for all", True)):
            messages = [Message(text.to, "Hello" if alike else text.text) for text in one.messages(jobs)]
            began = time.perf_counter()
            for start in range(0, jobs, 10_000):
                client.send_many(messages[start : start + 10_000], provider="textgoto")
            enqueued = time.perf_counter() - began
            say(f"{jobs} are enqueued ({words})")
            one.settled("textgoto", within=900)
            sent = time.perf_counter() - began
            rows.append((words, f"{jobs / enqueued:,.0f}", f"{jobs / sent:,.0f}", f"{sent:.0f} s"))
    head = (f"{jobs:,} texts", "enqueued, jobs/s", "sent, jobs/s from the first call on", "all are sent after")
    return table(head, rows, f"Nothing is limited; {WORKERS} workers.")
