"""What became of one attempt, in the provider's words and in ours.

An adapter's `parse` answers one of these for each job of a request; `workers.policy` decides what follows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from dispatcher.privacy import mask_digits


class FailureKind(StrEnum):
    """Why it did not work, by what may be done about it."""

    #: The request can never work: change it.
    INVALID = "invalid"
    #: The provider refuses this sender, template or content: change that.
    REJECTED = "rejected"
    #: Credentials or permission: the operator must act; the request itself may be fine.
    UNAUTHORIZED = "unauthorized"
    #: The account is out of money: top it up.
    INSUFFICIENT_FUNDS = "insufficient_funds"
    #: Too fast; the provider did nothing. Slow down and repeat.
    THROTTLED = "throttled"
    #: Surely not processed; it may be repeated.
    NOT_SENT = "not_sent"
    #: May have been processed; repeating may do it twice.
    AMBIGUOUS = "ambiguous"
    #: The person said stop: leave them alone.
    OPTED_OUT = "opted_out"
    #: By our own rule (budget, country, guard); `code` says which.
    REFUSED = "refused"
    #: The provider does not offer this.
    UNSUPPORTED = "unsupported"
    #: Its time passed before it was sent.
    EXPIRED = "expired"
    #: Our own fault.
    INTERNAL = "internal"


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that did not work. `code` and `message` are the provider's own where it said any."""

    kind: FailureKind
    code: str = ""
    message: str = ""
    #: Of `unauthorized`: the account may not do this, though its credentials are right.
    permission: bool = False
    #: Seconds after which the provider asked to be tried again, from `Retry-After`.
    retry_after: float | None = None
    #: It is about this one message: the provider answered as it does when all is well.
    own: bool | None = None

    @property
    def words(self) -> str:
        """Kind, code and message in one line; a message that begins with its code says it once."""
        message = self.message.removeprefix(f"{self.code}: ") if self.code else self.message
        return f"{self.kind} {self.code}: {message}"

    def __repr__(self) -> str:
        """Leave the vendor's words out: there may be a number in them."""
        return f"Failure({self.kind}, {mask_digits(self.code)!r})"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The provider took a message."""

    #: The provider's id for it, as text; empty where it gives none.
    ref: str = ""
    #: Decimal string with its currency or unit, such as "0.0055 USD"; empty where the answer names no price.
    price: str = ""
    #: The one-time code that the provider made. Only its keyed hash is ever stored.
    code: str = ""

    def __repr__(self) -> str:
        """Keep the code out of every log and traceback."""
        return f"Accepted(ref={self.ref!r}, price={self.price!r})"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The provider answered with a result: a lookup, a balance, a purchase."""

    result: dict[str, Any]
    ref: str = ""
    price: str = ""

    def __repr__(self) -> str:
        """Keep numbers out of every log and traceback."""
        return f"Found(ref={self.ref!r}, price={self.price!r})"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that checks codes itself judged one: `status` is the status after it of the job `verification`."""

    verification: str
    valid: bool
    status: str
    #: It was asked before, and says that some code was right: this one, unless another's answer was lost as well.
    doubtful: bool = False

    @property
    def result(self) -> dict[str, Any]:
        """What its job has as its result."""
        told: dict[str, Any] = {"valid": self.valid, "status": self.status}
        return told | {"doubtful": True} if self.doubtful else told


Outcome: TypeAlias = Accepted | Found | Checked | Failure
