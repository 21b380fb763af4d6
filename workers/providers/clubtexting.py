"""Club Texting: a REST API that speaks JSON or XML, and takes forms. It is the same API as Ez Texting's.

Source: "REST API Documentation" (app.clubtexting.com), cited by its section names. The vendor's code, its Java client
for both brands and its Python samples, shows what that leaves out: the JSON of a failure, an unavailable keyword,
carrier lookup and reports. Its page of the older HTTP API states the rate limit. What none of them says is marked
*inferred*. Verified live by nobody here; and the vendor calls the API closed to new customers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import msgspec

from dispatcher import phone
from dispatcher.jobs import CARD_FIELDS, Verify, Work
from dispatcher.lookups import UNKNOWN, Facts, Network
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from workers.providers import arguments, xml
from workers.providers.answers import ERRORS, decimal, document, invalid, listing, lost, mapping, text, truth, whole
from workers.providers.arguments import extra, flag, matching, needed, one_of
from workers.providers.base import (
    Adapter,
    Callback,
    Capabilities,
    Group,
    Inbound,
    News,
    Operation,
    Plan,
    Request,
    Response,
    by_status,
    costed,
    given,
    posted_form,
    refused_after,
    refused_before,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

#: Sending SMS Messages: "The list of allowed characters". The space is missing there and in every sample; so are CR
#: and LF, which "count as two".
_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?()~=+-_\\/@$#&%'\" \r\n"
)
#: Sending SMS Messages: characters of "combined subject and message field", and of the subject.
_EXPRESS, _EXPRESS_IN_CANADA, _STANDARD, _SUBJECT = 160, 136, 130, 13

#: Its short codes serve the United States and Canada; *inferred*: the territories of the United States with them.
_SERVED: Final = frozenset({"US", "CA", "PR", "VI", "GU", "AS", "MP"})

#: Check Keyword Availability: "Keywords can not contain spaces or the following characters".
_NOT_IN_KEYWORDS: Final = frozenset("?@.![]{}-+#$%&'()*/\\:;<>=^`|~")

#: The vendor's client: `status` of a detailed report, and what each says of a message. Nothing follows from "na".
_STATUSES: Final[Mapping[str, Failure | None]] = {
    "delivered": None,
    "bounced": Failure(kind=FailureKind.INVALID, code="bounced", message="the carrier sent it back"),
    "no_credits": Failure(kind=FailureKind.INSUFFICIENT_FUNDS, code="no_credits", message="not sent: no credits"),
    "opted_out": Failure(kind=FailureKind.OPTED_OUT, code="opted_out", message="not sent: opted out"),
}

#: The vendor's client: what a report counts, by the letters of its names.
_COUNTED: Final = {
    one.replace("_", ""): one
    for one in ("delivered", "bounced", "not_available", "not_sent_no_credits", "not_sent_opted_out")
}

#: Sending SMS Messages: lists of numbers that are not texted; the narrower one counts.
_OPTED_OUT: Final = {"GlobalOptOuts": "all texts from the short code", "LocalOptOuts": "this account's texts"}

#: Elements of the XML that stand for lists, whatever their children are called.
_LISTS: Final = frozenset({"Errors", "PhoneNumbers", "LocalOptOuts", "GlobalOptOuts", "ContactGroupIDs", "Entries"})

#: Parameters that are not our arguments in the vendor's case. `ZIP` is in the tables, `Zip` in all samples and in the
#: vendor's client, which works.
_PARAMETERS: Final = {
    "credit_card_type_id": "CreditCardTypeID",
    "card_number": "Number",
    "contact_group_ids": "ContactGroupIDs[]",
    "message_type_id": "MessageTypeID",
}

#: Verb and path. The URL that Check Keyword Availability prints has another host, a misspelled one.
_ROUTES: Final[Mapping[str, tuple[str, str]]] = {
    "balance": ("GET", "/billing/credits/get"),
    "credits.buy": ("POST", "/billing/credits"),
    "keyword.check": ("GET", "/keywords/new"),
    "keyword.rent": ("POST", "/keywords"),
    "keyword.setup": ("POST", "/keywords/{}"),
    "keyword.cancel": ("DELETE", "/keywords/{}"),
}

#: "PhoneNumbers: '(123)45-67' contains ...": an error of one field, and a value that an error repeats.
_FIELD: Final = re.compile(r"([A-Z][A-Za-z]*)(\[\])?: ")
_QUOTED: Final = re.compile(r"'([^']*)'")

#: *Inferred*: no document shows what an account without credits is told. A card may be declined, which is no lack.
_CREDITS: Final = re.compile(r"\bcredits?\b(?! ?card)", re.IGNORECASE)

_FORBIDDEN: Final = "access forbidden"
_NOT_FOUND: Final = "nothing was found"
_UNAVAILABLE: Final = "is unavailable"

#: What is remembered of a keyword that was to be had just before it was rented.
_AVAILABLE: Final = "available"

#: Seconds after which it counts that an operation shows nowhere.
_ABSENT: Final = 60.0

#: Digits of a number of the two countries that it serves.
_NATIONAL: Final = 10
_ID: Final = re.compile(r"[A-Za-z0-9]{1,40}")

_SENDS: Final = frozenset({"send", "verify"})
_PURCHASES: Final = frozenset({"keyword.rent", "credits.buy"})

#: The reads that show what these have done.
_READS: Final = {"keyword.rent": "keyword.check", "keyword.cancel": "keyword.check", "credits.buy": "balance"}


def _any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 - what is wrong with a value is told as a ValueError
    return value


def _keyword(value: Any) -> str:
    keyword = arguments.text(value)
    if bad := [one for one in keyword if one in _NOT_IN_KEYWORDS or one.isspace() or not one.isprintable()]:
        raise ValueError(f"a keyword cannot contain {_shown(bad[0])}")
    return keyword


def _card_number(value: Any) -> str:
    digits = str(value).replace(" ", "").replace("-", "")
    return matching("[0-9]{12,19}", "the 12 to 19 digits on the card")(digits)


def _subject(value: Any) -> str:
    if len(subject := arguments.text(value)) > _SUBJECT:
        raise ValueError(f"must have {_SUBJECT} characters at most")
    return subject


_MESSAGE: Final = {
    "subject": extra("shown before the text, 13 characters at most", _subject),
    "message_type_id": extra("1 for express, the default, or 2 for standard delivery", one_of("1", "2")),
}
_SCHEDULED: Final = {
    "stamp_to_send": extra(
        "release it then: seconds since 1970", matching("[0-9]{9,10}", "whole seconds (not milliseconds) since 1970")
    )
}
_KEYWORD: Final = {"keyword": needed("the word that people text to the short code", _keyword)}
_CARD: Final = {
    "stored_credit_card": extra(
        "the last four digits of a card that the account has stored",
        matching("[0-9]{4}", "the last four digits of a stored card"),
    ),
    **{
        name: extra(f"of the card's bill: {name.replace('_', ' ')}", arguments.text)
        for name in ("first_name", "last_name", "street", "city", "state", "zip", "country")
    },
    "credit_card_type_id": extra(
        "Amex, Discover, MasterCard or Visa", one_of("Amex", "Discover", "MasterCard", "Visa")
    ),
    "card_number": extra("the card's number", _card_number),
    "security_code": extra("the card's security code", matching("[0-9]{3,4}", "three or four digits")),
    "expiration_month": extra("the month in two digits", matching("0[1-9]|1[0-2]", "a month in two digits, like 05")),
    "expiration_year": extra("the year in four digits", matching("20[0-9]{2}", "a year in four digits")),
}


class ClubTexting(Adapter):
    """One Club Texting account."""

    name = "clubtexting"
    base_url = "https://app.clubtexting.com"
    required = ("user", "password")
    optional = ("format",)
    sandbox: ClassVar[Mapping[str, str]] = {"user": "sandbox", "password": "sandbox"}
    #: A lost answer makes a whole request's recipients unknown, since nobody can be asked afterwards.
    group_size = 20
    #: The page of the HTTP API: two connections at a time, and two a second, from one address, or it is blocked.
    limits = "concurrency=2/address,address=2/s"
    at_once = 2
    #: 100 is ours: no document names a maximum.
    capabilities = Capabilities(
        recipients=100,
        receipts="poll",
        inbound=True,
        max_characters=_EXPRESS,
        characters="".join(sorted(_CHARACTERS)),
    )
    operations: ClassVar[Mapping[str, Operation]] = {
        "send": Operation(
            about="Send one text to one or more numbers (Sending SMS Messages).",
            arguments={**_MESSAGE, **_SCHEDULED},
            paid=True,
        ),
        "verify": Operation(
            about="Send a code that we make, as a text (Sending SMS Messages).", arguments=_MESSAGE, paid=True
        ),
        # No page names a price; *inferred* to be charged: a lost answer costs one charge more, and no further one.
        "lookup": Operation(
            about="Ask for a number's carrier (Carrier Lookup).", source="vendor's code", repeat="once", paid=True
        ),
        "balance": Operation(about="Read the credits left (Check Credit Balance).", repeat="always"),
        # Paid by card and not in credits: an account without any must be able to do just this.
        "credits.buy": Operation(
            about="Buy credits with a card (Buy Credits).",
            arguments={
                "number_of_credits": needed(
                    "how many, in digits", matching("0*[1-9][0-9]{0,8}", "a whole number above nought")
                ),
                "coupon_code": extra("a coupon or promotional code", arguments.text),
                **_CARD,
            },
            evidence="balance before and after: risen by just as many is done, unchanged is not",
        ),
        "keyword.check": Operation(
            about="Ask whether a keyword is available (Check Keyword Availability).",
            arguments=_KEYWORD,
            repeat="always",
        ),
        "keyword.rent": Operation(
            about="Rent a keyword with a card (Rent a Keyword).",
            arguments={**_KEYWORD, **_CARD},
            evidence="keyword.check before and after: available before and not after is done, available after is not",
        ),
        "keyword.setup": Operation(
            about="Say what a rented keyword does (Setup A Keyword).",
            arguments={
                **_KEYWORD,
                "enable_double_opt_in": extra("true or false: ask people to confirm", flag),
                "confirm_message": extra("what asks them to", arguments.text),
                "join_message": extra("the answer to who texts it", arguments.text),
                "forward_email": extra("an address that texts are passed on to; empty for none", _any_text),
                "forward_url": extra("a URL that texts are passed on to; empty for none", _any_text),
                # An empty array is never sent: where the vendor explains one, it stands for everybody.
                "contact_group_ids": extra("names of groups to add people to, separated by commas", arguments.words),
                "enable_alternate_reply": extra("true or false: another answer to who texts it again", flag),
                "alternate_reply": extra("that answer", arguments.text),
            },
            repeat="always",
        ),
        # Repeated, since the second time is told from the first: "nothing was found" is done then.
        "keyword.cancel": Operation(
            about="Give a keyword up (Cancel A Keyword).",
            arguments=_KEYWORD,
            repeat="always",
            evidence="keyword.check: available is done",
        ),
        "report": Operation(
            about="Read what became of a message.",
            source="vendor's code",
            arguments={
                "id": needed(
                    "the id of a message, as its job has it in provider_ref",
                    matching(_ID.pattern, "the id that a message was accepted under"),
                ),
                "status": extra(
                    "list the numbers of na, delivered, no_credits, bounced or opted_out, rather than count",
                    one_of("na", *_STATUSES),
                ),
            },
            repeat="always",
        ),
    }
    unsupported: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("number.search", "number.buy", "number.cancel", "number.list"),
            "it sends from its short codes and has no numbers to offer",
        ),
        "verify.check": "it knows nothing of codes: ours are checked here",
        "optout.add": "that a contact's OptOut stops texts is only guessed from the vendor's client",
        **dict.fromkeys(
            ("list.append", "contacts", "groups"),
            "contacts and their lists are kept where they belong, in the application",
        ),
        "send to groups": "an empty array of groups texts everybody who is in none",
        "inbox": "texts from people are forwarded to the receiver as they come",
        "mms": "pictures need a file stored with the vendor first; this is a service for texts",
        "voice": "calls are no texts",
    }

    def __init__(self, account: str, settings: Mapping[str, str]) -> None:
        """Read the settings; raises `ConfigurationError` for a format that is neither json nor xml."""
        super().__init__(account, settings)
        self._format = self.choice("format", "json", "xml")

    def validate(self, job: Work) -> Failure | None:
        """Refuse, beside the usual, numbers, texts and payments that the vendor's document rules out."""
        refused = super().validate(job)
        if refused is None and job.operation in _SENDS:
            return _refused_number(job.to) or _refused_message(job)
        if refused is None and job.operation == "lookup":
            return _refused_number(job.to)
        if refused is None and job.operation in _PURCHASES:
            return _refused_payment(given(job))
        return refused

    def build(self, jobs: Sequence[Work]) -> Plan:
        """Group sends of the same text and options; everything else travels alone."""
        return self.planned(jobs, self._request, _same_text)

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read the answer, in JSON or XML, as an outcome for each job: some may be opted out in a good one."""
        job = group.jobs[0]
        if job.operation not in _SENDS:
            return {job.id: self._result(response, job.operation, job)}
        told = _told(response, read=False)
        if isinstance(told, Failure):
            return {one.id: told for one in group.jobs}
        return _by_number(told.entry, group.jobs) if told.good else _refused(told, group.jobs)

    def before(self, job: Work) -> Request | None:
        """Ask for what a purchase changes: whether the keyword is available, or the balance."""
        return self._evidence(job) if job.operation in _PURCHASES else None

    def remember(self, response: Response, job: Work) -> str | Failure:
        """Remember "available", or the credits."""
        told = self._result(response, _READS[job.operation], job)
        if isinstance(told, Failure):
            return refused_before(told) or ""
        if job.operation == "keyword.rent":
            return _AVAILABLE if told.result["available"] else ""
        return str(told.result["balance"])

    def inquire(self, jobs: Sequence[Work]) -> tuple[Group, ...]:
        """Ask for the detailed reports of each message, and for what a purchase has changed.

        Of a send whose answer was lost nobody can tell anything: reports are found by its id alone. Nor of credits
        without the balance from before.
        """
        messages: dict[str, list[Work]] = {}
        for job in jobs:
            if job.operation in _SENDS and _ID.fullmatch(job.ref):
                messages.setdefault(job.ref, []).append(job)
        reports = [
            costed(self._report(ref, status), tuple(members), "report")
            for ref, members in messages.items()
            for status in _STATUSES
        ]
        clear = [job for job in jobs if job.operation in _READS and (job.baseline or job.operation != "credits.buy")]
        return (*reports, *(costed(self._evidence(job), (job,), _READS[job.operation]) for job in clear))

    def news(self, response: Response, group: Group) -> dict[str, News] | Failure:
        """Read such an answer: numbers are in a report or not; a keyword is available, credits have risen, or not."""
        job = group.jobs[0]
        if job.operation in _SENDS:
            return _reported(response, group)
        told = self._result(response, _READS[job.operation], job)
        if isinstance(told, Failure):
            return refused_after(told) or {}
        news = _NEWS[job.operation](told.result, job)
        return {} if news is None else {job.id: news}

    def read(self, callback: Callback) -> tuple[Inbound, ...]:
        """Read a text to a keyword (`PhoneNumber`, `Message`) or an answer in the inbox (`from`, `message`).

        It is answered nothing: what is printed here may be texted back to the person (Incoming Message API).
        """
        told = callback.fields()
        sender = told.get("phonenumber") or told.get("from") or ""
        words = told.get("message") or told.get("subject") or ""
        if not sender.strip() or not words.strip():
            return ()
        # `MessageID` may be the id of the message that was answered; only `InboundID` is surely one text's.
        return (
            Inbound(
                sender=_e164(sender) or sender.strip(),
                to=told.get("keyword", "").strip() or told.get("to", "").strip(),
                text=words,
                at=told.get("receivedon", "").strip(),
                ref=told.get("inboundid", "").strip(),
            ),
        )

    # -- requests -----------------------------------------------------------------------------------------------------

    def _request(self, jobs: tuple[Work, ...]) -> Request:
        """Return the request, section by section of the document."""
        job, told = jobs[0], self.arguments(jobs[0])
        if job.operation in _SENDS:
            numbers = {"PhoneNumbers[]": [_national(one.to) for one in jobs]}
            return self._post("/sending/messages", {**numbers, "Message": job.text, **_named(told)})
        if job.operation == "lookup":
            return self._get(f"/sending/phone-numbers/{_national(job.to)}", {})
        if job.operation == "report":
            return self._report(told["id"], told.get("status", ""))
        method, path = _ROUTES[job.operation]
        if "{}" in path:
            path = path.format(quote(told.pop("keyword"), safe=""))
        if method == "POST":
            return self._post(path, _named(told))
        return self._get(path, _named(told), method=method)

    def _report(self, ref: str, status: str) -> Request:
        path = f"/sending/reports/{ref}/{'view-details' if status else ''}"
        return self._get(path, {"status": status} if status else {})

    def _evidence(self, job: Work) -> Request:
        """Return the read that shows what became of an operation."""
        method, path = _ROUTES[_READS[job.operation]]
        told = {} if job.operation == "credits.buy" else {"Keyword": given(job)["keyword"]}
        return self._get(path, told, method=method)

    def _post(self, path: str, fields: Mapping[str, Any]) -> Request:
        """Sample 1 writes `user` and `password`, the tables and all others `User` and `Password`."""
        return posted_form(f"{self.origin}{path}?format={self._format}", {**self._login(), **fields})

    def _get(self, path: str, fields: Mapping[str, Any], *, method: str = "GET") -> Request:
        """GET and DELETE take the credentials in the URL only: who logs one redacts its query."""
        query = urlencode({**fields, **self._login(), "format": self._format})
        return Request(method=method, url=f"{self.origin}{path}?{query}")

    def _login(self) -> dict[str, Any]:
        return {"User": self.settings["user"], "Password": self.settings["password"]}

    def number_facts(self, raw: Mapping[str, Any], number: str) -> Facts:
        """Carrier Lookup: a code for the carrier, such as ATTUS, and nothing else.

        *Inferred* from the list in the vendor's client: it is the carrier of now, and the last two letters of its code
        are its country.
        """
        del number
        name = text(raw.get("carrier_name"))
        country = next((one for one in ("US", "CA") if name.endswith(one)), UNKNOWN)
        return Facts(current_network=Network(name=name or UNKNOWN, country=country))

    # -- answers ------------------------------------------------------------------------------------------------------

    def _result(self, response: Response, operation: str, job: Work) -> Found | Failure:
        """Read the answer to an operation that is no message, for `job`."""
        told = _told(response, read=self.operations[operation].repeat == "always")
        if isinstance(told, Failure):
            return told
        if told.good:
            return _RESULTS[operation](told, job)
        words = " ".join(told.errors).lower()
        if operation == "keyword.check" and _UNAVAILABLE in words:
            return _checked(job, available=False)
        if operation == "keyword.cancel" and _NOT_FOUND in words and job.doubtful:
            # An earlier attempt of this job may have been taken: it was.
            return _cancelled(told, job)
        return _failure(told)


# -- what it refuses ---------------------------------------------------------------------------------------------------


def _refused_number(number: str) -> Failure | None:
    """PhoneNumbers: "10 digit phone number", of the two countries whose short codes it has."""
    country = phone.country(number)
    if country in _SERVED and len(_national(number)) == _NATIONAL:
        return None
    words = f"Club Texting serves numbers of the United States and Canada only, and this one is of {country}"
    return Failure(kind=FailureKind.UNSUPPORTED, code="to", message=words)


def _refused_message(job: Work) -> Failure | None:
    """Refuse a sender, characters that are not in its list, and what is too long for the way it travels."""
    if getattr(job.request, "sender", ""):
        words = "sender: Club Texting sends from its own short code; leave it out"
        return Failure(kind=FailureKind.UNSUPPORTED, code="sender", message=words)
    options = given(job)
    field = "template" if isinstance(job.request, Verify) else "text"
    told = {field: job.text, "subject": str(options.get("subject", ""))}
    for name, words in told.items():
        if bad := next((one for one in words if one not in _CHARACTERS), ""):
            signs = "only letters from a to z, digits and usual signs"
            return invalid(name, f"{name}: Club Texting takes no {_shown(bad)}, {signs}")
    most, way = _EXPRESS, "express"
    if str(options.get("message_type_id", "")).strip() == "2":
        most, way = _STANDARD, "standard"
    elif phone.country(job.to) == "CA":
        most, way = _EXPRESS_IN_CANADA, "express in Canada"
    # "The following characters count as two characters when used: \\r \\n".
    length = sum(len(one) + one.count("\r") + one.count("\n") for one in told.values())
    if length <= most:
        return None
    return invalid(
        field, f"{field}: has {length} characters with its subject, line breaks counted twice; {way} takes {most}"
    )


def _refused_payment(told: Mapping[str, Any]) -> Failure | None:
    """Rent and Buy: a stored card, or all twelve fields of another."""
    card, stored = CARD_FIELDS & set(told), "stored_credit_card"
    if stored in told:
        words = f"{stored} and {min(card, default='')} are of two cards: give the stored one or all fields of another"
        return invalid(stored, words) if card else None
    if not card:
        return invalid(stored, f"{stored} is missing: the last four digits of the stored card that pays")
    missing = next((name for name in _CARD if name in CARD_FIELDS and name not in told), None)
    if missing is None:
        return None
    return invalid(missing, f"{missing} is missing: a card that is not stored needs all of its fields")


def _shown(character: str) -> str:
    """Return a character as one can find it in a text: a curly quote looks like a straight one."""
    return f"U+{ord(character):04X} ({unicodedata.name(character, 'a control character').lower()})"


# -- requests ----------------------------------------------------------------------------------------------------------


def _same_text(job: Work) -> tuple[str, ...]:
    return (job.text, *(str(given(job).get(name, "")).strip() for name in (*_MESSAGE, *_SCHEDULED)))


def _national(number: str) -> str:
    return number.removeprefix("+1")


def _named(told: Mapping[str, Any]) -> dict[str, Any]:
    return {_PARAMETERS.get(name) or name.title().replace("_", ""): value for name, value in told.items()}


# -- answers -----------------------------------------------------------------------------------------------------------


class _Told(msgspec.Struct, frozen=True):
    """`Response` of an answer, in the words of both its formats."""

    good: bool
    code: int
    errors: list[str] = []
    entry: dict[str, Any] = {}
    entries: list[Any] | None = None


def _told(response: Response, *, read: bool) -> _Told | Failure:
    """Read an answer, or what HTTP says where it is not in the vendor's words. A 204 says all by being one."""
    late = response.status == HTTPStatus.SERVICE_UNAVAILABLE
    if response.status == HTTPStatus.NO_CONTENT and not response.body.strip():
        return _Told(good=True, code=response.status)
    told = _response(response.body)
    status = text(told.get("Status")).lower()
    if status not in {"success", "failure"} or late or response.status == HTTPStatus.TOO_MANY_REQUESTS:
        # 503, on the page of the HTTP API: a "rate limiting error", and "your request will not be processed".
        return by_status(response, read=read or late)
    errors, entries, code = told.get("Errors"), told.get("Entries"), text(told.get("Code"))
    return _Told(
        good=status == "success" and response.status < ERRORS,
        code=int(code) if re.fullmatch("[1-5][0-9]{2}", code) else response.status,
        errors=[words for one in (errors if isinstance(errors, list) else [errors]) if (words := text(one))],
        entry=mapping(told.get("Entry")),
        entries=entries if isinstance(entries, list) else None,
    )


