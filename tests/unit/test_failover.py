"""From one account to the next: when a job moves, what stays with the one it left, and what late news still mean."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import pytest

from dispatcher import Dispatcher, Job, State, WaitTimeout, records
from dispatcher.accounts import KEY
from dispatcher.calls import Advance, Word
from dispatcher.jobs import Category, OnUnknown, Send, Terms, Verify
from dispatcher.outcomes import Accepted, Failure, FailureKind
from tests.unit.support import NUMBER, TEXT, Clock
from tests.unit.test_execute import Plain, Road, failure
from workers.adapters import described, receipt_key
from workers.execute import Execution
from workers.limits import Later
from workers.providers.base import Capabilities

ROUTE = ("plain", "second")
WATCHED = Terms(failover_after=60)
RESEND = Terms(on_unknown=OnUnknown.RESEND)
VERIFY = Verify(to=NUMBER, template="Your code is [CODE]")
CODE = Terms(category=Category.OTP, code_ttl=300)

REFUSED = failure("not_sent", "connect_refused", "the connection was refused")
TOLD = "not_sent connect_refused: the connection was refused"


class Two(Road):
    """A worker of several accounts at providers that are alike; `outcomes` of each are what the test says."""

    def __init__(self, clock: Clock, *more: str, **settings: Any) -> None:
        super().__init__(clock, **settings)
        self.adapters = {name: self.account(name) for name in (*ROUTE, *more)}
        self.adapter = self.adapters["plain"]
        for name, one in self.adapters.items():
            self.bench.redis.hset(KEY, name, msgspec.json.encode(described(one, sandbox=False)))

    def account(self, name: str) -> Plain:
        one = Plain()
        one.account = name
        # Each job travels alone, so that the wire tells them apart.
        one.capabilities = Capabilities(receipts="push", verification="provider")  # type: ignore[misc]  # of this one
        return one

    def execution(self, **other: Any) -> Execution:
        return Execution(
            self.bench.settings, self.adapters, self.store, self.gate, self.wire,
            **{"publish": self.publish, "chance": lambda: 0.5, "sleep": self.sleep, "clock": lambda: self.now} | other,
        )  # fmt: skip

    def begin(self, id_: str = "0001", request: Any = None, route: tuple[str, ...] = ROUTE, **told: Any) -> None:
        """Enqueue a job that may go to several accounts."""
        request = request or Send(to=NUMBER, text=TEXT)
        terms = told.pop("terms", Terms())
        kind = records.kind_of(request).value
        public = records.encode_public(request, terms, kind, sandbox=False, route=route)
        self.enqueue(id_, request, public=public, code_ttl=terms.code_ttl and terms.code_ttl * 1000, **told)

    def ends(self, *outcomes: Any, id_: str = "0001") -> None:
        """Let each account, the first one first, answer so from now on."""
        for one, outcome in zip(self.adapters.values(), outcomes, strict=False):
            one.outcomes[id_] = outcome

    def where(self, id_: str = "0001") -> str:
        return self.bench.raw(id_)["p"]

    def go_on(self, id_: str = "0001") -> str:
        """Let the account that has a job execute it, once it is due."""
        _, until = self.bench.raw(id_)["w"].split(" ")
        self.clock.ms = max(self.clock.ms, int(until))
        account = self.where(id_)
        assert [*self.bench.due(account), *self.bench.deal(account)[account]] == [id_]
        return asyncio.run(self.execution().execute([id_], account))

    def receipt(self, account: str, state: str, ref: str = "", *, own: str = "", **told: Any) -> str:
        """News of an account, by its reference or our own id; what came of them."""
        key = receipt_key(self.bench.settings, self.adapters[account], ref, NUMBER) if ref else ""
        word = Word(provider=account, own=own, key=key, state=State(state), detail=f"receipt: {state}", **told)
        (answer,) = self.bench.run(self.bench.calls.receipts([word]))
        return answer

    def read(self, id_: str = "0001") -> Job:
        with Dispatcher(self.bench.settings) as one:
            one._store.redis = self.bench.redis
            return one.get(id_)

    def story(self, id_: str = "0001") -> list[str]:
        return [f"{entry.provider} {entry.state}: {entry.detail}" for entry in self.read(id_).history]

    def listed(self, id_: str = "0001") -> set[str]:
        """Every list that has the job, but for those of the number and the batch."""
        found = {key for key in self.bench.names() if self.bench.redis.type(key) == b"zset"}
        return {key for key in found if self.bench.redis.zscore(key, id_) is not None}


@pytest.fixture
def road(clock: Clock) -> Two:
    return Two(clock)


# -- what was surely not taken -----------------------------------------------------------------------------------------


def test_what_was_surely_not_sent_goes_to_the_next_account_at_once(road: Two) -> None:
    road.begin()
    road.ends(REFUSED, Accepted(ref="7"))
    assert road.run("0001") == "queued:second"
    assert road.where() == "second"
    assert road.bench.raw("0001")["w"] == f"retry {road.clock.ms}"
    assert road.listed() == {"d:i:second:queued", "d:w:second"}
    assert road.go_on() == "sent"
    assert road.story() == [
        "plain queued: created",
        "plain sending: attempt 1",
        f"plain queued: moves to second: {TOLD}",
        "second sending: attempt 2",
        "second sent: accepted by the provider",
    ]
    job = road.read()
    assert (job.provider, job.route, job.provider_ref, job.possible_duplicate) == ("second", [*ROUTE], "7", False)
    assert [(one.provider, one.outcome, one.ref) for one in job.tries] == [
        ("plain", "not_sent", ""), ("second", "accepted", "7"),
    ]  # fmt: skip
    assert road.listed() == {"d:i:second:sent", "d:f:second"}


@pytest.mark.parametrize("kind", ["unauthorized", "insufficient_funds", "throttled"])
def test_what_is_no_attempt_moves_without_one(road: Two, kind: str) -> None:
    road.begin()
    road.ends(failure(kind, retry_after=60))
    road.run("0001")
    assert road.where() == "second"
    assert road.read().attempts == 0
    assert road.go_on() == "sent"
    assert road.read().attempts == 1


@pytest.mark.parametrize("kind", ["rejected", "ambiguous", "opted_out"])
def test_its_own_fault_or_a_doubt_moves_nothing(road: Two, kind: str) -> None:
    road.begin()
    road.ends(failure(kind))
    assert road.run("0001").partition(":")[0] in {"failed", "unknown"}
    assert road.where() == "plain"


def test_with_the_last_account_it_stays_and_is_tried_again(road: Two) -> None:
    """One walk: it does not come back to an account that it has left."""
    road.begin()
    road.ends(REFUSED, REFUSED)
    road.run("0001")
    assert road.go_on() == "queued:retry"
    assert road.where() == "second"
    road.ends(REFUSED, Accepted())
    assert road.go_on() == "sent"
    assert road.story()[4] == f"second queued: {TOLD}; attempt 3 in 4.0 s"


def test_what_no_account_takes_ends_with_the_attempts_there_are(clock: Clock) -> None:
    road = Two(clock, max_attempts=3)
    road.begin()
    road.ends(REFUSED, REFUSED)
    road.run("0001")
    road.go_on()
    assert road.go_on() == "failed:not_sent"
    assert road.story()[-1] == f"second failed: {TOLD}; gives up after 3 attempts"


def test_what_is_too_old_by_then_is_given_up_in_words(clock: Clock) -> None:
    road = Two(clock, retry_for="transactional=60")
    road.begin(route=())
    road.ends(REFUSED)
    road.clock.advance(59)
    assert road.run("0001") == "failed:not_sent"
    assert road.story()[-1] == f"plain failed: {TOLD}; gives up: it is not tried again after 1 min"


def test_what_is_useless_by_then_expires_now(road: Two) -> None:
    road.begin(route=(), valid_for=3000)
    road.ends(failure("not_sent", retry_after=30))
    assert road.run("0001") == "expired"
    assert road.story()[-2:] == [
        "plain queued: not_sent X: no; it could be tried again in 30.0 s",
        "plain expired: its time passes before it is tried again",
    ]
    assert road.read().failure == Failure(
        kind=FailureKind.EXPIRED, code="", message="its time passes before it is tried again"
    )
    assert road.listed() == {"d:i:plain:expired"}


@pytest.mark.parametrize("reason", ["breaker", "suspended"])
def test_nobody_waits_for_an_account_that_is_left_alone_where_there_is_another(road: Two, reason: Any) -> None:
    road.begin()
    road.gate.grants = [Later(30, reason)]
    assert road.run("0001") == "queued:second"
    assert road.story()[-1] == "plain queued: moves to second: plain is left alone for a while"
    assert road.go_on() == "sent"
    assert road.wire.sent == ["0001"]


@pytest.mark.parametrize(
    ("reason", "route"), [("limit", ROUTE), ("breaker", ("second", "plain"))], ids=["a limit", "the last account"]
)
def test_but_for_these(road: Two, reason: Any, route: tuple[str, ...]) -> None:
    road.begin(route=route)
    road.gate.grants = [Later(30, reason)]
    assert road.run("0001") == f"queued:{reason}"
    assert road.where() == "plain"


def test_a_suspension_is_told_and_the_jobs_go_elsewhere(road: Two) -> None:
    wrong = failure("unauthorized", "LOGIN", "wrong password")
    for id_ in ("0001", "0002"):
        road.begin(id_)
        road.ends(wrong, id_=id_)
    worker = road.execution()
    for id_ in ("0001", "0002"):
        asyncio.run(worker.execute([id_], "plain"))
    assert road.wire.sent == ["0001"], "the second is not tried with that password"
    assert road.story("0002")[-1].startswith("plain queued: moves to second: unauthorized LOGIN: wrong password")
    assert [road.where(id_) for id_ in ("0001", "0002")] == ["second", "second"]


def test_of_jobs_that_go_elsewhere_one_waits_where_only_a_job_shows_that_all_is_mended(road: Two) -> None:
    """A missing permission is tried with a job that waits: were there none, it would never be."""
    ids = ["0001", "0002", "0003", "0004"]
    for id_ in ids:
        road.begin(id_)
    road.ends(Failure(kind=FailureKind.UNAUTHORIZED, code="P", message="not allowed", permission=True))
    worker = road.execution()

    def run(id_: str) -> str:
        return asyncio.run(worker.execute([id_], "plain"))

    assert [run("0001"), run("0002")] == ["queued:second"] * 2
    # It is looked at after ten minutes, and a job may come five seconds before.
    road.clock.advance(596)
    road.now += 596
    assert [run("0003"), run("0004")] == ["queued:suspended", "queued:second"]
    _, ids = road.bench.run(road.bench.calls.free("plain", "0", ["send"], one=True))
    assert ids == ["0003"]


def test_what_one_adapter_refuses_unasked_another_takes(road: Two) -> None:
    """Such as a text that is too long there, or a country that it does not serve."""
    road.adapters["plain"].operations = {}  # type: ignore[misc]  # of this one
    road.begin()
    assert road.run("0001") == "queued:second"
    assert road.go_on() == "sent"
    assert road.read().attempts == 1


def test_what_every_adapter_refuses_fails_with_the_last_ones_words(road: Two) -> None:
    for one in road.adapters.values():
        one.operations = {}  # type: ignore[misc]  # of this one
    road.begin()
    road.run("0001")
    assert road.go_on() == "failed:unsupported"


def test_options_may_be_given_for_each_account(road: Two) -> None:
    """Each gets its own; what is not named gets none, and what is not by account goes to all."""
    both = Send(to=NUMBER, text=TEXT, options={"plain": {"time": "1"}, "second": {}})
    road.begin("0001", both)
    road.begin("0002", Send(to=NUMBER, text=TEXT, options={"time": "1"}))
    raw = road.bench.take("0001", "0002").records
    sealer = road.bench.settings.sealer()
    options = [records.work(one, sealer).request.options for one in raw]  # type: ignore[union-attr]
    assert options == [{"time": "1"}, {"time": "1"}]
    second = records.work([*raw[0][:3], b"second", *raw[0][4:]], sealer).request
    assert second.options == {}  # type: ignore[union-attr]


# -- a call whose answer was lost, and workers that come late ----------------------------------------------------------


def moves(road: Two, guard: str, **told: Any) -> Advance:
    return Advance(
        id="0001", guard=guard, state=State.QUEUED, detail="moves to second: no", wait="retry", account="plain",
        goal="second", **told,
    )  # fmt: skip


def test_a_move_whose_answer_was_lost_is_made_once(road: Two) -> None:
    road.begin()
    token = road.bench.claim("0001")
    call = road.bench.calls.advance([moves(road, token, tried="not_sent ")])
    assert road.bench.run(call) == ["queued"]
    before = road.bench.dump()
    assert road.bench.run(call) == ["queued"]
    assert road.bench.dump() == before
    assert road.go_on() == "sent"
    after = road.bench.dump()
    assert road.bench.run(call) == [""]
    assert road.bench.dump() == after


def test_so_is_one_of_a_job_that_was_not_claimed(clock: Clock) -> None:
    road = Two(clock, "third")
    road.begin(route=(*ROUTE, "third"))
    road.bench.hold("0001")
    call = road.bench.calls.advance([moves(road, "=queued")])
    road.bench.run(call)
    before = road.bench.dump()
    assert road.bench.run(call) == ["queued"]
    assert road.bench.dump() == before, "it did not go on to the third"
    assert road.where() == "second"


def test_the_worker_that_had_it_cannot_claim_it_there(road: Two) -> None:
    road.begin()
    token = road.bench.hold("0001")
    road.bench.run(road.bench.calls.advance([moves(road, "=queued")]))
    assert road.bench.refused_claim(token, "0001") == "queued"


def test_a_worker_that_was_taken_for_dead_comes_back_with_good_news(road: Two) -> None:
    """The job waits at the second account: it returns to the one that took it, and is sent nowhere else."""
    road.begin(terms=RESEND)
    late = road.bench.claim("0001", repeat="resend")
    road.clock.advance(60)
    road.bench.sweep()
    road.ends(REFUSED)
    assert road.go_on() == "queued:second"
    key = receipt_key(road.bench.settings, road.adapters["plain"], "7", NUMBER)
    state = road.bench.advance(
        "0001", late, "sent", tried="accepted 7", fields={"m": "7", "y": "expected"}, account="plain", receipt=key
    )
    assert state == "sent"
    assert (road.where(), road.read().provider_ref) == ("plain", "7")
    assert road.listed() == {"d:i:plain:sent", "d:f:plain"}
    assert road.receipt("plain", "delivered", "7") == "moved"
    assert road.listed() == {"d:i:plain:delivered"}


def test_an_account_that_never_had_a_job_tells_nothing_of_it(road: Two) -> None:
    """Another account's word for our own id counts only where the job has been there."""
    road.begin(route=("plain", "third"))
    road.adapters["third"] = road.account("third")
    assert road.receipt("second", "delivered", own="0001") == "late"
    assert road.receipt("third", "delivered", own="0001") == "late", "it did not come there yet"
    assert road.bench.state("0001") == "queued"


