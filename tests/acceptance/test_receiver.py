"""What providers call back, by real HTTP, to a real receiver and a real worker: nothing is lost, nothing doubled."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from dispatcher import Dispatcher, Message
from dispatcher.queues import KEY_PREFIX, receipts_queue
from dispatcher.settings import Settings, load
from tests import ringer
from tests.acceptance.test_privacy import kept, unpacked
from tests.support import WATCH, Deployment, Process, Server, Worker, phone, phones, until
from workers.providers.base import Callback
from workers.receiver import url
from workers.sandbox.client import Sandbox

COMMAND: Final = str(Path(sys.executable).parent / "dispatcher")

KEYS: Final = {"secret_key": "canary-Secret-Key-58", "hash_key": "canary-Hash-Key-26"}
VENDORS: Final = ("clubtexting", "mobtexting", "ringer", "textgoto", "thetexting")
TEXT: Final = "Canary-Text-71"


class Answer(msgspec.Struct, frozen=True):
    """What came back."""

    status: int
    body: bytes
    type: str


class House:
    """A deployment with a receiver, for every account there is."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.redis = deployment.redis
        self.folder = folder
        # The sandbox plays none but the shipped ones by itself.
        where = {"providers__ringer__base_url": deployment.settings["sandbox_url"]}
        deployment.settings |= KEYS | where
        self.settings: Settings = load(redis_url=deployment.url, sandbox=True, **KEYS)
        self.process: Process | None = None
        self.origin = ""

    def start(self, *options: str) -> Process:
        """Start the receiver."""
        number = len([*self.folder.glob("receiver*.log")])
        process = Process(
            [COMMAND, "receiver", "--port", "0", "--json", *options],
            self.deployment.environment,
            self.folder,
            f"receiver{number}",
        )
        self.process = process
        process.wait_for('{"url":')
        line = next(one for one in process.output().splitlines() if one.startswith("{"))
        self.origin = json.loads(line)["url"]
        WATCH.port(urlsplit(self.origin).port or 0, "receiver")
        return process

    def worker(self, *options: str, **settings: str) -> Worker:
        return self.deployment.worker(*options, queues=",".join(VENDORS), **settings)

    def client(self) -> Dispatcher:
        accounts = {name: {"callback_token": ""} for name in VENDORS}
        return self.deployment.client(providers=accounts, **KEYS)

    def call(
        self,
        account: str = "ringer",
        method: str = "POST",
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        path: str = "",
    ) -> Answer:
        """Call as a provider does."""
        connection = http.client.HTTPConnection(urlsplit(self.origin).netloc, timeout=20)
        try:
            place = path or url(self.settings, "", account)
            connection.request(method, f"{place}{'?' if query else ''}{query}", body or None, dict(headers or {}))
            with connection.getresponse() as answer:
                return Answer(answer.status, answer.read(), answer.getheader("content-type", ""))
        finally:
            connection.close()

    def ring(self, account: str = "ringer", **told: Any) -> Answer:
        """Call as the invented provider does."""
        body = json.dumps({name.rstrip("_"): value for name, value in told.items()}).encode()
        return self.call(account, headers={"Content-Type": "application/json"}, body=body)

    def lose_messages(self) -> int:
        return int(self.redis.delete(KEY_PREFIX + receipts_queue("ringer")))

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()


