"""Suspensions: what an account cannot do until its operator mends it; pure. `lua/suspend.lua` says how they are stored.

The scope says how much is held back: `account` (the credentials are refused) everything, `operation:<name>` (they are
right, and this is not allowed) that operation, `funds` (there is no money) the operations that cost.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from dispatcher.jobs import moment
from dispatcher.outcomes import Failure, FailureKind, Outcome

ACCOUNT: Final = "account"
FUNDS: Final = "funds"
#: Before the name of an operation that is not allowed.
OPERATION: Final = "operation:"


class Suspension(msgspec.Struct, frozen=True, kw_only=True):
    """What is held back of one account, and why. `code` and `message` are the provider's, without numbers."""

    provider: str
    scope: str
    since: datetime
    #: When it is looked at again, whether it is mended.
    probe_at: datetime
    kind: FailureKind
    code: str = ""
    message: str = ""
    #: The operations that wait; all of them where there is none.
    operations: tuple[str, ...] = ()
    #: Of `funds`: what was left when it was last looked at, as a decimal; empty where nobody looked yet.
    left: str = ""

    def holds(self, operation: str) -> bool:
        """Say whether jobs of `operation` wait for it."""
        return not self.operations or operation in self.operations

    @property
    def words(self) -> str:
        """What is held back and why, in one clause."""
        if self.scope == ACCOUNT:
            what = "its credentials are refused"
        elif self.scope == FUNDS:
            what = "there is no money for what costs"
        else:
            what = f"it may not do {self.scope.removeprefix(OPERATION)}"
        told = ": ".join(filter(None, (self.code, self.message)))
        return f"{what} since {self.since:%Y-%m-%d %H:%M:%S %Z}{f' ({told})' if told else ''}, and its jobs wait"

    @property
    def way_out(self) -> str:
        """What its operator does."""
        first = {ACCOUNT: "correct them where its workers run", FUNDS: "top it up"}.get(
            self.scope, "have the provider allow it"
        )
        return f"{first}; it is noticed by itself, or at once with `dispatcher providers resume {self.provider}`"

    def to_dict(self) -> dict[str, Any]:
        """Return the document that events carry."""
        return msgspec.to_builtins(  # type: ignore[no-any-return]  # a dict in, a dict out
            {field: getattr(self, field) for field in ("provider", "scope", "since", "code", "message")}
        )


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A suspension as it lies in Redis: all of it text."""

    scope: str
    since: str
    next: str
    kind: str
    code: str = ""
    message: str = ""
    operations: str = ""
    left: str = ""


_stored: Final = msgspec.json.Decoder(_Stored)


def read(provider: str, raw: bytes) -> Suspension:
    """Read a suspension as it lies in Redis."""
    told = _stored.decode(raw)
    return Suspension(
        provider=provider,
        scope=told.scope,
        since=moment(told.since),
        probe_at=moment(told.next),
        # A later release may know others.
        kind=FailureKind(told.kind) if told.kind in [*FailureKind] else FailureKind.INTERNAL,
        code=told.code,
        message=told.message,
        operations=tuple(told.operations.split()),
        left=told.left,
    )


def scope_of(operation: str, outcome: Outcome) -> str | None:
    """Return the scope that an outcome of `operation` suspends; None for none."""
    if not isinstance(outcome, Failure):
        return None
    if outcome.kind == FailureKind.INSUFFICIENT_FUNDS:
        return FUNDS
    if outcome.kind == FailureKind.UNAUTHORIZED:
        return f"{OPERATION}{operation}" if outcome.permission else ACCOUNT
    return None


def is_scope(word: str) -> bool:
    """Say whether `word` is a scope."""
    return word in {ACCOUNT, FUNDS} or (word.startswith(OPERATION) and len(word) > len(OPERATION))