def _response(body: bytes) -> dict[str, Any]:
    """Return `Response`, whichever format it is in: what was asked for need not be what comes."""
    told = document(body)
    if told is None and (root := xml.read(body)) is not None:
        told = {xml.name(root): xml.value(root, _is_list)}
    return mapping(mapping(told).get("Response"))


def _is_list(element: Element) -> bool:
    return xml.name(element) in _LISTS


def _digits(value: Any) -> str:
    """Return the ten digits of a number as its lists have it; in a detailed report it is a JSON integer."""
    told = value.get("PhoneNumber") if isinstance(value, dict) else value
    digits = "".join(one for one in text(told) if one in "0123456789")
    return digits[1:] if len(digits) == _NATIONAL + 1 and digits[0] == "1" else digits


def _e164(value: Any) -> str:
    digits = _digits(value)
    return f"+1{digits}" if len(digits) == _NATIONAL else ""


def _numbers(value: Any) -> set[str]:
    """Return the numbers of a list, which may be absent, and empty in either format."""
    return {digits for one in listing(value) if (digits := _digits(one))}


def _refused(told: _Told, jobs: tuple[Work, ...]) -> dict[str, Outcome]:
    """Read the failure of a message: it is about the numbers that it names, if it is about numbers alone; or all."""
    failure = _failure(told)
    blamed = {job.id for job in jobs}
    if failure.kind == FailureKind.INVALID and all(error.startswith("PhoneNumbers") for error in told.errors):
        named = {_digits(value) for error in told.errors for value in _QUOTED.findall(error)}
        blamed = {job.id for job in jobs if _national(job.to) in named} or blamed
    neighbour = Failure(
        kind=FailureKind.NOT_SENT, code=failure.code, message="refused as a whole for another's number in the request"
    )
    return {job.id: failure if job.id in blamed else neighbour for job in jobs}


