"""`Dispatcher`: what application code calls. It enqueues, reads, waits and follows; it never talks to a provider."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

import msgspec
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from dispatcher import phone, records
from dispatcher.accounts import Account, Accounts
from dispatcher.errors import (
    IdempotencyConflict,
    IllegalMove,
    InvalidRequest,
    NotBuilt,
    NotFound,
    StoreUnavailable,
    WaitTimeout,
)
from dispatcher.events import Event, EventStream
from dispatcher.jobs import (
    Category,
    Job,
    Lane,
    Lookup,
    Message,
    Operation,
    Request,
    Send,
    Terms,
    Verify,
    milliseconds,
    new_id,
)
from dispatcher.privacy import keyed_hash
from dispatcher.queues import celery_app, publish, queue_name
from dispatcher.settings import Settings, load
from dispatcher.states import FINAL, SETTLED, State
from dispatcher.store import MOST, Advance, Calls, JobStore

if TYPE_CHECKING:
    from types import TracebackType

log = logging.getLogger("dispatcher")

Until = Literal["settled", "final"]

#: Times that one code may be checked.
CHECKS: Final = 5

#: Seconds between looks while waiting: quick at first, for codes; slower then, for campaigns.
_LOOKS: Final = (0.02, 0.25)


class Check(msgspec.Struct, frozen=True):
    """What became of one code. `status` is for your backend; show the person one answer for all that is not valid."""

    valid: bool
    status: str


class Batch:
    """Jobs that were enqueued together. Its counts add up to its size at every moment."""

    def __init__(self, dispatcher: Dispatcher, id_: str, ids: Sequence[str]) -> None:
        """`ids` are the jobs in the order of their messages."""
        self._dispatcher = dispatcher
        self.id = id_
        self.jobs = BatchJobs(dispatcher, ids)

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Batch({self.id}, {len(self.jobs)} jobs)"

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs are in each state now, by state; zeroes are left out."""
        return self._dispatcher.batch_counts(self.id)

    def wait(self, until: Until = "settled", timeout: float = 30) -> dict[str, int]:
        """Return the counts once all its jobs are settled, or final. Raises `WaitTimeout`."""
        ends = SETTLED if until == "settled" else FINAL
        for seconds in _looks(timeout):
            counts = self.counts
            if all(state in ends for state in counts):
                return counts
            time.sleep(seconds)
        counts = self.counts
        busy = sum(count for state, count in counts.items() if state not in ends)
        raise WaitTimeout(f"batch {self.id}", f"still busy with {busy} jobs", until, timeout)


class BatchJobs(Sequence[Job]):
    """The jobs of a batch as they are when looked at: read from Redis a page at a time, never all in memory."""

    def __init__(self, dispatcher: Dispatcher, ids: Sequence[str]) -> None:
        """`ids` in order."""
        self._dispatcher = dispatcher
        self.ids = ids

    def __len__(self) -> int:
        """Return how many there are, without asking Redis."""
        return len(self.ids)

    @overload
    def __getitem__(self, position: int) -> Job: ...
    @overload
    def __getitem__(self, position: slice) -> BatchJobs: ...
    def __getitem__(self, position: int | slice) -> Job | BatchJobs:
        """Read one job now, or narrow the view."""
        if isinstance(position, slice):
            return BatchJobs(self._dispatcher, self.ids[position])
        return self._dispatcher.get(self.ids[position])

    def __iter__(self) -> Iterator[Job]:
        """Read the jobs in order."""
        for start in range(0, len(self.ids), MOST):
            page = self.ids[start : start + MOST]
            found = self._dispatcher.get_many(page)
            yield from (found[one] for one in page if one in found)


