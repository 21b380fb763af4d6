"""What can go wrong between a provider and its customer, by name, and what of it is switched on.

| fault | accepted before it? | what the client sees |
|---|---|---|
| `latency` | yes | the answer, `seconds` late |
| `429`, `503` | no | that status; with `seconds`, also `Retry-After` |
| `500` | no | that status |
| `500-after` | yes | the same |
| `drop-before`, `drop-after` | no, yes | the connection is closed without an answer |
| `reset-before`, `reset-after` | no, yes | the connection is reset without an answer |
| `hang-before`, `hang-after` | no, yes | nothing, until the client gives up |
| `half` | yes | half of the answer's body, then the connection is closed |
| `garbage` | yes | bytes that are no HTTP, then the connection is closed |
| `html` | yes | status 200 with a page where the answer should be |
| `refuse` | - | connections are refused: for `seconds` nothing listens, the control API included |

*Accepted* means that the ledger has it and the phone too. A fault that comes before that leaves rows with
`accepted` false. What is under way when a `refuse` begins is still answered, on a connection that ends then.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from workers.sandbox.base import Answer

#: How a connection ends a request: with an answer, or in one of the other ways.
Wire = Literal["answer", "drop", "reset", "hang", "half", "garbage"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One way to go wrong."""

    name: str
    #: The provider does what was asked before it goes wrong.
    accepts: bool
    wire: Wire = "answer"
    #: Sent in place of the provider's own answer.
    instead: Answer | None = None


def _page(status: int, words: str) -> Answer:
    """Return an answer as a web server in front of the provider would make it."""
    body = f"<html><head><title>{words}</title></head><body><h1>{words}</h1></body></html>\n"
    return Answer(status=status, body=body.encode(), content_type="text/html; charset=utf-8")


#: Refusing connections is not a fault of one request: the server does it by not listening.
REFUSE = "refuse"

FAULTS = {
    fault.name: fault
    for fault in (
        Fault(name="latency", accepts=True),
        Fault(name="429", accepts=False, instead=_page(429, "Too Many Requests")),
        Fault(name="500", accepts=False, instead=_page(500, "Internal Server Error")),
        Fault(name="500-after", accepts=True, instead=_page(500, "Internal Server Error")),
        Fault(name="503", accepts=False, instead=_page(503, "Service Unavailable")),
        Fault(name="drop-before", accepts=False, wire="drop"),
        Fault(name="drop-after", accepts=True, wire="drop"),
        Fault(name="reset-before", accepts=False, wire="reset"),
        Fault(name="reset-after", accepts=True, wire="reset"),
        Fault(name="hang-before", accepts=False, wire="hang"),
        Fault(name="hang-after", accepts=True, wire="hang"),
        Fault(name="half", accepts=True, wire="half"),
        Fault(name="garbage", accepts=True, wire="garbage"),
        Fault(name="html", accepts=True, instead=_page(200, "Please log in")),
    )
}


#: Statuses that go with `Retry-After`.
_SAYS_WHEN = frozenset({429, 503})


class Met(msgspec.Struct, frozen=True):
    """A fault that a request meets."""

    fault: Fault
    #: For `latency` the delay, for `429` and `503` what `Retry-After` says.
    seconds: float = 0.0

    @property
    def delay(self) -> float:
        """Return the seconds that the answer is held back."""
        return self.seconds if self.fault.name == "latency" else 0.0

    def answer(self, own: Answer) -> Answer:
        """Return what is sent where the provider's `own` answer would be."""
        instead = self.fault.instead
        if instead is None:
            return own
        if self.seconds and instead.status in _SAYS_WHEN:
            return msgspec.structs.replace(instead, headers={"Retry-After": f"{self.seconds:g}"})
        return instead


class Switch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A fault that is switched on, as the control API takes it."""

    fault: str
    #: Empty: every provider.
    provider: str = ""
    #: The provider's word for what is asked; empty: all of them.
    action: str = ""
    #: How many requests meet it; None: all until it is switched off.
    times: int | None = None
    seconds: float = 0.0

    def matches(self, provider: str, action: str) -> bool:
        """Say whether this request meets the fault."""
        return self.provider in {"", provider} and self.action in {"", action}


class Switchboard:
    """The faults that are switched on, in the order they were."""

    def __init__(self) -> None:
        """Start with none."""
        self._on: list[Switch] = []

    def switch_on(self, switch: Switch) -> None:
        """Add a fault; requests meet the one that was switched on first, and the next when it is used up."""
        self._on.append(switch)

    def switch_off(self) -> None:
        """Remove all."""
        self._on.clear()

    def meet(self, provider: str, action: str) -> Met | None:
        """Return the fault that a request meets, and count it."""
        for switch in self._on:
            if switch.matches(provider, action):
                self._count(switch)
                return Met(FAULTS[switch.fault], switch.seconds)
        return None

    def _count(self, switch: Switch) -> None:
        if switch.times is not None:
            switch.times -= 1
            if switch.times <= 0:
                self._on.remove(switch)
