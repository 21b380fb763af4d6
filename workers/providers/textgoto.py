"""TextGoto: one URL that takes JSON, whose answer has five shapes.

Source: "Getting started with the JSON API" (textgoto.com, 24-Sep-2015), cited by its section names. What the document
leaves open is marked *inferred*: HTTP codes, a bad login's words, the answer of STOP_MSISDNS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final

import msgspec

from dispatcher.jobs import CODE, Lookup, Send, Verify, Work
from dispatcher.lookups import UNKNOWN, Facts
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from workers.providers import answers
from workers.providers.answers import (
    ERRORS,
    bare,
    decimal,
    document,
    invalid,
    is_absent,
    known_truth,
    lost,
    mapping,
    network,
    reached,
    truth,
)
from workers.providers.arguments import extra, matching, moment, needed, number, numbers, text
from workers.providers.base import (
    Adapter,
    Capabilities,
    Group,
    Operation,
    Plan,
    Request,
    Response,
    by_status,
    given,
    posted_json,
)

#: The `error_code` of an HLR that found its phone.
_REACHED: Final = "DELIVRD"

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

#: *Inferred* from where it stands, in the row of one number: it is that number which could not be texted.
_OF_THE_NUMBER: Final = frozenset({"SEND_FAILURE"})

#: *Inferred* from its name: the login is right, and the account may not do this.
_PERMISSION: Final = "NOT_PERMITTED"

#: *Inferred*: no document shows a bad login's words.
_LOGIN_WORDS: Final = ("LOGIN", "AUTH", "PASSWORD", "UID")

_NUMBER: Final = "a number in international form"


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
                # SEND_MSISDN: "in the format yyyy-MM-dd HH:mm:ss".
                "time": extra(
                    "release it then: yyyy-MM-dd HH:mm:ss (Silver tariff and up)",
                    moment("%Y-%m-%d %H:%M:%S", "2026-11-30 09:00:00"),
                )
            },
            paid=True,
        ),
        "verify": Operation(
            about="Send a 6 digit code that the provider makes (VERIFICATION).",
            arguments={
                "delay": extra("seconds to wait before it is sent", matching("[0-9]+", "a whole number of seconds"))
            },
            paid=True,
        ),
        # No page names a price; *inferred* to be charged: a lost answer costs one charge more, and no further one.
        "lookup": Operation(about="Ask the home location register about a number (HLR).", repeat="once", paid=True),
        "balance": Operation(about="Read the credits left (CHECK_BALANCE).", repeat="always"),
        "optout.add": Operation(
            about="Never text these numbers again (STOP_MSISDNS).",
            arguments={
                "number": extra(_NUMBER, number),
                "numbers": extra("up to 100 of them, separated by commas", numbers(_STOP_LIMIT)),
            },
            repeat="always",
        ),
        # Not repeated: no document says that a number which is in the list already is not in it twice then.
        "list.append": Operation(
            about="Add a number to a list, which is made if it is not there (APPEND_LIST).",
            arguments={
                "list": needed("the list's name", text),
                "number": needed(_NUMBER, number),
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
        if refused is not None or job.operation != "optout.add" or 1 <= len(_stops(self.arguments(job))) <= _STOP_LIMIT:
            return refused
        return invalid("number", f"number is missing, or there are more than {_STOP_LIMIT}: whom to leave alone")

    def build(self, jobs: Sequence[Work]) -> Plan:
        """Group sends of the same text, sender and time; everything else travels alone."""
        return self.planned(jobs, self._request, _same_text)

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read `output`, whichever of its five shapes it has, as an outcome for each job."""
        operation = group.jobs[0].operation
        output, failure = _output(response, read=self.operations[operation].repeat == "always")
        if operation in {"send", "verify"}:
            return _by_number(output, group.jobs, failure)
        outcome = failure or _RESULTS[operation](output)
        return {job.id: outcome for job in group.jobs}

    def number_facts(self, raw: Mapping[str, Any], number: str) -> Facts:
        """HLR: `country`, `orig_network` and `ported_network`, which is the same where it is not ported.

        *Inferred*: "DELIVRD" is SMPP's word for what arrived, so that the phone is there; who is in a home location
        register is a mobile subscriber (3GPP TS 23.002); the number's country is that of its networks, since numbers
        are ported within one.
        """
        del number
        ported = known_truth(raw.get("ported"))
        original = network(raw.get("orig_network"), raw.get("country"))
        now = network(raw.get("ported_network"), raw.get("country"))
        return Facts(
            country=original.country,
            line_type="mobile",
            original_network=original,
            current_network=original if ported is False and now.name == UNKNOWN else now,
            ported=ported,
            roaming=known_truth(raw.get("roaming")),
            reachable=reached(answers.text(raw.get("error_code")), _REACHED),
        )

    # -- requests -----------------------------------------------------------------------------------------------------

    def _request(self, jobs: tuple[Work, ...]) -> Request:
        action, body = _body(jobs, self.arguments(jobs[0]))
        header = {"-uid": self.settings["uid"], "-pwd": self.settings["pwd"], "-action": action}
        campaign = {"header": header} | ({"body": body} if body else {})
        return posted_json(f"{self.origin}/api/jsonapi.aspx", {"campaign": campaign})


