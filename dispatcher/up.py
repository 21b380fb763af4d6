"""Everything that a deployment runs, on one machine: `dispatcher up`.

Without `DISPATCHER_REDIS_URL` it brings a Valkey of its own, whose data stays in the data folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from dispatcher import processes
from dispatcher.embedded import DataFolder, EmbeddedServer, free_port
from dispatcher.errors import ConfigurationError, DispatcherError
from dispatcher.heartbeats import serving
from dispatcher.notices import NOTIFY
from dispatcher.processes import API_PORT, RECEIVER_PORT, SANDBOX_PORT, here
from dispatcher.settings import PREFIX, Settings, load
from dispatcher.status import workers
from dispatcher.supervisor import Program, Supervisor
from workers.adapters import adapters, configured

#: Where things listen, unless somebody else does already.
REDIS_PORT: Final = 6390
FLOWER_PORT: Final = 5555

#: Seconds after which Flower does not wait for the workers any longer, and what is missing is told.
_TO_START: Final = 15.0

#: Seconds that a worker needs beyond the deadline of what it has on the wire.
_TO_STOP: Final = 10.0

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The name under which news of our own are told.
_OWN: Final = "up"


class Up:
    """One run. `tell(name, line)` gets what each process says, and what is said of it."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """Nothing is started yet."""
        self._print = tell
        self._stopping = False

    def run(self) -> None:
        """Run until told to stop by a signal.

        Raises `ConfigurationError` where a setting is missing or another `up` holds the data folder, and
        `StoreUnavailable` where the embedded server cannot start.
        """
        with DataFolder(load().data) as folder:
            # Read again: what one who was killed had left in the folder is gone.
            asyncio.run(self._run(_Plan(load(), folder), folder))

    async def _run(self, plan: _Plan, folder: DataFolder) -> None:
        supervisor = Supervisor(plan.programs, self._tell)
        loop = asyncio.get_running_loop()
        for number in _STOPS:
            # Under nohup it goes on when its terminal is closed.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._stop, supervisor)
        folder.tell(**plan.told)
        greeting = asyncio.create_task(self._greet(plan))
        try:
            await supervisor.run()
        finally:
            greeting.cancel()
        self._tell(_OWN, "everything is stopped")

    def _tell(self, name: str, line: str) -> None:
        # What cannot be shown, on a terminal that was closed or that knows no such letter, is no reason to stop.
        with contextlib.suppress(OSError, UnicodeError):
            self._print(name, line)

    def _stop(self, supervisor: Supervisor) -> None:
        words = "stopping at once" if self._stopping else "stopping; what is on the wire comes to its end first"
        self._tell(_OWN, f"{words}{'' if self._stopping else ' (again: at once)'}")
        self._stopping = True
        supervisor.stop()

    async def _greet(self, plan: _Plan) -> None:
        """Say where everything is once every account is served and Flower answers."""
        begun = time.monotonic()
        while why := await asyncio.to_thread(plan.missing):
            if time.monotonic() - begun > _TO_START:
                self._tell(_OWN, f"not ready yet: {why}")
                begun = time.monotonic()
            await asyncio.sleep(0.2)
        for line in plan.greeting():
            self._tell(_OWN, line)


class _Plan:
    """What is to run, and where."""

    def __init__(self, settings: Settings, folder: DataFolder) -> None:
        """Raises `ConfigurationError` for a setting that is missing or cannot work."""
        settings.require_server("what it starts")
        self._accounts = configured(settings)
        if not self._accounts:
            raise ConfigurationError(
                "no account has credentials; set DISPATCHER_PROVIDERS__<NAME>__..., e.g. ...__TEXTGOTO__UID, or "
                "DISPATCHER_SANDBOX=1 to try things out"
            )
        self._flower_port = _flower_port()
        self._receiver_port = free_port(RECEIVER_PORT)
        self._api_port = free_port(API_PORT)
        #: What other commands need to know, as settings.
        self.told: dict[str, Any] = {"sandbox": "1"} if settings.sandbox else {}
        foundations: list[Program] = []
        if settings.redis_url:
            self.told["redis_url"] = settings.redis_url
        else:
            foundations.append(self._server(settings, folder))
        if settings.sandbox:
            foundations += self._sandbox(settings)
        if not settings.receiver_url:
            self.told["receiver_url"] = f"http://127.0.0.1:{self._receiver_port}"
        self._settings = load(**self.told)
        # Refused here and once, not by each process again and again.
        adapters(self._settings, self._accounts)
        self.programs = [
            *foundations,
            *self._workers(),
            *self._receiver(),
            *self._api(),
            self._program("flower", processes.FLOWER),
        ]

    def missing(self) -> str:
        """Say what is not there yet: Redis, the worker of an account, Flower; "" for nothing."""
        why = self._unserved()
        if not why and self._receives and not _listens(self._receiver_port):
            why = "the receiver does not answer"
        if not why and self._settings.api and not _listens(self._api_port):
            why = "the HTTP API does not answer"
        return why or ("" if _listens(self._flower_port) else "Flower does not answer")

    def _unserved(self) -> str:
        try:
            now, found = workers(self._settings)
        except DispatcherError as error:
            return str(error)
        left = [account for account in [*self._accounts, NOTIFY] if not serving(found, account, now)]
        return f"no worker of {', '.join(left)} is alive" if left else ""

    def greeting(self) -> Iterator[str]:
        """Yield what the one who started this wants to know."""
        yield f"ready: {', '.join(self._accounts)}{' (sandbox)' if self._settings.sandbox else ''}"
        yield f"  Redis    {self._settings.redis_shown}"
        taken = "" if self._flower_port == FLOWER_PORT else f" ({FLOWER_PORT} is taken)"
        yield f"  Flower   http://127.0.0.1:{self._flower_port}{taken}"
        if self._receives:
            yield f"  receiver http://127.0.0.1:{self._receiver_port} (its URLs: dispatcher receiver --urls)"
        else:
            yield "  receiver none, since DISPATCHER_HASH_KEY is not set: receipts and replies reach nobody"
        if self._settings.api:
            yield f"  HTTP API http://127.0.0.1:{self._api_port} (its tokens: dispatcher api tokens create)"
        if self._settings.sandbox:
            yield f"  sandbox  {self._settings.sandbox_url}"
        yield "  other commands find it from this folder: dispatcher status, dispatcher send ..."

    def _server(self, settings: Settings, folder: DataFolder) -> Program:
        # Jobs that are played and jobs that are real never share a Redis.
        place = folder.path / ("valkey-sandbox" if settings.sandbox else "valkey")
        place.mkdir(exist_ok=True)
        server = EmbeddedServer(place, free_port(REDIS_PORT), fsync=settings.fsync)
        given = {"secret_key": settings.secret_key, "hash_key": settings.hash_key}
        keys = {name: key.get_secret_value() for name, key in given.items() if key.get_secret_value()}
        self.told |= {"redis_url": server.url, **folder.keys(), **keys}
        return Program(
            name="redis",
            command=server.command,
            ready=lambda process: asyncio.to_thread(server.wait, process),
            foundation=True,
            # Should we be killed, nobody starts a second server on these files while this one is there.
            inherits=(folder.lock,),
        )

    def _sandbox(self, settings: Settings) -> list[Program]:
        url = settings.sandbox_url or f"http://127.0.0.1:{free_port(SANDBOX_PORT)}"
        self.told["sandbox_url"] = url
        place = urlsplit(url)
        if settings.sandbox_url and _listens(place.port or 80, place.hostname or ""):
            # It plays already, here or elsewhere.
            return []
        return [msgspec.structs.replace(self._program("sandbox", processes.SANDBOX), foundation=True)]

    @property
    def _receives(self) -> bool:
        return bool(self._settings.hashed("receiver"))

    def _receiver(self) -> list[Program]:
        if not self._receives:
            return []
        return [self._program("receiver", f"{processes.RECEIVER} --port {self._receiver_port}")]

    def _api(self) -> list[Program]:
        return [self._program("api", f"{processes.API} --port {self._api_port}")] if self._settings.api else []

    def _workers(self) -> list[Program]:
        programs = [
            msgspec.structs.replace(
                self._program(account, processes.worker(account)), patience=self._settings.deadline + _TO_STOP
            )
            for account in [*self._accounts, NOTIFY]
        ]
        # All at once; and Flower after them, which complains of workers that do not answer yet.
        return [*programs[:-1], msgspec.structs.replace(programs[-1], ready=self._await_workers)]

    async def _await_workers(self, process: int) -> None:
        del process
        until = time.monotonic() + _TO_START
        while time.monotonic() < until:
            if not await asyncio.to_thread(self._unserved):
                return
            await asyncio.sleep(0.2)

    def _program(self, name: str, command: str) -> Program:
        environment = {f"{PREFIX}{field.upper()}": value for field, value in self.told.items()}
        return Program(
            name=name, command=here(command), environment={**environment, "FLOWER_PORT": str(self._flower_port)}
        )


def _flower_port() -> int:
    told = os.environ.get("FLOWER_PORT")
    if not told:
        return free_port(FLOWER_PORT)
    if not told.isdecimal():
        raise ConfigurationError("FLOWER_PORT must be a port, such as 5555")
    return int(told)


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
