"""Consumers that are called back or read events: endpoints that fail in every way, and deaths on either side."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec
from standardwebhooks import Webhook

from dispatcher import Dispatcher, Event
from tests.chaos import private
from tests.chaos.lab import Lab, soon
from tests.chaos.receipts import Receiver, client
from tests.chaos.scenario import scenario
from tests.support import WATCH, Process

#: Whose texts have two events each: it tells receipts.
_PROVIDER: Final = "mobtexting"

#: Seconds that a callback may take here: the third try at one is five minutes after the second.
_TIMEOUT: Final = 3.0

#: How an endpoint answers, by the beginning of its path.
_BAD: Final = ("500", "hang", "reset", "inward", "gigabyte")

#: What a job's document says as of its event.
_AS_OF: Final = ("id", "state", "final", "seq", "updated_at", "tries", "history")

#: What an answer may have cost its writer where nobody reads it: what fits into the buffers of two sockets.
_BUFFERS: Final = 64 << 20

#: Put before all that a worker imports: says where it connects to, lets nothing leave this machine, and makes the name
#: `localhost` lead inward each second time, at one port.
_WATCH: Final = """
import itertools, os, socket, sys

told, port, times = os.environ["CHAOS_CONNECTED"], int(os.environ["CHAOS_REBINDING"]), itertools.count()
found = socket.getaddrinfo


