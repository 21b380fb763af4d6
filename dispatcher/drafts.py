"""From a caller's arguments to records ready to be written: pure, and the same for every kind of client."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from dispatcher import checks, notices, phone, quiet, records, zones
from dispatcher.accounts import Route
from dispatcher.errors import InvalidNumber, InvalidRequest
from dispatcher.jobs import (
    CARD_FIELDS,
    CODE,
    Category,
    Job,
    Lane,
    Lookup,
    Message,
    OnUnknown,
    Operation,
    Request,
    Send,
    Terms,
    Verify,
    milliseconds,
    new_ids,
)
from dispatcher.optouts import OptOuts
from dispatcher.privacy import shown
from dispatcher.quiet import Hours
from dispatcher.routes import Facts
from dispatcher.settings import Settings
from dispatcher.text import downgrade

#: Segments that any text may have.
_MOST_SEGMENTS: Final = 255

#: What of its terms a message may say for itself.
_OWN_TERMS: Final = ("reference", "metadata", "timezone")

_BATCH: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def spelled(settings: Settings, text: Any, smart_encoding: Any) -> Any:
    """Return a text as it is sent: with plain quotes and the like where the caller, or else the settings, want that.

    What is no text is its request's to refuse. Raises `InvalidRequest` for a `smart_encoding` that is no bool.
    """
    smart = settings.smart_encoding if smart_encoding is None else checks.flag("smart_encoding", smart_encoding)
    return downgrade(text) if smart and isinstance(text, str) else text


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
    timezone: str | None = None,
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
        timezone=zone_name(timezone),
        code_ttl=code_ttl,
        on_unknown=OnUnknown.HOLD if on_unknown is None else member("on_unknown", OnUnknown, on_unknown),
        failover_after=failover_after,
    )


def zone_name(timezone: str | None) -> str:
    """Return the name of a time zone, "" for None. Raises `InvalidRequest` for one that there is not."""
    return "" if timezone is None else zones.zone(timezone).key


def number(field: str, value: Any) -> str:
    """Return a number in E.164. Raises `InvalidRequest` naming the field."""
    try:
        return phone.parse(value)
    except InvalidNumber as error:
        raise InvalidRequest(field, error.reason, error.value) from None


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


def check_text(settings: Settings, request: Request, most: int | None = None) -> tuple[int | None, str]:
    """Return the segments and the country of a text; None and "" of what is none.

    Raises `InvalidRequest` for one that is too long, or for a country that nobody is texted in.
    """
    if not isinstance(request, Send | Verify):
        return None, ""
    if most is not None:
        checks.whole("max_segments", most, 1, _MOST_SEGMENTS)
    most = settings.max_segments if most is None else most
    size, where = records.measured(request), phone.country(request.to)
    if most is not None and size.count > most:
        raise InvalidRequest(
            "text" if isinstance(request, Send) else "template",
            f"has {size.count} segments ({size.characters} characters in {size.encoding}), and at most {most} may "
            "be sent; shorten it, or raise max_segments (DISPATCHER_MAX_SEGMENTS)",
        )
    allowed = settings.allowed_countries
    if allowed and where not in allowed:
        raise InvalidRequest(
            "to",
            f"is a number of {where}, and DISPATCHER_COUNTRIES allows {', '.join(sorted(allowed))}; "
            "add it there, or leave that number out",
        )
    return size.count, where


def held(settings: Settings, request: Request, terms: Terms) -> Hours | None:
    """Return what holds a text back that may not go at this hour; None where nothing does.

    Raises `InvalidRequest` where nobody can tell what hour it is for the person.
    """
    if not isinstance(request, Send) or terms.category not in quiet.bound(settings.quiet):
        return None
    at = max(time.time() * 1000, terms.send_at or 0)
    told = quiet.hours(settings.quiet, request.to, terms.category, at=at, tenant=terms.tenant, timezone=terms.timezone)
    return None if told.until is None else told


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was checked, and how it is to be done: what a record is made of when it is written."""

    request: Request
    operation: str
    terms: Terms
    route: Route
    segments: int | None
    country: str
    idempotency: str
    fingerprint: str
    card: dict[str, Any]
    #: What holds it back until the quiet hours end; None where nothing does.
    held: Hours | None = None
    #: Who is told of it, as its record has that; empty where its caller says nothing.
    callback: str = ""

    def __repr__(self) -> str:
        """Show nothing of the person or the card."""
        return f"Draft({self.operation})"


