"""What texts use up of budgets, and what lately had no room for them: so that these take no permit from others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from dispatcher import budgets, phone
from dispatcher.budgets import Spending
from dispatcher.jobs import Category

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from workers.providers.base import Group

#: Seconds that it is remembered what had no room, and that it is asked for before a permit is.
_FULL_FOR: Final = 60.0


class Spendings:
    """What the texts of a process use up. It decides nothing: the script that claims them does."""

    def __init__(self, settings: Settings, accounts: Iterable[str], clock: Callable[[], float]) -> None:
        """Know the prices of `accounts`, and the rules; `clock` tells seconds."""
        self._rules = settings.rules
        self._clock = clock
        #: What a segment costs, by account, as a claim has it.
        self._prices = {name: f"{told[0]} {told[1]}" for name in accounts if (told := _price(settings, name))}
        self._spending = lru_cache(maxsize=1024)(self._spends)
        #: Counters and countries that lately had no room, and until when that is remembered.
        self._full: dict[str, float] = {}

    def of(self, group: Group) -> dict[str, Spending]:
        """Return what the texts of a request use up, by job."""
        return {
            job.id: self._spending(
                job.provider, job.tenant, job.country or phone.country(job.to), job.category, job.segments or 1
            )
            for job in group.jobs
            if job.text
        }

    def may_lack_room(self, group: Group) -> bool:
        """Say whether a text of a request is about what lately had no room."""
        if not self._full:
            return False
        now = self._clock()
        return any(self._full.get(name, now) > now for one in self.of(group).values() for name in _names(one))

    def refused(self, spendings: Iterable[Spending]) -> None:
        """Remember for a while what a claim had no room for."""
        now = self._clock()
        refused = {name: now + _FULL_FOR for one in spendings for name in _names(one)}
        if refused:
            self._full = {name: until for name, until in self._full.items() if until > now} | refused

    def _spends(self, provider: str, tenant: str, country: str, category: Category, segments: int) -> Spending:
        facts = budgets.Facts(tenant=tenant, country=country, category=category, provider=provider)
        return Spending(
            country=country,
            segments=segments,
            each=self._prices.get(provider, ""),
            counters=budgets.applying(self._rules, facts),
        )


def _names(one: Spending) -> tuple[str, ...]:
    return one.country, *one.counters


def _price(settings: Settings, account: str) -> budgets.Money | None:
    told = settings.account(account).get("price")
    return budgets.money(told) if told else None
