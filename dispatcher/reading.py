"""What became of jobs: verbs of `Dispatcher` that read, wait and follow."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from dispatcher import checks, drafts, groups, records
from dispatcher.batches import Steps, Until, ends, in_turn, looks
from dispatcher.calls import MOST, BatchState, batch_state
from dispatcher.errors import ConfigurationError, InvalidRequest, NotFound, WaitTimeout
from dispatcher.events import CursorReader, Event, EventStream, Reader, cursor_of, follow, wanted
from dispatcher.groups import GroupReader
from dispatcher.jobs import Job
from dispatcher.privacy import Sealer, shown
from dispatcher.settings import Settings
from dispatcher.states import State
from dispatcher.store import JobStore, StoredIds, milliseconds_of

#: Jobs to one number that are found by it: the last ones.
_MOST_OF_NUMBER: Final = 1000


class ReadingVerbs:
    """The part of `Dispatcher` that is about what became of jobs; it has the rest's settings and store."""

    settings: Settings
    _store: JobStore
    _sealer: Sealer
    _events: EventStream

    # -- one job -----------------------------------------------------------------------------------------------------

    def get(self, id_: str, *, reveal: bool = False) -> Job:
        """Return the job as it is now; masked unless `reveal`. Raises `NotFound`."""
        found = self.get_many([checks.text("id_", id_)], reveal=reveal)
        if id_ not in found:
            raise NotFound("job", shown(id_))
        return found[id_]

    def get_many(self, ids: Sequence[str], *, reveal: bool = False) -> dict[str, Job]:
        """Return those of the jobs that there are, by id."""
        ids = checks.texts("ids", ids)
        checks.flag("reveal", reveal)
        if not ids:
            return {}
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for one in ids:
                pipe.hgetall(f"d:j:{one}")
            told, *stored = pipe.execute()
        now = milliseconds_of(told)
        return {
            one: records.job(one, fields, self._sealer, now, reveal=reveal)
            for one, fields in zip(ids, stored, strict=True)
            if fields
        }

    def wait(self, id_: str, *, until: Until = "settled", timeout: float = 30, reveal: bool = False) -> Job:
        """Return the job once it is settled (or final). Raises `WaitTimeout` after `timeout` seconds; it goes on."""
        return in_turn(self._waiting(id_, until=until, timeout=timeout, reveal=reveal), time.sleep)

    def _waiting(self, id_: str, *, until: Until = "settled", timeout: float = 30, reveal: bool = False) -> Steps[Job]:
        checks.text("id_", id_)
        checks.flag("reveal", reveal)
        reached = ends(until)
        for seconds in looks(timeout):
            if not self._busy({id_: reached}):
                break
            yield seconds
        job = self.get(id_, reveal=reveal)
        if job.state in reached and job.settled:
            return job
        raise WaitTimeout(f"job {id_}", job.state, until, timeout)

    def _busy(self, awaited: Mapping[str, AbstractSet[State]]) -> set[str]:
        """Return those of the jobs that are in none of the states that they are awaited in."""
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in awaited:
                pipe.hmget(f"d:j:{one}", "s", "w")
            told = zip(awaited, pipe.execute(), strict=True)
        return {
            one
            for one, (state, waits) in told
            if state is not None and (state.decode() not in awaited[one] or records.is_watched(waits))
        }

    # -- many jobs ---------------------------------------------------------------------------------------------------

    def jobs(
        self,
        *,
        state: State | str | None = None,
        provider: str | None = None,
        batch: str | None = None,
        number: str | None = None,
        limit: int = 50,
        reveal: bool = False,
    ) -> list[Job]:
        """Return jobs, the latest to change first: by state and provider, of a batch, or to a number.

        To find by number `DISPATCHER_HASH_KEY` must be what it was when they were enqueued.
        """
        wanted = None if state is None else drafts.member("state", State, state)
        for field, value in (("provider", provider), ("batch", batch)):
            if value is not None:
                checks.text(field, value)
        checks.whole("limit", limit, 0, checks.LONGEST_LIST)
        checks.flag("reveal", reveal)
        ids: Sequence[str]
        if number is not None:
            ids = self._of_number(number)
        elif batch is not None:
            ids = self._of_batch(batch)
        else:
            return self._latest(wanted, provider, limit, reveal=reveal)
        return self._chosen(ids, wanted, provider, batch, limit, reveal=reveal)

    def _latest(self, state: State | None, provider: str | None, limit: int, *, reveal: bool) -> list[Job]:
        """Return the jobs that changed last, of all states and accounts or of one."""
        most = limit
        while True:
            ids = self._indexed([state] if state else list(State), provider, most)
            chosen = self._chosen(ids, state, provider, None, limit, reveal=reveal)
            if len(chosen) >= limit or len(ids) < most:
                return chosen
            # Some of those that are listed are not kept any more: their category is kept for less than others.
            most *= 4

    def _chosen(
        self,
        ids: Sequence[str],
        state: State | None,
        provider: str | None,
        batch: str | None,
        limit: int,
        *,
        reveal: bool,
    ) -> list[Job]:
        """Return the first of these jobs that are there and are wanted."""
        chosen: list[Job] = []
        for start in range(0, len(ids), MOST):
            chosen += [
                job
                for job in self.get_many(list(ids[start : start + MOST]), reveal=reveal).values()
                if state in {None, job.state} and provider in {None, job.provider} and batch in {None, job.batch_id}
            ]
            if len(chosen) >= limit:
                break
        return chosen[:limit]

    def batch_state(self, id_: str) -> BatchState:
        """Return where a batch stands; one that there is not has no jobs."""
        checks.text("id_", id_)
        with self._store.errors():
            stored: Any = self._store.redis.hgetall(f"d:b:{id_}")
        return batch_state(stored)

    def states(self, ids: Sequence[str]) -> list[State | None]:
        """Return the states of jobs, None for those that there are not."""
        ids = checks.texts("ids", ids)
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hget(f"d:j:{one}", "s")
            return [None if state is None else State(state.decode()) for state in pipe.execute()]

    # -- events ------------------------------------------------------------------------------------------------------

    def events(
        self,
        after: str | None = None,
        *,
        timeout: float | None = None,
        reveal: bool = False,
        types: str | Iterable[str] | None = None,
        tenant: str | None = None,
        batch: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        since: datetime | float | None = None,
        take_over: float = 60,
    ) -> Generator[Event]:
        """Yield events as they come, from `after` a cursor on, "0" for all that are kept, None for news only.

        Or from the moment `since`, an aware datetime or seconds since 1970. Only those of some `types` such as "job.*",
        of a `tenant`, of a `batch`, where one of these is given. Numbers and texts in them are masked unless `reveal`.
        Ends when none came for `timeout` seconds, never for None. Raises `CursorExpired` where events that were to come
        were trimmed away.

        With a `group` its consumers share the events among them, each at least once: one is done with when the next is
        asked for, ten at most together, or by `acknowledge`. What a consumer that fell silent for `take_over` seconds
        was not done with goes to another: let that be longer than the longest work on one event. A `consumer` that
        comes back by its name gets its own first. A new group begins at `after` or `since`; one that there is goes on
        where it was, whatever they say: `reset_event_group` moves it. All consumers of one group
        have the same types, tenant and batch, since what is not wanted is done with, too: for others this raises
        `InvalidRequest`.
        """
        reader, timeout = self._reader(
            after,
            timeout=timeout,
            reveal=reveal,
            types=types,
            tenant=tenant,
            batch=batch,
            group=group,
            consumer=consumer,
            since=since,
            take_over=take_over,
        )
        reader.begin()
        return follow(reader, timeout)

    def acknowledge(self, group: str, cursors: str | Sequence[str]) -> int:
        """Be done with events of a group before the next is asked for, by their cursors; return how many were not yet.

        One that comes to be done with by somebody else meanwhile counts for nothing: it is no error.
        """
        some = [cursors] if isinstance(cursors, str) else checks.texts("cursors", cursors)
        name = groups.name_of("group", group)
        return groups.acknowledge(self._store, name, [cursor_of("cursors", one) for one in some])

    def _reader(
        self,
        after: str | None = None,
        *,
        timeout: float | None = None,
        reveal: bool = False,
        types: str | Iterable[str] | None = None,
        tenant: str | None = None,
        batch: str | None = None,
        group: str | None = None,
        consumer: str | None = None,
        since: datetime | float | None = None,
        take_over: float = 60,
    ) -> tuple[Reader, float | None]:
        """Return what reads the events that are asked for, and for how long nothing may come."""
        if timeout is not None:
            checks.timeout("timeout", timeout)
        checks.flag("reveal", reveal)
        chosen = wanted(types, tenant, batch)
        if group is None:
            if consumer is not None:
                raise InvalidRequest("consumer", "goes with a group, whose share it reads")
            return CursorReader(self._events, chosen, after, since, reveal=reveal), timeout
        reader = GroupReader(
            self._store,
            self._events,
            chosen,
            group,
            consumer=consumer,
            after=after,
            since=since,
            reveal=reveal,
            take_over=take_over,
        )
        return reader, timeout

    # -- within ------------------------------------------------------------------------------------------------------

    def _of_batch(self, batch: str) -> Sequence[str]:
        """Return the ids of the jobs of a batch, the latest first."""
        key = f"d:b:{batch}:j"
        with self._store.errors():
            size: Any = self._store.redis.llen(key)
        return StoredIds(self._store, key, range(size))[::-1]

    def _of_number(self, number: str) -> list[str]:
        """Return the ids of the last jobs to a number, the latest first."""
        hashed = self.settings.hashed("number", drafts.number("number", number))
        if not hashed:
            raise ConfigurationError("DISPATCHER_HASH_KEY is not set, so that jobs were not listed by number")
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            days: Any = self._store.redis.zrange("d:nd", 0, -1)
            for day in days:
                # Entries are "<hash> <id>"; "!" is what comes after a space.
                pipe.zrevrangebylex(f"d:n:{day.decode()}", f"({hashed}!", f"[{hashed} ", 0, _MOST_OF_NUMBER)
            found = [entry.decode().rpartition(" ")[2] for page in pipe.execute() for entry in page] if days else []
        return sorted(found, reverse=True)[:_MOST_OF_NUMBER]

    def _indexed(self, states: Sequence[State], provider: str | None, limit: int) -> list[str]:
        """Return the ids of the jobs that changed last, as the lists of accounts and states have them."""
        with self._store.errors():
            known: Any = [provider.encode()] if provider else list(self._store.redis.smembers("d:p"))
            with self._store.redis.pipeline(transaction=False) as pipe:
                for name in known:
                    for state in states:
                        pipe.zrevrange(f"d:i:{name.decode()}:{state}", 0, limit - 1, withscores=True)
                found = [pair for page in pipe.execute() for pair in page] if known else []
        found.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
        return [id_.decode() for id_, _ in found[:limit]]
