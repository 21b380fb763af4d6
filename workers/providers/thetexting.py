"""TheTexting: one envelope for every call, whose `Status` decides and whose `Response` changes its type.

Source: the vendor's pages under thetexting.com/developers/Documentation, cited by their names (SendMessage, NumberBuy,
...). What they leave open is marked *inferred*: HTTP codes, the fields of the delivery callback, all words of a
message's status but "Sent" and "Rejected", the zone of every time, the path of NumberLookup. NumberBuy says "All
requests are submitted through the HTTP POST or GET method", the pages of the reads "This API call uses GET method":
that they take a POST as well is *inferred*, since a GET carries the secret in its URL; `READ_METHOD` has the way out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from dispatcher import phone
from dispatcher.jobs import Lookup, Send, Verify, Work, moment
from dispatcher.lookups import LINE_TYPES, UNKNOWN, Facts, Truth
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from dispatcher.text import segments
from workers.providers import arguments, xml
from workers.providers.answers import (
    bare,
    decimal,
    document,
    invalid,
    is_absent,
    known_truth,
    lost,
    mapping,
    network,
    number,
    text,
    truth,
    whole,
)
from workers.providers.arguments import extra, matching, needed
from workers.providers.base import (
    Adapter,
    Callback,
    Capabilities,
    Group,
    Inbound,
    News,
    Operation,
    Plan,
    Receipt,
    Request,
    Response,
    Told,
    by_status,
    costed,
    given,
    posted_form,
    refused_after,
    refused_before,
    setting,
)

if TYPE_CHECKING:
    from xml.etree import ElementTree as ET

#: What `serving_msc` looks like: the number of an exchange, with its country's code.
_EXCHANGE: Final = re.compile(r"\+?[1-9][0-9]{3,14}")

#: SendMessage: "with a maximum length of 3200 characters".
_LONGEST: Final = 3200

#: A number that is rented here, as a text that came to it names it.
_OWN: Final = re.compile(r"\+?[1-9][0-9]{6,14}")

#: The "Respond Codes" of every page, with the kind that a call which changes something ends as.
_OK: Final = 0
_EMPTY: Final = 5
_CODES: Final[Mapping[int, tuple[FailureKind, str]]] = {
    # The catch-all: no money, a blocked number and a fault after the text went out are not told apart.
    1: (FailureKind.AMBIGUOUS, "Request has failed."),
    2: (FailureKind.INVALID, "Parameters are missing."),
    3: (FailureKind.UNAUTHORIZED, "Credentials are invalid."),
    4: (FailureKind.INVALID, "Parameters are invalid."),
    _EMPTY: (FailureKind.INVALID, "Result has returned empty."),
    6: (FailureKind.INVALID, "Status is invalid."),
}

#: A message's `status`, in small letters. SearchMessage shows "Sent", SearchRejections "Rejected"; the others are
#: *inferred*. "Sent", and what is not known, decides nothing.
_STATES: Final[Mapping[str, tuple[State, FailureKind | None]]] = {
    "delivered": (State.DELIVERED, None),
    "rejected": (State.UNDELIVERED, FailureKind.REJECTED),
    "failed": (State.UNDELIVERED, FailureKind.NOT_SENT),
    "undelivered": (State.UNDELIVERED, FailureKind.NOT_SENT),
}

_MESSAGES: Final = frozenset({"send", "verify"})
#: Purchases, with what the account's list of numbers says once they are done.
_PURCHASES: Final[Mapping[str, bool]] = {"number.buy": True, "number.cancel": False}

#: Call by call, the path after the format, in the case that the pages show. NumberLookup shows no sample: *inferred*.
_PATHS: Final[Mapping[str, str]] = {
    "send": "Message/Send",
    "verify": "Message/Send",
    "lookup": "number/lookup",
    "balance": "account/getbalance",
    "number.search": "number/search",
    "number.buy": "number/buy",
    "number.cancel": "number/cancel",
    "number.list": "account/numbers",
}
#: SearchMessage for one id, SearchMessages for several, and for a number and a day.
_ONE_REPORT: Final = "search/message"
_REPORTS: Final = "search/messages"

#: How a lost answer to a text is cleared up.
_BY_DAY: Final = (
    "report by number and day: no text on any day it may have gone out is strong, a text of the same day is no proof"
)
#: How one to a purchase is.
_BY_LIST: Final = "number.list before and after: whether the number came or went is strong"
#: Messages that one search by id asks for: ours, the page names no limit.
_IDS: Final = 50
#: Seconds until an absence counts, for operations and for messages.
_SETTLED: Final = 60.0
_SETTLED_MESSAGES: Final = 600.0
#: How far the vendor's unstated zone may be from UTC: the world's extremes.
_WEST: Final = timedelta(hours=12)
_EAST: Final = timedelta(hours=14)
#: Days that a text which waited long is looked for on; one that waited longer stays unknown. Ours.
_DAYS: Final = 10
_DAY: Final = "%m-%d-%Y"

#: Characters of a vendor's word that are quoted.
_QUOTED: Final = 40

_DIGITS: Final = matching("[0-9]{1,15}", "digits only")


def _country(value: Any) -> str:
    return matching("[A-Za-z]{2}", "two letters, such as US")(value).upper()


class TheTexting(Adapter):
    """One TheTexting account."""

    name = "thetexting"
    base_url = "https://www.thetexting.com"
    required = ("api_key", "api_secret")
    #: `sender` is what `from` is where a message names none; a trial account may do without. `format` is json or xml.
    #: `read_method` is post, or get should the vendor refuse that: then secrets and numbers are in the reads' URLs.
    optional = ("sender", "format", "read_method")
    sandbox: ClassVar[Mapping[str, str]] = {"api_key": "sandbox", "api_secret": "sandbox"}
    capabilities = Capabilities(receipts="push and poll", inbound=True, verification="ours", max_characters=_LONGEST)
    operations: ClassVar[Mapping[str, Operation]] = {
        "send": Operation(about="Send one text to one number (SendMessage).", paid=True, evidence=_BY_DAY),
        "verify": Operation(about="Send a code of ours as a text (SendMessage).", paid=True, evidence=_BY_DAY),
        # No page names a price; *inferred* to be charged: a lost answer costs one charge more, and no further one.
        "lookup": Operation(
            about="Ask for a number's status and carrier (NumberLookup).", source="inferred", repeat="once", paid=True
        ),
        "balance": Operation(about="Read the money left (AccountBalance).", repeat="always"),
        "number.search": Operation(
            about="Find numbers that can be bought (NumberSearch).",
            arguments={
                # NumberSearch: "A two letter country code. Ex: US (for USA)".
                "country_code": needed("the country, two letters such as US", _country),
                "area_code": extra("an area code in it, such as 310", _DIGITS),
                "pattern": extra("the digits a number begins with, or 3 or 4 that are in it", _DIGITS),
            },
            repeat="always",
        ),
        "number.buy": Operation(
            about="Buy a number to send from and to be texted on (NumberBuy).",
            arguments={"number": needed("the number, as number.search names it", arguments.number)},
            paid=True,
            evidence=_BY_LIST,
        ),
        # Not repeated: the second time is refused as any other number that is not the account's.
        "number.cancel": Operation(
            about="Give a number back (NumberCancel).",
            arguments={"number": needed("a number of the account", arguments.number)},
            evidence=_BY_LIST,
        ),
        "number.list": Operation(about="List the account's numbers (AccountNumber).", repeat="always"),
        "report": Operation(
            about="Read what became of sent texts, by id or by number and day (SearchMessage, SearchMessages).",
            arguments={
                "message_id": extra("the id of one text", arguments.word),
                "number": extra("whom it went to, together with message_sent_date", arguments.number),
                "message_sent_date": extra(
                    "the day it was sent, MM-DD-YYYY in the vendor's own time",
                    arguments.moment(_DAY, "11-30-2026 (month, day, year)"),
                ),
            },
            repeat="always",
        ),
    }
    unsupported: ClassVar[Mapping[str, str]] = {
        "number.update": "where a number's inbound texts are told is set once, in the vendor's dashboard",
        "settings": "the call can change the API secret, and answers it in clear",
        "pricing": "the answer to each send names its price",
        "rejections": "they are found by day alone; report finds a rejected text by its id",
        "sender.create": "a person at the vendor approves it: ask for it once, in the dashboard",
        "optout.add": "TheTexting has no call for it; numbers are kept from being texted here",
        "inbound.search": "TheTexting tells of inbound texts by its callback only",
    }

    def __init__(self, account: str, settings: Mapping[str, str]) -> None:
        """Read the account's settings; raises `ConfigurationError` for a `format` or `read_method` that is none."""
        super().__init__(account, settings)
        self._format = self.choice("format", "json", "xml")
        self._read_method = self.choice("read_method", "post", "get")

    def validate(self, job: Work) -> Failure | None:
        """Refuse, beside the usual, a text that is too long and a report that says too little or too much."""
        refused = super().validate(job)
        if refused is not None:
            return refused
        if len(job.text) > _LONGEST:
            return invalid("text", f"the text has {len(job.text)} characters, TheTexting takes {_LONGEST}; shorten it")
        return _check_report(given(job)) if job.operation == "report" else None

    def build(self, jobs: Sequence[Work]) -> Plan:
        """Make a request of each job: SendMessage takes "one recipient per request", and so does every other call."""
        return self.planned(jobs, lambda alone: self._request(alone[0]))

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read the envelope, in JSON or XML, as the outcome of the group's only job."""
        (job,) = group.jobs
        told = self._told(response, job.operation)
        return {job.id: told if isinstance(told, Failure) else _RESULTS[job.operation](told, job)}

    def before(self, job: Work) -> Request | None:
        """Read the account's numbers before one is bought or given back."""
        return self._read("number.list") if job.operation in _PURCHASES else None

    def remember(self, response: Response, job: Work) -> str | Failure:
        """Remember whether the account held the number."""
        told = self._told(response, "number.list")
        if isinstance(told, Failure):
            return refused_before(told) or ""
        held = _held(told)
        return "" if held is None else _HELD[arguments.number(job.to) in held]

    def inquire(self, jobs: Sequence[Work]) -> tuple[Group, ...]:
        """Ask for texts by id, many at a time; for those without by number and day; and for the account's numbers.

        A text without an id may have gone out on one of two or three days: it is in a group for each, and surely did
        not go out only where all of them say so.
        """
        known = [job for job in jobs if job.operation in _MESSAGES and job.ref]
        groups = [self._by_id(tuple(known[first : first + _IDS])) for first in range(0, len(known), _IDS)]
        for job in jobs:
            if job.operation in _MESSAGES and not job.ref and job.state == State.UNKNOWN:
                groups += [self._by_day(job, day) for day in _days_to_ask(job)]
        purchases = tuple(job for job in jobs if job.operation in _PURCHASES and job.state == State.UNKNOWN)
        if purchases:
            groups.append(costed(self._read("number.list"), purchases, "number.list"))
        return tuple(groups)

    def news(self, response: Response, group: Group) -> dict[str, News] | Failure:
        """Read what such a question was answered."""
        of_purchases = group.jobs[0].operation in _PURCHASES
        told = self._told(response, "number.list" if of_purchases else "report")
        if isinstance(told, Failure):
            return refused_after(told) or {}
        if of_purchases:
            held = _held(told)
            news = {job.id: _of_purchase(held, job) for job in group.jobs}
        elif group.jobs[0].ref:
            rows = {text(row.get("message_id")): row for row in _rows(told) or ()}
            news = {job.id: _of_message(rows.get(job.ref), job) for job in group.jobs}
        else:
            news = {job.id: _of_day(_rows(told), _day_of(group.request), job) for job in group.jobs}
        return {id_: one for id_, one in news.items() if one is not None}

    def read(self, callback: Callback) -> tuple[Told, ...]:
        """Read a delivery callback, or else an inbound text.

        NumberBuy, "Callback Response": the table says From, To, Text, Date-time and Cost, the sample URL from, to,
        text, datetime and cost. That a delivery callback has `message_id` and `status` is *inferred*, from the rest of
        the API. Neither has a signature.
        """
        told = callback.fields()
        if ref := told.get("messageid", "").strip():
            return (Receipt(news=_by_word(told["status"]), ref=ref),) if told.get("status", "").strip() else ()
        if not (sender := told.get("from", "").strip()) or "text" not in told:
            return ()
        at = told.get("datetime", "").strip()
        return (Inbound(sender=_e164(sender), to=told.get("to", "").strip(), text=told["text"], at=at),)

    def answers_from(self, told: Inbound) -> str:
        """Return the number of ours that a text came to: SendSMS, `from` is "a number you own"."""
        return told.to if _OWN.fullmatch(told.to) else ""

    # -- requests -----------------------------------------------------------------------------------------------------

    def _by_id(self, jobs: tuple[Work, ...]) -> Group:
        """SearchMessages: "A list of message ids e.g: message_id=123&message_id=124"."""
        ids = [*dict.fromkeys(job.ref for job in jobs)]
        return costed(self._read("report", _REPORTS, message_id=ids), jobs, "report")

    def _by_day(self, job: Work, day: str) -> Group:
        return costed(self._read("report", _REPORTS, to=bare(job.to), message_sent_date=day), (job,), "report")

    def _request(self, job: Work) -> Request:
        """Return the request, page by page."""
        told, request = self.arguments(job), job.request
        if isinstance(request, Send | Verify):
            # "required when sending a Unicode message"; GSM-7 is what it calls text.
            unicode = segments(job.text).encoding == "UCS-2"
            origin = bare(request.sender or self.settings.get("sender", ""))
            fields = {"from": origin, "to": bare(job.to), "text": job.text, "type": "unicode" if unicode else ""}
            return self._post(_PATHS[job.operation], {name: value for name, value in fields.items() if value})
        if isinstance(request, Lookup):
            return self._read("lookup", to=bare(job.to))
        if job.operation in _PURCHASES:
            return self._post(_PATHS[job.operation], {"number": bare(told["number"])})
        if "message_id" in told:
            return self._read("report", _ONE_REPORT, **told)
        if job.operation == "report":
            return self._read("report", _REPORTS, to=bare(told.pop("number")), **told)
        # The pattern of a search is its `number`.
        return self._read(job.operation, **{"number" if name == "pattern" else name: one for name, one in told.items()})

    def _read(self, operation: str, path: str = "", **fields: str | list[str]) -> Request:
        """Return the request of a read: a POST, or the GET that its page names, with everything in the URL."""
        post = self._post(path or _PATHS[operation], fields)
        if self._read_method == "post":
            return post
        return Request(method="GET", url=f"{post.url}?{post.body.decode()}")

    def _post(self, path: str, fields: Mapping[str, str | list[str]]) -> Request:
        credentials = {name: self.settings[name] for name in self.required}
        return posted_form(f"{self.origin}/rest/sms/{self._format}/{path}", {**credentials, **fields})

    def number_facts(self, raw: Mapping[str, Any], number: str) -> Facts:
        """NumberLookup: country, type ("fixed line", "mobile" or "voip"), `original_carrier`, `is_ported`, `mccmnc`.

        Of the carrier after a port it has no name, and no `mccmnc` in the United States and Canada. *Inferred*:
        `mccmnc` are the first digits of `imsi`, which is the network's that serves the number now (ITU-T E.212);
        `serving_msc`, an exchange's number, abroad is roaming; that there was no error does not say that the phone is
        there, and "Absent Subscriber" that it is not.
        """
        country, ported = text(raw.get("phone_number_iso2_code")).upper(), known_truth(raw.get("is_ported"))
        kind = text(raw.get("phone_number_type")).lower().replace(" ", "_")
        carrier, codes = mapping(raw.get("original_carrier")), raw.get("mccmnc")
        words = (
            carrier.get("carrier_name"),
            carrier.get("carrier_country_name"),
            carrier.get("carrier_country_prefix"),
        )
        original = network(*words, codes if ported is False else "")
        return Facts(
            country=country if phone.is_country(country) else UNKNOWN,
            line_type=kind if kind in LINE_TYPES else UNKNOWN,
            original_network=original,
            current_network=original if ported is False else network("", mccmnc=codes),
            ported=ported,
            roaming=_is_abroad(text(raw.get("serving_msc")), number),
            reachable=False if is_absent(text(raw.get("lookup_status"))) else UNKNOWN,
        )

    # -- answers ------------------------------------------------------------------------------------------------------

    def _told(self, response: Response, operation: str) -> _Told | Failure:
        """Return the envelope of a good answer, or what went wrong."""
        repeat = self.operations[operation].repeat
        # A lookup that "has failed" may have been paid: it is no read that may be made again and again.
        read = repeat == "always"
        told = _envelope(response.body)
        if told is None and repeat != "never" and response.status == HTTPStatus.METHOD_NOT_ALLOWED:
            return self._other_method()
        if told is None or (told.status != _OK and response.status == HTTPStatus.TOO_MANY_REQUESTS):
            return by_status(response, read=read)
        empty = told.status == _EMPTY and operation in _MAY_BE_EMPTY
        return told if told.status == _OK or empty else _failure(told, read=read)

    def _other_method(self) -> Failure:
        verb, other = ("POST", "get") if self._read_method == "post" else ("GET", "post")
        message = f"TheTexting takes no {verb} here; set {setting(self.account, 'read_method')}={other}"
        return Failure(kind=FailureKind.NOT_SENT, code="405", message=message)


