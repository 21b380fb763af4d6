"""What an account cannot do until its operator mends it: who learns of it, what waits, how it is lifted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from dispatcher import Dispatcher, InvalidRequest, suspensions
from dispatcher.jobs import Lookup, Send
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Request as JobRequest
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from dispatcher.pages import print_suspensions
from dispatcher.queues import both_queues
from dispatcher.redis_check import _suspended
from dispatcher.suspensions import ACCOUNT, FUNDS, Suspension, scope_of
from tests.unit.support import NUMBER, TEXT, Bench, Clock, leaks
from tests.unit.test_execute import Plain, Road, Wire
from workers.execute import Execution
from workers.limits import Later
from workers.providers.base import Operation, Request, Response
from workers.suspensions import PATIENCE, Probes, Verdict, passed, spendable, verdict

SEND, LOOKUP, BALANCE = Send(to=NUMBER, text=TEXT), Lookup(to=NUMBER), OperationRequest()

#: Seconds between looks, as the settings say.
MINUTE = 60
#: Seconds that a job waits at most.
PARKED = 600


def failure(kind: str, code: str = "X", message: str = "no", *, permission: bool = False) -> Failure:
    return Failure(kind=FailureKind(kind), code=code, message=message, permission=permission)


WRONG = failure("unauthorized", "LOGIN")
NOT_ALLOWED = failure("unauthorized", "NOT_PERMITTED", permission=True)
BROKE = failure("insufficient_funds", "NO_CREDIT")


def balance(amount: str, available: str | None = None) -> Found:
    return Found(result={"balance": amount, "available": available, "currency": None})


class Vendor(Plain):
    """A provider whose account has a password, permissions and money, as the test says."""

    operations = {  # noqa: RUF012 - as in the class above
        **Plain.operations,
        "send": Operation(about="Send.", paid=True),
        "lookup": Operation(about="Look up.", repeat="once", paid=True),
    }

    def __init__(self) -> None:
        super().__init__()
        #: What each operation is answered; the others are done.
        self.answers: dict[str, Outcome] = {}

    def parse(self, response: Response, group: Any) -> dict[str, Outcome]:
        done: dict[str, Outcome] = {"send": Accepted(), "balance": balance("5")}
        operation = group.jobs[0].operation
        outcome = self.answers.get(operation, done.get(operation, Found(result={})))
        return {job.id: outcome for job in group.jobs}

    def refuse(self, outcome: Outcome) -> None:
        """Answer everything so."""
        self.answers = dict.fromkeys(self.operations, outcome)


class Fleet(Road):
    """Several workers on one Redis, with one vendor. What is on the wire stays there while `hangs` is set."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        super().__init__(clock, **settings)
        self.adapter: Vendor = Vendor()
        self.hangs: asyncio.Event | None = None
        #: Set when a second has passed for whoever waits.
        self.second: asyncio.Event | None = None
        self.asked: list[str] = []
        self.wire = _Hanging(self)

    def worker(self) -> Worker:
        return Worker(self)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.second is not None:
            await self.second.wait()

    def ready(self, count: int, **told: Any) -> list[str]:
        """Enqueue jobs, each a request of its own."""
        ids = [f"{number:04}" for number in range(count)]
        for id_ in ids:
            self.enqueue(id_, Send(to=NUMBER, text=f"Hi {id_}"), **told)
        return ids

    def suspended(self) -> list[tuple[str, str]]:
        _, told = self.bench.run(self.bench.calls.suspended(["plain"]))
        return [(one.scope, one.code) for one in told]

    def told(self) -> list[str]:
        """The events of the account."""
        return [event for event, _ in self.bench.events() if event.startswith("provider.")]

    def wait(self, seconds: float) -> None:
        """Let time pass, for Redis and for the processes."""
        self.clock.advance(seconds)
        self.now += seconds

    def due(self) -> list[str]:
        """The jobs that go on, at once or when it is their turn."""
        out = [id_ for queue in both_queues("plain") for id_ in self.bench.due(queue)]
        lines = [self.bench.redis.zrange(key, 0, -1) for key in self.bench.redis.scan_iter("d:q:*")]
        return sorted(out + [id_.decode() for line in lines for id_ in line])


class _Hanging(Wire):
    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self._fleet = fleet

    async def send(self, request: Request) -> Response | Failure:
        self.sent.append(request.body.decode())
        if self._fleet.hangs is not None:
            await self._fleet.hangs.wait()
        else:
            await asyncio.sleep(0)
        return Response(status=200)


