"""What lookups found, and for how long that is remembered: the calls, and who reads it beside workers.

An answer is remembered by the keyed hash of its number, and by account, in `d:lk:<hash>`; `lua/recall.lua` says how
jobs for the same number share one request. Without `DISPATCHER_HASH_KEY` nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from dispatcher import phone
from dispatcher.calls import MOST, Call, script
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import moment
from dispatcher.lookups import UNKNOWN, Result

if TYPE_CHECKING:
    from dispatcher.privacy import Sealer
    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: Where answers are remembered: a hash of account to "<ms> <job> <sealed result>" for each number's hash.
KEY: Final = "d:lk:"


class Remembered(msgspec.Struct, frozen=True):
    """An answer that was asked for by another job: when, in milliseconds since 1970, by which, and what it was."""

    asked_at: int
    job: str
    result: Result


class Recalled(msgspec.Struct, frozen=True):
    """What `recall` tells of one job: its answer, or that it is to ask, since `asked_at`, or the state it is in."""

    remembered: Remembered | None = None
    asked_at: int = 0
    state: str = ""


class Ask(msgspec.Struct, frozen=True):
    """A job in the hands of `token` that would look up a number, known by its hash; `fresh` for no earlier answer."""

    token: str
    id: str
    number: str
    fresh: bool = False


class LookupCalls:
    """The calls that remember answers, with the deployment's times and keys."""

    def __init__(self, settings: Settings) -> None:
        """Take lifetime, lease and keys from `settings`."""
        self._settings = settings
        self._sealer = settings.sealer()
        self._lifetime = int(settings.lookup_lifetime * 1000)
        self._lease = int(settings.lease * 1000)
        self._keep = int(settings.longest_kept * 1000)

    @property
    def remembers(self) -> bool:
        """Whether answers are remembered at all: for a lifetime, by a key that hashes numbers."""
        return self._lifetime > 0 and bool(self._settings.hashed("number"))

    def hashed(self, number: str) -> str:
        """Return what an E.164 number is found by."""
        return self._settings.hashed("number", number)

    def recall(self, asks: Sequence[Ask]) -> Call[list[Recalled]]:
        """Say for each of the taken jobs what is remembered, or who asks: it does itself, or it waits for another."""
        arguments: list[bytes | str | float] = [self._lifetime, self._lease, self._keep]
        for one in asks:
            arguments += (one.token, one.id, one.number, "1" if one.fresh else "")
        return Call(
            script("recall"),
            arguments,
            lambda answer: [self._recalled(ask, one) for ask, one in zip(asks, answer, strict=True)],
        )

    def remember(self, id_: str, number: str, asked_at: int, found: Result) -> Call[int]:
        """Remember what the job `id_` found about the number with this hash, asked at `asked_at` ms."""
        sealed = self._sealer.seal(msgspec.json.encode(found), _name(number, found.provider))
        return Call(script("remember"), [self._lifetime, number, found.provider, asked_at, id_, sealed], int)

    def _recalled(self, ask: Ask, answer: Sequence[bytes]) -> Recalled:
        verdict, *told = answer
        if verdict == b"is":
            return Recalled(state=told[0].decode())
        asked_at = int(told[0])
        if verdict == b"known":
            # Sealed with another key, or written by a later release, it is as if nobody had asked.
            with suppress(ConfigurationError, msgspec.MsgspecError):
                return Recalled(remembered=_opened(ask.number, told[1].decode(), told[2], self._sealer))
        return Recalled(asked_at=asked_at)


def from_memory(remembered: Remembered) -> tuple[dict[str, object], str]:
    """Return the result of a job that is answered from memory, and the line of its history that says so."""
    result = msgspec.structs.replace(remembered.result, cached=True)
    at = f"{moment(remembered.asked_at):%Y-%m-%dT%H:%M:%SZ}"
    return msgspec.to_builtins(result), f"answered from memory: asked by job {remembered.job} at {at}"


def line_types(store: JobStore, settings: Settings, numbers: Iterable[str]) -> dict[str, str]:
    """Return what lookups that are remembered told of the lines of E.164 numbers, by number.

    What a number tells of itself is left out: a vendor that is silent says no more. Raises `StoreUnavailable`.
    """
    if not settings.hashed("number"):
        return {}
    sealer, hashes = settings.sealer(), {one: settings.hashed("number", one) for one in numbers}
    wanted, found = [*hashes.items()], dict[str, str]()
    for start in range(0, len(wanted), MOST):
        with store.errors(), store.redis.pipeline(transaction=False) as pipe:
            for _, hashed in wanted[start : start + MOST]:
                pipe.hgetall(f"{KEY}{hashed}")
            pages = pipe.execute()
        for (number, hashed), stored in zip(wanted[start : start + MOST], pages, strict=True):
            if told := _line_type(number, hashed, stored, sealer):
                found[number] = told
    return found


def _line_type(number: str, hashed: str, stored: Mapping[bytes, bytes], sealer: Sealer) -> str:
    """Return the line type that the latest of the remembered answers tells that tell any; "" for none."""
    told, known = list[tuple[int, str]](), {UNKNOWN, phone.line_type(number)} if stored else set[str]()
    for account, entry in stored.items():
        with suppress(ConfigurationError, msgspec.MsgspecError):
            one = _opened(hashed, account.decode(), entry, sealer)
            if one.result.line_type not in known:
                told.append((one.asked_at, one.result.line_type))
    return max(told, default=(0, ""))[1]


def _opened(number: str, account: str, entry: bytes, sealer: Sealer) -> Remembered:
    at, id_, sealed = entry.split(b" ", 2)
    found = msgspec.json.decode(sealer.open(sealed, _name(number, account)), type=Result)
    return Remembered(int(at), id_.decode(), found)


def _name(number: str, account: str) -> str:
    """Return the name that an answer is sealed under."""
    return f"lookup {number} {account}"
