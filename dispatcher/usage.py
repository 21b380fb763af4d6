"""What was used up, read from Redis: usage by day, budgets as they stand, countries nobody is texted in, low balances.

The scripts count (`lua/usage.lua`), so that nothing is counted twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from dispatcher import phone
from dispatcher.budgets import MILLIONTHS, Budget, Rule, decimal, standing
from dispatcher.errors import InvalidRequest
from dispatcher.jobs import moment
from dispatcher.privacy import mask_numbers, one_line, shown

if TYPE_CHECKING:
    from dispatcher.store import JobStore

#: The Redis hash of countries that nobody is texted in, and of accounts whose balance is low.
COUNTRIES: Final = "d:kc"
BALANCES: Final = "d:lb"

#: What usage may be summed by.
DIMENSIONS: Final = ("day", "tenant", "provider", "country", "category")

#: Days that usage is told of unless somebody asks for more, and at most.
_USUAL_DAYS: Final = 30
_MOST_DAYS: Final = 3660

#: What stands for a currency that the provider does not name.
_NO_CURRENCY: Final = "unknown"

#: Characters of a reason that are kept.
_REASON: Final = 200
_PORTION: Final = 100


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What providers took. Prices are decimal text by currency, "unknown" where the provider named none."""

    #: What it is the sum of: a value by dimension.
    of: dict[str, str]
    messages: int
    segments: int
    #: Where the provider told it.
    price: dict[str, str]
    #: Where it did not: what it costs by the account's `PRICE`, or by the last price that was told.
    estimated: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the document."""
        told = {"messages": self.messages, "segments": self.segments, "price": self.price, "estimated": self.estimated}
        return {**self.of, **told}


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """A country that nobody is texted in, since when and why."""

    country: str
    since: datetime
    reason: str = ""


class LowBalance(msgspec.Struct, frozen=True, kw_only=True):
    """An account with less money than its `LOW_BALANCE`, as it was last asked."""

    provider: str
    balance: str
    below: str
    since: datetime


class _Line(NamedTuple):
    """One field of a day's hash."""

    what: str
    of: dict[str, str]
    amount: int


def read_usage(store: JobStore, since: date | str | None, until: date | str | None, by: Iterable[str]) -> list[Usage]:
    """Return what was used from `since` until `until`, both days in UTC, summed by some of `DIMENSIONS`.

    Raises `InvalidRequest` and `StoreUnavailable`.
    """
    kept = _dimensions(by)
    today = _now(store).date().toordinal()
    last = today if until is None else _day("until", until).toordinal()
    first = last - _USUAL_DAYS + 1 if since is None else _day("since", since).toordinal()
    if first > last:
        told = f"is after {date.fromordinal(last)}, the last day that is asked for"
        raise InvalidRequest("since", told, date.fromordinal(first).isoformat())
    days = [date.fromordinal(one) for one in range(max(first, today - _MOST_DAYS), min(last, today) + 1)]
    return summed(_lines(store, days), kept)


def summed(lines: Iterable[_Line], by: Sequence[str]) -> list[Usage]:
    """Sum what was counted by these dimensions."""
    sums: dict[tuple[str, ...], Counter[str]] = {}
    for line in lines:
        sums.setdefault(tuple(line.of[one] for one in by), Counter())[line.what] += line.amount
    return [
        Usage(
            of=dict(zip(by, values, strict=True)),
            messages=counted["m"],
            # Beyond the first of each.
            segments=counted["m"] + counted["s"],
            price=_prices(counted, "a:"),
            estimated=_prices(counted, "e:"),
        )
        for values, counted in sorted(sums.items())
    ]


def read_budgets(store: JobStore, rules: Sequence[Rule]) -> list[Budget]:
    """Return how the budgets stand now. Raises `StoreUnavailable`."""
    now = _now(store)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    ends = {
        "day": midnight + timedelta(days=1),
        "month": (midnight.replace(day=1) + timedelta(days=32)).replace(day=1),
    }
    names = {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}"}
    with store.errors(), store.redis.pipeline(transaction=False) as pipe:
        for name in names.values():
            pipe.hgetall(f"d:bu:{name}")
        stored = pipe.execute()
    periods = {
        per: (round(ends[per].timestamp() * 1000), dict(_counts(raw))) for per, raw in zip(names, stored, strict=True)
    }
    return standing(rules, periods)


