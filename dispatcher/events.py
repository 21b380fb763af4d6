"""The event stream, read from a cursor, all of it or what is asked for; `groups` reads it for several together.

Told are each settled or final state of each job, verifications' ends, settled batches, texts that people sent to us,
who came onto the list of those who want no more, or off it, accounts that are suspended or go on, and what is used up.

The scripts publish (`emit` in `lua/job.lua`), so an event is there exactly when the move is. Order is promised per job:
`data.seq` grows; and a batch's event comes after those of its jobs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from dispatcher import budgets, checks, suspensions
from dispatcher.calls import BatchState
from dispatcher.errors import ConfigurationError, CursorExpired, InvalidRequest
from dispatcher.jobs import SCHEMA, Job, milliseconds, moment
from dispatcher.notices import FAMILIES
from dispatcher.optouts import Listed, Text
from dispatcher.privacy import shown
from dispatcher.states import State

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

#: The field beside it: the accounts that block a person themselves who wants texts again.
_BLOCKED: Final = b"k"

#: The field of an entry that tells of an account: the record of its suspension.
_SUSPENSION: Final = b"d"

#: The field of an entry that is told as it is: a document in JSON.
_TOLD: Final = b"j"

#: The type of the event that tells of a text.
INBOUND: Final = "inbound.text"

#: The type of the event that tells that a batch settled.
BATCH_SETTLED: Final = "batch.settled"

#: What is told of something else than a job.
_OF_OTHERS: Final = frozenset({_COUNTS, _SEALED, _SUSPENSION, _TOLD})

_PAGE: Final = 200
#: Seconds that one read waits for news, so that a stop is noticed.
_BLOCK: Final = 1.0
_CURSOR: Final = re.compile(r"[0-9]{1,19}(-[0-9]{1,19})?")

_PATTERN: Final = re.compile(r"[a-z_.*]{1,64}")

#: The highest number that Redis gives to an entry of one millisecond.
_LAST_OF_MS: Final = 2**64 - 1

#: An entry of the stream as Redis answers it: its id and its fields.
Row: TypeAlias = tuple[bytes, dict[bytes, bytes]]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job or a batch. `cursor` is where to go on from."""

    schema: int = SCHEMA
    cursor: str
    #: "job.sent", "job.failed", ..., "verification.approved", ..., "batch.settled", "inbound.text",
    #: "optout.added", ..., "provider.suspended", "provider.resumed", "provider.low_balance", "provider.throttled",
    #: "provider.breaker_open", "provider.breaker_half_open", "provider.breaker_closed",
    #: "budget.warning", "budget.exceeded", "verification.refused", "prefix.closed",
    #: "callback.paused", "callback.resumed", "callback.gone", "callback.failed"
    type: str
    at: datetime
    #: The job's document, its state and history as of this event; `{"id": ...}` where its retention has passed.
    #: Of a batch its document with the counts of that moment. Of a text that somebody sent to us `{id, provider, from,
    #: to, text, at, received_at, opt_out, help}`; of who wants no texts, or wants them again, `{id, number, by,
    #: provider, tenant, sender, blocked_by}`, the last being accounts that block them all the same;
    #: of an account `{provider, scope, since, code, message}`; of its money `{provider, balance, below, since}`; of
    #: its breaker `{provider, since, errors, timeouts, of}`, and `until` while it is open; of its being throttled
    #: `{provider, since, until, factor}`, the part of its rate that it gets afterwards; of a budget `{rule, counts_for,
    #: used, cap, share, period_end}`; of a code that a guard refused `{code, country, number, key, retry_after, tenant,
    #: times}`; of numbers that get none `{id, prefix, country, sent, approved, since, until}`.
    data: dict[str, Any]

    def __repr__(self) -> str:
        """Show what finds it: what it tells may be revealed."""
        return f"Event({self.cursor} {self.type})"


class Wanted(msgspec.Struct, frozen=True):
    """Which events are asked for: all, or those of some types, of a tenant, of a batch."""

    #: Types, with * for any letters; empty for all.
    types: tuple[str, ...] = ()
    tenant: str | None = None
    batch: str | None = None

    @property
    def words(self) -> str:
        """What is asked for, in words."""
        said = [f"types {', '.join(sorted({*self.types}))}"] if self.types else []
        for what, name in (("tenant", self.tenant), ("batch", self.batch)):
            said += [] if name is None else [f"{what} {shown(name)}"]
        return " and ".join(said) or "all events"

    def type_fits(self, name: str) -> bool:
        """Say whether a type is among those asked for."""
        return not self.types or any(_as_regex(one).fullmatch(name) for one in self.types)


