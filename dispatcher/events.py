"""The event stream, read from a cursor.

Told are each settled or final state of each job, verifications' ends, settled batches, texts that people sent to us,
who came onto the list of those who want no more, or off it, accounts that are suspended or go on, and what is used up.

The scripts publish (`emit` in `lua/job.lua`), so an event is there exactly when the move is. Order is promised per job:
`data.seq` grows; and a batch's event comes after those of its jobs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import budgets, suspensions
from dispatcher.errors import ConfigurationError, CursorExpired, InvalidRequest
from dispatcher.jobs import SCHEMA, Job, moment
from dispatcher.optouts import Listed, Text
from dispatcher.privacy import shown
from dispatcher.states import State
from dispatcher.store import BatchState

if TYPE_CHECKING:
    from dispatcher.privacy import Sealer
    from dispatcher.store import JobStore

#: The Redis stream.
STREAM: Final = "d:e"

#: The id of the last entry that the clock trimmed away.
LAST_TRIMMED: Final = "d:et"

#: The field of an entry that tells of a batch: its counts of then, as "<state> <jobs>,...".
_COUNTS: Final = b"b"

#: The field of an entry that holds all it tells, sealed: what a person said.
_SEALED: Final = b"x"

#: The field of an entry that tells of an account: the record of its suspension.
_SUSPENSION: Final = b"d"

#: The field of an entry that is told as it is: a document in JSON.
_TOLD: Final = b"j"

#: The type of the event that tells of a text.
INBOUND: Final = "inbound.text"

#: What is told of something else than a job.
_OF_OTHERS: Final = frozenset({_COUNTS, _SEALED, _SUSPENSION, _TOLD})

_PAGE: Final = 200
#: Seconds that one read waits for news, so that a stop is noticed.
_BLOCK: Final = 1.0
_CURSOR: Final = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job or a batch. `cursor` is where to go on from."""

    schema: int = SCHEMA
    cursor: str
    #: "job.sent", "job.failed", ..., "verification.approved", ..., "batch.settled", "inbound.text",
    #: "optout.added", ..., "provider.suspended", "provider.resumed", "provider.low_balance", "provider.throttled",
    #: "provider.breaker_open", "provider.breaker_half_open", "provider.breaker_closed",
    #: "budget.warning", "budget.exceeded"
    type: str
    at: datetime
    #: The job's document, its state and history as of this event; `{"id": ...}` where its retention has passed.
    #: Of a batch its document with the counts of that moment. Of a text that somebody sent to us `{id, provider, from,
    #: to, text, at, received_at, opt_out}`; of who wants no texts, or wants them again, `{id, number, by, provider}`;
    #: of an account `{provider, scope, since, code, message}`; of its money `{provider, balance, below, since}`; of
    #: its breaker `{provider, since, errors, timeouts, of}`, and `until` while it is open; of its being throttled
    #: `{provider, since, until, factor}`, the part of its rate that it gets afterwards; of a budget `{rule, counts_for,
    #: used, cap, share, period_end}`.
    data: dict[str, Any]


class EventStream:
    """Reads events in order."""

    def __init__(self, store: JobStore, sealer: Sealer, read: Callable[[list[str], bool], dict[str, Job]]) -> None:
        """`read(ids, reveal)` answers the jobs with these ids that are still kept."""
        self._store = store
        self._sealer = sealer
        self._jobs = read

    def start(self, after: str | None) -> str:
        """Return the cursor to read from: `after`, or the end of the stream for None.

        Raises `InvalidRequest` for what is no cursor and `CursorExpired` where events after it were trimmed away.
        """
        if after is None:
            last = self._ask(lambda redis: redis.xrevrange(STREAM, count=1))
            return last[0][0].decode() if last else "0-0"
        if not isinstance(after, str) or not _CURSOR.fullmatch(after):
            why = "is no cursor; take one from an event, or '0' for all that are kept"
            raise InvalidRequest("after", why, shown(after))
        self._refuse_trimmed(after)
        return after

    def follow(self, cursor: str, *, timeout: float | None, reveal: bool = False) -> Iterator[Event]:
        """Yield events after `cursor`, masked unless `reveal`.

        Ends when none came for `timeout` seconds, never for None.
        """
        quiet_since = time.monotonic()
        while True:
            left = _BLOCK if timeout is None else quiet_since + timeout - time.monotonic()
            rows = self._read(cursor, min(left, _BLOCK))
            if not rows and left <= 0:
                return
            for event in self._events(rows, reveal=reveal):
                cursor, quiet_since = event.cursor, time.monotonic()
                yield event

    def _read(self, cursor: str, seconds: float) -> list[tuple[bytes, dict[bytes, bytes]]]:
        block = max(1, int(seconds * 1000)) if seconds > 0 else None
        pages = self._ask(lambda redis: redis.xread({STREAM: cursor}, count=_PAGE, block=block))
        return pages[0][1] if pages else []

    def _events(self, rows: list[tuple[bytes, dict[bytes, bytes]]], *, reveal: bool) -> Iterator[Event]:
        of_jobs = {fields[b"i"].decode() for _, fields in rows if not fields.keys() & _OF_OTHERS}
        jobs = self._jobs(list(of_jobs), reveal)
        for entry, fields in rows:
            cursor, id_ = entry.decode(), fields[b"i"].decode()
            if _SEALED in fields:
                data = self._said(id_, fields, reveal=reveal)
            elif _TOLD in fields:
                data = _document(fields)
            elif _SUSPENSION in fields:
                data = suspensions.read(id_, fields[_SUSPENSION]).to_dict()
            else:
                data = _batch(id_, fields) if _COUNTS in fields else _job(id_, fields, jobs.get(id_))
            yield Event(cursor=cursor, type=fields[b"t"].decode(), at=moment(cursor.split("-")[0]), data=data)

    def _said(self, id_: str, fields: dict[bytes, bytes], *, reveal: bool) -> dict[str, Any]:
        kind: type[Text | Listed] = Text if fields[b"t"].decode() == INBOUND else Listed
        try:
            told = msgspec.json.decode(self._sealer.open(fields[_SEALED], id_), type=kind)
        except ConfigurationError:
            return {"id": id_}
        return told.to_dict(id_, reveal=reveal)

    def _refuse_trimmed(self, after: str) -> None:
        if _position(after) == (0, 0):
            return
        trimmed = self._ask(lambda redis: redis.get(LAST_TRIMMED))
        if trimmed and _position(trimmed.decode()) > _position(after):
            raise CursorExpired(after, trimmed.decode())

    def _ask(self, command: Callable[[Any], Any]) -> Any:
        with self._store.errors():
            return command(self._store.redis)


def _job(id_: str, fields: dict[bytes, bytes], job: Job | None) -> dict[str, Any]:
    return job.as_of(int(fields[b"n"])).to_dict() if job else {"id": id_}


def _batch(id_: str, fields: dict[bytes, bytes]) -> dict[str, Any]:
    stored = dict(one.split(" ") for one in fields[_COUNTS].decode().split(",") if one)
    counts = {state.value: int(stored[state]) for state in State if state in stored}
    return BatchState(counts=counts, cancelled=fields[b"c"] == b"1").to_dict(id_)


def _document(fields: dict[bytes, bytes]) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(fields[_TOLD])
    if fields[b"t"].startswith(b"budget."):
        return budgets.told(document)
    return document | {
        name: msgspec.to_builtins(moment(document[name])) for name in ("since", "until") if name in document
    }


def _position(cursor: str) -> tuple[int, int]:
    at, _, number = cursor.partition("-")
    return int(at), int(number or 0)
