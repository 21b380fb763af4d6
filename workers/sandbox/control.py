"""The control API: what tests, the demo and people ask of the sandbox itself, and tell it. JSON over HTTP.

| request | answer |
|---|---|
| GET `/_sandbox/health` | `{"ok": true, "providers": ["textgoto"], "faults": ["429", ...]}` |
| GET `/_sandbox/inbox/447700900123` | the texts of that phone: `[{"at", "provider", "sender", "text"}]` |
| GET `/_sandbox/ledger?after=0` | rows from number `after` + 1 on, at most 10,000 |
| GET `/_sandbox/counts` | `{"requests": {"textgoto": {"SEND_MSISDN": 3}}, "accepted": {"447700900123": 1}}` |
| POST `/_sandbox/faults` | switch one on: `{"fault", "provider", "action", "times", "seconds"}` |
| DELETE `/_sandbox/faults` | switch all off |
| POST `/_sandbox/reset` | begin anew, faults off |

Only `fault` is needed to switch one on, such as `{"fault": "500", "times": 2}`; `workers.sandbox.faults`
lists them. `provider` and `action` (the provider's word) are all unless said; without `times` every request
meets it until it is switched off. A fault that is switched on goes before one that a request's numbers ask
for. `refuse` takes `seconds` only (1 if not said): nothing listens meanwhile, so it ends by itself. What
can't be done is answered `{"error": "..."}` with status 400, 404 or 405.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

from workers.sandbox.base import Answer, Request
from workers.sandbox.faults import FAULTS, REFUSE, Switch, Switchboard
from workers.sandbox.world import Message, Row, World

PREFIX = "/_sandbox/"
#: Rows of the ledger in one answer.
PAGE = 10_000
#: Seconds that `refuse` lasts at most: nothing can end it earlier.
LONGEST_REFUSAL = 600


class Control:
    """Answers requests below `/_sandbox/`."""

    def __init__(
        self,
        world: World,
        switchboard: Switchboard,
        providers: Sequence[str],
        refuse: Callable[[float], None],
    ) -> None:
        """`refuse` makes the server stop listening for some seconds, after it has answered."""
        self._world = world
        self._switchboard = switchboard
        self._providers = providers
        self._refuse = refuse

    def answer(self, request: Request) -> Answer:
        """Answer one request; never raises for what is in it."""
        what, _, argument = request.path.removeprefix(PREFIX).partition("/")
        verbs = self._routes().get(what)
        if verbs is None or (argument and what != "inbox"):
            return _error(404, f"there is no {request.path}")
        if request.method not in verbs:
            return _error(405, f"{request.path} takes {' and '.join(verbs)}")
        try:
            return _json(verbs[request.method](request, argument))
        except ValueError as error:  # msgspec's errors are ValueErrors
            return _error(400, str(error))

    def _routes(self) -> dict[str, dict[str, Callable[[Request, str], Any]]]:
        return {
            "health": {"GET": self._health},
            "inbox": {"GET": self._inbox},
            "ledger": {"GET": self._ledger},
            "counts": {"GET": self._counts},
            "faults": {"POST": self._switch_on, "DELETE": self._switch_off},
            "reset": {"POST": self._reset},
        }

    def _health(self, _request: Request, _argument: str) -> dict[str, Any]:
        return {"ok": True, "providers": self._providers, "faults": [*FAULTS, REFUSE]}

    def _inbox(self, _request: Request, argument: str) -> list[Message]:
        return self._world.inbox("".join(character for character in argument if character in "0123456789"))

    def _ledger(self, request: Request, _argument: str) -> list[Row]:
        after = int(parse_qs(request.query).get("after", ["0"])[-1])
        if after < 0:
            raise ValueError("after: rows are numbered from 1; 0 asks for all")
        return self._world.rows(after, PAGE)

    def _counts(self, _request: Request, _argument: str) -> dict[str, Any]:
        return {"requests": self._world.requests(), "accepted": self._world.accepted()}

    def _switch_on(self, request: Request, _argument: str) -> dict[str, Any]:
        switch = msgspec.json.decode(request.body, type=Switch)
        self._check(switch)
        if switch.fault == REFUSE:
            self._refuse(switch.seconds or 1.0)
        else:
            self._switchboard.switch_on(switch)
        return {"ok": True}

    def _check(self, switch: Switch) -> None:
        """Raise `ValueError` for what can't be switched on, saying what could."""
        if switch.fault not in FAULTS and switch.fault != REFUSE:
            raise ValueError(f"fault: {switch.fault!r} is none of {', '.join([*FAULTS, REFUSE])}")
        if switch.provider not in {"", *self._providers}:
            raise ValueError(f"provider: {switch.provider!r} is none of {', '.join(self._providers)}")
        if switch.times is not None and switch.times < 1:
            raise ValueError("times: at least 1; leave it out for all requests")
        if switch.seconds < 0 or (switch.fault == "latency" and not switch.seconds):
            raise ValueError("seconds: a positive number")
        if switch.fault == REFUSE and (switch.provider or switch.action or switch.times is not None):
            raise ValueError("refuse: takes seconds only, since whoever connects hasn't said what for")
        if switch.fault == REFUSE and switch.seconds > LONGEST_REFUSAL:
            raise ValueError(f"seconds: at most {LONGEST_REFUSAL}, since nothing can end a refusal")

    def _switch_off(self, _request: Request, _argument: str) -> dict[str, Any]:
        self._switchboard.switch_off()
        return {"ok": True}

    def _reset(self, _request: Request, _argument: str) -> dict[str, Any]:
        self._switchboard.switch_off()
        self._world.reset()
        return {"ok": True}


def _json(value: Any) -> Answer:
    return Answer(body=msgspec.json.encode(value))


def _error(status: int, words: str) -> Answer:
    return Answer(status=status, body=msgspec.json.encode({"error": words}))
