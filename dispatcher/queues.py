"""The vocabulary that enqueuing and executing share: queue and task names, and the Celery configuration."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache, partial
from ssl import CERT_REQUIRED
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from celery import Celery
from celery.app.amqp import AMQP
from celery.app.control import Control
from kombu import Connection, Exchange, Queue
from kombu.connection import ConnectionPool, PooledConnection
from kombu.exceptions import OperationalError
from kombu.pidbox import Mailbox
from kombu.transport import redis

from dispatcher import inmemory
from dispatcher.jobs import Lane
from dispatcher.notices import NOTIFY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dispatcher.settings import Settings

#: The task that executes jobs: its one argument is a list of job ids.
EXECUTE: Final = "dispatcher.execute"

#: The task that reads what providers told us: its one argument is a list of callbacks' ids.
RECEIVE: Final = "dispatcher.receive"

#: The task that tells consumers: its one argument is a list of endpoints' ids.
TELL: Final = "dispatcher.notify"

#: The task that a worker asks of itself, to see that it still consumes.
BEAT: Final = "dispatcher.beat"

#: Seconds that a beat nobody took lies on the broker.
_BEAT_LIVES: Final = 60

#: Seconds between two tries to reach the broker, at most.
_RECONNECT: Final = 2.0

#: How often and how soon a message is published again that could not be.
_RETRY: Final[dict[str, Any]] = {"max_retries": 1, "interval_start": 0, "interval_max": 0.5}

#: Jobs that one message carries at most.
CHUNK: Final = 100

#: Characters of a message's ids that task events tell.
_SHOWN: Final = 1024

_HIGH: Final = ".high"
_RECEIPTS: Final = ".receipts"

#: What every key of the broker begins with, where that is Redis.
KEY_PREFIX: Final = "disp:"


def queue_name(provider: str, lane: Lane) -> str:
    """Return `NAME.high` or `NAME`."""
    return f"{provider}{_HIGH}" if lane == Lane.HIGH else provider


def both_queues(provider: str) -> list[str]:
    """Return the provider's two queues, the one to be emptied first in front."""
    return [queue_name(provider, Lane.HIGH), queue_name(provider, Lane.NORMAL)]


def receipts_queue(provider: str) -> str:
    """Return `NAME.receipts`: callbacks of the account, to be read by the workers that serve it."""
    return f"{provider}{_RECEIPTS}"


def is_receipts(queue: str) -> bool:
    """Say whether callbacks lie in a queue, not jobs."""
    return queue.endswith(_RECEIPTS)


def is_high(queue: str) -> bool:
    """Say whether a queue is an account's high one."""
    return queue.endswith(_HIGH)


def provider_of(queue: str) -> str:
    """Return the account that a queue belongs to."""
    return queue.removesuffix(_HIGH).removesuffix(_RECEIPTS)


def declared(name: str) -> Queue:
    """Return the queue as it is declared: direct, on the default exchange, so that no binding can be missing."""
    return Queue(name, Exchange(""), routing_key=name)


@cache
def _queue(name: str) -> Queue:
    """Return a queue to publish to; there are two for each account."""
    return declared(name)


def node_name(accounts: Iterable[str], process: int, host: str) -> str:
    """Return what a worker is called in logs, in Flower and by `dispatcher status`."""
    return f"{'+'.join(accounts)}-{process}@{host}"


def beat_queue(node: str) -> Queue:
    """Return the queue that one worker alone consumes."""
    return Queue(f"{node}.beat", Exchange(""), routing_key=f"{node}.beat", expires=_BEAT_LIVES)


def is_beat(queue: str) -> bool:
    """Say whether a queue is one worker's own; no account's name has an @."""
    return "@" in queue


def depth(app: Celery, queue: str) -> int:
    """Return how many messages lie in a queue. Raises what kombu raises."""
    with app.connection_for_read() as connection:
        try:
            # Not passively: with a key prefix kombu (5.7) finds no queue on Redis then, whatever lies in it.
            told: Any = declared(queue)(connection.default_channel).queue_declare()
        except (*connection.connection_errors, *connection.channel_errors) as error:
            raise OperationalError(str(error)) from error
        return int(told.message_count)


class _RedisChannel(redis.Channel):
    """A channel on Redis with one client to publish by; kombu (5.7) makes one a message, for a quarter of its cost."""

    _publisher: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu passes it so
        make: Any = super()._create_client  # type: ignore[misc]  # the stubs leave it out
        if asynchronous:
            return make(asynchronous)
        if self._publisher is None:
            self._publisher = make()
        return self._publisher


