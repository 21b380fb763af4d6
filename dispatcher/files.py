"""Recipients from CSV or JSON Lines and the messages they make: pure, a line at a time, never a whole file.

A `Table` is columns and rows; a `Recipe` says which column is the number and what the text is made of; `message` makes
a row's message, or says why it makes none. `Table.reject` writes such a row down so that it can be mended and sent.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from string import Formatter
from typing import Final, NamedTuple, TypeAlias

import msgspec

from dispatcher import zones
from dispatcher.errors import InvalidNumber, InvalidRequest
from dispatcher.jobs import Message, Send, Terms
from dispatcher.privacy import mask_digits, one_line

#: Columns that hold the number, the first that is there; in any case.
NUMBER_COLUMNS: Final = ("to", "number", "phone", "phone_number", "mobile", "msisdn", "recipient")
#: Columns that are what they are called, where they are there; in any case.
TEXT_COLUMN: Final = "text"
REFERENCE_COLUMN: Final = "reference"
TIMEZONE_COLUMN: Final = "timezone"

#: What a file of rejects has beside the original fields. A mended one is read like any other: these say nothing there.
LINE: Final = "rejected_line"
REASON: Final = "rejected_because"
#: Where the line itself goes when it is no JSON object.
TEXT: Final = "rejected_text"

DELIMITERS: Final = (",", ";", "\t")

_QUOTES: Final = 'has quotes that do not match; a quote inside a quoted field is written twice: "say ""hi"""'
_NO_HEADER: Final = "must begin with a line that names the columns, such as to,name"
#: Whoever leaves the line of names out begins with a recipient.
_A_NUMBER: Final = re.compile(r"(?:\d[^\d\w]*){7,}")

#: JSON objects at the start of a file whose keys are taken for its columns.
_HEAD: Final = 500

#: Letters, digits, dots, - and _ are what a batch's name is made of, at most 64 of them.
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_STEM: Final = 51

Original: TypeAlias = list[str] | dict[str, msgspec.Raw] | str


class Rejected(Exception):
    """A row that makes no message; the words say why, with no more of a number than its ends."""


class Row(NamedTuple):
    """A recipient as the file has it."""

    #: In the file, from 1; of a record of several lines the first.
    line: int
    #: By column, without spaces around; None for what is neither text nor a number.
    values: Mapping[str, str | None]
    #: What is written down when it is rejected; text where no fields were found.
    original: Original
    #: Why it cannot be read, or empty.
    fault: str = ""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"Row({self.line})"


class Table(NamedTuple):
    """A file's columns and its rows, which are read as they are asked for."""

    columns: Sequence[str]
    rows: Iterator[Row]
    #: What a file of rejects begins with.
    heading: str
    #: Writes a row and its reason as lines of a file of rejects.
    reject: Callable[[Row, str], str]


class Template(msgspec.Struct, frozen=True):
    """A text with fields in it: each part is words and the field after them, None after the last words."""

    parts: tuple[tuple[str, str | None], ...]

    def __repr__(self) -> str:
        """Leave the words out."""
        return f"Template({', '.join(self.fields)})"

    @property
    def fields(self) -> list[str]:
        """The fields, each once."""
        return list(dict.fromkeys(field for _, field in self.parts if field is not None))

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with each field's value in its place."""
        return "".join(words if field is None else words + values[field] for words, field in self.parts)


class Recipe(msgspec.Struct, frozen=True):
    """Which column is the number, what the text is made of, which columns are reference and time zone, if any."""

    to: str
    template: Template
    reference: str | None = None
    timezone: str | None = None


# -- templates and what they need --------------------------------------------------------------------------------------


def template(text: str) -> Template:
    """Read a template such as `Hi {name}`; `{{` and `}}` are braces.

    Raises `InvalidRequest` for anything but plain names between braces.
    """
    try:
        read = list(Formatter().parse(text))
    except ValueError:
        raise InvalidRequest("--text", "has a brace without its partner; write {{ and }} for braces") from None
    return Template(tuple((words, _field(field, spec, conversion)) for words, field, spec, conversion in read))


def _field(field: str | None, spec: str | None, conversion: str | None) -> str | None:
    if field is None:
        return None
    name = field.strip()
    if spec or conversion or not name or name.isdecimal() or any(one in name for one in ".[]{}"):
        raise InvalidRequest(
            "--text", "may have a column's name between braces, such as {name}, and nothing else", _shown(field)
        )
    return name


