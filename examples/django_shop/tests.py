"""The shop's own tests, without Redis or worker: `django-admin test django_shop`."""

from __future__ import annotations

from django.conf import settings
from django.test import TestCase

from dispatcher.testing import FakeProviders
from django_shop.models import Order

HOOK = "/hooks/dispatcher"


class Texts(TestCase):
    """A shipped order, and what its customer gets."""

    def setUp(self) -> None:
        """Take an order of somebody who can be called back about."""
        self.messages = self.enterContext(FakeProviders())
        self.enterContext(self.settings(SHOP_CALLBACK_URL=f"https://shop.example.com{HOOK}"))
        assert settings.DISPATCHER_REDIS_URL.startswith("memory://")
        self.order = Order.objects.create(phone="+447700900001")

    def ship(self) -> None:
        """Ship it, as a visitor does; the text is enqueued once that is committed."""
        with self.captureOnCommitCallbacks(execute=True):
            assert self.client.post(f"/orders/{self.order.pk}/shipping").status_code == 200

    def tell(self) -> None:
        """Post what Dispatcher would have, twice, and the first again at the end."""
        told = self.messages.callbacks
        for one in [*told, *told, told[0]]:
            assert one.url == settings.SHOP_CALLBACK_URL
            answer = self.client.post(HOOK, one.body, content_type="application/json", headers=one.headers)
            assert answer.status_code == 204
        self.order.refresh_from_db()

    def test_the_customer_is_told_once(self) -> None:
        """However often the order is shipped."""
        self.ship()
        self.ship()
        assert [(one.to, one.text) for one in self.messages.sent] == [
            ("+447700900001", f"Your order {self.order.pk} is on its way")
        ]

    def test_the_order_is_marked(self) -> None:
        """By the signal's receiver, whichever way it ended."""
        self.ship()
        self.messages.undelivered("+447700900001")
        self.tell()
        assert self.order.text == "undelivered"
        assert self.client.get(f"/orders/{self.order.pk}").json()["text"] == "undelivered"

    def test_what_is_not_signed_changes_nothing(self) -> None:
        """Nor does a signed request whose body was changed on its way."""
        self.ship()
        self.messages.deliver("+447700900001")
        one = self.messages.callbacks[0]
        for headers, body in (({}, one.body), (one.headers, one.body.replace(b"sent", b"lost"))):
            answer = self.client.post(HOOK, body, content_type="application/json", headers=headers)
            assert answer.status_code == 401
        self.order.refresh_from_db()
        assert self.order.text == ""
        assert self.client.get(HOOK).status_code == 405

    def test_a_code_signs_in(self) -> None:
        """Once."""
        self.client.post("/codes", {"to": "+447700900001"})
        self.messages.settle()
        code = self.messages.code("+447700900001")
        answers = [self.client.post("/codes/check", {"code": typed}).json() for typed in ("not it", code, code)]
        assert [one["valid"] for one in answers] == [False, True, False]
