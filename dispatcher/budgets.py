"""Budgets: what may be sent in a day or a month, before it stops; pure. `lua/claim.lua` counts and enforces them.

A rule is one line of words, `tenant=* country=US segments=500/day warn=80%`: what it is for, one cap, and at which
share of it a warning is told. Without conditions it is for all there is. Each value that `*` stands for has a count of
its own; a rule that names the value takes the place of the one with `*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from dispatcher.jobs import Category, moment
from dispatcher.phone import is_country

Unit: TypeAlias = Literal["messages", "segments", "money"]
Per: TypeAlias = Literal["day", "month"]

#: Money is counted in whole millionths.
MILLIONTHS: Final = 1_000_000

#: What a rule may be for.
CONDITIONS: Final = ("tenant", "country", "category", "provider")

#: Each value has its own count.
ANY: Final = "*"

_GRAMMAR: Final = (
    "write conditions (tenant=, country=, category=, provider=; * for each value by itself), one cap "
    "(messages=10000/day, segments=500/month or money=50 USD/day) and perhaps warn=80%"
)
_CAP: Final = re.compile(r"(messages|segments|money)=(.*)/([^/]*)")
_WARN: Final = re.compile(r"([0-9]{1,3})%")
_MONEY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ([A-Z]{3}|credits)")
_THRESHOLD: Final = re.compile(r"[0-9]+(\.[0-9]+)?( ([A-Z]{3}|credits))?")
_USUAL_WARNING: Final = 80
_ALL: Final = 100
#: The most that a cap may be: what a double holds to the last millionth.
_MOST: Final = 1_000_000_000


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What of a text a rule may ask for."""

    tenant: str
    country: str
    category: str
    provider: str


class Money(NamedTuple):
    """An amount in millionths, and its currency: three capitals, "credits", or empty where nobody said."""

    millionths: int
    currency: str

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{decimal(self.millionths)} {self.currency}".rstrip()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One cap. Amounts are messages, segments, or millionths of the currency."""

    text: str
    #: Condition and value, by name.
    conditions: tuple[tuple[str, str], ...] = ()
    unit: Unit
    currency: str = ""
    cap: int
    #: From this amount on a warning is told.
    warn: int
    per: Per

    @property
    def subject(self) -> str:
        """What its counters are named after: other rules with the same one would count the same."""
        return counter_name(self.unit, self.currency, self.per, self.conditions)

    @property
    def stars(self) -> int:
        """How many of its conditions stand for each value."""
        return sum(value == ANY for _, value in self.conditions)

    def counter(self, facts: Facts) -> str | None:
        """Return the counter that a text with these facts counts in; None where the rule is not for it."""
        here = tuple((name, getattr(facts, name)) for name, _ in self.conditions)
        if any(wanted not in {ANY, value} for (_, wanted), (_, value) in zip(self.conditions, here, strict=True)):
            return None
        return counter_name(self.unit, self.currency, self.per, here)

    def amount(self, counted: int) -> str:
        """Return an amount as it is shown."""
        return str(Money(counted, self.currency)) if self.unit == "money" else str(counted)


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What one text uses up."""

    #: ISO 3166; empty where no text is sent.
    country: str = ""
    #: 0 where no text is sent.
    segments: int = 0
    #: "<millionths> <currency>" of a segment by the account's settings; empty where they do not say.
    each: str = ""
    #: The counters that it counts in, with their rules.
    counters: Mapping[str, Rule] = {}


#: What uses up nothing.
NO_TEXT: Final = Spending()


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How one counter of a rule stands."""

    rule: str
    #: The values that it counts for, by condition.
    counts_for: dict[str, str]
    #: Messages and segments, or money with its currency.
    used: str
    cap: str
    #: Of the cap, 0.0 to 1.0 and, where prices were corrected, above.
    share: float
    period_end: datetime
    #: "ok", "warning" or "used up".
    state: str


