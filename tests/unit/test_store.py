"""Every script, on a Redis in memory whose clock moves only when told; in any order they are in test_store_model."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from dispatcher.calls import Advance, Claim
from dispatcher.errors import ConfigurationError, IdempotencyConflict, StoreUnavailable
from dispatcher.outcomes import Checked
from dispatcher.states import SETTLED, State
from tests.unit.support import NUMBER, SECRET_KEY, TEXT, Bench, Clock, leaks, record
from tests.unit.test_states import TABLE

#: Seconds, as the settings have them unless told otherwise.
LEASE = 60
LOST_AFTER = 60
DAY = 86400
MONTH = 30 * DAY

# -- create ------------------------------------------------------------------------------------------------------------


def test_a_job_is_durable_and_its_message_is_in_the_outbox(bench: Bench) -> None:
    created = bench.create("0001")
    assert (created.at, created.ids) == (bench.clock.ms, ["0001"])
    assert bench.state("0001") == "queued"
    assert bench.story("0001") == ["queued: created"]
    assert bench.redis.zrange("d:o:textgoto", 0, -1, withscores=True) == [(b"0001", bench.clock.ms)]
    assert bench.members("d:i:textgoto:queued") == {"0001"}
    assert bench.events() == [], "queued is nothing to tell a consumer"


def test_a_job_of_the_high_lane_has_its_message_in_the_high_queue(bench: Bench) -> None:
    bench.create("0001", high=True)
    assert bench.members("d:o:textgoto.high") == {"0001"}
    assert bench.members("d:o:textgoto") == set()
    assert bench.members("d:i:textgoto:queued") == {"0001"}, "its provider has one index for both lanes"


def test_a_job_for_later_waits_and_has_no_message_yet(bench: Bench) -> None:
    due = bench.clock.ms + 3_600_000
    bench.create("0001", due=due)
    assert bench.redis.zrange("d:w:textgoto", 0, -1, withscores=True) == [(b"0001", due)]
    assert bench.members("d:o:textgoto") == set()
    assert bench.raw("0001")["w"] == f"time {due}"


@pytest.mark.parametrize("ago", [0, 1, 3_600_000], ids=["now", "a moment ago", "an hour ago"])
def test_a_job_for_a_moment_that_passed_is_due_at_once(bench: Bench, ago: int) -> None:
    bench.create("0001", due=bench.clock.ms - ago)
    assert bench.members("d:o:textgoto") == {"0001"}


@pytest.mark.parametrize(
    ("due_in", "useless_in"),
    [(None, 600_000), (60_000, 660_000), (-60_000, 600_000)],
    ids=["from now", "from when it may first be sent", "from now for what was due before"],
)
def test_how_long_it_is_valid_counts_from_when_it_may_first_be_sent(
    bench: Bench, due_in: int | None, useless_in: int
) -> None:
    due = None if due_in is None else bench.clock.ms + due_in
    bench.create("0001", due=due, valid_for=600_000)
    assert bench.raw("0001")["z"] == str(bench.clock.ms + useless_in)
    assert bench.redis.zscore("d:x", "0001") == bench.clock.ms + useless_in


def test_a_code_begins_to_live_when_its_text_may_first_be_sent(bench: Bench) -> None:
    bench.create("0001", code_ttl=300_000, due=bench.clock.ms + 1000)
    assert (bench.raw("0001")["vs"], bench.raw("0001")["ve"]) == ("pending", str(bench.clock.ms + 301_000))


def test_of_a_batch_all_jobs_are_counted_and_listed_in_order(bench: Bench) -> None:
    bench.create("0002", "0001", batch="b")
    bench.create("0003", batch="b")
    assert bench.counts("b") == {"queued": 3}
    assert bench.redis.lrange("d:b:b:j", 0, -1) == [b"0002", b"0001", b"0003"]


def listed(bench: Bench) -> dict[str, list[str]]:
    """What finds jobs by their numbers, by day."""
    keys = sorted(key.decode() for key in bench.redis.keys("d:n:*"))
    return {key.removeprefix("d:n:"): [one.decode() for one in bench.redis.zrange(key, 0, -1)] for key in keys}


def test_a_job_is_listed_by_its_numbers_hash_under_the_day_it_is_kept_until(bench: Bench) -> None:
    """It is the same for most jobs: their entries are written together, and go together."""
    bench.create("0001", "0002", number="hash")
    bench.create("0003", number="hash", due=bench.clock.ms + DAY * 1000)
    bench.create("0004", number="")
    assert listed(bench) == {"2027-02-14": ["hash 0001", "hash 0002"], "2027-02-15": ["hash 0003"]}
    assert bench.redis.zrange("d:nd", 0, -1) == [b"2027-02-14", b"2027-02-15"]


@pytest.mark.parametrize("twice_in_one_call", [False, True])
def test_the_same_id_twice_changes_nothing(bench: Bench, twice_in_one_call: bool) -> None:
    """A producer may repeat a call whose answer was lost."""
    fields: dict[str, Any] = {"number": "hash", "idempotency": "key", "fingerprint": "f", "valid_for": 600_000}
    bench.create("0001", batch="b", **fields)
    before = bench.dump()
    bench.clock.advance(5)
    again = bench.create("0001", *(["0001"] if twice_in_one_call else []), batch="b", **fields)
    assert set(again.ids) == {"0001"}
    assert bench.dump() == before


def test_a_repeated_call_does_not_bring_back_a_job_that_went_on(bench: Bench) -> None:
    bench.ended("0001", "sent", batch="b")
    bench.create("0001", "0002", batch="b")
    assert bench.state("0001") == "sent"
    assert bench.counts("b") == {"sent": 1, "queued": 1}


def test_the_same_idempotency_key_answers_with_the_first_job(bench: Bench) -> None:
    bench.create("0001", idempotency="key", fingerprint="f", batch="a", number="hash")
    before = bench.dump()
    again = bench.create("0002", idempotency="key", fingerprint="f", batch="b", number="hash")
    assert again.ids == ["0001"]
    assert bench.dump() == before


def test_the_same_idempotency_key_twice_in_one_call_makes_one_job(bench: Bench) -> None:
    made = [record(one, idempotency="key", fingerprint="f") for one in ("0001", "0002")]
    created = bench.run(bench.calls.create("textgoto", high=False, batch="b", records=made))
    assert created.ids == ["0001", "0001"]
    assert bench.state("0002") == "gone"
    assert bench.counts("b") == {"queued": 1}


@pytest.mark.parametrize("known", [False, True], ids=["within one call", "with a job of before"])
def test_on_a_conflict_nothing_is_written_at_all(bench: Bench, known: bool) -> None:
    if known:
        bench.create("0000", idempotency="key", fingerprint="f")
    bench.create("here")
    before = bench.dump()
    made = [
        record("0001", number="hash"),
        record("0002", idempotency="key", fingerprint="f"),
        record("0003", idempotency="key", fingerprint="another"),
        record("0004", idempotency="key 4", fingerprint="f"),
    ]
    with pytest.raises(IdempotencyConflict) as refused:
        bench.run(bench.calls.create("other", high=True, batch="b", records=made))
    assert (refused.value.job_id, refused.value.position) == ("0000" if known else "0002", 2)
    assert bench.dump() == before


@pytest.mark.parametrize(
    ("due_in", "valid_for", "kept"),
    [(None, None, MONTH), (None, 600, MONTH + 600), (3600, None, MONTH + 3600), (3600, 600, MONTH + 4200)],
    ids=["a job at once", "one that may wait", "one for later", "one for later that may wait"],
)
def test_what_lists_a_job_is_kept_for_as_long_as_the_job_can_be(
    bench: Bench, due_in: int | None, valid_for: int | None, kept: int
) -> None:
    due = None if due_in is None else bench.clock.ms + due_in * 1000
    valid = None if valid_for is None else valid_for * 1000
    bench.create("0001", number="hash", due=due, valid_for=valid)
    ((day, _),) = listed(bench).items()
    assert kept < (bench.ttl(f"d:n:{day}") or 0) <= kept + DAY


def test_an_idempotency_key_lives_with_its_job(bench: Bench) -> None:
    bench.create("0001", idempotency="key", fingerprint="f")
    assert bench.ttl("d:k:key") is None
    token = bench.claim("0001")
    assert bench.advance("0001", token, "unknown") == "unknown"
    assert bench.ttl("d:k:key") == MONTH
    assert bench.advance("0001", "=unknown", "queued") == "queued"
    assert bench.ttl("d:k:key") is None, "it is busy again"


def test_a_key_that_is_another_jobs_by_now_is_left_alone(clock: Clock) -> None:
    bench = Bench(clock, idempotency_retention=60)
    bench.ended("0001", "sent", idempotency="key", fingerprint="f")
    clock.advance(61)
    bench.create("0002", idempotency="key", fingerprint="f")
    assert bench.advance("0001", "=sent", "delivered") == "delivered"
    assert bench.ttl("d:k:key") is None


def test_a_day_goes_with_the_list_of_it(bench: Bench) -> None:
    bench.create("0001", number="hash")
    bench.create("0002", number="hash", due=bench.clock.ms + 2 * DAY * 1000)
    bench.clock.advance(MONTH + DAY)
    bench.sweep()
    assert listed(bench) == {"2027-02-16": ["hash 0002"]}
    assert bench.redis.zrange("d:nd", 0, -1) == [b"2027-02-16"]


def test_after_its_time_an_idempotency_key_is_free(bench: Bench) -> None:
    bench.ended("0001", "sent", idempotency="key", fingerprint="f")
    bench.clock.advance(MONTH + 1)
    assert bench.create("0002", idempotency="key", fingerprint="another").ids == ["0002"]


@pytest.mark.parametrize("first", [True, False], ids=["sandbox first", "live first"])
def test_the_sandboxs_jobs_never_share_a_redis_with_live_ones(clock: Clock, first: bool) -> None:
    here, other = Bench(clock, sandbox=first), Bench(clock, sandbox=not first)
    other.store.redis = here.redis
    here.create("0001")
    before = here.dump()
    with pytest.raises(ConfigurationError, match="DISPATCHER_SANDBOX"):
        other.create("0002")
    assert here.dump() == before


def test_jobs_made_with_another_hash_key_are_refused(clock: Clock) -> None:
    """No code would ever be right, and no number found."""
    here, other = Bench(clock), Bench(clock, hash_key="another")
    other.store.redis = here.redis
    here.create("0001")
    before = here.dump()
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY is not the one"):
        other.create("0002")
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY is not the one"):
        other.run(other.calls.enter())
    assert here.dump() == before
    assert not leaks(repr(before), here.settings.hash_key.get_secret_value())


def test_who_has_no_hash_key_needs_none(clock: Clock) -> None:
    here, other = Bench(clock), Bench(clock, hash_key="")
    other.store.redis = here.redis
    here.create("0001")
    assert other.create("0002").ids == ["0002"]


def test_as_many_jobs_as_one_call_carries_are_written(bench: Bench) -> None:
    ids = [f"{number:04}" for number in range(500)]
    assert bench.create(*ids, batch="b", valid_for=1000, number="hash").ids == ids
    assert bench.counts("b") == {"queued": 500}


# -- take --------------------------------------------------------------------------------------------------------------


def test_a_worker_is_handed_what_it_needs_and_no_more(bench: Bench) -> None:
    bench.create("0001", high=True, valid_for=600_000, private=b"private")
    ((id_, public, private, provider, lane, attempts, useless, created, *more),) = bench.take("0001").records
    assert more == [b"", b"", b"", b""], "nothing of an earlier try, no code of ours, no card, no quiet hours"
    assert [id_, public, private, provider] == [b"0001", record("0001").public, b"private", b"textgoto"]
    assert (lane, int(attempts)) == (b"1", 0)
    assert (useless, created) == (str(bench.clock.ms + 600_000).encode(), str(bench.clock.ms).encode())


def times_taken(bench: Bench, id_: str) -> int:
    """How often it was taken and not claimed: once where nothing is said but who holds it."""
    raw = bench.raw(id_)
    return int(raw.get("k", bool(raw.get("u"))))


def test_a_job_is_counted_before_its_payload_is_touched(bench: Bench) -> None:
    """The payload may be what kills the worker."""
    bench.create("0001", private=b"\x00 this kills")
    assert times_taken(bench, "0001") == 0
    bench.hold("0001")
    assert times_taken(bench, "0001") == 1
    assert bench.state("0001") == "queued", "being in a worker's hands is no state: nothing was sent"


def test_what_another_worker_holds_is_left_to_it(bench: Bench) -> None:
    bench.create("0001")
    bench.take("0001")
    bench.clock.advance(LEASE - 0.001)
    again = bench.take("0001")
    assert (again.records, again.suspects, again.idle) == ([], [], [("0001", "queued")])


def test_a_call_whose_answer_was_lost_gets_the_same_answer_again(bench: Bench) -> None:
    """Else the worker's own hands would be another's to it, and its jobs wait for a lease to end."""
    bench.create("0001", "0002")
    call = bench.calls.take("token", ["0001", "0002"])
    first = bench.run(call)
    before = bench.dump()
    assert bench.run(call) == first
    assert bench.dump() == before
    assert len(first.records) == 2


def test_repeating_a_lost_call_is_no_second_taking(bench: Bench) -> None:
    bench.create("0001")
    call = bench.calls.take("token", ["0001"])
    for _ in range(5):
        assert len(bench.run(call).records) == 1
    assert times_taken(bench, "0001") == 1
    bench.clock.advance(LEASE)
    assert bench.taken("0001", alone=True) == ["0001"], "the second taking is not taken for the third"


def test_who_was_held_when_its_worker_died_is_a_suspect(bench: Bench) -> None:
    """Whatever killed its worker kills nobody else's jobs: it is taken with nothing beside it."""
    bench.create("0001", "0002")
    bench.hold("0001", "0002")
    bench.create("0003")
    bench.clock.advance(LEASE)
    taken = bench.take("0001", "0002", "0003")
    assert [one[0] for one in taken.records] == [b"0003"]
    assert (taken.suspects, taken.idle) == (["0001", "0002"], [])
    assert times_taken(bench, "0001") == 1, "it was not taken a second time"
    assert bench.members("d:o:textgoto") == {"0001", "0002", "0003"}
    assert bench.taken("0001", alone=True) == ["0001"]


