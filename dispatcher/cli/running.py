"""The commands that run processes: `demo`, `up`, `worker`, `receiver`."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson
from dispatcher.cli.output import fail, print_json
from dispatcher.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from dispatcher.notices import NOTIFY
from dispatcher.privacy import shown
from dispatcher.processes import RECEIVER_PORT

if TYPE_CHECKING:
    from dispatcher.accounts import Account
    from dispatcher.settings import Settings

app = typer.Typer(cls=Commands)

#: Seconds between looks whether the sandbox was started anew.
_SANDBOX_FORGETS: Final = 2.0


@app.command()
def demo(*, as_json: AsJson = False) -> None:
    """See it work: Redis, a provider and a worker of its own, nothing to install, over in seconds.

    [bold]dispatcher demo[/bold]
    """
    from dispatcher.demo import Demo
    from dispatcher.settings import usable

    # Of all settings it heeds the data folder alone: no other shall keep it from showing itself.
    raise typer.Exit(Demo(usable()[0].data, as_json=as_json).run())


@app.command()
def up(*, as_json: AsJson = False) -> None:
    """Run everything: Redis (unless DISPATCHER_REDIS_URL names one), a worker for each account, Flower.

    [bold]DISPATCHER_SANDBOX=1 dispatcher up[/bold] brings the sandbox, too. Other commands find it from the same
    folder.
    """
    from dispatcher.pages import Log
    from dispatcher.up import Up

    def as_object(name: str, line: str) -> None:
        print_json({"process": name, "line": line})
        sys.stdout.flush()

    Up(as_object if as_json else Log().tell).run()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def worker(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="The account to work for, or notify, which calls back; several: with commas.")
    ],
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    *,
    as_json: AsJson = False,
) -> None:
    """Work for an account, or call applications back (notify), until told to stop: Celery, with all that matters set.

    What follows NAME goes to `celery worker` as it is: [bold]dispatcher worker textgoto --concurrency 32[/bold]
    """
    from dispatcher.queues import node_name
    from dispatcher.settings import load
    from workers.adapters import adapters

    settings = load()
    settings.require_redis()
    settings.require_server("a worker")
    accounts = name.split(",")
    # Telling consumers needs no account.
    adapters(settings, [one for one in accounts if one.strip() != NOTIFY])
    arguments = ["--quiet", "-A", "workers", "worker", "-Q", name, "--loglevel", loglevel, *context.args]
    if as_json:
        node = node_name(accounts, os.getpid(), socket.gethostname())
        print_json({"accounts": accounts, "node": node, "pid": os.getpid()})
        sys.stdout.flush()
    # It becomes the worker, so that signals reach it.
    os.execv(sys.executable, [sys.executable, "-m", "celery", *arguments])  # noqa: S606 - our own words, no shell


@app.command()
def receiver(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = RECEIVER_PORT,
    *,
    urls: Annotated[
        bool, typer.Option("--urls", help="Show where each provider is to call; what is shown is secret.")
    ] = False,
    base: Annotated[
        str, typer.Option(help="With --urls: how it is reached from outside. Default: DISPATCHER_RECEIVER_URL.")
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Read once more what was set aside, once its adapter is mended.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take what providers call back: receipts and texts from people.

    [bold]dispatcher receiver[/bold], behind a proxy that speaks TLS; each vendor's console wants its URL:
    [bold]dispatcher receiver --urls --base https://callbacks.example.com[/bold]
    """
    from dispatcher.settings import load
    from workers.receiver import run

    settings = load()
    if again:
        _read_again(settings, as_json=as_json)
        return
    if base and not re.fullmatch(r"https?://[^/\s]+(/[^\s?#]*)?", base):
        raise InvalidRequest("--base", "must be how it is reached, such as https://callbacks.example.com", shown(base))
    here = base or settings.receiver_url or f"http://{host}:{port}"
    if urls:
        _show_urls(settings, here, as_json=as_json)
        return
    if base:
        raise InvalidRequest("--base", "goes with --urls; the receiver itself has DISPATCHER_RECEIVER_URL")

    async def ready(origin: str) -> None:
        if as_json:
            print_json({"url": origin})
        else:
            typer.echo(f"The receiver listens at {origin}")
        sys.stdout.flush()
        if settings.sandbox and settings.sandbox_url:
            _tell_sandbox(settings, settings.receiver_url or origin)

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        run(settings, host, port, ready)
    except OSError as error:
        fail(f"the receiver cannot listen at {host}:{port}: {error.strerror or 'there is no such address'}")


def _show_urls(settings: Settings, base: str, *, as_json: bool) -> None:
    """Show where each account's provider is to call; those of accounts that workers published where Redis answers."""
    from dispatcher.client import Dispatcher
    from workers.receiver import urls

    published: dict[str, Account] = {}
    with suppress(StoreUnavailable, ConfigurationError), Dispatcher(settings) as dispatcher:
        published = dispatcher.providers()
    found = urls(settings, base, published)
    for account, url in found.items():
        if as_json:
            print_json({"account": account, "url": url})
        else:
            typer.echo(f"{account:<16} {url}")
    if found:
        return
    if not settings.providers and not published:
        fail("no account is known here; set DISPATCHER_PROVIDERS__<NAME>__..., or start a worker of it once")
    if not as_json:
        typer.echo("No account's provider calls back.")


def _read_again(settings: Settings, *, as_json: bool) -> None:
    """Publish once more what was set aside; what the broker does not take the clock finds."""
    from kombu.exceptions import KombuError

    from dispatcher.callbacks import CallbackCalls
    from dispatcher.queues import celery_app, publish, receipts_queue
    from dispatcher.store import JobStore

    found, app = 0, celery_app(settings)
    with closing(JobStore(settings.redis, settings.redis_shown)) as store:
        while portion := store.run(CallbackCalls(settings).again()):
            for account, ids in portion.items():
                with suppress(KombuError, OSError):
                    publish(app, receipts_queue(account), ids)
                found += len(ids)
    if as_json:
        print_json({"again": found})
    else:
        typer.echo(f"{found} callbacks are read again.")


def _tell_sandbox(settings: Settings, base: str) -> None:
    """Let the sandbox know, now and when it was started anew, where its providers are to call."""
    from workers.adapters import available
    from workers.receiver import urls
    from workers.sandbox.client import Sandbox, SandboxError

    played = Sandbox(settings.sandbox_url, timeout=5)
    # Of several accounts at one provider it calls the one that is named like it.
    wanted = {name: url for name, url in urls(settings, base, {}).items() if name in available()}

    def tell() -> None:
        while True:
            try:
                known = {name: one.url for name, one in played.told().items()}
                missing = {name: url for name, url in wanted.items() if name in known and known[name] != url}
                if missing:
                    played.callbacks(missing)
            except (OSError, SandboxError, msgspec.MsgspecError) as error:
                logging.getLogger("dispatcher.receiver").debug("the sandbox was not told: %s", error.__class__.__name__)
            time.sleep(_SANDBOX_FORGETS)

    threading.Thread(target=tell, name="tell-sandbox", daemon=True).start()
