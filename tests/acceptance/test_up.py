"""`dispatcher up`: everything started, found by others, kept running, stopped whole. Real processes all."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import redis

from dispatcher import Dispatcher, State
from dispatcher.settings import RUNTIME, load
from dispatcher.status import look
from tests.acceptance.conftest import Typed
from tests.support import TIMES, WATCH, Process, listens, phone, phones, taken_by_number, until
from workers.adapters import available
from workers.sandbox.client import Sandbox

COMMAND: Final = str(Path(sys.executable).parent / "dispatcher")

#: Quick to notice what dies; nothing here waits for a tick.
QUICK: Final = {
    f"DISPATCHER_{name.upper()}": value
    for name, value in {**TIMES, "heartbeat": "0.5", "tick": "0.25", "sweep_every": "0.5"}.items()
}
TRIED: Final = {"DISPATCHER_SANDBOX": "1", **QUICK}

#: Seconds for all of it to start.
STARTS: Final = 90.0

#: With the sandbox there is one at each provider.
ACCOUNTS: Final = sorted(available())


#: Two of them in a row take a while to start.
pytestmark = pytest.mark.timeout(300)


class Up(Process):
    """A run of `dispatcher up` in a folder."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] = TRIED,
        *options: str,
        accounts: Sequence[str] = ACCOUNTS,
    ) -> None:
        # Each has a log of its own, also where it goes on in the folder of another.
        name = f"up-{len([*folder.glob('up-*.log')]) + 1}"
        super().__init__([COMMAND, "up", *options], environment, folder, name)
        self.folder = folder
        self.environment = environment
        self._accounts = accounts

    def ready(self) -> Up:
        self.wait_for(f"ready: {', '.join(self._accounts)}", STARTS)
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
        return self.wait()


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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    one = Up(tmp_path_factory.mktemp("up"))
    try:
        yield one.ready()
    finally:
        one.stop(30)


@pytest.fixture
def up(shared: Up) -> Up:
    """Share one that runs, and in which all is well again, whatever the last test did to it."""
    Sandbox(shared.told["sandbox_url"]).clear()
    until(lambda: not look(load(**shared.told)).problems, 60, "an end of all problems")
    return shared


