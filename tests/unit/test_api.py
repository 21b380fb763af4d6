"""The HTTP API: who gets in, what is made, what is told of it, and of what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis

from dispatcher import ConfigurationError, tokens
from dispatcher.errors import StoreUnavailable
from dispatcher.jobs import Job
from tests.unit import test_client
from tests.unit.api import ALL, Desk
from tests.unit.support import NUMBER, OTHER, TEXT, Clock, leaks
from tests.unit.test_client import Shop
from workers.api.service import Service

shop = test_client.shop

ONE: Final = {"to": NUMBER, "text": TEXT}
JSON: Final = "application/json"
GOOD: Final = b'{"to": "+447700900123", "text": "Hi"'
TWO: Final = [{"to": NUMBER, "text": "Hi Ann"}, {"to": OTHER, "text": "Hi Bob"}]


@pytest.fixture
def desk(shop: Shop) -> Iterator[Desk]:
    one = Desk(shop, longest_wait=0.05, heartbeat=0.05)
    yield one
    one.close()


@pytest.fixture
def token(desk: Desk) -> str:
    return desk.token()


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem document, which must be this one."""
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code), document
    assert document["type"] == f"urn:dispatcher:problem:{code}"
    assert document["title"]
    assert document["detail"]
    return document


# -- what is made ------------------------------------------------------------------------------------------------------


def test_a_text_is_sent_on_behalf_of_the_tokens_tenant(desk: Desk, token: str) -> None:
    made = desk.post("/v1/messages", token, {**ONE, "reference": "order-17", "valid_for": 600})
    assert made.status_code == 201
    job = made.json()
    assert made.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["tenant"], job["reference"]) == ("queued", "shop-a", "order-17")
    assert desk.shop.published == [("textgoto", [job["id"]])]
    assert leaks(made.text, NUMBER, TEXT) == []
    assert desk.get(f"/v1/jobs/{job['id']}", token).json()["id"] == job["id"]


def test_a_moment_is_told_in_rfc_3339(desk: Desk, token: str) -> None:
    made = desk.post("/v1/messages", token, {**ONE, "send_at": "2027-01-15T10:00:00+01:00"}).json()
    assert made["waiting"] == {"for": "time", "until": "2027-01-15T09:00:00Z"}
    for wrong in ("2027-01-15T10:00:00", "tomorrow", 1_800_000_000, "2027-W02-5T10:00:00Z", "2027-02-30T10:00:00Z"):
        told = problem(desk.post("/v1/messages", token, {**ONE, "send_at": wrong}), 422, "invalid")
        assert told["field"] == "send_at"


def test_what_is_unmasked_takes_a_right_of_its_own(desk: Desk, token: str) -> None:
    id_ = desk.post("/v1/messages", token, ONE).json()["id"]
    assert desk.get(f"/v1/jobs/{id_}", token, reveal="true").json()["to"] == NUMBER
    reader = desk.token(rights=["read"])
    problem(desk.get(f"/v1/jobs/{id_}", reader, reveal="true"), 403, "right_missing")
    assert desk.get(f"/v1/jobs/{id_}", reader).status_code == 200


def test_a_code_is_sent_checked_and_sent_again(desk: Desk, token: str) -> None:
    made = desk.post("/v1/verifications", token, {"to": NUMBER, "code_ttl": 300, "guard_keys": {"ip": "203.0.113.7"}})
    id_ = made.json()["id"]
    assert made.status_code == 201
    assert made.json()["verification"]["status"] == "pending"
    early = problem(desk.post(f"/v1/verifications/{id_}/resend", token, {}), 429, "resend_too_soon")
    assert early["retry_after"] == 30
    hashed = desk.bench.settings.hashed("code", id_, "012837")
    desk.shop.sent(id_, code_ttl=300, vh=hashed)
    checked = [desk.post(f"/v1/verifications/{id_}/check", token, {"code": code}).json() for code in ("1", "012837")]
    assert checked == [{"valid": False, "status": "pending"}, {"valid": True, "status": "approved"}]
    problem(desk.post(f"/v1/verifications/{id_}/resend", token, {}), 409, "illegal_move")


def test_another_code_takes_no_body(desk: Desk, token: str, clock: Clock) -> None:
    id_ = desk.post("/v1/verifications", token, {"to": NUMBER}).json()["id"]
    clock.advance(31)
    again = desk.ask("POST", f"/v1/verifications/{id_}/resend", token)
    assert (again.status_code, again.json()["resend_of"]) == (201, id_)


def test_a_number_is_looked_up(desk: Desk, token: str) -> None:
    made = desk.post("/v1/lookups", token, {"to": NUMBER, "fresh": True})
    assert (made.status_code, made.json()["kind"]) == (201, "lookup")


