"""The commands that look at the whole: `status`, `limits`, `doctor`, `init`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import client, fail, print_json
from dispatcher.errors import InvalidRequest
from dispatcher.privacy import one_line

if TYPE_CHECKING:
    from dispatcher.backlog import LaneState
    from dispatcher.limits import LimitState

#: Seconds between two looks of a live view.
_WATCHED: Final = 1.0

app = typer.Typer(cls=Commands)


@app.command()
def status(
    *,
    worker: Annotated[str, typer.Option(help="Ask for the workers of this account, or this one worker, only.")] = "",
    here: Annotated[bool, typer.Option("--here", help="With --worker: only those on this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what runs and what waits; exits 0 only when all is well.

    For health checks: [bold]dispatcher status --worker textgoto --here[/bold]
    """
    from dispatcher import status as page
    from dispatcher.heartbeats import WELL
    from dispatcher.settings import load

    if here and not worker:
        raise InvalidRequest("--here", "goes with --worker NAME")
    settings = load()
    if worker:
        now, found = page.workers(settings)
        host = socket.gethostname() if here else ""
        asked = [one for one in found if worker in {one.node, *one.accounts} and host in {"", one.host}]
        for one in asked:
            health = one.health(now)
            if as_json:
                print_json({"node": one.node, "health": health, "busy": one.busy, "slots": one.slots})
            else:
                typer.echo(f"{one.node} is {health}; {one.busy} of {one.slots} slots taken")
        if not any(one.health(now) in WELL for one in asked):
            fail(f"no worker of {worker} is alive{' on this machine' if here else ''}")
        return
    seen = page.look(settings)
    if as_json:
        print_json({**msgspec.to_builtins(seen), "problems": seen.problems})
    else:
        from dispatcher.pages import print_status

        print_status(seen)
    raise typer.Exit(1 if seen.problems else 0)


@app.command()
def limits(
    provider: Annotated[str | None, typer.Argument(help="An account; all of them unless one is named.")] = None,
    *,
    watch: Annotated[
        bool | None, typer.Option("--watch/--once", help="Look again each second. Default: on a terminal.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much of each limit is used, when the next may go, and what waits for it, by lane and tenant.

    [bold]dispatcher limits textgoto[/bold]
    """
    with client() as dispatcher:

        def look() -> tuple[list[LimitState], list[LaneState]]:
            return dispatcher.limits(provider), dispatcher.backlog(provider)

        if as_json:
            for _ in _each_second(go_on=bool(watch)):
                _print_limits(*look())
            return
        from rich.console import Console
        from rich.live import Live

        from dispatcher.limits_page import limits_view

        console = Console()
        watch = console.is_terminal if watch is None else watch
        if not watch:
            (console if console.is_terminal else Console(width=160)).print(limits_view(*look()))
            return
        with suppress(KeyboardInterrupt), Live(limits_view(*look()), console=console, auto_refresh=False) as live:
            for _ in _each_second():
                live.update(limits_view(*look()), refresh=True)


def _each_second(*, go_on: bool = True) -> Iterator[None]:
    """Yield at an even pace for ever, or only once."""
    while True:
        began = time.monotonic()
        yield
        if not go_on:
            return
        time.sleep(max(0.0, began + _WATCHED - time.monotonic()))


def _print_limits(states: list[LimitState], lanes: list[LaneState]) -> None:
    """Print an object an account."""
    for one in states:
        mine = [lane for lane in lanes if lane.provider == one.provider]
        print_json({**msgspec.to_builtins(one), "lanes": msgspec.to_builtins(mine)})
    sys.stdout.flush()


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """Look at settings, Redis, broker and accounts: what is well, what is missing, the way out.

    It changes nothing; exits 0 only where there is no problem: [bold]dispatcher doctor[/bold]
    """
    from dispatcher.doctor import examine
    from dispatcher.findings import Status
    from workers.probe import accounts

    colours = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red"}
    counts = dict.fromkeys(Status, 0)
    for finding in examine(accounts):
        counts[finding.status] += 1
        if as_json:
            print_json(msgspec.to_builtins(finding))
        else:
            typer.echo(f"{typer.style(f'{finding.status:<8}', colours[finding.status])} {one_line(finding.words)}")
    if not as_json:
        numbers = ((counts[Status.PROBLEM], "problem"), (counts[Status.WARNING], "warning"))
        typer.echo(", ".join(f"{count} {word}{'s'[: count != 1]}" for count, word in numbers))
    raise typer.Exit(1 if counts[Status.PROBLEM] else 0)


@app.command()
def init(
    *,
    force: Annotated[bool, typer.Option("--force", help="Write it anew; the one before it is kept beside it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a dispatcher.toml with every setting in it, commented out, into this folder.

    [bold]dispatcher init[/bold]
    """
    from dispatcher.scaffold import Provider, toml, written
    from workers.adapters import available

    providers = [
        Provider(
            name=one.name,
            base_url=one.base_url,
            group_size=one.group_size,
            required=one.required,
            optional=one.optional,
        )
        for one in available().values()
    ]
    file, kept = written(toml(providers), force=force)
    after = ["dispatcher doctor", "dispatcher up"]
    if as_json:
        print_json({"file": str(file), "kept": kept and str(kept), "next": after})
        return
    typer.echo(f"{file} is written{f'; the one before it is {kept}' if kept else ''}. Every setting is in it.")
    typer.echo(f"Next: `{after[0]}` says what is missing, `{after[1]}` runs everything.")
