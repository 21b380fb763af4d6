"""What providers tell us, from when it came until it is read: the calls, and the counts of what came of it.

A callback lies in Redis, sealed, before its provider is answered, and in an outbox, so that a message which gets lost
is found by the clock, as a job's is. `workers.receiver` puts it there, `workers.callbacks` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher.calls import MOST, Call, script

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: Times that a callback may be taken before it is set aside: it kills its reader, or breaks its adapter.
TRIES: Final = 3

#: The Redis hash of what came of callbacks: "<account> <what>" to how many.
_COUNTS: Final = "d:cn"

#: The accounts that were ever called back, and the callbacks that were set aside.
ACCOUNTS: Final = "d:ca"
_ASIDE: Final = "d:cx"

#: What is counted. Of receipts: what moved a job, what changed nothing, what came before its job's own answer, and of
#: these what no job ever wanted.
WORDS: Final = ("applied", "late", "early", "unmatched", "inbound", "optouts", "duplicates", "unread", "aside")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A callback as it lies in Redis: `at` in milliseconds since 1970, `tries` the times it was taken before."""

    id: str
    account: str
    at: int
    sealed: bytes
    tries: int

    def __repr__(self) -> str:
        """Leave the callback out: without a key it is in clear."""
        return f"Kept({self.id} {self.account})"


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an account's callbacks until now, and how many wait to be read."""

    waiting: int = 0
    counts: dict[str, int] = {}


class CallbackCalls:
    """The calls that callbacks need, with the deployment's times filled in."""

    def __init__(self, settings: Settings) -> None:
        """Take the times from `settings`."""
        self._kept_aside = int(settings.events_retention * 1000)
        self._receipts_within = int(settings.receipts_within * 1000)
        self._lost_after = int(settings.lost_after * 1000)

    def put(self, id_: str, account: str, sealed: bytes) -> Call[int]:
        """Keep a callback until it is read; answers when that was, in ms."""
        return Call(script("callbacks_put"), [id_, account, sealed], int, durable=True)

    def take(self, ids: Sequence[str]) -> Call[list[Kept]]:
        """Take callbacks to be read; answers those that are there."""
        return Call(script("callbacks_take"), list(ids), _read_taken)

    def done(self, one: Kept, counts: Mapping[str, int], early: Sequence[str] = ()) -> Call[int]:
        """Forget a callback that was read; `counts` by `WORDS`, `early` the hashes its early receipts wait under."""
        arguments: list[bytes | str | float] = [one.id, one.account, self._receipts_within, len(early), *early]
        for pair in counts.items():
            arguments += pair
        return Call(script("callbacks_done"), arguments, int)

    def failed(self, id_: str, *, blamed: bool) -> Call[int]:
        """Say that a callback could not be read, by its own fault or by nobody's; answers 1 where it was set aside."""
        return Call(script("callbacks_failed"), [id_, "1" if blamed else "", TRIES, self._kept_aside], int)

    def again(self, most: int = MOST) -> Call[dict[str, list[str]]]:
        """Give what was set aside another chance; answers ids by account, which the caller publishes."""
        return Call(script("callbacks_again"), [most], _by_account)

    def lost(self, account: str, *, empty: bool, most: int = MOST) -> Call[list[str]]:
        """Answer an account's callbacks whose message is lost; the caller publishes them."""
        arguments = [account, "1" if empty else "", self._lost_after, most]
        return Call(script("callbacks_lost"), arguments, lambda answer: [one.decode() for one in answer])

    def sweep(self, most: int = MOST) -> Call[list[str]]:
        """Count receipts that nobody wanted, forget what was set aside long ago; answers the accounts called back."""
        arguments = [self._kept_aside, self._lost_after, most]
        return Call(script("callbacks_sweep"), arguments, lambda answer: sorted(one.decode() for one in answer))


def counted(store: JobStore) -> tuple[dict[str, Counted], int]:
    """Return by account what came of its callbacks, and how many lie aside. Raises `StoreUnavailable`."""
    with store.errors():
        known: Any = store.redis.smembers(ACCOUNTS)
        accounts = sorted(one.decode() for one in known)
        with store.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(_COUNTS)
            pipe.zcard(_ASIDE)
            for account in accounts:
                pipe.zcard(f"d:co:{account}")
            stored, aside, *waiting = pipe.execute()
    counts: dict[str, dict[str, int]] = {account: {} for account in accounts}
    for field, count in stored.items():
        account, _, word = field.decode().partition(" ")
        counts.setdefault(account, {})[word] = int(count)
    found = {
        account: Counted(
            waiting=left, counts={word: counts[account][word] for word in WORDS if word in counts[account]}
        )
        for account, left in zip(accounts, waiting, strict=True)
    }
    return found, int(aside)


def _read_taken(answer: list[Any]) -> list[Kept]:
    return [
        Kept(id=id_.decode(), account=account.decode(), at=int(at), sealed=sealed, tries=int(tries))
        for id_, account, at, sealed, tries in answer
    ]


def _by_account(answer: list[bytes]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for account, id_ in zip(answer[::2], answer[1::2], strict=True):
        found.setdefault(account.decode(), []).append(id_.decode())
    return found
