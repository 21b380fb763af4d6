"""What several of the tests here need."""

import pytest

from workers.wire import Rest


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections be used again before their server was seen to keep one open."""
    usual = Rest.__init__

    def trust(rest: Rest, proof: float) -> None:
        usual(rest, proof)
        rest.kept = True

    monkeypatch.setattr(Rest, "__init__", trust)
