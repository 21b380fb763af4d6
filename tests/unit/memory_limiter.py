"""The limiter without Redis: the same for one process, which tests hold to the same properties as the real one."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from dispatcher.limits import Ask, BreakerRules, Ended, Granted, Limits, Refused
from workers.limits import Grant, Later, Permit, Permits

if TYPE_CHECKING:
    from dispatcher.outcomes import Outcome
    from dispatcher.settings import Settings
    from workers.providers.base import Adapter, Group

#: As in `lua/limits.lua`, in microseconds.
_SECOND: Final = 1_000_000
_AGAIN: Final = _SECOND // 4
_LEAST_PART: Final = 1 / 16
_GROWTH: Final = 1 / 8
_EVERY: Final = 10 * _SECOND
_LEAST_USED: Final = 10.0
_STALE: Final = 60 * _SECOND
_LONGEST_PAUSE: Final = 60 * _SECOND
_SOONEST: Final = 1000


class _Drawn(msgspec.Struct, frozen=True):
    """What a request would draw from a bucket: when that is as if nothing had been drawn, and the earliest moment."""

    name: str
    at: float
    takes: float
    earliest: float
    further: float


class _Book(msgspec.Struct):
    """What is known of an account's limits, as in `d:lm:<account>`."""

    limits: Limits
    at: int = 0
    tats: dict[str, int] = {}
    leases: dict[str, int] = {}
    wanted_until: int = 0
    used: Counter[int] = msgspec.field(default_factory=Counter)
    penalty_until: int = 0
    part: float = 1.0
    used_before: float | None = None
    state: Literal["closed", "open", "half_open"] = "closed"
    until: int = 0
    pause: int = 0
    ring: str = ""
    last: int = 0
    probe: str = ""
    probe_until: int = 0

    def shift(self, now: int) -> None:
        """Take all moments along with a clock that went back."""
        back = max(0, self.at - now)
        self.at = now
        if back:
            self.tats = {name: at - back for name, at in self.tats.items()}
            self.leases = {id_: ends - back for id_, ends in self.leases.items()}
            self.wanted_until -= back
            self.penalty_until -= back
            self.until -= back
            self.last -= back
            self.probe_until -= back

    def rate_left(self) -> float:
        grown = math.floor(max(0, self.at - self.penalty_until) / _EVERY) * _GROWTH
        return min(1.0, self.part + grown)

    def bucket(self, name: str, *, high: bool) -> tuple[float, int, int] | None:
        """Return the microseconds between two that are drawn, how many at once, and of these in this lane."""
        limit, left = self.limits.buckets.get(name.partition(":")[0]), self.rate_left()
        if limit is not None:
            return limit.interval / left, limit.at_once, limit.at_once if high else limit.at_once_normal
        if name == "all" and self.used_before is not None and left < 1:
            return _SECOND / (self.used_before * left), 1, 1
        return None

    def drawn(self, ask: Ask) -> Iterator[_Drawn]:
        for name, amount in ask.draws.items():
            bucket = self.bucket(name, high=ask.high)
            if bucket is not None:
                interval, most, mine = bucket
                at = self.tats.get(name, 0)
                further = max(0, amount - most) * interval
                ready = max(at, self.at, self.penalty_until) - max(0, mine - amount) * interval
                yield _Drawn(name, at, amount * interval, at + further if further else ready, further)


