"""One HTTP request, sent at most once, and the truth about what became of it.

Only this module knows httpx and aiohttp. `Transport.send` answers with a whole `Response` of any status, or
with a `Failure`: `not_sent` where no byte of the request can have been processed, `ambiguous` everywhere
else, because repeating what is in doubt sends a message twice. A cancelled call raises `CancelledError`, and
whoever cancelled it takes the request for ambiguous too.

Messages are our own words: what the libraries raise carries URLs, and with them numbers and credentials.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from ssl import SSLContext
from typing import Final, Self

import aiohttp
import httpx
import tenacity
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from httpx_aiohttp import AiohttpTransport

from dispatcher.outcomes import Failure, FailureKind
from workers.providers.base import Request, Response

#: Seconds that an idle connection is kept. Servers close theirs after 5 (Apache, Node) to 75 (nginx), and
#: what is written on one that is just being closed is ambiguous: so ours goes first.
_KEEPALIVE: Final = 4.0


class _Stale(aiohttp.ClientError):
    """Before the request was written, the connection was closed or held bytes that nobody had asked for."""


class _Lost(aiohttp.ClientError):
    """The connection was lost, its cause says how; of a type that aiohttp takes for no reason to repeat."""


def _not_sent(code: str, what: str) -> Failure:
    return Failure(kind=FailureKind.NOT_SENT, code=code, message=f"{what}; nothing was sent")


def _ambiguous(code: str, what: str) -> Failure:
    return Failure(kind=FailureKind.AMBIGUOUS, code=code, message=f"{what}; the request may have been processed")


#: Our own fault, and it will be the next time too.
_UNSENDABLE: Final = Failure(
    kind=FailureKind.INTERNAL, code="unsendable", message="this is no valid HTTP request; nothing was sent"
)
_CLOSED: Final = _not_sent("closed", "the transport is closed")
_UNREACHABLE: Final = _not_sent("unreachable", "the provider's network could not be reached")
_CONNECT_TIMEOUT: Final = _not_sent("connect_timeout", "no connection was made in time")
_CONNECT_FAILED: Final = _not_sent("connect_failed", "no connection could be made")
_RESET: Final = _ambiguous("reset", "the connection broke")
_GARBLED: Final = _ambiguous("garbled", "the answer was not HTTP")
_DEADLINE: Final = _ambiguous("deadline", "no whole answer came before the deadline")
_OVERSIZE: Final = _ambiguous("oversize", "the answer was longer than may be read")
_UNKNOWN: Final = _ambiguous("unknown", "the exchange failed in an unforeseen way")

#: What each exception means; the first that fits holds. Only what aiohttp raises while it makes a connection
#: proves that nothing was sent. Its types are looked at, because httpx's mislead: a reset after the request
#: was read arrives as `httpx.ConnectTimeout`.
_MEANING: Final[tuple[tuple[type[BaseException], Failure], ...]] = (
    (_Stale, _not_sent("stale_connection", "the connection was of no use any more")),
    (aiohttp.ClientConnectorDNSError, _not_sent("dns", "the provider's name could not be resolved")),
    (aiohttp.ClientSSLError, _not_sent("tls", "no TLS connection could be made that may be trusted")),
    (aiohttp.ClientConnectorError, _CONNECT_FAILED),
    (aiohttp.ConnectionTimeoutError, _CONNECT_TIMEOUT),
    (aiohttp.SocketTimeoutError, _ambiguous("read_timeout", "the provider said nothing for too long")),
    (aiohttp.ServerDisconnectedError, _ambiguous("dropped", "the connection was closed without an answer")),
    (aiohttp.ClientConnectionResetError, _RESET),
    (aiohttp.ClientOSError, _RESET),
    (aiohttp.ClientPayloadError, _ambiguous("broken_off", "the answer broke off")),
    (aiohttp.ClientResponseError, _GARBLED),
    (HttpProcessingError, _GARBLED),
)

_CONNECT_ERRNO: Final = {
    errno.ECONNREFUSED: _not_sent("connect_refused", "the connection was refused"),
    errno.ENETUNREACH: _UNREACHABLE,
    errno.EHOSTUNREACH: _UNREACHABLE,
    errno.ENETDOWN: _UNREACHABLE,
    errno.EHOSTDOWN: _UNREACHABLE,
    errno.ETIMEDOUT: _CONNECT_TIMEOUT,
}

#: Tried again at once. A TLS failure is not: it stays until somebody changes a certificate.
_REPEATED: Final = {"connect_refused", "unreachable", "connect_timeout", "dns", "stale_connection"}


def classify(error: BaseException) -> Failure:
    """Say what `error`, raised by the exchange of one request, tells about that request."""
    cause = error.__cause__ if isinstance(error, httpx.HTTPError | _Lost) else error
    failure = next((failure for kind, failure in _MEANING if isinstance(cause, kind)), _UNKNOWN)
    if failure is _CONNECT_FAILED and isinstance(cause, OSError):
        return _CONNECT_ERRNO.get(cause.errno or 0, failure)
    return failure


def _to_repeat(outcome: Response | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.code in _REPEATED


class _Checked(aiohttp.ClientRequest):
    """A request that is written on no connection that is closed already or on which the server spoke unasked.

    aiohttp hands out an idle connection that holds such bytes (a 408, a second answer) and takes them for the
    answer to the next request: one message would get another's outcome.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if conn.protocol is None or conn.protocol.should_close:
            raise _Stale
        return await super().send(conn)


