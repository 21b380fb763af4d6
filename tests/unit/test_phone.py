"""What people write becomes E.164 or a refusal that says the way out; what is shown of it is masked."""

import random
from typing import Any

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import phone
from dispatcher.errors import InvalidNumber, InvalidRequest

NUMBER = "+447700900123"


@pytest.mark.parametrize(
    ("written", "region", "parsed"),
    [
        pytest.param("+447700900123", None, NUMBER, id="E.164, of a range kept for tests"),
        pytest.param("+447700900123", "US", NUMBER, id="a plus overrules the region"),
        pytest.param("447700900123", None, NUMBER, id="bare international"),
        pytest.param("44 7700 900123", None, NUMBER, id="bare international with spaces"),
        pytest.param("447700900123", "GB", NUMBER, id="bare international, in its own region"),
        pytest.param("00447700900123", None, NUMBER, id="leading 00"),
        pytest.param("00 44 7700 900123", "DE", NUMBER, id="leading 00 where one dials abroad so"),
        pytest.param("0011 44 7700 900123", "AU", NUMBER, id="leading 0011 in Australia"),
        pytest.param("07700 900123", "GB", NUMBER, id="as dialled at home"),
        pytest.param("+44 (0)7700 900123", None, NUMBER, id="the zero in brackets"),
        pytest.param("(+44) 7700-900.123", None, NUMBER, id="brackets, dash, dot"),
        pytest.param("+44\u20117700\u00a0900123", None, NUMBER, id="the dash and space that cannot break"),
        pytest.param("\u202a+447700900123\u202c\n", None, NUMBER, id="marks copied from an address book"),
        pytest.param("\uff0b\uff14\uff14 7700 900123", None, NUMBER, id="wide plus and digits"),
        pytest.param("+٤٤٧٧٠٠٩٠٠١٢٣", None, NUMBER, id="Arabic digits"),
        pytest.param("+12025550123", None, "+12025550123", id="a number of fiction"),
        pytest.param("(202) 555-0123", "US", "+12025550123", id="as written in America"),
        pytest.param("+390612345678", None, "+390612345678", id="Italy keeps its zero"),
        pytest.param("+54 11 15 5555 1234", None, "+5491155551234", id="Argentina's 15 becomes 9"),
        pytest.param("+80012345678", None, "+80012345678", id="of no country"),
        pytest.param("+29051234", None, "+29051234", id="five digits after the code are enough in Saint Helena"),
    ],
)
def test_a_number_becomes_e164(written: str, region: str | None, parsed: str) -> None:
    assert phone.parse(written, region) == parsed


@pytest.mark.parametrize(
    ("written", "region", "reason"),
    [
        pytest.param("", None, "is empty", id="empty"),
        pytest.param(" \n", None, "is empty", id="blank"),
        pytest.param("+", None, "is too short to be a phone number", id="a plus alone"),
        pytest.param("+44 7700 9001", None, "has 8 digits after +44, where 7, 9 or 10 are used", id="too short"),
        pytest.param("+4477009001234", None, "has 11 digits after +44, where 7, 9 or 10 are used", id="too long"),
        pytest.param("+12530000", None, "has 7 digits after +1, where 10 are used", id="no area code"),
        pytest.param("+49" + "1" * 14, None, "has 14 digits after +49", id="over the 15 digits of E.164"),
        pytest.param("+" + "1" * 300, None, "is too long", id="absurdly long"),
        pytest.param("+999123456789", None, "starts with no country's calling code", id="no such calling code"),
        pytest.param("+0447700900123", None, "starts with no country's calling code", id="zero after the plus"),
        pytest.param("07700900123", None, "starts with no country's calling code", id="national, region unknown"),
        pytest.param("6502530000", None, "has no plus, and no number of +65 looks like that", id="bare, doubtful"),
        pytest.param("0044 770090", "AU", "starts with 00", id="00 where one does not dial abroad so"),
        pytest.param("447700900123", "US", "has 12 digits after +1", id="bare international in another region"),
        pytest.param("+1-800-FLOWERS", None, "has letters in it", id="letters for digits"),
        pytest.param("+447700900123 ext. 5", None, "has letters in it", id="an extension"),
        pytest.param("Ann +447700900123", None, "has letters in it", id="a name before it"),
        pytest.param("+447700900123/4", None, "is not one number", id="a slash between two"),
        pytest.param("+447700900123, +447700900124", None, "is not one number", id="two numbers"),
        pytest.param("44+7700900123", None, "is not one number", id="a plus inside"),
        pytest.param("++447700900123", None, "is not one number", id="two pluses"),
        pytest.param("+447700900123#", None, "is not one number", id="keys that are no digits"),
    ],
)
def test_a_refusal_says_why_and_the_way_out(written: str, region: str | None, reason: str) -> None:
    with pytest.raises(InvalidNumber) as refused:
        phone.parse(written, region)
    assert refused.value.reason.startswith(reason)
    assert refused.value.reason.endswith("write it in international form, e.g. +447700900123")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(None, "must be text, not NoneType", id="None"),
        pytest.param(447700900123, "must be text, not int", id="int"),
        pytest.param(b"+447700900123", "must be text, not bytes", id="bytes"),
        pytest.param(["+447700900123"], "must be text, not list", id="list"),
    ],
)
def test_what_is_not_text_is_refused_by_its_type(value: Any, reason: str) -> None:
    with pytest.raises(InvalidNumber) as refused:
        phone.parse(value)
    assert refused.value.reason.startswith(reason)