# -- requests ----------------------------------------------------------------------------------------------------------


def _check_report(arguments: Mapping[str, Any]) -> Failure | None:
    given = {*arguments}
    if given in ({"message_id"}, {"number", "message_sent_date"}):
        return None
    code = next((one for one in ("number", "message_sent_date") if given == {one}), "message_id")
    return invalid(code, "say either message_id alone, or number together with message_sent_date")


def _day_of(request: Request) -> str:
    """Return the day that a search asked for, in its form or its URL."""
    return parse_qs(request.body.decode() or urlsplit(request.url).query)["message_sent_date"][0]


# -- answers -----------------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    """The envelope of every answer: `Status`, `Response` and `ErrorMessage`."""

    status: int
    content: Any
    words: str


def _envelope(body: bytes) -> _Told | None:
    """Read an answer in either format, whichever was asked for; None where it is not in the vendor's words.

    XML has the three in another order, an empty error as `<ErrorMessage/>` or `<ErrorMessage></ErrorMessage>`, and
    what JSON calls null as `i:nil="true"`.
    """
    told = document(body)
    if told is None and (root := xml.read(body)) is not None:
        told = xml.value(root, _is_list)
    envelope = _fields(told)
    status = whole(envelope.get("status"))
    return None if status is None else _Told(status, envelope.get("response"), text(envelope.get("errormessage")))


