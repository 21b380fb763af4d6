"""MobTexting as the sandbox plays it, against its overview and the vendor's documentation source."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from workers.sandbox import magic
from workers.sandbox.base import Answer, Outgoing, Request, Texted
from workers.sandbox.mobtexting import SERVICES, MobTexting
from workers.sandbox.world import Row, World

NOW = 1_531_153_655.0  # 2018-07-09 16:27:35 UTC
PHONE, OTHER = "447700900001", "447700900002"


def special(ending: int) -> str:
    return f"447700900{ending}"


class Played:
    """MobTexting and its world, without a server: what is asked is committed at once."""

    def __init__(self, account: str = "sandbox") -> None:
        self.now = NOW
        self.account = account
        self.provider = MobTexting()
        self.world = World(self.provider.accounts, now=lambda: self.now, reaches=magic.reaches)

    def ask(self, request: Request) -> Answer:
        answer, rows = self.provider.reply(request, self.world)
        self.world.commit(rows)
        assert rows, "every request leaves a row"
        return answer

    def get(self, path: str, **query: str) -> tuple[int, Any]:
        asked = Request(method="GET", path=f"/api/v2/{path}", query=urlencode(query), headers=self.headers())
        return told(self.ask(asked))

    def post(self, path: str, fields: Any, kind: str = "application/json") -> tuple[int, Any]:
        form = kind == "application/x-www-form-urlencoded"
        body = urlencode(fields) if form else fields if isinstance(fields, str) else json.dumps(fields)
        headers = self.headers() | {"content-type": kind}
        return told(self.ask(Request(method="POST", path=f"/api/v2/{path}", headers=headers, body=body.encode())))

    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.account}", "accept": "application/json"}

    def send(self, to: str = PHONE, **fields: Any) -> tuple[int, Any]:
        return self.post("sms/send", message(to, **fields))

    def sent(self, to: str = PHONE, **fields: Any) -> dict[str, Any]:
        """The one row of a message's answer."""
        status, answer = self.send(to, **fields)
        assert status == 200
        (one,) = answer["data"]
        assert isinstance(one, dict)
        return one

    def verify(self, to: str = PHONE, payload: Any = None, **fields: Any) -> tuple[int, Any]:
        return self.post("verify/send", verification(to, payload=payload or {}, **fields))

    def balance(self) -> int:
        _, answer = self.get("account/balance")
        return int(answer["data"][0]["credits"])

    def texts(self, msisdn: str) -> list[str]:
        return [one.text for one in self.world.inbox(msisdn)]


def told(answer: Answer) -> tuple[int, Any]:
    assert answer.content_type == "application/json"
    return answer.status, json.loads(answer.body)


def message(to: Any = PHONE, **fields: Any) -> dict[str, Any]:
    return {"to": to, "message": "Hello", "sender": "ACME", "service": "T"} | fields


def verification(to: Any = PHONE, **fields: Any) -> dict[str, Any]:
    return {"channels": [{"name": "sms", "recipient": {"to": to}, "order": 0}], "payload": {}} | fields


def error(status: int, words: str) -> tuple[int, Any]:
    return status, {"status": "ERROR", "code": status, "message": words}


NOT_FOUND = error(404, "The requested resource was not found.")


@pytest.fixture
def played() -> Played:
    return Played()


