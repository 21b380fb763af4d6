"""TextGoto as the sandbox plays it, against the samples and words of its document of 24-Sep-2015."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from workers.sandbox import magic
from workers.sandbox.base import Request
from workers.sandbox.faults import FAULTS
from workers.sandbox.textgoto import TextGoto
from workers.sandbox.world import World

NOW = 1_443_110_400.0  # 2015-09-24 16:00:00 UTC
PHONE = "447700900001"


def special(ending: int) -> str:
    return f"447700900{ending}"


class Played:
    """TextGoto and its world, without a server: what is asked is committed at once."""

    def __init__(self, ledger: Path | None = None) -> None:
        self.now = NOW
        self.provider = TextGoto()
        self.world = World(self.provider.accounts, ledger, now=lambda: self.now)

    def post(self, body: bytes | str) -> Any:
        data = body.encode() if isinstance(body, str) else body
        answer, rows = self.provider.reply(Request(method="POST", path="/api/jsonapi.aspx", body=data), self.world)
        self.world.commit(rows)
        assert answer.status == 200
        assert rows, "every request leaves a row"
        return json.loads(answer.body)["output"]

    def ask(self, action: str, body: Any = None, uid: str = "sandbox") -> Any:
        campaign = {"header": {"-uid": uid, "-pwd": "sandbox", "-action": action}}
        return self.post(json.dumps({"campaign": campaign if body is None else campaign | {"body": body}}))

    def send(self, *msisdns: str, uid: str = "sandbox", **fields: Any) -> Any:
        return self.ask("SEND_MSISDN", {"msisdn": [*msisdns], "msg": "Hello"} | fields, uid=uid)

    def verify(self, *msisdns: str, **fields: Any) -> Any:
        return self.ask("VERIFICATION", {"msisdn": [*msisdns], "msg": "Your code is [CODE]"} | fields)

    def balance(self, uid: str = "sandbox") -> str:
        balance = self.ask("CHECK_BALANCE", uid=uid)["@balance"]
        assert isinstance(balance, str)
        return balance

    def texts(self, msisdn: str) -> list[str]:
        return [message.text for message in self.world.inbox(msisdn)]


@pytest.fixture
def played() -> Played:
    return Played()


class TestDocumentSamples:
    """The requests as printed, with user, password and text filled in, and the answers as printed."""

    def test_send_msisdn(self, played: Played) -> None:
        """SEND_MSISDN answers a list with an entry for each number."""
        output = played.post(
            """{ "campaign":{ "header":{ "-uid":"sandbox", "-pwd":"sandbox", "-action":"SEND_MSISDN" },
            "body": { "msisdn": [ "447771112222", "447123456789" ], "msg": "Hello", "orig": "ACME",
            "time": "2015-09-24 17:03:00" } } }"""
        )
        assert output == {
            "msg": [
                {"@msisdn": "447771112222", "@response": "OK"},
                {"@msisdn": "447123456789", "@response": "OK"},
            ]
        }

    def test_verification(self, played: Played) -> None:
        """VERIFICATION answers an object with the code, and the phone shows that code in its place."""
        output = played.post(
            """{ "campaign":{ "header":{ "-uid":"sandbox", "-pwd":"sandbox", "-action":"VERIFICATION" },
            "body": { "msisdn": [ "447771112222" ], "msg": "Here is your verification code [CODE]",
            "orig": "ACME", "delay": "0" } } }"""
        )
        code = output["msg"].pop("@code")
        assert output == {"msg": {"@msisdn": "447771112222", "@response": "OK"}}
        assert re.fullmatch(r"\d{6}", code)
        assert played.texts("447771112222") == [f"Here is your verification code {code}"]

    def test_verification_of_the_example(self, played: Played) -> None:
        """One number always gets the document's own example, whose code begins with a zero."""
        output = played.verify(special(109), msg="Here is your verification code [CODE]")
        assert output == {"msg": {"@msisdn": special(109), "@response": "OK", "@code": "012837"}}
        assert played.texts(special(109)) == ["Here is your verification code 012837"]

    def test_stop_msisdns(self, played: Played) -> None:
        """STOP_MSISDNS answers like SEND_MSISDN (ours), and the number is not sent any more."""
        output = played.post(
            """{ "campaign":{ "header":{ "-uid":"sandbox", "-pwd":"sandbox", "-action":"STOP_MSISDNS" },
            "body": { "msisdn": [ "447771112222", "447123456789" ] } } }"""
        )
        assert [entry["@response"] for entry in output["msg"]] == ["OK", "OK"]
        assert played.send("447771112222")["msg"][0]["@response"] == "MSISDN_BLOCKED"
        assert played.verify("447123456789")["msg"] == {
            "@msisdn": "447123456789",
            "@response": "MSISDN_BLOCKED",
        }
        assert played.texts("447771112222") == []

    def test_check_balance(self, played: Played) -> None:
        """GET_BALANCE is asked for as CHECK_BALANCE, without a body, and answered by attributes."""
        output = played.post(
            '{ "campaign":{ "header":{ "-uid":"sandbox", "-pwd":"sandbox", "-action":"CHECK_BALANCE" } } }'
        )
        assert output == {"@balance": "1000000.000", "@available": "1000010.000"}

    def test_hlr(self, played: Played) -> None:
        """HLR answers an object of strings, to the letter of the sample."""
        output = played.post(
            """{ "campaign": { "header": { "-uid": "sandbox", "-pwd": "sandbox", "-action": "HLR" },
            "body": { "number": [ "447123456789" ] } } }"""
        )
        assert output == json.loads(
            """{ "hlr": { "number": "447123456789", "country": "United Kingdom",
            "orig_network": "T-Mobile UK (Everything Everywhere Limited)",
            "ported_network": "T-Mobile UK (Everything Everywhere Limited)",
            "roaming_country": "United Kingdom",
            "roaming_network": "T-Mobile UK (Everything Everywhere Limited)",
            "ported": "false", "roaming": "false", "error_code": "DELIVRD", "is_perm_err": "0" } }"""
        )

    def test_append_list(self, played: Played) -> None:
        """APPEND_LIST answers a plain string."""
        assert played.ask("APPEND_LIST", {"list": "friends", "phone": PHONE}) == "NUMBER_ADDED"
        (row,) = played.world.rows()
        assert (row.kind, row.msisdn, row.text) == ("list.append", PHONE, "friends")

    def test_append_list_as_printed(self, played: Played) -> None:
        """The request is printed with a stray bracket: it is no JSON, and refused as such."""
        output = played.post(
            """{ "campaign": { "header": { "-uid": "sandbox", "-pwd": "sandbox", "-action": "APPEND_LIST" },
            "body": { "list": "friends", "phone": "447700900001" ] } } }"""
        )
        assert output == {"error": "INVALID_JSON"}


