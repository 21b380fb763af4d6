"""What a test looks at: the texts that were asked for, the callbacks that would have been made."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from dispatcher import notices
from dispatcher.events import Event
from dispatcher.jobs import Category, Job, Kind
from dispatcher.notices import Target
from dispatcher.states import State


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A text that was asked for, in clear. Its `repr` shows it, too: this is for tests alone."""

    #: Of its job.
    id: str
    #: E.164.
    to: str
    #: As the phone shows it; of a verification without its code until that is made, when it is sent.
    text: str
    #: As the caller named it; empty for the account's own.
    sender: str
    #: The account that has it.
    provider: str
    kind: Kind
    category: Category
    state: State
    tenant: str = ""
    reference: str = ""
    metadata: dict[str, Any] = {}
    batch_id: str | None = None
    created_at: datetime


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A callback that would have been made: a request to `url`, or the Celery task `task` in `queue`."""

    url: str = ""
    #: What would have been posted there: signed, by their names in lower case.
    headers: dict[str, str] = {}
    body: bytes = b""
    task: str = ""
    queue: str = ""
    #: What that would have been called with, by name.
    arguments: dict[str, Any] = {}
    #: "evt_<cursor>": the header `webhook-id`, or the id of the task.
    id: str
    #: "job.delivered" and the like.
    type: str
    #: The event as a document.
    event: dict[str, Any]


def posted(target: Target, event: Event, headers: dict[str, str], body: bytes) -> Notice:
    """Return the request that would have told of an event."""
    document: dict[str, Any] = msgspec.json.decode(body)
    return Notice(url=target.url, headers=headers, body=body, id=headers["webhook-id"], type=event.type, event=document)


def sent_as_task(target: Target, event: Event) -> Notice:
    """Return the task that would have told of an event."""
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    return Notice(
        task=target.task,
        queue=target.queue,
        arguments=notices.arguments(document),
        id=notices.id_of(event.cursor),
        type=event.type,
        event=document,
    )


def sent(job: Job, text: str) -> Sent:
    """Return what a revealed job asked to be sent, as `text`."""
    return Sent(
        id=job.id,
        to=job.to,
        text=text,
        sender=job.sender,
        provider=job.provider,
        kind=job.kind,
        category=job.category,
        state=job.state,
        tenant=job.tenant,
        reference=job.reference,
        metadata=job.metadata,
        batch_id=job.batch_id,
        created_at=job.created_at,
    )


def goes(job: Job) -> bool:
    """Say whether a job is a text that goes to a phone, or went: not one that was refused or ended before."""
    if job.kind not in {Kind.SEND, Kind.VERIFY}:
        return False
    return job.attempts > 0 or job.state not in {State.FAILED, State.EXPIRED, State.CANCELLED}
