"""Asking providers what became of jobs: receipts where none was pushed, and evidence for what ended unknown.

Each worker process asks for the accounts it serves. A job is asked about again after as long as it has waited by
then, until it has waited too long; whoever dies meanwhile only skips one look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from dispatcher import records
from dispatcher.calls import Calls, Word
from dispatcher.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from dispatcher.optouts import OptOuts
from dispatcher.outcomes import Failure, Found, Outcome
from dispatcher.states import State
from dispatcher.store import Caller
from workers import consent
from workers.adapters import receipt_key
from workers.execute import Sender
from workers.lanes import Turns
from workers.limits import Limiter, Permit
from workers.providers.base import Adapter, Group, News, Response
from workers.suspensions import Suspensions

if TYPE_CHECKING:
    from dispatcher.jobs import Work
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")

#: What the limiter is told of an answer, whatever it says of the jobs.
_ANSWERED: Final = Found(result={})

#: Jobs that one look asks about at most; the rest of them is due in the next.
_MOST: Final = 100

#: Seconds that a permit is waited for at most, and how often: what is asked for the next time waits for twice as long.
_SOON: Final = 2.0
_TRIES: Final = 60

#: Twice the requests that ask at once, where the provider takes any number.
_PLACES: Final = 32


class Inquiries:
    """Asks what became of jobs, some at a time, within the provider's limits."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        store: Caller,
        limiter: Limiter,
        transport: Sender,
        *,
        turns: Turns,
        suspensions: Suspensions,
    ) -> None:
        """Ask for the accounts in `adapters`, sharing `turns` and `suspensions` with what sends."""
        self._settings = settings
        self._adapters = adapters
        self._store = store
        self._limiter = limiter
        self._transport = transport
        self._turns = turns
        self._suspensions = suspensions
        self._calls = Calls(settings)
        self._sealer = settings.sealer()
        self._optouts = OptOuts(settings)

    async def run(self) -> None:
        """Look every few seconds until cancelled, whatever happens to Redis or the providers meanwhile."""
        # Each account by itself: one that is slow holds up no other.
        await asyncio.gather(*map(self._keep_looking, self._adapters))

    async def _keep_looking(self, account: str) -> None:
        while True:
            try:
                while await self._look_at(account) >= _MOST:
                    pass
            except StoreUnavailable:
                # The clock, which asks more often, says so.
                pass
            except Exception as error:  # noqa: BLE001 - what became of jobs would never be asked again
                log.error("asking what became of jobs stumbled: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
            await asyncio.sleep(self._settings.sweep_every)

    async def look(self) -> int:
        """Ask about the jobs that it is time to ask about; return how many there were. Raises `StoreUnavailable`."""
        return sum(await asyncio.gather(*map(self._look_at, self._adapters)))

    async def _look_at(self, account: str) -> int:
        await self._suspensions.fresh()
        if self._suspensions.is_suspended(account):
            return 0
        adapter = self._adapters[account]
        polls = adapter.capabilities.receipts in {"poll", "push and poll"}
        clears_up = any(one.evidence for one in adapter.operations.values())
        raw = await self._store.run(self._calls.follow(account, sent=polls, unknown=clears_up, most=_MOST))
        groups = _groups(adapter, [job for one in raw if (job := self._opened(one)) is not None])
        # A few at a time, so that what is to be sent finds a place; a look that fails is made again.
        places = asyncio.Semaphore(max(1, (adapter.at_once or _PLACES) // 2))
        words = await asyncio.gather(*(self._ask(adapter, group, places) for group in groups))
        told = _agreed(groups, [word for some in words for word in some])
        if told:
            await self._store.run(self._calls.receipts(told))
        return len(raw)

    def _opened(self, raw: Sequence[bytes]) -> Work | None:
        try:
            return records.followed(raw, self._sealer)
        except (ConfigurationError, msgspec.MsgspecError, InvalidRequest):
            # Its request is sealed for others, or of a later release: those ask.
            return None

    async def _ask(self, adapter: Adapter, group: Group, places: asyncio.Semaphore) -> list[Word]:
        answered = None
        async with places:
            for _ in range(_TRIES):
                async with self._turns.take(adapter.account):
                    grant = await self._limiter.acquire(adapter.account, group)
                    if isinstance(grant, Permit):
                        answered = await self._answer(adapter, group, grant)
                        break
                if grant.reason != "limit" or grant.delay > _SOON:
                    break
                await asyncio.sleep(grant.delay)
        if answered is None:
            return []
        # That the account may not ask says nothing of the operation that is asked about.
        if isinstance(answered, Failure) and not answered.permission:
            self._suspensions.learn(group.jobs[0], answered)
        await self._suspensions.save()
        told = {} if isinstance(answered, Failure) else answered
        refused = ((adapter, job.to, told[job.id].failure) for job in group.jobs if job.text and job.id in told)
        for call in consent.refusals(self._optouts, refused):
            await self._store.run(call)
        return [self._word(job, told[job.id]) for job in group.jobs if job.id in told]

    async def _answer(self, adapter: Adapter, group: Group, permit: Permit) -> dict[str, News] | Failure | None:
        """Make the request when its time has come; None where it is not to be made any more."""
        outcomes: dict[str, Outcome] = {}
        began = time.monotonic()
        try:
            await asyncio.sleep(permit.wait)
            late = time.monotonic() - began - permit.wait > permit.good_for
            if late or self._suspensions.is_suspended(adapter.account):
                return None
            began = time.monotonic()
            answer = await self._transport.send(group.request)
            news = answer if isinstance(answer, Failure) else _news(adapter, answer, group)
            outcomes[group.jobs[0].id] = news if isinstance(news, Failure) else _ANSWERED
            return news
        finally:
            self._limiter.learn(adapter.account, permit, outcomes, time.monotonic() - began)

    def _word(self, job: Work, news: News) -> Word:
        result = self._sealer.seal(msgspec.json.encode(news.result), job.id) if news.state == State.COMPLETED else b""
        told = word(job.provider, news, own=job.id, result=result)
        if news.state != State.SENT:
            return told
        # It was taken after all: its receipt is expected as after an answer of its own.
        expected = self._adapters[job.provider].capabilities.receipts != "none"
        key = receipt_key(self._settings, self._adapters[job.provider], news.ref, job.to) if expected else ""
        return msgspec.structs.replace(told, key=key, fields={**told.fields, "y": "expected" if expected else "none"})


def word(account: str, news: News, *, own: str = "", key: str = "", result: bytes = b"") -> Word:
    """Return `news` as it is written to a job's record; `result` is sealed."""
    fields: dict[str, bytes | str | int] = {"m": news.ref} if news.ref else {}
    if news.failure is not None:
        fields["e"] = records.encode_failure(news.failure)
    if result:
        fields["r"] = result
    return Word(provider=account, own=own, key=key, state=news.state, detail=records.line(news.evidence), fields=fields)


def _agreed(groups: Iterable[Group], words: Sequence[Word]) -> list[Word]:
    """Leave out that a job failed where not every request about it said so; a message may be asked for day by day."""
    asked = Counter(job.id for group in groups for job in group.jobs)
    failed = Counter(word.own for word in words if word.state == State.FAILED)
    sure = {word.own: word for word in words if word.state == State.FAILED and failed[word.own] == asked[word.own]}
    return [word for word in words if word.state != State.FAILED] + list(sure.values())


def _news(adapter: Adapter, answer: Response, group: Group) -> dict[str, News] | Failure:
    try:
        return adapter.news(answer, group)
    except Exception as error:  # noqa: BLE001 - an adapter's bug must not keep others from being asked about
        log.error("%s cannot read what became of jobs: %s", adapter.name, error.__class__.__name__)  # noqa: TRY400 - a traceback could show the answer
        return {}


def _groups(adapter: Adapter, jobs: Sequence[Work]) -> tuple[Group, ...]:
    try:
        return adapter.inquire(jobs) if jobs else ()
    except Exception as error:  # noqa: BLE001 - an adapter's bug must not stop the clock
        log.error("%s cannot ask what became of jobs: %s", adapter.name, error.__class__.__name__)  # noqa: TRY400 - a traceback could show a number
        return ()
