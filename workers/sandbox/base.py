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


class Reply(NamedTuple):
    """What a provider makes of a request: the answer, and at least one row for what it did or refused."""

    answer: Answer
    rows: list[Row]


class Provider(Protocol):
    """One provider; four of these behind one server."""

    @property
    def name(self) -> str:
        """Return the name that rows, faults and counts carry."""

    def accounts(self) -> Iterable[Account]:
        """Return the accounts it starts with."""

    def serves(self, path: str) -> bool:
        """Say whether requests to `path` are for this provider."""

    def reply(self, request: Request, world: World) -> Reply:
        """Answer `request` as the provider's document says; reads `world`, changes nothing."""
