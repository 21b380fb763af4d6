"""The job store over Redis: `JobStore` makes calls from ordinary code, `AsyncJobStore` from an event loop.

What is called is a `Call` of `dispatcher.calls`; neither knows what it means.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar, overload

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import MasterDownError, NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from dispatcher import durability, inmemory
from dispatcher.calls import MOST, Call
from dispatcher.durability import Way
from dispatcher.errors import NotFound, StoreUnavailable

T = TypeVar("T")

#: Connections to Redis that one process has at most.
_CONNECTIONS: Final = 64

#: Times that a command is repeated when its connection broke. Every script bears that: it knows its own call again,
#: or losing its answer costs no more than a little time. The library's default of more, with pauses, would hold up all.
_REPEATS: Final = 1

#: Seconds that an answer is waited for, twice where a call is repeated. Calls take milliseconds; what is longer on its
#: way goes over a connection that is dead.
_TIMEOUT: Final = 5.0

#: Calls that are on their way while the next one is prepared.
_ON_THEIR_WAY: Final = 1

#: What says nothing of a call but that it is to be made again.
_AGAIN: Final = (redis.ConnectionError, redis.TimeoutError, MasterDownError, NoScriptError, ReadOnlyError)


class JobStore:
    """Makes calls, one after the other."""

    def __init__(self, url: str, shown: str, timeout: float = _TIMEOUT, *, fsync: bool = False) -> None:
        """Connect lazily to `url`; `shown` is what errors call it; `timeout` is in seconds.

        With `fsync` a durable call returns once it is on the disk.
        """
        self._shown = shown
        self._fsync = fsync
        self._way: Way | None = None
        self.redis: redis.Redis
        if inmemory.is_memory(url):
            self.redis = inmemory.connect(url)
            return
        options = _connection(url, timeout)
        pool = redis.BlockingConnectionPool.from_url(url, retry=Retry(NoBackoff(), _REPEATS), **options)
        self.redis = redis.Redis.from_pool(pool)

    def run(self, call: Call[T]) -> T:
        """Make one call. Raises `StoreUnavailable`, and whatever the call itself raises."""
        with self.errors():
            waits = self._fsync and call.durable and self._durability() == Way.WAIT
            answer = self._durable(call) if waits else self._answer(call)
        return call.read(answer)

    def _answer(self, call: Call[T]) -> Any:
        try:
            return self.redis.evalsha(call.script.sha, 0, *call.arguments)
        except NoScriptError:
            return self.redis.eval(call.script.source, 0, *call.arguments)

    def run_each(self, calls: Iterable[Call[T]]) -> Generator[T]:
        """Make many calls in their order, and yield what each answers; the next one is prepared and sent meanwhile.

        None waits for the disk: a durable call that `run` makes afterwards waits for them, too. Raises as `run` does;
        then the next one may have been made as well. It holds a connection until it is read to its end or closed.
        """
        rest, sent = iter(calls), deque[Call[T]]()
        with self.errors():
            if self._fsync:
                # Where that cannot be promised nothing is written.
                self._durability()
            while True:
                connection: Any = self.redis.connection_pool.get_connection()
                with suppress(*_AGAIN):
                    yield from self._ahead(connection, rest, sent)
                    return
                # Nobody knows which of them were made: each bears it twice.
                while sent:
                    answer = self._answer(sent[0])
                    yield sent.popleft().read(answer)

    def _ahead(self, connection: Any, calls: Iterator[Call[T]], sent: deque[Call[T]]) -> Iterator[T]:
        """Make calls on one connection, and give it back; `sent` are those whose answers are still to come."""
        try:
            for call in calls:
                sent.append(call)
                # To look at its health meanwhile would take one of our answers for its own.
                connection.send_command("EVALSHA", call.script.sha, 0, *call.arguments, check_health=False)
                if len(sent) > _ON_THEIR_WAY:
                    yield _next(connection, sent)
            while sent:
                yield _next(connection, sent)
        finally:
            if sent:
                connection.disconnect()
            self.redis.connection_pool.release(connection)

    def _durable(self, call: Call[T]) -> Any:
        # On one connection: that is whose writes are waited for.
        with self.redis.pipeline(transaction=False) as pipe:
            try:
                pipe.evalsha(call.script.sha, 0, *call.arguments)
                answer, waited = durability.wait(pipe).execute()
            except NoScriptError:
                pipe.eval(call.script.source, 0, *call.arguments)
                answer, waited = durability.wait(pipe).execute()
        durability.confirm(waited, self._shown)
        return answer

    def sync(self) -> None:
        """Return once all that was written until now is on the disk, where that is asked for."""
        with self.errors():
            if not self._fsync or self._durability() != Way.WAIT:
                return
            with self.redis.pipeline(transaction=False) as pipe:
                pipe.set(durability.MARK, 1)
                _, waited = durability.wait(pipe).execute()
        durability.confirm(waited, self._shown)

    def _durability(self) -> Way:
        """Return how a write is known to be on the disk. Raises `ConfigurationError`."""
        if self._way is None:
            refusal, config = "", dict[Any, Any]()
            try:
                durability.wait(self.redis)
            except ResponseError as error:
                refusal = str(error)
                with suppress(ResponseError):
                    config = self.redis.config_get("append*")
            self._way = durability.way(refusal, config)
        return self._way

    def errors(self) -> Any:
        """Turn Redis' errors into `StoreUnavailable`, for commands that are no script."""
        return unavailable(self._shown)

    def now(self) -> int:
        """Return the moment, in milliseconds since 1970 on Redis' clock. Raises `StoreUnavailable`."""
        with self.errors():
            told: Any = self.redis.time()
        return milliseconds_of(told)

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()