def sending(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "SEND_MSISDN", {"msisdn": [PHONE], "msg": "Hello"} | fields


def verifying(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "VERIFICATION", {"msisdn": [PHONE], "msg": "Code [CODE]"} | fields


REFUSALS = [
    pytest.param(*sending(msg=""), "NO_MESSAGE", id="empty text"),
    pytest.param(*sending(msg=" \n"), "NO_MESSAGE", id="blank text"),
    pytest.param("SEND_MSISDN", {"msisdn": [PHONE]}, "NO_MESSAGE", id="no text"),
    pytest.param(*sending(msg=["Hello"]), "INVALID_MESSAGE", id="text that is a list"),
    pytest.param(*sending(msg="a" * 1531), "MESSAGE_TOO_LONG", id="1531 GSM characters"),
    pytest.param(*sending(msg="€" * 766), "MESSAGE_TOO_LONG", id="766 euro signs of two septets"),
    pytest.param(*sending(msg="я" * 671), "MESSAGE_TOO_LONG", id="671 Cyrillic characters"),
    pytest.param(*sending(msisdn=[]), "INVALID_MESSAGE", id="no numbers"),
    pytest.param(*sending(msisdn=PHONE), "INVALID_MESSAGE", id="a number that is no list"),
    pytest.param(*sending(msisdn=[447700900001]), "INVALID_MESSAGE", id="a number that is no string"),
    pytest.param(*sending(orig=7), "INVALID_MESSAGE", id="originator that is no string"),
    pytest.param(*sending(time="2015-09-24T17:03:00"), "INVALID_MESSAGE", id="time with a T"),
    pytest.param(*sending(time="24-09-2015 17:03:00"), "INVALID_MESSAGE", id="day first"),
    pytest.param(*sending(time="2015-09-24 17:03"), "INVALID_MESSAGE", id="time without seconds"),
    pytest.param(*sending(time="2015-13-24 17:03:00"), "INVALID_MESSAGE", id="thirteenth month"),
    pytest.param(*sending(time=""), "INVALID_MESSAGE", id="empty time"),
    pytest.param(*verifying(msg="Hello"), "NO_CODE_PLACEHOLDER_PRESENT", id="no placeholder"),
    pytest.param(*verifying(msg="[code]"), "NO_CODE_PLACEHOLDER_PRESENT", id="placeholder in small letters"),
    pytest.param(*verifying(msisdn=[PHONE, PHONE]), "MSISDN_LIMIT(1)_EXCEEDED", id="verification of two"),
    pytest.param(*verifying(msg=""), "NO_MESSAGE", id="verification without a text"),
    pytest.param(*verifying(msg="[CODE]" + "a" * 1525), "MESSAGE_TOO_LONG", id="too long with its code"),
    pytest.param(*verifying(delay="soon"), "INVALID_MESSAGE", id="delay that is no number"),
    pytest.param(*verifying(delay=5), "INVALID_MESSAGE", id="delay that is no string"),
    pytest.param("STOP_MSISDNS", {"msisdn": [PHONE] * 101}, "TOO_MANY_MSISDNS", id="101 stops"),
    pytest.param("HLR", {"number": [PHONE, PHONE]}, "MSISDN_LIMIT(1)_EXCEEDED", id="HLR of two"),
    pytest.param("HLR", {"number": ["07700900001"]}, "INVALID_MSISDN", id="HLR of a national number"),
    pytest.param("HLR", {"msisdn": [PHONE]}, "INVALID_MESSAGE", id="HLR with SEND's field"),
    pytest.param("APPEND_LIST", {"list": "", "phone": PHONE}, "INVALID_LIST", id="list without a name"),
    pytest.param("APPEND_LIST", {"list": "a", "phone": [PHONE]}, "INVALID_MSISDN", id="phone that is a list"),
    pytest.param("GET_BALANCE", None, "UNKNOWN_ACTION", id="the head of the section as an action"),
    pytest.param("send_msisdn", {}, "UNKNOWN_ACTION", id="action in small letters"),
    pytest.param("SEND_MSISDN", [PHONE], "INVALID_JSON", id="body that is a list"),
]


@pytest.mark.parametrize(("action", "body", "token"), REFUSALS)
def test_request_is_refused_as_a_whole(played: Played, action: str, body: Any, token: str) -> None:
    """A request that can't work is answered by one token, does nothing and leaves its refusal in the ledger."""
    assert played.ask(action, body) == {"error": token}
    assert {(row.accepted, row.result) for row in played.world.rows()} == {(False, token)}
    assert played.world.accepted() == {}
    assert played.balance() == "1000000.000"


LONGEST = [
    pytest.param("a" * 1530, "999990.000", id="1530 GSM characters are ten parts"),
    pytest.param("я" * 670, "999990.000", id="670 Cyrillic characters are ten parts"),
    pytest.param("a" * 160, "999999.000", id="160 GSM characters are one part"),
    pytest.param("a" * 161, "999998.000", id="161 are two"),
    pytest.param("я" * 71, "999998.000", id="71 Cyrillic characters are two"),
]


@pytest.mark.parametrize(("text", "balance"), LONGEST)
def test_each_part_is_charged(played: Played, text: str, balance: str) -> None:
    """A text costs a credit for each part."""
    assert played.send(PHONE, msg=text)["msg"][0]["@response"] == "OK"
    assert played.balance() == balance


SHAPELESS = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"campaign=1", id="a form"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"null", id="null"),
    pytest.param(b'"campaign"', id="a string"),
    pytest.param(b"{}", id="no campaign"),
    pytest.param(b'{"campaign": []}', id="campaign that is a list"),
    pytest.param(b'{"campaign": {"body": {}}}', id="no header"),
    pytest.param(b'{"campaign": {"header": []}}', id="header that is a list"),
    pytest.param(b"\xff\xfe", id="no UTF-8"),
    pytest.param(b'"\xff"', id="no UTF-8 within a string"),
    pytest.param(b"[" * 100_000, id="too deep"),
]


