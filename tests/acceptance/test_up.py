"""`dispatcher up`: everything started, found by others, kept running, stopped whole. Real processes all."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from dispatcher import Dispatcher, State
from dispatcher.settings import RUNTIME, load
from tests.support import TIMES, WATCH, Process, listens, phone, phones, until
from workers.adapters import available
from workers.sandbox.client import Sandbox

COMMAND: Final = str(Path(sys.executable).parent / "dispatcher")

#: Quick to notice what dies.
QUICK: Final = {f"DISPATCHER_{name.upper()}": value for name, value in {**TIMES, "heartbeat": "0.5"}.items()}
TRIED: Final = {"DISPATCHER_SANDBOX": "1", **QUICK}

#: With the sandbox there is one at each provider.
ACCOUNTS: Final = sorted(available())


class Up(Process):
    """A run of `dispatcher up` in a folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = TRIED, *options: str) -> None:
        # Each has a log of its own, also where it goes on in the folder of another.
        name = f"up-{len([*folder.glob('up-*.log')]) + 1}"
        super().__init__([COMMAND, "up", *options], environment, folder, name)
        self.folder = folder
        self.environment = environment

    def ready(self) -> Up:
        self.wait_for(f"ready: {', '.join(ACCOUNTS)}")
        for url in (self.told["redis_url"], self.told.get("sandbox_url", "")):
            if url:
                WATCH.port(int(url.rsplit(":", 1)[1].split("/")[0]), f"{url} of up")
        return self

    @property
    def told(self) -> dict[str, str]:
        """What it left for others in its data folder."""
        found: dict[str, str] = json.loads((self.folder / ".dispatcher" / RUNTIME).read_text())
        return found

    def run(self, *arguments: str) -> Process:
        """Run another command in the same folder, with nothing in its environment."""
        one = Process([COMMAND, *arguments], {}, self.folder, arguments[0])
        one.wait()
        return one

    def pids(self, words: str) -> list[int]:
        """Return the processes it started whose command has these words."""
        return [pid for pid, command in children(self.popen.pid).items() if words in command]

    def pid(self, words: str) -> int:
        (one,) = self.pids(words)
        return one

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.popen.send_signal(signal.SIGINT)
        return self.wait(30)


def children(parent: int) -> dict[int, str]:
    """Return a process' children with their commands."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text().rpartition(") ")[2].split()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if int(stat[1]) == parent and stat[0] != "Z":
                found[int(folder.name)] = command
    return found


Start = Callable[..., Up]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start one as `Up` is started; whatever becomes of the test, all of them are stopped after it."""
    started: list[Up] = []

    def make(environment: Mapping[str, str] = TRIED, *options: str) -> Up:
        started.append(Up(tmp_path, environment, *options))
        return started[-1]

    yield make
    for one in started:
        one.stop(30)


@pytest.fixture
def up(start: Start) -> Up:
    return start().ready()