def _failure(told: _Told) -> Failure:
    """Read a failure. "403 instead of 400 or 404" is the vendor's own warning: the words count before the code."""
    message = "; ".join(map(_without_values, told.errors)) or "it gives no reason"
    kind, permission = FailureKind.INVALID, False
    if told.code == HTTPStatus.UNAUTHORIZED:
        kind = FailureKind.UNAUTHORIZED
    elif told.code >= HTTPStatus.INTERNAL_SERVER_ERROR or told.code < ERRORS:
        kind = FailureKind.AMBIGUOUS
    elif not any(map(_FIELD.match, told.errors)):
        words = " ".join(told.errors)
        if _FORBIDDEN in words.lower():
            kind, permission = FailureKind.UNAUTHORIZED, True
        elif _CREDITS.search(words):
            kind = FailureKind.INSUFFICIENT_FUNDS
    return Failure(kind=kind, code=str(told.code), message=message, permission=permission)


def _without_values(error: str) -> str:
    """Leave out a value that an error repeats, which may be a number or on a card; not a keyword."""
    return error if error.startswith("Keyword") else _QUOTED.sub("'...'", error)


def _by_number(entry: Mapping[str, Any], jobs: tuple[Work, ...]) -> dict[str, Outcome]:
    """Tell by the lists who is texted; a number in none of them may have been."""
    price = decimal(entry.get("Credits")) if len(jobs) == 1 else None
    accepted = Accepted(ref=text(entry.get("ID")), price="" if price is None else f"{price} credits")
    told: dict[str, Outcome] = {
        number: Failure(kind=FailureKind.OPTED_OUT, code=name, message=f"the person has opted out of {what}")
        for name, what in _OPTED_OUT.items()
        for number in _numbers(entry.get(name))
    }
    told |= dict.fromkeys(_numbers(entry.get("PhoneNumbers")), accepted)
    return {job.id: told.get(_national(job.to), lost("word on this number")) for job in jobs}


