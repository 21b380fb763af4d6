"""What providers call back: receipts that come early, twice and out of order, and a receiver that dies."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from dispatcher import Dispatcher
from dispatcher.embedded import free_port
from dispatcher.settings import Settings, load
from tests import ringer
from tests.chaos import private
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import WATCH, Process
from workers.receiver import url

#: The providers that push receipts.
_PUSHING: Final = ("mobtexting", "thetexting")

#: By the end of a number: what becomes of its text, however its receipts come.
_ENDS: Final = {
    140: "undelivered",
    141: "delivered",
    142: "delivered",
    143: "delivered",
    144: "sent",
    145: "delivered",
    150: "delivered",
}


class Receiver:
    """The receiver as a process that may be killed, at one address all the time."""

    def __init__(self, lab: Lab, *accounts: str) -> None:
        self._lab = lab
        self._port = free_port()
        self._started = 0
        self.settings: Settings = load(redis_url=lab.server.url, sandbox=True, **private.KEYS)
        self.addresses = {name: url(self.settings, f"http://127.0.0.1:{self._port}", name) for name in accounts}
        WATCH.port(self._port, "receiver")
        self.process: Process
        self.start()

    def start(self) -> None:
        command = ["-m", "dispatcher.cli", "receiver", "--port", str(self._port), "--json"]
        self.process = self._lab.process(command, f"receiver{self._started}", self._lab.deployment.beside)
        self._started += 1
        self.process.wait_for('{"url":')

    def call(self, account: str, told: Mapping[str, Any]) -> int:
        """Call as a provider does; return the status. Raises `OSError` or `HTTPException` where none came."""
        place = urlsplit(self.addresses[account])
        connection = http.client.HTTPConnection(place.netloc, timeout=20)
        try:
            connection.request("POST", place.path, json.dumps(told), {"Content-Type": "application/json"})
            with connection.getresponse() as answer:
                return answer.status
        finally:
            connection.close()


def client(lab: Lab, *accounts: str) -> Dispatcher:
    return lab.client(providers={name: {"callback_token": ""} for name in accounts})


def _number(ending: int, n: int) -> str:
    """Return the n-th number that ends so, of those that nobody owns."""
    return f"+1{500 + n}5550{ending}"


def _enqueue(lab: Lab, d: Dispatcher, texts: int) -> dict[str, str]:
    """Send texts of which each has receipts of its own kind; return how each shall end, by its id."""
    wanted = [(account, ending, n) for n in range(texts) for account in _PUSHING for ending in _ENDS]
    lab.random.shuffle(wanted)
    ends = {}
    for account, ending, n in wanted:
        number = _number(ending, 2 * n + _PUSHING.index(account))
        ends[lab.send(number, d, provider=account).id] = _ENDS[ending]
    return ends


def _as_wanted(d: Dispatcher, ends: Mapping[str, str]) -> bool:
    return dict(zip(ends, map(str, d.states(list(ends))), strict=True)) == ends


def _demand_told_once(lab: Lab) -> None:
    told = Counter((one.type, one.data["id"]) for one in lab.d.events("0", timeout=0))
    twice = [name for name, times in told.items() if times > 1]
    lab.demand(f"{len(twice)} events were told twice", holds=not twice)


@scenario(
    "receipts-out-of-order",
    "Receipts come before the answer, late, twice, never, and after later ones.",
    proves="a job never goes back, and its end is told once",
    full={"texts": 40},
    short={"texts": 3},
)
def out_of_order(lab: Lab, texts: int) -> None:
    receiver = Receiver(lab, *_PUSHING)
    lab.sandbox.times(after=0.1, late=0.5, retry_every=0.5)
    lab.sandbox.callbacks(receiver.addresses)
    lab.worker(queues=",".join(_PUSHING))
    d = client(lab, *_PUSHING)
    ends = _enqueue(lab, d, texts)
    lab.inject("text with receipts out of order", len(ends))
    soon(partial(_as_wanted, d, ends), "every receipt", 60)
    # What says less than is known comes later still.
    soon(lambda: not any(told.waiting for told in lab.sandbox.told().values()), "the last receipt", 60)
    soon(lambda: not lab.redis.keys("d:cb:*"), "the end of what was read")
    lab.settle()
    lab.demand("a receipt that came later took a job back", holds=_as_wanted(d, ends))
    _demand_told_once(lab)


@scenario(
    "receiver-kill",
    "The receiver is killed (-9) again and again while receipts come; the provider calls again where it got no answer.",
    proves="no receipt is lost, and none is told twice",
    full={"kills": 10, "texts": 60},
    short={"kills": 1, "texts": 2},
)
def receiver_kill(lab: Lab, kills: int, texts: int) -> None:
    receiver = Receiver(lab, *_PUSHING)
    lab.sandbox.times(after=0.1, late=0.5, retry_every=0.5, retries=200)
    lab.sandbox.callbacks(receiver.addresses)
    lab.worker(queues=",".join(_PUSHING))
    d = client(lab, *_PUSHING)
    ends: dict[str, str] = {}
    for n in range(kills):
        ends |= _enqueue(lab, d, texts // kills) if n == 0 else {}
        lab.pause(0.1, 0.5)
        receiver.process.kill()
        lab.inject("kill -9 of the receiver")
        lab.pause(0, 0.5)
        receiver.start()
    soon(partial(_as_wanted, d, ends), "every receipt", 60)
    lab.settle()
    _demand_told_once(lab)


@scenario(
    "receiver-kill-unanswered",
    "The receiver is killed (-9) between its write and its answer, of each receipt and of each text that comes in.",
    proves="what was written is read, and called again it is the same",
    full={"times": 8},
    short={"times": 1},
)
def unanswered(lab: Lab, times: int) -> None:
    lab.provider = "ringer"
    lab.deployment.beside |= ringer.installed(lab.folder)
    lab.deployment.settings["providers__ringer__base_url"] = lab.sandbox.url
    receiver = Receiver(lab, "ringer")
    lab.worker(queues="ringer")
    d = client(lab, "ringer")
    ends = {}
    for n in range(times):
        number, job = (one := lab.number()), lab.send(one, d)
        ends[job.id] = "delivered"
        calls = [
            {"kind": "receipt", "ref": f"ref-{number[-3:]}", "number": number, "state": "delivered"},
            {"kind": "text", "from": number, "text": lab.text(), "ref": str(n)},
        ]
        for told in calls:
            with suppress(OSError, http.client.HTTPException):
                receiver.call("ringer", {**told, "die": "1"})
            lab.demand("the receiver outlived its end", holds=receiver.process.wait() == -9)
            lab.inject("kill -9 of the receiver between its write and its answer")
            receiver.start()
            lab.demand("it takes nothing when it is there again", holds=receiver.call("ringer", told) == 200)
    soon(partial(_as_wanted, d, ends), "every receipt")
    soon(lambda: not lab.redis.keys("d:cb:*"), "the end of what was read")
    lab.settle()
    _demand_told_once(lab)
    texts = Counter(one.data["from"] for one in d.events("0", timeout=0, reveal=True) if one.type == "inbound.text")
    lab.demand(f"texts came {set(texts.values())} times", holds=list(texts.values()) == [1] * times)