class _RedisTransport(redis.Transport):
    Channel = _RedisChannel


class _Publishers(ConnectionPool):
    """The connections that are published on."""

    def new(self) -> Any:
        about = dict(self.connection._info(resolve=False))  # noqa: SLF001 - as the method does that this replaces
        if self.connection.get_transport_cls() is redis.Transport:
            about["transport"] = _RedisTransport
        return PooledConnection(self, **about)


class _Connection(Connection):
    """A connection to the broker that is tried again soon, however long the broker was away.

    Left alone, kombu waits 2, 4, 6 ... 30 s between two tries, and work is resumed that much later.
    """

    def Pool(self, limit: int | None = None, **kwargs: Any) -> _Publishers:  # noqa: N802 - kombu calls it so
        return _Publishers(self, limit, **kwargs)

    def _ensure_connection(  # type: ignore[override]  # the stubs list every option
        self,
        errback: Any = None,
        max_retries: int | None = None,
        interval_start: float = 0.5,
        interval_step: float = 0.5,
        interval_max: float = _RECONNECT,
        **options: Any,
    ) -> Any:
        if max_retries is not None:
            # Whoever does not try for ever does not wait for each try, either: a broker may take a connection and hang.
            options.setdefault("timeout", self.connect_timeout)
        return super()._ensure_connection(
            errback,
            max_retries,
            interval_start,  # type: ignore[arg-type]  # the stubs know whole seconds only
            interval_step,  # type: ignore[arg-type]
            min(interval_max, _RECONNECT),  # type: ignore[arg-type]
            **options,
        )


class _Queues(AMQP):
    """Celery's queues, left on the exchange they are declared with.

    Celery would bind each to an exchange of its own, and kombu keep that binding for ever, of every worker's own queue.
    """

    Connection = _Connection

    @property
    def default_exchange(self) -> Exchange:
        return Exchange("")


class _Mailbox(Mailbox):
    """Remote control that gives up what it cannot say.

    Left alone, a worker that answers Flower tries for ever while its broker is away, in the thread that hears what it
    is told: it could not even be stopped.
    """

    @contextmanager
    def producer_or_acquire(self, producer: Any = None, channel: Any = None) -> Iterator[Any]:
        with super().producer_or_acquire(producer, channel) as one:
            yield SimpleNamespace(publish=partial(one.publish, retry_policy=_RETRY))


class _Control(Control):
    Mailbox = _Mailbox


