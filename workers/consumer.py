"""Celery's consumer, which tells Flower of many tasks at once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from celery.worker import consumer

#: The stubs leave most of it out.
_CelerysConsumer: Any = consumer.Consumer

#: Seconds that what is told of tasks is gathered for. Left alone, Celery (5.7) publishes it with nearly each message,
#: and waits for the broker each time: that is most of what a message costs it.
_GATHERED: Final = 0.1


class Consumer(_CelerysConsumer):  # type: ignore[misc]  # its base is Any, see there
    """A consumer whose events wait a moment for others; what is more than Celery gathers goes at once, as ever."""

    _is_waiting = False

    def on_send_event_buffered(self) -> None:
        """Have what is buffered told soon; called from any thread, for each event."""
        if self.hub and not self._is_waiting:
            self._is_waiting = True
            self.hub.call_soon(self._wait)

    def _wait(self) -> None:
        # In the loop's own thread, as its timers ask for.
        self.hub.call_later(_GATHERED, self._tell)

    def _tell(self) -> None:
        self._is_waiting = False
        self._flush_events()

    def on_close(self) -> None:
        """Begin anew after the connection was lost: the timers are gone with it."""
        super().on_close()
        self._is_waiting = False

    def stop(self) -> None:
        """Tell what was not told yet."""
        with suppress(*self.connection_errors):
            self._flush_events()
        super().stop()
