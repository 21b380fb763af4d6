"""What is killed at any point of the way, and exactly how its jobs end once somebody else has taken over.

All rows of the tables are played at once, each by a worker that dies at its point and has an account of its own. Then
one worker that lives on takes over all accounts.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
from celery.signals import worker_ready

import dispatcher.client
import workers.receiver
from dispatcher import Dispatcher, Job, Message
from dispatcher.callbacks import CallbackCalls
from dispatcher.calls import Calls
from dispatcher.queues import EXECUTE
from dispatcher.settings import load
from tests.support import WATCH, Deployment, Server, phones, until
from tests.warm import WarmProcess, module
from workers.failpoints import POINTS, VARIABLE
from workers.limits import RedisLimiter
from workers.receiver import url
from workers.sandbox.client import Sandbox
from workers.sandbox.world import Row
from workers.wire import Wire

#: Long enough for a loaded machine; all rows wait for them at once.
TIMES: Final = {"deadline": "4", "lease": "8", "lost_after": "1"}

#: Seconds; the first test waits for all that dies.
pytestmark = pytest.mark.timeout(300)

#: Workers that start at once; each is gone a moment later.
AT_ONCE: Final = 6

KEYS: Final = {"secret_key": "a secret key of tests", "hash_key": "a hash key of tests"}

KILLED: Final = 137

TEXTGOTO: Final = {"adapter": "textgoto", "uid": "sandbox", "pwd": "sandbox"}

#: The states that a job goes through.
SENT: Final = "queued sending sent"
UNKNOWN: Final = "queued sending unknown"
SENT_AGAIN: Final = "queued sending queued sending sent"
FOUND: Final = "queued sending completed"
FOUND_AGAIN: Final = "queued sending queued sending completed"
REFUSED: Final = "queued failed"


class End(NamedTuple):
    """How a job ends: its states, and how often the provider did what it is for."""

    states: str
    done: int


#: By point and what the job is: a text, one that its caller lets be sent again, one that its adapter refuses, a
#: verification, a lookup (repeated once), a balance (repeated always).
TABLE: Final[Mapping[tuple[str, str], End]] = {
    ("take.before", "text"): End(SENT, 1),
    ("take.after", "text"): End(SENT, 1),
    ("permit.before", "text"): End(SENT, 1),
    ("permit.after", "text"): End(SENT, 1),
    ("claim.before", "text"): End(SENT, 1),
    # From here on nobody can tell: the intent is durable, and nothing is about what followed.
    ("claim.after", "text"): End(UNKNOWN, 0),
    ("connect.before", "text"): End(UNKNOWN, 0),
    ("connect.after", "text"): End(UNKNOWN, 0),
    ("write.before", "text"): End(UNKNOWN, 0),
    ("write.after", "text"): End(UNKNOWN, 1),
    ("read.before", "text"): End(UNKNOWN, 1),
    ("read.after", "text"): End(UNKNOWN, 1),
    ("finish.before", "text"): End(UNKNOWN, 1),
    ("finish.after", "text"): End(SENT, 1),
    ("ack.before", "text"): End(SENT, 1),
    ("ack.after", "text"): End(SENT, 1),
    ("claim.after", "text to be resent"): End(SENT_AGAIN, 1),
    ("write.after", "text to be resent"): End(SENT_AGAIN, 2),
    ("finish.after", "text to be resent"): End(SENT, 1),
    ("claim.after", "verification"): End(UNKNOWN, 0),
    ("write.after", "verification"): End(UNKNOWN, 1),
    ("finish.after", "verification"): End(SENT, 1),
    ("claim.after", "lookup"): End(FOUND_AGAIN, 1),
    ("write.after", "lookup"): End(FOUND_AGAIN, 2),
    ("finish.after", "lookup"): End(FOUND, 1),
    ("claim.after", "balance"): End(FOUND_AGAIN, 1),
    ("write.after", "balance"): End(FOUND_AGAIN, 2),
    ("finish.after", "balance"): End(FOUND, 1),
    # It is never claimed.
    ("finish.before", "refused text"): End(REFUSED, 0),
    ("finish.after", "refused text"): End(REFUSED, 0),
}

#: Of a producer: dying before it has recorded a job, before it has published it, and before it says so.
PRODUCER: Final = {"create.before": False, "publish.before": True, "publish.after": True}

ACCOUNTS: Final = {row: re.sub(r"\W", "_", " ".join(row)) for row in TABLE}
OTHERS: Final = ("chunk", *(f"producer_{point.replace('.', '_')}" for point in PRODUCER))
NUMBERS: Final = dict(zip([*TABLE, *PRODUCER], phones(len(TABLE) + len(PRODUCER)), strict=True))
CHUNK: Final = phones(8, start=500)


class Fire:
    """What became of everything."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.folder = folder
        self._open = ExitStack()
        accounts = {one: {"adapter": "textgoto"} for one in (*ACCOUNTS.values(), *OTHERS)}
        self.d = deployment.client(providers=accounts, **KEYS)
        self.jobs: dict[tuple[str, str] | str, Job] = {}
        self.found: dict[str, int] = {}
        self.batch: dict[str, int] = {}
        self.texts: list[Any] = []
        self.rows: list[Row] = []

    def play(self) -> None:
        """Let everything die, at the same time where that is possible; then let one worker take over."""
        killings: list[Callable[[], None]] = [partial(self.job_s_worker, row) for row in TABLE]
        killings += [self.chunk_s_worker, self.receivers, *(partial(self.producer, point) for point in PRODUCER)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for killed in [pool.submit(killing) for killing in killings]:
                killed.result()
        self.worker([*ACCOUNTS.values(), *OTHERS, "mobtexting"], "successor").ready()
        for point in PRODUCER:
            self.jobs[point] = send(self.d, point, NUMBERS[point])
        # What does not end shall fail its own row only.
        with suppress(AssertionError):
            until(self.settled, 90)
        self.rows = self.deployment.sandbox.ledger()

    def settled(self) -> bool:
        """Look at all of them, and say whether they have come to their end."""
        seen = self.d.get_many([one.id for one in self.jobs.values()])
        self.jobs = {row: seen[one.id] for row, one in self.jobs.items()}
        self.texts = [one for one in self.d.events("0", timeout=0, reveal=True) if one.type == "inbound.text"]
        self.batch = (batch := self.d.batch("chunk")).counts
        return batch.settled and self.texts != [] and all(one.settled for one in self.jobs.values())

    def close(self) -> None:
        self._open.close()
        self.deployment.close()

    def worker(self, accounts: list[str], name: str, **environment: str) -> WarmProcess:
        return self.start(worker(accounts, name), name, **environment)

    def start(self, run: Callable[[], object], name: str, **environment: str) -> WarmProcess:
        process = WarmProcess(run, {**self.deployment.environment, **environment}, self.folder, name)
        self._open.callback(process.kill)
        return process

    # -- what dies ---------------------------------------------------------------------------------------------------

    def job_s_worker(self, row: tuple[str, str]) -> None:
        (point, what), account, number = row, ACCOUNTS[row], NUMBERS[row]
        enqueue: dict[str, Callable[[], Job]] = {
            "text": lambda: self.d.send(number, "Hi", provider=account),
            "text to be resent": lambda: self.d.send(number, "Hi", provider=account, on_unknown="resend"),
            "refused text": lambda: self.d.send(number, "Hi", provider=account, options={"colour": "red"}),
            "verification": lambda: self.d.verify(number, provider=account),
            "lookup": lambda: self.d.lookup(number, provider=account),
            "balance": lambda: self.d.operation(account, "balance"),
        }
        self.jobs[row] = enqueue[what]()
        self.dies(self.worker([account], account, **{VARIABLE: point}))

    def chunk_s_worker(self) -> None:
        self.d.send_many([Message(one, f"Hi {one}") for one in CHUNK], provider="chunk", batch_id="chunk")
        self.dies(self.worker(["chunk"], "chunk", DISPATCHER_CONNECTIONS="2", **{VARIABLE: "write.after"}))

    def producer(self, point: str) -> None:
        self.dies(self.start(partial(produce, point, NUMBERS[point]), f"producer_{point}"))
        self.found[point] = len(self.d.jobs(number=NUMBERS[point]))

    def receivers(self) -> None:
        """Each dies of the same callback, which its provider makes until it is answered: it never is."""
        for name in ("put", "publish"):
            process = self.start(partial(receive, name), f"receiver_{name}")
            process.wait_for("http://")
            origin = process.output().split()[0]
            WATCH.port(urlsplit(origin).port or 0, process.name)
            with pytest.raises((http.client.HTTPException, OSError)):
                ring(url(load(redis_url=self.deployment.url, sandbox=True, **KEYS), "", "mobtexting"), origin)
            self.dies(process)

    def dies(self, process: WarmProcess) -> None:
        assert process.wait(60) == KILLED, process.output()


def worker(accounts: list[str], name: str) -> Callable[[], object]:
    arguments = ["celery", "-A", "workers", "worker", "-Q", ",".join(accounts), "-l", "INFO", "-n", f"{name}@%h"]
    return module([*arguments, "--without-mingle", "--concurrency", "8"])


def send(d: Dispatcher, point: str, number: str) -> Job:
    return d.send(number, "Hi", provider=f"producer_{point.replace('.', '_')}", idempotency_key=point)


def dying(owner: object, name: str, *, after: bool = False) -> None:
    """Let the process die before the next call of this function, or after it."""
    whole = getattr(owner, name)

    def dies(*arguments: Any, **named: Any) -> None:
        if after:
            whole(*arguments, **named)
        os._exit(KILLED)

    setattr(owner, name, dies)


def produce(point: str, number: str) -> None:
    """Be an application that dies while it sends."""
    step, _, when = point.partition(".")
    with Dispatcher() as d:
        dying({"create": Calls, "publish": dispatcher.client}[step], step, after=when == "after")
        send(d, point, number)


def receive(name: str) -> None:
    """Be a receiver that dies before it has kept a callback ("put"), or before it says that it is there ("publish")."""

    async def told(origin: str) -> None:
        print(origin)
        await asyncio.sleep(0)

    dying({"put": CallbackCalls, "publish": workers.receiver}[name], name)
    workers.receiver.run(load(), ready=told)


def ring(path: str, origin: str) -> None:
    """Be a provider that tells of a text."""
    told = {
        "event": "vmn:message:in",
        "payload": {
            "id": "7d6e",
            "channels": [{"name": "vmn", "to": "447700900999"}],
            "recipient": {"from": "447700900001", "user": {}},
            "message": {"type": "text", "payload": {"text": "Hi"}},
        },
    }
    connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=20)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sandbox"}
    try:
        connection.request("POST", path, msgspec.json.encode(told), headers)
        connection.getresponse()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def fire(tmp_path_factory: pytest.TempPathFactory, sandbox_process: Sandbox) -> Iterator[Fire]:
    sandbox_process.reset()
    folder = tmp_path_factory.mktemp("failpoints")
    accounts: dict[str, str] = {}
    for name in (*ACCOUNTS.values(), *OTHERS):
        accounts |= {f"providers__{name}__{field}": one for field, one in TEXTGOTO.items()}
    with Server(folder / "valkey") as server:
        deployment = Deployment(server.url, sandbox_process, folder, {**accounts, **KEYS, **TIMES})
        one = Fire(deployment, folder)
        try:
            one.play()
            yield one
        finally:
            one.close()


