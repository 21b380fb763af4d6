"""The receiver: who is let in, what is kept before anything is answered, and what exactly is answered."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import quote

import fakeredis
import msgspec
import pytest

from dispatcher.accounts import KEY, Account
from dispatcher.errors import ConfigurationError
from dispatcher.settings import Settings, load
from tests.ringer import Ringer
from tests.unit.support import HASH_KEY, NUMBER, SECRET_KEY, TEXT, URL, leaks, settings
from workers import adapters, receiver
from workers.callbacks import decode
from workers.providers.base import Callback
from workers.receiver import LARGEST, Receiver, url, urls

TOKEN: Final = "canary-token"
SECRET: Final = "canary-secret"

#: Accounts of which one has a token of its own, and one a secret that callbacks bear; no credentials at all.
ACCOUNTS: Final[dict[str, dict[str, str]]] = {
    "ringer": {"callback_token": TOKEN},
    "second": {"adapter": "ringer", "secret": SECRET},
}


class Answered(msgspec.Struct, frozen=True):
    """What an ASGI server was told to send."""

    status: int
    headers: dict[str, str]
    body: bytes


class House:
    """A receiver on a Redis in memory, without a server before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **overrides: Any) -> None:
        self.settings = settings(**{"providers": ACCOUNTS} | overrides)
        self.server = fakeredis.FakeServer()
        self.redis: Any = fakeredis.FakeRedis(server=self.server)
        self.published: list[tuple[str, list[str]]] = []
        self.broker: Exception | None = None
        monkeypatch.setattr(receiver, "publish", self.publish)
        self.receiver = Receiver(self.settings)

    def publish(self, app: object, queue: str, ids: list[str]) -> None:
        assert self.kept, "it is there before it is told of"
        if self.broker is not None:
            raise self.broker
        self.published.append((queue, ids))

    @property
    def kept(self) -> list[Callback]:
        found = []
        for key in sorted(self.redis.keys("d:cb:*")):
            sealed = self.redis.hget(key, "x")
            found.append(decode(self.settings.sealer().open(sealed, key.decode().removeprefix("d:cb:"))))
        return found

    def ask(
        self,
        path: str,
        method: str = "POST",
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | list[bytes] = b"",
        stalls: bool = False,
    ) -> Answered:
        """Make one request as a server hands it over."""
        return asyncio.run(self._ask(path, method, query, headers or {}, body, stalls=stalls))

    async def _ask(
        self, path: str, method: str, query: str, headers: dict[str, str], body: bytes | list[bytes], *, stalls: bool
    ) -> Answered:
        pieces = [body] if isinstance(body, bytes) else body
        parts = iter([(piece, number < len(pieces) - 1) for number, piece in enumerate(pieces)])
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if stalls:
                await asyncio.sleep(3600)
            piece, more = next(parts)
            return {"type": "http.request", "body": piece, "more_body": more}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        # Each request has an event loop of its own here, and so its own connections.
        self.receiver._store.redis = fakeredis.FakeAsyncRedis(server=self.server)
        self.receiver._store._turn = asyncio.Semaphore(8)
        await self.receiver(scope, receive, send)
        start, *rest = sent
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answered(start["status"], told, b"".join(one.get("body", b"") for one in rest))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the invented provider's package be installed."""
    monkeypatch.setattr(adapters, "available", lambda: {"ringer": Ringer})


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    return House(monkeypatch)


def path_of(house: House, account: str = "ringer") -> str:
    return url(house.settings, "", account)


EMPTY: Final = b""


