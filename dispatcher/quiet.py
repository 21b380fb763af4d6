"""Quiet hours: when a text that nobody asked for may go; pure. `lua/create.lua` lets it wait, and so does its worker.

`DISPATCHER_QUIET_HOURS` has one rule a line, and the first that fits decides; behind them stands the table of countries
in `quiet_hours.toml`. A rule has conditions and what is quiet, on the clock of the person:
`country=FR 20:00-09:00 sat=18:00-10:00 sun holidays`. It binds promotional texts unless it says otherwise, and never a
one-time code. What may be in several time zones goes when it is quiet in none of them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final, TypeAlias

import msgspec

from dispatcher import phone, zones
from dispatcher.errors import InvalidRequest
from dispatcher.jobs import Category, moment

#: Minutes of a day that are quiet, from and to, in order.
Day: TypeAlias = tuple[tuple[int, int], ...]

_MINUTES: Final = 1440
_WHOLE: Final[Day] = ((0, _MINUTES),)
_WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOLIDAYS: Final = "holidays"
_NEVER: Final = "never"

_DAYS: Final = re.compile(rf"({'|'.join(_WEEK)})(?:-({'|'.join(_WEEK)}))?|{_HOLIDAYS}")
_RANGE: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")

_GRAMMAR: Final = (
    "write conditions (country=, category=, tenant=) and what is quiet: 20:00-09:00 for each day, sat=18:00-10:00, "
    "sun for the whole of it, holidays; or never"
)

#: Texts that a rule without a category binds.
_USUAL: Final = frozenset({Category.PROMOTIONAL.value})

#: How far ahead an hour is looked for that is quiet nowhere.
_AHEAD: Final = timedelta(days=10)

#: Minutes that are left of a day, of which an operator should know: there are more texts than they take.
_LITTLE: Final = 240
_STEP: Final = 15

_MINUTE: Final = timedelta(minutes=1)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What is quiet for some texts."""

    words: str
    #: What it is kept for, of a rule of the table.
    basis: str = ""
    #: ISO 3166; none stands for all, as with tenants.
    countries: frozenset[str] = frozenset()
    categories: frozenset[str] = _USUAL
    tenants: frozenset[str] = frozenset()
    #: By weekday, from Monday on.
    week: tuple[Day, ...] = ((),) * 7
    #: On public holidays; None for what the weekday has.
    holidays: Day | None = None

    def fits(self, country: str, category: str, tenant: str) -> bool:
        """Say whether it binds a text."""
        return (
            category in self.categories
            and (not self.countries or country in self.countries)
            and (not self.tenants or tenant in self.tenants)
        )

    def quiet(self, day: date, country: str) -> Day:
        """Return what is quiet on a day in a country."""
        if self.holidays is not None and day in _holidays_of(country, day.year):
            return self.holidays
        return self.week[day.weekday()]


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """What binds a text to a number at one moment."""

    country: str
    #: The zones that it may be in, one where the caller named it.
    zones: tuple[str, ...]
    #: The rule's words, and what it is kept for; empty where nothing binds it.
    rule: str = ""
    basis: str = ""
    #: When it may go, in milliseconds since 1970; None for at once.
    until: int | None = None
    #: Minutes of the day that follows in which it may go.
    left: int = _MINUTES

    @property
    def allowed_at(self) -> str | None:
        """When it may go, in RFC 3339; None for at once."""
        return None if self.until is None else moment(self.until).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def words(self) -> str:
        """Why it waits, as its history has it."""
        where = self.zones[0] if len(self.zones) == 1 else f"anywhere in {self.country}"
        little = f", which leaves {self.left / 60:g} h a day; give timezone=" if self.little else ""
        until = "" if self.until is None else f" until {moment(self.until):%Y-%m-%dT%H:%MZ}"
        return f"quiet hours in {self.country}{until} ({where}{little})"

    @property
    def little(self) -> bool:
        """Whether not knowing the zone leaves little of a day."""
        return len(self.zones) > 1 and self.left < _LITTLE

    def to_dict(self) -> dict[str, Any]:
        """Return the document: `allowed_at` is when a text may go, None for at once."""
        return {
            "country": self.country,
            "zones": list(self.zones),
            "rule": self.rule,
            "basis": self.basis,
            "allowed_at": self.allowed_at,
            "minutes_left": self.left,
        }


