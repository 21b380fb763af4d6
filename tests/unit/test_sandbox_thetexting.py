"""TheTexting as the sandbox plays it, and its adapter with it: what one builds the other takes, and the way back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from dispatcher import records
from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Request as JobRequest
from dispatcher.outcomes import Accepted, Failure, Found, Outcome
from dispatcher.states import State
from workers.providers import thetexting as adapters
from workers.providers.base import Callback, Group, Inbound, News, Receipt, Response
from workers.sandbox import magic, thetexting
from workers.sandbox.base import Answer, Outgoing, Request, Texted
from workers.sandbox.thetexting import TheTexting
from workers.sandbox.world import Row, World

#: 21-Nov-2026 16:00 UTC.
NOW = 1_795_276_800.0
PHONE = "447700900001"
FOR_SALE = "12125550150"


def special(ending: int) -> str:
    return f"447700900{ending}"


def on_sale(ending: int) -> str:
    return f"12125550{ending}"


class Played:
    """TheTexting and its world, without a server: what is asked is committed at once."""

    def __init__(self, ledger: Path | None = None) -> None:
        self.now = NOW
        self.provider = TheTexting()
        self.world = World(self.provider.accounts, ledger, now=lambda: self.now)

    def reply(self, request: Request) -> Answer:
        answer, rows = self.provider.reply(request, self.world)
        self.world.commit(rows)
        assert rows, "every request leaves a row"
        return answer

    def ask(self, path: str, *, key: str = "sandbox", secret: str = "sandbox", **fields: Any) -> dict[str, Any]:  # noqa: S107 - of a sandbox
        body = urlencode({"api_key": key, "api_secret": secret, **fields}, doseq=True).encode()
        answer = self.reply(Request(method="POST", path=f"/rest/sms/json/{path}", body=body))
        assert answer.status == 200
        told: dict[str, Any] = json.loads(answer.body)
        assert [*told] == ["Response", "ErrorMessage", "Status"]
        return told

    def status(self, path: str, **fields: Any) -> int:
        return int(self.ask(path, **fields)["Status"])

    def send(self, to: str = PHONE, **fields: Any) -> dict[str, Any]:
        return self.ask("Message/Send", **{"to": to, "text": "Hello"} | fields)

    def balance(self, key: str = "sandbox") -> float:
        return float(self.ask("account/getbalance", key=key)["Response"]["balance"])

    def texts(self, msisdn: str) -> list[str]:
        return [message.text for message in self.world.inbox(msisdn)]


@pytest.fixture
def played() -> Played:
    return Played()


# -- the pages' samples ------------------------------------------------------------------------------------------------


def test_number_buy(played: Played) -> None:
    """The sentence of NumberBuy, and that of NumberCancel with its blank more."""
    assert played.ask("number/buy", number=FOR_SALE) == {
        "Response": f"Number: {FOR_SALE} has been successfully purchased", "ErrorMessage": "", "Status": 0,
    }  # fmt: skip
    assert played.ask("number/cancel", number=FOR_SALE) == {
        "Response": f"Number : {FOR_SALE} has been successfully canceled.", "ErrorMessage": "", "Status": 0,
    }  # fmt: skip


def test_failure(played: Played) -> None:
    """The failure of every page."""
    assert played.ask("number/buy") == {"Response": None, "ErrorMessage": "Parameters Missing", "Status": 2}


def test_message_send(played: Played) -> None:
    """SendMessage answers id, parts and price, and the phone shows the text."""
    told = played.send(text="a" * 161)["Response"]
    assert told.pop("message_id").isdecimal()
    assert told == {"message_count": 2, "price": 0.011}
    assert played.texts(PHONE) == ["a" * 161]
    assert played.balance() == pytest.approx(999_999.989)


def test_account_numbers(played: Played) -> None:
    """What was bought is listed, its country padded, until it is given back; the ledger tells."""
    assert played.status("account/numbers") == 5
    played.ask("number/buy", number=FOR_SALE)
    assert played.ask("account/numbers")["Response"] == {
        "number_count": 1,
        "list_account_numbers": [
            {"country_code": "US ", "Number": FOR_SALE, "in_callback_url_type": None, "in_callback_url": None}
        ],
    }
    assert played.balance() == 999_999.0
    played.ask("number/cancel", number=FOR_SALE)
    assert played.status("account/numbers") == 5


def test_search_message(played: Played) -> None:
    """SearchMessage answers a list of one, its id padded to a column's width."""
    ref = played.send(text="Test SMS")["Response"]["message_id"]
    assert played.ask("search/message", message_id=ref)["Response"] == [
        {
            "message_id": f"{ref:<50}", "From": thetexting.SHARED, "To": PHONE, "count": 1, "is_unicode": False,
            "price": 0.0055, "sent_date": "2026-11-21T16:00:00.00", "text": "Test SMS", "status": "Sent",
        }
    ]  # fmt: skip