@pytest.mark.parametrize("body", SHAPELESS)
def test_bytes_out_of_shape(played: Played, body: bytes) -> None:
    """Whatever arrives is answered, in the document's form for errors."""
    assert played.post(body) == {"error": "INVALID_JSON"}


LOGINS = [
    pytest.param({"-uid": "sandbox", "-pwd": "wrong"}, id="wrong password"),
    pytest.param({"-uid": "nobody", "-pwd": "sandbox"}, id="unknown user"),
    pytest.param({}, id="neither"),
    pytest.param({"-uid": "sandbox"}, id="no password"),
    pytest.param({"uid": "sandbox", "pwd": "sandbox"}, id="keys without their dash"),
    pytest.param({"-uid": ["sandbox"], "-pwd": {}}, id="no strings"),
]


@pytest.mark.parametrize("header", LOGINS)
def test_login_fails(played: Played, header: dict[str, Any]) -> None:
    """A wrong password is answered before anything else is looked at, and never kept."""
    body = {"campaign": {"header": header | {"-action": "SEND_MSISDN"}, "body": {"msisdn": [PHONE]}}}
    assert played.post(json.dumps(body)) == {"error": "INVALID_LOGIN"}
    assert "wrong" not in repr(played.world.rows())


ACCOUNTS = [
    pytest.param("broke", *sending(), {"error": "INSUFFICIENT_CREDITS"}, id="broke sends"),
    pytest.param("broke", *verifying(), {"error": "INSUFFICIENT_CREDITS"}, id="broke verifies"),
    pytest.param("broke", "HLR", {"number": [PHONE]}, {"error": "INSUFFICIENT_CREDITS"}, id="broke looks up"),
    pytest.param("broke", "APPEND_LIST", {"list": "a", "phone": PHONE}, "NUMBER_ADDED", id="a list is free"),
    pytest.param("broke", "CHECK_BALANCE", None, {"@balance": "0.000", "@available": "0.000"}, id="broke asks"),
    pytest.param("guest", *sending(), {"error": "NOT_PERMITTED"}, id="guest sends"),
    pytest.param("guest", "HLR", {"number": [PHONE]}, {"error": "NOT_PERMITTED"}, id="guest looks up"),
    pytest.param("guest", "STOP_MSISDNS", {"msisdn": [PHONE]}, {"error": "NOT_PERMITTED"}, id="guest stops"),
    pytest.param("bronze", *sending(time="2015-09-24 17:00:00"), {"error": "INVALID_MESSAGE"}, id="bronze sends later"),
]


