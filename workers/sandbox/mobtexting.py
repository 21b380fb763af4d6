"""MobTexting, played by its "API OVERVIEW" and the vendor's documentation source (29-Jul-2024), cited by page.

Accounts, which are told apart by their access token alone:

| token | |
|---|---|
| `sandbox` | may do everything; 1,000,000 credits |
| `broke` | has no credit: 422 |
| `guest` | may only read the balance, else 403 |

Approved senders are ACME, SANDBX and TXTSMS, services for texts T, P, S and G. Of a special number (see
`workers.sandbox.magic`) a message's own row says BLACKLST for blocked, INV-NUMBER for invalid, BARRED for refused,
SERVER-ERR for not sent and FAILED ("Unknown Error") where nobody knows; where a request is turned away it is 429. A
verification has no rows, so that what is wrong with its number is 422, 429 or 500. Webhooks bear the secret `sandbox`.

What the pages leave open is decided here in the plainest way in their style; each such place says "ours". Not played:
that a repeated text is dropped within "x minutes", which nobody says how many are.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from dispatcher.text import BASIC, EXTENSION, segments
from workers.sandbox import magic
from workers.sandbox.base import Answer, Limits, Outgoing, Reply, Request, Texted
from workers.sandbox.magic import Magic
from workers.sandbox.world import AT_ONCE, FREE, Account, Row, World

NAME: Final = "mobtexting"
PREFIX: Final = "/api/v2/"

SEND = "sms/send"
VERIFY = "verify/send"
CHECK = "verify/check"
SEARCH = "verify/search"
LOOKUP = "lookup/verify"
BALANCE = "account/balance"
STATUS = "sms/status"
OPTOUT = "sms/suppressions/unsubscribers"

EVERYTHING: Final = frozenset({SEND, VERIFY, CHECK, SEARCH, LOOKUP, BALANCE, STATUS, OPTOUT})
#: `sms/send` and `sms/send/json` are one action, so that what comes back alone is not there for the first time.
KINDS: Final = {
    SEND: "send",
    VERIFY: "verify",
    CHECK: "verify.check",
    SEARCH: "report",
    LOOKUP: "lookup",
    BALANCE: "balance",
    STATUS: "report",
    OPTOUT: "optout.add",
}

SERVICES: Final = {"T": "Transactional SMS", "P": "Promotional SMS", "S": "TransScrub SMS", "G": "Global SMS"}
SENDERS: Final = frozenset({"ACME", "SANDBX", "TXTSMS"})
#: The webhook's, "sent as a Bearer token".
SECRET: Final = "sandbox"  # noqa: S105 - printed in the text above

#: Ours: the pages show `charges` of 1 for each unit, and for a lookup none.
CREDIT: Final = Decimal(1)
#: Ours: seconds until a text that is on its phone is reported so.
REPORTED_AFTER: Final = 1.0
#: "PULL DLR STATUS": "You will be limited the records 100 per page".
PAGE: Final = 100
#: Ours: no page says how many nodes one request may have.
MOST_NODES: Final = 1000
#: "Verify Request": the defaults and bounds of its payload.
LENGTH, SHORTEST, LONGEST, TIMEOUT = 6, 4, 10, 120

_DIGITS = re.compile(r"[1-9][0-9]{6,14}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_NORMAL = re.compile(f"[^{re.escape(BASIC + EXTENSION)}]")
_TOKEN = "{token}"  # noqa: S105 - the word of the pages for a code's place
_TEMPLATE = f"Your verification code is {_TOKEN}"


class MobTexting:
    """The provider: paths under /api/v2/, each with one verb."""

    name = NAME

    @property
    def limits(self) -> Limits:
        """Return the overview's: "All GET Requests are rate limited to 1000 requests per minute", then 429."""
        return Limits(gets_a_minute=1000, refusal=_error(429, "Too Many Requests"))

    def accounts(self) -> Iterable[Account]:
        """Return the three accounts of the table above."""
        return (
            _account("sandbox", EVERYTHING),
            _account("broke", EVERYTHING, "0"),
            _account("guest", frozenset({BALANCE})),
        )

    def serves(self, path: str) -> bool:
        """Say whether `path` is the API's."""
        return path.startswith(PREFIX)

    def reply(self, request: Request, world: World) -> Reply:
        """Answer a request: as JSON, but for a bad token that comes without `Accept: application/json`."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        # "We provide the ability to set the method through the query parameter _method."
        method = query.get("_method", request.method).upper()
        action, place = _action(request.path.removeprefix(PREFIX))
        account = world.account(NAME, _token(request, query))
        if account is None:
            return Reply(_stranger(request), _refused(action, "", [], "401"))
        fields: dict[str, Any] = {}
        try:
            fields = query if method == "GET" else _fields(request)
            return Reply(*_play(Call(world, account, action, fields, place), method))
        except _Refused as refusal:
            rows = _refused(action, account.name, _named(fields), str(refusal.status))
            return Reply(_error(refusal.status, refusal.words), rows)

    def receipt(self, row: Row) -> Outgoing | None:
        """Return the delivery report of a message ("Webhook"), to the letter: with a comma too many.

        Ours: all of an account's go to one webhook, as a subscription does it. Of a code none is told.
        """
        if row.kind != "send":
            return None
        told = magic.outcome(row)
        status = {"delivered": "DELIVRD", "undelivered": "UNDELIV", "waiting": "AWAITING-DLR"}[told]
        at = max(row.due, row.at)
        fields = {
            "id": row.ref,
            "mobile": row.msisdn,
            "status": status,
            "credits": f"{row.cost:.4f}",
            "units": segments(row.text).count,
            "deliv_time": _written(at + REPORTED_AFTER),
            "sent_time": _written(row.at),
            "submit_time": _written(at),
            "cid": row.own,
            "custom": row.own,
        }
        return _told(msgspec.json.encode(fields).removesuffix(b"}") + b",}")

    def inbound(self, texted: Texted) -> Outgoing:
        """Return `vmn:message:in` ("Message Incoming Notification")."""
        payload = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{texted.sender} {texted.to} {texted.at} {texted.text}")),
            "channels": [{"name": "vmn", "to": texted.to}],
            "recipient": {"from": texted.sender, "user": {"id": texted.sender, "username": None}},
            "message": {"type": "text", "payload": {"text": texted.text}},
        }
        return _told(msgspec.json.encode({"event": "vmn:message:in", "payload": payload}))

    def refused(self, request: Request) -> list[Row]:
        """Return a row without a number."""
        return _refused(_action(request.path.removeprefix(PREFIX))[0], "", [], "429")


class Call(msgspec.Struct, frozen=True):
    """A request that was understood, from an account that was recognised."""

    world: World
    account: Account
    action: str
    fields: dict[str, Any]
    #: What stands behind the action in the path, piece by piece.
    place: tuple[str, ...]

    def row(self, msisdn: str, result: str, *, accepted: bool = True, **more: Any) -> Row:
        """Return the row for one number."""
        return Row(
            provider=NAME,
            action=self.action,
            kind=KINDS[self.action],
            account=self.account.name,
            msisdn=msisdn,
            accepted=accepted,
            result=result,
            **more,
        )

    def text(self, name: str) -> str:
        """Return a field as text; empty where it is absent or no text."""
        return _text(self.fields.get(name))

    def special(self, msisdn: str) -> Magic | None:
        """Return what is special about a number now: some are so the first time only."""
        special = magic.meaning(msisdn)
        once = {Magic.NOT_SENT_ONCE: Magic.NOT_SENT, Magic.AWAY_ONCE: Magic.AWAY}
        if special not in once:
            return special
        return None if self.world.asked(NAME, self.action, msisdn) else once[special]


class _Refused(Exception):
    """The request as a whole is answered by an error."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        self.words = words
        super().__init__(words)


