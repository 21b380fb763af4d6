"""TheTexting, played by its pages under thetexting.com/developers/Documentation.

Accounts (api_key and api_secret):

| key | secret | |
|---|---|---|
| `sandbox` | `sandbox` | a trial account: `from` may be left out; 1,000,000 in money, sender ID `ACME` |
| `paid` | `sandbox` | must name a number of its own as `from`; 1,000,000 |
| `broke` | `sandbox` | a trial account without money |

Pages are named by their names (SendMessage, NumberBuy, ...). What they leave open is decided here in the plainest way
in their style; each such place says "ours". Ours is, too: all calls are answered with status 200, take POST and GET
alike ("All requests are submitted through the HTTP POST or GET method" of NumberBuy, where other pages name GET alone),
and all times are UTC.

Numbers that are special (`workers.sandbox.magic`) in this vendor's words, for a text, a purchase and its return:

| ending | answer |
|---|---|
| 100 | Status 1: the catch-all covers numbers that are blocked |
| 101 | Status 4 |
| 102 | Status 6, which no page explains |
| 103, 105 | Status 1, and nothing happened |
| 104 | the same the first time, then Status 0 |
| 106, 107 | status 503 with a page, the first time and every time |
| 108 | Status 1, and it happened |
| 130, 131 | lookup: a `lookup_status` other than "No Error" |
| 132 | lookup: `is_ported` |
| 133 | lookup: `serving_msc` abroad |
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qs, urlencode
from xml.etree import ElementTree as ET

import msgspec

from dispatcher.text import segments
from workers.sandbox import magic
from workers.sandbox.base import Answer, Limits, Outgoing, Reply, Request, Texted
from workers.sandbox.magic import Magic
from workers.sandbox.world import Account, Row, World

NAME: Final = "thetexting"
#: "JSON end point" and "XML end point".
PREFIX: Final = "/rest/sms/"
FORMATS: Final = ("json", "xml")

#: SendMessage: "Expected "Content-Type" for POST is "application/x-www-form-urlencoded", however we also support".
FORM: Final = "application/x-www-form-urlencoded"
JSON_TYPES: Final = frozenset(
    {
        "application/json", "application/jsonrequest", "application/x-javascript", "text/json", "text/javascript",
        "text/x-javascript", "text/x-json",
    }
)  # fmt: skip

#: "Respond Codes". The sample of every page says "Parameters Missing"; the other words are those of the table.
OK, FAILED, MISSING, CREDENTIALS, INVALID, EMPTY, BAD_STATUS = range(7)
WORDS: Final = {
    FAILED: "Request has failed.",
    MISSING: "Parameters Missing",
    CREDENTIALS: "Credentials are invalid.",
    INVALID: "Parameters are invalid.",
    EMPTY: "Result has returned empty.",
    BAD_STATUS: "Status is invalid.",
}

#: SendMessage: "a maximum length of 3200 characters".
LONGEST: Final = 3200
#: SendMessage and NumberSearch show these; each part of a text costs one (ours).
TEXT_PRICE: Final = Decimal("0.0055")
NUMBER_PRICE: Final = Decimal(1)
#: Ours: NumberLookup names no price.
LOOKUP_PRICE: Final = Decimal("0.005")
#: SearchMessage's sample pads an id to so many characters.
PADDED: Final = 50
#: Ours: who a trial account's texts are from.
SHARED: Final = "12125550199"

TRIAL: Final = "trial"
#: Ours: a sender ID that was approved (createsenderid).
APPROVED: Final = "ACME"
#: SendMessage, for a trial account: "use 'test' or 'sandbox' and your message will be sent using a shared number".
TRIAL_SENDERS: Final = frozenset({"test", "sandbox"})

#: Ours: numbers for sale lie in the range that North America keeps free for drama; found are those with an ordinary
#: ending, in these area codes where none is asked for.
AREAS: Final = ("212", "310", "415", "678")
ENDINGS: Final = range(150, 170)
#: Ours: what a search finds at most.
MOST_FOUND: Final = 20

_FOR_SALE: Final = re.compile(r"1[2-9][0-9]{2}55501[0-9]{2}")
_INTERNATIONAL: Final = re.compile(r"[1-9][0-9]{6,14}")
_DIGITS: Final = re.compile(r"[0-9]{1,15}")
_DAY: Final = "%m-%d-%Y"

_MODELS: Final = "http://schemas.datacontract.org/2004/07/RESTwebapi.Models"
_NIL: Final = "{http://www.w3.org/2001/XMLSchema-instance}nil"


class TheTexting:
    """The provider: one address for each call, one envelope for all."""

    name = NAME
    #: None is documented.
    limits = Limits()

    def accounts(self) -> Iterable[Account]:
        """Return the three accounts of the table above."""
        return (
            _account("sandbox", frozenset({TRIAL, APPROVED})),
            _account("paid", frozenset()),
            _account("broke", frozenset({TRIAL}), balance="0"),
        )

    def serves(self, path: str) -> bool:
        """Say whether `path` is under one of the two end points."""
        return path.lower().startswith(tuple(f"{PREFIX}{one}/" for one in FORMATS))

    def reply(self, request: Request, world: World) -> Reply:
        """Answer a request in the format that its path asks for."""
        form, _, path = request.path.lower().removeprefix(PREFIX).partition("/")
        action, play = _CALLS.get(path, ("", None))
        if play is None or request.method not in {"GET", "POST"}:
            status = 404 if play is None else 405
            row = Row(provider=NAME, action=action or path[:40], accepted=False, result=str(status))
            return Reply(Answer(status=status, content_type="text/plain", headers=_date(world)), [row])
        fields = _fields(request)
        call = Call(world, None, action, fields)
        try:
            call = msgspec.structs.replace(call, owner=_login(fields, world))
            _meet(call)
            content, rows = play(call)
            body = _written(form, content, OK)
        except _Refused as refusal:
            content, rows = None, refusal.rows or [call.row(call.number(), f"Status {refusal.status}", accepted=False)]
            body = _written(form, None, refusal.status, refusal.words)
        except _Away:
            rows = [call.row(call.number(), "503", accepted=False)]
            return Reply(Answer(status=503, body=_PAGE, content_type="text/html", headers=_date(world)), rows)
        return Reply(Answer(body=body, content_type=f"application/{form}; charset=utf-8", headers=_date(world)), rows)

    def receipt(self, row: Row) -> Outgoing:
        """Return the delivery callback: that there is one is said by AccountSetting, its fields are ours."""
        word = _OUTCOMES[magic.outcome(row)]
        at = datetime.fromtimestamp(max(row.at, row.due), UTC)
        told = {"message_id": row.ref, "from": row.sender, "to": row.msisdn, "status": word, "datetime": _english(at)}
        return Outgoing(method="GET", query=urlencode(told))

    def inbound(self, texted: Texted) -> Outgoing:
        """NumberBuy: ".../YOURPAGE?from=123456&to=1556985&text=This is a test message.&datetime=..&cost=0.00"."""
        at = _english(datetime.fromtimestamp(texted.at, UTC))
        told = {"from": texted.sender, "to": texted.to, "text": texted.text, "datetime": at, "cost": "0.00"}
        return Outgoing(method="GET", query=urlencode(told))

    def refused(self, request: Request) -> list[Row]:
        """Return a row without a number."""
        return [Row(provider=NAME, action=request.method, accepted=False, result="429")]


class Call(msgspec.Struct, frozen=True):
    """A request to an address that there is; its account is None until it is known."""

    world: World
    owner: Account | None
    action: str
    fields: Mapping[str, list[str]]

    @property
    def account(self) -> Account:
        """Return the account, which was recognised."""
        assert self.owner is not None, "nothing is played before the login"  # noqa: S101 - tells mypy
        return self.owner

    def row(self, msisdn: str, result: str = "Status 0", *, accepted: bool = True, **more: Any) -> Row:
        """Return the row of what was done, or refused."""
        return Row(
            provider=NAME,
            action=self.action,
            kind=KINDS.get(self.action, ""),
            account=self.owner.name if self.owner else "",
            msisdn=msisdn,
            accepted=accepted,
            result=result,
            **more,
        )

    def get(self, name: str) -> str:
        """Return a field, empty where it is not there."""
        return (self.fields.get(name) or [""])[0]

    def need(self, *names: str) -> list[str]:
        """Return fields that must be there; refuses the request otherwise."""
        if not all(self.get(name) for name in names):
            raise _Refused(MISSING)
        return [self.get(name) for name in names]

    def number(self) -> str:
        """Return the number that something happens to; empty for a call that reads, whatever it reads about."""
        return self.get(_NUMBERED.get(self.action, ""))

    def spend(self, cost: Decimal) -> None:
        """Refuse what the account cannot pay; ours: as the catch-all, since no code of the table is for that."""
        if cost > self.account.available:
            raise _Refused(FAILED, "Insufficient balance.")


class _Refused(Exception):
    """The request is answered with a `Status` other than 0; `rows` say what happened all the same."""

    def __init__(self, status: int, words: str = "", rows: Sequence[Row] = ()) -> None:
        self.status = status
        self.words = words or WORDS[status]
        self.rows = [*rows]
        super().__init__(self.words)


class _Away(Exception):
    """Something in front of the vendor answers."""


_PAGE: Final = b"<html><head><title>Service Unavailable</title></head><body>Service Unavailable</body></html>\n"


# The request, from outside in


def _fields(request: Request) -> dict[str, list[str]]:
    """Return query and body as one; "Sample URL (POST)" has everything in its query."""
    told = parse_qs(request.query, keep_blank_values=True)
    kind = request.headers.get("content-type", FORM).partition(";")[0].strip().lower()
    if request.method == "POST" and kind == FORM:
        told |= parse_qs(request.body.decode("utf-8", "replace"), keep_blank_values=True)
    elif request.method == "POST" and kind in JSON_TYPES:
        told |= _object(request.body)
    return told


def _object(body: bytes) -> dict[str, list[str]]:
    """Return "parameters as a JSON object"."""
    try:
        document = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    told = document if isinstance(document, dict) else {}
    return {
        name: [
            str(one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str | int | float)
        ]
        for name, value in told.items()
    }


def _login(fields: Mapping[str, list[str]], world: World) -> Account:
    key, secret = (next(iter(fields.get(name, ())), "") for name in ("api_key", "api_secret"))
    if not key or not secret:
        raise _Refused(MISSING)
    account = world.account(NAME, key)
    if account is None or account.secret != secret:
        raise _Refused(CREDENTIALS)
    return account


def _meet(call: Call) -> None:
    """Turn the whole request away where its number says so."""
    special = magic.meaning(call.number())
    if special is Magic.AWAY or (special is Magic.AWAY_ONCE and not call.world.asked(NAME, call.action, call.number())):
        raise _Away


def _number(call: Call, field: str, form: re.Pattern[str]) -> str:
    """Return a number; refuses what is none, and what is special by what is said of it above."""
    (number,) = call.need(field)
    special = magic.meaning(number)
    if not form.fullmatch(number) or special is Magic.INVALID:
        raise _Refused(INVALID)
    if special is Magic.REFUSED:
        raise _Refused(BAD_STATUS)
    once = special is Magic.NOT_SENT_ONCE and not call.world.asked(NAME, call.action, number)
    if once or special in {Magic.BLOCKED, Magic.NOT_SENT, Magic.LOST}:
        raise _Refused(FAILED)
    return number


def _unless_lost(rows: list[Row]) -> list[Row]:
    """Answer "has failed" to what is taken, where the number says so."""
    if magic.meaning(rows[0].msisdn) is Magic.TAKEN_AND_LOST:
        raise _Refused(FAILED, rows=rows)
    return rows


# The calls: each answers what stands behind "Response", and the rows of the ledger


def _send(call: Call) -> tuple[Any, list[Row]]:
    """SendMessage: `{"message_id": "10011", "message_count": 1, "price": 0.0055}`."""
    _, text = call.need("to", "text")
    number = _number(call, "to", _INTERNATIONAL)
    parts = segments(text)
    unicode = call.get("type") == "unicode"
    if len(text) > LONGEST or call.get("type") not in {"", "text", "unicode"}:
        raise _Refused(INVALID)
    if parts.encoding == "UCS-2" and not unicode:
        raise _Refused(INVALID)  # `type` "is required when sending a Unicode message"
    sender = _sender(call)
    cost = TEXT_PRICE * parts.count
    call.spend(cost)
    ref = str(10**11 + secrets.randbelow(9 * 10**11))
    data = {"unicode": unicode, "count": parts.count}
    rows = _unless_lost([call.row(number, ref=ref, text=text, sender=sender, cost=cost, data=data)])
    return {"message_id": ref, "message_count": parts.count, "price": float(cost)}, rows


def _sender(call: Call) -> str:
    """Return who a text is from; "For Paid Account: The number that has been purchased and associated"."""
    sender, account = call.get("from"), call.account
    trial = TRIAL in account.grants
    if not sender and not trial:
        raise _Refused(MISSING)
    if trial and (not sender or sender in TRIAL_SENDERS):
        return SHARED
    if sender in account.numbers or sender in account.grants - {TRIAL}:
        return sender
    raise _Refused(INVALID)


def _lookup(call: Call) -> tuple[Any, list[Row]]:
    """NumberLookup: an object; "On successful lookup "No Error" will be returned"."""
    number = _number(call, "to", _INTERNATIONAL)
    call.spend(LOOKUP_PRICE)
    special = magic.meaning(number)
    american = number.startswith("1")
    found: dict[str, Any] = {
        "international_format_number": f"+{number}",
        "national_format_number": number.removeprefix("1") if american else f"0{number[2:]}",
        "phone_number_iso2_code": "US" if american else "GB",
        "phone_number_type": "mobile",
        "mccmnc": None if american else "23430",
        "serving_msc": "33609001390" if special is Magic.ROAMING else number[:6],
        "imsi": "234300000000000",
        "lookup_status": _LOOKUPS.get(special, "No Error"),
        "original_carrier": _carrier("Sandbox Mobile", american=american),
        "is_ported": special is Magic.PORTED,
    }
    return found, [call.row(number, found["lookup_status"], cost=LOOKUP_PRICE)]


def _carrier(name: str, *, american: bool) -> dict[str, str]:
    country, prefix = ("United States", "1") if american else ("United Kingdom", "44")
    return {
        "carrier_name": name,
        "carrier_prefix": "7700",
        "carrier_country_name": country,
        "carrier_country_prefix": prefix,
    }


#: Ours: no page lists the descriptions of errors.
_LOOKUPS: Final[dict[Magic | None, str]] = {Magic.GONE: "Unknown Subscriber", Magic.ABSENT: "Absent Subscriber"}


def _balance(call: Call) -> tuple[Any, list[Row]]:
    """AccountBalance: `{"balance": 0.7035}`."""
    return {"balance": float(call.account.balance)}, [call.row("")]


def _pricing(call: Call) -> tuple[Any, list[Row]]:
    """AccountPricing: `{"Price": 0.0055, "Country_Name": .., "Country_Prefix": 1, "Country_Code": "US "}`."""
    if _country(call) != "US":
        raise _Refused(EMPTY)
    country = {"Country_Name": "United States", "Country_Prefix": 1, "Country_Code": "US "}
    return {"Price": float(TEXT_PRICE), **country}, [call.row("")]


def _country(call: Call) -> str:
    """Return "A two letter country code"."""
    (country,) = call.need("country_code")
    if not re.fullmatch(r"[A-Za-z]{2}", country):
        raise _Refused(INVALID)
    return country.upper()


def _search(call: Call) -> tuple[Any, list[Row]]:
    """NumberSearch: `[{"country_name": .., "area_code": "330", "number": "13306807200", "price": 1}]`."""
    country, area, wanted = _country(call), call.get("area_code"), call.get("number")
    if (area and not _DIGITS.fullmatch(area)) or (wanted and not _DIGITS.fullmatch(wanted)):
        raise _Refused(INVALID)
    sold = _sold(call.world)
    free = [
        number
        for code in ((area,) if area else AREAS)
        for number in (f"1{code}5550{ending}" for ending in ENDINGS)
        if country == "US" and _FOR_SALE.fullmatch(number) and wanted in number and number not in sold
    ]
    if not free:
        raise _Refused(EMPTY)
    found = [
        {"country_name": "United States", "area_code": number[1:4], "number": number, "price": int(NUMBER_PRICE)}
        for number in free[:MOST_FOUND]
    ]
    return found, [call.row("")]


def _sold(world: World) -> set[str]:
    accounts = (world.account(NAME, account.name) for account in TheTexting().accounts())
    return {number for account in accounts if account for number in account.numbers}


def _buy(call: Call) -> tuple[Any, list[Row]]:
    """NumberBuy: `"Number: 16787188829 has been successfully purchased"`."""
    number = _number(call, "number", _FOR_SALE)
    if number in _sold(call.world):
        raise _Refused(FAILED, "Number is not available.")
    call.spend(NUMBER_PRICE)
    rows = _unless_lost([call.row(number, cost=NUMBER_PRICE)])
    return f"Number: {number} has been successfully purchased", rows


def _cancel(call: Call) -> tuple[Any, list[Row]]:
    """NumberCancel: `"Number : 16787188829 has been successfully canceled."`, with a blank more than NumberBuy."""
    number = _own(call)
    rows = _unless_lost([call.row(number)])
    return f"Number : {number} has been successfully canceled.", rows


def _own(call: Call) -> str:
    """Return a number of the account; ours: another is an invalid parameter."""
    (number,) = call.need("number")
    if number not in call.account.numbers:
        raise _Refused(INVALID)
    return number


def _update(call: Call) -> tuple[Any, list[Row]]:
    """NumberUpdate: `"Number : 16787188829 has been successfully updated."`; where it calls is set at the sandbox."""
    call.need("number", "new_in_callback_url_type", "new_in_callback_url")
    number = _own(call)
    _check_scheme(call, "new_in_callback_url_type")
    return f"Number : {number} has been successfully updated.", [call.row(number)]


def _check_scheme(call: Call, field: str) -> None:
    """Refuse what is neither; 'HTTTPS' of AccountSetting is taken for a slip."""
    if call.get(field).upper() not in {"", "HTTP", "HTTPS"}:
        raise _Refused(INVALID)


def _settings(call: Call) -> tuple[Any, list[Row]]:
    """AccountSetting: answers the settings, the secret in clear; ours: nothing of them is changed here."""
    names = ("in_callback_url_type", "in_callback_url", "dr_callback_url_type", "dr_callback_url")
    _check_scheme(call, "new_in_callback_url_type")
    _check_scheme(call, "new_dr_callback_url_type")
    told = {"secret_key": call.account.secret, **{name: call.get(f"new_{name}") or None for name in names}}
    return told, [call.row("")]


def _numbers(call: Call) -> tuple[Any, list[Row]]:
    """AccountNumber: `{"number_count": 1, "list_account_numbers": [{"country_code": "US ", "Number": ..}]}`."""
    if not call.account.numbers:
        raise _Refused(EMPTY)  # ours: the page shows one number
    rows = [
        {"country_code": "US ", "Number": number, "in_callback_url_type": None, "in_callback_url": None}
        for number in sorted(call.account.numbers)
    ]
    return {"number_count": len(rows), "list_account_numbers": rows}, [call.row("")]


def _message(call: Call) -> tuple[Any, list[Row]]:
    """SearchMessage: a list of one, its id padded with blanks."""
    (ref,) = call.need("message_id")
    return _reported(call, _by_ids(call, [ref]), padded=True)


def _messages(call: Call) -> tuple[Any, list[Row]]:
    """SearchMessages: by "A list of message ids", or by "A recipient number" and "Message date submission"."""
    if "message_id" in call.fields:
        return _reported(call, _by_ids(call, call.fields["message_id"]))
    to, day = call.need("to", "message_sent_date")
    return _reported(call, _by_day(call, day, to))


def _rejections(call: Call) -> tuple[Any, list[Row]]:
    """SearchRejections: like SearchMessages, by day and perhaps number; ours: rejected is what was never delivered."""
    (day,) = call.need("message_sent_date")
    rows = [row for row in _by_day(call, day, call.get("to")) if magic.undelivered(row.msisdn)]
    return _reported(call, rows)


def _by_ids(call: Call, refs: Iterable[str]) -> list[Row]:
    rows = [row for ref in refs for row in call.world.referred(NAME, ref.strip())]
    return [row for row in rows if row.account == call.account.name]


def _by_day(call: Call, day: str, to: str) -> list[Row]:
    """Return the texts of a day, latest first as in the page's sample."""
    try:
        datetime.strptime(day, _DAY)  # noqa: DTZ007 - only whether it is one
    except ValueError:
        raise _Refused(INVALID) from None
    rows = [
        row
        for row in call.world.rows()
        if (row.provider, row.account, row.kind, row.accepted) == (NAME, call.account.name, "send", True)
        and to in {"", row.msisdn}
        and datetime.fromtimestamp(row.at, UTC).strftime(_DAY) == day
    ]
    return rows[::-1]


