"""What the sandbox tells by itself, heard by a real server, and how many requests it takes.

The provider is an invented one: what each vendor's own receipts look like is tested beside its player.
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest

from dispatcher.cli import main
from tests.integration.sandboxes import SILENCE, Running, Wire, as_bytes, open_files, sending, wait_for
from tests.support import until
from workers.sandbox import magic
from workers.sandbox.base import Answer, Limits, Outgoing, Reply, Request, Texted
from workers.sandbox.callbacks import CONNECTIONS, Callbacks, Times
from workers.sandbox.client import Sandbox, SandboxError
from workers.sandbox.limits import Window
from workers.sandbox.textgoto import TextGoto
from workers.sandbox.world import Account, Row, World

PHONE = "447700900001"
FIRST_NUMBER = "12125550100"
#: No time to wait for.
AT_ONCE = Times(after=0, late=0.05, retry_every=0.02, retries=3)


class Post:
    """A provider: POST /post sends, GET /post asks; the header `user` names the account."""

    name = "post"
    limits = Limits(at_once=2, gets_a_minute=3, refusal=Answer(status=503, body=b"too many"))

    def accounts(self) -> Iterable[Account]:
        for name, numbers in (("first", {FIRST_NUMBER, "12125550177"}), ("second", set[str]())):
            yield Account(
                provider=self.name, name=name, secret="", balance=Decimal(0), credit=Decimal(0), grants=frozenset(),
                numbers=numbers,
            )  # fmt: skip

    def serves(self, path: str) -> bool:
        return path == "/post"

    def reply(self, request: Request, world: World) -> Reply:
        account = request.headers.get("user", "")
        if request.method == "GET":
            row = Row(provider=self.name, action="ask", kind="balance", account=account, accepted=True, result="OK")
            return Reply(Answer(body=b"[]"), [row])
        rows = [
            Row(
                provider=self.name, action="send", kind="send", account=account, msisdn=msisdn, ref=f"{msisdn}:1",
                accepted=True, result="OK", text="Hello", due=due,
            )
            for msisdn, due in json.loads(request.body).items()
        ]  # fmt: skip
        return Reply(Answer(body=b"{}"), rows)

    def receipt(self, row: Row) -> Outgoing | None:
        body = json.dumps({"id": row.ref, "status": magic.outcome(row)})
        return Outgoing(query="kind=dlr", headers={"Content-Type": "application/json"}, body=body.encode())

    def inbound(self, texted: Texted) -> Outgoing | None:
        fields = {"from": texted.sender, "to": texted.to, "text": texted.text, "account": texted.account}
        return Outgoing(method="GET", query=urlencode(fields))

    def refused(self, request: Request) -> list[Row]:
        return [Row(provider=self.name, action=request.method, accepted=False, result="one too many")]


class Customer(http.server.ThreadingHTTPServer):
    """Where a provider calls: keeps what came, and answers with the statuses it is given, then 200."""

    daemon_threads = True

    def __init__(self, statuses: Iterable[int] = (), port: int = 0, protocol: str = "HTTP/1.1") -> None:
        self.statuses = iter(statuses)
        self.heard: list[tuple[str, str, str]] = []
        self.connections = 0
        self.most = 0
        #: While it is not set, nobody is answered.
        self.answers = threading.Event()
        self.answers.set()
        handler = type("Handler", (_Handler,), {"protocol_version": protocol})
        super().__init__(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/post/token?a=1"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self.answers.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Mind no client that left; anything else is a test's own mistake, and shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def has_heard(self, count: int) -> bool:
        return len(self.heard) == count

    def told(self) -> list[tuple[str, str]]:
        """Return id and status of the receipts that came."""
        receipts = [json.loads(body) for _, _, body in self.heard]
        return [(receipt["id"].removesuffix(":1"), receipt["status"]) for receipt in receipts]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Customer
    disable_nagle_algorithm = True
    _now: ClassVar[set[int]] = set()

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1
        self._now.add(id(self))
        self.server.most = max(self.server.most, len(self._now))

    def finish(self) -> None:
        super().finish()
        self._now.discard(id(self))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.heard.append((self.command, self.path, body))
        self.server.answers.wait(10)
        self.send_response(next(self.server.statuses, 200))
        if self.protocol_version == "HTTP/1.1":
            self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
        """Say nothing."""


class Stage:
    """A sandbox that plays `Post`, and customers."""

    def __init__(self, ledger: Path | None = None, times: Times = AT_ONCE) -> None:
        self.running = Running(ledger, providers=(Post(), TextGoto()), times=times)
        self.sandbox = Sandbox(self.running.url)
        self._customers: list[Customer] = []
        self._wires: list[Wire] = []

    def customer(self, statuses: Iterable[int] = (), **how: Any) -> Customer:
        one = Customer(statuses, **how)
        self._customers.append(one)
        self.sandbox.callbacks({"post": one.url})
        return one

    def wire(self) -> Wire:
        wire = Wire(self.running.url)
        self._wires.append(wire)
        return wire

    def send(self, *msisdns: str, due: float = 0.0) -> None:
        wire = self.wire()
        wire.write(send(*msisdns, due=due))
        assert wire.answers() == [(200, b"{}")]

    def waiting(self) -> int:
        return self.sandbox.told()["post"].waiting

    def settle(self) -> None:
        wait_for(lambda: not self.waiting())

    def stop(self) -> None:
        self.running.stop()
        for wire in self._wires:
            wire.close()
        for one in self._customers:
            one.stop()


def send(*msisdns: str, due: float = 0.0) -> bytes:
    body = json.dumps(dict.fromkeys(msisdns, due))
    return f"POST /post HTTP/1.1\r\nHost: a\r\nUser: first\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def ask(account: str = "first") -> bytes:
    return f"GET /post HTTP/1.1\r\nHost: a\r\nUser: {account}\r\n\r\n".encode()


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.stop()


@pytest.fixture
def closed_port() -> int:
    """Return a port at which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


