"""What an account may be sent how fast: the setting, what follows from it, and what it looks like at a moment; pure.

`DISPATCHER_PROVIDERS__<NAME>__LIMITS="get=1000/60s,send=50/s,concurrency=20"` names *buckets*. `all` counts every
request, `get`, `post` and `delete` those of a verb; `send`, `verify`, `lookup` and the other operations of a provider
count their jobs, as `sender` does for each sender of messages by itself, and `address` the requests that leave from one
address (`DISPATCHER_EGRESS_ADDRESS`). `send=100seg/s` counts segments. `concurrency=20` is how many requests may be on
the wire at once, over all workers; `concurrency=2/address` is that from each address. A limit may say how many may go
at once (`get=1000/60s burst 20`); `get=none` lifts a vendor's own limit, and `LIMITS=none` all of them.

What holds "N in every window W" at the provider's own counter, whichever way it counts, is GCRA (a leaky bucket that
keeps one moment): it admits at most `burst + rate * T` in any time T. What leaves within W may arrive within W + J, J
being what requests are late: two seconds of network at most, and one that a permit is used late, though no more than a
twentieth of the window. So `burst + rate * (W + J) <= N`: of N a hundredth is the burst, the rest the rate. Of
1000/60s that uses 94 %. A request carries no more messages than may go at once; where requests are limited, too, that
is as many as it can, and the rate less. What draws more than a burst all the same, such as a long text where segments
are counted, goes when that much less was drawn before it.

Simulated against a sliding window of 60 s, a bucket with a burst of N lets 2 N through, a sliding counter 1.57 N, and
this never more than N with requests that are up to two seconds late. A window of a second has a margin of 50 ms only:
a provider that counts seconds strictly over a slow line is given a lower N.

Of the burst half is kept for the high lane. What a provider says about being too fast goes before all of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from dispatcher.errors import ConfigurationError
from dispatcher.jobs import moment

#: What counts each request, in the order in which they are shown; beside them each operation counts its jobs.
OF_REQUESTS: Final = ("all", "get", "post", "delete", "address")
#: What counts messages, and may count their segments.
OF_MESSAGES: Final = ("send", "verify", "sender")

#: What counts the messages of a request, of which it may carry many.
OF_GROUPS: Final = ("send", "sender")

CONCURRENCY: Final = "concurrency"
NONE: Final = "none"

#: Seconds that a request may be late at most: two of network, and one of a permit that is used late.
_LATE: Final = 3.0
#: The part of a window that this takes of it at most, and the part of a limit that may go at once.
_LATE_PART: Final = 20
_BURST_PART: Final = 100

#: What limits the requests that messages travel in.
_FEW: Final = ("all", "post", "address", CONCURRENCY)

#: Segments of a text that few are longer than.
_LONG_TEXT: Final = 4

_DAY: Final = 86400
_UNITS: Final = {"s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "d": _DAY, "day": _DAY}

_LIMIT: Final = re.compile(r"([0-9]{1,9})(seg)?\s*/\s*([0-9]{0,6})([a-z]+)(?:\s+burst\s+([0-9]{1,9}))?")
_AT_ONCE: Final = re.compile(r"([0-9]{1,6})(/address)?")

Unit: TypeAlias = Literal["requests", "jobs", "segments"]


class Limit(msgspec.Struct, frozen=True):
    """At most `most` of `unit` in every `window` seconds; `burst` of them may go at once."""

    most: int
    window: int
    unit: Unit = "requests"
    burst: int = 0

    @property
    def late(self) -> float:
        """Seconds that a request may arrive later than the one before it did."""
        return min(self.window / _LATE_PART, _LATE)

    @property
    def rate(self) -> float:
        """What may go per second beside the burst, so that `burst + rate * (window + late) <= most`."""
        return (self.most - self.burst) / (self.window + self.late)

    @property
    def interval(self) -> float:
        """Microseconds between one and the next."""
        return 1_000_000 / self.rate

    @property
    def at_once(self) -> int:
        """How many may go back to back; a burst of none leaves one."""
        return max(1, self.burst)

    @property
    def at_once_normal(self) -> int:
        """How many of them the normal lane may have: the rest is kept for the high one."""
        return max(1, self.at_once // 2)

    @property
    def shown(self) -> str:
        """Return it as it may be set."""
        short = {_DAY: "day", 3600: "h", 1: "s"}.get(self.window, f"{self.window}s")
        return f"{self.most}{'seg' if self.unit == 'segments' else ''}/{short}"


class Limits(msgspec.Struct, frozen=True):
    """The limits of one account: by bucket, and how many requests at once."""

    buckets: Mapping[str, Limit] = {}
    concurrency: int | None = None
    #: That many from each address, not from all together.
    by_address: bool = False
    #: Messages that one request may carry.
    together: int = 1

    @property
    def shown(self) -> str:
        """Return them as they may be set; "" for none."""
        told = [f"{name}={limit.shown}" for name, limit in self.buckets.items()]
        if self.concurrency is not None:
            told.append(f"{CONCURRENCY}={self.concurrency}{'/address' if self.by_address else ''}")
        return ",".join(told)

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.buckets) or self.concurrency is not None


class BucketState(msgspec.Struct, frozen=True, kw_only=True):
    """One limit at a moment."""

    #: "get", "send", "address:web-1"; "all" also where an account has none and its provider throttled it.
    name: str
    #: At most `limit` of `unit` in `window` seconds; 0 in 0 s where the provider's throttling set it.
    limit: int
    window: float
    unit: Unit = "requests"
    #: What was drawn from it in the last `window` seconds, of which a sixtieth is a guess.
    used: int = 0
    #: Milliseconds until a request of the normal lane may go, as far as this bucket lets it.
    next_ms: float = 0.0
    burst: int = 1
    #: Per second, as it is now: less than usual after a penalty.
    rate: float = 0.0


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """The breaker of an account at a moment."""

    state: Literal["closed", "open", "half_open"] = "closed"
    #: Since when it is open, or half open; None for a closed one.
    since: datetime | None = None
    #: When an open one lets a probe through.
    until: datetime | None = None
    #: Of the latest `of` jobs those that ended in an error, timeouts apart, and those that timed out.
    errors: int = 0
    timeouts: int = 0
    of: int = 0

    @property
    def words(self) -> str:
        """What an open or half open one says, in one clause; "" of a closed one."""
        counted = f"{self.errors} errors and {self.timeouts} timeouts in the last {self.of} jobs"
        since = f" since {_clock(self.since)}" if self.since else ""
        if self.state == "half_open":
            return f"its breaker is half open{since}: one job at a time tries it ({counted})"
        until = f", and one job tries it at {_clock(self.until)}" if self.until else ""
        return f"its breaker is open{since}{until} ({counted})" if self.state == "open" else ""


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one account at a moment, as all workers together keep them."""

    provider: str
    at: datetime
    #: The setting in force at its workers; "" for none, or where no worker ever asked for a permit.
    limits: str = ""
    buckets: tuple[BucketState, ...] = ()
    #: Nothing goes until then: the provider said that it was too fast, or what was used was forgotten.
    penalty_until: datetime | None = None
    penalty: Literal["", "throttled", "caution"] = ""
    #: The part of the usual rate that may be used; 1.0 but for the minutes after a penalty.
    factor: float = 1.0
    #: Requests on the wire, where `concurrency` is limited; None where it is not. Of `concurrency_by` "address" the
    #: limit is that of each.
    leases: int = 0
    concurrency: int | None = None
    concurrency_by: Literal["account", "address"] = "account"
    breaker: BreakerState = BreakerState()
    #: Over the last five minutes: requests answered or given up, seconds that half and 95 % of them took at most (None
    #: where there were none), the share of jobs that ended in an error or a timeout, and how often it was throttled.
    requests: int = 0
    p50: float | None = None
    p95: float | None = None
    error_share: float = 0.0
    throttled: int = 0

    @property
    def slowed(self) -> list[str]:
        """Why less goes than the limits let through, apart from the breaker, a clause each."""
        told = []
        if self.penalty_until is not None:
            forgotten = self.penalty == "caution"
            why = "what was used of its limits was forgotten" if forgotten else "it is asked too often, it says"
            told.append(f"{why}; nothing goes until {_clock(self.penalty_until)}")
        if self.factor < 1:
            told.append(f"it was asked too often, and gets {self.factor:.0%} of the usual rate, more every ten seconds")
        return told


