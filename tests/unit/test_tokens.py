"""Tokens of the HTTP API: what is kept of them, what they let be made, and the commands that make them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher import InvalidRequest, NotFound, tokens
from dispatcher.calls import call_name
from dispatcher.tokens import Right
from tests.commands import Run, in_process
from tests.unit.support import Bench, Clock, settings


def made(**told: Any) -> tuple[str, tokens.Token]:
    return tokens.make(**{"tenant": "shop-a", "rights": ["send"], **told})


def test_a_token_is_chance_that_scanners_know_and_is_kept_as_its_hash_alone(bench: Bench) -> None:
    secret, one = made(note="the till")
    assert re.fullmatch(r"disp_[0-9a-f]{48}", secret)
    tokens.put(bench.store, secret, one)
    assert secret.removeprefix("disp_") not in str(bench.dump())
    assert tokens.read(bench.redis.hget(tokens.KEY, str(tokens.hashed(secret)))) == one
    assert tokens.listed(bench.store) == [one]
    assert tokens.revoke(bench.store, one.id) == one
    assert tokens.listed(bench.store) == []
    with pytest.raises(NotFound):
        tokens.revoke(bench.store, one.id)


def test_one_whose_time_is_over_is_none(bench: Bench) -> None:
    secret, one = made(expires_at=datetime.now(UTC) + timedelta(days=1))
    tokens.put(bench.store, secret, one)
    assert one.expires_at is not None
    assert one.expired(one.expires_at / 1000)
    assert not one.expired(one.expires_at / 1000 - 1)


@pytest.mark.parametrize(
    ("field", "told"),
    [
        pytest.param("rights", {"rights": []}, id="no right"),
        pytest.param("rights", {"rights": ["write"]}, id="a right that there is not"),
        pytest.param("tenant", {"tenant": ""}, id="no tenant"),
        pytest.param("budget", {"budget": "1000"}, id="no time"),
        pytest.param("budget", {"budget": "0/1d"}, id="nothing"),
        pytest.param("budget", {"budget": "5/31d"}, id="too long a time"),
        pytest.param("budget", {"budget": "5/1h,6/60m"}, id="the same time twice"),
        pytest.param("note", {"note": "a" * 101}, id="a long note"),
        pytest.param("expires_at", {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, id="over already"),
    ],
)
def test_what_cannot_be_is_refused(field: str, told: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as error:
        made(**told)
    assert error.value.field == field


def test_rights_come_in_their_order_and_once() -> None:
    assert made(rights=["read", "send", "read"])[1].rights == (Right.SEND, Right.READ)


class TestBudget:
    @staticmethod
    def draw(bench: Bench, one: tokens.Token, amount: int, call: str = "") -> tokens.Drawn:
        return bench.run(tokens.draw(call or call_name(), one, amount))

    def test_it_is_drawn_from_whole_or_not_at_all(self, bench: Bench, clock: Clock) -> None:
        _, one = made(budget="5/1h,8/1d")
        assert self.draw(bench, one, 3).granted
        refused = self.draw(bench, one, 3)
        assert refused == tokens.Drawn(granted=False, retry_after=3600 - clock.ms // 1000 % 3600)
        assert self.draw(bench, one, 2).granted
        clock.advance(refused.retry_after or 0)
        assert self.draw(bench, one, 3).granted
        assert self.draw(bench, one, 1).retry_after == 86400 - clock.ms // 1000 % 86400
        assert self.draw(bench, one, 6) == tokens.Drawn(granted=False)

    def test_a_draw_whose_answer_was_lost_is_known_again(self, bench: Bench, clock: Clock) -> None:
        _, one = made(budget="2/1h")
        first = self.draw(bench, one, 2, "call")
        clock.advance(1)
        assert self.draw(bench, one, 2, "call") == first
        assert not self.draw(bench, one, 1).granted

    def test_what_was_not_made_is_given_back_once(self, bench: Bench) -> None:
        _, one = made(budget="2/1h")
        assert self.draw(bench, one, 2, "call").granted
        assert [bench.run(tokens.give_back("call", 2)) for _ in range(2)] == [1, 0]
        assert self.draw(bench, one, 2).granted
        assert not self.draw(bench, one, 1).granted

    def test_nothing_of_it_stays(self, bench: Bench, clock: Clock) -> None:
        self.draw(bench, made(budget="2/1h,3/1d")[1], 1)
        assert bench.names()
        assert all(bench.ttl(key) for key in bench.names())
        clock.advance(86400)
        assert bench.names() == set()


class TestCommands:
    @pytest.fixture
    def run(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
        monkeypatch.setattr("dispatcher.store.JobStore", lambda *_, **__: bench.store)
        monkeypatch.setattr(bench.store, "close", lambda: None)
        return in_process({"DISPATCHER_REDIS_URL": settings().redis_url}, monkeypatch, capsys)

    def test_a_token_is_shown_once(self, run: Run, bench: Bench) -> None:
        ended = run(
            "api",
            "tokens",
            "create",
            "--tenant",
            "shop-a",
            "--rights",
            "send,read",
            "--budget",
            "5/60m",
            "--days",
            "2",
            "--json",
        )
        told = json.loads(ended.out)
        assert (told["tenant"], told["rights"], told["budget"]) == ("shop-a", ["send", "read"], "5/1h")
        assert tokens.hashed(told["token"]) is not None
        listed = run("api", "tokens", "list", "--json")
        assert json.loads(listed.out) == {name: value for name, value in told.items() if name != "token"}
        assert told["token"] not in run("api", "tokens", "list").out
        assert run("api", "tokens", "revoke", told["id"]).code == 0
        assert "There is no token" in run("api", "tokens", "list").out

    def test_whose_it_is_must_be_said(self, run: Run) -> None:
        for words in ((), ("--tenant", "shop-a", "--all-tenants")):
            ended = run("api", "tokens", "create", *words)
            assert (ended.code, "--all-tenants" in ended.err) == (2, True)
        assert json.loads(run("api", "tokens", "create", "--all-tenants", "--json").out)["tenant"] is None

    def test_a_mistake_names_the_option(self, run: Run) -> None:
        assert "--budget" in run("api", "tokens", "create", "--tenant", "a", "--budget", "many").err

    def test_one_that_there_is_not_cannot_be_revoked(self, run: Run) -> None:
        assert run("api", "tokens", "revoke", "1").code == 1
