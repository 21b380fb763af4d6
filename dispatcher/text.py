"""The alphabet a text travels in and the parts it is sent as: 3GPP TS 23.038 (alphabets), TS 23.040 (parts).

The default alphabet and its extension table are counted; national language shift tables are not used.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

import msgspec

#: TS 23.038 section 6.2.1, in the order of its table, without the escape at 0x1B.
BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
#: TS 23.038 section 6.2.1.1: each takes an escape before it.
EXTENSION: Final = "\f^{}\\[~]|€"

_BASIC_ASCII: Final = "".join(filter(str.isascii, BASIC)).encode()
_EXTENSION_ASCII: Final = "".join(filter(str.isascii, EXTENSION)).encode()
_NOT_GSM: Final = re.compile(f"[^{re.escape(BASIC + EXTENSION)}]")


class _Alphabet(NamedTuple):
    """How one encoding counts."""

    name: Literal["GSM-7", "UCS-2"]
    #: Units in the only part: 140 octets.
    alone: int
    #: Units in each of several parts: 6 octets tell which part of which message it is.
    of_many: int
    #: The characters that take two units, and what stands for the two.
    double: re.Pattern[str]
    pair: str


_GSM: Final = _Alphabet("GSM-7", 160, 153, re.compile(f"[{re.escape(EXTENSION)}]"), "\x1b.")
_UCS: Final = _Alphabet("UCS-2", 70, 67, re.compile("[\U00010000-\U0010ffff]"), "\ud800\udc00")


class Segments(msgspec.Struct, frozen=True):
    """What a text costs to send."""

    encoding: Literal["GSM-7", "UCS-2"]
    #: Code points.
    characters: int
    #: Septets, escapes included, or UTF-16 code units.
    units: int
    #: Parts it is sent as; 0 for an empty text.
    count: int


def segments(text: str) -> Segments:
    """Return the encoding, size and number of parts of `text`.

    A part holds 160 septets or 70 units, of several parts each 153 or 67. An escaped character or a surrogate
    pair is never split: where it does not fit it opens the next part, as handsets need it.
    """
    escaped = _count_escaped(text)
    alphabet = _UCS if escaped is None else _GSM
    doubles = len(_UCS.double.findall(text)) if escaped is None else escaped
    units = len(text) + doubles
    if units <= alphabet.alone:
        count = min(units, 1)
    elif doubles:
        count = _pack(alphabet.double.sub(alphabet.pair, text), alphabet.pair[0], alphabet.of_many)
    else:
        count = -(-units // alphabet.of_many)
    return Segments(alphabet.name, len(text), units, count)


def _count_escaped(text: str) -> int | None:
    """Return how many characters take an escape, or None where GSM-7 cannot write the text."""
    if text.isascii():
        # Two passes in C over the bytes, since every text that is sent comes through here.
        rest = text.encode().translate(None, _BASIC_ASCII)
        return None if rest.translate(None, _EXTENSION_ASCII) else len(rest)
    if _NOT_GSM.search(text):
        return None
    return len(_GSM.double.findall(text))


def _pack(units: str, first: str, room: int) -> int:
    """Return how many parts of `room` units it takes when none may end with `first`, half of a pair."""
    parts = end = 0
    while end < len(units):
        end += room
        if end < len(units) and units[end - 1] == first:
            end -= 1
        parts += 1
    return parts
