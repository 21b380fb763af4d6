"""TextGoto: one URL that takes JSON, whose answer has five shapes.

Source: "Getting started with the JSON API" (textgoto.com, 24-Sep-2015), cited by its section names. What the document
leaves open is marked *inferred*: HTTP codes, a bad login's words, the answer of STOP_MSISDNS.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec

from dispatcher import phone
from dispatcher.jobs import CODE, Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from workers.providers.base import (
    Adapter,
    Argument,
    Capabilities,
    Group,
    Operation,
    Plan,
    Request,
    Response,
    by_status,
    grouped,
)

#: STOP_MSISDNS: "There is a limit of 100 MSISDNs per API call".
_STOP_LIMIT: Final = 100

#: Error tokens, of a whole request and of one number (SEND_MSISDN, VERIFICATION: "possible general error outputs" and
#: "possible responses"). "You will only be charged for an OK response", so what failed was not sent.
_TOKENS: Final[Mapping[str, FailureKind]] = {
    "NOT_PERMITTED": FailureKind.UNAUTHORIZED,
    "INSUFFICIENT_CREDITS": FailureKind.INSUFFICIENT_FUNDS,
    "SITE_UNAVAILABLE": FailureKind.NOT_SENT,
    "MESSAGE_TOO_LONG": FailureKind.INVALID,
    "NO_MESSAGE": FailureKind.INVALID,
    "INVALID_MESSAGE": FailureKind.INVALID,
    "NO_CODE_PLACEHOLDER_PRESENT": FailureKind.INVALID,
    "MSISDN_LIMIT(1)_EXCEEDED": FailureKind.INTERNAL,
    "TOO_MANY_MSISDNS": FailureKind.INTERNAL,
    "INVALID_MSISDN": FailureKind.INVALID,
    "MSISDN_BLOCKED": FailureKind.OPTED_OUT,
    # Unexplained; by its name it is the number's fault.
    "MSISDN_FAILURE": FailureKind.INVALID,
    "SEND_FAILURE": FailureKind.NOT_SENT,
    # Not charged, if that rule holds; but nobody says so of an error that is not known.
    "UNKNOWN_ERROR": FailureKind.AMBIGUOUS,
}

#: HTTP codes from here on are errors.
_ERRORS: Final = HTTPStatus.BAD_REQUEST

#: *Inferred*: no document shows a bad login's words.
_LOGIN_WORDS: Final = ("LOGIN", "AUTH", "PASSWORD", "UID")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text that is not empty")
    return value


def _digits(value: Any) -> str:
    if not str(value).isdecimal():
        raise ValueError("must be a whole number of seconds")
    return str(value)


def _timestamp(value: Any) -> str:
    """SEND_MSISDN: "This timestamp should be in the format yyyy-MM-dd HH:mm:ss"; its zone is not stated."""
    try:
        datetime.strptime(value, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the vendor states no zone
    except (TypeError, ValueError):
        raise ValueError("must look like 2026-11-30 09:00:00, in the vendor's own time") from None
    return str(value)


def _number(value: Any) -> str:
    return phone.parse(str(value))


def _numbers(value: Any) -> list[str]:
    numbers = value.split(",") if isinstance(value, str) else list(value)
    if not 1 <= len(numbers) <= _STOP_LIMIT:
        raise ValueError(f"must be 1 to {_STOP_LIMIT} numbers, separated by commas")
    return [phone.parse(str(one).strip()) for one in numbers]


class TextGoto(Adapter):
    """One TextGoto account."""

    name = "textgoto"
    #: The document's own address is plain http; https is known to work, and the password travels in every request.
    base_url = "https://textgoto.com"
    required = ("uid", "pwd")
    sandbox: ClassVar[Mapping[str, str]] = {"uid": "sandbox", "pwd": "sandbox"}
    #: A lost answer makes a whole request's recipients unknown, since nobody can be asked afterwards.
    group_size = 20
    capabilities = Capabilities(recipients=100, verification="provider")
    operations: ClassVar[Mapping[str, Operation]] = {
        "send": Operation(
            about="Send one text to one or more numbers (SEND_MSISDN).",
            arguments={
                "time": Argument(
                    about="release it then: yyyy-MM-dd HH:mm:ss (Silver tariff and up)",
                    required=False,
                    parse=_timestamp,
                )
            },
        ),
        "verify": Operation(
            about="Send a 6 digit code that the provider makes (VERIFICATION).",
            arguments={"delay": Argument(about="seconds to wait before it is sent", required=False, parse=_digits)},
        ),
        "lookup": Operation(about="Ask the home location register about a number (HLR).", repeat="once"),
        "balance": Operation(about="Read the credits left (CHECK_BALANCE).", repeat="always"),
        "optout.add": Operation(
            about="Never text these numbers again (STOP_MSISDNS).",
            arguments={
                "number": Argument(about="a number in international form", required=False, parse=_number),
                "numbers": Argument(about="up to 100 of them, separated by commas", required=False, parse=_numbers),
            },
            repeat="always",
        ),
        "list.append": Operation(
            about="Add a number to a list, which is made if it is not there (APPEND_LIST).",
            arguments={
                "list": Argument(about="the list's name", parse=_text),
                "number": Argument(about="a number in international form", parse=_number),
            },
        ),
    }
    unsupported: ClassVar[Mapping[str, str]] = {
        "report": "the JSON API has no call for delivery reports",
        "inbound": "the JSON API tells of no inbound texts",
    }

    def validate(self, job: Work) -> Failure | None:
        """Refuse, beside the usual, an opt-out of nobody."""
        refused = super().validate(job)
        if refused is None and job.operation == "optout.add" and not 1 <= len(_stops(job)) <= _STOP_LIMIT:
            message = f"number is missing, or there are more than {_STOP_LIMIT}: whom to leave alone"
            return Failure(kind=FailureKind.INVALID, code="number", message=message)
        return refused

    def build(self, jobs: Sequence[Work]) -> Plan:
        """Group sends of the same text, sender and time; everything else travels alone."""
        refused = {job.id: failure for job in jobs if (failure := self.validate(job))}
        ready = [job for job in jobs if job.id not in refused]
        size = min(int(self.settings.get("group_size") or self.group_size), self.capabilities.recipients)
        sends = grouped((job for job in ready if job.operation == "send"), _same_text, size)
        others = ((job,) for job in ready if job.operation != "send")
        return Plan(groups=tuple(self._group(members) for members in (*sends, *others)), refused=refused)

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read `output`, whichever of its five shapes it has, as an outcome for each job."""
        operation = group.jobs[0].operation
        output = _output(response, read=self.operations[operation].repeat != "never")
        if isinstance(output, Failure):
            return {job.id: output for job in group.jobs}
        if operation in {"send", "verify"}:
            return _by_number(output, group.jobs)
        outcome = _RESULTS[operation](output)
        return {job.id: outcome for job in group.jobs}

    def _group(self, jobs: tuple[Work, ...]) -> Group:
        action, body = _body(jobs)
        header = {"-uid": self.settings["uid"], "-pwd": self.settings["pwd"], "-action": action}
        campaign: dict[str, Any] = {"header": header}
        if body:
            campaign["body"] = body
        request = Request(
            method="POST",
            url=f"{self.origin}/api/jsonapi.aspx",
            headers={"Content-Type": "application/json"},
            body=msgspec.json.encode({"campaign": campaign}),
        )
        kind = jobs[0].operation
        return Group(request=request, jobs=jobs, cost={"post": 1, kind: len(jobs)})


