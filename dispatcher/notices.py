"""What consumers are told by callbacks, before anything is sent: where to, what was asked for, and what may not be.

Pure. An *endpoint* is where somebody is told: a URL without its query, or a Celery task with its queue. A *notice* is
one event on its way to one endpoint. `lua/notices.lua` says how both lie in Redis, `workers.notify` delivers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec

from dispatcher.errors import InvalidRequest

if TYPE_CHECKING:
    from dispatcher.privacy import Sealer

#: The queue of the worker that tells consumers; no account may have its name.
NOTIFY: Final = "notify"

#: What a field `cb` has for a job whose events nobody is told, though there is a default.
NOBODY: Final = "-"

#: Characters of a URL that any HTTP server takes.
_LONGEST_URL: Final = 2048

#: A Celery task by its name, and a queue: what kombu and every broker take.
_TASK: Final = re.compile(r"[A-Za-z_][\w.:-]{0,199}", re.ASCII)
_QUEUE: Final = re.compile(r"[A-Za-z0-9_][\w.:-]{0,127}", re.ASCII)

#: What the types of events begin with.
FAMILIES: Final = ("job", "verification", "batch", "inbound", "optout", "provider", "budget", "prefix", "callback")

#: A type of event, or the beginning of some with a star.
_PATTERN: Final = re.compile(r"\*|[a-z_]+(\.[a-z_]+)*(\.\*)?")

#: How the id of a notice begins; the cursor of its event follows.
_ID: Final = "evt_"

#: How a secret begins, and the bytes that it has: https://www.standardwebhooks.com, "Signature scheme".
_PREFIX: Final = "whsec_"
_SHORTEST_SECRET, _LONGEST_SECRET = 24, 64

_EXAMPLE: Final = "write it like https://hooks.example.com/dispatcher"

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the events of a job are told: by HTTP, by a Celery task, or both. `url` may hold a secret."""

    url: str = ""
    task: str = ""
    queue: str = ""

    def __bool__(self) -> bool:
        """Say whether anybody is told at all."""
        return bool(self.url or self.task)

    def __repr__(self) -> str:
        """Show no more than may be shown."""
        return f"Target({', '.join(self.shown())})"

    def shown(self) -> list[str]:
        """Return what may be shown of each endpoint: of a URL its scheme and host, of a task its name and queue."""
        return [*([mask(self.url)] if self.url else []), *([f"{self.task}@{self.queue}"] if self.task else [])]

    def ends(self) -> list[str]:
        """Return what tells each of its endpoints from any other."""
        url = [f"url {_origin(self.url)}"] if self.url else []
        return [*url, *([f"task {self.queue} {self.task}"] if self.task else [])]


def target(url: Any, task: Any, queue: Any, *, usual: str, private: bool, loopback: bool) -> Target | None:
    """Return where the events of a job are told, as its caller says; None where they say nothing.

    An empty URL or task says: nobody, though there is a default. `usual` is the queue of a task that names none;
    `private` allows http, `loopback` to this machine alone. Raises `InvalidRequest` naming the field.
    """
    if url is None and task is None:
        if queue is not None:
            raise InvalidRequest("callback_queue", "is the queue of a callback_task, which is missing; name that, too")
        return None
    if url:
        check_url("callback_url", url, private=private, loopback=loopback)
    elif url is not None and not isinstance(url, str):
        raise InvalidRequest("callback_url", "must be a URL as text, or empty for no callback")
    if task and not (isinstance(task, str) and _TASK.fullmatch(task)):
        raise InvalidRequest("callback_task", "must be the name of a Celery task, such as billing.on_message")
    if task is not None and not isinstance(task, str):
        raise InvalidRequest("callback_task", "must be the name of a Celery task, or empty for none")
    if queue is not None and not task:
        raise InvalidRequest("callback_queue", "is the queue of a callback_task, which is missing; name that, too")
    if queue is not None and not (isinstance(queue, str) and is_queue(queue)):
        raise InvalidRequest("callback_queue", "must be the name of a queue, such as celery")
    return Target(url=url or "", task=task or "", queue=(queue or usual) if task else "")


def check_url(field: str, url: Any, *, private: bool, loopback: bool = False) -> None:
    """Refuse what can never be a callback's URL. Raises `InvalidRequest`, which never shows it: it may be secret."""
    if (why := wrong_url(url, private=private, loopback=loopback)) is not None:
        raise InvalidRequest(field, why)


def wrong_url(url: Any, *, private: bool, loopback: bool = False) -> str | None:
    """Return why something can never be a callback's URL, None where it can. Nothing is looked up.

    `private` allows http, `loopback` to this machine alone.
    """
    if not isinstance(url, str):
        return f"must be a URL as text; {_EXAMPLE}"
    if len(url) > _LONGEST_URL:
        return f"has {len(url):,} characters, and a URL has {_LONGEST_URL:,} at most"
    if not url.isascii() or not url.isprintable() or " " in url:
        return f"has characters that a URL has not; encode them, and {_EXAMPLE}"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that is none
    except ValueError:
        return f"is no URL; {_EXAMPLE}"
    return _wrong_parts(parts, private=private, loopback=loopback)


