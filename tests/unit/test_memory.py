"""A number that was asked about costs nothing again: what is remembered, who asks for many at once, who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from dispatcher.jobs import Lane, Lookup, Terms
from dispatcher.lookups import Facts, Network
from dispatcher.memory import line_types
from dispatcher.outcomes import Failure, FailureKind, Found
from tests.unit.support import NUMBER, OTHER, Clock, leaks
from tests.unit.test_execute import OK, Plain, Road
from workers.limits import Later
from workers.providers.base import Response

DAY = 86400
FOUND = Found(result={"number": "447700900123", "carrier": "One", "imsi": "234300000000000"}, ref="9")
LOST = Failure(kind=FailureKind.AMBIGUOUS, code="read_timeout", message="no answer came")
UNSENT = Failure(kind=FailureKind.NOT_SENT, code="refused", message="no connection")


class Register(Plain):
    """A provider of lookups, which always finds the same."""

    def parse(self, response: Response, group: Any) -> dict[str, Any]:
        return {job.id: self.outcomes.get(job.id, FOUND) for job in group.jobs}

    def number_facts(self, raw: Any, number: str) -> Facts:
        return Facts(current_network=Network(name=raw["carrier"]), line_type="voip")


class Desk(Road):
    """A worker that looks numbers up."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(clock, **settings)
        self.adapter = Register()

    def ask(self, id_: str, to: str = NUMBER, *, fresh: bool = False, **told: Any) -> None:
        """Enqueue a lookup."""
        self.enqueue(id_, Lookup(to=to, fresh=fresh), **told)

    def asked(self, id_: str, to: str = NUMBER, *, fresh: bool = False, **told: Any) -> str:
        """Enqueue a lookup and execute it; the worker's word."""
        self.ask(id_, to, fresh=fresh, **told)
        return self.run(id_)

    def result(self, id_: str) -> dict[str, Any]:
        sealed = self.bench.redis.hget(f"d:j:{id_}", "r")
        found: dict[str, Any] = msgspec.json.decode(self.bench.settings.sealer().open(sealed, id_))
        return found

    def waits(self, id_: str) -> str:
        """What a job waits for."""
        return self.bench.raw(id_).get("w", "").partition(" ")[0]

    def remembered(self) -> set[str]:
        return {name for name in self.bench.names() if name.startswith("d:lk:")}

    def go_on(self) -> list[str]:
        """Let those that are due go to the workers, and execute them; their words."""
        due = self.bench.due("plain")
        return [self.run(id_) for id_ in due]

    def meanwhile(self, *happens: Callable[[], Any]) -> None:
        """Let something happen while the next requests are on the wire."""

        def answered(happens: Callable[[], Any]) -> Callable[[], Response | Failure]:
            def answer() -> Response | Failure:
                told = happens()
                return told if isinstance(told, Failure) else OK

            return answer

        self.wire.answers = [answered(one) for one in happens]

    def other(self, *ids: str) -> list[str]:
        """Execute jobs by another worker, while this one is in the middle of something."""
        taken: list[str] = []

        async def execute() -> None:
            taken.extend([await self.execution().execute([id_], "plain") for id_ in ids])

        # It runs in a loop of its own, as another process would.
        import threading  # noqa: PLC0415 - for this only

        thread = threading.Thread(target=lambda: asyncio.run(execute()))
        thread.start()
        thread.join()
        return taken


@pytest.fixture
def desk(clock: Clock) -> Desk:
    return Desk(clock)


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_a_second_lookup_is_answered_from_memory(desk: Desk) -> None:
    """Without a request, a permit or an attempt; and it says who asked, and when."""
    assert desk.asked("0001") == "completed"
    first = desk.result("0001")
    assert (first["cached"], first["asked_at"], first["provider"]) == (False, "2027-01-15T08:00:00Z", "plain")
    permits = len(desk.gate.asked)

    desk.clock.advance(DAY - 1)
    assert desk.asked("0002") == "completed"
    assert (desk.wire.sent, len(desk.gate.asked)) == (["0001"], permits)
    assert desk.result("0002") == first | {"cached": True}
    assert desk.bench.story("0002") == [
        "queued: created",
        "completed: answered from memory: asked by job 0001 at 2027-01-15T08:00:00Z",
    ]
    assert not {"a", "t", "c", "m"} & desk.bench.raw("0002").keys()
    assert ("job.completed", "0002") in desk.bench.events()


