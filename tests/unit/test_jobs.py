"""What is asked for is checked where it is built; what is told of a job is its document, private words masked."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import DispatcherError, InvalidNumber, InvalidRequest
from dispatcher.jobs import (
    Category,
    Entry,
    Job,
    Kind,
    Lane,
    Lookup,
    Message,
    Operation,
    Send,
    Terms,
    Try,
    Verification,
    Verify,
    Waiting,
    Work,
    milliseconds,
    moment,
    new_id,
    new_ids,
)
from dispatcher.outcomes import Accepted, Failure, FailureKind
from dispatcher.states import State
from tests.unit.support import NUMBER, TEXT, leaks

CODE_TEXT = "Your code is [CODE]"
HALF = "\ud83d"  # the first half of a surrogate pair

#: A number too long for Britain, that must not be read back from an error.
WRONG = "+4477009001234"


def send(**fields: Any) -> Send:
    return Send(**{"to": NUMBER, "text": TEXT} | fields)


def verify(**fields: Any) -> Verify:
    return Verify(**{"to": NUMBER, "template": CODE_TEXT} | fields)


# -- what is refused ---------------------------------------------------------------------------------------------------
# Each bad input names its field, says the way out, and shows nothing private.


@pytest.mark.parametrize(
    ("build", "field", "way_out"),
    [
        pytest.param(lambda: send(to=WRONG), "to", "write it in international form", id="impossible number"),
        pytest.param(lambda: send(to=""), "to", "write it in international form", id="no number"),
        pytest.param(lambda: send(to=None), "to", "must be text, not NoneType", id="None for a number"),
        pytest.param(lambda: send(to=447700900123), "to", "must be text, not int", id="an int for a number"),
        pytest.param(lambda: send(to=[NUMBER]), "to", "must be text, not list", id="a list for a number"),
        pytest.param(lambda: verify(to=WRONG), "to", "write it in international form", id="verify a wrong number"),
        pytest.param(lambda: Lookup(to=WRONG), "to", "write it in international form", id="look up a wrong number"),
        pytest.param(lambda: send(text=""), "text", "there is nothing to send", id="empty text"),
        pytest.param(lambda: send(text=" \n\t"), "text", "there is nothing to send", id="blank text"),
        pytest.param(lambda: send(text=None), "text", "must be text, not NoneType", id="None for a text"),
        pytest.param(lambda: send(text=b"Hi"), "text", "must be text, not bytes", id="bytes for a text"),
        pytest.param(lambda: send(text="a" * 10_001), "text", "at most 10000 are taken", id="endless text"),
        pytest.param(lambda: send(text=HALF), "text", "decode it anew", id="half of a character"),
        pytest.param(lambda: send(sender="A" * 21), "sender", "at most 20 printable characters", id="long sender"),
        pytest.param(lambda: send(sender="AC\nME"), "sender", "printable characters", id="line break in a sender"),
        pytest.param(lambda: send(sender=HALF), "sender", "printable characters", id="half of a sender"),
        pytest.param(lambda: send(sender=None), "sender", "printable characters", id="None for a sender"),
        pytest.param(lambda: send(options=[1]), "options", "must be a dict", id="a list of options"),
        pytest.param(lambda: send(options={1: 2}), "options", "with text keys", id="an option named by a number"),
        pytest.param(lambda: send(options={"a": object()}), "options", "use text, numbers", id="no JSON in options"),
        pytest.param(lambda: send(options={"a": HALF}), "options", "use text, numbers", id="half in an option"),
        pytest.param(lambda: verify(template=""), "template", "there is nothing to send", id="empty template"),
        pytest.param(lambda: verify(template="Hi"), "template", "'Your code is [CODE]'", id="no place for a code"),
        pytest.param(lambda: verify(template="[code]"), "template", "[CODE]", id="the place in small letters"),
        pytest.param(lambda: verify(sender="A" * 21), "sender", "at most 20", id="long sender of a code"),
        pytest.param(lambda: verify(options=3), "options", "must be a dict", id="a number of options"),
        pytest.param(lambda: Operation(arguments="x"), "arguments", "must be a dict", id="arguments as text"),  # type: ignore[arg-type]
        pytest.param(lambda: Operation(arguments={"a": {1, 2}.pop}), "arguments", "use text", id="a function"),
        pytest.param(lambda: Terms(reference="r" * 256), "reference", "at most 255", id="long reference"),
        pytest.param(lambda: Terms(reference=17), "reference", "must be text", id="a number for a reference"),  # type: ignore[arg-type]
        pytest.param(lambda: Terms(reference=HALF), "reference", "decode it anew", id="half a reference"),
        pytest.param(lambda: Terms(tenant="t" * 256), "tenant", "at most 255", id="long tenant"),
        pytest.param(lambda: Terms(metadata=[]), "metadata", "must be a dict", id="a list of metadata"),  # type: ignore[arg-type]
        pytest.param(lambda: Terms(metadata={"a": "b" * 4096}), "metadata", "keep a key here", id="a book of metadata"),
        pytest.param(lambda: Terms(valid_for=0), "valid_for", "between 0 and", id="valid for no time"),
        pytest.param(lambda: Terms(valid_for=-1), "valid_for", "between 0 and", id="valid until yesterday"),
        pytest.param(lambda: Terms(valid_for=31 * 86400), "valid_for", "2592000 seconds", id="valid for ever"),
        pytest.param(lambda: Terms(valid_for=float("nan")), "valid_for", "between 0 and", id="valid for nan"),
        pytest.param(lambda: Terms(valid_for=float("inf")), "valid_for", "between 0 and", id="valid for inf"),
        pytest.param(lambda: Terms(valid_for=True), "valid_for", "between 0 and", id="valid for True"),
        pytest.param(lambda: Terms(valid_for="600"), "valid_for", "between 0 and", id="valid for a text"),  # type: ignore[arg-type]
        pytest.param(lambda: Terms(code_ttl=0), "code_ttl", "between 0 and", id="a code without a life"),
        pytest.param(lambda: Terms(code_ttl=86401), "code_ttl", "86400 seconds", id="a code for days"),
    ],
)
def test_the_field_is_named_and_the_way_out(build: Callable[[], object], field: str, way_out: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        build()
    assert refused.value.field == field
    assert way_out in refused.value.reason
    assert str(refused.value).startswith(field)
    assert not leaks(str(refused.value), WRONG, TEXT)


def test_a_fraction_of_a_second_is_no_life_of_a_code() -> None:
    """The record says whole seconds, so what is none is refused before it is stored and cannot be read again."""
    with pytest.raises(InvalidRequest, match="code_ttl"):
        Terms(code_ttl=90.5)  # type: ignore[arg-type]


def test_an_impossible_number_is_masked_to_its_ends() -> None:
    with pytest.raises(InvalidNumber) as refused:
        send(to=WRONG)
    assert refused.value.value == "+44*********34"


def test_what_is_refused_is_an_error_of_ours_and_a_value_error() -> None:
    with pytest.raises(DispatcherError):
        send(text="")
    with pytest.raises(ValueError, match="text"):
        send(text="")


def test_of_many_messages_the_one_at_fault_is_named() -> None:
    with pytest.raises(InvalidRequest) as refused:
        send(to=WRONG)
    moved = refused.value.at("messages[3]")
    assert type(moved) is InvalidNumber
    assert (moved.field, moved.value, moved.reason) == (
        "messages[3].to", refused.value.value, refused.value.reason,
    )  # fmt: skip


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [send, verify, lambda to: Lookup(to=to)], ids=["send", "verify", "lookup"])
@pytest.mark.parametrize(
    "written", ["+44 7700 900123", "447700900123", "0044 7700 900123", "+44 (0)7700-900123", "+٤٤٧٧٠٠٩٠٠١٢٣"]
)
def test_a_number_becomes_e164(build: Callable[..., Any], written: str) -> None:
    assert build(to=written).to == NUMBER


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: send(text="a" * 10_000), id="the longest text"),
        pytest.param(lambda: send(text="\u202e🙂\x00\n"), id="any character at all"),
        pytest.param(lambda: send(sender="ACME Ltd. 24/7 Ω", options={"time": [1, None, {"a": 1.5}]}), id="options"),
        pytest.param(lambda: verify(template="[CODE][CODE]"), id="the code twice"),
        pytest.param(lambda: Operation(arguments={}), id="no arguments"),
        pytest.param(lambda: Terms(reference="r" * 255, tenant="t" * 255), id="the longest labels"),
        pytest.param(lambda: Terms(metadata={"a": "b" * 4000}), id="4 kB of metadata"),
        pytest.param(lambda: Terms(valid_for=0.001, code_ttl=86400), id="the shortest and the longest life"),
        pytest.param(lambda: Terms(valid_for=30 * 86400), id="valid for a month"),
    ],
)
def test_what_is_just_possible_is_taken(build: Callable[[], object]) -> None:
    assert build() == build()


@pytest.mark.parametrize(
    ("made", "field"),
    [
        (send(), "text"), (verify(), "template"), (Lookup(to=NUMBER), "to"), (Operation(), "arguments"),
        (Terms(), "tenant"), (Message(NUMBER, TEXT), "text"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_what_is_built_stays_as_it_is(made: object, field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(made, field, "another")


@pytest.mark.parametrize(
    "made", [send(sender="ACME", options={"time": "now"}), verify(), Lookup(to=NUMBER), Operation(arguments={"a": 1})]
)
def test_a_request_survives_being_stored(made: Any) -> None:
    read: Any = msgspec.json.decode(msgspec.json.encode(made), type=Send | Verify | Lookup | Operation)
    assert read == made


# -- reprs -------------------------------------------------------------------------------------------------------------
# No repr shows a number, a text, a code or an argument: they end up in logs and tracebacks.


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(send(sender="ACME", options={"note": "canary"}), id="Send"),
        pytest.param(verify(template="canary [CODE]"), id="Verify"),
        pytest.param(Lookup(to=NUMBER), id="Lookup"),
        pytest.param(Operation(arguments={"number": NUMBER, "card": "canary"}), id="Operation"),
        pytest.param(Message(NUMBER, TEXT, sender="canary"), id="Message"),
        pytest.param(Work(id="1", provider="p", kind=Kind.SEND, operation="send", request=send()), id="Work"),
        pytest.param(Accepted(ref="", code="canary"), id="Accepted"),
    ],
)
def test_nothing_of_the_person_is_shown(made: object) -> None:
    assert not leaks(repr(made), NUMBER, TEXT, "canary")
    assert not leaks(str([made]), NUMBER, TEXT, "canary")
    assert type(made).__name__ in repr(made)


def test_a_job_shows_what_finds_it() -> None:
    shown = repr(job(to=NUMBER, text=TEXT, sender="canary", result={"code": "canary"}))
    assert shown == "Job(0001 send textgoto sent)"


# -- ids ---------------------------------------------------------------------------------------------------------------


def test_an_id_is_26_lower_case_characters() -> None:
    made = new_id()
    assert len(made) == 26
    assert made.isalnum()
    assert made == made.lower()


def test_ids_sort_by_the_millisecond_they_were_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also over the boundaries of a byte, of 32 bits and of the year 2100."""
    ids = []
    for ms in (1, 255, 256, 2**32 - 1, 2**32, 1_800_000_000_000, 1_800_000_000_001, 4_200_000_000_000):
        monkeypatch.setattr("dispatcher.jobs.time.time_ns", lambda ms=ms: ms * 1_000_000)
        ids.append(new_id())
    assert ids == sorted(ids)


