"""How a job lies in Redis: pure. The fields are named on top of `lua/job.lua`.

A new record's public part says what it is and how it is to be done; the private part is the request itself, sealed
where there is a key. Readers take `Job` for consumers or `Work` for workers out of it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

import msgspec

from dispatcher import phone
from dispatcher.errors import ConfigurationError, InvalidRequest
from dispatcher.jobs import (
    CODE,
    SCHEMA,
    Category,
    Entry,
    Job,
    Kind,
    Lane,
    Lookup,
    Operation,
    Request,
    Send,
    Terms,
    Try,
    Verification,
    Verify,
    Waiting,
    Work,
    moment,
)
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.privacy import Sealer, mask_digits, mask_numbers, mask_text, mask_urls, one_line
from dispatcher.states import FINAL, State
from dispatcher.text import Segments, segments

_TO_BE_SENT: Final = frozenset({State.QUEUED, State.SENDING})

#: What ends an attempt that was surely not taken. The others spend none, or leave nobody knowing.
_NOT_TAKEN: Final = frozenset(FailureKind) - {
    FailureKind.AMBIGUOUS,
    FailureKind.UNAUTHORIZED,
    FailureKind.INSUFFICIENT_FUNDS,
    FailureKind.THROTTLED,
}

_KINDS: Final = {Send: Kind.SEND, Verify: Kind.VERIFY, Lookup: Kind.LOOKUP, Operation: Kind.OPERATION}

#: What a public part may say of a person: their caller's words, and where they are.
_OF_THE_PERSON: Final = frozenset({"reference", "metadata", "timezone"})

#: Characters of a vendor's words that are kept.
_WORDS: Final = 300


class Public(Terms, frozen=True, kw_only=True, omit_defaults=True):
    """The public part of a record: everything of the request that is nobody's secret."""

    kind: Kind
    operation: str
    schema: int = SCHEMA
    segments: int | None = None
    #: Of the number that it texts: ISO 3166, and as `phone.country` says.
    country: str = ""
    redrive_of: str | None = None
    #: The verification that it is another code for.
    resend_of: str | None = None
    #: It redrives what may have been taken.
    possible_duplicate: bool = False
    #: The accounts that it may go to, in order, where there are several.
    route: tuple[str, ...] = ()
    #: Card details came with it, which are erased when it settles.
    card: bool = False
    sandbox: bool = False

    def __post_init__(self) -> None:
        """Stored terms were checked when they were built."""

    @property
    def terms(self) -> Terms:
        """The terms alone. Raises `InvalidRequest` where they can not be asked for any more."""
        return Terms(**{field: getattr(self, field) for field in Terms.__struct_fields__})


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A new job, ready to be written. `number` and `idempotency` are keyed hashes or empty."""

    id: str
    #: The account that it goes to first.
    provider: str = ""
    public: bytes
    private: bytes
    due: int | None = None
    valid_for: int | None = None
    number: str = ""
    idempotency: str = ""
    fingerprint: str = ""
    code_ttl: int | None = None
    #: It is a text to that number, which the list of those who want none is asked about.
    texts: bool = False
    #: Sealed card details; empty for none.
    card: bytes = b""
    #: Whose turn it takes where jobs wait.
    tenant: str = ""
    #: Hashes of its tenant, its sender and both, separated by spaces, which the list may have beside the number.
    scopes: str = ""
    #: The job that it redrives, and the state which that was read in.
    redrives: str = ""
    redrives_state: str = ""
    #: Further fields of its record, written with it: `lua/job.lua` names them all.
    more: dict[str, str] = {}
    #: When the quiet hours end that it waits for, in milliseconds since 1970, and its history's words for that.
    held: int | None = None
    why: str = ""

    def __repr__(self) -> str:
        """Show what finds it, nothing of the person."""
        return f"Record({self.id})"


class OfLaterRelease(ConfigurationError):
    """A later release wrote this record: its workers can do it, this one cannot."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a job stands, for those who choose among many: it can be told of records that cannot be read any more."""

    state: State
    provider: str
    #: The kind of its failure; empty for none.
    failure: str
    #: When it came into its state, in milliseconds since 1970 on Redis' clock.
    since: int
    #: The job that was made of it by a redrive; empty for none.
    redriven: str
    batch: str = ""
    operation: str = ""


class _Gist(msgspec.Struct):
    """What is read of a record before it is known to be one of ours."""

    schema: int = SCHEMA
    operation: str = ""


_gist: Final = msgspec.json.Decoder(_Gist)
_public: Final = msgspec.json.Decoder(Public)
_request: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_failure: Final = msgspec.json.Decoder(Failure)


