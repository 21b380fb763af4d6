"""One signed HTTP request that tells a consumer of an event, and what its answer means.

Signed as Standard Webhooks has it (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec). Sent by the
engine under the transport, to an address that was checked before (`workers.addresses`) and is connected to itself: the
name is only in the Host header and in TLS. Nothing is followed, no proxy of the environment is used.

The head of an answer decides: what follows it is read only so that the connection may be used again, 64 KiB of it and
for a second at most. An idle connection is kept for two seconds, enough for the next event of a campaign: it leads
where it led when it was checked.

What an endpoint's URL has after its host may be secret, and is in no word, error or log of this module.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from secrets import token_hex
from typing import Final

import httpx
import msgspec

from dispatcher import notices, signing
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import SCHEMA
from dispatcher.settings import Settings
from workers import addresses, wire
from workers.addresses import Inward, Reach
from workers.schedule import MOST_RETRY_AFTER
from workers.transport import classify, user_agent

#: Seconds that name, TCP and TLS of one connection may take.
_CONNECT: Final = 5.0

#: Seconds that the rest of an answer is read for once its head is there, and the bytes.
_BODY_WITHIN: Final = 1.0
_MOST_BODY: Final = 1 << 16

#: Seconds that an idle connection is kept. The shortest of the usual servers' own is 2 (Gunicorn, with threads).
_KEEPALIVE: Final = 2.0

#: Names that are looked up at once: those of a consumer whose name servers are silent keep no others waiting.
_LOOKUPS: Final = 16

#: Statuses whose `Retry-After` is obeyed.
_LATER: Final = frozenset({429, 503})

#: What every request says. Our version is read from a file, which would be half of what a request costs.
_SAID: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": user_agent(),
    "Content-Type": "application/json",
}

_OK: Final = range(200, 300)
_ELSEWHERE: Final = range(300, 400)
_GONE: Final = 410


class Outcome(StrEnum):
    """What a try came to."""

    #: The consumer took it.
    DELIVERED = "delivered"
    #: Not now: tried again by the schedule.
    AGAIN = "again"
    #: The consumer says that this endpoint is over.
    GONE = "gone"
    #: It may not or cannot be called at all; that does not change by itself.
    REFUSED = "refused"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one try: nothing of its URL but what may be shown, nothing of the answer but its status."""

    outcome: Outcome
    #: Of HTTP; 0 where there was none.
    status: int = 0
    #: In our own words, without a URL.
    words: str = ""
    #: Seconds that the consumer wants to be left alone for.
    retry_after: float | None = None
    #: What it took.
    seconds: float = 0.0


#: What kept an answer away, by the code that the transport has for it.
_WORDS: Final = {
    "connect_failed": "no connection could be made",
    "connect_refused": "the connection was refused",
    "connect_timeout": "no connection was made in time",
    "dns": "its name could not be resolved",
    "dropped": "the connection was closed without an answer",
    "garbled": "the answer was not HTTP",
    "read_timeout": "no answer came in time",
    "reset": "the connection broke before an answer came",
    "stale_connection": "the connection was closed before anything was sent",
    "tls": "no TLS connection could be made that may be trusted",
    "unreachable": "its network could not be reached",
}
_SILENT: Final = _WORDS["read_timeout"]

_PRIVATE: Final = "which DISPATCHER_CALLBACK_PRIVATE=1 would allow"

#: Why an address is refused, by its kind.
_INWARD: Final = {
    "loopback": f"its name leads to this machine itself, {_PRIVATE}",
    "private": f"its name leads to a private address, {_PRIVATE}",
    "reserved": "its name leads to an address that is not public and that no setting allows",
}


def meaning(status: int, headers: Mapping[str, str], now: float) -> Answer:
    """Say what the head of an answer means; `now` in seconds, for a `Retry-After` that is a date."""
    if status in _OK:
        return Answer(outcome=Outcome.DELIVERED, status=status, words=f"answered {status}")
    if status == _GONE:
        return Answer(outcome=Outcome.GONE, status=status, words=f"answered {status}: it wants no more")
    words = f"answered {status}" + (", which is not followed" if status in _ELSEWHERE else "")
    later = retry_after(headers.get("retry-after", ""), now) if status in _LATER else None
    return Answer(outcome=Outcome.AGAIN, status=status, words=words, retry_after=later)


