"""From a caller's arguments to records ready to be written: pure, and the same for every kind of client."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from dispatcher import checks, phone, records
from dispatcher.accounts import Route
from dispatcher.errors import InvalidRequest, NotBuilt
from dispatcher.jobs import (
    CARD_FIELDS,
    CODE,
    Category,
    Job,
    Lane,
    Message,
    OnUnknown,
    Operation,
    Request,
    Send,
    Terms,
    Verify,
    milliseconds,
    new_id,
)
from dispatcher.privacy import shown
from dispatcher.routes import Facts
from dispatcher.settings import Settings

#: Arguments of the contract that a later release obeys, and what they are for.
_LATER: Final = {
    "callback_url": "callbacks",
    "callback_task": "callbacks",
    "timezone": "quiet hours",
    "guard_keys": "guards",
}


#: Segments that any text may have.
_MOST_SEGMENTS: Final = 255

_BATCH: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def refuse_later(later: dict[str, Any]) -> None:
    """Refuse what this release does not obey, so that nobody relies on it."""
    for name, value in later.items():
        if name not in _LATER:
            raise TypeError(f"unexpected argument {name!r}")
        if value is not None:
            raise NotBuilt(name, f"is for {_LATER[name]}, which this release does not do yet; leave it out")


def facts(request: Request, terms: Terms) -> Facts | None:
    """Return what routes are chosen by; None for an operation, which is done at one account."""
    if isinstance(request, Operation):
        return None
    words = request.text if isinstance(request, Send) else getattr(request, "template", "").replace(CODE, "000000")
    sender = getattr(request, "sender", "")
    kind = records.kind_of(request)
    return Facts(kind=kind, category=terms.category, number=request.to, sender=sender, text=words)


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
    on_unknown: OnUnknown | str | None = OnUnknown.HOLD,
    failover_after: float | None = None,
) -> Terms:
    """Return the terms that a caller's arguments mean. Raises `InvalidRequest` naming the field."""
    why = member("category", Category, category)
    return Terms(
        category=why,
        lane=member("lane", Lane, lane) if lane is not None else Lane.HIGH if why == Category.OTP else Lane.NORMAL,
        reference=reference,
        metadata={} if metadata is None else metadata,
        tenant=tenant,
        valid_for=valid_for,
        send_at=milliseconds("send_at", send_at),
        code_ttl=code_ttl,
        on_unknown=OnUnknown.HOLD if on_unknown is None else member("on_unknown", OnUnknown, on_unknown),
        failover_after=failover_after,
    )


