"""A client of the sandbox's control API for tests, the demo and the command line; needs no HTTP library."""

from __future__ import annotations

import time
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from workers.sandbox.control import PREFIX
from workers.sandbox.faults import Switch
from workers.sandbox.world import Message, Row

T = TypeVar("T")


class Counts(msgspec.Struct):
    """What the sandbox was asked and did."""

    #: Requests by provider and action.
    requests: dict[str, dict[str, int]]
    #: Messages accepted, by number in digits.
    accepted: dict[str, int]


class SandboxError(Exception):
    """The sandbox refuses what it was told; the message is its own."""


class Sandbox:
    """A sandbox that runs at `url`. Numbers may be written as people do: `+44 7700 900123`."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        """`url` is the origin that the server told when it was ready; `timeout` is in seconds a request."""
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._open = build_opener(ProxyHandler({})).open  # it runs on this machine: no proxy stands between

    def inbox(self, number: str) -> list[Message]:
        """Return the texts that a phone has received, oldest first."""
        return self._ask("GET", f"inbox/{quote(number)}", list[Message])

    def ledger(self, after: int = 0) -> list[Row]:
        """Return all rows of the ledger with a number above `after`."""
        rows: list[Row] = []
        while page := self._ask("GET", f"ledger?after={after}", list[Row]):
            rows += page
            after = page[-1].n
        return rows

    def counts(self) -> Counts:
        """Return how many requests came and how many messages were accepted."""
        return self._ask("GET", "counts", Counts)

    def accepted(self, number: str) -> int:
        """Return how many messages to a number were accepted."""
        return self.counts().accepted.get("".join(filter(str.isdigit, number)), 0)

    def fault(
        self,
        fault: str,
        *,
        provider: str = "",
        action: str = "",
        times: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Switch on a fault of `workers.sandbox.faults`; without `times` for all requests until `clear`."""
        switch = Switch(fault=fault, provider=provider, action=action, times=times, seconds=seconds)
        self._ask("POST", "faults", dict[str, bool], msgspec.json.encode(switch))

    def clear(self) -> None:
        """Switch all faults off."""
        self._ask("DELETE", "faults", dict[str, bool])

    def reset(self) -> None:
        """Begin anew: nothing in ledger, inboxes and counts, accounts as at the start, faults off."""
        self._ask("POST", "reset", dict[str, bool])

    def wait_ready(self, timeout: float = 10.0) -> None:
        """Return once the sandbox answers; raises `TimeoutError` if it doesn't within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._ask("GET", "health", dict[str, Any])
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"no sandbox answers at {self.url} ({error})") from error
                time.sleep(0.02)
            else:
                return

    def _ask(self, method: str, path: str, kind: type[T], body: bytes = b"") -> T:
        url = f"{self.url}{PREFIX}{path}"
        request = Request(url, data=body or None, method=method)  # noqa: S310 - the caller's own sandbox
        try:
            with self._open(request, timeout=self._timeout) as answer:
                return msgspec.json.decode(answer.read(), type=kind)
        except HTTPError as error:
            with error:
                words = error.read().decode(errors="replace")
            raise SandboxError(f"{method} {PREFIX}{path}: {error.code} {words}") from None
