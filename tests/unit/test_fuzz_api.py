"""What application code may call, called with anything: it works, or it is refused in our words and changes nothing.

Ten thousand calls, the same ones each time; EXAMPLES=20 makes two hundred thousand others.
"""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import pytest

from dispatcher import (
    Batch,
    Dispatcher,
    DispatcherError,
    Event,
    InvalidRequest,
    Job,
    Message,
    State,
    VerificationRefused,
    records,
)
from tests.unit.strange import (
    CARD,
    FRESH_AFTER,
    INPUTS,
    NUMBER,
    PARTS,
    PLAIN,
    PRIVATE,
    TIMES,
    WORD,
    Enough,
    Passing,
    Shop,
    anything,
    chance,
    listed,
)
from tests.unit.support import OTHER, Clock, leaks

#: What private words may be given as. All else is a name, and may be shown.
PRIVATE_ARGUMENTS: Final = frozenset(
    {"to", "number", "text", "template", "sender", "messages", "code", "options", "arguments", "metadata",
     "idempotency_key"}
)  # fmt: skip


#: What an argument usually is, by its name: mostly good, so that calls get far.
USUAL: Final[Mapping[str, Callable[[random.Random, Shop], Any]]] = {
    "to": lambda decide, shop: decide.choice([NUMBER, OTHER, "00447700900187"]),
    "number": lambda decide, shop: decide.choice([NUMBER, OTHER]),
    "text": lambda decide, shop: decide.choice([WORD, "Grüße", "\N{PILE OF POO}"]),
    "template": lambda decide, shop: f"{WORD} [CODE]",
    "messages": lambda decide, shop: messages(decide),
    "id_": lambda decide, shop: decide.choice([*shop.ids, shop.batch]),
    "ids": lambda decide, shop: shop.ids[: decide.randrange(4)],
    "batch_id": lambda decide, shop: decide.choice([shop.batch, "autumn"]),
    "batch": lambda decide, shop: shop.batch,
    "provider": lambda decide, shop: decide.choice(["textgoto", ["textgoto"], None]),
    "operation": lambda decide, shop: decide.choice(["balance", "optout.add", "number.buy", "report", "send"]),
    "arguments": lambda decide, shop: {"number": NUMBER, "card_number": CARD, "security_code": "123"},
    "code": lambda decide, shop: WORD,
    "state": lambda decide, shop: decide.choice(["queued", "sent", "failed", "unknown", None]),
    "idempotency_key": lambda decide, shop: decide.choice(["k", WORD, None]),
    "category": lambda decide, shop: decide.choice(["otp", "transactional", "promotional"]),
    "lane": lambda decide, shop: decide.choice(["high", "normal", None]),
    "send_at": lambda decide, shop: datetime.fromtimestamp(shop.bench.clock.time() + 60, UTC),
    "valid_for": lambda decide, shop: decide.choice([60, 0.5, None]),
    "code_ttl": lambda decide, shop: 60,
    "until": lambda decide, shop: decide.choice(["settled", "final"]),
    "scope": lambda decide, shop: decide.choice(["account", "funds", None]),
    "after": lambda decide, shop: decide.choice(["0", "0-0", None]),
    "limit": lambda decide, shop: 5,
    "guard_keys": lambda decide, shop: decide.choice([{"ip": "203.0.113.7"}, {}, None]),
    "prefix": lambda decide, shop: decide.choice([NUMBER[:-3], "id"]),
}

#: Of an argument that is named nowhere above.
OTHERWISE: Final = (None, True, False, "")


def messages(decide: random.Random) -> Any:
    """Return what many messages may look like."""
    good: dict[str, Any] = {"to": NUMBER, "text": WORD}
    made = []
    for _ in range(decide.randrange(4)):
        odd = decide.sample(Message.__struct_fields__, decide.choice([0, 0, 1, 2]))
        made.append(Message(**good | {name: anything(decide, WORD if name != "reference" else PLAIN) for name in odd}))
    return [*made, *([anything(decide, WORD)] if decide.random() < 0.2 else [])]


