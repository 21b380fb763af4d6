"""The kit that every adapter's tests run, and the vendors' samples on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from workers.conformance import CHECKS, NUMBERS, Case, Subject, answers, every_check, response, run
from workers.providers.base import Callback, Response

__all__ = [
    "CASES", "CHECKS", "NUMBERS", "Case", "Subject", "answers", "called", "every_check", "printed", "response", "run",
    "sample",
]  # fmt: skip

CASES: Final = Path(__file__).parent / "cases"

_PLACEHOLDER: Final = re.compile(r"\[[A-Z0-9_]+\]")


def printed(provider: str, names: str = "*.answer.*") -> list[Response]:
    """The answers that a vendor's document prints, with one number in every placeholder."""
    return [Response(status=200, body=body) for body in _filled(provider, names)]


def called(provider: str) -> list[Callback]:
    """The same of what it calls us with."""
    return [Callback(method="POST", body=body) for body in _filled(provider, "*.callback.*")]


def _filled(provider: str, names: str) -> list[bytes]:
    files = sorted((CASES / provider).glob(names))
    assert files, f"there is no {names} of {provider}"
    number = NUMBERS[0].removeprefix("+")
    return [_PLACEHOLDER.sub(number, one.read_text(encoding="utf-8")).encode() for one in files]


def sample(provider: str, name: str, **filled: str) -> str:
    """A sample as the vendor's document prints it, with its placeholders filled."""
    text = (CASES / provider / f"{name}.json").read_text(encoding="utf-8")
    for placeholder, value in filled.items():
        assert f"[{placeholder}]" in text, f"the sample has no [{placeholder}]"
        text = text.replace(f"[{placeholder}]", value)
    return text
