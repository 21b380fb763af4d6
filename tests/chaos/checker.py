"""Judges a run afterwards by what the provider's ledger says and what the jobs say: pure, and of no scenario's opinion.

To be told apart in the ledger, each job has a number of its own, or a text of its own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from dispatcher import Job, State
from dispatcher.jobs import Entry
from dispatcher.states import SETTLED, may
from workers.sandbox.limits import Counted
from workers.sandbox.world import MESSAGES, Row


class Rule(StrEnum):
    """What must hold after every run, whatever happened meanwhile."""

    ONCE = "no job is accepted twice without evidence, the caller's instruction or an operator's word in its history"
    SETTLED = "every accepted job is settled or truly scheduled, and none has vanished"
    SENT = "what is called sent, the provider's ledger has"
    OWNED_UP = "what the ledger has is called sent, unknown or later"
    MOVES = "every move in a history is one that the state table allows"
    PRIVATE = "what is private is seen nowhere"
    SUMS = "a batch's counts add up to its size"
    LIMIT = "no window of the provider's own count has more than its limit, and nothing is refused for it"
    #: What a scenario itself promises, such as how soon work goes on.
    PROMISE = "what the scenario promises holds"


class Broken(NamedTuple):
    """A rule that a run broke."""

    rule: Rule
    #: The job, the batch or the place it was seen at.
    where: str
    what: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.rule.name} {self.where}: {self.what}"


class Count(msgspec.Struct, frozen=True):
    """A batch: how many jobs were accepted into it, and how many it counts in each state."""

    size: int
    counts: Mapping[str, int]


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is known after a run."""

    #: All rows of the provider's ledger.
    rows: Sequence[Row]
    #: All jobs that the store has, revealed, by id.
    jobs: Mapping[str, Job]
    #: What producers remember of the jobs that were accepted: numbers by ids.
    accepted: Mapping[str, str]
    #: Of the accepted, those that may vanish, because the scenario took from the store what it had promised to keep.
    excused: frozenset[str] = frozenset()
    batches: Mapping[str, Count] = msgspec.field(default_factory=dict)
    #: What the provider counted where it has a limit.
    counted: Sequence[Counted] = ()
    #: What was kept, told or logged, by where; and what finds in it what must not be there.
    seen: Mapping[str, str] = msgspec.field(default_factory=dict)
    find: Callable[[str], Iterable[str]] = lambda _said: ()
    #: When it was looked.
    now: datetime


#: Where the provider may have it.
_TAKEN: Final = frozenset({State.SENT, State.DELIVERED, State.UNDELIVERED, State.COMPLETED})
_OWNED_UP: Final = _TAKEN | {State.UNKNOWN}

#: What a job may wait for, for long, through no fault of ours.
_SCHEDULED: Final = frozenset({"time", "quiet_hours"})

#: By whose word a job that may have been taken is sent again: so its history has to say.
_GROUNDS: Final = re.compile(r"sent again as the caller asked|by an operator|evidence")

#: What the ledger tells by number, and by text where there is one of the caller's own.
_Key = tuple[str, str, str]

#: The jobs that have a key, and the accepted rows that do.
_Pair = tuple[list[Job], list[Row]]


def judge(run: Run) -> list[Broken]:
    """Return what a run broke, nothing for a clean one."""
    pairs = _paired(run)
    return [
        broken
        for part in (
            _once(pairs),
            _settled(run),
            _sent(pairs),
            _owned_up(pairs, {_digits(run.accepted[id_]) for id_ in run.excused}),
            _moves(run.jobs.values()),
            _private(run),
            _sums(run),
            _limits(run.counted),
        )
        for broken in part
    ]


def lost(run: Run) -> list[str]:
    """Return the jobs that vanished or are stuck."""
    return [broken.where for broken in _settled(run)]


def repeated(run: Run) -> list[str]:
    """Return the jobs that were accepted more often than anybody wanted."""
    return [broken.where for broken in _once(_paired(run))]


def _digits(number: str) -> str:
    return number.removeprefix("+")


def _key(job: Job) -> _Key:
    return (job.operation, _digits(job.to), job.text if job.operation == "send" else "")


def _paired(run: Run) -> Mapping[_Key, _Pair]:
    """Put beside each other what should be the same, of texts and of lookups: those are about a number."""
    pairs: defaultdict[_Key, _Pair] = defaultdict(lambda: ([], []))
    for job in run.jobs.values():
        if job.operation in {*MESSAGES, "lookup"} and job.to:
            pairs[_key(job)][0].append(job)
    for row in run.rows:
        if row.accepted and row.kind in {*MESSAGES, "lookup"}:
            pairs[(row.kind, row.msisdn, row.text if row.kind == "send" else "")][1].append(row)
    return pairs


