"""What follows a failure: pure. A decision is a value that says where the job goes; `workers.execute` writes it.

Only what surely did not happen is tried again by itself: at the next account of its route at once, at the last one
after a pause. What may have happened is `Unknown`, unless the operation is declared to bear repeating, or the caller
asked for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from dispatcher import quiet as hours
from dispatcher.errors import InvalidRequest
from dispatcher.jobs import Category, Lookup, OnUnknown, Send
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.states import State
from workers.providers.base import Repeat

if TYPE_CHECKING:
    from dispatcher.jobs import Work
    from dispatcher.settings import Settings

#: What an adapter declares of an operation, or "resend": once more, by the caller's recorded instruction.
Again: TypeAlias = Repeat | Literal["resend"]


class Bounds(msgspec.Struct, frozen=True):
    """What ends the tries at jobs of one category."""

    attempts: int
    #: After a job could first be sent.
    seconds: float


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


class Quiet(msgspec.Struct, frozen=True):
    """Wait `delay` seconds for the end of the quiet hours, for `why`; no attempt is spent."""

    delay: float
    why: str
    reason: str = "quiet_hours"


class Failover(msgspec.Struct, frozen=True):
    """Try it at `account`, the next one of its route, at once."""

    account: str
    #: Whether the attempt is: what the provider turned away unread is none.
    spent: bool = True
    delay: float = 0.0
    reason: str = "retry"
    state: State = State.QUEUED


class Expire(msgspec.Struct, frozen=True):
    """It is useless `delay` seconds from now, when it would be tried again: it comes back to the queue, and expires."""

    delay: float
    reason: str = "retry"
    state: State = State.QUEUED


class Unknown(msgspec.Struct, frozen=True):
    """It may have taken effect: nobody sends it again."""

    reason: str = ""
    delay: float = 0.0
    state: State = State.UNKNOWN


class GiveUp(msgspec.Struct, frozen=True):
    """It will not be tried again; `why`, where there were tries enough."""

    why: str = ""
    reason: str = ""
    delay: float = 0.0
    state: State = State.FAILED


Decision: TypeAlias = Retry | Wait | Failover | Expire | Unknown | GiveUp

#: Seconds before the second attempt at most, and the longest pause, by category: a code is useless in a minute, a
#: campaign has the day.
_PATIENCE: Final = {
    Category.OTP: (1.0, 15.0),
    Category.TRANSACTIONAL: (4.0, 300.0),
    Category.PROMOTIONAL: (30.0, 1800.0),
}

#: Seconds that a job waits at most for what its operator must mend; it is let go as soon as that is noticed.
SUSPENDED: Final = 600.0

#: Milliseconds from here to the provider at most, so that nothing comes there in the first of the quiet hours.
_SOON: Final = 5000
#: Seconds after which it is looked again whether anybody can tell what hour it is for somebody.
_ASK_AGAIN: Final = 3600.0

#: Seconds to hold back where a provider says "too fast" and not for how long.
_THROTTLED: Final = 5.0

_TEMPORARY: Final = frozenset({FailureKind.NOT_SENT, FailureKind.AMBIGUOUS})

#: What the operator of the account must mend.
_OF_THE_OPERATOR: Final = frozenset({FailureKind.UNAUTHORIZED, FailureKind.INSUFFICIENT_FUNDS})

#: What an adapter refuses because of its provider's own rules, before anything is asked: another may take it.
_OF_THE_ADAPTER: Final = frozenset({FailureKind.INVALID, FailureKind.UNSUPPORTED})


def again(job: Work, declared: Repeat) -> Again:
    """Return whether a job may be done again when nobody knows if it was done.

    What its adapter declares is what it bears; what it does not bear the caller may have asked for all the same.
    """
    return "resend" if declared == "never" and job.on_unknown == OnUnknown.RESEND else declared


def bounds(settings: Settings, category: Category) -> Bounds:
    """Return what the settings say of a category."""
    return Bounds(settings.attempts[category], settings.retried_for[category])


def following(job: Work) -> str:
    """Return the account after the one that has a job, on its route; "" for none."""
    rest = job.route[job.route.index(job.provider) + 1 :] if job.provider in job.route else ()
    return rest[0] if rest else ""


def elsewhere(job: Work) -> str:
    """Return the account that a job may go on to; "" for none: a lookup that may have been paid stays where it is."""
    return "" if job.doubtful and isinstance(job.request, Lookup) else following(job)


def decide(job: Work, failure: Failure, repeat: Again, most: Bounds, *, now: float, chance: float) -> Decision:
    """Return what to do about `failure`, the end of the attempt after `job.attempts` others.

    `now` is in milliseconds since 1970, on Redis' clock; `chance` a random number from 0 to 1, for the jitter.
    """
    attempt, after = job.attempts + 1, elsewhere(job)
    ambiguous = failure.kind == FailureKind.AMBIGUOUS
    decision: Decision
    if failure.kind in _OF_THE_OPERATOR:
        decision = Failover(after, spent=False) if after else Wait("suspended", SUSPENDED)
    elif failure.kind == FailureKind.THROTTLED:
        delay = failure.retry_after or _THROTTLED * (0.5 + chance / 2)
        decision = Failover(after, spent=False) if after and _too_long(job, delay, now) else Wait("limit", delay)
    elif failure.kind not in _TEMPORARY:
        return GiveUp()
    elif ambiguous and not _may_repeat(job, repeat):
        return Unknown()
    elif attempt >= most.attempts:
        return Unknown() if ambiguous else GiveUp(f"gives up after {attempt} attempt{'s' if attempt > 1 else ''}")
    elif after and (not ambiguous or repeat == "resend"):
        decision = Failover(after)
    else:
        decision = Retry(max(failure.retry_after or 0, backoff(job.category, attempt, chance)))
    return _in_time(decision, job, most, now, ambiguous=ambiguous)


def refused(job: Work, failure: Failure) -> Failover | GiveUp:
    """Return what to do about a job that its adapter refused before anything was asked."""
    after = following(job)
    return Failover(after, spent=False) if after and failure.kind in _OF_THE_ADAPTER else GiveUp()


def quiet(rules: tuple[hours.Rule, ...], job: Work, now: float) -> Quiet | None:
    """Return how long a text waits that may not go at this hour; None for any other job.

    `now` is in milliseconds since 1970, on Redis' clock.
    """
    if not isinstance(job.request, Send) or job.category not in hours.bound(rules):
        return None
    try:
        # Now, too: what goes in the last of the quiet hours may be there before they are over.
        asked = [
            hours.hours(rules, job.to, job.category, at=moment, tenant=job.tenant, timezone=job.timezone)
            for moment in (now, now + _SOON)
        ]
    except InvalidRequest as error:
        # It was enqueued under other rules: these may be mended, and guessing could wake somebody.
        return Quiet(_ASK_AGAIN, error.reason)
    told = max(asked, key=lambda one: one.until or 0)
    return None if told.until is None else Quiet((told.until - now) / 1000, told.words)


def held_back(job: Work, reason: str) -> str:
    """Return the account that a job goes on to rather than wait for `reason`, without an attempt; "" for none."""
    return elsewhere(job) if reason in {"breaker", "suspended"} else ""


def backoff(category: Category, attempt: int, chance: float) -> float:
    """Return the seconds after attempt number `attempt`: exponential with full jitter, never quite nought."""
    first, longest = _PATIENCE[category]
    return max(0.1, min(longest, first * 2.0 ** (attempt - 1)) * chance)


def _too_long(job: Work, delay: float, now: float) -> bool:
    """Say whether a pause is longer than a job bears that could go elsewhere: longer than its own first one may be."""
    return delay > _PATIENCE[job.category][0] or _expires(job, now + delay * 1000)


def _expires(job: Work, at: float) -> bool:
    return job.expires_at is not None and job.expires_at <= at


def _in_time(decision: Decision, job: Work, most: Bounds, now: float, *, ambiguous: bool) -> Decision:
    """Return a decision to try again, or the end where that would come too late; what waits for a mend comes then."""
    if isinstance(decision, Wait) and decision.reason == "suspended":
        return decision
    at = now + decision.delay * 1000
    if _expires(job, at):
        return Expire(decision.delay)
    seconds = _tried_for(job, most)
    if at > job.begins_at + seconds * 1000:
        return Unknown() if ambiguous else GiveUp(f"gives up: it is not tried again after {_duration(seconds)}")
    return decision


def _tried_for(job: Work, most: Bounds) -> float:
    """Return for how many seconds a job is tried again: a code for as long as it is of use, where that is known."""
    if job.category != Category.OTP:
        return most.seconds
    if job.code_ttl is not None:
        return job.code_ttl
    return most.seconds if job.expires_at is None else (job.expires_at - job.begins_at) / 1000


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


def _may_repeat(job: Work, repeat: Again) -> bool:
    # The caller's word is good for one more try, however many before it were surely not taken.
    return repeat == "always" or (repeat == "once" and not job.attempts) or (repeat == "resend" and not job.doubtful)
