"""What a file of recipients says: rows of CSV and JSON Lines, templates, and the message of a row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator

import pytest

from dispatcher import files
from dispatcher.errors import InvalidRequest
from dispatcher.files import LINE, REASON, TEXT, Rejected, Table, batch_name, delimiter_of, message, read_csv, read_json
from dispatcher.jobs import Message
from tests.unit.support import leaks

NUMBER = "+447700900201"
OTHER = "+447700900202"


def told(table: Table) -> list[tuple[int, dict[str, str | None]]]:
    """The lines and values of a table without fault."""
    rows = list(table.rows)
    assert [row.fault for row in rows] == [""] * len(rows)
    return [(row.line, dict(row.values)) for row in rows]


def faults(table: Table) -> list[tuple[int, str]]:
    """The line of each row, and the fault it has."""
    return [(row.line, row.fault) for row in table.rows]


def lines(text: str) -> list[str]:
    """Lines with their ends, as a file has them."""
    return text.splitlines(keepends=True)


class TestCsv:
    @pytest.mark.parametrize(
        ("text", "rows"),
        [
            pytest.param("to,name\n+1,Ann\n", [(2, {"to": "+1", "name": "Ann"})], id="commas"),
            pytest.param("to;name\n+1;Ann, B\n", [(2, {"to": "+1", "name": "Ann, B"})], id="semicolons"),
            pytest.param("to\tname\n+1\tAnn;,\n", [(2, {"to": "+1", "name": "Ann;,"})], id="tabs"),
            pytest.param("to\n+1\n", [(2, {"to": "+1"})], id="one column"),
            pytest.param("to,name\r\n+1,Ann\r\n", [(2, {"to": "+1", "name": "Ann"})], id="Windows"),
            pytest.param("to,name\r+1,Ann\r", [(2, {"to": "+1", "name": "Ann"})], id="an old Macintosh"),
            pytest.param("to,name\n+1,Ann", [(2, {"to": "+1", "name": "Ann"})], id="no end of the last line"),
            pytest.param("to , name\n +1 , Ann\n", [(2, {"to": "+1", "name": "Ann"})], id="spaces around"),
            pytest.param('to,"first, last"\n+1,"B, A"\n', [(2, {"to": "+1", "first, last": "B, A"})], id="quoted"),
            pytest.param('to,name\n+1,"say ""hi"""\n', [(2, {"to": "+1", "name": 'say "hi"'})], id="quotes in quotes"),
            pytest.param('to,name\n+1,a "b" c\n', [(2, {"to": "+1", "name": 'a "b" c'})], id="quotes in the middle"),
            pytest.param("to,name\n+1\n", [(2, {"to": "+1"})], id="fewer columns"),
            pytest.param("to,name\n+1,Ann,,\n", [(2, {"to": "+1", "name": "Ann"})], id="more columns, but empty"),
            pytest.param("to,,name\n+1,x,Ann\n", [(2, {"to": "+1", "name": "Ann"})], id="a column without a name"),
            pytest.param("\n\nto,name\n\n+1,Ann\n,\n", [(5, {"to": "+1", "name": "Ann"})], id="blank lines and rows"),
            pytest.param("to,name\n", [], id="nobody"),
        ],
    )
    def test_rows(self, text: str, rows: list[tuple[int, dict[str, str]]]) -> None:
        assert told(read_csv(lines(text))) == rows

    def test_lines_are_counted_as_the_file_has_them(self) -> None:
        """A record of several lines is called by its first."""
        text = 'to,name\n+1,Ann\n+2,"Bob\nof\nYork"\n\n+3,Cy\n'
        assert told(read_csv(lines(text))) == [
            (2, {"to": "+1", "name": "Ann"}),
            (3, {"to": "+2", "name": "Bob\nof\nYork"}),
            (7, {"to": "+3", "name": "Cy"}),
        ]

    def test_the_delimiter_may_be_told(self) -> None:
        assert told(read_csv(lines("to|name\n+1|a,b;c\n"), "|")) == [(2, {"to": "+1", "name": "a,b;c"})]

    @pytest.mark.parametrize(
        ("header", "delimiter"),
        [("to,name", ","), ("to;name", ";"), ("to\tname", "\t"), ("to", ","), ('"a,b,c";to', ";"), ("", ",")],
    )
    def test_the_delimiter_is_seen_in_the_first_line(self, header: str, delimiter: str) -> None:
        assert delimiter_of(header) == delimiter

    def test_too_many_columns_are_a_fault(self) -> None:
        assert faults(read_csv(lines("to,name\n+1,B, Ann\n+2,Bob\n"))) == [
            (2, "has 3 columns, and the first line names 2; quote what has delimiters in it"),
            (3, ""),
        ]

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param('+1,"Ann', id="never closed"),
            pytest.param('+1,"Ann" Smith', id="closed in the middle"),
            pytest.param(f'+1,"{"x" * 200_000}"', id="a field of nobody's"),
        ],
    )
    def test_a_quote_that_does_not_match_costs_its_own_line_only(self, bad: str) -> None:
        """Read on, an open quote swallows what follows it."""
        many = "".join(f"+{n},Name {n}\n" for n in range(3, 9000))
        rows = list(read_csv(lines(f"to,name\n{bad}\n{many}")).rows)
        assert [row.line for row in rows] == list(range(2, 9000))
        assert [bool(row.fault) for row in rows] == [True] + [False] * 8997
        assert "quotes that do not match" in rows[0].fault
        assert rows[1].values == {"to": "+3", "name": "Name 3"}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            pytest.param("", "is empty", id="empty"),
            pytest.param("\n \n", "is empty", id="blank"),
            pytest.param(f"{NUMBER},Ann\n", "must begin with a line that names the columns", id="no names"),
            pytest.param("07700 900 201;Ann\n", "must begin with a line that names the columns", id="no names, spaced"),
            pytest.param("to,name,name\n", "'name': names a column twice", id="twice"),
            pytest.param('"to,name\n+1,Ann\n', "quotes that do not match", id="quotes"),
        ],
    )
    def test_a_first_line_that_names_no_columns(self, text: str, words: str) -> None:
        with pytest.raises(InvalidRequest, match=words) as error:
            read_csv(lines(text))
        assert leaks(str(error.value), NUMBER, "900 201", "Ann") == []

    def test_rows_are_read_as_they_are_asked_for(self) -> None:
        asked = 0

        def endless() -> Iterator[str]:
            nonlocal asked
            yield "to,name\n"
            while True:
                asked += 1
                yield f"+{asked},Ann\n"

        rows = read_csv(endless()).rows
        assert next(rows).line == 2
        assert next(rows).line == 3
        assert asked == 2