def states(job: Job) -> str:
    """Return the states that a job went through; what was noted in between moved nothing."""
    return " ".join(state for state, _ in groupby(one.state for one in job.history))


def labelled(row: tuple[str, str]) -> Any:
    return pytest.param(row, id=f"{row[1]}, {row[0]}")


@pytest.mark.parametrize("row", [*map(labelled, TABLE)])
def test_how_a_job_ends_whose_worker_died_at(fire: Fire, row: tuple[str, str]) -> None:
    job, end = fire.jobs[row], TABLE[row]
    assert states(job) == end.states
    assert job.attempts == end.states.split().count("sending")
    assert ("its worker died" in job.history[-1].detail) == (job.state == "unknown")
    if row[1] != "balance":
        assert sum(one.accepted and one.msisdn == NUMBERS[row][1:] for one in fire.rows) == end.done
    # The provider may have taken it twice, and the caller is told so.
    assert job.possible_duplicate == (end.states == SENT_AGAIN)


def test_balances_are_asked_for_no_more_often_than_that(fire: Fire) -> None:
    """A balance has no number to know it by."""
    asked = sum(one.accepted for one in fire.rows if one.kind == "balance")
    assert asked == sum(end.done for (_, what), end in TABLE.items() if what == "balance")


def test_the_table_has_every_point() -> None:
    assert [point for point, what in TABLE if what == "text"] == [*POINTS]