@pytest.fixture
def house(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    for name, value in ringer.installed(tmp_path).items():
        monkeypatch.setenv(name, value)
    one = House(deployment, tmp_path)
    yield one
    one.stop()


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
def test_a_documented_text_becomes_an_event(house: House, account: str, told: Callback) -> None:
    house.start()
    house.worker("--concurrency", "4")
    d = house.client()
    for _ in range(2):
        answer = house.call(account, told.method, query=told.query, headers=told.headers, body=told.body)
        assert (answer.status, answer.body) == (200, b"")
    until(lambda: texts(d) and not house.redis.keys("d:cb:*"), what="the text, once")
    (text,) = texts(d)
    sender = "+12125550100" if account == "clubtexting" else "+447700900001"
    assert (text["provider"], text["from"], text["text"]) == (account, sender, SAMPLE)
    assert text["opt_out"] is None


def test_mobtextings_challenge_and_secret(house: House) -> None:
    """Its console proves by a challenge that the address is ours; what else does not bear the secret is not taken."""
    house.start()
    body = b'{"validation_key":"abc","challenge":"Zz-93"}'
    answer = house.call("mobtexting", headers={"Content-Type": "application/json"}, body=body)
    assert (answer.status, answer.body, answer.type) == (200, b'{"challenge":"Zz-93"}', "application/json")
    report = b'{"id":"b34e:1","mobile":"447700900001","status":"DELIVRD"}'
    assert house.call("mobtexting", body=report, headers={"Authorization": "Bearer no"}).status == 401


def test_mobtextings_receipt_and_opt_out(house: House) -> None:
    house.start()
    house.worker("--concurrency", "4")
    house.deployment.sandbox.callbacks({"mobtexting": ""})
    d = house.client()
    job = d.wait(d.send(phone(1), "Hi", provider="mobtexting").id)
    report = {
        "id": job.provider_ref, "mobile": phone(1)[1:], "status": "DELIVRD", "credits": "2.0000", "units": "1",
        "deliv_at": "1700000000", "cid": "", "custom": "",
    }  # fmt: skip
    headers = {"Authorization": "Bearer sandbox"}
    # As its page prints it: with a comma too many.
    body = (json.dumps(report)[:-1] + ",}").encode()
    assert house.call("mobtexting", headers=headers, body=body).status == 200
    assert d.wait(job.id, until="final").state == "delivered"

    left = {"id": "1", "receiver": phone(2)[1:], "type": "all", "value": "*", "created_at": "2023-11-01", "status": 1}
    assert house.call("mobtexting", headers=headers, body=json.dumps(left).encode()).status == 200
    until(lambda: d.opted_out(phone(2)), what="the opt-out")
    assert d.send(phone(2), "Hi", provider="mobtexting").failure.kind == "opted_out"  # type: ignore[union-attr]  # it has one


# -- what becomes of jobs and people -----------------------------------------------------------------------------------


def test_a_receipt_ends_its_job_early_late_and_twice(house: House) -> None:
    house.start()
    d = house.client()
    number = phone(21)
    receipt = {"kind": "receipt", "ref": f"ref-{number[-3:]}", "number": number}
    assert house.ring(**receipt, state="delivered").status == 200
    job = d.send(number, "Hi", provider="ringer")
    house.worker("--concurrency", "4")
    assert d.wait(job.id, until="final").state == "delivered"
    for state in ("undelivered", "delivered", "sent"):
        house.ring(**receipt, state=state)
    until(lambda: not house.redis.keys("d:cb:*"), what="the end of the last callback")
    assert d.get(job.id).state == "delivered"
    told = Process([COMMAND, "status", "--json"], house.deployment.environment, house.folder, "status")
    told.wait()
    accounts = {one["name"]: one for one in json.loads(told.output())["accounts"]}
    assert sum(accounts["ringer"]["callbacks"]["counts"].values()) == 4


def test_stop_is_heeded_at_once_and_start_lifts_it(house: House) -> None:
    """Also by what waited already: the campaign's last text is not sent, though all of it was enqueued before."""
    house.start()
    d, number = house.client(), phone(22)
    batch = d.send_many([Message(one, "Hello") for one in [*phones(400), number]], provider="ringer")
    assert house.ring(kind="text", from_=number, to="60777", text="Stop.", id="1", ref="1").status == 200
    house.worker("--concurrency", "2")
    assert batch.wait(timeout=60) == {"sent": 400, "failed": 1}
    assert house.deployment.sandbox.accepted(number) == 0
    last = d.get(batch.jobs.ids[-1])
    assert (last.failure and last.failure.kind, last.attempts) == ("opted_out", 0)
    assert d.send(number, "Hi", provider="ringer").state == "failed"

    house.ring(kind="text", from_=number, to="60777", text="START", ref="2")
    until(lambda: not d.opted_out(number), what="the start")
    assert d.wait(d.send(number, "Hi", provider="ringer").id).state == "sent"
    assert [one["opt_out"] for one in texts(d)] == ["out", "in"]


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_killed_between_its_write_and_its_answer_it_lost_nothing(house: House) -> None:
    """The provider, which was not answered, calls again: it is the same text."""
    process = house.start()
    told = {"kind": "text", "from_": phone(23), "text": "Hi", "ref": "7"}
    with pytest.raises((http.client.HTTPException, OSError)):
        house.ring(**told, die="1")
    assert process.wait() == -9
    assert len(house.redis.keys("d:cb:*")) == 1
    house.start()
    assert house.ring(**told).status == 200
    house.worker("--concurrency", "4")
    d = house.client()
    until(lambda: not house.redis.keys("d:cb:*"), what="the end of the last callback")
    assert [one["from"] for one in texts(d)] == [phone(23)]


def test_a_message_that_was_lost_is_found_by_the_clock(house: House) -> None:
    house.start()
    house.ring(kind="text", from_=phone(24), text="Hi", ref="7")
    assert house.lose_messages() == 1
    house.worker("--concurrency", "4")
    d = house.client()
    until(lambda: texts(d), what="the text")


def test_a_worker_that_dies_of_a_callback_does_so_no_more_than_thrice(house: House) -> None:
    """And what came with it is read."""
    house.start()
    house.ring(kind="deadly")
    for number in range(3):
        worker = house.worker("--concurrency", "1", name=f"victim{number}")
        assert worker.wait(30) == -9
    house.ring(kind="text", from_=phone(25), text="Hi", ref="7")
    house.worker("--concurrency", "1", name="survivor")
    d = house.client()
    until(lambda: texts(d) and house.redis.zcard("d:cx"), 30, "the text, and the deadly one aside")

    told = Process([COMMAND, "status"], house.deployment.environment, house.folder, "status")
    assert told.wait() == 1
    assert "1 callbacks were set aside" in told.output()
    house.deployment.close()
    again = Process([COMMAND, "receiver", "--again", "--json"], house.deployment.environment, house.folder, "again")
    assert again.wait() == 0
    assert json.loads(again.output()) == {"again": 1}


def test_without_redis_providers_are_asked_to_come_again(
    own_valkey: Server, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ringer.installed(tmp_path).items():
        monkeypatch.setenv(name, value)
    deployment = Deployment(own_valkey.url, sandbox, tmp_path)
    house = House(deployment, tmp_path)
    try:
        house.start()
        own_valkey.stop()
        for _ in range(2):
            began = time.monotonic()
            answer = house.ring(kind="text", from_=phone(26), text=TEXT)
            assert (answer.status, answer.body) == (503, b"")
            assert time.monotonic() - began < 10
        own_valkey.start()
        until(lambda: house.ring(kind="text", from_=phone(26), text=TEXT).status == 200, what="Redis")
        assert house.call(path="/health", method="GET").status == 200
    finally:
        house.stop()
        deployment.close()


# -- the process -------------------------------------------------------------------------------------------------------


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
def test_no_answer_that_is_not_the_vendors_has_a_body(house: House, raw: bytes, status: int) -> None:
    """One vendor texts to the person what it is answered."""
    house.start()
    place = urlsplit(house.origin)
    path = url(house.settings, "", "ringer").encode()
    with socket.create_connection((place.hostname, place.port), timeout=10) as one, one.makefile("rb") as told:
        one.sendall(raw.replace(b"{path}", path))
        assert told.readline().split()[1] == str(status).encode()
        headers = [line.strip().lower() for line in iter(told.readline, b"\r\n")]
        assert b"content-length: 0" in headers
        assert not [one for one in headers if one.startswith(b"server")]


def test_it_ends_when_it_is_told_to(house: House) -> None:
    process = house.start()
    process.terminate()
    assert process.wait() == 0
    assert "Traceback" not in process.output()


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        pytest.param({"hash_key": "", "sandbox": ""}, (), "DISPATCHER_HASH_KEY is not set", id="no hash key"),
        pytest.param({"redis_url": ""}, (), "DISPATCHER_REDIS_URL is not set", id="no Redis"),
        pytest.param({}, ("--host", "203.0.113.1"), "cannot listen at 203.0.113.1:", id="an address that is not ours"),
        pytest.param({}, ("--base", "https://x.example"), "--base", id="a base for nothing"),
    ],
)
def test_why_it_does_not_start(house: House, settings: dict[str, str], options: tuple[str, ...], words: str) -> None:
    house.deployment.settings |= settings
    process = Process([COMMAND, "receiver", *options], house.deployment.environment, house.folder, "refused")
    assert process.wait() in {1, 2}
    assert words in process.output()
    assert "Traceback" not in process.output()


