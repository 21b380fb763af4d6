"""MobTexting: JSON over HTTPS, each message with a reference of ours that it can be asked by.

Sources: "API OVERVIEW" (portal.mobtexting.com), cited as *overview*, and the vendor's documentation source
(github.com/mobtexting/docs, 29-Jul-2024), cited by its page's name. Later pages, and the same product's other brand,
disagree with the overview in places; each such place says so. What both leave open is marked *inferred*.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlencode

import msgspec

from dispatcher.errors import ConfigurationError
from dispatcher.jobs import CODE, Category, Lookup, Send, Verify, Work
from dispatcher.lookups import Facts
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from workers.providers import answers, arguments
from workers.providers.answers import (
    ERRORS,
    bare,
    decimal,
    document,
    invalid,
    is_absent,
    known_truth,
    listing,
    lost,
    mapping,
    network,
    number,
    reached,
    text,
    truth,
)
from workers.providers.arguments import extra, flag, needed, one_of, whole, word
from workers.providers.base import (
    Adapter,
    Answer,
    Callback,
    Capabilities,
    Group,
    Inbound,
    News,
    Operation,
    OptOut,
    Plan,
    Receipt,
    Request,
    Response,
    Told,
    by_status,
    costed,
    given,
    posted_form,
    posted_json,
    refused_after,
    same_secret,
    setting,
)

#: The status of a number that lookup/verify found.
_REACHED: Final = "SUCCESS"

#: Overview, "PRODUCTS/SERVICES": what of it is not for text messages. Which codes are is the account's and the host's
#: matter (T, P, S and G here; MKT, A2P and others at eu.cpaas.bics.com), so any other word is taken.
_NO_TEXTS: Final = frozenset({"VOC", "WAP", "RCS", "L", "MIP"})
_SERVICES: Final = "otp=T,transactional=T,promotional=P"

#: Overview, "ATTRIBUTES": "OK or 200 is success and rest everthing is failed"; seen as a number and as a word.
_SUCCESS: Final = frozenset({"200", "OK"})

#: "HTTP STATUS CODES": those that mean one thing, whatever the message says.
_CODES: Final[Mapping[int, FailureKind]] = {
    HTTPStatus.UNAUTHORIZED: FailureKind.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: FailureKind.UNAUTHORIZED,
    HTTPStatus.PAYMENT_REQUIRED: FailureKind.INSUFFICIENT_FUNDS,
    HTTPStatus.TOO_MANY_REQUESTS: FailureKind.THROTTLED,
    HTTPStatus.REQUEST_TIMEOUT: FailureKind.AMBIGUOUS,
}

#: Overview, "ERROR CODES": an empty account has no code of its own, only 4xx and a message; its words are *inferred*.
_FUNDS: Final = re.compile(r"\b(balance|credits?|funds?)\b", re.IGNORECASE)
#: *Inferred*, as are all words of messages: what a refusal is about.
_STOPPED: Final = re.compile(r"opt(ed)?[ _-]?out|unsubscribe|bl(a|o)ckl", re.IGNORECASE)
_REJECTED: Final = re.compile(r"\b(sender|template|entity|service|dlt|content|spam)", re.IGNORECASE)
_ALREADY: Final = re.compile(r"\balready\b", re.IGNORECASE)

#: Where a bad token leads without `Accept: application/json`, and what the vendor's own plugins look for.
_LOGIN: Final = re.compile(rb"https?://[^\s\"'<>]+/login\b")

_DELIVERED: Final = "DELIVRD"
_WAITING: Final = "AWAITING-DLR"
#: "Same content sent": the text is the same as one that was taken from us some minutes before.
_DUPLICATE: Final = "DUPLICATE"

#: What became of a message that was not delivered ("SMPP Gateway", status and error codes; webhook and pull DLR have
#: the same words), by kind. All words that begin with DLT- are about registrations of sender and template. Of the
#: ambiguous ones most are an "Unknown Error", and of parts some may have arrived.
_KINDS: Final[Mapping[FailureKind, str]] = {
    FailureKind.NOT_SENT: "ABSENT-SUB MOB-OFF HANDSET-BUSY HANDSET-ERR MEMEXEC NET-ERR EXPIRED TIMEOUT-DLR SERVER-ERR "
    "PROMO-TMOUT",
    FailureKind.REJECTED: "SNDR-BLOCK INV-SENDER INV-SERVICE INV-PROVISION INV-TEMPLATE TEMPLATE-NOT-FOUND NOTALLOWED "
    f"{_DUPLICATE}",
    FailureKind.INVALID: "INVALID-SUB INV-NUMBER BARRED SPAM INV-SCHEDULE SERIES-BLK SERIES-BLOCK",
    FailureKind.OPTED_OUT: "OPTOUT-REJ NOT-OPTIN DNDNUMB BLACKLST",
    FailureKind.AMBIGUOUS: "UNDELIV FAILED REJECTED REJ-MULTIPART",
    FailureKind.THROTTLED: "THROTTLED",
    FailureKind.INSUFFICIENT_FUNDS: "NO-CREDITS",
    FailureKind.UNAUTHORIZED: "NO-ACCOUNT",
}
_STATUSES: Final = {status: kind for kind, words in _KINDS.items() for status in words.split()}

#: "Validate Token": what a check answers, always with HTTP 200. "failed" is an id that is not known: one whose
#: verification was deleted ("Cancel Token") too, so that nothing more can come of it.
_VERDICTS: Final[Mapping[str, tuple[bool, str]]] = {
    "success": (True, "approved"),
    "invalid": (False, "pending"),
    "expired": (False, "expired"),
    "failed": (False, "cancelled"),
}
_VERIFIED_BEFORE: Final = "otp already verified"

#: *Inferred*: words of a verification that was refused though it has an id.
_NOT_STARTED: Final = frozenset({"failed", "error", "expired", "invalid"})

#: What may mean, with the word "already", that what was asked for is so.
_MAY_BE_DONE: Final = frozenset({FailureKind.INVALID, FailureKind.NOT_SENT, FailureKind.OPTED_OUT})

#: Seconds after which it counts that the vendor does not know of a message.
_ABSENT: Final = 600.0

#: Fields of answers that are ids or codes whatever they look like; numbers; amounts; and true or false.
_WORDS: Final = frozenset(
    ["id", "cid", "custom", "custom1", "customid", "foreign_id", "service", "mcc_mnc", "imsi", "serving_msc", "value",
     "sender"]
)  # fmt: skip
_NUMBERS: Final = frozenset({"mobile", "phone", "receiver"})
_AMOUNTS: Final = frozenset({"charges", "credits"})
_FLAGS: Final = frozenset({"ported", "roaming", "postpaid"})

#: A message's id in every sample: a UUID, and mostly an index.
_ID: Final = re.compile(r"[0-9A-Fa-f-]{32,36}(:[0-9]{1,9})?")
_SERVICE: Final = re.compile(r"[A-Za-z0-9_-]{1,20}")
_PATH: Final = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_TOKEN: Final = re.compile(r"[!-~]+")


def _service(value: Any) -> str:
    code = str(value).strip()
    if not isinstance(value, str) or not _SERVICE.fullmatch(code):
        raise ValueError("must be the short code of a service, such as T")
    if code.upper() in _NO_TEXTS:
        raise ValueError("must be the code of a service that sends texts, such as T")
    return code


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(str(value)))
    except ValueError:
        raise ValueError("must be an IP address") from None


def _code(value: Any) -> str:
    code = word(value)
    if not code.strip("."):
        # A path's own words: such a request would go elsewhere.
        raise ValueError("must be what the person typed")
    return code


_DATE: Final = arguments.moment("%Y-%m-%d", "2026-11-30")
_TIME: Final = arguments.moment("%Y-%m-%d %H:%M:%S", "2026-11-30 09:00:00")

_OPTIONS: Final = {
    "service": extra("the product's short code, in place of the account's", _service),
    "time": extra("send it then: yyyy-mm-dd hh:mm:ss", _TIME),
    "type": extra("U, N or A (the default); N turns what GSM cannot write into ?", one_of("U", "N", "A")),
    "flash": extra("1 shows it at once and keeps nothing", flag),
    "webhook_id": extra("where its delivery report goes, by id", word),
    "entity_id": extra("the principal's DLT id (Indian routes)", word),
    "template_id": extra("the template's DLT id (Indian routes)", word),
    "max_units": extra("how many parts it may have at most", whole(1, 255)),
    "port": extra("the port on the phone that it is for", whole(0, 65535)),
    "tags": extra("tags that people may opt out of, separated by commas", arguments.words),
}


#: Webhook Verification: what a new webhook is asked to repeat, and nothing else.
_CHALLENGE: Final = frozenset({"validation_key", "challenge"})


class MobTexting(Adapter):
    """One MobTexting account."""

    name = "mobtexting"
    #: The vendor's Postman collection has plain http, which would show the token to everybody on the way.
    base_url = "https://portal.mobtexting.com"
    required = ("access_token",)
    #: The document's, of all its GETs; it names none for POST.
    limits = "get=1000/60s"
    optional = ("sender", "service", "webhook_secret", "balance_path")
    #: "SMPP Gateway": a register of who wants no advertising, and a consent that was never given.
    not_their_word = frozenset({"DNDNUMB", "NOT-OPTIN"})
    sandbox: ClassVar[Mapping[str, str]] = {
        "access_token": "sandbox", "sender": "SANDBX", "webhook_secret": "sandbox",
    }  # fmt: skip
    group_size = 20
    #: No page says how many nodes one request may have; 100 is a page of its reports.
    capabilities = Capabilities(
        recipients=100, own_reference=True, receipts="push and poll", inbound=True, verification="provider checks"
    )
    operations: ClassVar[Mapping[str, Operation]] = {
        "send": Operation(
            about="Send a text to one number (sms/send), or texts to many (sms/send/json).",
            arguments=_OPTIONS,
            paid=True,
            evidence="sms/status by our own reference: what is there was taken, what is not there after ten minutes "
            "was not",
        ),
        "verify": Operation(
            about="Send a code that the provider makes and checks (verify/send).",
            arguments={
                "length": extra("characters of the code, 4 to 10 (6)", whole(4, 10)),
                "ip_address": extra("where the person is, by IP address", _address),
            },
            paid=True,
        ),
        "verify.check": Operation(
            about="Judge the code that a person typed (verify/check).",
            arguments={
                "verification": needed("our job's id", word),
                "ref": needed("the provider's id for the verification", _code),
                "code": needed("what the person typed", _code),
            },
            # A code can be checked with success once: where the answer to that was lost, the same question is
            # answered "OTP already verified", which `_checked` then takes for the success it was.
            repeat="always",
        ),
        # No page names a price; *inferred* to be charged: a lost answer costs one charge more, and no further one.
        "lookup": Operation(
            about="Ask the home location register about a number (lookup/verify).", repeat="once", paid=True
        ),
        "balance": Operation(about="Read the credits left, by service (account/balance).", repeat="always"),
        "optout.add": Operation(
            about="Never text this number again (sms/suppressions/unsubscribers).",
            arguments={
                "number": needed("a number in international form", arguments.number),
                "type": extra(
                    "of what they opted out: all (the default), tag, product, sender or service",
                    one_of("all", "tag", "product", "sender", "service"),
                ),
                "value": extra("of which one, unless of all", word),
            },
            repeat="always",
        ),
        "report": Operation(
            about="Read what became of messages (sms/status).",
            arguments={
                "id": extra("the provider's id of a message", word),
                "cid": extra("our own reference: the job's id", word),
                "number": extra("a number in international form", arguments.number),
                "date": extra("the day it was sent: yyyy-mm-dd", _DATE),
                "page": extra("100 messages each, from 1", whole(1, 999_999)),
            },
            repeat="always",
        ),
    }
    unsupported: ClassVar[Mapping[str, str]] = {
        "voice": "calls (outgoing/send, voice/c2c) are no messages, and another product",
        "whatsapp": "needs templates approved by Meta and sessions, which a text has not",
        "rcs": "rich cards and agents are another product than texts",
        "viber": "needs a service id of Viber's and is another product than texts",
        "ip messaging": "the overview names its code and no page its calls",
        "send.channel": "sms/message/send does what sms/send does, and keeps our reference by another name",
        "send.template": "texts are written by the application, not kept at one provider",
        "send.xml": "sms/send/xml is sms/send/json in other words",
        "send.bulk": "an uploaded file has no reference for each message; send_many sends the same",
        "send.group": "segments are lists kept at the provider; a campaign's group_id only repeats our batch",
        "verify.search": "is asked by itself for what became of a code; it tells no more than the job",
        "verify.cancel": "is a GET with an effect, and a code that nobody waits for expires by itself",
        **dict.fromkeys(("templates", "senders"), "are registered and approved in the portal"),
        "contacts": "lists of people are the application's, not this service's",
        "optout.list": "the opt-out list that counts is kept here",
        "optout.remove": "what was stopped at the provider is lifted in its portal, with the person's consent",
        "optout.links": "links in texts are the application's to make",
        "credits.add": "moves a reseller's credits to its customers, and the pages disagree on its address",
        "report.summary": "counts by day (sms/report) are not what became of a job",
        "vmn.logs": "incoming texts are pushed; the log is limited to 30 requests a minute",
        "webhooks": "webhooks and subscriptions are set up once, in the portal",
        "pricing": "prices are the portal's to show",
        "smart links": "short links are another product than texts",
        "smpp": "is another protocol than HTTP",
    }

    def __init__(self, account: str, settings: Mapping[str, str]) -> None:
        """Read also which service sends what; raises `ConfigurationError` naming the setting."""
        super().__init__(account, settings)
        if not _TOKEN.fullmatch(self.settings["access_token"]):
            raise ConfigurationError(
                f"{setting(account, 'access_token')} has a space or a letter that no token has; copy it anew"
            )
        self._services = _read_services(account, self.settings.get("service") or _SERVICES)
        self._balance_path = (self.settings.get("balance_path") or "account/balance").strip("/")
        if not _PATH.fullmatch(self._balance_path):
            raise ConfigurationError(f"{setting(account, 'balance_path')} is no path; write it like finance/balance")

    def validate(self, job: Work) -> Failure | None:
        """Refuse, beside the usual, a text from nobody, an opt-out of something unnamed and a report of everything."""
        refused = super().validate(job)
        if refused is not None:
            return refused
        request = job.request
        if isinstance(request, Send) and not self._sender(request):
            where = setting(self.account, "sender")
            return invalid("sender", f"sender is missing, which this provider needs; give one, or set {where}")
        told = {} if isinstance(request, Lookup) else self.arguments(job)
        if job.operation == "optout.add" and told.get("type", "all") != "all" and "value" not in told:
            return invalid("value", "value is missing: which tag, product, sender or service it is")
        if job.operation == "report" and not {"id", "cid", "number"} & set(told):
            return invalid("id", "id, cid or number is missing: of which messages")
        return None

    def build(self, jobs: Sequence[Work]) -> Plan:
        """Let sends of one service, time and kind travel together, each with its own text; all else travels alone."""
        return self.planned(jobs, self._request, self._alike)

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read the answer as an outcome for each job."""
        job = group.jobs[0]
        plain = job.operation in {"verify", "verify.check"}
        told = _answer(response, plain=plain, read=self.operations[job.operation].repeat == "always")
        if job.operation == "send" and not isinstance(told, Failure):
            return _sent(told, group.jobs)
        outcome = self._one(told, response, job)
        return {one.id: outcome for one in group.jobs}

    def number_facts(self, raw: Mapping[str, Any], number: str) -> Facts:
        """lookup/verify: `original_network`, and where it is ported `ported_network`, with their countries' names.

        `mcc_mnc` are the first digits of `imsi`, which is the network's that serves the number now (ITU-T E.212).
        *Inferred*: SUCCESS says that the phone is there, since an absent one is told; who is in a home location
        register is a mobile subscriber (3GPP TS 23.002).
        """
        del number
        ported, codes = known_truth(raw.get("ported")), raw.get("mcc_mnc")
        first, after = mapping(raw.get("original_network")), mapping(raw.get("ported_network"))
        words = (first.get("network_name"), first.get("country_name"), first.get("country_prefix"))
        now = network(
            after.get("ported_network_name"),
            after.get("ported_country_name"),
            after.get("ported_country_prefix"),
            codes,
        )
        original = network(*words, codes if ported is False else "")
        return Facts(
            country=original.country,
            line_type="mobile",
            original_network=original,
            current_network=original if ported is False else now,
            ported=ported,
            roaming=known_truth(raw.get("roaming")),
            reachable=reached(text(raw.get("status")).upper(), _REACHED),
        )

    def inquire(self, jobs: Sequence[Work]) -> tuple[Group, ...]:
        """Ask for messages by the provider's id, by our own where there is none; for verifications by id only."""
        return tuple(costed(self._get(path), (job,), "report") for job in jobs if (path := _whereabouts(job)))

    def news(self, response: Response, group: Group) -> dict[str, News] | Failure:
        """Read sms/status, and verify/search for a verification."""
        (job,) = group.jobs
        told = _answer(response, plain=job.operation == "verify", read=True)
        if isinstance(told, Failure):
            return refused_after(told) or {}
        news = _searched(told) if job.operation == "verify" else _looked_up(told, job)
        return {} if news is None else {job.id: news}

    def trusts(self, callback: Callback) -> bool:
        """Compare the secret of the webhook ("Webhook Verification": "sent as a Bearer token") where one is set.

        A challenge needs none: nobody says that it bears the secret, and to return it changes nothing.
        """
        expected = self.settings.get("webhook_secret")
        kind, _, secret = callback.headers.get("authorization", "").partition(" ")
        known = not expected or (kind.lower() == "bearer" and same_secret(secret.strip(), expected))
        return known or set(mapping(callback.json())) == _CHALLENGE

    def read(self, callback: Callback) -> tuple[Told, ...]:
        """Read a delivery report, a text that came in or an opt-out; the first and last are flat, the other is not."""
        told = mapping(callback.json())
        event = str(told.get("event", ""))
        if event == "vmn:message:in":
            return _came_in(mapping(told.get("payload")))
        if event and not event.startswith("sms:"):
            return ()
        fields = callback.fields()
        if payload := mapping(told.get("payload")) if event else {}:
            # *Inferred*: the pages print the events of texts without the wrapping that all others have.
            fields = {name.lower().replace("_", ""): text(value) for name, value in payload.items()}
        return _opted_out(fields) if "receiver" in fields else _delivery(fields)

    def answer(self, callback: Callback) -> Answer:
        """Return the challenge of a new webhook ("Webhook Verification"); else 200, for which it stops repeating."""
        told = mapping(callback.json())
        challenge = told.get("challenge")
        if not set(told) >= _CHALLENGE or not isinstance(challenge, str | int):
            return Answer()
        return Answer(body=msgspec.json.encode({"challenge": challenge}), content_type="application/json")

    # -- requests -----------------------------------------------------------------------------------------------------

    def _sender(self, request: Any) -> str:
        return str(request.sender or self.settings.get("sender", ""))

    def _shared(self, job: Work) -> dict[str, Any]:
        """Return what every message of a request has in common; "webhook_id, service and time" can't be a node's own.

        `type` is A unless asked otherwise: with N, what is not in the vendor's list arrives as a question mark.
        """
        told = self.arguments(job)
        tags = told.pop("tags", None)
        shared = {"service": self._services[job.category], "type": "A"} | told
        return shared | ({"meta": {"tags": tags}} if tags else {})

    def _alike(self, job: Work) -> bytes:
        return msgspec.json.encode(self._shared(job), order="sorted")

    def _request(self, jobs: tuple[Work, ...]) -> Request:
        job, request = jobs[0], jobs[0].request
        if isinstance(request, Send):
            many = len(jobs) > 1
            return self._post("sms/send/json", self._nodes(jobs)) if many else self._post("sms/send", self._node(job))
        if isinstance(request, Verify):
            return self._post("verify/send", self._verification(job, request))
        if isinstance(request, Lookup):
            # The page shows a form, where all others show JSON.
            return posted_form(self._url("lookup/verify"), {"to": bare(request.to)}, self._headers())
        return self._operation(job.operation, self.arguments(job))

    def _operation(self, name: str, told: Mapping[str, Any]) -> Request:
        if name == "verify.check":
            # Ids have a colon in them.
            return self._get(f"verify/check/{quote(told['ref'], safe='')}/{quote(told['code'], safe='')}")
        if name == "optout.add":
            # "*" for all of them is *inferred* from the name of the event.
            body = {"receiver": bare(told["number"]), "type": told.get("type", "all"), "value": told.get("value", "*")}
            return self._post("sms/suppressions/unsubscribers", body)
        if name == "report":
            query = {"mobile" if field == "number" else field: bare(str(value)) for field, value in told.items()}
            return self._get(f"sms/status?{urlencode(query)}")
        return self._get(self._balance_path)

    def _node(self, job: Work) -> dict[str, Any]:
        sender = self._sender(job.request)
        return {"to": bare(job.to), "message": job.text, "sender": sender, "custom": job.id} | self._shared(job)

    def _nodes(self, jobs: tuple[Work, ...]) -> dict[str, Any]:
        """Return the first message's words as what holds for all, and of the others what differs."""
        first = self._node(jobs[0])
        root = {name: value for name, value in first.items() if name not in {"to", "custom"}}
        nodes = [{name: one for name, one in self._node(job).items() if root.get(name) != one} for job in jobs]
        return {"root": root, "nodes": nodes}

    def _verification(self, job: Work, request: Verify) -> dict[str, Any]:
        sender = self._sender(request)
        channel = {"name": "sms", "recipient": {"to": bare(request.to)}, "order": 0}
        payload = {"length": 6} | self.arguments(job)
        return {
            "channels": [channel | ({"from": sender} if sender else {})],
            "payload": payload | ({"timeout": job.code_ttl} if job.code_ttl else {}),
            "template": request.template.replace(CODE, "{token}"),
            "foreign_id": job.id,
        }

    def _headers(self) -> dict[str, str]:
        # Without the second, a bad token is answered by a redirect to a page.
        return {"Authorization": f"Bearer {self.settings['access_token']}", "Accept": "application/json"}

    def _get(self, path: str) -> Request:
        return Request(method="GET", url=self._url(path), headers=self._headers())

    def _post(self, path: str, fields: dict[str, Any]) -> Request:
        return posted_json(self._url(path), fields, self._headers())

    def _url(self, path: str) -> str:
        return f"{self.origin}/api/v2/{path}"

    # -- answers ------------------------------------------------------------------------------------------------------

    def _one(self, told: dict[str, Any] | Failure, response: Response, job: Work) -> Outcome:
        """Read the answer to a request of one job."""
        if not isinstance(told, Failure):
            return _RESULTS[job.operation](told, job) if job.operation != "balance" else _balance(told, self._services)
        if job.operation == "optout.add" and told.kind in _MAY_BE_DONE and _ALREADY.search(told.message):
            return Found(result={"stopped": True})
        if response.status != HTTPStatus.NOT_FOUND or job.operation != "balance":
            missing = response.status == HTTPStatus.NOT_FOUND and job.operation == "verify.check"
            return (_not_a_code(job) if missing else None) or told
        # The overview has account/balance, the page "Check Account Balance" finance/balance.
        other = "account/balance" if self._balance_path == "finance/balance" else "finance/balance"
        where = setting(self.account, "balance_path")
        return invalid("404", f"there is no {self._balance_path} here; set {where}={other}")


