"""The commands that tell what is used up: `budgets` and `usage`."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import client, print_json

app = typer.Typer(cls=Commands)


@app.command()
def budgets(*, as_json: AsJson = False) -> None:
    """Show how much of each budget is used; exits 0 only where none is used up.

    [bold]dispatcher budgets --json[/bold]
    """
    with client() as dispatcher:
        found = dispatcher.budgets()
    if as_json:
        for one in found:
            print_json(one)
    elif found:
        from dispatcher.pages import print_budgets

        print_budgets(found)
    else:
        typer.echo("there is no budget in DISPATCHER_BUDGETS")
    raise typer.Exit(1 if any(one.state == "used up" for one in found) else 0)


@app.command()
def usage(
    *,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="The first day, such as 2026-01-31, in UTC; else 30 days.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="The last day; else today.")] = None,
    by: Annotated[
        str, typer.Option(help="What it is summed by, of day, tenant, provider, country and category.")
    ] = "day,provider",
    as_json: AsJson = False,
) -> None:
    """Show what providers took, and what it cost where they tell.

    [bold]dispatcher usage --since 2026-01-01 --by tenant,country[/bold]
    """
    with client() as dispatcher:
        found = dispatcher.usage(since=since, until=until, by=by.replace(" ", "").split(","))
    if as_json:
        for one in found:
            print_json(one.to_dict())
    elif found:
        from dispatcher.pages import print_usage

        print_usage(found)
    else:
        typer.echo("nothing was taken in that time")
