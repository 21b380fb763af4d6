"""What happens to workers: they are killed, told to stop, or killed by what they were given."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from functools import partial

from dispatcher import Message, State
from tests.chaos import poison
from tests.chaos.lab import NO_BREAKER, Lab, soon
from tests.chaos.scenario import scenario
from tests.support import Worker, accepted

#: Requests on the wire at the same time and texts in each: so many jobs at most are unknown for each death.
_AT_ONCE = 20
_WIRE = {"connections": str(_AT_ONCE), "providers__textgoto__group_size": "1"}

#: Seconds that a worker which is told to stop takes at most beyond `DISPATCHER_DEADLINE`.
_SOFT = 5.0


class _Deaths:
    """Counts what was on the wire when workers died, so that no more may end unknown."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._held: set[str] = set()

    def note(self, what: str, workers: int = 1) -> None:
        """Note what is claimed, right after a death of so many."""
        self._lab.inject(what)
        held = self._lab.sending() - self._held
        # As much again may be answered already, and its end not written yet.
        most = 2 * _AT_ONCE * workers
        self._lab.demand(f"{len(held)} jobs were claimed at a time, at most {most} may be", holds=len(held) <= most)
        self._held |= held

    def judge(self) -> None:
        """Demand that no more are unknown."""
        unknown = self._lab.unknown()
        self._lab.demand(
            f"{unknown} are unknown, {len(self._held)} were on the wire at the kills", holds=unknown <= len(self._held)
        )


@scenario(
    "worker-kill",
    "The only worker is killed (-9) again and again while producers go on, and another one is started each time.",
    proves="a death loses nothing, repeats nothing, and leaves no more unknown than was on the wire",
    full={"kills": 15},
    short={"kills": 2},
)
def worker_kill(lab: Lab, kills: int) -> None:
    lab.sandbox.fault("latency", seconds=0.05)
    deaths = _Deaths(lab)
    with lab.load(rate=120):
        for _ in range(kills):
            worker = lab.worker(**_WIRE)
            lab.pause(0.3, 1.5)
            worker.kill()
            deaths.note("kill -9 of the only worker")
        lab.worker(**_WIRE)
    lab.settle()
    deaths.judge()


@scenario(
    "worker-kill-one-of-three",
    "Of three workers one is killed (-9) again and again, and started again.",
    proves="the others take over what it held and had not begun, and nothing is sent twice",
    full={"kills": 10},
    short={"kills": 1},
)
def one_of_three(lab: Lab, kills: int) -> None:
    lab.sandbox.fault("latency", seconds=0.05)
    deaths = _Deaths(lab)
    workers = [lab.start_worker(**_WIRE) for _ in range(3)]
    with lab.load(rate=120):
        for _ in range(kills):
            victim = lab.random.randrange(len(workers))
            workers[victim].ready()
            lab.pause(0.2, 1)
            workers[victim].kill()
            deaths.note("kill -9 of one worker of three", workers=3)
            workers[victim] = lab.start_worker(**_WIRE)
        lab.pause(1, 1)
    lab.settle()
    deaths.judge()


@scenario(
    "worker-kill-process",
    "A worker with a pool of processes loses one of them (-9), then its parent, and the orphans go on beside another.",
    proves="what the orphans still do is not done a second time, and what a child died of is not either",
    full={"rounds": 4},
    short={"rounds": 1},
)
def process_kill(lab: Lab, rounds: int) -> None:
    lab.sandbox.fault("latency", seconds=0.2)
    with lab.load(rate=60):
        for _ in range(rounds):
            worker = lab.worker("--pool", "processes", "--concurrency", "2", **_WIRE)
            lab.pause(1, 2)
            os.kill(lab.random.choice(_children(worker)), signal.SIGKILL)
            lab.inject("kill -9 of a child of a prefork worker")
            lab.pause(1, 2)
            os.kill(worker.popen.pid, signal.SIGKILL)
            worker.popen.wait()
            lab.inject("kill -9 of its parent")
        lab.worker(**_WIRE)
        lab.pause(1, 1)
    lab.settle()


def _children(worker: Worker) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return sorted(child for child, parent in pairs if parent == worker.popen.pid)


@scenario(
    "worker-term",
    "The only worker is told to stop (TERM) again and again under load, and another one is started each time.",
    proves="a stop leaves nothing sending, nothing unknown and nothing twice, and is over within its soft limit",
    full={"stops": 15},
    short={"stops": 1},
)
def term(lab: Lab, stops: int) -> None:
    lab.sandbox.fault("latency", seconds=0.2)
    with lab.load(rate=120):
        for _ in range(stops):
            worker = lab.worker(**_WIRE)
            lab.pause(0.3, 1.5)
            _stop(lab, worker)
            lab.inject("TERM of the only worker")
            left = lab.sending()
            lab.demand(f"{len(left)} jobs are sending after their worker ended", holds=not left)
        lab.worker(**_WIRE)
    lab.settle()
    lab.demand(f"{lab.unknown()} are unknown", holds=lab.unknown() == 0)
    attempts = {job.attempts for job in lab.jobs().values()}
    lab.demand(f"jobs took {attempts} attempts, one is enough", holds=attempts == {1})