class TestPages:
    """Requests as the pages have them, and the shape of their answers."""

    def test_messaging(self, played: Played) -> None:
        """sms/send answers a list with one row, `custom` coming back as `customid`."""
        status, answer = played.send(message="Example", custom="order-17")
        (one,) = answer["data"]
        assert (status, answer["status"], answer["message"]) == (200, 200, "1 numbers accepted for delivery.")
        assert one.pop("id").endswith(":1")
        assert one == {
            "mobile": PHONE, "status": "AWAITING-DLR", "units": 1, "length": 7, "charges": 1, "customid": "order-17",
            "iso_code": None, "submitted_at": "2018-07-09 16:27:35",
        }  # fmt: skip
        assert played.texts(PHONE) == ["Example"]

    def test_messages_to_many(self, played: Played) -> None:
        """sms/send/json: `root` holds defaults, nodes override them, ids share all but their index."""
        root = {"sender": "ACME", "message": "global message", "service": "T", "time": "", "flash": 0, "type": "A"}
        nodes = [{"to": PHONE, "custom": "346576", "sender": "TXTSMS", "message": "node 1"}, {"to": OTHER}]
        _, answer = played.post("sms/send/json", {"root": root, "nodes": nodes})
        first, second = answer["data"]
        assert (first["customid"], second["customid"], first["status"]) == ("346576", "", "AWAITING-DLR")
        assert (first["id"][:-2], first["id"][-2:], second["id"][-2:]) == (second["id"][:-2], ":1", ":2")
        assert "group_id" not in answer
        assert (played.texts(PHONE), played.texts(OTHER)) == (["node 1"], ["global message"])
        _, named = played.post("sms/send/json", {"root": root | {"name": "Spring"}, "nodes": nodes})
        assert named["data"][0]["id"].startswith(named["group_id"])

    def test_pull_dlr_status(self, played: Played) -> None:
        """sms/status: on its way first; found by id, by our reference (`cid`) and by number and date."""
        sent = played.sent(custom="order-17", sender="TXTSMS")
        _, waiting = played.get("sms/status", id=sent["id"])
        assert [one["status"] for one in waiting["data"]] == ["AWAITING-DLR"]
        played.now += 1
        ways = [{"id": sent["id"]}, {"cid": "order-17"}, {"mobile": PHONE, "date": "2018-07-09"}]
        for way in ways:
            status, answer = played.get("sms/status", **way)
            assert (status, answer["status"], answer["code"]) == (200, "OK", 200)
            (one,) = answer["data"]
            assert one == {
                "id": sent["id"], "mobile": PHONE, "status": "DELIVRD", "units": 1, "service": "T", "length": 5,
                "charges": 1, "custom": "order-17", "custom1": "", "submitted_at": "2018-07-09 16:27:35",
                "delivered_at": "2018-07-09 16:27:36", "sender": "TXTSMS",
            }  # fmt: skip
        for way in ({"id": "x"}, {"cid": "order-18"}, {"mobile": PHONE, "date": "2018-07-10"}, {"mobile": OTHER}):
            assert played.get("sms/status", **way)[1]["data"] == []

    def test_pull_dlr_status_by_pages(self, played: Played) -> None:
        """A day's messages come 100 at a time."""
        nodes = [{"to": f"4477009{number:05}"} for number in range(200, 350)]
        _, answer = played.post("sms/send/json", {"root": message(None), "nodes": nodes})
        group = answer["data"][0]["id"][:-2]
        _, first = played.get("sms/status", group_id=group)
        _, second = played.get("sms/status", group_id=group, page="2")
        assert (len(first["data"]), len(second["data"])) == (100, 50)
        assert first["meta"] == {"current_page": 1, "last_page": 2, "per_page": 100, "total": 150}

    def test_verify(self, played: Played) -> None:
        """Send, check and search have no envelope; the code is on the phone and nowhere in the answers."""
        status, answer = played.verify(
            payload={"length": 5, "timeout": 120}, foreign_id="v-1", template="It is {token}"
        )
        (row,) = played.world.rows()
        assert (status, answer) == (200, {
            "id": row.ref, "status": "sent", "foreign_id": "v-1", "created_at": "2018-07-09 16:27:35",
            "expire_at": "2018-07-09 16:29:35",
        })  # fmt: skip
        assert len(row.code) == 5
        assert played.texts(PHONE) == [f"It is {row.code}"]
        assert played.get(f"verify/check/{row.ref}/nonsense") == (200, {"id": row.ref, "status": "invalid"})
        assert played.get(f"verify/check/{row.ref}/{row.code}") == (200, {"id": row.ref, "status": "success"})
        _, again = played.get(f"verify/check/{row.ref}/{row.code}")
        assert again["status"] == "OTP already verified"
        _, searched = played.get(f"verify/search/{row.ref}")
        assert (searched["to"], searched["reference"], searched["status"]) == (PHONE, "v-1", "success")
        assert row.code not in json.dumps(searched)

    def test_lookup(self, played: Played) -> None:
        """lookup/verify takes a form, and a credit."""
        status, answer = played.post("lookup/verify", {"to": PHONE}, "application/x-www-form-urlencoded")
        (one,) = answer["data"]
        assert (status, one["phone"], one["status"]) == (200, PHONE, "SUCCESS")
        assert (one["ported"], one["roaming"], one["original_network"]["country_name"]) == (
            False, False, "United Kingdom",
        )  # fmt: skip
        assert played.balance() == 999_999

    @pytest.mark.parametrize("path", ["account/balance", "finance/balance"])
    def test_balance(self, played: Played, path: str) -> None:
        """A row for each service; the overview and a later page name different addresses."""
        _, answer = played.get(path)
        assert [one["service"] for one in answer["data"]] == [*SERVICES]
        assert answer["data"][0] == {
            "service": "T", "name": "Transactional SMS", "postpaid": 0, "credits": 1_000_000, "charges": 1,
        }  # fmt: skip

    def test_unsubscribers(self, played: Played) -> None:
        """Who is unsubscribed is texted no more, and only by this account."""
        fields = {"receiver": PHONE, "type": "tag", "value": "promo"}
        status, answer = played.post("sms/suppressions/unsubscribers", fields)
        assert (status, answer["message"]) == (200, "Receiver added successfully")
        assert {name: answer["data"][name] for name in fields} == fields
        assert played.sent()["status"] == "OPTOUT-REJ"
        assert played.verify() == error(422, "The receiver is unsubscribed.")
        assert played.texts(PHONE) == []


