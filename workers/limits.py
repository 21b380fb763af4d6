"""Permits: how many requests a provider may be sent, over all workers, and whether it is left alone.

A permit is asked for before a request is claimed. What is not granted is parked with a time, without spending an
attempt or a worker's slot. How each request ended is told afterwards: that gives its lease back, slows all down where
the provider says that it is too fast, and opens the breaker where it is in trouble.

`RedisLimiter` keeps all that in Redis (`lua/permit.lua`, `lua/learn.lua`), on its clock. The tests have a twin of it
without Redis, and hold both to the same properties.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import secrets
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

import msgspec

from dispatcher.calls import Calls
from dispatcher.errors import StoreUnavailable
from dispatcher.jobs import Lane, Send
from dispatcher.limits import Ask, Ended, Granted, Limits, Refused, What
from dispatcher.outcomes import Failure, FailureKind, Outcome
from dispatcher.states import State
from dispatcher.store import Caller
from dispatcher.text import segments
from workers import loops
from workers.gathered import Gathered

if TYPE_CHECKING:
    from dispatcher.jobs import Work
    from dispatcher.settings import Settings
    from workers.providers.base import Adapter, Group

log = logging.getLogger("dispatcher.worker")

#: Seconds after its moment that a permit is still good for.
GOOD_FOR: Final = 1.0

#: Seconds that all are held back where a provider says "too fast" and not for how long; an hour at most, and never less
#: than a permit lies ahead.
_THROTTLED: Final = 5.0
_LONGEST_PENALTY: Final = 3600.0
_SHORTEST_PENALTY: Final = 1.0

#: Seconds that good news may be gathered for.
_GATHERED: Final = 0.1

#: Microseconds ahead that the moment of a permit may lie, by lane: a worker waits for it. And of a request that a read
#: went before, which drew from the same limits and would be for nothing.
_AHEAD: Final = {Lane.NORMAL: 500_000, Lane.HIGH: 1_000_000}
_AHEAD_AFTER_READ: Final = 5_000_000

#: Jobs of which it is remembered that such a read was made, or was for nothing.
_REMEMBERED: Final = 1000

#: Requests that one call asks for at most.
_TOGETHER: Final = 100

#: The transport's codes of what took too long.
_TIMEOUTS: Final = frozenset({"connect_timeout", "read_timeout", "deadline"})

#: What a provider answers that is well.
_ANSWERED: Final = frozenset({FailureKind.INVALID, FailureKind.REJECTED, FailureKind.OPTED_OUT})

#: What shows that it is not.
_TROUBLE: Final = frozenset({FailureKind.NOT_SENT, FailureKind.AMBIGUOUS})

Reason: TypeAlias = Literal["limit", "breaker", "suspended"]


class Permit(msgspec.Struct, frozen=True):
    """The request may go out `wait` seconds from now, and for a while after that."""

    wait: float = 0.0
    #: What `learn` knows it by: nobody else looks into it.
    token: object = None
    #: Seconds after its moment until which it may be used: for ever, where nobody counts.
    good_for: float = GOOD_FOR


class Later(msgspec.Struct, frozen=True):
    """Not now: the jobs wait `delay` seconds for `reason`; of its `own` is a sender that no other job waits for."""

    delay: float
    reason: Reason = "limit"
    own: bool = False


Grant: TypeAlias = Permit | Later


class Limiter(Protocol):
    """Grants permits."""

    async def acquire(self, account: str, group: Group) -> Grant:
        """Return a permit for this request, or when to ask again. Raises `StoreUnavailable`: without Redis is none."""

    def learn(self, account: str, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> None:
        """Take in how a request ended that took `seconds`, by job id; empty where it was not sent. Never raises."""


# -- what a request draws, and what its end says -----------------------------------------------------------------------


def draws(limits: Limits, group: Group, address: str, keyed: Callable[[str], str]) -> dict[str, int]:
    """Return how much a request draws from each bucket that there is, and from `all`.

    `keyed` hides a sender behind a hash.
    """
    cost = {name: amount for name, amount in group.cost.items() if name in limits.buckets} | {"all": 1}
    for name, limit in limits.buckets.items():
        if limit.unit == "segments" and name in cost:
            cost[name] = sum(map(_size, group.jobs))
    if "address" in limits.buckets:
        cost[f"address:{address}"] = 1
    of_senders = limits.buckets.get("sender")
    if of_senders is not None and _what(group) == "job":
        for job in group.jobs:
            if job.text:
                name = f"sender:{keyed(job.request.sender or '') if isinstance(job.request, Send) else keyed('')}"
                cost[name] = cost.get(name, 0) + (_size(job) if of_senders.unit == "segments" else 1)
    return cost


def _size(job: Work) -> int:
    return segments(job.text).count if job.text else 1


def _what(group: Group) -> What:
    job = group.jobs[0]
    if job.state != State.QUEUED:
        return "after"
    return "before" if group.before else "job"


def letter(outcome: Outcome) -> str:
    """Return what an outcome says of how the provider is: `o` well, `e` not, `t` too slow; "" for nothing."""
    # One number that is refused again and again says nothing of the provider, and must not shut out all others.
    if not isinstance(outcome, Failure) or outcome.kind in _ANSWERED or outcome.own:
        return "o"
    if outcome.kind in _TROUBLE:
        return "t" if outcome.code in _TIMEOUTS else "e"
    return ""


def penalty(outcomes: Iterable[Outcome]) -> float | None:
    """Return for how many seconds nobody shall ask again; None where nothing was throttled."""
    asked = [
        _THROTTLED if one.retry_after is None else one.retry_after
        for one in outcomes
        if isinstance(one, Failure) and one.kind == FailureKind.THROTTLED
    ]
    return min(max(*asked, _SHORTEST_PENALTY), _LONGEST_PENALTY) if asked else None


class _Token(msgspec.Struct, frozen=True):
    """What a permit is known by."""

    id: str
    moment: int
    #: A job's own request: only these tell the breaker anything.
    counts: bool
    #: Somebody waits for it to come back.
    awaited: bool
    #: It drew from a limit.
    limited: bool


class _Account(msgspec.Struct):
    """What a process knows of an account."""

    limits: Limits
    granted: bool = False
    ended: list[Ended] = []


class Permits:
    """What every limiter shares: the way from a request to an ask, and from an outcome to what is told."""

    def __init__(self, settings: Settings, adapters: Mapping[str, Adapter]) -> None:
        """Serve the accounts in `adapters`."""
        self._settings = settings
        self._address = settings.egress_address or re.sub(r"[^A-Za-z0-9._:-]", "-", socket.gethostname())
        self._accounts = {name: _Account(one.limited) for name, one in adapters.items()}
        #: Names of requests: this process', and a number.
        self._names = (f"{prefix}.{number}" for prefix in [secrets.token_urlsafe(9)] for number in count())
        #: By job, whether the read that went before it was for nothing, since its own permit was too far.
        self._reads: dict[str, bool] = {}

    def _ask(self, account: str, group: Group) -> Ask:
        limits, job, what = self._accounts[account].limits, group.jobs[0], _what(group)
        return Ask(
            id=next(self._names),
            high=job.lane == Lane.HIGH,
            what=what,
            jobs=len(group.jobs),
            ahead=_AHEAD_AFTER_READ if what == "job" and job.id in self._reads else _AHEAD[job.lane],
            draws=draws(limits, group, self._address, lambda sender: self._settings.keyed("sender", account, sender)),
        )

    def _in_vain(self, group: Group) -> bool:
        """Say whether a request is a read that went before its job once, and the job could not follow."""
        return group.before and self._reads.get(group.jobs[0].id, False)

    def _remember(self, group: Group, ask: Ask, answer: Granted | Refused) -> None:
        id_ = group.jobs[0].id
        if ask.what == "before" and isinstance(answer, Granted):
            self._reads[id_] = False
        elif ask.what == "job" and isinstance(answer, Refused) and id_ in self._reads:
            self._reads[id_] = True
        elif ask.what == "job":
            self._reads.pop(id_, None)
        while len(self._reads) > _REMEMBERED:
            del self._reads[next(iter(self._reads))]

    def _grant(self, account: str, group: Group, ask: Ask, answer: Granted | Refused) -> Grant:
        self._remember(group, ask, answer)
        if isinstance(answer, Refused):
            return Later(answer.delay / 1_000_000, answer.reason, answer.own)
        limits = self._accounts[account].limits
        token = _Token(
            id=ask.id,
            moment=answer.moment,
            counts=ask.what == "job",
            awaited=answer.probe or limits.concurrency is not None,
            limited=any(name.partition(":")[0] in limits.buckets for name in ask.draws),
        )
        counted = bool(limits) or answer.probe
        return Permit(answer.wait / 1_000_000, token, GOOD_FOR if counted else math.inf)

    def _ended(self, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> tuple[_Token, Ended] | None:
        token = permit.token
        if not isinstance(token, _Token):
            return None
        wait = penalty(outcomes.values())
        return token, Ended(
            id=token.id,
            moment=token.moment,
            letters="".join(map(letter, outcomes.values())) if token.counts else "",
            throttled=None if wait is None else round(wait * 1_000_000),
            limited=token.limited,
            seconds=seconds if outcomes else None,
        )


class RedisLimiter(Permits):
    """Permits over all workers. Those asked for while a call is on its way travel together in the next."""

    def __init__(
        self, settings: Settings, adapters: Mapping[str, Adapter], store: Caller, run: Callable[[], str] = lambda: ""
    ) -> None:
        """Serve the accounts in `adapters`; `run` says which run of the server the store speaks with."""
        super().__init__(settings, adapters)
        self._store = store
        self._calls = Calls(settings)
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: dict[str, Gathered[Ask, Granted | Refused]] = {
            name: Gathered(
                partial(self._ask_together, name, known),
                _TOGETHER,
                size=lambda _: 1,
                rank=lambda ask: not ask.high,
                unclaimed=partial(self._given_back, known),
            )
            for name, known in self._accounts.items()
        }

    async def acquire(self, account: str, group: Group) -> Grant:
        """Return a permit for this request, or when to ask again. Raises `StoreUnavailable`."""
        if self._in_vain(group):
            return Later(0)
        ask = self._ask(account, group)
        return self._grant(account, group, ask, await self._asking[account].ask(ask))

    def learn(self, account: str, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> None:
        """Take in how a request ended. Never raises, and does not wait for Redis."""
        told = self._ended(permit, outcomes, seconds)
        if told is None or account not in self._accounts:
            return
        (token, end), known = told, self._accounts[account]
        known.ended.append(end)
        pressing = (
            token.awaited or end.throttled is not None or set(end.letters) - {"o"} or len(known.ended) > _TOGETHER
        )
        if pressing:
            self._start(self._tell(account, known))
        elif len(known.ended) == 1:
            self._start(self._tell_soon(account, known))

    async def close(self) -> None:
        """Tell what was not told yet; nobody asks any more."""
        await loops.end(*self._tasks)
        for account, known in self._accounts.items():
            await self._tell(account, known)

    async def _ask_together(self, account: str, known: _Account, asks: Sequence[Ask]) -> list[Granted | Refused]:
        if known.limits.concurrency is not None:
            # What ended before frees what is asked for now.
            await self._tell(account, known)
        while True:
            run = self._run()
            call = self._calls.permit(
                account, known.limits, asks, run=run, granted=known.granted, address=self._address
            )
            answers = await self._store.run(call)
            known.granted = known.granted or any(isinstance(one, Granted) for one in answers)
            if run in {"", self._run()}:
                return answers
            # Another run of the server answered, which may have forgotten what was used: it is asked again as itself.

    def _given_back(self, known: _Account, ask: Ask, answer: Granted | Refused) -> None:
        if isinstance(answer, Granted):
            known.ended.append(Ended(id=ask.id, moment=answer.moment))

    async def _tell_soon(self, account: str, known: _Account) -> None:
        await asyncio.sleep(_GATHERED)
        await self._tell(account, known)

    async def _tell(self, account: str, known: _Account) -> None:
        if not known.ended:
            return
        ends, known.ended = known.ended, []
        try:
            await self._store.run(self._calls.learn(account, known.limits, ends, address=self._address))
        except StoreUnavailable:
            # Leases end by themselves; what else it said is old when Redis is back.
            log.warning("Redis is away: how %d requests to %s ended does not count", len(ends), account)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
