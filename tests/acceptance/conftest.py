"""One deployment of everything for the tests of all four providers: a worker process for each, sandbox and receiver."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self
from urllib.parse import urlsplit

import msgspec
import pytest

from dispatcher import Dispatcher, Job
from dispatcher.settings import load
from tests import support
from tests.commands import Ended, Run, in_process
from tests.support import WATCH, Deployment, Process, Server, Worker
from workers.receiver import url
from workers.sandbox.client import Sandbox
from workers.sandbox.world import Row

#: The accounts of each worker process: the vendor's own, and others at the same vendor.
ACCOUNTS: Final = {
    "clubtexting": ("clubtexting", "xmlclub", "brokeclub", "guestclub", "wrongclub"),
    "mobtexting": ("mobtexting", "brokemob", "guestmob", "wrongmob"),
    "textgoto": ("textgoto", "brokegoto", "wronggoto"),
    "thetexting": ("thetexting", "xmlthe", "brokethe", "wrongthe"),
}

#: What nobody's password is, and what no log, value or event may hold.
PASSWORD: Final = "canary-Password-93"
KEYS: Final = {"secret_key": "canary-Secret-Key-58", "hash_key": "canary-Hash-Key-26"}

#: Of the others: what they speak through, and their credentials where those are not the sandbox's usual ones.
OTHERS: Final = {
    "xmlclub": {"adapter": "clubtexting", "user": "sandbox", "password": "sandbox", "format": "xml"},
    "brokeclub": {"adapter": "clubtexting", "user": "broke", "password": "sandbox"},
    "guestclub": {"adapter": "clubtexting", "user": "guest", "password": "sandbox"},
    "wrongclub": {"adapter": "clubtexting", "user": "sandbox", "password": PASSWORD},
    "brokemob": {"adapter": "mobtexting", "access_token": "broke", "sender": "ACME"},
    "guestmob": {"adapter": "mobtexting", "access_token": "guest", "sender": "ACME"},
    "wrongmob": {"adapter": "mobtexting", "access_token": PASSWORD, "sender": "ACME"},
    "brokegoto": {"adapter": "textgoto", "uid": "broke", "pwd": "sandbox"},
    "wronggoto": {"adapter": "textgoto", "uid": "sandbox", "pwd": PASSWORD},
    "xmlthe": {"adapter": "thetexting", "api_key": "sandbox", "api_secret": "sandbox", "format": "xml"},
    "brokethe": {"adapter": "thetexting", "api_key": "broke", "api_secret": "sandbox"},
    "wrongthe": {"adapter": "thetexting", "api_key": "sandbox", "api_secret": PASSWORD},
}


class Four(Deployment):
    """All four providers, served as in production: each by a process of its own, and one that takes callbacks."""

    def __init__(self, server: Server, sandbox: Sandbox, folder: Path) -> None:
        accounts = {f"providers__{name}__{field}": one for name in OTHERS for field, one in OTHERS[name].items()}
        # They look for work of many accounts, and the less often, the more is left to others of the machine.
        rarely = {"tick": "0.2", "sweep_every": "0.5"}
        super().__init__(server.url, sandbox, folder, {**accounts, **KEYS, **rarely, "probe_every": "600"})
        self.server = server
        self.folder = folder
        self.workers: dict[str, Worker] = {}
        self.receiver: Process
        #: Where each provider calls.
        self.addresses: dict[str, str] = {}

    def start(self) -> Self:
        """Start everything at once, and return when all of it is ready."""
        self.workers = {name: self.serve(name, name) for name in ACCOUNTS}
        command = ["-m", "dispatcher.cli", "receiver", "--port", "0", "--json"]
        self.receiver = Process(command, self.environment, self.folder, "receiver")
        self._open.callback(self.receiver.stop)
        for one in self.workers.values():
            one.ready()
        self.receiver.wait_for('{"url":')
        told = next(one for one in self.receiver.output().splitlines() if one.startswith("{"))
        origin = msgspec.json.decode(told)["url"]
        WATCH.port(urlsplit(origin).port or 0, "receiver")
        shared = load(redis_url=self.url, sandbox=True, **KEYS)
        self.addresses = {name: url(shared, origin, name) for name in ACCOUNTS if name != "textgoto"}
        return self

    def serve(self, provider: str, name: str, **settings: str) -> Worker:
        """Start a worker for all accounts at a provider."""
        return self.start_worker("--concurrency", "8", queues=",".join(ACCOUNTS[provider]), name=name, **settings)

    def application(self, **overrides: Any) -> Dispatcher:
        """Return a `Dispatcher` as an application has it: no credentials, and the accounts that workers published."""
        return self.client(providers={}, **KEYS, **overrides)

    def begin(self) -> Self:
        """Forget all jobs and all that the providers were asked; they know whom to call."""
        self.sandbox.reset()
        self.forget()
        self.sandbox.times(after=0.1, late=0.3, retry_every=0.5)
        self.sandbox.callbacks(self.addresses)
        return self

    def rows(self, kind: str = "", provider: str = "") -> list[Row]:
        """Return what the ledger has of a kind, at a provider."""
        return [row for row in self.sandbox.ledger() if kind in {"", row.kind} and provider in {"", row.provider}]

    def asked(self, provider: str, kind: str) -> int:
        """Return how many requests of a kind a provider got, refused ones too."""
        return len({row.request for row in self.rows(kind, provider)})

    def go_on(self, seconds: float, *jobs: Job) -> None:
        """Let so much time pass for these jobs, and let it be time to ask what became of them.

        Their history lies in Redis with its times: those are what is changed, so that no test waits for a minute.
        """
        now = time.time() * 1000
        for job in jobs:
            key = f"d:j:{job.id}"
            lines = self.redis.hget(key, "h").decode()
            earlier = re.sub(r"(?m)^\d+", lambda ms: str(int(ms[0]) - round(seconds * 1000)), lines)
            self.redis.hset(key, "h", earlier)
            self.redis.zadd(f"d:f:{job.provider}", {job.id: now}, xx=True)


@pytest.fixture(scope="module")
def all_four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Four]:
    folder = tmp_path_factory.mktemp("four")
    # Of their own: a fault or a limit that is switched on here is nobody else's.
    with Server(folder / "valkey") as server, support.sandbox(folder) as sandbox:
        one = Four(server, sandbox, folder)
        try:
            yield one.start()
        finally:
            one.close()


@pytest.fixture
def four(all_four: Four) -> Four:
    """Share all of it, with no job, no fault and an empty ledger."""
    return all_four.begin()


@pytest.fixture
def d(all_four: Four) -> Iterator[Dispatcher]:
    """Be an application."""
    with all_four.application() as one:
        yield one


@pytest.fixture
def cli(all_four: Four, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dispatcher ARGUMENTS` without waiting for an interpreter to start."""
    shared = {"DISPATCHER_REDIS_URL", "DISPATCHER_SANDBOX", "DISPATCHER_SANDBOX_URL"}
    known = {name: one for name, one in all_four.environment.items() if name in shared or name.endswith("_KEY")}
    return in_process(known, monkeypatch, capsys)


class Typed(Protocol):
    """Runs `dispatcher ARGUMENTS` with this environment."""

    def __call__(self, environment: Mapping[str, str], *arguments: str) -> Ended: ...


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """Run commands, each with an environment of its own, without waiting for an interpreter to start."""

    def run(environment: Mapping[str, str], *arguments: str) -> Ended:
        with pytest.MonkeyPatch.context() as monkeypatch:
            return in_process(environment, monkeypatch, capsys)(*arguments)

    return run