def test_what_was_taken_and_not_begun_stays_queued_and_is_sent(fire: Fire) -> None:
    """Of a message with many texts no more become unknown than there were requests on the wire."""
    assert fire.batch == {"sent": len(CHUNK) - 1, "unknown": 1}
    assert Counter(
        f"+{one.msisdn}" for one in fire.rows if one.accepted and f"+{one.msisdn}" in CHUNK
    ) == dict.fromkeys(CHUNK, 1)


@pytest.mark.parametrize(("point", "recorded"), [*PRODUCER.items()], ids=[*PRODUCER])
def test_what_a_producer_recorded_is_sent_once_though_it_died_at(fire: Fire, point: str, recorded: bool) -> None:
    """It is asked again with its idempotency key, by whoever was not told that it went well."""
    assert fire.found[point] == recorded
    assert states(fire.jobs[point]) == SENT
    assert sum(one.accepted and one.msisdn == NUMBERS[point][1:] for one in fire.rows) == 1


def test_a_callback_that_kills_the_receiver_before_it_is_kept_and_before_it_is_published(fire: Fire) -> None:
    """The provider, which was not answered, calls again; the clock finds what nobody was told of."""
    assert [one.data["from"] for one in fire.texts] == ["+447700900001"]


# -- off and on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["", "claim.after"], ids=["off", "on"])
def test_only_where_they_are_on_is_anything_put_in_between(deployment: Deployment, tmp_path: Path, told: str) -> None:
    """Off they cost nothing: a worker is made of the same parts as if there were none."""
    process = WarmProcess(parts, {**deployment.environment, VARIABLE: told}, tmp_path)
    assert process.wait(60) == 0, process.output()
    usual = msgspec.json.decode(re.findall(r'{"store".*}', process.output())[0])
    assert set(usual.values()) == {not told}, usual
    assert ("this worker dies at claim.after:1" in process.output()) == bool(told)