class TestJson:
    @pytest.mark.parametrize(
        ("line", "values"),
        [
            pytest.param('{"to": "+1", "name": " Ann "}', {"to": "+1", "name": "Ann"}, id="text"),
            pytest.param('{"to": 447700900201, "sum": 1.10}', {"to": "447700900201", "sum": "1.10"}, id="numbers"),
            pytest.param('{"to": "+1", "name": null}', {"to": "+1", "name": ""}, id="null is nothing"),
            pytest.param('{"a": [1], "b": {}, "c": true}', {"a": None, "b": None, "c": None}, id="others"),
            pytest.param('{"to": "+1", "name": "Zo\\u00eb\\n\\"Z\\""}', {"to": "+1", "name": 'Zoë\n"Z"'}, id="escapes"),
        ],
    )  # fmt: skip
    def test_values(self, line: str, values: dict[str, str | None]) -> None:
        assert told(read_json([f"{line}\r\n"])) == [(1, values)]

    def test_columns_are_the_keys_of_the_first_objects(self) -> None:
        table = read_json(['{"to": "+1"}\n', "\n", '{"to": "+2", "name": "Bob"}\n'])
        assert list(table.columns) == ["to", "name"]
        assert told(table) == [(1, {"to": "+1"}), (3, {"to": "+2", "name": "Bob"})]

    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            ('{"to": "+1"', "is no JSON ("),
            ("+447700900201,Ann", "is no JSON ("),
            ('{"to": "\\ud800"}', "is no JSON ("),
            ('["+1"]', "is no JSON object"),
            ('"+1"', "is no JSON object"),
            ("7", "is no JSON object"),
        ],
    )
    def test_what_is_no_object_is_a_fault(self, line: str, fault: str) -> None:
        (_, none), (number, words) = faults(read_json(['{"to": "+1"}\n', f"{line}\n"]))
        assert (none, number) == ("", 2)
        assert words.startswith(fault)
        assert leaks(words, NUMBER, "Ann") == []

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            pytest.param("", "one JSON object a line", id="empty"),
            pytest.param("to,name\n+1,Ann\n", "has none at its start", id="CSV"),
            pytest.param('[\n{"to": "+1"},\n', r"is a JSON array: `jq -c '\.\[\]'` makes lines of it", id="an array"),
        ],
    )
    def test_a_file_of_another_kind(self, text: str, words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            read_json(lines(text))


class TestTemplate:
    @pytest.mark.parametrize(
        ("text", "fields", "filled"),
        [
            ("Hi {name}", ["name"], "Hi <name>"),
            ("{a}{b} {a}", ["a", "b"], "<a><b> <a>"),
            ("No field", [], "No field"),
            ("{{name}} {name}", ["name"], "{name} <name>"),
            ("{first name}, {größe}, { x }", ["first name", "größe", "x"], "<first name>, <größe>, <x>"),
        ],
    )
    def test_fields_are_filled(self, text: str, fields: list[str], filled: str) -> None:
        made = files.template(text)
        assert made.fields == fields
        assert made.fill({field: f"<{field}>" for field in fields}) == filled

    def test_what_is_filled_in_is_no_template(self) -> None:
        assert files.template("Hi {name}").fill({"name": "{to} {{"}) == "Hi {to} {{"

    @pytest.mark.parametrize(
        "text",
        [
            "{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{a:{b}}", "{}", "{0}", "{ }", "{a.__class__}",
            "{", "}", "Hi {name", "Hi name}", "{a[}", "{{name}",
        ],
    )  # fmt: skip
    def test_anything_else_between_braces_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidRequest, match="--text"):
            files.template(text)

    def test_what_is_refused_may_be_no_name(self) -> None:
        with pytest.raises(InvalidRequest) as error:
            files.template(f"Call {{{NUMBER}.}}")
        assert leaks(str(error.value), NUMBER) == []


