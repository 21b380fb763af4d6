"""The alphabet a text travels in and the parts it is sent as: 3GPP TS 23.038 (alphabets), TS 23.040 (parts).

The default alphabet and its extension table are counted; national language shift tables are not used. What keeps a text
out of that alphabet, and what would bring it in, is told on demand: counting alone is on every text's road.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
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


#: What typesetting puts in place of plain characters, by the plain one that says the same. Letters are not among them,
#: nor what a reader would take for something else, nor a backtick, which somebody typed.
_PLAIN: Final = {
    "'": "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{SINGLE LOW-9 QUOTATION MARK}"
    "\N{SINGLE HIGH-REVERSED-9 QUOTATION MARK}\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"
    "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}\N{PRIME}\N{ACUTE ACCENT}"
    "\N{MODIFIER LETTER APOSTROPHE}\N{MODIFIER LETTER TURNED COMMA}\N{MODIFIER LETTER PRIME}",
    '"': "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
    "\N{DOUBLE HIGH-REVERSED-9 QUOTATION MARK}\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}"
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}\N{DOUBLE PRIME}",
    "-": "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}\N{EN DASH}\N{EM DASH}\N{HORIZONTAL BAR}\N{MINUS SIGN}",
    "...": "\N{HORIZONTAL ELLIPSIS}",
    " ": "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{EN QUAD}\N{EM QUAD}\N{EN SPACE}\N{EM SPACE}"
    "\N{THREE-PER-EM SPACE}\N{FOUR-PER-EM SPACE}\N{SIX-PER-EM SPACE}\N{FIGURE SPACE}\N{PUNCTUATION SPACE}"
    "\N{THIN SPACE}\N{HAIR SPACE}\N{MEDIUM MATHEMATICAL SPACE}\N{IDEOGRAPHIC SPACE}\t",
    "\n": "\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}\x85",
    "/": "\N{FRACTION SLASH}\N{DIVISION SLASH}",
    # A bullet before a number must not become its sign.
    "*": "\N{ASTERISK OPERATOR}\N{BULLET}\N{TRIANGULAR BULLET}\N{HYPHEN BULLET}\N{BLACK SMALL SQUARE}\N{WHITE BULLET}",
    "~": "\N{TILDE OPERATOR}\N{SMALL TILDE}",
    # Seen by nobody.
    "": "\N{SOFT HYPHEN}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\N{WORD JOINER}"
    "\N{ZERO WIDTH NO-BREAK SPACE}\N{LEFT-TO-RIGHT MARK}\N{RIGHT-TO-LEFT MARK}\N{VARIATION SELECTOR-15}",
}
_TO_PLAIN: Final = str.maketrans({typeset: plain for plain, some in _PLAIN.items() for typeset in some})

#: What Unicode calls the control characters that a text may hold.
_CONTROLS: Final = {"\t": "CHARACTER TABULATION", "\x1b": "ESCAPE", "\x85": "NEXT LINE"}


class Forcing(msgspec.Struct, frozen=True):
    """A character that GSM-7 does not have, so that the whole text travels in UCS-2."""

    character: str
    #: As Unicode calls it.
    name: str
    #: Where it stands in the text, in code points, the first being 0.
    positions: tuple[int, ...]
    #: What says the same in GSM-7: empty for what is left out, and for an accent that joins the letter before it; None
    #: where nothing does.
    replacement: str | None

    def __repr__(self) -> str:
        """Leave out where it stands in whose text."""
        return f"Forcing({self.name})"


class Segments(msgspec.Struct, frozen=True, dict=True):
    """What a text costs to send."""

    encoding: Literal["GSM-7", "UCS-2"]
    #: Code points.
    characters: int
    #: Septets, escapes included, or UTF-16 code units.
    units: int
    #: Parts it is sent as; 0 for an empty text.
    count: int

    @cached_property
    def forcing(self) -> tuple[Forcing, ...]:
        """The characters that force UCS-2, in the order in which they come up; none of a text in GSM-7."""
        return _forcing(self.__dict__.get(_TEXT, ""))


#: Where a size in UCS-2 keeps the text that it is of, apart from its fields: it is no part of its value or its repr.
_TEXT: Final = "text"


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
    size = Segments(alphabet.name, len(text), units, count)
    if escaped is None:
        size.__dict__[_TEXT] = text
    return size


def parts(text: str) -> tuple[str, ...]:
    """Return a text as the parts that it is sent in, put together again the same text."""
    size = segments(text)
    if size.count <= 1:
        return (text,) if text else ()
    alphabet = _GSM if size.encoding == _GSM.name else _UCS
    found, start, units = list[str](), 0, 0
    for at, character in enumerate(text):
        width = 2 if alphabet.double.match(character) else 1
        if units + width > alphabet.of_many:
            found.append(text[start:at])
            start, units = at, 0
        units += width
    return (*found, text[start:])


def downgrade(text: str) -> str:
    """Return a text in GSM-7 where typesetting alone kept it from that, and as it is where more does.

    Quotes, dashes, spaces, bullets and ellipses become plain ones, what nobody sees is left out, and an accent that
    stands by itself joins its letter. Letters and emoji stay: a text with others than GSM-7's is returned unchanged, as
    is one that would take more parts than before, since an ellipsis becomes three full stops.
    """
    size = segments(text)
    if size.encoding == _GSM.name:
        return text
    plain = unicodedata.normalize("NFC", text).translate(_TO_PLAIN)
    after = segments(plain)
    return plain if after.encoding == _GSM.name and after.count <= size.count else text


def in_words(character: str, name: str, replacement: str | None) -> str:
    """Return a character that forces UCS-2 in words: itself where it shows, its name, and what may replace it."""
    # A combining one would join the quote before it.
    itself = f"{character} " if character.isprintable() and not unicodedata.combining(character) else ""
    named = {"\n": "a line end", " ": "a space", "": "nothing", None: "nothing says the same"}
    instead = named.get(replacement, replacement)
    return f"{itself}{name} ({instead if replacement is None else f'{instead} instead'})"


def _forcing(text: str) -> tuple[Forcing, ...]:
    where: dict[str, list[int]] = {}
    for found in _NOT_GSM.finditer(text):
        where.setdefault(found.group(), []).append(found.start())
    return tuple(
        Forcing(
            character,
            unicodedata.name(character, "") or _CONTROLS.get(character, f"U+{ord(character):04X}"),
            tuple(positions),
            _replacement(character, text, positions),
        )
        for character, positions in where.items()
    )


def _replacement(character: str, text: str, positions: list[int]) -> str | None:
    """Return what stands for a character in GSM-7, wherever it is; None for nothing."""
    plain = unicodedata.normalize("NFC", character).translate(_TO_PLAIN)
    if not _NOT_GSM.search(plain):
        return plain
    if unicodedata.combining(character) and all(_joins(text, at) for at in positions):
        return ""
    return None


def _joins(text: str, at: int) -> bool:
    """Say whether the accent at a position and the letter before it are one that GSM-7 has."""
    joined = unicodedata.normalize("NFC", text[max(0, at - 1) : at + 1])
    return len(joined) == 1 and not _NOT_GSM.search(joined)


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
