"""The alphabet and parts of a text, against the tables and sums of 3GPP TS 23.038."""

import re
import unicodedata
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.text import _TO_PLAIN, BASIC, EXTENSION, downgrade, parts, segments
from tests.commands import in_process

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


# -- what forces UCS-2, and the way back -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("Hello €", [], id="nothing"),
        pytest.param("It’s", [("’", "RIGHT SINGLE QUOTATION MARK", (2,), "'")], id="a curly quote"),
        pytest.param(
            "“a” “b”",
            [
                ("“", "LEFT DOUBLE QUOTATION MARK", (0, 4), '"'),
                ("”", "RIGHT DOUBLE QUOTATION MARK", (2, 6), '"'),
            ],
            id="each wherever it stands, in the order in which they come up",
        ),
        pytest.param(f"a{EMOJI}b–", [(EMOJI, "GRINNING FACE", (1,), None), ("–", "EN DASH", (3,), "-")], id="an emoji"),
        pytest.param("garçon", [("ç", "LATIN SMALL LETTER C WITH CEDILLA", (3,), None)], id="a letter stays"),
        pytest.param("e\u0301", [("\u0301", "COMBINING ACUTE ACCENT", (1,), "")], id="an accent that joins its letter"),
        pytest.param("x\u0301", [("\u0301", "COMBINING ACUTE ACCENT", (1,), None)], id="and one that cannot"),
        pytest.param("e\u0301x\u0301", [("\u0301", "COMBINING ACUTE ACCENT", (1, 3), None)], id="or not everywhere"),
        pytest.param("\u0301", [("\u0301", "COMBINING ACUTE ACCENT", (0,), None)], id="nor where there is none"),
        pytest.param("5 K\u212a", [("\u212a", "KELVIN SIGN", (3,), "K")], id="what is the same letter to Unicode"),
        pytest.param("a\xa0b\u200bc", [("\xa0", "NO-BREAK SPACE", (1,), " "), ("\u200b", "ZERO WIDTH SPACE", (3,), "")],
                     id="spaces, seen and unseen"),
        pytest.param("a\tb\x1b\ue000", [
            ("\t", "CHARACTER TABULATION", (1,), " "), ("\x1b", "ESCAPE", (3,), None), ("\ue000", "U+E000", (4,), None),
        ], id="those without a name of their own"),
    ],
)  # fmt: skip
def test_which_characters_force_ucs_2_and_where(text: str, found: list[tuple[object, ...]]) -> None:
    forcing = segments(text).forcing
    assert [(one.character, one.name, one.positions, one.replacement) for one in forcing] == found