# -- what is kept ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "query", "content_type", "body"),
    [
        pytest.param("GET", "from=1&text=a%20b", "", b"", id="GET with a query"),
        pytest.param("POST", "", "application/json", b'{"kind":"x"}', id="POST of JSON"),
        pytest.param("POST", "", "application/x-www-form-urlencoded", b"kind=x", id="POST of a form"),
        pytest.param("POST", "a=1", "text/plain; charset=latin-1", b"\xff\x00", id="both, and bytes of any kind"),
        pytest.param("POST", "", "", b"", id="nothing at all"),
    ],
)
def test_a_callback_is_kept_as_it_came_and_its_queue_told(
    house: House, method: str, query: str, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answered = house.ask(path_of(house), method, query=query, headers=headers, body=body)
    assert (answered.status, answered.body) == (200, EMPTY)
    kept_headers = {"content-type": content_type} if content_type else {}
    assert house.kept == [Callback(method=method, query=query, headers=kept_headers, body=body)]
    ((queue, (id_,)),) = house.published
    assert queue == "ringer.receipts"
    assert house.redis.zrange("d:co:ringer", 0, -1) == [id_.encode()]


def test_of_its_headers_only_harmless_ones_are_kept(house: House) -> None:
    headers = {"Authorization": SECRET, "Cookie": SECRET, "X-Token": SECRET, "User-Agent": "Vendor/1"}
    house.ask(path_of(house, "second"), headers=headers)
    (kept,) = house.kept
    assert kept.headers == {"user-agent": "Vendor/1"}


def test_it_is_sealed(house: House) -> None:
    house.ask(path_of(house), query=f"from={NUMBER}", body=TEXT.encode())
    values = b"".join(house.redis.hget(key, "x") for key in house.redis.keys("d:cb:*")).decode("latin-1")
    assert leaks(values, NUMBER, TEXT, quote(NUMBER)) == []


def test_without_a_key_it_lies_there_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(monkeypatch, secret_key="")
    house.ask(path_of(house), body=b"x")
    assert house.redis.hget(house.redis.keys("d:cb:*")[0], "x").startswith(b"{")
    assert house.kept[0].body == b"x"


def test_a_broker_that_is_away_delays_it_only(house: House) -> None:
    """The clock finds it in the outbox."""
    house.broker = OSError("away")
    assert house.ask(path_of(house)).status == 200
    assert house.redis.zcard("d:co:ringer") == 1


# -- what is answered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param({}, (200, "text/plain; charset=utf-8", EMPTY), id="nothing, unless more is needed"),
        pytest.param({"challenge": "a b"}, (202, "text/x-challenge", b"a b"), id="what the adapter says"),
        pytest.param({"kind": "speechless"}, (200, "text/plain; charset=utf-8", EMPTY), id="nothing, where it cannot"),
    ],
)
def test_the_answer_is_the_adapters(house: House, told: dict[str, str], expected: tuple[int, str, bytes]) -> None:
    answered = house.ask(path_of(house), body=msgspec.json.encode(told))
    assert (answered.status, answered.headers["content-type"], answered.body) == expected
    assert answered.headers["content-length"] == str(len(expected[2]))
    assert len(house.kept) == 1


def test_who_is_not_let_in_learns_nothing(house: House) -> None:
    """A wrong token and an account that there is not are the same, to the byte."""
    own = path_of(house)
    paths = [
        "/", "/ringer", "/ringer/", "/ringer/wrong", f"/nobody/{TOKEN}", f"/second/{TOKEN}", f"{own}/more", f"{own}/",
        f"/RINGER/{TOKEN}", f"/{TOKEN}", "//", f"/ringer/{TOKEN}x", "/ringer/%ff", "/healthy",
        url(house.settings, "", "nobody"),
    ]  # fmt: skip
    answers = {(one.status, one.body, str(one.headers)) for one in map(house.ask, paths)}
    assert answers == {(404, EMPTY, "{'content-length': '0'}")}
    assert house.kept == []


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_not_taken(house: House, method: str) -> None:
    assert (house.ask(path_of(house), method).status, house.kept) == (405, [])


def test_the_vendors_own_secret(house: House) -> None:
    path = path_of(house, "second")
    for headers in ({}, {"Authorization": "wrong"}):
        answered = house.ask(path, headers=headers)
        assert (answered.status, answered.body, house.kept) == (401, EMPTY, [])
    assert house.ask(path, headers={"Authorization": SECRET}).status == 200
    assert len(house.kept) == 1


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"x" * LARGEST, {}, 200, id="as large as it may be"),
        pytest.param(b"x" * (LARGEST + 1), {}, 413, id="a byte more"),
        pytest.param([b"x" * LARGEST, b"x"], {}, 413, id="a byte more, in pieces"),
        pytest.param(b"", {"Content-Length": str(LARGEST + 1)}, 413, id="one that says so before"),
    ],
)
def test_a_body_has_its_measure(house: House, body: bytes | list[bytes], headers: dict[str, str], status: int) -> None:
    answered = house.ask(path_of(house), body=body, headers=headers)
    assert (answered.status, answered.body, len(house.kept)) == (status, EMPTY, int(status == 200))


def test_a_body_that_does_not_come_is_not_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_PATIENCE", 0.01)
    answered = house.ask(path_of(house), stalls=True)
    assert (answered.status, answered.headers["connection"], answered.body) == (408, "close", EMPTY)


