"""`AsyncDispatcher` with what an API for many tenants needs beside its verbs: whose something is, and pages of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dispatcher import AsyncDispatcher, verifications
from dispatcher.errors import NotFound
from dispatcher.events import Event, Row, Wanted
from dispatcher.privacy import shown

if TYPE_CHECKING:
    from dispatcher.jobs import Job

#: Jobs that are looked through for a tenant's among those of all.
_LOOKED_THROUGH: Final = 5000


class Service(AsyncDispatcher):
    """What the endpoints call."""

    async def own_job(self, id_: str, tenant: str | None, *, reveal: bool = False) -> Job:
        """Return a job of a tenant (None: of any). Raises `NotFound` where it is another's: nobody learns that."""
        job = await self.get(id_, reveal=reveal)
        if tenant is not None and job.tenant != tenant:
            raise NotFound("job", shown(id_))
        return job

    async def check_batch(self, id_: str, tenant: str | None) -> None:
        """Raise `NotFound` where a batch is not the tenant's: it is whose its first job is."""
        if tenant is not None and await self.tenant_of(id_) != tenant:
            raise NotFound("batch", shown(id_))

    async def tenant_of(self, batch: str) -> str | None:
        """Return whose a batch is; None where nobody can tell any more. Raises `NotFound`."""

        def first() -> str | None:
            try:
                return self._dispatcher.batch(batch).jobs[0].tenant
            except IndexError:
                return None
            except NotFound as error:
                if error.what == "batch":
                    raise
                # Its first job is not kept any more.
                return None

        return await self._run(first)

    async def newest_code(self, id_: str) -> str:
        """Return the id of the last code that was sent in place of another one. Raises `NotFound`."""
        dispatcher = self._dispatcher
        found = await self._run(verifications.read_newest, dispatcher._store, id_, dispatcher._sealer)  # noqa: SLF001 - as `resend` does
        return found.id

    async def batch_page(
        self, id_: str, tenant: str | None, start: int, limit: int, *, reveal: bool
    ) -> tuple[list[Job], int | None]:
        """Return a tenant's among some jobs of a batch, as they were made, and where to go on; None at its end."""

        def page() -> tuple[list[Job], int | None]:
            ids = self._dispatcher.batch(id_).jobs.ids
            chosen = [*ids[start : start + limit]]
            found = self._dispatcher.get_many(chosen, reveal=reveal)
            following = start + limit if start + limit < len(ids) else None
            # Whoever acts for all tenants may have put jobs of several into one.
            return [found[one] for one in chosen if one in found and tenant in {None, found[one].tenant}], following

        return await self._run(page)

    async def jobs_of(self, tenant: str | None, *, limit: int, **chosen: Any) -> tuple[list[Job], bool]:
        """Return the latest jobs of a tenant, and whether these are all that were asked for.

        There is no list of a tenant's own: of all jobs that were asked for, only so many are looked through.
        """
        if tenant is None:
            return await self.jobs(limit=limit, **chosen), True
        looked = limit
        while True:
            page = await self.jobs(limit=looked, **chosen)
            found = [one for one in page if one.tenant == tenant][:limit]
            if len(found) == limit or len(page) < looked:
                return found, True
            if looked >= _LOOKED_THROUGH:
                return found, False
            looked = min(4 * looked, _LOOKED_THROUGH)

    # -- events ------------------------------------------------------------------------------------------------------

    async def start(self, after: str | None) -> str:
        """Return the cursor that is meant, the end for None. Raises `CursorExpired`."""
        return await self._run(self._stream.start, after)

    async def rows(self, cursor: str, seconds: float) -> list[Row]:
        """Return what the stream has after a cursor, waiting for it on a thread. Raises `CursorExpired`."""
        return await self._run(self._stream.read, cursor, seconds)

    async def select(self, rows: Sequence[Row], wanted: Wanted, *, reveal: bool) -> list[Event]:
        """Return the events among rows that are wanted."""
        return await self._run(self._stream.select, rows, wanted, reveal=reveal)

    @property
    def _stream(self) -> Any:
        return self._dispatcher._events  # noqa: SLF001 - the same reading, a page at a time, and once for all who listen
