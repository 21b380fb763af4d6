"""What application code calls, on a Redis in memory: what is enqueued, what is refused before, what can be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import redis
from kombu.exceptions import KombuError, OperationalError

from dispatcher import (
    Batch,
    Check,
    ConfigurationError,
    CursorExpired,
    Dispatcher,
    DispatcherError,
    IdempotencyConflict,
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    Job,
    Message,
    NotFound,
    State,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
    WaitTimeout,
    quiet,
)
from dispatcher.accounts import KEY, Account
from tests.unit.support import NUMBER, OTHER, TEXT, Bench, Clock, leaks


class Wordless:
    """What nobody can make words of."""

    def __str__(self) -> str:
        raise RuntimeError("this has no words")


#: It has itself in it.
ENDLESS: dict[str, Any] = {}
ENDLESS["self"] = ENDLESS

ALL = ("send", "verify", "lookup", "balance", "optout.add")
WRONG = "+4477009001234"
HALF = "\ud83d"
TWO = [Message(NUMBER, "Hi Ann"), Message(OTHER, "Hi Bob")]
THREE = [*TWO, Message("+12025550123", "Hi Cy")]


class Shop:
    """An application: its dispatcher, on the same Redis as the bench, and what it published."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        self.clock = clock
        self.bench = Bench(clock, **settings)
        self.dispatcher = Dispatcher(self.bench.settings)
        self.dispatcher._store.redis = self.bench.redis
        self.published: list[tuple[str, list[str]]] = []
        self.broker: Exception | None = None

    def publish(self, app: object, queue: str, ids: Sequence[str]) -> None:
        if self.broker is not None:
            raise self.broker
        if ids:
            self.published.append((queue, list(ids)))

    def serve(self, name: str, *operations: str, **unsupported: str) -> None:
        """Let a worker have published an account."""
        account = Account(name=name, adapter=name, operations=list(operations), unsupported=unsupported)
        self.bench.redis.hset(KEY, name, msgspec.json.encode(account))

    def sent(self, id_: str, code_ttl: float | None = None, **fields: Any) -> bool:
        """Let a worker have sent a job."""
        return self.bench.advance(id_, self.bench.claim(id_), "sent", code_ttl=code_ttl, fields=fields) == "sent"

    def verified(self, code: str = "012837") -> Job:
        """A verification whose code was sent."""
        job = self.dispatcher.verify(NUMBER, code_ttl=300)
        self.sent(job.id, code_ttl=300, vh=self.bench.settings.hashed("code", job.id, code))
        return job


