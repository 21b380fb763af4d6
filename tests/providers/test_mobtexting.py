"""MobTexting, against the samples, words and traps of its overview and of the vendor's documentation source."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from dispatcher.errors import ConfigurationError
from dispatcher.jobs import Category, Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found
from dispatcher.states import State
from tests.providers.runner import NUMBERS, Case, Subject, answers, called, every_check, printed, response, run, sample
from workers.providers.base import Callback, Group, Inbound, News, OptOut, Receipt, Request, Response
from workers.providers.mobtexting import _STATUSES, MobTexting
from workers.sandbox.base import Request as Asked
from workers.sandbox.base import Texted
from workers.sandbox.mobtexting import MobTexting as Player
from workers.sandbox.world import Row, World

ANN, BOB = NUMBERS[0], NUMBERS[1]
#: Ids as the pages print them: one for a request, and an index.
ID, OTHER_ID = "b34e35ad-fe34-4a8b-977c-b21cd76cd7d6:1", "b34e35ad-fe34-4a8b-977c-b21cd76cd7d6:2"
VERIFICATION = "bdd56db3-ecd3-4d20-8ab5-988bdc76795a"

SUBJECT = Subject(
    adapter=MobTexting,
    settings={"access_token": "canary-token", "sender": "ACME", "webhook_secret": "canary-secret"},
    requests={
        "send": Send(to=ANN, text="Hello", sender="ACME"),
        "verify": Verify(to=ANN, template="Your code is [CODE]"),
        "verify.check": OperationRequest(arguments={"verification": "0001", "ref": VERIFICATION, "code": "012837"}),
        "lookup": Lookup(to=ANN),
        "balance": OperationRequest(),
        "optout.add": OperationRequest(arguments={"number": ANN}),
        "report": OperationRequest(arguments={"id": ID}),
    },
    vocabulary=[
        "status", "message", "data", "code", "errors", "id", "mobile", "customid", "custom", "cid", "charges", "units",
        "service", "credits", "postpaid", "phone", "ported", "roaming", "channels", "channel", "meta", "last_page",
        "event", "payload", "receiver", "type", "value", "recipient", "from", "to", "text", "challenge",
        "validation_key", "200", "OK", "ERROR", "401", "422", "sent", "success", "invalid", "expired", "failed",
        "OTP already verified", "SUCCESS", "DELIVRD", "AWAITING-DLR", "vmn:message:in", "sms:unsubscription", "0001",
        "T", ID, VERIFICATION, *_STATUSES,
    ],
    envelope=lambda content: {"status": "OK", "code": 200, "message": "OK", "data": content},
    samples=lambda: [*printed("mobtexting"), *answers(CASES)],
    calls=lambda: called("mobtexting"),
    wrong_password=Response(status=200, body=b'{"status":"401","message":"Unauthenticated"}'),
)  # fmt: skip


@every_check
def test_it_keeps_what_all_adapters_keep(check: Callable[[Subject], None]) -> None:
    check(SUBJECT)


# -- words -------------------------------------------------------------------------------------------------------------


def send(to: str = ANN, text: str = "Your parcel is here", id_: str = "0001", **fields: Any) -> Work:
    told = {"category", "doubtful", "state", "age", "ref"} & set(fields)
    work = {name: fields.pop(name) for name in told}
    return SUBJECT.work("send", Send(to=to, text=text, **fields), id_, **work)


def verify(to: str = ANN, *, code_ttl: int | None = None, **fields: Any) -> Work:
    asked = Verify(**{"to": to, "template": "Your code is [CODE]"} | fields)
    return SUBJECT.work("verify", asked, code_ttl=code_ttl)


def check(code: str = "012837", *, doubtful: bool = False, ref: str = VERIFICATION) -> Work:
    return SUBJECT.work(
        "verify.check",
        OperationRequest(arguments={"verification": "vvvv", "ref": ref, "code": code}),
        doubtful=doubtful,
    )


def lookup(to: str = ANN) -> Work:
    return SUBJECT.work("lookup", Lookup(to=to))


def operation(name: str, **arguments: Any) -> Work:
    return SUBJECT.work(name, OperationRequest(arguments=arguments))


def digits(number: str) -> str:
    return number.removeprefix("+")


def read(request: Request) -> Any:
    """What is compared of a request: verb, path, and the fields of its query or body."""
    url = urlsplit(request.url)
    assert request.url.startswith("https://portal.mobtexting.com/api/v2/")
    headers = dict(request.headers)
    assert headers.pop("Authorization") == "Bearer canary-token"
    assert headers.pop("Accept") == "application/json"
    kind = headers.pop("Content-Type", "")
    assert headers == {}
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    if request.method == "GET":
        assert (request.body, kind) == (b"", "")
        return "GET", url.path.removeprefix("/api/v2/"), query
    assert query == {}
    form = kind == "application/x-www-form-urlencoded"
    told = dict(parse_qsl(request.body.decode())) if form else json.loads(request.body)
    return "POST", url.path.removeprefix("/api/v2/"), told


def built(*jobs: Work, **settings: str) -> Any:
    (group,) = SUBJECT.made(**settings).build(jobs).groups
    return read(group.request)


def failed(kind: str, code: str, message: str, **more: Any) -> Failure:
    return Failure(kind=FailureKind(kind), code=code, message=message, **more)


def lost(what: str) -> Failure:
    return failed("ambiguous", "incomplete", f"the answer holds no {what}")


def reports(kind: str, word: str) -> Failure:
    return failed(kind, word, f"MobTexting reports {word}")


def row(to: str = ANN, status: str = "AWAITING-DLR", **more: Any) -> dict[str, Any]:
    told = {"id": ID, "mobile": digits(to), "status": status, "charges": 1, "customid": "0001"}
    return told | more


def told(*rows: Any, **more: Any) -> dict[str, Any]:
    return {"status": 200, "message": "OK", "data": [*rows]} | more


def error(code: int, message: str, **more: Any) -> dict[str, Any]:
    return {"status": "ERROR", "code": code, "message": message} | more


def checked(status: str, *, valid: bool = False, doubtful: bool = False) -> Checked:
    return Checked(verification="vvvv", valid=valid, status=status, doubtful=doubtful)


def message(to: str = ANN, **more: Any) -> dict[str, Any]:
    """A single message as it is sent."""
    plain = {"to": digits(to), "message": "Your parcel is here", "sender": "ACME", "service": "T", "type": "A"}
    return plain | {"custom": "0001"} | more


TWO = [send(ANN), send(BOB, id_="0002")]
BALANCE = operation("balance")
DONE = Accepted(ref=ID, price="1 credits")
UNSURE = lost("word on this number")
GARBAGE = failed("ambiguous", "garbage", "the answer is not in the provider's words")
LOGIN = failed("unauthorized", "login", "the token was not taken: the portal's login page came in place of an answer")
PAGE = b'<form action="https://portal.mobtexting.com/login" method="post">'

HLR = {
    "phone": ANN, "mcc_mnc": "40473", "imsi": "404738104000000", "serving_msc": "919000", "status": "SUCCESS",
    "original_network": {
        "network_prefix": "94928", "country_prefix": "91", "network_name": "BSNL", "country_name": "India",
        "state_name": "Andhra Pradesh",
    },
    "ported": False, "ported_network": dict.fromkeys(
        f"ported_{one}" for one in ("network_prefix", "country_prefix", "network_name", "country_name", "state_name")
    ),
    "roaming": False, "roaming_network": dict.fromkeys(
        f"roaming_{one}" for one in ("network_prefix", "country_prefix", "network_name", "country_name", "state_name")
    ),
}  # fmt: skip
SERVICES = [
    {"service": "MKT", "name": "Promotional SMS", "postpaid": False, "credits": "69", "charges": "1"},
    {"service": "A2P", "name": "Transactional SMS", "postpaid": False, "credits": "109", "charges": "1"},
]


# -- the pages' own samples, as files on disk --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "filled", "jobs"),
    [
        pytest.param("sms_send", "sms/send", {"TO": digits(ANN), "JOB": "0001"}, [send()], id="sms/send"),
        pytest.param(
            "sms_send_json",
            "sms/send/json",
            {"TO": digits(ANN), "TO2": digits(BOB), "JOB": "0001", "JOB2": "0002"},
            [
                send(to, text, id_, sender=sender, options={
                    "flash": 0, "webhook_id": "1234a-3444-34444-XXxx", "time": "2026-11-30 09:00:00",
                    "entity_id": "222343", "template_id": "2290003",
                })
                for to, text, id_, sender in (
                    (ANN, "global message", "0001", "ACME"),
                    (BOB, "Message from & json api node 2", "0002", "TXTSMS"),
                )
            ],
            id="sms/send/json",
        ),
        pytest.param(
            "verify_send", "verify/send", {"TO": digits(ANN), "JOB": "0001"},
            [verify(template="[CODE] is your code", code_ttl=60, options={"length": 5, "ip_address": "192.0.2.1"})],
            id="verify/send",
        ),
    ],
)  # fmt: skip
def test_a_request_is_as_the_pages_print_it(name: str, path: str, filled: dict[str, str], jobs: list[Work]) -> None:
    printed = json.loads(sample("mobtexting", f"{name}.request", **filled))
    assert built(*jobs) == ("POST", path, printed)


SAMPLES = [
    pytest.param("sms_send", {"TO": digits(ANN)}, [send()], [DONE], id="sms/send: no reference, so by number"),
    pytest.param(
        "sms_send_json", {"TO": digits(ANN), "TO2": digits(BOB), "JOB": "0001", "JOB2": "0002"}, TWO, [DONE, DONE],
        id="sms/send/json: both with index 1, as printed",
    ),
    pytest.param("verify_send", {}, [verify()], [Accepted(ref=VERIFICATION)], id="verify/send: no envelope, no code"),
    pytest.param("verify_check", {"STATUS": "success"}, [check()], [checked("approved", valid=True)], id="check: good"),
    pytest.param("lookup", {"TO": digits(ANN)}, [lookup()], [Found(result=HLR)], id="lookup/verify"),
    pytest.param(
        "balance", {}, [BALANCE],
        [Found(result={"balance": None, "available": None, "currency": None, "services": SERVICES})],
        id="balance: another host's services",
    ),
    pytest.param(
        "unsubscribers", {"TO": digits(ANN)}, [operation("optout.add", number=ANN, type="tag", value="promo")],
        [Found(
            result={
                "id": "848c22a0-6969-455a-b5dc-4b119016b55b", "iso": "IN", "receiver": ANN, "type": "tag",
                "value": "promo", "created_at": "2023-04-11T12:50:17.000000Z", "stopped": True,
            },
            ref="848c22a0-6969-455a-b5dc-4b119016b55b",
        )],
        id="suppressions: a zone here, none elsewhere",
    ),
    pytest.param(
        "sms_status", {"TO": digits(ANN), "STATUS": "DELIVRD", "JOB": "0001"}, [operation("report", cid="0001")],
        [Found(result={"messages": [{
            "id": "469ea920-ccd1-4a39-b728-c0b6f15f6aa6:1", "mobile": ANN, "status": "DELIVRD", "units": 1,
            "service": "T", "length": 7, "charges": "1", "custom": "0001", "custom1": "", "location": "",
            "provider": "", "submitted_at": "2018-07-06 09:57:42", "delivered_at": "", "sender": "SENDER",
        }], "last_page": 3})],
        id="sms/status: dates as written",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "filled", "jobs", "outcomes"), SAMPLES)
def test_an_answer_is_read_as_the_pages_print_it(
    name: str, filled: dict[str, str], jobs: list[Work], outcomes: list[Any]
) -> None:
    run(SUBJECT, Case(jobs, None, sample("mobtexting", f"{name}.answer", **filled), outcomes), read)


# -- one table: what is asked for, the request, the answer, what it means ----------------------------------------------

VERIFYING = {
    "channels": [{"name": "sms", "from": "ACME", "recipient": {"to": digits(ANN)}, "order": 0}],
    "payload": {"length": 6}, "template": "Your code is {token}", "foreign_id": "0001",
}  # fmt: skip
SENT = {"id": VERIFICATION, "status": "sent", "foreign_id": None}

CASES: list[Any] = [
    # -- requests
    pytest.param(
        Case([send()], ("POST", "sms/send", message()), told(row()), [DONE]),
        id="traps 4, 7, 13, 14, 16: POST, no plus, type A, https, Bearer",
    ),
    pytest.param(
        Case(
            [send(text="Zażółć 🙂 {token} [CODE]", sender="TXTSMS")],
            ("POST", "sms/send", message(message="Zażółć 🙂 {token} [CODE]", sender="TXTSMS")), told(row()), [DONE],
        ),
        id="send: any text and any sender arrive as they are",
    ),
    pytest.param(
        Case(
            [send(options={
                "service": "MKT", "time": "2026-1-30 9:00:00", "type": "U", "flash": True, "webhook_id": "w",
                "entity_id": 222343, "template_id": "t", "max_units": "2", "port": 0, "tags": "spring, sale",
            })],
            ("POST", "sms/send", message(
                service="MKT", time="2026-01-30 09:00:00", type="U", flash=1, webhook_id="w", entity_id="222343",
                template_id="t", max_units=2, port=0, meta={"tags": ["spring", "sale"]},
            )),
            told(row()), [DONE],
        ),
        id="traps 3, 12: every option in the vendor's form, the service over the account's",
    ),
    pytest.param(
        Case(
            TWO,
            ("POST", "sms/send/json", {
                "root": {"message": "Your parcel is here", "sender": "ACME", "service": "T", "type": "A"},
                "nodes": [{"to": digits(ANN), "custom": "0001"}, {"to": digits(BOB), "custom": "0002"}],
            }),
            told(row(), row(BOB, customid="0002", id=OTHER_ID)), [DONE, Accepted(ref=OTHER_ID, price="1 credits")],
        ),
        id="trap 8: one text to two, each with a reference of its own",
    ),
    pytest.param(
        Case([verify()], ("POST", "verify/send", VERIFYING), SENT, [Accepted(ref=VERIFICATION)]),
        id="traps 1, 8: verify has neither envelope nor custom",
    ),
    pytest.param(
        Case([check()], ("GET", f"verify/check/{VERIFICATION}/012837", {}), {"id": "x", "status": "invalid"},
             [checked("pending")]),
        id="check: a wrong code may be followed by another",
    ),
    pytest.param(
        Case([check("1 2/é", ref="a:1")], ("GET", "verify/check/a%3A1/1%202%2F%C3%A9", {}),
             {"status": "invalid"}, [checked("pending")]),
        id="check: whatever a person types is one piece of the path",
    ),
    pytest.param(
        Case([lookup()], ("POST", "lookup/verify", {"to": digits(ANN)}), told(HLR | {"phone": digits(ANN)}),
             [Found(result=HLR)]),
        id="lookup: a form",
    ),
    pytest.param(
        Case(
            [BALANCE], ("GET", "account/balance", {}),
            told({"service": "T", "credits": 5}, {"service": "P", "credits": "2.5000"}, {"service": "G", "credits": 9}),
            [Found(result={
                "balance": "5", "available": "5", "currency": None, "services": [
                    {"service": "T", "credits": "5"}, {"service": "P", "credits": "2.5000"},
                    {"service": "G", "credits": "9"},
                ],
            })],
        ),
        id="traps 2, 11: by service, of which ours count and the fullest tells; credits are numbers or text",
    ),
    pytest.param(
        Case(
            [operation("optout.add", number=ANN)],
            ("POST", "sms/suppressions/unsubscribers", {"receiver": digits(ANN), "type": "all", "value": "*"}),
            {"status": "OK"}, [Found(result={"stopped": True})],
        ),
        id="optout.add: of everything",
    ),
    pytest.param(
        Case(
            [operation("optout.add", number=ANN, type="sender", value="ACME")],
            ("POST", "sms/suppressions/unsubscribers", {"receiver": digits(ANN), "type": "sender", "value": "ACME"}),
            {"status": "OK"}, [Found(result={"stopped": True})],
        ),
        id="optout.add: of a sender",
    ),
    pytest.param(
        Case([operation("report", number=ANN, date="2026-1-30", page=2)],
             ("GET", "sms/status", {"mobile": digits(ANN), "date": "2026-01-30", "page": "2"}), told(),
             [Found(result={"messages": [], "last_page": 1})]),
        id="report: by number and day; none is no failure",
    ),
    # -- what is success
    *(
        pytest.param(Case([send()], None, told(row(), **envelope), [outcome], status=status), id=f"trap 1: {label}")
        for label, status, envelope, outcome in (
            ("status 200", 200, {}, DONE),
            ('status "200"', 200, {"status": "200"}, DONE),
            ("status OK and a code", 200, {"status": "OK", "code": 200}, DONE),
            ("HTTP 201", 201, {}, DONE),
            ("ERROR and no code", 200, {"status": "ERROR", "message": "No"}, failed("invalid", "422", "No")),
            ("another word is failed", 200, {"status": "FAILED", "message": "No"}, failed("invalid", "422", "No")),
            ("ERROR with its code, HTTP 200", 200, error(401, "No"), failed("unauthorized", "401", "No")),
            ('"422" in the status, HTTP 200', 200, {"status": "422", "message": "No"}, failed("invalid", "422", "No")),
            ("202 is accepted and yet no OK", 202, {"status": 202},
             failed("ambiguous", "202", "the answer is not in the provider's words")),
            ("no status", 200, {"status": None}, GARBAGE),
            ("true", 200, {"status": True}, GARBAGE),
            ("HTTP 422 with an OK", 422, {"status": "OK"}, failed("invalid", "422", "OK")),
        )
    ),
    # -- errors by their code
    *(
        pytest.param(Case([job], None, error(status, "Words"), [outcome], status=status),
                     id=f"{job.operation}: {status}")
        for status, job, outcome in (
            (400, send(), failed("invalid", "400", "Words")),
            (401, send(), failed("unauthorized", "401", "Words")),
            (402, send(), failed("insufficient_funds", "402", "Words")),
            (403, send(), failed("unauthorized", "403", "Words", permission=True)),
            (404, send(), failed("invalid", "404", "Words")),
            (408, send(), failed("ambiguous", "408", "Words")),
            (409, send(), failed("ambiguous", "409", "Words")),
            (409, verify(), failed("ambiguous", "409", "Words")),
            (409, operation("optout.add", number=ANN), failed("not_sent", "409", "Words")),
            (422, verify(), failed("invalid", "422", "Words")),
            (429, send(), failed("throttled", "429", "Words")),
            (500, send(), failed("ambiguous", "500", "Words")),
            (500, verify(), failed("ambiguous", "500", "Words")),
            (503, send(), failed("ambiguous", "503", "Words")),
            (503, BALANCE, failed("throttled", "503", "Words")),
            (401, check(), failed("unauthorized", "401", "Words")),
        )
    ),
    pytest.param(
        Case(TWO, None, error(401, "Unauthenticated."), [failed("unauthorized", "401", "Unauthenticated.")] * 2,
             status=401),
        id="an error is every job's of the request",
    ),
    pytest.param(
        Case([send()], None, error(429, "Too Many Requests"),
             [failed("throttled", "429", "Too Many Requests", retry_after=7.0)], status=429,
             headers={"retry-after": "7"}),
        id="429: for as long as it says",
    ),
    pytest.param(
        Case([BALANCE], None, {"status": "401", "message": "Unauthenticated"},
             [failed("unauthorized", "401", "Unauthenticated")], status=401),
        id="trap 1: a status that is text and no code",
    ),
    pytest.param(
        Case([send()], None, {"message": ["No"]}, [failed("invalid", "400", "MobTexting answered 400")], status=400),
        id="an error whose message is no text",
    ),
    # -- errors by their words
    *(
        pytest.param(Case([send()], None, error(422, words, **more), [failed(kind, "422", words)], status=422),
                     id=f"422: {label}")
        for label, words, more, kind in (
            ("no balance", "You do not have enough balance", {}, "insufficient_funds"),
            ("no credits", "Insufficient credits to send message", {}, "insufficient_funds"),
            ("credit exhausted", "Credit exhausted.", {}, "insufficient_funds"),
            ("not a word within another", "The message is unbalanced", {}, "invalid"),
            ("a field at fault wins over the word", "The CREDIT sender is invalid", {"errors": {"sender": ["x"]}},
             "rejected"),
            ("a field at fault", "The given data was invalid.", {"errors": {"template_id": ["x"]}}, "rejected"),
            ("another field", "The given data was invalid.", {"errors": {"to": ["x"]}}, "invalid"),
            ("sender", "Sender is not approved", {}, "rejected"),
            ("service", "The selected service is invalid.", {}, "rejected"),
            ("template", "No matching templates", {}, "rejected"),
            ("opted out", "The number has opted out", {}, "opted_out"),
            ("unsubscribed", "Receiver is unsubscribed", {}, "opted_out"),
            ("anything else", "The to field is required.", {}, "invalid"),
        )
    ),
    # -- no JSON
    *(
        pytest.param(
            Case([job], None, body, [outcome], status=status, headers=headers), id=f"{job.operation}, no JSON: {label}"
        )
        for label, job, status, headers, body, outcome in (
            ("a redirect to the login", send(), 302, {"location": "https://portal.mobtexting.com/login"}, b"", LOGIN),
            ("the same without its host", send(), 302, {"location": "/login?back=1"}, b"", LOGIN),
            ("the redirect's page", BALANCE, 302, {}, b"Redirecting to https://portal.mobtexting.com/login.", LOGIN),
            ("the login page", send(), 200, {}, PAGE, LOGIN),
            ("another page after a text may have been sent", send(), 200, {}, b"<html>Please log in</html>", GARBAGE),
            ("an error's page with a link to the login", send(), 502, {}, PAGE,
             failed("ambiguous", "502", "the answer is not in the provider's words")),
            ("a redirect elsewhere", send(), 301, {"location": "https://portal.example/login/help"}, b"",
             failed("not_sent", "301", "the API is not at this address; see BASE_URL")),
            ("a closed door", send(), 403, {}, b"<html>",
             failed("unauthorized", "403", "the provider's door is closed to us")),
            ("a list", send(), 200, {}, b"[]", GARBAGE),
        )
    ),
    # -- rows
    pytest.param(Case([send()], None, told(), [UNSURE]), id="send: no row"),
    pytest.param(Case([send()], None, told(row(BOB, customid="0002")), [UNSURE]), id="send: somebody else's row"),
    pytest.param(
        Case(TWO, None, told(row(BOB, customid="0002", id=ID), row()), [DONE, DONE]), id="trap 9: in any order"
    ),
    pytest.param(
        Case(TWO, None, told(row(customid=""), row(BOB, customid=None)), [DONE, DONE]),
        id="trap 9: one id for both and no reference, so by number",
    ),
    pytest.param(
        Case([send()], None, told(row(custom="0001", customid="")), [DONE]), id="trap 8: custom for customid"
    ),
    pytest.param(Case([send()], None, told(row(mobile=int(digits(ANN)), customid="")), [DONE]), id="a bare number"),
    pytest.param(Case([send()], None, told(row(mobile=ANN, customid="")), [DONE]), id="a number with its plus"),
    pytest.param(Case([send()], None, told(data=row()), [DONE]), id="a row without its list"),
    pytest.param(Case([send()], None, told(row(id="")), [lost("id")]), id="a row without an id"),
    pytest.param(
        Case([send()], None, told(row(status="SUBMITTED")), [DONE]), id="a word that nobody explains, with an id"
    ),
    pytest.param(Case([send()], None, told(row(charges=None)), [Accepted(ref=ID)]), id="no price"),
    pytest.param(
        Case([send()], None, told(row(charges="2.0000")), [Accepted(ref=ID, price="2.0000 credits")]),
        id="trap 11: a price as text",
    ),
    pytest.param(
        Case([send()], None, told(row(status="SERVER-ERR"), row()), [DONE]), id="two rows: what was taken outweighs"
    ),
    pytest.param(
        Case([send()], None, told(row(), row(status="SERVER-ERR")), [DONE]), id="two rows, the other way round"
    ),
    pytest.param(
        Case(
            [*TWO, send(NUMBERS[2], id_="0003"), send(NUMBERS[3], id_="0004")], None,
            told(row(NUMBERS[2], "OPTOUT-REJ", customid="0003"), row(NUMBERS[3], "NO-CREDITS", customid="0004"), row()),
            [DONE, UNSURE, reports("opted_out", "OPTOUT-REJ"), reports("insufficient_funds", "NO-CREDITS")],
        ),
        id="partial success: each by its own row, nothing on one",
    ),
    pytest.param(
        Case([send()], None, told(row(status="DUPLICATE")), [reports("rejected", "DUPLICATE")]),
        id="trap 6: the same text again is refused",
    ),
    pytest.param(
        Case([send(doubtful=True)], None, told(row(status="DUPLICATE")), [Accepted()]),
        id="trap 6: after an attempt in doubt it is evidence that that one was taken",
    ),
    *(
        pytest.param(Case([send()], None, told(row(status=word)), [reports(kind, word)]), id=f"send: {word}")
        for word, kind in [*_STATUSES.items(), ("DLT-TM-BLACKLST", "rejected")]
    ),
    pytest.param(Case([send()], None, told(row(status=" barred")), [reports("invalid", "BARRED")]), id="any case"),
    # -- verifications
    *(
        pytest.param(Case([verify()], None, answer, [outcome]), id=f"verify: {label}")
        for label, answer, outcome in (
            ("no id", {"status": "sent"}, lost("verification")),
            ("failed, with an id", {"id": VERIFICATION, "status": "failed"}, lost("verification")),
            ("ERROR", error(422, "No"), failed("invalid", "422", "No")),
            ("no status", {"id": VERIFICATION}, GARBAGE),
        )
    ),
    *(
        pytest.param(Case([job], None, {"id": "x", "status": status}, [outcome]), id=f"check: {label}")
        for label, status, job, outcome in (
            ("right", "success", check(), checked("approved", valid=True)),
            ("any case", "Success", check(), checked("approved", valid=True)),
            ("expired", "expired", check(), checked("expired")),
            ("an id that is not known any more", "failed", check(), checked("cancelled")),
            ("used before", "OTP already verified", check(), checked("approved")),
            ("used by the attempt whose answer was lost", "OTP already verified", check(doubtful=True),
             checked("approved", valid=True, doubtful=True)),
            ("another word", "sent", check(), lost("verdict")),
        )
    ),
    pytest.param(
        Case([check("1/2")], None, error(404, "No"), [checked("pending")], status=404),
        id="check: what makes no place is no code either",
    ),
    pytest.param(
        Case([check()], None, error(404, "No"), [failed("invalid", "404", "No")], status=404),
        id="check: a place that should be there",
    ),
    # -- lookups
    *(
        pytest.param(Case([lookup()], None, told(HLR | {"phone": digits(ANN)} | change), [outcome]),
                     id=f"lookup: {label}")
        for label, change, outcome in (
            ("ported, as text", {"ported": "true"}, Found(result=HLR | {"ported": True})),
            ("not ported, as text", {"ported": "false", "roaming": 0}, Found(result=HLR)),
            ("ids that are numbers", {"imsi": 404738104000000, "mcc_mnc": 40473}, Found(result=HLR)),
            ("gone", {"status": "INVALID-SUB"}, failed("invalid", "INVALID-SUB", "the register answered INVALID-SUB")),
            ("out of reach is an answer", {"status": "ABSENT-SUB"}, Found(result=HLR | {"status": "ABSENT-SUB"})),
            ("an error of the moment may have been paid", {"status": "NET-ERR"},
             failed("ambiguous", "NET-ERR", "the register answered NET-ERR")),
            ("another word", {"status": "ERROR"}, failed("invalid", "ERROR", "the register answered ERROR")),
            ("no status", {"status": None}, lost("status")),
            ("another number", {"phone": digits(BOB)}, UNSURE),
        )
    ),
    # -- money
    *(
        pytest.param(
            Case([BALANCE], None, told(*rows), [
                Found(result={"balance": left, "available": left, "currency": None, "services": [*shown]})
            ]),
            id=f"balance: {label}",
        )
        for label, rows, left, shown in (
            ("the only one there is", [{"service": "MKT", "credits": "2.0000"}], "2.0000",
             [{"service": "MKT", "credits": "2.0000"}]),
            ("paid afterwards", [{"service": "T", "postpaid": 1, "credits": 0}], None,
             [{"service": "T", "postpaid": True, "credits": "0"}]),
            ("no number", [{"service": "T", "credits": "much"}], None, [{"service": "T", "credits": None}]),
            ("not a number, by its name", [{"service": "T", "credits": "NaN"}], None,
             [{"service": "T", "credits": None}]),
            ("in debt", [{"service": "T", "credits": -3}], "-3", [{"service": "T", "credits": "-3"}]),
        )
    ),
    pytest.param(Case([BALANCE], None, told(), [lost("balance")]), id="balance: no rows"),
    pytest.param(
        Case([BALANCE], None, error(404, "Not found"), [failed(
            "invalid", "404",
            "there is no account/balance here; set DISPATCHER_PROVIDERS__SHOP_A__BALANCE_PATH=finance/balance",
        )], status=404),
        id="trap 2: a 404 says what to set",
    ),
    pytest.param(
        Case([BALANCE], None, error(403, "No"), [failed("unauthorized", "403", "No", permission=True)], status=403),
        id="trap 2: only a 404 does",
    ),
    # -- opt-outs
    *(
        pytest.param(
            Case([operation("optout.add", number=ANN)], None, error(status, words), [outcome], status=status),
            id=f"optout.add: {status} {words}",
        )
        for status, words, outcome in (
            (422, "The receiver has already been taken.", Found(result={"stopped": True})),
            (409, "Already unsubscribed", Found(result={"stopped": True})),
            (401, "Already logged out", failed("unauthorized", "401", "Already logged out")),
            (422, "The receiver format is invalid.", failed("invalid", "422", "The receiver format is invalid.")),
        )
    ),
    pytest.param(
        Case([operation("report", id=ID)], None, {"status": "OK"}, [lost("messages")]), id="report: no list"
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_asked_and_answered_means(case: Case) -> None:
    run(SUBJECT, case, read)


def test_the_answers_in_the_table_are_whole() -> None:
    """Each is JSON that could come over the wire, or bytes."""
    answers: list[Any] = [entry.values[0] for entry in CASES]
    assert all(json.loads(response(case).body) is not None for case in answers if not isinstance(case.answer, bytes))


def test_the_path_of_the_balance_is_a_setting() -> None:
    """Trap 2: the overview and a later page disagree; a 404 at the one names the other."""
    assert built(BALANCE, balance_path="/finance/balance") == ("GET", "finance/balance", {})
    adapter = SUBJECT.made(balance_path="finance/balance")
    (group,) = adapter.build([BALANCE]).groups
    (outcome,) = adapter.parse(Response(status=404, body=b"<html>"), group).values()
    assert isinstance(outcome, Failure)
    assert "BALANCE_PATH=account/balance" in outcome.message


def test_a_token_is_never_in_a_url() -> None:
    """Trap 4: the vendor's own clients send by GET with the token in the query."""
    adapter = SUBJECT.made()
    for name, asked in SUBJECT.requests.items():
        (group,) = adapter.build([SUBJECT.work(name, asked)]).groups
        assert "token" not in urlsplit(group.request.url).query
        assert "_method" not in group.request.url


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "codes"),
    [
        pytest.param({}, ["T", "T", "P"], id="by default"),
        pytest.param({"service": "MKT"}, ["MKT"] * 3, id="one for all: another host's code"),
        pytest.param({"service": "otp=A2P, transactional=ENT,promotional=MKT"}, ["A2P", "ENT", "MKT"], id="one each"),
    ],
)
def test_the_service_is_the_categorys(service: dict[str, str], codes: list[str]) -> None:
    """Trap 3: codes are the account's and the host's, so they are configuration and no list of ours."""
    categories = [Category.OTP, Category.TRANSACTIONAL, Category.PROMOTIONAL]
    assert [built(send(category=one), **service)[2]["service"] for one in categories] == codes


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        pytest.param({"service": "L"}, "SERVICE: each service must be the code of a service that sends", id="lookups"),
        pytest.param({"service": "otp=T"}, "SERVICE must name each category once", id="one category of three"),
        pytest.param({"service": "otp=T,otp=T,transactional=T,promotional=P"}, "each category once", id="one twice"),
        pytest.param({"service": "otp=T,transactional=T,other=P"}, "each category once", id="one that is none"),
        pytest.param({"service": "otp=,transactional=T,promotional=P"}, "short code", id="no code"),
        pytest.param({"service": "T,P"}, "short code", id="a list"),
        pytest.param({"balance_path": "https://elsewhere.example/"}, "BALANCE_PATH is no path", id="another host"),
        pytest.param({"balance_path": "../secrets"}, "BALANCE_PATH is no path", id="a way up"),
        pytest.param({"access_token": "two words"}, "ACCESS_TOKEN has a space", id="a token with a space"),
        pytest.param({"access_token": "line\r\nX: y"}, "ACCESS_TOKEN has a space", id="a token of two lines"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_PROVIDERS__SHOP_A__") as raised:
        SUBJECT.made(**settings)
    assert named in str(raised.value)
    assert settings.get("access_token", "canary") not in str(raised.value)


def test_a_messages_sender_is_used_before_the_accounts() -> None:
    assert built(send())[2]["sender"] == "ACME"
    assert built(send(sender="TXTSMS"))[2]["sender"] == "TXTSMS"
    assert "from" not in built(verify(), sender="")[2]["channels"][0]


# -- requests that are not made ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        pytest.param(
            send(options={"time": "2018-07-05 10:30AM"}), "time", "must look like", id="trap 12: the XML form"
        ),
        pytest.param(send(options={"time": 5}), "time", "must look like 2026-11-30 09:00:00", id="a number for a time"),
        pytest.param(send(options={"type": "X"}), "type", "must be one of U", id="no type"),
        pytest.param(send(options={"flash": 2}), "flash", "or 1 or 0", id="a flash of 2"),
        pytest.param(send(options={"service": "VOC"}), "service", "a service that sends texts", id="the voice service"),
        pytest.param(send(options={"service": ""}), "service", "short code", id="no service"),
        pytest.param(send(options={"max_units": 0}), "max_units", "from 1 to 255", id="no unit"),
        pytest.param(send(options={"max_units": "9" * 5000}), "max_units", "from 1 to 255", id="units beyond counting"),
        pytest.param(send(options={"tags": []}), "tags", "must be words", id="no tags"),
        pytest.param(send(options={"entity_id": " "}), "entity_id", "must be text", id="an empty id"),
        pytest.param(send(options={"custom": "mine"}), "custom", "not an argument", id="the reference is ours"),
        pytest.param(send(options={"_method": "DELETE"}), "_method", "not an argument", id="trap 5: no key of theirs"),
        pytest.param(operation("report", id=ID, _method="DELETE"), "_method", "not an argument", id="trap 5: nor here"),
        pytest.param(verify(options={"length": 3}), "length", "from 4 to 10", id="three digits"),
        pytest.param(verify(options={"ip_address": "here"}), "ip_address", "must be an IP address", id="no address"),
        pytest.param(verify(options={"token": "12345"}), "token", "not an argument", id="a code in clear"),
        pytest.param(check(".."), "code", "what the person typed", id="a path's own words"),
        pytest.param(check(" "), "code", "must be text", id="nothing typed"),
        pytest.param(check(ref="."), "ref", "what the person typed", id="no id"),
        pytest.param(operation("optout.add"), "number", "number is missing", id="an opt-out of nobody"),
        pytest.param(operation("optout.add", number="nobody"), "number", "international form", id="of no number"),
        pytest.param(operation("optout.add", number=ANN, type="tag"), "value", "which tag", id="of an unnamed tag"),
        pytest.param(operation("optout.add", number=ANN, type="x"), "type", "one of all", id="of something else"),
        pytest.param(operation("report"), "id", "of which messages", id="a report of everything"),
        pytest.param(operation("report", date="2026-11-30"), "id", "of which messages", id="of a whole day"),
        pytest.param(operation("report", number=ANN, date="30.11.2026"), "date", "must look like", id="day first"),
    ],
)
def test_what_it_could_never_take_is_refused_without_asking_it(job: Work, code: str, words: str) -> None:
    plan = SUBJECT.made().build([job])
    assert plan.groups == ()
    refused = plan.refused["0001"]
    assert (refused.kind, refused.code, words in refused.message) == (FailureKind.INVALID, code, True)


