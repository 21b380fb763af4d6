"""What `DISPATCHER_DURABILITY=fsync` asks of Redis: that a write is on the disk before anything follows from it.

Redis has two ways. With `appendfsync always` every answer comes after the write is on the disk. With `WAITAOF`
(Redis 7.2 and later, Valkey) who needs that waits for it: <https://redis.io/docs/latest/commands/waitaof/>.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from dispatcher.errors import ConfigurationError, StoreUnavailable

#: Milliseconds that a write may take to reach the disk; less than a connection is waited for.
PATIENCE: Final = 4000

#: The command that returns once all that this connection wrote is on the disk of the server itself, of no replica.
WAIT: Final = ("WAITAOF", 1, 0, PATIENCE)

#: Written by one connection to wait for what others wrote before.
MARK: Final = "d:fs"


class Way(StrEnum):
    """How a write is known to be on the disk."""

    WAIT = "waitaof"
    ALWAYS = "appendfsync always"


def way(refusal: str, config: Mapping[str, Any]) -> Way:
    """Return the way that a server offers: `refusal` is its error for `WAITAOF` or "", `config` its `append*` settings.

    Raises `ConfigurationError` where it offers none.
    """
    if not refusal:
        return Way.WAIT
    if config.get("appendonly") == "yes" and config.get("appendfsync") == "always":
        return Way.ALWAYS
    raise ConfigurationError(
        "DISPATCHER_DURABILITY=fsync needs a Redis that can promise it: with appendonly yes, and Redis 7.2 or later or "
        "Valkey (for WAITAOF), else with appendfsync always; or leave DISPATCHER_DURABILITY out"
    )


def wait(client: Any) -> Any:
    """Send `WAIT` by a client or a pipeline; return what it returns."""
    return client.execute_command(*WAIT)


def confirm(answer: Any, shown: str) -> None:
    """Raise `StoreUnavailable` unless this answer to `WAIT` says that the write is on the disk."""
    if int(answer[0]) < 1:
        raise StoreUnavailable(f"Redis at {shown} did not write to its disk within {PATIENCE / 1000:g} s")
