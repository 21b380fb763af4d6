"""The command that forgets a person: `forget`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, Number
from dispatcher.cli.output import client, print_json

if TYPE_CHECKING:
    from dispatcher.forgetting import Forgotten

app = typer.Typer(cls=Commands)


@app.command()
def forget(
    number: Number,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be erased, and erase nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase what is kept of a person; exits 0 only where nothing is left. States, prices and STOP stay, nameless.

    [bold]dispatcher forget +447700900001[/bold]
    """
    with client() as dispatcher:
        told = dispatcher.forget(number, dry_run=dry_run)
    if as_json:
        print_json(told.to_dict())
    else:
        for words in _words(told):
            typer.echo(words)
    raise typer.Exit(0 if told.complete else 1)


def _words(told: Forgotten) -> Iterator[str]:
    jobs = f"{_many(told.jobs, 'job')}{f' ({told.cancelled} taken back)' if told.cancelled else ''}"
    what = [jobs, _many(told.events, "event"), _many(told.callbacks, "callback"), _many(told.keys, "key")]
    if told.notices:
        what.append(_many(told.notices, "notice"))
    done = "would be forgotten" if told.dry_run else "is forgotten"
    yield f"{told.number} {done}: {', '.join(what)}{f'; {told.before} were before' if told.before else ''}"
    if told.opted_out:
        yield "That they want no more texts is kept, as a hash"
    if told.sending:
        yield f"{_many(told.sending, 'job')} may be on the wire; run it again in a minute"
    if told.unread:
        yield f"{_many(told.unread, 'callback')} that mention them wait to be read; run it again in a minute"
    if told.sealed:
        yield (
            f"{told.sealed} events or callbacks are sealed with a key that is not in DISPATCHER_SECRET_KEY, and could "
            "be theirs: run it again with that key"
        )
    if told.file:
        yield _FILE[told.file]


#: What becomes of Redis' files.
_FILE = {
    "rewritten": "Redis is writing its append-only file anew; until that is done it holds what was erased. So do your "
    "backups, the providers, and whatever you keep yourself",
    "busy": "Redis was writing its append-only file anew already, and that may hold what was erased: run it again in a "
    "minute. So do your backups, the providers, and whatever you keep yourself",
    "none": "Redis has no append-only file; a snapshot of before (dump.rdb) holds what was erased until the next one. "
    "So do your backups, the providers, and whatever you keep yourself",
    "refused": "Redis did not let us rewrite its append-only file, which holds what was erased until you run "
    "BGREWRITEAOF. So do your backups, the providers, and whatever you keep yourself",
}


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
