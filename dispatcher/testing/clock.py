"""A clock that stands until a test moves it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

#: Packages whose modules go by the clock: ours, and the Redis within this process.
_OURS: Final = ("dispatcher", "fakeredis")


class Clock:
    """The moment that the scripts and every `Dispatcher` of this process go by.

    It begins at the real one, or where it is told, and stands. What waits for an answer (`wait`, `events`) does so in
    real time.
    """

    def __init__(self, at: datetime | float | None, moved: Callable[[float], None]) -> None:
        """`moved(until)` does what was due before that moment, in seconds since 1970, and may move the clock there."""
        self._ms = _milliseconds(time.time() if at is None else at)
        self._moved = moved

    def __repr__(self) -> str:
        """Show the moment."""
        return f"Clock({self.now().isoformat()})"

    def now(self) -> datetime:
        """Return the moment."""
        return datetime.fromtimestamp(self.seconds, UTC)

    @property
    def seconds(self) -> float:
        """The moment in seconds since 1970."""
        return self._ms / 1000

    def advance(self, by: float | timedelta) -> None:
        """Move on by so many seconds: codes expire, quiet hours end, what was to be sent later is due."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        self.set(self.seconds + seconds)

    def set(self, at: datetime | float) -> None:
        """Move on to a moment, an aware datetime or seconds since 1970. Raises `ValueError` where that is over."""
        until = _milliseconds(at)
        if until < self._ms:
            raise ValueError(f"the clock only goes on: it is {self.now().isoformat()} already")
        self._moved(until / 1000)

    def move(self, at: float) -> None:
        """Move on without doing what was due; for `FakeProviders`, which does it."""
        self._ms = max(self._ms, _milliseconds(at))


class _Time:
    """What the modules have for the module `time`: its moment is the clock's, all else the real one's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ids = count()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return self._clock.seconds

    def time_ns(self) -> int:
        # Ids sort by the millisecond they are made in: though the clock stands, those of later calls come later.
        return (round(self._clock.seconds * 1000) + next(self._ids)) * 1_000_000


@contextmanager
def ruling(clock: Clock) -> Iterator[None]:
    """Let our modules and every Redis of fakeredis in this process go by `clock`."""
    stands: Any = _Time(clock)
    before = [
        (vars(module), vars(module)["time"])
        for name, module in [*sys.modules.items()]
        # Within another one's reign it is that one's.
        if name.partition(".")[0] in _OURS and (vars(module).get("time") is time or _rules(module))
    ]
    before = [(names, was) for names, was in before if names["__name__"] != __name__]
    for names, _ in before:
        names["time"] = stands
    try:
        yield
    finally:
        for names, was in before:
            names["time"] = was


def _rules(module: Any) -> bool:
    return isinstance(vars(module).get("time"), _Time)


def _milliseconds(at: datetime | float) -> int:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("has no time zone; give an aware datetime, e.g. datetime(2027, 1, 4, 12, tzinfo=UTC)")
        at = at.timestamp()
    return round(at * 1000)