def retry_after(told: str, now: float) -> float | None:
    """Read a `Retry-After` (RFC 9110, 10.2.3): seconds from now, a day at most; None where it is none."""
    told = told.strip()
    if told.isascii() and told.isdigit():
        # A number of any length: what is longer than a day's digits is more than a day.
        return min(float(told[:12]), MOST_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(told)
    except (ValueError, TypeError, OverflowError):
        return None
    until = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return min(max(until - now, 0.0), MOST_RETRY_AFTER)


def reach(settings: Settings) -> Reach:
    """Return how far in a callback may lead."""
    if settings.callback_private:
        return Reach.PRIVATE
    return Reach.LOOPBACK if settings.sandbox else Reach.PUBLIC


class Webhooks:
    """Tells consumers over HTTP, on the event loop that it is first used on."""

    def __init__(
        self, settings: Settings, *, resolve: addresses.Resolve | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Sign with the settings' secrets. `resolve` finds addresses of names, `tls` trusts other authorities.

        Raises `ConfigurationError` where there is no secret.
        """
        self._signers = signing.signers(settings.callback_secret.get_secret_value())
        if not self._signers:
            raise ConfigurationError(
                "DISPATCHER_CALLBACK_SECRET is not set and callbacks are signed with it; make one with "
                '`echo "whsec_$(openssl rand -base64 32)"` and give it to the notify worker and to who is called'
            )
        self._private, self._sandbox = settings.callback_private, settings.sandbox
        self._within, self._reach = settings.callback_timeout, reach(settings)
        self._resolve = resolve or addresses.resolve
        self._threads = ThreadPoolExecutor(_LOOKUPS, "names")
        self._wire = wire.Wire(
            tls=tls or httpx.create_ssl_context(trust_env=False),
            connect=min(_CONNECT, self._within),
            read=self._within,
            max_body=_MOST_BODY,
            keepalive=_KEEPALIVE,
            resolve=self._checked,
            # Checked anew for each connection; only who asks meanwhile shares the answer.
            resolved=0.0,
        )

    async def post(self, url: str, id: str, at: int, body: bytes) -> Answer:  # noqa: A002 - as the header calls it
        """Make one try at `at`, in whole seconds of Unix time; raises nothing but `CancelledError`."""
        began = time.monotonic()
        answer = await self._post(url, id, at, body)
        return msgspec.structs.replace(answer, seconds=time.monotonic() - began)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _post(self, url: str, id_: str, at: int, body: bytes) -> Answer:
        if (why := notices.wrong_url(url, private=self._private, loopback=self._sandbox)) is not None:
            return Answer(outcome=Outcome.REFUSED, words=f"its URL {why}")
        try:
            request = self._request(url, id_, at, body)
        except Exception:  # noqa: BLE001 - httpx and the URL's own letters; what is wrong stays so
            return Answer(outcome=Outcome.REFUSED, words="its URL cannot be called")
        heads = list[httpx.Response]()
        try:
            async with asyncio.timeout(self._within) as within:
                request.extensions[wire.HEAD] = partial(_heard, heads, within)
                await self._wire.handle_async_request(request)
        except Inward as error:
            return Answer(outcome=Outcome.REFUSED, words=_INWARD[str(error)])
        except TimeoutError:
            words = _SILENT
        except Exception as error:  # noqa: BLE001 - there is a meaning for everything
            words = _WORDS.get(classify(error).code, _WORDS["connect_failed"])
        # Whatever became of its body, the head has been said.
        if heads:
            return meaning(heads[0].status_code, heads[0].headers, time.time())
        return Answer(outcome=Outcome.AGAIN, words=words)

    def _request(self, url: str, id_: str, at: int, body: bytes) -> httpx.Request:
        to = httpx.URL(url)
        headers = {
            "Host": to.netloc.decode("ascii"),
            **_SAID,
            **signing.signed(self._signers, id_, at, body),
        }
        return httpx.Request("POST", to, headers=headers, stream=httpx.ByteStream(body))

    async def _checked(self, host: str, port: int) -> addresses.Found:
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._resolve, host, port)
        return addresses.checked(found, self._reach)


def _heard(heads: list[httpx.Response], within: asyncio.Timeout, head: httpx.Response) -> None:
    """Keep the head of an answer, and give the rest of it a moment."""
    heads.append(head)
    # Its time may just be over.
    with contextlib.suppress(RuntimeError):
        within.reschedule(min(within.when() or 0.0, asyncio.get_running_loop().time() + _BODY_WITHIN))


def ping() -> tuple[str, bytes]:
    """Return the id and the body of a notice that tells of nothing: to try an endpoint with."""
    id_ = f"ping_{token_hex(8)}"
    document = {
        "schema": SCHEMA,
        "cursor": "0-0",
        "type": "callback.ping",
        "at": datetime.now(UTC).replace(microsecond=0),
        "data": {"id": id_},
    }
    return id_, msgspec.json.encode(document)


async def pinged(settings: Settings, url: str) -> tuple[str, Answer]:
    """Tell an endpoint of nothing, once; return the notice's id and what came of it.

    Raises `ConfigurationError` where there is no secret to sign with.
    """
    webhooks = Webhooks(settings)
    try:
        id_, body = ping()
        return id_, await webhooks.post(url, id_, int(time.time()), body)
    finally:
        await webhooks.aclose()
