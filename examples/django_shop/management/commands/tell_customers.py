"""`django-admin tell_customers`."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from django_shop.models import Order
from django_shop.texts import tell


class Command(BaseCommand):
    """Run it every minute: it does what a request could not, because Redis was away or the process was killed."""

    help = "Text those whose order is shipped and who were not told."

    def handle(self, **_: Any) -> None:
        """Tell of each order that is shipped and has no job."""
        for order in Order.objects.filter(shipped=True, job="").iterator():
            tell(order)
