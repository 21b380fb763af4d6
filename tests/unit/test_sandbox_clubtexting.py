"""Club Texting as the sandbox plays it, strictly by its "REST API Documentation"; and what our adapter makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from dispatcher import records
from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Request as JobRequest
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from workers.providers.base import Callback, Group, Inbound, Response
from workers.providers.base import Request as Asked
from workers.providers.clubtexting import ClubTexting as Adapter
from workers.sandbox.base import Answer, Request, Texted
from workers.sandbox.clubtexting import ClubTexting
from workers.sandbox.world import World

SAMPLES = Path(__file__).parents[1] / "providers" / "cases" / "clubtexting"
NOW = 1_305_582_245.0  # the document's own stamp
PHONE = "2125550150"
MESSAGES = "POST /sending/messages"

CARD = {
    "FirstName": "Winnie", "LastName": "The Pooh", "Street": "Hollow tree", "City": "Hundred Acre Woods",
    "State": "East Sussex", "Zip": "12345", "Country": "UK", "CreditCardTypeID": "Visa", "Number": "4111111111111111",
    "SecurityCode": "123", "ExpirationMonth": "10", "ExpirationYear": "2017",
}  # fmt: skip
STORED = {"StoredCreditCard": "1111"}


def special(ending: int) -> str:
    return f"2125550{ending}"


class Played:
    """Club Texting and its world, without a server: what is asked is committed at once."""

    def __init__(self, ledger: Path | None = None) -> None:
        self.now = NOW
        self.provider = ClubTexting()
        self.world = World(self.provider.accounts, ledger, now=lambda: self.now)

    def reply(self, request: Request) -> Answer:
        answer, rows = self.provider.reply(request, self.world)
        self.world.commit(rows)
        assert rows, "every request leaves a row"
        return answer

    def ask(self, verb: str, path: str, form: Any = (), user: str = "sandbox", **query: str) -> Any:
        """Ask with the login where it belongs; answer `Response`, or None where there is no body."""
        login = [("User", user), ("Password", "sandbox")]
        pairs = [*(form.items() if isinstance(form, dict) else form)]
        inside, outside = ([*login, *pairs], [*query.items()]) if verb == "POST" else ([], [*login, *query.items()])
        request = Request(
            method=verb, path=path, query=urlencode([*outside, ("format", "json")]), body=urlencode(inside).encode()
        )
        answer = self.reply(request)
        response = json.loads(answer.body)["Response"] if answer.body else None
        assert response is None or response["Code"] == answer.status
        return response

    def entry(self, verb: str, path: str, form: Any = (), **more: Any) -> Any:
        response = self.ask(verb, path, form, **more)
        assert response["Status"] == "Success", response
        return response["Entry"]

    def errors(self, verb: str, path: str, form: Any = (), **more: Any) -> list[str]:
        response = self.ask(verb, path, form, **more)
        assert response["Status"] == "Failure", response
        errors: list[str] = response["Errors"]
        return errors

    def send(self, *numbers: str, user: str = "sandbox", **fields: str) -> Any:
        return self.ask("POST", "/sending/messages", sending(*numbers, **fields), user=user)

    def credits(self, user: str = "sandbox") -> Any:
        return self.entry("GET", "/billing/credits/get", user=user)["TotalCredits"]

    def texts(self, number: str) -> list[str]:
        return [message.text for message in self.world.inbox(f"1{number}")]


@pytest.fixture
def played() -> Played:
    return Played()


def sending(*numbers: str, **fields: str) -> list[tuple[str, str]]:
    return [*(("PhoneNumbers[]", number) for number in numbers), *({"Message": "Hello"} | fields).items()]


class TestDocumentSamples:
    """The requests as printed, with our login, and the answers as printed."""

    def test_a_message_is_split_into_who_gets_it_and_who_has_opted_out(self, played: Played) -> None:
        """Four numbers, one local and one global opt-out, three recipients, six credits."""
        numbers = [special(134), special(100), PHONE, special(151)]
        text = "I am a Bear of Very Little Brain, and long words bother me"
        entry = played.send(*numbers, Subject="From Winnie", Message=text, StampToSend="1305582245")["Entry"]
        printed = json.loads((SAMPLES / "send.json").read_text())["Response"]["Entry"]
        assert list(entry) == list(printed)
        assert entry == printed | {
            "ID": entry["ID"], "Message": text, "PhoneNumbers": [PHONE, special(151)], "LocalOptOuts": [special(100)],
            "GlobalOptOuts": [special(134)],
        }  # fmt: skip
        assert played.texts(PHONE) == [f"From Winnie {text}"]
        assert played.texts(special(100)) == played.texts(special(134)) == []
        assert played.credits() == 1_000_000 - 6

    @pytest.mark.parametrize("name", ["keyword.check", "keyword.rent", "keyword.setup", "balance", "credits.buy"])
    def test_an_answer_has_the_fields_of_the_sample_in_their_order(self, played: Played, name: str) -> None:
        """And its types: numbers, booleans, lists."""
        played.ask("POST", "/keywords", {"Keyword": "sweet"} | STORED)
        answer = {
            "keyword.check": lambda: played.ask("GET", "/keywords/new", Keyword="honey"),
            "keyword.rent": lambda: played.ask("POST", "/keywords", {"Keyword": "honey"} | STORED),
            "keyword.setup": lambda: played.ask("POST", "/keywords/sweet", {"EnableDoubleOptIn": "1"}),
            "balance": lambda: played.ask("GET", "/billing/credits/get"),
            "credits.buy": lambda: played.ask("POST", "/billing/credits", {"NumberOfCredits": "1000"} | STORED),
        }[name]()
        printed = json.loads((SAMPLES / f"{name}.json").read_text())["Response"]
        assert shape(answer) == shape(printed)
        if name == "credits.buy":
            assert (answer["Entry"]["Amount"], answer["Entry"]["Discount"]) == (9.45, 0.55)

    def test_xml_is_as_printed_too(self, played: Played) -> None:
        """True is 1, nothing is `<ForwardEmail />`."""
        form = urlencode({"User": "sandbox", "Password": "sandbox", "Keyword": "honey"} | STORED).encode()
        answer = played.reply(Request(method="POST", path="/keywords", query="format=xml", body=form))
        (row,) = played.world.rows()
        printed = (SAMPLES / "keyword.rent.xml").read_text().replace("147258369", row.ref).replace("\n", "")
        assert answer.body.decode().replace("\n", "") == printed

    def test_a_cancellation_has_no_body(self, played: Played) -> None:
        played.ask("POST", "/keywords", {"Keyword": "honey"} | STORED)
        query = urlencode({"format": "json", "User": "sandbox", "Password": "sandbox"})
        answer = played.reply(Request(method="DELETE", path="/keywords/honey", query=query))
        assert (answer.status, answer.body) == (204, b"")


def shape(value: Any) -> Any:
    """Names and types, in order; a whole number is as good as another, and so is an empty list."""
    if isinstance(value, dict):
        return [(name, shape(one)) for name, one in value.items()]
    return type(value).__name__


HELLO = sending(PHONE)
REFUSALS = [
    # -- messages
    pytest.param("/sending/messages", sending(), "PhoneNumbers: Value is required and can't be empty", id="nobody"),
    pytest.param(
        "/sending/messages", sending(""), "PhoneNumbers: Value is required and can't be empty", id="an empty array"
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, ""), "PhoneNumbers: Value is required and can't be empty",
        id="an empty element",
    ),
    pytest.param(
        "/sending/messages", [("PhoneNumbers", PHONE), ("Message", "x")], "PhoneNumbers: there is no such parameter",
        id="no array",
    ),
    pytest.param(
        "/sending/messages", sending("(123)45-67"),
        "PhoneNumbers: '(123)45-67' contains characters which are not digits", id="signs in a number",
    ),
    pytest.param(
        "/sending/messages", sending(f"1{PHONE}"), f"PhoneNumbers: '1{PHONE}' contains an invalid amount of digits",
        id="eleven digits",
    ),
    pytest.param(
        "/sending/messages", sending(special(101)), "PhoneNumbers: '2125550101' is not a valid phone number",
        id="an invalid number",
    ),
    pytest.param("/sending/messages", sending(special(102)), "Your request could not be processed", id="no reason"),
    pytest.param(
        "/sending/messages", sending(PHONE, Message=""), "Message: Value is required and can't be empty", id="no text"
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, Message="x" * 161), "Message: Your message is too long.",
        id="161 characters",
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, Message="x" * 159 + "\n"), "Message: Your message is too long.",
        id="159 and a line break",
    ),
    pytest.param(
        "/sending/messages", sending("4165550150", Message="x" * 137), "Message: Your message is too long.",
        id="137 to Canada",
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, Message="x" * 131, MessageTypeID="2"), "Message: Your message is too long.",
        id="131 in standard",
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, Message="It\u2019s"),
        "Message: Your message contains characters that are not supported.", id="a curly apostrophe",
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, Subject="x" * 14), "Subject: Your subject must be under 13 characters.",
        id="a subject of 14",
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, MessageTypeID="3"), "MessageTypeID: '3' is not a delivery method", id="MMS"
    ),
    pytest.param(
        "/sending/messages", sending(PHONE, StampToSend="tomorrow"),
        "StampToSend: 'tomorrow' contains characters which are not digits", id="no stamp",
    ),
    pytest.param(
        "/sending/messages", [*HELLO, ("Groups[]", "")], "Groups[]: there is no such parameter",
        id="an empty array of groups, which would text everybody",
    ),
    # -- keywords
    pytest.param("/keywords", {"Keyword": "ho ney"} | STORED, "Keyword: Keywords can not contain", id="a blank"),
    pytest.param("/keywords", STORED, "Keyword: Value is required and can't be empty", id="no keyword"),
    pytest.param(
        "/keywords", {"Keyword": "taken"} | STORED, "Keyword: The keyword 'taken' is unavailable",
        id="another's keyword",
    ),
    pytest.param("/keywords/nobodys", {"JoinMessage": "Hi"}, "Sorry, nothing was found", id="setup of another's"),
    # -- cards
    pytest.param("/keywords", {"Keyword": "honey"}, "FirstName: Value is required and can't be empty", id="no card"),
    pytest.param(
        "/keywords", {"Keyword": "honey", "StoredCreditCard": "2222"}, "StoredCreditCard: '2222' was not found",
        id="no such stored card",
    ),
    pytest.param(
        "/keywords", {"Keyword": "honey", "StoredCreditCard": "11"},
        "StoredCreditCard: '11' contains an invalid amount of digits", id="two digits of a stored card",
    ),
    pytest.param(
        "/keywords", {"Keyword": "honey"} | STORED | CARD, "StoredCreditCard: Use a stored card or another one",
        id="two cards",
    ),
    *(
        pytest.param(
            "/keywords", {"Keyword": "honey"} | {name: one for name, one in CARD.items() if name != missing},
            f"{missing}: Value is required and can't be empty", id=f"a card without {missing}",
        )
        for missing in CARD
    ),
    pytest.param(
        "/billing/credits", {"NumberOfCredits": "5"} | CARD | {"Number": "123456"},
        "Number: '123456' contains an invalid amount of digits", id="too short a card",
    ),
    pytest.param(
        "/billing/credits", {"NumberOfCredits": "5"} | CARD | {"ExpirationMonth": "5"},
        "ExpirationMonth: '5' is not a month", id="a month of one digit",
    ),
    pytest.param(
        "/billing/credits", {"NumberOfCredits": "5"} | CARD | {"CreditCardTypeID": "Diners"},
        "CreditCardTypeID: 'Diners' is not a credit card type", id="another card's type",
    ),
    pytest.param(
        "/billing/credits", {"NumberOfCredits": "5"} | CARD | {"Number": "4000000000000002"},
        "Your credit card was declined", id="a declined card",
    ),
    pytest.param(
        "/billing/credits", {"NumberOfCredits": "10,000"} | STORED,
        "NumberOfCredits: '10,000' contains characters which are not digits", id="a comma",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "form", "words"), REFUSALS)
def test_a_request_that_cannot_work_is_refused_in_the_documents_words(
    played: Played, path: str, form: Any, words: str
) -> None:
    """It does nothing, and leaves its refusal in the ledger: with no card in it."""
    errors = played.errors("POST", path, form)
    assert [error for error in errors if error.startswith(words)], errors
    assert {(row.accepted, row.result) for row in played.world.rows()} == {(False, "403")}
    assert not [card for card in ("4111111111111111", "4000000000000002") if card in repr(played.world.rows())]
    assert played.credits() == 1_000_000


def test_all_that_is_wrong_is_told_together(played: Played) -> None:
    """As the sample does."""
    errors = played.errors("POST", "/sending/messages", sending("(123)45-67", Subject="x" * 14, Message="\u2019"))
    assert [error.partition(":")[0] for error in errors] == ["PhoneNumbers", "Subject", "Message"]


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        pytest.param({"User": "sandbox", "Password": "wrong"}, 401, "Authorization Required", id="wrong password"),
        pytest.param({"User": "nobody", "Password": "sandbox"}, 401, "Authorization Required", id="unknown user"),
        pytest.param({"user": "sandbox", "password": "sandbox"}, 401, "Authorization Required", id="small letters"),
        pytest.param({}, 401, "Authorization Required", id="neither"),
        pytest.param({"User": "guest", "Password": "sandbox"}, 403, "Access Forbidden", id="no access to the API"),
    ],
)
def test_login_fails(played: Played, form: dict[str, str], status: int, error: str) -> None:
    body = urlencode(form | {"Message": "Hello", "PhoneNumbers[]": PHONE}).encode()
    answer = played.reply(Request(method="POST", path="/sending/messages", query="format=json", body=body))
    assert (answer.status, json.loads(answer.body)["Response"]["Errors"]) == (status, [error])
    assert "wrong" not in repr(played.world.rows())


def test_a_post_takes_its_login_from_its_body_only(played: Played) -> None:
    query = urlencode({"User": "sandbox", "Password": "sandbox", "format": "json"})
    request = Request(method="POST", path="/sending/messages", query=query, body=urlencode(HELLO).encode())
    assert played.reply(request).status == 401


@pytest.mark.parametrize(
    ("verb", "path"), [("GET", "/sending/messages"), ("POST", "/billing/credits/get"), ("GET", "/keywords")]
)
def test_another_address_is_nothing(played: Played, verb: str, path: str) -> None:
    assert played.ask(verb, path)["Code"] == 404


def test_it_serves_its_own_paths_and_no_others() -> None:
    paths = ["/sending/messages", "/keywords", "/keywords/honey", "/billing/credits/get"]
    assert [path for path in paths if not ClubTexting().serves(path)] == []
    assert not [
        path for path in ("/api/jsonapi.aspx", "/rest/sms/json", "/keywordsearch") if ClubTexting().serves(path)
    ]


class TestSpecialNumbers:
    def test_every_503_did_nothing(self, played: Played) -> None:
        """The vendor's only word for it; 104 and 106 are taken the second time."""
        for ending in (103, 104, 106, 107):
            assert played.send(special(ending), PHONE)["Code"] == 503
        assert played.texts(PHONE) == []
        assert [played.send(special(ending))["Code"] for ending in (103, 104, 106, 107)] == [503, 201, 201, 503]

    def test_a_number_in_no_list_may_have_been_texted(self, played: Played) -> None:
        entry = played.send(special(105), special(108), PHONE)["Entry"]
        assert (entry["PhoneNumbers"], entry["LocalOptOuts"], entry["GlobalOptOuts"]) == ([PHONE], [], [])
        assert (played.texts(special(105)), played.texts(special(108))) == ([], ["Hello"])

    def test_a_carrier_is_found_unless_the_number_is_gone(self, played: Played) -> None:
        carriers = [
            played.entry("GET", f"/sending/phone-numbers/{number}")["CarrierName"] for number in (PHONE, special(132))
        ]
        assert carriers == ["ATTUS", "VERIZONUS"]
        assert played.errors("GET", f"/sending/phone-numbers/{special(130)}") == ["Sorry, nothing was found"]
        assert played.errors("GET", "/sending/phone-numbers/12125550150")[0].endswith("invalid amount of digits")


