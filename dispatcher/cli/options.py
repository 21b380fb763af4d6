"""What commands share: the options of more than one, and how their words are read."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
import typer

from dispatcher.errors import InvalidRequest
from dispatcher.privacy import shown

_MINUTE: Final = timedelta(minutes=1)


def _checked_until(word: str) -> str:
    """Refuse another word than the two before anything is enqueued."""
    if word not in {"settled", "final"}:
        # What stands there may be the option or the text that was to come next.
        raise InvalidRequest("--until", "must be settled or final")
    return word


Number = Annotated[str, typer.Argument(help="A number in international form: +447700900001")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Reveal = Annotated[bool, typer.Option(help="Show numbers and texts unmasked.")]
Provider = Annotated[
    str | None, typer.Option(help="The account to use; of several, separated by commas, the next where one cannot.")
]
FailoverAfter = Annotated[
    float | None,
    typer.Option(help="Seconds without a receipt, or undelivered: then the next account sends it, too."),
]
Sender = Annotated[str, typer.Option(help="Who it is from, where the account may say so.")]
Reference = Annotated[str, typer.Option(help="Your own name for it.")]
Tenant = Annotated[str, typer.Option(help="On whose behalf.")]
OnUnknown = Annotated[
    str, typer.Option("--on-unknown", help="hold, or resend: once more when nobody can tell whether it was sent.")
]
Idempotency = Annotated[str | None, typer.Option("--idempotency-key", help="The same key returns the first job.")]
ValidFor = Annotated[float | None, typer.Option(help="Seconds after which it is not sent any more.")]
Timezone = Annotated[str | None, typer.Option(help="Where the person is, for quiet hours: Europe/London")]
LaneName = Annotated[str | None, typer.Option("--lane", help="high or normal.")]
Options = Annotated[list[str] | None, typer.Option("--option", help="The provider's own, as key=value; repeatable.")]
MaxSegments = Annotated[int | None, typer.Option(help="Refuse a text of more segments.", min=1)]
SmartEncoding = Annotated[
    bool | None,
    typer.Option(help="Send typeset quotes and the like as plain ones where they alone force UCS-2. Default: as set."),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is settled; exit 0 only for a good end.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=0)]
GuardKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--guard-key", metavar="NAME=VALUE", help="What codes are counted by, such as ip=203.0.113.7; may be repeated."
    ),
]
CallbackUrl = Annotated[
    str | None, typer.Option(help="Who is told what becomes of it, by signed HTTP requests; empty for nobody.")
]
CallbackTask = Annotated[
    str | None, typer.Option(help="The same by a Celery task of yours, such as billing.on_message.")
]
CallbackQueue = Annotated[str | None, typer.Option(help="The queue of that task. Default: DISPATCHER_CALLBACK_QUEUE.")]
JobId = Annotated[str | None, typer.Argument(metavar="ID", help="A job's id.", show_default=False)]
WholeBatch = Annotated[str | None, typer.Option("--batch", help="The id of a batch, instead of a job's.")]
UntilName = Annotated[str, typer.Option("--until", help="settled or final.", callback=_checked_until)]


def accounts(words: str | None) -> str | list[str] | None:
    """Read the names of accounts: one, or several separated by commas."""
    return [one.strip() for one in words.split(",")] if words and "," in words else words


def pairs(words: Iterable[str]) -> dict[str, str]:
    """Read key=value words; the value may hold further equals signs."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            # The word itself may be a number or a password.
            before = [shown(key) for key in found]
            raise InvalidRequest("argument", f"must be key=value, and the one after {before} is not")
        found[key] = value
    return found


def stdin(field: str) -> str:
    """Read what is too long or too private for an argument from standard input."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise InvalidRequest(field, f"must be text, and standard input is none in {sys.stdin.encoding}") from None


def json_object(field: str, text: str) -> dict[str, Any]:
    """Read a JSON object; an error names the option `field`."""
    read: dict[str, Any] = _read(field, "a JSON object", lambda: msgspec.json.decode(text, type=dict[str, Any]))
    return read


def moment(field: str, text: str | None) -> datetime | None:
    """Read a time with its zone; an error names the option `field`."""
    if text is None:
        return None
    # Our own pages write moments as 2026-12-24 08:00:00 UTC.
    written = re.sub(r" ?UTC$", "+00:00", text)
    at: datetime = _read(field, "a time such as 2026-12-24T09:00:00+01:00", lambda: datetime.fromisoformat(written))
    if at.tzinfo is None:
        raise InvalidRequest(field, "has no time zone; write it like 2026-12-24T09:00:00+01:00", shown(text))
    return at


def ago_or_moment(text: str | None) -> datetime | None:
    """Read how long ago, as 30m, 2h or 3d, or a moment."""
    ago = re.fullmatch(r"(\d{1,4})([mhd])", text or "")
    if ago is None:
        try:
            return moment("--since", text)
        except InvalidRequest as error:
            raise InvalidRequest("--since", f"{error.reason}, or how long ago: 30m, 2h, 3d", error.value) from None
    return datetime.now(UTC) - int(ago[1]) * {"m": _MINUTE, "h": 60 * _MINUTE, "d": 24 * 60 * _MINUTE}[ago[2]]


def _read(field: str, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(field, f"must be {what}") from None