@pytest.mark.parametrize("region", ["UK", "gb", "", "Germany"])
def test_an_unknown_region_is_refused_whatever_the_number(region: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^region .* ISO 3166"):
        phone.parse(NUMBER, region)


def test_a_refusal_does_not_show_the_number() -> None:
    with pytest.raises(InvalidNumber) as refused:
        phone.parse("+442079460123456")
    assert str(refused.value).startswith("to '+44***********56': ")
    assert "2079460" not in str(refused.value)


@pytest.mark.parametrize("written", ["(" * 100_000 + "#", "1" * 100_000, " 1" * 50_000 + "("])
def test_a_flood_is_refused_at_once_and_not_repeated(written: str) -> None:
    with pytest.raises(InvalidNumber) as refused:
        phone.parse(written)
    assert len(str(refused.value)) < 200


def verdict(number: str) -> str | None:
    """Return what the library alone makes of a plus and digits, within the 15 digits of E.164."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    possible = phonenumbers.is_possible_number_with_reason(parsed) == phonenumbers.ValidationResult.IS_POSSIBLE
    formatted = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return formatted if possible and len(formatted) <= 16 else None


def parsed(number: str) -> str | None:
    try:
        return phone.parse(number)
    except InvalidNumber:
        return None


@pytest.mark.parametrize("code", phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
def test_the_fast_path_agrees_with_the_library(code: int) -> None:
    """Every calling code, each length, numbers that start like a national prefix and others."""
    chance = random.Random(code)
    starts = ["", "0", "00", "1", "8", "9", "15", "90", "1115"]
    numbers = [
        (f"+{code}{start}" + "".join(chance.choices("0123456789", k=15)))[: 1 + length]
        for length in range(4, 18)
        for start in starts
    ]
    assert [parsed(number) for number in numbers] == [verdict(number) for number in numbers]


@given(st.from_regex(r"\+[0-9]{4,17}", fullmatch=True))
def test_any_plus_and_digits_are_taken_as_the_library_takes_them(number: str) -> None:
    assert parsed(number) == verdict(number)


@given(st.text("+00123456789 -.()[]/x\n", max_size=24))
def test_what_is_taken_is_e164_and_taken_again(written: str) -> None:
    once = parsed(written)
    if once is not None:
        assert once[0] == "+"
        assert once[1:].isdigit()
        assert len(once) <= 16
        assert phone.parse(once) == once


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        pytest.param("+447700900123", "+44********23", id="country code and last two"),
        pytest.param("+12025550123", "+1********23", id="a code of one digit"),
        pytest.param("+35312345678", "+353******78", id="a code of three"),
        pytest.param("+29051234", "+290***34", id="the shortest numbers"),
        pytest.param("+2901234", "+290****", id="too short to show two of"),
        pytest.param("60777", "***77", id="a short code"),
        pytest.param("1234", "****", id="a shorter one is hidden"),
        pytest.param("+999123456", "********56", id="no such calling code"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_mask_keeps_the_country_code_and_the_last_two_digits(number: str, masked: str) -> None:
    assert phone.mask(number) == masked


@pytest.mark.parametrize(
    ("number", "region"),
    [
        pytest.param("+4915112345678", "DE", id="the only country of its code"),
        pytest.param("+14165550123", "CA", id="one of several, by its area"),
        pytest.param("+447781123456", "GG", id="Guernsey within +44"),
        pytest.param("+447700900123", "GB", id="a range of no country counts for the main one"),
        pytest.param("+80012345678", "001", id="of no country"),
        pytest.param("+999123456", "ZZ", id="no such calling code"),
        pytest.param("+1", "ZZ", id="no number"),
        pytest.param("60777", "ZZ", id="not E.164"),
        pytest.param("", "ZZ", id="nothing"),
    ],
)
def test_the_country_of_a_number(number: str, region: str) -> None:
    assert phone.country(number) == region


SHARED = [regions for regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.values() if len(regions) > 1]


@pytest.mark.parametrize("regions", SHARED, ids=lambda regions: str(regions[0]))
def test_countries_that_share_a_calling_code_are_told_apart_as_the_library_does_it(regions: tuple[str, ...]) -> None:
    """For its own examples of every kind of number, and for what is like them in its first digits."""
    chance = random.Random(1)
    for region in regions:
        for kind in phonenumbers.PhoneNumberType.values():
            if (example := phonenumbers.example_number_for_type(region, kind)) is None:
                continue
            written = phonenumbers.format_number(example, phonenumbers.PhoneNumberFormat.E164)
            for kept in range(len(written), 3, -1):
                number = written[:kept] + "".join(chance.choices("0123456789", k=len(written) - kept))
                told = phonenumbers.region_code_for_number(phonenumbers.parse(number))
                assert phone.country(number) == (told or regions[0])
