"""What the providers tell their customers by themselves: receipts, and texts from phones.

Each provider has one address, or none and then it tells nothing. It wants status 200 or 202 and tries again for any
other, for silence and where nobody listens: three times, 30 minutes apart, by MobTexting's page on webhooks, and ours
for the others, whose documents don't say. Here the time between is 2 s.

All of it goes over a few connections: 100,000 texts make 100,000 requests, one after the other.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from math import inf, isfinite
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from workers.sandbox import magic
from workers.sandbox.base import Outgoing, Provider, Texted
from workers.sandbox.magic import When
from workers.sandbox.world import MESSAGES, Row

#: Requests on their way at the same time, to all addresses together.
CONNECTIONS: Final = 8
#: Seconds that an answer is waited for.
PATIENCE: Final = 10.0
#: "We expect your server to return HTTP 200 or 202" in MobTexting's words.
TAKEN: Final = frozenset({200, 202})
#: A status below it is no answer yet.
_FINAL: Final = 200
#: The port of an address that names none.
_HTTP: Final = 80


class Times(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When providers tell something, in seconds, as the control API takes it."""

    #: From when the phone gets a text, or would, to its receipt.
    after: float = 1.0
    #: What a late receipt waits beyond that.
    late: float = 5.0
    #: Between two tries, and how many come after the first.
    retry_every: float = 2.0
    retries: int = 3

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        for name in ("after", "late", "retry_every", "retries"):
            if getattr(self, name) < 0 or not isfinite(getattr(self, name)):
                raise ValueError(f"{name}: 0 or more")


class CallbackError(ValueError):
    """A callback address that the sandbox must not call, or of a provider that it doesn't play."""