def _is_list(element: ET.Element) -> bool:
    """A list is an element whose children have all the same name and children of their own."""
    return len(element) > 0 and len({xml.name(one) for one in element}) == 1 and all(len(one) for one in element)


def _fields(value: Any) -> dict[str, Any]:
    """Return an object's fields, names in small letters: one object spells `message_id`, `From` and `To`."""
    return {name.lower(): one for name, one in value.items()} if isinstance(value, dict) else {}


def _e164(value: Any, region: Any = "") -> str:
    """Return a number in E.164, or as it was written where it is none, such as a short code.

    AccountNumber's JSON sample has one without its country's code, and the country (`"US "`) beside it.
    """
    return number(value, text(region)) or text(value)


def _failure(told: _Told, *, read: bool) -> Failure:
    """Judge a `Status`; of a read that "has failed" nothing is in doubt."""
    kind, meaning = _CODES.get(told.status, (FailureKind.AMBIGUOUS, f"TheTexting answered Status {told.status}"))
    if read and kind == FailureKind.AMBIGUOUS:
        kind = FailureKind.NOT_SENT
    return Failure(kind=kind, code=str(told.status), message=told.words or meaning)


# -- results -----------------------------------------------------------------------------------------------------------


def _sent(told: _Told, _job: Work) -> Outcome:
    """SendMessage: `{"message_id": "10011", "message_count": 1, "price": 0.0055}`."""
    content = _fields(told.content)
    ref = text(content.get("message_id"))
    return Accepted(ref=ref, price=decimal(content.get("price")) or "") if ref else lost("message_id")