# -- requests ----------------------------------------------------------------------------------------------------------


def _read_services(account: str, written: str) -> dict[Category, str]:
    """Read one code for all, or one for each category: "otp=T,transactional=T,promotional=P"."""
    where = setting(account, "service")
    try:
        if "=" not in written:
            return dict.fromkeys(Category, _service(written))
        pairs = [(name.strip(), _service(code)) for name, _, code in (one.partition("=") for one in written.split(","))]
    except ValueError as error:
        raise ConfigurationError(f"{where}: each service {error}; write T, or {_SERVICES}") from None
    if sorted(name for name, _ in pairs) != sorted(Category):
        raise ConfigurationError(f"{where} must name each category once; write one code for all, or {_SERVICES}")
    return {Category(name): code for name, code in pairs}


def _whereabouts(job: Work) -> str:
    """Return the path that tells what became of a job; empty where none can."""
    if job.operation == "send":
        return f"sms/status?{urlencode({'id': job.ref} if job.ref else {'cid': job.id})}"
    if job.operation == "verify" and job.ref.strip("."):
        return f"verify/search/{quote(job.ref, safe='')}"
    return ""


# -- answers -----------------------------------------------------------------------------------------------------------


def _answer(response: Response, *, plain: bool, read: bool) -> dict[str, Any] | Failure:
    """Return a good answer's JSON, or what went wrong with the request as a whole.

    `plain` says that a good answer has no envelope, `read` that the request may be repeated.
    """
    told = document(response.body)
    if not isinstance(told, dict) or response.status // 100 not in {2, 4, 5}:
        return _logged_out(response) or by_status(response, read=read)
    status = text(told.get("status")).upper()
    code = max(_as_code(told.get("code")), _as_code(status))
    if response.status >= ERRORS or code >= ERRORS:
        return _refusal(response.status if response.status >= ERRORS else code, told, response, read=read)
    if status in _SUCCESS or (plain and status.isascii() and not status.isdecimal() and status not in {"", "ERROR"}):
        return told
    if not status or code:
        # 202 is "request accepted", and yet no success by the rule: nobody knows.
        return by_status(response, read=read)
    return _refusal(HTTPStatus.UNPROCESSABLE_ENTITY, told, response, read=read)


