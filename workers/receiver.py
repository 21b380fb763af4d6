"""What providers call back: an ASGI application that keeps what it is told, and only then answers.

Nothing is understood here. A request is let in by the token in its URL (vendors sign nothing), written to Redis sealed,
put on its account's queue, and answered with what the vendor needs to hear; `workers.callbacks` reads it. So this
process needs no vendor's credentials, and no bug in reading can lose what was told.

| answer | when |
|---|---|
| what `Adapter.answer` says, by default an empty 200 | it is safe |
| 404 | there is no such account, or that is not its token: nobody learns which |
| 401 | the vendor's own secret is missing or wrong |
| 405, 408, 413 | another method than GET and POST; a body that does not come, or is over 1 MiB |
| 503 | Redis does not answer, or the account's adapter is not installed: come again |

All but the first are empty, since one vendor texts to the person whatever it is answered (Club Texting, "Wait for
Response From My Server"). URLs are never logged: they hold the token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec
from kombu.exceptions import KombuError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dispatcher.accounts import KEY, Account
from dispatcher.callbacks import CallbackCalls
from dispatcher.calls import Calls
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.jobs import new_id
from dispatcher.queues import celery_app, publish, receipts_queue
from dispatcher.store import AsyncJobStore
from workers.adapters import configured, listener
from workers.callbacks import encode
from workers.providers.base import Adapter, Answer, Callback, same_secret
from workers.serving import serve

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.receiver")

#: Bytes of a body at most, and seconds for it to come.
LARGEST: Final = 1 << 20
_PATIENCE: Final = 10.0

#: Seconds that Redis may take, and the broker: a vendor waits for its answer meanwhile.
_REDIS: Final = 3.0
_BROKER: Final = 3.0

#: Seconds that what workers published of their accounts is good for.
_FRESH: Final = 5.0

#: Headers that are kept. None that may hold a secret is among them.
_KEPT: Final = ("content-type", "user-agent")

_LISTENING: Final = "/health"


class Receiver:
    """The application; use it as a context manager to close what it opened."""

    def __init__(self, settings: Settings) -> None:
        """Listen for the accounts in `settings`, and for those that workers published.

        Raises `ConfigurationError` without `DISPATCHER_HASH_KEY`: URLs, receipts and the list of those who want no
        texts depend on it.
        """
        settings.require_server("the receiver")
        settings.require_hash_key("the receiver")
        self._settings = settings
        self._sealer = settings.sealer()
        self._store = AsyncJobStore(settings.redis, settings.redis_shown, timeout=_REDIS, fsync=settings.fsync)
        self._calls = Calls(settings)
        self._callbacks = CallbackCalls(settings)
        self._celery = celery_app(settings)
        self._own = {account: listener(settings, account) for account in configured(settings)}
        self._published: dict[str, str] = {}
        self._until = 0.0
        self._entered = False

    async def close(self) -> None:
        """Close the connections."""
        self._celery.close()
        await self._store.close()

    async def enter(self) -> None:
        """See that the jobs in this Redis are ours. Raises `ConfigurationError` where not, `StoreUnavailable`."""
        if not self._entered:
            await self._store.run(self._calls.enter())
            self._entered = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, as ASGI has it."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - an answer that is not ours could be texted to somebody
            log.error("a callback could not be taken: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show it
            response = _empty(HTTPStatus.SERVICE_UNAVAILABLE)
        await response(scope, receive, send)

    # -- the steps, in order ------------------------------------------------------------------------------------------

    async def _respond(self, request: Request) -> Response:
        path = request.scope["path"]
        if path == _LISTENING:
            return await self._health()
        account, token = _parts(request.scope)
        # The same is done for an account that there is not: how long it takes tells nothing.
        if not same_secret(token, self._settings.callback_token(account)):
            return _empty(HTTPStatus.NOT_FOUND)
        if request.method not in {"GET", "POST"}:
            return _empty(HTTPStatus.METHOD_NOT_ALLOWED)
        return await self._hear(account, request)

    async def _hear(self, account: str, request: Request) -> Response:
        """Read a request whole, and take it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                body = await _body(request)
        except TimeoutError:
            return _empty(HTTPStatus.REQUEST_TIMEOUT, closes=True)
        if body is None:
            return _empty(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, closes=True)
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = request.scope["query_string"].decode("latin-1")
        callback = Callback(method=request.method, query=query, headers=headers, body=body)
        try:
            return await self._take(account, callback)
        except (ConfigurationError, StoreUnavailable) as error:
            log.error("a callback of %s could not be kept: %s", account, error)  # noqa: TRY400 - it says what is at fault
            return _empty(HTTPStatus.SERVICE_UNAVAILABLE)

    async def _take(self, account: str, callback: Callback) -> Response:
        """Keep a callback, say that it is there, answer it."""
        adapter = await self._adapter(account)
        if adapter is None:
            return _empty(HTTPStatus.NOT_FOUND)
        if not adapter.trusts(callback):
            log.warning("a callback of %s does not bear the vendor's secret", account)
            return _empty(HTTPStatus.UNAUTHORIZED)
        await self.enter()
        id_ = new_id()
        kept = {name: callback.headers[name] for name in _KEPT if name in callback.headers}
        sealed = self._sealer.seal(encode(msgspec.structs.replace(callback, headers=kept)), id_)
        await self._store.run(self._callbacks.put(id_, account, sealed))
        log.info("callback %s of %s is kept", id_, account)
        await self._publish(account, id_)
        return _answered(adapter, callback)

    async def _adapter(self, account: str) -> Adapter | None:
        """Return what knows the account's provider; None where nobody knows the account."""
        if account in self._own:
            return self._own[account]
        if account not in self._published and time.monotonic() >= self._until:
            with self._store.errors():
                stored: Any = await self._store.redis.hgetall(KEY)
            read = [msgspec.json.decode(one, type=Account) for one in stored.values()]
            self._published = {one.name: one.adapter for one in read}
            self._until = time.monotonic() + _FRESH
        name = self._published.get(account)
        return None if name is None else listener(self._settings, account, name)

    async def _publish(self, account: str, id_: str) -> None:
        try:
            async with asyncio.timeout(_BROKER):
                # kombu blocks; the loop must not.
                await asyncio.to_thread(publish, self._celery, receipts_queue(account), [id_])
        except (KombuError, OSError) as error:  # TimeoutError among them
            # It is in the outbox, where the clock finds it.
            log.warning("the message of callback %s is delayed: %s", id_, error.__class__.__name__)

    async def _health(self) -> Response:
        try:
            await self.enter()
            with self._store.errors():
                await self._store.redis.ping()
        except (ConfigurationError, StoreUnavailable) as error:
            body = msgspec.json.encode({"ok": False, "problem": str(error)})
            return Response(body, HTTPStatus.SERVICE_UNAVAILABLE, media_type="application/json")
        return Response(b'{"ok":true}', media_type="application/json")