def _reported(call: Call, rows: list[Row], *, padded: bool = False) -> tuple[Any, list[Row]]:
    if not rows:
        raise _Refused(EMPTY)
    told = [
        {
            "message_id": row.ref.ljust(PADDED) if padded else row.ref,
            "From": row.sender,
            "To": row.msisdn,
            "count": row.data.get("count", 1),
            "is_unicode": row.data.get("unicode", False),
            "price": float(row.cost),
            "sent_date": datetime.fromtimestamp(row.at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-4],
            "text": row.text,
            "status": _status(row, call.world.now()),
        }
        for row in rows
    ]
    return told, [call.row("")]


#: "Sent" is SearchMessage's word and "Rejected" that of SearchRejections; "Delivered" is ours.
_OUTCOMES: Final = {"delivered": "Delivered", "undelivered": "Rejected", "waiting": "Sent"}


def _status(row: Row, now: float) -> str:
    """Return how a text stands; ours: a second later its fate is known, unless its number has no receipts."""
    known = now > max(row.at, row.due) + 1 and magic.receipts(row.msisdn)
    return _OUTCOMES[magic.outcome(row)] if known else "Sent"


def _sender_id(call: Call) -> tuple[Any, list[Row]]:
    """createsenderid: a sentence that ends in "pending admin approval."; ours: nobody ever approves."""
    (wanted,) = call.need("senderid")
    return f"Sender ID : {wanted} is pending admin approval.", [call.row("")]


