"""A Redis in memory for each test that asks for one, and the clock it goes by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.support import Bench, Clock, running


@pytest.fixture
def clock() -> Iterator[Clock]:
    made = Clock()
    with running(made):
        yield made


@pytest.fixture
def bench(clock: Clock) -> Bench:
    return Bench(clock)
