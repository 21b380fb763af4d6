"""TextGoto, played by its document: "Getting started with the JSON API", 24-Sep-2015.

Accounts (user id and password):

| user | password | |
|---|---|---|
| `sandbox` | `sandbox` | may do everything; 1,000,000 credits and a credit line of 10 |
| `bronze` | `sandbox` | may neither schedule nor set an originator |
| `broke` | `sandbox` | has no credit: INSUFFICIENT_CREDITS |
| `guest` | `sandbox` | may only ask for the balance, else NOT_PERMITTED |

Sections are named by their heads. What the document leaves open is decided here in the plainest way in its
style; each such place says "ours".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from dispatcher.text import segments
from workers.sandbox import magic
from workers.sandbox.base import Answer, Limits, Reply, Request, Texted
from workers.sandbox.magic import Magic
from workers.sandbox.world import AT_ONCE, FREE, Account, Row, World

NAME: Final = "textgoto"
#: IIS, which answers to `.aspx`, doesn't mind the case of a path.
PATH: Final = "/api/jsonapi.aspx"

SEND = "SEND_MSISDN"
VERIFICATION = "VERIFICATION"
STOP = "STOP_MSISDNS"
BALANCE = "CHECK_BALANCE"  # the section's head says GET_BALANCE, its sample this
HLR = "HLR"
APPEND = "APPEND_LIST"
#: Beside the functions, what an account may be allowed to do within them.
SCHEDULE, ORIGINATE = "time", "orig"

EVERYTHING: Final = frozenset({SEND, VERIFICATION, STOP, BALANCE, HLR, APPEND, SCHEDULE, ORIGINATE})
KINDS: Final = {
    SEND: "send",
    VERIFICATION: "verify",
    STOP: "optout.add",
    BALANCE: "balance",
    HLR: "lookup",
    APPEND: "list.append",
}

#: STOP_MSISDNS: "There is a limit of 100 MSISDNs per API call".
MOST_STOPS: Final = 100
#: Ours: the document has MESSAGE_TOO_LONG and no length. Ten parts are 1,530 GSM characters or 670 others.
MOST_PARTS: Final = 10
#: Ours: where `orig` is absent, or not the account's to set.
ORIGINATOR: Final = "TextGoto"
#: Ours: the document names no price. One credit for each part of a text, one for an HLR.
CREDIT: Final = Decimal(1)

_INTERNATIONAL = re.compile(r"[1-9][0-9]{6,14}")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}")
_PLACEHOLDER = "[CODE]"


class TextGoto:
    """The provider: one address, six functions, told apart by `-action`."""

    name = NAME
    #: None is documented.
    limits = Limits()

    def accounts(self) -> Iterable[Account]:
        """Return the four accounts of the table above."""
        return (
            _account("sandbox", EVERYTHING),
            _account("bronze", EVERYTHING - {SCHEDULE, ORIGINATE}),
            _account("broke", EVERYTHING, balance="0", credit="0"),
            _account("guest", frozenset({BALANCE})),
        )

    def serves(self, path: str) -> bool:
        """Say whether `path` is the API's only address."""
        return path.lower() == PATH

    def reply(self, request: Request, world: World) -> Reply:
        """Answer a request, good or bad, as JSON with status 200 (ours: the document names no status)."""
        if request.method != "POST":  # "All transactions are made by sending a HTTP POST request"
            row = Row(provider=NAME, action=request.method, accepted=False, result="405")
            return Reply(Answer(status=405, content_type="text/plain", headers={"Allow": "POST"}), [row])
        action = account = ""
        numbers: list[str] = []
        try:
            header, body = _envelope(request.body)
            action, account = _text_of(header, "-action"), _text_of(header, "-uid")
            numbers = _named(body)
            call = Call(world, _login(header, world), action, body)
            output, rows = _function(call, numbers)(call)
        except _Refused as refusal:
            output, rows = {"error": refusal.token}, _refused(action, account, numbers, refusal.token)
        return Reply(Answer(body=msgspec.json.encode({"output": output})), rows)

    def receipt(self, row: Row) -> None:
        """Tell nothing: the JSON API knows no delivery reports."""

    def inbound(self, texted: Texted) -> None:
        """Tell nothing: the JSON API knows no inbound texts."""

    def refused(self, request: Request) -> list[Row]:
        """Return a row without a number."""
        return [Row(provider=NAME, action=request.method, accepted=False, result="429")]


