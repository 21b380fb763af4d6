"""What all of these programs share: TextGoto's call to send a text, over one client a process.

How they are run is in the environment: REDIS_URL and PROVIDER_URL, IN_FLIGHT (sends at once) and REDELIVER_AFTER
(seconds after which what a dead worker held is given to another), for those that have such a setting.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import httpx

from workers.wire import Wire

REDIS_URL = os.environ["REDIS_URL"]
IN_FLIGHT = int(os.environ.get("IN_FLIGHT", "64"))
REDELIVER_AFTER = int(os.environ.get("REDELIVER_AFTER", "0"))

#: Whether coroutines send over our own worker's engine, or over httpx's own.
GIVEN_OURS = os.environ.get("TRANSPORT") == "ours"

_URL = os.environ["PROVIDER_URL"] + "/api/jsonapi.aspx"

#: Made once: it reads all the authorities that there are.
_TLS = httpx.create_ssl_context()


class Client:
    """For tasks that are functions: a client of httpx for each thread.

    Documents show one for all. Its pool looks through all of its connections at each request: with 64 at once this is
    faster by half.
    """

    def __init__(self) -> None:
        self._own = threading.local()

    def send(self, number: str, text: str) -> None:
        if not hasattr(self._own, "http"):
            self._own.http = httpx.Client(verify=_TLS, timeout=30)
        _check(self._own.http.post(_URL, json=_body(number, text)).raise_for_status().json())


class AsyncClient:
    """For tasks that are coroutines: a client of httpx for each send at once, for the same reason."""

    def __init__(self) -> None:
        self._idle: list[httpx.AsyncClient] = []

    async def send(self, number: str, text: str) -> None:
        http = self._idle.pop() if self._idle else httpx.AsyncClient(verify=_TLS, timeout=30)
        try:
            _check((await http.post(_URL, json=_body(number, text))).raise_for_status().json())
        finally:
            self._idle.append(http)

    async def aclose(self) -> None:
        for http in self._idle:
            await http.aclose()


class Engine:
    """The same over one of the engines that httpx can have, without its client: that costs more than a fast engine."""

    def __init__(self, engine: httpx.AsyncBaseTransport) -> None:
        self._engine = engine

    async def send(self, number: str, text: str) -> None:
        request = httpx.Request("POST", _URL, json=_body(number, text), extensions={"timeout": {"read": 60}})
        if isinstance(self._engine, Wire):  # which says itself how long a request is
            del request.headers["content-length"]
        answer = await self._engine.handle_async_request(request)
        try:
            told = json.loads(await answer.aread())
        finally:
            await answer.aclose()
        _check(told)

    async def aclose(self) -> None:
        await self._engine.aclose()


def on_ours() -> Engine:
    """Return one on what our own worker sends with."""
    return Engine(Wire(tls=_TLS, connect=3, read=15, max_body=1 << 20, keepalive=4))


def async_client() -> AsyncClient | Engine:
    """Return the client that is to be measured."""
    return on_ours() if GIVEN_OURS else AsyncClient()


def _body(number: str, text: str) -> dict[str, Any]:
    header = {"-uid": "sandbox", "-pwd": "sandbox", "-action": "SEND_MSISDN"}
    return {"campaign": {"header": header, "body": {"msisdn": [number.lstrip("+")], "msg": text}}}


def _check(told: Any) -> None:
    if told["output"]["msg"][0]["@response"] != "OK":
        raise RuntimeError("the provider refused a text")
