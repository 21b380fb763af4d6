"""The way of a job through a worker, step by step, with doubles for all that is outside and a Redis in memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest

from dispatcher import Dispatcher, records
from dispatcher.accounts import KEY
from dispatcher.calls import Advance, Call, script
from dispatcher.client import Check
from dispatcher.errors import NotFound, StoreUnavailable, WaitTimeout
from dispatcher.jobs import Category, Kind, Lookup, Send, Terms, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Request as JobRequest
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from dispatcher.privacy import Sealer
from dispatcher.states import State
from tests.unit.memory_limiter import MemoryLimiter
from tests.unit.support import NUMBER, OTHER, TEXT, AsyncOnSync, Bench, Clock, leaks
from workers.adapters import described
from workers.execute import Execution, summary
from workers.limits import Grant, Later, Permit, Reason
from workers.providers.base import (
    Adapter,
    Argument,
    Capabilities,
    Group,
    Operation,
    Plan,
    Request,
    Response,
    grouped,
)

T = TypeVar("T")

OK = Response(status=200)
LEASE = 60


class Plain(Adapter):
    """A provider that takes two jobs at a time and answers what the test says."""

    name = "plain"
    base_url = "https://plain.invalid"
    capabilities = Capabilities(recipients=2, receipts="push", verification="provider checks")
    operations: ClassVar = {
        "send": Operation(about="Send."),
        "verify": Operation(about="Send a code."),
        "lookup": Operation(about="Look up.", repeat="once"),
        "balance": Operation(about="Read the balance.", repeat="always"),
        "verify.check": Operation(
            about="Judge a code.",
            arguments={
                "verification": Argument(about="ours"), "ref": Argument(about="the vendor's"),
                "code": Argument(about="the code"),
            },
        ),
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__("plain", {})
        #: By job id; a job that is not here was taken.
        self.outcomes: dict[str, Outcome] = {}
        #: Ids that cannot be built, and how often they can before.
        self.breaks: dict[str, int] = {}
        #: What `parse` does instead.
        self.parses: Callable[[], Any] | None = None

    def build(self, jobs: Sequence[Work]) -> Plan:
        for job in jobs:
            if job.id in self.breaks:
                self.breaks[job.id] -= 1
                if self.breaks[job.id] < 0:
                    raise KeyError(f"canary {NUMBER}")
        refused = {job.id: failure for job in jobs if (failure := self.validate(job))}
        ready = [job for job in jobs if job.id not in refused]
        groups = grouped(ready, lambda job: (job.operation, getattr(job.request, "text", job.id)), 2)
        return Plan(groups=tuple(self._group(members) for members in groups), refused=refused)

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        if self.parses is not None:
            told: dict[str, Outcome] = self.parses()
            return told
        return {job.id: self.outcomes.get(job.id, Accepted()) for job in group.jobs}

    def _group(self, jobs: tuple[Work, ...]) -> Group:
        body = " ".join(job.id for job in jobs).encode()
        request = Request(method="POST", url="https://plain.invalid/", body=body)
        return Group(request=request, jobs=jobs, cost={"post": 1})


class Wire:
    """A transport that notes what it is to send and answers what it was told."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.answers: list[Response | Failure | Callable[[], Response | Failure]] = []
        self.most = self._now = 0

    async def send(self, request: Request) -> Response | Failure:
        self.sent.append(request.body.decode())
        answer = self.answers.pop(0) if self.answers else OK
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        return answer() if callable(answer) else answer


