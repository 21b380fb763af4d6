"""What nobody knows the end of, and what ended badly, with real workers: sent again only by somebody's word."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import msgspec
import pytest

from dispatcher import Dispatcher, Message, State
from dispatcher.calls import MOST, Advance, Calls
from tests.support import SHORT, Deployment, clean_environment, phone, phones, taken_by_number, until

AGAIN = "it may have been taken, and is sent again as the caller asked"


def application(deployment: Deployment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` to its end, as an application beside the deployment's workers."""
    names = ("DISPATCHER_REDIS_URL", "DISPATCHER_SANDBOX", "DISPATCHER_SANDBOX_URL")
    told = {name: deployment.environment[name] for name in names}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**clean_environment(), **told, "DISPATCHER_PROVIDERS__TEXTGOTO__UID": "sandbox"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class TestSentAgainByTheCallersWord:
    def test_a_worker_dies_with_the_texts_on_the_wire(self, deployment: Deployment) -> None:
        """The provider took all of them, and nobody was told: those of whom it was asked are sent once more."""
        sandbox, dispatcher = deployment.sandbox, deployment.client()
        first = deployment.worker(name="first", **SHORT)
        dispatcher.wait(dispatcher.operation("textgoto", "balance").id)
        sandbox.fault("hang-after")
        text = dispatcher.send(phone(1), "Hello", on_unknown="resend")
        code = dispatcher.verify(phone(2), on_unknown="resend")
        held = dispatcher.send(phone(3), "Hello")
        # Whoever sends this one never gets an answer, nor what travels with it.
        hopeless = dispatcher.send(phone(110), "Alone", on_unknown="resend")
        everything = [text.id, code.id, held.id, hopeless.id]
        until(lambda: Counter(dispatcher.states(everything))[State.SENDING] == len(sandbox.ledger()) - 1 == 4)

        first.kill()
        sandbox.clear()
        deployment.worker(name="second", **SHORT)
        ended = {id_: dispatcher.wait(id_, timeout=60) for id_ in everything}

        assert taken_by_number(sandbox) == {phone(1): 2, phone(2): 2, phone(3): 1, phone(110): 2}
        assert [ended[id_].state for id_ in everything] == ["sent", "sent", "unknown", "unknown"]
        assert [ended[id_].possible_duplicate for id_ in everything] == [True, True, False, True]
        assert [ended[id_].attempts for id_ in everything] == [2, 2, 1, 2]
        for id_ in (text.id, code.id, hopeless.id):
            assert f"its worker died; {AGAIN}" in [line.detail for line in ended[id_].history]

    def test_an_answer_gets_lost(self, running: Deployment, dispatcher: Dispatcher) -> None:
        job = dispatcher.wait(
            dispatcher.send(phone(111), "Hello", provider="textgoto", on_unknown="resend", category="otp").id
        )
        assert (job.state, job.attempts, job.possible_duplicate) == (State.UNKNOWN, 2, True)
        assert [line.detail.endswith(AGAIN) for line in job.history] == [False, False, True, False, False]
        assert taken_by_number(running.sandbox) == {phone(111): 2}


def test_what_failed_is_redriven_once_the_provider_is_mended(running: Deployment, dispatcher: Dispatcher) -> None:
    """And what an operator knows of an unknown one decides whether it is, too."""
    numbers = phones(10)
    dispatcher.opt_out(numbers[0])
    messages = [Message(one, f"Hello {one}") for one in [*numbers, phone(101), phone(112)]]
    batch = dispatcher.send_many(messages, provider="textgoto")
    before = batch.wait()
    assert before == {"failed": 2, "sent": 9, "unknown": 1}
    lost = next(job for job in batch.jobs if job.state == State.UNKNOWN)
    dispatcher.resolve(lost.id, "failed", note="their portal has nothing")
    dispatcher.opt_in(numbers[0])
    running.sandbox.reset()

    told = batch.redrive()
    assert (told.redriven, told.counts) == (3, {"failed": {"opted_out": 1, "invalid": 1, "not_sent": 1}})
    assert told.batch_id is not None
    # The same phones do the same to it as before.
    assert dispatcher.batch(told.batch_id).wait() == {"failed": 1, "sent": 1, "unknown": 1}
    assert batch.counts == {"failed": 3, "sent": 9}
    assert taken_by_number(running.sandbox) == {numbers[0]: 1}


@pytest.fixture
def failed(deployment: Deployment) -> list[str]:
    """More than a few pages of texts that failed, as workers would have left them; there is no worker."""
    dispatcher = deployment.client()
    ids = list(dispatcher.send_many([Message(one, "Hello") for one in phones(3 * MOST)], batch_id="old").jobs.ids)
    calls = Calls(dispatcher.settings)
    for start in range(0, len(ids), MOST):
        page = ids[start : start + MOST]
        moves = [Advance(id=one, guard="=queued", state=State.FAILED, detail="rejected X: no") for one in page]
        dispatcher._store.run(calls.advance(moves))
    return ids


def test_killed_in_the_middle_it_goes_on_without_doubles(deployment: Deployment, failed: list[str]) -> None:
    dispatcher = deployment.client()
    dies = """
import dispatcher, os
dispatcher.Dispatcher().redrive_many(batch="old", batch_id="new", progress=lambda report: os._exit(9))
"""
    assert application(deployment, "-c", dies).returncode == 9
    state = dispatcher.batch_state("new")
    assert (state.counts, state.open) == ({"queued": MOST}, True), "nobody was there any more to close it"

    command = ("-m", "dispatcher.cli", "redrive", "--batch", "old", "--batch-id", "new", "--json")
    ended = application(deployment, *command)
    assert (ended.returncode, ended.stderr) == (0, "")
    told = msgspec.json.decode(ended.stdout, type=dict[str, Any])
    assert (told["redriven"], told["known"]) == (len(failed) - MOST, MOST)
    state = dispatcher.batch_state("new")
    assert (state.counts, state.open) == ({"queued": len(failed)}, False)
    assert [job.redrive_of for job in dispatcher.batch("new").jobs] == failed, "each once, in order"
    assert dispatcher.redrive_many(batch="old", batch_id="new").redriven == 0
