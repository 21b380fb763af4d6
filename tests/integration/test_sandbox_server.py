"""The sandbox over real sockets: what a client sees on the wire, and what the ledger holds then."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.integration.sandboxes import (
    PATIENCE,
    SILENCE,
    Running,
    Wire,
    as_bytes,
    open_files,
    sending,
    wait_for,
    whole_answers,
)
from tests.support import until
from workers.sandbox import magic, wire
from workers.sandbox.client import Sandbox, SandboxError
from workers.sandbox.faults import FAULTS
from workers.sandbox.server import serve
from workers.sandbox.world import Row

ROOT = Path(__file__).parents[2]
PHONE = "447700900001"
AMERICAN = "12125550177"


@pytest.fixture
def url() -> Iterator[str]:
    running = Running()
    yield running.url
    running.stop()


@pytest.fixture
def sandbox(url: str) -> Sandbox:
    return Sandbox(url)


@pytest.fixture
def connection(url: str) -> Iterator[Wire]:
    connection = Wire(url)
    yield connection
    connection.close()


def send(*msisdns: str, text: str = "Hello", headers: str = "", version: str = "1.1") -> bytes:
    """Return a SEND_MSISDN as bytes of HTTP."""
    header = {"-uid": "sandbox", "-pwd": "sandbox", "-action": "SEND_MSISDN"}
    body = json.dumps({"campaign": {"header": header, "body": {"msisdn": [*msisdns], "msg": text}}})
    head = f"POST /api/jsonapi.aspx HTTP/{version}\r\nHost: sandbox\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return (head + body).encode()


def asked(url: str, data: bytes, count: int = 1) -> list[tuple[int, bytes]]:
    """Return the answers to requests over a connection of their own."""
    with closing(Wire(url)) as connection:
        connection.write(data)
        return connection.answers(count)


def answered(*msisdns: str) -> tuple[int, bytes]:
    """Return status and body of the good answer to `send`."""
    entries = ",".join(f'{{"@msisdn":"{msisdn}","@response":"OK"}}' for msisdn in msisdns)
    return 200, f'{{"output":{{"msg":[{entries}]}}}}'.encode()


#: Of each fault: what is heard (a pattern for all of it), how the connection is afterwards, and whether the phone
#: got the text.
ON_THE_WIRE: dict[str, tuple[bytes, str, int]] = {
    "latency": (rb"HTTP/1.1 200 OK\r\n.*\r\n\r\n\{.*\}", "silent", 1),
    "429": (rb"HTTP/1.1 429 Too Many Requests\r\n.*\r\n\r\n<html>.*\n", "silent", 0),
    "500": (rb"HTTP/1.1 500 Internal Server Error\r\n.*\r\n\r\n<html>.*\n", "silent", 0),
    "500-after": (rb"HTTP/1.1 500 Internal Server Error\r\n.*\r\n\r\n<html>.*\n", "silent", 1),
    "503": (rb"HTTP/1.1 503 Service Unavailable\r\n.*\r\n\r\n<html>.*\n", "silent", 0),
    "drop-before": (rb"", "closed", 0),
    "drop-after": (rb"", "closed", 1),
    "reset-before": (rb"", "reset", 0),
    "reset-after": (rb"", "reset", 1),
    "hang-before": (rb"", "silent", 0),
    "hang-after": (rb"", "silent", 1),
    "half": (rb"HTTP/1.1 200 OK\r\n.*\r\n\r\n\{.*[^}]", "closed", 1),
    "garbage": (rb"\x15\x03\x01 this is no answer of any web server\r\n\r\n", "closed", 1),
    "html": (rb"HTTP/1.1 200 OK\r\nContent-Type: text/html.*\r\n\r\n<html>.*\n", "silent", 1),
}


def silences(fault: str) -> tuple[float, float]:
    """Return how long to wait for a beginning and for the rest: shortly where nothing, or nothing more, is to come."""
    _, ended, _ = ON_THE_WIRE[fault]
    return SILENCE if "hang" in fault else PATIENCE, SILENCE if ended == "silent" else PATIENCE


def test_every_fault_is_described() -> None:
    """The table above leaves none out."""
    assert sorted(ON_THE_WIRE) == sorted(FAULTS)


@pytest.mark.parametrize("fault", ON_THE_WIRE)
def test_fault_that_is_switched_on(sandbox: Sandbox, connection: Wire, fault: str) -> None:
    """The client sees it, ledger and phone hold what was accepted before it, and the next request is fine."""
    pattern, ending, accepted = ON_THE_WIRE[fault]
    sandbox.fault(fault, times=1, seconds=0.05)
    connection.write(send(PHONE))
    heard, ended = connection.hear(*silences(fault))
    assert re.fullmatch(pattern, heard, re.DOTALL), heard
    assert ended == ending
    (row,) = sandbox.ledger()
    assert (row.accepted, row.result, row.fault) == (bool(accepted), "OK" if accepted else fault, fault)
    assert (sandbox.accepted(PHONE), len(sandbox.inbox(PHONE))) == (accepted, accepted)
    after = Wire(sandbox.url)
    after.write(send(PHONE))
    assert after.answers() == [answered(PHONE)]
    after.close()


FAULTS_OF_NUMBERS = {**magic.FAULTS_BY_NUMBER, **magic.FAULTS_ONCE}


@pytest.mark.parametrize("ending", FAULTS_OF_NUMBERS)
def test_fault_of_a_number(sandbox: Sandbox, connection: Wire, ending: int) -> None:
    """A special number brings its fault about, for whoever else is in the request too."""
    met = FAULTS_OF_NUMBERS[ending]
    pattern, ended, accepted = ON_THE_WIRE[met.fault.name]
    connection.write(send(PHONE, f"447700900{ending}"))
    result = connection.hear(*silences(met.fault.name))
    assert re.fullmatch(pattern, result[0], re.DOTALL), result
    assert result[1] == ended
    assert sandbox.accepted(PHONE) == sandbox.accepted(f"447700900{ending}") == accepted
    if ending in magic.FAULTS_ONCE:
        assert b"\r\nRetry-After: 1\r\n" in result[0]
        connection.write(send(f"447700900{ending}"))
        assert connection.answers() == [answered(f"447700900{ending}")]


def test_latency_holds_back_the_answer_only(sandbox: Sandbox, connection: Wire) -> None:
    """The phone has the text before the client has the answer."""
    sandbox.fault("latency", seconds=60, times=1)
    connection.write(send(PHONE))
    wait_for(lambda: sandbox.inbox(PHONE))
    assert connection.hear(SILENCE) == (b"", "silent")
    sandbox.fault("latency", seconds=0.5)
    begun = time.monotonic()
    assert asked(sandbox.url, send(PHONE)) == [answered(PHONE)]
    assert time.monotonic() - begun >= 0.5


def test_faults_come_in_turn(sandbox: Sandbox, connection: Wire) -> None:
    """Those switched on wait for each other; one that is for another function is passed over."""
    sandbox.fault("500", action="HLR")
    sandbox.fault("503", provider="textgoto", times=2)
    sandbox.fault("429", action="SEND_MSISDN", times=1)
    connection.write(*[send(PHONE)] * 4)
    assert [status for status, _ in connection.answers(4)] == [503, 503, 429, 200]


def test_clear_switches_faults_off(sandbox: Sandbox, connection: Wire) -> None:
    """A fault without `times` lasts until then."""
    sandbox.fault("500")
    connection.write(send(PHONE), send(PHONE))
    assert [status for status, _ in connection.answers(2)] == [500, 500]
    sandbox.clear()
    connection.write(send(PHONE))
    assert connection.answers() == [answered(PHONE)]


def test_refuse(sandbox: Sandbox, connection: Wire) -> None:
    """Nothing listens for a while, open connections are gone, and then all is as before."""
    connection.write(send(PHONE))
    assert connection.answers() == [answered(PHONE)]
    sandbox.fault("refuse", seconds=3)
    assert connection.hear()[1] in {"closed", "reset"}
    with pytest.raises(ConnectionRefusedError):
        Wire(sandbox.url)
    sandbox.wait_ready()
    assert sandbox.accepted(PHONE) == 1


def test_what_is_under_way_when_a_refusal_begins_is_answered(sandbox: Sandbox, connection: Wire) -> None:
    """So that nobody has to wonder what became of it; what comes after it on that connection is not looked at."""
    sandbox.fault("latency", seconds=2)
    connection.write(send(PHONE))
    until(lambda: sandbox.accepted(PHONE), what="the text")
    connection.write(send(PHONE))
    sandbox.fault("refuse", seconds=0.1)
    assert connection.answers() == [answered(PHONE)]
    assert connection.hear()[1] in {"closed", "reset"}
    sandbox.wait_ready()
    assert sandbox.accepted(PHONE) == 1


class TestConnections:
    def test_kept_alive(self, connection: Wire, sandbox: Sandbox) -> None:
        """A connection serves one request after the other."""
        for _ in range(3):
            connection.write(send(PHONE))
            assert connection.answers() == [answered(PHONE)]
        assert sandbox.accepted(PHONE) == 3

    def test_pipelined(self, connection: Wire, sandbox: Sandbox) -> None:
        """Requests written at once are answered in order, also when the first takes longest."""
        numbers = [f"4477009002{ending:02}" for ending in range(100)]
        sandbox.fault("latency", times=1, seconds=0.1)
        connection.write(b"".join(send(number) for number in numbers))
        assert connection.answers(100) == [answered(number) for number in numbers]
        assert [row.msisdn for row in sandbox.ledger()] == numbers

    def test_in_pieces(self, connection: Wire) -> None:
        """A request may come byte by byte."""
        connection.write(*(bytes([byte]) for byte in send(PHONE)))
        assert connection.answers() == [answered(PHONE)]

    def test_chunked(self, connection: Wire) -> None:
        """A body may come in chunks."""
        head, _, body = send(PHONE).partition(b"\r\n\r\n")
        head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
        connection.write(head + b"\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (9, body[:9], len(body) - 9, body[9:]))
        assert connection.answers() == [answered(PHONE)]

    @pytest.mark.parametrize(
        "request_",
        [
            pytest.param(send(PHONE, headers="Connection: close\r\n"), id="asked to"),
            pytest.param(send(PHONE, version="1.0"), id="HTTP/1.0"),
        ],
    )
    def test_closed_after_the_answer(self, connection: Wire, request_: bytes) -> None:
        """A client that wants its connection closed gets it closed, and is told."""
        connection.write(request_)
        heard, ended = connection.hear()
        assert (whole_answers(heard), ended) == ([answered(PHONE)], "closed")
        assert b"\r\nConnection: close\r\n" in heard

    def test_no_http(self, connection: Wire, sandbox: Sandbox) -> None:
        """What was asked before the nonsense is answered, then the nonsense, then it's over."""
        connection.write(send(PHONE) + b"nonsense\r\n\r\n")
        heard, ended = connection.hear()
        assert re.findall(rb"HTTP/1.1 (\d+)", heard) == [b"200", b"400"]
        assert ended == "closed"
        assert sandbox.accepted(PHONE) == 1

    def test_upgrade_is_refused(self, connection: Wire) -> None:
        """Other protocols are not spoken."""
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x00\x01")
        heard, ended = connection.hear()
        assert heard.rpartition(b"HTTP/1.1 ")[2].startswith(b"400")
        assert ended == "closed"

    def test_body_beyond_measure(self, connection: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        """A body that is too large is refused while it comes."""
        monkeypatch.setattr(wire, "LARGEST_BODY", 1000)
        connection.write(send(PHONE, text="a" * 1000))
        heard, ended = connection.hear()
        assert heard.startswith(b"HTTP/1.1 413 ")
        assert ended == "closed"

    def test_head_has_no_body(self, connection: Wire) -> None:
        """The answer to HEAD ends with its headers."""
        connection.write(b"HEAD /api/jsonapi.aspx HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.hear(rest=SILENCE)[0].endswith(b"\r\n\r\n")

    def test_elsewhere_is_nothing(self, connection: Wire, sandbox: Sandbox) -> None:
        """Addresses that no provider has are not found, and leave no trace."""
        connection.write(send(PHONE).replace(b"jsonapi", b"xmlapi"))
        assert connection.answers() == [(404, b"Not Found\n")]
        assert sandbox.ledger() == []

    def test_a_client_that_does_not_read(self, connection: Wire, sandbox: Sandbox) -> None:
        """Its answers wait with it, and nobody else does; it gets all of them once it reads."""
        connection.write(send(*[PHONE] * 500))
        get = b"GET /_sandbox/ledger HTTP/1.1\r\nHost: a\r\n"  # 100 kB each
        connection.write(b"%b\r\n" % get * 299, get + b"Connection: close\r\n\r\n")
        sandbox.wait_ready(PATIENCE)
        heard, ended = connection.hear()
        assert ended == "closed"
        assert len(heard) > 20_000_000
        assert len(whole_answers(heard)) == 301


class TestControl:
    def test_client(self, sandbox: Sandbox, connection: Wire) -> None:
        """What was sent can be read back: by phone, by row, and counted."""
        connection.write(send(PHONE, "447700900100", text="Ünï€ode ✓"))
        connection.answers()
        (message,) = sandbox.inbox("+44 7700 900001")
        assert (message.provider, message.sender, message.text) == ("textgoto", "TextGoto", "Ünï€ode ✓")
        accepted, refused = sandbox.ledger()
        assert (accepted.n, accepted.msisdn, accepted.accepted, accepted.result) == (1, PHONE, True, "OK")
        assert (refused.n, refused.request, refused.accepted, refused.result) == (2, 1, False, "MSISDN_BLOCKED")
        assert sandbox.ledger(after=1) == [refused]
        assert sandbox.counts().requests == {"textgoto": {"SEND_MSISDN": 1}}
        assert (sandbox.accepted("+" + PHONE), sandbox.accepted("447700900100")) == (1, 0)
        sandbox.reset()
        assert (sandbox.ledger(), sandbox.inbox(PHONE), sandbox.accepted(PHONE)) == ([], [], 0)

    def test_all_four_are_played(self, sandbox: Sandbox, connection: Wire) -> None:
        """At one address, over one connection, to one phone; counted each for itself."""
        providers = ["thetexting", "clubtexting", "textgoto", "mobtexting"]
        (told,) = asked(sandbox.url, b"GET /_sandbox/health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert json.loads(told[1])["providers"] == providers
        connection.write(*(as_bytes(sending(provider, AMERICAN)) for provider in providers))
        assert [status for status, _ in connection.answers(4)] == [200, 201, 200, 200]
        assert [(text.provider, text.text) for text in sandbox.inbox(AMERICAN)] == [(one, "Hello") for one in providers]
        counts = sandbox.counts()
        assert {provider: sum(actions.values()) for provider, actions in counts.requests.items()} == dict.fromkeys(
            providers, 1
        )
        assert counts.messages == {provider: {AMERICAN: 1} for provider in providers}
        assert counts.accepted == {AMERICAN: 4}

    def test_the_limits_of_the_documents(self, sandbox: Sandbox) -> None:
        """Club Texting takes two at a time, MobTexting 1000 GETs a minute; the other's go on meanwhile."""
        sandbox.fault("latency", provider="clubtexting", seconds=2)
        busy = [Wire(sandbox.url) for _ in range(4)]
        for one in busy:
            one.write(as_bytes(sending("clubtexting", AMERICAN)))
        assert sorted(status for one in busy for status, _ in one.answers()) == [201, 201, 503, 503]
        for one in busy:
            one.close()
        get = b"GET /api/v2/account/balance HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sandbox\r\n\r\n"
        answers = asked(sandbox.url, get * 1001, 1001)
        assert [status for status, _ in answers] == [200] * 1000 + [429]
        assert asked(sandbox.url, as_bytes(sending("mobtexting", AMERICAN)))[0][0] == 200

    def test_ledger_comes_in_pages(self, sandbox: Sandbox, connection: Wire) -> None:
        """The client reads on until there is no more."""
        for _ in range(3):
            connection.write(send(*[PHONE] * 5000))
        connection.answers(3)
        assert [row.n for row in sandbox.ledger()] == list(range(1, 15_001))

    REFUSED = (
        pytest.param("POST /_sandbox/faults", b"{}", 400, "fault", id="no fault"),
        pytest.param("POST /_sandbox/faults", b"{", 400, "truncated", id="no JSON"),
        pytest.param("POST /_sandbox/faults", b'{"fault": "flood"}', 400, "none of latency", id="unknown fault"),
        pytest.param("POST /_sandbox/faults", b'{"fault": "500", "time": 2}', 400, "time", id="unknown field"),
        pytest.param("POST /_sandbox/faults", b'{"fault": "500", "times": 0}', 400, "at least 1", id="no times"),
        pytest.param("POST /_sandbox/faults", b'{"fault": "500", "provider": "x"}', 400, "textgoto", id="no provider"),
        pytest.param("POST /_sandbox/faults", b'{"fault": "latency"}', 400, "seconds", id="latency of nothing"),
        pytest.param(
            "POST /_sandbox/faults", b'{"fault": "refuse", "times": 1}', 400, "seconds only", id="one refusal"
        ),
        pytest.param("POST /_sandbox/faults", b'{"fault": "refuse", "seconds": 601}', 400, "600", id="long refusal"),
        pytest.param("GET /_sandbox/ledger?after=x", b"", 400, "invalid literal", id="after no number"),
        pytest.param("GET /_sandbox/ledger?after=-1", b"", 400, "after", id="after less than none"),
        pytest.param("GET /_sandbox/nothing", b"", 404, "/_sandbox/nothing", id="nowhere"),
        pytest.param("GET /_sandbox/counts/1", b"", 404, "/_sandbox/counts/1", id="below nowhere"),
        pytest.param("GET /_sandbox/reset", b"", 405, "POST", id="reset by GET"),
        pytest.param("PUT /_sandbox/faults", b"", 405, "POST and DELETE", id="faults by PUT"),
    )

    @pytest.mark.parametrize(("asked", "body", "status", "words"), REFUSED)
    def test_refusal_says_why(self, connection: Wire, asked: str, body: bytes, status: int, words: str) -> None:
        """What can't be done is said in words."""
        head = f"{asked} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.write(head.encode() + body)
        (answer,) = connection.answers()
        assert answer[0] == status
        assert words in json.loads(answer[1])["error"]

    def test_client_raises_the_words(self, sandbox: Sandbox) -> None:
        """The client's error is the sandbox's own."""
        with pytest.raises(SandboxError, match="'flood' is none of latency"):
            sandbox.fault("flood")

    def test_client_waits_for_nobody(self) -> None:
        """Where no sandbox answers, waiting ends."""
        with pytest.raises(TimeoutError, match="no sandbox answers"):
            Sandbox("http://127.0.0.1:1").wait_ready(timeout=0.1)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A sandbox in a process of its own, with its ledger in the test's folder, and its origin."""
    script = """
import pathlib, sys
from workers.sandbox.server import run
run(ledger=pathlib.Path(sys.argv[1]), ready=lambda origin: print(origin, flush=True))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "ledger.jsonl")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        process.kill()


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_stops_at_once(self, started: tuple[subprocess.Popen[str], str], number: signal.Signals) -> None:
        """A signal ends it cleanly though a client hangs on, and the port is free."""
        process, url = started
        hanging, idle = Wire(url), Wire(url)
        hanging.write(send("447700900110"))
        wait_for(lambda: Sandbox(url).accepted("447700900110"))
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0
        for connection in (hanging, idle):
            assert connection.hear()[1] in {"closed", "reset"}
            connection.close()
        with pytest.raises(ConnectionRefusedError):
            Wire(url)

    def test_stops_while_it_refuses(self, started: tuple[subprocess.Popen[str], str]) -> None:
        """Nothing has to be waited for."""
        process, url = started
        Sandbox(url).fault("refuse", seconds=60)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0

    def test_ledger_outlives_a_kill(self, started: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
        """What was answered, or accepted without an answer, is in the file when the process is killed."""
        process, url = started
        connection = Wire(url)
        connection.write(send(PHONE), send("447700900100"), send("447700900110"))
        connection.answers(2)
        wait_for(lambda: Sandbox(url).accepted("447700900110"))
        process.kill()
        process.wait()
        connection.close()
        lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines()
        rows = [msgspec.json.decode(line, type=Row) for line in lines]
        assert [(row.msisdn, row.accepted, row.fault) for row in rows] == [
            (PHONE, True, ""),
            ("447700900100", False, ""),
            ("447700900110", True, "hang-after"),
        ]

    def test_address_in_use(self, url: str) -> None:
        """A second sandbox at the same address fails, and the first doesn't notice."""
        address = urlsplit(url)
        with pytest.raises(OSError, match="in use"):
            asyncio.run(serve("127.0.0.1", address.port or 0))
        Sandbox(url).wait_ready(PATIENCE)

    def test_cancelled(self) -> None:
        """Whoever runs it in a loop of their own ends it by cancelling, and gets the port back."""

        async def play() -> str:
            ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            task = asyncio.create_task(serve(ready=ready.set_result))
            origin = await ready
            task.cancel()
            await asyncio.wait([task])
            return origin

        with pytest.raises(ConnectionRefusedError):
            Wire(asyncio.run(play()))

    def test_leaves_no_file_open(self, tmp_path: Path) -> None:
        """Stopping closes every descriptor: sockets, ledger, loop."""
        before = open_files()
        running = Running(tmp_path / "ledger.jsonl")
        connection = Wire(running.url)
        connection.write(send("447700900110"))
        wait_for(lambda: Sandbox(running.url).accepted("447700900110"))
        running.stop()
        connection.close()
        assert open_files() == before


def test_pages_of_a_server_say_what_they_are() -> None:
    """A page in place of an answer is no JSON, and says so."""
    for fault in FAULTS.values():
        if fault.instead:
            assert fault.instead.content_type.startswith("text/html")
            with pytest.raises(ValueError, match="malformed"):
                msgspec.json.decode(fault.instead.body, type=Any)