def test_a_text_from_nobody_is_refused() -> None:
    """`sender` is mandatory: better said by us, with the way out, than by a 422."""
    refused = SUBJECT.made(sender="").build([send()]).refused["0001"]
    assert (refused.kind, refused.code) == (FailureKind.INVALID, "sender")
    assert "set DISPATCHER_PROVIDERS__SHOP_A__SENDER" in refused.message


@pytest.mark.parametrize("name", ["voice", "whatsapp", "rcs", "ip messaging", "viber", "vmn.logs", "credits.add"])
def test_what_it_does_not_offer_is_unsupported_with_the_reason(name: str) -> None:
    refused = SUBJECT.made().build([operation(name)]).refused["0001"]
    assert (refused.kind, refused.message) == (FailureKind.UNSUPPORTED, MobTexting.unsupported[name])


def test_a_bad_job_does_not_keep_its_neighbours_from_travelling() -> None:
    plan = SUBJECT.made().build([send(), send(BOB, id_="0002", options={"time": "soon"}), send(BOB, id_="0003")])
    assert [[job.id for job in group.jobs] for group in plan.groups] == [["0001", "0003"]]
    assert set(plan.refused) == {"0002"}


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "groups"),
    [
        pytest.param(TWO, [["0001", "0002"]], id="the same text"),
        pytest.param([send(), send(BOB, "Hi", id_="0002", sender="TXTSMS")], [["0001", "0002"]],
                     id="another text and sender: a node's own"),
        pytest.param([send(), send(BOB, id_="0002", category=Category.PROMOTIONAL)], [["0001"], ["0002"]],
                     id="another service"),
        pytest.param([send(), send(BOB, id_="0002", options={"time": "2026-11-30 09:00:00"})], [["0001"], ["0002"]],
                     id="another time"),
        pytest.param([send(), send(BOB, id_="0002", options={"webhook_id": "w"})], [["0001"], ["0002"]],
                     id="another webhook"),
        pytest.param([send(options={"type": "A"}), send(BOB, id_="0002")], [["0001", "0002"]],
                     id="what is the default anyway"),
        pytest.param([send(), send(id_="0002")], [["0001"], ["0002"]], id="trap 6: the same number twice"),
        pytest.param([send(), verify(BOB)], [["0001"], ["0001"]], id="a code travels alone"),
    ],
)  # fmt: skip
def test_what_is_alike_travels_together(jobs: list[Work], groups: list[list[str]]) -> None:
    plan = SUBJECT.made().build(jobs)
    assert [[job.id for job in group.jobs] for group in plan.groups] == groups


