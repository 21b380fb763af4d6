"""`python -m tests.chaos`: play the scenarios, print the table, end non-zero where a rule was broken."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.chaos import table
from tests.chaos.checker import Broken, Rule
from tests.chaos.lab import Lab, Outcome
from tests.chaos.scenario import Scenario, load
from tests.support import WATCH

_PRINTING: Final = threading.Lock()

#: Those that are open, so that an interrupted run leaves nothing behind.
_LABS: Final[list[Lab]] = []

#: Breaches that are told of a scenario; the table says of which rules they are.
_TOLD: Final = 20


def say(words: str) -> None:
    """Print a line, whole."""
    with _PRINTING:
        print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def play(one: Scenario, seed: int, folder: Path, *, short: bool) -> Outcome:
    """Play a scenario and judge it; one that raises is broken."""
    lab = Lab(one.name, seed, folder, say)
    _LABS.append(lab)
    try:
        with lab:
            one.play(lab, **(one.short if short else one.full))
            return lab.finish()
    except Exception as error:  # noqa: BLE001 - the others shall run all the same
        with _PRINTING:
            traceback.print_exc()
        return lab.failed(Broken(Rule.PROMISE, one.name, f"{error.__class__.__name__}: {error}".splitlines()[0]))
    finally:
        _LABS.remove(lab)


def told(one: Scenario, seed: int, place: Path, *, short: bool) -> Outcome:
    """Play a scenario and say how it went."""
    say(f"{one.name} begins: {one.about}")
    outcome = play(one, seed, place / one.name, short=short)
    for broken in outcome.broken[:_TOLD]:
        say(f"{one.name} BROKE {broken}")
    if len(outcome.broken) > _TOLD:
        say(f"{one.name} BROKE rules {len(outcome.broken) - _TOLD} times more")
    say(f"{one.name} {'is BROKEN' if outcome.broken else 'holds'}, after {outcome.seconds:.0f} s")
    return outcome


def run(chosen: Sequence[Scenario], seed: int, place: Path, *, short: bool, at_once: int) -> list[Outcome]:
    """Play scenarios, those that bear company a few at a time; return what they showed, in their order."""
    with ThreadPoolExecutor(at_once) as pool:
        together = {one.name: pool.submit(told, one, seed, place, short=short) for one in chosen if not one.alone}
        try:
            shown = {name: future.result() for name, future in together.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            end()
            raise
    shown |= {one.name: told(one, seed, place, short=short) for one in chosen if one.alone}
    return [shown[one.name] for one in chosen]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code."""
    scenarios = load()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Nothing lost, nothing sent twice.")
    parser.add_argument(
        "--only", nargs="+", action="extend", metavar="NAME", choices=sorted(scenarios), help="play these alone"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of all that is left to chance")
    parser.add_argument("--short", action="store_true", help="as the tests play them")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="scenarios that run at a time (2)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page, too")
    asked = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    if asked.list:
        for one in scenarios.values():
            console.print(f"[bold]{one.name}[/bold]: {one.about} It proves that {one.proves}.", soft_wrap=True)
        return 0

    chosen = [one for one in scenarios.values() if not asked.only or one.name in asked.only]
    say(f"{len(chosen)} scenarios, seed {asked.seed}")
    began = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="dispatcher-chaos-"))
    outcomes = run(chosen, asked.seed, place, short=asked.short, at_once=asked.at_once)
    table.show(outcomes, console)
    if asked.write:
        table.write(outcomes, asked.write)
    bad = [one.scenario for one in outcomes if one.broken]
    if bad and any(place.iterdir()):
        say(f"the logs are kept in {place}")
    else:
        shutil.rmtree(place)
    seconds = time.monotonic() - began
    say(f"{len(outcomes) - len(bad)} of {len(outcomes)} hold, after {seconds:.0f} s; --seed {asked.seed} repeats it")
    return 1 if bad else 0


def end() -> None:
    """Leave nothing behind: what still runs is broken off."""
    for lab in tuple(_LABS):
        lab.close()


def interrupted() -> None:
    """End at once, since what the scenarios wait for will never come."""
    end()
    os._exit(130)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: interrupted())
    signal.signal(signal.SIGINT, lambda *_: interrupted())
    code = main()
    for name in (left := WATCH.left()):
        say(f"left behind: {name}")
    sys.exit(1 if left else code)