class Call(msgspec.Struct, frozen=True):
    """A request that was understood, from an account that was recognised."""

    world: World
    account: Account
    action: str
    body: dict[str, Any]

    def row(self, msisdn: str, result: str, **more: Any) -> Row:
        """Return the row for one number, accepted unless the answer is one of the bad ones."""
        return Row(
            provider=NAME,
            action=self.action,
            kind=KINDS[self.action],
            account=self.account.name,
            msisdn=msisdn,
            accepted=result not in _BAD,
            result=result,
            **more,
        )

    def first(self, msisdn: str) -> bool:
        """Say whether this function is asked for this number for the first time."""
        return not self.world.asked(NAME, self.action, msisdn)


class _Refused(Exception):
    """The request as a whole is answered by an error."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(token)


# The request, from outside in


def _envelope(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and body of `{"campaign": {"header": {}, "body": {}}}`; CHECK_BALANCE has no body."""
    try:
        campaign = msgspec.json.decode(data)["campaign"]
        header, body = campaign["header"], campaign.get("body", {})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Refused("INVALID_JSON") from None  # ours: nothing is said about requests out of shape
    if not isinstance(header, dict) or not isinstance(body, dict):
        raise _Refused("INVALID_JSON")  # the text says "body array", every sample shows an object
    return header, body


def _login(header: dict[str, Any], world: World) -> Account:
    account = world.account(NAME, _text_of(header, "-uid"))
    if account is None or account.secret != _text_of(header, "-pwd"):
        raise _Refused("INVALID_LOGIN")  # ours: the document doesn't show what a wrong password is answered
    return account


def _function(call: Call, numbers: list[str]) -> Callable[[Call], tuple[Any, list[Row]]]:
    """Return what plays `call.action`, if the account may use it and the site is there."""
    if call.action not in _FUNCTIONS:
        raise _Refused("UNKNOWN_ACTION")  # ours: the document doesn't say
    if call.action not in call.account.grants:
        raise _Refused("NOT_PERMITTED")
    for number in numbers:
        special = magic.meaning(number)
        if special is Magic.AWAY or (special is Magic.AWAY_ONCE and call.first(number)):
            raise _Refused("SITE_UNAVAILABLE")
    return _FUNCTIONS[call.action]


# The six functions: each answers what stands behind "output", and the rows of the ledger


def _send(call: Call) -> tuple[Any, list[Row]]:
    """SEND_MSISDN: `{"msg": [{"@msisdn": "447771112222", "@response": "OK"}]}`, an entry for each number."""
    text = _message(call)
    rows = _rows(call, _numbers(call), text, due=_release(call))
    return {"msg": [{"@msisdn": row.msisdn, "@response": row.result} for row in rows]}, rows


def _verification(call: Call) -> tuple[Any, list[Row]]:
    """VERIFICATION: `{"msg": {"@msisdn": .., "@response": "OK", "@code": "012837"}}`, an object, no list."""
    numbers = _numbers(call)
    if len(numbers) > 1:
        raise _Refused("MSISDN_LIMIT(1)_EXCEEDED")
    known = magic.meaning(numbers[0]) is Magic.KNOWN_CODE
    code = magic.KNOWN_CODE if known else f"{secrets.randbelow(1_000_000):06}"
    text = _message(call, code)
    (row,) = rows = _rows(call, numbers, text, due=_delay(call), code=code)
    answer = {"@msisdn": row.msisdn, "@response": row.result}
    return {"msg": answer | {"@code": code} if row.result == "OK" else answer}, rows


def _stop(call: Call) -> tuple[Any, list[Row]]:
    """STOP_MSISDNS: ours, the document shows no answer: a list like that of SEND_MSISDN."""
    numbers = _numbers(call)
    if len(numbers) > MOST_STOPS:
        raise _Refused("TOO_MANY_MSISDNS")
    rows = [call.row(number, "OK" if _valid(number) else "INVALID_MSISDN") for number in numbers]
    return {"msg": [{"@msisdn": row.msisdn, "@response": row.result} for row in rows]}, rows


def _balance(call: Call) -> tuple[Any, list[Row]]:
    """GET_BALANCE: `{"@balance": "21.461", "@available": "31.461"}`."""
    account = call.account
    output = {"@balance": f"{account.balance:.3f}", "@available": f"{account.available:.3f}"}
    return output, [call.row("", "OK")]