#: By its path in small letters (paths are shown in either case): the path as the page shows it, and who plays it.
_CALLS: Final[dict[str, tuple[str, Callable[[Call], tuple[Any, list[Row]]]]]] = {
    path.lower(): (path, play)
    for path, play in (
        ("Message/Send", _send),
        ("Message/CreateSenderID", _sender_id),
        ("number/lookup", _lookup),
        ("number/search", _search),
        ("number/buy", _buy),
        ("number/cancel", _cancel),
        ("number/update", _update),
        ("account/getbalance", _balance),
        ("account/getpricing", _pricing),
        ("account/numbers", _numbers),
        ("account/settings", _settings),
        ("search/message", _message),
        ("search/messages", _messages),
        ("search/rejection", _rejections),
    )
}

#: Calls that do something to a number, and the field it is in.
_NUMBERED: Final = {"Message/Send": "to", "number/lookup": "to", "number/buy": "number", "number/cancel": "number"}

#: A verification is a text like any other to this provider.
KINDS: Final = {
    "Message/Send": "send",
    "number/lookup": "lookup",
    "number/search": "number.search",
    "number/buy": "number.buy",
    "number/cancel": "number.cancel",
    "account/getbalance": "balance",
    "account/numbers": "number.list",
    "search/message": "report",
    "search/messages": "report",
    "search/rejection": "report",
}


