"""Typeset quotes that would double a text's price: asked for, they are sent as plain ones, and that is what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher import Dispatcher, IdempotencyConflict, InvalidRequest, Message
from tests.commands import Ended, Run, in_process
from tests.unit import test_client
from tests.unit.support import NUMBER, OTHER, Bench, Clock
from tests.unit.test_client import ALL, Shop

shop = test_client.shop

#: 82 characters: two parts of UCS-2, one of GSM-7.
TEXT = "Don’t forget: your parcel comes tomorrow between 9 and 12. Reply 1 to change that."
PLAIN = TEXT.replace("’", "'")


def smart(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop whose settings ask for it."""
    one = Shop(clock, smart_encoding=True)
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    one.serve("textgoto", *ALL)
    return one


def told(d: Dispatcher, id_: str) -> tuple[str, int | None]:
    """What is kept of a text, as its worker will send it, and its segments."""
    job = d.get(id_, reveal=True)
    return job.text, job.segments


@pytest.mark.parametrize(
    ("by_settings", "asked", "sent"),
    [
        pytest.param(False, None, (TEXT, 2), id="nobody asked"),
        pytest.param(False, True, (PLAIN, 1), id="the caller"),
        pytest.param(True, None, (PLAIN, 1), id="the settings"),
        pytest.param(True, False, (TEXT, 2), id="the caller wins"),
    ],
)
def test_who_asks_for_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, by_settings: bool, asked: bool | None, sent: tuple[str, int]
) -> None:
    d = smart(shop.clock, monkeypatch).dispatcher if by_settings else shop.dispatcher
    assert told(d, d.send(NUMBER, TEXT, smart_encoding=asked).id) == sent
    (id_,) = d.send_many([Message(NUMBER, TEXT)], smart_encoding=asked).jobs.ids
    assert told(d, id_) == sent
    code, segments = told(d, d.verify(NUMBER, template=f"{TEXT} [CODE]", smart_encoding=asked).id)
    assert (code, segments) == (f"{sent[0]} [CODE]", sent[1])


def test_a_message_wins_over_its_call(shop: Shop) -> None:
    messages = [Message(NUMBER, TEXT), Message(NUMBER, TEXT, smart_encoding=False)]
    ids = shop.dispatcher.send_many(messages, smart_encoding=True).jobs.ids
    assert [told(shop.dispatcher, one)[0] for one in ids] == [PLAIN, TEXT]


def test_what_it_makes_short_enough_is_not_refused(shop: Shop) -> None:
    with pytest.raises(InvalidRequest, match="has 2 segments"):
        shop.dispatcher.send(NUMBER, TEXT, max_segments=1)
    shop.dispatcher.send(NUMBER, TEXT, max_segments=1, smart_encoding=True)


def test_a_text_that_nobody_would_see_is_empty(shop: Shop) -> None:
    with pytest.raises(InvalidRequest, match="is empty"):
        shop.dispatcher.send(NUMBER, "\u200b", smart_encoding=True)


@pytest.mark.parametrize("wrong", ["yes", 1, 0])
def test_it_is_asked_for_by_true_or_false(shop: Shop, wrong: Any) -> None:
    for ask in (
        lambda: shop.dispatcher.send(NUMBER, TEXT, smart_encoding=wrong),
        lambda: shop.dispatcher.verify(NUMBER, smart_encoding=wrong),
        lambda: shop.dispatcher.send_many([Message(NUMBER, TEXT)], smart_encoding=wrong),
        lambda: shop.dispatcher.send_many([Message(NUMBER, TEXT, smart_encoding=wrong)]),
    ):
        with pytest.raises(InvalidRequest, match="smart_encoding: must be True or False"):
            ask()


def test_what_is_no_text_is_refused_as_ever(shop: Shop) -> None:
    with pytest.raises(InvalidRequest, match="text: must be text"):
        shop.dispatcher.send(NUMBER, None, smart_encoding=True)  # type: ignore[arg-type]  # what a caller may pass


def test_the_same_key_finds_the_same_text(shop: Shop) -> None:
    """Of what is sent; a request that is sent otherwise is another one."""
    first = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k", smart_encoding=True)
    assert shop.dispatcher.send(NUMBER, PLAIN, idempotency_key="k").id == first.id
    with pytest.raises(IdempotencyConflict):
        shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k")


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Without any Redis."""
    return in_process({}, monkeypatch, capsys)


def lines(ended: Ended) -> list[str]:
    assert ended.code == 0, ended.err
    return ended.out.splitlines()


def test_segments_tells_what_forces_ucs_2(run: Run) -> None:
    assert lines(run("segments", TEXT)) == [
        "2 parts in UCS-2: 82 characters, 82 units; with --smart-encoding 1 part in GSM-7",
        "  ’ RIGHT SINGLE QUOTATION MARK (' instead) at 3",
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        pytest.param("Hi", "1 part in GSM-7: 2 characters, 2 units; nothing forces UCS-2", id="plain"),
        pytest.param("€", "1 part in GSM-7: 1 character, 2 units; nothing forces UCS-2", id="an escaped character"),
        pytest.param("ж…", "1 part in UCS-2: 2 characters, 2 units; smart encoding would not help", id="a letter"),
        pytest.param("", "0 parts in GSM-7: 0 characters, 0 units; nothing forces UCS-2", id="nothing"),
    ],
)
def test_segments_in_a_line(run: Run, text: str, first: str) -> None:
    assert lines(run("segments", text))[0] == first


def test_segments_shows_some_positions_and_counts_the_rest(run: Run) -> None:
    told = lines(run("segments", "– " * 7))[1]
    assert told == "  – EN DASH (- instead) at 0, 2, 4, 6, 8, ... 7 in all"


def test_segments_reads_standard_input_without_its_last_line_end(run: Run) -> None:
    assert lines(run("segments", "-", stdin="Hi\n"))[0].startswith("1 part in GSM-7: 2 characters")


def test_segments_as_a_document(run: Run) -> None:
    ended = run("segments", "ж" * 66 + "😀" + "ж" * 66 + "…", "--json")
    assert ended.document == {
        "encoding": "UCS-2",
        "characters": 134,
        "units": 135,
        "count": 3,
        "parts": [66, 66, 2],
        "forcing": [
            {
                "character": "ж",
                "name": "CYRILLIC SMALL LETTER ZHE",
                "positions": [*range(66), *range(67, 133)],
                "replacement": None,
            },
            {"character": "😀", "name": "GRINNING FACE", "positions": [66], "replacement": None},
            {"character": "…", "name": "HORIZONTAL ELLIPSIS", "positions": [133], "replacement": "..."},
        ],
        "smart_encoding": {"encoding": "UCS-2", "characters": 134, "units": 135, "count": 3},
    }


def test_segments_takes_no_half_of_a_pair(run: Run) -> None:
    ended = run("segments", "a\ud83d")
    assert ended.code == 2
    assert "surrogate" in ended.err


def test_send_takes_it_as_an_option(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, **__: bench.store)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_, **__: None)
    known = {"DISPATCHER_REDIS_URL": bench.settings.redis_url, "DISPATCHER_PROVIDERS__TEXTGOTO__UID": "x"}
    run = in_process(known | {"DISPATCHER_SMART_ENCODING": "1"}, monkeypatch, capsys)
    assert run("send", OTHER, TEXT, "--json", "--reveal").document["text"] == PLAIN
    assert run("send", OTHER, TEXT, "--json", "--reveal", "--no-smart-encoding").document["text"] == TEXT
