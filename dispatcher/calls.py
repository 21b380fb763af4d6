"""What is asked of the job store: `create`, `claim`, `advance`, ... as pure values.

Each is a `Call`: a script with its arguments, and how its answer is read. `dispatcher.store` makes them.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from dispatcher.budgets import NO_TEXT, Spending
from dispatcher.errors import ConfigurationError, IdempotencyConflict, InvalidRequest
from dispatcher.jobs import SCHEMA
from dispatcher.limits import (
    Ask,
    BreakerRules,
    Ended,
    Granted,
    Limits,
    LimitState,
    Refused,
    configuration,
    read_state,
    time_class,
)
from dispatcher.queues import both_queues
from dispatcher.records import pack
from dispatcher.states import SETTLED, State, lua_tables
from dispatcher.suspensions import OPERATION, Suspension
from dispatcher.suspensions import read as read_suspension

if TYPE_CHECKING:
    from dispatcher.outcomes import Checked, Failure
    from dispatcher.records import Record
    from dispatcher.settings import Settings

T = TypeVar("T")

#: Milliseconds between two looks at what became of a job: doubling from the first to the second.
_BETWEEN_LOOKS: Final = 10_000
_LONGEST_LOOK: Final = 3 * 3600 * 1000

#: Times longer that a missing permission is left alone than an account: a job is tried on it.
_PERMISSIONS: Final = 10

#: Scripts that know of limits, and of these those that know of no jobs: what is put before a script costs each call.
_OF_LIMITS: Final = frozenset({"deal", "learn", "limits_shown", "permit"})
_OF_LIMITS_ONLY: Final = _OF_LIMITS - {"deal"}

#: What scripts about notices begin with, which know of nothing else.
_OF_NOTICES: Final = "notices_"

#: Seconds that a request may be on its way beyond its deadline, before its permit is taken for lost with its worker.
_LEASE_SLACK: Final = 2.0

#: Scripts about groups that read the events, which know of nothing else.
_OF_EVENTS: Final = frozenset({"events_done", "events_group", "events_groups", "events_take"})

#: Scripts about verifications.
_OF_CODES: Final = frozenset({"check", "judged", "uncode", "verify"})

#: What a script is made of where that is more than the file of its name.
_MADE_OF: Final = {"verify": ("guards", "create")}

#: Scripts that claim.
_OF_CLAIMS: Final = frozenset({"claim", "reclaim"})

#: Milliseconds that a process which claims no more is remembered.
_PROCESSES_KEPT: Final = 3600 * 1000

#: Milliseconds until the permit of a job that is handed to a worker: somewhat longer than a worker waits for one, so
#: that there is always one who does; those who have theirs and wait for its moment are counted twice.
_AHEAD: Final = 700

#: Jobs that one call carries at most: a script holds the server up for about a millisecond then.
MOST: Final = 500

#: Jobs that one call makes at most: that holds the server up for some two milliseconds, and fills one message.
MOST_MADE: Final = 100


class Script(msgspec.Struct, frozen=True):
    """A Lua script as it is sent, and the hash it is called by afterwards."""

    name: str
    source: str
    sha: str


class Call(msgspec.Struct, Generic[T], frozen=True):
    """One call of one script; `read` makes sense of the answer. Its repr shows no argument."""

    script: Script
    arguments: Sequence[bytes | str | float]
    read: Callable[[Any], T]
    #: Where `DISPATCHER_DURABILITY` asks for that, the answer waits until what was written is on the disk.
    durable: bool = False
    #: What it wrote must not be forgotten: a worker makes it again where Redis lost it.
    lasting: bool = False

    def __repr__(self) -> str:
        """Leave the arguments out: they may hold a number or a text."""
        return f"Call({self.script.name})"


class Created(msgspec.Struct, frozen=True):
    """When jobs were written, in milliseconds since 1970 on Redis' clock, and their ids.

    Those in `refused` failed at once: the person wants no more texts. Those in `out` go to the workers now, and the
    caller publishes them; the others wait for their time or their turn.
    """

    at: int
    ids: list[str]
    refused: list[str] = []
    out: list[str] = []


class Taken(msgspec.Struct, frozen=True):
    """What `take` found: raw records to be worked on, suspects, (id, state) of those there is nothing to do for.

    A suspect's earlier holder died: it is to be taken with nothing beside it, so that it takes nothing along.
    """

    records: list[list[bytes]]
    suspects: list[str]
    idle: list[tuple[str, str]]
    #: The moment, in milliseconds since 1970 on Redis' clock.
    at: int

    def __repr__(self) -> str:
        """Leave the records out: without a key they are in clear."""
        return f"Taken({len(self.records)} jobs)"


class Claim(msgspec.Struct, frozen=True):
    """One claim to be made, of a job that `token` took.

    `repeat` says whether it may be repeated when its worker dies: "never", "once", "always", or by "resend".
    """

    token: str
    id: str
    repeat: str
    #: The hash of the number that it texts, whom nobody texts who wants no more; empty where it texts none.
    number: str = ""
    #: What it uses up of budgets, which may leave no room.
    text: Spending = NO_TEXT
    #: Set with the claim.
    fields: Mapping[str, bytes | str] = {}
    #: `OptOuts.scopes` of the text: what the list may have beside the number.
    scopes: str = ""

    def __repr__(self) -> str:
        """Leave the fields out: they may hold a code."""
        return f"Claim({self.id})"


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """One move to be written.

    `guard` is the fencing token of a claim, or "=queued" where the job must be in that state; under "=unknown" a job
    that `failed` was surely not taken. `wait` and `delay` (seconds) say what a job that goes back to the queue waits
    for.
    """

    id: str
    guard: str
    state: State
    detail: str
    wait: str = ""
    delay: float = 0
    #: It waits in the line of its tenant and batch, which the limits of its account hold back.
    lined: bool = False
    #: "outcome ref", where a try came to an end.
    tried: str = ""
    #: Seconds that a verification's code lives from this move on.
    code_ttl: float | None = None
    #: What its receipt is found by, as in `Word`; empty where none is expected. Seconds until it is asked for.
    receipt: str = ""
    look: float = 0
    #: The account that this is told of, where another may have the job by now.
    account: str = ""
    #: The account on its route that a job which goes back to the queue goes on to.
    goal: str = ""
    #: Seconds after which a job that was sent goes on to the next account unless a receipt came.
    watched: float = 0
    fields: Mapping[str, bytes | str | int] = {}

    def __repr__(self) -> str:
        """Leave the fields out: they may hold a result."""
        return f"Advance({self.id} to {self.state})"


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider told of a job afterwards, found by the job's id or by the hash of the provider's reference.

    `state` None decides nothing and is noted only; of `parts` all must be delivered, and one that failed is enough.
    """

    provider: str
    own: str = ""
    #: `Settings.keyed("receipt", account, reference, number)`.
    key: str = ""
    state: State | None
    detail: str
    fields: Mapping[str, bytes | str | int] = {}
    part: int = 1
    parts: int = 1

    def __repr__(self) -> str:
        """Leave the fields out: they may hold a result."""
        return f"Word({self.own or self.key} {self.state})"


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stood at one moment."""

    #: How many of its jobs were in each state; zeroes are left out.
    counts: dict[str, int]
    #: More jobs may follow.
    open: bool = False
    #: It was taken back: none may follow.
    cancelled: bool = False
    #: How many of those that were sent go on to another account unless a receipt comes.
    watched: int = 0

    @property
    def settled(self) -> bool:
        """Whether no job was busy and none may follow."""
        return not self.open and not self.watched and all(state in SETTLED for state in self.counts)

    def to_dict(self, id_: str) -> dict[str, Any]:
        """Return the document of the batch `id_`."""
        told = {"settled": self.settled, "open": self.open, "cancelled": self.cancelled}
        return {"schema": SCHEMA, "id": id_, "size": sum(self.counts.values()), "counts": dict(self.counts), **told}


def batch_state(fields: Mapping[bytes, bytes]) -> BatchState:
    """Read a batch as it lies in Redis: its counts, and the marks that `lua/job.lua` names."""
    stored = {state.value: int(fields.get(state.value.encode(), 0)) for state in State}
    counts = {state: count for state, count in stored.items() if count}
    return BatchState(counts=counts, open=b"o" in fields, cancelled=b"c" in fields, watched=int(fields.get(b"f", 0)))


class CodeVerdict(IntEnum):
    """What `lua/check.lua` and `lua/judged.lua` say of a code."""

    RIGHT = 1
    #: Not right, or not to be told to this caller: the verification's status says why.
    WRONG = 0
    NO_VERIFICATION = -1
    PROVIDER_JUDGES = -2
    #: Another code was sent since: the id of that verification stands in place of the status.
    RESENT = -3


@cache
def script(name: str) -> Script:
    """Return `lua/<name>.lua` with the state tables and the shared parts before it."""
    folder = resources.files("dispatcher") / "lua"

    def parts(*names: str) -> str:
        return "".join((folder / f"{one}.lua").read_text() for one in names)

    if name in _OF_LIMITS_ONLY:
        shared, write = parts("base", "writes", "limits"), "write_sets"
    elif name in _OF_EVENTS:
        shared, write = parts("base", "writes", "events"), "write_sets"
    elif name.startswith(_OF_NOTICES):
        shared, write = parts("base", "writes", "notices"), "write_sets"
    else:
        users = {"limits": _OF_LIMITS, "claims": _OF_CLAIMS, "codes": _OF_CODES}
        more = [one for one, those in users.items() if name in those]
        shared, write = lua_tables() + parts("base", "writes", "usage", "job", *more), "write_all"
    # A function, so that none returns without writing what it changed.
    own = parts(*_MADE_OF.get(name, (name,)))
    source = f"{shared}local function script()\n{own}end\nlocal said = script()\n{write}()\nreturn said\n"
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class Calls:
    """The calls that the scripts answer, with the deployment's times filled in."""

    def __init__(self, settings: Settings) -> None:
        """Take retention, lease and mode from `settings`."""
        self._keep = int(settings.longest_kept * 1000)
        self._keys_kept = int(settings.keep_idempotency * 1000)
        self._events_kept = int(settings.events_retention * 1000)
        self._usage_kept = int(settings.usage_retention * 1000)
        self._lease = int(settings.lease * 1000)
        self._lost_after = int(settings.lost_after * 1000)
        self._probe_every = int(settings.probe_every * 1000)
        self._receipts_within = int(settings.receipts_within * 1000)
        self._breaker = BreakerRules(
            sample=settings.breaker_sample,
            share=settings.breaker_share,
            timeouts=settings.breaker_timeouts,
            pause=settings.breaker_pause,
        )
        self._hold = settings.deadline + _LEASE_SLACK
        self._mode = "sandbox" if settings.sandbox else "live"
        #: Tells one hash key from another, and nothing else of it.
        self._hash_key = settings.hashed("hash key")

    def enter(self) -> Call[None]:
        """Enter as a worker. Raises `ConfigurationError` where the jobs here are not ours to do."""
        return Call(script("enter"), [self._mode, self._hash_key], self._refuse_stranger)

    def create(
        self,
        provider: str,
        *,
        high: bool,
        batch: str,
        records: Sequence[Record],
        more: bool = False,
        callback: str = "",
    ) -> Call[Created]:
        """Write jobs of one provider and lane, all or none; answers when, and the id of each.

        An id differs from its record's where the same idempotency key had made that job before, or a redrive of the
        same job; it is "" where that went on since it was read. The batch is open afterwards where `more` of it follow,
        else closed; of its settling its `callback` is told. Raises `IdempotencyConflict`, `InvalidRequest` where the
        batch was cancelled, and `ConfigurationError` where the jobs in this Redis are of another kind or hash key.
        """
        asked = {"provider": provider, "high": high, "batch": batch, "more": more}
        if callback:
            asked["callback"] = callback
        asked |= {"mode": self._mode, "hash_key": self._hash_key, "keep": self._keep, "keep_keys": self._keys_kept}
        arguments = pack(records, asked)
        ids = [one.id for one in records]
        return Call(script("create"), arguments, lambda answer: self._read_created(answer, ids, batch), durable=True)

    def close(self, batch: str, *, cancelled: bool = False) -> Call[int | None]:
        """Say that no more jobs of `batch` follow, or that none may; answers how many it has, None for no batch."""
        arguments = [batch, "cancelled" if cancelled else "", self._keep]
        return Call(script("close"), arguments, lambda answer: None if answer < 0 else int(answer), durable=cancelled)

    def take(self, token: str, ids: Sequence[str], *, alone: bool = False) -> Call[Taken]:
        """Take the queued jobs among `ids` into the hands of `token`, for as long as a lease; suspects only `alone`."""
        # Each once: named twice, a job would be found in the own hands and sent twice.
        unique = dict.fromkeys(ids)
        return Call(script("take"), [token, "1" if alone else "", self._lease, self._keep, *unique], _read_taken)

    def touch(self, ids: Sequence[str]) -> Call[int]:
        """Say that a message with these jobs waits in a live worker's hands, so that nobody takes it for lost."""
        return Call(script("touch"), list(ids), int)

    def absolve(self, token: str, ids: Sequence[str]) -> Call[int]:
        """Forget that earlier holders died of what `token` took and found harmless."""
        return Call(script("absolve"), [token, *ids], int)

    def release(self, token: str, ids: Sequence[str]) -> Call[list[str]]:
        """Give back what `token` took and did not claim; answers what that was."""
        return Call(script("release"), [token, *ids], _decoded)

    def claim(self, claims: Sequence[Claim], *, ends_only: bool = False) -> Call[list[str | None]]:
        """Claim jobs just before their requests are written; those of several messages may share a call.

        Answers for each None where it is its token's, else the state it is in, and "failed:refused" where a budget or
        its country ended it just now, and "queued:worker" where somebody wants no texts and its number has no hash.
        With `ends_only` nothing is claimed: it ends what must not be sent.
        """
        rules = {name: rule for one in claims for name, rule in one.text.counters.items()}
        positions = {name: str(position) for position, name in enumerate(rules, start=1)}
        arguments: list[bytes | str | float] = [self._lease, self._keep, "1" if ends_only else "", len(rules)]
        for name, rule in rules.items():
            unit = f"money {rule.currency}" if rule.unit == "money" else rule.unit
            arguments += (name, rule.text, unit, rule.per, rule.cap, rule.warn)
        for one in claims:
            text = one.text
            arguments += (one.token, one.id, one.repeat, one.number, text.country, text.segments, text.each)
            arguments += (" ".join(positions[name] for name in text.counters), one.scopes, len(one.fields))
            for pair in one.fields.items():
                arguments += pair
        return Call(script("claim"), arguments, lambda answer: [_state(one) for one in answer[1:]], durable=True)

    def reclaim(self, claim: Call[Any], answer: Sequence[Any]) -> Call[int]:
        """Assert again what `claim` won by its raw `answer`, where Redis lost that; answers how much it was."""
        won = "".join("1" if one == 1 else "0" for one in answer[1:])
        return Call(script("reclaim"), [won, *claim.arguments], int)

    def balance(self, account: str, left: str, below: str, *, low: bool) -> Call[bool]:
        """Write that the balance of `account` is `low`, or no more; answers whether that was told just now."""
        arguments: list[bytes | str | float] = [account, left, below, "1" if low else ""]
        return Call(script("balance"), arguments, lambda answer: bool(answer == 1))

    def pulse(self, process: str) -> Call[tuple[int, int]]:
        """Note that `process` claims, and how far history goes.

        Answers how many claims there ever were, and the moment in ms on Redis' clock.
        """
        return Call(script("pulse"), [process, _PROCESSES_KEPT], lambda answer: (int(answer[0]), int(answer[1])))

    def settle(self, run: str, claims: int) -> Call[int]:
        """Begin to trust the history of the server's run `run`; there were that many claims."""
        return Call(script("settle"), [run, claims], int)

    def hold(self, run: str, until: int, most: int = MOST) -> Call[int]:
        """Hold as unknown what was made until then, ms on Redis' clock, and may have been sent.

        Again until it answers 0, and not once the history of the server's run `run` is trusted.
        """
        return Call(script("hold"), [run, until, self._keep, most], int)

    def advance(self, moves: Sequence[Advance], *, durable: bool = False) -> Call[list[str]]:
        """Write what became of jobs; answers the state of each, "" where the move was refused."""
        arguments: list[bytes | str | float] = [self._keep, self._receipts_within]
        for one in moves:
            code_ttl = "" if one.code_ttl is None else int(one.code_ttl * 1000)
            arguments += (
                one.id,
                one.guard,
                one.state,
                one.detail,
                one.wait,
                int(one.delay * 1000),
                "1" if one.lined else "",
                one.tried,
                code_ttl,
                one.receipt,
                int(one.look * 1000),
                one.account,
                one.goal,
                int(one.watched * 1000),
            )
            arguments.append(len(one.fields))
            for pair in one.fields.items():
                arguments += pair
        lasting = all(not one.guard.startswith("=") for one in moves)
        return Call(script("advance"), arguments, _decoded, durable=durable, lasting=lasting)

    def receipts(self, words: Sequence[Word]) -> Call[list[str]]:
        """Take in what providers told of jobs afterwards; answers for each "moved", "late", "forgotten" or "early".

        *Late* is what changes nothing, since it was told before or leads back; *forgotten* what is about a person who
        is; *early* what waits for its job's own answer, which tells the reference.
        """
        arguments: list[bytes | str | float] = [self._keep, self._receipts_within]
        for one in words:
            arguments += (one.provider, one.own, one.key, one.state or "", one.detail, one.part, one.parts)
            arguments.append(len(one.fields))
            for pair in one.fields.items():
                arguments += pair
        return Call(script("receipts"), arguments, _decoded, lasting=True)

    def forget(self, jobs: Sequence[tuple[str, bytes]]) -> Call[list[str]]:
        """Forget whom jobs are about; each comes with the public part that it has from then on.

        Answers for each "forgotten", or "cancelled" where it was taken back for that, "before" where it was already,
        "sending" where it may be on the wire and stays as it is, "gone" where it is not kept any more.
        """
        arguments: list[bytes | str | float] = [self._keep]
        for pair in jobs:
            arguments += pair
        return Call(script("forget"), arguments, _decoded, durable=True)

    def follow(self, provider: str, *, sent: bool, unknown: bool, most: int) -> Call[list[list[bytes]]]:
        """Take the jobs of `provider` whose fate it is time to ask for; `records.followed` reads each.

        `sent` and `unknown` say which of them it can be asked about. Those whose time is over are given up.
        """
        asked = ["1" if one else "" for one in (sent, unknown)]
        arguments: list[bytes | str | float] = [
            provider,
            *asked,
            self._receipts_within,
            _BETWEEN_LOOKS,
            _LONGEST_LOOK,
            most,
        ]
        return Call(script("follow"), arguments, list)

    def waiting(self) -> Call[tuple[list[str], list[str]]]:
        """Tell where the clock has something to do: queues with due jobs, accounts with jobs that wait for a turn."""
        return Call(script("waiting"), [], lambda answer: (_decoded(answer[0]), _decoded(answer[1])))

    def due(self, queue: str, most: int = MOST) -> Call[tuple[int, list[str]]]:
        """Let the jobs of `queue` go on whose time has come; answers how many, and those that the caller publishes.

        The others wait for their turn.
        """
        return Call(script("due"), [queue, most], lambda answer: (int(answer[0]), _decoded(answer[1])))

    def deal(self, account: str, most: int = MOST) -> Call[dict[str, list[str]]]:
        """Hand jobs that wait for their turn to the workers of `account`; the caller publishes them, by queue."""
        queues = both_queues(account)
        return Call(
            script("deal"),
            [account, _AHEAD, most],
            lambda answer: dict(zip(queues, map(_decoded, answer), strict=True)),
        )

    def lost(self, queue: str, *, empty: bool, most: int = MOST) -> Call[list[str]]:
        """Answer the jobs of `queue` whose message is lost; the caller publishes them."""
        return Call(script("lost"), [queue, "1" if empty else "", self._lost_after, most], _decoded)

    def sweep(self, most: int = MOST) -> Call[tuple[int, int]]:
        """End dead workers' leases, expire what was not sent in time, trim; answers how many of the first two."""
        arguments = [self._keep, self._events_kept, self._lost_after, most, self._usage_kept]
        return Call(script("sweep"), arguments, lambda answer: (int(answer[0]), int(answer[1])))

    def suspend(
        self, account: str, scope: str, failure: Failure, operations: Iterable[str]
    ) -> Call[tuple[bool, Suspension]]:
        """Suspend `operations` of an account, all where there is none; answers whether that is new, and how it is.

        The failure's words are masked by the caller.
        """
        words = (failure.kind, failure.code, failure.message, " ".join(sorted(operations)))
        arguments: list[bytes | str | float] = [account, scope, self._until_probe(scope), *words]
        return Call(script("suspend"), arguments, lambda answer: (answer[0] == 1, read_suspension(account, answer[1])))

    def resume(self, account: str, scopes: Iterable[str] = ()) -> Call[list[Suspension]]:
        """Lift what is suspended of an account, all where no scope is named; answers what that was."""
        return Call(
            script("resume"), [account, *scopes], lambda answer: [read_suspension(account, one) for one in answer]
        )

    def suspended(self, accounts: Sequence[str]) -> Call[tuple[int, list[Suspension]]]:
        """Answer the moment, in ms since 1970 on Redis' clock, and what is suspended of these accounts then."""

        def read(answer: list[Any]) -> tuple[int, list[Suspension]]:
            found = [
                read_suspension(account, one)
                for account, some in zip(accounts, answer[1:], strict=True)
                for one in some
            ]
            return int(answer[0]), sorted(found, key=lambda one: (one.provider, one.scope))

        return Call(script("suspended"), list(accounts), read)

    def probe(
        self, account: str, scope: str, *, soonest: float | None = None, at_any_time: bool = False, left: str = ""
    ) -> Call[bool]:
        """Claim the look at a suspension whose time has come; answers whether it is the caller's to make.

        The next one is due `soonest` seconds from now at the earliest, usually as the settings say. `at_any_time` does
        so before its time, too; `left` notes what the account has.
        """
        usual = self._until_probe(scope)
        until = usual if soonest is None else min(usual, int(soonest * 1000))
        arguments: list[bytes | str | float] = [account, scope, until, "1" if at_any_time else "", left]
        return Call(script("probe"), arguments, lambda answer: bool(answer == 1))

    def free(
        self, queue: str, cursor: str, operations: Iterable[str] = (), *, one: bool = False, most: int = MOST
    ) -> Call[tuple[str, list[str]]]:
        """Let jobs of `queue` go on that wait for a suspension of `operations`, all where there is none.

        A portion at a time, from cursor "0" until it answers that cursor again; beside it the ids. `one` takes a
        single job, which the caller executes.
        """
        arguments: list[bytes | str | float] = [queue, cursor, most, " ".join(operations), "1" if one else ""]
        return Call(script("free"), arguments, lambda answer: (_text(answer[0]), _decoded(answer[1])))

    def permit(
        self,
        account: str,
        limits: Limits,
        asks: Sequence[Ask],
        *,
        run: str = "",
        granted: bool = False,
        address: str = "",
    ) -> Call[list[Granted | Refused]]:
        """Ask for permits for requests to `account`, each in its turn.

        `run` is the server's as the caller knows it, and `granted` says that it was ever granted something: where Redis
        knows nothing of that, it was lost. `address` is where the requests leave from.
        """
        arguments: list[bytes | str | float] = [account, self._limits(limits), run, "1" if granted else "", address]
        arguments.append(len(asks))
        for one in asks:
            arguments += (one.id, "1" if one.high else "", one.what, one.jobs, one.ahead, len(one.draws))
            for pair in one.draws.items():
                arguments += pair
        return Call(script("permit"), arguments, lambda answer: [_read_permit(one) for one in answer])

    def learn(self, account: str, limits: Limits, ends: Sequence[Ended], *, address: str = "") -> Call[int]:
        """Learn how requests ended that had a permit: their leases go back, penalty and breaker are told."""
        arguments: list[bytes | str | float] = [account, self._limits(limits), address]
        for one in ends:
            took = "" if one.seconds is None else time_class(one.seconds)
            arguments += (one.id, one.moment, one.letters, _or_empty(one.throttled), "1" if one.limited else "", took)
        return Call(script("learn"), arguments, int)

    def limits_shown(self, account: str) -> Call[LimitState]:
        """Show the limits of an account, its breaker and how its requests ended of late."""
        return Call(script("limits_shown"), [account], lambda answer: read_state(account, answer))

    def _limits(self, limits: Limits) -> str:
        return configuration(limits, self._breaker, self._hold)

    def _until_probe(self, scope: str) -> int:
        return self._probe_every * (_PERMISSIONS if scope.startswith(OPERATION) else 1)

    def check(self, id_: str, code_hash: str, tries: int) -> Call[tuple[CodeVerdict, str]]:
        """Judge a code, which may be checked `tries` times; answers the verdict and the verification's status."""
        return Call(script("check"), [call_name(), id_, code_hash, tries], _read_checked)

    def judged(
        self, told: Checked, code_hash: str, *, tries: int, asked: bool = False
    ) -> Call[tuple[CodeVerdict, str]]:
        """Write what a provider that checks codes itself said of one; answers as `check` does.

        `asked` says that it is asked for whoever typed the code: of all who do, one is told that it is right.
        """
        right = ("?" if told.doubtful else "1") if told.valid else ""
        arguments: list[bytes | str | float] = [told.verification, code_hash, told.status, right, tries]
        arguments.append(call_name() if asked else "")
        return Call(script("judged"), arguments, _read_checked)

    def uncode(self, id_: str) -> Call[list[str]]:
        """Take a verification's code back; answers the id that it has by now and its status, or nothing."""
        return Call(script("uncode"), [id_, self._keep], _decoded, durable=True)

    def _read_created(self, answer: list[Any], ids: list[str], batch: str) -> Created:
        verdict, *rest = answer
        if verdict == b"CONFLICT":
            raise IdempotencyConflict(rest[1].decode(), int(rest[0]))
        if verdict == b"CANCELLED":
            raise InvalidRequest("batch_id", "was cancelled and takes no more messages; use another batch_id", batch)
        self._refuse_stranger(answer)
        at, changed, refused, out = rest
        for position, id_ in zip(changed[::2], changed[1::2], strict=True):
            ids[position] = id_.decode()
        return Created(int(at), ids, _decoded(refused), _decoded(out))

    def _refuse_stranger(self, answer: list[Any]) -> None:
        if answer[0] == b"MODE":
            raise ConfigurationError(
                f"this Redis holds {answer[1].decode()} jobs, and with DISPATCHER_SANDBOX as it is these are "
                f"{self._mode} ones; give each a Redis (or a database number) of its own"
            )
        if answer[0] == b"KEY":
            raise ConfigurationError(
                "DISPATCHER_HASH_KEY is not the one that the jobs in this Redis were made with: no code would ever be "
                "right and no number found; give every process the same"
            )


def call_name() -> str:
    """Return a name for one call, by which a script knows it again when its answer was lost."""
    return secrets.token_urlsafe(9)


def _or_empty(value: int | None) -> str | int:
    return "" if value is None else value


def _text(answer: bytes | int) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def _decoded(answer: list[bytes]) -> list[str]:
    return [one.decode() for one in answer]


def _state(answer: Any) -> str | None:
    return None if answer == 1 else str(answer.decode())


def _read_taken(answer: list[Any]) -> Taken:
    records, suspects, idle, at = answer
    return Taken(records, _decoded(suspects), [(id_.decode(), state.decode()) for id_, state in idle], int(at))


def _read_permit(answer: list[bytes]) -> Granted | Refused:
    verdict, first, second, third = answer
    if verdict == b"1":
        return Granted(wait=int(first), moment=int(second), probe=third == b"1")
    return Refused(delay=int(first), reason="breaker" if second == b"breaker" else "limit", own=third == b"1")


def _read_checked(answer: list[Any]) -> tuple[CodeVerdict, str]:
    return CodeVerdict(answer[0]), answer[1].decode() if len(answer) > 1 else ""
