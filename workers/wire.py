"""The engine under the transport: HTTP/1.1 over asyncio's own connections, behind httpx's interface for engines.

It does what a message needs and no more: one request a connection at a time, written once and never again, and its
answer read whole. What it raises says how far that came: `httpx.ConnectError` and `httpx.ConnectTimeout` come before
the first byte is written, and never after; everything else comes after. httptools, which uvicorn reads requests with,
reads the answers; asyncio does TCP and TLS, aiohappyeyeballs chooses among a name's addresses.

The engines that there are cost three to four times the processor's time for a request; and aiohttp, the cheapest of
them, repeats some requests by itself and tells of a reset after the request was read as if nothing had been sent.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any, Final, TypeAlias

import httptools
import httpx
from aiohappyeyeballs import start_connection

#: Bytes that the head of an answer may have.
_MOST_HEAD: Final = 1 << 16

#: Seconds that the addresses of a name are good for. Many ask for them at once, and look-ups block threads.
_RESOLVED: Final = 10.0

#: Seconds after which the next address of a name is tried beside the one before (RFC 8305).
_NEXT_ADDRESS: Final = 0.25

#: Seconds that a connection stays open after an answer before others to its origin are used again. Some servers close
#: theirs after each answer and do not say so: what is written then is lost with it, and in doubt.
_PROOF: Final = 0.1

#: Seconds that an origin nobody asks for is remembered.
_REMEMBERED: Final = 600.0

#: Headers that tell where a message ends: of a request the engine alone says it.
FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})

#: Seconds that closed connections are waited for, which takes some turns of the loop.
_FAREWELL: Final = 1.0

#: The first status that ends an exchange; those below are interim.
_FINAL: Final = 200

Origin: TypeAlias = tuple[str, str, int]

#: Answers the addresses of a name and a port, as `socket.getaddrinfo` does. What it raises, `OSError` or not, is the
#: connection's failure.
Resolve: TypeAlias = Callable[[str, int], Awaitable[list[Any]]]

#: What a request's extensions may say beside httpx's own: who is told of the answer's head, as soon as it is there.
HEAD: Final = "head"


class Stale(httpx.ConnectError):
    """A new connection was closed, or held bytes that nobody had asked for, before the request was written."""


class Dropped(httpx.RemoteProtocolError):
    """The connection was closed before the head of the answer was whole."""


class BrokenOff(httpx.RemoteProtocolError):
    """The connection was lost in the middle of the answer's body."""


class Oversize(httpx.RemoteProtocolError):
    """The answer was longer than may be read."""


class Garbled(httpx.RemoteProtocolError):
    """The answer was not HTTP."""


