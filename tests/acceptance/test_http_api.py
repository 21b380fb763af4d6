"""`dispatcher api` as it runs: a service that knows HTTP and nothing else, a real worker, the sandbox's phones."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest

from dispatcher import tokens
from dispatcher.settings import load
from dispatcher.store import JobStore
from tests.support import Deployment, Process, clean_environment, phone, until
from tests.warm import WarmProcess, module

ROOT: Final = Path(__file__).parents[2]

#: What the sandbox's phones get at this number, as `docs/sandbox.md` has it.
CODE: Final = "012837"


class Service:
    """Asks by HTTP alone."""

    def __init__(self, origin: str, token: str) -> None:
        self.origin = origin
        self.token = token

    def ask(self, method: str, path: str, document: Any = None, **query: Any) -> Any:
        with self.open(method, path, document, **query) as answer:
            told = json.loads(answer.read())
            assert answer.status in {200, 201}, told
            return told

    @contextmanager
    def open(self, method: str, path: str, document: Any = None, *, accept: str = "*/*", **query: Any) -> Iterator[Any]:
        place = urlsplit(self.origin)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", "Accept": accept}
        body = None if document is None else json.dumps(document)
        with closing(http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=30)) as connection:
            connection.request(method, f"{path}?{urlencode(query)}", body, headers)
            yield connection.getresponse()


@pytest.fixture
def api(running: Deployment, tmp_path: Path) -> Iterator[Process]:
    one = WarmProcess(module(["dispatcher.cli", "api", "--port", "0"]), running.environment, tmp_path / "api", "api")
    try:
        one.wait_for("listens at ")
        yield one
    finally:
        one.kill()


@pytest.fixture
def origin(api: Process) -> str:
    (found,) = re.findall(r"listens at (\S+)", api.output())
    return str(found)


@pytest.fixture
def service(running: Deployment, origin: str) -> Service:
    secret, one = tokens.make(tenant="shop-a", rights=["send", "verify", "lookup", "read"])
    settings = load(redis_url=running.url)
    store = JobStore(settings.redis, settings.redis_shown)
    tokens.put(store, secret, one)
    store.close()
    return Service(origin, secret)


def test_from_sent_to_delivered_by_http_alone(service: Service, api: Process) -> None:
    """And what it asked with is in no log."""
    cursor = service.ask("GET", "/v1/events")["cursor"]
    text = {"to": phone(1), "text": "Your parcel is here", "provider": "textgoto"}
    job = service.ask("POST", "/v1/messages", text)
    told = service.ask("GET", "/v1/events", after=cursor, wait=20)
    assert [(one["type"], one["data"]["id"]) for one in told["events"]] == [("job.sent", job["id"])]
    found = service.ask("POST", "/v1/lookups", {"to": phone(1), "provider": "textgoto"})
    heard = service.ask("GET", "/v1/events", after=told["cursor"], wait=20)["events"]
    assert [(one["type"], one["data"]["id"]) for one in heard] == [("job.completed", found["id"])]
    code = service.ask("POST", "/v1/verifications", {"to": phone(109), "provider": "textgoto"})["id"]
    until(lambda: service.ask("GET", f"/v1/jobs/{code}")["state"] == "sent", 20, "the code is sent")
    assert service.ask("POST", f"/v1/verifications/{code}/check", {"code": CODE}) == {
        "valid": True,
        "status": "approved",
    }
    assert not [word for word in (service.token, phone(1), job["id"], "/v1/") if word in api.output()]


def test_a_stream_ends_when_the_api_is_told_to_stop(service: Service, api: Process) -> None:
    job = service.ask("POST", "/v1/messages", {"to": phone(2), "text": "Hi", "provider": "textgoto"})
    with service.open("GET", "/v1/events", after="0", accept="text/event-stream") as stream:
        lines = iter(stream.readline, b"")
        (data,) = [next(line for line in lines if line.startswith(b"data: ") and job["id"].encode() in line)]
        assert json.loads(data.removeprefix(b"data: "))["type"] == "job.sent"
        api.terminate()
        assert b"data: " not in b"".join(lines)
    assert api.wait() == 0


def tools(folder: Path) -> str:
    """A path with the commands that documents use."""
    commands = {"curl": [str(ROOT / "tests" / "curl.py")], "dispatcher": ["-m", "dispatcher.cli"]}
    folder.mkdir()
    for name, words in commands.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def shell(script: str, folder: Path, environment: Mapping[str, str]) -> str:
    """What a shell script said, which must end well."""
    ended = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, env={**clean_environment(), **environment}, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_documented_commands_work(running: Deployment, origin: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "http-api.md").read_text(), re.MULTILINE | re.DOTALL)
    script = "\n".join(blocks).replace("http://127.0.0.1:8480", origin)
    said = shell(script, tmp_path, {**running.environment, "PATH": tools(tmp_path / "bin")})
    for word in ('"state":"queued"', '"job.sent"', '"valid":', '"id":"spring-1"', '"reference":"ann"',
                 '"cancelled":true', "event: job."):  # fmt: skip
        assert word in said


def test_the_example_tells_what_became_of_an_order(service: Service, tmp_path: Path) -> None:
    script = (ROOT / "examples" / "http" / "orders.sh").read_text()
    environment = {"API": service.origin, "TOKEN": service.token, "PATH": tools(tmp_path / "bin")}
    for _ in ("a request", "the same again, whose job is over already"):
        said = shell(f"set -- 17 {phone(3)}\n{script}", tmp_path, environment)
        assert said == "order 17: sent\n"
