"""How a worker starts: plainly where it can, and with one paragraph that names the setting where it cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, State
from dispatcher.embedded import free_port
from tests.support import Deployment, Process, Server, phone, taken_by_number
from tests.warm import WarmProcess, module
from workers.sandbox.client import Sandbox

REDIS = {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}
LIVE = REDIS | {"DISPATCHER_PROVIDERS__TEXTGOTO__UID": "u", "DISPATCHER_PROVIDERS__TEXTGOTO__PWD": "hunter2"}
SANDBOX = REDIS | {"DISPATCHER_SANDBOX": "1", "DISPATCHER_SANDBOX_URL": "http://127.0.0.1:1"}

#: What is set, which queues are asked for, and what the refusal must name.
REFUSALS = {
    "no credentials": (REDIS, "textgoto", "DISPATCHER_PROVIDERS__TEXTGOTO__UID"),
    "half of them": (
        REDIS | {"DISPATCHER_PROVIDERS__TEXTGOTO__UID": "u"},
        "textgoto",
        "DISPATCHER_PROVIDERS__TEXTGOTO__PWD",
    ),
    "none for one of two accounts": (LIVE, "textgoto,broke", "DISPATCHER_PROVIDERS__BROKE__ADAPTER"),
    "a queue of nobody": (LIVE, "textgotoo", "textgotoo"),
    "no account at all": (REDIS, "", "DISPATCHER_PROVIDERS__"),
    "no Redis": ({}, "textgoto", "DISPATCHER_REDIS_URL"),
    "a Redis that is no URL": (LIVE | {"DISPATCHER_REDIS_URL": "localhost"}, "textgoto", "DISPATCHER_REDIS_URL"),
    "a sandbox nobody knows where": (REDIS | {"DISPATCHER_SANDBOX": "1"}, "textgoto", "DISPATCHER_SANDBOX_URL"),
    "what is not built yet": (
        LIVE | {"DISPATCHER_PROVIDERS__TEXTGOTO__LIMITS": "10/s"},
        "textgoto",
        "DISPATCHER_PROVIDERS__TEXTGOTO__LIMITS",
    ),
    "a lease that ends before the deadline": (LIVE | {"DISPATCHER_LEASE": "20"}, "textgoto", "DISPATCHER_LEASE"),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """Start them all at once."""
    folder = tmp_path_factory.mktemp("refused")
    processes: dict[str, Process] = {}
    for n, (label, (environment, queues, _)) in enumerate(REFUSALS.items()):
        asked = ["-Q", queues] if queues else []
        command = module(["celery", "-A", "workers", "worker", *asked])
        processes[label] = WarmProcess(command, environment, folder / str(n), label)
    yield processes
    for process in processes.values():
        process.kill()


@pytest.mark.parametrize("label", REFUSALS)
def test_it_refuses_what_cannot_work(label: str, refused: dict[str, Process]) -> None:
    """One readable paragraph that names the setting; no traceback, no secret, no worker."""
    process = refused[label]
    code = process.wait()
    told = [line for line in process.output().splitlines() if line.strip()]
    paragraph = [line for line in told if REFUSALS[label][2] in line]
    assert paragraph, told
    assert code != 0
    assert "Traceback" not in process.output()
    assert "hunter2" not in process.output()
    # Celery itself warns whoever runs it as root, in a paragraph of its own.
    assert len([line for line in told if "dispatcher" in line.lower()]) == 1


def test_it_refuses_jobs_that_are_not_its_own(deployment: Deployment) -> None:
    """A sandbox worker would end live jobs as sent that nobody gets; under another key no code is ever right."""
    account = {"textgoto": {"uid": "u", "pwd": "p"}}
    keys: dict[str, Any] = {"secret_key": "a secret", "hash_key": "hunter1"}
    live = {"sandbox": "", "sandbox_url": "", "providers__textgoto__uid": "u", "providers__textgoto__pwd": "p"}
    with Dispatcher(redis_url=deployment.url, sandbox=False, providers=account, **keys) as application:
        job = application.send(phone(1), "Hello")
        workers = {
            "DISPATCHER_SANDBOX": deployment.start_worker(name="sandbox"),
            "DISPATCHER_HASH_KEY": deployment.start_worker(name="other", **{**live, **keys, "hash_key": "hunter2"}),
        }
        for setting, worker in workers.items():
            assert worker.wait() != 0
            (told,) = [line for line in worker.output().splitlines() if "dispatcher: " in line]
            assert setting in told
            assert "Traceback" not in worker.output()
            assert "hunter" not in worker.output()
        assert application.get(job.id).state == State.QUEUED


class TestRedisAwayAtStart:
    def test_it_waits_for_it_without_telling_the_password(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Machines boot in any order."""
        server = Server(tmp_path / "valkey", free_port())
        deployment = Deployment(server.url, sandbox, tmp_path, {"redis_url": server.url.replace("//", "//:hunter2@")})
        try:
            worker = deployment.start_worker()
            worker.wait_for("Connection refused")
            server.start()
            deployment.redis.config_set("requirepass", "hunter2")
            worker.ready()
            with deployment.client(redis_url=deployment.settings["redis_url"]) as dispatcher:
                assert dispatcher.wait(dispatcher.send(phone(1), "Hello").id).state == State.SENT
            assert "hunter2" not in worker.output()
        finally:
            deployment.close()
            server.stop()


class TestNothingButTheCommand:
    def test_bare_celery_is_enough(self, deployment: Deployment, tmp_path: Path) -> None:
        """As an operator would write it, with no option of ours but the queue."""
        dispatcher = deployment.client(providers={"textgoto": {"uid": "sandbox"}})
        job = dispatcher.send(phone(1), "Hello")
        worker = Process(
            ["-m", "celery", "-A", "workers", "worker", "-Q", "textgoto"], deployment.environment, tmp_path, "bare"
        )
        try:
            assert dispatcher.wait(job.id, timeout=60).state == State.SENT
            assert "Traceback" not in worker.output()
            worker.terminate()
            assert worker.wait() == 0
        finally:
            worker.kill()

    def test_dispatcher_worker_is_the_same(self, deployment: Deployment, tmp_path: Path) -> None:
        command = str(Path(sys.executable).parent / "dispatcher")
        dispatcher = deployment.client()
        job = dispatcher.send(phone(1), "Hello")
        worker = Process([command, "worker", "textgoto"], deployment.environment, tmp_path, "command")
        try:
            assert dispatcher.wait(job.id, timeout=60).state == State.SENT
            worker.terminate()
            assert worker.wait() == 0
        finally:
            worker.kill()
        assert taken_by_number(deployment.sandbox) == {phone(1): 1}

    def test_an_application_needs_no_credentials(self, running: Deployment) -> None:
        """What workers published is enough to enqueue."""
        with Dispatcher(redis_url=running.url, sandbox=True) as application:
            assert set(application.providers()) == {"textgoto", "broke"}
            job = application.send(phone(1), "Hello", provider="textgoto")
            assert application.wait(job.id).state == State.SENT
