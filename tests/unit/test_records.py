"""What is written of a job is read back whole; what is shown of it is masked unless the caller says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import records
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import (
    Category,
    Entry,
    Job,
    Kind,
    Lane,
    Lookup,
    Operation,
    Request,
    Send,
    Terms,
    Try,
    Verification,
    Verify,
    Waiting,
)
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.privacy import Sealer
from dispatcher.states import State
from tests.unit.support import NUMBER, TEXT, Bench, leaks, record

NOW = 1_800_000_000_000
SEALER = Sealer(["one"])
SEND = Send(to=NUMBER, text=TEXT, sender="ACME", options={"time": "2026-11-30 09:00:00"})


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def stored(
    request: Request = SEND,
    terms: Terms | None = None,
    *,
    operation: str = "send",
    sealer: Sealer = SEALER,
    **fields: Any,
) -> dict[bytes, bytes]:
    """A record as it lies in Redis; `fields` are laid over those of a job just created."""
    usual: dict[str, bytes] = {
        "d": records.encode_public(request, terms or Terms(), operation, sandbox=False),
        "x": sealer.seal(records.encode_request(request), "0001"),
        "p": b"textgoto", "s": b"queued", "n": b"1", "h": b"1800000000000 queued textgoto created",
    }  # fmt: skip
    return {name.encode(): value for name, value in (usual | fields).items() if value is not None}


def read(fields: dict[bytes, bytes], *, sealer: Sealer = SEALER, reveal: bool = False, now: int = NOW) -> Job:
    return records.job("0001", fields, sealer, now, reveal=reveal)


# -- round trip --------------------------------------------------------------------------------------------------------

REQUESTS = [
    pytest.param(SEND, "send", Kind.SEND, id="send"),
    pytest.param(Verify(to=NUMBER, template="Code [CODE]", sender="ACME"), "verify", Kind.VERIFY, id="verify"),
    pytest.param(Lookup(to=NUMBER), "lookup", Kind.LOOKUP, id="lookup"),
    pytest.param(Operation(arguments={"number": NUMBER, "list": "x"}), "list.append", Kind.OPERATION, id="operation"),
    pytest.param(Operation(), "balance", Kind.OPERATION, id="operation without arguments"),
]


@pytest.mark.parametrize(("request_", "operation", "kind"), REQUESTS)
@pytest.mark.parametrize("sealer", [SEALER, Sealer([])], ids=["sealed", "in clear"])
def test_a_worker_reads_what_was_asked_for(request_: Request, operation: str, kind: Kind, sealer: Sealer) -> None:
    terms = Terms(category=Category.OTP, lane=Lane.HIGH, code_ttl=300)
    fields = stored(request_, terms, operation=operation, sealer=sealer)
    raw = [b"0001", fields[b"d"], fields[b"x"], b"textgoto", b"1", b"2", b"1800000600000", b"1800000000000"]
    work = records.work([*raw, b"", b"", b"", b""], sealer)
    assert work.request == request_
    assert (work.id, work.provider, work.kind, work.operation) == ("0001", "textgoto", kind, operation)
    assert (work.category, work.lane, work.code_ttl) == (Category.OTP, Lane.HIGH, 300)
    assert (work.attempts, work.created_at, work.expires_at) == (2, NOW, NOW + 600_000)


def test_what_a_worker_is_not_told_is_as_usual() -> None:
    fields = stored()
    work = records.work([b"0001", fields[b"d"], fields[b"x"], b"p", b"", b"0", b"", b"1", b"", b"", b"", b""], SEALER)
    assert (work.category, work.lane, work.code_ttl) == (Category.TRANSACTIONAL, Lane.NORMAL, None)
    assert (work.attempts, work.expires_at) == (0, None)


def test_what_the_scripts_hand_over_is_what_was_created(bench: Bench) -> None:
    """The record, through Redis and back, as the worker has it."""
    private = bench.settings.sealer().seal(records.encode_request(SEND), "0001")
    public = records.encode_public(SEND, Terms(category=Category.PROMOTIONAL), "send", sandbox=False)
    bench.create("0001", high=True, public=public, private=private, valid_for=600_000)
    (raw,) = bench.take("0001").records
    work = records.work(raw, bench.settings.sealer())
    assert (work.request, work.category, work.lane) == (SEND, Category.PROMOTIONAL, Lane.HIGH)
    assert (work.created_at, work.expires_at) == (bench.clock.ms, bench.clock.ms + 600_000)


@given(
    st.text(min_size=1).filter(lambda text: text.strip() != ""),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), max_size=5),
)
def test_any_text_and_metadata_come_back(text: str, metadata: dict[str, Any]) -> None:
    fields = stored(Send(to=NUMBER, text=text), Terms(metadata=metadata))
    told = read(fields, reveal=True)
    assert (told.text, told.metadata) == (text, metadata)


def test_terms_come_back_in_the_document() -> None:
    terms = Terms(
        category=Category.PROMOTIONAL, reference="order-17", metadata={"crm": [4]}, tenant="shop-a", send_at=NOW
    )
    told = read(stored(terms=terms))
    assert (told.category, told.reference, told.metadata, told.tenant) == (
        Category.PROMOTIONAL, "order-17", {"crm": [4]}, "shop-a",
    )  # fmt: skip


# -- the document ------------------------------------------------------------------------------------------------------


def test_a_new_job_says_that_it_waits_for_a_worker() -> None:
    told = read(stored())
    assert (told.state, told.final, told.seq, told.attempts) == (State.QUEUED, False, 1, 0)
    assert told.waiting == Waiting("worker", None)
    assert told.history == [Entry(State.QUEUED, at(NOW), "textgoto", "created")]
    assert (told.tries, told.failure, told.receipt, told.result, told.verification) == ([], None, None, None, None)
    assert (told.created_at, told.updated_at, told.expires_at) == (at(NOW), at(NOW), None)


@pytest.mark.parametrize(
    ("field", "value", "attribute", "expected"),
    [
        ("w", b"limit 1800000009000", "waiting", Waiting("limit", at(NOW + 9000))),
        ("w", b"worker 0", "waiting", Waiting("worker", None)),
        ("z", b"1800000600000", "expires_at", at(NOW + 600_000)),
        ("b", b"batch-7", "batch_id", "batch-7"),
        ("a", b"3", "attempts", 3),
        ("c", b"0.0055 USD", "price", "0.0055 USD"),
        ("m", b"10011", "provider_ref", "10011"),
        ("y", b"none", "receipt", "none"),
        (
            "e",
            b'{"kind":"rejected","code":"x","message":"no"}',
            "failure",
            Failure(kind=FailureKind.REJECTED, code="x", message="no"),
        ),
        ("t", b"1800000000000 textgoto accepted 7", "tries", [Try("textgoto", "7", "accepted", at(NOW))]),
    ],
    ids=["waiting", "no time", "expires", "batch", "attempts", "price", "reference", "receipt", "failure", "try"],
)
def test_each_field_of_a_record_is_told(field: str, value: Any, attribute: str, expected: object) -> None:
    assert getattr(read(stored(**{field: value})), attribute) == expected


def test_the_history_is_told_line_by_line_with_the_providers_words() -> None:
    lines = [
        "1800000000000 queued textgoto created",
        "1800000001000 sending textgoto attempt 1",
        "1800000002000 queued textgoto not_sent SITE_UNAVAILABLE: TextGoto answered SITE_UNAVAILABLE",
    ]
    told = read(stored(h="\n".join(lines).encode(), n=b"3", t=b"1800000002000 textgoto not_sent "))
    assert [(entry.state, entry.detail) for entry in told.history] == [
        (State.QUEUED, "created"),
        (State.SENDING, "attempt 1"),
        (State.QUEUED, "not_sent SITE_UNAVAILABLE: TextGoto answered SITE_UNAVAILABLE"),
    ]
    assert (told.seq, told.updated_at) == (3, at(NOW + 2000))
    assert told.tries == [Try("textgoto", "", "not_sent", at(NOW + 2000))]


def test_a_sent_job_waits_for_its_receipt_where_it_goes_on_without() -> None:
    sent = stored(s=b"sent", h=b"1800000000000 sent textgoto accepted", w=b"receipt 1800000060000")
    waiting = read(sent).waiting
    assert waiting is not None
    assert waiting.reason == "receipt"
    assert not read(sent).settled


def test_only_a_queued_job_waits_for_other_things() -> None:
    sent = stored(s=b"sent", h=b"1800000000000 sent textgoto accepted", w=b"limit 0")
    assert read(sent).waiting is None


@pytest.mark.parametrize(
    ("request_", "operation", "segments"),
    [
        (Send(to=NUMBER, text="a" * 161), "send", 2),
        # 6 digits for the 6 characters of [CODE]: 160 fit into one part, 161 take two.
        (Verify(to=NUMBER, template="[CODE]" + "a" * 154), "verify", 1),
        (Verify(to=NUMBER, template="[CODE]" + "a" * 155), "verify", 2),
        # [ and ] take two septets each in GSM-7, the digits that stand there when it is sent do not.
        (Verify(to=NUMBER, template="[CODE]" * 26), "verify", 1),
        (Lookup(to=NUMBER), "lookup", None),
        (Operation(), "balance", None),
    ],
    ids=["two parts", "a code in one part", "a code in two", "26 codes", "lookup", "operation"],
)
def test_segments_are_counted_when_it_is_written(request_: Request, operation: str, segments: int | None) -> None:
    assert read(stored(request_, operation=operation)).segments == segments


# -- masking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reveal", [False, True], ids=["masked", "revealed"])
@pytest.mark.parametrize(("request_", "operation", "kind"), REQUESTS[:4])
def test_number_and_text_are_masked_unless_the_caller_says_otherwise(
    request_: Request, operation: str, kind: Kind, reveal: bool
) -> None:
    told = read(stored(request_, operation=operation), reveal=reveal)
    shown = msgspec.json.encode(told.to_dict()).decode()
    assert told.kind == kind
    assert told.to == (NUMBER if reveal else "+44********23")
    assert (NUMBER in shown) == reveal
    if not reveal:
        assert not leaks(shown, NUMBER, TEXT, "Code [CODE]")


def test_a_sender_that_is_a_number_is_masked_too() -> None:
    fields = stored(Send(to=NUMBER, text=TEXT, sender="447700900999"))
    assert read(fields).sender == "***99"
    assert read(fields, reveal=True).sender == "447700900999"


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        pytest.param({"number": "447123456789"}, {"number": "***89"}, id="a number"),
        pytest.param({"a": [{"b": ["+44 7123 456789"]}]}, {"a": [{"b": ["***89"]}]}, id="however deep"),
        pytest.param({"balance": "21.461"}, {"balance": "21.461"}, id="money"),
        pytest.param({"ported": False, "n": 3, "x": None}, {"ported": False, "n": 3, "x": None}, id="no texts"),
        pytest.param({"orig_network": "T-Mobile UK"}, {"orig_network": "T-Mobile UK"}, id="words"),
    ],
)
def test_numbers_in_a_result_are_masked_unless_revealed(result: dict[str, Any], shown: dict[str, Any]) -> None:
    fields = stored(Lookup(to=NUMBER), operation="lookup", r=SEALER.seal(msgspec.json.encode(result), "0001"))
    assert read(fields).result == shown
    assert read(fields, reveal=True).result == result


@pytest.mark.parametrize(
    "result",
    [{"number": 447123456789}, {"447123456789": "known"}],
    ids=["a number without quotes", "a number for a key"],
)
def test_a_number_is_masked_wherever_a_vendor_puts_it(result: dict[str, Any]) -> None:
    fields = stored(Lookup(to=NUMBER), operation="lookup", r=SEALER.seal(msgspec.json.encode(result), "0001"))
    assert not leaks(repr(read(fields).result), "447123456789")
    assert read(fields, reveal=True).result == result


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        pytest.param("X", "no phone 447700900123 here", "no phone ***23 here", id="a number"),
        pytest.param("X", "w" * 500, "w" * 300, id="a book"),
        pytest.param("X", "line\nbreak", "line break", id="a line break"),
        pytest.param("X", "", "", id="no words"),
    ],
)
def test_a_failure_keeps_the_vendors_words_without_numbers(code: str, message: str, words: str) -> None:
    kept = records.encode_failure(Failure(kind=FailureKind.INVALID, code=code, message=message))
    assert read(stored(e=kept)).failure == Failure(kind=FailureKind.INVALID, code="X", message=words)


def test_a_vendors_code_with_a_number_in_it_is_masked_too() -> None:
    kept = records.encode_failure(Failure(kind=FailureKind.INVALID, code="BAD 447700900123"))
    assert not leaks(kept.decode(), NUMBER)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("two\nlines\r\n of  words", "two lines of words"),
        ("to 447700900123", "to ***23"),
        ("w" * 500, "w" * 300),
        ("\x85\u2028x", "x"),
        ("", ""),
    ],
    ids=["line breaks", "a number", "a book", "other line breaks", "nothing"],
)
def test_a_line_of_the_history_is_one_short_masked_line(words: str, line: str) -> None:
    """The history is kept as lines: a break in a vendor's words would make a line of nobody's."""
    assert records.line(words) == line


@given(st.text())
def test_no_words_at_all_can_break_a_history(words: str) -> None:
    line = records.line(words)
    history = f"1800000000000 queued textgoto {line}\n1800000000001 sent textgoto ok".encode(errors="ignore")
    assert [entry.state for entry in read(stored(h=history)).history] == [State.QUEUED, State.SENT]


# -- another key -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealer", [Sealer(["another"]), Sealer([])], ids=["another key", "no key"])
@pytest.mark.parametrize("reveal", [False, True], ids=["masked", "revealed"])
def test_of_a_job_sealed_with_a_key_not_ours_all_is_told_but_what_is_private(sealer: Sealer, reveal: bool) -> None:
    """So a rotation that forgot a key hides texts, and does not take listings and events with it."""
    result = SEALER.seal(b'{"number":"447123456789"}', "0001")
    fields = stored(
        terms=Terms(reference="order-17"), s=b"completed", h=b"1800000000000 completed textgoto a", r=result
    )
    told = read(fields, sealer=sealer, reveal=reveal)
    assert (told.state, told.reference, told.provider) == (State.COMPLETED, "order-17", "textgoto")
    assert (told.to, told.sender, told.text, told.result) == ("", "", "", None)


@pytest.mark.parametrize("sealer", [Sealer(["another"]), Sealer([])], ids=["another key", "no key"])
def test_a_worker_does_not_guess_at_what_it_cannot_open(sealer: Sealer) -> None:
    fields = stored()
    with pytest.raises(ConfigurationError, match="DISPATCHER_SECRET_KEY"):
        records.work([b"0001", fields[b"d"], fields[b"x"], b"p", b"", b"0", b"", b"1", b"", b"", b""], sealer)


@pytest.mark.parametrize(
    ("public", "private"),
    [
        pytest.param(b"{", b"{}", id="public part cut"),
        pytest.param(b'{"kind":"send","operation":"send"}', b'{"kind":"send"}', id="no number, no text"),
        pytest.param(b'{"kind":"send","operation":"send"}', b'{"kind":"gift","to":"x"}', id="a kind of the future"),
        pytest.param(b'{"kind":"gift","operation":"send"}', b"{}", id="another kind of the future"),
        pytest.param(b'{"kind":"send","operation":"send"}', b'{"kind":"send","to":"+1","text":"a"}', id="no number"),
        pytest.param(b'{"kind":"send","operation":"send"}', b"\xff", id="no JSON"),
    ],
)
def test_a_record_that_cannot_be_read_says_so_in_one_way(public: bytes, private: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        records.work([b"0001", public, private, b"p", b"", b"0", b"", b"1", b"", b"", b"", b""], SEALER)


# -- verification ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "state", "expires_in", "told"),
    [
        pytest.param("pending", "queued", 1, "pending", id="not sent yet"),
        pytest.param("pending", "sent", 1, "pending", id="sent"),
        pytest.param("pending", "unknown", 1, "pending", id="perhaps sent"),
        pytest.param("pending", "sent", 0, "expired", id="its time is over"),
        pytest.param("pending", "unknown", 0, "expired", id="its time is over, if it was sent"),
        pytest.param("pending", "queued", -9, "pending", id="still to be sent, with all its life before it"),
        pytest.param("pending", "sending", -9, "pending", id="being sent, with all its life before it"),
        pytest.param("pending", "expired", 1, "expired", id="not sent in time"),
        pytest.param("pending", "failed", 1, "cancelled", id="never sent"),
        pytest.param("pending", "cancelled", 1, "cancelled", id="taken back"),
        pytest.param("approved", "sent", -9, "approved", id="approved stays approved"),
        pytest.param("max_attempts_reached", "sent", -9, "max_attempts_reached", id="guessed at"),
    ],
)
def test_a_verification_has_a_status_of_its_own(status: str, state: str, expires_in: int, told: str) -> None:
    """`expires_in` is in milliseconds from now."""
    history = f"1800000000000 {state} textgoto x".encode()
    fields = stored(s=state.encode(), h=history, vs=status.encode(), ve=str(NOW + expires_in).encode())
    assert read(fields).verification == Verification(told, at(NOW + expires_in))


# -- fingerprints ------------------------------------------------------------------------------------------------------


def canonical(
    request: Request = SEND, terms: Terms | None = None, provider: str = "textgoto", operation: str = "send"
) -> str:
    return records.canonical(provider, operation, request, terms or Terms())


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda: canonical(Send(to=NUMBER, text="Another")), id="another text"),
        pytest.param(lambda: canonical(terms=Terms(reference="x")), id="another reference"),
        pytest.param(lambda: canonical(terms=Terms(category=Category.OTP)), id="another category"),
        pytest.param(lambda: canonical(terms=Terms(send_at=NOW)), id="another time"),
        pytest.param(lambda: canonical(provider="other"), id="another provider"),
        pytest.param(lambda: canonical(operation="other"), id="another operation"),
    ],
)
def test_another_request_is_written_differently(other: Any) -> None:
    assert other() != canonical()


def test_equal_requests_are_written_equally_in_whichever_order_they_were_given() -> None:
    assert canonical() == canonical(Send(**msgspec.structs.asdict(SEND)))
    one, other = {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}
    assert one == other
    assert canonical(terms=Terms(metadata=one)) == canonical(terms=Terms(metadata=other))
    assert canonical(Operation(arguments=one)) == canonical(Operation(arguments=other))


# -- in clear ----------------------------------------------------------------------------------------------------------


def test_the_public_part_holds_nothing_private_and_nothing_usual() -> None:
    public = records.encode_public(SEND, Terms(), "send", sandbox=False)
    assert not leaks(public.decode(), NUMBER, TEXT, "ACME")
    assert msgspec.json.decode(public) == {"kind": "send", "operation": "send", "segments": 1, "country": "GB"}


def test_the_sandboxs_jobs_are_marked() -> None:
    public = records.encode_public(SEND, Terms(), "send", sandbox=True)
    assert read(stored(d=public)).sandbox is True
    assert read(stored()).sandbox is False


def test_a_record_shows_nothing_of_the_person() -> None:
    """Without a key the private part is in clear, and a record may be in a traceback."""
    assert not leaks(repr(record("0001")), NUMBER, TEXT)


def test_of_a_url_in_a_result_only_the_host_is_shown_and_ids_stay_whole() -> None:
    """What follows the host may be a callback's secret token; an id is what people ask the vendor about."""
    url = "https://callbacks.example.com/clubtexting/s3cret-token"
    shown = records.masked(
        {"id": "177107072", "forward_url": url, "rows": [{"message_id": "447700900123", "to": NUMBER}]}
    )
    assert shown == {
        "id": "177107072",
        "forward_url": "https://callbacks.example.com/***",
        "rows": [{"message_id": "447700900123", "to": "***23"}],
    }
    assert records.masked({"id": NUMBER}) == {"id": "***23"}
