"""Routes: which accounts a job may go to, and in which order; pure.

`DISPATCHER_ROUTES` has one rule a line, and the first that fits decides:
`category=otp country=GB,IE -> textgoto | mobtexting*3, clubtexting`. All conditions of a rule must hold; a rule without
any fits everything. The steps after the arrow are separated by commas and tried one after the other; in a step one of
several accounts is chosen by its weight, and the others of the step come right after it. In place of steps stands
`refuse` where nobody shall do it: `kind=send line_type=fixed_line -> refuse`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from dispatcher import phone
from dispatcher.jobs import Category, Kind

#: Kinds of lines, as lookups and the numbers themselves tell them.
LINE_TYPES: Final = (*phone.LINE_TYPES.values(), "unknown")

#: What an account may be called: it names queues, and stands in histories.
_ACCOUNT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PREFIX: Final = re.compile(r"\+[0-9]{1,15}")
_WEIGHT: Final = re.compile(r"[0-9]{1,6}")

#: How a condition is written, by its name, and whether a value of it can be.
_CONDITIONS: Final[dict[str, tuple[str, Callable[[str], bool]]]] = {
    "kind": ("send, verify or lookup", lambda one: one in {Kind.SEND, Kind.VERIFY, Kind.LOOKUP}),
    "category": (" or ".join(Category), lambda one: one in [*Category]),
    "country": ("two letters of ISO 3166, such as GB", phone.is_country),
    "prefix": ("the first digits of a number, such as +4477", lambda one: _PREFIX.fullmatch(one) is not None),
    "line_type": (f"one of {', '.join(LINE_TYPES)}", lambda one: one in LINE_TYPES),
    "sender": ("the sender as it is given, without spaces", bool),
}

#: In place of steps: it is not done. So no account of a rule can be called that.
_REFUSE: Final = "refuse"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What rules ask of a job. Its repr shows nothing of the person."""

    kind: Kind
    category: Category
    #: In E.164; empty where it concerns none.
    number: str = ""
    #: What a lookup told of its line; empty where none is remembered, and the number itself tells.
    line_type: str = ""
    sender: str = ""
    #: The words of a message, with six digits where its code goes; empty for no message.
    text: str = ""

    def __repr__(self) -> str:
        return f"Facts({self.kind}, {self.category})"


class Rule(msgspec.Struct, frozen=True):
    """One rule: its words, what must hold, and its steps of accounts with their weights; none where it refuses."""

    words: str
    conditions: dict[str, frozenset[str]]
    steps: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def refuses(self) -> bool:
        """Whether what fits is not done at all."""
        return not self.steps

    @property
    def refusal(self) -> str:
        """Why what it refuses is not done."""
        return f"is refused by DISPATCHER_ROUTES ({self.words!r}); leave that number out"

    @property
    def accounts(self) -> list[str]:
        """All accounts that it names, as they are written."""
        return [account for step in self.steps for account, _ in step]

    def fits(self, facts: Facts) -> bool:
        """Say whether all conditions hold."""
        return all(_holds(name, values, facts) for name, values in self.conditions.items())

    def order(self, chance: Callable[[], float]) -> list[str]:
        """Return its accounts in the order in which a job tries them; `chance` gives numbers from 0 to below 1."""
        return [account for step in self.steps for account in _drawn(step, chance)]


def parse(rules: Iterable[str]) -> tuple[Rule, ...]:
    """Read rules. Raises `ValueError` that names the rule at fault and the way out."""
    return tuple(_parsed(position, words.strip()) for position, words in enumerate(rules, start=1))


def first(rules: Sequence[Rule], facts: Facts) -> Rule | None:
    """Return the first rule that fits, None for none."""
    return next((rule for rule in rules if rule.fits(facts)), None)


def asks_for_line(rules: Iterable[Rule], facts: Facts) -> bool:
    """Say whether which rule is the first that fits depends on the line of the number."""
    for rule in rules:
        others = {name: values for name, values in rule.conditions.items() if name != "line_type"}
        if all(_holds(name, values, facts) for name, values in others.items()):
            return len(others) < len(rule.conditions)
    return False


def _holds(name: str, values: frozenset[str], facts: Facts) -> bool:
    if name == "country":
        return bool(facts.number) and phone.country(facts.number) in values
    if name == "line_type":
        return bool(facts.number) and (facts.line_type or phone.line_type(facts.number)) in values
    if name == "prefix":
        return any(facts.number.startswith(one) for one in values)
    return str(getattr(facts, name)) in values


def _drawn(step: Sequence[tuple[str, int]], chance: Callable[[], float]) -> list[str]:
    """Draw one account after the other, each as likely as its weight among those that are left."""
    left, drawn = list(step), list[str]()
    while len(left) > 1:
        mark = chance() * sum(weight for _, weight in left)
        for one in left:
            mark -= one[1]
            if mark < 0:
                break
        left.remove(one)
        drawn.append(one[0])
    return drawn + [account for account, _ in left]


def _parsed(position: int, words: str) -> Rule:
    try:
        return _rule(words)
    except ValueError as error:
        raise ValueError(f"has a rule that cannot be, number {position} ({words!r}): it {error}") from None


def _rule(words: str) -> Rule:
    conditions, arrow, steps = words.partition("->")
    if not arrow:
        raise ValueError("has no arrow; write CONDITIONS -> ACCOUNT, ACCOUNT")
    refuses = steps.strip().lower() == _REFUSE
    led = () if refuses else tuple(map(_step, steps.split(",")))
    rule = Rule(words, dict(map(_condition, conditions.split())), led)
    if len(rule.conditions) < len(conditions.split()):
        raise ValueError("names a condition twice; separate its values by commas: country=GB,IE")
    if twice := {one for one in rule.accounts if rule.accounts.count(one) > 1}:
        raise ValueError(f"names {min(twice)} twice; no job goes to an account a second time")
    return rule


def _condition(words: str) -> tuple[str, frozenset[str]]:
    name, _, values = words.partition("=")
    if name not in _CONDITIONS:
        raise ValueError(f"knows no condition {name!r}; there are {', '.join(_CONDITIONS)}, each as NAME=VALUE,VALUE")
    meant, possible = _CONDITIONS[name]
    told = [one.upper() if name == "country" else one for one in values.split(",")]
    for one in told:
        if not possible(one):
            raise ValueError(f"asks for {name} {one!r}; write {meant}")
    return name, frozenset(told)


def _step(words: str) -> tuple[tuple[str, int], ...]:
    return tuple(map(_choice, words.split("|")))


def _choice(words: str) -> tuple[str, int]:
    account, star, weight = (one.strip() for one in words.strip().lower().partition("*"))
    if account == _REFUSE:
        raise ValueError("refuses, and leads to accounts as well; write -> refuse alone")
    if not account:
        raise ValueError("leads nowhere; name accounts after the arrow: -> textgoto, clubtexting")
    if not _ACCOUNT.fullmatch(account):
        raise ValueError(f"leads to {account!r}; the name of an account has letters, digits, _ and -")
    if star and not (_WEIGHT.fullmatch(weight) and int(weight)):
        raise ValueError(f"gives {account} the weight {weight!r}; write a whole number above 0, or leave it out for 1")
    return account, int(weight) if star else 1
