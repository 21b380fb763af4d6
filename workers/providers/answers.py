"""What several adapters read out of answers and callbacks: JSON as it comes, scalars, amounts, numbers.

Nothing here raises, whatever the value.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any, Final

import msgspec

from dispatcher import lookups, phone
from dispatcher.errors import InvalidRequest
from dispatcher.lookups import Network
from dispatcher.outcomes import Failure, FailureKind

#: HTTP codes from here on are errors.
ERRORS: Final = HTTPStatus.BAD_REQUEST

#: Digits that amounts and counts have at most.
_DIGITS: Final = 15
_WHOLE: Final = re.compile(rf"-?[0-9]{{1,{_DIGITS}}}")
_MCCMNC: Final = re.compile(r"[0-9]{5,6}")
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}


def document(body: bytes) -> Any:
    """Return an answer's JSON, with or without a byte order mark; None where it is none."""
    try:
        return msgspec.json.decode(body.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def mapping(value: Any) -> dict[str, Any]:
    """Return an object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return text or a number as text, without the blanks that pad it; empty for anything else."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def whole(value: Any) -> int | None:
    """Return a whole number, written as a number or as text."""
    written = text(value)
    return int(written) if _WHOLE.fullmatch(written) else None


def truth(value: Any) -> bool | None:
    """Return true or false, written as that, as 1 or 0, or as text."""
    return _TRUTH.get(text(value).lower()) if not isinstance(value, bool) else value


def decimal(value: Any) -> str | None:
    """Return an amount as decimal text with the digits it came with; None for what is no sensible one."""
    try:
        number = Decimal(text(value))
    except InvalidOperation:
        return None
    return f"{number:f}" if number.is_finite() and abs(number.adjusted()) < _DIGITS else None


def number(value: Any, region: str = "") -> str:
    """Return a number in E.164, written with or without its plus; empty for what is none, such as a short code.

    With `region` it may be written without its country's code.
    """
    written = text(value)
    bare_digits = written.isascii() and written.isdecimal()
    if region and bare_digits:
        with suppress(InvalidRequest):
            return phone.parse(written, region)
    with suppress(InvalidRequest):
        return phone.parse(f"+{written}") if bare_digits else phone.parse(written) if written[:1] == "+" else ""
    return ""


def known(value: Any) -> str:
    """Return text, or "unknown" where there is none."""
    return text(value) or lookups.UNKNOWN


def known_truth(value: Any) -> lookups.Truth:
    """Return true or false, or "unknown" for anything else."""
    told = truth(value)
    return lookups.UNKNOWN if told is None else told


def network(name: Any, country: Any = "", calling_code: Any = "", mccmnc: Any = "") -> Network:
    """Return a network by what a vendor says of it: a country by its English name, or else by its calling code.

    Of the digits of `mccmnc` the first three are the country's (ITU-T E.212).
    """
    where = lookups.country_named(text(country))
    if where == lookups.UNKNOWN:
        where = lookups.country_called(text(calling_code))
    digits = text(mccmnc) if _MCCMNC.fullmatch(text(mccmnc)) else ""
    return Network(name=known(name), mcc=known(digits[:3]), mnc=known(digits[3:]), country=where)


def is_absent(words: str) -> bool:
    """Say whether a register says that a phone is out of reach: "Absent Subscriber", in 3GPP TS 29.002's words.

    That is an answer, which may have been paid, and no error: who asks again pays again.
    """
    return "ABSENT" in words.upper()


def reached(words: str, good: str) -> lookups.Truth:
    """Say whether a phone was there: by a register's word for that, `good`, or by its word that it was not."""
    return True if words == good else False if is_absent(words) else lookups.UNKNOWN


def bare(number: str) -> str:
    """Return a number in E.164 without its plus, as most vendors write it."""
    return number.removeprefix("+")


def lost(what: str) -> Failure:
    """Return the doubt that an answer leaves which lacks what it is for."""
    return Failure(kind=FailureKind.AMBIGUOUS, code="incomplete", message=f"the answer holds no {what}")


def invalid(code: str, message: str) -> Failure:
    """Return the failure of a request that can never work; `code` names what is wrong with it."""
    return Failure(kind=FailureKind.INVALID, code=code, message=message)