class Worker:
    """One process: what it executes, and its looks after what is suspended."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.execution: Execution = fleet.execution()
        self.known = self.execution.suspensions
        self.probes = Probes(
            fleet.bench.settings, {"plain": fleet.adapter}, fleet.store, self.known,
            ask=self.execution.ask, execute=self.execution.execute,
        )  # fmt: skip

    async def all(self, ids: Sequence[str]) -> list[str]:
        """Execute jobs at once, each as a message of its own."""
        return await asyncio.gather(*(self.execution.execute([id_], "plain") for id_ in ids))

    def run(self, *ids: str) -> list[str]:
        return asyncio.run(self.all(ids))

    def look(self) -> list[str]:
        """Tick once and let what begins come to its end; what was sent meanwhile."""
        before = len(self._fleet.wire.sent)

        async def tick() -> None:
            await self.probes.look()
            await asyncio.gather(*self.probes._running.values())

        asyncio.run(tick())
        return self._fleet.wire.sent[before:]


@pytest.fixture
def fleet(clock: Clock) -> Fleet:
    return Fleet(clock)


# -- scopes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "scope"),
    [
        pytest.param(WRONG, "account", id="bad credentials: the account"),
        pytest.param(NOT_ALLOWED, "operation:lookup", id="a missing permission: that operation"),
        pytest.param(BROKE, "funds", id="no money: what costs"),
        pytest.param(failure("rejected"), None, id="a bad template: that job alone"),
        pytest.param(failure("invalid"), None, id="a bad number: that job alone"),
        pytest.param(failure("ambiguous"), None, id="a lost answer"),
        pytest.param(Accepted(), None, id="taken"),
    ],
)
def test_a_suspension_has_a_scope(outcome: Outcome, scope: str | None) -> None:
    assert scope_of("lookup", outcome) == scope


@pytest.mark.parametrize(
    ("refused", "held", "free"),
    [
        pytest.param(WRONG, {"send", "lookup", "balance"}, set(), id="account"),
        pytest.param(NOT_ALLOWED, {"send"}, {"lookup", "balance"}, id="operation"),
        pytest.param(BROKE, {"send", "lookup"}, {"balance"}, id="funds"),
    ],
)
def test_what_a_scope_holds_back(fleet: Fleet, refused: Outcome, held: set[str], free: set[str]) -> None:
    worker = fleet.worker()
    fleet.enqueue("0000", SEND)
    fleet.adapter.answers = {"send": refused}
    assert worker.run("0000") == ["queued:suspended"]
    requests: dict[str, JobRequest] = {"send": SEND, "lookup": LOOKUP, "balance": BALANCE}
    for operation in held | free:
        fleet.enqueue(f"1{operation}", requests[operation], operation)
    words = {operation: worker.run(f"1{operation}")[0] for operation in held | free}
    assert words == {**dict.fromkeys(held, "queued:suspended"), **dict.fromkeys(free, "completed")}
    assert sorted(fleet.wire.sent) == sorted(["0000", *(f"1{operation}" for operation in free)])


def test_what_was_refused_for_want_of_money_waits_though_it_is_not_said_to_cost(fleet: Fleet) -> None:
    worker = fleet.worker()
    fleet.adapter.answers = {"balance": BROKE, "send": BROKE}
    fleet.enqueue("0001", BALANCE, "balance")
    fleet.enqueue("0002", BALANCE, "balance")
    assert worker.run("0001") == worker.run("0002") == ["queued:suspended"]
    assert fleet.wire.sent == ["0001"]


def test_what_else_is_refused_for_want_of_money_waits_with_the_rest(fleet: Fleet) -> None:
    """Redis keeps one list of what waits, to which each worker adds."""
    fleet.ready(1)
    fleet.adapter.refuse(BROKE)
    first, second = fleet.worker(), fleet.worker()
    first.run("0000")
    fleet.enqueue("0001", BALANCE, "balance")
    fleet.enqueue("0002", BALANCE, "balance")
    assert second.run("0001") == ["queued:suspended"]
    assert fleet.worker().run("0002") == ["queued:suspended"]
    assert fleet.wire.sent == ["0000", "0001"]
    assert fleet.told() == ["provider.suspended"]


# -- who knows of it ---------------------------------------------------------------------------------------------------


def test_the_job_that_met_it_waits_with_the_others_and_spends_no_attempt(fleet: Fleet) -> None:
    fleet.ready(2)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    assert [worker.run("0000"), worker.run("0001")] == [["queued:suspended"]] * 2
    for id_ in ("0000", "0001"):
        assert fleet.bench.raw(id_)["w"] == f"suspended {fleet.clock.ms + PARKED * 1000}"
        assert fleet.bench.raw(id_).get("a", "0") == "0"


def test_other_workers_do_not_find_it_out_for_themselves(fleet: Fleet) -> None:
    fleet.ready(10)
    fleet.adapter.refuse(WRONG)
    fleet.worker().run("0000")
    for number in range(1, 10):
        assert fleet.worker().run(f"{number:04}") == ["queued:suspended"]
    assert fleet.wire.sent == ["0000"]


def test_a_worker_that_runs_learns_it_with_its_next_tick(fleet: Fleet) -> None:
    fleet.ready(3)
    first, second = fleet.worker(), fleet.worker()
    assert second.run("0000") == ["sent"]
    fleet.adapter.refuse(WRONG)
    assert first.run("0001") == ["queued:suspended"]
    second.look()
    assert second.run("0002") == ["queued:suspended"]
    assert fleet.wire.sent == ["0000", "0001"]


def test_a_process_without_a_clock_reads_it_before_a_request(fleet: Fleet) -> None:
    """A pool's child has no clock of its own."""
    fleet.ready(3)
    first, second = fleet.worker(), fleet.worker()
    assert second.run("0000") == ["sent"]
    fleet.adapter.refuse(WRONG)
    first.run("0001")
    fleet.now += 3
    assert second.run("0002") == ["queued:suspended"]