def _as_code(value: Any) -> int:
    """Return a number of HTTP's, written as a number or as text; 0 for anything else."""
    written = str(value).strip()
    return int(written) if re.fullmatch(r"[1-5][0-9]{2}", written) else 0


def _logged_out(response: Response) -> Failure | None:
    """Know the portal's login page, by the address that the vendor's own plugins look for; other pages are doubt."""
    location = response.headers.get("location", "").partition("?")[0].rstrip("/")
    redirected = response.status // 100 == 3 and location.endswith("/login")  # noqa: PLR2004 - HTTP's own class
    if redirected or (response.status < ERRORS and _LOGIN.search(response.body)):
        message = "the token was not taken: the portal's login page came in place of an answer"
        return Failure(kind=FailureKind.UNAUTHORIZED, code="login", message=message)
    return None


def _refusal(status: int, told: dict[str, Any], response: Response, *, read: bool) -> Failure:
    """Read an error in the vendor's words: by its code ("HTTP STATUS CODES"), 4xx by the message too."""
    message = told.get("message")
    words = message if isinstance(message, str) and message.strip() else f"MobTexting answered {status}"
    kind = _by_code(status, read=read) or _by_words(words, mapping(told.get("errors")))
    return Failure(
        kind=kind,
        code=str(_as_code(told.get("code")) or status),
        message=words,
        permission=status == HTTPStatus.FORBIDDEN,
        retry_after=response.retry_after() if kind == FailureKind.THROTTLED else None,
    )


