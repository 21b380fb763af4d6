"""When a consumer is told again who did not take it: pure.

The delays are those of Standard Webhooks (https://www.standardwebhooks.com, "Retry schedule"): ten tries in a little
more than three days.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: Seconds before each try: the first at once, the last a day after the one before.
SCHEDULE: Final = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)

#: Part of a delay that chance adds to it at most, so that what failed together does not come back together.
JITTER: Final = 0.1

#: Seconds that an endpoint's `Retry-After` may ask for; more counts as so much.
MOST_RETRY_AFTER: Final = 86400.0


def delay(tries: int, *, retry_after: float | None, random: Callable[[], float]) -> float | None:
    """Return the seconds until the next try after so many, or None where there is none any more.

    Never sooner than the schedule says, nor than an endpoint asked for by `Retry-After`; `random` gives numbers from 0
    to 1.
    """
    if tries >= len(SCHEDULE):
        return None
    asked = min(max(retry_after or 0.0, 0.0), MOST_RETRY_AFTER)
    return max(SCHEDULE[tries], asked) * (1 + JITTER * random())
