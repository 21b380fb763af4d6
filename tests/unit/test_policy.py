"""What follows a failure: a table of kind, repeatability and attempt."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.jobs import Category, Kind, Lookup, Work
from dispatcher.outcomes import Failure, FailureKind
from tests.unit.support import NUMBER
from workers.policy import Decision, GiveUp, Retry, Unknown, Wait, backoff, decide
from workers.providers.base import Repeat

MOST = 8
REPEATS: tuple[Repeat, ...] = ("never", "once", "always")

#: Kinds that no repetition can mend.
HOPELESS = ("invalid", "rejected", "opted_out", "refused", "unsupported", "expired", "internal")


def decided(
    kind: str,
    repeat: Repeat = "never",
    attempt: int = 1,
    *,
    category: Category = Category.TRANSACTIONAL,
    retry_after: float | None = None,
    chance: float = 0.5,
) -> Decision:
    """What is decided at the end of attempt number `attempt`."""
    job = Work(
        id="1", provider="p", kind=Kind.LOOKUP, operation="lookup", request=Lookup(to=NUMBER), category=category,
        attempts=attempt - 1,
    )  # fmt: skip
    failure = Failure(kind=FailureKind(kind), retry_after=retry_after)
    return decide(job, failure, repeat, MOST, chance)


@pytest.mark.parametrize(
    ("kind", "repeat", "attempt", "decision"),
    [
        # Surely not processed: again and again, whatever may be repeated. 4 s * 2 ** (attempt - 1) * chance 0.5.
        pytest.param("not_sent", "never", 1, Retry(2), id="not sent, first"),  # 4 * 1 * 0.5
        pytest.param("not_sent", "never", 2, Retry(4), id="not sent, second"),  # 4 * 2 * 0.5
        pytest.param("not_sent", "never", 3, Retry(8), id="not sent, third"),  # 4 * 4 * 0.5
        pytest.param("not_sent", "never", 7, Retry(128), id="not sent, last but one"),  # 4 * 64 * 0.5
        pytest.param("not_sent", "never", 8, GiveUp(), id="not sent, last"),
        pytest.param("not_sent", "once", 3, Retry(8), id="not sent counts not as done once"),
        pytest.param("not_sent", "always", 8, GiveUp(), id="not sent, last, though repeatable"),
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
    if kind == FailureKind.AMBIGUOUS:
        assert isinstance(decision, Unknown if repeat == "never" else Unknown | Retry)
    if attempt >= MOST:
        assert not isinstance(decision, Retry), "attempts come to an end"


def test_a_decision_depends_on_nothing_but_what_it_is_given() -> None:
    assert decided("not_sent") == decided("not_sent")
    assert decided("not_sent", chance=0.25) == Retry(1)  # 4 * 1 * 0.25