class Gate:
    """A limiter that grants what it was told, and everything afterwards."""

    def __init__(self, *grants: Grant | Callable[[], Grant]) -> None:
        self.grants = list(grants)
        self.asked: list[str] = []
        self.learnt: list[tuple[Permit, dict[str, Outcome]]] = []

    async def acquire(self, account: str, group: Group) -> Grant:
        self.asked.append(f"{account}: {group.request.body.decode()} {group.cost}")
        grant = self.grants.pop(0) if self.grants else Permit()
        return grant() if callable(grant) else grant

    def learn(self, account: str, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> None:
        self.learnt.append((permit, dict(outcomes)))


class Flaky(AsyncOnSync):
    """A store whose Redis goes away: `fails` counts by script how many calls of it fail before one gets through."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.store)
        self.fails: dict[str, int] = {}
        self.called: list[str] = []

    async def run(self, call: Call[T]) -> T:
        for name, left in self.fails.items():
            if call.script == script(name) and left:
                self.fails[name] -= 1
                self.called.append(name)
                raise StoreUnavailable("Redis is away")
        return await super().run(call)


class Road:
    """A worker with everything it is handed."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        self.clock = clock
        self.bench = Bench(clock, **settings)
        self.adapter = Plain()
        self.wire = Wire()
        self.gate = Gate()
        self.store = Flaky(self.bench)
        self.published: list[tuple[str, list[str]]] = []
        self.slept: list[float] = []
        #: Seconds on the process' own clock.
        self.now = 100.0
        self.bench.redis.hset(KEY, "plain", msgspec.json.encode(described(self.adapter, sandbox=False)))

    def execution(self, **other: Any) -> Execution:
        adapters = {"plain": self.adapter}
        return Execution(
            self.bench.settings, adapters, self.store, self.gate, self.wire,
            **{"publish": self.publish, "chance": lambda: 0.5, "sleep": self.sleep, "clock": lambda: self.now} | other,
        )  # fmt: skip

    async def publish(self, queue: str, ids: list[str]) -> None:
        self.published.append((queue, ids))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def run(self, *ids: str) -> str:
        """Let a worker that has just started execute a message."""
        return asyncio.run(self.execution().execute(ids, "plain"))

    def enqueue(self, id_: str, request: JobRequest | None = None, operation: str = "", **told: Any) -> None:
        """A job of `plain`: a send unless a request is given; `terms` and a record's fields may be told."""
        request = request or Send(to=NUMBER, text=TEXT)
        operation = operation or records.kind_of(request).value
        terms = told.pop("terms", Terms())
        fields: dict[str, Any] = {
            "public": records.encode_public(request, terms, operation, sandbox=False),
            "private": self.bench.settings.sealer().seal(records.encode_request(request), id_),
            "code_ttl": terms.code_ttl * 1000 if terms.code_ttl else None,
        }
        self.bench.create(id_, provider="plain", **fields | told)

    def again(self, id_: str, word: str) -> str:
        """Wait until a job that waits is due, and execute it."""
        assert word.startswith("queued:")
        _, until = self.bench.raw(id_)["w"].split(" ")
        self.clock.ms = int(until)
        assert [*self.bench.due("plain"), *self.bench.deal("plain")["plain"]] == [id_]
        return self.run(id_)


@pytest.fixture
def road(clock: Clock) -> Road:
    return Road(clock)


def failure(kind: str, code: str = "X", message: str = "no", retry_after: float | None = None) -> Failure:
    return Failure(kind=FailureKind(kind), code=code, message=message, retry_after=retry_after)


# -- the whole road ----------------------------------------------------------------------------------------------------


def test_a_job_is_taken_permitted_claimed_sent_and_its_outcome_written(road: Road) -> None:
    road.enqueue("0001")
    road.adapter.outcomes = {"0001": Accepted(ref="7", price="0.0055 USD")}
    assert road.run("0001") == "sent"
    assert road.wire.sent == ["0001"]
    assert road.gate.asked == ["plain: 0001 {'post': 1}"]
    assert road.bench.story("0001") == ["queued: created", "sending: attempt 1", "sent: accepted by the provider"]
    raw = road.bench.raw("0001")
    assert (raw["m"], raw["c"], raw["y"], raw["a"]) == ("7", "0.0055 USD", "expected", "1")
    assert raw["t"] == f"{road.clock.ms} plain accepted 7"


def test_jobs_that_fit_together_travel_together(road: Road) -> None:
    road.enqueue("0001")
    road.enqueue("0002", Send(to=OTHER, text=TEXT))
    road.enqueue("0003", Send(to=OTHER, text="Another"))
    assert road.run("0001", "0002", "0003") == "3 sent"
    assert sorted(road.wire.sent) == ["0001 0002", "0003"]


class Watched(AsyncOnSync):
    """A store that counts its calls by script, and holds up a claim of the job `held` until it is let go."""

    def __init__(self, bench: Bench, held: str = "") -> None:
        super().__init__(bench.store)
        self.held, self.is_held, self.let_go = held, asyncio.Event(), asyncio.Event()
        self.calls: Counter[str] = Counter()

    async def run(self, call: Call[T]) -> T:
        self.calls[call.script.name] += 1
        if call.script.name == "claim" and self.held and self.held in call.arguments:
            self.is_held.set()
            await self.let_go.wait()
        return await super().run(call)


def test_messages_that_come_together_share_each_call_and_each_has_its_own_answer(road: Road) -> None:
    for id_ in ("0000", "0001", "0002"):
        road.enqueue(id_)

    def taken_back() -> Permit:
        assert road.bench.advance("0002", "=queued", "cancelled") == "cancelled"
        return Permit()

    road.gate.grants = [Permit(), taken_back]
    road.store = store = Watched(road.bench)  # type: ignore[assignment]  # it fails never

    async def play() -> list[str]:
        worker = road.execution()
        # Once its credentials are known to be right: until then requests go one by one.
        await worker.execute(["0000"], "plain")
        store.calls.clear()
        return await asyncio.gather(*(worker.execute([id_], "plain") for id_ in ("0001", "0002")))

    assert asyncio.run(play()) == ["sent", "cancelled"]
    assert road.wire.sent == ["0000", "0001"]
    assert (store.calls["take"], store.calls["claim"], store.calls["advance"]) == (1, 1, 1)


def test_a_code_waits_for_no_call_of_a_campaign(road: Road) -> None:
    road.enqueue("0001")
    road.enqueue("0002", high=True)
    road.store = store = Watched(road.bench, held="0001")  # type: ignore[assignment]  # it fails never

    async def play() -> str:
        worker = road.execution()
        campaign = asyncio.create_task(worker.execute(["0001"], "plain"))
        await store.is_held.wait()
        async with asyncio.timeout(10):
            word = await worker.execute(["0002"], "plain.high")
        assert road.wire.sent == ["0002"]
        store.let_go.set()
        return f"{word}, {await campaign}"

    assert asyncio.run(play()) == "sent, sent"


def test_two_jobs_to_one_number_do_not_travel_together(road: Road) -> None:
    road.enqueue("0001")
    road.enqueue("0002")
    road.run("0001", "0002")
    assert road.wire.sent == ["0001", "0002"]


def test_the_intent_is_durable_before_a_byte_leaves(road: Road) -> None:
    seen: list[str] = []

    def look() -> Response:
        seen.append(road.bench.state("0001"))
        seen.append(str(road.bench.members("d:l")))
        return OK

    road.wire.answers = [look]
    road.enqueue("0001")
    road.run("0001")
    assert seen == ["sending", "{'0001'}"]


def test_nothing_is_claimed_before_it_is_permitted(road: Road) -> None:
    """What waits for a permit is no attempt, and no dead worker's lease."""
    seen: list[str] = []

    def look() -> Grant:
        seen.append(road.bench.state("0001"))
        return Permit()

    road.gate.grants = [look]
    road.enqueue("0001")
    road.run("0001")
    assert seen == ["queued"]


def test_one_request_can_go_well_for_some_and_badly_for_others(road: Road) -> None:
    road.enqueue("0001")
    road.enqueue("0002", Send(to=OTHER, text=TEXT))
    road.adapter.outcomes = {"0002": failure("not_sent", "SEND_FAILURE")}
    assert road.run("0001", "0002") == "1 sent, 1 queued:retry"
    assert (road.bench.state("0001"), road.bench.state("0002")) == ("sent", "queued")
    assert road.again("0002", "queued:retry") == "queued:retry"
    assert road.wire.sent == ["0001 0002", "0002"], "only the number that failed is tried again"


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_a_message_published_three_times_sends_once(road: Road, at_once: bool) -> None:
    road.enqueue("0001")
    if at_once:

        async def everywhere() -> list[str]:
            return await asyncio.gather(*(road.execution().execute(["0001"], "plain") for _ in range(3)))

        words = asyncio.run(everywhere())
    else:
        words = [road.run("0001") for _ in range(3)]
    assert road.wire.sent == ["0001"]
    assert words.count("sent") >= 1


def test_a_message_naming_a_job_twice_sends_it_once(road: Road) -> None:
    road.enqueue("0001")
    road.run("0001", "0001")
    assert road.wire.sent == ["0001"]


def test_there_is_nothing_to_do_for_jobs_that_are_done_or_gone(road: Road) -> None:
    road.enqueue("0001")
    road.bench.advance("0001", "=queued", "cancelled")
    assert road.run("0001", "gone") == "1 cancelled, 1 gone"
    assert road.wire.sent == road.gate.asked == []


# -- permits -----------------------------------------------------------------------------------------------------------


def test_what_is_not_granted_waits_in_redis_and_spends_no_attempt(road: Road) -> None:
    road.gate.grants = [Later(5)]
    road.enqueue("0001")
    assert road.run("0001") == "queued:limit"
    assert road.wire.sent == []
    assert road.bench.raw("0001")["w"] == f"limit {road.clock.ms + 5000}"
    assert "a" not in road.bench.raw("0001")
    assert road.slept == [], "no worker's slot is held meanwhile"


def test_waiting_for_the_limit_again_and_again_is_told_once(road: Road) -> None:
    road.gate.grants = [Later(5), Later(5), Later(5)]
    road.enqueue("0001")
    word = road.run("0001")
    for _ in range(2):
        word = road.again("0001", word)
    assert road.again("0001", word) == "sent"
    assert road.bench.story("0001") == [
        "queued: created", "queued: waits for limit", "sending: attempt 1", "sent: accepted by the provider",
    ]  # fmt: skip


@pytest.mark.parametrize("reason", ["limit", "breaker", "suspended"])
def test_the_limiter_says_what_is_waited_for(road: Road, reason: Reason) -> None:
    road.gate.grants = [Later(5, reason)]
    road.enqueue("0001")
    assert road.run("0001") == f"queued:{reason}"
    assert road.bench.raw("0001")["w"].startswith(reason)


def test_of_a_group_that_is_not_granted_all_wait(road: Road) -> None:
    road.gate.grants = [Later(5)]
    road.enqueue("0001")
    road.enqueue("0002", Send(to=OTHER, text=TEXT))
    assert road.run("0001", "0002") == "2 queued:limit"


def test_a_permit_that_is_near_is_waited_for(road: Road) -> None:
    road.gate.grants = [Permit(0.3)]
    road.enqueue("0001")
    assert road.run("0001") == "sent"
    assert road.slept == [0.3]


@pytest.mark.parametrize(
    ("slept", "asked"),
    [
        pytest.param(0.3, 1, id="in time"),
        pytest.param(1.29, 1, id="just within a second of its slot"),
        pytest.param(1.31, 2, id="too late"),
        pytest.param(60.0, 2, id="the laptop was closed"),
    ],
)
def test_a_permit_unused_a_second_after_its_slot_is_void(road: Road, slept: float, asked: int) -> None:
    """Using it then would put two slots into one window."""

    async def sleep(seconds: float) -> None:
        road.now += slept

    road.gate.grants = [Permit(0.3)]
    road.enqueue("0001")
    assert asyncio.run(road.execution(sleep=sleep).execute(["0001"], "plain")) == "sent"
    assert len(road.gate.asked) == asked
    assert road.wire.sent == ["0001"]


def test_a_permit_that_took_too_long_to_arrive_is_void_too(road: Road) -> None:
    def slow() -> Grant:
        road.now += 2
        return Permit()

    road.gate.grants = [slow]
    road.enqueue("0001")
    road.run("0001")
    assert len(road.gate.asked) == 2


def test_of_a_process_frozen_with_its_claim_nothing_goes_out_late(road: Road) -> None:
    """It woke with a permit whose moment has long passed: its job goes back, and no attempt is spent."""
    run = road.store.run

    async def frozen(call: Call[T]) -> T:
        answer = await run(call)
        if call.script == script("claim") and not road.wire.sent and road.now == 100:
            road.now += 10
        return answer

    road.store.run = frozen  # type: ignore[method-assign]
    road.enqueue("0001")
    assert road.run("0001") == "queued:retry"
    assert road.wire.sent == []
    assert road.bench.raw("0001")["a"] == "0"
    (told,) = road.gate.learnt
    assert told[1] == {}, "its lease goes back, and the breaker hears nothing"
    assert road.again("0001", "queued:retry") == "sent"


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        pytest.param(Accepted(), "sent", id="taken"),
        pytest.param(failure("invalid"), "failed:invalid", id="refused"),
        pytest.param(failure("ambiguous"), "unknown", id="nobody knows"),
        pytest.param(failure("throttled"), "queued:limit", id="too fast"),
    ],
)
def test_the_limiter_learns_how_each_request_ended(road: Road, outcome: Outcome, word: str) -> None:
    road.gate.grants = [Permit(0.0, "the permit")]
    road.adapter.outcomes = {"0001": outcome}
    road.enqueue("0001")
    assert road.run("0001") == word
    assert road.gate.learnt == [(Permit(0.0, "the permit"), {"0001": outcome})]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        pytest.param(29.0, ["0001"], id="a slow provider"),
        pytest.param(300.0, [], id="a process that was frozen"),
    ],
)
def test_what_a_frozen_process_missed_is_not_held_against_the_provider(
    road: Road, seconds: float, told: list[str]
) -> None:
    def late() -> Failure:
        road.now += seconds
        return failure("ambiguous", "deadline")

    road.wire.answers = [late]
    road.enqueue("0001")
    assert road.run("0001") == "unknown"
    (learnt,) = road.gate.learnt
    assert [*learnt[1]] == told