def test_search_messages(played: Played) -> None:
    """SearchMessages finds by ids, or by number and day with the latest first."""
    first, second = (played.send(text=text)["Response"]["message_id"] for text in ("One", "Two"))
    played.send("447700900002")
    by_id = played.ask("search/messages", message_id=[first, second, "5"])["Response"]
    assert [row["message_id"] for row in by_id] == [first, second]
    by_day = played.ask("search/messages", to=PHONE, message_sent_date="11-21-2026")["Response"]
    assert [row["text"] for row in by_day] == ["Two", "One"]
    assert played.status("search/messages", to=PHONE, message_sent_date="11-20-2026") == 5
    assert played.status("search/messages", key="paid", message_id=[first]) == 5


def test_search_rejection(played: Played) -> None:
    """SearchRejections finds what was taken and never delivered."""
    played.send()
    played.send(special(140))
    played.now += 2
    (row,) = played.ask("search/rejection", message_sent_date="11-21-2026")["Response"]
    assert (row["To"], row["status"]) == (special(140), "Rejected")
    assert played.status("search/rejection", message_sent_date="11-21-2026", to=PHONE) == 5


def test_number_search(played: Played) -> None:
    """NumberSearch finds what is free, by area code and by digits that are in it."""
    found = played.ask("number/search", country_code="us", area_code="330", number="13305550152")["Response"]
    assert found == [{"country_name": "United States", "area_code": "330", "number": "13305550152", "price": 1}]
    assert len(played.ask("number/search", country_code="US", number="0161")["Response"]) == 4
    assert len(played.ask("number/search", country_code="US")["Response"]) == 20
    played.ask("number/buy", key="paid", number="13305550152")
    assert played.status("number/search", country_code="us", number="13305550152", area_code="330") == 5
    assert played.status("number/search", country_code="GB") == 5


OTHERS = [
    pytest.param("account/getpricing", {"country_code": "us"}, {"Price": 0.0055, "Country_Name": "United States",
                 "Country_Prefix": 1, "Country_Code": "US "}, id="AccountPricing"),
    pytest.param("Message/CreateSenderID", {"senderid": "SHOP"}, "Sender ID : SHOP is pending admin approval.",
                 id="createsenderid"),
    pytest.param("account/settings", {"new_dr_callback_url": "www.example.com", "new_dr_callback_url_type": "HTTPS",
                 "new_secret_key": "321"}, {"secret_key": "sandbox", "in_callback_url_type": None,
                 "in_callback_url": None, "dr_callback_url_type": "HTTPS", "dr_callback_url": "www.example.com"},
                 id="AccountSetting, which changes no secret here"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "content"), OTHERS)
def test_calls_that_the_adapter_does_not_make(played: Played, path: str, fields: dict[str, str], content: Any) -> None:
    """They are documented, so that they are played."""
    assert played.ask(path, **fields)["Response"] == content


