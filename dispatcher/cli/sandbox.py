"""The command `sandbox` and those below it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import msgspec
import typer

from dispatcher.cli.options import AsJson, pairs
from dispatcher.cli.output import fail, print_json
from dispatcher.processes import SANDBOX_PORT

if TYPE_CHECKING:
    from workers.sandbox.client import Sandbox

app = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@app.callback()
def run_sandbox(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = None,
    ledger: Annotated[Path | None, typer.Option(help="File to keep what was accepted in, as JSON lines.")] = None,
    *,
    callback: Annotated[
        list[str] | None,
        typer.Option(help="Where a provider calls with receipts and texts: mobtexting=http://127.0.0.1:8470/..."),
    ] = None,
    receipts_after: Annotated[
        float, typer.Option(help="Seconds from when a phone gets a text to its receipt.", min=0, max=86400)
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Play the providers locally: [bold]dispatcher sandbox[/bold], as [bold]dispatcher up[/bold] does it by itself.

    It listens where DISPATCHER_SANDBOX_URL says, by default at http://127.0.0.1:8460; give all other processes that
    URL, and DISPATCHER_SANDBOX=1. Some numbers make things happen:
    +447700900100 is blocked, ...101 is invalid, ...104 fails once, ...110 is accepted and never answered; the whole
    table is in docs/sandbox.md.
    """
    if context.invoked_subcommand:
        return
    from dispatcher.settings import load
    from workers.sandbox.callbacks import CallbackError, Times
    from workers.sandbox.server import run

    place = urlsplit(load().sandbox_url)
    callbacks = pairs(callback or ())

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url})
        else:
            typer.echo(f"The sandbox listens at {url}")

    address, here = host or place.hostname or "127.0.0.1", place.port or SANDBOX_PORT if port is None else port
    try:
        run(address, here, ledger, ready, callbacks=callbacks, times=Times(after=receipts_after))
    except CallbackError as error:
        fail(f"--callback {error}", 2)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "there is no such port"
        fail(f"the sandbox cannot listen at {address}:{here}, or not write its ledger: {why}")
    except (ValueError, msgspec.MsgspecError):
        fail(f"{ledger} is no ledger of a sandbox; name another file with --ledger")


@app.command()
def inbox(number: str, *, as_json: AsJson = False) -> None:
    """Show the texts that a sandbox phone received.

    [bold]dispatcher sandbox inbox +447700900001[/bold]
    """
    sandbox = _sandbox()
    try:
        messages = sandbox.inbox(number)
    except OSError:
        _fail_sandbox(sandbox)
    if not messages and not as_json:
        typer.echo("No texts.")
    for message in messages:
        if as_json:
            print_json(msgspec.to_builtins(message))
        else:
            at = datetime.fromtimestamp(message.at, UTC)
            typer.echo(f"{at:%H:%M:%S}  {message.provider}  from {message.sender}: {message.text}")


@app.command("text")
def text_from_phone(
    number: Annotated[str, typer.Argument(help="The phone's number: +447700900001")],
    text: Annotated[str, typer.Argument(help="What the person says, such as STOP.")],
    *,
    provider: Annotated[str, typer.Option(help="The provider that the text goes through.")],
    to: Annotated[str, typer.Option(help="The number or keyword it is sent to, instead of the account's first.")] = "",
    account: Annotated[str, typer.Option(help="The provider's customer it is for, instead of its first.")] = "",
    as_json: AsJson = False,
) -> None:
    """Text from a sandbox phone: the provider passes it on to its callback address.

    [bold]dispatcher sandbox text +447700900001 STOP --provider mobtexting[/bold]
    """
    from workers.sandbox.client import SandboxError

    sandbox = _sandbox()
    try:
        sandbox.text(provider, number, text, to=to, account=account)
    except SandboxError as error:
        fail(error.reason, 2)
    except OSError:
        _fail_sandbox(sandbox)
    if as_json:
        print_json({"ok": True})
    else:
        typer.echo(f"{provider} passes it on.")


def _sandbox() -> Sandbox:
    from dispatcher.settings import load
    from workers.sandbox.client import Sandbox

    return Sandbox(load().sandbox_url or f"http://127.0.0.1:{SANDBOX_PORT}", timeout=5)


def _fail_sandbox(sandbox: Sandbox) -> NoReturn:
    fail(f"no sandbox answers at {sandbox.url}; start one with `dispatcher sandbox`")
