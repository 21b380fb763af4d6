"""Groups of consumers: several that share the events among them, each event at least once.

A group is one of Redis' own on the stream; what the scripts add is said in `lua/events.lua` and `lua/events_take.lua`.
An event is handed to one consumer at a time. It is another's once its consumer did not ask for the next one, or did not
come, for a time. One that was handed out again and again waits longer and longer in between, and holds up nobody.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher.calls import Call, script
from dispatcher.errors import CursorExpired, InvalidRequest, NotFound, StoreUnavailable
from dispatcher.events import STREAM, Event, EventStream, Page, Row, Wanted, where
from dispatcher.jobs import SCHEMA, moment
from dispatcher.privacy import shown
from dispatcher.store import JobStore

if TYPE_CHECKING:
    from collections.abc import Iterable

log = logging.getLogger("dispatcher")

#: The Redis hash of what the consumers of each group ask for.
_FILTERS: Final = "d:eg"

#: New events that a consumer is handed at once: few, so that the others get theirs.
_SHARE: Final = 10

#: And at most, where hardly any of them is wanted.
_MOST: Final = 200

#: Portions of which none was wanted, after which whoever asked is told that there is more.
_PORTIONS: Final = 20

#: Seconds of silence that may be taken for the end of a consumer.
_LEAST_SILENCE: Final = 1.0
_MOST_SILENCE: Final = 86400.0

#: Parts of that time after which a consumer says that it is still at its share.
_KEPT: Final = 4

#: Seconds for which a consumer that is quick may keep to itself what it is done with, to say it together: so much comes
#: again at most where it dies, and no more than a share.
_TOGETHER: Final = 0.05

#: Seconds after which consumers are looked for that hold nothing and are gone.
_TIDY: Final = 3600.0

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,99}")


class Delivery(Event, frozen=True, kw_only=True):
    """An event as a consumer of a group gets it."""

    #: How often it was handed out, this time included; more than once, somebody may have worked on it before.
    deliveries: int


class EventGroup(msgspec.Struct, frozen=True, kw_only=True):
    """A group as it stands now."""

    schema: int = SCHEMA
    name: str
    #: The cursor of the last event that was handed to any of its consumers.
    cursor: str
    #: Events that were handed to nobody yet, None for very many; filters count for nothing here.
    unread: int | None
    #: Names of consumers that are known, and events that they are not done with.
    consumers: int
    pending: int
    #: When the oldest event happened that nobody is done with.
    waiting_since: datetime | None
    #: Of the pending ones those that were handed out again and again.
    stuck: int
    #: Whether events that it was to get were trimmed away: it goes on once it is reset.
    expired: bool

    @property
    def words(self) -> str:
        """How it stands, in a line."""
        unread = "very many" if self.unread is None else self.unread
        told = [f"{unread} unread", f"{self.pending} in hand", f"{_many(self.consumers, 'consumer')}"]
        if self.waiting_since:
            told.append(f"waiting since {self.waiting_since:%Y-%m-%d %H:%M:%S %Z}")
        if self.stuck:
            told.append(f"{self.stuck} handed out again and again")
        if self.expired:
            told.append(f"events it was to get were trimmed away; go on with: dispatcher events reset {self.name}")
        return ", ".join(told)

    def to_dict(self) -> dict[str, Any]:
        """Return its document."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