def test_the_memory_ends_with_its_lifetime(desk: Desk) -> None:
    desk.asked("0001")
    desk.clock.advance(DAY)
    assert desk.asked("0002") == "completed"
    assert desk.wire.sent == ["0001", "0002"]
    assert desk.result("0002")["cached"] is False


@pytest.mark.parametrize(
    ("settings", "terms", "requests"),
    [
        pytest.param({}, {}, 1, id="the same number"),
        pytest.param({}, {"to": OTHER}, 2, id="another number"),
        pytest.param({}, {"fresh": True}, 2, id="fresh"),
        pytest.param({"lookup_lifetime": 0}, {}, 2, id="no lifetime"),
        pytest.param({"lookup_lifetime": 0.0004}, {}, 2, id="less than a millisecond"),
        pytest.param({"hash_key": ""}, {}, 2, id="no hash key"),
        pytest.param({"secret_key": ""}, {}, 1, id="no secret key: in clear, as the jobs are"),
    ],
)
def test_a_request_is_made_where_nothing_is_remembered(
    clock: Clock, settings: dict[str, Any], terms: dict[str, Any], requests: int
) -> None:
    desk = Desk(clock, **settings)
    desk.asked("0001")
    clock.advance(1)
    assert desk.asked("0002", **terms) == "completed"
    assert len(desk.wire.sent) == requests


def test_a_fresh_answer_takes_the_place_of_the_one_before(desk: Desk) -> None:
    desk.asked("0001")
    desk.clock.advance(DAY / 2)
    desk.asked("0002", fresh=True)
    desk.clock.advance(DAY / 2 + 1)
    desk.asked("0003")
    assert desk.wire.sent == ["0001", "0002"]
    assert desk.result("0003")["asked_at"] == desk.result("0002")["asked_at"]


@pytest.mark.parametrize("outcome", [UNSENT, LOST, Failure(kind=FailureKind.INVALID, code="GONE", message="nobody")])
def test_a_failure_is_not_remembered(desk: Desk, outcome: Failure) -> None:
    desk.adapter.outcomes = {"0001": outcome}
    desk.asked("0001")
    assert not {one for one in desk.remembered() if one.count(":") == 2}
    assert desk.asked("0002") == "completed"
    assert desk.wire.sent == ["0001", "0002"]


def test_another_account_is_asked_itself(desk: Desk) -> None:
    desk.asked("0001")
    (key,) = desk.remembered()
    desk.bench.redis.hset(key, "other", desk.bench.redis.hget(key, "plain"))
    desk.bench.redis.hdel(key, "plain")
    desk.asked("0002")
    assert desk.wire.sent == ["0001", "0002"]


def test_what_is_remembered_is_sealed_and_found_by_a_hash(desk: Desk) -> None:
    desk.asked("0001")
    (key,) = desk.remembered()
    stored = desk.bench.redis.hget(key, "plain").decode("latin-1")
    assert not leaks(key + stored, NUMBER, "234300000000000", "One")
    assert desk.bench.ttl(key) == DAY
    # Moved to another number's place it opens for nobody, and that one is asked about.
    desk.bench.redis.rename(key, f"d:lk:{desk.bench.settings.hashed('number', OTHER)}")
    assert desk.asked("0002", OTHER) == "completed"
    assert desk.wire.sent == ["0001", "0002"]


def test_an_account_without_money_still_answers_what_it_knows(desk: Desk) -> None:
    desk.asked("0001")
    broke = Failure(kind=FailureKind.INSUFFICIENT_FUNDS, code="NO_CREDIT", message="no money")
    desk.bench.run(desk.bench.calls.suspend("plain", "funds", broke, ["lookup"]))
    assert desk.asked("0002") == "completed"


