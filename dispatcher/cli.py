"""The command line: `dispatcher send`, `dispatcher job`, `dispatcher worker`, ...

Each command takes `--json` (one object a line), exits 0 only when what it was asked came true, and says what is wrong
in one paragraph on standard error.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn
from urllib.parse import urlsplit

import msgspec
import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from dispatcher.errors import (
    ConfigurationError,
    DispatcherError,
    InvalidRequest,
    StoreUnavailable,
    UnknownProvider,
    WaitTimeout,
)
from dispatcher.privacy import mask_numbers, one_line, shown
from dispatcher.processes import RECEIVER_PORT, SANDBOX_PORT

if TYPE_CHECKING:
    from dispatcher.accounts import Account
    from dispatcher.batches import Until
    from dispatcher.client import Dispatcher
    from dispatcher.jobs import Job
    from dispatcher.settings import Settings
    from workers.sandbox.client import Sandbox

_UNTIL: Final[dict[str, Until]] = {"settled": "settled", "final": "final"}

#: What a disk that takes no more says.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

#: Characters of what is said of a command's words.
_LONGEST_USAGE: Final = 500

#: Seconds between looks whether the sandbox was started anew.
_SANDBOX_FORGETS: Final = 2.0

_MINUTE: Final = timedelta(minutes=1)

#: What the command line calls otherwise than Python does.
_OTHERWISE: Final = {"code_ttl": "ttl", "options": "option"}


class _Commands(TyperGroup):
    """The commands, whose errors name what was typed: --send-at, not `send_at`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidRequest as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            options = {one.name: max(one.opts, key=len) for one in getattr(command, "params", ())}
            typed = options.get(_OTHERWISE.get(error.field, error.field), "")
            if not typed.startswith("-"):
                raise
            raise InvalidRequest(typed, error.reason, error.value) from None


