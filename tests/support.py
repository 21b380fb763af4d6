"""Real parts for tests: a Valkey server, the sandbox and workers as processes, all gone when the tests are over."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import redis

from dispatcher import Dispatcher
from dispatcher.embedded import EmbeddedServer
from dispatcher.queues import KEY_PREFIX, both_queues
from workers.sandbox.client import Sandbox
from workers.sandbox.world import MESSAGES, Row

T = TypeVar("T")

#: Seconds for a worker to start; a loaded machine with two cores needs some of them.
START: Final = 60.0

#: Times that let tests of dead workers and lost messages take seconds. A claim that was waited for longer than the
#: lease outlives the deadline is given up, so that between them there is what a loaded machine needs. All of them are
#: longer than such a machine, or its disk, may hold up whoever works: some phones of the sandbox are two seconds late.
TIMES: Final = {"deadline": "5", "lease": "10", "lost_after": "2", "sweep_every": "0.25", "tick": "0.1"}

#: The same where workers die: what they had is found sooner.
SHORT: Final = {"deadline": "4", "lease": "6", "lost_after": "1"}

#: Keys that outlive a test on a server with a worker that goes on: what it entered with, its accounts and their limits,
#: and Celery's routes to it.
_KEPT: Final = re.compile(rb"d:(a|mode|hk|lm:.*)|disp:_kombu\..*")

#: What outlives it of an account's limits: lost, they would be heeded with caution for some seconds.
_OF_LIMITS: Final = frozenset({b"cf", b"rn", b"at"})


def phone(ending: int) -> str:
    """Return a number of which nobody is the owner; `workers.sandbox.magic` says what each `ending` does."""
    return f"+447700900{ending:03d}"


def phones(count: int, start: int = 0) -> list[str]:
    """Return ordinary numbers that nobody owns, all different, none of them magic."""
    return [f"+1{200 + n // 54}5550{146 + n % 54}" for n in range(start, start + count)]


def until(look: Callable[[], T], seconds: float = 60.0, what: str = "it") -> T:
    """Return what `look` answers once that is true; raises `AssertionError` after `seconds`."""
    ends = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() >= ends:
            raise AssertionError(f"{what} did not come within {seconds:g} s; the last look showed {seen!r}")
        time.sleep(0.02)
    return seen


class Watch:
    """Remembers every process and port that the tests opened, and says which are still there."""

    def __init__(self) -> None:
        self._groups: dict[int, str] = {}
        self._ports: dict[int, str] = {}
        self.processes: list[Process] = []

    def group(self, pid: int, name: str) -> None:
        self._groups[pid] = name

    def port(self, port: int, name: str) -> None:
        self._ports[port] = name

    def forget_closed(self) -> None:
        """Forget the ports at which nobody listens any more: who does so later, in another process of xdist's, may."""
        self._ports = {port: name for port, name in self._ports.items() if listens(port)}

    def left(self) -> list[str]:
        """Name what still runs or listens."""
        running = [f"process group {pid} ({name})" for pid, name in self._groups.items() if _runs(pid)]
        return running + [f"port {port} ({name})" for port, name in self._ports.items() if listens(port)]


WATCH: Final = Watch()


