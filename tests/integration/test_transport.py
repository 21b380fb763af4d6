"""The transport against real sockets that misbehave in every way: what it says, and how often it asked.

A server plays a script for each connection it gets: read a request, write bytes, close, reset, say nothing.
It counts what it read, so that "at most one request for one call" is seen where it matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import enum
import errno
import gc
import gzip
import ipaddress
import logging
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dispatcher.outcomes import Failure, FailureKind
from workers.providers.base import Request, Response
from workers.transport import Transport
from workers.wire import Connection, Rest

T = TypeVar("T")

NOT_SENT, AMBIGUOUS = FailureKind.NOT_SENT, FailureKind.AMBIGUOUS

#: In the URL, a header and the body of every request: none may be seen anywhere but at the server.
CANARIES = ("447700900123", "canary-token", "canary-body")


class Do(enum.Enum):
    """What a server does beside writing bytes."""

    READ = enum.auto()  # a whole request
    FIN = enum.auto()
    RST = enum.auto()
    HOLD = enum.auto()  # say nothing until the client closes
    PAUSE = enum.auto()
    DRIP = enum.auto()  # a byte now and then, without end
    AGAIN = enum.auto()  # the step before, without end
    STOP = enum.auto()  # accept no more connections


Script = Sequence[Do | bytes]


def answer(body: bytes = b"ok", status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", ""]).encode() + body


OK = b"HTTP/1.1 200 OK\r\n"
HEAD = OK + b"Content-Length: 1000\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Server:
    """Plays one script a connection, the last one again and again."""

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.scripts, self.tls = scripts, tls
        self.sock = bound()
        self.port = self.sock.getsockname()[1]
        self.connections = 0
        self.requests: list[bytes] = []
        self.received = 0
        self.changed = asyncio.Event()
        self.ended = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._play, sock=self.sock, ssl=self.tls, backlog=200)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self._tasks:  # what is on its way to the server counts as well
            await asyncio.wait(self._tasks, timeout=0.05)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}/send"

    def request(self, method: str = "POST", **changes: Any) -> Request:
        to, token, body = CANARIES
        fields: dict[str, Any] = {
            "method": method,
            "url": f"{self.url('https' if self.tls else 'http')}?to={to}",
            "headers": {"Authorization": f"Bearer {token}", "Content-Type": "text/plain"},
            "body": b"" if method == "GET" else body.encode(),
        }
        return Request(**{**fields, **changes})

    async def saw(self, requests: int) -> None:
        while len(self.requests) < requests:
            self.changed.clear()
            await self.changed.wait()

    async def left(self, connections: int) -> None:
        while self.ended < connections:
            self.changed.clear()
            await self.changed.wait()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            for number, step in enumerate(script):
                while step is Do.AGAIN:
                    await self._step(script[number - 1], reader, writer)
                await self._step(step, reader, writer)
            await self._drain(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.transport.abort()
            self.ended += 1
            self.changed.set()

    async def _step(self, step: Do | bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
            case Do.READ:
                await self._read(reader)
            case Do.FIN:
                writer.close()
                await asyncio.sleep(0.02)
            case Do.RST:
                await asyncio.sleep(0.02)  # let what was written arrive first
                reset(writer)
            case Do.HOLD:
                await self._drain(reader, writer)
            case Do.DRIP:
                while True:
                    writer.write(b".")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            case Do.PAUSE:
                await asyncio.sleep(0.02)
            case Do.STOP:
                self._server.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += len(head)
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        length = sum(int(value) for name, _, value in lines if name == b"content-length")
        self.requests.append(head + await reader.readexactly(length))
        self.changed.set()

    async def _drain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count what comes after the script: nothing ever should."""
        if not writer.is_closing():
            while more := await reader.read(1000):
                self.received += len(more)


def bound() -> socket.socket:
    """A socket that holds a port without listening: who connects is refused."""
    held = socket.socket(proto=socket.IPPROTO_TCP)  # named, or asyncio lets Nagle hold back what is written
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run one test's coroutine in asyncio's debug mode, and let go of what it left: that may log."""
    try:
        return asyncio.run(test, debug=True)
    finally:
        gc.collect(1)


async def no_wait(_: float) -> None:
    """A sleep that takes no time."""


@dataclass(frozen=True)
class Authority:
    """Who signs the certificate of the servers here: `server` shows it, `client` trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    pem.write_bytes(certificate())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Authority(server, ssl.create_default_context(cafile=pem))