class _Operations(TyperCommand):
    """`dispatcher op`, whose help knows what the account that is named can do, and what an operation takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        asked = {*ctx.help_option_names} & {*args}
        # What is wrong with these words is told below, where they are read once more.
        told = self.make_parser(ctx).parse_args(args=[*args])[0] if asked else {}
        if told.get("help") and isinstance(told.get("provider"), str):
            operation = told.get("operation")
            _operation_help(
                told["provider"], operation if isinstance(operation, str) else None, as_json=bool(told.get("as_json"))
            )
            raise typer.Exit
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Commands,
    name="dispatcher",
    help="Send texts, verify numbers and look them up through SMS providers. Try it: [bold]dispatcher demo[/bold]",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
sandbox = typer.Typer(invoke_without_command=True, no_args_is_help=False)
app.add_typer(sandbox, name="sandbox")
optouts = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    help="Keep who wants no more texts: they texted STOP, a provider told, or you do. The list holds hashes: it can be "
    "asked, not shown.\n\n"
    "[bold]dispatcher optouts check +447700900001 --json[/bold]",
)
app.add_typer(optouts, name="optouts")
providers = typer.Typer(cls=_Commands, invoke_without_command=True, no_args_is_help=False)
app.add_typer(providers, name="providers")


def _checked_until(word: str) -> str:
    """Refuse another word than the two before anything is enqueued."""
    if word not in {"settled", "final"}:
        raise InvalidRequest("--until", "must be settled or final", shown(word))
    return word


Number = Annotated[str, typer.Argument(help="A number in international form: +447700900001")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Reveal = Annotated[bool, typer.Option(help="Show numbers and texts unmasked.")]
Provider = Annotated[str | None, typer.Option(help="The account to use, when several can do it.")]
Sender = Annotated[str, typer.Option(help="Who it is from, where the account may say so.")]
Reference = Annotated[str, typer.Option(help="Your own name for it.")]
Tenant = Annotated[str, typer.Option(help="On whose behalf.")]
OnUnknown = Annotated[
    str, typer.Option("--on-unknown", help="hold, or resend: once more when nobody can tell whether it was sent.")
]
Idempotency = Annotated[str | None, typer.Option("--idempotency-key", help="The same key returns the first job.")]
ValidFor = Annotated[float | None, typer.Option(help="Seconds after which it is not sent any more.")]
LaneName = Annotated[str | None, typer.Option("--lane", help="high or normal.")]
Options = Annotated[list[str] | None, typer.Option("--option", help="The provider's own, as key=value; repeatable.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is settled; exit 0 only for a good end.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait.", min=0)]
JobId = Annotated[str | None, typer.Argument(metavar="ID", help="A job's id.", show_default=False)]
WholeBatch = Annotated[str | None, typer.Option("--batch", help="The id of a batch, instead of a job's.")]
UntilName = Annotated[str, typer.Option("--until", help="settled or final.", callback=_checked_until)]


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
        _json({"process": name, "line": line})
        sys.stdout.flush()

    Up(as_object if as_json else Log().tell).run()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def worker(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The account to work for; several are separated by commas.")],
    loglevel: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    *,
    as_json: AsJson = False,
) -> None:
    """Work for an account until told to stop: Celery, with everything that matters set.

    What follows NAME goes to `celery worker` as it is: [bold]dispatcher worker textgoto --concurrency 32[/bold]
    """
    from dispatcher.queues import node_name
    from dispatcher.settings import load
    from workers.adapters import adapters

    settings = load()
    settings.require_redis()
    accounts = name.split(",")
    adapters(settings, accounts)
    arguments = ["--quiet", "-A", "workers", "worker", "-Q", name, "--loglevel", loglevel, *context.args]
    if as_json:
        node = node_name(accounts, os.getpid(), socket.gethostname())
        _json({"accounts": accounts, "node": node, "pid": os.getpid()})
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
            _json({"url": origin})
        else:
            typer.echo(f"The receiver listens at {origin}")
        sys.stdout.flush()
        if settings.sandbox and settings.sandbox_url:
            _tell_sandbox(settings, settings.receiver_url or origin)

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        run(settings, host, port, ready)
    except OSError as error:
        _fail(f"the receiver cannot listen at {host}:{port}: {error.strerror or 'there is no such address'}")


@optouts.command("add")
def add_optout(number: Number, *, as_json: AsJson = False) -> None:
    """Never text a number again, also what is enqueued already.

    [bold]dispatcher optouts add +447700900001[/bold]
    """
    with _dispatcher() as dispatcher:
        changed = dispatcher.opt_out(number)
    _show_optout(number, "is on the list" if changed else "was on the list already", as_json=as_json, opted_out=True)


@optouts.command("remove")
def remove_optout(number: Number, *, as_json: AsJson = False) -> None:
    """Text a number again, since the person said so.

    [bold]dispatcher optouts remove +447700900001[/bold]
    """
    with _dispatcher() as dispatcher:
        changed = dispatcher.opt_in(number)
    words = "is off the list; a provider that was told keeps it stopped" if changed else "was not on the list"
    _show_optout(number, words, as_json=as_json, opted_out=False)


@optouts.command("check")
def check_optout(number: Number, *, as_json: AsJson = False) -> None:
    """Say whether a number is on the list; exits 0 only where it may be texted.

    [bold]dispatcher optouts check +447700900001[/bold]
    """
    with _dispatcher() as dispatcher:
        since = dispatcher.opted_out(number)
    words = f"is on the list since {since:%Y-%m-%d %H:%M:%S %Z}" if since else "is not on the list"
    _show_optout(number, words, as_json=as_json, opted_out=bool(since), since=since)
    raise typer.Exit(1 if since else 0)


@sandbox.callback()
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
    callbacks = _pairs(callback or ())

    def ready(url: str) -> None:
        if as_json:
            _json({"url": url})
        else:
            typer.echo(f"The sandbox listens at {url}")

    address, here = host or place.hostname or "127.0.0.1", place.port or SANDBOX_PORT if port is None else port
    try:
        run(address, here, ledger, ready, callbacks=callbacks, times=Times(after=receipts_after))
    except CallbackError as error:
        _fail(f"--callback {error}", 2)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or "there is no such port"
        _fail(f"the sandbox cannot listen at {address}:{here}, or not write its ledger: {why}")
    except (ValueError, msgspec.MsgspecError):
        _fail(f"{ledger} is no ledger of a sandbox; name another file with --ledger")


@sandbox.command()
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
            _json(msgspec.to_builtins(message))
        else:
            at = datetime.fromtimestamp(message.at, UTC)
            typer.echo(f"{at:%H:%M:%S}  {message.provider}  from {message.sender}: {message.text}")


@sandbox.command("text")
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
        _fail(error.reason, 2)
    except OSError:
        _fail_sandbox(sandbox)
    if as_json:
        _json({"ok": True})
    else:
        typer.echo(f"{provider} passes it on.")


@app.command()
def send(
    to: Annotated[str, typer.Argument(help="A number in international form: +447700900001")],
    text: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    *,
    provider: Provider = None,
    sender: Sender = "",
    category: Annotated[str, typer.Option(help="otp, transactional or promotional.")] = "transactional",
    reference: Reference = "",
    metadata: Annotated[str, typer.Option(help="A JSON object to keep with it.")] = "{}",
    tenant: Tenant = "",
    idempotency_key: Idempotency = None,
    valid_for: ValidFor = None,
    send_at: Annotated[str | None, typer.Option(help="Not before: 2026-12-24T09:00:00+01:00")] = None,
    lane: LaneName = None,
    on_unknown: OnUnknown = "hold",
    option: Options = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Send one text.

    [bold]dispatcher send +447700900001 "Hello" --provider textgoto --wait[/bold]
    """
    with _dispatcher() as dispatcher:
        job = dispatcher.send(
            to,
            _stdin("text").removesuffix("\n") if text == "-" else text,
            provider=provider,
            sender=sender,
            category=category,
            reference=reference,
            metadata=_object("--metadata", metadata),
            tenant=tenant,
            idempotency_key=idempotency_key,
            valid_for=valid_for,
            send_at=_moment("--send-at", send_at),
            lane=lane,
            on_unknown=on_unknown,
            options=_pairs(option or []),
        )
        _end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command("send-file")