def test_ten_thousand_ids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.jobs.time.time_ns", lambda: 1_800_000_000_000_000_000)
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_many_ids_of_one_moment_differ_and_begin_alike() -> None:
    before, made, after = new_id(), new_ids(1000), new_id()
    assert len({*made, before, after}) == 1002
    assert before[:10] <= made[0][:10] == made[-1][:10] <= after[:10]
    assert {len(one) for one in made} == {26}


# -- moments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "ms"),
    [
        pytest.param(None, None, id="none"),
        pytest.param(1_800_000_000, 1_800_000_000_000, id="seconds"),
        pytest.param(1_800_000_000.25, 1_800_000_000_250, id="fractions of seconds"),
        pytest.param(datetime(2027, 1, 15, 8, tzinfo=UTC), 1_800_000_000_000, id="UTC"),
        pytest.param(
            datetime(2027, 1, 15, 9, tzinfo=timezone(timedelta(hours=1))), 1_800_000_000_000, id="an hour east"
        ),
    ],
)
def test_a_moment_is_kept_in_milliseconds(given_: Any, ms: int | None) -> None:
    assert milliseconds("send_at", given_) == ms


@pytest.mark.parametrize(
    ("given_", "way_out"),
    [
        pytest.param(datetime(2027, 1, 15, 8), "give an aware datetime", id="no zone"),  # noqa: DTZ001
        pytest.param("2027-01-15", "must be an aware datetime or seconds", id="text"),
        pytest.param(True, "must be an aware datetime or seconds", id="True"),
        pytest.param(float("nan"), "must be", id="nan"),
        pytest.param(float("inf"), "must be", id="never"),
        pytest.param(time.time() * 1000, "must be", id="milliseconds for seconds: the year 58000"),
    ],
)
def test_what_is_no_moment_is_refused(given_: Any, way_out: str) -> None:
    """Before it is stored: a moment that no datetime can hold could not be read again."""
    with pytest.raises(InvalidRequest, match="send_at") as refused:
        milliseconds("send_at", given_)
    assert way_out in refused.value.reason