class Callbacks:
    """Who is told of the jobs of one call, as their records have it."""

    def __init__(self, settings: Settings, url: str | None, task: str | None, queue: str | None) -> None:
        """Tell where the caller says. Raises `InvalidRequest` naming the field."""
        self._settings = settings
        self._said = url, task
        self._queue = queue
        self._known: dict[tuple[str | None, str | None], str] = {}
        #: Who is told of what says nothing for itself; empty where the caller says nothing either.
        self.usual = self._encoded(url, task, queue)

    def of(self, one: Message) -> str:
        """Return who is told of one of many messages. Raises `InvalidRequest`."""
        if one.callback_url is None and one.callback_task is None:
            return self.usual
        url, task = self._said
        own = (
            url if one.callback_url is None else one.callback_url,
            task if one.callback_task is None else one.callback_task,
        )
        try:
            known = self._known.get(own)
        except TypeError:
            # What is no text is refused below.
            known = None
        if known is None:
            known = self._known[own] = self._encoded(*own, self._queue if own[1] else None)
        return known

    def _encoded(self, url: str | None, task: str | None, queue: str | None) -> str:
        told = notices.target(
            url,
            task,
            queue,
            usual=self._settings.callback_queue,
            private=self._settings.callback_private,
            loopback=self._settings.sandbox,
        )
        return "" if told is None else notices.encode(told, self._settings.keyed, self._settings.sealer())