def test_even_by_itself_a_suspect_is_only_taken_by_who_means_to(bench: Bench) -> None:
    bench.create("0001")
    bench.hold("0001")
    bench.clock.advance(LEASE)
    assert bench.take("0001").suspects == ["0001"]


def test_a_suspect_that_proved_harmless_is_none_any_more(bench: Bench) -> None:
    """Its payload was touched with nothing beside it, and killed nobody."""
    bench.create("0001")
    for _ in range(2):
        bench.hold("0001")
        bench.clock.advance(LEASE)
    bench.create("0002")
    token = bench.hold("0002")
    bench.run(bench.calls.absolve("another", ["0002", "gone"]))
    assert times_taken(bench, "0002") == 1, "only who took it can tell"
    bench.run(bench.calls.absolve(token, ["0002"]))
    bench.clock.advance(LEASE)
    assert bench.taken("0002") == ["0002"]
    assert bench.take("0001").suspects == ["0001"]


def test_taken_a_third_time_a_job_is_failed(bench: Bench) -> None:
    bench.create("0001", batch="b")
    for _ in range(2):
        bench.hold("0001")
        bench.clock.advance(LEASE)
    taken = bench.take("0001", alone=True)
    assert (taken.records, taken.idle) == ([], [("0001", "failed")])
    told = bench.failure("0001") or {}
    assert (told["kind"], told["code"]) == ("internal", "poison")
    assert "taken twice by workers that died with it" in told["message"]
    assert bench.counts("b") == {"failed": 1}
    assert bench.events() == [("job.failed", "0001"), ("batch.settled", "b")]


def test_what_was_given_back_counts_as_never_taken(bench: Bench) -> None:
    bench.create("0001")
    for _ in range(5):
        token = bench.hold("0001")
        assert bench.run(bench.calls.release(token, ["0001", "gone"])) == ["0001"]
    assert bench.state("0001") == "queued"
    assert bench.taken("0001") == ["0001"]


@pytest.mark.parametrize("whose", ["another's", "claimed"])
def test_only_who_took_it_gives_it_back_and_only_before_it_is_claimed(bench: Bench, whose: str) -> None:
    bench.create("0001")
    token = bench.hold("0001")
    if whose == "claimed":
        bench.claim("0001", token=token)
    before = bench.dump()
    assert bench.run(bench.calls.release(token if whose == "claimed" else "another", ["0001"])) == []
    assert bench.dump() == before