# -- results -----------------------------------------------------------------------------------------------------------


def _looked_up(told: _Told, job: Work) -> Found | Failure:
    carrier = text(told.entry.get("CarrierName"))
    if not carrier:
        return lost("carrier")
    number = _e164(told.entry.get("PhoneNumber")) or job.to
    return Found(result={"phone_number": number, "carrier_name": carrier})


def _amounts(entry: Mapping[str, Any], *names: str) -> dict[str, str | None]:
    """Return amounts by their names in snake case; None for what the answer leaves out."""
    return {re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower(): decimal(entry.get(name)) for name in names}


def _balance(told: _Told, job: Work) -> Found | Failure:
    """Credits, which have no currency; `TotalCredits` are those of the plan and those that do not lapse."""
    del job
    total = decimal(told.entry.get("TotalCredits"))
    if total is None:
        return lost("balance")
    parts = _amounts(told.entry, "PlanCredits", "AnytimeCredits", "TotalCredits")
    return Found(result={"balance": total, "available": total, "currency": None} | parts)


def _bought_credits(told: _Told, job: Work) -> Found | Failure:
    """Buy Credits: the table leaves out `PlanCredits`, which its sample has."""
    del job
    names = ("BoughtCredits", "Amount", "Discount", "PlanCredits", "AnytimeCredits", "TotalCredits")
    return Found(result=_amounts(told.entry, *names))