def _runs(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group of which only zombies are left, as of a number used anew
        return False
    return sys.platform != "linux" or _lives(group)


def _lives(group: int) -> bool:
    """Say whether any of a group is more than a zombie: those whose parent died wait for Linux' first process."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its = place.read_text().rpartition(") ")[2].split()[:3]
            if int(its) == group and state != "Z":
                return True
    return False


def listens(port: int) -> bool:
    """Say whether anybody takes connections on this port of the loopback."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def clean_environment() -> dict[str, str]:
    """Return the environment without a developer's own settings."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(("DISPATCHER_", "CELERY"))}


#: Asks Linux to be told to stop when its parent dies, and becomes the command.
_UNTIL_ITS_PARENT_ENDS: Final = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""


def _ending_with_us(command: list[str]) -> list[str]:
    """Return a command that does not outlive the tests: interrupted, xdist ends its processes before they tidy up."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _UNTIL_ITS_PARENT_ENDS, *command]


class Process:
    """A command of ours in a process group of its own, its output in a file."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, name: str) -> None:
        """Start `python ARGUMENTS` in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / f"{name}.log"
        self.seen = 0
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                _ending_with_us([sys.executable, *arguments]),
                cwd=folder,
                env={**clean_environment(), "PYTHONUNBUFFERED": "1", **environment},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        WATCH.group(self.popen.pid, name)
        WATCH.processes.append(self)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def news(self) -> str:
        """Return the output since `seen`, its end if it is long."""
        return self.log.read_bytes()[self.seen :].decode(errors="replace")[-6000:]

    def wait_for(self, words: str, seconds: float = START) -> None:
        """Return once `words` are in the output; raises `AssertionError` where the process ends before."""

        def told() -> bool:
            over = self.popen.poll() is not None
            there = words in self.output()
            assert there or not over, f"{self.name} ended with {self.popen.returncode} before {words!r}:\n{self.news()}"
            return there

        until(told, seconds, f"{words!r} in the output of {self.name}")

    def wait(self, seconds: float = START) -> int:
        """Return the exit code."""
        return self.popen.wait(seconds)

    def kill(self) -> None:
        """End the whole group as a crash would."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()

    def terminate(self) -> None:
        """Ask it to end; return at once."""
        self.popen.terminate()

    def stop(self, patience: float = 10.0) -> None:
        """End it, kindly first."""
        self.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(patience)
        self.kill()


class Worker(Process):
    """A real Celery worker."""

    def ready(self) -> Self:
        """Return once it has announced its accounts and consumes."""
        self.wait_for(" ready.\n")
        return self

    def executed(self) -> dict[str, str]:
        """Return the ids of the messages that it executed, with the words it ended each with."""
        return dict(re.findall(r"Task dispatcher\.execute\[([^\]]+)\] succeeded in [^:]+: '(.*)'", self.output()))


class Server(EmbeddedServer):
    """A Valkey server whose end is watched."""

    @property
    def command(self) -> list[str]:
        return _ending_with_us(super().command)

    def start(self) -> Self:
        super().start()
        assert self.process is not None
        WATCH.group(self.process.pid, "valkey")
        WATCH.port(self.port, "valkey")
        return self

    def kill(self) -> None:
        """Kill it, and nothing that it answered is lost.

        While a sync of its file takes long, a server that syncs every second holds writes back, which would die with
        it: on a slow disk tests would look for what is gone. One that never syncs writes them at once.
        """
        with suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=20) as client:
            client.config_set("appendfsync", "no")
        super().kill()


class Past:
    """What a server's files were at one moment."""

    def __init__(self, server: Server) -> None:
        self._folder = server.folder / "appendonlydir"
        self._copy = server.folder / "backup"
        with redis.Redis.from_url(server.url, socket_timeout=20) as client:
            # A server that never syncs writes at once what it held back for a slow disk.
            usual = client.config_get("appendfsync")
            client.config_set("appendfsync", "no")
            client.config_set(*next(iter(usual.items())))
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._folder, self._copy)
        self._tail = max(self._folder.glob("*.incr.aof"))
        self._size = self._tail.stat().st_size

    def cut(self) -> None:
        """Lose what was written since, as a loss of power does."""
        os.truncate(self._tail, self._size)

    def restore(self) -> None:
        """Put the backup in its place."""
        shutil.rmtree(self._folder)
        shutil.copytree(self._copy, self._folder)

    def stay(self) -> None:
        """Lose nothing."""