def test_a_node_says_only_what_differs() -> None:
    jobs = [send(), send(BOB, "Hi", id_="0002", sender="TXTSMS"), send(NUMBERS[2], id_="0003")]
    assert built(*jobs)[2]["nodes"] == [
        {"to": digits(ANN), "custom": "0001"},
        {"to": digits(BOB), "custom": "0002", "message": "Hi", "sender": "TXTSMS"},
        {"to": digits(NUMBERS[2]), "custom": "0003"},
    ]


def test_what_a_request_costs() -> None:
    """GET and POST have limits of their own: the documented one is for GET alone."""
    adapter = SUBJECT.made()
    costs = {name: adapter.build([SUBJECT.work(name)]).groups[0].cost for name in SUBJECT.requests}
    assert costs["send"] == {"post": 1, "send": 1}
    assert costs["verify.check"] == {"get": 1, "verify.check": 1}
    assert costs["balance"] == {"get": 1, "balance": 1}
    assert adapter.build(TWO).groups[0].cost == {"post": 1, "send": 2}
    assert adapter.inquire([send(state=State.SENT, ref=ID)])[0].cost == {"get": 1, "report": 1}


# -- what became of it afterwards --------------------------------------------------------------------------------------


def news(job: Work, answer: Any, status: int = 200) -> News | None:
    adapter = SUBJECT.made()
    (group,) = adapter.inquire([job])
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    told_ = adapter.news(Response(status=status, body=body), group)
    assert not isinstance(told_, Failure)
    return told_.get(job.id)


