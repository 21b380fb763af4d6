"""The short form of some scenarios of `make chaos`, and what runs them: a rule that is broken is told and fails.

The others are played by `make chaos` alone; what most of them do has tests of its own here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from tests.chaos import __main__ as chaos
from tests.chaos import table
from tests.chaos.checker import Broken, Rule
from tests.chaos.lab import Lab, Outcome
from tests.chaos.scenario import Scenario, load

#: Seconds; the first test waits for all that are played.
pytestmark = pytest.mark.timeout(400)

#: Two at a time they take half a minute of two cores.
PLAYED: Final = ("worker-kill", "messages-of-other-releases", "producer-kill", "limit-worker-kills")

#: The same chance each time.
SEED: Final = 5


def gives_up(lab: Lab) -> None:
    lab.send()
    raise AssertionError("it did not come")


def breaks(lab: Lab) -> None:
    """Have a text that nobody sends, and a promise that does not hold."""
    lab.send()
    lab.demand("it flew", holds=False)


#: Scenarios that break, so that this is seen.
BAD: Final = {
    play.__name__: Scenario(
        name=play.__name__, about="It.", proves="it", play=play, full={}, short={}, alone=False
    ) for play in (gives_up, breaks)
}  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    chosen = [*(load()[name] for name in PLAYED), *BAD.values()]
    shown = chaos.run(chosen, SEED, tmp_path_factory.mktemp("chaos"), short=True, at_once=2)
    return {one.scenario: one for one in shown}


@pytest.mark.parametrize("name", PLAYED)
def test_it_holds(name: str, played: Mapping[str, Outcome]) -> None:
    outcome = played[name]
    assert list(outcome.broken) == []
    assert (outcome.lost, outcome.repeated) == (0, 0)
    assert outcome.jobs
    assert outcome.injected, "something went wrong, as it should"


def test_one_that_raises_is_broken(played: Mapping[str, Outcome]) -> None:
    outcome = played["gives_up"]
    assert list(map(str, outcome.broken)) == ["PROMISE gives_up: AssertionError: it did not come"]
    assert outcome.jobs == 1


def test_one_that_loses_a_job_is_broken(played: Mapping[str, Outcome]) -> None:
    outcome = played["breaks"]
    assert [one.rule for one in outcome.broken] == [Rule.SETTLED, Rule.PROMISE]
    assert outcome.lost == 1


@pytest.mark.parametrize("name", load())
def test_a_scenario_says_what_it_is(name: str) -> None:
    one = load()[name]
    assert one.name == name
    assert one.about.endswith("."), "a sentence"
    assert one.proves
    assert not one.proves.endswith("."), "part of a sentence"
    assert set(one.short) == set(one.full), "one form is a smaller size of the other"


def test_all_of_them_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--list"]) == 0
    told = capsys.readouterr().out
    assert [line.partition(":")[0] for line in told.splitlines()] == [*load()]
    assert all(one.about in told and one.proves in told for one in load().values())


# -- what runs them, with scenarios that do nothing --------------------------------------------------------------------


def outcome(name: str, *broken: Broken, **about: Any) -> Outcome:
    usual: dict[str, Any] = {
        "injected": {"kill -9": 3, "TERM": 1}, "jobs": 1200, "lost": 0, "repeated": 0, "unknown": 7, "resumed": 1.24,
        "settled": 6.0, "seconds": 9.0,
    }  # fmt: skip
    return Outcome(scenario=name, broken=broken, **{**usual, **about})


BREACH: Final = Broken(Rule.ONCE, "0001", "accepted 2 times, 1 would be right")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """Say by name what scenarios would show; the others hold."""
    told: dict[str, Outcome] = {}

    def play(one: Scenario, seed: int, folder: Path, *, short: bool) -> Outcome:
        return told.get(one.name, outcome(one.name))

    monkeypatch.setattr(chaos, "play", play)
    return told


def test_all_that_hold_end_well(shown: dict[str, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert f"{len(load())} of {len(load())} hold" in told
    assert "--seed 3 repeats it" in told


def test_a_broken_rule_is_told_and_ends_non_zero(shown: dict[str, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    shown["worker-kill"] = outcome("worker-kill", BREACH)
    assert chaos.main(["--only", "worker-kill", "worker-term"]) == 1
    told = capsys.readouterr().out
    assert "worker-kill BROKE ONCE 0001: accepted 2 times, 1 would be right" in told
    assert "BROKEN: once" in told
    assert "1 of 2 hold" in told


def test_the_table_is_written_between_its_marks(shown: dict[str, Outcome], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    chaos.main(["--only", "worker-kill", "--write", str(page)])
    before, begin, head, rule, row, end, after = page.read_text().splitlines()
    assert (before, begin, end, after) == ("before", table.BEGIN, table.END, "after")
    assert head == "| scenario | injected | jobs | lost | repeated | unknown | recovery | verdict |"
    assert rule.count("|") == head.count("|")
    assert row == "| worker-kill | 3 × kill -9; TERM | 1,200 | 0 | 0 | 7 | 1.2 s / 6.0 s | holds |"


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text")
    with pytest.raises(ValueError, match=r"page\.md has no "):
        table.write([outcome("worker-kill")], page)
    assert page.read_text() == "text"


@pytest.mark.parametrize(
    ("one", "cells"),
    [
        pytest.param(outcome("a", injected={}), ("nothing", "1.2 s / 6.0 s", "holds"), id="nothing injected"),
        pytest.param(outcome("a", resumed=None, settled=None), ("3 × kill -9; TERM", "- / -", "holds"), id="no fault"),
        pytest.param(
            outcome("a", BREACH, BREACH, Broken(Rule.SUMS, "b", "counts")),
            ("3 × kill -9; TERM", "1.2 s / 6.0 s", "BROKEN: once, sums"),
            id="two rules",
        ),
    ],
)
def test_a_row(one: Outcome, cells: Sequence[str]) -> None:
    row = table.row(one)
    assert len(row) == len(table.HEAD)
    assert (row[1], row[6], row[7]) == tuple(cells)


def test_a_terminal_shows_every_row() -> None:
    console = Console(width=160, record=True, file=StringIO())
    table.show([outcome("a"), outcome("b", BREACH)], console)
    told = console.export_text()
    assert "a " in told
    assert "BROKEN: once" in told