class _App(Celery):
    """A Celery app that keeps to its own broker.

    Celery lets `CELERY_BROKER_URL` in the environment win over any configuration: an application's own setting would
    take our messages to the application's broker.
    """

    #: Where nothing has to be declared before it is published to.
    on_redis = False
    #: The URL of a store within this process, where nothing is published at all.
    memory = ""

    #: The job record is the result; a `CELERY_RESULT_BACKEND` in the environment is the application's.
    backend_cls = "disabled"
    control_cls = _Control  # type: ignore[assignment]  # the stubs know a path only
    amqp_cls = _Queues  # type: ignore[assignment]  # the stubs know a path only

    def connection_for_write(self, url: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return super().connection_for_write(url or self.conf["dispatcher_secret_broker_url"], *args, **kwargs)

    def connection_for_read(self, url: str | None = None, *args: Any, **kwargs: Any) -> Any:
        return super().connection_for_read(url or self.conf["dispatcher_secret_broker_url"], *args, **kwargs)


def celery_app(settings: Settings, providers: Iterable[str] = ()) -> Celery:
    """Return a Celery app that never becomes anyone's default.

    `providers` are the accounts whose queues may be consumed; a producer needs none.
    """
    # No fixups: Celery's for Django makes the first app everyone's default. The loader: `CELERY_LOADER` is not for us.
    app = _App("dispatcher", loader="app", fixups=[], set_as_current=False)
    app.conf.update(configuration(settings))
    app.on_redis = is_redis(settings.broker)
    app.memory = settings.redis_url if settings.in_memory else ""
    app.conf.task_queues = [
        declared(name) for provider in providers for name in (*both_queues(provider), receipts_queue(provider))
    ]
    return app


def publish(app: Celery, queue: str, ids: Sequence[str]) -> None:
    """Tell the workers of `queue` to look at jobs, many in one message; a single job's task id is its job id.

    Of a queue of callbacks they are callbacks, of that of notices endpoints.

    Raises what kombu raises. That loses nothing: the clock finds jobs whose message never came.
    """
    if isinstance(app, _App) and app.memory:
        inmemory.tell(app.memory, queue, ids)
        return
    task = TELL if queue == NOTIFY else RECEIVE if is_receipts(queue) else EXECUTE
    for start in range(0, len(ids), CHUNK):
        chunk = list(ids[start : start + CHUNK])
        task_id = chunk[0] if len(chunk) == 1 and task != TELL else None
        # What Flower shows of it: Celery would look at each id and tell as much.
        told = repr((chunk,))[:_SHOWN]
        # A queue as a value: a producer need not know all the accounts beforehand. On Redis it is there as soon as
        # something is in it.
        to, on_redis = _queue(queue), isinstance(app, _App) and app.on_redis
        app.send_task(
            task,
            args=(chunk,),
            task_id=task_id,
            queue=to,  # type: ignore[arg-type]  # the stubs know names only
            declare=[] if on_redis else [to],
            argsrepr=told,
        )


def is_redis(broker: str) -> bool:
    """Say whether a broker's URL leads to a Redis."""
    return broker.startswith(("redis", "rediss", "unix", "valkey"))


def configuration(settings: Settings) -> dict[str, Any]:
    """Return the options that keep Celery on Redis from losing, repeating and stalling work; each has its reason."""
    return {
        "broker_url": settings.broker,
        # Celery hides the password in its own settings' values, and all of what is called a secret; Flower and
        # `celery inspect conf` show the rest.
        "dispatcher_secret_broker_url": settings.broker,
        # The job record is the result; nothing may grow or leak in a second place.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # Where the broker can keep a message until its outcome is written, it shall: a claim stops a second execution.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        # A small blast radius: what a killed worker held is what it was doing, and as much again.
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": False,
        "worker_enable_prefetch_count_reduction": False,
        # Killing a send in the middle makes an unknown; a broker that is away for a moment is no reason to.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_pool": "threads",
        # Flower is told of many tasks at once, a tenth of a second later.
        "worker_consumer": "workers.consumer:Consumer",
        # No task here uses an ETA; the cap keeps a foreign one from filling the worker.
        "worker_eta_task_limit": 100,
        "worker_soft_shutdown_timeout": settings.deadline + 5,
        "worker_enable_soft_shutdown_on_idle": True,
        "worker_hijack_root_logger": False,
        # Flower needs both; messages and results carry ids and short words only.
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        # Where the broker can tell, as RabbitMQ can: a silent connection is noticed after twice as many seconds.
        "broker_heartbeat": 10,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Refused because it is full, or a replica by now, a worker waits until that is over, as it does for one that is
        # away; Celery would end it.
        "broker_channel_error_retry": True,
        "broker_use_ssl": _tls(settings.broker),
        "broker_pool_acquire_timeout": 5,
        "task_publish_retry_policy": _RETRY,
        "broker_transport_options": _transport_options(settings),
        # JSON only: with pickle, whoever can write to the broker can run code here.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # A typo in a queue's name is an error, not a silent backlog.
        "task_create_missing_queues": False,
        "task_default_queue": "dispatcher",
        "worker_proc_alive_timeout": 30,
    }


def _tls(url: str) -> dict[str, Any] | None:
    """Have a broker prove who it is; what the URL says of its certificate goes before.

    Left alone, kombu (5.7) tells its password to any server of a rediss:// URL that says nothing of certificates, and
    to any with a certificate of an amqps:// one.
    """
    if url.startswith("rediss://"):
        return {"ssl_cert_reqs": CERT_REQUIRED}
    # The name, too, which kombu reads from the URL.
    return {"cert_reqs": CERT_REQUIRED, "server_hostname": None} if url.startswith("amqps://") else None


def _transport_options(settings: Settings) -> dict[str, Any]:
    if settings.broker.startswith("amqp"):
        # A broker that takes a connection and answers nothing must not keep the clock or an application for ever.
        return {"read_timeout": 5, "write_timeout": 5}
    if not is_redis(settings.broker):
        return {}
    return {
        # Our messages and an application's own in one Redis: neither takes the other's for its own.
        "global_keyprefix": KEY_PREFIX,
        # The transport keeps what is not acknowledged in lists of its own, loses some of it all the same, gives the
        # rest back after minutes, and ends the worker (kombu 5.7) when Redis restarts meanwhile. The outbox does it
        # better: what a dead worker held is published again by the clock.
        "ack_emulation": False,
        # Without these a half-open connection is silent for ever and a publish can hang. A consumer notices it after
        # twice the interval, and a timeout more for each of its other connections that is asked for something first.
        "health_check_interval": 5,
        "socket_timeout": 3,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "client_name": "dispatcher",
        # Codes overtake campaigns: the first queue is emptied before the second is looked at.
        "queue_order_strategy": "priority",
    }