def parse(rules: Iterable[str]) -> tuple[Rule, ...]:
    """Read rules. Raises `ValueError` that names the rule at fault and the way out."""
    return tuple(_parsed(position, " ".join(words.split())) for position, words in enumerate(rules, start=1))


def hours(
    rules: Sequence[Rule],
    number: str,
    category: str,
    *,
    at: float,
    tenant: str = "",
    timezone: str = "",
) -> Hours:
    """Return what binds a text to an E.164 number at a moment, in milliseconds since 1970: `rules`, or else the table.

    The zone is `timezone`, else the plausible ones. Raises `InvalidRequest` where there is none to go by, or where no
    hour of the next days is quiet in none of them.
    """
    country = phone.country(number)
    rule = next((one for one in (*rules, *_table(country)) if one.fits(country, category, tenant)), None)
    if rule is None or not (any(rule.week) or rule.holidays):
        return Hours(country=country, zones=(timezone,) if timezone else ())
    where = (timezone,) if timezone else zones.plausible(number, country)
    # Of all texts in a minute it is asked once.
    opens = _opens(rule, country, where, int(at // 60000)) if where else None
    if opens is None:
        seen = f"may be in any of {len(where)} time zones" if where else "is a number of no country"
        raise InvalidRequest(
            "to",
            f"{seen}, so that no hour is surely none of the quiet ones ({rule.words}); say where it is: "
            "timezone='Europe/London'",
            phone.mask(number),
        )
    until = opens * 60000
    return Hours(
        country=country,
        zones=where,
        rule=rule.words,
        basis=rule.basis,
        until=until if until > at else None,
        left=_left(rule, country, where, opens),
    )


@lru_cache(maxsize=8)
def bound(rules: tuple[Rule, ...]) -> frozenset[str]:
    """Return the categories of texts that have quiet hours at all."""
    return _USUAL.union(*(one.categories for one in rules))


# -- on the clock ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def _opens(rule: Rule, country: str, where: tuple[str, ...], minute: int) -> int | None:
    """Return the first minute, from this one since 1970 on, that is quiet in none of the zones; None for none soon."""
    at = datetime.fromtimestamp(minute * 60, UTC)
    last = at + _AHEAD
    while at <= last:
        later = max(_after(rule, country, name, at) for name in where)
        if later == at:
            return int(at.timestamp() // 60)
        at = later
    return None


def _after(rule: Rule, country: str, name: str, at: datetime) -> datetime:
    """Return the end of what is quiet in a zone at a moment: that moment, where nothing is."""
    here = zones.zone(name)
    local = at.astimezone(here)
    minute = 60 * local.hour + local.minute
    for begins, ends in rule.quiet(local.date(), country):
        if begins <= minute < ends:
            wall = datetime.combine(local.date(), time.min, here) + timedelta(minutes=ends)
            # Where clocks are put back, the same time of day comes twice: never stand still.
            return max(wall.astimezone(UTC), at + _MINUTE)
    return at


@lru_cache(maxsize=4096)
def _left(rule: Rule, country: str, where: tuple[str, ...], minute: int) -> int:
    """Return how many minutes of the day from this one on are quiet in none of the zones, roughly."""
    steps = (datetime.fromtimestamp((minute + step) * 60, UTC) for step in range(0, _MINUTES, _STEP))
    return _STEP * sum(all(_after(rule, country, name, at) == at for name in where) for at in steps)


@cache
def _holidays_of(country: str, year: int) -> frozenset[date]:
    """Return the days that are public holidays in all of a country; none where the library knows none."""
    import holidays  # noqa: PLC0415 - it takes long to load, and most texts never ask for it

    try:
        return frozenset(holidays.country_holidays(country, years=year))
    except NotImplementedError:
        return frozenset()


# -- the table ---------------------------------------------------------------------------------------------------------


@cache
def _tables() -> dict[str, dict[str, str]]:
    table: dict[str, dict[str, str]] = tomllib.loads(
        (resources.files("dispatcher") / "quiet_hours.toml").read_text(encoding="utf-8")
    )
    return table


@cache
def _table(country: str) -> tuple[Rule]:
    """Return what the table has for a country."""
    told = _tables().get(country) or _tables()["usual"]
    return (msgspec.structs.replace(_rule(told["quiet"]), basis=told["basis"]),)


def table() -> Iterator[tuple[str, str, str]]:
    """Yield country ("" for all others), what is quiet there, and what that is kept for."""
    for country, told in sorted(_tables().items()):
        yield "" if country == "usual" else country, told["quiet"], told["basis"]


# -- words -------------------------------------------------------------------------------------------------------------


def _parsed(position: int, words: str) -> Rule:
    try:
        return _rule(words)
    except ValueError as error:
        raise ValueError(f"has a rule that cannot be, number {position} ({words!r}): it {error}; {_GRAMMAR}") from None


def _rule(words: str) -> Rule:
    conditions: dict[str, Any] = {}
    days: dict[str, Day] = {}
    said = words.split()
    for word in said:
        name, equals, values = word.partition("=")
        if equals and name in _CONDITIONS:
            conditions[_CONDITIONS[name]] = frozenset(_condition(name, one) for one in values.split(","))
        elif word != _NEVER:
            days |= _quiet(word, name, values, whole=not equals)
    if not days and _NEVER not in said:
        raise ValueError("says nothing of what is quiet")
    if days and _NEVER in said:
        raise ValueError("says never, and what is quiet")
    week = tuple(days.get(one, days.get("", ())) for one in _WEEK)
    if all(one == _WHOLE for one in week):
        raise ValueError("leaves no hour of the week")
    return Rule(words=words, week=week, holidays=days.get(_HOLIDAYS), **conditions)


_CONDITIONS: Final = {"country": "countries", "category": "categories", "tenant": "tenants"}


def _condition(name: str, value: str) -> str:
    if name == "country" and not phone.is_country(value := value.upper()):
        raise ValueError(f"asks for country {value!r}, and a country is two letters of ISO 3166, such as GB")
    if name == "category" and value not in {Category.PROMOTIONAL, Category.TRANSACTIONAL}:
        raise ValueError(f"asks for category {value!r}; only promotional and transactional ones can be bound")
    return value


def _quiet(word: str, name: str, values: str, *, whole: bool) -> dict[str, Day]:
    """Read a word that says what is quiet, by day; "" for each that no other word names."""
    if whole and _RANGE.match(word):
        return {"": _day(word)}
    found = _DAYS.fullmatch(name)
    if found is None:
        raise ValueError(f"has {word!r}, which is neither a condition nor a time")
    quiet = _WHOLE if whole else _day(values)
    if name == _HOLIDAYS:
        return {name: quiet}
    first, last = _WEEK.index(found[1]), _WEEK.index(found[2] or found[1])
    return {_WEEK[one % 7]: quiet for one in range(first, (last if last >= first else last + 7) + 1)}


def _day(ranges: str) -> Day:
    quiet: list[tuple[int, int]] = []
    for one in ranges.split(","):
        found = _RANGE.fullmatch(one)
        begins, ends = (60 * int(found[1]) + int(found[2]), 60 * int(found[3]) + int(found[4])) if found else (0, 0)
        if not begins < _MINUTES or begins == ends or ends > _MINUTES:
            raise ValueError(f"has {one!r} for a time; write it like 20:00-09:00")
        # Over midnight it is the morning and the evening of the same day.
        quiet += [(begins, ends)] if begins < ends else [(0, ends), (begins, _MINUTES)]
    return tuple(sorted(one for one in quiet if one[0] < one[1]))
