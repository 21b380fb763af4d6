"""The HTTP API over a Redis in memory, asked in-process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import fakeredis
import httpx

from dispatcher import tokens
from tests.unit.test_client import Shop
from workers.api.app import Api

#: All rights that a service may need.
ALL: Final = ("send", "verify", "lookup", "read", "reveal", "tasks")

ORIGIN: Final = "http://api"


class Desk:
    """The API, and services that ask it."""

    def __init__(self, shop: Shop, **options: Any) -> None:
        self.shop = shop
        self.bench = shop.bench
        self.runner = asyncio.Runner()
        self.api = self.runner.run(self._open(options))
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.api), base_url=ORIGIN)

    async def _open(self, options: dict[str, Any]) -> Api:
        api = Api(self.bench.settings, **options)
        api.store.redis = self.asynchronous()
        api.service._dispatcher._store.redis = self.bench.redis
        return api

    def asynchronous(self) -> Any:
        """The same Redis, for an event loop."""
        server = self.bench.redis.connection_pool.connection_kwargs["server"]
        return fakeredis.FakeAsyncRedis(server=server)

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.run(self.api.aclose())
        self.runner.close()

    def token(self, tenant: str | None = "shop-a", rights: Iterable[str] = ALL, **more: Any) -> str:
        secret, one = tokens.make(tenant=tenant, rights=rights, **more)
        tokens.put(self.bench.store, secret, one)
        return secret

    def ask(
        self, method: str, path: str, token: str | None = None, key: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {**more.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        return self.runner.run(self.client.request(method, path, headers=headers, **more))

    def post(self, path: str, token: str | None, document: Any, key: str | None = None) -> httpx.Response:
        return self.ask("POST", path, token, key, json=document)

    def get(self, path: str, token: str | None, **query: Any) -> httpx.Response:
        return self.ask("GET", path, token, params=query)
