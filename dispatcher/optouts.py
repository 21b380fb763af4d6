"""Who wants no more texts: what a person says to that end, and the list that every text is held against.

An entry is about all texts to a number, or those of one tenant, from one sender, or both. The list holds keyed hashes
of numbers and scopes, each with when and by whom it came there, and where there is a key the number itself, sealed; it
is kept for ever. `lua/create.lua` and `lua/claim.lua` ask it, so that nobody on it is texted by whatever was enqueued
before. Beside it stands whom a provider blocks itself, which no word to us can lift.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import phone
from dispatcher.calls import Call, script
from dispatcher.errors import ConfigurationError, InvalidNumber
from dispatcher.jobs import moment
from dispatcher.privacy import mask_text
from dispatcher.words import Verdict

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: The Redis hash of those who want no more texts: as `lua/job.lua` says.
LIST: Final = "d:no"

#: The Redis hash of whom accounts block themselves.
BLOCKS: Final = "d:nb"

#: What an entry begins with that says: not on the list, though an account blocks them.
_WANTED: Final = b"+"

#: Answers to one word that a number gets in an hour: two machines would else talk for ever.
ANSWERS: Final = 3

#: Scopes whose hashes are remembered, those of as many tenants and senders.
_SCOPES: Final = 4096

#: Fields that one look through the list reads at a time.
_PAGE: Final = 1000

#: A sender that is a number, as people write it.
_NUMBER: Final = re.compile(r"\+?[\d\-(). ]+")

_WHAT: Final = "the list of those who opted out"


class By(StrEnum):
    """How we know it."""

    #: They texted one of the words.
    TEXT = "text"
    #: The provider told, or refused a text since they opted out there.
    PROVIDER = "provider"
    #: `Dispatcher.opt_out`, `opt_in` or an import.
    APPLICATION = "application"
    #: The operation `optout.add` was enqueued.
    OPERATION = "operation"


class Said(msgspec.Struct, frozen=True):
    """What came of a word: whether it is new, whether the list changed, whether the person is to be answered."""

    fresh: bool
    changed: bool
    owed: bool


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A text that a person sent to us, as it lies sealed in its event."""

    provider: str
    sender: str
    to: str
    text: str
    #: As the provider wrote it.
    at: str
    #: When it came, in milliseconds since 1970.
    received: int
    verdict: Verdict = ""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return "Text(...)"

    def to_dict(self, id_: str, *, reveal: bool) -> dict[str, Any]:
        """Return the document of the text `id_`; `from` and `text` masked unless `reveal`."""
        return {
            "id": id_,
            "provider": self.provider,
            "from": self.sender if reveal else phone.mask(self.sender),
            "to": self.to,
            "text": self.text if reveal else mask_text(self.text),
            "at": self.at,
            "received_at": moment(self.received),
            "opt_out": self.verdict if self.verdict in {"out", "in"} else None,
            "help": self.verdict == "help",
        }


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """Who came onto the list or off it, as it lies sealed in the event."""

    number: str
    by: By
    #: The account that it came by; empty where it came by none.
    provider: str = ""
    #: What it is about; empty for all texts.
    tenant: str = ""
    sender: str = ""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"Listed(by={self.by})"

    def to_dict(self, id_: str, *, reveal: bool) -> dict[str, Any]:
        """Return the document; number and sender masked unless `reveal`. `id_` is the number's keyed hash."""
        number = self.number if reveal else phone.mask(self.number)
        told = {"id": id_, "number": number, "by": str(self.by), "provider": self.provider}
        sender = self.sender if reveal else "*" * len(self.sender)
        return told | {"tenant": self.tenant or None, "sender": sender or None}


class OptOutEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the list. Number, tenant and sender are None where they are not shown, or nobody can tell them."""

    #: The keyed hash of the number, and of the tenant and sender that it is about; that is empty for all texts.
    hash: str
    scope: str
    since: datetime
    by: str
    number: str | None = None
    tenant: str | None = None
    sender: str | None = None
    #: The account that it came by.
    provider: str | None = None

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"OptOutEntry(since={self.since:%Y-%m-%d}, by={self.by})"


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an entry keeps sealed."""

    number: str = msgspec.field(name="n")
    tenant: str = msgspec.field(name="t", default="")
    sender: str = msgspec.field(name="s", default="")
    provider: str = msgspec.field(name="p", default="")


_kept: Final = msgspec.json.Decoder(_Kept)


def same_sender(sender: str) -> str:
    """Return a sender as senders are compared: no case, no spaces, of a number its digits alone."""
    if _NUMBER.fullmatch(sender.strip()):
        return "".join(one for one in sender if one.isdigit())
    return "".join(sender.casefold().split())


def is_number(sender: str) -> bool:
    """Say whether a sender is a number or short code, which people can text to."""
    return same_sender(sender).isdigit()


def is_texted(sender: str) -> bool:
    """Say whether a text to whom one came from could be sent: not to a short code, or a number without its country."""
    return bool(_parsed(sender))