def name_of(field: str, value: Any) -> str:
    """Return what can be the name of a group or a consumer. Raises `InvalidRequest`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        why = "must be a name of letters, digits, dots, dashes, underscores, colons and at signs, a hundred at most"
        raise InvalidRequest(field, why, shown(value))
    return value


class GroupReader:
    """Reads a group's events as one of its consumers."""

    def __init__(
        self,
        store: JobStore,
        stream: EventStream,
        wanted: Wanted,
        group: str,
        *,
        consumer: str | None,
        after: str | None,
        since: datetime | float | None,
        reveal: bool,
        take_over: float,
    ) -> None:
        """A new group begins at `after` or `since`, or with what is news then. Raises `InvalidRequest`."""
        self._store = store
        self._stream = stream
        self._wanted = wanted
        self._group = name_of("group", group)
        self._consumer = _own_name() if consumer is None else name_of("consumer", consumer)
        self._from = where(after, since) or "$"
        self._reveal = reveal
        if (
            isinstance(take_over, bool)
            or not isinstance(take_over, int | float)
            or not _LEAST_SILENCE <= take_over <= _MOST_SILENCE
        ):
            raise InvalidRequest("take_over", "must be a number of seconds from 1 to 86400", shown(take_over))
        self._take_over = take_over
        #: Handed to us and not done with: those that are to be yielded, and the one that was.
        self._share = deque[Delivery]()
        self._in_hand: Delivery | None = None
        #: What we are done with and did not say yet, and when we said so last.
        self._handled = list[str]()
        self._said_at = 0.0
        self._kept_at = 0.0
        self._tidied_at: float | None = None
        self._count = _SHARE
        self._closed = False
        # Closed while a page is read elsewhere, which goes on when nobody waits for it any more.
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begin the group where there is none. Raises `CursorExpired`, and `InvalidRequest` for other filters."""
        begin(self._store, self._group, self._from, self._wanted)

    def page(self, seconds: float) -> Page:
        """Return the next event, waiting at most `seconds` for it; we are done with the one before."""
        with self._lock:
            if self._closed:
                return Page([], end=True)
            self._go_on()
            if not self._share:
                cursor = self._take()
                if cursor is not None and seconds > 0:
                    self._stream.ask(
                        lambda redis: redis.xread({STREAM: cursor}, count=1, block=int(seconds * 1000) or 1)
                    )
                    cursor = self._take()
                if not self._share:
                    return Page([], end=cursor is not None)
            self._in_hand = self._share.popleft()
            return Page([self._in_hand], end=False)

    def close(self) -> None:
        """Give back what we hold, so that the others need not wait until we count as silent."""
        with self._lock:
            self._closed = True
            held = [one.cursor for one in (self._in_hand, *self._share) if one is not None]
            self._in_hand, self._share = None, deque()
            if held or self._handled:
                # Where Redis is away they are taken over in time; and where Python is ending, and imports no more.
                with suppress(StoreUnavailable, ImportError):
                    self._store.run(self._done(self._handled, held, idle=int(self._take_over * 1000) + 1))
                    self._handled = []

    def _go_on(self) -> None:
        """Be done with what was yielded last, and keep the rest; what is another's by now is dropped.

        Said at once by who takes their time; by who is quick together with more of it, at the latest when a new share
        is asked for, which says it by itself.
        """
        if self._in_hand is not None:
            self._handled.append(self._in_hand.cursor)
            self._in_hand = None
        now = time.monotonic()
        keep = [one.cursor for one in self._share] if now - self._kept_at > self._take_over / _KEPT else []
        soon = not self._handled or not self._share or now - self._said_at < _TOGETHER
        if soon and not keep:
            return
        _, kept = self._store.run(self._done(self._handled, keep))
        self._handled, self._said_at = [], now
        if keep:
            self._kept_at = time.monotonic()
            self._share = deque(one for one in self._share if one.cursor in kept)

    def _take(self) -> str | None:
        """Get a share; answers the cursor to wait at where there is nothing more, None where there may be."""
        for _ in range(_PORTIONS):
            cursor, rows, times = self._rows()
            if not rows:
                return cursor
            self._kept_at = time.monotonic()
            chosen = self._stream.select(rows, self._wanted, reveal=self._reveal)
            self._share = deque(
                Delivery(
                    **{field: getattr(one, field) for field in Event.__struct_fields__}, deliveries=times[one.cursor]
                )
                for one in chosen
            )
            there = {one.cursor for one in chosen}
            if unwanted := [one for one in times if one not in there]:
                self._store.run(self._done(unwanted, []))
            self._count = _SHARE if self._share else min(_MOST, 2 * self._count)
            if self._share:
                return None
        return None

    def _rows(self) -> tuple[str, list[Row], dict[str, int]]:
        now = time.monotonic()
        tidy = self._tidied_at is None or now - self._tidied_at > _TIDY
        arguments: list[str | float] = [
            self._group,
            self._consumer,
            self._count,
            int(self._take_over * 1000),
            "1" if tidy else "",
            _filters(self._wanted),
            *self._handled,
        ]
        verdict, *told = self._store.run(Call(script("events_take"), arguments, list))
        self._handled, self._said_at = [], now
        if verdict == b"NONE":
            raise NotFound("group", shown(self._group))
        if verdict == b"MISSED":
            raise CursorExpired(told[0].decode(), told[1].decode(), self._group)
        if verdict == b"OTHER":
            raise _other(self._group, told[0], self._wanted)
        self._tidied_at = now if tidy else self._tidied_at
        cursor, given_up, rows = told
        for one in given_up:
            log.warning(
                "group %s: event %s was handed out again and again, and is not kept any more", self._group, one.decode()
            )
        times = {entry.decode(): count for entry, _, count in rows}
        return cursor.decode(), [(entry, _fields(flat)) for entry, flat, _ in rows], times

    def _done(self, done: Sequence[str], others: Sequence[str], *, idle: int = 0) -> Call[tuple[int, set[str]]]:
        return _done(self._group, self._consumer, done, others, idle)


def begin(store: JobStore, group: str, at: str, wanted: Wanted | None) -> str | None:
    """Begin a group at a cursor; answers where it began, None where it was there.

    Where nothing is `wanted` it is moved there, for consumers of whatever filters. Raises `CursorExpired` where events
    that it is to get were trimmed away, and `InvalidRequest` where its consumers have other filters.
    """
    again = wanted is None
    filters = "" if wanted is None else _filters(wanted)
    told = store.run(Call(script("events_group"), [group, at, "1" if again else "", filters], list, durable=True))
    if told[0] == b"MISSED":
        raise CursorExpired(told[1].decode(), told[2].decode(), "" if again else group)
    if told[0] == b"OTHER" and wanted is not None:
        raise _other(group, told[1], wanted)
    return told[1].decode() if told[0] == b"MADE" else None


def acknowledge(store: JobStore, group: str, cursors: Iterable[str]) -> int:
    """Be done with events of a group, whoever has them; answers how many were somebody's."""
    count, _ = store.run(_done(group, "", [*cursors], [], 0))
    return count