class TestReceipts:
    def test_a_receipt_comes_to_the_address_that_was_set(self, stage: Stage) -> None:
        """What the address has in its query stays, and the provider's own is added."""
        customer = stage.customer()
        stage.send(PHONE)
        stage.settle()
        body = '{"id": "447700900001:1", "status": "delivered"}'
        assert customer.heard == [("POST", "/post/token?a=1&kind=dlr", body)]
        told = stage.sandbox.told()
        assert (told["post"].url, told["post"].taken, told["post"].dropped) == (customer.url, 1, 0)
        assert (told["textgoto"].url, told["textgoto"].taken) == ("", 0)

    #: Receipts of a number, in the order they come.
    NUMBERS = (
        pytest.param("447700900001", ["delivered"], id="an ordinary phone"),
        pytest.param("447700900140", ["undelivered"], id="140 never gets there"),
        pytest.param("447700900141", ["delivered", "delivered"], id="141 twice"),
        pytest.param("447700900142", ["delivered"], id="142 late"),
        pytest.param("447700900143", ["delivered"], id="143 before the answer"),
        pytest.param("447700900144", [], id="144 never"),
        pytest.param("447700900145", ["delivered", "waiting"], id="145 and then what was so before"),
        pytest.param("447700900118", ["delivered"], id="118 whose answer is lost"),
        pytest.param("447700900122", [], id="122 that is not accepted"),
    )

    @pytest.mark.parametrize(("number", "statuses"), NUMBERS)
    def test_receipts_of_a_number(self, stage: Stage, number: str, statuses: list[str]) -> None:
        customer = stage.customer()
        wire = stage.wire()
        wire.write(send(number))
        wire.hear(rest=SILENCE)
        stage.settle()
        assert customer.told() == [(number, status) for status in statuses]

    def test_what_is_undelivered_is_on_no_phone(self, stage: Stage) -> None:
        """Though it was accepted, and counts as that."""
        stage.send("447700900140", PHONE)
        assert stage.sandbox.counts().accepted == {"447700900140": 1, PHONE: 1}
        assert (stage.sandbox.inbox("447700900140"), len(stage.sandbox.inbox(PHONE))) == ([], 1)

    def test_a_late_one_comes_after_those_of_later_texts(self, stage: Stage) -> None:
        customer = stage.customer()
        stage.sandbox.times(late=2)
        stage.send("447700900142")
        stage.send(PHONE)
        stage.settle()
        assert [number for number, _ in customer.told()] == [PHONE, "447700900142"]

    def test_one_before_the_answer(self, stage: Stage) -> None:
        """The client has no answer before the customer has answered; the other's receipt has no part in it."""
        customer = stage.customer()
        customer.answers.clear()
        wire = stage.wire()
        wire.write(send("447700900143"))
        wait_for(customer.told)
        assert wire.hear(SILENCE) == (b"", "silent")
        customer.answers.set()
        assert wire.answers() == [(200, b"{}")]

    def test_one_before_the_answer_that_nobody_takes(self, stage: Stage, closed_port: int) -> None:
        """The answer comes after the first try."""
        stage.sandbox.callbacks({"post": f"http://127.0.0.1:{closed_port}/"})
        stage.send("447700900143")

    def test_a_client_that_leaves_before_its_answer(self, stage: Stage) -> None:
        """It is told of nevertheless, and makes room for others."""
        customer = stage.customer()
        customer.answers.clear()
        wire = stage.wire()
        wire.write(send("447700900143"))
        wait_for(customer.told)
        wire.close()
        customer.answers.set()
        stage.settle()
        assert stage.sandbox.told()["post"].taken == 1
        stage.send(PHONE)

    def test_a_scheduled_text_has_its_receipt_when_it_is_due(self, stage: Stage) -> None:
        customer = stage.customer()
        stage.send("447700900002", due=time.time() + 3600)
        stage.send(PHONE)
        wait_for(lambda: stage.waiting() == 1)
        assert customer.told() == [(PHONE, "delivered")]

    def test_nothing_is_told_without_an_address(self, stage: Stage) -> None:
        """Nor when it was taken away."""
        stage.send(PHONE)
        customer = stage.customer()
        stage.sandbox.callbacks({"post": ""})
        stage.send(PHONE)
        assert stage.waiting() == 0
        stage.sandbox.callbacks({"post": customer.url})
        stage.send("447700900002")
        stage.settle()
        assert customer.told() == [("447700900002", "delivered")]

    def test_reset_forgets_what_was_to_be_told(self, stage: Stage) -> None:
        """Addresses and times are as at the start, and a client that waits has its answer."""
        customer = stage.customer()
        customer.answers.clear()
        stage.sandbox.times(after=60)
        stage.send(PHONE)
        wire = stage.wire()
        wire.write(send("447700900143"))
        wait_for(lambda: customer.heard)
        stage.sandbox.reset()
        assert wire.answers() == [(200, b"{}")]
        told = stage.sandbox.told()["post"]
        assert (told.url, told.waiting, told.taken, told.dropped) == ("", 0, 0, 0)
        assert stage.sandbox.times() == AT_ONCE

    def test_reset_lets_a_client_go_whose_receipt_has_not_begun(self, stage: Stage) -> None:
        """All connections are taken by others."""
        customer = stage.customer()
        customer.answers.clear()
        stage.send(*(f"4477009002{ending:02}" for ending in range(CONNECTIONS)))
        wait_for(partial(customer.has_heard, CONNECTIONS))
        wire = stage.wire()
        wire.write(send("447700900143"))
        wait_for(lambda: stage.waiting() == CONNECTIONS + 1)
        stage.sandbox.reset()
        assert wire.answers() == [(200, b"{}")]