class TestRecipe:
    @pytest.mark.parametrize(
        ("columns", "to", "chosen"),
        [
            (["name", "To"], None, "To"),
            (["phone", "number", "to"], None, "to"),
            (["MSISDN", "name"], None, "MSISDN"),
            (["recipient"], None, "recipient"),
            (["to", "work"], "work", "work"),
        ],
    )
    def test_the_column_of_the_number(self, columns: list[str], to: str | None, chosen: str) -> None:
        assert files.recipe(columns, to, "Hi").to == chosen

    def test_without_a_template_each_row_has_its_text(self) -> None:
        made = files.recipe(["to", "Text", "Reference"], None, None)
        assert (made.template.fields, made.reference) == (["Text"], "Reference")
        assert files.recipe(["to", "text"], None, "Hi").template.fields == []

    @pytest.mark.parametrize(
        ("columns", "to", "text", "words"),
        [
            pytest.param(
                ["a", "b"], None, "Hi", "--to: no column is called to, .*The columns are a, b", id="no number"
            ),
            pytest.param(["to", "b"], "c", "Hi", "--to 'c': there is no such column. The columns are to, b", id="--to"),
            pytest.param(["to"], None, "{a}", "--text 'a': there is no such column. The columns are to", id="field"),
            pytest.param(["to", "b"], None, None, "--text: is missing, and no column is called text", id="no text"),
            pytest.param(["to"], None, " ", "text: is empty", id="empty text"),
            pytest.param(["to"], None, "x" * 10_001, "text: has 10001 characters", id="long text"),
        ],
    )
    def test_what_is_missing(self, columns: list[str], to: str | None, text: str | None, words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            files.recipe(columns, to, text)


def made(line: str, text: str | None = "Hi {name}", columns: str = "to,name,reference,text") -> Message:
    """The message of one line under these columns."""
    table = read_csv([f"{columns}\n", f"{line}\n"])
    (row,) = table.rows
    return message(row, files.recipe(table.columns, None, text), "b-1")


class TestMessage:
    def test_of_a_row(self) -> None:
        assert made("+44 7700 900201,Ann,order-1") == Message(
            NUMBER, "Hi Ann", reference="order-1", idempotency_key="send-file b-1 2"
        )

    def test_with_its_own_text_and_no_reference(self) -> None:
        assert made(f"{NUMBER},Ann,,Hello there", None) == Message(
            NUMBER, "Hello there", idempotency_key="send-file b-1 2"
        )

    @pytest.mark.parametrize(
        ("line", "text", "reason"),
        [
            pytest.param("07700900201,Ann", "Hi", r"to: 077\*{6}01 .*write it in international form", id="national"),
            pytest.param("+44770090020177777,Ann", "Hi", r"to: \+44\*+77 has 15 digits", id="too long"),
            pytest.param("4.47701E+11,Ann", "Hi", "to: .* has letters in it", id="a spreadsheet's"),
            pytest.param(",Ann", "Hi", "to: is missing or empty", id="no number"),
            pytest.param(f"{NUMBER}, ", "Hi {name}", "name: is missing or empty", id="an empty field"),
            pytest.param(NUMBER, "Hi {name}", "name: is missing or empty", id="a missing field"),
            pytest.param(f"{NUMBER},Ann,r, ", None, "text: is missing or empty", id="no text"),
            pytest.param(f"{NUMBER},{'x' * 9_999}", "Hi {name}", "text: has 10002 characters", id="too much text"),
            pytest.param(f"{NUMBER},Ann,{'1' * 256}", "Hi", "reference: must be text of at most 255", id="reference"),
            pytest.param(f"{NUMBER},Ann,r,t,more", "Hi", "has 5 columns, and the first line names 4", id="columns"),
            pytest.param(f'{NUMBER},"Ann', "Hi", "has quotes that do not match", id="quotes"),
        ],
    )
    def test_why_a_row_makes_none(self, line: str, text: str | None, reason: str) -> None:
        with pytest.raises(Rejected, match=f"^{reason}") as error:
            made(line, text)
        assert leaks(str(error.value), NUMBER, "07700900201", "+44770090020177777", "Ann", "1" * 20) == []

    @pytest.mark.parametrize("value", ["true", "[1]", "{}"])
    def test_json_that_is_no_text(self, value: str) -> None:
        (row,) = read_json([f'{{"to": "{NUMBER}", "name": {value}}}']).rows
        with pytest.raises(Rejected, match="name: is neither text nor a number"):
            message(row, files.recipe(["to", "name"], None, "Hi {name}"), "b")

    def test_nothing_of_a_person_is_shown_of_what_was_read(self) -> None:
        table = read_csv(["to,name\n", f"{NUMBER},Ann\n"])
        (row,) = table.rows
        recipe = files.recipe(table.columns, None, "Dear {name}, hello")
        assert leaks(repr((row, recipe, message(row, recipe, "b"))), NUMBER, "Ann", "Dear") == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("customers.csv", "customers-0123456789ab"),
        ("lists/März Liste (2).csv", "M-rz-Liste-2-0123456789ab"),
        ("a.csv.rejects.csv", "a.csv.rejects-0123456789ab"),
        (".csv", ".csv-0123456789ab"),
        ("名.csv", "file-0123456789ab"),
        (f"{'x' * 100}.csv", f"{'x' * 51}-0123456789ab"),
    ],
)  # fmt: skip
def test_a_batch_is_called_as_its_file(file: str, name: str) -> None:
    assert batch_name(file, "0123456789ab") == name
    assert len(name) <= 64


