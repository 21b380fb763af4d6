"""`dispatcher send-file`: what it enqueues, rejects, says and exits with, and that a run can be cut short anywhere."""

from __future__ import annotations

import csv
import io
import os
import signal
import stat
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import typer
from rich.console import Console

from dispatcher import Dispatcher, Job, Message, lookups
from dispatcher.accounts import KEY, Account
from dispatcher.calls import MOST, BatchState
from dispatcher.cli import app, main
from dispatcher.errors import InvalidRequest, StoreUnavailable
from dispatcher.memory import LookupCalls
from dispatcher.send_file import Asked, Run, summary
from dispatcher.sources import Stop
from tests.support import phone, phones
from tests.unit.support import HASH_KEY, SECRET_KEY, Bench, leaks, settings

#: Built once for all tests: that takes longer than most of them.
COMMANDS: Final = typer.main.get_command(app)

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "customers.csv"
TEXT: Final = "Hi {name}"
TERMS: Final[dict[str, Any]] = {
    "provider": "textgoto", "sender": "", "category": "transactional", "reference": "", "metadata": {}, "tenant": "",
    "valid_for": None, "send_at": None, "lane": None, "options": {},
}  # fmt: skip


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The one object that it printed."""
        (line,) = self.out.splitlines()
        return msgspec.json.decode(line, type=dict[str, Any])


Command = Callable[..., Ended]


@pytest.fixture
def memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Have a Redis in memory, where a worker has told what its account can do; nobody takes the messages."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("DISPATCHER_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("DISPATCHER_HASH_KEY", HASH_KEY)
    monkeypatch.setattr("dispatcher.client.JobStore", lambda *_, **__: bench.store)
    monkeypatch.setattr("dispatcher.client.publish", lambda *_, **__: None)
    account = Account(name="textgoto", adapter="textgoto", operations=["send"])
    bench.redis.hset(KEY, "textgoto", msgspec.json.encode(account))
    return bench


@pytest.fixture
def dispatcher(memory: Bench) -> Iterator[Dispatcher]:
    """Read what was enqueued."""
    with Dispatcher() as one:
        yield one


@pytest.fixture
def send_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `dispatcher send-file ARGUMENTS` here and now."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Ended:
        monkeypatch.setattr(typer.main, "get_command", lambda _: COMMANDS)
        monkeypatch.setattr(sys, "argv", ["dispatcher", "send-file", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        assert leaks(told.out + told.err, *phones(3), *(phone(n) for n in range(201, 211)), "Ann", "Chloë") == []
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return run


def written(text: str, name: str = "list.csv", encoding: str = "utf-8") -> Path:
    """A file in the test's folder."""
    path = Path(name)
    path.write_bytes(text.encode(encoding))
    return path


def recipients(count: int, start: int = 0, name: str = "list.csv") -> Path:
    """A file of so many recipients."""
    rows = [f"{number},Name {n}\n" for n, number in enumerate(phones(count, start))]
    return written("to,name\n" + "".join(rows), name)


def jobs(dispatcher: Dispatcher, batch: str) -> list[Job]:
    """The jobs of a batch in the order of their lines."""
    return list(reversed(dispatcher.jobs(batch=batch, limit=10_000, reveal=True)))


class Target:
    """Takes portions in place of a dispatcher, and remembers as much of them as is asked for."""

    def __init__(self, meet: Callable[[int], object] = lambda _: None) -> None:
        """`meet` is called with how many messages came before each portion, and may raise."""
        self._meet = meet
        self.taken: list[Message] = []
        self.sizes: list[int] = []
        self.closed: list[str] = []
        self.states: list[dict[str, int]] = []

    def send_many(self, messages: Iterable[Message], **_: Any) -> Any:
        portion = list(messages)
        self.sizes.append(len(portion))
        self._meet(len(self.taken))
        self.taken += portion

        class Made:
            created = len(portion)

        return Made()

    def line_types(self, numbers: Sequence[str]) -> dict[str, str]:
        return {}

    def close_batch(self, batch_id: str) -> None:
        self.closed.append(batch_id)

    def batch_state(self, id_: str) -> BatchState:
        return BatchState(counts=self.states.pop(0) if len(self.states) > 1 else self.states[0])


class Swallows(Target):
    """Keeps nothing but how large the portions were."""

    def send_many(self, messages: Iterable[Message], **_: Any) -> Any:
        made = super().send_many(messages)
        self.taken.clear()
        return made