class TestTries:
    #: What the customer answers, how many requests it gets, and whether it took the receipt in the end.
    ANSWERS = (
        pytest.param([200], 1, True, id="200 is taken"),
        pytest.param([202], 1, True, id="202 is taken"),
        pytest.param([201, 204, 302, 200], 4, True, id="other good ones are not"),
        pytest.param([503, 500, 404, 202], 4, True, id="three times again"),
        pytest.param([503, 500, 404, 400, 200], 4, False, id="and no more"),
    )

    @pytest.mark.parametrize(("statuses", "requests", "taken"), ANSWERS)
    def test_again(self, stage: Stage, statuses: list[int], requests: int, taken: bool) -> None:
        customer = stage.customer(statuses)
        stage.send(PHONE)
        stage.settle()
        told = stage.sandbox.told()["post"]
        assert (told.taken, told.dropped, len(customer.heard)) == (taken, not taken, requests)
        assert len(set(customer.heard)) == 1, "it says the same every time"

    def test_a_customer_that_is_away_for_a_while(self, stage: Stage, closed_port: int) -> None:
        """Nothing is lost while tries are left."""
        stage.sandbox.times(retries=500)
        stage.sandbox.callbacks({"post": f"http://127.0.0.1:{closed_port}/"})
        numbers = [f"4477009002{ending:02}" for ending in range(30)]
        stage.send(*numbers)
        assert stage.waiting() == 30
        customer = stage.customer(port=closed_port)
        stage.settle()
        assert sorted(number for number, _ in customer.told()) == numbers

    def test_a_customer_that_closes_after_each_answer(self, stage: Stage) -> None:
        """An answer may end where its connection does, as HTTP/1.0 has it."""
        customer = stage.customer(protocol="HTTP/1.0")
        stage.send(PHONE, "447700900002")
        stage.settle()
        assert stage.sandbox.told()["post"].taken == customer.connections == 2

    def test_a_customer_that_speaks_no_http(self, stage: Stage) -> None:
        """It counts as no answer."""
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            stage.sandbox.times(retries=0)
            stage.sandbox.callbacks({"post": f"http://127.0.0.1:{server.getsockname()[1]}/"})
            stage.send(PHONE)
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"nonsense\r\n\r\n")
                stage.settle()
        assert stage.sandbox.told()["post"].dropped == 1

    def test_many_go_over_few_connections(self, stage: Stage) -> None:
        """Which stay open."""
        customer = stage.customer()
        numbers = [f"4477009{ending:05}" for ending in range(1000, 3000)]
        stage.send(*numbers)
        stage.settle()
        assert len(customer.heard) == len(set(customer.heard)) == stage.sandbox.told()["post"].taken == 2000
        assert customer.most <= CONNECTIONS
        assert customer.connections <= CONNECTIONS