@pytest.mark.parametrize("why", ["cancelled meanwhile", "Redis is away", "void"])
def test_a_permit_that_is_not_used_is_given_back(road: Road, why: str) -> None:
    def taken_back() -> Grant:
        if why == "cancelled meanwhile":
            move = Advance(id="0001", guard="=queued", state=State.CANCELLED, detail="taken back")
            road.bench.run(road.bench.calls.advance([move]))
        elif why == "Redis is away":
            road.store.fails["claim"] = 1
        else:
            road.now += 5
        return Permit(0.0, "the permit")

    road.gate.grants = [taken_back]
    road.enqueue("0001")
    road.run("0001")
    assert road.gate.learnt[0] == (Permit(0.0, "the permit"), {})


def test_no_more_is_on_the_wire_than_there_are_connections(clock: Clock) -> None:
    road = Road(clock, connections=3)
    ids = [f"{number:04}" for number in range(20)]
    for id_ in ids:
        road.enqueue(id_, Send(to=NUMBER, text=f"Hi {id_}"))

    async def everything() -> list[str]:
        execution = road.execution()
        return await asyncio.gather(*(execution.execute([id_], "plain") for id_ in ids))

    assert asyncio.run(everything()) == ["sent"] * 20
    assert 1 < road.wire.most <= 3


