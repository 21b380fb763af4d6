"""Budgets on a real server, with several claimers at the same moment."""

from __future__ import annotations

from typing import Any

from dispatcher.calls import Calls
from dispatcher.settings import load
from dispatcher.store import JobStore
from tests.unit.test_budgets import race


def test_claimers_at_once_never_pass_a_cap(redis_url: str) -> None:
    """Not by one, though each call is made twice; and nothing that fits is refused."""
    settings = load(redis_url=redis_url, sandbox=True)
    stores = [JobStore(settings.redis, settings.redis_shown) for _ in range(4)]
    try:
        won, used = race(stores, Calls(settings), jobs=400, cap=150)
        assert won == 150
        assert used == {"messages/month tenant=a": 150, "segments/month": 300, "USD/month": 1_500_000}
        events: Any = stores[0].redis.xrange("d:e")
        told = [fields[b"t"] for _, fields in events]
        assert [told.count(one) for one in (b"budget.warning", b"budget.exceeded")] == [2, 1]
    finally:
        for one in stores:
            one.close()