class TestRejects:
    def written(self, table: Table) -> str:
        """All rows as rejects, each for the reason "why"."""
        return table.heading + "".join(table.reject(row, "why, so") for row in table.rows)

    def test_of_csv_have_line_reason_and_fields(self) -> None:
        text = 'to;name\n+1;"Ann; B"\n+2\n+3;a;b\n+4;"x\n'
        assert self.written(read_csv(lines(text))) == (
            f'{LINE};{REASON};to;name\n2;why, so;+1;"Ann; B"\n3;why, so;+2\n4;why, so;+3;a;b\n5;why, so;"+4;""x"\n'
        )

    def test_of_json_have_them_as_they_were_written(self) -> None:
        text = '{"to": "+1", "sum": 1.10, "more": {"a": [1]}}\nnonsense\n'
        assert self.written(read_json(lines(text))) == (
            f'{{"{LINE}":1,"{REASON}":"why, so","to":"+1","sum":1.10,"more":{{"a": [1]}}}}\n'
            f'{{"{LINE}":2,"{REASON}":"why, so","{TEXT}":"nonsense"}}\n'
        )

    @pytest.mark.parametrize(
        ("read", "text"),
        [
            pytest.param(read_csv, "to,name\n1,Ann\n2,Bob\n3,x,y\n", id="csv"),
            pytest.param(read_json, '{"to": "1", "name": "Ann"}\n{"to": "2"}\n', id="jsonl"),
        ],
    )
    def test_mended_and_rejected_again_they_have_one_reason(self, read: object, text: str) -> None:
        """The file of rejects is a file like any other; its own columns are replaced, not heaped up."""
        assert callable(read)

        def rejected(text: Iterable[str]) -> list[str]:
            table: Table = read(text)
            return lines(table.heading + "".join(table.reject(row, "why") for row in table.rows))

        once = rejected(lines(text))
        twice = rejected(once)
        assert [*_numberless(twice)] == [*_numberless(once)]

    def test_they_are_read_like_any_other_file(self) -> None:
        table = read_csv(lines(self.written(read_csv(lines("to,name\n+1,Ann\n")))))
        assert told(table) == [(2, {LINE: "2", REASON: "why, so", "to": "+1", "name": "Ann"})]


def _numberless(written: list[str]) -> Iterator[object]:
    """Lines of rejects without their first field, the number of the line in the file."""
    for line in written:
        yield json.loads(line) | {LINE: 0} if line.startswith("{") else next(csv.reader([line]))[1:]