def _checked(job: Work, *, available: bool) -> Found:
    return Found(result={"keyword": given(job)["keyword"], "available": available})


def _check(told: _Told, job: Work) -> Found | Failure:
    available = truth(told.entry.get("Available"))
    return lost("word on the keyword") if available is None else _checked(job, available=available)


def _keyword_of(told: _Told, job: Work) -> Found | Failure:
    """Rent and Setup; messages are text, and objects in newer answers; groups are names, whatever they are called."""
    entry, ref = told.entry, text(told.entry.get("ID"))
    result = {
        "id": ref,
        "keyword": text(entry.get("Keyword")) or given(job)["keyword"],
        "enable_double_opt_in": truth(entry.get("EnableDoubleOptIn")),
        "confirm_message": _message(entry.get("ConfirmMessage")),
        "join_message": _message(entry.get("JoinMessage")),
        "forward_email": text(entry.get("ForwardEmail")),
        "forward_url": text(entry.get("ForwardUrl")),
        "contact_group_ids": [name for one in listing(entry.get("ContactGroupIDs")) if (name := text(one))],
    }
    return Found(result=result, ref=ref)


def _message(value: Any) -> str:
    return text(value.get("Message") if isinstance(value, dict) else value)


def _cancelled(told: _Told, job: Work) -> Found | Failure:
    del told
    return Found(result={"keyword": given(job)["keyword"], "cancelled": True})


