"""What follows a failure: pure. A decision is a value that says where the job goes; `workers.execute` writes it.

Only what surely did not happen is tried again by itself. What may have happened is `Unknown`, unless the operation is
declared to bear repeating, or the caller asked for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from dispatcher.jobs import Category, OnUnknown
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.states import State
from workers.providers.base import Repeat

if TYPE_CHECKING:
    from dispatcher.jobs import Work

#: What an adapter declares of an operation, or "resend": once more, by the caller's recorded instruction.
Again: TypeAlias = Repeat | Literal["resend"]


class Retry(msgspec.Struct, frozen=True):
    """Try again after `delay` seconds; the attempt is spent."""

    delay: float
    reason: str = "retry"
    state: State = State.QUEUED


class Wait(msgspec.Struct, frozen=True):
    """Wait `delay` seconds for `reason`; no attempt is spent."""

    reason: str
    delay: float
    state: State = State.QUEUED


class Unknown(msgspec.Struct, frozen=True):
    """It may have taken effect: nobody sends it again."""

    reason: str = ""
    delay: float = 0.0
    state: State = State.UNKNOWN


class GiveUp(msgspec.Struct, frozen=True):
    """It will not be tried again."""

    reason: str = ""
    delay: float = 0.0
    state: State = State.FAILED


Decision: TypeAlias = Retry | Wait | Unknown | GiveUp

#: Seconds before the second attempt at most, and the longest pause, by category: a code is useless in a minute, a
#: campaign has the day.
_PATIENCE: Final = {
    Category.OTP: (1.0, 15.0),
    Category.TRANSACTIONAL: (4.0, 300.0),
    Category.PROMOTIONAL: (30.0, 1800.0),
}

#: Seconds that a job waits at most for what its operator must mend; it is let go as soon as that is noticed.
SUSPENDED: Final = 600.0

#: Seconds to hold back where a provider says "too fast" and not for how long.
_THROTTLED: Final = 5.0

_TEMPORARY: Final = frozenset({FailureKind.NOT_SENT, FailureKind.AMBIGUOUS})


def again(job: Work, declared: Repeat) -> Again:
    """Return whether a job may be done again when nobody knows if it was done.

    What its adapter declares is what it bears; what it does not bear the caller may have asked for all the same.
    """
    return "resend" if declared == "never" and job.on_unknown == OnUnknown.RESEND else declared


def decide(job: Work, failure: Failure, repeat: Again, max_attempts: int, chance: float) -> Decision:
    """Return what to do about `failure`, the end of the attempt after `job.attempts` others.

    `chance` is a random number from 0 to 1, for the jitter.
    """
    attempt = job.attempts + 1
    if failure.kind in {FailureKind.UNAUTHORIZED, FailureKind.INSUFFICIENT_FUNDS}:
        return Wait("suspended", SUSPENDED)
    if failure.kind == FailureKind.THROTTLED:
        return Wait("limit", failure.retry_after or _THROTTLED * (0.5 + chance / 2))
    if failure.kind not in _TEMPORARY:
        return GiveUp()
    if failure.kind == FailureKind.AMBIGUOUS and not _may_repeat(job, repeat):
        return Unknown()
    if attempt >= max_attempts:
        return Unknown() if failure.kind == FailureKind.AMBIGUOUS else GiveUp()
    return Retry(max(failure.retry_after or 0, backoff(job.category, attempt, chance)))


def backoff(category: Category, attempt: int, chance: float) -> float:
    """Return the seconds after attempt number `attempt`: exponential with full jitter, never quite nought."""
    first, longest = _PATIENCE[category]
    return max(0.1, min(longest, first * 2.0 ** (attempt - 1)) * chance)


def _may_repeat(job: Work, repeat: Again) -> bool:
    # The caller's word is good for one more try, however many before it were surely not taken.
    return repeat == "always" or (repeat == "once" and not job.attempts) or (repeat == "resend" and not job.doubtful)
