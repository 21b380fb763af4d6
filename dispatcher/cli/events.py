"""The command `events` and those below it: what happened, and who reads it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, Reveal, ago_or_moment
from dispatcher.cli.output import client, print_json
from dispatcher.privacy import one_line

if TYPE_CHECKING:
    from dispatcher.events import Event

app = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)

After = Annotated[str | None, typer.Option(help="Go on after this cursor; 0 is the oldest kept.")]
Since = Annotated[str | None, typer.Option(help="Begin at a moment, or so long ago: 30m, 2h, 3d.")]
Name = Annotated[str, typer.Argument(metavar="GROUP", help="A group's name.")]


@app.callback()
def list_events(
    context: typer.Context,
    *,
    after: After = None,
    since: Since = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as they come.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Go on until so many seconds were quiet.", min=0)] = None,
    types: Annotated[
        list[str] | None, typer.Option(help="Only those of a type such as job.failed or job.*; repeatable.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only those of this tenant.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch and its jobs.")] = None,
    group: Annotated[str | None, typer.Option(help="Read the share of a group, from where it is.")] = None,
    consumer: Annotated[str | None, typer.Option(help="Who reads it there, to come back to what was begun.")] = None,
    take_over: Annotated[float, typer.Option(help="Seconds of silence after which its share goes to others.")] = 60,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Show what happened, oldest first.

    [bold]dispatcher events -f --group billing --types 'job.*' --json[/bold] shares the events with others who read
    that group: each is done with once its line was written; killed before, it is shown again, here or there.
    """
    if context.invoked_subcommand:
        return
    begin = ago_or_moment(since)
    with client() as dispatcher:
        told = dispatcher.events(
            "0" if after is None and begin is None and not follow else after,
            since=begin,
            timeout=timeout if follow else timeout or 0,
            reveal=reveal,
            types=None if types is None else [one.strip() for word in types for one in word.split(",")],
            tenant=tenant,
            batch=batch,
            group=group,
            consumer=consumer,
            take_over=take_over,
        )
        # Told to stop as services are, it gives back what it holds, as after Ctrl-C.
        with closing(told), _ended_by(signal.SIGTERM):
            for event in told:
                # Written and flushed: asking for the next one says that we are done with it.
                if as_json:
                    print_json(msgspec.to_builtins(event))
                else:
                    typer.echo(_line(event))


@app.command("groups")
def list_groups(*, as_json: AsJson = False) -> None:
    """List the groups that share events among their consumers, and what waits for each.

    [bold]dispatcher events groups[/bold]
    """
    with client() as dispatcher:
        found = dispatcher.event_groups()
    for one in found:
        if as_json:
            print_json(one.to_dict())
        else:
            typer.echo(f"{one.name}: {one.words}")
    if not found and not as_json:
        typer.echo("no group reads the events; one begins with: dispatcher events -f --group NAME")


@app.command("reset")
def reset_group(group: Name, *, after: After = None, since: Since = None, as_json: AsJson = False) -> None:
    """Have a group go on elsewhere: after a cursor, since a moment, or with news only.

    Backwards its events come once more; forwards, and where events were trimmed away, what is between is missed.
    [bold]dispatcher events reset billing --since 2h[/bold]
    """
    with client() as dispatcher:
        cursor = dispatcher.reset_event_group(group, after=after, since=ago_or_moment(since))
    if as_json:
        print_json({"group": group, "cursor": cursor})
    else:
        typer.echo(f"{group} goes on after {cursor}")


@app.command("delete")
def delete_group(group: Name, *, as_json: AsJson = False) -> None:
    """Delete a group that nobody reads any more; exits 0 only where it was there.

    [bold]dispatcher events delete billing[/bold]
    """
    with client() as dispatcher:
        was_there = dispatcher.delete_event_group(group)
    if as_json:
        print_json({"deleted": was_there})
    else:
        typer.echo("it is deleted" if was_there else "there is no such group")
    raise typer.Exit(0 if was_there else 1)


@contextmanager
def _ended_by(number: signal.Signals) -> Iterator[None]:
    """End what is within by a signal as it would end by itself, with all that closes it."""

    def end(*_: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(number, end)
    try:
        yield
    finally:
        signal.signal(number, before)


def _line(event: Event) -> str:
    """Return an event in one line."""
    from dispatcher.batches import in_words
    from dispatcher.groups import Delivery

    told = event.data
    of = in_words(told) if event.type == "batch.settled" else _concerned(told)
    often = event.deliveries if isinstance(event, Delivery) else 1
    again = f"  (handed out {often} times)" if often > 1 else ""
    return f"{event.cursor}  {event.at:%H:%M:%S}  {event.type:<24} {_named(told)}  {of}{again}"


def _named(told: dict[str, Any]) -> str:
    """Return what an event is about: a job, a batch or a text by its id, else an account, a rule or a guard."""
    return next((str(told[name]) for name in ("id", "provider", "rule", "code") if told.get(name)), "")


def _concerned(told: dict[str, Any]) -> str:
    """Return in one line whom an event is about, and what they said."""
    if "from" in told:
        return one_line(f"{told['from']} to {told['to'] or told['provider']}: {told['text']}")
    why = told["failure"]["message"] if told.get("failure") else told.get("by") or told.get("message") or ""
    return one_line(f"{told.get('to') or told.get('number') or told.get('prefix') or ''} {why}")
