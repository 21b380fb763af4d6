"""The capability matrix: a page made from the adapters, and never older than they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Final

import pytest

from dispatcher.jobs import Work
from dispatcher.outcomes import Outcome
from workers.adapters import available, shipped
from workers.matrix import page
from workers.providers.base import Adapter, Argument, Capabilities, Group, Operation, Plan, Response

PAGE: Final = Path(__file__).parents[2] / "docs" / "providers.md"


class Acme(Adapter):
    """A provider with one of everything that a page has words for."""

    name = "acme"
    base_url = "https://acme.example"
    required = ("api_key",)
    optional = ("sender",)
    at_once = 2
    capabilities = Capabilities(recipients=50, own_reference=True, receipts="push and poll", inbound=True)
    operations: ClassVar[Mapping[str, Operation]] = {
        "send": Operation(about="Send a text.", source="vendor's code"),
        "balance": Operation(about="Read it.", repeat="always"),
        "credits.buy": Operation(
            about="Buy some.", source="inferred", arguments={"card_number": Argument(about="a card's", required=False)}
        ),
        "number.buy": Operation(
            about="Buy a number.",
            paid=True,
            evidence="number.list shows it: strong",
            arguments={
                "number": Argument(about="which, as a|b"),
                "note": Argument(about="a text with [CODE]", required=False),
            },
        ),
    }
    unsupported: ClassVar[Mapping[str, str]] = {"voice": "calls are no texts"}

    def build(self, jobs: Sequence[Work]) -> Plan:
        raise NotImplementedError

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        raise NotImplementedError


class Beta(Acme):
    """Another one, which does less."""

    name = "beta"
    operations: ClassVar[Mapping[str, Operation]] = {"send": Operation(about="Send a text.")}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return page([Beta, Acme]).splitlines()


def test_the_page_is_not_older_than_the_adapters() -> None:
    assert PAGE.read_text() == page(shipped()), "run `make docs`"


def test_only_what_this_package_brings_is_on_it() -> None:
    """Another provider's package may be installed beside it, here or there."""
    assert {one.name for one in shipped()} <= set(available())
    assert all(one.__module__.startswith("workers.providers.") for one in shipped())


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("| operation | [acme](#acme) | [beta](#beta) |", id="a column each"),
        pytest.param("| `send` | vendor's code | document |", id="how it is known"),
        pytest.param("| `number.buy` | document, *paid* | — |", id="what costs money, what there is not"),
        pytest.param("| settings | `API_KEY`; optional `SENDER` |", id="settings"),
        pytest.param("| recipients a request | 50; 1 unless `GROUP_SIZE` says otherwise |", id="recipients"),
        pytest.param("| requests at once | 2 |", id="requests at once"),
        pytest.param("| keeps our own reference | yes |", id="own reference"),
        pytest.param("| receipts | push and poll |", id="receipts"),
        pytest.param("| inbound texts | yes |", id="inbound"),
        pytest.param("| who makes a verification's code | Dispatcher, which sends it as a text |", id="codes"),
        pytest.param("| longest text | no limit is documented |", id="length"),
        pytest.param("| done again when the answer is lost | `balance` |", id="repeatable"),
        pytest.param(
            "| never done again when the answer is lost | `send`, `credits.buy`, `number.buy` |", id="not repeatable"
        ),
        pytest.param("| paid from the balance | `number.buy` |", id="paid"),
        pytest.param("| charged to a card | `credits.buy` |", id="a card"),
        pytest.param("| `credits.buy` | inferred, *card* | — |", id="what is charged to a card"),
        pytest.param("Buy a number. Known from: document. It is paid from the balance.", id="an operation"),
        pytest.param("Buy some. Known from: inferred. It is charged to a card.", id="another operation"),
        pytest.param(
            "When its answer is lost it is not done again behind your back; number.list shows it: strong.",
            id="how a lost answer is cleared up",
        ),
        pytest.param("| `number` | required | which, as a\\|b |", id="an argument"),
        pytest.param("| `note` | | a text with [CODE] |", id="one that may be left out"),
        pytest.param("| voice | calls are no texts |", id="what is not done, and why"),
    ],
)
def test_it_says(lines: list[str], line: str) -> None:
    assert line in lines


def test_it_says_that_nothing_is_live_verified(lines: list[str]) -> None:
    assert "**None is live-verified yet**" in " ".join(lines)


def test_its_tables_are_whole(lines: list[str]) -> None:
    """Each row has as many cells as the one above it."""
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert line.replace("\\|", "").count("|") == above.replace("\\|", "").count("|"), line