def test_number_update(played: Played) -> None:
    """NumberUpdate is for numbers of the account."""
    fields = {"number": FOR_SALE, "new_in_callback_url_type": "HTTPS", "new_in_callback_url": "www.example.com"}
    assert played.status("number/update", **fields) == 4
    played.ask("number/buy", number=FOR_SALE)
    assert played.ask("number/update", **fields)["Response"] == f"Number : {FOR_SALE} has been successfully updated."
    assert played.status("number/update", **fields | {"new_in_callback_url_type": "FTP"}) == 4


# -- what it refuses ---------------------------------------------------------------------------------------------------

REFUSED = [
    pytest.param("Message/Send", {"text": "Hello"}, 2, id="a text to nobody"),
    pytest.param("Message/Send", {"to": PHONE}, 2, id="no text"),
    pytest.param("Message/Send", {"to": f"+{PHONE}", "text": "Hello"}, 4, id="a plus"),
    pytest.param("Message/Send", {"to": "07700900001", "text": "Hello"}, 4, id="a national number"),
    pytest.param("Message/Send", {"to": f"{PHONE},447700900002", "text": "Hello"}, 4, id="two numbers"),
    pytest.param("Message/Send", {"to": PHONE, "text": "a" * 3201}, 4, id="3201 characters"),
    pytest.param("Message/Send", {"to": PHONE, "text": "Привет"}, 4, id="Unicode without its type"),
    pytest.param("Message/Send", {"to": PHONE, "text": "Hello", "type": "flash"}, 4, id="a type of its own"),
    pytest.param("Message/Send", {"to": PHONE, "text": "Hello", "from": FOR_SALE}, 4, id="from a number of others"),
    pytest.param("Message/Send", {"to": PHONE, "text": "Hello", "key": "paid"}, 2, id="paid, from nobody"),
    pytest.param("Message/Send", {"to": PHONE, "text": "Hello", "key": "paid", "from": "test"}, 4, id="paid, a test"),
    pytest.param("Message/Send", {"to": PHONE, "text": "Hello", "key": "broke"}, 1, id="no money for a text"),
    pytest.param("number/lookup", {}, 2, id="a lookup of nobody"),
    pytest.param("number/lookup", {"to": "nobody"}, 4, id="a lookup of no number"),
    pytest.param("number/lookup", {"to": PHONE, "key": "broke"}, 1, id="no money for a lookup"),
    pytest.param("number/search", {}, 2, id="a search in no country"),
    pytest.param("number/search", {"country_code": "USA"}, 4, id="a search in a country of three letters"),
    pytest.param("number/search", {"country_code": "US", "area_code": "x"}, 4, id="no area code"),
    pytest.param("number/buy", {"number": "16787188829"}, 4, id="a number that is not for sale"),
    pytest.param("number/buy", {"number": FOR_SALE, "key": "broke"}, 1, id="no money for a number"),
    pytest.param("number/cancel", {"number": FOR_SALE}, 4, id="gives back what it has not"),
    pytest.param("search/message", {}, 2, id="searches nothing"),
    pytest.param("search/message", {"message_id": "5"}, 5, id="finds nothing"),
    pytest.param("search/messages", {"to": PHONE}, 2, id="searches without a day"),
    pytest.param("search/messages", {"to": PHONE, "message_sent_date": "2026-11-21"}, 4, id="a day in other order"),
    pytest.param("search/rejection", {}, 2, id="rejections of no day"),
    pytest.param("account/getpricing", {"country_code": "GB"}, 5, id="no price"),
    pytest.param("account/getbalance", {"secret": "wrong"}, 3, id="wrong secret"),
    pytest.param("account/getbalance", {"key": "nobody"}, 3, id="unknown key"),
    pytest.param("account/getbalance", {"secret": ""}, 2, id="no secret"),
    pytest.param("Message/Send", {"secret": "wrong"}, 3, id="the login is looked at first"),
]


@pytest.mark.parametrize(("path", "fields", "status"), REFUSED)
def test_it_refuses_what_the_vendor_would(played: Played, path: str, fields: dict[str, Any], status: int) -> None:
    """With a code of its table, nothing in Response, and nothing done."""
    told = played.ask(path, **fields)
    assert (told["Response"], told["Status"], bool(told["ErrorMessage"])) == (None, status, True)
    assert [row.accepted for row in played.world.rows()] == [False]
    assert played.world.accepted() == {}
    assert "wrong" not in repr(played.world.rows())


