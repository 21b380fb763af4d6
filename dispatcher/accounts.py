"""Which providers can be asked for what: published by workers, read by everyone who enqueues.

So a web application needs no vendor's credentials, and a name that nobody has ever served is refused at once.
"""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

import msgspec

from dispatcher.errors import ConfigurationError, InvalidRequest, UnknownProvider, Unsupported
from dispatcher.privacy import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: The Redis hash of what workers published: account name to `Account` as JSON.
KEY: Final = "d:a"

#: Seconds that a reading is good for.
_FRESH: Final = 5.0


class ArgumentSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One named argument of an operation, as whoever enqueues it has to know it."""

    about: str = ""
    required: bool = False


class OperationSchema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation of an account: what it does, takes and costs, and how that is known."""

    about: str = ""
    #: "document", "vendor's code" or "inferred"; none is live-verified yet.
    source: str = ""
    arguments: dict[str, ArgumentSchema] = {}
    #: Whether it is done again when nobody knows if it was done: "never", "once" or "always".
    repeat: str = "never"
    #: It is paid from the account's balance.
    paid: bool = False
    #: How a lost answer is cleared up; empty where nobody can tell.
    evidence: str = ""

    @property
    def card(self) -> bool:
        """Whether it is charged to a card."""
        return "card_number" in self.arguments


class Account(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One account at one provider, as its worker published it."""

    name: str
    #: Which provider it speaks.
    adapter: str
    #: Operations it can do: "send", "verify", "lookup", "balance", ...
    operations: list[str] = []
    #: Named by the vendor, and not done here: the reason by name.
    unsupported: dict[str, str] = {}
    #: What the matrix prints: recipients per request, receipts, who makes codes, ...
    capabilities: dict[str, str] = {}
    sandbox: bool = False
    #: By operation; empty where a worker of an earlier release published it.
    schemas: dict[str, OperationSchema] = {}


class Accounts:
    """The accounts that are known: those a worker has ever published, and those in our own settings."""

    def __init__(self, store: JobStore, settings: Settings) -> None:
        """Read from `store`, at most every few seconds."""
        self._store = store
        self._own = settings.providers
        self._read: dict[str, Account] = {}
        self._until = 0.0

    def published(self, *, fresh: bool = False) -> dict[str, Account]:
        """Return what workers have published, by name; `fresh` asks now. Raises `StoreUnavailable`."""
        if fresh or time.monotonic() >= self._until:
            with self._store.errors():
                stored: Mapping[bytes, bytes] = self._store.redis.hgetall(KEY)  # type: ignore[assignment]  # the stubs mix sync and async
            self._read = {name.decode(): msgspec.json.decode(one, type=Account) for name, one in stored.items()}
            self._until = time.monotonic() + _FRESH
        return self._read

    def choose(self, provider: str | None, operation: str) -> str:
        """Return the account that shall do `operation`: the one named, or the only one that can.

        Raises `UnknownProvider`, `Unsupported`, `ConfigurationError` where there is none, `InvalidRequest` where there
        are several.
        """
        if provider is not None:
            return self._named(provider, operation)
        published = self.published()
        able = sorted(name for name in {*published, *self._own} if self._can(name, operation))
        if len(able) == 1:
            return able[0]
        if able:
            raise InvalidRequest("provider", f"must be named, since several accounts can do it: {', '.join(able)}")
        raise ConfigurationError(
            f"no account is known that can do {operation}; set DISPATCHER_PROVIDERS__<NAME>__... and start its worker: "
            "dispatcher worker NAME"
        )

    def _named(self, name: str, operation: str) -> str:
        if not self._can(name, operation):
            account = self.published().get(name)
            if account is None:
                # It may have started this moment.
                account = self.published(fresh=True).get(name)
            if account is None and name not in self._own:
                raise UnknownProvider(shown(name), sorted({*self.published(), *self._own}))
            if account is not None and operation not in account.operations:
                close = get_close_matches(operation, account.operations, n=1)
                meant = f"did you mean {close[0]}? It " if close else ""
                can = f"{meant}can do {', '.join(sorted(account.operations))}"
                reason = account.unsupported.get(operation, can)
                raise Unsupported("operation", f"{name} does not offer it: {reason}", shown(operation))
        return name

    def _can(self, name: str, operation: str) -> bool:
        account = self.published().get(name)
        return operation in account.operations if account else name in self._own
