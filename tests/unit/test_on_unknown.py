"""The caller's word for what nobody can tell: hold it, or send it once more, and what each says of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dispatcher import Dispatcher, IdempotencyConflict, InvalidRequest, Job, Message, State
from dispatcher.calls import Word
from dispatcher.jobs import Lookup, OnUnknown, Terms
from dispatcher.send_file import Asked
from dispatcher.send_file import Run as SendFile
from dispatcher.sources import Stop
from tests.unit import test_cli, test_cli_send_file, test_client, test_execute, test_own_codes
from tests.unit.support import NUMBER, TEXT, Bench, Clock
from tests.unit.test_cli import Run
from tests.unit.test_cli_send_file import TERMS, Command, recipients
from tests.unit.test_client import Shop
from tests.unit.test_execute import LEASE, Road, failure

shop = test_client.shop
away = test_cli.away
memory = test_cli.memory
run = test_cli.run
codes = test_own_codes.road
send_file = test_cli_send_file.send_file

RESEND = Terms(on_unknown=OnUnknown.RESEND)
RESENT = ["--on-unknown", "resend"]
AGAIN = "it may have been taken, and is sent again as the caller asked"


@pytest.fixture
def road(clock: Clock) -> Road:
    return Road(clock)


def read(road: Road, id_: str = "0001") -> Job:
    with Dispatcher(road.bench.settings) as one:
        one._store.redis = road.bench.redis
        return one.get(id_)


def die(road: Road, repeat: str = "resend", **told: Any) -> str:
    """Let the worker of a job die with its request on the wire, and that be noticed; the token it was claimed with."""
    road.enqueue("0001", terms=RESEND, **told)
    token = road.bench.claim("0001", repeat=repeat)
    road.clock.advance(LEASE)
    road.bench.sweep()
    return token


# -- what is asked for -------------------------------------------------------------------------------------------------


def asked(shop: Shop, id_: str) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.json.decode(shop.bench.redis.hget(f"d:j:{id_}", "d"))
    return told


def test_it_is_kept_with_the_job_where_it_is_not_as_usual(shop: Shop) -> None:
    one = shop.dispatcher.send(NUMBER, TEXT, on_unknown="resend")
    code = shop.dispatcher.verify(NUMBER, on_unknown=OnUnknown.RESEND)
    (of_many,) = shop.dispatcher.send_many([Message(NUMBER, TEXT)], on_unknown="resend").jobs.ids
    assert [asked(shop, id_)["on_unknown"] for id_ in (one.id, code.id, of_many)] == ["resend"] * 3
    for usual in ({}, {"on_unknown": "hold"}, {"on_unknown": None}):
        held = shop.dispatcher.send(NUMBER, TEXT, **usual)
        assert "on_unknown" not in asked(shop, held.id), "nor does the hash of a request of before change"


@pytest.mark.parametrize("word", ["again", "", 1, "RESEND", True], ids=repr)
def test_there_is_no_third_word(shop: Shop, word: Any) -> None:
    for ask in (shop.dispatcher.send, shop.dispatcher.verify):
        with pytest.raises(InvalidRequest, match=r"on_unknown .*: must be one of hold, resend"):
            ask(*[NUMBER, TEXT][: 2 if ask == shop.dispatcher.send else 1], on_unknown=word)


def test_it_is_part_of_the_request_that_a_key_stands_for(shop: Shop) -> None:
    first = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k")
    assert shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k", on_unknown="hold").id == first.id
    with pytest.raises(IdempotencyConflict):
        shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k", on_unknown="resend")


@pytest.mark.parametrize("command", [["send", NUMBER, TEXT], ["verify", NUMBER]], ids=lambda words: words[0])
def test_the_command_line_asks_for_it_too(
    run: Run, memory: Bench, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_cli, "PRIVATE", ())
    (job,) = run(*command, "--on-unknown", "resend", "--json").documents
    assert msgspec.json.decode(memory.redis.hget(f"d:j:{job['id']}", "d"))["on_unknown"] == "resend"
    ended = run(*command, "--on-unknown", "twice")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("dispatcher: --on-unknown 'twice': must be one of hold, resend")


def test_a_file_is_another_batch_only_where_it_is_asked_for(memory: Bench, send_file: Command) -> None:
    """Who goes on with a file that an earlier release began says nothing of this, and shall find the same batch."""
    arguments = (recipients(2), "--text", TEXT, "--provider", "textgoto", "--json")
    usual, held, again = (send_file(*arguments, *more).report for more in ([], ["--on-unknown", "hold"], RESENT))
    assert (usual["batch_id"], usual["enqueued"]) == (held["batch_id"], 2)
    assert held["known"] == 2
    asked = Asked(file=str(arguments[0]), text=TEXT, dry_run=True, terms={**TERMS, "provider": "textgoto"})
    with Stop() as stop:
        before = SendFile(asked, memory.settings, None, stop, print)().report
    assert usual["batch_id"] == before.batch_id
    assert again["batch_id"] != usual["batch_id"]
    first = memory.redis.lindex(f"d:b:{again['batch_id']}:j", 0).decode()
    assert msgspec.json.decode(memory.redis.hget(f"d:j:{first}", "d"))["on_unknown"] == "resend"
    wrong = send_file(*arguments, "--on-unknown", "twice")
    assert (wrong.code, wrong.err.partition(":")[0]) == (2, "dispatcher")


# -- an answer that nobody can read ------------------------------------------------------------------------------------


def test_it_is_sent_once_more_and_says_why(road: Road) -> None:
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001", terms=RESEND)
    word = road.run("0001")
    assert word == "queued:retry"
    waits = read(road)
    assert (waits.state, waits.possible_duplicate) == (State.QUEUED, False), "it is not sent a second time yet"
    road.adapter.outcomes = {}
    assert road.again("0001", word) == "sent"
    assert road.bench.story("0001") == [
        "queued: created",
        "sending: attempt 1",
        f"queued: ambiguous X: no; {AGAIN}",
        "sending: attempt 2",
        "sent: accepted by the provider",
    ]
    assert road.wire.sent == ["0001", "0001"]
    job = read(road)
    assert (job.possible_duplicate, job.attempts) == (True, 2)


def test_a_second_doubt_is_the_last(road: Road) -> None:
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001", terms=RESEND)
    assert road.again("0001", road.run("0001")) == "unknown"
    assert len(road.wire.sent) == 2
    assert read(road).possible_duplicate


def test_unasked_nothing_is_sent_again(road: Road) -> None:
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001")
    assert road.run("0001") == "unknown"
    assert len(road.wire.sent) == 1


@pytest.mark.parametrize("before", ["not_sent", "throttled"])
def test_a_try_that_was_surely_not_taken_does_not_use_it_up(road: Road, before: str) -> None:
    road.enqueue("0001", terms=RESEND)
    road.adapter.outcomes = {"0001": failure(before)}
    word = road.run("0001")
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    word = road.again("0001", word)
    assert word == "queued:retry"
    assert not read(road).possible_duplicate, "it was sent once at most"
    assert road.again("0001", word) == "unknown"
    assert read(road).possible_duplicate


def test_sent_again_and_surely_not_taken_then_it_is_no_duplicate(road: Road) -> None:
    """Nor does it end as if nothing had happened: the first try is as doubtful as before."""
    road.enqueue("0001", terms=RESEND)
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    word = road.run("0001")
    road.adapter.outcomes = {"0001": failure("rejected")}
    assert road.again("0001", word) == "unknown"
    assert not read(road).possible_duplicate


def test_it_comes_to_an_end_with_the_attempts_that_there_are(clock: Clock) -> None:
    road = Road(clock, max_attempts=1)
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001", terms=RESEND)
    assert road.run("0001") == "unknown"


def test_what_bears_repeating_anyway_is_no_duplicate(road: Road) -> None:
    """A lookup that was asked twice reached nobody."""
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001", Lookup(to=NUMBER))
    assert road.again("0001", road.run("0001")) == "unknown"
    job = read(road)
    assert (job.attempts, job.possible_duplicate) == (2, False)


def test_a_code_of_ours_is_sent_again_as_the_same_code(codes: Road) -> None:
    """Whichever text arrives, or both: its code is right."""
    terms = msgspec.structs.replace(test_own_codes.TERMS, on_unknown=OnUnknown.RESEND)
    codes.adapter.outcomes = {"0001": failure("ambiguous")}
    codes.enqueue("0001", test_own_codes.VERIFY, terms=terms)
    word = codes.run("0001")
    codes.adapter.outcomes = {}
    assert codes.again("0001", word) == "sent"
    assert codes.wire.sent == ["Your code is 000001"] * 2
    assert codes.bench.check("0001", codes.bench.settings.hashed("code", "0001", "000001")) == (1, "approved")
    assert read(codes).possible_duplicate


# -- a worker that died ------------------------------------------------------------------------------------------------


def test_a_dead_workers_job_is_sent_once_more(road: Road) -> None:
    die(road)
    assert road.bench.story("0001")[-1] == f"queued: its worker died; {AGAIN}"
    assert road.again("0001", "queued:retry") == "sent"
    assert read(road).possible_duplicate
    assert read(road).attempts == 2


@pytest.mark.parametrize("end", ["death", "doubt"])
def test_but_not_twice(road: Road, end: str) -> None:
    die(road)
    if end == "death":
        assert road.bench.due("plain") == ["0001"]
        road.bench.claim("0001", repeat="resend")
        road.clock.advance(LEASE)
        road.bench.sweep()
    else:
        road.adapter.outcomes = {"0001": failure("ambiguous")}
        road.again("0001", "queued:retry")
    assert road.bench.state("0001") == "unknown"
    assert read(road).possible_duplicate


def test_the_claim_remembers_what_the_caller_asked(road: Road) -> None:
    def look() -> Any:
        assert road.bench.raw("0001")["o"] == "resend"
        return test_execute.OK

    road.wire.answers = [look]
    road.enqueue("0001", terms=RESEND)
    assert road.run("0001") == "sent"


def test_a_worker_of_before_held_it_and_so_it_is_held(road: Road) -> None:
    die(road, repeat="never")
    assert road.bench.state("0001") == "unknown"


# -- until it is sent again --------------------------------------------------------------------------------------------


def test_news_of_the_first_try_comes_in_time(road: Road) -> None:
    """The worker that was taken for dead lives, and the provider had taken it."""
    token = die(road)
    assert road.bench.advance("0001", token, "sent", tried="accepted 7", fields={"m": "7"}) == "sent"
    assert road.bench.due("plain") == []
    job = read(road)
    assert (job.state, job.provider_ref, job.possible_duplicate) == (State.SENT, "7", False)


def test_a_receipt_of_the_first_try_comes_in_time(road: Road) -> None:
    die(road)
    word = Word(provider="plain", own="0001", state=State.DELIVERED, detail="delivered")
    assert road.bench.run(road.bench.calls.receipts([word])) == ["moved"]
    assert road.bench.due("plain") == []
    assert read(road).state == State.DELIVERED


def test_it_ends_unknown_whatever_keeps_it_from_being_sent_again(road: Road) -> None:
    die(road, valid_for=LEASE * 1000 + 500)
    road.clock.advance(1)
    road.bench.sweep()
    assert road.bench.state("0001") == "unknown"
    assert road.bench.story("0001")[-1].endswith("an earlier try may have been taken")


def test_with_a_cancelled_batch_it_is_not_sent_again(road: Road) -> None:
    road.enqueue("0001", terms=RESEND)
    road.bench.redis.hset("d:j:0001", "b", "spring")
    road.bench.redis.hset("d:b:spring", mapping={"queued": 1, "c": 1})
    road.bench.claim("0001", repeat="resend")
    road.clock.advance(LEASE)
    road.bench.sweep()
    assert road.bench.state("0001") == "unknown"
    assert road.bench.due("plain") == []


def test_a_number_that_asked_for_no_more_meanwhile_gets_no_more(road: Road) -> None:
    hashed = road.bench.settings.hashed("number", NUMBER)
    die(road, number=hashed, texts=True)
    road.bench.redis.hset("d:no", hashed, "1 text")
    assert road.again("0001", "queued:retry") == "unknown"
    assert road.wire.sent == []