def test_who_a_text_is_from(played: Played) -> None:
    """A number of one's own, the approved sender ID, or for a trial account the shared number."""
    played.ask("number/buy", number=FOR_SALE)
    played.ask("number/buy", key="paid", number=on_sale(151))
    for fields in ({}, {"from": "test"}, {"from": "sandbox"}, {"from": "ACME"}, {"from": FOR_SALE}):
        assert played.send(**fields)["Status"] == 0
    assert played.send(key="paid", **{"from": on_sale(151)})["Status"] == 0
    shared = [thetexting.SHARED] * 3
    senders = [message.sender for message in played.world.inbox(PHONE)]
    assert senders == [*shared, "ACME", FOR_SALE, on_sale(151)]


def test_a_number_is_bought_once(played: Played) -> None:
    """By whomever."""
    assert played.status("number/buy", number=FOR_SALE) == 0
    assert played.status("number/buy", number=FOR_SALE) == 1
    assert played.status("number/buy", key="paid", number=FOR_SALE) == 1


# -- how it may be asked -----------------------------------------------------------------------------------------------

WAY = {"api_key": "sandbox", "api_secret": "sandbox", "to": PHONE, "text": "Hello"}
ADDRESS = "/rest/sms/json/Message/Send"


def posted(body: str, kind: str = "", path: str = ADDRESS) -> Request:
    return Request(method="POST", path=path, headers={"content-type": kind} if kind else {}, body=body.encode())


WAYS = [
    pytest.param(posted(urlencode(WAY), path="/rest/sms/json/message/send"), 0, id="a form, a path in small letters"),
    pytest.param(posted(urlencode(WAY), thetexting.FORM, "/REST/SMS/JSON/Message/Send"), 0, id="a path in capitals"),
    pytest.param(Request(method="GET", path=ADDRESS, query=urlencode(WAY)), 0, id="GET"),
    pytest.param(Request(method="POST", path=ADDRESS, query=urlencode(WAY)), 0, id="the sample URL (POST)"),
    pytest.param(posted(json.dumps(WAY), "text/json; charset=utf-8"), 0, id="JSON"),
    pytest.param(posted("{", "text/json"), 2, id="half of JSON"),
    pytest.param(posted("[]", "text/json"), 2, id="a list"),
    pytest.param(posted(urlencode(WAY), "text/plain"), 2, id="another content type"),
]


@pytest.mark.parametrize(("request_", "status"), WAYS)
def test_ways_to_ask(played: Played, request_: Request, status: int) -> None:
    """POST as a form or one of seven kinds of JSON, or GET."""
    assert played.provider.serves(request_.path)
    answer = played.reply(request_)
    assert json.loads(answer.body)["Status"] == status
    assert answer.headers == {"Date": "Sat, 21 Nov 2026 16:00:00 GMT"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("PUT", "Message/Send", 405), ("DELETE", "number/cancel", 405), ("POST", "number", 404), ("GET", "", 404)],
)
def test_what_there_is_not(played: Played, method: str, path: str, status: int) -> None:
    """Another verb, or an address of nothing."""
    assert played.reply(Request(method=method, path=f"/rest/sms/json/{path}")).status == status


def test_what_it_serves() -> None:
    """Its two end points and no more."""
    provider = TheTexting()
    assert provider.serves("/rest/sms/xml/a")
    assert not any(provider.serves(path) for path in ("/rest/sms/yaml/a", "/rest/sms", "/api/jsonapi.aspx"))


# -- special numbers ---------------------------------------------------------------------------------------------------

