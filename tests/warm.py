"""Processes that start warm: forked from one that has loaded everything, a worker is there in a quarter of the time.

Each is a whole process of its own, in a process group of its own, that may be killed like any other. What it runs was
loaded before it began, so what is tested about starting itself belongs to `tests.support.Process`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

from tests.support import WATCH, Worker, clean_environment

#: What takes the time. `workers.celery` is not among it: loaded, it has read its settings. Each process loads the test
#: runner again, as it is this one's main module.
_LOADED: Final = [
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "kombu.transport.redis",
    "pytest",
    "tornado.options",
    "workers.failpoints",
    "workers.providers.clubtexting",
    "workers.providers.mobtexting",
    "workers.providers.textgoto",
    "workers.providers.thetexting",
    "workers.receiver",
    "workers.tasks",
]

_FORKSERVER: Final = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload(_LOADED)


class WarmProcess(Worker):
    """A function of a module in a process of its own, its output in a file."""

    def __init__(
        self, run: Callable[[], object], environment: Mapping[str, str], folder: Path, name: str = "worker"
    ) -> None:
        """Call `run` in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / f"{name}.log"
        self.seen = 0
        self.log.touch()
        whole = {**clean_environment(), **environment}
        process = _FORKSERVER.Process(target=_child, args=(run, whole, str(folder), str(self.log)), name=name)
        process.start()
        self.popen: Any = _Popen(process)
        WATCH.group(self.popen.pid, name)
        WATCH.processes.append(self)

    def kill(self) -> None:
        """End the whole group as a crash would, also where there is none yet."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.kill()
        self.popen.wait()


def module(arguments: Sequence[str]) -> Callable[[], object]:
    """Return what runs `python -m ARGUMENTS`."""
    return partial(_as_main, list(arguments))


def _as_main(arguments: list[str]) -> None:
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _child(run: Callable[[], object], environment: dict[str, str], folder: str, log: str) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # As the log of any other worker has it.
    multiprocessing.current_process().name = "MainProcess"
    sys.path[:0] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is a text file there
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    run()


def _end_with_the_tests() -> None:
    """Leave nothing behind where the tests are killed themselves."""
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.killpg(0, signal.SIGKILL)


class _Popen:
    """A process of multiprocessing's as one of subprocess'."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
