"""TextGoto, against the samples, words and traps of its document ("Getting started with the JSON API", 24-Sep-2015)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found
from tests.providers import runner
from tests.providers.runner import NUMBERS, Case, Subject, answers, response, run
from workers.providers.base import Request, Response
from workers.providers.textgoto import _TOKENS, TextGoto

#: The document's two numbers.
ANN, BOB = "+447771112222", "+447123456789"

SUBJECT = Subject(
    adapter=TextGoto,
    settings={"uid": "canary-user", "pwd": "canary-password"},
    requests={
        "send": Send(to=NUMBERS[0], text="Hello", sender="ACME"),
        "verify": Verify(to=NUMBERS[0], template="Your code is [CODE]"),
        "lookup": Lookup(to=NUMBERS[0]),
        "balance": OperationRequest(),
        "optout.add": OperationRequest(arguments={"number": NUMBERS[0]}),
        "list.append": OperationRequest(arguments={"list": "spring", "number": NUMBERS[0]}),
    },
    vocabulary=[
        "output", "msg", "error", "hlr", "@msisdn", "@response", "@code", "@balance", "@available", "number",
        "error_code", "is_perm_err", "ported", "roaming", "OK", "NUMBER_ADDED", "DELIVRD", "012837", "21.461", "true",
        "1", *_TOKENS,
    ],
    envelope=lambda content: {"output": content},
    samples=lambda: [*runner.printed("textgoto"), *answers(CASES)],
)  # fmt: skip


def send(to: str = ANN, text: str = "Hello", id_: str = "0001", **fields: Any) -> Work:
    return SUBJECT.work("send", Send(to=to, text=text, **fields), id_)


def verify(to: str = ANN, **fields: Any) -> Work:
    return SUBJECT.work("verify", Verify(**{"to": to, "template": "Your code is [CODE]"} | fields))


def lookup(to: str = BOB) -> Work:
    return SUBJECT.work("lookup", Lookup(to=to))


def operation(name: str, **arguments: Any) -> Work:
    return SUBJECT.work(name, OperationRequest(arguments=arguments))


def asked(action: str, **body: Any) -> dict[str, Any]:
    """A request as it is compared: all of its JSON."""
    header = {"-uid": "canary-user", "-pwd": "canary-password", "-action": action}
    return {"campaign": {"header": header} | ({"body": body} if body else {})}


def read(request: Request) -> Any:
    assert (request.method, request.url) == ("POST", "https://textgoto.com/api/jsonapi.aspx")
    assert request.headers == {"Content-Type": "application/json"}
    return json.loads(request.body)


def failed(kind: str, code: str) -> Failure:
    permission = code == "NOT_PERMITTED"
    own = code == "SEND_FAILURE" or None
    return Failure(
        kind=FailureKind(kind), code=code, message=f"TextGoto answered {code}", permission=permission, own=own
    )


def lost(what: str) -> Failure:
    return Failure(kind=FailureKind.AMBIGUOUS, code="incomplete", message=f"the answer holds no {what}")


def row(to: str = ANN, answer: str = "OK", **more: str) -> dict[str, str]:
    return {"@msisdn": to.removeprefix("+"), "@response": answer} | {f"@{name}": value for name, value in more.items()}


def told(content: Any) -> dict[str, Any]:
    return {"output": content}


def money(balance: str, available: str) -> Found:
    return Found(result={"balance": balance, "available": available, "currency": None})


HLR = {
    "number": "447123456789", "country": "United Kingdom",
    "orig_network": "T-Mobile UK (Everything Everywhere Limited)",
    "ported_network": "T-Mobile UK (Everything Everywhere Limited)", "roaming_country": "United Kingdom",
    "roaming_network": "T-Mobile UK (Everything Everywhere Limited)", "ported": False, "roaming": False,
    "error_code": "DELIVRD", "is_perm_err": "0",
}  # fmt: skip

TWO = [send(ANN), send(BOB, id_="0002")]
DONE, STOPPED = [Accepted()], Found(result={"stopped": True})
BALANCE = operation("balance")
UNSURE = lost("word on this number")


# -- the document's own samples, as files on disk ----------------------------------------------------------------------

LOGIN = {"USERID": "canary-user", "PASSWORD": "canary-password"}
LOGIN_2 = {"UID": "canary-user", "PASSWORD": "canary-password"}


@pytest.mark.parametrize(
    ("name", "filled", "jobs"),
    [
        pytest.param(
            "send_msisdn",
            LOGIN | {"MESSAGE": "Hello", "ORIGINATOR": "ACME", "TIMESTAMP": "2026-11-30 09:00:00"},
            [send(to, sender="ACME", options={"time": "2026-11-30 09:00:00"}, id_=to) for to in (ANN, BOB)],
            id="SEND_MSISDN",
        ),
        pytest.param(
            "verification",
            LOGIN | {"MESSAGE": "Your code is [CODE]", "ORIGINATOR": "ACME", "SECONDS": "30"},
            [verify(sender="ACME", options={"delay": 30})],
            id="VERIFICATION",
        ),
        pytest.param("stop_msisdns", LOGIN, [operation("optout.add", numbers=f"{ANN},{BOB}")], id="STOP_MSISDNS"),
        pytest.param("check_balance", LOGIN, [BALANCE], id="GET_BALANCE, whose action is CHECK_BALANCE"),
        pytest.param("hlr", LOGIN_2, [lookup()], id="HLR"),
    ],
)
def test_a_request_is_as_the_document_prints_it(name: str, filled: dict[str, str], jobs: list[Work]) -> None:
    (group,) = SUBJECT.made().build(jobs).groups
    assert read(group.request) == json.loads(runner.sample("textgoto", f"{name}.request", **filled))


def test_the_sample_of_append_list_is_no_json_and_we_send_what_it_must_mean() -> None:
    """A bracket too many: `phone` may have been a list once, and is a string as it is printed."""
    printed = runner.sample("textgoto", "append_list.request", **LOGIN_2, LISTNAME="spring", PHONE="447771112222")
    with pytest.raises(json.JSONDecodeError, match="Expecting ',' delimiter"):
        json.loads(printed)
    (group,) = SUBJECT.made().build([operation("list.append", list="spring", number=ANN)]).groups
    assert read(group.request) == json.loads(printed.replace(" ] }", " }"))


SAMPLES = [
    pytest.param("send_msisdn", {}, [send()], DONE, id="SEND_MSISDN: a list"),
    pytest.param("send_msisdn", {}, TWO, [Accepted(), UNSURE], id="SEND_MSISDN: says nothing of the second number"),
    pytest.param("verification", {"CODE": "012837"}, [verify()], [Accepted(code="012837")], id="VERIFICATION: a code"),
    pytest.param("verification", {}, [verify()], [lost("code")], id="VERIFICATION: as printed, a place and no code"),
    pytest.param(
        "check_balance", {}, [BALANCE],
        [Found(result={"balance": "21.461", "available": "31.461", "currency": None})], id="GET_BALANCE: attributes",
    ),
    pytest.param("hlr", {}, [lookup()], [Found(result=HLR)], id="HLR"),
    pytest.param(
        "append_list", {}, [operation("list.append", list="spring", number=ANN)], [Found(result={"added": True})],
        id="APPEND_LIST: a plain string",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "filled", "jobs", "outcomes"), SAMPLES)
def test_an_answer_is_read_as_the_document_prints_it(
    name: str, filled: dict[str, str], jobs: list[Work], outcomes: list[Any]
) -> None:
    answer = runner.sample("textgoto", f"{name}.answer", **filled)
    run(SUBJECT, Case(jobs, None, answer, outcomes), read)


# -- one table: what is asked for, the request, the answer, what it means ----------------------------------------------


def general(token: str, kind: str, jobs: list[Work]) -> Any:
    """A general error, which is every job's of the request."""
    label = f"{jobs[0].operation}: {token}"
    return pytest.param(Case(jobs, None, told({"error": token}), [failed(kind, token)] * len(jobs)), id=label)