def _report(told: _Told, job: Work) -> Found | Failure:
    wanted = given(job)
    asked = {"id": text(wanted["id"])}
    if "status" in wanted:
        if told.entries is None:
            return lost("entries")
        numbers = [number for one in told.entries if (number := _e164(one))]
        return Found(result=asked | {"status": text(wanted["status"]).lower(), "phone_numbers": numbers})
    counted = {
        field: {"count": count, "percentage": decimal(row.get("Percentage"))}
        for name, row in told.entry.items()
        if (field := _COUNTED.get("".join(filter(str.isalpha, name)).lower()))
        if (count := whole(mapping(row).get("Count"))) is not None
    }
    return Found(result=asked | counted) if counted else lost("counts")


_RESULTS: Final[Mapping[str, Callable[[_Told, Work], Found | Failure]]] = {
    "lookup": _looked_up, "balance": _balance, "credits.buy": _bought_credits, "keyword.check": _check,
    "keyword.rent": _keyword_of, "keyword.setup": _keyword_of, "keyword.cancel": _cancelled, "report": _report,
}  # fmt: skip


# -- afterwards --------------------------------------------------------------------------------------------------------


def _reported(response: Response, group: Group) -> dict[str, News] | Failure:
    """Read a detailed report: being in one is the vendor's own word; being in none is no word."""
    told = _told(response, read=True)
    if isinstance(told, Failure) or not told.good:
        return refused_after(told if isinstance(told, Failure) else _failure(told)) or {}
    (status,) = parse_qs(urlsplit(group.request.url).query)["status"]
    failure = _STATUSES[status]
    state = State.DELIVERED if failure is None else State.UNDELIVERED
    news = News(state=state, failure=failure, evidence=f"its report lists the number as {status}: strong")
    numbers = _numbers(told.entries)
    return {job.id: news for job in group.jobs if _national(job.to) in numbers}


