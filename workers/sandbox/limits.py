"""How many requests the providers take: what one too many is told, and the counting that finds it.

At once is counted by provider, since what is documented of it is by the customer's address and all that comes here
comes from one. All else is counted by account, at the moment a request arrives. What is refused is not counted.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from workers.sandbox.base import Limits, Provider

#: Seconds of the window that `gets_a_minute` speaks of, wherever it begins.
WINDOW: Final = 60.0


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit in a window of time, or a mere count."""

    #: "all", a verb such as "get", or a kind of the ledger's rows such as "send": those count one for each number.
    counts: str
    #: None: nothing is refused.
    most: int | None = None
    seconds: float = WINDOW
    #: The windows begin when the clock is a multiple of `seconds`, as some vendors count; else wherever one looks.
    fixed: bool = False


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one window of an account has seen."""

    provider: str
    account: str
    counts: str
    most: int | None
    seconds: float
    #: How many were counted, and how many refused.
    taken: int
    refused: int
    #: The most there were in any window that begins where one likes, and in any that begins by the clock.
    sliding: int
    fixed: int


class Limited(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a provider as they are now."""

    at_once: int | None
    gets_a_minute: int | None
    late: float
    windows: Sequence[Window]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """All limits, and what their windows have seen."""

    enforced: bool
    providers: dict[str, Limited]
    counted: list[Counted]


class Setting(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A change of limits, as the control API takes it; what it leaves out stays as it is."""

    enforced: bool | msgspec.UnsetType = msgspec.UNSET
    #: Whose limits the others are.
    provider: str = ""
    #: None: any number.
    at_once: int | msgspec.UnsetType | None = msgspec.UNSET
    gets_a_minute: int | msgspec.UnsetType | None = msgspec.UNSET
    #: Seconds that a request takes to get here, at most: each another time, so that they overtake each other.
    late: float | msgspec.UnsetType = msgspec.UNSET
    #: These in place of those before, whose counts are forgotten.
    windows: list[Window] | msgspec.UnsetType = msgspec.UNSET


class _Counter:
    """Counts what comes in one window of one account."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._came: deque[tuple[float, int]] = deque()
        self._within = 0
        #: The number of the window by the clock, and what came in it.
        self._by_clock = (0, 0)
        self.taken = self.refused = self.sliding = self.fixed = 0

    def cost(self, method: str, kinds: Sequence[str]) -> int:
        """Return what a request draws, by its verb and the kinds of its rows."""
        counts = self._window.counts
        return 1 if counts in {"all", method.lower()} else kinds.count(counts)

    def takes(self, cost: int, now: float) -> bool:
        """Say whether so many more are within the limit; count them as refused where not."""
        while self._came and self._came[0][0] <= now - self._window.seconds:
            self._within -= self._came.popleft()[1]
        number = int(now // self._window.seconds)
        if self._by_clock[0] != number:
            self._by_clock = (number, 0)
        most = self._window.most
        there = self._by_clock[1] if self._window.fixed else self._within
        takes = most is None or not cost or there + cost <= most
        if not takes:
            self.refused += cost
        return takes

    def count(self, cost: int, now: float) -> None:
        """Count what was taken."""
        self._came.append((now, cost))
        self._within += cost
        self._by_clock = (self._by_clock[0], self._by_clock[1] + cost)
        self.taken += cost
        self.sliding = max(self.sliding, self._within)
        self.fixed = max(self.fixed, self._by_clock[1])

    def told(self, provider: str, account: str) -> Counted:
        """Return what it has seen."""
        return Counted(
            provider=provider,
            account=account,
            counts=self._window.counts,
            most=self._window.most,
            seconds=self._window.seconds,
            taken=self.taken,
            refused=self.refused,
            sliding=self.sliding,
            fixed=self.fixed,
        )


class Limiter:
    """Counts the requests of each provider."""

    def __init__(self, providers: Iterable[Provider], now: Callable[[], float]) -> None:
        """Begin with the limits that the providers document, enforced; `now` is in seconds."""
        self._documented = {provider.name: provider.limits for provider in providers}
        self._now = now
        self._at_once: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Go back to what is documented and forget all counts; what is being worked on goes on."""
        self._enforced = True
        self._limits = dict(self._documented)
        self._late: dict[str, float] = {}
        self._windows: dict[str, list[Window]] = {}
        self._gets: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._counters: dict[tuple[str, str], list[_Counter]] = {}

    def change(self, setting: Setting) -> None:
        """Enforce limits or don't, and set those of one provider."""
        if setting.enforced is not msgspec.UNSET:
            self._enforced = setting.enforced
        if setting.provider:
            given = {"at_once": setting.at_once, "gets_a_minute": setting.gets_a_minute}
            changes = {name: limit for name, limit in given.items() if limit is not msgspec.UNSET}
            self._limits[setting.provider] = msgspec.structs.replace(self._limits[setting.provider], **changes)
            if setting.late is not msgspec.UNSET:
                self._late[setting.provider] = setting.late
            if setting.windows is not msgspec.UNSET:
                self._windows[setting.provider] = setting.windows
                self._counters = {key: one for key, one in self._counters.items() if key[0] != setting.provider}

    def late(self, provider: str) -> float:
        """Return after how many seconds a request that is sent now arrives."""
        most = self._late.get(provider)
        return random.uniform(0, most) if most else 0.0  # noqa: S311 - a delay, no secret

    def refuses(self, provider: str, method: str, account: str, kinds: Sequence[str] = ()) -> bool:
        """Say whether a request is one too many; what is not is counted. `kinds` are those of its rows."""
        limits = self._limits[provider]
        if not self._enforced:
            return False
        if limits.at_once is not None and self._at_once[provider] >= limits.at_once:
            return True
        now = self._now()
        drawn = [(one, one.cost(method, kinds)) for one in self._of(provider, account)]
        # All are asked, so that each counts what it refused.
        if False in [one.takes(cost, now) for one, cost in drawn]:
            return True
        if method == "GET" and limits.gets_a_minute is not None and self._one_more(provider, account, limits):
            return True
        for one, cost in drawn:
            one.count(cost, now)
        return False

    def _of(self, provider: str, account: str) -> list[_Counter]:
        windows = self._windows.get(provider)
        if not windows:
            return []
        key = (provider, account)
        if key not in self._counters:
            self._counters[key] = [_Counter(one) for one in windows]
        return self._counters[key]

    def _one_more(self, provider: str, account: str, limits: Limits) -> bool:
        gets, now = self._gets[provider, account], self._now()
        while gets and gets[0] <= now - WINDOW:
            gets.popleft()
        if len(gets) >= (limits.gets_a_minute or 0):
            return True
        gets.append(now)
        return False

    def begin(self, provider: str) -> Callable[[], None] | None:
        """Count a request as being worked on until what is returned is called; None where there is nothing to count."""
        if not self._enforced or self._limits[provider].at_once is None:
            return None
        self._at_once[provider] += 1
        return lambda: self._end(provider)

    def _end(self, provider: str) -> None:
        self._at_once[provider] -= 1

    def told(self) -> Told:
        """Return the limits as the control API shows them."""
        return Told(
            enforced=self._enforced,
            providers={
                name: Limited(
                    at_once=limits.at_once,
                    gets_a_minute=limits.gets_a_minute,
                    late=self._late.get(name, 0.0),
                    windows=self._windows.get(name, []),
                )
                for name, limits in self._limits.items()
            },
            counted=[one.told(*key) for key, ones in self._counters.items() for one in ones],
        )