def parts() -> None:
    """Be a worker that tells of its parts whether they are the usual ones, and ends."""
    here = importlib.import_module("workers.celery")

    @worker_ready.connect(weak=False)
    def tell(**_: object) -> None:
        runtime = here.runtime()
        wire = runtime._transport._http
        usual = {
            "store": runtime.execution._store is runtime._store,
            "limiter": type(runtime.execution._limiter) is RedisLimiter,
            "transport": runtime._transport._reached is None,
            "engine": type(wire) is Wire and wire._reached is None,
            "acknowledgement": here.app.tasks[EXECUTE].Request is here.Received,
        }
        print(msgspec.json.encode(usual).decode())
        os._exit(0)

    worker(["textgoto"], "parts")()


@pytest.mark.parametrize(
    ("settings", "told", "words"),
    [
        pytest.param({"sandbox": ""}, "claim.after", "works with DISPATCHER_SANDBOX=1 only", id="no sandbox"),
        pytest.param({}, "claim.later", "There are: take.before, ", id="a point that there is not"),
    ],
)
def test_why_a_worker_does_not_start(
    deployment: Deployment, tmp_path: Path, settings: dict[str, str], told: str, words: str
) -> None:
    deployment.settings |= settings
    process = WarmProcess(worker(["textgoto"], "w"), {**deployment.environment, VARIABLE: told}, tmp_path)
    assert process.wait(60) == 1
    assert process.output().startswith("dispatcher: DISPATCHER_FAILPOINTS ")
    assert words in process.output()
    assert "Traceback" not in process.output()
