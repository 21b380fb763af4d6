"""Sign-in by a code, and the webhook, without Redis or worker."""

from __future__ import annotations

import asyncio
from typing import Any

import fastapi_app
import httpx
import pytest

from dispatcher.testing import FakeProviders

PERSON = "+447700900001"
HOOK = "/hooks/dispatcher"

pytestmark = pytest.mark.dispatcher(callback_url=f"https://shop.example.com{HOOK}")


class Visitor:
    """Asks the application as a browser does."""

    def post(self, path: str, **what: Any) -> httpx.Response:
        """Post `json` or `content`, and return the answer."""
        return asyncio.run(self._post(path, what))

    async def _post(self, path: str, what: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(fastapi_app.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            return await client.post(path, **what)


@pytest.fixture
def visitor() -> Visitor:
    """Come to an application that knows of no text yet."""
    fastapi_app.STATES.clear()
    return Visitor()


def test_a_code_signs_in_once(messages: FakeProviders, visitor: Visitor) -> None:
    """And another one takes its place."""
    id_ = visitor.post("/codes", json={"to": PERSON}).json()["id"]
    messages.settle()
    first = messages.code(PERSON)
    messages.clock.advance(31)
    visitor.post(f"/codes/{id_}/resend")
    messages.settle()
    code = messages.code(PERSON)
    answers = [visitor.post(f"/codes/{id_}/check", json={"code": typed}).json() for typed in (first, code, code)]
    assert [one["valid"] for one in answers] == [first == code, first != code, False]


def test_a_code_is_over_after_ten_minutes(messages: FakeProviders, visitor: Visitor) -> None:
    """The page says no more than that it is not valid."""
    id_ = visitor.post("/codes", json={"to": PERSON}).json()["id"]
    messages.settle()
    messages.clock.advance(601)
    answer = visitor.post(f"/codes/{id_}/check", json={"code": messages.code(PERSON)})
    assert answer.json() == {"valid": False}


def test_it_is_told_what_became_of_a_text(messages: FakeProviders, visitor: Visitor) -> None:
    """Though the same is told twice, and the first again at the end."""
    id_ = visitor.post("/codes", json={"to": PERSON}).json()["id"]
    messages.deliver(id_)
    told = messages.callbacks
    assert [(one.url, one.type) for one in told] == [
        (f"https://shop.example.com{HOOK}", "job.sent"),
        (f"https://shop.example.com{HOOK}", "job.delivered"),
    ]
    for one in (*told, *told, told[0]):
        assert visitor.post(HOOK, content=one.body, headers=one.headers).status_code == 204
    assert fastapi_app.STATES[id_][0] == "delivered"


def test_what_is_not_signed_is_refused(messages: FakeProviders, visitor: Visitor) -> None:
    """Whoever knows the URL alone can tell us nothing."""
    messages.deliver(visitor.post("/codes", json={"to": PERSON}).json()["id"])
    one = messages.callbacks[0]
    assert visitor.post(HOOK, content=one.body).status_code == 401
    assert visitor.post(HOOK, content=one.body.replace(b"sent", b"lost"), headers=one.headers).status_code == 401
    assert fastapi_app.STATES == {}