def test_codes_pass_a_campaign_that_fills_the_worker(clock: Clock) -> None:
    """Some places are the high lane's alone."""
    road = Road(clock, connections=8)
    campaign = [f"{number:04}" for number in range(30)]
    for id_ in campaign:
        road.enqueue(id_, Send(to=NUMBER, text=f"Hi {id_}"))
    road.enqueue("code", high=True)

    async def everything() -> None:
        stuck = asyncio.Event()
        original = road.wire.send

        async def slow(request: Request) -> Response | Failure:
            answer = await original(request)
            if request.body != b"code":
                await stuck.wait()
            return answer

        road.wire.send = slow  # type: ignore[method-assign]
        execution = road.execution()
        busy = [asyncio.create_task(execution.execute([id_], "plain")) for id_ in campaign]
        async with asyncio.timeout(10):
            while len(road.wire.sent) < 7:  # noqa: ASYNC110 - the wire sets no event
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert len(road.wire.sent) == 7
        async with asyncio.timeout(5):
            assert await execution.execute(["code"], "plain.high") == "sent"
        stuck.set()
        await asyncio.gather(*busy)

    asyncio.run(everything())
    assert len(road.wire.sent) == 31


def test_an_account_without_limits_is_granted_everything_at_once(road: Road) -> None:
    job = Work(id="0001", provider="plain", kind=Kind.SEND, operation="send", request=Send(to=NUMBER, text=TEXT))
    (group,) = road.adapter.build([job]).groups
    limiter = MemoryLimiter(road.bench.settings, {"plain": road.adapter})
    grants = [asyncio.run(limiter.acquire("plain", group)) for _ in range(1000)]
    assert {one.wait for one in grants if isinstance(one, Permit)} == {0}
    assert not any(isinstance(one, Later) for one in grants)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_what_is_not_ours_any_more_is_left_out_of_the_request(road: Road) -> None:
    """The others' request is built anew: a number that was cancelled must not be in it."""

    def meanwhile() -> Grant:
        road.bench.advance("0001", "=queued", "cancelled")
        return Permit()

    road.gate.grants = [meanwhile]
    road.enqueue("0001")
    road.enqueue("0002", Send(to=OTHER, text=TEXT))
    assert road.run("0001", "0002") == "1 cancelled, 1 sent"
    assert road.wire.sent == ["0002"]


def test_where_nothing_is_ours_any_more_nothing_is_sent(road: Road) -> None:
    def meanwhile() -> Grant:
        road.bench.advance("0001", "=queued", "cancelled")
        return Permit()

    road.gate.grants = [meanwhile]
    road.enqueue("0001")
    assert road.run("0001") == "cancelled"
    assert road.wire.sent == []


def test_what_became_useless_while_it_waited_is_not_sent(road: Road) -> None:
    def meanwhile() -> Grant:
        road.clock.advance(11)
        return Permit()

    road.gate.grants = [meanwhile]
    road.enqueue("0001", valid_for=10_000)
    assert road.run("0001") == "expired"
    assert road.wire.sent == []


def test_a_worker_that_slept_over_its_claim_sends_nothing(road: Road) -> None:
    """Its lease could end, and the job be told unknown, before the answer is here."""
    slow = road.store.run

    async def sleeps(call: Call[T]) -> T:
        answer = await slow(call)
        if call.script == script("claim"):
            road.now += 31
        return answer

    road.store.run = sleeps  # type: ignore[method-assign]
    road.enqueue("0001")
    assert road.run("0001") == "queued:retry"
    assert road.wire.sent == []
    assert road.bench.raw("0001")["a"] == "0"
    assert road.again("0001", "queued:retry") == "queued:retry"


def test_a_claim_that_may_have_been_made_is_put_back(road: Road) -> None:
    """Redis was away: whether it heard of the claim is not known, and surely nothing was sent."""
    heard = road.store.run

    async def lost(call: Call[T]) -> T:
        answer = await heard(call)
        if call.script == script("claim"):
            raise StoreUnavailable("the answer was lost")
        return answer

    road.store.run = lost  # type: ignore[method-assign]
    road.enqueue("0001")
    assert road.run("0001") == "queued"
    assert road.wire.sent == []
    assert (road.bench.state("0001"), road.bench.raw("0001")["a"]) == ("queued", "0")


def test_a_worker_that_stops_leaves_a_message_to_others(road: Road) -> None:
    road.enqueue("0001")
    road.enqueue("0002")
    execution = road.execution()
    execution.stop()
    assert asyncio.run(execution.execute(["0001", "0002"], "plain")) == "2 queued"
    assert road.wire.sent == []
    assert road.published == [("plain", ["0001", "0002"])]
    assert road.run("0001", "0002") == "2 sent", "another worker has them at once, and suspects nothing"


