"""The commands that make jobs: `send`, `send-file`, `verify`, `resend`, `check`, `lookup`, `op`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer
from typer.core import TyperCommand

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import (
    AsJson,
    CallbackQueue,
    CallbackTask,
    CallbackUrl,
    FailoverAfter,
    GuardKeys,
    Idempotency,
    LaneName,
    MaxSegments,
    OnUnknown,
    Options,
    Provider,
    Reference,
    Reveal,
    Sender,
    SmartEncoding,
    Tenant,
    Timeout,
    Timezone,
    UntilName,
    ValidFor,
    Wait,
    accounts,
    json_object,
    moment,
    pairs,
    stdin,
)
from dispatcher.cli.output import client, end, end_lookups, fail, print_json
from dispatcher.errors import ConfigurationError, InvalidRequest, StoreUnavailable, UnknownProvider
from dispatcher.privacy import shown

if TYPE_CHECKING:
    from dispatcher.accounts import Account
    from dispatcher.client import Dispatcher

app = typer.Typer(cls=Commands)


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
    timezone: Timezone = None,
    lane: LaneName = None,
    on_unknown: OnUnknown = "hold",
    failover_after: FailoverAfter = None,
    max_segments: MaxSegments = None,
    smart_encoding: SmartEncoding = None,
    option: Options = None,
    callback_url: CallbackUrl = None,
    callback_task: CallbackTask = None,
    callback_queue: CallbackQueue = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Send one text.

    [bold]dispatcher send +447700900001 "Hello" --provider textgoto --wait[/bold]
    """
    with client() as dispatcher:
        job = dispatcher.send(
            to,
            stdin("text").removesuffix("\n") if text == "-" else text,
            provider=accounts(provider),
            sender=sender,
            category=category,
            reference=reference,
            metadata=json_object("--metadata", metadata),
            tenant=tenant,
            idempotency_key=idempotency_key,
            valid_for=valid_for,
            send_at=moment("--send-at", send_at),
            timezone=timezone,
            lane=lane,
            on_unknown=on_unknown,
            failover_after=failover_after,
            max_segments=max_segments,
            smart_encoding=smart_encoding,
            options=pairs(option or []),
            callback_url=callback_url,
            callback_task=callback_task,
            callback_queue=callback_queue,
        )
        end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


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
    timezone: Timezone = None,
    lane: LaneName = None,
    on_unknown: OnUnknown = "hold",
    failover_after: FailoverAfter = None,
    max_segments: MaxSegments = None,
    smart_encoding: SmartEncoding = None,
    option: Options = None,
    callback_url: CallbackUrl = None,
    callback_task: CallbackTask = None,
    callback_queue: CallbackQueue = None,
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
        "provider": accounts(provider),
        "sender": sender,
        "category": category,
        "reference": reference,
        "metadata": json_object("--metadata", metadata),
        "tenant": tenant,
        "valid_for": valid_for,
        "send_at": moment("--send-at", send_at),
        "lane": lane,
        "options": pairs(option or []),
    }
    later = {
        "on_unknown": None if on_unknown == "hold" else on_unknown,
        "failover_after": failover_after,
        "max_segments": max_segments,
        "timezone": timezone,
        "smart_encoding": smart_encoding,
        "callback_url": callback_url,
        "callback_task": callback_task,
        "callback_queue": callback_queue,
    }
    # Where nothing was said, a file's batch has the name that it had before these could be said.
    terms |= {name: value for name, value in later.items() if value is not None}
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
    with nullcontext() if dry_run else client() as dispatcher, Stop() as stop:
        settings = load() if dispatcher is None else dispatcher.settings
        run = Run(asked, settings, dispatcher, stop, lambda words: typer.echo(words, err=True))()
    if as_json:
        print_json(msgspec.to_builtins(run.report))
    else:
        for words in summary(run):
            typer.echo(words)
    if run.why:
        fail(run.why, run.code)
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
    failover_after: FailoverAfter = None,
    max_segments: MaxSegments = None,
    smart_encoding: SmartEncoding = None,
    option: Options = None,
    callback_url: CallbackUrl = None,
    callback_task: CallbackTask = None,
    callback_queue: CallbackQueue = None,
    guard_key: GuardKeys = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Send a one-time code.

    [bold]dispatcher verify +447700900001 --wait[/bold], then [bold]dispatcher check ID CODE[/bold]
    """
    with client() as dispatcher:
        job = dispatcher.verify(
            to,
            template=template,
            code_ttl=ttl,
            provider=accounts(provider),
            sender=sender,
            reference=reference,
            tenant=tenant,
            idempotency_key=idempotency_key,
            valid_for=valid_for,
            on_unknown=on_unknown,
            failover_after=failover_after,
            max_segments=max_segments,
            smart_encoding=smart_encoding,
            options=pairs(option or []),
            callback_url=callback_url,
            callback_task=callback_task,
            callback_queue=callback_queue,
            guard_keys=pairs(guard_key or []),
        )
        end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command()
def resend(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The verification's id, or that of one it was resent as.")],
    *,
    provider: Provider = None,
    guard_key: GuardKeys = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Send another code for a verification; the one before is right no more.

    [bold]dispatcher resend 06h00... --wait[/bold]; codes are checked by either id
    """
    with client() as dispatcher:
        job = dispatcher.resend(id_, provider=accounts(provider), guard_keys=pairs(guard_key or []))
        end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


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
    with client() as dispatcher:
        verdict = dispatcher.check(id_, stdin("code") if code == "-" else code, timeout=timeout)
    if as_json:
        print_json({"id": id_, "valid": verdict.valid, "status": verdict.status})
    else:
        typer.echo(f"{'valid' if verdict.valid else 'not valid'}; the verification is {verdict.status}")
    raise typer.Exit(0 if verdict.valid else 1)