def certificate() -> bytes:
    """A key and its own certificate, good for 127.0.0.1 and for no name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        builder.not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8, plain = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key.private_bytes(pem, pkcs8, plain) + signed.public_bytes(pem)


# After a connection was made: whatever goes wrong, the request may have been processed.


@dataclass(frozen=True)
class Fault:
    script: Script
    code: str
    options: dict[str, Any] = field(default_factory=dict)


PATIENT = {"deadline": 1.2, "connect": 1.19}
SHORT = {"max_body": 1000}

FAULTS = {
    "drop after the request was read": Fault([Do.READ, Do.FIN], "dropped"),
    "reset after the request was read": Fault([Do.READ, Do.RST], "reset"),
    "half a status line, then close": Fault([Do.READ, b"HTTP/1.1 20", Do.FIN], "dropped"),
    "half the headers, then close": Fault([Do.READ, HEAD[:-2], Do.FIN], "dropped"),
    "half the headers, then reset": Fault([Do.READ, HEAD[:-2], Do.RST], "reset"),
    "half the body, then close": Fault([Do.READ, HEAD, b"{", Do.FIN], "broken_off"),
    "half the body, then reset": Fault([Do.READ, HEAD, b"{", Do.RST], "broken_off"),
    "half a chunk, then close": Fault([Do.READ, CHUNKED, b"a\r\n{", Do.FIN], "broken_off"),
    "no last chunk, then close": Fault([Do.READ, CHUNKED, b"1\r\n{\r\n", Do.FIN], "broken_off"),
    "a garbage chunk": Fault([Do.READ, CHUNKED + b"zz\r\n{\r\n", Do.HOLD], "garbled"),
    # Here aiohttp's parser in C forgets both the body and the read timeout: only the deadline ends the call.
    "a garbage chunk later": Fault(
        [Do.READ, CHUNKED, Do.PAUSE, b"zz\r\n{\r\n", Do.HOLD], "garbled or deadline", PATIENT
    ),
    "a garbage status line": Fault([Do.READ, b"+OK sent\r\n\r\n", Do.HOLD], "garbled"),
    "a garbage length": Fault([Do.READ, OK + b"Content-Length: x\r\n\r\n", Do.HOLD], "garbled"),
    "interim answers without end": Fault([Do.READ, b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000, Do.HOLD], "garbled"),
    "another protocol": Fault([Do.READ, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Do.HOLD], "garbled"),
    "two lengths": Fault([Do.READ, OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", Do.HOLD], "garbled"),
    "a header without end": Fault([Do.READ, OK + b"X: " + b"x" * 70_000, Do.HOLD], "garbled"),
    "headers without end": Fault([Do.READ, OK + b"X: x\r\n" * 70_000, Do.HOLD], "garbled"),
    "silence": Fault([Do.READ, Do.HOLD], "read_timeout", {"read": 0.1}),
    "silence after the headers": Fault([Do.READ, HEAD, Do.HOLD], "read_timeout", {"read": 0.1}),
    "silence until the deadline": Fault([Do.READ, Do.HOLD], "deadline", PATIENT),
    "a slow drip": Fault([Do.READ, HEAD, Do.DRIP], "deadline", PATIENT),
    "an answer that is too long": Fault([Do.READ, answer(b"x" * 1001)], "oversize", SHORT),
    "chunks without end": Fault([Do.READ, CHUNKED, b"200\r\n" + b"x" * 512 + b"\r\n", Do.AGAIN], "oversize", SHORT),
    "an answer without end": Fault([Do.READ, OK + b"\r\n", b"x" * 500, Do.AGAIN], "oversize", SHORT),
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_what_fails_after_connecting_is_ambiguous_and_was_asked_once(
    fault: Fault, method: str, secure: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> Response | Failure:
        async with (
            Server(fault.script, tls=authority.server if secure else None) as server,
            Transport(tls=authority.client, sleep=no_wait, **fault.options) as transport,
        ):
            outcome = await transport.send(server.request(method))
            await asyncio.sleep(0.01)  # time for a second request, were there one
            assert len(server.requests) == 1
            return outcome

    with caplog.at_level(logging.DEBUG):
        outcome = run(scene())
    assert isinstance(outcome, Failure)
    assert outcome.kind is AMBIGUOUS
    assert outcome.code in fault.code.split(" or ")
    assert_private(outcome, caplog)


UNREAD: dict[str, Script] = {
    "close": [Do.FIN],
    "reset": [Do.RST],
    "an answer, then close": [answer(), Do.FIN],
    "an answer, then silence": [answer(), Do.HOLD],
    "garbage, then close": [b"\x15\x03", Do.FIN],
}


@pytest.mark.parametrize("script", UNREAD.values(), ids=UNREAD.keys())
def test_a_server_that_does_not_read_first_is_told_about_truly(script: Script) -> None:
    """Either side may be faster, so outcomes vary; "not sent" must be true of what the server got."""

    async def scene() -> tuple[Response | Failure, Server]:
        async with Server(script) as server, Transport(sleep=no_wait) as transport:
            outcome = await transport.send(server.request())
        return outcome, server

    outcome, server = run(scene())
    if isinstance(outcome, Failure) and outcome.kind is NOT_SENT:
        assert (outcome.code, server.received, server.connections) == ("stale_connection", 0, 3)
    else:
        assert not isinstance(outcome, Failure) or outcome.kind is AMBIGUOUS
        assert server.connections <= 3


# Whole answers come back as they are.

WHOLE = {
    "200": ([answer(b'{"id": 1}')], 200, b'{"id": 1}'),
    "204": ([OK.replace(b"200 OK", b"204 No Content") + b"\r\n"], 204, b""),
    "302, not followed": ([answer(b"", "302 Found", "Location: /elsewhere")], 302, b""),
    "307, not followed": ([answer(b"", "307 Temporary Redirect", "Location: /elsewhere")], 307, b""),
    "401": ([answer(b"no", "401 Unauthorized", "WWW-Authenticate: Basic")], 401, b"no"),
    "404": ([answer(b"no", "404 Not Found")], 404, b"no"),
    "429": ([answer(b"", "429 Too Many Requests", "Retry-After: 7")], 429, b""),
    "500": ([answer(b"oops", "500 Internal Server Error")], 500, b"oops"),
    "503": ([answer(b"", "503 Service Unavailable")], 503, b""),
    "a status of its own": ([answer(b"", "599 What")], 599, b""),
    "chunked": ([CHUNKED, b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"], 200, b"abc"),
    "until close": ([OK + b"\r\n", b"ab", b"c", Do.FIN], 200, b"abc"),
    "until close, by its encoding": ([OK + b"Transfer-Encoding: identity\r\n\r\n", b"abc", Do.FIN], 200, b"abc"),
    "with trailers": ([CHUNKED, b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"], 200, b"a"),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\n\r\nabc", Do.FIN], 200, b"abc"),
    "a folded header": ([OK + b"X-One: a\r\n b\r\nContent-Length: 3\r\n\r\nabc"], 200, b"abc"),
    "lines without CR": ([b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"], 200, b"abc"),
    "after 103 Early Hints": ([b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n", answer()], 200, b"ok"),
    "byte by byte": ([bytes([byte]) for byte in answer(b"abc")], 200, b"abc"),
    "after 100 Continue": ([b"HTTP/1.1 100 Continue\r\n\r\n", answer()], 200, b"ok"),
    "as long as may be": ([answer(b"x" * (1 << 20))], 200, b"x" * (1 << 20)),
}


@pytest.mark.parametrize(("script", "status", "body"), WHOLE.values(), ids=WHOLE.keys())
def test_a_whole_answer_of_any_status_is_returned(
    script: Script, status: int, body: bytes, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> Response | Failure:
        async with (
            Server([Do.READ, *script], tls=authority.server) as server,
            Transport(tls=authority.client) as transport,
        ):
            outcome = await transport.send(server.request())
            assert len(server.requests) == 1
            return outcome

    with caplog.at_level(logging.DEBUG):
        outcome = run(scene())
    assert isinstance(outcome, Response)
    assert (outcome.status, outcome.body) == (status, body)
    assert_private(outcome, caplog)


def test_header_names_come_back_in_lower_case_and_repeated_ones_joined() -> None:
    script: Script = [Do.READ, answer(b"", "429 Slow", "Retry-After: 7", "X-One: a", "x-one: b")]
    outcome = run(one(script))
    assert isinstance(outcome, Response)
    assert outcome.retry_after() == 7
    assert outcome.headers["x-one"] == "a, b"


def test_an_answer_that_says_when_to_come_again_says_when_it_came() -> None:
    """By a date that counts from its own, which some servers leave out."""
    until = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=20), usegmt=True)
    outcome = run(one([Do.READ, answer(b"", "429 Slow", f"Retry-After: {until}")]))
    assert isinstance(outcome, Response)
    assert 600 < (outcome.retry_after() or 0) <= 1200


def test_a_packed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    outcome = run(one([Do.READ, answer(bomb, "200 OK", "Content-Encoding: gzip")], max_body=20_000))
    assert isinstance(outcome, Response)
    assert outcome.body == bomb


async def one(script: Script, **options: Any) -> Response | Failure:
    """What a request to a server with this script gives."""
    async with Server(script) as server, Transport(sleep=no_wait, **options) as transport:
        return await transport.send(server.request())


# No connection: surely not sent.


def test_a_refused_connection_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> Response | Failure:
        server = Server([])  # has its port, does not listen
        with server.sock:
            async with Transport(sleep=no_wait) as transport:
                return await transport.send(server.request())

    with caplog.at_level(logging.DEBUG):
        outcome = run(scene())
    assert_not_sent(outcome, "connect_refused")
    assert_private(outcome, caplog)


def test_a_name_that_does_not_resolve_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(host: str, *_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"no such name: {host}")

    monkeypatch.setattr(socket, "getaddrinfo", fails)  # a real look-up would take as long as it likes
    assert_not_sent(run(tried("http://provider.invalid/")), "dns")


def test_a_name_server_that_says_nothing_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(5) and [])

    async def scene() -> Response | Failure:
        try:
            return await tried("http://provider.invalid/", connect=0.05)
        finally:
            answered.set()

    assert_not_sent(run(scene()), "connect_timeout")


def test_tls_with_a_server_that_speaks_none_is_not_sent() -> None:
    async def scene() -> Response | Failure:
        async with Server([b"HTTP/1.1 400 Bad Request\r\n\r\n", Do.FIN]) as server:
            outcome = await tried(server.url("https"))
            assert server.connections == 1, "nobody is asked again before a certificate is changed"
            return outcome

    assert_not_sent(run(scene()), "tls")


def test_a_reset_in_the_tls_handshake_is_not_sent() -> None:
    async def scene() -> Response | Failure:
        async with Server([Do.RST]) as server:
            return await tried(server.url("https"))

    assert_not_sent(run(scene()), "connect_failed")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_that_may_not_be_trusted_is_not_sent(host: str, authority: Authority) -> None:
    """The address has an unknown signer by default; the name is not in the certificate."""
    trusted = {"tls": authority.client} if host == "localhost" else {}

    async def scene() -> Response | Failure:
        async with Server([Do.READ, answer()], tls=authority.server) as server:
            outcome = await tried(server.url("https").replace("127.0.0.1", host), **trusted)
            assert server.requests == []
            return outcome

    assert_not_sent(run(scene()), "tls")


def test_a_tls_handshake_without_an_answer_is_a_connect_timeout() -> None:
    async def scene() -> Response | Failure:
        async with Server([Do.HOLD]) as server:
            return await tried(server.url("https"), connect=0.1)

    assert_not_sent(run(scene()), "connect_timeout")


def test_a_full_backlog_is_a_connect_timeout() -> None:
    async def scene() -> Response | Failure:
        loop = asyncio.get_running_loop()
        with bound() as full, contextlib.ExitStack() as others:
            full.listen(0)
            for _ in range(4):  # nobody accepts: the first fills the queue, the others' SYNs are dropped
                other = others.enter_context(socket.socket())
                other.setblocking(False)
                others.callback(asyncio.ensure_future(loop.sock_connect(other, full.getsockname())).cancel)
            await asyncio.sleep(0.01)
            return await tried(f"http://127.0.0.1:{full.getsockname()[1]}/", connect=0.1)

    assert_not_sent(run(scene()), "connect_timeout")


UNSENDABLE: dict[str, dict[str, Any]] = {
    "a password in the URL": {"url": "https://user:secret@127.0.0.1/"},
    "a user in the URL": {"url": "https://user@127.0.0.1/"},
    "no scheme": {"url": "127.0.0.1/send"},
    "another scheme": {"url": "file:///etc/passwd"},
    "no host": {"url": "http:///send"},
    "no port number": {"url": "http://127.0.0.1:x/"},
    "a control character in the URL": {"url": "http://127.0.0.1/\n"},
    "a line end in a header, as files of secrets have": {"headers": {"Authorization": "Bearer secret\n"}},
    "a header in a header": {"headers": {"X": "a\r\nY: b"}},
    "a header that is no ASCII": {"headers": {"X": "é"}},
    "a line end in the method": {"method": "GET / HTTP/1.1\r\nX:"},
    "a space in a header's name": {"headers": {"X Y": "a"}},
    "a length of its own": {"headers": {"Content-Length": "1"}},
    "chunks of its own": {"headers": {"transfer-encoding": "chunked"}},
}


@pytest.mark.parametrize("changes", UNSENDABLE.values(), ids=UNSENDABLE.keys())
def test_what_is_no_request_is_not_sent(changes: dict[str, Any]) -> None:
    async def scene() -> Response | Failure:
        async with Server([Do.READ, answer()]) as server, Transport() as transport:
            outcome = await transport.send(server.request(**changes))
            assert server.connections == 0
            return outcome

    outcome = run(scene())
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.code) == (FailureKind.INTERNAL, "unsendable")


def test_a_closed_transport_sends_nothing() -> None:
    async def scene() -> Response | Failure:
        async with Server([Do.READ, answer()]) as server:
            async with Transport() as transport:
                pass
            return await transport.send(server.request())

    assert_not_sent(run(scene()), "closed")


def test_connect_must_fit_into_the_deadline() -> None:
    with pytest.raises(ValueError, match="connect must be shorter than deadline"):
        Transport(connect=3, deadline=3)


async def tried(url: str, **options: Any) -> Response | Failure:
    async with Transport(sleep=no_wait, **options) as transport:
        return await transport.send(Request(method="POST", url=url, body=b"x"))


def assert_not_sent(outcome: Response | Failure, code: str) -> None:
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.code) == (NOT_SENT, code)


# Extra tries, only where there was no connection.


@pytest.mark.parametrize("refused", [1, 2])
def test_a_connection_refused_at_first_is_tried_again(refused: int) -> None:
    async def scene() -> tuple[Response | Failure, list[float], Server]:
        waits: list[float] = []
        server = Server([Do.READ, answer()])

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == refused:
                await server.__aenter__()

        async with Transport(sleep=sleep) as transport:
            outcome = await transport.send(server.request())
        await server.__aexit__()
        return outcome, waits, server

    outcome, waits, server = run(scene())
    assert isinstance(outcome, Response)
    assert len(server.requests) == 1
    assert len(waits) == refused
    assert all(0.05 <= wait <= 0.4 for wait in waits)


@pytest.mark.parametrize(("extra", "budget", "tries"), [(2, 30.0, 3), (0, 30.0, 1), (5, 30.0, 6), (2, 0.21, 1)])
def test_tries_end_with_their_number_or_before_a_connect_would_pass_the_deadline(
    extra: int, budget: float, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    async def refused(loop: object, sock: object, address: object) -> None:
        made.append(address)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refused)
    outcome = run(tried("http://127.0.0.1:9/", retry_connect=extra, deadline=budget, connect=0.2))
    assert_not_sent(outcome, "connect_refused")
    assert len(made) == tries


# One call is one request, on a reused connection as well.


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("end", [Do.FIN, Do.RST])
@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD", "PUT", "POST"])
def test_a_request_on_a_reused_connection_that_drops_is_not_repeated(method: str, end: Do) -> None:
    """By itself aiohttp repeats all but POST on another connection: the server would see three."""

    async def scene() -> None:
        async with (
            Server([Do.READ, answer(), Do.READ, end], [Do.READ, answer()]) as server,
            Transport() as transport,
        ):
            assert isinstance(await transport.send(server.request()), Response)
            outcome = await transport.send(server.request(method))
            assert isinstance(outcome, Failure)
            assert outcome.kind is AMBIGUOUS
            assert outcome.code == ("dropped" if end is Do.FIN else "reset")
            await asyncio.sleep(0.02)
            assert (server.connections, len(server.requests)) == (1, 2)

    run(scene())


@pytest.mark.usefixtures("trusting")
def test_a_dropped_request_is_ambiguous_though_the_next_connection_would_be_refused() -> None:
    """Repeated silently, the second try's "refused" would be reported of a request that was read."""

    async def scene() -> Response | Failure:
        async with Server([Do.READ, answer(), Do.READ, Do.STOP, Do.FIN]) as server, Transport() as transport:
            await transport.send(server.request())
            return await transport.send(server.request("GET"))

    outcome = run(scene())
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.code) == (AMBIGUOUS, "dropped")


