"""When a consumer is told again: the standard's schedule, chance within bounds, and what endpoints ask for."""

from __future__ import annotations

import pytest

from workers.schedule import JITTER, SCHEDULE, delay

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("tries", "retry_after", "chance", "seconds"),
    [
        pytest.param(0, None, 0.0, 0, id="the first at once"),
        pytest.param(0, None, 1.0, 0, id="whatever chance says"),
        pytest.param(1, None, 0.0, 5, id="after one try"),
        pytest.param(1, None, 1.0, 5.5, id="a tenth later at most"),
        pytest.param(2, None, 0.0, 300, id="after two"),
        pytest.param(3, None, 0.0, 1800, id="after three"),
        pytest.param(4, None, 0.0, 2 * HOUR, id="after four"),
        pytest.param(5, None, 0.0, 5 * HOUR, id="after five"),
        pytest.param(6, None, 0.0, 10 * HOUR, id="after six"),
        pytest.param(7, None, 0.0, 14 * HOUR, id="after seven"),
        pytest.param(8, None, 0.0, 20 * HOUR, id="after eight"),
        pytest.param(9, None, 0.0, DAY, id="after nine"),
        pytest.param(10, None, 0.0, None, id="after ten none"),
        pytest.param(99, 1.0, 0.0, None, id="none, whatever is asked for"),
        pytest.param(1, 60.0, 0.0, 60, id="what was asked for, where that is later"),
        pytest.param(1, 60.0, 1.0, 66, id="and not all at that moment"),
        pytest.param(3, 60.0, 0.0, 1800, id="the schedule, where that is later"),
        pytest.param(1, 10.0 * DAY, 0.0, DAY, id="a day at most"),
        pytest.param(1, -5.0, 0.0, 5, id="nothing before now"),
    ],
)
def test_a_delay(tries: int, retry_after: float | None, chance: float, seconds: float | None) -> None:
    found = delay(tries, retry_after=retry_after, random=lambda: chance)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_ten_tries_take_three_days_and_a_bit() -> None:
    def total(chance: float) -> float:
        return sum(delay(tries, retry_after=None, random=lambda: chance) or 0 for tries in range(len(SCHEDULE)))

    least, most = total(0.0), total(1.0)
    assert least == 5 + 300 + 1800 + 75.5 * HOUR - 0.5 * HOUR  # 2 + 5 + 10 + 14 + 20 + 24 hours
    assert 3 * DAY < least < 3.2 * DAY
    assert most == pytest.approx(least * (1 + JITTER))
    assert most < 3.5 * DAY