@pytest.mark.parametrize(("uid", "action", "body", "output"), ACCOUNTS)
def test_accounts_may_less(played: Played, uid: str, action: str, body: Any, output: Any) -> None:
    """Each account is refused what it lacks, and only that."""
    assert played.ask(action, body, uid=uid) == output


def test_guest_may_ask_for_the_balance(played: Played) -> None:
    """Permissions are by function."""
    assert played.balance("guest") == "1000000.000"


def test_credit_line_is_spent_after_the_balance(played: Played) -> None:
    """What is available is the balance and ten credits; a request that needs more is refused whole."""
    account = played.world.account("textgoto", "sandbox")
    assert account
    account.balance -= 999_999
    assert played.send(PHONE, msg="a" * 306)["msg"][0]["@response"] == "OK"
    assert played.ask("CHECK_BALANCE") == {"@balance": "-1.000", "@available": "9.000"}
    numbers = [f"44770090020{last}" for last in range(10)]
    assert played.send(*numbers) == {"error": "INSUFFICIENT_CREDITS"}
    assert played.world.accepted() == {PHONE: 1}


RESPONSES = [
    pytest.param(special(100), ["MSISDN_BLOCKED"] * 2, 0, id="100 blocked"),
    pytest.param(special(101), ["INVALID_MSISDN"] * 2, 0, id="101 invalid"),
    pytest.param(special(102), ["MSISDN_FAILURE"] * 2, 0, id="102 refused"),
    pytest.param(special(103), ["SEND_FAILURE"] * 2, 0, id="103 not sent"),
    pytest.param(special(104), ["SEND_FAILURE", "OK"], 1, id="104 not sent the first time"),
    pytest.param(special(105), ["UNKNOWN_ERROR"] * 2, 0, id="105 nobody knows"),
    pytest.param(special(108), ["UNKNOWN_ERROR"] * 2, 2, id="108 nobody knows but the phone"),
    pytest.param(special(109), ["OK"] * 2, 2, id="109 OK"),
    pytest.param("12125550100", ["MSISDN_BLOCKED"] * 2, 0, id="American blocked"),
    pytest.param("12125551100", ["OK"] * 2, 2, id="American, outside the reserved range"),
    pytest.param("447700900200", ["OK"] * 2, 2, id="reserved and ordinary"),
    pytest.param("4477009001001", ["OK"] * 2, 2, id="longer than a special one"),
    pytest.param("+447700900001", ["INVALID_MSISDN"] * 2, 0, id="with a plus"),
    pytest.param("07700900001", ["INVALID_MSISDN"] * 2, 0, id="national"),
    pytest.param("44 7700 900001", ["INVALID_MSISDN"] * 2, 0, id="with spaces"),
    pytest.param("", ["INVALID_MSISDN"] * 2, 0, id="empty"),
    pytest.param("٤٤٧٧٠٠٩٠٠٠٠١", ["INVALID_MSISDN"] * 2, 0, id="other digits"),
]