class Caller(Protocol):
    """What makes calls from an event loop: `AsyncJobStore`, or a double of it."""

    async def run(self, call: Call[T]) -> T:
        """Make one call."""


class StoredIds(Sequence[str]):
    """The ids in a list in Redis, read a page at a time when they are looked at; slices are views of the same kind."""

    def __init__(self, store: JobStore, key: str, positions: range) -> None:
        """Show what stands at `positions` of the list `key`."""
        self._store = store
        self._key = key
        self._positions = positions

    def __len__(self) -> int:
        """Return how many were there when it was made, without asking Redis."""
        return len(self._positions)

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> StoredIds: ...
    def __getitem__(self, position: int | slice) -> str | StoredIds:
        """Read one id now, or narrow the view. Raises `NotFound` where the list is not kept any more."""
        if isinstance(position, slice):
            return StoredIds(self._store, self._key, self._positions[position])
        at = self._positions[position]
        for id_ in self._read(range(at, at + 1)):
            return id_
        raise NotFound("list", self._key)

    def __iter__(self) -> Iterator[str]:
        """Read all in order; what is not kept any more is left out."""
        most = max(1, MOST // abs(self._positions.step))
        for start in range(0, len(self), most):
            yield from self._read(self._positions[start : start + most])

    def _read(self, positions: range) -> list[str]:
        first, last = sorted((positions[0], positions[-1]))
        with self._store.errors():
            page: Any = self._store.redis.lrange(self._key, first, last)
        return [page[at - first].decode() for at in positions if at - first < len(page)]


class _Retry(AsyncRetry):
    """Repeats a call; where its connection fell silent, the idle ones did, too: nobody shall wait for each in turn."""

    def __init__(self) -> None:
        super().__init__(NoBackoff(), _REPEATS)
        self.drop_idle: Callable[[], Awaitable[None]]

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Retry:
        """Each connection has a copy; the pool is the same."""
        return copy.copy(self)

    async def call_with_retry(self, do: Any, fail: Any, *options: Any, **named: Any) -> Any:
        """Call `do`; on an error call `fail` with it, and once more `do`."""

        async def failed(error: Exception, *count: int) -> None:
            if isinstance(error, RedisTimeoutError):
                await self.drop_idle()
            await fail(error, *count)

        return await super().call_with_retry(do, failed, *options, **named)


def _packed_by_hiredis(connection: type[Any]) -> type[Any]:
    """Return a kind of connection that packs commands as redis-py's ordinary ones do.

    Its asynchronous ones (8.1) take a microsecond for each of the thousands of arguments of a call.
    """
    packer = HiredisRespSerializer()

    class Packed(connection):  # type: ignore[misc]  # mypy knows no base that is a value
        def pack_command(self, *args: Any) -> list[bytes]:
            packed: list[bytes] = packer.pack(*args)
            return packed

    return Packed


class AsyncJobStore:
    """Makes calls from one event loop, many at a time."""

    def __init__(
        self,
        url: str,
        shown: str,
        timeout: float = _TIMEOUT,
        *,
        fsync: bool = False,
        connected: Callable[[Any], Awaitable[None]] | None = None,
    ) -> None:
        """Connect lazily to `url`; `shown` is what errors call it; `timeout` is in seconds.

        With `fsync` a durable call returns once it is on the disk. `connected` greets the server on each new
        connection, before any call is made on it.
        """
        self._shown = shown
        self._fsync = fsync
        self._way: Way | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._next_sync: asyncio.Task[None] | None = None
        options = {**_connection(url, timeout), "redis_connect_func": connected}
        retry = _Retry()
        pool = redis.asyncio.BlockingConnectionPool.from_url(url, retry=retry, **options)
        pool.connection_class = _packed_by_hiredis(pool.connection_class)
        retry.drop_idle = partial(pool.disconnect, inuse_connections=False)
        self.redis = redis.asyncio.Redis.from_pool(pool)
        # The pool lets newcomers pass those who wait, for seconds where many do; in this queue nobody is passed.
        self._turn = asyncio.Semaphore(_CONNECTIONS // 2)

    async def run(self, call: Call[T]) -> T:
        """Make one call. Raises `StoreUnavailable`, and whatever the call itself raises."""
        async with self._turn:
            answer = await self._answer(call)
        if self._fsync and call.durable:
            await self._synced()
        return call.read(answer)

    async def _answer(self, call: Call[T]) -> Any:
        with unavailable(self._shown):
            try:
                return await self.redis.evalsha(call.script.sha, 0, *call.arguments)
            except NoScriptError:
                return await self.redis.eval(call.script.source, 0, *call.arguments)

    def errors(self) -> Any:
        """Turn Redis' errors into `StoreUnavailable`, for commands that are no script."""
        return unavailable(self._shown)

    async def now(self) -> int:
        """Return the moment, in milliseconds since 1970 on Redis' clock. Raises `StoreUnavailable`."""
        with self.errors():
            return milliseconds_of(await self.redis.time())

    async def durability(self) -> Way | None:
        """Return how a write is known to be on the disk, None where that is not asked for.

        Raises `ConfigurationError` where this Redis cannot promise it.
        """
        if self._fsync and self._way is None:
            refusal, config = "", dict[Any, Any]()
            with unavailable(self._shown):
                try:
                    await durability.wait(self.redis)
                except ResponseError as error:
                    refusal = str(error)
                    with suppress(ResponseError):
                        config = await self.redis.config_get("append*")
            self._way = durability.way(refusal, config)
        return self._way

    async def _synced(self) -> None:
        """Return once all is on the disk that was written until now; those who come meanwhile share the next wait."""
        if await self.durability() != Way.WAIT:
            return
        if self._next_sync is None:
            self._next_sync = asyncio.create_task(self._sync(self._syncing))
        await asyncio.shield(self._next_sync)

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._syncing, self._next_sync = self._next_sync, None
        with unavailable(self._shown):
            async with self.redis.pipeline(transaction=False) as pipe:
                # What others wrote before this mark is on the disk when it is.
                pipe.set(durability.MARK, 1)
                durability.wait(pipe)
                _, waited = await pipe.execute()
        durability.confirm(waited, self._shown)

    async def close(self) -> None:
        """Close the connections."""
        await self.redis.aclose()


def _connection(url: str, timeout: float) -> dict[str, Any]:
    """Return what keeps a dead connection from being waited on for ever; `timeout` is in seconds.

    Who finds all connections busy waits for one, which is soon free: a call takes a millisecond.
    """
    return {
        "max_connections": _CONNECTIONS,
        "timeout": timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, 5),
        # Nothing can be lost on the way to a socket file.
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        "health_check_interval": 30,
        # It is a replica by now: what its address leads to may have changed, too.
        "retry_on_error": [MasterDownError, ReadOnlyError],
    }


@contextmanager
def unavailable(shown: str) -> Iterator[None]:
    """Turn Redis' errors into `StoreUnavailable`; `shown` is its address without password."""
    try:
        yield
    except ResponseError as error:
        # Out of memory, read-only, a bug of ours: Redis is there and says why not, without any value of ours.
        raise StoreUnavailable(f"Redis at {shown} refused: {str(error).split(' script: ')[0][:200]}") from None
    except (RedisError, OSError) as error:
        raise StoreUnavailable(
            f"Redis at {shown} did not answer ({error.__class__.__name__}); "
            "is it running, and is DISPATCHER_REDIS_URL right?"
        ) from None


def milliseconds_of(told: tuple[int, int]) -> int:
    """Return what `TIME` told, seconds and microseconds since 1970, in milliseconds."""
    seconds, microseconds = told
    return seconds * 1000 + microseconds // 1000


def _next(connection: Any, sent: deque[Call[T]]) -> T:
    answer = connection.read_response()
    return sent.popleft().read(answer)