@pytest.mark.parametrize(
    ("job", "url"),
    [
        pytest.param(send(state=State.SENT, ref=ID), f"sms/status?id={ID.replace(':', '%3A')}", id="trap 9: by id"),
        pytest.param(send(state=State.UNKNOWN), "sms/status?cid=0001", id="trap 8: by our reference, named cid here"),
        pytest.param(send(state=State.SENT), "sms/status?cid=0001", id="sent without an id"),
    ],
)
def test_a_message_is_asked_for(job: Work, url: str) -> None:
    (group,) = SUBJECT.made().inquire([job])
    assert (group.request.method, group.request.url) == ("GET", f"https://portal.mobtexting.com/api/v2/{url}")
    assert group.jobs == (job,)


def test_a_verification_is_asked_for_by_its_id_only() -> None:
    adapter = SUBJECT.made()
    known = msgspec.structs.replace(verify(), state=State.SENT, ref=VERIFICATION)
    (group,) = adapter.inquire([known])
    assert read(group.request) == ("GET", f"verify/search/{VERIFICATION}", {})
    assert adapter.inquire([msgspec.structs.replace(verify(), state=State.UNKNOWN)]) == ()


SENT_JOB = send(state=State.SENT, ref=ID)
UNKNOWN_JOB = send(state=State.UNKNOWN, age=3600.0)
RETRIED = send(state=State.UNKNOWN, age=3600.0, doubtful=True)
REFERENCE = "sms/status holds our reference"