class TestInbound:
    def test_a_text_from_a_phone(self, stage: Stage) -> None:
        """It goes to the provider's first account and the first number that it has."""
        customer = stage.customer()
        stage.sandbox.text("post", "+44 7700 900001", "Stöp it")
        stage.settle()
        ((method, path, body),) = customer.heard
        words = urlencode({"from": PHONE, "to": FIRST_NUMBER, "text": "Stöp it", "account": "first"})
        assert (method, path, body) == ("GET", f"/post/token?a=1&{words}", "")

    def test_to_whom_is_said(self, stage: Stage) -> None:
        customer = stage.customer()
        stage.sandbox.text("post", PHONE, "STOP", account="second", to="HONEY")
        stage.sandbox.text("post", PHONE, "START", account="second")
        stage.settle()
        assert sorted(path.partition("&")[2] for _, path, _ in customer.heard) == [
            f"from={PHONE}&to=&text=START&account=second",
            f"from={PHONE}&to=HONEY&text=STOP&account=second",
        ]

    def test_it_is_told_again_like_a_receipt(self, stage: Stage) -> None:
        customer = stage.customer([503])
        stage.sandbox.text("post", PHONE, "STOP")
        stage.settle()
        assert (len(customer.heard), stage.sandbox.told()["post"].taken) == (2, 1)

    REFUSED = (
        pytest.param({"provider": "nobody"}, "'nobody' is none of post, textgoto", id="an unknown provider"),
        pytest.param({"provider": "textgoto"}, "textgoto passes no texts on", id="one without such a call"),
        pytest.param({"provider": "post"}, "no callback address", id="no address"),
        pytest.param({"account": "third"}, "none of post's: first, second", id="an unknown account"),
        pytest.param({"sender": "ACME"}, "from: a number", id="from no number"),
    )

    @pytest.mark.parametrize(("changed", "words"), REFUSED)
    def test_refusal_says_why(self, stage: Stage, changed: dict[str, str], words: str) -> None:
        with pytest.raises(SandboxError, match=words):
            stage.sandbox.text(**{"provider": "post", "sender": PHONE, "text": "STOP", **changed})


