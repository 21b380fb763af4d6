"""The command `callbacks` and those below it: what applications are told, and what they were not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import client, fail, print_json
from dispatcher.errors import InvalidRequest
from dispatcher.privacy import one_line

if TYPE_CHECKING:
    from dispatcher.endpoints import Endpoint

app = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)

EndpointName = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id, as `dispatcher callbacks` shows it.")]
OfEndpoint = Annotated[str | None, typer.Option("--endpoint", help="Only of the endpoint with this id.")]


@app.callback()
def list_endpoints(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List where applications are called back, how that goes, and what waits.

    [bold]dispatcher callbacks[/bold], [bold]dispatcher callbacks failed[/bold], [bold]dispatcher callbacks
    redrive --all[/bold]
    """
    if context.invoked_subcommand:
        return
    with client() as dispatcher:
        found = dispatcher.callbacks()
    for one in found:
        if as_json:
            print_json(one.to_dict())
        else:
            typer.echo(one_line(_line(one)))
    if not found and not as_json:
        typer.echo("nobody was called back yet")


@app.command("failed")
def list_failed(
    endpoint: OfEndpoint = None,
    limit: Annotated[int, typer.Option(help="How many at most, the latest first.", min=1)] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """List what was not delivered, and why.

    [bold]dispatcher callbacks failed[/bold], then [bold]dispatcher callbacks redrive ID[/bold]
    """
    with client() as dispatcher:
        found = dispatcher.undelivered_callbacks(endpoint=endpoint, limit=limit)
    for one in found:
        if as_json:
            print_json(one.to_dict())
        else:
            words = f"{one.id} {one.type} {one.subject} {one.endpoint_id} {one.endpoint} {one.at:%Y-%m-%d %H:%M:%S %Z}"
            typer.echo(one_line(f"{words} - {one.why}"))
    if not found and not as_json:
        typer.echo("everything was delivered, or waits")


@app.command("redrive")
def redrive_failed(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As `callbacks failed` shows them.")
    ] = None,
    endpoint: OfEndpoint = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that was not delivered.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell again what was not delivered, with the same id.

    Where later news of the same job wait for their next try, it waits with them; [bold]callbacks resume ENDPOINT[/bold]
    has all of that told now.

    [bold]dispatcher callbacks redrive --all[/bold]
    """
    if not (ids or endpoint or every):
        raise InvalidRequest("ids", "are missing; name what is to be told again, or --endpoint, or --all")
    if every and (ids or endpoint):
        raise InvalidRequest("--all", "goes without ids and without --endpoint")
    with client() as dispatcher:
        count = dispatcher.redrive_callbacks(ids or None, endpoint=endpoint)
    if as_json:
        print_json({"redriven": count})
    else:
        typer.echo(f"{count} {'is' if count == 1 else 'are'} told again")
    if not count and (ids or endpoint):
        fail("nothing of that is on the list, or its endpoint is gone; see `dispatcher callbacks`")


@app.command("resume")
def resume_endpoint(endpoint: EndpointName, *, as_json: AsJson = False) -> None:
    """Call an endpoint again at once that is paused or said it is gone; what waits for its next try is told, too.

    [bold]dispatcher callbacks resume ENDPOINT[/bold], and what was not delivered with [bold]callbacks redrive[/bold]
    """
    with client() as dispatcher:
        resumed = dispatcher.resume_callbacks(endpoint)
    if as_json:
        print_json({"endpoint": endpoint, "resumed": resumed})
    else:
        words = "is called again" if resumed else "was not paused, and nothing waits there for later"
        typer.echo(f"{endpoint} {words}")


@app.command("ping")
def ping(
    url: Annotated[str, typer.Argument(help="Where to; its query may hold a secret, and is not shown.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Send a signed test callback, of type callback.ping, and show what came back.

    [bold]dispatcher callbacks ping https://hooks.example.com/dispatcher[/bold]
    """
    import asyncio

    from dispatcher import notices
    from dispatcher.settings import load
    from workers.webhook import Outcome, pinged

    settings = load()
    notices.check_url("url", url, private=settings.callback_private, loopback=settings.sandbox)
    id_, answer = asyncio.run(pinged(settings, url))
    delivered = answer.outcome == Outcome.DELIVERED
    if as_json:
        told = {"id": id_, "delivered": delivered, "status": answer.status or None}
        print_json({**told, "seconds": round(answer.seconds, 3), "error": "" if delivered else answer.words})
    elif delivered:
        typer.echo(f"{notices.mask(url)} took {id_} with {answer.status} in {answer.seconds:.3f} s")
    if not delivered:
        fail(f"{notices.mask(url)} did not take it: {answer.words}")


def _line(one: Endpoint) -> str:
    words = f"{one.id} {one.endpoint} is {one.state}"
    if one.until:
        words += f" until {one.until:%Y-%m-%d %H:%M:%S %Z}"
    words += f"; {one.waiting} waiting"
    if one.oldest:
        words += f" since {one.oldest:%Y-%m-%d %H:%M:%S %Z}"
    words += f", {one.delivered} delivered, {one.undelivered} not"
    return f"{words} - {one.error}" if one.error else words
