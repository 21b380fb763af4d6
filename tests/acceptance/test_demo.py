"""`dispatcher demo` as people run it: what it shows adds up, and nothing of it is left, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from dispatcher.settings import RUNTIME
from dispatcher.states import State
from tests.support import Process, clean_environment, listens, until
from workers.adapters import available

DEMO: Final = ["-m", "dispatcher.cli", "demo"]

#: Several whole runs are looked at by many tests: the first of them waits for all.
pytestmark = pytest.mark.timeout(600)

#: Runs a command under a terminal of its own and passes on what that shows.
ON_A_TERMINAL: Final = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"

#: Runs the demonstration and interrupts it at the worst moment: a process has just been started, and nobody knows.
INTERRUPTED_AT_A_START: Final = """
import os, signal, sys
from dispatcher import cli, demo

spawn = demo.spawn

def interrupted(*arguments, **options):
    process = spawn(*arguments, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return process

demo.spawn = interrupted
sys.argv = ["dispatcher", "demo"]
cli.main()
"""

#: Linux tells of every process where it runs; elsewhere only the ports tell that something is left.
PROC: Final = Path("/proc")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="processes are seen through /proc")


class Demo(Process):
    """A demonstration in a folder of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str], arguments: Sequence[str] = DEMO) -> None:
        super().__init__(arguments, environment, folder, "demo")
        self.folder = folder
        self.data = folder / ".dispatcher"
        self.ports: list[int] = []

    def told(self) -> bool:
        """Say whether it has told where to attach, and remember the ports."""
        with suppress(OSError):
            settings = json.loads((self.data / RUNTIME).read_text())
            self.ports = [urlsplit(settings[name]).port or 0 for name in ("redis_url", "sandbox_url")]
        return len(self.ports) == 2

    def others(self) -> dict[int, str]:
        """The processes that it started: all of them run in its folder."""
        found = {}
        for place in PROC.glob("[0-9]*"):
            with suppress(OSError):
                home = (place / "cwd").readlink()
                words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if home.is_relative_to(self.folder) and int(place.name) not in {self.popen.pid, os.getpid()}:
                    found[int(place.name)] = words.strip()
        return found

    def started(self, what: str) -> None:
        """Return as soon as it has started a process whose command holds these words."""
        while not any(what in words for words in self.others().values()):
            assert self.popen.poll() is None, self.output()

    def nothing_left(self) -> None:
        """Fail where a process, a port or a word to other commands is left."""
        assert self.others() == {}
        assert [port for port in self.ports if listens(port)] == []
        assert not (self.data / RUNTIME).exists()

    def clear(self) -> None:
        """End what a failed test left."""
        self.kill()
        for pid in self.others():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


Start = Callable[..., Demo]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start demonstrations that are gone after the test."""
    demos: list[Demo] = []

    def start(*files: tuple[str, str], **environment: str) -> Demo:
        folder = tmp_path / f"demo{len(demos)}"
        folder.mkdir()
        for name, text in files:
            (folder / name).write_text(text)
        demos.append(Demo(folder, environment))
        return demos[-1]

    yield start
    for demo in demos:
        demo.clear()


# -- whole runs --------------------------------------------------------------------------------------------------------


class Trap:
    """A port that nobody may talk to."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._caught = False
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def caught(self) -> bool:
        """Say whether anybody ever connected."""
        with suppress(BlockingIOError):
            self._socket.accept()[0].close()
            self._caught = True
        return self._caught

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    one = Trap()
    yield one
    one.close()


@pytest.fixture(scope="module")
def real_deployment() -> Iterator[Trap]:
    one = Trap()
    yield one
    one.close()