def status_of(status: str, **more: Any) -> dict[str, Any]:
    """A row of sms/status, where our reference is `custom`."""
    return {"id": ID, "mobile": digits(ANN), "status": status, "custom": "0001"} | more


@pytest.mark.parametrize(
    ("job", "answer", "expected"),
    [
        pytest.param(SENT_JOB, told(status_of("AWAITING-DLR")), None, id="sent, and still on its way"),
        pytest.param(
            SENT_JOB, told(status_of("DELIVRD")),
            News(state=State.DELIVERED, ref=ID, evidence="sms/status holds our message: DELIVRD: strong"),
            id="delivered",
        ),
        pytest.param(
            SENT_JOB, told(status_of("MOB-OFF")),
            News(state=State.UNDELIVERED, ref=ID, failure=reports("not_sent", "MOB-OFF"),
                 evidence="sms/status holds our message: MOB-OFF: strong"),
            id="not delivered",
        ),
        pytest.param(SENT_JOB, told(status_of("DELIVRD", mobile=digits(BOB))), None, id="trap 9: another number's"),
        pytest.param(SENT_JOB, told(status_of("DELIVRD", id=OTHER_ID)), None, id="trap 9: another id"),
        pytest.param(SENT_JOB, told(status_of("ACCEPTD")), None, id="a word that nobody explains"),
        pytest.param(SENT_JOB, told(), None, id="what was sent is not lost for not being there"),
        pytest.param(
            UNKNOWN_JOB, told(status_of("AWAITING-DLR")),
            News(state=State.SENT, ref=ID, evidence=f"{REFERENCE}: AWAITING-DLR: strong"), id="taken after all",
        ),
        pytest.param(
            UNKNOWN_JOB, told(status_of("DELIVRD")),
            News(state=State.DELIVERED, ref=ID, evidence=f"{REFERENCE}: DELIVRD: strong"), id="even delivered",
        ),
        pytest.param(
            UNKNOWN_JOB, told(status_of("NO-CREDITS")),
            News(state=State.UNDELIVERED, ref=ID, failure=reports("insufficient_funds", "NO-CREDITS"),
                 evidence=f"{REFERENCE}: NO-CREDITS: strong"),
            id="taken, and not paid for",
        ),
        pytest.param(
            UNKNOWN_JOB, told(),
            News(state=State.FAILED, evidence="sms/status does not hold our reference: strong",
                 failure=failed("not_sent", "absent", "the provider has no message of this job")),
            id="not taken",
        ),
        pytest.param(send(state=State.UNKNOWN, age=599.0), told(), None, id="not there yet"),
        pytest.param(
            send(state=State.UNKNOWN, age=3600.0, options={"time": "2026-11-30 09:00:00"}), told(), None,
            id="a text for later may not be there before its time",
        ),
        pytest.param(UNKNOWN_JOB, told(status_of("DELIVRD", custom="")), None, id="a text to them that is not ours"),
        pytest.param(UNKNOWN_JOB, told(data=None), None, id="no list is no absence"),
        pytest.param(UNKNOWN_JOB, {"status": "OK"}, None, id="nor is none at all"),
        pytest.param(
            RETRIED, told(status_of("DUPLICATE", id=OTHER_ID), status_of("DELIVRD")),
            News(state=State.DELIVERED, ref=ID, evidence=f"{REFERENCE}: DELIVRD: strong"),
            id="trap 6: two attempts, the first was delivered",
        ),
        pytest.param(
            RETRIED, told(status_of("UNDELIV"), status_of("AWAITING-DLR", id=OTHER_ID)),
            News(state=State.SENT, ref=OTHER_ID, evidence=f"{REFERENCE}: AWAITING-DLR: strong"),
            id="two attempts, one is on its way",
        ),
        pytest.param(
            RETRIED, told(status_of("AWAITING-DLR", id=OTHER_ID), status_of("DELIVRD")),
            News(state=State.DELIVERED, ref=ID, evidence=f"{REFERENCE}: DELIVRD: strong"),
            id="two attempts, one has arrived",
        ),
        pytest.param(
            RETRIED, told(status_of("DUPLICATE", id=OTHER_ID), status_of("UNDELIV")),
            News(state=State.UNDELIVERED, ref=ID, failure=reports("ambiguous", "UNDELIV"),
                 evidence=f"{REFERENCE}: UNDELIV: strong"),
            id="trap 6: two attempts, the first did not arrive and the second was dropped",
        ),
        pytest.param(
            RETRIED, told(status_of("DUPLICATE")), News(state=State.SENT, evidence=f"{REFERENCE}: DUPLICATE: strong"),
            id="trap 6: a repeat that was dropped shows that the first was taken",
        ),
        pytest.param(
            SENT_JOB, told(status_of("DUPLICATE")),
            News(state=State.UNDELIVERED, ref=ID, failure=reports("rejected", "DUPLICATE"),
                 evidence="sms/status holds our message: DUPLICATE: strong"),
            id="trap 6: the same text as somebody sent before",
        ),
    ],
)  # fmt: skip
def test_what_became_of_a_message(job: Work, answer: Any, expected: News | None) -> None:
    assert news(job, answer) == expected