REFUSALS = [
    *(
        pytest.param("sms/send", message(**fields), words, id=f"sms/send: {label}")
        for label, fields, words in (
            ("a plus", {"to": f"+{PHONE}"}, "The to format is invalid."),
            ("letters", {"to": "phone"}, "The to format is invalid."),
            ("spaces", {"to": "44 7700 900001"}, "The to format is invalid."),
            ("a national number", {"to": "07700900001"}, "The to format is invalid."),
            ("two numbers", {"to": f"{PHONE},{OTHER}"}, "The to format is invalid."),
            ("a list", {"to": [PHONE]}, "The to field is required."),
            ("nobody", {"to": ""}, "The to field is required."),
            ("no text", {"message": " "}, "The message field is required."),
            ("another host's service", {"service": "MKT"}, "The selected service is invalid."),
            ("the lookup's service", {"service": "L"}, "The selected service is invalid."),
            ("no service", {"service": None}, "The selected service is invalid."),
            ("a sender", {"sender": "NOBODY"}, "The sender is not approved; approved are ACME, SANDBX, TXTSMS."),
            ("a type", {"type": "X"}, "The selected type is invalid."),
            ("a flash", {"flash": 2}, "The flash field must be 0 or 1."),
            ("units", {"max_units": "many"}, "The max_units must be an integer."),
            ("the XML page's time", {"time": "2018-07-05 10:30AM"}, "The time does not match the format Y-m-d H:i:s."),
            ("a thirteenth month", {"time": "2018-13-05 10:30:00"}, "The time does not match the format Y-m-d H:i:s."),
        )
    ),
    pytest.param("sms/send/json", {"root": message()}, "The nodes field is required.", id="json: no nodes"),
    pytest.param("sms/send/json", {"root": message(), "nodes": [5]}, "The nodes field is required.", id="json: a 5"),
    pytest.param(
        "sms/send/json", {"root": message(), "nodes": [{"service": "P"}]}, "The service may not be given in nodes.",
        id="json: a node's service",
    ),
    pytest.param(
        "sms/send/json", {"root": message(), "nodes": [{}] * 1001}, "The nodes may not have more than 1000 items.",
        id="json: too many",
    ),
    *(
        pytest.param("verify/send", verification(**fields), words, id=f"verify/send: {label}")
        for label, fields, words in (
            ("no channels", {"channels": []}, "The channels field is required."),
            ("another channel", {"channels": [{"name": "voice"}]}, "The selected channel is not configured."),
            ("a plus", {"to": f"+{PHONE}"}, "The recipient.to format is invalid."),
            ("three digits", {"payload": {"length": 3}}, "The length must be between 4 and 10, the timeout positive."),
            ("no time", {"payload": {"timeout": 0}}, "The length must be between 4 and 10, the timeout positive."),
            ("a length", {"payload": {"length": "long"}}, "The length must be an integer."),
            ("a short token", {"payload": {"token": "12"}}, "The token length must be equal to the length."),
            ("no place", {"template": "Your code"}, "The template has no {token}."),
            ("a sender", {"channels": [{"name": "sms", "from": "X", "recipient": {"to": PHONE}}]},
             "The selected from is invalid."),
        )
    ),
    pytest.param("lookup/verify", {}, "The to field is required.", id="lookup: nobody"),
    pytest.param("lookup/verify", {"to": special(101)}, "The to format is invalid.", id="lookup: an invalid number"),
    pytest.param("sms/suppressions/unsubscribers", {}, "The receiver field is required.", id="optout: nobody"),
    pytest.param(
        "sms/suppressions/unsubscribers", {"receiver": PHONE, "type": "x"}, "The selected type is invalid.",
        id="optout: a type",
    ),
    pytest.param(
        "sms/suppressions/unsubscribers", {"receiver": PHONE, "type": "tag"}, "The value field is required.",
        id="optout: an unnamed tag",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "words"), REFUSALS)
