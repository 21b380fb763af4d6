"""The plain script, without Redis or worker."""

from __future__ import annotations

from functools import partial

import pytest
import script

from dispatcher.testing import FakeProviders

PERSON = "+447700900001"


@pytest.mark.dispatcher(auto=True)
def test_it_tells_what_became_of_a_text(messages: FakeProviders, capsys: pytest.CaptureFixture[str]) -> None:
    """Its state, and each of its events."""
    assert script.main(PERSON, "Your parcel is here") == 0
    (text,) = messages.sent
    assert (text.to, text.text, text.provider) == (PERSON, "Your parcel is here", "textgoto")
    assert capsys.readouterr().out.splitlines() == [f"{text.id} is delivered", "job.sent", "job.delivered"]


@pytest.mark.dispatcher(auto=True)
def test_it_tells_why_one_failed(messages: FakeProviders, capsys: pytest.CaptureFixture[str]) -> None:
    """With the provider's own words."""
    messages.on(PERSON, partial(messages.fail, message="unknown subscriber"))
    assert script.main(PERSON, "Hello") == 1
    assert "is failed: unknown subscriber\njob.failed\n" in capsys.readouterr().out


def test_what_can_never_work_is_refused(messages: FakeProviders, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is stored, and without telling the number."""
    assert script.main("07700 900468", "Hello") == 2
    assert messages.sent == []
    assert "468" not in capsys.readouterr().out


def test_what_nobody_sends_is_not_waited_for_for_ever(
    messages: FakeProviders, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays where it is."""
    assert script.main(PERSON, "Hello", patience=0.1) == 1
    assert messages.sent[0].state == "queued"
    assert "queued" in capsys.readouterr().out
