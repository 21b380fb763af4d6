"""The end of the demonstration: one job, as an application hears of it in each of the ways there are."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import threading
from collections.abc import Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.request import Request, urlopen

from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher import tokens
from dispatcher.asynchronous import AsyncDispatcher
from dispatcher.client import Dispatcher
from dispatcher.settings import Settings
from dispatcher.store import JobStore

#: Bytes of a secret that signs callbacks, and seconds that one answer over HTTP may take.
_SECRET: Final = 32
_PATIENCE: Final = 10.0

#: What is followed: jobs, and nothing else that happens.
_TYPES: Final = ["job.*"]


class Endpoint:
    """An application's endpoint for callbacks, on a thread: it believes what the public package verifies.

    That is `standardwebhooks`, which knows nothing of this project: https://www.standardwebhooks.com.
    """

    def __init__(self, secret: str) -> None:
        """Verify with `secret`, at a free port of the loopback."""
        self._verifier = Webhook(secret)
        #: What was verified, by the id of its job, as it came.
        self.told: dict[str, list[dict[str, Any]]] = {}
        #: Whether what came with one byte changed was refused each time.
        self.refuses_forgeries = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/told"

    def __enter__(self) -> Self:
        """Listen."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Say whether it is from us, and keep it then."""
        if not self._verified(body, headers):
            return False
        self.refuses_forgeries &= not self._verified(body.replace(b'"state"', b'"State"', 1), headers)
        event = json.loads(body)
        self.told.setdefault(event["data"].get("id", ""), []).append(event)
        return True

    def _verified(self, body: bytes, headers: Mapping[str, str]) -> bool:
        try:
            self._verifier.verify(body, {name.lower(): value for name, value in headers.items()})
        except WebhookVerificationError:
            return False
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self._take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # http.server calls it so
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(204 if take(body, dict(self.headers.items())) else 401)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Leave the demonstration's page alone."""

        return Handler


def new_secret() -> str:
    """Return a secret that signs callbacks, as `DISPATCHER_CALLBACK_SECRET` has it."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(_SECRET)).decode()}"


def new_token(settings: Settings) -> str:
    """Return a token that the HTTP API lets read, as `dispatcher api tokens create` makes it."""
    token, known = tokens.make(tenant=None, rights=["read"], note="the demonstration")
    with closing(JobStore(settings.redis, settings.redis_shown)) as store:
        tokens.put(store, token, known)
    return token


def by_callback(endpoint: Endpoint, id_: str) -> list[str]:
    """Return what was told of a job by signed callbacks: types of events, in order."""
    return [event["type"] for event in endpoint.told.get(id_, [])]


def by_events(dispatcher: Dispatcher, id_: str) -> list[str]:
    """Return what the event stream tells of a job."""
    return [event.type for event in dispatcher.events("0", timeout=0, types=_TYPES) if event.data["id"] == id_]


def over_http(origin: str, token: str, id_: str) -> list[str]:
    """Return what the HTTP API tells of a job; nothing where it does not answer."""
    told, cursor = list[str](), "0"
    while True:
        url = f"{origin}/v1/events?after={cursor}&wait=0&types={_TYPES[0]}"
        asked = Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own
        try:
            with urlopen(asked, timeout=_PATIENCE) as answer:  # noqa: S310 - same
                page = json.load(answer)
        except OSError:
            return []
        told += [event["type"] for event in page["events"] if event["data"]["id"] == id_]
        if not page["events"]:
            return told
        cursor = page["cursor"]


def from_asyncio(dispatcher: Dispatcher, id_: str) -> list[str]:
    """Return what an asyncio application is told of a job."""

    async def follow() -> list[str]:
        async with AsyncDispatcher(dispatcher.settings) as d:
            return [event.type async for event in d.events("0", timeout=0, types=_TYPES) if event.data["id"] == id_]

    return asyncio.run(follow())