def test_request_is_refused_as_a_whole(played: Played, path: str, fields: Any, words: str) -> None:
    """A request that can't work is answered by 422, does nothing and leaves its refusal in the ledger."""
    assert played.post(path, fields) == error(422, words)
    assert {(row.accepted, row.result, row.account) for row in played.world.rows()} == {(False, "422", "sandbox")}
    assert played.world.accepted() == {}
    assert played.balance() == 1_000_000


@pytest.mark.parametrize(
    ("path", "body", "kind", "expected"),
    [
        pytest.param("sms/send", "{", "application/json", error(400, "The request is no JSON."), id="no JSON"),
        pytest.param("sms/send", "[" * 100_000, "application/json", error(400, "The request is no JSON."), id="deep"),
        pytest.param("sms/send", "[]", "application/json", error(422, "The to field is required."), id="a list"),
        pytest.param("sms/send", json.dumps(message()), "", error(422, "The to field is required."), id="of no type"),
        pytest.param("sms/none", "{}", "application/json", NOT_FOUND, id="404"),
        pytest.param(
            "account/balance", "{}", "application/json",
            error(405, "The POST method is not supported for this route. Supported methods: GET."), id="405",
        ),
    ],
)  # fmt: skip
def test_bytes_out_of_shape(played: Played, path: str, body: str, kind: str, expected: Any) -> None:
    """Whatever arrives is answered as JSON."""
    assert played.post(path, body, kind) == expected


def test_a_report_of_everything_is_refused(played: Played) -> None:
    """Ours: the page says "any of the above params", and so at least one."""
    assert played.get("sms/status") == error(422, "One of id, mobile, cid, date, group_id is required.")


def test_a_text_is_not_sent_by_get(played: Played) -> None:
    """The vendor's own clients do so, with the token in the URL; the pages have POST only."""
    assert played.get("sms/send", **message())[0] == 405


def test_the_verb_may_be_given_in_the_query(played: Played) -> None:
    """`_method` turns a GET into another verb: nothing that a stranger may set."""
    headers = played.headers() | {"content-type": "application/json"}
    body = json.dumps(message()).encode()
    asked = Request(method="GET", path="/api/v2/sms/send", query="_method=post", headers=headers, body=body)
    assert played.ask(asked).status == 200
    assert played.texts(PHONE) == ["Hello"]


