"""docs/verify.md: the views that it shows are the examples, word for word, and its numbers are those of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Final

import pytest

from dispatcher import Dispatcher, errors
from dispatcher.guards import USUAL
from dispatcher.settings import Settings
from dispatcher.verifications import CHECKS

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "verify.md").read_text()

#: What is quoted, by the file that it is of.
QUOTED: Final = dict(re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


def test_it_quotes_both() -> None:
    assert [*QUOTED] == ["examples/fastapi_app.py", "examples/django_shop/codes.py"]


@pytest.mark.parametrize("name", QUOTED)
def test_what_it_quotes_is_what_runs(name: str) -> None:
    assert (ROOT / name).read_text().endswith(QUOTED[name])


def test_its_table_of_guards_has_the_defaults() -> None:
    rows = re.findall(r"^\| `(\w+)`.*? \| `([^`]+)` \|", PAGE, re.MULTILINE)
    told = {name: windows for name, windows in rows if name in USUAL}
    assert "; ".join(f"{name}={windows}" for name, windows in told.items()) == USUAL
    assert f"seconds ({Settings.model_fields['resend_after'].get_default()})" in PAGE


def test_each_refusal_is_in_its_table() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    refusals = {one for one in kinds if issubclass(one, errors.VerificationRefused)} - {errors.VerificationRefused}
    assert [one.__name__ for one in refusals if f"`{one.__name__}`" not in PAGE or f"`{one.code}`" not in PAGE] == []


def test_its_arithmetic_is_right() -> None:
    """Five guesses at each of ten codes, of a million values; and where six windows of five fill an hour."""
    a_day = CHECKS * 10
    assert f"1 in {10**6 // a_day:,}" in PAGE
    assert f"{1 - (1 - a_day / 10**6) ** 365:.1%}".replace("%", " %") in PAGE
    without = CHECKS * 5 * 6 * 24
    assert f"{without:,} guesses a day, 1 in {round(10**6 / without)}" in PAGE
    assert CHECKS * 5000 * 40 == 10**6


def test_a_code_lives_as_long_as_it_says() -> None:
    usual = inspect.signature(Dispatcher.verify).parameters["code_ttl"].default
    assert f"`code_ttl` seconds ({usual})" in PAGE
