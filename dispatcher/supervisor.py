"""Processes kept running together: one log, restarted when one dies, stopped whole.

`dispatcher up` runs on it; it knows nothing of what it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Final

import msgspec

#: Seconds before a process that died is started again: the first time, and at most.
_BACKOFF: Final = (1.0, 30.0)

#: Seconds that a process must have lived for its next death to count as the first.
_STEADY: Final = 30.0

#: Bytes of a line after which it is told though it has not ended.
_LINE: Final = 65536

#: Linux' prctl(2): the signal that a process gets when its parent dies.
_SET_PARENT_DEATH_SIGNAL: Final = 1

_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A command that is to be running."""

    name: str
    command: list[str]
    environment: Mapping[str, str] = {}
    #: Returns once the process with this id can be used by those started after it; raises where it never will, which
    #: stops everything.
    ready: Callable[[int], Awaitable[None]] | None = None
    #: Others stand on it: it is stopped when they are gone.
    foundation: bool = False
    #: Seconds it has to stop.
    patience: float = 10
    #: File descriptors it gets beside the standard ones.
    inherits: tuple[int, ...] = ()


class Supervisor:
    """Runs programs until told to stop."""

    def __init__(self, programs: Iterable[Program], tell: Callable[[str, str], None]) -> None:
        """`tell(name, line)` gets each line of output, and what happened to a program."""
        self._programs = list(programs)
        self._tell = tell
        self._stopping = asyncio.Event()
        self._kept: list[_Kept] = []

    def stop(self) -> None:
        """Begin to stop; asked again, kill what is still there. `run` returns when all have gone."""
        if self._stopping.is_set():
            for one in self._kept:
                one.abort()
        self._stopping.set()

    async def run(self) -> None:
        """Start all in their order and keep them running until told to stop. Raises what a `ready` raises."""
        try:
            for program in self._programs:
                one = _Kept(program, self._tell)
                self._kept.append(one)
                if await self._unless_stopped(one.started()):
                    break
            await self._stopping.wait()
        finally:
            for foundations in (False, True):
                chosen = [one.stop() for one in self._kept if one.program.foundation == foundations]
                await asyncio.gather(*chosen)

    async def _unless_stopped(self, work: Awaitable[None]) -> bool:
        """Await `work`, but for no longer than until a stop; answer whether there was one."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            working.result()
        else:
            working.cancel()
        return self._stopping.is_set()


class _Kept:
    """One program and its process of the moment."""

    def __init__(self, program: Program, tell: Callable[[str, str], None]) -> None:
        self.program = program
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._up = asyncio.Event()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._keep())

    async def started(self) -> None:
        """Return once its first process can be used by others. Raises where it never will."""
        up = asyncio.ensure_future(self._up.wait())
        await asyncio.wait({up, self._task}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Ask its process to stop, and end it when it has not after its patience."""
        self._stop.set()
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        await asyncio.wait({self._task}, timeout=self.program.patience)
        self.kill()
        # What went wrong was raised by `started`.
        await asyncio.gather(self._task, return_exceptions=True)

    def abort(self) -> None:
        """End its process at once, and start no other."""
        self._stop.set()
        self.kill()

    def kill(self) -> None:
        """End its process and what that started, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _keep(self) -> None:
        deaths = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._process = process = await self._start()
            except OSError as error:
                deaths += 1
                await self._pause(f"cannot be started: {error.strerror}", deaths)
                continue
            told = asyncio.create_task(self._follow(process))
            if self._stop.is_set():
                # Told to stop while it was being started.
                process.terminate()
            try:
                if not self._up.is_set():
                    await self._become_ready(process)
                code = await process.wait()
            finally:
                # What it started goes with it.
                self.kill()
                await process.wait()
                _, open_still = await asyncio.wait({told}, timeout=1)
                for one in open_still:
                    one.cancel()
            if self._stop.is_set():
                return
            deaths = 1 if time.monotonic() - began > _STEADY else deaths + 1
            await self._pause(f"ended with {_ending(code)}", deaths)

    async def _pause(self, why: str, deaths: int) -> None:
        """Say why, and wait longer each time."""
        pause = min(_BACKOFF[1], _BACKOFF[0] * 2 ** (deaths - 1))
        self._tell(self.program.name, f"{why}; starts again in {pause:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)

    async def _become_ready(self, process: asyncio.subprocess.Process) -> None:
        if self.program.ready is not None:
            ready = asyncio.ensure_future(self.program.ready(process.pid))
            ended = asyncio.ensure_future(process.wait())
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            # Of a process that ended before, it may still have to say why.
            await asyncio.wait({ready}, timeout=1)
            if ready.done():
                ready.result()
            # Where it died without a word, the others do not wait for its next life.
            ready.cancel()
        self._up.set()

    async def _start(self) -> asyncio.subprocess.Process:
        # A session of its own: Ctrl-C reaches us alone, and what it starts can be ended with it.
        return await asyncio.create_subprocess_exec(
            *self.program.command,
            env={**os.environ, **self.program.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            pass_fds=self.program.inherits,
            preexec_fn=_die_with_parent if _libc else None,
        )

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        async for line in _lines(process.stdout):
            # Whatever becomes of a line: unread, its process would wait for ever.
            with contextlib.suppress(Exception):
                self._tell(self.program.name, line)


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[str]:
    """Yield the lines of a stream until its end."""
    rest = b""
    while stream is not None and (piece := await stream.read(_LINE)):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _LINE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _die_with_parent() -> None:
    """Have this process told to stop when its parent is killed: it would run on without anybody knowing."""
    if _libc is not None:
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
