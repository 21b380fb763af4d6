"""Pigeon Post, against the samples of its document."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from dispatcher_pigeonpost import _ERRORS, _STATES, PigeonPost

from dispatcher.jobs import Operation, Send, Verify
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found
from dispatcher.states import State
from workers.conformance import NUMBERS, Case, Subject, answers, every_check, response, run
from workers.providers.base import Callback, Inbound, Receipt, Request

SUBJECT = Subject(
    adapter=PigeonPost,
    settings={"api_key": "canary-key", "webhook_secret": "canary-secret"},
    requests={
        "send": Send(to=NUMBERS[0], text="Hello", sender="ACME", options={"at": "2026-11-30T09:00:00+00:00"}),
        "verify": Verify(to=NUMBERS[0], template="Your code is [CODE]"),
        "balance": Operation(),
    },
    vocabulary=["id", "state", "error", "corn", "reference", "from", "to", "text", "m-1", *_ERRORS, *_STATES],
    samples=lambda: answers(CASES),
    calls=lambda: [Callback(method="POST", body=b'{"id": "m-1", "state": "delivered", "to": "+447700901000"}')],
)


@every_check
def test_it_keeps_what_all_adapters_keep(check: Callable[[Subject], None]) -> None:
    check(SUBJECT)


def read(request: Request) -> Any:
    """The request as the cases compare it."""
    assert request.headers["Authorization"] == "Bearer canary-key"
    return request.method, request.url.removeprefix(PigeonPost.base_url), request.body and json.loads(request.body)


MESSAGE = {"to": NUMBERS[0], "text": "Hello", "reference": "0001"}
SEND, BALANCE = [SUBJECT.work("send", Send(to=NUMBERS[0], text="Hello"))], [SUBJECT.work("balance")]


def failed(kind: FailureKind, code: str) -> Failure:
    return Failure(kind=kind, code=code, message=f"Pigeon Post answered {code}")


CASES: list[Any] = [
    pytest.param(
        Case(SEND, ("POST", "/v1/messages", MESSAGE), {"id": "m-1", "state": "waiting"}, [Accepted(ref="m-1")]),
        id="Send: a message is taken",
    ),
    pytest.param(
        Case(
            BALANCE, ("GET", "/v1/corn", b""), {"corn": 17},
            [Found(result={"balance": "17", "available": "17", "currency": "corn"})],
        ),
        id="Corn: what is left",
    ),
    *(
        pytest.param(Case(SEND, None, {"error": word}, [failed(kind, word)], status=400), id=f"Errors: {word}")
        for word, kind in _ERRORS.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_asked_and_answered_means(case: Case) -> None:
    run(SUBJECT, case, read)


@pytest.mark.parametrize(("word", "state"), [*_STATES.items(), ("waiting", None)])
def test_a_message_that_is_asked_for_or_told_of_is_in_its_state(word: str, state: State | None) -> None:
    adapter, told = SUBJECT.made(), {"id": "m-1", "state": word, "to": NUMBERS[0]}
    (group,) = adapter.inquire([SUBJECT.work("send", state=State.UNKNOWN)])
    assert read(group.request) == ("GET", "/v1/references/0001", b"")
    news = adapter.news(response(Case(SEND, None, told, [])), group)
    assert isinstance(news, dict)
    assert news["0001"].state == state
    (receipt,) = adapter.read(Callback(method="POST", body=json.dumps(told).encode()))
    assert isinstance(receipt, Receipt)
    assert (receipt.ref, receipt.number, receipt.news.state) == ("m-1", NUMBERS[0], state)


def test_a_text_to_us_is_read_where_the_secret_is_right() -> None:
    body = json.dumps({"from": NUMBERS[0], "text": "STOP"}).encode()
    adapter, callback = SUBJECT.made(), Callback(method="POST", headers={"x-pigeon": "canary-secret"}, body=body)
    assert adapter.trusts(callback)
    assert not adapter.trusts(Callback(method="POST", body=body))
    assert adapter.read(callback) == (Inbound(sender=NUMBERS[0], text="STOP"),)
