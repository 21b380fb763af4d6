"""Phone numbers: from what people write to E.164, what may be shown of one, and its country.

Rules come from the metadata of the `phonenumbers` library. A number must be *possible*: a known country code
and a length that is used there. It need not be *valid*: ranges kept for tests and fiction, such as
+44 7700 900123, pass.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final, NamedTuple

import phonenumbers
from phonenumbers import (
    CountryCodeSource,
    NumberParseException,
    PhoneMetadata,
    PhoneNumber,
    PhoneNumberDesc,
    PhoneNumberFormat,
    PhoneNumberType,
)

from dispatcher.errors import InvalidNumber, InvalidRequest
from dispatcher.privacy import shown

#: What `country` answers for calling codes of no country, such as +800.
WORLD: Final = "001"
#: What `country` answers when nothing is known.
UNKNOWN: Final = "ZZ"

#: What `line_type` answers, "unknown" beside.
LINE_TYPES: Final = {
    PhoneNumberType.MOBILE: "mobile",
    PhoneNumberType.FIXED_LINE: "fixed_line",
    PhoneNumberType.FIXED_LINE_OR_MOBILE: "fixed_line_or_mobile",
    PhoneNumberType.VOIP: "voip",
    PhoneNumberType.TOLL_FREE: "toll_free",
    PhoneNumberType.PREMIUM_RATE: "premium_rate",
    PhoneNumberType.SHARED_COST: "shared_cost",
    PhoneNumberType.PAGER: "pager",
    PhoneNumberType.PERSONAL_NUMBER: "personal_number",
    PhoneNumberType.UAN: "uan",
    PhoneNumberType.VOICEMAIL: "voicemail",
}

_WAY_OUT: Final = "write it in international form, e.g. +447700900123"
_WORDS: Final = {
    NumberParseException.INVALID_COUNTRY_CODE: "starts with no country's calling code",
    NumberParseException.NOT_A_NUMBER: "is too short to be a phone number",
    NumberParseException.TOO_SHORT_AFTER_IDD: "is too short to be a phone number",
    NumberParseException.TOO_SHORT_NSN: "is too short to be a phone number",
    NumberParseException.TOO_LONG: "is too long to be a phone number",
}
#: Digits after a calling code, at least, of what the library takes for a number.
_LEAST_DIGITS: Final = 2
#: Digits after the plus, ITU-T E.164 section 6.
_MOST_DIGITS: Final = 15
#: Characters of what was written that a refusal masks and shows.
_MOST_SHOWN: Final = 40
#: Kinds of ranges that numbering plans keep apart, as `range_of` names them.
RANGES: Final = tuple(PhoneNumberType.to_string(one).lower() for one in PhoneNumberType.values())

#: Fewer characters than this, and showing two would show most of it.
_LEAST_SHOWN: Final = 5

#: What most numbers look like when they arrive: the first group tells the calling code.
_PLAIN: Final = re.compile(r"\+([0-9]{3})[0-9]{4,12}")
#: One number, with what people put around and between its digits. A slash or a second plus may mean two.
_ONE_NUMBER: Final = re.compile(r"[\s(\[]*+[+\uff0b]?[\d\s().\[\]\u2010-\u2015\u2212\uff0d-]*+")
_PLUS: Final = re.compile(r"[+\uff0b]")
#: Direction marks and zero-width characters that come along when a number is copied from an address book.
_INVISIBLE: Final = dict.fromkeys(
    [0xAD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A)]
)


class _Plan(NamedTuple):
    """How numbers look under one calling code."""

    code: str
    regions: tuple[str, ...]
    #: How many digits follow the code.
    lengths: frozenset[int]
    #: What some write before the national number and the library takes away, as 0 in +44 (0)7700 900123.
    prefix: re.Pattern[str] | None
    #: The first digits and lengths of all ranges that are in use or kept for use.
    pattern: re.Pattern[str]

    def takes(self, number: str) -> bool:
        """Say whether the library would return this plus and digits unchanged."""
        start = 1 + len(self.code)
        if len(number) - start not in self.lengths:
            return False
        prefix = self.prefix and self.prefix.match(number, start)
        return not prefix or prefix.end() == start


def parse(number: str, region: str | None = None) -> str:
    """Return `number` in E.164, such as `+447700900123`.

    Spaces, dashes, dots, brackets and a leading 00 are repaired. With a `region` (ISO 3166, such as "GB") a
    number may be written as it is dialled there; without one, `447700900123` is read as if it had its plus.

    Raises `InvalidNumber` for what cannot be one number in the world, `InvalidRequest` for an unknown region.
    """
    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise InvalidRequest(
            "region",
            "is not a country's code in ISO 3166; use two capitals, e.g. GB",
            shown(region),
        )
    try:
        plain = _PLAIN.fullmatch(number)
    except TypeError:
        raise _refusal(shown(number), f"must be text, not {type(number).__name__}") from None
    # Nearly all numbers end here: about a microsecond, where the library takes more than ten.
    if plain and (plan := _plan(plain[1])) and plan.takes(number):
        return number
    return _repair(number, region)


def mask(number: str) -> str:
    """Return `number` with its country code and last two digits only: `+44********23`.

    Of what is not E.164 (an inbound short code, say) the last two characters are kept, of short ones nothing.
    """
    plan = _plan(number[1:4]) if number.startswith("+") else None
    head = f"+{plan.code}" if plan else ""
    hidden = len(number) - len(head)
    if hidden < _LEAST_SHOWN:
        return head + "*" * hidden
    return f"{head}{'*' * (hidden - 2)}{number[-2:]}"


def country(number: str) -> str:
    """Return the ISO 3166 code of the country of an E.164 number, `WORLD` or `UNKNOWN`.

    A range that no country of a shared calling code uses counts for the main one: +44 7700 900123 is GB.
    """
    plan = _plan(number[1:4]) if number.startswith("+") else None
    if plan is None:
        return UNKNOWN
    if len(plan.regions) == 1:
        return plan.regions[0]
    national = number[1 + len(plan.code) :]
    if len(national) < _LEAST_DIGITS:
        return UNKNOWN
    found = _countries(plan.code).match(national)
    return (found and found.lastgroup) or plan.regions[0]


def range_of(number: str) -> str:
    """Return the kind of range that an E.164 number is in, one of `RANGES`; "unknown" for what is kept for fiction."""
    return PhoneNumberType.to_string(phonenumbers.number_type(phonenumbers.parse(number))).lower()


def line_type(number: str) -> str:
    """Return what kind of line an E.164 number is by its range: a value of `LINE_TYPES`, or "unknown".

    In some countries, such as the United States, no range tells a mobile from a fixed line: `fixed_line_or_mobile`.
    Ranges kept for tests and fiction are unknown.
    """
    return LINE_TYPES.get(phonenumbers.number_type(phonenumbers.parse(number)), "unknown")


def is_country(code: str) -> bool:
    """Say whether `code` is a country's in ISO 3166, in capitals."""
    return code in phonenumbers.SUPPORTED_REGIONS


