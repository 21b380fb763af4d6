"""Callbacks against real sockets that misbehave: what each try comes to, what it read, and to whom it connected."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

from dispatcher.settings import load
from tests.integration.test_transport import CHUNKED, HEAD, OK, Authority, Do, Script, Server, answer, authority, run
from tests.unit.test_addresses import found
from tests.unit.test_webhook import NEW, OLD
from workers.addresses import Found
from workers.webhook import Answer, Outcome, Webhooks, pinged

__all__ = ["authority"]  # the fixture of the certificate

ID: Final = "evt_1700000000000-0"
BODY: Final = json.dumps({"type": "job.sent", "data": {"to": "+44 •••• 23"}}).encode()

#: Part of each URL: seen by the server, and nowhere else.
CANARY: Final = "canary-token"

NAME: Final = "hooks.example.com"


def webhooks(**about: Any) -> Webhooks:
    options = {name: about.pop(name) for name in ("resolve", "tls") if name in about}
    usual = {"redis_url": "redis://127.0.0.1:1/0", "callback_secret": f"{NEW},{OLD}", "sandbox": True}
    return Webhooks(load(**{**usual, **about}), **options)


def url(server: Server, host: str = "127.0.0.1") -> str:
    return f"{'https' if server.tls else 'http'}://{host}:{server.port}/hooks/{CANARY}?token={CANARY}"


async def told(script: Script, *, tls: Authority | None = None, **about: Any) -> tuple[Answer, Server]:
    """What one callback comes to where a server plays this script."""
    caller = webhooks(**({"tls": tls.client} if tls else {}), **about)
    async with Server(script, tls=tls.server if tls else None) as server:
        try:
            outcome = await caller.post(url(server), ID, 1_700_000_000, BODY)
        finally:
            await caller.aclose()
    return outcome, server


def private(shown: str) -> bool:
    return CANARY not in shown


# -- what is sent ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_callback_is_one_signed_request(secure: bool, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> tuple[Answer, Server]:
        caller = webhooks(tls=authority.client)
        async with Server([Do.READ, answer(b"")], tls=authority.server if secure else None) as server:
            id_, body = "evt_1-0", BODY
            outcome = await caller.post(url(server), id_, int(time.time()), body)
            await caller.aclose()
        return outcome, server

    with caplog.at_level(logging.DEBUG):
        outcome, server = run(scene())
    assert (outcome.outcome, outcome.status) == (Outcome.DELIVERED, 200)
    assert outcome.seconds > 0
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(one.split(": ", 1) for one in lines)
    assert line == f"POST /hooks/{CANARY}?token={CANARY} HTTP/1.1"
    assert body == BODY
    assert headers["Host"] == f"127.0.0.1:{server.port}"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("dispatcher")
    for secret in (NEW, OLD):
        assert Webhook(secret).verify(body, headers) == json.loads(BODY)
    assert private(f"{outcome} {caplog.text}")


def test_a_name_is_in_host_and_tls_and_the_checked_address_is_connected_to(authority: Authority) -> None:
    """The certificate is good for 127.0.0.1 alone, so that what TLS asked for is seen in its refusal."""
    seen: list[str | None] = []
    server_side = authority.server
    server_side.sni_callback = lambda _socket, name, _context: seen.append(name)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    async def scene() -> tuple[Answer, Answer, Server]:
        def resolve(host: str, port: int) -> Found:
            return [(one[0], one[1], one[2], one[3], ("127.0.0.1", port)) for one in found("127.0.0.1")]

        async with Server([Do.READ, answer(b"")], tls=server_side) as server:
            strict, lax = webhooks(tls=authority.client, resolve=resolve), webhooks(tls=trusting, resolve=resolve)
            tries = [await one.post(url(server, NAME), ID, 1, BODY) for one in (strict, lax)]
            for one in (strict, lax):
                await one.aclose()
        return tries[0], tries[1], server

    try:
        refused, taken, server = run(scene())
    finally:
        server_side.sni_callback = None
    assert (refused.outcome, refused.words) == (
        Outcome.AGAIN,
        "no TLS connection could be made that may be trusted",
    )
    assert taken.outcome == Outcome.DELIVERED
    assert seen == [NAME, NAME]
    assert f"Host: {NAME}:{server.port}".encode() in server.requests[0]


def test_an_authority_of_ones_own_is_trusted_only_where_told(authority: Authority) -> None:
    outcome, server = run(told([Do.READ, answer()], tls=Authority(authority.server, ssl.create_default_context())))
    assert outcome.words == "no TLS connection could be made that may be trusted"
    assert server.requests == []


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    outcome, _ = run(told([Do.READ, answer()]))
    assert outcome.outcome == Outcome.DELIVERED


# -- what comes back ---------------------------------------------------------------------------------------------------

#: What is said of silence, for which alone a test waits.
SILENT: Final = "no answer came in time"

FAULTS: Final[Mapping[str, tuple[Script, str]]] = {
    "closed without an answer": ([Do.READ, Do.FIN], "the connection was closed without an answer"),
    "a reset": ([Do.READ, Do.RST], "the connection broke before an answer came"),
    "silence": ([Do.READ, Do.HOLD], SILENT),
    "half a head, then silence": ([Do.READ, HEAD[:-2], Do.HOLD], SILENT),
    "a head that drips": ([Do.READ, OK + b"X: ", Do.DRIP], SILENT),
    "garbage": ([Do.READ, b"\x15\x03\x01 what\r\n\r\n", Do.HOLD], "the answer was not HTTP"),
    "another protocol": (
        [Do.READ, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Do.HOLD],
        "the answer was not HTTP",
    ),
    "headers without end": ([Do.READ, OK, b"X: x\r\n" * 1000, Do.AGAIN], "the answer was not HTTP"),
    "interim answers without end": (
        [Do.READ, b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, Do.AGAIN],
        "the answer was not HTTP",
    ),
}


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("script", "words"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_answer_is_tried_again(
    script: Script, words: str, secure: bool, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    within = 1.5 if words == SILENT else 15
    with caplog.at_level(logging.DEBUG):
        outcome, server = run(told(script, tls=authority if secure else None, callback_timeout=within))
    assert (outcome.outcome, outcome.status, outcome.words) == (Outcome.AGAIN, 0, words)
    assert len(server.requests) == 1, "it is the schedule that tries again"
    assert private(f"{outcome} {caplog.text}")


ANSWERS: Final[Mapping[str, tuple[Script, Outcome, int]]] = {
    "200": ([answer()], Outcome.DELIVERED, 200),
    "204": ([b"HTTP/1.1 204 No Content\r\n\r\n"], Outcome.DELIVERED, 204),
    "after 100 Continue": ([b"HTTP/1.1 100 Continue\r\n\r\n", answer()], Outcome.DELIVERED, 200),
    "500": ([answer(b"oops", "500 Internal Server Error")], Outcome.AGAIN, 500),
    "410": ([answer(b"", "410 Gone")], Outcome.GONE, 410),
    "200 whose body breaks off": ([HEAD + b"{", Do.FIN], Outcome.DELIVERED, 200),
    "200 whose body is reset": ([HEAD + b"{", Do.RST], Outcome.DELIVERED, 200),
    "200 whose body never comes": ([HEAD, Do.HOLD], Outcome.DELIVERED, 200),
    "200 whose body drips": ([HEAD, Do.DRIP], Outcome.DELIVERED, 200),
    "200 whose chunks are garbage": ([CHUNKED + b"zz\r\n", Do.HOLD], Outcome.DELIVERED, 200),
    "500 whose body drips": (
        [b"HTTP/1.1 500 No\r\nContent-Length: 9999\r\n\r\n", Do.DRIP],
        Outcome.AGAIN,
        500,
    ),
}


@pytest.mark.parametrize(("script", "outcome", "status"), ANSWERS.values(), ids=ANSWERS)
def test_the_head_of_an_answer_decides(
    script: Script, outcome: Outcome, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.webhook._BODY_WITHIN", 0.05)
    answered, server = run(told([Do.READ, *script]))
    assert (answered.outcome, answered.status) == (outcome, status)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["200 OK", "500 No"])
def test_a_gigabyte_is_not_read(status: str) -> None:
    """What the server could write is what lay in the sockets' buffers."""
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {1 << 30}\r\n\r\n".encode())
        try:
            while written < 1 << 30:
                writer.write(b"x" * (1 << 16))
                await writer.drain()
                written += 1 << 16
        except OSError:
            pass
        finally:
            writer.transport.abort()

    async def scene() -> Answer:
        server = await asyncio.start_server(flood, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        caller = webhooks()
        try:
            return await caller.post(f"http://127.0.0.1:{port}/", ID, 1, BODY)
        finally:
            await caller.aclose()
            server.close()
            await server.wait_closed()

    answered = asyncio.run(scene())
    assert answered.status == int(status[:3])
    assert written < 32 << 20


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_inward_is_not_followed(status: str) -> None:
    """Neither to where clouds tell their secrets, nor to a port of this machine."""

    async def scene() -> tuple[Answer, int]:
        async with Server([Do.READ, answer()]) as inner:
            location = f"Location: http://127.0.0.1:{inner.port}/latest/meta-data/"
            outcome, _ = await told([Do.READ, answer(b"", status, location)])
            return outcome, inner.connections

    outcome, connections = run(scene())
    assert (outcome.outcome, outcome.status) == (Outcome.AGAIN, int(status[:3]))
    assert outcome.words.endswith("which is not followed")
    assert connections == 0


@pytest.mark.parametrize("told_later", ["7", "Tue, 14 Nov 2040 22:00:00 GMT"], ids=["seconds", "a date"])
def test_a_full_endpoint_says_when(told_later: str) -> None:
    outcome, _ = run(told([Do.READ, answer(b"", "429 Too Many Requests", f"Retry-After: {told_later}")]))
    assert outcome.retry_after == (7 if told_later == "7" else 86400)


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_a_name_that_leads_inward_the_second_time_is_not_connected_to_then() -> None:
    """The sandbox allows the loopback, so here that is outward, and a private network inward."""
    leads = iter(["127.0.0.1", "10.0.0.1", "127.0.0.1"])

    async def scene() -> tuple[list[str], Server]:
        async with Server([Do.READ, answer(b"", "200 OK", "Connection: close")]) as server:

            def resolve(_host: str, port: int) -> Found:
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (next(leads), port))]

            caller = webhooks(resolve=resolve, callback_private=False)
            tries = [await caller.post(url(server), ID, 1, BODY) for _ in range(3)]
            await caller.aclose()
        return [one.outcome.value for one in tries], server

    outcomes, server = run(scene())
    assert outcomes == ["delivered", "refused", "delivered"]
    assert server.connections == 2


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0", "[::]"],
)
def test_this_machine_is_not_reached_however_it_is_written(host: str, authority: Authority) -> None:
    """By the resolver of this machine, which reads all of these."""

    async def scene() -> tuple[Answer, int]:
        async with Server([Do.READ, answer()], tls=authority.server) as server:
            caller = webhooks(sandbox=False, tls=authority.client)
            outcome = await caller.post(url(server, host), ID, 1, BODY)
            await caller.aclose()
            return outcome, server.connections

    outcome, connections = run(scene())
    assert outcome.outcome in {Outcome.REFUSED, Outcome.AGAIN}  # again: where this resolver does not read it
    assert outcome.outcome == Outcome.REFUSED or outcome.words == "its name could not be resolved"
    assert connections == 0


