"""Requests that can be enqueued and the job each becomes: frozen, validated when built.

`Send`, `Verify`, `Lookup` and `Operation` are what is asked for, with everything private in them; `Terms` is how it is
to be done; `Job` is what a consumer reads and `Work` what a worker does.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from dispatcher import checks, phone
from dispatcher.errors import InvalidRequest
from dispatcher.outcomes import Failure
from dispatcher.privacy import shown
from dispatcher.states import FINAL, GOOD, SETTLED, State

#: The number of the job document's shape, and of the stored record's.
SCHEMA: Final = 1

#: Where a verification's code goes in its template.
CODE: Final = "[CODE]"

#: The operation that asks a provider to judge a code.
CHECK: Final = "verify.check"

#: Arguments of a purchase that are a card's details: they travel sealed, apart from the rest, and are erased when the
#: purchase is settled.
CARD_FIELDS: Final = frozenset(
    {
        "first_name", "last_name", "street", "city", "state", "zip", "country",
        "credit_card_type_id", "card_number", "security_code", "expiration_month", "expiration_year",
    }
)  # fmt: skip

_MAX_TEXT: Final = 10_000
_MAX_SENDER: Final = 20
_MAX_LABEL: Final = 255
_MAX_METADATA: Final = 4096

#: Digits of an id, five bits each, and how many of them are chance, each made of a byte.
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuv"
_CHANCE: Final = 16
_DIGIT_OF_BYTE: Final = bytes(ord(_DIGITS[byte % 32]) for byte in range(256))

#: Seconds that anything may be scheduled ahead.
_YEAR: Final = 366 * 86400


class Kind(StrEnum):
    """What a job is."""

    SEND = "send"
    VERIFY = "verify"
    LOOKUP = "lookup"
    OPERATION = "operation"


class Category(StrEnum):
    """Why a message is sent: it decides lane, patience and consent."""

    OTP = "otp"
    TRANSACTIONAL = "transactional"
    PROMOTIONAL = "promotional"


class Lane(StrEnum):
    """Which of a provider's two queues a job waits in."""

    HIGH = "high"
    NORMAL = "normal"


class OnUnknown(StrEnum):
    """What becomes of a text by itself when nobody can tell whether it was sent: the caller's recorded instruction."""

    #: It is `unknown`, and stays it until evidence or an operator says more.
    HOLD = "hold"
    #: It is sent again, once: twice is better than not at all.
    RESEND = "resend"


