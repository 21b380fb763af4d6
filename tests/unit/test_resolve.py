"""An operator's word on a job of which nobody can tell."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher import Dispatcher, IllegalMove, InvalidRequest, Job, NotFound, State
from dispatcher.calls import Word
from tests.unit import test_cli, test_client
from tests.unit.support import NUMBER, TEXT, Bench
from tests.unit.test_cli import ID, Run, one_paragraph
from tests.unit.test_client import Shop

shop = test_client.shop
away = test_cli.away
memory = test_cli.memory
run = test_cli.run

NOTE = "it is in their portal"


def unknown(shop: Shop, kind: str = "send") -> Job:
    """A job whose only try nobody knows the end of, as a worker leaves it."""
    ask: dict[str, Any] = {
        "send": lambda d: d.send(NUMBER, TEXT),
        "verify": lambda d: d.verify(NUMBER),
        "lookup": lambda d: d.lookup(NUMBER),
        "operation": lambda d: d.operation("textgoto", "balance"),
    }
    job: Job = ask[kind](shop.dispatcher)
    fields = {"e": b'{"kind":"ambiguous","code":"timeout","message":"no answer"}', "i": 1}
    shop.bench.advance(job.id, shop.bench.claim(job.id), "unknown", "ambiguous timeout: no answer", fields=fields)
    return job


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("send", "sent"), ("verify", "sent"), ("lookup", "completed"), ("operation", "completed"),
        ("send", "failed"), ("verify", "failed"), ("lookup", "failed"), ("operation", "failed"),
    ],
)  # fmt: skip
def test_it_becomes_what_the_operator_says(shop: Shop, kind: str, word: str) -> None:
    told = unknown(shop, kind)
    job = shop.dispatcher.resolve(told.id, word, note=NOTE)
    assert (job.state, job.history[-1].detail) == (word, f"resolved as {word} by an operator: {NOTE}")
    assert shop.bench.events()[-1] == (f"job.{word}", job.id)
    assert shop.bench.members("d:f:textgoto") == set(), "nobody asks any more what became of it"


@pytest.mark.parametrize(
    ("kind", "word", "way_out"),
    [("send", "completed", "sent"), ("verify", "completed", "sent"), ("lookup", "sent", "completed"),
     ("operation", "sent", "completed")],
)  # fmt: skip
def test_a_word_that_does_not_fit_names_the_one_that_does(shop: Shop, kind: str, word: str, way_out: str) -> None:
    job = unknown(shop, kind)
    with pytest.raises(InvalidRequest, match=f"state '{word}': .* kind is {kind}; say {way_out} or failed"):
        shop.dispatcher.resolve(job.id, word)
    assert shop.bench.state(job.id) == "unknown"


@pytest.mark.parametrize("word", ["delivered", "queued", "", "SENT", None, 1, ["sent"]], ids=repr)
def test_other_words_are_none(shop: Shop, word: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"state .*must be sent, completed or failed"):
        shop.dispatcher.resolve(unknown(shop).id, word)


@pytest.mark.parametrize("state", ["queued", "sending", "sent", "delivered", "failed", "cancelled"])
@pytest.mark.parametrize("word", ["sent", "failed"])
def test_only_what_is_unknown_can_be_resolved(shop: Shop, state: str, word: str) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    if state == "cancelled":
        shop.dispatcher.cancel(job.id)
    elif state != "queued":
        token = shop.bench.claim(job.id)
        _ = state == "sending" or shop.bench.advance(job.id, token, state)
    before = shop.bench.dump()
    with pytest.raises(IllegalMove, match=f"job {job.id} is {state}: only what is unknown can be resolved"):
        shop.dispatcher.resolve(job.id, word)
    assert shop.bench.dump() == before


def test_said_twice_it_is_as_good_as_once(shop: Shop) -> None:
    """So that a call whose answer was lost can be made again."""
    job = unknown(shop)
    first = shop.dispatcher.resolve(job.id, "sent", note=NOTE)
    assert shop.dispatcher.resolve(job.id, "sent", note=NOTE) == first
    with pytest.raises(IllegalMove):
        shop.dispatcher.resolve(job.id, "sent", note="another")


def test_failed_means_that_it_was_surely_not_taken(shop: Shop) -> None:
    job = shop.dispatcher.resolve(unknown(shop).id, "failed", note=NOTE)
    assert job.failure is not None
    assert (job.failure.kind, job.failure.code) == ("not_sent", "resolved")
    assert job.failure.message == f"resolved as failed by an operator: {NOTE}"
    assert "i" not in shop.bench.raw(job.id)
    assert not job.possible_duplicate


def test_sent_leaves_no_failure_behind(shop: Shop) -> None:
    job = shop.dispatcher.resolve(unknown(shop).id, "sent")
    assert (job.failure, job.receipt) == (None, "none")
    assert job.history[-1].detail == "resolved as sent by an operator"


def test_after_that_a_receipt_may_still_come(shop: Shop) -> None:
    job = unknown(shop)
    shop.dispatcher.resolve(job.id, "sent")
    word = Word(provider="textgoto", own=job.id, state=State.DELIVERED, detail="delivered")
    assert shop.bench.run(shop.bench.calls.receipts([word])) == ["moved"]
    assert shop.bench.state(job.id) == "delivered"


def test_a_note_is_kept_without_what_is_private(shop: Shop) -> None:
    job = shop.dispatcher.resolve(unknown(shop).id, "sent", note=f"asked {NUMBER},\nsaw\tit\x1b[2J there")
    assert job.history[-1].detail == "resolved as sent by an operator: asked ***23, saw it [2J there"
    assert len(shop.bench.story(job.id)) == 4


@pytest.mark.parametrize("note", ["x" * 201, "\ud83d", 7, None], ids=["long", "half a letter", "digits", "none"])
def test_a_note_is_a_short_text(shop: Shop, note: Any) -> None:
    with pytest.raises(InvalidRequest, match="note"):
        shop.dispatcher.resolve(unknown(shop).id, "sent", note=note)


def test_of_what_never_was_nothing_became(shop: Shop) -> None:
    with pytest.raises(NotFound):
        shop.dispatcher.resolve("0001", "sent")


@pytest.mark.parametrize(("word", "status"), [("sent", "pending"), ("failed", "cancelled")])
def test_a_verification_goes_with_it(shop: Shop, word: str, status: str) -> None:
    """Sent, and nobody here knows its code: then no code is right, and nobody's application breaks on it."""
    job = shop.dispatcher.resolve(unknown(shop, "verify").id, word)
    assert job.verification is not None
    assert job.verification.status == status
    check = shop.dispatcher.check(job.id, "012837")
    assert (check.valid, check.status) == (False, status)


