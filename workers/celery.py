"""The workers' Celery app: `celery -A workers worker -Q textgoto`.

Everything that matters is in its configuration, so that the bare command behaves like `dispatcher worker textgoto`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from celery.signals import celeryd_after_setup, celeryd_init, worker_ready, worker_shutdown, worker_shutting_down

from dispatcher.errors import ConfigurationError, DispatcherError
from dispatcher.jobs import Lane
from dispatcher.queues import EXECUTE, celery_app, is_high, provider_of, queue_name
from dispatcher.settings import load
from workers.adapters import adapters, configured
from workers.tasks import Runtime

#: Jobs or chunks that one worker process works on at once, unless an account says its own `CONCURRENCY`.
_CONCURRENCY = 64


def _refuse(error: DispatcherError) -> NoReturn:
    # Celery shows a traceback of what fails here, and swallows what a signal's receiver raises; but not this.
    sys.stderr.write(f"dispatcher: {error}\n")
    raise SystemExit(1)


try:
    settings = load()
    app = celery_app(settings, configured(settings))
except ConfigurationError as error:
    _refuse(error)

#: One runtime a process: a pool that forks must not share its parent's event loop and sockets.
_runtimes: dict[int, Runtime] = {}


def runtime() -> Runtime:
    """Return this process' runtime, made at its first use."""
    pid = os.getpid()
    if pid not in _runtimes:
        _runtimes[pid] = Runtime(app, settings, _served(app.amqp.queues.consume_from))
    return _runtimes[pid]


@app.task(name=EXECUTE, bind=True)
def execute(self: Any, ids: list[str]) -> str:
    """Execute jobs by their ids; the result is a short word for Flower, the truth is in the job store."""
    here = runtime()
    queue = (self.request.delivery_info or {}).get("routing_key") or ""
    return here.run(here.execution.execute(ids, queue))


@celeryd_init.connect(sender=None, weak=False)
def check_credentials(conf: Any = None, options: dict[str, Any] | None = None, **_: Any) -> None:
    """Refuse to start without the credentials of what is to be served, naming the setting."""
    asked = (options or {}).get("queues") or ()
    names = _served(asked.split(",") if isinstance(asked, str) else asked) or configured(settings)
    if not names:
        _refuse(
            ConfigurationError(
                "no account is configured; set DISPATCHER_PROVIDERS__<NAME>__..., e.g. ...__TEXTGOTO__UID"
            )
        )
    try:
        wanted = adapters(settings, names)
    except ConfigurationError as error:
        _refuse(error)
    slots = [int(one.settings["concurrency"]) for one in wanted.values() if "concurrency" in one.settings]
    conf.worker_concurrency = max(slots, default=_CONCURRENCY)


@celeryd_after_setup.connect(weak=False)
def codes_first(instance: Any = None, **_: Any) -> None:
    """Consume each account's high queue too, though only the other was named, and all of these before any other."""
    asked = list(instance.app.amqp.queues.consume_from)
    high = [queue_name(name, Lane.HIGH) for name in _served(asked)]
    instance.app.amqp.queues.select([*high, *(queue for queue in asked if not is_high(queue))])


@worker_ready.connect(weak=False)
def begin(**_: Any) -> None:
    """Say what is served here, and look after what is due."""
    try:
        here = runtime()
        here.announce()
        here.start_clock()
    except DispatcherError as error:
        _refuse(error)
    except Exception as error:
        # A worker that consumes and cannot work would lose every message it takes.
        sys.stderr.write(f"dispatcher: the worker cannot start: {error.__class__.__name__}\n")
        raise SystemExit(1) from error


@worker_shutting_down.connect(weak=False)
def hand_back(**_: Any) -> None:
    """Claim nothing any more: to stop takes no longer than what is on the wire."""
    mine = _runtimes.get(os.getpid())
    if mine is not None:
        mine.execution.stop()


@worker_shutdown.connect(weak=False)
def end(**_: Any) -> None:
    """Close what this process opened."""
    mine = _runtimes.pop(os.getpid(), None)
    if mine is not None:
        mine.stop()


def _served(queues: Any) -> list[str]:
    """Return the accounts whose queues these are, each once."""
    return list(dict.fromkeys(provider_of(queue.strip()) for queue in queues))
