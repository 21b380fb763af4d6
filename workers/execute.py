"""The way of a job: jobs -> requests -> permits -> claim -> send -> outcomes. Read this page first.

It knows neither Celery nor Redis nor HTTP: it is handed a store, a limiter, a transport and the accounts' adapters.
Everything that decides is pure and elsewhere: adapters build and parse, `policy` decides about failures, `moves` says
what is written of that, and the state table in the store's scripts allows or refuses each move.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, islice
from typing import Final, Protocol, Self, TypeVar

import msgspec

from dispatcher import budgets, records, verifications
from dispatcher.budgets import NO_TEXT, Spending
from dispatcher.calls import Advance, Call, Calls, Claim, Taken, call_name
from dispatcher.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from dispatcher.jobs import Lane, Work
from dispatcher.memory import from_memory
from dispatcher.optouts import OptOuts
from dispatcher.outcomes import Checked, Failure, FailureKind, Found, Outcome
from dispatcher.queues import is_high, provider_of, queue_name
from dispatcher.settings import Settings
from dispatcher.states import State
from dispatcher.store import Caller
from workers import consent, loops, policy
from workers.gathered import Gathered
from workers.insist import insist
from workers.lanes import Places, Turns
from workers.limits import Later, Limiter, Permit
from workers.memory import Memory
from workers.moves import Moves, in_words, moved_on, parked, recalled, refused, unclaimed, word_of
from workers.providers.base import Adapter, Group, Plan, Request, Response
from workers.spending import Spendings
from workers.suspensions import Suspensions, spendable

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")

#: Seconds until another worker may have what this one cannot read or does not serve.
_ELSEWHERE: Final = 60.0

#: Jobs that one call is about at most, where those of several messages or requests travel together: Redis does nothing
#: else for the few milliseconds that it takes.
_TOGETHER: Final = 100

#: What a claim answers of a job that a budget or its country had no room for.
_REFUSED: Final = "failed:refused"

#: What it answers of a text that a worker without a hash key must not send: who wants none is found by it alone.
_KEYLESS: Final = "queued:worker"

#: Seconds after its deadline that the end of a request is still noticed by a process that is busy, and not frozen.
_LATE: Final = 2.0

#: Digits of a one-time code that we make.
_CODE_DIGITS: Final = 6

_UNREAD: Final = Failure(kind=FailureKind.AMBIGUOUS, code="unread", message="the answer could not be read")


class Sender(Protocol):
    """What sends requests: `workers.transport`."""

    async def send(self, request: Request) -> Response | Failure:
        """Send it once."""


class Hand(msgspec.Struct, frozen=True):
    """The jobs that one message put into our hands, under the token they are known by; some may go back."""

    token: str
    jobs: list[Work] = []
    back: list[Work] = []


class Slot:
    """A permit in use: until when it is good, by our clock, and what came of it.

    Used with `with`, it tells the limiter in the end, whatever happens meanwhile.
    """

    __slots__ = ("_account", "_limiter", "_permit", "outcomes", "seconds", "until")

    def __init__(self, limiter: Limiter, account: str, permit: Permit, until: float) -> None:
        """Use `permit` until then."""
        self._limiter, self._account, self._permit = limiter, account, permit
        self.until = until
        #: By job; empty where nothing was sent.
        self.outcomes: Mapping[str, Outcome] = {}
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._limiter.learn(self._account, self._permit, self.outcomes, self.seconds)


class Execution:
    """Executes the jobs of messages, many messages at a time, in one event loop."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        store: Caller,
        limiter: Limiter,
        transport: Sender,
        *,
        publish: Callable[[str, list[str]], Awaitable[None]],
        chance: Callable[[], float] = random.random,
        make_code: Callable[[], str] = lambda: f"{secrets.randbelow(10**_CODE_DIGITS):0{_CODE_DIGITS}}",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve the accounts in `adapters`; `publish(queue, ids)` tells the workers of a queue, and never raises."""
        self._settings = settings
        self._adapters = adapters
        self._store = store
        self._limiter = limiter
        self._transport = transport
        self._publish = publish
        self._make_code = make_code
        self._sleep = sleep
        self._clock = clock
        self._calls = Calls(settings)
        #: By whether it is the high lane, which waits for no call of the other's.
        self._takes = {high: Gathered(self._take_together, _TOGETHER) for high in (False, True)}
        self._claims = {high: Gathered(self._claim_together, _TOGETHER) for high in (False, True)}
        self._ends = {high: Gathered(self._end_together, _TOGETHER) for high in (False, True)}
        self._sealer = settings.sealer()
        self._optouts = OptOuts(settings)
        #: Who a text is from that names nobody, by account.
        self._senders = {name: one.settings.get("sender", "") for name, one in adapters.items()}
        self.suspensions = Suspensions(settings, adapters, store, sleep=sleep, clock=clock)
        self._memory = Memory(settings, adapters, store)
        #: Requests on the wire, and those in our hands: no more than are soon sent, so that none is held for long.
        self.turns = Turns(settings.connections, {name: one.at_once for name, one in adapters.items()})
        self._room = Places(2 * settings.connections, max(1, settings.connections // 4))
        self._alone = asyncio.Lock()
        self._stopping = False
        #: Milliseconds that our clock is behind Redis'.
        self._behind = 0.0
        self._quiet = settings.quiet
        self._spendings = Spendings(settings, adapters, clock)
        self._moves = Moves(settings, adapters, self._now, chance)

    def stop(self) -> None:
        """Claim nothing any more: what is on the wire is brought to its end, the rest goes back to its queue."""
        self._stopping = True

    async def execute(self, ids: Sequence[str], queue: str) -> str:
        """Execute the jobs of one message from `queue`; return a short word for whoever watches, such as "sent"."""
        async with self._held(ids), self._room.take(self._requests(len(ids), queue), high=is_high(queue)):
            # Let go while Redis is away, its message would be found lost a minute after it is back.
            return await self._insist(partial(self._executed, ids, queue))

    def _requests(self, jobs: int, queue: str) -> int:
        """Return how many requests so many jobs of a queue make at best."""
        adapter = self._adapters.get(provider_of(queue))
        return jobs if adapter is None else -(-jobs // adapter.limited.together)

    async def _executed(self, ids: Sequence[str], queue: str) -> str:
        if self._stopping:
            await self._publish(queue, list(ids))
            return summary([State.QUEUED] * len(ids))
        words, suspects = await self._taken(ids, high=is_high(queue))
        return summary(words + await self._suspects(suspects))

    async def ask(self, job: Work) -> Outcome | None:
        """Make the request of a read that is nobody's job, within the limits; None where it has to wait."""
        plan = self._plan([job])
        if job.id in plan.refused:
            return plan.refused[job.id]
        (group,) = plan.groups
        async with self.turns.take(job.provider):
            slot = await self._permit(group)
            if isinstance(slot, Later):
                return None
            with slot:
                outcome = (await self._sent(group, slot))[job.id]
        self.suspensions.learn(job, outcome)
        await self.suspensions.save()
        await self._balance(job, outcome)
        return outcome

    async def _taken(self, ids: Sequence[str], *, high: bool) -> tuple[list[str], list[str]]:
        """Take jobs and bring them to an end; answer a word for each, and the suspects that were left."""
        token, taken = await self._takes[high].ask(ids)
        async with self._given_back(token, ids):
            hand, words = await self._open(token, taken)
            return words + await self._execute(hand, self._plan(hand.jobs)), taken.suspects

    async def _suspects(self, ids: Sequence[str]) -> list[str]:
        """Do the same for jobs whose holder died: each is tried alone, and none is sent before all were.

        Should one of them kill us too, then it takes nothing of its kind along.
        """
        token = call_name()
        hand, words = Hand(token), list[str]()
        async with self._given_back(token, ids):
            for id_ in ids:
                async with self._alone:
                    taken = await self._store.run(self._calls.take(token, [id_], alone=True))
                    opened, idle = await self._open(token, taken)
                    self._plan(opened.jobs)
                    await self._store.run(self._calls.absolve(token, [id_]))
                hand.jobs.extend(opened.jobs)
                words += idle
            return words + await self._execute(hand, self._plan(hand.jobs))

    async def _execute(self, hand: Hand, plan: Plan) -> list[str]:
        """Refuse what can never work, and take each request along its road."""
        words = []
        mine = {job.id: job for job in hand.jobs}
        for id_, failure in plan.refused.items():
            words.append(await self._turned_away(mine[id_], failure))
        # None is cancelled for another's error: cancelling a send in the middle would make it unknown.
        roads = (self._road(hand, group) for group in plan.groups)
        ends = await asyncio.gather(*roads, return_exceptions=True)
        words += await self._hand_back(hand)
        for group, end in zip(plan.groups, ends, strict=True):
            if isinstance(end, StoreUnavailable) or not isinstance(end, list | Exception):
                raise end
            words += end if isinstance(end, list) else await self._give_up(group, end)
        return words

    async def _give_up(self, group: Group, error: Exception) -> list[str]:
        """End what an error of ours kept from being claimed; what was claimed ends with its lease."""
        log.error("a request to %s could not be made: %s", group.jobs[0].provider, error.__class__.__name__)
        failure = _internal(f"the request could not be made: {error.__class__.__name__}")
        return [await self._refuse(job.id, failure) for job in group.jobs]

    async def _road(self, hand: Hand, group: Group) -> list[str]:
        """End what no budget or country has room for, before it takes a permit from others; make the request."""
        if not self._spendings.may_lack_room(group):
            return await self._request(hand, group)
        texts = self._spendings.of(group)
        asked = [Claim(hand.token, job.id, "never", text=texts.get(job.id, NO_TEXT)) for job in group.jobs]
        states = await self._store.run(self._calls.claim(asked, ends_only=True))
        left = [job for job, state in zip(group.jobs, states, strict=True) if state == State.QUEUED]
        words = [state for state in states if state not in {None, State.QUEUED}]
        self._remember(texts, group.jobs, states)
        for one in self._plan(left).groups if words else [group]:
            words += await self._request(hand, one)
        return words

    async def _request(self, hand: Hand, group: Group) -> list[str]:
        """Take one request along the road: memory, baseline, permit, claim, send, outcomes."""
        account, high = group.jobs[0].provider, group.jobs[0].lane == Lane.HIGH
        await self.suspensions.fresh()
        async with self.turns.take(account, high=high), self.suspensions.trial(account):
            waits = self._nights(group.jobs)
            if self._stopping or waits:
                # Where night fell while they waited for this turn, what shares a request with them is taken anew.
                hand.back.extend(job for job in group.jobs if job.id not in chain.from_iterable(waits.values()))
                return await self._wait_for_morning(waits)
            if self._memory.knows(group):
                group, words = await self._recall(hand.token, group)
                if words:
                    return words
            baseline = await self._baseline(group)
            slot = await self._permit(group)
            if isinstance(slot, Later):
                why = self._why(group) if slot.reason == "suspended" else ""
                return await self._put_off(group, slot, why)
            with slot:
                claimed, words = await self._claim(hand.token, group, baseline, high=high)
                if claimed is None:
                    return words
                if self._clock() > slot.until:
                    return words + await self._unclaim(hand.token, claimed.jobs)
                outcomes = await self._sent(claimed, slot)
            for job in claimed.jobs:
                self.suspensions.learn(job, outcomes[job.id])
        return words + await self._write(hand.token, claimed.jobs, outcomes, high=high)

    # -- the steps, in order -----------------------------------------------------------------------------------------

    async def _open(self, token: str, taken: Taken) -> tuple[Hand, list[str]]:
        """Put the taken jobs into our hand; answer a word for each that is not there."""
        self._behind = taken.at - self._clock() * 1000
        hand, words = Hand(token), [state for _, state in taken.idle]
        for raw in taken.records:
            words += await self._open_one(raw, hand)
        return hand, words + await self._until_morning(hand)

    async def _open_one(self, raw: list[bytes], hand: Hand) -> list[str]:
        """Put a taken job into our hand, or end it, or leave it to others; answer a word where it is not ours to do."""
        id_ = raw[0].decode()
        try:
            job = records.work(raw, self._sealer)
            ours = job.operation == "verify" and self._makes_codes(job.provider)
            if ours:
                self._settings.require_secrets("a code of ours")
        except ConfigurationError as error:
            log.error("%s", error)  # noqa: TRY400 - the setting is at fault, a traceback would not say more
            which = "of a later release" if isinstance(error, records.OfLaterRelease) else "with its keys"
            return await self._park([id_], "worker", _ELSEWHERE, f"waits for a worker {which}")
        except (msgspec.MsgspecError, InvalidRequest) as error:
            return [await self._refuse(id_, _internal(f"its record cannot be read: {error.__class__.__name__}"))]
        if job.provider not in self._adapters:
            log.error("job %s is for %s, which this worker does not serve", job.id, job.provider)
            return await self._park([id_], "worker", _ELSEWHERE, f"waits for a worker that serves {job.provider}")
        if ours:
            # An attempt before this one may have made it: then that is the one which may be on the phone.
            job = msgspec.structs.replace(job, code=job.code or self._make_code())
        hand.jobs.append(job)
        return []

    async def _until_morning(self, hand: Hand) -> list[str]:
        """Let texts wait that may not go at this hour, where the person is."""
        waits = self._nights(hand.jobs)
        parked = {id_ for ids in waits.values() for id_ in ids}
        hand.jobs[:] = [job for job in hand.jobs if job.id not in parked]
        return await self._wait_for_morning(waits)

    def _nights(self, jobs: Iterable[Work]) -> dict[policy.Quiet, list[str]]:
        """Return the jobs that may not go at this hour, by what they wait for."""
        waits, now = defaultdict[policy.Quiet, list[str]](list), self._now()
        for job in jobs:
            if held := policy.quiet(self._quiet, job, now):
                waits[held].append(job.id)
        return waits

    async def _wait_for_morning(self, waits: Mapping[policy.Quiet, list[str]]) -> list[str]:
        return [
            word for held, ids in waits.items() for word in await self._park(ids, held.reason, held.delay, held.why)
        ]

    def _now(self) -> float:
        """Return the moment, in milliseconds since 1970 on Redis' clock."""
        return self._behind + self._clock() * 1000

    def _makes_codes(self, account: str) -> bool:
        return account in self._adapters and self._adapters[account].capabilities.verification == "ours"

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

    async def _recall(self, token: str, group: Group) -> tuple[Group, list[str]]:
        """Answer a lookup from memory, or let it wait for one that asks; without a word for it, it asks itself."""
        (job,) = group.jobs
        known = await self._memory.recall(token, job)
        if known.remembered is None:
            asking = msgspec.structs.replace(job, asked_at=known.asked_at)
            word = "queued:lookup" if known.state == State.QUEUED else known.state
            return msgspec.structs.replace(group, jobs=(asking,)), [word] if word else []
        result, detail = from_memory(known.remembered)
        moves = [recalled(job.id, self._sealer.seal(msgspec.json.encode(result), job.id), detail)]
        return group, list(map(word_of, moves, await self._ends[job.lane == Lane.HIGH].ask(moves)))

    async def _permit(self, group: Group) -> Slot | Later:
        """Wait for a permit that is near; answer when to come back where it is not."""
        if self.suspensions.held(group):
            return Later(policy.SUSPENDED, "suspended")
        account = group.jobs[0].provider
        while True:
            asked = self._clock()
            grant = await self._limiter.acquire(account, group)
            if isinstance(grant, Later):
                return grant
            slot = Slot(self._limiter, account, grant, asked + grant.wait + grant.good_for)
            if grant.wait:
                await self._sleep(grant.wait)
            if self._clock() <= slot.until:
                return slot
            # The process slept through its slot: using it now would put two slots into one window.
            self._limiter.learn(account, grant, {}, 0.0)

    async def _sent(self, group: Group, slot: Slot) -> Mapping[str, Outcome]:
        """Send the request and read the answer, noting in `slot` what came of it."""
        began = self._clock()
        answer = await self._transport.send(group.request)
        outcomes, slot.seconds = self._read(answer, group), self._clock() - began
        # Longer than any request may last: the process slept, which says nothing of the provider.
        if slot.seconds <= self._settings.deadline + _LATE:
            slot.outcomes = outcomes
        return outcomes

    def _why(self, group: Group) -> str:
        """Say what holds a request back, in the words of the one that met it."""
        held = self.suspensions.held(group)
        if held is None:
            return ""
        return f"{in_words(Failure(kind=held.kind, code=held.code, message=held.message))}; waits until that is mended"

    async def _baseline(self, group: Group) -> str:
        """Read what an operation is about to change, so that a lost answer can be judged by it; "" where nothing can.

        It is no reason not to go on when that cannot be read: the end is then judged without.
        """
        job = group.jobs[0]
        adapter = self._adapters[job.provider]
        request = adapter.before(job)
        if request is None:
            return ""
        slot = await self._permit(Group(request=request, jobs=group.jobs, cost={"get": 1}, before=True))
        if isinstance(slot, Later):
            return ""
        with slot:
            began = self._clock()
            answer = await self._transport.send(request)
            slot.seconds = self._clock() - began
            slot.outcomes = {job.id: answer if isinstance(answer, Failure) else Found(result={})}
        remembered = answer if isinstance(answer, Failure) else adapter.remember(answer, job)
        if not isinstance(remembered, Failure):
            return remembered
        # A wrong password is met here first: then the permit that follows is refused.
        self.suspensions.learn(job, remembered)
        await self.suspensions.save()
        return ""

    async def _claim(self, token: str, group: Group, baseline: str, *, high: bool) -> tuple[Group | None, list[str]]:
        """Make the intent durable; answer the request for what is ours, and the states of what is not any more."""
        adapter = self._adapters[group.jobs[0].provider]
        texts = self._spendings.of(group)
        wanted = [
            Claim(
                token=token,
                id=job.id,
                repeat=policy.again(job, adapter.repeat(job)),
                number=self._settings.hashed("number", job.to) if job.text else "",
                text=texts.get(job.id, NO_TEXT),
                fields=self._intent(job, baseline),
                scopes=self._scopes(job),
            )
            for job in group.jobs
        ]
        asked = self._clock()
        try:
            states = await self._claims[high].ask(wanted)
        except StoreUnavailable:
            await self._unclaim(token, group.jobs)
            raise
        self._remember(texts, group.jobs, states)
        ours = [job for job, state in zip(group.jobs, states, strict=True) if state is None]
        words = [state for state in states if state is not None]
        if _KEYLESS in words:
            log.error(
                "DISPATCHER_HASH_KEY is not set here, so that nobody can tell who wants no texts: texts wait for a "
                "worker that has it; set the same in every process"
            )
        if self._clock() - asked > self._settings.lease - self._settings.deadline:
            # The process slept: the lease could end, and the job be told unknown, before the answer is here.
            return None, words + await self._unclaim(token, ours)
        if not words or not ours:
            return group if ours else None, words
        rebuilt = self._plan(ours).groups
        if len(rebuilt) != 1 or len(rebuilt[0].jobs) != len(ours):
            return None, words + await self._unclaim(token, ours)
        return rebuilt[0], words

    def _scopes(self, job: Work) -> str:
        """Return what the opt-out list may have of a text beside its number: its sender is the account's by default."""
        if not job.text:
            return ""
        return self._optouts.scopes(job.tenant, getattr(job.request, "sender", "") or self._senders[job.provider])

    def _remember(self, texts: Mapping[str, Spending], jobs: Sequence[Work], states: Sequence[str | None]) -> None:
        """Remember what a claim had no room for."""
        self._spendings.refused(texts[job.id] for job, state in zip(jobs, states, strict=True) if state == _REFUSED)

    def _intent(self, job: Work, baseline: str) -> dict[str, bytes | str]:
        """Return what is written with the claim: the code that is about to be sent, and what was read before."""
        fields: dict[str, bytes | str] = {}
        if job.operation == "verify" and not self._makes_codes(job.provider) and job.provider != (*job.route, "")[0]:
            # The account before may have made one: from now on that is right which this one makes, or judges.
            fields |= {"vh": "", "vx": ""}
        elif job.code:
            fields["vh"] = self._settings.hashed("code", job.id, job.code)
            fields["vx"] = self._sealer.seal(job.code.encode(), job.id)
        if baseline:
            fields["vb"] = self._sealer.seal(baseline.encode(), job.id)
        return fields

    def _read(self, answer: Response | Failure, group: Group) -> dict[str, Outcome]:
        """Read the answer as an outcome for each job; one that the adapter cannot read may have been a success."""
        if isinstance(answer, Failure):
            return {job.id: answer for job in group.jobs}
        told: Mapping[str, Outcome] = {}
        try:
            told = self._adapters[group.jobs[0].provider].parse(answer, group)
        except Exception as error:  # noqa: BLE001 - an adapter's bug must not leave jobs without an outcome
            log.error("%s cannot read an answer: %s", group.jobs[0].provider, error.__class__.__name__)  # noqa: TRY400 - a traceback could show the answer
        known = told if isinstance(told, Mapping) else {}
        return {job.id: one if isinstance(one := known.get(job.id), Outcome) else _UNREAD for job in group.jobs}

    async def _write(
        self, token: str, jobs: Sequence[Work], outcomes: Mapping[str, Outcome], *, high: bool
    ) -> list[str]:
        """Write what became of them in one call, however long Redis takes to come back."""
        outcomes = await self._memory.found(jobs, outcomes, self._now)
        moves = [self._moves.of(job, token, outcomes[job.id]) for job in jobs]
        # First what they wait for, so that they are let go with it.
        await self.suspensions.save()
        await self._leave_alone(jobs, outcomes)
        states = await self._insist(partial(self._ends[high].ask, moves))
        for job in jobs:
            outcome = outcomes[job.id]
            if isinstance(outcome, Checked):
                await self._persist(verifications.verdict(self._settings, self._calls, job.request, outcome))
            if isinstance(outcome, Found):
                await self._balance(job, outcome)
        return list(map(word_of, moves, states))

    async def _leave_alone(self, jobs: Sequence[Work], outcomes: Mapping[str, Outcome]) -> None:
        """Put people on the opt-out list whose provider refused a text since they opted out there."""
        told = ((self._adapters[job.provider], job.to, outcomes[job.id]) for job in jobs if job.text)
        await asyncio.gather(*(self._persist(call) for call in consent.refusals(self._optouts, told)))

    async def _balance(self, job: Work, outcome: Outcome) -> None:
        """Tell of a balance that is lower than its account's settings say; without Redis, the next time."""
        threshold = self._settings.account(job.provider).get("low_balance") if job.operation == "balance" else None
        left = spendable(outcome)
        if threshold is None or left is None or not isinstance(outcome, Found):
            return
        is_low = budgets.low(left, outcome.result.get("currency"), threshold)
        if is_low is not None:
            with contextlib.suppress(StoreUnavailable):
                await self._store.run(self._calls.balance(job.provider, f"{left:f}", threshold, low=is_low))

    # -- calls that several messages, or requests, share -------------------------------------------------------------

    async def _take_together(self, messages: Sequence[Sequence[str]]) -> list[tuple[str, Taken]]:
        """Take the jobs of messages under one token; answer it to each, with what is its own."""
        token, ids = call_name(), list(dict.fromkeys(chain.from_iterable(messages)))
        async with self._given_back(token, ids):
            taken = await self._store.run(self._calls.take(token, ids))
        return [(token, one) for one in parted(taken, messages)]

    async def _claim_together(self, requests: Sequence[Sequence[Claim]]) -> list[list[str | None]]:
        states = await self._store.run(self._calls.claim(list(chain.from_iterable(requests))))
        return dealt_out(states, requests)

    async def _end_together(self, requests: Sequence[Sequence[Advance]]) -> list[list[str]]:
        states = await self._store.run(self._calls.advance(list(chain.from_iterable(requests))))
        return dealt_out(states, requests)

    # -- ways off the road -------------------------------------------------------------------------------------------

    async def _refuse(self, id_: str, failure: Failure) -> str:
        """Fail a job that was never claimed."""
        (word,) = await self._advance([refused(id_, failure)])
        return word

    async def _turned_away(self, job: Work, failure: Failure) -> str:
        """Let another account have a job that its adapter refused, or fail it."""
        decision = policy.refused(job, failure)
        if isinstance(decision, policy.GiveUp):
            return await self._refuse(job.id, failure)
        (word,) = await self._advance([moved_on(job, decision.account, in_words(failure))])
        return word

    async def _put_off(self, group: Group, later: Later, why: str) -> list[str]:
        """Let jobs that may not be sent now go on to their next account, where they have one, or wait."""
        onward = {job.id: account for job in group.jobs if (account := policy.held_back(job, later.reason))}
        if later.reason == "suspended" and len(onward) == len(group.jobs) and self.suspensions.wants_a_job(group):
            del onward[group.jobs[0].id]
        stay = [job.id for job in group.jobs if job.id not in onward]
        lined = later.reason != "suspended" and not later.own
        words = await self._park(stay, later.reason, later.delay, why, lined=lined)
        why = why or f"{group.jobs[0].provider} is left alone for a while"
        moves = [moved_on(job, onward[job.id], why) for job in group.jobs if job.id in onward]
        return words + await self._advance(moves)

    async def _park(
        self, ids: Iterable[str], reason: str, delay: float, detail: str = "", *, lined: bool = False
    ) -> list[str]:
        """Let jobs wait in Redis, not here, in their line or for a time; no attempt is spent."""
        return await self._advance([parked(id_, reason, delay, detail, lined=lined) for id_ in ids])

    async def _advance(self, moves: Sequence[Advance]) -> list[str]:
        """Write moves of jobs that were not claimed; answer a word for each."""
        states = await self._store.run(self._calls.advance(moves)) if moves else []
        return list(map(word_of, moves, states))

    async def _unclaim(self, token: str, jobs: Sequence[Work]) -> list[str]:
        """Put back what was claimed, or may have been, and surely not sent; no attempt is spent."""
        moves = [unclaimed(job, token) for job in jobs]
        states = await self._persist(self._calls.advance(moves))
        return list(map(word_of, moves, states))

    async def _hand_back(self, hand: Hand) -> list[str]:
        """Give what was not sent to another worker, since this one stops."""
        queues: dict[str, list[str]] = {}
        for job in hand.back:
            queues.setdefault(queue_name(job.provider, job.lane), []).append(job.id)
        for queue, ids in queues.items():
            await self._publish(queue, await self._store.run(self._calls.release(hand.token, ids)))
        return [State.QUEUED] * len(hand.back)

    @asynccontextmanager
    async def _given_back(self, token: str, ids: Sequence[str]) -> AsyncIterator[None]:
        """Give jobs back when Redis is away: that was nobody's death and shall not count as one.

        Any other error counts, so that it does not come back for ever.
        """
        try:
            yield
        except StoreUnavailable:
            await self._persist(self._calls.release(token, ids))
            raise

    @asynccontextmanager
    async def _held(self, ids: Sequence[str]) -> AsyncIterator[None]:
        """Keep the jobs of a message that waits for room from being taken for lost."""
        every = self._settings.lost_after / 3
        touching: list[asyncio.Task[None]] = []

        async def touch() -> None:
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await self._store.run(self._calls.touch(ids))
                await asyncio.sleep(every)

        # Hardly any message is held that long, so that a task is made for those only.
        timer = asyncio.get_running_loop().call_later(every, lambda: touching.append(asyncio.create_task(touch())))
        try:
            yield
        finally:
            timer.cancel()
            await loops.end(*touching)

    async def _persist(self, call: Call[T]) -> T:
        """Make a call that says what has happened already: give up only when nobody would believe it any more."""
        return await self._insist(partial(self._store.run, call))

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        return await insist(work, 10 * self._settings.lease, self._sleep)


