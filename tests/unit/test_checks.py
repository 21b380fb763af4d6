"""What a caller's arguments must be, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher import InvalidRequest, checks
from dispatcher.privacy import shown

HALF = "\ud83d"


@pytest.mark.parametrize(
    ("check", "value"),
    [
        pytest.param(checks.text, "", id="an empty text"),
        pytest.param(checks.text, "Grüße", id="a text"),
        pytest.param(checks.texts, ["a", "b"], id="texts"),
        pytest.param(checks.texts, [], id="no texts"),
        pytest.param(checks.flag, False, id="a flag"),
        pytest.param(checks.timeout, -1, id="less than no time"),
        pytest.param(checks.timeout, float("inf"), id="for ever"),
    ],
)
def test_what_is_right_is_returned(check: Callable[[str, Any], Any], value: Any) -> None:
    assert check("field", value) == value


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        pytest.param(checks.text, 7, "field: must be text, not int", id="a number for a text"),
        pytest.param(checks.text, HALF, "field: holds half of a surrogate pair", id="half a letter"),
        pytest.param(checks.texts, "ab", "field: must be a list of texts, not str", id="a text for several"),
        pytest.param(checks.texts, {"a"}, "field: must be a list of texts, not set", id="texts in no order"),
        pytest.param(checks.texts, ["a", 7], r"field\[1\]: must be text, not int", id="a number among texts"),
        pytest.param(checks.flag, "no", "field: must be True or False, not str", id="a word for a flag"),
        pytest.param(checks.flag, 1, "field: must be True or False, not int", id="a number for a flag"),
        pytest.param(checks.timeout, True, "field 'True': must be a number of seconds", id="a flag for seconds"),
        pytest.param(checks.timeout, float("nan"), "field 'nan': must be a number of seconds", id="no number"),
        pytest.param(checks.timeout, None, "field 'NoneType': must be a number of seconds", id="no seconds"),
    ],
)
def test_what_is_wrong_is_named(check: Callable[[str, Any], Any], value: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        check("field", value)


@pytest.mark.parametrize(
    "value",
    [0, 6, 2.0, True, "3", None, pytest.param(10**5000, id="more than Python writes out")],
)
def test_a_whole_number_is_between_two_others(value: Any) -> None:
    assert checks.whole("field", 5, 1, 5) == 5
    with pytest.raises(InvalidRequest, match="must be a whole number from 1 to 5"):
        checks.whole("field", value, 1, 5)


class Wordless:
    """What nobody can make words of."""

    def __str__(self) -> str:
        raise RuntimeError("this has no words")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param("spring", "spring", id="a name"),
        pytest.param("06h00n32pvdoek41234567890c", "06h00n32pvdoek41234567890c", id="an id, whatever its digits"),
        pytest.param("+447700900123", "***23", id="a number"),
        pytest.param("07700 900123", "***23", id="a number as it is written at home"),
        pytest.param("call +447700900123 now", "call ***23 now", id="a number among words"),
        pytest.param("2027-01-15", "2027-01-15", id="a day"),
        pytest.param("a\nb\x1b[31m", "a b [31m", id="what would move a cursor"),
        pytest.param("x" * 100_000, "x" * 64, id="a long text"),
        pytest.param(2_592_001, "2592001", id="a number of seconds"),
        pytest.param(447700900123, "***23", id="a number of a phone without quotes"),
        pytest.param(10**5000, "int", id="a number that Python writes out for nobody"),
        pytest.param(datetime(2027, 1, 15, tzinfo=UTC), "2027-01-15 00:00:00+00:00", id="a moment"),
        pytest.param({"+447700900123": 1}, "dict", id="what may hold anything"),
        pytest.param(Wordless(), "Wordless", id="what has no words"),
        pytest.param(None, "NoneType", id="nothing"),
    ],
)
def test_a_message_shows_of_a_value_no_more_than_it_may(value: Any, words: str) -> None:
    assert shown(value) == words
