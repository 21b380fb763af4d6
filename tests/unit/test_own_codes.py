"""What the road adds for providers that know no verification, few requests at once, and purchases that may get lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher import records
from dispatcher.errors import ConfigurationError, InvalidRequest
from dispatcher.jobs import Category, Operation, Terms, Verify, Work
from dispatcher.outcomes import Failure, FailureKind
from tests.unit.support import NUMBER, Clock, leaks
from tests.unit.test_client import Shop
from tests.unit.test_execute import OK, Road, failure
from workers.limits import Later
from workers.providers import base
from workers.providers.base import Capabilities, Plan, Request, Response

VERIFY = Verify(to=NUMBER, template="Your code is [CODE]")
TERMS = Terms(category=Category.OTP, code_ttl=300)


@pytest.fixture
def road(clock: Clock) -> Road:
    """A worker of a provider that sends texts, and knows nothing of codes; ours are 000001, 000002, ..."""
    made = Road(clock)
    made.adapter.capabilities = Capabilities(recipients=2)  # type: ignore[misc]  # of this instance only
    codes = iter(range(1, 100))
    execution = made.execution
    made.execution = lambda **other: execution(  # type: ignore[method-assign]  # every worker of this test counts on
        make_code=lambda: f"{next(codes):06}", **other
    )
    build = made.adapter.build

    def texts(jobs: Sequence[Work]) -> Plan:
        """Put the texts into the requests, so that the wire sees them."""
        groups = [
            base.Group(
                request=Request(method="POST", url="https://plain.invalid/", body=job.text.encode()), jobs=(job,)
            )
            for group in build(jobs).groups
            for job in group.jobs
        ]
        return Plan(groups=tuple(groups))

    made.adapter.build = texts  # type: ignore[method-assign]
    return made


# -- one-time codes of ours --------------------------------------------------------------------------------------------


def test_where_the_provider_makes_no_code_we_make_it_and_send_it(road: Road) -> None:
    road.enqueue("0001", VERIFY, terms=TERMS)
    assert road.run("0001") == "sent"
    assert road.wire.sent == ["Your code is 000001"]
    assert road.bench.check("0001", road.bench.settings.hashed("code", "0001", "000001")) == (1, "approved")


def test_it_is_stored_before_a_byte_leaves(road: Road) -> None:
    seen: list[dict[str, str]] = []

    def look() -> Response:
        seen.append(road.bench.raw("0001"))
        return OK

    road.wire.answers = [look]
    road.enqueue("0001", VERIFY, terms=TERMS)
    road.run("0001")
    assert seen[0]["vh"] == road.bench.settings.hashed("code", "0001", "000001")
    assert "vx" in seen[0]


def test_it_lies_sealed_or_hashed(road: Road) -> None:
    road.enqueue("0001", VERIFY, terms=TERMS)
    road.run("0001")
    assert not leaks(repr(road.bench.dump()), "000001")


@pytest.mark.parametrize("end", ["not_sent", "throttled"])
def test_a_retry_sends_the_same_code(road: Road, end: str) -> None:
    """The first may be on the phone after all, or on its way."""
    road.adapter.outcomes = {"0001": failure(end)}
    road.enqueue("0001", VERIFY, terms=TERMS)
    word = road.run("0001")
    road.adapter.outcomes = {}
    assert road.again("0001", word) == "sent"
    assert road.wire.sent == ["Your code is 000001"] * 2


def test_after_a_lost_answer_the_code_that_may_have_arrived_is_right(road: Road) -> None:
    road.adapter.outcomes = {"0001": failure("ambiguous")}
    road.enqueue("0001", VERIFY, terms=TERMS)
    assert road.run("0001") == "unknown"
    assert road.bench.check("0001", road.bench.settings.hashed("code", "0001", "000001")) == (1, "approved")


def test_each_verification_has_a_code_of_its_own(road: Road) -> None:
    for id_ in ("0001", "0002"):
        road.enqueue(id_, VERIFY, terms=TERMS)
    road.run("0001", "0002")
    assert sorted(road.wire.sent) == ["Your code is 000001", "Your code is 000002"]
    assert road.bench.check("0001", road.bench.settings.hashed("code", "0001", "000002"))[0] == 0


def test_codes_are_six_digits_with_noughts_in_front(clock: Clock) -> None:
    made = Road(clock).execution()._make_code
    codes = {made() for _ in range(2000)}
    assert {len(code) for code in codes} == {6}
    assert all(code.isdecimal() for code in codes)
    assert any(code.startswith("0") for code in codes)
    assert len(codes) > 1900


# -- a read before a purchase ------------------------------------------------------------------------------------------


class Before:
    """Lets an adapter read something before an operation; notes what it was handed back."""

    def __init__(self, road: Road) -> None:
        self.jobs: list[Work] = []
        road.adapter.before = self.before  # type: ignore[method-assign]
        road.adapter.remember = lambda response, job: response.body.decode()  # type: ignore[method-assign]

    def before(self, job: Work) -> Request | None:
        return (
            Request(method="GET", url="https://plain.invalid/", body=b"before") if job.operation == "lookup" else None
        )


@pytest.fixture
def plain(clock: Clock) -> Road:
    return Road(clock)


def buy(road: Road) -> None:
    road.enqueue("0001", Operation(arguments={}), "lookup")


def test_what_an_operation_is_about_to_change_is_read_first_and_kept_with_the_claim(plain: Road) -> None:
    Before(plain)
    plain.wire.answers = [Response(status=200, body=b"153")]
    buy(plain)
    plain.run("0001")
    assert plain.wire.sent == ["before", "0001"]
    assert plain.bench.settings.sealer().open(plain.bench.redis.hget("d:j:0001", "vb"), "0001") == b"153"


def test_that_it_cannot_be_read_is_no_reason_not_to_go_on(plain: Road) -> None:
    Before(plain)
    plain.wire.answers = [Failure(kind=FailureKind.AMBIGUOUS)]
    buy(plain)
    plain.run("0001")
    assert plain.wire.sent == ["before", "0001"]
    assert "vb" not in plain.bench.raw("0001")


def test_the_read_needs_a_permit_too(plain: Road) -> None:
    Before(plain)
    plain.gate.grants = [Later(5), Later(5)]
    buy(plain)
    assert plain.run("0001") == "queued:limit"
    assert plain.wire.sent == []


def test_other_operations_are_not_read_before(plain: Road) -> None:
    Before(plain)
    plain.enqueue("0001")
    plain.run("0001")
    assert plain.wire.sent == ["0001"]


# -- few requests at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_provider_that_takes_few_requests_at_once_gets_few(plain: Road, at_once: int) -> None:
    plain.adapter.at_once = at_once  # type: ignore[misc]  # of this instance only
    assert crowd(plain) == at_once


def test_any_other_gets_as_many_as_there_are(plain: Road) -> None:
    assert crowd(plain) > 2


def crowd(road: Road) -> int:
    """How many of eight requests were on the wire at once."""
    ids = [f"{number:04}" for number in range(8)]
    for id_ in ids:
        road.enqueue(id_)
    assert road.run(*ids) == "8 sent"
    return road.wire.most


# -- cards -------------------------------------------------------------------------------------------------------------

STORED: dict[str, Any] = {"keyword": "honey", "number": NUMBER}
CARD: dict[str, Any] = {
    "card_number": "4111111111111111", "security_code": "123", "first_name": "Canary", "expiration_year": 2031,
}  # fmt: skip


def paying(clock: Clock, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Shop:
    one = Shop(clock, **settings)
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    one.serve("clubtexting", "keyword.rent")
    return one


def test_a_card_travels_sealed_apart_from_the_request(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    one = paying(clock, monkeypatch, allow_card_data=True)
    job = one.dispatcher.operation("clubtexting", "keyword.rent", **STORED, **CARD)
    assert not leaks(repr(one.bench.dump()), "4111111111111111", "Canary", "2031")
    sealer = one.bench.settings.sealer()
    private = sealer.open(one.bench.redis.hget(f"d:j:{job.id}", "x"), job.id).decode()
    assert "honey" in private
    assert not leaks(private, "4111111111111111", "Canary", "2031"), "or it would outlive the purchase"
    (raw,) = one.bench.take(job.id).records
    assert records.work(raw, sealer).request == Operation(
        arguments=STORED | {name: str(value) for name, value in CARD.items()}
    )


def test_a_card_is_in_no_hash_either(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key with another card is the same request: what tells them apart would be made of the card."""
    one = paying(clock, monkeypatch, allow_card_data=True)
    first = one.dispatcher.operation("clubtexting", "keyword.rent", idempotency_key="rent", **STORED, **CARD)
    other = CARD | {"card_number": "5500000000000004"}
    again = one.dispatcher.operation("clubtexting", "keyword.rent", idempotency_key="rent", **STORED, **other)
    assert first.id == again.id


@pytest.mark.parametrize("name", ["card_number", "security_code"])
def test_a_card_is_refused_unless_it_was_allowed(clock: Clock, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    one = paying(clock, monkeypatch)
    with pytest.raises(InvalidRequest, match=r"card_number.*DISPATCHER_ALLOW_CARD_DATA=1") as refused:
        one.dispatcher.operation("clubtexting", "keyword.rent", keyword="honey", **{name: CARD[name]})
    assert not leaks(str(refused.value), "4111111111111111", "123")
    assert one.dispatcher.jobs() == []


@pytest.mark.parametrize("key", ["secret_key", "hash_key"])
def test_a_card_is_refused_where_it_would_not_be_sealed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    one = paying(clock, monkeypatch, allow_card_data=True, **{key: ""})
    with pytest.raises(ConfigurationError, match=f"DISPATCHER_{key.upper()} is not set"):
        one.dispatcher.operation("clubtexting", "keyword.rent", **STORED, **CARD)


def test_a_stored_card_is_no_secret(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    one = paying(clock, monkeypatch)
    job = one.dispatcher.operation("clubtexting", "keyword.rent", keyword="honey", stored_credit_card="1111")
    assert "xc" not in one.bench.raw(job.id)
