"""What a caller's arguments must be, looked at where they arrive: a refusal names the argument and the way out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from dispatcher.errors import InvalidRequest
from dispatcher.privacy import shown

#: Rows that one listing has at most.
LONGEST_LIST: Final = 1_000_000


def text(field: str, value: Any) -> str:
    """Return a text that can be written anywhere, as Python's own. Raises `InvalidRequest`."""
    if not isinstance(value, str):
        raise InvalidRequest(field, f"must be text, not {type(value).__name__}")
    utf8(field, value)
    # Of another library, such as a template's, it is one that no document can carry.
    return value if type(value) is str else str.__str__(value)


def texts(field: str, values: Any) -> list[str]:
    """Return several texts as a list. Raises `InvalidRequest`."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray | memoryview):
        raise InvalidRequest(field, f"must be a list of texts, not {type(values).__name__}")
    return [text(f"{field}[{position}]", one) for position, one in enumerate(values)]


def utf8(field: str, value: str) -> None:
    """Raise `InvalidRequest` for text that no encoding carries."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, "holds half of a surrogate pair, which no text can carry; decode it anew") from None


def flag(field: str, value: Any) -> bool:
    """Return what is True or False: a word such as "no" would count as true. Raises `InvalidRequest`."""
    if not isinstance(value, bool):
        raise InvalidRequest(field, f"must be True or False, not {type(value).__name__}")
    return value


def whole(field: str, value: Any, least: int, most: int) -> int:
    """Return a whole number from `least` to `most`. Raises `InvalidRequest`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(field, f"must be a whole number from {least} to {most}", shown(value))
    return value


def timeout(field: str, value: Any) -> float:
    """Return seconds to wait, any number of them: less than none is none. Raises `InvalidRequest`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InvalidRequest(field, "must be a number of seconds", shown(value))
    return value