def _done(told: _Told, job: Work) -> Outcome:
    """NumberBuy, NumberCancel: a sentence, "Number: N has ..." or "Number : N has ...", that is not taken apart."""
    return Found(result={"number": arguments.number(job.to)}) if text(told.content) else lost("confirmation")


def _balance(told: _Told, _job: Work) -> Outcome:
    """AccountBalance: `{"balance": 0.7035}`; of a credit line or a currency it says nothing."""
    balance = decimal(_fields(told.content).get("balance"))
    if balance is None:
        return lost("balance")
    return Found(result={"balance": balance, "available": balance, "currency": None})


def _lookup(told: _Told, _job: Work) -> Outcome:
    """NumberLookup: "On successful lookup "No Error" will be returned. In case of error, error description"."""
    content = _fields(told.content)
    status = text(content.get("lookup_status"))
    if not status:
        return lost("lookup_status")
    if status.lower() != "no error" and not is_absent(status):
        # It may have been charged, and the words that may come are nowhere listed: it is not asked again by itself.
        message = f"the lookup ended with: {status}"
        return Failure(kind=FailureKind.INVALID, code="lookup_status", message=message)
    found: dict[str, Any] = _flat(content)
    found |= {name: _flat(_fields(one)) for name, one in content.items() if isinstance(one, dict)}
    number = found.get("international_format_number")
    return Found(result=found | ({"international_format_number": _e164(number)} if number else {}))


