"""The demonstration: Redis, a provider and a worker of its own, real processes all; jobs seen moving, then told whole.

It never touches what the environment names: it sends to its own sandbox only, whatever credentials are set.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dispatcher.client import Dispatcher
from dispatcher.embedded import DataFolder, EmbeddedServer, free_port, spawn, stop
from dispatcher.errors import DispatcherError
from dispatcher.jobs import Category, Job, Message
from dispatcher.pages import state_text, timeline
from dispatcher.settings import PREFIX, Settings
from dispatcher.states import State
from workers.sandbox.client import Sandbox

#: Seconds that starting may take, and that everything shown may take after it.
_SET_UP: Final = 30.0
_PATIENCE: Final = 15.0

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PROVIDER: Final = "textgoto"

#: What the demonstration sends; the numbers are Ofcom's for drama, and the sandbox plays each its part.
_TEXTS: Final = {
    "receipt to Ann": "+447700900001",
    "receipt to Bob": "+447700900002",
    "receipt to a blocked phone": "+447700900100",
    "receipt to a number that is none": "+447700900101",
    "receipt that needs a second try": "+447700900104",
    "receipt by a slow road": "+447700900117",
    "receipt whose answer is lost": "+447700900111",
}


class Demo:
    """One run."""

    def __init__(self, data: Path, *, as_json: bool = False) -> None:
        """Run in the data folder `data`; with `as_json` print each job's document and nothing else."""
        self._data = data
        self._as_json = as_json
        self._console = Console(quiet=as_json)
        self._named: dict[str, str] = {}
        self._shown: dict[str, int] = {}
        self._began = time.monotonic()
        self._stop = False

    def run(self) -> int:
        """Run it and return the exit code: 0 when everything came out as it must, 130 when it was interrupted."""
        with ExitStack() as stack:
            try:
                self._listen()
                dispatcher, sandbox = self._set_up(stack)
                return self._show(dispatcher, sandbox)
            except KeyboardInterrupt:
                self._console.print("\nInterrupted; stopping what was started.")
                return 130

    # -- set-up ------------------------------------------------------------------------------------------------------

    def _set_up(self, stack: ExitStack) -> tuple[Dispatcher, Sandbox]:
        folder = stack.enter_context(DataFolder(self._data))
        home = folder.path / "demo"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        self._console.print(
            f"Starting Valkey, a sandbox that plays TextGoto, and a worker (logs in {_relative(home)}) ..."
        )
        stack.callback(self._stopped)
        redis = stack.enter_context(EmbeddedServer(home / "valkey"))
        settings: dict[str, Any] = {
            "redis_url": redis.url,
            "sandbox": "1",
            "sandbox_url": f"http://127.0.0.1:{free_port()}",
            **folder.keys(),
        }
        environment = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
        _forget_settings(home)
        provider = self._start(stack, ["-m", "dispatcher.cli", "sandbox"], environment, home / "sandbox.log")
        worker_arguments = ["-m", "dispatcher.cli", "worker", _PROVIDER]
        worker = self._start(stack, worker_arguments, environment, home / "worker.log")
        folder.tell(**settings)
        dispatcher = stack.enter_context(Dispatcher(Settings(**settings)))
        self._await_worker(dispatcher, {"worker": worker, "sandbox": provider}, home)
        return dispatcher, Sandbox(settings["sandbox_url"])

    def _start(
        self, stack: ExitStack, arguments: list[str], environment: dict[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        process = spawn(arguments, environment, log)
        stack.callback(stop, [process], 10)
        self._pause(0)
        return process

    def _await_worker(self, dispatcher: Dispatcher, processes: dict[str, subprocess.Popen[bytes]], home: Path) -> None:
        until = time.monotonic() + _SET_UP
        while _PROVIDER not in dispatcher.providers():
            for name, process in processes.items():
                if process.poll() is not None or time.monotonic() > until:
                    raise DispatcherError(f"the {name} did not start; see {home / f'{name}.log'}")
            self._pause()
        self._console.print(f"Ready after {time.monotonic() - self._began:.1f} s.\n")

    def _stopped(self) -> None:
        self._console.print("Valkey, the sandbox and the worker are stopped.")

    def _listen(self) -> None:
        """Remember what asks to stop; it is obeyed at the next pause.

        An error raised from a handler may come between a process' start and the note that it must be stopped, or inside
        a destructor, which swallows it.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            self._stop = True

        for number in _STOPS:
            signal.signal(number, stop)

    def _pause(self, seconds: float = 0.05) -> None:
        """Let some time pass. Raises `KeyboardInterrupt` once a stop was asked for."""
        time.sleep(seconds)
        if self._stop:
            raise KeyboardInterrupt

    # -- what is shown -----------------------------------------------------------------------------------------------

    def _show(self, dispatcher: Dispatcher, sandbox: Sandbox) -> int:
        began = time.monotonic()
        with self._live(dispatcher) as look:
            self._enqueue(dispatcher)
            verification = self._verify(dispatcher, sandbox, look)
            self._settle(look)
        jobs = self._jobs(dispatcher)
        for name, job in zip(self._named, jobs, strict=True):
            self._console.print(Rule(f"{name}  [dim]{job.id}[/dim]", align="left", style="dim"))
            self._console.print(timeline(job))
        return self._sum_up(dispatcher, sandbox, jobs, verification, time.monotonic() - began)

    def _enqueue(self, dispatcher: Dispatcher) -> None:
        for name, number in _TEXTS.items():
            self._pause(0)
            # A code's patience: its second try comes within a second or two.
            job = dispatcher.send(number, "Your order has left us.", provider=_PROVIDER, category=Category.OTP)
            self._named[name] = job.id
        soon = datetime.now(UTC) + timedelta(seconds=2)
        self._named["reminder in two seconds"] = dispatcher.send(
            "+447700900003", "It starts at eight.", provider=_PROVIDER, send_at=soon
        ).id
        later = dispatcher.send("+447700900004", "Too early.", provider=_PROVIDER, send_at=soon + timedelta(days=1))
        self._named["reminder that is called off"] = dispatcher.cancel(later.id).id
        guests = [Message(f"+4477009000{guest}", "The doors are open.") for guest in range(10, 15)]
        for guest, job in enumerate(dispatcher.send_many(guests, provider=_PROVIDER).jobs, 1):
            self._named[f"campaign, guest {guest}"] = job.id
        self._named["lookup"] = dispatcher.lookup("+447700900132", provider=_PROVIDER).id
        self._named["balance"] = dispatcher.operation(_PROVIDER, "balance").id

    def _verify(self, dispatcher: Dispatcher, sandbox: Sandbox, look: Any) -> list[str]:
        """Send a code, read it from the phone, type it wrong and right; tell how it went."""
        number = "+447700900005"
        job = dispatcher.verify(number, template="Your code is [CODE]", provider=_PROVIDER)
        self._named["verification"] = job.id
        until = time.monotonic() + _PATIENCE
        while not dispatcher.get(job.id).settled and time.monotonic() < until:
            look()
            self._pause()
        code = "".join(re.findall(r"\d{6}", "".join(text.text for text in sandbox.inbox(number))))
        if not code:
            return ["the code was not sent", ""]
        wrong = f"{(int(code) + 1) % 1_000_000:06d}"
        tries = [dispatcher.check(job.id, typed) for typed in (wrong, code, code)]
        words = ("a wrong code", "the right code", "the right code again")
        return [
            f"{word}: {'valid' if one.valid else 'not valid'}, {one.status}"
            for word, one in zip(words, tries, strict=True)
        ]

    def _settle(self, look: Any) -> None:
        until = time.monotonic() + _PATIENCE
        while not all(job.settled for job in look()) and time.monotonic() < until:
            self._pause()

    def _sum_up(
        self, dispatcher: Dispatcher, sandbox: Sandbox, jobs: list[Job], verification: list[str], seconds: float
    ) -> int:
        if self._as_json:
            for job in jobs:
                print(msgspec.json.encode(job.to_dict()).decode())  # noqa: T201 - it was asked for
        counts = Counter(job.state for job in jobs)
        looked_up, balance = (dispatcher.get(self._named[name]).result or {} for name in ("lookup", "balance"))
        accepted = sum(sandbox.counts().accepted.values())
        texts = [job for job in jobs if job.kind in {"send", "verify"}]
        unknown = sum(job.state == State.UNKNOWN for job in texts)
        sent = sum(job.state == State.SENT for job in texts)
        self._console.print(Rule("summary", align="left"))
        self._console.print("verification  " + "; ".join(verification))
        self._console.print(
            f"lookup        {looked_up.get('country')}, {looked_up.get('ported_network')}, "
            f"ported: {looked_up.get('ported')}"
        )
        self._console.print(f"balance       {balance.get('available')} credits")
        self._console.print(f"jobs          {' + '.join(f'{n} {state}' for state, n in counts.items())} = {len(jobs)}")
        self._console.print(
            f"provider      took {accepted} texts: {sent} that we call sent, and {unknown} whose answer was lost, "
            "which we call unknown and never send again"
        )
        right = accepted == sent + unknown and all(job.settled for job in jobs) and "approved" in verification[1]
        self._console.print(f"{'All as it must be' if right else '[red]Not as it must be[/red]'}, in {seconds:.1f} s.")
        if self._as_json and not right:
            print("dispatcher: not every job came out as it must", file=sys.stderr)  # noqa: T201 - beside the documents
        return 0 if right else 1

    # -- the live view -----------------------------------------------------------------------------------------------

    @contextmanager
    def _live(self, dispatcher: Dispatcher) -> Iterator[Any]:
        """Yield what looks once: on a terminal it refreshes a table, elsewhere it prints each move once."""
        if not self._console.is_terminal:
            yield lambda: self._tell_moves(self._jobs(dispatcher))
            return
        with Live(console=self._console, refresh_per_second=20) as live:

            def look() -> list[Job]:
                jobs = self._jobs(dispatcher)
                live.update(self._table(jobs))
                return jobs

            yield look

    def _table(self, jobs: list[Job]) -> Table:
        table = Table(box=None, header_style="dim", expand=True)
        for column, width in (("job", 32), ("to", 13), ("state", 9), ("tries", 5)):
            table.add_column(column, no_wrap=True, width=width)
        table.add_column("last", no_wrap=True, ratio=1)
        for name, job in zip(self._named, jobs, strict=False):
            table.add_row(name, job.to, state_text(job.state), str(job.attempts or ""), Text(job.history[-1].detail))
        return table

    def _tell_moves(self, jobs: list[Job]) -> list[Job]:
        for name, job in zip(self._named, jobs, strict=False):
            for entry in job.history[self._shown.get(job.id, 0) :]:
                self._console.print(f"  {name:<33} {entry.state:<10} {entry.detail}", soft_wrap=True)
            self._shown[job.id] = job.seq
        return jobs

    def _jobs(self, dispatcher: Dispatcher) -> list[Job]:
        return list(dispatcher.get_many(list(self._named.values())).values())


def _forget_settings(home: Path) -> None:
    """Keep what the environment and a `dispatcher.toml` say from being heard: a real account would be texted with."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        del os.environ[name]
    os.chdir(home)


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