@pytest.mark.parametrize("state", [state for state in TABLE if state != "queued"])
def test_of_a_job_that_went_on_there_is_nothing_to_take(bench: Bench, state: str) -> None:
    bench.create("0001")
    bench.redis.hset("d:j:0001", "s", state)
    before = bench.dump()
    taken = bench.take("0001")
    assert (taken.records, taken.suspects, taken.idle) == ([], [], [("0001", state)])
    assert {key for key, value in bench.dump().items() if value != before.get(key)} <= {"d:g:textgoto"}


def test_a_job_that_waits_until_later_is_not_taken(bench: Bench) -> None:
    """Its message is one too many: the clock publishes it when it is due."""
    bench.create("0001", due=bench.clock.ms + 1000)
    assert bench.take("0001").idle == [("0001", "queued")]
    bench.clock.advance(2)
    assert bench.take("0001").idle == [("0001", "queued")], "due, and not yet published"
    bench.due()
    assert bench.taken("0001") == ["0001"]


def test_a_job_that_never_was_is_gone(bench: Bench) -> None:
    assert bench.take("0001").idle == [("0001", "gone")]


# -- claim -------------------------------------------------------------------------------------------------------------


def test_a_claim_makes_the_intent_durable(bench: Bench) -> None:
    bench.started("0001", batch="b", valid_for=600_000)
    assert bench.state("0001") == "sending"
    assert bench.story("0001") == ["queued: created", "sending: attempt 1"]
    assert bench.raw("0001")["a"] == "1"
    assert {"k", "w"} & set(bench.raw("0001")) == set()
    assert not bench.raw("0001")["u"], "it is not held and was not taken: it is claimed"
    assert bench.redis.zscore("d:l", "0001") == bench.clock.ms + LEASE * 1000
    assert bench.counts("b") == {"sending": 1}
    for key in ("d:o:textgoto", "d:w:textgoto", "d:x", "d:i:textgoto:queued"):
        assert bench.members(key) == set()
    assert bench.events() == [], "a consumer is told of ends"


def test_each_claim_has_a_token_of_its_own(bench: Bench) -> None:
    assert len({bench.started(f"{number:04}") for number in range(20)}) == 20


def test_a_claim_whose_answer_was_lost_finds_its_own(bench: Bench) -> None:
    """Else the worker would leave to nobody what is in its hands."""
    bench.create("0001")
    token = bench.hold("0001")
    call = bench.calls.claim([Claim(token, "0001", "never")])
    assert bench.run(call) == [None]
    bench.clock.advance(1)
    assert bench.run(call) == [None]
    assert bench.raw("0001")["a"] == "1", "one attempt"
    assert bench.advance("0001", token, "sent") == "sent"
    assert bench.run(call) == ["sent"]


def test_a_job_is_claimed_once(bench: Bench) -> None:
    token = bench.started("0001")
    before = bench.dump()
    assert bench.refused_claim("another", "0001") == "sending"
    assert bench.dump() == before
    assert bench.advance("0001", token, "sent") == "sent", "the first claim still holds"


def test_only_who_took_a_job_claims_it(bench: Bench) -> None:
    """A worker that was gone for longer than its hold finds it in another's hands, and leaves it there."""
    bench.create("0001")
    slow = bench.hold("0001")
    bench.clock.advance(LEASE)
    quick = bench.hold("0001")
    before = bench.dump()
    assert bench.refused_claim(slow, "0001") == "queued"
    assert bench.refused_claim("nobody", "0001") == "queued"
    assert bench.dump() == before
    assert bench.refused_claim(quick, "0001") is None


def test_a_worker_that_was_gone_for_longer_than_its_hold_may_claim_what_nobody_took(bench: Bench) -> None:
    bench.create("0001")
    token = bench.hold("0001")
    bench.clock.advance(2 * LEASE)
    assert bench.refused_claim(token, "0001") is None


def test_what_was_parked_or_given_back_is_in_nobodys_hands(bench: Bench) -> None:
    bench.create("0001")
    token = bench.hold("0001")
    parked(bench)
    assert bench.refused_claim(token, "0001") == "queued"
    bench.clock.advance(5)
    bench.due()
    token = bench.hold("0001")
    bench.run(bench.calls.release(token, ["0001"]))
    assert bench.refused_claim(token, "0001") == "queued"


def test_of_a_group_each_job_is_answered_for_itself(bench: Bench) -> None:
    bench.create("0001", "0003")
    bench.ended("0002", "sent")
    bench.create("0004", valid_for=1)
    token = bench.hold("0001", "0003", "0004")
    bench.clock.advance(1)
    asked = [Claim(token, id_, "never") for id_ in ("0001", "0002", "0003", "0004", "0005")]
    assert bench.run(bench.calls.claim(asked)) == [None, "sent", None, "expired", "gone"]


def test_claims_of_several_messages_share_a_call_each_under_its_own_token(bench: Bench) -> None:
    bench.create("0001", "0002", "0003")
    one, other = bench.hold("0001", "0003"), bench.hold("0002")
    asked = [Claim(one, "0001", "never"), Claim(other, "0002", "never"), Claim(other, "0003", "never")]
    assert bench.run(bench.calls.claim(asked)) == [None, None, "queued"], "the third is in the first one's hands"
    assert [bench.raw(id_).get("f") for id_ in ("0001", "0002", "0003")] == [one, other, None]
    assert bench.run(bench.calls.claim(asked)) == [None, None, "queued"], "made again, each finds its own"
    assert bench.advance("0002", one, "failed") == "", "a token fences its own jobs only"
    assert bench.advance("0002", other, "sent") == "sent"


@pytest.mark.parametrize(("late", "state"), [(-1, None), (0, "expired"), (1, "expired")])
def test_what_is_useless_by_now_is_not_sent_any_more(bench: Bench, late: int, state: str | None) -> None:
    """`late` is in milliseconds after its time."""
    bench.create("0001", valid_for=600_000, batch="b")
    token = bench.hold("0001")
    bench.clock.ms += 600_000 + late
    assert bench.refused_claim(token, "0001") == state
    if state:
        assert bench.counts("b") == {"expired": 1}
        assert bench.events() == [("job.expired", "0001"), ("batch.settled", "b")]
        assert (bench.failure("0001") or {})["kind"] == "expired"


def test_what_was_cancelled_in_a_workers_hands_is_not_sent(bench: Bench) -> None:
    bench.create("0001")
    token = bench.hold("0001")
    bench.advance("0001", "=queued", "cancelled")
    assert bench.refused_claim(token, "0001") == "cancelled"


def test_a_claim_ends_the_count_of_takings(bench: Bench) -> None:
    """What reached its request did not kill its worker: later tries begin with a clean slate."""
    bench.create("0001")
    bench.hold("0001")
    bench.clock.advance(LEASE)
    token = bench.claim("0001")
    bench.advance("0001", token, "queued", wait="retry", delay=1)
    bench.clock.advance(1)
    bench.due()
    assert bench.taken("0001", "gone") == ["0001"], "neither suspect nor failed"


# -- advance -----------------------------------------------------------------------------------------------------------


#: All moves but that from the queue into the queue, which is parking.
MOVES = [pair for pair in product(TABLE, TABLE) if pair != ("queued", "queued")]


@pytest.mark.parametrize(("state", "to"), MOVES)
def test_a_move_is_made_where_the_table_allows_it_and_nowhere_else(bench: Bench, state: str, to: str) -> None:
    bench.create("0001", batch="b")
    bench.redis.hset("d:j:0001", "s", state)
    before = bench.dump()
    moved = bench.advance("0001", f"={state}", to, wait="retry")
    assert moved == (to if to in TABLE[state] else "")
    if not moved:
        assert bench.dump() == before