def test_a_batch_counts_it_as_what_it_is_now(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(test_client.TWO)
    for id_ in batch.jobs.ids:
        shop.bench.advance(id_, shop.bench.claim(id_), "unknown")
    shop.dispatcher.resolve(batch.jobs.ids[0], "failed")
    assert batch.counts == {"failed": 1, "unknown": 1}


class TestCommand:
    @pytest.fixture
    def held(self, memory: Bench) -> Bench:
        memory.ended(ID, "unknown")
        return memory

    def test_it_shows_the_job(self, run: Run, held: Bench) -> None:
        ended = run("resolve", ID, "sent", "--note", NOTE)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{ID} sent textgoto send")
        with Dispatcher(held.settings) as dispatcher:
            assert dispatcher.get(ID).history[-1].detail.endswith(NOTE)

    def test_as_json_too(self, run: Run, held: Bench) -> None:
        (document,) = run("resolve", ID, "failed", "--json").documents
        assert (document["state"], document["failure"]["code"]) == ("failed", "resolved")

    def test_what_does_not_fit_is_one_paragraph(self, run: Run, held: Bench) -> None:
        ended = run("resolve", ID, "completed")
        assert ended.code == 2
        assert "say sent or failed" in one_paragraph(ended)

    def test_what_is_not_unknown_is_one_paragraph(self, run: Run, memory: Bench) -> None:
        memory.create(ID)
        ended = run("resolve", ID, "sent")
        assert ended.code == 1
        assert one_paragraph(ended) == f"job {ID} is queued: only what is unknown can be resolved"
