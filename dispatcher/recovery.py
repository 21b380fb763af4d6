"""What an operator does about jobs that did not end well: say what became of one, have others made anew.

A job is redriven once. The new one is noted in the old one's record by the call that writes it, so that whoever repeats
a redrive, whatever had cut it short, gets the job that is there already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from dispatcher import checks, records
from dispatcher.accounts import Accounts
from dispatcher.batches import Redriven, Refused
from dispatcher.calls import MOST, MOST_MADE, Advance, Calls, Created
from dispatcher.drafts import Drafts
from dispatcher.errors import ConfigurationError, DispatcherError, IllegalMove, InvalidRequest, NotFound
from dispatcher.jobs import CHECK, Job, Kind, Lane
from dispatcher.optouts import LIST, refuses
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.privacy import Sealer, shown
from dispatcher.records import Ended, Record
from dispatcher.states import State
from dispatcher.store import JobStore

#: What is redriven without being named: what was taken back was taken back on purpose.
USUAL: Final = frozenset({State.FAILED, State.EXPIRED, State.UNDELIVERED})

#: What may be redriven; an `unknown` one only by who bears that it is sent twice.
_BAD: Final = USUAL | {State.CANCELLED}

#: What an operator may say became of an unknown job, and of which kinds.
_WORDS: Final = {
    State.SENT: (Kind.SEND, Kind.VERIFY),
    State.COMPLETED: (Kind.LOOKUP, Kind.OPERATION),
    State.FAILED: tuple(Kind),
}

#: Characters of an operator's note.
_NOTE: Final = 200

#: Refusals that a report tells one by one, and those that are shown to people.
_TOLD: Final = 1000
_SHOWN: Final = 10


# -- resolving ---------------------------------------------------------------------------------------------------------


def word(state: Any) -> State:
    """Return the state that an operator's word names. Raises `InvalidRequest` for another word."""
    if not isinstance(state, str) or state not in _WORDS:
        raise InvalidRequest("state", f"must be {', '.join([*_WORDS][:-1])} or {[*_WORDS][-1]}", shown(state))
    return State(state)


def resolved(job: Job, state: State, note: Any) -> Advance:
    """Return the move that an operator's word on an unknown job is. Raises `InvalidRequest` where it does not fit."""
    checks.text("note", note)
    if len(note) > _NOTE:
        raise InvalidRequest("note", f"has {len(note)} characters; at most {_NOTE} are kept")
    if job.kind not in _WORDS[state]:
        other = next(one for one, kinds in _WORDS.items() if job.kind in kinds)
        raise InvalidRequest("state", f"does not fit, the job's kind is {job.kind}; say {other} or failed", state.value)
    said = f"resolved as {state} by an operator"
    detail = records.line(f"{said}: {note}" if note.strip() else said)
    failure = Failure(kind=FailureKind.NOT_SENT, code="resolved", message=detail)
    fields: dict[State, dict[str, bytes | str | int]] = {
        State.SENT: {"y": "none"},
        State.FAILED: {"e": records.encode_failure(failure)},
    }
    return Advance(id=job.id, guard="=unknown", state=state, detail=detail, fields=fields.get(state, {}))


# -- redriving ---------------------------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs to redrive, where they are not named one by one."""

    states: frozenset[State]
    provider: str | None = None
    failure: FailureKind | None = None
    batch: str | None = None
    #: They came to their end in this time, in milliseconds since 1970 on Redis' clock.
    since: int = 0
    until: int
    #: The batch of what is made: that is not redriven again, however it ended meanwhile.
    made: str = ""

    def match(self, one: Ended) -> bool:
        """Say whether a job is meant. Nobody means the checks of codes, which are asked for anew."""
        return (
            one.state in self.states
            and self.provider in {None, one.provider}
            and self.failure in {None, one.failure}
            and self.batch in {None, one.batch}
            and self.since <= one.since <= self.until
            and one.batch != self.made
            and one.operation != CHECK
        )