def _clock(at: datetime) -> str:
    return f"{at:%H:%M:%S %Z}"


def parse(told: str, where: str, operations: Collection[str], vendor: str = "", together: int = 1) -> Limits:
    """Read a setting, such as "get=1000/60s,concurrency=20"; `vendor` are the limits that its adapter declares.

    What is set replaces the vendor's of the same bucket. `where` is the name of the setting, `operations` are those of
    the adapter, and `together` is how many messages its requests may carry. Raises `ConfigurationError`, which names
    the setting, the part of it, and the way out.
    """
    if told.strip() == NONE:
        return Limits(together=together)
    known = dict.fromkeys([*OF_REQUESTS, *OF_MESSAGES, *sorted(operations)])
    found = _parts(vendor, where, known, 1) | _parts(told, where, known, 1)
    if any(found.get(name) for name in _FEW):
        # Where requests are few, each shall carry many.
        found = _parts(vendor, where, known, together) | _parts(told, where, known, together)
    at_once = found.pop(CONCURRENCY, None)
    concurrency, by_address = at_once if isinstance(at_once, tuple) else (None, False)
    buckets = {name: one for name, one in found.items() if isinstance(one, Limit)}
    of_groups = [one.at_once for name, one in buckets.items() if name in OF_GROUPS and one.unit == "jobs"]
    return Limits(buckets, concurrency, by_address, min([together, *of_groups]))


