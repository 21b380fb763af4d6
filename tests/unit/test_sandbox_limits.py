"""How the sandbox counts requests, against a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from workers.sandbox.base import Limits, Provider
from workers.sandbox.limits import WINDOW, Limiter, Setting, Window
from workers.sandbox.textgoto import TextGoto


class Few(TextGoto):
    name = "few"
    limits = Limits(at_once=2, gets_a_minute=3)


class Counted:
    """A limiter and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        providers: list[Provider] = [TextGoto(), Few()]
        self.limiter = Limiter(providers, lambda: self.now)

    def takes(
        self, method: str = "GET", account: str = "sandbox", provider: str = "few", kinds: Sequence[str] = ()
    ) -> bool:
        return not self.limiter.refuses(provider, method, account, kinds)

    def sends(self, *moments: float, of: int = 1) -> list[bool]:
        """Say of requests with `of` texts each, at these moments, whether they are taken."""
        taken = []
        for self.now in moments:
            taken.append(self.takes("POST", provider="textgoto", kinds=["send"] * of))
        return taken

    def seen(self) -> tuple[int, ...]:
        """Return what the only window saw: taken, refused, and the most in any sliding and any fixed one."""
        (one,) = self.limiter.told().counted
        return one.taken, one.refused, one.sliding, one.fixed

    def begin(self) -> Callable[[], None]:
        assert self.takes("POST")
        ended = self.limiter.begin("few")
        assert ended
        return ended


@pytest.fixture
def counted() -> Counted:
    return Counted()


def test_one_more_at_once_is_refused_until_one_has_ended(counted: Counted) -> None:
    """Both verbs count, whatever the account."""
    first, _second = counted.begin(), counted.begin()
    assert not counted.takes("POST")
    assert not counted.takes("GET", account="another")
    first()
    assert counted.takes("POST")


def test_any_window_of_a_minute_holds_no_more_gets(counted: Counted) -> None:
    """The window slides: each GET makes room a minute after it came."""
    for moment in (1000.0, 1010.0, 1020.0):
        counted.now = moment
        assert counted.takes()
    told = {}
    for counted.now in (1020.0, 1000.0 + WINDOW - 0.1, 1000.0 + WINDOW, 1000.0 + WINDOW + 1, 1010.0 + WINDOW):
        told[counted.now] = counted.takes()
    assert told == {1020.0: False, 1059.9: False, 1060.0: True, 1061.0: False, 1070.0: True}


def test_gets_are_counted_by_account_and_posts_are_not(counted: Counted) -> None:
    assert [counted.takes() for _ in range(4)] == [True, True, True, False]
    assert counted.takes("POST")
    assert counted.takes("GET", account="another")


def test_a_provider_without_limits_takes_all(counted: Counted) -> None:
    assert all(counted.takes(provider="textgoto") for _ in range(2000))
    assert counted.limiter.begin("textgoto") is None


def test_limits_can_be_switched_off_and_on(counted: Counted) -> None:
    """What came in between is not counted."""
    counted.limiter.change(Setting(enforced=False))
    assert all(counted.takes() for _ in range(10))
    assert counted.limiter.begin("few") is None
    counted.limiter.change(Setting(enforced=True))
    assert [counted.takes() for _ in range(4)] == [True, True, True, False]


def test_limits_can_be_set_one_by_one(counted: Counted) -> None:
    """What is not said stays; None is any number; a reset brings the document's own back."""
    counted.limiter.change(Setting(provider="few", at_once=None))
    counted.limiter.change(Setting(provider="textgoto", gets_a_minute=1))
    told = counted.limiter.told()
    assert told.enforced
    limits = {name: (one.at_once, one.gets_a_minute) for name, one in told.providers.items()}
    assert limits == {"textgoto": (None, 1), "few": (None, 3)}
    assert [counted.takes(provider="textgoto") for _ in range(2)] == [True, False]
    counted.limiter.reset()
    few = counted.limiter.told().providers["few"]
    assert (few.at_once, few.gets_a_minute) == (2, 3)
    assert counted.takes(provider="textgoto")