class TestTokens:
    @pytest.mark.parametrize("token", ["wrong", "", "guest "])
    def test_a_bad_token_is_told_so_in_json(self, played: Played, token: str) -> None:
        """Before anything else is looked at, and it is never kept."""
        played.account = token
        if token.strip() == "guest":
            assert played.get("account/balance")[0] == 200, "a blank is no part of a token"
            return
        assert played.send() == error(401, "Unauthenticated.")
        assert [(row.account, row.result) for row in played.world.rows()] == [("", "401")]

    @pytest.mark.parametrize("accept", [{}, {"accept": "text/html"}])
    def test_without_accept_it_leads_to_the_login_page(self, played: Played, accept: dict[str, str]) -> None:
        headers = {"authorization": "Bearer wrong", "host": "127.0.0.1:8460"} | accept
        answer = played.ask(Request(method="GET", path="/api/v2/account/balance", headers=headers))
        assert (answer.status, answer.headers) == (302, {"Location": "http://127.0.0.1:8460/login"})
        assert b"Redirecting to http://127.0.0.1:8460/login" in answer.body

    def test_a_good_token_needs_no_accept(self, played: Played) -> None:
        asked = Request(method="GET", path="/api/v2/account/balance", headers={"authorization": "Bearer sandbox"})
        assert played.ask(asked).status == 200

    def test_without_the_word_bearer_it_is_none(self, played: Played) -> None:
        """As one of the vendor's clients sends it."""
        headers = {"authorization": "sandbox", "accept": "application/json"}
        assert played.ask(Request(method="GET", path="/api/v2/account/balance", headers=headers)).status == 401

    def test_it_may_be_in_the_query(self, played: Played) -> None:
        """It is for who "can't send an Authorization header"."""
        asked = Request(method="GET", path="/api/v2/account/balance", query="access_token=sandbox")
        assert played.ask(asked).status == 200

    @pytest.mark.parametrize(
        ("account", "expected"),
        [
            ("broke", error(422, "Insufficient credits.")),
            ("guest", error(403, "You don't have access to the requested resource.")),
        ],
    )
    def test_accounts_may_less(self, account: str, expected: Any) -> None:
        played = Played(account)
        assert played.send() == expected
        assert played.verify() == expected
        assert played.post("lookup/verify", {"to": PHONE}) == expected
        assert played.get("account/balance")[0] == 200
        assert played.world.accepted() == {}


RESPONSES = [
    pytest.param(special(100), ["BLACKLST"] * 2, 0, id="100 blocked"),
    pytest.param(special(101), ["INV-NUMBER"] * 2, 0, id="101 invalid"),
    pytest.param(special(102), ["BARRED"] * 2, 0, id="102 refused"),
    pytest.param(special(103), ["SERVER-ERR"] * 2, 0, id="103 not sent"),
    pytest.param(special(104), ["SERVER-ERR", "AWAITING-DLR"], 1, id="104 not sent the first time"),
    pytest.param(special(105), ["FAILED"] * 2, 0, id="105 nobody knows"),
    pytest.param(special(108), ["FAILED"] * 2, 2, id="108 nobody knows but the phone"),
    pytest.param(special(109), ["AWAITING-DLR"] * 2, 2, id="109 OK"),
    pytest.param(special(140), ["AWAITING-DLR"] * 2, 0, id="140 never gets there"),
    pytest.param("12125550100", ["BLACKLST"] * 2, 0, id="American blocked"),
]


@pytest.mark.parametrize(("number", "statuses", "received"), RESPONSES)
def test_row_of_a_number(played: Played, number: str, statuses: list[str], received: int) -> None:
    """Each number has its own row, and the one beside it is none the worse."""
    for expected in statuses:
        nodes = [{"to": number}, {"to": PHONE}]
        _, answer = played.post("sms/send/json", {"root": message(None), "nodes": nodes})
        assert [one["status"] for one in answer["data"]] == [expected, "AWAITING-DLR"]
    assert len(played.texts(number)) == received
    assert len(played.texts(PHONE)) == 2
    assert played.balance() == 1_000_000 - 2 - statuses.count("AWAITING-DLR")


@pytest.mark.parametrize(("ending", "statuses"), [(106, [429, 200]), (107, [429, 429])])
def test_a_request_is_turned_away(played: Played, ending: int, statuses: list[int]) -> None:
    """Two numbers turn the whole request away, one of them only the first time; alone or with others is the same."""
    nodes = [{"to": PHONE}, {"to": special(ending)}]
    assert played.post("sms/send/json", {"root": message(None), "nodes": nodes})[0] == statuses[0]
    assert played.send(special(ending))[0] == statuses[1]
    assert played.texts(PHONE) == []