def _stop(lab: Lab, worker: Worker) -> None:
    began = time.monotonic()
    worker.terminate()
    code = worker.wait(60)
    lab.in_time("to stop", time.monotonic() - began, float(lab.deployment.settings["deadline"]) + _SOFT)
    lab.demand(f"the worker ended with {code}", holds=code == 0)


@scenario(
    "worker-term-while-it-hangs",
    "A worker is told to stop (TERM) while the provider has taken its texts and says nothing.",
    proves="it ends within its deadline and five seconds, its texts are unknown, and none is sent again",
    full={"rounds": 3, "texts": 15},
    short={"rounds": 1, "texts": 5},
)
def term_while_it_hangs(lab: Lab, rounds: int, texts: int) -> None:
    for _ in range(rounds):
        worker = lab.worker(**_WIRE, **NO_BREAKER)
        wanted = len(accepted(lab.sandbox.ledger())) + texts
        lab.sandbox.fault("hang-after")
        ids = [lab.send().id for _ in range(texts)]
        soon(partial(_taken, lab, wanted), "every text on the wire")
        lab.inject("TERM while the provider hangs", over=False)
        _stop(lab, worker)
        lab.sandbox.clear()
        lab.heal()
        states = {str(state) for state in lab.d.states(ids)}
        lab.demand(f"they are {states}", holds=states == {State.UNKNOWN})
    lab.worker(**_WIRE, **NO_BREAKER)
    lab.send()
    lab.settle()


def _taken(lab: Lab, wanted: int) -> bool:
    return len(accepted(lab.sandbox.ledger())) == wanted


@scenario(
    "worker-poison",
    "Some jobs kill any worker that builds their request, while others flow; a supervisor starts it again.",
    proves="each of them fails after its second worker, and takes no other job with it",
    full={"poisons": 3},
    short={"poisons": 1},
)
def worker_poison(lab: Lab, poisons: int) -> None:
    lab.provider = "poison"
    lab.deployment.settings["providers__poison__base_url"] = lab.sandbox.url
    lab.deployment.beside |= poison.installed(lab.folder)
    client = lab.client(providers={"poison": {"uid": "sandbox"}})
    deaths, worker = 0, lab.start_worker(queues="poison")

    def supervise() -> None:
        nonlocal worker, deaths
        if worker.popen.poll() is not None:
            deaths += 1
            worker = lab.start_worker(queues="poison")
            lab.inject("death by a poisonous job")

    deadly = []
    with lab.load(rate=40, client=lambda: client, text=90, urgent=10):
        for _ in range(poisons):
            lab.pause(0.5, 1)
            number = lab.number()
            messages = [*lab.messages(10), Message(number, f"{lab.text()} {poison.WORD}"), *lab.messages(10)]
            batch = client.send_many(messages, provider="poison")
            lab.accepted |= {id_: one.to for id_, one in zip(batch.jobs.ids, messages, strict=True)}
            deadly.append(batch.jobs.ids[10])

            def ended(id_: str = deadly[-1]) -> bool:
                supervise()
                return client.get(id_).settled

            soon(ended, "the end of a poisonous job", 150)
    lab.settle()
    jobs = lab.jobs()
    states = {str(jobs[id_].state) for id_ in deadly}
    lab.demand(f"poisonous jobs are {states}", holds=states == {State.FAILED})
    failed = [job.id for job in jobs.values() if job.state == State.FAILED and job.id not in deadly]
    lab.demand(f"{len(failed)} harmless jobs failed", holds=not failed)
    lab.demand(f"{deaths} workers died of {poisons} jobs, two are enough for each", holds=deaths <= 2 * poisons)


@scenario(
    "worker-two-clocks",
    "Two workers tick and sweep as fast as they can, over schedules, retries and lost messages.",
    proves="what both find to be done is done once",
    full={"texts": 2000},
    short={"texts": 300},
)
def two_clocks(lab: Lab, texts: int) -> None:
    lab.deployment.settings |= {"tick": "0.01", "sweep_every": "0.02", "lost_after": "1"}
    soonest = time.time() + 4
    for start in range(0, texts, 100):
        lab.send_many(100, send_at=soonest + lab.random.uniform(0, 3))
        lab.inject("a schedule for a hundred", over=start + 100 >= texts)
    lost = [one.id for one in (lab.send() for _ in range(50))]
    lab.deployment.lose_messages()
    lab.inject("the broker's lists deleted")
    lab.sandbox.fault("429", times=20, seconds=1)
    lab.inject("429", 20)
    workers = [lab.start_worker() for _ in range(2)]
    for one in workers:
        one.ready()
    lab.settle()
    jobs = lab.jobs()
    states = {str(job.state) for job in jobs.values()}
    lab.demand(f"they are {states}", holds=states == {State.SENT})
    early = [row.n for row in accepted(lab.sandbox.ledger()) if row.at < soonest]
    lab.demand(f"{len(early)} were sent before their time", holds=len(early) <= len(lost))
    again = [
        job.id for job in jobs.values() if job.id not in lost and "lost" in " ".join(e.detail for e in job.history)
    ]
    lab.say(f"{len(again)} were published again though nothing was lost")
