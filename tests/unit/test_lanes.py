"""Places: how many are taken at once, and who is served first."""

from __future__ import annotations

import asyncio

import pytest

from workers.lanes import Places


async def most_at_once(places: Places, takers: int, *, high: bool) -> int:
    """Let `takers` take a place each; return how many had one at the same time."""
    now = most = 0

    async def take() -> None:
        nonlocal now, most
        async with places.take(high=high):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(take() for _ in range(takers)))
    return most


@pytest.mark.parametrize(
    ("count", "kept", "high", "most"),
    [
        pytest.param(1, 1, False, 1, id="one place is for all"),
        pytest.param(2, 1, False, 1, id="a kept place is not for the other lane"),
        pytest.param(8, 2, False, 6, id="two kept"),
        pytest.param(8, 2, True, 8, id="the high lane may take all"),
    ],
)
def test_no_more_are_taken_than_there_are(count: int, kept: int, high: bool, most: int) -> None:
    assert asyncio.run(most_at_once(Places(count, kept), 60, high=high)) == most


def test_the_high_lane_passes_those_who_wait() -> None:
    async def scene() -> list[str]:
        places, order = Places(2, 1), list[str]()

        async def take(name: str, *, high: bool) -> None:
            async with places.take(high=high):
                order.append(name)
                await asyncio.sleep(0.01)

        campaign = [asyncio.create_task(take(f"campaign {n}", high=False)) for n in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(take("code", high=True), *campaign)
        return order

    assert asyncio.run(scene())[:2] == ["campaign 0", "code"]


def test_one_who_wants_more_than_there_are_gets_all_there_are() -> None:
    async def scene() -> bool:
        places = Places(4, 1)
        async with places.take(100, high=False):
            waiting = asyncio.create_task(most_at_once(places, 1, high=False))
            await asyncio.sleep(0)
            assert not waiting.done()
        return await waiting == 1

    assert asyncio.run(scene())


def test_one_who_gives_up_waiting_leaves_its_place_to_others() -> None:
    async def scene() -> int:
        places = Places(2, 1)
        async with places.take(high=False):
            waiting = asyncio.create_task(most_at_once(places, 1, high=False))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        return await most_at_once(places, 3, high=False)

    assert asyncio.run(scene()) == 1