def send_file(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV with a line of names on top, or JSON Lines; - reads stdin.")
    ],
    *,
    text: Annotated[
        str | None, typer.Option("--text", help="With {column} where a field belongs. Default: the column text.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The column of the number. Default: to, number, phone, mobile, ...")
    ] = None,
    provider: Provider = None,
    sender: Sender = "",
    category: Annotated[str, typer.Option(help="otp, transactional or promotional.")] = "transactional",
    reference: Annotated[str, typer.Option(help="Your own name for them; a column reference wins.")] = "",
    metadata: Annotated[str, typer.Option(help="A JSON object to keep with each.")] = "{}",
    tenant: Tenant = "",
    valid_for: ValidFor = None,
    send_at: Annotated[str | None, typer.Option(help="Not before: 2026-12-24T09:00:00+01:00")] = None,
    lane: LaneName = None,
    on_unknown: OnUnknown = "hold",
    option: Options = None,
    batch_id: Annotated[
        str | None, typer.Option(help="The batch's name. Default: made of the file and these options.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where bad lines go. Default: FILE.rejects.csv (.jsonl).")
    ] = None,
    format_: Annotated[
        Literal["csv", "jsonl"] | None, typer.Option("--format", help="Default: by the file's ending.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="Default: comma, semicolon or tab, as the first line.")] = None,
    encoding: Annotated[str, typer.Option(help="Of the file, e.g. cp1252.")] = "utf-8",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line, enqueue nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is settled; exit 0 only for good ends.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0)] = 600,
    as_json: AsJson = False,
) -> None:
    """Send a text to everybody in a file. Stopped and run again, it continues where it was.

    [bold]dispatcher send-file customers.csv --text "Hi {name}" --provider textgoto[/bold]
    """
    from dispatcher.send_file import Asked, Run, summary
    from dispatcher.settings import load
    from dispatcher.sources import Stop

    terms = {
        "provider": provider,
        "sender": sender,
        "category": category,
        "reference": reference,
        "metadata": _object("--metadata", metadata),
        "tenant": tenant,
        "valid_for": valid_for,
        "send_at": _moment("--send-at", send_at),
        "lane": lane,
        "options": _pairs(option or []),
    }
    if on_unknown != "hold":
        # Where nothing was said, a file's batch has the name that it had before this could be said.
        terms["on_unknown"] = on_unknown
    asked = Asked(
        file=file,
        format=format_,
        delimiter=delimiter,
        encoding=encoding,
        to=to,
        text=text,
        batch_id=batch_id,
        rejects=rejects,
        dry_run=dry_run,
        wait=timeout if wait else None,
        terms=terms,
    )
    with nullcontext() if dry_run else _dispatcher() as dispatcher, Stop() as stop:
        settings = load() if dispatcher is None else dispatcher.settings
        run = Run(asked, settings, dispatcher, stop, lambda words: typer.echo(words, err=True))()
    if as_json:
        _json(msgspec.to_builtins(run.report))
    else:
        for words in summary(run):
            typer.echo(words)
    if run.why:
        _fail(run.why, run.code)
    raise typer.Exit(run.code)