def member(field: str, kind: type[StrEnum], value: str) -> Any:
    """Return the member of `kind` that `value` names. Raises `InvalidRequest` naming those there are."""
    try:
        return kind(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidRequest(field, f"must be one of {', '.join(kind)}", shown(value)) from None


def batch_name(batch_id: str) -> str:
    """Return a batch's name as the caller gave it. Raises `InvalidRequest` for one that cannot be."""
    if not isinstance(batch_id, str) or not _BATCH.fullmatch(batch_id):
        raise InvalidRequest("batch_id", "must be 1 to 64 letters, digits, dots, - or _", shown(batch_id))
    return batch_id


def check_text(settings: Settings, request: Request, most: int | None = None) -> None:
    """Refuse a text that is too long, or for a country that nobody is texted in. Raises `InvalidRequest`."""
    if not isinstance(request, Send | Verify):
        return
    if most is not None:
        checks.whole("max_segments", most, 1, _MOST_SEGMENTS)
    most = settings.max_segments if most is None else most
    if most is not None and (size := records.measured(request)) is not None and size.count > most:
        raise InvalidRequest(
            "text" if isinstance(request, Send) else "template",
            f"has {size.count} segments ({size.characters} characters in {size.encoding}), and at most {most} may "
            "be sent; shorten it, or raise max_segments (DISPATCHER_MAX_SEGMENTS)",
        )
    allowed = settings.allowed_countries
    if allowed and (where := phone.country(request.to)) not in allowed:
        raise InvalidRequest(
            "to",
            f"is a number of {where}, and DISPATCHER_COUNTRIES allows {', '.join(sorted(allowed))}; "
            "add it there, or leave that number out",
        )


class Drafts:
    """Makes records of requests, with the deployment's keys."""

    def __init__(self, settings: Settings) -> None:
        """Seal and hash with the keys in `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()

    def message(
        self, position: int, one: Message, route: Callable[[Request, Terms], Route], terms: Terms, usual: Message
    ) -> records.Record:
        """Return the record of one of many; `usual` has what it leaves out, `route` says where it may go."""
        if not isinstance(one, Message):
            raise InvalidRequest(f"messages[{position}]", f"must be a Message, not {type(one).__name__}")
        try:
            sender = usual.sender if one.sender is None else one.sender
            options = usual.options if one.options is None else one.options
            request = Send(
                to=one.to,
                text=one.text,
                sender="" if sender is None else sender,
                options={} if options is None else options,
            )
            if one.reference is not None or one.metadata is not None:
                reference = terms.reference if one.reference is None else one.reference
                metadata = terms.metadata if one.metadata is None else one.metadata
                terms = msgspec.structs.replace(terms, reference=reference, metadata=metadata)
            return self.record(
                request,
                "send",
                terms,
                route(request, terms),
                one.idempotency_key,
                most=usual.max_segments if one.max_segments is None else one.max_segments,
            )
        except InvalidRequest as error:
            raise error.at(f"messages[{position}]") from None

    def record(
        self,
        request: Request,
        operation: str,
        terms: Terms,
        route: Route,
        idempotency_key: str | None,
        *,
        most: int | None = None,
        **public: Any,
    ) -> records.Record:
        """Return the record of one request under a new id; `public` are further fields of `records.Public`.

        A text may have `most` segments, by default as many as the settings say.
        """
        id_ = new_id()
        check_text(self._settings, request, most)
        request, card = _without_card(request)
        private = records.encode_request(_routed(request, route))
        if len(route.accounts) > 1:
            public["route"] = route.accounts
        sandbox = self._settings.sandbox
        return records.Record(
            id=id_,
            provider=route.accounts[0],
            public=records.encode_public(request, terms, operation, sandbox=sandbox, card=bool(card), **public),
            private=self._sealer.seal(private, id_),
            due=terms.send_at,
            valid_for=int(terms.valid_for * 1000) if terms.valid_for else None,
            number=self.number(request),
            idempotency=self._idempotency(terms.tenant, idempotency_key),
            fingerprint=self._settings.keyed(records.canonical(route.asked, operation, request, terms))
            if idempotency_key
            else "",
            code_ttl=terms.code_ttl * 1000 if terms.code_ttl else None,
            texts=isinstance(request, Send | Verify),
            card=self._card(card, id_),
            tenant=terms.tenant,
        )

    def again(
        self, id_: str, ended: records.Ended, old: records.Public, request: Request, *, doubtful: bool
    ) -> records.Record:
        """Return the record that redrives the job `id_`, which `ended` so: as it was asked for, from now on.

        `doubtful` says that the person may have the text already. Its idempotency key stays with the old one. Raises
        `InvalidRequest` and `ConfigurationError` where it cannot be asked for any more.
        """
        if old.card:
            raise InvalidRequest("id_", "was paid for by a card whose details are erased; ask for it anew", id_)
        if isinstance(request, Verify):
            self._settings.require_secrets("a verification")
        origin = {"redrive_of": id_, "possible_duplicate": doubtful}
        # As long as it may have been then.
        # The whole way once more.
        route = Route(old.route or (ended.provider,), "", frozenset(old.route))
        made = self.record(request, old.operation, old.terms, route, None, most=_MOST_SEGMENTS, **origin)
        return msgspec.structs.replace(made, redrives=id_, redrives_state=ended.state)

    def number(self, request: Request) -> str:
        """Return what the number it concerns is found by; empty where it concerns none, or nobody has a hash key."""
        to = request.arguments.get("number") if isinstance(request, Operation) else request.to
        return self._settings.hashed("number", to) if to else ""

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

    def job(self, record: records.Record, at: int, terms: Terms) -> Job:
        """Return the document of a job just written, without asking for it."""
        provider = record.provider
        fields = {b"d": record.public, b"x": record.private, b"p": provider.encode(), b"s": b"queued", b"n": b"1"}
        fields[b"h"] = f"{at} queued {provider} created".encode()
        begins = max(record.due or 0, at)
        if record.due and record.due > at:
            fields[b"w"] = f"time {record.due}".encode()
        if record.valid_for is not None:
            fields[b"z"] = str(begins + record.valid_for).encode()
        if terms.code_ttl:
            fields |= {b"vs": b"pending", b"ve": str(begins + terms.code_ttl * 1000).encode()}
        return records.job(record.id, fields, self._sealer, at, reveal=False)

    def _idempotency(self, tenant: str, key: str | None) -> str:
        if key is None:
            return ""
        if not isinstance(key, str) or not key:
            raise InvalidRequest("idempotency_key", "must be text that is not empty; leave it out for none")
        checks.utf8("idempotency_key", key)
        return self._settings.keyed("idempotency", tenant, key)


def _routed(request: Request, route: Route) -> Request:
    """Leave out what options are given for other accounts than those it may go to."""
    if not isinstance(request, Send | Verify) or not records.by_account(request.options, route.known):
        return request
    mine = {one: request.options[one] for one in route.accounts if one in request.options}
    only = mine.get(route.accounts[0], {}) if len(route.accounts) == 1 else mine
    return msgspec.structs.replace(request, options=only)


def _without_card(request: Request) -> tuple[Request, dict[str, Any]]:
    """Part a purchase from the card that pays for it: neither its record nor any hash may hold that."""
    if not isinstance(request, Operation) or not request.arguments.keys() & {"card_number", "security_code"}:
        return request, {}
    card = {name: value for name, value in request.arguments.items() if name in CARD_FIELDS}
    return Operation(arguments={name: one for name, one in request.arguments.items() if name not in card}), card