def run(
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Listen until told to stop by a signal; port 0 takes a free one.

    `ready` is called with the origin, such as `http://127.0.0.1:8470`, once connections are taken. Raises `OSError`
    where the address cannot be had, `ConfigurationError` where a setting is missing or the jobs in Redis are not ours.
    """
    asyncio.run(_serve(settings, host, port, ready))


async def _serve(
    settings: Settings, host: str, port: int, ready: Callable[[str], Coroutine[Any, Any, None]] | None
) -> None:
    receiver = Receiver(settings)
    try:
        try:
            await receiver.enter()
        except StoreUnavailable as error:
            # It comes back; until then providers are asked to come again.
            log.warning("%s", error)
        await serve(receiver, host, port, ready)
    finally:
        await receiver.close()


def url(settings: Settings, base: str, account: str) -> str:
    """Return where the provider of `account` is to call; it holds the account's token. `base` is how we are reached."""
    return f"{base.rstrip('/')}/{account}/{quote(settings.callback_token(account), safe='')}"


def urls(settings: Settings, base: str, published: dict[str, Account]) -> dict[str, str]:
    """Return by account where its provider is to call, of those whose provider calls at all.

    `published` are the accounts that workers published, beside those in `settings`.
    """
    adapters = {name: listener(settings, name, one.adapter) for name, one in published.items()}
    adapters |= {name: listener(settings, name) for name in configured(settings)}
    return {name: url(settings, base, name) for name, one in sorted(adapters.items()) if _calls(one)}


def _calls(one: Adapter) -> bool:
    return one.capabilities.inbound or "push" in one.capabilities.receipts


def _parts(scope: Scope) -> tuple[str, str]:
    """Return account and token as they stand in the path; empty where there are not exactly two."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    parts = raw.split(b"?", 1)[0].decode("latin-1").split("/")
    return (unquote(parts[1]), unquote(parts[2])) if len(parts) == 3 else ("", "")  # noqa: PLR2004 - /account/token


async def _body(request: Request) -> bytes | None:
    """Return the body; None where it is too large, of which no more is read than is needed to know it."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > LARGEST:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            return None
    return bytes(body)


def _answered(adapter: Adapter, callback: Callback) -> Response:
    try:
        answer = adapter.answer(callback)
    except Exception as error:  # noqa: BLE001 - what was told is safe, and must not be told again and again
        log.error("%s cannot answer a callback: %s", adapter.name, error.__class__.__name__)  # noqa: TRY400 - a traceback could show it
        answer = Answer()
    return Response(answer.body, answer.status, headers={"content-type": answer.content_type})


def _empty(status: HTTPStatus, *, closes: bool = False) -> Response:
    return Response(status_code=status, headers={"connection": "close"} if closes else None)
