"""`FakeProviders`: plays the providers and the phones to every `Dispatcher` of this process, by the real scripts."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import msgspec

from dispatcher import budgets, drafts, inmemory, lookups, notices, phone, records, signing, verifications
from dispatcher.accounts import KEY as ACCOUNTS
from dispatcher.accounts import Account
from dispatcher.answering import answer
from dispatcher.budgets import NO_TEXT, Spending
from dispatcher.calls import MOST, Advance, Call, Claim, Word, call_name
from dispatcher.client import Dispatcher
from dispatcher.endpoints import NoticeCalls
from dispatcher.errors import ConfigurationError, IllegalMove, NotFound
from dispatcher.events import Event
from dispatcher.jobs import CHECK, Job, Kind, Lane, Lookup, Terms, Verify, Work, new_id
from dispatcher.lookups import LINE_TYPES, UNKNOWN, Facts, Network, Truth
from dispatcher.memory import Ask, LookupCalls, from_memory
from dispatcher.notices import NOTIFY, Target
from dispatcher.optouts import Text
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.privacy import shown
from dispatcher.queues import is_receipts, provider_of, queue_name
from dispatcher.settings import PREFIX, Settings, load
from dispatcher.states import State
from dispatcher.testing import told
from dispatcher.testing.clock import Clock, ruling
from dispatcher.testing.told import Notice, Sent

#: A job, a text, or the id of one; or a number, for the last text to it.
Which: TypeAlias = Job | Sent | str

#: What an account can do unless it is only named.
_OPERATIONS: Final = (
    "balance", "credits.buy", "keyword.check", "keyword.rent", "keyword.setup", "keyword.cancel", "list.append",
    "lookup", "number.buy", "number.cancel", "number.list", "number.search", "optout.add", "report", "send", "verify",
)  # fmt: skip

#: Signs callbacks where there is no other secret: it is no secret.
_SECRET: Final = "whsec_ZGlzcGF0Y2hlci50ZXN0aW5nIHRlbGxzIG5vYm9keQ=="  # noqa: S105 - it signs for tests alone

_CODE_DIGITS: Final = 6

#: The URLs that are played to.
_playing: Final[set[str]] = set()


class FakeProviders:
    """Plays all providers. Use it as a context manager; the pytest fixture `messages` is one.

    Meanwhile `DISPATCHER_REDIS_URL` is `memory://...`, the store is empty at the start, and the clock stands. What is
    enqueued stays `queued` until the test says what becomes of it, or with `auto` is delivered at once.
    """

    def __init__(
        self,
        *,
        accounts: Sequence[str] = ("test",),
        auto: bool = False,
        at: datetime | float | None = None,
        name: str = "testing",
        **settings: Any,
    ) -> None:
        """Begin at the moment `at`, by default now.

        `accounts` are those that are known before any is named; every other one is taken as it is named. `settings`
        are fields of `Settings`, put into the environment: `budgets="tenant=* messages=2/day"`. `name` tells one store
        from another; where `DISPATCHER_REDIS_URL` is of this kind already, that one is used.
        """
        self.auto = auto
        #: What the scripts and every `Dispatcher` go by.
        self.clock = Clock(at, self._until)
        self._accounts = tuple(accounts)
        self._name = name
        self._overrides = settings
        self._stack = ExitStack()
        self._turn = threading.RLock()
        self._plays: dict[str, Callable[[Job], object]] = {}
        self._codes: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Begin with an empty store. Raises `ConfigurationError` for settings that cannot work."""
        with ExitStack() as stack:
            url = _url(self._name)
            stack.enter_context(_environment({"REDIS_URL": url, **self._variables()}))
            stack.enter_context(_alone(url))
            redis = inmemory.connect(url)
            redis.flushall()
            stack.callback(redis.flushall)
            #: As the environment has them: what your own `Dispatcher()` reads, too.
            self.settings: Settings = load()
            stack.enter_context(ruling(self.clock))
            #: One to ask for anything else, and to enqueue with.
            self.dispatcher = stack.enter_context(Dispatcher(self.settings))
            self._store = self.dispatcher._store  # noqa: SLF001 - ours, as what follows
            self._calls = self.dispatcher._calls  # noqa: SLF001 - same
            self._events = self.dispatcher._events  # noqa: SLF001 - same
            self._optouts = self.dispatcher._optouts  # noqa: SLF001 - same
            self._sealer = self.settings.sealer()
            self._lookups = LookupCalls(self.settings)
            self._drafts = drafts.Drafts(self.settings)
            self._notices = NoticeCalls(self.settings)
            self._begin_telling()
            self._publish_accounts()
            inmemory.listen(url, self._published)
            stack.callback(inmemory.listen, url, None)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Forget all, and put the environment and the time back."""
        self._stack.close()

    # -- what was asked for ------------------------------------------------------------------------------------------

    @property
    def sent(self) -> list[Sent]:
        """The texts that went, or are to go, in the order in which they were asked for, in clear.

        One that was refused, cancelled or expired before it was sent is not among them: `dispatcher.jobs()` has all.
        """
        return [told.sent(job, self._shown(job)) for job in self._jobs() if told.goes(job)]

    def code(self, verification: Which) -> str:
        """Return the code that a person was texted, of a verification or of the last that a number got.

        Asked for the first of several resends it is that of the last. Raises `LookupError` where none was sent yet.
        """
        id_ = self._id(verification, Kind.VERIFY)
        newest = verifications.read_newest(self._store, id_, self._sealer).id
        if newest not in self._codes:
            raise LookupError(f"no code of {newest} was sent yet: messages.deliver(...) or messages.settle() sends it")
        return self._codes[newest]

    # -- what becomes of a text --------------------------------------------------------------------------------------

    def accept(self, job: Which, *, price: str = "") -> Job:
        """Let the provider take a text: it is `sent`, and no receipt comes yet.

        Like all of these it returns the job as it is then, in clear: `failed`, where the person has opted out since or
        a budget is used up. Raises `IllegalMove` where it is over, or has to wait: then move `clock`.
        """
        return self._text(job, State.SENT, price)

    def deliver(self, job: Which, *, price: str = "") -> Job:
        """Let a text be taken, where it was not, and its receipt come: `delivered`. `price` is like "0.03 USD"."""
        return self._text(job, State.DELIVERED, price)

    def undelivered(self, job: Which, *, code: str = "", message: str = "", price: str = "") -> Job:
        """Let a text be taken, where it was not, and its receipt say that the phone did not get it."""
        failure = Failure(kind=FailureKind.REJECTED, code=code, message=message)
        return self._text(job, State.UNDELIVERED, price, failure)

    def fail(
        self, job: Which, kind: FailureKind | str = FailureKind.REJECTED, *, code: str = "", message: str = ""
    ) -> Job:
        """Let anything fail for good, as if it had been tried often enough: `failed`, with this `failure`.

        With "opted_out" the number is on the list afterwards. An `unknown` job may fail: then it was surely not taken.
        """
        failure = Failure(kind=FailureKind(kind), code=code, message=message)
        with self._turn:
            found = self._find(job)
            if found.state == State.UNKNOWN:
                return self._hear(found, State.FAILED, failure)
            if found.state != State.QUEUED:
                why = "it was taken; undelivered() says that it did not arrive" if found.state == State.SENT else ""
                raise IllegalMove(found.id, found.state, State.FAILED, why)
            return self._end(found, State.FAILED, failure, f"{failure.kind} ")

    def unknown(self, job: Which) -> Job:
        """Let the answer to a request get lost, so that nobody can tell whether it was taken: `unknown`."""
        failure = Failure(kind=FailureKind.AMBIGUOUS, code="timeout", message="no answer came")
        with self._turn:
            found = self._find(job)
            if found.state != State.QUEUED:
                raise IllegalMove(found.id, found.state, State.UNKNOWN)
            return self._end(found, State.UNKNOWN, failure, f"{failure.kind} ", i=1)

    def expire(self, job: Which) -> Job:
        """Let what is queued be useless, as if its `valid_for` had passed; `clock` lets it pass for all."""
        failure = Failure(kind=FailureKind.EXPIRED, message="its time passed before it was sent")
        with self._turn:
            found = self._find(job)
            self._move(found, "=queued", State.EXPIRED, failure.message, e=records.encode_failure(failure))
            return self._read(found.id)

    # -- what other jobs are answered --------------------------------------------------------------------------------

    def answer(
        self,
        job: Which,
        *,
        line_type: str = UNKNOWN,
        country: str = UNKNOWN,
        network: Network | str = UNKNOWN,
        original_network: Network | str = UNKNOWN,
        ported: Truth = UNKNOWN,
        roaming: Truth = UNKNOWN,
        reachable: Truth = UNKNOWN,
        raw: dict[str, Any] | None = None,
        price: str = "",
    ) -> Job:
        """Answer a lookup; what is left out the vendor did not say, and of country and line the number tells.

        `network` is the one that serves the number now, by its name or as a `Network`.
        """
        if line_type not in LINE_TYPES:
            raise ValueError(f"line_type is one of {', '.join(sorted(LINE_TYPES))}")
        facts = Facts(
            country=country,
            line_type=line_type,
            current_network=_network(network),
            original_network=_network(original_network),
            ported=ported,
            roaming=roaming,
            reachable=reachable,
        )
        with self._turn:
            found = self._queued(job, State.COMPLETED)
            if found.kind != Kind.LOOKUP:
                raise IllegalMove(found.id, found.state, State.COMPLETED, f"it is a {found.kind}, and no lookup")
            begun = self._begin(found, State.COMPLETED)
            if begun is not None:
                work, token = begun
                asked_at = work.asked_at or round(self.clock.seconds * 1000)
                result = lookups.result(work.to, facts, raw or {}, work.provider, asked_at)
                if work.asked_at:
                    hashed = self._lookups.hashed(work.to)
                    self._run(self._lookups.remember(work.id, hashed, asked_at, result))
                self._found(work, token, msgspec.to_builtins(result), price)
            return self._read(found.id)

    def complete(self, job: Which, result: dict[str, Any] | None = None, *, price: str = "") -> Job:
        """Answer any other operation with its `result`: a balance, a purchase."""
        with self._turn:
            found = self._queued(job, State.COMPLETED)
            if found.kind != Kind.OPERATION:
                way = "answer() answers it" if found.kind == Kind.LOOKUP else "deliver() delivers it"
                raise IllegalMove(found.id, found.state, State.COMPLETED, f"it is a {found.kind}; {way}")
            begun = self._begin(found, State.COMPLETED)
            if begun is not None:
                self._found(*begun, result or {}, price)
            return self._read(found.id)

    # -- what happens by itself --------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything end well that is queued now and need not wait, in order, and what follows from it.

        Texts are delivered, lookups told what the number says of itself, operations answered `{}`; `on` says otherwise.
        """
        with self._turn:
            self._tick()
            while ids := self._waiting_for_workers():
                for id_ in ids:
                    self._play(id_)
                self._tick()

    def on(self, which: str, play: Callable[[Job], object]) -> None:
        """Say what becomes of jobs for a number, or of an operation, in `settle` and with `auto`.

        `messages.on("+447700900124", messages.undelivered)`; with more to say, `functools.partial(messages.fail,
        kind="invalid")`.
        """
        self._plays[phone.parse(which) if which.startswith("+") else which] = play

    def receive(
        self, sender: str, text: str, *, provider: str | None = None, to: str = "", ref: str | None = None
    ) -> None:
        """Let a person text us: an `inbound.text` event; STOP and its kin have their consequences.

        It comes by the account `provider`, by default the first one, to its number `to`; `ref` is its id there: the
        same one twice is one text.
        """
        account = self._accounts[0] if provider is None else provider
        with self._turn:
            one = Text(
                provider=account,
                sender=sender,
                to=to,
                text=text,
                at=self.clock.now().isoformat(),
                received=round(self.clock.seconds * 1000),
                verdict=self._optouts.verdict(text),
            )
            ref, callback = ref or new_id(), new_id()
            said = self._run(self._optouts.said(one, ref, callback))
            made = said.owed and answer(self._drafts, self._optouts, one, ref=ref, callback=callback, sender=to)
            if made:
                created = self._run(self._calls.create(account, high=True, batch="", records=[made]))
                self._published(queue_name(account, Lane.HIGH), created.out)

    # -- what consumers are told -------------------------------------------------------------------------------------

    @property
    def callbacks(self) -> list[Notice]:
        """The callbacks that would have been made until now, in order: by `callback_url`, `callback_task`, settings."""
        self._gather()
        found = list[Notice]()
        for key in self._keys("d:tn:*"):
            _, _, endpoint, cursor = key.split(":")
            stored: Any = self._store.redis.hgetall(key)
            ids, whole = notices.decode(stored[b"cb"].decode(), self._sealer)
            target = notices.only(whole, ids, endpoint)
            # By Celery it is masked whatever is set.
            (event,) = self._events.told(
                [(cursor.encode(), stored)], reveal=self.settings.callback_reveal and not target.task
            )
            found.append(told.sent_as_task(target, event) if target.task else self._posted(target, event))
        return sorted(found, key=lambda one: (_position(one), one.task))

    def _posted(self, target: Target, event: Event) -> Notice:
        headers, body = self.webhook(event)
        return told.posted(target, event, headers, body)

    def webhook(self, event: Event | Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of the request that would tell of an event, signed, to post to your view.

        It is signed with `DISPATCHER_CALLBACK_SECRET`, as Standard Webhooks has it; where none was set, there is one in
        the environment meanwhile.
        """
        document: Any = msgspec.to_builtins(event)
        body = msgspec.json.encode(event)
        # In real time: whoever verifies it has no other.
        at = int(datetime.now(UTC).timestamp())
        by = signing.signers(self.settings.callback_secret.get_secret_value())
        headers = signing.signed(by, notices.id_of(document["cursor"]), at, body)
        return {"content-type": "application/json", **headers}, body

    # -- within: the road of a job -----------------------------------------------------------------------------------

    def _text(self, which: Which, to: State, price: str, failure: Failure | None = None) -> Job:
        with self._turn:
            job = self._find(which)
            if job.kind not in {Kind.SEND, Kind.VERIFY}:
                way = "answer() answers it" if job.kind == Kind.LOOKUP else "complete() answers it"
                raise IllegalMove(job.id, job.state, to, f"it is a {job.kind} and no text; {way}")
            if job.state == State.QUEUED:
                begun = self._begin(job, to)
                if begun is None:
                    return self._read(job.id)
                self._taken(*begun, price)
                job = self._read(job.id)
            elif job.state != State.UNKNOWN and (job.state != State.SENT or to == State.SENT):
                raise IllegalMove(job.id, job.state, to)
            return job if job.state == to else self._hear(job, to, failure)

    def _begin(self, job: Job, to: State) -> tuple[Work, str] | None:
        """Take and claim a queued job as a worker does; None where that ended it, or answered it.

        Raises `IllegalMove` where it has to wait.
        """
        token = call_name()
        taken = self._run(self._calls.take(token, [job.id], alone=True))
        work = records.work(taken.records[0], self._sealer) if taken.records else None
        if work is not None and self._waits_for_morning(work):
            work = None
        elif work is not None and isinstance(work.request, Lookup):
            work = self._recall(work, token)
        if work is None:
            now = self._read(job.id)
            if now.state != State.QUEUED:
                return None
            until = f" until {now.waiting.until.isoformat()}" if now.waiting and now.waiting.until else ""
            reason = now.waiting.reason if now.waiting else "another"
            raise IllegalMove(job.id, now.state, to, f"it waits for {reason}{until}; move the clock, or settle others")
        fields: dict[str, bytes | str] = {}
        if isinstance(work.request, Verify):
            # One that was made before may be on the phone.
            code = work.code or f"{secrets.randbelow(10**_CODE_DIGITS):0{_CODE_DIGITS}}"
            self._codes[work.id] = code
            fields = {
                "vh": self.settings.hashed("code", work.id, code),
                "vx": self._sealer.seal(code.encode(), work.id),
            }
        (state,) = self._run(self._calls.claim([self._claim(work, token, fields)]))
        return None if state else (work, token)

    def _claim(self, work: Work, token: str, fields: Mapping[str, bytes | str]) -> Claim:
        if not work.text:
            return Claim(token, work.id, "never", fields=fields)
        sender = getattr(work.request, "sender", "") or self.settings.account(work.provider).get("sender", "")
        return Claim(
            token=token,
            id=work.id,
            repeat="never",
            number=self.settings.hashed("number", work.to),
            text=self._spending(work),
            fields=fields,
            scopes=self._optouts.scopes(work.tenant, sender),
        )

    def _spending(self, work: Work) -> Spending:
        country = work.country or phone.country(work.to)
        facts = budgets.Facts(tenant=work.tenant, country=country, category=work.category, provider=work.provider)
        price = self.settings.account(work.provider).get("price")
        each = budgets.money(price) if price else None
        return msgspec.structs.replace(
            NO_TEXT,
            country=country,
            segments=work.segments or 1,
            each=f"{each[0]} {each[1]}" if each else "",
            counters=budgets.applying(self.settings.rules, facts),
        )

    def _waits_for_morning(self, work: Work) -> bool:
        """Park a text that may not go at this hour, as it was enqueued in another one."""
        terms = Terms(category=work.category, tenant=work.tenant, timezone=work.timezone)
        held = drafts.held(self.settings, work.request, terms)
        if held is None or held.until is None:
            return False
        delay = held.until / 1000 - self.clock.seconds
        parked = Advance(
            id=work.id, guard="=queued", state=State.QUEUED, detail=held.words, wait="quiet_hours", delay=delay
        )
        self._run(self._calls.advance([parked]))
        return True

    def _recall(self, work: Work, token: str) -> Work | None:
        """Answer a lookup from memory; None where that was done, or it waits for the answer of another."""
        if not self._lookups.remembers:
            return work
        fresh = isinstance(work.request, Lookup) and work.request.fresh
        ask = Ask(token, work.id, self._lookups.hashed(work.to), fresh)
        (recalled,) = self._run(self._lookups.recall([ask]))
        if recalled.remembered is not None:
            result, detail = from_memory(recalled.remembered)
            self._move(work, "=queued", State.COMPLETED, detail, r=self._sealed(work.id, result))
            return None
        return None if recalled.state else msgspec.structs.replace(work, asked_at=recalled.asked_at)

    def _taken(self, work: Work, token: str, price: str) -> None:
        ref = f"fake-{work.id}"
        taken = Advance(
            id=work.id,
            guard=token,
            state=State.SENT,
            detail="accepted by the provider",
            account=work.provider,
            tried=f"accepted {ref}",
            code_ttl=work.code_ttl,
            fields={"m": ref, "y": "expected"} | ({"c": price} if price else {}),
        )
        self._run(self._calls.advance([taken]))

    def _found(self, work: Work, token: str, result: dict[str, Any], price: str) -> None:
        ref = f"fake-{work.id}"
        fields = {"r": self._sealed(work.id, result), "m": ref.encode()} | ({"c": price.encode()} if price else {})
        self._move(work, token, State.COMPLETED, "answered", tried=f"found {ref}", **fields)
        # Those who waited for the same answer go on.
        self._tick()

    def _end(self, job: Job, to: State, failure: Failure, tried: str, **fields: int) -> Job:
        """Take and claim a job, and end it with a failure."""
        begun = self._begin(job, to)
        if begun is not None:
            work, token = begun
            if failure.kind == FailureKind.OPTED_OUT and work.text:
                self._run(self._optouts.refused(work.to, work.provider))
            detail = records.line(failure.words)
            self._move(work, token, to, detail, tried=tried, e=records.encode_failure(failure), **fields)
        return self._read(job.id)

    def _hear(self, job: Job, to: State, failure: Failure | None) -> Job:
        """Let a receipt come."""
        fields = {} if failure is None else {"e": records.encode_failure(failure)}
        word = Word(provider=job.provider, own=job.id, state=to, detail=f"receipt: {to}", fields=fields)
        (end,) = self._run(self._calls.receipts([word]))
        if end in {"late", "early"}:
            raise IllegalMove(job.id, job.state, to)
        return self._read(job.id)

    def _move(
        self, job: Job | Work, guard: str, to: State, detail: str, *, tried: str = "", **fields: bytes | str | int
    ) -> None:
        moved = Advance(
            id=job.id, guard=guard, state=to, detail=detail, account=job.provider, tried=tried, fields=fields
        )
        (state,) = self._run(self._calls.advance([moved]))
        if not state:
            raise IllegalMove(job.id, self._read(job.id).state, to)

    # -- within: what workers' clocks do -----------------------------------------------------------------------------

    def _until(self, at: float) -> None:
        """Move the clock there; with `auto` what is due on the way is played at its time."""
        with self._turn:
            # Before any is trimmed, as it is old by then.
            self._gather()
            while self.auto and (due := self._next_due()) is not None and due <= at:
                self.clock.move(due)
                self._tick()
            self.clock.move(at)
            self._tick()

    def _next_due(self) -> float | None:
        first: list[Any] = [self._store.redis.zrange(key, 0, 0, withscores=True) for key in self._keys("d:w:*")]
        found = [score / 1000 for page in first for _, score in page]
        ahead = [one for one in found if one > self.clock.seconds]
        return min(ahead, default=None)

    def _tick(self) -> None:
        """Expire what is useless, let go on what is due and whose turn it is."""
        while any(self._run(self._calls.sweep())):
            pass
        queues, lined = self._run(self._calls.waiting())
        for queue in queues:
            due = MOST
            while due >= MOST:
                due, out = self._run(self._calls.due(queue))
                self._published(queue, out)
        for account in dict.fromkeys([*map(provider_of, queues), *lined]):
            most = MOST
            while most >= MOST:
                dealt = self._run(self._calls.deal(account))
                for queue, ids in dealt.items():
                    self._published(queue, ids)
                most = max(map(len, dealt.values()))

    def _published(self, queue: str, ids: Sequence[str]) -> None:
        """Play workers to what would lie on the broker."""
        if is_receipts(queue) or provider_of(queue) == NOTIFY:
            return
        with self._turn:
            for id_ in ids:
                if self.auto:
                    self._play(id_)
                elif (job := self._read(id_)).operation == CHECK:
                    # Of a code that was not sent yet: who made it would not know it either.
                    self.complete(job, {"valid": False, "status": "pending"})

    def _play(self, id_: str) -> None:
        job = self._read(id_)
        if job.state != State.QUEUED:
            return
        usual: dict[Kind, Callable[[Job], object]] = {Kind.LOOKUP: self.answer, Kind.OPERATION: self._completed}
        play = self._plays.get(job.to) or self._plays.get(job.operation) or usual.get(job.kind, self.deliver)
        try:
            play(job)
        except IllegalMove:
            # What has to wait does so; anything else is the test's to know.
            if (waits := self._read(id_).waiting) is None or waits.reason == "worker":
                raise

    def _completed(self, job: Job) -> Job:
        return self.complete(job, {"valid": False, "status": "pending"} if job.operation == CHECK else {})

    def _gather(self) -> None:
        """Move events to those who are told, as the worker of callbacks does."""
        while self._run(self._notices.gather(publishes=False)).moved:
            pass

    # -- within: reading ---------------------------------------------------------------------------------------------

    def _run(self, call: Call[Any]) -> Any:
        return self._store.run(call)

    def _keys(self, pattern: str) -> list[str]:
        found: Any = self._store.redis.keys(pattern)
        return sorted(one.decode() for one in found)

    def _jobs(self) -> list[Job]:
        """Return all jobs in the order in which they were made."""
        ids = [key.removeprefix("d:j:") for key in self._keys("d:j:*")]
        jobs = self.dispatcher.get_many(ids, reveal=True)
        places: dict[str, int] = {}
        for batch in {job.batch_id for job in jobs.values() if job.batch_id}:
            listed: Any = self._store.redis.lrange(f"d:b:{batch}:j", 0, -1)
            places |= {one.decode(): place for place, one in enumerate(listed)}
        return sorted(jobs.values(), key=lambda job: (job.id[:_STAMP], places.get(job.id, 0)))

    def _waiting_for_workers(self) -> list[str]:
        """Return the jobs whose message would lie on the broker, in order."""
        ids: list[str] = []
        for key in self._keys("d:o:*"):
            page: Any = self._store.redis.zrange(key, 0, -1)
            ids += [one.decode() for one in page]
        there = {*ids}
        return [job.id for job in self._jobs() if job.id in there and job.state == State.QUEUED]

    def _id(self, which: Which, kind: Kind | None = None) -> str:
        if not isinstance(which, str):
            return which.id
        if not which.startswith("+"):
            return which
        number, kinds = phone.parse(which), {Kind.SEND, Kind.VERIFY} if kind is None else {kind}
        for job in reversed(self._jobs()):
            if job.to == number and job.kind in kinds:
                return job.id
        raise NotFound("job", shown(which))

    def _find(self, which: Which) -> Job:
        return self._read(self._id(which))

    def _queued(self, which: Which, to: State) -> Job:
        job = self._find(which)
        if job.state != State.QUEUED:
            raise IllegalMove(job.id, job.state, to)
        return job

    def _read(self, id_: str) -> Job:
        return self.dispatcher.get(id_, reveal=True)

    def _shown(self, job: Job) -> str:
        return job.text.replace("[CODE]", self._codes.get(job.id, "[CODE]")) if job.kind == Kind.VERIFY else job.text

    def _sealed(self, id_: str, result: Mapping[str, Any]) -> bytes:
        return self._sealer.seal(msgspec.json.encode(result), id_)

    def _publish_accounts(self) -> None:
        if self.settings.providers:
            # Those of the settings are known.
            return
        described = {
            one: msgspec.json.encode(Account(name=one, adapter=one, operations=[*_OPERATIONS]))
            for one in self._accounts
        }
        if described:
            self._store.redis.hset(ACCOUNTS, mapping=described)  # type: ignore[arg-type]  # the stubs know no dict of bytes

    def _begin_telling(self) -> None:
        """Say who is told where a job names nobody."""
        if self.settings.callback_url:
            callback = notices.encode(Target(url=self.settings.callback_url), self.settings.keyed, self._sealer)
            wanted = notices.patterns(self.settings.callback_events)
            self._run(self._notices.default(callback.partition(" ")[0], wanted, callback))

    def _variables(self) -> dict[str, str]:
        variables = dict(_flat("", self._overrides))
        if not os.environ.get(f"{PREFIX}CALLBACK_SECRET"):
            variables.setdefault("CALLBACK_SECRET", _SECRET)
        return variables


#: Characters of an id that say when it was made.
_STAMP: Final = 10


def _url(name: str) -> str:
    """Return the URL to play to: the environment's where it is of this kind."""
    there = os.environ.get(f"{PREFIX}REDIS_URL", "")
    return there if inmemory.is_memory(there) else f"{inmemory.SCHEME}{name}"


def _flat(before: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        key = f"{before}{name.upper()}"
        if isinstance(value, Mapping):
            yield from _flat(f"{key}__", value)
        elif isinstance(value, list | tuple):
            yield key, "; ".join(map(str, value))
        else:
            yield key, str(int(value)) if isinstance(value, bool) else str(value)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    names = [f"{PREFIX}{name}" for name in variables]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, variables.values(), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _alone(url: str) -> Iterator[None]:
    if url in _playing:
        raise ConfigurationError(f"{url} is played to already; give FakeProviders another name, or use that one")
    _playing.add(url)
    try:
        yield
    finally:
        _playing.discard(url)


def _position(notice: Notice) -> tuple[int, ...]:
    return tuple(map(int, notice.event["cursor"].split("-")))


def _network(told_: Network | str) -> Network:
    return told_ if isinstance(told_, Network) else Network(name=told_)
