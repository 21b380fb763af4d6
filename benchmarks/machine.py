"""What the figures of a page were measured on, and with which releases."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from benchmarks import environments
from benchmarks.rig import rig

_OURS: Final = ("celery", "kombu", "redis", "hiredis", "httpx", "httptools", "msgspec")
_PEERS: Final = {
    "peers": ("celery", "dramatiq", "taskiq", "taskiq-redis", "streaq", "httpx", "uvloop"),
    "arq": ("arq",),
}

#: Asks another environment for releases.
_ASK: Final = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"


def run(*, short: bool = False) -> str:
    """Return it as Markdown."""
    with rig() as one:
        server = told(one.redis.info("server"))
    ours = ", ".join(f"{name} {version(name)}" for name in _OURS)
    peers = ", ".join(f"{name} {release}" for name, release in _releases())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    system = f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}, {server}"
    parts = f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {system}"
    return "\n".join(
        [
            f"- Measured on {datetime.now(UTC):%Y-%m-%d}: {parts} (append-only file, synced every second).",
            f"- Dispatcher with {ours}.",
            f"- Beside it: {peers}.",
        ]
    )


def told(server: dict[str, Any]) -> str:
    """Name a server by what it says of itself: Valkey has a `redis_version` too."""
    return f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {server['redis_version']}"


def _releases() -> list[tuple[str, str]]:
    releases = []
    for environment, names in _PEERS.items():
        command: list[str | Path] = [environments.python(environment), "-c", _ASK, *names]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        releases += list(zip(names, out.split(), strict=True))
    return releases


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
