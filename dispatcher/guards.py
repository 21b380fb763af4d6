"""Guards of verifications, which keep codes from being abused; pure. `lua/guards.lua` counts and enforces them.

`DISPATCHER_GUARDS` is rules separated by semicolons, each a name and the windows that hold for it:
`number=5/10m,10/1d; key.ip=20/1h` lets a number have five codes in any ten minutes and ten in any day. docs/verify.md
says what each is for, and why its default is what it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from dispatcher.phone import RANGES, is_country

#: What nobody has to set.
USUAL: Final = "number=5/10m,10/1d; prefix=100/1h; key=10/1h; country=5000/1d; conversion=50/1d"

#: Stands for no rules at all, or for no windows of one rule.
OFF: Final = "off"

#: Digits at the end of a number that its prefix leaves out: a thousand neighbours.
LAST_DIGITS: Final = 3

#: What a caller may call a key of its own, such as "ip" or "session".
KEY_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")

_GRAMMAR: Final = (
    "write number=, prefix=, key=, key.NAME=, country=, country.CC= or conversion=, then a count for a time, several "
    "separated by commas, as in number=5/10m,10/1d (s, m, h, d), or off"
)
_WINDOW: Final = re.compile(r"([0-9]{1,7})/([0-9]{1,7})([smhd])")
_CONVERSION: Final = re.compile(r"([^<]*)(?:<([0-9]{1,3})%)?")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST: Final = 30 * 86400
_MOST: Final = 1_000_000
_ALL: Final = 100
_NUMBERS: Final = re.compile(r"\+[0-9]{1,15}\*?")


class Window(msgspec.Struct, frozen=True):
    """So many codes in any `seconds` at most."""

    count: int
    seconds: int

    def __str__(self) -> str:
        """Return it as it is written."""
        unit = next(name for name, size in reversed(_SECONDS.items()) if self.seconds % size == 0)
        return f"{self.count}/{self.seconds // _SECONDS[unit]}{unit}"


class Conversion(msgspec.Struct, frozen=True):
    """A prefix that got so many codes within the window, and approved none or less than `share` percent, is closed."""

    window: Window
    share: int = 0


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of each guard; none where it is off."""

    number: tuple[Window, ...] = ()
    prefix: tuple[Window, ...] = ()
    #: By the name of the key; "" for each that has none of its own.
    keys: Mapping[str, tuple[Window, ...]] = {}
    #: By country in ISO 3166, likewise.
    countries: Mapping[str, tuple[Window, ...]] = {}
    conversion: Conversion | None = None

    def of_key(self, name: str) -> tuple[Window, ...]:
        """Return the windows of a caller's key."""
        return self.keys.get(name, self.keys.get("", ()))

    def of_country(self, country: str) -> tuple[Window, ...]:
        """Return the windows of a country."""
        return self.countries.get(country, self.countries.get("", ()))


class Listed(msgspec.Struct, frozen=True):
    """Numbers, beginnings of numbers, and keys as "name:value"."""

    numbers: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()

    def has(self, number: str, keys: Mapping[str, str]) -> bool:
        """Say whether it names this number, or one of these keys."""
        named = number in self.numbers or number.startswith(self.beginnings)
        return named or any(f"{name}:{value}" in self.keys for name, value in keys.items())


def parse(written: str) -> Guards:
    """Read rules. Raises `ValueError` with the rule and the way out."""
    rules = [" ".join(one.split()) for one in written.split(";") if one.strip()]
    if [one.lower() for one in rules] == [OFF]:
        return Guards()
    found: dict[str, str] = {}
    for rule in rules:
        name, is_rule, _ = rule.partition("=")
        name = _name(rule, name.strip()) if is_rule else ""
        if not name:
            raise _wrong(rule, "is no name and its windows")
        if name in found:
            raise ValueError(f"has two rules for {name}; put all its windows into one, as in {name}=5/10m,10/1d")
        found[name] = rule
    windows = {name: () if name == "conversion" else _windows(rule) for name, rule in found.items()}
    return Guards(
        number=windows.get("number", ()),
        prefix=windows.get("prefix", ()),
        keys=_under("key", windows),
        countries=_under("country", windows),
        conversion=_conversion(found["conversion"]) if "conversion" in found else None,
    )