def test_a_job_is_taken_back_by_the_right_that_made_it(desk: Desk, token: str) -> None:
    text = desk.post("/v1/messages", token, ONE).json()["id"]
    code = desk.post("/v1/verifications", token, {"to": NUMBER}).json()["id"]
    codes = desk.token(rights=["verify"])
    problem(desk.ask("POST", f"/v1/jobs/{text}/cancel", codes), 403, "right_missing")
    assert desk.ask("POST", f"/v1/jobs/{code}/cancel", codes).json()["verification"]["status"] == "cancelled"
    assert desk.ask("POST", f"/v1/jobs/{text}/cancel", token).json()["state"] == "cancelled"
    sent = desk.post("/v1/messages", token, ONE).json()["id"]
    desk.shop.sent(sent)
    assert problem(desk.ask("POST", f"/v1/jobs/{sent}/cancel", token), 409, "illegal_move")["state"] == "sent"


def test_an_operation_is_nobodys_to_take_back_here(desk: Desk) -> None:
    operator = desk.token(tenant=None)
    id_ = desk.shop.dispatcher.operation("textgoto", "balance").id
    problem(desk.ask("POST", f"/v1/jobs/{id_}/cancel", operator), 403, "right_missing")


def test_many_texts_are_one_batch_that_can_be_paged_closed_and_taken_back(desk: Desk, token: str) -> None:
    made = desk.post("/v1/batches", token, {"messages": TWO, "batch_id": "spring", "more": True, "sender": "ACME"})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/batches/spring"
    batch = {"schema": 1, "id": "spring", "size": 2, "counts": {"queued": 2}, "settled": False, "open": True}
    assert made.json() == {**batch, "cancelled": False, "created": 2}
    first = desk.get("/v1/batches/spring/jobs", token, limit=1, reveal="true").json()
    rest = desk.get("/v1/batches/spring/jobs", token, limit=1, start=first["next"], reveal="true").json()
    assert [one["to"] for one in first["jobs"] + rest["jobs"]] == [NUMBER, OTHER]
    assert rest["next"] is None
    assert {one["sender"] for one in first["jobs"]} == {"ACME"}
    assert desk.ask("POST", "/v1/batches/spring/close", token).json()["open"] is False
    assert desk.ask("POST", "/v1/batches/spring/cancel", token).json()["counts"] == {"cancelled": 2}
    assert desk.get("/v1/batches/spring", token).json()["cancelled"] is True


def test_a_mistake_in_one_of_many_is_named_and_nothing_is_made(desk: Desk, token: str) -> None:
    wrong = desk.post("/v1/batches", token, {"messages": [*TWO, {"to": "+4477009001234", "text": "Hi"}]})
    assert problem(wrong, 422, "invalid_number")["field"] == "messages[2].to"
    missing = desk.post("/v1/batches", token, {"messages": [*TWO, {"to": NUMBER}]})
    assert problem(missing, 422, "invalid")["field"] == "messages[2].text"
    assert desk.shop.published == []


def test_jobs_are_listed_by_state(desk: Desk, token: str) -> None:
    ids = [desk.post("/v1/messages", token, ONE).json()["id"] for _ in range(3)]
    desk.shop.sent(ids[0])
    listed = desk.get("/v1/jobs", token, state="queued", limit=10).json()
    assert listed["complete"] is True
    assert {one["id"] for one in listed["jobs"]} == {*ids[1:]}
    assert problem(desk.get("/v1/jobs", token, state="lost"), 422, "invalid")["field"] == "state"
    assert problem(desk.get("/v1/jobs", token, stat="sent"), 422, "invalid")["field"] == "stat"


# -- the same again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ['"order-17"', "order-17"], ids=["as the draft has it", "as a bare word"])
def test_the_same_key_and_request_is_the_same_job(desk: Desk, token: str, again: str) -> None:
    first = desk.post("/v1/messages", token, ONE, key='"order-17"')
    assert desk.post("/v1/messages", token, ONE, key=again).json()["id"] == first.json()["id"]
    assert len(desk.shop.published) == 1
    other = desk.post("/v1/messages", token, {**ONE, "text": "Another"}, key=again)
    assert problem(other, 422, "idempotency_conflict")["field"] == "Idempotency-Key"


def test_a_key_is_a_tenants_own(desk: Desk, token: str) -> None:
    ids = {desk.post("/v1/messages", one, ONE, key="17").json()["id"] for one in (token, desk.token("shop-b"))}
    assert len(ids) == 2


@pytest.mark.parametrize("wrong", ["", '"', '""', '"a', "a b", "\u00e4".encode(), '"a"b', "a" * 256])
def test_what_is_no_key_is_refused(desk: Desk, token: str, wrong: Any) -> None:
    told = desk.ask("POST", "/v1/messages", token, json=ONE, headers={"Idempotency-Key": wrong})
    assert problem(told, 400, "idempotency_key_invalid")["field"] == "Idempotency-Key"


def test_a_repeated_batch_sends_nothing_twice(desk: Desk, token: str) -> None:
    first = desk.post("/v1/batches", token, {"messages": TWO}, key="spring").json()
    again = desk.post("/v1/batches", token, {"messages": TWO}, key="spring")
    assert again.status_code == 201
    assert again.json() == {**first, "created": 0}
    assert len(desk.shop.published) == 1
    less = desk.post("/v1/batches", token, {"messages": TWO[:1]}, key="spring")
    problem(less, 422, "idempotency_conflict")