@pytest.mark.parametrize(("number", "responses", "received"), RESPONSES)
def test_response_of_a_number(played: Played, number: str, responses: list[str], received: int) -> None:
    """Each number has its own answer, and the one beside it is none the worse."""
    for expected in responses:
        output = played.send(number, PHONE)
        assert [entry["@response"] for entry in output["msg"]] == [expected, "OK"]
    assert len(played.texts(number)) == received
    assert len(played.texts(PHONE)) == 2
    charged = 2 + responses.count("OK")
    assert played.balance() == f"{1_000_000 - charged}.000"


@pytest.mark.parametrize(("ending", "outputs"), [(106, ["SITE_UNAVAILABLE", None]), (107, ["SITE_UNAVAILABLE"] * 2)])
def test_site_is_unavailable(played: Played, ending: int, outputs: list[str | None]) -> None:
    """Two numbers turn the whole request away, one of them only the first time."""
    for error in outputs:
        assert played.send(PHONE, special(ending)).get("error") == error
    assert len(played.texts(PHONE)) == outputs.count(None)


def test_first_time_is_counted_by_function(played: Played) -> None:
    """A number that was sent to is still verified for the first time."""
    played.send(special(104))
    assert played.verify(special(104))["msg"]["@response"] == "SEND_FAILURE"
    assert played.verify(special(104))["msg"]["@response"] == "OK"


def test_a_code_is_only_answered_with_ok(played: Played) -> None:
    """Where nobody knows, nobody is told the code; the phone that got it has it."""
    assert played.verify(special(108)) == {"msg": {"@msisdn": special(108), "@response": "UNKNOWN_ERROR"}}
    (row,) = played.world.rows()
    assert row.code
    assert played.texts(special(108)) == [f"Your code is {row.code}"]