def each(token: str, kind: str, job: Work) -> Any:
    """A response to one number."""
    answer = told({"msg": [row(job.to, token)]})
    return pytest.param(Case([job], None, answer, [failed(kind, token)]), id=f"{job.operation}: to a number, {token}")


ALL_JOBS = {
    "send": [send()], "verify": [verify()], "lookup": [lookup()], "balance": [BALANCE],
    "optout.add": [operation("optout.add", number=ANN)],
    "list.append": [operation("list.append", list="spring", number=ANN)],
}  # fmt: skip

CASES: list[Any] = [
    # -- requests
    pytest.param(
        Case([send()], asked("SEND_MSISDN", msisdn=["447771112222"], msg="Hello"), told({"msg": [row()]}), DONE),
        id="send: no plus, and no more than is needed",
    ),
    pytest.param(
        Case(
            TWO, asked("SEND_MSISDN", msisdn=["447771112222", "447123456789"], msg="Hello"),
            told({"msg": [row(ANN), row(BOB)]}), [Accepted(), Accepted()],
        ),
        id="send: one text to two numbers",
    ),
    pytest.param(
        Case(
            [send(text='Zażółć 🙂 "q" \\n\n', sender="Łódź")],
            asked("SEND_MSISDN", msisdn=["447771112222"], msg='Zażółć 🙂 "q" \\n\n', orig="Łódź"),
            told({"msg": [row()]}), DONE,
        ),
        id="send: any text arrives as it is",
    ),
    pytest.param(
        Case(
            [send(text="Your code is [CODE] and [MESSAGE]")],
            asked("SEND_MSISDN", msisdn=["447771112222"], msg="Your code is [CODE] and [MESSAGE]"),
            told({"msg": [row()]}), DONE,
        ),
        id="send: brackets in a text are nothing of ours",
    ),
    pytest.param(
        Case(
            [verify(template="[CODE] it is")], asked("VERIFICATION", msisdn=["447771112222"], msg="[CODE] it is"),
            told({"msg": row(code="000000")}), [Accepted(code="000000")],
        ),
        id="verify: [CODE] is literal, and a list of one",
    ),
    pytest.param(
        Case(
            [operation("optout.add", number="44 7771 112222")], asked("STOP_MSISDNS", msisdn=["447771112222"]),
            told({}), [STOPPED],
        ),
        id="optout.add: one number, however it was written",
    ),
    pytest.param(
        Case(
            [operation("optout.add", number=ANN, numbers=[BOB])],
            asked("STOP_MSISDNS", msisdn=["447771112222", "447123456789"]), told({}), [STOPPED],
        ),
        id="optout.add: a number and a list",
    ),
    # -- every general error, where the document names it
    *(general(token, kind, [job]) for job in (send(), verify()) for token, kind in (
        ("MESSAGE_TOO_LONG", "invalid"), ("NO_MESSAGE", "invalid"), ("INVALID_MESSAGE", "invalid"),
        ("INSUFFICIENT_CREDITS", "insufficient_funds"), ("SITE_UNAVAILABLE", "not_sent"),
    )),
    general("NO_CODE_PLACEHOLDER_PRESENT", "invalid", [verify()]),
    general("MSISDN_LIMIT(1)_EXCEEDED", "internal", [verify()]),
    general("TOO_MANY_MSISDNS", "internal", ALL_JOBS["optout.add"]),
    *(general("NOT_PERMITTED", "unauthorized", jobs) for jobs in ALL_JOBS.values()),
    pytest.param(
        Case(TWO, None, told({"error": "SITE_UNAVAILABLE"}), [failed("not_sent", "SITE_UNAVAILABLE")] * 2),
        id="a general error is every number's",
    ),
    # -- every response to a number
    *(each(token, kind, job) for job in (send(), verify()) for token, kind in (
        ("INVALID_MSISDN", "invalid"), ("MSISDN_FAILURE", "invalid"), ("SEND_FAILURE", "not_sent"),
        ("UNKNOWN_ERROR", "ambiguous"), ("MSISDN_BLOCKED", "opted_out"),
    )),
    pytest.param(
        Case(
            [*TWO, send(NUMBERS[0], id_="0003"), send(NUMBERS[1], id_="0004"), send(NUMBERS[2], id_="0005")], None,
            told({"msg": [
                row(NUMBERS[2], "UNKNOWN_ERROR"), row(BOB, "MSISDN_BLOCKED"), row(NUMBERS[0], "SEND_FAILURE"), row(ANN),
            ]}),
            [Accepted(), failed("opted_out", "MSISDN_BLOCKED"), failed("not_sent", "SEND_FAILURE"), UNSURE,
             failed("ambiguous", "UNKNOWN_ERROR")],
        ),
        id="partial success: by number, in any order, nothing on one",
    ),
    pytest.param(
        Case([send()], None, told({"msg": [row(BOB)]}), [UNSURE]), id="an answer for somebody else is no answer"
    ),
    pytest.param(
        Case([send()], None, told({"msg": [{"@msisdn": "+447771112222", "@response": "OK"}]}), DONE),
        id="a number with its plus",
    ),
    pytest.param(
        Case([send()], None, told({"msg": [{"@msisdn": 447771112222, "@response": "OK"}]}), DONE),
        id="a number without its quotes",
    ),
    pytest.param(
        Case([send()], None, told({"msg": [{"@msisdn": "447771112222"}]}), [UNSURE]), id="a number without a response"
    ),
    pytest.param(
        Case([send()], None, told({"msg": [row(answer=" OK\n")]}), DONE), id="an OK with blanks around it is one"
    ),
    # -- a list, an object, a string: any of them anywhere
    pytest.param(Case([send()], None, told({"msg": row()}), DONE), id="send: an object for the list of one"),
    pytest.param(
        Case([verify()], None, told({"msg": [row(code="012837")]}), [Accepted(code="012837")]),
        id="verify: a list of one for the object",
    ),
    pytest.param(
        Case([send()], None, told({"error": ["SITE_UNAVAILABLE"]}), [failed("not_sent", "SITE_UNAVAILABLE")]),
        id="an error in a list, as the text writes it",
    ),
    pytest.param(Case([lookup()], None, told({"hlr": [HLR]}), [Found(result=HLR)]), id="lookup: a list of one"),
    pytest.param(
        Case([send()], None, told({"error": " SITE_UNAVAILABLE\n"}), [failed("not_sent", "SITE_UNAVAILABLE")]),
        id="an error with blanks around it",
    ),
    *(
        pytest.param(Case([send()], None, told(content), [UNSURE]), id=f"send: {label} says nothing")
        for label, content in (
            ("an empty object", {}), ("an empty list", []), ("null", None), ("a string", "OK"), ("a number", 1),
            ("msg null", {"msg": None}), ("msg text", {"msg": "OK"}), ("msg empty", {"msg": []}),
            ("a row of text", {"msg": ["OK"]}), ("the balance", {"@balance": "1"}),
        )
    ),
    pytest.param(
        Case([send()], None, told({"error": "", "msg": [row()]}), DONE), id="an empty error beside an answer is none"
    ),
    pytest.param(
        Case([send()], None, told({"error": [], "msg": [row()]}), DONE), id="an empty list of errors is none either"
    ),
    pytest.param(
        Case([send()], None, told({"error": None, "msg": [row()]}), DONE), id="an error of null is none either"
    ),
    pytest.param(
        Case(TWO, None, told({"error": "INSUFFICIENT_CREDITS", "msg": [row()]}),
             [Accepted(), failed("insufficient_funds", "INSUFFICIENT_CREDITS")]),
        id="an error beside an answer is not of those that were charged",
    ),
    pytest.param(
        Case(TWO, None, told({"error": "SITE_UNAVAILABLE", "msg": [row(), row(BOB, "SEND_FAILURE")]}),
             [Accepted(), failed("not_sent", "SITE_UNAVAILABLE")], status=500),
        id="nor is one with a status of HTTP's own",
    ),
    pytest.param(
        Case([verify()], None, told({"error": "SITE_UNAVAILABLE", "msg": row(code="012837")}),
             [Accepted(code="012837")]),
        id="verify: an error beside a code that was charged",
    ),
    pytest.param(
        Case([send()], None, told("INSUFFICIENT_CREDITS"), [failed("insufficient_funds", "INSUFFICIENT_CREDITS")]),
        id="an error as a plain string, as APPEND_LIST answers",
    ),
    *(
        pytest.param(
            Case([send()], None, told({"error": "Something broke"}),
                 [Failure(kind=FailureKind(kind), code=str(status), message=message)], status=status),
            id=f"an error that no document names, with {status}",
        )
        for status, kind, message in (
            (500, "ambiguous", "the answer is not in the provider's words"),
            (503, "ambiguous", "the answer is not in the provider's words"),
            (401, "unauthorized", "the provider's door is closed to us"),
            (403, "unauthorized", "the provider's door is closed to us"),
            (429, "throttled", "too many requests"),
        )
    ),
    pytest.param(
        Case([send()], None, told({"error": "SITE_UNAVAILABLE"}),
             [Failure(kind=FailureKind.THROTTLED, code="429", message="too many requests", retry_after=7.0)],
             status=429, headers={"retry-after": "7"}),
        id="too many requests, in the vendor's words",
    ),
    # -- errors that no document names
    *(
        pytest.param(Case([send()], None, told({"error": text}), [failed(kind, text)]), id=f"unknown error: {text}")
        for text, kind in (
            ("INVALID_LOGIN", "unauthorized"), ("Authentication failed", "unauthorized"),
            ("Wrong password", "unauthorized"), ("UID_NOT_FOUND", "unauthorized"), ("SOMETHING_ELSE", "invalid"),
            ("Object reference not set to an instance of an object.", "invalid"),
        )
    ),
    pytest.param(
        Case([send()], None, told({"msg": [row(answer="SOMETHING_ELSE")]}), [failed("invalid", "SOMETHING_ELSE")]),
        id="unknown response to a number",
    ),
    # -- codes
    *(
        pytest.param(Case([verify()], None, told({"msg": answer}), [outcome]), id=f"verify: {label}")
        for label, answer, outcome in (
            ("a code that begins with noughts", row(code="000001"), Accepted(code="000001")),
            ("a code that is a number has lost its noughts", row() | {"@code": 12837}, lost("code")),
            ("no code", row(), lost("code")),
            ("an empty code", row(code=""), lost("code")),
            ("a failure with a code", row(answer="SEND_FAILURE", code="1"), failed("not_sent", "SEND_FAILURE")),
        )
    ),
    # -- the register
    *(
        pytest.param(Case([lookup()], None, told({"hlr": HLR | change}), [outcome]), id=f"lookup: {label}")
        for label, change, outcome in (
            ("ported: all values are text", {"ported": "true"}, Found(result=HLR | {"ported": True})),
            ("roaming: all values are text", {"roaming": "true"}, Found(result=HLR | {"roaming": True})),
            ("not ported: false is text too", {"ported": "false"}, Found(result=HLR)),
            ("ported, without quotes", {"ported": True}, Found(result=HLR | {"ported": True})),
            (
                "a permanent error", {"error_code": "UNKNOWN_SUBSCRIBER", "is_perm_err": "1"},
                Failure(
                    kind=FailureKind.INVALID, code="UNKNOWN_SUBSCRIBER",
                    message="the register answered UNKNOWN_SUBSCRIBER",
                ),
            ),
            (
                "a permanent error, without quotes", {"error_code": "UNKNOWN_SUBSCRIBER", "is_perm_err": 1},
                Failure(
                    kind=FailureKind.INVALID, code="UNKNOWN_SUBSCRIBER",
                    message="the register answered UNKNOWN_SUBSCRIBER",
                ),
            ),
            (
                "out of reach is an answer", {"error_code": "ABSENT_SUBSCRIBER"},
                Found(result=HLR | {"error_code": "ABSENT_SUBSCRIBER"}),
            ),
            (
                "an error of the moment may have been paid", {"error_code": "SYSTEM_FAILURE"},
                Failure(
                    kind=FailureKind.AMBIGUOUS, code="SYSTEM_FAILURE",
                    message="the register answered SYSTEM_FAILURE",
                ),
            ),
            ("a flag that is none stays as it is", {"ported": "perhaps"}, Found(result=HLR | {"ported": "perhaps"})),
        )
    ),
    pytest.param(Case([lookup()], None, told({}), [lost("hlr")]), id="lookup: nothing"),
    pytest.param(Case([lookup()], None, told({"hlr": {"number": "1"}}), [lost("hlr")]), id="lookup: without a verdict"),
    # -- money
    *(
        pytest.param(Case([BALANCE], None, told(content), [outcome]), id=f"balance: {label}")
        for label, content, outcome in (
            ("no credit line told", {"@balance": "21.461"}, money("21.461", "21.461")),
            ("nothing left", {"@balance": "0", "@available": "0"}, money("0", "0")),
            ("in debt", {"@balance": "-3.50", "@available": "6.50"}, money("-3.50", "6.50")),
            ("without quotes", {"@balance": 21.5, "@available": 30}, money("21.5", "30")),
            ("no number", {"@balance": "much"}, lost("balance")),
            ("not a number, by its name", {"@balance": "NaN"}, lost("balance")),
            ("without end", {"@balance": "Infinity"}, lost("balance")),
            ("none", {"@available": "1"}, lost("balance")),
        )
    ),
    # -- lists and stops
    pytest.param(
        Case(
            ALL_JOBS["list.append"], asked("APPEND_LIST", list="spring", phone="447771112222"), told("LIST_LOCKED"),
            [failed("invalid", "LIST_LOCKED")],
        ),
        id="list.append: another word",
    ),
    pytest.param(
        Case(ALL_JOBS["list.append"], None, told({}), [lost("NUMBER_ADDED")]), id="list.append: another shape"
    ),
    *(
        pytest.param(
            Case(ALL_JOBS["optout.add"], None, told(content), [STOPPED]), id=f"optout.add: {label}"
        )
        for label, content in (
            ("no word is shown, so any is good", "NUMBERS_STOPPED"), ("rows", {"msg": [row()]}),
            ("a row", {"msg": row()}),
        )
    ),
    pytest.param(
        Case(
            ALL_JOBS["optout.add"], None, told({"msg": [row(answer="INVALID_MSISDN")]}),
            [failed("invalid", "INVALID_MSISDN")],
        ),
        id="optout.add: a number that was not stopped",
    ),
    *(
        pytest.param(
            Case(ALL_JOBS["optout.add"], None, told(token), [failed(kind, token)]), id=f"optout.add: the word {token}"
        )
        for token, kind in (("TOO_MANY_MSISDNS", "internal"), ("NOT_PERMITTED", "unauthorized"))
    ),
    # -- what HTTP says beside it
    pytest.param(
        Case([send()], None, told({"msg": [row()]}), DONE, status=201), id="its own words count, not the status"
    ),
    pytest.param(
        Case([send()], None, told({"error": "SITE_UNAVAILABLE"}), [failed("not_sent", "SITE_UNAVAILABLE")], status=500),
        id="its own words count with a 500 too",
    ),
    pytest.param(
        Case([send()], None, told({"error": "INVALID_LOGIN"}), [failed("unauthorized", "INVALID_LOGIN")], status=401),
        id="its own words count with a 401 too",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_asked_and_answered_means(case: Case) -> None:
    run(SUBJECT, case, read)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(200, "ambiguous", id="200: a page of something on the way"),
        pytest.param(401, "unauthorized", id="401"),
        pytest.param(404, "not_sent", id="404: nobody is there"),
        pytest.param(429, "throttled", id="429"),
        pytest.param(500, "ambiguous", id="500"),
        pytest.param(503, "ambiguous", id="503: a penalty for all, and perhaps after it was taken"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"output'], ids=["empty", "a page", "half an answer"])
def test_of_a_send_without_its_own_words_the_status_tells(status: int, kind: str, body: bytes) -> None:
    (outcome,) = _parsed(send(), Response(status=status, body=body))
    assert isinstance(outcome, Failure)
    assert outcome.kind == kind
    assert outcome.code == (str(status) if status != 200 else "garbage")


def test_a_503_of_a_read_is_a_penalty_and_no_doubt() -> None:
    """Nothing is lost by asking again, when we are let."""
    (outcome,) = _parsed(BALANCE, Response(status=503, headers={"retry-after": "7"}))
    assert isinstance(outcome, Failure)
    assert (outcome.kind, outcome.retry_after) == (FailureKind.THROTTLED, 7.0)


def test_a_503_of_a_lookup_is_in_doubt() -> None:
    """It may have been paid: asked again whenever it is met, it would be paid as often."""
    (outcome,) = _parsed(lookup(), Response(status=503, headers={"retry-after": "7"}))
    assert isinstance(outcome, Failure)
    assert outcome.kind == FailureKind.AMBIGUOUS


def _parsed(job: Work, answer: Response) -> list[Any]:
    (group,) = SUBJECT.made().build([job]).groups
    return [*SUBJECT.made().parse(answer, group).values()]


# -- requests that are not made ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        pytest.param(send(options={"time": "tomorrow"}), "time", "must look like 2026-11-30 09:00:00", id="no time"),
        pytest.param(send(options={"time": "2026-13-30 09:00:00"}), "time", "must look like", id="a thirteenth month"),
        pytest.param(send(options={"time": 17}), "time", "must look like", id="a number for a time"),
        pytest.param(
            send(options={"delay": "30"}), "delay", "delay is not an argument here; known: time", id="no delay"
        ),
        pytest.param(
            verify(options={"delay": "-1"}), "delay", "must be a whole number of seconds", id="minus a second"
        ),
        pytest.param(verify(options={"delay": 1.5}), "delay", "must be a whole number", id="a second and a half"),
        pytest.param(verify(options={"delay": ""}), "delay", "must be a whole number", id="an empty delay"),
        pytest.param(verify(options={"time": "x"}), "time", "known: delay", id="a time for a code"),
        pytest.param(operation("optout.add"), "number", "whom to leave alone", id="an opt-out of nobody"),
        pytest.param(operation("optout.add", number="nobody"), "number", "international form", id="of no number"),
        pytest.param(
            operation("optout.add", numbers=f"{ANN},nobody"), "numbers", "international", id="of one no number"
        ),
        pytest.param(operation("optout.add", numbers=[]), "numbers", "must be 1 to 100 numbers", id="of none"),
        pytest.param(operation("optout.add", numbers=""), "numbers", "is empty", id="of nobody"),
        pytest.param(operation("optout.add", numbers=5), "numbers", "", id="of a number without its quotes"),
        pytest.param(operation("optout.add", numbers=[ANN] * 101), "numbers", "must be 1 to 100 numbers", id="of 101"),
        pytest.param(operation("optout.add", number=BOB, numbers=[ANN] * 100), "number", "100", id="of 100 and one"),
        pytest.param(operation("list.append", list=" ", number=ANN), "list", "text that is not empty", id="no list"),
        pytest.param(operation("list.append", list=3, number=ANN), "list", "text that is not empty", id="a list of 3"),
        pytest.param(operation("list.append", list="x"), "number", "number is missing", id="nobody for a list"),
        pytest.param(operation("balance", currency="GBP"), "currency", "known: none", id="a balance with arguments"),
    ],
)
def test_what_it_could_never_take_is_refused_without_asking_it(job: Work, code: str, words: str) -> None:
    plan = SUBJECT.made().build([job])
    assert plan.groups == ()
    refused = plan.refused["0001"]
    assert (refused.kind, words in refused.message) == (FailureKind.INVALID, True)
    assert refused.code.startswith(code)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("report", "the JSON API has no call for delivery reports"),
        ("inbound", "the JSON API tells of no inbound texts"),
        ("number.buy", "textgoto offers no number.buy"),
        ("verify.check", "textgoto offers no verify.check"),
    ],
)
def test_what_it_does_not_offer_is_unsupported_with_the_reason(name: str, words: str) -> None:
    refused = SUBJECT.made().build([operation(name)]).refused["0001"]
    assert (refused.kind, refused.code, refused.message) == (FailureKind.UNSUPPORTED, name, words)


