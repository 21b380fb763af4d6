"""A machine that does anything in any order, on a Redis in memory or a real one, and compares it with the model.

Each of its calls may come twice, since its answer was lost, and once more at any time later. A `world` is the job store
on a Redis with no job in it, and the clock that it goes by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, seed
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dispatcher.calls import Advance, Call, Claim, Word
from dispatcher.errors import IdempotencyConflict, InvalidRequest
from dispatcher.optouts import By, OptOuts
from dispatcher.states import SETTLED, State
from tests.model import (
    AS_IF_NOTHING_HAPPENED,
    BATCHES,
    BUSY,
    ENDED,
    KEYS_KEPT,
    LEASE,
    MONTH,
    QUEUES,
    RECEIPTS_WITHIN,
    REFERENCES,
    ROUTE,
    Ask,
    Job,
    Model,
    News,
    Order,
    Refused,
)
from tests.unit.strange import TIMES
from tests.unit.support import NUMBER, OTHER, Bench, record
from tests.unit.test_states import TABLE


def walk(world: Callable[[], AbstractContextManager[Bench]], part: int, examples: int, steps: int) -> None:
    """Walk `examples` times so many steps, each part along other ways: the same each time, unless EXAMPLES says."""

    def machine() -> Walk:
        return Walk(world)

    settings = profile(
        max_examples=examples * TIMES, stateful_step_count=steps, deadline=None, database=None, print_blob=False,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    run_state_machine_as_test(seed(part)(machine) if TIMES == 1 else machine, settings=settings)  # type: ignore[arg-type]  # a function that makes one will do


# -- what lies in Redis ------------------------------------------------------------------------------------------------

#: All of it in one answer: key, type, ms it has to live, value.
_ALL: Final = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'd:*')) do
  local kind, value = redis.call('TYPE', key).ok
  if kind == 'string' then value = redis.call('GET', key)
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  else value = redis.call('XLEN', key) end
  found[#found + 1] = {key, kind, redis.call('PTTL', key), value}
end
return found
"""


