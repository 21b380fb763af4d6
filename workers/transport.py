"""One HTTP request, sent at most once, and the truth about what became of it.

Only this module and the engine under it, `workers.wire`, know httpx. `Transport.send` answers with a whole `Response`
of any status, or with a `Failure`: `not_sent` where no byte of the request can have been processed, `ambiguous`
everywhere else, because repeating what is in doubt sends a message twice. A cancelled call raises `CancelledError`,
and whoever cancelled it takes the request for ambiguous too.

Messages are our own words: what the libraries raise carries URLs, and with them numbers and credentials.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Self

import httpx
import tenacity

from dispatcher.outcomes import Failure, FailureKind
from workers import wire
from workers.providers.base import Request, Response

#: Seconds that an idle connection is kept. Servers close theirs after 5 (Apache, Node) to 75 (nginx), and
#: what is written on one that is just being closed is ambiguous: so ours goes first.
_KEEPALIVE: Final = 4.0

#: Shapes of requests that are remembered: an account has a few, its operations.
_SHAPES: Final = 256


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
_DEADLINE: Final = _ambiguous("deadline", "no whole answer came before the deadline")
_UNKNOWN: Final = _ambiguous("unknown", "the exchange failed in an unforeseen way")

#: What each exception means; the first that fits holds. Only what the engine raises while it makes a connection
#: proves that nothing was sent: it writes after that, and never raises these then.
_MEANING: Final[tuple[tuple[type[BaseException], Failure], ...]] = (
    (wire.Stale, _not_sent("stale_connection", "the connection was of no use any more")),
    (httpx.ConnectTimeout, _CONNECT_TIMEOUT),
    (httpx.ConnectError, _CONNECT_FAILED),
    (httpx.ReadTimeout, _ambiguous("read_timeout", "the provider said nothing for too long")),
    (wire.Dropped, _ambiguous("dropped", "the connection was closed without an answer")),
    (wire.BrokenOff, _ambiguous("broken_off", "the answer broke off")),
    (wire.Oversize, _ambiguous("oversize", "the answer was longer than may be read")),
    (httpx.RemoteProtocolError, _ambiguous("garbled", "the answer was not HTTP")),
    (httpx.ReadError, _ambiguous("reset", "the connection broke")),
)

#: What kept a connection from being made, where it was no error of the system's.
_CONNECT_CAUSE: Final[tuple[tuple[type[BaseException], Failure], ...]] = (
    (socket.gaierror, _not_sent("dns", "the provider's name could not be resolved")),
    (ssl.SSLError, _not_sent("tls", "no TLS connection could be made that may be trusted")),
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
    failure = next((failure for kind, failure in _MEANING if isinstance(error, kind)), _UNKNOWN)
    cause = error.__cause__
    if failure is not _CONNECT_FAILED or not isinstance(cause, OSError):
        return failure
    known = next((known for kind, known in _CONNECT_CAUSE if isinstance(cause, kind)), None)
    return known or _CONNECT_ERRNO.get(cause.errno or 0, failure)


def _to_repeat(outcome: Response | Failure) -> bool:
    return isinstance(outcome, Failure) and outcome.code in _REPEATED


def user_agent() -> str:
    """Return what we call ourselves, to providers and consumers."""
    try:
        return f"dispatcher/{version('dispatcher')}"
    except PackageNotFoundError:  # run from its sources, not installed
        return "dispatcher"


#: What a method and a header's name are made of (RFC 9110, 5.6.2).
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: What every request says, unless its adapter does.
_SAID: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": user_agent()}


def _shape(url: str, *headers: tuple[str, str]) -> tuple[httpx.URL, httpx.Headers]:
    """Return what httpx makes of a URL and headers, all that it costs much time for.

    Raises where that is no valid request, carries a password in its URL, or says itself how long it is.
    """
    parsed = httpx.URL(url)
    asked = httpx.Headers(headers)
    said = httpx.Headers({"Host": parsed.netloc.decode("ascii"), **_SAID})
    said.update(asked)
    names, values = [name for name, _ in headers], "".join(value for _, value in headers)
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
        raise ValueError
    if not all(map(_TOKEN.fullmatch, names)) or {*values} & {*"\r\n\0"} or wire.FRAMING & {*asked}:
        raise ValueError
    return parsed, said


#: By URL and headers, which hold an account's credentials, as its adapter does.
_remembered: Final = lru_cache(_SHAPES)(_shape)


def _prepared(request: Request) -> httpx.Request:
    """Build httpx's request; raises where it is no valid one."""
    # What is in a query may be another for each request.
    shape = _shape if "?" in request.url else _remembered
    url, headers = shape(request.url, *request.headers.items())
    if not _TOKEN.fullmatch(request.method):
        raise ValueError
    return httpx.Request(request.method, url, headers=headers, stream=httpx.ByteStream(request.body))


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
        tls: ssl.SSLContext | None = None,
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
        self._deadline, self._connect = deadline, connect
        self._retry_connect, self._sleep, self._reached = retry_connect, sleep, reached
        # Driven without an `httpx.AsyncClient`: that logs every URL at INFO, on a logger which the
        # application uses too, and is slower.
        self._http: httpx.AsyncBaseTransport = wire.Wire(
            tls=tls or httpx.create_ssl_context(trust_env=False),
            connect=connect,
            read=read,
            max_body=max_body,
            keepalive=_KEEPALIVE,
            reached=reached,
        )
        self._closed = False

    async def send(self, request: Request) -> Response | Failure:
        """Send `request`; at most one copy of it reaches a server. Raises nothing but `CancelledError`."""
        if self._closed:
            return _CLOSED
        try:
            prepared = _prepared(request)
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

    async def _try(self, request: httpx.Request) -> Response | Failure:
        try:
            answer = await self._http.handle_async_request(request)
            # Of the stream itself, which is never unpacked.
            body = b"".join([part async for part in answer.stream])  # type: ignore[union-attr]  # it is asynchronous
        except Exception as error:  # noqa: BLE001 - there is a meaning for everything
            return classify(error)
        if self._reached is not None:
            self._reached("read.after")
        headers = dict(answer.headers.items())
        if "retry-after" in headers:
            # A date is counted from this one: "a recipient with a clock" adds it where it is missing (RFC 9110, 6.6.1).
            headers.setdefault("date", format_datetime(datetime.now(UTC), usegmt=True))
        return Response(status=answer.status_code, headers=headers, body=body)

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