class Method:
    """One of the calls, and what it takes."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.name = name
        parameters = [one for one in inspect.signature(function).parameters.values() if one.name != "self"]
        self.named = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
        self.needed = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD and one.default is one.empty]

    def arguments(self, decide: random.Random, shop: Shop) -> dict[str, Any]:
        """Return what it is called with: some as usual, some odd."""
        odd = decide.sample(self.named, min(len(self.named), decide.choice([0, 1, 1, 1, 2])))
        usual = {*self.needed, *decide.sample(self.named, min(len(self.named), decide.randrange(4)))} - {*odd}
        given = {name: anything(decide, WORD if name in PRIVATE_ARGUMENTS else PLAIN) for name in odd}
        for name in self.named:
            if name in usual:
                given[name] = USUAL[name](decide, shop) if name in USUAL else decide.choice(OTHERWISE)
        if "timeout" in self.named and not _over_soon(given.get("timeout")):
            given["timeout"] = 0
        return given


def _over_soon(timeout: Any) -> bool:
    """Say whether this is no time that anybody would really wait for."""
    return timeout is not None and not (isinstance(timeout, int | float) and timeout > 0)


METHODS: Final = [
    Method(name, function)
    for name, function in inspect.getmembers(Dispatcher, inspect.isfunction)
    if not name.startswith("_") and name != "close"
]


def looked_at(answer: Any) -> Any:
    """Look at an answer as its caller would."""
    if isinstance(answer, Iterator):
        return [one.data if isinstance(one, Event) else repr(one) for one in islice(answer, 5)]
    if isinstance(answer, Batch):
        return [answer.counts, answer.settled, [job.to_dict() for job in answer.jobs[:5]]]
    return answer.to_dict() if isinstance(answer, Job) else repr(answer)


def readable(shop: Shop, job: Job) -> bool:
    """Say whether a new job is read as it was told, and by a worker too."""
    told = job == shop.dispatcher.get(job.id)
    if job.state == State.QUEUED:
        for raw in shop.bench.take(job.id, alone=True).records:
            records.work(raw, shop.bench.settings.sealer())
        shop.changed(unseen=True)
    return told


def refused_well(method: Method, error: DispatcherError) -> str:
    """Return what is wrong with a refusal, or nothing: it names an argument, and tells nothing private."""
    words = f"{error} {error!r}"
    if leaks(words, *PRIVATE):
        return "tells what is private"
    if len(words) > 2000:
        return "is longer than anybody reads"
    if isinstance(error, InvalidRequest) and error.field.split("[")[0].split(".")[0] not in [*method.named, "resend"]:
        return f"names {error.field}, which is no argument"
    return ""


def tried(shop: Shop, method: Method, arguments: Mapping[str, Any]) -> str:
    """Make a call; return what is wrong with how it ended, or nothing."""
    try:
        answer = getattr(shop.dispatcher, method.name)(**arguments)
        looked_at(answer)
    except DispatcherError as error:
        if wrong := refused_well(method, error):
            return f"{wrong}: {error!s:.300}"
        # What a guard refuses is counted, and told.
        changed = shop.changed() and not isinstance(error, VerificationRefused)
        return "was refused, and changed something" if changed else ""
    except Enough:
        return "" if method.name != "events" else "goes round and round"
    except Exception as error:  # noqa: BLE001 - that is what must not be
        return f"ended with {type(error).__name__}: {error!s:.100}"
    shop.changed()
    if isinstance(answer, Job) and arguments.get("reveal") is not True and not readable(shop, answer):
        return "is told otherwise than it is read"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_anything_is_done_or_refused(
    part: int, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    passing = Passing()
    for module in ("reading", "batches", "events"):
        monkeypatch.setattr(f"dispatcher.{module}.time", passing)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    decide, shop, wrong = chance("calls", part), Shop(clock), dict[tuple[str, str], dict[str, str]]()
    for number in range(INPUTS * TIMES // PARTS):
        if number % FRESH_AFTER == FRESH_AFTER - 1:
            assert not shop.changed(unseen=True), "something was written, and by no script"
            shop = Shop(clock)
        method = decide.choice(METHODS)
        arguments = method.arguments(decide, shop)
        passing.begin()
        if problem := tried(shop, method, arguments):
            kinds = {name: type(value).__name__ for name, value in arguments.items()}
            wrong.setdefault((method.name, problem), kinds)
    assert not wrong, listed(wrong)
    assert leaks(caplog.text, *PRIVATE) == []
