"""Processes kept running together: their order, their log, their restarts, their end. The processes are real."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcher import supervisor
from dispatcher.supervisor import Program, Supervisor
from tests.support import until

LIVES = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_BACKOFF", (0.01, 0.04))


def program(name: str, code: str, **more: Any) -> Program:
    return Program(name=name, command=[sys.executable, "-c", code], **{"patience": 30, **more})


class Run:
    """A supervisor at work, and what it told."""

    def __init__(self, *programs: Program) -> None:
        self.told: list[tuple[str, str]] = []
        self.supervisor = Supervisor(programs, self._tell)

    def _tell(self, name: str, line: str) -> None:
        self.told.append((name, line))

    def lines(self, name: str) -> list[str]:
        return [line for one, line in self.told if one == name]

    async def until(self, look: Callable[[], bool]) -> None:
        for _ in range(6000):
            if look():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"it did not come; told was {self.told}")

    def during(self, look: Callable[[], bool]) -> None:
        """Run until `look` says so, then stop."""

        async def whole() -> None:
            running = asyncio.create_task(self.supervisor.run())
            try:
                await self.until(look)
            finally:
                self.supervisor.stop()
                await running

        asyncio.run(whole())


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
        # Ended, and waited for by nobody.
        return ") Z " in Path(f"/proc/{process}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return True


def test_each_line_is_told_under_the_name_of_its_process() -> None:
    run = Run(
        program(
            "a",
            "print('one'); print('two', end=''); import time; time.sleep(60)",
            environment={"PYTHONUNBUFFERED": "1"},
        ),
        program("b", LIVES),
    )
    run.during(lambda: run.lines("b") == ["up"])
    assert run.lines("a") == ["one", "two"]


def test_a_line_without_end_is_told_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_LINE", 1000)
    run = Run(program("a", f"print('x' * 5500, flush=True); {LIVES}"))
    run.during(lambda: "up" in run.lines("a"))
    assert "".join(run.lines("a")) == "x" * 5500 + "up"
    assert len(run.lines("a")) > 2


def test_they_start_in_order_each_when_the_one_before_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "order"

    async def ready(process: int) -> None:
        await asyncio.sleep(0.2)
        with file.open("a") as order:
            order.write("first ready,")

    note = f"open({str(file)!r}, 'a').write('second started,'); {LIVES}"
    run = Run(program("first", LIVES, ready=ready), program("second", note))
    run.during(lambda: bool(run.lines("second")))
    assert file.read_text() == "first ready,second started,"


def test_what_dies_is_started_again_and_it_is_said_when_and_why(tmp_path: Path) -> None:
    code = "import os, signal, sys; os.kill(os.getpid(), signal.SIGKILL) if len(sys.argv) else 0"
    run = Run(program("killed", code), program("fails", "raise SystemExit(3)"), program("other", LIVES))
    run.during(lambda: len(run.lines("killed")) >= 4 and len(run.lines("fails")) >= 2)
    assert run.lines("killed")[:4] == [
        "ended with signal SIGKILL; starts again in 0.01 s",
        "ended with signal SIGKILL; starts again in 0.02 s",
        "ended with signal SIGKILL; starts again in 0.04 s",
        "ended with signal SIGKILL; starts again in 0.04 s",
    ]
    assert run.lines("fails")[0] == "ended with exit code 3; starts again in 0.01 s"
    assert run.lines("other") == ["up"], "nobody else is disturbed"


def test_after_a_steady_while_the_next_death_counts_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_STEADY", 0.0)
    run = Run(program("a", "raise SystemExit(1)"))
    run.during(lambda: len(run.lines("a")) >= 3)
    assert set(run.lines("a")) == {"ended with exit code 1; starts again in 0.01 s"}


def test_foundations_are_stopped_when_all_others_are_gone(tmp_path: Path) -> None:
    slow = "import signal, time; signal.signal(15, lambda *_: (time.sleep(.3), print('bye', flush=True), exit()))\n"
    run = Run(program("base", slow + LIVES, foundation=True), program("top", slow + LIVES))
    run.during(lambda: run.lines("top") == run.lines("base") == ["up"])
    ends = [name for name, line in run.told if line == "bye"]
    assert ends == ["top", "base"]


def test_what_does_not_stop_is_ended_with_everything_it_started() -> None:
    child = "import time; time.sleep(60)"
    code = (
        "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN)\n"
        f"print(subprocess.Popen([sys.executable, '-c', {child!r}]).pid, flush=True); time.sleep(60)"
    )
    run = Run(program("deaf", code, patience=0.2))
    run.during(lambda: bool(run.lines("deaf")))
    (started,) = run.lines("deaf")
    until(lambda: gone(int(started)), what="the end of what it started")


def test_asked_twice_it_stops_at_once() -> None:
    run = Run(program("deaf", f"import signal; signal.signal(15, signal.SIG_IGN); {LIVES}", patience=60))

    async def whole() -> None:
        running = asyncio.create_task(run.supervisor.run())
        await run.until(lambda: bool(run.lines("deaf")))
        run.supervisor.stop()
        await asyncio.sleep(0.1)
        run.supervisor.stop()
        await asyncio.wait_for(running, 50)

    asyncio.run(whole())


def test_a_foundation_that_cannot_start_stops_the_rest_and_its_error_is_told() -> None:
    async def never(process: int) -> None:
        raise ValueError("it has no legs")

    run = Run(program("first", LIVES), program("base", LIVES, ready=never), program("last", LIVES))
    with pytest.raises(ValueError, match="it has no legs"):
        asyncio.run(run.supervisor.run())
    assert run.lines("last") == []


def test_told_to_stop_while_it_starts_it_stops() -> None:
    async def slow(process: int) -> None:
        await asyncio.sleep(60)

    run = Run(program("base", LIVES, ready=slow), program("last", LIVES))
    run.during(lambda: bool(run.lines("base")))
    assert run.lines("last") == []


def test_what_cannot_be_started_is_told_and_tried_again(tmp_path: Path) -> None:
    """As while it is being replaced by another version."""
    script = tmp_path / "script"
    run = Run(Program(name="late", command=[str(script)], patience=5))

    def appears() -> bool:
        if len(run.lines("late")) >= 2 and not script.exists():
            script.write_text("#!/bin/sh\necho up; exec sleep 60\n")
            script.chmod(0o755)
        return "up" in run.lines("late")

    run.during(appears)
    assert run.lines("late")[0] == "cannot be started: No such file or directory; starts again in 0.01 s"


def test_who_dies_before_it_can_be_used_keeps_nobody_waiting() -> None:
    async def never(process: int) -> None:
        await asyncio.sleep(60)

    run = Run(program("dies", "raise SystemExit(1)", ready=never), program("next", LIVES))
    run.during(lambda: run.lines("next") == ["up"])


def test_a_line_that_cannot_be_shown_stops_nothing() -> None:
    """The pipe of one whose output nobody reads would fill up, and it would wait for ever."""
    run = Run()
    shown: list[str] = []

    def tell(name: str, line: str) -> None:
        shown.append(line)
        if len(shown) == 1:
            raise UnicodeEncodeError("ascii", "x", 0, 1, "no such letter")

    run.supervisor = Supervisor([program("a", f"print('one'); print('x' * 500000); {LIVES}")], tell)
    run.during(lambda: "up" in shown)
