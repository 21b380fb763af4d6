"""What is promised of jobs, as a model in plain Python.

It holds no more of a job than its consumers, its workers and its clock are promised: it knows the state table, and no
script. `tests.walk` makes the same calls on both, and compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dispatcher.states import SETTLED
from tests.unit.test_states import TABLE

#: Seconds, as the settings have them.
LEASE: Final = 60
LOST_AFTER: Final = 60
KEYS_KEPT: Final = 3600
RECEIPTS_WITHIN: Final = 3 * 86400
MONTH: Final = 30 * 86400

#: What `Bench` is to be made with. Events are never trimmed, though months pass.
SETTINGS: Final = {"idempotency_retention": KEYS_KEPT, "events_retention": 10 * 365 * 86400}

#: Seconds that a slot of the script that knows how far a queue is may be late.
_SLOT: Final = 10

QUEUES: Final = ("textgoto", "textgoto.high", "other", "other.high")
#: The accounts of a job that may go to several, in order.
ROUTE: Final = ("textgoto", "other")
BATCHES: Final = ("a", "b")
REFERENCES: Final = ("r1", "r2")

#: Where nobody may take a job that may have been taken before.
AS_IF_NOTHING_HAPPENED: Final = frozenset({"failed", "expired", "cancelled"})
BUSY: Final = frozenset({"queued", "sending"})
ENDED: Final = ("failed", "expired", "cancelled", "undelivered", "unknown")
GOOD_NEWS: Final = frozenset({"sent", "completed"})


@dataclass
class Job:
    """One job. Times are in milliseconds."""

    id: str
    queue: str
    batch: str
    number: str
    created: int
    state: str = "queued"
    #: When it came into this state.
    came: int = 0
    #: All states it was in.
    story: list[str] = field(default_factory=lambda: ["queued"])
    #: Where it is queued: its message is out since `published`, or it waits until `due`.
    out: bool = True
    published: int = 0
    due: int = 0
    #: It waits for its turn, in its line.
    lined: bool = False
    #: Published once only, so that its taking tells how far the queue is.
    first: bool = True
    #: Useless from then on, as long as it is queued.
    useless: int | None = None
    #: Who took it, until when, and how many took it and were never heard of again, the last one included.
    taker: str = ""
    held: int = 0
    taken: int = 0
    #: The claim that is live, or was the last.
    token: str = ""
    repeat: str = "never"
    lease: int = 0
    attempts: int = 0
    #: An earlier try may have been taken.
    doubtful: bool = False
    #: It was taken: how that is known ("sent", "undelivered") and where; and it is tried elsewhere.
    left: tuple[str, str] | None = None
    #: Where it may go, how far it came, and after how many ms it goes on though it was sent, None for never.
    route: tuple[str, ...] = ()
    at: int = 1
    patience: int | None = None
    #: It goes on then.
    watched: int | None = None
    #: Somebody still finds out what became of it.
    followed: bool = False
    #: The job that was made of it by a redrive.
    redriven: str = ""
    #: Which parts of it were delivered by which account, and of which accounts one was not.
    parts: dict[str, set[int]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    @property
    def provider(self) -> str:
        return self.queue.removesuffix(".high")

    @property
    def position(self) -> int:
        """How many accounts of its route it came to."""
        return max(self.at, self.route.index(self.provider) + 1 if self.provider in self.route else 0)

    @property
    def following(self) -> str:
        """The account that it goes on to; "" for none."""
        return self.route[self.position] if self.position < len(self.route) else ""


@dataclass
class Batch:
    size: int = 0
    there: bool = False
    open: bool = False
    cancelled: bool = False
    #: That none of its jobs is busy was told, and it is so since.
    told: bool = False
    #: Until when it is kept, unless one of its jobs is busy.
    until: int = 0
    #: How those of its jobs ended that are not kept any more.
    gone: Counter[str] = field(default_factory=Counter)


class Key(NamedTuple):
    """An idempotency key: its job, what was asked, and until when; None for as long as that job is busy."""

    id: str
    fingerprint: str
    until: int | None = None


class Order(NamedTuple):
    """What is said of all jobs of one call; times are in milliseconds."""

    queue: str
    batch: str
    number: str
    #: More of the batch follow.
    more: bool = False
    due: int | None = None
    valid: int | None = None
    #: When the quiet hours end that it waits for.
    held: int | None = None
    #: It may go to several accounts; after so many ms also where it was taken, None for never.
    routed: bool = False
    patience: int | None = None


class Ask(NamedTuple):
    """A new job of a call that makes several; `old` is the job that it redrives, which was in the state `was`."""

    id: str
    key: str = ""
    fingerprint: str = ""
    old: str = ""
    was: str = ""


@dataclass(frozen=True)
class News:
    """What a provider told of a job afterwards."""

    state: str | None
    own: str = ""
    provider: str = "textgoto"
    reference: str = ""
    part: int = 1
    parts: int = 1


class Refused(Exception):
    """A call that is refused, and changes nothing."""


class Model:
    """All jobs, as the design says they must be."""

    def __init__(self) -> None:
        self.now = 0
        self.jobs: dict[str, Job] = {}
        self.batches = {name: Batch() for name in BATCHES}
        self.keys: dict[str, Key] = {}
        #: By reference: the job that is meant by it, and until when.
        self.references: dict[str, tuple[str, int]] = {}
        #: By reference: news that came before anybody knew it, and until when they wait.
        self.early: dict[str, tuple[list[News], int]] = {}
        #: Who wants no texts.
        self.leave_alone: set[str] = set()
        #: By queue: (when, publishing time) of first messages that were taken.
        self.takings: dict[str, list[tuple[int, int]]] = {queue: [] for queue in QUEUES}
        #: What consumers are told, in order.
        self.events: list[tuple[str, ...]] = []

    # -- how a job moves -----------------------------------------------------------------------------------------------

    def move(self, job: Job, to: str, watched: int = 0) -> bool:
        """Move a job as the table allows; one that may have been taken does not end as if nothing had happened.

        It goes on from there unless a receipt comes while it is `watched`, 0 for never.
        """
        taken = ""
        if job.doubtful and to in AS_IF_NOTHING_HAPPENED:
            to, taken = job.left or ("unknown", "")
        if to not in TABLE[job.state]:
            return False
        job.state, job.came, job.taker, job.held = to, self.now, "", 0
        job.story.append(to)
        job.followed, job.watched = to == "unknown", self.now + watched if watched else None
        if taken:
            self.hand_over(job, taken)
            job.followed = to == "sent"
        if to in SETTLED:
            self.events.append((f"job.{to}", job.id))
        for name, key in self.keys.items():
            if key.id == job.id:
                self.keys[name] = key._replace(until=self.now + KEYS_KEPT * 1000 if to in SETTLED else None)
        self.look_after(job.batch)
        return True

    def hand_over(self, job: Job, account: str) -> None:
        """Let another account have a job, in the state that it is in."""
        if account != job.provider:
            job.queue = account + (".high" if job.queue.endswith(".high") else "")
            job.came, job.followed = self.now, False

    def go_on(self, job: Job) -> None:
        """Let the next account have a queued job, now."""
        account = job.following
        job.at = job.position + 1
        self.hand_over(job, account)

    def fail_over(self, job: Job, how: str) -> bool:
        """Let a job go on that was taken, where its caller asked for that and it is of use yet."""
        useless = job.useless is not None and job.useless <= self.now
        if not job.following or job.patience is None or useless:
            return False
        if job.batch and self.batches[job.batch].cancelled:
            return False
        before = job.provider
        if job.state != "queued":
            self.move(job, "queued")
        job.doubtful, job.left = True, (how, before)
        self.go_on(job)
        self.back(job, self.now)
        return True

    def look_after(self, name: str) -> None:
        """Tell once when no job of a batch is busy and no more may follow."""
        batch = self.batches.get(name)
        if batch is None or not batch.there:
            return
        if self.busy(name):
            batch.told = False
        elif not batch.open and not batch.told:
            batch.told = True
            self.events.append(
                ("batch.settled", name, *sorted(f"{n} {state}" for state, n in self.counts(name).items()))
            )
        batch.until = self.now + MONTH * 1000

    def busy(self, name: str) -> bool:
        mine = [job for job in self.jobs.values() if job.batch == name]
        return any(job.state in BUSY or job.watched is not None for job in mine)

    def counts(self, name: str) -> Counter[str]:
        """Return how many jobs of a batch are in each state; what is not kept any more counts where it ended."""
        return self.batches[name].gone + Counter(job.state for job in self.jobs.values() if job.batch == name)

    def back(self, job: Job, due: int) -> None:
        """A job that came back to the queue waits; of a batch that was cancelled meanwhile it is taken back."""
        job.out, job.lined, job.due, job.taken, job.taker, job.held = False, False, due, 0, "", 0
        if job.batch and self.batches[job.batch].cancelled:
            self.move(job, "cancelled")
        elif job.useless is not None and job.useless <= due:
            self.move(job, "expired")

    # -- what happens to jobs ------------------------------------------------------------------------------------------

    def create(self, asked: Sequence[Ask], order: Order, most: int) -> list[str]:
        """Make jobs, all or none. Making one again changes nothing. So `most` may be with the workers at once."""
        lot = self.batches.get(order.batch, Batch())
        if lot.cancelled:
            raise Refused("cancelled")
        ids = self.known(asked)
        mine = [one for one, id_ in zip(asked, ids, strict=True) if id_ == one.id]
        fresh = [one for one in mine if one.id not in self.jobs]
        for one in fresh:
            begins = max(order.due or 0, self.now)
            job = Job(one.id, order.queue, order.batch, order.number, created=self.now, came=self.now)
            job.published, job.due = self.now, max(begins, order.held or 0)
            job.out = job.due == self.now and self.room(order.queue, most) > 0
            job.lined = job.due == self.now and not job.out
            job.useless = None if order.valid is None else begins + order.valid
            if order.routed:
                job.route, job.patience = ROUTE, order.patience
            self.jobs[one.id] = job
            if one.key:
                self.keys[one.key] = Key(one.id, one.fingerprint)
            if one.old:
                self.jobs[one.old].redriven = one.id
        changed = bool(fresh) or lot.open != order.more
        lot.size, lot.open = lot.size + len(fresh), order.more
        lot.there = lot.there or order.more or bool(fresh)
        if changed:
            self.look_after(order.batch)
        for one in mine:
            job = self.jobs[one.id]
            if order.number in self.leave_alone and job.state == "queued":
                self.move(job, "failed")
            elif one in fresh and order.held and job.useless is not None and job.useless <= order.held:
                self.move(job, "expired")
        return ids

    def known(self, asked: Sequence[Ask]) -> list[str]:
        """Return which job each is: its own, or one that was made before by the same key or of the same job.

        It is none where the job to be redriven went on meanwhile.
        """
        ids, earlier = [], dict[str, Key]()
        for one in asked:
            known = (self.keys.get(one.key) or earlier.get(one.key)) if one.key else None
            if known and known.fingerprint != one.fingerprint:
                raise Refused("conflict")
            ids.append(known.id if known else one.id)
            if one.key:
                earlier.setdefault(one.key, known or Key(one.id, one.fingerprint))
            if one.old:
                old = self.jobs.get(one.old)
                ids[-1] = "" if old is None else old.redriven or (one.id if old.state == one.was else "")
        return ids

    def take(
        self, token: str, ids: Sequence[str], *, alone: bool
    ) -> tuple[list[str], list[str], list[tuple[str, str]]]:
        """Put jobs into the hands of `token`: those that are out and in nobody's. Whose holder died is tried alone."""
        taken, suspects, idle = list[str](), list[str](), list[tuple[str, str]]()
        first: dict[str, int] = {}
        for id_ in ids:
            job = self.jobs.get(id_)
            if job is None:
                idle.append((id_, "gone"))
                continue
            if job.state == "queued" and job.out and job.first:
                first[job.queue] = max(first.get(job.queue, 0), job.published)
            again = job.taker == token
            deaths = job.taken - 1 if again else job.taken
            if job.state != "queued" or not job.out or (job.held > self.now and not again):
                idle.append((id_, job.state))
            elif deaths > 0 and not alone:
                suspects.append(id_)
            elif deaths > 1:
                self.move(job, "failed")
                idle.append((id_, job.state))
            else:
                job.taken, job.taker, job.held = deaths + 1, token, self.now + LEASE * 1000
                taken.append(id_)
        for queue, published in first.items():
            self.takings[queue].append((self.now, published))
        return taken, suspects, idle

    def mine(self, token: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.state == "queued" and job.taker == token]

    def release(self, token: str) -> list[str]:
        """Give back what was taken, as if that had never been."""
        back = self.mine(token)
        for job in back:
            job.taken, job.taker, job.held = 0, "", 0
        return [job.id for job in back]

    def absolve(self, token: str) -> None:
        """Who held it before did not die of it."""
        for job in self.mine(token):
            job.taken = 0

    def touch(self, ids: Sequence[str]) -> None:
        """A live worker has the message of these jobs."""
        for job in filter(None, map(self.jobs.get, ids)):
            if job.state == "queued" and job.out:
                job.published, job.first = self.now, False

    def claim(self, token: str, ids: Sequence[str], repeat: str) -> list[str | None]:
        """Claim what `token` took and nobody else since; what must not be sent any more ends."""
        answer: list[str | None] = []
        for id_ in ids:
            job = self.jobs.get(id_)
            if job is None:
                answer.append("gone")
            elif job.state == "sending" and job.token == token:
                answer.append(None)
            elif job.state != "queued" or job.taker != token:
                answer.append(job.state)
            elif job.useless is not None and job.useless <= self.now:
                self.move(job, "expired")
                answer.append(job.state)
            elif job.number in self.leave_alone:
                self.move(job, "failed")
                answer.append(job.state)
            else:
                self.move(job, "sending")
                job.token, job.repeat, job.attempts, job.taken = token, repeat, job.attempts + 1, 0
                job.lease, job.first = self.now + LEASE * 1000, True
                answer.append(None)
        return answer

    def outcome(
        self,
        id_: str,
        token: str,
        to: str,
        *,
        account: str,
        goal: str = "",
        delay: int = 0,
        doubt: bool = False,
        spent: bool = True,
        reference: str = "",
        watched: int = 0,
    ) -> str:
        """Write what became of a try at `account`, after which a job that comes back goes on to `goal`.

        Who holds the claim is believed; of anybody else only that it was taken.
        """
        job = self.jobs.get(id_)
        if job is None:
            return ""
        ours = job.token == token != ""
        if (ours and job.state == to) or self.known_already(job, to, account, ours=ours):
            if to == "sent":
                self.complete(job, reference, account, watched)
            return job.state
        if not self.believed(job, to, ours=ours):
            return ""
        if to in GOOD_NEWS:
            self.hand_over(job, account)
        goes_on = goal != "" and goal == job.following
        if not self.move(job, to, watched if to == "sent" else 0):
            return ""
        job.doubtful = job.doubtful or doubt
        job.attempts -= not spent
        if job.state == "queued":
            if goes_on:
                self.go_on(job)
            self.back(job, self.now + delay)
        elif job.state == to == "sent":
            self.expect(job, reference, account)
        return job.state

    def complete(self, job: Job, reference: str, account: str, watched: int) -> None:
        """Take in of good news that are none what finds the job from now on."""
        left = self.left(job, account)
        if job.state == "sent" and not left:
            self.watch(job, watched)
        if job.state == "sent" or left:
            self.expect(job, reference, account)

    def left(self, job: Job, account: str) -> bool:
        """Say whether a job was taken by this account, and went on from there."""
        return job.left is not None and job.left[1] == account

    def known_already(self, job: Job, to: str, account: str, *, ours: bool) -> bool:
        """Say whether good news are none: a receipt was quicker, or the job moved on since."""
        quicker = ours and to == "sent" and job.state in {"sent", "delivered", "undelivered"}
        return quicker or (to in GOOD_NEWS and self.left(job, account))

    def believed(self, job: Job, to: str, *, ours: bool) -> bool:
        good = to in GOOD_NEWS and job.state in {"unknown", "queued"}
        # Unknown since it was taken back, it is not brought to life by what is said of the try before that.
        unsure = ours and (job.state == "sending" or job.story[-2:] == ["sending", "unknown"])
        return (good or unsure) and to in TABLE[job.state]

    def watch(self, job: Job, ms: int) -> None:
        """Let a job go on unless a receipt comes until then; for 0 it does not."""
        if ms:
            job.watched = self.now + ms
            self.look_after(job.batch)

    def resolve(self, id_: str, to: str) -> str:
        """Somebody's word on what is unknown; that nothing was sent ends all doubt."""
        job = self.jobs.get(id_)
        if job is None or job.state != "unknown":
            return ""
        if to == "failed" and not job.left:
            job.doubtful = False
        return job.state if self.move(job, to) else ""

    def cancel(self, id_: str) -> str:
        """Take back what is queued."""
        job = self.jobs.get(id_)
        return job.state if job and job.state == "queued" and self.move(job, "cancelled") else ""

    def park(self, id_: str, delay: int, *, lined: bool, goal: str = "", quiet: bool = False) -> str:
        """Let a queued job wait, in its line or for a time, or at another account; no attempt is spent.

        One that is useless before the quiet hours end expires.
        """
        job = self.jobs.get(id_)
        if job is None or job.state != "queued":
            return ""
        if goal and goal != job.following:
            return "queued"
        if quiet and job.useless is not None and job.useless <= self.now + delay:
            self.move(job, "expired")
            return job.state
        if goal:
            self.go_on(job)
        job.out, job.lined, job.due, job.taken, job.taker, job.held = False, lined, self.now + delay, 0, "", 0
        return "queued"

    def close(self, name: str, *, cancelled: bool) -> int | None:
        batch = self.batches[name]
        if not batch.there:
            return None
        if batch.open or cancelled > batch.cancelled:
            batch.open, batch.cancelled = False, batch.cancelled or cancelled
            self.look_after(name)
        return batch.size

    # -- what providers tell afterwards --------------------------------------------------------------------------------

    def expect(self, job: Job, reference: str, account: str) -> None:
        """A receipt is found by this reference from now on; what came before it is heard."""
        if not reference:
            return
        self.references[reference] = (job.id, self.now + RECEIPTS_WITHIN * 1000)
        job.followed = job.followed or job.provider == account
        for news in self.early.pop(reference, ([], 0))[0]:
            self.hear(job, news)

    def hear(self, job: Job, news: News) -> bool:
        """Take in news, which never lead back; of several parts all must be delivered, one that is not is enough."""
        to, account = news.state, news.provider
        if news.parts > 1 and to == "undelivered":
            job.broken.add(account)
        elif news.parts > 1 and account in job.broken:
            to = None
        elif news.parts > 1 and to == "delivered":
            parts = job.parts.setdefault(account, set())
            parts.add(news.part)
            to = to if len(parts) >= news.parts else None
        if account != job.provider:
            to = self.of_before(job, to, account)
        if to is None or to not in TABLE[job.state] or (to == "failed" and job.state != "unknown"):
            return False
        if to == "undelivered" and self.fail_over(job, to):
            return True
        if to == "failed" and not job.left:
            job.doubtful = False
        self.hand_over(job, account)
        # Its batch is not told to have settled meanwhile.
        watched = (job.patience or 0) if to == "sent" and news.reference and job.following else 0
        return self.move(job, to, watched)

    def of_before(self, job: Job, to: str | None, account: str) -> str | None:
        """Return what news still mean of an account that a job has left: that it was taken, or is there."""
        if to == "undelivered" and job.left == ("sent", account):
            job.left = ("undelivered", account)
        return to if to == "delivered" or (to == "sent" and not self.left(job, account)) else None

    def receipt(self, news: News) -> str:
        job = self.jobs.get(news.own)
        if job is None or news.provider not in {job.provider, *job.route[: job.at]}:
            job = self.jobs.get(self.references.get(news.reference, ("", 0))[0])
        if job is not None:
            moved = self.hear(job, news)
            if moved and news.state == "sent" and news.reference:
                self.expect(job, news.reference, news.provider)
            return "moved" if moved else "late"
        if not news.reference:
            return "late"
        words = self.early.get(news.reference, ([], 0))[0]
        self.early[news.reference] = ([*words, news], self.now + RECEIPTS_WITHIN * 1000)
        return "early"

    # -- what the clock does -------------------------------------------------------------------------------------------

    def queued(self, queue: str, *, out: bool = False, lined: bool = False) -> list[Job]:
        wanted = ("queued", queue, out, lined)
        return [job for job in self.jobs.values() if (job.state, job.queue, job.out, job.lined) == wanted]

    def room(self, queue: str, most: int) -> int:
        """Return how many more jobs may go to the workers at once: none while others wait for their turn."""
        return 0 if self.queued(queue, lined=True) else most - len(self.queued(queue, out=True))

    def due(self, queue: str, most: int) -> set[str]:
        """Publish what is due; what the workers have no room for waits for its turn."""
        ready = sorted((job.due, job.id) for job in self.queued(queue) if job.due <= self.now)
        room = max(0, self.room(queue, most))
        for _, id_ in ready[:room]:
            self.jobs[id_].out, self.jobs[id_].published = True, self.now
        for _, id_ in ready[room:]:
            self.jobs[id_].lined = True
        return {id_ for _, id_ in ready[:room]}

    def deal(self, ids: Iterable[str]) -> None:
        """Hand these to the workers."""
        for id_ in ids:
            job = self.jobs[id_]
            assert (job.state, job.lined) == ("queued", True)
            job.out, job.lined, job.published = True, False, self.now

    def may_be_lost(self, queue: str) -> set[str]:
        """Out for long, and in nobody's hands."""
        old = self.now - LOST_AFTER * 1000
        return {job.id for job in self.queued(queue, out=True) if job.published <= old and job.held <= self.now}

    def overtaken(self, queue: str, *, surely: bool) -> set[str]:
        """Of these, what a message was taken instead of, one that was published later, and that long ago."""
        since = self.now - LOST_AFTER * 1000 - (_SLOT * 1000 if surely else 0)
        latest = max((published for at, published in self.takings[queue] if at <= since), default=0)
        return {id_ for id_ in self.may_be_lost(queue) if self.jobs[id_].published < latest}

    def published_again(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            self.jobs[id_].published, self.jobs[id_].first = self.now, False

    def sweep(self) -> tuple[int, int]:
        """End the claims of the dead, then what is useless by now."""
        dead = sorted(
            (job for job in self.jobs.values() if job.state == "sending" and job.lease <= self.now),
            key=lambda job: (job.lease, job.id),
        )
        for job in dead:
            harmless = job.repeat == "always" or (job.repeat == "once" and job.attempts <= 1)
            if harmless or (job.repeat == "resend" and not job.doubtful):
                self.move(job, "queued")
                job.doubtful = True
                self.back(job, self.now)
            else:
                self.move(job, "unknown")
        useless = sorted(
            (one for one in self.jobs.values() if one.state == "queued" and one.useless is not None),
            key=lambda job: (job.useless, job.id),
        )
        over = [job for job in useless if job.useless is not None and job.useless <= self.now]
        for job in over:
            self.move(job, "expired")
        for job in [job for job in self.jobs.values() if job.watched is not None and job.watched <= self.now]:
            job.watched = None
            if not self.fail_over(job, "sent"):
                self.look_after(job.batch)
        return len(dead), len(over)

    def hold(self, known: int) -> None:
        """Take for sent what may have been, in a part of history that was lost."""
        for job in [job for job in self.jobs.values() if job.state == "queued" and job.created <= known]:
            if (job.published <= known) if job.out else (job.lined or job.due <= self.now):
                self.move(job, "unknown")

    def give_up(self, ids: Iterable[str]) -> None:
        """Nobody finds out any more what became of these."""
        for id_ in ids:
            if id_ in self.jobs:
                self.jobs[id_].followed = False

    def forget(self) -> None:
        """Forget what its time is over for."""
        for job in [job for job in self.jobs.values() if job.state in SETTLED]:
            if job.came + MONTH * 1000 <= self.now:
                del self.jobs[job.id]
                self.batches.get(job.batch, Batch()).gone[job.state] += 1
        for name, batch in self.batches.items():
            if batch.there and not self.busy(name) and batch.until <= self.now:
                self.batches[name] = Batch()
        self.keys = {
            name: key for name, key in self.keys.items()
            if key.id in self.jobs and (key.until is None or key.until > self.now)
        }  # fmt: skip
        self.references = {one: (id_, until) for one, (id_, until) in self.references.items() if until > self.now}
        self.early = {one: (words, until) for one, (words, until) in self.early.items() if until > self.now}
