"""The world as the fold of its ledger: what the rows say is so, also for a sandbox that was started again."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from workers.sandbox import magic
from workers.sandbox.world import Account, Row, World

PHONE = "12125550199"


def accounts() -> list[Account]:
    return [
        Account(
            provider=provider, name="sandbox", secret="s", balance=Decimal(10), credit=Decimal(1), grants=frozenset()
        )
        for provider in ("one", "two")
    ]


def row(kind: str, **fields: Any) -> Row:
    known: dict[str, Any] = {"provider": "one", "action": kind, "account": "sandbox", "accepted": True, "result": "OK"}
    return Row(kind=kind, **(known | fields))


#: Rows, and what the account of `one` is after them.
HISTORIES = [
    pytest.param([row("send", msisdn=PHONE, cost=Decimal("0.0055"))], {"balance": "9.9945"}, id="a text costs"),
    pytest.param([row("send", msisdn=PHONE, cost=Decimal(1), accepted=False)], {}, id="a refused one does not"),
    pytest.param([row("send", msisdn=PHONE, cost=Decimal(1), account="nobody")], {}, id="nor one of nobody"),
    pytest.param([row("send", msisdn=PHONE, cost=Decimal(1), provider="two")], {}, id="nor one elsewhere"),
    pytest.param([row("credits.buy", cost=Decimal(-500))], {"balance": "510"}, id="credits are bought"),
    pytest.param([row("number.buy", msisdn=PHONE, cost=Decimal(1))], {"balance": "9", "numbers": {PHONE}}, id="rented"),
    pytest.param([row("number.buy", msisdn=PHONE), row("number.cancel", msisdn=PHONE)], {}, id="given back"),
    pytest.param([row("number.cancel", msisdn=PHONE)], {}, id="given back without being rented"),
    pytest.param([row("optout.add", msisdn=PHONE)], {"stopped": {PHONE}}, id="stopped"),
    pytest.param(
        [row("keyword.rent", text="HONEY", data={"id": 7}), row("keyword.setup", text="HONEY", data={"join": "Hi"})],
        {"keywords": {"HONEY": {"id": 7, "join": "Hi"}}},
        id="a keyword is rented and set up",
    ),
    pytest.param(
        [row("keyword.rent", text="HONEY", data={"id": 7}), row("keyword.cancel", text="HONEY")],
        {},
        id="a keyword is cancelled",
    ),
    pytest.param(
        [row("keyword.setup", text="HONEY", data={"a": 1}), row("keyword.setup", text="HONEY", data={"a": [2]})],
        {"keywords": {"HONEY": {"a": [2]}}},
        id="set up twice",
    ),
]


@pytest.mark.parametrize(("rows", "changed"), HISTORIES)
def test_account_after_rows(tmp_path: Path, rows: list[Row], changed: dict[str, Any]) -> None:
    """The same at once, and when the ledger file is read again."""
    path = tmp_path / "ledger.jsonl"
    before = World(accounts, path)
    for one in rows:
        before.commit([one])
    after = World(accounts, path)
    for world in (before, after):
        account = world.account("one", "sandbox")
        assert account
        assert (account.balance, account.stopped, account.numbers, account.keywords) == (
            Decimal(changed.get("balance", 10)),
            changed.get("stopped", set()),
            changed.get("numbers", set()),
            changed.get("keywords", {}),
        )
    assert after.rows() == before.rows()


def test_every_field_of_a_row_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    whole = row(
        "send", msisdn=PHONE, ref="b34e:1", own="order-17", text="Ünï€", sender="ACME", code="012837", due=2e9,
        cost=Decimal("0.0055"), fault="latency", data={"units": 2, "tags": ["a"]},
    )  # fmt: skip
    World(accounts, path).commit([whole])
    world = World(accounts, path)
    assert world.rows() == [whole]
    assert world.referred("one", "b34e:1") == world.referred("one", "order-17") == [whole]
    assert world.referred("two", "b34e:1") == []


def test_messages_are_counted_by_provider() -> None:
    world = World(accounts)
    world.commit([row("send", msisdn=PHONE), row("verify", msisdn=PHONE), row("lookup", msisdn=PHONE)])
    world.commit([row("send", msisdn=PHONE, provider="two"), row("send", msisdn=PHONE, accepted=False)])
    assert world.messages() == {"one": {PHONE: 2}, "two": {PHONE: 1}}
    assert world.accepted() == {PHONE: 3}


def test_a_phone_shows_the_texts_of_all_providers_in_the_order_they_came() -> None:
    now = 1000.0
    world = World(accounts, now=lambda: now)
    world.commit([row("send", msisdn=PHONE, text="later", due=1020.0), row("send", msisdn=PHONE, text="first")])
    now = 1010.0
    world.commit([row("verify", msisdn=PHONE, text="second", provider="two")])
    now = 1020.0
    assert [(text.provider, text.text) for text in world.inbox(PHONE)] == [
        ("one", "first"),
        ("two", "second"),
        ("one", "later"),
    ]


def test_what_is_never_delivered_is_accepted_and_on_no_phone() -> None:
    world = World(accounts, reaches=magic.reaches)
    lost = "447700900140"
    world.commit([row("send", msisdn=lost, text="Hello"), row("send", msisdn=PHONE, text="Hello")])
    assert world.accepted() == {lost: 1, PHONE: 1}
    assert (world.inbox(lost), len(world.inbox(PHONE))) == ([], 1)
