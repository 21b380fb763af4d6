"""Where the pages are."""

from django.urls import path

from django_shop import codes, hooks
from django_shop.views import order, shipping

urlpatterns = [
    path("orders/<int:pk>", order),
    path("orders/<int:pk>/shipping", shipping),
    path("hooks/dispatcher", hooks.told),
    path("codes", codes.start),
    path("codes/resend", codes.another),
    path("codes/check", codes.check),
]
