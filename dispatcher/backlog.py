"""Which jobs of an account wait, by lane and tenant: in lines for their turn, with the workers, or for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher.jobs import Lane
from dispatcher.queues import queue_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatcher.store import JobStore

#: Tenants of a queue, and batches of a tenant, whose lines are counted; those whose turn is next.
MOST: Final = 100


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one account that wait in one lane."""

    provider: str
    lane: Lane
    #: Handed to workers and not begun yet.
    handed_out: int = 0
    #: For a time, a retry, or a limit of their sender's or address' own.
    timed: int = 0
    #: For their turn, by tenant ("" for jobs of nobody's), the next one first.
    lines: dict[str, int] = {}
    #: Whether further tenants or batches wait beside the first hundred.
    more: bool = False

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return sum(self.lines.values())


def read(store: JobStore, providers: Iterable[str]) -> list[LaneState]:
    """Return the lanes of these accounts, the high one first. Raises `StoreUnavailable`."""
    return [_lane(store, provider, lane) for provider in providers for lane in (Lane.HIGH, Lane.NORMAL)]


def _lane(store: JobStore, provider: str, lane: Lane) -> LaneState:
    queue = queue_name(provider, lane)
    with store.errors():
        with store.redis.pipeline(transaction=False) as pipe:
            pipe.zcard(f"d:o:{queue}")
            pipe.zcard(f"d:w:{queue}")
            pipe.zrange(f"d:qt:{queue}", 0, MOST)
            handed_out, timed, tenants = pipe.execute()
        with store.redis.pipeline(transaction=False) as pipe:
            for tenant in tenants[:MOST]:
                pipe.zrange(f"d:qb:{queue}:{tenant.decode()}", 0, MOST)
            batches: list[list[bytes]] = pipe.execute()
        lines: list[tuple[str, str]] = [
            (tenant.decode(), batch.decode())
            for tenant, some in zip(tenants, batches, strict=False)
            for batch in some[:MOST]
        ]
        with store.redis.pipeline(transaction=False) as pipe:
            for tenant, batch in lines:
                pipe.zcard(f"d:q:{queue}:{batch}:{tenant}")
            counts: list[Any] = pipe.execute()
    waiting: dict[str, int] = {}
    for (tenant, _), count in zip(lines, counts, strict=True):
        if count:
            waiting[tenant] = waiting.get(tenant, 0) + count
    more = len(tenants) > MOST or any(len(some) > MOST for some in batches)
    return LaneState(provider=provider, lane=lane, handed_out=handed_out, timed=timed, lines=waiting, more=more)