class Connection(asyncio.Protocol):
    """One connection: a request is written, and its answer read."""

    transport: asyncio.Transport

    def __init__(
        self,
        read: float,
        max_body: int,
        among: set[Connection],
        reached: Callable[[str], None] | None = None,
    ) -> None:
        """Bear silence for `read` seconds and bodies of `max_body` bytes; be one of those `among` while it is open."""
        self._read, self._max_body, self._among, self._reached = read, max_body, among, reached
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        # What RFC 9112 says to read: folded lines (5.2), and lines that end with LF alone (2.2).
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
        self._waiting: asyncio.Future[httpx.Response] | None = None
        self._heard: Callable[[httpx.Response], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._spoilt = False
        self._bodiless = False
        self._head = 0
        self._begin()
        #: When it was last of use, on the loop's clock.
        self.at = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request may be written: it is open, and the server said nothing unasked.

        Such bytes (a 408, a second answer) would be taken for the answer to the next request: one message would get
        another's outcome.
        """
        return not self._spoilt and not self.transport.is_closing()

    async def ask(
        self, method: str, request: bytes, heard: Callable[[httpx.Response], None] | None = None
    ) -> httpx.Response:
        """Write a request and return its whole answer; `heard` is told of its head before, whatever comes after it."""
        self._head, self._bodiless, self._heard = 0, method == "HEAD", heard
        self._begin()
        self._waiting = self._loop.create_future()
        self.at = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._read, self._look)
        try:
            if self._reached is None:
                self.transport.write(request)
            else:
                await self._write(request, self._reached)
            return await self._waiting
        except BaseException:
            self.transport.abort()
            raise
        finally:
            self._waiting = None

    async def _write(self, request: bytes, reached: Callable[[str], None]) -> None:
        reached("write.before")
        self.transport.write(request)
        while self.transport.get_write_buffer_size():  # noqa: ASYNC110 - only where a worker is to die, and asyncio tells of no empty buffer
            await asyncio.sleep(0)
        reached("write.after")

    def _look(self) -> None:
        """Give up where nothing was heard for too long; one timer serves many requests."""
        self._timer = None
        if self._waiting is not None:
            if self._loop.time() >= self.at + self._read:
                self._fail(httpx.ReadTimeout(""))
            else:
                self._timer = self._loop.call_at(self.at + self._read, self._look)

    def _fail(self, error: httpx.TransportError, cause: BaseException | None = None) -> None:
        self._spoilt = True
        if self._waiting is not None and not self._waiting.done():
            error.__cause__ = cause
            self._waiting.set_exception(error)

    # -- what asyncio tells -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with it."""
        self._among.add(self)
        self.transport = transport  # type: ignore[assignment]  # of TCP or TLS, it is one that is read and written

    def data_received(self, data: bytes) -> None:
        """Read on in the answer that is waited for."""
        if self._waiting is None or self._waiting.done():
            self._spoilt = True
            self.transport.abort()
            return
        self.at = self._loop.time()
        if not self._begun:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(Garbled(""), error)
        if not self._begun and self._head > _MOST_HEAD:
            self._fail(Garbled(""))

    def connection_lost(self, error: Exception | None) -> None:
        """End what is waited for: an answer whose length nobody told ends so."""
        if self._timer is not None:
            self._timer.cancel()
        self._spoilt = True
        if not self._begun:
            self._fail(Dropped("") if error is None else httpx.ReadError(""), error)
        elif error is None and self._until_close:
            self._end()
        else:
            self._fail(BrokenOff(""), error)
        self._among.discard(self)

    # -- what the parser tells ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin with an answer: nothing of it is there, and until told otherwise its body ends with the connection."""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._begun, self._until_close = False, True

    def on_message_begin(self) -> None:
        """Note what follows a whole answer."""
        if self._waiting is None or self._waiting.done():
            self._spoilt = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those that follow the body are left out."""
        if not self._begun:
            self._headers.append((name, value))
            low = name.lower()
            if low == b"content-length" or (low == b"transfer-encoding" and b"chunked" in value.lower()):
                self._until_close = False

    def on_headers_complete(self) -> None:
        """Begin with the body."""
        if self._parser.get_status_code() < _FINAL:
            return
        self._begun = True
        if self._reached is not None:
            self._reached("read.before")
        if self._heard is not None:
            self._heard(httpx.Response(self._parser.get_status_code(), headers=self._headers))
        if self._bodiless:
            # The parser would wait for the body that its headers speak of.
            self._spoilt = True
            self._end()

    def on_body(self, data: bytes) -> None:
        """Keep what came of the body, and no more of it than may be."""
        self._body += data
        if len(self._body) > self._max_body:
            self._fail(Oversize(""))

    def on_message_complete(self) -> None:
        """End, or go on to the answer after one that is interim (100 Continue)."""
        if self._begun:
            self._spoilt = self._spoilt or not self._parser.should_keep_alive()
            self._end()
        else:
            self._begin()

    def _end(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(
                httpx.Response(
                    self._parser.get_status_code(), headers=self._headers, stream=httpx.ByteStream(bytes(self._body))
                )
            )


class Rest:
    """The connections to one origin that wait for a request, and whether it keeps such open.

    Before that was seen, for `proof` seconds, there is one at most, and it is not used again.
    """

    def __init__(self, proof: float) -> None:
        """Begin with `proof` seconds."""
        #: The latest used is used next, so that those which are too many get old.
        self.idle: list[Connection] = []
        self.kept, self.at, self.proof = False, 0.0, proof

    def take_in(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Let a connection wait here, or close one that is not wanted."""
        self.at = loop.time()
        if not self.kept:
            if any(one.usable for one in self.idle):
                connection.transport.abort()
                return
            self.idle.clear()
            loop.call_later(self.proof, self._judge, connection)
        self.idle.append(connection)

    def doubt(self, most: float) -> None:
        """Heed that one which was used again had been closed: the next proof takes longer, `most` seconds at most."""
        if self.kept:
            self.kept, self.proof = False, min(2 * self.proof, most)
            for connection in self.idle:
                connection.transport.abort()

    def _judge(self, connection: Connection) -> None:
        self.kept = self.kept or connection.usable


def _closed_before(oldest: float, idle: list[Connection]) -> list[Connection]:
    """Close the connections that were last of use before then, and return the others."""
    for connection in idle:
        if connection.at <= oldest:
            connection.transport.abort()
    return [connection for connection in idle if connection.at > oldest]


class Wire(httpx.AsyncBaseTransport):
    """The connections of one event loop, as many as are asked for at once, by origin."""

    def __init__(
        self,
        *,
        tls: SSLContext,
        connect: float,
        read: float,
        max_body: int,
        keepalive: float,
        reached: Callable[[str], None] | None = None,
        resolve: Resolve | None = None,
        resolved: float = _RESOLVED,
    ) -> None:
        """Bound every exchange, times in seconds.

        `connect` is for name, TCP and TLS of one connection, `read` for silence in the middle, `keepalive` for how long
        an idle connection is used again; `max_body` bytes of an answer are read. `reached` is told how far an exchange
        is, in the words of `workers.failpoints`. `resolve` finds a name's addresses, good for `resolved`: connections
        are made to these and to no others.
        """
        self._resolve, self._resolved_for = resolve or _usual, resolved
        self._tls, self._connect_within, self._keepalive = tls, connect, keepalive
        self._read, self._max_body, self._reached = read, max_body, reached
        self._open: set[Connection] = set()
        self._rests: dict[Origin, Rest] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._resolving: dict[tuple[str, int], asyncio.Future[list[Any]]] = {}
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Write `request`, whose body is there, and return its answer once that is there, too.

        The times of the request's own extensions are not looked at.
        """
        url = request.url
        # A name with letters of its own in the form that is looked up.
        origin = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        used = self._take(origin)
        connection = used or await self._connect(origin)
        try:
            answer = await connection.ask(request.method, written(request), request.extensions.get(HEAD))
        except (Dropped, httpx.ReadError):
            if used is not None and origin in self._rests:
                self._rests[origin].doubt(self._keepalive / 2)
            raise
        self._give_back(origin, connection)
        return answer

    async def aclose(self) -> None:
        """Close all connections, used ones included."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for lookup in self._resolving.values():
            lookup.cancel()
        for connection in tuple(self._open):
            connection.transport.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL):
                while self._open:  # noqa: ASYNC110 - a turn of the loop or two, once in a process
                    await asyncio.sleep(0)

    def _take(self, origin: Origin) -> Connection | None:
        """Return an idle connection that may still be used. Only for one that is new it matters why it is not."""
        rest, oldest = self._rests.get(origin), asyncio.get_running_loop().time() - self._keepalive
        while rest is not None and rest.kept and rest.idle:
            connection = rest.idle.pop()
            if connection.usable and connection.at > oldest:
                return connection
            connection.transport.abort()
        return None

    def _give_back(self, origin: Origin, connection: Connection) -> None:
        if self._closed or not connection.usable:
            connection.transport.abort()
            return
        loop = asyncio.get_running_loop()
        rest = self._rests.get(origin)
        if rest is None:
            rest = self._rests[origin] = Rest(min(_PROOF, self._keepalive / 2))
        rest.take_in(connection, loop)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._keepalive, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for too long, and forget origins that nobody asked for in a long time."""
        loop = asyncio.get_running_loop()
        now, self._sweeping = loop.time(), None
        for rest in self._rests.values():
            rest.idle = _closed_before(now - self._keepalive, rest.idle)
        self._rests = {origin: rest for origin, rest in self._rests.items() if rest.at > now - _REMEMBERED}
        if self._rests:
            self._sweeping = loop.call_later(self._keepalive / 2, self._sweep)

    async def _connect(self, origin: Origin) -> Connection:
        """Make a connection. Raises `httpx.ConnectError`, its cause says why, or `httpx.ConnectTimeout`."""
        if self._reached is not None:
            self._reached("connect.before")
        try:
            async with asyncio.timeout(self._connect_within):
                connection = await self._made(*origin)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("") from error
        except OSError as error:
            raise httpx.ConnectError("") from error
        if self._reached is not None:
            self._reached("connect.after")
        if self._closed or not connection.usable:
            connection.transport.abort()
            raise Stale("")
        return connection

    async def _made(self, scheme: str, host: str, port: int) -> Connection:
        made = await start_connection(await self._addresses(host, port), happy_eyeballs_delay=_NEXT_ADDRESS)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._read, self._max_body, self._open, self._reached),
            sock=made,
            ssl=self._tls if scheme == "https" else None,
            server_hostname=host if scheme == "https" else None,
        )
        return connection

    async def _addresses(self, host: str, port: int) -> list[Any]:
        """Return the addresses of a name; those who ask at once share the look-up, also when some of them give up."""
        known = self._resolving.get((host, port))
        if known is None:
            known = asyncio.ensure_future(self._resolve(host, port))
            self._resolving[host, port] = known
            known.add_done_callback(lambda done: self._resolved(host, port, done))
        return await asyncio.shield(known)

    def _resolved(self, host: str, port: int, done: asyncio.Future[list[Any]]) -> None:
        good = not done.cancelled() and done.exception() is None
        if good and not self._closed and self._resolved_for:
            asyncio.get_running_loop().call_later(self._resolved_for, self._resolving.pop, (host, port), None)
        else:
            self._resolving.pop((host, port), None)


async def _usual(host: str, port: int) -> list[Any]:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)


def written(request: httpx.Request) -> bytes:
    """Return the bytes of a request."""
    body = b"".join(request.stream)  # type: ignore[arg-type]  # a stream of bytes that are there
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    if body or request.method not in {"GET", "HEAD", "DELETE"}:
        lines.append(b"Content-Length: %d" % len(body))
    lines += (b"", body)
    return b"\r\n".join(lines)