def test_a_worker_that_stops_hands_back_what_it_has_not_claimed(clock: Clock) -> None:
    """What is on the wire is brought to its end; what waits for a connection goes back to its own lane."""
    road = Road(clock, connections=2)
    road.enqueue("0001", Send(to=NUMBER, text="Hi"))
    road.enqueue("0002", Send(to=NUMBER, text="Hi again"))
    road.enqueue("0003", Send(to=NUMBER, text="Hi, urgently"), high=True)
    road.enqueue("0000")
    execution = road.execution()
    assert asyncio.run(execution.execute(["0000"], "plain")) == "sent", "so that its credentials are known to be right"

    def stop() -> Response:
        execution.stop()
        return OK

    road.wire.answers = [stop]
    assert asyncio.run(execution.execute(["0001", "0002", "0003"], "plain")) == "2 sent, 1 queued"
    assert sorted(road.wire.sent) == ["0000", "0001", "0003"]
    assert road.published == [("plain", ["0002"])]
    assert road.run("0002") == "sent"


def test_a_message_that_waits_for_room_is_not_taken_for_lost(clock: Clock) -> None:
    """Its jobs are in a live worker's hands, though not taken yet: it says so while it waits."""
    road = Road(clock, connections=1, lost_after=0.03)
    ids = [f"{number:04}" for number in range(5)]
    for id_ in ids:
        road.enqueue(id_, Send(to=NUMBER, text=f"Hi {id_}"))

    async def everything() -> list[str]:
        stuck = asyncio.Event()
        original = road.wire.send

        async def slow(request: Request) -> Response | Failure:
            await stuck.wait()
            return await original(request)

        road.wire.send = slow  # type: ignore[method-assign]
        execution = road.execution()
        busy = [asyncio.create_task(execution.execute([id_], "plain")) for id_ in ids]
        await asyncio.sleep(0)
        road.clock.advance(0.5)
        await asyncio.sleep(0.05)
        lost = road.bench.lost("plain", empty=True)
        stuck.set()
        await asyncio.gather(*busy)
        return lost

    assert asyncio.run(everything()) == []
    assert sorted(road.wire.sent) == ids


@pytest.mark.parametrize(
    ("request_", "operation", "repeat"),
    [(Send(to=NUMBER, text=TEXT), "send", "never"), (Lookup(to=NUMBER), "lookup", "once"),
     (OperationRequest(), "balance", "always")],
)  # fmt: skip
def test_a_claim_says_whether_the_job_may_be_repeated_when_we_die(
    road: Road, request_: JobRequest, operation: str, repeat: str
) -> None:
    seen: list[str] = []

    def look() -> Response:
        seen.append(road.bench.raw("0001").get("o", "never"))
        return OK

    road.wire.answers = [look]
    road.enqueue("0001", request_, operation)
    road.run("0001")
    assert seen == [repeat]


# -- outcomes ----------------------------------------------------------------------------------------------------------

SEND, LOOKUP, BALANCE = Send(to=NUMBER, text=TEXT), Lookup(to=NUMBER), OperationRequest()


