"""The command line beside a real worker and a sandbox: what each command does, prints and exits with."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from dispatcher import Dispatcher, Job, Message
from tests.commands import Ended, Run, in_process
from tests.support import Deployment, Process, accepted, clean_environment, phone, phones, taken_by_number, until

#: The fields of a job's document, by contract; it grows by adding.
DOCUMENTED: Final = {
    "schema", "id", "kind", "operation", "category", "provider", "state", "final", "seq", "waiting", "receipt",
    "attempts", "to", "sender", "text", "tenant", "reference", "metadata", "batch_id", "redrive_of", "created_at",
    "updated_at", "expires_at", "segments", "price", "provider_ref", "result", "verification", "possible_duplicate",
    "sandbox", "failure", "tries", "history",
}  # fmt: skip

TEXT: Final = "Your parcel is here"


@pytest.fixture
def environment(running: Deployment) -> dict[str, str]:
    """What an application has: where Redis is, and that all is played. No credentials."""
    return {
        name: value
        for name, value in running.environment.items()
        if name in {"DISPATCHER_REDIS_URL", "DISPATCHER_SANDBOX", "DISPATCHER_SANDBOX_URL"}
    }


@pytest.fixture
def run(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `dispatcher ARGUMENTS` without waiting for an interpreter to start."""
    return in_process(environment, monkeypatch, capsys)


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run it as a shell does."""

    def shell(*arguments: str, stdin: str = "") -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "dispatcher.cli", *arguments],
            cwd=tmp_path,
            env={**clean_environment(), **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return shell


def sent(run: Run, *options: str, to: str = "", text: str = TEXT) -> str:
    """Send one text and return its id once it is sent."""
    ended = run("send", to or phone(1), text, "--provider", "textgoto", "--wait", "--json", *options)
    assert (ended.code, ended.err) == (0, "")
    return str(ended.document["id"])


def ids(ended: Ended) -> list[str]:
    assert (ended.code, ended.err) == (0, "")
    return [str(document["id"]) for document in ended.documents]


# -- as processes ------------------------------------------------------------------------------------------------------


def test_a_text_is_sent_and_its_history_shown(shell: Run, running: Deployment) -> None:
    ended = shell("send", phone(123), "Hello", "--provider", "textgoto", "--wait", "--json")
    assert (ended.code, ended.err) == (0, "")
    document = ended.document
    assert set(document) >= DOCUMENTED
    assert (document["schema"], document["kind"], document["state"]) == (1, "send", "sent")
    assert (document["to"], document["text"]) == ("+44********23", "[5 characters]")
    assert [entry["state"] for entry in document["history"]] == ["queued", "sending", "sent"]
    assert [set(one) for one in document["tries"]] == [{"provider", "ref", "outcome", "at"}]
    assert taken_by_number(running.sandbox) == {phone(123): 1}

    shown = shell("job", document["id"])
    assert (shown.code, shown.err) == (0, "")
    assert document["id"] in shown.out
    states = re.findall(r"^ +\d+\.\d{3} s +(\w+) ", shown.out, re.MULTILINE)
    assert states == ["queued", "sending", "sent"]


def test_a_text_that_cannot_be_sent_is_no_success(shell: Run) -> None:
    ended = shell("send", phone(101), "-", "--provider", "textgoto", "--wait", "--json", stdin="Hello")
    assert (ended.code, ended.err) == (1, "")
    assert (ended.document["state"], ended.document["text"]) == ("failed", "[5 characters]")
    assert ended.document["failure"].items() >= {
        "kind": "invalid", "code": "INVALID_MSISDN", "message": "TextGoto answered INVALID_MSISDN",
    }.items()  # fmt: skip


def test_events_are_followed_until_ctrl_c(environment: dict[str, str], dispatcher: Dispatcher, tmp_path: Path) -> None:
    seen = dispatcher.wait(dispatcher.send(phone(1), TEXT, provider="textgoto").id)
    follower = Process(["-m", "dispatcher.cli", "events", "-f", "--after", "0"], environment, tmp_path, "events")
    try:
        follower.wait_for(seen.id)
        news = dispatcher.send(phone(2), TEXT, provider="textgoto")
        follower.wait_for(news.id)
        follower.popen.send_signal(signal.SIGINT)
        assert follower.wait() == 130
    finally:
        follower.kill()
    lines = [line.split() for line in follower.output().splitlines()]
    assert [(kind, id_, to) for _, _, kind, id_, to in lines] == [
        ("job.sent", seen.id, "+44********01"),
        ("job.sent", news.id, "+44********02"),
    ]


# -- enqueuing ---------------------------------------------------------------------------------------------------------


class TestSend:
    def test_all_that_can_be_said_of_a_text_is_kept(self, run: Run, running: Deployment) -> None:
        options = {
            "--sender": "ACME", "--category": "otp", "--reference": "order-17", "--metadata": '{"crm": 4}',
            "--tenant": "shop-a", "--idempotency-key": "order-17-shipped", "--valid-for": "600", "--lane": "normal",
        }  # fmt: skip
        words = [word for pair in options.items() for word in pair]
        id_ = sent(run, *words)
        document = run("job", id_, "--json").document
        assert document["sender"] == "ACME"
        assert document["category"] == "otp"
        assert (document["reference"], document["metadata"], document["tenant"]) == ("order-17", {"crm": 4}, "shop-a")
        assert document["expires_at"] is not None
        assert sent(run, *words) == id_, "the same key returns the first job"
        assert taken_by_number(running.sandbox) == {phone(1): 1}

    def test_without_wait_it_is_shown_as_it_was_stored(self, run: Run) -> None:
        ended = run("send", phone(1), TEXT, "--provider", "textgoto")
        assert (ended.code, ended.err) == (0, "")
        assert re.fullmatch(r"[0-9a-v]{26} queued textgoto send \+44\*{8}01 \(waits for worker\)\n", ended.out)

    @pytest.mark.parametrize(("ending", "state"), [(100, "failed"), (105, "unknown")])
    def test_an_end_that_is_not_good_exits_with_1(self, run: Run, ending: int, state: str) -> None:
        ended = run("send", phone(ending), TEXT, "--provider", "textgoto", "--wait")
        assert (ended.code, ended.err) == (1, "")
        assert f" {state} textgoto send " in ended.out

    def test_of_several_accounts_one_must_be_named(self, run: Run) -> None:
        ended = run("send", phone(1), TEXT)
        assert (ended.code, ended.out) == (2, "")
        assert "broke, textgoto" in ended.err

    def test_the_text_comes_from_standard_input(self, run: Run, running: Deployment) -> None:
        ended = run("send", phone(1), "-", "--provider", "textgoto", "--wait", stdin="Grüße\nan alle")
        assert ended.code == 0
        (row,) = accepted(running.sandbox.ledger())
        assert row.text == "Grüße\nan alle"


class TestVerify:
    def code(self, run: Run, number: str) -> str:
        """Read the code as the person does: on the phone."""
        message = run("sandbox", "inbox", number, "--json").document
        assert set(message) >= {"at", "provider", "sender", "text"}
        assert message["text"].startswith("It is ")
        return str(message["text"].removeprefix("It is "))

    def test_a_wrong_code_exits_with_1_and_the_right_one_with_0_once(self, run: Run) -> None:
        started = run("verify", phone(5), "--template", "It is [CODE]", "--provider", "textgoto", "--wait", "--json")
        assert (started.code, started.err) == (0, "")
        id_ = started.document["id"]
        assert started.document["verification"]["status"] == "pending"
        code = self.code(run, phone(5))
        wrong = f"{(int(code) + 1) % 1_000_000:06}"

        assert run("check", id_, wrong) == (1, "not valid; the verification is pending\n", "")
        right = run("check", id_, "-", "--json", stdin=f"{code}\n")
        assert (right.code, right.document) == (0, {"id": id_, "valid": True, "status": "approved"})
        assert run("check", id_, code) == (1, "not valid; the verification is approved\n", "")
        shown = run("job", id_)
        assert "approved" in shown.out
        assert code not in shown.out + run("job", id_, "--json", "--reveal").out

    def test_what_was_sent_is_no_verification(self, run: Run) -> None:
        id_ = sent(run)
        ended = run("check", id_, "123456")
        assert (ended.code, ended.out) == (1, "")
        assert f"there is no verification {id_}" in ended.err


class TestLookupAndOperations:
    def test_a_lookup_tells_what_it_found(self, run: Run) -> None:
        ended = run("lookup", phone(132), "--provider", "textgoto", "--wait", "--json", "--reveal")
        assert (ended.code, ended.err) == (0, "")
        result = ended.document["result"]
        assert (result["number"], result["current_network"]["name"]) == (phone(132), "Sandbox Mobile")

    def test_a_lookup_of_nobody_is_no_success(self, run: Run) -> None:
        ended = run("lookup", phone(130), "--provider", "textgoto", "--wait", "--json")
        assert (ended.code, ended.document["failure"]["kind"]) == (1, "invalid")

    def test_the_balance_is_read(self, run: Run) -> None:
        ended = run("op", "textgoto", "balance", "--wait", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert ended.document["result"] == {"balance": "1000000.000", "available": "1000010.000", "currency": None}

    @pytest.mark.parametrize(
        ("arguments", "answer"),
        [(["op", "textgoto", "balance"], "1000010.000"), (["lookup", phone(132)], "Sandbox Mobile")],
        ids=["balance", "lookup"],
    )
    def test_an_answer_that_was_waited_for_is_shown(self, run: Run, arguments: list[str], answer: str) -> None:
        """People ask for it, not for the word `completed`."""
        options = ["--provider", "textgoto"] if arguments[0] == "lookup" else []
        ended = run(*arguments, *options, "--wait")
        assert (ended.code, ended.err) == (0, "")
        assert answer in ended.out

    def test_arguments_come_as_words(self, run: Run, running: Deployment) -> None:
        ended = run("op", "textgoto", "list.append", "list=friends=best", f"number={phone(7)}", "--wait")
        assert ended.code == 0
        (row,) = running.sandbox.ledger()
        assert (row.action, row.text, row.msisdn) == ("APPEND_LIST", "friends=best", phone(7)[1:])

    def test_arguments_come_from_standard_input(self, run: Run, running: Deployment) -> None:
        told = msgspec.json.encode({"list": "friends", "number": phone(7)}).decode()
        ended = run("op", "textgoto", "list.append", "--arguments", "-", "--wait", "--json", stdin=told)
        assert (ended.code, ended.err) == (0, "")
        (row,) = running.sandbox.ledger()
        assert (row.text, row.msisdn) == ("friends", phone(7)[1:])
        assert phone(7)[1:] not in ended.out

    def test_an_argument_that_is_none_is_told(self, run: Run) -> None:
        ended = run("op", "textgoto", "balance", "colour=red", "--wait")
        assert (ended.code, ended.out) == (2, "")
        assert "argument colour: is none of balance" in ended.err


# -- looking -----------------------------------------------------------------------------------------------------------


class TestJobs:
    @pytest.fixture
    def three(self, run: Run, dispatcher: Dispatcher) -> tuple[str, str, str]:
        """Jobs that were sent to one phone, sent to another and refused, the latest to change last."""
        refused = run("send", phone(100), TEXT, "--provider", "textgoto", "--wait", "--json")
        return sent(run, to=phone(1)), sent(run, to=phone(2)), str(refused.document["id"])

    def test_they_are_listed_by_state_and_provider(self, run: Run, three: tuple[str, str, str]) -> None:
        first, second, refused = three
        assert ids(run("jobs", "--json")) == [second, first, refused], "the latest to change first"
        assert ids(run("jobs", "--json", "--limit", "2")) == [second, first]
        assert ids(run("jobs", "--json", "--state", "failed")) == [refused]
        assert ids(run("jobs", "--json", "--state", "sent", "--provider", "textgoto")) == [second, first]
        assert ids(run("jobs", "--json", "--provider", "broke")) == []

    def test_they_are_listed_by_number(self, run: Run, three: tuple[str, str, str]) -> None:
        first, _, refused = three
        assert ids(run("jobs", "--json", "--number", phone(1))) == [first]
        assert ids(run("jobs", "--json", "--number", "+44 7700 900-100", "--state", "failed")) == [refused]
        assert ids(run("jobs", "--json", "--number", phone(3))) == []

    def test_they_are_listed_by_batch(self, run: Run, dispatcher: Dispatcher, three: tuple[str, str, str]) -> None:
        batch = dispatcher.send_many([Message(one, TEXT) for one in phones(3)], provider="textgoto")
        batch.wait()
        assert ids(run("jobs", "--json", "--batch", batch.id)) == list(reversed(batch.jobs.ids))
        assert ids(run("jobs", "--json", "--batch", batch.id, "--state", "failed")) == []

    def test_people_get_a_table(self, run: Run, three: tuple[str, str, str]) -> None:
        ended = run("jobs")
        assert (ended.code, ended.err) == (0, "")
        lines = [line.split() for line in ended.out.splitlines()]
        assert lines[0] == ["id", "state", "provider", "what", "to", "updated", "why"]
        first, second, refused = three
        assert [line[:2] for line in lines[1:]] == [[second, "sent"], [first, "sent"], [refused, "failed"]]
        assert "MSISDN_BLOCKED" in ended.out


class TestEvents:
    def test_those_that_are_kept_are_shown_from_a_cursor_on(self, run: Run) -> None:
        jobs = [sent(run, to=phone(ending)) for ending in (1, 2, 3)]
        everything = run("events", "--json")
        assert [event["data"]["id"] for event in everything.documents] == jobs
        assert {(event["schema"], event["type"]) for event in everything.documents} == {(1, "job.sent")}
        assert all(set(event["data"]) >= DOCUMENTED for event in everything.documents)
        assert run("events", "--json", "--after", "0") == everything

        first = everything.documents[0]["cursor"]
        rest = run("events", "--after", first)
        assert [line.split()[3] for line in rest.out.splitlines()] == jobs[1:]
        assert rest.out.splitlines()[0].startswith(everything.documents[1]["cursor"])
        assert run("events", "--after", everything.documents[-1]["cursor"]) == (0, "", "")

    def test_followed_they_end_after_a_quiet_while(
        self, run: Run, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = sent(run)
        (event,) = run("events", "--json").documents
        follow, jobs = Dispatcher.events, list[Job]()

        def followed_by_news(one: Dispatcher, *arguments: Any, **named: Any) -> Any:
            events = follow(one, *arguments, **named)
            jobs.append(dispatcher.send(phone(2), TEXT, provider="textgoto"))
            return events

        with monkeypatch.context() as patched:
            patched.setattr(Dispatcher, "events", followed_by_news)
            began = time.monotonic()
            followed = run("events", "-f", "--timeout", "4", "--json")
            assert time.monotonic() - began > 4
        (soon,) = jobs
        assert [one["data"]["id"] for one in followed.documents] == [soon.id], "news only, unless a cursor is given"
        again = run("events", "-f", "--after", "0", "--timeout", "0.1", "--json")
        assert [one["data"]["id"] for one in again.documents] == [before, soon.id]
        assert again.documents[0] == event


class TestProviders:
    def test_they_tell_what_they_can(self, run: Run) -> None:
        ended = run("providers", "--json")
        assert (ended.code, ended.err) == (0, "")
        assert {one["name"]: (one["adapter"], one["sandbox"]) for one in ended.documents} == {
            "textgoto": ("textgoto", True),
            "broke": ("textgoto", True),
        }
        assert {"send", "verify", "lookup", "balance"} <= set(ended.documents[0]["operations"])
        assert "textgoto (sandbox)" in run("providers").out


class TestInbox:
    def test_a_phone_shows_what_it_received(self, run: Run) -> None:
        sent(run, to=phone(8), text="Grüße")
        assert run("sandbox", "inbox", phone(9)) == (0, "No texts.\n", "")
        shown = run("sandbox", "inbox", phone(8))
        assert re.fullmatch(r"\d\d:\d\d:\d\d  textgoto  from \w+: Grüße\n", shown.out)


# -- waiting and taking back -------------------------------------------------------------------------------------------


class TestWaitAndCancel:
    @pytest.fixture
    def tomorrow(self, run: Run) -> str:
        """A job that waits for its time."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 86400))
        ended = run("send", phone(1), TEXT, "--provider", "textgoto", "--send-at", at, "--json")
        assert ended.document["waiting"]["for"] == "time"
        return str(ended.document["id"])

    def test_a_good_end_is_waited_for(self, run: Run, dispatcher: Dispatcher) -> None:
        job = dispatcher.send(phone(1), TEXT, provider="textgoto", send_at=time.time() + 0.3)
        assert run("wait", job.id) == (0, f"{job.id} sent textgoto send +44********01\n", "")

    def test_a_bad_end_exits_with_1(self, run: Run, dispatcher: Dispatcher) -> None:
        job = dispatcher.send(phone(101), TEXT, provider="textgoto")
        ended = run("wait", job.id, "--json", "--until", "final")
        assert (ended.code, ended.err, ended.document["state"]) == (1, "", "failed")

    def test_what_takes_longer_is_shown_and_goes_on(self, run: Run, tomorrow: str) -> None:
        ended = run("wait", tomorrow, "--timeout", "0.1")
        assert ended.code == 1
        assert ended.out.startswith(f"{tomorrow} queued textgoto send +44********01 (waits for time until ")
        assert ended.err == (
            f"dispatcher: job {tomorrow} is queued and not settled after 0.1 s; it goes on, wait again or look later\n"
        )

    def test_what_is_not_sent_yet_is_taken_back(self, run: Run, running: Deployment, tomorrow: str) -> None:
        ended = run("cancel", tomorrow, "--json")
        assert (ended.code, ended.err) == (0, "")
        assert (ended.document["state"], ended.document["failure"]["code"]) == ("cancelled", "cancelled")
        assert ids(run("jobs", "--state", "cancelled", "--json")) == [tomorrow]
        assert run("wait", tomorrow).code == 1, "it ended, though not well"
        assert running.sandbox.ledger() == []

    def test_what_is_sent_cannot_be_taken_back(self, run: Run) -> None:
        id_ = sent(run)
        ended = run("cancel", id_)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err == f"dispatcher: job {id_} is sent and cannot become cancelled\n"


