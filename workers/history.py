"""When Redis' history goes back: a loss of power, a failover or a restored backup may take its last writes.

What was sent in the part that is lost would lie there as `queued` again, and be sent a second time. So claims are
counted, and each worker remembers what it claimed lately and what came of it. No connection to a server that was
started anew is used before its history was settled: what the workers remember and Redis does not is asserted again; and
where a worker of that time is not there to say what it did, all that it may have sent is held as `unknown`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import LockError, ResponseError

from dispatcher.calls import Call, Calls, script
from dispatcher.errors import StoreUnavailable
from dispatcher.store import AsyncJobStore

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

#: The run of the server whose history is settled; beside it for each run a hash of what the workers said.
ERA: Final = "d:er"

#: Seconds that statements are kept.
_KEPT: Final = 3600

#: Beside the workers' statements, the claims that Redis still knew when the first of them came.
_BASE: Final = ":claims"

#: How many claims there ever were, and the last moment that is known of.
CLAIMS: Final = "d:c"

#: Processes that claim, by the ms of their last pulse.
PROCESSES: Final = "d:cw"

#: Seconds between two notes of how far history goes.
_PULSE: Final = 1.0

#: Milliseconds after that last moment in which a worker on a loaded machine may have done something all the same.
_BLUR: Final = 10_000

#: Seconds that the workers' calls wait for each other, one asserting after the other.
_IN_TURN: Final = 60

#: Beats that a worker may take to find a server that was started anew.
_PATIENCE: Final = 3

#: Arguments of remembered calls at most: those of some ten thousand jobs, in about 20 MB.
_MOST: Final = 200_000

#: Calls that are asserted though they came before the first that is known to be lost: they were on the way beside it.
_BESIDE: Final = 500

#: Calls that one trip to Redis carries.
_PORTION: Final = 100

_RUN_ID: Final = re.compile(rb"run_id:(\w+)")
_UPTIME: Final = re.compile(rb"uptime_in_seconds:(\d+)")


class Statement(msgspec.Struct, frozen=True):
    """What one worker remembered when a run of the server began."""

    #: Redis had lost something of it.
    lost: bool
    #: It remembers all that it did from this moment on, ms on Redis' clock.
    since: int
    #: The most claims it knew of, anybody's.
    claims: int
    #: Its own of those that were lost, which it asserted again.
    mine: int

    def line(self) -> str:
        """Return it as it is stored."""
        return f"{int(self.lost)} {self.since} {self.claims} {self.mine}"


def read_statement(line: str) -> Statement:
    """Read what `line` wrote."""
    lost, since, claims, mine = line.split(" ")
    return Statement(lost == "1", int(since), int(claims), int(mine))


class Past(msgspec.Struct, frozen=True):
    """What a server still knew when its run began."""

    #: Claims, and the last moment, ms on Redis' clock.
    claims: int
    known: int
    #: The processes that claimed then.
    workers: frozenset[str] = frozenset()
    #: When this run of the server began, at the latest.
    began: int = 0

    @property
    def until(self) -> int:
        """What was made after this moment cannot have been sent before the run began."""
        # A replica that took over began long before.
        return min(self.known + _BLUR, self.began) if self.began >= self.known else self.known + _BLUR


def silent(past: Past, told: Mapping[str, Statement]) -> set[str]:
    """Return the workers of that time that do not say all they did since: they are gone, or remember too little."""
    return {name for name in past.workers if name not in told or told[name].since > past.known}


def unaccounted(past: Past, told: Mapping[str, Statement]) -> int:
    """Return how many claims were lost that nobody says were theirs, as far as those who are there know."""
    known = max((one.claims for one in told.values()), default=past.claims)
    return max(0, known - past.claims - sum(one.mine for one in told.values()))


def must_hold(past: Past, told: Mapping[str, Statement], *, fsync: bool) -> bool:
    """Say whether what may have been sent since is to be held as unknown.

    What a worker did last the others may not know: where one does not say it, something is taken for lost; but not
    where each claim was on the disk before anything was sent under it.
    """
    if unaccounted(past, told):
        return True
    return bool(silent(past, told)) and (not fsync or any(one.lost for one in told.values()))


class _Remembered(msgspec.Struct, frozen=True):
    """A call that is made again where Redis lost it; of a claim, how many there were with it, and how many it won."""

    at: float
    claims: int
    won: int
    call: Call[Any]


class History:
    """What one worker process remembers, and how it settles the history of a server that was started anew."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember nothing yet; `clock` tells seconds."""
        #: Of this process alone: two may have one name on Celery.
        self.name = f"{os.getpid()}@{socket.gethostname()}-{secrets.token_hex(3)}"
        #: The run of the server whose history is settled.
        self.run = ""
        self._settings = settings
        self._clock = clock
        self._calls = Calls(settings)
        self._lock = asyncio.Lock()
        self._claims = 0
        self._warned = False
        self._memory: deque[_Remembered] = deque()
        self._arguments = 0
        #: Since when nothing was forgotten, and what that clock is behind Redis', in seconds.
        self._since = clock()
        self._behind = 0.0

    async def pulse(self, store: AsyncJobStore) -> None:
        """Note how far history goes, again and again until cancelled."""
        while True:
            try:
                await store.run(self._calls.pulse(self.name))
            except StoreUnavailable:
                # The clock, which asks more often, says so.
                pass
            except Exception as error:  # noqa: BLE001 - without it, more would be held than need be
                log.error("the pulse stumbled: %s", error.__class__.__name__)  # noqa: TRY400 - a traceback could show values
            await asyncio.sleep(_PULSE)

    async def leave(self, store: AsyncJobStore) -> None:
        """Take leave: a process that was told to stop is not waited for. Raises `StoreUnavailable`."""
        with store.errors():
            await store.redis.zrem(PROCESSES, self.name)

    def remember(self, call: Call[Any], answer: Any) -> None:
        """Remember a call that was made, if it must not be lost, by its raw answer."""
        match call.script.name:
            case "claim":
                self._claims = max(self._claims, int(answer[0]))
                if won := sum(one == 1 for one in answer[1:]):
                    again = self._calls.reclaim(call, answer)
                    self._keep(_Remembered(self._clock(), int(answer[0]), won, again))
            case "advance" | "receipts" if call.lasting:
                self._keep(_Remembered(self._clock(), 0, 0, call))
            case "pulse":
                self._claims = max(self._claims, int(answer[0]))
                self._behind = int(answer[1]) / 1000 - self._clock()

    async def greet(self, connection: Any) -> None:
        """Introduce ourselves on a new connection; return once the history of its server is settled."""
        try:
            # Without looking first whether it is in order: where whoever takes it hangs up, as a proxy does whose Redis
            # is away, that look connects anew, and greets, and looks ... (redis-py 8.1).
            await connection.on_connect_check_health(check_health=False)
            await self._meet(*await self._asked(connection))
        except BaseException:
            # redis-py does that for its own errors only; one that was not settled must not go back to its pool.
            await connection.disconnect(nowait=True)
            raise

    # -- within ------------------------------------------------------------------------------------------------------

    async def _asked(self, connection: Any) -> tuple[str, int]:
        """Return the run of a server and its seconds until now; of one that does not say, the run that we know."""
        told = b""
        with suppress(ResponseError):
            await connection.send_command("INFO", "server", check_health=False)
            told = await connection.read_response(disable_decoding=True)
        run, uptime = _RUN_ID.search(told), _UPTIME.search(told)
        if run and uptime:
            return run[1].decode(), int(uptime[1])
        if not self._warned:
            log.warning("this Redis does not say when it was started anew (INFO), so that nobody would notice")
        self._warned = True
        return self.run, 0

    async def _meet(self, run: str, uptime: int) -> None:
        if run == self.run:
            return
        async with self._lock:
            if run != self.run:
                try:
                    await self._settle(run, uptime)
                except (StoreUnavailable, LockError) as error:
                    raise RedisConnectionError(str(error)) from None
                self.run = run

    def _keep(self, one: _Remembered) -> None:
        self._memory.append(one)
        self._arguments += len(one.call.arguments)
        while self._arguments > _MOST:
            forgotten = self._memory.popleft()
            self._arguments -= len(forgotten.call.arguments)
            self._since = forgotten.at

    async def _settle(self, run: str, uptime: int) -> None:
        """Settle the history of a server that runs as `run` for `uptime` seconds, with the other workers of its time.

        Raises `StoreUnavailable`.
        """
        # Of its own, since no connection of the usual store is used meanwhile.
        store = AsyncJobStore(self._settings.redis, self._settings.redis_shown)
        try:
            settled, past = await self._past(store, run, uptime)
            if self.run:
                with store.errors():
                    await store.redis.hsetnx(f"{ERA}:{run}", _BASE, str(past.claims))
                _, past = await self._past(store, run, uptime)
                await self._say(store, run, await self._assert(store, run, past))
            elif not settled:
                await store.run(self._calls.settle(run, past.claims))
                return
            ends, waited = self._clock() + _PATIENCE * self._settings.heartbeat, False
            while settled != run:
                told = await self._told(store, run)
                absent = silent(past, told)
                if (absent or unaccounted(past, told)) and self._clock() < ends:
                    if not waited:
                        log.warning("Redis was started anew; waiting for what its workers remember: %s", _list(absent))
                    waited = True
                    await asyncio.sleep(0.1)
                else:
                    await self._conclude(store, run, past, told)
                settled, _ = await self._past(store, run, uptime)
        finally:
            await store.close()

    async def _past(self, store: AsyncJobStore, run: str, uptime: int) -> tuple[str, Past]:
        """Return the run whose history is settled, "" for none, and what was known when `run` began.

        Raises `StoreUnavailable` where that is over already.
        """
        with store.errors():
            if dict(await store.redis.info("server")).get("run_id") != run:
                raise StoreUnavailable("Redis was started anew once more")
            async with store.redis.pipeline() as pipe:
                pipe.get(ERA)
                pipe.hmget(CLAIMS, ["n", "at"])
                pipe.hget(f"{ERA}:{run}", _BASE)
                pipe.zrange(PROCESSES, 0, -1, withscores=True)
                pipe.time()
                era, (claims, at), base, beats, (seconds, micros) = await pipe.execute()
        self._behind = int(seconds) + int(micros) / 1e6 - self._clock()
        known = int(at or 0)
        alive = known - 1000 * _PATIENCE * self._settings.heartbeat
        workers = frozenset(name.decode() for name, beat in beats if beat >= alive)
        began = 1000 * (int(seconds) - uptime) + 999
        return (era or b"").decode(), Past(int(base or claims or 0), known, workers, began)

    async def _assert(self, store: AsyncJobStore, run: str, past: Past) -> Statement:
        """Make the calls again that Redis may have lost; return what is to be said of that."""
        memory = list(self._memory)
        first = next((at for at, one in enumerate(memory) if one.claims > past.claims), len(memory))
        # A claim that Redis knows was followed by what came of it, and perhaps by another's.
        again = [one.call for one in memory[max(0, first - _BESIDE) :] if not 0 < one.claims <= past.claims]
        with store.errors():
            for name in ("reclaim", "advance", "receipts"):
                await store.redis.script_load(script(name).source)
            # One worker after the other: a job that two had tried in turn would be asserted by halves.
            async with store.redis.lock(f"{ERA}:{run}:lock", timeout=_IN_TURN, blocking_timeout=_IN_TURN):
                for start in range(0, len(again), _PORTION):
                    async with store.redis.pipeline(transaction=False) as pipe:
                        for call in again[start : start + _PORTION]:
                            pipe.evalsha(call.script.sha, 0, *call.arguments)
                        await pipe.execute()
        lost = self._claims > past.claims
        if lost:
            log.error("Redis lost %d claims; asserted what this worker did of late again", self._claims - past.claims)
        mine = sum(min(one.won, max(0, one.claims - past.claims)) for one in memory)
        return Statement(lost, round(1000 * (self._since + self._behind)), self._claims, mine)

    async def _say(self, store: AsyncJobStore, run: str, said: Statement) -> None:
        with store.errors():
            async with store.redis.pipeline() as pipe:
                pipe.hset(f"{ERA}:{run}", self.name, said.line())
                pipe.expire(f"{ERA}:{run}", _KEPT)
                await pipe.execute()

    async def _told(self, store: AsyncJobStore, run: str) -> dict[str, Statement]:
        with store.errors():
            stored: Any = await store.redis.hgetall(f"{ERA}:{run}")
        told = {name.decode(): line.decode() for name, line in stored.items()}
        return {name: read_statement(line) for name, line in told.items() if name != _BASE}

    async def _conclude(self, store: AsyncJobStore, run: str, past: Past, told: Mapping[str, Statement]) -> None:
        """Hold what may have been sent, where that has to be, and let everybody go on."""
        if must_hold(past, told, fsync=self._settings.fsync):
            held = 0
            while found := await store.run(self._calls.hold(run, past.until)):
                held += found
            log.error(
                "Redis may have lost what happened after %s, and %s did not say what they sent since: "
                "%d jobs are held as unknown",
                datetime.fromtimestamp(past.known / 1000, UTC).isoformat(timespec="seconds"),
                _list(silent(past, told)) or "somebody",
                held,
            )
        claims = max([past.claims, *(one.claims for one in told.values())])
        await store.run(self._calls.settle(run, claims))


class WatchedStore(AsyncJobStore):
    """The job store of a worker, whose calls are remembered, and whose connections are to settled history only."""

    def __init__(self, settings: Settings, history: History) -> None:
        """Connect lazily."""
        super().__init__(settings.redis, settings.redis_shown, fsync=settings.fsync, connected=self._greet)
        self._history = history

    async def _greet(self, connection: Any) -> None:
        before = self._history.run
        await self._history.greet(connection)
        if self._history.run != before:
            # Another server may promise less.
            self._way = None

    async def _answer(self, call: Call[Any]) -> Any:
        answer = await super()._answer(call)
        self._history.remember(call, answer)
        return answer


def _list(nodes: Iterable[str]) -> str:
    return ", ".join(sorted(nodes))
