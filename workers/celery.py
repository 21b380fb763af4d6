"""The workers' Celery app: `celery -A workers worker -Q textgoto`, and `celery -A workers flower`.

Everything that matters is in its configuration and in the signals below, so that the bare commands behave like
`dispatcher worker textgoto` and like what `dispatcher up` starts.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from ipaddress import ip_address
from typing import Any, NoReturn

from celery.exceptions import CPendingDeprecationWarning, InvalidTaskError
from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    import_modules,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker.request import Request
from tornado.options import options as flower

from dispatcher.errors import ConfigurationError, DispatcherError
from dispatcher.jobs import Lane
from dispatcher.notices import NOTIFY
from dispatcher.queues import (
    BEAT,
    EXECUTE,
    RECEIVE,
    TELL,
    beat_queue,
    celery_app,
    declared,
    is_beat,
    is_high,
    is_receipts,
    node_name,
    provider_of,
    queue_name,
    receipts_queue,
)
from dispatcher.settings import load
from workers import failpoints
from workers.adapters import adapters, configured
from workers.tasks import Runtime

log = logging.getLogger("dispatcher.worker")

#: Jobs or chunks that one worker process works on at once, unless an account says its own `CONCURRENCY`.
_CONCURRENCY = 64

#: Endpoints that one worker process tells at once: one that hangs takes its place until it is paused.
_ENDPOINTS = 128


#: What Flower does unless told otherwise. Left alone it listens everywhere, hides the words that tasks end with, and
#: has a button that makes a job wait for ever.
_FLOWER = {
    "FLOWER_ADDRESS": "127.0.0.1",
    "FLOWER_READ_ONLY": "true",
    "FLOWER_TASKS_COLUMNS": "received,uuid,result,state,worker",
}


def _refuse(error: DispatcherError) -> NoReturn:
    # Celery shows a traceback of what fails here, and swallows what a signal's receiver raises; but not this.
    sys.stderr.write(f"dispatcher: {error}\n")
    raise SystemExit(1)


try:
    settings = load()
    settings.require_server("a worker")
    app = celery_app(settings, configured(settings))
    app.conf.task_queues.append(declared(NOTIFY))
    points = failpoints.read(os.environ.get(failpoints.VARIABLE, ""), sandbox=settings.sandbox)
except ConfigurationError as error:
    _refuse(error)

for _name, _value in _FLOWER.items():
    os.environ.setdefault(_name, _value)

#: What a message ends with that says nothing to us.
_UNREAD = "unread"

#: One runtime a process: a pool that forks must not share its parent's event loop and sockets.
_runtimes: dict[int, Runtime] = {}


def runtime() -> Runtime:
    """Return this process' runtime, made at its first use."""
    pid = os.getpid()
    if pid not in _runtimes:
        queues = app.amqp.queues.consume_from
        _runtimes[pid] = Runtime(app, settings, _served(queues), points, notifies=NOTIFY in queues)
        _collect_less_often()
    return _runtimes[pid]


def _collect_less_often() -> None:
    """Look for garbage in cycles a thirtieth as often, and never among what is there from the start.

    Left alone, the collector takes a quarter of a busy worker's time: some thousand requests on their way are some
    hundred thousand objects that it walks through again and again, and there are hardly any cycles among them.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


class Received(Request):
    """A message with a task's name on it, as Celery reads it.

    Celery (5.7) takes for granted that its body is a call, ends over any other, and puts it back for the next worker.
    """

    def __init__(self, message: Any, **about: Any) -> None:
        """Refuse what is no call, as Celery refuses other messages that it cannot read: with a line in the log."""
        try:
            super().__init__(message, **about)
        except (TypeError, ValueError) as error:
            raise InvalidTaskError(f"its body is no call of a task: {error.__class__.__name__}") from None


@app.task(name=EXECUTE, bind=True, Request=Received if points is None else points.request(Received))
def execute(self: Any, ids: Any = None, *_later: Any, **_named: Any) -> str:
    """Execute jobs by their ids; the result is a short word for Flower, the truth is in the job store."""
    known = _known(ids)
    here = runtime()
    queue = (self.request.delivery_info or {}).get("routing_key") or ""
    return here.run(here.execution.execute(known, queue)) if known else _UNREAD


@app.task(name=RECEIVE, Request=Received)
def receive(ids: Any = None, *_later: Any, **_named: Any) -> str:
    """Read what providers told us, by the callbacks' ids; the result is a short word for Flower."""
    known = _known(ids)
    here = runtime()
    return here.run(here.reader.read(known)) if known else _UNREAD


@app.task(name=TELL, Request=Received)
def notify(ids: Any = None, *_later: Any, **_named: Any) -> str:
    """Tell consumers what is due, by the ids of their endpoints; the result is a short word for Flower."""
    known = _known(ids)
    here = runtime()
    return here.run(here.notify(known)) if known else _UNREAD