def test_a_bad_token_is_passed_on() -> None:
    adapter = SUBJECT.made()
    (group,) = adapter.inquire([UNKNOWN_JOB])
    refusal = Response(status=401, body=json.dumps(error(401, "Words")).encode())
    assert adapter.news(refusal, group) == failed("unauthorized", "401", "Words")
    assert adapter.news(Response(status=200, body=PAGE), group) == LOGIN


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "throttled"), (503, "throttled"), (402, "insufficient_funds"), (401, "unauthorized")]
)
def test_a_refusal_of_a_question_is_one(status: int, kind: str) -> None:
    adapter = SUBJECT.made()
    (group,) = adapter.inquire([UNKNOWN_JOB])
    refusal = adapter.news(Response(status=status, body=json.dumps(error(status, "Words", data=[])).encode()), group)
    assert isinstance(refusal, Failure)
    assert refusal.kind == kind


@pytest.mark.parametrize("status", [403, 404, 409, 422, 500])
def test_an_answer_that_is_none_says_nothing_of_the_message(status: int) -> None:
    """Even where it is not there: who may not look has not seen that."""
    assert news(UNKNOWN_JOB, error(status, "Words", data=[]), status) is None
    assert news(UNKNOWN_JOB, b"<html>", status) is None


@pytest.mark.parametrize(
    ("status", "state"),
    [("delivered", State.DELIVERED), ("failed", State.UNDELIVERED), ("sent", None), ("UNDELIV", State.UNDELIVERED)],
)
def test_what_became_of_a_verifications_text(status: str, state: State | None) -> None:
    job = msgspec.structs.replace(verify(), state=State.SENT, ref=VERIFICATION)
    told_ = news(job, sample("mobtexting", "verify_search.answer", TO=digits(ANN), STATUS=status).encode())
    assert (told_.state if told_ else None) == state


# -- what the provider tells by itself ---------------------------------------------------------------------------------

BEARER = {"authorization": "Bearer canary-secret", "content-type": "application/json"}


def pushed(status: str = "DELIVRD", job: str = "0001") -> bytes:
    return sample("mobtexting", "push_dlr.callback", TO=digits(ANN), STATUS=status, JOB=job).encode()


def heard(body: bytes | str, **fields: Any) -> Callback:
    return Callback(method="POST", headers=BEARER, body=body.encode() if isinstance(body, str) else body, **fields)


def about(word: str) -> News:
    if word == "DELIVRD":
        return News(state=State.DELIVERED)
    kind = _STATUSES.get(word, FailureKind.REJECTED)
    return News(state=State.UNDELIVERED, failure=reports(kind, word))


#: Statuses of which a delivery report alone decides.
DECISIVE = [word for word in _STATUSES if word != "DUPLICATE"]


@pytest.mark.parametrize("word", ["DELIVRD", *DECISIVE, "DLT-REJECTED"])
def test_a_delivery_report_is_read_by_its_word(word: str) -> None:
    (one,) = SUBJECT.made().read(heard(pushed(word)))
    assert one == Receipt(news=about(word), own="0001", ref=ID, number=ANN)


