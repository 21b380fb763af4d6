"""The demonstration: Redis, four providers, workers and receiver of its own, real processes all; jobs seen moving.

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
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dispatcher import demo_consumer as consumer
from dispatcher.client import Dispatcher
from dispatcher.embedded import DataFolder, EmbeddedServer, free_port, spawn, stop
from dispatcher.errors import DispatcherError, VerificationRefused
from dispatcher.jobs import Category, Job, Message
from dispatcher.notices import NOTIFY
from dispatcher.pages import state_text, timeline
from dispatcher.processes import API, RECEIVER, SANDBOX, here, worker
from dispatcher.settings import PREFIX, Settings
from dispatcher.states import State
from dispatcher.text import segments
from workers.sandbox.client import Sandbox

#: Seconds that starting may take, and that everything shown may take after it.
_SET_UP: Final = 120.0
_PATIENCE: Final = 60.0

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The accounts, each with a phone that it reaches: Ofcom's numbers for drama, and North America's.
_PHONES: Final = {
    "clubtexting": "+12125550151",
    "mobtexting": "+447700900001",
    "textgoto": "+447700900002",
    "thetexting": "+447700900003",
}

#: What else is sent, over which account; the sandbox plays each of these phones its part.
_TEXTS: Final = {
    "text to a blocked phone": ("textgoto", "+447700900100"),
    "text to a number that is none": ("textgoto", "+447700900101"),
    "text that needs a second try": ("textgoto", "+447700900104"),
    "text by a slow road": ("textgoto", "+447700900117"),
    "text whose answer is lost": ("textgoto", "+447700900111"),
    "text that never arrives": ("mobtexting", "+447700900140"),
}

#: Verifications, by who makes the code: the phones are others, so that each has one text.
_VERIFICATIONS: Final = {
    "verification, the provider's code": ("textgoto", "+447700900005"),
    "verification, checked by it": ("mobtexting", "+447700900006"),
    "verification, a code of ours": ("thetexting", "+447700900007"),
}

#: Who says STOP.
_LEAVER: Final = "+447700900008"

#: A premium line, which a thief would send codes to (among Ofcom's numbers for drama, too); who asks for a code twice;
#: who is promised something; who gets an apostrophe that a word processor made.
_PREMIUM: Final = "+449098790001"
_IMPATIENT: Final = "+447700900017"
_PROSPECT: Final = "+447700900015"
_READER: Final = "+447700900016"
_CUSTOMER: Final = "+447700900018"

#: Places around the world: in one of them it is night.
_ZONES: Final = (
    "Pacific/Auckland", "Asia/Tokyo", "Asia/Kolkata", "Europe/London", "America/New_York", "Pacific/Honolulu",
)  # fmt: skip

#: One character of these is not in the alphabet of texts.
_CURLY: Final = (
    "We\N{RIGHT SINGLE QUOTATION MARK}re open again: from Monday on, each day from nine to five, Saturdays until noon."
)

#: The last that is told of a text.
_ARRIVED: Final = "job.delivered"

_BUSY: Final = frozenset({State.QUEUED, State.SENDING})


class Shown(NamedTuple):
    """What was tried beside the texts, in words, and whether it came out as it must."""

    words: str
    right: bool


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
        self._api = f"http://127.0.0.1:{free_port()}"

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
            "Starting Valkey, a sandbox that plays four providers, a worker for each, the receiver of what they call "
            f"back, what calls you back, and the HTTP API (logs in {_relative(home)}) ..."
        )
        stack.callback(self._stopped)
        redis = stack.enter_context(EmbeddedServer(home / "valkey"))
        settings: dict[str, Any] = {
            "redis_url": redis.url,
            "sandbox": "1",
            "sandbox_url": f"http://127.0.0.1:{free_port()}",
            "receiver_url": f"http://127.0.0.1:{free_port()}",
            "callback_secret": consumer.new_secret(),
            **folder.keys(),
        }
        environment = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
        _forget_settings(home)
        port, api_port = (url.rpartition(":")[2] for url in (settings["receiver_url"], self._api))
        workers = {name: worker(name) for name in (*_PHONES, NOTIFY)}
        listening = {"receiver": f"{RECEIVER} --port {port}", "api": f"{API} --port {api_port}"}
        commands = {"sandbox": SANDBOX, **workers, **listening}
        started = {
            name: self._start(stack, here(command)[1:], environment, home / f"{name}.log")
            for name, command in commands.items()
        }
        folder.tell(**settings)
        dispatcher = stack.enter_context(Dispatcher(Settings(**settings)))
        sandbox = Sandbox(settings["sandbox_url"])
        self._await(dispatcher, sandbox, started, home)
        return dispatcher, sandbox

    def _start(
        self, stack: ExitStack, arguments: list[str], environment: dict[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        process = spawn(arguments, environment, log)
        stack.callback(stop, [process], 10)
        self._pause(0)
        return process

    def _await(
        self, dispatcher: Dispatcher, sandbox: Sandbox, processes: dict[str, subprocess.Popen[bytes]], home: Path
    ) -> None:
        """Return once every account is served and every provider knows whom to call back."""
        until = time.monotonic() + _SET_UP
        while missing := [*_PHONES.keys() - dispatcher.providers().keys(), *([] if _told(sandbox) else ["receiver"])]:
            ended = [name for name, process in processes.items() if process.poll() is not None]
            if ended or time.monotonic() > until:
                name = (ended or sorted(missing))[0]
                raise DispatcherError(f"the {name} did not start; see {home / f'{name}.log'}")
            self._pause()
        self._console.print(f"Ready after {time.monotonic() - self._began:.1f} s.\n")

    def _stopped(self) -> None:
        self._console.print("Everything that was started is stopped.")

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
            self._enqueue(dispatcher, look)
            told = [self._verify(dispatcher, sandbox, look, name) for name in _VERIFICATIONS]
            told += [self._guarded(dispatcher), self._remembered(dispatcher, look)]
            told += [self._held_until_morning(dispatcher), self._spelled_plainly(dispatcher, look)]
            self._own_and_give_back(dispatcher, look)
            told.append(self._stop_and_obey(dispatcher, sandbox, look))
            heard = self._hear_of_it(dispatcher, look)
            self._settle(look)
        jobs = self._jobs(dispatcher)
        for name, job in zip(self._named, jobs, strict=True):
            self._console.print(Rule(f"{name}  [dim]{job.id}[/dim]", align="left", style="dim"))
            self._console.print(timeline(job))
        return self._sum_up(dispatcher, sandbox, jobs, told, heard=heard, seconds=time.monotonic() - began)

    def _enqueue(self, dispatcher: Dispatcher, look: Any) -> None:
        texts = {f"text over {account}": (account, number) for account, number in _PHONES.items()} | _TEXTS
        for name, (account, number) in texts.items():
            self._pause(0)
            # A code's patience: its second try comes within a second or two.
            job = dispatcher.send(number, "Your order has left us.", provider=account, category=Category.OTP)
            self._named[name] = job.id
        for name, (account, number) in _VERIFICATIONS.items():
            self._named[name] = dispatcher.verify(number, template="Your code is [CODE]", provider=account).id
        for account, number in _PHONES.items():
            self._named[f"lookup by {account}"] = dispatcher.lookup(number, provider=account).id
            self._named[f"balance of {account}"] = dispatcher.operation(account, "balance").id
        soon = datetime.now(UTC) + timedelta(seconds=2)
        self._named["reminder in two seconds"] = dispatcher.send(
            "+447700900009", "It starts at eight.", provider="textgoto", send_at=soon
        ).id
        look()
        later = dispatcher.send("+447700900004", "Too early.", provider="textgoto", send_at=soon + timedelta(days=1))
        self._named["reminder that is called off"] = dispatcher.cancel(later.id).id
        guests = [Message(f"+4477009000{guest}", "The doors are open.") for guest in range(10, 15)]
        for guest, job in enumerate(dispatcher.send_many(guests, provider="textgoto").jobs, 1):
            self._named[f"campaign, guest {guest}"] = job.id

    def _verify(self, dispatcher: Dispatcher, sandbox: Sandbox, look: Any, name: str) -> Shown:
        """Read the code from the phone, type it wrong and right; tell how it went."""
        job = self._done(dispatcher, look, name)
        _, number = _VERIFICATIONS[name]
        code = "".join(re.findall(r"\d{6}", "".join(text.text for text in sandbox.inbox(number))))
        if not code:
            return Shown(f"{name}: the code was not sent", right=False)
        wrong = f"{(int(code) + 1) % 1_000_000:06d}"
        tries = [dispatcher.check(job.id, typed) for typed in (wrong, code, code)]
        words = ("a wrong code", "the right code", "the right code again")
        told = "; ".join(
            f"{word}: {'valid' if one.valid else 'not valid'}, {one.status}"
            for word, one in zip(words, tries, strict=True)
        )
        valid = [(one.valid, one.status) for one in tries]
        return Shown(f"{name}: {told}", valid == [(False, "pending"), (True, "approved"), (False, "approved")])

    def _guarded(self, dispatcher: Dispatcher) -> Shown:
        """Ask for codes that a thief would ask for: on a line that costs, and again and again."""
        first = dispatcher.verify(_IMPATIENT, provider="textgoto")
        self._named["code that is asked for twice"] = first.id
        told = list[str]()
        for name, ask in (
            ("a code to a premium line", partial(dispatcher.verify, _PREMIUM, provider="textgoto")),
            ("another code at once", partial(dispatcher.resend, first.id)),
        ):
            try:
                told.append(f"{name}: sent, as {ask().id}")
            except VerificationRefused as refused:
                later = f", until {refused.retry_after:.0f} s from now" if refused.retry_after else ""
                told.append(f"{name}: refused ({refused.code}){later}")
        return Shown("; ".join(told), all(": refused" in one for one in told))

    def _remembered(self, dispatcher: Dispatcher, look: Any) -> Shown:
        """Look a number up again that is known by now."""
        first, again = "lookup by textgoto", "the same lookup again"
        self._done(dispatcher, look, first)
        self._named[again] = dispatcher.lookup(_PHONES["textgoto"], provider="textgoto").id
        job = self._done(dispatcher, look, again)
        asked = "asked nobody and cost nothing" if not job.attempts else "asked the provider once more"
        return Shown(f"{again}: {job.state}, {asked}", job.state == State.COMPLETED and not job.attempts)

    def _held_until_morning(self, dispatcher: Dispatcher) -> Shown:
        """Promise somebody something where it is night now, and take it back, since the morning is far."""
        asleep = [zone for zone in _ZONES if dispatcher.quiet_hours(_PROSPECT, timezone=zone).until is not None]
        name, zone = "promotion where it is night", (asleep or _ZONES)[0]
        send = partial(dispatcher.send, _PROSPECT, provider="textgoto", timezone=zone)
        job = send("20 % off all day!", category=Category.PROMOTIONAL)
        self._named[name] = dispatcher.cancel(job.id).id
        until = f"until {job.waiting.until:%H:%M} UTC" if job.waiting and job.waiting.until else ""
        why = job.waiting.reason if job.waiting else job.state
        code = send("Your code is 012837", category=Category.OTP)
        self._named["code where it is night"] = code.id
        goes = not code.waiting or code.waiting.reason == "worker"
        told = f"{name} ({zone}): waits for {why} {until}; a code there: {'goes' if goes else 'waits'}"
        return Shown(told, why == "quiet_hours" and goes)

    def _spelled_plainly(self, dispatcher: Dispatcher, look: Any) -> Shown:
        """Send a text whose one typeset apostrophe would double its price."""
        name = "text with one curly quote"
        dear = segments(_CURLY)
        job = dispatcher.send(_READER, _CURLY, provider="textgoto", smart_encoding=True)
        self._named[name] = job.id
        forcing = ", ".join(one.name for one in dear.forcing)
        paid = self._done(dispatcher, look, name).segments
        told = f"{name}: {dear.count} segments in {dear.encoding} for {forcing}; sent plainly as {paid}"
        return Shown(told, (dear.count, paid) == (2, 1))

    def _own_and_give_back(self, dispatcher: Dispatcher, look: Any) -> None:
        """Rent a keyword and let it go, buy a number that is on offer."""
        steps: list[tuple[str, str, str, dict[str, Any]]] = [
            ("keyword rented", "clubtexting", "keyword.rent", {"keyword": "honey", "stored_credit_card": "1111"}),
            ("keyword let go", "clubtexting", "keyword.cancel", {"keyword": "honey"}),
            ("numbers on offer", "thetexting", "number.search", {"country_code": "US"}),
        ]
        for name, account, operation, arguments in steps:
            self._named[name] = dispatcher.operation(account, operation, arguments=arguments).id
            self._done(dispatcher, look, name)
        offer = dispatcher.get(self._named["numbers on offer"], reveal=True).result or {"numbers": []}
        for number in offer["numbers"][:1]:
            self._named["number bought"] = dispatcher.operation("thetexting", "number.buy", number=number["number"]).id

    def _stop_and_obey(self, dispatcher: Dispatcher, sandbox: Sandbox, look: Any) -> Shown:
        """Let somebody text STOP, and try to text them."""
        sandbox.text("mobtexting", _LEAVER, "STOP")
        until = time.monotonic() + _PATIENCE
        while not dispatcher.opted_out(_LEAVER) and time.monotonic() < until:
            look()
            self._pause()
        name = "text to one who said STOP"
        self._named[name] = dispatcher.send(_LEAVER, "Come back!", provider="textgoto").id
        job = self._done(dispatcher, look, name)
        why = job.failure.kind if job.failure else "no reason"
        return Shown(f"{name}: {job.state}, {why}", why == "opted_out")

    def _hear_of_it(self, dispatcher: Dispatcher, look: Any) -> list[Shown]:
        """Be called back about a text, and hear of the same one in each of the other ways."""
        until = time.monotonic() + _PATIENCE
        token = consumer.new_token(dispatcher.settings)
        with consumer.Endpoint(dispatcher.settings.callback_secret.get_secret_value()) as endpoint:
            id_ = dispatcher.send(_CUSTOMER, "It is here.", provider="mobtexting", callback_url=endpoint.url).id
            self._named["text that calls you back"] = id_
            over_http = partial(consumer.over_http, self._api, token, id_)
            # The API may be the last to have started.
            while not (_ARRIVED in consumer.by_callback(endpoint, id_) and over_http()) and time.monotonic() < until:
                look()
                self._pause()
        called, forged = consumer.by_callback(endpoint, id_), endpoint.refuses_forgeries
        ways = {
            "signed callback": called,
            "events": consumer.by_events(dispatcher, id_),
            "HTTP API": over_http(),
            "asyncio": consumer.from_asyncio(dispatcher, id_),
        }
        verified = f"verified by standardwebhooks, a forgery {'refused' if forged else 'believed'}"
        return [
            Shown(
                f"{way:<17} {', '.join(told) or 'nothing'}{f' ({verified})' if told is called else ''}",
                right=told[-1:] == [_ARRIVED] and (told, forged) == (called, True),
            )
            for way, told in ways.items()
        ]

    def _done(self, dispatcher: Dispatcher, look: Any, name: str) -> Job:
        """Wait for a job until nothing more is done about it."""
        until = time.monotonic() + _PATIENCE
        while (job := dispatcher.get(self._named[name])).state in _BUSY and time.monotonic() < until:
            look()
            self._pause()
        return job

    def _settle(self, look: Any) -> None:
        """Wait until nothing is under way, and the receipts of the providers that send them are here."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            jobs = look()
            expected = [job for job in jobs if job.kind == "send" and job.provider in {"mobtexting", "thetexting"}]
            if all(job.settled for job in jobs) and all(job.final for job in expected):
                return
            self._pause()

    def _sum_up(
        self,
        dispatcher: Dispatcher,
        sandbox: Sandbox,
        jobs: list[Job],
        told: list[Shown],
        *,
        heard: list[Shown],
        seconds: float,
    ) -> int:
        if self._as_json:
            for job in jobs:
                print(msgspec.json.encode(job.to_dict()).decode())  # noqa: T201 - it was asked for
        counts = Counter(job.state for job in jobs)
        accepted = sum(sandbox.counts().accepted.values())
        texts = Counter(job.state for job in jobs if job.kind in {"send", "verify"})
        taken = texts[State.SENT] + texts[State.DELIVERED] + texts[State.UNDELIVERED]
        self._console.print(Rule("summary", align="left"))
        for one in told:
            self._console.print(one.words, soft_wrap=True)
        for account in _PHONES:
            balance = dispatcher.get(self._named[f"balance of {account}"]).result or {}
            self._console.print(f"balance of {account}: {balance.get('available')}")
        self._console.print(f"jobs          {' + '.join(f'{n} {state}' for state, n in counts.items())} = {len(jobs)}")
        self._console.print(
            f"providers     took {accepted} texts: {taken} that we call sent, delivered or undelivered, and "
            f"{texts[State.UNKNOWN]} whose answer was lost, which we call unknown and never send again"
        )
        self._console.print(Rule("what an application hears of the text that calls it back", align="left"))
        for one in heard:
            self._console.print(one.words, soft_wrap=True)
        right = (
            accepted == taken + texts[State.UNKNOWN]
            and all(job.settled for job in jobs)
            and all(one.right for one in (*told, *heard))
            and {"delivered", "undelivered"} <= {*counts}
        )
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


def _told(sandbox: Sandbox) -> bool:
    """Say whether the sandbox is there, and told whom to call."""
    try:
        return any(one.url for one in sandbox.told().values())
    except OSError:
        return False


def _forget_settings(home: Path) -> None:
    """Keep what the environment and a `dispatcher.toml` say from being heard: a real account would be texted with."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        del os.environ[name]
    os.chdir(home)


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