def wanted(types: str | Iterable[str] | None, tenant: str | None, batch: str | None) -> Wanted:
    """Return which events are asked for. Raises `InvalidRequest` naming the argument."""
    words = [types] if isinstance(types, str) else list(types) if isinstance(types, Iterable) else types
    if words is not None:
        if not isinstance(words, list) or not words:
            raise InvalidRequest("types", "must be types of events such as 'job.*', one or several")
        for one in words:
            _check_pattern(one)
    return Wanted(
        types=tuple(words or ()),
        tenant=None if tenant is None else checks.text("tenant", tenant),
        batch=None if batch is None else checks.text("batch", batch),
    )


def _check_pattern(one: Any) -> None:
    if not isinstance(one, str) or not _PATTERN.fullmatch(one):
        raise InvalidRequest("types", "must be types of events such as 'job.sent' or 'job.*'", shown(one))
    family = one.partition(".")[0]
    if "*" not in family and family not in FAMILIES:
        raise InvalidRequest("types", f"matches no event; they begin with {', '.join(FAMILIES)}", shown(one))


@cache
def _as_regex(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")))


def position(since: datetime | float) -> str:
    """Return the cursor just before a moment. Raises `InvalidRequest` for what is none."""
    ms = milliseconds("since", since) or 0
    return f"{ms - 1}-{_LAST_OF_MS}" if ms else "0-0"


class Page(msgspec.Struct, frozen=True):
    """Some of the next events that are wanted; `end` says that nothing more is there yet."""

    events: Sequence[Event]
    end: bool


class Reader(Protocol):
    """Reads the stream for somebody, a page at a time."""

    def begin(self) -> None:
        """Find where to begin. Raises `CursorExpired` where that is not kept any more."""

    def page(self, seconds: float) -> Page:
        """Return what comes next, waiting at most `seconds` for it; what came before is done with."""

    def close(self) -> None:
        """Read no more; what was not asked beyond is not done with."""


def follow(reader: Reader, timeout: float | None) -> Generator[Event]:
    """Yield events until none came for `timeout` seconds, for ever with None."""
    quiet_since = time.monotonic()
    try:
        while True:
            left = _BLOCK if timeout is None else quiet_since + timeout - time.monotonic()
            page = reader.page(min(left, _BLOCK))
            if page.end and not page.events and left <= 0:
                return
            for event in page.events:
                quiet_since = time.monotonic()
                yield event
    finally:
        reader.close()


class EventStream:
    """Reads events in order."""

    def __init__(self, store: JobStore, sealer: Sealer, read: Callable[[list[str], bool], dict[str, Job]]) -> None:
        """`read(ids, reveal)` answers the jobs with these ids that are still kept."""
        self._store = store
        self._sealer = sealer
        self._jobs = read

    def start(self, after: str | None) -> str:
        """Return the cursor to read from: `after`, or the end of the stream for None.

        Raises `CursorExpired` where events after it were trimmed away.
        """
        if after is None:
            last = self.ask(lambda redis: redis.xrevrange(STREAM, count=1))
            return last[0][0].decode() if last else "0-0"
        trimmed = self.ask(lambda redis: redis.get(LAST_TRIMMED)) if parts(after) != (0, 0) else None
        if trimmed and parts(trimmed.decode()) > parts(after):
            raise CursorExpired(after, trimmed.decode())
        return after

    def read(self, cursor: str, seconds: float) -> list[Row]:
        """Return the next rows after `cursor`, waiting at most `seconds` for the first.

        Raises `CursorExpired` where some between were trimmed away meanwhile.
        """
        block = max(1, int(seconds * 1000)) if seconds > 0 else None
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            pipe.xread({STREAM: cursor}, count=_PAGE, block=block)
            pipe.get(LAST_TRIMMED)
            pages, trimmed = pipe.execute()
        rows: list[Row] = pages[0][1] if pages else []
        # Of what was trimmed after it was read nothing is missed.
        if trimmed and parts(cursor) != (0, 0) and parts(trimmed.decode()) > parts(cursor):
            first = parts(rows[0][0].decode()) if rows else None
            if first is None or first > parts(trimmed.decode()):
                raise CursorExpired(cursor, trimmed.decode())
        return rows

    def select(self, rows: Sequence[Row], wanted: Wanted, *, reveal: bool) -> list[Event]:
        """Return the events of those rows that are wanted."""
        rows = [one for one in rows if wanted.type_fits(one[1][b"t"].decode())]
        events = [*self._events(rows, reveal=reveal)]
        if wanted.batch is not None:
            events = [one for one in events if wanted.batch == _batch_of(one)]
        if wanted.tenant is not None:
            settled = {one.data["id"] for one in events if one.type == BATCH_SETTLED}
            tenants = self._tenants([*settled])
            events = [
                one
                for one in events
                if wanted.tenant
                == (tenants.get(one.data["id"]) if one.type == BATCH_SETTLED else one.data.get("tenant"))
            ]
        return events

    def _tenants(self, batches: Sequence[str]) -> dict[str, str]:
        """Return on whose behalf batches are: that of the first job of each."""
        if not batches:
            return {}
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in batches:
                pipe.lindex(f"d:b:{one}:j", 0)
            firsts = {one: id_.decode() for one, id_ in zip(batches, pipe.execute(), strict=True) if id_}
        jobs = self._jobs([*firsts.values()], False) if firsts else {}  # noqa: FBT003 - as it is declared
        return {one: jobs[id_].tenant for one, id_ in firsts.items() if id_ in jobs}

    def told(self, rows: Sequence[Row], *, reveal: bool) -> list[Event]:
        """Return the events of rows, masked unless `reveal`."""
        return [*self._events(rows, reveal=reveal)]

    def _events(self, rows: Sequence[Row], *, reveal: bool) -> Iterator[Event]:
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
        document = told.to_dict(id_, reveal=reveal)
        return document if kind is Text else document | {"blocked_by": fields.get(_BLOCKED, b"").decode().split()}

    def ask(self, command: Callable[[Any], Any]) -> Any:
        """Make one command. Raises `StoreUnavailable`."""
        with self._store.errors():
            return command(self._store.redis)


class CursorReader:
    """Reads the stream from a cursor on, for one who keeps the cursor."""

    def __init__(
        self, stream: EventStream, wanted: Wanted, after: str | None, since: datetime | float | None, *, reveal: bool
    ) -> None:
        """`after` is a cursor, `since` a moment; neither for news only. Raises `InvalidRequest`."""
        self._stream = stream
        self._wanted = wanted
        self._reveal = reveal
        self._from = where(after, since)
        self._cursor = ""

    def begin(self) -> None:
        """Find where to begin. Raises `CursorExpired`."""
        self._cursor = self._stream.start(self._from)

    def page(self, seconds: float) -> Page:
        """Return what comes next. Raises `CursorExpired`."""
        rows = self._stream.read(self._cursor, seconds)
        events = self._stream.select(rows, self._wanted, reveal=self._reveal)
        if rows:
            self._cursor = rows[-1][0].decode()
        return Page(events, end=not rows)

    def close(self) -> None:
        """Nothing is left."""


def where(after: str | None, since: datetime | float | None) -> str | None:
    """Return the cursor that is meant by one of these, None for the end. Raises `InvalidRequest`."""
    if after is not None and since is not None:
        raise InvalidRequest("since", "goes without after: reading begins at one of them")
    if since is not None:
        return position(since)
    return None if after is None else cursor_of("after", after)


def cursor_of(field: str, value: Any) -> str:
    """Return what can be a cursor. Raises `InvalidRequest`."""
    if not isinstance(value, str) or not _CURSOR.fullmatch(value):
        raise InvalidRequest(field, "is no cursor; take one from an event, or '0' for all that are kept", shown(value))
    return value


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


def _batch_of(event: Event) -> str | None:
    """Return the batch that an event is about, or its job is of."""
    told = event.data.get("id" if event.type == BATCH_SETTLED else "batch_id")
    return told if isinstance(told, str) else None


def parts(cursor: str) -> tuple[int, int]:
    """Return the milliseconds of a cursor and its number within them, to compare."""
    at, _, number = cursor.partition("-")
    return int(at), int(number or 0)