def test_what_expired_is_not_answered_from_memory(desk: Desk) -> None:
    desk.asked("0001")
    desk.ask("0002", valid_for=1000)
    desk.clock.advance(1)
    assert desk.run("0002") == "expired"


def test_the_memory_being_away_keeps_no_answer_from_its_end(desk: Desk) -> None:
    desk.store.fails = {"remember": 1}
    assert desk.asked("0001") == "completed"
    assert desk.asked("0002") == "completed"
    assert desk.wire.sent == ["0001", "0002"]


def test_an_adapter_that_cannot_read_its_own_result_loses_no_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Register, "number_facts", lambda _self, raw, _number: raw["nothing"])
    assert desk.asked("0001") == "completed"
    found = desk.result("0001")
    assert (found["raw"], found["ported"], found["country"]) == (FOUND.result, "unknown", "GB")


def test_lines_are_read_for_who_routes_by_them(desk: Desk) -> None:
    desk.asked("0001")
    assert line_types(desk.bench.store, desk.bench.settings, [NUMBER, OTHER]) == {NUMBER: "voip"}


# -- many at once ------------------------------------------------------------------------------------------------------


def test_of_many_at_once_one_asks_and_the_others_take_its_answer(desk: Desk) -> None:
    for id_ in ("0001", "0002", "0003"):
        desk.ask(id_)
    seen: list[str] = []
    desk.meanwhile(lambda: seen.extend(desk.other("0002", "0003")))
    assert desk.run("0001") == "completed"
    assert seen == ["queued:lookup"] * 2
    assert "waits for the answer to job 0001" in desk.bench.story("0002")[-1]
    # At once: nobody waits for the end of a lease.
    assert desk.go_on() == ["completed", "completed"]
    assert desk.wire.sent == ["0001"]
    assert [desk.result(id_)["cached"] for id_ in ("0001", "0002", "0003")] == [False, True, True]
    assert {one for one in desk.remembered() if one.count(":") > 2} == set()


def test_of_one_message_too(desk: Desk) -> None:
    for id_ in ("0001", "0002", "0003"):
        desk.ask(id_)
    assert desk.run("0001", "0002", "0003") == "2 queued:lookup, 1 completed"
    assert desk.go_on() == ["completed", "completed"]
    assert desk.wire.sent == ["0001"]


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        pytest.param(Failure(kind=FailureKind.INVALID, code="GONE", message="nobody"), "failed:invalid", id="refused"),
        pytest.param(Failure(kind=FailureKind.REJECTED, code="X", message="no"), "failed:rejected", id="rejected"),
    ],
)
def test_where_the_one_fails_the_next_asks_at_once(desk: Desk, outcome: Failure, word: str) -> None:
    for id_ in ("0001", "0002", "0003"):
        desk.ask(id_)
    desk.adapter.outcomes = {"0001": outcome}
    desk.meanwhile(lambda: desk.other("0002", "0003"))
    assert desk.run("0001") == word
    assert desk.go_on() == ["completed", "completed"]
    assert desk.wire.sent == ["0001", "0002"]
    assert desk.result("0003")["cached"] is True


@pytest.mark.parametrize(
    ("ends", "word"),
    [
        pytest.param(lambda desk: desk.bench.advance("0001", "=queued", "cancelled"), "cancelled", id="taken back"),
        pytest.param(lambda desk: desk.bench.sweep(), "expired", id="expired by the clock"),
    ],
)
def test_where_the_one_ends_before_it_asks_the_next_does(desk: Desk, ends: Callable[[Desk], Any], word: str) -> None:
    desk.ask("0001", valid_for=10_000)
    desk.ask("0002")
    told: list[str] = []

    def meanwhile() -> Later:
        told.extend(desk.other("0002"))
        desk.clock.advance(11)
        ends(desk)
        return Later(1)

    desk.gate.grants = [meanwhile]
    desk.run("0001")
    assert (told, desk.bench.state("0001")) == (["queued:lookup"], word)
    assert desk.go_on() == ["completed"]
    assert desk.wire.sent == ["0002"]