@pytest.mark.parametrize(
    ("ending", "statuses", "received"),
    [
        (100, [422, 422], 0), (101, [422, 422], 0), (102, [422, 422], 0), (103, [429, 429], 0), (104, [429, 200], 1),
        (105, [500, 500], 0), (106, [429, 200], 1), (107, [429, 429], 0), (108, [500, 500], 2), (109, [200, 200], 2),
    ],
)  # fmt: skip
def test_a_verifications_number(played: Played, ending: int, statuses: list[int], received: int) -> None:
    """A verification has no rows: what is wrong with its number is the whole answer."""
    assert [played.verify(special(ending))[0] for _ in statuses] == statuses
    assert len(played.texts(special(ending))) == received


def test_codes(played: Played) -> None:
    """One number always gets the same, a customer may bring a token, all others differ."""
    played.verify(special(109), template="{token}")
    played.verify(payload={"token": "987654"}, template="{token}")
    assert (played.texts(special(109)), played.texts(PHONE)) == (["012837"], ["987654"])
    for _ in range(50):
        played.verify(OTHER, template="{token}")
    assert len({*played.texts(OTHER)}) > 45


CHECKS = [
    pytest.param("sandbox", 119, "success", id="in time"),
    pytest.param("sandbox", 120, "expired", id="too late"),
    pytest.param("guest", 0, None, id="without permission"),
    pytest.param("broke", 0, "failed", id="another account's"),
]


@pytest.mark.parametrize(("account", "later", "status"), CHECKS)
def test_a_check(played: Played, account: str, later: int, status: str | None) -> None:
    played.verify(template="{token}")
    (row,) = played.world.rows()
    played.now += later
    played.account = account
    code, answer = played.get(f"verify/check/{row.ref}/{row.code}")
    assert (code, answer["status"]) == ((403, "ERROR") if status is None else (200, status))


def test_a_check_of_nothing(played: Played) -> None:
    """An id that is not known is "failed", with 200; a path with no code is not there."""
    assert played.get("verify/check/x/1") == (200, {"id": "x", "status": "failed"})
    assert played.get("verify/search/x") == (200, {"id": "x", "status": "failed"})
    assert played.get("verify/check/x")[0] == 404


LOOKUPS = [
    pytest.param(special(130), {"status": "INVALID-SUB"}, id="130 gone for good"),
    pytest.param(special(131), {"status": "ABSENT-SUB"}, id="131 absent for now"),
    pytest.param(special(132), {"ported": True, "roaming": False, "status": "SUCCESS"}, id="132 ported"),
    pytest.param(special(133), {"ported": False, "roaming": True}, id="133 roaming"),
    pytest.param("9991234567", {"status": "SUCCESS"}, id="from nowhere"),
]


@pytest.mark.parametrize(("number", "found"), LOOKUPS)
def test_lookup(played: Played, number: str, found: dict[str, Any]) -> None:
    _, answer = played.post("lookup/verify", {"to": number})
    assert answer["data"][0] | found == answer["data"][0]
    assert played.world.accepted() == {}


@pytest.mark.parametrize(
    ("kind", "shown"), [("N", "Price: 5 € ?"), ("A", "Price: 5 € Ж"), ("U", "Price: 5 € Ж")]
)  # fmt: skip
def test_type(played: Played, kind: str, shown: str) -> None:
    """With type N a character outside the list arrives as a question mark."""
    played.sent(type=kind, message="Price: 5 € Ж")
    assert played.texts(PHONE) == [shown]


def test_each_part_is_charged(played: Played) -> None:
    sent = played.sent(message="a" * 161)
    assert (sent["units"], sent["length"], sent["charges"], played.balance()) == (2, 161, 2, 999_998)


def test_time_holds_a_text_back(played: Played) -> None:
    """A scheduled text is accepted now, on the phone then, and reported after that."""
    sent = played.sent(time="2018-07-09 16:27:45")
    assert (played.texts(PHONE), played.world.accepted()) == ([], {PHONE: 1})
    played.now += 10
    assert played.texts(PHONE) == ["Hello"]
    assert played.get("sms/status", id=sent["id"])[1]["data"][0]["status"] == "AWAITING-DLR"


