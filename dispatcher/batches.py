"""Jobs that were enqueued together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, overload

import msgspec

from dispatcher import checks
from dispatcher.calls import MOST, BatchState
from dispatcher.errors import InvalidRequest, WaitTimeout
from dispatcher.jobs import SCHEMA, Job
from dispatcher.privacy import shown
from dispatcher.states import FINAL, SETTLED, State

T = TypeVar("T")

Until: TypeAlias = Literal["settled", "final"]

#: What is done in short steps: it yields the seconds to sleep before the next one, and returns what came of it.
Steps: TypeAlias = Generator[float, None, T]

#: Seconds between looks while waiting: quick at first, for codes; slower then, for campaigns.
_LOOKS = (0.02, 0.25)


class Reader(Protocol):
    """What reads and takes back: the dispatcher."""

    def get(self, id_: str) -> Job:
        """Return one job."""

    def get_many(self, ids: Sequence[str]) -> dict[str, Job]:
        """Return those that there are, by id."""

    def batch_state(self, id_: str) -> BatchState:
        """Return where a batch stands."""

    def cancel_batch(self, batch_id: str) -> dict[str, int]:
        """Take back what is queued of a batch."""

    def states(self, ids: Sequence[str]) -> list[State | None]:
        """Return the states of jobs."""

    def redrive_many(self, *, batch: str, resend: bool, dry_run: bool, batch_id: str | None) -> Redriven:
        """Enqueue again what ended badly."""


class Refused(msgspec.Struct, frozen=True):
    """A job that was not redriven, and why not."""

    id: str
    reason: str


class Redriven(msgspec.Struct):
    """What came of redriving many jobs, or, of a dry run, what would come of it."""

    #: The batch that the new jobs form; None where there are none.
    batch_id: str | None = None
    dry_run: bool = False
    #: Jobs made now, and these by the state that the old ones were in and the kind of their failure ("" for none).
    redriven: int = 0
    counts: dict[str, dict[str, int]] = {}
    #: Jobs that were redriven before: their new jobs are there already.
    known: int = 0
    #: Jobs that were not, and the first thousand of them with the reason.
    refused: int = 0
    refusals: list[Refused] = []

    @property
    def good(self) -> bool:
        """Whether all that was wanted was redriven."""
        return not self.refused

    def to_dict(self) -> dict[str, Any]:
        """Return its document."""
        document: dict[str, Any] = {"schema": SCHEMA, **msgspec.to_builtins(self)}
        return document


def ends(until: str) -> frozenset[State]:
    """Return the states that `until` means. Raises `InvalidRequest` for another word."""
    if not isinstance(until, str) or until not in {"settled", "final"}:
        raise InvalidRequest("until", "must be settled or final", shown(until))
    return SETTLED if until == "settled" else FINAL


def looks(timeout: float) -> Iterator[float]:
    """Yield how long to sleep before each next look, until `timeout` seconds have passed."""
    checks.timeout("timeout", timeout)
    started = time.monotonic()
    while (passed := time.monotonic() - started) < timeout:
        yield min(_LOOKS[0] if passed < 1 else _LOOKS[1], timeout - passed)


def in_turn(steps: Steps[T], sleep: Callable[[float], object]) -> T:
    """Take one step after the other, and return what came of them."""
    while True:
        try:
            seconds = next(steps)
        except StopIteration as end:
            answer: T = end.value
            return answer
        sleep(seconds)


def in_words(document: Mapping[str, Any]) -> str:
    """Return a batch's document in one line: how many jobs it has, how they stand, whether more may follow."""
    size, counts = document["size"], document["counts"]
    words = f"{size} job{'' if size == 1 else 's'}"
    if counts:
        words += ": " + ", ".join(f"{count} {state}" for state, count in counts.items())
    return words + ("; takes no more" if document["cancelled"] else "; more may follow" if document["open"] else "")


class Batch:
    """Jobs that were enqueued together. Its counts add up to its size at every moment.

    `jobs` are what the messages of one `send_many` became, in their order, or all jobs that `Dispatcher.batch` found;
    everything else is about the whole batch as it is when asked.
    """

    def __init__(
        self, reader: Reader, id_: str, ids: Sequence[str], created: int = 0, strangers: Sequence[str] = ()
    ) -> None:
        """`ids` are the jobs; `created` is how many of them this very call made; `strangers` are in other batches."""
        self._reader = reader
        self.id = id_
        self._strangers = strangers
        self.jobs = BatchJobs(reader, ids)
        #: How many jobs this call made; the others were there before, by their idempotency keys.
        self.created = created

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Batch({self.id}, {len(self.jobs)} jobs)"

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs are in each state now, by state; zeroes are left out."""
        return self._state().counts

    @property
    def settled(self) -> bool:
        """Whether no job of it is busy now, and no more messages are to follow."""
        return self._state().settled

    def to_dict(self) -> dict[str, Any]:
        """Return its document as it is now: schema, id, size, counts, settled, open, cancelled."""
        return self._state().to_dict(self.id)

    def wait(self, until: Until = "settled", timeout: float = 30) -> dict[str, int]:
        """Return the counts once it is closed and all its jobs are settled, or final. Raises `WaitTimeout`."""
        return in_turn(self.waiting(until, timeout), time.sleep)

    def waiting(self, until: Until = "settled", timeout: float = 30) -> Steps[dict[str, int]]:
        """Wait as `wait` does, whoever sleeps between the steps."""
        reached = ends(until)
        for seconds in looks(timeout):
            state = self._state()
            if not state.open and not state.watched and all(one in reached for one in state.counts):
                return state.counts
            yield seconds
        state = self._state()
        busy = sum(count for one, count in state.counts.items() if one not in reached) + state.watched * (
            State.SENT in reached
        )
        jobs = f"{busy} job{'' if busy == 1 else 's'}"
        words = f"still busy with {jobs}" if busy else "still open: send its last messages or close_batch()"
        raise WaitTimeout(f"batch {self.id}", words, until, timeout)

    def cancel(self) -> dict[str, int]:
        """Take back what is still queued, refuse what comes later, and return the counts afterwards.

        What is being sent goes on, and is not tried again. A job of which an earlier try may have been taken ends
        `unknown`. Raises `NotFound` where all of its jobs were made before, in another batch or in none.
        """
        self._reader.cancel_batch(self.id)
        return self.counts

    def redrive(self, *, resend: bool = False, dry_run: bool = False, batch_id: str | None = None) -> Redriven:
        """Enqueue its jobs again that failed, expired or are undelivered, as a new batch; its own counts stay.

        What is `unknown` is left alone unless `resend` says that being sent twice is better than not at all;
        `Dispatcher.redrive_many` tells the rest.
        """
        return self._reader.redrive_many(batch=self.id, resend=resend, dry_run=dry_run, batch_id=batch_id)

    def _state(self) -> BatchState:
        state = self._reader.batch_state(self.id)
        if not self._strangers:
            return state
        # Made before by the same idempotency keys, they count in the batch of then, and here.
        counts = Counter(state.counts)
        for start in range(0, len(self._strangers), MOST):
            counts.update(one for one in self._reader.states(self._strangers[start : start + MOST]) if one)
        return msgspec.structs.replace(state, counts=dict(counts))


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
            page = list(self.ids[start : start + MOST])
            found = self._reader.get_many(page)
            yield from (found[one] for one in page if one in found)