def test_while_the_one_is_held_back_the_others_are_as_well(desk: Desk) -> None:
    """What it waits for they would wait for, too: none of them stands in the lane of another."""
    desk.ask("0001")
    desk.ask("0002", high=True)
    desk.gate.grants = [lambda: (desk.other("0002"), Later(30, "limit"))[1]]
    assert desk.run("0001") == "queued:limit"
    assert desk.waits("0002") == "limit"
    assert desk.remembered() == set()
    assert desk.bench.deal("plain") == {"plain.high": ["0002"], "plain": ["0001"]}
    assert [desk.run("0002"), desk.run("0001")] == ["completed", "completed"]
    assert desk.wire.sent == ["0002"]


def test_what_is_tried_again_later_holds_the_others_no_longer_than_itself(desk: Desk) -> None:
    desk.ask("0001")
    desk.ask("0002")
    desk.adapter.outcomes = {"0001": UNSENT}
    desk.meanwhile(lambda: desk.other("0002"))
    assert desk.run("0001") == "queued:retry"
    assert desk.bench.raw("0002")["w"] == desk.bench.raw("0001")["w"]
    desk.adapter.outcomes = {}
    desk.clock.advance(10)
    assert desk.go_on() == ["completed", "completed"]
    assert len(desk.wire.sent) == 2


def test_what_waits_for_another_obeys_its_own_time(desk: Desk) -> None:
    desk.ask("0001")
    desk.ask("0002", valid_for=5000)

    def meanwhile() -> None:
        desk.other("0002")
        desk.clock.advance(5)
        desk.bench.sweep()

    desk.meanwhile(meanwhile)
    assert desk.run("0001") == "completed"
    assert desk.bench.state("0002") == "expired"
    assert desk.go_on() == []


def test_fresh_waits_for_nobody_who_asked_before_it_was_made(desk: Desk) -> None:
    desk.ask("0001")

    def meanwhile() -> None:
        desk.clock.advance(0.01)
        desk.ask("0002", fresh=True)
        assert desk.other("0002") == ["completed"]

    desk.meanwhile(meanwhile)
    assert desk.run("0001") == "completed"
    assert desk.wire.sent == ["0001", "0002"]
    # The later answer is the one that is remembered.
    desk.asked("0003")
    assert desk.result("0003")["asked_at"] == desk.result("0002")["asked_at"]


def test_two_fresh_ones_share_a_request_that_is_made_after_both(desk: Desk) -> None:
    desk.asked("0000")
    desk.clock.advance(1)
    desk.ask("0001", fresh=True)
    desk.ask("0002", fresh=True)
    desk.meanwhile(lambda: desk.other("0002"))
    assert desk.run("0001") == "completed"
    assert desk.go_on() == ["completed"]
    assert desk.wire.sent == ["0000", "0001"]
    assert desk.result("0002")["cached"] is True


def test_the_recall_knows_its_own_call_again(desk: Desk) -> None:
    """Its answer was lost, and it is made once more: it still leads."""
    desk.store.fails = {"claim": 1}
    desk.ask("0001")
    desk.ask("0002")
    assert desk.run("0001", "0002").count("queued") >= 1
    desk.clock.advance(61)
    while due := desk.bench.due("plain"):
        desk.run(*due)
    assert [desk.bench.state(id_) for id_ in ("0001", "0002")] == ["completed", "completed"]
    assert len(desk.wire.sent) == 1


# -- workers that die --------------------------------------------------------------------------------------------------


def killed(desk: Desk, id_: str) -> None:
    """Let a worker die with a lookup on the wire, and the clock notice it."""
    desk.meanwhile(_die)
    with pytest.raises(KeyboardInterrupt):
        desk.run(id_)
    desk.clock.advance(61)
    desk.bench.sweep()


def _die() -> Failure:
    raise KeyboardInterrupt


def test_where_the_one_dies_the_next_asks(desk: Desk) -> None:
    desk.ask("0001")
    desk.ask("0002")

    def dies() -> Failure:
        assert desk.other("0002") == ["queued:lookup"]
        raise KeyboardInterrupt

    desk.meanwhile(dies)
    with pytest.raises(KeyboardInterrupt):
        desk.run("0001")
    assert desk.go_on() == [], "nobody knows yet that it died"
    desk.clock.advance(61)
    desk.bench.sweep()
    assert sorted(desk.go_on()) == ["completed", "completed"]
    assert len(desk.wire.sent) == 2