def look(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        with open(told, "a") as file:
            print(arguments[1][0], file=file)
        if arguments[1][0] not in ("127.0.0.1", "::1"):
            raise PermissionError("chaos: not from here")


def getaddrinfo(host, to, *arguments, **options):
    inward = host == "localhost" and to == port and next(times) % 2
    return found("10.0.0.1" if inward else host, to, *arguments, **options)


sys.addaudithook(look)
socket.getaddrinfo = getaddrinfo
"""


class Call(msgspec.Struct, frozen=True):
    """A callback as it arrived. `taken` is whether it was answered so."""

    endpoint: str
    id: str
    body: bytes
    at: float
    taken: bool

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


class Endpoints:
    """Consumers' endpoints, each at a path of its own; what they are told is kept in the order in which it came."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.unsigned = 0
        #: The most bytes that were written of one answer.
        self.written = 0
        #: Seconds that a good one thinks.
        self.slow = 0.0
        self._seen: set[tuple[str, str]] = set()
        self._over = threading.Event()
        self._noting = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        self.port: int = self._server.server_address[1]
        WATCH.port(self.port, "endpoints")
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @contextmanager
    def open(self) -> Iterator[Endpoints]:
        """Serve until the end."""
        try:
            yield self
        finally:
            self._over.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def url(self, endpoint: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{endpoint}?token={private.CALLBACK_TOKEN}"

    def taken(self, endpoint: str) -> set[str]:
        with self._noting:
            return {one.id for one in self.calls if one.endpoint == endpoint and one.taken}

    def has(self, endpoint: str, whole: AbstractSet[str]) -> bool:
        """Say whether an endpoint took all of these."""
        return whole <= self.taken(endpoint)

    def answer(self, handler: _Handler, endpoint: str, id_: str, body: bytes) -> None:
        """Note a call, and answer it as its endpoint does."""
        with self._noting:
            first = (endpoint, id_) not in self._seen
            self._seen.add((endpoint, id_))
            way = _way(endpoint, id_) if first or not endpoint.startswith("flaky") else "good"
            self.calls.append(Call(endpoint, id_, body, time.monotonic(), way in {"good", "gigabyte"}))
        match way:
            case "500":
                handler.reply(500)
            case "hang":
                self._over.wait(10)
                handler.close_connection = True
            case "reset":
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.close_connection = True
            case "inward":
                handler.reply(302, Location="http://169.254.169.254/latest/meta-data/")
            case "gigabyte":
                handler.reply(200, length=1 << 30)
                written = handler.flood(1 << 30)
                with self._noting:
                    self.written = max(self.written, written)
            case _:
                self._over.wait(self.slow)
                handler.reply(200)


def _way(endpoint: str, id_: str) -> str:
    """Return how an endpoint answers; a flaky one in its own way to each notice, the first time."""
    if endpoint.startswith("flaky"):
        return dict(enumerate(("500", "reset", "hang"))).get(sum(id_.encode()) % 25, "good")
    return {"default": "good", "rebinding": "500"}.get(endpoint, endpoint)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # All connections at once find a place.
    request_queue_size = 1000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, endpoints: Endpoints, *arguments: Any) -> None:
        self._endpoints = endpoints
        with suppress(OSError):
            super().__init__(*arguments)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path, _, query = self.path.removeprefix("/").partition("?")
        try:
            Webhook(private.CALLBACK_SECRET).verify(body, dict(self.headers.items()))
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            self._endpoints.unsigned += 1
        if query != f"token={private.CALLBACK_TOKEN}":
            self._endpoints.unsigned += 1
        self._endpoints.answer(self, path, self.headers["webhook-id"], body)

    def reply(self, status: int, length: int = 0, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        if self.path.startswith("/rebinding"):
            # So that each try looks the name up.
            self.send_header("Connection", "close")
        self.end_headers()

    def flood(self, most: int) -> int:
        """Write so much, or what the other side takes."""
        written, page = 0, b"x" * (1 << 16)
        with suppress(OSError):
            while written < most:
                self.wfile.write(page)
                written += len(page)
        self.close_connection = True
        return written

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Told:
    """A deployment whose applications are called back, by a worker that may be killed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._started = 0
        self.endpoints = lab.enter(Endpoints().open())
        self._connected = lab.folder / "connected"
        place = lab.folder / "watch"
        place.mkdir()
        (place / "sitecustomize.py").write_text(_WATCH)
        self._beside = {
            "PYTHONPATH": str(place),
            "CHAOS_CONNECTED": str(self._connected),
            "CHAOS_REBINDING": str(self.endpoints.port),
        }
        lab.deployment.settings |= {
            "callback_secret": private.CALLBACK_SECRET,
            "callback_timeout": str(_TIMEOUT),
            "callback_url": self.endpoints.url("default"),
        }
        lab.provider = _PROVIDER
        receiver = Receiver(lab, _PROVIDER)
        lab.sandbox.times(after=0.1, late=0.5, retry_every=0.5)
        lab.sandbox.callbacks(receiver.addresses)
        self.worker: Process
        self.start()

    def start(self) -> None:
        """Start the worker that calls back, as an operator does."""
        self.worker = self._lab.process(
            ["-m", "dispatcher.cli", "worker", "notify"], f"notify{self._started}", self._beside
        )
        self._started += 1

    def ready(self) -> None:
        self.worker.wait_for(" ready.")

    def client(self) -> Dispatcher:
        return client(self._lab, _PROVIDER)

    def elsewhere(self) -> set[str]:
        """Return whom the worker connected to, or tried to, beside this machine."""
        return set(self._connected.read_text().split()) - {"127.0.0.1"}


def _of_jobs(lab: Lab) -> list[Event]:
    """Return the events of jobs and verifications that were told, in their order."""
    return [one for one in lab.d.events("0", timeout=0) if one.type.startswith(("job.", "verification."))]


def _receipts_are_in(lab: Lab) -> None:
    lab.settle()
    soon(lambda: not any(told.waiting for told in lab.sandbox.told().values()), "the last receipt", 60)
    soon(lambda: not lab.redis.keys("d:cb:*"), "the end of what was read")
    lab.settle()


def _demand_told(lab: Lab, endpoints: Endpoints, endpoint: str, events: Collection[Event]) -> None:
    """Demand that an endpoint heard of all its events, of each job in their order, and of each as of the same."""
    calls = [one for one in endpoints.calls if one.endpoint == endpoint]
    wanted = {f"evt_{one.cursor}": one for one in events}
    taken = {one.id for one in calls if one.taken}
    lab.demand(f"{endpoint} was not told of {len(wanted.keys() - taken)} events", holds=wanted.keys() <= taken)
    lab.demand(f"{endpoint} was told of {len(taken - wanted.keys())} events not its own", holds=taken <= wanted.keys())
    told: dict[str, set[str]] = defaultdict(set)
    first: dict[str, list[int]] = defaultdict(list)
    for one in calls:
        data = one.event["data"]
        if one.id not in told:
            first[data["id"]].append(data["seq"])
        # The rest of a document is as it is known at each try.
        told[one.id].add(json.dumps([one.event["type"], *(data[name] for name in _AS_OF)]))
    changed = sum(len(several) > 1 for several in told.values())
    lab.demand(f"{changed} notices of {endpoint} changed from try to try", holds=not changed)
    jumbled = sum(seqs != sorted(set(seqs)) for seqs in first.values())
    lab.demand(f"{endpoint} was told of {jumbled} jobs out of order", holds=not jumbled)


def _demand_all_well(lab: Lab, told: _Told) -> None:
    lab.demand(f"{told.endpoints.unsigned} callbacks were not signed", holds=not told.endpoints.unsigned)
    elsewhere = told.elsewhere()
    lab.demand(f"somebody connected to {sorted(elsewhere)}", holds=not elsewhere)


@scenario(
    "callbacks-bad-endpoints",
    "Some consumers answer 500, hang, reset, redirect inward, move to an inward address, answer a gigabyte.",
    proves="others are told at least once, in order per job, in time, and nobody inside is connected to",
    full={"texts": 40},
    short={"texts": 3},
)
def bad_endpoints(lab: Lab, texts: int) -> None:
    told = _Told(lab)
    endpoints, d = told.endpoints, told.client()
    lab.worker(queues=_PROVIDER)
    told.ready()
    urls = {one: endpoints.url(one) for one in ("good", "flaky", *_BAD)}
    urls["rebinding"] = endpoints.url("rebinding", "localhost")
    wanted = [name for name in urls for _ in range(texts)]
    lab.random.shuffle(wanted)
    ids: dict[str, str] = {}
    for name in wanted:
        ids[lab.send(client=d, callback_url=urls[name]).id] = name
    bad = len(urls) - 1
    lab.inject(f"text whose consumer answers badly, in {bad} ways", texts * bad)
    quiet = lab.send(client=d, callback_url="").id
    usual = lab.send(client=d).id
    _receipts_are_in(lab)
    began = time.monotonic()

    events = [one for one in _of_jobs(lab) if one.data["id"] != quiet]
    by_endpoint: Mapping[str, list[Event]] = defaultdict(list)
    for one in events:
        by_endpoint[ids.get(one.data["id"], "default")].append(one)
    sure = ("good", "default", "flaky", "gigabyte")
    for name in sure:
        whole = {f"evt_{one.cursor}" for one in by_endpoint[name]}
        # A gigabyte makes its own endpoint slow, and no other.
        soon(partial(endpoints.has, name, whole), f"all that {name} is told", 60)
        if name == "good":
            lab.in_time("to tell the good one", time.monotonic() - began, 10)
    heard = {name: [one for one in endpoints.calls if one.endpoint == name] for name in urls}
    lab.demand("somebody was never called", holds=all(heard.values()))
    told_of = {one.event["data"]["id"] for one in endpoints.calls}
    lab.demand("what is told nobody was told", holds=quiet not in told_of)
    lab.demand("what names no endpoint was not told", holds=usual in told_of)
    soon(lambda: lab.redis.zcard("d:tx") or told.elsewhere(), "the refusal of what moved inward")
    for name in sure:
        _demand_told(lab, endpoints, name, by_endpoint[name])
    lab.demand(f"{endpoints.written:,} bytes were read of one answer", holds=endpoints.written < _BUFFERS)
    _demand_all_well(lab, told)


def _heard(endpoints: Endpoints, most: int) -> bool:
    return len(endpoints.calls) > most


@scenario(
    "callbacks-worker-kill",
    "The worker that calls back is killed (-9) again and again, before what it is to tell and in the middle of it.",
    proves="every event is told at least once, in order per job, with the same id each time",
    full={"kills": 10},
    short={"kills": 1},
)
def worker_kill(lab: Lab, kills: int) -> None:
    told = _Told(lab)
    endpoints = told.endpoints
    # So that it is killed in the middle.
    endpoints.slow = 0.05
    lab.deployment.settings["callback_url"] = endpoints.url("flaky")
    told.worker.kill()
    told.start()
    lab.worker(queues=_PROVIDER)
    told.ready()
    with lab.load(rate=15, client=told.client, text=90, code=5, urgent=5):
        for number in range(kills):
            heard = len(endpoints.calls)
            soon(partial(_heard, endpoints, heard + 10), "a few callbacks")
            lab.pause(0, 0.2)
            if number % 3 == 2:
                told.worker.stop()
                lab.inject("TERM of the worker that calls back")
            else:
                told.worker.kill()
                lab.inject("kill -9 of the worker that calls back")
            # What happens now is told of by the next one.
            lab.pause(0.2, 1)
            told.start()
            told.ready()
    _receipts_are_in(lab)
    events = _of_jobs(lab)
    whole = {f"evt_{one.cursor}" for one in events}
    soon(partial(endpoints.has, "flaky", whole), "the last callback", 90)
    _demand_told(lab, endpoints, "flaky", events)
    _demand_all_well(lab, told)


# -- those who read ----------------------------------------------------------------------------------------------------


class _Readers:
    """Consumers of groups, each a process that kills itself between reading and acknowledging."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._started = 0

    def start(self, group: str, name: str, die_at: int) -> Process:
        """Start a consumer that dies of the event with this number; an even one before its work, else after it."""
        about = {"group": group, "consumer": name, "told": str(self._file(group)), "die_at": die_at}
        self._started += 1
        return self._lab.process(
            ["-m", "tests.chaos.reader"],
            f"reader{self._started}",
            {"PYTHONPATH": str(Path(__file__).parents[2]), "CHAOS": json.dumps(about)},
        )

    def done(self, group: str) -> list[tuple[str, str, int]]:
        """Return what a group worked on, in its order: the cursor, the job and how far that was."""
        file = self._file(group)
        lines = file.read_text().splitlines() if file.exists() else []
        return [(cursor, id_, int(seq)) for cursor, id_, seq in map(str.split, lines)]

    def has(self, group: str, whole: AbstractSet[str]) -> bool:
        """Say whether a group worked on all of these."""
        return whole <= {cursor for cursor, _, _ in self.done(group)}

    def _file(self, group: str) -> Path:
        return self._lab.folder / f"{group}.events"


def _first(rows: Sequence[tuple[str, str, int]]) -> Mapping[str, list[int]]:
    """Return how far each job was, in the order in which that was first heard."""
    found: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for cursor, id_, seq in rows:
        if cursor not in seen:
            found[id_].append(seq)
        seen.add(cursor)
    return found


@scenario(
    "events-consumer-kill",
    "Consumers of event groups are killed (-9) between reading an event and being done with it.",
    proves="each event is worked on at least once, and by a group's only consumer in order per job",
    full={"kills": 12},
    short={"kills": 1},
)
def consumer_kill(lab: Lab, kills: int) -> None:
    lab.provider = _PROVIDER
    receiver = Receiver(lab, _PROVIDER)
    lab.sandbox.times(after=0.1, late=0.5, retry_every=0.5)
    lab.sandbox.callbacks(receiver.addresses)
    lab.worker(queues=_PROVIDER)
    readers = _Readers(lab)
    lanes = [("billing", "one"), ("billing", "two"), ("billing", "three"), ("ledger", "only")]
    alive = {lane: readers.start(*lane, 0) for lane in lanes}
    deaths = 0
    with lab.load(rate=60, client=partial(client, lab, _PROVIDER), text=90, code=5, urgent=5):
        for one in alive.values():
            one.wait_for("reads")
        for one in alive.values():
            one.kill()
        while deaths < kills:
            for lane in lanes:
                if alive[lane].popen.poll() is not None:
                    alive[lane] = readers.start(*lane, lab.random.randint(2, 40))
            soon(lambda: any(one.popen.poll() is not None for one in alive.values()), "the death of a consumer")
            over = sum(one.popen.poll() is not None for one in alive.values())
            lab.inject("kill -9 of a consumer between reading and acknowledging", over)
            deaths += over
    for one in alive.values():
        one.kill()
    alive = {lane: readers.start(*lane, 0) for lane in lanes}
    _receipts_are_in(lab)
    whole = {one.cursor for one in _of_jobs(lab)}
    for group in ("billing", "ledger"):
        soon(partial(readers.has, group, whole), f"the last event of {group}", 60)
        soon(partial(_done, lab, group), f"the end of what {group} has in hand", 60)
    jumbled = sum(seqs != sorted(seqs) for seqs in _first(readers.done("ledger")).values())
    lab.demand(f"the only consumer heard of {jumbled} jobs out of order", holds=not jumbled)


def _done(lab: Lab, group: str) -> bool:
    return not any(one.pending for one in lab.d.event_groups() if one.name == group)
