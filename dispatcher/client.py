"""`Dispatcher`: what application code calls. It enqueues, reads, waits and follows; it never talks to a provider."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from dispatcher import backlog, checks, drafts, phone, records, recovery, usage
from dispatcher.accounts import Account, Accounts, Route
from dispatcher.backlog import LaneState
from dispatcher.batches import Batch, Redriven, Until, ends, looks
from dispatcher.budgets import Budget
from dispatcher.errors import (
    ConfigurationError,
    IdempotencyConflict,
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    NotBuilt,
    NotFound,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
    WaitTimeout,
)
from dispatcher.events import Event, EventStream
from dispatcher.jobs import (
    CHECK,
    Category,
    Job,
    Lane,
    Lookup,
    Message,
    OnUnknown,
    Operation,
    Request,
    Send,
    Terms,
    Verify,
    milliseconds,
    new_id,
)
from dispatcher.limits import LimitState
from dispatcher.optouts import By, OptOuts
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.privacy import shown
from dispatcher.queues import CHUNK, both_queues, celery_app, publish, queue_name
from dispatcher.settings import Settings, load
from dispatcher.states import State
from dispatcher.store import MOST, Advance, BatchState, Calls, Created, JobStore, StoredIds, batch_state
from dispatcher.suspensions import Suspension, is_scope
from dispatcher.usage import Blocked, LowBalance, Usage

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger("dispatcher")

#: Times that one code may be checked.
CHECKS: Final = 5


class Check(msgspec.Struct, frozen=True):
    """What became of one code. `status` is for your backend; show the person one answer for all that is not valid."""

    valid: bool
    status: str


class Dispatcher:
    """Enqueues jobs and tells what became of them. Safe to share between threads; make one per process.

    Raises `ConfigurationError` for settings that cannot work, `StoreUnavailable` when Redis does not answer, and for a
    request that can never work `InvalidRequest`, before anything is stored.
    """

    def __init__(self, settings: Settings | None = None, *, redis_url: str | None = None, **overrides: Any) -> None:
        """Take settings from the environment; `overrides` are fields of `Settings` and win over it."""
        self.settings = settings or load(redis_url=redis_url, **overrides)
        self._store = JobStore(self.settings.redis, self.settings.redis_shown, fsync=self.settings.fsync)
        self._calls = Calls(self.settings)
        self._sealer = self.settings.sealer()
        self._drafts = drafts.Drafts(self.settings)
        self._accounts = Accounts(self._store, self.settings)
        self._celery = celery_app(self.settings)
        self._events = EventStream(self._store, self._sealer, lambda ids, reveal: self.get_many(ids, reveal=reveal))
        self._optouts = OptOuts(self.settings)

    def __enter__(self) -> Self:
        """Use it as a context manager to close its connections."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections to Redis and the broker."""
        self._celery.close()
        self._store.close()

    # -- enqueuing ---------------------------------------------------------------------------------------------------

    def send(
        self,
        to: str,
        text: str,
        *,
        sender: str = "",
        provider: str | Sequence[str] | None = None,
        category: Category | str = Category.TRANSACTIONAL,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        idempotency_key: str | None = None,
        valid_for: float | None = None,
        send_at: datetime | float | None = None,
        lane: Lane | str | None = None,
        on_unknown: OnUnknown | str | None = OnUnknown.HOLD,
        failover_after: float | None = None,
        options: dict[str, Any] | None = None,
        max_segments: int | None = None,
        **later: Any,
    ) -> Job:
        """Enqueue one text and return its job, durable from then on.

        `to` is a number in international form; `valid_for` seconds after which it is not sent any more; `send_at` an
        aware datetime or seconds since 1970 before which it is not. The same `idempotency_key` returns the first job;
        with another request it raises `IdempotencyConflict`. With `on_unknown="resend"` it is sent again, once, when
        nobody can tell whether it was sent: the person may get it twice. A text of more than `max_segments` is refused,
        by default of more than `DISPATCHER_MAX_SEGMENTS`.

        `provider` is one account or several in order: the next one gets it where the one before surely did not take it.
        Without any, `DISPATCHER_ROUTES` decides. With `failover_after` it goes on, though it was taken, as soon as it
        is told to be undelivered, or where no receipt came so many seconds after it was sent: the person may get it
        twice. `options` are the provider's own, of several accounts each by its name: `{"textgoto": {...}}`.
        """
        drafts.refuse_later(later)
        request = Send(to=to, text=text, sender=sender, options={} if options is None else options)
        terms = drafts.terms(
            category,
            lane,
            reference,
            metadata,
            tenant,
            valid_for=valid_for,
            send_at=send_at,
            on_unknown=on_unknown,
            failover_after=failover_after,
        )
        return self._enqueue(request, "send", terms, provider, idempotency_key, most=max_segments)

    def send_many(
        self,
        messages: Iterable[Message],
        *,
        provider: str | Sequence[str] | None = None,
        batch_id: str | None = None,
        more: bool = False,
        sender: str = "",
        category: Category | str = Category.TRANSACTIONAL,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        valid_for: float | None = None,
        send_at: datetime | float | None = None,
        lane: Lane | str | None = None,
        on_unknown: OnUnknown | str | None = OnUnknown.HOLD,
        failover_after: float | None = None,
        options: dict[str, Any] | None = None,
        max_segments: int | None = None,
        **later: Any,
    ) -> Batch:
        """Enqueue many texts and return their batch.

        All are checked before the first is stored: an error names the message, such as `messages[3].to`. A message's
        own sender, reference, metadata, options, `max_segments` and idempotency key win over the call's.

        `more` says that more messages of the same `batch_id` follow: the batch stays open, and does not count as
        settled, until a call without it or `close_batch`. So does one that was not written to its end:
        the call may be repeated where every message has an idempotency key; without, those written would be sent twice.
        """
        drafts.refuse_later(later)
        terms = drafts.terms(
            category,
            lane,
            reference,
            metadata,
            tenant,
            valid_for=valid_for,
            send_at=send_at,
            on_unknown=on_unknown,
            failover_after=failover_after,
        )
        checks.flag("more", more)
        batch = new_id() if batch_id is None else drafts.batch_name(batch_id)
        usual = Message("", "", sender=sender, options=options, max_segments=max_segments)
        if not isinstance(messages, Iterable):
            raise InvalidRequest(
                "messages", f"must be Messages, in a list or one by one, not {type(messages).__name__}"
            )
        route = partial(self._route, provider, "send")
        fresh = [self._drafts.message(position, one, route, terms, usual) for position, one in enumerate(messages)]
        if not fresh:
            raise InvalidRequest("messages", "is empty; there is nothing to send, and close_batch() ends an open batch")
        self._refuse_conflicts(fresh)
        ids: list[str] = []
        for start in range(0, len(fresh), MOST):
            follow = more or start + MOST < len(fresh)
            ids += self._write_routed(terms.lane, batch, fresh[start : start + MOST], start, more=follow)
        known = [id_ for record, id_ in zip(fresh, ids, strict=True) if record.id != id_]
        return Batch(self, batch, ids, len(fresh) - len(known), self._strangers(batch, known))

    def _write_routed(
        self, lane: Lane, batch: str, fresh: Sequence[records.Record], start: int, *, more: bool
    ) -> list[str]:
        """Write a portion of a batch, account by account; return the ids in the order given."""
        together = defaultdict[str, list[int]](list)
        for at, record in enumerate(fresh):
            together[record.provider].append(at)
        ids = dict[int, str]()
        for left, (account, places) in zip(range(len(together))[::-1], together.items(), strict=True):
            try:
                made = self._write(account, lane, batch, [fresh[at] for at in places], more=more or left > 0)
            except IdempotencyConflict as conflict:
                raise conflict.at(f"messages[{start + places[conflict.position]}]") from None
            ids |= zip(places, made.ids, strict=True)
        return [ids[at] for at in range(len(fresh))]

    def _strangers(self, batch: str, ids: Sequence[str]) -> list[str]:
        """Return those of the jobs, each once, that were made in another batch or in none."""
        unique = list(dict.fromkeys(ids))
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in unique:
                pipe.hget(f"d:j:{one}", "b")
            batches = pipe.execute() if unique else []
        return [one for one, other in zip(unique, batches, strict=True) if other != batch.encode()]

    def close_batch(self, batch_id: str) -> Batch:
        """Say that no more messages of an open batch follow, where that was not known at its last `send_many`.

        Nothing happens to one that is closed. Raises `NotFound`.
        """
        return self._batch(batch_id, self._store.run(self._calls.close(checks.text("batch_id", batch_id))))

    def verify(
        self,
        to: str,
        *,
        template: str = "Your code is [CODE]",
        code_ttl: int = 600,
        sender: str = "",
        provider: str | Sequence[str] | None = None,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        idempotency_key: str | None = None,
        valid_for: float | None = None,
        on_unknown: OnUnknown | str | None = OnUnknown.HOLD,
        failover_after: float | None = None,
        options: dict[str, Any] | None = None,
        max_segments: int | None = None,
        **later: Any,
    ) -> Job:
        """Send a one-time code, put where `[CODE]` stands in `template`, and return its job.

        Ask `check` with the job's id. The code lives for `code_ttl` seconds from when it was sent; not sent within
        `valid_for` seconds (by default as long), it is not sent any more. With `on_unknown="resend"` it is sent again,
        once, when nobody can tell whether it was sent: the same code, where we make it.
        """
        drafts.refuse_later(later)
        self.settings.require_secrets("a verification")
        request = Verify(to=to, template=template, sender=sender, options={} if options is None else options)
        terms = drafts.terms(
            Category.OTP,
            None,
            reference,
            metadata,
            tenant,
            valid_for=code_ttl if valid_for is None else valid_for,
            code_ttl=code_ttl,
            on_unknown=on_unknown,
            failover_after=failover_after,
        )
        return self._enqueue(request, "verify", terms, provider, idempotency_key, most=max_segments)

    def check(self, id_: str, code: str, *, timeout: float = 5) -> Check:
        """Judge the code a person typed for the verification `id_`.

        At most five tries and one success. Where we hold the code's hash this answers at once; where the provider
        judges, its worker asks it, and after `timeout` seconds without an answer this raises `WaitTimeout`.
        """
        checks.text("id_", id_)
        checks.timeout("timeout", timeout)
        if not isinstance(code, str) or not code.strip():
            raise InvalidRequest("code", "is empty; pass what the person typed, as text")
        self.settings.require_secrets("a check")
        code = code.strip()
        checks.utf8("code", code)
        verdict, status = self._store.run(self._calls.check(id_, self.settings.hashed("code", id_, code), CHECKS))
        if verdict == _NO_VERIFICATION:
            raise NotFound("verification", shown(id_))
        if verdict == _PROVIDER_JUDGES:
            return self._check_at_provider(id_, code, timeout)
        return Check(verdict == 1, status)

    def lookup(
        self,
        to: str,
        *,
        provider: str | Sequence[str] | None = None,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        idempotency_key: str | None = None,
        valid_for: float | None = None,
        lane: Lane | str | None = None,
        fresh: bool = False,
    ) -> Job:
        """Ask a provider what it knows of a number, and return the job whose `result` will tell.

        Nothing is remembered from one lookup to the next yet, so that each is as if `fresh`.
        """
        del fresh
        terms = drafts.terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
        return self._enqueue(Lookup(to=to), "lookup", terms, provider, idempotency_key)

    def operation(
        self,
        provider: str,
        operation: str,
        *,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        idempotency_key: str | None = None,
        valid_for: float | None = None,
        lane: Lane | str | None = None,
        arguments: dict[str, Any] | None = None,
        **more: Any,
    ) -> Job:
        """Do anything else that an account can do, such as `balance`.

        Its arguments come by name, or in `arguments` where a name is taken here; the adapter checks them.
        """
        checks.text("operation", operation)
        if not isinstance(arguments, dict | None):
            raise InvalidRequest("arguments", f"must be a dict with text keys, not {type(arguments).__name__}")
        arguments = {**(arguments or {}), **more}
        if operation in {"send", "verify", "lookup", CHECK}:
            raise InvalidRequest(
                "operation", f"has a method of its own: {operation.rsplit('.', maxsplit=1)[-1]}()", operation
            )
        if "number" in arguments:
            arguments["number"] = _number("number", arguments["number"])
        terms = drafts.terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
        job = self._enqueue(Operation(arguments=arguments), operation, terms, provider, idempotency_key)
        if operation == _OPT_OUT:
            self._opt_out_too(job.provider, arguments)
        return job

    # -- who wants no texts ------------------------------------------------------------------------------------------

    def opt_out(self, number: str, *, tenant: str | None = None, sender: str | None = None) -> bool:
        """Never text this number again, also what is enqueued already; return whether that is new.

        A text to it ends `failed: opted_out`. The list is this deployment's own and kept for ever; to tell a provider,
        too, there is `operation(provider, "optout.add", number=...)`, which puts the number on both. Raises
        `ConfigurationError` without `DISPATCHER_HASH_KEY`.
        """
        _one_list(tenant, sender)
        return self._list(number, out=True)

    def opt_in(self, number: str, *, tenant: str | None = None, sender: str | None = None) -> bool:
        """Take a number off that list, since the person said so; return whether it was on it."""
        _one_list(tenant, sender)
        return self._list(number, out=False)

    def opted_out(self, number: str, *, tenant: str | None = None, sender: str | None = None) -> datetime | None:
        """Return since when a number is on that list; None where it is not."""
        _one_list(tenant, sender)
        since = self._optouts.since(self._store, _number("number", number))
        self._store.run(self._calls.enter())
        return since

    def _list(self, number: str, *, out: bool) -> bool:
        call = self._optouts.put(_number("number", number), By.APPLICATION, out=out)
        # Under another hash key nobody would find it.
        self._store.run(self._calls.enter())
        return self._store.run(call)[1]

    def _opt_out_too(self, provider: str, arguments: dict[str, Any]) -> None:
        """Put the numbers on our list that a provider is asked to leave alone, unless that is by one sender or tag."""
        if not self.settings.hashed("number") or arguments.get("type", "all") != "all":
            return
        told = arguments.get("numbers") or ()
        several = told.split(",") if isinstance(told, str) else told if isinstance(told, list | tuple) else ()
        for one in [*several, *([arguments["number"]] if "number" in arguments else [])]:
            # What is no number is its worker's to refuse.
            with contextlib.suppress(InvalidNumber):
                number = phone.parse(str(one).strip())
                self._store.run(self._optouts.put(number, By.OPERATION, provider, out=True))

    # -- named in the contract, and not built yet ---------------------------------------------------------------------

    def resend(self, id_: str, **options: Any) -> Job:
        """Refuse: a new code for a verification comes with a later release."""
        del id_, options
        raise NotBuilt("resend", "is not built yet; start another verification")

    # -- reading -----------------------------------------------------------------------------------------------------

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
            (seconds, micros), *stored = pipe.execute()
        now = seconds * 1000 + micros // 1000
        return {
            one: records.job(one, fields, self._sealer, now, reveal=reveal)
            for one, fields in zip(ids, stored, strict=True)
            if fields
        }

    def wait(self, id_: str, *, until: Until = "settled", timeout: float = 30, reveal: bool = False) -> Job:
        """Return the job once it is settled (or final). Raises `WaitTimeout` after `timeout` seconds; it goes on."""
        checks.text("id_", id_)
        checks.flag("reveal", reveal)
        reached = ends(until)
        for seconds in looks(timeout):
            with self._store.errors():
                told: Any = self._store.redis.hmget(f"d:j:{id_}", "s", "w")
            state, waits = told
            if state is None or (state.decode() in reached and not records.is_watched(waits)):
                break
            time.sleep(seconds)
        job = self.get(id_, reveal=reveal)
        if job.state in reached and job.settled:
            return job
        raise WaitTimeout(f"job {id_}", job.state, until, timeout)

    def cancel(self, id_: str) -> Job:
        """Take a queued job back. Raises `IllegalMove` when it is being sent or further, and `NotFound`.

        One of which an earlier try may have been taken is not tried again either, and ends `unknown`.
        """
        (state,) = self._store.run(self._calls.advance([_taken_back(checks.text("id_", id_))], durable=True))
        job = self.get(id_)
        if not state and job.state != State.CANCELLED:
            raise IllegalMove(id_, job.state, State.CANCELLED)
        return job

    def cancel_batch(self, batch_id: str) -> dict[str, int]:
        """Take back all jobs of a batch that are still queued, each as `cancel` does; return the counts afterwards.

        What is being sent goes on, and is not tried again. Messages that come later are refused, also those of a
        `send_many` that is under way. Raises `NotFound`.
        """
        size = self._store.run(self._calls.close(checks.text("batch_id", batch_id), cancelled=True))
        ids = self._batch(batch_id, size).jobs.ids
        # The last first: workers come from the other end.
        for end in range(len(ids), 0, -CHUNK):
            if State.QUEUED not in self.batch_state(batch_id).counts:
                break
            self._store.run(self._calls.advance([_taken_back(id_) for id_ in ids[max(0, end - CHUNK) : end]]))
        self._store.sync()
        return self.batch_state(batch_id).counts

    # -- what did not end well ---------------------------------------------------------------------------------------

    def resolve(self, id_: str, state: State | str, *, note: str = "") -> Job:
        """Say what became of an `unknown` job, as its operator: `sent` (a text), `completed` (all else) or `failed`.

        `failed` means that it was surely not taken: it can be redriven then. The history keeps your word, and `note`
        with every number in it masked. Raises `IllegalMove` when the job is in another state by now, `InvalidRequest`
        for a word that does not fit it, and `NotFound`.
        """
        wanted = recovery.word(state)
        move = recovery.resolved(self.get(id_), wanted, note)
        (moved,) = self._store.run(self._calls.advance([move], durable=True))
        job = self.get(id_)
        # Said twice because the first answer was lost, it is as good as once.
        if not moved and move.detail not in {entry.detail for entry in job.history}:
            raise IllegalMove(id_, job.state, wanted, "only what is unknown can be resolved")
        return job

    def redrive(self, id_: str, *, resend: bool = False) -> Job:
        """Enqueue a job again that failed, expired, was cancelled or is undelivered; return the new one.

        It is asked for as it was, from now on: what was valid for an hour is valid for another one, a verification gets
        another code. Its `redrive_of` names the old one, which stays as it is. Redriven again, a job answers the job
        that was made then: should that have ended badly, redrive that.

        An `unknown` job may have been sent: with `resend` it is sent all the same, as a possible duplicate. Raises
        `IllegalMove` for what is not over or went well, `NotFound`, and what `send` raises where it cannot be asked for
        any more, such as a purchase by a card.
        """
        checks.text("id_", id_)
        checks.flag("resend", resend)
        return self.get(self._redrive().one(id_, resend=resend))

    def redrive_many(
        self,
        ids: Sequence[str] | None = None,
        *,
        state: State | str | None = None,
        provider: str | None = None,
        failure: FailureKind | str | None = None,
        batch: str | None = None,
        since: datetime | float | None = None,
        resend: bool = False,
        dry_run: bool = False,
        limit: int | None = None,
        batch_id: str | None = None,
        progress: Callable[[Redriven], object] | None = None,
    ) -> Redriven:
        """Enqueue many jobs again, each as `redrive` does, as a new batch; return what came of it.

        They are named by `ids`, or chosen: by the state they are in (otherwise failed, expired and undelivered ones,
        and with `resend` unknown ones), their account, the kind of their failure, their batch, and the moment since
        when they are in that state, an aware datetime or seconds since 1970. At most `limit` are made.

        One that cannot be redriven stops no other: it is told with the reason. Cut short at any point and made again,
        the call goes on without making any job twice; with the same `batch_id` it goes on with the same batch.
        `dry_run` counts and makes nothing. `progress` is called with the report as it grows.
        """
        for name, flag in (("resend", resend), ("dry_run", dry_run)):
            checks.flag(name, flag)
        if limit is not None:
            checks.whole("limit", limit, 1, _LONGEST_LIST)
        if progress is not None and not callable(progress):
            raise InvalidRequest("progress", "must be a function that takes a report")
        made = new_id() if batch_id is None else drafts.batch_name(batch_id)
        chosen = {"state": state, "provider": provider, "failure": failure, "batch": batch, "since": since}
        if (ids is None) == all(one is None for one in chosen.values()):
            why = "must be the ids of jobs, or left out and some be chosen: by state, provider, failure, batch or since"
            raise InvalidRequest("ids", why)
        if batch is not None and batch == made:
            raise InvalidRequest("batch_id", "is the batch that is redriven, whose counts stay; name another", made)
        wanted = None if ids is not None else self._wanted(**chosen, resend=resend, made=made)
        if wanted is None:
            pages = recovery.paged(checks.texts("ids", ids))
        elif wanted.batch is not None:
            pages = recovery.paged(self.batch(wanted.batch).jobs.ids)
        else:
            pages = recovery.listed(self._store, wanted)
        return self._redrive().many(
            pages, wanted, made, resend=resend, dry_run=dry_run, limit=limit, progress=progress or (lambda _: None)
        )

    def _wanted(
        self, state: Any, provider: Any, failure: Any, batch: Any, since: Any, *, resend: bool, made: str
    ) -> recovery.Wanted:
        """Read what many jobs are chosen by. Raises `InvalidRequest` naming the field."""
        with self._store.errors():
            seconds, micros = self._store.redis.time()
        return recovery.Wanted(
            states=recovery.states(state, resend=resend),
            provider=None if provider is None else checks.text("provider", provider),
            failure=None if failure is None else drafts.member("failure", FailureKind, failure),
            batch=None if batch is None else checks.text("batch", batch),
            since=milliseconds("since", since) or 0,
            until=seconds * 1000 + micros // 1000,
            made=made,
        )

    def _redrive(self) -> recovery.Redrive:
        return recovery.Redrive(
            self._store,
            self._calls,
            self._write,
            sealer=self._sealer,
            drafts=self._drafts,
            accounts=self._accounts,
        )

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
        checks.whole("limit", limit, 0, _LONGEST_LIST)
        checks.flag("reveal", reveal)
        if batch is not None or number is not None:
            ids = self._listed(batch, number)
        else:
            ids = self._indexed([wanted] if wanted else list(State), provider, limit)
        chosen: list[Job] = []
        for start in range(0, len(ids), MOST):
            chosen += [
                job
                for job in self.get_many(list(ids[start : start + MOST]), reveal=reveal).values()
                if wanted in {None, job.state} and provider in {None, job.provider} and batch in {None, job.batch_id}
            ]
            if len(chosen) >= limit:
                break
        return chosen[:limit]

    def batch(self, id_: str) -> Batch:
        """Return a batch by its id, with the jobs it has now. Raises `NotFound`."""
        checks.text("id_", id_)
        with self._store.errors(), self._store.redis.pipeline() as pipe:
            pipe.exists(f"d:b:{id_}")
            pipe.llen(f"d:b:{id_}:j")
            there, size = pipe.execute()
        return self._batch(id_, size if there else None)

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

    def events(
        self, after: str | None = None, *, timeout: float | None = None, reveal: bool = False
    ) -> Iterator[Event]:
        """Yield events as they come, from `after` a cursor on, "0" for all that are kept, None for news only.

        Numbers and texts in them are masked unless `reveal`. Ends when none came for `timeout` seconds, never for None.
        Raises `CursorExpired` at once where events after the cursor were trimmed away.
        """
        if timeout is not None:
            checks.timeout("timeout", timeout)
        checks.flag("reveal", reveal)
        return self._events.follow(self._events.start(after), timeout=timeout, reveal=reveal)

    def suspensions(self) -> list[Suspension]:
        """Return what is suspended of the accounts that are known, by account and scope."""
        return self._store.run(self._calls.suspended(self._known(None)))[1]

    def limits(self, provider: str | None = None) -> list[LimitState]:
        """Return the limits of accounts as all workers together keep them now, breaker and latency included.

        Those of one account, or of all that are known; raises `UnknownProvider` for another name.
        """
        return [self._store.run(self._calls.limits_shown(name)) for name in self._known(provider)]

    def backlog(self, provider: str | None = None) -> list[LaneState]:
        """Return how many jobs of accounts wait, by lane and tenant, the high lane first."""
        return backlog.read(self._store, self._known(provider))

    def _known(self, provider: str | None) -> list[str]:
        """Return the name of one account, or those of all that are known."""
        names = sorted({*self._accounts.published(fresh=True), *self.settings.providers})
        if provider is None:
            return names
        if checks.text("provider", provider) not in names:
            raise UnknownProvider(shown(provider), names)
        return [provider]

    def resume(self, provider: str, scope: str | None = None) -> list[Suspension]:
        """Lift what is suspended of an account, all of it unless a scope is named; return what that was.

        A scope is "account", "funds" or "operation:<name>". The jobs that waited for it go on; should it not be mended,
        the first of them finds out.
        """
        checks.text("provider", provider)
        if scope is not None and not is_scope(checks.text("scope", scope)):
            raise InvalidRequest("scope", "must be account, funds or operation:NAME", shown(scope))
        # Read first: asked again because its answer was lost, a script that lifts finds nothing any more.
        _, known = self._store.run(self._calls.suspended([provider]))
        lifted = [one for one in known if scope in {None, one.scope}]
        if lifted:
            self._store.run(self._calls.resume(provider, [one.scope for one in lifted]))
        for one in lifted:
            for queue in both_queues(provider):
                cursor, _ = self._store.run(self._calls.free(queue, "0", one.operations))
                while cursor != "0":
                    cursor, _ = self._store.run(self._calls.free(queue, cursor, one.operations))
        return lifted

    def providers(self) -> dict[str, Account]:
        """Return the accounts that workers have published until now, by name."""
        return dict(self._accounts.published(fresh=True))

    # -- what is used up ---------------------------------------------------------------------------------------------

    def budgets(self) -> list[Budget]:
        """Return how the budgets of `DISPATCHER_BUDGETS` stand, as this process has them in its settings."""
        return usage.read_budgets(self._store, self.settings.rules)

    def usage(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        by: Iterable[str] = ("day", "provider"),
    ) -> list[Usage]:
        """Return what providers took from one day until another (UTC; the last thirty by default), and its price.

        It is summed by any of day, tenant, provider, country and category. Each text counts once at each account that
        took it, on the day when it did.
        """
        return usage.read_usage(self._store, since, until, by)

    def block_country(self, country: str, reason: str = "") -> bool:
        """Text nobody in a country (ISO 3166, such as "US") from now on, also what is queued; return whether it is new.

        Such a text ends `failed: refused`, code `country`. A text that is on the wire already is not taken back.
        """
        return usage.block(self._store, country, reason)

    def unblock_country(self, country: str) -> bool:
        """Text people in a country again; return whether it was blocked. What failed meanwhile can be redriven."""
        return usage.unblock(self._store, country)

    def blocked_countries(self) -> list[Blocked]:
        """Return the countries that nobody is texted in."""
        return usage.read_blocked(self._store)

    def low_balances(self) -> list[LowBalance]:
        """Return the accounts with less than their `LOW_BALANCE`, as their balance was last read."""
        return usage.read_low_balances(self._store)

    # -- within ------------------------------------------------------------------------------------------------------

    def _enqueue(
        self,
        request: Request,
        operation: str,
        terms: Terms,
        provider: str | Sequence[str] | None,
        idempotency_key: str | None,
        *,
        most: int | None = None,
    ) -> Job:
        route = self._route(provider, operation, request, terms)
        record = self._drafts.record(request, operation, terms, route, idempotency_key, most=most)
        made = self._write(record.provider, terms.lane, "", [record], more=False)
        if made.ids != [record.id] or made.refused:
            return self.get(made.ids[0])
        return self._drafts.job(record, made.at, terms)

    def _route(self, provider: str | Sequence[str] | None, operation: str, request: Request, terms: Terms) -> Route:
        """Return where a request may go. Raises what `Accounts.route` does."""
        route = self._accounts.route(provider, operation, drafts.facts(request, terms))
        if terms.failover_after is not None:
            self._accounts.check_watch(route)
        return route

    def _write(self, provider: str, lane: Lane, batch: str, fresh: list[records.Record], *, more: bool) -> Created:
        """Write records and publish those that are new; answer the ids they have, and when."""
        call = self._calls.create(provider, high=lane == Lane.HIGH, batch=batch, records=fresh, more=more)
        try:
            created = self._store.run(call)
        except StoreUnavailable as error:
            error.job_ids = [record.id for record in fresh]
            raise
        self._publish(queue_name(provider, lane), created.out)
        return created

    def _publish(self, queue: str, ids: list[str]) -> None:
        try:
            publish(self._celery, queue, ids)
        except (BrokerError, KombuError, OSError) as error:
            # Accepted is accepted: the clock publishes what is in the outbox.
            log.warning("%d jobs are stored, their message is delayed: %s", len(ids), error.__class__.__name__)

    def _refuse_conflicts(self, fresh: list[records.Record]) -> None:
        """Look at all idempotency keys of a large batch before its first portion is written."""
        keyed = [(position, one) for position, one in enumerate(fresh) if one.idempotency]
        if not keyed or len(fresh) <= MOST:
            return
        earlier: dict[str, records.Record] = {}
        with self._store.errors():
            known: Any = self._store.redis.mget([f"d:k:{one.idempotency}" for _, one in keyed])
        for (position, one), stored in zip(keyed, known, strict=True):
            first = earlier.setdefault(one.idempotency, one)
            made = tuple(stored.decode().split(" ")) if stored else None
            if made and made[1] != one.fingerprint and self.states([made[0]]) == [None]:
                # A key whose job is forgotten is free again.
                made = None
            id_, fingerprint = made or (first.id, first.fingerprint)
            if fingerprint != one.fingerprint:
                raise IdempotencyConflict(id_, position).at(f"messages[{position}]")

    def _check_at_provider(self, id_: str, code: str, timeout: float) -> Check:
        verification = self.get(id_)
        arguments = {"verification": id_, "ref": verification.provider_ref or "", "code": code}
        terms = Terms(category=Category.OTP, lane=Lane.HIGH, valid_for=timeout)
        try:
            asked = self._enqueue(Operation(arguments=arguments), CHECK, terms, verification.provider, None)
        except Unsupported:
            # An operator said that it was sent: what the provider made of it nobody here was told.
            return Check(valid=False, status="pending")
        job = self.wait(asked.id, timeout=timeout)
        if job.state != State.COMPLETED:
            return Check(valid=False, status="pending")
        return Check(job.result["valid"], job.result["status"])

    def _batch(self, id_: str, size: int | None) -> Batch:
        if size is None:
            raise NotFound("batch", shown(id_))
        return Batch(self, id_, StoredIds(self._store, f"d:b:{id_}:j", range(size)))

    def _listed(self, batch: str | None, number: str | None) -> Sequence[str]:
        if number is not None:
            hashed = self.settings.hashed("number", _number("number", number))
            if not hashed:
                raise ConfigurationError("DISPATCHER_HASH_KEY is not set, so that jobs were not listed by number")
            key = f"d:n:{hashed}"
        else:
            key = f"d:b:{batch}:j"
        with self._store.errors():
            size: Any = self._store.redis.llen(key)
        return StoredIds(self._store, key, range(size))[::-1]

    def _indexed(self, states: list[State], provider: str | None, limit: int) -> list[str]:
        with self._store.errors():
            known: Any = [provider.encode()] if provider else list(self._store.redis.smembers("d:p"))
            with self._store.redis.pipeline(transaction=False) as pipe:
                for name in known:
                    for state in states:
                        pipe.zrevrange(f"d:i:{name.decode()}:{state}", 0, limit - 1, withscores=True)
                found = [pair for page in pipe.execute() for pair in page] if known else []
        found.sort(key=lambda pair: (pair[1], pair[0]), reverse=True)
        return [id_.decode() for id_, _ in found[:limit]]


#: Jobs that one listing has at most.
_LONGEST_LIST: Final = 1_000_000

#: The operation that asks a provider to leave somebody alone.
_OPT_OUT: Final = "optout.add"


_CANCELLED: Final = Failure(kind=FailureKind.REFUSED, code="cancelled", message="cancelled by the caller")

_NO_VERIFICATION: Final = -1
_PROVIDER_JUDGES: Final = -2


def _taken_back(id_: str) -> Advance:
    told = {"e": msgspec.json.encode(_CANCELLED)}
    return Advance(id=id_, guard="=queued", state=State.CANCELLED, detail=_CANCELLED.message, fields=told)


def _one_list(tenant: str | None, sender: str | None) -> None:
    for name, value in (("tenant", tenant), ("sender", sender)):
        if value is not None:
            raise NotBuilt(name, "is for lists of their own, which this release does not have; leave it out for all")


def _number(field: str, number: Any) -> str:
    try:
        return phone.parse(number)
    except InvalidNumber as error:
        raise InvalidRequest(field, error.reason, error.value) from None
