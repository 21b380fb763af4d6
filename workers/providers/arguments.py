"""Arguments of operations and options of messages: how each is declared, and the parsers that several adapters need.

A parser takes whatever a caller wrote and returns what a request needs; it raises `ValueError` with a reason that
repeats nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

from dispatcher import phone
from workers.providers.answers import truth
from workers.providers.base import Argument

Parser: TypeAlias = Callable[[Any], Any]


def needed(about: str, parse: Parser) -> Argument:
    """Declare an argument that must be given."""
    return Argument(about=about, parse=parse)


def extra(about: str, parse: Parser) -> Argument:
    """Declare an argument that may be left out."""
    return Argument(about=about, required=False, parse=parse)


def text(value: Any) -> str:
    """Take text as it is."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be text that is not empty")
    return value


def word(value: Any) -> str:
    """Take an id or a name, without blanks around it; a number without quotes is taken for its digits."""
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError("must be text that is not empty")
    return str(value).strip()


def words(value: Any) -> list[str]:
    """Take a list of words, or one text in which commas separate them."""
    told = value.split(",") if isinstance(value, str) else value
    if not isinstance(told, list) or not told or not all(isinstance(one, str) and one.strip() for one in told):
        raise ValueError("must be words, separated by commas; leave it out for none")
    return [one.strip() for one in told]


def matching(pattern: str, form: str) -> Callable[[Any], str]:
    """Take a word of this pattern; `form` says what it must be."""
    known = re.compile(pattern, re.ASCII)

    def parse(value: Any) -> str:
        told = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if not known.fullmatch(told):
            raise ValueError(f"must be {form}")
        return told

    return parse


def one_of(*known: str) -> Callable[[Any], str]:
    """Take one of these words, in whichever letters, as it stands here."""
    spelled = {one.lower(): one for one in known}

    def parse(value: Any) -> str:
        found = spelled.get(str(value).strip().lower())
        if found is None:
            raise ValueError(f"must be one of {', '.join(known)}")
        return found

    return parse


def flag(value: Any) -> int:
    """Take true or false, or 1 or 0."""
    told = truth(value)
    if told is None:
        raise ValueError("must be true or false, or 1 or 0")
    return int(told)


def whole(least: int, most: int) -> Callable[[Any], int]:
    """Take a whole number within these bounds, both included."""

    def parse(value: Any) -> int:
        told = str(value)
        if told.isascii() and told.isdecimal() and len(told) <= len(str(most)) and least <= int(told) <= most:
            return int(told)
        raise ValueError(f"must be a whole number from {least} to {most}")

    return parse


def moment(form: str, example: str) -> Callable[[Any], str]:
    """Take a time or a day in this form of `strptime`; no vendor states its zone."""

    def parse(value: Any) -> str:
        try:
            return datetime.strptime(value, form).strftime(form)  # noqa: DTZ007 - see above
        except (TypeError, ValueError):
            raise ValueError(f"must look like {example}, in the vendor's own time") from None

    return parse


def number(value: Any) -> str:
    """Take a phone number, in whichever form `phone.parse` reads; E.164."""
    return phone.parse(str(value))


def numbers(most: int) -> Callable[[Any], list[str]]:
    """Take 1 to `most` phone numbers, as a list or separated by commas."""

    def parse(value: Any) -> list[str]:
        told = value.split(",") if isinstance(value, str) else list(value)
        if not 1 <= len(told) <= most:
            raise ValueError(f"must be 1 to {most} numbers, separated by commas")
        return [number(str(one).strip()) for one in told]

    return parse
