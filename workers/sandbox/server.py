"""The sandbox as a server: the providers, the world they share, and the port they are reached at."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from workers.sandbox import magic
from workers.sandbox.base import Answer, Provider, Request
from workers.sandbox.callbacks import Callbacks, Times
from workers.sandbox.clubtexting import ClubTexting
from workers.sandbox.control import PREFIX, Control
from workers.sandbox.faults import Fault, Switchboard
from workers.sandbox.limits import Limiter
from workers.sandbox.mobtexting import MobTexting
from workers.sandbox.textgoto import TextGoto
from workers.sandbox.thetexting import TheTexting
from workers.sandbox.wire import Connection, Ending
from workers.sandbox.world import Account, Row, World

#: Connections that the kernel holds until they are taken.
BACKLOG: Final = 1024

#: Seconds that an open connection is served for once connections are refused: one more request, so that none is cut off
#: that was just being sent.
GRACE: Final = 0.2

#: Who is played; told apart by their paths.
PROVIDERS: Final[tuple[Provider, ...]] = (TheTexting(), ClubTexting(), TextGoto(), MobTexting())


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ledger: Path | None = None,
    ready: Callable[[str], None] | None = None,
    callbacks: Mapping[str, str] | None = None,
    times: Times | None = None,
    providers: Sequence[Provider] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Play `providers`, or all there are, until `stop` is set, or for ever; port 0 takes a free one.

    `ready` is called with the origin, such as `http://127.0.0.1:8020`, once connections are taken. `callbacks` says
    where each provider calls, and `times` when. Raises `OSError` where the address can't be had or the ledger file not
    be opened, `ValueError` where that file is no ledger, `CallbackError` for an address it must not call. Stopped or
    cancelled, it leaves no connection and no port behind.
    """
    server = Server(PROVIDERS if providers is None else providers, ledger, callbacks, times)
    try:
        origin = await server.open(host, port)
        if ready:
            ready(origin)
        await (stop or asyncio.Event()).wait()
    finally:
        server.close()
        await asyncio.sleep(0)  # aborted connections close their sockets in the loop's next round


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    ledger: Path | None = None,
    ready: Callable[[str], None] | None = None,
    *,
    callbacks: Mapping[str, str] | None = None,
    times: Times | None = None,
) -> None:
    """Do what `serve` does, as the whole of a process, until SIGINT or SIGTERM."""

    async def until_signal() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(host, port, ledger=ledger, ready=ready, callbacks=callbacks, times=times, stop=stop)

    asyncio.run(until_signal())


class Server:
    """Decides how each request ends; listens, and for a while doesn't where it is told to refuse."""

    def __init__(
        self,
        providers: Sequence[Provider],
        ledger: Path | None = None,
        callbacks: Mapping[str, str] | None = None,
        times: Times | None = None,
    ) -> None:
        """Make the world, or find it in the ledger file; nothing listens yet."""
        self._providers = providers
        names = [provider.name for provider in providers]
        now = time.time
        self._callbacks = Callbacks(names, now, callbacks or {}, times or Times())
        self._world = World(self._accounts, ledger, now, magic.reaches)
        self._switchboard = Switchboard()
        self._limiter = Limiter(providers, now)
        self._control = Control(
            self._world, self._switchboard, self._limiter, self._callbacks, providers=providers, refuse=self._refuse
        )
        self._connections: set[Connection] = set()
        self._address = ("", 0)
        self._listener: asyncio.Server | None = None
        self._refusal: asyncio.Task[None] | None = None

    def _accounts(self) -> list[Account]:
        return [account for provider in self._providers for account in provider.accounts()]

    # The port

    async def open(self, host: str, port: int) -> str:
        """Take connections at the address, and return it as an origin."""
        bound = _bound(host, port)
        host, port = self._address = bound.getsockname()[:2]
        await self._listen(bound)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _listen(self, bound: socket.socket, after: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(after)
            self._listener = await loop.create_server(self._connection, sock=bound, backlog=BACKLOG)
        except BaseException:
            bound.close()
            raise

    def _connection(self) -> Connection:
        return Connection(self.play, self._connections, self.late)

    def close(self) -> None:
        """Give up port, connections and ledger at once."""
        if self._refusal:
            self._refusal.cancel()
        self._callbacks.close()
        self._hang_up()
        self._world.close()

    def _hang_up(self) -> None:
        if self._listener:
            self._listener.close()
        for connection in list(self._connections):
            connection.abort()

    def _refuse(self, seconds: float) -> None:
        """Refuse connections for `seconds`, from the loop's next round on: who asked is answered first."""
        if self._refusal is None or self._refusal.done():
            self._refusal = asyncio.get_running_loop().create_task(self._stay_away(seconds))

    async def _stay_away(self, seconds: float) -> None:
        if self._listener:
            self._listener.close()
        bound = _bound(*self._address)  # so that nobody else gets the port
        for connection in self._connections:
            connection.leave()
        grace = min(GRACE, seconds / 2)
        try:
            await asyncio.sleep(grace)
        except BaseException:
            bound.close()
            raise
        for connection in list(self._connections):
            connection.abort_idle()
        await self._listen(bound, after=seconds - grace)

    # The requests

    def late(self, request: Request) -> float:
        """Return after how many seconds a request arrives that was sent now."""
        if request.path.startswith(PREFIX):
            return 0.0
        return next((self._limiter.late(one.name) for one in self._providers if one.serves(request.path)), 0.0)

    def play(self, request: Request) -> Ending:
        """Do what is asked, as far as a fault lets it, and say how the request ends."""
        if request.path.startswith(PREFIX):
            return Ending(self._control.answer(request))
        for provider in self._providers:
            if provider.serves(request.path):
                return self._play(provider, request)
        return Ending(Answer(status=404, body=b"Not Found\n", content_type="text/plain"))

    def _play(self, provider: Provider, request: Request) -> Ending:
        answer, rows = provider.reply(request, self._world)
        if self._limiter.refuses(provider.name, request.method, rows[0].account, [row.kind for row in rows]):
            self._world.commit(provider.refused(request))
            return Ending(provider.limits.refusal)
        done = self._limiter.begin(provider.name)
        met = self._switchboard.meet(provider.name, rows[0].action) or magic.fault(rows, self._world)
        if met is not None:
            rows = [_marked(row, met.fault) for row in rows]
        self._world.commit(rows)
        first = self._callbacks.message(provider, rows)
        if met is None:
            return Ending(answer, first=first, done=done)
        return Ending(met.answer(answer), met.fault.wire, met.delay, first, done)


def _marked(row: Row, fault: Fault) -> Row:
    """Return `row` with the fault it met: undone, if that comes before accepting."""
    if fault.accepts:
        return msgspec.structs.replace(row, fault=fault.name)
    return Row(
        provider=row.provider,
        action=row.action,
        kind=row.kind,
        account=row.account,
        msisdn=row.msisdn,
        accepted=False,
        result=fault.name,
        text=row.text,
        sender=row.sender,
        fault=fault.name,
    )


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that has the address and doesn't listen yet: who connects is refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
