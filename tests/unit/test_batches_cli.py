"""Batches on the command line: listed with their counts, waited for, taken back."""

from __future__ import annotations

import pytest

from tests.unit import test_cli
from tests.unit.support import Bench
from tests.unit.test_cli import ID, Run, one_paragraph

away = test_cli.away
memory = test_cli.memory
run = test_cli.run

FIRST, SECOND = "06h00n32pvdoek4tipfuifv0ka", "06h00n32pvdoek4tipfuifv0kb"


@pytest.fixture
def spring(memory: Bench) -> Bench:
    """A batch of which one job was sent and one is queued."""
    memory.ended(FIRST, "sent", batch="spring")
    memory.create(SECOND, batch="spring")
    return memory


def test_a_batch_is_listed_below_its_counts(run: Run, spring: Bench) -> None:
    ended = run("jobs", "--batch", "spring", "--state", "sent")
    assert ended.code == 0
    counted, _, listed = ended.out.splitlines()
    assert counted == "batch spring has 2 jobs: 1 queued, 1 sent", "of all, whatever is listed"
    assert FIRST in listed


def test_the_jobs_of_a_batch_are_nothing_but_jobs_as_json(run: Run, spring: Bench) -> None:
    assert [one["id"] for one in run("jobs", "--batch", "spring", "--json").documents] == [SECOND, FIRST]


def test_an_open_batch_says_so(run: Run, memory: Bench) -> None:
    memory.create(ID, batch="spring", more=True)
    assert run("jobs", "--batch", "spring").out.splitlines()[0] == "batch spring has 1 job: 1 queued; more may follow"


@pytest.mark.parametrize("arguments", [[], ["--state", "failed"]], ids=" ".join)
def test_no_jobs_are_said_to_be_none(run: Run, memory: Bench, arguments: list[str]) -> None:
    assert run("jobs", *arguments) == (0, "No jobs.\n", "")
    assert run("jobs", *arguments, "--json") == (0, "", "")


@pytest.mark.parametrize(
    ("end", "code"), [("sent", 0), ("completed", 0), ("failed", 1), ("unknown", 1)], ids=["sent", "done", "failed", "?"]
)
def test_waiting_for_a_batch_exits_by_how_all_its_jobs_ended(run: Run, spring: Bench, end: str, code: int) -> None:
    spring.advance(SECOND, spring.claim(SECOND), end)
    ended = run("wait", "--batch", "spring", "--json")
    assert (ended.code, ended.err) == (code, "")
    (document,) = ended.documents
    assert (document["id"], document["size"], document["settled"]) == ("spring", 2, True)
    assert run("wait", "--batch", "spring").out.startswith("batch spring has 2 jobs: ")


def test_a_batch_that_is_not_there_yet_is_shown_and_told(run: Run, spring: Bench) -> None:
    ended = run("wait", "--batch", "spring", "--timeout", "0")
    assert (ended.code, ended.out) == (1, "batch spring has 2 jobs: 1 queued, 1 sent\n")
    assert "batch spring is still busy with 1 job and not settled after 0 s" in ended.err


def test_a_batch_is_taken_back(run: Run, spring: Bench) -> None:
    assert run("cancel", "--batch", "spring") == (
        0,
        "batch spring has 2 jobs: 1 sent, 1 cancelled; takes no more\n",
        "",
    )
    (document,) = run("cancel", "--batch", "spring", "--json").documents
    assert (document["counts"], document["cancelled"]) == ({"sent": 1, "cancelled": 1}, True)


@pytest.mark.parametrize("command", ["wait", "cancel"])
def test_a_batch_that_never_was_is_not_found(run: Run, memory: Bench, command: str) -> None:
    ended = run(command, "--batch", "gone")
    assert ended.code == 1
    assert "there is no batch gone" in one_paragraph(ended)


@pytest.mark.parametrize("command", ["wait", "cancel"])
@pytest.mark.parametrize("words", [[], [ID, "--batch", "spring"]], ids=["neither", "both"])
def test_it_is_a_job_or_a_batch(run: Run, spring: Bench, command: str, words: list[str]) -> None:
    before = spring.dump()
    ended = run(command, *words)
    assert ended.code == 2
    assert "give the id of a job, or --batch with that of a batch" in one_paragraph(ended)
    assert spring.dump() == before


def test_a_settled_batch_is_a_line_among_the_events(run: Run, spring: Bench) -> None:
    run("cancel", "--batch", "spring")
    lines = run("events").out.splitlines()
    assert [line.split()[2] for line in lines] == ["job.sent", "batch.settled", "job.cancelled", "batch.settled"]
    assert lines[-1].endswith("batch.settled            spring  2 jobs: 1 sent, 1 cancelled; takes no more")
    assert run("events", "--json").documents[-1]["data"]["counts"] == {"sent": 1, "cancelled": 1}