class TestMoney:
    def test_express_costs_two_credits_and_standard_one(self, played: Played) -> None:
        assert played.send(PHONE)["Entry"]["Credits"] == 2
        assert played.send(PHONE, MessageTypeID="2")["Entry"]["Credits"] == 1
        assert played.credits() == 1_000_000 - 3

    def test_who_has_no_credits_sends_nothing(self, played: Played) -> None:
        assert played.errors("POST", "/sending/messages", HELLO, user="broke") == [
            "You do not have enough credits to send this message"
        ]
        assert played.texts(PHONE) == []

    @pytest.mark.parametrize(
        "card", [STORED, CARD, {("ZIP" if name == "Zip" else name): one for name, one in CARD.items()}]
    )
    def test_credits_are_bought_with_either_card(self, played: Played, card: dict[str, str]) -> None:
        """The tables call a field ZIP and the samples Zip."""
        assert played.entry("POST", "/billing/credits", {"NumberOfCredits": "100"} | card)["TotalCredits"] == 1_000_100
        assert played.credits() == 1_000_100


class TestKeywords:
    def test_a_keyword_is_rented_set_up_and_given_up(self, played: Played) -> None:
        """It is one keyword in whatever case, and the ledger remembers it."""
        played.entry("POST", "/keywords", {"Keyword": "Honey"} | STORED)
        unavailable = ["Keyword: The keyword 'HONEY' is unavailable"]
        assert played.errors("GET", "/keywords/new", Keyword="HONEY") == unavailable
        assert played.errors("POST", "/keywords", {"Keyword": "HONEY"} | CARD, user="broke") == unavailable
        changed = played.entry(
            "POST", "/keywords/honey", [("ForwardUrl", "http://x.example/"), ("ContactGroupIDs[]", "a")]
        )
        assert (changed["ForwardUrl"], changed["ContactGroupIDs"], changed["JoinMessage"][:5]) == (
            "http://x.example/", ["a"], "Thank",
        )  # fmt: skip
        assert played.errors("DELETE", "/keywords/honey", user="broke") == ["Sorry, nothing was found"]
        assert played.ask("DELETE", "/keywords/honey") is None
        assert played.errors("DELETE", "/keywords/honey") == ["Sorry, nothing was found"]
        assert played.entry("GET", "/keywords/new", Keyword="honey") == {"Keyword": "honey", "Available": True}

    def test_a_keyword_survives_in_the_ledger_file(self, tmp_path: Path) -> None:
        first = Played(tmp_path / "ledger")
        first.entry("POST", "/keywords", {"Keyword": "honey"} | STORED)
        first.world.close()
        assert Played(tmp_path / "ledger").errors("GET", "/keywords/new", Keyword="honey")

    def test_a_post_may_stand_for_a_delete(self, played: Played) -> None:
        """The vendor's samples do it with `_method`."""
        played.entry("POST", "/keywords", {"Keyword": "honey"} | STORED)
        assert played.ask("POST", "/keywords/honey", _method="DELETE") is None
        assert played.world.rows()[-1].kind == "keyword.cancel"

    @pytest.mark.parametrize(
        ("form", "words"),
        [
            ({"JoinMessage": ""}, "JoinMessage: Value is required and can't be empty"),
            (
                {"ForwardEmail": "honey@bear-alliance"},
                "ForwardEmail: 'honey@bear-alliance' is not a valid email address",
            ),
            ({"ForwardUrl": "bear-alliance.co.uk"}, "ForwardUrl: 'bear-alliance.co.uk' is not a valid URI"),
            ({"ContactGroupIDs[]": ""}, "ContactGroupIDs: Value is required and can't be empty"),
            ({"EnableDoubleOptIn": "yes"}, "EnableDoubleOptIn: 'yes' is not a boolean"),
        ],
    )
    def test_a_setup_is_refused_in_the_documents_words(self, played: Played, form: Any, words: str) -> None:
        played.entry("POST", "/keywords", {"Keyword": "honey"} | STORED)
        assert played.errors("POST", "/keywords/honey", form) == [words]