SPECIAL = [
    pytest.param(100, [1, 1], 0, id="100 blocked"),
    pytest.param(101, [4, 4], 0, id="101 invalid"),
    pytest.param(102, [6, 6], 0, id="102 refused"),
    pytest.param(103, [1, 1], 0, id="103 not sent"),
    pytest.param(104, [1, 0], 1, id="104 not sent the first time"),
    pytest.param(105, [1, 1], 0, id="105 nobody knows"),
    pytest.param(108, [1, 1], 2, id="108 nobody knows but the phone"),
    pytest.param(109, [0, 0], 2, id="109 ordinary: codes are ours"),
    pytest.param(140, [0, 0], 2, id="140 taken, and its receipt says no"),
]


@pytest.mark.parametrize(("ending", "statuses", "taken"), SPECIAL)
def test_status_of_a_special_number(played: Played, ending: int, statuses: list[int], taken: int) -> None:
    """Each in this vendor's words."""
    assert [played.send(special(ending))["Status"] for _ in statuses] == statuses
    assert played.world.accepted().get(special(ending), 0) == taken
    assert len(played.world.rows()) == 2


@pytest.mark.parametrize(("ending", "statuses"), [(106, [503, 200]), (107, [503, 503])])
def test_it_is_away(played: Played, ending: int, statuses: list[int]) -> None:
    """Something before it answers."""
    body = urlencode(WAY | {"to": special(ending)}).encode()
    request = Request(method="POST", path="/rest/sms/json/Message/Send", body=body)
    assert [played.reply(request).status for _ in statuses] == statuses


def test_a_purchase_that_nobody_knows_the_end_of(played: Played) -> None:
    """Status 1 covers both: bought, and not bought."""
    for ending in (105, 108):
        assert played.status("number/buy", number=on_sale(ending)) == 1
    assert [row["Number"] for row in played.ask("account/numbers")["Response"]["list_account_numbers"]] == [
        on_sale(108)
    ]


LOOKUPS = [
    (PHONE, {"lookup_status": "No Error", "is_ported": False, "international_format_number": f"+{PHONE}"}),
    (special(130), {"lookup_status": "Unknown Subscriber"}),
    (special(131), {"lookup_status": "Absent Subscriber"}),
    (special(132), {"is_ported": True}),
    (special(133), {"serving_msc": "33609001390"}),
    (FOR_SALE, {"phone_number_iso2_code": "US", "mccmnc": None}),
]


@pytest.mark.parametrize(("number", "found"), LOOKUPS)
def test_lookup(played: Played, number: str, found: dict[str, Any]) -> None:
    """Status 0 whatever was found."""
    told = played.ask("number/lookup", to=number)
    assert told["Status"] == 0
    assert told["Response"] | found == told["Response"]
    assert played.balance() == 999_999.995


def test_a_reads_row_bears_no_number(played: Played) -> None:
    """So that asking about a text to a number which brings faults meets none."""
    played.ask("search/messages", to=special(118), message_sent_date="11-21-2026")
    assert magic.fault(played.world.rows(), played.world) is None
    assert [(row.kind, row.msisdn) for row in played.world.rows()] == [("report", "")]


def test_a_status_is_known_after_a_moment(played: Played) -> None:
    """Sent, then what a receipt says; where no receipt comes, Sent for ever."""
    refs = [played.send(number)["Response"]["message_id"] for number in (PHONE, special(140), special(144))]
    for seconds, words in [(1, ["Sent"] * 3), (1, ["Delivered", "Rejected", "Sent"])]:
        played.now += seconds
        rows = played.ask("search/messages", message_id=refs)["Response"]
        assert [row["status"] for row in rows] == words


def test_the_ledger_brings_its_numbers_back(tmp_path: Path) -> None:
    """After a kill the sandbox goes on where its ledger ends."""
    before = Played(tmp_path / "ledger.jsonl")
    before.ask("number/buy", number=FOR_SALE)
    ref = before.send()["Response"]["message_id"]
    after = Played(tmp_path / "ledger.jsonl")
    assert after.ask("account/numbers")["Response"]["number_count"] == 1
    assert after.ask("search/message", message_id=ref)["Status"] == 0