def _by_code(status: int, *, read: bool) -> FailureKind | None:
    """Return what a code means whatever the message says; None where that counts.

    503 is "Please try again", says the vendor, and 409 "You might be trying to update the same resource
    concurrently": but a text may have been taken already, and would be sent twice.
    """
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return FailureKind.THROTTLED if read and status == HTTPStatus.SERVICE_UNAVAILABLE else FailureKind.AMBIGUOUS
    if status == HTTPStatus.CONFLICT:
        return FailureKind.NOT_SENT if read else FailureKind.AMBIGUOUS
    return _CODES.get(status)


def _by_words(words: str, fields: Mapping[str, Any]) -> FailureKind:
    """Judge a message; where the fields at fault are named, it is about them: a sender may be called "CREDIT"."""
    if not fields and _FUNDS.search(words):
        return FailureKind.INSUFFICIENT_FUNDS
    if _STOPPED.search(words):
        return FailureKind.OPTED_OUT
    return FailureKind.REJECTED if _REJECTED.search(" ".join([words, *fields])) else FailureKind.INVALID


def _rows(told: dict[str, Any]) -> list[dict[str, Any]]:
    data = told.get("data")
    return [row for row in (data if isinstance(data, list) else [data]) if isinstance(row, dict)]


def _sent(told: dict[str, Any], jobs: tuple[Work, ...]) -> dict[str, Outcome]:
    """Match rows to jobs by our reference, else by number: ids are not told apart in every sample."""
    own: dict[str, dict[str, Any]] = {}
    other: dict[str, dict[str, Any]] = {}
    for row in _rows(told):
        reference = _own(row)
        place, key = (own, reference) if reference else (other, text(row.get("mobile")).lstrip("+"))
        # Of two rows for one message the one that was taken outweighs.
        if key not in place or _failed(_status(place[key])) is not None:
            place[key] = row
    return {job.id: _taken(own.get(job.id) or other.get(bare(job.to)), job) for job in jobs}


