"""A sandbox in this process, and a client that sees every byte, for tests of what is on the wire."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tests.support import until
from workers.sandbox.base import Request
from workers.sandbox.server import serve

#: Seconds of silence after which a client that waits for nothing has waited long enough.
SILENCE = 0.2

#: Seconds that something which comes may take on a busy machine.
PATIENCE = 30.0


class Running:
    """A sandbox in a thread of this process."""

    def __init__(self, ledger: Path | None = None, **how: Any) -> None:
        started = threading.Event()
        self.url = ""

        def ready(origin: str) -> None:
            self.url = origin
            started.set()

        async def play() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            await serve(ledger=ledger, ready=ready, stop=self._stop, **how)

        self._thread = threading.Thread(target=asyncio.run, args=(play(),))
        self._thread.start()
        assert started.wait(PATIENCE)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class Wire:
    """A client's connection, byte by byte."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)

    def write(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._socket.sendall(piece)

    def hear(self, silence: float = PATIENCE, rest: float | None = None) -> tuple[bytes, str]:
        """Return what comes until the connection is `closed`, `reset`, or `silent` for that long.

        Once something came, it is the `rest` that is waited for so long.
        """
        heard = bytearray()
        while True:
            self._socket.settimeout(rest if heard and rest is not None else silence)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                return bytes(heard), "silent"
            except ConnectionResetError:
                return bytes(heard), "reset"
            if not data:
                return bytes(heard), "closed"
            heard += data

    def answers(self, count: int = 1) -> list[tuple[int, bytes]]:
        """Return status and body of the next answers; they are all there is to hear."""
        heard = bytearray()
        while len(answers := whole_answers(heard)) < count:
            data = self._socket.recv(65536)
            assert data, f"closed after {bytes(heard)!r}"
            heard += data
        return answers

    def close(self) -> None:
        self._socket.close()


_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}


def sending(provider: str, msisdn: str) -> Request:
    """Return a request that sends a text, as the provider's document has it."""
    if provider == "thetexting":
        fields = {"api_key": "sandbox", "api_secret": "sandbox", "to": msisdn, "text": "Hello"}
        return Request(
            method="POST", path="/rest/sms/json/Message/Send", headers=_FORM, body=urlencode(fields).encode()
        )
    if provider == "clubtexting":
        fields = {"User": "sandbox", "Password": "sandbox", "PhoneNumbers[]": msisdn[1:], "Message": "Hello"}
        body = urlencode(fields).encode()
        return Request(method="POST", path="/sending/messages", query="format=json", headers=_FORM, body=body)
    if provider == "textgoto":
        header = {"-uid": "sandbox", "-pwd": "sandbox", "-action": "SEND_MSISDN"}
        campaign = {"header": header, "body": {"msisdn": [msisdn], "msg": "Hello"}}
        return Request(method="POST", path="/api/jsonapi.aspx", body=json.dumps({"campaign": campaign}).encode())
    assert provider == "mobtexting"
    message = {"to": msisdn, "message": "Hello", "sender": "ACME", "service": "T"}
    headers = {"content-type": "application/json", "accept": "application/json", "authorization": "Bearer sandbox"}
    return Request(method="POST", path="/api/v2/sms/send", headers=headers, body=json.dumps(message).encode())


def as_bytes(request: Request) -> bytes:
    """Return a provider's request as bytes of HTTP."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    target = f"{request.path}?{request.query}" if request.query else request.path
    head = f"{request.method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(request.body)}\r\n{headers}\r\n"
    return head.encode() + request.body


def wait_for(ask: Callable[[], object]) -> None:
    """Return once the answer is true."""
    until(ask, what="what is waited for")


def whole_answers(heard: bytes | bytearray) -> list[tuple[int, bytes]]:
    """Return status and body of each whole answer in a stream, the body as long as its head says."""
    found, start = [], 0
    while head := re.compile(rb"HTTP/1.1 (\d+) .*?Content-Length: (\d+).*?\r\n\r\n", re.DOTALL).match(heard, start):
        end = head.end() + int(head[2])
        if end > len(heard):
            break
        found.append((int(head[1]), bytes(heard[head.end() : end])))
        start = end
    return found


def open_files() -> list[str]:
    """Return the descriptors that this process has open, that of the listing among them."""
    return sorted(file.name for file in Path("/dev/fd").iterdir())
