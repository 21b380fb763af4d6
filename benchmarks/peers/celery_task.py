"""The Celery task that a user would write: `celery -A celery_task worker --pool threads --concurrency 64`."""

from __future__ import annotations

from celery import Celery
from textgoto import REDELIVER_AFTER, REDIS_URL, Client

# How long a message may be in a worker's hands, in seconds, and that this is looked for each time, not at each tenth.
SOON = {"visibility_timeout": REDELIVER_AFTER, "unacked_restore_throttle": 1}

app = Celery("bench", broker=REDIS_URL)
app.conf.update(
    # "Tips and best practices" and "Optimizing": results that nobody reads are not kept, and a message is
    # acknowledged once its task is done.
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_transport_options=SOON if REDELIVER_AFTER else {},
)

client = Client()


@app.task(autoretry_for=(Exception,), retry_backoff=True, max_retries=5)
def send(number: str, text: str) -> None:
    client.send(number, text)


def enqueue(messages: list[tuple[str, str]]) -> None:
    for message in messages:
        send.apply_async(message)
