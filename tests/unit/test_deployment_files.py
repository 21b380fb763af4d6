"""Procfile, docker-compose.yml, Dockerfile and `dispatcher up` say the same."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from dispatcher import processes
from dispatcher.settings import Settings
from dispatcher.up import _TO_STOP
from workers.adapters import available

ROOT: Final = Path(__file__).parents[2]
COMPOSE: Final[Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
ACCOUNTS: Final = sorted(available())


def lines(file: str) -> list[str]:
    return [line for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]


def pins(file: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / file).read_text(), re.MULTILINE))


class TestProcfile:
    def test_it_has_each_process_and_no_other(self) -> None:
        assert lines("Procfile") == processes.procfile(ACCOUNTS).splitlines()


class TestCompose:
    def test_it_has_the_same_processes_and_a_server(self) -> None:
        assert list(COMPOSE["services"]) == ["redis", *processes.commands(ACCOUNTS)]

    @pytest.mark.parametrize("name", sorted(processes.commands(ACCOUNTS).keys() - {"sandbox", "receiver", "api"}))
    def test_a_service_runs_the_command_of_its_process(self, name: str) -> None:
        assert COMPOSE["services"][name]["command"] == processes.commands(ACCOUNTS)[name]

    def test_the_sandbox_listens_for_the_other_containers_and_runs_only_when_asked_for(self) -> None:
        sandbox = COMPOSE["services"]["sandbox"]
        assert sandbox["command"] == f"{processes.SANDBOX} --host 0.0.0.0"
        assert sandbox["profiles"] == ["sandbox"]

    def test_the_receiver_is_reached_by_a_proxy_on_this_machine_and_by_the_sandbox(self) -> None:
        receiver = COMPOSE["services"]["receiver"]
        assert receiver["command"] == f"{processes.RECEIVER} --host 0.0.0.0"
        port = processes.RECEIVER_PORT
        assert receiver["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert f"http://receiver:{port}" in receiver["environment"]["DISPATCHER_RECEIVER_URL"]
        assert f":{port}/health" in receiver["healthcheck"]["test"][-1]

    def test_the_api_is_reached_by_a_proxy_on_this_machine_and_runs_only_when_asked_for(self) -> None:
        api, port = COMPOSE["services"]["api"], processes.API_PORT
        assert api["command"] == f"{processes.API} --host 0.0.0.0"
        assert api["profiles"] == ["api"]
        assert api["ports"] == [f"127.0.0.1:{port}:{port}"]
        assert f":{port}/health" in api["healthcheck"]["test"][-1]

    def test_the_server_keeps_everything_as_the_embedded_one_does(self) -> None:
        program, *options = shlex.split(COMPOSE["services"]["redis"]["command"])
        told = dict(zip(options[::2], options[1::2], strict=True))
        # Of this network alone, and without a password: what is not published is not reached.
        assert told.pop("--protected-mode") == "no"
        assert program == "valkey-server"
        assert told == {f"--{name}": value for name, value in processes.SERVER.items()}
        assert "ports" not in COMPOSE["services"]["redis"]
        assert "PONG" in COMPOSE["services"]["redis"]["healthcheck"]["test"][1]
        assert COMPOSE["services"]["redis"]["volumes"], "an append-only file in a container that goes is none"

    @pytest.mark.parametrize("account", ACCOUNTS)
    def test_a_worker_runs_where_its_account_is_asked_for_and_all_do_in_the_sandbox(self, account: str) -> None:
        """Without credentials it would be started again and again."""
        assert COMPOSE["services"][account]["profiles"] == [account, "sandbox"]

    @pytest.mark.parametrize("account", ACCOUNTS)
    def test_a_worker_is_asked_for_its_heartbeat_and_given_time_to_stop(self, account: str) -> None:
        service = COMPOSE["services"][account]
        assert service["healthcheck"]["test"] == ["CMD", "dispatcher", "status", "--worker", account, "--here"]
        deadline = Settings.model_fields["deadline"].default
        assert int(service["stop_grace_period"].removesuffix("s")) > deadline + _TO_STOP

    def test_credentials_reach_the_workers_only(self) -> None:
        assert [name for name, service in COMPOSE["services"].items() if "env_file" in service] == ACCOUNTS

    @pytest.mark.parametrize("name", ["api", "notify"])
    def test_what_is_set_for_jobs_reaches_who_takes_them_and_tells_of_them(self, name: str) -> None:
        """Else the guards, budgets and routes of `.env` would bind the workers, and not what is enqueued by HTTP."""
        elsewhere = {"api", "data", "providers", "receiver_url"}
        of_workers = {"connections", "egress_address", "heartbeat", "probe_every", "sweep_every", "tick"}
        of_workers |= {one for one in Settings.model_fields if one.startswith("breaker_")}
        told = {one for one in Settings.model_fields if one.startswith("callback_")} - {
            "callback_private",
            "callback_queue",
        }
        wanted = set(Settings.model_fields) - elsewhere - of_workers - (told if name == "api" else set())
        assert {f"DISPATCHER_{one.upper()}" for one in wanted} == set(COMPOSE["services"][name]["environment"])

    def test_flower_has_a_password_and_is_published_on_this_machine_only(self) -> None:
        flower = COMPOSE["services"]["flower"]
        assert flower["environment"]["FLOWER_BASIC_AUTH"].startswith("${FLOWER_BASIC_AUTH:?")
        assert flower["ports"] == ["127.0.0.1:5555:5555"]

    def test_nothing_in_it_is_a_secret(self) -> None:
        """What is secret comes from the environment or from a file that is not kept with the code."""
        for service in COMPOSE["services"].values():
            for name, value in service.get("environment", {}).items():
                if re.search("KEY|PASS|PWD|AUTH|TOKEN|SECRET|UID", name):
                    assert str(value).startswith("${"), name


class TestImage:
    def test_nobody_runs_it(self) -> None:
        users = [line.split()[1] for line in lines("Dockerfile") if line.startswith("USER")]
        assert users == ["65534:65534"]
        # It is said after everything that needs rights.
        last = [line.split()[0] for line in lines("Dockerfile") if line[0].isupper()]
        assert last[last.index("USER") :] == ["USER", "WORKDIR", "CMD"]

    def test_only_what_is_named_can_get_into_it(self) -> None:
        first, *rest = lines(".dockerignore")
        assert first == "*"
        allowed = {line.removeprefix("!").removesuffix("/**") for line in rest if line.startswith("!")}
        copied = [
            word
            for line in lines("Dockerfile")
            if line.startswith("COPY") and "--from" not in line
            for word in line.split()[1:-1]
        ]
        assert set(copied) == allowed
        assert not re.search(r"ARG |SECRET|PASSWORD|_KEY", (ROOT / "Dockerfile").read_text())

    def test_its_lock_is_a_part_of_the_whole_lock(self) -> None:
        image, whole = pins("requirements-image.lock"), pins("requirements.lock")
        assert image.items() <= whole.items()
        assert {"celery", "httpx", "setuptools"} <= set(image)
        assert not {"pytest", "django", "mypy"} & set(image)

    @pytest.mark.parametrize("file", ["requirements.lock", "requirements-image.lock"])
    def test_a_lock_has_hashes_and_names_no_registry(self, file: str) -> None:
        text = (ROOT / file).read_text()
        assert text.count("--hash=sha256:") >= len(pins(file))
        assert "://" not in text
        assert not [line for line in text.splitlines() if line.startswith("-")], "an option could name one"
