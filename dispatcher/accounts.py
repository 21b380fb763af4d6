"""Which providers can be asked for what: published by workers, read by everyone who enqueues.

So a web application needs no vendor's credentials, and a name that nobody has ever served is refused at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher import checks, memory, phone
from dispatcher.calls import Calls
from dispatcher.errors import (
    ConfigurationError,
    InvalidNumber,
    InvalidRequest,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
)
from dispatcher.privacy import shown
from dispatcher.routes import Facts, Rule, asks_for_line, first

if TYPE_CHECKING:
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
    #: What it may be sent how fast, over all workers, as `LIMITS` is written; empty where there is no limit.
    limits: str = ""
    #: By operation; empty where a worker of an earlier release published it.
    schemas: dict[str, OperationSchema] = {}


class Route(msgspec.Struct, frozen=True):
    """Where a job may go: its accounts in order, at least one."""

    accounts: tuple[str, ...]
    #: What was asked for, the same whatever was chosen: the accounts that the caller named, separated by commas; empty
    #: where a rule decided.
    asked: str
    #: The accounts that options may be given for by name; none where the caller named one account.
    known: frozenset[str] = frozenset()


class Accounts:
    """The accounts that are known: those a worker has ever published, and those in our own settings."""

    def __init__(self, store: JobStore, settings: Settings, chance: Callable[[], float] = random.random) -> None:
        """Read from `store`, at most every few seconds; `chance` gives numbers from 0 to below 1."""
        self._store = store
        self._settings = settings
        self._own = settings.providers
        #: In an application's tests every account is known that it names.
        self._any = settings.in_memory
        self._rules = settings.routing
        self._chance = chance
        self._calls = Calls(settings)
        self._read: dict[str, Account] = {}
        self._until = 0.0
        #: Who is better left alone for now, by accounts and operation, and until when that is believed.
        self._ailing: dict[tuple[str, ...], tuple[float, frozenset[str]]] = {}

    def published(self, *, fresh: bool = False) -> dict[str, Account]:
        """Return what workers have published, by name; `fresh` asks now. Raises `StoreUnavailable`."""
        if fresh or self._any or time.monotonic() >= self._until:
            with self._store.errors():
                stored: Mapping[bytes, bytes] = self._store.redis.hgetall(KEY)  # type: ignore[assignment]  # the stubs mix sync and async
            self._read = {name.decode(): msgspec.json.decode(one, type=Account) for name, one in stored.items()}
            self._until = time.monotonic() + _FRESH
        return self._read

    def route(
        self,
        provider: str | Sequence[str] | None,
        operation: str,
        facts: Facts | None = None,
        lines: Mapping[str, str] | None = None,
    ) -> Route:
        """Return where a job may go: to the accounts named, to those of the first rule that fits, or the only one.

        Several come in order, without those that cannot take it as it is, and those last that are suspended or whose
        breaker is open. `lines` has what `lines()` read of many numbers. Raises `UnknownProvider`, `Unsupported` and
        `InvalidRequest` where there is none, the last with the reason for each, and where a rule refuses it.
        """
        named = _names(provider)
        if named is not None and (len(named) == 1 or facts is None):
            if len(named) > 1:
                raise InvalidRequest("provider", "must be one account, which does it or nobody does", shown(provider))
            return Route((self._named(named[0], operation),), named[0])
        if named is not None and facts is not None:
            for one in named:
                self._named(one, operation)
            return Route(self._ordered(named, operation, facts), ",".join(named), self._names())
        rule = self._rule(facts, lines) if facts is not None else None
        if rule is not None and rule.refuses:
            # Whatever the rule asks for, it is the number that can be another one.
            raise InvalidRequest("to", rule.refusal)
        if rule is None or facts is None:
            only = self._only(operation)
            return Route((only,), only)
        for one in rule.accounts:
            if not self._is_known(one):
                raise UnknownProvider(one, sorted(self._names()), f"DISPATCHER_ROUTES ({rule.words!r})")
        return Route(self._ordered(rule.order(self._chance), operation, facts), "", self._names())

    def lines(self, provider: str | Sequence[str] | None, numbers: Iterable[Any]) -> dict[str, str] | None:
        """Return what lookups told of the lines of many numbers, by number in E.164; None where no rule asks for it."""
        if not self.asks_for_lines(provider):
            return None
        wanted = set[str]()
        for one in numbers:
            # What is no number is refused where it is checked.
            with suppress(InvalidNumber):
                wanted.add(phone.parse(one))
        with suppress(StoreUnavailable):
            return memory.line_types(self._store, self._settings, wanted)
        return {}

    def asks_for_lines(self, provider: str | Sequence[str] | None) -> bool:
        """Say whether rules decide, and one of them by the kind of line."""
        return provider is None and any("line_type" in rule.conditions for rule in self._rules)

    def _rule(self, facts: Facts, lines: Mapping[str, str] | None) -> Rule | None:
        """Return the first rule that fits; what a lookup told of the line is read where that decides."""
        if not asks_for_line(self._rules, facts):
            return first(self._rules, facts)
        if lines is None:
            lines = self.lines(None, [facts.number]) or {}
        return first(self._rules, msgspec.structs.replace(facts, line_type=lines.get(facts.number, "")))

    def depends(self, provider: str | Sequence[str] | None) -> bool:
        """Say whether it depends on the job where it may go: on rules, or on which of several accounts can take it."""
        return bool(self._rules) if provider is None else not isinstance(provider, str)

    def choose(self, provider: str | None, operation: str) -> str:
        """Return the account that shall do `operation`: the one named, or the only one that can.

        Raises `UnknownProvider`, `Unsupported`, `ConfigurationError` where there is none, `InvalidRequest` where there
        are several.
        """
        return self._only(operation) if provider is None else self._named(provider, operation)

    def check_watch(self, route: Route) -> None:
        """Raise `InvalidRequest` where `failover_after` makes no sense for the accounts that the caller named.

        Of those that a rule names each is watched as far as it tells receipts.
        """
        if not route.asked:
            return
        if len(route.asked.split(",")) == 1:
            raise InvalidRequest("failover_after", "needs an account to go on to; name several in provider")
        for one in route.accounts[:-1]:
            account = self.published().get(one)
            if account is not None and account.capabilities.get("receipts") == "none":
                raise InvalidRequest(
                    "failover_after",
                    f"cannot be: {one} tells no receipts, and each text would be sent twice; name it last",
                )

    def _ordered(self, names: Sequence[str], operation: str, facts: Facts) -> tuple[str, ...]:
        """Return those that can take it, the healthy ones first. Raises `InvalidRequest` where none is left."""
        why = {one: self._why_not(one, operation, facts) for one in names}
        able = [one for one in names if not why[one]]
        if not able:
            reasons = "; ".join(f"{one} {reason}" for one, reason in why.items())
            raise InvalidRequest("provider", f"has no account that could do this {operation}: {reasons}")
        ailing = self._unwell(able, operation) if len(able) > 1 else frozenset()
        return tuple(sorted(able, key=lambda one: one in ailing))

    def _why_not(self, name: str, operation: str, facts: Facts) -> str:
        """Say why an account could never do it; "" where nothing is known against it."""
        account = self.published().get(name)
        if account is None:
            return ""
        if operation not in account.operations:
            return f"does not offer {operation}"
        most, taken = account.capabilities.get("max_characters", ""), account.capabilities.get("characters", "")
        if most.isdecimal() and len(facts.text) > int(most):
            return f"takes {most} characters, and there are {len(facts.text)}"
        if taken and not set(facts.text) <= set(taken):
            return "does not take every character of this text"
        return ""

    def _unwell(self, names: Sequence[str], operation: str) -> frozenset[str]:
        """Return those that are suspended or whose breaker is open, as it was a few seconds ago at most."""
        asked = (operation, *sorted(names))
        until, found = self._ailing.get(asked, (0.0, frozenset[str]()))
        if time.monotonic() >= until:
            try:
                found = self._look(names, operation)
            except StoreUnavailable:
                # Whoever enqueues finds that out by itself.
                found = frozenset()
            self._ailing[asked] = (time.monotonic() + _FRESH, found)
        return found

    def _look(self, names: Sequence[str], operation: str) -> frozenset[str]:
        now, suspended = self._store.run(self._calls.suspended(names))
        with self._store.errors(), self._store.redis.pipeline(transaction=False) as pipe:
            for one in names:
                pipe.hmget(f"d:lm:{one}", ["bs", "bu"])
            breakers = pipe.execute()
        held = {one.provider for one in suspended if one.holds(operation)}
        # One whose time has come is let have a job: that shows whether it works again.
        broken = {
            one
            for one, (state, until) in zip(names, breakers, strict=True)
            if state == b"open" and float(until or 0) / 1000 > now
        }
        return frozenset(held | broken)

    def _is_known(self, name: str) -> bool:
        return self._any or name in self._own or name in self.published() or name in self.published(fresh=True)

    def _names(self) -> frozenset[str]:
        return frozenset({*self.published(), *self._own})

    def _only(self, operation: str) -> str:
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
            if account is None and name not in self._own and not self._any:
                raise UnknownProvider(shown(name), sorted(self._names()))
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


def _names(provider: Any) -> list[str] | None:
    """Return the accounts that a caller named, None for none. Raises `InvalidRequest`."""
    if provider is None:
        return None
    names = [provider] if isinstance(provider, str) else provider
    if not isinstance(names, list | tuple) or not names or not all(isinstance(one, str) for one in names):
        raise InvalidRequest("provider", "must be the name of an account, or a list of them", shown(provider))
    if len(set(names)) < len(names):
        raise InvalidRequest("provider", "names an account twice; no job goes to one a second time", shown(provider))
    return [checks.text("provider", one) for one in names]
