"""Anything may happen to jobs in any order: on a Redis in memory, against the model of what is promised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.model import SETTINGS
from tests.unit.support import Bench, Clock, running
from tests.walk import walk


@contextmanager
def memory() -> Iterator[Bench]:
    clock = Clock()
    with running(clock):
        yield Bench(clock, **SETTINGS)


@pytest.mark.parametrize("part", range(4))
def test_whatever_happens_in_whatever_order_is_as_promised(part: int) -> None:
    walk(memory, part, examples=15, steps=40)
