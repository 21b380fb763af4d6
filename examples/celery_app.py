"""A shop that runs on Celery already: its app, its broker, its queues and its log stay its own.

`celery -A celery_app worker` is the shop's worker, as before; its task `billing.on_message` is told what became of each
text, and `python -m celery_app` follows all of them.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery

from dispatcher import Dispatcher, StoreUnavailable

#: Stands for the shop's database: the phone of each order.
PHONES = {17: "+447700900017", 18: "+447700900018"}

#: Likewise: the state of each order's text, and the `seq` of the event that told it.
STATES: dict[str, tuple[str, int]] = {}


@cache
def dispatcher() -> Dispatcher:
    """Return the one of this process; what was made before a fork works in the children too."""
    return Dispatcher()


# One Redis serves both here, since neither sees the other's queues. CELERY_BROKER_URL moves the shop alone.
app = Celery("shop", broker=dispatcher().settings.redis)


@app.task(name="shop.text_shipped", autoretry_for=(StoreUnavailable,), retry_backoff=True, max_retries=None)
def text_shipped(order: int) -> str:
    """Enqueue the text for a shipped order; however often this runs, the key makes it one text.

    The task carries the order, not the phone: whoever looks at the shop's broker or Flower sees no number.
    """
    job = dispatcher().send(
        PHONES[order],
        f"Order {order} is on its way",
        provider="textgoto",
        tenant="shop",
        reference=f"order-{order}",
        idempotency_key=f"order-{order}-shipped",
        valid_for=86400,
        callback_task="billing.on_message",
    )
    return job.id


@app.task(name="billing.on_message")
def on_message(id: str, state: str, event: dict[str, Any]) -> str:  # noqa: A002 - as it is called
    """Be told what became of a text: the job's `id`, its `state`, and the event, with the number masked.

    It may be told twice, as with any task: a database takes what it has already for what it is, by `seq`.
    """
    job = event["data"]
    if event["type"].startswith("job.") and job["seq"] > STATES.get(job["reference"], ("", 0))[1]:
        STATES[job["reference"]] = state, job["seq"]
    return f"{job.get('reference', id)} is {state}"


def follow(kept: Path) -> None:
    """Tell what becomes of the shop's texts, from the cursor kept in a file on; "0" is from the beginning."""
    cursor = kept.read_text() if kept.exists() else "0"
    for event in dispatcher().events(cursor):
        if event.data.get("tenant") == "shop":
            print(event.data["reference"], event.type, flush=True)
        # After the work, so that a crash repeats an event and skips none; in a database, with it in one transaction.
        fresh = kept.with_suffix(".new")
        fresh.write_text(event.cursor)
        fresh.replace(kept)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        follow(Path("events.cursor"))
