"""What providers call back, as their documents show it, by real HTTP: beside the receiver and workers of all four."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from dispatcher import Dispatcher
from tests.acceptance.conftest import Four, Typed
from tests.support import phone, until
from workers.providers.base import Callback


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    body: bytes
    type: str


def call(
    place: str, method: str = "POST", *, query: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """Call a URL as a provider does."""
    parts = urlsplit(place)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request(method, f"{parts.path}{'?' if query else ''}{query}", body or None, dict(headers or {}))
        with connection.getresponse() as answer:
            return Answer(answer.status, answer.read(), answer.getheader("content-type", ""))
    finally:
        connection.close()


def texts(d: Dispatcher) -> list[dict[str, Any]]:
    return [event.data for event in d.events("0", timeout=0, reveal=True) if event.type == "inbound.text"]


# -- what the vendors' documents show ----------------------------------------------------------------------------------

FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
SAMPLE: Final = "This is a test message."

#: A text that comes in, as each document writes it.
INBOUND: Final = [
    pytest.param(
        "thetexting",
        Callback(
            method="GET",
            query=urlencode(
                {
                    "from": "447700900001",
                    "to": "1556985",
                    "text": SAMPLE,
                    "datetime": "Jun 9 2017 09:41 AM",
                    "cost": "0",
                }
            ),
        ),
        id="TheTexting, as its sample URL",
    ),
    pytest.param(
        "thetexting",
        Callback(
            method="POST",
            headers=FORM,
            body=urlencode(
                {"From": "447700900001", "To": "1556985", "Text": SAMPLE, "Date-time": "Jun 9 2017", "Cost": "0.00"}
            ).encode(),
        ),
        id="TheTexting, as its table",
    ),
    pytest.param(
        "clubtexting",
        Callback(
            method="POST", headers=FORM, body=urlencode({"PhoneNumber": "2125550100", "Message": SAMPLE}).encode()
        ),
        id="Club Texting, a keyword's",
    ),
    pytest.param(
        "clubtexting",
        Callback(method="GET", query=urlencode({"from": "2125550100", "message": SAMPLE})),
        id="Club Texting, an inbox reply",
    ),
    pytest.param(
        "mobtexting",
        Callback(
            method="POST",
            headers={"Content-Type": "application/json", "Authorization": "Bearer sandbox"},
            body=b'{"event":"vmn:message:in","payload":{"id":"7d6e","channels":[{"name":"vmn","to":"447700900999"}],'
            b'"recipient":{"from":"447700900001","user":{}},"message":{"type":"text",'
            b'"payload":{"text":"This is a test message."}}}}',
        ),
        id="MobTexting, a virtual number's",
    ),
]


@pytest.mark.parametrize(("account", "told"), INBOUND)
def test_a_documented_text_becomes_an_event(four: Four, d: Dispatcher, account: str, told: Callback) -> None:
    for _ in range(2):
        place = four.addresses[account]
        answer = call(place, told.method, query=told.query, headers=told.headers, body=told.body)
        assert (answer.status, answer.body) == (200, b"")
    until(lambda: texts(d) and not four.redis.keys("d:cb:*"), what="the text, once")
    (text,) = texts(d)
    sender = "+12125550100" if account == "clubtexting" else "+447700900001"
    assert (text["provider"], text["from"], text["text"]) == (account, sender, SAMPLE)
    assert text["opt_out"] is None


def test_mobtextings_challenge_and_secret(four: Four) -> None:
    """Its console proves by a challenge that the address is ours; what else does not bear the secret is not taken."""
    place = four.addresses["mobtexting"]
    body = b'{"validation_key":"abc","challenge":"Zz-93"}'
    answer = call(place, headers={"Content-Type": "application/json"}, body=body)
    assert (answer.status, answer.body, answer.type) == (200, b'{"challenge":"Zz-93"}', "application/json")
    report = b'{"id":"b34e:1","mobile":"447700900001","status":"DELIVRD"}'
    assert call(place, body=report, headers={"Authorization": "Bearer no"}).status == 401


def test_mobtextings_receipt_and_opt_out(four: Four, d: Dispatcher) -> None:
    four.sandbox.callbacks({"mobtexting": ""})
    job = d.wait(d.send(phone(1), "Hi", provider="mobtexting").id)
    report = {
        "id": job.provider_ref, "mobile": phone(1)[1:], "status": "DELIVRD", "credits": "2.0000", "units": "1",
        "deliv_at": "1700000000", "cid": "", "custom": "",
    }  # fmt: skip
    place, headers = four.addresses["mobtexting"], {"Authorization": "Bearer sandbox"}
    # As its page prints it: with a comma too many.
    body = (json.dumps(report)[:-1] + ",}").encode()
    assert call(place, headers=headers, body=body).status == 200
    assert d.wait(job.id, until="final").state == "delivered"

    left = {"id": "1", "receiver": phone(2)[1:], "type": "all", "value": "*", "created_at": "2023-11-01", "status": 1}
    assert call(place, headers=headers, body=json.dumps(left).encode()).status == 200
    until(lambda: d.opted_out(phone(2)), what="the opt-out")
    assert d.send(phone(2), "Hi", provider="mobtexting").failure.kind == "opted_out"  # type: ignore[union-attr]  # it has one


# -- what it answers, and where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", 404, id="a wrong token"),
        pytest.param(b"DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n", 405, id="another method"),
        pytest.param(b"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", 413, id="too large"),
        pytest.param(
            b"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + 17 * (b"10000\r\n" + b"x" * 65536 + b"\r\n"),
            413,
            id="too large, and it does not say so",
        ),
        pytest.param(
            b"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            200,
            id="something that wants to be a socket",
        ),
    ],
)
def test_no_answer_that_is_not_the_vendors_has_a_body(four: Four, raw: bytes, status: int) -> None:
    """One vendor texts to the person what it is answered."""
    place = urlsplit(four.addresses["thetexting"])
    path = place.path.encode()
    with socket.create_connection((place.hostname, place.port), timeout=10) as one, one.makefile("rb") as told:
        one.sendall(raw.replace(b"{path}", path))
        assert told.readline().split()[1] == str(status).encode()
        headers = [line.strip().lower() for line in iter(told.readline, b"\r\n")]
        assert b"content-length: 0" in headers
        assert not [one for one in headers if one.startswith(b"server")]


def test_where_providers_are_to_call(four: Four, typed: Typed) -> None:
    listed = typed(four.environment, "receiver", "--urls", "--base", "https://callbacks.example.com", "--json")
    assert (listed.code, listed.err) == (0, "")
    paths = {name: urlsplit(address).path for name, address in four.addresses.items()}
    told = {one["account"]: one["url"] for one in listed.documents}
    assert told.items() >= {name: f"https://callbacks.example.com{path}" for name, path in paths.items()}.items()
    assert "textgoto" not in told


def test_the_sandbox_is_told_where_it_listens(four: Four, d: Dispatcher) -> None:
    """So receipts come, and what a sandbox phone texts; also to a sandbox that begins anew."""
    four.sandbox.reset()
    until(lambda: four.sandbox.told()["mobtexting"].url, 30, "an address")
    four.sandbox.times(after=0.1)
    job = d.send(phone(3), "Hi", provider="mobtexting")
    assert d.wait(job.id, until="final").state == "delivered"
    four.sandbox.text("thetexting", phone(4), "STOP")
    until(lambda: d.opted_out(phone(4)), what="the stop")