def client(up: Up, monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """Be an application in the same folder."""
    monkeypatch.chdir(up.folder)
    return Dispatcher()


def test_everything_runs_and_is_found_from_its_folder(up: Up) -> None:
    """Nothing is set in the other commands' environment."""
    sent = up.run("send", phone(1), "Hello", "--provider", "textgoto", "--wait")
    assert sent.popen.returncode == 0, sent.output()
    assert Sandbox(up.told["sandbox_url"]).inbox(phone(1))
    until(lambda: up.run("status").popen.returncode == 0, what="a look at which no beat is late")
    assert "All is well." in up.log.with_name("status.log").read_text()
    until(lambda: up.run("status", "--worker", "textgoto", "--here").popen.returncode == 0, what="its beat")
    (flower,) = re.findall(r"Flower +http://127\.0\.0\.1:(\d+)", up.output())
    assert listens(int(flower))
    # The server, the sandbox, who calls back, the receiver, Flower.
    assert len(children(up.popen.pid)) == len(ACCOUNTS) + 5


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


def test_a_second_one_says_so_and_leaves_the_first_alone(up: Up) -> None:
    second = Process([COMMAND, "up"], up.environment, up.folder, "second")
    assert second.wait() == 1
    assert f"in use by another dispatcher (process {up.popen.pid})" in second.output()
    assert "Traceback" not in second.output()
    until(lambda: up.run("status").popen.returncode == 0, what="a look at which no beat is late")


def test_a_worker_killed_in_the_middle_is_back_and_nothing_is_sent_twice(
    up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox(up.told["sandbox_url"])
    sandbox.fault("latency", seconds=0.2)
    with client(up, monkeypatch) as dispatcher:
        numbers = phones(300)
        jobs = [dispatcher.send(number, "Hello", provider="textgoto").id for number in numbers]
        until(lambda: taken(sandbox, numbers), what="the first text")
        killed = up.pid("worker -Q textgoto")
        os.kill(killed, signal.SIGKILL)
        up.wait_for("ended with signal SIGKILL; starts again in 1 s")
        ends = [dispatcher.wait(one, timeout=60).state for one in jobs]
        # It says so a second before it starts it, and what it relays of them all goes first.
        (next_life,) = until(lambda: up.pids("worker -Q textgoto"), what="its next life")
        assert next_life != killed
    assert set(ends) <= {State.SENT, State.UNKNOWN}
    assert max(taken(sandbox, numbers).values()) == 1
    assert len(taken(sandbox, numbers)) >= ends.count(State.SENT)


def taken(sandbox: Sandbox, numbers: Sequence[str]) -> dict[str, int]:
    """Return how many texts each of these got that got one."""
    return {number: count for number, count in taken_by_number(sandbox).items() if number in numbers}


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
                return not store.info("persistence")["loading"]
            except redis.RedisError:
                return False

        until(answers, what="the server")
        assert dispatcher.get(job.id).state == State.QUEUED
        assert dispatcher.wait(dispatcher.send(phone(1), "Hello", provider="textgoto").id, timeout=60).good


# -- what is stopped, one way or another -------------------------------------------------------------------------------


class Life(NamedTuple):
    """What was seen of one that was killed, and of the next, under nohup and as JSON, which was ended by Ctrl-C."""

    #: What the first found that another had left, and what others found once it ran.
    left_over: str | None
    found: str | None
    told: dict[str, str]
    #: The processes of the first that were there half a minute after its death.
    orphans: list[int]
    #: Where the first one's job stood after it.
    state: State
    #: The second after its terminal was closed: whether `dispatcher status` ends well there.
    well: bool
    second: Up
    second_told: dict[str, str]
    second_started: dict[int, str]
    #: What it ended with.
    code: int


@pytest.fixture(scope="module")
def life(sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("life")
    started: list[Up] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        (folder / ".dispatcher").mkdir()
        (folder / ".dispatcher" / RUNTIME).write_text('{"redis_url": "redis://127.0.0.1:1/0"}')
        try:
            yield _lived(folder, {**QUICK, **textgoto(sandbox_process)}, started)
        finally:
            for one in started:
                one.stop(30)


def textgoto(sandbox: Sandbox) -> dict[str, str]:
    """An account of one's own, at a sandbox that nobody calls one."""
    account = {"uid": "sandbox", "pwd": "sandbox", "base_url": sandbox.url}
    return {f"DISPATCHER_PROVIDERS__TEXTGOTO__{name.upper()}": value for name, value in account.items()}


def _lived(folder: Path, environment: Mapping[str, str], started: list[Up]) -> Life:
    left_over = load().redis_url
    first = Up(folder, environment, accounts=["textgoto"])
    started.append(first)
    told, found = first.ready().told, load().redis_url
    with Dispatcher() as dispatcher:
        job = dispatcher.send(phone(1), "Hello", provider="textgoto", send_at=time.time() + 86400)
    started_first = children(first.popen.pid)
    os.kill(first.popen.pid, signal.SIGKILL)
    first.wait()

    # What ignores the signal when it starts does so for this reason.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        second = Up(folder, environment, "--json", accounts=["textgoto"])
    finally:
        signal.signal(signal.SIGHUP, before)
    started.append(second)
    second.ready()
    ends = time.monotonic() + 30
    while (orphans := [*filter(runs, started_first)]) and time.monotonic() < ends:
        time.sleep(0.05)
    with Dispatcher() as dispatcher:
        state = dispatcher.get(job.id).state
    second.popen.send_signal(signal.SIGHUP)
    well = until(lambda: second.run("status").popen.returncode == 0, what="a look at which no beat is late")
    second_told, second_started = second.told, children(second.popen.pid)
    code = second.interrupt()
    return Life(left_over, found, told, orphans, state, well, second, second_told, second_started, code)


def runs(pid: int) -> bool:
    """Say whether a process runs: one that ended and was not yet asked how does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_what_a_killed_one_left_behind_is_believed_by_nobody(life: Life) -> None:
    """Its server is gone; a new one would else be taken for one that the environment names."""
    assert life.left_over == "redis://127.0.0.1:1/0"
    assert life.found == life.told["redis_url"] != life.left_over


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process is told that its parent died")
def test_killed_it_leaves_nothing_running_and_the_next_goes_on_with_the_jobs(life: Life) -> None:
    assert life.orphans == []
    assert life.state == State.QUEUED


def test_under_nohup_it_outlives_its_terminal(life: Life) -> None:
    assert life.well
    assert life.second.output().count("stopping") == 1, "for the Ctrl-C that came later"


def test_ctrl_c_stops_it_whole(life: Life) -> None:
    # The server, the worker, who calls back, the receiver, Flower.
    assert len(life.second_started) == 5
    assert life.code == 0
    assert "everything is stopped" in life.second.output()
    assert "starts again" not in life.second.output()
    assert not (life.second.folder / ".dispatcher" / RUNTIME).exists()
    assert [*filter(runs, life.second_started)] == []
    assert not listens(int(life.second_told["redis_url"].rsplit(":", 1)[1].split("/")[0]))


def test_as_json_each_line_is_an_object(life: Life) -> None:
    told = [json.loads(line) for line in life.second.output().splitlines()]
    assert {"up", "textgoto", "receiver", "flower"} <= {one["process"] for one in told}
    assert "ready: textgoto" in {one["line"] for one in told}


def test_stopped_under_load_it_leaves_nothing_sending(redis_url: str, sandbox: Sandbox, tmp_path: Path) -> None:
    """With a server and an account of its own choosing, and no key for callbacks; the server goes on when it stops."""
    up = Up(tmp_path, {**QUICK, **textgoto(sandbox), "DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_CONNECTIONS": "20"})
    try:
        up.wait_for("receiver none, since DISPATCHER_HASH_KEY is not set", STARTS)
        assert [up.pids(words) for words in ("valkey-server", "dispatcher.cli sandbox", "dispatcher.cli receiver")] == [
            [], [], [],
        ]  # fmt: skip
        sandbox.fault("latency", seconds=0.5)
        with Dispatcher(redis_url=redis_url, sandbox=False) as dispatcher:
            jobs = [dispatcher.send(number, "Hello", provider="textgoto").id for number in phones(400)]
            until(lambda: State.SENDING in dispatcher.states(jobs), what="a request on the wire")
            up.terminate()
            assert up.wait() == 0
            states = dispatcher.states(jobs)
    finally:
        up.stop(30)
    assert set(states) == {State.SENT, State.QUEUED}
    assert sum(sandbox.counts().accepted.values()) == states.count(State.SENT)


# -- what cannot work --------------------------------------------------------------------------------------------------

#: What is set, and what the refusal must name.
REFUSALS: Final = {
    "no account at all": ({}, "DISPATCHER_PROVIDERS__"),
    "half an account": ({"DISPATCHER_PROVIDERS__TEXTGOTO__UID": "u"}, "DISPATCHER_PROVIDERS__TEXTGOTO__PWD"),
    "a folder that is none": ({"DISPATCHER_DATA": "/proc/none", "DISPATCHER_SANDBOX": "1"}, "DISPATCHER_DATA"),
    "a port that is none": ({"FLOWER_PORT": "many", "DISPATCHER_SANDBOX": "1"}, "FLOWER_PORT"),
}


@pytest.mark.parametrize("label", REFUSALS)
def test_it_refuses_at_once_what_cannot_work(label: str, typed: Typed) -> None:
    environment, named = REFUSALS[label]
    ended = typed(environment, "up")
    assert (ended.code, ended.out) == (1, "")
    assert named in ended.err
    assert len(ended.err.splitlines()) == 1, "one paragraph, and nothing was started"
