"""Suspensions in a worker: what an account cannot do until its operator mends it, shared by all workers.

`Suspensions` is what a process knows: it learns from each outcome, tells Redis, and reads there what others learnt.
`Probes` finds out whether it is mended: by the balance call, or by letting one waiting job through; one worker of all
makes each look. What decides is pure (`passed`, `verdict`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from dispatcher import records
from dispatcher.calls import Calls
from dispatcher.errors import StoreUnavailable
from dispatcher.jobs import Kind, Operation, Work, moment, new_id
from dispatcher.outcomes import Failure, FailureKind, Found, Outcome
from dispatcher.queues import both_queues
from dispatcher.store import Caller
from dispatcher.suspensions import ACCOUNT, FUNDS, OPERATION, Suspension, scope_of
from workers import loops
from workers.providers.base import Adapter, Group

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")

#: Seconds that requests wait for the end of the first one that shows whether the credentials are right: a slow
#: provider must not hold one-time codes up.
PATIENCE: Final = 1.0

#: Seconds after which what a process knows is read again before a request, should nobody do so in the background.
_STALE: Final = 2.0

#: Seconds until another look where no job waits that could be let through.
_NOBODY_WAITS: Final = 5.0

_BALANCE: Final = "balance"

#: What a provider answers only to those it knows.
_KNOWN_TO_IT: Final = frozenset({FailureKind.REJECTED, FailureKind.OPTED_OUT, FailureKind.INSUFFICIENT_FUNDS})

Verdict: TypeAlias = Literal["lift", "stay", "try a job"]


def passed(scope: str, outcome: Outcome) -> bool:
    """Say whether `outcome` shows that what suspended `scope` is mended.

    What decides nothing, such as a timeout or a number that is none, does not.
    """
    if not isinstance(outcome, Failure):
        return True
    if scope == FUNDS:
        return False
    return outcome.kind in _KNOWN_TO_IT or (scope == ACCOUNT and outcome.permission)


def verdict(one: Suspension, outcome: Outcome) -> Verdict:
    """Judge a suspension of an account, or of its funds, by the answer to the balance call.

    That something is left does not say that it is enough: money that came since the last look lifts, money that was
    there before lets one job find out.
    """
    if one.scope == ACCOUNT:
        return "lift" if passed(ACCOUNT, outcome) else "stay"
    if isinstance(outcome, Failure):
        # Whoever may not ask for the balance has to try.
        return "try a job" if outcome.permission or outcome.kind == FailureKind.UNSUPPORTED else "stay"
    now, before = spendable(outcome), _decimal(one.left)
    if now is None:
        return "try a job"
    if now <= 0:
        return "stay"
    return "lift" if before is not None and now > before else "try a job"


def spendable(outcome: Outcome) -> Decimal | None:
    """Return what the answer to a balance call says can be spent; None where it does not say."""
    result = outcome.result if isinstance(outcome, Found) else {}
    amounts = (_decimal(result.get(field)) for field in ("available", _BALANCE))
    return next((one for one in amounts if one is not None), None)


class _Trial(msgspec.Struct):
    """A request that shows whether the credentials are right."""

    began: float
    ended: asyncio.Event


class Test(msgspec.Struct):
    """A job that is let through, and what became of it."""

    scope: str
    outcome: Outcome | None = None

    @property
    def passed(self) -> bool:
        """Whether it shows that all is mended."""
        return self.outcome is not None and passed(self.scope, self.outcome)


class Suspensions:
    """What a process knows of the suspensions of the accounts it serves."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        store: Caller,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know those of the accounts in `adapters`; `clock` tells seconds."""
        self._adapters = adapters
        self._store = store
        self._sleep = sleep
        self._clock = clock
        self._calls = Calls(settings)
        self._accounts = list(adapters)
        self._every = settings.probe_every
        self._stale = max(_STALE, 4 * settings.tick)
        #: By account and scope: as Redis told it, and what it was not told of yet.
        self._known: dict[tuple[str, str], Suspension] = {}
        self._unsaved: dict[tuple[str, str], Suspension] = {}
        #: Grows with each change that is made here: what was read meanwhile is older.
        self._changes = 0
        self._read: float | None = None
        self._reading = asyncio.Lock()
        #: Accounts whose credentials were accepted since this process started, or since their suspension began.
        self._proven: set[str] = set()
        self._trials: dict[str, _Trial] = {}
        self._tests: dict[str, Test] = {}
        #: Milliseconds that our clock is behind Redis', and until when no further job is kept for a test, by scope.
        self._behind = 0.0
        self._kept: dict[tuple[str, str], float] = {}

    # -- what is known -----------------------------------------------------------------------------------------------

    def held(self, group: Group) -> Suspension | None:
        """Return what holds this request back, None where nothing does."""
        for one in self._known.values():
            if any(self._is_held(job, one) for job in group.jobs):
                return one
        return None

    def known(self) -> list[Suspension]:
        """Return all of them."""
        return [*self._known.values()]

    def is_suspended(self, account: str) -> bool:
        """Say whether nothing of `account` goes out."""
        return (account, ACCOUNT) in self._known

    def wants_a_job(self, group: Group) -> bool:
        """Say whether one job has to wait for what holds this request back, though it could go elsewhere.

        Where only a job can show that it is mended, and it is soon time to look, none might wait that could: once
        answered so, not again for a while.
        """
        one, now = self.held(group), self._clock()
        if one is None or one.scope == FUNDS or (one.scope == ACCOUNT and self.tells_balance(one.provider)):
            return False
        key = one.provider, one.scope
        soon = one.probe_at <= moment(self._behind + (now + _NOBODY_WAITS) * 1000)
        if not soon or self._kept.get(key, now) > now:
            return False
        self._kept[key] = now + 2 * _NOBODY_WAITS
        return True

    def tells_balance(self, account: str) -> bool:
        """Say whether the balance call shows whether an account works."""
        refused = any((one.provider, one.scope) == (account, f"{OPERATION}{_BALANCE}") for one in self._known.values())
        return _BALANCE in self._adapters[account].operations and not refused

    def learn(self, job: Work, outcome: Outcome) -> None:
        """Take in what became of a request of `job`; `save` tells Redis."""
        if job.id in self._tests:
            self._tests[job.id].outcome = outcome
        if passed(ACCOUNT, outcome) and not self.is_suspended(job.provider):
            self._proven.add(job.provider)
        scope = scope_of(job.operation, outcome)
        if scope is None or not isinstance(outcome, Failure):
            return
        if scope == ACCOUNT:
            self._proven.discard(job.provider)
        key = job.provider, scope
        known = self._known.get(key)
        if known is None or not known.holds(job.operation):
            self._known[key] = self._unsaved[key] = self._begun(job, scope, outcome, known)
            self._changes += 1

    async def fresh(self) -> None:
        """Read what is suspended unless that was done just now. Redis away: go on with what is known."""
        if self._is_fresh():
            return
        async with self._reading:
            if self._is_fresh():
                return
            try:
                await self.refresh()
            except StoreUnavailable:
                self._read = self._clock()

    def _is_fresh(self) -> bool:
        return self._read is not None and self._clock() - self._read < self._stale

    async def refresh(self) -> int:
        """Read what is suspended; return the moment, in ms since 1970 on Redis' clock. Raises `StoreUnavailable`."""
        await self._tell()
        before = self._changes
        now, told = await self._store.run(self._calls.suspended(self._accounts))
        self._read = self._clock()
        self._behind = now - self._read * 1000
        if before == self._changes:
            found = {(one.provider, one.scope): one for one in told}
            self._proven -= {account for account, scope in found.keys() - self._known.keys() if scope == ACCOUNT}
            self._known = found | self._unsaved
        return now

    async def save(self) -> None:
        """Tell Redis what was learnt; what cannot be told now is told with the next `refresh`."""
        try:
            await self._tell()
        except StoreUnavailable:
            log.warning("Redis is away, and other workers do not know yet what is suspended")

    async def lift(self, one: Suspension) -> None:
        """Lift a suspension and let the jobs go on that wait for it. Raises `StoreUnavailable`."""
        key = one.provider, one.scope
        lifted = await self._store.run(self._calls.resume(one.provider, [one.scope]))
        self._known.pop(key, None)
        self._unsaved.pop(key, None)
        self._changes += 1
        if lifted:
            log.warning("%s works again (%s), and the jobs that waited for it go on", one.provider, one.scope)
        for queue in both_queues(one.provider):
            cursor, _ = await self._store.run(self._calls.free(queue, "0", one.operations))
            while cursor != "0":
                cursor, _ = await self._store.run(self._calls.free(queue, cursor, one.operations))

    async def _tell(self) -> None:
        for key, one in [*self._unsaved.items()]:
            failure = Failure(kind=one.kind, code=one.code, message=one.message)
            new, told = await self._store.run(self._calls.suspend(one.provider, one.scope, failure, one.operations))
            self._changes += 1
            if self._unsaved.get(key) is one:
                del self._unsaved[key]
                self._known[key] = told
            if new:
                log.error("%s is suspended (%s): %s; %s", one.provider, one.scope, told.words, told.way_out)

    def _begun(self, job: Work, scope: str, failure: Failure, known: Suspension | None) -> Suspension:
        """Return a suspension as it is known here, before Redis says when it began."""
        now = datetime.now(UTC)
        told = known or Suspension(
            provider=job.provider,
            scope=scope,
            since=now,
            probe_at=now + timedelta(seconds=self._every),
            kind=failure.kind,
            code=records.line(failure.code),
            message=records.line(failure.message),
        )
        return msgspec.structs.replace(told, operations=self._operations(job, scope, told.operations))

    def _operations(self, job: Work, scope: str, before: tuple[str, ...]) -> tuple[str, ...]:
        """Return the operations that wait for `scope`: none stands for all."""
        if scope == ACCOUNT:
            return ()
        if scope != FUNDS:
            return (job.operation,)
        declared = self._adapters[job.provider].operations
        # What is refused for want of money does cost, whether it is declared so or not.
        return tuple(sorted({name for name, one in declared.items() if one.paid} | {job.operation, *before}))

    def _is_held(self, job: Work, one: Suspension) -> bool:
        test = self._tests.get(job.id)
        return one.provider == job.provider and one.holds(job.operation) and not (test and test.scope == one.scope)

    # -- one request at a time, until the credentials are known to be right --------------------------------------------

    def trial(self, account: str) -> AbstractAsyncContextManager[None]:
        """Be the one request of `account` that shows whether its credentials are right, or wait for its end.

        One wrong password is then one request, however many are ready. Nobody waits once the credentials are known to
        be right, or where the first request takes longer than `PATIENCE`.
        """
        return nullcontext() if account in self._proven else self._trial(account)

    @asynccontextmanager
    async def _trial(self, account: str) -> AsyncIterator[None]:
        await self._first(account)
        mine = None
        if account not in self._proven and account not in self._trials:
            mine = self._trials[account] = _Trial(self._clock(), asyncio.Event())
        try:
            yield
        finally:
            if mine is not None:
                del self._trials[account]
                mine.ended.set()

    async def _first(self, account: str) -> None:
        """Return once the first request ended, or need not be waited for."""
        until = self._clock() + PATIENCE
        while trial := self._trials.get(account):
            left = min(until, trial.began + PATIENCE) - self._clock()
            if account in self._proven or self.is_suspended(account) or left <= 0:
                return
            waiting = [asyncio.ensure_future(one) for one in (trial.ended.wait(), self._sleep(left))]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for one in waiting:
                    one.cancel()
            if not trial.ended.is_set():
                return

    # -- what is let through -----------------------------------------------------------------------------------------

    @contextmanager
    def test(self, id_: str, scope: str) -> Iterator[Test]:
        """Let one job through meanwhile, though `scope` is suspended."""
        test = self._tests[id_] = Test(scope)
        try:
            yield test
        finally:
            del self._tests[id_]


