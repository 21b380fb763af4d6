"""Canaries: words put where something private stands, and the search for them in what is said elsewhere."""

from __future__ import annotations

import base64
import re
from typing import Final

from tests.support import phone
from workers.sandbox.magic import KNOWN_CODE, Magic

_FIELDS: Final = (
    "text",
    "text of a batch",
    "sender",
    "reference",
    "metadata's key",
    "metadata's value",
    "tenant",
    "idempotency key",
    "option",
    "template",
    "wrong code",
    "list",
    "account's name",
    "account's password",
    "secret key",
    "hash key",
    "Redis' password",
    "Flower's password",
)

#: What stands in each field. Short, so that what was cut is found too; a word that no quoting or escaping changes.
WORDS: Final = {field: f"cana{n}ry" for n, field in enumerate(_FIELDS, 11)}

#: Whose verification gets `KNOWN_CODE`, the one code that is known beforehand.
KNOWN: Final = phone(Magic.KNOWN_CODE)

#: What all numbers of a run, `number(100)` to `number(199)`, have in common.
_COMMON: Final = "77009001"

#: The same with what people write between digits.
_GROUPED: Final = r"\W{0,2}".join(_COMMON)


def number(ending: int) -> str:
    """Return a number for which the search looks, with an `ending` from 100 to 199."""
    assert 100 <= ending <= 199
    return phone(ending)


def coded(word: str) -> set[str]:
    """Return a word written backwards, in hexadecimal digits, and in base64, wherever it stands in it."""
    raw = word.encode()
    forms = {word[::-1], raw.hex()}
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        # At both ends a character has bits of what stands beside the word.
        forms.add(whole[-(-8 * before // 6) : 8 * (before + len(raw)) // 6])
    return forms


def _coded(word: str) -> str:
    return "|".join(map(re.escape, coded(word)))


_PATTERNS: Final = {
    **{field: f"{word}|{_coded(word)}" for field, word in WORDS.items()},
    # As it is, in groups, its last six digits, and more than two digits behind a mask.
    "number": rf"{_GROUPED}|(?<![\w.])9001\d\d(?!\w)|[*•…]\d{{3}}|{_coded(_COMMON)}",
    # Not where it is part of a longer number, or behind its point.
    "code": rf"(?<![\d.]){KNOWN_CODE}(?!\d)|{_coded(KNOWN_CODE)}",
}

_COMPILED: Final = {field: re.compile(pattern, re.IGNORECASE) for field, pattern in _PATTERNS.items()}


def found(said: str) -> set[str]:
    """Return the fields whose canaries are in `said`, however they are written there."""
    return {field for field, pattern in _COMPILED.items() if pattern.search(said)}