@cache
def _countries(code: str) -> re.Pattern[str]:
    """Return what tells the countries that share a calling code apart, as the library does it: a group for each.

    Every text is asked for its country, and one pattern answers in a tenth of the time that the library takes.
    """
    return re.compile("|".join(map(_numbers_of, phonenumbers.COUNTRY_CODE_TO_REGION_CODE[int(code)])))


def _numbers_of(region: str) -> str:
    """Return a pattern of all numbers of one country, in a group of its name."""
    told = PhoneMetadata.metadata_for_region(region)
    assert told is not None, "every country of a calling code has metadata"  # noqa: S101 - tells mypy
    if told.leading_digits:
        return f"(?P<{region}>{told.leading_digits})"
    # Mobile numbers are most of those that are texted.
    ranges = (
        told.mobile, told.fixed_line, told.voicemail, told.uan, told.pager, told.personal_number, told.voip,
        told.shared_cost, told.toll_free, told.premium_rate,
    )  # fmt: skip
    assert told.general_desc is not None, "all metadata has a general part"  # noqa: S101 - tells mypy
    return f"(?P<{region}>(?={_shape(told.general_desc)})(?:{'|'.join(filter(None, map(_shape, ranges)))}))"


def _shape(told: PhoneNumberDesc | None) -> str:
    """Return a pattern of the numbers of one range, lengths included; empty where there are none."""
    if told is None or not told.national_number_pattern:
        return ""
    lengths = "|".join(f"[0-9]{{{length}}}" for length in told.possible_length)
    return (rf"(?=(?:{lengths})\Z)" if lengths else "") + rf"(?:{told.national_number_pattern})\Z"