# -- its adapter and it ------------------------------------------------------------------------------------------------


class Both:
    """The adapter of an account, whose requests are played: what comes back is what it reads."""

    def __init__(self, form: str, **settings: str) -> None:
        self.played = Played()
        self.adapter = adapters.TheTexting("thetexting", {**adapters.TheTexting.sandbox, "format": form, **settings})

    def answer(self, group: Group) -> Response:
        url = urlsplit(group.request.url)
        headers = {name.lower(): value for name, value in group.request.headers.items()}
        request = Request(
            method=group.request.method, path=url.path, query=url.query, headers=headers, body=group.request.body
        )
        answer = self.played.reply(request)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status, headers=headers, body=answer.body)

    def work(self, name: str, request: JobRequest, **fields: Any) -> Work:
        kind = records.kind_of(request)
        return Work(id="0001", provider="thetexting", kind=kind, operation=name, request=request, **fields)

    def do(self, name: str, request: JobRequest | None = None, **arguments: Any) -> Outcome:
        job = self.work(name, request or OperationRequest(arguments=arguments), code="012837")
        (group,) = self.adapter.build([job]).groups
        return self.adapter.parse(self.answer(group), group)[job.id]

    def news(self, name: str, request: JobRequest, **fields: Any) -> list[News]:
        """What is learnt of a job that is asked about an hour after it came to its state, request by request."""
        now = int(NOW * 1000)
        asked = {"state": State.UNKNOWN, "age": 3600.0, "created_at": now, "since": now} | fields
        job = self.work(name, request, **asked)
        self.played.now += 3600
        told = (self.adapter.news(self.answer(group), group) for group in self.adapter.inquire([job]))
        return [one[job.id] for one in told if isinstance(one, dict) and job.id in one]