def _watched(reached: Callable[[str], None]) -> type[_Checked]:
    """Return a request that tells when the operating system has all of it; what fits into a socket goes at once."""

    class Watched(_Checked):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            response = await super().send(conn)
            if not self.body:
                reached("write.after")
            return response

        async def write_bytes(
            self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
        ) -> None:
            await super().write_bytes(writer, conn, content_length)
            if self.body:
                reached("write.after")

    return Watched


def _tracing(reached: Callable[[str], None]) -> aiohttp.TraceConfig:
    """Return what tells how far an exchange is, but for its last bytes in either direction."""

    def told(point: str) -> Callable[..., Awaitable[None]]:
        async def tell(*_: object) -> None:
            reached(point)

        return tell

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_start.append(told("connect.before"))
    tracing.on_connection_create_end.append(told("connect.after"))
    # Its name notwithstanding, this one comes before they are written, and once the connection was found good.
    tracing.on_request_headers_sent.append(told("write.before"))
    tracing.on_request_end.append(told("read.before"))
    return tracing


async def _never_repeat(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from silently repeating a GET, PUT or DELETE whose connection was lost, new or reused.

    It repeats on these two types only. Its switch for that, `ClientSession._retry_connection`, is private.
    """
    try:
        return await send(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Lost from error


def _user_agent() -> str:
    try:
        return f"dispatcher/{version('dispatcher')}"
    except PackageNotFoundError:  # run from its sources, not installed
        return "dispatcher"


class Transport:
    """The connections of one process and its event loop, as many as are asked for at once.

    Who sends bounds that, before claiming a job: nothing claimed ever waits for a connection here.
    """

    def __init__(
        self,
        *,
        deadline: float = 30.0,
        connect: float = 3.0,
        read: float = 15.0,
        max_body: int = 1 << 20,
        retry_connect: int = 2,
        tls: SSLContext | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        reached: Callable[[str], None] | None = None,
    ) -> None:
        """Set what bounds every call, times in seconds.

        `deadline` is for one call of `send` with its extra tries, `connect` for name, TCP and TLS of one
        connection, `read` for silence in the middle. `retry_connect` extra tries are made where there was no
        connection; `max_body` bytes of an answer are read; `tls` trusts others than the usual authorities.
        `reached` is told how far an exchange is, in the words of `workers.failpoints`, by what is made for that only.
        """
        if connect >= deadline:
            raise ValueError("connect must be shorter than deadline: a try would end without an outcome")
        self._deadline, self._connect, self._max_body = deadline, connect, max_body
        self._retry_connect, self._sleep, self._reached = retry_connect, sleep, reached
        # "pool" bounds all that comes before the request is written. A wait for a place in the pool would
        # look like a connect timeout, so there is none: the pool is unlimited.
        self._timeout = {"pool": connect, "read": read}
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        # Driven without an `httpx.AsyncClient`: that logs every URL at INFO, on a logger which the
        # application uses too, and is slower.
        self._http = AiohttpTransport(verify=self._tls, trust_env=False, client=self._session)
        self._closed = False

    async def send(self, request: Request) -> Response | Failure:
        """Send `request`; at most one copy of it reaches a server. Raises nothing but `CancelledError`."""
        if self._closed:
            return _CLOSED
        try:
            prepared = self._prepare(request)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, nothing was sent
            return _UNSENDABLE
        ends = asyncio.get_running_loop().time() + self._deadline
        try:
            async with asyncio.timeout_at(ends):
                outcome = await self._try(prepared)
                return await self._try_again(prepared, outcome, ends) if _to_repeat(outcome) else outcome
        except TimeoutError:
            return _DEADLINE

    async def aclose(self) -> None:
        """Close all connections. What is on the wire becomes ambiguous."""
        self._closed = True
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _session(self) -> aiohttp.ClientSession:
        """Make aiohttp's part; called with the first request, when the event loop is there."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, keepalive_timeout=_KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": _user_agent(), "Accept-Encoding": "identity"},
            skip_auto_headers=["Content-Type"],
            request_class=_Checked if self._reached is None else _watched(self._reached),
            middlewares=(_never_repeat,),
            trust_env=False,
            trace_configs=None if self._reached is None else [_tracing(self._reached)],
        )

    def _prepare(self, request: Request) -> httpx.Request:
        """Build httpx's request; raises where it is no valid one or carries a password in its URL."""
        extensions = {"timeout": self._timeout}
        prepared = httpx.Request(
            request.method, request.url, headers=request.headers, content=request.body, extensions=extensions
        )
        url = prepared.url
        written = "".join([request.method, *request.headers, *request.headers.values()])
        if url.scheme not in {"http", "https"} or not url.host or url.userinfo or {*written} & {*"\r\n\0"}:
            raise ValueError
        return prepared

    async def _try(self, request: httpx.Request) -> Response | Failure:
        try:
            answer = await self._http.handle_async_request(request)
            try:
                return await self._whole(answer)
            finally:
                await answer.aclose()
        except Exception as error:  # noqa: BLE001 - there is a meaning for everything
            return classify(error)

    async def _whole(self, answer: httpx.Response) -> Response | Failure:
        """Read the body as it comes, never unpacked, and no more of it than may be."""
        body = bytearray()
        async for chunk in answer.stream:  # type: ignore[union-attr] # this transport's streams are asynchronous
            body += chunk
            if len(body) > self._max_body:
                return _OVERSIZE
        if self._reached is not None:
            self._reached("read.after")
        return Response(status=answer.status_code, headers=dict(answer.headers.items()), body=bytes(body))

    async def _try_again(self, request: httpx.Request, failed: Response | Failure, ends: float) -> Response | Failure:
        """Repeat what was surely not sent, while a whole connect still fits in before `ends`.

        Begins with the failure there is: tenacity costs 70 µs a call, so it is asked only when it is needed.
        """
        known = [failed]

        async def outcome() -> Response | Failure:
            return known.pop() if known else await self._try(request)

        left = ends - asyncio.get_running_loop().time() - self._connect
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(_to_repeat),
            wait=tenacity.wait_random_exponential(multiplier=0.2, min=0.05, max=0.4),
            stop=tenacity.stop_after_attempt(1 + self._retry_connect) | tenacity.stop_before_delay(left),
            sleep=self._sleep,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        return await retrying(outcome)
