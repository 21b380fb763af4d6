"""How jobs, lists and accounts look in a terminal, in a narrow one and in a file."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from rich.console import Console

from dispatcher.accounts import Account, ArgumentSchema, OperationSchema
from dispatcher.jobs import Category, Entry, Job, Kind, Verification, Waiting, new_id
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.pages import (
    COLOURS,
    Log,
    line,
    print_job,
    print_jobs,
    print_operation,
    print_operations,
    print_providers,
    result_rows,
    state_text,
    timeline,
)
from dispatcher.states import FINAL, State

ID: Final = "06h00n32pvdoek4tipfuifv0jc"
NOON: Final = datetime(2026, 12, 24, 12, tzinfo=UTC)

#: Words that rich would take for its own markup and emoji; an end without a beginning makes it raise.
MARKUP: Final = "[bold]50 %[/bold] off [/x] :bomb: [link=file:///]"

REFUSED: Final = Failure(kind=FailureKind.INVALID, code="E17", message="no such number")


def entry(seconds: float, state: State, detail: str) -> Entry:
    return Entry(state=state, at=NOON + timedelta(seconds=seconds), provider="textgoto", detail=detail)


def job(**fields: Any) -> Job:
    """A send that went well, with what is given laid over it."""
    state = fields.get("state", State.SENT)
    history = [
        entry(0, State.QUEUED, "created"),
        entry(0.25, State.SENDING, "attempt 1"),
        entry(61.5, state, "accepted by the provider"),
    ]
    usual: dict[str, Any] = {
        "id": ID, "kind": Kind.SEND, "operation": "send", "category": Category.TRANSACTIONAL, "provider": "textgoto",
        "state": state, "final": state in FINAL, "seq": 3, "waiting": None, "receipt": "none", "attempts": 1,
        "to": "+44********23", "sender": "", "text": "[19 characters]", "tenant": "", "reference": "", "metadata": {},
        "batch_id": None, "redrive_of": None, "created_at": NOON, "updated_at": NOON, "expires_at": None, "segments": 1,
        "price": None, "provider_ref": None, "result": None, "verification": None, "possible_duplicate": False,
        "sandbox": False, "failure": None, "tries": [], "history": history,
    }  # fmt: skip
    return Job(**usual | fields)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let rich believe that it prints to a terminal; the width is for the test to say."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


@pytest.fixture(autouse=True)
def a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print to no terminal, whatever the tests run in."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def rows(shown: str) -> list[list[str]]:
    """The cells of each line, without colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    return [re.split(r" {2,}", one.strip()) for one in plain.splitlines()]


def test_every_state_has_a_colour() -> None:
    assert set(COLOURS) == set(State)
    assert [state_text(state).plain for state in State] == [str(state) for state in State]


# -- one line ----------------------------------------------------------------------------------------------------------

LINES = {
    "sent": ({}, "sent textgoto send +44********23"),
    "to nobody": ({"operation": "balance", "to": "", "state": State.COMPLETED}, "completed textgoto balance"),
    "waiting for a worker": (
        {"state": State.QUEUED, "waiting": Waiting("worker")},
        "queued textgoto send +44********23 (waits for worker)",
    ),
    "waiting for its time": (
        {"state": State.QUEUED, "waiting": Waiting("time", NOON)},
        "queued textgoto send +44********23 (waits for time until 2026-12-24 12:00:00 UTC)",
    ),
    "failed": (
        {"state": State.FAILED, "failure": REFUSED},
        "failed textgoto send +44********23 - invalid: no such number",
    ),
    "a verification": (
        {"operation": "verify", "verification": Verification("pending", NOON)},
        "sent textgoto verify +44********23 [pending]",
    ),
    "what looks like markup": (
        {"state": State.FAILED, "failure": Failure(kind=FailureKind.REJECTED, code="", message=MARKUP)},
        f"failed textgoto send +44********23 - rejected: {MARKUP}",
    ),
}


@pytest.mark.parametrize(("fields", "expected"), LINES.values(), ids=LINES)
def test_a_job_in_one_line(fields: dict[str, Any], expected: str) -> None:
    assert line(job(**fields)) == f"{ID} {expected}"