ADDRESSES = [
    pytest.param("http://192.0.2.1:8470/", "192.0.2.1 is not this machine", id="another machine"),
    pytest.param("http://example.com/", "example.com is not this machine", id="a name"),
    pytest.param("http://localhost.example.com/", "not this machine", id="a name that looks like ours"),
    pytest.param("http://127.0.0.1@example.com/", "not this machine", id="our address as a user"),
    pytest.param("http://[::ffff:192.0.2.1]/", "not this machine", id="another machine, mapped"),
    pytest.param("https://127.0.0.1/", "begins with http://", id="https"),
    pytest.param("127.0.0.1:8470", "begins with http://", id="no scheme"),
    pytest.param("http:///path", "begins with http://", id="no host"),
    pytest.param("http://127.0.0.1:x/", "Port could not", id="no port"),
    pytest.param("http://127.0.0.1/a b", "without spaces", id="a space"),
    pytest.param("http://127.0.0.1/ä", "in ASCII", id="not encoded"),
]


class TestControl:
    @pytest.mark.parametrize(("url", "words"), ADDRESSES)
    def test_a_sandbox_calls_its_own_machine_only(self, stage: Stage, url: str, words: str) -> None:
        """One bad address, and none is set."""
        with pytest.raises(SandboxError, match=words) as refused:
            stage.sandbox.callbacks({"textgoto": "http://127.0.0.1:9/", "post": url})
        assert refused.value.reason.startswith("post: ")
        assert {told.url for told in stage.sandbox.told().values()} == {""}

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.1:9", "http://127.8.9.1/a?b=c", "http://[::1]:9/", "http://localhost/"]
    )
    def test_addresses_of_this_machine(self, stage: Stage, url: str) -> None:
        stage.sandbox.callbacks({"post": url})
        assert stage.sandbox.told()["post"].url == url

    def test_addresses_and_times_from_the_start(self) -> None:
        """A reset brings them back."""
        callbacks = Callbacks(["post"], lambda: 0.0, {"post": "http://127.0.0.1:9/"}, AT_ONCE)
        callbacks.set({"post": ""})
        callbacks.times = Times()
        callbacks.reset()
        assert (callbacks.told()["post"].url, callbacks.times) == ("http://127.0.0.1:9/", AT_ONCE)

    REFUSED = (
        pytest.param(lambda sandbox: sandbox.callbacks({"nobody": ""}), "there are post, textgoto", id="nobody's"),
        pytest.param(lambda sandbox: sandbox.times(after=-1), "after: 0 or more", id="a receipt before its time"),
        pytest.param(lambda sandbox: sandbox.times(soon=1), "soon", id="an unknown time"),
        pytest.param(lambda sandbox: sandbox.times(retries=0.5), "int", id="half a try"),
        pytest.param(lambda sandbox: sandbox.limits(at_once=1), "provider: whose at_once", id="nobody's limit"),
        pytest.param(lambda sandbox: sandbox.limits(provider="x", at_once=1), "none of post", id="an unknown one's"),
        pytest.param(lambda sandbox: sandbox.limits(provider="post", at_once=0), "at least 1", id="a limit of none"),
        pytest.param(lambda sandbox: sandbox.limits(late=1.0), "provider: whose late", id="nobody's road"),
        pytest.param(lambda sandbox: sandbox.limits(provider="post", late=-1.0), "late: from 0", id="before its time"),
        pytest.param(
            lambda sandbox: sandbox.limits(provider="post", windows=[Window(counts="")]), "counts is", id="of nothing"
        ),
        pytest.param(
            lambda sandbox: sandbox.limits(provider="post", windows=[Window(counts="all", seconds=0)]),
            "positive number",
            id="a window of no time",
        ),
    )

    @pytest.mark.parametrize(("told", "words"), REFUSED)
    def test_refusal_says_why(self, stage: Stage, told: Callable[[Sandbox], object], words: str) -> None:
        with pytest.raises(SandboxError, match=words):
            told(stage.sandbox)
        assert stage.sandbox.times() == AT_ONCE

    def test_one_time_is_changed(self, stage: Stage) -> None:
        assert stage.sandbox.times(after=0.5) == Times(after=0.5, late=0.05, retry_every=0.02, retries=3)