def test_what_was_not_taken_is_not_reported(played: Played) -> None:
    """So that a job whose answer was lost can tell."""
    played.sent(special(105), custom="lost")
    played.sent(special(108), custom="taken")
    assert played.get("sms/status", cid="lost")[1]["data"] == []
    assert [one["mobile"] for one in played.get("sms/status", cid="taken")[1]["data"]] == [special(108)]


def test_reading_a_report_meets_no_number(played: Played) -> None:
    """A number with a fault must not keep its message from being asked for."""
    played.sent(special(110), custom="hangs")
    played.get("sms/status", cid="hangs")
    assert played.world.rows()[-1].msisdn == ""
    assert magic.fault(played.world.rows()[-1:], played.world) is None


def test_messages_are_an_accounts_own(played: Played) -> None:
    sent = played.sent()
    played.account = "broke"
    assert played.get("sms/status", id=sent["id"])[1]["data"] == []


class TestCallbacks:
    def receipt(self, played: Played, to: str = PHONE) -> tuple[Row, Outgoing]:
        played.sent(to, custom="order-17", message="a" * 161)
        (row,) = played.world.rows()
        outgoing = played.provider.receipt(row)
        assert outgoing is not None
        return row, outgoing

    def test_a_delivery_report_is_as_printed(self, played: Played) -> None:
        """With the webhook's secret, and a comma too many."""
        row, outgoing = self.receipt(played)
        assert (outgoing.method, outgoing.headers["Authorization"]) == ("POST", "Bearer sandbox")
        assert outgoing.body.endswith(b",}")
        assert json.loads(outgoing.body.replace(b",}", b"}")) == {
            "id": row.ref, "mobile": PHONE, "status": "DELIVRD", "credits": "2.0000", "units": 2,
            "deliv_time": "2018-07-09 16:27:36", "sent_time": "2018-07-09 16:27:35",
            "submit_time": "2018-07-09 16:27:35", "cid": "order-17", "custom": "order-17",
        }  # fmt: skip

    def test_what_did_not_get_there_is_reported_so(self, played: Played) -> None:
        _, outgoing = self.receipt(played, special(140))
        assert b'"status":"UNDELIV"' in outgoing.body

    def test_a_late_word_on_its_way_is_told(self, played: Played) -> None:
        row, _ = self.receipt(played)
        outgoing = played.provider.receipt(magic.stale(row))
        assert outgoing is not None
        assert b'"status":"AWAITING-DLR"' in outgoing.body

    def test_of_a_code_nothing_is_told(self, played: Played) -> None:
        played.verify()
        assert played.provider.receipt(played.world.rows()[0]) is None

    def test_a_text_from_a_phone(self, played: Played) -> None:
        texted = Texted(account="sandbox", sender=PHONE, to="919019000000", text="STOP", at=NOW)
        outgoing = played.provider.inbound(texted)
        event = json.loads(outgoing.body)
        assert outgoing.headers["Authorization"] == "Bearer sandbox"
        assert event["event"] == "vmn:message:in"
        assert event["payload"]["channels"] == [{"name": "vmn", "to": "919019000000"}]
        assert event["payload"]["recipient"]["from"] == PHONE
        assert event["payload"]["message"] == {"type": "text", "payload": {"text": "STOP"}}


def test_limits() -> None:
    """1000 GET a minute, then 429, said in JSON as everything is; nothing is documented of POST."""
    provider = MobTexting()
    assert (provider.limits.gets_a_minute, provider.limits.at_once) == (1000, None)
    assert told(provider.limits.refusal) == error(429, "Too Many Requests")
    rows = provider.refused(Request(method="GET", path="/api/v2/sms/status"))
    assert [(row.kind, row.action, row.accepted, row.result) for row in rows] == [
        ("report", "sms/status", False, "429"),
    ]


@pytest.mark.parametrize(("path", "served"), [("/api/v2/sms/send", True), ("/api/v2/none", True), ("/rest/sms", False)])
def test_paths(path: str, served: bool) -> None:
    assert MobTexting().serves(path) == served