def _hlr(call: Call) -> tuple[Any, list[Row]]:
    """HLR: `{"hlr": {"number": "447123456789", .., "error_code": "DELIVRD", "is_perm_err": "0"}}`."""
    numbers = _numbers(call, "number")
    if len(numbers) > 1:
        raise _Refused("MSISDN_LIMIT(1)_EXCEEDED")  # ours: the sample has one, no answer for several is shown
    number = numbers[0]
    if not _valid(number):
        raise _Refused("INVALID_MSISDN")  # ours: the section names no errors
    home = _home(number)
    found = {"number": number} | home | _FOUND.get(magic.meaning(number), {})
    rows = [call.row(number, found["error_code"], cost=CREDIT)]
    _afford(call, rows)
    return {"hlr": found}, rows


def _append(call: Call) -> tuple[Any, list[Row]]:
    """APPEND_LIST: the plain string `"NUMBER_ADDED"`; "if the list doesn't exist it will be created"."""
    name, phone = call.body.get("list"), call.body.get("phone")
    if not isinstance(name, str) or not name:
        raise _Refused("INVALID_LIST")  # ours: the section names no errors
    if not isinstance(phone, str) or not _valid(phone):
        raise _Refused("INVALID_MSISDN")  # ours, likewise
    return "NUMBER_ADDED", [call.row(phone, "NUMBER_ADDED", text=name)]


_FUNCTIONS: Final[dict[str, Callable[[Call], tuple[Any, list[Row]]]]] = {
    SEND: _send,
    VERIFICATION: _verification,
    STOP: _stop,
    BALANCE: _balance,
    HLR: _hlr,
    APPEND: _append,
}


# The fields of a body


def _numbers(call: Call, field: str = "msisdn") -> list[str]:
    """Return the numbers as they came: a wrong one is answered for itself, what is no list for the whole."""
    numbers = call.body.get(field)
    if not isinstance(numbers, list) or not numbers or not all(isinstance(number, str) for number in numbers):
        raise _Refused("INVALID_MESSAGE")  # ours: every sample shows a list of strings
    return numbers


def _message(call: Call, code: str = "") -> str:
    """Return the text as the phone will show it."""
    text = call.body.get("msg", "")
    if not isinstance(text, str):
        raise _Refused("INVALID_MESSAGE")
    if not text.strip():
        raise _Refused("NO_MESSAGE")
    if code and _PLACEHOLDER not in text:
        raise _Refused("NO_CODE_PLACEHOLDER_PRESENT")
    text = text.replace(_PLACEHOLDER, code) if code else text
    if segments(text).count > MOST_PARTS:
        raise _Refused("MESSAGE_TOO_LONG")
    return text


def _release(call: Call) -> float:
    """Return when SEND_MSISDN is to release the text, 0 for at once; "in the format yyyy-MM-dd HH:mm:ss"."""
    if "time" not in call.body:
        return AT_ONCE
    if SCHEDULE not in call.account.grants:
        raise _Refused("INVALID_MESSAGE")  # ours: "Silver, Gold and Platinum Tariffs only", without a token
    try:
        return _moment(_matching(call, "time", _TIMESTAMP))
    except ValueError:
        raise _Refused("INVALID_MESSAGE") from None


