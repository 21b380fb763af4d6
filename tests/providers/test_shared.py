"""What adapters share: parsers of arguments, and values read out of answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.errors import ConfigurationError
from dispatcher.outcomes import Failure, FailureKind
from workers.providers import answers, arguments
from workers.providers.base import refused_after, refused_before
from workers.providers.thetexting import TheTexting

KEYS = {"api_key": "canary-key", "api_secret": "canary-secret"}


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        pytest.param(arguments.text, " as it is ", " as it is ", id="text"),
        pytest.param(arguments.word, " 10011 ", "10011", id="word"),
        pytest.param(arguments.word, 10011, "10011", id="a number without quotes is a word"),
        pytest.param(arguments.words, "a, b", ["a", "b"], id="words in one text"),
        pytest.param(arguments.words, ["a ", "b,c"], ["a", "b,c"], id="words in a list"),
        pytest.param(arguments.matching("[0-9]{4}", "four digits"), " 1111", "1111", id="pattern"),
        pytest.param(arguments.matching("[0-9]{4}", "four digits"), 1111, "1111", id="pattern of a number"),
        pytest.param(arguments.one_of("Visa", "Amex"), " visa", "Visa", id="one of few, in other letters"),
        pytest.param(arguments.flag, "True", 1, id="flag"),
        pytest.param(arguments.flag, 0, 0, id="flag that is a number"),
        pytest.param(arguments.whole(1, 255), "255", 255, id="whole"),
        pytest.param(arguments.moment("%Y-%m-%d", "2026-11-30"), "2026-1-2", "2026-01-02", id="day"),
        pytest.param(arguments.number, "00 44 7700 900123", "+447700900123", id="number"),
        pytest.param(arguments.numbers(2), "447700900123, +447700900124", ["+447700900123", "+447700900124"], id="two"),
    ],
)
def test_an_argument_is_taken_for_what_it_means(parse: Callable[[Any], Any], value: Any, expected: Any) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        *(pytest.param(arguments.text, one, id=f"text {one!s:.20}") for one in ("", " ", 1, None, ["canary"])),
        *(pytest.param(arguments.word, one, id=f"word {one!s:.20}") for one in ("", " ", True, 1.5, None)),
        *(pytest.param(arguments.words, one, id=f"words {one!s:.20}") for one in ("", "a,,b", [], ["a", 1], {"a": 1})),
        *(
            pytest.param(arguments.matching("[0-9]+", "digits"), one, id=f"digits {one!s:.20}")
            for one in ("canary", "²", "٣", True, None, "1\n2")
        ),
        *(
            pytest.param(arguments.one_of("Visa"), one, id=f"one of {one!s:.20}")
            for one in ("canary", "", None, ["Visa"])
        ),
        *(pytest.param(arguments.flag, one, id=f"flag {one!s:.20}") for one in (2, "yes", None, ["true"])),
        *(
            pytest.param(arguments.whole(1, 255), one, id=f"whole {one!s:.20}")
            for one in (0, 256, "²", -1, 1.0, "9" * 5000, None)
        ),
        *(
            pytest.param(arguments.moment("%Y-%m-%d", "2026-11-30"), one, id=f"moment {one!s:.20}")
            for one in ("canary", "2026-02-30", 20261130, None)
        ),
        *(
            pytest.param(arguments.numbers(2), one, id=f"numbers {one!s:.20}")
            for one in ("", [""], "447700900123," * 3, 5)
        ),
    ],
)
def test_an_argument_that_is_none_is_refused_without_repeating_it(parse: Callable[[Any], Any], value: Any) -> None:
    """`TypeError` too is told as the caller's mistake (`refused_arguments`)."""
    with pytest.raises((ValueError, TypeError)) as refused:
        parse(value)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "region", "expected"),
    [
        pytest.param("12125550150", "", "+12125550150", id="bare"),
        pytest.param(12125550150, "", "+12125550150", id="a number in JSON"),
        pytest.param(" +12125550150 ", "", "+12125550150", id="padded, with its plus"),
        pytest.param("+44 7700 900123", "", "+447700900123", id="written for people"),
        pytest.param("2125550150", "US", "+12125550150", id="without its country's code, and the country"),
        pytest.param("12125550150", "US", "+12125550150", id="with both"),
        pytest.param("447700900123", "XX", "+447700900123", id="a country that is none"),
        pytest.param("123456", "", "", id="a short code"),
        pytest.param("ACME", "", "", id="a name"),
        pytest.param("(212) 555-0150", "", "", id="not surely of which country"),
        *(
            pytest.param(one, "", "", id=f"{one}, of {type(one).__name__}")
            for one in ("", "+", "²", None, True, ["1"], {"a": "1"}, 1.5)
        ),
    ],
)
def test_a_number_in_an_answer_becomes_e164_or_nothing(value: Any, region: str, expected: str) -> None:
    assert answers.number(value, region) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0055, "0.0055"), ("2.0000", "2.0000"), (1, "1"), (" 7 ", "7"), (5.5e-7, "0.00000055"), ("1E+3", "1000"),
     ("", None), ("NaN", None), ("-Infinity", None), ("1e999999999", None), (True, None), (None, None), ([1], None)],
)  # fmt: skip
def test_an_amount_keeps_its_digits(value: Any, expected: str | None) -> None:
    assert answers.decimal(value) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b'\xef\xbb\xbf{"a":1}', {"a": 1}), (b"[]", []), (b"<html>", None), (b"", None), (b"\xff", None),
     (b"[" * 100_000, None)],
    ids=["a byte order mark", "a list", "a page", "nothing", "no UTF-8", "too deep"],
)  # fmt: skip
def test_json_with_whatever_before_it(body: bytes, expected: Any) -> None:
    assert answers.document(body) == expected


@pytest.mark.parametrize("kind", list(FailureKind))
def test_what_every_request_would_meet_is_a_refusal_of_the_account(kind: FailureKind) -> None:
    whole = kind in {FailureKind.UNAUTHORIZED, FailureKind.INSUFFICIENT_FUNDS, FailureKind.THROTTLED}
    failure = Failure(kind=kind, code="x")
    assert refused_before(failure) == refused_after(failure) == (failure if whole else None)


@pytest.mark.parametrize(
    "failure",
    [Failure(kind=FailureKind.UNAUTHORIZED, permission=True), Failure(kind=FailureKind.UNAUTHORIZED, code="403")],
    ids=["in the vendor's words", "a bare 403"],
)
def test_who_may_not_ask_may_still_do(failure: Failure) -> None:
    """The read before a job is another matter: it is a piece of the job."""
    assert refused_after(failure) is None
    assert refused_before(failure) == failure


def test_a_setting_of_few_words_is_the_first_of_them_unless_set() -> None:
    adapter = TheTexting("shop_a", KEYS)
    assert adapter.choice("format", "json", "xml") == "json"
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_PROVIDERS__SHOP_A__FORMAT is 'yaml'; write json or xml"):
        TheTexting("shop_a", KEYS | {"format": "yaml"})