@pytest.mark.parametrize(
    ("request_", "operation", "outcome", "word", "story"),
    [
        pytest.param(SEND, "send", Accepted(), "sent", "sent: accepted by the provider", id="taken"),
        pytest.param(LOOKUP, "lookup", Found(result={}), "completed", "completed: answered", id="answered"),
        pytest.param(
            SEND, "send", failure("invalid", "INVALID_MSISDN"), "failed:invalid",
            "failed: invalid INVALID_MSISDN: no", id="refused",
        ),
        pytest.param(
            SEND, "send", failure("opted_out"), "failed:opted_out", "failed: opted_out X: no", id="opted out"
        ),
        pytest.param(
            SEND, "send", failure("not_sent"), "queued:retry",
            "queued: not_sent X: no; attempt 2 in 2.0 s", id="not sent",
        ),
        pytest.param(SEND, "send", failure("ambiguous"), "unknown", "unknown: ambiguous X: no", id="a send in doubt"),
        pytest.param(
            LOOKUP, "lookup", failure("ambiguous"), "queued:retry",
            "queued: ambiguous X: no; attempt 2 in 2.0 s", id="a lookup in doubt",
        ),
        pytest.param(
            BALANCE, "balance", failure("ambiguous"), "queued:retry",
            "queued: ambiguous X: no; attempt 2 in 2.0 s", id="a read in doubt",
        ),
        pytest.param(
            SEND, "send", failure("throttled", retry_after=30), "queued:limit",
            "queued: throttled X: no; waits 30.0 s, no attempt spent", id="too fast",
        ),
        pytest.param(
            SEND, "send", failure("unauthorized"), "queued:suspended",
            "queued: unauthorized X: no; waits until that is mended, no attempt spent", id="bad credentials",
        ),
        pytest.param(
            SEND, "send", failure("insufficient_funds"), "queued:suspended",
            "queued: insufficient_funds X: no; waits until that is mended, no attempt spent", id="no money",
        ),
        pytest.param(
            SEND, "send", failure("invalid", message="447700900123 is\nno number"), "failed:invalid",
            "failed: invalid X: ***23 is no number", id="a vendor's words with a number and a line break",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("from_transport", [False, True], ids=["parsed", "from the transport"])
def test_an_outcome_is_written_as_a_move(
    road: Road, *, request_: JobRequest, operation: str, outcome: Outcome, word: str, story: str, from_transport: bool
) -> None:
    road.enqueue("0001", request_, operation)
    if from_transport and isinstance(outcome, Failure):
        road.wire.answers = [outcome]
        road.adapter.parses = lambda: pytest.fail("there is no answer to parse")
    else:
        road.adapter.outcomes = {"0001": outcome}
    assert road.run("0001") == word
    assert road.bench.story("0001")[2:] == [story]
    kept = road.bench.failure("0001")
    assert (kept or {}).get("kind") == (outcome.kind.value if isinstance(outcome, Failure) else None)


@pytest.mark.parametrize(
    ("outcome", "word", "attempts"),
    [
        (failure("not_sent"), "queued:retry", "1"),
        (failure("throttled"), "queued:limit", "0"),
        (failure("unauthorized"), "queued:suspended", "0"),
    ],
    ids=["a try", "no try: the provider did nothing", "no try: the operator must mend it"],
)
def test_only_a_try_spends_an_attempt(road: Road, outcome: Failure, word: str, attempts: str) -> None:
    road.enqueue("0001")
    road.adapter.outcomes = {"0001": outcome}
    assert road.run("0001") == word
    assert road.bench.raw("0001")["a"] == attempts


def test_attempts_come_to_an_end(clock: Clock) -> None:
    road = Road(clock, max_attempts=8)
    road.enqueue("0001")
    road.adapter.outcomes = {"0001": failure("not_sent")}
    word = road.run("0001")
    for _ in range(6):
        word = road.again("0001", word)
    assert road.again("0001", word) == "failed:not_sent"
    assert len(road.wire.sent) == 8, "as many as the settings say"
    assert len(road.bench.raw("0001")["t"].split("\n")) == 8
    assert road.bench.story("0001")[-1] == "failed: not_sent X: no; gives up after 8 attempts"


def test_waiting_for_a_slow_provider_never_comes_to_an_end_by_itself(road: Road) -> None:
    road.enqueue("0001")
    road.adapter.outcomes = {"0001": failure("throttled")}
    word = road.run("0001")
    for _ in range(20):
        word = road.again("0001", word)
    assert word == "queued:limit"


def test_a_lookup_in_doubt_is_made_once_more_and_then_left(road: Road) -> None:
    road.enqueue("0001", LOOKUP)
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    assert road.again("0001", road.run("0001")) == "unknown"
    assert len(road.wire.sent) == 2


@pytest.mark.parametrize("second", ["invalid", "internal"])
def test_a_job_that_may_have_been_done_never_ends_failed(road: Road, second: str) -> None:
    """Its first try is in doubt, so that it ends in doubt, whatever its second was told."""
    road.enqueue("0001", LOOKUP)
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    word = road.run("0001")
    road.adapter.outcomes = {"0001": failure(second)}
    assert road.again("0001", word) == "unknown"


def test_a_result_is_sealed_where_it_lies(road: Road) -> None:
    road.enqueue("0001", LOOKUP)
    road.adapter.outcomes = {"0001": Found(result={"number": "447123456789", "ported": False}, ref="9", price="1")}
    road.run("0001")
    stored = road.bench.redis.hget("d:j:0001", "r")
    assert not leaks(stored.decode("latin-1"), "447123456789", NUMBER, "ported")
    opened = road.bench.settings.sealer().open(stored, "0001")
    assert msgspec.json.decode(opened)["raw"] == {"number": "447123456789", "ported": False}
    assert (road.bench.raw("0001")["m"], road.bench.raw("0001")["c"]) == ("9", "1")


def test_a_code_is_kept_as_a_keyed_hash_and_nowhere_else(road: Road) -> None:
    road.enqueue("0001", Verify(to=NUMBER, template="[CODE]"), terms=Terms(code_ttl=300, category=Category.OTP))
    road.adapter.outcomes = {"0001": Accepted(code="012837")}
    road.clock.advance(100)
    assert road.run("0001") == "sent"
    assert road.bench.raw("0001")["vh"] == road.bench.settings.hashed("code", "0001", "012837")
    assert not leaks(repr(road.bench.dump()), "012837", "12837")
    assert road.bench.raw("0001")["ve"] == str(road.clock.ms + 300_000), "it lives from the moment it was sent"


def test_what_a_person_wrote_lies_sealed(road: Road) -> None:
    road.enqueue("0001")
    road.run("0001")
    assert not leaks(repr(road.bench.dump()), NUMBER, TEXT)


@pytest.mark.parametrize(("receipts", "kept"), [("none", "none"), ("push", "expected"), ("poll", "expected")])
def test_it_is_said_whether_a_receipt_will_come(road: Road, receipts: Any, kept: str) -> None:
    road.adapter.capabilities = Capabilities(receipts=receipts)  # type: ignore[misc]
    road.enqueue("0001")
    road.run("0001")
    assert road.bench.raw("0001")["y"] == kept


def test_an_answer_after_the_lease_ended_is_still_believed(road: Road) -> None:
    """The worker was slow, not dead: its job is `unknown` by then, and its word lifts it."""

    def slow() -> Response:
        road.clock.advance(LEASE)
        road.bench.sweep()
        assert road.bench.state("0001") == "unknown"
        return OK

    road.wire.answers = [slow]
    road.enqueue("0001")
    assert road.run("0001") == "sent"
    assert road.bench.state("0001") == "sent"


def test_an_outcome_that_comes_too_late_is_stale(road: Road) -> None:
    def decided() -> Response:
        road.bench.advance("0001", "=sending", "failed")
        return OK

    road.wire.answers = [decided]
    road.enqueue("0001")
    assert road.run("0001") == "stale"
    assert road.bench.state("0001") == "failed"


# -- adapters with bugs ------------------------------------------------------------------------------------------------


def test_a_job_that_cannot_be_built_fails_alone(road: Road, caplog: pytest.LogCaptureFixture) -> None:
    road.adapter.breaks = {"0002": 0}
    for id_, to in (("0001", NUMBER), ("0002", OTHER), ("0003", NUMBER)):
        road.enqueue(id_, Send(to=to, text=TEXT))
    assert road.run("0001", "0002", "0003") == "2 sent, 1 failed:internal"
    told = road.bench.failure("0002") or {}
    assert (told["kind"], "KeyError" in told["message"]) == ("internal", True)
    assert not leaks(repr(told) + caplog.text, NUMBER, "canary"), "an exception's words may be anything"


def test_what_the_adapter_refuses_fails_without_being_sent(road: Road) -> None:
    road.enqueue("0001", OperationRequest(arguments={}), "report")
    road.enqueue("0002")
    assert road.run("0001", "0002") == "1 failed:unsupported, 1 sent"
    assert "a" not in road.bench.raw("0001"), "it was never claimed"
    assert road.bench.story("0001")[1].startswith("failed: unsupported report: ")


def test_a_request_that_cannot_be_built_anew_was_surely_not_sent(road: Road) -> None:
    """No byte left for what was claimed, so it must not end in doubt when its lease does."""

    def meanwhile() -> Grant:
        road.bench.advance("0001", "=queued", "cancelled")
        return Permit()

    road.gate.grants = [meanwhile]
    road.adapter.breaks = {"0002": 1}
    road.enqueue("0001")
    road.enqueue("0002", Send(to=OTHER, text=TEXT))
    road.run("0001", "0002")
    assert road.wire.sent == []
    assert road.bench.state("0002") in {"failed", "queued"}
    assert road.bench.raw("0002").get("a", "0") == "0", "no attempt was made"


@pytest.mark.parametrize(
    "parses",
    [
        pytest.param(lambda: int("canary"), id="raises"),
        pytest.param(dict, id="tells nothing"),
        pytest.param(lambda: None, id="tells None"),
        pytest.param(lambda: {"0001": "canary"}, id="tells something else"),
    ],
)
@pytest.mark.parametrize(
    ("request_", "operation", "word"),
    [(SEND, "send", "unknown"), (BALANCE, "balance", "queued:retry")],
    ids=["a send is in doubt", "a read is tried again"],
)
def test_an_answer_that_cannot_be_read_may_have_been_a_success(
    road: Road,
    caplog: pytest.LogCaptureFixture,
    *,
    parses: Callable[[], Any],
    request_: JobRequest,
    operation: str,
    word: str,
) -> None:
    road.adapter.parses = parses
    road.enqueue("0001", request_, operation)
    assert road.run("0001") == word
    assert (road.bench.failure("0001") or {})["kind"] == "ambiguous"
    assert not leaks(caplog.text, "canary")


# -- records that cannot be worked on ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "word", "waits"),
    [
        pytest.param({"public": b"{"}, "failed:internal", "", id="public part cut"),
        pytest.param({"private": b'{"kind":"send"}'}, "failed:internal", "", id="no number in it"),
        pytest.param({"private": b'{"kind":"gift"}'}, "failed:internal", "", id="a kind of the future"),
        pytest.param(
            {"private": Sealer(["another"]).seal(b"{}", "0001")}, "queued:worker", "worker", id="another key"
        ),
        pytest.param(
            {"public": b'{"kind":"gift","operation":"gift","schema":2}'}, "queued:worker", "worker",
            id="a kind and a schema of the future",
        ),
        pytest.param({"private": b"\x01"}, "queued:worker", "worker", id="sealed and cut to its mark"),
        pytest.param(
            {"private": Sealer(["a secret key of tests"]).seal(b"{}", "0001")[:9]}, "queued:worker", "worker",
            id="sealed and cut",
        ),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_read_stops_no_other(
    road: Road, fields: dict[str, Any], word: str, waits: str, caplog: pytest.LogCaptureFixture
) -> None:
    road.enqueue("0001", **fields)
    road.enqueue("0002")
    assert road.run("0001", "0002") == f"1 {word}, 1 sent"
    assert road.bench.raw("0001").get("w", "") == (f"{waits} {road.clock.ms + 60_000}" if waits else "")
    assert not leaks(caplog.text, NUMBER, TEXT)


def test_a_job_of_a_provider_not_served_here_is_left_to_others(road: Road) -> None:
    road.bench.create("0001", provider="other", public=b'{"kind":"send","operation":"send"}')
    road.enqueue("0002")
    assert road.run("0001", "0002") == "1 queued:worker, 1 sent"
    assert road.bench.members("d:w:other") == {"0001"}


def test_what_was_held_when_a_worker_died_is_executed_with_nothing_beside_it(road: Road) -> None:
    road.enqueue("0001")
    road.bench.hold("0001")
    road.clock.advance(LEASE)
    road.enqueue("0002", Send(to=OTHER, text=TEXT))
    assert road.run("0001", "0002") == "2 sent"
    assert road.wire.sent == ["0002", "0001"], "what fits together does not travel together then"


def test_the_payloads_of_two_suspects_are_never_touched_at_once(road: Road) -> None:
    """One of them may kill us: it shall not make a suspect of the other again."""
    ids = ["0001", "0002", "0003"]
    for id_ in ids:
        road.enqueue(id_, Send(to=NUMBER, text=f"Hi {id_}"))
    road.bench.hold(*ids)
    road.clock.advance(LEASE)
    steps: list[str] = []
    original = road.store.run

    async def slow(call: Call[T]) -> T:
        if call.script.name in {"take", "absolve"}:
            steps.append(call.script.name)
        await asyncio.sleep(0.001)
        return await original(call)

    road.store.run = slow  # type: ignore[method-assign]
    assert road.run(*ids) == "3 sent"
    assert steps == ["take", *["take", "absolve"] * 3]
    assert sorted(road.wire.sent) == ids


def test_a_job_that_killed_two_workers_is_failed(road: Road) -> None:
    road.enqueue("0001")
    for _ in range(2):
        road.bench.hold("0001")
        road.clock.advance(LEASE)
    assert road.run("0001") == "failed"
    assert road.wire.sent == []


# -- Redis goes away ---------------------------------------------------------------------------------------------------


def test_an_outcome_is_written_however_long_redis_takes_to_come_back(road: Road) -> None:
    road.store.fails = {"advance": 7}
    road.enqueue("0001")
    assert road.run("0001") == "sent"
    assert road.wire.sent == ["0001"], "nothing is sent a second time for it"
    assert len(road.slept) == 7
    assert all(0 <= seconds <= 2 for seconds in road.slept)


def test_a_worker_gives_up_when_nobody_would_believe_it_any_more(clock: Clock) -> None:
    road = Road(clock, deadline=0.001, lease=0.002)  # ten leases are 20 ms
    road.store.fails = {"advance": 1_000_000}
    road.enqueue("0001")
    with pytest.raises(StoreUnavailable):
        road.run("0001")
    assert road.wire.sent == ["0001"]
    assert road.bench.state("0001") == "sending", "its lease ends, and then it is in doubt"


@pytest.mark.parametrize("step", ["take", "claim", "release"])
def test_a_message_is_kept_while_redis_is_away(road: Road, step: str) -> None:
    """Thrown away, it would be found lost a minute after Redis is back."""
    road.store.fails = {"claim": 1} | {step: 7}
    road.enqueue("0001")
    assert road.run("0001") == "sent"
    assert road.wire.sent == ["0001"]
    assert len(road.slept) >= 7
    assert all(0 <= seconds <= 2 for seconds in road.slept), "so soon after Redis is back it goes on"
    assert road.bench.raw("0001")["a"] == "1", "Redis being away is no attempt"


@pytest.mark.parametrize("step", ["take", "claim"])
def test_without_redis_nothing_is_sent(clock: Clock, step: str) -> None:
    road = Road(clock, deadline=0.001, lease=0.002)  # ten leases are 20 ms
    road.store.fails = {step: 1_000_000}
    road.enqueue("0001")
    with pytest.raises(StoreUnavailable):
        road.run("0001")
    assert road.wire.sent == []
    road.store.fails = {}
    assert road.run("0001") == "sent", "and it can be taken again at once"


def test_a_worker_that_stops_does_not_wait_for_redis(road: Road) -> None:
    """What it could not take, it leaves to others."""
    road.store.fails = {"take": 1_000_000}
    road.enqueue("0001")

    async def told_to_stop(_seconds: float) -> None:
        execution.stop()

    execution = road.execution(sleep=told_to_stop)
    assert asyncio.run(execution.execute(["0001"], "plain")) == "queued"
    assert road.published == [("plain", ["0001"])]


def test_an_error_on_the_way_of_one_request_stops_no_other(road: Road) -> None:
    road.store.fails = {"claim": 1}
    road.enqueue("0001")
    road.enqueue("0002", Send(to=OTHER, text="Another"))
    assert road.run("0001", "0002") == "2 sent"
    assert sorted(road.wire.sent) == ["0001", "0002"], "the one that was not stopped is not sent again"


def test_what_breaks_us_every_time_is_not_tried_for_ever(road: Road) -> None:
    """A bug of ours on a job's way is not Redis being away: the job must come to an end."""

    def bug() -> Grant:
        raise RuntimeError("a bug")

    road.enqueue("0001")
    for _ in range(4):
        road.gate.grants = [bug]
        try:
            road.run("0001")
        except RuntimeError:
            road.clock.advance(LEASE)
    assert road.bench.state("0001") == "failed"


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sent"], "sent"),
        (["failed:invalid"], "failed:invalid"),
        (["sent", "sent"], "2 sent"),
        (["failed:invalid", "sent", "sent"], "2 sent, 1 failed:invalid"),
        ([], ""),
    ],
    ids=["one", "one that failed", "alike", "the most first", "none"],
)
def test_a_message_ends_in_a_short_word(words: list[str], told: str) -> None:
    assert summary(words) == told


# -- verify.check ------------------------------------------------------------------------------------------------------


class Desk:
    """An application and a worker on one Redis; what is published is executed at once."""

    def __init__(self, road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
        self.road = road
        self.works = True
        self.dispatcher = Dispatcher(road.bench.settings)
        self.dispatcher._store.redis = road.bench.redis
        monkeypatch.setattr("dispatcher.client.publish", self._publish)
        road.adapter.outcomes = {}
        self.verification = self.dispatcher.verify(NUMBER, code_ttl=300)

    def _publish(self, app: object, queue: str, ids: Sequence[str]) -> None:
        for id_ in ids if self.works else ():
            self.road.run(id_)

    def judge(self, outcome: Outcome | str, code: str = "012837") -> Check:
        """Check a code that the provider judges so; a word is the status it answers."""
        if isinstance(outcome, str):
            outcome = Checked(verification=self.verification.id, valid=outcome == "approved", status=outcome)
        judged: Callable[[], dict[str, Outcome]] = lambda: dict.fromkeys(self._asked(), outcome)  # noqa: E731
        self.road.adapter.parses = judged
        return self.dispatcher.check(self.verification.id, code, timeout=0.2)

    def _asked(self) -> list[str]:
        return self.road.wire.sent[-1].split(" ")


@pytest.fixture
def desk(road: Road, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(road, monkeypatch)


def test_a_code_that_the_provider_judges_is_asked_for_through_its_worker(desk: Desk) -> None:
    assert desk.judge("approved") == Check(valid=True, status="approved")
    assert desk.dispatcher.get(desk.verification.id).verification.status == "approved"  # type: ignore[union-attr]
    assert len(desk.road.wire.sent) == 2
    assert desk.dispatcher.check(desk.verification.id, "012837") == Check(valid=False, status="approved")
    assert len(desk.road.wire.sent) == 2, "what is decided is answered at once"


def test_a_wrong_code_leaves_the_verification_pending(desk: Desk) -> None:
    assert desk.judge("pending") == Check(valid=False, status="pending")
    assert desk.judge("approved").valid


def test_the_provider_may_stop_the_guessing(desk: Desk) -> None:
    stopped = "max_attempts_reached"
    assert desk.judge(stopped) == Check(valid=False, status="max_attempts_reached")
    assert desk.judge("approved") == Check(valid=False, status="max_attempts_reached")


def test_we_stop_the_guessing_too(desk: Desk) -> None:
    wrong = "pending"
    assert [desk.judge(wrong).status for _ in range(5)] == ["pending"] * 4 + ["max_attempts_reached"]
    assert desk.judge(wrong) == Check(valid=False, status="max_attempts_reached")
    assert len(desk.road.wire.sent) == 6, "the verification and five checks"


def test_a_check_waits_in_the_high_lane_and_only_as_long_as_somebody_waits_for_it(desk: Desk) -> None:
    desk.works = False
    with pytest.raises(WaitTimeout):
        desk.judge("approved")
    (id_,) = (job.id for job in desk.dispatcher.jobs() if job.kind == Kind.OPERATION)
    assert desk.road.bench.members("d:o:plain.high") == {id_}
    desk.road.clock.advance(0.2)
    assert desk.road.run(id_) == "expired"


@pytest.mark.parametrize("kind", ["invalid", "ambiguous", "internal"])
def test_a_check_that_failed_is_no_success(desk: Desk, kind: str) -> None:
    assert desk.judge(failure(kind)) == Check(valid=False, status="pending")


def test_a_typed_code_lies_nowhere_in_clear(desk: Desk) -> None:
    desk.judge("approved")
    assert not leaks(repr(desk.road.bench.dump()), "012837")


def test_what_is_no_verification_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound, match="there is no verification gone"):
        desk.dispatcher.check("gone", "012837")
