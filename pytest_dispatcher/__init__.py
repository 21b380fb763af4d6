"""The pytest plugin of Dispatcher: the fixture `messages`, a `dispatcher.testing.FakeProviders` for each test.

Apart from the package itself, so that test suites which do not use it need not load it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dispatcher.testing import FakeProviders


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker, for suites that know no other than those they name."""
    config.addinivalue_line(
        "markers",
        "dispatcher(auto=False, accounts=('test',), at=None, **settings): what the fixture `messages` begins with, as "
        "dispatcher.testing.FakeProviders takes it",
    )


@pytest.fixture
def messages(request: pytest.FixtureRequest) -> Iterator[FakeProviders]:
    """Play the providers to whatever uses Dispatcher: no Redis, no worker, an empty store, a clock that stands."""
    from dispatcher.testing import FakeProviders  # noqa: PLC0415 - only whoever uses it loads it

    marked = request.node.get_closest_marker("dispatcher")
    with FakeProviders(**(marked.kwargs if marked else {})) as fake:
        yield fake