@pytest.fixture
def shop(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    one = Shop(clock)
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    one.serve("textgoto", *ALL, report="the JSON API has no call for delivery reports")
    return one


@pytest.fixture
def dispatcher(shop: Shop) -> Dispatcher:
    return shop.dispatcher


class Passing:
    """The module `time` to whoever waits: sleeping takes no time, and something may happen meanwhile."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.now = 0.0
        self.slept = 0
        self._meanwhile = meanwhile

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1
        self._meanwhile()


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    made = Passing()
    for module in ("reading", "batches"):
        monkeypatch.setattr(f"dispatcher.{module}.time", made)
    return made


# -- what is enqueued --------------------------------------------------------------------------------------------------


def test_a_send_is_durable_published_and_returned(shop: Shop) -> None:
    job = shop.dispatcher.send(
        NUMBER, TEXT, sender="ACME", reference="order-17", metadata={"crm": 4}, tenant="shop-a", options={"time": "x"}
    )
    assert shop.bench.state(job.id) == "queued"
    assert shop.published == [("textgoto", [job.id])]
    assert (job.state, job.to, job.text, job.sender) == (State.QUEUED, "+44********23", "[19 characters]", "ACME")
    assert (job.reference, job.metadata, job.tenant, job.segments) == ("order-17", {"crm": 4}, "shop-a", 1)


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda d: d.send(NUMBER, TEXT), id="send"),
        pytest.param(lambda d: d.send("44 7700 900123", "🙂" * 80, metadata={"a": [1]}), id="send a long text"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, valid_for=600, lane="high"), id="send, valid for a while"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, send_at=1_800_000_600, valid_for=1.5), id="send later"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, send_at=datetime(2027, 1, 1, tzinfo=UTC)), id="send at once"),
        pytest.param(lambda d: d.verify(NUMBER), id="verify"),
        pytest.param(lambda d: d.verify(NUMBER, template="[CODE]!", code_ttl=60, valid_for=30), id="verify, its way"),
        pytest.param(lambda d: d.lookup(NUMBER), id="lookup"),
        pytest.param(lambda d: d.operation("textgoto", "balance"), id="operation"),
        pytest.param(lambda d: d.operation("textgoto", "optout.add", number=NUMBER), id="operation on a number"),
    ],
)
def test_what_is_returned_is_what_is_read(dispatcher: Dispatcher, ask: Callable[[Dispatcher], Job]) -> None:
    job = ask(dispatcher)
    assert dispatcher.get(job.id) == job


@pytest.mark.parametrize(
    ("options", "queue"),
    [
        ({}, "textgoto"),
        ({"category": "otp"}, "textgoto.high"),
        ({"category": "promotional"}, "textgoto"),
        ({"lane": "high"}, "textgoto.high"),
        ({"category": "otp", "lane": "normal"}, "textgoto"),
    ],
    ids=["a text", "a code", "a campaign", "asked for", "a code that is not urgent"],
)
def test_codes_have_their_own_lane(shop: Shop, options: dict[str, Any], queue: str) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT, **options)
    assert shop.published == [(queue, [job.id])]
    assert shop.bench.members(f"d:o:{queue}") == {job.id}


def test_a_verification_takes_the_high_lane(shop: Shop) -> None:
    job = shop.dispatcher.verify(NUMBER)
    assert (job.category, shop.published) == ("otp", [("textgoto.high", [job.id])])


def test_what_is_for_later_is_not_published_yet(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT, send_at=shop.clock.ms / 1000 + 60)
    assert shop.published == []
    assert job.waiting is not None
    assert (job.waiting.reason, job.waiting.until) == ("time", datetime(2027, 1, 15, 8, 1, tzinfo=UTC))
    shop.clock.advance(60)
    assert shop.bench.due() == [job.id]


@pytest.mark.parametrize(
    ("options", "useful"),
    [({}, 600), ({"code_ttl": 60}, 60), ({"code_ttl": 60, "valid_for": 10}, 10)],
    ids=["as long as a code lives", "a shorter life", "sent sooner or not at all"],
)
def test_a_code_is_not_sent_when_it_is_useless(shop: Shop, options: dict[str, Any], useful: int) -> None:
    job = shop.dispatcher.verify(NUMBER, **options)
    assert shop.bench.raw(job.id)["z"] == str(shop.clock.ms + useful * 1000)


def test_a_lookup_asks_for_a_number(shop: Shop) -> None:
    job = shop.dispatcher.lookup("44 7700 900123", reference="r")
    assert (job.kind, job.operation, job.reference, job.to) == ("lookup", "lookup", "r", "+44********23")
    assert shop.dispatcher.get(job.id, reveal=True).to == NUMBER


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"number": "44 7700 900123"}, id="by name"),
        pytest.param({"arguments": {"number": "44 7700 900123"}}, id="as a dict"),
    ],
)
def test_an_operations_arguments_come_by_name_or_as_a_dict(dispatcher: Dispatcher, arguments: dict[str, Any]) -> None:
    job = dispatcher.operation("textgoto", "optout.add", **arguments)
    assert (job.kind, job.operation) == ("operation", "optout.add")
    assert dispatcher.get(job.id, reveal=True).to == NUMBER, "and its number is found however it was written"
    assert [one.id for one in dispatcher.jobs(number=NUMBER)] == [job.id]


def test_nothing_private_lies_in_redis_in_clear(shop: Shop) -> None:
    shop.dispatcher.send(NUMBER, TEXT, idempotency_key=f"about {NUMBER}")
    shop.dispatcher.verify(NUMBER, template=f"{TEXT} [CODE]")
    shop.dispatcher.lookup(NUMBER)
    shop.dispatcher.operation("textgoto", "optout.add", number=NUMBER)
    shop.dispatcher.send_many([Message(NUMBER, TEXT)])
    assert not leaks(repr(shop.bench.dump()), NUMBER, TEXT)
    assert not leaks(repr(shop.published), NUMBER, TEXT)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "error", "field"),
    [
        pytest.param(lambda d: d.send(WRONG, TEXT), InvalidNumber, "to", id="no number"),
        pytest.param(lambda d: d.send(NUMBER, " "), InvalidRequest, "text", id="no text"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, sender="A" * 21), InvalidRequest, "sender", id="long sender"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, category="spam"), InvalidRequest, "category", id="no category"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, lane="fast"), InvalidRequest, "lane", id="no lane"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, valid_for=0), InvalidRequest, "valid_for", id="valid for no time"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, send_at="soon"), InvalidRequest, "send_at", id="no moment"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, send_at=1.8e12), InvalidRequest, "send_at", id="milliseconds"),
        pytest.param(
            lambda d: d.send(NUMBER, TEXT, send_at=datetime(2027, 1, 1)), InvalidRequest, "send_at", id="no zone"  # noqa: DTZ001
        ),
        pytest.param(lambda d: d.send(NUMBER, TEXT, metadata={"a": {1}.pop}), InvalidRequest, "metadata", id="no JSON"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, options={"a": HALF}), InvalidRequest, "options", id="half text"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, tenant="t" * 256), InvalidRequest, "tenant", id="long tenant"),
        pytest.param(
            lambda d: d.send(NUMBER, TEXT, idempotency_key=""), InvalidRequest, "idempotency_key", id="empty key"
        ),
        pytest.param(
            lambda d: d.send(NUMBER, TEXT, idempotency_key=7), InvalidRequest, "idempotency_key", id="a key of digits"
        ),
        pytest.param(
            lambda d: d.send(NUMBER, TEXT, idempotency_key=HALF), InvalidRequest, "idempotency_key", id="half a key"
        ),
        pytest.param(lambda d: d.send(NUMBER, TEXT, provider="nobody"), UnknownProvider, "", id="unknown provider"),
        pytest.param(lambda d: d.verify(WRONG), InvalidNumber, "to", id="verify no number"),
        pytest.param(lambda d: d.verify(NUMBER, template="Hi"), InvalidRequest, "template", id="no place for a code"),
        pytest.param(lambda d: d.verify(NUMBER, code_ttl=0), InvalidRequest, "code_ttl", id="a code without a life"),
        pytest.param(lambda d: d.verify(NUMBER, code_ttl=90.5), InvalidRequest, "code_ttl", id="a fraction of a life"),
        pytest.param(lambda d: d.verify(NUMBER, valid_for=0), InvalidRequest, "valid_for", id="verify for no time"),
        pytest.param(lambda d: d.lookup(""), InvalidNumber, "to", id="look up nothing"),
        pytest.param(lambda d: d.operation("textgoto", "report"), Unsupported, "operation", id="not offered"),
        pytest.param(lambda d: d.operation("textgoto", "nonsense"), Unsupported, "operation", id="no such operation"),
        pytest.param(lambda d: d.operation("textgoto", "send"), InvalidRequest, "operation", id="send as an operation"),
        pytest.param(
            lambda d: d.operation("textgoto", "verify.check"), InvalidRequest, "operation", id="check as an operation"
        ),
        pytest.param(
            lambda d: d.operation("textgoto", "optout.add", number=WRONG), InvalidRequest, "number", id="wrong argument"
        ),
        pytest.param(
            lambda d: d.operation("textgoto", "balance", x={1}.pop), InvalidRequest, "arguments", id="no JSON argument"
        ),
        pytest.param(lambda d: d.send_many([]), InvalidRequest, "messages", id="no messages"),
        pytest.param(
            lambda d: d.send_many([Message(NUMBER, TEXT), Message(WRONG, TEXT)]), InvalidNumber, "messages[1].to",
            id="the second of two numbers",
        ),
        pytest.param(
            lambda d: d.send_many([*[Message(NUMBER, TEXT)] * 3, Message(NUMBER, "")]), InvalidRequest,
            "messages[3].text", id="the fourth text",
        ),
        pytest.param(
            lambda d: d.send_many([Message(NUMBER, TEXT, metadata={"a": "b" * 5000})]), InvalidRequest,
            "messages[0].metadata", id="a message's metadata",
        ),
        pytest.param(lambda d: d.send_many(TWO, lane="x"), InvalidRequest, "lane", id="the lane of all"),
        pytest.param(
            lambda d: d.send_many(TWO, batch_id=HALF), InvalidRequest, "batch_id", id="half a batch"
        ),
        pytest.param(
            lambda d: d.send_many([msgspec.structs.replace(one, idempotency_key="k") for one in TWO]),
            IdempotencyConflict, "messages[1].idempotency_key", id="one key for two messages",
        ),
        pytest.param(lambda d: d.check("x", ""), InvalidRequest, "code", id="an empty code"),
        pytest.param(lambda d: d.check("x", 12837), InvalidRequest, "code", id="a code that lost its nought"),
        pytest.param(lambda d: d.check("x", HALF), InvalidRequest, "code", id="half a letter for a code"),
        pytest.param(lambda d: d.send(Wordless(), TEXT), InvalidNumber, "to", id="a number without words"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, tenant=Wordless()), InvalidRequest, "tenant", id="no name at all"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, lane=Wordless()), InvalidRequest, "lane", id="no lane at all"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, metadata=ENDLESS), InvalidRequest, "metadata", id="endless"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, options=[]), InvalidRequest, "options", id="a list of options"),
        pytest.param(lambda d: d.send(NUMBER, TEXT, provider=HALF), InvalidRequest, "provider", id="half a provider"),
        pytest.param(lambda d: d.send_many(7), InvalidRequest, "messages", id="a number of messages"),
        pytest.param(lambda d: d.send_many([{"to": NUMBER}]), InvalidRequest, "messages[0]", id="a message as a dict"),
        pytest.param(lambda d: d.send_many(TWO, more="no"), InvalidRequest, "more", id="a word for more"),
        pytest.param(
            lambda d: d.operation("textgoto", "balance", arguments=[1]), InvalidRequest, "arguments", id="no dict"
        ),
        pytest.param(lambda d: d.operation("textgoto", ["balance"]), InvalidRequest, "operation", id="two operations"),
        pytest.param(
            lambda d: d.operation("textgoto", "optout.add", number=NUMBER, idempotency_key=""), InvalidRequest,
            "idempotency_key", id="an opt-out that is refused puts nobody on our list",
        ),
        pytest.param(lambda d: d.check(7, "012837"), InvalidRequest, "id_", id="a number for a verification"),
        pytest.param(lambda d: d.check("x", "012837", timeout="5"), InvalidRequest, "timeout", id="a word for a time"),
        pytest.param(lambda d: d.close_batch(HALF), InvalidRequest, "batch_id", id="half a batch to close"),
        pytest.param(lambda d: d.cancel_batch({}), InvalidRequest, "batch_id", id="no batch to cancel"),
    ],
)  # fmt: skip
def test_what_can_never_work_is_refused_before_anything_is_stored(
    shop: Shop, ask: Callable[[Dispatcher], object], error: type[DispatcherError], field: str
) -> None:
    before = shop.bench.dump()
    with pytest.raises(error) as refused:
        ask(shop.dispatcher)
    assert getattr(refused.value, "field", "") == field
    assert not leaks(str(refused.value), WRONG, TEXT)
    after = shop.bench.dump()
    assert {key: value for key, value in after.items() if key not in {"d:mode", "d:hk"}} == before
    assert shop.published == []


def test_what_is_done_anyway_may_be_asked_for(dispatcher: Dispatcher) -> None:
    assert dispatcher.lookup(NUMBER, fresh=True).state == State.QUEUED


@pytest.mark.parametrize("verb", ["send", "verify", "lookup"])
def test_an_argument_that_nobody_knows_is_a_type_error(dispatcher: Dispatcher, verb: str) -> None:
    with pytest.raises(TypeError, match=r"unexpected .*'refrence'"):
        getattr(dispatcher, verb)(*[NUMBER, TEXT][: 2 if verb == "send" else 1], refrence="x")


@pytest.mark.parametrize("key", ["secret_key", "hash_key"])
@pytest.mark.parametrize("verb", ["verify", "check"])
def test_no_code_goes_through_a_redis_without_keys(clock: Clock, key: str, verb: str) -> None:
    shop = Shop(clock, **{key: ""})
    shop.serve("textgoto", *ALL)
    with pytest.raises(ConfigurationError, match=f"DISPATCHER_{key.upper()}"):
        getattr(shop.dispatcher, verb)(*([NUMBER] if verb == "verify" else ["0001", "012837"]))
    assert shop.bench.names() == {KEY}


def test_live_jobs_are_refused_where_the_sandboxs_are(shop: Shop) -> None:
    shop.bench.redis.set("d:mode", "sandbox")
    with pytest.raises(ConfigurationError, match="DISPATCHER_SANDBOX"):
        shop.dispatcher.send(NUMBER, TEXT)
    assert shop.bench.names() == {KEY, "d:mode"}, "what is refused decides nothing for those to come"


@pytest.mark.parametrize("url", ["", "http://127.0.0.1/0", "redis://127.0.0.1:port/0"])
def test_a_redis_that_cannot_be_is_told_when_it_is_made(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_REDIS_URL"):
        Dispatcher(redis_url=url)


# -- providers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "chosen"),
    [(None, "textgoto"), ("textgoto", "textgoto"), (["textgoto"], "textgoto")],
    ids=["the only one", "by name", "a list of one"],
)
def test_the_account_that_is_named_or_the_only_one_is_taken(shop: Shop, provider: Any, chosen: str) -> None:
    shop.serve("other", "lookup")
    assert shop.dispatcher.send(NUMBER, TEXT, provider=provider).provider == chosen


def test_of_several_that_can_do_it_one_must_be_named(shop: Shop) -> None:
    shop.serve("other", "send")
    with pytest.raises(
        InvalidRequest, match="provider: must be named, since several accounts can do it: other, textgoto"
    ):
        shop.dispatcher.send(NUMBER, TEXT)
    assert shop.dispatcher.lookup(NUMBER).provider == "textgoto"
    assert shop.dispatcher.send(NUMBER, TEXT, provider="other").provider == "other"


def test_with_no_account_at_all_the_words_say_what_to_do(clock: Clock) -> None:
    with pytest.raises(ConfigurationError, match=r"no account is known that can do send; set DISPATCHER_PROVIDERS__"):
        Shop(clock).dispatcher.send(NUMBER, TEXT)


def test_an_unknown_name_is_refused_with_those_that_are_known(dispatcher: Dispatcher) -> None:
    with pytest.raises(UnknownProvider, match=r"'nobody' is not known \(known: textgoto\)") as refused:
        dispatcher.send(NUMBER, TEXT, provider="nobody")
    assert refused.value.known == ["textgoto"]


def test_an_account_in_our_own_settings_is_known_before_its_worker_ever_ran(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.client.publish", lambda *_: None)
    shop = Shop(clock, providers={"textgoto": {"uid": "a", "pwd": "b"}})
    job = shop.dispatcher.send(NUMBER, TEXT)
    assert (job.provider, job.waiting and job.waiting.reason) == ("textgoto", "worker")


def test_a_worker_that_started_this_moment_is_known(shop: Shop) -> None:
    shop.dispatcher.send(NUMBER, TEXT)
    shop.serve("fresh", "send")
    assert shop.dispatcher.send(NUMBER, TEXT, provider="fresh").provider == "fresh"


def test_what_a_provider_does_not_offer_is_refused_with_the_reason(dispatcher: Dispatcher) -> None:
    with pytest.raises(Unsupported, match="textgoto does not offer it: the JSON API has no call for delivery reports"):
        dispatcher.operation("textgoto", "report")
    with pytest.raises(Unsupported, match=r"can do balance, lookup, optout\.add, send, verify"):
        dispatcher.operation("textgoto", "number.buy")


def test_the_accounts_can_be_listed(shop: Shop) -> None:
    shop.serve("other", "send")
    assert set(shop.dispatcher.providers()) == {"textgoto", "other"}
    assert shop.dispatcher.providers()["other"].operations == ["send"]


# -- idempotency -------------------------------------------------------------------------------------------------------


def test_the_same_key_returns_the_first_job(shop: Shop) -> None:
    first = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="order-17")
    shop.sent(first.id)
    again = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="order-17")
    assert (again.id, again.state) == (first.id, State.SENT)
    assert shop.published == [("textgoto", [first.id])], "it is not published again"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"text": "Another"}, id="another text"),
        pytest.param({"to": OTHER}, id="another number"),
        pytest.param({"category": "otp"}, id="another category"),
        pytest.param({"send_at": 1_800_000_060}, id="another time"),
        pytest.param({"metadata": {"a": 1}}, id="other metadata"),
    ],
)
def test_the_same_key_with_another_request_is_an_error(dispatcher: Dispatcher, other: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"to": NUMBER, "text": TEXT, "idempotency_key": "order-17"}
    first = dispatcher.send(**usual)
    with pytest.raises(IdempotencyConflict) as refused:
        dispatcher.send(**usual | other)
    assert (refused.value.job_id, refused.value.field) == (first.id, "idempotency_key")


def test_the_same_request_written_differently_is_the_same(dispatcher: Dispatcher) -> None:
    first = dispatcher.send("+44 7700 900123", TEXT, metadata={"a": 1, "b": 2}, idempotency_key="k")
    assert dispatcher.send(NUMBER, TEXT, metadata={"b": 2, "a": 1}, idempotency_key="k").id == first.id


def test_each_tenant_has_keys_of_its_own(dispatcher: Dispatcher) -> None:
    jobs = [dispatcher.send(NUMBER, TEXT, tenant=tenant, idempotency_key="k") for tenant in ("", "a", "b")]
    assert len({job.id for job in jobs}) == 3


@pytest.mark.parametrize("verb", ["verify", "lookup"])
def test_other_jobs_have_keys_too(dispatcher: Dispatcher, verb: str) -> None:
    ask = getattr(dispatcher, verb)
    assert ask(NUMBER, idempotency_key="k").id == ask(NUMBER, idempotency_key="k").id


# -- the broker and Redis away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OperationalError("x"), KombuError("x"), OSError("x")], ids=lambda one: type(one).__name__
)
def test_a_broker_that_is_away_delays_a_job_and_loses_none(
    shop: Shop, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    shop.broker = error
    with caplog.at_level(logging.WARNING, "dispatcher"):
        job = shop.dispatcher.send(NUMBER, TEXT)
    assert job.state == State.QUEUED
    assert shop.bench.members("d:o:textgoto") == {job.id}, "the clock publishes it"
    assert "1 jobs are stored, their message is delayed" in caplog.text
    assert not leaks(caplog.text, NUMBER, TEXT)
    shop.clock.advance(60)
    assert shop.bench.lost(empty=True) == [job.id]


def test_a_redis_that_is_away_stores_and_publishes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.dispatcher.send(NUMBER, TEXT)
    before, published = shop.bench.dump(), list(shop.published)

    def away(*_: object, **__: object) -> None:
        raise redis.ConnectionError(f"no route to redis://:secret@host while sending {NUMBER}")

    monkeypatch.setattr(shop.bench.redis, "evalsha", away)
    with pytest.raises(StoreUnavailable) as refused:
        shop.dispatcher.send(NUMBER, TEXT)
    assert not leaks(str(refused.value), NUMBER, "secret")
    monkeypatch.undo()
    assert (shop.bench.dump(), shop.published) == (before, published)


def test_a_job_whose_answer_was_lost_is_made_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection repeats the call, and the script knows it again by the id that the client made."""
    shop = Shop(clock)
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.bench.redis.set_retry(Dispatcher(shop.bench.settings)._store.redis.get_retry())
    shop.serve("textgoto", *ALL)
    shop.dispatcher.send(NUMBER, TEXT)
    losses = [redis.TimeoutError("Timeout reading from socket")]
    kind: Any = shop.bench.redis.connection_pool.connection_class
    read = kind.read_response

    def lossy(self: Any, *arguments: Any, **named: Any) -> Any:
        answer = read(self, *arguments, **named)
        if losses:
            self.disconnect()
            raise losses.pop()
        return answer

    monkeypatch.setattr(kind, "read_response", lossy)
    job = shop.dispatcher.send(OTHER, TEXT)
    assert not losses
    assert len(shop.bench.members("d:i:textgoto:queued")) == 2
    assert shop.bench.state(job.id) == "queued"


# -- many --------------------------------------------------------------------------------------------------------------


def test_many_messages_make_a_batch_in_their_order(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE, reference="spring")
    assert (len(batch.jobs), batch.counts) == (3, {"queued": 3})
    revealed = [shop.dispatcher.get(id_, reveal=True) for id_ in batch.jobs.ids]
    assert [(job.to, job.text) for job in revealed] == [(one.to, one.text) for one in THREE]
    assert {(job.batch_id, job.reference, job.provider) for job in batch.jobs} == {(batch.id, "spring", "textgoto")}
    assert shop.published == [("textgoto", list(batch.jobs.ids))]
    assert repr(batch) == f"Batch({batch.id}, 3 jobs)"


def test_a_messages_own_words_win_over_the_calls(shop: Shop) -> None:
    own = Message(
        NUMBER, TEXT, sender="OWN", reference="own", metadata={"own": 1}, options={"own": 1}, idempotency_key="k"
    )
    empty = Message(NUMBER, TEXT, sender="", reference="", metadata={}, options={})
    batch = shop.dispatcher.send_many(
        [own, Message(NUMBER, TEXT), empty], sender="ALL", reference="all", metadata={"all": 1}, options={"all": 1}
    )
    jobs = list(batch.jobs)
    assert [job.sender for job in jobs] == ["OWN", "ALL", ""]
    assert [job.reference for job in jobs] == ["own", "all", ""]
    assert [job.metadata for job in jobs] == [{"own": 1}, {"all": 1}, {}]
    taken = shop.bench.take(*batch.jobs.ids).records
    sealer = shop.bench.settings.sealer()
    options = [msgspec.json.decode(sealer.open(one[2], one[0].decode())).get("options") for one in taken]
    assert options == [{"own": 1}, {"all": 1}, None]


def test_terms_of_all_are_those_of_each(clock: Clock, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    # At noon in London, and no quiet hours anywhere.
    monkeypatch.setattr("dispatcher.drafts.time", clock)
    shop.dispatcher.settings.__dict__["quiet"] = quiet.parse(["never"])
    batch = shop.dispatcher.send_many(
        THREE, category="promotional", tenant="t", valid_for=600, send_at=shop.clock.ms / 1000 + 60, lane="high"
    )
    assert shop.published == []
    assert shop.bench.members("d:w:textgoto.high") == set(batch.jobs.ids)
    assert {(job.category.value, job.tenant) for job in batch.jobs} == {("promotional", "t")}
    assert {job.expires_at for job in batch.jobs} == {datetime(2027, 1, 15, 8, 11, tzinfo=UTC)}


def test_many_messages_are_written_a_portion_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.bulk.MOST_MADE", 2)
    monkeypatch.setattr("dispatcher.batches.MOST", 2)
    batch = shop.dispatcher.send_many(Message(NUMBER, f"Hi {number}") for number in range(5))
    assert [len(ids) for _, ids in shop.published] == [2, 2, 1]
    assert batch.counts == {"queued": 5}
    assert [job.id for job in batch.jobs] == list(batch.jobs.ids)


def test_a_conflict_in_a_later_portion_leaves_nothing_enqueued(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing: half a campaign is nothing a caller could repeat."""
    monkeypatch.setattr("dispatcher.bulk.MOST_MADE", 2)
    shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k")
    before, published = shop.bench.dump(), list(shop.published)
    with pytest.raises(IdempotencyConflict) as refused:
        shop.dispatcher.send_many([*THREE, Message(OTHER, TEXT, idempotency_key="k")])
    assert refused.value.field == "messages[3].idempotency_key"
    assert (shop.bench.dump(), shop.published) == (before, published)


def test_a_batch_may_be_added_to(shop: Shop) -> None:
    shop.dispatcher.send_many(THREE[:1], batch_id="spring")
    shop.dispatcher.send_many(THREE[1:], batch_id="spring")
    batch = shop.dispatcher.batch("spring")
    assert (len(batch.jobs), batch.counts) == (3, {"queued": 3})


def test_counts_add_up_though_two_messages_made_one_job(shop: Shop) -> None:
    twice = [Message(NUMBER, TEXT, idempotency_key="k")] * 2
    batch = shop.dispatcher.send_many([*twice, Message(OTHER, TEXT)])
    assert len(batch.jobs) == 3, "one for each message"
    assert sum(batch.counts.values()) == 2, "and two jobs"
    assert shop.published[0][1] == list(dict.fromkeys(batch.jobs.ids)), "and it is published once"
    again = shop.dispatcher.batch(batch.id)
    assert sum(again.counts.values()) == len(again.jobs) == 2, "there are two"


def test_counts_add_up_though_a_job_was_made_before(shop: Shop) -> None:
    shop.sent(shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k").id)
    batch = shop.dispatcher.send_many([Message(NUMBER, TEXT, idempotency_key="k"), Message(OTHER, TEXT)])
    assert batch.counts == {"sent": 1, "queued": 1}
    assert shop.dispatcher.batch(batch.id).counts == {"queued": 1}


def test_the_jobs_of_a_batch_are_a_sequence_read_when_looked_at(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE)
    shop.sent(batch.jobs.ids[1])
    assert [job.state for job in batch.jobs] == ["queued", "sent", "queued"]
    assert batch.jobs[-2].state == "sent"
    assert [job.id for job in batch.jobs[1:]] == list(batch.jobs.ids[1:])
    assert len(batch.jobs[:2]) == 2
    shop.bench.redis.delete(f"d:j:{batch.jobs.ids[0]}")
    assert [job.id for job in batch.jobs] == list(batch.jobs.ids[1:]), "what is not kept any more is left out"
    with pytest.raises(NotFound):
        _ = batch.jobs[0]


def test_a_batch_counts_its_jobs_by_state_without_zeroes(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE)
    shop.sent(batch.jobs.ids[0])
    shop.dispatcher.cancel(batch.jobs.ids[1])
    assert batch.counts == {"queued": 1, "sent": 1, "cancelled": 1}
    shop.dispatcher.cancel(batch.jobs.ids[2])
    assert batch.counts == {"sent": 1, "cancelled": 2}


def test_a_batch_that_never_was_is_not_found(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound, match="there is no batch gone"):
        dispatcher.batch("gone")


def test_a_batch_is_waited_for_until_all_are_settled(shop: Shop, passing: Passing) -> None:
    batch = shop.dispatcher.send_many(THREE)
    left = list(batch.jobs.ids)
    passing._meanwhile = lambda: left and shop.sent(left.pop())
    assert batch.wait() == {"sent": 3}
    assert passing.slept == 3
    with pytest.raises(WaitTimeout, match=r"batch .* is still busy with 3 jobs and not final after 2 s"):
        batch.wait(until="final", timeout=2)


# -- check -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["012837", " 012837\n"], ids=["as it was sent", "with blanks around"])
def test_the_right_code_is_valid_once(shop: Shop, typed: str) -> None:
    job = shop.verified()
    assert shop.dispatcher.check(job.id, typed) == Check(valid=True, status="approved")
    assert shop.dispatcher.check(job.id, typed) == Check(valid=False, status="approved")
    read = shop.dispatcher.get(job.id).verification
    assert read is not None
    assert read.status == "approved"


@pytest.mark.parametrize("typed", ["12837", "012838", "0128370", "١٢٨٣٧", "\x00", "a" * 10_000])
def test_a_wrong_code_is_not_valid_whatever_was_typed(shop: Shop, typed: str) -> None:
    assert shop.dispatcher.check(shop.verified().id, typed) == Check(valid=False, status="pending")


def test_a_code_of_another_verification_is_wrong(shop: Shop) -> None:
    first, second = shop.verified("111111"), shop.verified("222222")
    assert not shop.dispatcher.check(first.id, "222222").valid
    assert shop.dispatcher.check(second.id, "222222").valid


def test_after_five_wrong_codes_the_right_one_comes_too_late(shop: Shop) -> None:
    job = shop.verified()
    statuses = [shop.dispatcher.check(job.id, "000000").status for _ in range(5)]
    assert statuses == ["pending"] * 4 + ["max_attempts_reached"]
    assert shop.dispatcher.check(job.id, "012837") == Check(valid=False, status="max_attempts_reached")


def test_a_code_expires(shop: Shop) -> None:
    job = shop.verified()
    shop.clock.advance(300)
    told = shop.dispatcher.get(job.id).verification
    assert told is not None
    assert told.status == "expired", "also to who only looks"
    assert shop.dispatcher.check(job.id, "012837") == Check(valid=False, status="expired")


def test_what_is_no_verification_is_not_found(dispatcher: Dispatcher) -> None:
    for id_ in ("gone", dispatcher.send(NUMBER, TEXT).id):
        with pytest.raises(NotFound, match=f"there is no verification {id_}"):
            dispatcher.check(id_, "012837")


# -- reading -----------------------------------------------------------------------------------------------------------


def test_a_job_is_read_masked_unless_revealed(dispatcher: Dispatcher) -> None:
    id_ = dispatcher.send(NUMBER, TEXT).id
    assert not leaks(repr(dispatcher.get(id_).to_dict()), NUMBER, TEXT)
    revealed = dispatcher.get(id_, reveal=True)
    assert (revealed.to, revealed.text) == (NUMBER, TEXT)


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        pytest.param(lambda d: d.get({}), "id_", id="get"),
        pytest.param(lambda d: d.get(HALF), "id_", id="get half a letter"),
        pytest.param(lambda d: d.get_many("0001"), "ids", id="one id for many"),
        pytest.param(lambda d: d.get_many(["0001", None]), "ids[1]", id="none of many"),
        pytest.param(lambda d: d.get("0001", reveal="no"), "reveal", id="a word that would reveal"),
        pytest.param(lambda d: d.states(7), "ids", id="states"),
        pytest.param(lambda d: d.cancel(b"0001"), "id_", id="cancel"),
        pytest.param(lambda d: d.batch([]), "id_", id="batch"),
        pytest.param(lambda d: d.wait([]), "id_", id="wait"),
        pytest.param(lambda d: d.wait("0001", until=[]), "until", id="wait until nothing"),
        pytest.param(lambda d: d.wait("0001", timeout=None), "timeout", id="wait for nothing"),
        pytest.param(lambda d: d.wait("0001", timeout=float("nan")), "timeout", id="wait for no number"),
        pytest.param(lambda d: d.wait("0001", timeout=True), "timeout", id="wait truly"),
        pytest.param(lambda d: d.jobs(limit=-1), "limit", id="fewer than none"),
        pytest.param(lambda d: d.jobs(limit=2**64), "limit", id="more than Redis counts"),
        pytest.param(lambda d: d.jobs(provider=["textgoto"]), "provider", id="jobs of several"),
        pytest.param(lambda d: d.jobs(batch=HALF), "batch", id="jobs of half a batch"),
        pytest.param(lambda d: d.events(after=0), "after", id="a number for a cursor"),
        pytest.param(lambda d: d.events(timeout=float("nan")), "timeout", id="events that would never rest"),
        pytest.param(lambda d: d.resume("textgoto", 7), "scope", id="a number for a scope"),
        pytest.param(lambda d: d.resume(None), "provider", id="no account"),
        pytest.param(lambda d: d.opt_out(Wordless()), "number", id="nobody"),
    ],
)
def test_what_cannot_be_read_is_refused(dispatcher: Dispatcher, ask: Callable[[Any], object], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ask(dispatcher)
    assert refused.value.field == field


@pytest.mark.parametrize("verb", ["get", "cancel", "batch", "close_batch", "cancel_batch", "wait"])
def test_a_number_that_is_given_for_an_id_is_not_shown(dispatcher: Dispatcher, verb: str) -> None:
    with pytest.raises(NotFound) as missing:
        getattr(dispatcher, verb)(NUMBER)
    assert leaks(str(missing.value), NUMBER) == []


def test_a_number_of_another_library_counts_as_one(dispatcher: Dispatcher) -> None:
    """It passes for one of Python's, and no document can carry it."""
    seconds = type("float64", (float,), {})(60)
    whole = type("int64", (int,), {})(60)
    assert dispatcher.send(NUMBER, TEXT, valid_for=seconds).expires_at is not None
    assert dispatcher.verify(NUMBER, code_ttl=whole).verification is not None


def test_a_job_that_never_was_is_not_found(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound, match="there is no job gone"):
        dispatcher.get("gone")


def test_of_many_ids_those_are_read_that_there_are(dispatcher: Dispatcher) -> None:
    id_ = dispatcher.send(NUMBER, TEXT).id
    assert set(dispatcher.get_many(["gone", id_])) == {id_}
    assert dispatcher.get_many([]) == {}


def test_waiting_ends_when_the_job_is_settled(shop: Shop, passing: Passing) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    passing._meanwhile = lambda: passing.slept == 3 and shop.sent(job.id)
    assert shop.dispatcher.wait(job.id).state == State.SENT
    assert passing.slept == 3
    assert shop.dispatcher.wait(job.id).state == State.SENT
    assert passing.slept == 3, "at once when it is there"


def test_waiting_until_final_goes_on_behind_sent(shop: Shop, passing: Passing) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    shop.sent(job.id)
    passing._meanwhile = lambda: shop.bench.advance(job.id, "=sent", "delivered")
    assert shop.dispatcher.wait(job.id, until="final").state == State.DELIVERED


def test_waiting_that_takes_too_long_says_where_the_job_is_and_changes_nothing(shop: Shop, passing: Passing) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    before = shop.bench.dump()
    with pytest.raises(WaitTimeout, match=f"job {job.id} is queued and not settled after 5 s") as late:
        shop.dispatcher.wait(job.id, timeout=5)
    assert late.value.state == "queued"
    assert passing.now == pytest.approx(5)
    assert shop.bench.dump() == before


def test_waiting_looks_quickly_at_first_and_slower_then(shop: Shop, passing: Passing) -> None:
    """A code is there in a moment; a campaign takes its time, and many wait for it."""
    job = shop.dispatcher.send(NUMBER, TEXT)
    with pytest.raises(WaitTimeout):
        shop.dispatcher.wait(job.id, timeout=31)
    assert 100 < passing.slept < 200  # 1 s of 20 ms and 30 s of 250 ms: 50 + 120


def test_waiting_for_what_never_was_ends_at_once(dispatcher: Dispatcher, passing: Passing) -> None:
    with pytest.raises(NotFound):
        dispatcher.wait("gone")
    assert passing.slept == 0


def test_not_waiting_at_all_is_a_look(dispatcher: Dispatcher, passing: Passing) -> None:
    with pytest.raises(WaitTimeout):
        dispatcher.wait(dispatcher.send(NUMBER, TEXT).id, timeout=0)
    assert passing.slept == 0


@pytest.mark.parametrize(
    "waits", [Dispatcher.wait, lambda d, id_, **told: d.batch(id_).wait(**told)], ids=["job", "batch"]
)
def test_until_is_settled_or_final_and_nothing_else(shop: Shop, passing: Passing, waits: Callable[..., object]) -> None:
    batch = shop.dispatcher.send_many(THREE[:1])
    id_ = batch.id if waits is not Dispatcher.wait else batch.jobs.ids[0]
    with pytest.raises(InvalidRequest, match="until"):
        waits(shop.dispatcher, id_, until="delivered", timeout=0.1)


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_queued_job_can_be_taken_back(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT, valid_for=60)
    taken_back = shop.dispatcher.cancel(job.id)
    assert (taken_back.state, taken_back.final, taken_back.good) == (State.CANCELLED, True, False)
    assert taken_back.failure is not None
    assert (taken_back.failure.kind, taken_back.failure.code) == ("refused", "cancelled")
    assert shop.bench.members("d:o:textgoto") == shop.bench.members("d:x") == set()


def test_taking_a_job_back_twice_is_as_good_as_once(shop: Shop) -> None:
    """A caller whose answer was lost may say it again."""
    job = shop.dispatcher.send(NUMBER, TEXT)
    assert shop.dispatcher.cancel(job.id) == shop.dispatcher.cancel(job.id)
    assert len(shop.bench.events()) == 1


def test_a_job_that_may_have_been_taken_ends_unknown_when_it_is_taken_back(shop: Shop) -> None:
    job = shop.dispatcher.lookup(NUMBER)
    shop.bench.claim(job.id, repeat="once")
    shop.clock.advance(60)
    shop.bench.sweep()
    assert shop.dispatcher.get(job.id).state == State.QUEUED
    assert shop.dispatcher.cancel(job.id).state == State.UNKNOWN


@pytest.mark.parametrize("state", ["sending", "sent", "unknown", "failed"])
def test_a_job_that_went_on_cannot(shop: Shop, state: str) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    token = shop.bench.claim(job.id)
    if state != "sending":
        shop.bench.advance(job.id, token, state)
    before = shop.bench.dump()
    with pytest.raises(IllegalMove, match=f"{job.id} is {state} and cannot become cancelled"):
        shop.dispatcher.cancel(job.id)
    assert shop.bench.dump() == before


def test_what_never_was_cannot_be_taken_back(dispatcher: Dispatcher) -> None:
    with pytest.raises(NotFound):
        dispatcher.cancel("gone")


def test_a_verification_taken_back_is_cancelled_too(dispatcher: Dispatcher) -> None:
    job = dispatcher.cancel(dispatcher.verify(NUMBER).id)
    assert job.verification is not None
    assert job.verification.status == "cancelled"
    assert dispatcher.check(job.id, "012837") == Check(valid=False, status="cancelled")


# -- listing -----------------------------------------------------------------------------------------------------------


def fill(shop: Shop) -> dict[str, str]:
    """Four jobs, a second apart, by name."""
    shop.serve("other", "send")
    made: dict[str, str] = {}
    for name, to, provider in (("a", NUMBER, "textgoto"), ("b", OTHER, "textgoto"), ("c", NUMBER, "other")):
        made[name] = shop.dispatcher.send(to, TEXT, provider=provider).id
        shop.clock.advance(1)
    made["d"] = shop.dispatcher.send_many([Message(NUMBER, TEXT)], batch_id="spring", provider="other").jobs.ids[0]
    shop.clock.advance(1)
    shop.sent(made["a"])
    return made


@pytest.mark.parametrize(
    ("which", "names"),
    [
        pytest.param({}, "adcb", id="all: the latest to change first"),
        pytest.param({"state": "queued"}, "dcb", id="by state"),
        pytest.param({"state": State.SENT}, "a", id="by another state"),
        pytest.param({"state": "failed"}, "", id="none in this state"),
        pytest.param({"provider": "other"}, "dc", id="by provider"),
        pytest.param({"provider": "nobody"}, "", id="by a provider that is none"),
        pytest.param({"state": "queued", "provider": "textgoto"}, "b", id="by state and provider"),
        pytest.param({"batch": "spring"}, "d", id="of a batch"),
        pytest.param({"batch": "gone"}, "", id="of no batch"),
        pytest.param({"number": "44 7700 900123"}, "dca", id="to a number"),
        pytest.param({"number": NUMBER, "state": "queued"}, "dc", id="to a number, by state"),
        pytest.param({"number": NUMBER, "provider": "textgoto"}, "a", id="to a number, by provider"),
        pytest.param({"number": NUMBER, "batch": "spring"}, "d", id="to a number, of a batch"),
        pytest.param({"number": "+12025550123"}, "", id="to a number nobody wrote to"),
        pytest.param({"limit": 2}, "ad", id="no more than asked for"),
        pytest.param({"number": NUMBER, "limit": 1}, "d", id="no more to a number than asked for"),
        pytest.param({"limit": 0}, "", id="none"),
    ],
)
def test_jobs_are_found(shop: Shop, which: dict[str, Any], names: str) -> None:
    made = fill(shop)
    found = [job.id for job in shop.dispatcher.jobs(**which)]
    assert "".join(name for id_ in found for name in made if made[name] == id_) == names


def test_a_listing_masks_unless_revealed(shop: Shop) -> None:
    fill(shop)
    assert not leaks(repr([job.to_dict() for job in shop.dispatcher.jobs()]), NUMBER, OTHER, TEXT)
    assert {job.to for job in shop.dispatcher.jobs(reveal=True)} == {NUMBER, OTHER}


@pytest.mark.parametrize(
    ("which", "field"),
    [({"state": "happy"}, "state"), ({"state": "happy", "batch": "b"}, "state"), ({"number": WRONG}, "number")],
    ids=["no state", "no state of a batch", "no number"],
)
def test_a_listing_of_what_cannot_be_is_refused(dispatcher: Dispatcher, which: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        dispatcher.jobs(**which)
    assert refused.value.field == field


def test_without_its_key_no_number_can_be_found(clock: Clock) -> None:
    with pytest.raises(
        ConfigurationError, match="DISPATCHER_HASH_KEY is not set, so that jobs were not listed by number"
    ):
        Shop(clock, hash_key="").dispatcher.jobs(number=NUMBER)


def test_a_job_whose_retention_has_passed_is_in_no_listing(shop: Shop) -> None:
    made = fill(shop)
    shop.clock.advance(30 * 86400 + 1)
    assert made["a"] not in {job.id for job in shop.dispatcher.jobs()}


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_tell_what_settled_from_a_cursor_on(shop: Shop) -> None:
    first, second = shop.dispatcher.send(NUMBER, TEXT), shop.dispatcher.send(OTHER, TEXT)
    shop.sent(first.id)
    shop.dispatcher.cancel(second.id)
    told = list(shop.dispatcher.events(after="0", timeout=0))
    assert [(event.type, event.data["id"]) for event in told] == [("job.sent", first.id), ("job.cancelled", second.id)]
    assert list(shop.dispatcher.events(after=told[0].cursor, timeout=0)) == told[1:]
    assert list(shop.dispatcher.events(after=told[1].cursor, timeout=0)) == []


def test_an_event_is_a_document_with_its_cursor(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    shop.sent(job.id)
    (event,) = shop.dispatcher.events(after="0", timeout=0)
    assert (event.schema, event.at) == (1, datetime(2027, 1, 15, 8, tzinfo=UTC))
    assert event.data == shop.dispatcher.get(job.id).to_dict()
    assert not leaks(repr(event), NUMBER, TEXT)
    assert set(msgspec.to_builtins(event)) == {"schema", "cursor", "type", "at", "data"}


def test_an_event_carries_the_job_as_it_stood_then(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    shop.bench.claim(job.id)
    shop.clock.advance(60)
    shop.bench.sweep()
    shop.clock.advance(1)
    shop.bench.advance(job.id, "=unknown", "delivered")
    told = list(shop.dispatcher.events(after="0", timeout=0))
    assert [(event.type, event.data["state"], event.data["seq"]) for event in told] == [
        ("job.unknown", "unknown", 3), ("job.delivered", "delivered", 4),
    ]  # fmt: skip
    assert [event.data["final"] for event in told] == [False, True]


def test_only_news_are_told_unless_a_cursor_is_given(shop: Shop) -> None:
    shop.sent(shop.dispatcher.send(NUMBER, TEXT).id)
    news = shop.dispatcher.events(timeout=5)
    job = shop.dispatcher.send(OTHER, TEXT)
    shop.sent(job.id)
    assert next(news).data["id"] == job.id


def test_of_an_empty_stream_there_are_no_news(dispatcher: Dispatcher) -> None:
    assert list(dispatcher.events(timeout=0)) == list(dispatcher.events(after="0", timeout=0)) == []


def test_what_became_of_a_verification_is_told_too(shop: Shop) -> None:
    job = shop.verified()
    shop.dispatcher.check(job.id, "012837")
    told = list(shop.dispatcher.events(after="0", timeout=0))
    assert [event.type for event in told] == ["job.sent", "verification.approved"]
    assert told[1].data["verification"]["status"] == "approved"
    assert not leaks(repr(told), "012837")


def test_of_a_job_that_is_not_kept_any_more_its_id_is_told(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT)
    shop.sent(job.id)
    shop.bench.redis.delete(f"d:j:{job.id}")
    (event,) = shop.dispatcher.events(after="0", timeout=0)
    assert (event.type, event.data) == ("job.sent", {"id": job.id})


def test_more_events_than_one_read_brings_come_in_order(shop: Shop) -> None:
    ids = [f"{number:04}" for number in range(450)]
    for id_ in ids:
        shop.bench.redis.xadd("d:e", {"t": "job.sent", "i": id_, "n": 1})
    assert [event.data["id"] for event in shop.dispatcher.events(after="0", timeout=0)] == ids


@pytest.mark.parametrize("cursor", ["", "now", "1-", "-1", "1-2-3", "١", "0x1", "1 "])
def test_what_is_no_cursor_is_refused_at_once(dispatcher: Dispatcher, cursor: str) -> None:
    """When it is called, not when it is first looked at."""
    with pytest.raises(InvalidRequest, match="after"):
        dispatcher.events(after=cursor)


def test_events_that_were_trimmed_away_are_missed_loudly(shop: Shop) -> None:
    for _ in range(3):
        shop.sent(shop.dispatcher.send(NUMBER, TEXT).id)
        shop.clock.advance(1)
    cursors = [event.cursor for event in shop.dispatcher.events(after="0", timeout=0)]
    shop.clock.advance(7 * 86400 - 1.5)
    shop.bench.sweep()
    with pytest.raises(CursorExpired) as missed:
        shop.dispatcher.events(after=cursors[0])
    assert (missed.value.cursor, missed.value.oldest) == (cursors[0], cursors[1])
    assert len(list(shop.dispatcher.events(after=cursors[1], timeout=0))) == 1, "nothing after it was missed"
    assert len(list(shop.dispatcher.events(after="0", timeout=0))) == 1, "all that are kept"
    shop.clock.advance(10)
    shop.bench.sweep()
    with pytest.raises(CursorExpired):
        shop.dispatcher.events(after=cursors[1])
    assert list(shop.dispatcher.events(after=cursors[2], timeout=0)) == [], "all gone, and all seen"


# -- its life ----------------------------------------------------------------------------------------------------------


def test_it_closes_its_connections(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(shop.bench.redis, "close", lambda: closed.append("redis"))
    monkeypatch.setattr(shop.dispatcher._celery, "close", lambda: closed.append("broker"))
    with shop.dispatcher as one:
        one.send(NUMBER, TEXT)
        assert closed == []
    assert sorted(closed) == ["broker", "redis"]


def test_a_batch_and_a_check_are_plain_to_look_at(shop: Shop) -> None:
    batch = shop.dispatcher.send_many(THREE)
    assert isinstance(batch, Batch)
    assert not leaks(repr(batch) + repr(list(batch.jobs)), NUMBER, TEXT)
    assert repr(Check(valid=False, status="pending")) == "Check(valid=False, status='pending')"


def test_what_is_useless_at_once_is_told_as_it_is_read(dispatcher: Dispatcher) -> None:
    """Less than a millisecond is none, which is not the same as for ever."""
    job = dispatcher.send(NUMBER, TEXT, valid_for=0.0001)
    assert job.expires_at == dispatcher.get(job.id).expires_at == job.created_at