# -- requests ----------------------------------------------------------------------------------------------------------


def _stops(arguments: Mapping[str, Any]) -> list[str]:
    """Return the numbers to stop, named one by one or together."""
    one = [arguments["number"]] if "number" in arguments else []
    return [*one, *arguments.get("numbers", [])]


def _same_text(job: Work) -> tuple[str, ...]:
    return (job.text, getattr(job.request, "sender", ""), str(given(job).get("time", "")))


def _body(jobs: tuple[Work, ...], arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the action and its body, section by section of the document.

    SEND_MSISDN: "all MSISDNs must be in international format (in UK, 447771111222)": no plus.
    """
    request = jobs[0].request
    if isinstance(request, Send):
        message = {"msisdn": [bare(job.to) for job in jobs], "msg": request.text}
        return "SEND_MSISDN", message | _known(orig=request.sender, time=arguments.get("time"))
    if isinstance(request, Verify):
        message = {"msisdn": [bare(request.to)], "msg": request.template}
        return "VERIFICATION", message | _known(orig=request.sender, delay=arguments.get("delay"))
    if isinstance(request, Lookup):
        return "HLR", {"number": [bare(request.to)]}
    if jobs[0].operation == "optout.add":
        return "STOP_MSISDNS", {"msisdn": [bare(one) for one in _stops(arguments)]}
    if jobs[0].operation == "list.append":
        return "APPEND_LIST", {"list": arguments["list"], "phone": bare(arguments["number"])}
    # GET_BALANCE is the section's title, CHECK_BALANCE the action; "this function requires no body".
    return "CHECK_BALANCE", {}


def _known(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


# -- answers -----------------------------------------------------------------------------------------------------------


def _output(response: Response, *, read: bool) -> tuple[Any, Failure | None]:
    """Return `output` itself, and what went wrong with the request as a whole; `read` says that it changes nothing."""
    told = document(response.body)
    if not isinstance(told, dict) or "output" not in told:
        return None, by_status(response, read=read)
    output = told["output"]
    error = _error(output)
    if not error:
        return (output, None) if response.status < ERRORS else (None, by_status(response, read=read))
    failure = _failure(error)
    unnamed = error not in _TOKENS and failure.kind == FailureKind.INVALID
    by_http = response.status == HTTPStatus.TOO_MANY_REQUESTS or (unnamed and _tells(response.status))
    return output, by_status(response, read=read) if by_http else failure


def _error(output: Any) -> str:
    """Return the error of a whole request; some functions answer a plain string, so that one may come as that, too."""
    error = _one(mapping(output).get("error"))
    plain = isinstance(output, str) and output.strip() in _TOKENS
    return output.strip() if plain else str(error).strip() if error else ""


def _tells(status: int) -> bool:
    """Say whether HTTP's own code tells more than an error that no document names."""
    return status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _failure(token: str) -> Failure:
    kind = _TOKENS.get(token.strip())
    if kind is None:
        login = any(word in token.upper() for word in _LOGIN_WORDS)
        kind = FailureKind.UNAUTHORIZED if login else FailureKind.INVALID
    message, permission = f"TextGoto answered {token.strip()}", token.strip() == _PERMISSION
    return Failure(kind=kind, code=token.strip(), message=message, permission=permission)


def _one(value: Any) -> Any:
    """A list of one is the one: lists and objects stand for each other in this API's JSON."""
    return value[0] if isinstance(value, list) and value else value


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _by_number(output: Any, jobs: tuple[Work, ...], failure: Failure | None) -> dict[str, Outcome]:
    """SEND_MSISDN answers a list, VERIFICATION an object: either is taken for either.

    What went wrong with the request as a whole is told of all but those that were charged, so sent: credits may end in
    the middle of one.
    """
    told = _many(mapping(output).get("msg"))
    rows: dict[str, dict[str, Any]] = {}
    for row in told:
        # Of two rows for one number an OK outweighs: it was charged, so it was sent.
        if isinstance(row, dict) and not _is_ok(rows.get(number := bare(str(row.get("@msisdn", "")).strip()))):
            rows[number] = row
    of = {job.id: rows.get(bare(job.to)) for job in jobs}
    return {job.id: _row(of[job.id], job) if failure is None or _is_ok(of[job.id]) else failure for job in jobs}


def _is_ok(row: dict[str, Any] | None) -> bool:
    return row is not None and str(row.get("@response")).strip() == "OK"


def _row(row: dict[str, Any] | None, job: Work) -> Outcome:
    response = row.get("@response") if row else None
    if row is None or not isinstance(response, str):
        return lost("word on this number")
    if not _is_ok(row):
        return msgspec.structs.replace(_failure(response), own=response.strip() in _OF_THE_NUMBER or None)
    if not isinstance(job.request, Verify):
        return Accepted()
    code = row.get("@code")
    # Text, never a number: "012837" begins with a nought.
    return Accepted(code=code) if isinstance(code, str) and code and code != CODE else lost("code")


# -- results -----------------------------------------------------------------------------------------------------------


def _balance(output: Any) -> Outcome:
    """Both are decimals as text, without a currency; `@available` counts a credit line in."""
    told = mapping(output)
    balance, available = decimal(told.get("@balance")), decimal(told.get("@available"))
    if balance is None:
        return lost("balance")
    return Found(result={"balance": balance, "available": available or balance, "currency": None})


def _lookup(output: Any) -> Outcome:
    """HLR: every value is text, "false" too; `error_code` "DELIVRD" means that all is well.

    An absent subscriber is found, and out of reach. No document names another error, nor says which are free of charge:
    one that is not for good is in doubt, so that it is asked about once more and not again and again.
    """
    hlr = _one(mapping(output).get("hlr"))
    if not isinstance(hlr, dict) or "error_code" not in hlr:
        return lost("hlr")
    code = str(hlr["error_code"])
    permanent = str(hlr.get("is_perm_err")) == "1"
    if code == _REACHED or (is_absent(code) and not permanent):
        flags = {field: truth(hlr[field]) for field in ("ported", "roaming") if field in hlr}
        return Found(result=hlr | {field: one for field, one in flags.items() if one is not None})
    kind = FailureKind.INVALID if permanent else FailureKind.AMBIGUOUS
    return Failure(kind=kind, code=code, message=f"the register answered {code}")


def _added(output: Any) -> Outcome:
    if output == "NUMBER_ADDED":
        return Found(result={"added": True})
    return _failure(output) if isinstance(output, str) else lost("NUMBER_ADDED")


def _stopped(output: Any) -> Outcome:
    """*Inferred*: no answer is shown; any that is no error is taken for done, since asking again is harmless."""
    rows = _many(mapping(output).get("msg"))
    bad = [str(row["@response"]) for row in rows if isinstance(row, dict) and row.get("@response", "OK") != "OK"]
    return _failure(bad[0]) if bad else Found(result={"stopped": True})


_RESULTS: Final = {"lookup": _lookup, "balance": _balance, "optout.add": _stopped, "list.append": _added}