@pytest.mark.usefixtures("trusting")
def test_an_answer_nobody_asked_for_is_not_the_next_requests_answer() -> None:
    async def scene() -> None:
        unasked: Script = [Do.READ, answer(b"first"), Do.PAUSE, answer(b"unasked", "408 Request Timeout"), Do.HOLD]
        async with (
            Server(unasked, [Do.READ, answer(b"second")]) as server,
            Transport(sleep=no_wait) as transport,
        ):
            await transport.send(server.request())
            await server.left(1)
            outcome = await transport.send(server.request())
            assert isinstance(outcome, Response)
            assert outcome.body == b"second"
            assert len(server.requests) == 2

    run(scene())


def test_on_a_new_connection_where_the_server_spoke_first_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []
    usual = Connection.connection_made

    def connection_made(connection: Connection, transport: asyncio.BaseTransport) -> None:
        usual(connection, transport)
        made.append(connection)
        if len(made) <= 2:
            connection.data_received(b"\0")

    monkeypatch.setattr(Connection, "connection_made", connection_made)

    async def scene() -> None:
        async with Server([Do.READ, answer()]) as server, Transport(sleep=no_wait) as transport:
            assert isinstance(await transport.send(server.request()), Response)
            assert len(server.requests) == 1
            assert server.received == len(server.requests[0]) - len(CANARIES[2])

    run(scene())
    assert len(made) == 3


