"""Failpoints: points on the way of a job where a worker can be made to die as if it was killed there.

They are for tests of crashes: `DISPATCHER_FAILPOINTS=write.after` ends the process when a request has been written,
`claim.after:3` when jobs were claimed for the third time; several are separated by commas. Without the variable nothing
here is part of a worker. It is no setting, and only the sandbox's workers accept it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from dispatcher.errors import ConfigurationError

if TYPE_CHECKING:
    from celery.worker.request import Request

    from dispatcher.calls import Call
    from dispatcher.outcomes import Outcome
    from dispatcher.store import Caller
    from workers.limits import Grant, Limiter, Permit
    from workers.providers.base import Group

T = TypeVar("T")

#: The environment variable that names where to die.
VARIABLE: Final = "DISPATCHER_FAILPOINTS"

#: Every point, in the order in which a job comes by, and how it stands there.
POINTS: Final[Mapping[str, str]] = {
    "take.before": "the message is off the broker, its jobs are not taken",
    "take.after": "they are counted as taken",
    "permit.before": "the request is built, no permit is asked for",
    "permit.after": "the limiter has answered",
    "claim.before": "nothing says yet that a request is about to leave",
    "claim.after": "its jobs are sending, the intent is durable",
    "connect.before": "no connection to the provider; a request that finds an idle one does not come by",
    "connect.after": "it is made, TLS included",
    "write.before": "the connection is there, no byte of the request is written",
    "write.after": "the operating system has the whole request: the provider gets it",
    "read.before": "the head of the answer is here, its body is not read",
    "read.after": "the whole answer is here",
    "finish.before": "what became of the jobs is known here only",
    "finish.after": "it is in the job store",
    "ack.before": "the task has ended, its message is not acknowledged",
    "ack.after": "it is",
}

#: The scripts that are a step of the way; those of a refused or parked job are `advance`, too.
_STEPS: Final = {"take": "take", "claim": "claim", "advance": "finish"}

#: What a shell says of a process that was killed.
_KILLED: Final = 137


def read(told: str, *, sandbox: bool) -> Failpoints | None:
    """Read the variable's value; None where it names no point.

    Raises `ConfigurationError` where it names one that there is not, and where this is not the sandbox's worker.
    """
    deadly: dict[str, int] = {}
    for one in filter(None, (part.strip() for part in told.split(","))):
        point, _, times = one.partition(":")
        if point not in POINTS or point in deadly or not _is_count(times or "1"):
            raise ConfigurationError(
                f"{VARIABLE} has {one!r}; name each point once, with or without :N for the Nth time it is reached. "
                f"There are: {', '.join(POINTS)}"
            )
        deadly[point] = int(times or 1)
    if not deadly:
        return None
    if not sandbox:
        raise ConfigurationError(
            f"{VARIABLE} is set and would kill this worker; it works with DISPATCHER_SANDBOX=1 only, so unset it"
        )
    return Failpoints(deadly)


def _is_count(times: str) -> bool:
    return times.isascii() and times.isdigit() and int(times) > 0


def _die(point: str) -> NoReturn:
    # Nothing is flushed and nothing is closed, as with SIGKILL; so this is written past all buffers.
    os.write(2, f"dispatcher: failpoint {point} is reached, and the process dies\n".encode())
    os._exit(_KILLED)


class Failpoints:
    """Where this process dies, and what to hand to `Execution`, the transport and Celery so that it does."""

    def __init__(self, deadly: Mapping[str, int], die: Callable[[str], object] = _die) -> None:
        """Call `die` at each of these points when it is reached for the given time."""
        self._deadly = dict(deadly)
        # A counter that threads can share: acknowledgements come from those of the pool.
        self._times = {point: itertools.count(1) for point in deadly}
        self._die = die

    def __str__(self) -> str:
        return ", ".join(f"{point}:{times}" for point, times in self._deadly.items())

    def reached(self, point: str) -> None:
        """Die where it is time to."""
        if point in self._times and next(self._times[point]) == self._deadly[point]:
            self._die(point)

    @contextmanager
    def around(self, step: str) -> Iterator[None]:
        """Reach the point before a step, and the one after it unless it fails."""
        self.reached(f"{step}.before")
        yield
        self.reached(f"{step}.after")

    def store(self, store: Caller) -> Caller:
        """Return a store with the points round `take`, `claim` and `advance`."""
        return _Store(store, self)

    def limiter(self, limiter: Limiter) -> Limiter:
        """Return a limiter with the points round a permit."""
        return _Limiter(limiter, self)

    def request(self, base: type[Request]) -> type[Request]:
        """Return a Celery request like `base` with the points round its acknowledgement, for a task's `Request`."""
        around = self.around

        class Acknowledged(base):  # type: ignore[misc,valid-type]  # mypy knows no base that is a value
            def acknowledge(self) -> None:
                with around("ack"):
                    super().acknowledge()

        return Acknowledged


class _Store:
    def __init__(self, store: Caller, points: Failpoints) -> None:
        self._store = store
        self._points = points

    async def run(self, call: Call[T]) -> T:
        step = _STEPS.get(call.script.name)
        if step is None:
            return await self._store.run(call)
        with self._points.around(step):
            return await self._store.run(call)


class _Limiter:
    def __init__(self, limiter: Limiter, points: Failpoints) -> None:
        self._limiter = limiter
        self._points = points

    async def acquire(self, account: str, group: Group) -> Grant:
        with self._points.around("permit"):
            return await self._limiter.acquire(account, group)

    def learn(self, account: str, permit: Permit, outcomes: Mapping[str, Outcome], seconds: float) -> None:
        self._limiter.learn(account, permit, outcomes, seconds)
