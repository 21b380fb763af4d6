"""Club Texting, against the samples, words and traps of its "REST API Documentation" and of its vendor's client."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from dispatcher.errors import ConfigurationError
from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found
from dispatcher.states import State
from tests.providers import runner
from workers.conformance import Case, Subject, answers, every_check, run
from workers.providers.base import Answer, Callback, Inbound, News, Request, Response
from workers.providers.clubtexting import ClubTexting

SAMPLES = Path(__file__).parent / "cases" / "clubtexting"

#: Numbers of nobody, in New York and in Toronto.
NUMBERS = tuple(f"+121255501{ending:02}" for ending in range(10))
ANN, BOB, EVE, DAN = NUMBERS[:4]
CANADIAN = "+14165550100"
#: The document's four.
FOUR = tuple(f"+1212345678{last}" for last in (5, 6, 7, 8))

CARD: dict[str, Any] = {
    "first_name": "Winnie", "last_name": "The Pooh", "street": "Hollow tree, under the name of Mr. Sanders",
    "city": "Hundred Acre Woods", "state": "East Sussex", "zip": "12345", "country": "UK",
    "credit_card_type_id": "Visa", "card_number": "4111111111111111", "security_code": "123",
    "expiration_month": "10", "expiration_year": "2017",
}  # fmt: skip
STORED = {"stored_credit_card": "1111"}


def envelope(content: Any) -> Any:
    """Objects as an entry, lists as the reasons of a refusal, anything else in place of it all."""
    if isinstance(content, dict):
        return {"Response": {"Status": "Success", "Code": 200, "Entry": content, "Entries": [*content.values()]}}
    if isinstance(content, list):
        return {"Response": {"Status": "Failure", "Code": 403, "Errors": content}}
    return {"Response": content}


SUBJECT = Subject(
    adapter=ClubTexting,
    settings={"user": "canary-user", "password": "canary-password"},
    requests={
        "send": Send(to=ANN, text="Hello"),
        "verify": Verify(to=ANN, template="Your code is [CODE]"),
        "lookup": Lookup(to=ANN),
        "balance": OperationRequest(),
        "credits.buy": OperationRequest(arguments={"number_of_credits": "1000", **STORED}),
        "keyword.check": OperationRequest(arguments={"keyword": "honey"}),
        "keyword.rent": OperationRequest(arguments={"keyword": "honey", **STORED}),
        "keyword.setup": OperationRequest(arguments={"keyword": "honey", "join_message": "Welcome"}),
        "keyword.cancel": OperationRequest(arguments={"keyword": "honey"}),
        "report": OperationRequest(arguments={"id": "6419"}),
    },
    more=[
        ("send", Send(to=ANN, text="Hello", options={"subject": "Hi", "stamp_to_send": 1305582245})),
        ("keyword.rent", OperationRequest(arguments={"keyword": "honey", **CARD})),
        ("credits.buy", OperationRequest(arguments={"number_of_credits": 1000, "coupon_code": "BEE", **CARD})),
        ("report", OperationRequest(arguments={"id": "6419", "status": "delivered"})),
    ],
    vocabulary=[
        "Response", "Status", "Code", "Errors", "Entry", "Entries", "Success", "Failure", "ID", "PhoneNumbers",
        "LocalOptOuts", "GlobalOptOuts", "Credits", "Available", "TotalCredits", "PlanCredits", "Keyword",
        "ConfirmMessage", "JoinMessage", "Message", "ContactGroupIDs", "CarrierName", "PhoneNumber", "Count",
        "Percentage", "Delivered", "Bounced", "Sorry, nothing was found", "Access Forbidden", "PhoneNumbers: '1'",
        "Keyword: The keyword 'honey' is unavailable", "credits", "from", "message", "Subject", "InboundID", "1",
        "true", "17", "available", "999000",
    ],
    envelope=envelope,
    samples=lambda: [
        *runner.printed("clubtexting", "*.json"), *runner.printed("clubtexting", "*.xml"), *answers(CASES),
    ],
    calls=lambda: [
        Callback(method="POST", body=b"PhoneNumber=2125550100&Message=Yes+please&Subject="),
        Callback(method="POST", body=b'{"phone_number": 2125550100, "MESSAGE": "Yes please"}'),
        Callback(method="GET", query="From=%2B12125550100&Message=Yes%20please"),
    ],
    wrong_password=Response(
        status=200, body=b'{"Response":{"Status":"Failure","Code":401,"Errors":["Authorization Required"]}}'
    ),
    # GET and DELETE take User and Password in the query only.
    in_url=frozenset({"balance", "keyword.check", "keyword.cancel", "lookup", "report"}),
    numbers=NUMBERS,
    # The page of the HTTP API: "your request will not be processed".
    not_processed=frozenset({503}),
)  # fmt: skip


def send(to: str = ANN, text: str = "Hello", id_: str = "0001", **options: Any) -> Work:
    return SUBJECT.work("send", Send(to=to, text=text, options=options), id_)


def verify(to: str = ANN, template: str = "Your code is [CODE]", id_: str = "0001", **options: Any) -> Work:
    return SUBJECT.work("verify", Verify(to=to, template=template, options=options), id_)


def lookup(to: str = ANN) -> Work:
    return SUBJECT.work("lookup", Lookup(to=to))


def operation(name: str, **arguments: Any) -> Work:
    return SUBJECT.work(name, OperationRequest(arguments=arguments))


def told(job: Work, **fields: Any) -> Work:
    """A job of which a worker knows more: what came before, what was read, how old it is."""
    return SUBJECT.work(job.operation, job.request, job.id, **fields)


BALANCE = operation("balance")
CHECK = operation("keyword.check", keyword="honey")
RENT = operation("keyword.rent", keyword="honey", **STORED)
SETUP = operation("keyword.setup", keyword="honey", join_message="Welcome")
CANCEL = operation("keyword.cancel", keyword="honey")
BUY = operation("credits.buy", number_of_credits="1000", **STORED)
REPORT = operation("report", id="6419")
BOUNCED = operation("report", id="6419", status="bounced")
FOUR_SENDS = [send(to, "I am a Bear", id_=to) for to in FOUR]


def printed(name: str) -> bytes:
    """A sample as the document prints it, but for two signs without which its list of signs is no XML."""
    return (SAMPLES / name).read_bytes().replace(b"&, '", b"&amp;, '").replace(b" <, ", b" &lt;, ")


def fields(query: str) -> list[tuple[str, str]]:
    return sorted(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))


def read(request: Request) -> Any:
    """A request as it is compared: verb, path, query and form."""
    parts = urlsplit(request.url)
    assert f"{parts.scheme}://{parts.netloc}" == "https://app.clubtexting.com"
    form = {"Content-Type": "application/x-www-form-urlencoded"} if request.method == "POST" else {}
    assert request.headers == form
    return request.method, parts.path, fields(parts.query), fields(request.body.decode())


LOGIN = {"User": "canary-user", "Password": "canary-password"}


def got(path: str, method: str = "GET", **query: str) -> Any:
    return method, path, sorted((query | LOGIN | {"format": "json"}).items()), []


def posted(path: str, *pairs: tuple[str, str], **form: str) -> Any:
    return "POST", path, [("format", "json")], sorted([*(LOGIN | form).items(), *pairs])


def good(code: int = 200, **entry: Any) -> dict[str, Any]:
    return {"Response": {"Status": "Success", "Code": code, "Entry": entry}}


def refused(*errors: str, code: int = 403) -> dict[str, Any]:
    return {"Response": {"Status": "Failure", "Code": code, "Errors": [*errors]}}


def failed(kind: str, message: str, code: str = "403", *, permission: bool = False) -> Failure:
    return Failure(kind=FailureKind(kind), code=code, message=message, permission=permission)


def lost(what: str) -> Failure:
    return Failure(kind=FailureKind.AMBIGUOUS, code="incomplete", message=f"the answer holds no {what}")


LOCAL = Failure(
    kind=FailureKind.OPTED_OUT, code="LocalOptOuts", message="the person has opted out of this account's texts"
)
GLOBAL = Failure(
    kind=FailureKind.OPTED_OUT, code="GlobalOptOuts",
    message="the person has opted out of all texts from the short code",
)  # fmt: skip
NEIGHBOUR = Failure(
    kind=FailureKind.NOT_SENT, code="403", message="refused as a whole for another's number in the request"
)
UNSURE = lost("word on this number")
HONEY = {
    "id": "147258369", "keyword": "honey", "enable_double_opt_in": False, "confirm_message": "Reply Y to join",
    "join_message": "Thank you for joining our list", "forward_email": "", "forward_url": "", "contact_group_ids": [],
}  # fmt: skip
#: What is known of it where the answer says no more than its id.
SILENT = HONEY | {"enable_double_opt_in": None, "confirm_message": "", "join_message": ""}
SWEETER = HONEY | {
    "enable_double_opt_in": True, "confirm_message": "Reply Y to join our sweetest list",
    "join_message": "The only reason for being a bee that I know of, is to make honey. And the only reason for making "
    "honey, is so as I can eat it.",
    "forward_email": "honey@bear-alliance.co.uk", "forward_url": "http://bear-alliance.co.uk/honey-donations/",
    "contact_group_ids": ["honey lovers"],
}  # fmt: skip
MONEY = {
    "balance": "153", "available": "153", "currency": None, "plan_credits": "15", "anytime_credits": "138",
    "total_credits": "153",
}  # fmt: skip
BOUGHT = {
    "bought_credits": "1000", "amount": "9.45", "discount": "0.55", "plan_credits": "10", "anytime_credits": "1200",
    "total_credits": "1210",
}  # fmt: skip


# -- the document's own samples, as files on disk ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        pytest.param(
            "send",
            [
                send(
                    to, "I am a Bear of Very Little Brain, and long words bother me", id_=to, subject="From Winnie",
                    stamp_to_send=1305582245,
                )
                for to in FOUR
            ],
            id="Sending SMS Messages",
        ),
        pytest.param("keyword.check", [CHECK], id="Check Keyword Availability"),
        pytest.param("keyword.rent", [RENT], id="Rent a Keyword, stored card"),
        pytest.param(
            "keyword.rent.card", [operation("keyword.rent", keyword="honey", **CARD)], id="Rent, another card"
        ),
        pytest.param(
            "keyword.setup",
            [
                operation(
                    "keyword.setup", keyword="honey", enable_double_opt_in=True,
                    contact_group_ids="honey lovers",
                    **{name: SWEETER[name] for name in SWEETER if name.endswith(("_message", "_email", "_url"))},
                )
            ],
            id="Setup A Keyword",
        ),
        pytest.param("keyword.cancel", [CANCEL], id="Cancel A Keyword"),
        pytest.param("balance", [BALANCE], id="Check Credit Balance"),
        pytest.param("credits.buy", [BUY], id="Buy Credits, stored card"),
        pytest.param(
            "credits.buy.card", [operation("credits.buy", number_of_credits=1000, **CARD)], id="Buy, another card"
        ),
    ],
)  # fmt: skip
def test_a_request_is_as_the_document_prints_it(name: str, jobs: list[Work]) -> None:
    verb, url, form = curl(printed(f"{name}.curl.txt").decode())
    (group,) = ClubTexting("shop_a", {"user": "winnie", "password": "the-pooh"}).build(jobs).groups
    # A stray blank behind the sample's address of an e-mail is not sent.
    assert read(group.request) == read(Request(method=verb, url=url, headers=group.request.headers, body=form))


def curl(line: str) -> tuple[str, str, bytes]:
    """Verb, URL and form of a command as the document prints it."""
    words = shlex.split(line)
    form = words[words.index("-d") + 1].replace(" &", "&") if "-d" in words else ""
    verb = "DELETE" if "DELETE" in words else "POST" if form else "GET"
    return verb, words[-1], form.encode()


def test_the_first_sample_writes_its_login_in_small_letters_and_we_never_do() -> None:
    """Every other sample and every table has `User` and `Password`."""
    _, _, form = curl(printed("send.xml.curl.txt").decode())
    assert form.startswith(b"user=winnie&password=")
    for name, asked in SUBJECT.asked:
        (group,) = SUBJECT.made().build([SUBJECT.work(name, asked)]).groups
        assert "user" not in dict([*read(group.request)[2], *read(group.request)[3]])


@pytest.mark.parametrize("form", ["json", "xml"])
@pytest.mark.parametrize(
    ("name", "status", "jobs", "outcomes"),
    [
        pytest.param(
            "send", 201, FOUR_SENDS, [GLOBAL, LOCAL, "accepted", "accepted"], id="Sending: opt-outs within a success"
        ),
        pytest.param(
            "keyword.check", 200, [CHECK], [Found(result={"keyword": "honey", "available": True})],
            id="Check Keyword Availability: true, or 1",
        ),
        pytest.param(
            "keyword.rent", 201, [RENT], [Found(result=HONEY, ref="147258369")], id="Rent: empty text, empty lists"
        ),
        pytest.param(
            "keyword.setup", 200, [SETUP], [Found(result=SWEETER, ref="147258369")], id="Setup: groups, or a Group"
        ),
        pytest.param("balance", 200, [BALANCE], [Found(result=MONEY)], id="Check Credit Balance"),
        pytest.param("credits.buy", 201, [BUY], [Found(result=BOUGHT)], id="Buy Credits"),
    ],
)  # fmt: skip
def test_an_answer_is_read_as_the_document_prints_it(
    name: str, status: int, jobs: list[Work], outcomes: list[Any], form: str
) -> None:
    """Both formats mean the same, but for the id: 6419 in XML, 6417853 in JSON."""
    accepted = Accepted(ref={"json": "6417853", "xml": "6419"}[form])
    outcomes = [accepted if one == "accepted" else one for one in outcomes]
    run(SUBJECT, Case(jobs, None, printed(f"{name}.{form}"), outcomes, status=status), read)


@pytest.mark.parametrize(
    ("name", "job", "outcome"),
    [
        pytest.param("unauthorized", send(), failed("unauthorized", "Authorization Required", "401"), id="401"),
        pytest.param(
            "send.refused", send(),
            failed(
                "invalid",
                "PhoneNumbers: '...' contains characters which are not digits; Subject: Your subject must be under 13 "
                "characters.; Message: Your message contains characters that are not supported.",
            ),
            id="Sending: three fields",
        ),
        pytest.param(
            "keyword.check.refused", CHECK,
            failed(
                "invalid",
                "Keyword: Keywords can not contain spaces or the following characters: ?, @, ., !, [, ], {, }, -, +, "
                "#, $, %, &, ', (, ), *, /, \\, :, ;, <, >, =, ^, `, |, ~",
            ),
            id="Check: a keyword",
        ),
        pytest.param(
            "credits.buy.refused", BUY,
            failed(
                "invalid",
                "NumberOfCredits: '...' contains characters which are not digits; FirstName: Value is required and "
                "can't be empty; LastName: Value is required and can't be empty; Number: '...' contains an invalid "
                "amount of digits",
            ),
            id="Buy: a card, whose number is not repeated",
        ),
        pytest.param(
            "keyword.setup.refused", SETUP,
            failed(
                "invalid",
                "JoinMessage: Value is required and can't be empty; ForwardEmail: '...' is not a valid email address; "
                "ForwardUrl: '...' is not a valid URI",
            ),
            id="Setup: three fields",
        ),
        pytest.param(
            "keyword.cancel.refused", CANCEL, failed("invalid", "Sorry, nothing was found"), id="Cancel: nothing"
        ),
    ],
)  # fmt: skip
def test_a_refusal_is_read_as_the_document_prints_it(name: str, job: Work, outcome: Failure) -> None:
    """It prints them in XML only."""
    status = 401 if name == "unauthorized" else 403
    run(SUBJECT, Case([job], None, printed(f"{name}.xml"), [outcome], status=status), read)


def test_a_refusal_of_a_rental_repeats_nothing_of_the_card() -> None:
    (outcome,) = parsed(RENT, Response(status=403, body=printed("keyword.rent.refused.xml")))
    assert outcome.kind == FailureKind.INVALID
    assert "123456" not in outcome.message


# -- one table: what is asked for, the request, the answer, what it means ----------------------------------------------

SENT = good(201, ID=6417853, Credits=2, PhoneNumbers=["2125550100"], LocalOptOuts=[], GlobalOptOuts=[])
DONE = [Accepted(ref="6417853", price="2 credits")]
COUNTS: dict[str, Any] = {
    "Delivered": {"Count": 1, "Percentage": "100.00"}, "Bounced": {"Count": 0, "Percentage": "0.00"},
    "Not Available": {"Count": 0, "Percentage": "0.00"}, "Not Sent - No Credits": {"Count": 0, "Percentage": "0.00"},
    "Not Sent - Opted Out": {"Count": 0, "Percentage": "0.00"},
}  # fmt: skip
NONE = {"count": 0, "percentage": "0.00"}


def sent(**lists: Any) -> dict[str, Any]:
    return good(201, ID=6417853, **lists)


def accepted(count: int = 1) -> list[Any]:
    return [Accepted(ref="6417853")] * count


CASES: list[Any] = [
    # -- requests
    pytest.param(
        Case(
            [send()], posted("/sending/messages", ("PhoneNumbers[]", "2125550100"), Message="Hello"), SENT, DONE,
            status=201,
        ),
        id="send: ten digits, and no more than is needed",
    ),
    pytest.param(
        Case(
            [send(), send(BOB, id_="0002")],
            posted(
                "/sending/messages", ("PhoneNumbers[]", "2125550100"), ("PhoneNumbers[]", "2125550101"), Message="Hello"
            ),
            sent(PhoneNumbers=["2125550100", "2125550101"]), accepted(2), status=201,
        ),
        id="send: one text to two numbers, an array",
    ),
    pytest.param(
        Case(
            [send(text='A&B=C+D %41\r\n"x"', subject="Hi; you", message_type_id=2, stamp_to_send="1305582245")],
            posted(
                "/sending/messages", ("PhoneNumbers[]", "2125550100"), Message='A&B=C+D %41\r\n"x"',
                Subject="Hi; you", MessageTypeID="2", StampToSend="1305582245",
            ),
            SENT, DONE, status=201,
        ),
        id="send: any text arrives as it is, with all options",
    ),
    pytest.param(
        Case(
            [verify()],
            posted("/sending/messages", ("PhoneNumbers[]", "2125550100"), Message="Your code is 907263"), SENT, DONE,
            status=201,
        ),
        id="verify: a text with our code in it",
    ),
    pytest.param(
        Case(
            [lookup()], got("/sending/phone-numbers/2125550100"), good(PhoneNumber="2125550100", CarrierName="ATTUS"),
            [Found(result={"phone_number": "+12125550100", "carrier_name": "ATTUS"})],
        ),
        id="lookup: a carrier's code",
    ),
    pytest.param(
        Case(
            [operation("keyword.setup", keyword="zażółć", enable_double_opt_in="false", forward_url="")],
            posted("/keywords/za%C5%BC%C3%B3%C5%82%C4%87", EnableDoubleOptIn="0", ForwardUrl=""),
            good(ID=1, Keyword="zażółć", EnableDoubleOptIn=False),
            [Found(result=SILENT | {"id": "1", "keyword": "zażółć", "enable_double_opt_in": False}, ref="1")],
        ),
        id="setup: a keyword in the path is percent-encoded",
    ),
    pytest.param(
        Case(
            [operation("keyword.setup", keyword="honey", contact_group_ids=["a", "b"], alternate_reply="Again?")],
            posted(
                "/keywords/honey", ("ContactGroupIDs[]", "a"), ("ContactGroupIDs[]", "b"), AlternateReply="Again?"
            ),
            good(ID=147258369), [Found(result=SILENT, ref="147258369")],
        ),
        id="setup: groups are an array of names; what is left out of the answer is unknown",
    ),
    pytest.param(
        Case(
            [operation("report", id=6419)], got("/sending/reports/6419/"), good(**COUNTS),
            [Found(result={
                "id": "6419", "delivered": {"count": 1, "percentage": "100.00"}, "bounced": NONE, "not_available": NONE,
                "not_sent_no_credits": NONE, "not_sent_opted_out": NONE,
            })],
        ),
        id="report: counts",
    ),
    pytest.param(
        Case(
            [operation("report", id="6419", status="Bounced")],
            got("/sending/reports/6419/view-details", status="bounced"),
            {"Response": {"Status": "Success", "Code": 200, "Entries": [2125550100, "2125550101"]}},
            [Found(result={"id": "6419", "status": "bounced", "phone_numbers": ["+12125550100", "+12125550101"]})],
        ),
        id="report: numbers as JSON integers",
    ),
    pytest.param(
        Case(
            [BOUNCED], None, b"<Response><Status>Success</Status><Code>200</Code><Entries><Entry>2125550100</Entry>"
            b"</Entries></Response>",
            [Found(result={"id": "6419", "status": "bounced", "phone_numbers": ["+12125550100"]})],
        ),
        id="report: numbers in XML, by inference",
    ),
    pytest.param(
        Case(
            [operation("keyword.rent", keyword="honey", **CARD | {"card_number": "4111 1111-1111 1111"})],
            posted(
                "/keywords", Keyword="honey", FirstName="Winnie", LastName="The Pooh", Street=CARD["street"],
                City="Hundred Acre Woods", State="East Sussex", Zip="12345", Country="UK", CreditCardTypeID="Visa",
                Number="4111111111111111", SecurityCode="123", ExpirationMonth="10", ExpirationYear="2017",
            ),
            good(201, ID=147258369), [Found(result=SILENT, ref="147258369")], status=201,
        ),
        id="rent: Zip and Number by the vendor's names",
    ),
    # -- opt-outs and others within a success
    pytest.param(
        Case([send()], None, sent(PhoneNumbers=["2125550100"]), accepted(), status=201),
        id="send: lists of opt-outs may be absent",
    ),
    pytest.param(
        Case([send()], None, sent(PhoneNumbers=[2125550100]), accepted(), status=201),
        id="send: numbers without quotes",
    ),
    pytest.param(
        Case([send()], None, sent(PhoneNumbers=["12125550100"]), accepted(), status=201),
        id="send: numbers with their country",
    ),
    pytest.param(
        Case([send()], None, sent(PhoneNumbers=[], LocalOptOuts=["2125550100"]), [LOCAL], status=201),
        id="send: nobody is left",
    ),
    pytest.param(
        Case([verify()], None, sent(PhoneNumbers=[], GlobalOptOuts=["2125550100"]), [GLOBAL], status=201),
        id="verify: nobody is left",
    ),
    pytest.param(
        Case(
            [send(), send(BOB, id_="0002")], None, sent(PhoneNumbers=["2125550101"], LocalOptOuts=[], GlobalOptOuts=[]),
            [UNSURE, *accepted()], status=201,
        ),
        id="send: a number in no list may have been texted",
    ),
    pytest.param(
        Case([send()], None, sent(PhoneNumbers=["2125550100"], LocalOptOuts=["2125550100"]), accepted(), status=201),
        id="send: in two lists, it may have been texted",
    ),
    pytest.param(
        Case([send()], None, good(201, ID=" 6417853 ", PhoneNumbers=["2125550100"]), accepted(), status=201),
        id="send: an id with blanks around it",
    ),
    pytest.param(
        Case([send()], None, good(201, PhoneNumbers=["2125550100"]), [Accepted()], status=201),
        id="send: without an id it is taken all the same",
    ),
    pytest.param(Case([send()], None, b"", [UNSURE], status=204), id="send: a 204 says nothing of anybody"),
    pytest.param(Case([send()], None, good(201), [UNSURE], status=201), id="send: an empty entry neither"),
    # -- refusals that name numbers
    pytest.param(
        Case(
            [send(), send(BOB, id_="0002"), send(EVE, id_="0003")], None,
            refused("PhoneNumbers: '2125550101' is not a valid phone number"),
            [NEIGHBOUR, failed("invalid", "PhoneNumbers: '...' is not a valid phone number"), NEIGHBOUR], status=403,
        ),
        id="send: one bad number is that number's fault; the others were not sent",
    ),
    pytest.param(
        Case(
            [send(), send(BOB, id_="0002")], None,
            refused("PhoneNumbers: '2125550101' is bad", "Subject: Your subject must be under 13 characters."),
            [failed("invalid", "PhoneNumbers: '...' is bad; Subject: Your subject must be under 13 characters.")] * 2,
            status=403,
        ),
        id="send: a bad subject is everybody's",
    ),
    pytest.param(
        Case(
            [send(), send(BOB, id_="0002")], None, refused("PhoneNumbers: Value is required"),
            [failed("invalid", "PhoneNumbers: Value is required")] * 2, status=403,
        ),
        id="send: numbers, but none by name",
    ),
    # -- 403 by its words
    *(
        pytest.param(Case([job], None, refused(*errors), [outcome], status=403), id=f"403: {label}")
        for label, job, errors, outcome in (
            ("no access", send(), ["Access Forbidden"], failed("unauthorized", "Access Forbidden", permission=True)),
            (
                "no credits", send(), ["You do not have enough credits"],
                failed("insufficient_funds", "You do not have enough credits"),
            ),
            (
                "Credit Limit Reached", send(), ["Credit Limit Reached"],
                failed("insufficient_funds", "Credit Limit Reached"),
            ),
            (
                "a field's name before words about credits", BUY, ["NumberOfCredits: not enough credits"],
                failed("invalid", "NumberOfCredits: not enough credits"),
            ),
            (
                "a field's name before other words", send(), ["Message: Access Forbidden, no credits"],
                failed("invalid", "Message: Access Forbidden, no credits"),
            ),
            (
                "a credit card is no credit", BUY, ["Your credit card was declined"],
                failed("invalid", "Your credit card was declined"),
            ),
            ("unknown words", send(), ["Something else"], failed("invalid", "Something else")),
            ("no words", send(), [], failed("invalid", "it gives no reason")),
            ("words that are none", send(), [{"a": 1}, True, None], failed("invalid", "it gives no reason")),
            (
                "an unavailable keyword, when asked", CHECK, ["Keyword: The keyword 'honey' is unavailable"],
                Found(result={"keyword": "honey", "available": False}),
            ),
            (
                "an unavailable keyword, when rented", RENT, ["Keyword: The keyword 'honey' is unavailable"],
                failed("invalid", "Keyword: The keyword 'honey' is unavailable"),
            ),
            (
                "nothing found, at the first attempt", CANCEL, ["Sorry, nothing was found"],
                failed("invalid", "Sorry, nothing was found"),
            ),
            (
                "nothing found, after one that may have been taken", told(CANCEL, doubtful=True),
                ["Sorry, nothing was found"], Found(result={"keyword": "honey", "cancelled": True}),
            ),
            (
                "nothing found, of something else", told(SETUP, doubtful=True), ["Sorry, nothing was found"],
                failed("invalid", "Sorry, nothing was found"),
            ),
        )
    ),
    # -- other codes, in its own words
    pytest.param(
        Case([send()], None, refused("Sorry, nothing was found", code=404), [
            failed("invalid", "Sorry, nothing was found", "404")
        ], status=404),
        id="404 in its own words is no other address",
    ),
    pytest.param(
        Case([send()], None, refused("Bad request", code=400), [failed("invalid", "Bad request", "400")], status=400),
        id="400 in its own words",
    ),
    pytest.param(
        Case([send()], None, refused("Broken", code=500), [failed("ambiguous", "Broken", "500")], status=500),
        id="500 in its own words is in doubt",
    ),
    pytest.param(
        Case([send()], None, refused("Authorization Required", code=401), [
            failed("unauthorized", "Authorization Required", "401")
        ]),
        id="a failure within a 200 counts by its code",
    ),
    pytest.param(
        Case([send()], None, refused("Odd", code=201), [failed("ambiguous", "Odd", "201")], status=201),
        id="a failure whose code is a success is in doubt",
    ),
    pytest.param(
        Case([send()], None, SENT | {"Response": SENT["Response"] | {"Code": 500}}, [
            failed("ambiguous", "it gives no reason", "500")
        ], status=500),
        id="a success within a 500 is in doubt",
    ),
    # -- results
    pytest.param(
        Case([CANCEL], got("/keywords/honey", "DELETE"), b"", [Found(result={"keyword": "honey", "cancelled": True})],
             status=204),
        id="cancel: a 204 has no body",
    ),
    pytest.param(
        Case([SETUP], None, good(
            ID=147258369, Keyword="honey", EnableDoubleOptIn=True, ForwardEmail=None, ContactGroupIDs="",
            ConfirmMessage={"Message": "Reply Y to join", "MessageTypeID": 1, "Subject": ""},
            JoinMessage={"Message": "Thank you for joining our list"},
        ), [Found(result=HONEY | {"enable_double_opt_in": True}, ref="147258369")]),
        id="setup: newer answers have objects for messages",
    ),
    *(
        pytest.param(Case([CHECK], None, good(Keyword="honey", Available=value), [outcome]), id=f"check: {value!r}")
        for value, outcome in (
            (False, Found(result={"keyword": "honey", "available": False})),
            ("0", Found(result={"keyword": "honey", "available": False})),
            ("true", Found(result={"keyword": "honey", "available": True})),
            ("perhaps", lost("word on the keyword")), (None, lost("word on the keyword")),
        )
    ),
    pytest.param(Case([BALANCE], None, good(PlanCredits=15), [lost("balance")]), id="balance: without a total"),
    pytest.param(Case([BALANCE], None, good(TotalCredits=True), [lost("balance")]), id="balance: true is no number"),
    pytest.param(
        Case([BALANCE], None, good(TotalCredits="12.50"), [
            Found(result=MONEY | {
                "balance": "12.50", "available": "12.50", "plan_credits": None, "anytime_credits": None,
                "total_credits": "12.50",
            })
        ]),
        id="balance: a total alone",
    ),
    pytest.param(Case([lookup()], None, good(PhoneNumber="2125550100"), [lost("carrier")]), id="lookup: no carrier"),
    pytest.param(Case([REPORT], None, good(Sent={"Count": 1}), [lost("counts")]), id="report: no count that is known"),
    pytest.param(Case([BOUNCED], None, good(), [lost("entries")]), id="report: no entries"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_asked_and_answered_means(case: Case) -> None:
    run(SUBJECT, case, read)


def parsed(job: Work, answer: Response) -> list[Any]:
    (group,) = SUBJECT.made().build([job]).groups
    return [*SUBJECT.made().parse(answer, group).values()]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        pytest.param(200, "ambiguous", id="200: a page of something on the way"),
        pytest.param(401, "unauthorized", id="401"),
        pytest.param(404, "not_sent", id="404: nobody is there"),
        pytest.param(429, "throttled", id="429"),
        pytest.param(500, "ambiguous", id="500"),
        pytest.param(503, "throttled", id="503: too many at once, and not processed by the vendor's own word"),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"Response'], ids=["empty", "a page", "half an answer"])
def test_of_a_send_without_its_own_words_the_status_tells(status: int, kind: str, body: bytes) -> None:
    (outcome,) = parsed(send(), Response(status=status, body=body))
    assert (outcome.kind, outcome.code) == (kind, str(status) if status != 200 else "garbage")


def test_a_503_is_a_penalty_whatever_its_words_and_whatever_was_asked() -> None:
    for name in SUBJECT.requests:
        answer = Response(status=503, headers={"retry-after": "7"}, body=json.dumps(refused("x", code=503)).encode())
        (outcome,) = parsed(SUBJECT.work(name), answer)
        assert (outcome.kind, outcome.retry_after) == (FailureKind.THROTTLED, 7.0), name


# -- requests that are not made ----------------------------------------------------------------------------------------

LONG = "x" * 161


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        pytest.param(send(text=LONG), "text", "has 161 characters", id="161 characters"),
        pytest.param(send(text="x" * 148, subject="y" * 13), "text", "161 characters", id="148 and a subject of 13"),
        pytest.param(send(text="x" * 159 + "\n"), "text", "has 161 characters", id="a line break counts twice"),
        pytest.param(send(text="x" * 157 + "\r\n"), "text", "has 161 characters", id="a Windows line break four times"),
        pytest.param(send(CANADIAN, "x" * 137), "text", "express in Canada takes 136", id="137 characters to Canada"),
        pytest.param(send(text="x" * 131, message_type_id="2"), "text", "standard takes 130", id="131 in standard"),
        pytest.param(
            send(CANADIAN, "x" * 131, message_type_id=2), "text", "standard takes 130", id="standard in Canada"
        ),
        pytest.param(verify(template="[CODE]" + "x" * 155), "template", "161", id="too long with its code"),
        pytest.param(
            send(text="It\u2019s"), "text", "takes no U+2019 (right single quotation mark)", id="a curly apostrophe"
        ),
        pytest.param(send(text="a\tb"), "text", "U+0009 (a control character)", id="a tab"),
        pytest.param(send(text="Zażółć"), "text", "U+017C", id="a letter with a dot"),
        pytest.param(send(text="5 \u20ac"), "text", "U+20AC (euro sign)", id="a euro"),
        pytest.param(send(text="a*b"), "text", "U+002A (asterisk)", id="an asterisk"),
        pytest.param(send(text="[x]"), "text", "U+005B (left square bracket)", id="a bracket"),
        pytest.param(send(subject="Hi!\u2014"), "subject", "U+2014 (em dash)", id="a dash in a subject"),
        pytest.param(send(subject="x" * 14), "subject", "13 characters at most", id="a subject of 14"),
        pytest.param(send(subject=" "), "subject", "text that is not empty", id="a blank subject"),
        pytest.param(send(subject=3), "subject", "text", id="a subject that is a number"),
        pytest.param(send(message_type_id=3), "message_type_id", "must be one of 1, 2", id="MMS by its number"),
        pytest.param(send(stamp_to_send="2026-11-30"), "stamp_to_send", "seconds", id="a date for a stamp"),
        pytest.param(send(stamp_to_send=1305582245000), "stamp_to_send", "not milliseconds", id="milliseconds"),
        pytest.param(send(stamp_to_send=1305582245.5), "stamp_to_send", "whole seconds", id="half a second"),
        pytest.param(send(stamp_to_send=True), "stamp_to_send", "whole seconds", id="true for a stamp"),
        pytest.param(verify(stamp_to_send=1305582245), "stamp_to_send", "known: subject", id="a code for later"),
        pytest.param(send(groups=["all"]), "groups", "is not an argument here", id="groups, which could be everybody"),
        *(
            pytest.param(
                operation("keyword.check", keyword=f"ho{bad}ney"), "keyword", f"cannot contain U+{ord(bad):04X}",
                id=f"a keyword with {bad!r}",
            )
            for bad in " ?@.![]{}-+#$%&'()*/\\:;<>=^`|~\n\x00"
        ),
        pytest.param(operation("keyword.cancel", keyword=""), "keyword", "not empty", id="an empty keyword"),
        pytest.param(operation("keyword.cancel", keyword=7), "keyword", "text", id="a keyword that is a number"),
        pytest.param(operation("keyword.cancel"), "keyword", "keyword is missing", id="no keyword"),
        pytest.param(
            operation("keyword.setup", keyword="honey", contact_group_ids=[]), "contact_group_ids", "leave it out",
            id="an empty array is never sent",
        ),
        pytest.param(
            operation("keyword.setup", keyword="honey", contact_group_ids=""), "contact_group_ids", "leave it out",
            id="nor one that is written as nothing",
        ),
        pytest.param(
            operation("keyword.setup", keyword="honey", contact_group_ids=["a", " "]),
            "contact_group_ids", "leave it out", id="nor an array with nothing in it",
        ),
        pytest.param(
            operation("keyword.setup", keyword="honey", enable_double_opt_in="yes"), "enable_double_opt_in",
            "true or false", id="a word for a boolean",
        ),
        pytest.param(
            operation("keyword.setup", keyword="honey", join_message=""), "join_message", "not empty",
            id="an empty welcome, which the vendor refuses",
        ),
        pytest.param(
            operation("credits.buy", number_of_credits="10,000", **STORED), "number_of_credits", "whole number",
            id="a comma within a number",
        ),
        pytest.param(
            operation("credits.buy", number_of_credits=0, **STORED), "number_of_credits", "above nought",
            id="nought credits",
        ),
        pytest.param(operation("report", id="../x"), "id", "the id that a message", id="an id that is a path"),
        pytest.param(operation("report", id="1", status="lost"), "status", "na, delivered", id="no status of a report"),
        # -- how a purchase is paid
        pytest.param(
            operation("keyword.rent", keyword="honey"), "stored_credit_card", "card is missing", id="by none"
        ),
        pytest.param(
            operation("keyword.rent", keyword="honey", **STORED, **CARD), "stored_credit_card", "two", id="by both"
        ),
        pytest.param(
            operation("keyword.rent", keyword="honey", **STORED, zip="12345"), "stored_credit_card",
            "stored_credit_card and zip are of two cards", id="by one and a bit of another",
        ),
        *(
            pytest.param(
                operation(
                    "credits.buy", number_of_credits="5", **{name: one for name, one in CARD.items() if name != missing}
                ),
                missing, f"{missing} is missing", id=f"by a card without {missing}",
            )
            for missing in CARD
        ),
        *(
            pytest.param(
                operation("keyword.rent", keyword="honey", **CARD | {name: value}), name, words,
                id=f"{name}: {label}",
            )
            for name, value, label, words in (
                ("card_number", "4111", "four digits", "12 to 19 digits"),
                ("card_number", "4111x11111111111", "a letter", "12 to 19 digits"),
                ("security_code", "12", "two digits", "three or four"),
                ("expiration_month", "5", "one digit", "two digits, like 05"),
                ("expiration_month", "13", "a thirteenth", "two digits"),
                ("expiration_year", "17", "two digits", "four digits"),
                ("credit_card_type_id", "Diners", "another", "Amex, Discover, MasterCard, Visa"),
                ("first_name", "", "empty", "not empty"),
            )
        ),
        pytest.param(
            operation("keyword.rent", keyword="honey", stored_credit_card="11111"), "stored_credit_card",
            "last four digits", id="a stored card of five digits",
        ),
    ],
)  # fmt: skip
def test_what_it_could_never_take_is_refused_without_asking_it(job: Work, code: str, words: str) -> None:
    plan = SUBJECT.made().build([job])
    assert plan.groups == ()
    failure = plan.refused["0001"]
    assert (failure.kind, failure.code) == (FailureKind.INVALID, code)
    assert words in failure.message
    assert not [CARD[name] for name in CARD if name != "credit_card_type_id" and CARD[name] in failure.message.split()]


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(send(text="x" * 160), id="160 characters"),
        pytest.param(send(text="x" * 147, subject="y" * 13), id="147 and a subject of 13"),
        pytest.param(send(text="x" * 158 + "\n"), id="158 and a line break"),
        pytest.param(send(CANADIAN, "x" * 136), id="136 to Canada"),
        pytest.param(send(text="x" * 130, message_type_id=2), id="130 in standard"),
        pytest.param(send(text="a b\r\nc.,:;!?()~=+-_\\/@$#&%'\""), id="every character of the list, space and breaks"),
        pytest.param(send("+17875550100"), id="Puerto Rico"),
        pytest.param(operation("credits.buy", number_of_credits="010", **STORED), id="credits with a nought before"),
        pytest.param(operation("keyword.rent", keyword="honey", **CARD | {"credit_card_type_id": "visa"}), id="visa"),
    ],
)
def test_what_the_document_allows_is_asked(job: Work) -> None:
    plan = SUBJECT.made().build([job])
    assert (len(plan.groups), plan.refused) == (1, {})


@pytest.mark.parametrize("make", [send, verify, lookup], ids=["send", "verify", "lookup"])
@pytest.mark.parametrize(
    ("number", "country"), [("+447700900001", "GB"), ("+18765550100", "JM"), ("+33123456789", "FR")]
)
def test_another_country_is_not_served(make: Callable[[str], Work], number: str, country: str) -> None:
    """Ten digits are all that is sent: a number of Jamaica has as many and the same calling code."""
    failure = SUBJECT.made().build([make(number)]).refused["0001"]
    assert (failure.kind, failure.code) == (FailureKind.UNSUPPORTED, "to")
    assert failure.message.endswith(f"this one is of {country}")


def test_a_sender_is_refused_rather_than_ignored() -> None:
    job = SUBJECT.work("send", Send(to=ANN, text="Hello", sender="ACME"))
    failure = SUBJECT.made().build([job]).refused["0001"]
    assert (failure.kind, failure.code) == (FailureKind.UNSUPPORTED, "sender")


def test_a_verification_without_its_code_is_never_sent() -> None:
    """The square brackets that stand for it are no characters that are taken."""
    (refusal,) = SUBJECT.made().build([told(verify(), code="")]).refused.values()
    assert (refusal.kind, refusal.code) == (FailureKind.INVALID, "template")


@pytest.mark.parametrize("setting", ["yaml", "JSON", " xml"])
def test_a_format_that_is_none_is_refused_by_the_name_of_its_setting(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_PROVIDERS__SHOP_A__FORMAT is '.*'; write json or xml"):
        SUBJECT.made(format=setting)


@pytest.mark.parametrize("asked", ["json", "xml"])
def test_the_format_is_asked_for_in_every_request(asked: str) -> None:
    adapter = SUBJECT.made(format=asked)
    for name, request in SUBJECT.asked:
        (group,) = adapter.build([SUBJECT.work(name, request)]).groups
        assert ("format", asked) in fields(urlsplit(group.request.url).query)


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "groups"),
    [
        pytest.param([send(), send(BOB, id_="0002")], [["0001", "0002"]], id="the same text"),
        pytest.param([send(), send(CANADIAN, id_="0002")], [["0001", "0002"]], id="the same text to Canada"),
        pytest.param([send(), send(BOB, "Hi", id_="0002")], [["0001"], ["0002"]], id="another text"),
        pytest.param([send(), send(BOB, id_="0002", subject="Hi")], [["0001"], ["0002"]], id="another subject"),
        pytest.param([send(), send(BOB, id_="0002", message_type_id=2)], [["0001"], ["0002"]], id="another delivery"),
        pytest.param(
            [send(), send(BOB, id_="0002", stamp_to_send=1305582245)], [["0001"], ["0002"]], id="another time"
        ),
        pytest.param(
            [send(subject="Hi", message_type_id="2"), send(BOB, id_="0002", message_type_id=2, subject="Hi")],
            [["0001", "0002"]], id="the same options, written differently",
        ),
        pytest.param([send(), send(id_="0002")], [["0001"], ["0002"]], id="the same number twice"),
        pytest.param([send(), send(EVE, "x*", id_="0002"), send(BOB, id_="0003")], [["0001", "0003"]], id="one is bad"),
        pytest.param([verify(), verify(BOB, id_="0002")], [["0001"], ["0002"]], id="a code travels alone"),
        pytest.param([lookup(), lookup(BOB)], [["0001"], ["0001"]], id="a lookup travels alone"),
    ],
)  # fmt: skip
def test_what_is_alike_travels_together(jobs: list[Work], groups: list[list[str]]) -> None:
    built = SUBJECT.made().build(jobs).groups
    assert [[job.id for job in group.jobs] for group in built] == groups


def test_a_group_is_no_larger_than_may_be_in_doubt_at_once() -> None:
    jobs = [send(f"+121255501{ending}", id_=f"{ending}") for ending in range(10, 55)]
    built = SUBJECT.made().build(jobs).groups
    assert [group.cost for group in built] == [{"post": 1, "send": count} for count in (20, 20, 5)]
    assert SUBJECT.adapter.at_once == 2


# -- what became of it afterwards --------------------------------------------------------------------------------------


def asked(jobs: list[Work]) -> list[tuple[str, list[str]]]:
    """Paths and queries that are asked, without the login, and the jobs they are about."""
    groups = SUBJECT.made().inquire(jobs)
    shown = []
    for group in groups:
        parts = urlsplit(group.request.url)
        query = [pair for pair in parse_qsl(parts.query) if pair[0] not in {"User", "Password", "format"}]
        told_ = "&".join("=".join(pair) for pair in query)
        shown.append((f"{parts.path}?{told_}", [job.id for job in group.jobs]))
    return shown


def taken(job: Work, ref: str = "6419") -> Work:
    return told(job, state=State.SENT, ref=ref, age=30.0)


def doubted(job: Work, age: float = 60.0, baseline: str = "") -> Work:
    return told(job, state=State.UNKNOWN, age=age, baseline=baseline)


STATUSES = ("delivered", "bounced", "no_credits", "opted_out")


@pytest.mark.parametrize(
    ("jobs", "questions"),
    [
        pytest.param(
            [taken(send()), taken(send(BOB, id_="0002")), taken(verify(EVE, id_="0003"), ref="77")],
            [
                *((f"/sending/reports/6419/view-details?status={status}", ["0001", "0002"]) for status in STATUSES),
                *((f"/sending/reports/77/view-details?status={status}", ["0003"]) for status in STATUSES),
            ],
            id="messages, by the id they share",
        ),
        pytest.param([doubted(send())], [], id="of a send without an id nobody can tell"),
        pytest.param([taken(send(), ref="../x")], [], id="of an id that is a path neither"),
        pytest.param([doubted(RENT)], [("/keywords/new?Keyword=honey", ["0001"])], id="a rental"),
        pytest.param([doubted(CANCEL)], [("/keywords/new?Keyword=honey", ["0001"])], id="a cancellation"),
        pytest.param([doubted(BUY, baseline="153")], [("/billing/credits/get?", ["0001"])], id="a purchase"),
        pytest.param([doubted(BUY)], [], id="a purchase before which nothing was read"),
        pytest.param([doubted(BALANCE), doubted(SETUP), doubted(lookup())], [], id="what may be repeated, or left"),
    ],
)
def test_what_can_be_known_afterwards_is_asked(jobs: list[Work], questions: list[tuple[str, list[str]]]) -> None:
    assert asked(jobs) == questions


@pytest.mark.parametrize(
    ("job", "answer", "remembered"),
    [
        pytest.param(RENT, good(Keyword="honey", Available=True), "available", id="a keyword that is to be had"),
        pytest.param(RENT, refused("Keyword: The keyword 'honey' is unavailable"), "", id="one that is not"),
        pytest.param(RENT, refused("Something else"), "", id="no word on it"),
        pytest.param(BUY, good(PlanCredits=15, AnytimeCredits=138, TotalCredits=153), "153", id="the credits"),
        pytest.param(BUY, good(), "", id="no credits told"),
    ],
)
def test_what_a_purchase_changes_is_read_before(job: Work, answer: dict[str, Any], remembered: str) -> None:
    adapter = SUBJECT.made()
    request = adapter.before(job)
    assert request is not None
    assert read(request) == (got("/keywords/new", Keyword="honey") if job is RENT else got("/billing/credits/get"))
    response = Response(status=200, body=json.dumps(answer).encode())
    assert adapter.remember(response, job) == remembered


def test_nothing_is_read_before_anything_else() -> None:
    others = set(SUBJECT.requests) - {"keyword.rent", "credits.buy"}
    assert [name for name in others if SUBJECT.made().before(SUBJECT.work(name))] == []


FREE_KEYWORD = good(Keyword="honey", Available=True)
RENTED_KEYWORD = refused("Keyword: The keyword 'honey' is unavailable")
HAD = {"keyword": "honey"}


def credit(total: Any) -> dict[str, Any]:
    return good(PlanCredits=0, AnytimeCredits=total, TotalCredits=total)


@pytest.mark.parametrize(
    ("job", "answer", "state", "strength", "result"),
    [
        pytest.param(
            doubted(RENT, baseline="available"), RENTED_KEYWORD, State.COMPLETED, "strong, unless", HAD,
            id="rent: available before, not any more",
        ),
        pytest.param(doubted(RENT), RENTED_KEYWORD, None, "weak", {}, id="rent: not available, and nothing remembered"),
        pytest.param(
            doubted(RENT, baseline="available"), FREE_KEYWORD, State.FAILED, "strong", {}, id="rent: still available"
        ),
        pytest.param(doubted(RENT), FREE_KEYWORD, State.FAILED, "strong", {}, id="rent: available, nothing remembered"),
        pytest.param(doubted(RENT, age=59.0), FREE_KEYWORD, "silence", "", {}, id="rent: available, but it is early"),
        pytest.param(
            doubted(RENT, age=1.0, baseline="available"), RENTED_KEYWORD, State.COMPLETED, "strong", HAD,
            id="rent: what is there already needs no waiting",
        ),
        pytest.param(doubted(RENT), refused("Access Forbidden"), "silence", "", {}, id="rent: no word"),
        pytest.param(
            doubted(CANCEL), FREE_KEYWORD, State.COMPLETED, "strong", HAD | {"cancelled": True}, id="cancel: available"
        ),
        pytest.param(doubted(CANCEL), RENTED_KEYWORD, "silence", "", {}, id="cancel: not free, perhaps another's"),
        pytest.param(
            doubted(BUY, baseline="153"), credit(1153), State.COMPLETED, "strong",
            {"bought_credits": "1000", "total_credits": "1153"}, id="buy: risen by as many",
        ),
        pytest.param(
            doubted(BUY, baseline="153.5"), credit("1153.50"), State.COMPLETED, "strong",
            {"bought_credits": "1000", "total_credits": "1153.50"}, id="buy: risen by as many, to the penny",
        ),
        pytest.param(doubted(BUY, baseline="153"), credit(153), State.FAILED, "strong", {}, id="buy: unchanged"),
        pytest.param(doubted(BUY, age=59.9, baseline="153"), credit(153), "silence", "", {}, id="buy: unchanged yet"),
        pytest.param(doubted(BUY, baseline="153"), credit(1151), None, "weak", {}, id="buy: risen by nearly as many"),
        pytest.param(doubted(BUY, baseline="153"), credit(1154), None, "weak", {}, id="buy: risen by more than that"),
        pytest.param(doubted(BUY, baseline="153"), credit(100), None, "weak", {}, id="buy: fallen"),
        pytest.param(doubted(BUY, baseline="153"), good(), "silence", "", {}, id="buy: no credits told"),
        pytest.param(doubted(BUY, baseline="canary"), credit(153), "silence", "", {}, id="buy: nothing remembered"),
    ],
)  # fmt: skip
def test_a_purchase_in_doubt_is_judged_by_what_has_changed(
    job: Work, answer: dict[str, Any], state: State | str | None, strength: str, result: dict[str, Any]
) -> None:
    adapter = SUBJECT.made()
    (group,) = adapter.inquire([job])
    news = adapter.news(Response(status=200, body=json.dumps(answer).encode()), group)
    assert not isinstance(news, Failure)
    if state == "silence":
        assert news == {}
        return
    told_ = news["0001"]
    assert (told_.state, told_.result) == (state, result)
    assert strength in told_.evidence
    if state == State.FAILED:
        assert told_.failure is not None
        assert told_.failure.kind == FailureKind.NOT_SENT


def reported(status: str, answer: dict[str, Any]) -> dict[str, News]:
    adapter = SUBJECT.made()
    jobs = [taken(send(to, id_=name)) for name, to in (("ann", ANN), ("bob", BOB))]
    (group,) = [one for one in adapter.inquire(jobs) if f"status={status}" in one.request.url]
    news = adapter.news(Response(status=200, body=json.dumps(answer).encode()), group)
    assert not isinstance(news, Failure)
    return news


def test_a_wrong_password_is_one_request_and_a_closed_door_closes_no_other() -> None:
    """What is read before and after a purchase is refused as the purchase would be; a report is not a send."""
    adapter = SUBJECT.made()
    wrong = Response(status=401, body=json.dumps(refused("Authorization Required", code=401)).encode())
    closed = Response(status=403, body=json.dumps(refused("Access Forbidden", code=403)).encode())
    for job in (RENT, BUY):
        remembered = [adapter.remember(one, job) for one in (wrong, closed)]
        assert [one.kind for one in remembered if isinstance(one, Failure)] == [FailureKind.UNAUTHORIZED] * 2
    for group in adapter.inquire([taken(send()), told(RENT, state=State.UNKNOWN, age=60.0)]):
        news = adapter.news(wrong, group)
        assert isinstance(news, Failure)
        assert (news.kind, news.permission) == (FailureKind.UNAUTHORIZED, False)
        assert adapter.news(closed, group) == {}


@pytest.mark.parametrize(
    ("status", "state", "kind"),
    [
        ("delivered", State.DELIVERED, None),
        ("bounced", State.UNDELIVERED, FailureKind.INVALID),
        ("no_credits", State.UNDELIVERED, FailureKind.INSUFFICIENT_FUNDS),
        ("opted_out", State.UNDELIVERED, FailureKind.OPTED_OUT),
    ],
)
def test_a_detailed_report_tells_of_the_numbers_in_it_and_of_no_others(
    status: str, state: State, kind: FailureKind | None
) -> None:
    """Its numbers are JSON integers."""
    news = reported(status, {"Response": {"Status": "Success", "Code": 200, "Entries": [2125550101, 2125550190]}})
    assert set(news) == {"bob"}
    assert news["bob"].state == state
    assert (news["bob"].failure.kind if news["bob"].failure else None) == kind


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refused("Sorry, nothing was found"), id="a report that is not there yet"),
        pytest.param({"Response": {"Status": "Success", "Code": 200, "Entries": []}}, id="an empty report"),
        pytest.param(good(), id="no list"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_report_without_numbers_tells_nothing(answer: dict[str, Any]) -> None:
    assert reported("bounced", answer) == {}


# -- what the provider tells by itself ---------------------------------------------------------------------------------

TEXTED = Inbound(sender=ANN, text="Yes please")


@pytest.mark.parametrize(
    ("callback", "heard"),
    [
        pytest.param(
            Callback(method="POST", body=b"PhoneNumber=2125550100&Message=Yes+please&Subject="), TEXTED,
            id="a text to a keyword, as a form",
        ),
        pytest.param(
            Callback(method="GET", query="PhoneNumber=2125550100&Message=Yes%20please"), TEXTED, id="as a query"
        ),
        pytest.param(
            Callback(method="POST", body=b'{"phone_number": 2125550100, "MESSAGE": "Yes please"}'), TEXTED, id="as JSON"
        ),
        pytest.param(
            Callback(method="POST", body=b"from=12125550100&message=Yes+please&MessageID=6419"), TEXTED,
            id="an answer in the inbox; the id may be that of the message it answers",
        ),
        pytest.param(
            Callback(method="GET", query="From=%2B12125550100&Message=Yes%20please"), TEXTED, id="any case, with a plus"
        ),
        pytest.param(
            Callback(
                method="POST",
                query="Keyword=honey&InboundID=17&ReceivedOn=12-03-2015+6:50+AM",
                body=b"PhoneNumber=2125550100&Message=Yes+please",
            ),
            Inbound(sender=ANN, text="Yes please", to="honey", ref="17", at="12-03-2015 6:50 AM"),
            id="with all that may come along",
        ),
        pytest.param(
            Callback(method="POST", body=b"PhoneNumber=25827&Message=Hi"), Inbound(sender="25827", text="Hi"),
            id="a sender that is no number stays as it is",
        ),
        pytest.param(Callback(method="POST", body=b"PhoneNumber=2125550100&Message="), None, id="nothing said"),
        pytest.param(Callback(method="POST", body=b"Message=Hi"), None, id="nobody"),
        pytest.param(Callback(method="GET"), None, id="nothing"),
    ],
)  # fmt: skip
def test_a_text_from_a_phone_is_read_however_it_is_written(callback: Callback, heard: Inbound | None) -> None:
    adapter = SUBJECT.made()
    assert adapter.read(callback) == (() if heard is None else (heard,))
    assert adapter.trusts(callback), "the vendor knows no secret"


def test_a_callback_is_answered_by_nothing_at_all() -> None:
    """What is printed may be texted back to the person, an error page too."""
    for callback in (Callback(method="POST", body=b"PhoneNumber=2125550100&Message=Hi"), Callback(method="GET")):
        answer = SUBJECT.made().answer(callback)
        assert (answer.status, answer.body) == (200, b"")
        assert isinstance(answer, Answer)


# -- what all adapters keep --------------------------------------------------------------------------------------------


@every_check
def test_it_keeps_what_all_adapters_keep(check: Callable[[Subject], None]) -> None:
    check(SUBJECT)
