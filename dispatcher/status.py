"""One look at everything that runs: Redis, the broker, each account's workers, and what waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from kombu.exceptions import KombuError

from dispatcher import callbacks, endpoints, groups, heartbeats
from dispatcher.accounts import Accounts
from dispatcher.callbacks import Counted
from dispatcher.calls import Calls
from dispatcher.endpoints import Endpoint
from dispatcher.errors import StoreUnavailable
from dispatcher.groups import EventGroup
from dispatcher.heartbeats import WELL, Health, Worker
from dispatcher.jobs import SCHEMA, moment
from dispatcher.notices import NOTIFY
from dispatcher.queues import both_queues, celery_app, depth
from dispatcher.settings import Settings
from dispatcher.states import State
from dispatcher.store import JobStore
from dispatcher.suspensions import Suspension

if TYPE_CHECKING:
    from celery import Celery

#: Seconds after which an account without workers and without work is taken for given up, not for broken.
GIVEN_UP: Final = 86400.0


class Server(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server that is needed. `problem` says why it cannot be used, "" where it can."""

    address: str
    kind: str = ""
    version: str = ""
    memory: int | None = None
    problem: str = ""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, what is to be thought of it, and when it last beat."""

    node: str
    health: Health
    busy: int
    slots: int
    at: datetime


class AccountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An account: its workers and its work."""

    name: str
    adapter: str
    sandbox: bool
    workers: list[WorkerStatus]
    #: Messages on the broker by queue, each of one job or up to a hundred; None where it did not answer.
    queues: dict[str, int | None]
    #: Jobs by state, of those that are not over: queued (parked among them), sending, unknown.
    queued: int
    #: Those of the queued that wait for a time, a retry, a limit or their turn.
    parked: int
    sending: int
    unknown: int
    #: Since when the oldest message that no worker took yet is out.
    waiting_since: datetime | None
    #: Seconds since a worker last served it; None for never.
    unserved: float | None
    #: What its provider told: how many callbacks wait to be read, and what came of the others.
    callbacks: Counted = Counted()
    #: What is held back of it until its operator mends something.
    suspended: list[Suspension] = []
    #: Its breaker, in words, where that is not closed; and why less goes than its limits let through.
    breaker: str = ""
    slowed: list[str] = []

    @property
    def served(self) -> bool:
        """Whether a worker does its work."""
        return any(one.health in WELL for one in self.workers)

    @property
    def problems(self) -> list[str]:
        """What is wrong with it, in words."""
        stuck = [one.node for one in self.workers if one.health == Health.STUCK]
        found = [f"{node} has free slots and takes nothing any more; restart it" for node in stuck]
        given_up = self.unserved is None or self.unserved > GIVEN_UP
        if not self.served and (self.queued or self.callbacks.waiting or not given_up):
            left = [(self.queued, "jobs"), (self.callbacks.waiting, "callbacks from its provider")]
            waits = " and ".join(f"{count} {what}" for count, what in left if count)
            waiting = f"{waits} wait and " if waits else ""
            found.append(f"{waiting}no worker serves it; start one: dispatcher worker {self.name}")
        if self.breaker:
            found.append(f"{self.breaker}; it goes on by itself once the provider answers well")
        return found + [f"{one.words}; {one.way_out}" for one in self.suspended]


#: Failures in a row of an endpoint that are no accident.
_OFTEN: Final = 3


class Notified(msgspec.Struct, frozen=True, kw_only=True):
    """Applications that are called back: who does it, and what waits."""

    workers: list[WorkerStatus] = []
    endpoints: list[Endpoint] = []
    #: Notices that were not delivered, and are kept to be told again.
    undelivered: int = 0

    @property
    def waiting(self) -> int:
        """How many notices wait."""
        return sum(one.waiting for one in self.endpoints)

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        stuck = [one.node for one in self.workers if one.health == heartbeats.Health.STUCK]
        found = [f"{node} has free slots and takes nothing any more; restart it" for node in stuck]
        if self.waiting and not any(one.health in WELL for one in self.workers):
            what = endpoints.wait(self.waiting, "to applications")
            found.append(f"{what} and no worker tells them; start it: dispatcher worker {NOTIFY}")
        for one in self.endpoints:
            waiting = endpoints.wait(one.waiting)
            if one.state == endpoints.Health.PAUSED:
                found.append(f"{one.endpoint} ({one.id}) fails and is paused, {waiting}: {one.error}")
            elif one.state == endpoints.Health.FAILING and one.failures >= _OFTEN:
                found.append(f"{one.endpoint} ({one.id}) fails, {waiting}: {one.error}")
            elif one.state == endpoints.Health.GONE:
                found.append(
                    f"{one.endpoint} said that it is gone; should it not be: dispatcher callbacks resume {one.id}"
                )
        return found


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment, `at` on Redis' clock (this machine's where Redis does not answer)."""

    schema: int = SCHEMA
    at: datetime
    redis: Server
    broker: Server
    accounts: list[AccountStatus] = []
    #: Callbacks from providers that were set aside, since they cannot be read.
    aside: int = 0
    #: What applications are told.
    notify: Notified = Notified()
    #: Groups that share events among their consumers.
    event_groups: list[EventGroup] = []

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        found = list(dict.fromkeys(one.problem for one in (self.redis, self.broker) if one.problem))
        if not self.redis.problem and not self.accounts:
            found.append("no worker has ever served this Redis; start one: dispatcher worker NAME")
        if self.aside:
            found.append(
                f"{self.aside} of the callbacks from providers cannot be read and were set aside; once the adapter is "
                "mended: dispatcher receiver --again"
            )
        found += [f"{NOTIFY}: {problem}" for problem in self.notify.problems]
        found += [f"events of group {one.name}: {one.words}" for one in self.event_groups if one.expired]
        return found + [f"{one.name}: {problem}" for one in self.accounts for problem in one.problems]


def look(settings: Settings) -> Status:
    """Return how everything is. What does not answer is in the answer; only a missing setting raises."""
    with (
        closing(JobStore(settings.redis, settings.redis_shown, timeout=5)) as store,
        closing(celery_app(settings)) as app,
    ):
        return _Look(settings, store, app).status()


def workers(settings: Settings) -> tuple[int, list[Worker]]:
    """Return the moment, in ms since 1970 on Redis' clock, and the workers known then. Raises `StoreUnavailable`."""
    with closing(JobStore(settings.redis, settings.redis_shown, timeout=5)) as store:
        found = heartbeats.read(store)
        return store.now(), found


