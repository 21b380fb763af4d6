"""The road of a notice: moved from the stream to its endpoint, taken, told, written down. It knows no Celery of ours.

`run` moves events on and says which endpoints are due; `tell` tells one endpoint all that is due there, many at once,
one at a time of each job. What is told twice is harmless: a notice has the same id at each try, so that one whose
teller died is simply told again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from dispatcher import notices, records
from dispatcher.calls import MOST, Call, call_name
from dispatcher.endpoints import NoticeCalls, Told
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.events import STREAM, Event, EventStream
from dispatcher.notices import Target
from dispatcher.store import milliseconds_of
from workers.consumer_task import ConsumerTasks
from workers.insist import insist
from workers.schedule import delay
from workers.webhook import Answer, Outcome, Webhooks

if TYPE_CHECKING:
    from dispatcher.endpoints import Notice
    from dispatcher.jobs import Job
    from dispatcher.settings import Settings
    from dispatcher.store import AsyncJobStore

log = logging.getLogger("dispatcher.notify")

T = TypeVar("T")

#: Seconds that one message tells an endpoint at most, so that others get their turn.
_AT_A_TIME: Final = 10.0

#: Seconds for which it is not worth letting an endpoint go.
_SOON: Final = 0.2

#: Seconds that news are waited for at most, and from one look at them to the next.
_BLOCK: Final = 1.0
_BETWEEN: Final = 0.02

#: Seconds that an endpoint may have itself left alone by `Retry-After`.
_LONGEST_PAUSE: Final = 3600.0

#: Threads that publish tasks to consumers' brokers.
_THREADS: Final = 16

#: Tries in a row without an answer of a host, after which few of its endpoints are told at once; and how few.
#: Where each job has a URL of its own, they would take all places, each for the time of a callback.
_SILENT_AFTER: Final = 3
_PROBES: Final = 4

#: Seconds without an answer that count as such, and hosts that are remembered.
_LONG: Final = 1.0
_HOSTS: Final = 1000

#: What is said of an endpoint that waits for its host.
_LEFT: Final = "left alone"

#: What is said of an endpoint that one message found in another's hands.
_BUSY: Final = "told by another"


class Notifier:
    """Tells consumers."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncJobStore,
        publish: Callable[[str], Awaitable[bool]],
        *,
        webhooks: Webhooks | None = None,
        tasks: ConsumerTasks | None = None,
    ) -> None:
        """`publish(endpoint)` has a worker tell an endpoint; it never raises, and answers whether it could."""
        self._settings = settings
        self._store = store
        self._publish = publish
        self._calls = NoticeCalls(settings)
        self._sealer = settings.sealer()
        self._tasks = tasks or ConsumerTasks(settings)
        self._threads = ThreadPoolExecutor(_THREADS, "tasks")
        self._webhooks = webhooks
        if webhooks is None and settings.callback_secret.get_secret_value():
            self._webhooks = Webhooks(settings)
        self._stopping = False
        #: As few sockets as a worker of an account has: a process may have a thousand files open, as a rule.
        self._wire = asyncio.Semaphore(settings.connections)
        #: Endpoints that are due and could not be published.
        self._unsent: list[str] = []
        #: Hosts by the tries in a row that they let pass, and how many of a host's endpoints are told now.
        self._silent: dict[str, int] = {}
        self._probing = Counter[str]()

    def stop(self) -> None:
        """Take no more: what is on the wire comes to its end."""
        self._stopping = True

    async def close(self) -> None:
        """Close all connections."""
        if self._webhooks is not None:
            await self._webhooks.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._tasks.close)

    # -- moving on ---------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Say who is told where a job names nobody. Raises `StoreUnavailable`."""
        if self._webhooks is None:
            log.warning(
                "DISPATCHER_CALLBACK_SECRET is not set: callbacks by Celery go, those by HTTP wait; once it is set, "
                "dispatcher callbacks resume ENDPOINT has them told at once"
            )
        told = Target(url=self._settings.callback_url)
        callback = notices.encode(told, self._settings.keyed, self._sealer) if told else ""
        endpoint = callback.partition(" ")[0]
        wanted = notices.patterns(self._settings.callback_events)
        await self._store.run(self._calls.default(endpoint, wanted, callback))

    async def run(self) -> None:
        """Move events on until cancelled, whatever happens to Redis or the broker meanwhile."""
        begun, told = False, ""
        while True:
            try:
                if not begun:
                    await self.begin()
                    begun = True
                cursor, wait = await self.look()
                if told:
                    log.warning("Redis answers again")
                    told = ""
                await self._news(cursor, wait)
            except StoreUnavailable as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s", told)
                await asyncio.sleep(1)
            except Exception as error:  # noqa: BLE001 - what stops here would leave every consumer without a word
                log.error("moving events on stumbled: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
                await asyncio.sleep(1)
            await asyncio.sleep(_BETWEEN)

    async def look(self) -> tuple[str, float]:
        """Move on what is there, and have what is due told; return where the stream goes on, and when to look again."""
        gathered = await self._store.run(self._calls.gather(publishes=True))
        due = [*dict.fromkeys((*self._unsent, *gathered.due))]
        self._unsent = [one for one in due if not await self._publish(one)]
        if gathered.moved:
            return gathered.cursor, 0
        wait = _BLOCK if gathered.wait is None else min(gathered.wait, _BLOCK)
        return gathered.cursor, wait

    async def _news(self, cursor: str, seconds: float) -> None:
        """Return once something is in the stream behind `cursor`, or after some seconds."""
        if seconds <= 0 or self._stopping:
            return
        with self._store.errors():
            await self._store.redis.xread({STREAM: cursor or "$"}, count=1, block=max(1, int(seconds * 1000)))

    # -- telling -----------------------------------------------------------------------------------------------------

    async def tell(self, endpoints: Sequence[str]) -> str:
        """Tell endpoints what is due there; return a short word for whoever watches, such as "2 delivered, 1 again"."""
        said: Counter[str] = Counter()
        for each in await asyncio.gather(*(self._tell_one(one) for one in endpoints)):
            said.update(each)
        return ", ".join(f"{count} {word}" for word, count in sorted(said.items())) or "nothing due"

    async def _tell_one(self, endpoint: str) -> Counter[str]:
        """Tell one endpoint, unless enough of its host's wait for an answer: it comes again as after a lost message."""
        host = await self._silent_host(endpoint)
        if host and self._probing[host] >= _PROBES:
            return Counter({_LEFT: 1})
        self._probing[host] += 1
        try:
            return await self._drain(endpoint)
        finally:
            self._probing[host] -= 1
            if not self._probing[host]:
                del self._probing[host]

    async def _silent_host(self, endpoint: str) -> str:
        """Return the host of an endpoint as it is shown where it does not answer, else nothing."""
        if not self._silent:
            return ""
        try:
            with self._store.errors():
                shown: Any = await self._store.redis.hget(f"d:t:{endpoint}", "s")
        except StoreUnavailable:
            return ""
        host = (shown or b"").decode()
        return host if self._silent.get(host, 0) >= _SILENT_AFTER else ""

    def _heard(self, host: str, answer: Answer) -> Answer:
        """Note whether a host answers."""
        if answer.status or answer.seconds < _LONG:
            self._silent.pop(host, None)
        elif host in self._silent or len(self._silent) < _HOSTS:
            self._silent[host] = self._silent.get(host, 0) + 1
        return answer

    async def _drain(self, endpoint: str) -> Counter[str]:
        """Tell one endpoint until nothing is due there, or others wait for their turn."""
        said: Counter[str] = Counter()
        token, until = call_name(), time.monotonic() + _AT_A_TIME
        flying: set[asyncio.Task[None]] = set()
        held = True
        try:
            while held and not self._stopping and time.monotonic() < until:
                taken = await self._store.run(self._calls.take(endpoint, token, call_name(), len(flying)))
                held = not taken.busy
                for notice, event in await self._events(taken.notices):
                    flying.add(asyncio.create_task(self._one(endpoint, token, notice, event, said)))
                if flying:
                    _, flying = await asyncio.wait(flying, timeout=_BLOCK, return_when=asyncio.FIRST_COMPLETED)
                elif taken.wait is None or taken.wait > _SOON:
                    break
                else:
                    await asyncio.sleep(taken.wait)
            if not (held or said or flying):
                return Counter({_BUSY: 1})
        except StoreUnavailable as error:
            # The time of who had it in hand passes, and it is told again.
            log.warning("%s", error)
        finally:
            if flying:
                await asyncio.wait(flying)
        await self._leave(endpoint, token)
        return said

    async def _leave(self, endpoint: str, token: str) -> None:
        try:
            await self._store.run(self._calls.leave(endpoint, token))
        except StoreUnavailable as error:
            log.warning("%s", error)

    async def _one(
        self, endpoint: str, token: str, notice: Notice, event: Callable[..., Event], said: Counter[str]
    ) -> None:
        """Tell one notice, and write what came of it."""
        answer = await self._told(endpoint, notice, event)
        told, again = _outcome(answer, notice.tries + 1)
        pause = min(answer.retry_after or 0.0, _LONGEST_PAUSE)
        call = self._calls.done(
            endpoint,
            token,
            notice.cursor,
            told,
            words=answer.words,
            again=again,
            pause=0.0 if told != Told.AGAIN else pause,
        )
        said[told] += 1
        if told != Told.DELIVERED:
            log.info("%s was not delivered (%s): %s", notice.id, told, answer.words)
        try:
            await self._persist(call)
        except StoreUnavailable:
            log.error("Redis is away: what came of %s cannot be written, and it is told again", notice.id)  # noqa: TRY400 - a traceback would not say more

    async def _told(self, endpoint: str, notice: Notice, event: Callable[..., Event]) -> Answer:
        try:
            ids, whole = notices.decode(notice.callback, self._sealer)
            target = notices.only(whole, ids, endpoint)
            if target.task:
                document = msgspec.to_builtins(event(reveal=False))
                return await self._by_task(target, notice.id, document)
            if self._webhooks is None:
                return Answer(
                    outcome=Outcome.AGAIN, words="DISPATCHER_CALLBACK_SECRET is not set, which signs callbacks"
                )
            body = msgspec.json.encode(event(reveal=self._settings.callback_reveal))
            async with self._wire:
                answer = await self._webhooks.post(target.url, notice.id, int(time.time()), body)
            return self._heard(notices.mask(target.url), answer)
        except ConfigurationError:
            words = "where it is to be told is sealed with another key than DISPATCHER_SECRET_KEY holds"
            return Answer(outcome=Outcome.AGAIN, words=words)
        except Exception as error:  # noqa: BLE001 - one that cannot be told must not keep others waiting
            log.error("%s cannot be told: %s", notice.id, error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
            return Answer(outcome=Outcome.AGAIN, words="it could not be written; the worker's log says why")

    async def _by_task(self, target: Target, id_: str, document: dict[str, Any]) -> Answer:
        loop = asyncio.get_running_loop()
        send = loop.run_in_executor(self._threads, self._tasks.send, target.task, target.queue, id_, document)
        try:
            async with asyncio.timeout(self._settings.callback_timeout):
                # Given up, it is not sent later where it has not begun.
                return await send
        except TimeoutError:
            return Answer(outcome=Outcome.AGAIN, words="the broker did not take it in time")

    async def _events(self, taken: Sequence[Notice]) -> list[tuple[Notice, Callable[..., Event]]]:
        """Return notices, each with what makes its event, revealed or not. Raises `StoreUnavailable`."""
        ids = [*dict.fromkeys(one.fields[b"i"].decode() for one in taken if b"n" in one.fields)]
        stored: dict[str, dict[bytes, bytes]] = {}
        now = 0
        for start in range(0, len(ids), MOST):
            some = ids[start : start + MOST]
            with self._store.errors():
                async with self._store.redis.pipeline(transaction=False) as pipe:
                    pipe.time()
                    for one in some:
                        pipe.hgetall(f"d:j:{one}")
                    told, *found = await pipe.execute()
            now = milliseconds_of(told)
            stored |= {one: fields for one, fields in zip(some, found, strict=True) if fields}

        def jobs(wanted: list[str], reveal: bool) -> dict[str, Job]:  # noqa: FBT001 - as `EventStream` calls it
            return {
                one: records.job(one, stored[one], self._sealer, now, reveal=reveal) for one in wanted if one in stored
            }

        # It asks nothing of a store: the rows are there, and so are the jobs.
        stream = EventStream(self._store, self._sealer, jobs)  # type: ignore[arg-type]  # see above

        def event(notice: Notice) -> Callable[..., Event]:
            def make(*, reveal: bool) -> Event:
                (made,) = stream.told([(notice.cursor.encode(), {**notice.fields})], reveal=reveal)
                return made

            return make

        return [(one, event(one)) for one in taken]

    async def _persist(self, call: Call[T]) -> T:
        """Make a call that says what has happened, for as long as nobody else may have it in hand."""
        return await insist(partial(self._store.run, call), self._settings.callback_timeout)


def _outcome(answer: Answer, tries: int) -> tuple[Told, float]:
    """Return what comes of a notice after so many tries, and in how many seconds it is told again."""
    if answer.outcome != Outcome.AGAIN:
        return Told(answer.outcome.value), 0.0
    again = delay(tries, retry_after=answer.retry_after, random=random.random)
    return (Told.FAILED, 0.0) if again is None else (Told.AGAIN, again)
