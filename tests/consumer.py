"""An application that is called back: a local HTTP server that checks what it is told with the public package."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple

from standardwebhooks import Webhook

#: Signs what it is told.
SECRET: Final = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


class Heard(NamedTuple):
    """A request that was signed well."""

    id: str
    event: dict[str, Any]
    path: str
    at: float


class Consumer:
    """What it heard, and how it answers: `answer(heard)` gives a status, and may take its time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[Heard] = []
        self.answer: Callable[[Heard], int] = lambda _: 204

    def types(self, id_: str) -> list[str]:
        """The types of what it heard of a job or a batch, in the order in which it did, each notice once."""
        return [*{one.id: one.event["type"] for one in self.heard if one.event["data"]["id"] == id_}.values()]


@contextmanager
def listening() -> Iterator[Consumer]:
    """Run one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            Webhook(SECRET).verify(body.decode(), headers)
            heard = Heard(headers["webhook-id"], json.loads(body), self.path, time.monotonic())
            here.heard.append(heard)
            self.send_response(here.answer(heard))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here = Consumer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
