"""How a person is forgotten: what Redis holds of their number is erased, and what accounts need of their jobs stays.

Jobs are found by the keyed hash of the number, whatever else is found by opening it: texts that they sent to us and
callbacks. That somebody wants no more texts stays, hashed, or they would be texted again.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

import msgspec
import phonenumbers
from redis.exceptions import ResponseError

from dispatcher import phone
from dispatcher.calls import MOST, Call, call_name, script
from dispatcher.endpoints import ENDPOINTS, UNDELIVERED, NoticeCalls
from dispatcher.errors import ConfigurationError
from dispatcher.events import STREAM
from dispatcher.jobs import SCHEMA
from dispatcher.optouts import LIST, refuses
from dispatcher.records import nameless

if TYPE_CHECKING:
    from dispatcher.calls import Calls
    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: Callbacks that were set aside, and those of an account that wait to be read.
_ASIDE: Final = "d:cx"
_WAITING: Final = "d:co:*"

#: Keys with the hash of a number in their name that stay: what somebody said last outweighs a word read late.
_LASTING: Final = ("d:ni:",)

#: Keys that one look at their names goes through.
_PAGE: Final = 2000

#: What may be a phone number, however it is written.
_NUMBERS: Final = re.compile(r"\+?\d[\d\-(). ]{5,}\d")


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What came of forgetting a person, or, of a dry run, what would come of it."""

    #: Masked.
    number: str
    dry_run: bool = False
    #: Jobs that do not tell any more whom they were about, and how many of them were taken back for that.
    jobs: int = 0
    cancelled: int = 0
    #: Jobs of which that was so before.
    before: int = 0
    #: Texts that they sent to us, and news that they want no more texts, or want them again.
    events: int = 0
    #: Callbacks that were set aside, since they cannot be read.
    callbacks: int = 0
    #: Notices, for consumers who were still to be told of such texts and news.
    notices: int = 0
    #: Whatever else has the number's hash in its name, such as what lookups remember and guards count.
    keys: int = 0
    #: They want no texts, which is kept as a hash alone.
    opted_out: bool = False
    #: What is left, and goes when it is done again: jobs that are being sent, callbacks that wait to be read.
    sending: int = 0
    unread: int = 0
    #: Events and callbacks that are sealed with a key which this process does not have: nobody knows whose they are.
    sealed: int = 0
    #: What becomes of the append-only file, which still holds what was erased: "rewritten" soon, "none" where there is
    #: none, "busy" where that is under way since before, "refused" where Redis does not let us; empty after a dry run.
    file: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is left that is known of."""
        return not (self.sending or self.unread or self.sealed)

    def to_dict(self) -> dict[str, Any]:
        """Return its document."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return {"schema": SCHEMA, **document, "complete": self.complete}