class Runs(NamedTuple):
    """Demonstrations, one after the other, each to its end."""

    #: One that is told of a real deployment.
    plain: Demo
    json: Demo
    terminal: Demo
    #: One that was started in the folder of the first.
    second: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, real_deployment: Trap) -> Iterator[Runs]:
    address = real_deployment.address
    real = {
        "DISPATCHER_REDIS_URL": f"redis://{address}/0",
        "DISPATCHER_BROKER_URL": f"redis://{address}/0",
        "DISPATCHER_PROVIDERS__TEXTGOTO__UID": "customer",
        "DISPATCHER_PROVIDERS__TEXTGOTO__PWD": "hunter2",
        "DISPATCHER_PROVIDERS__TEXTGOTO__BASE_URL": f"http://{address}",
        "CELERY_BROKER_URL": f"redis://{address}/0",
    }
    screen = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    folder = tmp_path_factory.mktemp
    plans: list[Callable[[], Demo]] = [
        lambda: Demo(folder("plain"), real),
        lambda: Demo(folder("json"), {}, [*DEMO, "--json"]),
        lambda: Demo(folder("terminal"), screen, ["-c", ON_A_TERMINAL, sys.executable, *DEMO]),
    ]
    demos: list[Demo] = []
    try:
        for plan in plans:
            demos.append(plan())
            if len(demos) == 1:
                demos[0].wait_for("Starting")
                second = subprocess.run(
                    [sys.executable, *DEMO],
                    cwd=demos[0].folder,
                    env=clean_environment(),
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                assert demos[0].popen.poll() is None, "it ended too soon for a second one to meet it"
            # One after the other: to start takes all the cores there are, and none of them has for ever.
            until(demos[-1].told, 120, "its word")
            ended(demos[-1])
        yield Runs(demos[0], demos[1], demos[2], second)
    finally:
        for demo in demos:
            demo.clear()


@pytest.fixture
def plain(runs: Runs) -> Demo:
    return runs.plain


def ended(demo: Demo) -> Demo:
    assert demo.wait(150) == 0, demo.output()
    return demo


def words(demo: Demo) -> str:
    """Its output as one line, without what a terminal obeys."""
    return " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", demo.output()).split())


def summed_up(demo: Demo) -> tuple[dict[str, int], int]:
    """The counts by state of the summary, and the sum it states."""
    found = re.search(r" jobs ((?:\d+ \w+ (?:\+ )?)+)= (\d+) ", words(demo))
    assert found, demo.output()
    return {state: int(count) for count, state in re.findall(r"(\d+) (\w+)", found[1])}, int(found[2])


def test_a_second_one_in_the_same_folder_is_refused(runs: Runs) -> None:
    """Both would write the same files."""
    assert (runs.second.returncode, runs.second.stdout) == (1, "")
    told = r"dispatcher: .dispatcher is in use by another dispatcher \(process \d+\); .*\n"
    assert re.fullmatch(told, runs.second.stderr)
    assert "DISPATCHER_DATA" in runs.second.stderr


def test_it_ends_well_and_soon(plain: Demo) -> None:
    assert "Traceback" not in plain.output()
    (seconds,) = re.findall(r"All as it must be, in (\d+\.\d) s\.", plain.output())
    assert float(seconds) <= 120, "half a minute, where it has the machine for itself"


def test_what_it_sums_up_adds_up(plain: Demo) -> None:
    counts, total = summed_up(plain)
    assert sum(counts.values()) == total
    assert {"sent", "delivered", "undelivered", "failed", "unknown", "cancelled", "completed"} <= set(counts)

    pages = re.split(r"^.+  [0-9a-v]{26} ─+$", plain.output().partition("summary ─")[0], flags=re.MULTILINE)[1:]
    histories = [re.findall(r"^ +\d+\.\d{3} s +(\w+)", page, re.MULTILINE) for page in pages]
    assert all(history[0] == "queued" for history in histories)
    assert Counter(history[-1] for history in histories) == counts


def test_what_it_says_is_what_the_provider_says(plain: Demo) -> None:
    counts, _ = summed_up(plain)
    (told,) = re.findall(
        r"providers took (\d+) texts: (\d+) that we call sent, delivered or undelivered, and (\d+) whose",
        words(plain),
    )
    took, taken, unknown = map(int, told)
    assert (taken, unknown) == (counts["sent"] + counts["delivered"] + counts["undelivered"], counts["unknown"])
    assert took == taken + unknown


def test_it_shows_every_kind_of_job(plain: Demo) -> None:
    shown = words(plain)
    assert shown.count("a wrong code: not valid, pending; the right code: valid, approved; the right code again:") == 3
    for told in (
        "a code to a premium line: refused (number_type_refused); another code at once: refused (resend_too_soon)",
        "the same lookup again: completed, asked nobody and cost nothing",
        "2 segments in UCS-2 for RIGHT SINGLE QUOTATION MARK; sent plainly as 1",
        "text to one who said STOP: failed, opted_out",
    ):
        assert told in shown
    assert re.search(r"promotion where it is night \(\S+\): waits for quiet_hours until .* a code there: goes", shown)
    verified = "(verified by standardwebhooks, a forgery refused)"
    assert f"signed callback job.sent, job.delivered {verified}" in shown
    for way in ("events", "HTTP API", "asyncio"):
        assert f" {way} job.sent, job.delivered " in shown
    for account in available():
        assert re.search(rf"balance of {account}: \d+", shown)
    states = "|".join(State)
    moves = re.findall(rf"^  (\S.*?) {{2,}}({states}) ", plain.output(), re.MULTILINE)
    ends = dict(moves)
    for account in available():
        assert ends[f"text over {account}"] in {"sent", "delivered"}
        assert ends[f"lookup by {account}"] == "completed"
    assert (ends["text over mobtexting"], ends["text that never arrives"]) == ("delivered", "undelivered")
    assert {ends[name] for name in ("keyword rented", "keyword let go", "number bought")} == {"completed"}
    again = [state for name, state in moves if "second try" in name]
    assert again == ["queued", "sending", "queued", "sending", "sent"]


