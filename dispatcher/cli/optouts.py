"""The commands below `optouts`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, Number, Reveal
from dispatcher.cli.output import client, fail, print_json
from dispatcher.errors import InvalidRequest

if TYPE_CHECKING:
    from dispatcher.files import Table
    from dispatcher.sources import Stop

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Keep who wants no more texts: they texted STOP, a provider told, or you do. The list finds people by hashes, "
    "and keeps their numbers sealed where there is a key.\n\n"
    "[bold]dispatcher optouts check +447700900001 --json[/bold]",
)

OfTenant = Annotated[str | None, typer.Option("--tenant", help="Of the texts of this tenant alone.")]
FromSender = Annotated[str | None, typer.Option("--sender", help="Of the texts from this sender alone.")]
File = Annotated[str, typer.Argument(metavar="FILE", help='A CSV, or "-" for standard input.')]
Encoding = Annotated[str, typer.Option(help="Of the file.")]


@app.command("add")
def add_optout(number: Number, *, tenant: OfTenant = None, sender: FromSender = None, as_json: AsJson = False) -> None:
    """Never text a number again, also what is enqueued already.

    [bold]dispatcher optouts add +447700900001 --sender +442079460000[/bold]
    """
    with client() as dispatcher:
        changed = dispatcher.opt_out(number, tenant=tenant, sender=sender)
    _show_optout(number, "is on the list" if changed else "was on the list already", as_json=as_json, opted_out=True)


@app.command("remove")
def remove_optout(
    number: Number, *, tenant: OfTenant = None, sender: FromSender = None, as_json: AsJson = False
) -> None:
    """Text a number again, since the person said so; says which providers block it all the same.

    [bold]dispatcher optouts remove +447700900001[/bold]
    """
    with client() as dispatcher:
        changed = dispatcher.opt_in(number, tenant=tenant, sender=sender)
        blocks = dispatcher.blocked_by(number)
    words = "is off the list" if changed else "was not on the list"
    if blocks:
        told = ", ".join(f"{account} (since {at:%Y-%m-%d})" for account, at in blocks.items())
        words += f"; still blocked by {told} itself, and only lifted there"
    _show_optout(number, words, as_json=as_json, opted_out=False, blocked_by=[*blocks])


@app.command("check")
def check_optout(
    number: Number, *, tenant: OfTenant = None, sender: FromSender = None, as_json: AsJson = False
) -> None:
    """Say whether a text to a number would be refused; exits 0 only where it may be texted.

    Without a tenant and a sender that is a text that has none.

    [bold]dispatcher optouts check +447700900001[/bold]
    """
    with client() as dispatcher:
        since = dispatcher.opted_out(number, tenant=tenant, sender=sender)
        blocks = dispatcher.blocked_by(number)
    words = f"is on the list since {since:%Y-%m-%d %H:%M:%S %Z}" if since else "is not on the list"
    if blocks:
        words += f"; {', '.join(blocks)} told to block it"
    _show_optout(number, words, as_json=as_json, opted_out=bool(since), since=since, blocked_by=[*blocks])
    raise typer.Exit(1 if since else 0)


@app.command("export")
def export_optouts(*, reveal: Reveal = False, as_json: AsJson = False) -> None:
    """Print the list as CSV: hashes, which `import` takes under the same DISPATCHER_HASH_KEY.

    With `--reveal` also the numbers, tenants and senders, where there was a DISPATCHER_SECRET_KEY to keep them.

    [bold]dispatcher optouts export --reveal > optouts.csv[/bold]
    """
    from dispatcher.optout_rows import COLUMNS, cells, guarded, key_of

    writer = csv.writer(sys.stdout, lineterminator="\n")
    with client() as dispatcher:
        key = key_of(dispatcher.settings)
        entries = dispatcher.export_opt_outs(reveal=reveal)
        if not as_json:
            writer.writerow(COLUMNS)
        for entry in entries:
            if as_json:
                print_json(dict(zip(COLUMNS, cells(entry, key), strict=True)))
            else:
                writer.writerow(map(guarded, cells(entry, key)))


@app.command("import")
def import_optouts(file: File, *, encoding: Encoding = "utf-8", as_json: AsJson = False) -> None:
    """Put everybody on the list whom a CSV names in a column `number`, or as an export has them.

    Other columns are tenant, sender, since (a time with its zone) and by. Lines that cannot be taken are told with the
    reason; the others are. Imported again, a file changes nothing. Exits 0 only where every line was taken.

    [bold]dispatcher optouts import optouts.csv[/bold]
    """
    from dispatcher import files, sources

    try:
        with (
            client() as dispatcher,
            sources.Stop() as stop,
            sources.opened(file, encoding, stop) as source,
            closing(sources.lines(source, stop)) as lines,
        ):
            report = dispatcher.import_opt_outs(_told(files.read_csv(lines), stop), refused=_tell)
    except sources.Interrupted:
        fail("stopped; some of the file is imported, and the same command imports the rest")
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        typer.echo(f"{report.added} added, {report.known} known, {report.refused} refused")
    raise typer.Exit(1 if report.refused else 0)


def _told(table: Table, stop: Stop) -> Iterator[Mapping[str, Any]]:
    """Yield rows with the line that they stand on, and why they cannot be read, where they cannot.

    Raises `InvalidRequest` where no column says who it is.
    """
    from dispatcher.files import NUMBER_COLUMNS
    from dispatcher.optout_rows import unguarded

    names = {name: name.casefold() for name in table.columns}
    number = next((one for one in NUMBER_COLUMNS if one in names.values()), None)
    if number is None and "hash" not in names.values():
        raise InvalidRequest("FILE", "has no column number, nor hash and key as an export has them")
    for row in table.rows:
        stop.obey()
        told = {names[name]: value and unguarded(value) for name, value in row.values.items()}
        yield {**told, "number": told.get(number or "", ""), "line": row.line, "fault": row.fault}


def _tell(row: Mapping[str, Any], reason: str) -> None:
    typer.echo(f"line {row['line']}: {reason}", err=True)


def _show_optout(
    number: str, words: str, *, as_json: bool, opted_out: bool, **told: datetime | list[str] | None
) -> None:
    from dispatcher import phone

    shown = phone.mask(phone.parse(number))
    if as_json:
        print_json({"number": shown, "opted_out": opted_out, "since": None, "blocked_by": []} | told)
    else:
        typer.echo(f"{shown} {words}")
