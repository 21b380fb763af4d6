"""Sealed is sealed, hashes need their key, and what is shown of vendors' words has no number in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import ConfigurationError
from dispatcher.privacy import Sealer, keyed_hash, mask_digits, mask_text
from tests.unit.support import NUMBER, TEXT, leaks

PLAIN = f'{{"to":"{NUMBER}","text":"{TEXT}"}}'.encode()


# -- sealing -----------------------------------------------------------------------------------------------------------


@given(st.binary(), st.text())
def test_what_is_sealed_opens_to_what_it_was(plain: bytes, name: str) -> None:
    sealer = Sealer(["one"])
    name = name.encode(errors="ignore").decode()
    assert sealer.open(sealer.seal(plain, name), name) == plain


def test_nothing_of_it_shows_while_it_is_sealed() -> None:
    sealed = Sealer(["one"]).seal(PLAIN, "0001")
    assert not leaks(sealed.decode("latin-1"), NUMBER, TEXT, "one")
    assert not any(PLAIN[start : start + 4] in sealed for start in range(len(PLAIN) - 3))


def test_several_are_sealed_each_for_its_own_job() -> None:
    sealer, names = Sealer(["one"]), ["0001", "0002", "0003"]
    sealed = sealer.seal_each([PLAIN] * 3, names)
    assert len(set(sealed)) == 3
    assert [sealer.open(one, name) for one, name in zip(sealed, names, strict=True)] == [PLAIN] * 3
    with pytest.raises(ConfigurationError):
        sealer.open(sealed[0], names[1])
    assert Sealer([]).seal_each([PLAIN] * 3, names) == [PLAIN] * 3


def test_the_same_is_sealed_differently_each_time() -> None:
    """Else equal texts and numbers could be told from their records."""
    sealer = Sealer(["one"])
    assert sealer.seal(PLAIN, "0001") != sealer.seal(PLAIN, "0001")


def test_a_sealed_value_is_never_taken_for_json() -> None:
    assert not Sealer(["one"]).seal(b"{}", "0001").startswith((b"{", b"[", b'"', b" "))


def test_without_a_key_values_are_stored_as_they_are() -> None:
    nothing = Sealer([])
    assert not nothing
    assert nothing.seal(PLAIN, "0001") == PLAIN
    assert nothing.open(PLAIN, "0001") == PLAIN


def test_what_was_stored_before_there_was_a_key_can_still_be_read() -> None:
    assert Sealer(["one"]).open(PLAIN, "0001") == PLAIN


def test_the_newest_key_seals_and_every_key_opens() -> None:
    """So keys are rotated: the new one in front, the old one behind it until its jobs are gone."""
    old, both, new = Sealer(["old"]), Sealer(["new", "old"]), Sealer(["new"])
    assert both
    assert both.open(old.seal(PLAIN, "0001"), "0001") == PLAIN
    assert new.open(both.seal(PLAIN, "0001"), "0001") == PLAIN


def altered(sealed: bytes, position: int) -> bytes:
    return sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :]


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(Sealer(["another"]).seal(PLAIN, "0001"), id="another key"),
        pytest.param(Sealer(["one"]).seal(PLAIN, "0002"), id="moved from another job"),
        pytest.param(altered(Sealer(["one"]).seal(PLAIN, "0001"), 1), id="key id altered"),
        pytest.param(altered(Sealer(["one"]).seal(PLAIN, "0001"), 6), id="nonce altered"),
        pytest.param(altered(Sealer(["one"]).seal(PLAIN, "0001"), 40), id="content altered"),
        pytest.param(Sealer(["one"]).seal(PLAIN, "0001")[:-1], id="cut at the end"),
        pytest.param(Sealer(["one"]).seal(PLAIN, "0001")[:10], id="cut in the nonce"),
        pytest.param(Sealer(["one"]).seal(PLAIN, "0001")[:5], id="cut after the key id"),
        pytest.param(b"\x01", id="nothing but the mark"),
    ],
)
@pytest.mark.parametrize("keys", [["one"], []], ids=["with a key", "without"])
def test_what_cannot_be_opened_names_the_setting_and_the_job(stored: bytes, keys: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"0001.*DISPATCHER_SECRET_KEY") as refused:
        Sealer(keys).open(stored, "0001")
    assert not leaks(str(refused.value), NUMBER, "one key")


def test_a_sealer_shows_none_of_its_keys() -> None:
    assert not leaks(repr(Sealer(["canary"])) + str(vars(Sealer(["canary"]))), "canary")


# -- keyed hashes ------------------------------------------------------------------------------------------------------


def test_a_hash_is_sixteen_characters_that_fit_into_a_key() -> None:
    made = keyed_hash("key", "number", NUMBER)
    assert len(made) == 16
    assert set(made) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        pytest.param("another", ("code", "0001", "012837"), id="another key"),
        pytest.param("key", ("number", "0001", "012837"), id="for another purpose"),
        pytest.param("key", ("code", "0002", "012837"), id="of another job"),
        pytest.param("key", ("code", "0001", "12837"), id="without its leading nought"),
        pytest.param("key", ("code0001", "012837"), id="parts run together"),
        pytest.param("key", ("code", "0001012837"), id="other parts run together"),
    ],
)
def test_another_key_or_part_makes_another_hash(key: str, parts: tuple[str, ...]) -> None:
    assert keyed_hash(key, *parts) != keyed_hash("key", "code", "0001", "012837")


def test_the_same_makes_the_same_hash_in_every_process() -> None:
    """Held against a value worked out once: numbers must be found again after years."""
    assert keyed_hash("key", "number", NUMBER) == "YX6qoFX5gGAQyWCj"


# -- masks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        pytest.param("to +447700900123 failed", "to ***23 failed", id="E.164"),
        pytest.param("to 447700900123", "to ***23", id="without its plus"),
        pytest.param("+44 7700 900-123", "***23", id="as people write it"),
        pytest.param("(0770) 090.0123", "(***23", id="with brackets and dots"),
        pytest.param("code 012837.", "code ***37.", id="a code of six digits"),
        pytest.param("447700900123,447700900124", "***23,***24", id="two numbers"),
        pytest.param("٤٤٧٧٠٠٩٠٠١٢٣", "***٢٣", id="digits of other alphabets"),
        pytest.param("id 12345", "id 12345", id="five digits are no number"),
        pytest.param("HTTP 503 after 30 s", "HTTP 503 after 30 s", id="short ones stay"),
        pytest.param("21.461", "21.461", id="an amount"),
        pytest.param("balance 1234567.25", "balance 1234567.25", id="a large amount"),
        pytest.param("0.0055 USD", "0.0055 USD", id="a price"),
        pytest.param("on 2015-09-24.", "on 2015-09-24.", id="a date"),
        pytest.param("2015-09-24 17:03:00", "2015-09-24 17:03:00", id="a timestamp"),
        pytest.param("T-Mobile UK (Everything Everywhere)", "T-Mobile UK (Everything Everywhere)", id="words"),
        pytest.param("", "", id="nothing"),
    ],
)  # fmt: skip
def test_words_keep_no_more_than_two_digits_of_a_number(words: str, shown: str) -> None:
    assert mask_digits(words) == shown


@pytest.mark.parametrize(
    "words", ["1 2 3", "3 (2) 1.", "attempt 1 - 2 of 3", "10:30 12"], ids=["three", "brackets", "a range", "six in all"]
)
def test_few_digits_far_apart_are_no_number(words: str) -> None:
    """Six digits make a number or a code, not six characters."""
    digits = sum(character.isdigit() for character in words)
    assert (mask_digits(words) == words) == (digits < 6)


@given(st.text(alphabet="ab +-.():", max_size=12), st.text(alphabet="0123456789", min_size=6, max_size=15), st.text())
def test_no_run_of_digits_survives_whatever_stands_around_it(before: str, digits: str, after: str) -> None:
    assert digits not in mask_digits(f"{before}x{digits}x{after}")


@given(st.text())
def test_masking_twice_masks_no_more(text: str) -> None:
    assert mask_digits(mask_digits(text)) == mask_digits(text)


@pytest.mark.parametrize(
    ("text", "shown"), [(TEXT, "[19 characters]"), ("🙂", "[1 character]"), ("", "")], ids=["a text", "one", "none"]
)
def test_of_a_text_its_length_is_shown(text: str, shown: str) -> None:
    assert mask_text(text) == shown