def test_a_line_is_one_line() -> None:
    """A provider's words may have line ends, and what a terminal obeys."""
    failure = Failure(kind=FailureKind.REJECTED, code="", message="not\nlike\r\nthis \x1b[2J\x1b[31mred\x07")
    shown = line(job(state=State.FAILED, failure=failure))
    assert shown.isprintable()
    assert "not" in shown


# -- one page ----------------------------------------------------------------------------------------------------------


class TestPage:
    def facts(self, capsys: pytest.CaptureFixture[str], one: Job) -> dict[str, str]:
        print_job(one)
        return {cells[0]: cells[1] for cells in rows(capsys.readouterr().out) if len(cells) == 2}

    def test_it_shows_what_there_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.facts(capsys, job()) == {
            "job": ID,
            "what": "send",
            "state": "sent",
            "provider": "textgoto",
            "to": "+44********23",
            "text": "[19 characters], 1 segment",
            "category": "transactional",
            "attempts": "1",
            "receipt": "none",
        }

    def test_it_shows_all_that_there_may_be(self, capsys: pytest.CaptureFixture[str]) -> None:
        everything = {
            "sender": "ACME", "segments": 2, "reference": "order-17", "tenant": "shop-a", "batch_id": "b1",
            "provider_ref": "m-1", "price": "0.04 EUR", "expires_at": NOON, "sandbox": True, "failure": REFUSED,
            "waiting": Waiting("retry", NOON), "verification": Verification("approved", NOON),
            "result": {"country": "United Kingdom", "ported": True},
        }  # fmt: skip
        facts = self.facts(capsys, job(**everything))
        assert (
            facts
            | {
                "sender": "ACME",
                "text": "[19 characters], 2 segments",
                "reference": "order-17",
                "tenant": "shop-a",
                "batch": "b1",
                "provider's id": "m-1",
                "price": "0.04 EUR",
                "useless after": "2026-12-24 12:00:00 UTC",
                "provider": "textgoto (sandbox)",
                "failure": "invalid E17: no such number",
                "waits for": "retry until 2026-12-24 12:00:00 UTC",
                "verification": "approved, until 12:00:00 UTC",
                "country": "United Kingdom",
                "ported": "True",
            }
            == facts
        )

    def test_its_history_tells_the_time_since_it_began(self, capsys: pytest.CaptureFixture[str]) -> None:
        Console().print(timeline(job()))
        assert rows(capsys.readouterr().out) == [
            ["0.000 s", "queued", "created"],
            ["0.250 s", "sending", "attempt 1"],
            ["61.500 s", "sent", "accepted by the provider"],
        ]

    @pytest.mark.parametrize("field", ["text", "reference", "tenant", "sender", "provider_ref", "batch_id"])
    def test_what_looks_like_markup_is_shown_as_it_is(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, field: str
    ) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        print_job(job(**{field: MARKUP}))
        assert MARKUP in capsys.readouterr().out

    def test_what_a_provider_says_is_shown_as_it_is(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        failure = Failure(kind=FailureKind.REJECTED, code="E1", message=MARKUP)
        history = [entry(0, State.FAILED, MARKUP)]
        print_job(job(state=State.FAILED, failure=failure, history=history, result={"network": MARKUP}))
        assert capsys.readouterr().out.count(MARKUP) == 3

    def test_a_file_gets_no_colours(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_job(job())
        assert "\x1b" not in capsys.readouterr().out

    def test_a_terminal_gets_them(self, capsys: pytest.CaptureFixture[str], terminal: pytest.MonkeyPatch) -> None:
        print_job(job())
        assert "\x1b[32msent" in capsys.readouterr().out


# -- lists -------------------------------------------------------------------------------------------------------------


class TestList:
    @pytest.mark.parametrize("width", [None, "40", "60", "80", "200"])
    def test_an_id_is_never_shortened(
        self, capsys: pytest.CaptureFixture[str], terminal: pytest.MonkeyPatch, width: str | None
    ) -> None:
        """It is there to be copied. The first width is a file's."""
        if width:
            terminal.setenv("COLUMNS", width)
        else:
            terminal.delenv("FORCE_COLOR")
        many = [job(id=new_id(), operation="list.append", failure=REFUSED, state=State.FAILED) for _ in range(5)]
        print_jobs(many)
        shown = [cells[0] for cells in rows(capsys.readouterr().out)]
        assert [id_ for id_ in shown if len(id_) == 26] == [one.id for one in many]

    def test_it_has_a_line_a_job_in_the_order_given(self, capsys: pytest.CaptureFixture[str]) -> None:
        other = new_id()
        print_jobs(
            [
                job(),
                job(id=other, state=State.FAILED, failure=REFUSED),
                job(state=State.QUEUED, waiting=Waiting("retry", NOON)),
            ]
        )
        assert rows(capsys.readouterr().out) == [
            ["id", "state", "provider", "what", "to", "updated", "why"],
            [ID, "sent", "textgoto", "send", "+44********23", "12-24 12:00:00"],
            [other, "failed", "textgoto", "send", "+44********23", "12-24 12:00:00", "no such number"],
            [ID, "queued", "textgoto", "send", "+44********23", "12-24 12:00:00", "waits for retry"],
        ]

    def test_what_looks_like_markup_is_shown_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        failure = Failure(kind=FailureKind.REJECTED, code="", message=MARKUP)
        print_jobs([job(state=State.FAILED, failure=failure)])
        assert MARKUP in capsys.readouterr().out


def test_a_result_is_shown_row_by_row() -> None:
    """Of a list of objects each has its own; what is not known is left out."""
    numbers = [{"number": "+1***50", "price": "1", "area_code": None}, {"number": "+1***51", "tags": ["a"]}]
    result = {"available": "21.5", "currency": None, "numbers": numbers, "names": ["a", "b"], "none": []}
    assert [*result_rows(result)] == [
        ("available", "21.5"),
        ("numbers", "number +1***50, price 1"),
        ("", "number +1***51, tags ['a']"),
        ("names", "['a', 'b']"),
        ("none", "[]"),
    ]


BUY: Final = OperationSchema(
    about="Rent a number.",
    source="vendor's code",
    paid=True,
    arguments={
        "number": ArgumentSchema(about="which, of number.search", required=True),
        "note": ArgumentSchema(about=MARKUP),
    },
    evidence="number.list shows it: strong",
)


def account(name: str = "textgoto", **fields: Any) -> Account:
    """An account that can send, buy and read its balance, and says how."""
    usual: dict[str, Any] = {
        "adapter": "textgoto", "operations": ["balance", "number.buy", "send"],
        "unsupported": {"mms": "no texts", "voice": "no texts"},
        "capabilities": {
            "recipients": "100", "own_reference": "True", "receipts": "none", "inbound": "False",
            "verification": "ours", "max_characters": "None",
        },
        "schemas": {
            "balance": OperationSchema(about="Read it.", source="inferred", repeat="always"),
            "number.buy": BUY,
            "send": OperationSchema(about="Send one text.", source="document"),
        },
    }  # fmt: skip
    return Account(name=name, **usual | fields)


class TestProviders:
    def test_they_are_shown_as_a_matrix(self, capsys: pytest.CaptureFixture[str]) -> None:
        other = account("vendor2", sandbox=True, operations=["send", "lookup"], unsupported={}, schemas={})
        print_providers([other, account()])
        assert rows(capsys.readouterr().out) == [
            ["operation", "textgoto", "vendor2 (textgoto) (sandbox)"],
            ["send", "document", "yes"],
            ["lookup", "-", "yes"],
            ["balance", "inferred", "-"],
            ["number.buy", "vendor's code $", "-"],
            ["recipients a request", "100", "100"],
            ["keeps our reference", "yes", "yes"],
            ["receipts", "none", "none"],
            ["inbound texts", "no", "no"],
            ["codes made by", "us", "us"],
            ["longest text", "-", "-"],
            [""],
            ["account", "not done here", "why"],
            ["textgoto", "mms", "no texts"],
            ["voice", "no texts"],
            [""],
            [
                (
                    "How each operation is known is what stands there: a vendor's document, a vendor's code, or "
                    "inferred. None is live-verified yet."
                )
            ],
            ["$ is paid from the account's balance, card is charged to a card."],
            ["What one of them takes: dispatcher op ACCOUNT OPERATION --help"],
        ]

    def test_nobody_is_told_of_with_a_way_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_providers([])
        assert "dispatcher worker NAME" in capsys.readouterr().out

    @pytest.mark.parametrize("width", [40, 60, 80, 100])
    def test_it_fits_into_the_terminal(
        self, capsys: pytest.CaptureFixture[str], terminal: pytest.MonkeyPatch, width: int
    ) -> None:
        """More accounts than fit beside each other stand below each other."""
        terminal.setenv("COLUMNS", str(width))
        names = ["thetexting", "clubtexting", "textgoto", "mobtexting", "mobtexting2"]
        print_providers([account(name, adapter=name) for name in names])
        shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
        assert max(map(len, shown.splitlines())) <= width
        assert [name for name in [*names, "number.buy", "vendor's code $"] if name not in shown] == []

    def test_a_narrow_terminal_loses_no_operation(
        self, capsys: pytest.CaptureFixture[str], terminal: pytest.MonkeyPatch
    ) -> None:
        terminal.setenv("COLUMNS", "80")
        can = ["balance", "list.append", "lookup", "optout.add", "send", "verify"]
        print_providers([Account(name="textgoto", adapter="textgoto", operations=can)])
        shown = " ".join(" ".join(cells) for cells in rows(capsys.readouterr().out))
        assert [name for name in can if name not in shown] == []


class TestOperations:
    COMMANDS: Final = {"send": "dispatcher send"}

    def test_they_are_listed_with_what_each_does(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_operations(account(), self.COMMANDS)
        assert rows(capsys.readouterr().out) == [
            ["operation", "what textgoto does"],
            ["send", "Send one text. Its command: dispatcher send"],
            ["balance", "Read it."],
            ["number.buy", "Rent a number. Costs money."],
            [""],
            ["What one of them takes: dispatcher op textgoto OPERATION --help"],
        ]

    def test_one_tells_what_it_takes_and_costs(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_operation(account(), "number.buy", BUY, None)
        assert rows(capsys.readouterr().out) == [
            ["Usage: dispatcher op textgoto number.buy number=... [note=...]"],
            [""],
            ["Rent a number."],
            ["costs money", "yes, from the balance"],
            ["repeated", "never: when nobody knows if it was done, it is not done again"],
            ["a lost answer", "number.list shows it: strong"],
            ["known from", "the vendor's own code; not live-verified yet"],
            [""],
            ["argument", "what it is"],
            ["number", "required", "which, of number.search"],
            ["note", MARKUP],
        ]

    def test_a_card_is_given_on_standard_input(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = {
            "keyword": ArgumentSchema(about="which", required=True),
            "card_number": ArgumentSchema(about="its digits"),
        }
        rent = OperationSchema(about="Rent it.", source="document", arguments=arguments)
        print_operation(account(), "keyword.rent", rent, None)
        shown = rows(capsys.readouterr().out)
        assert shown[0] == ["Usage: dispatcher op textgoto keyword.rent keyword=... [--arguments -]"]
        assert ["costs money", "yes, charged to a card"] in shown
        assert shown[-1] == ["card_number", "--arguments -", "its digits"]

    def test_what_has_a_command_of_its_own_takes_options(self, capsys: pytest.CaptureFixture[str]) -> None:
        send = OperationSchema(about="Send.", source="document", arguments={"time": ArgumentSchema(about="when")})
        print_operation(account(), "send", send, "dispatcher send")
        assert rows(capsys.readouterr().out)[0] == ["Usage: dispatcher send ... [--option time=...]"]

    def test_nothing_is_made_up_of_what_an_older_worker_published(self, capsys: pytest.CaptureFixture[str]) -> None:
        print_operation(account(), "balance", OperationSchema(), None)
        assert rows(capsys.readouterr().out) == [
            ["Usage: dispatcher op textgoto balance"],
            [""],
            ["Its worker is of an earlier release, and told no more of it."],
        ]


def test_a_log_whose_reader_went_away_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich would end the process, and with it everything that `dispatcher up` runs."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        Log().tell("worker", "a line")