def client(up: Up, monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """Be an application in the same folder."""
    monkeypatch.chdir(up.folder)
    return Dispatcher()


def test_everything_runs_and_is_found_from_its_folder(up: Up) -> None:
    """Nothing is set in the other commands' environment."""
    sent = up.run("send", phone(1), "Hello", "--provider", "textgoto", "--wait")
    assert sent.popen.returncode == 0, sent.output()
    assert Sandbox(up.told["sandbox_url"]).inbox(phone(1))
    status = up.run("status")
    assert status.popen.returncode == 0, status.output()
    assert "All is well." in status.output()
    assert up.run("status", "--worker", "textgoto", "--here").popen.returncode == 0
    flower = next(line.split()[-1] for line in up.output().splitlines() if "Flower " in line)
    assert listens(int(flower.rsplit(":", 1)[1]))


def test_what_providers_call_back_is_taken_and_read(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox's receipt and a phone's stop, with nothing to be set."""
    sandbox = Sandbox(up.told["sandbox_url"])
    until(lambda: sandbox.told()["mobtexting"].url.startswith(up.told["receiver_url"]), what="an address")
    assert up.told["receiver_url"] in up.run("receiver", "--urls").output()
    with client(up, monkeypatch) as dispatcher:
        job = dispatcher.send(phone(1), "Hello", provider="mobtexting")
        assert dispatcher.wait(job.id, until="final").state == State.DELIVERED
        sandbox.text("thetexting", phone(2), "STOP")
        until(lambda: dispatcher.opted_out(phone(2)), what="the stop")


def test_without_a_hash_key_there_is_no_receiver_and_it_says_so(redis_url: str, sandbox: Sandbox, start: Start) -> None:
    account = {"DISPATCHER_PROVIDERS__TEXTGOTO__UID": "sandbox", "DISPATCHER_PROVIDERS__TEXTGOTO__PWD": "sandbox"}
    place = {"DISPATCHER_PROVIDERS__TEXTGOTO__BASE_URL": sandbox.url, "DISPATCHER_REDIS_URL": redis_url}
    up = start({**QUICK, **account, **place})
    up.wait_for("receiver none, since DISPATCHER_HASH_KEY is not set")
    assert not up.pids("dispatcher.cli receiver")
    assert up.interrupt() == 0


def test_a_second_one_says_so_and_leaves_the_first_alone(up: Up) -> None:
    second = Process([COMMAND, "up"], up.environment, up.folder, "second")
    assert second.wait() == 1
    assert f"in use by another dispatcher (process {up.popen.pid})" in second.output()
    assert "Traceback" not in second.output()
    assert up.run("status").popen.returncode == 0


def test_ctrl_c_stops_it_whole(start: Start, tmp_path: Path) -> None:
    up = start().ready()
    told, started = up.told, children(up.popen.pid)
    # The server, the sandbox, the receiver, Flower.
    assert len(started) == len(ACCOUNTS) + 4
    assert up.interrupt() == 0
    assert "everything is stopped" in up.output()
    assert "starts again" not in up.output()
    assert not (tmp_path / ".dispatcher" / RUNTIME).exists()
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert not listens(int(told["redis_url"].rsplit(":", 1)[1].split("/")[0]))


def test_under_nohup_it_outlives_its_terminal(start: Start) -> None:
    """What ignores the signal when it starts does so for this reason."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        up = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    up.ready().popen.send_signal(signal.SIGHUP)
    assert up.run("status").popen.returncode == 0
    assert "stopping" not in up.output()
    assert up.interrupt() == 0


def test_a_worker_killed_in_the_middle_is_back_and_nothing_is_sent_twice(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox(up.told["sandbox_url"])
    sandbox.fault("latency", seconds=0.2)
    with client(up, monkeypatch) as dispatcher:
        numbers = phones(300)
        jobs = [dispatcher.send(number, "Hello", provider="textgoto").id for number in numbers]
        until(lambda: sandbox.counts().accepted, what="the first text")
        killed = up.pid("worker -Q textgoto")
        os.kill(killed, signal.SIGKILL)
        up.wait_for("ended with signal SIGKILL; starts again in 1 s")
        ends = [dispatcher.wait(one, timeout=60).state for one in jobs]
        assert up.pid("worker -Q textgoto") != killed
    taken = sandbox.counts().accepted
    assert set(ends) <= {State.SENT, State.UNKNOWN}
    assert max(taken.values()) == 1
    assert len(taken) >= ends.count(State.SENT)


def test_the_server_killed_comes_back_with_its_jobs(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    with client(up, monkeypatch) as dispatcher:
        job = dispatcher.send(phone(1), "Hello", provider="textgoto", send_at=time.time() + 86400)
        store: Any = dispatcher._store.redis
        # What a crash of the machine could lose is another matter: here it lies in the file already.
        store.execute_command("WAITAOF", 1, 0, 5000)
        os.kill(up.pid("valkey-server"), signal.SIGKILL)
        up.wait_for("redis | ended with signal SIGKILL")

        def answers() -> bool:
            try:
                return bool(store.ping())
            except redis.RedisError:
                return False

        until(answers, 20, "the server")
        assert dispatcher.get(job.id).state == State.QUEUED
        assert dispatcher.wait(dispatcher.send(phone(2), "Hello", provider="textgoto").id, timeout=60).good


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process is told that its parent died")
def test_killed_it_leaves_nothing_running_and_the_next_goes_on_with_the_jobs(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start().ready()
    with client(first, monkeypatch) as dispatcher:
        job = dispatcher.send(phone(1), "Hello", provider="textgoto", send_at=time.time() + 86400)
    started = children(first.popen.pid)
    os.kill(first.popen.pid, signal.SIGKILL)
    first.wait()
    second = start().ready()
    until(lambda: not [pid for pid in started if Path(f"/proc/{pid}").exists()], 30, "the end of the orphans")
    with client(second, monkeypatch) as dispatcher:
        assert dispatcher.get(job.id).state == State.QUEUED
    assert second.interrupt() == 0


def test_stopped_under_load_it_leaves_nothing_sending(redis_url: str, sandbox: Sandbox, start: Start) -> None:
    """With a server of its own choosing, which goes on when it stops."""
    environment = {**TRIED, "DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_SANDBOX_URL": sandbox.url}
    up = start(environment).ready()
    sandbox.fault("latency", seconds=0.5)
    assert not up.pids("valkey-server")
    assert not up.pids("dispatcher.cli sandbox"), "it runs already"
    with Dispatcher(redis_url=redis_url, sandbox=True) as dispatcher:
        jobs = [dispatcher.send(number, "Hello", provider="textgoto").id for number in phones(400)]
        until(lambda: State.SENDING in dispatcher.states(jobs), what="a request on the wire")
        up.terminate()
        assert up.wait(30) == 0
        states = dispatcher.states(jobs)
    assert set(states) == {State.SENT, State.QUEUED}
    assert sum(sandbox.counts().accepted.values()) == states.count(State.SENT)


#: What is set, and what the refusal must name.
REFUSALS: Final = {
    "no account at all": ({}, "DISPATCHER_PROVIDERS__"),
    "half an account": ({"DISPATCHER_PROVIDERS__TEXTGOTO__UID": "u"}, "DISPATCHER_PROVIDERS__TEXTGOTO__PWD"),
    "a folder that is none": ({"DISPATCHER_DATA": "/proc/none", "DISPATCHER_SANDBOX": "1"}, "DISPATCHER_DATA"),
    "a port that is none": ({"FLOWER_PORT": "many", "DISPATCHER_SANDBOX": "1"}, "FLOWER_PORT"),
}


@pytest.mark.parametrize("label", REFUSALS)
def test_it_refuses_at_once_what_cannot_work(label: str, start: Start) -> None:
    environment, named = REFUSALS[label]
    up = start(environment)
    assert up.wait() == 1
    assert named in up.output()
    assert len(up.output().splitlines()) == 1, "one paragraph, and nothing was started"


def test_as_json_each_line_is_an_object(start: Start) -> None:
    up = start(TRIED, "--json")
    up.wait_for(f'"line":"ready: {", ".join(ACCOUNTS)} (sandbox)"')
    assert up.interrupt() == 0
    told = [json.loads(line) for line in up.output().splitlines()]
    assert {"up", "sandbox", "textgoto", "receiver", "flower"} <= {one["process"] for one in told}


def test_what_a_killed_one_left_behind_is_believed_by_nobody(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server is gone; a new one would else be taken for one that the environment names."""
    folder = tmp_path / ".dispatcher"
    folder.mkdir()
    (folder / RUNTIME).write_text('{"redis_url": "redis://127.0.0.1:1/0"}')
    monkeypatch.chdir(tmp_path)
    assert load().redis_url == "redis://127.0.0.1:1/0"
    up = start().ready()
    assert load().redis_url == up.told["redis_url"] != "redis://127.0.0.1:1/0"
