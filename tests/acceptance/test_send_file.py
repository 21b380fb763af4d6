"""`dispatcher send-file` as a process, beside a real worker: everybody gets one text, whatever happens."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.chaos.proxy import Proxy
from tests.support import (
    Deployment,
    Process,
    Server,
    accepted,
    clean_environment,
    phone,
    phones,
    taken_by_number,
    until,
)
from workers.sandbox.client import Sandbox

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "customers.csv"
BATCH: Final = ("--batch-id", "campaign")

#: Several of the portions that are enqueued at a time.
MANY: Final = 4000

#: Seconds that a word to Redis takes, and from it, where somebody is to be met on the way, and once they were.
FAR: Final = 0.03
HELD: Final = 3.0


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The object that it printed."""
        return msgspec.json.decode(self.out, type=dict[str, Any])


def environment(deployment: Deployment) -> dict[str, str]:
    """What an application has: where Redis is, that all is played, and the account, since no worker may have told."""
    names = ("DISPATCHER_REDIS_URL", "DISPATCHER_SANDBOX", "DISPATCHER_SANDBOX_URL")
    told = {name: deployment.environment[name] for name in names}
    return {**told, "DISPATCHER_PROVIDERS__TEXTGOTO__UID": "sandbox"}


def arguments(*words: str | Path) -> list[str]:
    return ["-m", "dispatcher.cli", "send-file", *map(str, words), "--text", "Hi {name}", "--provider", "textgoto"]


def send_file(deployment: Deployment, *words: str | Path) -> Ended:
    """Run it to its end in the test's folder."""
    ended = subprocess.run(
        [sys.executable, *arguments(*words, "--json")],
        env={**clean_environment(), **environment(deployment)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def recipients(count: int) -> Path:
    path = Path("list.csv")
    path.write_text("to,name\n" + "".join(f"{number},Number {n}\n" for n, number in enumerate(phones(count))))
    return path


def enqueued(deployment: Deployment, name: str = "campaign") -> int:
    return int(deployment.redis.llen(f"d:b:{name}:j"))


@contextmanager
def begun(deployment: Deployment, tmp_path: Path, file: Path, enough: int) -> Iterator[tuple[Process, Proxy]]:
    """Start it in a folder beside the test's; once it has enqueued so many it is held on its way."""
    place = urlsplit(deployment.url)
    with Proxy(place.port or 0) as proxy:
        proxy.delay = FAR
        told = environment(deployment) | {"DISPATCHER_REDIS_URL": f"redis://127.0.0.1:{proxy.port}{place.path}"}
        process = Process(arguments(file.absolute(), *BATCH), told, tmp_path / "processes", "send-file")
        until(lambda: enqueued(deployment) >= enough, what=f"{enough} jobs")
        proxy.delay = HELD
        yield process, proxy
        process.kill()


def test_the_example_is_sent(running: Deployment) -> None:
    ended = send_file(running, EXAMPLE, "--rejects", "rejects.csv", "--wait")
    assert (ended.code, ended.err) == (0, "")
    assert ended.report["states"] == {"sent": 10}
    with EXAMPLE.open() as file:
        names = {row["to"]: row["name"] for row in csv.DictReader(file)}
    rows = accepted(running.sandbox.ledger())
    assert sorted((f"+{row.msisdn}", row.text) for row in rows) == [(to, f"Hi {name}") for to, name in names.items()]

    again = send_file(running, EXAMPLE, "--rejects", "rejects.csv", "--wait")
    assert (again.code, again.report["enqueued"], again.report["known"]) == (0, 0, 10)
    assert len(accepted(running.sandbox.ledger())) == 10


def test_what_was_rejected_is_mended_and_sent(running: Deployment) -> None:
    """Of the others one meets a provider that refuses it: that is no reject, and no success either."""
    path = Path("list.csv")
    path.write_text(f"to;name\n{phone(1)};Ann\n07700 900002;Bob\n{phone(3)}\n{phone(100)};Dan\n")
    ended = send_file(running, path, "--wait")
    assert (ended.code, ended.report["rejected"], ended.report["states"]) == (1, 2, {"sent": 1, "failed": 1})
    rejects = Path("list.csv.rejects.csv")
    heading, *rows = csv.reader(rejects.read_text().splitlines(), delimiter=";")
    assert heading == ["rejected_line", "rejected_because", "to", "name"]
    assert [(line, *fields) for line, _, *fields in rows] == [("3", "07700 900002", "Bob"), ("4", phone(3))]
    assert [why.split(" ")[0] for _, why, *_ in rows] == ["to:", "name:"]

    mended = rejects.read_text().replace("07700 900002", "+44 7700 900002").replace(phone(3), f"{phone(3)};Cy")
    rejects.write_text(mended)
    assert send_file(running, rejects, "--wait").report["states"] == {"sent": 2}
    assert taken_by_number(running.sandbox) == {phone(n): 1 for n in (1, 2, 3)}


def test_killed_again_and_again_it_texts_everybody_once(running: Deployment, tmp_path: Path) -> None:
    file = recipients(MANY)
    for enough in (1, MANY // 4, MANY // 3):
        with begun(running, tmp_path, file, enough) as (process, _):
            process.kill()
        assert process.popen.returncode == -signal.SIGKILL, "it was killed on its way"
        assert enough <= enqueued(running) < MANY
    before = enqueued(running)

    ended = send_file(running, file, *BATCH, "--wait")
    assert (ended.code, ended.err) == (0, "")
    assert (ended.report["enqueued"], ended.report["known"]) == (MANY - before, before)
    assert ended.report["states"] == {"sent": MANY}
    assert taken_by_number(running.sandbox) == dict.fromkeys(phones(MANY), 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_finishes_its_portion(deployment: Deployment, tmp_path: Path, number: signal.Signals) -> None:
    """No worker is needed for that."""
    file = recipients(MANY)
    with begun(deployment, tmp_path, file, 1) as (process, proxy):
        process.popen.send_signal(number)
        proxy.delay = 0
        assert process.wait() == 130
    there = enqueued(deployment)
    assert there % 500 == 0
    assert f"Stopped after line {there + 1}. Run the same command again and it continues" in process.output()
    assert send_file(deployment, file, *BATCH).report["enqueued"] == MANY - there


class TestRedisAway:
    @pytest.fixture
    def own(self, own_valkey: Server, sandbox: Sandbox, tmp_path: Path) -> Iterator[Deployment]:
        one = Deployment(own_valkey.url, sandbox, tmp_path)
        try:
            yield one
        finally:
            one.close()

    def test_in_the_middle_it_stops_and_continues_when_it_is_back(
        self, own: Deployment, own_valkey: Server, tmp_path: Path
    ) -> None:
        """No worker is needed for that."""
        file = recipients(MANY)
        with begun(own, tmp_path, file, 1) as (process, proxy):
            own_valkey.kill()
            proxy.delay = 0
            assert process.wait() == 1
        assert "did not answer" in process.output()
        assert "Run the same command again and it continues" in process.output()

        own_valkey.start()
        ended = send_file(own, file, *BATCH)
        assert (ended.code, ended.report["enqueued"] + ended.report["known"]) == (0, MANY)
        assert 0 < ended.report["enqueued"] < MANY
        assert enqueued(own) == MANY
