"""Where the pages are."""

from django.urls import path

from django_shop.views import order, shipping

urlpatterns = [path("orders/<int:pk>", order), path("orders/<int:pk>/shipping", shipping)]
