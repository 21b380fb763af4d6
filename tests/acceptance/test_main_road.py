"""The main road: an application, a real worker, a provider that is played, and every way a job may end."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher import (
    Dispatcher,
    IdempotencyConflict,
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    Job,
    Message,
    State,
    UnknownProvider,
    Unsupported,
)
from tests.support import Deployment, accepted, phone, phones, taken_by_number, until

#: By the ending of the number: where the job ends, the kind of its failure, attempts, and texts that the phone got.
ENDS = {
    "ordinary": (1, State.SENT, None, 1, 1),
    "blocked": (100, State.FAILED, "opted_out", 1, 0),
    "invalid": (101, State.FAILED, "invalid", 1, 0),
    "refused without a reason": (102, State.FAILED, "invalid", 1, 0),
    "not sent the first time": (104, State.SENT, None, 2, 1),
    "nobody knows, not sent": (105, State.UNKNOWN, "ambiguous", 1, 0),
    "away the first time": (106, State.SENT, None, 2, 1),
    "nobody knows, sent": (108, State.UNKNOWN, "ambiguous", 1, 1),
    "hangs, sent": (110, State.UNKNOWN, "ambiguous", 1, 1),
    "reset, sent": (111, State.UNKNOWN, "ambiguous", 1, 1),
    "reset, not sent": (112, State.UNKNOWN, "ambiguous", 1, 0),
    "status 500, sent": (113, State.UNKNOWN, "ambiguous", 1, 1),
    "status 500, not sent": (114, State.UNKNOWN, "ambiguous", 1, 0),
    "half an answer": (115, State.UNKNOWN, "ambiguous", 1, 1),
    "garbage": (116, State.UNKNOWN, "ambiguous", 1, 1),
    "late": (117, State.SENT, None, 1, 1),
    "closed, sent": (118, State.UNKNOWN, "ambiguous", 1, 1),
    # Being asked to slow down is no attempt.
    "too fast the first time": (119, State.SENT, None, 1, 1),
    "hangs, not sent": (121, State.UNKNOWN, "ambiguous", 1, 0),
    "closed, not sent": (122, State.UNKNOWN, "ambiguous", 1, 0),
    "a page, sent": (125, State.UNKNOWN, "ambiguous", 1, 1),
}


def test_every_send_ends_as_the_provider_left_it(running: Deployment, dispatcher: Dispatcher) -> None:
    """Codes are retried soonest, so they are what is sent here; each travels alone."""
    jobs = {
        label: dispatcher.send(phone(ending), f"Hello {label}", provider="textgoto", category="otp")
        for label, (ending, *_) in ENDS.items()
    }
    ended = {label: dispatcher.wait(job.id, timeout=60) for label, job in jobs.items()}
    taken = taken_by_number(running.sandbox)

    def end(label: str, job: Job) -> tuple[int, State, str | None, int, int]:
        ending = ENDS[label][0]
        kind = None if job.failure is None else str(job.failure.kind)
        return ending, job.state, kind, job.attempts, taken.get(phone(ending), 0)

    assert {label: end(label, job) for label, job in ended.items()} == ENDS
    histories = [[entry.state for entry in ended[label].history] for label in ("ordinary", "not sent the first time")]
    assert histories == [
        ["queued", "sending", "sent"],
        ["queued", "sending", "queued", "sending", "sent"],
    ]
    assert [one.outcome for one in ended["away the first time"].tries] == ["not_sent", "accepted"]
    assert all(job.sandbox and job.provider == "textgoto" for job in ended.values())


def test_of_one_request_only_what_failed_is_tried_again(running: Deployment, dispatcher: Dispatcher) -> None:
    """Four recipients of one text are one request; one of them was not sent, one can never be."""
    recipients = [phone(1), phone(104), phone(101), phone(2)]
    batch = dispatcher.send_many([Message(one, "Hello") for one in recipients], provider="textgoto", category="otp")
    assert batch.wait() == {"sent": 3, "failed": 1}
    rows = running.sandbox.ledger()
    assert [len([row for row in rows if row.request == first]) for first in sorted({row.request for row in rows})] == [
        4,
        1,
    ]
    assert taken_by_number(running.sandbox) == {phone(1): 1, phone(104): 1, phone(2): 1}


class TestVerification:
    def start(self, running: Deployment, dispatcher: Dispatcher, number: str) -> tuple[Job, str]:
        """Return the verification, and the code as the person reads it."""
        job = dispatcher.verify(number, template="Your code is [CODE].", provider="textgoto")
        assert dispatcher.wait(job.id).state == State.SENT
        (message,) = running.sandbox.inbox(number)
        return job, message.text.removeprefix("Your code is ").removesuffix(".")

    def test_the_right_code_is_approved_once(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job, code = self.start(running, dispatcher, phone(1))
        wrong = f"{(int(code) + 1) % 1_000_000:06}"
        assert dispatcher.check(job.id, wrong) == dispatcher.check(job.id, "x") != dispatcher.check(job.id, code)
        after = dispatcher.get(job.id).verification
        assert after is not None
        assert after.status == "approved"
        again = dispatcher.check(job.id, code)
        assert (again.valid, again.status) == (False, "approved"), "a code is good once"
        types = [event.type for event in dispatcher.events("0", timeout=0)]
        assert types == ["job.sent", "verification.approved"]

    def test_a_code_may_begin_with_a_nought(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job, code = self.start(running, dispatcher, phone(109))
        assert code == "012837"
        assert not dispatcher.check(job.id, "12837").valid
        assert dispatcher.check(job.id, "012837").valid

    def test_the_sixth_try_is_refused_though_it_is_right(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job, code = self.start(running, dispatcher, phone(1))
        tries = [dispatcher.check(job.id, "x").status for _ in range(5)]
        assert tries == ["pending"] * 4 + ["max_attempts_reached"]
        assert not dispatcher.check(job.id, code).valid

    def test_a_code_dies_with_its_time(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job = dispatcher.verify(phone(109), provider="textgoto", code_ttl=3)
        dispatcher.wait(job.id)

        def status() -> bool:
            one = dispatcher.get(job.id).verification
            return one is not None and one.status == "expired"

        until(status)
        check = dispatcher.check(job.id, "012837")
        assert (check.valid, check.status) == (False, "expired")

    def test_a_number_that_gets_none_cancels_it(self, dispatcher: Dispatcher) -> None:
        job = dispatcher.verify(phone(101), provider="textgoto")
        assert dispatcher.wait(job.id).state == State.FAILED
        check = dispatcher.check(job.id, "000000")
        assert (check.valid, check.status) == (False, "cancelled")


class TestOperations:
    def test_a_lookup_finds(self, dispatcher: Dispatcher) -> None:
        job = dispatcher.wait(dispatcher.lookup(phone(132), provider="textgoto").id)
        assert job.state == State.COMPLETED
        result = dispatcher.get(job.id, reveal=True).result
        assert (result["number"], result["ported"], result["current_network"]["name"]) == (
            phone(132),
            True,
            "Sandbox Mobile",
        )
        assert phone(132)[1:] not in str(job.result), "masked unless it is revealed"

    def test_a_lookup_of_nobody_fails(self, dispatcher: Dispatcher) -> None:
        job = dispatcher.wait(dispatcher.lookup(phone(130), provider="textgoto").id)
        assert (job.state, job.failure and job.failure.kind) == (State.FAILED, "invalid")

    def test_the_balance_is_read(self, dispatcher: Dispatcher) -> None:
        job = dispatcher.wait(dispatcher.operation("textgoto", "balance").id)
        assert job.result == {"balance": "1000000.000", "available": "1000010.000", "currency": None}

    def test_who_is_stopped_gets_nothing_more(self, running: Deployment, dispatcher: Dispatcher) -> None:
        stop = dispatcher.operation("textgoto", "optout.add", number=phone(1))
        assert dispatcher.wait(stop.id).state == State.COMPLETED
        job = dispatcher.wait(dispatcher.send(phone(1), "Hello", provider="textgoto").id)
        assert (job.state, job.failure and job.failure.kind) == (State.FAILED, "opted_out")
        assert taken_by_number(running.sandbox) == {}

    def test_a_number_is_added_to_a_list(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job = dispatcher.operation("textgoto", "list.append", list="friends", number=phone(1))
        assert dispatcher.wait(job.id).state == State.COMPLETED
        (row,) = running.sandbox.ledger()
        assert (row.action, row.text, row.msisdn) == ("APPEND_LIST", "friends", phone(1)[1:])

    def test_what_the_vendor_has_not_is_refused_by_name(self, dispatcher: Dispatcher) -> None:
        with pytest.raises(Unsupported, match="no call for delivery reports"):
            dispatcher.operation("textgoto", "report")

    def test_an_account_without_money_waits_and_spends_no_attempt(self, dispatcher: Dispatcher) -> None:
        job = dispatcher.send(phone(1), "Hello", provider="broke")

        def waits() -> bool:
            waiting = dispatcher.get(job.id).waiting
            return waiting is not None and waiting.reason == "suspended"

        until(waits)
        job = dispatcher.get(job.id)
        assert (job.state, job.attempts) == (State.QUEUED, 0)
        assert [one.outcome for one in job.tries] == ["insufficient_funds"]


class TestBatch:
    def test_its_counts_add_up_at_every_look(self, running: Deployment, dispatcher: Dispatcher) -> None:
        running.sandbox.fault("latency", seconds=0.3)
        recipients = [*phones(496), phone(100), phone(101), phone(105), phone(104)]
        messages = [Message(one, f"Hello {n % 50}") for n, one in enumerate(recipients)]
        batch = dispatcher.send_many(messages, provider="textgoto", category="otp")
        looks: list[dict[str, int]] = []
        while not looks or not set(looks[-1]) <= {"sent", "failed", "unknown"}:
            looks.append(batch.counts)
        assert {sum(look.values()) for look in looks} == {500}
        assert {state for look in looks for state in look} == {"queued", "sending", "sent", "failed", "unknown"}
        assert batch.wait() == {"sent": 497, "failed": 2, "unknown": 1}
        assert len(batch.jobs) == 500
        assert [str(job.state) for job in batch.jobs[-4:]] == ["failed", "failed", "unknown", "sent"]

    def test_the_same_key_is_sent_once(self, running: Deployment, dispatcher: Dispatcher) -> None:
        first = dispatcher.send(phone(1), "Hello", provider="textgoto", idempotency_key="k")
        again = dispatcher.send(phone(1), "Hello", provider="textgoto", idempotency_key="k")
        assert again.id == first.id
        dispatcher.wait(first.id)
        later = dispatcher.send(phone(1), "Hello", provider="textgoto", idempotency_key="k")
        assert (later.id, later.state) == (first.id, State.SENT)
        with pytest.raises(IdempotencyConflict, match=first.id):
            dispatcher.send(phone(1), "Another", provider="textgoto", idempotency_key="k")
        assert taken_by_number(running.sandbox) == {phone(1): 1}


class TestEvents:
    def test_they_are_followed_from_a_cursor_without_gap_or_repetition(self, dispatcher: Dispatcher) -> None:
        batch = dispatcher.send_many([Message(one, "Hello") for one in phones(30)], provider="textgoto")
        batch.wait()
        everything = list(dispatcher.events("0", timeout=0))
        assert sorted(event.data["id"] for event in everything[:-1]) == sorted(batch.jobs.ids)
        assert {event.type for event in everything[:-1]} == {"job.sent"}
        assert (everything[-1].type, everything[-1].data) == ("batch.settled", batch.to_dict())

        follower = dispatcher.events("0", timeout=0)
        first = [next(follower) for _ in range(11)]
        rest = list(dispatcher.events(first[-1].cursor, timeout=0))
        assert [event.cursor for event in [*first, *rest]] == [event.cursor for event in everything]

    def test_news_come_to_whoever_waits(self, dispatcher: Dispatcher) -> None:
        last = [event.cursor for event in dispatcher.events("0", timeout=0)][-1:]
        job = dispatcher.send(phone(104), "Hello", provider="textgoto", category="otp")
        (event,) = [next(dispatcher.events(*last or ["0"], timeout=60))]
        assert (event.type, event.data["id"], event.data["state"]) == ("job.sent", job.id, "sent")
        assert event.data["seq"] == 5, "queued, sending, queued, sending, sent"


class TestTime:
    def test_a_scheduled_text_is_sent_at_its_time(self, running: Deployment, dispatcher: Dispatcher) -> None:
        at = datetime.now(UTC) + timedelta(seconds=3)
        job = dispatcher.send(phone(1), "Hello", provider="textgoto", send_at=at)
        assert job.waiting is not None
        assert (job.state, job.waiting.reason) == (State.QUEUED, "time")
        assert dispatcher.wait(job.id).state == State.SENT
        (row,) = accepted(running.sandbox.ledger())
        assert row.at >= at.timestamp()

    def test_a_cancelled_text_is_not_sent(self, running: Deployment, dispatcher: Dispatcher) -> None:
        soon = time.time() + 3
        job = dispatcher.send(phone(1), "Hello", provider="textgoto", send_at=soon)
        other = dispatcher.send(phone(2), "Hello", provider="textgoto", send_at=soon + 0.3)
        cancelled = dispatcher.cancel(job.id)
        assert (cancelled.state, cancelled.failure and cancelled.failure.code) == (State.CANCELLED, "cancelled")
        assert dispatcher.wait(other.id).state == State.SENT
        assert dispatcher.get(job.id).state == State.CANCELLED
        assert taken_by_number(running.sandbox) == {phone(2): 1}
        again = dispatcher.cancel(job.id)
        assert (again.state, again.seq) == (State.CANCELLED, cancelled.seq), "who lost the answer may ask again"
        with pytest.raises(IllegalMove, match="is sent and cannot become cancelled"):
            dispatcher.cancel(other.id)

    def test_what_nobody_served_in_time_expires(self, running: Deployment) -> None:
        """The account has no worker; any other worker's clock ends its jobs."""
        with running.client(providers={"unserved": {"adapter": "textgoto"}}) as dispatcher:
            job = dispatcher.send(phone(1), "Hello", provider="unserved", valid_for=0.5)
            ended = dispatcher.wait(job.id, until="final")
            assert (ended.state, ended.failure and ended.failure.kind) == (State.EXPIRED, "expired")
            assert ended.attempts == 0
        assert running.sandbox.ledger() == []

    def test_a_retry_does_not_outlive_its_time(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job = dispatcher.send(phone(107), "Hello", provider="textgoto", category="otp", valid_for=5)
        ended = dispatcher.wait(job.id, until="final")
        assert ended.state == State.EXPIRED
        assert ended.attempts >= 1
        assert taken_by_number(running.sandbox) == {}


REFUSED = {
    "a number that is none": (InvalidNumber, {"to": "07700 900123", "text": "Hello"}),
    "an empty text": (InvalidRequest, {"to": phone(1), "text": "  "}),
    "an unknown provider": (UnknownProvider, {"to": phone(1), "text": "Hello", "provider": "textgotoo"}),
    "no provider where several can": (InvalidRequest, {"to": phone(1), "text": "Hello", "provider": None}),
    "a lane that is none": (InvalidRequest, {"to": phone(1), "text": "Hello", "lane": "fast"}),
}


@pytest.mark.parametrize(("error", "arguments"), REFUSED.values(), ids=REFUSED)
def test_what_can_never_work_is_refused_and_leaves_nothing(
    running: Deployment, dispatcher: Dispatcher, error: type[Exception], arguments: dict[str, Any]
) -> None:
    dispatcher.providers()
    before = sorted(running.redis.keys())
    with pytest.raises(error):
        dispatcher.send(**{"provider": "textgoto", **arguments})
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.to"):
        dispatcher.send_many([Message(phone(1), "Hello"), Message("nobody", "Hello")], provider="textgoto")
    assert sorted(running.redis.keys()) == before
    assert running.sandbox.ledger() == []
