"""Endpoints, where consumers are told of events, and the notices that wait for them: the calls, and how they stand.

`lua/notices.lua` says how both lie in Redis, `workers.notify` delivers; `dispatcher.notices` says what may be asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import notices
from dispatcher.calls import MOST, Call, script
from dispatcher.jobs import SCHEMA, moment

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: Every endpoint by the ms at which something last came of it; what was not delivered by the ms of that.
ENDPOINTS: Final = "d:ta"
UNDELIVERED: Final = "d:tx"

#: How far the stream was moved on; there once anybody is to be told of anything.
MOVED: Final = "d:tc"

#: Seconds for which a notice is tried: longer than all tries at one take. It waits so long beyond the life of an event.
_TRIED_FOR: Final = 4 * 86400.0

#: Entries of the stream that one call moves: that holds the server up for about a millisecond.
_PAGE: Final = 100

#: Endpoints that one call hands out.
_ENDPOINTS: Final = 100

#: Seconds that an answer may come later than it is waited for, before its notice is taken for lost with its worker.
_SLACK: Final = 5.0


class Told(StrEnum):
    """What came of telling a notice."""

    DELIVERED = "delivered"
    #: It failed, and is told again.
    AGAIN = "again"
    #: It failed, and was told as often as it may be.
    FAILED = "failed"
    #: It cannot be told there at all.
    REFUSED = "refused"
    #: Nothing is told there any more.
    GONE = "gone"


class Health(StrEnum):
    """What is to be thought of an endpoint."""

    HEALTHY = "healthy"
    #: Its last tries failed.
    FAILING = "failing"
    #: It is left alone but for a probe now and then.
    PAUSED = "paused"
    #: It said so (410), and is told nothing until its operator resumes it.
    GONE = "gone"


class Notice(msgspec.Struct, frozen=True):
    """A notice that was taken: the entry of its event, who is told, as the job has it, and how often it was tried."""

    cursor: str
    fields: Mapping[bytes, bytes]
    callback: str
    tries: int

    @property
    def id(self) -> str:
        """What tells it from any other, the same at each try."""
        return notices.id_of(self.cursor)

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Notice({self.id})"


class Gathered(msgspec.Struct, frozen=True):
    """What moving on the stream came to: endpoints to be told now, and in how many seconds the next are due."""

    moved: int
    cursor: str
    due: list[str]
    wait: float | None


class Taken(msgspec.Struct, frozen=True):
    """Notices that were taken, and in how many seconds the next are due; `busy` says that another tells them."""

    notices: Sequence[Notice] = ()
    wait: float | None = None
    busy: bool = False


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where consumers are told, and how that goes."""

    schema: int = SCHEMA
    id: str
    #: What may be shown of it: a URL's scheme and host, or `task@queue`.
    endpoint: str
    state: Health
    #: Notices that wait, and since when the oldest does.
    waiting: int = 0
    oldest: datetime | None = None
    #: How many were delivered, and were not, since it is known.
    delivered: int = 0
    undelivered: int = 0
    #: Failures in a row, since when, why the last, and until when it is left alone.
    failures: int = 0
    since: datetime | None = None
    error: str = ""
    until: datetime | None = None
    delivered_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return its document."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