def _parts(told: str, where: str, known: Collection[str], together: int) -> dict[str, Limit | tuple[int, bool] | None]:
    found: dict[str, Limit | tuple[int, bool] | None] = {}
    for part in filter(None, (one.strip() for one in told.split(","))):
        name, _, value = (one.strip() for one in part.partition("="))
        if name not in known and name != CONCURRENCY:
            there = ", ".join([*known, CONCURRENCY])
            raise _wrong(where, part, "names no bucket that there is", f"there are: {there}")
        if name in found:
            raise _wrong(where, part, f"limits {name} a second time", "leave one of them")
        found[name] = (
            None if value == NONE else _concurrency(where, part, value) or _limit(where, part, name, value, together)
        )
    return found


def _concurrency(where: str, part: str, value: str) -> tuple[int, bool] | None:
    """Read how many requests at once; None where the part is about another bucket."""
    if not part.startswith(CONCURRENCY):
        return None
    told = _AT_ONCE.fullmatch(value)
    if told is None or int(told[1]) == 0:
        way_out = "write it as concurrency=20, or concurrency=2/address for that from each address"
        raise _wrong(where, part, "is no whole number above 0", way_out)
    return int(told[1]), told[2] is not None


def _limit(where: str, part: str, name: str, value: str, together: int) -> Limit:
    told = _LIMIT.fullmatch(value)
    if told is None or told[4] not in _UNITS:
        way_out = f"write it as {name}=1000/60s, with a window in s, min, h or d, or {name}=none"
        raise _wrong(where, part, "is no limit", way_out)
    most, window = int(told[1]), int(told[3] or 1) * _UNITS[told[4]]
    if told[2] and name not in OF_MESSAGES:
        raise _wrong(where, part, f"counts segments of {name}", f"only {', '.join(OF_MESSAGES)} have any")
    if not 1 <= window <= _DAY:
        raise _wrong(where, part, "has a window that is no second to a day long", "write one like 60s, h or day")
    if most == 0:
        raise _wrong(where, part, "lets nothing through", "write a number above 0")
    burst = _burst(name, most, together, segments=told[2] is not None) if told[5] is None else int(told[5])
    if burst > most:
        raise _wrong(where, part, f"has a burst over its limit of {most}", "write a smaller one, or leave it out")
    if burst == most:
        raise _wrong(where, part, "leaves no rate beside its burst", "write a smaller burst, or leave it out")
    unit: Unit = "segments" if told[2] else "requests" if name in OF_REQUESTS else "jobs"
    return Limit(most, window, unit, burst)