def test_codes_differ(played: Played) -> None:
    """Each verification has a code of its own."""
    codes = {played.verify(PHONE)["msg"]["@code"] for _ in range(50)}
    assert len(codes) > 45


LOOKUPS = [
    pytest.param(special(130), {"error_code": "UNDELIV", "is_perm_err": "1"}, id="130 gone for good"),
    pytest.param(special(131), {"error_code": "ABSENT-SUB", "is_perm_err": "0"}, id="131 absent for now"),
    pytest.param(special(132), {"ported": "true", "roaming": "false", "error_code": "DELIVRD"}, id="132 ported"),
    pytest.param(special(133), {"ported": "false", "roaming": "true", "roaming_country": "France"}, id="133 roaming"),
    pytest.param("12125550198", {"country": "United States", "error_code": "DELIVRD"}, id="American"),
    pytest.param("33612345678", {"country": "France"}, id="French"),
    pytest.param("9991234567", {"country": "Sandbox"}, id="from nowhere"),
]


@pytest.mark.parametrize(("number", "found"), LOOKUPS)
def test_lookup(played: Played, number: str, found: dict[str, str]) -> None:
    """An HLR finds what the number says, all in strings, for a credit."""
    hlr = played.ask("HLR", {"number": [number]})["hlr"]
    assert hlr | found == hlr
    assert all(isinstance(value, str) for value in hlr.values())
    assert len(hlr) == 10
    assert played.balance() == "999999.000"
    assert played.world.accepted() == {}


def test_time_holds_a_text_back(played: Played) -> None:
    """A scheduled text is accepted now and on the phone then."""
    played.send(PHONE, time="2015-09-24 16:00:10")
    assert played.world.accepted() == {PHONE: 1}
    assert played.texts(PHONE) == []
    played.now += 10
    (message,) = played.world.inbox(PHONE)
    assert message.at == NOW + 10


def test_time_that_has_passed(played: Played) -> None:
    """A text that should have gone already goes at once, and did not arrive before it was sent."""
    played.send(PHONE, time="2015-09-24 15:00:00")
    assert [message.at for message in played.world.inbox(PHONE)] == [NOW]


def test_delay_holds_a_code_back(played: Played) -> None:
    """A verification's delay is in seconds."""
    played.verify(PHONE, delay="30")
    played.now += 29
    assert played.texts(PHONE) == []
    played.now += 1
    assert len(played.texts(PHONE)) == 1


@pytest.mark.parametrize(("uid", "sender"), [("sandbox", "ACME"), ("bronze", "TextGoto")])
def test_originator(played: Played, uid: str, sender: str) -> None:
    """Who may set the originator is shown with it, others with the account's own."""
    played.send(PHONE, orig="ACME", uid=uid)
    assert [message.sender for message in played.world.inbox(PHONE)] == [sender]


def test_stops_are_an_accounts_own(played: Played) -> None:
    """What one account stopped, another may send to."""
    played.ask("STOP_MSISDNS", {"msisdn": [PHONE]})
    assert played.send(PHONE)["msg"][0]["@response"] == "MSISDN_BLOCKED"
    assert played.send(PHONE, uid="bronze")["msg"][0]["@response"] == "OK"


def test_hundred_stops_are_taken(played: Played) -> None:
    """The limit of STOP_MSISDNS is 100, and an invalid one among them is answered for itself."""
    output = played.ask("STOP_MSISDNS", {"msisdn": [PHONE] * 99 + ["07700900001"]})
    assert [entry["@response"] for entry in output["msg"]] == ["OK"] * 99 + ["INVALID_MSISDN"]


def test_only_post_is_answered(played: Played) -> None:
    """A GET is told what the address takes."""
    answer, rows = played.provider.reply(Request(method="GET", path="/api/jsonapi.aspx"), played.world)
    assert (answer.status, answer.headers) == (405, {"Allow": "POST"})
    assert [row.accepted for row in rows] == [False]