def test_a_reset_forgets_gets_and_not_what_is_being_worked_on(counted: Counted) -> None:
    """Such a request ends later, and must not make room that isn't there."""
    first, second = counted.begin(), counted.begin()
    counted.limiter.reset()
    assert not counted.takes("POST")
    first()
    second()
    counted.begin()
    counted.begin()
    assert not counted.takes("POST")


# -- windows that are set ----------------------------------------------------------------------------------------------


def window(counts: str = "send", most: int | None = None, seconds: float = 60, *, fixed: bool = False) -> Setting:
    return Setting(provider="textgoto", windows=[Window(counts=counts, most=most, seconds=seconds, fixed=fixed)])


def test_a_sliding_window_holds_wherever_it_begins(counted: Counted) -> None:
    counted.limiter.change(window(most=3))
    assert counted.sends(1030, 1040, 1050, 1060, 1089.9, 1090, 1100) == [True, True, True, False, False, True, True]
    assert counted.seen() == (5, 2, 3, 3)


def test_a_fixed_window_begins_by_the_clock(counted: Counted) -> None:
    """1020 and 1080 are multiples of 60: twice as many pass within a second, and the count shows it."""
    counted.limiter.change(window(most=2, fixed=True))
    assert counted.sends(1079, 1079, 1079.5, 1080, 1080, 1081) == [True, True, False, True, True, False]
    assert counted.seen() == (4, 2, 4, 2)


@pytest.mark.parametrize(
    ("counts", "method", "kinds", "drawn"),
    [
        pytest.param("all", "POST", ["send", "send"], 1, id="a request, whatever is in it"),
        pytest.param("get", "GET", ["report"], 1, id="a verb"),
        pytest.param("get", "POST", ["send"], 0, id="another verb"),
        pytest.param("send", "POST", ["send", "send", "send"], 3, id="a kind: each number"),
        pytest.param("send", "POST", ["verify"], 0, id="another kind"),
    ],
)
def test_a_window_counts_what_it_names(
    counted: Counted, counts: str, method: str, kinds: list[str], drawn: int
) -> None:
    counted.limiter.change(window(counts))
    assert counted.takes(method, provider="textgoto", kinds=kinds)
    assert counted.seen() == (drawn, 0, drawn, drawn)


def test_a_request_that_does_not_fit_whole_is_refused_whole(counted: Counted) -> None:
    """What is refused does not count, so that a smaller one still fits."""
    counted.limiter.change(window(most=5))
    assert counted.sends(1000, 1001, of=3) == [True, False]
    assert counted.sends(1002, of=2) == [True]
    assert counted.seen() == (5, 3, 5, 5)


def test_one_that_a_window_refuses_is_counted_by_none(counted: Counted) -> None:
    """Neither by another window, nor as one of the GETs of a minute."""
    both = [Window(counts="get", most=1), Window(counts="all")]
    counted.limiter.change(Setting(provider="few", windows=both))
    assert [counted.takes(account=account) for account in ("a", "a", "b")] == [True, False, True]
    told = {(one.account, one.counts): (one.taken, one.refused) for one in counted.limiter.told().counted}
    assert told == {("a", "get"): (1, 1), ("a", "all"): (1, 0), ("b", "get"): (1, 0), ("b", "all"): (1, 0)}


def test_new_windows_count_anew_and_a_reset_ends_them(counted: Counted) -> None:
    counted.limiter.change(window(most=1))
    assert counted.sends(1000, 1000) == [True, False]
    counted.limiter.change(window(most=1))
    assert counted.sends(1000, 1000) == [True, False]
    counted.limiter.reset()
    assert all(counted.sends(1000, 1000))
    assert counted.limiter.told().counted == []


def test_requests_are_late_where_that_is_set(counted: Counted) -> None:
    assert counted.limiter.late("textgoto") == 0
    counted.limiter.change(Setting(provider="textgoto", late=2.0))
    late = [counted.limiter.late("textgoto") for _ in range(200)]
    assert 0 <= min(late) < max(late) <= 2
    assert counted.limiter.late("few") == 0
