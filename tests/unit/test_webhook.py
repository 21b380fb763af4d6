"""A signed callback and what its answer means: pure parts, and whom it refuses before anything is connected to."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher.errors import ConfigurationError
from dispatcher.settings import Settings
from dispatcher.signing import signed, signers
from tests.unit import support
from tests.unit.test_addresses import found
from workers import webhook
from workers.addresses import Reach
from workers.webhook import Answer, Outcome, Webhooks, meaning, ping, retry_after

#: The standard's own vector (https://github.com/standard-webhooks/standard-webhooks, libraries' tests).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()


def headers(*secrets: str, at: int = AT, body: bytes = BODY, id_: str = ID) -> dict[str, str]:
    return signed(signers(",".join(secrets)), id_, at, body)


def test_the_standards_vector() -> None:
    assert headers(SECRET) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


def test_the_public_package_verifies_it() -> None:
    body = json.dumps({"data": {"to": "+44 •••• 23", "text": "Grüße 🎉"}}, ensure_ascii=False).encode()
    told = headers(NEW, at=int(time.time()), body=body)
    assert Webhook(NEW).verify(body, told) == json.loads(body)


@pytest.mark.parametrize("secret", [NEW, OLD], ids=["who knows the new one", "who knows the old one"])
def test_while_secrets_rotate_both_sign(secret: str) -> None:
    told = headers(NEW, OLD, at=int(time.time()))
    assert len(told["webhook-signature"].split(" ")) == 2
    assert Webhook(secret).verify(BODY, told) == json.loads(BODY)


@pytest.mark.parametrize(
    ("change", "body"),
    [
        pytest.param({}, BODY + b" ", id="another body"),
        pytest.param({"webhook-timestamp": str(int(time.time()) + 1)}, BODY, id="another time"),
        pytest.param({"webhook-id": "msg_2"}, BODY, id="another id"),
        pytest.param({"webhook-signature": "v1,AAAA"}, BODY, id="another signature"),
    ],
)
def test_what_was_tampered_with_is_refused(change: dict[str, str], body: bytes) -> None:
    told = headers(NEW, at=int(time.time())) | change
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body, told)


def test_another_secret_is_refused_and_so_is_an_old_time() -> None:
    with pytest.raises(WebhookVerificationError, match="signature"):
        Webhook(OLD).verify(BODY, headers(NEW, at=int(time.time())))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(NEW).verify(BODY, headers(NEW, at=int(time.time()) - 301))


# -- what an answer means ----------------------------------------------------------------------------------------------

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "told", "outcome", "later", "words"),
    [
        pytest.param(200, {}, "delivered", None, "answered 200", id="200"),
        pytest.param(204, {}, "delivered", None, "answered 204", id="204"),
        pytest.param(299, {}, "delivered", None, "answered 299", id="any of 2xx"),
        pytest.param(301, {}, "again", None, "answered 301, which is not followed", id="moved"),
        pytest.param(307, {}, "again", None, "answered 307, which is not followed", id="moved for now"),
        pytest.param(304, {}, "again", None, "answered 304, which is not followed", id="not modified"),
        pytest.param(400, {}, "again", None, "answered 400", id="400"),
        pytest.param(401, {}, "again", None, "answered 401", id="401"),
        pytest.param(404, {}, "again", None, "answered 404", id="404"),
        pytest.param(410, {}, "gone", None, "answered 410: it wants no more", id="410 ends it"),
        pytest.param(429, {}, "again", None, "answered 429", id="429"),
        pytest.param(429, {"retry-after": "7"}, "again", 7.0, "answered 429", id="429 that says when"),
        pytest.param(503, {"retry-after": "120"}, "again", 120.0, "answered 503", id="503 that says when"),
        pytest.param(500, {"retry-after": "7"}, "again", None, "answered 500", id="500 is not asked when"),
        pytest.param(599, {}, "again", None, "answered 599", id="a status of its own"),
    ],
)
def test_what_an_answer_means(
    status: int, told: Mapping[str, str], outcome: str, later: float | None, words: str
) -> None:
    assert meaning(status, told, NOW) == Answer(outcome=Outcome(outcome), status=status, words=words, retry_after=later)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(" 0 ", 0.0, id="none"),
        pytest.param("86401", 86400.0, id="more than a day"),
        pytest.param("9" * 400, 86400.0, id="more than a number has digits"),
        pytest.param("Tue, 14 Nov 2023 22:13:50 GMT", 30.0, id="a date"),  # NOW is 22:13:20
        pytest.param("Tue, 14 Nov 2023 22:13:50", 30.0, id="a date without its zone"),
        pytest.param("Tue, 14 Nov 2023 22:00:00 GMT", 0.0, id="a date that is over"),
        pytest.param("Tue, 14 Nov 2040 22:00:00 GMT", 86400.0, id="a date far away"),
        pytest.param("Tue, 99 Nov 2023 99:00:00 GMT", None, id="no date"),
        pytest.param("", None, id="nothing"),
        pytest.param("soon", None, id="a word"),
        pytest.param("-5", None, id="less than nothing"),
        pytest.param("1.5", None, id="a fraction"),
        pytest.param("٧", None, id="digits of another script"),
        pytest.param("\x00", None, id="what is none at all"),
    ],
)
def test_a_retry_after(told: str, seconds: float | None) -> None:
    assert retry_after(told, NOW) == seconds


# -- whom it refuses ---------------------------------------------------------------------------------------------------


def settings(**overrides: Any) -> Settings:
    return support.settings(**{"callback_secret": f"{NEW},{OLD}", **overrides})


def answered(url: str, resolve: Callable[[str, int], Any], **overrides: Any) -> Answer:
    async def scene() -> Answer:
        webhooks = Webhooks(settings(**overrides), resolve=resolve)
        try:
            return await webhooks.post(url, "evt_1-0", AT, b"{}")
        finally:
            await webhooks.aclose()

    return asyncio.run(scene())


@pytest.fixture(autouse=True)
def unconnected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Connect to nothing; the addresses that would have been."""
    tried: list[Any] = []

    async def start(found: Any, **_: Any) -> Any:
        tried.append([address[0] for *_, address in found])
        raise ConnectionRefusedError(errno.ECONNREFUSED, "")

    monkeypatch.setattr("workers.wire.start_connection", start)
    return tried


