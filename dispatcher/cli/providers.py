"""The command `providers` and those below it."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import client, fail, print_json
from dispatcher.privacy import shown

app = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)


@app.callback()
def list_providers(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the accounts that workers serve, or ever served, what each can do, and how it is.

    [bold]dispatcher providers --json[/bold]
    """
    if context.invoked_subcommand:
        return
    with client() as dispatcher:
        known = dispatcher.providers()
        suspended = dispatcher.suspensions()
        states = {one.provider: one for one in dispatcher.limits()}
        low = {one.provider: one for one in dispatcher.low_balances()}
    if as_json:
        for account in known.values():
            mine = [one for one in suspended if one.provider == account.name]
            more = {"suspended": mine, "state": states.get(account.name), "low_balance": low.get(account.name)}
            print_json({**msgspec.to_builtins(account), **msgspec.to_builtins(more)})
        return
    from dispatcher.limits_page import print_health
    from dispatcher.pages import print_providers, print_suspensions

    print_providers(known.values())
    print_health([state for name, state in states.items() if name in known], suspended, low)
    print_suspensions(suspended)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="The account.")],
    scope: Annotated[
        str | None, typer.Argument(help="account, funds or operation:NAME; all of them unless one is named.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Lift what is suspended of an account, once you have mended it: its jobs go on.

    [bold]dispatcher providers resume textgoto[/bold]
    """
    with client() as dispatcher:
        lifted = dispatcher.resume(name, scope)
    for one in lifted:
        if as_json:
            print_json(msgspec.to_builtins(one))
        else:
            typer.echo(f"{one.provider} goes on ({one.scope}); it was suspended since {one.since:%Y-%m-%d %H:%M:%S %Z}")
    if not lifted:
        fail(f"nothing of {shown(name)} is suspended{f' as {shown(scope)}' if scope else ''}")