def kind_of(request: Request) -> Kind:
    """Return what kind of job a request makes."""
    return _KINDS[type(request)]


def encode_request(request: Request) -> bytes:
    """Return the private part, not sealed yet."""
    return msgspec.json.encode(request)


def encode_public(request: Request, terms: Terms, operation: str, *, sandbox: bool, **more: Any) -> bytes:
    """Return the public part as JSON without what is as usual; `more` are fields of `Public`.

    Segments and country of a text are found out where they are not among them.
    """
    if isinstance(request, Send | Verify) and "country" not in more:
        more |= {"segments": measured(request).count, "country": phone.country(request.to)}
    public = Public(
        kind=kind_of(request),
        operation=operation,
        sandbox=sandbox,
        **msgspec.structs.asdict(terms),
        **more,
    )
    return msgspec.json.encode(public)


class _Alike(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What some records of a call have in common, as `lua/create.lua` takes it."""

    public: str
    tenant: str
    texts: bool
    scopes: str = ""
    due: int | None = None
    valid_for: int | None = None
    code_ttl: int | None = None


class _Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rest of a record, likewise, but for what is sealed: of that, its bytes."""

    id: str
    alike: int = msgspec.field(name="as")
    private: int
    number: str = ""
    idempotency: str = ""
    fingerprint: str = ""
    card: int = 0
    redrives: str = ""
    was: str = ""
    more: dict[str, str] = {}
    held: int | None = None
    why: str = ""


def pack(records: Sequence[Record], asked: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return the arguments of `lua/create.lua`; `asked` is what they say beside the records.

    What many records have in common travels once, and nothing needs an argument of its own.
    """
    alike: dict[tuple[Any, ...], int] = {}
    rows: list[_Row] = []
    parts: list[bytes] = []
    for one in records:
        common = (one.public, one.tenant, one.texts, one.scopes, one.due, one.valid_for, one.code_ttl)
        row = _Row(
            id=one.id,
            alike=alike.setdefault(common, len(alike) + 1),
            private=len(one.private),
            number=one.number,
            idempotency=one.idempotency,
            fingerprint=one.fingerprint,
            card=len(one.card),
            redrives=one.redrives,
            was=one.redrives_state,
            more=one.more,
            held=one.held,
            why=one.why,
        )
        rows.append(row)
        parts += (one.private, one.card)
    shared = [
        _Alike(
            public=public.decode(),
            tenant=tenant,
            texts=texts,
            scopes=scopes,
            due=due,
            valid_for=valid_for,
            code_ttl=code_ttl,
        )
        for public, tenant, texts, scopes, due, valid_for, code_ttl in alike
    ]
    return msgspec.json.encode({**asked, "alike": shared, "jobs": rows}), b"".join(parts)


def canonical(asked: str, operation: str, request: Request, terms: Terms) -> str:
    """Return what is equal for equal requests, in whichever order they were written; it is to be hashed.

    `asked` is the account that the caller named, several separated by commas.
    """
    return msgspec.json.encode((asked, operation, request, terms), order="deterministic").decode()


def work(raw: Sequence[bytes], sealer: Sealer) -> Work:
    """Read what `take.lua` answers for one job: id, d, x, p, l, a, z, created, i, vx, xc, qh.

    Raises `msgspec.MsgspecError`, `InvalidRequest` or `ConfigurationError` where it cannot be read, of these last
    `OfLaterRelease` where a newer worker could.
    """
    id_ = raw[0].decode()
    if (schema := _gist.decode(raw[1]).schema) > SCHEMA:
        raise OfLaterRelease(f"job {id_} is of schema {schema}, which a later release writes; update this worker")
    public = _public.decode(raw[1])
    request = _asked(id_, raw[2], sealer)
    provider = raw[3].decode()
    if raw[10] and isinstance(request, Operation):
        card = msgspec.json.decode(sealer.open(raw[10], id_), type=dict[str, str])
        request = Operation(arguments=request.arguments | card)
    return Work(
        id=id_,
        provider=provider,
        kind=public.kind,
        operation=public.operation,
        request=_of_account(request, public.route, provider),
        category=public.category,
        lane=Lane.HIGH if raw[4] else Lane.NORMAL,
        attempts=int(raw[5]),
        expires_at=int(raw[6]) if raw[6] else None,
        created_at=int(raw[7]),
        begins_at=max(int(raw[7]), public.send_at or 0, int(raw[11] or 0)),
        route=public.route,
        failover_after=public.failover_after,
        code_ttl=public.code_ttl,
        on_unknown=public.on_unknown,
        tenant=public.tenant,
        timezone=public.timezone,
        country=public.country,
        segments=public.segments or 0,
        doubtful=bool(raw[8]),
        code=sealer.open(raw[9], id_).decode() if raw[9] else "",
    )


def _asked(id_: str, private: bytes, sealer: Sealer) -> Request:
    """Return a request out of its private part. Raises `InvalidRequest` where the person was forgotten."""
    if not private:
        raise InvalidRequest("id_", "is about a person who was forgotten; there is nothing left to do again", id_)
    return _request.decode(sealer.open(private, id_))


def nameless(public: bytes) -> bytes:
    """Return a public part without what its caller may have said of a person, whichever schema it is of."""
    told = msgspec.json.decode(public)
    return msgspec.json.encode({name: one for name, one in told.items() if name not in _OF_THE_PERSON})


def _of_account(request: Request, route: Sequence[str], account: str) -> Request:
    """Return a request as one account of its route gets it: options may be given for each account by name."""
    if not isinstance(request, Send | Verify) or not by_account(request.options, route):
        return request
    return msgspec.structs.replace(request, options=request.options.get(account, {}))


def by_account(options: Mapping[str, Any], accounts: Collection[str]) -> bool:
    """Say whether options are those of several accounts, by their names."""
    return bool(options) and all(name in accounts and isinstance(one, dict) for name, one in options.items())


def followed(raw: Sequence[bytes], sealer: Sealer) -> Work:
    """Read what `follow.lua` answers for one job: as `work`, and state, ms it came there, ms since, m, vb.

    Raises the same.
    """
    id_, state, since, age, ref, baseline = raw[0].decode(), *raw[12:17]
    return msgspec.structs.replace(
        work(raw, sealer),
        state=State(state.decode()),
        since=int(since),
        age=int(age) / 1000,
        ref=ref.decode(),
        baseline=sealer.open(baseline, id_).decode() if baseline else "",
    )


def ended(fields: Mapping[bytes, bytes]) -> Ended:
    """Read how a job stands, of whichever schema its request is."""
    state = State(fields[b"s"].decode())
    lines = [(one.state, one.at) for one in _history(fields[b"h"].decode())]
    there = list(takewhile(lambda one: one[0] == state, reversed(lines)))
    failure = _failure.decode(fields[b"e"]).kind.value if b"e" in fields else ""
    return Ended(
        state=state,
        provider=fields[b"p"].decode(),
        failure=failure,
        since=round(there[-1][1].timestamp() * 1000),
        redriven=fields.get(b"rd", b"").decode(),
        batch=fields.get(b"b", b"").decode(),
        operation=_gist.decode(fields[b"d"]).operation,
    )


def stored(id_: str, fields: Mapping[bytes, bytes], sealer: Sealer) -> tuple[Public, Request]:
    """Read what was asked for, card details aside.

    Raises `InvalidRequest` where that is not written as this release does, `ConfigurationError` where it is sealed with
    a key that is not ours.
    """
    try:
        schema = _gist.decode(fields[b"d"]).schema
        if schema != SCHEMA:
            raise InvalidRequest("id_", f"is a record of schema {schema}, which this release does not read", id_)
        return _public.decode(fields[b"d"]), _asked(id_, fields[b"x"], sealer)
    except msgspec.MsgspecError as error:
        raise InvalidRequest("id_", f"has a record that cannot be read: {error.__class__.__name__}", id_) from None


def job(id_: str, fields: Mapping[bytes, bytes], sealer: Sealer, now: int, *, reveal: bool) -> Job:
    """Read a whole record as its consumers see it; `now` is in milliseconds since 1970.

    A record sealed with a key that is not ours shows everything but what is private.
    """
    public = _public.decode(fields[b"d"])
    history = list(_history(fields[b"h"].decode()))
    state = State(fields[b"s"].decode())
    to, sender, text = _person(id_, fields[b"x"], sealer, reveal=reveal)
    return Job(
        id=id_,
        kind=public.kind,
        operation=public.operation,
        category=Category(public.category),
        provider=fields[b"p"].decode(),
        route=[*public.route] or [fields[b"p"].decode()],
        state=state,
        final=state in FINAL,
        seq=int(fields[b"n"]),
        waiting=_waiting(state, fields.get(b"w")),
        receipt=_text(fields.get(b"y")),
        attempts=int(fields.get(b"a", 0)),
        to=to,
        sender=sender,
        text=text,
        tenant=public.tenant,
        reference=public.reference,
        metadata=public.metadata,
        batch_id=_text(fields.get(b"b")),
        redrive_of=public.redrive_of,
        resend_of=public.resend_of,
        created_at=history[0].at,
        updated_at=history[-1].at,
        expires_at=moment(fields[b"z"]) if b"z" in fields else None,
        segments=public.segments,
        price=_text(fields.get(b"c")),
        provider_ref=_text(fields.get(b"m")),
        result=_result(id_, fields.get(b"r"), sealer, reveal=reveal),
        verification=_verification(fields, state, now),
        possible_duplicate=possible_duplicate(public, fields),
        sandbox=public.sandbox,
        failure=_failure.decode(fields[b"e"]) if b"e" in fields else None,
        tries=list(_tries(fields.get(b"t", b"").decode())),
        history=history,
    )


def possible_duplicate(public: Public, fields: Mapping[bytes, bytes]) -> bool:
    """Say whether a person may get it twice: of a redrive, or of several tries that may have been taken."""
    if public.possible_duplicate or public.kind not in {Kind.SEND, Kind.VERIFY} or b"i" not in fields:
        return public.possible_duplicate
    told = _tries(fields.get(b"t", b"").decode())
    return int(fields.get(b"a", 0)) - sum(one.outcome in _NOT_TAKEN for one in told) > 1


def encode_failure(failure: Failure) -> bytes:
    """Return a failure as it is kept: the vendor's words without any number that may be in them."""
    told = msgspec.structs.replace(failure, code=line(failure.code), message=line(failure.message))
    return msgspec.json.encode(told)


def line(words: str) -> str:
    """Return words that fit into one line of a history: masked, short, printable."""
    return mask_digits(one_line(words))[:_WORDS]


def masked(value: Any) -> Any:
    """Return a result with every phone number in it masked, and what a URL may hide, however deep; ids stay whole."""
    if isinstance(value, str):
        return mask_numbers(mask_urls(value))
    if isinstance(value, dict):
        return {mask_numbers(key): one if _is_id(key, one) else masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [masked(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool):
        shown = mask_numbers(str(value))
        return value if shown == str(value) else shown
    return value


def _is_id(name: str, value: Any) -> bool:
    return (name == "id" or name.endswith("_id")) and isinstance(value, str) and not value.startswith("+")


def measured(request: Send | Verify) -> Segments:
    """Return what a text costs to send, its code in place."""
    return segments(request.text if isinstance(request, Send) else request.template.replace(CODE, "000000"))


def _history(lines: str) -> Iterator[Entry]:
    for one in lines.split("\n"):
        at, state, provider, detail = one.split(" ", 3)
        yield Entry(State(state), moment(at), provider, detail)


def _tries(lines: str) -> Iterator[Try]:
    for one in lines.split("\n") if lines else ():
        at, provider, outcome, ref = one.split(" ", 3)
        yield Try(provider, ref, outcome, moment(at))


def is_watched(stored: bytes | None) -> bool:
    """Say whether a sent job goes on to another account unless a receipt comes, by what it waits for."""
    return stored is not None and stored.startswith(b"receipt ")


def _waiting(state: State, stored: bytes | None) -> Waiting | None:
    if state != State.QUEUED and not (state == State.SENT and is_watched(stored)):
        return None
    reason, until = stored.decode().split(" ") if stored else ("worker", "0")
    return Waiting(reason, None if until == "0" else moment(until))


def _person(id_: str, private: bytes, sealer: Sealer, *, reveal: bool) -> tuple[str, str, str]:
    if not private:
        # Whom it was about was forgotten.
        return "", "", ""
    try:
        request = _request.decode(sealer.open(private, id_))
    except ConfigurationError:
        return "", "", ""
    if isinstance(request, Operation):
        to, sender, text = str(request.arguments.get("number", "")), "", ""
    else:
        to, sender = request.to, getattr(request, "sender", "")
        text = getattr(request, "text", "") or getattr(request, "template", "")
    return (to, sender, text) if reveal else (phone.mask(to) if to else "", mask_digits(sender), mask_text(text))


def _result(id_: str, stored: bytes | None, sealer: Sealer, *, reveal: bool) -> Any:
    if stored is None:
        return None
    try:
        result = msgspec.json.decode(sealer.open(stored, id_))
    except ConfigurationError:
        return None
    return result if reveal else masked(result)


def _verification(fields: Mapping[bytes, bytes], state: State, now: int) -> Verification | None:
    if b"vs" not in fields:
        return None
    status, expires = fields[b"vs"].decode(), int(fields[b"ve"])
    if status == "pending" and state in {State.FAILED, State.CANCELLED}:
        status = "cancelled"
    elif status == "pending" and (state == State.EXPIRED or (expires <= now and state not in _TO_BE_SENT)):
        # A code that is still to be sent has all its life before it.
        status = "expired"
    return Verification(status, moment(expires))


def _text(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode()
