"""The failpoints of an exchange, with a real socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final, Self

import pytest

from tests.integration.test_transport import Authority, authority
from tests.support import until
from workers.providers.base import Request, Response
from workers.transport import Transport

HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
BODY: Final = b"done"

CONNECT: Final = ["connect.before", "connect.after"]
EXCHANGE: Final = ["write.before", "write.after", "read.before", "read.after"]

#: More than fits into one record of TLS.
LARGE: Final = b"x" * 100_000

__all__ = ["authority"]  # a fixture


class Provider(threading.Thread):
    """A server in a thread of its own: it goes on while the event loop stands still at a point."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.tls = tls
        self.connections: list[socket.socket] = []
        self.received = bytearray()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def run(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
                one = self.tls.wrap_socket(plain, server_side=True) if self.tls else plain
            except OSError:
                return
            self.connections.append(one)
            while more := one.recv(1 << 16):
                self.received += more

    def say(self, what: bytes) -> None:
        self.connections[-1].sendall(what)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A listener that is closed only would leave `accept` waiting.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.connections:
            one.close()
        self.join(5)


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("body", [b"", b"body", LARGE], ids=["no body", "a body", "a large body"])
def test_the_points_of_an_exchange_are_where_their_names_say(
    body: bytes, encrypted: bool, authority: Authority
) -> None:
    """At each of them the process stands still, as one that is about to die, and the provider says what it knows."""
    seen: list[tuple[str, bool]] = []
    end = b"\r\n\r\n" + body

    with Provider(authority.server if encrypted else None) as provider:

        def reached(point: str) -> None:
            match point:
                case "connect.before":
                    seen.append((point, not provider.connections))
                case "connect.after":
                    seen.append((point, comes(lambda: provider.connections)))
                case "write.before":
                    seen.append((point, not provider.received))
                case "write.after":
                    seen.append((point, comes(lambda: provider.received.endswith(end))))
                    provider.received.clear()
                    provider.say(HEAD)
                case "read.before":
                    seen.append((point, True))
                    provider.say(BODY)
                case _:
                    seen.append((point, True))

        async def exchange() -> list[bytes]:
            tls = authority.client if encrypted else None
            request = Request(
                method="POST" if body else "GET",
                url=f"{'https' if encrypted else 'http'}://127.0.0.1:{provider.port}/send",
                body=body,
            )
            async with Transport(deadline=20, tls=tls, reached=reached) as transport:
                answers = [await transport.send(request) for _ in range(2)]
            return [answer.body for answer in answers if isinstance(answer, Response)]

        assert asyncio.run(exchange()) == [BODY, BODY]
    # The second finds a connection.
    assert seen == [(point, True) for point in (*CONNECT, *EXCHANGE, *EXCHANGE)]


def comes(look: Callable[[], object]) -> bool:
    """Say whether it comes to that, though the process does nothing any more."""
    try:
        return bool(until(look, 15))
    except AssertionError:
        return False