@pytest.mark.parametrize(
    ("addresses", "words"),
    [
        pytest.param(["10.0.0.1"], "private address", id="private"),
        pytest.param(["127.0.0.1"], "this machine itself", id="this machine"),
        pytest.param(["169.254.169.254"], "not public and that no setting allows", id="metadata"),
        pytest.param(["93.184.215.14", "::1"], "this machine itself", id="one of two"),
    ],
)
def test_an_inward_address_is_refused_and_never_connected_to(
    addresses: list[str], words: str, unconnected: list[Any]
) -> None:
    answer = answered("https://hooks.example.com/s3cret?token=s3cret", lambda _host, _port: found(*addresses))
    assert (answer.outcome, answer.status) == (Outcome.REFUSED, 0)
    assert words in answer.words
    assert not support.leaks(answer.words, "s3cret", "hooks.example.com", *addresses)
    assert unconnected == []


def test_it_connects_to_the_addresses_that_were_checked(unconnected: list[Any]) -> None:
    asked: list[Any] = []

    def resolve(host: str, port: int) -> Any:
        asked.append((host, port))
        return found("93.184.215.14", "2606:4700::1")

    answer = answered("https://hooks.example.com:8443/x", resolve)
    assert (answer.outcome, answer.words) == (Outcome.AGAIN, "the connection was refused")
    assert asked == [("hooks.example.com", 8443)], "looked up once a try, at the port it names"
    assert unconnected == [["93.184.215.14", "2606:4700::1"]]


def test_a_name_that_leads_inward_the_second_time_is_refused_then(unconnected: list[Any]) -> None:
    leads = iter([found("93.184.215.14"), found("127.0.0.1"), found("93.184.215.14")])

    async def scene() -> list[str]:
        webhooks = Webhooks(settings(), resolve=lambda _host, _port: next(leads))
        tries = [await webhooks.post("https://hooks.example.com/", "evt_1-0", AT, b"{}") for _ in range(3)]
        await webhooks.aclose()
        return [one.outcome.value for one in tries]

    assert asyncio.run(scene()) == ["again", "refused", "again"]
    assert unconnected == [["93.184.215.14"], ["93.184.215.14"]]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://hooks.example.com/", id="not https"),
        pytest.param("ftp://hooks.example.com/", id="another scheme"),
        pytest.param("https://user:hunter2@hooks.example.com/", id="with a password"),
        pytest.param("https:///path", id="without a host"),
        pytest.param("https://hooks.example.com:99999/", id="without such a port"),
        pytest.param("https://hooks.example.com/\r\nX: y", id="with a line of its own"),
        pytest.param("nonsense", id="no URL"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_callback_url_is_refused(url: str, unconnected: list[Any]) -> None:
    answer = answered(url, lambda _host, _port: found("93.184.215.14"))
    assert answer.outcome == Outcome.REFUSED
    assert "hunter2" not in answer.words
    assert unconnected == []


@pytest.mark.parametrize(
    ("overrides", "reach"),
    [
        pytest.param({}, Reach.PUBLIC, id="the usual"),
        pytest.param({"sandbox": True}, Reach.LOOPBACK, id="a sandbox"),
        pytest.param({"callback_private": True}, Reach.PRIVATE, id="the setting"),
        pytest.param({"callback_private": True, "sandbox": True}, Reach.PRIVATE, id="both"),
    ],
)
def test_how_far_in_it_may_lead(overrides: Mapping[str, Any], reach: Reach) -> None:
    assert webhook.reach(settings(**overrides)) == reach


def test_a_name_that_nobody_knows_is_tried_again() -> None:
    def unknown(_host: str, _port: int) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    answer = answered("https://hooks.example.com/", unknown)
    assert (answer.outcome, answer.words) == (Outcome.AGAIN, "its name could not be resolved")


def test_a_name_server_that_says_nothing_ends_with_the_connections_time() -> None:
    asked = threading.Event()

    def silent(_host: str, _port: int) -> Any:
        asked.wait(20)
        return found("93.184.215.14")

    async def scene() -> Answer:
        webhooks = Webhooks(settings(callback_timeout=0.05), resolve=silent)
        try:
            return await webhooks.post("https://hooks.example.com/", "evt_1-0", AT, b"{}")
        finally:
            asked.set()
            await webhooks.aclose()

    assert asyncio.run(scene()).outcome == Outcome.AGAIN


def test_a_request_reads_no_files(unconnected: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Our version lies in one, and to read it costs more than all else of a callback."""
    monkeypatch.setattr("workers.transport.version", pytest.fail)
    assert answered("https://hooks.example.com/", lambda *_: found("93.184.215.14")).outcome == Outcome.AGAIN
    assert unconnected


def test_without_a_secret_it_does_not_begin() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_CALLBACK_SECRET is not set"):
        Webhooks(settings(callback_secret=""))


def test_a_ping_tells_of_nothing() -> None:
    (one, body), (other, _) = ping(), ping()
    document = json.loads(body)
    assert one != other
    assert document | {"at": ""} == {
        "schema": 1, "cursor": "0-0", "type": "callback.ping", "at": "", "data": {"id": one},
    }  # fmt: skip
