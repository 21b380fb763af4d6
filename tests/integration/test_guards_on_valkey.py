"""Guards where many ask at the same moment, on a real server: as many as they allow pass, and not one more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from dispatcher import Dispatcher, ResendTooSoon, VerificationRefused
from dispatcher.accounts import KEY, Account
from tests.support import phones


def served(url: str, rules: str) -> Dispatcher:
    """Return an application whose account a worker has published."""
    one = Dispatcher(redis_url=url, sandbox=True, guards=rules)
    account = Account(name="textgoto", adapter="textgoto", operations=["verify"], unsupported={})
    one._store.redis.hset(KEY, "textgoto", msgspec.json.encode(account))
    return one


@pytest.fixture(params=["key=20/1h", "prefix=20/1h", "country=220/1h", "number=20/1h"])
def guarded(request: pytest.FixtureRequest, redis_url: str) -> Iterator[tuple[Dispatcher, str]]:
    with served(redis_url, request.param) as one:
        yield one, request.param


def test_at_the_edge_of_a_limit_as_many_pass_as_it_allows(guarded: tuple[Dispatcher, str]) -> None:
    """Many threads, each with a connection of its own, ask for more codes than may be sent."""
    dispatcher, rule = guarded
    kind, _, window = rule.partition("=")
    most = int(window.partition("/")[0])
    # Of one country, and up to 54 of one prefix.
    people = (phones(1 if kind == "number" else 54) * 5 * most)[: most + 40]

    def ask(number: str) -> str:
        try:
            dispatcher.verify(number, guard_keys={"ip": "203.0.113.7"})
        except VerificationRefused as refused:
            return refused.code
        return "sent"

    with ThreadPoolExecutor(16) as pool:
        ends = Counter(pool.map(ask, people))
    assert ends == {"sent": most, f"{kind}_limited": len(people) - most}
    assert len(dispatcher.jobs(limit=1000)) == most


def test_of_many_resends_at_the_same_moment_one_wins(redis_url: str) -> None:
    with served(redis_url, "off") as dispatcher:
        first = dispatcher.verify(phones(1)[0])
        story: Any = dispatcher._store.redis.hget(f"d:j:{first.id}", "h")
        made = story.decode().partition(" ")
        # Half a minute passes at once.
        dispatcher._store.redis.hset(f"d:j:{first.id}", "h", f"{int(made[0]) - 30_000} {made[2]}")

        def ask(_: int) -> str:
            try:
                return dispatcher.resend(first.id).id
            except ResendTooSoon:
                return ""

        with ThreadPoolExecutor(16) as pool:
            ids = {id_ for id_ in pool.map(ask, range(32)) if id_}
        assert len(ids) == 1
        assert len(dispatcher.jobs()) == 2
