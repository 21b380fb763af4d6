"""The road of a callback: taken, opened, read, taken in, forgotten. It knows neither HTTP nor Celery.

Each account's callbacks are read by the workers that serve it, from a queue of its own: they have its adapter and its
settings, and another provider's backlog or bug holds up nobody else's. Everything a callback may tell is harmless
twice, so that one whose reader died is simply read again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from dispatcher.callbacks import TRIES, CallbackCalls, Kept
from dispatcher.calls import Call, Calls, Word
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.optouts import OptOuts, Text, is_texted
from dispatcher.store import Caller
from workers import consent
from workers.adapters import receipt_key
from workers.consent import Answers
from workers.execute import summary
from workers.inquiries import word
from workers.insist import insist
from workers.providers.base import Adapter, Callback, Inbound, OptOut, Receipt, Told

if TYPE_CHECKING:
    from dispatcher.settings import Settings

log = logging.getLogger("dispatcher.worker")

T = TypeVar("T")

#: What `Calls.receipts` answers, as it is counted.
_COUNTED: Final = {"moved": "applied", "late": "late", "forgotten": "late", "early": "early"}


class Reader:
    """Reads the callbacks of the accounts that a worker serves."""

    def __init__(
        self,
        settings: Settings,
        adapters: Mapping[str, Adapter],
        store: Caller,
        publish: Callable[[str, list[str]], Awaitable[None]],
    ) -> None:
        """Read for the accounts in `adapters`; `publish(queue, ids)` tells the workers of a queue, and never raises."""
        self._settings = settings
        self._adapters = adapters
        self._store = store
        self._calls = Calls(settings)
        self._callbacks = CallbackCalls(settings)
        self._optouts = OptOuts(settings)
        self._answers = Answers(settings, store, publish)
        self._sealer = settings.sealer()

    async def read(self, ids: Sequence[str]) -> str:
        """Read the callbacks of one message; return a short word for whoever watches, such as "applied".

        Raises `StoreUnavailable`; the clock finds what was not read then.
        """
        words: list[str] = []
        for one in await self._store.run(self._callbacks.take(ids)):
            words += await self._one(one)
        return summary(words) if words else "gone"

    async def _one(self, one: Kept) -> list[str]:
        """Read one callback; answer what came of it."""
        if one.tries >= TRIES:
            log.error("callback %s of %s is set aside: its readers died of it", one.id, one.account)
            return await self._failed(one)
        try:
            adapter = self._adapters.get(one.account)
            if adapter is None:
                return await self._left(one, "this worker does not serve that account")
            # Who said stop would be put on no list. The receiver has the key; a worker may be of before that was set.
            self._settings.require_hash_key("what is called back")
            callback = decode(self._sealer.open(one.sealed, one.id))
            counts, early = await self._take_in(one, adapter, callback, adapter.read(callback))
        except StoreUnavailable:
            await self._persist(self._callbacks.failed(one.id, blamed=False))
            raise
        except ConfigurationError as error:
            return await self._left(one, str(error))
        except Exception as error:  # noqa: BLE001 - an adapter's bug must not lose a callback, nor repeat it for ever
            log.error("callback %s of %s cannot be read: %s", one.id, one.account, error.__class__.__name__)  # noqa: TRY400 - a traceback could show what was told
            return await self._failed(one)
        await self._persist(self._callbacks.done(one, counts, early))
        return list(counts.elements())

    async def _take_in(
        self, one: Kept, adapter: Adapter, callback: Callback, told: Sequence[Told]
    ) -> tuple[Counter[str], list[str]]:
        """Write what a callback tells; answer what it was, and what those receipts wait under that came early."""
        counts: Counter[str] = Counter() if told else Counter(unread=1)
        receipts = [piece for piece in told if isinstance(piece, Receipt)]
        words = [self._word(adapter, receipt) for receipt in receipts]
        ends = await self._store.run(self._calls.receipts(words)) if words else []
        for receipt, end in zip(receipts, ends, strict=True):
            news = [(adapter, receipt.number, receipt.news.failure)]
            for call in consent.refusals(self._optouts, news, forgotten=end == "forgotten"):
                await self._store.run(call)
        counts.update(_COUNTED[end] for end in ends)
        for piece in told:
            if isinstance(piece, Inbound):
                counts.update(await self._inbound(one, adapter, piece))
            elif isinstance(piece, OptOut):
                counts.update(await self._opted(one, piece, callback))
        return counts, [asked.key for asked, end in zip(words, ends, strict=True) if end == "early"]

    def _word(self, adapter: Adapter, told: Receipt) -> Word:
        key = receipt_key(self._settings, adapter, told.ref, told.number) if told.ref else ""
        # It may be the first to tell the provider's id: the send's own answer can be lost.
        news = msgspec.structs.replace(told.news, ref=told.news.ref or told.ref)
        said = word(adapter.account, news, own=told.own, key=key)
        detail = said.detail or f"receipt: {told.news.state or 'nothing decisive'}"
        return msgspec.structs.replace(said, detail=detail, part=told.part, parts=told.parts)

    async def _inbound(self, one: Kept, adapter: Adapter, told: Inbound) -> list[str]:
        text = Text(
            provider=one.account,
            sender=told.sender,
            to=told.to,
            text=told.text,
            at=told.at,
            received=one.at,
            verdict=self._optouts.verdict(told.text),
        )
        if text.verdict == "out" and not is_texted(text.sender):
            log.warning(
                "a stop that came by %s is from no number that can be texted: nobody is on the list", one.account
            )
        said = await self._store.run(self._optouts.said(text, told.ref, one.id))
        if said.owed:
            await self._answers.send(adapter, told, text, one.id)
        return ["inbound" if said.fresh else "duplicates", *(["optouts"] if said.changed else [])]

    async def _opted(self, one: Kept, told: OptOut, callback: Callback) -> list[str]:
        whole = f"{callback.query}\n{callback.body.decode('latin-1')}"
        call = self._optouts.told(told.number, one.account, one.at, whole, out=told.out)
        said = await self._store.run(call)
        return ["optouts"] if said.changed else ["late" if said.fresh else "duplicates"]

    async def _failed(self, one: Kept) -> list[str]:
        aside = await self._persist(self._callbacks.failed(one.id, blamed=True))
        return ["aside" if aside else "failed"]

    async def _left(self, one: Kept, why: str) -> list[str]:
        """Leave a callback to a worker that can read it; the clock publishes it again."""
        log.error("callback %s of %s is left to other workers: %s", one.id, one.account, why)
        await self._persist(self._callbacks.failed(one.id, blamed=False))
        return ["left"]

    async def _persist(self, call: Call[T]) -> T:
        """Make a call that says what has happened, for as long as a worker's word is waited for."""
        return await insist(partial(self._store.run, call), self._settings.lease)


def encode(callback: Callback) -> bytes:
    """Return a callback as it is kept, not sealed yet."""
    return msgspec.json.encode(callback)


_decoder: Final = msgspec.json.Decoder(Callback)


def decode(kept: bytes) -> Callback:
    """Return a callback that was kept. Raises `msgspec.MsgspecError` for anything else."""
    return _decoder.decode(kept)
