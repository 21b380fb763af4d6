"""The command that measures a text: `segments`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli.commands import Commands
from dispatcher.cli.options import AsJson, stdin
from dispatcher.cli.output import print_json

if TYPE_CHECKING:
    from dispatcher.text import Segments

app = typer.Typer(cls=Commands)

#: Positions of a character that are shown; `--json` has all of them.
_SHOWN = 5


@app.command()
def segments(
    text: Annotated[str, typer.Argument(help="What would be said; - reads standard input.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Say in how many parts a text is sent, and which characters make it dearer. Needs no Redis.

    Positions count from 0. [bold]dispatcher segments "Hello, Zoë"[/bold]
    """
    from dispatcher.checks import utf8
    from dispatcher.text import downgrade, in_words, parts
    from dispatcher.text import segments as measured

    text = stdin("text").removesuffix("\n") if text == "-" else text
    utf8("text", text)
    size, plain = measured(text), measured(downgrade(text))
    if as_json:
        print_json(_document(size, plain) | {"parts": [len(one) for one in parts(text)]})
        return
    typer.echo(
        f"{_many(size.count, 'part')} in {size.encoding}: {_many(size.characters, 'character')}, "
        f"{_many(size.units, 'unit')}; {_better(size, plain)}"
    )
    for one in size.forcing:
        more = f", ... {len(one.positions)} in all" if len(one.positions) > _SHOWN else ""
        where = ", ".join(map(str, one.positions[:_SHOWN]))
        typer.echo(f"  {in_words(one.character, one.name, one.replacement)} at {where}{more}")


def _better(size: Segments, plain: Segments) -> str:
    if size.encoding == "GSM-7":
        return "nothing forces UCS-2"
    if plain.encoding == size.encoding:
        return "smart encoding would not help"
    return f"with --smart-encoding {_many(plain.count, 'part')} in {plain.encoding}"


def _document(size: Segments, plain: Segments) -> dict[str, Any]:
    told = {name: getattr(size, name) for name in size.__struct_fields__}
    forcing = [{name: getattr(one, name) for name in one.__struct_fields__} for one in size.forcing]
    smart = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return told | {"forcing": forcing, "smart_encoding": smart}


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
