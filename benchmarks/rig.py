"""What the measurements of speed share: Redis, the provider that counts, a worker, ours or a peer's, and ratios."""

from __future__ import annotations

import http.client
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec
import redis

from benchmarks import environments
from benchmarks.fleet import say
from benchmarks.provider import DELAY, Change, Counted
from dispatcher import Dispatcher, Message
from tests.support import Deployment, Process, Server, Worker, phones, until

#: Times that every comparison is made, all systems in turn.
ROUNDS: Final = 3

#: Sends at once, as the peers' documents have it for work that waits; and what one of our workers has.
IN_FLIGHT, MOST = 64, 400

#: Numbers that there are; texts beyond that go to them again, in other words.
NUMBERS: Final = 40_000

ACCOUNT: Final = "textgoto"

#: What a worker is shipped with; the tests' deployment has shorter times.
SHIPPED: Final = {"deadline": "30", "lease": "60", "lost_after": "60", "sweep_every": "5", "tick": "0.25"}

_ROOT: Final = Path(__file__).parent.parent

#: Seconds between looks at what a provider counted: often enough, and nothing beside the load.
_LOOK: Final = 0.1

_TICKS: Final = os.sysconf("SC_CLK_TCK")

#: Seconds that all texts of a run have to arrive in.
_WITHIN: Final = 300.0

_NOTHING: Final[Mapping[str, str]] = {}

#: Becomes another interpreter.
_BECOME: Final = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


class Provider:
    """The provider that counts, as a process."""

    def __init__(self, place: Path, delay: float) -> None:
        environment = {"PYTHONPATH": str(_ROOT)}
        arguments = ["-m", "benchmarks.provider", "--delay", str(delay)]
        self.process = Process(_as(environments.python("peers"), arguments), environment, place, "provider")
        self.process.wait_for(" ready\n")
        self.url = self.process.output().split()[0]
        self._http = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)

    def counted(self) -> Counted:
        return msgspec.json.decode(self._ask("GET", "/control"), type=Counted)

    def arrivals(self) -> dict[str, float]:
        """Return when each text came first, by `NUMBER TEXT`."""
        return msgspec.json.decode(self._ask("GET", "/control/arrivals"), type=dict[str, float])

    def reset(self, delay: float = DELAY) -> None:
        self._ask("POST", "/control", msgspec.json.encode(Change(delay)))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self._http.request(method, path, body)
        return self._http.getresponse().read()


class Peer(NamedTuple):
    """A program in benchmarks/peers, and how its documents say that it is run."""

    name: str
    module: str
    #: What follows `python -m`; {n} stands for the sends at once.
    command: str
    environment: str = "peers"


PEERS: Final = {
    peer.name: peer
    for peer in (
        Peer(
            "Celery",
            "celery_task",
            "celery -A celery_task worker --pool threads --concurrency {n} -l WARNING"
            " --without-gossip --without-mingle --without-heartbeat",
        ),
        Peer("dramatiq", "dramatiq_task", "dramatiq dramatiq_task --processes 1 --threads {n}"),
        Peer(
            "taskiq",
            "taskiq_task",
            "taskiq worker taskiq_task:broker --workers 1 --max-async-tasks {n} --log-level WARNING",
        ),
        Peer("arq", "arq_task", "arq arq_task.WorkerSettings --custom-log-dict arq_task.LOGGING", "arq"),
        Peer("streaQ", "streaq_task", "streaq run streaq_task:worker"),
    )
}


