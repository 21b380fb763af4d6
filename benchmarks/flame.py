"""Where the time of a bulk job goes in the worker: py-spy looks on from the outside, and draws docs/performance.svg."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks import environments
from benchmarks.fleet import say, table
from benchmarks.rig import frozen, rig
from benchmarks.throughput import enqueue
from tests.support import until

#: The picture that the page shows.
PICTURE: Final = Path(__file__).parent.parent / "docs" / "performance.svg"

TITLE: Final = "One worker process that sends in bulk, a request each"

#: Seconds that are looked at; texts that wait, more than go in that time.
SECONDS: Final = 10
TEXTS: Final = 75_000
FEW: Final = 3_000

#: Looks a second.
_RATE: Final = 250

#: One of our own modules in a stack, as py-spy writes a frame: `send (workers/transport.py:239)`.
_OURS: Final = re.compile(r"\((?P<module>(?:workers|dispatcher)/[a-z_/]+\.py)(?::\d+)?\)")

#: What a stack without any of our own modules is doing, by the first that is found in it.
_OTHERS: Final = {
    "asyncio/selector_events.py": "asyncio: bytes in and out",
    "redis/": "redis",
    "kombu/": "Celery and kombu",
    "celery/": "Celery and kombu",
    "asyncio/": "asyncio: its own turns",
}


def run(*, short: bool = False) -> str:
    """Look at a worker twice, for the table and for the picture; return a Markdown table."""
    seconds, texts = (2, FEW) if short else (SECONDS, TEXTS)
    with rig() as one:
        worker = one.worker().ready()
        with frozen([worker]):
            enqueue(one, texts)
        until(lambda: one.provider.counted().requests, what="the first text")
        stacks = one.place / "stacks.txt"
        _record(worker.popen.pid, seconds, "raw", stacks)
        if not short:
            _record(worker.popen.pid, seconds, "flamegraph", PICTURE)
            PICTURE.write_text(tidy(PICTURE.read_text()))
            say(f"{PICTURE.name} is drawn")
        left = one.open_jobs()
        if not left:
            say("nothing waits any more, so that there is idle time in the picture")
        counted = shares(stacks.read_text())
    total = sum(counted.values())
    rows = [(name, f"{count / total:.0%}") for name, count in counted.most_common(12)]
    return table(("where the stack ends, by our own module that called it", "of the worker's time"), rows)


def shares(stacks: str) -> Counter[str]:
    """Return how many looks found what going on, from py-spy's raw form: `frame;frame;frame COUNT` a line."""
    counted: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        counted[doing(stack)] += int(count)
    return counted


def doing(stack: str) -> str:
    """Return what a stack is doing: the innermost of our own modules in it, or which library it is in."""
    if own := _OURS.findall(stack):
        return f"`{own[-1]}`"
    return next((name for part, name in _OTHERS.items() if part in stack), "other")


def tidy(picture: str) -> str:
    """Leave out of a picture what is about this machine: where its files lie, and the command in its title."""
    picture = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\1{TITLE}", picture)
    return re.sub(r"\((?:/[^/\s()<>\"]+)+/(?=[^/]+/[^/]+\.py)", "(", picture)


# Held up for each look, as py-spy does by default, a worker does a quarter of its work.
def _record(pid: int, seconds: int, form: str, to: Path) -> None:
    spy = environments.python("peers").parent / "py-spy"
    what = ["--pid", str(pid), "--duration", str(seconds), "--rate", str(_RATE), "--format", form, "--output", str(to)]
    done = subprocess.run([spy, "record", *what, "--nonblocking"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"py-spy could not look into the worker: {done.stderr.strip()[-400:]}")
