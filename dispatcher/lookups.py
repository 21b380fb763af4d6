"""What is known of a number: the free part at once, and a provider's answer in one shape; pure.

A completed lookup's `job.result` is a `Result`, whichever provider answered. Each adapter reads `Facts` out of its
vendor's answer, and what the vendor does not say of country and line type comes from the number itself.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import msgspec
import phonenumbers
from phonenumbers import PhoneNumberFormat

from dispatcher import phone, zones
from dispatcher.jobs import moment

#: What stands for whatever the vendor does not say.
UNKNOWN: Final = "unknown"

#: True, false or "unknown", which is true to Python: compare with `is True`.
Truth: TypeAlias = bool | Literal["unknown"]

LINE_TYPES: Final = frozenset({*phone.LINE_TYPES.values(), UNKNOWN})


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A phone network; each field is "unknown" where nobody told."""

    name: str = UNKNOWN
    #: Mobile country code and mobile network code, as digits (ITU-T E.212).
    mcc: str = UNKNOWN
    mnc: str = UNKNOWN
    #: ISO 3166.
    country: str = UNKNOWN


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor's answer says of a number."""

    #: ISO 3166.
    country: str = UNKNOWN
    line_type: str = UNKNOWN
    #: The network that the number was first given to, and the one that serves it now.
    original_network: Network = Network()
    current_network: Network = Network()
    ported: Truth = UNKNOWN
    roaming: Truth = UNKNOWN
    reachable: Truth = UNKNOWN


class Result(Facts, frozen=True, kw_only=True):
    """What a completed lookup says, whoever was asked."""

    #: E.164.
    number: str
    #: The account that was asked, and when.
    provider: str
    asked_at: datetime
    #: It was not asked for this job.
    cached: bool = False
    #: The vendor's answer.
    raw: dict[str, Any]

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"Result({self.provider})"


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a number says of itself, by the metadata of `phonenumbers`."""

    #: E.164, and as people write it at home and abroad.
    number: str
    national: str
    international: str
    #: ISO 3166; "001" for codes of no country, such as +800.
    country: str
    line_type: str
    #: It lies in a range that is in use: ranges kept for tests and fiction do not.
    valid: bool
    #: The zones that it may be in, by IANA name.
    time_zones: list[str]

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return "Description(...)"

    def to_dict(self, *, reveal: bool = False) -> dict[str, Any]:
        """Return the document in JSON's own types; the number masked unless `reveal`."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        masked = dict.fromkeys(("number", "national", "international"), phone.mask(self.number))
        return document if reveal else document | masked


def describe(number: str, region: str | None = None) -> Description:
    """Return what a number says of itself, without any provider or Redis.

    With a `region` (ISO 3166) it may be written as it is dialled there. Raises `InvalidNumber`, and `InvalidRequest`
    for an unknown region.
    """
    number = phone.parse(number, region)
    parsed, where = phonenumbers.parse(number), phone.country(number)
    return Description(
        number=number,
        national=phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL),
        international=phonenumbers.format_number(parsed, PhoneNumberFormat.INTERNATIONAL),
        country=where,
        line_type=phone.line_type(number),
        valid=phonenumbers.is_valid_number(parsed),
        time_zones=[*zones.plausible(number, where)],
    )


def result(number: str, facts: Facts, raw: dict[str, Any], provider: str, asked_at: int) -> Result:
    """Return what a lookup found; `asked_at` is in milliseconds since 1970."""
    told = {name: getattr(facts, name) for name in Facts.__struct_fields__}
    if facts.country == UNKNOWN and (where := phone.country(number)) != phone.UNKNOWN:
        told["country"] = where
    if facts.line_type == UNKNOWN:
        told["line_type"] = phone.line_type(number)
    return Result(number=number, provider=provider, asked_at=moment(asked_at), raw=raw, **told)


@cache
def country_named(name: str) -> str:
    """Return the ISO 3166 code of a country by its English name, "unknown" for another word."""
    return _by_name().get(name.strip().casefold(), UNKNOWN)


@cache
def _by_name() -> dict[str, str]:
    from phonenumbers.geodata.locale import LOCALE_DATA  # noqa: PLC0415 - a large table that few need

    found: dict[str, str] = {}
    for code, names in LOCALE_DATA.items():
        name = names.get("en", "")
        # "*aa" says that it is as in that language.
        found[(names[name[1:]] if name.startswith("*") else name).casefold()] = code
    return found


def country_called(prefix: str) -> str:
    """Return the ISO 3166 code of the one country with a calling code, "unknown" where there are several or none."""
    digits = prefix.strip().lstrip("+")
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(digits), ()) if _is_code(digits) else ()
    return regions[0] if len(regions) == 1 and regions[0] != phone.WORLD else UNKNOWN


def _is_code(digits: str) -> bool:
    return digits.isascii() and digits.isdecimal() and len(digits) <= 3  # noqa: PLR2004 - ITU-T E.164, section 6.2.1
