"""Texting customers: after the commit, once, and later where Redis was away."""

from __future__ import annotations

import logging
from functools import cache, partial

from django.conf import settings
from django.db import transaction

from dispatcher import Dispatcher, DispatcherError
from django_shop.models import Order

log = logging.getLogger(__name__)


@cache
def dispatcher() -> Dispatcher:
    """Return the one of this process; made when first needed, safe to share between threads."""
    return Dispatcher(redis_url=settings.DISPATCHER_REDIS_URL)


@transaction.atomic
def ship(order: Order) -> None:
    """Save that an order is shipped, and text its customer once that is committed: a rollback sends nothing."""
    order.shipped = True
    order.save(update_fields=["shipped"])
    transaction.on_commit(partial(tell, order))


def tell(order: Order) -> None:
    """Enqueue the text for a shipped order; however often this runs, the key makes it one text.

    The order is committed, so no trouble with its text may look as if it were not: without a job it is told of by the
    next `tell_customers`. The error may have come after the job was stored; the key makes repeating safe.
    """
    try:
        job = dispatcher().send(
            order.phone,
            f"Your order {order.pk} is on its way",
            provider="textgoto",
            reference=str(order),
            idempotency_key=f"{order}-shipped",
            valid_for=86400,
            callback_url=settings.SHOP_CALLBACK_URL,
        )
    except DispatcherError as error:
        log.warning("%s is not told of yet: %s", order, error)
    else:
        order.job = job.id
        order.save(update_fields=["job"])