def _own(row: dict[str, Any]) -> str:
    """Our reference is `custom` in a request, `customid` in its answer, `custom` or `cid` elsewhere."""
    names = ("customid", "custom", "cid")
    return next((own for name in names if (own := text(row.get(name)))), "")


def _taken(row: dict[str, Any] | None, job: Work) -> Outcome:
    if row is None:
        return lost("word on this number")
    status, ref = _status(row), text(row.get("id"))
    failure = _failed(status)
    if status == _DUPLICATE and job.doubtful:
        # The attempt that nobody knew the end of was taken: this one is refused for being the same. The id is this
        # one's, so the message is asked for by our reference, which both bear.
        return Accepted()
    if failure is not None:
        return failure
    charges = decimal(row.get("charges"))
    return Accepted(ref=ref, price=f"{charges} credits" if charges else "") if ref else lost("id")


def _status(row: dict[str, Any]) -> str:
    return text(row.get("status")).upper()


def _failed(status: str) -> Failure | None:
    """Return why a message was not delivered; None for one that was, is on its way, or has a word nobody explains."""
    kind = FailureKind.REJECTED if status.startswith("DLT-") else _STATUSES.get(status)
    return Failure(kind=kind, code=status, message=f"MobTexting reports {status}") if kind else None


# -- results -----------------------------------------------------------------------------------------------------------