def test_it_leaves_nothing_behind(plain: Demo) -> None:
    plain.nothing_left()
    assert sorted(one.name for one in plain.folder.iterdir()) == [".dispatcher", "demo.log"]


def test_it_never_touches_what_the_environment_names(plain: Demo, real_deployment: Trap) -> None:
    assert not real_deployment.caught()
    for log in [plain.log, *plain.data.rglob("*.log")]:
        assert "hunter2" not in log.read_text()


def test_as_json_it_prints_one_object_a_job_and_nothing_else(runs: Runs, plain: Demo) -> None:
    demo = runs.json
    jobs = [msgspec.json.decode(line, type=dict[str, Any]) for line in demo.output().splitlines()]
    counts, total = summed_up(plain)
    assert Counter(job["state"] for job in jobs) == counts
    assert len({job["id"] for job in jobs}) == len(jobs) == total
    assert {job["kind"] for job in jobs} == {"send", "verify", "lookup", "operation"}
    assert all(job["schema"] == 1 and job["sandbox"] and "*" in job["to"] for job in jobs if job["to"])
    verifications = [job["verification"] for job in jobs if job["verification"]]
    assert [one["status"] for one in verifications] == ["approved"] * 3 + ["pending"], "the last was never typed"
    demo.nothing_left()


def test_on_a_terminal_it_draws_a_table_of_jobs_that_move(runs: Runs) -> None:
    demo = runs.terminal
    shown = demo.output()
    assert "Traceback" not in shown
    live, _, after = shown.partition("\x1b[?25h")
    assert "\x1b[?25l" in live, "the cursor is hidden meanwhile, and shown again after it"
    table = words(demo).partition("text over clubtexting 06")[0]
    assert "job to state tries last" in table
    # Whatever else is over before a busy machine draws for the first time, this waits for two seconds.
    rows = re.findall(r"reminder in two seconds \+44\*+09 (\w+)", table)
    assert len(rows) > 5, "it is drawn again and again"
    assert (rows[0], rows[-1]) == ("queued", "sent")
    assert "All as it must be" in after
    demo.nothing_left()


# -- ended before its end ----------------------------------------------------------------------------------------------

WHILE_SETTING_UP = {
    "Valkey starts": (signal.SIGINT, "valkey-server"),
    "the worker starts": (signal.SIGTERM, " worker "),
    "the terminal is closed": (signal.SIGHUP, " sandbox"),
}


@needs_proc
@pytest.mark.parametrize(("number", "what"), WHILE_SETTING_UP.values(), ids=WHILE_SETTING_UP)
def test_interrupted_while_it_sets_up_it_leaves_nothing(start: Start, number: signal.Signals, what: str) -> None:
    demo = start()
    demo.started(what)
    demo.popen.send_signal(number)
    assert demo.wait() == 130, demo.output()
    assert "Traceback" not in demo.output()
    demo.nothing_left()


@needs_proc
def test_interrupted_just_when_it_started_a_process_it_leaves_nothing(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo", {}, ["-c", INTERRUPTED_AT_A_START])
    try:
        assert demo.wait() == 130, demo.output()
        demo.nothing_left()
    finally:
        demo.clear()


def test_interrupted_while_jobs_run_it_leaves_nothing(start: Start, trap: Trap) -> None:
    """It is told of a real provider in a file, and in a variable of the small letters that settings may have."""
    url = f"http://{trap.address}"
    told = f'[providers.textgoto]\nuid = "customer"\npwd = "hunter2"\nbase_url = "{url}"\n'
    demo = start(("dispatcher.toml", told), dispatcher_providers__textgoto__base_url=url)
    until(demo.told, 60)
    until(lambda: trap.caught() or "accepted by the provider" in demo.output(), 60)
    demo.popen.send_signal(signal.SIGINT)
    assert demo.wait() == 130, demo.output()
    assert "Interrupted" in demo.output()
    assert "Traceback" not in demo.output()
    demo.nothing_left()
    assert not trap.caught()