#: What news under a token does: (the job is, the token is, the news is) -> it becomes.
NEWS = [
    pytest.param("sending", "current", "sent", "sent", id="the answer"),
    pytest.param("sending", "current", "completed", "completed", id="the result"),
    pytest.param("sending", "current", "failed", "failed", id="the refusal"),
    pytest.param("sending", "current", "unknown", "unknown", id="no answer"),
    pytest.param("sending", "current", "queued", "queued", id="not sent"),
    pytest.param("unknown", "current", "sent", "sent", id="its own late answer"),
    pytest.param("unknown", "current", "completed", "completed", id="its own late result"),
    pytest.param("unknown", "current", "failed", "failed", id="its own late refusal"),
    pytest.param("unknown", "current", "queued", "queued", id="its own late word that nothing was sent"),
    pytest.param("queued", "current", "sent", "sent", id="its own late answer while it waits to be tried again"),
    pytest.param("queued", "current", "completed", "completed", id="its own late result while it waits again"),
    pytest.param("queued", "current", "failed", "", id="a late refusal while it waits to be tried again"),
    pytest.param("queued", "current", "unknown", "", id="late doubt while it waits to be tried again"),
    pytest.param("sent", "current", "sent", "sent", id="the answer again, because ours was lost"),
    pytest.param("queued", "current", "queued", "queued", id="its word again that nothing was sent"),
    pytest.param("sent", "stale", "sent", "", id="another claim's answer after ours"),
    pytest.param("sent", "current", "failed", "", id="a refusal after the answer"),
    pytest.param("sending", "stale", "sent", "", id="another claim's answer while this one is on the wire"),
    pytest.param("sending", "stale", "failed", "", id="another claim's refusal"),
    pytest.param("sending", "stale", "unknown", "", id="another claim's doubt"),
    pytest.param("sending", "stale", "queued", "", id="another claim's word that nothing was sent"),
    pytest.param("unknown", "stale", "sent", "sent", id="a late answer lifts unknown whoever brings it"),
    pytest.param("unknown", "stale", "completed", "completed", id="a late result lifts unknown whoever brings it"),
    pytest.param("unknown", "stale", "failed", "", id="another claim's refusal does not"),
    pytest.param("unknown", "stale", "queued", "", id="another claim cannot have it sent again"),
    pytest.param("queued", "stale", "sent", "sent", id="a late answer ends a job that waits to be tried again"),
    pytest.param("queued", "stale", "failed", "", id="another claim's refusal ends nothing"),
    pytest.param("cancelled", "stale", "sent", "", id="cancelled is final"),
    pytest.param("expired", "stale", "sent", "", id="expired is final"),
]


@pytest.mark.parametrize(("state", "token", "news", "becomes"), NEWS)
def test_news_counts_by_its_token(bench: Bench, state: str, token: str, news: str, becomes: str) -> None:
    stale = bench.started("0001")
    bench.advance("0001", stale, "queued", wait="retry")
    bench.due()
    current = bench.claim("0001")
    if state in {"cancelled", "expired"}:
        bench.advance("0001", current, "queued", wait="retry")
        bench.advance("0001", "=queued", state)
    elif state != "sending":
        assert bench.advance("0001", current, state, wait="retry") == state
    before = bench.dump()
    assert bench.advance("0001", current if token == "current" else stale, news, wait="retry") == becomes
    if becomes in {"", state}:
        assert bench.dump() == before


@pytest.mark.parametrize("said_again", [False, True], ids=["as it is", "said again"])
def test_what_was_taken_back_is_not_brought_to_life_by_what_is_said_again(bench: Bench, said_again: bool) -> None:
    """Its try may have been taken and it was to be tried again, and then somebody took it back."""
    token = bench.started("0001")
    told: dict[str, Any] = {"wait": "retry", "fields": {"i": 1}}
    assert bench.advance("0001", token, "queued", **told) == "queued"
    assert bench.advance("0001", "=queued", "cancelled") == "unknown"
    if said_again:
        assert bench.advance("0001", token, "queued", **told) == ""
    assert bench.state("0001") == "unknown"
    assert bench.events() == [("job.unknown", "0001")]


def test_news_of_a_job_that_never_was_is_refused(bench: Bench) -> None:
    assert bench.advance("0001", "1", "sent") == ""
    assert bench.names() == set()


def test_of_many_news_each_is_judged_for_itself(bench: Bench) -> None:
    bench.create("0001", "0002", "0003", batch="b")
    token = bench.claim("0001", "0002", "0003")
    moves = [
        Advance(id="0001", guard=token, state=State.SENT, detail="ok", fields={"m": "7", "c": "0.1 EUR"}),
        Advance(id="0002", guard="0", state=State.FAILED, detail="no"),
        Advance(id="gone", guard=token, state=State.SENT, detail="ok"),
        Advance(id="0003", guard=token, state=State.QUEUED, detail="later", wait="retry", delay=2, tried="not_sent "),
    ]
    assert bench.run(bench.calls.advance(moves)) == ["sent", "", "", "queued"]
    assert bench.counts("b") == {"sent": 1, "sending": 1, "queued": 1}
    assert (bench.raw("0001")["m"], bench.raw("0001")["c"]) == ("7", "0.1 EUR")
    assert bench.raw("0003")["t"] == f"{bench.clock.ms} textgoto not_sent "


def test_a_failure_is_told_until_it_ends_well(bench: Bench) -> None:
    told = {"e": b'{"kind":"not_sent","code":"SITE_UNAVAILABLE","message":""}'}
    token = bench.started("0001")
    bench.advance("0001", token, "queued", wait="retry", fields=told)
    assert (bench.failure("0001") or {})["kind"] == "not_sent"
    bench.due()
    token = bench.claim("0001")
    assert bench.failure("0001") is not None
    bench.advance("0001", token, "sent")
    assert bench.failure("0001") is None


def test_what_will_be_tried_again_waits_and_its_attempt_is_spent(bench: Bench) -> None:
    token = bench.started("0001", valid_for=600_000)
    bench.advance("0001", token, "queued", "not_sent", wait="retry", delay=4)
    assert bench.members("d:w:textgoto") == {"0001"}
    assert bench.redis.zscore("d:w:textgoto", "0001") == bench.clock.ms + 4000
    assert bench.members("d:o:textgoto") == bench.members("d:l") == set()
    assert bench.members("d:x") == {"0001"}, "its time still passes"
    assert bench.raw("0001")["w"] == f"retry {bench.clock.ms + 4000}"
    assert bench.raw("0001")["a"] == "1"


def test_tries_are_kept_line_by_line(bench: Bench) -> None:
    token = bench.started("0001")
    bench.advance("0001", token, "queued", wait="retry", tried="not_sent ")
    bench.clock.advance(1)
    bench.due()
    token = bench.claim("0001")
    bench.advance("0001", token, "sent", tried="accepted 7")
    assert bench.raw("0001")["t"].split("\n") == [
        f"{bench.clock.ms - 1000} textgoto not_sent ", f"{bench.clock.ms} textgoto accepted 7",
    ]  # fmt: skip


def test_a_code_lives_from_the_moment_it_was_sent(bench: Bench) -> None:
    """Five minutes in the queue are not taken from the person's time."""
    token = bench.started("0001", code_ttl=300_000)
    bench.clock.advance(290)
    bench.advance("0001", token, "sent", fields={"vh": "hash"}, code_ttl=300)
    assert bench.raw("0001")["ve"] == str(bench.clock.ms + 300_000)


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_a_settled_state_is_told_at_once_and_with_the_move(bench: Bench, state: State) -> None:
    bench.create("0001")
    bench.redis.hset("d:j:0001", "s", "unknown" if state == "completed" else "queued")
    bench.redis.hset("d:j:0001", "s", "sending" if state == "unknown" else bench.state("0001"))
    bench.advance("0001", f"={bench.state('0001')}", state)
    assert bench.events() == [(f"job.{state}", "0001")]
    ((_, fields),) = bench.redis.xrange("d:e")
    assert int(fields[b"n"]) == int(bench.raw("0001")["n"]) == 2


def test_each_move_is_told_in_order(bench: Bench) -> None:
    token = bench.started("0001")
    bench.clock.advance(LEASE)
    bench.sweep()
    bench.advance("0001", token, "sent")
    bench.advance("0001", "=sent", "undelivered")
    bench.advance("0001", "=undelivered", "delivered")
    assert [kind for kind, _ in bench.events()] == ["job.unknown", "job.sent", "job.undelivered", "job.delivered"]


def test_a_history_of_thousands_of_lines_forgets_its_middle(bench: Bench) -> None:
    """A record stays small enough to be read; how it began is always told, and how many lines there were."""
    bench.create("0001")
    told = [f"waits for {number:04}" for number in range(1000)]
    moves = [Advance(id="0001", guard="=queued", state=State.QUEUED, detail=one, wait="limit") for one in told]
    bench.run(bench.calls.advance(moves))
    raw = bench.raw("0001")
    story = bench.story("0001")
    assert len(raw["h"]) <= 16_384
    assert (story[0], story[-1]) == ("queued: created", "queued: waits for 0999")
    assert raw["n"] == "1001"


# -- parking -----------------------------------------------------------------------------------------------------------


def parked(bench: Bench, reason: str = "limit", delay: float = 5) -> str:
    return bench.advance("0001", "=queued", "queued", f"waits for {reason}", wait=reason, delay=delay)