class Undelivered(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that was not delivered. `subject` is the job, the batch or whatever else its event is about."""

    schema: int = SCHEMA
    id: str
    type: str
    subject: str
    endpoint_id: str
    endpoint: str
    at: datetime
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return its document."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def wait(count: int, whose: str = "") -> str:
    """Say how many notices wait, as their readers call them."""
    what = f"callback{'' if count == 1 else 's'}{f' {whose}' if whose else ''}"
    return f"{count} {what} wait{'s' if count == 1 else ''}"


class NoticeCalls:
    """The calls that notices need, with the deployment's times filled in."""

    def __init__(self, settings: Settings) -> None:
        """Take the times from `settings`."""
        self._kept = int(settings.events_retention * 1000)
        self._waits = int((settings.events_retention + _TRIED_FOR) * 1000)
        self._lost_after = int(settings.lost_after * 1000)
        self._hold = int((settings.callback_timeout + _SLACK) * 1000)
        self._most = settings.callback_concurrency

    def gather(self, *, publishes: bool, most: int = _PAGE) -> Call[Gathered]:
        """Move events to those who are told; answers endpoints that are due, where the caller `publishes` them."""
        endpoints = _ENDPOINTS if publishes else 0
        arguments = [most, self._waits, self._kept, self._lost_after, endpoints]
        return Call(script("notices_gather"), arguments, _read_gathered)

    def default(self, endpoint: str, patterns: Sequence[str], callback: str) -> Call[int]:
        """Say who is told where a job names nobody, from now on; nobody where there is no endpoint."""
        return Call(script("notices_default"), [endpoint, ",".join(patterns), callback], int)

    def take(self, endpoint: str, token: str, call: str, flying: int) -> Call[Taken]:
        """Take notices of an endpoint as `token`, of which `flying` are on their way; `call` names this call."""
        arguments: list[str | int] = [
            endpoint,
            token,
            call,
            self._hold,
            self._most,
            flying,
            self._kept,
            int(_TRIED_FOR * 1000),
        ]
        return Call(script("notices_take"), arguments, _read_taken)

    def done(
        self, endpoint: str, token: str, cursor: str, told: Told, *, words: str = "", again: float = 0, pause: float = 0
    ) -> Call[bool]:
        """Write what came of a notice: it is told again in `again` seconds, nothing there before `pause` seconds.

        One that would be told again more than four days after it came is given up instead.
        Answers False where that was written before, or another tells it by now.
        """
        arguments: list[str | int] = [
            endpoint,
            token,
            cursor,
            told,
            words,
            int(again * 1000),
            int(pause * 1000),
            self._waits,
            self._kept,
            int(_TRIED_FOR * 1000),
        ]
        return Call(script("notices_done"), arguments, lambda answer: bool(answer == b"OK"))

    def leave(self, endpoint: str, token: str) -> Call[int]:
        """Let an endpoint go."""
        return Call(script("notices_leave"), [endpoint, token], int)

    def resume(self, endpoint: str) -> Call[tuple[bool, int]]:
        """Tell an endpoint again that is paused or gone, and `MOST` of what waits for its next try there.

        Answers whether it was paused or gone, and how many waited.
        """
        return Call(script("notices_resume"), [endpoint, self._hold, MOST], lambda said: (bool(said[0]), int(said[1])))

    def redrive(self, undelivered: Sequence[tuple[str, str]]) -> Call[list[str]]:
        """Tell notices again, each the id of its endpoint and its cursor, the latest first.

        Answers for each "OK", "BEFORE" where it is not on the list any more, or "GONE" where its endpoint is.
        """
        arguments: list[str | int] = [self._waits, *(f"{endpoint} {cursor}" for endpoint, cursor in undelivered)]
        return Call(script("notices_redrive"), arguments, lambda answer: [one.decode() for one in answer])

    def erase(self, endpoint: str, cursors: Sequence[str]) -> Call[int]:
        """Erase notices; answers how many were there."""
        return Call(script("notices_erase"), [endpoint, *cursors], int)


def read(store: JobStore) -> list[Endpoint]:
    """Return all endpoints, the one that something came of last first. Raises `StoreUnavailable`."""
    with store.errors():
        named: Any = store.redis.zrevrange(ENDPOINTS, 0, -1)
        ids = [one.decode() for one in named]
        now, _ = store.redis.time() if ids else (0, 0)
        with store.redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hgetall(f"d:t:{one}")
                pipe.zcard(f"d:tp:{one}")
                pipe.zrange(f"d:tp:{one}", 0, 0, withscores=True)
            stored = pipe.execute() if ids else []
    rows = zip(ids, stored[::3], stored[1::3], stored[2::3], strict=True)
    return [_endpoint(one, known, waiting, oldest, now * 1000) for one, known, waiting, oldest in rows]


def undelivered_count(store: JobStore) -> int:
    """Return how many notices were not delivered. Raises `StoreUnavailable`."""
    with store.errors():
        count: Any = store.redis.zcard(UNDELIVERED)
    return int(count)


def undelivered(store: JobStore, endpoint: str | None = None) -> Iterator[Undelivered]:
    """Yield what was not delivered, the latest first; of one endpoint, by its id, or of all.

    Raises `StoreUnavailable`.
    """
    start = 0
    while True:
        with store.errors():
            page: Any = store.redis.zrevrange(UNDELIVERED, start, start + MOST - 1)
        if not page:
            return
        start += len(page)
        yield from _undelivered(store, [one.decode() for one in page], endpoint)


def _undelivered(store: JobStore, names: Sequence[str], endpoint: str | None) -> Iterator[Undelivered]:
    pairs = [tuple(one.split(" ")) for one in names]
    pairs = [one for one in pairs if endpoint in {None, one[0]}]
    with store.errors(), store.redis.pipeline(transaction=False) as pipe:
        for whose, cursor in pairs:
            pipe.hmget(f"d:tn:{whose}:{cursor}", "t", "s", "y", "ya")
            pipe.hget(f"d:t:{whose}", "s")
        stored = pipe.execute() if pairs else []
    for (whose, cursor), (kind, subject, why, at), shown in zip(pairs, stored[::2], stored[1::2], strict=True):
        if kind is not None and at is not None:
            yield Undelivered(
                id=notices.id_of(cursor),
                type=kind.decode(),
                subject=subject.decode().removeprefix("b:"),
                endpoint_id=whose,
                endpoint=shown.decode() if shown else "",
                at=moment(int(at)),
                why=why.decode(),
            )


def _endpoint(
    id_: str, known: Mapping[bytes, bytes], waiting: int, oldest: Sequence[tuple[bytes, float]], now: int
) -> Endpoint:
    def at(name: bytes) -> datetime | None:
        return moment(int(known[name])) if name in known else None

    failures = int(known.get(b"f", 0))
    state = Health.FAILING if failures else Health.HEALTHY
    if b"g" in known:
        state = Health.GONE
    elif b"pp" in known:
        state = Health.PAUSED
    until = max(int(known.get(b"p", 0)), int(known.get(b"nb", 0)))
    return Endpoint(
        id=id_,
        endpoint=known.get(b"s", b"").decode(),
        state=state,
        waiting=waiting,
        oldest=moment(int(oldest[0][1])) if oldest else None,
        delivered=int(known.get(b"ok", 0)),
        undelivered=int(known.get(b"no", 0)),
        failures=failures,
        since=at(b"fs"),
        error=known.get(b"w", b"").decode() if state != Health.HEALTHY else "",
        until=moment(until) if until > now and state != Health.GONE else None,
        delivered_at=at(b"ol"),
    )


def _read_gathered(answer: list[Any]) -> Gathered:
    moved, cursor, due, wait = answer
    return Gathered(int(moved), cursor.decode(), [one.decode() for one in due], _seconds(wait))


def _read_taken(answer: list[Any]) -> Taken:
    if answer[0] == b"BUSY":
        return Taken(busy=True)
    notices = [_notice(cursor.decode(), fields) for cursor, fields in answer[2:]]
    return Taken(notices, _seconds(answer[1]))


def _notice(cursor: str, stored: Sequence[bytes]) -> Notice:
    fields = dict(zip(stored[::2], stored[1::2], strict=True))
    return Notice(cursor, fields, fields.pop(b"cb", b"").decode(), int(fields.get(b"r", 0)))


def _seconds(ms: bytes | int) -> float | None:
    """Return the seconds that a script tells in milliseconds, None for never."""
    return None if int(ms) < 0 else int(ms) / 1000
