"""Who wants no more texts: what a person says to that end, and the list that every text is held against.

The list holds keyed hashes of numbers, each with when and by whom it came there; it is kept for ever. `lua/create.lua`
and `lua/claim.lua` ask it, so that nobody on it is texted by whatever was enqueued before.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

from dispatcher import phone
from dispatcher.errors import InvalidNumber
from dispatcher.jobs import moment
from dispatcher.privacy import mask_text
from dispatcher.store import Call, script

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: The Redis hash of those who want no more texts: number's hash to "<ms> <by>".
LIST: Final = "d:no"

#: What is before and after a word that may be meant as one of these: blanks, quotes, full stops.
_AROUND: Final = re.compile(r"^[\W_]+|[\W_]+$")

#: Characters of a text that may be one of the words.
_LONGEST: Final = 160

#: "out": no more texts. "in": texts again. "": something else.
Verdict: TypeAlias = Literal["out", "in", ""]


class By(StrEnum):
    """How we know it."""

    #: They texted one of the words.
    TEXT = "text"
    #: The provider told.
    PROVIDER = "provider"
    #: `Dispatcher.opt_out` or `opt_in`.
    APPLICATION = "application"
    #: The operation `optout.add` was enqueued.
    OPERATION = "operation"


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
            "opt_out": self.verdict or None,
        }


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """Who came onto the list or off it, as it lies sealed in the event."""

    number: str
    by: By
    #: The account that it came by; empty where it came by none.
    provider: str = ""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"Listed(by={self.by})"

    def to_dict(self, id_: str, *, reveal: bool) -> dict[str, Any]:
        """Return the document; the number masked unless `reveal`. `id_` is its keyed hash."""
        number = self.number if reveal else phone.mask(self.number)
        return {"id": id_, "number": number, "by": str(self.by), "provider": self.provider}


class OptOuts:
    """The calls that put numbers on the list and take them off it, and the words that ask for it."""

    def __init__(self, settings: Settings) -> None:
        """Take words, keys and times from `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()
        self._remembered = int(settings.events_retention * 1000)
        self._words: dict[str, Verdict] = {
            **dict.fromkeys(_words(settings.start_words), "in"),
            **dict.fromkeys(_words(settings.stop_words), "out"),
        }

    def verdict(self, text: str) -> Verdict:
        """Return what a text asks for: it must be one of the words and nothing else, whatever its case."""
        # A longer one is none of the words; taking off what is around it would take long, too.
        return self._words.get(_AROUND.sub("", text).casefold(), "") if len(text) <= _LONGEST else ""

    def said(self, text: Text, ref: str) -> Call[tuple[bool, bool]]:
        """Take in a text; answers whether it is new, and whether the list changed.

        `ref` is the provider's id of it; without one the whole tells one text from another.
        """
        whole = (ref,) if ref else (text.sender, text.to, text.text, text.at)
        once = self._settings.keyed("inbound", text.provider, "id" if ref else "whole", *whole)
        sealed = self._sealer.seal(msgspec.json.encode(text), once)
        number = _parsed(text.sender) if text.verdict else ""
        listed = Listed(number=number, by=By.TEXT, provider=text.provider)
        return self._call(text.verdict, listed, text.received, once=once, text=sealed, ref=ref)

    def told(self, number: str, provider: str, at: int, whole: str, *, out: bool) -> Call[tuple[bool, bool]]:
        """Take in the provider's own word on a number, which came at `at` ms; `whole` is what it was told with."""
        once = self._settings.keyed("optout", provider, number, whole)
        listed = Listed(number=_parsed(number), by=By.PROVIDER, provider=provider)
        return self._call("out" if out else "in", listed, at, once=once)

    def put(self, number: str, by: By, provider: str = "", *, out: bool) -> Call[tuple[bool, bool]]:
        """Put an E.164 number on the list or take it off. Raises `ConfigurationError` without a hash key."""
        self._settings.require_hash_key("the list of those who opted out")
        return self._call("out" if out else "in", Listed(number=number, by=by, provider=provider), None)

    def since(self, store: JobStore, number: str) -> datetime | None:
        """Return since when an E.164 number is on the list, None where it is not.

        Raises `ConfigurationError` without a hash key, `StoreUnavailable`.
        """
        self._settings.require_hash_key("the list of those who opted out")
        with store.errors():
            stored: Any = store.redis.hget(LIST, self._settings.hashed("number", number))
        return moment(stored.decode().split(" ")[0]) if stored else None

    def _call(
        self, verdict: Verdict, listed: Listed, at: int | None, *, once: str = "", text: bytes = b"", ref: str = ""
    ) -> Call[tuple[bool, bool]]:
        number = self._settings.hashed("number", listed.number) if listed.number else ""
        told = self._sealer.seal(msgspec.json.encode(listed), number)
        said = "" if at is None else at
        arguments: list[bytes | str | float] = [once, self._remembered, text, verdict, number, said, listed.by, told]
        arguments.append("1" if ref else "")
        return Call(script("people"), arguments, lambda answer: (bool(answer[0]), bool(answer[1])), durable=True)


def _words(told: str) -> list[str]:
    return [word for one in told.split(",") if (word := _AROUND.sub("", one).casefold())]


def _parsed(number: str) -> str:
    """Return a number in E.164; empty for a short code and the like, whom nobody texts."""
    try:
        return phone.parse(number)
    except InvalidNumber:
        return ""