def test_what_is_parked_waits_without_spending_an_attempt(bench: Bench) -> None:
    bench.create("0001")
    bench.hold("0001")
    assert parked(bench) == "queued"
    assert bench.redis.zscore("d:w:textgoto", "0001") == bench.clock.ms + 5000
    assert bench.members("d:o:textgoto") == set()
    raw = bench.raw("0001")
    assert raw["w"] == f"limit {bench.clock.ms + 5000}"
    assert {"a", "k", "u"} & set(raw) == set(), "no attempt, no taking, in nobody's hands"


def test_waiting_again_for_the_same_reason_is_told_once(bench: Bench) -> None:
    """An hour of waiting for the limit is one line of history, not hundreds."""
    bench.create("0001")
    for _ in range(10):
        assert bench.taken("0001") == ["0001"]
        parked(bench)
        bench.clock.advance(5)
        assert bench.due() == ["0001"]
    assert bench.story("0001") == ["queued: created", "queued: waits for limit"]


def test_parked_again_before_it_was_due_it_is_told_once_too(bench: Bench) -> None:
    bench.create("0001")
    parked(bench)
    parked(bench, delay=7)
    assert bench.story("0001") == ["queued: created", "queued: waits for limit"]
    assert bench.redis.zscore("d:w:textgoto", "0001") == bench.clock.ms + 7000


def test_waiting_for_another_reason_is_told(bench: Bench) -> None:
    bench.create("0001")
    parked(bench)
    parked(bench, "suspended")
    assert bench.story("0001")[1:] == ["queued: waits for limit", "queued: waits for suspended"]
    assert bench.events() == []


def test_only_a_queued_job_is_parked(bench: Bench) -> None:
    bench.started("0001")
    before = bench.dump()
    assert parked(bench) == ""
    assert bench.dump() == before


# -- due ---------------------------------------------------------------------------------------------------------------


def test_what_is_due_is_published_once(bench: Bench) -> None:
    bench.create("0001", due=bench.clock.ms + 1000)
    assert bench.due() == []
    bench.clock.advance(0.999)
    assert bench.due() == []
    bench.clock.advance(0.001)
    assert bench.due() == ["0001"]
    assert bench.due() == [], "a second clock is harmless"
    assert bench.redis.zscore("d:o:textgoto", "0001") == bench.clock.ms
    assert "w" not in bench.raw("0001"), "it waits for a worker"
    assert bench.story("0001") == ["queued: created"], "being due is nothing that happened"


def test_what_went_on_meanwhile_is_not_due_any_more(bench: Bench) -> None:
    bench.create("0001", due=bench.clock.ms + 1000)
    bench.redis.hset("d:j:0001", "s", "sent")
    bench.clock.advance(1)
    assert bench.due() == []
    assert bench.members("d:w:textgoto") == set()


def test_what_is_due_first_is_published_first_and_no_more_than_asked_for(bench: Bench) -> None:
    for id_, seconds in (("0003", 3), ("0001", 1), ("0002", 2)):
        bench.create(id_, due=bench.clock.ms + seconds * 1000)
    bench.clock.advance(10)
    assert bench.due(most=2) == ["0001", "0002"]
    assert bench.due(most=2) == ["0003"]


def test_each_queue_is_looked_at_for_itself(bench: Bench) -> None:
    bench.create("0001", due=bench.clock.ms + 1000, high=True)
    bench.create("0002", due=bench.clock.ms + 1000, provider="other")
    bench.clock.advance(1)
    assert bench.due("textgoto") == []
    assert bench.due("textgoto.high") == ["0001"]
    assert bench.due("other") == ["0002"]


# -- lost --------------------------------------------------------------------------------------------------------------


def test_an_untaken_message_is_lost_when_its_queue_is_empty(bench: Bench) -> None:
    bench.create("0001")
    bench.clock.advance(LOST_AFTER - 0.001)
    assert bench.lost(empty=True) == [], "not yet"
    bench.clock.advance(0.001)
    assert bench.lost(empty=True) == ["0001"]
    assert bench.story("0001")[1:] == ["queued: its message was lost and is published again"]
    assert bench.lost(empty=True) == [], "it counts as published now: a second clock is harmless"
    bench.clock.advance(LOST_AFTER)
    assert bench.lost(empty=True) == ["0001"], "and may be lost again"


def test_waiting_in_a_backlog_is_not_lost(bench: Bench) -> None:
    bench.create("0001")
    bench.clock.advance(3600)
    assert bench.lost(empty=False) == []


def test_a_message_is_lost_when_a_later_one_was_taken_a_minute_ago(bench: Bench) -> None:
    """Its worker died with it: the queue is not empty and goes on without it. Known to 10 s."""
    bench.create("0001")
    bench.clock.advance(1)
    bench.ended("0002", "sent")
    found_after = None
    for second in range(0, 2 * LOST_AFTER, 5):
        if bench.lost(empty=False) == ["0001"]:
            found_after = second
            break
        bench.clock.advance(5)
    assert found_after is not None
    assert LOST_AFTER <= found_after <= LOST_AFTER + 15


def test_that_a_later_message_was_taken_counts_after_a_minute(bench: Bench) -> None:
    """However old the backlog: other workers may have the earlier ones in their hands by now."""
    bench.create("0001")
    bench.clock.advance(1)
    bench.create("0002")
    bench.clock.advance(3600)
    bench.claim("0002")
    assert bench.lost(empty=False) == []
    bench.clock.advance(LOST_AFTER - 1)
    assert bench.lost(empty=False) == []
    bench.clock.advance(11)
    assert bench.lost(empty=False) == ["0001"]


def test_of_messages_published_in_one_moment_none_was_later(bench: Bench) -> None:
    bench.create("0001", "0002")
    bench.claim("0001")
    bench.clock.advance(3600)
    assert bench.lost(empty=False) == []


def test_a_message_is_not_lost_when_an_earlier_one_was_taken(bench: Bench) -> None:
    """Taking in order is what a backlog does."""
    bench.create("0002")
    bench.clock.advance(1)
    bench.create("0001")
    bench.take("0002")
    bench.clock.advance(3600)
    assert "0001" not in bench.lost(empty=False)


def test_that_a_later_message_was_taken_is_not_forgotten_before_all_earlier_ones_are_found(bench: Bench) -> None:
    bench.create("0001", "0002", "0003")
    bench.clock.advance(1)
    bench.ended("0004", "sent")
    bench.clock.advance(LOST_AFTER + 10)
    assert [*bench.lost(most=2), *bench.lost(most=2), *bench.lost(most=2)] == ["0001", "0002", "0003"]


def test_being_in_a_live_workers_hands_is_not_lost(bench: Bench) -> None:
    bench.create("0001")
    bench.clock.advance(LOST_AFTER)
    bench.take("0001")
    assert bench.lost(empty=True) == []
    bench.clock.advance(LEASE)
    assert bench.lost(empty=True) == ["0001"], "in a dead one's it is"


def test_a_message_published_again_says_nothing_of_how_far_the_queue_is(bench: Bench) -> None:
    """It stands behind a backlog that is older than it: taking it out of turn does not make the others lost."""
    bench.create("again")
    bench.clock.advance(1)
    bench.create("0001", "0002")
    bench.clock.advance(LOST_AFTER)
    bench.run(bench.calls.lost("textgoto", empty=True, most=1))
    bench.clock.advance(LEASE)
    bench.claim("again")
    assert "q" not in bench.raw("again"), "when it comes back to the queue its message is a first one"
    bench.clock.advance(LOST_AFTER + 20)
    assert bench.lost(empty=False) == []


def test_a_message_that_a_live_worker_speaks_for_is_not_lost(bench: Bench) -> None:
    bench.create("0001", "0002")
    bench.clock.advance(LOST_AFTER)
    bench.run(bench.calls.touch(["0001", "gone"]))
    assert bench.lost(empty=True) == ["0002"]
    bench.clock.advance(LOST_AFTER)
    assert bench.lost(empty=True) == ["0001", "0002"], "in case it died as well"


def test_speaking_for_a_message_says_nothing_of_how_far_the_queue_is(bench: Bench) -> None:
    bench.create("0001")
    bench.clock.advance(1)
    bench.create("0002")
    bench.clock.advance(LOST_AFTER)
    bench.run(bench.calls.touch(["0001"]))
    bench.claim("0001")
    bench.clock.advance(LOST_AFTER + 20)
    assert bench.lost(empty=False) == []


@pytest.mark.parametrize("place", ["parked", "sending", "sent"])
def test_only_what_is_in_the_outbox_can_be_spoken_for(bench: Bench, place: str) -> None:
    if place == "parked":
        bench.create("0001", due=bench.clock.ms + 1000)
    else:
        token = bench.started("0001")
        assert place == "sending" or bench.advance("0001", token, "sent") == "sent"
    before = bench.dump()
    bench.run(bench.calls.touch(["0001"]))
    assert bench.dump() == before


