"""What requests may hold, as documents and in the query: the names are those of the Python API.

What can be said here is said in OpenAPI, too. What numbers, accounts and templates must be, `Dispatcher` judges.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import SkipJsonSchema

from dispatcher.jobs import Category, Lane, OnUnknown
from dispatcher.states import State

#: What a cursor looks like.
CURSOR: Final = r"^[0-9]{1,19}(-[0-9]{1,19})?$"

#: Messages of one request.
MOST_MESSAGES: Final = 5000

#: Jobs of one page.
MOST_JOBS: Final = 500

#: Seconds that a long poll may wait.
LONGEST_WAIT: Final = 30

_DAY: Final = 86400
_MONTH: Final = 30 * _DAY

#: RFC 3339, which is narrower than what Python reads.
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _moment(told: Any) -> datetime | None:
    if told is None:
        return None
    if isinstance(told, str) and _MOMENT.fullmatch(told):
        try:
            return datetime.fromisoformat(told.upper())
        except ValueError:
            pass
    raise ValueError("must be a moment with its zone in RFC 3339, such as 2026-12-24T09:00:00+01:00")


def _carried(told: Any) -> Any:
    """Refuse what Python reads and JSON does not have: NaN, half of a pair of surrogates."""
    try:
        json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("holds something that JSON cannot carry") from None
    return told


def _flag(told: Any) -> Any:
    """Read what stands in a query as JSON would have it: `yes` and `1` are no booleans."""
    return {"true": True, "false": False}.get(told, told) if isinstance(told, str) else told


def _whole(told: Any) -> Any:
    return int(told) if isinstance(told, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,8})", told) else told


_E164 = Annotated[
    str,
    Field(
        max_length=64,
        description="A phone number in international form.",
        examples=["+447700900001"],
        json_schema_extra={"format": "phone-number"},
    ),
]
#: What is the caller's own, or the provider's.
_Open = Annotated[dict[str, Any], AfterValidator(_carried)]
_Words = Annotated[str, StringConstraints(min_length=1, max_length=10_000, pattern=r"\S")]
_Template = Annotated[str, StringConstraints(max_length=10_000, pattern=r"\[CODE\]")]
_Label = Annotated[str, StringConstraints(max_length=255)]
_Sender = Annotated[str, StringConstraints(max_length=20)]
_Account = Annotated[
    str, Field(min_length=1, max_length=64, examples=["textgoto"], json_schema_extra={"format": "account"})
]
_Moment = Annotated[
    datetime | None,
    BeforeValidator(_moment),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
_Zone = Annotated[str, Field(max_length=64, examples=["Europe/London"], json_schema_extra={"format": "time-zone"})]
_Key = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_Segments = Annotated[int, Field(ge=1, le=255)]
_Url = Annotated[
    str,
    Field(
        max_length=2048,
        examples=["https://hooks.example.com/texts"],
        json_schema_extra={"format": "callback-url"},
    ),
]
_Task = Annotated[str, Field(max_length=255, examples=["billing.on_message"], json_schema_extra={"format": "task"})]
# In a document that is read strictly a word is taken for none of an enumeration's unless that is said.
_Category = Annotated[Category, Strict(strict=False)]
_Lane = Annotated[Lane, Strict(strict=False)]
_OnUnknown = Annotated[OnUnknown, Strict(strict=False)]
_Flag = Annotated[bool, BeforeValidator(_flag)]


_GuardKeys = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,32}$")],
        Annotated[str, StringConstraints(min_length=1, max_length=255)],
    ],
    Field(max_length=10, examples=[{"ip": "203.0.113.7"}]),
]


class _Document(BaseModel):
    """A document in which nothing is guessed: a number in quotes is none, and a field too many is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    def given(self, *without: str) -> dict[str, Any]:
        """Return what was told, as arguments."""
        told = self.model_dump(exclude_none=True, exclude_unset=True)
        return {name: value for name, value in told.items() if name not in without}


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class _Made(_Document):
    """What all that is enqueued has."""

    provider: _Account | Annotated[list[_Account], Field(min_length=1, max_length=16)] | None = Field(
        None, description="The account, or several in order: the next one gets what the one before surely did not take."
    )
    reference: _Label | None = Field(None, description="Your own name for it.")
    metadata: _Open | None = Field(None, description="Your own words about it, 4096 bytes of JSON at most.")
    tenant: _Label | None = Field(None, description="On whose behalf; where the token has a tenant, that one.")
    valid_for: Annotated[float, Field(gt=0, le=_MONTH)] | None = Field(
        None, description="Seconds after which it is useless."
    )


class _Told(_Made):
    """What those have whose end can be told of."""

    callback_url: _Url | None = Field(
        None, description="Where to tell what became of it: an https URL; empty for nowhere."
    )
    callback_task: _Task | None = Field(
        None, description="A Celery task of yours to tell; the token needs the right `tasks`."
    )
    callback_queue: _Task | None = Field(None, description="The queue of that task.")