def states(state: Any, *, resend: bool) -> frozenset[State]:
    """Return the states that are meant, the usual ones for None. Raises `InvalidRequest` for what is not redriven."""
    if state is None:
        return USUAL | {State.UNKNOWN} if resend else USUAL
    if isinstance(state, str) and state in _BAD:
        return frozenset({State(state)})
    if state != State.UNKNOWN:
        names = ", ".join(sorted(_BAD))
        raise InvalidRequest("state", f"must be one of {names}, or with resend unknown", shown(state))
    if not resend:
        raise InvalidRequest("state", "may have been sent; what is unknown is redriven with resend only", "unknown")
    return frozenset({State.UNKNOWN})


def paged(ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield ids a page at a time, each once in its page."""
    rest = iter(ids)
    while page := list(islice(rest, MOST)):
        yield list(dict.fromkeys(page))


def listed(store: JobStore, wanted: Wanted) -> Iterator[list[str]]:
    """Yield the ids of those that may be wanted, a page at a time: by account and state, the first to end first."""
    with store.errors():
        known: Any = [wanted.provider.encode()] if wanted.provider is not None else store.redis.smembers("d:p")
    for name in sorted(known):
        for state in sorted(wanted.states):
            yield from _span(store, f"d:i:{name.decode()}:{state}", wanted.since, wanted.until)


def _span(store: JobStore, key: str, since: int, until: int) -> Iterator[list[str]]:
    """Yield the members of a sorted set that have such scores, a page at a time."""
    skipped = 0
    while True:
        with store.errors():
            page: Any = store.redis.zrangebyscore(key, since, until, start=skipped, num=MOST, withscores=True)
        yield [id_.decode() for id_, _ in page]
        if len(page) < MOST:
            return
        last = int(page[-1][1])
        seen = sum(score == last for _, score in page)
        # Many may have ended in one millisecond.
        skipped = skipped + seen if last == since else seen
        since = last


class Writes(Protocol):
    """What writes records and publishes them: the dispatcher."""

    def __call__(self, provider: str, lane: Lane, batch: str, fresh: list[Record], *, more: bool) -> Created:
        """Answer the ids they have."""


class Draft(msgspec.Struct, frozen=True):
    """A job that is to be redriven, and the record that does it."""

    id: str
    ended: Ended
    lane: Lane
    record: Record

    def __repr__(self) -> str:
        """Show what finds it."""
        return f"Draft({self.id})"


class Redrive:
    """Makes jobs anew; one for each run."""

    def __init__(
        self, store: JobStore, calls: Calls, write: Writes, *, sealer: Sealer, drafts: Drafts, accounts: Accounts
    ) -> None:
        """Write by `write`; `drafts` and `accounts` say what can be asked for."""
        self._store = store
        self._calls = calls
        self._sealer = sealer
        self._drafts = drafts
        self._accounts = accounts
        self._write = write
        #: Why accounts cannot do operations, None where they can: nobody asks for each of a hundred thousand jobs.
        self._why: dict[tuple[str, str], DispatcherError | None] = {}

    def one(self, id_: str, *, resend: bool) -> str:
        """Redrive one job; return the id of the job that this made, or had made before.

        Raises `NotFound`, `IllegalMove`, and `InvalidRequest` or `ConfigurationError` where it cannot be.
        """
        (fields,) = self._read([id_])
        draft = self._draft(id_, fields, resend=resend)
        if isinstance(draft, str):
            return draft
        if self._leave_alone([draft]):
            raise _opted_out(id_)
        (made,) = self._write(draft.record.provider, draft.lane, "", [draft.record], more=False).ids
        if not made:
            raise _went_on(id_)
        return made

    def many(
        self,
        pages: Iterable[Sequence[str]],
        wanted: Wanted | None,
        batch: str,
        *,
        resend: bool,
        dry_run: bool,
        limit: int | None,
        progress: Callable[[Redriven], object],
    ) -> Redriven:
        """Redrive those that are `wanted`, all for None, as jobs of `batch`; one that cannot be stops no other.

        At most `limit` are made. `progress` is told after each page what came of it so far.
        """
        report = Redriven(dry_run=dry_run)
        try:
            for ids in pages:
                room = None if limit is None else limit - report.redriven
                fresh = self._chosen(ids, wanted, report, resend=resend, room=room)
                if dry_run:
                    for draft in fresh:
                        _count(report, draft)
                elif fresh:
                    # Before the first is written, so that the batch is closed whatever happens then.
                    report.batch_id = batch
                    self._make(fresh, report, batch)
                progress(report)
                if report.redriven == limit:
                    break
        except BaseException:
            with suppress(DispatcherError):
                self._close(report)
            raise
        self._close(report)
        if not report.redriven:
            report.batch_id = None
        return report

    def _close(self, report: Redriven) -> None:
        if report.batch_id is not None:
            self._store.run(self._calls.close(report.batch_id))

    def _chosen(
        self, ids: Sequence[str], wanted: Wanted | None, report: Redriven, *, resend: bool, room: int | None
    ) -> list[Draft]:
        """Return drafts for those of a page that can be redriven, `room` of them at most, and count the others."""
        looked = list(self._looked(ids, wanted, resend=resend))
        alone = self._leave_alone([draft for _, draft in looked if isinstance(draft, Draft)])
        fresh: list[Draft] = []
        for id_, draft in looked:
            if len(fresh) == room:
                break
            if isinstance(draft, str):
                report.known += 1
            elif isinstance(draft, DispatcherError):
                _refuse(report, id_, draft)
            elif id_ in alone:
                _refuse(report, id_, _opted_out(id_))
            else:
                fresh.append(draft)
        return fresh

    def _make(self, fresh: Sequence[Draft], report: Redriven, batch: str) -> None:
        together = defaultdict[tuple[str, Lane], list[Draft]](list)
        for draft in fresh:
            together[draft.record.provider, draft.lane].append(draft)
        for (provider, lane), drafts in together.items():
            for start in range(0, len(drafts), MOST_MADE):
                self._make_some(provider, lane, drafts[start : start + MOST_MADE], report, batch)

    def _make_some(self, provider: str, lane: Lane, drafts: Sequence[Draft], report: Redriven, batch: str) -> None:
        created = self._write(provider, lane, batch, [one.record for one in drafts], more=True)
        for draft, id_ in zip(drafts, created.ids, strict=True):
            if not id_:
                _refuse(report, draft.id, _went_on(draft.id))
            elif id_ in created.refused:
                _refuse(report, draft.id, _opted_out(draft.id))
            elif id_ != draft.record.id:
                report.known += 1
            else:
                _count(report, draft)

    # -- looking -----------------------------------------------------------------------------------------------------

    def _looked(
        self, ids: Sequence[str], wanted: Wanted | None, *, resend: bool
    ) -> Iterator[tuple[str, Draft | str | DispatcherError]]:
        """Yield for each that is wanted its draft, the id of the job it was redriven as, or why it cannot be."""
        for id_, fields in zip(ids, self._read(ids), strict=True):
            try:
                if wanted is None or (fields and wanted.match(_ended(id_, fields))):
                    yield id_, self._draft(id_, fields, resend=resend)
            except DispatcherError as error:
                yield id_, error

    def _read(self, ids: Sequence[str]) -> list[Mapping[bytes, bytes]]:
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hgetall(f"d:j:{one}")
            return list(pipe.execute())

    def _draft(self, id_: str, fields: Mapping[bytes, bytes], *, resend: bool) -> Draft | str:
        if not fields:
            raise NotFound("job", shown(id_))
        ended = _ended(id_, fields)
        if ended.redriven:
            return ended.redriven
        _check(id_, ended, resend=resend)
        _check_code(id_, ended, fields)
        public, request = records.stored(id_, fields, self._sealer)
        why = self._unable((*public.route, ended.provider)[0], public.operation)
        if why is not None:
            # One error for all of them: each shall not remember where it met the others.
            raise why.with_traceback(None)
        doubtful = ended.state == State.UNKNOWN or records.possible_duplicate(public, fields)
        callback = fields.get(b"cb", b"").decode()
        record = self._drafts.again(id_, ended, public, request, doubtful=doubtful, callback=callback)
        return Draft(id_, ended, public.lane, record)

    def _unable(self, provider: str, operation: str) -> DispatcherError | None:
        asked = (provider, operation)
        if asked not in self._why:
            self._why[asked] = None
            try:
                self._accounts.choose(provider, operation)
            except (InvalidRequest, ConfigurationError) as error:
                self._why[asked] = error
        return self._why[asked]

    def _leave_alone(self, drafts: Sequence[Draft]) -> set[str]:
        """Return those that text somebody who wants no more."""
        asked = [
            (one.id, f"{one.record.number} {scope}".rstrip())
            for one in drafts
            if one.record.texts and one.record.number and "ps" not in one.record.more
            for scope in ("", *one.record.scopes.split())
        ]
        if not asked:
            return set()
        with self._store.errors():
            listed: Any = self._store.redis.hmget(LIST, [field for _, field in asked])
        return {id_ for (id_, _), told in zip(asked, listed, strict=True) if refuses(told)}


def _ended(id_: str, fields: Mapping[bytes, bytes]) -> Ended:
    try:
        return records.ended(fields)
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        why = f"has a record that cannot be read: {error.__class__.__name__}"
        raise InvalidRequest("id_", why, shown(id_)) from None


def _check(id_: str, ended: Ended, *, resend: bool) -> None:
    """Raise `IllegalMove` where a job cannot be redriven as it stands, `InvalidRequest` where none like it can."""
    if ended.operation == CHECK:
        raise InvalidRequest("id_", "judged a code; ask check() again", id_)
    if ended.state == State.UNKNOWN and not resend:
        why = "it may have been sent; redrive it with resend if twice is better than not at all, or resolve it"
        raise IllegalMove(id_, ended.state, "redriven", why)
    if ended.state not in _BAD | {State.UNKNOWN}:
        why = "it is not over" if ended.state in {State.QUEUED, State.SENDING} else "there is nothing to redrive"
        raise IllegalMove(id_, ended.state, "redriven", why)


def _check_code(id_: str, ended: Ended, fields: Mapping[bytes, bytes]) -> None:
    """Raise `IllegalMove` for a verification whose person waits for no code of it any more."""
    if newer := fields.get(b"vn", b"").decode():
        raise IllegalMove(id_, ended.state, "redriven", f"another code was sent since, by job {newer}; resend that")
    if fields.get(b"vs") == b"approved":
        raise IllegalMove(id_, ended.state, "redriven", "its code was typed already")


def _opted_out(id_: str) -> DispatcherError:
    return InvalidRequest("id_", "texts somebody who asked for no more texts", id_)


def _went_on(id_: str) -> DispatcherError:
    return InvalidRequest("id_", "went on while it was looked at; look again", id_)


def _count(report: Redriven, draft: Draft) -> None:
    report.redriven += 1
    kinds = report.counts.setdefault(draft.ended.state.value, {})
    kinds[draft.ended.failure] = kinds.get(draft.ended.failure, 0) + 1


def _refuse(report: Redriven, id_: str, error: DispatcherError) -> None:
    report.refused += 1
    if len(report.refusals) < _TOLD:
        # What is nobody's id may be anything, such as a number.
        report.refusals.append(Refused(shown(id_) if isinstance(error, NotFound) else id_, why_not(error)))


def why_not(error: DispatcherError) -> str:
    """Return why a job was not redriven, in words that name the job and no argument."""
    if isinstance(error, InvalidRequest) and error.field == "id_":
        return f"job {error.value} {error.reason}"
    return str(error)


# -- what is told ------------------------------------------------------------------------------------------------------


def in_words(report: Redriven) -> Iterator[str]:
    """Yield what came of a run, in lines for people."""
    made = f"{_many(report.redriven)} {'would be ' if report.dry_run else ''}redriven"
    of = ", ".join(
        f"{count} {state}{f' {kind}' if kind not in {'', state} else ''}"
        for state, kinds in report.counts.items()
        for kind, count in kinds.items()
    )
    made += f" ({of})" if of else ""
    known = f", {report.known} {'was' if report.known == 1 else 'were'} redriven before" if report.known else ""
    refused = f", {report.refused} cannot be" if report.refused else ""
    where = "; a dry run, nothing was enqueued" if report.dry_run else ""
    yield (f"batch {report.batch_id}: " if report.batch_id else "") + made + known + refused + where
    yield from (f"  {one.id}: {one.reason}" for one in report.refusals[:_SHOWN])
    if report.refused > _SHOWN:
        yield f"  and {report.refused - _SHOWN} more"


def _many(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
