"""Several workers, several clocks and every message several times: each text is sent once."""

from __future__ import annotations

import json
import random
import time
import uuid

from dispatcher import Message, State
from tests.support import Deployment, accepted, phone, phones, taken_by_number, until


def another(message: bytes) -> bytes:
    """Return a copy as another publisher would have made it: the same but for its delivery tag."""
    copy = json.loads(message)
    copy["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(copy).encode()


def push(deployment: Deployment, key: str, messages: list[bytes]) -> None:
    random.Random(7).shuffle(messages)
    deployment.redis.lpush(key, *messages)


def test_every_message_published_three_times(deployment: Deployment) -> None:
    """And once more after all were executed."""
    sandbox, dispatcher = deployment.sandbox, deployment.client()
    batch = dispatcher.send_many([Message(one, f"Hello {n % 7}") for n, one in enumerate(phones(450))])
    singles = [dispatcher.send(one, "Hello") for one in phones(20, start=500)]
    codes = [dispatcher.verify(one) for one in phones(5, start=520)]
    others = [dispatcher.lookup(phone(1)), dispatcher.operation("textgoto", "balance")]
    messages = deployment.published()
    assert sum(map(len, messages.values())) == 5 + 20 + 5 + 2
    for key, once in messages.items():
        push(deployment, key, [*once, *map(another, once)])

    worker = deployment.worker()
    assert batch.wait() == {"sent": 450}
    ids = [one.id for one in (*singles, *codes, *others)]
    assert {str(dispatcher.wait(id_).state) for id_ in ids} == {"sent", "completed"}
    until(lambda: deployment.broker_messages() == 0, what="an empty broker")
    before = {id_: job.seq for id_, job in dispatcher.get_many([*batch.jobs.ids, *ids]).items()}

    for key, once in messages.items():
        push(deployment, key, [*map(another, once), *map(another, once)])
    until(lambda: deployment.broker_messages() == 0, what="an empty broker")
    worker.stop()
    assert {id_: job.seq for id_, job in dispatcher.get_many([*batch.jobs.ids, *ids]).items()} == before
    assert taken_by_number(sandbox) == dict.fromkeys([*phones(450), *phones(25, start=500)], 1)
    assert sandbox.counts().requests["textgoto"] == {
        "SEND_MSISDN": len({row.request for row in accepted(sandbox.ledger()) if row.kind == "send"}),
        "VERIFICATION": 5,
        "HLR": 1,
        "CHECK_BALANCE": 1,
    }


def test_a_second_worker_joins_and_the_first_is_told_to_end(deployment: Deployment) -> None:
    """Nobody waits for a deploy: what the first has on the wire it finishes, the rest goes to the second."""
    sandbox, dispatcher = deployment.sandbox, deployment.client()
    sandbox.fault("latency", seconds=1)
    slow = {"connections": "40", "providers__textgoto__concurrency": "2"}
    first = deployment.worker(name="first", **slow)
    batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(1000)])
    second = deployment.worker(name="second", **slow)
    until(second.executed, what="a message for the second worker")

    assert batch.counts.get("queued", 0) > 100, "it ends in the middle"
    first.terminate()
    assert first.wait() == 0
    assert batch.counts.get("queued", 0) > 100, "nor has it sent all of that"
    sandbox.clear()
    assert batch.wait(timeout=60) == {"sent": 1000}
    assert taken_by_number(sandbox) == dict.fromkeys(phones(1000), 1)
    assert {job.attempts for job in batch.jobs} == {1}
    assert len(first.executed()) >= 2
    assert len(second.executed()) >= 2


def test_a_campaign_needs_no_help_of_the_clock(deployment: Deployment) -> None:
    """Each job is taken once and sent at its first attempt, however many are on the wire at once."""
    dispatcher = deployment.client()
    worker = deployment.worker(lost_after="10")
    deployment.sandbox.fault("latency", seconds=0.2)
    batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(1000)])
    assert batch.wait() == {"sent": 1000}
    assert {job.seq for job in batch.jobs} == {3}, "queued, sending, sent"
    assert "ERROR" not in worker.output()
    assert "WARNING/MainProcess] " not in worker.output()


def test_two_clocks_wake_each_job_once(deployment: Deployment) -> None:
    """Both serve schedules, retries and lost messages; what both find is sent once."""
    sandbox, dispatcher = deployment.sandbox, deployment.client()
    soon = time.time() + 4
    scheduled = dispatcher.send_many([Message(one, "Hello") for one in phones(300)], send_at=soon)
    lost = dispatcher.send_many([Message(one, "Hello") for one in phones(300, start=300)])
    assert deployment.lose_messages() == 1
    retried = [dispatcher.send(phone(ending), "Hello", category="otp") for ending in (104, 106, 119)]
    workers = [deployment.start_worker(name=name) for name in ("one", "two")]
    for worker in workers:
        worker.ready()

    assert lost.wait() == {"sent": 300}
    assert scheduled.wait() == {"sent": 300}
    assert [dispatcher.wait(job.id).state for job in retried] == [State.SENT] * 3
    assert taken_by_number(sandbox) == {
        **dict.fromkeys(phones(600), 1),
        **dict.fromkeys((phone(104), phone(106), phone(119)), 1),
    }
    assert {job.attempts for job in (*scheduled.jobs, *lost.jobs)} == {1}
    assert all(row.at >= soon for row in accepted(sandbox.ledger()) if f"+{row.msisdn}" in phones(300))


class TestCodesOvertake:
    def test_what_waits_when_a_worker_starts(self, deployment: Deployment) -> None:
        """Only `-Q textgoto` was given; its high lane is served, and first."""
        dispatcher = deployment.client()
        dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(2000)])
        code = dispatcher.verify(phone(1))
        deployment.worker()
        dispatcher.wait(code.id)
        (row,) = [row for row in accepted(deployment.sandbox.ledger()) if row.kind == "verify"]
        assert row.n <= 512, "among those that it takes into its hands first, all at once"

    def test_while_a_campaign_is_running(self, deployment: Deployment) -> None:
        """The provider takes half a second for each answer; a code is not to wait for all the worker has at hand."""
        dispatcher = deployment.client()
        deployment.worker()
        deployment.sandbox.fault("latency", seconds=0.5, action="SEND_MSISDN")
        batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(4000)])
        until(lambda: batch.counts.get("sent", 0) >= 500, what="a worker that has its hands full")
        code = dispatcher.verify(phone(1))
        before = sum(deployment.sandbox.counts().accepted.values())
        assert dispatcher.wait(code.id).state == State.SENT
        (row,) = [row for row in accepted(deployment.sandbox.ledger()) if row.kind == "verify"]
        assert row.n <= before + 1000, "the campaign is far from its end"
