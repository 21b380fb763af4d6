"""Failpoints: how they are named, when they are refused, and in which order they are reached."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest
from celery.worker.request import Request as CeleryRequest

from dispatcher.calls import Call, Calls
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.outcomes import Outcome
from tests.unit.support import settings
from workers.failpoints import POINTS, VARIABLE, Failpoints, read
from workers.limits import Grant, Later, Permit
from workers.providers.base import Group, Request

GROUP = Group(request=Request(method="GET", url="http://127.0.0.1:1/"), jobs=())


@pytest.mark.parametrize("told", ["", " ", ",", " , "])
def test_without_a_name_there_are_none(told: str) -> None:
    assert read(told, sandbox=True) is None
    assert read(told, sandbox=False) is None


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        pytest.param("claim.after", "claim.after:1", id="one"),
        pytest.param("write.before:3", "write.before:3", id="the third time"),
        pytest.param(" ack.before , write.before:3,", "ack.before:1, write.before:3", id="several"),
    ],
)
def test_what_is_named(told: str, shown: str) -> None:
    assert str(read(told, sandbox=True)) == shown


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        pytest.param("claim.later", "claim.later", id="unknown"),
        pytest.param("claim", "claim", id="half a name"),
        pytest.param("claim.after,write", "write", id="the second unknown"),
        pytest.param("claim.after:0", "claim.after:0", id="never"),
        pytest.param("claim.after:-1", "claim.after:-1", id="less than never"),
        pytest.param("claim.after:x", "claim.after:x", id="no number"),
        pytest.param("claim.after:²", "claim.after:²", id="no number either"),
        pytest.param("claim.after,claim.after:2", "claim.after:2", id="twice"),
    ],
)
def test_what_is_refused_and_which_there_are(told: str, shown: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"{VARIABLE} has {shown!r}")) as caught:
        read(told, sandbox=True)
    assert ", ".join(POINTS) in str(caught.value)


def test_a_worker_that_sends_to_people_is_not_to_be_killed() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_SANDBOX=1 only"):
        read("claim.after", sandbox=False)


def test_it_dies_the_nth_time() -> None:
    died: list[str] = []
    points = Failpoints({"claim.after": 3}, died.append)
    seen = []
    for _ in range(5):
        points.reached("claim.before")
        points.reached("claim.after")
        seen.append(len(died))
    assert seen == [0, 0, 1, 1, 1]


class Store:
    """A store that answers nothing, or is away."""

    def __init__(self, steps: list[str], error: Exception | None = None) -> None:
        self.steps = steps
        self.error = error

    async def run(self, call: Call[Any]) -> Any:
        self.steps.append(call.script.name)
        if self.error:
            raise self.error


class Limiter:
    def __init__(self, steps: list[str], grant: Grant) -> None:
        self.steps = steps
        self.grant = grant

    async def acquire(self, account: str, group: Group) -> Grant:
        self.steps.append("permit")
        return self.grant

    def learn(self, account: str, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> None:
        self.steps.append(f"learnt {account} {permit.token} {seconds:g}")


def everywhere(steps: list[str]) -> Failpoints:
    """Failpoints that note every point as it is reached."""

    class Everywhere(Failpoints):
        def reached(self, point: str) -> None:
            steps.append(point)

    return Everywhere({})


def test_the_points_stand_round_each_step_of_the_store() -> None:
    steps: list[str] = []
    store, calls = everywhere(steps).store(Store(steps)), Calls(settings())

    async def road() -> None:
        await store.run(calls.take("t", ["a"]))
        await store.run(calls.claim([]))
        await store.run(calls.advance([]))
        await store.run(calls.release("t", ["a"]))

    asyncio.run(road())
    expected = "take.before take take.after claim.before claim claim.after finish.before advance finish.after release"
    assert " ".join(steps) == expected


def test_a_step_that_fails_is_not_behind_us() -> None:
    steps: list[str] = []
    store = everywhere(steps).store(Store(steps, StoreUnavailable("away")))
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.run(Calls(settings()).take("t", ["a"])))
    assert steps == ["take.before", "take"]


@pytest.mark.parametrize("grant", [Permit(), Later(1.0)], ids=["granted", "not yet"])
def test_the_points_stand_round_a_permit(grant: Grant) -> None:
    steps: list[str] = []
    limiter = everywhere(steps).limiter(Limiter(steps, grant))
    assert asyncio.run(limiter.acquire("textgoto", GROUP)) == grant
    limiter.learn("textgoto", Permit(0, "t"), {}, 1.5)
    assert steps == ["permit.before", "permit", "permit.after", "learnt textgoto t 1.5"]


def test_the_points_stand_round_an_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(CeleryRequest, "acknowledge", lambda _: steps.append("ack"))
    request = everywhere(steps).request(CeleryRequest)
    request.acknowledge(request.__new__(request))
    assert steps == ["ack.before", "ack", "ack.after"]
