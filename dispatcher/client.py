"""`Dispatcher`: what application code calls. It enqueues, reads, waits and follows; it never talks to a provider."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from kombu.exceptions import KombuError

from dispatcher import (
    checks,
    drafts,
    memory,
    records,
    recovery,
    verifications,
)
from dispatcher.accounts import Accounts, Route
from dispatcher.batches import Batch, Redriven, Steps, in_turn
from dispatcher.bulk import Bulk
from dispatcher.calls import Advance, Call, Calls, CodeVerdict, Created
from dispatcher.errors import (
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    Unsupported,
)
from dispatcher.events import EventStream
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
from dispatcher.lookups import Description, describe
from dispatcher.operating import OperatingVerbs
from dispatcher.optouts import OptOuts
from dispatcher.outcomes import Checked, Failure, FailureKind
from dispatcher.people import PeopleVerbs
from dispatcher.privacy import shown
from dispatcher.queues import CHUNK, celery_app, publish, queue_name
from dispatcher.reading import ReadingVerbs
from dispatcher.settings import Settings, load
from dispatcher.states import State
from dispatcher.store import JobStore, StoredIds
from dispatcher.verifications import Guarding

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger("dispatcher")

#: The operation that asks a provider to leave somebody alone.
_OPT_OUT: Final = "optout.add"

_CANCELLED: Final = Failure(kind=FailureKind.REFUSED, code="cancelled", message="cancelled by the caller")


class Check(msgspec.Struct, frozen=True):
    """What became of one code. `status` is for your backend; show the person one answer for all that is not valid."""

    valid: bool
    status: str


class Dispatcher(ReadingVerbs, PeopleVerbs, OperatingVerbs):
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
        self._bulk = Bulk(self._store, self._calls, self._drafts)
        self._accounts = Accounts(self._store, self.settings)
        self._celery = celery_app(self.settings)
        self._events = EventStream(self._store, self._sealer, lambda ids, reveal: self.get_many(ids, reveal=reveal))
        self._optouts = OptOuts(self.settings)
        self._guarding = Guarding(self.settings)

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
        timezone: str | None = None,
        lane: Lane | str | None = None,
        on_unknown: OnUnknown | str | None = OnUnknown.HOLD,
        failover_after: float | None = None,
        options: dict[str, Any] | None = None,
        max_segments: int | None = None,
        smart_encoding: bool | None = None,
        callback_url: str | None = None,
        callback_task: str | None = None,
        callback_queue: str | None = None,
    ) -> Job:
        """Enqueue one text and return its job, durable from then on.

        `to` is a number in international form; `valid_for` seconds after which it is not sent any more; `send_at` an
        aware datetime or seconds since 1970 before which it is not. A promotional text waits for the end of the quiet
        hours where the person is: `timezone`, an IANA name such as "Europe/London", says where, or else the number. One
        that is useless by then is `expired` at once. The same `idempotency_key` returns the first job;
        with another request it raises `IdempotencyConflict`. With `on_unknown="resend"` it is sent again, once, when
        nobody can tell whether it was sent: the person may get it twice. A text of more than `max_segments` is refused,
        by default of more than `DISPATCHER_MAX_SEGMENTS`. With `smart_encoding`, by default as
        `DISPATCHER_SMART_ENCODING` says, typeset quotes, dashes and the like become plain ones where they alone would
        have made it UCS-2; that is the text which is stored and sent.

        `provider` is one account or several in order: the next one gets it where the one before surely did not take it.
        Without any, `DISPATCHER_ROUTES` decides. With `failover_after` it goes on, though it was taken, as soon as it
        is told to be undelivered, or where no receipt came so many seconds after it was sent: the person may get it
        twice. `options` are the provider's own, of several accounts each by its name: `{"textgoto": {...}}`.

        `callback_url` is told of each of its events by a signed HTTP request, `callback_task` by a Celery task of
        yours, sent by its name to `callback_queue`; an empty one stands for nobody, whatever `DISPATCHER_CALLBACK_URL`
        says. They belong to no request: a repeated `idempotency_key` leaves those of the first job as they were.
        """
        callback = drafts.Callbacks(self.settings, callback_url, callback_task, callback_queue).usual
        text = drafts.spelled(self.settings, text, smart_encoding)
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
            timezone=timezone,
        )
        return self._enqueue(request, "send", terms, provider, idempotency_key, most=max_segments, callback=callback)

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
        timezone: str | None = None,
        lane: Lane | str | None = None,
        on_unknown: OnUnknown | str | None = OnUnknown.HOLD,
        failover_after: float | None = None,
        options: dict[str, Any] | None = None,
        max_segments: int | None = None,
        smart_encoding: bool | None = None,
        callback_url: str | None = None,
        callback_task: str | None = None,
        callback_queue: str | None = None,
    ) -> Batch:
        """Enqueue many texts and return their batch.

        All are checked before the first is stored: an error names the message, such as `messages[3].to`. A message's
        own sender, reference, metadata, options, `max_segments`, `smart_encoding`, `callback_url`, `callback_task` and
        idempotency key win over the call's. The call's callback is told of each job, as by `send`, and when the batch
        has settled; of several calls for one batch the last one's.

        `more` says that more messages of the same `batch_id` follow: the batch stays open, and does not count as
        settled, until a call without it or `close_batch`. So does one that was not written to its end:
        the call may be repeated where every message has an idempotency key; without, those written would be sent twice.
        """
        callbacks = drafts.Callbacks(self.settings, callback_url, callback_task, callback_queue)
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
            timezone=timezone,
        )
        checks.flag("more", more)
        batch = new_id() if batch_id is None else drafts.batch_name(batch_id)
        usual = Message(
            "", "", sender=sender, options=options, max_segments=max_segments, smart_encoding=smart_encoding
        )
        if not isinstance(messages, Iterable):
            raise InvalidRequest(
                "messages", f"must be Messages, in a list or one by one, not {type(messages).__name__}"
            )
        if self._accounts.asks_for_lines(provider):
            # Those of all numbers are read together.
            messages = [*messages]
        route = self._routing(provider, "send", (one.to for one in messages if isinstance(one, Message)))
        fresh = [
            self._drafts.message(position, one, route, terms, usual, callbacks=callbacks)
            for position, one in enumerate(messages)
        ]
        if not fresh:
            raise InvalidRequest("messages", "is empty; there is nothing to send, and close_batch() ends an open batch")
        self._bulk.refuse_conflicts(fresh)
        ids, known = self._bulk.write(terms.lane, batch, fresh, self._publish, callback=callbacks.usual, more=more)
        return Batch(self, batch, ids, len(fresh) - len(known), self._bulk.strangers(batch, known))

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
        smart_encoding: bool | None = None,
        guard_keys: Mapping[str, str] | None = None,
        callback_url: str | None = None,
        callback_task: str | None = None,
        callback_queue: str | None = None,
    ) -> Job:
        """Send a one-time code, put where `[CODE]` stands in `template`, and return its job.

        Ask `check` with the job's id. The code lives for `code_ttl` seconds from when it was sent; not sent within
        `valid_for` seconds (by default as long), it is not sent any more. With `on_unknown="resend"` it is sent again,
        once, when nobody can tell whether it was sent: the same code, where we make it.

        `DISPATCHER_GUARDS` says how many codes a number, its neighbours, its country and each of your own `guard_keys`
        may get, such as `{"ip": "203.0.113.7", "session": "..."}`: one too many raises the `VerificationRefused` of
        that guard, and nothing is created. A repeated `idempotency_key` is never refused. Callbacks are as `send` has
        them; they hear how the verification ends, too, and so do those of its resends.
        """
        callback = drafts.Callbacks(self.settings, callback_url, callback_task, callback_queue).usual
        self.settings.require_secrets("a verification")
        template = drafts.spelled(self.settings, template, smart_encoding)
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
        keys = verifications.guard_keys(guard_keys)
        route = self._route(provider, "verify", request, terms)
        record = self._drafts.record(
            request, "verify", terms, route, idempotency_key, most=max_segments, callback=callback
        )
        return self._verify(record, request, terms, keys)

    def resend(
        self,
        id_: str,
        *,
        guard_keys: Mapping[str, str] | None = None,
        provider: str | Sequence[str] | None = None,
    ) -> Job:
        """Send another code for a verification, asked for as it was, and return the new job; the old code is dead.

        The new job's `resend_of` names the old one, and `check` takes either id. It may go by another `provider`, which
        gets none of the options that were another's.
        Raises `ResendTooSoon` less than `DISPATCHER_RESEND_AFTER` seconds after the last code, `IllegalMove` where the
        verification was approved or taken back, `NotFound`, and what `verify` raises: guards count it like any other.
        """
        self.settings.require_secrets("a verification")
        keys = verifications.guard_keys(guard_keys)
        old = verifications.read_newest(self._store, checks.text("id_", id_), self._sealer)
        asked = old.public
        if isinstance(provider, str) or (isinstance(provider, Sequence) and len(provider) == 1):
            # With one account alone there is nothing to go on to.
            asked = msgspec.structs.replace(asked, failover_after=None)
        route = None if provider is None else self._route(provider, "verify", old.request, asked.terms)
        record = self._drafts.resent(old.id, old.provider, asked, old.request, route, callback=old.callback)
        return self._verify(record, old.request, asked.terms, keys, old.id)

    def _verify(
        self, record: records.Record, request: Verify, terms: Terms, keys: Mapping[str, str], resends: str = ""
    ) -> Job:
        """Write a verification that passes its guards, and publish it."""
        record = msgspec.structs.replace(record, more=record.more | self._guarding.watched(request.to))

        def hold(call: Call[Created]) -> Call[Created]:
            return self._guarding.hold(call, record, request, tenant=terms.tenant, keys=keys, resends=resends)

        return self._write_one(record, terms, hold)

    def check(self, id_: str, code: str, *, timeout: float = 5) -> Check:
        """Judge the code a person typed for the verification `id_`, or for the last that it was resent as.

        At most five tries and one success. Where we hold the code's hash this answers at once; where the provider
        judges, its worker asks it, and after `timeout` seconds without an answer this raises `WaitTimeout`: ask again
        with the same code then, which is right if it was.
        """
        return in_turn(self._checking(id_, code, timeout=timeout), time.sleep)

    def _checking(self, id_: str, code: str, *, timeout: float = 5) -> Steps[Check]:
        checks.text("id_", id_)
        checks.timeout("timeout", timeout)
        if not isinstance(code, str) or not code.strip():
            raise InvalidRequest("code", "is empty; pass what the person typed, as text")
        self.settings.require_secrets("a check")
        code = code.strip()
        checks.utf8("code", code)
        verdict, status = CodeVerdict.RESENT, id_
        while verdict == CodeVerdict.RESENT:
            id_ = status
            hashed = self.settings.hashed("code", id_, code)
            verdict, status = self._store.run(self._calls.check(id_, hashed, verifications.CHECKS))
        if verdict == CodeVerdict.NO_VERIFICATION:
            raise NotFound("verification", shown(id_))
        if verdict == CodeVerdict.PROVIDER_JUDGES:
            return (yield from self._check_at_provider(id_, code, timeout))
        return Check(verdict == CodeVerdict.RIGHT, status)

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
        callback_url: str | None = None,
        callback_task: str | None = None,
        callback_queue: str | None = None,
    ) -> Job:
        """Ask a provider what it knows of a number, and return the job whose `result` will tell.

        That is in the shape of `dispatcher.lookups.Result`, whichever provider it is: what a vendor is silent about is
        "unknown", also of `ported`, `roaming` and `reachable`, so compare those with `is True`. An answer is remembered
        for `DISPATCHER_LOOKUP_LIFETIME`, and costs nothing again; `fresh` asks anew. Of several jobs for one number at
        once one asks, and the others take its answer. Callbacks are as `send` has them.
        """
        terms = drafts.terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
        request = Lookup(to=to, fresh=checks.flag("fresh", fresh))
        callback = drafts.Callbacks(self.settings, callback_url, callback_task, callback_queue).usual
        return self._enqueue(request, "lookup", terms, provider, idempotency_key, callback=callback)

    def lookup_many(
        self,
        numbers: Iterable[str],
        *,
        provider: str | Sequence[str] | None = None,
        batch_id: str | None = None,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        valid_for: float | None = None,
        lane: Lane | str | None = None,
        fresh: bool = False,
        callback_url: str | None = None,
        callback_task: str | None = None,
        callback_queue: str | None = None,
    ) -> Batch:
        """Look up many numbers as `lookup` does, and return their batch: a job for each number, once.

        All are checked before the first is stored: an error names the number, such as `numbers[3]`. A call that was cut
        short may be repeated: what was answered by then is remembered, unless it is to be `fresh`. Callbacks are as
        `send_many` has them.
        """
        terms = drafts.terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
        checks.flag("fresh", fresh)
        callback = drafts.Callbacks(self.settings, callback_url, callback_task, callback_queue).usual
        batch = new_id() if batch_id is None else drafts.batch_name(batch_id)
        if isinstance(numbers, str) or not isinstance(numbers, Iterable):
            raise InvalidRequest("numbers", f"must be numbers, in a list or one by one, not {type(numbers).__name__}")
        numbers = [*numbers]
        route = self._routing(provider, "lookup", numbers)
        made = [
            self._drafts.lookup(at, one, route, terms, fresh=fresh, callback=callback) for at, one in enumerate(numbers)
        ]
        if not made:
            raise InvalidRequest("numbers", "is empty; there is nothing to look up")
        once = dict[str, drafts.Draft]()
        for number, draft in zip(numbers, made, strict=True):
            once.setdefault(draft.request.to if isinstance(draft.request, Lookup) else number, draft)
        each = [*once.values()]
        ids, known = self._bulk.write(terms.lane, batch, each, self._publish, callback=callback)
        return Batch(self, batch, ids, len(each) - len(known), self._bulk.strangers(batch, known))

    def line_types(self, numbers: Sequence[str]) -> dict[str, str]:
        """Return what lookups that are remembered told of the lines of E.164 numbers, by number; no others are there.

        What a number tells of itself `describe` says.
        """
        return memory.line_types(self._store, self.settings, checks.texts("numbers", numbers))

    def describe(self, number: str, region: str | None = None) -> Description:
        """Return what a number says of itself: format, country, kind of line. It asks nobody, and costs nothing.

        With a `region` (ISO 3166, such as "GB") it may be written as it is dialled there.
        """
        where = None if region is None else checks.text("region", region)
        try:
            return describe(number, where)
        except InvalidNumber as error:
            raise InvalidRequest("number", error.reason, error.value) from None

    def operation(
        self,
        /,
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
        callback_url: str | None = None,
        callback_task: str | None = None,
        callback_queue: str | None = None,
        **more: Any,
    ) -> Job:
        """Do anything else that an account can do, such as `balance`.

        Its arguments come by name, or in `arguments` where a name is taken here; the adapter checks them. Callbacks are
        as `send` has them.
        """
        checks.text("operation", operation)
        callback = drafts.Callbacks(self.settings, callback_url, callback_task, callback_queue).usual
        if not isinstance(arguments, dict | None):
            raise InvalidRequest("arguments", f"must be a dict with text keys, not {type(arguments).__name__}")
        arguments = {**(arguments or {}), **more}
        if operation in {"send", "verify", "lookup", CHECK}:
            raise InvalidRequest(
                "operation", f"has a method of its own: {operation.rsplit('.', maxsplit=1)[-1]}()", operation
            )
        if "number" in arguments:
            arguments["number"] = drafts.number("number", arguments["number"])
        terms = drafts.terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
        request = Operation(arguments=arguments)
        if operation == _OPT_OUT and not self.settings.hashed("number"):
            # Where others have a list it would be left out: refused before the provider is told.
            self._store.run(self._calls.enter())
        job = self._enqueue(request, operation, terms, provider, idempotency_key, callback=callback)
        if operation == _OPT_OUT:
            self._opt_out_too(job.provider, arguments)
        return job

    # -- a batch -----------------------------------------------------------------------------------------------------

    def batch(self, id_: str) -> Batch:
        """Return a batch by its id, with the jobs it has now. Raises `NotFound`."""
        checks.text("id_", id_)
        with self._store.errors(), self._store.redis.pipeline() as pipe:
            pipe.exists(f"d:b:{id_}")
            pipe.llen(f"d:b:{id_}:j")
            there, size = pipe.execute()
        return self._batch(id_, size if there else None)

    def _batch(self, id_: str, size: int | None) -> Batch:
        if size is None:
            raise NotFound("batch", shown(id_))
        return Batch(self, id_, StoredIds(self._store, f"d:b:{id_}:j", range(size)))

    # -- taking back -------------------------------------------------------------------------------------------------

    def cancel(self, id_: str) -> Job:
        """Take a queued job back. Raises `IllegalMove` when it is being sent or further, and `NotFound`.

        One of which an earlier try may have been taken is not tried again either, and ends `unknown`. Of a verification
        the code is taken back at any time while it is pending, though its text was sent: that job stays as it is.
        """
        (state,) = self._store.run(self._calls.advance([_taken_back(checks.text("id_", id_))], durable=True))
        job = self.get(id_)
        if job.verification is not None:
            return self._take_code_back(job)
        if not state and job.state != State.CANCELLED:
            raise IllegalMove(id_, job.state, State.CANCELLED)
        return job

    def _take_code_back(self, job: Job) -> Job:
        id_, status = self._store.run(self._calls.uncode(job.id))
        if status != "cancelled":
            why = "" if status == job.state else f"its verification is {status}"
            raise IllegalMove(id_, job.state, State.CANCELLED, why)
        return self.get(id_)

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
            checks.whole("limit", limit, 1, checks.LONGEST_LIST)
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
        return recovery.Wanted(
            states=recovery.states(state, resend=resend),
            provider=None if provider is None else checks.text("provider", provider),
            failure=None if failure is None else drafts.member("failure", FailureKind, failure),
            batch=None if batch is None else checks.text("batch", batch),
            since=milliseconds("since", since) or 0,
            until=self._store.now(),
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
        of: str = "",
        callback: str = "",
    ) -> Job:
        route = self._route(provider, operation, request, terms)
        record = self._drafts.record(request, operation, terms, route, idempotency_key, most=most, callback=callback)
        if of:
            # What says nothing of the number itself is found by it all the same, to be forgotten with it.
            record = msgspec.structs.replace(record, number=self.settings.hashed("number", of))
        return self._write_one(record, terms)

    def _route(
        self,
        provider: str | Sequence[str] | None,
        operation: str,
        request: Request,
        terms: Terms,
        lines: Mapping[str, str] | None = None,
    ) -> Route:
        """Return where a request may go. Raises what `Accounts.route` does."""
        route = self._accounts.route(provider, operation, drafts.facts(request, terms), lines)
        if terms.failover_after is not None:
            self._accounts.check_watch(route)
        return route

    def _routing(
        self, provider: str | Sequence[str] | None, operation: str, numbers: Iterable[Any]
    ) -> Callable[[Request, Terms], Route]:
        """Return what says where each of many requests may go: asked once where that is the same for all."""
        choose = partial(self._route, provider, operation, lines=self._accounts.lines(provider, numbers))
        if self._accounts.depends(provider):
            return choose
        chosen = list[Route]()

        def once(request: Request, terms: Terms) -> Route:
            if not chosen:
                chosen.append(choose(request, terms))
            return chosen[0]

        return once

    def _write_one(
        self, record: records.Record, terms: Terms, hold: Callable[[Call[Created]], Call[Created]] | None = None
    ) -> Job:
        """Write a record of its own and publish it; return its job, or the one that its idempotency key had made.

        `hold` returns the call that a guard may refuse.
        """
        made = self._write(record.provider, terms.lane, "", [record], more=False, hold=hold)
        if made.ids != [record.id] or made.refused:
            return self.get(made.ids[0])
        return self._drafts.job(record, made.at, terms)

    def _write(
        self,
        provider: str,
        lane: Lane,
        batch: str,
        fresh: list[records.Record],
        *,
        more: bool,
        hold: Callable[[Call[Created]], Call[Created]] | None = None,
    ) -> Created:
        """Write records and publish those that are new; answer the ids they have, and when. `hold` as above."""
        call = self._calls.create(provider, high=lane == Lane.HIGH, batch=batch, records=fresh, more=more)
        try:
            created = self._store.run(call if hold is None else hold(call))
        except StoreUnavailable as error:
            error.job_ids = [record.id for record in fresh]
            raise
        self._publish(queue_name(provider, lane), created.out)
        return created

    def _publish(self, queue: str, ids: list[str]) -> None:
        """Tell the workers of a queue; never raises."""
        try:
            publish(self._celery, queue, ids)
        except (KombuError, OSError) as error:
            # Accepted is accepted: the clock publishes what is in the outbox.
            log.warning("%d jobs are stored, their message is delayed: %s", len(ids), error.__class__.__name__)

    def _check_at_provider(self, id_: str, code: str, timeout: float) -> Steps[Check]:
        verification = self.get(id_, reveal=True)
        arguments = {"verification": id_, "ref": verification.provider_ref or "", "code": code}
        terms = Terms(category=Category.OTP, lane=Lane.HIGH, valid_for=timeout)
        request = Operation(arguments=arguments)
        try:
            asked = self._enqueue(request, CHECK, terms, verification.provider, None, of=verification.to)
        except Unsupported:
            # An operator said that it was sent: what the provider made of it nobody here was told.
            return Check(valid=False, status="pending")
        job = yield from self._waiting(asked.id, timeout=timeout)
        if job.state != State.COMPLETED:
            return Check(valid=False, status="pending")
        told = job.result
        outcome = Checked(
            verification=id_, valid=told["valid"], status=told["status"], doubtful=told.get("doubtful", False)
        )
        verdict, status = self._store.run(
            verifications.verdict(self.settings, self._calls, request, outcome, asked=True)
        )
        return Check(verdict == CodeVerdict.RIGHT, status)


def _taken_back(id_: str) -> Advance:
    told = {"e": msgspec.json.encode(_CANCELLED)}
    return Advance(id=id_, guard="=queued", state=State.CANCELLED, detail=_CANCELLED.message, fields=told)
