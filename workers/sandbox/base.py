"""The contract of a played provider: a request goes in, an answer and the rows it makes come out.

A provider does no I/O and changes nothing. What it would do is said in rows, which the server commits to the
world, or doesn't, where a fault comes first: so every provider has every fault, and none knows of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import msgspec

from workers.sandbox.world import Account, Row, World


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One whole HTTP request. Header names are in lower case."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One whole HTTP answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"
    headers: dict[str, str] = {}


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a provider makes to its customer's callback address, of which this is all but the address."""

    method: str = "POST"
    #: Added to the address' own.
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""


class Texted(msgspec.Struct, frozen=True, kw_only=True):
    """A text from a phone to a customer: `sender` in international digits, `to` a number, short code or keyword."""

    account: str
    sender: str
    to: str
    text: str
    #: Seconds since 1970.
    at: float


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests a provider takes, and what it answers to one too many; None for any number."""

    at_once: int | None = None
    gets_a_minute: int | None = None
    refusal: Answer = Answer(status=429)


class Reply(NamedTuple):
    """What a provider makes of a request: the answer, and at least one row for what it did or refused."""

    answer: Answer
    rows: list[Row]


class Provider(Protocol):
    """One provider; four of these behind one server."""

    @property
    def name(self) -> str:
        """Return the name that rows, faults and counts carry."""

    @property
    def limits(self) -> Limits:
        """Return how many requests it takes."""

    def accounts(self) -> Iterable[Account]:
        """Return the accounts it starts with."""

    def serves(self, path: str) -> bool:
        """Say whether requests to `path` are for this provider."""

    def reply(self, request: Request, world: World) -> Reply:
        """Answer `request` as the provider's document says; reads `world`, changes nothing."""

    def receipt(self, row: Row) -> Outgoing | None:
        """Return what the customer is told once the message of this row has reached its phone, or didn't; or None."""

    def inbound(self, texted: Texted) -> Outgoing | None:
        """Return what the customer is told of a text from a phone; None where this provider has no such call."""

    def refused(self, request: Request) -> list[Row]:
        """Return the rows of a request that was one too many: at least one."""
