"""The command `guards` and the one below it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, Reveal
from dispatcher.cli.output import client, print_json

app = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)


@app.callback()
def list_guards(context: typer.Context, *, as_json: AsJson = False, reveal: Reveal = False) -> None:
    """Show the guards of verifications, and the prefixes that get no codes since hardly any was typed.

    [bold]dispatcher guards --reveal[/bold]
    """
    if context.invoked_subcommand:
        return
    with client() as dispatcher:
        rules = dispatcher.settings.guards
        found = dispatcher.guards(reveal=reveal)
    for one in found:
        if as_json:
            print_json(msgspec.to_builtins(one))
        else:
            typer.echo(
                f"{one.prefix} ({one.country}) is closed until {one.until:%Y-%m-%d %H:%M:%S %Z}: {one.approved} of "
                f"{one.sent} codes approved; its id is {one.id}"
            )
    if not as_json:
        typer.echo(f"{'no prefix is closed; ' if not found else ''}DISPATCHER_GUARDS is {rules}")


@app.command("reopen")
def reopen_prefix(
    prefix: Annotated[str, typer.Argument(help="Its id, or its digits such as +447700900.")], *, as_json: AsJson = False
) -> None:
    """Send codes to a closed prefix again; exits 0 only where it was closed.

    [bold]dispatcher guards reopen +447700900[/bold]
    """
    with client() as dispatcher:
        was_closed = dispatcher.reopen(prefix)
    if as_json:
        print_json({"reopened": was_closed})
    else:
        typer.echo("it gets codes again" if was_closed else "it was not closed")
    raise typer.Exit(0 if was_closed else 1)