def _rented(told: Mapping[str, Any], job: Work) -> News | None:
    available = told["available"]
    if available and job.age < _ABSENT:
        return None
    if available:
        failure = Failure(kind=FailureKind.NOT_SENT, code="available", message="the keyword was not rented")
        return News(state=State.FAILED, failure=failure, evidence="keyword.check: still available: strong")
    if job.baseline != _AVAILABLE:
        return News(evidence="keyword.check: not available now, and nothing is known of before: weak")
    return News(
        state=State.COMPLETED,
        result={"keyword": given(job)["keyword"]},
        evidence="keyword.check: available just before, and not any more: strong, unless another was quicker",
    )


def _given_up(told: Mapping[str, Any], job: Work) -> News | None:
    """A keyword that is rented is not available; one that is not may be another's by now, which tells nothing."""
    if not told["available"]:
        return None
    result = {"keyword": given(job)["keyword"], "cancelled": True}
    return News(state=State.COMPLETED, result=result, evidence="keyword.check: available again: strong")


def _bought(told: Mapping[str, Any], job: Work) -> News | None:
    """Messages spend credits and other purchases add some: only an exact rise, or none at all, decides."""
    now, before = told["balance"], decimal(job.baseline)
    if before is None:
        return None
    risen, wanted = Decimal(now) - Decimal(before), Decimal(str(given(job)["number_of_credits"]))
    if risen == wanted:
        result = {"bought_credits": str(wanted), "total_credits": now}
        evidence = "balance: risen by just as many credits: strong, unless another purchase did it"
        return News(state=State.COMPLETED, result=result, evidence=evidence)
    if risen:
        return News(evidence="balance: changed since, but not by as many credits: weak")
    if job.age < _ABSENT:
        return None
    failure = Failure(kind=FailureKind.NOT_SENT, code="unchanged", message="the credits were not bought")
    return News(state=State.FAILED, failure=failure, evidence="balance: the same as just before: strong")


_NEWS: Final[Mapping[str, Callable[[Mapping[str, Any], Work], News | None]]] = {
    "keyword.rent": _rented, "keyword.cancel": _given_up, "credits.buy": _bought,
}  # fmt: skip
