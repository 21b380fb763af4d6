"""What lookups found before, and who asks now: so that a number costs one request, however many ask for it.

Each adapter's reading of its vendor's answer becomes the one `dispatcher.lookups.Result` here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from dispatcher import lookups
from dispatcher.errors import StoreUnavailable
from dispatcher.jobs import Lane, Lookup, Work
from dispatcher.lookups import Facts, Result
from dispatcher.memory import Ask, LookupCalls, Recalled
from dispatcher.outcomes import Found, Outcome
from workers.gathered import Gathered

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from dispatcher.store import Caller
    from workers.providers.base import Adapter, Group

log = logging.getLogger("dispatcher.worker")

#: Jobs that one call is about at most.
_TOGETHER: Final = 100


class Memory:
    """The memory of lookups, for all accounts of a worker."""

    def __init__(self, settings: Settings, adapters: Mapping[str, Adapter], store: Caller) -> None:
        """Remember in `store`, for as long as the settings say."""
        self._adapters = adapters
        self._store = store
        self._calls = LookupCalls(settings)
        #: By whether it is the high lane, which waits for no call of the other's.
        self._asks = {high: Gathered(self._together, _TOGETHER, size=lambda _: 1) for high in (False, True)}

    def knows(self, group: Group) -> bool:
        """Say whether what a request asks for may be known already: it is one lookup, as every adapter makes them."""
        return self._calls.remembers and len(group.jobs) == 1 and isinstance(group.jobs[0].request, Lookup)

    async def recall(self, token: str, job: Work) -> Recalled:
        """Say whether a taken lookup is answered, waits for another that asks, or asks itself, from a moment on."""
        fresh = isinstance(job.request, Lookup) and job.request.fresh
        return await self._asks[job.lane == Lane.HIGH].ask(Ask(token, job.id, self._calls.hashed(job.to), fresh))

    async def found(
        self, jobs: Sequence[Work], outcomes: Mapping[str, Outcome], now: Callable[[], float]
    ) -> dict[str, Outcome]:
        """Return the outcomes with what lookups found in its one shape, and remember it.

        `now` tells the moment, in milliseconds since 1970, for those that nobody waits for.
        """
        told = {**outcomes}
        for job in jobs:
            outcome = outcomes[job.id]
            if job.operation == "lookup" and isinstance(outcome, Found):
                asked_at = job.asked_at or round(now())
                result = self._result(job, outcome, asked_at)
                told[job.id] = msgspec.structs.replace(outcome, result=msgspec.to_builtins(result))
                if job.asked_at and self._calls.remembers:
                    # Without it the next one asks anew; it is no reason to keep this one from its end.
                    with suppress(StoreUnavailable):
                        await self._store.run(
                            self._calls.remember(job.id, self._calls.hashed(job.to), asked_at, result)
                        )
        return told

    def _result(self, job: Work, outcome: Found, asked_at: int) -> Result:
        facts = Facts()
        try:
            facts = self._adapters[job.provider].number_facts(outcome.result, job.to)
        except Exception as error:  # noqa: BLE001 - an adapter's bug must not lose an answer that was paid
            log.error("%s cannot read what it found: %s", job.provider, error.__class__.__name__)  # noqa: TRY400 - a traceback could show the answer
        return lookups.result(job.to, facts, outcome.result, job.provider, asked_at)

    async def _together(self, asks: Sequence[Ask]) -> list[Recalled]:
        return await self._store.run(self._calls.recall(asks))