class Rig:
    """Redis, the provider, and whoever sends between them, for one measurement."""

    def __init__(
        self, place: Path, open_: ExitStack, settings: Mapping[str, str] | None = None, *, delay: float = DELAY
    ) -> None:
        """Start Redis and the provider; `settings` are those of our workers, as the environment has them."""
        self.place, self._open = place, open_
        self._started: list[Process] = []
        self.server = open_.enter_context(Server(place / "valkey"))
        self.provider = Provider(place, delay)
        open_.callback(self.provider.process.stop)
        # What `Deployment` wants of the sandbox is where it is.
        where: Any = self.provider
        self.deployment = Deployment(self.server.url, where, place, {**SHIPPED, **(settings or {})})
        self.deployment.cold = True
        open_.callback(self.deployment.close)

    @property
    def redis(self) -> Any:
        return self.deployment.redis

    def client(self, **settings: Any) -> Dispatcher:
        """Return a `Dispatcher` on the same servers."""
        return self.deployment.client(broker_url=self.deployment.settings.get("broker_url"), **settings)

    def second_server(self) -> Server:
        """Start another Redis."""
        return self._open.enter_context(Server(self.place / "second"))

    def connected(self, server: Server) -> Any:
        """Return a client of a server, closed in the end."""
        return self._open.enter_context(redis.Redis.from_url(server.url))

    def worker(self, name: str = "worker", **settings: str) -> Worker:
        """Start one of our workers as an operator does."""
        worker = self.deployment.start_worker(queues=ACCOUNT, name=name, **settings)
        self._started.append(worker)
        return worker

    def peer(
        self, peer: Peer, in_flight: int = IN_FLIGHT, more: Mapping[str, str] = _NOTHING, name: str = "worker"
    ) -> Process:
        """Start a peer's worker; `more` is what else is in its environment."""
        arguments = ["-m", *peer.command.format(n=in_flight).split()]
        return self._run(peer, arguments, {"IN_FLIGHT": str(in_flight), **more}, f"{peer.module}-{name}")

    def enqueue(self, peer: Peer, count: int, first: int = 0, more: Mapping[str, str] = _NOTHING) -> float:
        """Enqueue texts with a peer, from the `first` on; return how many a second."""
        script = str(_ROOT / "benchmarks" / "peers" / "enqueue.py")
        arguments = [script, peer.module, str(first), str(count)]
        return self.figure(self._run(peer, arguments, more, f"{peer.module}-enqueue{first}"))

    def paced(self, peer: Peer, count: int, pause: tuple[float, float]) -> str:
        """Enqueue texts with a peer, with pauses; return when each was asked for, as JSON."""
        script = str(_ROOT / "benchmarks" / "peers" / "pace.py")
        arguments = [script, peer.module, str(count), *map(str, pause)]
        return self.printed(self._run(peer, arguments, {}, f"{peer.module}-paced"))

    def engine(self, name: str, count: int) -> None:
        """Start sending over one of httpx's engines, with nothing around it."""
        script = str(_ROOT / "benchmarks" / "peers" / "engine.py")
        self._run(PEERS["Celery"], [script, name, str(count)], {"IN_FLIGHT": str(IN_FLIGHT)}, f"engine-{name}")

    def ours(self, module: str, *arguments: str, **settings: str) -> Process:
        """Run a program of benchmarks/ in our own environment."""
        environment = {"PYTHONPATH": str(_ROOT), **self.deployment.environment, **settings}
        return self._start(Process(["-m", module, *arguments], environment, self.place, module))

    def figure(self, process: Process) -> float:
        """Return the figure that a program printed."""
        return float(self.printed(process))

    def printed(self, process: Process) -> str:
        """Return the last line that a program printed."""
        code = process.wait(600)
        if code:
            raise SystemExit(f"{process.name} ended with {code}:\n{process.news()}")
        return process.output().splitlines()[-1]

    def _run(self, peer: Peer, arguments: Sequence[str], more: Mapping[str, str], name: str) -> Process:
        environment = {
            "PYTHONPATH": os.pathsep.join(map(str, (_ROOT / "benchmarks" / "peers", _ROOT))),
            "REDIS_URL": self.server.url,
            "PROVIDER_URL": self.provider.url,
            **more,
        }
        return self._start(
            Process(_as(environments.python(peer.environment), arguments), environment, self.place, name)
        )

    def _start(self, process: Process) -> Process:
        self._started.append(process)
        self._open.callback(process.kill)
        return process

    def drained(self, count: int, within: float = _WITHIN) -> Counted:
        """Return what was counted once so many texts arrived."""
        ends = time.monotonic() + within
        while (counted := self.provider.counted()).texts < count:
            failed = next((one for one in self._started if one.popen.poll()), None)
            if failed is not None:
                raise SystemExit(f"{failed.name} ended with {failed.popen.returncode}:\n{failed.news()}")
            if time.monotonic() > ends:
                raise SystemExit(f"after {within:g} s {counted.texts} of {count} texts have arrived")
            time.sleep(_LOOK)
        return counted

    def open_jobs(self) -> int:
        """Return how many of our jobs are not over."""
        return sum(int(self.redis.zcard(f"d:i:{ACCOUNT}:{state}")) for state in ("queued", "sending"))

    def settled(self, within: float = 120) -> None:
        """Return once none of our jobs is queued or being sent."""
        until(lambda: not self.open_jobs(), within, "the end of all jobs")


@contextmanager
def rig(settings: Mapping[str, str] | None = None, *, delay: float = DELAY) -> Iterator[Rig]:
    """Have one, all of which is gone afterwards."""
    with ExitStack() as open_:
        place = Path(open_.enter_context(TemporaryDirectory(prefix="bench-")))
        yield Rig(place, open_, settings, delay=delay)


def _as(interpreter: Path, arguments: Sequence[str]) -> list[str]:
    """Return arguments for our own interpreter, which becomes another."""
    return ["-I", "-S", "-c", _BECOME, str(interpreter), *arguments]


def messages(count: int, first: int = 0, *, alike: bool = False) -> list[Message]:
    """Return texts, each in words of its own, so that each is a request of its own; or all of them alike."""
    numbers = phones(min(first + count, NUMBERS))
    return [Message(numbers[n % NUMBERS], "Hello" if alike else f"Hello {n}") for n in range(first, first + count)]


# -- what was measured, in turn ----------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """The median of several measurements, and the least and the most of them."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def words(self, form: str = ",.0f", before: str = "") -> str:
        """Return it as a table has it: the median, and in brackets how far the rounds lie apart."""
        middle = f"{before}{self.median:{form}}"
        return middle if self.least == self.most else f"{middle} ({self.least:{form}} - {self.most:{form}})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return by how much ours is more, round by round: what both met in one round is compared."""
    return Spread.of([one / other for one, other in zip(ours, theirs, strict=True)])


def in_turn(ways: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Measure all of them again and again, the one after the other, so that what disturbs meets them all."""
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, measure in ways.items():
            measured[name].append(measure())
            say(f"{turn + 1}/{rounds} {name}: {measured[name][-1]:,.4g}")
    return measured


def per_second(counted: Counted) -> float:
    """Return texts a second between the first and the last arrival."""
    return (counted.texts - 1) / max(counted.last - counted.first, 1e-9)


# -- processes, from the outside ---------------------------------------------------------------------------------------


def cpu(pid: int) -> float:
    """Return the seconds of processor time that a process took, with its threads and without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident(pid: int) -> int:
    """Return the bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def frozen(processes: Sequence[Process]) -> Iterator[None]:
    """Let processes stand still meanwhile."""
    for one in processes:
        one.popen.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in processes:
            one.popen.send_signal(signal.SIGCONT)


def used(server: Any) -> int:
    """Return the bytes that a Redis holds, without what it keeps for its connections and has yet to write."""
    told = server.info("memory")
    return int(told["used_memory"]) - int(told["mem_clients_normal"]) - int(told["mem_aof_buffer"])
