"""The commands about jobs that exist: `job`, `jobs`, `wait`, `cancel`, `resolve`, `redrive`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import (
    AsJson,
    JobId,
    Reveal,
    Timeout,
    UntilName,
    WholeBatch,
    ago_or_moment,
)
from dispatcher.cli.output import client, end, end_batch, fail, print_json, show, show_batch
from dispatcher.errors import DispatcherError, InvalidRequest, StoreUnavailable

if TYPE_CHECKING:
    from dispatcher.client import Dispatcher

app = typer.Typer(cls=Commands)


@app.command()
def job(id_: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False, reveal: Reveal = False) -> None:
    """Show a job with its history.

    [bold]dispatcher job 06h00...[/bold]
    """
    with client() as dispatcher:
        found = dispatcher.get(id_, reveal=reveal)
    if as_json:
        print_json(found.to_dict())
        return
    from dispatcher.pages import print_job

    print_job(found)


@app.command()
def jobs(
    *,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch.")] = None,
    number: Annotated[str | None, typer.Option(help="Only those to this number.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=100_000)] = 50,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """List jobs, the latest first.

    [bold]dispatcher jobs --state unknown --provider textgoto[/bold]
    """
    with client() as dispatcher:
        counted = dispatcher.batch(batch).to_dict() if batch is not None else None
        found = dispatcher.jobs(state=state, provider=provider, batch=batch, number=number, limit=limit, reveal=reveal)
    if as_json:
        for one in found:
            print_json(one.to_dict())
        return
    if counted and (counted["size"] or counted["open"]):
        show_batch(counted, as_json=False)
    if not found:
        typer.echo("No jobs.")
        return
    from dispatcher.pages import print_jobs

    print_jobs(found)


@app.command()
def wait(
    id_: JobId = None,
    *,
    batch: WholeBatch = None,
    until: UntilName = "settled",
    timeout: Timeout = 30,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Wait for a job, or for all of a batch; exits 0 only for a good end.

    [bold]dispatcher wait 06h00... --timeout 60[/bold]
    """
    job_id = _either(id_, batch)
    with client() as dispatcher:
        if batch is not None:
            end_batch(dispatcher, batch, timeout=timeout, until=until, as_json=as_json)
        found = dispatcher.get(job_id)
        end(dispatcher, found, wait=True, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command()
def cancel(id_: JobId = None, *, batch: WholeBatch = None, as_json: AsJson = False) -> None:
    """Take back a job that is not being sent yet, or all such jobs of a batch, which then takes no more.

    [bold]dispatcher cancel 06h00...[/bold]; of a verification the code is right no more, though it was sent
    """
    job_id = _either(id_, batch)
    with client() as dispatcher:
        if batch is None:
            show(dispatcher.cancel(job_id), as_json=as_json)
            return
        dispatcher.cancel_batch(batch)
        show_batch(dispatcher.batch(batch).to_dict(), as_json=as_json)


@app.command()
def resolve(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The unknown job's id.")],
    state: Annotated[str, typer.Argument(help="sent (a text), completed (all else), or failed: surely not taken.")],
    *,
    note: Annotated[str, typer.Option(help="How you know it; kept in its history.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what became of a job of which nobody could tell.

    [bold]dispatcher resolve 06h00... sent --note "it is in the vendor's portal"[/bold]
    """
    with client() as dispatcher:
        show(dispatcher.resolve(id_, state, note=note), as_json=as_json)


@app.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs; otherwise some are chosen.")] = None,
    *,
    state: Annotated[
        str | None, typer.Option(help="Only those in this state. Default: failed, expired, undelivered.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    failure: Annotated[str | None, typer.Option(help="Only those with this kind of failure: throttled, ...")] = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those in that state since: 30m, 2h, 3d, or 2026-12-24T09:00:00+01:00")
    ] = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="What is unknown, too: it may have been sent, and is sent twice then.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="How many at most.", min=1, max=1_000_000)] = None,
    batch_id: Annotated[str | None, typer.Option(help="The new batch's name. Default: a new one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what it would do, enqueue nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Enqueue jobs again that ended badly: new ones, which name the old. Stopped and run again, it makes none twice.

    [bold]dispatcher redrive 06h00...[/bold]; many of them as a new batch, and what that would do:
    [bold]dispatcher redrive --provider textgoto --failure throttled --since 2h --dry-run[/bold]
    """
    chosen = {"state": state, "provider": provider, "failure": failure, "batch": batch, "since": ago_or_moment(since)}
    choice = "--state, --provider, --failure, --batch or --since"
    if ids and {limit, batch_id, *chosen.values()} != {None}:
        raise InvalidRequest("ID", f"stands alone; the ids of jobs, or chosen by {choice} (--limit, --batch-id)")
    if not ids and {*chosen.values()} == {None}:
        raise InvalidRequest("ID", f"is missing; give the ids of jobs, or choose some by {choice}")
    with client() as dispatcher:
        if ids and not dry_run:
            _redrive_each(dispatcher, ids, resend=resend, as_json=as_json)
        more = {**chosen, "resend": resend, "limit": limit, "batch_id": batch_id, "dry_run": dry_run}
        _redrive_many(dispatcher, ids or None, more, as_json=as_json)


def _either(id_: str | None, batch: str | None) -> str:
    """Return the id of a job where that was given; refuse both and neither."""
    if (id_ is None) == (batch is None):
        raise InvalidRequest("ID", "give the id of a job, or --batch with that of a batch, one of the two")
    return id_ or ""


def _redrive_each(dispatcher: Dispatcher, ids: Iterable[str], *, resend: bool, as_json: bool) -> NoReturn:
    """Show the job that each is redriven as, say why where it is not, and exit by whether all were."""
    from dispatcher.recovery import why_not

    good = True
    for id_ in ids:
        try:
            show(dispatcher.redrive(id_, resend=resend), as_json=as_json)
        except StoreUnavailable:
            raise
        except DispatcherError as error:
            good = False
            typer.echo(f"dispatcher: {why_not(error)}", err=True)
    raise typer.Exit(0 if good else 1)


def _redrive_many(dispatcher: Dispatcher, ids: list[str] | None, more: dict[str, Any], *, as_json: bool) -> NoReturn:
    """Redrive many, show what came of it however it ended, and exit by whether all were."""
    from dispatcher.batches import Redriven
    from dispatcher.recovery import in_words
    from dispatcher.sources import Interrupted, Stop

    seen: list[Redriven] = []
    why, code = "", 1

    def progress(report: Redriven) -> None:
        seen[:] = [report]
        stop.obey()

    with Stop() as stop:
        try:
            seen[:] = [dispatcher.redrive_many(ids, progress=progress, **more)]
        except Interrupted:
            why, code = "Stopped", 130
        except StoreUnavailable as error:
            if not seen:
                raise
            why = str(error)
    (report,) = seen
    if as_json:
        print_json(report.to_dict())
    else:
        for words in in_words(report):
            typer.echo(words)
    if why:
        full_stop = "" if why.endswith("?") else "."
        fail(f"{why}{full_stop} Run the same command again and it goes on: no job is redriven twice", code)
    raise typer.Exit(0 if report.good else 1)