def parse(rules: Iterable[str]) -> tuple[Rule, ...]:
    """Read rules. Raises `ValueError` with the rule and the way out."""
    found: dict[str, Rule] = {}
    for written in rules:
        rule = _rule(" ".join(written.split()))
        other = found.setdefault(rule.subject, rule)
        if other is not rule:
            raise ValueError(f"has two rules that count the same, {other.text!r} and {rule.text!r}; leave one out")
    return tuple(found.values())


def money(written: str) -> Money:
    """Read an amount such as "0.0055 USD". Raises `ValueError`."""
    told = _MONEY.fullmatch(written)
    if told is None:
        raise ValueError("is no amount of money; write it like 0.0055 USD or 1 credits")
    return Money(_millionths(told[1]), told[2])


def decimal(millionths: int) -> str:
    """Return an amount in millionths as decimal text."""
    return f"{(Decimal(millionths) / MILLIONTHS).normalize():f}"


def applying(rules: Sequence[Rule], facts: Facts) -> dict[str, Rule]:
    """Return the rules that are for a text with these facts, by the counter it counts in."""
    found: dict[str, Rule] = {}
    for rule in rules:
        name = rule.counter(facts)
        if name is not None and (name not in found or rule.stars < found[name].stars):
            found[name] = rule
    return found


def standing(rules: Sequence[Rule], periods: Mapping[str, tuple[int, Mapping[str, int]]]) -> list[Budget]:
    """Return how the budgets stand, by rule; one with `*` for each value that was counted.

    `periods` has for "day" and "month" when it ends, in milliseconds since 1970, and what is used of each counter.
    """
    found: dict[str, dict[str, dict[str, str]]] = {rule.text: {} for rule in rules}
    for per, (_, used) in periods.items():
        for name in used:
            counts_for = values(name)
            facts = Facts(**{condition: counts_for.get(condition, "") for condition in CONDITIONS})
            rule = applying([one for one in rules if one.per == per], facts).get(name)
            if rule is not None:
                found[rule.text][name] = counts_for
    for rule in rules:
        if not rule.stars:
            found[rule.text] = {rule.subject: dict(rule.conditions)}
    return [
        _budget(rule, counts_for, periods[rule.per][1].get(name, 0), periods[rule.per][0])
        for rule in rules
        for name, counts_for in sorted(found[rule.text].items())
    ]