class TestReports:
    NUMBERS = (PHONE, special(130), special(140), special(131), special(144), special(100), special(134))

    def details(self, played: Played, ref: Any, status: str) -> Any:
        return played.ask("GET", f"/sending/reports/{ref}/view-details", status=status)["Entries"]

    def test_a_message_is_not_available_until_a_moment_after_it_arrived(self, played: Played) -> None:
        ref = played.send(*self.NUMBERS)["Entry"]["ID"]
        assert self.details(played, ref, "delivered") == []
        played.now += 1
        assert self.details(played, ref, "delivered") == [int(PHONE)]
        assert self.details(played, ref, "bounced") == [int(special(130)), int(special(140))]
        assert self.details(played, ref, "na") == [int(special(131)), int(special(144))]
        assert self.details(played, ref, "opted_out") == [int(special(100)), int(special(134))]
        assert self.details(played, ref, "no_credits") == []

    def test_it_counts(self, played: Played) -> None:
        ref = played.send(PHONE, special(130))["Entry"]["ID"]
        played.now += 1
        assert played.entry("GET", f"/sending/reports/{ref}/") == {
            "Delivered": {"Count": 1, "Percentage": "50.00"}, "Bounced": {"Count": 1, "Percentage": "50.00"},
            "Not Available": {"Count": 0, "Percentage": "0.00"},
            "Not Sent - No Credits": {"Count": 0, "Percentage": "0.00"},
            "Not Sent - Opted Out": {"Count": 0, "Percentage": "0.00"},
        }  # fmt: skip

    def test_a_message_for_later_arrives_then(self, played: Played) -> None:
        ref = played.send(PHONE, StampToSend=str(int(NOW) + 60))["Entry"]["ID"]
        played.now += 59
        assert (played.texts(PHONE), self.details(played, ref, "na")) == ([], [int(PHONE)])
        played.now += 2
        assert (played.texts(PHONE), self.details(played, ref, "delivered")) == (["Hello"], [int(PHONE)])

    def test_another_accounts_message_is_not_found(self, played: Played) -> None:
        ref = played.send(PHONE)["Entry"]["ID"]
        assert played.errors("GET", f"/sending/reports/{ref}/", user="broke") == ["Sorry, nothing was found"]
        assert played.errors("GET", "/sending/reports/17/") == ["Sorry, nothing was found"]