def _stops(job: Work) -> list[str]:
    """Return the numbers to stop, named one by one or together."""
    arguments = job.request.arguments if isinstance(job.request, OperationRequest) else {}
    one = [_number(arguments["number"])] if "number" in arguments else []
    return one + (_numbers(arguments["numbers"]) if "numbers" in arguments else [])


def _same_text(job: Work) -> tuple[str, str, str]:
    request = job.request
    return (
        (request.text, request.sender, str(request.options.get("time", "")))
        if isinstance(request, Send)
        else ("", "", "")
    )


def _msisdn(number: str) -> str:
    """SEND_MSISDN: "all MSISDNs must be in international format (in UK, 447771111222)": no plus."""
    return number.removeprefix("+")


def _body(jobs: tuple[Work, ...]) -> tuple[str, dict[str, Any]]:
    """Return the action and its body, section by section of the document."""
    request = jobs[0].request
    if isinstance(request, Send):
        message = {"msisdn": [_msisdn(job.to) for job in jobs], "msg": request.text}
        return "SEND_MSISDN", message | _optional(orig=request.sender, time=request.options.get("time"))
    if isinstance(request, Verify):
        message = {"msisdn": [_msisdn(request.to)], "msg": request.template}
        return "VERIFICATION", message | _optional(orig=request.sender, delay=request.options.get("delay"))
    if isinstance(request, Lookup):
        return "HLR", {"number": [_msisdn(request.to)]}
    arguments = request.arguments
    if jobs[0].operation == "optout.add":
        return "STOP_MSISDNS", {"msisdn": [_msisdn(one) for one in _stops(jobs[0])]}
    if jobs[0].operation == "list.append":
        return "APPEND_LIST", {"list": arguments["list"], "phone": _msisdn(_number(arguments["number"]))}
    # GET_BALANCE is the section's title, CHECK_BALANCE the action; "this function requires no body".
    return "CHECK_BALANCE", {}


