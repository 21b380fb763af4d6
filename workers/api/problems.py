"""What errors become over HTTP: problem documents (RFC 9457), from one table.

Each has `type`, `title`, `status`, `detail`, and our `code`; `field` where one is at fault, and `retry_after` (seconds)
where it is in a header, too. Nothing that was sent is repeated but a field's name and what our own errors show, masked.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
from starlette.responses import Response

from dispatcher import errors

log = logging.getLogger("dispatcher.api")

MEDIA_TYPE: Final = "application/problem+json"

#: What `type` begins with; the code follows.
TYPE: Final = "urn:dispatcher:problem:"

#: Seconds after which what did not answer is asked again.
_COME_AGAIN: Final = 5


class Problem(Exception):
    """What a request ends with instead of an answer."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """`more` are further members of the document."""
        self.status = HTTPStatus(status)
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        self.more = more
        super().__init__(detail)

    def to_dict(self) -> dict[str, Any]:
        """Return the document."""
        document: dict[str, Any] = {
            "type": f"{TYPE}{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status.value,
            "detail": self.detail,
            "code": self.code,
        }
        told = {"field": self.field, "retry_after": self.retry_after}
        return document | {name: value for name, value in told.items() if value is not None} | self.more

    def response(self) -> Response:
        """Return the answer."""
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return Response(msgspec.json.encode(self.to_dict()), self.status, headers, MEDIA_TYPE)


class Row(NamedTuple):
    """What one kind of error becomes."""

    status: int
    code: str
    #: What the document says, where the error's own words are for somebody else.
    detail: str = ""
    retry_after: int | None = None
    #: Further members of the document, out of the error.
    more: Callable[[Any], dict[str, Any]] = lambda _: {}


_AWAY: Final = Row(
    503,
    "store_unavailable",
    "the job store did not answer, so nothing can be said; ask again, with the same Idempotency-Key where something "
    "was to be made",
    retry_after=_COME_AGAIN,
)

#: Errors by kind; of one that has no row of its own the row of what it is a kind of.
TABLE: Final[Mapping[type[Exception], Row]] = {
    errors.InvalidRequest: Row(422, "invalid"),
    errors.InvalidNumber: Row(422, "invalid_number"),
    errors.Unsupported: Row(422, "unsupported"),
    errors.IdempotencyConflict: Row(422, "idempotency_conflict"),
    errors.UnknownProvider: Row(422, "unknown_provider"),
    errors.NotFound: Row(404, "not_found"),
    errors.IllegalMove: Row(409, "illegal_move", more=lambda error: {"state": error.state}),
    errors.VerificationRefused: Row(429, "verification_refused"),
    errors.CursorExpired: Row(410, "cursor_expired", more=lambda error: {"oldest": error.oldest}),
    errors.WaitTimeout: Row(
        504, "wait_timeout", "the provider did not judge in time; ask again with the same code", retry_after=1
    ),
    errors.ConfigurationError: Row(
        500, "configuration", "the deployment's settings do not allow this; its log says what is missing"
    ),
    errors.StoreUnavailable: _AWAY,
    TimeoutError: _AWAY,
}


def of(error: Exception) -> Problem:
    """Return what an error becomes; one that is not ours is nobody's business but the log's."""
    if isinstance(error, Problem):
        return error
    row = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)
    if row is None:
        log.error("a request failed: %s at %s", error.__class__.__name__, _place(error))
        return Problem(500, "internal", "something went wrong that is not your fault; the log says what")
    if row.detail:
        log.error("a request failed: %s", error)
    code = row.code
    if isinstance(error, errors.VerificationRefused):
        # One that no time mends is forbidden rather than too early.
        row = row._replace(status=429 if error.retry_after is not None else 403, retry_after=error.retry_after)
        code = error.code or code
    return Problem(
        row.status,
        code,
        row.detail or str(error),
        field=_field(error),
        retry_after=row.retry_after,
        **row.more(error),
    )


def _place(error: Exception) -> str:
    """Return where an error was raised, and our last line on the way there: places, and nothing that was sent."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "site-packages" not in one.filename][-1:]
    return " from ".join(dict.fromkeys(f"{one.filename}:{one.lineno} in {one.name}" for one in [*frames[-1:], *ours]))


def _field(error: Exception) -> str | None:
    if isinstance(error, errors.UnknownProvider):
        return "provider"
    if isinstance(error, errors.IdempotencyConflict) and error.field == "idempotency_key":
        return "Idempotency-Key"
    return error.field if isinstance(error, errors.InvalidRequest) else None
