"""The receiver, called by anybody with anything: a plain status, and what it takes is kept as it came; nothing else is.

Ten thousand requests as a server hands them over, the same ones each time, and a few hundred over real connections;
EXAMPLES=20 makes that many times more, others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import fakeredis
import pytest

from dispatcher.store import AsyncJobStore
from tests.unit.strange import INPUTS, NUMBER, PARTS, PRIVATE, TEXTS, TIMES, WORD, chance, listed
from tests.unit.support import Bench, Clock, leaks, settings
from workers import receiver, serving
from workers.callbacks import decode
from workers.providers.base import Callback
from workers.receiver import LARGEST, Receiver, url

TOKEN: Final = "canary-token"
SECRET: Final = "canary-secret"
TOLD: Final = (*PRIVATE, TOKEN, SECRET)

#: One account at each provider; of one the vendor's calls bear a secret.
ACCOUNTS: Final[dict[str, dict[str, str]]] = {
    "mobtexting": {"access_token": "x", "sender": "ACME", "webhook_secret": SECRET},
    "thetexting": {"api_key": "x", "api_secret": "x", "callback_token": TOKEN},
    "clubtexting": {"user": "x", "password": "x"},
    "textgoto": {"uid": "x", "pwd": "x"},
}

#: Requests after which the Redis in memory is a new one, so that to look at all of it takes little.
FRESH_AFTER: Final = 40

#: Answers to what is not taken.
REFUSALS: Final = {401, 404, 405, 413}

BODIES: Final = (
    b"",
    f"from={quote(NUMBER)}&text={WORD}".encode(),
    f'{{"event": "vmn:message:in", "payload": {{"sender": "{NUMBER}", "text": "{WORD}"}}}}'.encode(),
    f'{{"id": "1", "status": "DELIVRD", "mobile": "{NUMBER}"'.encode(),
    b"\xff\xfe\x00",
    b"[" * 50_000,
    b"%",
    bytes(range(256)),
    b"a" * (LARGEST - 1),
    b"a" * (LARGEST + 1),
)

HEADERS: Final = (
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-www-form-urlencoded; charset=utf-7"),
    (b"content-type", b"multipart/form-data; boundary="),
    (b"content-type", b"\xff\x00"),
    (b"content-length", b"-1"),
    (b"content-length", b"9" * 400),
    (b"content-length", "²".encode("latin-1")),
    (b"content-encoding", b"gzip"),
    (b"transfer-encoding", b"chunked, chunked"),
    (b"authorization", f"Bearer {SECRET}".encode()),
    (b"authorization", SECRET.encode()),
    (b"authorization", b"\xff"),
    (b"x-token", WORD.encode()),
    (b"user-agent", b"a" * 10_000),
    (b"expect", b"100-continue"),
    (b"host", b"a, b"),
    (b"", b""),
    (b"\xff", b"\xff"),
)

TAKEN: Final = ("GET", "POST")
METHODS: Final = (*TAKEN, "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "", "Ä")


def odd(decide: random.Random) -> str:
    text: str = decide.choice(TEXTS)(WORD)
    return text


def path(decide: random.Random, house: House) -> str:
    """Return a path: mostly of an account with its token, else with something wrong."""
    account = decide.choice([*ACCOUNTS, "nobody"])
    good = url(house.settings, "", account)
    kind = decide.randrange(8)
    if kind < 5:
        return good
    if kind == 5:
        return decide.choice(["/", "", "//", "/health", good + "/", good + "x", good[:-1], good.upper(), "/" + good])
    if kind == 6:
        return f"/{quote(odd(decide)[:2000], errors='replace')}/{quote(odd(decide)[:2000], errors='replace')}"
    wrong = [good.replace(account, "%2e%2e"), f"/{account}/%ff", f"/%00/{TOKEN}", f"/{account}/{TOKEN}%", "*"]
    return decide.choice(wrong)


def pieces(decide: random.Random) -> list[bytes]:
    """Return a body as it comes: whole, a bit at a time, with nothing between."""
    body = decide.choice(BODIES) if decide.random() < 0.7 else odd(decide).encode(errors="replace")
    cuts = sorted(decide.randrange(len(body) + 1) for _ in range(decide.choice([0, 0, 1, 3])))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


class House:
    """A receiver on a Redis in memory, without a server before it."""

    def __init__(self, clock: Clock) -> None:
        self.bench = Bench(clock, providers=ACCOUNTS)
        self.settings = self.bench.settings
        self.receiver = Receiver(self.settings)
        server = self.bench.redis.connection_pool.connection_kwargs["server"]
        self.receiver._store.redis = fakeredis.FakeAsyncRedis(server=server)
        self._known = self._all()

    def _all(self) -> dict[str, Any]:
        # Whose jobs and whose key are here is written by the first who comes.
        return {name: one for name, one in self.bench.dump().items() if name not in {"d:mode", "d:hk"}}

    def changed(self) -> bool:
        """Say whether anything in Redis changed since it was asked last."""
        before, self._known = self._known, self._all()
        return before != self._known

    def kept(self) -> list[Callback]:
        """Return what is kept, and forget it."""
        found = []
        for key in [name for name in self.bench.names() if name.startswith("d:cb:")]:
            sealed = self.bench.redis.hget(key, "x")
            found.append(decode(self.settings.sealer().open(sealed, key.removeprefix("d:cb:"))))
        if found:
            self.bench.redis.flushdb()
        return found

    async def ask(self, scope: dict[str, Any], body: Sequence[bytes], *, leaves: bool) -> list[dict[str, Any]]:
        """Hand over a request; return what is to be sent. Who `leaves` is gone before the end of the body."""
        sent: list[dict[str, Any]] = []
        parts: Iterator[dict[str, Any]] = iter(
            [
                {"type": "http.request", "body": piece, "more_body": leaves or at < len(body) - 1}
                for at, piece in enumerate(body)
            ]
        )

        async def receive() -> dict[str, Any]:
            return next(parts, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        await self.receiver(scope, receive, send)
        return sent


def problem(
    scope: dict[str, Any], body: bytes, sent: list[dict[str, Any]], kept: list[Callback], *, leaves: bool
) -> str:
    """Return what is wrong with how a request was answered, or nothing."""
    if not sent:
        return "" if leaves and not kept else "was not answered"
    start, *rest = sent
    answer = b"".join(one.get("body", b"") for one in rest)
    status = start["status"]
    if leaks(repr(sent), *TOLD):
        return "was told something private"
    if scope["path"] == "/health":
        return "" if (status, kept) == (200, []) else "is not well"
    if 200 <= status < 300:
        query = scope["query_string"].decode("latin-1")
        as_it_came = [(one.method, one.query, one.body) for one in kept] == [(scope["method"], query, body)]
        return "" if as_it_came else "was taken, and is not kept as it came"
    if status not in REFUSALS:
        return f"was answered {status}"
    return "was refused with words" if answer else "was refused, and is kept" if kept else ""


@pytest.mark.parametrize("part", range(PARTS))
def test_anybody_is_answered_and_what_is_taken_is_kept(
    part: int, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="dispatcher")
    monkeypatch.setattr(receiver, "publish", lambda *_: None)
    wrong: dict[tuple[str, ...], object] = {}

    async def ask(house: House, decide: random.Random) -> None:
        body, leaves = pieces(decide), decide.random() < 0.03
        headers = decide.sample(HEADERS, decide.choice([0, 0, 1, 2, 4]))
        asked = path(decide, house)
        scope = {
            "type": "http", "method": decide.choice(METHODS if decide.random() < 0.3 else TAKEN), "path": asked,
            "headers": headers,
            "query_string": odd(decide).encode(errors="replace")[:5000] if decide.random() < 0.5 else b"",
        }  # fmt: skip
        if decide.random() < 0.9:
            scope["raw_path"] = asked.encode()
        try:
            sent = await house.ask(scope, body, leaves=leaves)
            kept = house.kept()
            found = problem(scope, b"".join(body), sent, kept, leaves=leaves)
            if house.changed() and not kept:
                found = "changed something, and was not taken"
        except Exception as error:  # noqa: BLE001 - that is what must not be
            found = f"raised {type(error).__name__}: {error!s:.80}"
        if found:
            wrong.setdefault((found,), (scope, [len(one) for one in body]))

    async def all_of_them() -> None:
        decide = chance("requests", part)
        for number in range(INPUTS * TIMES // PARTS):
            if number % FRESH_AFTER == 0:
                house = House(clock)
            await ask(house, decide)

    asyncio.run(all_of_them())
    assert not wrong, listed(wrong)
    assert leaks(caplog.text, *TOLD) == []


# -- over real connections ---------------------------------------------------------------------------------------------

#: What comes over a connection, before it is spoilt; {path} is an account's, with its token.
SAID: Final = (
    b"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na=b",
    b"GET {path}?a=b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n",
    b"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\na",
    b"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 9\r\n\r\na=b",
    b"POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    b"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: a\r\n\r\n",
    b"GET {path} HTTP/0.9\r\n\r\n",
    b"GET {path} HTTP/9.9\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT {path} HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://elsewhere{path} HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET {path} HTTP/1.1\r\n" + b"A: " + b"b" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)

#: How many come: each takes a connection of its own.
CONNECTIONS: Final = 400 * TIMES
TOGETHER: Final = 40


def said(decide: random.Random, whole: str) -> bytes:
    """Return what comes over a connection: as it should be, or with a few bytes wrong."""
    raw = decide.choice(SAID).replace(b"{path}", whole.encode())
    for _ in range(decide.choice([0, 1, 1, 3])):
        at = decide.randrange(len(raw))
        raw = raw[:at] + decide.choice([b"", b"\0", b"\xff", b"\r\n", b" ", b":", raw[:20]]) + raw[at + 1 :]
    return raw * decide.choice([1, 1, 1, 2])


async def exchanged(port: int, raw: bytes, patience: float = 0.3) -> bytes:
    """Say something, and hang up a moment later; return what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        return await asyncio.wait_for(reader.read(1 << 16), patience)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def test_whatever_comes_over_a_connection_it_goes_on_listening(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(receiver, "publish", lambda *_: None)
    server = fakeredis.FakeServer()
    made = settings(providers=ACCOUNTS)
    servers: list[serving._Server] = []

    class Known(serving._Server):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            servers.append(self)

    class Remembering(AsyncJobStore):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.redis = fakeredis.FakeAsyncRedis(server=server)

    monkeypatch.setattr(serving, "_Server", Known)
    monkeypatch.setattr(receiver, "AsyncJobStore", Remembering)

    async def all_of_them() -> list[bytes]:
        listens: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def ready(origin: str) -> None:
            listens.set_result(origin)

        served = asyncio.create_task(receiver._serve(made, "127.0.0.1", 0, ready))
        port = int((await listens).rsplit(":", 1)[1])
        decide, good = chance("connections"), url(made, "", "thetexting")
        answers: list[bytes] = []
        for _ in range(0, CONNECTIONS, TOGETHER):
            answers += await asyncio.gather(*(exchanged(port, said(decide, good)) for _ in range(TOGETHER)))
        answers.append(await exchanged(port, SAID[0].replace(b"{path}", good.encode()), patience=30))
        servers[0].should_exit = True
        await served
        return answers

    *answers, last = asyncio.run(all_of_them())
    assert last.startswith(b"HTTP/1.1 200 ")
    strange = [one[:200] for one in answers if one and not one.startswith(b"HTTP/1.1 ")]
    assert strange == []
    assert not [one for one in answers if leaks(one.decode("latin-1"), *TOLD)]
    assert leaks(caplog.text, *TOLD) == []