@given(st.integers(0, 1_800_000_000_000))
def test_what_is_read_back_is_what_was_given(ms: int) -> None:
    assert milliseconds("send_at", moment(ms)) == ms


def test_a_stored_moment_is_read_from_bytes_in_utc() -> None:
    assert moment(b"1800000000250") == datetime(2027, 1, 15, 8, 0, 0, 250_000, tzinfo=UTC)


def at(second: int) -> datetime:
    return datetime(2027, 1, 15, 8, 0, second, tzinfo=UTC)


def job(**fields: Any) -> Job:
    """A send that was tried twice and taken at the second."""
    usual: dict[str, Any] = {
        "id": "0001", "kind": Kind.SEND, "operation": "send", "category": Category.TRANSACTIONAL,
        "provider": "textgoto", "state": State.SENT, "final": False, "seq": 5, "waiting": None, "receipt": "none",
        "attempts": 2, "to": "+44********23", "sender": "ACME", "text": "[19 characters]", "tenant": "",
        "reference": "", "metadata": {}, "batch_id": None, "redrive_of": None, "created_at": at(0),
        "updated_at": at(40), "expires_at": None, "segments": 1, "price": None, "provider_ref": None, "result": None,
        "verification": None, "possible_duplicate": False, "sandbox": False, "failure": None,
        "tries": [Try("textgoto", "", "not_sent", at(20)), Try("textgoto", "7", "accepted", at(40))],
        "history": [
            Entry(State.QUEUED, at(0), "textgoto", "created"),
            Entry(State.SENDING, at(10), "textgoto", "attempt 1"),
            Entry(State.QUEUED, at(20), "textgoto", "not_sent"),
            Entry(State.SENDING, at(30), "textgoto", "attempt 2"),
            Entry(State.SENT, at(40), "textgoto", "accepted"),
        ],
    }  # fmt: skip
    return Job(**usual | fields)


