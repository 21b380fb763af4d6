"""What Dispatcher tells us: a signed request becomes a Django signal, which any app of the project may receive."""

from __future__ import annotations

import os
from typing import Any

from django.dispatch import Signal, receiver
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks import Webhook, WebhookVerificationError

from django_shop.models import Order

#: Sent with `event`, the document of one: {"type": "job.delivered", "data": {"id": ..., "state": ..., ...}, ...}.
message_changed = Signal()


@csrf_exempt
@require_POST
def told(request: HttpRequest) -> HttpResponse:
    """Verify a callback and pass it on. What a receiver raises is a 500, and it is told again later."""
    # Several secrets, separated by commas, all sign; the first is the newest.
    secret = os.environ["DISPATCHER_CALLBACK_SECRET"].split(",")[0]
    try:
        event = Webhook(secret).verify(request.body, dict(request.headers))
    except WebhookVerificationError:
        return HttpResponse(status=401)
    message_changed.send(sender=Order, event=event)
    return HttpResponse(status=204)


@receiver(message_changed)
def mark(event: dict[str, Any], **_: Any) -> None:
    """Note at an order what became of its text.

    By its reference, since the first event may be here before the job's id is saved; told twice, or late, it changes
    nothing.
    """
    if event["type"].startswith("job."):
        job = event["data"]
        order = job["reference"].removeprefix("order-")
        if order.isdigit():
            Order.objects.filter(pk=order, text_seq__lt=job["seq"]).update(text=job["state"], text_seq=job["seq"])