def prefix_of(number: str) -> str:
    """Return what a number in E.164 has in common with its neighbours."""
    return number[:-LAST_DIGITS]


def listed(written: str, *, keys: bool) -> Listed:
    """Read numbers, beginnings of numbers with a star and, with `keys`, "name:value". Raises `ValueError`."""
    numbers, beginnings, named = set[str](), list[str](), set[str]()
    for one in (part.strip() for part in written.split(",")):
        if _NUMBERS.fullmatch(one):
            if one.endswith("*"):
                beginnings.append(one[:-1])
            else:
                numbers.add(one)
        elif keys and KEY_NAME.fullmatch(one.partition(":")[0]) and one.partition(":")[2]:
            named.add(one)
        elif one:
            more = ", or a key like ip:203.0.113.7" if keys else ""
            # What was meant may be somebody's number, and is not repeated.
            raise ValueError(f"holds what is no number; write them like +447700900123 or +4477009*{more}")
    return Listed(frozenset(numbers), tuple(beginnings), frozenset(named))


def ranges(written: str) -> frozenset[str]:
    """Read kinds of numbers, such as premium_rate. Raises `ValueError` naming those there are."""
    found = {one.strip().lower() for one in written.split(",") if one.strip()}
    for one in sorted(found - {OFF}):
        if one not in RANGES:
            raise ValueError(f"names {one!r}, and there are {', '.join(RANGES)}, or off")
    return frozenset(found - {OFF})


def _name(rule: str, written: str) -> str:
    kind, dotted, of = written.partition(".")
    if written in {"number", "prefix", "key", "country", "conversion"}:
        return written
    if kind == "key" and dotted and KEY_NAME.fullmatch(of):
        return written
    if kind == "country" and dotted:
        if not is_country(of.upper()):
            raise _wrong(rule, f"names {of!r}, and a country is two letters of ISO 3166, such as US")
        return f"country.{of.upper()}"
    raise _wrong(rule, f"begins with {written!r}, which is no guard")


def _under(kind: str, windows: Mapping[str, tuple[Window, ...]]) -> dict[str, tuple[Window, ...]]:
    parts = {name.partition("."): one for name, one in windows.items()}
    return {of: one for (first, _, of), one in parts.items() if first == kind}


def _windows(rule: str) -> tuple[Window, ...]:
    told = rule.partition("=")[2].strip()
    windows = () if told.lower() == OFF else tuple(_window(rule, one.strip()) for one in told.split(","))
    if len({one.seconds for one in windows}) < len(windows):
        raise _wrong(rule, "has two windows of the same time")
    return windows


def _window(rule: str, written: str) -> Window:
    shape = _WINDOW.fullmatch(written)
    if shape is None:
        raise _wrong(rule, f"has {written!r}, which is no count for a time")
    count, seconds = int(shape[1]), int(shape[2]) * _SECONDS[shape[3]]
    if not 0 < count <= _MOST or not 0 < seconds <= _LONGEST:
        raise _wrong(rule, f"has {written!r}, and a count is 1 to {_MOST}, a time at most 30 days")
    return Window(count, seconds)


def _conversion(rule: str) -> Conversion | None:
    told = rule.partition("=")[2].replace(" ", "")
    if told.lower() == OFF:
        return None
    shape = _CONVERSION.fullmatch(told)
    if shape is None or (shape[2] is not None and not 0 < int(shape[2]) <= _ALL):
        raise _wrong(rule, "has a share that is none; write conversion=50/1d, or conversion=50/1d<5%")
    return Conversion(_window(rule, shape[1]), int(shape[2] or 0))


def _wrong(rule: str, why: str) -> ValueError:
    return ValueError(f"has the rule {rule!r}, which {why}; {_GRAMMAR}")
