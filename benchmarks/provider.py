"""A provider that costs next to nothing and counts: `python -m benchmarks.provider [--port N] [--delay SECONDS]`.

It takes texts as TextGoto does (SEND_MSISDN, one recipient or many, a result for each) and answers each request after
the same time, so that a measurement shows what it costs to send and not what it costs to play a provider: the sandbox
judges, remembers and misbehaves, this only counts. It says OK to whatever it is sent.

| control | |
|---|---|
| `GET /control` | what was counted, as JSON: `Counted` |
| `GET /control/arrivals` | when each text came first, by `NUMBER TEXT`, on the monotonic clock of this machine |
| `POST /control` with `{"delay": 0.05}` | answer after so many seconds from now on, and forget what was counted |
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import time
from collections import deque
from contextlib import suppress
from typing import Final, cast

import httptools
import msgspec

PATH: Final = b"/api/jsonapi.aspx"
_CONTROL: Final = b"/control"
_ARRIVALS: Final = b"/control/arrivals"

#: Seconds until an answer, unless told otherwise.
DELAY: Final = 0.05

#: Seconds within which answers leave together: waking up for each would cost more than all the rest.
_TOGETHER: Final = 0.001

_HEAD: Final = b"HTTP/1.1 %d OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s"
_BALANCE: Final = b'{"output":{"@balance":"1000000","@available":"1000000"}}'
_UNPLAYED: Final = b'{"output":{"error":"SITE_UNAVAILABLE"}}'


class Header(msgspec.Struct, rename={"action": "-action"}):
    action: str


class Body(msgspec.Struct):
    msisdn: list[str] = []
    msg: str = ""


class Campaign(msgspec.Struct):
    header: Header
    body: Body = msgspec.field(default_factory=Body)


class Asked(msgspec.Struct):
    campaign: Campaign


class Change(msgspec.Struct):
    delay: float


class Row(msgspec.Struct, rename={"msisdn": "@msisdn", "response": "@response"}):
    msisdn: str
    response: str = "OK"


class Counted(msgspec.Struct):
    """What was counted since the last change; moments are seconds of this machine's monotonic clock."""

    #: Requests to send, and recipients in them.
    requests: int = 0
    recipients: int = 0
    #: Texts (number and words) that came at all, and how often any came once more.
    texts: int = 0
    repeated: int = 0
    #: When the first and the latest request came, and the latest that brought a text once more.
    first: float = 0.0
    last: float = 0.0
    last_repeated: float = 0.0
    #: Most requests that were waiting for their answers at once, connections there are and were made.
    at_once: int = 0
    connections: int = 0
    #: Seconds of processor time that this process took, and requests of other kinds.
    cpu: float = 0.0
    others: int = 0


class Provider:
    """What the connections share."""

    def __init__(self, delay: float) -> None:
        self._asked = msgspec.json.Decoder(Asked)
        self._encode = msgspec.json.Encoder().encode
        #: Answers and when they are due, the next in front, as all take the same time.
        self._due: deque[tuple[float, Connection, bytes]] = deque()
        self.under_way = 0
        self.reset(delay)

    def reset(self, delay: float) -> None:
        self.delay = delay
        self.counted = Counted()
        self._arrivals: dict[str, float] = {}
        self._cpu = time.process_time()

    def answer(self, body: bytes, at: float) -> bytes:
        """Count a request that began to come at this moment; return the answer's body."""
        asked = self._asked.decode(body).campaign
        if asked.header.action != "SEND_MSISDN":
            self.counted.others += 1
            return _BALANCE if asked.header.action == "CHECK_BALANCE" else _UNPLAYED
        counted, arrivals, numbers = self.counted, self._arrivals, asked.body.msisdn
        counted.requests += 1
        counted.recipients += len(numbers)
        counted.first = counted.first or at
        counted.last = at
        for number in numbers:
            text = f"{number} {asked.body.msg}"
            if text in arrivals:
                counted.repeated += 1
                counted.last_repeated = at
            else:
                arrivals[text] = at
        self.under_way += 1
        counted.at_once = max(counted.at_once, self.under_way)
        return b'{"output":{"msg":%s}}' % self._encode([Row(number) for number in numbers])

    def hold(self, connection: Connection, answer: bytes) -> None:
        """Answer once the time is over; one timer serves all that are due within a millisecond."""
        loop = asyncio.get_running_loop()
        if not self._due:
            loop.call_later(self.delay, self._answer)
        self._due.append((loop.time() + self.delay, connection, answer))

    def _answer(self) -> None:
        loop, due = asyncio.get_running_loop(), self._due
        until = loop.time() + _TOGETHER
        while due and due[0][0] <= until:
            _, connection, answer = due.popleft()
            self.under_way -= 1
            connection.end(answer)
        if due:
            loop.call_at(due[0][0] + _TOGETHER, self._answer)

    def told(self, path: bytes, body: bytes) -> bytes:
        """Do what the control is asked; return the answer's body."""
        if path == _ARRIVALS:
            return self._encode(self._arrivals)
        if body:
            self.reset(msgspec.json.decode(body, type=Change).delay)
        self.counted.texts = len(self._arrivals)
        self.counted.cpu = time.process_time() - self._cpu
        return self._encode(self.counted)


class Connection(asyncio.Protocol):
    """A client's connection; answers leave in the order of their requests, since all take the same time."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body: list[bytes] = []
        self._at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._provider.counted.connections += 1

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, msgspec.MsgspecError):
            # Nobody measures anything with requests that cannot be read: whoever wrote them shall see it.
            self._transport.write(_HEAD % (400, 0, b""))
            self._transport.close()

    def on_message_begin(self) -> None:
        self._path, self._body, self._at = b"", [], time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        if self._path.lower() != PATH:
            told = self._provider.told(self._path, body) if self._path.startswith(_CONTROL) else b""
            self._transport.write(_HEAD % (200 if told else 404, len(told), told))
            return
        told = self._provider.answer(body, self._at)
        self._provider.hold(self, _HEAD % (200, len(told), told))

    def end(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    provider = Provider(delay)
    server = await loop.create_server(lambda: Connection(provider), "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]} ready", flush=True)
    await stop.wait()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="benchmarks.provider", description=__doc__.partition(":")[0])
    parser.add_argument("--port", type=int, default=0, help="a free one, unless told; its origin is printed")
    parser.add_argument("--delay", type=float, default=DELAY, help="seconds until each answer")
    asked = parser.parse_args()
    # What is remembered of each text is no garbage: looking through it again and again would only hold answers up.
    gc.disable()
    with suppress(ImportError):
        # Where it is installed, as with the peers, this costs half.
        import uvloop  # noqa: PLC0415 - it need not be there

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(_serve(asked.port, asked.delay))


if __name__ == "__main__":
    main()
