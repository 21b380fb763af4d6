"""Values that nobody expects, the same for the same seed, and an application of which it is known what they changed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from dispatcher import Dispatcher, Message
from dispatcher.accounts import KEY, Account
from tests.unit.support import Bench, Clock

#: EXAMPLES=20 makes tests of many inputs that many times longer, with other inputs each time.
TIMES: Final = int(os.environ.get("EXAMPLES", "1"))

#: Inputs of each kind, and into how many tests they are parted, so that these spread over all cores.
INPUTS: Final = 10_000
PARTS: Final = 8

#: What is private, and what of it no message and no log may hold, whichever way it was written.
NUMBER: Final = "+447700900187"
WORD: Final = "canary-Word-71"
CARD: Final = "4929000000006"
PRIVATE: Final = ("7700900187", "7700 900187", "7700-900187", WORD, CARD)

#: What stands for `WORD` where nothing private belongs: a name, an id, a cursor is shown as it was given.
PLAIN: Final = "some-name-71"

#: Makes a value with a word in it.
Maker: TypeAlias = Callable[[str], Any]


def chance(*seed: object) -> random.Random:
    """Return what decides, the same for the same seed; another each time in a long run."""
    return random.Random(repr(seed)) if TIMES == 1 else random.Random()


def anything(decide: random.Random, word: str = PLAIN) -> Any:
    """Return a value of any kind."""
    return decide.choice(decide.choice(KINDS))(word)


def listed(wrong: Mapping[Any, object]) -> str:
    """Return what went wrong, one a line, and none of it too long to read."""
    return "\n".join(f"{' '.join(what)}: {how!r:.600}" for what, how in wrong.items())


class Refuses:
    """An object that takes part in nothing, as some libraries' arrays do not."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value of this is ambiguous")

    def __eq__(self, other: object) -> Any:
        raise ValueError("this compares with nothing")

    __hash__ = None  # type: ignore[assignment]  # like an array, it is no key of a dict

    def __str__(self) -> str:
        raise RuntimeError("this has no words")

    __repr__ = __str__


class Scalar:
    """A number of another library: it is none of Python's, and can be made one."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __float__(self) -> float:
        return float(self._value)

    def __int__(self) -> int:
        return int(self._value)

    __index__ = __int__


class Text(str):
    """A text of another type, as templates make them."""

    __slots__ = ()


class Whole(int):
    """A number of another type."""


class Choice(Enum):
    """A choice of the application's own."""

    SEND = "send"


def _deep(word: str, levels: int) -> Any:
    inner: Any = word
    for level in range(levels):
        inner = {"a": inner} if level % 2 else [inner]
    return inner


def _endless() -> dict[str, Any]:
    one: dict[str, Any] = {}
    one["self"] = one
    return one


#: Texts that are well-formed or not, short or long.
TEXTS: Final[list[Maker]] = [
    lambda word: "",
    lambda word: " ",
    lambda word: "\t\r\n",
    lambda word: word,
    lambda word: NUMBER,
    lambda word: "+44 7700 900187",
    lambda word: "07700-900187",
    lambda word: f"{NUMBER}{NUMBER}",
    lambda word: f"{NUMBER}\0",
    lambda word: f"{NUMBER}/{NUMBER}",
    lambda word: f"{word} \ud83d",
    lambda word: f"\udcff{NUMBER}",
    lambda word: f"{word}\0{word}",
    lambda word: f"{word}\r\nHost: {word}",
    lambda word: word * 5000,
    lambda word: "9" * 5000,
    lambda word: "+" + "4" * 400,
    lambda word: "\N{ARABIC-INDIC DIGIT SEVEN}" * 12,
    lambda word: "\u00b2" * 11,
    lambda word: "\u202e" + word,
    lambda word: "\x1b[31m" + word,
    lambda word: "%s%n{0}{to}",
    lambda word: "*",
    lambda word: "d:j:*",
    lambda word: "../../etc/passwd",
    lambda word: "nan",
    lambda word: "inf",
    lambda word: "-1",
    lambda word: "1e999",
    lambda word: "null",
    lambda word: "{}",
    lambda word: "a b",
    lambda word: "a\nb",
    lambda word: "\N{PILE OF POO}" * 30,
    lambda word: "\x85\u2028\u2029",
    lambda word: "textgoto",
    lambda word: "balance",
    lambda word: "0-0",
    lambda word: "18000000000000-1",
    lambda word: "9" * 19,
    Text,
    lambda word: Text("settled"),
]

#: Numbers that are none, or too large, or of another kind.
NUMBERS: Final[list[Maker]] = [
    lambda word: 0,
    lambda word: -1,
    lambda word: 1,
    lambda word: -0.0,
    lambda word: 0.0004,
    lambda word: 5e-324,
    lambda word: 1.5,
    lambda word: 600,
    lambda word: 2**31,
    lambda word: 2**53 + 1,
    lambda word: 2**63,
    lambda word: 2**64,
    lambda word: -(2**63) - 1,
    lambda word: 10**400,
    lambda word: 10**5000,
    lambda word: 1e18,
    lambda word: 1e308,
    lambda word: float("nan"),
    lambda word: float("inf"),
    lambda word: float("-inf"),
    lambda word: True,
    lambda word: False,
    lambda word: Whole(7),
    lambda word: Scalar(7),
    lambda word: Scalar(float("nan")),
    lambda word: Decimal(7),
    lambda word: Decimal("NaN"),
    lambda word: Decimal("sNaN"),
    lambda word: Fraction(1, 3),
    lambda word: complex(1, 2),
]

