"""What concerns a person rather than a job: `Dispatcher`'s verbs for consent, hours, closed prefixes and erasure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from dispatcher import checks, drafts, optout_rows, phone, quiet, verifications
from dispatcher.calls import Calls
from dispatcher.errors import InvalidNumber, InvalidRequest
from dispatcher.forgetting import Forgetting, Forgotten
from dispatcher.jobs import Category, milliseconds
from dispatcher.optout_rows import Imported
from dispatcher.optouts import By, OptOutEntry, OptOuts, same_sender
from dispatcher.privacy import Sealer
from dispatcher.quiet import Hours
from dispatcher.settings import Settings
from dispatcher.store import JobStore
from dispatcher.verifications import ClosedPrefix


class PeopleVerbs:
    """The part of `Dispatcher` that is about people; it has the rest's settings and store."""

    settings: Settings
    _store: JobStore
    _calls: Calls
    _sealer: Sealer
    _optouts: OptOuts

    # -- who wants no texts ------------------------------------------------------------------------------------------

    def opt_out(self, number: str, *, tenant: str | None = None, sender: str | None = None) -> bool:
        """Never text this number again, also what is enqueued already; return whether that is new.

        A text to it ends `failed: opted_out`: each text, or with `tenant` those of that tenant, with `sender` those
        from that sender, with both those of the one that are from the other. The list is this deployment's own and kept
        for ever; to tell a provider, too, there is `operation(provider, "optout.add", number=...)`, which puts the
        number on both. Raises `ConfigurationError` without `DISPATCHER_HASH_KEY`.
        """
        return self._list(number, tenant, sender, out=True)

    def opt_in(self, number: str, *, tenant: str | None = None, sender: str | None = None) -> bool:
        """Take a number off that list, since the person said so; return whether it was on it.

        This lifts the entry that the same arguments made, and no other. What a provider blocks itself stays so until it
        is lifted there: `blocked_by` says where.
        """
        return self._list(number, tenant, sender, out=False)

    def opted_out(self, number: str, *, tenant: str | None = None, sender: str | None = None) -> datetime | None:
        """Return since when a text to a number would be refused; None where it would not.

        It is a text of `tenant` from `sender`, and without these one that has none: `opt_outs` tells of every entry.
        """
        tenant, sender = _scope(tenant, sender)
        since = self._optouts.since(self._store, drafts.number("number", number), tenant, sender)
        self._store.run(self._calls.enter())
        return since

    def opt_outs(self, number: str, *, reveal: bool = False) -> list[OptOutEntry]:
        """Return every entry of a number, whatever it is about; the whole list is looked through for that.

        With `reveal` the number, tenant and sender are told, where there was a `DISPATCHER_SECRET_KEY` to keep them.
        """
        checks.flag("reveal", reveal)
        self._store.run(self._calls.enter())
        return list(self._optouts.entries(self._store, drafts.number("number", number), reveal=reveal))

    def blocked_by(self, number: str) -> dict[str, datetime]:
        """Return the accounts that told us to block a number themselves, and when they said so.

        `opt_in` does not lift that: docs/consent.md says for each vendor who does. It is forgotten once a text got
        through to the number there.
        """
        return self._optouts.blocked_by(self._store, drafts.number("number", number))

    def export_opt_outs(self, *, reveal: bool = False) -> Iterator[OptOutEntry]:
        """Yield every entry of the list, a page at a time.

        Without `reveal` they have hashes, which `import_opt_outs` takes where the hash key is the same.
        """
        checks.flag("reveal", reveal)
        self._store.run(self._calls.enter())
        return self._optouts.entries(self._store, reveal=reveal)

    def import_opt_outs(
        self, rows: Iterable[Mapping[str, str]], *, refused: Callable[[Mapping[str, str], str], object] | None = None
    ) -> Imported:
        """Put people on the list, a row each: its `number`, or `hash` and `key` as an export has them.

        A row may have `tenant` and `sender`, or `scope`; `since`, a time with its zone, by default now; and `by`. One
        that cannot be taken stops no other: `refused` is called with it and the reason. Who is on
        the list stays as they are, and who wanted texts again since then stays off it: made again, an import changes
        nothing. Rows are taken a portion at a time; no events are told of them.
        """
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            raise InvalidRequest("rows", f"must be rows, each with columns, not {type(rows).__name__}")
        if refused is not None and not callable(refused):
            raise InvalidRequest("refused", "must be a function that takes a row and the reason")
        self._store.run(self._calls.enter())
        return optout_rows.Import(self.settings, self._store).take(rows, refused or (lambda _row, _reason: None))

    def _list(self, number: str, tenant: str | None, sender: str | None, *, out: bool) -> bool:
        tenant, sender = _scope(tenant, sender)
        call = self._optouts.put(drafts.number("number", number), By.APPLICATION, out=out, tenant=tenant, sender=sender)
        # Under another hash key nobody would find it.
        self._store.run(self._calls.enter())
        return self._store.run(call).changed

    def _opt_out_too(self, provider: str, arguments: dict[str, Any]) -> None:
        """Put the numbers on our list that a provider is asked to leave alone, unless that is by a tag and the like."""
        kind, sender = arguments.get("type", "all"), None
        if kind == "sender" and same_sender(str(arguments.get("value", ""))):
            sender = str(arguments["value"])
        elif kind != "all":
            return
        if not self.settings.hashed("number"):
            return
        told = arguments.get("numbers") or ()
        several = told.split(",") if isinstance(told, str) else told if isinstance(told, list | tuple) else ()
        for one in [*several, *([arguments["number"]] if "number" in arguments else [])]:
            # What is no number is its worker's to refuse.
            with contextlib.suppress(InvalidNumber):
                number = phone.parse(str(one).strip())
                self._store.run(self._optouts.put(number, By.OPERATION, provider, out=True, sender=sender))

    # -- whom no codes are sent to, and whom we forget ---------------------------------------------------------------

    def guards(self, *, reveal: bool = False) -> list[ClosedPrefix]:
        """Return the prefixes that get no codes for a while, since hardly any was typed, the latest first.

        Their digits are masked unless `reveal`.
        """
        return verifications.closed(self._store, self._sealer, reveal=checks.flag("reveal", reveal))

    def reopen(self, prefix: str) -> bool:
        """Let codes go to a prefix again, named by its digits or by its `id`; return whether it was closed.

        Counting begins anew: it is closed again after as many codes that nobody types.
        """
        return verifications.reopen(self._store, self.settings, prefix)

    def forget(self, number: str, *, dry_run: bool = False) -> Forgotten:
        """Erase what is kept of a person, and return what that was; harmless twice.

        Of their jobs stays what accounts need, such as account, states, price and tenant: numbers, texts, codes,
        results, references and metadata go. What waits is taken back first; what is being sent stays, and is counted in
        `sending`: do it again then. That they want no texts is kept, as a hash. `dry_run` counts and erases nothing.
        Raises `ConfigurationError` without `DISPATCHER_HASH_KEY`. What it does not reach, such as backups and the
        providers' own logs, docs/privacy.md tells.
        """
        checks.flag("dry_run", dry_run)
        return Forgetting(self._store, self._calls, self.settings, drafts.number("number", number), dry_run=dry_run)()

    # -- when a text may go ------------------------------------------------------------------------------------------

    def quiet_hours(
        self,
        number: str,
        *,
        category: Category | str = Category.PROMOTIONAL,
        tenant: str = "",
        timezone: str | None = None,
        at: datetime | float | None = None,
    ) -> Hours:
        """Return what quiet hours bind a text to a number, now or at another moment, and when it may go."""
        moment_ = milliseconds("at", at)
        return quiet.hours(
            self.settings.quiet,
            drafts.number("number", number),
            drafts.member("category", Category, category),
            at=time.time() * 1000 if moment_ is None else moment_,
            tenant=tenant,
            timezone=drafts.zone_name(timezone),
        )


def _scope(tenant: str | None, sender: str | None) -> tuple[str | None, str | None]:
    """Return what an entry of the list is about, having seen that it can be. Raises `InvalidRequest`."""
    tenant = None if tenant is None else checks.text("tenant", tenant)
    sender = None if sender is None else checks.text("sender", sender)
    if tenant is not None and not tenant:
        raise InvalidRequest("tenant", "is empty; leave it out for all")
    if sender is not None and not same_sender(sender):
        raise InvalidRequest("sender", "is nobody's name or number; leave it out for all")
    return tenant, sender
