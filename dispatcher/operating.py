"""What its operator asks of a deployment: verbs of `Dispatcher` about accounts, limits, and what is used up."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from itertools import islice

from dispatcher import backlog, checks, endpoints, groups, notices, usage
from dispatcher.accounts import Account, Accounts
from dispatcher.backlog import LaneState
from dispatcher.budgets import Budget
from dispatcher.calls import MOST, Calls
from dispatcher.endpoints import Endpoint, NoticeCalls, Undelivered
from dispatcher.errors import InvalidRequest, NotFound, UnknownProvider
from dispatcher.events import where
from dispatcher.groups import EventGroup
from dispatcher.limits import LimitState
from dispatcher.privacy import shown
from dispatcher.queues import both_queues
from dispatcher.settings import Settings
from dispatcher.store import JobStore
from dispatcher.suspensions import Suspension, is_scope
from dispatcher.usage import Blocked, LowBalance, Usage


class OperatingVerbs:
    """The part of `Dispatcher` that is about the deployment; it has the rest's settings and store."""

    settings: Settings
    _store: JobStore
    _calls: Calls
    _accounts: Accounts

    # -- accounts ----------------------------------------------------------------------------------------------------

    def suspensions(self) -> list[Suspension]:
        """Return what is suspended of the accounts that are known, by account and scope."""
        return self._store.run(self._calls.suspended(self._known(None)))[1]

    def limits(self, provider: str | None = None) -> list[LimitState]:
        """Return the limits of accounts as all workers together keep them now, breaker and latency included.

        Those of one account, or of all that are known; raises `UnknownProvider` for another name.
        """
        return [self._store.run(self._calls.limits_shown(name)) for name in self._known(provider)]

    def backlog(self, provider: str | None = None) -> list[LaneState]:
        """Return how many jobs of accounts wait, by lane and tenant, the high lane first."""
        return backlog.read(self._store, self._known(provider))

    def _known(self, provider: str | None) -> list[str]:
        """Return the name of one account, or those of all that are known."""
        names = sorted({*self._accounts.published(fresh=True), *self.settings.providers})
        if provider is None:
            return names
        if checks.text("provider", provider) not in names:
            raise UnknownProvider(shown(provider), names)
        return [provider]

    def resume(self, provider: str, scope: str | None = None) -> list[Suspension]:
        """Lift what is suspended of an account, all of it unless a scope is named; return what that was.

        A scope is "account", "funds" or "operation:<name>". The jobs that waited for it go on; should it not be mended,
        the first of them finds out.
        """
        checks.text("provider", provider)
        if scope is not None and not is_scope(checks.text("scope", scope)):
            raise InvalidRequest("scope", "must be account, funds or operation:NAME", shown(scope))
        # Read first: asked again because its answer was lost, a script that lifts finds nothing any more.
        _, known = self._store.run(self._calls.suspended([provider]))
        lifted = [one for one in known if scope in {None, one.scope}]
        if lifted:
            self._store.run(self._calls.resume(provider, [one.scope for one in lifted]))
        for one in lifted:
            for queue in both_queues(provider):
                cursor, _ = self._store.run(self._calls.free(queue, "0", one.operations))
                while cursor != "0":
                    cursor, _ = self._store.run(self._calls.free(queue, cursor, one.operations))
        return lifted

    def providers(self) -> dict[str, Account]:
        """Return the accounts that workers have published until now, by name."""
        return dict(self._accounts.published(fresh=True))

    # -- who reads the events ----------------------------------------------------------------------------------------

    def event_groups(self) -> list[EventGroup]:
        """Return the groups that share the events among their consumers, by name: how far each is, and what waits."""
        return groups.listed(self._store)

    def reset_event_group(self, name: str, *, after: str | None = None, since: datetime | float | None = None) -> str:
        """Have a group go on after a cursor ("0" for all that are kept), since a moment, or with news; return where.

        Forwards it misses what is between, backwards its consumers get that once more. What they have in hand is theirs
        no more. So a group is told where to go on that missed events, since they were trimmed away; and the next
        consumer may come with other types, tenant or batch than those before. Raises `NotFound`, and `CursorExpired`
        where events after that are gone, too.
        """
        at = where(after, since) or "$"
        if groups.name_of("name", name) not in {one.name for one in self.event_groups()}:
            raise NotFound("group", shown(name))
        return groups.begin(self._store, name, at, None) or at

    def delete_event_group(self, name: str) -> bool:
        """Delete a group that nobody reads any more, and what it was not done with; return whether it was there."""
        return groups.delete(self._store, groups.name_of("name", name))

    # -- callbacks ---------------------------------------------------------------------------------------------------

    def callbacks(self) -> list[Endpoint]:
        """Return where applications are called back, how that goes and what waits; that of the latest news first."""
        return endpoints.read(self._store)

    def undelivered_callbacks(self, *, endpoint: str | None = None, limit: int = 50) -> list[Undelivered]:
        """Return what was not delivered and why, the latest first, of all endpoints or one by its id.

        It is kept for `DISPATCHER_EVENTS_RETENTION`. Raises `NotFound` for an endpoint that there is not.
        """
        checks.whole("limit", limit, 1, checks.LONGEST_LIST)
        return [*islice(endpoints.undelivered(self._store, self._endpoint(endpoint)), limit)]

    def redrive_callbacks(self, ids: Iterable[str] | None = None, *, endpoint: str | None = None) -> int:
        """Tell again what was not delivered, with the same ids; return how many notices that are.

        Those with these ids ("evt_..."), of one endpoint by its id, or all. What an endpoint that is gone was not told
        waits until that is resumed; and where later notices of a job wait for their next try, those before them wait
        for the same moment: `resume_callbacks` has them told now. Raises `NotFound` for an endpoint that there is not.
        """
        wanted = None if ids is None else {*checks.texts("ids", [*ids] if isinstance(ids, Iterable) else ids)}
        of = self._endpoint(endpoint)
        # Read whole: who is told by now is on the list no more.
        listed = [
            (one.endpoint_id, notices.cursor_of(one.id))
            for one in endpoints.undelivered(self._store, of)
            if wanted is None or one.id in wanted
        ]
        calls, count = NoticeCalls(self.settings), 0
        for start in range(0, len(listed), MOST):
            count += self._store.run(calls.redrive(listed[start : start + MOST])).count("OK")
        return count

    def resume_callbacks(self, endpoint: str) -> bool:
        """Call an endpoint again at once that is paused, or said that it is gone; return whether there was cause to.

        What waits for its next try there is told at once, too. It is named by its id. Raises `NotFound`.
        """
        call, resumed, hurried = NoticeCalls(self.settings).resume(self._endpoint(endpoint) or ""), False, MOST
        while hurried == MOST:
            was, hurried = self._store.run(call)
            resumed = resumed or was or hurried > 0
        return resumed

    def _endpoint(self, id_: str | None) -> str | None:
        if id_ is not None and checks.text("endpoint", id_) not in {one.id for one in self.callbacks()}:
            raise NotFound("endpoint", shown(id_))
        return id_

    # -- what is used up ---------------------------------------------------------------------------------------------

    def budgets(self) -> list[Budget]:
        """Return how the budgets of `DISPATCHER_BUDGETS` stand, as this process has them in its settings."""
        return usage.read_budgets(self._store, self.settings.rules)

    def usage(
        self,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        by: Iterable[str] = ("day", "provider"),
    ) -> list[Usage]:
        """Return what providers took from one day until another (UTC; the last thirty by default), and its price.

        It is summed by any of day, tenant, provider, country and category. Each text counts once at each account that
        took it, on the day when it did.
        """
        return usage.read_usage(self._store, since, until, by)

    def block_country(self, country: str, reason: str = "") -> bool:
        """Text nobody in a country (ISO 3166, such as "US") from now on, also what is queued; return whether it is new.

        Such a text ends `failed: refused`, code `country`. A text that is on the wire already is not taken back.
        """
        return usage.block(self._store, country, reason)

    def unblock_country(self, country: str) -> bool:
        """Text people in a country again; return whether it was blocked. What failed meanwhile can be redriven."""
        return usage.unblock(self._store, country)

    def blocked_countries(self) -> list[Blocked]:
        """Return the countries that nobody is texted in."""
        return usage.read_blocked(self._store)

    def low_balances(self) -> list[LowBalance]:
        """Return the accounts with less than their `LOW_BALANCE`, as their balance was last read."""
        return usage.read_low_balances(self._store)
