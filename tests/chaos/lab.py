"""A laboratory: one deployment for one scenario, what was done to it, and what its producers remember."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final, Self, TypeVar

import msgspec
import redis

from dispatcher import Batch, Dispatcher, Job, Message, StoreUnavailable
from tests import support
from tests.acceptance.test_privacy import kept, unpacked
from tests.chaos import private
from tests.chaos.checker import Broken, Count, Rule, Run, judge, lost, repeated
from tests.support import Deployment, Process, Server, Worker, accepted, phones, until
from workers.sandbox.client import Sandbox

P = TypeVar("P")

#: Seconds until a producer tries again where the store did not answer.
_AWAY: Final = 0.2

#: Seconds until all must be settled unless a scenario says otherwise; a loaded machine needs some of them.
_PATIENCE: Final = 90.0

#: Jobs that are read with one call.
_PAGE: Final = 500

#: What a producer sends, and how often of a hundred times: a text, a code, a text that overtakes, a portion of a batch.
_MIX: Final = {"text": 88, "code": 4, "urgent": 4, "batch": 4}

#: Texts in a portion of a batch.
_PORTION: Final = 25

#: Settings under which no breaker opens, for scenarios that ask what becomes of each text while all go wrong.
NO_BREAKER: Final = {"breaker_sample": "1000"}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario showed."""

    scenario: str
    #: What was done, and how often.
    injected: Mapping[str, int]
    #: How many jobs there were, and of these: vanished or stuck, accepted too often, of which nobody knows.
    jobs: int
    lost: int
    repeated: int
    unknown: int
    #: Seconds from the end of a fault until the provider accepted something again, the longest of all faults; and from
    #: the end of the last until all jobs were settled. None where there was nothing to recover from.
    resumed: float | None
    settled: float | None
    broken: Sequence[Broken]
    #: Seconds that all of it took.
    seconds: float


