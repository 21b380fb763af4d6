"""What a person's word and a provider's refusal lead to: the one text that answers, the entry on the opt-out list."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dispatcher import drafts
from dispatcher.answering import answer
from dispatcher.calls import Call, Calls
from dispatcher.errors import IdempotencyConflict, InvalidRequest
from dispatcher.jobs import Lane
from dispatcher.optouts import OptOuts, Said, Text
from dispatcher.outcomes import Failure, FailureKind, Outcome
from dispatcher.queues import queue_name
from dispatcher.store import Caller

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from workers.providers.base import Adapter, Inbound

log = logging.getLogger("dispatcher.worker")


def refusals(
    optouts: OptOuts, told: Iterable[tuple[Adapter, str, Outcome | None]], *, forgotten: bool = False
) -> Iterator[Call[Said]]:
    """Yield what puts those on the list who opted out at their provider: it told so of a text to that number.

    Of those who were `forgotten` since it was sent the hash alone comes there.
    """
    for adapter, number, outcome in told:
        if number and isinstance(outcome, Failure) and outcome.kind == FailureKind.OPTED_OUT:
            noted = outcome.code in adapter.not_their_word
            yield optouts.refused(number, adapter.account, noted=noted, forgotten=forgotten)


class Answers:
    """Sends the one text that answers a stop, a start or a call for help."""

    def __init__(self, settings: Settings, store: Caller, publish: Callable[[str, list[str]], Awaitable[None]]) -> None:
        """Write to `store`; `publish(queue, ids)` tells the workers of a queue, and never raises."""
        self._store = store
        self._publish = publish
        self._calls = Calls(settings)
        self._drafts = drafts.Drafts(settings)
        self._optouts = OptOuts(settings)

    async def send(self, adapter: Adapter, told: Inbound, text: Text, callback: str) -> None:
        """Answer a text that came with a callback, over the account it came by; again, it is the same job.

        Raises `StoreUnavailable`, `ConfigurationError`. What no text of ours may do, this may not: then nobody is
        answered, and the log says why.
        """
        account, sender = text.provider, adapter.answers_from(told)
        try:
            record = answer(self._drafts, self._optouts, text, ref=told.ref, callback=callback, sender=sender)
        except InvalidRequest as error:
            log.warning("a text that came by %s is not answered: %s", account, error)
            return
        if record is None:
            return
        try:
            created = await self._store.run(self._calls.create(account, high=True, batch="", records=[record]))
        except IdempotencyConflict:
            # It was answered before, in the words of then.
            return
        await self._publish(queue_name(account, Lane.HIGH), created.out)
