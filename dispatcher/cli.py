"""The command line: `dispatcher send`, `dispatcher job`, `dispatcher worker`, ...

Each command takes `--json` (one object a line), exits 0 only when what it was asked came true, and says what is wrong
in one paragraph on standard error.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn
from urllib.parse import urlsplit

import msgspec
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from dispatcher.errors import DispatcherError, InvalidRequest, WaitTimeout
from dispatcher.privacy import one_line
from dispatcher.processes import SANDBOX_PORT

if TYPE_CHECKING:
    from dispatcher.batches import Until
    from dispatcher.client import Dispatcher
    from dispatcher.jobs import Job

_UNTIL: Final[dict[str, Until]] = {"settled": "settled", "final": "final"}

#: What a disk that takes no more says.
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

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


def _checked_until(word: str) -> str:
    """Refuse another word than the two before anything is enqueued."""
    if word not in {"settled", "final"}:
        raise InvalidRequest("--until", "must be settled or final", word)
    return word


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Reveal = Annotated[bool, typer.Option(help="Show numbers and texts unmasked.")]
Provider = Annotated[str | None, typer.Option(help="The account to use, when several can do it.")]
Sender = Annotated[str, typer.Option(help="Who it is from, where the account may say so.")]
Reference = Annotated[str, typer.Option(help="Your own name for it.")]
Tenant = Annotated[str, typer.Option(help="On whose behalf.")]
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


@sandbox.callback()
def run_sandbox(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = None,
    ledger: Annotated[Path | None, typer.Option(help="File to keep what was accepted in, as JSON lines.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Play the providers locally: [bold]dispatcher sandbox[/bold], as [bold]dispatcher up[/bold] does it by itself.

    It listens where DISPATCHER_SANDBOX_URL says, by default at http://127.0.0.1:8460; give all other processes that
    URL, and DISPATCHER_SANDBOX=1. Some numbers make things happen:
    +447700900100 is blocked, ...101 is invalid, ...104 fails once, ...110 is accepted and never answered; the whole
    table is on top of workers/sandbox/magic.py.
    """
    if context.invoked_subcommand:
        return
    from dispatcher.settings import load
    from workers.sandbox.server import run

    place = urlsplit(load().sandbox_url)

    def ready(url: str) -> None:
        if as_json:
            _json({"url": url})
        else:
            typer.echo(f"The sandbox listens at {url}")

    address, here = host or place.hostname or "127.0.0.1", place.port or SANDBOX_PORT if port is None else port
    try:
        run(address, here, ledger, ready)
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
    from dispatcher.settings import load
    from workers.sandbox.client import Sandbox

    url = load().sandbox_url or f"http://127.0.0.1:{SANDBOX_PORT}"
    try:
        messages = Sandbox(url, timeout=5).inbox(number)
    except OSError:
        _fail(f"no sandbox answers at {url}; start one with `dispatcher sandbox`")
    if not messages and not as_json:
        typer.echo("No texts.")
    for message in messages:
        if as_json:
            _json(msgspec.to_builtins(message))
        else:
            at = datetime.fromtimestamp(message.at, UTC)
            typer.echo(f"{at:%H:%M:%S}  {message.provider}  from {message.sender}: {message.text}")


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
            sys.stdin.read().removesuffix("\n") if text == "-" else text,
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
        verdict = dispatcher.check(id_, sys.stdin.read() if code == "-" else code, timeout=timeout)
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


@app.command()
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

    [bold]dispatcher op textgoto balance --wait[/bold]
    """
    given: dict[str, Any] = _pairs(arguments or [])
    if from_json not in {"", "-"}:
        raise InvalidRequest("--arguments", "must be -: what may be secret comes on standard input, as a JSON object")
    if from_json:
        given |= _object("--arguments", sys.stdin.read())
    with _dispatcher() as dispatcher:
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
) -> None:
    """Show what happened, oldest first.

    [bold]dispatcher events -f --after 1795300528378-0[/bold]
    """
    from dispatcher.batches import in_words

    with _dispatcher() as dispatcher:
        start = after if after is not None or follow else "0"
        for event in dispatcher.events(start, timeout=timeout if follow else timeout or 0):
            if as_json:
                _json(msgspec.to_builtins(event))
            else:
                told = event.data
                of = in_words(told) if event.type == "batch.settled" else told.get("to", "")
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


@app.command()
def providers(*, as_json: AsJson = False) -> None:
    """List the accounts that workers serve, or ever served, and what each can do.

    [bold]dispatcher providers --json[/bold]
    """
    with _dispatcher() as dispatcher:
        known = dispatcher.providers()
    if as_json:
        for account in known.values():
            _json(msgspec.to_builtins(account))
        return
    from dispatcher.pages import print_providers

    print_providers(known.values())


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
    message = str(error.format_message()).rstrip(".")
    if not message:
        # Nothing was asked for, and the help was shown.
        raise SystemExit(2)
    if "extra argument" in message:
        message = "there is an argument too many; put a text that has spaces in quotes"
    stop = "" if message.endswith("?") else "."
    _fail(f"{message[:1].lower()}{message[1:]}{stop} See `dispatcher --help` and `dispatcher COMMAND --help`", code=2)


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
    from dispatcher.pages import line

    typer.echo(line(one))
    for name, value in (one.result or {}).items():
        typer.echo(f"  {name}: {one_line(str(value))}")


def _json(document: Any) -> None:
    typer.echo(msgspec.json.encode(document).decode())


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
            raise InvalidRequest("argument", f"must be key=value, and the one after {list(pairs)} is not")
        pairs[key] = value
    return pairs


def _object(field: str, text: str) -> dict[str, Any]:
    read: dict[str, Any] = _read(field, "a JSON object", lambda: msgspec.json.decode(text, type=dict[str, Any]))
    return read


def _moment(field: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    at: datetime = _read(field, "a time such as 2026-12-24T09:00:00+01:00", lambda: datetime.fromisoformat(text))
    if at.tzinfo is None:
        raise InvalidRequest(field, "has no time zone; write it like 2026-12-24T09:00:00+01:00", text[:40])
    return at


def _read(field: str, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(field, f"must be {what}") from None


if __name__ == "__main__":
    main()