def block(store: JobStore, country: str, reason: str) -> bool:
    """Text nobody in a country from now on; return whether that is new."""
    code = _country(country)
    if not isinstance(reason, str):
        raise InvalidRequest("reason", f"must be text, not {type(reason).__name__}")
    told = mask_numbers(one_line(reason))[:_REASON]
    with store.errors():
        return bool(store.redis.hset(COUNTRIES, code, f"{round(_now(store).timestamp() * 1000)} {told}"))


def unblock(store: JobStore, country: str) -> bool:
    """Text people in a country again; return whether it was blocked."""
    with store.errors():
        return bool(store.redis.hdel(COUNTRIES, _country(country)))


def read_blocked(store: JobStore) -> list[Blocked]:
    """Return the countries that nobody is texted in."""
    with store.errors():
        stored: Any = store.redis.hgetall(COUNTRIES)
    told = ((country.decode(), *value.decode().partition(" ")) for country, value in sorted(stored.items()))
    return [Blocked(country=country, since=moment(at), reason=reason) for country, at, _, reason in told]


def read_low_balances(store: JobStore) -> list[LowBalance]:
    """Return the accounts whose balance is low."""
    with store.errors():
        stored: Any = store.redis.hgetall(BALANCES)
    found = ((name.decode(), msgspec.json.decode(raw)) for name, raw in sorted(stored.items()))
    return [
        LowBalance(provider=name, balance=told["balance"], below=told["below"], since=moment(told["since"]))
        for name, told in found
    ]


def _lines(store: JobStore, days: Sequence[date]) -> Iterator[_Line]:
    for start in range(0, len(days), _PORTION):
        portion = days[start : start + _PORTION]
        with store.errors(), store.redis.pipeline(transaction=False) as pipe:
            for day in portion:
                pipe.hgetall(f"d:u:{day}")
            stored = pipe.execute()
        for day, raw in zip(portion, stored, strict=True):
            for name, amount in _counts(raw):
                what, provider, country, category, tenant = name.split(" ", 4)
                of = {"provider": provider, "country": country, "category": category, "tenant": tenant}
                yield _Line(what, {"day": day.isoformat(), **of}, amount)


def _counts(raw: Mapping[bytes, bytes]) -> Iterator[tuple[str, int]]:
    return ((name.decode(), int(amount)) for name, amount in raw.items() if not name.startswith(b"!"))


def _prices(counted: Counter[str], kind: str) -> dict[str, str]:
    found = {what.removeprefix(kind): amount for what, amount in sorted(counted.items()) if what.startswith(kind)}
    return {currency or _NO_CURRENCY: decimal(amount) for currency, amount in found.items() if amount}


def _now(store: JobStore) -> datetime:
    with store.errors():
        told: Any = store.redis.time()
    return datetime.fromtimestamp(told[0] + told[1] / MILLIONTHS, UTC)


def _country(country: Any) -> str:
    code = country.strip().upper() if isinstance(country, str) else ""
    if not phone.is_country(code):
        raise InvalidRequest("country", "must be two letters of ISO 3166, such as US", shown(country))
    return code


def _day(field: str, told: Any) -> date:
    if isinstance(told, datetime):
        if told.tzinfo is None:
            raise InvalidRequest(field, "has no time zone; give a date, or an aware datetime", shown(told))
        # At the ends of time there is no day in another zone.
        return told.date() if told.year in {MINYEAR, MAXYEAR} else told.astimezone(UTC).date()
    if isinstance(told, date):
        return told
    try:
        return datetime.strptime(told, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except (TypeError, ValueError):
        raise InvalidRequest(field, "must be a day, such as 2026-01-31", shown(told)) from None


def _dimensions(by: Any) -> tuple[str, ...]:
    try:
        wanted = tuple(by.split(",") if isinstance(by, str) and by else by)
    except TypeError:
        wanted = (by,)
    for one in wanted:
        if one not in DIMENSIONS:
            raise InvalidRequest("by", f"must be some of {', '.join(DIMENSIONS)}", shown(one))
    return tuple(dict.fromkeys(wanted))