class TestLimits:
    def test_one_more_at_once(self, stage: Stage) -> None:
        """Until one of the two has its answer, the third is refused; then there is room again."""
        stage.sandbox.fault("latency", seconds=2, times=2)
        busy = [stage.wire(), stage.wire()]
        for wire in busy:
            wire.write(send(PHONE))
        wait_for(lambda: len(stage.sandbox.ledger()) == 2)
        third = stage.wire()
        third.write(send("447700900002"))
        assert third.answers() == [(503, b"too many")]
        *_, refused = stage.sandbox.ledger()
        assert (refused.action, refused.accepted, refused.result) == ("POST", False, "one too many")
        for wire in busy:
            assert wire.answers() == [(200, b"{}")]
        stage.send("447700900002")
        assert stage.sandbox.counts().messages == {"post": {PHONE: 2, "447700900002": 1}}

    def test_what_hangs_is_worked_on_until_its_client_gives_up(self, stage: Stage) -> None:
        stage.sandbox.fault("hang-before", times=2)
        hanging = [stage.wire(), stage.wire()]
        for wire in hanging:
            wire.write(ask())
        wait_for(lambda: len(stage.sandbox.ledger()) == 2)
        third = stage.wire()
        third.write(send(PHONE))
        assert third.answers() == [(503, b"too many")]
        hanging[0].close()

        def taken() -> bool:
            wire = stage.wire()
            wire.write(send(PHONE))
            return wire.answers() == [(200, b"{}")]

        wait_for(taken)

    @pytest.mark.parametrize("fault", ["drop-after", "reset-before", "half", "500", "garbage"])
    def test_a_request_that_goes_wrong_makes_room(self, stage: Stage, fault: str) -> None:
        """However it ends, it is not worked on any more."""
        stage.sandbox.fault(fault, times=5)
        for _ in range(5):
            wire = stage.wire()
            wire.write(send(PHONE))
            assert wire.hear(rest=SILENCE)[0] or fault in {"drop-after", "reset-before"}
        stage.send(PHONE)

    def test_one_after_the_other_is_never_too_many(self, stage: Stage) -> None:
        """Requests that wait on one connection are not worked on yet."""
        wire = stage.wire()
        wire.write(send(PHONE) * 20)
        assert wire.answers(20) == [(200, b"{}")] * 20

    def test_gets_a_minute(self, stage: Stage) -> None:
        """By account; POSTs go on."""
        wire = stage.wire()
        wire.write(ask() * 4 + ask("second") + send(PHONE))
        assert [status for status, _ in wire.answers(6)] == [200, 200, 200, 503, 200, 200]

    def test_a_refused_request_meets_no_fault(self, stage: Stage) -> None:
        """It has not got that far."""
        stage.sandbox.limits(provider="post", gets_a_minute=1)
        stage.sandbox.fault("500", action="ask", times=2)
        wire = stage.wire()
        wire.write(ask() * 2)
        assert [status for status, _ in wire.answers(2)] == [500, 503]

    def test_a_window_that_is_set(self, stage: Stage) -> None:
        stage.sandbox.limits(provider="post", windows=[Window(counts="post", most=2)])
        wire = stage.wire()
        wire.write(send(PHONE) * 3)
        assert [status for status, _ in wire.answers(3)] == [200, 200, 503]
        (seen,) = stage.sandbox.limited().counted
        assert (seen.taken, seen.refused, seen.sliding) == (2, 1, 2)

    def test_what_is_under_way_arrives_though_its_client_is_gone(self, stage: Stage) -> None:
        stage.sandbox.limits(provider="post", late=0.5, windows=[Window(counts="post")])
        for _ in range(5):
            wire = stage.wire()
            wire.write(send(PHONE))
            wire.close()
        until(lambda: [one.taken for one in stage.sandbox.limited().counted] == [5], what="all of them")

    def test_switched_off(self, stage: Stage) -> None:
        stage.sandbox.limits(enforced=False)
        stage.sandbox.fault("latency", seconds=0.3, times=10)
        wires = [stage.wire() for _ in range(10)]
        for wire in wires:
            wire.write(ask())
        assert [wire.answers() for wire in wires] == [[(200, b"[]")]] * 10
        stage.sandbox.reset()
        wire = stage.wire()
        wire.write(ask() * 4)
        assert [status for status, _ in wire.answers(4)] == [200, 200, 200, 503]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `dispatcher sandbox ARGUMENTS` and return exit code, output and errors."""

    def run(*arguments: str, url: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("DISPATCHER_SANDBOX_URL", url)
        monkeypatch.setattr(sys, "argv", ["dispatcher", "sandbox", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


class TestCommandLine:
    def test_a_text_from_a_phone(self, stage: Stage, command: Callable[..., tuple[int, str, str]]) -> None:
        customer = stage.customer()
        words = ["text", f"+{PHONE}", "STOP", "--provider", "post"]
        assert command(*words, url=stage.running.url) == (0, "post passes it on.\n", "")
        assert command(*words, "--to", "HONEY", "--account", "second", "--json", url=stage.running.url) == (
            0,
            '{"ok":true}\n',
            "",
        )
        stage.settle()
        assert sorted(path.partition("&")[2] for _, path, _ in customer.heard) == [
            f"from={PHONE}&to={FIRST_NUMBER}&text=STOP&account=first",
            f"from={PHONE}&to=HONEY&text=STOP&account=second",
        ]

    def test_a_text_that_goes_nowhere(self, stage: Stage, command: Callable[..., tuple[int, str, str]]) -> None:
        """The sandbox's own words are shown, or that there is none."""
        words = ["text", f"+{PHONE}", "STOP", "--provider", "textgoto"]
        told = "dispatcher: provider: textgoto passes no texts on\n"
        assert command(*words, url=stage.running.url) == (2, "", told)
        code, _, told = command(*words, url="http://127.0.0.1:1")
        assert (code, "no sandbox answers at http://127.0.0.1:1" in told) == (1, True)

    ADDRESSES = (
        pytest.param("textgoto=http://example.com/", "textgoto: example.com is not this machine", id="elsewhere"),
        pytest.param("nobody=http://127.0.0.1/", "nobody: no such provider", id="nobody's"),
        pytest.param("http://127.0.0.1/", "must be key=value", id="of whom"),
    )

    @pytest.mark.parametrize(("address", "words"), ADDRESSES)
    def test_a_bad_address(self, command: Callable[..., tuple[int, str, str]], address: str, words: str) -> None:
        code, out, told = command("--port", "0", "--callback", address)
        assert (code, out) == (2, "")
        assert words in told

    def test_a_sandbox_that_calls(self, tmp_path: Path) -> None:
        """`--callback` and `--receipts-after`, with MobTexting's own receipts; the ledger outlives a second start."""
        customer = Customer()
        arguments = ["sandbox", "--port", "0", "--ledger", str(tmp_path / "ledger"), "--receipts-after", "0", "--json"]
        for start in (1, 2):
            process = subprocess.Popen(
                [sys.executable, "-m", "dispatcher.cli", *arguments, "--callback", f"mobtexting={customer.url}"],
                stdout=subprocess.PIPE,
            )
            with process:
                assert process.stdout
                url = json.loads(process.stdout.readline())["url"]
                wire = Wire(url)
                wire.write(as_bytes(sending("mobtexting", PHONE)))
                wire.answers()
                wait_for(partial(customer.has_heard, start))
                assert Sandbox(url).accepted(PHONE) == start
                wire.close()
                process.terminate()
        customer.stop()
        assert all('"status":"DELIVRD"' in body for _, _, body in customer.heard)


class TestProcess:
    def test_stops_at_once_and_leaves_nothing_open(self) -> None:
        """A customer that hangs and receipts that wait keep nobody."""
        before = open_files()
        stage = Stage()
        customer = stage.customer()
        customer.answers.clear()
        stage.send(*(f"4477009002{ending:02}" for ending in range(40)))
        wait_for(lambda: len(customer.heard) == CONNECTIONS)
        stage.stop()
        wait_for(lambda: open_files() == before)
