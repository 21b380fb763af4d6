"""Jobs that were enqueued together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, TypeAlias, overload

from dispatcher.errors import InvalidRequest, WaitTimeout
from dispatcher.jobs import Job
from dispatcher.states import FINAL, SETTLED, State
from dispatcher.store import MOST

Until: TypeAlias = Literal["settled", "final"]

#: Seconds between looks while waiting: quick at first, for codes; slower then, for campaigns.
_LOOKS = (0.02, 0.25)


class Reader(Protocol):
    """What reads jobs and counts: the dispatcher."""

    def get(self, id_: str) -> Job:
        """Return one job."""

    def get_many(self, ids: Sequence[str]) -> dict[str, Job]:
        """Return those that there are, by id."""

    def batch_counts(self, id_: str) -> dict[str, int]:
        """Return how many jobs of a batch are in each state."""

    def states(self, ids: Sequence[str]) -> list[State | None]:
        """Return the states of jobs."""


def ends(until: str) -> frozenset[State]:
    """Return the states that `until` means. Raises `InvalidRequest` for another word."""
    if until not in {"settled", "final"}:
        raise InvalidRequest("until", "must be settled or final", str(until)[:40])
    return SETTLED if until == "settled" else FINAL


def looks(timeout: float) -> Iterator[float]:
    """Yield how long to sleep before each next look, until `timeout` seconds have passed."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < timeout:
        yield min(_LOOKS[0] if passed < 1 else _LOOKS[1], timeout - passed)


class Batch:
    """Jobs that were enqueued together. Its counts add up to its size at every moment."""

    def __init__(self, reader: Reader, id_: str, ids: Sequence[str]) -> None:
        """`ids` are the jobs in the order of their messages."""
        self._reader = reader
        self.id = id_
        self.jobs = BatchJobs(reader, ids)

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Batch({self.id}, {len(self.jobs)} jobs)"

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs are in each state now, by state; zeroes are left out."""
        counts = self._reader.batch_counts(self.id)
        if sum(counts.values()) >= len(self.jobs):
            return counts
        # Some were made before, by the same idempotency keys: they count in the batch of then.
        return self._counted()

    def _counted(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for start in range(0, len(self.jobs), MOST):
            counts.update(state for state in self._reader.states(self.jobs.ids[start : start + MOST]) if state)
        return dict(counts)

    def wait(self, until: Until = "settled", timeout: float = 30) -> dict[str, int]:
        """Return the counts once all its jobs are settled, or final. Raises `WaitTimeout`."""
        reached = ends(until)
        for seconds in looks(timeout):
            counts = self.counts
            if all(state in reached for state in counts):
                return counts
            time.sleep(seconds)
        counts = self.counts
        busy = sum(count for state, count in counts.items() if state not in reached)
        raise WaitTimeout(f"batch {self.id}", f"still busy with {busy} jobs", until, timeout)


class BatchJobs(Sequence[Job]):
    """The jobs of a batch as they are when looked at: read from Redis a page at a time, never all in memory."""

    def __init__(self, reader: Reader, ids: Sequence[str]) -> None:
        """`ids` in order."""
        self._reader = reader
        self.ids = ids

    def __len__(self) -> int:
        """Return how many there are, without asking Redis."""
        return len(self.ids)

    @overload
    def __getitem__(self, position: int) -> Job: ...
    @overload
    def __getitem__(self, position: slice) -> BatchJobs: ...
    def __getitem__(self, position: int | slice) -> Job | BatchJobs:
        """Read one job now, or narrow the view."""
        if isinstance(position, slice):
            return BatchJobs(self._reader, self.ids[position])
        return self._reader.get(self.ids[position])

    def __iter__(self) -> Iterator[Job]:
        """Read the jobs in order."""
        for start in range(0, len(self.ids), MOST):
            page = self.ids[start : start + MOST]
            found = self._reader.get_many(page)
            yield from (found[one] for one in page if one in found)
