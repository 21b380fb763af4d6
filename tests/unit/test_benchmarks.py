"""The measurements' own parts: each has its place on a page; the provider that counts answers as the sandbox does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import _DOCS, ROWS, put
from benchmarks.environments import LOCKS
from benchmarks.flame import doing, shares, tidy
from benchmarks.provider import Connection, Counted, Provider
from benchmarks.rig import PEERS, Peer, Spread, in_turn, messages, per_second, ratio
from dispatcher.jobs import Kind, Send, Work
from dispatcher.outcomes import Accepted, Failure
from tests.support import phones
from workers.providers.base import Group
from workers.providers.textgoto import TextGoto
from workers.sandbox import textgoto
from workers.sandbox.base import Request
from workers.sandbox.world import World
from workers.transport import Transport

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ROWS)
def test_each_row_has_its_place_on_a_page(tmp_path: Path, name: str) -> None:
    page = tmp_path / "page.md"
    page.write_text((_DOCS / ROWS[name].page).read_text())
    put(page, name, "| measured |")
    assert f"<!-- make bench: {name} -->\n| measured |\n<!-- end of {name} -->" in page.read_text()


def test_a_page_without_that_place_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- make bench: bulk -->\nno end\n")
    with pytest.raises(SystemExit, match="no place for bulk"):
        put(page, "bulk", "| measured |")
    assert page.read_text() == "<!-- make bench: bulk -->\nno end\n"


def test_what_is_measured_unasked_belongs_on_one_page() -> None:
    """`make bench` writes one page; what takes longer or asks something else is asked for by name."""
    assert {row.page for row in ROWS.values() if row.usual} == {"performance.md"}


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_each_peer_has_its_program_and_its_environment(peer: Peer) -> None:
    assert (ROOT / "benchmarks" / "peers" / f"{peer.module}.py").exists()
    assert LOCKS[peer.environment].exists()


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_locks_have_a_hash_for_everything_and_no_address(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    pinned = [at for at, line in enumerate(lines) if "==" in line and not line.startswith((" ", "#"))]
    assert pinned
    assert all("--hash=sha256:" in lines[at + 1] for at in pinned)
    assert not [line for line in lines if "://" in line or line.startswith("--")]


def test_a_ratio_compares_within_a_round() -> None:
    """A round in which everything was slow changes no ratio."""
    assert ratio([100, 50, 200], [10, 5, 10]) == Spread(10, 10, 20)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param([1234.5, 1000, 2000], "1,234 (1,000 - 2,000)", id="rounds that differ"),
        pytest.param([1000.0], "1,000", id="one round"),
    ],
)
def test_a_spread_is_the_median_between_least_and_most(values: list[float], words: str) -> None:
    assert Spread.of(values).words() == words


def test_all_take_their_turn_in_each_round() -> None:
    asked: list[str] = []

    def way(name: str) -> float:
        asked.append(name)
        return len(asked)

    measured = in_turn({name: lambda name=name: way(name) for name in ("one", "other")}, 2)  # type: ignore[misc]  # mypy knows no default of a lambda
    assert asked == ["one", "other", "one", "other"]
    assert measured == {"one": [1, 3], "other": [2, 4]}


def test_a_rate_is_what_followed_the_first_arrival() -> None:
    assert per_second(Counted(texts=101, first=10.0, last=12.0)) == 50


def test_each_text_is_another_whatever_their_number() -> None:
    texts = {(text.to, text.text) for text in messages(50, 39_990)}
    assert len(texts) == 50


STACK = "run_forever (asyncio/base_events.py:607);run (dispatcher/store.py:833);send (redis/connection.py:134)"


@pytest.mark.parametrize(
    ("stack", "what"),
    [
        pytest.param(STACK, "`dispatcher/store.py`", id="a library that we called"),
        pytest.param(
            "a (workers/execute.py:1);b (workers/providers/base.py:2)", "`workers/providers/base.py`", id="ours"
        ),
        pytest.param("f (asyncio/events.py:80);g (redis/connection.py:1)", "redis", id="a library by itself"),
        pytest.param("main (somewhere.py:1)", "other", id="nothing known"),
    ],
)
def test_a_stack_is_named_by_our_own_module_in_it(stack: str, what: str) -> None:
    assert doing(stack) == what


def test_looks_add_up() -> None:
    assert shares(f"{STACK} 3\nmain (x.py:1) 1\n{STACK} 2\n") == {"`dispatcher/store.py`": 5, "other": 1}


def test_a_picture_shows_nothing_of_the_machine() -> None:
    frame = "<title>f (/opt/lib/python3.11/asyncio/events.py:1) (1 samples)</title>"
    title = '<text id="title" x="1">/somewhere/py-spy record --pid 1</text>'
    tidied = tidy(title + frame)
    assert "/opt" not in tidied
    assert "/somewhere" not in tidied
    assert "<title>f (asyncio/events.py:1)" in tidied


# -- the provider that counts ------------------------------------------------------------------------------------------


def group(*texts: tuple[str, str]) -> Group:
    adapter = TextGoto("textgoto", {**TextGoto.sandbox})
    jobs = [
        Work(id=f"{at:04}", provider="textgoto", kind=Kind.SEND, operation="send", request=Send(to=to, text=text))
        for at, (to, text) in enumerate(texts)
    ]
    (only,) = adapter.build(jobs).groups
    return only


@pytest.mark.parametrize("recipients", [pytest.param(1, id="one recipient"), pytest.param(20, id="many recipients")])
def test_it_answers_as_the_sandbox_does(recipients: int) -> None:
    asked = group(*((number, "Hello") for number in phones(recipients)))
    world = World(textgoto.TextGoto().accounts)
    request = Request(method="POST", path="/api/jsonapi.aspx", body=asked.request.body)
    played, _ = textgoto.TextGoto().reply(request, world)
    adapter = TextGoto("textgoto", {**TextGoto.sandbox})
    counting = Provider(0.0)

    async def sent() -> dict[str, object]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(counting), "127.0.0.1", 0)
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        moved = msgspec.structs.replace(asked.request, url=f"{origin}/api/jsonapi.aspx")
        async with Transport() as transport:
            answer = await transport.send(moved)
        server.close()
        assert not isinstance(answer, Failure)
        assert answer.body == played.body
        return dict(adapter.parse(answer, asked))

    assert asyncio.run(sent()) == {job.id: Accepted() for job in asked.jobs}
    assert (counting.counted.requests, counting.counted.recipients) == (1, recipients)


def test_it_counts_what_came_before() -> None:
    counting, first, second = Provider(0.0), *phones(2)
    for at, texts in enumerate([[(first, "Hello")], [(first, "Hello"), (second, "Hello")], [(first, "Bye")]]):
        counting.answer(group(*texts).request.body, at + 1.0)
    told = counting.counted
    assert (told.requests, told.recipients, told.repeated) == (3, 4, 1)
    assert (told.first, told.last, told.last_repeated) == (1.0, 3.0, 2.0)
