"""What commands share: how they show what came of them, and how they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec
import typer

from dispatcher.errors import WaitTimeout
from dispatcher.privacy import one_line

if TYPE_CHECKING:
    from dispatcher.batches import Batch, Until
    from dispatcher.client import Dispatcher
    from dispatcher.jobs import Job

_UNTIL: Final[dict[str, Until]] = {"settled": "settled", "final": "final"}


def client() -> Dispatcher:
    """Return the client that the settings describe; a command closes it."""
    from dispatcher.client import Dispatcher

    return Dispatcher()


def print_json(document: Any) -> None:
    """Print what `--json` asks for: one object, one line."""
    typer.echo(msgspec.json.encode(document).decode())


def fail(message: str, code: int = 1) -> NoReturn:
    """Say on standard error what is wrong, and end."""
    typer.echo(f"dispatcher: {message}", err=True)
    raise SystemExit(code)


def show(one: Job, *, as_json: bool) -> None:
    """Show a job in a line, and its result below."""
    if as_json:
        print_json(one.to_dict())
        return
    from dispatcher.pages import line, result_rows

    typer.echo(line(one))
    for name, value in result_rows(one.result or {}):
        typer.echo(f"  {name + ':' if name else '   '} {one_line(value)}")


def show_batch(told: dict[str, Any], *, as_json: bool) -> None:
    """Show how many of a batch's jobs are where."""
    from dispatcher.batches import in_words

    if as_json:
        print_json(told)
    else:
        typer.echo(f"batch {told['id']} has {in_words(told)}")


def end(
    dispatcher: Dispatcher, begun: Job, *, wait: bool, timeout: float, until: str, as_json: bool, reveal: bool
) -> None:
    """Show a job, waited for where asked, and exit by its end."""
    if not wait:
        show(dispatcher.get(begun.id, reveal=True) if reveal else begun, as_json=as_json)
        return
    try:
        dispatcher.wait(begun.id, until=_UNTIL[until], timeout=timeout)
    except WaitTimeout as late:
        show(dispatcher.get(begun.id, reveal=reveal), as_json=as_json)
        fail(str(late))
    ended = dispatcher.get(begun.id, reveal=reveal)
    show(ended, as_json=as_json)
    raise typer.Exit(0 if ended.good else 1)


def end_lookups(
    dispatcher: Dispatcher, batch: Batch, *, wait: bool, timeout: float, until: str, as_json: bool, reveal: bool
) -> None:
    """Show each lookup of a batch, waited for where asked, and exit by how they ended."""
    late = ""
    if wait:
        try:
            batch.wait(until=_UNTIL[until], timeout=timeout)
        except WaitTimeout as error:
            late = str(error)
    ended = [*dispatcher.get_many([*batch.jobs.ids], reveal=reveal).values()]
    for one in ended:
        show(one, as_json=as_json)
    if late:
        fail(late)
    if wait:
        raise typer.Exit(0 if all(one.good for one in ended) else 1)
    if not as_json:
        show_batch(batch.to_dict(), as_json=False)


def end_batch(dispatcher: Dispatcher, id_: str, *, timeout: float, until: str, as_json: bool) -> NoReturn:
    """Wait for all of a batch, show it, and exit by how its jobs ended."""
    from dispatcher.states import GOOD

    batch = dispatcher.batch(id_)
    try:
        batch.wait(until=_UNTIL[until], timeout=timeout)
    except WaitTimeout as late:
        show_batch(batch.to_dict(), as_json=as_json)
        fail(str(late))
    ended = batch.to_dict()
    show_batch(ended, as_json=as_json)
    raise typer.Exit(0 if GOOD.issuperset(ended["counts"]) else 1)
