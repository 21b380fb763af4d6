"""Heartbeats: how a worker says that it lives, and how it is judged.

A beat goes the way of a job. The worker's event loop publishes a message to a queue that is the worker's alone; its
consumer takes it where it takes jobs, before them; a slot of its pool hands it to the loop, which notes the moment in
Redis. So a worker whose process is there, but which takes nothing any more, is told from one that lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from dispatcher.store import JobStore

#: Sorted set of workers by the ms of their last beat; beside it a hash for each, `d:hb:<node>`.
WORKERS: Final = "d:hb"

#: Sorted set of accounts by the ms at which a worker last said that it serves them.
SERVED: Final = "d:ha"

#: Seconds that a worker which says nothing any more is remembered.
REMEMBERED: Final = 120

#: Beats that may be missed: a loaded machine is late now and then.
_MISSED: Final = 3

#: Deadlines that a worker whose slots are all taken may go without taking a message.
_FULL: Final = 10


class Health(StrEnum):
    """What is to be thought of a worker."""

    #: It beats, and takes messages.
    ALIVE = "alive"
    #: It beats; all its slots are taken, so that it takes no message just now.
    FULL = "full"
    #: It beats, and its first message has not come through yet.
    STARTING = "starting"
    #: It was told to stop and finishes what it has.
    STOPPING = "stopping"
    #: It beats and takes no message, though it has free slots: restart it.
    STUCK = "stuck"
    #: It has not beaten for a while: it died, hangs, or cannot reach Redis.
    SILENT = "silent"


#: A worker that does its work.
WELL: Final = frozenset({Health.ALIVE, Health.FULL})


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it last told of itself; moments are in ms since 1970 on Redis' clock."""

    node: str
    accounts: list[str]
    #: Since when it beats without a longer pause, and when it last beat.
    since: int
    at: int
    #: When a message last came through its consumer and its loop; 0 for never.
    consumed: int = 0
    stopping: bool = False
    #: Messages in its hands, and how many it can have.
    busy: int = 0
    slots: int = 1
    #: Seconds between its beats, and seconds that one HTTP call may take.
    every: float = 5
    deadline: float = 30

    @property
    def host(self) -> str:
        """The machine it runs on."""
        return self.node.partition("@")[2]

    def health(self, now: int) -> Health:
        """Return what is to be thought of it at `now`, ms since 1970 on Redis' clock."""
        if now - self.at > 1000 * _MISSED * self.every:
            return Health.SILENT
        if self.stopping:
            return Health.STOPPING
        quiet = (now - max(self.consumed, self.since)) / 1000
        # Asked once a beat, the answer to the last may still be on its way.
        if quiet <= (_MISSED + 1) * self.every:
            return Health.ALIVE if self.consumed else Health.STARTING
        if self.busy >= self.slots and quiet <= _FULL * self.deadline:
            return Health.FULL
        return Health.STUCK


def key(node: str) -> str:
    """Return the key of a worker's hash."""
    return f"{WORKERS}:{node}"


def fields(one: Worker) -> dict[str, str | int | float]:
    """Return a worker as its hash has it, without what only its consumer writes."""
    told = msgspec.structs.asdict(one)
    del told["node"], told["consumed"]
    return {**told, "accounts": ",".join(one.accounts), "stopping": int(one.stopping)}


def read(store: JobStore) -> list[Worker]:
    """Return the workers that beat within the last minutes, by name. Raises `StoreUnavailable`."""
    with store.errors():
        nodes: Any = store.redis.zrange(WORKERS, 0, -1)
        with store.redis.pipeline(transaction=False) as pipe:
            for node in nodes:
                pipe.hgetall(key(node.decode()))
            stored = pipe.execute()
    found = [_worker(node.decode(), told) for node, told in zip(nodes, stored, strict=True) if b"at" in told]
    return sorted(found, key=lambda one: (one.accounts, one.node))


def serving(workers: Iterable[Worker], account: str, now: int) -> list[Worker]:
    """Return the workers that do the account's work at `now`."""
    return [one for one in workers if account in one.accounts and one.health(now) in WELL]


def _worker(node: str, told: Mapping[bytes, bytes]) -> Worker:
    words = {name.decode(): value.decode() for name, value in told.items()}
    words["stopping"] = "true" if words.get("stopping") == "1" else "false"
    accounts = words.pop("accounts").split(",")
    return msgspec.convert({**words, "node": node, "accounts": accounts}, Worker, strict=False)
