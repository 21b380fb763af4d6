"""The moves of jobs that a worker writes: what an outcome, a refusal or a wait becomes in a job's record.

No I/O: `workers.execute` writes what is made here, and `word_of` says how that went.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from dispatcher import records
from dispatcher.calls import Advance
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from dispatcher.privacy import one_line
from dispatcher.states import State
from workers import policy
from workers.adapters import receipt_key

if TYPE_CHECKING:
    from dispatcher.jobs import Work
    from dispatcher.settings import Settings
    from workers.providers.base import Adapter

#: Seconds until a receipt is asked for, by how the provider tells: one that pushes them is given time to.
_FIRST_LOOK: Final = {"poll": 30.0, "push and poll": 300.0}

#: Why what may have been taken is tried again, where its adapter does not declare that harmless.
_RESENT: Final = "; it may have been taken, and is sent again as the caller asked"


# -- of what was not claimed, or not sent ------------------------------------------------------------------------------


def refused(id_: str, failure: Failure) -> Advance:
    """Return the end of a job that was never claimed."""
    fields = {"e": records.encode_failure(failure)}
    return Advance(id=id_, guard="=queued", state=State.FAILED, detail=in_words(failure), fields=fields)


def parked(id_: str, reason: str, delay: float, detail: str = "", *, lined: bool = False) -> Advance:
    """Return the wait of a job for `reason`, for `delay` seconds or in its line; no attempt is spent."""
    detail = detail or f"waits for {reason}"
    return Advance(id=id_, guard="=queued", state=State.QUEUED, detail=detail, wait=reason, delay=delay, lined=lined)


def moved_on(job: Work, account: str, why: str) -> Advance:
    """Return the way of a job that was not claimed to another account; no attempt is spent."""
    detail = f"moves to {account}: {why}"
    return Advance(
        id=job.id,
        guard="=queued",
        state=State.QUEUED,
        detail=detail,
        wait="retry",
        account=job.provider,
        goal=account,
    )


def unclaimed(job: Work, token: str) -> Advance:
    """Return the way back of a job that was claimed, or may have been, and surely not sent; no attempt is spent."""
    detail, fields = "claimed, but not sent", {"a": job.attempts}
    return Advance(id=job.id, guard=token, state=State.QUEUED, detail=detail, wait="retry", fields=fields)


def recalled(id_: str, result: bytes, detail: str) -> Advance:
    """Return the end of a lookup that was answered without asking; `result` is sealed."""
    return Advance(id=id_, guard="=queued", state=State.COMPLETED, detail=detail, fields={"r": result})


# -- of what was sent --------------------------------------------------------------------------------------------------


class Moves:
    """Turns what became of requests into moves, as the settings and the adapters say."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        now: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """`now` tells milliseconds since 1970 on Redis' clock, `chance` random numbers from 0 to 1."""
        self._settings = settings
        self._adapters = adapters
        self._sealer = settings.sealer()
        self._now = now
        self._chance = chance

    def of(self, job: Work, token: str, outcome: Outcome) -> Advance:
        """Return what `outcome` means for a job that was claimed under `token`."""
        if isinstance(outcome, Failure):
            return self._failed(job, token, outcome)
        if isinstance(outcome, Accepted):
            return self._accepted(job, token, outcome)
        if isinstance(outcome, Checked):
            outcome = Found(result=outcome.result)
        result = self._sealer.seal(msgspec.json.encode(outcome.result), job.id)
        return Advance(
            id=job.id,
            guard=token,
            state=State.COMPLETED,
            detail="answered",
            account=job.provider,
            tried=f"found {one_line(outcome.ref)}",
            fields=_known(r=result, m=outcome.ref, c=outcome.price),
        )

    def _accepted(self, job: Work, token: str, outcome: Accepted) -> Advance:
        adapter = self._adapters[job.provider]
        receipts = adapter.capabilities.receipts
        code_hash = self._settings.hashed("code", job.id, outcome.code) if outcome.code else ""
        receipt = "none" if receipts == "none" else "expected"
        return Advance(
            id=job.id,
            guard=token,
            state=State.SENT,
            detail="accepted by the provider",
            account=job.provider,
            watched=job.failover_after or 0 if receipts != "none" and policy.following(job) else 0,
            tried=f"accepted {one_line(outcome.ref)}",
            code_ttl=job.code_ttl,
            receipt="" if receipts == "none" else receipt_key(self._settings, adapter, outcome.ref, job.to),
            look=_FIRST_LOOK.get(receipts, 0.0),
            fields=_known(m=outcome.ref, c=outcome.price, y=receipt, vh=code_hash),
        )

    def _failed(self, job: Work, token: str, failure: Failure) -> Advance:
        repeat = policy.again(job, self._adapters[job.provider].repeat(job))
        most = policy.bounds(self._settings, job.category)
        decision = policy.decide(job, failure, repeat, most, now=self._now(), chance=self._chance())
        onward = decision if isinstance(decision, policy.Failover) else None
        ambiguous = failure.kind == FailureKind.AMBIGUOUS
        fields: dict[str, bytes | str | int] = {"e": records.encode_failure(failure)}
        if isinstance(decision, policy.Wait) or (onward and not onward.spent):
            fields["a"] = job.attempts
        if ambiguous:
            fields["i"] = 1
        return Advance(
            id=job.id,
            guard=token,
            state=decision.state,
            detail=_follows(decision, job, in_words(failure), resent=ambiguous and repeat == "resend"),
            wait=decision.reason,
            delay=decision.delay,
            account=job.provider,
            goal=onward.account if onward else "",
            tried=f"{failure.kind} ",
            fields=fields,
        )


def _follows(decision: policy.Decision, job: Work, failed: str, *, resent: bool) -> str:
    """Return a line of a job's history: what failed, and what follows."""
    match decision:
        case policy.Failover(account=account):
            return f"moves to {account}: {failed}{_RESENT if resent else ''}"
        case policy.Retry(delay=delay):
            return failed + (_RESENT if resent else f"; attempt {job.attempts + 2} in {delay:.1f} s")
        case policy.Expire(delay=delay):
            return f"{failed}; it could be tried again in {delay:.1f} s"
        case policy.Wait(reason=reason, delay=delay):
            waits = "until that is mended" if reason == "suspended" else f"{delay:.1f} s"
            return f"{failed}; waits {waits}, no attempt spent"
        case policy.GiveUp(why=why) if why:
            return f"{failed}; {why}"
        case _:
            return failed


# -- in words ----------------------------------------------------------------------------------------------------------


def word_of(move: Advance, state: str) -> str:
    """Return the state as it is told, with the kind of failure or what is waited for; "stale" for a refused move."""
    if state == State.FAILED:
        return f"failed:{move.detail.partition(' ')[0]}"
    return f"queued:{move.goal or move.wait}" if state == State.QUEUED else state or "stale"


def in_words(failure: Failure) -> str:
    """Return a failure in words for a line of a history."""
    return records.line(failure.words)


def _known(**fields: bytes | str) -> dict[str, bytes | str | int]:
    return {name: value for name, value in fields.items() if value}