def test_a_repeated_batch_asks_no_budget(desk: Desk) -> None:
    token = desk.token(budget="2/1d")
    first = desk.post("/v1/batches", token, {"messages": TWO}, key="spring").json()
    again = desk.post("/v1/batches", token, {"messages": TWO}, key="spring")
    assert (again.status_code, again.json()["id"]) == (201, first["id"])


def test_a_batchs_key_is_a_tenants_own_and_a_batchs(desk: Desk, token: str, clock: Clock) -> None:
    made = [desk.post("/v1/batches", one, {"messages": TWO}, key="17").json() for one in (token, desk.token("shop-b"))]
    assert [one["created"] for one in made] == [2, 2]
    assert made[0]["id"] != made[1]["id"]
    code = desk.post("/v1/verifications", token, {"to": NUMBER}).json()["id"]
    clock.advance(31)
    assert desk.post(f"/v1/verifications/{code}/resend", token, {}, key="17").status_code == 201


def test_a_batch_whose_maker_died_goes_on_under_the_same_name(
    desk: Desk, token: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("Redis is away")

    document, made = {"messages": TWO}, desk.api.service._dispatcher._publish
    monkeypatch.setattr(desk.api.service._dispatcher, "_publish", die)
    problem(desk.post("/v1/batches", token, document, key="spring"), 503, "store_unavailable")
    monkeypatch.setattr(desk.api.service._dispatcher, "_publish", made)
    batch = desk.post("/v1/batches", token, document, key="spring").json()
    assert (batch["size"], batch["created"]) == (2, 0)


def test_what_is_under_way_is_not_begun_again(desk: Desk, token: str) -> None:
    told = []

    async def meanwhile() -> None:
        async with desk.api.repeats.once("batch", "shop-a", "spring", b"{}", "one"):
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "spring"}
            told.append(await desk.client.post("/v1/batches", json={"messages": TWO}, headers=headers))
            asked = b'{"messages":[{"text":"Hi Ann","to":"+447700900123"},{"text":"Hi Bob","to":"+447700900124"}]}'
        async with desk.api.repeats.once("batch", "shop-a", "summer", asked, "two"):
            headers["Idempotency-Key"] = "summer"
            told.append(await desk.client.post("/v1/batches", json={"messages": TWO}, headers=headers))

    desk.runner.run(meanwhile())
    problem(told[0], 422, "idempotency_conflict")
    assert problem(told[1], 409, "idempotency_in_progress")["retry_after"] == 1


def test_a_refused_batch_leaves_its_key_free(desk: Desk, token: str) -> None:
    wrong = {"messages": [{"to": "+4477009001234", "text": "Hi"}]}
    problem(desk.post("/v1/batches", token, wrong, key="spring"), 422, "invalid_number")
    assert desk.post("/v1/batches", token, {"messages": TWO}, key="spring").status_code == 201


def test_a_repeated_resend_sends_one_code(desk: Desk, token: str, clock: Clock) -> None:
    id_ = desk.post("/v1/verifications", token, {"to": NUMBER}).json()["id"]
    clock.advance(31)
    again = [desk.post(f"/v1/verifications/{id_}/resend", token, {}, key="again").json()["id"] for _ in range(2)]
    assert again[0] == again[1] != id_