def _typed(name: str, value: Any) -> Any:
    """Return a field of an answer as what it is: ids text, amounts decimal, dates as they were written."""
    if value is None or isinstance(value, dict | list):
        return value
    if name in _FLAGS:
        return truth(value)
    if name in _NUMBERS:
        return number(value) or text(value)
    if name in _AMOUNTS:
        return decimal(value)
    return text(value) if name in _WORDS else value


def _clean(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _typed(name, value) for name, value in row.items()}


def _verifying(told: dict[str, Any], job: Work) -> Outcome:
    """Read "Verify Request", which answers with the id that a code is checked by."""
    del job
    ref = text(told.get("id"))
    return Accepted(ref=ref) if ref and _status(told).lower() not in _NOT_STARTED else lost("verification")


def _checked(told: dict[str, Any], job: Work) -> Outcome:
    """Read "Validate Token": a code can be checked with success once.

    "OTP already verified" after an attempt whose answer was lost is the success of that attempt, or of another code's;
    after none it is a code that is used a second time.
    """
    status, verification = text(told.get("status")).lower(), word(given(job)["verification"])
    if status == _VERIFIED_BEFORE:
        return Checked(verification=verification, valid=job.doubtful, status="approved", doubtful=job.doubtful)
    verdict = _VERDICTS.get(status)
    if verdict is None:
        return lost("verdict")
    return Checked(verification=verification, valid=verdict[0], status=verdict[1])