@pytest.fixture(params=["json", "xml"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


def kind(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure)
    return outcome.kind.value


def found(outcome: Outcome) -> Mapping[str, Any]:
    assert isinstance(outcome, Found), outcome
    return outcome.result


HELLO = Send(to=f"+{PHONE}", text="Hello")


def test_a_text_end_to_end(both: Both) -> None:
    """Taken, found by its id, and its fate known."""
    for text in ("Hello", "Привет 🙂", "100 % & more = +€"):
        outcome = both.do("send", Send(to=f"+{PHONE}", text=text))
        assert isinstance(outcome, Accepted)
        assert outcome.price == "0.0055"
        (row,) = found(both.do("report", message_id=outcome.ref))["messages"]
        assert (row["message_id"], row["to"], row["price"]) == (outcome.ref, f"+{PHONE}", "0.0055")
        assert row["is_unicode"] is (text.startswith("П"))
        assert both.played.texts(PHONE)[-1] == text
        (news,) = both.news("send", HELLO, state=State.SENT, ref=outcome.ref)
        assert news.state == State.DELIVERED


def test_a_verification_end_to_end(both: Both) -> None:
    """Our code on the phone, in an ordinary text."""
    outcome = both.do("verify", Verify(to=f"+{PHONE}", template="Your code is [CODE]"))
    assert isinstance(outcome, Accepted)
    assert outcome.code == ""
    assert both.played.texts(PHONE) == ["Your code is 012837"]
    assert [row.kind for row in both.played.world.rows()] == ["send"]


def test_a_lookup_end_to_end(both: Both) -> None:
    """A number that is found, one that isn't."""
    result = found(both.do("lookup", Lookup(to=f"+{PHONE}")))
    assert result["international_format_number"] == f"+{PHONE}"
    assert (result["lookup_status"], result["is_ported"], result["mccmnc"]) == ("No Error", False, "23430")
    assert result["original_carrier"]["carrier_name"] == "Sandbox Mobile"
    assert found(both.do("lookup", Lookup(to=f"+{FOR_SALE}")))["mccmnc"] is None
    assert kind(both.do("lookup", Lookup(to=f"+{special(130)}"))) == "invalid"


def test_a_number_end_to_end(both: Both) -> None:
    """Found, bought, listed, sent from, given back."""
    numbers = found(both.do("number.search", country_code="us", area_code="212"))["numbers"]
    number = numbers[0]["number"]
    assert numbers[0] == {
        "number": f"+{FOR_SALE}", "country_name": "United States", "area_code": "212", "price": "1",
    }  # fmt: skip
    assert found(both.do("number.list")) == {"numbers": []}
    assert found(both.do("number.buy", number=number)) == {"number": number}
    (listed,) = found(both.do("number.list"))["numbers"]
    assert (listed["number"], listed["country_code"], listed["in_callback_url"]) == (number, "US", None)
    assert isinstance(both.do("send", msgspec.structs.replace(HELLO, sender=number)), Accepted)
    assert found(both.do("number.cancel", number=number)) == {"number": number}
    assert found(both.do("number.list")) == {"numbers": []}
    assert found(both.do("number.search", country_code="GB")) == {"numbers": []}


def test_balance_and_report_end_to_end(both: Both) -> None:
    """Money is a decimal, a report by number and day a list, and an empty one too."""
    both.do("send", HELLO)
    assert found(both.do("balance")) == {"balance": "999999.9945", "available": "999999.9945", "currency": None}
    day = found(both.do("report", number=f"+{PHONE}", message_sent_date="11-21-2026"))["messages"]
    assert [row["status"] for row in day] == ["Sent"]
    assert found(both.do("report", number=f"+{PHONE}", message_sent_date="11-20-2026")) == {"messages": []}
    assert found(both.do("report", message_id="5")) == {"messages": []}


@pytest.mark.parametrize("form", ["json", "xml"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"api_secret": "wrong"}, dict.fromkeys(
            ["send", "verify", "lookup", "balance", "number.search", "number.buy", "number.cancel", "number.list",
             "report"], "unauthorized",
        ), id="wrong secret"),
        pytest.param({"api_key": "broke"}, {
            "send": "ambiguous", "verify": "ambiguous", "lookup": "ambiguous", "number.buy": "ambiguous",
            "number.cancel": "invalid",
        }, id="no money: Status 1 tells nothing apart"),
        pytest.param({"api_key": "paid"}, {"send": "invalid", "verify": "invalid"}, id="no sender"),
        pytest.param({"sender": "+12125550199"}, {"send": "invalid"}, id="a sender of others"),
    ],
)  # fmt: skip
def test_what_is_refused_end_to_end(form: str, settings: dict[str, str], expected: dict[str, str]) -> None:
    """Each operation, in the kind that follows from its Status."""
    both = Both(form, **settings)
    requests: dict[str, JobRequest] = {
        "send": HELLO, "verify": Verify(to=HELLO.to, template="[CODE]"), "lookup": Lookup(to=HELLO.to),
        "balance": OperationRequest(), "number.search": OperationRequest(arguments={"country_code": "US"}),
        "number.buy": OperationRequest(arguments={"number": f"+{FOR_SALE}"}),
        "number.cancel": OperationRequest(arguments={"number": f"+{FOR_SALE}"}), "number.list": OperationRequest(),
        "report": OperationRequest(arguments={"message_id": "8"}),
    }  # fmt: skip
    assert {name: kind(both.do(name, requests[name])) for name in expected} == expected
    assert both.played.world.accepted() == {}


def test_a_text_whose_answer_was_lost(both: Both) -> None:
    """Taken or not, Status 1 was all that came: a text of the day is no proof, none on any day is."""
    for ending, states in [(108, [None, State.FAILED]), (105, [State.FAILED, State.FAILED])]:
        lost = Send(to=f"+{special(ending)}", text="Hello")
        assert kind(both.do("send", lost)) == "ambiguous"
        news = both.news("send", lost)
        assert [one.state for one in news] == states, "each of the two days that it may bear"