def ran(target: Target, file: Path | str, said: Callable[[str], object] = lambda _: None, **asked: Any) -> Run:
    """A run over a file, without the command line around it."""
    with Stop() as stop:
        return Run(
            Asked(**{"file": str(file), "text": TEXT, "terms": TERMS, **asked}), settings(), target, stop, said
        )()


# -- enqueuing ---------------------------------------------------------------------------------------------------------


class TestEnqueuing:
    def test_the_example(self, memory: Bench, send_file: Command, dispatcher: Dispatcher) -> None:
        ended = send_file(EXAMPLE, "--text", TEXT, "--provider", "textgoto", "--json")
        assert (ended.code, ended.err) == (0, "")
        report = ended.report
        assert report == {
            "batch_id": report["batch_id"], "dry_run": False, "lines": 10, "enqueued": 10, "known": 0, "rejected": 0,
            "rejects": None, "recipients": 10, "segments": 10, "texts": None, "stopped_after": None, "states": None,
        }  # fmt: skip
        made = jobs(dispatcher, report["batch_id"])
        assert [job.to for job in made] == [phone(n) for n in range(201, 211)]
        assert made[0].text == "Hi Ann"
        assert made[8].text == "Hi Inés, María"
        assert not dispatcher.batch_state(report["batch_id"]).open
        assert not EXAMPLE.with_name("customers.csv.rejects.csv").exists()

    def test_is_summed_up_in_a_line(self, memory: Bench, send_file: Command) -> None:
        text = f"Hello {'x' * 160}"
        ended = send_file(recipients(2), "--text", text, "--provider", "textgoto")
        name, told = ended.out.removeprefix("batch ").split(": ")
        assert (ended.code, told) == (0, "2 new, 0 were enqueued before; 2 lines, 0 rejected, 4 segments\n")
        assert name.startswith("list-")

    def test_all_that_can_be_said_of_texts_is_kept(
        self, memory: Bench, send_file: Command, dispatcher: Dispatcher
    ) -> None:
        file = written(f"phone;text;reference\n{phone(1)};Hello;r-1\n{phone(2)};Hello again;\n")
        words = "--sender ACME --category promotional --reference usual --tenant shop --valid-for 600 --lane high"
        ended = send_file(file, "--batch-id", "b-1", *words.split(), "--metadata", '{"crm": 4}', "--option", "a=b")
        assert ended.code == 0
        first, second = jobs(dispatcher, "b-1")
        assert (first.to, first.text, first.reference) == (phone(1), "Hello", "r-1")
        assert (second.to, second.text, second.reference) == (phone(2), "Hello again", "usual")
        assert (first.sender, first.category, first.tenant, first.metadata) == (
            "ACME",
            "promotional",
            "shop",
            {"crm": 4},
        )
        assert first.expires_at is not None

    def test_json_lines_by_the_files_ending(self, memory: Bench, send_file: Command, dispatcher: Dispatcher) -> None:
        file = written(
            f'{{"mobile": "{phone(1)}", "name": "Ann"}}\n\n{{"mobile": {phone(2)[1:]}, "name": 7}}\n', "a.jsonl"
        )
        report = send_file(file, "--text", TEXT, "--json").report
        assert [(job.to, job.text) for job in jobs(dispatcher, report["batch_id"])] == [
            (phone(1), "Hi Ann"),
            (phone(2), "Hi 7"),
        ]

    def test_the_same_number_twice_gets_two_texts(self, memory: Bench, send_file: Command) -> None:
        file = written(f"to,name\n{phone(1)},Bob\n{phone(1)},Bob\n")
        assert send_file(file, "--text", TEXT, "--json").report["enqueued"] == 2

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
    def test_in_any_encoding(self, memory: Bench, send_file: Command, dispatcher: Dispatcher, encoding: str) -> None:
        """Its rejects are in the same, so that they are read, and shown by a spreadsheet, as the file was."""
        text = f"to,name\n{phone(1)},Zoë\n123,Chloë\n"
        file = written(text, encoding=encoding)
        told = [] if encoding.startswith("utf-8") else ["--encoding", encoding]
        report = send_file(file, "--text", TEXT, "--json", *told).report
        assert [job.text for job in jobs(dispatcher, report["batch_id"])] == ["Hi Zoë"]
        rejects = Path("list.csv.rejects.csv").read_bytes()
        assert rejects.decode(encoding).endswith(",123,Chloë\n")
        assert rejects.startswith(b"\xef\xbb\xbf") == (encoding == "utf-8-sig")

    def test_a_million_lines_never_sit_in_memory(self) -> None:
        """Of these twenty thousand the messages alone would be ten megabytes."""
        file = recipients(1000)
        with file.open("a") as more:
            for _ in range(19):
                more.writelines(f"{number},Somebody called {n}\n" for n, number in enumerate(phones(1000)))
        target = Swallows()
        tracemalloc.start()
        try:
            report = ran(target, file).report
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (report.lines, report.enqueued) == (20_000, 20_000)
        assert set(target.sizes) == {MOST}
        assert peak < 2_500_000


