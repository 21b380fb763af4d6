"""Telling a consumer by a task of their own Celery app, by its name, on their broker.

Published as any Celery app does that sends to a queue: to the queue itself, with Celery's plain key names on Redis and
none of our prefix. Nothing is declared: the queue is the consumer's, whose workers declare it with whatever arguments
they like. On RabbitMQ a queue that is not there refuses the message, which is tried again then; on Redis it lies
there until a worker comes.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from celery import Celery
from kombu.exceptions import KombuError

from dispatcher import notices
from dispatcher.queues import celery_app, declared, is_redis
from dispatcher.settings import Settings
from workers.webhook import Answer, Outcome

#: What a broker's own answer may take, in seconds: a confirmation of RabbitMQ's.
_CONFIRM: Final = 5.0


class ConsumerTasks:
    """Publishes tasks to the consumers' broker; used by several threads at once."""

    def __init__(self, settings: Settings) -> None:
        """Use `DISPATCHER_CALLBACK_BROKER_URL`, or else our broker; nothing is connected to yet."""
        self._app = consumers_app(settings)
        self._on_redis = is_redis(settings.callback_broker_url or settings.broker)

    def send(self, task: str, queue: str, id: str, event: dict[str, Any]) -> Answer:  # noqa: A002 - as Celery calls it
        """Publish one task, whose id is the notice's, for an event that is masked; raises nothing.

        Its arguments are `id` and `state` of the job, or of what else the event tells of, and the `event`.
        """
        began = time.monotonic()
        try:
            self._publish(task, queue, id, event)
        except Exception as error:  # noqa: BLE001 - kombu raises what its transports do, with addresses in it
            answer = Answer(outcome=Outcome.AGAIN, words=_why(error))
        else:
            answer = Answer(outcome=Outcome.DELIVERED, words="published")
        return msgspec.structs.replace(answer, seconds=time.monotonic() - began)

    def close(self) -> None:
        """Close all connections."""
        self._app.close()

    def _publish(self, task: str, queue: str, id_: str, event: dict[str, Any]) -> None:
        arguments = notices.arguments(event)
        # A message that no queue takes would be gone without a word.
        surely: dict[str, Any] = {} if self._on_redis else {"mandatory": True, "confirm_timeout": _CONFIRM}
        self._app.send_task(
            task,
            kwargs=arguments,
            task_id=id_,
            queue=declared(queue),  # type: ignore[arg-type]  # the stubs know names only
            declare=[],
            ignore_result=True,
            # What Flower and logs show of it.
            kwargsrepr=repr({name: arguments[name] for name in ("id", "state")}),
            **surely,
        )


def consumers_app(settings: Settings) -> Celery:
    """Return an app that publishes to the consumers' broker, within the bounds that ours has for its own."""
    app = celery_app(settings.model_copy(update={"broker_url": settings.callback_broker_url or settings.broker}))
    options = {**app.conf.broker_transport_options}
    # There our keys begin with a prefix; a plain Celery's do not.
    options.pop("global_keyprefix", None)
    if not is_redis(app.conf.broker_url):
        options["confirm_publish"] = True
    app.conf.broker_transport_options = options
    return app


def _why(error: Exception) -> str:
    if isinstance(error, OSError | KombuError):
        return "the consumers' broker did not take it"
    return f"the consumers' broker did not take it ({type(error).__name__})"