class Forgetting:
    """Forgets one person."""

    def __init__(self, store: JobStore, calls: Calls, settings: Settings, number: str, *, dry_run: bool) -> None:
        """`number` is in E.164. Raises `ConfigurationError` without a hash key: their jobs could not be found."""
        settings.require_hash_key("finding what is kept of a person")
        self._store = store
        self._calls = calls
        self._told = NoticeCalls(settings)
        self._sealer = settings.sealer()
        self._number = number
        self._hash = settings.hashed("number", number)
        self._dry_run = dry_run

    def __call__(self) -> Forgotten:
        """Do it; harmless twice. Raises `ConfigurationError` under another hash key than the jobs have."""
        self._store.run(self._calls.enter())
        words = self._jobs()
        events, sealed = self._events()
        # Afterwards, so that none comes from there.
        notices, shut = self._notices()
        aside, closed = self._callbacks(self._aside(), erase=True)
        unread, hidden = self._callbacks(self._waiting(), erase=False)
        return Forgotten(
            number=phone.mask(self._number),
            dry_run=self._dry_run,
            jobs=words["forgotten"] + words["cancelled"],
            cancelled=words["cancelled"],
            before=words["before"],
            sending=words["sending"],
            events=events,
            callbacks=aside,
            notices=notices,
            keys=self._keys(),
            opted_out=self._listed(),
            unread=unread,
            sealed=sealed + shut + closed + hidden,
            file="" if self._dry_run else self._rewrite(),
        )

    # -- jobs --------------------------------------------------------------------------------------------------------

    def _jobs(self) -> Counter[str]:
        words: Counter[str] = Counter()
        with self._store.errors():
            days: Any = self._store.redis.zrange("d:nd", 0, -1)
        for day in days:
            for ids in self._of_day(f"d:n:{day.decode()}"):
                words.update(self._some(f"d:n:{day.decode()}", ids))
        return words

    def _of_day(self, key: str) -> Iterator[list[str]]:
        """Yield the ids of their jobs in the list of a day, some at a time."""
        # Entries are "<hash> <id>"; "!" is what comes after a space.
        after = f"({self._hash} "
        while True:
            with self._store.errors():
                page: Any = self._store.redis.zrangebylex(key, after, f"({self._hash}!", 0, MOST)
            if not page:
                return
            yield [entry.decode().rpartition(" ")[2] for entry in page]
            after = f"({page[-1].decode()}"

    def _some(self, listed: str, ids: Sequence[str]) -> list[str]:
        """Forget the person in some jobs; answers a word for each, as `Calls.forget` does."""
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in ids:
                pipe.hmget(f"d:j:{one}", "d", "s", "fg")
            stored: list[Any] = pipe.execute()
        if self._dry_run:
            return [_would(public, state, forgotten) for public, state, forgotten in stored]
        known = {one: nameless(public) for one, (public, *_) in zip(ids, stored, strict=True) if public is not None}
        words = dict.fromkeys(ids, "gone")
        if known:
            told: list[str] = self._store.run(self._calls.forget([*known.items()]))
            words |= dict(zip(known, told, strict=True))
        done = [f"{self._hash} {one}" for one, word in words.items() if word != "sending"]
        if done:
            with self._store.errors():
                self._store.redis.zrem(listed, *done)
        return [*words.values()]

    # -- what they said ----------------------------------------------------------------------------------------------

    def _events(self) -> tuple[int, int]:
        """Take their texts and opt-outs out of the stream; answers how many, and how many could not be opened."""
        theirs, sealed, after = 0, 0, "-"
        while True:
            with self._store.errors():
                page: Any = self._store.redis.xrange(STREAM, after, "+", MOST)
            if not page:
                if theirs and not self._dry_run:
                    self._write_stream_anew()
                return theirs, sealed
            told = [self._is_theirs(fields) for _, fields in page]
            found = [entry for (entry, _), mine in zip(page, told, strict=True) if mine]
            theirs, sealed = theirs + len(found), sealed + told.count(None)
            if found and not self._dry_run:
                with self._store.errors():
                    self._store.redis.xdel(STREAM, *found)
            after = f"({page[-1][0].decode()}"

    def _write_stream_anew(self) -> None:
        """Have the bytes go, too, of what was taken out of the stream."""
        anew = Call(script("forget_events"), [call_name(), MOST], int, durable=True)
        while not self._store.run(anew):
            pass

    def _is_theirs(self, fields: dict[bytes, bytes]) -> bool | None:
        if b"x" not in fields:
            return False
        named = fields[b"i"].decode()
        return named == self._hash or self._mentioned(fields[b"x"], named)

    def _mentioned(self, kept: bytes, name: str) -> bool | None:
        """Say whether what is kept under a name mentions the number; None where it cannot be opened."""
        try:
            return mentions(msgspec.json.decode(self._sealer.open(kept, name)), self._number)
        except (ConfigurationError, msgspec.MsgspecError):
            return None

    # -- what consumers are still to be told -------------------------------------------------------------------------

    def _notices(self) -> tuple[int, int]:
        """Erase what is still to be told of what they said; answers how many, and how many could not be opened."""
        theirs, sealed = 0, 0
        with self._store.errors():
            known: Any = self._store.redis.zrange(ENDPOINTS, 0, -1)
        for endpoint, cursors in self._of_endpoints([one.decode() for one in known]):
            with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
                for one in cursors:
                    pipe.hmget(f"d:tn:{endpoint}:{one}", "i", "x")
                kept: list[Any] = pipe.execute()
            told = [x is not None and self._is_theirs({b"i": named, b"x": x}) for named, x in kept]
            found = [one for one, mine in zip(cursors, told, strict=True) if mine]
            theirs, sealed = theirs + len(found), sealed + told.count(None)
            if found and not self._dry_run:
                self._store.run(self._told.erase(endpoint, found))
        return theirs, sealed

    def _of_endpoints(self, known: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield endpoints with the cursors of what waits for each; then of what was not delivered; some at a time."""
        for endpoint in known:
            with self._store.errors():
                waiting: Any = self._store.redis.zrange(f"d:tp:{endpoint}", 0, -1)
            yield from _portions(endpoint, [one.decode() for one in waiting])
        # Afterwards, and once for all of them: that list may be long, and so may theirs.
        with self._store.errors():
            past: Any = self._store.redis.zrange(UNDELIVERED, 0, -1)
        aside: dict[str, list[str]] = {}
        for whose, _, cursor in (one.decode().partition(" ") for one in past):
            aside.setdefault(whose, []).append(cursor)
        for endpoint, cursors in aside.items():
            yield from _portions(endpoint, cursors)

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def _aside(self) -> list[str]:
        with self._store.errors():
            page: Any = self._store.redis.zrange(_ASIDE, 0, -1)
        return [one.decode() for one in page]

    def _waiting(self) -> list[str]:
        ids: list[str] = []
        with self._store.errors():
            for key in self._store.redis.scan_iter(_WAITING, count=_PAGE):
                page: Any = self._store.redis.zrange(key, 0, -1)
                ids += [one.decode() for one in page]
        return ids

    def _callbacks(self, ids: Sequence[str], *, erase: bool) -> tuple[int, int]:
        """Count those that mention the number, and those that cannot be opened; `erase` deletes the first.

        One that waits to be read may say that they want no more texts: it is read first.
        """
        theirs, sealed = [], 0
        for start in range(0, len(ids), MOST):
            some = ids[start : start + MOST]
            with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
                for one in some:
                    pipe.hget(f"d:cb:{one}", "x")
                kept: list[Any] = pipe.execute()
            told = [one is not None and self._mentioned(one, id_) for id_, one in zip(some, kept, strict=True)]
            theirs += [id_ for id_, mine in zip(some, told, strict=True) if mine]
            sealed += told.count(None)
        if theirs and erase and not self._dry_run:
            with self._store.errors(), self._store.redis.pipeline() as pipe:
                pipe.delete(*(f"d:cb:{one}" for one in theirs))
                pipe.zrem(_ASIDE, *theirs)
                pipe.execute()
        return len(theirs), sealed

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _keys(self) -> int:
        """Delete every key that is named by the number's hash; answers how many."""
        count = 0
        with self._store.errors():
            for key in self._store.redis.scan_iter(f"d:*{self._hash}*", count=_PAGE):
                if not key.decode().startswith(_LASTING):
                    count += 1
                    if not self._dry_run:
                        self._store.redis.delete(key)
        return count

    def _listed(self) -> bool:
        """Keep of the list of those who want no texts their hash alone; answers whether they are on it."""
        with self._store.errors():
            found = self._store.redis.hscan_iter(LIST, match=f"{self._hash}*", count=_PAGE)
            fields = [field for field, stored in found if refuses(stored)]
        if fields and not self._dry_run:
            self._store.run(Call(script("forget_listed"), fields, int, durable=True))
        return bool(fields)

    def _rewrite(self) -> str:
        """Have Redis write its append-only file anew, without what was erased; answers what comes of it."""
        with self._store.errors():
            try:
                told: Any = self._store.redis.info("persistence")
                if not told.get("aof_enabled"):
                    return "none"
                self._store.redis.bgrewriteaof()
            except ResponseError as error:
                # One that began before may hold what was erased since.
                return "busy" if "in progress" in str(error) else "refused"
        return "rewritten"


def mentions(told: Any, number: str) -> bool:
    """Say whether a document has this E.164 number in it, however written, and however deep or encoded."""
    if isinstance(told, dict):
        return any(mentions(one, number) for pair in told.items() for one in pair)
    if isinstance(told, list):
        return any(mentions(one, number) for one in told)
    words = str(told)
    national = str(phonenumbers.parse(number).national_number)
    return any(
        found.strip("+").lstrip("0") in {number[1:], national}
        for one in (words, unquote_plus(words), _unpacked(words))
        for found in (re.sub(r"[^\d+]", "", run) for run in _NUMBERS.findall(one))
    )


def _portions(endpoint: str, cursors: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for start in range(0, len(cursors), MOST):
        yield endpoint, [*cursors[start : start + MOST]]


def _unpacked(words: str) -> str:
    """Return what base64 stands for, as bytes do in JSON, and that as a form says it; empty for other words."""
    try:
        raw = base64.b64decode(words, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
    return f"{raw}\n{unquote_plus(raw)}"


def _would(public: bytes | None, state: bytes | None, forgotten: bytes | None) -> str:
    if public is None or state is None:
        return "gone"
    return "before" if forgotten else {b"sending": "sending", b"queued": "cancelled"}.get(state, "forgotten")
