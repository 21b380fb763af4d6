"""docs/sandbox.md says what the sandbox does: its tables are those of the modules, or played."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.integration.sandboxes import sending
from workers.sandbox import control, faults, magic
from workers.sandbox.base import Provider
from workers.sandbox.server import PROVIDERS
from workers.sandbox.world import World

PAGE: Final = Path(__file__).parents[2] / "docs" / "sandbox.md"

#: Numbers that a provider answers in words of its own.
ENDINGS: Final = [*range(100, 110), 134, 140]


def answered(provider: Provider, ending: int) -> str:
    """Return the words of the ledger for a text that is sent twice to a number."""
    world, results = World(provider.accounts), []
    for _ in range(2):
        _, rows = provider.reply(sending(provider.name, f"12125550{ending}"), world)
        world.commit(rows)
        (row,) = rows
        results.append(row.result)
    return ", then ".join(dict.fromkeys(results))


def vendor_table() -> str:
    """Return the table of what each provider answers."""
    lines = [
        "| +1 ... 555 0 ... | " + " | ".join(provider.name for provider in PROVIDERS) + " |",
        "|---" * (len(PROVIDERS) + 1) + "|",
    ]
    lines += [
        f"| {ending} | " + " | ".join(answered(provider, ending) for provider in PROVIDERS) + " |" for ending in ENDINGS
    ]
    return "\n".join(lines)


def tables(text: str) -> list[str]:
    """Return the tables of a text."""
    return [table.strip() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


@pytest.mark.parametrize("module", [magic, faults, control], ids=lambda module: module.__name__)
def test_the_page_has_the_table_of_the_module(module: ModuleType) -> None:
    """To the letter, so that neither is changed alone."""
    (table,) = tables(module.__doc__ or "")
    assert table in tables(PAGE.read_text())


def test_the_page_has_what_each_provider_answers() -> None:
    """As it is played: put this table in where it differs."""
    assert vendor_table() in tables(PAGE.read_text())


def accounts() -> Iterator[tuple[str, str, str]]:
    """Name all accounts with their passwords; MobTexting's token is both."""
    for provider in PROVIDERS:
        for account in provider.accounts():
            yield provider.name, account.name, "" if provider.name == "mobtexting" else f"`{account.secret}`"


def test_the_page_has_every_account() -> None:
    (table,) = (table for table in tables(PAGE.read_text()) if table.startswith("| provider | account |"))
    told = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in table.splitlines()[2:]]
    assert told == [(provider, f"`{name}`", secret) for provider, name, secret in accounts()]


def test_the_page_has_every_limit() -> None:
    (table,) = (table for table in tables(PAGE.read_text()) if table.startswith("| provider | takes |"))
    limits = {provider.name: provider.limits for provider in PROVIDERS}
    for name, one in limits.items():
        documented = [limit for limit in (one.at_once, one.gets_a_minute) if limit is not None]
        (line,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")] or [""]
        assert re.findall(r"(\d+) (?:requests at once|GETs)", line) == list(map(str, documented))
        assert not documented or f"| {one.refusal.status}" in line


def test_paths_are_each_ones_own() -> None:
    """Every provider serves its own requests, and only those."""
    for provider in PROVIDERS:
        path = sending(provider.name, "12125550177").path
        assert [other.name for other in PROVIDERS if other.serves(path)] == [provider.name]
    assert not any(provider.serves(path) for provider in PROVIDERS for path in ("/", "/_sandbox/health", "/api/"))
