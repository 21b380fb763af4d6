"""The states of a job and the only table of allowed moves; nothing else decides a move.

`lua_tables()` hands the same table to the scripts in `dispatcher/lua`, where moves are made.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a job is. Who sets each is said beside it."""

    #: Durable and waiting; `waiting` says for what. Set by the client, and by workers for what may be tried again.
    QUEUED = "queued"
    #: Claimed by a worker: a request may be on the wire. Set by the claim, just before the first byte.
    SENDING = "sending"
    #: The provider took it. Set by the worker that read the answer.
    SENT = "sent"
    #: It may have taken effect and nobody can tell yet. Set by the worker, or by the clock for a worker that died.
    UNKNOWN = "unknown"
    #: By receipt: it is on the phone.
    DELIVERED = "delivered"
    #: By receipt: it will not get there, and no route is left.
    UNDELIVERED = "undelivered"
    #: A result is there (lookup, balance, purchase, ...). Set by the worker that read the answer.
    COMPLETED = "completed"
    #: Will not be tried again; `failure` says why. Set by the worker.
    FAILED = "failed"
    #: Its `valid_for` passed before it was sent. Set by the claim or the clock.
    EXPIRED = "expired"
    #: The caller took it back before it was sent.
    CANCELLED = "cancelled"


Q, S = State.QUEUED, State.SENDING

#: From a state to those it may become. A state that is not a key is never left.
#: Four moves out of `queued` (sent, delivered, undelivered, unknown) are for jobs of which an earlier try was or may
#: have been taken: such a job never ends failed, expired or cancelled, it ends as that try left it. And it is completed
#: without ever being sent where the answer is known: a lookup whose number another job has asked about.
MOVES: Final[dict[State, frozenset[State]]] = {
    Q: frozenset(
        {S, State.COMPLETED, State.EXPIRED, State.CANCELLED, State.FAILED}
        | {State.SENT, State.DELIVERED, State.UNDELIVERED, State.UNKNOWN}
    ),
    S: frozenset({State.SENT, State.COMPLETED, State.DELIVERED, State.UNDELIVERED, Q, State.FAILED, State.UNKNOWN}),
    State.SENT: frozenset({State.DELIVERED, State.UNDELIVERED, Q}),
    State.UNKNOWN: frozenset({State.SENT, State.COMPLETED, State.DELIVERED, State.UNDELIVERED, State.FAILED, Q}),
    State.UNDELIVERED: frozenset({State.DELIVERED}),
}

#: Nothing more will be attempted and nothing more is expected (late news may still lift `undelivered`).
FINAL: Final = frozenset(
    {State.DELIVERED, State.UNDELIVERED, State.COMPLETED, State.FAILED, State.EXPIRED, State.CANCELLED}
)

#: Nothing more will be attempted by itself.
SETTLED: Final = FINAL | {State.SENT, State.UNKNOWN}

#: The ends that a caller hoped for: what `--wait` exits 0 for.
GOOD: Final = frozenset({State.SENT, State.DELIVERED, State.COMPLETED})


def may(state: State, to: State) -> bool:
    """Say whether a job in `state` may become `to`."""
    return to in MOVES.get(state, frozenset())


def lua_tables() -> str:
    """Return the tables as Lua source: `MOVES[from][to]`, `SETTLED[state]`, `GOOD[state]` are true where it is so."""
    moves = ", ".join(f"{state} = {_lua_set(allowed)}" for state, allowed in MOVES.items())
    return f"local MOVES = {{{moves}}}\nlocal SETTLED = {_lua_set(SETTLED)}\nlocal GOOD = {_lua_set(GOOD)}\n"


def _lua_set(states: frozenset[State]) -> str:
    return "{" + ", ".join(f"{state} = true" for state in sorted(states)) + "}"