class OptOuts:
    """The calls that put numbers on the list and take them off it, and what asks it."""

    def __init__(self, settings: Settings) -> None:
        """Take words, keys and times from `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()
        self._remembered = int(settings.events_retention * 1000)
        self._words = settings.words
        self._answers = {"out": settings.stop_text, "in": settings.start_text, "help": settings.help_text}
        self._scopes = lru_cache(maxsize=_SCOPES)(self._hashes)

    def verdict(self, text: str) -> Verdict:
        """Return what a text asks for: it must be one of the words and nothing else."""
        return self._words.verdict(text)

    def answer(self, verdict: Verdict) -> str:
        """Return what a word is answered; empty for nothing."""
        return self._answers.get(verdict, "")

    # -- what the list is asked for ------------------------------------------------------------------------------------

    def scopes(self, tenant: str, sender: str) -> str:
        """Return what an entry may be about that a text of this tenant and sender obeys, beside all texts.

        They are hashes separated by spaces; empty for a text without either.
        """
        return self._scopes(tenant, sender) if tenant or sender else ""

    def _hashes(self, tenant: str, sender: str) -> str:
        mine = [("", ""), (tenant, ""), ("", sender), (tenant, sender)]
        return " ".join(dict.fromkeys(self.scope(*one) for one in mine if one != ("", "")))

    def scope(self, tenant: str | None, sender: str | None) -> str:
        """Return the hash that an entry has beside its number's; empty where it is about all texts."""
        tenant, sender = tenant or "", same_sender(sender or "")
        return self._settings.hashed("scope", tenant, sender) if tenant or sender else ""

    def field(self, number: str, tenant: str | None = None, sender: str | None = None) -> str:
        """Return what an entry is found by; `number` is in E.164."""
        return _field(self._settings.hashed("number", number), self.scope(tenant, sender))

    def since(
        self, store: JobStore, number: str, tenant: str | None = None, sender: str | None = None
    ) -> datetime | None:
        """Return since when a text to an E.164 number is refused, None where it is not.

        Without a tenant and a sender that is one that has none. Raises `ConfigurationError` without a hash key,
        `StoreUnavailable`.
        """
        self._settings.require_hash_key(_WHAT)
        hashed = self._settings.hashed("number", number)
        fields = [_field(hashed, scope) for scope in ("", *self.scopes(tenant or "", sender or "").split())]
        with store.errors():
            stored: Any = store.redis.hmget(LIST, fields)
        found = [moment(one.split(b" ")[0]) for one in stored if refuses(one)]
        return min(found, default=None)

    def blocked_by(self, store: JobStore, number: str) -> dict[str, datetime]:
        """Return the accounts that told us to block a number themselves, and when. Raises as `since` does."""
        self._settings.require_hash_key(_WHAT)
        with store.errors():
            stored: Any = store.redis.hget(BLOCKS, self._settings.hashed("number", number))
        words = (stored or b"").decode().split()
        return {account: moment(at) for account, at in sorted(zip(words[::2], words[1::2], strict=True))}

    def entries(self, store: JobStore, number: str = "", *, reveal: bool = False) -> Iterator[OptOutEntry]:
        """Yield the entries of the list, or those of one number; it is read a page at a time, all of it.

        What comes or goes meanwhile may be among them or not. Raises as `since` does.
        """
        self._settings.require_hash_key(_WHAT)
        match = f"{self._settings.hashed('number', number)}*" if number else None
        cursor: Any = 0
        page: Any
        while True:
            with store.errors():
                cursor, page = store.redis.hscan(LIST, cursor, match=match, count=_PAGE)
            for field, stored in page.items():
                if refuses(stored):
                    yield self._entry(field.decode(), stored, reveal=reveal)
            if not int(cursor):
                return

    def _entry(self, field: str, stored: bytes, *, reveal: bool) -> OptOutEntry:
        at, by, *rest = stored.split(b" ", 2)
        hashed, _, scope = field.partition(" ")
        entry = OptOutEntry(hash=hashed, scope=scope, since=moment(at), by=by.decode())
        if not (rest and reveal):
            return entry
        try:
            kept = _kept.decode(self._sealer.open(rest[0], field))
        except ConfigurationError:
            # Sealed with a key that is ours no more: the hashes say enough.
            return entry
        return msgspec.structs.replace(
            entry,
            number=kept.number,
            tenant=kept.tenant or None,
            sender=kept.sender or None,
            provider=kept.provider or None,
        )

    # -- what changes it -----------------------------------------------------------------------------------------------

    def said(self, text: Text, ref: str, callback: str = "") -> Call[Said]:
        """Take in a text that came with a callback.

        `ref` is the provider's id of it; without one the whole tells one text from another.
        """
        whole = (ref,) if ref else (text.sender, text.to, text.text, text.at)
        once = self._settings.keyed("inbound", text.provider, "id" if ref else "whole", *whole)
        sealed = self._sealer.seal(msgspec.json.encode(text), once)
        number = _parsed(text.sender) if text.verdict else ""
        sender = text.to if text.verdict in {"out", "in"} and self._by_sender(text) else ""
        listed = Listed(number=number, by=By.TEXT, provider=text.provider, sender=sender)
        most = ANSWERS if callback and self.answer(text.verdict) else 0
        return self._call(
            text.verdict,
            listed,
            text.received,
            once=once,
            text=sealed,
            ref=ref,
            callback=callback,
            most=most,
            lifted=self._lifted(text, sender) if text.verdict == "in" else (),
        )

    def _by_sender(self, text: Text) -> bool:
        """Say whether a stop is about the number alone that it was texted to.

        Only where the account sends from numbers, and each text says from which: else nobody knows what comes from
        there, and a stop is about all.
        """
        if self._settings.stop_scope != "sender" or not is_number(text.to):
            return False
        return is_number(self._settings.account(text.provider).get("sender", ""))

    def _lifted(self, text: Text, sender: str) -> tuple[tuple[str, str, str], ...]:
        """Return the senders whose entries a start lifts, and by whom alone: what a texted stop can have put there."""
        theirs = ((text.to, "", ""),) if is_number(text.to) else ()
        return (*theirs, ("", "", By.TEXT if sender else ""))

    def told(self, number: str, provider: str, at: int, whole: str, *, out: bool) -> Call[Said]:
        """Take in the provider's own word on a number, which came at `at` ms; `whole` is what it was told with."""
        once = self._settings.keyed("optout", provider, number, whole)
        listed = Listed(number=_parsed(number), by=By.PROVIDER, provider=provider)
        return self._call("out" if out else "in", listed, at, once=once, account=provider)

    def refused(self, number: str, provider: str, *, noted: bool = False, forgotten: bool = False) -> Call[Said]:
        """Take in that a provider refused a text to an E.164 number, since the person opted out there.

        Where it blocked them before they wanted texts again, that says nothing new. `noted` says that it is nothing
        the person said, such as a register: then the account's block is noted alone. Of a person who was `forgotten`
        the hash alone is kept.
        """
        listed, word = Listed(number=number, by=By.PROVIDER, provider=provider), "noted" if noted else "refused"
        return self._call("out", listed, None, account=provider, refused=word, forgotten=forgotten)

    def put(
        self,
        number: str,
        by: By,
        provider: str = "",
        *,
        out: bool,
        tenant: str | None = None,
        sender: str | None = None,
    ) -> Call[Said]:
        """Put an E.164 number on the list or take it off. Raises `ConfigurationError` without a hash key."""
        self._settings.require_hash_key(_WHAT)
        listed = Listed(number=number, by=by, provider=provider, tenant=tenant or "", sender=sender or "")
        return self._call("out" if out else "in", listed, None, account="" if tenant or sender else provider)

    def kept(self, listed: Listed) -> bytes:
        """Return what an entry keeps sealed; empty where there is no key, or no number is known."""
        if not self._sealer or not listed.number:
            return b""
        told = _Kept(listed.number, listed.tenant, listed.sender, listed.provider)
        return self._sealer.seal(msgspec.json.encode(told), self.field(listed.number, listed.tenant, listed.sender))

    def _call(
        self,
        verdict: Verdict,
        listed: Listed,
        at: int | None,
        *,
        once: str = "",
        text: bytes = b"",
        ref: str = "",
        callback: str = "",
        most: int = 0,
        account: str = "",
        refused: str = "",
        forgotten: bool = False,
        lifted: Sequence[tuple[str, str, str]] = (),
    ) -> Call[Said]:
        number = self._settings.hashed("number", listed.number) if listed.number else ""
        told = msgspec.structs.replace(listed, number="") if forgotten else listed
        event = self._sealer.seal(msgspec.json.encode(told), number)
        said = "" if at is None else at
        arguments: list[bytes | str | float] = [once, self._remembered, text, verdict, number, said, listed.by, event]
        arguments += ("1" if ref else "", callback, most, account, refused)
        if number and verdict == "out":
            arguments += (self.field(listed.number, listed.tenant, listed.sender), self.kept(told))
        elif number and verdict == "in":
            for sender, tenant, by in lifted or ((listed.sender, listed.tenant, ""),):
                arguments += (self.field(listed.number, tenant, sender), by)
        return Call(script("people"), arguments, lambda answer: Said(*map(bool, answer)), durable=True)


def refuses(stored: bytes | None) -> bool:
    """Say whether what the list has under a field keeps texts from being sent."""
    return stored is not None and not stored.startswith(_WANTED)


def _field(number: str, scope: str) -> str:
    return f"{number} {scope}" if scope else number


def _parsed(number: str) -> str:
    """Return a number in E.164; empty for a short code and the like, whom nobody texts."""
    try:
        return phone.parse(number)
    except InvalidNumber:
        return ""