def recipe(columns: Sequence[str], to: str | None, text: str | None) -> Recipe:
    """Return how rows with these columns become messages: `to` names the number's column, `text` is the template.

    Raises `InvalidRequest` where a column is missing.
    """
    number = _named("--to", columns, to) if to is not None else _first(columns, NUMBER_COLUMNS)
    if number is None:
        among = f"no column is called {', '.join(NUMBER_COLUMNS)}; name the one that holds the number"
        raise InvalidRequest("--to", f"{among}. {_columns(columns)}")
    whole = _first(columns, (TEXT_COLUMN,))
    if text is None and whole is None:
        raise InvalidRequest("--text", f"is missing, and no column is called {TEXT_COLUMN}. {_columns(columns)}")
    made = Template((("", whole),)) if text is None else template(text)
    for field in made.fields:
        _named("--text", columns, field)
    # With any values in it: an empty text or one that is too long is not every row's fault.
    Send(to="+447700900001", text=made.fill(dict.fromkeys(made.fields, "x")))
    return Recipe(number, made, _first(columns, (REFERENCE_COLUMN,)), _first(columns, (TIMEZONE_COLUMN,)))


def _named(option: str, columns: Sequence[str], name: str) -> str:
    if name not in columns:
        raise InvalidRequest(option, f"there is no such column. {_columns(columns)}", _shown(name))
    return name


def _first(columns: Sequence[str], wanted: Sequence[str]) -> str | None:
    there = {column.casefold(): column for column in reversed(columns)}
    return next((there[name] for name in wanted if name in there), None)


def _columns(columns: Sequence[str]) -> str:
    return f"The columns are {', '.join(map(_shown, columns))}" if columns else "There is no column at all"


def _shown(name: str) -> str:
    """Return a column's name as it may be shown: it may be no name, but a recipient."""
    return mask_digits(one_line(name))[:40]


# -- messages ----------------------------------------------------------------------------------------------------------


def message(row: Row, made_by: Recipe, batch: str) -> Message:
    """Return the message that a row makes; the same line of the same batch has the same idempotency key.

    Raises `Rejected`.
    """
    if row.fault:
        raise Rejected(row.fault)
    number, *fields = (_value(row, column) for column in (made_by.to, *made_by.template.fields))
    text = made_by.template.fill(dict(zip(made_by.template.fields, fields, strict=True)))
    reference = (row.values.get(made_by.reference) if made_by.reference else None) or None
    timezone = (row.values.get(made_by.timezone) if made_by.timezone else None) or None
    try:
        request = Send(to=number, text=text)
        Terms(reference=reference or "")
        if timezone:
            zones.zone(timezone)
    except InvalidNumber as error:
        raise Rejected(f"{made_by.to}: {error.value} {error.reason}") from None
    except InvalidRequest as error:
        raise Rejected(f"{error.field}: {error.reason}") from None
    key = f"send-file {batch} {row.line}"
    return Message(request.to, text, reference=reference, timezone=timezone, idempotency_key=key)


def _value(row: Row, column: str) -> str:
    value = row.values.get(column, "")
    if value is None:
        raise Rejected(f"{column}: is neither text nor a number")
    if not value:
        raise Rejected(f"{column}: is missing or empty")
    return value


def batch_name(file: str, hashed: str) -> str:
    """Return what the batch of a file is called: the file's name without its ending, and a hash."""
    stem = _NO_NAME.sub("-", Path(file).stem)[:_STEM].strip("-")
    return f"{stem or 'file'}-{hashed}"


# -- CSV ---------------------------------------------------------------------------------------------------------------


def delimiter_of(header: str) -> str:
    """Return which delimiter a line of names uses: the one that is there most often outside quotes."""
    bare = re.sub(r'"[^"]*"', "", header)
    return max(DELIMITERS, key=bare.count)


