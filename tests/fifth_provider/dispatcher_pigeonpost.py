"""Pigeon Post: one JSON document to send, one to ask, and a call from them when it has arrived.

Source: "Pigeon Post API 1", an invented document, cited by its section names. *Inferred*: what an error that it does
not list means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec

from dispatcher import phone
from dispatcher.errors import InvalidNumber
from dispatcher.jobs import Send, Verify, Work
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from workers.providers.base import (
    Adapter,
    Argument,
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
    refused_after,
    same_secret,
)

#: Errors: each was found before a pigeon left, but for `lost_pigeon`.
_ERRORS: Final[Mapping[str, FailureKind]] = {
    "bad_key": FailureKind.UNAUTHORIZED,
    "no_corn": FailureKind.INSUFFICIENT_FUNDS,
    "bad_number": FailureKind.INVALID,
    "no_pigeons": FailureKind.NOT_SENT,
    "lost_pigeon": FailureKind.AMBIGUOUS,
}

#: States of a message. `waiting` decides nothing.
_STATES: Final[Mapping[str, State]] = {
    "flying": State.SENT,
    "delivered": State.DELIVERED,
    "returned": State.UNDELIVERED,
}


def _moment(value: Any) -> str:
    """Send: `at` is "a time in ISO 8601 with its zone"."""
    try:
        zone = datetime.fromisoformat(value).tzinfo
    except (TypeError, ValueError):
        zone = None
    if zone is None:
        raise ValueError("must look like 2026-11-30T09:00:00+00:00")
    return str(value)


class PigeonPost(Adapter):
    """One Pigeon Post account."""

    name = "pigeonpost"
    base_url = "https://api.pigeonpost.example"
    required = ("api_key",)
    optional = ("webhook_secret",)
    sandbox: ClassVar[Mapping[str, str]] = {"api_key": "sandbox"}
    capabilities = Capabilities(own_reference=True, receipts="push and poll", inbound=True, max_characters=640)
    operations: ClassVar[Mapping[str, Operation]] = {
        "send": Operation(
            about="Send one text to one number.",
            arguments={"at": Argument(about="not before: a time in ISO 8601", required=False, parse=_moment)},
            evidence="the message is found under our reference: strong",
        ),
        "verify": Operation(
            about="Send a code of ours as a text.",
            source="inferred",
            evidence="the message is found under our reference: strong",
        ),
        "balance": Operation(about="Read the corn that is left.", repeat="always"),
    }
    unsupported: ClassVar[Mapping[str, str]] = {"lookup": "pigeons find people, and say nothing about them"}

    def validate(self, job: Work) -> Failure | None:
        """Refuse, beside the usual, what no pigeon carries."""
        refused = super().validate(job)
        most = self.capabilities.max_characters
        if refused is None and most is not None and len(job.text) > most:
            return Failure(kind=FailureKind.INVALID, code="text", message=f"has more than {most} characters")
        return refused

    def build(self, jobs: Sequence[Work]) -> Plan:
        """Send every job alone."""
        refused = {job.id: failure for job in jobs if (failure := self.validate(job))}
        ready = [job for job in jobs if job.id not in refused]
        return Plan(groups=tuple(self._group(job) for job in ready), refused=refused)

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read what became of the one job."""
        (job,) = group.jobs
        return {job.id: self._outcome(response, job)}

    def inquire(self, jobs: Sequence[Work]) -> tuple[Group, ...]:
        """Message: ask by their id, or where no answer told it by our reference."""
        return tuple(
            self._get(f"/v1/messages/{quote(job.ref, safe='')}" if job.ref else f"/v1/references/{job.id}", job)
            for job in jobs
            if isinstance(job.request, Send | Verify)
        )

    def news(self, response: Response, group: Group) -> dict[str, News] | Failure:
        """Read a message; that there is none yet says nothing, and a wrong key is one for every request."""
        (job,) = group.jobs
        news = _news(_document(response))
        if news is not None:
            return {job.id: news}
        outcome = self._outcome(response, job)
        return (refused_after(outcome) if isinstance(outcome, Failure) else None) or {}

    def trusts(self, callback: Callback) -> bool:
        """Calls: `X-Pigeon` bears the secret that was agreed on."""
        expected = self.settings.get("webhook_secret", "")
        return not expected or same_secret(callback.headers.get("x-pigeon", ""), expected)

    def read(self, callback: Callback) -> tuple[Told, ...]:
        """Calls: a message that changed, or a text that somebody sent to us."""
        told = callback.json()
        if not isinstance(told, dict):
            return ()
        news, own = _news(told), told.get("reference")
        if news is not None and (news.ref or isinstance(own, str)):
            own = own if isinstance(own, str) else ""
            return (Receipt(news=news, own=own, ref=news.ref, number=_number(told.get("to"))),)
        sender, text = _number(told.get("from")), told.get("text")
        return (Inbound(sender=sender, text=text),) if sender and isinstance(text, str) else ()

    def _group(self, job: Work) -> Group:
        request = job.request
        if not isinstance(request, Send | Verify):
            return self._get("/v1/corn", job)
        message = {"to": job.to, "text": job.text, "reference": job.id, **request.options}
        if request.sender:
            message["from"] = request.sender
        body = msgspec.json.encode(message)
        post = Request(method="POST", url=f"{self.origin}/v1/messages", headers=self._headers(), body=body)
        return Group(request=post, jobs=(job,), cost={"post": 1, "send": 1})

    def _get(self, path: str, job: Work) -> Group:
        request = Request(method="GET", url=f"{self.origin}{path}", headers=self._headers())
        return Group(request=request, jobs=(job,), cost={"get": 1})

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.settings['api_key']}", "Content-Type": "application/json"}

    def _outcome(self, response: Response, job: Work) -> Outcome:
        told = _document(response)
        if isinstance(error := told.get("error"), str):
            kind = _ERRORS.get(error, FailureKind.INVALID)
            return Failure(kind=kind, code=error, message=f"Pigeon Post answered {error}")
        if isinstance(ref := told.get("id"), str) and ref:
            return Accepted(ref=ref) if job.operation != "balance" else by_status(response, read=True)
        if job.operation == "balance" and isinstance(corn := told.get("corn"), int):
            return Found(result={"balance": str(corn), "available": str(corn), "currency": "corn"})
        return by_status(response, read=job.operation == "balance")


def _document(response: Response) -> dict[str, Any]:
    """Return the answer's JSON object; empty where it is none."""
    try:
        told = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _news(told: dict[str, Any]) -> News | None:
    ref, word = told.get("id"), told.get("state")
    if not isinstance(ref, str) or not ref or not isinstance(word, str):
        return None
    state = _STATES.get(word)
    failure = Failure(kind=FailureKind.REJECTED, code=word, message="the pigeon came back")
    return News(
        state=state,
        ref=ref,
        evidence=f"the message is {word} under our reference: strong" if state else "",
        failure=failure if state == State.UNDELIVERED else None,
    )


def _number(value: Any) -> str:
    """Return what is a number in E.164, and nothing of what is none."""
    try:
        return phone.parse(value) if isinstance(value, str) else ""
    except InvalidNumber:
        return ""