def _moment(written: str) -> float:
    """Return seconds since 1970; ours: the timestamp has no zone, so it is UTC."""
    return datetime.strptime(written, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()


def _delay(call: Call) -> float:
    """Return when VERIFICATION is to send, 0 for at once; "you can specify a delay (in seconds)"."""
    if "delay" not in call.body:
        return AT_ONCE
    return call.world.now() + int(_matching(call, "delay", _SECONDS))


def _matching(call: Call, field: str, form: re.Pattern[str]) -> str:
    value = call.body[field]
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _Refused("INVALID_MESSAGE")  # ours: the only token of the list that fits
    return value


def _originator(call: Call) -> str:
    """Return who the text is from; "Accounts with permission to set originator/sender ID can set" it."""
    wanted = call.body.get("orig", "")
    if not isinstance(wanted, str):
        raise _Refused("INVALID_MESSAGE")
    return wanted if wanted and ORIGINATE in call.account.grants else ORIGINATOR


# The numbers of a message


_BAD: Final = frozenset({"INVALID_MSISDN", "MSISDN_FAILURE", "SEND_FAILURE", "UNKNOWN_ERROR", "MSISDN_BLOCKED"})
_RESPONSES: Final[dict[Magic | None, str]] = {
    Magic.BLOCKED: "MSISDN_BLOCKED",
    Magic.INVALID: "INVALID_MSISDN",
    Magic.REFUSED: "MSISDN_FAILURE",
    Magic.NOT_SENT: "SEND_FAILURE",
    Magic.LOST: "UNKNOWN_ERROR",
    Magic.TAKEN_AND_LOST: "UNKNOWN_ERROR",
}


def _rows(call: Call, numbers: list[str], text: str, due: float, code: str = "") -> list[Row]:
    """Return the rows of a message, paid for: "You will only be charged for an "OK" response"."""
    sender, price = _originator(call), CREDIT * segments(text).count
    rows = []
    for number in numbers:
        row = call.row(number, _response(call, number), text=text, sender=sender, due=due)
        row.cost = price if row.accepted else FREE
        row.accepted = row.accepted or _taken_and_lost(call, number)
        row.code = code if row.accepted else ""
        rows.append(row)
    _afford(call, rows)
    return rows


def _taken_and_lost(call: Call, number: str) -> bool:
    """Say whether the phone gets the text although nobody knows; UNKNOWN_ERROR is not charged."""
    return magic.meaning(number) is Magic.TAKEN_AND_LOST and number not in call.account.stopped


def _response(call: Call, number: str) -> str:
    special = magic.meaning(number)
    if not _valid(number):
        return "INVALID_MSISDN"
    if number in call.account.stopped:  # STOP_MSISDNS: "they will not be sent any more SMS messages"
        return "MSISDN_BLOCKED"
    if special is Magic.NOT_SENT_ONCE and call.first(number):
        return "SEND_FAILURE"
    return _RESPONSES.get(special, "OK")


def _valid(number: str) -> bool:
    """Say whether it is "in international format"; ours: 7 to 15 digits, no zero first."""
    return bool(_INTERNATIONAL.fullmatch(number)) and magic.meaning(number) is not Magic.INVALID


def _afford(call: Call, rows: list[Row]) -> None:
    """Refuse the whole request where the account can't pay for all of it (ours: the document has no half)."""
    if sum(row.cost for row in rows) > call.account.available:
        raise _Refused("INSUFFICIENT_CREDITS")


# What an HLR finds

_UK = ("United Kingdom", "T-Mobile UK (Everything Everywhere Limited)")  # as in the document's sample
#: By the first digits of a number; ours, as are the networks that are made up.
_HOMES = {"1": ("United States", "Sandbox Wireless"), "33": ("France", "Sandbox France"), "44": _UK}


def _home(number: str) -> dict[str, str]:
    """Return what is found about a phone that is switched on, at home, and never changed its network."""
    country, network = next(
        (home for prefix, home in _HOMES.items() if number.startswith(prefix)), ("Sandbox", "Sandbox Mobile")
    )
    return {
        "country": country,
        "orig_network": network,
        "ported_network": network,
        "roaming_country": country,
        "roaming_network": network,
        "ported": "false",
        "roaming": "false",
        "error_code": "DELIVRD",
        "is_perm_err": "0",
    }


#: What differs for special numbers. Ours: the document shows "DELIVRD" only; these are usual words of SMPP.
_FOUND: Final[dict[Magic | None, dict[str, str]]] = {
    Magic.GONE: {"error_code": "UNDELIV", "is_perm_err": "1"},
    Magic.ABSENT: {"error_code": "ABSENT-SUB", "is_perm_err": "0"},
    Magic.PORTED: {"ported_network": "Sandbox Mobile", "ported": "true"},
    Magic.ROAMING: {"roaming_country": "France", "roaming_network": "Sandbox France", "roaming": "true"},
}


# Small things


def _account(name: str, grants: frozenset[str], balance: str = "1000000", credit: str = "10") -> Account:
    return Account(
        provider=NAME,
        name=name,
        secret="sandbox",  # noqa: S106 - printed in the table above
        balance=Decimal(balance),
        credit=Decimal(credit),
        grants=grants,
    )


def _text_of(header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    return value if isinstance(value, str) else ""


def _named(body: dict[str, Any]) -> list[str]:
    """Return every number that the body names, for the ledger, whatever is wrong with the rest."""
    values = [body.get(field) for field in ("msisdn", "number", "phone")]
    listed = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [item for item in listed if isinstance(item, str)]


def _refused(action: str, account: str, numbers: list[str], token: str) -> list[Row]:
    """Return a row for each number of a request that was refused as a whole, or one where it names none."""
    return [
        Row(
            provider=NAME,
            action=action,
            kind=KINDS.get(action, ""),
            account=account,
            msisdn=number,
            accepted=False,
            result=token,
        )
        for number in numbers or [""]
    ]