def _optional(**fields: Any) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items() if value}


def _output(response: Response, *, read: bool) -> Any:
    """Return `output` itself, or what went wrong with the request as a whole; `read` says that it changes nothing."""
    try:
        output = msgspec.json.decode(response.body.removeprefix(BOM_UTF8))["output"]
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError, RecursionError):
        return by_status(response, read=read)
    error = _one(output.get("error")) if isinstance(output, dict) else None
    if error:
        return _failure(str(error))
    return output if response.status < _ERRORS else by_status(response, read=read)


def _failure(token: str) -> Failure:
    kind = _TOKENS.get(token.strip())
    if kind is None:
        login = any(word in token.upper() for word in _LOGIN_WORDS)
        kind = FailureKind.UNAUTHORIZED if login else FailureKind.INVALID
    return Failure(kind=kind, code=token.strip(), message=f"TextGoto answered {token.strip()}")


def _one(value: Any) -> Any:
    """A list of one is the one: lists and objects stand for each other in this API's JSON."""
    return value[0] if isinstance(value, list) and value else value


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _lost(what: str) -> Failure:
    return Failure(kind=FailureKind.AMBIGUOUS, code="incomplete", message=f"the answer holds no {what}")


def _by_number(output: Any, jobs: tuple[Work, ...]) -> dict[str, Outcome]:
    """SEND_MSISDN answers a list, VERIFICATION an object: either is taken for either."""
    told = _many(output.get("msg")) if isinstance(output, dict) else []
    rows: dict[str, dict[str, Any]] = {}
    for row in told:
        # Of two rows for one number an OK outweighs: it was charged, so it was sent.
        if isinstance(row, dict) and not _is_ok(rows.get(number := _msisdn(str(row.get("@msisdn", "")).strip()))):
            rows[number] = row
    return {job.id: _row(rows.get(_msisdn(job.to)), job) for job in jobs}


def _is_ok(row: dict[str, Any] | None) -> bool:
    return row is not None and str(row.get("@response")).strip() == "OK"


def _row(row: dict[str, Any] | None, job: Work) -> Outcome:
    response = row.get("@response") if row else None
    if row is None or not isinstance(response, str):
        return _lost("word on this number")
    if not _is_ok(row):
        return _failure(response)
    if not isinstance(job.request, Verify):
        return Accepted()
    code = row.get("@code")
    # Text, never a number: "012837" begins with a nought.
    return Accepted(code=code) if isinstance(code, str) and code and code != CODE else _lost("code")


def _decimal(value: Any) -> str | None:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return str(number) if number.is_finite() else None


def _balance(output: Any) -> Outcome:
    """Both are decimals as text, without a currency; `@available` counts a credit line in."""
    told = output if isinstance(output, dict) else {}
    balance, available = _decimal(told.get("@balance")), _decimal(told.get("@available"))
    if balance is None:
        return _lost("balance")
    return Found(result={"balance": balance, "available": available or balance, "currency": None})


def _lookup(output: Any) -> Outcome:
    """HLR: every value is text, "false" too; `error_code` "DELIVRD" means that all is well."""
    hlr = _one(output.get("hlr")) if isinstance(output, dict) else None
    if not isinstance(hlr, dict) or "error_code" not in hlr:
        return _lost("hlr")
    code = str(hlr["error_code"])
    if code == "DELIVRD":
        return Found(result=hlr | {field: str(hlr.get(field)).lower() == "true" for field in ("ported", "roaming")})
    permanent = str(hlr.get("is_perm_err")) == "1"
    kind = FailureKind.INVALID if permanent else FailureKind.NOT_SENT
    return Failure(kind=kind, code=code, message=f"the register answered {code}")


def _added(output: Any) -> Outcome:
    if output == "NUMBER_ADDED":
        return Found(result={"added": True})
    return _failure(output) if isinstance(output, str) else _lost("NUMBER_ADDED")


def _stopped(output: Any) -> Outcome:
    """*Inferred*: no answer is shown; any that is no error is taken for done, since asking again is harmless."""
    if isinstance(output, str) and output.strip() in _TOKENS:
        return _failure(output)
    rows = _many(output.get("msg")) if isinstance(output, dict) else []
    bad = [str(row["@response"]) for row in rows if isinstance(row, dict) and row.get("@response", "OK") != "OK"]
    return _failure(bad[0]) if bad else Found(result={"stopped": True})


_RESULTS: Final = {"lookup": _lookup, "balance": _balance, "optout.add": _stopped, "list.append": _added}
