"""A client of the sandbox's control API for tests, the demo and the command line; needs no HTTP library."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
from msgspec import UNSET, UnsetType

from workers.sandbox.callbacks import Times, Told
from workers.sandbox.control import PREFIX, Inbound
from workers.sandbox.faults import Switch
from workers.sandbox.limits import Setting, Window
from workers.sandbox.limits import Told as Limits
from workers.sandbox.world import Message, Row

T = TypeVar("T")


class Counts(msgspec.Struct):
    """What the sandbox was asked and did."""

    #: Requests by provider and action.
    requests: dict[str, dict[str, int]]
    #: Messages accepted, by number in digits.
    accepted: dict[str, int]
    #: The same by provider.
    messages: dict[str, dict[str, int]]


class SandboxError(Exception):
    """The sandbox refuses what it was told; `reason` is its own words."""

    def __init__(self, asked: str, status: int, reason: str) -> None:
        """`asked` is the request's verb and path."""
        self.reason = reason
        super().__init__(f"{asked}: {status} {reason}")


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

    def limits(
        self,
        *,
        enforced: bool | UnsetType = UNSET,
        provider: str = "",
        at_once: int | UnsetType | None = UNSET,
        gets_a_minute: int | UnsetType | None = UNSET,
        late: float | UnsetType = UNSET,
        windows: list[Window] | UnsetType = UNSET,
    ) -> None:
        """Enforce limits or don't, and set those of `provider`, None for any number; the rest stays as it is."""
        setting = Setting(
            enforced=enforced,
            provider=provider,
            at_once=at_once,
            gets_a_minute=gets_a_minute,
            late=late,
            windows=windows,
        )
        self._ask("POST", "limits", dict[str, bool], msgspec.json.encode(setting))

    def limited(self) -> Limits:
        """Return the limits as they are, and what their windows have seen."""
        return self._ask("GET", "limits", Limits)

    def callbacks(self, addresses: Mapping[str, str]) -> None:
        """Say where each provider calls with receipts and texts; an empty address for nowhere."""
        self._ask("POST", "callbacks", dict[str, bool], msgspec.json.encode(addresses))

    def told(self) -> dict[str, Told]:
        """Return by provider where it calls and how many callbacks wait, were taken, were given up."""
        return self._ask("GET", "callbacks", dict[str, Told])

    def times(self, **seconds: float) -> Times:
        """Change when providers call, by the names in `Times`; return how it is then."""
        if seconds:
            self._ask("POST", "times", dict[str, bool], msgspec.json.encode(seconds))
        return self._ask("GET", "times", Times)

    def text(self, provider: str, sender: str, text: str, *, to: str = "", account: str = "") -> None:
        """Text from the phone `sender` to an account; `provider` passes it on to its callback address at once."""
        inbound = Inbound(provider=provider, sender=sender, text=text, to=to, account=account)
        self._ask("POST", "inbound", dict[str, bool], msgspec.json.encode(inbound))

    def reset(self) -> None:
        """Begin anew: nothing in ledger, inboxes and counts, accounts, limits, addresses and times as at the start.

        Faults are off, and what was still to be told is not.
        """
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
            raise SandboxError(f"{method} {PREFIX}{path}", error.code, _reason(words)) from None


def _reason(words: str) -> str:
    """Return what `{"error": "..."}` says, or else all of it."""
    try:
        return msgspec.json.decode(words, type=dict[str, str])["error"]
    except (msgspec.MsgspecError, KeyError):
        return words