# -- what was taken, as the caller asked -------------------------------------------------------------------------------


def sent(road: Two, **told: Any) -> None:
    """A job that the first account took, and that is watched."""
    road.begin(**{"terms": WATCHED} | told)
    road.ends(Accepted(ref="7", price="0.01 USD"), Accepted(ref="8"))
    assert road.run("0001") == "sent"


def test_without_a_receipt_in_time_it_goes_on_as_the_caller_asked(road: Two) -> None:
    sent(road)
    assert road.bench.redis.zscore("d:fo", "0001") == road.clock.ms + 60_000
    road.clock.advance(59)
    road.bench.sweep()
    assert road.bench.state("0001") == "sent"
    road.clock.advance(1)
    road.bench.sweep()
    assert road.listed() == {"d:i:second:queued", "d:w:second"}
    waits = road.read()
    assert (waits.state, waits.possible_duplicate, waits.provider_ref, waits.receipt) == ("queued", False, None, None)
    assert road.go_on() == "sent"
    assert road.story()[2:5] == [
        "plain sent: accepted by the provider",
        "plain queued: moves to second: no receipt came in time",
        "second sending: attempt 2",
    ]
    job = road.read()
    assert (job.possible_duplicate, job.provider_ref, job.receipt) == (True, "8", "expected")
    assert [(one.provider, one.ref) for one in job.tries] == [("plain", "7"), ("second", "8")]
    road.clock.advance(3600)
    road.bench.sweep()
    assert road.bench.state("0001") == "sent", "there is nowhere else to go"