def parted(taken: Taken, messages: Sequence[Sequence[str]]) -> list[Taken]:
    """Return for each message what was taken of it; a job that two of them name is the first one's."""
    if len(messages) == 1:
        return [taken]
    records, suspects = {raw[0].decode(): raw for raw in taken.records}, set(taken.suspects)
    idle, shares = dict(taken.idle), list[Taken]()
    for ids in messages:
        mine = dict.fromkeys(ids)
        shares.append(
            Taken(
                records=[records.pop(id_) for id_ in mine if id_ in records],
                suspects=[id_ for id_ in mine if id_ in suspects],
                idle=[(id_, idle[id_]) for id_ in mine if id_ in idle],
                at=taken.at,
            )
        )
        suspects.difference_update(mine)
        # What one of them has, the next finds in its hands.
        idle |= {id_: State.QUEUED for id_ in mine if id_ not in idle}
    return shares


def dealt_out(answers: Iterable[T], asked: Sequence[Sequence[object]]) -> list[list[T]]:
    """Return for each of those who asked together as many answers as it asked for, in order."""
    left = iter(answers)
    return [list(islice(left, len(one))) for one in asked]


def summary(words: Sequence[str]) -> str:
    """Return one job's word as it is, of several how often each: "98 sent, 2 failed:invalid"."""
    if len(words) == 1:
        return words[0]
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


def _internal(message: str) -> Failure:
    return Failure(kind=FailureKind.INTERNAL, code="internal", message=message)