@pytest.mark.parametrize(
    ("body", "query", "expected"),
    [
        pytest.param(pushed("AWAITING-DLR"), "", Receipt(news=News(), own="0001", ref=ID, number=ANN), id="waiting"),
        pytest.param(
            pushed("DUPLICATE"), "",
            Receipt(news=News(evidence="the provider dropped a repeat of a text it had taken before"), own="0001",
                    ref=ID, number=ANN),
            id="trap 6: a repeat decides nothing by itself",
        ),
        pytest.param(pushed("ACCEPTD"), "", Receipt(news=News(), own="0001", ref=ID, number=ANN), id="another word"),
        pytest.param(
            pushed(job=""), "", Receipt(news=about("DELIVRD"), own="1234444XXXX", ref=ID, number=ANN),
            id="trap 8: cid where custom is empty",
        ),
        pytest.param(
            f"id={ID}&mobile={digits(ANN)}&status=DELIVRD&custom=0001", "",
            Receipt(news=about("DELIVRD"), own="0001", ref=ID, number=ANN), id="a form, by a composed webhook",
        ),
        pytest.param(
            "", f"id={ID}&mobile={digits(ANN)}&status=DELIVRD",
            Receipt(news=about("DELIVRD"), ref=ID, number=ANN), id="a query, by a composed webhook",
        ),
        pytest.param(
            json.dumps({"event": "sms:message:status", "payload": {"id": ID, "status": "delivrd", "custom": "0001"}}),
            "", Receipt(news=about("DELIVRD"), own="0001", ref=ID), id="trap 15: wrapped like other events",
        ),
        pytest.param(
            json.dumps({"id": "strange", "status": "DELIVRD", "custom": "0001"}), "",
            Receipt(news=about("DELIVRD"), own="0001"), id="an id that is none",
        ),
    ],
)  # fmt: skip
def test_a_delivery_report_is_read(body: bytes | str, query: str, expected: Receipt) -> None:
    """Trap 10: the sample has a comma too many, and times that contradict each other, which nobody reads."""
    assert SUBJECT.made().read(heard(body, query=query)) == (expected,)


def test_a_text_that_came_in_is_read() -> None:
    body = sample("mobtexting", "vmn.callback", TO="919019000000", FROM=digits(ANN))
    expected = Inbound(sender=ANN, to="919019000000", text="This is a simple text message", ref="our-message-id")
    assert SUBJECT.made().read(heard(body)) == (expected,)
    named = body.replace(digits(ANN), "VENDOR")
    (one,) = SUBJECT.made().read(heard(named))
    assert isinstance(one, Inbound)
    assert one.sender == "VENDOR"


@pytest.mark.parametrize(
    ("scope", "read_"), [("sender", (OptOut(number=ANN),)), ("all", (OptOut(number=ANN),)), ("tag", ())]
)
def test_an_opt_out_is_read(scope: str, read_: tuple[OptOut, ...]) -> None:
    """Of a tag the vendor holds texts back by itself, and others may still be sent."""
    body = sample("mobtexting", "unsubscription.callback", FROM=digits(ANN), TYPE=scope)
    assert SUBJECT.made().read(heard(body)) == read_
    undone = body.replace("created successfully", "deleted successfully")
    assert SUBJECT.made().read(heard(undone)) == ()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"event": "whatsapp:message:in", "payload": {"id": "x"}}', id="another product's event"),
        pytest.param('{"event": "contacts:subscriber:subscription", "id": 86, "status": "x"}', id="a contact"),
        pytest.param('{"event": "vmn:message:in", "payload": {"recipient": {"from": "447"}}}', id="no text"),
        pytest.param('{"event": "vmn:message:in", "payload": {"message": {"payload": {"text": "x"}}}}', id="no sender"),
        pytest.param('{"event": "vmn:message:in", "payload": 5}', id="no payload"),
        pytest.param('{"id": "x", "status": "DELIVRD"}', id="nothing says of which message"),
        pytest.param(f'{{"id": "{ID}"}}', id="no status"),
        pytest.param('{"receiver": "nobody", "type": "all"}', id="no number"),
        pytest.param("", id="nothing"),
        pytest.param("[]", id="a list"),
    ],
)
def test_what_is_not_understood_is_nothing(body: str) -> None:
    assert SUBJECT.made().read(heard(body)) == ()


@pytest.mark.parametrize(
    ("headers", "settings", "trusted"),
    [
        pytest.param(BEARER, {}, True, id="its secret"),
        pytest.param({"authorization": "bearer canary-secret"}, {}, True, id="in small letters"),
        pytest.param({"authorization": "Bearer another"}, {}, False, id="another"),
        pytest.param({"authorization": "canary-secret"}, {}, False, id="trap 16: without Bearer"),
        pytest.param({"authorization": "Basic canary-secret"}, {}, False, id="another scheme"),
        pytest.param({"authorization": "Bearer é"}, {}, False, id="letters of no secret"),
        pytest.param({}, {}, False, id="none"),
        pytest.param({}, {"webhook_secret": ""}, True, id="none was agreed on"),
    ],
)
def test_a_callback_bears_the_webhooks_secret(headers: dict[str, str], settings: dict[str, str], trusted: bool) -> None:
    """Trap 15: addresses change, so that only the secret tells."""
    assert SUBJECT.made(**settings).trusts(Callback(method="POST", headers=headers)) == trusted


def test_a_challenge_needs_no_secret_and_nothing_passes_for_one() -> None:
    """Nobody says that it bears the secret; to return it changes nothing."""
    one = SUBJECT.made(webhook_secret="s3cret")
    assert one.trusts(heard(sample("mobtexting", "challenge.callback")))
    assert not one.trusts(heard(b'{"validation_key": "x", "challenge": "y", "id": "1:1", "status": "DELIVRD"}'))


def test_a_challenge_is_returned() -> None:
    answer = SUBJECT.made().answer(heard(sample("mobtexting", "challenge.callback"), query="token=9012XX"))
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body) == {"challenge": "a234qwe"}


def test_everything_else_is_answered_by_200() -> None:
    """With another code it would come three times more, half an hour apart."""
    for body in (pushed(), b"", b'{"challenge": "x"}', b'{"validation_key": "x", "challenge": {}}'):
        answer = SUBJECT.made().answer(heard(body))
        assert (answer.status, answer.body) == (200, b"")


# -- from end to end: what the adapter builds, the player of the sandbox takes -----------------------------------------


class Stage:
    """An account of the sandbox's, the player, and a world that stands still."""

    def __init__(self, account: str = "sandbox", **settings: str) -> None:
        self.adapter = MobTexting("shop_a", {"access_token": account, "sender": "ACME", **settings})
        self.player = Player()
        self.now = 1_800_000_000.0
        self.world = World(self.player.accounts, now=lambda: self.now)

    def answered(self, request: Request) -> Response:
        url = urlsplit(request.url)
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(method=request.method, path=url.path, query=url.query, headers=headers, body=request.body)
        answer, rows = self.player.reply(asked, self.world)
        self.world.commit(rows)
        lower = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=lower, body=answer.body)

    def do(self, *jobs: Work) -> list[Any]:
        (group,) = self.adapter.build(jobs).groups
        outcomes = self.adapter.parse(self.answered(group.request), group)
        return [outcomes[job.id] for job in jobs]

    def news(self, job: Work) -> News | None:
        (group,) = self.adapter.inquire([job])
        told_ = self.adapter.news(self.answered(group.request), group)
        assert not isinstance(told_, Failure)
        return told_.get(job.id)

    def rows(self, kind: str) -> list[Row]:
        return [one for one in self.world.rows() if one.kind == kind]

    def hear(self, row_: Row) -> tuple[Any, ...]:
        told_ = self.player.receipt(row_)
        assert told_ is not None
        headers = {name.lower(): value for name, value in told_.headers.items()}
        callback = Callback(method=told_.method, query=told_.query, headers=headers, body=told_.body)
        assert MobTexting("shop_a", {**MobTexting.sandbox}).trusts(callback)
        return self.adapter.read(callback)


def special(ending: int) -> str:
    return f"+447700900{ending}"


