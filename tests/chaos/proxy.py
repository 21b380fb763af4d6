"""A TCP proxy that can fall silent: what is said to it is swallowed, and nobody is told that the other side is gone."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Self

#: Seconds for the loop to start or to stop.
_PATIENCE = 5.0


class Link:
    """One connection that passes through."""

    def __init__(self) -> None:
        self.silent = False
        self.ends: list[asyncio.StreamWriter] = []


class Proxy:
    """Passes connections to a port of the loopback on; its own is `port`.

    Like a NAT that forgot a connection, or a cable that was pulled: a silent link swallows what either side sends,
    also that it closed. The sockets stay open, and the kernel answers keep-alive probes, so that no error ever comes.
    """

    def __init__(self, target: int) -> None:
        """Pass on to `target`."""
        self._target = target
        self._links: set[Link] = set()
        self._deaf = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.port = 0
        #: Seconds that everything said takes on its way, either way.
        self.delay = 0.0
        #: Connections that were ever made, and bytes that were swallowed.
        self.made = 0
        self.swallowed = 0

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection, and listen no more."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    def half_open(self) -> int:
        """Let the connections that there are fall silent for ever; new ones pass. Return how many that were."""
        return asyncio.run_coroutine_threadsafe(self._silence(deaf=False), self._loop).result(_PATIENCE)

    def go_dark(self) -> int:
        """The same, and those that are made from now on are silent, too, until `come_back`."""
        return asyncio.run_coroutine_threadsafe(self._silence(deaf=True), self._loop).result(_PATIENCE)

    def come_back(self) -> None:
        """Let new connections pass again; the silent ones stay so."""
        self._deaf = False

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _silence(self, *, deaf: bool) -> int:
        self._deaf = deaf
        heard = [link for link in self._links if not link.silent]
        for link in heard:
            link.silent = True
        return len(heard)

    async def _end(self) -> None:
        self._server.close()
        for link in self._links:
            for end in link.ends:
                end.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link()
        link.silent = self._deaf
        link.ends.append(writer)
        self._links.add(link)
        self.made += 1
        with suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
            link.ends.append(other_writer)
            await asyncio.gather(self._pump(reader, other_writer, link), self._pump(other_reader, writer, link))
        for end in link.ends:
            end.close()
        self._links.discard(link)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if link.silent:
                    self.swallowed += len(data)
                else:
                    writer.write(data)
                    await writer.drain()
        # It closed: so does the other side, unless nobody hears of it.
        if not link.silent:
            with suppress(OSError):
                writer.close()