class MemoryLimiter(Permits):
    """The same for one process: without Redis, and with a clock that a test may hold."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Serve the accounts in `adapters`; `clock` tells microseconds."""
        super().__init__(settings, adapters)
        self._clock = clock
        self._hold = round((settings.deadline + 2) * _SECOND)
        self._rules = BreakerRules(
            sample=settings.breaker_sample,
            share=settings.breaker_share,
            timeouts=settings.breaker_timeouts,
            pause=settings.breaker_pause,
        )
        self._books = {name: _Book(known.limits) for name, known in self._accounts.items()}

    async def acquire(self, account: str, group: Group) -> Grant:
        """Return a permit for this request, or when to ask again."""
        if self._in_vain(group):
            return Later(0)
        ask = self._ask(account, group)
        (answer,) = self.permit(account, [ask])
        return self._grant(account, group, ask, answer)

    def learn(self, account: str, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> None:
        """Take in how a request ended. Never raises."""
        told = self._ended(permit, outcomes, seconds)
        if told is not None and account in self._books:
            self.ended(account, [told[1]])

    def permit(self, account: str, asks: Sequence[Ask]) -> list[Granted | Refused]:
        """Do what `permit.lua` does."""
        book, now = self._books[account], self._clock()
        book.shift(now)
        book.leases = {id_: ends for id_, ends in book.leases.items() if ends > now}
        if book.state == "open" and book.until <= now:
            book.state = "half_open"
        if book.rate_left() >= 1:
            book.part, book.used_before = 1.0, None
        return [self._asked(book, now, ask) for ask in asks]

    def ended(self, account: str, ends: Iterable[Ended]) -> None:
        """Do what `learn.lua` does."""
        book, now = self._books[account], self._clock()
        book.shift(now)
        for end in ends:
            book.leases.pop(end.id, None)
            probe = book.probe == end.id
            if probe:
                book.probe = ""
            if end.throttled is not None:
                self._throttled(book, now, end, end.throttled)
            if end.letters:
                self._told(book, now, end.letters, probe=probe)

    def breaker(self, account: str) -> str:
        """Return "closed", "open" or "half_open"."""
        return self._books[account].state

    def _asked(self, book: _Book, now: int, ask: Ask) -> Granted | Refused:
        wait, probe = self._kept(book, now, ask)
        if wait is not None:
            return Refused(delay=max(_SOONEST, wait), reason="breaker")
        if self._full(book, now, high=ask.high):
            return Refused(delay=_AGAIN)
        drawn = list(book.drawn(ask))
        gate, far = max(now, book.penalty_until), now + ask.ahead + max((one.further for one in drawn), default=0)
        slot = math.ceil(max([gate, *(one.earliest for one in drawn)]))
        if slot > far:
            shared = max([gate, *(one.earliest for one in drawn if not one.name.startswith("sender:"))])
            return Refused(delay=max(_SOONEST, math.floor(slot - far)), own=shared <= far)
        for one in drawn:
            book.tats[one.name] = math.ceil(max(one.at, slot) + one.takes)
        book.used[slot // _SECOND] += 1
        if book.limits.concurrency is not None:
            book.leases[ask.id] = slot + self._hold
            if ask.high:
                book.wanted_until = 0
        if probe:
            book.probe, book.probe_until = ask.id, slot + self._hold
        return Granted(wait=slot - now, moment=slot, probe=probe)

    def _kept(self, book: _Book, now: int, ask: Ask) -> tuple[int | None, bool]:
        if book.state == "open":
            return book.until - now, False
        if book.state == "closed" or (ask.what == "before" and ask.jobs == 1):
            return None, False
        if book.probe not in {"", ask.id} and book.probe_until > now:
            return min(_AGAIN, book.probe_until - now), False
        return (_AGAIN, False) if ask.what != "job" or ask.jobs > 1 else (None, True)

    def _full(self, book: _Book, now: int, *, high: bool) -> bool:
        most = book.limits.concurrency
        if most is None or len(book.leases) + (not high and book.wanted_until > now) < most:
            return False
        if high:
            book.wanted_until = now + 2 * _AGAIN
        return True

    def _throttled(self, book: _Book, now: int, end: Ended, wait: int) -> None:
        if end.moment >= book.penalty_until:
            book.part = max(_LEAST_PART, book.rate_left() / 2)
            if not end.limited and book.used_before is None:
                second = now // _SECOND
                lately = [book.used[one] for one in range(second - 10, second + 1) if book.used[one]]
                book.used_before = max(_LEAST_USED, sum(lately) / max(1, len(lately)))
            book.penalty_until = now + wait
        book.penalty_until = max(book.penalty_until, now + wait)

    def _told(self, book: _Book, now: int, letters: str, *, probe: bool) -> None:
        rules = self._rules
        if book.state != "closed":
            if probe and book.state == "half_open" and set(letters) & set("et"):
                self._open(book, now, min(_LONGEST_PAUSE, 2 * book.pause))
            elif probe and book.state == "half_open" and "o" in letters:
                book.state, book.ring, book.last = "closed", "", 0
            return
        known = book.ring if book.last > now - _STALE else ""
        book.ring, book.last = (known + letters)[-rules.sample :], now
        errors, timeouts, of = book.ring.count("e"), book.ring.count("t"), len(book.ring)
        if of >= rules.sample and (errors + timeouts >= rules.share * of or timeouts >= rules.timeouts * of):
            self._open(book, now, round(rules.pause * _SECOND))

    def _open(self, book: _Book, now: int, pause: int) -> None:
        book.state, book.pause, book.until = "open", pause, now + pause
