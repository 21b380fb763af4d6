"""The alphabet and parts of a text, against the tables and sums of 3GPP TS 23.038."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.text import BASIC, EXTENSION, segments

EMOJI = "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("text", "units", "count"),
    [
        pytest.param("", 0, 0, id="empty text is no part"),
        pytest.param("a", 1, 1, id="one character"),
        pytest.param("a" * 160, 160, 1, id="160 fill one part"),
        pytest.param("a" * 161, 161, 2, id="161 take two"),
        pytest.param("a" * 306, 306, 2, id="306 = 2 * 153 fill two"),
        pytest.param("a" * 307, 307, 3, id="307 take three"),
        pytest.param("Ä" * 160, 160, 1, id="accents of the alphabet count once"),
        pytest.param("line\r\n", 6, 1, id="line ends count once each"),
        pytest.param("€" * 80, 160, 1, id="80 escaped characters fill one part"),
        pytest.param("€" * 80 + "a", 161, 2, id="and one more character opens the next"),
        pytest.param("a" * 159 + "€", 161, 2, id="an escaped character that passes 160"),
        pytest.param("a" * 152 + "€" + "a" * 152, 306, 3, id="an escape at the boundary leaves a septet empty"),
        pytest.param("a" * 151 + "€" + "a" * 153, 306, 2, id="an escape just before the boundary leaves none"),
        pytest.param("a" * 152 + "[" + "a" * 151, 305, 2, id="a split in ASCII that still fits two"),
        pytest.param("€" * 152, 304, 2, id="76 escaped characters fit each part of 153"),
        pytest.param("€" * 153, 306, 3, id="153 escaped characters do not fit two parts"),
    ],
)
def test_gsm_texts_are_counted_in_septets(text: str, units: int, count: int) -> None:
    size = segments(text)
    assert (size.encoding, size.characters, size.units, size.count) == ("GSM-7", len(text), units, count)


@pytest.mark.parametrize(
    ("text", "units", "count"),
    [
        pytest.param("ж", 1, 1, id="Cyrillic"),
        pytest.param("ç", 1, 1, id="the small c with cedilla is not in the alphabet"),
        pytest.param("`", 1, 1, id="nor is the backtick, though ASCII"),
        pytest.param("\t", 1, 1, id="nor the tab"),
        pytest.param("\x1b", 1, 1, id="nor a bare escape"),
        pytest.param("ж" * 70, 70, 1, id="70 fill one part"),
        pytest.param("ж" * 71, 71, 2, id="71 take two"),
        pytest.param("ж" * 134, 134, 2, id="134 = 2 * 67 fill two"),
        pytest.param("ж" * 135, 135, 3, id="135 take three"),
        pytest.param("ж" + "€^{}[]~\\|", 10, 1, id="extension characters count once here"),
        pytest.param("ж" + "a" * 69, 70, 1, id="one foreign character costs the whole text its alphabet"),
        pytest.param(EMOJI, 2, 1, id="an emoji is a surrogate pair"),
        pytest.param(EMOJI * 35, 70, 1, id="35 pairs fill one part"),
        pytest.param(EMOJI * 36, 72, 2, id="36 take two"),
        pytest.param("ж" * 66 + EMOJI + "ж" * 66, 134, 3, id="a pair at the boundary leaves a unit empty"),
        pytest.param("ж" * 65 + EMOJI + "ж" * 67, 134, 2, id="a pair just before the boundary leaves none"),
        pytest.param(EMOJI * 67, 134, 3, id="33 pairs fit each part of 67"),
    ],
)
def test_other_texts_are_counted_in_utf_16_units(text: str, units: int, count: int) -> None:
    size = segments(text)
    assert (size.encoding, size.characters, size.units, size.count) == ("UCS-2", len(text), units, count)


@pytest.mark.parametrize("character", [pytest.param(c, id=unicodedata.name(c, "FORM FEED")) for c in EXTENSION])
def test_each_extension_character_takes_two_septets(character: str) -> None:
    assert segments(character).units == 2
    assert segments("£" + character).units == 3, "beside a character outside ASCII too"


def test_the_basic_table_holds_127_characters_and_the_escape() -> None:
    assert len(set(BASIC)) == len(BASIC) == 127
    assert segments(BASIC).encoding == "GSM-7"


def test_no_character_outside_the_tables_is_gsm() -> None:
    """Every other code point that a text can hold, surrogates aside, changes the encoding."""
    others = set(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])) - set(BASIC + EXTENSION)
    assert not [character for character in others if segments(character).encoding != "UCS-2"]


def test_a_size_is_a_value() -> None:
    assert segments("a") == segments("b")
    with pytest.raises(AttributeError):
        segments("a").count = 2  # type: ignore[misc]


def pack(widths: list[int], room: int) -> int:
    """Count the parts one character at a time."""
    parts, left = 0, 0
    for width in widths:
        if width > left:
            parts, left = parts + 1, room
        left -= width
    return parts


@given(st.text(BASIC + EXTENSION, max_size=700))
def test_gsm_parts_are_what_packing_by_hand_gives(text: str) -> None:
    widths = [2 if character in EXTENSION else 1 for character in text]
    size = segments(text)
    assert size.units == sum(widths)
    assert size.count == (pack(widths, 153) if size.units > 160 else min(size.units, 1))


@given(st.text(st.sampled_from("жa€") | st.just(EMOJI), max_size=300).map(lambda text: text + "ж"))
def test_ucs_parts_are_what_packing_by_hand_gives(text: str) -> None:
    widths = [len(character.encode("utf-16-le")) // 2 for character in text]
    size = segments(text)
    assert size.units == sum(widths)
    assert size.count == (pack(widths, 67) if size.units > 70 else 1)