def test_where_providers_are_to_call(house: House) -> None:
    process = Process(
        [COMMAND, "receiver", "--urls", "--base", "https://callbacks.example.com", "--json"],
        house.deployment.environment,
        house.folder,
        "urls",
    )
    assert process.wait() == 0
    told = {one["account"]: one["url"] for one in map(json.loads, process.output().splitlines())}
    assert sorted(told) == sorted({*VENDORS} - {"textgoto"})
    assert told["ringer"] == url(house.settings, "https://callbacks.example.com", "ringer")


def test_the_sandbox_is_told_where_it_listens(house: House) -> None:
    """So receipts come, and what a sandbox phone texts; also to a sandbox that begins anew."""
    house.start()
    house.worker("--concurrency", "4")
    d, sandbox = house.client(), house.deployment.sandbox
    until(lambda: sandbox.told().get("mobtexting") and sandbox.told()["mobtexting"].url, what="an address")
    sandbox.times(after=0.1)
    job = d.send(phone(3), "Hi", provider="mobtexting")
    assert d.wait(job.id, until="final").state == "delivered"
    sandbox.text("thetexting", phone(4), "STOP")
    until(lambda: d.opted_out(phone(4)), what="the stop")
    sandbox.reset()
    until(lambda: sandbox.told()["mobtexting"].url, what="the address again")