def test_what_is_told_to_be_undelivered_goes_on_at_once(road: Two) -> None:
    sent(road)
    why = records.encode_failure(Failure(kind=FailureKind.REJECTED, code="30", message="blocked"))
    assert road.receipt("plain", "undelivered", "7", fields={"e": why}) == "moved"
    assert road.where() == "second"
    assert road.read().failure is not None
    assert road.go_on() == "sent"
    assert road.read().failure is None
    assert road.receipt("second", "undelivered", "8") == "moved"
    job = road.read()
    assert (job.state, job.possible_duplicate) == (State.UNDELIVERED, True)


def test_unasked_it_stays_undelivered(road: Two) -> None:
    sent(road, terms=Terms())
    assert road.bench.members("d:fo") == set()
    road.receipt("plain", "undelivered", "7")
    assert (road.read().state, road.where()) == (State.UNDELIVERED, "plain")


def test_who_wants_no_texts_gets_none_from_another_account(road: Two) -> None:
    sent(road)
    told = records.encode_failure(Failure(kind=FailureKind.OPTED_OUT, code="stop", message="opted out"))
    road.receipt("plain", "undelivered", "7", fields={"e": told})
    assert road.read().state == State.UNDELIVERED


def test_what_is_not_valid_any_more_goes_nowhere(road: Two) -> None:
    sent(road, valid_for=60_000)
    road.clock.advance(60)
    road.bench.sweep()
    assert road.bench.state("0001") == "sent"
    road.receipt("plain", "undelivered", "7")
    assert road.bench.state("0001") == "undelivered"
    assert road.story()[-2:] == ["plain sent: accepted by the provider", "plain undelivered: receipt: undelivered"]