def _is_abroad(exchange: str, number: str) -> Truth:
    """Say whether an exchange, by its number, is in another country than a phone; unknown without one."""
    if not _EXCHANGE.fullmatch(exchange):
        return UNKNOWN
    there, home = phone.country(f"+{exchange.lstrip('+')}"), phone.country(number)
    return UNKNOWN if phone.UNKNOWN in {there, home} else there != home


def _flat(content: Mapping[str, Any]) -> dict[str, str | bool | None]:
    """Return the scalars of an object: `is_...` as truth values, all else as text, ids too."""
    return {
        name: None if one is None else truth(one) if name.startswith("is_") or isinstance(one, bool) else text(one)
        for name, one in content.items()
        if not isinstance(one, dict | list)
    }


def _rows(told: _Told, name: str = "") -> list[dict[str, Any]] | None:
    """Return the objects of a list, which is `Response` itself or has a name in it; None where that is no list.

    An empty list is Status 5, and in XML an empty element.
    """
    content = _fields(told.content).get(name) if name else told.content
    if told.status == _EMPTY or content == "":
        return []
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        return None
    return [_fields(one) for one in content]


def _found(told: _Told, job: Work) -> Outcome:
    """NumberSearch: `[{"country_name": .., "area_code": "330", "number": "13306807200", "price": 1}]`."""
    rows = _rows(told)
    if rows is None:
        return lost("list of numbers")
    region = str(given(job)["country_code"]).upper()
    numbers = [
        {
            "number": _e164(row.get("number"), region),
            "country_name": text(row.get("country_name")),
            "area_code": text(row.get("area_code")),
            "price": decimal(row.get("price")),
        }
        for row in rows
    ]
    return Found(result={"numbers": numbers})