def _burst(name: str, most: int, together: int, *, segments: bool) -> int:
    """Return how many may go at once: a hundredth; of messages what a request carries, half of the limit at most."""
    burst = most // _BURST_PART
    if segments:
        # A text has two or three where it has more than one.
        burst = max(burst, min(_LONG_TEXT, most // _LATE_PART))
    if name in OF_GROUPS and together > 1:
        burst = max(burst, min(together * (2 if segments else 1), most // 2))
    return burst


def _wrong(where: str, part: str, what: str, way_out: str) -> ConfigurationError:
    # A limit is no secret; a paste of something else is cut short.
    return ConfigurationError(f"{where} has {part[:40]!r}, which {what}; {way_out}")


# -- asking for permits ------------------------------------------------------------------------------------------------

#: What a request is: one of jobs, a read that goes just before one, or a question what became of some.
What: TypeAlias = Literal["job", "before", "after"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request that wants a permit. It is given for all buckets that the request draws from, or not at all."""

    id: str
    high: bool = False
    what: What = "job"
    jobs: int = 1
    #: Microseconds ahead that its moment may lie.
    ahead: int = 500_000
    #: How much it draws, by bucket; of a sender or an address "sender:<hash>".
    draws: Mapping[str, int]


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """It may go in `wait` microseconds: at `moment`, since 1970 on Redis' clock. As a `probe` it tells the breaker."""

    wait: int = 0
    moment: int = 0
    probe: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """It may be asked for again in `delay` microseconds; of its `own` is a sender that nobody else waits for."""

    delay: int
    reason: Literal["limit", "breaker"] = "limit"
    own: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a request ended that had a permit."""

    id: str
    moment: int
    #: How its jobs ended, as far as that says how the provider is: `o` answered, `e` error, `t` timeout.
    letters: str = ""
    #: Microseconds until it may be asked again, where it was throttled.
    throttled: int | None = None
    #: It drew from a limit, which is what is slowed then.
    limited: bool = False
    #: Seconds it took; None for one that was never sent.
    seconds: float | None = None


#: How much longer the times are that are counted together: within 25 % a time is known.
_STEP: Final = 1.25


def time_class(seconds: float) -> int:
    """Return which times a time is counted with."""
    return max(0, math.ceil(math.log(max(seconds, 0.001) * 1000, _STEP)))


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the seconds that `share` of the times took at most, from how many there were of each class."""
    left = share * sum(counts.values())
    for one, count in sorted(counts.items()):
        left -= count
        if left <= 0:
            return float(round(_STEP**one / 1000, 4))
    return None


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how many seconds at first."""

    sample: int = 20
    share: float = 0.5
    timeouts: float = 0.3
    pause: float = 5.0


def configuration(limits: Limits, rules: BreakerRules, hold: float) -> str:
    """Return what the scripts go by, as `lua/limits.lua` says; `hold` is how many seconds a lease lasts at most."""
    buckets = {
        name: (one.interval, one.at_once, one.at_once_normal, one.window, one.most, one.unit)
        for name, one in limits.buckets.items()
    }
    told: dict[str, Any] = {
        "b": buckets,
        "br": (rules.sample, rules.share, rules.timeouts, int(rules.pause * 1_000_000)),
        "hold": int(hold * 1_000_000),
        "g": limits.together,
        "s": limits.shown,
    }
    if limits.concurrency is not None:
        told |= {"c": limits.concurrency, "a": limits.by_address}
    return msgspec.json.encode(told).decode()


# -- what is shown -----------------------------------------------------------------------------------------------------


class _Bucket(msgspec.Struct, frozen=True):
    name: str
    most: int
    window: float
    unit: Unit
    used: int
    next: float
    at_once: int
    rate: float


class _Breaker(msgspec.Struct, frozen=True):
    state: Literal["closed", "open", "half_open"]
    since: str = ""
    until: str = ""
    errors: int = 0
    timeouts: int = 0
    of: int = 0


class _Shown(msgspec.Struct, frozen=True):
    """What `limits_shown.lua` answers."""

    now: str
    breaker: _Breaker
    shown: str = ""
    buckets: list[_Bucket] = []
    penalty: str = ""
    why: Literal["", "throttled", "caution"] = ""
    part: float = 1.0
    leases: int = 0
    concurrency: int | None = None
    by_address: bool = False
    minutes: dict[str, int] = {}


_shown: Final = msgspec.json.Decoder(_Shown)


def read_state(provider: str, raw: bytes) -> LimitState:
    """Read the limits of an account as the script shows them."""
    told = _shown.decode(raw)
    buckets = tuple(
        BucketState(
            name=one.name, limit=one.most, window=one.window, unit=one.unit, used=one.used, next_ms=one.next / 1000,
            burst=one.at_once, rate=one.rate,
        )
        for one in sorted(told.buckets, key=lambda one: (_order(one.name), one.name))
    )  # fmt: skip
    times = {int(name[1:]): count for name, count in told.minutes.items() if name[1:].isdigit()}
    bad = told.minutes.get("e", 0) + told.minutes.get("t", 0)
    jobs = bad + told.minutes.get("o", 0)
    breaker = told.breaker
    return LimitState(
        provider=provider,
        at=moment(told.now),
        limits=told.shown,
        buckets=buckets,
        penalty_until=moment(told.penalty) if told.penalty else None,
        penalty=told.why,
        factor=told.part,
        leases=told.leases,
        concurrency=told.concurrency,
        concurrency_by="address" if told.by_address else "account",
        breaker=BreakerState(
            state=breaker.state,
            since=moment(breaker.since) if breaker.since else None,
            until=moment(breaker.until) if breaker.state == "open" else None,
            errors=breaker.errors,
            timeouts=breaker.timeouts,
            of=breaker.of,
        ),
        requests=told.minutes.get("r", 0),
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        error_share=bad / jobs if jobs else 0.0,
        throttled=told.minutes.get("p", 0),
    )


def _order(name: str) -> int:
    known = [*OF_REQUESTS, *OF_MESSAGES]
    first = name.partition(":")[0]
    return known.index(first) if first in known else len(known)
