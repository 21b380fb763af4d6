"""What `Idempotency-Key` means (draft-ietf-httpapi-idempotency-key-header): the same request again makes nothing new.

A single job has its key in the job store, which knows it again by itself. What makes several, or none in the store's
sense, is remembered here: the request by its keyed hash, the name that its batch got, and who is doing it now.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher.calls import Call, call_name, script
from dispatcher.errors import DispatcherError, StoreUnavailable
from workers.api.problems import Problem

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from dispatcher.settings import Settings
    from dispatcher.store import AsyncJobStore

HEADER: Final = "Idempotency-Key"

#: A string of RFC 8941, as the draft has it; and the bare word that many clients send.
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE: Final = re.compile(r"[!#-+\--:<-~]{1,255}")
_ESCAPED: Final = re.compile(r"\\(.)")

#: The two of them, as OpenAPI says it.
PATTERN: Final = r'^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\--:<-~]{1,255})$'

#: Milliseconds after which what was begun and not ended is taken over: whoever did it died.
_LEASE: Final = 90_000


class Begun(msgspec.Struct, frozen=True):
    """What is known of a key: "new", "done", "busy" or "other"; and the name of what is made under it."""

    word: str
    name: str = ""
    #: Milliseconds until it may be taken over.
    left: int = 0


def read_key(headers: Headers) -> str | None:
    """Return the key that a request bears, None for none. Raises `Problem`."""
    told = headers.getlist(HEADER)
    if not told:
        return None
    quoted = _QUOTED.fullmatch(told[0].strip(" "))
    bare = _BARE.fullmatch(told[0].strip(" "))
    if len(told) > 1 or not (quoted or bare):
        detail = 'must be one string of 1 to 255 printable characters, as in Idempotency-Key: "order-17-shipped"'
        raise Problem(400, "idempotency_key_invalid", detail, field=HEADER)
    return _ESCAPED.sub(r"\1", quoted[1]) if quoted else told[0].strip(" ")


class Turn:
    """One's turn to do what a key names: the `name` of what is made, and whether that is `done` already."""

    def __init__(self, name: str, *, done: bool) -> None:
        """`name` is the first time's, and may be set to another before it is done."""
        self.name = name
        self.done = done


class Repeats:
    """Does what a key names once."""

    def __init__(self, settings: Settings, store: AsyncJobStore) -> None:
        """Remember for as long as idempotency keys are kept."""
        self._settings = settings
        self._store = store
        self._kept = int(settings.keep_idempotency * 1000)

    @asynccontextmanager
    async def once(self, kind: str, tenant: str, key: str, request: bytes, name: str = "") -> AsyncIterator[Turn]:
        """Let the body of `async with` do it, and make what it makes under `name`, unless it began under another.

        Raises `Problem` where the key was used for another request, or that one is under way. What the body raises
        decides what is remembered: nothing where the request was refused.
        """
        call = call_name()
        place = self._settings.keyed("http", kind, tenant, key)
        fingerprint = self._settings.keyed("http request", request.decode())
        begun = await self._store.run(
            Call(script("repeats_begin"), [call, place, fingerprint, _LEASE, self._kept, name], _read)
        )
        if begun.word == "other":
            detail = "was used before with another request; use a new key, or repeat that request unchanged"
            raise Problem(422, "idempotency_conflict", detail, field=HEADER)
        if begun.word == "busy":
            detail = "the first request with this key is not done yet; ask again"
            raise Problem(409, "idempotency_in_progress", detail, field=HEADER, retry_after=1)
        ended, turn = "again", Turn(begun.name, done=begun.word == "done")
        try:
            yield turn
            ended = "done"
        except StoreUnavailable:
            raise
        except (DispatcherError, Problem):
            ended = "never"
            raise
        finally:
            if begun.word == "new":
                await asyncio.shield(self._end(call, place, ended, turn.name))

    async def _end(self, call: str, place: str, ended: str, name: str) -> None:
        try:
            await self._store.run(Call(script("repeats_end"), [call, place, ended, self._kept, name], int))
        except StoreUnavailable:
            # It is taken over when its time is over.
            return


def _read(answer: list[Any]) -> Begun:
    word, name, left = answer
    return Begun(word.decode(), name.decode(), int(left))
