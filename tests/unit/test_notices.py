"""Who is told: what may be asked for, how it lies with a job, and that nothing of it shows."""

from __future__ import annotations

import base64
from typing import Any, Final

import pytest

from dispatcher import ConfigurationError, Dispatcher, InvalidRequest, Message, notices
from dispatcher.notices import Target
from tests.unit import test_client
from tests.unit.support import NUMBER, TEXT, Bench, leaks, settings
from tests.unit.test_client import Shop

shop = test_client.shop

URL: Final = "https://hooks.example.com/dispatcher?token=canary"
TASK: Final = "billing.on_message"


def kept(bench: Bench, id_: str, key: str = "d:j") -> Target | None:
    """Where a job, or a batch, is told."""
    stored = bench.redis.hget(f"{key}:{id_}", "cb")
    return None if stored is None else notices.decode(stored.decode(), bench.settings.sealer())[1]


# -- what may be asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://hooks.example.com", id="a host"),
        pytest.param("https://hooks.example.com:8443/a/b?c=d&e=%20", id="all parts"),
        pytest.param("https://[2001:db8::1]:8443/", id="an address"),
        pytest.param("https://xn--bcher-kva.example/", id="another alphabet, encoded"),
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    assert notices.wrong_url(url, private=False) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param(7, "must be a URL as text", id="no text"),
        pytest.param("hooks.example.com/canary", "no URL of https", id="no scheme"),
        pytest.param("ftp://hooks.example.com/canary", "no URL of https", id="another scheme"),
        pytest.param("https:///canary", "no URL of https", id="no host"),
        pytest.param("https://hooks.example.com:port/canary", "is no URL", id="no port"),
        pytest.param("https://me:canary@hooks.example.com/", "a user or a password", id="a password"),
        pytest.param("https://canary@hooks.example.com/", "a user or a password", id="a user"),
        pytest.param("https://hooks.example.com/#canary", "a fragment", id="a fragment"),
        pytest.param("https://hooks.example.com/canary\r\nx: y", "characters that", id="a line's end"),
        pytest.param("https://hooks.example.com/canary\u2028", "characters that", id="not encoded"),
        pytest.param("https://hooks_.example.com!/canary", "host that cannot be", id="no name"),
        pytest.param("https://hooks.example.com/" + "canary" * 400, "2,048 at most", id="too long"),
        pytest.param("http://hooks.example.com/canary", "DISPATCHER_CALLBACK_PRIVATE", id="not encrypted"),
    ],
)
def test_urls_that_never_work_are_refused_and_never_shown(shop: Shop, url: Any, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as refused:
        shop.dispatcher.send(NUMBER, TEXT, callback_url=url)
    assert refused.value.field == "callback_url"
    assert not leaks(str(refused.value), "canary")
    assert shop.published == []


@pytest.mark.parametrize(
    ("given", "field"),
    [
        pytest.param({"callback_task": "on message"}, "callback_task", id="no task's name"),
        pytest.param({"callback_task": 7}, "callback_task", id="no text"),
        pytest.param({"callback_task": TASK, "callback_queue": "a queue"}, "callback_queue", id="no queue's name"),
        pytest.param({"callback_queue": "celery"}, "callback_queue", id="a queue without a task"),
        pytest.param({"callback_url": URL, "callback_queue": "celery"}, "callback_queue", id="a queue for a URL"),
        pytest.param({"callback_url": ["https://x"]}, "callback_url", id="a list"),
    ],
)
def test_what_cannot_be_names_its_argument(shop: Shop, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shop.dispatcher.send(NUMBER, TEXT, **given)
    assert refused.value.field == field
    with pytest.raises(InvalidRequest) as refused:
        shop.dispatcher.send_many([Message(NUMBER, TEXT)], **given)
    assert refused.value.field == field


def test_a_message_that_cannot_be_told_of_is_named(shop: Shop) -> None:
    with pytest.raises(InvalidRequest) as refused:
        shop.dispatcher.send_many([Message(NUMBER, TEXT), Message(NUMBER, TEXT, callback_url="x")])
    assert refused.value.field == "messages[1].callback_url"
    assert shop.published == []


@pytest.mark.parametrize(
    ("secret", "count"),
    [
        pytest.param("", 0, id="none"),
        pytest.param(f"whsec_{base64.b64encode(b'x' * 24).decode()}", 1, id="the shortest"),
        pytest.param(f"whsec_{base64.b64encode(b'x' * 64).decode()}", 1, id="the longest"),
        pytest.param(f"whsec_{'A' * 32}, whsec_{'B' * 32}", 2, id="rotated"),
    ],
)
def test_secrets_that_sign(secret: str, count: int) -> None:
    assert len(notices.secrets(settings(callback_secret=secret).callback_secret.get_secret_value())) == count


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param("canary" * 6, id="no prefix"),
        pytest.param("whsec_canary", id="too short"),
        pytest.param(f"whsec_{base64.b64encode(b'canary' * 11).decode()}", id="too long"),
        pytest.param(f"whsec_{'canary' * 6}!", id="no base64"),
        pytest.param(f"whsec_{'A' * 32},canary", id="the second"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_CALLBACK_SECRET must be whsec_") as refused:
        settings(callback_secret=secret)
    assert not leaks(str(refused.value), "canary")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"callback_url": "hooks"}, "DISPATCHER_CALLBACK_URL is no URL"),
        ({"callback_url": "http://hooks.example.com/"}, "DISPATCHER_CALLBACK_URL is not https"),
        ({"callback_events": "job.*,No"}, "DISPATCHER_CALLBACK_EVENTS holds 'No'"),
        ({"callback_events": "job.*,jobs.*"}, "DISPATCHER_CALLBACK_EVENTS holds 'jobs.*', which no event is"),
        ({"callback_queue": "a queue"}, "DISPATCHER_CALLBACK_QUEUE must be the name of a queue"),
        ({"providers": {"notify": {"adapter": "textgoto"}}}, "an account named 'notify', .* another name"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        settings(**given)


def test_the_sandbox_may_be_called_at_home_without_encryption() -> None:
    assert settings(sandbox=True, callback_url="http://127.0.0.1:1/").callback_url
    with pytest.raises(ConfigurationError):
        settings(sandbox=True, callback_url="http://192.0.2.1/")
    assert settings(callback_private=True, callback_url="http://192.0.2.1/").callback_url


# -- how it lies with a job --------------------------------------------------------------------------------------------


def test_a_job_has_it_sealed(shop: Shop) -> None:
    id_ = shop.dispatcher.send(NUMBER, TEXT, callback_url=URL, callback_task=TASK).id
    stored = shop.bench.redis.hget(f"d:j:{id_}", "cb").decode()
    assert not leaks(stored, "canary", "token")
    assert stored.split(" ")[2] == f"https://hooks.example.com/...,{TASK}@celery"
    assert kept(shop.bench, id_) == Target(url=URL, task=TASK, queue="celery")


@pytest.mark.parametrize("given", [{}, {"callback_url": None}], ids=["nothing said", "None"])
def test_a_job_without_one_has_nothing(shop: Shop, given: dict[str, Any]) -> None:
    id_ = shop.dispatcher.send(NUMBER, TEXT, **given).id
    assert kept(shop.bench, id_) is None
    assert not shop.bench.redis.exists("d:tc"), "and nothing is read for nobody"


@pytest.mark.parametrize("given", [{"callback_url": ""}, {"callback_task": ""}], ids=str)
def test_an_empty_one_is_for_nobody(shop: Shop, given: dict[str, Any]) -> None:
    id_ = shop.dispatcher.send(NUMBER, TEXT, **given).id
    assert shop.bench.redis.hget(f"d:j:{id_}", "cb") == b"-"


def test_endpoints_are_the_same_whatever_is_in_the_query(shop: Shop) -> None:
    """A token for each customer is no endpoint for each."""
    ids = {
        shop.bench.redis.hget(f"d:j:{shop.dispatcher.send(NUMBER, TEXT, callback_url=url).id}", "cb").split()[0]
        for url in (URL, f"{URL}2", "https://HOOKS.example.com:443/dispatcher")
    }
    assert len(ids) == 1
    other = shop.dispatcher.send(NUMBER, TEXT, callback_url="https://hooks.example.com/other").id
    assert shop.bench.redis.hget(f"d:j:{other}", "cb").split()[0] not in ids


def test_one_of_many_may_say_for_itself(shop: Shop) -> None:
    own = "https://hooks.example.com/own"
    batch = shop.dispatcher.send_many(
        [Message(NUMBER, TEXT), Message(NUMBER, TEXT, callback_url=own), Message(NUMBER, TEXT, callback_url="")],
        callback_url=URL,
    )
    told = [kept(shop.bench, one) for one in batch.jobs.ids]
    assert told == [Target(url=URL), Target(url=own), Target()]
    assert kept(shop.bench, batch.id, "d:b") == Target(url=URL)


ASK: Final[dict[str, Any]] = {
    "verify": lambda d, **told: d.verify(NUMBER, **told).id,
    "lookup": lambda d, **told: d.lookup(NUMBER, **told).id,
    "lookup_many": lambda d, **told: d.lookup_many([NUMBER], **told).jobs.ids[0],
    "operation": lambda d, **told: d.operation("textgoto", "balance", **told).id,
}


@pytest.mark.parametrize("verb", ASK)
def test_every_kind_of_job_may_be_told_of(shop: Shop, verb: str) -> None:
    id_ = ASK[verb](shop.dispatcher, callback_url=URL, callback_task=TASK, callback_queue="billing")
    assert kept(shop.bench, id_) == Target(url=URL, task=TASK, queue="billing")
    job = shop.dispatcher.get(id_)
    assert not leaks(f"{job!r} {job.to_dict()}", "canary")


def test_what_is_made_of_a_job_again_is_told_of_as_well(shop: Shop) -> None:
    d: Dispatcher = shop.dispatcher
    failed = d.send(NUMBER, TEXT, callback_url=URL).id
    shop.bench.advance(failed, shop.bench.claim(failed), "failed")
    assert kept(shop.bench, d.redrive(failed).id) == Target(url=URL)
    code = d.verify(NUMBER, callback_task=TASK).id
    shop.bench.clock.advance(shop.bench.settings.resend_after + 1)
    assert kept(shop.bench, d.resend(code).id) == Target(task=TASK, queue="celery")


def test_a_repeated_request_leaves_it_as_it_was(shop: Shop) -> None:
    first = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k", callback_url=URL).id
    assert shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k").id == first
    assert kept(shop.bench, first) == Target(url=URL)