def test_a_purchase_whose_answer_was_lost(both: Both) -> None:
    """The account's numbers tell, and what they were before."""
    for ending, state in [(108, State.COMPLETED), (105, State.FAILED)]:
        order = OperationRequest(arguments={"number": f"+{on_sale(ending)}"})
        job = both.work("number.buy", order)
        read = both.adapter.before(job)
        assert read is not None
        before = both.adapter.remember(both.answer(Group(request=read, jobs=(job,))), job)
        assert before == "not held"
        assert kind(both.do("number.buy", order)) == "ambiguous"
        (news,) = both.news("number.buy", order, baseline=before)
        assert (news.state, news.result) == (state, {"number": job.to} if state == State.COMPLETED else {})
    order = OperationRequest(arguments={"number": f"+{on_sale(108)}"})
    assert kind(both.do("number.cancel", order)) == "ambiguous"
    (news,) = both.news("number.cancel", order, baseline="held")
    assert (news.state, news.evidence) == (State.COMPLETED, "number.list: held before, not held now: strong")


def test_every_operation_has_its_row(both: Both) -> None:
    """The ledger calls what was asked as the adapter does; a verification is a text there."""
    both.do("send", HELLO)
    both.do("verify", Verify(to=HELLO.to, template="[CODE]"))
    both.do("lookup", Lookup(to=HELLO.to))
    both.do("report", message_id="8")
    both.do("number.search", country_code="US")
    for name in ("number.buy", "number.cancel"):
        both.do(name, number=f"+{FOR_SALE}")
    for name in ("balance", "number.list"):
        both.do(name)
    kinds = {row.kind for row in both.played.world.rows()}
    assert kinds | {"verify"} == set(adapters.TheTexting.operations)


# -- what it tells by itself -------------------------------------------------------------------------------------------


def received(outgoing: Outgoing) -> Callback:
    return Callback(method=outgoing.method, query=outgoing.query, headers=outgoing.headers, body=outgoing.body)


def test_a_text_from_a_phone() -> None:
    """As the sample URL of NumberBuy has it, and as the adapter reads it."""
    texted = Texted(account="sandbox", sender=PHONE, to=FOR_SALE, text="STOP & go + 1 < 2 ü", at=NOW - 22_740)
    outgoing = TheTexting().inbound(texted)
    assert outgoing.method == "GET"
    assert "datetime=Nov+21+2026+09%3A41+AM&cost=0.00" in outgoing.query
    (told,) = Both("json").adapter.read(received(outgoing))
    assert told == Inbound(sender=f"+{PHONE}", to=FOR_SALE, text="STOP & go + 1 < 2 ü", at="Nov 21 2026 09:41 AM")


@pytest.mark.parametrize(
    ("number", "state"),
    [(PHONE, State.DELIVERED), (special(140), State.UNDELIVERED)],
    ids=["delivered", "never"],
)
def test_a_receipt(number: str, state: State) -> None:
    """By the id of the text, in fields that no page shows."""
    row = Row(
        provider="thetexting", action="Message/Send", kind="send", msisdn=number, accepted=True, result="", ref="10011",
        at=NOW,
    )  # fmt: skip
    adapter = Both("json").adapter
    (told,) = adapter.read(received(TheTexting().receipt(row)))
    assert isinstance(told, Receipt)
    assert (told.ref, told.news.state) == ("10011", state)
    (stale,) = adapter.read(received(TheTexting().receipt(magic.stale(row))))
    assert isinstance(stale, Receipt)
    assert stale.news.state is None


def test_every_special_number_is_in_the_table() -> None:
    """The module says what this vendor answers to each number that providers treat in their own way."""
    told = thetexting.__doc__ or ""
    ordinary = {magic.Magic.KNOWN_CODE, magic.Magic.UNDELIVERED}
    assert [int(one) for one in magic.Magic if one not in ordinary and str(int(one)) not in told] == []


def test_one_too_many_is_nobodys() -> None:
    """The row of a request that the server turned away."""
    (row,) = TheTexting().refused(Request(method="POST", path="/rest/sms/json/Message/Send"))
    assert (row.accepted, row.msisdn, row.result) == (False, "", "429")