def told(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the event of a budget carries, of what the scripts write."""
    unit, _, currency = str(document["unit"]).partition(" ")
    used, cap = int(document["used"]), int(document["cap"])
    shown = {
        name: str(Money(one, currency)) if unit == "money" else str(one) for name, one in (("used", used), ("cap", cap))
    }
    return {
        "rule": document["rule"],
        "counts_for": values(document["counter"]),
        **shown,
        "share": round(used / cap, 4),
        "period_end": msgspec.to_builtins(moment(document["ends"])),
    }


def low(balance: Any, currency: str | None, threshold: str) -> bool | None:
    """Say whether a balance is below the account's `LOW_BALANCE`; None where the two cannot be compared."""
    amount, _, wanted = threshold.partition(" ")
    try:
        left = Decimal(str(balance))
    except InvalidOperation:
        return None
    if not left.is_finite() or (wanted and currency and wanted != currency):
        return None
    return left < Decimal(amount)


def check_threshold(written: str) -> None:
    """Refuse a `LOW_BALANCE` that is none. Raises `ValueError`."""
    if not _THRESHOLD.fullmatch(written) or not Decimal(written.partition(" ")[0]):
        raise ValueError("must be an amount above 0, such as 10 USD, 500 credits or 10")


def counter_name(unit: Unit, currency: str, per: Per, conditions: Iterable[tuple[str, str]]) -> str:
    """Return what a counter is called: what is counted, and for whom. `values` reads it again."""
    what = currency if unit == "money" else unit
    return " ".join([f"{what}/{per}", *(f"{name}={quote(value, safe='*')}" for name, value in conditions)])


def values(name: str) -> dict[str, str]:
    """Return what a counter counts for, by condition."""
    pairs = (one.partition("=") for one in name.split(" ")[1:])
    return {condition: unquote(value) for condition, _, value in pairs}


def _rule(text: str) -> Rule:
    conditions, caps, warn = dict[str, str](), list[tuple[Unit, str, int, Per]](), _USUAL_WARNING
    for word in _words(text):
        name, _, value = word.partition("=")
        if name in {"messages", "segments", "money"}:
            caps.append(_cap(text, word))
        elif name == "warn":
            warn = _warning(text, value)
        elif name not in CONDITIONS:
            raise _wrong(text, f"has {word!r}, which is no part of a rule")
        elif name in conditions:
            raise _wrong(text, f"names {name} twice")
        else:
            conditions[name] = _condition(text, name, value)
    if len(caps) != 1:
        raise _wrong(text, f"has {'several caps' if caps else 'no cap'}")
    unit, currency, cap, per = caps[0]
    return Rule(
        text=text, conditions=tuple(sorted(conditions.items())), unit=unit, currency=currency, cap=cap,
        warn=max(1, -(-cap * warn // _ALL)), per=per,
    )  # fmt: skip


def _words(text: str) -> list[str]:
    # The one space within a word is that between an amount and its currency.
    return re.sub(r"(money=[^ =]*) (?=[^ =]+/)", "\\1\0", text).split(" ")


def _cap(text: str, word: str) -> tuple[Unit, str, int, Per]:
    shape = _CAP.fullmatch(word.replace("\0", " "))
    if shape is None:
        raise _wrong(text, "has a cap without its period")
    unit, amount, per = shape.groups()
    if per not in {"day", "month"}:
        raise _wrong(text, f"has a cap per {per or 'nothing'}, and a period is a day or a month")
    currency, cap = "", 0
    if unit == "money":
        if not _MONEY.fullmatch(amount):
            raise _wrong(text, "has an amount of money that is none, and one is like 50 USD or 500 credits")
        cap, currency = money(amount)
    elif amount.isdecimal() and amount.isascii():
        cap = int(amount)
    else:
        raise _wrong(text, f"has a cap of {amount!r}, which is no whole number")
    if not 0 < cap <= _MOST * (MILLIONTHS if unit == "money" else 1):
        raise _wrong(text, f"has a cap that is not above 0 and at most {_MOST}")
    return unit, currency, cap, per  # type: ignore[return-value]  # the pattern has these words only


def _warning(text: str, value: str) -> int:
    share = _WARN.fullmatch(value)
    if share is None or not 0 < int(share[1]) <= _ALL:
        raise _wrong(text, f"has warn={value}, and a warning comes at 1% to 100%")
    return int(share[1])


def _condition(text: str, name: str, value: str) -> str:
    if not value:
        raise _wrong(text, f"names no {name}")
    if name == "country" and value != ANY and not is_country(value.upper()):
        raise _wrong(text, f"has country={value}, and a country is two letters of ISO 3166, such as US")
    if name == "category" and value not in {ANY, *Category}:
        raise _wrong(text, f"has category={value}, and there are {', '.join(Category)}")
    return value.upper() if name == "country" else value


def _wrong(text: str, why: str) -> ValueError:
    return ValueError(f"has the rule {text!r}, which {why}; {_GRAMMAR}")


def _millionths(amount: str) -> int:
    return round(Decimal(amount) * MILLIONTHS)


def _budget(rule: Rule, counts_for: dict[str, str], used: int, ends: int) -> Budget:
    state = "used up" if used >= rule.cap else "warning" if used >= rule.warn else "ok"
    return Budget(
        rule=rule.text, counts_for=counts_for, used=rule.amount(used), cap=rule.amount(rule.cap),
        share=round(used / rule.cap, 4), period_end=moment(ends), state=state,
    )  # fmt: skip
