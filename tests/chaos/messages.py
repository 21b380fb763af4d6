"""What happens to messages: they are lost, come many times, or come from another release."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dispatcher import State
from dispatcher.jobs import Lane
from dispatcher.queues import EXECUTE, KEY_PREFIX, RECEIVE, queue_name
from tests.acceptance.test_many_workers import another
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import accepted

#: What a call carries beside its arguments, as Celery writes it.
_EMBEDDED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@scenario(
    "messages-dropped",
    "The broker's lists are deleted again and again while texts wait in them.",
    proves="the clock finds every job whose message is lost, and publishes it again",
    full={"times": 8},
    short={"times": 2},
)
def dropped(lab: Lab, times: int) -> None:
    lab.sandbox.fault("latency", seconds=0.1)
    # It is slower than the producers, so that there is something to lose.
    lab.worker("--concurrency", "2")
    with lab.load(rate=60, text=90, code=5, urgent=5):
        for _ in range(times):
            soon(lambda: lab.deployment.broker_messages() > 20, "a backlog")
            lab.inject("lost message", _lose(lab))
            lab.pause(0.5, 2)
    # A second for each hundred of the backlog, and what is lost is found in a slot of ten.
    lab.in_time("to find them", lab.settle(), 60)
    lab.demand(f"{lab.unknown()} are unknown", holds=lab.unknown() == 0)


def _lose(lab: Lab) -> int:
    """Delete what lies on the broker; return how many messages that were."""
    keys = list(lab.deployment.published())
    with lab.redis.pipeline(transaction=True) as pipe:
        for key in keys:
            pipe.llen(key)
        pipe.delete(*keys)
        *lengths, _ = pipe.execute()
    return sum(lengths)


@scenario(
    "messages-tripled",
    "Every message is put on the broker three times and shuffled, and all of them once more when all is done.",
    proves="a message that comes again changes nothing",
    full={"texts": 600},
    short={"texts": 100},
)
def tripled(lab: Lab, texts: int) -> None:
    for _ in range(texts // 2):
        lab.send(category=lab.random.choice(["transactional", "otp"]))
    lab.send_many(texts // 2)
    lab.d.lookup(lab.number(), provider="textgoto")
    once = lab.deployment.published()
    for key, messages in once.items():
        _push(lab, key, [another(one) for one in messages for _ in range(2)])
    workers = [lab.start_worker() for _ in range(2)]
    lab.settle()
    soon(lambda: lab.deployment.broker_messages() == 0, "an empty broker")
    before = {job.id: job.seq for job in lab.jobs().values()}

    for key, messages in once.items():
        _push(lab, key, [another(one) for one in messages])
    soon(lambda: lab.deployment.broker_messages() == 0, "an empty broker")
    lab.settle()
    for one in workers:
        one.stop()
    after = lab.jobs()
    lab.demand("what came again is in histories", holds={job.id: job.seq for job in after.values()} == before)
    attempts = {job.attempts for job in after.values()}
    lab.demand(f"jobs took {attempts} attempts, one is enough", holds=attempts == {1})


def _push(lab: Lab, key: str, messages: list[bytes]) -> None:
    lab.random.shuffle(messages)
    if messages:
        lab.redis.lpush(key, *messages)
        lab.inject("message published again", len(messages))


@scenario(
    "producer-kill",
    "Producers are killed (-9) between the record of a job and its message.",
    proves="what was recorded is done, though its message was never written",
    full={"producers": 8, "texts": 40},
    short={"producers": 1, "texts": 5},
)
def producer_kill(lab: Lab, producers: int, texts: int) -> None:
    lab.worker()
    for number in range(producers):
        numbers = [lab.number() for _ in range(texts)]
        told = lab.folder / f"producer{number}.ids"
        die_at = lab.random.randrange(texts)
        process = lab.process(
            ["-m", "tests.chaos.producer"],
            f"producer{number}",
            {
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "CHAOS": json.dumps({"numbers": numbers, "text": lab.text(), "die_at": die_at, "told": str(told)}),
            },
        )
        lab.demand("a producer outlived its end", holds=process.wait(60) == -9)
        lab.inject("kill -9 of a producer between record and message")
        ids = told.read_text().split()
        lab.accepted |= dict(zip(ids, numbers, strict=False))
        lab.demand("a producer was told of what it died of", holds=len(ids) == die_at)
    lab.settle()
    jobs = lab.jobs()
    lab.demand("not every record is there", holds=len(jobs) == len(lab.accepted) + producers)
    lab.demand("not all are sent", holds={job.state for job in jobs.values()} == {State.SENT})


@scenario(
    "messages-of-other-releases",
    "Between the messages come others: of unknown tasks, with unknown arguments, of another shape or encoding.",
    proves="what this release cannot read ends no worker, and loses no job",
    full={"rounds": 10},
    short={"rounds": 1},
)
def other_releases(lab: Lab, rounds: int) -> None:
    workers = [lab.worker() for _ in range(2)]
    sample = _sample(lab)
    with lab.load(rate=40):
        for _ in range(rounds):
            names = list(_STRANGE)
            lab.random.shuffle(names)
            for name in names:
                # Only the strange message tells of it.
                number = lab.number()
                id_ = _unpublished(lab, number)
                lab.accepted[id_] = number
                queue = KEY_PREFIX + queue_name("textgoto", lab.random.choice(list(Lane)))
                lab.redis.lpush(queue, json.dumps(_STRANGE[name](sample, id_)))
                lab.inject("message of another shape than ours")
            lab.pause(0.3, 1)
    lab.settle()
    alive = [one.popen.poll() is None for one in workers]
    lab.demand(f"{alive.count(False)} workers ended of a message", holds=all(alive))
    states = {str(job.state) for job in lab.jobs().values()}
    lab.demand(f"jobs are {states}", holds=states == {State.SENT})
    lab.demand("not all are with the provider", holds=len(accepted(lab.sandbox.ledger())) == len(lab.accepted))


def _unpublished(lab: Lab, number: str) -> str:
    """Enqueue a text as a producer does whose message gets lost."""
    d = lab.client()
    d._publish = lambda *_: None  # type: ignore[method-assign]  # that is the producer's fault
    return d.send(number, lab.text(), provider="textgoto").id


def _sample(lab: Lab) -> dict[str, Any]:
    """Return a message as this release writes it."""
    sent = lab.redis.monitor()
    with sent as monitor:
        lab.send()
        for command in monitor.listen():
            _, _, pushed = command["command"].partition(f"LPUSH {KEY_PREFIX}textgoto ")
            if pushed:
                found: dict[str, Any] = json.loads(pushed)
                return found
    raise AssertionError("no message was published")


def _message(sample: dict[str, Any], body: Any, task: str = EXECUTE, **changes: Any) -> dict[str, Any]:
    name = str(uuid.uuid4())
    return {
        **sample,
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "headers": {**sample["headers"], "task": task, "id": name, "root_id": name},
        "properties": {**sample["properties"], "delivery_tag": str(uuid.uuid4()), "correlation_id": name},
        **changes,
    }


#: What a message for a job may look like that another release, or a stranger, wrote.
_STRANGE: Final[dict[str, Callable[[dict[str, Any], str], dict[str, Any]]]] = {
    "an unknown task": lambda usual, id_: _message(usual, [[[id_]], {}, _EMBEDDED], f"{EXECUTE}_v2"),
    "another argument": lambda usual, id_: _message(usual, [[[id_], {"version": 2}], {}, _EMBEDDED]),
    "named arguments": lambda usual, id_: _message(usual, [[], {"ids": [id_], "version": 2}, _EMBEDDED]),
    "unknown names": lambda usual, id_: _message(usual, [[], {"jobs": [{"id": id_}]}, _EMBEDDED]),
    "a dict for a list": lambda usual, id_: _message(usual, [[{"version": 2, "ids": [id_]}], {}, _EMBEDDED]),
    "dicts in the list": lambda usual, id_: _message(usual, [[[{"id": id_, "version": 2}]], {}, _EMBEDDED]),
    "text for a list": lambda usual, id_: _message(usual, [[id_], {}, _EMBEDDED]),
    "nothing": lambda usual, _: _message(usual, [[], {}, _EMBEDDED]),
    "null": lambda usual, _: _message(usual, [[None], {}, _EMBEDDED]),
    "a number": lambda usual, _: _message(usual, [[7], {}, _EMBEDDED]),
    "ids of nobody": lambda usual, _: _message(usual, [[["0" * 26, "", "x" * 5000]], {}, _EMBEDDED]),
    "a task of another queue": lambda usual, id_: _message(usual, [[[id_]], {}, _EMBEDDED], RECEIVE),
    "another body": lambda usual, id_: _message(usual, {"version": 2, "ids": [id_]}),
    "no headers": lambda usual, id_: _message(usual, [[[id_]], {}, _EMBEDDED], headers={}),
    "pickle": lambda usual, id_: _message(
        usual, [[[id_]], {}, _EMBEDDED], **{"content-type": "application/x-python-serialize"}
    ),
    "msgpack": lambda usual, id_: _message(
        usual, [[[id_]], {}, _EMBEDDED], **{"content-type": "application/x-msgpack"}
    ),
}
