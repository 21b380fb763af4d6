"""What a real worker leaves in Redis: of ours nothing for ever, of the broker's nothing that grows with the jobs."""

from __future__ import annotations

import re
import time
from typing import Any

from dispatcher import Message
from dispatcher.queues import KEY_PREFIX
from tests.support import SHORT, Deployment, phone, phones, until
from tests.unit.test_retention import LASTING, lifetimes, strays

#: Seconds that jobs and events are kept here.
KEPT = 3

#: What is there for longer than jobs, beside the keys of `LASTING`.
WORKERS = {
    r"d:hb": "names of workers, trimmed by age with each beat",
    r"d:ha": "names of accounts",
    r"d:u:.*": "what a day used, which has a retention of its own",
    r"d:n:[\d-]+": "jobs by number, which go as the day ends that they are kept until",
    r"d:lu:.*": "what was used of late, and how requests ended, for some minutes",
}

#: What the broker keeps, and why it does not grow with jobs. Lists of messages and of answers come and go.
BROKER = {
    r"_kombu\.binding\.celery\.pidbox": "an entry for each worker, by which it can be asked",
    r"_kombu\.binding\.reply\.celery\.pidbox": "an entry for each who asked, swept after an hour",
    r"_kombu\.binding_deadlines": "an entry for each exchange",
    r"_kombu\.binding(_permanent)?\.dispatcher": "an entry for each queue",
}


def members(redis: Any) -> dict[str, int]:
    """The keys of the broker with how many members each has; a queue has messages, until they are taken."""
    count = {b"list": redis.llen, b"set": redis.scard, b"zset": redis.zcard, b"none": lambda _: 0}
    keys = redis.scan_iter(match=f"{KEY_PREFIX}*", count=1000)
    return {key.decode().removeprefix(KEY_PREFIX): count[redis.type(key)](key) for key in keys}


def bindings(redis: Any) -> dict[str, int]:
    return {key: size for key, size in members(redis).items() if key.startswith("_")}


def test_a_worker_leaves_nothing_for_ever(deployment: Deployment) -> None:
    """Jobs of every kind, through a worker, the sandbox and its faults, until all is forgotten."""
    kept = {"retention": str(KEPT), "events_retention": str(KEPT), "lookup_lifetime": str(KEPT)}
    deployment.worker("--concurrency", "4", **SHORT, **kept)
    # What guards count goes with their windows, which are not waited for here.
    d, redis = deployment.client(retention=KEPT, events_retention=KEPT, guards="off"), deployment.redis
    d.send_many([Message(number, "Hi", idempotency_key=number) for number in phones(50)], batch_id="closed")
    for ending in (1, 100, 101, 104, 110):
        d.send_many([Message(phone(ending), "Hi")], batch_id="open", more=True)
    d.send_many([Message(phone(2), "Hi")], batch_id="cancelled", send_at=time.time() + 1)
    d.cancel_batch("cancelled")
    d.verify(phone(3), code_ttl=1)
    d.lookup(phone(4))
    d.operation("textgoto", "balance", reference="nobody's")
    d.send(phone(5), "Hi", send_at=time.time() + 0.5)
    d.send(phone(6), "Hi", valid_for=0.001)

    def busy() -> int:
        return sum(redis.zcard(f"d:i:textgoto:{state}") for state in ("queued", "sending"))

    until(lambda: not busy(), 30, "the last end")
    found = {key for key in strays(lifetimes(redis)) if not any(re.fullmatch(one, key) for one in WORKERS)}
    assert found == set()

    def left() -> set[str]:
        """What is not one of the few that stay; a worker that lives is there, too."""
        stays = [*LASTING, *WORKERS, r"d:hb:.*"]
        keys = {key for key in lifetimes(redis) if not any(re.fullmatch(one, key) for one in stays)}
        return keys | {key for key in lifetimes(redis) if key.startswith("d:i:")}

    until(lambda: not left(), 30, "the time when all is forgotten")
    until(lambda: redis.xlen("d:e") == 0, what="the end of the last event")


def test_no_key_of_the_broker_grows_with_the_jobs(deployment: Deployment) -> None:
    deployment.worker()
    d, redis = deployment.client(), deployment.redis

    def work() -> dict[str, int]:
        batch = d.send_many([Message(number, "Hi") for number in phones(300)])
        for number in phones(20):
            d.lookup(number)
        assert batch.wait(timeout=60) == {"sent": 300}
        until(lambda: not redis.zcard("d:i:textgoto:queued") + redis.zcard("d:i:textgoto:sending"), what="the rest")
        return bindings(redis)

    first = work()
    assert [work(), work()] == [first, first]
    assert {key for key in first if not any(re.fullmatch(one, key) for one in BROKER)} == set()
    # The worker asks something of itself now and then.
    until(lambda: members(redis) == first, what="empty queues")
