"""A canary run: what is private is looked for in everything that is kept, told or logged."""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from dispatcher import Dispatcher, Forgotten, Message, State, VerificationRefused, tokens
from dispatcher.settings import load
from dispatcher.store import JobStore
from tests.acceptance.test_vendors_call import call
from tests.consumer import SECRET, Consumer
from tests.consumer import listening as calling
from tests.support import WATCH, Deployment, Process, Server, phone, until
from tests.warm import WarmProcess, module
from workers.receiver import url
from workers.sandbox.client import Sandbox

#: All numbers of this run are magic ones, so that their common start is the canary: `phone(1xx)`.
NUMBERS = "77009001"
PASSWORD = "canary-Password-93"
TEXT = "Canary-Text-71"
SENDER = "CanarySend"
LIST = "Canary-List-35"
SECRET_KEY = "canary-Secret-Key-58"
HASH_KEY = "canary-Hash-Key-26"
#: What somebody types who does not know the code, where the session says they are, and what they text to us.
TYPED = "canaryTyped44"
SESSION = "canary-Session-62"
SAID = "Canary-Said-87"
#: Keys that are about people, and those of callbacks and tokens.
FAMILIES = {b"j", b"k", b"n", b"no", b"lk", b"vg", b"tf", b"tn", b"ak"}
#: What a consumer's URL has after its host.
PLACE = "/canaryPath19"
QUERY = "token=canaryQuery73"

KEYS = {"secret_key": SECRET_KEY, "hash_key": HASH_KEY}
#: The accounts that work, one of each way to make codes: told by its provider, kept by it, made here.
ACCOUNTS = ("textgoto", "mobtexting", "thetexting")


@pytest.fixture
def consumer() -> Iterator[Consumer]:
    """Somebody who is called back, and takes nothing of what is in one batch."""
    with calling() as one:
        one.answer = lambda heard: 500 if "/fails" in heard.path else 204
        yield one


@pytest.fixture
def own(own_valkey: Server, sandbox: Sandbox, consumer: Consumer, tmp_path: Path) -> Iterator[Deployment]:
    """Run as in production: keys of one's own, and accounts of which one has a wrong password."""
    accounts = {
        "providers__textgoto__uid": "sandbox",
        "providers__textgoto__pwd": "sandbox",
        "providers__mobtexting__access_token": "sandbox",
        "providers__mobtexting__sender": "ACME",
        "providers__mobtexting__webhook_secret": "sandbox",
        "providers__thetexting__api_key": "sandbox",
        "providers__thetexting__api_secret": "sandbox",
        "providers__wrong__adapter": "textgoto",
        "providers__wrong__uid": "sandbox",
        "providers__wrong__pwd": PASSWORD,
    }
    addresses = {f"providers__{name}__base_url": sandbox.url for name in (*ACCOUNTS, "wrong")}
    # Nobody hangs here, so that no deadline is waited for; one text is answered late.
    keys = {"sandbox": "", "sandbox_url": "", "deadline": "20", "lease": "30", **KEYS}
    callbacks = {
        "callback_secret": SECRET,
        "callback_private": "1",
        "callback_url": f"{consumer.url}{PLACE}?{QUERY}",
        "callback_events": "*",
    }
    one = Deployment(own_valkey.url, sandbox, tmp_path, {**accounts, **addresses, **keys, **callbacks})
    try:
        yield one
    finally:
        one.close()


class Listener:
    """Hears everything that is said on Redis' channels: Celery's events and its remote control."""

    def __init__(self, redis: Any) -> None:
        self.heard = b""
        self._channel = redis.pubsub()
        self._channel.psubscribe("*")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            message = self._channel.get_message(timeout=0.1)
            if message and isinstance(message["data"], bytes):
                self.heard += message["data"]

    def stop(self) -> bytes:
        """Return what was heard; harmless twice."""
        self._over.set()
        self._thread.join()
        self._channel.close()
        return self.heard


