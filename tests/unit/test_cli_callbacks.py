"""`dispatcher callbacks` and the options that name callbacks, as they are typed; what `status` and `doctor` say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from dispatcher import doctor, notices
from dispatcher.callbacks import Counted
from dispatcher.endpoints import Endpoint, Health, NoticeCalls, Told
from dispatcher.findings import Status as Verdict
from dispatcher.heartbeats import Health as WorkerHealth
from dispatcher.jobs import moment
from dispatcher.notices import Target
from dispatcher.pages import print_status
from dispatcher.status import AccountStatus, Notified, Server, Status, WorkerStatus
from tests.commands import Run, in_process
from tests.consumer import SECRET, listening
from tests.unit import test_cli
from tests.unit.support import NUMBER, TEXT, Bench, leaks, settings

memory, away = test_cli.memory, test_cli.away

URL: Final = "https://hooks.example.com/dispatcher?token=canary"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process({}, monkeypatch, capsys)


def kept(bench: Bench, id_: str) -> Target:
    return notices.decode(bench.redis.hget(f"d:j:{id_}", "cb").decode(), bench.settings.sealer())[1]


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["send", NUMBER, TEXT], id="send"),
        pytest.param(["verify", NUMBER], id="verify"),
        pytest.param(["lookup", NUMBER], id="lookup"),
        pytest.param(["op", "textgoto", "balance"], id="op"),
    ],
)
def test_a_command_that_makes_a_job_says_who_is_told(run: Run, memory: Bench, words: list[str]) -> None:
    account = [] if words[0] == "op" else ["--provider", "textgoto"]
    told = ["--callback-url", URL, "--callback-task", "billing.on_message", "--callback-queue", "billing"]
    ended = run(*words, *account, *told, "--json")
    assert ended.code == 0
    assert not leaks(ended.out, "canary")
    assert kept(memory, ended.document["id"]) == Target(url=URL, task="billing.on_message", queue="billing")


def test_one_that_cannot_be_is_named_and_not_shown(run: Run, memory: Bench) -> None:
    ended = run("send", NUMBER, TEXT, "--callback-url", "http://hooks.example.com/canary")
    assert ended.code == 2
    assert "--callback-url: is not https" in ended.err
    assert not leaks(ended.err, "canary")


def given_up(bench: Bench, run: Run) -> tuple[str, str]:
    """The id of an endpoint, and of a notice that was not delivered there."""
    job = run("send", NUMBER, TEXT, "--provider", "textgoto", "--callback-url", URL, "--json").document["id"]
    bench.advance(job, bench.claim(job), "sent")
    calls = NoticeCalls(bench.settings)
    (endpoint,) = bench.run(calls.gather(publishes=True)).due
    (one,) = bench.run(calls.take(endpoint, "token", "call", 0)).notices
    bench.run(calls.done(endpoint, "token", one.cursor, Told.FAILED, words="they answered 500"))
    return endpoint, one.id


def test_what_was_not_delivered_is_listed_and_told_again(run: Run, memory: Bench) -> None:
    assert run("callbacks").out == "nobody was called back yet\n"
    assert run("callbacks", "failed").out == "everything was delivered, or waits\n"
    endpoint, notice = given_up(memory, run)
    listed = run("callbacks", "--json").document
    assert (listed["id"], listed["endpoint"], listed["state"]) == (endpoint, "https://hooks.example.com/...", "failing")
    assert "failing; 0 waiting, 0 delivered, 1 not - they answered 500" in run("callbacks").out
    failed = run("callbacks", "failed", "--json").document
    assert (failed["id"], failed["type"], failed["why"]) == (notice, "job.sent", "they answered 500")
    assert notice in run("callbacks", "failed", "--endpoint", endpoint).out
    assert run("callbacks", "redrive", notice).out == "1 is told again\n"
    ended = run("callbacks", "redrive", notice)
    assert (ended.code, ended.out) == (1, "0 are told again\n")
    assert run("callbacks", "redrive", "--all", "--json").document == {"redriven": 0}


@pytest.mark.parametrize(
    "words",
    [[], ["--all", "evt_1-0"], ["--all", "--endpoint", "x"]],
    ids=["nothing named", "all and one", "all and an endpoint"],
)
def test_what_is_redriven_is_named_in_one_way(run: Run, memory: Bench, words: list[str]) -> None:
    assert run("callbacks", "redrive", *words).code == 2


def test_an_endpoint_is_resumed_by_its_id(run: Run, memory: Bench) -> None:
    endpoint, _ = given_up(memory, run)
    assert run("callbacks", "resume", endpoint).out == f"{endpoint} was not paused, and nothing waits there for later\n"
    memory.redis.hset(f"d:t:{endpoint}", "g", 1)
    assert run("callbacks", "resume", endpoint, "--json").document == {"endpoint": endpoint, "resumed": True}
    assert "nobody" in run("callbacks", "resume", "nobody").err


def test_a_ping_is_signed_and_its_answer_shown(run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_CALLBACK_SECRET", SECRET)
    monkeypatch.setenv("DISPATCHER_CALLBACK_PRIVATE", "1")
    with listening() as consumer:
        ended = run("callbacks", "ping", f"{consumer.url}/here?token=canary", "--json")
        assert (ended.code, ended.document["status"], ended.document["delivered"]) == (0, 204, True)
        assert [one.event["type"] for one in consumer.heard] == ["callback.ping"]
        assert consumer.heard[0].path == "/here?token=canary"
        consumer.answer = lambda _: 500
        ended = run("callbacks", "ping", f"{consumer.url}/here?token=canary")
    assert ended.code == 1
    assert "500" in ended.err
    assert not leaks(ended.out + ended.err, "canary")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        pytest.param("https://127.0.0.1/canary", "DISPATCHER_CALLBACK_PRIVATE", id="a private address"),
        pytest.param("http://hooks.example.com/canary", "https", id="not encrypted"),
    ],
)
def test_a_ping_says_why_an_address_is_refused(
    run: Run, memory: Bench, monkeypatch: pytest.MonkeyPatch, url: str, words: str
) -> None:
    monkeypatch.setenv("DISPATCHER_CALLBACK_SECRET", SECRET)
    ended = run("callbacks", "ping", url)
    assert ended.code != 0
    assert words in ended.err
    assert not leaks(ended.err, "canary")


# -- status and doctor -------------------------------------------------------------------------------------------------


def endpoint(state: Health = Health.HEALTHY, **more: Any) -> Endpoint:
    return Endpoint(**{"id": "abc", "endpoint": "https://hooks.example.com/...", "state": state, **more})


ALIVE: Final = WorkerStatus(node="notify-1@here", health=WorkerHealth.ALIVE, busy=0, slots=128, at=moment(0))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        pytest.param(Notified(), [], id="nobody is told"),
        pytest.param(Notified(workers=[ALIVE], endpoints=[endpoint(waiting=2)]), [], id="all is well"),
        pytest.param(
            Notified(endpoints=[endpoint(waiting=2)]),
            ["2 callbacks to applications wait and no worker tells them; start it: dispatcher worker notify"],
            id="nobody tells",
        ),
        pytest.param(
            Notified(workers=[ALIVE], endpoints=[endpoint(Health.FAILING, failures=2, waiting=3, error="500")]),
            [],
            id="an accident",
        ),
        pytest.param(
            Notified(workers=[ALIVE], endpoints=[endpoint(Health.FAILING, failures=3, waiting=3, error="500")]),
            ["https://hooks.example.com/... (abc) fails, 3 callbacks wait: 500"],
            id="one fails",
        ),
        pytest.param(
            Notified(workers=[ALIVE], endpoints=[endpoint(Health.PAUSED, waiting=3, error="500")]),
            ["https://hooks.example.com/... (abc) fails and is paused, 3 callbacks wait: 500"],
            id="paused",
        ),
        pytest.param(
            Notified(workers=[ALIVE], endpoints=[endpoint(Health.GONE)]),
            ["https://hooks.example.com/... said that it is gone; should it not be: dispatcher callbacks resume abc"],
            id="gone",
        ),
    ],
)
def test_status_says_what_keeps_applications_from_being_told(told: Notified, words: list[str]) -> None:
    assert told.problems == words


@pytest.mark.parametrize(
    ("given", "found", "asked", "served", "checks"),
    [
        pytest.param({}, [], False, False, [], id="nobody is told"),
        pytest.param({}, [], True, True, ["callbacks"], id="all is well"),
        pytest.param({}, [], True, False, ["callbacks.worker"], id="no worker"),
        pytest.param({"callback_url": URL}, [], False, True, ["callbacks.secret"], id="no secret for the default"),
        pytest.param({}, [endpoint()], True, True, ["callbacks.secret"], id="no secret for a job's"),
        pytest.param(
            {"callback_secret": SECRET}, [endpoint(Health.PAUSED)], True, True, ["callbacks.endpoint"], id="paused"
        ),
    ],
)
def test_doctor_judges_whether_applications_are_told(
    given: dict[str, Any], found: list[Endpoint], *, asked: bool, served: bool, checks: list[str]
) -> None:
    told = [*doctor.called_back(settings(**given), found, asked=asked, served=served)]
    assert [one.check for one in told] == checks
    assert all((one.status == Verdict.OK) == (one.check == "callbacks") for one in told)


def test_a_file_says_who_is_told(run: Run, memory: Bench) -> None:
    Path("who.csv").write_text(f"to,text\n{NUMBER},{TEXT}\n")
    refused = run("send-file", "who.csv", "--callback-url", "http://hooks.example.com/canary")
    assert (refused.code, memory.redis.keys("d:j:*")) == (2, [])
    assert not leaks(refused.err, "canary")
    ended = run("send-file", "who.csv", "--callback-url", URL, "--json")
    assert ended.code == 0
    batch = ended.document["batch_id"]
    (job,) = memory.redis.lrange(f"d:b:{batch}:j", 0, -1)
    assert kept(memory, job.decode()) == Target(url=URL)
    assert memory.redis.hexists(f"d:b:{batch}", "cb"), "and when all of it has settled"


def test_status_tells_callbacks_from_providers_and_those_to_applications_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    account = AccountStatus(
        name="textgoto", adapter="textgoto", sandbox=False, workers=[], queues={}, queued=5, parked=0, sending=0,
        unknown=0, waiting_since=None, unserved=1, callbacks=Counted(waiting=2),
    )  # fmt: skip
    server = Server(address="127.0.0.1:6379")
    notified = Notified(workers=[ALIVE], endpoints=[endpoint(waiting=1)], undelivered=3)
    status = Status(at=moment(0), redis=server, broker=server, accounts=[account], notify=notified, aside=4)
    print_status(status)
    printed = capsys.readouterr().out
    assert "callbacks from" in printed
    assert "notify 1 alive; 1 callback to applications waits, 3 were not delivered" in printed
    aside, unserved = status.problems
    assert aside.startswith("4 of the callbacks from providers cannot be read and were set aside; ")
    assert unserved.startswith("textgoto: 5 jobs and 2 callbacks from its provider wait and no worker serves it; ")