def test_an_account_that_tells_no_receipts_is_not_watched(road: Two) -> None:
    road.adapters["plain"].capabilities = Capabilities(receipts="none")  # type: ignore[misc]  # of this one
    sent(road)
    assert road.bench.members("d:fo") == set()


def test_a_receipt_that_is_quicker_than_the_answer_moves_it_too(road: Two) -> None:
    """Undelivered before the answer said that it was taken: that then is no news, but for the reference."""
    road.begin(terms=WATCHED)
    token = road.bench.claim("0001")
    assert road.receipt("plain", "undelivered", own="0001") == "moved"
    assert road.where() == "second"
    key = receipt_key(road.bench.settings, road.adapters["plain"], "7", NUMBER)
    told: dict[str, Any] = {"tried": "accepted 7", "fields": {"m": "7"}, "receipt": key, "account": "plain"}
    assert road.bench.advance("0001", token, "sent", **told) == "queued"
    assert road.go_on() == "sent"
    assert [(one.provider, one.ref) for one in road.read().tries] == [("plain", "7"), ("second", "")]
    assert road.receipt("plain", "delivered", "7") == "moved", "after all"
    assert (road.where(), road.read().provider_ref) == ("plain", "7")


# -- late news of the account that it left -----------------------------------------------------------------------------


