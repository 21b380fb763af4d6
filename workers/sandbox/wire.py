"""One HTTP/1.1 connection of the sandbox: an asyncio protocol, since faults need the connection in hand.

It reads requests and ends each in the way it is told. One is worked on at a time, so that answers to
pipelined requests keep their order.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote

import httptools
import msgspec

from workers.sandbox.base import Answer, Request
from workers.sandbox.faults import Wire

#: Bytes of a request's body that are read at most; a list of 100,000 numbers takes 1.6 million.
LARGEST_BODY: Final = 16 * 1024 * 1024
#: Requests of a connection that may wait for the one before them until no more are read.
MOST_WAITING: Final = 64

#: SO_LINGER, on, for 0 seconds: closing resets the connection.
_RESETS = struct.pack("ii", 1, 0)
_GARBAGE = b"\x15\x03\x01 this is no answer of any web server\r\n\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Ending(msgspec.Struct, frozen=True):
    """How a request ends."""

    answer: Answer
    wire: Wire = "answer"
    #: Seconds until then.
    delay: float = 0.0
    #: What must have been done before, if anything.
    first: asyncio.Future[Any] | None = None
    #: Called when the request is not worked on any more, in whatever way that ends. A request that has it takes a round
    #: of the loop at least, so that what comes at the same moment counts as coming at the same moment.
    done: Callable[[], None] | None = None


class Connection(asyncio.Protocol):
    """A client's connection; `play` says how each request ends, and may do it at once."""

    def __init__(
        self,
        play: Callable[[Request], Ending],
        connections: set[Connection],
        late: Callable[[Request], float] = lambda _: 0.0,
    ) -> None:
        """Join `connections` for as long as the connection lasts; `late` says how long each request is under way."""
        self._play = play
        self._late = late
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        #: A request is being worked on.
        self._busy = False
        #: One more answer, and it ends.
        self._leaving = False
        #: The client doesn't read what it asked for.
        self._full = False
        #: What is answered, before closing, to bytes that can't be read.
        self._unreadable: Answer | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: To be called when the request is not worked on any more.
        self._done: Callable[[], None] | None = None

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it makes no difference why
        """Forget what was still to be answered."""
        self._connections.discard(self)
        self._waiting.clear()
        if self._timer:
            self._timer.cancel()
        self._finish()

    def data_received(self, data: bytes) -> None:
        """Read on: whole requests are answered in turn."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._unreadable = self._unreadable or _refusal(HTTPStatus.BAD_REQUEST)
        self._proceed()

    def pause_writing(self) -> None:
        """Answer no more until the client has read some."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on answering."""
        self._full = False
        self._proceed()

    # What httptools tells

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body, unless it grows beyond all measure."""
        self._size += len(body)
        if self._size <= LARGEST_BODY:
            self._body.append(body)
        else:
            self._unreadable = _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def on_message_complete(self) -> None:
        """Put the request in line; what follows something unreadable is not looked at."""
        if self._unreadable:
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        request = Request(
            method=self._parser.get_method().decode(),
            path=unquote(path),
            query=query,
            headers=self._headers,
            body=b"".join(self._body),
        )
        self._waiting.append((request, self._parser.should_keep_alive()))

    # What is done

    def abort(self) -> None:
        """End the connection, whatever is on it."""
        self._transport.abort()

    def leave(self) -> None:
        """End the connection with the next answer, so that what is under way is not left without one."""
        self._leaving = True

    def abort_idle(self) -> None:
        """End the connection at once unless something is being worked on."""
        if not self._busy:
            self.abort()

    def _proceed(self) -> None:
        """Work on requests until one takes time, and read no more than is worked on."""
        while self._waiting and not (self._busy or self._full or self._transport.is_closing()):
            request, keep = self._waiting.popleft()
            if late := self._late(request):
                self._busy = True
                asyncio.get_running_loop().call_later(late, self._arrive, request, keep)
            else:
                self._take(request, keep=keep)
        if self._unreadable and not (self._waiting or self._busy or self._transport.is_closing()):
            self._transport.write(_written(self._unreadable, keep=False))
            self._transport.close()
        if self._unreadable or len(self._waiting) >= MOST_WAITING:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _arrive(self, request: Request, keep: bool) -> None:  # noqa: FBT001 - a timer's call
        """Take a request that was under way, also where its client is gone by now: what is sent arrives."""
        self._busy = False
        self._take(request, keep=keep)
        self._proceed()

    def _take(self, request: Request, *, keep: bool) -> None:
        ending = self._play(request)
        self._done = ending.done
        if self._transport.is_closing():
            self._finish()
        elif ending.first:
            self._busy = True
            ending.first.add_done_callback(partial(self._first_is_done, ending, request, keep))
        elif ending.delay or ending.done:
            self._hold_back(ending, request, keep)
        else:
            self._end(ending, request, keep=keep)

    def _first_is_done(self, ending: Ending, request: Request, keep: bool, _: object) -> None:  # noqa: FBT001 - same
        if not self._transport.is_closing():
            self._hold_back(ending, request, keep)

    def _hold_back(self, ending: Ending, request: Request, keep: bool) -> None:  # noqa: FBT001 - as below
        self._busy = True
        self._timer = asyncio.get_running_loop().call_later(ending.delay, self._end_late, ending, request, keep)

    def _end_late(self, ending: Ending, request: Request, keep: bool) -> None:  # noqa: FBT001 - a timer's call
        self._busy = False
        self._end(ending, request, keep=keep)
        self._proceed()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done:
            done()

    def _end(self, ending: Ending, request: Request, *, keep: bool) -> None:
        transport, keep = self._transport, keep and not self._leaving
        if ending.wire != "hang":
            self._finish()
        if ending.wire == "answer":
            transport.write(_written(ending.answer, keep=keep, head_only=request.method == "HEAD"))
            if not keep:
                transport.close()
        elif ending.wire == "hang":
            self._busy = True
        elif ending.wire == "reset":
            connected: socket.socket = transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESETS)
            transport.abort()
        else:
            transport.write(_debris(ending))
            transport.close()


def _debris(ending: Ending) -> bytes:
    """Return what the client gets before its connection is closed on it."""
    if ending.wire == "half":
        whole = _written(ending.answer, keep=True)
        return whole[: len(whole) - (len(ending.answer.body) + 1) // 2]
    return _GARBAGE if ending.wire == "garbage" else b""


def _written(answer: Answer, *, keep: bool, head_only: bool = False) -> bytes:
    """Return `answer` as bytes of HTTP/1.1."""
    more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    more += "" if keep else "Connection: close\r\n"
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        f"{more}\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else answer.body)


def _refusal(status: HTTPStatus) -> Answer:
    return Answer(status=status.value, body=f"{status.phrase}\n".encode(), content_type="text/plain")