class Address(msgspec.Struct, frozen=True):
    """A callback address on this machine, or in its containers' network."""

    url: str
    host: str
    port: int
    #: Path and query.
    target: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL; raises `CallbackError` unless it is http and leads nowhere far."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme != "http" or not host:
            raise CallbackError("a callback address begins with http:// and a host")
        if not _is_near(host):
            raise CallbackError(
                f"{host} is not this machine: a sandbox calls 127.0.0.1, [::1], localhost or a container's name only"
            )
        if any(character <= " " or character > "~" for character in url):
            raise CallbackError("a callback address is written in ASCII, without spaces")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(url, host, parts.port or _HTTP, target)

    def request(self, outgoing: Outgoing) -> bytes:
        """Return `outgoing` as bytes of HTTP/1.1."""
        joint = "&" if "?" in self.target else "?"
        target = f"{self.target}{joint}{outgoing.query}" if outgoing.query else self.target
        host = f"[{self.host}]" if ":" in self.host else self.host
        headers = {"Host": f"{host}:{self.port}", **outgoing.headers, "Content-Length": str(len(outgoing.body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{outgoing.method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + outgoing.body


def _is_near(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name without dots is nobody's on the internet: localhost, or a container's in its own network.
        return "." not in host


class Told(msgspec.Struct):
    """How it goes with one provider's callbacks."""

    #: Empty: it tells nothing.
    url: str = ""
    #: Due later, tried again later, or on their way.
    waiting: int = 0
    #: Taken by the customer, and given up.
    taken: int = 0
    dropped: int = 0


class _Telling(msgspec.Struct, eq=False):
    """One thing to be told; what it looks like is made when it goes, since 100,000 may wait."""

    provider: Provider
    what: Row | Texted
    tries: int = 0
    #: Done after the first try, however it went.
    tried: asyncio.Future[None] | None = None

    def outgoing(self) -> Outgoing | None:
        return self.provider.receipt(self.what) if isinstance(self.what, Row) else self.provider.inbound(self.what)


class Callbacks:
    """Tells customers what they are to be told, in time."""

    def __init__(
        self, providers: Iterable[str], now: Callable[[], float], addresses: Mapping[str, str], times: Times
    ) -> None:
        """Begin with addresses by provider; `now` is the world's clock. Raises `CallbackError` for a bad one."""
        self._providers = tuple(providers)
        self._now = now
        self._at_start = (_addresses(addresses, self._providers), times)
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: set[_Line] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._addresses, self.times = dict(self._at_start[0]), self._at_start[1]
        #: By when they are due on the loop's clock.
        self._waiting: list[tuple[float, int, _Telling]] = []
        self._told = {name: Told() for name in self._providers}

    # What it is told

    def set(self, addresses: Mapping[str, str]) -> None:
        """Set where providers call; an empty one removes it. Raises `CallbackError`, and then sets none."""
        self._addresses |= _addresses(addresses, self._providers)

    def message(self, provider: Provider, rows: Iterable[Row]) -> asyncio.Future[None] | None:
        """Send the receipts of a request's rows, each when it is time.

        Where one must go before the request is answered, the future is done then.
        """
        if not self._addresses.get(provider.name):
            return None
        before: list[asyncio.Future[None]] = []
        for row in rows:
            if row.accepted and row.kind in MESSAGES:
                for when in magic.receipts(row.msisdn):
                    before += self._receipt(provider, row, when)
        return _all(before)

    def _receipt(self, provider: Provider, row: Row, when: When) -> list[asyncio.Future[None]]:
        telling = _Telling(provider, magic.stale(row) if when == "stale" else row)
        if when == "before":
            telling.tried = asyncio.get_running_loop().create_future()
            self._put(telling, -inf)
            return [telling.tried]
        late = 0.0 if when == "usual" else self.times.late
        self._put(telling, max(row.due, row.at) - self._now() + self.times.after + late)
        return []

    def text(self, provider: Provider, texted: Texted) -> None:
        """Pass a text from a phone on; raises `ValueError` where this provider can't or has nowhere to."""
        if provider.inbound(texted) is None:
            raise ValueError(f"provider: {provider.name} passes no texts on")
        if not self._addresses.get(provider.name):
            raise ValueError(f"provider: {provider.name} has no callback address to pass a text on to; set one first")
        self._put(_Telling(provider, texted), 0.0)

    def told(self) -> dict[str, Told]:
        """Return how it goes, by provider."""
        for name, told in self._told.items():
            address = self._addresses.get(name)
            told.url = address.url if address else ""
        return self._told

    def reset(self) -> None:
        """Begin anew: nothing to tell, addresses and times as at the start."""
        self.close()
        self._begin()

    def close(self) -> None:
        """Stop at once, whatever is on its way."""
        if self._timer:
            self._timer.cancel()
        for *_, telling in self._waiting:
            _tried(telling)
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        for line in self._lines:
            line.close()
        self._lines.clear()

    # What it does

    def _put(self, telling: _Telling, seconds: float) -> None:
        """Tell it in so many seconds; `-inf` puts it before all others."""
        entry = (asyncio.get_running_loop().time() + seconds, next(self._numbers), telling)
        heapq.heappush(self._waiting, entry)
        self._told[telling.provider.name].waiting += 1
        if self._waiting[0] is entry:
            self._proceed()

    def _proceed(self) -> None:
        """Begin what is due, as far as connections allow."""
        if self._timer:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        while self._waiting and len(self._tasks) < CONNECTIONS:
            if self._waiting[0][0] > loop.time():
                self._timer = loop.call_at(self._waiting[0][0], self._proceed)
                return
            *_, telling = heapq.heappop(self._waiting)
            task = loop.create_task(self._tell(telling, self._told[telling.provider.name]))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._proceed()

    async def _tell(self, telling: _Telling, told: Told) -> None:
        """Try once, and count in `told`."""
        address = self._addresses.get(telling.provider.name)
        try:
            outgoing = telling.outgoing() if address else None
            if address is None or outgoing is None:
                return
            if await self._ask(address, outgoing) in TAKEN:
                told.taken += 1
            elif telling.tries < self.times.retries:
                telling.tries += 1
                self._put(telling, self.times.retry_every)
            else:
                told.dropped += 1
        finally:
            told.waiting -= 1
            _tried(telling)

    async def _ask(self, address: Address, outgoing: Outgoing) -> int:
        """Return the status that was answered; 0 for none."""
        try:
            async with asyncio.timeout(PATIENCE):
                line = await self._line(address)
                return await line.ask(address.request(outgoing))
        except (OSError, TimeoutError):
            return 0

    async def _line(self, address: Address) -> _Line:
        """Return a connection that has nothing to do."""
        place = (address.host, address.port)
        for line in self._lines:
            if line.place == place and line.idle:
                line.idle = False
                return line
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: _Line(place, self._lines), *place)
        return line


class _Line(asyncio.Protocol):
    """A connection to a customer, kept open: one request at a time."""

    def __init__(self, place: tuple[str, int], lines: set[_Line]) -> None:
        self.place = place
        self.idle = False
        self._lines = lines
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[int] | None = None
        self._status = 0
        self._stays = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle = False
        self._lines.discard(self)
        if self._answered and not self._answered.done():
            if self._status and exc is None:  # an answer may end where its connection does
                self._answered.set_result(self._status)
            else:
                self._answered.set_exception(exc or ConnectionResetError("closed without an answer"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._status = status if status >= _FINAL else 0

    def on_message_complete(self) -> None:
        self._stays = self._parser.should_keep_alive()
        if self._answered and not self._answered.done() and self._status:
            self._answered.set_result(self._status)

    async def ask(self, request: bytes) -> int:
        """Return the status that `request` is answered with; raises `OSError` where it is not."""
        self._answered, self._status, self._stays = asyncio.get_running_loop().create_future(), 0, False
        try:
            self._transport.write(request)
            status = await self._answered
        except BaseException:
            self.close()
            raise
        if self._stays and not self._transport.is_closing():
            self.idle = True
        else:
            self.close()
        return status

    def close(self) -> None:
        self.idle = False
        self._transport.abort()


def _addresses(addresses: Mapping[str, str], providers: tuple[str, ...]) -> dict[str, Address | None]:
    """Read addresses by provider, empty ones as None; raises `CallbackError` naming the provider."""
    read: dict[str, Address | None] = {}
    for name, url in addresses.items():
        if name not in providers:
            raise CallbackError(f"{name}: no such provider; there are {', '.join(providers)}")
        try:
            read[name] = Address.of(url) if url else None
        except ValueError as error:  # a port may be no number, too
            raise CallbackError(f"{name}: {error}") from None
    return read


def _tried(telling: _Telling) -> None:
    if telling.tried and not telling.tried.done():
        telling.tried.set_result(None)


def _all(futures: list[asyncio.Future[None]]) -> asyncio.Future[Any] | None:
    return asyncio.gather(*futures) if futures else None