@pytest.mark.usefixtures("trusting")
def test_a_connection_closed_while_idle_costs_nothing() -> None:
    async def scene() -> None:
        async with Server([Do.READ, answer(), Do.FIN]) as server, Transport() as transport:
            for closed in range(1, 4):
                assert isinstance(await transport.send(server.request()), Response)
                await server.left(closed)
            assert (server.connections, len(server.requests)) == (3, 3)

    run(scene())


#: Closed after each answer, without a word of it, at once or a little later: as the answer's own head should say.
HASTY: dict[str, Script] = {"at once": [Do.READ, answer(), Do.FIN], "later": [Do.READ, answer(), Do.PAUSE, Do.FIN]}


@pytest.mark.parametrize("at_once", [1, 20])
@pytest.mark.parametrize("script", HASTY.values(), ids=HASTY.keys())
def test_a_server_that_closes_after_each_answer_without_a_word_loses_no_request(
    script: Script, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written on a connection that is just being closed is in doubt: half of all, were it used again."""
    monkeypatch.setattr("workers.wire._PROOF", 2.0)  # a busy machine closes late

    async def scene() -> None:
        async with Server(script) as server, Transport() as transport:

            async def some() -> None:
                for _ in range(10):
                    assert isinstance(await transport.send(server.request()), Response)

            await asyncio.gather(*(some() for _ in range(at_once)))
            assert (server.connections, len(server.requests)) == (10 * at_once, 10 * at_once)

    run(scene())


def test_connections_are_used_again_once_one_was_seen_to_stay_open() -> None:
    async def scene() -> None:
        async with Server([Do.READ, answer()] * 100) as server, Transport() as transport:
            while server.connections == len(server.requests):
                assert isinstance(await transport.send(server.request()), Response)
                await asyncio.sleep(0.005)
            before = server.connections
            for _ in range(10):
                assert isinstance(await transport.send(server.request()), Response)
            assert server.connections == before

    run(scene())


def test_after_one_that_was_used_again_was_closed_another_proof_is_asked_for() -> None:
    """Each takes twice as long as the last, so that a server which closes after a while loses few requests."""

    async def scene() -> None:
        script: Script = [Do.READ, answer(), Do.READ, answer(), Do.READ, Do.FIN]
        async with Server(script) as server, Transport() as transport:
            rests: dict[Any, Rest] = transport._http._rests  # type: ignore[attr-defined]

            async def proven() -> None:
                while not all(rest.kept for rest in rests.values()):  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.01)

            await transport.send(server.request())
            (rest,) = rests.values()
            for proof in (0.1, 0.2, 0.4):
                assert rest.proof == proof
                await proven()
                await transport.send(server.request())
                assert isinstance(await transport.send(server.request()), Failure)
                assert isinstance(await transport.send(server.request()), Response)
                assert not rest.kept

    run(scene())


UNWANTED: dict[str, Script] = {
    "it says so": [Do.READ, answer(b"first", "200 OK", "Connection: close"), Do.READ, answer(b"wrong")],
    "it says more than it was asked": [Do.READ, answer(b"first") + answer(b"wrong"), Do.HOLD],
    "garbage follows its answer": [Do.READ, answer(b"first") + b"garbage", Do.HOLD],
    "it is of HTTP/1.0": [Do.READ, b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nfirst", Do.READ, answer(b"wrong")],
}


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("script", UNWANTED.values(), ids=UNWANTED.keys())
def test_a_connection_is_not_used_again_where(script: Script) -> None:
    async def scene() -> None:
        async with Server(script, [Do.READ, answer(b"second")]) as server, Transport(sleep=no_wait) as transport:
            bodies = []
            for _ in range(2):
                outcome = await transport.send(server.request())
                assert isinstance(outcome, Response)
                bodies.append(outcome.body)
            assert bodies == [b"first", b"second"]
            assert (server.connections, len(server.requests)) == (2, 2)

    run(scene())


@pytest.mark.usefixtures("trusting")
def test_an_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    async def scene() -> None:
        async with Server([Do.READ, HEAD, Do.HOLD], [Do.READ, answer()]) as server, Transport() as transport:
            outcome = await transport.send(server.request("HEAD"))
            assert isinstance(outcome, Response)
            assert (outcome.status, outcome.body) == (200, b"")
            assert isinstance(await transport.send(server.request()), Response)
            assert server.connections == 2

    run(scene())


@pytest.mark.usefixtures("trusting")
def test_silence_is_noticed_on_a_reused_connection_too() -> None:
    async def scene() -> Response | Failure:
        async with Server([Do.READ, answer(), Do.READ, Do.HOLD]) as server, Transport(read=0.1) as transport:
            assert isinstance(await transport.send(server.request()), Response)
            return await transport.send(server.request())

    outcome = run(scene())
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.code) == (AMBIGUOUS, "read_timeout")


@pytest.mark.usefixtures("trusting")
def test_a_connection_that_was_idle_for_too_long_is_closed_and_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.transport._KEEPALIVE", 0.02)

    async def scene() -> None:
        async with Server([Do.READ, answer()]) as server, Transport() as transport:
            assert isinstance(await transport.send(server.request()), Response)
            await server.left(1)
            assert isinstance(await transport.send(server.request()), Response)
            assert server.connections == 2

    run(scene())


def test_many_who_ask_at_once_share_the_look_up_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    usual = socket.getaddrinfo

    def counting(host: str, *options: Any, **named: Any) -> Any:
        asked.append(host)
        return usual("127.0.0.1", *options, **named)

    monkeypatch.setattr(socket, "getaddrinfo", counting)

    async def scene() -> None:
        async with Server([Do.READ, answer()]) as server, Transport() as transport:
            url = server.url().replace("127.0.0.1", "provider.invalid")
            first = asyncio.create_task(transport.send(server.request(url=url)))
            await asyncio.sleep(0)
            first.cancel()  # who gives up takes it from nobody
            others = await asyncio.gather(*(transport.send(server.request(url=url)) for _ in range(20)))
            assert {type(one) for one in others} == {Response}

    run(scene())
    assert asked == ["provider.invalid"]


def test_each_request_has_its_own_headers_though_their_shape_is_remembered() -> None:
    async def scene() -> list[bytes]:
        async with Server([Do.READ, answer()] * 4) as server, Transport() as transport:
            for token in ("one", "two", "one", "two"):
                await transport.send(server.request(headers={"X-Token": token}, body=token.encode()))
            return server.requests

    for request, token in zip(run(scene()), [b"one", b"two"] * 2, strict=True):
        assert b"X-Token: %b\r\n" % token in request
        assert request.endswith(b"\r\n\r\n" + token)


@pytest.mark.usefixtures("trusting")
def test_connections_are_reused() -> None:
    async def scene() -> None:
        async with Server([Do.READ, answer()] * 5) as server, Transport() as transport:
            for _ in range(5):
                assert isinstance(await transport.send(server.request()), Response)
            assert (server.connections, len(server.requests)) == (1, 5)

    run(scene())


# Cancelling.


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("script", [[Do.READ, Do.HOLD], [Do.READ, HEAD, Do.HOLD]], ids=["waiting", "reading"])
def test_a_cancelled_call_raises_and_its_connection_is_not_used_again(script: Script) -> None:
    async def scene() -> None:
        async with Server(script, [Do.READ, answer(b"second")]) as server, Transport() as transport:
            call = asyncio.create_task(transport.send(server.request()))
            await server.saw(1)
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.left(1)
            outcome = await transport.send(server.request())
            assert isinstance(outcome, Response)
            assert outcome.body == b"second"
            assert (server.connections, len(server.requests)) == (2, 2)

    run(scene())


def test_a_call_cancelled_while_it_waits_for_its_next_try_raises() -> None:
    async def scene() -> None:
        waiting = asyncio.Event()

        async def sleep(_: float) -> None:
            waiting.set()
            await asyncio.Event().wait()

        with bound() as held:
            async with Transport(sleep=sleep) as transport:
                url = f"http://127.0.0.1:{held.getsockname()[1]}/"
                call = asyncio.create_task(transport.send(Request(method="GET", url=url)))
                await waiting.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call

    run(scene())


def test_closing_makes_what_is_on_the_wire_ambiguous() -> None:
    async def scene() -> Response | Failure:
        async with Server([Do.READ, Do.HOLD]) as server, Transport() as transport:
            call = asyncio.create_task(transport.send(server.request()))
            await server.saw(1)
            await transport.aclose()
            return await call

    outcome = run(scene())
    assert isinstance(outcome, Failure)
    assert outcome.kind is AMBIGUOUS


# Many at once.


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize(("at_once", "calls"), [(10, 300), (100, 100)])
def test_no_call_waits_for_a_connection(at_once: int, calls: int) -> None:
    """Who calls bounds them. A wait in `send` could end as a connection that was not made in time."""

    async def scene() -> None:
        script: Script = [Do.READ, Do.PAUSE, answer()] * calls
        places = asyncio.Semaphore(at_once)
        async with Server(script) as server, Transport(retry_connect=0) as transport:

            async def call() -> Response | Failure:
                async with places:
                    return await transport.send(server.request())

            outcomes = await asyncio.gather(*(call() for _ in range(calls)))
            assert {type(outcome) for outcome in outcomes} == {Response}
            assert len(server.requests) == calls
            assert server.connections == at_once

    asyncio.run(scene())  # without the debug mode, which is slow


# What is on the wire, and what is not.


def test_the_request_arrives_as_it_was_built() -> None:
    async def scene() -> bytes:
        async with Server([Do.READ, answer()]) as server, Transport() as transport:
            body = b"\x00\xff=&" * 100
            await transport.send(server.request(headers={"X-Api-Key": "k: é".encode().hex()}, body=body))
            assert server.requests[0].endswith(b"\r\n\r\n" + body)
            return server.requests[0].removesuffix(body)

    first, *headers = run(scene()).decode().lower().strip().split("\r\n")
    names = sorted(header.partition(":")[0] for header in headers)
    assert first == f"post /send?to={CANARIES[0]} http/1.1"
    assert names == ["accept", "accept-encoding", "content-length", "host", "user-agent", "x-api-key"]
    assert "accept-encoding: identity" in headers
    assert any(header.startswith("user-agent: dispatcher") for header in headers)


@pytest.mark.parametrize(
    ("method", "body", "told"),
    [("GET", b"", None), ("DELETE", b"", None), ("POST", b"", b"0"), ("PUT", b"", b"0"), ("DELETE", b"abc", b"3")],
)
def test_a_request_tells_how_long_its_body_is(method: str, body: bytes, told: bytes | None) -> None:
    async def scene() -> list[bytes]:
        async with Server([Do.READ, answer()]) as server, Transport() as transport:
            await transport.send(server.request(method, body=body))
            return server.requests

    (request,) = run(scene())
    lengths = [line.partition(b": ")[2] for line in request.split(b"\r\n") if line.startswith(b"Content-Length")]
    assert lengths == ([] if told is None else [told])


@pytest.mark.parametrize("quote", [urllib.parse.quote, urllib.parse.quote_plus])
def test_parameters_in_a_url_mean_the_same_after_it_was_quoted_anew(quote: Any) -> None:
    """Both httpx and aiohttp rewrite a URL (`%7E` becomes `~`), but no parameter may change."""
    values = [
        "".join(map(chr, range(1, 128))),
        "ÄÖÜ €\u2028 😀",
        "+44 7700 900123",
        "a%2Bb%26c=d",
        "100% & more; ok?#",
    ]
    query = "&".join(f"p{number}={quote(value, safe='')}" for number, value in enumerate(values))

    async def scene() -> bytes:
        async with Server([Do.READ, answer()]) as server, Transport() as transport:
            await transport.send(server.request("GET", url=f"{server.url()}?{query}"))
            return server.requests[0]

    target = run(scene()).split(b" ")[1].decode("ascii")
    assert [value for _, value in urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query)] == values


def test_the_environment_and_earlier_answers_add_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(netrc))

    async def scene() -> list[bytes]:
        greedy: Script = [Do.READ, answer(b"", "200 OK", "Set-Cookie: session=1; Path=/")]
        async with Server([*greedy, *greedy]) as server, Transport() as transport:
            for _ in range(2):
                assert isinstance(await transport.send(server.request(headers={})), Response)
            return server.requests

    first, second = run(scene())
    assert first == second
    assert b"authorization" not in first.lower()


def test_the_applications_own_httpx_still_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was switched off for everybody; and this is the line that the tests above look for in vain."""

    async def scene() -> None:
        await one([Do.READ, answer()])
        async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
            await client.get("http://application.invalid/?to=447700900123")

    with caplog.at_level(logging.DEBUG):
        run(scene())
    assert [record.name for record in caplog.records if CANARIES[0] in record.getMessage()] == ["httpx"]


def assert_private(outcome: object, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the outcome nor any log line, at DEBUG, holds a number, a credential or a text."""
    said = repr(outcome) + caplog.text + repr([vars(record) for record in caplog.records])
    assert [canary for canary in CANARIES if canary in said] == []