def _known(ids: Any) -> list[str]:
    """Return the ids in a message that a later release may have written.

    What else it says is left out, since a message only says where to look. What is not in it is found by the clock.
    """
    known = [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []
    if not known:
        log.warning("a message has no ids that this release can read; its jobs are found by the clock")
    return known


@app.task(name=BEAT, bind=True, send_events=False)
def beat(self: Any) -> None:
    """Answer that this worker consumes. Flower is not told: it would see nothing else."""
    runtime().answer(self.request.hostname)


@import_modules.connect(sender=app, weak=False)
def guard_flower(**_: Any) -> None:
    """Refuse to let Flower listen anywhere but on the loopback without a password.

    It sends this signal once its options are read; a worker sends it too, and has none of them.
    """
    if not {"basic_auth", "auth", "address", "unix_socket"} <= set(flower.as_dict()):
        return
    flower.address = flower.address or _FLOWER["FLOWER_ADDRESS"]
    # Set to nothing, it would let in nobody; half of it, whoever gives the half.
    flower.basic_auth = [one for one in flower.basic_auth or [] if one]
    if not all(all(one.partition(":")) for one in flower.basic_auth):
        _refuse(ConfigurationError("FLOWER_BASIC_AUTH must be name:password; several are separated by commas"))
    if not (flower.basic_auth or flower.auth or flower.unix_socket or _is_loopback(flower.address)):
        _refuse(
            ConfigurationError(
                f"Flower would listen at {flower.address} for everyone; set "
                "FLOWER_BASIC_AUTH=name:password, or leave --address out to have it on this machine only"
            )
        )


def _is_loopback(address: str) -> bool:
    try:
        return address == "localhost" or ip_address(address).is_loopback
    except ValueError:
        # A name may mean any address, and another tomorrow.
        return False


@celeryd_init.connect(sender=None, weak=False)
def check_credentials(instance: Any = None, conf: Any = None, options: dict[str, Any] | None = None, **_: Any) -> None:
    """Refuse to start without the credentials of what is to be served, naming the setting; else take a name."""
    told = (options or {}).get("queues") or ()
    asked = [one.strip() for one in (told.split(",") if isinstance(told, str) else told)]
    # Telling consumers needs no account.
    names, notifies = _served(asked) if asked else configured(settings), not asked or NOTIFY in asked
    if not (names or NOTIFY in asked):
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
    if not names or not slots:
        slots.append(_CONCURRENCY)
    conf.worker_concurrency = max(*slots, _ENDPOINTS) if notifies else max(slots)
    name, _at, host = instance.hostname.partition("@")
    if name == "celery":
        # Celery's own default is one name for all workers of a machine.
        instance.hostname = node_name([*names, *([NOTIFY] if NOTIFY in asked else [])], os.getpid(), host)


@worker_init.connect(weak=False)
def keep_to_itself(sender: Any = None, **_: Any) -> None:
    """Leave out what makes workers talk to each other: they share nothing but Redis, and start a second sooner."""
    sender.options.update(without_gossip=True, without_mingle=True)


@celeryd_after_setup.connect(weak=False)
def codes_first(instance: Any = None, **_: Any) -> None:
    """Consume each account's high queue too, though only the other was named, and all of these before any other.

    Between them stand the accounts' callbacks: behind a backlog a person's STOP would wait until it was sent, and
    receipts come no faster than texts go.

    In front of them all stands the worker's own queue, with one message every few seconds, so that a backlog does not
    make it look dead.
    """
    queues = instance.app.amqp.queues
    asked = list(queues.consume_from)
    high = [queue_name(name, Lane.HIGH) for name in _served(asked)]
    own = beat_queue(instance.hostname)
    queues.add(own)
    receipts = [receipts_queue(name) for name in _served(asked)]
    usual = (queue for queue in asked if not (is_high(queue) or is_receipts(queue)))
    queues.select([own.name, *high, *receipts, *usual])
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(_no_beat)


def _no_beat(record: logging.LogRecord) -> bool:
    """Keep what is no news out of the log: a beat that was received and answered."""
    return record.levelno > logging.INFO or getattr(record, "data", {}).get("name") != BEAT


@worker_ready.connect(weak=False)
def begin(sender: Any = None, **_: Any) -> None:
    """Say what is served here, look after what is due, and beat."""
    try:
        if points is not None:
            log.warning("this worker dies at %s", points)
        # Celery advises, in ten lines at every reconnect, to cancel what is on the wire: that would make it unknown.
        warnings.filterwarnings("ignore", "\nIn Celery 5.1 we introduced", CPendingDeprecationWarning)
        here = runtime()
        here.announce()
        slots = sender.pool.num_processes
        here.start(sender.hostname, slots)
        log.info("serving %s with %d slots", ", ".join(here.serves), slots)
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
        mine.hand_back()


@worker_shutdown.connect(weak=False)
def end(**_: Any) -> None:
    """Close what this process opened."""
    mine = _runtimes.pop(os.getpid(), None)
    if mine is not None:
        mine.stop()


def _served(queues: Any) -> list[str]:
    """Return the accounts whose queues these are, each once."""
    of_accounts = (queue.strip() for queue in queues if not is_beat(queue) and queue.strip() != NOTIFY)
    return list(dict.fromkeys(provider_of(queue) for queue in of_accounts))