class Drafts:
    """Makes records of requests, with the deployment's keys."""

    def __init__(self, settings: Settings) -> None:
        """Seal and hash with the keys in `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()
        self._optouts = OptOuts(settings)
        #: Codes go to people on the opt-out list, too.
        self._passes = settings.otp_to_opted_out

    def message(
        self,
        position: int,
        one: Message,
        route: Callable[[Request, Terms], Route],
        terms: Terms,
        usual: Message,
        *,
        callbacks: Callbacks,
    ) -> Draft:
        """Check one of many; `usual` has what it leaves out, `route` says where it may go. Raises `InvalidRequest`."""
        if not isinstance(one, Message):
            raise InvalidRequest(f"messages[{position}]", f"must be a Message, not {type(one).__name__}")
        try:
            sender = usual.sender if one.sender is None else one.sender
            options = usual.options if one.options is None else one.options
            request = Send(
                to=one.to,
                text=spelled(
                    self._settings,
                    one.text,
                    usual.smart_encoding if one.smart_encoding is None else one.smart_encoding,
                ),
                sender="" if sender is None else sender,
                options={} if options is None else options,
            )
            own = {name: told for name in _OWN_TERMS if (told := getattr(one, name)) is not None}
            if own:
                zone_name(one.timezone)
                terms = msgspec.structs.replace(terms, **own)
            return self.check(
                request,
                "send",
                terms,
                route(request, terms),
                one.idempotency_key,
                most=usual.max_segments if one.max_segments is None else one.max_segments,
                callback=callbacks.of(one),
            )
        except InvalidRequest as error:
            raise error.at(f"messages[{position}]") from None

    def lookup(
        self,
        position: int,
        number: str,
        route: Callable[[Request, Terms], Route],
        terms: Terms,
        *,
        fresh: bool,
        callback: str = "",
    ) -> Draft:
        """Check one of many lookups; `route` says where it may go. Raises `InvalidRequest` that names its position."""
        try:
            request = Lookup(to=number, fresh=fresh)
            return self.check(request, "lookup", terms, route(request, terms), None, callback=callback)
        except InvalidRequest as error:
            where = f"numbers[{position}]"
            # Each of the numbers is what one of many messages has as its `to`.
            raise InvalidRequest(where, error.reason, error.value) if error.field == "to" else error.at(where) from None

    def check(
        self,
        request: Request,
        operation: str,
        terms: Terms,
        route: Route,
        idempotency_key: str | None,
        *,
        most: int | None = None,
        callback: str = "",
    ) -> Draft:
        """Check one request, whose text may have `most` segments, by default as many as the settings say.

        `callback` says who is told of it, as `Callbacks` has it. Raises `InvalidRequest`, and `ConfigurationError` for
        card details without a key.
        """
        segments, country = check_text(self._settings, request, most)
        request, card = _without_card(request)
        if card:
            self._check_card()
        return Draft(
            request=request,
            operation=operation,
            terms=terms,
            route=route,
            segments=segments,
            country=country,
            idempotency=self._idempotency(terms.tenant, idempotency_key),
            fingerprint=self._settings.keyed(records.canonical(route.asked, operation, request, terms))
            if idempotency_key
            else "",
            card=card,
            held=held(self._settings, request, terms),
            callback=callback,
        )

    def encode(self, drafts: Sequence[Draft], **public: Any) -> list[records.Record]:
        """Return a record of each, under a new id; `public` are further fields of `records.Public`."""
        ids = new_ids(len(drafts))
        private = [records.encode_request(_routed(one.request, one.route)) for one in drafts]
        # What is alike in many is encoded once; their terms are told apart by identity, and live as long as this call.
        known: dict[tuple[Any, ...], tuple[bytes, dict[str, str]]] = {}
        made: list[records.Record] = []
        for id_, draft, sealed in zip(ids, drafts, self._sealer.seal_each(private, ids), strict=True):
            terms, accounts = draft.terms, draft.route.accounts
            alike = (
                id(terms), draft.operation, draft.segments, draft.country, accounts, bool(draft.card), draft.callback,
            )  # fmt: skip
            if alike not in known:
                known[alike] = self._public(draft, public), self._more(draft)
            told, more = known[alike]
            made.append(
                records.Record(
                    id=id_,
                    provider=accounts[0],
                    public=told,
                    private=sealed,
                    due=terms.send_at,
                    valid_for=int(terms.valid_for * 1000) if terms.valid_for else None,
                    number=self.number(draft.request),
                    idempotency=draft.idempotency,
                    fingerprint=draft.fingerprint,
                    code_ttl=terms.code_ttl * 1000 if terms.code_ttl else None,
                    texts=draft.segments is not None,
                    card=self._sealed_card(draft.card, id_),
                    tenant=terms.tenant,
                    scopes=self._scopes(draft),
                    held=draft.held.until if draft.held else None,
                    why=draft.held.words if draft.held else "",
                    more=more,
                )
            )
        return made

    def record(
        self,
        request: Request,
        operation: str,
        terms: Terms,
        route: Route,
        key: str | None,
        *,
        most: int | None = None,
        callback: str = "",
    ) -> records.Record:
        """Return the record of one request that is checked as by `check`, under a new id."""
        return self.encode([self.check(request, operation, terms, route, key, most=most, callback=callback)])[0]

    def _more(self, draft: Draft) -> dict[str, str]:
        """Return what a record has that most have not.

        That is how long it is kept, that it may go to whoever opted out, and who is told of it.
        """
        kept = self._settings.kept_for(records.kind_of(draft.request), draft.terms.category)
        # A code that somebody may still type is known for as long as it lives.
        kept = min(max(kept, draft.terms.code_ttl or 0), self._settings.longest_kept)
        more = {} if kept == self._settings.longest_kept else {"kp": str(int(kept * 1000))}
        if draft.callback:
            more["cb"] = draft.callback
        # They ask for a code themselves, and the settings let it go.
        asked_for = self._passes and draft.terms.category == Category.OTP and draft.segments is not None
        return more | {"ps": "1"} if asked_for else more

    def _scopes(self, draft: Draft) -> str:
        """Return what the list may have of a text beside its number: the sender is the one that it names itself."""
        if draft.segments is None:
            return ""
        return self._optouts.scopes(draft.terms.tenant, getattr(draft.request, "sender", ""))

    def _public(self, draft: Draft, more: dict[str, Any]) -> bytes:
        if len(draft.route.accounts) > 1:
            more = {**more, "route": draft.route.accounts}
        return records.encode_public(
            draft.request,
            draft.terms,
            draft.operation,
            sandbox=self._settings.sandbox,
            segments=draft.segments,
            country=draft.country,
            card=bool(draft.card),
            **more,
        )

    def again(
        self,
        id_: str,
        ended: records.Ended,
        old: records.Public,
        request: Request,
        *,
        doubtful: bool,
        callback: str = "",
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
        made = self._asked_again(old, request, _whole_way(old, ended.provider), callback, origin)
        return msgspec.structs.replace(made, redrives=id_, redrives_state=ended.state)

    def resent(
        self,
        id_: str,
        account: str,
        old: records.Public,
        request: Verify,
        route: Route | None,
        *,
        callback: str = "",
    ) -> records.Record:
        """Return the record of another code for the verification `id_`, asked for as it was.

        It goes the whole way of the old one once more, unless there is another `route`. Raises `InvalidRequest`.
        """
        if route is None:
            route = _whole_way(old, account)
        else:
            request = _options_for(route, request, old.route or (account,))
        return self._asked_again(old, request, route, callback, {"resend_of": id_})

    def _asked_again(
        self, old: records.Public, request: Request, route: Route, callback: str, origin: dict[str, Any]
    ) -> records.Record:
        """Return the record of what was asked for before; `origin` are the fields of `records.Public` that say so."""
        # As long as it may have been then.
        draft = self.check(request, old.operation, old.terms, route, None, most=_MOST_SEGMENTS, callback=callback)
        (made,) = self.encode([draft], **origin)
        return made

    def number(self, request: Request) -> str:
        """Return what the number it concerns is found by; empty where it concerns none, or nobody has a hash key."""
        to = request.arguments.get("number") if isinstance(request, Operation) else request.to
        return self._settings.hashed("number", to) if to else ""

    def _check_card(self) -> None:
        """Raise `InvalidRequest` where card details are not to be taken, `ConfigurationError` without a key."""
        if not self._settings.allow_card_data:
            raise InvalidRequest(
                "card_number",
                "is not taken, nor are other card details; name a card that the vendor has stored, or set "
                "DISPATCHER_ALLOW_CARD_DATA=1",
            )
        self._settings.require_secrets("a card")

    def _sealed_card(self, card: dict[str, Any], id_: str) -> bytes:
        if not card:
            return b""
        return self._sealer.seal(msgspec.json.encode({name: str(value) for name, value in card.items()}), id_)

    def job(self, record: records.Record, at: int, terms: Terms) -> Job:
        """Return the document of a job just written, without asking for it."""
        provider = record.provider
        fields = {b"d": record.public, b"x": record.private, b"p": provider.encode(), b"s": b"queued", b"n": b"1"}
        fields[b"h"] = f"{at} queued {provider} created".encode()
        begins = max(record.due or 0, at)
        if record.due and record.due > at:
            fields[b"w"] = f"time {record.due}".encode()
        if record.held and record.held > at:
            fields[b"w"] = f"quiet_hours {record.held}".encode()
            fields[b"h"] += f"; {record.why}".encode()
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


def _whole_way(old: records.Public, account: str) -> Route:
    """Return the route of what is asked for once more, from its first account on; `account` is where it was last."""
    return Route(old.route or (account,), "", frozenset(old.route))


def _routed(request: Request, route: Route) -> Request:
    """Leave out what options are given for other accounts than those it may go to."""
    if not isinstance(request, Send | Verify) or not records.by_account(request.options, route.known):
        return request
    mine = {one: request.options[one] for one in route.accounts if one in request.options}
    only = mine.get(route.accounts[0], {}) if len(route.accounts) == 1 else mine
    return msgspec.structs.replace(request, options=only)


def _options_for(route: Route, request: Verify, before: Sequence[str]) -> Verify:
    """Give each account of another route the options that it had on the one before: they are nobody else's."""
    had = request.options
    if not records.by_account(had, before if len(before) > 1 else ()):
        had = dict.fromkeys(before, had)
    mine = {one: had[one] for one in route.accounts if had.get(one)}
    only = mine.get(route.accounts[0], {}) if len(route.accounts) == 1 else mine
    return msgspec.structs.replace(request, options=only)


def _without_card(request: Request) -> tuple[Request, dict[str, Any]]:
    """Part a purchase from the card that pays for it: neither its record nor any hash may hold that."""
    if not isinstance(request, Operation) or not request.arguments.keys() & {"card_number", "security_code"}:
        return request, {}
    card = {name: value for name, value in request.arguments.items() if name in CARD_FIELDS}
    return Operation(arguments={name: one for name, one in request.arguments.items() if name not in card}), card