def _invalid(words: str) -> _Refused:
    return _Refused(422, words)


# The request, from outside in


def _token(request: Request, query: dict[str, str]) -> str:
    """Return the token from the header, or "when your application can't send" one, from the query."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind == "Bearer" else query.get("access_token", "")


def _stranger(request: Request) -> Answer:
    """Answer a bad token: as JSON where that was asked for, else by leading a browser to the login page."""
    if "json" in request.headers.get("accept", ""):
        return _error(401, "Unauthenticated.")
    page = f"http://{request.headers.get('host', 'portal.mobtexting.com')}/login"
    body = f'<html><head><title>Redirecting to {page}</title></head><body><a href="{page}">{page}</a></body></html>'
    return Answer(status=302, body=body.encode(), content_type="text/html; charset=UTF-8", headers={"Location": page})


def _action(path: str) -> tuple[str, tuple[str, ...]]:
    """Return the action of a path, and what stands behind it."""
    if path in {"sms/send/json", "finance/balance"}:
        return (SEND, ("json",)) if path == "sms/send/json" else (BALANCE, ())
    for action in (CHECK, SEARCH):
        if path.startswith(f"{action}/"):
            return action, tuple(path.removeprefix(f"{action}/").split("/"))
    return path, ()


def _fields(request: Request) -> dict[str, Any]:
    """Return the body's fields, by its content type; none for what is not of that type."""
    kind = request.headers.get("content-type", "")
    if "x-www-form-urlencoded" in kind:
        return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        told = msgspec.json.decode(request.body or b"{}") if "json" in kind else {}
    except (ValueError, RecursionError):
        raise _Refused(400, "The request is no JSON.") from None
    return told if isinstance(told, dict) else {}