@pytest.mark.parametrize("after", [LOST, UNSENT, FOUND], ids=["no answer", "not sent", "found"])
def test_a_lookup_whose_worker_died_is_asked_once_more_at_most(desk: Desk, after: Failure | Found) -> None:
    """By the clock and the policy together: after a death, and then no answer, nobody asks a third time."""
    desk.ask("0001")
    killed(desk, "0001")
    desk.adapter.outcomes = {"0001": after}
    desk.go_on()
    desk.clock.advance(DAY)
    desk.go_on()
    asked = len(desk.wire.sent)
    assert asked == (3 if after is UNSENT else 2), "what was surely not sent is no repetition"


def test_no_answer_and_then_a_death_is_the_end_too(desk: Desk) -> None:
    desk.adapter.outcomes = {"0001": LOST}
    assert desk.asked("0001") == "queued:retry"
    desk.clock.advance(10)
    desk.meanwhile(_die)
    with pytest.raises(KeyboardInterrupt):
        desk.go_on()
    desk.clock.advance(61)
    desk.bench.sweep()
    assert desk.bench.state("0001") == "unknown"
    assert desk.go_on() == []
    assert len(desk.wire.sent) == 2


def test_a_route_of_two_accounts_makes_no_more_of_it(desk: Desk) -> None:
    """What may have been charged stays with its account: no other one is asked as well."""
    public = Terms()
    desk.enqueue("0001", Lookup(to=NUMBER), terms=public)
    raw = msgspec.json.decode(desk.bench.redis.hget("d:j:0001", "d")) | {"route": ["plain", "other"]}
    desk.bench.redis.hset("d:j:0001", "d", msgspec.json.encode(raw))
    desk.adapter.outcomes = {"0001": LOST}
    assert desk.run("0001") == "queued:retry"
    assert desk.bench.raw("0001")["p"] == "plain"
    desk.clock.advance(10)
    assert desk.go_on() == ["unknown"]
    assert len(desk.wire.sent) == 2


def test_nor_does_what_keeps_it_from_being_asked_again(desk: Desk) -> None:
    """Whose answers get lost is soon left alone by the breaker: the next account would be paid as well."""
    desk.enqueue("0001", Lookup(to=NUMBER), terms=Terms())
    raw = msgspec.json.decode(desk.bench.redis.hget("d:j:0001", "d")) | {"route": ["plain", "other"]}
    desk.bench.redis.hset("d:j:0001", "d", msgspec.json.encode(raw))
    desk.adapter.outcomes = {"0001": LOST}
    assert desk.run("0001") == "queued:retry"
    desk.clock.advance(10)
    desk.gate.grants = [Later(5, "breaker")]
    assert desk.go_on() == ["queued:breaker"]
    assert desk.bench.raw("0001")["p"] == "plain"


def test_one_that_moves_on_to_another_account_lets_those_behind_it_go(desk: Desk) -> None:
    desk.ask("0001")
    desk.ask("0002")
    raw = msgspec.json.decode(desk.bench.redis.hget("d:j:0001", "d")) | {"route": ["plain", "other"]}
    desk.bench.redis.hset("d:j:0001", "d", msgspec.json.encode(raw))
    desk.adapter.outcomes = {"0001": UNSENT}
    desk.meanwhile(lambda: desk.other("0002"))
    assert desk.run("0001") == "queued:other"
    assert desk.go_on() == ["completed"]
    assert desk.bench.raw("0001")["p"] == "other"


def test_the_lane_of_codes_waits_for_no_campaign(desk: Desk) -> None:
    """One that merely waits for its turn leads nobody."""
    desk.gate.grants = [Later(600, "limit")]
    assert desk.asked("0001") == "queued:limit"
    assert desk.asked("0002", high=True, terms=Terms(lane=Lane.HIGH)) == "completed"
