"""Permits: how many requests a provider may be sent, over all workers.

A permit is asked for before a request is claimed. What is not granted is parked with a time, without spending an
attempt or a worker's slot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from workers.providers.base import Group

#: Seconds after its moment that a permit is still good for.
GOOD_FOR: Final = 1.0


class Permit(msgspec.Struct, frozen=True):
    """The request may go out `wait` seconds from now, and within a second of that."""

    wait: float = 0.0


class Later(msgspec.Struct, frozen=True):
    """Not now: the jobs wait `delay` seconds for `reason` ("limit", "breaker", "suspended")."""

    delay: float
    reason: str = "limit"


Grant: TypeAlias = Permit | Later


class Limiter(Protocol):
    """Grants permits."""

    async def acquire(self, account: str, group: Group) -> Grant:
        """Return a permit for this request, or when to ask again."""


class Unlimited:
    """Grants everything at once: for accounts without limits."""

    async def acquire(self, account: str, group: Group) -> Grant:
        """Return a permit for now."""
        del account, group
        return Permit()