#: "Job as JSON", in the words of the public contract.
DOCUMENT = {
    "schema", "id", "kind", "operation", "category", "provider", "route", "state", "final", "seq", "waiting", "receipt",
    "attempts", "to", "sender", "text", "tenant", "reference", "metadata", "batch_id", "redrive_of", "resend_of",
    "created_at", "updated_at", "expires_at", "segments", "price", "provider_ref", "result", "verification",
    "possible_duplicate", "sandbox", "failure", "tries", "history",
}  # fmt: skip


# -- document ----------------------------------------------------------------------------------------------------------


def test_it_has_the_fields_of_the_contract_and_no_other() -> None:
    assert set(job().to_dict()) == DOCUMENT
    assert job().to_dict()["schema"] == 1


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (Waiting("limit", at(5)), {"for", "until"}),
        (Verification("pending", at(5)), {"status", "expires_at"}),
        (Failure(kind=FailureKind.INVALID, code="1", message="no"), {"kind", "code", "message", "permission"}),
        (Try("textgoto", "7", "accepted", at(5)), {"provider", "ref", "outcome", "at"}),
        (Entry(State.SENT, at(5), "textgoto", "accepted"), {"state", "at", "provider", "detail"}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, set) else "",
)
def test_its_parts_have_the_fields_of_the_contract_too(value: object, keys: set[str]) -> None:
    """A failure's `retry_after` is the workers' business, so a document leaves it out where there is none."""
    shown: dict[str, Any] = msgspec.to_builtins(value)
    assert {key for key in shown if shown[key] is not None} == keys


