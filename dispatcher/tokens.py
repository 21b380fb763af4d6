"""Bearer tokens of the HTTP API: who may ask for what, on whose behalf, and how much of it.

A token is shown once, when it is made; what lies in Redis is its SHA-256 (`d:ak`), which is enough since a token is 192
bits of chance: nobody guesses it, and to find it by its hash tells a clock nothing of it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import checks
from dispatcher.calls import Call, script
from dispatcher.errors import InvalidRequest, NotFound
from dispatcher.guards import Window
from dispatcher.jobs import milliseconds, moment, new_id
from dispatcher.privacy import shown

if TYPE_CHECKING:
    from dispatcher.store import JobStore

#: The Redis hash of all tokens, by their SHA-256.
KEY: Final = "d:ak"

#: What every token begins with, so that scanners find one that lies where it should not.
PREFIX: Final = "disp_"
_TOKEN: Final = re.compile(r"disp_[0-9a-f]{48}")
_CHANCE: Final = 24

_MAX_TENANT: Final = 255
_MAX_NOTE: Final = 100

_WINDOW: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,4})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST: Final = 30 * 86400


class Right(StrEnum):
    """What a token may be used for."""

    #: Send texts and batches, and take them back.
    SEND = "send"
    #: Verify, check, send another code, and take it back.
    VERIFY = "verify"
    #: Look numbers up.
    LOOKUP = "lookup"
    #: Read jobs, batches and events, masked.
    READ = "read"
    #: Read them with numbers and texts.
    REVEAL = "reveal"
    #: Name a Celery task to be called back with: any of the consumer's.
    TASKS = "tasks"


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a token; the token itself is not."""

    id: str
    #: Whose jobs it makes and sees; None for those of all.
    tenant: str | None = None
    rights: tuple[Right, ...]
    #: How many jobs may be made with it, such as "1000/1d,100/1h"; "" for any number.
    budget: str = ""
    note: str = ""
    #: Milliseconds since 1970.
    created_at: int
    expires_at: int | None = None

    @property
    def windows(self) -> tuple[Window, ...]:
        """Its budget, as windows of time."""
        return windows(self.budget)

    def expired(self, now: float | None = None) -> bool:
        """Say whether its time is over, at `now` in seconds since 1970."""
        return self.expires_at is not None and (time.time() if now is None else now) * 1000 >= self.expires_at

    def to_dict(self) -> dict[str, Any]:
        """Return its document."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "rights": [right.value for right in self.rights],
            "budget": self.budget,
            "note": self.note,
            "created_at": msgspec.to_builtins(moment(self.created_at)),
            "expires_at": None if self.expires_at is None else msgspec.to_builtins(moment(self.expires_at)),
            "expired": self.expired(),
        }


class Drawn(msgspec.Struct, frozen=True):
    """What a budget said: whether there was room, and when (ms); else in how many seconds, None for never."""

    granted: bool
    at: int = 0
    retry_after: int | None = None


def windows(written: str) -> tuple[Window, ...]:
    """Read a budget such as "1000/1d,100/1h". Raises `InvalidRequest`."""
    found = tuple(_window(one.strip()) for one in written.split(",")) if written.strip() else ()
    if len({one.seconds for one in found}) < len(found):
        raise InvalidRequest("budget", "has two counts for the same time; leave one out")
    return found


def hashed(token: str) -> str | None:
    """Return what a token is stored under; None for what cannot be one."""
    return hashlib.sha256(token.encode()).hexdigest() if _TOKEN.fullmatch(token) else None


def read(stored: bytes | None) -> Token | None:
    """Return a token as it lies in Redis; None for none, and for one whose time is over."""
    one = None if stored is None else msgspec.json.decode(stored, type=Token)
    return None if one is None or one.expired() else one


def make(
    *,
    tenant: str | None,
    rights: Iterable[str],
    budget: str = "",
    note: str = "",
    expires_at: datetime | float | None = None,
) -> tuple[str, Token]:
    """Return a new token and what is known of it; `tenant` None is for all tenants. Raises `InvalidRequest`."""
    if tenant is not None and not 0 < len(checks.text("tenant", tenant)) <= _MAX_TENANT:
        raise InvalidRequest("tenant", f"must have 1 to {_MAX_TENANT} characters; for all tenants say so")
    if len(checks.text("note", note)) > _MAX_NOTE:
        raise InvalidRequest("note", f"must have at most {_MAX_NOTE} characters")
    now = time.time()
    until = milliseconds("expires_at", expires_at)
    if until is not None and until <= now * 1000:
        raise InvalidRequest("expires_at", "is over; give a time to come")
    written = ",".join(map(str, windows(checks.text("budget", budget))))
    one = Token(
        id=new_id(), tenant=tenant, rights=_rights(rights), budget=written, note=note,
        created_at=round(now * 1000), expires_at=until,
    )  # fmt: skip
    return f"{PREFIX}{secrets.token_hex(_CHANCE)}", one


def put(store: JobStore, token: str, one: Token) -> None:
    """Let a new token in. Raises `StoreUnavailable`."""
    with store.errors():
        store.redis.hset(KEY, str(hashed(token)), msgspec.json.encode(one))
    store.sync()


def listed(store: JobStore) -> list[Token]:
    """Return all tokens that are not revoked, the first made first."""
    with store.errors():
        stored: Any = store.redis.hvals(KEY)
    return sorted((msgspec.json.decode(one, type=Token) for one in stored), key=lambda one: one.id)


def revoke(store: JobStore, id_: str) -> Token:
    """Let a token in no more, whatever it is used for by now; return what it was. Raises `NotFound`."""
    wanted = checks.text("id", id_)
    with store.errors():
        stored: Any = store.redis.hgetall(KEY)
        for name, document in stored.items():
            one = msgspec.json.decode(document, type=Token)
            if one.id == wanted:
                store.redis.hdel(KEY, name)
                store.sync()
                return one
    raise NotFound("token", shown(id_))


def draw(call: str, one: Token, amount: int, key: str = "") -> Call[Drawn]:
    """Take jobs out of a token's budget, all or none; `call` is a name of this call's own (`call_name`).

    Nothing is taken, and it is granted, where a job is there that was made by the idempotency `key`, a keyed hash.
    """
    arguments: list[bytes | str | float] = [call, one.id, amount, key]
    for window in one.windows:
        arguments += (window.count, window.seconds * 1000)
    return Call(script("tokens_draw"), arguments, _read_drawn)


def give_back(call: str, amount: int, job: str | None = None) -> Call[int]:
    """Put back what the draw of that name took and no job was made of.

    With the id of the `job` that was asked for, put it back only where another draw pays for that job.
    """
    return Call(script("tokens_give_back"), [call, amount] if job is None else [call, amount, job], int)


def _read_drawn(answer: Sequence[int]) -> Drawn:
    granted, told = int(answer[0]) == 1, int(answer[1])
    if granted:
        return Drawn(granted=True, at=told)
    return Drawn(granted=False, retry_after=None if told < 0 else -(-told // 1000))


def _rights(rights: Iterable[str]) -> tuple[Right, ...]:
    found = []
    for one in rights:
        try:
            found.append(Right(one))
        except ValueError:
            raise InvalidRequest("rights", f"must be some of {', '.join(Right)}", shown(one)) from None
    if not found:
        raise InvalidRequest("rights", f"is empty; a token is for some of {', '.join(Right)}")
    return tuple(right for right in Right if right in found)


def _window(written: str) -> Window:
    shape = _WINDOW.fullmatch(written)
    count, seconds = (int(shape[1]), int(shape[2]) * _SECONDS[shape[3]]) if shape else (0, 0)
    if not count or not 0 < seconds <= _LONGEST:
        why = "must be a count for a time of 30 days at most, several separated by commas, such as 1000/1d,100/1h"
        raise InvalidRequest("budget", why, shown(written))
    return Window(count, seconds)
