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

from dispatcher import phone
from dispatcher.errors import InvalidRequest
from dispatcher.outcomes import Failure, FailureKind

#: HTTP codes from here on are errors, and from there on the provider's own.
ERRORS: Final = HTTPStatus.BAD_REQUEST
BROKEN: Final = HTTPStatus.INTERNAL_SERVER_ERROR

#: Digits that amounts and counts have at most.
_DIGITS: Final = 15
_WHOLE: Final = re.compile(rf"-?[0-9]{{1,{_DIGITS}}}")
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


def bare(number: str) -> str:
    """Return a number in E.164 without its plus, as most vendors write it."""
    return number.removeprefix("+")


def lost(what: str) -> Failure:
    """Return the doubt that an answer leaves which lacks what it is for."""
    return Failure(kind=FailureKind.AMBIGUOUS, code="incomplete", message=f"the answer holds no {what}")


def invalid(code: str, message: str) -> Failure:
    """Return the failure of a request that can never work; `code` names what is wrong with it."""
    return Failure(kind=FailureKind.INVALID, code=code, message=message)