class TestOurFault:
    """Where we cannot keep it, they are asked to come again, with no word that could be texted to somebody."""

    def test_redis_is_away(self, house: House, caplog: pytest.LogCaptureFixture) -> None:
        house.server.connected = False
        answered = house.ask(path_of(house), query=f"from={NUMBER}")
        assert (answered.status, answered.body) == (503, EMPTY)
        assert leaks(caplog.text, NUMBER, TOKEN) == []
        house.server.connected = True
        assert house.ask(path_of(house)).status == 200

    def test_redis_holds_jobs_of_another_kind(self, house: House) -> None:
        house.redis.set("d:mode", "sandbox")
        answered = house.ask(path_of(house))
        assert (answered.status, answered.body, house.kept) == (503, EMPTY, [])

    def test_the_accounts_adapter_is_not_installed(self, house: House) -> None:
        house.redis.hset(KEY, "third", msgspec.json.encode(Account(name="third", adapter="elsewhere")))
        assert (house.ask(path_of(house, "third")).status, house.kept) == (503, [])

    def test_a_bug(self, house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        def broken(*_: object) -> bool:
            raise RuntimeError(NUMBER)

        monkeypatch.setattr(Ringer, "trusts", broken)
        answered = house.ask(path_of(house))
        assert (answered.status, answered.body) == (503, EMPTY)
        assert "RuntimeError" in caplog.text
        assert leaks(caplog.text, NUMBER) == []


# -- accounts, tokens, URLs --------------------------------------------------------------------------------------------


def test_an_account_that_a_worker_published_needs_no_settings_here(house: House) -> None:
    path = path_of(house, "third")
    assert house.ask(path).status == 404
    house.redis.hset(KEY, "third", msgspec.json.encode(Account(name="third", adapter="ringer")))
    house.receiver._until = 0
    assert house.ask(path).status == 200
    assert house.published[-1][0] == "third.receipts"


def test_tokens_differ_by_account_and_by_hash_key() -> None:
    first, second, other = settings(), settings(providers=ACCOUNTS), settings(hash_key="another")
    tokens = {one.callback_token(name) for one in (first, other) for name in ("ringer", "textgoto")}
    assert len(tokens) == 4
    assert all(len(token) == 16 for token in tokens)
    assert second.callback_token("ringer") == TOKEN
    assert second.callback_token("textgoto") == first.callback_token("textgoto")
    assert HASH_KEY not in str(tokens)


@pytest.mark.parametrize("token", ["a b", "a/b?c#d", "%41", "é"])
def test_a_token_may_be_any_text(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    house = House(monkeypatch, providers={"ringer": {"callback_token": token}})
    assert house.ask(path_of(house)).status == 200


def test_urls_are_told_of_those_who_call() -> None:
    """TextGoto never does."""
    mine = settings(providers=ACCOUNTS)
    found = urls(mine, "https://callbacks.example.com/sms/", {"third": Account(name="third", adapter="ringer")})
    assert found == {
        "ringer": f"https://callbacks.example.com/sms/ringer/{TOKEN}",
        "second": f"https://callbacks.example.com/sms/second/{mine.callback_token('second')}",
        "third": f"https://callbacks.example.com/sms/third/{mine.callback_token('third')}",
    }


def test_without_a_hash_key_it_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY is not set and the receiver needs it"):
        Receiver(settings(hash_key=""))


def test_the_sandboxs_key_is_enough() -> None:
    mine = load(redis_url=URL, sandbox=True)
    Receiver(mine)
    assert mine.callback_token("ringer")


def test_what_listens_to_the_world_has_no_credentials() -> None:
    with_all: Settings = settings(providers={"ringer": {"uid": "canary-uid", "pwd": "canary-pwd"}})
    assert adapters.listener(with_all, "ringer").settings["pwd"] == "canary-pwd", "given, they do no harm"
    assert adapters.listener(settings(), "ringer").settings["pwd"] == "-"


# -- /health -----------------------------------------------------------------------------------------------------------


def test_it_is_well_where_redis_is(house: House) -> None:
    answered = house.ask("/health", "GET")
    assert (answered.status, answered.body) == (200, b'{"ok":true}')
    house.server.connected = False
    answered = house.ask("/health", "GET")
    assert answered.status == 503
    assert msgspec.json.decode(answered.body)["ok"] is False


def test_nothing_that_is_secret_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    path, second = path_of(house), path_of(house, "second")
    for body in (f'{{"kind":"speechless","from":"{NUMBER}"}}', f'{{"text":"{TEXT}"}}'):
        house.ask(path, body=body.encode(), query=f"from={NUMBER}")
    house.ask(second, headers={"Authorization": "wrong"})
    house.ask(second, headers={"Authorization": SECRET})
    secrets = (NUMBER, TEXT, TOKEN, SECRET, SECRET_KEY, HASH_KEY, second.rsplit("/", 1)[1])
    assert caplog.text
    assert leaks(caplog.text, *secrets) == []