def test_two_at_a_time_and_503_for_more() -> None:
    provider = ClubTexting()
    assert (provider.limits.at_once, provider.limits.refusal.status) == (2, 503)
    body = urlencode([("User", "sandbox"), ("Password", "sandbox"), *sending(PHONE)]).encode()
    (row,) = provider.refused(Request(method="POST", path="/sending/messages", query="format=json", body=body))
    assert (row.action, row.kind, row.account, row.msisdn, row.accepted) == (
        MESSAGES,
        "send",
        "sandbox",
        f"1{PHONE}",
        False,
    )
    (nothing,) = provider.refused(Request(method="PUT", path="/sending"))
    assert (nothing.action, nothing.accepted) == ("nothing", False)


def test_no_receipt_is_ever_told(played: Played) -> None:
    played.send(PHONE)
    told: list[object] = list(map(played.provider.receipt, played.world.rows()))
    assert told == [None]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{}", b"a" * 1000, b"%", b"PhoneNumbers[]"])
def test_whatever_arrives_is_answered(played: Played, body: bytes) -> None:
    assert played.reply(Request(method="POST", path="/sending/messages", body=body)).status == 401


# -- from end to end: what our adapter asks, what is played, and what it makes of the answer ---------------------------


def adapter(form: str, **settings: str) -> Adapter:
    return Adapter("shop", {"user": "sandbox", "password": "sandbox", "format": form} | settings)