def _wrong_parts(parts: SplitResult, *, private: bool, loopback: bool) -> str | None:
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"is no URL of https; {_EXAMPLE}"
    if "@" in parts.netloc:
        return "has a user or a password before its host, which stays in logs; put a token into its query instead"
    if not _HOST.fullmatch(parts.netloc if parts.port is None else parts.netloc.rpartition(":")[0]):
        return f"names a host that cannot be; {_EXAMPLE}"
    if parts.fragment:
        return "has a fragment (#...), which is never sent; leave it out"
    if parts.scheme == "http" and not (private or (loopback and _is_loopback(parts.hostname))):
        return "is not https; over http anybody on the way reads it (DISPATCHER_CALLBACK_PRIVATE=1 allows that)"
    return None


def is_queue(name: str) -> bool:
    """Say whether this can be the name of a queue."""
    return _QUEUE.fullmatch(name) is not None


def patterns(told: str) -> tuple[str, ...]:
    """Read types of events, separated by commas, some with a star at their end. Raises `ValueError`."""
    found = tuple(one.strip() for one in told.split(",") if one.strip())
    for one in found:
        if not _PATTERN.fullmatch(one):
            raise ValueError(f"holds {one[:40]!r}; write types of events, like job.*,verification.approved, or *")
        if one != "*" and one.partition(".")[0] not in FAMILIES:
            raise ValueError(f"holds {one[:40]!r}, which no event is; they begin with {', '.join(FAMILIES)}")
    return found


def secrets(told: str) -> list[bytes]:
    """Read secrets that sign callbacks, separated by commas: the first is the newest.

    Raises `ValueError`, which shows none.
    """
    found = list[bytes]()
    for one in (each.strip() for each in told.split(",") if each.strip()):
        try:
            raw = base64.b64decode(one.removeprefix(_PREFIX), validate=True) if one.startswith(_PREFIX) else b""
        except (binascii.Error, ValueError):
            raw = b""
        if not _SHORTEST_SECRET <= len(raw) <= _LONGEST_SECRET:
            raise ValueError(
                f"must be {_PREFIX} and {_SHORTEST_SECRET} to {_LONGEST_SECRET} bytes in base64, several separated by "
                f'commas; make one with `echo "{_PREFIX}$(openssl rand -base64 32)"`'
            )
        found.append(raw)
    return found


def id_of(cursor: str) -> str:
    """Return the id of the notice of an event: the same at each try, and wherever it is told."""
    return f"{_ID}{cursor}"


def cursor_of(id_: str) -> str:
    """Return the cursor of the event that a notice tells of."""
    return id_.removeprefix(_ID)


def arguments(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a Celery task is called with: id and state of what an event tells of, "" for none, and the event."""
    data = event.get("data", {})
    return {"id": str(data.get("id", "")), "state": str(data.get("state", "")), "event": event}


def mask(url: str) -> str:
    """Return what may be shown of a URL: its scheme and its host."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_place(parts)}/..."


def encode(one: Target, hashed: Callable[..., str], sealer: Sealer) -> str:
    """Return a target as a job has it, `cb`: the ids of its endpoints, what may be shown of each, and it, sealed.

    `hashed` is `Settings.keyed`.
    """
    if not one:
        return NOBODY
    ids = ",".join(hashed("endpoint", end) for end in one.ends())
    sealed = sealer.seal(msgspec.json.encode(one), _name(ids))
    return f"{ids} {base64.b64encode(sealed).decode()} {','.join(one.shown())}"


def decode(kept: str, sealer: Sealer) -> tuple[list[str], Target]:
    """Read what `encode` wrote: the ids of the endpoints, and the target.

    Raises `ConfigurationError` where it was sealed with a key that is not ours.
    """
    if kept == NOBODY:
        return [], Target()
    ids, sealed, *_ = kept.split(" ")
    return ids.split(","), msgspec.json.decode(sealer.open(base64.b64decode(sealed), _name(ids)), type=Target)


def only(one: Target, ids: Sequence[str], endpoint: str) -> Target:
    """Return that part of a target which is told at one of its endpoints."""
    if one.url and ids[0] == endpoint:
        return Target(url=one.url)
    return Target(task=one.task, queue=one.queue)


def _name(ids: str) -> str:
    # Not the job's: sealed once for all jobs of a call, and as it is for what is made of them again.
    return f"callback {ids}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{_place(parts)}{parts.path or '/'}"


def _place(parts: SplitResult) -> str:
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{host}" if parts.port in {None, usual} else f"{host}:{parts.port}"


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