def moved(road: Two, how: str) -> None:
    """A job that went on to the second account though the first took it."""
    sent(road)
    if how == "undelivered":
        road.receipt("plain", "undelivered", "7")
    else:
        road.clock.advance(60)
        road.bench.sweep()
    assert road.where() == "second"


@pytest.mark.parametrize("how", ["sent", "undelivered"])
@pytest.mark.parametrize("by", ["ref", "own"])
def test_delivered_after_all_it_is_not_sent_again(road: Two, how: str, by: str) -> None:
    moved(road, how)
    assert road.receipt("plain", "delivered", **({"ref": "7"} if by == "ref" else {"own": "0001"})) == "moved"
    job = road.read()
    assert (job.state, job.provider, job.provider_ref, job.possible_duplicate) == ("delivered", "plain", "7", False)
    assert road.bench.due("second") == []
    assert road.listed() == {"d:i:plain:delivered"}


def test_delivered_after_all_while_the_other_is_on_the_wire(road: Two) -> None:
    moved(road, "sent")
    assert road.bench.due("second") == ["0001"]
    token = road.bench.claim("0001")
    assert road.receipt("plain", "delivered", "7") == "moved"
    told: dict[str, Any] = {"tried": "accepted 8", "fields": {"m": "8"}, "account": "second"}
    assert road.bench.advance("0001", token, "sent", **told) == "delivered"
    job = road.read()
    assert (job.state, job.provider, job.possible_duplicate) == ("delivered", "plain", True)
    assert [(one.provider, one.ref) for one in job.tries] == [("plain", "7"), ("second", "8")]


def test_undelivered_after_all_says_nothing_of_the_other_try(road: Two) -> None:
    moved(road, "sent")
    assert road.receipt("plain", "undelivered", "7") == "late"
    road.go_on()
    assert road.receipt("plain", "undelivered", "7") == "late"
    assert road.read().state == State.SENT
    assert road.story()[-1] == "plain sent: receipt: undelivered"
    assert road.receipt("second", "delivered", "8") == "moved"


