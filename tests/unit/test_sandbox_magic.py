"""What happens after a text to a special number was accepted."""

from __future__ import annotations

import pytest

from workers.sandbox import magic
from workers.sandbox.world import Row

#: By the number's ending: when receipts are sent, and what the first says.
RECEIPTS = [
    pytest.param("447700900001", ("usual",), "delivered", id="an ordinary phone"),
    pytest.param("447700900140", ("usual",), "undelivered", id="140 never gets there"),
    pytest.param("447700900141", ("usual", "usual"), "delivered", id="141 twice"),
    pytest.param("447700900142", ("late",), "delivered", id="142 late"),
    pytest.param("447700900143", ("before",), "delivered", id="143 before the answer"),
    pytest.param("447700900144", (), "delivered", id="144 never"),
    pytest.param("447700900145", ("usual", "stale"), "delivered", id="145 and then what was so before"),
    pytest.param("12125550140", ("usual",), "undelivered", id="in America, too"),
    pytest.param("447700901140", ("usual",), "delivered", id="not outside the reserved range"),
]


@pytest.mark.parametrize(("msisdn", "receipts", "outcome"), RECEIPTS)
def test_receipts_of_a_number(msisdn: str, receipts: tuple[magic.When, ...], outcome: magic.Outcome) -> None:
    row = Row(provider="one", action="send", kind="send", msisdn=msisdn, accepted=True, result="OK", data={"units": 1})
    assert magic.receipts(msisdn) == receipts
    assert magic.outcome(row) == outcome
    assert magic.undelivered(msisdn) == (outcome == "undelivered") == (not magic.reaches(row))
    assert magic.outcome(magic.stale(row)) == "waiting"
    assert row.data == {"units": 1}, "the row of the ledger is as it was"


@pytest.mark.parametrize("ending", magic.RECEIPTS_BY_NUMBER)
def test_every_number_stands_in_the_table(ending: int) -> None:
    assert f"\n| {ending} | " in (magic.__doc__ or "")


def test_no_ending_has_two_meanings() -> None:
    endings = [*magic.Magic, *magic.FAULTS_BY_NUMBER, *magic.FAULTS_ONCE, *magic.RECEIPTS_BY_NUMBER]
    assert len(endings) == len(set(endings))
