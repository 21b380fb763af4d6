"""Who may come in, and how much they may bring: before anything of a request is understood.

A request for `/v1` needs a token; its body, which is read only then, is bounded in size and time, and is JSON.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect, Request

from dispatcher import tokens
from workers.api import problems
from workers.api.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dispatcher.store import AsyncJobStore
    from dispatcher.tokens import Token

log = logging.getLogger("dispatcher.api")

#: Bytes of a body at most, and seconds for it to come.
LARGEST: Final = 8 << 20
_PATIENCE: Final = 20.0

#: Seconds that what is known of a token is good for: so long a revoked one goes on.
FRESH: Final = 5.0

#: Tokens that are remembered.
_REMEMBERED: Final = 1000

#: Seconds that an answer may take: a batch of thousands on a slow Redis.
_LONGEST: Final = 30.0

#: What needs a token, and what is waited for.
_GUARDED: Final = "/v1"
_FOLLOWED: Final = "/v1/events"

_BEARER: Final = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="dispatcher"'}
_WRONG: Final = {"WWW-Authenticate": 'Bearer realm="dispatcher", error="invalid_token"'}


class Known:
    """Tokens that were asked for of late, so that not every request asks Redis."""

    def __init__(self, store: AsyncJobStore) -> None:
        """Ask `store`."""
        self._store = store
        self._kept: OrderedDict[str, tuple[float, Token]] = OrderedDict()

    async def find(self, token: str) -> Token | None:
        """Return what is known of a token; None for one that there is not. Raises `StoreUnavailable`."""
        name = tokens.hashed(token)
        if name is None:
            return None
        until, kept = self._kept.get(name, (0.0, None))
        if kept is not None and time.monotonic() < until:
            return None if kept.expired() else kept
        if kept is not None:
            # One asks, and the thousand streams of this token go by what was known until that is answered.
            self._kept[name] = (time.monotonic() + FRESH, kept)
        try:
            with self._store.errors():
                stored: Any = await self._store.redis.hget(tokens.KEY, name)
        finally:
            self._kept.pop(name, None)
        found = tokens.read(stored)
        if found is not None:
            # One that there is not is not remembered: anybody can make up as many as they like.
            self._kept[name] = (time.monotonic() + FRESH, found)
            if len(self._kept) > _REMEMBERED:
                self._kept.popitem(last=False)
        return found


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, known: Known) -> None:
        """Let requests through to `app`."""
        self._app = app
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, as ASGI has it."""
        if scope["type"] != "http":
            return
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            receive = await self._enter(scope, receive)
            # Those who follow events have a time of their own.
            seconds = None if scope["path"] == _FOLLOWED else _LONGEST
            async with asyncio.timeout(seconds):
                await self._app(scope, receive, sent)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - a traceback could show what was sent
            # An answer that has begun is there by now, or is cut short, which says enough.
            if not begun:
                await problems.of(error).response()(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive) -> Receive:
        """Return where the body is read from, once the request may be read at all."""
        request = Request(scope, receive)
        path = scope["path"]
        if path != _GUARDED and not path.startswith(f"{_GUARDED}/"):
            # Nothing here takes a body: one that a stranger sends is not kept.
            return receive
        scope.setdefault("state", {})["token"] = await self._admitted(request)
        if request.method in {"GET", "HEAD", "OPTIONS", "DELETE"}:
            return receive
        return await self._whole(request)

    async def _admitted(self, request: Request) -> Token:
        told = request.headers.getlist("authorization")
        if not told:
            detail = "a token is needed: Authorization: Bearer disp_..., made by `dispatcher api tokens create`"
            raise Problem(401, "token_missing", detail, headers=_CHALLENGE)
        bearer = _BEARER.fullmatch(told[0]) if len(told) == 1 else None
        found = await self._known.find(bearer[1]) if bearer else None
        if found is None:
            raise Problem(401, "token_invalid", "the token is unknown, expired or revoked", headers=_WRONG)
        return found

    async def _whole(self, request: Request) -> Receive:
        if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
            detail = "send it as it is, not compressed"
            raise Problem(415, "unsupported_media_type", detail, headers={"Accept-Encoding": "identity"})
        body = await _body(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and (body or kind):
            raise Problem(
                415, "unsupported_media_type", "send application/json", headers={"Accept": "application/json"}
            )
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                # Whoever waits for this hears that the client has gone.
                return await request.receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > LARGEST:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for piece in request.stream():
                body += piece
                if len(body) > LARGEST:
                    raise _too_large()
    except TimeoutError:
        raise Problem(408, "too_slow", "the body did not come in time", headers={"Connection": "close"}) from None
    return bytes(body)


def _too_large() -> Problem:
    detail = f"a body has at most {LARGEST} bytes; send a batch in parts, with batch_id and more"
    return Problem(413, "too_large", detail, headers={"Connection": "close"})