def test_it_is_told_once_however_many_meet_it(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.ready(5)
    fleet.adapter.refuse(WRONG)
    workers = [fleet.worker() for _ in range(5)]
    for one in workers:
        asyncio.run(one.known.fresh())
    for number, one in enumerate(workers):
        one.run(f"{number:04}")
    assert len(fleet.wire.sent) == 5, "none of them knew"
    assert fleet.told() == ["provider.suspended"]
    lines = [one.getMessage() for one in caplog.records if "is suspended" in one.getMessage()]
    assert len(lines) == 1
    assert "dispatcher providers resume plain" in lines[0]


def test_the_event_says_which_account_and_why_and_nothing_private(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(failure("unauthorized", "LOGIN", f"{NUMBER} may not\nlog in"))
    fleet.worker().run("0000")
    with _application(fleet) as application:
        (event,) = [one for one in application.events(after="0", timeout=0) if one.type == "provider.suspended"]
    assert event.data == {
        "provider": "plain", "scope": "account", "since": "2027-01-15T08:00:00Z", "code": "LOGIN",
        "message": "***23 may not log in",
    }  # fmt: skip
    assert not leaks(repr(fleet.bench.dump()), NUMBER)


def test_without_redis_a_worker_goes_by_what_it_knows_and_tells_later(fleet: Fleet) -> None:
    fleet.ready(2)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    fleet.store.fails = {"suspend": 1}
    worker.run("0000")
    assert fleet.suspended() == []
    assert worker.run("0001") == ["queued:suspended"]
    assert fleet.wire.sent == ["0000"]
    worker.look()
    assert fleet.suspended() == [("account", "LOGIN")]
    fleet.store.fails = {"suspended": 10}
    fleet.now += 3
    fleet.enqueue("0002")
    assert worker.run("0002") == ["queued:suspended"]


def test_what_was_read_before_it_was_learnt_is_not_believed(fleet: Fleet) -> None:
    """The answer of a look that was under way must not lift what was learnt meanwhile."""
    fleet.ready(2)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    slow = fleet.store.run

    async def everything() -> list[str]:
        await worker.known.fresh()
        read, go = asyncio.Event(), asyncio.Event()

        async def held(call: Any) -> Any:
            answer = await slow(call)
            if call.script.name == "suspended":
                read.set()
                await go.wait()
            return answer

        fleet.store.run = held  # type: ignore[method-assign]
        looking = asyncio.create_task(worker.known.refresh())
        await read.wait()
        await worker.all(["0000"])
        go.set()
        await looking
        fleet.store.run = slow  # type: ignore[method-assign]
        return await worker.all(["0001"])

    assert asyncio.run(everything()) == ["queued:suspended"]
    assert fleet.wire.sent == ["0000"]


def test_a_redis_that_was_emptied_forgets_it(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run("0000")
    fleet.bench.redis.delete("d:s:plain")
    worker.look()
    fleet.adapter.answers = {}
    fleet.enqueue("0001")
    assert worker.run("0001") == ["sent"]


# -- one wrong password is one request ---------------------------------------------------------------------------------


def test_fifty_jobs_with_a_wrong_password_are_one_request(fleet: Fleet) -> None:
    ids = fleet.ready(50)
    fleet.adapter.refuse(WRONG)

    async def everything() -> list[str]:
        fleet.second = asyncio.Event()
        return await fleet.worker().all(ids)

    assert asyncio.run(everything()) == ["queued:suspended"] * 50
    assert len(fleet.wire.sent) == 1


def test_with_the_right_password_the_others_follow_at_once(fleet: Fleet) -> None:
    ids = fleet.ready(50)

    async def everything() -> list[str]:
        fleet.second = asyncio.Event()
        return await fleet.worker().all(ids)

    assert asyncio.run(everything()) == ["sent"] * 50
    assert all(seconds <= PATIENCE for seconds in fleet.slept)


@pytest.mark.parametrize(
    ("outcome", "trials"),
    [
        pytest.param(Accepted(), 1, id="taken"),
        pytest.param(failure("opted_out"), 1, id="it knows us: somebody opted out"),
        pytest.param(failure("rejected"), 1, id="it knows us: a template is refused"),
        pytest.param(BROKE, 1, id="it knows us: there is no money"),
        pytest.param(failure("not_sent"), 10, id="nothing is known yet: not reached"),
        pytest.param(failure("ambiguous"), 10, id="nothing is known yet: a lost answer"),
        pytest.param(failure("throttled"), 10, id="nothing is known yet: too fast"),
        pytest.param(failure("invalid"), 10, id="nothing is known yet: who looked at the request first?"),
    ],
)
def test_until_the_credentials_are_accepted_one_goes_after_the_other(
    fleet: Fleet, outcome: Outcome, trials: int
) -> None:
    """`trials`: of ten that are ready, how many went out alone."""
    ids = fleet.ready(10)
    fleet.adapter.refuse(outcome)
    alone: list[int] = []

    async def everything() -> None:
        fleet.second = asyncio.Event()
        worker = fleet.worker()
        original = fleet.wire.send

        async def watched(request: Request) -> Response | Failure:
            alone.append(len(worker.known._trials))
            return await original(request)

        fleet.wire.send = watched  # type: ignore[method-assign]
        await worker.all(ids)

    asyncio.run(everything())
    assert sum(alone) == trials


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [
        pytest.param(0.0, 1, id="at once: one"),
        pytest.param(0.9, 1, id="within a second: one"),
        pytest.param(1.0, 50, id="after a second: all that wait"),
    ],
)
def test_a_provider_that_hangs_holds_nobody_up_for_long(fleet: Fleet, seconds: float, sent: int) -> None:
    ids = fleet.ready(50)

    async def everything() -> int:
        fleet.hangs, fleet.second = asyncio.Event(), asyncio.Event()
        busy = asyncio.create_task(fleet.worker().all(ids))
        await _settle(lambda: len(fleet.slept) == 49)
        fleet.now += seconds
        if seconds >= PATIENCE:
            fleet.second.set()
        await _settle(lambda: len(fleet.wire.sent) >= sent)
        seen = len(fleet.wire.sent)
        fleet.hangs.set()
        fleet.second.set()
        await busy
        return seen

    assert asyncio.run(everything()) == sent
    assert len(fleet.wire.sent) == 50


def test_who_comes_while_it_hangs_does_not_wait_again(fleet: Fleet) -> None:
    ids = fleet.ready(2)

    async def everything() -> list[str]:
        fleet.hangs, fleet.second = asyncio.Event(), asyncio.Event()
        worker = fleet.worker()
        first = asyncio.create_task(worker.all(ids[:1]))
        await _settle(lambda: len(fleet.wire.sent) == 1)
        fleet.now += 5
        second = asyncio.create_task(worker.all(ids[1:]))
        await _settle(lambda: len(fleet.wire.sent) == 2)
        fleet.hangs.set()
        return await first + await second

    assert asyncio.run(everything()) == ["sent", "sent"]
    assert fleet.slept == []


def test_after_a_suspension_it_begins_with_one_again(fleet: Fleet) -> None:
    ids = fleet.ready(50)
    worker = fleet.worker()
    assert worker.run(ids[0]) == ["sent"]
    fleet.adapter.refuse(WRONG)
    worker.run(ids[1])
    fleet.bench.run(fleet.bench.calls.resume("plain"))
    worker.look()
    before = len(fleet.wire.sent)

    async def everything() -> list[str]:
        fleet.second = asyncio.Event()
        return await worker.all(ids[2:])

    assert asyncio.run(everything()) == ["queued:suspended"] * 48
    assert len(fleet.wire.sent) == before + 1


# -- looks -------------------------------------------------------------------------------------------------------------


def test_the_balance_call_finds_out_that_the_password_is_right(fleet: Fleet) -> None:
    ids = fleet.ready(3)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run(*ids)
    sent = len(fleet.wire.sent)
    assert worker.look() == [], "not yet"
    fleet.wait(MINUTE)
    assert len(worker.look()) == 1, "its balance"
    assert fleet.suspended() == [("account", "LOGIN")]
    fleet.adapter.answers = {}
    fleet.wait(MINUTE)
    assert len(worker.look()) == 1
    assert fleet.suspended() == []
    assert fleet.told() == ["provider.suspended", "provider.resumed"]
    assert fleet.due() == ids, "at once, though they wait for ten minutes"
    assert worker.run(*ids) == ["sent"] * 3
    assert len(fleet.wire.sent) == sent + 2 + 3


def test_one_worker_of_all_looks(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(WRONG)
    workers = [fleet.worker() for _ in range(5)]
    workers[0].run("0000")
    for _ in range(3):
        fleet.wait(MINUTE)
        assert sum(len(one.look()) for one in workers) == 1


def test_one_worker_of_all_looks_though_all_see_at_once_that_it_is_time(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(WRONG)
    workers = [fleet.worker() for _ in range(5)]
    workers[0].run("0000")
    fleet.wait(MINUTE)
    run = fleet.store.run

    async def slow(call: Any) -> Any:
        answer = await run(call)
        await asyncio.sleep(0)
        return answer

    fleet.store.run = slow  # type: ignore[method-assign]

    async def everything() -> None:
        await asyncio.gather(*(one.probes.look() for one in workers))
        await asyncio.gather(*(task for one in workers for task in one.probes._running.values()))

    asyncio.run(everything())
    assert len(fleet.wire.sent) == 2


def test_a_look_asks_for_a_permit_like_any_request(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run("0000")
    fleet.wait(MINUTE)
    fleet.gate.grants = [Later(1)]
    assert worker.look() == []
    fleet.wait(5)
    assert len(worker.look()) == 1, "soon, not only after a minute"
    assert len(fleet.gate.asked) == 3


@pytest.mark.parametrize(
    ("left", "answer", "decided"),
    [
        pytest.param("", balance("0"), "stay", id="nothing"),
        pytest.param("0", balance("-3"), "stay", id="less than nothing"),
        pytest.param("0", balance("5"), "lift", id="something, where there was nothing"),
        pytest.param("2", balance("5"), "lift", id="more than there was"),
        pytest.param("", balance("5"), "try a job", id="something, and nobody knows since when"),
        pytest.param("5", balance("5"), "try a job", id="as much as there was: is it enough?"),
        pytest.param("5", balance("5.00"), "try a job", id="as much as there was, written otherwise"),
        pytest.param("5", balance("2"), "try a job", id="less than there was"),
        pytest.param("0", balance("0", "10"), "lift", id="a credit line counts"),
        pytest.param("0", balance("3", "0"), "stay", id="what is reserved does not"),
        pytest.param("0", Found(result={}), "try a job", id="an answer without an amount"),
        pytest.param("0", failure("ambiguous"), "stay", id="no answer"),
        pytest.param("0", NOT_ALLOWED, "try a job", id="may not ask"),
    ],
)
def test_funds_are_judged_by_what_is_left(left: str, answer: Outcome, decided: Verdict) -> None:
    assert verdict(suspension(FUNDS, left=left), answer) == decided


@pytest.mark.parametrize(
    ("answer", "decided"),
    [
        pytest.param(balance("0"), "lift", id="told, if only that there is nothing"),
        pytest.param(NOT_ALLOWED, "lift", id="known, though not allowed to ask"),
        pytest.param(BROKE, "lift", id="known, though without money"),
        pytest.param(WRONG, "stay", id="refused"),
        pytest.param(failure("not_sent"), "stay", id="not reached"),
        pytest.param(failure("invalid"), "stay", id="not understood"),
    ],
)
def test_credentials_are_judged_by_whether_it_answers_at_all(answer: Outcome, decided: Verdict) -> None:
    assert verdict(suspension(ACCOUNT), answer) == decided


@pytest.mark.parametrize(
    ("scope", "outcome", "mended"),
    [
        (ACCOUNT, Accepted(), True), (FUNDS, Accepted(), True), ("operation:send", Accepted(), True),
        ("operation:verify.check", Checked(verification="1", valid=False, status="pending"), True),
        (ACCOUNT, BROKE, True), (FUNDS, BROKE, False), ("operation:send", BROKE, True),
        (ACCOUNT, NOT_ALLOWED, True), (FUNDS, NOT_ALLOWED, False), ("operation:send", NOT_ALLOWED, False),
        (ACCOUNT, failure("opted_out"), True), (FUNDS, failure("opted_out"), False),
        (ACCOUNT, failure("not_sent"), False), ("operation:send", failure("ambiguous"), False),
        ("operation:send", failure("invalid"), False),
    ],
)  # fmt: skip
def test_what_a_job_that_is_let_through_shows(scope: str, outcome: Outcome, *, mended: bool) -> None:
    assert passed(scope, outcome) is mended


def test_money_that_is_not_enough_lets_one_job_a_minute_find_that_out(fleet: Fleet) -> None:
    """There are five credits left and a text costs more: no lifting and suspending in turn."""
    ids = fleet.ready(20)
    fleet.adapter.answers = {"send": BROKE, "balance": balance("5")}
    worker = fleet.worker()
    worker.run(ids[0])
    worker.run(*ids[1:])
    assert fleet.wire.sent == ["0000"]
    for _ in range(5):
        fleet.wait(MINUTE)
        sent = worker.look()
        assert len(sent) == 2, "the balance, and one text"
        assert sent[1] in ids
    assert fleet.told() == ["provider.suspended"]
    assert {fleet.bench.raw(id_).get("a", "0") for id_ in ids} == {"0"}
    fleet.adapter.answers = {"send": BROKE, "balance": balance("100")}
    fleet.wait(MINUTE)
    assert len(worker.look()) == 1, "there is more than there was: it is lifted"
    assert fleet.told() == ["provider.suspended", "provider.resumed"]


def test_a_job_that_finds_money_lets_the_others_go(fleet: Fleet) -> None:
    ids = fleet.ready(5)
    fleet.adapter.answers = {"send": BROKE}
    worker = fleet.worker()
    worker.run(ids[0])
    worker.run(*ids[1:])
    fleet.adapter.answers = {}
    fleet.wait(MINUTE)
    _, tried = worker.look()
    assert fleet.bench.state(tried) == "sent"
    assert fleet.due() == sorted({*ids} - {tried})
    assert fleet.suspended() == []


def test_with_money_and_nobody_who_waits_the_next_finds_out(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.answers = {"send": BROKE}
    worker = fleet.worker()
    worker.run("0000")
    fleet.bench.advance("0000", "=queued", "cancelled")
    fleet.wait(MINUTE)
    assert len(worker.look()) == 1
    assert fleet.suspended() == []


def test_a_permission_is_tried_by_one_job_every_ten_minutes(fleet: Fleet) -> None:
    ids = fleet.ready(5)
    fleet.adapter.answers = {"send": NOT_ALLOWED}
    worker = fleet.worker()
    worker.run(ids[0])
    worker.run(*ids[1:])
    fleet.wait(10 * MINUTE - 1)
    assert worker.look() == []
    fleet.wait(1)
    assert len(worker.look()) == 1
    assert fleet.suspended() == [("operation:send", "NOT_PERMITTED")]
    assert set(worker.run(*fleet.due())) == {"queued:suspended"}, "the others waited for ten minutes, and wait again"
    assert {fleet.bench.raw(id_)["w"].split(" ")[0] for id_ in ids} == {"suspended"}
    fleet.adapter.answers = {}
    fleet.wait(10 * MINUTE - 1)
    assert worker.look() == []
    fleet.wait(1)
    (tried,) = worker.look()
    assert fleet.bench.state(tried) == "sent"
    assert fleet.suspended() == []
    assert fleet.due() == sorted({*ids} - {tried})


def test_where_nobody_waits_the_first_to_come_is_tried(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.answers = {"send": NOT_ALLOWED}
    worker = fleet.worker()
    worker.run("0000")
    fleet.bench.advance("0000", "=queued", "cancelled")
    fleet.wait(10 * MINUTE)
    assert worker.look() == []
    fleet.enqueue("0001")
    assert worker.run("0001") == ["queued:suspended"]
    fleet.adapter.answers = {}
    fleet.wait(5)
    assert worker.look() == ["0001"]
    assert fleet.suspended() == []


def test_an_account_that_does_not_tell_its_balance_is_tried_by_a_job(fleet: Fleet) -> None:
    fleet.adapter.operations = {name: one for name, one in Vendor.operations.items() if name != "balance"}  # type: ignore[misc]
    ids = fleet.ready(3)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run(*ids)
    fleet.wire.sent.clear()
    fleet.wait(MINUTE)
    assert len(worker.look()) == 1
    assert fleet.suspended() == [("account", "LOGIN")]
    fleet.adapter.answers = {}
    fleet.wait(MINUTE)
    (tried,) = worker.look()
    assert fleet.bench.state(tried) == "sent"
    assert fleet.due() == sorted({*ids} - {tried})


def test_one_that_may_not_be_told_its_balance_is_tried_by_a_job_too(fleet: Fleet) -> None:
    ids = fleet.ready(2)
    worker = fleet.worker()
    fleet.enqueue("9999", BALANCE, "balance")
    fleet.adapter.answers = {"balance": NOT_ALLOWED, "send": WRONG}
    worker.run("9999")
    worker.run(*ids)
    assert fleet.suspended() == [("account", "LOGIN"), ("operation:balance", "NOT_PERMITTED")]
    fleet.adapter.answers = {"balance": NOT_ALLOWED}
    fleet.wait(MINUTE)
    (tried,) = worker.look()
    assert tried in ids
    assert fleet.suspended() == [("operation:balance", "NOT_PERMITTED")]


def test_funds_of_an_account_whose_password_is_refused_are_not_asked_for(fleet: Fleet) -> None:
    fleet.ready(1)
    worker = fleet.worker()
    fleet.adapter.answers = {"send": BROKE, "balance": WRONG}
    worker.run("0000")
    fleet.enqueue("0001", BALANCE, "balance")
    worker.run("0001")
    assert {scope for scope, _ in fleet.suspended()} == {"account", "funds"}
    fleet.wait(MINUTE)
    assert len(worker.look()) == 1


def test_a_slow_look_does_not_hold_the_clock_up(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run("0000")
    fleet.wait(MINUTE)

    async def everything() -> None:
        fleet.hangs = asyncio.Event()
        await worker.probes.look()
        await _settle(lambda: len(fleet.wire.sent) == 2)
        fleet.wait(MINUTE)
        await worker.probes.look()
        assert len(fleet.wire.sent) == 2, "and is not begun twice"
        await worker.probes.close()

    asyncio.run(everything())


def test_a_worker_that_stops_brings_the_job_that_it_tries_to_its_end(fleet: Fleet) -> None:
    fleet.ready(1)
    fleet.adapter.answers = {"send": NOT_ALLOWED}
    worker = fleet.worker()
    worker.run("0000")
    fleet.adapter.answers = {}
    fleet.wait(10 * MINUTE)

    async def everything() -> None:
        fleet.hangs = asyncio.Event()
        await worker.probes.look()
        await _settle(lambda: len(fleet.wire.sent) == 2)
        closing = asyncio.create_task(worker.probes.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        fleet.hangs.set()
        await closing

    asyncio.run(everything())
    assert fleet.bench.state(fleet.wire.sent[-1]) == "sent"


def test_a_look_that_breaks_is_made_again(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.ready(1)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run("0000")
    fleet.wait(MINUTE)
    fleet.gate.grants = [lambda: _raise(RuntimeError(f"canary {NUMBER}"))]
    assert worker.look() == []
    assert "looking after plain stumbled: RuntimeError" in caplog.text
    assert not leaks(caplog.text, NUMBER, "canary")
    fleet.adapter.answers = {}
    fleet.wait(MINUTE)
    worker.look()
    assert fleet.suspended() == []


# -- letting go --------------------------------------------------------------------------------------------------------


def test_what_waits_for_other_things_is_left_alone(fleet: Fleet) -> None:
    ids = fleet.ready(3)
    fleet.enqueue("later", due=fleet.clock.ms + 3_600_000)
    fleet.enqueue("slow")
    fleet.gate.grants = [Later(300, own=True)]
    worker = fleet.worker()
    assert worker.run("slow") == ["queued:limit"]
    fleet.adapter.refuse(WRONG)
    worker.run(*ids)
    with _application(fleet) as application:
        application.resume("plain")
    assert fleet.due() == ids
    assert fleet.bench.members("d:w:plain") == {"later", "slow"}


def test_thousands_are_let_go_in_portions(fleet: Fleet) -> None:
    """No call holds Redis up for long, however many there are."""
    # All of them may be with the workers at once.
    fleet.bench.redis.hset("d:qw:plain", "n", 1000)
    ids = fleet.ready(700)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    asyncio.run(worker.execution.execute(ids, "plain"))
    portions: list[int] = []
    run = fleet.bench.store.run

    def counted(call: Any) -> Any:
        answer = run(call)
        if call.script.name == "free":
            portions.append(len(answer[1]))
        return answer

    with _application(fleet) as application:
        application._store.run = counted  # type: ignore[method-assign]
        application.resume("plain")
    assert sum(portions) == 700
    assert max(portions) <= 500
    assert sorted(fleet.due() + fleet.due()) == ids


def test_a_lifted_suspension_holds_nobody_who_is_parked_for_it_a_moment_later(fleet: Fleet) -> None:
    """A worker that has not heard of it yet parks its job when all that waited are gone already."""
    fleet.ready(2)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run("0000")
    fleet.bench.run(fleet.bench.calls.resume("plain"))
    assert worker.run("0001") == ["queued:suspended"]
    assert fleet.due() == ["0001"]


def test_high_and_normal_lane_are_let_go(fleet: Fleet) -> None:
    fleet.enqueue("0001")
    fleet.enqueue("0002", high=True)
    fleet.adapter.refuse(WRONG)
    worker = fleet.worker()
    worker.run("0001")
    worker.run("0002")
    fleet.adapter.answers = {}
    fleet.wait(MINUTE)
    worker.look()
    assert fleet.due() == ["0001", "0002"]


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "lifted", "left"),
    [
        (None, ["account", "funds", "operation:lookup"], []),
        ("account", ["account"], ["funds", "operation:lookup"]),
        ("operation:lookup", ["operation:lookup"], ["account", "funds"]),
        ("operation:send", [], ["account", "funds", "operation:lookup"]),
    ],
)
def test_an_operator_lifts_all_or_one(fleet: Fleet, scope: str | None, lifted: list[str], left: list[str]) -> None:
    for one, refused in (("account", WRONG), ("funds", BROKE), ("operation:lookup", NOT_ALLOWED)):
        fleet.bench.run(fleet.bench.calls.suspend("plain", one, refused, ()))
    with _application(fleet) as application:
        assert sorted(one.scope for one in application.resume("plain", scope)) == lifted
        assert [one.scope for one in application.suspensions()] == left
    assert fleet.told() == ["provider.suspended"] * 3 + ["provider.resumed"] * len(lifted)


def test_another_account_is_not_touched(fleet: Fleet) -> None:
    for account in ("plain", "other"):
        fleet.bench.run(fleet.bench.calls.suspend(account, ACCOUNT, WRONG, ()))
    with _application(fleet) as application:
        assert [one.provider for one in application.resume("other")] == ["other"]
        assert application.resume("nobody") == []
    assert fleet.suspended() == [("account", "LOGIN")]


@pytest.mark.parametrize("scope", ["", "send", "operation:", "accounts"])
def test_a_scope_that_is_none_is_refused(fleet: Fleet, scope: str) -> None:
    with _application(fleet) as application, pytest.raises(InvalidRequest, match="account, funds or operation:NAME"):
        application.resume("plain", scope)


# -- how it is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (ACCOUNT, ["its credentials are refused", "(X: no)", "resume plain"]),
        (FUNDS, ["no money", "top it up"]),
        ("operation:send", ["may not do send", "have the provider allow it"]),
    ],
)
def test_it_is_shown_with_why_and_the_way_out(scope: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    print_suspensions([suspension(scope)])
    shown = " ".join(capsys.readouterr().out.split())
    assert [word for word in words if word not in shown] == []
    assert "since 2027-01-15 08:00:00 UTC" in shown


def test_doctor_reads_it(bench: Bench) -> None:
    bench.run(bench.calls.suspend("plain", FUNDS, BROKE, ["send", "lookup"]))
    (one,) = _suspended(bench.redis, [b"plain", b"other"])
    assert (one.provider, one.scope, one.operations, one.code) == ("plain", "funds", ("lookup", "send"), "NO_CREDIT")


def test_its_times_are_redis_own(bench: Bench) -> None:
    now = bench.clock.ms
    _, account = bench.run(bench.calls.suspend("plain", ACCOUNT, WRONG, ()))
    _, one = bench.run(bench.calls.suspend("plain", "operation:send", NOT_ALLOWED, ["send"]))
    assert [round(at.timestamp() * 1000) - now for at in (account.since, account.probe_at)] == [0, 60_000]
    assert [round(at.timestamp() * 1000) - now for at in (one.since, one.probe_at)] == [0, 600_000]


def test_suspended_again_it_is_as_it_was(bench: Bench) -> None:
    _, first = bench.run(bench.calls.suspend("plain", ACCOUNT, WRONG, ()))
    bench.clock.advance(30)
    new, again = bench.run(bench.calls.suspend("plain", ACCOUNT, failure("unauthorized", "OTHER"), ()))
    assert (new, again) == (False, first)


@pytest.mark.parametrize(
    ("outcome", "left"),
    [(balance("5", "10"), "10"), (balance("5"), "5"), (balance("NaN"), None), (Accepted(), None), (WRONG, None)],
)
def test_what_can_be_spent(outcome: Outcome, left: str | None) -> None:
    assert (None if (told := spendable(outcome)) is None else str(told)) == left


def suspension(scope: str, **told: Any) -> Suspension:
    stored = {"scope": scope, "since": "1800000000000", "next": "1800000060000", "kind": "unauthorized"}
    raw = msgspec.json.encode({**stored, "code": "X", "message": "no", **told})
    return suspensions.read("plain", raw)


def _raise(error: Exception) -> Any:
    raise error


@contextmanager
def _application(fleet: Fleet) -> Iterator[Dispatcher]:
    with Dispatcher(fleet.bench.settings) as one:
        one._store.redis = fleet.bench.redis
        yield one


async def _settle(there: Callable[[], bool]) -> None:
    """Let all others go on until that is true, and a little longer."""
    async with asyncio.timeout(30):
        while not there():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0)
