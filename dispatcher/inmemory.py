"""`memory://NAME`: a Redis within this process, for tests; `dispatcher.testing` plays the workers to it.

It is fakeredis, which runs the very scripts that a server would; it is imported by whoever asks for such a Redis, and
by nobody else. All that is made in one process with the same name shares one store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final, TypeAlias

from dispatcher.errors import ConfigurationError

#: What such a URL begins with.
SCHEME: Final = "memory://"

#: Takes what would lie on the broker: a queue, and the ids that a message to it carries.
Listener: TypeAlias = Callable[[str, Sequence[str]], None]

_servers: Final[dict[str, Any]] = {}
_listeners: Final[dict[str, Listener]] = {}
_making: Final = threading.Lock()


def is_memory(url: str) -> bool:
    """Say whether a URL is of a Redis within this process."""
    return url.startswith(SCHEME)


def connect(url: str) -> Any:
    """Return a client of the Redis with this URL. Raises `ConfigurationError` where fakeredis is not installed."""
    return _fakeredis().FakeRedis(server=_server(url))


def tell(url: str, queue: str, ids: Sequence[str]) -> None:
    """Hand what would be published to whoever listens; without anybody it is nothing, as nothing is lost by that."""
    listener = _listeners.get(url)
    if listener is not None:
        listener(queue, ids)


def listen(url: str, listener: Listener | None) -> None:
    """Have `listener` called with what is published, in the thread that does so; None for nobody."""
    if listener is None:
        _listeners.pop(url, None)
    else:
        _listeners[url] = listener


def _server(url: str) -> Any:
    with _making:
        if url not in _servers:
            _servers[url] = _fakeredis().FakeServer()
        return _servers[url]


def _fakeredis() -> Any:
    try:
        import_module("lupa")  # fakeredis runs Lua by it, and comes without
        return import_module("fakeredis")
    except ImportError:
        raise ConfigurationError(
            "DISPATCHER_REDIS_URL is memory://, which needs fakeredis with Lua: pip install 'dispatcher[testing]'"
        ) from None
