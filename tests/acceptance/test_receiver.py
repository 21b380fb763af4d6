"""What providers call back, by real HTTP, to a real receiver and a real worker: nothing is lost, nothing doubled."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest

from dispatcher import Dispatcher, Message
from dispatcher.queues import KEY_PREFIX, receipts_queue
from dispatcher.settings import Settings, load
from tests import ringer
from tests.acceptance.conftest import Typed
from tests.acceptance.test_privacy import kept, unpacked
from tests.acceptance.test_vendors_call import Answer, call, texts
from tests.commands import Ended
from tests.support import WATCH, Deployment, Process, Server, Worker, phone, phones, until
from tests.warm import WarmProcess, module
from workers.receiver import url
from workers.sandbox.client import Sandbox

KEYS: Final = {"secret_key": "canary-Secret-Key-58", "hash_key": "canary-Hash-Key-26"}
VENDORS: Final = ("clubtexting", "mobtexting", "ringer", "textgoto", "thetexting")
TEXT: Final = "Canary-Text-71"


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
        command = module(["dispatcher.cli", "receiver", "--port", "0", "--json", *options])
        process = WarmProcess(command, self.deployment.environment, self.folder, f"receiver{number}")
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

    def call(self, account: str = "ringer", method: str = "POST", **told: Any) -> Answer:
        """Call as a provider does."""
        return call(url(self.settings, self.origin, account), method, **told)

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


@pytest.fixture
def run(house: House, typed: Typed) -> Callable[..., Ended]:
    """Run `dispatcher ARGUMENTS` beside it."""
    return partial(typed, house.deployment.environment)


# -- what becomes of jobs and people -----------------------------------------------------------------------------------


def test_a_receipt_ends_its_job_early_late_and_twice(house: House, run: Callable[..., Ended]) -> None:
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
    accounts = {one["name"]: one for one in run("status", "--json").document["accounts"]}
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


def test_a_phone_that_texts_stop_gets_one_answer_and_help_another(house: House) -> None:
    """Over the vendor that the text came by, and from where it was sent to, where that can be said."""
    house.start()
    sandbox, d, answers = house.deployment.sandbox, house.client(), ["You get no more texts.", "ACME: 020 7946 0000"]
    until(lambda: sandbox.told()["thetexting"].url, what="an address")
    sandbox.times(after=0.1)
    house.worker("--concurrency", "4", stop_text=answers[0], help_text=answers[1])
    ours = "12125550167"
    assert d.wait(d.operation("thetexting", "number.buy", number=f"+{ours}").id).state == "completed"
    for came, (vendor, number) in enumerate((("mobtexting", phone(27)), ("thetexting", phone(28)))):
        d.send(number, "Hi", provider=vendor)
        inbox = partial(sandbox.inbox, number)
        until(inbox, what="a text to answer")
        for said, word in enumerate(("STOP", "stop", "HELP"), start=1):
            sandbox.text(vendor, number, word, to=ours)
            until(partial(_has, partial(texts, d), 3 * came + said), what="the text")
        until(partial(_has, inbox, 3), what="the answer to HELP")
        hello, *told = inbox()
        assert [one.text for one in told] == answers
        assert {one.sender == ours for one in told} == {vendor == "thetexting"}
        assert d.send(number, "Hi", provider=vendor).state == "failed"
        assert hello.text == "Hi"


def _has(listed: Callable[[], list[Any]], many: int) -> bool:
    return len(listed()) == many


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


def test_a_worker_that_dies_of_a_callback_does_so_no_more_than_thrice(house: House, run: Callable[..., Ended]) -> None:
    """And what came with it is read."""
    house.start()
    house.ring(kind="deadly")
    for number in range(3):
        worker = house.worker("--concurrency", "1", name=f"victim{number}")
        assert worker.wait() == -9
    house.ring(kind="text", from_=phone(25), text="Hi", ref="7")
    house.worker("--concurrency", "1", name="survivor")
    d = house.client()
    until(lambda: texts(d) and house.redis.zcard("d:cx"), what="the text, and the deadly one aside")

    told = run("status")
    assert told.code == 1
    assert "1 of the callbacks from providers cannot be read and were set aside" in told.out
    house.deployment.close()
    again = run("receiver", "--again", "--json")
    assert (again.code, again.document) == (0, {"again": 1})


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
            answer = house.ring(kind="text", from_=phone(26), text=TEXT)
            assert (answer.status, answer.body) == (503, b"")
        own_valkey.start()
        until(lambda: house.ring(kind="text", from_=phone(26), text=TEXT).status == 200, what="Redis")
        assert call(f"{house.origin}/health", "GET").status == 200
    finally:
        house.stop()
        deployment.close()


# -- the process -------------------------------------------------------------------------------------------------------


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
def test_why_it_does_not_start(
    redis_url: str, typed: Typed, settings: dict[str, str], options: tuple[str, ...], words: str
) -> None:
    usual = {"redis_url": redis_url, "sandbox": "1", "sandbox_url": "http://127.0.0.1:1", **KEYS}
    told = {f"DISPATCHER_{name.upper()}": value for name, value in {**usual, **settings}.items() if value}
    ended = typed(told, "receiver", *options)
    assert ended.code in {1, 2}
    assert words in ended.err


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
