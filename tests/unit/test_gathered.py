"""Calls that are made together: who travels with whom, who is served first, and whose trouble it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from dispatcher.calls import Taken
from workers.execute import parted
from workers.gathered import Gathered


class Server:
    """What is called; each call takes as long as the test says."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.called = asyncio.Event()
        self.fails: Exception | None = None

    async def __call__(self, asked: Sequence[str]) -> list[str]:
        self.calls.append(list(asked))
        self.called.set()
        await self.may_answer.wait()
        if self.fails:
            error, self.fails = self.fails, None
            raise error
        return [one.upper() for one in asked]


async def on_its_way(server: Server, gathered: Gathered[str, str], first: str) -> asyncio.Task[str]:
    """Return once a call with `first` is under way, which takes until the server may answer."""
    server.may_answer.clear()
    task = asyncio.create_task(gathered.ask(first))
    await server.called.wait()
    return task


def test_who_asks_alone_is_served_at_once() -> None:
    async def play() -> None:
        server = Server()
        gathered = Gathered(server, 10)
        assert [await gathered.ask(one) for one in "abc"] == ["A", "B", "C"]
        assert server.calls == [["a"], ["b"], ["c"]]

    asyncio.run(play())


def test_who_asks_while_a_call_is_on_its_way_travels_in_the_next() -> None:
    async def play() -> None:
        server = Server()
        gathered = Gathered(server, 10)
        first = await on_its_way(server, gathered, "a")
        others = [asyncio.create_task(gathered.ask(one)) for one in "bcd"]
        await asyncio.sleep(0)
        server.may_answer.set()
        assert await asyncio.gather(first, *others) == ["A", "B", "C", "D"]
        assert server.calls == [["a"], ["b", "c", "d"]]

    asyncio.run(play())


@pytest.mark.parametrize(
    ("asked", "calls"),
    [
        pytest.param(["bb", "cc", "dd"], [["bb", "cc"], ["dd"]], id="as many as fit"),
        pytest.param(["bbbbbbb", "c"], [["bbbbbbb"], ["c"]], id="one that is too large goes alone"),
        pytest.param(["b", "ccccccc", "d"], [["b"], ["ccccccc"], ["d"]], id="nobody passes it"),
    ],
)
def test_a_call_has_no_more_members_than_it_may(asked: list[str], calls: list[list[str]]) -> None:
    async def play() -> None:
        server = Server()
        gathered = Gathered(server, 4)
        first = await on_its_way(server, gathered, "a")
        others = [asyncio.create_task(gathered.ask(one)) for one in asked]
        await asyncio.sleep(0)
        server.may_answer.set()
        await asyncio.gather(first, *others)
        assert server.calls == [["a"], *calls]

    asyncio.run(play())


def test_a_lower_rank_goes_first_and_each_in_order_of_arrival() -> None:
    async def play() -> None:
        server = Server()
        gathered = Gathered(server, 10, rank=str.isupper)
        first = await on_its_way(server, gathered, "a")
        others = [asyncio.create_task(gathered.ask(one)) for one in "XbYc"]
        await asyncio.sleep(0)
        server.may_answer.set()
        await asyncio.gather(first, *others)
        assert server.calls[1] == ["b", "c", "X", "Y"]

    asyncio.run(play())


def test_an_error_is_that_of_all_who_travelled_together_and_of_nobody_else() -> None:
    async def play() -> None:
        server = Server()
        gathered = Gathered(server, 10)
        first = await on_its_way(server, gathered, "a")
        second = asyncio.create_task(gathered.ask("b"))
        await asyncio.sleep(0)
        server.fails = ValueError("of the first call")
        server.may_answer.set()
        with pytest.raises(ValueError, match="of the first call"):
            await first
        assert await second == "B"
        assert await gathered.ask("c") == "C", "it goes on afterwards"

    asyncio.run(play())


def test_the_answer_to_who_was_cancelled_is_told_and_who_was_cancelled_before_is_not_asked_for() -> None:
    async def play() -> None:
        server, lost = Server(), list[tuple[str, str]]()
        gathered = Gathered(server, 10, unclaimed=lambda asked, answer: lost.append((asked, answer)))
        first = await on_its_way(server, gathered, "a")
        second, third = (asyncio.create_task(gathered.ask(one)) for one in "bc")
        await asyncio.sleep(0)
        first.cancel()
        second.cancel()
        await asyncio.sleep(0)
        server.may_answer.set()
        assert await third == "C"
        assert lost == [("a", "A")]
        assert server.calls == [["a"], ["c"]]

    asyncio.run(play())


RAW = [[id_, b"public"] for id_ in (b"1", b"2")]


@pytest.mark.parametrize(
    ("taken", "messages", "shares"),
    [
        pytest.param(
            Taken(RAW, ["3"], [("4", "sent")], 7),
            [["1", "4"], ["3", "2"]],
            [Taken(RAW[:1], [], [("4", "sent")], 7), Taken(RAW[1:], ["3"], [], 7)],
            id="to each what it named",
        ),
        pytest.param(
            Taken(RAW, ["3"], [], 7),
            [["1", "2", "3"], ["3", "2"]],
            [Taken(RAW, ["3"], [], 7), Taken([], [], [("3", "queued"), ("2", "queued")], 7)],
            id="a job that two of them name is in the first one's hands",
        ),
        pytest.param(
            Taken(RAW, [], [], 7),
            [["1", "1"], ["2"]],
            [Taken(RAW[:1], [], [], 7), Taken(RAW[1:], [], [], 7)],
            id="named twice by one, it is there once",
        ),
    ],
)
def test_what_was_taken_together_is_parted(taken: Taken, messages: list[list[str]], shares: list[Taken]) -> None:
    assert parted(taken, messages) == shares