class Probes:
    """Looks whether what is suspended is mended, in the background."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        store: Caller,
        suspensions: Suspensions,
        *,
        ask: Callable[[Work], Awaitable[Outcome | None]],
        execute: Callable[[list[str], str], Awaitable[str]],
    ) -> None:
        """Look after the accounts in `adapters`.

        `ask` makes the request of a read that is nobody's job, and answers None where the limiter has no permit for it;
        `execute(ids, queue)` brings jobs to an end.
        """
        self._adapters = adapters
        self._store = store
        self._suspensions = suspensions
        self._ask = ask
        self._execute = execute
        self._calls = Calls(settings)
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        #: Those of them that have a job of somebody in hand.
        self._trying: set[tuple[str, str]] = set()

    async def look(self) -> None:
        """Read what is suspended, and begin the looks whose time has come. Raises `StoreUnavailable`."""
        now = moment(await self._suspensions.refresh())
        for one in self._suspensions.known():
            key = one.provider, one.scope
            # An account whose credentials are refused is not told its balance either.
            waits = one.scope != ACCOUNT and self._suspensions.is_suspended(one.provider)
            if one.probe_at > now or waits or key in self._running:
                continue
            if await self._store.run(self._calls.probe(one.provider, one.scope)):
                task = self._running[key] = asyncio.create_task(self._probe(one))
                task.add_done_callback(lambda _, key=key: self._running.pop(key, None))  # type: ignore[misc]  # mypy does not infer a lambda with a default

    async def close(self) -> None:
        """End what runs; a job on the wire is brought to its end."""
        trying = [task for key, task in self._running.items() if key in self._trying]
        reading = [task for key, task in self._running.items() if key not in self._trying]
        await loops.end(*reading)
        await asyncio.gather(*trying)

    async def _probe(self, one: Suspension) -> None:
        try:
            await self._find_out(one)
        except StoreUnavailable as error:
            log.warning("%s", error)
        except Exception as error:  # noqa: BLE001 - the next look may go better
            log.error("looking after %s stumbled: %s", one.provider, error.__class__.__name__)  # noqa: TRY400 - a traceback could show values

    async def _find_out(self, one: Suspension) -> None:
        """Lift a suspension where it is mended."""
        if one.scope.startswith(OPERATION) or not self._suspensions.tells_balance(one.provider):
            await self._try(one)
            return
        outcome = await self._balance(one)
        if outcome is None:
            await self._store.run(self._calls.probe(one.provider, one.scope, soonest=_NOBODY_WAITS, at_any_time=True))
            return
        left = spendable(outcome)
        if one.scope == FUNDS and left is not None:
            await self._store.run(self._calls.probe(one.provider, one.scope, at_any_time=True, left=str(left)))
        decided = verdict(one, outcome)
        if decided == "try a job" and not await self._try(one) and one.scope == FUNDS and left:
            # Nobody waits who could find out: whoever comes next does.
            decided = "lift"
        if decided == "lift":
            await self._suspensions.lift(one)

    async def _balance(self, one: Suspension) -> Outcome | None:
        job = Work(id=new_id(), provider=one.provider, kind=Kind.OPERATION, operation=_BALANCE, request=Operation())
        with self._suspensions.test(job.id, one.scope):
            return await self._ask(job)

    async def _try(self, one: Suspension) -> bool:
        """Let one job through that waits; lift the suspension where it does well. Answers whether there was one."""
        found = await self._waiting(one)
        if found is None:
            await self._store.run(self._calls.probe(one.provider, one.scope, soonest=_NOBODY_WAITS, at_any_time=True))
            return False
        id_, queue = found
        key = one.provider, one.scope
        self._trying.add(key)
        try:
            with self._suspensions.test(id_, one.scope) as test:
                await self._execute([id_], queue)
        finally:
            self._trying.discard(key)
        if test.passed:
            await self._suspensions.lift(one)
        return True

    async def _waiting(self, one: Suspension) -> tuple[str, str] | None:
        """Take one job that waits for `one`; return its id and queue."""
        for queue in both_queues(one.provider):
            cursor = ""
            while cursor != "0":
                cursor, ids = await self._store.run(self._calls.free(queue, cursor or "0", one.operations, one=True))
                if ids:
                    return ids[0], queue
        return None


def _decimal(value: Any) -> Decimal | None:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