# -- privacy -----------------------------------------------------------------------------------------------------------


class TestReveal:
    @pytest.fixture
    def looks(self, run: Run) -> Sequence[list[str]]:
        """Every command that shows a job."""
        id_ = sent(run, to=phone(42))
        return [["job", id_], ["jobs"], ["jobs", "--number", phone(42)], ["wait", id_]]

    def test_masked_unless_it_is_asked_for(self, run: Run, looks: Sequence[list[str]]) -> None:
        for arguments in [*looks, ["events"]]:
            for options in ([], ["--json"]):
                shown = run(*arguments, *options)
                assert shown.code == 0
                assert "42" in shown.out, "the last two digits"
                assert phone(42)[1:] not in shown.out
                assert TEXT not in shown.out

    def test_shown_where_it_is(self, run: Run, looks: Sequence[list[str]]) -> None:
        for arguments in looks:
            assert phone(42) in run(*arguments, "--reveal").out
            document = run(*arguments, "--reveal", "--json").document
            assert (document["to"], document["text"]) == (phone(42), TEXT)
        sending = ["send", phone(43), TEXT, "--provider", "textgoto", "--reveal"]
        assert phone(43) in run(*sending).out
        assert run(*sending, "--wait", "--json").document["text"] == TEXT
        until(lambda: "queued" not in run("jobs", "--number", phone(43)).out)
