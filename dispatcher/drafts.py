"""From a caller's arguments to records ready to be written: pure, and the same for every kind of client."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from dispatcher import records
from dispatcher.errors import InvalidRequest, NotBuilt
from dispatcher.jobs import (
    CARD_FIELDS,
    Category,
    Job,
    Lane,
    Message,
    Operation,
    Request,
    Send,
    Terms,
    Verify,
    check_utf8,
    milliseconds,
    new_id,
)
from dispatcher.settings import Settings

#: Arguments of the contract that a later release obeys, and what they are for.
_LATER: Final = {
    "on_unknown": "sending again what may have been sent",
    "failover_after": "failover",
    "callback_url": "callbacks",
    "callback_task": "callbacks",
    "timezone": "quiet hours",
    "max_segments": "budgets",
    "guard_keys": "guards",
}


_BATCH: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def refuse_later(later: dict[str, Any], usual: dict[str, Any]) -> None:
    """Refuse what this release does not obey, so that nobody relies on it; `usual` values are what it does anyway."""
    for name, value in later.items():
        if name not in _LATER:
            raise TypeError(f"unexpected argument {name!r}")
        if value is not None and value != usual.get(name):
            raise NotBuilt(name, f"is for {_LATER[name]}, which this release does not do yet; leave it out")


def single(provider: str | Sequence[str] | None) -> str | None:
    """Return the one provider that is named, or None for none. Raises `NotBuilt` for several."""
    if provider is None or isinstance(provider, str):
        return provider
    if not isinstance(provider, Sequence) or not all(isinstance(one, str) for one in provider) or not provider:
        raise InvalidRequest("provider", "must be the name of an account", str(provider)[:40])
    if len(provider) == 1:
        return provider[0]
    raise NotBuilt("provider", "may be a list for failover, which this release does not do yet; name one")


def terms(
    category: Category | str,
    lane: Lane | str | None,
    reference: str,
    metadata: dict[str, Any] | None,
    tenant: str,
    *,
    valid_for: float | None = None,
    send_at: datetime | float | None = None,
    code_ttl: int | None = None,
) -> Terms:
    """Return the terms that a caller's arguments mean. Raises `InvalidRequest` naming the field."""
    why = member("category", Category, category)
    return Terms(
        category=why,
        lane=member("lane", Lane, lane) if lane else Lane.HIGH if why == Category.OTP else Lane.NORMAL,
        reference=reference,
        metadata=metadata or {},
        tenant=tenant,
        valid_for=valid_for,
        send_at=milliseconds("send_at", send_at),
        code_ttl=code_ttl,
    )


def member(field: str, kind: type[StrEnum], value: str) -> Any:
    """Return the member of `kind` that `value` names. Raises `InvalidRequest` naming those there are."""
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(field, f"must be one of {', '.join(kind)}", str(value)[:40]) from None


def batch_name(batch_id: str) -> str:
    """Return a batch's name as the caller gave it. Raises `InvalidRequest` for one that cannot be."""
    if not isinstance(batch_id, str) or not _BATCH.fullmatch(batch_id):
        raise InvalidRequest("batch_id", "must be 1 to 64 letters, digits, dots, - or _", str(batch_id)[:40])
    return batch_id


class Drafts:
    """Makes records of requests, with the deployment's keys."""

    def __init__(self, settings: Settings) -> None:
        """Seal and hash with the keys in `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()

    def message(self, position: int, one: Message, provider: str, terms: Terms, usual: Message) -> records.Record:
        """Return the record of one of many; `usual` has what it leaves out."""
        try:
            sender = usual.sender if one.sender is None else one.sender
            options = usual.options if one.options is None else one.options
            request = Send(to=one.to, text=one.text, sender=sender or "", options=options or {})
            if one.reference is not None or one.metadata is not None:
                reference = terms.reference if one.reference is None else one.reference
                metadata = terms.metadata if one.metadata is None else one.metadata
                terms = msgspec.structs.replace(terms, reference=reference, metadata=metadata)
            return self.record(request, "send", terms, provider, one.idempotency_key)
        except InvalidRequest as error:
            raise error.at(f"messages[{position}]") from None

    def record(
        self, request: Request, operation: str, terms: Terms, provider: str, idempotency_key: str | None
    ) -> records.Record:
        """Return the record of one request under a new id."""
        id_ = new_id()
        request, card = _without_card(request)
        private = records.encode_request(request)
        to = request.arguments.get("number") if isinstance(request, Operation) else request.to
        return records.Record(
            id=id_,
            public=records.encode_public(request, terms, operation, sandbox=self._settings.sandbox),
            private=self._sealer.seal(private, id_),
            due=terms.send_at,
            valid_for=int(terms.valid_for * 1000) if terms.valid_for else None,
            number=self._settings.hashed("number", to) if to else "",
            idempotency=self._idempotency(terms.tenant, idempotency_key),
            fingerprint=self._settings.keyed(records.canonical(provider, operation, request, terms))
            if idempotency_key
            else "",
            code_ttl=terms.code_ttl * 1000 if terms.code_ttl else None,
            texts=isinstance(request, Send | Verify),
            card=self._card(card, id_),
        )

    def _card(self, card: dict[str, Any], id_: str) -> bytes:
        """Return card details sealed. Raises `InvalidRequest` where they are not to be taken."""
        if not card:
            return b""
        if not self._settings.allow_card_data:
            raise InvalidRequest(
                "card_number",
                "is not taken, nor are other card details; name a card that the vendor has stored, or set "
                "DISPATCHER_ALLOW_CARD_DATA=1",
            )
        self._settings.require_secrets("a card")
        return self._sealer.seal(msgspec.json.encode({name: str(value) for name, value in card.items()}), id_)

    def job(self, record: records.Record, provider: str, at: int, terms: Terms) -> Job:
        """Return the document of a job just written, without asking for it."""
        fields = {b"d": record.public, b"x": record.private, b"p": provider.encode(), b"s": b"queued", b"n": b"1"}
        fields[b"h"] = f"{at} queued {provider} created".encode()
        begins = max(record.due or 0, at)
        if record.due and record.due > at:
            fields[b"w"] = f"time {record.due}".encode()
        if record.valid_for:
            fields[b"z"] = str(begins + record.valid_for).encode()
        if terms.code_ttl:
            fields |= {b"vs": b"pending", b"ve": str(begins + terms.code_ttl * 1000).encode()}
        return records.job(record.id, fields, self._sealer, at, reveal=False)

    def _idempotency(self, tenant: str, key: str | None) -> str:
        if key is None:
            return ""
        if not isinstance(key, str) or not key:
            raise InvalidRequest("idempotency_key", "must be text that is not empty; leave it out for none")
        check_utf8("idempotency_key", key)
        return self._settings.keyed("idempotency", tenant, key)


def _without_card(request: Request) -> tuple[Request, dict[str, Any]]:
    """Part a purchase from the card that pays for it: neither its record nor any hash may hold that."""
    if not isinstance(request, Operation) or not request.arguments.keys() & {"card_number", "security_code"}:
        return request, {}
    card = {name: value for name, value in request.arguments.items() if name in CARD_FIELDS}
    return Operation(arguments={name: one for name, one in request.arguments.items() if name not in card}), card