def _not_a_code(job: Work) -> Outcome | None:
    """*Inferred*: what is neither letters nor digits, a slash perhaps, may be no place; nor is it anybody's code."""
    told = given(job)
    usual = word(told["code"]).isalnum()
    return None if usual else Checked(verification=word(told["verification"]), valid=False, status="pending")


def _lookup(told: dict[str, Any], job: Work) -> Outcome:
    """Read "Verify HLR of mobile numbers": each has a status, of which SUCCESS is the good one."""
    row = next((one for one in _rows(told) if text(one.get("phone")).lstrip("+") == bare(job.to)), None)
    if row is None:
        return lost("word on this number")
    status = _status(row)
    if status == _REACHED or is_absent(status):
        return Found(result=_clean(row))
    if not status:
        return lost("status")
    # *Inferred*: other words are those of deliveries; what is not among them will not change by asking again. What may
    # change may have been paid, and is asked about once more.
    kind = FailureKind.AMBIGUOUS if _STATUSES.get(status) == FailureKind.NOT_SENT else FailureKind.INVALID
    return Failure(kind=kind, code=status, message=f"the register answered {status}")


def _balance(told: dict[str, Any], services: Mapping[Category, str]) -> Outcome:
    """Read a row for each service, all of which are kept.

    Credits can't be moved from one to another, so that a sum would promise too much: the balance is what the fullest
    of the account's own services has, and nought only when none of them can send. Of one that is paid afterwards
    nobody says how much it may.
    """
    rows, codes = _rows(told), {code.upper() for code in services.values()}
    if not rows:
        return lost("balance")
    own = [row for row in rows if text(row.get("service")).upper() in codes] or rows[:1] * (len(rows) == 1)
    credits_ = [decimal(row.get("credits")) for row in own if not _typed("postpaid", row.get("postpaid"))]
    known = [Decimal(one) for one in credits_ if one is not None]
    left = str(max(known)) if own and len(known) == len(own) else None
    result = {"balance": left, "available": left, "currency": None, "services": [_clean(row) for row in rows]}
    return Found(result=result)


def _stopped(told: dict[str, Any], job: Work) -> Outcome:
    del job
    row = next(iter(_rows(told)), {})
    return Found(result=_clean(row) | {"stopped": True}, ref=text(row.get("id")))


def _reported(told: dict[str, Any], job: Work) -> Outcome:
    """Read "Pull DLR status": 100 messages a page, and `meta` where there may be more."""
    del job
    if not isinstance(told.get("data"), list):
        return lost("messages")
    last = answers.whole(mapping(told.get("meta")).get("last_page")) or 1
    return Found(result={"messages": [_clean(row) for row in _rows(told)], "last_page": last})


_RESULTS: Final[Mapping[str, Callable[[dict[str, Any], Work], Outcome]]] = {
    "verify": _verifying, "verify.check": _checked, "lookup": _lookup, "optout.add": _stopped, "report": _reported,
}  # fmt: skip


