"""How a job lies in Redis: pure. The fields are named on top of `lua/job.lua`.

A new record's public part says what it is and how it is to be done; the private part is the request itself, sealed
where there is a key. Readers take `Job` for consumers or `Work` for workers out of it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from dispatcher import phone
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import (
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
from dispatcher.outcomes import Failure
from dispatcher.privacy import Sealer, mask_digits, mask_numbers, mask_text, mask_urls, one_line
from dispatcher.states import FINAL, State
from dispatcher.text import segments

_TO_BE_SENT: Final = frozenset({State.QUEUED, State.SENDING})

#: Characters of a vendor's words that are kept.
_WORDS: Final = 300


class Public(Terms, frozen=True, kw_only=True, omit_defaults=True):
    """The public part of a record: everything of the request that is nobody's secret."""

    kind: Kind
    operation: str
    schema: int = SCHEMA
    segments: int | None = None
    redrive_of: str | None = None
    sandbox: bool = False

    def __post_init__(self) -> None:
        """Stored terms were checked when they were built."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A new job, ready to be written. `number` and `idempotency` are keyed hashes or empty."""

    id: str
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

    def __repr__(self) -> str:
        """Show what finds it, nothing of the person."""
        return f"Record({self.id})"


_public: Final = msgspec.json.Decoder(Public)
_request: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_failure: Final = msgspec.json.Decoder(Failure)


def kind_of(request: Request) -> Kind:
    """Return what kind of job a request makes."""
    return {Send: Kind.SEND, Verify: Kind.VERIFY, Lookup: Kind.LOOKUP, Operation: Kind.OPERATION}[type(request)]


def encode_request(request: Request) -> bytes:
    """Return the private part, not sealed yet."""
    return msgspec.json.encode(request)


def encode_public(request: Request, terms: Terms, operation: str, *, sandbox: bool) -> bytes:
    """Return the public part as JSON without what is as usual."""
    public = Public(
        kind=kind_of(request),
        operation=operation,
        segments=_segments(request),
        sandbox=sandbox,
        **{field: getattr(terms, field) for field in Terms.__struct_fields__},
    )
    return msgspec.json.encode(public)


def canonical(provider: str, operation: str, request: Request, terms: Terms) -> str:
    """Return what is equal for equal requests, in whichever order they were written; it is to be hashed."""
    return msgspec.json.encode((provider, operation, request, terms), order="deterministic").decode()


def work(raw: Sequence[bytes], sealer: Sealer) -> Work:
    """Read what `take.lua` answers for one job: id, d, x, p, l, a, z, created, i, vx, xc.

    Raises `msgspec.MsgspecError`, `InvalidRequest` or `ConfigurationError` where it cannot be read.
    """
    id_ = raw[0].decode()
    public = _public.decode(raw[1])
    request = _request.decode(sealer.open(raw[2], id_))
    if raw[10] and isinstance(request, Operation):
        card = msgspec.json.decode(sealer.open(raw[10], id_), type=dict[str, str])
        request = Operation(arguments=request.arguments | card)
    return Work(
        id=id_,
        provider=raw[3].decode(),
        kind=public.kind,
        operation=public.operation,
        request=request,
        category=public.category,
        lane=Lane.HIGH if raw[4] else Lane.NORMAL,
        attempts=int(raw[5]),
        expires_at=int(raw[6]) if raw[6] else None,
        created_at=int(raw[7]),
        code_ttl=public.code_ttl,
        doubtful=bool(raw[8]),
        code=sealer.open(raw[9], id_).decode() if raw[9] else "",
    )


def followed(raw: Sequence[bytes], sealer: Sealer) -> Work:
    """Read what `follow.lua` answers for one job: as `work`, and state, ms it came there, ms since, m, vb.

    Raises the same.
    """
    id_, state, since, age, ref, baseline = raw[0].decode(), *raw[11:16]
    return msgspec.structs.replace(
        work(raw, sealer),
        state=State(state.decode()),
        since=int(since),
        age=int(age) / 1000,
        ref=ref.decode(),
        baseline=sealer.open(baseline, id_).decode() if baseline else "",
    )


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
        state=state,
        final=state in FINAL,
        seq=int(fields[b"n"]),
        waiting=_waiting(fields.get(b"w")) if state == State.QUEUED else None,
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
        created_at=history[0].at,
        updated_at=history[-1].at,
        expires_at=moment(fields[b"z"]) if b"z" in fields else None,
        segments=public.segments,
        price=_text(fields.get(b"c")),
        provider_ref=_text(fields.get(b"m")),
        result=_result(id_, fields.get(b"r"), sealer, reveal=reveal),
        verification=_verification(fields, state, now),
        # Asked again though an earlier try may have been taken.
        possible_duplicate=b"i" in fields and int(fields.get(b"a", 0)) > 1,
        sandbox=public.sandbox,
        failure=_failure.decode(fields[b"e"]) if b"e" in fields else None,
        tries=list(_tries(fields.get(b"t", b"").decode())),
        history=history,
    )


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


def _segments(request: Request) -> int | None:
    if isinstance(request, Send):
        return segments(request.text).count
    return segments(request.template.replace("[CODE]", "000000")).count if isinstance(request, Verify) else None


def _history(lines: str) -> Iterator[Entry]:
    for one in lines.split("\n"):
        at, state, provider, detail = one.split(" ", 3)
        yield Entry(State(state), moment(at), provider, detail)


def _tries(lines: str) -> Iterator[Try]:
    for one in lines.split("\n") if lines else ():
        at, provider, outcome, ref = one.split(" ", 3)
        yield Try(provider, ref, outcome, moment(at))


def _waiting(stored: bytes | None) -> Waiting:
    reason, until = stored.decode().split(" ") if stored else ("worker", "0")
    return Waiting(reason, None if until == "0" else moment(until))


def _person(id_: str, private: bytes, sealer: Sealer, *, reveal: bool) -> tuple[str, str, str]:
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