class Dispatcher:
    """Enqueues jobs and tells what became of them. Safe to share between threads; make one per process.

    Raises `ConfigurationError` for settings that cannot work, `StoreUnavailable` when Redis does not answer, and for a
    request that can never work `InvalidRequest`, before anything is stored.
    """

    def __init__(self, settings: Settings | None = None, *, redis_url: str | None = None, **overrides: Any) -> None:
        """Take settings from the environment; `overrides` are fields of `Settings` and win over it."""
        self.settings = settings or load(redis_url=redis_url, **overrides)
        self._store = JobStore(self.settings.redis, self.settings.redis_shown)
        self._calls = Calls(self.settings)
        self._sealer = self.settings.sealer()
        self._accounts = Accounts(self._store, self.settings)
        self._celery = celery_app(self.settings)
        self._events = EventStream(self._store, self.get_many)

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
        options: dict[str, Any] | None = None,
        **later: Any,
    ) -> Job:
        """Enqueue one text and return its job, durable from then on.

        `to` is a number in international form; `valid_for` seconds after which it is not sent any more; `send_at` an
        aware datetime or seconds since 1970 before which it is not. The same `idempotency_key` returns the first job;
        with another request it raises `IdempotencyConflict`. `options` are the provider's own.
        """
        _refuse_later(later, {"on_unknown": "hold"})
        request = Send(to=to, text=text, sender=sender, options=options or {})
        terms = _terms(category, lane, reference, metadata, tenant, valid_for=valid_for, send_at=send_at)
        return self._enqueue(request, "send", terms, provider, idempotency_key)

    def send_many(
        self,
        messages: Iterable[Message],
        *,
        provider: str | Sequence[str] | None = None,
        batch_id: str | None = None,
        sender: str = "",
        category: Category | str = Category.TRANSACTIONAL,
        reference: str = "",
        metadata: dict[str, Any] | None = None,
        tenant: str = "",
        valid_for: float | None = None,
        send_at: datetime | float | None = None,
        lane: Lane | str | None = None,
        options: dict[str, Any] | None = None,
        **later: Any,
    ) -> Batch:
        """Enqueue many texts and return their batch.

        All are checked before the first is stored: an error names the message, such as `messages[3].to`. A message's
        own sender, reference, metadata, options and idempotency key win over the call's.
        """
        _refuse_later(later, {"on_unknown": "hold"})
        terms = _terms(category, lane, reference, metadata, tenant, valid_for=valid_for, send_at=send_at)
        name = self._accounts.choose(_single(provider), "send")
        batch = batch_id or new_id()
        usual = Message("", "", sender=sender, options=options)
        fresh = [self._message(position, one, name, terms, usual) for position, one in enumerate(messages)]
        if not fresh:
            raise InvalidRequest("messages", "is empty; there is nothing to send")
        ids: list[str] = []
        for start in range(0, len(fresh), MOST):
            try:
                ids += self._write(name, terms.lane, batch, fresh[start : start + MOST])[0]
            except IdempotencyConflict as conflict:
                raise conflict.at(f"messages[{start + conflict.position}]") from None
        return Batch(self, batch, ids)

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
        options: dict[str, Any] | None = None,
        **later: Any,
    ) -> Job:
        """Send a one-time code, put where `[CODE]` stands in `template`, and return its job.

        Ask `check` with the job's id. The code lives for `code_ttl` seconds from when it was sent; not sent within
        `valid_for` seconds (by default as long), it is not sent any more.
        """
        _refuse_later(later, {"on_unknown": "hold"})
        self.settings.require_secrets("a verification")
        request = Verify(to=to, template=template, sender=sender, options=options or {})
        terms = _terms(
            Category.OTP, None, reference, metadata, tenant, valid_for=valid_for or code_ttl, code_ttl=code_ttl
        )
        return self._enqueue(request, "verify", terms, provider, idempotency_key)

    def check(self, id_: str, code: str, *, timeout: float = 5) -> Check:
        """Judge the code a person typed for the verification `id_`.

        At most five tries and one success. Where we hold the code's hash this answers at once; where the provider
        judges, its worker asks it, and after `timeout` seconds without an answer this raises `WaitTimeout`.
        """
        if not isinstance(code, str) or not code.strip():
            raise InvalidRequest("code", "is empty; pass what the person typed, as text")
        self.settings.require_secrets("a check")
        code = code.strip()
        verdict, status = self._store.run(self._calls.check(id_, self.settings.hashed("code", id_, code), CHECKS))
        if verdict == _NO_VERIFICATION:
            raise NotFound("verification", id_)
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
        **later: Any,
    ) -> Job:
        """Ask a provider what it knows of a number, and return the job whose `result` will tell."""
        _refuse_later(later, {})
        terms = _terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
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
        **arguments: Any,
    ) -> Job:
        """Do anything else that an account can do, such as `balance`; its adapter checks the `arguments`."""
        if operation in {"send", "verify", "lookup", _CHECK}:
            raise InvalidRequest(
                "operation", f"has a method of its own: {operation.rsplit('.', maxsplit=1)[-1]}()", operation
            )
        if "number" in arguments:
            arguments["number"] = phone.parse(str(arguments["number"]))
        terms = _terms(Category.TRANSACTIONAL, lane, reference, metadata, tenant, valid_for=valid_for)
        return self._enqueue(Operation(arguments=arguments), operation, terms, provider, idempotency_key)

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, id_: str, *, reveal: bool = False) -> Job:
        """Return the job as it is now; masked unless `reveal`. Raises `NotFound`."""
        found = self.get_many([id_], reveal=reveal)
        if id_ not in found:
            raise NotFound("job", id_)
        return found[id_]

    def get_many(self, ids: Sequence[str], *, reveal: bool = False) -> dict[str, Job]:
        """Return those of the jobs that there are, by id."""
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

    def wait(self, id_: str, *, until: Until = "settled", timeout: float = 30) -> Job:
        """Return the job once it is settled (or final). Raises `WaitTimeout` after `timeout` seconds; it goes on."""
        ends = SETTLED if until == "settled" else FINAL
        for seconds in _looks(timeout):
            with self._store.errors():
                state: Any = self._store.redis.hget(f"d:j:{id_}", "s")
            if state is None or State(state.decode()) in ends:
                return self.get(id_)
            time.sleep(seconds)
        job = self.get(id_)
        if job.state in ends:
            return job
        raise WaitTimeout(f"job {id_}", job.state, until, timeout)

    def cancel(self, id_: str) -> Job:
        """Take a queued job back. Raises `IllegalMove` when it is being sent or further, and `NotFound`."""
        failure = b'{"kind":"refused","code":"cancelled","message":"cancelled by the caller"}'
        move = Advance(
            id=id_, guard="=queued", state=State.CANCELLED, detail="cancelled by the caller", fields={"e": failure}
        )
        (state,) = self._store.run(self._calls.advance([move]))
        job = self.get(id_)
        if not state:
            raise IllegalMove(id_, job.state, State.CANCELLED)
        return job

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
        if batch is not None or number is not None:
            ids = self._listed(batch, number)
        else:
            ids = self._indexed([State(state)] if state else list(State), provider, limit)
        chosen: list[Job] = []
        for start in range(0, len(ids), MOST):
            chosen += [
                job
                for job in self.get_many(ids[start : start + MOST], reveal=reveal).values()
                if (state is None or job.state == state) and (provider is None or job.provider == provider)
            ]
            if len(chosen) >= limit:
                break
        return chosen[:limit]

    def batch(self, id_: str) -> Batch:
        """Return a batch by its id. Raises `NotFound`."""
        with self._store.errors():
            ids: Any = self._store.redis.lrange(f"d:b:{id_}:j", 0, -1)
        if not ids:
            raise NotFound("batch", id_)
        return Batch(self, id_, [one.decode() for one in ids])

    def batch_counts(self, id_: str) -> dict[str, int]:
        """Return how many jobs of a batch are in each state; zeroes are left out."""
        with self._store.errors():
            stored: Any = self._store.redis.hgetall(f"d:b:{id_}")
        return {state.decode(): int(count) for state, count in stored.items() if int(count)}

    def events(self, after: str | None = None, *, timeout: float | None = None) -> Iterator[Event]:
        """Yield events as they come, from `after` a cursor on, "0" for all that are kept, None for news only.

        Ends when none came for `timeout` seconds, never for None. Raises `CursorExpired` at once where events after the
        cursor were trimmed away.
        """
        return self._events.follow(self._events.start(after), timeout=timeout)

    def providers(self) -> dict[str, Account]:
        """Return the accounts that workers have published, by name."""
        return dict(self._accounts.published())

    # -- within ------------------------------------------------------------------------------------------------------

    def _enqueue(
        self,
        request: Request,
        operation: str,
        terms: Terms,
        provider: str | Sequence[str] | None,
        idempotency_key: str | None,
    ) -> Job:
        name = self._accounts.choose(_single(provider), operation)
        record = self._record(request, operation, terms, name, idempotency_key)
        (id_,), at = self._write(name, terms.lane, "", [record])
        if id_ != record.id:
            return self.get(id_)
        return self._fresh(record, name, at, terms)

    def _message(self, position: int, one: Message, provider: str, terms: Terms, usual: Message) -> records.Record:
        """Return the record of one of many; `usual` has what it leaves out."""
        try:
            sender = usual.sender if one.sender is None else one.sender
            options = usual.options if one.options is None else one.options
            request = Send(to=one.to, text=one.text, sender=sender or "", options=options or {})
            if one.reference is not None or one.metadata is not None:
                reference = terms.reference if one.reference is None else one.reference
                metadata = terms.metadata if one.metadata is None else one.metadata
                terms = msgspec.structs.replace(terms, reference=reference, metadata=metadata)
            return self._record(request, "send", terms, provider, one.idempotency_key)
        except InvalidRequest as error:
            raise error.at(f"messages[{position}]") from None

    def _record(
        self, request: Request, operation: str, terms: Terms, provider: str, idempotency_key: str | None
    ) -> records.Record:
        id_ = new_id()
        private = records.encode_request(request)
        to = request.arguments.get("number") if isinstance(request, Operation) else request.to
        return records.Record(
            id=id_,
            public=records.encode_public(request, terms, operation, sandbox=self.settings.sandbox),
            private=self._sealer.seal(private, id_),
            due=terms.send_at,
            valid_for=int(terms.valid_for * 1000) if terms.valid_for else None,
            number=self.settings.hashed("number", to) if to else "",
            idempotency=_idempotency(terms.tenant, idempotency_key),
            fingerprint=records.fingerprint(provider, operation, private, terms) if idempotency_key else "",
            code_ttl=terms.code_ttl * 1000 if terms.code_ttl else None,
        )

    def _write(self, provider: str, lane: Lane, batch: str, fresh: list[records.Record]) -> tuple[list[str], int]:
        """Write records and publish those that are new; answer the ids they have, and when."""
        call = self._calls.create(provider, high=lane == Lane.HIGH, batch=batch, records=fresh)
        try:
            created = self._store.run(call)
        except StoreUnavailable:
            # The ids are ours, so that saying it once more cannot enqueue anything twice.
            created = self._store.run(call)
        new = [
            record.id
            for record, id_ in zip(fresh, created.ids, strict=True)
            if record.id == id_ and (record.due or 0) <= created.at
        ]
        self._publish(queue_name(provider, lane), new)
        return created.ids, created.at

    def _publish(self, queue: str, ids: list[str]) -> None:
        try:
            publish(self._celery, queue, ids)
        except (BrokerError, KombuError, OSError) as error:
            # Accepted is accepted: the clock publishes what is in the outbox.
            log.warning("%d jobs are stored, their message is delayed: %s", len(ids), error.__class__.__name__)

    def _fresh(self, record: records.Record, provider: str, at: int, terms: Terms) -> Job:
        """Return the document of a job just written, without asking for it."""
        fields = {b"d": record.public, b"x": record.private, b"p": provider.encode(), b"s": b"queued"}
        fields[b"h"] = f"{at} queued {provider} created".encode()
        begins = max(record.due or 0, at)
        if record.due and record.due > at:
            fields[b"w"] = f"time {record.due}".encode()
        if record.valid_for:
            fields[b"z"] = str(begins + record.valid_for).encode()
        if terms.code_ttl:
            fields |= {b"vs": b"pending", b"ve": str(begins + terms.code_ttl * 1000).encode()}
        return records.job(record.id, fields, self._sealer, at, reveal=False)

    def _check_at_provider(self, id_: str, code: str, timeout: float) -> Check:
        verification = self.get(id_)
        arguments = {"verification": id_, "ref": verification.provider_ref or "", "code": code}
        terms = Terms(category=Category.OTP, lane=Lane.HIGH, valid_for=timeout)
        asked = self._enqueue(Operation(arguments=arguments), _CHECK, terms, verification.provider, None)
        job = self.wait(asked.id, timeout=timeout)
        if job.state != State.COMPLETED:
            return Check(valid=False, status="pending")
        return Check(job.result["valid"], job.result["status"])

    def _listed(self, batch: str | None, number: str | None) -> list[str]:
        if number is not None:
            hashed = self.settings.hashed("number", phone.parse(number))
            self.settings.require_secrets("finding by number") if not hashed else None
            key = f"d:n:{hashed}"
        else:
            key = f"d:b:{batch}:j"
        with self._store.errors():
            ids: Any = self._store.redis.lrange(key, 0, -1)
        return [one.decode() for one in reversed(ids)]

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