def new_id() -> str:
    """Return 26 lower-case characters that sort by time: 48 bits of milliseconds, 80 of chance."""
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """Return so many ids, of the same moment."""
    moment = (time.time_ns() // 1_000_000) << 2
    stamp = "".join(_DIGITS[(moment >> shift) % 32] for shift in range(45, -5, -5))
    chance = os.urandom(_CHANCE * count).translate(_DIGIT_OF_BYTE).decode()
    return [stamp + chance[at : at + _CHANCE] for at in range(0, _CHANCE * count, _CHANCE)]


class _Private(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """A request: its repr shows its class alone."""

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(...)"


class Send(_Private, frozen=True, kw_only=True, omit_defaults=True, tag="send"):
    """A text to one person. `to` becomes E.164 when it is built."""

    to: str
    text: str
    sender: str = ""
    #: The provider's own, checked by its adapter.
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Raise `InvalidRequest` naming the field."""
        _parse_number(self)
        _check_text("text", self.text)
        _check_sender(self.sender)
        _check_mapping("options", self.options)


class Verify(_Private, frozen=True, kw_only=True, omit_defaults=True, tag="verify"):
    """A one-time code to one person, put where `[CODE]` stands in `template`."""

    to: str
    template: str
    sender: str = ""
    options: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Raise `InvalidRequest` naming the field."""
        _parse_number(self)
        _check_text("template", self.template)
        if CODE not in self.template:
            raise InvalidRequest("template", f"has no {CODE}; write it where the code belongs: 'Your code is {CODE}'")
        _check_sender(self.sender)
        _check_mapping("options", self.options)


class Lookup(_Private, frozen=True, kw_only=True, omit_defaults=True, tag="lookup"):
    """What is known of a number; `fresh` takes no answer that was asked for before."""

    to: str
    fresh: bool = False

    def __post_init__(self) -> None:
        """Raise `InvalidNumber`."""
        _parse_number(self)


class Operation(_Private, frozen=True, kw_only=True, omit_defaults=True, tag="operation"):
    """Anything else that a provider's account can do; its adapter checks the arguments."""

    arguments: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Raise `InvalidRequest` naming the field."""
        _check_mapping("arguments", self.arguments)


Request: TypeAlias = Send | Verify | Lookup | Operation


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request is to be done; nothing here is private."""

    category: Category = Category.TRANSACTIONAL
    lane: Lane = Lane.NORMAL
    reference: str = ""
    metadata: dict[str, Any] = {}
    tenant: str = ""
    #: Seconds after which it is useless, counted from when it may first be sent.
    valid_for: float | None = None
    #: Not before this moment, in milliseconds since 1970.
    send_at: int | None = None
    #: Where the person is, as IANA names it, for quiet hours; empty where the number tells.
    timezone: str = ""
    #: Seconds that a verification's code lives.
    code_ttl: int | None = None
    on_unknown: OnUnknown = OnUnknown.HOLD
    #: Seconds after which it goes on to the next account of its route, though it was sent, unless a receipt came.
    failover_after: float | None = None

    def __post_init__(self) -> None:
        """Raise `InvalidRequest` naming the field."""
        for field in ("reference", "tenant"):
            value = getattr(self, field)
            if not isinstance(value, str) or len(value) > _MAX_LABEL:
                raise InvalidRequest(field, f"must be text of at most {_MAX_LABEL} characters", shown(value))
            checks.utf8(field, value)
            if type(value) is not str:
                # A text of another library, such as a template's, that no document can carry.
                msgspec.structs.force_setattr(self, field, str.__str__(value))
        _check_mapping("metadata", self.metadata)
        if len(msgspec.json.encode(self.metadata)) > _MAX_METADATA:
            raise InvalidRequest(
                "metadata", f"is over {_MAX_METADATA} bytes as JSON; keep a key here, the rest with you"
            )
        for field, most in (("code_ttl", 86400), ("valid_for", 30 * 86400), ("failover_after", 86400)):
            seconds = getattr(self, field)
            _check_seconds(field, seconds, most)
            if seconds is not None and type(seconds) not in {int, float}:
                # A number of another library that passes for one of Python's, and that no document can carry.
                msgspec.structs.force_setattr(self, field, int(seconds) if isinstance(seconds, int) else float(seconds))


class Message(msgspec.Struct, frozen=True):
    """One of many: what `send_many` takes. What is None here is as the call says."""

    to: str
    text: str
    sender: str | None = None
    reference: str | None = None
    metadata: dict[str, Any] | None = None
    idempotency_key: str | None = None
    options: dict[str, Any] | None = None
    #: Segments that it may have; a longer one is refused.
    max_segments: int | None = None
    #: Typeset quotes and the like become plain ones where that saves UCS-2, as `dispatcher.text.downgrade` does.
    smart_encoding: bool | None = None
    #: Where the person is, as IANA names it, such as "Europe/London".
    timezone: str | None = None
    #: Who is told what becomes of it; empty for nobody.
    callback_url: str | None = None
    callback_task: str | None = None

    def __repr__(self) -> str:
        """Show nothing of the person or the text."""
        return "Message(...)"


class Waiting(msgspec.Struct, frozen=True):
    """What a queued job waits for, and until when at most; a sent one that goes on without it, for its receipt.

    It is worker, time, retry, limit, quiet_hours, breaker, suspended, receipt, or lookup: another one's answer.
    """

    reason: str = msgspec.field(name="for")
    until: datetime | None = None


class Try(msgspec.Struct, frozen=True):
    """One attempt at one provider. `outcome` is a short word: accepted, found, or a failure's kind."""

    provider: str
    ref: str
    outcome: str
    at: datetime


class Entry(msgspec.Struct, frozen=True):
    """One line of a job's history."""

    state: State
    at: datetime
    provider: str
    detail: str


class Verification(msgspec.Struct, frozen=True):
    """`status` is pending, approved, expired, max_attempts_reached or cancelled."""

    status: str
    expires_at: datetime


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as its consumers read it, at one moment. Masked unless it was read with `reveal=True`."""

    schema: int = SCHEMA
    id: str
    kind: Kind
    operation: str
    category: Category
    provider: str
    #: The accounts that it may go to, in order; `provider` is the one that has it.
    route: list[str] = []
    state: State
    final: bool
    #: Counts the lines of the history: of two readings of one job the higher is the later.
    seq: int
    waiting: Waiting | None
    #: "expected", "none", "timed_out"; None before it was sent.
    receipt: str | None
    attempts: int
    to: str
    sender: str
    text: str
    tenant: str
    reference: str
    metadata: dict[str, Any]
    batch_id: str | None
    redrive_of: str | None
    #: The verification that it is another code for.
    resend_of: str | None = None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    segments: int | None
    price: str | None
    provider_ref: str | None
    result: Any
    verification: Verification | None
    possible_duplicate: bool
    sandbox: bool
    failure: Failure | None
    tries: list[Try]
    history: list[Entry]

    def __repr__(self) -> str:
        """Show what finds it, nothing of the person."""
        return f"Job({self.id} {self.operation} {self.provider} {self.state})"

    @property
    def settled(self) -> bool:
        """Nothing more will be attempted by itself."""
        return self.state in SETTLED and self.waiting is None

    @property
    def good(self) -> bool:
        """It ended, so far, as the caller hoped: sent, delivered or completed."""
        return self.state in GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return the document as JSON's own types: times in RFC 3339, UTC."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document

    def as_of(self, seq: int) -> Job:
        """Return the document as it stood at `seq`, as far as its history tells."""
        since = self.seq - seq
        if not 0 < since < len(self.history):
            return self
        history = self.history[:-since]
        state, at = history[-1].state, history[-1].at
        failed = state not in {State.SENT, State.DELIVERED, State.COMPLETED}
        return msgspec.structs.replace(
            self, state=state, final=state in FINAL, seq=seq, updated_at=at, history=history, waiting=None,
            tries=[one for one in self.tries if one.at <= at], failure=self.failure if failed else None,
        )  # fmt: skip


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A job as a worker does it: private fields in clear, nothing of its past but what decides its future."""

    id: str
    provider: str
    kind: Kind
    #: "send", "verify", "lookup", or the name of the operation.
    operation: str
    request: Request
    category: Category = Category.TRANSACTIONAL
    lane: Lane = Lane.NORMAL
    #: Attempts that reached, or may have reached, the provider before this one.
    attempts: int = 0
    #: An earlier attempt may have been taken, though nobody knows.
    doubtful: bool = False
    #: Milliseconds since 1970, on Redis' clock.
    created_at: int = 0
    #: When it may first be sent, after quiet hours too.
    begins_at: int = 0
    expires_at: int | None = None
    code_ttl: int | None = None
    on_unknown: OnUnknown = OnUnknown.HOLD
    tenant: str = ""
    timezone: str = ""
    #: The country that it texts and its segments; empty and 0 where it is no text, or an earlier release made it.
    country: str = ""
    segments: int = 0
    #: The accounts that it may go to, in order, where there are several; and how many seconds after it was sent it goes
    #: on to the next one without a receipt, None for never.
    route: tuple[str, ...] = ()
    failover_after: float | None = None
    #: The one-time code, where we make it.
    code: str = ""
    #: What was read before the attempt that nobody knows the end of.
    baseline: str = ""
    #: Of a lookup that is asked now: since when, in milliseconds since 1970 on Redis' clock.
    asked_at: int = 0
    #: Of a job whose fate is asked for: its state, when it came there in milliseconds since 1970 on Redis' clock, how
    #: many seconds ago that was, and the provider's id for it.
    state: State = State.QUEUED
    since: int = 0
    age: float = 0.0
    ref: str = ""

    def __repr__(self) -> str:
        """Show what finds it, nothing of the person."""
        return f"Work({self.id} {self.operation})"

    @property
    def to(self) -> str:
        """The number it concerns, in E.164; empty where it concerns none."""
        if isinstance(self.request, Operation):
            return str(self.request.arguments.get("number", ""))
        return self.request.to

    @property
    def text(self) -> str:
        """The words that the phone shall show, with the code in its place where we make it; empty for no message."""
        if isinstance(self.request, Verify):
            return self.request.template.replace(CODE, self.code or CODE)
        return self.request.text if isinstance(self.request, Send) else ""


def moment(milliseconds: float | bytes | str) -> datetime:
    """Return milliseconds since 1970 as a UTC datetime."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def milliseconds(field: str, at: datetime | float | None) -> int | None:
    """Return a moment in milliseconds since 1970; raises `InvalidRequest` for a datetime without a zone."""
    if at is None:
        return None
    if isinstance(at, datetime) and at.tzinfo is None:
        raise InvalidRequest(field, "has no time zone; give an aware datetime, e.g. datetime.now(UTC)", shown(at))
    seconds = at.timestamp() if isinstance(at, datetime) else at
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < time.time() + _YEAR:
        why = "must be an aware datetime or seconds (not milliseconds) since 1970, at most a year ahead"
        raise InvalidRequest(field, why, shown(at))
    return round(seconds * 1000)


def _parse_number(request: Send | Verify | Lookup) -> None:
    parsed = phone.parse(request.to)
    if parsed != request.to:
        # The one change a frozen request ever sees, before anyone holds it.
        msgspec.structs.force_setattr(request, "to", parsed)


def _check_text(field: str, text: str) -> None:
    if not isinstance(text, str):
        raise InvalidRequest(field, f"must be text, not {type(text).__name__}")
    if not text.strip():
        raise InvalidRequest(field, "is empty; there is nothing to send")
    if len(text) > _MAX_TEXT:
        raise InvalidRequest(field, f"has {len(text)} characters; at most {_MAX_TEXT} are taken")
    checks.utf8(field, text)


def _check_sender(sender: str) -> None:
    if not isinstance(sender, str) or len(sender) > _MAX_SENDER or not sender.isprintable():
        raise InvalidRequest("sender", f"must be at most {_MAX_SENDER} printable characters")


def _check_mapping(field: str, value: dict[str, Any]) -> None:
    if isinstance(value, dict) and not value:
        return
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidRequest(field, f"must be a dict with text keys, not {type(value).__name__}")
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidRequest(
            field, "holds something that JSON cannot carry; use text, numbers, lists and dicts"
        ) from None


def _check_seconds(field: str, seconds: float | None, most: int) -> None:
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= most:
        raise InvalidRequest(field, f"must be between 0 and {most} seconds", shown(seconds))
    if field == "code_ttl" and not isinstance(seconds, int):
        raise InvalidRequest(field, "must be whole seconds", shown(seconds))
