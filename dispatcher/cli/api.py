"""The command `api`, and those below it."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import fail, print_json
from dispatcher.errors import InvalidRequest
from dispatcher.processes import API_PORT

if TYPE_CHECKING:
    from dispatcher.store import JobStore

app = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)
tokens = typer.Typer(cls=Commands, invoke_without_command=True, no_args_is_help=False)
app.add_typer(tokens, name="tokens")


@app.callback()
def run_api(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = API_PORT,
    *,
    as_json: AsJson = False,
) -> None:
    """Serve the HTTP API, for services that are not in Python: docs/http-api.md.

    [bold]dispatcher api[/bold], behind a proxy that speaks TLS; each service has a token:
    [bold]dispatcher api tokens create --tenant shop-a --rights send,read[/bold]
    """
    if context.invoked_subcommand:
        return
    from dispatcher.settings import load
    from workers.api.server import run

    settings = load()

    async def ready(origin: str) -> None:
        if as_json:
            print_json({"url": origin})
        else:
            typer.echo(f"The HTTP API listens at {origin}")
        sys.stdout.flush()

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        run(settings, host, port, ready)
    except OSError as error:
        fail(f"the HTTP API cannot listen at {host}:{port}: {error.strerror or 'there is no such address'}")


@tokens.command("create")
def create_token(
    tenant: Annotated[str | None, typer.Option(help="Whose jobs it makes and sees.")] = None,
    rights: Annotated[
        str, typer.Option(help="Some of send, verify, lookup, read, reveal, tasks; separated by commas.")
    ] = "send,verify,lookup,read",
    budget: Annotated[str, typer.Option(help="Jobs that may be made with it: 1000/1d,100/1h")] = "",
    note: Annotated[str, typer.Option(help="Your own words: who has it.")] = "",
    *,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="It makes and sees jobs of all tenants, and of none.")
    ] = False,
    days: Annotated[float | None, typer.Option(help="Days until it lets nobody in any more.", min=0, max=365)] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, and show it this once: nobody can show it again.

    [bold]dispatcher api tokens create --tenant shop-a --rights send,read --budget 1000/1d[/bold]
    """
    from dispatcher.tokens import make, put

    if all_tenants == (tenant is not None):
        raise InvalidRequest("--tenant", "must be given, or --all-tenants instead")
    until = None if days is None else time.time() + days * 86400
    secret, one = make(
        tenant=tenant,
        rights=[word.strip() for word in rights.split(",") if word.strip()],
        budget=budget,
        note=note,
        expires_at=until,
    )
    with closing(_store()) as store:
        put(store, secret, one)
    if as_json:
        print_json({"token": secret, **one.to_dict()})
    else:
        typer.echo(f"{secret}\nKeep it: it is not shown again. To take it back: dispatcher api tokens revoke {one.id}")


@tokens.callback()
def all_tokens(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Keep who may ask the HTTP API, and for what; without a command, list them.

    [bold]dispatcher api tokens create --tenant shop-a --rights send,read[/bold]
    """
    if not context.invoked_subcommand:
        _list(as_json=as_json)


@tokens.command("list")
def list_tokens(*, as_json: AsJson = False) -> None:
    """Show which tokens there are, and what each may do; none is shown itself.

    [bold]dispatcher api tokens list[/bold]
    """
    _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    from dispatcher.privacy import one_line
    from dispatcher.tokens import listed

    with closing(_store()) as store:
        found = listed(store)
    for one in found:
        if as_json:
            print_json(one.to_dict())
            continue
        whose = "all tenants" if one.tenant is None else one_line(one.tenant)
        over = "expired" if one.expired() else ""
        words = [one.id, whose, ",".join(one.rights), one.budget, one_line(one.note), over]
        typer.echo("  ".join(word for word in words if word))
    if not found and not as_json:
        typer.echo("There is no token: dispatcher api tokens create")


@tokens.command("revoke")
def revoke_token(
    id_: Annotated[str, typer.Argument(metavar="ID", help="A token's id, as it is listed.")], *, as_json: AsJson = False
) -> None:
    """Let a token in no more: within seconds, wherever the API runs.

    [bold]dispatcher api tokens revoke 0n8b2k4q9s1c3e5g7i9k1m3o5q[/bold]
    """
    from dispatcher.tokens import revoke

    with closing(_store()) as store:
        one = revoke(store, id_)
    if as_json:
        print_json({**one.to_dict(), "revoked": True})
    else:
        typer.echo(f"token {one.id} lets nobody in any more")


def _store() -> JobStore:
    from dispatcher.settings import load
    from dispatcher.store import JobStore as Store

    settings = load()
    settings.require_redis()
    return Store(settings.redis, settings.redis_shown, fsync=settings.fsync)