def test_a_size_tells_nothing_of_its_text() -> None:
    """Neither as a value nor in its repr, though it can tell what forced it."""
    size = segments("canary’s")
    assert size == segments("Canary’s")
    assert "canary" not in repr(size) + repr(size.forcing) + msgspec.json.encode(size).decode()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        pytest.param("It’s “here”", 'It\'s "here"', id="quotes"),
        pytest.param("9–5 — so", "9-5 - so", id="dashes"),
        pytest.param("Wait…", "Wait...", id="an ellipsis"),
        pytest.param("10\u202fkm\xa0away", "10 km away", id="spaces"),
        pytest.param("• one\n• two", "* one\n* two", id="bullets"),
        pytest.param("para\xadgraph\u200b", "paragraph", id="what nobody sees"),
        pytest.param("one\u2028two", "one\ntwo", id="line ends"),
        pytest.param("cafe\u0301 – ouvert", "café - ouvert", id="an accent joins its letter"),
        pytest.param("Plain [text] €5", "Plain [text] €5", id="what is GSM-7 stays"),
        pytest.param("It’s ж", "It’s ж", id="and what stays UCS-2 anyway"),
        pytest.param(f"“{EMOJI}”", f"“{EMOJI}”", id="beside an emoji"),
        pytest.param("👩\u200d🚀…", "👩\u200d🚀…", id="or one that is several, joined by what nobody sees"),
        pytest.param("ça “va”", "ça “va”", id="or a letter that GSM-7 has no small one of"),
        pytest.param("Ωmega – \u2126", "Ωmega - Ω", id="the ohm sign is the letter"),
        # 70 units are one part; 3 * 70 = 210 septets would be two.
        pytest.param("…" * 70, "…" * 70, id="what would take more parts"),
        pytest.param("…" * 53, "..." * 53, id="3 * 53 = 159 still fit one"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_the_downgrade_changes_typesetting_alone_and_only_where_it_helps(text: str, plain: str) -> None:
    assert downgrade(text) == plain
    assert downgrade(plain) == plain, "done twice it is the same"


def test_one_curly_quote_doubles_the_price_of_a_text() -> None:
    text = "Don’t forget: your parcel comes tomorrow between 9 and 12. Reply 1 to change that."
    assert len(text) == 82
    assert (segments(text).count, segments(downgrade(text)).count) == (2, 1)


@given(st.text(max_size=200))
def test_the_downgrade_never_makes_a_text_dearer(text: str) -> None:
    plain = downgrade(text)
    assert segments(plain).count <= segments(text).count
    assert plain == text or segments(plain).encoding == "GSM-7"
    assert all(one.replacement is not None for one in segments(text).forcing) or plain == text


def test_what_is_put_in_place_of_typesetting_is_gsm_7() -> None:
    for typeset, plain in _TO_PLAIN.items():
        assert segments(chr(typeset)).encoding == "UCS-2", "else there is nothing to gain"
        assert segments(plain).encoding == "GSM-7"


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("a" * 160, [160], id="one part of 160"),
        pytest.param("a" * 161, [153, 8], id="161 = 153 + 8"),
        pytest.param("a" * 152 + "€" + "a" * 152, [152, 152, 1], id="an escape opens the next part: 2 + 151, then 1"),
        pytest.param("ж" * 70, [70], id="one part of 70"),
        pytest.param("ж" * 71, [67, 4], id="71 = 67 + 4"),
        pytest.param("ж" * 66 + EMOJI + "ж" * 66, [66, 66, 1], id="a pair opens the next part: 2 + 65, then 1"),
        pytest.param("ж" * 65 + EMOJI + "ж" * 67, [66, 67], id="a pair that fits: 65 + 2"),
    ],
)
def test_where_each_part_begins(text: str, lengths: list[int]) -> None:
    assert [len(one) for one in parts(text)] == lengths
    assert "".join(parts(text)) == text


@given(st.text(BASIC + EXTENSION + EMOJI + "жé", max_size=500))
def test_there_are_as_many_parts_as_are_counted(text: str) -> None:
    found = parts(text)
    assert len(found) == segments(text).count
    assert "".join(found) == text


# -- the page of the documentation -------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "segments.md").read_text()


def test_the_page_lists_what_is_replaced() -> None:
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE, re.MULTILINE)[1:]
    listed = {name for _, names in rows for name in names.split(", ")}
    forcing = segments("".join(map(chr, _TO_PLAIN))).forcing
    assert listed == {one.name.lower() for one in forcing}


def test_its_example_is_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command, told = re.findall(r'^\$ dispatcher segments "(.+)"\n((?:.+\n)+?)```', PAGE, re.MULTILINE)[0]
    ended = in_process({}, monkeypatch, capsys)("segments", command)
    assert ended.out == told


def test_its_file_is_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    text, told = re.findall(r'^    --text "(.+)"\n((?:.+\n)+?)```', PAGE, re.MULTILINE)[0]
    file = Path(__file__).parents[2] / "examples" / "customers.csv"
    run = in_process({}, monkeypatch, capsys)
    assert run("send-file", str(file), "--dry-run", "--text", text, "--rejects", "rejects.csv").out == told
