"""The command `countries` and those below it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import client, print_json

app = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)

Country = Annotated[str, typer.Argument(metavar="CC", help="Two letters of ISO 3166, such as US.")]


@app.callback()
def list_countries(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the countries that nobody is texted in; block one, at once and for all, also what is queued.

    [bold]dispatcher countries block US "fraud since noon"[/bold]
    """
    if context.invoked_subcommand:
        return
    with client() as dispatcher:
        found = dispatcher.blocked_countries()
    for one in found:
        if as_json:
            print_json(msgspec.to_builtins(one))
        else:
            why = f": {one.reason}" if one.reason else ""
            typer.echo(f"{one.country} is blocked since {one.since:%Y-%m-%d %H:%M:%S %Z}{why}")
    if not found and not as_json:
        typer.echo("no country is blocked")


@app.command("block")
def block_country(
    country: Country,
    reason: Annotated[str, typer.Argument(help="Why, for the history of what is refused.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Text nobody in a country from now on.

    [bold]dispatcher countries block US "fraud since noon"[/bold]
    """
    with client() as dispatcher:
        changed = dispatcher.block_country(country, reason)
    _tell(country, "is blocked" if changed else "was blocked already", blocked=True, as_json=as_json)


@app.command("unblock")
def unblock_country(country: Country, *, as_json: AsJson = False) -> None:
    """Text people in a country again; what was refused meanwhile can be redriven.

    [bold]dispatcher countries unblock US[/bold]
    """
    with client() as dispatcher:
        changed = dispatcher.unblock_country(country)
    _tell(country, "is texted again" if changed else "was not blocked", blocked=False, as_json=as_json)


def _tell(country: str, words: str, *, blocked: bool, as_json: bool) -> None:
    code = country.strip().upper()
    if as_json:
        print_json({"country": code, "blocked": blocked})
    else:
        typer.echo(f"{code} {words}")