#: The operation that asks a provider to judge a code.
_CHECK: Final = "verify.check"

_NO_VERIFICATION: Final = -1
_PROVIDER_JUDGES: Final = -2

#: Arguments of the contract that a later release obeys, and what they are for.
_LATER: Final = {
    "on_unknown": "sending again what may have been sent",
    "failover_after": "failover",
    "callback_url": "callbacks",
    "callback_task": "callbacks",
    "timezone": "quiet hours",
    "max_segments": "budgets",
    "fresh": "the lookup cache",
    "guard_keys": "guards",
}


def _refuse_later(later: dict[str, Any], usual: dict[str, Any]) -> None:
    for name, value in later.items():
        if name not in _LATER:
            raise TypeError(f"unexpected argument {name!r}")
        if value is not None and value != usual.get(name):
            raise NotBuilt(name, f"is for {_LATER[name]}, which this release does not do yet; leave it out")


def _single(provider: str | Sequence[str] | None) -> str | None:
    if provider is None or isinstance(provider, str):
        return provider
    if len(provider) == 1:
        return provider[0]
    raise NotBuilt("provider", "may be a list for failover, which this release does not do yet; name one")


def _terms(
    category: Category | str,
    lane: Lane | str | None,
    reference: str,
    metadata: dict[str, Any] | None,
    tenant: str,
    *,
    valid_for: float | None = None,
    send_at: datetime | float | None = None,
    code_ttl: int | None = None,
) -> Terms:
    why = _member("category", Category, category)
    return Terms(
        category=why,
        lane=_member("lane", Lane, lane) if lane else Lane.HIGH if why == Category.OTP else Lane.NORMAL,
        reference=reference,
        metadata=metadata or {},
        tenant=tenant,
        valid_for=valid_for,
        send_at=milliseconds("send_at", send_at),
        code_ttl=code_ttl,
    )


def _member(field: str, kind: type[StrEnum], value: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(field, f"must be one of {', '.join(kind)}", str(value)[:40]) from None


def _idempotency(tenant: str, key: str | None) -> str:
    if key is None:
        return ""
    if not isinstance(key, str) or not key:
        raise InvalidRequest("idempotency_key", "must be text that is not empty; leave it out for none")
    return keyed_hash("idempotency", tenant, key)


def _looks(timeout: float) -> Iterator[float]:
    """Yield how long to sleep before each next look, until `timeout` seconds have passed."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < timeout:
        yield min(_LOOKS[0] if passed < 1 else _LOOKS[1], timeout - passed)
