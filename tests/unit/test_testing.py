"""`dispatcher.testing`, and the page that shows it: every example of docs/testing.md runs."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

from dispatcher import (
    AsyncDispatcher,
    ConfigurationError,
    Dispatcher,
    FailureKind,
    IdempotencyConflict,
    IllegalMove,
    InvalidRequest,
    Message,
    NotFound,
    NumberLimited,
    ResendTooSoon,
)
from dispatcher.lookups import Network
from dispatcher.settings import load
from dispatcher.testing import FakeProviders
from tests.support import clean_environment
from workers.receiver import Receiver

PAGE: Final = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
EXAMPLES: Final = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

NUMBER: Final = "+447700900123"
OTHER: Final = "+447700900124"
NOON: Final = datetime(2027, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def d(messages: FakeProviders) -> Iterator[Dispatcher]:
    """What the application has."""
    with Dispatcher() as one:
        yield one


def types(d: Dispatcher) -> list[str]:
    return [event.type for event in d.events("0", timeout=0)]


# -- the page ----------------------------------------------------------------------------------------------------------


def test_each_example_of_the_page_runs_in_a_suite_that_knows_nothing_of_us(tmp_path: Path) -> None:
    """With every warning an error, and only markers that are named."""
    assert len(EXAMPLES) > 8
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"test_{number}.py").write_text(example)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", str(tmp_path)],
        env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    tests = sum(len(re.findall(r"^ *def test_", example, re.MULTILINE)) for example in EXAMPLES)
    assert f"{tests} passed" in ended.stdout


def test_a_suite_that_does_not_use_it_does_not_load_it() -> None:
    program = "import sys, pytest_dispatcher; print(*sorted({'dispatcher', 'celery', 'fakeredis'} & {*sys.modules}))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


# -- what becomes of a text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("play", "state", "told"),
    [
        pytest.param("accept", "sent", ["job.sent"], id="taken"),
        pytest.param("deliver", "delivered", ["job.sent", "job.delivered"], id="delivered"),
        pytest.param("undelivered", "undelivered", ["job.sent", "job.undelivered"], id="not delivered"),
        pytest.param("fail", "failed", ["job.failed"], id="failed"),
        pytest.param("unknown", "unknown", ["job.unknown"], id="nobody knows"),
        pytest.param("expire", "expired", ["job.expired"], id="too late"),
    ],
)
def test_a_text_becomes_what_the_test_says(
    messages: FakeProviders, d: Dispatcher, play: str, state: str, told: list[str]
) -> None:
    job = d.send(NUMBER, "Hello")
    assert job.state == "queued"
    assert getattr(messages, play)(job).state == state
    assert d.get(job.id).state == state
    assert types(d) == told
    assert d.wait(job.id, timeout=0.1).state == state


@pytest.mark.parametrize(
    ("first", "then", "state"),
    [
        pytest.param("accept", "deliver", "delivered", id="a receipt comes later"),
        pytest.param("accept", "undelivered", "undelivered", id="which says no"),
        pytest.param("unknown", "accept", "sent", id="it was taken after all"),
        pytest.param("unknown", "deliver", "delivered", id="and arrived"),
        pytest.param("unknown", "fail", "failed", id="it was surely not taken"),
        pytest.param("deliver", "deliver", "", id="once is enough"),
        pytest.param("accept", "accept", "", id="taken is taken"),
        pytest.param("accept", "fail", "", id="what was taken does not fail"),
        pytest.param("accept", "unknown", "", id="nor is it lost"),
        pytest.param("accept", "expire", "", id="nor too late"),
        pytest.param("fail", "deliver", "", id="what failed is over"),
    ],
)
def test_what_follows_is_what_the_states_allow(
    messages: FakeProviders, d: Dispatcher, first: str, then: str, state: str
) -> None:
    job = getattr(messages, first)(d.send(NUMBER, "Hello"))
    if state:
        assert getattr(messages, then)(job).state == state
    else:
        with pytest.raises(IllegalMove):
            getattr(messages, then)(job)
        assert d.get(job.id).state == job.state


@pytest.mark.parametrize("kind", [kind for kind in FailureKind if kind != "opted_out"])
def test_it_fails_for_any_reason(messages: FakeProviders, d: Dispatcher, kind: FailureKind) -> None:
    failure = messages.fail(d.send(NUMBER, "Hello"), kind, code="17", message="no such thing").failure
    assert failure is not None
    assert (failure.kind, failure.code, failure.message) == (kind, "17", "no such thing")


def test_a_provider_that_says_opted_out_puts_them_on_the_list(messages: FakeProviders, d: Dispatcher) -> None:
    messages.fail(d.send(NUMBER, "Hello"), "opted_out")
    assert d.opted_out(NUMBER) is not None
    assert [*d.blocked_by(NUMBER)] == ["test"]


def test_a_price_is_told(messages: FakeProviders, d: Dispatcher) -> None:
    assert messages.deliver(d.send(NUMBER, "Hello"), price="0.03 USD").price == "0.03 USD"


def test_a_job_is_named_in_any_way(messages: FakeProviders, d: Dispatcher) -> None:
    jobs = [d.send(NUMBER, str(n)) for n in range(4)]
    named: list[Any] = [jobs[0], jobs[1].id, messages.sent[2], NUMBER]
    assert [messages.accept(one).id for one in named] == [job.id for job in jobs]
    with pytest.raises(NotFound):
        messages.accept(OTHER)


def test_each_kind_has_its_own_way(messages: FakeProviders, d: Dispatcher) -> None:
    text, lookup, balance = d.send(NUMBER, "Hello"), d.lookup(NUMBER), d.operation("test", "balance")
    for wrong, way in (
        (partial(messages.deliver, lookup), r"answer\(\)"),
        (partial(messages.deliver, balance), r"complete\(\)"),
        (partial(messages.complete, lookup), r"answer\(\)"),
        (partial(messages.complete, text), r"deliver\(\)"),
        (partial(messages.answer, text), "no lookup"),
    ):
        with pytest.raises(IllegalMove, match=way):
            wrong()


# -- what was asked for ------------------------------------------------------------------------------------------------


def test_what_goes_is_listed_in_clear_and_in_order(messages: FakeProviders, d: Dispatcher) -> None:
    d.send(NUMBER, "first", sender="Shop", provider="textgoto", reference="r", metadata={"a": 1}, tenant="t")
    d.send_many([Message(f"+4477009001{n}", str(n)) for n in range(10, 40)], provider="another")
    d.send(OTHER, "last")
    assert [one.text for one in messages.sent] == ["first", *map(str, range(10, 40)), "last"]
    first = messages.sent[0]
    assert (first.to, first.sender, first.provider, first.tenant) == (NUMBER, "Shop", "textgoto", "t")
    assert (first.reference, first.metadata, first.state, first.kind) == ("r", {"a": 1}, "queued", "send")


def test_what_goes_to_no_phone_is_not_listed(messages: FakeProviders, d: Dispatcher) -> None:
    d.opt_out(OTHER)
    d.send(OTHER, "refused")
    d.cancel(d.send(NUMBER, "taken back").id)
    messages.expire(d.send(NUMBER, "too late"))
    d.lookup(NUMBER)
    messages.fail(d.send(NUMBER, "tried"))
    assert [one.text for one in messages.sent] == ["tried"]


# -- codes -------------------------------------------------------------------------------------------------------------


def test_a_code_is_the_one_on_the_phone(messages: FakeProviders, d: Dispatcher) -> None:
    v = d.verify(NUMBER, template="Your code is [CODE]")
    assert messages.sent[0].text == "Your code is [CODE]"
    with pytest.raises(LookupError, match="deliver"):
        messages.code(v)
    assert d.check(v.id, "000000").status == "pending"
    messages.deliver(v)
    code = messages.code(NUMBER)
    assert messages.sent[0].text == f"Your code is {code}"
    assert (d.check(v.id, f"{code}0").valid, d.check(v.id, code).valid, d.check(v.id, code).valid) == (
        False, True, False,
    )  # fmt: skip


def test_another_code_takes_its_place(messages: FakeProviders, d: Dispatcher) -> None:
    v = d.verify(NUMBER)
    messages.deliver(v)
    first = messages.code(v)
    with pytest.raises(ResendTooSoon):
        d.resend(v.id)
    messages.clock.advance(31)
    messages.deliver(d.resend(v.id))
    assert messages.code(v) == messages.code(NUMBER)
    assert d.check(v.id, first).valid == (first == messages.code(v))
    assert d.check(v.id, messages.code(v)).valid


def test_guards_count(messages: FakeProviders, d: Dispatcher) -> None:
    for _ in range(5):
        d.verify(NUMBER)
    with pytest.raises(NumberLimited):
        d.verify(NUMBER)
    messages.clock.advance(timedelta(hours=1))
    d.verify(NUMBER)


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_it_stands_until_it_is_moved(messages: FakeProviders, d: Dispatcher) -> None:
    begun = messages.clock.now()
    assert abs(begun.timestamp() - time.time()) < 60
    job = messages.deliver(d.send(NUMBER, "Hello"))
    assert {entry.at for entry in job.history} == {begun}
    messages.clock.advance(1.5)
    assert d.send(NUMBER, "Hello").created_at == begun + timedelta(seconds=1.5) == messages.clock.now()
    with pytest.raises(ValueError, match="only goes on"):
        messages.clock.set(begun)
    with pytest.raises(ValueError, match="time zone"):
        messages.clock.set(datetime(2099, 1, 1))  # noqa: DTZ001 - the mistake in question


def test_ids_sort_by_the_order_in_which_they_were_made(d: Dispatcher) -> None:
    ids = [d.send(NUMBER, "Hello").id for _ in range(20)]
    assert all(one < other for one, other in pairwise(ids))


def test_what_is_sent_later_waits_for_its_time(messages: FakeProviders, d: Dispatcher) -> None:
    job = d.send(NUMBER, "Hello", send_at=messages.clock.now() + timedelta(days=3))
    messages.settle()
    with pytest.raises(IllegalMove, match=r"waits for time until .*move the clock"):
        messages.deliver(job)
    messages.clock.advance(timedelta(days=3))
    assert messages.deliver(job).state == "delivered"


def test_what_is_useless_expires(messages: FakeProviders, d: Dispatcher) -> None:
    job = d.send(NUMBER, "Hello", valid_for=60)
    messages.clock.advance(60)
    assert d.get(job.id).state == "expired"
    assert types(d) == ["job.expired"]


@pytest.mark.dispatcher(at=NOON)
def test_a_promotion_does_not_go_at_night(messages: FakeProviders, d: Dispatcher) -> None:
    """Also one that was enqueued by day, and comes to a worker at night."""
    job = d.send(NUMBER, "20 % off", category="promotional")
    messages.clock.set(NOON.replace(hour=23))
    messages.settle()
    now = d.get(job.id).waiting
    assert now is not None
    assert now.reason == "quiet_hours"
    with pytest.raises(IllegalMove, match="quiet_hours"):
        messages.deliver(job)
    messages.clock.advance(86400 / 2)
    messages.settle()
    assert d.get(job.id).state == "delivered"


@pytest.mark.dispatcher(auto=True, at=NOON)
def test_what_is_due_on_the_way_is_played_at_its_time(messages: FakeProviders, d: Dispatcher) -> None:
    jobs = [d.send(NUMBER, "Hello", send_at=NOON + timedelta(seconds=n), valid_for=5) for n in (10, 30, 20)]
    messages.clock.advance(3600)
    ends = [d.get(job.id) for job in jobs]
    assert [job.state for job in ends] == ["delivered"] * 3
    assert [job.updated_at - NOON for job in ends] == [timedelta(seconds=n) for n in (10, 30, 20)]


# -- people ------------------------------------------------------------------------------------------------------------


@pytest.mark.dispatcher(stop_text="You get no more texts.", help_text="We are the shop.")
def test_a_stop_is_answered_and_holds(messages: FakeProviders, d: Dispatcher) -> None:
    before = d.send(NUMBER, "Hello")
    messages.receive(NUMBER, " stop ", to="+447700900999")
    messages.settle()
    assert d.get(before.id).state == "failed"
    assert [(one.text, one.sender, one.state) for one in messages.sent] == [
        ("You get no more texts.", "+447700900999", "delivered")
    ]
    messages.receive(NUMBER, "HELP")
    assert messages.sent[-1].text == "We are the shop."
    messages.receive(NUMBER, "START")
    assert d.opted_out(NUMBER) is None
    assert messages.deliver(d.send(NUMBER, "Welcome back")).state == "delivered"


def test_any_other_text_is_an_event(messages: FakeProviders, d: Dispatcher) -> None:
    for _ in range(2):
        messages.receive(NUMBER, "When do you open?", provider="textgoto", to="12345", ref="1")
    (event,) = d.events("0", timeout=0, reveal=True)
    told = {name: event.data[name] for name in ("from", "to", "text", "provider", "opt_out")}
    assert told == {"from": NUMBER, "to": "12345", "text": "When do you open?", "provider": "textgoto", "opt_out": None}


# -- budgets, idempotency, batches -------------------------------------------------------------------------------------


@pytest.mark.dispatcher(budgets=["tenant=* messages=2/day"])
def test_a_budget_is_used_up_when_texts_go(messages: FakeProviders, d: Dispatcher) -> None:
    jobs = [d.send(NUMBER, "Hello", tenant="a") for _ in range(3)]
    messages.settle()
    assert [d.get(job.id).state for job in jobs] == ["delivered", "delivered", "failed"]
    assert types(d)[-2:] == ["budget.exceeded", "job.failed"]
    messages.clock.advance(86400)
    assert messages.deliver(d.send(NUMBER, "Hello", tenant="a")).state == "delivered"


def test_a_key_makes_one_text(messages: FakeProviders, d: Dispatcher) -> None:
    assert len({d.send(NUMBER, "Hello", idempotency_key="k").id for _ in range(3)}) == 1
    with pytest.raises(IdempotencyConflict):
        d.send(NUMBER, "Goodbye", idempotency_key="k")
    assert len(messages.sent) == 1


def test_a_batch_settles(messages: FakeProviders, d: Dispatcher) -> None:
    batch = d.send_many([Message(NUMBER, str(n)) for n in range(40)], provider="textgoto")
    assert batch.counts == {"queued": 40}
    messages.undelivered(batch.jobs.ids[0])
    messages.settle()
    assert batch.wait(timeout=0.1) == {"undelivered": 1, "delivered": 39}
    assert types(d).count("batch.settled") == 1


# -- lookups and operations --------------------------------------------------------------------------------------------


def test_a_lookup_is_answered_in_the_shape_of_any(messages: FakeProviders, d: Dispatcher) -> None:
    job = d.lookup(NUMBER)
    told = messages.answer(
        job,
        network=Network(name="O2", mcc="234"),
        original_network="EE",
        ported=True,
        raw={"hlr": 1},
        price="1 credits",
    )
    assert (told.state, told.price) == ("completed", "1 credits")
    result = told.result
    assert (result["current_network"]["mcc"], result["original_network"]["name"]) == ("234", "EE")
    assert (result["ported"], result["roaming"], result["country"], result["raw"]) == (
        True,
        "unknown",
        "GB",
        {"hlr": 1},
    )
    with pytest.raises(ValueError, match="line_type"):
        messages.answer(d.lookup(OTHER), line_type="carrier pigeon")


def test_who_asks_for_the_same_number_gets_the_same_answer(messages: FakeProviders, d: Dispatcher) -> None:
    first, second = d.lookup(NUMBER), d.lookup(NUMBER)
    messages.answer(first, line_type="voip")
    messages.settle()
    assert d.get(second.id).result["line_type"] == "voip"
    assert d.get(second.id).result["cached"] is True


@pytest.mark.dispatcher(auto=True)
def test_operations_are_answered_as_said(messages: FakeProviders, d: Dispatcher) -> None:
    messages.on("balance", partial(messages.complete, result={"balance": "3"}))
    assert d.wait(d.operation("textgoto", "balance").id).result == {"balance": "3"}
    assert d.wait(d.operation("test", "report").id).result == {}


# -- by itself ---------------------------------------------------------------------------------------------------------


@pytest.mark.dispatcher(auto=True)
def test_code_that_sends_and_waits_goes_on(messages: FakeProviders, d: Dispatcher) -> None:
    messages.on("+44 7700 900124", messages.unknown)
    assert d.wait(d.send(NUMBER, "Hello").id, until="final").state == "delivered"
    assert d.wait(d.send(OTHER, "Hello").id).state == "unknown"
    v = d.verify(NUMBER)
    assert d.check(v.id, messages.code(v)).valid


@pytest.mark.dispatcher(auto=True)
def test_asyncio_and_threads_share_it(messages: FakeProviders) -> None:
    async def texts() -> list[str]:
        async with AsyncDispatcher() as d:
            jobs = await asyncio.gather(*(d.send(NUMBER, str(n)) for n in range(8)))
            return [(await d.wait(job.id)).state for job in jobs]

    assert asyncio.run(texts()) == ["delivered"] * 8
    thread = threading.Thread(target=lambda: Dispatcher().send(OTHER, "from a thread"))
    thread.start()
    thread.join()
    assert messages.sent[-1].text == "from a thread"
    assert messages.sent[-1].state == "delivered"


def test_a_group_of_consumers_with_other_filters_is_refused_here_too(messages: FakeProviders, d: Dispatcher) -> None:
    assert [*d.events("0", group="billing", types="job.*", timeout=0)] == []

    async def other() -> None:
        async with AsyncDispatcher() as asynchronous:
            async for _ in asynchronous.events(group="billing", timeout=0):
                pass

    with pytest.raises(InvalidRequest, match="cannot be read for all events as well"):
        asyncio.run(other())


# -- accounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.dispatcher(accounts=["a", "b"], routes="country=US -> b; -> a")
def test_routes_are_followed(messages: FakeProviders, d: Dispatcher) -> None:
    assert [d.send(to, "Hello").provider for to in (NUMBER, "+12125550100")] == ["a", "b"]
    assert d.send(NUMBER, "Hello", provider=["c", "b"]).route == ["c", "b"]


@pytest.mark.dispatcher(providers={"textgoto": {"uid": "1", "pwd": "2"}})
def test_accounts_of_the_settings_are_those_that_are_known(d: Dispatcher) -> None:
    assert d.send(NUMBER, "Hello").provider == "textgoto"


# -- callbacks ---------------------------------------------------------------------------------------------------------


@pytest.mark.dispatcher(callback_url="https://shop.example.com/all", callback_events="job.delivered,inbound.*")
def test_callbacks_go_where_they_were_asked_for(messages: FakeProviders, d: Dispatcher) -> None:
    own = "https://shop.example.com/own?token=1"
    messages.deliver(d.send(NUMBER, "1"))
    messages.deliver(d.send(NUMBER, "2", callback_url=own))
    messages.deliver(d.send(NUMBER, "3", callback_url=""))
    messages.receive(NUMBER, "Hello")
    d.send_many([Message(NUMBER, "4")], callback_task="shop.told", callback_queue="shop")
    messages.settle()
    told = [(one.url, one.task, one.queue, one.type) for one in messages.callbacks]
    task = ("", "shop.told", "shop")
    assert told == [
        ("https://shop.example.com/all", "", "", "job.delivered"), (own, "", "", "job.sent"),
        (own, "", "", "job.delivered"), ("https://shop.example.com/all", "", "", "inbound.text"),
        (*task, "job.sent"), (*task, "batch.settled"), (*task, "job.delivered"),
    ]  # fmt: skip
    assert NUMBER not in repr([one.event for one in messages.callbacks])


def secret(n: int) -> str:
    return "whsec_" + f"{n}" * 40


@pytest.mark.dispatcher(callback_secret=f"{secret(1)},{secret(2)}", callback_reveal=True)
def test_a_request_is_signed_by_each_secret(messages: FakeProviders, d: Dispatcher) -> None:
    """As it stands at https://www.standardwebhooks.com; also when the clock is in another year."""
    messages.clock.advance(timedelta(days=400))
    messages.deliver(d.send(NUMBER, "Hello", callback_url="https://shop.example.com/"))
    notice = messages.callbacks[-1]
    for one in (secret(1), secret(2)):
        event = Webhook(one).verify(notice.body, notice.headers)
        assert (event["type"], event["data"]["to"]) == ("job.delivered", NUMBER)
    (*_, last) = d.events("0", timeout=0)
    headers, body = messages.webhook(last)
    assert headers["webhook-id"] == notice.id == f"evt_{last.cursor}"
    assert Webhook(secret(2)).verify(body, headers)["data"]["to"] != NUMBER


