"""The commands below `optouts`."""

from __future__ import annotations

from datetime import datetime

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, Number
from dispatcher.cli.output import client, print_json

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Keep who wants no more texts: they texted STOP, a provider told, or you do. The list holds hashes: it can be "
    "asked, not shown.\n\n"
    "[bold]dispatcher optouts check +447700900001 --json[/bold]",
)


@app.command("add")
def add_optout(number: Number, *, as_json: AsJson = False) -> None:
    """Never text a number again, also what is enqueued already.

    [bold]dispatcher optouts add +447700900001[/bold]
    """
    with client() as dispatcher:
        changed = dispatcher.opt_out(number)
    _show_optout(number, "is on the list" if changed else "was on the list already", as_json=as_json, opted_out=True)


@app.command("remove")
def remove_optout(number: Number, *, as_json: AsJson = False) -> None:
    """Text a number again, since the person said so.

    [bold]dispatcher optouts remove +447700900001[/bold]
    """
    with client() as dispatcher:
        changed = dispatcher.opt_in(number)
    words = "is off the list; a provider that was told keeps it stopped" if changed else "was not on the list"
    _show_optout(number, words, as_json=as_json, opted_out=False)


@app.command("check")
def check_optout(number: Number, *, as_json: AsJson = False) -> None:
    """Say whether a number is on the list; exits 0 only where it may be texted.

    [bold]dispatcher optouts check +447700900001[/bold]
    """
    with client() as dispatcher:
        since = dispatcher.opted_out(number)
    words = f"is on the list since {since:%Y-%m-%d %H:%M:%S %Z}" if since else "is not on the list"
    _show_optout(number, words, as_json=as_json, opted_out=bool(since), since=since)
    raise typer.Exit(1 if since else 0)


def _show_optout(number: str, words: str, *, as_json: bool, opted_out: bool, since: datetime | None = None) -> None:
    from dispatcher import phone

    shown = phone.mask(phone.parse(number))
    if as_json:
        print_json({"number": shown, "opted_out": opted_out, "since": since})
    else:
        typer.echo(f"{shown} {words}")