def test_parts_of_both_tries_do_not_add_up(road: Two) -> None:
    moved(road, "sent")
    road.go_on()
    for account, ref, part in (("plain", "7", 1), ("second", "8", 2)):
        assert road.receipt(account, "delivered", ref, part=part, parts=2) == "late"
    assert road.read().state == State.SENT
    assert road.receipt("plain", "delivered", "7", part=2, parts=2) == "moved"
    assert (road.read().state, road.where()) == (State.DELIVERED, "plain")
    assert road.listed() == {"d:i:plain:delivered"}


ENDS: Mapping[str, Any] = {
    "refused by the other": lambda road: (road.ends(None, failure("rejected")), road.go_on()),
    "taken back": lambda road: road.bench.advance("0001", "=queued", "cancelled"),
    "too late": lambda road: (road.clock.advance(3600), road.bench.sweep()),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", ["sent", "undelivered"])
def test_what_goes_nowhere_else_ends_as_the_first_try_left_it(road: Two, how: str, end: str) -> None:
    """It was taken, and must not look as if nothing had happened."""
    sent(road, valid_for=600_000)
    if how == "undelivered":
        road.receipt("plain", "undelivered", "7")
    else:
        road.clock.advance(60)
        road.bench.sweep()
    ENDS[end](road)
    job = road.read()
    assert (job.state, job.provider, job.provider_ref) == (how, "plain", "7")
    assert job.history[-1].detail.endswith("; an earlier try was taken")
    assert how == "undelivered" or job.failure is None
    assert road.listed() == {f"d:i:plain:{how}"} | ({"d:f:plain"} if how == "sent" else set())
    assert road.receipt("plain", "delivered", "7") == "moved"
    assert road.read().state == State.DELIVERED


def test_in_doubt_at_the_second_account_it_is_unknown_there(road: Two) -> None:
    moved(road, "undelivered")
    road.ends(None, failure("ambiguous"))
    assert road.go_on() == "unknown"
    assert (road.where(), road.read().possible_duplicate) == ("second", True)
    surely_not = road.bench.advance("0001", "=unknown", "failed", detail="resolved as failed by an operator")
    assert (surely_not, road.where()) == ("undelivered", "plain"), "which says nothing of the first"


def test_by_the_callers_word_what_may_have_been_taken_goes_on_once(road: Two) -> None:
    road.begin(terms=RESEND)
    road.ends(failure("ambiguous"), failure("ambiguous"))
    assert road.run("0001") == "queued:second"
    assert road.story()[-1] == (
        "plain queued: moves to second: ambiguous X: no; it may have been taken, and is sent again as the caller asked"
    )
    assert road.go_on() == "unknown"
    assert road.read().possible_duplicate
    assert road.receipt("plain", "delivered", own="0001") == "moved"
    assert (road.read().state, road.where()) == (State.DELIVERED, "plain")


# -- one-time codes ----------------------------------------------------------------------------------------------------


def right(road: Two, code: str) -> tuple[int, str]:
    return road.bench.check("0001", road.bench.settings.hashed("code", "0001", code))


def coded(road: Two, first: str, second: str, **terms: Any) -> None:
    """A verification; `first` and `second` say who makes its code there."""
    for account, who in zip(ROUTE, (first, second), strict=True):
        one = Capabilities(receipts="push", verification=who)  # type: ignore[arg-type]
        road.adapters[account].capabilities = one  # type: ignore[misc]  # of this one
    road.begin(request=VERIFY, terms=msgspec.structs.replace(CODE, **terms))


def test_a_code_of_ours_is_the_same_at_the_next_account(road: Two) -> None:
    coded(road, "ours", "ours", on_unknown=OnUnknown.RESEND)
    road.ends(failure("ambiguous"))
    made = road.execution(make_code=iter(["000001", "000002"]).__next__)
    assert asyncio.run(made.execute(["0001"], "plain")) == "queued:second"
    assert road.go_on() == "sent"
    assert right(road, "000001") == (1, "approved"), "the first may have arrived, too"


def test_once_it_is_approved_no_other_account_sends_it(road: Two) -> None:
    """The person has typed what nobody knew to have arrived: another text would say nothing."""
    coded(road, "ours", "ours", on_unknown=OnUnknown.RESEND)
    road.ends(failure("ambiguous"))
    made = road.execution(make_code=lambda: "000001")
    assert asyncio.run(made.execute(["0001"], "plain")) == "queued:second"
    assert right(road, "000001") == (1, "approved"), "the first may have arrived"
    assert road.go_on() == "unknown"
    assert road.story()[-1] == "second unknown: its verification is over; an earlier try may have been taken"


def test_once_it_is_approved_no_receipt_is_waited_for(road: Two) -> None:
    coded(road, "provider", "provider", failover_after=60)
    road.ends(Accepted(ref="7", code="9999"))
    road.run("0001")
    assert right(road, "9999") == (1, "approved")
    road.clock.advance(60)
    road.bench.sweep()
    assert road.bench.state("0001") == "sent"


#: Who makes the code at the first account and the second, and whether then the first's, ours and the second's is right.
ONE_RIGHT: list[Any] = [
    pytest.param("ours", "ours", [0, 1, 0], id="ours at both"),
    pytest.param("ours", "provider", [0, 0, 1], id="ours, then the second's"),
    pytest.param("provider", "ours", [0, 1, 0], id="the first's, then ours"),
    pytest.param("provider", "provider", [0, 0, 1], id="the first's, then the second's"),
    pytest.param("ours", "provider checks", [-2, -2, -2], id="ours, then one that the second knows"),
    pytest.param("provider", "provider checks", [-2, -2, -2], id="the first's, then one that the second knows"),
]


@pytest.mark.parametrize(("first", "second", "verdicts"), ONE_RIGHT)
def test_one_code_is_right_at_a_time_whoever_makes_it(
    road: Two, monkeypatch: pytest.MonkeyPatch, first: str, second: str, verdicts: list[int]
) -> None:
    """What the first account sent is dead once the second was sent another."""
    coded(road, first, second, failover_after=60)
    told = [Accepted(ref=who, code=code if who == "provider" else "") for who, code in ((first, "1"), (second, "2"))]
    road.ends(*told)
    monkeypatch.setattr(road, "execution", partial(road.execution, make_code=lambda: "000001"))
    road.run("0001")
    road.clock.advance(60)
    road.bench.sweep()
    assert road.go_on() == "sent"
    assert [right(road, code)[0] for code in ("1", "000001", "2")] == verdicts


def test_the_code_of_the_account_that_sent_last_is_the_right_one(road: Two) -> None:
    coded(road, "ours", "provider")
    road.ends(REFUSED, Accepted(code="9999"))
    road.run("0001")
    assert road.go_on() == "sent"
    assert b"vx" not in road.bench.redis.hgetall("d:j:0001") or road.bench.redis.hget("d:j:0001", "vx") == b""
    assert right(road, "9999") == (1, "approved")


def test_where_that_one_judges_codes_it_is_asked(road: Two) -> None:
    """Though the first account had made a code, which is not right any more."""
    coded(road, "provider", "provider checks", failover_after=60)
    road.ends(Accepted(ref="7", code="9999"), Accepted(ref="8"))
    road.run("0001")
    road.clock.advance(60)
    road.bench.sweep()
    assert road.go_on() == "sent"
    assert right(road, "9999") == (-2, "pending")


def test_an_answer_that_a_receipt_was_quicker_than_brings_its_code_all_the_same(road: Two) -> None:
    coded(road, "provider", "provider", failover_after=60)
    road.ends(Accepted(ref="7", code="1111"))
    road.run("0001")
    road.clock.advance(60)
    road.bench.sweep()
    road.bench.due("second")
    token = road.bench.claim("0001")
    assert road.receipt("second", "delivered", own="0001") == "moved"
    hashed = road.bench.settings.hashed("code", "0001", "2222")
    road.bench.advance("0001", token, "sent", tried="accepted 8", fields={"vh": hashed}, account="second", code_ttl=300)
    assert right(road, "2222") == (1, "approved")


# -- batches, recovery, redrive ----------------------------------------------------------------------------------------


def test_a_batch_adds_up_while_its_jobs_move(road: Two) -> None:
    terms = Terms(failover_after=60)
    public = records.encode_public(Send(to=NUMBER, text=TEXT), terms, "send", sandbox=False, route=ROUTE)
    road.bench.create("0001", "0002", provider="plain", batch="spring", public=public)
    for id_ in ("0001", "0002"):
        token = road.bench.claim(id_)
        road.bench.advance(id_, token, "sent", account="plain", watched=60)
    assert road.bench.counts("spring") == {"sent": 2, "f": 2}
    settled = ("batch.settled", "spring")
    assert settled not in road.bench.events(), "they may go on yet"
    assert road.bench.ttl("d:b:spring") is None
    road.clock.advance(60)
    road.bench.sweep()
    assert road.bench.counts("spring") == {"queued": 2}
    assert road.bench.ttl("d:b:spring") is None
    for id_ in road.bench.due("second"):
        road.bench.advance(id_, road.bench.claim(id_), "sent", account="second")
    assert road.bench.counts("spring") == {"sent": 2}
    assert road.bench.events().count(settled) == 1


@pytest.mark.parametrize("end", ["a receipt", "nobody comes after", "another account takes it"])
def test_a_job_that_is_watched_is_not_settled_until_that_is_over(road: Two, end: str) -> None:
    sent(road, batch="spring")
    with Dispatcher(road.bench.settings) as dispatcher:
        dispatcher._store = road.bench.store  # the same Redis, which is in memory
        job, batch = dispatcher.get("0001"), dispatcher.batch("spring")
        assert (job.state, job.settled, job.waiting and job.waiting.reason) == ("sent", False, "receipt")
        assert not batch.settled
        for wait in (partial(dispatcher.wait, "0001"), batch.wait):
            with pytest.raises(WaitTimeout):
                wait(timeout=0.01)
        if end == "a receipt":
            word = Word(provider="plain", own="0001", state=State.DELIVERED, detail="there")
            assert road.bench.run(road.bench.calls.receipts([word])) == ["moved"]
        else:
            if end == "nobody comes after":
                road.bench.redis.hset("d:j:0001", "rt", 2)
            road.clock.advance(60)
            road.bench.sweep()
            if end == "another account takes it":
                assert road.go_on() == "sent"
        job = dispatcher.wait("0001", timeout=0.01)
        assert (job.settled, job.waiting) == (True, None)
        assert batch.wait(timeout=0.01) == {job.state: 1}
    assert road.bench.events().count(("batch.settled", "spring")) == 1


def test_of_a_batch_that_was_cancelled_nothing_goes_on(road: Two) -> None:
    sent(road, batch="spring")
    road.bench.run(road.bench.calls.close("spring", cancelled=True))
    road.clock.advance(60)
    road.bench.sweep()
    assert road.bench.counts("spring") == {"sent": 1}
    assert road.story()[-1] == "plain sent: accepted by the provider"
    road.begin("0002", batch="summer")
    token = road.bench.claim("0002")
    road.bench.run(road.bench.calls.close("summer", cancelled=True))
    state = road.bench.advance("0002", token, "queued", wait="retry", account="plain", goal="second")
    assert (state, road.bench.counts("summer")) == ("cancelled", {"cancelled": 1})


def test_a_job_that_moved_is_taken_back_where_it_is(road: Two) -> None:
    road.begin()
    road.ends(REFUSED)
    road.run("0001")
    assert road.bench.advance("0001", "=queued", "cancelled") == "cancelled"
    assert road.listed() == {"d:i:second:cancelled"}


def test_a_redrive_goes_the_whole_way_once_more(road: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    road.begin()
    road.ends(REFUSED, failure("rejected"))
    road.run("0001")
    assert road.go_on() == "failed:rejected"
    with Dispatcher(road.bench.settings) as one:
        one._store.redis = road.bench.redis
        again = one.redrive("0001")
    assert (again.provider, again.route) == ("plain", [*ROUTE])


def test_what_its_history_lost_is_written_where_it_belongs(road: Two) -> None:
    """A worker says again what it did at an account that Redis does not know any more of."""
    road.begin()
    token = road.bench.claim("0001")
    assert road.bench.advance("0001", token, "sent", tried="accepted 8", account="second") == "sent"
    assert (road.where(), road.listed()) == ("second", {"d:i:second:sent"})


def test_of_three_accounts_each_is_tried_once(clock: Clock) -> None:
    road = Two(clock, "third")
    road.begin(route=(*ROUTE, "third"), terms=WATCHED)
    road.ends(Accepted(ref="7"), REFUSED, Accepted(ref="9"))
    road.run("0001")
    road.receipt("plain", "undelivered", "7")
    assert road.go_on() == "queued:third"
    assert road.go_on() == "sent"
    assert [one.provider for one in road.read().tries] == ["plain", "second", "third"]
    assert road.read().possible_duplicate