# -- the store ---------------------------------------------------------------------------------------------------------


def test_what_an_application_made_once_goes_on_in_the_next_test() -> None:
    """It begins empty each time, and leaves environment and time as they were."""
    before = dict(os.environ)
    with FakeProviders():
        d = Dispatcher()
        d.send(NUMBER, "Hello")
    for _ in range(2):
        with FakeProviders(auto=True) as messages:
            assert messages.sent == []
            assert d.wait(d.send(NUMBER, "Hello").id).state == "delivered"
    assert dict(os.environ) == before
    assert abs(d.send(NUMBER, "Hello", provider="textgoto").created_at.timestamp() - time.time()) < 60


def test_one_store_is_played_to_once(messages: FakeProviders) -> None:
    with pytest.raises(ConfigurationError, match="played to already"), FakeProviders():
        pass
    assert Dispatcher().send(NUMBER, "Hello").state == "queued"


def test_a_url_of_its_kind_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one that there is already is used."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "memory://mine")
    one, other = Dispatcher(), Dispatcher()
    job = one.send(NUMBER, "Hello", provider="textgoto")
    assert other.get(job.id, reveal=True).text == "Hello"
    assert Dispatcher(redis_url="memory://another").jobs() == []
    with FakeProviders() as messages:
        assert one.jobs() == []
        assert messages.deliver(one.send(NUMBER, "Hello")).state == "delivered"


def test_nothing_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a broker is set, as production has it; nor does anybody wait for a disk."""
    with FakeProviders(broker_url="redis://127.0.0.1:1/0", durability="fsync") as messages:
        assert messages.deliver(Dispatcher().send(NUMBER, "Hello")).state == "delivered"


def test_without_fakeredis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dispatcher\[testing\]'"):
        Dispatcher(redis_url="memory://none")


def test_other_processes_refuse_it() -> None:
    with pytest.raises(ConfigurationError, match=r"memory://.*dispatcher\.testing"):
        Receiver(load(redis_url="memory://mine"))
    ended = subprocess.run(
        [sys.executable, "-c", "import workers.celery"],
        env=clean_environment() | {"DISPATCHER_REDIS_URL": "memory://mine"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("dispatcher: DISPATCHER_REDIS_URL is memory://, a store within one process")
