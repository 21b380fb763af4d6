"""The command line: `dispatcher send`, `dispatcher job`, `dispatcher worker`, ...

Each command takes `--json` (one object a line), exits 0 only when what it was asked came true, and says what is wrong
in one paragraph on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn
from urllib.parse import urlsplit

import msgspec
import typer
from typer.exceptions import TyperException

from dispatcher.errors import DispatcherError, InvalidRequest, WaitTimeout
from dispatcher.privacy import one_line

if TYPE_CHECKING:
    from dispatcher.batches import Until
    from dispatcher.client import Dispatcher
    from dispatcher.jobs import Job

#: Where `dispatcher sandbox` listens unless DISPATCHER_SANDBOX_URL or --port says otherwise.
SANDBOX_PORT: Final = 8460

_UNTIL: Final[dict[str, Until]] = {"settled": "settled", "final": "final"}

app = typer.Typer(
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
UntilName = Annotated[str, typer.Option("--until", help="settled or final.", callback=_checked_until)]


@app.command()
def demo(*, as_json: AsJson = False) -> None:
    """See it work: Redis, a provider and a worker of its own, nothing to install, over in seconds.

    [bold]dispatcher demo[/bold]
    """
    from dispatcher.demo import Demo
    from dispatcher.settings import load

    raise typer.Exit(Demo(load().data, as_json=as_json).run())


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
    from dispatcher.settings import load
    from workers.adapters import adapters

    settings = load()
    settings.require_redis()
    adapters(settings, name.split(","))
    node = f"{name.replace(',', '+')}-{os.getpid()}@%h"
    arguments = ["-A", "workers", "worker", "-Q", name, "-n", node, "--loglevel", loglevel, *context.args]
    quiet = ["--without-gossip", "--without-mingle"]
    if as_json:
        _json({"accounts": name.split(","), "node": node, "pid": os.getpid()})
        sys.stdout.flush()
    # It becomes the worker, so that signals reach it.
    os.execv(sys.executable, [sys.executable, "-m", "celery", *arguments, *quiet])  # noqa: S606 - our own words, no shell


@sandbox.callback()
def run_sandbox(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen at.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen at; 0 takes a free one.", min=0, max=65535)] = None,
    ledger: Annotated[Path | None, typer.Option(help="File to keep what was accepted in, as JSON lines.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Play the providers locally: [bold]dispatcher sandbox[/bold], then DISPATCHER_SANDBOX=1 everywhere else.

    It listens where DISPATCHER_SANDBOX_URL says, by default at http://127.0.0.1:8460. Some numbers make things happen:
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
        found = dispatcher.jobs(state=state, provider=provider, batch=batch, number=number, limit=limit, reveal=reveal)
    if as_json:
        for one in found:
            _json(one.to_dict())
        return
    from dispatcher.pages import print_jobs

    print_jobs(found)


@app.command()
def events(
    *,
    after: Annotated[str | None, typer.Option(help="Go on after this cursor; 0 is the oldest kept.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as they come.")] = False,
    timeout: Annotated[float | None, typer.Option(help="With -f: end after so many quiet seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what happened, oldest first.

    [bold]dispatcher events -f --after 1795300528378-0[/bold]
    """
    with _dispatcher() as dispatcher:
        start = after if after is not None or follow else "0"
        for event in dispatcher.events(start, timeout=timeout if follow else 0):
            if as_json:
                _json(msgspec.to_builtins(event))
            else:
                told = event.data
                typer.echo(f"{event.cursor}  {event.at:%H:%M:%S}  {event.type:<24} {told['id']}  {told.get('to', '')}")


@app.command()
def wait(
    id_: Annotated[str, typer.Argument(metavar="ID")],
    *,
    until: UntilName = "settled",
    timeout: Timeout = 30,
    as_json: AsJson = False,
    reveal: Reveal = False,
) -> None:
    """Wait for a job; exits 0 only for a good end.

    [bold]dispatcher wait 06h00... --timeout 60[/bold]
    """
    with _dispatcher() as dispatcher:
        found = dispatcher.get(id_)
        _end(dispatcher, found, wait=True, timeout=timeout, until=until, as_json=as_json, reveal=reveal)


@app.command()
def cancel(id_: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False) -> None:
    """Take back a job that is not being sent yet.

    [bold]dispatcher cancel 06h00...[/bold]
    """
    with _dispatcher() as dispatcher:
        _show(dispatcher.cancel(id_), as_json=as_json)


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


def main() -> None:
    """Run a command. Nothing but one paragraph is said of an error that is nobody's bug."""
    try:
        raise SystemExit(app(standalone_mode=False) or 0)
    except TyperException as error:
        _fail_usage(error)
    except InvalidRequest as error:
        _fail(str(error), code=2)
    except DispatcherError as error:
        _fail(str(error))


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
    return (
        None
        if text is None
        else _read(field, "a time such as 2026-12-24T09:00:00+01:00", lambda: datetime.fromisoformat(text))
    )


def _read(field: str, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest(field, f"must be {what}") from None


if __name__ == "__main__":
    main()