class _Texts(_Told):
    """What texts have."""

    sender: _Sender | None = Field(None, description="Who it is from, where the account may say so.")
    category: _Category | None = Field(None, description="What the text is for.")
    send_at: _Moment = Field(None, description="Not before this moment.")
    timezone: _Zone | None = Field(None, description="Where the person is, for quiet hours.")
    lane: _Lane | None = Field(None, description="Who goes first.")
    on_unknown: _OnUnknown | None = Field(
        None, description="What to do when nobody can tell whether it was sent: `resend` may be twice."
    )
    failover_after: Annotated[float, Field(gt=0, le=_DAY)] | None = Field(
        None, description="Seconds without a receipt after which the next of several accounts sends it, too."
    )
    options: _Open | None = Field(None, description="The provider's own.")
    max_segments: _Segments | None = Field(None, description="A text of more parts is refused.")
    smart_encoding: bool | None = Field(None, description="Plain quotes and dashes where that saves parts.")


class SendMessage(_Texts):
    """One text to one person."""

    to: _E164
    text: _Words


class BatchMessage(_Document):
    """One of many; what it leaves out is as the batch has it."""

    to: _E164
    text: _Words
    sender: _Sender | None = None
    reference: _Label | None = None
    metadata: _Open | None = None
    idempotency_key: _Key | None = Field(None, description="The same key is the same job, in whichever batch.")
    options: _Open | None = None
    max_segments: _Segments | None = None
    smart_encoding: bool | None = None
    timezone: _Zone | None = None


class SendBatch(_Texts):
    """Many texts."""

    messages: Annotated[list[BatchMessage], Field(min_length=1, max_length=MOST_MESSAGES)]
    batch_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        None, description="Your name for the batch; made up where there is none."
    )
    more: bool = Field(default=False, description="More messages of this batch follow.")


class StartVerification(_Told):
    """A one-time code to one person."""

    to: _E164
    template: _Template | None = Field(None, description="The text; the code stands where [CODE] is.")
    code_ttl: Annotated[int, Field(ge=1, le=_DAY)] | None = Field(None, description="Seconds that the code lives.")
    sender: _Sender | None = None
    on_unknown: _OnUnknown | None = None
    failover_after: Annotated[float, Field(gt=0, le=_DAY)] | None = None
    options: _Open | None = None
    max_segments: _Segments | None = None
    smart_encoding: bool | None = None
    guard_keys: _GuardKeys | None = Field(
        None, description="What codes are counted by, such as the address that asked."
    )


class CheckCode(_Document):
    """A code that a person typed."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\S")]
    timeout: Annotated[float, Field(ge=0, le=10)] = Field(
        5, description="Seconds to wait for the provider, where it judges."
    )


class ResendCode(_Document):
    """How another code is asked for."""

    provider: _Account | Annotated[list[_Account], Field(min_length=1, max_length=16)] | None = None
    guard_keys: _GuardKeys | None = Field(
        None, description="What codes are counted by, such as the address that asked."
    )


class LookUp(_Told):
    """A number to be looked up."""

    to: _E164
    lane: _Lane | None = None
    fresh: bool = Field(default=False, description="Ask anew, whatever is remembered.")


class Revealing(_Query):
    """How a job is shown."""

    reveal: _Flag = Field(default=False, description="Numbers and texts unmasked; the token needs the right `reveal`.")


class Jobs(Revealing):
    """Which jobs are asked for."""

    state: State | SkipJsonSchema[None] = None
    provider: _Account | SkipJsonSchema[None] = None
    batch: _Label | SkipJsonSchema[None] = None
    limit: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_JOBS)] = 50


class Page(Revealing):
    """Which jobs of a batch are asked for."""

    start: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=100_000_000)] = Field(
        0, description="How many of them to pass over: `next` of the page before."
    )
    limit: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=MOST_JOBS)] = 100


class Events(Revealing):
    """Which events are asked for."""

    after: Annotated[str, StringConstraints(pattern=CURSOR)] | SkipJsonSchema[None] = Field(
        None, description="The cursor to go on from; 0 for all that are kept, none for news only."
    )
    wait: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=LONGEST_WAIT)] = Field(
        0, description="Seconds to wait for the first event."
    )
    types: (
        Annotated[str, StringConstraints(pattern=r"^[a-z_.*]{1,64}(,[a-z_.*]{1,64}){0,15}$")] | SkipJsonSchema[None]
    ) = Field(None, description="Types of events, separated by commas; * stands for any letters.", examples=["job.*"])
    batch: _Label | SkipJsonSchema[None] = Field(None, description="Only those of a batch and its jobs.")
