"""TheTexting, against the samples, words and traps of its pages (thetexting.com/developers/Documentation).

Only NumberBuy's samples are on disk as they are printed; those of the other pages are written here in their shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from dispatcher import records
from dispatcher.calls import Word
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from tests.providers import runner
from tests.providers.runner import CASES, NUMBERS, Case, Subject, answers, every_check, printed, run
from workers.conformance import CHECKS
from workers.inquiries import _agreed
from workers.providers import xml
from workers.providers.base import Callback, Group, Inbound, News, Receipt, Request, Response
from workers.providers.thetexting import _STATES, TheTexting

ANN, BOB = "+12125550150", "+12125550151"
#: The number of the printed sample.
PRINTED = "+16787188829"
KEYS = {"api_key": "canary-key", "api_secret": "canary-secret"}

SUBJECT = Subject(
    adapter=TheTexting,
    settings=KEYS,
    requests={
        "send": Send(to=NUMBERS[0], text="Hello", sender="+12125550199"),
        "verify": Verify(to=NUMBERS[0], template="Your code is [CODE]"),
        "lookup": Lookup(to=NUMBERS[0]),
        "balance": OperationRequest(),
        "number.search": OperationRequest(arguments={"country_code": "US", "area_code": "212", "pattern": "555"}),
        "number.buy": OperationRequest(arguments={"number": NUMBERS[0]}),
        "number.cancel": OperationRequest(arguments={"number": NUMBERS[0]}),
        "number.list": OperationRequest(),
        "report": OperationRequest(arguments={"message_id": "10011"}),
    },
    vocabulary=[
        "Response", "ErrorMessage", "Status", "message_id", "message_count", "price", "balance", "number", "Number",
        "country_name", "country_code", "area_code", "number_count", "list_account_numbers", "lookup_status",
        "No Error", "is_ported", "original_carrier", "From", "To", "count", "is_unicode", "sent_date", "text",
        "status", "Sent", "Delivered", "Rejected", "true", "US ", "0", "1", "10011   ", "0.0055", "datetime", "cost",
    ],
    envelope=lambda content: {"Response": content, "ErrorMessage": "", "Status": 0},
    samples=lambda: [*printed("thetexting"), *answers(CASES_)],
    calls=lambda: [Callback(method="GET", query=QUERY), Callback(method="POST", body=json.dumps(TABLE).encode())],
    wrong_password=Response(status=200, body=b'{"Response":null,"ErrorMessage":"","Status":3}'),
)  # fmt: skip

AS_XML = Subject(
    adapter=TheTexting, settings=KEYS | {"format": "xml"}, requests=SUBJECT.requests, vocabulary=SUBJECT.vocabulary,
    envelope=SUBJECT.envelope, samples=SUBJECT.samples, calls=SUBJECT.calls,
    wrong_password=Response(status=200, body=b"<TheTexting><ErrorMessage/><Response/><Status>3</Status></TheTexting>"),
)  # fmt: skip


def send(to: str = ANN, text: str = "Hello", **fields: Any) -> Work:
    return SUBJECT.work("send", Send(to=to, text=text, **fields))


def operation(name: str, **arguments: Any) -> Work:
    return SUBJECT.work(name, OperationRequest(arguments=arguments))


def read(request: Request) -> tuple[str, dict[str, str]]:
    """A request as it is compared: the path after the format, and the form without the credentials."""
    assert request.method == "POST"
    assert request.headers == {"Content-Type": "application/x-www-form-urlencoded"}
    form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True))
    assert (form.pop("api_key"), form.pop("api_secret")) == ("canary-key", "canary-secret")
    return request.url.removeprefix("https://www.thetexting.com/rest/sms/json/"), form


def told(content: Any, words: str = "", status: int = 0) -> dict[str, Any]:
    return {"Response": content, "ErrorMessage": words, "Status": status}


def told_in_xml(content: str, error: str = "<ErrorMessage/>", status: int | str = 0) -> str:
    return (
        f'<TheTexting xmlns:i="http://www.w3.org/2001/XMLSchema-instance">{error}'
        f"{content}<Status>{status}</Status></TheTexting>"
    )


def refused(status: int, words: str = "") -> dict[str, Any]:
    return told(None, words, status)


def failed(kind: str, code: str, message: str) -> Failure:
    return Failure(kind=FailureKind(kind), code=code, message=message)


def lost(what: str) -> Failure:
    return failed("ambiguous", "incomplete", f"the answer holds no {what}")


def parsed(job: Work, answer: Response, **settings: str) -> Outcome:
    adapter = SUBJECT.made(**settings)
    (group,) = adapter.build([job]).groups
    (outcome,) = adapter.parse(answer, group).values()
    return outcome


SENT = {"message_id": "10011", "message_count": 1, "price": 0.0055}
TAKEN = Accepted(ref="10011", price="0.0055")

LOOKUP = SUBJECT.work("lookup", Lookup(to=ANN))
BALANCE = operation("balance")
SEARCH = operation("number.search", country_code="us", area_code="212", pattern="555")
BUY, CANCEL = operation("number.buy", number=ANN), operation("number.cancel", number=ANN)
LIST = operation("number.list")
REPORT = operation("report", message_id="8")
REPORT_BY_DAY = operation("report", number=ANN, message_sent_date="07-16-2015")
VERIFY = SUBJECT.work("verify", Verify(to=ANN, template="Your code is [CODE]"), code="012837")

ALL_JOBS = {
    "send": send(), "verify": VERIFY, "lookup": LOOKUP, "balance": BALANCE, "number.search": SEARCH,
    "number.buy": BUY, "number.cancel": CANCEL, "number.list": LIST, "report": REPORT,
}  # fmt: skip
#: "Respond Codes", and what a call that changes something ends as.
RESPOND_CODES = {
    1: ("ambiguous", "Request has failed."), 2: ("invalid", "Parameters are missing."),
    3: ("unauthorized", "Credentials are invalid."), 4: ("invalid", "Parameters are invalid."),
    5: ("invalid", "Result has returned empty."), 6: ("invalid", "Status is invalid."),
}  # fmt: skip
WRITES = {"send", "verify", "number.buy", "number.cancel"}
SEARCHES: dict[str, dict[str, Any]] = {
    "number.search": {"numbers": []},
    "number.list": {"numbers": []},
    "report": {"messages": []},
}

NUMBER_LOOKUP = {
    "international_format_number": "+12125550150", "national_format_number": "(212) 555-0150",
    "phone_number_iso2_code": "US ", "phone_number_type": "mobile", "mccmnc": None, "serving_msc": "12125550100",
    "imsi": "310150000000000", "lookup_status": "No Error", "is_ported": False,
    "original_carrier": {
        "carrier_name": "Sandbox Wireless  ", "carrier_prefix": "1212", "carrier_country_name": "United States",
        "carrier_country_prefix": 1,
    },
}  # fmt: skip
LOOKED_UP = NUMBER_LOOKUP | {
    "phone_number_iso2_code": "US",
    "original_carrier": {
        "carrier_name": "Sandbox Wireless", "carrier_prefix": "1212", "carrier_country_name": "United States",
        "carrier_country_prefix": "1",
    },
}  # fmt: skip

ROW = {
    "message_id": "8                                                 ", "From": "12345", "To": "12125550150",
    "count": 1, "is_unicode": False, "price": 0.0055, "sent_date": "2015-07-16T17:25:18.63", "text": "Test SMS",
    "status": "Sent",
}  # fmt: skip
REPORTED = {
    "message_id": "8", "from": "12345", "to": "+12125550150", "count": 1, "is_unicode": False, "price": "0.0055",
    "sent_date": "2015-07-16T17:25:18.63", "status": "Sent",
}  # fmt: skip

ON_SALE = {"country_name": "United States", "area_code": "212", "number": "12125550150", "price": 1}
HELD = {"country_code": "US ", "Number": "12125550150", "in_callback_url_type": None, "in_callback_url": None}


def owned(*rows: Mapping[str, Any], count: int | None = None) -> dict[str, Any]:
    return {"number_count": len(rows) if count is None else count, "list_account_numbers": [*rows]}


MODELS = 'xmlns:d2p1="http://schemas.datacontract.org/2004/07/RESTwebapi.Models"'
MESSAGE_XML = (
    "<d2p1:Message><d2p1:From>12345</d2p1:From><d2p1:To>12125550150</d2p1:To><d2p1:is_unicode>false</d2p1:is_unicode>"
    "<d2p1:count>1</d2p1:count><d2p1:message_id>8   </d2p1:message_id><d2p1:price>0.0055</d2p1:price>"
    "<d2p1:sent_date>2015-07-16T17:25:18.63</d2p1:sent_date><d2p1:text>Test SMS</d2p1:text>"
    "<d2p1:status>Sent</d2p1:status></d2p1:Message>"
)
SENT_XML = (
    f"<Response {MODELS}><d2p1:message_count>1</d2p1:message_count><d2p1:message_id>10011  </d2p1:message_id>"
    "<d2p1:price>0.0055</d2p1:price></Response>"
)
LOOKUP_XML = (
    f"<Response {MODELS}>"
    "<d2p1:imsi>310150000000000</d2p1:imsi>"
    "<d2p1:international_format_number>+12125550150</d2p1:international_format_number>"
    "<d2p1:is_ported>false</d2p1:is_ported><d2p1:lookup_status>No Error</d2p1:lookup_status>"
    '<d2p1:mccmnc i:nil="true"/><d2p1:national_format_number>(212) 555-0150</d2p1:national_format_number>'
    "<d2p1:original_carrier><d2p1:carrier_country_name>United States</d2p1:carrier_country_name>"
    "<d2p1:carrier_country_prefix>1</d2p1:carrier_country_prefix>"
    "<d2p1:carrier_name>Sandbox Wireless</d2p1:carrier_name><d2p1:carrier_prefix>1212</d2p1:carrier_prefix>"
    "</d2p1:original_carrier><d2p1:phone_number_iso2_code>US</d2p1:phone_number_iso2_code>"
    "<d2p1:phone_number_type>mobile</d2p1:phone_number_type><d2p1:serving_msc>12125550100</d2p1:serving_msc></Response>"
)
NUMBERS_XML = (
    '<Response><list_account_numbers xmlns:d3p1="http://schemas.datacontract.org/2004/07/RESTwebapi.Models">'
    "<d3p1:Number><d3p1:Number>12125550150</d3p1:Number><d3p1:country_code>US</d3p1:country_code>"
    '<d3p1:in_callback_url i:nil="true"/><d3p1:in_callback_url_type i:nil="true"/></d3p1:Number>'
    "</list_account_numbers><number_count>1</number_count></Response>"
)
LISTED = {"number": ANN, "country_code": "US", "in_callback_url_type": None, "in_callback_url": None}
FOUND = {"number": ANN, "country_name": "United States", "area_code": "212", "price": "1"}
MONEY = Found(result={"balance": "0.7035", "available": "0.7035", "currency": None})


# -- the document's own samples, as files on disk ----------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "xml"])
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        pytest.param("number_buy", Found(result={"number": PRINTED}), id="bought"),
        pytest.param("failure", failed("invalid", "2", "Parameters Missing"), id="refused: null, or i:nil"),
    ],
)
def test_an_answer_is_read_as_the_document_prints_it(name: str, outcome: Outcome, form: str) -> None:
    printed = (CASES / "thetexting" / f"{name}.answer.{form}").read_bytes()
    assert parsed(operation("number.buy", number=PRINTED), Response(status=200, body=printed), format=form) == outcome


def test_a_purchase_is_the_sample_url_with_its_query_in_the_body() -> None:
    """Its sample has the secret, and an order, in what every proxy on the way may log or repeat."""
    (group,) = SUBJECT.made().build([operation("number.buy", number=PRINTED)]).groups
    assert group.request.url == "https://www.thetexting.com/rest/sms/json/number/buy"
    assert group.request.body == b"api_key=canary-key&api_secret=canary-secret&number=16787188829"


# -- one table: what is asked for, the request, the answer, what it means ----------------------------------------------

CASES_: list[Any] = [
    # -- requests
    pytest.param(
        Case([send()], ("Message/Send", {"to": "12125550150", "text": "Hello"}), told(SENT), [TAKEN]),
        id="send: no plus, no type, and no from where nobody names one",
    ),
    pytest.param(
        Case(
            [send(sender="+12125550199", text="a=b&c +%20\n€")],
            ("Message/Send", {"from": "12125550199", "to": "12125550150", "text": "a=b&c +%20\n€"}), told(SENT),
            [TAKEN],
        ),
        id="send: any text arrives as it is, and € is no reason for unicode",
    ),
    *(
        pytest.param(
            Case(
                [send(text=text)], ("Message/Send", {"to": "12125550150", "text": text, "type": "unicode"}),
                told(SENT), [TAKEN],
            ),
            id=f"send: type=unicode for {label}",
        )
        for label, text in (("Cyrillic", "Привет"), ("an emoji", "Hi 🙂"), ("ç, which GSM-7 lacks", "ça"))
    ),
    pytest.param(
        Case([send(text="a" * 3200)], ("Message/Send", {"to": "12125550150", "text": "a" * 3200}), told(SENT), [TAKEN]),
        id="send: 3200 characters",
    ),
    pytest.param(
        Case([send(sender="test")], ("Message/Send", {"from": "test", "to": "12125550150", "text": "Hello"}),
             told(SENT), [TAKEN]),
        id="send: a trial account's from=test succeeds",
    ),
    pytest.param(
        Case([VERIFY], ("Message/Send", {"to": "12125550150", "text": "Your code is 012837"}), told(SENT), [TAKEN]),
        id="verify: a text with our code in it",
    ),
    pytest.param(
        Case([LOOKUP], ("number/lookup", {"to": "12125550150"}), told(NUMBER_LOOKUP), [Found(result=LOOKED_UP)]),
        id="lookup: an object in an object, ids as text, padding stripped",
    ),
    pytest.param(Case([BALANCE], ("account/getbalance", {}), told({"balance": 0.7035}), [MONEY]), id="balance"),
    pytest.param(
        Case(
            [SEARCH], ("number/search", {"country_code": "US", "area_code": "212", "number": "555"}),
            told([ON_SALE]), [Found(result={"numbers": [FOUND]})],
        ),
        id="number.search: a list, the pattern is its number",
    ),
    pytest.param(
        Case(
            [operation("number.search", country_code="GB")], ("number/search", {"country_code": "GB"}),
            told([ON_SALE | {"number": "447700900150", "price": "1.50"}]),
            [Found(result={"numbers": [FOUND | {"number": "+447700900150", "price": "1.50"}]})],
        ),
        id="number.search: no more than is asked for",
    ),
    pytest.param(
        Case([BUY], ("number/buy", {"number": "12125550150"}), told("Number: 12125550150 has been"),
             [Found(result={"number": ANN})]),
        id="number.buy: a sentence that is not taken apart",
    ),
    pytest.param(
        Case([CANCEL], ("number/cancel", {"number": "12125550150"}), told("Number : 12125550150 has been"),
             [Found(result={"number": ANN})]),
        id="number.cancel: a sentence with a blank more",
    ),
    pytest.param(
        Case([LIST], ("account/numbers", {}), told(owned(HELD)), [Found(result={"numbers": [LISTED]})]),
        id="number.list: Number here, number there, and a padded country",
    ),
    pytest.param(
        Case([LIST], None, told(owned(HELD | {"Number": "2125550150"})), [Found(result={"numbers": [LISTED]})]),
        id="number.list: a number without its country, as the page's JSON has one",
    ),
    pytest.param(
        Case([REPORT], ("search/message", {"message_id": "8"}), told([ROW]), [Found(result={"messages": [REPORTED]})]),
        id="report: a list of one, its id padded, its text left out",
    ),
    pytest.param(
        Case(
            [REPORT_BY_DAY], ("search/messages", {"to": "12125550150", "message_sent_date": "07-16-2015"}),
            told([ROW, ROW | {"status": "Rejected", "price": 0}]),
            [Found(result={"messages": [REPORTED, REPORTED | {"status": "Rejected", "price": "0"}]})],
        ),
        id="report: by number and day",
    ),
    # -- Status
    *(
        pytest.param(
            Case([job], None, refused(status), [
                failed("not_sent" if status == 1 and name not in {*WRITES, "lookup"} else kind, str(status), words)
            ]),
            id=f"{name}: Status {status}",
        )
        for name, job in ALL_JOBS.items()
        for status, (kind, words) in RESPOND_CODES.items()
        if status != 5 or name not in SEARCHES
    ),
    *(
        pytest.param(Case([ALL_JOBS[name]], None, refused(5), [Found(result=empty)]), id=f"{name}: Status 5 is none")
        for name, empty in SEARCHES.items()
    ),
    pytest.param(
        Case([send()], None, refused(1, "Not enough balance"), [failed("ambiguous", "1", "Not enough balance")]),
        id="Status 1: only its words differ, and they decide nothing",
    ),
    *(
        pytest.param(
            Case([job], None, refused(status), [failed(kind, str(status), f"TheTexting answered Status {status}")]),
            id=f"{job.operation}: Status {status}, which no page has",
        )
        for status in (7, -1)
        for job, kind in ((send(), "ambiguous"), (BUY, "ambiguous"), (BALANCE, "not_sent"))
    ),
    *(
        pytest.param(Case([send()], None, answer, [TAKEN]), id=f"Status 0 {label}")
        for label, answer in (
            ("as text", told(SENT) | {"Status": "0"}), ("without an error", {"Response": SENT, "Status": 0}),
            ("with a null error", told(SENT) | {"ErrorMessage": None}),
            ("in other letters", {"response": SENT, "status": 0}),
        )
    ),
    *(
        pytest.param(
            Case([send()], None, json.dumps(answer), [
                failed("ambiguous", "garbage", "the answer is not in the provider's words")
            ]),
            id=f"no envelope: {label}",
        )
        for label, answer in (
            ("no Status", {"Response": SENT}), ("a Status of null", told(SENT) | {"Status": None}),
            ("a Status of true", told(SENT) | {"Status": True}), ("a Status of a half", told(SENT) | {"Status": 0.5}),
            ("a list", [told(SENT)]), ("a Status beyond all", told(SENT) | {"Status": 10**30}),
        )
    ),
    # -- Response is not what it ought to be
    *(
        pytest.param(Case([ALL_JOBS[name]], None, told(content), [lost(what)]), id=f"{name}: {label}")
        for name, label, content, what in (
            ("send", "null", None, "message_id"), ("send", "a sentence", "Sent.", "message_id"),
            ("send", "a list", [SENT], "message_id"), ("send", "no id", {"price": 1}, "message_id"),
            ("send", "a blank id", {"message_id": "   "}, "message_id"), ("verify", "null", None, "message_id"),
            ("number.buy", "null", None, "confirmation"), ("number.buy", "an object", {}, "confirmation"),
            ("number.cancel", "empty", "", "confirmation"), ("balance", "null", None, "balance"),
            ("balance", "no number", {"balance": "much"}, "balance"), ("balance", "NaN", {"balance": "NaN"}, "balance"),
            ("balance", "without end", {"balance": "1e999999999"}, "balance"),
            ("lookup", "null", None, "lookup_status"), ("lookup", "without a verdict", {"imsi": "1"}, "lookup_status"),
            ("number.search", "null", None, "list of numbers"), ("number.search", "an object", {}, "list of numbers"),
            ("number.search", "a list of text", ["1"], "list of numbers"),
            ("number.list", "null", None, "list of numbers"), ("number.list", "no list", {}, "list of numbers"),
            ("report", "null", None, "list of messages"), ("report", "an object", ROW, "list of messages"),
        )
    ),
    *(
        pytest.param(Case([send()], None, told(SENT | change), [outcome]), id=f"send: {label}")
        for label, change, outcome in (
            ("an id that is a number", {"message_id": 10011}, TAKEN),
            ("an id that is padded", {"message_id": "10011      "}, TAKEN),
            ("no price", {"price": None}, Accepted(ref="10011")),
            ("a price as text", {"price": "0.0110"}, Accepted(ref="10011", price="0.0110")),
            ("a small price is no power of ten", {"price": 0.00000055}, Accepted(ref="10011", price="0.00000055")),
        )
    ),
    # -- lookups that failed
    *(
        pytest.param(
            Case([LOOKUP], None, told(NUMBER_LOOKUP | {"lookup_status": words}), [
                failed("invalid", "lookup_status", f"the lookup ended with: {words}")
            ]),
            id=f"lookup: Status 0 and {words}",
        )
        for words in ("Unknown Subscriber", "Error", "No Errors")
    ),
    *(
        pytest.param(Case([LOOKUP], None, told(NUMBER_LOOKUP | change), [Found(result=LOOKED_UP | result)]),
                     id=f"lookup: {label}")
        for label, change, result in (
            ("ported, as text", {"is_ported": "true"}, {"is_ported": True}),
            ("out of reach is an answer", {"lookup_status": "Absent Subscriber"},
             {"lookup_status": "Absent Subscriber"}),
            ("ported is not known", {"is_ported": "perhaps"}, {"is_ported": None}),
            ("a number without its plus", {"international_format_number": "12125550150"}, {}),
            ("an id that is a number", {"mccmnc": 401223}, {"mccmnc": "401223"}),
        )
    ),
    # -- XML
    *(
        pytest.param(Case([job], None, told_in_xml(answer), [outcome]), id=f"XML: {label}")
        for label, job, answer, outcome in (
            (
                "an object in a namespace of its own", send(),
                SENT_XML, TAKEN,
            ),
            ("an object without one", BALANCE, "<Response><balance>0.7035</balance></Response>", MONEY),
            ("a list of one", REPORT, f"<Response {MODELS}>{MESSAGE_XML}</Response>",
             Found(result={"messages": [REPORTED]})),
            ("a list of two", REPORT, f"<Response {MODELS}>{MESSAGE_XML}{MESSAGE_XML}</Response>",
             Found(result={"messages": [REPORTED, REPORTED]})),
            ("an empty list", REPORT, f"<Response {MODELS}/>", Found(result={"messages": []})),
            ("a list in an object, d3p1, i:nil", LIST, NUMBERS_XML, Found(result={"numbers": [LISTED]})),
            ("an object in an object", LOOKUP, LOOKUP_XML, Found(result=LOOKED_UP)),
            ("success that is nil", BUY, '<Response i:nil="true"/>', lost("confirmation")),
            ("success that is empty", BUY, "<Response></Response>", lost("confirmation")),
            ("a search that is nil", REPORT, '<Response i:nil="true"/>', lost("list of messages")),
        )
    ),
    *(
        pytest.param(
            Case([send()], None, told_in_xml('<Response i:nil="true"/>', error, status), [failed(kind, *words)]),
            id=f"XML: {label}",
        )
        for label, error, status, kind, words in (
            ("refused", "<ErrorMessage>No</ErrorMessage>", 3, "unauthorized", ("3", "No")),
            ("refused, an empty error", "<ErrorMessage></ErrorMessage>", 4, "invalid",
             ("4", "Parameters are invalid.")),
            ("refused, an empty error of the other spelling", "<ErrorMessage/>", 1, "ambiguous",
             ("1", "Request has failed.")),
            ("no Status", "", "", "ambiguous", ("garbage", "the answer is not in the provider's words")),
        )
    ),
    pytest.param(
        Case([send()], None, f"<!DOCTYPE a [<!ENTITY b 'c'>]>{told_in_xml(f'<Response>{SENT}</Response>')}", [
            failed("ambiguous", "garbage", "the answer is not in the provider's words")
        ]),
        id="XML: a DTD is refused",
    ),
    *(
        pytest.param(
            Case([send()], None, f"{before}{told_in_xml(SENT_XML)}", [TAKEN]),
            id=f"XML: after {label}",
        )
        for label, before in (("a line break", "\r\n"), ("a line break and its declaration", '\n<?xml version="1.0"?>'))
    ),
    # -- what HTTP says beside it
    pytest.param(
        Case([send()], None, told(None, "Too many requests", 1),
             [Failure(kind=FailureKind.THROTTLED, code="429", message="too many requests", retry_after=7.0)],
             status=429, headers={"retry-after": "7"}),
        id="too many requests, in the vendor's words: 429 is surely not processed",
    ),
    *(
        pytest.param(Case([send()], None, told(SENT), [TAKEN], status=status), id=f"Status 0 counts, not HTTP {status}")
        for status in (201, 404, 500)
    ),
    *(
        pytest.param(
            Case([send()], None, refused(3), [failed("unauthorized", "3", "Credentials are invalid.")], status=status),
            id=f"Status 3 counts, not HTTP {status}",
        )
        for status in (200, 401, 500)
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES_)
def test_what_is_asked_and_answered_means(case: Case) -> None:
    run(SUBJECT, case, read)


@pytest.mark.parametrize(
    ("status", "of_a_send", "of_a_read"),
    [
        pytest.param(200, "ambiguous", "ambiguous", id="200: a page of something on the way"),
        pytest.param(401, "unauthorized", "unauthorized", id="401"),
        pytest.param(404, "not_sent", "not_sent", id="404: nobody is there"),
        pytest.param(429, "throttled", "throttled", id="429"),
        pytest.param(500, "ambiguous", "ambiguous", id="500"),
        pytest.param(503, "ambiguous", "throttled", id="503: a send may have been taken, a read is only late"),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"<html/>", b'{"Respo', b"<TheTexting>"], ids=["empty", "page", "half", "half XML"]
)
def test_without_its_own_words_the_http_code_tells(status: int, of_a_send: str, of_a_read: str, body: bytes) -> None:
    for job, kind in [(send(), of_a_send), (BUY, of_a_send), (BALANCE, of_a_read)]:
        outcome = parsed(job, Response(status=status, body=body))
        assert isinstance(outcome, Failure)
        assert (outcome.kind, outcome.code) == (kind, str(status) if status != 200 else "garbage")


# -- settings ----------------------------------------------------------------------------------------------------------


def test_the_sender_is_the_messages_else_the_accounts() -> None:
    adapter = SUBJECT.made(sender="+12125550198")
    for job, sender in [(send(), "12125550198"), (send(sender="ACME"), "ACME"), (VERIFY, "12125550198")]:
        assert read(adapter.build([job]).groups[0].request)[1]["from"] == sender


def test_the_format_is_part_of_the_path_and_whichever_comes_back_is_read() -> None:
    adapter = SUBJECT.made(format="xml")
    (group,) = adapter.build([send()]).groups
    assert group.request.url == "https://www.thetexting.com/rest/sms/xml/Message/Send"
    assert adapter.parse(Response(status=200, body=json.dumps(told(SENT)).encode()), group) == {"0001": TAKEN}


@pytest.mark.parametrize("value", ["yaml", "JSON", "json "])
def test_another_format_is_refused_when_it_is_built(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_PROVIDERS__SHOP_A__FORMAT is '.*'; write json or xml"):
        SUBJECT.made(format=value)


BY_GET = Subject(
    adapter=TheTexting, settings=KEYS | {"read_method": "get"}, requests=SUBJECT.requests,
    vocabulary=SUBJECT.vocabulary, envelope=SUBJECT.envelope, wrong_password=SUBJECT.wrong_password,
    in_url=frozenset({"lookup", "balance", *SEARCHES}),
)  # fmt: skip


def test_reads_may_go_as_their_pages_say_and_nothing_else_does() -> None:
    """AccountBalance: "This API call uses GET method"; a purchase by GET would be made again by whoever repeats it."""
    adapter = BY_GET.made()
    requests = {name: adapter.build([job]).groups[0].request for name, job in ALL_JOBS.items()}
    assert {name for name, request in requests.items() if request.method == "POST"} == WRITES
    credentials = "api_key=canary-key&api_secret=canary-secret"
    assert requests["balance"].url.endswith(f"/rest/sms/json/account/getbalance?{credentials}")
    assert requests["report"].url.endswith(f"/search/message?{credentials}&message_id=8")
    assert (requests["report"].body, requests["report"].headers) == (b"", {})


def test_a_search_by_get_is_read_as_one_by_post() -> None:
    adapter = BY_GET.made()
    for group in adapter.inquire([doubted(age=600.0)]):
        assert (group.request.method, group.cost) == ("GET", {"get": 1, "report": 1})
        news = adapter.news(answered([ROW]), group)
        assert isinstance(news, dict)
        assert news["0001"].evidence.endswith("1 there, 0 with this text: no proof, weak")


@pytest.mark.parametrize(("method", "other"), [("post", "get"), ("get", "post")])
def test_a_read_whose_method_is_refused_names_the_setting(method: str, other: str) -> None:
    for job in (BALANCE, LOOKUP, REPORT):
        failure = parsed(job, Response(status=405, body=b"<html>"), read_method=method)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.code) == (FailureKind.NOT_SENT, "405")
        assert failure.message.endswith(
            f"takes no {method.upper()} here; set DISPATCHER_PROVIDERS__SHOP_A__READ_METHOD={other}"
        )
    refused_send = parsed(send(), Response(status=405), read_method=method)
    assert isinstance(refused_send, Failure)
    assert "READ_METHOD" not in refused_send.message


@pytest.mark.parametrize("value", ["put", "POST", "get "])
def test_another_method_is_refused_when_it_is_built(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_PROVIDERS__SHOP_A__READ_METHOD is '.*'; write post or g"):
        SUBJECT.made(read_method=value)


# -- requests that are not made ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        pytest.param(send(text="a" * 3201), "text", "has 3201 characters, TheTexting takes 3200", id="too long"),
        pytest.param(
            SUBJECT.work("verify", Verify(to=ANN, template="[CODE]" + "a" * 3195), code="012837"),
            "text",
            "3201 characters",
            id="too long with the code in its place",
        ),
        pytest.param(send(options={"type": "unicode"}), "type", "known: none", id="the alphabet is ours to tell"),
        pytest.param(operation("number.search"), "country_code", "country_code is missing", id="no country"),
        pytest.param(operation("number.search", country_code="USA"), "country_code", "two letters", id="three letters"),
        pytest.param(operation("number.search", country_code=1), "country_code", "two letters", id="a code of 1"),
        pytest.param(
            operation("number.search", country_code="US", area_code="x"), "area_code", "digits only", id="no area"
        ),
        pytest.param(
            operation("number.search", country_code="US", pattern=True), "pattern", "digits only", id="a true pattern"
        ),
        pytest.param(operation("number.buy"), "number", "number is missing", id="buys nothing"),
        pytest.param(operation("number.buy", number="nobody"), "number", "letters", id="buys no number"),
        pytest.param(operation("report"), "message_id", "either message_id alone", id="a report of nothing"),
        pytest.param(operation("report", number=ANN), "number", "together with", id="a report without its day"),
        pytest.param(operation("report", message_sent_date="07-16-2015"), "message_sent_date", "together", id="of all"),
        pytest.param(
            operation("report", message_id="8", number=ANN, message_sent_date="07-16-2015"),
            "message_id",
            "alone",
            id="a report of both",
        ),
        pytest.param(operation("report", message_id=" "), "message_id", "not empty", id="a report of a blank"),
        pytest.param(
            operation("report", number=ANN, message_sent_date="2015-07-16"),
            "message_sent_date",
            "11-30-2026",
            id="another way to write a day",
        ),
        pytest.param(
            operation("report", number=ANN, message_sent_date="02-30-2026"),
            "message_sent_date",
            "11-30-2026",
            id="no day",
        ),
        pytest.param(operation("balance", currency="GBP"), "currency", "known: none", id="a balance with arguments"),
    ],
)
def test_what_it_could_never_take_is_refused_without_asking_it(job: Work, code: str, words: str) -> None:
    plan = SUBJECT.made().build([job])
    assert plan.groups == ()
    failure = plan.refused["0001"]
    assert (failure.kind, failure.code) == (FailureKind.INVALID, code)
    assert words in failure.message


def test_every_text_travels_alone() -> None:
    """SendMessage: "one recipient per request"."""
    jobs = [SUBJECT.work("send", Send(to=to, text="Hello"), to) for to in NUMBERS[:3]]
    groups = SUBJECT.made().build(jobs).groups
    assert [(len(group.jobs), group.cost) for group in groups] == [(1, {"post": 1, "send": 1})] * 3


# -- what became of texts ----------------------------------------------------------------------------------------------

#: 21-Nov-2026 16:00 UTC.
CREATED = 1_795_276_800_000


def doubted(job: Work | None = None, **fields: Any) -> Work:
    created = fields.get("created_at", CREATED)
    asked = {"state": State.UNKNOWN, "age": 3600.0, "created_at": created, "since": created + 60_000} | fields
    return msgspec.structs.replace(job or send(), **asked)


def answered(content: Any, status: int = 0) -> Response:
    return Response(status=200, body=json.dumps(told(content, status=status)).encode())


def asked_about(*jobs: Work) -> list[Group]:
    return [*SUBJECT.made().inquire(jobs)]


def news_of(job: Work, answer: Response) -> News | None:
    (group, *_) = asked_about(job)
    news = SUBJECT.made().news(answer, group)
    assert not isinstance(news, Failure)
    return news.get(job.id)


def test_receipts_are_asked_for_fifty_at_a_time() -> None:
    """SearchMessages: "A list of message ids e.g: message_id=123&message_id=124"."""
    jobs = [doubted(SUBJECT.work("send", id_=f"{at:04}"), state=State.SENT, ref=str(at)) for at in range(120)]
    groups = asked_about(*jobs)
    assert [len(group.jobs) for group in groups] == [50, 50, 20]
    assert groups[0].request.url.endswith("/rest/sms/json/search/messages")
    assert parse_qs(groups[0].request.body.decode())["message_id"] == [str(at) for at in range(50)]
    assert groups[0].cost == {"post": 1, "report": 1}


@pytest.mark.parametrize(
    ("word", "state", "kind"),
    [
        ("Delivered", State.DELIVERED, None), ("DELIVERED  ", State.DELIVERED, None),
        ("Rejected", State.UNDELIVERED, "rejected"), ("Failed", State.UNDELIVERED, "not_sent"),
        ("Undelivered", State.UNDELIVERED, "not_sent"),
    ],
)  # fmt: skip
def test_a_status_that_is_the_end(word: str, state: State, kind: str | None) -> None:
    news = news_of(doubted(state=State.SENT, ref="8"), answered([ROW | {"status": word}]))
    assert news is not None
    assert news.state == state
    assert (news.failure and news.failure.kind) == kind
    assert news.evidence == f"TheTexting says {word.strip()}"


@pytest.mark.parametrize("word", ["Sent", "sent", "Queued", "", None, 5])
def test_sent_and_unknown_words_decide_nothing(word: Any) -> None:
    assert news_of(doubted(state=State.SENT, ref="8"), answered([ROW | {"status": word}])) is None


def test_an_unknown_text_that_is_found_by_its_own_id_was_sent() -> None:
    news = news_of(doubted(ref="8"), answered([ROW]))
    assert news == News(state=State.SENT, evidence="report holds its id: strong", ref="8")


@pytest.mark.parametrize(
    "answer",
    [answered([]), answered(None, 5), answered(None, 1), answered([ROW | {"message_id": "88"}]), answered("no list"),
     Response(status=500), Response(status=200, body=b"<html>")],
    ids=["empty", "Status 5", "Status 1", "another id", "a sentence", "500", "a page"],
)  # fmt: skip
def test_silence_about_a_sent_text_decides_nothing(answer: Response) -> None:
    assert news_of(doubted(state=State.SENT, ref="8"), answer) is None


@pytest.mark.parametrize(
    ("hour", "waited", "days"),
    [
        pytest.param(0, 0, ["11-20-2026", "11-21-2026"], id="at midnight"),
        pytest.param(11, 0, ["11-20-2026", "11-21-2026", "11-22-2026"], id="before noon: three days somewhere"),
        pytest.param(16, 0, ["11-21-2026", "11-22-2026"], id="in the afternoon"),
        pytest.param(16, 48, ["11-21-2026", "11-22-2026", "11-23-2026", "11-24-2026"], id="it waited for two days"),
        pytest.param(16, 10 * 24, [], id="it waited for so long that it would be too many questions"),
    ],
)
def test_an_unknown_text_is_looked_for_on_each_day_that_it_may_bear(hour: int, waited: int, days: list[str]) -> None:
    """No page names a zone: anywhere from 12 hours behind UTC to 14 ahead, from its creation until it was in doubt."""
    created = CREATED + (hour - 16) * 3_600_000
    groups = asked_about(doubted(created_at=created, since=created + waited * 3_600_000))
    forms = [parse_qs(group.request.body.decode()) for group in groups]
    assert [(form["to"], form["message_sent_date"]) for form in forms] == [(["12125550150"], [day]) for day in days]


def test_no_text_on_any_of_the_days_is_strong_evidence() -> None:
    for nothing in (answered([]), answered(None, 5)):
        news = news_of(doubted(age=600.0), nothing)
        assert news is not None
        assert (news.state, news.failure and news.failure.kind) == (State.FAILED, FailureKind.NOT_SENT)
        assert news.evidence.endswith("strong")


@pytest.mark.parametrize(
    ("job", "answer"),
    [
        pytest.param(doubted(age=599.0), answered([]), id="too early"),
        pytest.param(doubted(), answered(None, 1), id="the search failed"),
        pytest.param(doubted(), Response(status=200, body=b"<html>"), id="a page"),
    ],
)  # fmt: skip
def test_what_does_not_show_that_there_is_none_decides_nothing(job: Work, answer: Response) -> None:
    assert news_of(job, answer) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("Another", "1 there, 0 with this text: no proof, weak"), ("Hello", "1 there, 1 with this text: no proof, weak")],
)
def test_a_text_of_the_same_day_is_no_proof(text: str, words: str) -> None:
    news = news_of(doubted(), answered([ROW | {"text": text}]))
    assert news == News(evidence=f"report by number and day (11-21): {words}")


def test_it_failed_only_if_every_day_says_so() -> None:
    """One answer that did not come, or that shows a text, leaves the job unknown."""
    groups = asked_about(doubted())
    gone = Word(provider="shop_a", own="0001", state=State.FAILED, detail="")
    there = Word(provider="shop_a", own="0001", state=None, detail="")
    assert len(groups) == 2
    assert _agreed(groups, [gone, gone]) == [gone]
    assert _agreed(groups, [gone]) == []
    assert _agreed(groups, [gone, there]) == [there]


# -- what became of purchases ------------------------------------------------------------------------------------------

NOT_ME = HELD | {"Number": "12125550159"}


@pytest.mark.parametrize(
    ("job", "before", "rows", "state"),
    [
        pytest.param(BUY, "not held", [HELD], State.COMPLETED, id="bought: it is there now"),
        pytest.param(BUY, "not held", [NOT_ME], State.FAILED, id="not bought"),
        pytest.param(BUY, "", [], State.FAILED, id="not bought: it is not there, and nobody looked before"),
        pytest.param(BUY, "held", [HELD], State.FAILED, id="not bought again: it was there before"),
        pytest.param(CANCEL, "held", [NOT_ME], State.COMPLETED, id="given back: it is gone"),
        pytest.param(CANCEL, "held", [HELD], State.FAILED, id="not given back"),
    ],
)
def test_the_accounts_numbers_tell_of_a_purchase(job: Work, before: str, rows: list[Any], state: State) -> None:
    news = news_of(doubted(job, baseline=before, age=60.0), answered(owned(*rows)))
    assert news is not None
    assert (news.state, news.evidence.endswith("strong")) == (state, True)
    assert news.result == ({"number": ANN} if state == State.COMPLETED else {})
    young = news_of(doubted(job, baseline=before, age=59.0), answered(owned(*rows)))
    assert (young is None) == (state == State.FAILED), "what is not there yet may still come"


@pytest.mark.parametrize(
    "answer",
    [answered(None, 1), answered(owned(HELD, count=2)), answered({"list_account_numbers": ["x"]}),
     answered(owned(HELD | {"Number": None})), Response(status=500), Response(status=200, body=b"<html>")],
    ids=["Status 1", "one of two", "a list of text", "no number", "500", "a page"],
)  # fmt: skip
def test_a_list_that_may_not_be_whole_decides_nothing(answer: Response) -> None:
    adapter = SUBJECT.made()
    for job in (BUY, CANCEL):
        assert news_of(doubted(job), answer) is None
        assert adapter.remember(answer, job) == ""


def test_a_wrong_password_is_one_request() -> None:
    """The read before a purchase is refused as the purchase would be; so are questions."""
    adapter = SUBJECT.made()
    for refusal in (answered(None, 3), Response(status=401), Response(status=200, body=AS_XML.wrong_password.body)):
        remembered = adapter.remember(refusal, BUY)
        assert isinstance(remembered, Failure)
        assert remembered.kind == FailureKind.UNAUTHORIZED
        for job in (doubted(BUY), doubted(), doubted(state=State.SENT, ref="8")):
            for group in asked_about(job):
                assert adapter.news(refusal, group) == remembered


def test_a_purchase_is_found_however_its_number_was_written() -> None:
    job = operation("number.buy", number="+1 (212) 555-0150")
    assert parsed(job, answered("Number: 12125550150 has been")) == Found(result={"number": ANN})
    assert SUBJECT.made().remember(answered(owned(HELD)), job) == "held"
    news = news_of(doubted(job, baseline="not held"), answered(owned(HELD)))
    assert news is not None
    assert (news.state, news.result) == (State.COMPLETED, {"number": ANN})


@pytest.mark.parametrize(("job", "rows"), [(BUY, [HELD]), (CANCEL, [])], ids=["bought", "given back"])
def test_where_nobody_looked_before_that_it_is_so_proves_nothing(job: Work, rows: list[Any]) -> None:
    """It may have been so all along."""
    news = news_of(doubted(job, baseline="", age=3600.0), answered(owned(*rows)))
    assert news is not None
    assert (news.state, news.evidence.endswith("nothing is known of before: weak")) == (None, True)


def test_the_numbers_are_read_before_a_purchase() -> None:
    adapter = SUBJECT.made()
    for job in (BUY, CANCEL):
        request = adapter.before(job)
        assert request is not None
        assert read(request) == ("account/numbers", {})
        assert adapter.remember(answered(owned(HELD)), job) == "held"
        assert adapter.remember(answered(owned(HELD | {"Number": "2125550150"})), job) == "held"
        assert adapter.remember(answered(owned(NOT_ME)), job) == "not held"
        assert adapter.remember(answered(None, 5), job) == "not held"
    assert adapter.before(send()) is None


def test_purchases_are_asked_about_together_and_reads_never() -> None:
    jobs = [doubted(job, id=name) for name, job in ALL_JOBS.items()]
    groups = [group for group in asked_about(*jobs) if group.jobs[0].operation not in {"send", "verify"}]
    assert [[job.id for job in group.jobs] for group in groups] == [["number.buy", "number.cancel"]]


# -- what it tells by itself -------------------------------------------------------------------------------------------

TEXTED = Inbound(sender=ANN, to="12125550199", text="This is a test message.", at="Jun 9 2017 09:41 AM")
FIELDS = {
    "from": "12125550150", "to": "12125550199", "text": "This is a test message.", "datetime": "Jun 9 2017 09:41 AM",
    "cost": "0.00",
}  # fmt: skip
TABLE: dict[str, str] = {
    "From": FIELDS["from"], "To": FIELDS["to"], "Text": FIELDS["text"], "Date-time": FIELDS["datetime"], "Cost": "0.00",
}  # fmt: skip
QUERY: str = urlencode(FIELDS)


@pytest.mark.parametrize(
    "callback",
    [
        pytest.param(Callback(method="GET", query=QUERY), id="the sample URL, with +"),
        pytest.param(Callback(method="GET", query=QUERY.replace("+", "%20")), id="with %20"),
        pytest.param(Callback(method="GET", query=urlencode(TABLE)), id="the table's names: From, Date-time"),
        pytest.param(Callback(method="GET", query=QUERY.replace("datetime", "date_time")), id="date_time"),
        pytest.param(Callback(method="GET", query=QUERY.upper().replace("%3A", ":").replace(
            urlencode({"x": FIELDS["text"]}).upper()[2:], urlencode({"x": FIELDS["text"]})[2:]
        ).replace("JUN+9", "Jun+9")), id="names in capitals"),
        pytest.param(Callback(method="POST", body=QUERY.encode()), id="a form"),
        pytest.param(Callback(method="POST", body=json.dumps(TABLE).encode()), id="JSON"),
        pytest.param(Callback(method="POST", query="token=x", body=QUERY.encode()), id="a form, beside our own query"),
    ],
)  # fmt: skip
def test_an_inbound_text_in_every_spelling(callback: Callback) -> None:
    assert SUBJECT.made().read(callback) == (TEXTED,)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"from": "123456"}, {"sender": "123456"}), ({"from": "+12125550150"}, {}), ({"from": " 12125550150"}, {}),
        ({"text": ""}, {"text": ""}), ({"text": " STOP "}, {"text": " STOP "}), ({"text": "1 < 2 & ü"},
        {"text": "1 < 2 & ü"}), ({"to": "1556985"}, {"to": "1556985"}), ({"datetime": ""}, {"at": ""}),
    ],
)  # fmt: skip
def test_an_inbound_text_is_kept_as_it_was_written(change: dict[str, str], expected: dict[str, str]) -> None:
    callback = Callback(method="GET", query=urlencode(FIELDS | change))
    assert SUBJECT.made().read(callback) == (msgspec.structs.replace(TEXTED, **expected),)


@pytest.mark.parametrize(
    ("fields", "state", "evidence"),
    [
        ({"message_id": "10011", "status": "Delivered"}, State.DELIVERED, "TheTexting says Delivered"),
        ({"MessageId": "10011   ", "Status": "DELIVERED"}, State.DELIVERED, "TheTexting says DELIVERED"),
        ({"message-id": "10011", "status": "Rejected", "to": "1"}, State.UNDELIVERED, "TheTexting says Rejected"),
        ({"messageid": "10011", "status": "Sent"}, None, "TheTexting says Sent"),
        ({"messageid": "10011", "status": "On its way", "text": "Hi", "from": "1"}, None, "TheTexting says On its way"),
    ],
)
@pytest.mark.parametrize("form", ["query", "form", "JSON"])
def test_a_delivery_callback_of_which_no_page_shows_the_fields(
    fields: dict[str, str], state: State | None, evidence: str, form: str
) -> None:
    callback = {
        "query": Callback(method="GET", query=urlencode(fields)),
        "form": Callback(method="POST", body=urlencode(fields).encode()),
        "JSON": Callback(method="POST", body=json.dumps(fields).encode()),
    }[form]
    (receipt,) = SUBJECT.made().read(callback)
    assert isinstance(receipt, Receipt)
    assert (receipt.ref, receipt.news.state, receipt.news.evidence) == ("10011", state, evidence)


@pytest.mark.parametrize(
    "callback",
    [
        Callback(method="GET"), Callback(method="GET", query="from=1"), Callback(method="GET", query="text=x"),
        Callback(method="GET", query="message_id=1"), Callback(method="GET", query="message_id=1&status="),
        Callback(method="POST", body=b"[]"), Callback(method="POST", body=b"\xff"), Callback(method="POST", body=b"{"),
    ],
    ids=["nothing", "no text", "from nobody", "no status", "an empty status", "a list", "no UTF-8", "half"],
)  # fmt: skip
def test_what_is_not_understood_is_nothing(callback: Callback) -> None:
    assert SUBJECT.made().read(callback) == ()


def test_any_answer_will_do() -> None:
    answer = SUBJECT.made().answer(Callback(method="GET", query=QUERY))
    assert (answer.status, answer.body) == (200, b"")


# -- XML in general ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"<a", b"<a></b>", b"\xff<a/>", b"<a>&b;</a>", b"<a>&#0;</a>", b"<a b='1' b='2'/>", b"<b:a/>",
        b"<a>\x00</a>", '<?xml version="1.0" encoding="utf-16"?><a/>'.encode("utf-16"), b"<a>" * 100_000,
        b"<a>" * 33 + b"</a>" * 33, b"<!DOCTYPE a><a/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", b"<a/><!-- <!ENTITY -->",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>".encode("utf-16"),
    ],
    ids=lambda body: f"{body[:40]!r} of {len(body)} bytes",
)  # fmt: skip
def test_what_is_no_plain_xml_is_none(body: bytes) -> None:
    assert xml.read(body) is None


def test_an_elements_name_has_no_namespace_and_its_text_no_blanks() -> None:
    root = xml.read(b'\xef\xbb\xbf<a xmlns:x="y" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">'
                    b'<x:b> 1 <!-- c -->2 </x:b><b i:nil="true"/><c i:nil="false"/><d/></a>')  # fmt: skip
    assert root is not None
    assert xml.name(root) == "a"
    assert [(xml.name(one), xml.text(one), xml.is_nil(one)) for one in root] == [
        ("b", "1 2", False), ("b", "", True), ("c", "", False), ("d", "", False),
    ]  # fmt: skip
    assert xml.value(root, lambda one: False) == {"b": None, "c": "", "d": ""}
    assert xml.value(root, lambda one: one is root) == ["1 2", None, "", ""]


NAMES = st.sampled_from([word for word in SUBJECT.vocabulary if word.isidentifier()])
WORDS = st.sampled_from([word for word in SUBJECT.vocabulary if "<" not in word]) | st.just("")
TREES = st.recursive(
    WORDS, lambda inner: st.lists(st.tuples(NAMES, inner), max_size=4).map(
        lambda rows: "".join(f"<{name}>{one}</{name}>" for name, one in rows)
    ), max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("operation_", sorted(ALL_JOBS))
def test_no_xml_makes_it_raise(operation_: str) -> None:
    """Whatever tree comes: an outcome that can be stored."""
    adapter = AS_XML.made()
    job = doubted(ALL_JOBS[operation_], ref="17")
    (group,) = adapter.build([job]).groups

    @profile(max_examples=60, deadline=None)
    @given(TREES, st.sampled_from([0, 0, 0, 5, 1, "", "x"]))
    def check(tree: str, status: int | str) -> None:
        answer = Response(status=200, body=told_in_xml(f"<Response>{tree}</Response>", status=status).encode())
        (outcome,) = adapter.parse(answer, group).values()
        if isinstance(outcome, Failure):
            records.encode_failure(outcome)
        elif isinstance(outcome, Found):
            assert msgspec.json.decode(msgspec.json.encode(outcome.result)) == outcome.result
        for asking in adapter.inquire([job]):
            adapter.news(answer, asking)
        if adapter.before(job) is not None:
            adapter.remember(answer, job)

    check()


# -- what all adapters keep --------------------------------------------------------------------------------------------


def test_every_word_that_is_known_has_a_case() -> None:
    assert set(_STATES) == {"delivered", "rejected", "failed", "undelivered"}


@every_check
def test_it_keeps_what_all_adapters_keep(check: Any) -> None:
    check(SUBJECT)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.replace("_", " "))
@pytest.mark.parametrize("subject", [AS_XML, BY_GET], ids=["in XML", "by GET"])
def test_it_keeps_it_in_other_ways_too(subject: Subject, check: Any) -> None:
    check(subject)


def test_the_samples_are_those_of_the_cases_folder() -> None:
    assert json.loads(runner.sample("thetexting", "failure.answer")) == refused(2, "Parameters Missing")