@app.command()
def verify(
    to: Annotated[str, typer.Argument(help="A number in international form: +447700900001")],
    *,
    template: Annotated[
        str, typer.Option(help="The text, with [CODE] where the code belongs.")
    ] = "Your code is [CODE]",
    ttl: Annotated[int, typer.Option(help="Seconds that the code lives.")] = 600,
    provider: Provider = None,
    sender: Sender = "",
    reference: Reference = "",
    tenant: Tenant = "",
    idempotency_key: Idempotency = None,
    valid_for: ValidFor = None,
    on_unknown: OnUnknown = "hold",
    option: Options = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Send a one-time code.

    [bold]dispatcher verify +447700900001 --wait[/bold], then [bold]dispatcher check ID CODE[/bold]
    """
    with _dispatcher() as dispatcher:
        job = dispatcher.verify(
            to,
            template=template,
            code_ttl=ttl,
            provider=provider,
            sender=sender,
            reference=reference,
            tenant=tenant,
            idempotency_key=idempotency_key,
            valid_for=valid_for,
            on_unknown=on_unknown,
            options=_pairs(option or []),
        )
        _end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command()
def check(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The verification's id.")],
    code: Annotated[str, typer.Argument(help="What the person typed; - reads standard input.")],
    *,
    timeout: Timeout = 5,
    as_json: AsJson = False,
) -> None:
    """Judge a code; exits 0 only when it is right.

    [bold]dispatcher check 06h00... 012837[/bold]
    """
    with _dispatcher() as dispatcher:
        verdict = dispatcher.check(id_, _stdin("code") if code == "-" else code, timeout=timeout)
    if as_json:
        _json({"id": id_, "valid": verdict.valid, "status": verdict.status})
    else:
        typer.echo(f"{'valid' if verdict.valid else 'not valid'}; the verification is {verdict.status}")
    raise typer.Exit(0 if verdict.valid else 1)


@app.command()
def lookup(
    to: Annotated[str, typer.Argument(help="A number in international form: +447700900001")],
    *,
    provider: Provider = None,
    reference: Reference = "",
    tenant: Tenant = "",
    idempotency_key: Idempotency = None,
    valid_for: ValidFor = None,
    lane: LaneName = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Ask what a provider knows of a number.

    [bold]dispatcher lookup +447700900001 --wait[/bold]
    """
    with _dispatcher() as dispatcher:
        job = dispatcher.lookup(
            to,
            provider=provider,
            reference=reference,
            tenant=tenant,
            idempotency_key=idempotency_key,
            valid_for=valid_for,
            lane=lane,
        )
        _end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command(cls=_Operations)
def op(
    provider: Annotated[str, typer.Argument(help="The account.")],
    operation: Annotated[str, typer.Argument(help="What to do, e.g. balance; `dispatcher providers` lists them.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    *,
    from_json: Annotated[
        str, typer.Option("--arguments", help="- reads them as a JSON object from standard input.")
    ] = "",
    reference: Reference = "",
    tenant: Tenant = "",
    idempotency_key: Idempotency = None,
    valid_for: ValidFor = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Do anything else an account can do.

    [bold]dispatcher op textgoto balance --wait[/bold]; what an operation takes tells
    [bold]dispatcher op textgoto list.append --help[/bold]
    """
    from dispatcher.jobs import CARD_FIELDS
    from workers.operations import COMMANDS, check

    if operation in COMMANDS:
        raise InvalidRequest("operation", f"has a command of its own: {COMMANDS[operation]}", shown(operation))
    given: dict[str, Any] = _pairs(arguments or [])
    for name in given:
        if name in CARD_FIELDS:
            # Other users of this machine can read what a process was started with, and a shell keeps it.
            raise InvalidRequest(
                f"argument {name}", "is a card's; give those on standard input, as a JSON object: --arguments -"
            )
    if from_json not in {"", "-"}:
        raise InvalidRequest("--arguments", "must be -: what may be secret comes on standard input, as a JSON object")
    if from_json:
        given |= _object("--arguments", _stdin("--arguments"))
    with _dispatcher() as dispatcher:
        known = _account(dispatcher, provider)
        if known is not None:
            check(known, operation, given)
        job = dispatcher.operation(
            provider,
            operation,
            reference=reference,
            tenant=tenant,
            idempotency_key=idempotency_key,
            valid_for=valid_for,
            arguments=given,
        )
        _end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command()
def job(id_: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False, reveal: Reveal = False) -> None:
    """Show a job with its history.

    [bold]dispatcher job 06h00...[/bold]
    """
    with _dispatcher() as dispatcher:
        found = dispatcher.get(id_, reveal=reveal)
    if as_json:
        _json(found.to_dict())
        return
    from dispatcher.pages import print_job

    print_job(found)


@app.command()
def jobs(
    *,
    state: Annotated[str | None, typer.Option(help="Only those in this state.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch.")] = None,
    number: Annotated[str | None, typer.Option(help="Only those to this number.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=100_000)] = 50,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """List jobs, the latest first.

    [bold]dispatcher jobs --state unknown --provider textgoto[/bold]
    """
    with _dispatcher() as dispatcher:
        counted = dispatcher.batch(batch).to_dict() if batch is not None else None
        found = dispatcher.jobs(state=state, provider=provider, batch=batch, number=number, limit=limit, reveal=reveal)
    if as_json:
        for one in found:
            _json(one.to_dict())
        return
    if counted and (counted["size"] or counted["open"]):
        _show_batch(counted, as_json=False)
    if not found:
        typer.echo("No jobs.")
        return
    from dispatcher.pages import print_jobs

    print_jobs(found)


@app.command()
def events(
    *,
    after: Annotated[str | None, typer.Option(help="Go on after this cursor; 0 is the oldest kept.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as they come.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Go on until so many seconds were quiet.", min=0)] = None,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Show what happened, oldest first.

    [bold]dispatcher events -f --after 1795300528378-0[/bold]
    """
    from dispatcher.batches import in_words

    with _dispatcher() as dispatcher:
        start = after if after is not None or follow else "0"
        for event in dispatcher.events(start, timeout=timeout if follow else timeout or 0, reveal=reveal):
            if as_json:
                _json(msgspec.to_builtins(event))
            else:
                told = event.data
                of = in_words(told) if event.type == "batch.settled" else _concerned(told)
                typer.echo(f"{event.cursor}  {event.at:%H:%M:%S}  {event.type:<24} {told['id']}  {of}")


@app.command()
def wait(
    id_: JobId = None,
    *,
    batch: WholeBatch = None,
    until: UntilName = "settled",
    timeout: Timeout = 30,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Wait for a job, or for all of a batch; exits 0 only for a good end.

    [bold]dispatcher wait 06h00... --timeout 60[/bold]
    """
    job_id = _either(id_, batch)
    with _dispatcher() as dispatcher:
        if batch is not None:
            _end_batch(dispatcher, batch, timeout=timeout, until=until, as_json=as_json)
        found = dispatcher.get(job_id)
        _end(dispatcher, found, wait=True, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command()
def cancel(id_: JobId = None, *, batch: WholeBatch = None, as_json: AsJson = False) -> None:
    """Take back a job that is not being sent yet, or all such jobs of a batch, which then takes no more.

    [bold]dispatcher cancel 06h00...[/bold]
    """
    job_id = _either(id_, batch)
    with _dispatcher() as dispatcher:
        if batch is None:
            _show(dispatcher.cancel(job_id), as_json=as_json)
            return
        dispatcher.cancel_batch(batch)
        _show_batch(dispatcher.batch(batch).to_dict(), as_json=as_json)


@app.command()
def resolve(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The unknown job's id.")],
    state: Annotated[str, typer.Argument(help="sent (a text), completed (all else), or failed: surely not taken.")],
    *,
    note: Annotated[str, typer.Option(help="How you know it; kept in its history.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what became of a job of which nobody could tell.

    [bold]dispatcher resolve 06h00... sent --note "it is in the vendor's portal"[/bold]
    """
    with _dispatcher() as dispatcher:
        _show(dispatcher.resolve(id_, state, note=note), as_json=as_json)


@app.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs; otherwise some are chosen.")] = None,
    *,
    state: Annotated[
        str | None, typer.Option(help="Only those in this state. Default: failed, expired, undelivered.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    failure: Annotated[str | None, typer.Option(help="Only those with this kind of failure: throttled, ...")] = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only those in that state since: 30m, 2h, 3d, or 2026-12-24T09:00:00+01:00")
    ] = None,
    resend: Annotated[
        bool, typer.Option("--resend", help="What is unknown, too: it may have been sent, and is sent twice then.")
    ] = False,
    limit: Annotated[int | None, typer.Option(help="How many at most.", min=1, max=1_000_000)] = None,
    batch_id: Annotated[str | None, typer.Option(help="The new batch's name. Default: a new one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what it would do, enqueue nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Enqueue jobs again that ended badly: new ones, which name the old. Stopped and run again, it makes none twice.

    [bold]dispatcher redrive 06h00...[/bold]; many of them as a new batch, and what that would do:
    [bold]dispatcher redrive --provider textgoto --failure throttled --since 2h --dry-run[/bold]
    """
    chosen = {"state": state, "provider": provider, "failure": failure, "batch": batch, "since": _since(since)}
    choice = "--state, --provider, --failure, --batch or --since"
    if ids and {limit, batch_id, *chosen.values()} != {None}:
        raise InvalidRequest("ID", f"stands alone; the ids of jobs, or chosen by {choice} (--limit, --batch-id)")
    if not ids and {*chosen.values()} == {None}:
        raise InvalidRequest("ID", f"is missing; give the ids of jobs, or choose some by {choice}")
    with _dispatcher() as dispatcher:
        if ids and not dry_run:
            _redrive_each(dispatcher, ids, resend=resend, as_json=as_json)
        more = {**chosen, "resend": resend, "limit": limit, "batch_id": batch_id, "dry_run": dry_run}
        _redrive_many(dispatcher, ids or None, more, as_json=as_json)


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
                _json({"node": one.node, "health": health, "busy": one.busy, "slots": one.slots})
            else:
                typer.echo(f"{one.node} is {health}; {one.busy} of {one.slots} slots taken")
        if not any(one.health(now) in WELL for one in asked):
            _fail(f"no worker of {worker} is alive{' on this machine' if here else ''}")
        return
    seen = page.look(settings)
    if as_json:
        _json({**msgspec.to_builtins(seen), "problems": seen.problems})
    else:
        from dispatcher.pages import print_status

        print_status(seen)
    raise typer.Exit(1 if seen.problems else 0)


@providers.callback()
def list_providers(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the accounts that workers serve, or ever served, and what each can do.

    [bold]dispatcher providers --json[/bold]
    """
    if context.invoked_subcommand:
        return
    with _dispatcher() as dispatcher:
        known = dispatcher.providers()
        suspended = dispatcher.suspensions()
    if as_json:
        for account in known.values():
            mine = [one for one in suspended if one.provider == account.name]
            _json({**msgspec.to_builtins(account), "suspended": msgspec.to_builtins(mine)})
        return
    from dispatcher.pages import print_providers, print_suspensions

    print_providers(known.values())
    print_suspensions(suspended)


@providers.command()
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
    with _dispatcher() as dispatcher:
        lifted = dispatcher.resume(name, scope)
    for one in lifted:
        if as_json:
            _json(msgspec.to_builtins(one))
        else:
            typer.echo(f"{one.provider} goes on ({one.scope}); it was suspended since {one.since:%Y-%m-%d %H:%M:%S %Z}")
    if not lifted:
        _fail(f"nothing of {shown(name)} is suspended{f' as {shown(scope)}' if scope else ''}")


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
            _json(msgspec.to_builtins(finding))
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
        _json({"file": str(file), "kept": kept and str(kept), "next": after})
        return
    typer.echo(f"{file} is written{f'; the one before it is {kept}' if kept else ''}. Every setting is in it.")
    typer.echo(f"Next: `{after[0]}` says what is missing, `{after[1]}` runs everything.")


def main() -> None:
    """Run a command. Nothing but one paragraph is said of an error that is nobody's bug."""
    _open_streams()
    try:
        code = app(standalone_mode=False) or 0
        sys.stdout.flush()
        raise SystemExit(code)
    except TyperException as error:
        _fail_usage(error)
    except InvalidRequest as error:
        _fail(str(error), code=2)
    except DispatcherError as error:
        _fail(str(error))
    except OSError as error:
        _fail_output(error)
    except UnicodeEncodeError as error:
        if error.encoding == "utf-8":
            raise
        _fail(f"the output's encoding, {error.encoding}, cannot carry what is to be shown; set PYTHONIOENCODING=utf-8")


def _open_streams() -> None:
    """Read nothing and write to nobody where whoever started us closed a stream, as some schedulers do."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # In this order each gets the number that was closed, and no connection does.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - open as long as we run


def _fail_output(error: OSError) -> NoReturn:
    """Say that the output could not be written; raise what is another matter."""
    if error.errno not in _NO_ROOM or error.filename:
        raise error
    try:
        sys.stdout.flush()
    except OSError:
        # What is left in the buffer would fail once more when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _fail(f"the output could not be written: {error.strerror}")


def _fail_usage(error: TyperException) -> NoReturn:
    """Say what is wrong with the words of a command, without those that may be a text or a code."""
    # Of a word that is none of those that may be given, no number and no whole page.
    message = mask_numbers(one_line(str(error.format_message())[:_LONGEST_USAGE])).rstrip(".")
    if not message:
        # Nothing was asked for, and the help was shown.
        raise SystemExit(2)
    if "extra argument" in message:
        message = "there is an argument too many; put a text that has spaces in quotes"
    stop = "" if message.endswith("?") else "."
    _fail(f"{message[:1].lower()}{message[1:]}{stop} See `dispatcher --help` and `dispatcher COMMAND --help`", code=2)


def _account(dispatcher: Dispatcher, name: str) -> Account | None:
    """Return what is known of an account, if it is; Redis, which may be away, knows best."""
    from workers.operations import account

    adapter = dispatcher.settings.account(name).get("adapter", name)
    try:
        published = dispatcher.providers()
    except StoreUnavailable:
        published = {}
    return account(name, adapter, published)


def _operation_help(provider: str, operation: str | None, *, as_json: bool) -> None:
    """Show what an account can do, or what one of its operations takes."""
    from workers.adapters import available
    from workers.operations import COMMANDS, account, schema

    try:
        with _dispatcher() as dispatcher:
            known = _account(dispatcher, provider)
            names = {*dispatcher.settings.providers}
    except ConfigurationError:
        # Without a Redis the adapters that are installed tell.
        known, names = account(provider, provider, {}), set()
    if known is None:
        raise UnknownProvider(shown(provider), sorted({*names, *available()}))
    told = schema(known, operation) if operation is not None else None
    if as_json:
        _json(msgspec.to_builtins(told or known.schemas))
        return
    from dispatcher.pages import print_operation, print_operations

    if operation is None or told is None:
        print_operations(known, COMMANDS)
    else:
        print_operation(known, operation, told, COMMANDS.get(operation))


def _dispatcher() -> Dispatcher:
    from dispatcher.client import Dispatcher

    return Dispatcher()


def _end(
    dispatcher: Dispatcher, begun: Job, *, wait: bool, timeout: float, until: str, as_json: bool, reveal: bool
) -> None:
    """Show a job, waited for where asked, and exit by its end."""
    if not wait:
        _show(dispatcher.get(begun.id, reveal=True) if reveal else begun, as_json=as_json)
        return
    try:
        dispatcher.wait(begun.id, until=_UNTIL[until], timeout=timeout)
    except WaitTimeout as late:
        _show(dispatcher.get(begun.id, reveal=reveal), as_json=as_json)
        _fail(str(late))
    ended = dispatcher.get(begun.id, reveal=reveal)
    _show(ended, as_json=as_json)
    raise typer.Exit(0 if ended.good else 1)


def _either(id_: str | None, batch: str | None) -> str:
    """Return the id of a job where that was given; refuse both and neither."""
    if (id_ is None) == (batch is None):
        raise InvalidRequest("ID", "give the id of a job, or --batch with that of a batch, one of the two")
    return id_ or ""


def _redrive_each(dispatcher: Dispatcher, ids: Iterable[str], *, resend: bool, as_json: bool) -> NoReturn:
    """Show the job that each is redriven as, say why where it is not, and exit by whether all were."""
    from dispatcher.recovery import why_not

    good = True
    for id_ in ids:
        try:
            _show(dispatcher.redrive(id_, resend=resend), as_json=as_json)
        except StoreUnavailable:
            raise
        except DispatcherError as error:
            good = False
            typer.echo(f"dispatcher: {why_not(error)}", err=True)
    raise typer.Exit(0 if good else 1)


def _redrive_many(dispatcher: Dispatcher, ids: list[str] | None, more: dict[str, Any], *, as_json: bool) -> NoReturn:
    """Redrive many, show what came of it however it ended, and exit by whether all were."""
    from dispatcher.batches import Redriven
    from dispatcher.recovery import in_words
    from dispatcher.sources import Interrupted, Stop

    seen: list[Redriven] = []
    why, code = "", 1

    def progress(report: Redriven) -> None:
        seen[:] = [report]
        stop.obey()

    with Stop() as stop:
        try:
            seen[:] = [dispatcher.redrive_many(ids, progress=progress, **more)]
        except Interrupted:
            why, code = "Stopped", 130
        except StoreUnavailable as error:
            if not seen:
                raise
            why = str(error)
    (report,) = seen
    if as_json:
        _json(report.to_dict())
    else:
        for words in in_words(report):
            typer.echo(words)
    if why:
        full_stop = "" if why.endswith("?") else "."
        _fail(f"{why}{full_stop} Run the same command again and it goes on: no job is redriven twice", code)
    raise typer.Exit(0 if report.good else 1)


def _end_batch(dispatcher: Dispatcher, id_: str, *, timeout: float, until: str, as_json: bool) -> NoReturn:
    """Wait for all of a batch, show it, and exit by how its jobs ended."""
    from dispatcher.states import GOOD

    batch = dispatcher.batch(id_)
    try:
        batch.wait(until=_UNTIL[until], timeout=timeout)
    except WaitTimeout as late:
        _show_batch(batch.to_dict(), as_json=as_json)
        _fail(str(late))
    ended = batch.to_dict()
    _show_batch(ended, as_json=as_json)
    raise typer.Exit(0 if GOOD.issuperset(ended["counts"]) else 1)


def _show_batch(told: dict[str, Any], *, as_json: bool) -> None:
    from dispatcher.batches import in_words

    if as_json:
        _json(told)
    else:
        typer.echo(f"batch {told['id']} has {in_words(told)}")


def _show(one: Job, *, as_json: bool) -> None:
    if as_json:
        _json(one.to_dict())
        return
    from dispatcher.pages import line, result_rows

    typer.echo(line(one))
    for name, value in result_rows(one.result or {}):
        typer.echo(f"  {name + ':' if name else '   '} {one_line(value)}")


def _concerned(told: dict[str, Any]) -> str:
    """Return in one line whom an event is about, and what they said."""
    if "from" in told:
        return one_line(f"{told['from']} to {told['to'] or told['provider']}: {told['text']}")
    why = told["failure"]["message"] if told.get("failure") else told.get("by", "")
    return one_line(f"{told.get('to') or told.get('number') or ''} {why}")


def _show_optout(number: str, words: str, *, as_json: bool, opted_out: bool, since: datetime | None = None) -> None:
    from dispatcher import phone

    shown = phone.mask(phone.parse(number))
    if as_json:
        _json({"number": shown, "opted_out": opted_out, "since": since})
    else:
        typer.echo(f"{shown} {words}")


def _show_urls(settings: Settings, base: str, *, as_json: bool) -> None:
    """Show where each account's provider is to call; those of accounts that workers published where Redis answers."""
    from contextlib import suppress

    from dispatcher.client import Dispatcher
    from workers.receiver import urls

    published: dict[str, Account] = {}
    with suppress(StoreUnavailable, ConfigurationError), Dispatcher(settings) as dispatcher:
        published = dispatcher.providers()
    found = urls(settings, base, published)
    for account, url in found.items():
        if as_json:
            _json({"account": account, "url": url})
        else:
            typer.echo(f"{account:<16} {url}")
    if found:
        return
    if not settings.providers and not published:
        _fail("no account is known here; set DISPATCHER_PROVIDERS__<NAME>__..., or start a worker of it once")
    if not as_json:
        typer.echo("No account's provider calls back.")


def _read_again(settings: Settings, *, as_json: bool) -> None:
    """Publish once more what was set aside; what the broker does not take the clock finds."""
    from dispatcher.callbacks import CallbackCalls
    from dispatcher.queues import celery_app, publish, receipts_queue
    from dispatcher.store import JobStore

    store, found = JobStore(settings.redis, settings.redis_shown), 0
    while portion := store.run(CallbackCalls(settings).again()):
        for account, ids in portion.items():
            publish(celery_app(settings), receipts_queue(account), ids)
            found += len(ids)
    store.close()
    if as_json:
        _json({"again": found})
    else:
        typer.echo(f"{found} callbacks are read again.")


def _tell_sandbox(settings: Settings, base: str) -> None:
    """Let the sandbox know, now and when it was started anew, where its providers are to call."""
    import threading

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


def _json(document: Any) -> None:
    typer.echo(msgspec.json.encode(document).decode())


def _sandbox() -> Sandbox:
    from dispatcher.settings import load
    from workers.sandbox.client import Sandbox

    return Sandbox(load().sandbox_url or f"http://127.0.0.1:{SANDBOX_PORT}", timeout=5)


def _fail_sandbox(sandbox: Sandbox) -> NoReturn:
    _fail(f"no sandbox answers at {sandbox.url}; start one with `dispatcher sandbox`")


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(f"dispatcher: {message}", err=True)
    raise SystemExit(code)


def _pairs(words: Iterable[str]) -> dict[str, str]:
    """Read key=value words; the value may hold further equals signs."""
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            # The word itself may be a number or a password.
            before = [shown(key) for key in pairs]
            raise InvalidRequest("argument", f"must be key=value, and the one after {before} is not")
        pairs[key] = value
    return pairs


def _stdin(field: str) -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        raise InvalidRequest(field, f"must be text, and standard input is none in {sys.stdin.encoding}") from None


def _object(field: str, text: str) -> dict[str, Any]:
    read: dict[str, Any] = _read(field, "a JSON object", lambda: msgspec.json.decode(text, type=dict[str, Any]))
    return read


def _moment(field: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    at: datetime = _read(field, "a time such as 2026-12-24T09:00:00+01:00", lambda: datetime.fromisoformat(text))
    if at.tzinfo is None:
        raise InvalidRequest(field, "has no time zone; write it like 2026-12-24T09:00:00+01:00", shown(text))
    return at


def _since(text: str | None) -> datetime | None:
    """Read how long ago, as 30m, 2h or 3d, or a moment."""
    ago = re.fullmatch(r"(\d{1,4})([mhd])", text or "")
    if ago is None:
        return _moment("--since", text)
    return datetime.now(UTC) - int(ago[1]) * {"m": _MINUTE, "h": 60 * _MINUTE, "d": 24 * 60 * _MINUTE}[ago[2]]


def _read(field: str, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(field, f"must be {what}") from None


if __name__ == "__main__":
    main()
