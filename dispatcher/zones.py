"""Where a number may be on the clock: the time zones that are plausible for it; pure.

The zones of a number come from the metadata of `phonenumbers`, those of a country from the `zone.tab` of the tz
database. Where a person is no number tells: unless its first digits belong to a region, as they do in North America, it
is as plausible anywhere in its country.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import phonenumbers
from phonenumbers import timezone
from phonenumbers.timezone import UNKNOWN_TIMEZONE

from dispatcher.errors import InvalidRequest
from dispatcher.privacy import shown


def plausible(number: str, country: str) -> tuple[str, ...]:
    """Return the IANA names of the zones that an E.164 number of `country` (ISO 3166) may be in; empty for no country.

    Those of its region which are its country's, else all of its country, else what is told of its region.
    """
    here = _of_countries().get(country, ())
    if len(here) == 1:
        # As in most countries, and without a look at the number.
        return here
    parsed = phonenumbers.parse(number)
    # Its first digits say nothing where they belong to no region: those of a mobile number look like some town's.
    told = timezone.time_zones_for_geographical_number(parsed) if phonenumbers.is_number_geographical(parsed) else ()
    return tuple(one for one in told if one in here) or here or tuple(one for one in told if one != UNKNOWN_TIMEZONE)


def zone(name: str, field: str = "timezone") -> ZoneInfo:
    """Return a zone by its IANA name, such as "Europe/London". Raises `InvalidRequest` naming `field`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        # A folder of the database, a path out of it, a name that is none.
        raise InvalidRequest(field, "is no time zone; write its IANA name, e.g. Europe/London", shown(name)) from None


@cache
def _of_countries() -> dict[str, tuple[str, ...]]:
    found = defaultdict[str, list[str]](list)
    table = (resources.files("tzdata") / "zoneinfo" / "zone.tab").read_text(encoding="utf-8")
    for line in table.splitlines():
        if not line.startswith("#"):
            country, _, name = line.split("\t")[:3]
            found[country].append(name)
    return {country: tuple(names) for country, names in found.items()}
