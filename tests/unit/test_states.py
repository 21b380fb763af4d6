"""The state table, held against the one written by hand from the design; and Lua's copy of it against Python's."""

from __future__ import annotations

from itertools import product
from typing import Any

import fakeredis
import pytest

from dispatcher.states import FINAL, GOOD, MOVES, SETTLED, State, lua_tables, may

#: From each state to those it may become.
TABLE = {
    # Out of the queue: claimed; answered from memory; useless, taken back, hopeless; or as an earlier try, or lost
    # history, left it.
    "queued": {"sending", "completed", "expired", "cancelled", "failed", "sent", "delivered", "undelivered", "unknown"},
    # Answered, by the provider or by an early receipt; surely not sent; hopeless; or nobody can tell.
    "sending": {"sent", "completed", "delivered", "undelivered", "queued", "failed", "unknown"},
    # A receipt; or failover that the caller asked for.
    "sent": {"delivered", "undelivered", "queued"},
    # Evidence of either end; or somebody's word that it may be sent again.
    "unknown": {"sent", "completed", "delivered", "undelivered", "failed", "queued"},
    # Late news.
    "undelivered": {"delivered"},
    "delivered": set(),
    "completed": set(),
    "failed": set(),
    "expired": set(),
    "cancelled": set(),
}

PAIRS = [pytest.param(one, other, id=f"{one} to {other}") for one, other in product(TABLE, TABLE)]

REDIS: Any = fakeredis.FakeRedis(server=fakeredis.FakeServer())


def lua(question: str, *arguments: str) -> bool:
    answer: int = REDIS.eval(f"{lua_tables()} return ({question}) and 1 or 0", 0, *arguments)
    return answer == 1


def test_the_table_by_hand_names_every_state() -> None:
    assert set(TABLE) == {state.value for state in State}


@pytest.mark.parametrize(("state", "to"), PAIRS)
def test_a_move_is_allowed_where_the_design_says_so(state: str, to: str) -> None:
    assert may(State(state), State(to)) == (to in TABLE[state])


@pytest.mark.parametrize(("state", "to"), PAIRS)
def test_the_scripts_are_given_the_same_table(state: str, to: str) -> None:
    assert lua("MOVES[ARGV[1]] and MOVES[ARGV[1]][ARGV[2]]", state, to) == (to in TABLE[state])


@pytest.mark.parametrize("state", list(TABLE))
def test_the_scripts_are_given_the_same_sets(state: str) -> None:
    assert lua("SETTLED[ARGV[1]]", state) == (State(state) in SETTLED)
    assert lua("GOOD[ARGV[1]]", state) == (State(state) in GOOD)


def test_no_job_stays_where_it_is_by_a_move() -> None:
    assert not [state for state in State if may(state, state)]


def test_final_states_are_left_by_late_news_of_a_delivery_alone() -> None:
    assert {state.value for state in FINAL} == {
        "delivered", "undelivered", "completed", "failed", "expired", "cancelled",
    }  # fmt: skip
    left = {(state.value, to.value) for state in FINAL for to in State if may(state, to)}
    assert left == {("undelivered", "delivered")}


def test_settled_is_final_or_nothing_more_will_be_attempted() -> None:
    assert {state.value for state in SETTLED - FINAL} == {"sent", "unknown"}


def test_what_is_neither_settled_nor_final_can_always_get_there() -> None:
    """No job can be stuck: from the states where work goes on each settled state but `cancelled` is two moves away."""
    for state in set(State) - SETTLED:
        near = MOVES[state] | {after for to in MOVES[state] for after in MOVES.get(to, frozenset())}
        assert near >= SETTLED - {State.CANCELLED}


def test_the_good_ends_are_what_a_caller_hoped_for() -> None:
    assert {state.value for state in GOOD} == {"sent", "delivered", "completed"}


def test_nothing_ends_well_that_was_given_up() -> None:
    assert not [state for state in FINAL - GOOD for to in GOOD - {State.DELIVERED} if may(state, to)]


def test_a_state_reads_as_its_word() -> None:
    assert f"{State.QUEUED}" == "queued"
    assert {state.value for state in State} == {state.name.lower() for state in State}


def test_states_without_a_way_out_are_no_keys_of_the_table() -> None:
    assert all(MOVES.values())
