"""The control API: what tests, the demo and people ask of the sandbox itself, and tell it. JSON over HTTP.

| request | answer |
|---|---|
| GET `/_sandbox/health` | `{"ok": true, "providers": ["textgoto", ...], "faults": ["429", ...]}` |
| GET `/_sandbox/inbox/447700900123` | the texts of that phone: `[{"at", "provider", "sender", "text"}]` |
| GET `/_sandbox/ledger?after=0` | rows from number `after` + 1 on, at most 10,000 |
| GET `/_sandbox/counts` | `{"requests": {"textgoto": {"SEND_MSISDN": 3}}, "accepted": {"447700900123": 1}, ...}` |
| POST `/_sandbox/faults` | switch one on: `{"fault", "provider", "action", "times", "seconds"}` |
| DELETE `/_sandbox/faults` | switch all off |
| GET `/_sandbox/limits` | `{"enforced": true, "providers": {"mobtexting": {...}, ...}, "counted": [...]}` |
| POST `/_sandbox/limits` | change them: `{"enforced", "provider", "at_once", "gets_a_minute", "late", "windows"}` |
| GET `/_sandbox/callbacks` | `{"mobtexting": {"url": "http://...", "waiting": 0, "taken": 1, "dropped": 0}}` |
| POST `/_sandbox/callbacks` | where providers call: `{"mobtexting": "http://127.0.0.1:8470/"}`; `""` for nowhere |
| GET, POST `/_sandbox/times` | when they do, in seconds: `{"after", "late", "retry_every", "retries"}` |
| POST `/_sandbox/inbound` | a phone texts: `{"provider", "account", "from", "to", "text"}` |
| POST `/_sandbox/reset` | begin anew: faults off, limits as documented, addresses and times as at the start |

Only `fault` is needed to switch one on, such as `{"fault": "500", "times": 2}`; `workers.sandbox.faults`
lists them. `provider` and `action` (the provider's word) are all unless said; without `times` every request
meets it until it is switched off. A fault that is switched on goes before one that a request's numbers ask
for. `refuse` takes `seconds` only (1 if not said): nothing listens meanwhile, so it ends by itself.

`messages` in the counts is `accepted` by provider. Of a change of limits or times, what is left out stays as it
is. A phone's text needs no `account` (it is the provider's first, then) and no `to` (the account's first number,
or else keyword, or else whoever texted that phone last). What can't be done is answered `{"error": "..."}` with
status 400, 404 or 405.

A window is `{"counts": "send", "most": 1000, "seconds": 60, "fixed": false}`: `counts` is `all`, a verb in lower
case, or a kind of the ledger's rows, one for each number; without `most` it counts only, and `fixed` windows begin
when the clock is a multiple of `seconds`, others anywhere. `counted` has for each account and window `taken`,
`refused`, and the most that were seen in any window of either sort (`sliding`, `fixed`). A request takes up to `late`
seconds, each another time, until it arrives: before that it is not counted, nor in the ledger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

from workers.sandbox.base import Answer, Provider, Request, Texted
from workers.sandbox.callbacks import Callbacks, Times, Told
from workers.sandbox.faults import FAULTS, REFUSE, Switch, Switchboard
from workers.sandbox.limits import Limiter, Setting, Window
from workers.sandbox.limits import Told as Limits
from workers.sandbox.world import Account, Message, Row, World

PREFIX = "/_sandbox/"
#: Rows of the ledger in one answer.
PAGE = 10_000
#: Seconds that `refuse` lasts at most: nothing can end it earlier.
LONGEST_REFUSAL = 600
#: Seconds that a request is late at most.
LATEST = 60

_PHONE = re.compile(r"[1-9][0-9]{6,14}")


class Inbound(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, rename={"sender": "from"}):
    """A text from a phone, as the control API takes it."""

    provider: str
    #: As people write numbers.
    sender: str
    text: str
    account: str = ""
    to: str = ""


class Control:
    """Answers requests below `/_sandbox/`."""

    def __init__(
        self,
        world: World,
        switchboard: Switchboard,
        limiter: Limiter,
        callbacks: Callbacks,
        *,
        providers: Sequence[Provider],
        refuse: Callable[[float], None],
    ) -> None:
        """`refuse` makes the server stop listening for some seconds, after it has answered."""
        self._world = world
        self._switchboard = switchboard
        self._limiter = limiter
        self._callbacks = callbacks
        self._providers = {provider.name: provider for provider in providers}
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
            "limits": {"GET": self._limits, "POST": self._change_limits},
            "callbacks": {"GET": self._told, "POST": self._call},
            "times": {"GET": self._times, "POST": self._change_times},
            "inbound": {"POST": self._inbound},
            "reset": {"POST": self._reset},
        }

    def _health(self, _request: Request, _argument: str) -> dict[str, Any]:
        return {"ok": True, "providers": [*self._providers], "faults": [*FAULTS, REFUSE]}

    def _inbox(self, _request: Request, argument: str) -> list[Message]:
        return self._world.inbox(_digits(argument))

    def _ledger(self, request: Request, _argument: str) -> list[Row]:
        after = int(parse_qs(request.query).get("after", ["0"])[-1])
        if after < 0:
            raise ValueError("after: rows are numbered from 1; 0 asks for all")
        return self._world.rows(after, PAGE)

    def _counts(self, _request: Request, _argument: str) -> dict[str, Any]:
        world = self._world
        return {"requests": world.requests(), "accepted": world.accepted(), "messages": world.messages()}

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
        if switch.provider:
            self._played(switch.provider)
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
        self._limiter.reset()
        self._callbacks.reset()
        self._world.reset()
        return {"ok": True}

    def _limits(self, _request: Request, _argument: str) -> Limits:
        return self._limiter.told()

    def _change_limits(self, request: Request, _argument: str) -> dict[str, Any]:
        setting = msgspec.json.decode(request.body, type=Setting)
        limits = {"at_once": setting.at_once, "gets_a_minute": setting.gets_a_minute}
        more = {"late": setting.late, "windows": setting.windows}
        for name, limit in (limits | more).items():
            if limit is not msgspec.UNSET and not setting.provider:
                raise ValueError(f"provider: whose {name} it is")
            if isinstance(limit, int) and limit < 1:
                raise ValueError(f"{name}: at least 1; null for any number")
        if isinstance(setting.late, float) and not 0 <= setting.late <= LATEST:
            raise ValueError(f"late: from 0 to {LATEST} seconds")
        for window in setting.windows or ():
            _check_window(window)
        if setting.provider:
            self._played(setting.provider)
        self._limiter.change(setting)
        return {"ok": True}

    def _told(self, _request: Request, _argument: str) -> dict[str, Told]:
        return self._callbacks.told()

    def _call(self, request: Request, _argument: str) -> dict[str, Any]:
        self._callbacks.set(msgspec.json.decode(request.body, type=dict[str, str]))
        return {"ok": True}

    def _times(self, _request: Request, _argument: str) -> Times:
        return self._callbacks.times

    def _change_times(self, request: Request, _argument: str) -> dict[str, Any]:
        changes = msgspec.json.decode(request.body, type=dict[str, int | float])
        self._callbacks.times = msgspec.convert(msgspec.to_builtins(self._callbacks.times) | changes, Times)
        return {"ok": True}

    def _inbound(self, request: Request, _argument: str) -> dict[str, Any]:
        inbound = msgspec.json.decode(request.body, type=Inbound)
        provider, sender = self._played(inbound.provider), _digits(inbound.sender)
        if not _PHONE.fullmatch(sender):
            raise ValueError("from: a number in international form, like +447700900001")
        account = self._account(provider, inbound.account)
        heard = [message.sender for message in self._world.inbox(sender) if message.provider == provider.name]
        to = inbound.to or next(iter([*sorted(account.numbers), *account.keywords, *heard[-1:]]), "")
        texted = Texted(account=account.name, sender=sender, to=to, text=inbound.text, at=self._world.now())
        self._callbacks.text(provider, texted)
        return {"ok": True}

    def _account(self, provider: Provider, name: str) -> Account:
        names = [account.name for account in provider.accounts()]
        account = self._world.account(provider.name, name or names[0])
        if account is None:
            raise ValueError(f"account: {name!r} is none of {provider.name}'s: {', '.join(names)}")
        return account

    def _played(self, name: str) -> Provider:
        if name not in self._providers:
            raise ValueError(f"provider: {name!r} is none of {', '.join(self._providers)}")
        return self._providers[name]


def _check_window(window: Window) -> None:
    """Raise `ValueError` for one that would count nothing."""
    if not window.counts:
        raise ValueError('windows: counts is "all", a verb such as "get", or a kind of rows such as "send"')
    if window.seconds <= 0 or (window.most is not None and window.most < 1):
        raise ValueError("windows: most is at least 1 (null to count only), in a positive number of seconds")


def _digits(number: str) -> str:
    return "".join(character for character in number if character in "0123456789")


def _json(value: Any) -> Answer:
    return Answer(body=msgspec.json.encode(value))


def _error(status: int, words: str) -> Answer:
    return Answer(status=status, body=msgspec.json.encode({"error": words}))
