"""Verifications beyond a job: what guards are told of one, another code for it, prefixes that are closed.

The scripts decide, each in one call and on Redis' clock: `lua/guards.lua` before anything is written, `lua/check.lua`
and `lua/judged.lua` where a code is typed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from dispatcher import checks, phone, records
from dispatcher.calls import Call, Calls, CodeVerdict, Created, script
from dispatcher.errors import (
    ConfigurationError,
    CountryLimited,
    CountryRefused,
    IllegalMove,
    InvalidRequest,
    KeyLimited,
    NotFound,
    NumberLimited,
    NumberTypeRefused,
    PrefixClosed,
    PrefixLimited,
    ResendTooSoon,
    VerificationRefused,
)
from dispatcher.guards import KEY_NAME, LAST_DIGITS, Window, prefix_of
from dispatcher.jobs import Operation, Request, Verify, moment
from dispatcher.outcomes import Checked
from dispatcher.privacy import Sealer, shown
from dispatcher.records import Public, Record
from dispatcher.settings import Settings
from dispatcher.store import JobStore

#: Times that one code may be checked.
CHECKS: Final = 5

#: The sorted set of closed prefixes, and what begins the key of each, as `lua/guards.lua` writes them.
CLOSED: Final = "d:vx"
_ONE_CLOSED: Final = "d:vx:c:"

#: Characters of the value of one guard key, and keys that one verification has at most.
_LONGEST: Final = 256
_MOST_KEYS: Final = 10

_REFUSALS: Final[dict[str, type[VerificationRefused]]] = {
    one.code: one
    for one in (
        CountryLimited, CountryRefused, KeyLimited, NumberLimited, NumberTypeRefused, PrefixClosed, PrefixLimited,
        ResendTooSoon,
    )
}  # fmt: skip


class _Guard(msgspec.Struct, frozen=True, omit_defaults=True):
    """One window, as `lua/guards.lua` takes it."""

    code: str
    of: str
    n: int
    ms: int
    name: str = ""


class _Watch(msgspec.Struct, frozen=True):
    """A prefix whose codes are watched, likewise."""

    of: str
    n: int
    ms: int
    share: int
    sealed: str
    shown: str


class _Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a verification is held against, likewise."""

    cooldown: int
    country: str
    number: str
    tenant: str
    guards: list[_Guard]
    resends: str = ""
    never: str = ""
    of: str = ""
    watch: _Watch | None = None
    allowed: bool = False