@dataclass(frozen=True)
class Seen:
    """Everything there is in Redis, at one moment."""

    #: By key; sorted sets and hashes as dicts.
    values: Mapping[str, Any]
    #: Milliseconds to live, of those that do not stay.
    lives: Mapping[str, int]

    @classmethod
    def of(cls, bench: Bench) -> Seen:
        values, lives = {}, {}
        for raw, kind, left, value in bench.redis.eval(_ALL, 0):
            key = raw.decode()
            values[key] = _READ[kind](value)
            if left >= 0:
                lives[key] = left
        return cls(values, lives)

    def zset(self, key: str) -> dict[str, float]:
        return dict(self.values.get(key, {}))

    def hash(self, key: str) -> dict[str, str]:
        return dict(self.values.get(key, {}))

    def settled(self) -> Mapping[str, Any]:
        """What a call that is repeated must not change; of news that wait for their job each counts once."""
        return {
            key: set(value) if key.startswith("d:ye:") else value for key, value in self.values.items()
        }  # fmt: skip


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    words = [one.decode(errors="replace") for one in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


_READ: Final[Mapping[bytes, Callable[[Any], Any]]] = {
    b"string": lambda value: value.decode(),
    b"hash": _pairs,
    b"list": lambda value: [one.decode() for one in value],
    b"set": lambda value: {one.decode() for one in value},
    b"zset": lambda value: {id_: float(score) for id_, score in _pairs(value).items()},
    b"stream": int,
}


def _by_kind(
    events: Sequence[tuple[str, ...]], *, in_any_order: bool
) -> tuple[Sequence[tuple[str, ...]], Sequence[tuple[str, ...]]]:
    """Part events of jobs, in their order unless told otherwise, and those of batches, which end a call."""
    batches = sorted(one for one in events if one[0] == "batch.settled")
    jobs = [one for one in events if one[0] != "batch.settled"]
    return sorted(jobs) if in_any_order else jobs, batches


# -- the machine -------------------------------------------------------------------------------------------------------

#: What a try comes to, and the state that follows.
_ENDS: Final = {
    "accepted": "sent",
    "answered": "completed",
    "refused": "failed",
    "ambiguous": "unknown",
    "once more": "queued",
    "elsewhere": "queued",
    "not sent": "queued",
    "too fast": "queued",
}

#: Busy jobs, beyond which no more are made: where there are many, little happens to each.
_ENOUGH: Final = 5

orders = st.builds(
    Order,
    queue=st.sampled_from(QUEUES),
    batch=st.sampled_from(["", *BATCHES]),
    number=st.sampled_from([NUMBER, OTHER]),
    more=st.booleans(),
    due=st.sampled_from([None, None, -5000, 30_000, 100_000]),
    valid=st.sampled_from([None, None, 20_000, 200_000]),
    held=st.sampled_from([None, None, None, 50_000]),
    routed=st.booleans(),
    patience=st.sampled_from([None, 30_000]),
)
delays = st.sampled_from([0, 5000])
tokens = st.integers(0, 5)
repeats = st.sampled_from(["never", "never", "once", "always", "resend"])


@dataclass(frozen=True)
class Told:
    """What a worker tells of a try: where it was, where the job goes on to, in how many ms, and the reference."""

    account: str
    goal: str
    delay: int
    reference: str


def _key(account: str, reference: str) -> str:
    """What a receipt is found by: no two accounts have the same."""
    return f"{account}-{reference}" if reference else ""


def _public(order: Order) -> bytes:
    told: dict[str, object] = {"kind": "send", "operation": "send"}
    if order.routed:
        told["route"] = ROUTE
        if order.patience is not None:
            told["failover_after"] = order.patience / 1000
    return msgspec.json.encode(told)


class Walk(RuleBasedStateMachine):
    """Anything happens in any order: calls answer what the model says, and Redis looks as the model says."""

    def __init__(self, world: Callable[[], AbstractContextManager[Bench]]) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.bench = self._stack.enter_context(world())
        self.model = Model()
        self.model.now = self.bench.clock.ms
        for queue in QUEUES:
            # So few that some have to wait for their turn.
            self.bench.redis.hset(f"d:qw:{queue}", mapping={"n": 2, "at": self.bench.clock.ms})
        #: Who takes and claims, by number.
        self.tokens = ["0"]
        #: Calls that were made, which may come once more.
        self.past: list[Callable[[], object]] = []
        self.cursor = "0"
        self.made = 0
        #: What was told last came from several accounts at once.
        self.in_any_order = False
        #: Whose claim of each job is live, as nobody but the calls' answers tells.
        self.live: dict[str, str] = {}
        #: The account that each claim was for.
        self.claimed: dict[tuple[str, str], str] = {}

    def teardown(self) -> None:
        self._stack.close()

    # -- making calls --------------------------------------------------------------------------------------------------

    def ask(self, call: Call[Any], *, twice: bool, differs: bool = False) -> Any:
        """Make a call, and once more where its answer was lost: that changes nothing, and tells the same.

        `differs` is what tells of the first time only: what it moved is moved.
        """
        answer = self.bench.run(call)
        if twice:
            before = Seen.of(self.bench).settled()
            again = self.bench.run(call)
            assert Seen.of(self.bench).settled() == before
            assert differs or again == answer
        return answer

    def happen(self, one: Callable[[], object]) -> None:
        """Do something now, and perhaps once more later."""
        self.past.append(one)
        one()

    @precondition(lambda self: self.past)
    @rule(which=st.integers(0, 10))
    def a_call_comes_once_more(self, which: int) -> None:
        """As of a worker that was asleep, or a vendor that says it again."""
        self.past[-1 - which % len(self.past)]()

    def token(self, number: int) -> str:
        return self.tokens[-1 - number % len(self.tokens)]

    def some(self, numbers: Sequence[int]) -> list[str]:
        """Choose jobs, each once."""
        known = list(self.model.jobs)
        return list(dict.fromkeys(known[-1 - number % len(known)] for number in numbers)) if known else []

    def there(self, *states: str, **fields: Any) -> list[Job]:
        """Return the jobs in one of these states that are as the fields say."""
        return [
            job for job in self.model.jobs.values()
            if job.state in states and all(getattr(job, name) == value for name, value in fields.items())
        ]  # fmt: skip

    few = st.lists(st.integers(0, 9), min_size=1, max_size=3)
    one = st.integers(0, 9)
    #: Rather false than true.
    sometimes = st.integers(0, 2).map(lambda number: number == 0)
    seldom = st.integers(0, 5).map(lambda number: number == 0)

    # -- rules ---------------------------------------------------------------------------------------------------------

    @initialize(order=orders, ends=st.lists(st.sampled_from(["", "", *_ENDS]), min_size=1, max_size=4))
    def begin(self, order: Order, ends: list[str]) -> None:
        """Begin in the middle: with jobs that a worker tried, or tries just now."""
        self.create([""] * len(ends), "", order._replace(due=None, held=None), twice=False)
        for id_, end in zip(list(self.model.jobs), ends, strict=True):
            self._work([id_], "never", end)

    def _work(self, ids: list[str], repeat: str, end: str, *, twice: bool = False) -> None:
        """Take, claim and bring to an end, as a worker does that nothing happens to; to none where it dies of it."""
        token = self.newcomer()
        # Those whose holder died are taken once more, as what they are.
        self.happen(lambda: self._take(token, ids, alone=False, twice=twice))
        self.happen(lambda: self._take(token, ids, alone=True, twice=twice))
        self.happen(lambda: self._claim(token, ids, repeat, twice=twice))
        for id_ in ids if end else []:
            job = self.model.jobs[id_]
            told = Told(job.provider, job.following if end == "elsewhere" else "", 0, "r1")
            self.happen(partial(self._outcome, id_, token, end, told, twice=twice))

    @precondition(lambda self: len(self.there(*BUSY)) < _ENOUGH)
    @rule(
        keys=st.lists(st.sampled_from(["", "", "", "k1", "k2"]), min_size=1, max_size=3),
        fingerprint=st.sampled_from(["f1", "f1", "f2"]),
        order=orders,
        twice=st.booleans(),
    )
    def create(self, keys: list[str], fingerprint: str, order: Order, *, twice: bool) -> None:
        asked = [Ask(self.fresh_id(), key, fingerprint if key else "") for key in keys]
        due, held = (None if one is None else self.model.now + one for one in (order.due, order.held))
        self.happen(lambda: self._create(asked, order._replace(due=due, held=held), twice=twice))

    def fresh_id(self) -> str:
        self.made += 1
        return f"{self.made:04}"

    def _create(self, asked: Sequence[Ask], order: Order, *, twice: bool) -> None:
        records = [
            record(
                one.id, due=order.due, valid_for=order.valid, idempotency=one.key, fingerprint=one.fingerprint,
                number=self.bench.settings.hashed("number", order.number), texts=True, redrives=one.old,
                redrives_state=one.was, public=_public(order), held=order.held, why="it is quiet",
            )
            for one in asked
        ]  # fmt: skip
        provider, high = order.queue.removesuffix(".high"), order.queue.endswith(".high")
        call = self.bench.calls.create(provider, high=high, batch=order.batch, records=records, more=order.more)
        try:
            ids = self.model.create(asked, order, self.most_out(order.queue))
        except Refused as refused:
            before = Seen.of(self.bench).values
            with pytest.raises(InvalidRequest) as error:
                self.bench.run(call)
            assert isinstance(error.value, IdempotencyConflict) == (refused.args == ("conflict",))  # noqa: PT017 - the model refused
            assert Seen.of(self.bench).values == before, "what is refused changes nothing"
            return
        created = self.ask(call, twice=twice)
        assert created.ids == ids

    @precondition(lambda self: self.there(*ENDED))
    @rule(one=one, stale=seldom, batch=st.sampled_from(["", *BATCHES]), twice=st.booleans())
    def redrive(self, one: int, batch: str, *, stale: bool, twice: bool) -> None:
        """Make a job anew of one that ended badly, and but once; of one that went on meanwhile, none."""
        ended = self.there(*ENDED)
        job = ended[one % len(ended)]
        asked = [Ask(self.fresh_id(), old=job.id, was="expired" if stale else job.state)]
        more = batch != "" and self.model.batches[batch].open
        self.happen(lambda: self._create(asked, Order(job.queue, batch, NUMBER, more), twice=twice))

    @precondition(lambda self: self.there("queued"))
    @rule(ago=st.sampled_from([0, 1, 30, 100]), really=seldom, twice=st.booleans())
    def history_goes_back(self, ago: int, *, really: bool, twice: bool) -> None:
        """Redis lost what it knew, and nobody is left who remembers what was sent."""
        if really:
            known = self.model.now - ago * 1000
            self.ask(self.bench.calls.hold("this run of the server", known), twice=twice, differs=True)
            self.model.hold(known)
            self.in_any_order = True

    @precondition(lambda self: self.there("queued", out=True))
    @rule(some=few, alone=st.booleans(), twice=st.booleans(), again=seldom, number=tokens)
    def take(self, some: list[int], number: int, *, alone: bool, twice: bool, again: bool) -> None:
        token = self.token(number) if again else self.newcomer()
        ids = [*self.some(some), *(job.id for job in self.there("queued", out=True)[number : number + 2]), "nobody"]
        self.happen(lambda: self._take(token, [*dict.fromkeys(ids)], alone=alone, twice=twice))

    def newcomer(self) -> str:
        """Return the token of a worker that was not there before."""
        self.tokens.append(f"t{len(self.tokens)}")
        return self.tokens[-1]

    @precondition(lambda self: self.there("queued", out=True, taker=""))
    @rule(number=tokens, repeat=repeats, end=st.sampled_from(["", "", *_ENDS]), twice=st.booleans())
    def work(self, number: int, repeat: str, end: str, *, twice: bool) -> None:
        ready = self.there("queued", out=True, taker="")
        self._work([job.id for job in ready[number % len(ready) :][:2]], repeat, end, twice=twice)

    def _take(self, token: str, ids: list[str], *, alone: bool, twice: bool) -> None:
        taken = self.ask(self.bench.calls.take(token, ids, alone=alone), twice=twice)
        seen = ([one[0].decode() for one in taken.records], taken.suspects, taken.idle)
        assert seen == self.model.take(token, ids, alone=alone)

    @precondition(lambda self: any(job.taker for job in self.there("queued")))
    @rule(number=tokens, twice=st.booleans())
    def release(self, number: int, *, twice: bool) -> None:
        token = self.token(number)
        call = self.bench.calls.release(token, list(self.model.jobs))
        assert self.ask(call, twice=twice, differs=True) == self.model.release(token)

    @precondition(lambda self: any(job.taker for job in self.there("queued")))
    @rule(number=tokens, twice=st.booleans())
    def absolve(self, number: int, *, twice: bool) -> None:
        token = self.token(number)
        self.ask(self.bench.calls.absolve(token, list(self.model.jobs)), twice=twice)
        self.model.absolve(token)

    @precondition(lambda self: self.there("queued", out=True))
    @rule(some=few, twice=st.booleans())
    def touch(self, some: list[int], *, twice: bool) -> None:
        ids = self.some(some)
        self.ask(self.bench.calls.touch(ids), twice=twice)
        self.model.touch(ids)

    @precondition(lambda self: any(job.taker for job in self.there("queued")))
    @rule(some=few, number=tokens, repeat=repeats, stranger=seldom, twice=st.booleans())
    def claim(self, some: list[int], number: int, repeat: str, *, stranger: bool, twice: bool) -> None:
        """By whoever took it, mostly."""
        takers = [job.taker for job in self.there("queued") if job.taker]
        token = self.token(number) if stranger else takers[number % len(takers)]
        ids = list(dict.fromkeys([*self.some(some[1:]), *(job.id for job in self.model.mine(token))])) or self.some(
            some
        )
        self.happen(lambda: self._claim(token, ids, repeat, twice=twice))

    def _claim(self, token: str, ids: list[str], repeat: str, *, twice: bool) -> None:
        numbers = {
            id_: self.bench.settings.hashed("number", self.model.jobs[id_].number)
            for id_ in ids if id_ in self.model.jobs
        }  # fmt: skip
        call = self.bench.calls.claim([Claim(token, id_, repeat, numbers.get(id_, "")) for id_ in ids])
        states = self.ask(call, twice=twice)
        assert states == self.model.claim(token, ids, repeat)
        for id_, state in zip(ids, states, strict=True):
            if state is None:
                assert self.live.get(id_, token) == token, "two claims of one job are live"
                self.live[id_] = token
                self.claimed[id_, token] = self.model.jobs[id_].provider

    @precondition(lambda self: any(job.token for job in self.model.jobs.values()))
    @rule(
        one=one,
        number=tokens,
        kind=st.sampled_from(["accepted", *_ENDS]),
        stranger=sometimes,
        late=sometimes,
        delay=delays,
        reference=st.sampled_from(["", *REFERENCES]),
        twice=st.booleans(),
    )
    def outcome(
        self, one: int, number: int, kind: str, delay: int, reference: str, *, stranger: bool, late: bool, twice: bool
    ) -> None:
        """What a worker found out about its request, or somebody whose claim is over by now."""
        tried = [job for job in self.model.jobs.values() if job.token]
        live = [job for job in tried if job.state == "sending"]
        job = (tried if late or not live else live)[one % len(tried if late or not live else live)]
        id_, token = job.id, self.token(number) if stranger else job.token
        told = Told(
            self.claimed.get((id_, token), job.provider), job.following if kind == "elsewhere" else "", delay, reference
        )
        self.happen(lambda: self._outcome(id_, token, kind, told, twice=twice))

    def _outcome(self, id_: str, token: str, kind: str, told: Told, *, twice: bool) -> None:
        to = _ENDS[kind]
        doubt, spent = kind in {"ambiguous", "once more"}, kind != "too fast"
        reference = _key(told.account, told.reference) if kind == "accepted" else ""
        job = self.model.jobs.get(id_)
        watched = (
            job.patience or 0 if job is not None and kind == "accepted" and job.route[-1:] != (told.account,) else 0
        )
        fields: dict[str, str | int] = {"i": 1} if doubt else {}
        if not spent and job is not None:
            fields["a"] = max(0, job.attempts - 1)
        move = Advance(
            id=id_, guard=token or "nobody", state=State(to), detail=kind, fields=fields, receipt=reference, look=30,
            wait="retry" if to == "queued" else "", delay=told.delay / 1000, tried=f"{kind.replace(' ', '_')} ",
            account=told.account, goal=told.goal, watched=watched / 1000,
        )  # fmt: skip
        (state,) = self.ask(self.bench.calls.advance([move]), twice=twice, differs=True)
        assert state == self.model.outcome(
            id_, token or "nobody", to, account=told.account, goal=told.goal, delay=told.delay, doubt=doubt,
            spent=spent or job is None or not job.attempts, reference=reference, watched=watched,
        )  # fmt: skip

    @precondition(lambda self: self.model.jobs)
    @rule(
        one=one,
        to=st.sampled_from(["cancelled", "queued", "elsewhere", "sent", "completed", "failed"]),
        lined=st.booleans(),
        quiet=seldom,
        twice=st.booleans(),
    )
    def somebody_says_so(self, one: int, to: str, *, lined: bool, quiet: bool, twice: bool) -> None:
        """A caller takes a job back, a limiter lets it wait, an operator resolves what is unknown."""
        (id_,) = self.some([one])
        goal = self.model.jobs[id_].following if to == "elsewhere" else ""
        told = "queued" if to == "elsewhere" else to
        self.happen(lambda: self._say(id_, told, lined=lined, goal=goal, quiet=quiet and not goal, twice=twice))

    def _say(self, id_: str, to: str, *, twice: bool, lined: bool = False, goal: str = "", quiet: bool = False) -> None:
        guard = "=queued" if to in {"cancelled", "queued"} else "=unknown"
        wait, lined = ("quiet_hours", False) if quiet else ("limit", lined)
        move = Advance(id=id_, guard=guard, state=State(to), detail="said", wait=wait, delay=7, lined=lined, goal=goal)
        (state,) = self.ask(self.bench.calls.advance([move]), twice=twice, differs=True)
        if to == "cancelled":
            assert state == self.model.cancel(id_)
        else:
            waits = to == "queued"
            assert state == (
                self.model.park(id_, 7000, lined=lined, goal=goal, quiet=quiet)
                if waits
                else self.model.resolve(id_, to)
            )

    @precondition(lambda self: any(batch.open for batch in self.model.batches.values()))
    @rule(batch=st.sampled_from(BATCHES), cancelled=seldom, twice=st.booleans())
    def close(self, batch: str, *, cancelled: bool, twice: bool) -> None:
        call = self.bench.calls.close(batch, cancelled=cancelled)
        assert self.ask(call, twice=twice) == self.model.close(batch, cancelled=cancelled)

    @precondition(lambda self: any(batch.there for batch in self.model.batches.values()))
    @rule(batch=st.sampled_from(BATCHES), really=seldom)
    def cancel_batch(self, batch: str, *, really: bool) -> None:
        """As `Dispatcher.cancel_batch` does it."""
        if not really:
            return
        assert self.bench.run(self.bench.calls.close(batch, cancelled=True)) == self.model.close(batch, cancelled=True)
        for job in [job for job in self.model.jobs.values() if job.batch == batch]:
            self._say(job.id, "cancelled", twice=False)

    @rule(
        one=one,
        own=st.booleans(),
        provider=st.sampled_from(["textgoto", "textgoto", "textgoto", "other"]),
        reference=st.sampled_from(["", *REFERENCES, *REFERENCES]),
        state=st.sampled_from([None, "sent", "delivered", "delivered", "undelivered", "failed", "completed"]),
        parts=st.sampled_from([(1, 1), (1, 1), (1, 1), (1, 2), (2, 2)]),
        twice=st.booleans(),
    )
    def receipt(
        self,
        one: int,
        provider: str,
        reference: str,
        state: str | None,
        parts: tuple[int, int],
        *,
        own: bool,
        twice: bool,
    ) -> None:
        """News of a job, by our id or by the provider's reference: early, late, out of order, a part at a time."""
        ids = self.some([one]) if own else []
        news = News(state, ids[0] if ids else "", provider, _key(provider, reference), *parts)
        self.happen(lambda: self._receipt(news, twice=twice))

    def _receipt(self, news: News, *, twice: bool) -> None:
        word = Word(
            provider=news.provider, own=news.own, key=news.reference, state=State(news.state) if news.state else None,
            detail="told", part=news.part, parts=news.parts,
        )  # fmt: skip
        (answer,) = self.ask(self.bench.calls.receipts([word]), twice=twice, differs=True)
        assert answer == self.model.receipt(news)

    @rule(number=st.sampled_from([OTHER, OTHER, OTHER, NUMBER]), out=st.booleans(), twice=st.booleans())
    def opt_out(self, number: str, *, out: bool, twice: bool) -> None:
        """Somebody wants no more texts, or some again."""
        call = OptOuts(self.bench.settings).put(number, By.APPLICATION, out=out)
        self.ask(call, twice=twice, differs=True)
        (self.model.leave_alone.add if out else self.model.leave_alone.discard)(number)

    def most_out(self, queue: str) -> int:
        return int(self.bench.redis.hget(f"d:qw:{queue}", "n"))

    @precondition(lambda self: self.there("queued", lined=True))
    @rule(number=one, twice=st.booleans())
    def deal(self, number: int, *, twice: bool) -> None:
        """Those whose turn it is go to the workers: as many as they have room for."""
        waiting = self.there("queued", lined=True)
        account = waiting[number % len(waiting)].provider
        before = {queue: len(self.model.queued(queue, lined=True)) for queue in QUEUES}
        for _ in range(2 if twice else 1):
            for queue, ids in self.bench.run(self.bench.calls.deal(account)).items():
                out = len(self.model.queued(queue, out=True)) if queue in QUEUES else 0
                left = before.get(queue, 0)
                assert len(ids) == min(left, max(0, self.most_out(queue) - out) if left else 0)
                self.model.deal(ids)
                before[queue] = left - len(ids)

    @precondition(lambda self: self.there("queued", out=False, lined=False))
    @rule(number=one, twice=st.booleans())
    def due(self, number: int, *, twice: bool) -> None:
        waiting = self.there("queued", out=False, lined=False)
        queue = waiting[number % len(waiting)].queue
        call = self.bench.calls.due(queue)
        _, out = self.ask(call, twice=twice, differs=True)
        assert set(out) == self.model.due(queue, self.most_out(queue))

    @precondition(lambda self: any(self.model.may_be_lost(queue) for queue in QUEUES))
    @rule(number=one, empty=st.booleans(), twice=st.booleans())
    def lost(self, number: int, *, empty: bool, twice: bool) -> None:
        late = [queue for queue in QUEUES if self.model.may_be_lost(queue)]
        queue = late[number % len(late)]
        found = set(self.ask(self.bench.calls.lost(queue, empty=empty), twice=twice, differs=True))
        if empty:
            assert found == self.model.may_be_lost(queue)
        else:
            assert self.model.overtaken(queue, surely=True) <= found <= self.model.overtaken(queue, surely=False)
        self.model.published_again(found)

    @rule(twice=st.booleans())
    def sweep(self, *, twice: bool) -> None:
        assert self.ask(self.bench.calls.sweep(), twice=twice, differs=True) == self.model.sweep()

    @precondition(lambda self: any(job.followed for job in self.model.jobs.values()))
    @rule(
        provider=st.sampled_from(["textgoto", "other"]), sent=st.booleans(), unknown=st.booleans(), twice=st.booleans()
    )
    def follow(self, provider: str, *, sent: bool, unknown: bool, twice: bool) -> None:
        """Find out what became of jobs, where that can be asked."""
        seen = Seen.of(self.bench).zset(f"d:f:{provider}")
        due = {id_ for id_, at in seen.items() if at <= self.model.now}
        call = self.bench.calls.follow(provider, sent=sent, unknown=unknown, most=500)
        answer = self.ask(call, twice=twice, differs=True)
        asked = {state for state, may in (("sent", sent), ("unknown", unknown)) if may}
        found, over = {raw[0].decode() for raw in answer}, set[str]()
        for id_ in due:
            job = self.model.jobs.get(id_)
            late = job is None or job.came + RECEIPTS_WITHIN * 1000 <= self.model.now
            if job is None or late or (job.state == "unknown" and not unknown):
                over.add(id_)
            assert (id_ in found) == (id_ not in over and job is not None and job.state in asked)
        self.model.give_up(over)

    @rule(seconds=st.sampled_from([0.001, 1, 1, 25, 25, LEASE, LEASE, 2 * LEASE, 2 * LEASE, KEYS_KEPT + 1]))
    def time_passes(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)
        self.model.now = self.bench.clock.ms
        self.model.forget()

    @rule(seconds=st.sampled_from([RECEIPTS_WITHIN + 1, MONTH + 1]), really=seldom)
    def much_time_passes(self, seconds: float, *, really: bool) -> None:
        """So much that nobody says anything again."""
        if really:
            self.time_passes(seconds=seconds)
            self.past.clear()

    # -- what must be, at every moment ---------------------------------------------------------------------------------

    @invariant()
    def redis_is_as_promised(self) -> None:
        seen, model = Seen.of(self.bench), self.model
        for job in model.jobs.values():
            self._findable(seen, job)
        self._listed_once(seen)
        self._waiting_or_running(seen)
        self._batches(seen)
        for id_ in [id_ for id_ in self.live if id_ not in model.jobs or model.jobs[id_].state != "sending"]:
            del self.live[id_]

    def _findable(self, seen: Seen, job: Job) -> None:
        """A job that was accepted is found until long after it settled; its story has moves that the table allows."""
        stored = seen.hash(f"d:j:{job.id}")
        assert stored.get("s") == job.state
        assert stored.get("p") == job.provider
        left = seen.lives.get(f"d:j:{job.id}")
        assert (left is not None) == (job.state in SETTLED)
        if left is not None:
            assert abs(job.came + MONTH * 1000 - self.model.now - left) < 60_000
        states = [line.split(" ")[1] for line in stored["h"].split("\n")]
        told = [state for at, state in enumerate(states) if at == 0 or states[at - 1] != state]
        assert told == job.story
        assert all(to in TABLE[state] for state, to in pairwise(told))
        assert int(stored.get("a", 0)) == job.attempts
        assert ("i" in stored) == job.doubtful
        if job.doubtful:
            assert job.state not in AS_IF_NOTHING_HAPPENED
        if job.state == "sending":
            assert stored["f"] == job.token == self.live[job.id]
        entry = f"{self.bench.settings.hashed('number', job.number)} {job.id}"
        listed = any(entry in seen.zset(key) for key in seen.values if key.startswith("d:n:"))
        assert listed or self.model.now - job.created >= MONTH * 1000

    def _listed_once(self, seen: Seen) -> None:
        """Each job is in the index of its state, and in that one alone."""
        found = Counter(
            (id_, *key.split(":")[2:], int(score))
            for key in seen.values if key.startswith("d:i:")
            for id_, score in seen.zset(key).items() if id_ in self.model.jobs
        )  # fmt: skip
        jobs = self.model.jobs.values()
        assert found == Counter({(job.id, job.provider, job.state, job.came): 1 for job in jobs})

    def _waiting_or_running(self, seen: Seen) -> None:
        """A queued job is out or waits, one that is sending has a lease, one that settled is in none of these lists."""
        jobs = list(self.model.jobs.values())
        for queue in QUEUES:
            out = {job.id: job.published for job in self.model.queued(queue, out=True)}
            assert seen.zset(f"d:o:{queue}") == out
            assert seen.zset(f"d:w:{queue}") == {job.id: job.due for job in self.model.queued(queue)}
            self._in_their_lines(seen, queue)
        assert seen.zset("d:l") == {job.id: job.lease for job in jobs if job.state == "sending"}
        assert seen.zset("d:x") == {job.id: job.useless for job in jobs if job.state == "queued" and job.useless}
        watched = {job.id: job.watched for job in jobs if job.watched is not None}
        assert {id_: at for id_, at in seen.zset("d:fo").items() if id_ in self.model.jobs} == watched
        for provider in ("textgoto", "other"):
            mine = {job.id for job in jobs if job.provider == provider and job.followed}
            assert {id_ for id_ in seen.zset(f"d:f:{provider}") if id_ in self.model.jobs} == mine

    def _in_their_lines(self, seen: Seen, queue: str) -> None:
        """Each in that of its batch, which takes turns."""
        lines = {job.batch for job in self.model.queued(queue, lined=True)}
        for batch in ["", *BATCHES]:
            mine = {job.id for job in self.model.queued(queue, lined=True) if job.batch == batch}
            assert {*seen.zset(f"d:q:{queue}:{batch}:")} == mine
        assert lines <= {*seen.zset(f"d:qb:{queue}:")}
        assert not lines or "" in seen.zset(f"d:qt:{queue}")

    def _batches(self, seen: Seen) -> None:
        """The counts of a batch add up, and are those of its jobs."""
        for name, batch in self.model.batches.items():
            stored = seen.hash(f"d:b:{name}")
            assert bool(stored) == batch.there
            if not batch.there:
                continue
            counts = {state: int(stored[state]) for state in TABLE if int(stored.get(state, 0))}
            assert sum(counts.values()) == batch.size == len(seen.values.get(f"d:b:{name}:j", []))
            assert counts == self.model.counts(name)
            assert ("o" in stored, "c" in stored) == (batch.open, batch.cancelled)
            for key in (f"d:b:{name}", f"d:b:{name}:j") if batch.size else (f"d:b:{name}",):
                assert (key in seen.lives) == (not self.model.busy(name))

    @invariant()
    def consumers_are_told_every_settled_move_in_order(self) -> None:
        rows: Any = self.bench.redis.xread({"d:e": self.cursor})
        told: list[tuple[str, ...]] = []
        for entry, fields in rows[0][1] if rows else []:
            self.cursor = entry.decode()
            kind, about = fields[b"t"].decode(), fields[b"i"].decode()
            if kind == "batch.settled":
                counts = [" ".join(reversed(one.split(" "))) for one in fields[b"b"].decode().split(",") if one]
                told.append((kind, about, *sorted(counts)))
            elif kind.startswith("job."):
                told.append((kind, about))
        assert _by_kind(told, in_any_order=self.in_any_order) == _by_kind(
            self.model.events, in_any_order=self.in_any_order
        )
        self.model.events.clear()
        self.in_any_order = False
