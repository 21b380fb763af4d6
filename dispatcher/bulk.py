"""Many jobs at once: written a portion at a time, each encoded while Redis writes the one before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from dispatcher.calls import MOST, MOST_MADE
from dispatcher.errors import IdempotencyConflict, StoreUnavailable
from dispatcher.jobs import Lane, new_id
from dispatcher.queues import queue_name

if TYPE_CHECKING:
    from dispatcher.calls import Call, Calls, Created
    from dispatcher.drafts import Draft, Drafts
    from dispatcher.store import JobStore

#: An account, and where in the list that was given the messages stand that are written together for it.
_Portion: TypeAlias = tuple[str, Sequence[int]]


class Bulk:
    """Writes the jobs of batches."""

    def __init__(self, store: JobStore, calls: Calls, drafts: Drafts) -> None:
        """Write to `store` what `drafts` encode."""
        self._store = store
        self._calls = calls
        self._drafts = drafts

    def write(
        self,
        lane: Lane,
        batch: str,
        fresh: Sequence[Draft],
        publish: Callable[[str, list[str]], None],
        *,
        callback: str,
        more: bool = False,
    ) -> tuple[list[str], list[str]]:
        """Write the jobs of a batch; return their ids in the order given, and those that there were before.

        `publish(queue, ids)` tells the workers of a queue of those that are new; it never raises. Unless `more` follow,
        the last portion closes the batch: it is written when all others are. Raises `IdempotencyConflict` naming the
        message, and `StoreUnavailable` naming the jobs that may have been stored.
        """
        portions = [*_portions(fresh)]
        ids, known, done = [""] * len(fresh), list[str](), 0

        def calls(portions: Iterable[_Portion], *, more: bool) -> Iterator[Call[Created]]:
            for account, places in portions:
                made = self._drafts.encode([fresh[place] for place in places])
                for place, record in zip(places, made, strict=True):
                    ids[place] = record.id
                high = lane == Lane.HIGH
                yield self._calls.create(account, high=high, batch=batch, records=made, more=more, callback=callback)

        try:
            with closing(self._store.run_each(calls(portions[:-1], more=True))) as others:
                for created in chain(others, map(self._store.run, calls(portions[-1:], more=more))):
                    account, places = portions[done]
                    done += 1
                    for place, id_ in zip(places, created.ids, strict=True):
                        if ids[place] != id_:
                            known.append(id_)
                            ids[place] = id_
                    publish(queue_name(account, lane), created.out)
        except IdempotencyConflict as conflict:
            raise conflict.at(f"messages[{portions[done][1][conflict.position]}]") from None
        except StoreUnavailable as error:
            error.job_ids = [id_ for id_ in ids if id_]
            raise
        return ids, known

    def strangers(self, batch: str, ids: Sequence[str]) -> list[str]:
        """Return those of the jobs, each once, that were made in another batch or in none."""
        unique = list(dict.fromkeys(ids))
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in unique:
                pipe.hget(f"d:j:{one}", "b")
            batches = pipe.execute() if unique else []
        return [one for one, other in zip(unique, batches, strict=True) if other != batch.encode()]

    def refuse_conflicts(self, fresh: Sequence[Draft]) -> None:
        """Look at all idempotency keys of a batch of several portions before the first one is written.

        Raises `IdempotencyConflict` naming the message.
        """
        keyed = [(position, one) for position, one in enumerate(fresh) if one.idempotency]
        if not keyed or len(fresh) <= MOST_MADE:
            return
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for start in range(0, len(keyed), MOST):
                pipe.mget([f"d:k:{one.idempotency}" for _, one in keyed[start : start + MOST]])
            known = [stored for page in pipe.execute() for stored in page]
        earlier: dict[str, str] = {}
        for (position, one), stored in zip(keyed, known, strict=True):
            made = tuple(stored.decode().split(" ")) if stored else None
            if made and made[1] != one.fingerprint and not self._is_kept(made[0]):
                # A key whose job is forgotten is free again.
                made = None
            first = made[1] if made else earlier.setdefault(one.idempotency, one.fingerprint)
            if first != one.fingerprint:
                raise IdempotencyConflict(made[0] if made else new_id(), position).at(f"messages[{position}]")

    def _is_kept(self, id_: str) -> bool:
        with self._store.errors():
            return bool(self._store.redis.exists(f"d:j:{id_}"))


def _portions(fresh: Sequence[Draft]) -> Iterator[_Portion]:
    """Yield what is written together: some of the next messages, those of one account."""
    for start in range(0, len(fresh), MOST_MADE):
        together = defaultdict[str, list[int]](list)
        for place in range(start, min(start + MOST_MADE, len(fresh))):
            together[fresh[place].route.accounts[0]].append(place)
        yield from together.items()