def _listed(told: _Told, _job: Work) -> Outcome:
    """AccountNumber: `{"number_count": 1, "list_account_numbers": [{"country_code": "US ", "Number": ..}]}`."""
    rows = _rows(told, "list_account_numbers")
    if rows is None:
        return lost("list of numbers")
    numbers = [
        {
            "number": _e164(row.get("number"), row.get("country_code")),
            "country_code": text(row.get("country_code")),
            "in_callback_url_type": text(row.get("in_callback_url_type")) or None,
            "in_callback_url": text(row.get("in_callback_url")) or None,
        }
        for row in rows
    ]
    return Found(result={"numbers": numbers})


def _reported(told: _Told, _job: Work) -> Outcome:
    """SearchMessage, SearchMessages: a list, of one id too, whose ids are padded with blanks.

    Leaves the texts out: there may be codes in them.
    """
    rows = _rows(told)
    if rows is None:
        return lost("list of messages")
    messages = [
        {
            "message_id": text(row.get("message_id")),
            "from": _e164(row.get("from")),
            "to": _e164(row.get("to")),
            "count": whole(row.get("count")),
            "is_unicode": truth(row.get("is_unicode")),
            "price": decimal(row.get("price")),
            "sent_date": text(row.get("sent_date")),
            "status": text(row.get("status")),
        }
        for row in rows
    ]
    return Found(result={"messages": messages})