def test_a_bad_job_does_not_keep_its_neighbours_from_travelling() -> None:
    plan = SUBJECT.made().build([send(), send(BOB, id_="0002", options={"time": "soon"}), send(BOB, id_="0003")])
    assert [[job.id for job in group.jobs] for group in plan.groups] == [["0001", "0003"]]
    assert set(plan.refused) == {"0002"}


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "groups"),
    [
        pytest.param([send(), send(BOB, id_="0002")], [["0001", "0002"]], id="the same text"),
        pytest.param([send(), send(BOB, "Hi", id_="0002")], [["0001"], ["0002"]], id="another text"),
        pytest.param([send(), send(BOB, id_="0002", sender="ACME")], [["0001"], ["0002"]], id="another sender"),
        pytest.param(
            [send(), send(BOB, id_="0002", options={"time": "2026-11-30 09:00:00"})], [["0001"], ["0002"]],
            id="another time",
        ),
        pytest.param([send(), send(id_="0002")], [["0001"], ["0002"]], id="the same number twice"),
        pytest.param(
            [send(), send(id_="0002"), send(BOB, id_="0003")], [["0001", "0003"], ["0002"]], id="joins the first"
        ),
        pytest.param([send(), verify(BOB)], [["0001"], ["0001"]], id="a code travels alone"),
        pytest.param([lookup(), lookup(ANN)], [["0001"], ["0001"]], id="a lookup travels alone"),
    ],
)  # fmt: skip
def test_what_is_alike_travels_together(jobs: list[Work], groups: list[list[str]]) -> None:
    built = SUBJECT.made().build(jobs).groups
    assert [[job.id for job in group.jobs] for group in built] == groups