class _Look:
    """One look, with one connection to each."""

    def __init__(self, settings: Settings, store: JobStore, app: Celery) -> None:
        self._settings = settings
        self._store = store
        self._app = app

    def status(self) -> Status:
        address = self._settings.redis_shown
        try:
            redis = self._redis()
            now = self._store.now()
            found = heartbeats.read(self._store)
            published = Accounts(self._store, self._settings).published()
            served = self._served()
            told, aside = callbacks.counted(self._store)
            notified = Notified(
                workers=[_worker(one, now) for one in found if NOTIFY in one.accounts],
                endpoints=endpoints.read(self._store),
                undelivered=endpoints.undelivered_count(self._store),
            )
            event_groups = groups.listed(self._store)
            work = {name: self._work(name) for name in {*published, *served, *told, *self._with_jobs()}}
            calls = Calls(self._settings)
            _, suspended = self._store.run(calls.suspended([*work]))
            limits = {name: self._store.run(calls.limits_shown(name)) for name in work}
        except StoreUnavailable as error:
            broker = Server(address=self._broker_address(), problem="" if self._settings.broker_url else str(error))
            return Status(at=datetime.now(UTC), redis=Server(address=address, problem=str(error)), broker=broker)
        # An account that nobody ever served and that has no work any more was a producer's idea.
        names = sorted(name for name in work if name in {*published, *served, *told} or work[name]["queued"])
        broker, depths = self._broker([queue for name in names for queue in both_queues(name)])
        accounts = [
            AccountStatus(
                name=name,
                adapter=published[name].adapter if name in published else "",
                sandbox=name in published and published[name].sandbox,
                workers=[_worker(one, now) for one in found if name in one.accounts],
                queues={queue: depths.get(queue) for queue in both_queues(name)},
                suspended=[one for one in suspended if one.provider == name],
                breaker=limits[name].breaker.words,
                slowed=limits[name].slowed,
                callbacks=told.get(name, Counted()),
                unserved=(now - served[name]) / 1000 if name in served else None,
                **work[name],
            )
            for name in names
        ]
        return Status(
            at=moment(now),
            redis=redis,
            broker=broker,
            accounts=accounts,
            aside=aside,
            notify=notified,
            event_groups=event_groups,
        )

    def _redis(self) -> Server:
        with self._store.errors():
            told: Any = self._store.redis.info()
        valkey = "valkey_version" in told
        return Server(
            address=self._settings.redis_shown,
            kind="Valkey" if valkey else "Redis",
            # Valkey tells Redis' version, too, for clients that ask for it.
            version=str(told["valkey_version" if valkey else "redis_version"]),
            memory=int(told["used_memory"]),
        )

    def _served(self) -> dict[str, int]:
        with self._store.errors():
            told: Any = self._store.redis.zrange(heartbeats.SERVED, 0, -1, withscores=True)
        return {name.decode(): int(at) for name, at in told}

    def _with_jobs(self) -> set[str]:
        with self._store.errors():
            told: Any = self._store.redis.smembers("d:p")
        return {name.decode() for name in told}

    def _work(self, name: str) -> dict[str, Any]:
        queues = both_queues(name)
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for state in (State.QUEUED, State.SENDING, State.UNKNOWN):
                pipe.zcard(f"d:i:{name}:{state}")
            for queue in queues:
                pipe.zcard(f"d:o:{queue}")
            for queue in queues:
                pipe.zrange(f"d:o:{queue}", 0, 0, withscores=True)
            queued, sending, unknown, *told = pipe.execute()
        oldest = [page[0][1] for page in told[len(queues) :] if page]
        return {
            "queued": queued,
            "sending": sending,
            "unknown": unknown,
            "parked": max(0, queued - sum(told[: len(queues)])),
            "waiting_since": moment(int(min(oldest))) if oldest else None,
        }

    def _broker(self, queues: Sequence[str]) -> tuple[Server, dict[str, int]]:
        address = self._broker_address()
        try:
            with self._app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
            return Server(address=address), {queue: depth(self._app, queue) for queue in queues}
        except (KombuError, OSError) as error:
            problem = f"the broker at {address} did not answer ({error.__class__.__name__}); is it running?"
            return Server(address=address, problem=problem), {}

    def _broker_address(self) -> str:
        with self._app.connection_for_read() as connection:
            # Of a socket file it has the path, and behind it what else its URL says, a password perhaps.
            named = urlsplit(str(connection.hostname)).path
            return f"{named}:{connection.port}" if connection.port else named


def _worker(one: Worker, now: int) -> WorkerStatus:
    return WorkerStatus(node=one.node, health=one.health(now), busy=one.busy, slots=one.slots, at=moment(one.at))
