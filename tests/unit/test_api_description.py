"""The HTTP API does what its OpenAPI document says: schemathesis asks what that allows, and what it forbids."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.config import SchemathesisConfig
from schemathesis.config._checks import PositiveDataAcceptanceConfig
from schemathesis.specs.openapi.checks import ignored_auth

from dispatcher import tokens
from tests.unit import test_client
from tests.unit.api import ALL, Desk
from tests.unit.support import Clock
from tests.unit.support import running as going_by
from tests.unit.test_client import Shop
from workers.api.app import application

ROOT: Final = Path(__file__).parents[2]
WRITTEN: Final = ROOT / "docs" / "openapi.json"

#: What a schema can only name, by its format.
FORMATS: Final = {
    "phone-number": ("+447700900123", "+44 7700 900124", "+1 212 555 0100"),
    "time-zone": ("Europe/London", "Asia/Tokyo", "America/New_York"),
    "account": ("textgoto",),
    "callback-url": ("https://hooks.example.com/texts", ""),
    "task": ("billing.on_message", "billing"),
}
for name, values in FORMATS.items():
    schemathesis.openapi.format(name, st.sampled_from(values))

EXPECTED: Final = [*PositiveDataAcceptanceConfig._DEFAULT_EXPECTED_STATUSES, "410", "422"]

CONFIG: Final = SchemathesisConfig.from_dict(
    {
        "seed": 9,
        "generation": {"max-examples": 8, "database": "none"},
        # Beside what it expects by itself: events that are not kept any more, and what a schema cannot say of numbers,
        # accounts, templates, moments, keys.
        "checks": {"positive_data_acceptance": {"expected-statuses": EXPECTED}},
    }
)


def test_the_document_that_is_kept_is_the_one_that_is_served() -> None:
    """`python -m workers.api > docs/openapi.json` writes it."""
    assert json.loads(WRITTEN.read_text()) == application().openapi()


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Desk, str]]:
    """The API over a Redis in memory, served for real."""
    clock = Clock()
    # Said to be TCP, it answers without a delay on a connection that stays open.
    tcp = socket.socket(proto=socket.IPPROTO_TCP)
    with pytest.MonkeyPatch.context() as patch, going_by(clock), tcp as bound:
        shop = Shop(clock, guards="off")
        patch.setattr("dispatcher.client.publish", shop.publish)
        shop.serve("textgoto", *test_client.ALL)
        desk = Desk(shop, longest_wait=0.01)
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        config = uvicorn.Config(desk.api, access_log=False, log_config=None, lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: desk.runner.run(server.serve(sockets=[bound])))
        thread.start()
        yield desk, f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()
        desk.close()


schema = schemathesis.openapi.from_dict(application().openapi(), config=CONFIG)


#: Who asks: known when the first requests are thought of, which is before there is an API that could know it.
TOKEN, ADMITTED = tokens.make(tenant=None, rights=ALL)


@schema.auth()
class Bearer:
    """Says who asks."""

    def get(self, case: Any, context: Any) -> str:
        return TOKEN

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@pytest.fixture(scope="module")
def origin(served: tuple[Desk, str]) -> str:
    desk, origin = served
    tokens.put(desk.bench.store, TOKEN, ADMITTED)
    return origin


@pytest.fixture(scope="module")
def connection() -> Iterator[requests.Session]:
    """One that stays open, and looks for no proxies at each request."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


#: Endpoints of which it is known that they let nobody in without a token: that takes two more requests, and is so once.
GUARDED: Final = set[str]()


@schema.parametrize()
def test_it_answers_as_it_is_described(case: schemathesis.Case[Any], origin: str, connection: requests.Session) -> None:
    known = [ignored_auth] if case.operation.label in GUARDED else []
    answer = case.call_and_validate(base_url=origin, session=connection, excluded_checks=known)
    if answer.status_code < 300:
        GUARDED.add(case.operation.label)


#: What makes something, and what its links lead to.
LINKED: Final = ["send_message", "send_batch", "get_job", "cancel_job", "get_batch", "cancel_batch"]


def test_what_was_made_can_be_read_and_taken_back_as_the_links_say(origin: str) -> None:
    made = set[str]()

    class Along(schema.include(operation_id=LINKED).as_state_machine()):  # type: ignore[misc]  # made when it is asked for
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"base_url": origin, "headers": {"Authorization": f"Bearer {TOKEN}"}}

        def validate_response(self, response: Any, case: Any, *more: Any, **named: Any) -> None:
            super().validate_response(response, case, *more, **named)
            if response.status_code in {200, 201}:
                made.add(case.operation.path)

    few = settings(
        max_examples=8, stateful_step_count=6, deadline=None, suppress_health_check=[*HealthCheck], database=None,
        derandomize=True,
    )  # fmt: skip
    run_state_machine_as_test(Along, settings=few)
    # Which of them it comes to is its own choice; that it comes through at all is what this would be worthless without.
    assert made & {"/v1/messages", "/v1/batches"}
    assert made & {"/v1/jobs/{id}", "/v1/batches/{id}", "/v1/jobs/{id}/cancel", "/v1/batches/{id}/cancel"}