# -- privacy -----------------------------------------------------------------------------------------------------------


def test_nothing_private_is_seen_anywhere(house: House) -> None:
    process = house.start()
    number, sender = "+447700900731", "CanarySender"
    for told in (
        {"kind": "text", "from_": number, "text": TEXT, "ref": "1"},
        {"kind": "text", "from_": number, "text": "STOP", "ref": "2"},
        {"kind": "text", "from_": sender, "text": TEXT},
        {"kind": "receipt", "ref": "r", "number": number, "state": "delivered"},
        {"kind": "stop", "number": number},
        {"kind": "poison", "number": number, "text": TEXT},
        {"kind": "nothing", "number": number},
    ):
        assert house.ring(**told).status == 200
    house.call(query=urlencode({"kind": "text", "from": number, "text": TEXT}), method="GET")
    house.call("mobtexting", headers={"Authorization": "Bearer canary-bearer"}, body=TEXT.encode())
    before = unpacked(kept(house.redis))
    worker = house.worker("-l", "DEBUG")
    d = house.client()
    until(lambda: len(house.redis.keys("d:cb:*")) == 1, what="the end of all but one")
    d.send(number, TEXT, provider="ringer")
    seen = {
        "the store before": before,
        "the store after": unpacked(kept(house.redis)),
        "the receiver's log": process.output().encode(),
        "the worker's log": worker.output().encode(),
        "events": json.dumps([e.data for e in d.events("0", timeout=0)], default=str).encode(),
    }
    tokens = [house.settings.callback_token(name) for name in VENDORS]
    canaries = [number[1:], TEXT, sender, "canary-bearer", *KEYS.values(), *tokens]
    assert {(where, one) for where, what in seen.items() for one in canaries if one.encode() in what} == set()
    assert all(seen.values())
