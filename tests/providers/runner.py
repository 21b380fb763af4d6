"""The kit that every adapter's tests run, and the vendors' samples on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from workers.conformance import CHECKS, NUMBERS, Case, Subject, every_check, response, run

__all__ = ["CASES", "CHECKS", "NUMBERS", "Case", "Subject", "every_check", "response", "run", "sample"]

CASES: Final = Path(__file__).parent / "cases"


def sample(provider: str, name: str, **filled: str) -> str:
    """A sample as the vendor's document prints it, with its placeholders filled."""
    text = (CASES / provider / f"{name}.json").read_text(encoding="utf-8")
    for placeholder, value in filled.items():
        assert f"[{placeholder}]" in text, f"the sample has no [{placeholder}]"
        text = text.replace(f"[{placeholder}]", value)
    return text