class Deployment:
    """One Redis database, the sandbox, and the clients and workers that a test has on them."""

    def __init__(self, url: str, sandbox: Sandbox, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are those of `Settings`, as the environment has them, for workers."""
        self.url = url
        self.sandbox = sandbox
        self.redis: Any = redis.Redis.from_url(url)
        self.settings = {"redis_url": url, "sandbox": "1", "sandbox_url": sandbox.url, **TIMES, **(settings or {})}
        #: What else is in a worker's environment, such as a path to a package.
        self.beside: dict[str, str] = {}
        #: Its workers start as an operator starts them, which takes longer and shows in the list of processes.
        self.cold = False
        self._folder = folder
        self._open = ExitStack()
        self._open.callback(self.redis.close)

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a worker as environment variables; empty ones are left out."""
        return _environment(self.settings)

    def start_worker(self, *options: str, queues: str = "textgoto", name: str = "worker", **settings: str) -> Worker:
        """Start a worker; the caller waits until it is `ready`.

        Beside what the bare command has: a log to read, a name of its own, and no second spent on greeting others.
        """
        from tests.warm import WarmProcess, module  # noqa: PLC0415 - it is built of what is here

        arguments = ["celery", "-A", "workers", "worker", "-Q", queues]
        arguments += ["-l", "INFO", "-n", f"{name}@%h", "--without-mingle"]
        environment = {**self.beside, **_environment({**self.settings, **settings})}
        worker: Worker
        if self.cold:
            worker = Worker(["-m", *arguments, *options], environment, self._folder, name)
        else:
            worker = WarmProcess(module([*arguments, *options]), environment, self._folder, name)
        # How a worker ends when it is told to is a test of its own; here it only takes time.
        self._open.callback(worker.kill)
        return worker

    def worker(self, *options: str, queues: str = "textgoto", name: str = "worker", **settings: str) -> Worker:
        """Start a worker and return once it consumes."""
        return self.start_worker(*options, queues=queues, name=name, **settings).ready()

    def client(self, **overrides: Any) -> Dispatcher:
        """Return a `Dispatcher` as an application has it, which knows the account before any worker did."""
        usual = {"redis_url": self.url, "sandbox": True, "providers": {"textgoto": {"uid": "sandbox"}}}
        return self._open.enter_context(Dispatcher(**{**usual, **overrides}))

    def published(self) -> dict[str, list[bytes]]:
        """Return the messages of `textgoto` that lie on the broker, by key, the first to be taken last."""
        keys = [KEY_PREFIX + queue for queue in both_queues("textgoto")]
        return {key: self.redis.lrange(key, 0, -1) for key in keys}

    def broker_messages(self) -> int:
        """Return how many messages of `textgoto` lie on the broker, without those in a worker's hands."""
        return sum(map(len, self.published().values()))

    def lose_messages(self) -> int:
        """Delete what lies on the broker, as whoever flushes the wrong database does; return how many lists."""
        return int(self.redis.delete(*self.published()))

    def forget(self) -> None:
        """Empty the database but for what a worker that goes on needs."""
        gone = [key for key in self.redis.scan_iter(count=1000) if not _KEPT.fullmatch(key)]
        for start in range(0, len(gone), 1000):
            self.redis.delete(*gone[start : start + 1000])
        for key in self.redis.scan_iter("d:lm:*"):
            used = {*self.redis.hkeys(key)} - _OF_LIMITS
            if used:
                self.redis.hdel(key, *used)

    def close(self) -> None:
        """Stop the workers, close the clients."""
        self._open.close()


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    return {f"DISPATCHER_{name.upper()}": value for name, value in settings.items() if value}


@contextmanager
def sandbox(folder: Path) -> Iterator[Sandbox]:
    """Run a sandbox."""
    told = "import workers.sandbox.server as sandbox; sandbox.run(ready=lambda url: print(url, 'ready', flush=True))"
    process = Process(["-c", told], {}, folder, "sandbox")
    try:
        process.wait_for(" ready\n")
        url = process.output().split()[0]
        WATCH.port(int(url.rsplit(":", 1)[1]), "sandbox")
        yield Sandbox(url)
    finally:
        process.stop()


def accepted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of texts that the provider took, in order."""
    return [row for row in rows if row.accepted and row.kind in MESSAGES]


def taken_by_number(one: Sandbox) -> dict[str, int]:
    """Return how many texts the provider took for each number, in E.164."""
    return {f"+{msisdn}": count for msisdn, count in one.counts().accepted.items()}