@pytest.mark.parametrize("state", ["sending", "sent", "cancelled"])
def test_what_is_in_no_outbox_cannot_be_lost(bench: Bench, state: str) -> None:
    token = bench.started("0001")
    if state == "sent":
        bench.advance("0001", token, "sent")
    elif state == "cancelled":
        bench.advance("0001", token, "queued", wait="retry")
        bench.advance("0001", "=queued", "cancelled")
    bench.clock.advance(3600)
    assert bench.lost(empty=True) == []


def test_what_waits_until_later_is_not_lost(bench: Bench) -> None:
    bench.create("0001", due=bench.clock.ms + 7_200_000)
    bench.clock.advance(3600)
    assert bench.lost(empty=True) == []


def test_an_outbox_entry_of_a_job_that_is_gone_is_thrown_away(bench: Bench) -> None:
    bench.create("0001")
    bench.redis.delete("d:j:0001")
    bench.clock.advance(LOST_AFTER)
    assert bench.lost(empty=True) == []
    assert bench.members("d:o:textgoto") == set()


def test_what_is_remembered_of_takings_does_not_grow(bench: Bench) -> None:
    for number in range(40):
        bench.ended(f"{number:04}", "sent")
        bench.clock.advance(10)
        bench.lost()
    assert bench.redis.hlen("d:g:textgoto") <= LOST_AFTER / 10 + 2


# -- sweep -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("repeat", "ends"),
    [
        pytest.param("never", ["unknown"], id="a send: nobody sends it again"),
        pytest.param("once", ["queued", "unknown"], id="a lookup: again once"),
        pytest.param("always", ["queued", "queued", "queued"], id="a read: again and again"),
    ],
)
def test_a_dead_workers_job_goes_on_as_far_as_it_may_be_repeated(bench: Bench, repeat: str, ends: list[str]) -> None:
    bench.create("0001", batch="b")
    for end in ends:
        bench.claim("0001", repeat=repeat)
        bench.clock.advance(LEASE)
        assert bench.sweep() == (1, 0)
        assert bench.state("0001") == end
        assert bench.counts("b") == {end: 1}
        assert bench.members("d:l") == set()
        assert bench.due() == (["0001"] if end == "queued" else [])
    assert bench.events() == ([("job.unknown", "0001"), ("batch.settled", "b")] if ends[-1] == "unknown" else [])


def test_a_live_workers_lease_is_left_alone(bench: Bench) -> None:
    bench.started("0001")
    bench.clock.advance(LEASE - 0.001)
    assert bench.sweep() == (0, 0)
    assert bench.state("0001") == "sending"


def test_a_worker_that_was_only_slow_is_still_believed(bench: Bench) -> None:
    """It says what became of the request after its lease ended: no resend, no loss."""
    token = bench.started("0001")
    bench.clock.advance(LEASE)
    bench.sweep()
    assert bench.state("0001") == "unknown"
    assert bench.advance("0001", token, "sent") == "sent"


def test_what_was_not_sent_in_time_expires(bench: Bench) -> None:
    bench.create("0001", valid_for=600_000, batch="b")
    bench.create("0002", valid_for=600_000, due=bench.clock.ms + 60_000, batch="b")
    bench.clock.advance(599.999)
    assert bench.sweep() == (0, 0)
    bench.clock.advance(0.001)
    assert bench.sweep() == (0, 1)
    assert bench.counts("b") == {"queued": 1, "expired": 1}
    assert bench.failure("0001") == {"kind": "expired", "code": "", "message": "its time passed before it was sent"}
    bench.clock.advance(60)
    assert bench.sweep() == (0, 1)
    assert bench.events() == [("job.expired", "0001"), ("job.expired", "0002"), ("batch.settled", "b")]
    assert bench.members("d:x") == bench.members("d:o:textgoto") == bench.members("d:w:textgoto") == set()


def test_what_is_on_the_wire_does_not_expire(bench: Bench) -> None:
    bench.started("0001", valid_for=1000)
    bench.clock.advance(2)
    assert bench.sweep() == (0, 0)
    assert bench.state("0001") == "sending"


def test_no_more_is_swept_at_once_than_asked_for(bench: Bench) -> None:
    """A script holds the server up, so a flood of deaths is worked off in portions."""
    bench.create("0001", "0002", "0003", valid_for=1000)
    for id_ in ("0004", "0005", "0006"):
        bench.started(id_)
    bench.clock.advance(LEASE)
    assert [bench.sweep(most=2), bench.sweep(most=2), bench.sweep(most=2)] == [(2, 2), (1, 1), (0, 0)]


def doubtful(bench: Bench, **fields: Any) -> None:
    """A queued job whose first try may have been taken: its worker died, and it may be repeated once."""
    bench.started("0001", repeat="once", **fields)
    bench.clock.advance(LEASE)
    bench.sweep()
    assert bench.state("0001") == "queued"


def test_a_job_that_may_have_been_taken_does_not_expire_it_stays_unknown(bench: Bench) -> None:
    """It never ends failed, expired or cancelled: it ends as that try left it."""
    doubtful(bench, valid_for=100_000)
    bench.clock.advance(100)
    bench.sweep()
    assert bench.state("0001") == "unknown"


def test_a_job_that_may_have_been_taken_does_not_expire_at_its_claim_either(bench: Bench) -> None:
    doubtful(bench, valid_for=100_000)
    bench.due()
    token = bench.hold("0001")
    bench.clock.advance(100)
    assert bench.refused_claim(token, "0001") == "unknown"


@pytest.mark.parametrize("end", ["cancelled", "failed", "expired"])
def test_a_job_that_may_have_been_taken_is_ended_as_that_try_left_it(bench: Bench, end: str) -> None:
    doubtful(bench)
    assert bench.advance("0001", "=queued", end, "no more") == "unknown"
    assert bench.story("0001")[-1] == "unknown: no more; an earlier try may have been taken"


def test_a_second_try_that_is_refused_does_not_undo_a_first_that_may_have_been_taken(bench: Bench) -> None:
    doubtful(bench)
    bench.due()
    assert bench.advance("0001", bench.claim("0001", repeat="once"), "failed") == "unknown"


def test_a_second_try_that_is_answered_ends_all_doubt(bench: Bench) -> None:
    doubtful(bench)
    bench.due()
    assert bench.advance("0001", bench.claim("0001", repeat="once"), "completed") == "completed"


def test_a_job_that_may_have_been_taken_is_not_failed_for_killing_workers(bench: Bench) -> None:
    doubtful(bench)
    bench.due()
    for _ in range(3):
        bench.take("0001", alone=True)
        bench.clock.advance(LEASE)
    assert bench.state("0001") == "unknown"


# -- check -------------------------------------------------------------------------------------------------------------


def code_sent(bench: Bench, state: str = "sent", **told: Any) -> None:
    """A verification whose code is known by its hash, "right"."""
    token = bench.started("0001", code_ttl=300_000)
    bench.advance("0001", token, state, wait="retry", code_ttl=300, fields={"vh": "right"} | told)


def test_the_right_code_is_right_once(bench: Bench) -> None:
    code_sent(bench)
    assert bench.check("0001", "right") == (1, "approved")
    assert bench.check("0001", "right") == (0, "approved"), "one code, one success"
    assert bench.events()[1:] == [("verification.approved", "0001")]


def test_five_tries_are_counted_before_they_are_compared(bench: Bench) -> None:
    code_sent(bench)
    assert [bench.check("0001", "wrong") for _ in range(4)] == [(0, "pending")] * 4
    assert bench.check("0001", "wrong") == (0, "max_attempts_reached")
    assert bench.check("0001", "right") == (0, "max_attempts_reached"), "too late, though it is right"
    assert bench.raw("0001")["vt"] == "5"
    assert bench.events()[1:] == [("verification.max_attempts_reached", "0001")]


def test_the_fifth_try_may_be_right(bench: Bench) -> None:
    code_sent(bench)
    for _ in range(4):
        bench.check("0001", "wrong")
    assert bench.check("0001", "right") == (1, "approved")


