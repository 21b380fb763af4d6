"""The way of a job: jobs -> requests -> permits -> claim -> send -> outcomes. Read this page first.

It knows neither Celery nor Redis nor HTTP: it is handed a store, a limiter, a transport and the accounts' adapters.
Everything that decides is pure and elsewhere: adapters build and parse, `policy` decides about failures, the state
table in the store's scripts allows or refuses each move.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dispatcher import records
from dispatcher.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from dispatcher.jobs import Work
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from dispatcher.settings import Settings
from dispatcher.states import State
from dispatcher.store import Advance, Call, Calls
from workers import policy
from workers.limits import GOOD_FOR, Later, Limiter
from workers.providers.base import Adapter, Group, Plan, Request, Response

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")

#: Seconds until another worker may have what this one cannot read or does not serve.
_ELSEWHERE: Final = 60.0


class Store(Protocol):
    """What makes the calls of `dispatcher.store`."""

    async def run(self, call: Call[T]) -> T:
        """Make one call."""


class Sender(Protocol):
    """What sends requests: `workers.transport`."""

    def slot(self) -> AbstractAsyncContextManager[object]:
        """Hold a free connection, so that nothing waits for one after it was claimed."""

    async def send(self, request: Request) -> Response | Failure:
        """Send it once."""


class Execution:
    """Executes the jobs of messages, many messages at a time, in one event loop."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        store: Store,
        limiter: Limiter,
        transport: Sender,
        *,
        publish: Callable[[str, list[str]], Awaitable[None]],
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Serve the accounts in `adapters`; `publish(queue, ids)` tells the workers of a queue to look at jobs."""
        self._settings = settings
        self._adapters = adapters
        self._store = store
        self._limiter = limiter
        self._transport = transport
        self._publish = publish
        self._chance = chance
        self._sleep = sleep
        self._calls = Calls(settings)
        self._sealer = settings.sealer()

    async def execute(self, ids: Sequence[str]) -> str:
        """Execute the jobs of one message; return a short word for whoever watches, such as "sent"."""
        jobs, words = await self._take(ids)
        plan = self._plan(jobs)
        words += await self._refuse(jobs, plan.refused)
        # None is cancelled for another's error: cancelling a send in the middle would make it unknown.
        ends = await asyncio.gather(*(self._request(group) for group in plan.groups), return_exceptions=True)
        errors = [end for end in ends if isinstance(end, BaseException)]
        if errors:
            await self._store.run(self._calls.release([job.id for job in jobs]))
            raise errors[0]
        return summary(words + [word for end in ends if isinstance(end, list) for word in end])

    async def _request(self, group: Group) -> list[str]:
        """Take one request along the road."""
        async with self._transport.slot():
            permit = await self._permit(group)
            if isinstance(permit, Later):
                return await self._park([job.id for job in group.jobs], permit.reason, permit.delay)
            token, claimed, words = await self._claim(group)
            if claimed is None:
                return words
            answer = await self._transport.send(claimed.request)
        outcomes = self._read(answer, claimed)
        return words + await self._write(claimed.jobs, token, outcomes)

    # -- the steps, in order -----------------------------------------------------------------------------------------

    async def _take(self, ids: Sequence[str]) -> tuple[list[Work], list[str]]:
        """Take the jobs into our hands; those that cannot be read are ended or left to others."""
        taken = await self._store.run(self._calls.take(ids))
        for id_, queue in taken.alone:
            await self._publish(queue, [id_])
        jobs: list[Work] = []
        words = [state for _, state in taken.idle] + ["queued"] * len(taken.alone)
        for raw in taken.records:
            try:
                jobs.append(records.work(raw, self._sealer))
            except ConfigurationError as error:
                log.error("%s", error)  # noqa: TRY400 - the setting is at fault, a traceback would not say more
                words += await self._park([raw[0].decode()], "suspended", _ELSEWHERE)
            except (msgspec.MsgspecError, InvalidRequest) as error:
                failure = _internal(f"its record cannot be read: {error.__class__.__name__}")
                words += await self._end_unsent(raw[0].decode(), failure)
        foreign = [job for job in jobs if job.provider not in self._adapters]
        for job in foreign:
            log.error("job %s is for %s, which this worker does not serve", job.id, job.provider)
            words += await self._park([job.id], "worker", _ELSEWHERE)
        return [job for job in jobs if job.provider in self._adapters], words

    def _plan(self, jobs: Sequence[Work]) -> Plan:
        """Let the adapters group the jobs into requests; a job that breaks its adapter breaks no other."""
        plans = []
        for provider in dict.fromkeys(job.provider for job in jobs):
            mine = [job for job in jobs if job.provider == provider]
            try:
                plans.append(self._adapters[provider].build(mine))
            except Exception:  # noqa: BLE001 - an adapter's bug must not take the whole message with it
                plans += [self._plan_alone(job) for job in mine]
        groups = tuple(group for plan in plans for group in plan.groups)
        return Plan(groups=groups, refused={id_: one for plan in plans for id_, one in plan.refused.items()})

    def _plan_alone(self, job: Work) -> Plan:
        try:
            return self._adapters[job.provider].build([job])
        except Exception as error:  # noqa: BLE001 - see _plan
            return Plan(refused={job.id: _internal(f"the adapter cannot build it: {error.__class__.__name__}")})

    async def _refuse(self, jobs: Iterable[Work], refused: Mapping[str, Failure]) -> list[str]:
        return [word for job in jobs if job.id in refused for word in await self._end_unsent(job.id, refused[job.id])]

    async def _permit(self, group: Group) -> Later | None:
        """Wait for a permit that is near; answer `Later` for one that is not."""
        while True:
            asked = time.monotonic()
            grant = await self._limiter.acquire(group.jobs[0].provider, group)
            if isinstance(grant, Later):
                return grant
            if grant.wait:
                await self._sleep(grant.wait)
            if time.monotonic() - asked <= grant.wait + GOOD_FOR:
                return None
            # The process slept through its slot: using it now would put two slots into one window.

    async def _claim(self, group: Group) -> tuple[str, Group | None, list[str]]:
        """Make the intent durable; what is not ours any more is left out of the request."""
        adapter = self._adapters[group.jobs[0].provider]
        wanted = [(job.id, adapter.repeat(job)) for job in group.jobs]
        token, states = await self._store.run(self._calls.claim(wanted))
        ours = [job for job, state in zip(group.jobs, states, strict=True) if state is None]
        words = [state for state in states if state is not None]
        if not ours or not words:
            return token, group if ours else None, words
        (rebuilt,) = adapter.build(ours).groups
        return token, rebuilt, words

    def _read(self, answer: Response | Failure, group: Group) -> dict[str, Outcome]:
        """Read the answer as an outcome for each job; one that the adapter cannot read may have been a success."""
        if isinstance(answer, Failure):
            return {job.id: answer for job in group.jobs}
        try:
            outcomes = self._adapters[group.jobs[0].provider].parse(answer, group)
        except Exception as error:  # noqa: BLE001 - an adapter's bug must not leave jobs without an outcome
            log.error("%s cannot read an answer: %s", group.jobs[0].provider, error.__class__.__name__)  # noqa: TRY400 - a traceback could show the answer
            outcomes = {}
        silent = Failure(kind=FailureKind.AMBIGUOUS, code="unread", message="the answer could not be read")
        return {job.id: outcomes.get(job.id, silent) for job in group.jobs}

    async def _write(self, jobs: Sequence[Work], token: str, outcomes: Mapping[str, Outcome]) -> list[str]:
        """Write what became of them in one call, however long Redis takes to come back."""
        moves = [self._move(job, token, outcomes[job.id]) for job in jobs]
        states = await self._persist(self._calls.advance(moves))
        for job in jobs:
            outcome = outcomes[job.id]
            if isinstance(outcome, Checked):
                await self._persist(self._calls.judged(_verification(job), outcome.status))
        return list(map(_word, moves, states))

    async def _persist(self, call: Call[T]) -> T:
        """Make a call that says what has happened already: give up only when nobody would believe it any more."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(StoreUnavailable),
            stop=stop_after_delay(10 * self._settings.lease),
            wait=wait_random_exponential(0.1, max=2),
            sleep=self._sleep,
            reraise=True,
        ):
            with attempt:
                answer = await self._store.run(call)
        return answer

    # -- outcomes as moves -------------------------------------------------------------------------------------------

    def _move(self, job: Work, token: str, outcome: Outcome) -> Advance:
        if isinstance(outcome, Failure):
            return self._failed(job, token, outcome)
        if isinstance(outcome, Accepted):
            return self._accepted(job, token, outcome)
        if isinstance(outcome, Checked):
            result: dict[str, Any] = {"valid": outcome.valid, "status": outcome.status}
            outcome = Found(result=result)
        return Advance(
            id=job.id,
            guard=token,
            state=State.COMPLETED,
            detail="answered",
            tried=f"found {records.line(outcome.ref)}",
            fields=_known(
                r=self._sealer.seal(msgspec.json.encode(outcome.result), job.id), m=outcome.ref, c=outcome.price
            ),
        )

    def _accepted(self, job: Work, token: str, outcome: Accepted) -> Advance:
        adapter = self._adapters[job.provider]
        receipt = "none" if adapter.capabilities.receipts == "none" else "expected"
        fields = _known(m=outcome.ref, c=outcome.price, y=receipt)
        if job.code_ttl is not None:
            fields["ve"] = job.code_ttl * 1000
        if outcome.code:
            fields["vh"] = self._settings.hashed("code", job.id, outcome.code)
        return Advance(
            id=job.id,
            guard=token,
            state=State.SENT,
            detail="accepted by the provider",
            tried=f"accepted {records.line(outcome.ref)}",
            fields=fields,
        )

    def _failed(self, job: Work, token: str, failure: Failure) -> Advance:
        repeat = self._adapters[job.provider].repeat(job)
        decision = policy.decide(job, failure, repeat, self._settings.max_attempts, self._chance())
        words = records.line(f"{failure.kind} {failure.code}: {failure.message}")
        fields: dict[str, bytes | str | int] = {"e": records.encode_failure(failure)}
        if isinstance(decision, policy.Retry):
            detail = f"{words}; attempt {job.attempts + 2} in {decision.delay:.1f} s"
            wait, delay, state = "retry", decision.delay, State.QUEUED
        elif isinstance(decision, policy.Wait):
            detail = f"{words}; waits {decision.delay:.1f} s, no attempt spent"
            wait, delay, state = decision.reason, decision.delay, State.QUEUED
            fields["a"] = job.attempts
        else:
            state = State.UNKNOWN if isinstance(decision, policy.Unknown) else State.FAILED
            detail, wait, delay = words, "", 0.0
        return Advance(
            id=job.id,
            guard=token,
            state=state,
            detail=detail,
            wait=wait,
            delay=delay,
            tried=f"{failure.kind} ",
            fields=fields,
        )

    async def _end_unsent(self, id_: str, failure: Failure) -> list[str]:
        """Fail a job that was never claimed."""
        detail = records.line(f"{failure.kind} {failure.code}: {failure.message}")
        move = Advance(
            id=id_, guard="=queued", state=State.FAILED, detail=detail, fields={"e": records.encode_failure(failure)}
        )
        states = await self._store.run(self._calls.advance([move]))
        return list(map(_word, [move], states))

    async def _park(self, ids: Iterable[str], reason: str, delay: float) -> list[str]:
        """Let jobs wait in Redis, not here; no attempt is spent."""
        detail = f"waits for {reason}"
        moves = [
            Advance(id=id_, guard="=queued", state=State.QUEUED, detail=detail, wait=reason, delay=delay) for id_ in ids
        ]
        states = await self._store.run(self._calls.advance(moves))
        return list(map(_word, moves, states))


def summary(words: Sequence[str]) -> str:
    """Return one job's word as it is, of several how often each: "98 sent, 2 failed:invalid"."""
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def _word(move: Advance, state: str) -> str:
    """Return the state as it is told, with the kind of failure or what is waited for; "stale" for a refused move."""
    if state == State.FAILED:
        return f"failed:{move.detail.partition(' ')[0]}"
    return f"queued:{move.wait}" if state == State.QUEUED else state or "stale"


def _known(**fields: bytes | str) -> dict[str, bytes | str | int]:
    return {name: value for name, value in fields.items() if value}


def _verification(job: Work) -> str:
    return str(getattr(job.request, "arguments", {}).get("verification", ""))


def _internal(message: str) -> Failure:
    return Failure(kind=FailureKind.INTERNAL, code="internal", message=message)