# -- afterwards --------------------------------------------------------------------------------------------------------


def _looked_up(told: dict[str, Any], job: Work) -> News | None:
    """Judge what sms/status shows of a message that was asked for by id, or by our reference where there is no id."""
    data = told.get("data")
    rows = [row for row in _rows(told) if _is_of(row, job)]
    if rows:
        return _best(rows, job)
    scheduled = isinstance(job.request, Send) and "time" in job.request.options
    # Nobody says whether a text for later is there before its time.
    gone = job.state == State.UNKNOWN and not job.ref and job.age >= _ABSENT and not scheduled
    if data != [] or not gone:
        return None
    failure = Failure(kind=FailureKind.NOT_SENT, code="absent", message="the provider has no message of this job")
    return News(state=State.FAILED, failure=failure, evidence="sms/status does not hold our reference: strong")


def _is_of(row: dict[str, Any], job: Work) -> bool:
    """Ids may be one request's, so the number must fit as well; a reference is nobody else's."""
    mobile = text(row.get("mobile")).lstrip("+")
    here = not mobile or mobile == bare(job.to)
    return here and (text(row.get("id")) == job.ref if job.ref else _own(row) == job.id)


def _best(rows: Sequence[dict[str, Any]], job: Work) -> News | None:
    """Choose among the attempts at one message: what was delivered or is on its way outweighs what was not."""
    ranked = sorted(rows, key=lambda row: _RANKS.get(_status(row), 1 if _failed(_status(row)) is None else 2))
    row = ranked[0]
    status, failure, ref = _status(row), _failed(_status(row)), text(row.get("id"))
    evidence = f"sms/status holds our {'message' if job.ref else 'reference'}: {status or 'no status'}: strong"
    if status == _DELIVERED:
        return News(state=State.DELIVERED, ref=ref, evidence=evidence)
    if failure is not None and not (status == _DUPLICATE and job.doubtful):
        return News(state=State.UNDELIVERED, failure=failure, ref=ref, evidence=evidence)
    if job.state != State.UNKNOWN:
        return None
    # On its way; or refused for being the same as the attempt before, which therefore was taken.
    return News(state=State.SENT, ref="" if failure else ref, evidence=evidence)


#: The order in which the attempts at one message count; a word in between is on its way, or not known.
_RANKS: Final = {_DELIVERED: 0, _WAITING: 1, _DUPLICATE: 3}


def _searched(told: dict[str, Any]) -> News | None:
    """Read "Search Token": each channel has a status, of which only "failed" is printed; others are *inferred*."""
    words = [_status(one) for one in listing(told.get("channels")) if isinstance(one, dict)]
    evidence = "verify/search shows what became of the code"
    if {_DELIVERED, "DELIVERED"} & set(words):
        return News(state=State.DELIVERED, evidence=evidence)
    failures = [failure for word in words if (failure := _failed(word)) is not None]
    if failures and len(failures) == len(words):
        return News(state=State.UNDELIVERED, failure=failures[-1], evidence=evidence)
    return None


# -- what it tells by itself -------------------------------------------------------------------------------------------


def _delivery(fields: Mapping[str, str]) -> tuple[Told, ...]:
    """Read one delivery report ("Webhook"), as JSON or as the form that "Compose Webhook" makes of it."""
    own = fields.get("custom", "").strip() or fields.get("cid", "").strip()
    ref, status = fields.get("id", "").strip(), fields.get("status", "").strip().upper()
    ref = ref if _ID.fullmatch(ref) else ""
    if not status or not (own or ref):
        return ()
    failure = _failed(status)
    news = News(state=State.UNDELIVERED, failure=failure) if failure else News()
    if status == _DELIVERED:
        news = News(state=State.DELIVERED)
    if status == _DUPLICATE:
        # Whether that was another text, or an earlier attempt at this one, is known to who asks for it.
        news = News(evidence="the provider dropped a repeat of a text it had taken before")
    return (Receipt(news=news, own=own, ref=ref, number=number(fields.get("mobile", ""))),)


def _came_in(told: Mapping[str, Any]) -> tuple[Told, ...]:
    """Read "Message Incoming Notification": `vmn:message:in`."""
    words = mapping(mapping(told.get("message")).get("payload")).get("text")
    sender = text(mapping(told.get("recipient")).get("from"))
    if not sender or not isinstance(words, str):
        return ()
    to = next((text(mapping(one).get("to")) for one in listing(told.get("channels"))), "")
    return (Inbound(sender=number(sender) or sender, to=to, text=words, ref=text(told.get("id"))),)


def _opted_out(fields: Mapping[str, str]) -> tuple[Told, ...]:
    """Read "Number Unsubscribe Notification"; texts with a tag, which is less than all, the vendor holds back."""
    person = number(fields["receiver"])
    scope, status = fields.get("type", "").strip().lower(), fields.get("status", "").lower()
    # *Inferred*: a word for one that was taken back is not printed.
    return () if not person or scope == "tag" or "delete" in status else (OptOut(number=person),)