@pytest.mark.parametrize(("late", "verdict"), [(-1, (1, "approved")), (0, (0, "expired")), (1, (0, "expired"))])
def test_a_code_is_good_until_its_time_is_over(bench: Bench, late: int, verdict: tuple[int, str]) -> None:
    """`late` is in milliseconds after its time."""
    code_sent(bench)
    bench.clock.ms += 300_000 + late
    assert bench.check("0001", "right") == verdict
    assert bench.check("0001", "right") == (0, verdict[1])
    assert len(bench.events()) == 2, "what became of it is told once"


@pytest.mark.parametrize(
    ("state", "status"), [("cancelled", "cancelled"), ("failed", "cancelled"), ("expired", "expired")]
)
def test_a_code_that_was_never_sent_is_never_right(bench: Bench, state: str, status: str) -> None:
    bench.create("0001", code_ttl=300_000)
    bench.advance("0001", "=queued", state, fields={"vh": "right"})
    assert bench.check("0001", "right") == (0, status)
    assert bench.events()[1:] == [(f"verification.{status}", "0001")]


@pytest.mark.parametrize("state", ["queued", "sending"])
def test_before_its_code_is_sent_a_verification_is_pending_and_no_try_is_counted(bench: Bench, state: str) -> None:
    bench.create("0001", code_ttl=300_000)
    if state == "sending":
        bench.claim("0001")
    bench.clock.advance(600)
    assert bench.check("0001", "right") == (0, "pending"), "it has all its life before it"
    assert "vt" not in bench.raw("0001")


def test_a_code_that_waits_to_be_tried_again_and_surely_was_not_sent_cannot_be_guessed(bench: Bench) -> None:
    """It is made and hashed, but on no phone."""
    code_sent(bench, "queued")
    assert bench.check("0001", "wrong") == bench.check("0001", "right") == (0, "pending")
    assert "vt" not in bench.raw("0001")


def test_one_that_may_have_been_sent_can_be_right(bench: Bench) -> None:
    code_sent(bench, "queued", i="1")
    assert bench.check("0001", "right") == (1, "approved")


@pytest.mark.parametrize("state", ["unknown", "sent", "delivered", "undelivered"])
def test_a_code_whose_hash_we_hold_can_be_right_whatever_the_receipt_says(bench: Bench, state: str) -> None:
    code_sent(bench, state)
    assert bench.check("0001", "right") == (1, "approved")


def test_a_code_that_the_provider_judges_is_handed_on_five_times(bench: Bench) -> None:
    token = bench.started("0001", code_ttl=300_000)
    bench.advance("0001", token, "sent")
    assert [bench.check("0001", "any") for _ in range(5)] == [(-2, "pending")] * 5
    assert bench.check("0001", "any") == (0, "max_attempts_reached"), "nobody guesses on at the provider's cost"


def test_a_check_whose_answer_was_lost_costs_one_try(bench: Bench) -> None:
    code_sent(bench)
    wrong = bench.calls.check("0001", "wrong", 5)
    assert [bench.run(wrong) for _ in range(9)] == [(0, "pending")] * 9
    assert bench.raw("0001")["vt"] == "1"
    right = bench.calls.check("0001", "right", 5)
    assert [bench.run(right) for _ in range(2)] == [(1, "approved")] * 2, "right both times, since it is one check"
    assert bench.check("0001", "right") == (0, "approved")


def test_what_is_no_verification_cannot_be_checked(bench: Bench) -> None:
    bench.create("0001")
    before = bench.dump()
    assert bench.check("0001", "right") == (-1, "")
    assert bench.check("gone", "right") == (-1, "")
    assert bench.dump() == before


# -- judged ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_", "told", "becomes"),
    [
        pytest.param("pending", "approved", "approved", id="right"),
        pytest.param("pending", "max_attempts_reached", "max_attempts_reached", id="too often"),
        pytest.param("pending", "pending", "pending", id="wrong, try again"),
        pytest.param("approved", "expired", "approved", id="late news"),
        pytest.param("max_attempts_reached", "approved", "max_attempts_reached", id="we stopped it meanwhile"),
    ],
)
def test_the_providers_word_counts_while_a_verification_is_pending(
    bench: Bench, is_: str, told: str, becomes: str
) -> None:
    token = bench.started("0001", code_ttl=300_000)
    bench.advance("0001", token, "sent")
    assert bench.check("0001", "typed") == (-2, "pending")
    bench.redis.hset("d:j:0001", "vs", is_)
    assert judged(bench, "typed", told) == (0, becomes), "the worker only writes it"
    assert bench.raw("0001")["vs"] == becomes
    assert bench.events()[1:] == ([(f"verification.{becomes}", "0001")] if becomes != is_ else [])


def judged(
    bench: Bench, code: str, told: str, *, valid: bool | None = None, doubtful: bool = False, asked: bool = False
) -> tuple[int, str]:
    """Let a provider have judged a code of 0001."""
    right = told == "approved" if valid is None else valid
    outcome = Checked(verification="0001", valid=right, status=told, doubtful=doubtful)
    return bench.run(bench.calls.judged(outcome, code, tries=5, asked=asked))


@pytest.fixture
def judging(bench: Bench) -> Bench:
    """A verification that its provider judges."""
    bench.advance("0001", bench.started("0001", code_ttl=300_000), "sent")
    return bench


def test_a_yes_is_told_to_one_caller_though_it_is_written_before(judging: Bench) -> None:
    judging.check("0001", "right")
    judged(judging, "right", "approved")
    assert judged(judging, "right", "approved", asked=True) == (1, "approved")
    assert judged(judging, "right", "approved", asked=True) == (0, "approved"), "one code, one success"
    assert judging.check("0001", "right") == (0, "approved")


def test_a_yes_that_came_too_late_for_its_caller_is_for_who_asks_again(judging: Bench) -> None:
    """The first had given up waiting; with another code nobody learns of it."""
    judging.check("0001", "right")
    judged(judging, "right", "approved")
    assert judging.check("0001", "wrong") == (0, "approved")
    assert judging.check("0001", "right") == (1, "approved")
    assert judging.check("0001", "right") == (0, "approved")


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        pytest.param("right", (1, "approved"), id="the code whose yes was lost"),
        pytest.param("wrong", (0, "pending"), id="another code"),
    ],
)
def test_already_verified_is_the_success_of_a_check_whose_answer_never_came(
    judging: Bench, second: str, verdict: tuple[int, str]
) -> None:
    """It tells that some code was right: of whom it cannot have been nobody learns anything."""
    judging.check("0001", "right")
    judging.check("0001", second)
    assert judged(judging, second, "approved", valid=False, asked=True) == verdict
    assert judging.check("0001", "right") == ((0, "approved") if verdict[0] else (-2, "pending"))


@pytest.mark.parametrize("code", ["right", "wrong"])
@pytest.mark.parametrize("again", [pytest.param(True, id="typed again"), pytest.param(False, id="asked again")])
def test_where_the_answers_about_two_codes_were_lost_neither_is_right(judging: Bench, code: str, again: bool) -> None:
    """One of them was taken, and nobody can tell which."""
    judging.check("0001", "wrong")
    judging.check("0001", "right")
    if again:
        judging.check("0001", code)
    for _ in range(2):
        assert judged(judging, code, "approved", valid=not again, doubtful=not again, asked=True) == (0, "pending")
    judging.check("0001", "third")
    assert judged(judging, "third", "approved", valid=False, asked=True) == (0, "pending")


def test_what_was_judged_is_not_in_doubt(judging: Bench) -> None:
    judging.check("0001", "wrong")
    judged(judging, "wrong", "pending")
    judging.check("0001", "right")
    assert judged(judging, "right", "approved", doubtful=True, asked=True) == (1, "approved")


def test_a_plain_yes_leaves_no_doubt(judging: Bench) -> None:
    judging.check("0001", "lost")
    judging.check("0001", "right")
    assert judged(judging, "right", "approved", asked=True) == (1, "approved")


def test_the_fifth_wrong_code_ends_it_whoever_judges(judging: Bench) -> None:
    for _ in range(4):
        judging.check("0001", "wrong")
        assert judged(judging, "wrong", "pending", asked=True) == (0, "pending")
    judging.check("0001", "wrong")
    assert judged(judging, "wrong", "pending", asked=True) == (0, "max_attempts_reached")


def test_of_five_on_their_way_the_last_may_be_right(judging: Bench) -> None:
    for code in ("a", "b", "c", "d", "right"):
        judging.check("0001", code)
    for code in ("a", "b", "c", "d"):
        judged(judging, code, "pending")
    assert judged(judging, "right", "approved", asked=True) == (1, "approved")


