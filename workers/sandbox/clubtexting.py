"""Club Texting, played by its "REST API Documentation", and by the vendor's client where that is silent.

Accounts (user and password):

| user | password | |
|---|---|---|
| `sandbox` | `sandbox` | may do everything; 1,000,000 credits; a stored card that ends in 1111 |
| `broke` | `sandbox` | has no credits and no stored card |
| `guest` | `sandbox` | has no access to the API: Access Forbidden |

Special numbers, +1 ... 555 0..., beside the faults of `workers.sandbox.magic`:

| | what becomes of a message |
|---|---|
| 100, 134 | in LocalOptOuts, in GlobalOptOuts |
| 101, 102 | 403 for the whole request: PhoneNumbers, or no reason |
| 103, 107 | 503 for the whole request, every time |
| 104, 106 | the same the first time |
| 105, 108 | in none of the lists; 108 gets the text |
| 130, 140 | accepted; the report says bounced |
| 131, 144 | accepted; the report has it as not available for ever |

A lookup finds 130 nowhere, and 132 in another network. The keyword `taken` is another customer's; the card
4000 0000 0000 0002 is declined. What the documents leave open is decided here in the plainest way in their style; each
such place says "ours".
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

import msgspec

from dispatcher import phone
from workers.sandbox import magic
from workers.sandbox.base import Answer, Limits, Outgoing, Reply, Request, Texted
from workers.sandbox.magic import Magic
from workers.sandbox.world import AT_ONCE, FREE, Account, Row, World

NAME: Final = "clubtexting"

#: Its short code in the United States (Sending SMS Messages).
SHORT_CODE: Final = "25827"
#: Ours: seconds from a text's arrival until the report knows.
REPORTED_AFTER: Final = 1.0
#: Ours: the sample charges 6 credits for 3 recipients of an express message.
EXPRESS, STANDARD = Decimal(2), Decimal(1)
#: The number of the one stored card, of a card that is declined, and the keyword of somebody else; all ours.
STORED_CARD: Final = "1111"
DECLINED: Final = "4000000000000002"
TAKEN: Final = "taken"
#: In `LocalOptOuts` are `Magic.BLOCKED`, in `GlobalOptOuts` numbers that end so.
GLOBAL: Final = 134

#: What an account has: access to the API, and a stored card.
_ACCESS, _STORED = "api", "card"

_ENDING = re.compile(r"1\d{3}5550(1\d\d)")
#: The list of allowed characters, and the space, CR and LF that it means.
_ALLOWED = re.compile(r"""[a-zA-Z0-9 .,:;!?()~=+\-_\\/@$#&%'"\r\n]*""")
_KEYWORD_WORDS = (
    "Keyword: Keywords can not contain spaces or the following characters: "
    "?, @, ., !, [, ], {, }, -, +, #, $, %, &, ', (, ), *, /, \\, :, ;, <, >, =, ^, `, |, ~"
)
_BAD_KEYWORD = re.compile(r"[\s?@.!\[\]{}\-+#$%&'()*/\\:;<>=^`|~]")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_URI = re.compile(r"https?://\S+")
_NOTHING = "Sorry, nothing was found"
_REQUIRED = "Value is required and can't be empty"
#: `ZIP` in the tables, `Zip` in the samples: either is taken.
_CARD = (
    "FirstName", "LastName", "Street", "City", "State", "Zip", "Country", "CreditCardTypeID", "Number",
    "SecurityCode", "ExpirationMonth", "ExpirationYear",
)  # fmt: skip
_PAYMENT = frozenset({*_CARD, "ZIP", "StoredCreditCard"})
_CARD_FORMS = {
    "Number": (r"[0-9]{13,19}", "contains an invalid amount of digits"),
    "CreditCardTypeID": ("Amex|Discover|MasterCard|Visa", "is not a credit card type"),
    "SecurityCode": (r"[0-9]{3,4}", "contains an invalid amount of digits"),
    "ExpirationMonth": (r"0[1-9]|1[0-2]", "is not a month"),
    "ExpirationYear": (r"20[0-9]{2}", "is not a year"),
}
_SETUP = frozenset(
    {
        "EnableDoubleOptIn", "ConfirmMessage", "JoinMessage", "ForwardEmail", "ForwardUrl", "ContactGroupIDs[]",
        "EnableAlternateReply", "AlternateReply",
    }
)  # fmt: skip
_FLAGS = {"1": True, "true": True, "0": False, "false": False}
#: What the lists of the XML are made of; of all others, `Entry`.
_CHILDREN = {
    "Errors": "Error", "PhoneNumbers": "PhoneNumber", "LocalOptOuts": "PhoneNumber", "GlobalOptOuts": "PhoneNumber",
    "ContactGroupIDs": "Group",
}  # fmt: skip
#: The sample's pair of StampToSend, 1305582245 in and 05-16-2011 5:44 PM out, is four hours behind UTC.
_VENDOR_TIME = timezone(timedelta(hours=-4))


class _Refused(Exception):
    """The request as a whole is refused, for these reasons."""

    def __init__(self, code: int, *errors: str) -> None:
        self.code = code
        self.errors = list(errors)
        super().__init__(code)


class ClubTexting:
    """The provider: a path for each thing it can do."""

    name = NAME
    #: The page of the HTTP API: two connections at a time, and 503 for more.
    limits = Limits(at_once=2, refusal=Answer(status=503, body=b"Rate limit exceeded\n", content_type="text/plain"))

    def accounts(self) -> Iterable[Account]:
        """Return the three accounts of the table above."""
        return (
            _account("sandbox"),
            _account("broke", "0", frozenset({_ACCESS})),
            _account("guest", grants=frozenset()),
        )

    def serves(self, path: str) -> bool:
        """Say whether `path` is one of the API's."""
        return re.match(r"/(sending|keywords|billing)(/|$)", path) is not None

    def reply(self, request: Request, world: World) -> Reply:
        """Answer a request, good or bad, in the format that it asks for."""
        call = _call(request, world)
        try:
            call.login()
            code, content, rows = call.played()
        except _Refused as refusal:
            code, content, rows = refusal.code, {"Errors": refusal.errors}, call.refused(refusal.code)
        return Reply(_answer(call.format, code, content), rows)

    def receipt(self, row: Row) -> None:
        """Tell nothing: reports are asked for."""

    def inbound(self, texted: Texted) -> Outgoing:
        """Forward a text to a keyword: `PhoneNumber`, `Message` and more (Incoming Message API)."""
        fields = {"PhoneNumber": texted.sender[-10:], "Message": texted.text, "Subject": "", "Keyword": texted.to}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Outgoing(headers=headers, body=urlencode(fields).encode())

    def refused(self, request: Request) -> list[Row]:
        """Return the rows of a request that came while two others were worked on."""
        route, argument = _route(request)
        return _Call(route=route, argument=argument, fields=_fields(request)).refused(503)


class _Route(NamedTuple):
    """One thing it can do: how it is asked for, what we call it, and what plays it."""

    method: str
    path: re.Pattern[str]
    action: str
    kind: str
    play: Callable[[Any], tuple[int, Any, list[Row]]]


class _Call(msgspec.Struct):
    """A request, as far as it is understood."""

    route: _Route | None
    #: What the path names: a keyword, a number or an id.
    argument: str
    fields: dict[str, list[str]]
    format: str = "json"
    world: World | None = None
    account: Account | None = None

    def login(self) -> None:
        """Find the account; `user` and `password` in small letters are none."""
        account = self.there.account(NAME, self.one("User"))
        if account is None or not account.secret or account.secret != self.one("Password"):
            raise _Refused(401, "Authorization Required")
        if _ACCESS not in account.grants:
            raise _Refused(403, "Access Forbidden")
        if self.format not in {"json", "xml"}:
            raise _Refused(403, f"Format: '{self.format}' is not a format")  # ours
        self.account = account

    def played(self) -> tuple[int, Any, list[Row]]:
        """Do what is asked."""
        if self.route is None:
            raise _Refused(404, _NOTHING)  # ours: the document shows no wrong address
        return self.route.play(self)

    @property
    def there(self) -> World:
        """The world, which a request that was one too many doesn't see."""
        assert self.world is not None, "only calls that are replied to look at the world"  # noqa: S101 - tells mypy
        return self.world

    @property
    def customer(self) -> Account:
        """The account, once it is known."""
        assert self.account is not None, "logged in before it is played"  # noqa: S101 - tells mypy
        return self.account

    @property
    def action(self) -> str:
        """The provider's word for what is asked."""
        return self.route.action if self.route else "nothing"

    def one(self, name: str) -> str:
        """Return a field's value; empty where it is absent."""
        return self.fields.get(name, [""])[-1]

    def knows(self, *names: str) -> Iterator[str]:
        """Yield an error for each field that this call doesn't have; ours: the document ignores them, or doesn't."""
        for name in sorted(self.fields.keys() - {"User", "Password", *names}):
            yield f"{name}: there is no such parameter"

    def row(self, result: str, msisdn: str = "", *, accepted: bool = True, **more: Any) -> Row:
        """Return a row of the ledger."""
        return Row(
            provider=NAME,
            action=self.action,
            kind=self.route.kind if self.route else "",
            account=self.account.name if self.account else self.one("User"),
            msisdn=msisdn,
            accepted=accepted,
            result=result,
            **more,
        )

    def refused(self, code: int) -> list[Row]:
        """Return a row for each number of a refused request, or one where it names none; never a card's."""
        numbers = list(map(_msisdn, self.numbers())) or [""]
        return [self.row(str(code), number, accepted=False) for number in numbers]

    def numbers(self) -> list[str]:
        """Return the numbers that the request names, right or wrong, each once."""
        if self.route and self.route.kind == "lookup":
            return [self.argument]
        return list(dict.fromkeys(self.fields.get("PhoneNumbers[]", [])))

    def first(self, msisdn: str) -> bool:
        """Say whether this is asked for this number for the first time."""
        return not self.there.asked(NAME, self.action, msisdn)


# The request, from outside in


def _call(request: Request, world: World) -> _Call:
    route, argument = _route(request)
    form = dict(parse_qsl(request.query)).get("format", "")
    return _Call(route=route, argument=argument, fields=_fields(request), format=form, world=world)


def _method(request: Request) -> str:
    """Return the verb; the vendor's samples also POST with `_method=DELETE`."""
    instead = dict(parse_qsl(request.query)).get("_method", "")
    return instead if request.method == "POST" and instead else request.method


def _route(request: Request) -> tuple[_Route | None, str]:
    method = _method(request)
    for route in _ROUTES:
        found = route.path.fullmatch(request.path) if route.method == method else None
        if found:
            return route, found[1] if found.groups() else ""
    return None, ""


def _fields(request: Request) -> dict[str, list[str]]:
    """Return parameters: of GET and DELETE from the URL, of POST from the body; of a disguised DELETE from both."""
    pairs = []
    if request.method != "POST" or _method(request) != "POST":
        pairs += parse_qsl(request.query, keep_blank_values=True)
    if request.method == "POST":
        pairs += parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in {"format", "_method"}:
            fields.setdefault(name, []).append(value)
    return fields


def _check(errors: Iterable[str]) -> None:
    """Refuse a request for all that is wrong with it, together, as the samples do."""
    found = list(errors)
    if found:
        raise _Refused(403, *found)


# What it can do: each answers a code, what stands in `Response`, and the rows of the ledger


def _send(call: _Call) -> tuple[int, Any, list[Row]]:
    """Sending SMS Messages: who is texted and who has opted out, in three lists."""
    numbers = call.numbers()
    _check(_wrong_message(call, numbers))
    _turned_away(call, numbers)
    lists = {number: _list_of(number) for number in numbers}
    rows = _message_rows(call, lists)
    recipients = sum(name in {"PhoneNumbers", "GlobalOptOuts"} for name in lists.values())
    price = _price(call) * recipients
    if price > call.customer.available:
        raise _Refused(403, "You do not have enough credits to send this message")  # ours: no text is known
    entry = {
        "ID": int(rows[0].ref),
        "Subject": call.one("Subject"),
        "Message": call.one("Message"),
        "MessageTypeID": int(call.one("MessageTypeID") or "1"),
        "RecipientsCount": recipients,
        "Credits": int(price),
        "StampToSend": _vendor_time(_due(call) or call.there.now()),
        **{name: [one for one in numbers if lists[one] == name] for name in _THREE_LISTS},
    }
    return 201, {"Entry": entry}, rows


_THREE_LISTS = ("PhoneNumbers", "LocalOptOuts", "GlobalOptOuts")


def _wrong_message(call: _Call, numbers: list[str]) -> Iterator[str]:
    yield from call.knows("PhoneNumbers[]", "Subject", "Message", "StampToSend", "MessageTypeID")
    if not numbers or "" in numbers:
        yield f"PhoneNumbers: {_REQUIRED}"
    for number in filter(None, numbers):
        yield from _wrong_number("PhoneNumbers", number)
    subject, text = call.one("Subject"), call.one("Message")
    if len(subject) > 13:  # noqa: PLR2004 - "Maximum 13 characters"
        yield "Subject: Your subject must be under 13 characters."
    if not text:
        yield f"Message: {_REQUIRED}"
    for name, words in (("Subject", subject), ("Message", text)):
        if not _ALLOWED.fullmatch(words):
            yield f"{name}: Your {name.lower()} contains characters that are not supported."
    if _length(subject) + _length(text) > _most(call, numbers):
        yield "Message: Your message is too long."  # ours
    if "StampToSend" in call.fields and not re.fullmatch(r"[0-9]{1,10}", call.one("StampToSend")):
        yield f"StampToSend: '{call.one('StampToSend')}' contains characters which are not digits"
    if "MessageTypeID" in call.fields and call.one("MessageTypeID") not in {"1", "2"}:
        yield f"MessageTypeID: '{call.one('MessageTypeID')}' is not a delivery method"


def _wrong_number(field: str, number: str) -> Iterator[str]:
    if not re.fullmatch(r"[0-9]+", number):
        yield f"{field}: '{number}' contains characters which are not digits"
    elif len(number) != 10:  # noqa: PLR2004 - "10 digit phone number"
        yield f"{field}: '{number}' contains an invalid amount of digits"
    elif magic.meaning(_msisdn(number)) is Magic.INVALID:
        yield f"{field}: '{number}' is not a valid phone number"


def _turned_away(call: _Call, numbers: list[str]) -> None:
    """Refuse the whole request where one of its numbers asks for that; 503 is the vendor's word for nothing done."""
    for number in map(_msisdn, numbers):
        special = magic.meaning(number)
        if special is Magic.REFUSED:
            raise _Refused(403, "Your request could not be processed")
        always = special in {Magic.NOT_SENT, Magic.AWAY}
        if always or (special in {Magic.NOT_SENT_ONCE, Magic.AWAY_ONCE} and call.first(number)):
            raise _Refused(503, "Rate limit exceeded")


def _list_of(number: str) -> str:
    """Return which of the three lists a number is in; empty where the answer forgets it."""
    if _ending(_msisdn(number)) == GLOBAL:
        return "GlobalOptOuts"
    special = magic.meaning(_msisdn(number))
    if special in {Magic.LOST, Magic.TAKEN_AND_LOST}:
        return ""
    return "LocalOptOuts" if special is Magic.BLOCKED else "PhoneNumbers"


def _message_rows(call: _Call, lists: dict[str, str]) -> list[Row]:
    """Return a row for each number; the first that is accepted pays for global opt-outs and knows who opted out."""
    ref, text = str(1_000_000 + secrets.randbelow(10**9)), call.one("Message")
    text = f"{call.one('Subject')} {text}" if call.one("Subject") else text  # ours: how a phone shows a subject
    rows = [
        call.row(
            name or "in none of the lists",
            _msisdn(number),
            accepted=name == "PhoneNumbers" or magic.meaning(_msisdn(number)) is Magic.TAKEN_AND_LOST,
            text=text,
            sender=SHORT_CODE,
            ref=ref,
            due=_due(call),
            cost=_price(call) if name == "PhoneNumbers" else FREE,
        )
        for number, name in lists.items()
    ]
    for row in [one for one in rows if one.accepted][:1]:
        row.cost += _price(call) * sum(name == "GlobalOptOuts" for name in lists.values())
        row.data = {"opted_out": [one for one, name in lists.items() if name.endswith("OptOuts")]}
    return rows


def _price(call: _Call) -> Decimal:
    return STANDARD if call.one("MessageTypeID") == "2" else EXPRESS


def _most(call: _Call, numbers: list[str]) -> int:
    """Return 130 for standard, 160 for express, "136 in Canada"; ours: in Canada is who has a number of its."""
    if call.one("MessageTypeID") == "2":
        return 130
    return 136 if any(phone.country(f"+{_msisdn(number)}") == "CA" for number in numbers) else 160


def _length(text: str) -> int:
    r"""Count characters, "\r" and "\n" as two."""
    return len(text) + text.count("\r") + text.count("\n")


def _due(call: _Call) -> float:
    stamp = float(call.one("StampToSend") or 0)
    return stamp if stamp > call.there.now() else AT_ONCE


def _lookup(call: _Call) -> tuple[int, Any, list[Row]]:
    """Carrier Lookup, as the vendor's client reads it: a code for the carrier. Ours: free."""
    number = call.argument
    _check([*call.knows(), *_wrong_number("PhoneNumber", number)])
    _turned_away(call, [number])
    special = magic.meaning(_msisdn(number))
    if special is Magic.GONE:
        raise _Refused(403, _NOTHING)
    carrier = "VERIZONUS" if special is Magic.PORTED else "ATTUS"
    entry = {"PhoneNumber": number, "CarrierName": carrier}
    return 200, {"Entry": entry}, [call.row(carrier, _msisdn(number))]


def _count(call: _Call) -> tuple[int, Any, list[Row]]:
    """A report, as the vendor's client reads it: how many are in each state, and their share."""
    _check(call.knows())
    states = _states(call)
    names = {
        "delivered": "Delivered",
        "bounced": "Bounced",
        "na": "Not Available",
        "no_credits": "Not Sent - No Credits",
        "opted_out": "Not Sent - Opted Out",
    }
    counts = {name: sum(state == told for state in states.values()) for told, name in names.items()}
    entry = {name: {"Count": count, "Percentage": f"{100 * count / len(states):.2f}"} for name, count in counts.items()}
    return 200, {"Entry": entry}, [call.row("200")]


def _details(call: _Call) -> tuple[int, Any, list[Row]]:
    """A detailed report: the numbers in one state, as integers."""
    _check(call.knows("status"))
    wanted = call.one("status")
    if wanted not in {"na", "delivered", "no_credits", "bounced", "opted_out"}:
        raise _Refused(403, f"Status: '{wanted}' is not a status")  # ours
    numbers = [int(number) for number, state in _states(call).items() if state == wanted]
    return 200, {"Entries": numbers}, [call.row("200")]


def _states(call: _Call) -> dict[str, str]:
    """Return the state of each number of a message; ours: what nobody accepted is found nowhere."""
    rows = [row for row in call.there.referred(NAME, call.argument) if row.account == call.customer.name]
    if not rows:
        raise _Refused(403, _NOTHING)
    states = {row.msisdn[1:]: _state(row, call.there.now()) for row in rows}
    return states | {number: "opted_out" for row in rows for number in row.data.get("opted_out", [])}


def _state(row: Row, now: float) -> str:
    special = magic.meaning(row.msisdn)
    if special is Magic.ABSENT or not magic.receipts(row.msisdn) or now < max(row.due, row.at) + REPORTED_AFTER:
        return "na"
    return "bounced" if special is Magic.GONE or magic.undelivered(row.msisdn) else "delivered"


def _keyword_check(call: _Call) -> tuple[int, Any, list[Row]]:
    """Check Keyword Availability; of one that is another's, as the vendor's client expects it, a 403 says so."""
    keyword = call.one("Keyword")
    _check([*call.knows("Keyword"), *_wrong_keyword(keyword)])
    _available(call, keyword)
    entry = {"Keyword": keyword, "Available": True}
    return 200, {"Entry": entry}, [call.row("200", text=keyword.lower())]


def _wrong_keyword(keyword: str) -> Iterator[str]:
    if not keyword:
        yield f"Keyword: {_REQUIRED}"
    elif _BAD_KEYWORD.search(keyword):
        yield _KEYWORD_WORDS


def _available(call: _Call, keyword: str) -> None:
    rented = {one for account in ClubTexting().accounts() for one in _keywords(call, account.name)}
    if keyword.lower() in rented | {TAKEN}:
        raise _Refused(403, f"Keyword: The keyword '{keyword}' is unavailable")


def _keywords(call: _Call, user: str) -> dict[str, dict[str, Any]]:
    account = call.there.account(NAME, user)
    return account.keywords if account else {}


def _keyword_rent(call: _Call) -> tuple[int, Any, list[Row]]:
    """Rent a Keyword: a new keyword has the messages of the sample."""
    keyword = call.one("Keyword")
    _check([*call.knows("Keyword", *_PAYMENT), *_wrong_keyword(keyword), *_wrong_payment(call)])
    _available(call, keyword)
    _pay(call)
    entry = {
        "ID": 100_000_000 + secrets.randbelow(10**8),
        "Keyword": keyword,
        "EnableDoubleOptIn": False,
        "ConfirmMessage": "Reply Y to join",
        "JoinMessage": "Thank you for joining our list",
        "ForwardEmail": "",
        "ForwardUrl": "",
        "ContactGroupIDs": [],
    }
    return 201, {"Entry": entry}, [call.row("201", text=keyword.lower(), ref=str(entry["ID"]), data=entry)]


def _wrong_payment(call: _Call) -> Iterator[str]:
    """Say what is wrong with the card: the stored one, or all twelve fields of another."""
    stored = call.one("StoredCreditCard")
    if stored:
        if call.fields.keys() & (_PAYMENT - {"StoredCreditCard"}):
            yield "StoredCreditCard: Use a stored card or another one"  # ours
        if not re.fullmatch(r"[0-9]{4}", stored):
            yield f"StoredCreditCard: '{stored}' contains an invalid amount of digits"
        elif stored != STORED_CARD or _STORED not in call.customer.grants:
            yield f"StoredCreditCard: '{stored}' was not found"
        return
    for name in _CARD:
        value = call.one(name) or (call.one("ZIP") if name == "Zip" else "")
        form, words = _CARD_FORMS.get(name, (".*", ""))
        if not value:
            yield f"{name}: {_REQUIRED}"
        elif not re.fullmatch(form, value):
            yield f"{name}: '{value}' {words}"


def _pay(call: _Call) -> None:
    if call.one("Number") == DECLINED:
        raise _Refused(403, "Your credit card was declined")  # ours: no text is known


def _keyword_setup(call: _Call) -> tuple[int, Any, list[Row]]:
    """Setup A Keyword: what is given is changed, the rest stays."""
    keyword = call.argument.lower()
    _check([*call.knows(*_SETUP), *_wrong_setup(call)])
    if keyword not in call.customer.keywords:
        raise _Refused(403, _NOTHING)
    changes: dict[str, Any] = {name: call.one(name) for name in call.fields.keys() & (_SETUP - {"ContactGroupIDs[]"})}
    changes |= {name: _FLAGS[value] for name, value in changes.items() if name.startswith("Enable")}
    if groups := call.fields.get("ContactGroupIDs[]"):
        changes["ContactGroupIDs"] = groups
    entry = call.customer.keywords[keyword] | changes
    return 200, {"Entry": entry}, [call.row("200", text=keyword, ref=str(entry["ID"]), data=changes)]


def _wrong_setup(call: _Call) -> Iterator[str]:
    for name in sorted(call.fields.keys() & _SETUP):
        value = call.one(name)
        if name.startswith("Enable") and value not in _FLAGS:
            yield f"{name}: '{value}' is not a boolean"  # ours
        elif name == "ContactGroupIDs[]" and "" in call.fields[name]:
            yield f"ContactGroupIDs: {_REQUIRED}"  # ours
        elif name.endswith(("Message", "Reply")) and not value:
            yield f"{name}: {_REQUIRED}"
        elif name == "ForwardEmail" and value and not _EMAIL.fullmatch(value):
            yield f"ForwardEmail: '{value}' is not a valid email address"
        elif name == "ForwardUrl" and value and not _URI.fullmatch(value):
            yield f"ForwardUrl: '{value}' is not a valid URI"


def _keyword_cancel(call: _Call) -> tuple[int, Any, list[Row]]:
    """Cancel A Keyword: "There are no return values"."""
    _check(call.knows())
    keyword = call.argument.lower()
    if keyword not in call.customer.keywords:
        raise _Refused(403, _NOTHING)
    return 204, None, [call.row("204", text=keyword)]


def _balance(call: _Call) -> tuple[int, Any, list[Row]]:
    """Check Credit Balance; ours: all credits are Anytime credits."""
    _check(call.knows())
    return 200, {"Entry": _credits(call.customer.balance)}, [call.row("200")]


def _credits(balance: Decimal) -> dict[str, Any]:
    return {"PlanCredits": 0, "AnytimeCredits": int(balance), "TotalCredits": int(balance)}


def _buy(call: _Call) -> tuple[int, Any, list[Row]]:
    """Buy Credits, at the price of the sample: 9.45 for 1000, 0.55 off."""
    wanted = call.one("NumberOfCredits")
    _check([*call.knows("NumberOfCredits", "CouponCode", *_PAYMENT), *_wrong_credits(wanted), *_wrong_payment(call)])
    _pay(call)
    bought = Decimal(wanted)
    amount, discount = (float((bought * cents / 100_000).quantize(Decimal("0.01"))) for cents in (945, 55))
    entry = {"BoughtCredits": int(bought), "Amount": amount, "Discount": discount}
    entry |= _credits(call.customer.balance + bought)
    return 201, {"Entry": entry}, [call.row("201", cost=-bought)]


def _wrong_credits(wanted: str) -> Iterator[str]:
    if not wanted:
        yield f"NumberOfCredits: {_REQUIRED}"
    elif not re.fullmatch(r"[0-9]{1,9}", wanted) or not int(wanted):
        yield f"NumberOfCredits: '{wanted}' contains characters which are not digits"


def _routed(method: str, path: str, kind: str, play: Callable[[_Call], tuple[int, Any, list[Row]]]) -> _Route:
    """Return a route; `*` in the path stands for what the call names."""
    return _Route(method, re.compile(path.replace("*", "([^/]+)")), f"{method} {path}", kind, play)


_ROUTES: Final = (
    _routed("POST", "/sending/messages", "send", _send),
    _routed("GET", "/sending/phone-numbers/*", "lookup", _lookup),
    _routed("GET", "/sending/reports/*/", "report", _count),
    _routed("GET", "/sending/reports/*/view-details", "report", _details),
    _routed("GET", "/keywords/new", "keyword.check", _keyword_check),
    _routed("POST", "/keywords", "keyword.rent", _keyword_rent),
    _routed("POST", "/keywords/*", "keyword.setup", _keyword_setup),
    _routed("DELETE", "/keywords/*", "keyword.cancel", _keyword_cancel),
    _routed("GET", "/billing/credits/get", "balance", _balance),
    _routed("POST", "/billing/credits", "credits.buy", _buy),
)


# The answer


def _answer(form: str, code: int, content: Any) -> Answer:
    """Write `Response`; a 204 has no body."""
    if content is None:
        return Answer(status=code, content_type=f"application/{form}")
    status = "Failure" if "Errors" in content else "Success"
    response = {"Status": status, "Code": code, **content}
    if form != "xml":
        return Answer(status=code, body=msgspec.json.encode({"Response": response}))
    body = '<?xml version="1.0" encoding="UTF-8"?>\n' + _xml("Response", response)
    return Answer(status=code, body=body.encode(), content_type="application/xml; charset=utf-8")


def _xml(name: str, value: Any) -> str:
    """Write an element: true is 1, a list's children have names of their own, nothing is `<Name />`."""
    if isinstance(value, dict):
        # Ours: no XML of a report is shown, and its names have blanks and a dash.
        inner = "".join(_xml(re.sub(r"[ -]", "", child), one) for child, one in value.items())
    elif isinstance(value, list):
        inner = "".join(_xml(_CHILDREN.get(name, "Entry"), one) for one in value)
    else:
        inner = escape(str(int(value) if isinstance(value, bool) else value))
    return f"<{name}>{inner}</{name}>" if inner else f"<{name} />"


# Small things


def _account(name: str, balance: str = "1000000", grants: frozenset[str] = frozenset({_ACCESS, _STORED})) -> Account:
    return Account(
        provider=NAME,
        name=name,
        secret="sandbox",  # noqa: S106 - printed in the table above
        balance=Decimal(balance),
        credit=FREE,
        grants=grants,
    )


def _msisdn(number: str) -> str:
    """Return the ten digits of a number in international form; what is none stays as it is."""
    return f"1{number}" if re.fullmatch(r"[0-9]{10}", number) else number


def _ending(msisdn: str) -> int:
    found = _ENDING.fullmatch(msisdn)
    return int(found[1]) if found else 0


def _vendor_time(seconds: float) -> str:
    """Return a moment as the samples write it: 05-16-2011 5:44 PM."""
    at = datetime.fromtimestamp(seconds, UTC).astimezone(_VENDOR_TIME)
    return f"{at:%m-%d-%Y} {at.hour % 12 or 12}:{at:%M %p}"