@pytest.mark.parametrize(
    ("size", "groups"),
    [({}, [20, 20, 5]), ({"group_size": "10"}, [10, 10, 10, 10, 5]), ({"group_size": "100"}, [45])],
    ids=["twenty by default: a lost answer leaves no more in doubt", "ten", "all"],
)
def test_a_group_is_no_larger_than_may_be_in_doubt_at_once(size: dict[str, str], groups: list[int]) -> None:
    jobs = [send(f"+4477009010{ending}", id_=f"{ending}") for ending in range(10, 55)]
    built = SUBJECT.made(**size).build(jobs).groups
    assert [len(group.jobs) for group in built] == groups
    assert [group.cost for group in built] == [{"post": 1, "send": count} for count in groups]


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_it_speaks_https_unless_told_otherwise() -> None:
    """The document's own address is plain http, and the password travels in every request."""
    assert SUBJECT.made().build([send()]).groups[0].request.url == "https://textgoto.com/api/jsonapi.aspx"
    plain = SUBJECT.made(base_url="http://textgoto.com")
    assert plain.build([send()]).groups[0].request.url == "http://textgoto.com/api/jsonapi.aspx"


def test_every_token_of_the_document_is_in_the_table_above() -> None:
    cases = [entry.values[0] for entry in CASES]
    seen = json.dumps([case.answer for case in cases if not isinstance(case.answer, bytes)])
    assert [token for token in _TOKENS if f'"{token}"' not in seen] == []


def test_the_answers_in_the_table_are_whole() -> None:
    """Each is JSON that could come over the wire."""
    assert all(json.loads(response(entry.values[0]).body) for entry in CASES)


# -- what all adapters keep --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", runner.CHECKS, ids=lambda check: check.__name__.replace("_", " "))
def test_it_keeps_what_all_adapters_keep(check: Callable[[Subject], None]) -> None:
    check(SUBJECT)
