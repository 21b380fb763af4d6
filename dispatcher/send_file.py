"""`dispatcher send-file`: a file of recipients becomes one batch, a portion at a time.

Each line has an idempotency key made of the batch and its number, and a file's batch is named by what is in it and what
is made of it. So a run that was stopped, however badly, is continued by the same command: what was enqueued is known.
"""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dispatcher import drafts, files, routes
from dispatcher.batches import looks
from dispatcher.calls import MOST, BatchState
from dispatcher.errors import (
    DispatcherError,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
    WaitTimeout,
)
from dispatcher.files import Recipe, Rejected, Row, Table
from dispatcher.jobs import Category, Message, Send, Terms, new_id
from dispatcher.privacy import one_line, shown
from dispatcher.settings import Settings
from dispatcher.sources import Interrupted, Rejects, Source, Stop, lines, opened
from dispatcher.states import GOOD, SETTLED
from dispatcher.text import Forcing, Segments, downgrade, in_words, segments

#: Characters that a dry run tells of, those that force the most texts into UCS-2.
_FORCING: Final = 5

#: Reasons that are shown; the file of rejects has all of them.
_SHOWN: Final = 3


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was asked for."""

    #: A path, or "-" for standard input.
    file: str
    #: None: by the file's ending.
    format: Literal["csv", "jsonl"] | None = None
    #: None: as the first line shows.
    delimiter: str | None = None
    encoding: str = "utf-8"
    #: The column of the number; None: the first that has a usual name.
    to: str | None = None
    #: The template; None: each row's own.
    text: str | None = None
    #: None: named by the file.
    batch_id: str | None = None
    #: None: beside the file.
    rejects: Path | None = None
    dry_run: bool = False
    #: Seconds to wait for the batch to be settled; None: not at all.
    wait: float | None = None
    #: What `send_many` takes for all messages alike, by its names.
    terms: dict[str, Any]

    def __repr__(self) -> str:
        """Leave the text out."""
        return f"Asked({self.file})"


class Culprit(msgspec.Struct, frozen=True):
    """A character that GSM-7 does not have, and in how many lines it stands."""

    character: str
    name: str
    lines: int
    #: What smart encoding sends in its place; None where nothing says the same.
    replacement: str | None


class Texts(msgspec.Struct):
    """What the texts of a file cost, as a dry run found."""

    #: Parts by encoding.
    segments: dict[str, int]
    #: Lines whose text is sent in UCS-2.
    ucs2_lines: int = 0
    #: The characters that make it so in the most lines.
    forcing: list[Culprit] = []
    #: Parts that smart encoding would save; 0 where it is on.
    savable: int = 0


class Report(msgspec.Struct):
    """What came of it; with `--json` this is what is printed."""

    batch_id: str
    dry_run: bool = False
    #: Rows that were dealt with: neither blank nor the line of names.
    lines: int = 0
    #: Jobs made now.
    enqueued: int = 0
    #: Lines whose job was there before.
    known: int = 0
    rejected: int = 0
    #: Where the rejected lines are.
    rejects: str | None = None
    #: Lines that can be sent; a number that is there twice counts twice.
    recipients: int = 0
    #: Parts that their texts are sent as.
    segments: int = 0
    #: More of that, after a dry run.
    texts: Texts | None = None
    #: The line of the file after which it stopped; None where it came to the end.
    stopped_after: int | None = None
    #: How many of the batch's jobs are in each state, where that was waited for.
    states: dict[str, int] | None = None

    @property
    def good(self) -> bool:
        """All lines were taken and, where it was waited for, ended well."""
        return self.stopped_after is None and not self.rejected and GOOD.issuperset(self.states or {})


class Made(Protocol):
    """What `send_many` answers."""

    @property
    def created(self) -> int:
        """How many jobs the call made; the others were there."""


class Enqueues(Protocol):
    """What the messages are given to: the dispatcher."""

    @property
    def send_many(self) -> Callable[..., Made]:
        """Enqueue a portion of a batch, with the terms that were asked for."""

    def line_types(self, numbers: Sequence[str]) -> dict[str, str]:
        """Return what lookups told of the lines of numbers."""

    def close_batch(self, batch_id: str) -> object:
        """Say that no more of a batch follow."""

    def batch_state(self, id_: str) -> BatchState:
        """Return where a batch stands."""


def _format(asked: Asked) -> str:
    by_ending = "jsonl" if Path(asked.file).suffix.lower() in {".jsonl", ".ndjson", ".json"} else "csv"
    return asked.format or by_ending


# -- the run -----------------------------------------------------------------------------------------------------------


class Line(msgspec.Struct):
    """A row and the message it makes, or why it makes none."""

    row: Row
    message: Message | None = None
    reason: str = ""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"Line({self.row.line})"


class Counted:
    """Adds up what texts cost."""

    def __init__(self) -> None:
        """Begin with none."""
        self._texts = Texts(segments={"GSM-7": 0, "UCS-2": 0})
        self._lines: Counter[str] = Counter()
        self._found: dict[str, Forcing] = {}

    def add(self, size: Segments, text: str) -> None:
        """Count one text of this size."""
        self._texts.segments[size.encoding] += size.count
        if size.encoding == "GSM-7":
            return
        self._texts.ucs2_lines += 1
        self._texts.savable += size.count - segments(downgrade(text)).count
        self._lines.update(one.character for one in size.forcing)
        self._found.update((one.character, one) for one in size.forcing)

    def told(self) -> Texts:
        """Return what came of it until now."""
        most = [(self._found[character], lines) for character, lines in self._lines.most_common(_FORCING)]
        forcing = [Culprit(one.character, one.name, lines, one.replacement) for one, lines in most]
        return msgspec.structs.replace(self._texts, forcing=forcing)


class Run:
    """One run over one file."""

    def __init__(
        self, asked: Asked, settings: Settings, target: Enqueues | None, stop: Stop, say: Callable[[str], object]
    ) -> None:
        """A dry run needs no `target`; what must be known before the end is said by `say`.

        Raises `InvalidRequest` for what would be wrong with every line.
        """
        self.report = Report("", dry_run=asked.dry_run)
        self._texts = Counted() if asked.dry_run else None
        #: What the first of the rejected lines are rejected for, fit to be shown.
        self.reasons: list[str] = []
        #: Why it stopped or did not end well, in words; what is in the report need not be said.
        self.why = ""
        self._asked = asked
        self._settings = settings
        self._target = None if asked.dry_run else target
        self._stop = stop
        self._say = say
        self.named_by_content = False
        self._terms, self._delimiter = _check(asked, settings)
        #: Nobody could know the batch's name without being told.
        self._unheard = False
        self._interrupted = False
        self._begun = False
        self._done = 0

    @property
    def code(self) -> int:
        """What the command exits with."""
        if self._interrupted:
            return 130
        return 0 if self.report.good and not self.why else 1

    def __call__(self) -> Self:
        """Do it. What is wrong from the start is raised; what comes later makes it stop, and `why` tells."""
        try:
            with (
                opened(self._asked.file, self._asked.encoding, self._stop) as source,
                closing(lines(source, self._stop)) as read,
            ):
                self._read(source, read)
        except Interrupted:
            self._interrupted = True
            self._stopped()
        except DispatcherError as error:
            if not self._begun:
                raise
            self._stopped(error)
        else:
            if self.report.recipients and self._target:
                self._wait(self._target, self._asked.wait)
        return self

    def _read(self, source: Source, read: Iterator[str]) -> None:
        ending = _format(self._asked)
        table = files.read_json(read) if ending == "jsonl" else files.read_csv(read, self._delimiter)
        recipe = files.recipe(table.columns, self._asked.to, self._asked.text)
        self.report.batch_id = self._batch(source, recipe)
        rejects = Rejects(self._rejects(source, ending), source, table.heading)
        complete = False
        try:
            with _bar("lines", source.lines) as advance:
                for done in self._portions(table, recipe, rejects):
                    advance(done)
            if self._target:
                with suppress(NotFound):  # no line was good
                    self._target.close_batch(self.report.batch_id)
            complete = True
        finally:
            rejects.close(complete=complete)

    def _batch(self, source: Source, recipe: Recipe) -> str:
        if self._asked.batch_id is not None:
            return self._asked.batch_id
        if source.digest is None:
            self._unheard = True
            made = new_id()
            self._say(f"batch {made}; if this is cut short, the same input with --batch-id {made} continues")
            return made
        self.named_by_content = True
        # How the file is to be read is left out: who only mends that goes on with the same batch.
        made = msgspec.json.encode((self._asked.text, recipe.to, self._asked.terms), order="deterministic").decode()
        hashed = base64.urlsafe_b64decode(self._settings.keyed("send-file", source.digest, made))
        return files.batch_name(source.name, hashed.hex()[:12])

    def _rejects(self, source: Source, ending: str) -> Path:
        if self._asked.rejects is not None:
            return self._asked.rejects
        if source.digest is None:
            return Path(f"{self.report.batch_id}.rejects.{ending}")
        # A dry run leaves alone what a real one wrote.
        return Path(f"{source.name}{'.dry-run' if self._asked.dry_run else ''}.rejects.{ending}")

    def _portions(self, table: Table, recipe: Recipe, rejects: Rejects) -> Iterator[int]:
        """Take the rows a portion at a time, and yield the line that each ends with; `report` is as far."""
        while portion := [self._line(row, recipe) for row in islice(table.rows, MOST)]:
            self._refuse(portion)
            self._enqueue(portion)
            self._count(portion, table, rejects)
            self._done = portion[-1].row.line
            yield self._done

    def _line(self, row: Row, recipe: Recipe) -> Line:
        try:
            made = files.message(row, recipe, self.report.batch_id)
            # As it will be sent, so that what is measured here is what it costs.
            text = drafts.spelled(self._settings, made.text, self._asked.terms.get("smart_encoding"))
            made = made if text == made.text else msgspec.structs.replace(made, text=text)
            request = Send(to=made.to, text=made.text)
            drafts.check_text(self._settings, request, self._asked.terms.get("max_segments"))
            own = made.timezone
            terms = self._terms if own is None else msgspec.structs.replace(self._terms, timezone=own)
            drafts.held(self._settings, request, terms)
        except Rejected as why:
            return Line(row, reason=str(why))
        except InvalidRequest as why:
            return Line(row, reason=f"{why.field}: {why.reason}")
        return Line(row, made)

    def _refuse(self, portion: Sequence[Line]) -> None:
        """Reject the lines that a rule of `DISPATCHER_ROUTES` refuses; a dry run knows nothing of lookups."""
        rules, told = self._settings.routing, self._asked.terms
        if told.get("provider") is not None or not any(rule.refuses for rule in rules):
            return
        terms = drafts.terms(told.get("category", Category.TRANSACTIONAL), None, "", None, "")
        some = [
            (line, drafts.facts(Send(to=line.message.to, text=line.message.text, sender=told.get("sender", "")), terms))
            for line in portion
            if line.message
        ]
        asked = [facts.number for _, facts in some if facts and routes.asks_for_line(rules, facts)]
        known = self._target.line_types(asked) if self._target and asked else {}
        for line, facts in some:
            if facts is None:
                continue
            rule = routes.first(rules, msgspec.structs.replace(facts, line_type=known.get(facts.number, "")))
            if rule is not None and rule.refuses:
                line.message, line.reason = None, f"to: {rule.refusal}"

    def _enqueue(self, portion: Sequence[Line]) -> None:
        """Enqueue those that have a message.

        Raises `InvalidRequest` where a line is not what the batch has of it: then a line may have moved, and whoever
        stands at another one now would be texted again.
        """
        some = [line for line in portion if line.message]
        if not some or not self._target:
            return
        try:
            messages = [line.message for line in some if line.message]
            made = self._target.send_many(messages, batch_id=self.report.batch_id, more=True, **self._asked.terms)
        except IdempotencyConflict as conflict:
            raise InvalidRequest(
                "--batch-id",
                f"has another text or number for line {some[conflict.position].row.line}, as job {conflict.job_id}: "
                "the file or the options changed since. Put what is new into a file of its own, and send that",
                self.report.batch_id,
            ) from None
        except StoreUnavailable:
            # Its answer may be all that was lost.
            self._begun = True
            raise
        else:
            self._begun = True
            self.report.enqueued += made.created
            self.report.known += len(some) - made.created

    def _count(self, portion: Sequence[Line], table: Table, rejects: Rejects) -> None:
        report = self.report
        for line in portion:
            if line.message:
                report.recipients += 1
                size = segments(line.message.text)
                report.segments += size.count
                if self._texts:
                    self._texts.add(size, line.message.text)
                continue
            rejects.add(table.reject(line.row, line.reason))
            report.rejected += 1
            report.rejects = str(rejects.path)
            if len(self.reasons) < _SHOWN:
                self.reasons.append(f"line {line.row.line}: {one_line(line.reason)}")
        report.lines += len(portion)
        report.texts = self._texts.told() if self._texts else None
        rejects.flush()

    def _stopped(self, error: DispatcherError | None = None) -> None:
        self.report.stopped_after = self._done
        again = "Run the same command again"
        if self._unheard:
            again = f"Run it again with --batch-id {self.report.batch_id} on the same input"
        where = f"after line {self._done}" if self._done else "at the start"
        self.why = f"{error}{' ' if str(error).endswith('?') else '. '}Stopped {where}" if error else f"Stopped {where}"
        # Against what is wrong with the request itself, running it again helps nobody.
        if not isinstance(error, InvalidRequest):
            self.why += f". {again} and it continues: what was enqueued is not enqueued twice"

    def _wait(self, target: Enqueues, timeout: float | None) -> None:
        if timeout is None:
            return
        try:
            with _bar("settled", self.report.recipients) as advance:
                for seconds in chain(looks(timeout), [0]):
                    state = target.batch_state(self.report.batch_id)
                    counts = self.report.states = state.counts
                    busy = sum(count for one, count in counts.items() if one not in SETTLED) + state.watched
                    if not busy:
                        return
                    advance(sum(counts.values()) - busy)
                    self._stop.obey()
                    time.sleep(seconds)
            self.why = str(WaitTimeout(f"batch {self.report.batch_id}", f"busy with {busy} jobs", "settled", timeout))
        except Interrupted:
            self._interrupted = True
            self.why = "Stopped waiting. All is enqueued and goes on by itself"
        except DispatcherError as error:
            self.why = str(error)


def _check(asked: Asked, settings: Settings) -> tuple[Terms, str | None]:
    """Return terms and delimiter of a file, having seen that the options can work.

    Raises `InvalidRequest` naming one that cannot.
    """
    if asked.batch_id is not None:
        drafts.batch_name(asked.batch_id)
    message = {name: value for name, value in asked.terms.items() if name in {"sender", "options"}}
    callback = {name: asked.terms.get(f"callback_{name}") for name in ("url", "task", "queue")}
    drafts.Callbacks(settings, **callback)
    others = {"provider", "max_segments", "smart_encoding", *message, *(f"callback_{name}" for name in callback)}
    terms = drafts.terms(**{name: value for name, value in asked.terms.items() if name not in others})
    Send(to="+447700900001", text="x", **message)
    delimiter = {"tab": "\t", "\\t": "\t"}.get(asked.delimiter or "", asked.delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise InvalidRequest("--delimiter", "must be one character such as ; or the word tab", shown(delimiter))
    return terms, delimiter


@contextmanager
def _bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; yields what is told of it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


# -- what is told ------------------------------------------------------------------------------------------------------


def summary(run: Run) -> Iterator[str]:
    """Yield what came of a run, in lines for people."""
    report = run.report
    counted = f"{_many(report.lines, 'line')}, {report.rejected} rejected, {_many(report.segments, 'segment')}"
    if report.dry_run:
        yield f"{_many(report.recipients, 'recipient')} in {counted}; a dry run, nothing was enqueued"
        if report.texts:
            yield from _costs(report.texts)
    else:
        yield f"batch {report.batch_id}: {report.enqueued} new, {report.known} were enqueued before; {counted}"
    if report.states is not None:
        yield ", ".join(f"{count} {state}" for state, count in report.states.items())
    if report.rejected:
        yield from (f"  {reason}" for reason in run.reasons)
        if report.rejected > len(run.reasons):
            yield f"  and {report.rejected - len(run.reasons)} more"
        yield f"The rejected lines are in {report.rejects}; mend a copy and send that"
    elif report.known and not report.enqueued and run.named_by_content:
        yield "The same command on the same file is the same batch; --batch-id NAME sends it another time"


def _costs(texts: Texts) -> Iterator[str]:
    if not texts.ucs2_lines:
        yield "All of them are in GSM-7"
        return
    yield (
        f"{_many(texts.ucs2_lines, 'line')} in UCS-2: {_many(texts.segments['UCS-2'], 'segment')} of 70 characters or "
        f"fewer, and {texts.segments['GSM-7']} of up to 160 in GSM-7"
    )
    for one in texts.forcing:
        yield f"  {in_words(one.character, one.name, one.replacement)}, in {_many(one.lines, 'line')}"
    if texts.savable:
        yield f"With --smart-encoding {_many(texts.savable, 'segment')} fewer"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