#: Moments, with a zone and without, near and far.
MOMENTS: Final[list[Maker]] = [
    lambda word: datetime(2027, 1, 15, 9, tzinfo=UTC),
    lambda word: datetime(2027, 1, 15, 9),  # noqa: DTZ001 - a mistake that callers make
    lambda word: datetime.min,  # noqa: DTZ901 - same
    lambda word: datetime.max,  # noqa: DTZ901 - same
    lambda word: datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    lambda word: datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
    lambda word: datetime(9999, 12, 31, tzinfo=UTC),
    lambda word: datetime(1, 1, 1, tzinfo=UTC),
    lambda word: date(2027, 1, 15),
    lambda word: timedelta(days=1),
    lambda word: 4_102_444_800_000,
]

#: Everything else.
THINGS: Final[list[Maker]] = [
    lambda word: None,
    lambda word: Refuses(),
    lambda word: object(),
    str.encode,
    lambda word: bytearray(NUMBER.encode()),
    lambda word: memoryview(b"x"),
    Path,
    lambda word: Choice.SEND,
    lambda word: len,
    ValueError,
    lambda word: [],
    lambda word: (),
    lambda word: {},
    lambda word: set[str](),
    lambda word: [word],
    lambda word: [NUMBER, None],
    lambda word: [[NUMBER]],
    lambda word: (NUMBER,),
    lambda word: {NUMBER},
    lambda word: {word: NUMBER},
    lambda word: {1: word},
    lambda word: {None: word},
    lambda word: {("a", "b"): word},
    lambda word: {b"a": word},
    lambda word: {"a": Refuses()},
    lambda word: {"a": float("nan")},
    lambda word: {"a": 10**400},
    lambda word: {"a": 2**64},
    lambda word: {"a": "\ud83d"},
    lambda word: {"\ud83d": "a"},
    lambda word: {"a": b"\xff"},
    lambda word: {"a": {1, 2}},
    lambda word: {"a": Decimal("NaN")},
    lambda word: {"a": datetime(2027, 1, 15, tzinfo=UTC)},
    lambda word: {"a": object()},
    lambda word: {"a": _deep(word, 50)},
    lambda word: {"a": _deep(word, 1200)},
    lambda word: {"a": _deep(word, 20_000)},
    lambda word: {"a": word * 1000},
    lambda word: {f"a{number}": number for number in range(2000)},
    lambda word: _endless(),
    lambda word: [_endless()],
    lambda word: (one for one in [word]),
    lambda word: iter([Message(NUMBER, word)]),
    lambda word: range(3),
    lambda word: {"number": NUMBER, "numbers": [NUMBER, word]},
    lambda word: {"card_number": CARD, "security_code": "123"},
    lambda word: {"card_number": Refuses()},
]

KINDS: Final = (TEXTS, NUMBERS, MOMENTS, THINGS)


# -- an application ----------------------------------------------------------------------------------------------------

#: Calls after which an application begins anew, so that to look at all of its Redis takes little.
FRESH_AFTER: Final = 25


class Enough(BaseException):
    """Whoever waits for ever has waited long enough."""


class Passing:
    """The module `time` to whoever waits: sleeping takes no time, and nobody waits for ever."""

    def __init__(self) -> None:
        self._now = 0.0
        self._looks = 0

    def begin(self) -> None:
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        if self._looks > 60:
            raise Enough
        return self._now

    def time(self) -> float:
        return 1_800_000_000 + self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


class Shop:
    """An application with a few jobs, on a Redis of which it is known what changed."""

    def __init__(self, clock: Clock) -> None:
        self.bench = Bench(clock, allow_card_data=True)
        can = ["send", "verify", "lookup", "balance", "optout.add", "number.buy"]
        account = Account(name="textgoto", adapter="textgoto", operations=can, unsupported={"report": "it has no call"})
        self.bench.redis.hset(KEY, "textgoto", msgspec.json.encode(account))
        self.dispatcher = Dispatcher(self.bench.settings)
        self.dispatcher._store.redis = self.bench.redis
        self.ids = [
            self.dispatcher.send(NUMBER, WORD, idempotency_key="k").id,
            self.dispatcher.verify(NUMBER).id,
            self.dispatcher.lookup(NUMBER).id,
        ]
        self.batch = self.dispatcher.send_many([Message(NUMBER, WORD)], batch_id="spring", more=True).id
        self._known = self.bench.dump()
        self._ran = False
        run = self.dispatcher._store.run

        def noted(call: Any) -> Any:
            self._ran = True
            return run(call)

        setattr(self.dispatcher._store, "run", noted)  # noqa: B010 - mypy allows no method to be assigned

    def changed(self, *, unseen: bool = False) -> bool:
        """Say whether anything in Redis changed since it was asked last; only scripts write, unless it was `unseen`."""
        if not self._ran and not unseen:
            return False
        before, self._known, self._ran = self._known, self.bench.dump(), False
        return before != self._known