# The answer


def _written(form: str, content: Any, status: int, words: str = "") -> bytes:
    """Write the envelope: `Response`, `ErrorMessage` and `Status`, or as XML in the order of their names."""
    if form == "json":
        return msgspec.json.encode({"Response": content, "ErrorMessage": words, "Status": status})
    root = ET.Element("TheTexting")
    ET.SubElement(root, "ErrorMessage").text = words
    _append(root, "Response", content)
    ET.SubElement(root, "Status").text = str(status)
    return ET.tostring(root)


def _append(parent: ET.Element, name: str, content: Any) -> None:
    """Write what JSON has in this place, as the samples do: objects of a list in a namespace of their own."""
    element = ET.SubElement(parent, name)
    if content is None:
        element.set(_NIL, "true")
    elif isinstance(content, list):
        for one in content:
            row = ET.SubElement(element, f"{{{_MODELS}}}{'Number' if 'Number' in one else 'Message'}")
            for field in sorted(one):
                _append(row, f"{{{_MODELS}}}{field}", one[field])
    elif isinstance(content, dict):
        for field in sorted(content):
            _append(element, field, content[field])
    else:
        element.text = str(content).lower() if isinstance(content, bool) else str(content).strip()


def _date(world: World) -> dict[str, str]:
    """Return the header that every server with a clock answers."""
    return {"Date": formatdate(world.now(), usegmt=True)}


def _english(at: datetime) -> str:
    """Write a moment as NumberBuy's sample does: "Jun 9 2017 09:41 AM"."""
    return f"{at:%b} {at.day} {at:%Y %I:%M %p}"


# Small things


def _account(name: str, grants: frozenset[str], balance: str = "1000000") -> Account:
    return Account(
        provider=NAME,
        name=name,
        secret="sandbox",  # noqa: S106 - printed in the table above
        balance=Decimal(balance),
        credit=Decimal(0),
        grants=grants,
    )