# -- connections -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusting")
def test_a_connection_is_used_again_and_looked_up_once() -> None:
    asked: list[str] = []

    async def scene() -> Server:
        async with Server([Do.READ, answer()] * 3) as server:

            def resolve(host: str, port: int) -> Found:
                asked.append(host)
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

            caller = webhooks(resolve=resolve)
            for _ in range(3):
                assert (await caller.post(url(server), ID, 1, BODY)).outcome == Outcome.DELIVERED
            await caller.aclose()
        return server

    server = run(scene())
    assert (server.connections, len(server.requests), asked) == (1, 3, ["127.0.0.1"])


def test_many_at_once() -> None:
    async def scene() -> tuple[list[Answer], Server]:
        async with Server([Do.READ, answer()]) as server:
            caller = webhooks()
            tries = await asyncio.gather(*(caller.post(url(server), f"evt_{n}-0", 1, BODY) for n in range(100)))
            await caller.aclose()
        return tries, server

    tries, server = run(scene())
    assert {one.outcome for one in tries} == {Outcome.DELIVERED}
    assert len({request.split(b"webhook-id: ")[1].split(b"\r\n")[0] for request in server.requests}) == 100


def test_a_ping_arrives_like_a_callback() -> None:
    async def scene() -> tuple[str, Answer, Server]:
        async with Server([Do.READ, answer()]) as server:
            usual = {"redis_url": "redis://127.0.0.1:1/0", "callback_secret": NEW, "sandbox": True}
            id_, outcome = await pinged(load(**usual), url(server))
        return id_, outcome, server

    id_, outcome, server = run(scene())
    assert outcome.outcome == Outcome.DELIVERED
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    document = Webhook(NEW).verify(body, headers)
    assert (document["type"], document["data"], headers["webhook-id"]) == ("callback.ping", {"id": id_}, id_)
