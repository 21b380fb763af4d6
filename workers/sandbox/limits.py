"""How many requests the providers take: what one too many is told, and the counting that finds it.

At once is counted by provider, since what is documented of it is by the customer's address and all that comes here
comes from one. GETs are counted by account. What is refused is not counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from workers.sandbox.base import Limits, Provider

#: Seconds of the window that `gets_a_minute` speaks of, wherever it begins.
WINDOW: Final = 60.0


class Setting(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A change of limits, as the control API takes it; what it leaves out stays as it is."""

    enforced: bool | msgspec.UnsetType = msgspec.UNSET
    #: Whose limits the other two are.
    provider: str = ""
    #: None: any number.
    at_once: int | msgspec.UnsetType | None = msgspec.UNSET
    gets_a_minute: int | msgspec.UnsetType | None = msgspec.UNSET


class Limiter:
    """Counts the requests of each provider."""

    def __init__(self, providers: Iterable[Provider], now: Callable[[], float]) -> None:
        """Begin with the limits that the providers document, enforced; `now` is in seconds."""
        self._documented = {provider.name: provider.limits for provider in providers}
        self._now = now
        self._at_once: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Go back to what is documented and forget all GETs; what is being worked on goes on."""
        self._enforced = True
        self._limits = dict(self._documented)
        self._gets: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def change(self, setting: Setting) -> None:
        """Enforce limits or don't, and set those of one provider."""
        if setting.enforced is not msgspec.UNSET:
            self._enforced = setting.enforced
        if setting.provider:
            given = {"at_once": setting.at_once, "gets_a_minute": setting.gets_a_minute}
            changes = {name: limit for name, limit in given.items() if limit is not msgspec.UNSET}
            self._limits[setting.provider] = msgspec.structs.replace(self._limits[setting.provider], **changes)

    def refuses(self, provider: str, method: str, account: str) -> bool:
        """Say whether a request is one too many; a GET that is not is counted."""
        limits = self._limits[provider]
        if not self._enforced:
            return False
        if limits.at_once is not None and self._at_once[provider] >= limits.at_once:
            return True
        return method == "GET" and limits.gets_a_minute is not None and self._one_more(provider, account, limits)

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

    def told(self) -> dict[str, Any]:
        """Return the limits as the control API shows them."""
        return {
            "enforced": self._enforced,
            "providers": {
                name: {"at_once": limits.at_once, "gets_a_minute": limits.gets_a_minute}
                for name, limits in self._limits.items()
            },
        }