_RESULTS: Final = {
    "send": _sent, "verify": _sent, "lookup": _lookup, "balance": _balance, "number.search": _found,
    "number.buy": _done, "number.cancel": _done, "number.list": _listed, "report": _reported,
}  # fmt: skip

#: Of these Status 5, "Result has returned empty", is an empty list and no failure.
_MAY_BE_EMPTY: Final = frozenset({"number.search", "number.list", "report"})


# -- afterwards --------------------------------------------------------------------------------------------------------

#: What is remembered of a number before it is bought or given back.
_HELD: Final = {True: "held", False: "not held"}


def _held(told: _Told) -> frozenset[str] | None:
    """Return the account's numbers in E.164; None where the answer does not surely name all of them."""
    rows = _rows(told, "list_account_numbers")
    if rows is None:
        return None
    numbers = [_e164(row.get("number"), row.get("country_code")) for row in rows]
    count = whole(_fields(told.content).get("number_count"))
    return frozenset(numbers) if all(numbers) and count in {None, len(numbers)} else None


def _of_purchase(held: frozenset[str] | None, job: Work) -> News | None:
    """Compare the account's numbers with what they were: that a purchase is there proves nothing by itself."""
    if held is None:
        return None
    ours = arguments.number(job.to)
    now, done = _HELD[ours in held], _HELD[_PURCHASES[job.operation]]
    if now == done and not job.baseline:
        return News(evidence=f"number.list: {now} now, and nothing is known of before: weak")
    before = job.baseline or now
    evidence = f"number.list: {before} before, {now} now: strong" if job.baseline else f"number.list: {now} now: strong"
    if now != before:
        return News(state=State.COMPLETED, evidence=evidence, result={"number": ours})
    if job.age < _SETTLED:
        return None
    failure = Failure(kind=FailureKind.NOT_SENT, code="unchanged", message=f"the number is {now}, as it was before")
    return News(state=State.FAILED, evidence=evidence, failure=failure)


def _of_message(row: Mapping[str, Any] | None, job: Work) -> News | None:
    """Read the row that bears the job's own id."""
    if row is None:
        return None
    news = _by_word(text(row.get("status")))
    if news.state is None and job.state == State.UNKNOWN:
        return News(state=State.SENT, evidence="report holds its id: strong", ref=job.ref)
    return None if news.state is None else news


def _by_word(word: str) -> News:
    """Return what a message's `status` says."""
    quoted = word.strip()[:_QUOTED]
    state, kind = _STATES.get(quoted.lower(), (None, None))
    failure = None if kind is None else Failure(kind=kind, code=quoted, message=f"TheTexting says {quoted}")
    return News(state=state, evidence=f"TheTexting says {quoted}", failure=failure)


def _of_day(rows: list[dict[str, Any]] | None, day: str, job: Work) -> News | None:
    """Judge the texts to a number on one day: any may be another job's; that there is none counts on all its days."""
    if rows is None:
        return None
    if rows:
        alike = sum(text(row.get("text")) == job.text.strip() for row in rows)
        # A verification's code is not handed out again, so its text cannot be compared.
        same = "" if job.operation == "verify" else f", {alike} with this text"
        return News(evidence=f"report by number and day ({day[:5]}): {len(rows)} there{same}: no proof, weak")
    if job.age < _SETTLED_MESSAGES:
        return None
    failure = Failure(kind=FailureKind.NOT_SENT, code="absent", message="TheTexting has no text to this number")
    evidence = "report by number and day: none on any day it may have gone out: strong"
    return News(state=State.FAILED, evidence=evidence, failure=failure)


def _days_to_ask(job: Work) -> Iterator[str]:
    """Yield the days that a text may bear, in whichever zone, which went out between its creation and its doubt."""
    first = (moment(job.created_at) - _WEST).date()
    last = (moment(max(job.since, job.created_at)) + _EAST).date()
    days = (last - first).days + 1
    if days <= _DAYS:
        yield from ((first + timedelta(days=at)).strftime(_DAY) for at in range(days))