class TestAgain:
    def test_the_same_command_on_the_same_file_is_the_same_batch(self, memory: Bench, send_file: Command) -> None:
        file = recipients(3)
        arguments = (file, "--text", TEXT, "--provider", "textgoto")
        first = send_file(*arguments, "--json").report
        again = send_file(*arguments, "--json").report
        assert again == first | {"enqueued": 0, "known": 3}
        ended = send_file(*arguments)
        assert ended.code == 0
        assert "0 new, 3 were enqueued before" in ended.out
        assert "--batch-id NAME sends it another time" in ended.out
        assert memory.counts(first["batch_id"]) == {"queued": 3}
        assert send_file(*arguments, "--batch-id", "another", "--json").report["enqueued"] == 3

    @pytest.mark.parametrize(
        ("options", "same"),
        [
            pytest.param(["--delimiter", ","], True, id="delimiter"),
            pytest.param(["--encoding", "cp1252"], True, id="encoding"),
            pytest.param(["--to", "to"], True, id="the column there was"),
            pytest.param(["--rejects", "elsewhere.csv"], True, id="rejects"),
            pytest.param(["--text", "Bye {name}"], False, id="text"),
            pytest.param(["--provider", "textgoto"], False, id="provider"),
            pytest.param(["--sender", "ACME"], False, id="sender"),
            pytest.param(["--send-at", "2026-12-24T09:00:00+01:00"], False, id="time"),
            pytest.param(["--metadata", '{"a": 1}'], False, id="metadata"),
            pytest.param(["--to", "other"], False, id="another column"),
        ],
    )
    def test_the_name_is_made_of_what_is_sent_and_not_of_how_it_is_read(
        self, memory: Bench, send_file: Command, options: list[str], same: bool
    ) -> None:
        file = written(f"to,other,name\n{phone(1)},{phone(2)},Bob\n")
        first = send_file(file, "--text", TEXT, "--dry-run", "--json").report["batch_id"]
        assert first.startswith("list-")
        assert (send_file(file, "--text", TEXT, *options, "--dry-run", "--json").report["batch_id"] == first) == same

    def test_another_content_is_another_batch_and_so_is_another_hash_key(
        self, memory: Bench, send_file: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def name() -> str:
            return str(send_file("list.csv", "--text", TEXT, "--dry-run", "--json").report["batch_id"])

        recipients(3)
        names = [name()]
        recipients(4)
        names.append(name())
        monkeypatch.setenv("DISPATCHER_HASH_KEY", "another")
        names.append(name())
        assert len(set(names)) == 3

    def test_a_file_that_is_not_the_batchs_any_more_is_refused(
        self, memory: Bench, send_file: Command, dispatcher: Dispatcher
    ) -> None:
        """A line put in on top moves all others: under the names of other lines they would be texted again."""
        named = ("--text", TEXT, "--batch-id", "b-1")
        send_file(written(f"to,name\n{phone(1)},A\n{phone(2)},B\n{phone(3)},C\n"), *named)
        old = jobs(dispatcher, "b-1")
        ended = send_file(written(f"to,name\n{phone(4)},D\n{phone(1)},A\n{phone(2)},B\n{phone(3)},C\n"), *named)
        assert ended.code == 2
        assert f"--batch-id 'b-1': has another text or number for line 2, as job {old[0].id}" in ended.err
        assert [job.id for job in jobs(dispatcher, "b-1")] == [job.id for job in old]

    def test_lines_added_at_the_end_are_news(self, memory: Bench, send_file: Command, dispatcher: Dispatcher) -> None:
        named = ("--text", TEXT, "--batch-id", "b-1", "--json")
        send_file(written(f"to,name\n{phone(1)},A\n"), *named)
        ended = send_file(written(f"to,name\n{phone(1)},A\n{phone(2)},B\n"), *named)
        assert (ended.code, ended.report["enqueued"], ended.report["known"]) == (0, 1, 1)
        assert [job.to for job in jobs(dispatcher, "b-1")] == [phone(1), phone(2)]


# -- rejects -----------------------------------------------------------------------------------------------------------

BAD: Final = (
    f'to,name\n{phone(1)},Bob\n123,Ann\n{phone(2)},\n\n{phone(3)},Bob,Ann\n{phone(4)},"A\nB"\n07700900201,Ann\n'
)


class TestRejects:
    def test_bad_lines_never_stop_the_run(self, memory: Bench, send_file: Command) -> None:
        ended = send_file(written(BAD), "--text", TEXT, "--json")
        assert ended.code == 1
        counts = {"lines": 6, "enqueued": 2, "known": 0, "rejected": 4, "recipients": 2, "segments": 2}
        assert ended.report == ended.report | counts | {"rejects": "list.csv.rejects.csv"}

    def test_their_file_has_line_reason_and_fields(self, memory: Bench, send_file: Command) -> None:
        send_file(written(BAD), "--text", TEXT)
        path = Path("list.csv.rejects.csv")
        heading, *rejects = csv.reader(io.StringIO(path.read_text()))
        assert heading == ["rejected_line", "rejected_because", "to", "name"]
        assert [(line, *fields) for line, _, *fields in rejects] == [
            ("3", "123", "Ann"),
            ("4", phone(2), ""),
            ("6", phone(3), "Bob", "Ann"),
            ("9", "07700900201", "Ann"),
        ]
        reasons = [why for _, why, *_ in rejects]
        assert reasons[0].startswith("to: *** ")
        assert reasons[1] == "name: is missing or empty"
        assert reasons[2] == "has 3 columns, and the first line names 2; quote what has delimiters in it"
        assert reasons[3].startswith("to: 077******01 ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_the_first_are_shown_masked(self, memory: Bench, send_file: Command) -> None:
        ended = send_file(written(BAD), "--text", TEXT)
        _, *shown, more, where = ended.out.splitlines()
        assert [line.split(": ")[0] for line in shown] == ["  line 3", "  line 4", "  line 6"]
        assert more == "  and 1 more"
        assert where == "The rejected lines are in list.csv.rejects.csv; mend a copy and send that"

    def test_mended_they_are_sent(self, memory: Bench, send_file: Command, dispatcher: Dispatcher) -> None:
        send_file(written(f"to,name\n{phone(1)},Bob\n07700900002,Cy\n"), "--text", TEXT)
        path = Path("list.csv.rejects.csv")
        path.write_text(path.read_text().replace(",07700900002,", f",{phone(2)},"))
        ended = send_file(path, "--text", TEXT, "--json")
        assert ended.code == 0
        assert [(job.to, job.text) for job in jobs(dispatcher, ended.report["batch_id"])] == [(phone(2), "Hi Cy")]

    def test_those_of_an_earlier_run_are_replaced_or_removed(self, memory: Bench, send_file: Command) -> None:
        path = Path("list.csv.rejects.csv")
        send_file(written(BAD), "--text", TEXT)
        path.chmod(0o644)
        send_file(written("to,name\n1,x\n"), "--text", TEXT)
        assert len(path.read_text().splitlines()) == 2
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert send_file(recipients(1), "--text", TEXT).code == 0
        assert not path.exists()

    def test_they_go_where_they_are_told_to(self, memory: Bench, send_file: Command) -> None:
        assert send_file(written(BAD), "--text", TEXT, "--rejects", "bad.csv", "--json").report["rejects"] == "bad.csv"
        assert Path("bad.csv").exists()
        assert not Path("list.csv.rejects.csv").exists()

    def test_nothing_else_is_overwritten(self, memory: Bench, send_file: Command) -> None:
        file = recipients(1)
        for path in (file, written("precious\n", "precious.csv"), Path()):
            before = path.read_bytes() if path.is_file() else b""
            ended = send_file(file, "--text", TEXT, "--rejects", path)
            assert (ended.code, ended.out) == (2, "")
            assert ended.err.startswith(f"dispatcher: --rejects '{path}': ")
            assert not path.is_file() or path.read_bytes() == before
        assert memory.names() <= {KEY}

    @pytest.mark.parametrize("dry", [False, True], ids=["a run", "a dry run, by the number alone"])
    def test_landlines_where_a_rule_refuses_them(
        self, memory: Bench, send_file: Command, monkeypatch: pytest.MonkeyPatch, *, dry: bool
    ) -> None:
        """By what the number says of itself, and by what a lookup told."""
        monkeypatch.setenv("DISPATCHER_ROUTES", "category=transactional line_type=fixed_line -> refuse; -> textgoto")
        calls, known = LookupCalls(memory.settings), phone(2)
        found = lookups.result(known, lookups.Facts(line_type="fixed_line"), {}, "textgoto", memory.clock.ms)
        memory.run(calls.remember("0001", calls.hashed(known), memory.clock.ms, found))
        file = written(f"to,name\n{phone(1)},Ann\n+442079460123,Bob\n{known},Eve\n")
        ended = send_file(file, "--text", TEXT, "--json", *(["--dry-run"] if dry else []))
        assert (ended.report["recipients"], ended.report["rejected"]) == ((2, 1) if dry else (1, 2))
        rejects = Path(ended.report["rejects"]).read_text()
        assert "to: is refused by DISPATCHER_ROUTES" in rejects
        assert send_file(file, "--text", TEXT, "--json", "--provider", "textgoto").report["rejected"] == 0
        assert send_file(file, "--text", TEXT, "--json", "--category", "otp").report["rejected"] == 0

    def test_json_keeps_its_form(self, memory: Bench, send_file: Command) -> None:
        file = written('{"to": "123", "name": "Bob", "sum": 1.10}\nnonsense\n', "a.ndjson")
        assert send_file(file, "--text", TEXT).code == 1
        first, second = map(msgspec.json.decode, Path("a.ndjson.rejects.jsonl").read_text().splitlines())
        assert list(first) == ["rejected_line", "rejected_because", "to", "name", "sum"]
        assert (first["rejected_line"], first["sum"]) == (1, 1.1)
        assert second["rejected_text"] == "nonsense"
        assert second["rejected_because"].startswith("is no JSON")

    def test_where_they_cannot_be_written_it_stops_and_says_so(self) -> None:
        run = ran(Target(), written(BAD), rejects=Path("nowhere/bad.csv"))
        assert (run.code, run.report.stopped_after) == (1, 0)
        assert "nowhere/bad.csv cannot be written: No such file or directory; name another place" in run.why


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        pytest.param("none.csv", {}, "FILE 'none.csv': cannot be read: No such file", id="no file"),
        pytest.param(".", {}, "FILE '.': cannot be read: Is a directory", id="folder"),
        pytest.param("list.csv", {"--text": "{who}"}, "--text 'who': there is no such column", id="field"),
        pytest.param("list.csv", {"--text": "{name.x}"}, "--text 'name.x': may have a column's name", id="attribute"),
        pytest.param("list.csv", {"--text": ""}, "--text: is empty", id="empty text"),
        pytest.param("list.csv", {}, "--text: is missing, and no column is called text", id="no text"),
        pytest.param("list.csv", {"--to": "nr"}, "--to 'nr': there is no such column. The columns", id="--to"),
        pytest.param("list.csv", {"--delimiter": ";;"}, "--delimiter ';;': must be one character", id="delimiter"),
        pytest.param("list.csv", {"--encoding": "klingon"}, "--encoding 'klingon': is none that", id="encoding"),
        pytest.param("list.csv", {"--format": "xml"}, "'xml' is not one of 'csv', 'jsonl'", id="format"),
        pytest.param("list.csv", {"--format": "jsonl"}, "FILE: must have one JSON object a line", id="no json"),
        pytest.param("list.csv", {"--batch-id": "a b"}, "--batch-id 'a b': must be 1 to 64 letters", id="batch"),
        pytest.param("list.csv", {"--sender": "x" * 21}, "--sender: must be at most 20", id="sender"),
        pytest.param("list.csv", {"--valid-for": "-1"}, "--valid-for '-1.0': must be between", id="valid-for"),
        pytest.param("list.csv", {"--send-at": "soon"}, "--send-at: must be a time such as", id="send-at"),
        pytest.param("list.csv", {"--lane": "fast"}, "--lane 'fast': must be one of", id="lane"),
        pytest.param("latin.csv", {}, "--encoding 'utf-8': line 3 is not in it; name the file's own", id="bytes"),
        pytest.param("list.csv", {"--encoding": "utf-16"}, "--encoding 'utf-16': line 1 is not in it", id="no mark"),
        pytest.param("names.csv", {}, "--to: no column is called to, number, phone", id="no number"),
        pytest.param("headless.csv", {}, "FILE: must begin with a line that names the columns", id="no header"),
        pytest.param("long.csv", {"--text": "Hi"}, "FILE: line 2 has over 1048576 characters", id="no lines"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_enqueued(
    memory: Bench, send_file: Command, file: str, options: dict[str, str], words: str
) -> None:
    recipients(2)
    written(f"to,name\n{phone(1)},Bob\n{phone(2)},Zoë\n", "latin.csv", "latin-1")
    written("name,order\nAnn,1\n", "names.csv")
    written(f"{phone(201)},Ann\n", "headless.csv")
    written(f"to,name\n{'x' * 2_000_000}\n", "long.csv")
    ended = send_file(file, *(word for pair in options.items() for word in pair))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("dispatcher: ")
    assert words in ended.err
    assert memory.names() <= {KEY}


def test_what_cannot_be_read_far_down_is_found_before_anything_is_enqueued(memory: Bench, send_file: Command) -> None:
    """Told how to read it, the same command would make other texts of what was enqueued already."""
    recipients(1200)
    with Path("list.csv").open("ab") as file:
        file.write(f"{phone(1)},Zo".encode() + b"\xeb\n")
    ended = send_file("list.csv", "--text", TEXT)
    assert (ended.code, ended.out) == (2, "")
    assert "line 1202 is not in it" in ended.err
    assert memory.names() <= {KEY}


def test_an_account_that_nobody_knows_is_refused(memory: Bench, send_file: Command) -> None:
    ended = send_file(recipients(2), "--text", TEXT, "--provider", "nobody")
    assert (ended.code, ended.out) == (1, "")
    assert "provider 'nobody' is not known" in ended.err


# -- standard input ----------------------------------------------------------------------------------------------------


class TestStandardInput:
    def test_its_batch_is_new_and_told_at_once(self, memory: Bench, send_file: Command) -> None:
        given = f"to,name\n{phone(1)},Bob\n".encode()
        first = send_file("-", "--text", TEXT, "--json", stdin=given)
        name = first.report["batch_id"]
        assert first.code == 0
        assert first.err == f"batch {name}; if this is cut short, the same input with --batch-id {name} continues\n"
        assert send_file("-", "--text", TEXT, "--json", stdin=given).report["enqueued"] == 1
        again = send_file("-", "--text", TEXT, "--batch-id", name, "--json", stdin=given)
        assert (again.err, again.report["enqueued"], again.report["known"]) == ("", 0, 1)

    def test_it_may_be_json_and_its_rejects_lie_here(self, memory: Bench, send_file: Command) -> None:
        given = b'{"to": "123", "name": "Bob"}\n'
        ended = send_file("-", "--text", TEXT, "--format", "jsonl", "--json", stdin=given)
        assert ended.code == 1
        path = Path(ended.report["rejects"])
        assert path.name == f"{ended.report['batch_id']}.rejects.jsonl"
        assert path.exists()

    def test_what_cannot_be_read_in_the_middle_stops_it(self, memory: Bench, send_file: Command) -> None:
        """A file is looked through before; here what came before is enqueued already."""
        good = "".join(f"{number},Bob\n" for number in phones(MOST))
        ended = send_file("-", "--text", TEXT, "--json", stdin=f"to,name\n{good}".encode() + b"+44,Zo\xeb\n")
        assert (ended.code, ended.report["enqueued"], ended.report["stopped_after"]) == (1, MOST, MOST + 1)
        assert f"line {MOST + 2} is not in it" in ended.err
        assert ended.err.endswith(f"Stopped after line {MOST + 1}\n")


# -- dry runs ----------------------------------------------------------------------------------------------------------


class TestDryRun:
    def test_checks_everything_and_enqueues_nothing(self, send_file: Command) -> None:
        """Not even a Redis is needed."""
        ended = send_file(written(BAD), "--text", TEXT, "--dry-run")
        assert ended.code == 1
        first, *_, last = ended.out.splitlines()
        assert first == "2 recipients in 6 lines, 4 rejected, 2 segments; a dry run, nothing was enqueued"
        assert last == "The rejected lines are in list.csv.dry-run.rejects.csv; mend a copy and send that"

    def test_of_a_good_file(self, send_file: Command) -> None:
        ended = send_file(recipients(3), "--text", "x" * 161, "--dry-run", "--wait", "--json")
        assert (ended.code, ended.report["dry_run"]) == (0, True)
        assert (ended.report["recipients"], ended.report["segments"], ended.report["enqueued"]) == (3, 6, 0)
        texts = {"segments": {"GSM-7": 6, "UCS-2": 0}, "ucs2_lines": 0, "forcing": [], "savable": 0}
        assert ended.report["texts"] == texts

    def test_tells_what_makes_texts_dear_and_what_would_be_saved(self, send_file: Command) -> None:
        """Two parts of UCS-2 each where one of GSM-7 would do; a letter that stays; nothing of a plain one."""
        rows = ["’" + "x" * 79, "’’…" + "x" * 77, "ж’", "plain"]
        file = written("to,text\n" + "".join(f"{to},{text}\n" for to, text in zip(phones(4), rows, strict=True)))
        ended = send_file(file, "--dry-run", "--json")
        assert ended.report["segments"] == 6
        assert ended.report["texts"] == {
            "segments": {"GSM-7": 1, "UCS-2": 5},
            "ucs2_lines": 3,
            "forcing": [
                {"character": "’", "name": "RIGHT SINGLE QUOTATION MARK", "lines": 3, "replacement": "'"},
                {"character": "…", "name": "HORIZONTAL ELLIPSIS", "lines": 1, "replacement": "..."},
                {"character": "ж", "name": "CYRILLIC SMALL LETTER ZHE", "lines": 1, "replacement": None},
            ],
            "savable": 2,
        }
        assert send_file(file, "--dry-run").out.splitlines()[1:] == [
            "3 lines in UCS-2: 5 segments of 70 characters or fewer, and 1 of up to 160 in GSM-7",
            "  ’ RIGHT SINGLE QUOTATION MARK (' instead), in 3 lines",
            "  … HORIZONTAL ELLIPSIS (... instead), in 1 line",
            "  ж CYRILLIC SMALL LETTER ZHE (nothing says the same), in 1 line",
            "With --smart-encoding 2 segments fewer",
        ]

    def test_of_texts_that_are_made_plain(self, send_file: Command) -> None:
        file = written("to,text\n" + "".join(f"{number},{'’' + 'x' * 79}\n" for number in phones(3)))
        ended = send_file(file, "--dry-run", "--smart-encoding", "--max-segments", "1", "--json")
        assert (ended.code, ended.report["segments"], ended.report["texts"]["savable"]) == (0, 3, 0)
        assert send_file(file, "--dry-run", "--max-segments", "1").code == 1


def test_smart_encoding_is_what_is_enqueued(send_file: Command, dispatcher: Dispatcher) -> None:
    file = written("to,text\n" + "".join(f"{number},It’s here\n" for number in phones(2)))
    ended = send_file(file, "--smart-encoding", "--json")
    assert (ended.code, ended.report["enqueued"], ended.report["texts"]) == (0, 2, None)
    assert {one.text for one in dispatcher.jobs(reveal=True)} == {"It's here"}
    assert send_file(file, "--smart-encoding", "--json").report["known"] == 2


# -- cut short ---------------------------------------------------------------------------------------------------------


def away_at(count: int) -> Callable[[int], None]:
    """Redis goes away when so many messages were taken."""

    def meet(taken: int) -> None:
        if taken == count:
            raise StoreUnavailable("Redis at 127.0.0.1:1 did not answer")

    return meet


def signalled_at(count: int, number: signal.Signals) -> Callable[[int], None]:
    """Somebody asks to stop while the portion after so many messages is written."""

    def meet(taken: int) -> None:
        if taken == count:
            os.kill(os.getpid(), number)

    return meet


class TestCutShort:
    @pytest.mark.parametrize(("taken", "line", "where"), [(0, 0, "at the start"), (MOST, 501, "after line 501")])
    def test_redis_goes_away(self, taken: int, line: int, where: str) -> None:
        run = ran(Target(away_at(taken)), recipients(1200))
        assert (run.code, run.report.enqueued, run.report.stopped_after) == (1, taken, line)
        assert run.why == (
            f"Redis at 127.0.0.1:1 did not answer. Stopped {where}. "
            "Run the same command again and it continues: what was enqueued is not enqueued twice"
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_when_the_portion_is_done(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        target = Target(signalled_at(MOST, number))
        run = ran(target, recipients(1700))
        assert (run.code, run.report.enqueued, run.report.stopped_after) == (130, 1000, 1001)
        assert run.why.startswith("Stopped after line 1001. Run the same command again and it continues")
        assert (len(target.taken), target.closed) == (1000, [])
        assert signal.getsignal(number) is before

    def test_a_signal_ends_waiting_for_input_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Slow(io.RawIOBase):
            """Gives some lines, and nothing more until a signal comes."""

            given = b"to,name\n" + b"".join(b"%s,Bob\n" % number.encode() for number in phones(MOST + 10))

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                part, self.given = self.given[: len(buffer)], self.given[len(buffer) :]
                if not part:
                    os.kill(os.getpid(), signal.SIGINT)
                    raise AssertionError("nobody stopped it")
                buffer[: len(part)] = part
                return len(part)

        said: list[str] = []
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow())))
        run = ran(Target(), "-", said.append)
        assert (run.code, run.report.enqueued, run.report.stopped_after) == (130, MOST, MOST + 1)
        assert f"Run it again with --batch-id {run.report.batch_id} on the same input" in run.why
        assert run.report.batch_id in said[0]

    def test_run_again_it_continues(
        self, memory: Bench, send_file: Command, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = written(recipients(1199).read_text() + "123,Ann\n")
        whole, calls = Dispatcher.send_many, []

        def interrupted(self: Dispatcher, *arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return whole(self, *arguments, **options)

        monkeypatch.setattr(Dispatcher, "send_many", interrupted)
        first = send_file(file, "--text", TEXT, "--json")
        name = first.report["batch_id"]
        assert (first.code, first.report["enqueued"], first.report["stopped_after"]) == (130, 1000, 1001)
        assert first.err.startswith("dispatcher: Stopped after line 1001.")
        assert dispatcher.batch_state(name).open, "more of it follow"

        again = send_file(file, "--text", TEXT, "--json")
        assert (again.code, again.report["enqueued"], again.report["known"]) == (1, 199, 1000)
        assert again.report["stopped_after"] is None
        assert [job.to for job in jobs(dispatcher, name)] == phones(1199)
        assert not dispatcher.batch_state(name).open

    def test_a_batch_that_was_cancelled_takes_no_more(self, dispatcher: Dispatcher, send_file: Command) -> None:
        def cancelled(taken: int) -> None:
            if taken:
                raise InvalidRequest("batch_id", "was cancelled and takes no more messages", "b-1")

        run = ran(Target(cancelled), recipients(1200), batch_id="b-1")
        assert (run.code, run.report.stopped_after) == (1, 501)
        assert run.why == "batch_id 'b-1': was cancelled and takes no more messages. Stopped after line 501"

        file = recipients(2)
        send_file(file, "--text", TEXT, "--batch-id", "b-2")
        dispatcher.cancel_batch("b-2")
        ended = send_file(file, "--text", TEXT, "--batch-id", "b-2")
        assert (ended.code, ended.out) == (2, "")
        assert "was cancelled" in ended.err


# -- waiting -----------------------------------------------------------------------------------------------------------


class TestWaiting:
    @pytest.mark.parametrize(
        ("states", "code"),
        [
            pytest.param([{"queued": 1, "sent": 1}, {"sent": 2}], 0, id="sent"),
            pytest.param([{"sent": 1, "failed": 1}], 1, id="one failed"),
            pytest.param([{"unknown": 2}], 1, id="unknown"),
        ],
    )
    def test_until_all_is_settled(self, states: Sequence[dict[str, int]], code: int) -> None:
        target = Target()
        target.states = list(states)
        run = ran(target, recipients(2), wait=5)
        assert (run.code, run.report.states, run.why) == (code, states[-1], "")
        assert ", ".join(f"{count} {state}" for state, count in states[-1].items()) in summary(run)
        assert target.closed == [run.report.batch_id]

    def test_not_longer_than_told(self) -> None:
        target = Target()
        target.states = [{"queued": 2}]
        run = ran(target, recipients(2), wait=0)
        assert (run.code, run.report.states) == (1, {"queued": 2})
        assert "is busy with 2 jobs and not settled after 0 s; it goes on" in run.why

    def test_a_signal_ends_it(self) -> None:
        class Asked(Target):
            def batch_state(self, id_: str) -> BatchState:
                os.kill(os.getpid(), signal.SIGINT)
                return BatchState(counts={"queued": 2})

        run = ran(Asked(), recipients(2), wait=60)
        assert (run.code, run.report.stopped_after) == (130, None)
        assert run.why == "Stopped waiting. All is enqueued and goes on by itself"

    def test_redis_goes_away_meanwhile(self) -> None:
        class Away(Target):
            def batch_state(self, id_: str) -> BatchState:
                raise StoreUnavailable("Redis did not answer")

        run = ran(Away(), recipients(2), wait=60)
        assert (run.code, run.report.enqueued, run.why) == (1, 2, "Redis did not answer")


def test_on_a_terminal_one_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was read once before, so that the end is known."""
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr("dispatcher.send_file.Console", lambda **_: terminal)
    ran(Target(), recipients(1200))
    assert "1201/1201" in shown.getvalue()
    assert leaks(shown.getvalue(), *phones(3), "Name") == []
