"""The commands that a deployment runs: the one source of `dispatcher up`, the Procfile and docker-compose.yml."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from typing import Final

from dispatcher.notices import NOTIFY

SANDBOX: Final = "dispatcher sandbox"
RECEIVER: Final = "dispatcher receiver"
API: Final = "dispatcher api"
FLOWER: Final = "celery -A workers flower"

#: Where the sandbox listens unless DISPATCHER_SANDBOX_URL or --port says otherwise.
SANDBOX_PORT: Final = 8460

#: Where the receiver listens unless --port says otherwise.
RECEIVER_PORT: Final = 8470

#: Where the HTTP API listens unless --port says otherwise.
API_PORT: Final = 8480

#: What a Redis or Valkey server must be told: keep everything, forget nothing over a restart. The last saves memory,
#: since a job's fields lie in one compact piece.
SERVER: Final = {
    "save": "",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "1024",
}

#: How each program runs as a module; Celery without its banner, which is longer than all it says afterwards.
_MODULES: Final = {"dispatcher": ["dispatcher.cli"], "celery": ["celery", "--quiet"]}


def worker(account: str) -> str:
    """Return the command of an account's worker."""
    return f"dispatcher worker {account}"


def commands(accounts: Iterable[str]) -> dict[str, str]:
    """Return the command of each process by its name, in the order they are started."""
    workers = {account: worker(account) for account in accounts}
    ours = {"sandbox": SANDBOX, **workers, NOTIFY: worker(NOTIFY), "receiver": RECEIVER, "api": API}
    return {**ours, "flower": FLOWER}


def procfile(accounts: Iterable[str]) -> str:
    """Return the lines of a Procfile."""
    return "".join(f"{name}: {command}\n" for name, command in commands(accounts).items())


def here(command: str) -> list[str]:
    """Return a command as it runs quietly with this interpreter, wherever its scripts are installed."""
    program, *arguments = shlex.split(command)
    return [sys.executable, "-m", *_MODULES[program], *arguments]