def test_a_resend_whose_answer_was_lost_sends_no_second_code(
    desk: Desk, token: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long after it the request is repeated."""
    made = []

    async def lost(service: Service, id_: str, **told: Any) -> Job:
        made.append(await resend(service, id_, **told))
        raise StoreUnavailable("Redis is away")

    resend = Service.resend
    id_ = desk.post("/v1/verifications", token, {"to": NUMBER}).json()["id"]
    clock.advance(31)
    monkeypatch.setattr(Service, "resend", lost)
    problem(desk.post(f"/v1/verifications/{id_}/resend", token, {}, key="again"), 503, "store_unavailable")
    monkeypatch.setattr(Service, "resend", resend)
    clock.advance(120)
    again = [desk.post(f"/v1/verifications/{id_}/resend", token, {}, key="again").json()["id"] for _ in range(2)]
    assert again == [made[0].id] * 2
    more = desk.post(f"/v1/verifications/{id_}/resend", token, {}, key="more")
    assert more.json()["id"] != made[0].id


# -- who gets in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": f"Bearer disp_{'0' * 48}"}, id="unknown"),
        pytest.param({"Authorization": "Bearer disp_"}, id="cut short"),
        pytest.param({"Authorization": f"Basic disp_{'0' * 48}"}, id="another scheme"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/1", "/v1/nothing", "/v1"])
def test_without_a_token_nobody_gets_in(desk: Desk, path: str, told: dict[str, str]) -> None:
    refused = desk.ask("GET", path, headers=told)
    problem(refused, 401, "token_invalid" if told else "token_missing")
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_the_body_of_a_stranger_is_not_read(desk: Desk) -> None:
    read = []

    class Body:
        async def __aiter__(self) -> Any:
            read.append(True)
            yield b"{}"

    refused = desk.ask("POST", "/v1/messages", content=Body())
    problem(refused, 401, "token_missing")
    assert read == []


def test_no_body_is_kept_where_none_is_needed(desk: Desk) -> None:
    read = []

    class Body:
        async def __aiter__(self) -> Any:
            read.append(True)
            yield b"{}"

    problem(desk.ask("POST", "/health", content=Body()), 405, "method_not_allowed")
    problem(desk.ask("POST", "/nothing", content=Body()), 404, "no_such_endpoint")
    assert read == []


NEEDS: Final[dict[str, list[tuple[str, str, Any]]]] = {
    "send": [("POST", "/v1/messages", ONE), ("POST", "/v1/batches", {"messages": TWO}),
             ("POST", "/v1/batches/b/cancel", None), ("POST", "/v1/batches/b/close", None)],
    "verify": [("POST", "/v1/verifications", {"to": NUMBER}), ("POST", "/v1/verifications/1/resend", {}),
               ("POST", "/v1/verifications/1/check", {"code": "1"})],
    "lookup": [("POST", "/v1/lookups", {"to": NUMBER})],
    "read": [("GET", "/v1/jobs", None), ("GET", "/v1/jobs/1", None), ("GET", "/v1/batches/b", None),
             ("GET", "/v1/batches/b/jobs", None), ("GET", "/v1/events", None)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("right", "method", "path", "body"),
    [pytest.param(right, *row, id=f"{right}: {row[1]}") for right, rows in NEEDS.items() for row in rows],
)
def test_each_endpoint_asks_for_its_right(desk: Desk, right: str, method: str, path: str, body: Any) -> None:
    without = desk.token(rights=[one for one in ALL if one != right])
    problem(desk.ask(method, path, without, json=body), 403, "right_missing")
    assert desk.ask(method, path, desk.token(rights=[right]), json=body).status_code in {200, 201, 404}


def test_every_endpoint_is_in_the_table_above(desk: Desk) -> None:
    """But for taking back, whose right goes by what is taken back."""
    told = desk.ask("GET", "/openapi.json").json()["paths"]
    there = {(method.upper(), path) for path, one in told.items() for method in one if path.startswith("/v1/")}
    asked = {
        (method, path.replace("/1", "/{id}").replace("/b/", "/{id}/"))
        for rows in NEEDS.values()
        for method, path, _ in rows
    }
    asked = {(method, "/v1/batches/{id}" if path.endswith("/b") else path) for method, path in asked}
    assert there - asked == {("POST", "/v1/jobs/{id}/cancel")}
    assert asked <= there


def test_a_revoked_token_lets_nobody_in_once_it_is_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = desk.token()
    assert desk.get("/v1/jobs", secret).status_code == 200
    (one,) = tokens.listed(desk.bench.store)
    tokens.revoke(desk.bench.store, one.id)
    monkeypatch.setattr("workers.api.gate.FRESH", 0.0)
    desk.api.known._kept.clear()
    problem(desk.get("/v1/jobs", secret), 401, "token_invalid")


def test_a_token_lets_nobody_in_when_its_time_is_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    until = time.time() + 60
    secret = desk.token(expires_at=until)
    assert desk.get("/v1/jobs", secret).status_code == 200
    monkeypatch.setattr("dispatcher.tokens.time", type("Now", (), {"time": lambda: until + 1}))
    problem(desk.get("/v1/jobs", secret), 401, "token_invalid")
    desk.api.known._kept.clear()
    problem(desk.get("/v1/jobs", secret), 401, "token_invalid")


def test_a_stream_ends_with_its_token(desk: Desk, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api.gate.FRESH", 0.0)
    (one,) = tokens.listed(desk.bench.store)
    asked: dict[str, Any] = {
        "headers": {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"},
        "timeout": 30,
    }

    async def listen() -> Any:
        listening = asyncio.create_task(desk.client.get("/v1/events", **asked))
        while not desk.api.following.listening:  # noqa: ASYNC110 - the other takes its turns meanwhile
            await asyncio.sleep(0)
        while desk.api.following._tail is None:  # noqa: ASYNC110 - same
            await asyncio.sleep(0)
        assert desk.api.following.listening == 1, "and is counted once"
        tokens.revoke(desk.bench.store, one.id)
        return await asyncio.wait_for(listening, 30)

    assert desk.runner.run(listen()).status_code == 200


def test_another_tenants_things_are_not_there(desk: Desk, token: str) -> None:
    """Whatever is asked about them, it is as if there were none."""
    other = desk.token("shop-b")
    job = desk.post("/v1/messages", token, ONE).json()["id"]
    code = desk.post("/v1/verifications", token, {"to": NUMBER}).json()["id"]
    desk.post("/v1/batches", token, {"messages": TWO, "batch_id": "spring"})
    asked = [
        ("GET", f"/v1/jobs/{job}", None), ("POST", f"/v1/jobs/{job}/cancel", None), ("GET", "/v1/batches/spring", None),
        ("GET", "/v1/batches/spring/jobs", None), ("POST", "/v1/batches/spring/cancel", None),
        ("POST", "/v1/batches/spring/close", None), ("POST", f"/v1/verifications/{code}/check", {"code": "1"}),
        ("POST", f"/v1/verifications/{code}/resend", {}),
    ]  # fmt: skip
    for method, path, body in asked:
        theirs, none = (
            desk.ask(method, one, other, json=body)
            for one in (path, path.replace(job, "0" * 26).replace(code, "0" * 26).replace("spring", "autumn"))
        )
        told, nothing = problem(theirs, 404, "not_found"), problem(none, 404, "not_found")
        assert told["detail"].split(" ")[:4] == nothing["detail"].split(" ")[:4]
    assert desk.get("/v1/jobs", other).json()["jobs"] == []
    assert desk.get("/v1/jobs", other, batch="spring").json()["jobs"] == []
    assert desk.get("/v1/jobs", desk.token(tenant=None)).json()["jobs"] != []


def test_another_tenants_batch_takes_no_messages(desk: Desk, token: str) -> None:
    document = {"messages": TWO, "batch_id": "spring", "more": True}
    assert desk.post("/v1/batches", token, document).status_code == 201
    refused = desk.post("/v1/batches", desk.token("shop-b"), document)
    assert problem(refused, 409, "batch_taken")["field"] == "batch_id"
    assert desk.post("/v1/batches", token, document).json()["size"] == 4
    desk.shop.dispatcher.send_many([test_client.TWO[0]], batch_id="autumn")
    problem(desk.post("/v1/batches", token, {**document, "batch_id": "autumn"}), 409, "batch_taken")


def test_a_name_is_whose_asked_for_it_first(desk: Desk, token: str) -> None:
    """Also while the first has no job in it yet: else both would have theirs in one batch."""
    desk.runner.run(desk.api.check_name("spring", "shop-a"))
    document = {"messages": TWO, "batch_id": "spring"}
    problem(desk.post("/v1/batches", desk.token("shop-b"), document), 409, "batch_taken")
    assert desk.post("/v1/batches", token, document).status_code == 201


def test_a_batch_of_several_tenants_shows_each_their_own(desk: Desk, token: str) -> None:
    operator = desk.token(tenant=None)
    for tenant in ("shop-a", "shop-b"):
        document = {"messages": TWO, "batch_id": "both", "more": True, "tenant": tenant}
        assert desk.post("/v1/batches", operator, document).status_code == 201
    seen = desk.get("/v1/batches/both/jobs", token).json()
    assert [one["tenant"] for one in seen["jobs"]] == ["shop-a"] * 2
    assert len(desk.get("/v1/batches/both/jobs", operator).json()["jobs"]) == 4


def test_a_token_of_no_tenant_acts_for_any(desk: Desk, token: str) -> None:
    operator = desk.token(tenant=None)
    assert desk.post("/v1/messages", operator, {**ONE, "tenant": "shop-b"}).json()["tenant"] == "shop-b"
    assert desk.post("/v1/messages", operator, ONE).json()["tenant"] == ""
    assert desk.post("/v1/messages", token, {**ONE, "tenant": "shop-a"}).json()["tenant"] == "shop-a"
    refused = desk.post("/v1/messages", token, {**ONE, "tenant": "shop-b"})
    assert problem(refused, 403, "tenant_forbidden")["field"] == "tenant"


def test_a_task_of_the_consumers_is_named_with_a_right_of_its_own(desk: Desk) -> None:
    sender = desk.token(rights=["send"])
    problem(desk.post("/v1/messages", sender, {**ONE, "callback_task": "billing.on_message"}), 403, "right_missing")
    told = desk.post("/v1/messages", desk.token(), {**ONE, "callback_task": "billing.on_message"})
    assert told.status_code == 201


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_a_budget_is_asked_before_anything_is_made(desk: Desk, clock: Clock) -> None:
    token = desk.token(budget="2/1h,3/1d")
    for _ in range(2):
        assert desk.post("/v1/messages", token, ONE).status_code == 201
    refused = desk.post("/v1/lookups", token, {"to": NUMBER})
    told = problem(refused, 429, "budget_used_up")
    assert refused.headers["retry-after"] == str(told["retry_after"])
    assert len(desk.shop.published) == 2
    clock.advance(told["retry_after"])
    problem(desk.post("/v1/batches", token, {"messages": TWO}), 429, "budget_used_up")
    assert desk.post("/v1/messages", token, ONE).status_code == 201
    problem(desk.post("/v1/batches", token, {"messages": TWO * 2}), 429, "budget_too_small")


def test_a_budget_pays_for_what_is_made_alone(desk: Desk) -> None:
    """Not for a refusal, nor for what was made before by the same key."""
    token = desk.token(budget="2/1d")
    problem(desk.post("/v1/messages", token, {"to": "+4477009001234", "text": "Hi"}), 422, "invalid_number")
    desk.shop.clock.advance(1)
    desk.post("/v1/messages", token, ONE, key="a")
    desk.shop.clock.advance(1)
    for _ in range(3):
        assert desk.post("/v1/messages", token, ONE, key="a").status_code == 201
    assert desk.post("/v1/messages", token, ONE, key="b").status_code == 201
    problem(desk.post("/v1/messages", token, ONE, key="c"), 429, "budget_used_up")


@pytest.mark.parametrize(
    ("path", "body"),
    [("messages", ONE), ("verifications", {"to": NUMBER}), ("lookups", {"to": NUMBER})],
    ids=lambda one: one if isinstance(one, str) else "",
)
@pytest.mark.parametrize("tenant", [None, "shop-a"])
def test_a_used_up_budget_gives_what_was_made_before(
    desk: Desk, path: str, body: dict[str, Any], tenant: str | None
) -> None:
    """The answer may have been lost: whoever asks again learns of the job, and not that there is no room for it."""
    token = desk.token(budget="1/1d", tenant=tenant)
    made = desk.post(f"/v1/{path}", token, body, key="a").json()["id"]
    again = desk.post(f"/v1/{path}", token, body, key="a")
    assert (again.status_code, again.json()["id"]) == (201, made)
    problem(desk.post(f"/v1/{path}", token, {**body, "reference": "other"}, key="a"), 422, "idempotency_conflict")
    problem(desk.post(f"/v1/{path}", token, body, key="b"), 429, "budget_used_up")


def test_a_budget_is_not_overdrawn_by_many_at_once(desk: Desk) -> None:
    token = desk.token(budget="5/1d")

    async def all_at_once() -> list[int]:
        headers = {"Authorization": f"Bearer {token}"}
        asked = [desk.client.post("/v1/messages", json=ONE, headers=headers) for _ in range(20)]
        return [one.status_code for one in await asyncio.gather(*asked)]

    assert sorted(desk.runner.run(all_at_once())) == [201] * 5 + [429] * 15
    assert len(desk.shop.published) == 5


def test_what_two_ask_for_by_one_key_at_the_same_moment_is_paid_once(desk: Desk) -> None:
    """Both find the job new: it is no older than what they took out of the budget."""
    token = desk.token(budget="5/1d")

    async def all_at_once(path: str, body: dict[str, Any], key: str) -> set[str]:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
        asked = [desk.client.post(path, json=body, headers=headers) for _ in range(2)]
        return {one.json()["id"] for one in await asyncio.gather(*asked)}

    for path, body in (("messages", ONE), ("verifications", {"to": NUMBER}), ("lookups", {"to": NUMBER})):
        assert len(desk.runner.run(all_at_once(f"/v1/{path}", body, f"a-{path}"))) == 1
    for key in ("b", "c"):
        assert desk.post("/v1/messages", token, ONE, key=key).status_code == 201
    problem(desk.post("/v1/messages", token, ONE, key="d"), 429, "budget_used_up")


def test_what_is_lost_on_the_way_counts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been made: nobody gets more than their budget by cutting requests short."""
    token = desk.token(budget="1/1d")

    async def lost(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("Redis is away")

    with monkeypatch.context() as away:
        away.setattr(desk.api.service, "send", lost)
        problem(desk.post("/v1/messages", token, ONE), 503, "store_unavailable")
    problem(desk.post("/v1/messages", token, ONE), 429, "budget_used_up")


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_are_polled_from_a_cursor(desk: Desk, token: str) -> None:
    begun = desk.get("/v1/events", token).json()
    assert begun == {"events": [], "cursor": "0-0"}
    ids = [desk.post("/v1/messages", token, ONE).json()["id"] for _ in range(2)]
    for one in ids:
        desk.shop.sent(one)
    told = desk.get("/v1/events", token, after=begun["cursor"], types="job.sent").json()
    assert [(one["type"], one["data"]["id"]) for one in told["events"]] == [("job.sent", one) for one in ids]
    assert told["cursor"] == told["events"][-1]["cursor"]
    assert leaks(str(told), NUMBER, TEXT) == []
    assert desk.get("/v1/events", token, after=told["cursor"], wait=1).json() == {**told, "events": []}
    revealed = desk.get("/v1/events", token, after="0", reveal="true").json()
    assert revealed["events"][0]["data"]["to"] == NUMBER


def test_a_tenant_hears_of_its_own_alone(desk: Desk, token: str) -> None:
    desk.post("/v1/batches", desk.token("shop-b"), {"messages": TWO, "batch_id": "theirs"})
    for one in desk.shop.dispatcher.batch("theirs").jobs.ids:
        desk.shop.sent(one)
    desk.shop.dispatcher.opt_out(NUMBER)
    told = desk.get("/v1/events", token, after="0").json()
    assert told["events"] == []
    assert told["cursor"] != "0"
    everything = desk.get("/v1/events", desk.token(tenant=None), after="0").json()["events"]
    assert {one["type"] for one in everything} == {"job.sent", "batch.settled", "optout.added"}


def test_a_poll_hears_what_happens_while_it_waits(desk: Desk, token: str) -> None:
    desk.api.longest_wait = 20
    id_ = desk.post("/v1/messages", token, ONE).json()["id"]

    async def meanwhile() -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        asked = [
            asyncio.create_task(desk.client.get("/v1/events", params={"after": "0", "wait": 20}, headers=headers))
            for _ in range(5)
        ]
        while desk.api.following.listening < 5:  # noqa: ASYNC110 - the others take their turns meanwhile
            await asyncio.sleep(0)
        desk.shop.sent(id_)
        return [(await one).json() for one in asked]

    told = desk.runner.run(meanwhile())
    assert [[one["type"] for one in each["events"]] for each in told] == [["job.sent"]] * 5


def test_each_of_those_who_wait_hears_what_is_theirs(desk: Desk, token: str) -> None:
    """Though what happened is read once for all of them."""
    desk.api.longest_wait = 20
    tokens = [token, token, desk.token("shop-b"), desk.token(tenant=None)]
    ids = [desk.post("/v1/messages", one, ONE).json()["id"] for one in tokens[1:]]

    async def meanwhile() -> list[list[dict[str, Any]]]:
        queries = [{"after": "0", "wait": 20, "reveal": reveal} for reveal in ("true", "false", "false", "false")]
        asked = [
            asyncio.create_task(desk.client.get("/v1/events", params=query, headers={"Authorization": f"Bearer {one}"}))
            for one, query in zip(tokens, queries, strict=True)
        ]
        while desk.api.following.listening < len(asked):  # noqa: ASYNC110 - the others take their turns meanwhile
            await asyncio.sleep(0)
        with desk.bench.redis.pipeline() as pipe:
            for one in ids:
                pipe.xadd("d:e", {"t": "job.sent", "i": one, "n": 1})
            pipe.execute()
        return [(await one).json()["events"] for one in asked]

    told = [[(one["data"]["id"], one["data"]["to"] == NUMBER) for one in each] for each in desk.runner.run(meanwhile())]
    ours, theirs, _ = ids
    assert told == [[(ours, True)], [(ours, False)], [(theirs, False)], [(one, False) for one in ids]]


def test_a_cursor_that_expired_is_gone(desk: Desk, token: str) -> None:
    desk.bench.redis.set("d:et", "50-0")
    told = problem(desk.get("/v1/events", token, after="49"), 410, "cursor_expired")
    assert told["oldest"] == "50-0"


def test_a_stream_goes_on_from_the_last_event_that_was_heard(desk: Desk, token: str) -> None:
    ids = [desk.post("/v1/messages", token, ONE).json()["id"] for _ in range(3)]
    for one in ids:
        desk.shop.sent(one)
    cursors = [one["cursor"] for one in desk.get("/v1/events", token, after="0").json()["events"]]
    heard = []

    async def listen(scope_headers: list[tuple[bytes, bytes]]) -> None:
        async def receive() -> Any:
            await asyncio.sleep(60)

        async def send(message: Any) -> None:
            heard.append(message)
            if sum(b": here" in one.get("body", b"") for one in heard) == 2:
                desk.api.following.stop()

        scope = {
            "type": "http", "method": "GET", "path": "/v1/events", "raw_path": b"/v1/events", "query_string": b"",
            "headers": scope_headers, "http_version": "1.1", "scheme": "http", "server": ("api", 80), "client": None,
            "root_path": "", "asgi": {"version": "3.0", "spec_version": "2.4"},
        }  # fmt: skip
        await desk.api(scope, receive, send)

    desk.runner.run(
        listen(
            [
                (b"authorization", f"Bearer {token}".encode()),
                (b"accept", b"text/event-stream"),
                (b"last-event-id", cursors[0].encode()),
            ]
        )
    )
    start, *pieces = heard
    assert (start["status"], dict(start["headers"])[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
    lines = b"".join(one["body"] for one in pieces).decode().splitlines()
    assert [line for line in lines if line.startswith("id: ")][:2] == [f"id: {one}" for one in cursors[1:]]
    assert lines.count("event: job.sent") == 2
    assert f"id: {cursors[2]}" in lines[-3:]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        pytest.param(b'{"to":', JSON, 400, "invalid_json", id="cut short"),
        pytest.param(b"", JSON, 400, "body_missing", id="nothing"),
        pytest.param(b"[" * 100_000, JSON, 400, "invalid_json", id="deep"),
        pytest.param(b'{"to": "\xff"}', JSON, 400, "invalid_json", id="no UTF-8"),
        pytest.param(b"to=1", "application/x-www-form-urlencoded", 415, "unsupported_media_type", id="a form"),
        pytest.param(b"{}", "text/plain", 415, "unsupported_media_type", id="a text"),
        pytest.param(b"[]", JSON, 422, "invalid", id="a list"),
        pytest.param(b'{"to": 1, "text": "Hi"}', JSON, 422, "invalid", id="a number for a text"),
        pytest.param(GOOD + b', "text": " "}', JSON, 422, "invalid", id="blank"),
        pytest.param(GOOD + b', "valid_for": NaN}', JSON, 422, "invalid", id="NaN"),
        pytest.param(GOOD + b', "text": "\\ud83d"}', JSON, 422, "invalid", id="half a pair"),
        pytest.param(GOOD + b', "metadata": {"a": ["\\ud83d"]}}', JSON, 422, "invalid", id="half a pair within"),
        pytest.param(GOOD + b', "metadata": {"a": NaN}}', JSON, 422, "invalid", id="NaN within"),
        pytest.param(GOOD + b', "txet": 1}', JSON, 422, "invalid", id="a field too many"),
        pytest.param(GOOD + b', "provider": "textgo"}', JSON, 422, "unknown_provider", id="an account"),
    ],
)
def test_what_cannot_be_is_refused(  # noqa: PLR0917 - a row of the table
    desk: Desk, token: str, content: bytes, kind: str, status: int, code: str
) -> None:
    told = desk.ask("POST", "/v1/messages", token, content=content, headers={"Content-Type": kind})
    assert leaks(str(problem(told, status, code)), NUMBER) == []


def test_what_is_no_json_is_refused_in_a_batch_with_a_key_too(desk: Desk, token: str) -> None:
    content = b'{"messages": [' + GOOD + b', "text": "Hi", "metadata": {"a": "\\ud83d"}}]}'
    refused = desk.ask("POST", "/v1/batches", token, "a", content=content, headers={"Content-Type": JSON})
    assert problem(refused, 422, "invalid")["field"] == "messages[0].metadata"


def test_a_body_comes_as_it_is(desk: Desk, token: str) -> None:
    refused = desk.ask("POST", "/v1/messages", token, json=ONE, headers={"Content-Encoding": "gzip"})
    problem(refused, 415, "unsupported_media_type")
    assert refused.headers["accept-encoding"] == "identity"


def test_a_body_is_bounded(desk: Desk, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api.gate.LARGEST", 100)

    class Body:
        async def __aiter__(self) -> Any:
            for _ in range(3):
                yield b" " * 50

    problem(desk.post("/v1/messages", token, {**ONE, "text": "a" * 100}), 413, "too_large")
    problem(desk.ask("POST", "/v1/messages", token, content=Body()), 413, "too_large")


def test_a_body_that_does_not_come_is_not_waited_for(desk: Desk, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api.gate._PATIENCE", 0.01)

    class Body:
        async def __aiter__(self) -> Any:
            yield b"{"
            await asyncio.sleep(60)

    problem(desk.ask("POST", "/v1/messages", token, content=Body()), 408, "too_slow")


def test_where_there_is_nothing_it_says_so(desk: Desk, token: str) -> None:
    problem(desk.get("/v1/nothing", token), 404, "no_such_endpoint")
    problem(desk.get("/nothing", None), 404, "no_such_endpoint")
    refused = desk.ask("DELETE", "/v1/jobs", token)
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"
    problem(desk.get("/v1/jobs/1", token), 404, "not_found")


def test_a_guards_refusal_says_when(desk: Desk, token: str) -> None:
    for _ in range(5):
        assert desk.post("/v1/verifications", token, {"to": NUMBER}).status_code == 201
    refused = desk.post("/v1/verifications", token, {"to": NUMBER})
    told = problem(refused, 429, "number_limited")
    assert refused.headers["retry-after"] == str(told["retry_after"])


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/events", "/health"])
def test_without_redis_it_is_to_be_asked_again(
    desk: Desk, token: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("no")

    desk.get("/v1/jobs", token)
    for one in (desk.bench.redis, desk.api.store.redis):
        monkeypatch.setattr(one.connection_pool, "get_connection", away)
    refused = desk.get(path, token)
    assert problem(refused, 503, "store_unavailable")["retry_after"] == int(refused.headers["retry-after"])


def test_a_call_that_takes_too_long_is_not_waited_for(desk: Desk, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr("workers.api.gate._LONGEST", 0.01)
    monkeypatch.setattr(desk.api.service, "jobs", hang)
    problem(desk.get("/v1/jobs", desk.token(tenant=None)), 503, "store_unavailable")


def test_a_bug_shows_nothing(
    desk: Desk, token: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"{NUMBER} {TEXT}")

    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(desk.api.service, "send", broken)
    told = problem(desk.post("/v1/messages", token, ONE), 500, "internal")
    assert leaks(str(told) + caplog.text, NUMBER, TEXT, token) == []
    assert re.search(r"RuntimeError at \S+test_api.py:\d+ in broken", caplog.text)


def test_a_deployment_that_is_not_set_up_is_no_fault_of_the_callers(
    desk: Desk, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any, **__: Any) -> None:
        raise ConfigurationError("DISPATCHER_SECRET_KEY is not set")

    monkeypatch.setattr(desk.api.service, "verify", refused)
    told = problem(desk.post("/v1/verifications", token, {"to": NUMBER}), 500, "configuration")
    assert "SECRET_KEY" not in told["detail"]


def test_its_health_needs_no_token(desk: Desk) -> None:
    assert desk.get("/health", None).json() == {"ok": True}
    assert desk.ask("HEAD", "/health").status_code == 200, "as many balancers ask"


def test_no_other_origin_and_no_page_is_let_in(desk: Desk, token: str) -> None:
    told = desk.ask(
        "OPTIONS",
        "/v1/messages",
        token,
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert not [name for name in told.headers if name.startswith("access-control")]
    for page in ("/docs", "/redoc"):
        problem(desk.get(page, None), 404, "no_such_endpoint")