def _play(call: Call, method: str) -> tuple[Answer, list[Row]]:
    if call.action not in _FUNCTIONS:
        raise _Refused(404, "The requested resource was not found.")
    verb, function = _FUNCTIONS[call.action]
    if method != verb:
        raise _Refused(405, f"The {method} method is not supported for this route. Supported methods: {verb}.")
    if call.action not in call.account.grants:
        raise _Refused(403, "You don't have access to the requested resource.")
    return function(call)


# Messages


def _send(call: Call) -> tuple[Answer, list[Row]]:
    """Play "Messaging" and its JSON form: a row of `data` for each number."""
    many = call.place == ("json",)
    messages = _nodes(call) if many else [call.fields]
    group = str(uuid.uuid4())
    rows = [_message(call, message, f"{group}:{at}") for at, message in enumerate(messages, 1)]
    _turn_away(call, [row.msisdn for row in rows])
    _afford(call, rows)
    taken = sum(row.accepted for row in rows)
    told = {"status": 200, "message": f"{taken} numbers accepted for delivery."}
    named = {"group_id": group} if many and _text(_dict(call.fields.get("root")).get("name")) else {}
    return _json(told | named | {"data": [_shown(row, call.world.now()) for row in rows]}), rows


def _nodes(call: Call) -> list[dict[str, Any]]:
    """Return `nodes` over `root`, which "holds the default values for each node"."""
    nodes = call.fields.get("nodes")
    if not isinstance(nodes, list) or not nodes or not all(isinstance(node, dict) for node in nodes):
        raise _invalid("The nodes field is required.")
    if len(nodes) > MOST_NODES:
        raise _invalid(f"The nodes may not have more than {MOST_NODES} items.")
    for name in ("webhook_id", "service", "time"):  # "you can overwite ... except"
        if any(name in node for node in nodes):
            raise _invalid(f"The {name} may not be given in nodes.")
    root = _dict(call.fields.get("root"))
    return [root | node for node in nodes]


def _message(call: Call, fields: dict[str, Any], ref: str) -> Row:
    """Return the row of one message, or refuse the request for what no message may be."""
    to, sender, text = _receiver(fields.get("to")), _text(fields.get("sender")), _text(fields.get("message"))
    service, kind = _text(fields.get("service")), _text(fields.get("type")) or "A"
    if not text.strip():
        raise _invalid("The message field is required.")
    if service not in SERVICES:
        raise _invalid("The selected service is invalid.")
    if sender not in SENDERS:
        raise _invalid(f"The sender is not approved; approved are {', '.join(sorted(SENDERS))}.")
    _check_options(fields, kind)
    # Characters that are not in the list "will be replaced with a question mark (?)" in a text of type normal.
    text = _NORMAL.sub("?", text) if kind == "N" else text
    words = _STOPPED if to in call.account.stopped else _WORDS.get(call.special(to), "AWAITING-DLR")
    taken = words == "AWAITING-DLR"
    return call.row(
        to,
        words,
        accepted=taken or (magic.meaning(to) is Magic.TAKEN_AND_LOST and words != _STOPPED),
        ref=ref,
        own=_text(fields.get("custom")),
        text=text,
        sender=sender,
        cost=CREDIT * segments(text).count if taken else FREE,
        due=_due(fields),
        data={"service": service},
    )


