"""For your own tests: Dispatcher with no Redis, no worker and no broker; docs/testing.md has examples.

`FakeProviders` plays the providers and the phones. The store is fakeredis with the real scripts, so that states,
idempotency, guards, opt-outs, quiet hours and budgets are those of production. With pytest there is the fixture
`messages`, which is one.
"""

from dispatcher.testing.clock import Clock
from dispatcher.testing.providers import FakeProviders
from dispatcher.testing.told import Notice, Sent

__all__ = ["Clock", "FakeProviders", "Notice", "Sent"]
