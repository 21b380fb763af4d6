"""How the sandbox counts requests, against a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from workers.sandbox.base import Limits, Provider
from workers.sandbox.limits import WINDOW, Limiter, Setting
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

    def takes(self, method: str = "GET", account: str = "sandbox", provider: str = "few") -> bool:
        return not self.limiter.refuses(provider, method, account)

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
    assert counted.limiter.told() == {
        "enforced": True,
        "providers": {
            "textgoto": {"at_once": None, "gets_a_minute": 1},
            "few": {"at_once": None, "gets_a_minute": 3},
        },
    }
    assert [counted.takes(provider="textgoto") for _ in range(2)] == [True, False]
    counted.limiter.reset()
    assert counted.limiter.told()["providers"]["few"] == {"at_once": 2, "gets_a_minute": 3}
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
