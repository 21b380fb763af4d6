"""The command `quiet-hours`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, Tenant, Timezone, moment
from dispatcher.cli.output import print_json

if TYPE_CHECKING:
    from dispatcher import quiet

app = typer.Typer(cls=Commands)

#: Time zones that are named, and no more.
_FEW: Final = 3


@app.command("quiet-hours")
def quiet_hours(
    number: Annotated[
        str | None, typer.Argument(help="A number in international form: +447700900001", show_default=False)
    ] = None,
    *,
    category: Annotated[str, typer.Option(help="promotional or transactional.")] = "promotional",
    tenant: Tenant = "",
    timezone: Timezone = None,
    at: Annotated[str | None, typer.Option(help="Another moment than now: 2026-12-24T21:00:00+01:00")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell when a text may go to a number; without one, what is quiet in which country, and why.

    [bold]dispatcher quiet-hours +12125550100[/bold]
    """
    from dispatcher import phone, quiet
    from dispatcher.drafts import member, zone_name
    from dispatcher.jobs import Category
    from dispatcher.settings import load

    rules = load().quiet
    if number is None:
        _list(rules, as_json=as_json)
        return
    when = moment("--at", at)
    told = quiet.hours(
        rules,
        phone.parse(number),
        member("--category", Category, category),
        at=(time.time() if when is None else when.timestamp()) * 1000,
        tenant=tenant,
        timezone=zone_name(timezone),
    )
    if as_json:
        print_json(told.to_dict())
    else:
        _show(told)


def _show(told: quiet.Hours) -> None:
    typer.echo(f"a text to {told.country} may go {'now' if told.until is None else f'from {told.allowed_at} on'}")
    if told.rule:
        where = ", ".join(told.zones) if len(told.zones) <= _FEW else f"anywhere in {told.country}"
        typer.echo(f"quiet is {told.rule} ({where})")
    if told.basis:
        typer.echo(told.basis)
    if told.little:
        typer.echo(f"that the time zone is not known leaves {told.left / 60:g} h a day; say it: --timezone")


def _list(rules: tuple[quiet.Rule, ...], *, as_json: bool) -> None:
    """Show the rules in the order in which they are asked: those of the settings, then the table."""
    from dispatcher import quiet

    listed = [("", one.words, "DISPATCHER_QUIET_HOURS") for one in rules] + list(quiet.table())
    for country, words, basis in listed:
        if as_json:
            print_json({"country": country or None, "quiet": words, "basis": basis})
        else:
            typer.echo(f"{country or '*':3} {words:40} {basis}")