@lru_cache(maxsize=1024)  # all thousand starts
def _plan(digits: str) -> _Plan | None:
    """Return the plan of the calling code that `digits` start with; no code is the start of another."""
    for length in range(1, len(digits) + 1):
        regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(_number(digits[:length]))
        if regions:
            return _read_plan(digits[:length], regions)
    return None


def _number(digits: str) -> int:
    # A code never starts with zero; int() would drop it and find another code.
    return int(digits) if digits.isdecimal() and digits[0] != "0" else 0


def _read_plan(code: str, regions: tuple[str, ...]) -> _Plan:
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(int(code), regions[0])
    assert metadata is not None, "every calling code has metadata"  # noqa: S101 - tells mypy
    general, prefix = metadata.general_desc, metadata.national_prefix_for_parsing
    assert general is not None, "all metadata has a general part"  # noqa: S101 - tells mypy
    return _Plan(
        code=code,
        regions=regions,
        lengths=frozenset(length for length in general.possible_length if len(code) + length <= _MOST_DIGITS),
        prefix=re.compile(prefix) if prefix else None,
        pattern=re.compile(general.national_number_pattern or ""),
    )


def _repair(number: str, region: str | None) -> str:
    written = number.translate(_INVISIBLE).strip()
    _check_shape(number, written)
    bare = region is None and not _PLUS.search(written)
    whole = _with_plus(written) if bare else written
    try:
        parsed = phonenumbers.parse(whole, region, keep_raw_input=True)
    except NumberParseException as error:
        raise _refusal(number, _WORDS[error.error_type]) from None
    _check_length(number, parsed)
    _check_sure(number, parsed, phonenumbers.normalize_digits_only(written), bare=bare)
    return phonenumbers.format_number(parsed, PhoneNumberFormat.E164)


def _check_shape(number: str, written: str) -> None:
    if not written:
        raise _refusal(number, "is empty")
    if any(character.isalpha() for character in written):
        raise _refusal(number, "has letters in it")
    if not _ONE_NUMBER.fullmatch(written):
        raise _refusal(number, "is not one number, plainly written")


def _with_plus(written: str) -> str:
    return "+" + phonenumbers.normalize_digits_only(written).removeprefix("00")


def _check_length(number: str, parsed: PhoneNumber) -> None:
    lengths = _known_plan(parsed).lengths
    digits = len(phonenumbers.national_significant_number(parsed))
    if digits not in lengths:
        used = f"+{parsed.country_code}, where {_either(lengths)} are used"
        raise _refusal(number, f"has {digits} digits after {used}")


def _check_sure(number: str, parsed: PhoneNumber, digits: str, *, bare: bool) -> None:
    """Refuse what may have been meant as a number of another country."""
    if digits.startswith("00"):
        if parsed.country_code_source == CountryCodeSource.FROM_DEFAULT_COUNTRY:
            raise _refusal(number, "starts with 00, which is not how one dials abroad from its region")
    elif bare and not _known_plan(parsed).pattern.fullmatch(phonenumbers.national_significant_number(parsed)):
        # Possible is too little here: 650 253 0000, as dialled in California, is possible in Singapore.
        raise _refusal(number, f"has no plus, and no number of +{parsed.country_code} looks like that")


def _known_plan(parsed: PhoneNumber) -> _Plan:
    plan = _plan(str(parsed.country_code))
    assert plan is not None, "the library returns known calling codes only"  # noqa: S101 - tells mypy
    return plan


def _refusal(number: str, reason: str) -> InvalidNumber:
    return InvalidNumber("to", number[:_MOST_SHOWN], f"{reason}; {_WAY_OUT}")


def _either(lengths: frozenset[int]) -> str:
    *most, last = sorted(lengths)
    return f"{', '.join(map(str, most))} or {last}" if most else str(last)