#: What a number's row says in place of AWAITING-DLR.
_WORDS: Final[dict[Magic | None, str]] = {
    Magic.BLOCKED: "BLACKLST",
    Magic.INVALID: "INV-NUMBER",
    Magic.REFUSED: "BARRED",
    Magic.NOT_SENT: "SERVER-ERR",
    Magic.LOST: "FAILED",
    Magic.TAKEN_AND_LOST: "FAILED",
}
_STOPPED: Final = "OPTOUT-REJ"


def _check_options(fields: dict[str, Any], kind: str) -> None:
    if kind not in {"U", "N", "A"}:
        raise _invalid("The selected type is invalid.")
    if str(fields.get("flash", 0)) not in {"0", "1"}:
        raise _invalid("The flash field must be 0 or 1.")
    for name in ("max_units", "port"):
        if name in fields and not str(fields[name]).isdecimal():
            raise _invalid(f"The {name} must be an integer.")


def _receiver(value: Any, name: str = "to") -> str:
    """Return a number in "E.164 format": without a plus, spaces or brackets, or refuse the request."""
    number = _text(value)
    if not number:
        raise _invalid(f"The {name} field is required.")
    if not _DIGITS.fullmatch(number):
        raise _invalid(f"The {name} format is invalid.")
    return number


def _due(fields: dict[str, Any]) -> float:
    """Return when a text is to be sent, 0 for at once; ours: a time has no zone, so it is UTC."""
    written = fields.get("time")
    if not written:  # the page's own sample has an empty one
        return AT_ONCE
    try:
        if _TIME.fullmatch(str(written)):
            return datetime.strptime(str(written), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    raise _invalid("The time does not match the format Y-m-d H:i:s.")


def _turn_away(call: Call, numbers: Sequence[str]) -> None:
    if any(call.special(number) is Magic.AWAY for number in numbers):
        raise _Refused(429, "Too Many Requests")


def _afford(call: Call, rows: Sequence[Row]) -> None:
    """Refuse the whole request where the account can't pay for it; ours: "no balance" is 4xx, its words not printed."""
    if sum(row.cost for row in rows) > call.account.available:
        raise _invalid("Insufficient credits.")


def _shown(row: Row, now: float) -> dict[str, Any]:
    """Return a message as its sending is answered."""
    return {
        "id": row.ref,
        "mobile": row.msisdn,
        "status": row.result,
        "units": segments(row.text).count,
        "length": segments(row.text).characters,
        "charges": int(row.cost),
        "customid": row.own,
        "iso_code": None,
        "submitted_at": _written(now),
    }


def _status(call: Call) -> tuple[Answer, list[Row]]:
    """Play "PULL DLR STATUS": by id, by our reference, or by number and date. Ours: what was not taken is not kept."""
    asked = {name: call.text(name) for name in ("id", "cid", "mobile", "date", "group_id")}
    if not any(asked.values()):
        raise _invalid("One of id, mobile, cid, date, group_id is required.")
    key = asked["id"] or asked["cid"]
    kept = call.world.referred(NAME, key) if key else call.world.rows()
    found = [row for row in kept if _is_asked(row, asked, call.account)]
    page = int(call.text("page") or 1) if (call.text("page") or "1").isdecimal() else 1
    data = [_followed(row, call.world.now()) for row in found[(page - 1) * PAGE : page * PAGE]]
    told: dict[str, Any] = {"status": "OK", "code": 200, "message": "OK", "data": data}
    if asked["group_id"] or asked["date"]:
        last = max(1, -(-len(found) // PAGE))
        told["meta"] = {"current_page": page, "last_page": last, "per_page": PAGE, "total": len(found)}
    return _json(told), [call.row("", "200")]


def _is_asked(row: Row, asked: dict[str, str], account: Account) -> bool:
    is_ours = row.kind == "send" and row.accepted and row.provider == NAME and row.account == account.name
    return is_ours and all(
        (
            asked["id"] in {"", row.ref},
            asked["cid"] in {"", row.own},
            asked["mobile"] in {"", row.msisdn},
            _written(row.at).startswith(asked["date"]),
            row.ref.startswith(asked["group_id"]),
        )
    )


def _followed(row: Row, now: float) -> dict[str, Any]:
    """Return a message as a report shows it: on its way until it is on the phone."""
    arrived = max(row.due, row.at) + REPORTED_AFTER
    done = {"delivered": "DELIVRD", "undelivered": "UNDELIV", "waiting": "AWAITING-DLR"}[magic.outcome(row)]
    return {
        "id": row.ref,
        "mobile": row.msisdn,
        "status": done if now >= arrived else "AWAITING-DLR",
        "units": segments(row.text).count,
        "service": row.data.get("service", ""),
        "length": segments(row.text).characters,
        "charges": int(row.cost),
        "custom": row.own,
        "custom1": "",
        "submitted_at": _written(row.at),
        "delivered_at": _written(arrived) if now >= arrived and done == "DELIVRD" else "",
        "sender": row.sender,
    }


# Verifications


def _verify(call: Call) -> tuple[Answer, list[Row]]:
    """Play "Verify Request": no envelope; the code is the provider's secret."""
    channel = _channel(call)
    to = _receiver(_dict(channel.get("recipient")).get("to"), "recipient.to")
    payload = _dict(call.fields.get("payload"))
    length, timeout = _whole(payload, "length", LENGTH), _whole(payload, "timeout", TIMEOUT)
    if not SHORTEST <= length <= LONGEST or timeout < 1:
        raise _invalid(f"The length must be between {SHORTEST} and {LONGEST}, the timeout positive.")
    template = _text(call.fields.get("template")) or _TEMPLATE
    if _TOKEN not in template:
        raise _invalid("The template has no {token}.")  # ours
    sender = _text(channel.get("from")) or "VERIFY"
    if sender not in {*SENDERS, "VERIFY"}:
        raise _invalid("The selected from is invalid.")
    code = _made(payload, to, length)
    _turn_away(call, [to])
    _check_person(call, to)
    now = call.world.now()
    row = call.row(
        to,
        "sent",
        ref=str(uuid.uuid4()),
        own=_text(call.fields.get("foreign_id")),
        text=template.replace(_TOKEN, code),
        sender=sender,
        code=code,
        cost=CREDIT * segments(template.replace(_TOKEN, code)).count,
        data={"expires": now + timeout},
    )
    _afford(call, [row])
    if magic.meaning(to) is Magic.TAKEN_AND_LOST:
        row.cost = FREE
        return _error(500, _OUR_END), [row]
    return _json(
        {
            "id": row.ref,
            "status": "sent",
            "foreign_id": row.own or None,
            "created_at": _written(now),
            "expire_at": _written(now + timeout),
        }
    ), [row]


def _channel(call: Call) -> dict[str, Any]:
    """Return the first channel in order. Ours: an account of the sandbox has text messages and no other."""
    channels = call.fields.get("channels")
    if not isinstance(channels, list) or not channels:
        raise _invalid("The channels field is required.")
    if any(_dict(one).get("name") != "sms" for one in channels):
        raise _invalid("The selected channel is not configured.")
    return _dict(channels[0])


def _made(payload: dict[str, Any], to: str, length: int) -> str:
    """Return the code: the customer's `token` where there is one, which has to be of that length."""
    token = _text(payload.get("token"))
    if token and len(token) != length:
        raise _invalid("The token length must be equal to the length.")
    if magic.meaning(to) is Magic.KNOWN_CODE and length == len(magic.KNOWN_CODE):
        return magic.KNOWN_CODE
    return token or f"{secrets.randbelow(10**length):0{length}}"


#: "Something went wrong on our end. Please try again".
_OUR_END: Final = "Something went wrong on our end. Please try again"


def _check_person(call: Call, to: str) -> None:
    """Refuse a code for a number that can have none. Ours: no page has words for it."""
    special = call.special(to)
    if special is Magic.BLOCKED or to in call.account.stopped:
        raise _invalid("The receiver is unsubscribed.")
    if special in {Magic.INVALID, Magic.REFUSED}:
        raise _invalid("The recipient.to is invalid.")
    if special is Magic.NOT_SENT:
        raise _Refused(429, "Too Many Requests")
    if special is Magic.LOST:
        raise _Refused(500, _OUR_END)


def _verification(call: Call) -> tuple[Row | None, bool]:
    """Return the verification that the path names, if it is the account's, and whether it succeeded."""
    rows = call.world.referred(NAME, call.place[0])
    mine = [row for row in rows if row.account == call.account.name]
    found = next((row for row in mine if row.kind == "verify" and row.ref == call.place[0]), None)
    return found, any(row.kind == "verify.check" and row.result == "success" for row in mine)


def _check(call: Call) -> tuple[Answer, list[Row]]:
    """Play "Validate Token": always 200, and "can only be performed once for each token"."""
    if len(call.place) != 2:  # noqa: PLR2004 - id and token
        raise _Refused(404, "The requested resource was not found.")
    verification, done = _verification(call)
    if verification is None:
        status = "failed"
    elif done:
        status = "OTP already verified"
    elif call.world.now() >= verification.data["expires"]:
        status = "expired"
    else:
        status = "success" if call.place[1] == verification.code else "invalid"
    row = call.row(verification.msisdn if verification else "", status, ref=verification.ref if verification else "")
    return _json({"id": call.place[0], "status": status}), [row]


def _search(call: Call) -> tuple[Answer, list[Row]]:
    """Play "Search Token"; ours: a channel's status is a message's, and the page's example of one that failed."""
    verification, done = _verification(call)
    if verification is None:
        return _json({"id": call.place[0], "status": "failed"}), [call.row("", "failed")]
    followed = _followed(verification, call.world.now())["status"]
    status = {"DELIVRD": "delivered", "UNDELIV": "failed"}.get(followed, "sent")
    channel = {"id": verification.ref, "channel": "sms", "to": verification.msisdn, "from": verification.sender}
    told = {
        "id": verification.ref,
        "to": verification.msisdn,
        "reference": verification.own or None,
        "status": "success" if done else "sent",
        "created_at": _written(verification.at),
        "expire_at": _written(verification.data["expires"]),
        "channels": [channel | {"event_id": f"{verification.ref}:1", "status": status}],
    }
    return _json(told), [call.row("", "200")]


# The other functions


def _lookup(call: Call) -> tuple[Answer, list[Row]]:
    """Play "Verify HLR of mobile numbers"."""
    number = _receiver(call.fields.get("to"))
    special = call.special(number)
    if special is Magic.INVALID:
        raise _invalid("The to format is invalid.")
    _turn_away(call, [number])
    status = _FOUND.get(special, "SUCCESS")
    row = call.row(number, status, cost=CREDIT)
    _afford(call, [row])
    told = {"status": 200, "message": "Verified Successfully", "data": [_home(number, status, special)]}
    return _json(told), [row]


#: Ours: the page shows SUCCESS only.
_FOUND: Final[dict[Magic | None, str]] = {Magic.GONE: "INVALID-SUB", Magic.ABSENT: "ABSENT-SUB"}

#: By the first digits of a number; ours, as are the networks, which are made up.
_HOMES: Final = {
    "1": ("1", "United States", "Sandbox Wireless", "310999"),
    "33": ("33", "France", "Sandbox France", "20899"),
    "44": ("44", "United Kingdom", "Sandbox UK", "23499"),
}


def _home(number: str, status: str, special: Magic | None) -> dict[str, Any]:
    """Return what is found about a phone, in the fields of the page's example."""
    code, country, network, mcc_mnc = next(
        (home for prefix, home in _HOMES.items() if number.startswith(prefix)),
        ("", "Sandbox", "Sandbox Mobile", "99999"),
    )
    ported, roaming = special is Magic.PORTED, special is Magic.ROAMING
    return {
        "phone": number,
        "mcc_mnc": mcc_mnc,
        "imsi": f"{mcc_mnc}0000000000"[:15],
        "serving_msc": f"{code}0000000",
        "status": status,
        "original_network": {
            "network_prefix": number[len(code) : len(code) + 4],
            "country_prefix": code,
            "network_name": network,
            "country_name": country,
            "state_name": None,
        },
        "ported": ported,
        "ported_network": {
            "ported_network_prefix": None,
            "ported_country_prefix": code if ported else None,
            "ported_network_name": "Sandbox Mobile" if ported else None,
            "ported_country_name": country if ported else None,
            "ported_state_name": None,
        },
        "roaming": roaming,
        "roaming_network": {
            "roaming_network_prefix": None,
            "roaming_country_prefix": "33" if roaming else None,
            "roaming_network_name": "Sandbox France" if roaming else None,
            "roaming_country_name": "France" if roaming else None,
            "roaming_state_name": None,
        },
    }


def _balance(call: Call) -> tuple[Answer, list[Row]]:
    """Return a row for each service. Ours: one purse stands behind all four of them."""
    credits_ = int(call.account.balance)
    rows = [
        {"service": code, "name": name, "postpaid": 0, "credits": credits_, "charges": 1}
        for code, name in SERVICES.items()
    ]
    return _json({"status": 200, "message": "OK", "data": rows}), [call.row("", "200")]


def _optout(call: Call) -> tuple[Answer, list[Row]]:
    """Play "Create Unsubscriber". Ours: whatever the type, nothing more is sent to the receiver."""
    receiver, kind = _receiver(call.fields.get("receiver"), "receiver"), call.text("type") or "all"
    if kind not in {"tag", "product", "sender", "service", "all"}:
        raise _invalid("The selected type is invalid.")
    if kind != "all" and not call.text("value"):
        raise _invalid("The value field is required.")
    now = datetime.fromtimestamp(call.world.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    data = {"receiver": receiver, "type": kind, "value": call.text("value"), "created_at": now}
    told = {"id": str(uuid.uuid4()), "iso": None} | data
    answer = {"status": "OK", "code": 200, "message": "Receiver added successfully", "data": told}
    return _json(answer), [call.row(receiver, "200")]


_FUNCTIONS: Final[dict[str, tuple[str, Callable[[Call], tuple[Answer, list[Row]]]]]] = {
    SEND: ("POST", _send),
    VERIFY: ("POST", _verify),
    CHECK: ("GET", _check),
    SEARCH: ("GET", _search),
    LOOKUP: ("POST", _lookup),
    BALANCE: ("GET", _balance),
    STATUS: ("GET", _status),
    OPTOUT: ("POST", _optout),
}


# Small things


def _account(token: str, grants: frozenset[str], balance: str = "1000000") -> Account:
    return Account(provider=NAME, name=token, secret=token, balance=Decimal(balance), credit=FREE, grants=grants)


def _json(told: Any) -> Answer:
    return Answer(body=msgspec.json.encode(told), content_type="application/json")


def _error(status: int, words: str) -> Answer:
    """Return an error: "the body of the response includes a JSON formatted response"."""
    told = {"status": "ERROR", "code": status, "message": words}
    return Answer(status=HTTPStatus(status), body=msgspec.json.encode(told), content_type="application/json")


def _told(body: bytes) -> Outgoing:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {SECRET}"}
    return Outgoing(headers=headers, body=body)


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(fields: dict[str, Any], name: str, otherwise: int) -> int:
    value = _text(fields.get(name, otherwise))
    if not (value.isascii() and value.isdecimal() and len(value) < len("1000000")):
        raise _invalid(f"The {name} must be an integer.")
    return int(value)


def _written(at: float) -> str:
    """Return a moment as the pages write it; ours: the zone, which they don't name, is UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _named(fields: dict[str, Any]) -> list[str]:
    """Return every number that a request names, for the ledger, whatever is wrong with the rest."""
    nodes, channels = fields.get("nodes"), fields.get("channels")
    named = [fields.get("to"), fields.get("receiver")]
    named += [_dict(one).get("to") for one in (nodes if isinstance(nodes, list) else [])]
    listed = channels if isinstance(channels, list) else []
    named += [_dict(_dict(one).get("recipient")).get("to") for one in listed]
    return [number for one in named if (number := _text(one))]


def _refused(action: str, account: str, numbers: Sequence[str], result: str) -> list[Row]:
    """Return a row for each number of a request that was refused as a whole, or one where it names none."""
    return [
        Row(
            provider=NAME,
            action=action if action in KINDS else "other",
            kind=KINDS.get(action, ""),
            account=account,
            msisdn=number,
            accepted=False,
            result=result,
        )
        for number in numbers or [""]
    ]