@app.command()
def lookup(
    to: Annotated[list[str], typer.Argument(metavar="NUMBER...", help="Numbers in international form: +447700900001")],
    *,
    provider: Provider = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take no remembered answer.")] = False,
    free: Annotated[
        bool, typer.Option("--free", help="Show what the numbers themselves tell; nobody is asked.")
    ] = False,
    batch_id: Annotated[str | None, typer.Option(help="The name of the batch that several numbers make.")] = None,
    reference: Reference = "",
    tenant: Tenant = "",
    idempotency_key: Idempotency = None,
    valid_for: ValidFor = None,
    lane: LaneName = None,
    callback_url: CallbackUrl = None,
    callback_task: CallbackTask = None,
    callback_queue: CallbackQueue = None,
    wait: Wait = False,
    timeout: Timeout = 30,
    until: UntilName = "settled",
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Ask what a provider knows of a number, or of several, which make a batch.

    [bold]dispatcher lookup +447700900001 --wait[/bold]; without any provider or Redis
    [bold]dispatcher lookup +442079460123 --free --reveal[/bold]
    """
    if free:
        _show_described(to, as_json=as_json, reveal=reveal)
        return
    terms: dict[str, Any] = {
        "provider": accounts(provider),
        "reference": reference,
        "tenant": tenant,
        "valid_for": valid_for,
        "lane": lane,
        "fresh": fresh,
        "callback_url": callback_url,
        "callback_task": callback_task,
        "callback_queue": callback_queue,
    }
    with client() as dispatcher:
        if len(to) == 1 and batch_id is None:
            job = dispatcher.lookup(to[0], idempotency_key=idempotency_key, **terms)
            end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)
            return
        if idempotency_key is not None:
            raise InvalidRequest("--idempotency-key", "is for one number; several are told by --batch-id")
        batch = dispatcher.lookup_many(to, batch_id=batch_id, **terms)
        end_lookups(dispatcher, batch, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


def _show_described(numbers: list[str], *, as_json: bool, reveal: bool) -> None:
    """Show what numbers say of themselves."""
    from dispatcher.lookups import describe

    for told in [describe(one).to_dict(reveal=reveal) for one in numbers]:
        if as_json:
            print_json(told)
            continue
        typer.echo(told.pop("number"))
        for name, value in told.items():
            typer.echo(f"  {name}: {', '.join(value) if isinstance(value, list) else value}")


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
    callback_url: CallbackUrl = None,
    callback_task: CallbackTask = None,
    callback_queue: CallbackQueue = None,
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
    given: dict[str, Any] = pairs(arguments or [])
    for name in given:
        if name in CARD_FIELDS:
            # Other users of this machine can read what a process was started with, and a shell keeps it.
            raise InvalidRequest(
                f"argument {name}", "is a card's; give those on standard input, as a JSON object: --arguments -"
            )
    if from_json not in {"", "-"}:
        raise InvalidRequest("--arguments", "must be -: what may be secret comes on standard input, as a JSON object")
    if from_json:
        given |= json_object("--arguments", stdin("--arguments"))
    with client() as dispatcher:
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
            callback_url=callback_url,
            callback_task=callback_task,
            callback_queue=callback_queue,
            arguments=given,
        )
        end(dispatcher, job, wait=wait, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


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
        with client() as dispatcher:
            known = _account(dispatcher, provider)
            names = {*dispatcher.settings.providers}
    except ConfigurationError:
        # Without a Redis the adapters that are installed tell.
        known, names = account(provider, provider, {}), set()
    if known is None:
        raise UnknownProvider(shown(provider), sorted({*names, *available()}))
    told = schema(known, operation) if operation is not None else None
    if as_json:
        print_json(msgspec.to_builtins(told or known.schemas))
        return
    from dispatcher.pages import print_operation, print_operations

    if operation is None or told is None:
        print_operations(known, COMMANDS)
    else:
        print_operation(known, operation, told, COMMANDS.get(operation))