class TestEndToEnd:
    def test_a_text(self) -> None:
        """Sent, shown by its id and by our reference, delivered by report."""
        stage = Stage()
        (outcome,) = stage.do(send())
        (sent,) = stage.rows("send")
        assert outcome == Accepted(ref=sent.ref, price="1 credits")
        assert stage.hear(sent) == (Receipt(news=News(state=State.DELIVERED), own="0001", ref=sent.ref, number=ANN),)
        told_ = stage.news(send(state=State.SENT, ref=sent.ref))
        assert told_ is None, "on its way"
        stage.now += 1
        told_ = stage.news(send(state=State.SENT, ref=sent.ref))
        assert told_ is not None
        assert told_.state == State.DELIVERED

    def test_texts_to_many(self) -> None:
        """Each is answered for itself, whatever becomes of its neighbours."""
        stage = Stage()
        endings = {200: "", 100: "opted_out", 101: "invalid", 102: "invalid", 103: "not_sent", 105: "ambiguous"}
        jobs = [send(special(ending), f"Hi {ending}", str(ending)) for ending in endings]
        outcomes = stage.do(*jobs)
        assert [str(getattr(one, "kind", "")) for one in outcomes] == [*endings.values()]
        assert [message.text for message in stage.world.inbox(digits(special(200)))] == ["Hi 200"]

    def test_a_text_that_nobody_knows_of(self) -> None:
        """Asked for by our reference: the one that was taken is found, the other was not sent."""
        stage = Stage()
        taken, untaken = send(special(108), id_="taken"), send(special(105), id_="untaken")
        stage.do(taken, untaken)
        later = {"state": State.UNKNOWN, "age": 3600.0}
        found = stage.news(msgspec.structs.replace(taken, **later))
        missing = stage.news(msgspec.structs.replace(untaken, **later))
        assert found is not None
        assert missing is not None
        assert (found.state, found.ref) == (State.SENT, stage.rows("send")[0].ref)
        assert (missing.state, missing.failure and missing.failure.kind) == (State.FAILED, FailureKind.NOT_SENT)

    def test_a_text_for_later(self) -> None:
        stage = Stage()
        stage.do(send(options={"time": "2027-01-15 09:00:00"}))
        assert stage.world.inbox(digits(ANN)) == []

    def test_a_verification(self) -> None:
        """A wrong code may be followed by the right one, which is right once; a lost answer is asked for again."""
        stage = Stage()
        (outcome,) = stage.do(verify(code_ttl=600))
        (begun,) = stage.rows("verify")
        assert outcome == Accepted(ref=begun.ref)
        assert [one.text for one in stage.world.inbox(digits(ANN))] == [f"Your code is {begun.code}"]
        wrong = "0" * 6 if begun.code != "0" * 6 else "1" * 6
        assert stage.do(check(wrong, ref=begun.ref)) == [checked("pending")]
        assert stage.do(check(begun.code, ref=begun.ref)) == [checked("approved", valid=True)]
        assert stage.do(check(begun.code, ref=begun.ref)) == [checked("approved")]
        again = stage.do(check(begun.code, ref=begun.ref, doubtful=True))
        assert again == [checked("approved", valid=True, doubtful=True)]
        assert stage.do(check(begun.code, ref="nobody")) == [checked("cancelled")]
        stage.now += 1
        told_ = stage.news(msgspec.structs.replace(verify(), state=State.SENT, ref=begun.ref))
        assert told_ is not None
        assert told_.state == State.DELIVERED

    def test_a_verification_that_expired(self) -> None:
        stage = Stage()
        stage.do(verify(code_ttl=600))
        (begun,) = stage.rows("verify")
        stage.now += 600
        assert stage.do(check(begun.code, ref=begun.ref)) == [checked("expired")]

    def test_a_verification_that_is_refused(self) -> None:
        stage = Stage()
        kinds = {100: "opted_out", 101: "invalid", 103: "throttled", 105: "ambiguous", 108: "ambiguous"}
        outcomes = [stage.do(verify(special(ending)))[0] for ending in kinds]
        assert [one.kind for one in outcomes] == [*kinds.values()]

    def test_lookups(self) -> None:
        stage = Stage()
        (found,) = stage.do(lookup(special(132)))
        assert (found.result["phone"], found.result["ported"], found.result["roaming"]) == (special(132), True, False)
        (absent,) = stage.do(lookup(special(131)))
        assert absent.result["status"] == "ABSENT-SUB"
        kinds = {130: "invalid", 101: "invalid"}
        assert [stage.do(lookup(special(ending)))[0].kind for ending in kinds] == [*kinds.values()]

    @pytest.mark.parametrize("path", ["account/balance", "finance/balance"])
    def test_the_balance(self, path: str) -> None:
        stage = Stage(balance_path=path, service="T")
        (found,) = stage.do(BALANCE)
        assert (found.result["balance"], found.result["available"], len(found.result["services"])) == (
            "1000000", "1000000", 4,
        )  # fmt: skip
        (away,) = Stage(balance_path="money").do(BALANCE)
        assert (away.kind, "BALANCE_PATH=" in away.message) == (FailureKind.INVALID, True)

    def test_an_opt_out(self) -> None:
        stage = Stage()
        (stopped,) = stage.do(operation("optout.add", number=ANN))
        assert (stopped.result["stopped"], stopped.result["receiver"]) == (True, ANN)
        assert stage.do(send()) == [reports("opted_out", "OPTOUT-REJ")]

    def test_reports(self) -> None:
        stage = Stage()
        stage.do(*TWO)
        first, second = stage.rows("send")
        ways = [{"id": first.ref}, {"cid": "0001"}, {"number": ANN, "date": "2027-01-15"}]
        for arguments in ways:
            (found,) = stage.do(operation("report", **arguments))
            assert [one["id"] for one in found.result["messages"]] == [first.ref]
        assert first.ref != second.ref
        (none,) = stage.do(operation("report", number=ANN, date="2027-01-14"))
        assert none.result == {"messages": [], "last_page": 1}

    @pytest.mark.parametrize(
        ("stage", "job", "kind", "code"),
        [
            pytest.param(Stage("broke"), send(), "insufficient_funds", "422", id="no money for a text"),
            pytest.param(Stage("broke"), verify(), "insufficient_funds", "422", id="no money for a code"),
            pytest.param(Stage("broke"), lookup(), "insufficient_funds", "422", id="no money for a lookup"),
            pytest.param(Stage("guest"), send(), "unauthorized", "403", id="no permission to send"),
            pytest.param(Stage("guest"), check(), "unauthorized", "403", id="no permission to check"),
            pytest.param(Stage("wrong"), send(), "unauthorized", "401", id="a wrong token"),
            pytest.param(Stage("wrong"), BALANCE, "unauthorized", "401", id="a wrong token reads nothing"),
            pytest.param(Stage(), send(sender="NOBODY"), "rejected", "422", id="a sender that is not approved"),
            pytest.param(Stage(service="MKT"), send(), "rejected", "422", id="another host's service"),
            pytest.param(Stage(), send(special(106)), "throttled", "429", id="turned away"),
            pytest.param(
                Stage(), operation("optout.add", number=ANN, type="product", value="T"), "", "", id="all is well"
            ),
        ],
    )
    def test_refusals(self, stage: Stage, job: Work, kind: str, code: str) -> None:
        (outcome,) = stage.do(job)
        assert (str(getattr(outcome, "kind", "")), getattr(outcome, "code", "")) == (kind, code)
        if kind == "unauthorized":
            assert outcome.permission == (code == "403")

    def test_a_wrong_token_without_accept_leads_to_the_login_page(self) -> None:
        """The redirect that our own header keeps away is read all the same."""
        stage = Stage("wrong")
        (group,) = stage.adapter.build([send()]).groups
        headers = {name: value for name, value in group.request.headers.items() if name != "Accept"}
        response_ = stage.answered(msgspec.structs.replace(group.request, headers=headers))
        assert response_.status == 302
        assert stage.adapter.parse(response_, group) == {"0001": LOGIN}

    def test_one_request_too_many(self) -> None:
        refusal = Player().limits.refusal
        (group,) = Stage().adapter.build([BALANCE]).groups
        (outcome,) = Stage().adapter.parse(Response(status=refusal.status, body=refusal.body), group).values()
        assert isinstance(outcome, Failure)
        assert outcome.kind == FailureKind.THROTTLED

    def test_a_text_from_a_phone(self) -> None:
        texted = Texted(account="sandbox", sender=digits(ANN), to="919019000000", text="STOP", at=0.0)
        told_ = Player().inbound(texted)
        (one,) = Stage().adapter.read(Callback(method=told_.method, headers={}, body=told_.body))
        assert isinstance(one, Inbound)
        assert one == Inbound(sender=ANN, to="919019000000", text="STOP", ref=one.ref)

    def test_everything_was_asked(self) -> None:
        """No operation is left out above."""
        stage = Stage()
        for name, asked in SUBJECT.requests.items():
            (group,) = stage.adapter.build([SUBJECT.work(name, asked)]).groups
            assert set(stage.adapter.parse(stage.answered(group.request), group)) == {"0001"}
        assert {one.kind for one in stage.world.rows()} == set(MobTexting.operations)

    def test_a_group_of_them_is_read_in_one(self) -> None:
        stage = Stage()
        jobs = [send(f"+4477009012{at:02}", f"Hi {at}", f"{at:04}") for at in range(20)]
        (group,) = stage.adapter.build(jobs).groups
        assert isinstance(group, Group)
        outcomes = stage.adapter.parse(stage.answered(group.request), group)
        assert len({one.ref for one in outcomes.values() if isinstance(one, Accepted)}) == 20