@pytest.fixture
def heard(own: Deployment) -> Iterator[Listener]:
    one = Listener(own.redis)
    yield one
    one.stop()


READ: dict[bytes, Callable[[Any, bytes], Any]] = {
    # Gone since it was listed.
    b"none": lambda _, key: [key],
    b"string": lambda redis, key: [redis.get(key)],
    b"list": lambda redis, key: redis.lrange(key, 0, -1),
    b"set": lambda redis, key: redis.smembers(key),
    b"zset": lambda redis, key: redis.zrange(key, 0, -1),
    b"hash": lambda redis, key: [part for pair in redis.hgetall(key).items() for part in pair],
    b"stream": lambda redis, key: [repr(redis.xrange(key)).encode()],
}


def kept(redis: Any) -> bytes:
    """Return all keys and values, in clear."""
    keys = list(redis.scan_iter(count=1000))
    return b"\n".join([*keys, *(part for key in keys for part in READ[redis.type(key)](redis, key))])


def unpacked(kept: bytes) -> bytes:
    """Return it with what is base64 opened, too: the bodies of Celery's messages, and who is called back of a job."""
    bodies = re.findall(rb'"body": ?"([A-Za-z0-9+/=]+)"', kept)
    bodies += re.findall(rb"(?m)^\S+ ([A-Za-z0-9+/=]{40,}) https?://\S+$", kept)
    return kept + b"".join(base64.b64decode(body) for body in bodies)


def on_disk(server: Server) -> bytes:
    """Everything in a server's folder: the append-only file, its base and what follows it, the snapshot, the log."""
    return b"".join(one.read_bytes() for one in server.folder.rglob("*") if one.is_file())