def read_csv(lines: Iterable[str], delimiter: str | None = None) -> Table:
    """Return the table in the lines of a CSV, which have their line ends.

    A row that cannot be read has a `fault`; blank ones are left out. Raises `InvalidRequest` where the columns are not
    named.
    """
    source = _Lines(lines)
    first = next((line for line in source if line.strip()), "")
    source.give_back([first])
    used = delimiter or delimiter_of(first)
    reader = csv.reader(source, delimiter=used, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error:
        raise InvalidRequest("FILE", f"{_NO_HEADER}, and its first line {_QUOTES}") from None
    _check_header(header)
    kept = [position for position, name in enumerate(header) if name not in {LINE, REASON}]

    def reject(row: Row, reason: str) -> str:
        cells = [row.original] if isinstance(row.original, str) else list(row.original)
        if len(kept) < len(header) and not isinstance(row.original, str):
            cells = [cells[position] for position in kept if position < len(cells)] + cells[len(header) :]
        return _csv_line([str(row.line), reason, *cells], used)

    heading = _csv_line([LINE, REASON, *(header[position] for position in kept)], used)
    return Table([name for name in header if name], _csv_rows(source, reader, header), heading, reject)


def _check_header(header: Sequence[str]) -> None:
    if not any(header):
        raise InvalidRequest("FILE", f"is empty; it {_NO_HEADER}")
    if any(_A_NUMBER.search(name) for name in header):
        raise InvalidRequest("FILE", f"{_NO_HEADER}; its first line has a number in it, as if it were a recipient")
    for name in header:
        if name and header.count(name) > 1:
            raise InvalidRequest("FILE", "names a column twice, so that nobody knows which is meant", _shown(name))


def _csv_rows(source: _Lines, reader: Iterator[list[str]], header: Sequence[str]) -> Iterator[Row]:
    while True:
        source.taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            # An open quote swallows what follows: only the line it is on is lost, the others are read again.
            first, *others = source.taken
            source.give_back(others)
            yield Row(source.number, {}, first.rstrip("\r\n"), _QUOTES)
            continue
        if not any(map(str.strip, cells)):
            continue
        fault = ""
        if any(map(str.strip, cells[len(header) :])):
            fault = f"has {len(cells)} columns, and the first line names {len(header)}; quote what has delimiters in it"
        values = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name}
        yield Row(source.number - len(source.taken) + 1, values, cells, fault)


def _csv_line(cells: Sequence[str], delimiter: str) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="\n").writerow(cells)
    return line.getvalue()


class _Lines(Iterator[str]):
    """Lines that are counted and can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._again: list[str] = []
        #: Of the line handed out last, from 1.
        self.number = 0
        #: Handed out since this was last emptied.
        self.taken: list[str] = []

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        self._again.extend(reversed(lines))
        self.number -= len(lines)


# -- JSON Lines --------------------------------------------------------------------------------------------------------

_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string: Final = msgspec.json.Decoder(str)


def read_json(lines: Iterable[str]) -> Table:
    """Return the table in lines of one JSON object each; blank lines are left out.

    Its columns are the keys of the first 500 objects. Raises `InvalidRequest` where there is no object among these.
    """
    rows = (_json_row(number, line) for number, line in enumerate(lines, 1) if line.strip())
    head = list(islice(rows, _HEAD))
    columns = list(dict.fromkeys(name for row in head for name in row.values))
    if not columns:
        array = bool(head) and isinstance(head[0].original, str) and head[0].original.startswith("[")
        found = "is a JSON array: `jq -c '.[]'` makes lines of it" if array else "has none at its start"
        raise InvalidRequest("FILE", f"must have one JSON object a line, and {found}")
    return Table(columns, chain(head, rows), "", _json_reject)


def _json_row(line: int, text: str) -> Row:
    text = text.strip()
    try:
        fields = _object.decode(text)
        return Row(line, {name: _scalar(bytes(value)) for name, value in fields.items()}, fields)
    except msgspec.ValidationError:
        return Row(line, {}, text, "is no JSON object")
    except msgspec.DecodeError as error:
        return Row(line, {}, text, f"is no JSON ({error})")


def _scalar(raw: bytes) -> str | None:
    """Return text as it is meant and a number as it is written; "" for null, None for anything else."""
    if raw.startswith(b'"'):
        return _string.decode(raw).strip()
    if raw == b"null":
        return ""
    return raw.decode() if raw[:1] in b"-0123456789" else None


def _json_reject(row: Row, reason: str) -> str:
    told = {LINE: row.line, REASON: reason}
    original = row.original if isinstance(row.original, dict) else {TEXT: row.original}
    return msgspec.json.encode(told | {name: original[name] for name in original if name not in told}).decode() + "\n"