def work(operation: str, request: JobRequest, id_: str = "1", **fields: Any) -> Work:
    return Work(id=id_, provider="shop", kind=records.kind_of(request), operation=operation, request=request, **fields)


def op(operation: str, id_: str = "1", /, **arguments: Any) -> Work:
    return work(operation, OperationRequest(arguments=arguments), id_)


def text(number: str, words: str = "Hello", id_: str = "1", **options: Any) -> Work:
    return work("send", Send(to=f"+1{number}", text=words, options=options), id_)


def over(played: Played, request: Asked) -> Response:
    """Carry a request to the provider as the wire does, and its answer back."""
    parts = urlsplit(request.url)
    headers = {name.lower(): value for name, value in request.headers.items()}
    asked = Request(method=request.method, path=parts.path, query=parts.query, headers=headers, body=request.body)
    answer = played.reply(asked)
    return Response(status=answer.status, headers={"content-type": answer.content_type}, body=answer.body)


def carried(played: Played, speaks: Adapter, *jobs: Work) -> dict[str, Outcome]:
    plan = speaks.build(jobs)
    assert plan.refused == {}
    outcomes: dict[str, Outcome] = {}
    for group in plan.groups:
        outcomes |= speaks.parse(over(played, group.request), group)
        assert {row.kind for row in played.world.rows()} <= set(Adapter.operations)
    return outcomes


