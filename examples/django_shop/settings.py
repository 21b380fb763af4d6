"""What Django needs to run this, and where Dispatcher's Redis is."""

import os

from django.core.management.utils import get_random_secret_key

#: None: Dispatcher finds it as its own commands do, e.g. in the data folder of `dispatcher up`.
DISPATCHER_REDIS_URL = os.environ.get("DISPATCHER_REDIS_URL")

#: Where `hooks.py` is reached, such as https://shop.example.com/hooks/dispatcher; None for no callbacks.
SHOP_CALLBACK_URL = os.environ.get("SHOP_CALLBACK_URL")

SECRET_KEY = get_random_secret_key()  # nothing here is signed that outlives this process
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["django.contrib.sessions", "django_shop"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
ROOT_URLCONF = "django_shop.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
