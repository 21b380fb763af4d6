"""Two pages: ship an order; see it, and what became of its text."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from dispatcher import NotFound, StoreUnavailable
from django_shop.models import Order
from django_shop.texts import dispatcher, ship


@require_POST
def shipping(request: HttpRequest, pk: int) -> JsonResponse:
    """Ship an order; repeating the request repeats no text."""
    ship(get_object_or_404(Order, pk=pk))
    return order(request, pk)


def order(_: HttpRequest, pk: int) -> JsonResponse:
    """Show an order, with the state of its text's job."""
    one = get_object_or_404(Order, pk=pk)
    try:
        text: str | None = dispatcher().get(one.job).state if one.job else None
    except NotFound:
        text = "no longer kept"
    except StoreUnavailable:
        text = "not known just now"
    return JsonResponse({"order": one.pk, "shipped": one.shipped, "text": text})