def kinds(outcomes: dict[str, Outcome]) -> list[str]:
    return [one.kind if isinstance(one, Failure) else type(one).__name__ for one in outcomes.values()]


@pytest.fixture(params=["json", "xml"])
def speaks(request: pytest.FixtureRequest) -> Adapter:
    return adapter(request.param)


BEE = {"keyword": "bee"}
OURS = {
    "first_name": "Winnie", "last_name": "The Pooh", "street": "Hollow tree", "city": "Hundred Acre Woods",
    "state": "East Sussex", "zip": "12345", "country": "UK", "credit_card_type_id": "Visa",
    "card_number": "4111111111111111", "security_code": "123", "expiration_month": "10", "expiration_year": "2017",
}  # fmt: skip


class TestEndToEnd:
    def test_each_person_gets_their_own_end_of_one_request(self, played: Played, speaks: Adapter) -> None:
        jobs = [text(special(ending), id_=str(ending)) for ending in (150, 100, 134, 105)]
        outcomes = carried(played, speaks, *jobs)
        assert kinds(outcomes) == ["Accepted", "opted_out", "opted_out", "ambiguous"]
        assert played.texts(special(150)) == ["Hello"]
        assert len({row.request for row in played.world.rows()}) == 1

    def test_one_bad_number_does_not_fail_its_neighbours(self, played: Played, speaks: Adapter) -> None:
        outcomes = carried(played, speaks, text(PHONE), text(special(101), id_="2"))
        assert kinds(outcomes) == ["not_sent", "invalid"]
        assert kinds(carried(played, speaks, text(PHONE))) == ["Accepted"]

    @pytest.mark.parametrize(
        ("number", "kind"),
        [(special(102), "invalid"), (special(103), "throttled"), (special(107), "throttled")],
        ids=["no reason", "not sent", "away"],
    )
    def test_a_message_is_refused(self, played: Played, speaks: Adapter, number: str, kind: str) -> None:
        assert kinds(carried(played, speaks, text(number))) == [kind]

    def test_a_long_text_with_all_options_arrives_as_it_was_written(self, played: Played, speaks: Adapter) -> None:
        words = "A&B=C+D %41\r\nc.,:;!?()~-_\\/@$#'\""
        options: dict[str, Any] = {"subject": "Hi", "message_type_id": 2, "stamp_to_send": int(NOW) - 5}
        (outcome,) = carried(played, speaks, text(PHONE, words, **options)).values()
        assert isinstance(outcome, Accepted)
        assert (outcome.price, played.texts(PHONE)) == ("1 credits", [f"Hi {words}"])

    def test_a_code_of_ours_is_a_text(self, played: Played, speaks: Adapter) -> None:
        request = Verify(to=f"+1{PHONE}", template="Your code is [CODE]")
        assert kinds(carried(played, speaks, work("verify", request, code="012837"))) == ["Accepted"]
        assert played.texts(PHONE) == ["Your code is 012837"]

    def test_the_account_decides(self, played: Played) -> None:
        outcomes = [
            carried(played, adapter("json", user=user, password=password), text(PHONE))["1"]
            for user, password in (("sandbox", "wrong"), ("guest", "sandbox"), ("broke", "sandbox"))
        ]
        assert [(one.kind, one.permission) for one in outcomes if isinstance(one, Failure)] == [
            (FailureKind.UNAUTHORIZED, False), (FailureKind.UNAUTHORIZED, True),
            (FailureKind.INSUFFICIENT_FUNDS, False),
        ]  # fmt: skip

    def test_a_number_is_looked_up(self, played: Played, speaks: Adapter) -> None:
        (found,) = carried(played, speaks, work("lookup", Lookup(to=f"+1{PHONE}"))).values()
        assert found == Found(result={"phone_number": f"+1{PHONE}", "carrier_name": "ATTUS"})
        assert kinds(carried(played, speaks, work("lookup", Lookup(to=f"+1{special(130)}")))) == ["invalid"]

    @pytest.mark.parametrize("card", [{"stored_credit_card": "1111"}, OURS], ids=["stored", "another"])
    def test_a_keyword_is_rented_set_up_checked_and_cancelled(
        self, played: Played, speaks: Adapter, card: dict[str, str]
    ) -> None:
        def one(operation: str, **more: Any) -> Any:
            return carried(played, speaks, op(operation, **BEE, **more))["1"]

        assert one("keyword.check").result == BEE | {"available": True}
        rented = one("keyword.rent", **card)
        assert (rented.result["keyword"], rented.result["contact_group_ids"], rented.ref) == (
            "bee", [], rented.result["id"],
        )  # fmt: skip
        assert one("keyword.check").result == BEE | {"available": False}
        assert one("keyword.rent", **card).kind == FailureKind.INVALID
        changed = one("keyword.setup", enable_double_opt_in=True, contact_group_ids="a,b", forward_email="a@b.example")
        assert changed.result == rented.result | {
            "enable_double_opt_in": True, "contact_group_ids": ["a", "b"], "forward_email": "a@b.example",
        }  # fmt: skip
        assert one("keyword.setup", forward_url="nowhere").kind == FailureKind.INVALID
        assert one("keyword.cancel").result == BEE | {"cancelled": True}
        assert one("keyword.cancel").kind == FailureKind.INVALID
        again = work("keyword.cancel", OperationRequest(arguments=BEE), doubtful=True)
        assert kinds(carried(played, speaks, again)) == ["Found"]

    def test_credits_are_bought_and_read(self, played: Played, speaks: Adapter) -> None:
        bought = carried(played, speaks, op("credits.buy", number_of_credits="1000", stored_credit_card="1111"))["1"]
        assert isinstance(bought, Found)
        assert (bought.result["bought_credits"], bought.result["amount"]) == ("1000", "9.45")
        balance = carried(played, speaks, op("balance"))["1"]
        assert isinstance(balance, Found)
        assert (balance.result["balance"], balance.result["currency"]) == ("1001000", None)
        declined = op("credits.buy", number_of_credits="5", **OURS | {"card_number": "4000000000000002"})
        assert kinds(carried(played, speaks, declined)) == ["invalid"]

    def test_a_report_is_read(self, played: Played, speaks: Adapter) -> None:
        (sent,) = carried(played, speaks, text(PHONE)).values()
        assert isinstance(sent, Accepted)
        played.now += 1
        counts = carried(played, speaks, op("report", id=sent.ref))["1"]
        assert isinstance(counts, Found)
        assert counts.result["delivered"] == {"count": 1, "percentage": "100.00"}
        listed = carried(played, speaks, op("report", id=sent.ref, status="delivered"))["1"]
        assert isinstance(listed, Found)
        assert listed.result["phone_numbers"] == [f"+1{PHONE}"]
        assert kinds(carried(played, speaks, op("report", id="17"))) == ["invalid"]

    def test_what_became_of_messages_is_asked_and_told(self, played: Played, speaks: Adapter) -> None:
        jobs = [text(special(ending), id_=str(ending)) for ending in (150, 140, 131)]
        outcomes = carried(played, speaks, *jobs)
        refs = {job.id: one.ref for job in jobs if isinstance(one := outcomes[job.id], Accepted)}
        played.now += 1
        sent = [work("send", job.request, job.id, state=State.SENT, ref=refs[job.id]) for job in jobs]
        states = {id_: told.state for id_, told in news(played, speaks, sent).items()}
        assert states == {"150": State.DELIVERED, "140": State.UNDELIVERED}

    @pytest.mark.parametrize("happened", [True, False], ids=["taken, and the answer lost", "never taken"])
    @pytest.mark.parametrize(
        "job",
        [op("keyword.rent", **BEE, stored_credit_card="1111"), op("credits.buy", number_of_credits="7", **OURS)],
        ids=["rent", "buy"],
    )
    def test_a_purchase_in_doubt_is_cleared_up(
        self, played: Played, speaks: Adapter, job: Work, happened: bool
    ) -> None:
        before = speaks.before(job)
        assert before is not None
        baseline = speaks.remember(over(played, before), job)
        if happened:
            carried(played, speaks, job)
        doubted = work(job.operation, job.request, state=State.UNKNOWN, age=60.0, baseline=baseline)
        (told,) = news(played, speaks, [doubted]).values()
        assert told.state == (State.COMPLETED if happened else State.FAILED)

    @pytest.mark.parametrize("to", ["honey", ""])
    def test_a_text_from_a_phone_is_heard(self, played: Played, to: str) -> None:
        texted = Texted(account="sandbox", sender=f"1{PHONE}", to=to, text="Yes & no", at=NOW)
        told = played.provider.inbound(texted)
        callback = Callback(method=told.method, query=told.query, headers=told.headers, body=told.body)
        assert adapter("json").read(callback) == (Inbound(sender=f"+1{PHONE}", to=to, text="Yes & no"),)
        assert ("PhoneNumber", PHONE) in parse_qsl(told.body.decode())


def news(played: Played, speaks: Adapter, jobs: list[Work]) -> dict[str, Any]:
    groups: tuple[Group, ...] = speaks.inquire(jobs)
    told = [speaks.news(over(played, group.request), group) for group in groups]
    return {id_: one for some in told if isinstance(some, dict) for id_, one in some.items()}