def listed(store: JobStore) -> list[EventGroup]:
    """Return all groups by name."""
    told: list[list[Any]] = store.run(Call(script("events_groups"), [], list))
    return sorted((_group(one) for one in told), key=lambda one: one.name)


def delete(store: JobStore, group: str) -> bool:
    """Delete a group with all that it was not done with; answers whether it was there."""
    with store.errors():
        store.redis.hdel(_FILTERS, group)
        if not store.redis.exists(STREAM):
            return False
        return bool(store.redis.xgroup_destroy(STREAM, group))


def _group(told: Sequence[Any]) -> EventGroup:
    """Read what `lua/events_groups.lua` answers of a group."""
    name, cursor, unread, consumers, pending, first, held, stuck, missed = told
    oldest = min((int(one.split(b"-")[0]) for one in (first, held) if one), default=None)
    return EventGroup(
        name=name.decode(),
        cursor=cursor.decode(),
        unread=None if unread < 0 else unread,
        consumers=consumers,
        pending=pending,
        waiting_since=None if oldest is None else moment(oldest),
        stuck=stuck,
        expired=missed == b"1",
    )


def _filters(wanted: Wanted) -> str:
    """Return what a group's consumers ask for as one word, the same for the same, in whichever order it was said."""
    types = tuple(sorted({*wanted.types}))
    return msgspec.json.encode(msgspec.structs.replace(wanted, types=types)).decode()


def _other(group: str, told: bytes, wanted: Wanted) -> InvalidRequest:
    """Return the error for a consumer of other filters than those of its group."""
    theirs = msgspec.json.decode(told, type=Wanted)
    why = (
        f"is read for {theirs.words}, and cannot be read for {wanted.words} as well: each would be done with what the "
        "other is to get; use another name for this group, or stop those who read it and reset it "
        f"(reset_event_group, dispatcher events reset {group})"
    )
    return InvalidRequest("group", why, group)


def _done(
    group: str, consumer: str, done: Sequence[str], others: Sequence[str], idle: int
) -> Call[tuple[int, set[str]]]:
    arguments: list[bytes | str | float] = [group, consumer, idle, len(done), *done, *others]
    return Call(script("events_done"), arguments, lambda answer: (answer[0], {one.decode() for one in answer[1]}))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _own_name() -> str:
    """Return a name that nobody else has: this machine's, this process' and some chance."""
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:60].lstrip("._-") or "host"
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