def _messages(pairs: Mapping[_Key, _Pair]) -> Iterator[tuple[_Key, _Pair]]:
    """Yield those of texts: asking about a number again does no harm, nor does it change anything."""
    return ((key, pair) for key, pair in pairs.items() if key[0] in MESSAGES)


def _name(jobs: Sequence[Job], key: _Key) -> str:
    return "+".join(job.id for job in jobs) or f"a {key[0]} of nobody's"


def _once(pairs: Mapping[_Key, _Pair]) -> Iterator[Broken]:
    for key, (jobs, rows) in _messages(pairs):
        allowed = max(1, len(jobs)) + sum(map(_grounds, jobs))
        if len(rows) > allowed:
            yield Broken(Rule.ONCE, _name(jobs, key), f"accepted {len(rows)} times, {allowed} would be right")


def _grounds(job: Job) -> int:
    """Count the times that it was sent again by somebody's word, where its readers are told of that."""
    again = [after.detail for before, after in _steps(job) if before.state != after.state == State.QUEUED]
    return sum(bool(_GROUNDS.search(one)) for one in again) if job.possible_duplicate else 0


def _over(job: Job, now: datetime) -> bool:
    if job.state in SETTLED:
        return True
    waits = job.waiting
    return waits is not None and waits.reason in _SCHEDULED and waits.until is not None and waits.until > now


def _settled(run: Run) -> Iterator[Broken]:
    for id_ in run.accepted:
        if id_ not in run.jobs and id_ not in run.excused:
            yield Broken(Rule.SETTLED, id_, "vanished")
    for job in run.jobs.values():
        if not _over(job, run.now):
            waits = f", waits for {job.waiting.reason}" if job.waiting else ""
            yield Broken(Rule.SETTLED, job.id, f"is {job.state}{waits}")


def _sent(pairs: Mapping[_Key, _Pair]) -> Iterator[Broken]:
    for key, (jobs, rows) in pairs.items():
        sure = [job for job in jobs if job.state in _TAKEN]
        if len(sure) > len(rows):
            yield Broken(Rule.SENT, _name(sure, key), f"is {sure[-1].state}, and the ledger has it {len(rows)} times")


def _owned_up(pairs: Mapping[_Key, _Pair], excused: AbstractSet[str]) -> Iterator[Broken]:
    for key, (jobs, rows) in _messages(pairs):
        if not jobs and key[1] not in excused:
            yield Broken(Rule.OWNED_UP, _name(jobs, key), "is in the ledger, and no job is for it")
        if sum(job.state in _OWNED_UP for job in jobs) < min(len(rows), len(jobs)):
            states = ", ".join(sorted({str(job.state) for job in jobs} - _OWNED_UP))
            yield Broken(Rule.OWNED_UP, _name(jobs, key), f"is {states}, and the ledger has it")


def _steps(job: Job) -> Iterator[tuple[Entry, Entry]]:
    """Yield the neighbours in a history; where lines between them were forgotten, they are none."""
    forgotten = job.seq - len(job.history)
    yield from list(zip(job.history, job.history[1:], strict=False))[1 if forgotten else 0 :]


def _moves(jobs: Iterable[Job]) -> Iterator[Broken]:
    for job in jobs:
        if job.history[0].state != State.QUEUED or job.history[-1].state != job.state:
            yield Broken(
                Rule.MOVES, job.id, f"began {job.history[0].state}, ended {job.history[-1].state}, is {job.state}"
            )
        for before, after in _steps(job):
            # A line may also say something of a job that stays where it is.
            if before.state != after.state and not may(before.state, after.state):
                yield Broken(Rule.MOVES, job.id, f"went from {before.state} to {after.state}")


def _private(run: Run) -> Iterator[Broken]:
    for where, said in run.seen.items():
        for what in sorted(run.find(said)):
            yield Broken(Rule.PRIVATE, where, f"shows a canary: {what}")


def _sums(run: Run) -> Iterator[Broken]:
    for id_, batch in run.batches.items():
        if sum(batch.counts.values()) != batch.size:
            yield Broken(Rule.SUMS, id_, f"counts {dict(batch.counts)}, and its size is {batch.size}")


def _limits(counted: Iterable[Counted]) -> Iterator[Broken]:
    for one in counted:
        most = max(one.sliding, one.fixed)
        if one.most is not None and (one.refused or most > one.most):
            told = f"{most} {one.counts} in {one.seconds:g} s and {one.refused} refused, {one.most} may be"
            yield Broken(Rule.LIMIT, one.provider, told)