@pytest.mark.timeout(300)
def test_nothing_private_is_seen_anywhere(
    own: Deployment, own_valkey: Server, heard: Listener, consumer: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sandbox = own.sandbox
    dispatcher = own.client(
        sandbox=False,
        providers={"textgoto": {"uid": "sandbox"}, "wrong": {"pwd": PASSWORD}},
        callback_private=True,
        **KEYS,
    )
    # What is compressed cannot be searched.
    own.redis.config_set("rdbcompression", "no")
    token = let_in(own)
    jobs = enqueue_everything(dispatcher, consumer.url)
    seen = {"the broker and the store before": unpacked(kept(own.redis))}
    assert own.broker_messages() > 0

    worker = own.worker("-l", "DEBUG", queues=",".join((*ACCOUNTS, "wrong", "notify")))
    receiver, origin = listening(own, worker.log.parent)
    for id_ in jobs:
        dispatcher.wait(id_, timeout=60)
    until(lambda: [job for job in dispatcher.jobs(provider="wrong") if job.waiting and job.tries])
    codes = [check_code(dispatcher, sandbox, name, 145 + n) for n, name in enumerate(ACCOUNTS)]
    be_refused(dispatcher)
    be_told(dispatcher, own, origin)
    again(dispatcher)
    until(lambda: heard_all(consumer), what="the callback of a text, and one that fails")
    for id_ in jobs:
        dispatcher.get(id_, reveal=True)
    own.redis.save()
    seen["the files before anybody is forgotten"] = on_disk(own_valkey)
    seen["the store before anybody is forgotten"] = unpacked(kept(own.redis))
    families = {key.split(b":")[1] for key in own.redis.keys("d:*")}
    assert families >= FAMILIES, "the run has something of each that is about people"
    seen["the jobs"] = json.dumps([job.to_dict() for job in dispatcher.jobs(limit=100)]).encode()
    seen["the events"] = json.dumps([event.data for event in dispatcher.events("0", timeout=0)], default=str).encode()
    seen["what represents them"] = repr([dispatcher, dispatcher.settings, *dispatcher.jobs(limit=100)]).encode()
    seen["the callbacks"] = repr([[one, one.to_dict()] for one in dispatcher.callbacks()]).encode()
    seen["what is forgotten"] = be_forgotten(dispatcher, sandbox)

    seen["the store after"] = unpacked(kept(own.redis))
    seen["what is published"] = heard.stop()
    until(lambda: not rewriting(own.redis))
    own.redis.bgrewriteaof()
    until(lambda: not rewriting(own.redis), what="the file written anew")
    own.redis.save()
    for process in (receiver, worker):
        process.stop()
        seen[f"the log of {process.name}"] = process.log.read_bytes()
    seen["our own log"] = caplog.text.encode()
    own_valkey.stop()
    seen["the files"] = on_disk(own_valkey)
    own_valkey.start()
    seen["the store after a restart"] = kept(own.redis)
    seen["the files after a restart"] = on_disk(own_valkey)

    words = [NUMBERS, TEXT, SENDER, LIST, PASSWORD, SECRET_KEY, HASH_KEY, TYPED, SESSION, SAID, PLACE, QUERY, token]
    words.append(re.escape(SECRET.removeprefix("whsec_")))
    canaries = [*words, *(rf"(?<!\d){code}(?!\d)" for code in codes)]
    leaks = {(where, canary) for where, what in seen.items() for canary in canaries if re.search(canary.encode(), what)}
    # Whom a text is from, its reader knows; to those who may read jobs it is shown.
    leaks -= {("the jobs", SENDER), ("the events", SENDER)}
    assert leaks == set()
    assert all(seen.values()), "each of them was looked at"
    assert all(seen[where].count(b"d:j:") > 50 for where in seen if "files" in where)


def let_in(own: Deployment) -> str:
    """Let somebody use the HTTP API; what is secret of their token."""
    token, known = tokens.make(tenant=None, rights=["send"])
    tokens.put(JobStore(own.url, "Redis"), token, known)
    return token.removeprefix(tokens.PREFIX)


def heard_all(consumer: Consumer) -> bool:
    """Say whether somebody was called back because of a text, and somebody who took nothing."""
    return {"inbound.text"} <= {one.event["type"] for one in consumer.heard} and any(
        "/fails" in one.path for one in consumer.heard
    )


def rewriting(redis: Any) -> bool:
    """Say whether the append-only file is being written anew."""
    told = redis.info("persistence")
    return bool(told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"])


def listening(own: Deployment, folder: Path) -> tuple[Process, str]:
    """Start a receiver; it, and where it listens."""
    command = module(["dispatcher.cli", "receiver", "--port", "0", "--json"])
    process = WarmProcess(command, own.environment, folder, "receiver")
    process.wait_for('{"url":')
    origin = json.loads(next(line for line in process.output().splitlines() if line.startswith("{")))["url"]
    WATCH.port(urlsplit(origin).port or 0, "receiver")
    return process, origin


def be_refused(dispatcher: Dispatcher) -> None:
    """Ask for codes until a guard refuses one."""
    with suppress(VerificationRefused):
        for _ in range(30):
            dispatcher.verify(
                phone(148), template=f"{TEXT} [CODE]", provider="textgoto", guard_keys={"session": SESSION}
            )
        pytest.fail("no guard refused any")


def be_told(dispatcher: Dispatcher, own: Deployment, origin: str) -> None:
    """Get texts from people, a STOP, and what nobody can read; and be told by the application."""
    place = url(load(redis_url=own.url, **KEYS), origin, "thetexting")
    for text in (SAID, "STOP", "START", "STOP"):
        told = {"from": phone(149)[1:], "to": "1556985", "text": text, "datetime": f"Jun 9 2017 09:4{len(text)} AM"}
        assert call(place, "GET", query=urlencode(told)).status == 200
        assert call(place, "POST", body=f"{SAID} {phone(149)}".encode()).status == 200
    until(lambda: dispatcher.opted_out(phone(149)), what="the STOP")
    dispatcher.opt_out(phone(150))
    assert dispatcher.wait(dispatcher.send(phone(150), TEXT, provider="textgoto").id).state == State.FAILED


def forgotten(dispatcher: Dispatcher, number: str) -> Forgotten | None:
    """Forget somebody; None where something is left."""
    told = dispatcher.forget(number)
    return told if told.complete else None


def be_forgotten(dispatcher: Dispatcher, sandbox: Sandbox) -> bytes:
    """Forget people of all kinds, one of them while their text is on the wire; what is told of it."""
    people = [phone(ending) for ending in (100, 105, 125, 130, 140, 143, *range(145, 151))]
    jobs = [job.id for one in people for job in dispatcher.jobs(number=one)]
    sandbox.fault("latency", times=1, seconds=4)
    wire = dispatcher.send(phone(117), TEXT, provider="textgoto")
    until(lambda: dispatcher.get(wire.id).state == State.SENDING)
    told = [dispatcher.forget(phone(117))]
    assert (told[0].sending, told[0].complete) == (1, False)
    told += [dispatcher.forget(one) for one in people]
    assert dispatcher.wait(wire.id).good, "it was sent all the same"
    last = until(partial(forgotten, dispatcher, phone(117)), what="the end of it")
    assert last is not None
    told.append(last)
    left = dispatcher.get_many([*jobs, wire.id], reveal=True).values()
    assert {job.to + job.text for job in left} == {""}
    assert sum(one.jobs for one in told) >= len(left) > len(people)
    assert dispatcher.opted_out(phone(149)), "that is kept"
    return repr([told, [one.to_dict() for one in told]]).encode()


def again(dispatcher: Dispatcher) -> None:
    """Ask for what is remembered, and enqueue again what ended badly."""
    dispatcher.wait(dispatcher.lookup(phone(130), provider="textgoto").id)
    dispatcher.redrive_many(state="failed", provider="textgoto", limit=5)


def enqueue_everything(dispatcher: Dispatcher, consumer: str) -> list[str]:
    """Enqueue what ends in each way, a consumer told of some, and return what will settle."""
    endings = (100, 101, 102, 105, 109, 113, 115, 116, 118, 125, 130, 142)
    made = [dispatcher.send(phone(one), f"{TEXT} {one}", sender=SENDER, provider="textgoto").id for one in endings]
    messages = [Message(phone(150 + n), TEXT, idempotency_key=f"{TEXT}-{n}") for n in range(30)]
    fails = f"{consumer}{PLACE}/fails?{QUERY}"
    made += dispatcher.send_many(messages, provider="textgoto", sender=SENDER, callback_url=fails).jobs.ids
    made += [dispatcher.lookup(phone(one), provider="textgoto").id for one in (130, 132)]
    made.append(dispatcher.lookup(phone(133), provider="textgoto", callback_task="billing.on_message").id)
    made.append(dispatcher.operation("textgoto", "list.append", list=LIST, number=phone(140)).id)
    made.append(dispatcher.operation("textgoto", "optout.add", numbers=f"{phone(141)},{phone(142)}").id)
    dispatcher.send(phone(143), TEXT, sender=SENDER, provider="wrong")
    dispatcher.cancel(dispatcher.send(phone(144), TEXT, provider="textgoto", send_at=time.time() + 86400).id)
    return made


def check_code(dispatcher: Dispatcher, sandbox: Sandbox, provider: str, ending: int) -> str:
    """Verify a number, type a wrong code and the right one, and return it."""
    job = dispatcher.verify(phone(ending), template=f"{TEXT} [CODE]", provider=provider)
    assert dispatcher.wait(job.id).state == State.SENT
    (message,) = sandbox.inbox(phone(ending))
    code = message.text.rsplit(" ", 1)[1]
    assert len(code) == 6, "short ones are found by chance"
    assert not dispatcher.check(job.id, TYPED).valid
    assert dispatcher.check(job.id, code).valid
    return code