def test_times_are_rfc_3339_in_utc() -> None:
    shown = job(expires_at=datetime(2027, 1, 15, 8, 0, 0, 250_000, tzinfo=UTC)).to_dict()
    assert shown["created_at"] == "2027-01-15T08:00:00Z"
    assert shown["expires_at"] == "2027-01-15T08:00:00.250000Z"
    assert shown["history"][1] == {
        "state": "sending", "at": "2027-01-15T08:00:10Z", "provider": "textgoto", "detail": "attempt 1",
    }  # fmt: skip


def test_it_is_json_as_it_stands() -> None:
    told = job(metadata={"crm": [4, None]}, waiting=Waiting("time", at(9)), result={"ported": True})
    read: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told.to_dict()))
    assert read == told.to_dict()
    assert read["waiting"] == {"for": "time", "until": "2027-01-15T08:00:09Z"}
    assert (read["kind"], read["state"]) == ("send", "sent")


@pytest.mark.parametrize(
    ("state", "settled", "good"),
    [
        ("queued", False, False), ("sending", False, False), ("sent", True, True), ("unknown", True, False),
        ("delivered", True, True), ("undelivered", True, False), ("completed", True, True),
        ("failed", True, False), ("expired", True, False), ("cancelled", True, False),
    ],
)  # fmt: skip
def test_it_says_whether_it_ended_and_well(state: str, settled: bool, good: bool) -> None:
    told = job(state=State(state))
    assert (told.settled, told.good) == (settled, good)


# -- as of -------------------------------------------------------------------------------------------------------------
# An event carries its job as it stood then, though it is read later.


def test_it_is_what_the_history_tells() -> None:
    then = job(waiting=Waiting("limit", at(5))).as_of(3)
    assert (then.state, then.final, then.seq) == (State.QUEUED, False, 3)
    assert then.updated_at == at(20)
    assert [entry.detail for entry in then.history] == ["created", "attempt 1", "not_sent"]
    assert [one.outcome for one in then.tries] == ["not_sent"]
    assert then.waiting is None
    assert then.created_at == at(0)


def test_a_job_that_got_lost_and_was_found_delivered_was_no_good_then() -> None:
    history = [*job().history[:4], Entry(State.UNKNOWN, at(40), "textgoto", "lost")]
    history.append(Entry(State.DELIVERED, at(50), "textgoto", "receipt"))
    told = job(state=State.DELIVERED, final=True, seq=6, history=history)
    assert (told.as_of(5).state, told.as_of(5).final) == (State.UNKNOWN, False)
    assert (told.as_of(6).state, told.as_of(6).final) == (State.DELIVERED, True)


def test_a_failure_of_later_is_not_told_of_what_was_good_then() -> None:
    lost = Failure(kind=FailureKind.REJECTED, code="x", message="no such phone")
    history = [*job().history, Entry(State.UNDELIVERED, at(50), "textgoto", "receipt")]
    told = job(state=State.UNDELIVERED, final=True, seq=6, failure=lost, history=history)
    assert told.as_of(5).failure is None
    assert told.as_of(6).failure == lost


@pytest.mark.parametrize("seq", [5, 6, 1000, 0, -1])
def test_of_a_moment_that_is_not_in_the_history_it_tells_the_present(seq: int) -> None:
    assert job().as_of(seq) == job()


# -- work --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "to"),
    [
        (send(), NUMBER), (verify(), NUMBER), (Lookup(to=NUMBER), NUMBER),
        (Operation(arguments={"number": NUMBER}), NUMBER), (Operation(), ""), (Operation(arguments={"list": "x"}), ""),
    ],
    ids=["send", "verify", "lookup", "operation on a number", "operation", "operation on something else"],
)  # fmt: skip
def test_it_tells_whose_number_it_concerns(request_: Any, to: str) -> None:
    assert Work(id="1", provider="p", kind=Kind.SEND, operation="x", request=request_).to == to


def test_what_is_as_usual_takes_no_room_in_redis() -> None:
    """Every byte a job costs is paid a million times."""
    assert msgspec.json.encode(Terms(category=Category.TRANSACTIONAL, lane=Lane.NORMAL)) == b"{}"
    assert set(msgspec.json.decode(msgspec.json.encode(send()))) == {"kind", "to", "text"}
