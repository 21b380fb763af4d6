"""What follows a failure: a table of kind, repeatability and attempt."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.jobs import Category, Kind, Lookup, OnUnknown, Send, Work
from dispatcher.outcomes import Failure, FailureKind
from tests.unit.support import NUMBER, settings
from workers.policy import (
    Again,
    Bounds,
    Decision,
    Expire,
    Failover,
    GiveUp,
    Retry,
    Unknown,
    Wait,
    backoff,
    bounds,
    decide,
    following,
    held_back,
    refused,
)
from workers.providers.base import Repeat

MOST = 8
MADE = 1_800_000_000_000
HOUR = 3600.0
REPEATS: tuple[Repeat, ...] = ("never", "once", "always")

#: Kinds that no repetition can mend.
HOPELESS = ("invalid", "rejected", "opted_out", "refused", "unsupported", "expired", "internal")


def work(
    attempt: int = 1, category: Category = Category.TRANSACTIONAL, valid: float | None = None, **more: Any
) -> Work:
    """A job that was made at `MADE`, before its attempt of that number; useless after `valid` seconds."""
    return Work(
        id="1", provider="p", kind=Kind.LOOKUP, operation="lookup", request=Lookup(to=NUMBER), category=category,
        attempts=attempt - 1, created_at=MADE, begins_at=MADE,
        expires_at=None if valid is None else MADE + round(valid * 1000), **more,
    )  # fmt: skip


def decided(
    kind: str,
    repeat: Again = "never",
    attempt: int = 1,
    *,
    retry_after: float | None = None,
    chance: float = 0.5,
    age: float = 0.0,
    **more: Any,
) -> Decision:
    """What is decided at the end of attempt number `attempt`, `age` seconds after the job was made."""
    failure = Failure(kind=FailureKind(kind), retry_after=retry_after)
    most = Bounds(attempts=MOST, seconds=6 * HOUR)
    return decide(work(attempt, **more), failure, repeat, most, now=MADE + age * 1000, chance=chance)


ENOUGH = GiveUp("gives up after 8 attempts")


@pytest.mark.parametrize(
    ("kind", "repeat", "attempt", "decision"),
    [
        # Surely not processed: again and again, whatever may be repeated. 4 s * 2 ** (attempt - 1) * chance 0.5.
        pytest.param("not_sent", "never", 1, Retry(2), id="not sent, first"),  # 4 * 1 * 0.5
        pytest.param("not_sent", "never", 2, Retry(4), id="not sent, second"),  # 4 * 2 * 0.5
        pytest.param("not_sent", "never", 3, Retry(8), id="not sent, third"),  # 4 * 4 * 0.5
        pytest.param("not_sent", "never", 7, Retry(128), id="not sent, last but one"),  # 4 * 64 * 0.5
        pytest.param("not_sent", "never", 8, ENOUGH, id="not sent, last"),
        pytest.param("not_sent", "once", 3, Retry(8), id="not sent counts not as done once"),
        pytest.param("not_sent", "always", 8, ENOUGH, id="not sent, last, though repeatable"),
        # It may have been done: never again, unless the operation bears it.
        pytest.param("ambiguous", "never", 1, Unknown(), id="ambiguous send"),
        pytest.param("ambiguous", "never", 8, Unknown(), id="ambiguous send, last"),
        pytest.param("ambiguous", "once", 1, Retry(2), id="ambiguous lookup"),
        pytest.param("ambiguous", "once", 2, Unknown(), id="ambiguous lookup, second"),
        pytest.param("ambiguous", "once", 8, Unknown(), id="ambiguous lookup, last"),
        pytest.param("ambiguous", "always", 1, Retry(2), id="ambiguous read"),
        pytest.param("ambiguous", "always", 7, Retry(128), id="ambiguous read, last but one"),
        pytest.param("ambiguous", "always", 8, Unknown(), id="ambiguous read, last: nobody can tell"),
    ],
)
def test_what_may_be_temporary(kind: str, repeat: Repeat, attempt: int, decision: Decision) -> None:
    assert decided(kind, repeat, attempt) == decision


@pytest.mark.parametrize(("kind", "repeat", "attempt"), [*product(HOPELESS, REPEATS, (1, 8))])
def test_what_can_never_work_is_given_up_at_once(kind: str, repeat: Repeat, attempt: int) -> None:
    assert decided(kind, repeat, attempt) == GiveUp()


@pytest.mark.parametrize(("kind", "repeat"), [*product(("unauthorized", "insufficient_funds"), REPEATS)])
@pytest.mark.parametrize("attempt", [1, 8, 100])
def test_what_the_operator_must_mend_waits_and_spends_no_attempt(kind: str, repeat: Repeat, attempt: int) -> None:
    assert decided(kind, repeat, attempt) == Wait("suspended", 600)


@pytest.mark.parametrize("attempt", [1, 8, 100])
@pytest.mark.parametrize(
    ("retry_after", "chance", "delay"),
    [
        pytest.param(30, 0.5, 30, id="for as long as was asked"),
        pytest.param(None, 0.0, 2.5, id="not told, least"),  # 5 * (0.5 + 0 / 2)
        pytest.param(None, 0.5, 3.75, id="not told"),  # 5 * (0.5 + 0.5 / 2)
        pytest.param(None, 1.0, 5.0, id="not told, most"),  # 5 * (0.5 + 1 / 2)
        pytest.param(0, 0.0, 2.5, id="at once is no answer to 'too fast'"),
    ],
)
def test_too_fast_is_no_attempt(attempt: int, retry_after: float | None, chance: float, delay: float) -> None:
    assert decided("throttled", attempt=attempt, retry_after=retry_after, chance=chance) == Wait("limit", delay)


def test_every_kind_of_failure_is_in_one_of_the_tables() -> None:
    waiting = {"unauthorized", "insufficient_funds", "throttled"}
    assert {kind.value for kind in FailureKind} == {"not_sent", "ambiguous", *HOPELESS, *waiting}


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        pytest.param(1, 2, id="sooner than we would: our own pause"),
        pytest.param(90, 90, id="later than we would: as asked"),
    ],
)
def test_a_provider_that_says_when_is_not_asked_before(retry_after: float, delay: float) -> None:
    assert decided("not_sent", retry_after=retry_after) == Retry(delay)


@pytest.mark.parametrize(
    ("category", "attempt", "chance", "seconds"),
    [
        # A code is useless in a minute: 1 s * 2 ** (attempt - 1), 15 s at most.
        (Category.OTP, 1, 1.0, 1),
        (Category.OTP, 2, 1.0, 2),
        (Category.OTP, 4, 1.0, 8),
        (Category.OTP, 5, 1.0, 15),  # 16, cut
        # 4 s, 300 s at most.
        (Category.TRANSACTIONAL, 1, 1.0, 4),
        (Category.TRANSACTIONAL, 7, 1.0, 256),
        (Category.TRANSACTIONAL, 8, 1.0, 300),  # 512, cut
        # A campaign has the day: 30 s, half an hour at most.
        (Category.PROMOTIONAL, 1, 1.0, 30),
        (Category.PROMOTIONAL, 6, 1.0, 960),
        (Category.PROMOTIONAL, 7, 1.0, 1800),  # 1920, cut
        # Full jitter, never quite nought.
        (Category.PROMOTIONAL, 7, 0.25, 450),
        (Category.OTP, 1, 0.0, 0.1),
        (Category.TRANSACTIONAL, 1_000, 0.5, 150),
    ],
)
def test_pauses_double_up_to_a_bound(category: Category, attempt: int, chance: float, seconds: float) -> None:
    assert backoff(category, attempt, chance) == seconds


@given(st.sampled_from(Category), st.integers(1, 50), st.floats(0, 1))
def test_no_pause_is_nought_or_longer_than_a_campaign_bears(category: Category, attempt: int, chance: float) -> None:
    assert 0.1 <= backoff(category, attempt, chance) <= 1800


@given(
    st.sampled_from(FailureKind), st.sampled_from(REPEATS), st.integers(1, 20), st.none() | st.floats(0, 1e6),
    st.floats(0, 1),
)  # fmt: skip
def test_nothing_that_may_have_been_done_is_done_again_unless_it_may_be(
    kind: FailureKind, repeat: Repeat, attempt: int, retry_after: float | None, chance: float
) -> None:
    decision = decided(kind.value, repeat, attempt, retry_after=retry_after, chance=chance)
    assert decision == decided(kind.value, repeat, attempt, retry_after=retry_after, chance=chance)
    if kind == FailureKind.AMBIGUOUS:
        assert isinstance(decision, Unknown if repeat == "never" else Unknown | Retry)
    if attempt >= MOST:
        assert not isinstance(decision, Retry), "attempts come to an end"


def test_a_decision_depends_on_nothing_but_what_it_is_given() -> None:
    assert decided("not_sent") == decided("not_sent")
    assert decided("not_sent", chance=0.25) == Retry(1)  # 4 * 1 * 0.25


# -- too late ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "terms", "decision"),
    [
        # The pause is 2 s for a retry (4 * 1 * 0.5), 3.75 s where it was too fast.
        pytest.param("not_sent", {"age": 6 * HOUR - 2}, Retry(2), id="just in time"),
        pytest.param(
            "not_sent", {"age": 6 * HOUR - 1}, GiveUp("gives up: it is not tried again after 6 h"), id="too old then"
        ),
        pytest.param(
            "throttled", {"age": 6 * HOUR - 1}, GiveUp("gives up: it is not tried again after 6 h"),
            id="waiting for a slow provider counts",
        ),
        pytest.param("not_sent", {"valid": 10, "age": 7}, Retry(2), id="valid for long enough"),
        pytest.param("not_sent", {"valid": 10, "age": 8}, Expire(2), id="useless by then"),
        pytest.param("throttled", {"valid": 10, "age": 8}, Expire(3.75), id="useless before it is slow enough"),
        pytest.param("not_sent", {"valid": 10, "age": 5, "retry_after": 20}, Expire(20), id="told to come too late"),
        pytest.param("unauthorized", {"age": 7 * HOUR, "valid": 9 * HOUR}, Wait("suspended", 600), id="not ours"),
        # A code is tried for as long as it is of use, of which the setting is only a guess: 1 s * 1 * 0.5.
        pytest.param("not_sent", {"category": Category.OTP, "age": HOUR, "code_ttl": 2 * HOUR}, Retry(0.5), id="code"),
        pytest.param(
            "not_sent", {"category": Category.OTP, "age": 600, "code_ttl": 600},
            GiveUp("gives up: it is not tried again after 10 min"), id="code that nobody could use any more",
        ),
        pytest.param("not_sent", {"category": Category.OTP, "valid": 9 * HOUR, "age": 7 * HOUR}, Retry(0.5), id="ok"),
        pytest.param(
            "not_sent", {"category": Category.OTP, "age": 7 * HOUR},
            GiveUp("gives up: it is not tried again after 6 h"), id="text that may hold a code",
        ),
    ],
)  # fmt: skip
def test_what_would_come_too_late_is_not_waited_for(kind: str, terms: dict[str, Any], decision: Decision) -> None:
    assert decided(kind, **terms) == decision


def test_what_may_have_been_done_does_not_end_as_if_it_had_not() -> None:
    assert decided("ambiguous", "always", age=7 * HOUR) == Unknown()


def test_its_age_counts_from_when_it_may_first_be_sent() -> None:
    later = msgspec.structs.replace(work(), begins_at=MADE + 86_400_000)
    most = Bounds(attempts=MOST, seconds=60)
    failure = Failure(kind=FailureKind.NOT_SENT)
    assert decide(later, failure, "never", most, now=MADE + 86_410_000, chance=0.5) == Retry(2)


def test_the_settings_say_how_long_and_how_often() -> None:
    told = settings(max_attempts="otp=3", retry_for="promotional=60")
    assert bounds(told, Category.OTP) == Bounds(attempts=3, seconds=300)
    assert bounds(told, Category.PROMOTIONAL) == Bounds(attempts=60, seconds=60)
    assert decided("not_sent", attempt=1, age=0) == Retry(2)
    one = decide(
        work(), Failure(kind=FailureKind.NOT_SENT), "never", Bounds(attempts=1, seconds=60), now=MADE, chance=0
    )
    assert one == GiveUp("gives up after 1 attempt")


# -- elsewhere ---------------------------------------------------------------------------------------------------------

ROUTE = ("p", "q", "r")


@pytest.mark.parametrize(
    ("provider", "route", "after"),
    [
        pytest.param("p", (), "", id="alone"),
        pytest.param("p", ROUTE, "q", id="first"),
        pytest.param("q", ROUTE, "r", id="second"),
        pytest.param("r", ROUTE, "", id="last: one walk"),
    ],
)
def test_a_route_is_walked_once(provider: str, route: tuple[str, ...], after: str) -> None:
    assert following(msgspec.structs.replace(work(route=route), provider=provider)) == after


@pytest.mark.parametrize(
    ("kind", "terms", "decision"),
    [
        pytest.param("not_sent", {}, Failover("q"), id="surely not sent: at once"),
        pytest.param("not_sent", {"retry_after": 1}, Failover("q"), id="whatever was asked there"),
        pytest.param("unauthorized", {}, Failover("q", spent=False), id="credentials"),
        pytest.param("insufficient_funds", {}, Failover("q", spent=False), id="no money"),
        # Patience: the longest first pause of the category, 4 s; 3.75 s (5 * (0.5 + 0.5 / 2)) is less.
        pytest.param("throttled", {}, Wait("limit", 3.75), id="too fast, for a moment"),
        pytest.param("throttled", {"retry_after": 4}, Wait("limit", 4), id="too fast, as long as it bears"),
        pytest.param("throttled", {"retry_after": 4.1}, Failover("q", spent=False), id="too fast, for too long"),
        pytest.param("throttled", {"category": Category.OTP}, Failover("q", spent=False), id="a code waits for nobody"),
        pytest.param("throttled", {"category": Category.PROMOTIONAL, "retry_after": 30}, Wait("limit", 30), id="bulk"),
        pytest.param("throttled", {"valid": 3}, Failover("q", spent=False), id="useless before it is slow enough"),
        pytest.param("rejected", {}, GiveUp(), id="its own fault"),
        pytest.param("invalid", {}, GiveUp(), id="what the provider calls impossible"),
        pytest.param("opted_out", {}, GiveUp(), id="who wants no texts gets none from another"),
        pytest.param("internal", {}, GiveUp(), id="our own bug"),
        pytest.param("ambiguous", {}, Unknown(), id="never what may have been taken"),
        pytest.param("ambiguous", {"repeat": "resend"}, Failover("q"), id="but as the caller asked"),
        pytest.param("ambiguous", {"repeat": "resend", "doubtful": True}, Unknown(), id="and once only"),
        pytest.param("ambiguous", {"repeat": "always"}, Retry(2), id="a read is asked again where it was"),
        pytest.param("not_sent", {"attempt": MOST}, ENOUGH, id="the last attempt"),
        pytest.param(
            "not_sent", {"age": 7 * HOUR}, GiveUp("gives up: it is not tried again after 6 h"), id="too old for anybody"
        ),
        pytest.param("not_sent", {"valid": 5, "age": 5}, Expire(0), id="useless by now"),
    ],
)  # fmt: skip
def test_where_another_account_is_left(kind: str, terms: dict[str, Any], decision: Decision) -> None:
    assert decided(kind, **{"route": ROUTE} | terms) == decision


@pytest.mark.parametrize("kind", ["not_sent", "unauthorized", "insufficient_funds", "throttled"])
def test_with_the_last_account_it_is_as_with_the_only_one(kind: str) -> None:
    assert decided(kind, route=("q", "p"), retry_after=90) == decided(kind, retry_after=90)


@given(
    st.sampled_from(FailureKind), st.sampled_from((*REPEATS, "resend")), st.integers(1, 9), st.sampled_from(OnUnknown)
)
def test_what_may_have_been_taken_goes_elsewhere_by_the_callers_word_only(
    kind: FailureKind, repeat: Any, attempt: int, on_unknown: OnUnknown
) -> None:
    decision = decided(kind.value, repeat, attempt, route=ROUTE, on_unknown=on_unknown)
    if kind == FailureKind.AMBIGUOUS and repeat != "resend":
        assert not isinstance(decision, Failover)


@pytest.mark.parametrize(
    ("kind", "moves"),
    [("invalid", True), ("unsupported", True), ("internal", False), ("opted_out", False), ("refused", False)],
)
def test_what_an_adapter_refuses_unasked_another_may_take(kind: str, moves: bool) -> None:
    failure = Failure(kind=FailureKind(kind))
    assert refused(work(route=ROUTE), failure) == (Failover("q", spent=False) if moves else GiveUp())
    assert refused(work(), failure) == GiveUp()


@pytest.mark.parametrize("kind", ["not_sent", "unauthorized", "insufficient_funds", "throttled", "ambiguous"])
def test_a_lookup_that_may_have_been_paid_is_asked_nowhere_else(kind: str) -> None:
    terms: dict[str, Any] = {"repeat": "once", "attempt": 2, "retry_after": 90, "doubtful": True}
    assert decided(kind, **terms, route=ROUTE) == decided(kind, **terms)
    assert [held_back(work(2, route=ROUTE, doubtful=True), reason) for reason in ("breaker", "suspended")] == ["", ""]


def test_a_text_that_may_have_been_taken_goes_on_as_its_caller_asked() -> None:
    text: dict[str, Any] = {"kind": Kind.SEND, "operation": "send", "request": Send(to=NUMBER, text="Hello")}
    job = msgspec.structs.replace(work(2, route=ROUTE, doubtful=True), **text)
    assert held_back(job, "breaker") == "q"


def test_a_job_waits_for_a_limit_and_for_nothing_else_where_another_account_is_left() -> None:
    assert [held_back(work(route=ROUTE), reason) for reason in ("limit", "breaker", "suspended")] == ["", "q", "q"]
    assert held_back(work(), "breaker") == ""
