"""A canary run: what is private is looked for in everything that is kept, told or logged."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, Message, State
from tests.support import Deployment, Server, phone, until
from workers.sandbox.client import Sandbox

#: All numbers of this run are magic ones, so that their common start is the canary: `phone(1xx)`.
NUMBERS = "77009001"
PASSWORD = "canary-Password-93"
TEXT = "Canary-Text-71"
SENDER = "CanarySend"
LIST = "Canary-List-35"
SECRET_KEY = "canary-Secret-Key-58"
HASH_KEY = "canary-Hash-Key-26"


@pytest.fixture
def own(own_valkey: Server, sandbox: Sandbox, tmp_path: Path) -> Iterator[Deployment]:
    """Run as in production: keys of one's own, and two accounts of which one has a wrong password."""
    accounts = {
        "providers__textgoto__uid": "sandbox",
        "providers__textgoto__pwd": "sandbox",
        "providers__wrong__adapter": "textgoto",
        "providers__wrong__uid": "sandbox",
        "providers__wrong__pwd": PASSWORD,
    }
    addresses = {f"providers__{name}__base_url": sandbox.url for name in ("textgoto", "wrong")}
    keys = {"sandbox": "", "sandbox_url": "", "secret_key": SECRET_KEY, "hash_key": HASH_KEY}
    one = Deployment(own_valkey.url, sandbox, tmp_path, {**accounts, **addresses, **keys})
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
    """Return it with the bodies of Celery's messages, which are base64 in JSON, opened too."""
    bodies = re.findall(rb'"body": ?"([A-Za-z0-9+/=]+)"', kept)
    return kept + b"".join(base64.b64decode(body) for body in bodies)


def test_nothing_private_is_seen_anywhere(own: Deployment, own_valkey: Server, heard: Listener) -> None:
    sandbox = own.sandbox
    dispatcher = own.client(
        sandbox=False,
        secret_key=SECRET_KEY,
        hash_key=HASH_KEY,
        providers={"textgoto": {"uid": "sandbox"}, "wrong": {"pwd": PASSWORD}},
    )
    jobs = enqueue_everything(dispatcher)
    seen = {"the broker and the store before": unpacked(kept(own.redis))}
    assert own.broker_messages() > 0

    worker = own.worker("-l", "DEBUG", queues="textgoto,wrong")
    for id_ in jobs:
        dispatcher.wait(id_, timeout=30)
    until(lambda: [job for job in dispatcher.jobs(provider="wrong") if job.waiting and job.tries])
    code = check_code(dispatcher, sandbox)
    for id_ in jobs:
        dispatcher.get(id_, reveal=True)

    seen["the store after"] = unpacked(kept(own.redis))
    seen["what is published"] = heard.stop()
    worker.stop()
    seen["the worker's log"] = worker.log.read_bytes()
    seen["the jobs"] = json.dumps([job.to_dict() for job in dispatcher.jobs(limit=100)]).encode()
    seen["the events"] = json.dumps([event.data for event in dispatcher.events("0", timeout=0)]).encode()
    seen["what represents them"] = repr([dispatcher, dispatcher.settings, *dispatcher.jobs(limit=100)]).encode()
    own_valkey.stop()
    seen["the files"] = b"".join(one.read_bytes() for one in own_valkey.folder.rglob("*") if one.is_file())

    canaries = [NUMBERS, TEXT, SENDER, LIST, PASSWORD, SECRET_KEY, HASH_KEY, rf"(?<!\d){code}(?!\d)"]
    leaks = {(where, canary) for where, what in seen.items() for canary in canaries if re.search(canary.encode(), what)}
    # Whom a text is from, its reader knows; to those who may read jobs it is shown.
    leaks -= {("the jobs", SENDER), ("the events", SENDER)}
    assert leaks == set()
    assert all(seen.values()), "each of them was looked at"
    assert b"d:j:" in seen["the files"]


def enqueue_everything(dispatcher: Dispatcher) -> list[str]:
    """Enqueue what ends in each way, and return what will settle."""
    endings = (100, 101, 102, 105, 109, 113, 115, 116, 118, 125, 130, 142)
    made = [dispatcher.send(phone(one), f"{TEXT} {one}", sender=SENDER, provider="textgoto").id for one in endings]
    messages = [Message(phone(150 + n), TEXT, idempotency_key=f"{TEXT}-{n}") for n in range(30)]
    made += dispatcher.send_many(messages, provider="textgoto", sender=SENDER).jobs.ids
    made += [dispatcher.lookup(phone(one), provider="textgoto").id for one in (130, 132, 133)]
    made.append(dispatcher.operation("textgoto", "list.append", list=LIST, number=phone(140)).id)
    made.append(dispatcher.operation("textgoto", "optout.add", numbers=f"{phone(141)},{phone(142)}").id)
    dispatcher.send(phone(143), TEXT, sender=SENDER, provider="wrong")
    dispatcher.cancel(dispatcher.send(phone(144), TEXT, provider="textgoto", send_at=time.time() + 86400).id)
    return made


def check_code(dispatcher: Dispatcher, sandbox: Sandbox) -> str:
    """Verify a number, type a wrong code and the right one, and return it."""
    job = dispatcher.verify(phone(145), template=f"{TEXT} [CODE]", provider="textgoto")
    assert dispatcher.wait(job.id).state == State.SENT
    (message,) = sandbox.inbox(phone(145))
    code = message.text.rsplit(" ", 1)[1]
    assert not dispatcher.check(job.id, "x").valid
    assert dispatcher.check(job.id, code).valid
    return code