def test_judging_what_is_no_verification_changes_nothing(bench: Bench) -> None:
    bench.create("0001")
    before = bench.dump()
    for id_ in ("0001", "gone"):
        told = Checked(verification=id_, valid=True, status="approved")
        assert bench.run(bench.calls.judged(told, "typed", tries=5)) == (0, "")
    assert bench.dump() == before


# -- retention ---------------------------------------------------------------------------------------------------------

#: Indexes that have no lifetime: what is in them has, the sweep sees to it.
INDEXES = ("d:mode", "d:hk", "d:p", "d:c", "d:e", "d:i:", "d:g:", "d:a", "d:f:", "d:nd")


def everything(bench: Bench) -> None:
    """Jobs with all that a job can have, each ended in another way."""
    for number, end in enumerate(("sent", "completed", "failed", "unknown")):
        bench.ended(
            f"000{number}", end, batch="b", number=f"hash {number}", idempotency=f"key {number}", fingerprint="f",
            code_ttl=300_000, valid_for=600_000, high=number % 2 == 1,
        )  # fmt: skip
    bench.create("0008", batch="b", due=bench.clock.ms + 10_000, valid_for=1000)
    bench.create("0009", batch="b", number="hash 9")
    bench.advance("0009", "=queued", "cancelled")
    bench.advance("0000", "=sent", "undelivered")
    bench.clock.advance(20)
    bench.sweep()
    assert bench.counts("b") == {
        "undelivered": 1, "completed": 1, "failed": 1, "unknown": 1, "expired": 1, "cancelled": 1,
    }  # fmt: skip


def test_once_its_job_ended_nothing_stays_without_a_lifetime(bench: Bench) -> None:
    everything(bench)
    eternal = {key for key in bench.names() if bench.ttl(key) is None}
    assert {key for key in eternal if not key.startswith(INDEXES)} == set()


def test_after_its_retention_nothing_is_left_of_a_job(bench: Bench) -> None:
    everything(bench)
    bench.clock.advance(MONTH + DAY + 1000)
    bench.sweep()
    constant = ("d:mode", "d:hk", "d:p", "d:c", "d:e", "d:g:", "d:u:")
    assert {key for key in bench.names() if not key.startswith(constant)} == set()


@pytest.mark.parametrize("state", sorted(SETTLED))
def test_a_settled_job_is_kept_for_its_retention(clock: Clock, state: State) -> None:
    bench = Bench(clock, retention=1000, lease=60)
    bench.create("0001")
    bench.redis.hset("d:j:0001", "s", "unknown" if state in {"completed", "sent"} else "sending")
    if state in {"expired", "cancelled"}:
        bench.redis.hset("d:j:0001", "s", "queued")
    assert bench.advance("0001", f"={bench.state('0001')}", state) == state
    assert bench.ttl("d:j:0001") == 1000


@pytest.mark.parametrize("where", ["queued", "parked", "sending", "sent and queued again"])
def test_a_job_that_goes_on_is_kept_for_as_long_as_it_takes(bench: Bench, where: str) -> None:
    bench.create("0001")
    token = "" if where == "queued" else bench.claim("0001")
    if where == "parked":
        bench.advance("0001", token, "queued", wait="retry", delay=9)
    elif where == "sent and queued again":
        bench.advance("0001", token, "sent")
        assert bench.ttl("d:j:0001") is not None
        bench.advance("0001", "=sent", "queued", wait="retry")
    assert bench.ttl("d:j:0001") is None


def test_late_news_keeps_a_job_for_a_retention_more(bench: Bench) -> None:
    bench.ended("0001", "sent")
    bench.clock.advance(MONTH - 10)
    bench.advance("0001", "=sent", "delivered")
    bench.clock.advance(20)
    bench.sweep()
    assert bench.state("0001") == "delivered"
    assert bench.members("d:i:textgoto:delivered") == {"0001"}


def test_a_batch_counts_right_however_long_its_last_job_waits(bench: Bench) -> None:
    """Its counts outlive their retention as long as one of its jobs does."""
    bench.create("0001", batch="b")
    bench.create("0002", batch="b", due=bench.clock.ms + (MONTH + 3600) * 1000)
    bench.advance("0001", bench.claim("0001"), "sent")
    bench.clock.advance(MONTH + 3600)
    assert bench.due() == ["0002"]
    bench.advance("0002", bench.claim("0002"), "sent")
    assert sum(bench.counts("b").values()) == 2
    assert min(bench.counts("b").values()) > 0


def test_adding_to_a_batch_that_was_done_keeps_it(bench: Bench) -> None:
    bench.ended("0001", "sent", batch="b")
    assert bench.ttl("d:b:b") == bench.ttl("d:b:b:j") == MONTH
    bench.create("0002", batch="b")
    assert bench.ttl("d:b:b") is bench.ttl("d:b:b:j") is None


@pytest.mark.parametrize("state", ["queued", "sending"])
def test_a_batch_is_kept_while_one_of_its_jobs_goes_on(bench: Bench, state: str) -> None:
    bench.create("0001", "0002", batch="b")
    if state == "sending":
        bench.claim("0002")
    bench.advance("0001", bench.claim("0001"), "sent")
    assert bench.ttl("d:b:b") is bench.ttl("d:b:b:j") is None


def test_events_are_trimmed_by_age_and_the_last_one_gone_is_remembered(bench: Bench) -> None:
    for id_ in ("0001", "0002"):
        bench.ended(id_, "sent")
        bench.clock.advance(1)
    cursors = [cursor for cursor, _ in bench.redis.xrange("d:e")]
    bench.clock.advance(7 * 86400 - 2)
    bench.sweep()
    assert len(bench.events()) == 2
    bench.clock.ms += 1
    bench.sweep()
    assert bench.events() == [("job.sent", "0002")]
    assert bench.redis.get("d:et") == cursors[0]
    bench.clock.advance(1)
    bench.sweep()
    bench.sweep()
    assert bench.events() == []
    assert bench.redis.get("d:et") == cursors[1]


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_script_is_sent_once_and_called_by_its_hash_afterwards(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    original = bench.redis.eval

    def noted(source: str, *rest: Any) -> Any:
        sent.append(source)
        return original(source, *rest)

    monkeypatch.setattr(bench.redis, "eval", noted)
    bench.create("0001")
    bench.create("0002")
    assert len(sent) == 1


def test_a_server_that_forgot_the_scripts_is_told_them_again(bench: Bench) -> None:
    bench.create("0001")
    bench.redis.script_flush()
    assert bench.taken("0001") == ["0001"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(RedisConnectionError(f"redis://:{SECRET_KEY}@host refused"), "did not answer", id="refused"),
        pytest.param(RedisTimeoutError("Timeout"), "did not answer", id="too slow"),
        pytest.param(OSError("no route"), "did not answer", id="no network"),
        pytest.param(ResponseError("OOM command not allowed when used memory"), "refused: OOM", id="full"),
        pytest.param(
            ResponseError(f"user_script:3: bad script: 12, {TEXT}"), "refused: user_script:3: bad", id="a bug"
        ),
    ],
)
def test_a_redis_that_does_not_do_it_is_told_in_our_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(bench.redis, "evalsha", fails)
    with pytest.raises(StoreUnavailable, match=words) as refused:
        bench.create("0001")
    assert not leaks(str(refused.value), SECRET_KEY, TEXT)
    assert refused.value.__cause__ is None, "a traceback would show what the library says, URLs included"


def test_no_call_shows_what_it_carries(bench: Bench) -> None:
    """A call may be in a traceback: it carries the request, in clear where there is no key, and the hash of a code."""
    move = Advance(id="0001", guard="1", state=State.SENT, detail="x", fields={"r": NUMBER, "vh": "canary"})
    bench.create("0001")
    shown = [
        repr(bench.calls.create("textgoto", high=False, batch="", records=[record("0001")])),
        repr(bench.calls.advance([move])),
        repr(bench.calls.check("0001", "canary", 5)),
        repr(move),
        repr(bench.take("0001")),
    ]
    assert [one[:40] for one in shown if leaks(one, NUMBER, TEXT, "canary")] == []


@pytest.mark.parametrize(("here", "comes", "stays"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_worker_enters_where_the_jobs_are_of_its_kind(clock: Clock, here: bool, comes: bool, stays: bool) -> None:
    bench, worker = Bench(clock, sandbox=here), Bench(clock, sandbox=comes)
    bench.run(bench.calls.enter())
    worker.store.redis = bench.redis
    if stays:
        worker.run(worker.calls.enter())
    else:
        with pytest.raises(ConfigurationError, match="DISPATCHER_SANDBOX"):
            worker.run(worker.calls.enter())