class ClosedPrefix(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers that begin alike and get no codes for a while: hardly anybody typed those that were sent."""

    #: Names it for `reopen`, without telling it.
    id: str
    #: The numbers but for their last digits; masked unless it was read with `reveal=True`.
    prefix: str
    country: str
    #: Codes that were sent and approved until it was closed.
    sent: int
    approved: int
    since: datetime
    until: datetime

    def __repr__(self) -> str:
        """Show what finds it, not the numbers."""
        return f"ClosedPrefix({self.id})"


class Guarding:
    """Holds verifications against the guards of the settings."""

    def __init__(self, settings: Settings) -> None:
        """Take rules and keys from `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()

    def hold(
        self,
        created: Call[Created],
        record: Record,
        request: Verify,
        *,
        tenant: str,
        keys: Mapping[str, str],
        resends: str = "",
    ) -> Call[Created]:
        """Return the call that creates a verification as `created` would, unless a guard refuses it.

        Raises, as it is read, `VerificationRefused`, and for what cannot be resent `NotFound` or `IllegalMove`.
        """
        asked = msgspec.json.encode(self._asked(record, request.to, tenant, keys, resends))

        def read(answer: list[Any]) -> Created:
            _refuse(answer, resends)
            return created.read(answer)

        return Call(script("verify"), [*created.arguments, asked], read, durable=True)

    def watched(self, number: str) -> dict[str, str]:
        """Return what a job's record has for its approval to be counted by; nothing where that is not watched."""
        conversion = self._settings.guarding.conversion
        if conversion is None or self._settings.exempt.has(number, {}):
            return {}
        return {"vg": f"{self._prefix(number)} {conversion.window.seconds * 1000}"}

    def _asked(self, record: Record, number: str, tenant: str, keys: Mapping[str, str], resends: str) -> _Asked:
        settings, country = self._settings, phone.country(number)
        asked = _Asked(
            cooldown=round(settings.resend_after * 1000),
            country=country,
            number=phone.mask(number),
            tenant=tenant,
            guards=[],
            resends=resends,
        )
        if settings.exempt.has(number, keys):
            return msgspec.structs.replace(asked, cooldown=0)
        never, of = self._never(number, country)
        return msgspec.structs.replace(
            asked,
            guards=list(self._guards(record.number, number, country, keys)),
            never=never,
            of=of,
            watch=self._watch(number),
            allowed=settings.favoured.has(number, keys),
        )

    def _never(self, number: str, country: str) -> tuple[str, str]:
        """Return what no time lifts of this number, and what that is about; "" where there is nothing."""
        allowed = self._settings.verified_countries
        if allowed and country not in allowed:
            return CountryRefused.code, country
        kind = phone.range_of(number) if self._settings.refused_types else ""
        return (NumberTypeRefused.code, f"{country}:{kind}") if kind in self._settings.refused_types else ("", "")

    def _guards(self, hashed: str, number: str, country: str, keys: Mapping[str, str]) -> list[_Guard]:
        rules = self._settings.guarding
        found = _each(NumberLimited, hashed, rules.number)
        for name, value in keys.items():
            found += _each(KeyLimited, self._settings.hashed("guard key", name, value), rules.of_key(name), name)
        found += _each(PrefixLimited, self._prefix(number), rules.prefix)
        return found + _each(CountryLimited, country, rules.of_country(country))

    def _watch(self, number: str) -> _Watch | None:
        conversion = self._settings.guarding.conversion
        if conversion is None:
            return None
        of, prefix = self._prefix(number), prefix_of(number)
        return _Watch(
            of=of,
            n=conversion.window.count,
            ms=conversion.window.seconds * 1000,
            share=conversion.share,
            sealed=base64.b64encode(self._sealer.seal(prefix.encode(), of)).decode(),
            shown=_masked(prefix),
        )

    def _prefix(self, number: str) -> str:
        return self._settings.hashed("prefix", prefix_of(number))


def guard_keys(given: Any) -> dict[str, str]:
    """Return the keys that a caller counts by. Raises `InvalidRequest` naming the one at fault."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or len(given) > _MOST_KEYS:
        raise InvalidRequest(
            "guard_keys", f'must be a dict of at most {_MOST_KEYS} texts, like {{"ip": "203.0.113.7"}}'
        )
    keys = dict(given)
    for name, value in keys.items():
        if not isinstance(name, str) or not KEY_NAME.fullmatch(name):
            raise InvalidRequest("guard_keys", "has a name that is not 1 to 32 of a-z, 0-9, - and _", shown(name))
        checks.text(f"guard_keys[{name}]", value)
        if not 0 < len(value) <= _LONGEST:
            why = f"must be text of 1 to {_LONGEST} characters; leave it out where nobody knows it"
            raise InvalidRequest(f"guard_keys[{name}]", why)
    return keys


class Resent(msgspec.Struct, frozen=True):
    """What another code is made from: the newest verification of a chain of resends."""

    id: str
    provider: str
    public: Public
    request: Verify
    #: Who is told of it, as its record has that.
    callback: str = ""

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Resent({self.id})"


def read_newest(store: JobStore, id_: str, sealer: Sealer) -> Resent:
    """Read the verification that another code is asked for.

    Raises `NotFound`, and `InvalidRequest` or `ConfigurationError` where it cannot be read.
    """
    next_: str | None = id_
    fields: dict[bytes, bytes] = {}
    while next_ is not None:
        with store.errors():
            found: Any = store.redis.hgetall(f"d:j:{next_}")
        if b"vs" not in found:
            break
        fields, id_ = found, next_
        newer = found.get(b"vn")
        next_ = newer.decode() if newer else None
    if not fields:
        raise NotFound("verification", shown(id_))
    public, request = records.stored(id_, fields, sealer)
    if not isinstance(request, Verify):
        raise NotFound("verification", shown(id_))
    return Resent(id_, fields[b"p"].decode(), public, request, fields.get(b"cb", b"").decode())


def verdict(
    settings: Settings, calls: Calls, request: Request, outcome: Checked, *, asked: bool = False
) -> Call[tuple[CodeVerdict, str]]:
    """Return the call that writes what a provider said of the code in `request`; `asked` for who typed it."""
    code = str(request.arguments.get("code", "")) if isinstance(request, Operation) else ""
    hashed = settings.hashed("code", outcome.verification, code)
    return calls.judged(outcome, hashed, tries=CHECKS, asked=asked)


# -- prefixes that are closed ------------------------------------------------------------------------------------------


def closed(store: JobStore, sealer: Sealer, *, reveal: bool) -> list[ClosedPrefix]:
    """Return the prefixes that are closed, the latest first."""
    with store.errors():
        ids: Any = store.redis.zrevrange(CLOSED, 0, -1)
        told: Any = store.redis.mget([f"{_ONE_CLOSED}{one.decode()}" for one in ids]) if ids else []
    return [
        _closed(id_.decode(), msgspec.json.decode(one), sealer, reveal=reveal)
        for id_, one in zip(ids, told, strict=True)
        if one
    ]


def reopen(store: JobStore, settings: Settings, prefix: str) -> bool:
    """Let codes go to a prefix again, named by its digits or its id; return whether it was closed."""
    name = checks.text("prefix", prefix).strip()
    if name.startswith("+"):
        digits = "".join(one for one in name.rstrip("*") if one.isdigit())
        name = settings.hashed("prefix", f"+{digits}")
    return store.run(Call(script("reopen"), [name], bool))


def _closed(id_: str, told: dict[str, Any], sealer: Sealer, *, reveal: bool) -> ClosedPrefix:
    prefix = told["prefix"]
    if reveal:
        try:
            prefix = sealer.open(base64.b64decode(told["sealed"]), id_).decode()
        except ConfigurationError:
            prefix = ""
    return ClosedPrefix(
        id=id_,
        prefix=prefix,
        country=told["country"],
        sent=int(told["sent"]),
        approved=int(told["approved"]),
        since=moment(told["since"]),
        until=moment(told["until"]),
    )


def _each(kind: type[VerificationRefused], of: str, windows: Sequence[Window], name: str = "") -> list[_Guard]:
    return [_Guard(kind.code, of, one.count, one.seconds * 1000, name) for one in windows]


def _masked(prefix: str) -> str:
    return phone.mask(prefix) + "*" * LAST_DIGITS


def _refuse(answer: Sequence[Any], resends: str) -> None:
    word = answer[0]
    if word == b"REFUSED":
        code, wait, key = answer[1].decode(), int(answer[2]), answer[3].decode()
        raise _REFUSALS[code](None if wait < 0 else -(-wait // 1000), key)
    if word == b"GONE":
        raise NotFound("verification", shown(resends))
    if word == b"OVER":
        state, status = answer[1].decode(), answer[2].decode()
        why = f"its verification is {status}; start another one with verify()"
        raise IllegalMove(resends, state, "resent", why)
