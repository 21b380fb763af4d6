"""What an account cannot do until its operator mends it, with real workers: one finds out, and all of them wait."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from dispatcher import Dispatcher, Job, State
from tests.support import Deployment, Process, Worker, phone, phones, taken_by_number, until

COMMAND: Final = str(Path(sys.executable).parent / "dispatcher")

#: A third account at the same provider, of whose password a digit is wrong, and one that may only ask for its balance.
WRONG: Final = {"adapter": "textgoto", "uid": "sandbox", "pwd": "sandb0x"}
GUEST: Final = {"adapter": "textgoto", "uid": "guest", "pwd": "sandbox"}


def account(name: str, fields: dict[str, str], **more: str) -> dict[str, str]:
    """Settings of a worker that has this account."""
    return {f"providers__{name}__{field}": value for field, value in {**fields, **more}.items()}


def asked(deployment: Deployment, folder: Path, *arguments: str) -> tuple[int, list[Any]]:
    """Run a command with --json; its code and documents."""
    one = Process([COMMAND, *arguments, "--json"], deployment.environment, folder, arguments[0])
    before = len(one.output())
    code = one.wait(60)
    lines = one.output()[before:].splitlines()
    return code, [json.loads(line) for line in lines if line.startswith("{")]


def requests(deployment: Deployment, action: str = "SEND_MSISDN") -> int:
    return deployment.sandbox.counts().requests.get("textgoto", {}).get(action, 0)


def waits(dispatcher: Dispatcher, job: Job) -> bool:
    waiting = dispatcher.get(job.id).waiting
    return waiting is not None and waiting.reason == "suspended"


def wrong_workers(deployment: Deployment, **settings: str) -> list[Worker]:
    """Start two workers with the wrong password, as a deployment has them after somebody changed it."""
    workers = [
        deployment.start_worker(queues="wrong", name=name, **account("wrong", WRONG), **settings)
        for name in ("first", "second")
    ]
    return [one.ready() for one in workers]


@pytest.fixture
def application(deployment: Deployment) -> Dispatcher:
    return deployment.client(providers={"textgoto": {"uid": "x"}, "wrong": {"uid": "x"}, "guest": {"uid": "x"}})


def test_one_wrong_password_is_one_refusal_a_worker_and_is_mended_by_hand(
    deployment: Deployment, application: Dispatcher, tmp_path: Path
) -> None:
    """Sixty jobs are ready when two workers start; whoever mends it says so, and all of them are sent, each once."""
    jobs = [application.send(number, f"Hello {number}", provider="wrong") for number in phones(60)]
    workers = wrong_workers(deployment, probe_every="600")
    until(lambda: all(waits(application, job) for job in jobs), 30, "all to wait")
    assert 1 <= requests(deployment) <= 2
    refused = requests(deployment)
    for one in workers:
        one.stop()
    late = deployment.worker(queues="wrong", name="late", probe_every="600", **account("wrong", WRONG))
    later = [application.send(number, "Hello", provider="wrong") for number in phones(20, start=60)]
    until(lambda: all(waits(application, job) for job in later), 30, "those to wait that came later")
    assert requests(deployment) == refused, "a worker that starts later knows it from the others"
    assert {application.get(job.id).attempts for job in jobs + later} == {0}

    code, (status,) = asked(deployment, tmp_path, "status")
    assert code == 1
    (problem,) = [one for one in status["problems"] if one.startswith("wrong: ")]
    assert "its credentials are refused" in problem
    assert "dispatcher providers resume wrong" in problem
    code, listed = asked(deployment, tmp_path, "providers")
    assert code == 0
    assert {one["name"]: [each["scope"] for each in one["suspended"]] for one in listed} == {"wrong": ["account"]}
    told = [one.type for one in application.events("0", timeout=0)]
    assert [one for one in told if one.startswith("provider.")] == ["provider.suspended"]

    late.stop()
    mended = account("wrong", WRONG, pwd="sandbox")
    deployment.worker(queues="wrong", name="mended", probe_every="600", **mended)
    code, (lifted,) = asked(deployment, tmp_path, "providers", "resume", "wrong")
    assert (code, lifted["provider"], lifted["scope"]) == (0, "wrong", "account")
    for job in jobs + later:
        assert application.wait(job.id).state == State.SENT
    assert taken_by_number(deployment.sandbox) == dict.fromkeys(phones(80), 1)
    assert asked(deployment, tmp_path, "providers", "resume", "wrong") == (1, [])
    assert asked(deployment, tmp_path, "status")[0] == 0


def test_a_password_that_is_right_again_is_noticed(deployment: Deployment, application: Dispatcher) -> None:
    workers = wrong_workers(deployment, probe_every="0.5")
    job = application.send(phone(1), "Hello", provider="wrong", send_at=None)
    until(lambda: waits(application, job), what="it to wait")
    until(lambda: requests(deployment, "CHECK_BALANCE") >= 3, what="looks")
    assert requests(deployment) == 1, "looks cost nothing"
    for one in workers:
        one.stop()
    deployment.worker(queues="wrong", name="mended", probe_every="0.5", **account("wrong", WRONG, pwd="sandbox"))
    assert application.wait(job.id).state == State.SENT
    told = [one for one in application.events("0", timeout=0) if one.type.startswith("provider.")]
    assert [(one.type, one.data["scope"]) for one in told] == [
        ("provider.suspended", "account"),
        ("provider.resumed", "account"),
    ]


def test_what_an_account_may_not_do_stops_nothing_else(deployment: Deployment, application: Dispatcher) -> None:
    """Nor is it lifted by a balance that it may well ask for."""
    deployment.worker(queues="guest,textgoto", probe_every="0.2", **account("guest", GUEST))
    jobs = [application.send(number, f"Hello {number}", provider="guest") for number in phones(20)]
    until(lambda: all(waits(application, job) for job in jobs), what="all to wait")
    balance = application.operation("guest", "balance")
    assert application.wait(balance.id).state == State.COMPLETED
    other = application.send(phone(1), "Hello", provider="textgoto")
    assert application.wait(other.id).state == State.SENT
    assert [one.scope for one in application.suspensions()] == ["operation:send"]
    # Every 2 s one of them is let through.
    before = requests(deployment)
    until(lambda: requests(deployment) >= before + 2, 30, "two of them to be tried")
    assert [one.scope for one in application.suspensions()] == ["operation:send"]
    assert {application.get(job.id).attempts for job in jobs} == {0}