class Lab:
    """Real parts, and hands to break them with. Everything of it is gone when it is closed, whatever happened."""

    def __init__(self, name: str, seed: int, folder: Path, say: Callable[[str], None] = lambda _words: None) -> None:
        """Everything is started when it is entered; `say` is told what happens."""
        self.name = name
        #: All that a scenario leaves to chance comes from here.
        self.random = Random(f"{name} {seed}")
        self.folder = folder
        self._say = say
        self._open = ExitStack()
        self._closed = False
        self._workers = count()
        self._numbers = iter(phones(40_000))
        self._drawing = threading.Lock()
        self._began = time.monotonic()
        #: When faults ended; and of these when work waited then.
        self._healed: list[float] = []
        self._waited: list[float] = []
        self._settled_at: float | None = None
        self._demanded: list[Broken] = []
        self._also: dict[str, str] = {}
        self.injected: Counter[str] = Counter()
        #: Whom texts are sent through.
        self.provider = "textgoto"
        #: What producers remember: numbers by the ids that were accepted, and by those of which nobody told them.
        self.accepted: dict[str, str] = {}
        self.maybe: dict[str, str] = {}
        #: Of the accepted, those that may vanish, since the scenario took from the store what it had promised to keep.
        self.excused: set[str] = set()
        self.server: Server
        self.sandbox: Sandbox
        #: Further ones, where a scenario has them, whose ledgers count as well.
        self.others: list[Sandbox] = []
        #: A scenario may change its settings before it starts workers.
        self.deployment: Deployment
        #: An application of the usual kind, for whatever the scenario wants to ask.
        self.d: Dispatcher

    def __enter__(self) -> Self:
        """Start a Valkey and a sandbox of its own."""
        try:
            self.server = self._open.enter_context(Server(self.folder / "valkey"))
            self.sandbox = self._open.enter_context(support.sandbox(self.folder))
            self.deployment = Deployment(self.server.url, self.sandbox, self.folder, private.KEYS)
            self._open.callback(self.deployment.close)
            self.d = self.client()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def enter(self, part: AbstractContextManager[P]) -> P:
        """Have a part of one's own, such as another server, which is gone when the laboratory is."""
        return self._open.enter_context(part)

    def close(self) -> None:
        """End every process and thread of it; harmless twice."""
        self._closed = True
        self._open.close()

    # -- parts -------------------------------------------------------------------------------------------------------

    @property
    def redis(self) -> Any:
        """A client of its Redis."""
        return self.deployment.redis

    def client(self, **overrides: Any) -> Dispatcher:
        """Return another `Dispatcher`, with the settings of the others."""
        # Nobody types the codes of a load.
        return self.deployment.client(**{**private.KEYS, "guards": "off", **overrides})

    def start_worker(self, *options: str, **settings: str) -> Worker:
        """Start a worker for `textgoto`, or `queues=...`; the caller waits until it is `ready`."""
        return self.deployment.start_worker(*options, name=f"worker{next(self._workers)}", **settings)

    def worker(self, *options: str, **settings: str) -> Worker:
        """Start a worker and return once it consumes."""
        return self.start_worker(*options, **settings).ready()

    def process(self, arguments: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start `python ARGUMENTS` with the workers' settings."""
        one = Process(arguments, {**self.deployment.environment, **(environment or {})}, self.folder, name)
        self._open.callback(one.kill)
        return one

    # -- jobs --------------------------------------------------------------------------------------------------------

    def number(self) -> str:
        """Return a number that nothing else in this laboratory has."""
        with self._drawing:
            return next(self._numbers)

    def text(self) -> str:
        """Return a text that must be seen nowhere but on a phone."""
        return f"{private.TEXT} {self.name}"

    def messages(self, number_of: int) -> list[Message]:
        """Return so many messages, each to a number of its own."""
        return [Message(self.number(), self.text()) for _ in range(number_of)]

    def send(self, number: str = "", client: Dispatcher | None = None, **about: Any) -> Job:
        """Enqueue a text, and remember it; to a number of its own unless it is named."""
        number = number or self.number()
        with self.remembering([number]):
            job = (client or self.d).send(number, self.text(), **{"provider": self.provider, **about})
            self.accepted[job.id] = number
        return job

    def send_many(self, number_of: int, client: Dispatcher | None = None, **about: Any) -> Batch:
        """Enqueue so many texts as a batch, and remember them."""
        messages = self.messages(number_of)
        numbers = [one.to for one in messages]
        with self.remembering(numbers):
            batch = (client or self.d).send_many(messages, **{"provider": self.provider, **about})
            self.accepted |= dict(zip(batch.jobs.ids, numbers, strict=True))
        return batch

    @contextmanager
    def remembering(self, numbers: Sequence[str]) -> Iterator[None]:
        """Remember jobs to these numbers of which nobody says whether they are accepted: Redis did not answer."""
        try:
            yield
        except StoreUnavailable as error:
            self.maybe |= dict(zip(error.job_ids, numbers, strict=False))
            raise

    @contextmanager
    def load(
        self,
        *,
        rate: float = 60.0,
        producers: int = 2,
        most: int = 6000,
        backlog: int = 400,
        client: Callable[[], Dispatcher] | None = None,
        **mix: int,
    ) -> Iterator[None]:
        """Keep enqueuing meanwhile: about `rate` jobs a second by several threads, `most` in all.

        They go on whatever happens to Redis, and remember what was accepted; they pause while more than `backlog` jobs
        are queued, so that a slow machine has no more to do afterwards than a fast one. `client` makes what each
        enqueues with. `mix` says of a hundred calls how many enqueue a "text", a "code", something "urgent", a "batch".
        """
        shares = mix or _MIX
        jobs_a_call = 1 + shares.get("batch", 0) * (_PORTION - 1) / sum(shares.values())
        between = producers * jobs_a_call / rate
        over, begun, errors = threading.Event(), len(self.accepted), list[Exception]()

        def produce(chance: Random, one: Dispatcher) -> None:
            kinds, weights = list(shares), list(shares.values())
            while not over.wait(chance.uniform(0, 2 * between)) and len(self.accepted) - begun < most:
                try:
                    if self._queued(one) < backlog:
                        self._enqueue(one, chance.choices(kinds, weights)[0])
                except StoreUnavailable:
                    over.wait(_AWAY)
                except Exception as error:  # noqa: BLE001 - of a thread nobody would hear it
                    errors.append(error)
                    return

        if shares.get("code") and private.NUMBER_OF_THE_CODE not in self.accepted.values():
            self._enqueue(self.d, "code", private.NUMBER_OF_THE_CODE)
        clients = [(client or self.client)() for _ in range(producers)]
        chances = [Random(self.random.random()) for _ in clients]
        threads = [threading.Thread(target=produce, args=pair) for pair in zip(chances, clients, strict=True)]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            over.set()
            for one in threads:
                one.join()
        if errors:
            raise errors[0]

    def _queued(self, client: Dispatcher) -> int:
        """Return how many jobs are queued, as far as a producer can tell."""
        with contextlib.suppress(redis.RedisError):
            return int(client._store.redis.zcard(f"d:i:{self.provider}:queued"))
        return 0

    def _enqueue(self, client: Dispatcher, kind: str, number: str = "") -> None:
        if kind == "batch":
            self.send_many(_PORTION, client)
            return
        number = number or self.number()
        with self.remembering([number]):
            if kind == "code":
                job = client.verify(number, template=f"{self.text()} [CODE]", provider=self.provider)
            else:
                lane = "high" if kind == "urgent" else None
                job = client.send(number, self.text(), provider=self.provider, lane=lane)
            self.accepted[job.id] = number

    # -- what is done to it ------------------------------------------------------------------------------------------

    def say(self, words: str) -> None:
        """Tell whoever watches."""
        self._say(f"{self.name}: {words}")

    def inject(self, what: str, times: int = 1, *, over: bool = True) -> None:
        """Note that something was done to it; unless it is `over` at once, the fault lasts until `heal`."""
        self.injected[what] += times
        if over:
            self.heal()

    def heal(self) -> None:
        """Note that a fault is over: from now on recovery is timed, of work where any waited."""
        self._healed.append(time.time())
        try:
            waits = bool(self.busy())
        except redis.RedisError:
            waits = True
        if waits:
            self._waited.append(self._healed[-1])

    def pause(self, least: float, most: float) -> None:
        """Let some time pass."""
        time.sleep(self.random.uniform(least, most))

    def demand(self, what: str, *, holds: bool) -> None:
        """Break the scenario where a promise of its own does not hold."""
        if not holds:
            self._demanded.append(Broken(Rule.PROMISE, self.name, what))

    def in_time(self, what: str, seconds: float, limit: float) -> None:
        """Demand that something took no longer than it may."""
        self.demand(f"{what} took {seconds:.1f} s, at most {limit:g} s are promised", holds=seconds <= limit)

    # -- what became of it -------------------------------------------------------------------------------------------

    def sending(self) -> set[str]:
        """Return the jobs that are claimed now: a request for each may be on the wire."""
        return {id_.decode() for id_ in self.redis.zrange("d:l", 0, -1)}

    def busy(self) -> int:
        """Return how many jobs are queued or being sent, those that are scheduled left out."""
        now = time.time() * 1000
        total = 0
        for provider in self.redis.smembers("d:p"):
            name = provider.decode()
            total += sum(self.redis.zcard(f"d:i:{name}:{state}") for state in ("queued", "sending"))
            for queue in (name, f"{name}.high"):
                late = [id_ for id_, _ in self.redis.zrangebyscore(f"d:w:{queue}", now, "+inf", withscores=True)]
                total -= sum(self._scheduled(id_.decode()) for id_ in late)
        return total

    def _scheduled(self, id_: str) -> bool:
        waits: bytes = self.redis.hget(f"d:j:{id_}", "w") or b""
        return waits.startswith(b"time ")

    def settle(self, within: float = _PATIENCE) -> float:
        """Return how many seconds after the last fault all were settled or truly scheduled; gives up after `within`."""
        ends = time.monotonic() + within
        since = self._healed[-1] if self._healed else time.time()
        self._settled_at = None
        while time.monotonic() < ends and not self._closed:
            with contextlib.suppress(redis.RedisError):
                if not self.busy():
                    self._settled_at = time.time()
                    break
            time.sleep(0.05)
        return time.time() - since

    def unknown(self) -> int:
        """Return how many jobs are unknown now."""
        return sum(self.redis.zcard(f"d:i:{provider.decode()}:unknown") for provider in self.redis.smembers("d:p"))

    def jobs(self) -> dict[str, Job]:
        """Return all jobs that the store has, revealed, by id."""
        ids = sorted(key.decode().removeprefix("d:j:") for key in self.redis.scan_iter("d:j:*", count=1000))
        found: dict[str, Job] = {}
        for start in range(0, len(ids), _PAGE):
            found |= self.d.get_many(ids[start : start + _PAGE], reveal=True)
        return found

    def also(self, said: Mapping[str, str]) -> None:
        """Search for what is private in this, too, by where it was said."""
        self._also |= said

    def finish(self) -> Outcome:
        """Look at everything, judge it, and close."""
        jobs = self.jobs()
        run = Run(
            rows=[row for one in (self.sandbox, *self.others) for row in one.ledger()],
            jobs=jobs,
            accepted=dict(self.accepted),
            excused=frozenset(self.excused),
            batches=self._batches(jobs),
            counted=[seen for one in (self.sandbox, *self.others) for seen in one.limited().counted],
            seen={**self._said(jobs), **self._also},
            find=private.found,
            now=datetime.now(UTC),
        )
        broken = [*judge(run), *self._demanded]
        self.close()
        ended = self._settled_at if self._healed else None
        return Outcome(
            scenario=self.name,
            injected=dict(self.injected),
            jobs=len({*run.accepted, *run.jobs}),
            lost=len(lost(run)),
            repeated=len(repeated(run)),
            unknown=sum(job.state == "unknown" for job in jobs.values()),
            resumed=self._resumed(run),
            settled=ended - self._healed[-1] if ended else None,
            broken=broken,
            seconds=time.monotonic() - self._began,
        )

    def failed(self, broken: Broken) -> Outcome:
        """Say that the scenario did not come to its end."""
        return Outcome(
            scenario=self.name,
            injected=dict(self.injected),
            jobs=len(self.accepted),
            lost=0,
            repeated=0,
            unknown=0,
            resumed=None,
            settled=None,
            broken=[broken, *self._demanded],
            seconds=time.monotonic() - self._began,
        )

    def _batches(self, jobs: Mapping[str, Job]) -> dict[str, Count]:
        sizes = Counter(job.batch_id for job in jobs.values() if job.batch_id)
        return {id_: Count(size, self.d.batch_state(id_).counts) for id_, size in sizes.items()}

    def _said(self, jobs: Mapping[str, Job]) -> dict[str, str]:
        """Stop everything, and return what was kept, told and logged."""
        masked: dict[str, Job] = {}
        ids = list(jobs)
        for start in range(0, len(ids), _PAGE):
            masked |= self.d.get_many(ids[start : start + _PAGE])
        events = [event.data for event in self.d.events("0", timeout=0)]
        said = {
            "what Redis keeps": unpacked(kept(self.redis)).decode("latin-1"),
            "the jobs": msgspec.json.encode(list(masked.values())).decode(),
            "the events": msgspec.json.encode(events).decode(),
        }
        self.deployment.close()
        self.server.stop()
        files = [one for one in self.server.folder.rglob("*") if one.is_file()]
        said["Redis' files"] = "".join(one.read_bytes().decode("latin-1") for one in files)
        return said | {f"the log of {one.stem}": one.read_text(errors="replace") for one in self.folder.rglob("*.log")}

    def _resumed(self, run: Run) -> float | None:
        """Return the longest time from the end of a fault until the provider took something again."""
        taken = sorted(row.at for row in accepted(run.rows))
        waits = [next((at - healed for at in taken if at >= healed), None) for healed in self._waited]
        return max((wait for wait in waits if wait is not None), default=None)


def soon(look: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
    """Return once `look` answers something true. Raises `AssertionError` after `seconds`; then it is broken."""
    until(look, seconds, what)
