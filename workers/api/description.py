"""What the API's OpenAPI document says beside what the endpoints' signatures say: answers, problems, links.

The schemas of answers are made of the types that are answered, so that they cannot differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import Check, Event
from dispatcher.jobs import Job
from workers.api import repeats
from workers.api.problems import MEDIA_TYPE, TYPE

if TYPE_CHECKING:
    from fastapi import FastAPI

SUMMARY: Final = (
    "Send texts, verify numbers and look them up through SMS providers. Documents are those of the Python library; "
    "numbers and texts in them are masked unless `reveal=true`. Errors are problem documents (RFC 9457)."
)
TOKEN: Final = "`dispatcher api tokens create --tenant shop-a --rights send,read` makes one."  # noqa: S105 - says how

_SCHEMA: Final = "#/components/schemas/"


class Batch(msgspec.Struct, kw_only=True):
    """Where a batch stands."""

    schema: int
    id: str
    size: int
    #: How many of its jobs are in each state.
    counts: dict[str, int]
    settled: bool
    #: More messages may follow.
    open: bool
    cancelled: bool
    #: How many jobs this request made; the others were there before.
    created: int | msgspec.UnsetType = msgspec.UNSET


class Jobs(msgspec.Struct):
    """Jobs, and whether they are all that were asked for."""

    jobs: list[Job]
    complete: bool


class Page(msgspec.Struct):
    """Jobs of a batch, and the `start` of the next page."""

    jobs: list[Job]
    next: int | None


class Events(msgspec.Struct):
    """Events, and the cursor to go on from."""

    events: list[Event]
    cursor: str


class Health(msgspec.Struct):
    """Jobs can be taken."""

    ok: bool


class Problem(msgspec.Struct, kw_only=True):
    """Why there is no answer."""

    type: str
    title: str
    status: int
    detail: str
    #: A word to decide by.
    code: str
    #: The field at fault, such as `messages[3].to`.
    field: str | msgspec.UnsetType = msgspec.UNSET
    #: Seconds after which it may be asked again.
    retry_after: int | msgspec.UnsetType = msgspec.UNSET
    #: Of a job that cannot be moved, where it is.
    state: str | msgspec.UnsetType = msgspec.UNSET
    #: Of a cursor that expired, the oldest one that did not.
    oldest: str | msgspec.UnsetType = msgspec.UNSET


#: The types that are answered, by whose names the schemas go.
_ANSWERED: Final = (Job, Batch, Jobs, Page, Events, Check, Health, Problem)

#: What every endpoint behind a token may answer, what those with a body may, and what some may.
_PROBLEMS: Final = {
    400: "It cannot be read: no JSON, or a header that is none",
    401: "No token, or one that is unknown, expired or revoked",
    403: "The token has no such right, or is another tenant's",
    404: "There is no such thing, or it is another tenant's",
    408: "The body did not come in time",
    409: "It cannot be done where things stand, or the same is under way",
    410: "Events after this cursor are not kept any more; `oldest` says which are",
    413: "The body is too large",
    415: "The body is no application/json",
    422: "What was asked can never work; `field` says why. Or the key was used for another request",
    429: "A budget or a guard says not now; Retry-After says when",
    500: "The deployment's settings do not allow this",
    503: "The job store did not answer",
    504: "The provider did not judge in time",
}
_ALWAYS: Final = (400, 401, 403, 422, 500, 503)
_OF_BODIES: Final = (408, 413, 415)

_RETRY: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}
_CHALLENGE: Final = {"WWW-Authenticate": {"description": "How to be let in.", "schema": {"type": "string"}}}
_HEADERS: Final = {401: _CHALLENGE, 429: _RETRY, 503: _RETRY, 504: _RETRY}

#: The header by which the same request again makes nothing new.
idempotency_header: Final = {
    "parameters": [
        {
            "name": repeats.HEADER,
            "in": "header",
            "required": False,
            "description": 'The same key and request is the same answer, and nothing is made twice: "order-17-shipped"',
            "schema": {"type": "string", "pattern": repeats.PATTERN},
        }
    ]
}


def _document(name: str, words: str) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": {"$ref": f"{_SCHEMA}{name}"}}}}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": _PROBLEMS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMA}Problem"}}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted(statuses)
    }


#: What may be done with a job or a batch that was made, as links.
_LINKS: Final = {
    "Job": {
        "read": {"operationId": "get_job", "parameters": {"id": "$response.body#/id"}},
        "cancel": {"operationId": "cancel_job", "parameters": {"id": "$response.body#/id"}},
    },
    "Batch": {
        "read": {"operationId": "get_batch", "parameters": {"id": "$response.body#/id"}},
        "list": {"operationId": "list_batch", "parameters": {"id": "$response.body#/id"}},
        "cancel": {"operationId": "cancel_batch", "parameters": {"id": "$response.body#/id"}},
    },
}


def created(name: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of an endpoint that makes something."""
    made = _document(name, "Made, or made before by the same key")
    made["headers"] = {"Location": {"description": "Where it is read.", "schema": {"type": "string"}}}
    made["links"] = _LINKS[name]
    return {201: made, **_problems(*_ALWAYS, *_OF_BODIES, 429, *statuses)}


def found(name: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of an endpoint that reads something."""
    return {200: _document(name, "As it is now"), **_problems(*_ALWAYS, *statuses)}


def changed(name: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the answers of an endpoint that changes something."""
    return found(name, *_OF_BODIES, *statuses)


_STREAM: Final = {"schema": {"type": "string", "description": "Server-sent events; `id` is the cursor."}}

EVENTS: Final[dict[int | str, dict[str, Any]]] = found("Events", 410)
EVENTS[200]["content"]["text/event-stream"] = _STREAM

HEALTH: Final[dict[int | str, dict[str, Any]]] = {200: _document("Health", "It is well"), **_problems(500, 503)}


def describe(app: FastAPI) -> None:
    """Add to the application's document what its signatures do not say."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document["components"]["schemas"]
            _, parts = msgspec.json.schema_components(_ANSWERED, ref_template=f"{_SCHEMA}{{name}}")
            schemas |= parts
            schemas["Problem"]["properties"]["type"]["pattern"] = f"^{TYPE}[a-z_]+$"
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own pages have it