@pytest.mark.parametrize("path", ["/api/jsonapi.aspx", "/API/JsonApi.ASPX"])
def test_path_has_no_case(path: str) -> None:
    """IIS doesn't mind the case of a path."""
    assert TextGoto().serves(path)
    assert not TextGoto().serves(path + "/")


class TestWorld:
    def test_rows_of_a_request_share_its_number(self, played: Played) -> None:
        """What travelled together can be told from the ledger."""
        played.send(PHONE)
        played.send(PHONE, special(100))
        rows = played.world.rows()
        assert [(row.n, row.request, row.at) for row in rows] == [(1, 1, NOW), (2, 2, NOW), (3, 2, NOW)]
        assert played.world.requests() == {"textgoto": {"SEND_MSISDN": 2}}

    def test_ledger_file_brings_the_world_back(self, tmp_path: Path) -> None:
        """After a kill the sandbox goes on where its ledger ends; a line cut short is dropped."""
        path = tmp_path / "ledger.jsonl"
        before = Played(path)
        before.send(PHONE, special(104))
        before.ask("STOP_MSISDNS", {"msisdn": [special(200)]})
        with path.open("ab") as file:
            file.write(b'{"n":4,"at":1')
        after = Played(path)
        assert after.world.rows() == before.world.rows()
        assert after.world.requests() == before.world.requests()
        assert after.texts(PHONE) == ["Hello"]
        assert after.send(special(104), special(200))["msg"] == [
            {"@msisdn": special(104), "@response": "OK"},
            {"@msisdn": special(200), "@response": "MSISDN_BLOCKED"},
        ]
        assert after.balance() == "999998.000"
        assert [json.loads(line)["n"] for line in path.read_bytes().splitlines()] == [1, 2, 3, 4, 5, 6]

    def test_a_file_that_is_no_ledger(self, tmp_path: Path) -> None:
        """It is refused and left as it is."""
        path = tmp_path / "notes.txt"
        path.write_text("Buy milk.\nand")
        with pytest.raises(ValueError, match="malformed"):
            Played(path)
        assert path.read_text() == "Buy milk.\nand"

    def test_ledger_file_is_private(self, tmp_path: Path) -> None:
        """It holds numbers, texts and codes."""
        path = tmp_path / "new" / "ledger.jsonl"
        Played(path)
        assert path.stat().st_mode & 0o777 == 0o600

    def test_reset(self, tmp_path: Path) -> None:
        """Everything is as at the start, the file too."""
        path = tmp_path / "ledger.jsonl"
        played = Played(path)
        played.send(PHONE, special(104))
        played.world.reset()
        assert (played.world.rows(), played.world.accepted(), path.read_bytes()) == ([], {}, b"")
        assert played.send(special(104))["msg"][0]["@response"] == "SEND_FAILURE"
        assert played.balance() == "1000000.000"


FAULTS_OF_NUMBERS = {**magic.FAULTS_BY_NUMBER, **magic.FAULTS_ONCE}


class TestMagic:
    @pytest.mark.parametrize("ending", [*magic.Magic, *FAULTS_OF_NUMBERS])
    def test_every_number_stands_in_the_table(self, ending: int) -> None:
        """The table of the module's docstring names every number that is special."""
        assert f"\n| {int(ending)} |" in (magic.__doc__ or "")

    @pytest.mark.parametrize("ending", FAULTS_OF_NUMBERS)
    def test_table_names_the_fault(self, ending: int) -> None:
        """The row of a number names the fault that it meets."""
        (words,) = re.findall(rf"^\| {ending} \| (.*) \|$", magic.__doc__ or "", re.MULTILINE)
        assert FAULTS_OF_NUMBERS[ending].fault.name in words

    def test_all_faults_but_none_twice(self) -> None:
        """Every fault of a request has a number."""
        assert sorted(met.fault.name for met in FAULTS_OF_NUMBERS.values()) == sorted(FAULTS)
