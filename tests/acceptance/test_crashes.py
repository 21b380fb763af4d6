"""What dies, dies at the worst moment; nothing is lost, and nothing is sent behind anybody's back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dispatcher import Dispatcher, Message, State
from dispatcher.settings import Settings
from tests.support import SHORT, Deployment, Server, accepted, phone, phones, taken_by_number, until
from workers.sandbox.client import Sandbox


def on_the_wire(dispatcher: Dispatcher, *ids: str) -> bool:
    return all(job.state == State.SENDING for job in dispatcher.get_many(ids).values())


class TestWorkerKilledWhileTheProviderHangs:
    def test_each_kind_ends_as_its_operation_bears(self, deployment: Deployment) -> None:
        """A text is never repeated, a balance always may be, a lookup once."""
        sandbox, dispatcher = deployment.sandbox, deployment.client()
        first = deployment.worker(name="first", **SHORT)
        # Its credentials are known to be right then, so that no request waits for the end of the first.
        dispatcher.wait(dispatcher.operation("textgoto", "balance").id)
        sandbox.fault("hang-after")
        text = dispatcher.send(phone(1), "Hello")
        code = dispatcher.verify(phone(2))
        balance = dispatcher.operation("textgoto", "balance")
        lookup = dispatcher.lookup(phone(3))
        # This one hangs whenever it is asked.
        lookup_again = dispatcher.lookup(phone(110))
        everything = [text.id, code.id, balance.id, lookup.id, lookup_again.id]
        until(lambda: len(sandbox.ledger()) == 6 and on_the_wire(dispatcher, *everything), what="five requests")

        first.kill()
        sandbox.clear()
        deployment.worker(name="second", **SHORT)
        ended = {id_: dispatcher.wait(id_, timeout=60) for id_ in everything}

        assert [ended[one.id].state for one in (text, code)] == [State.UNKNOWN, State.UNKNOWN]
        assert [ended[one.id].attempts for one in (text, code)] == [1, 1]
        assert "its worker died" in ended[text.id].history[-1].detail
        assert taken_by_number(sandbox) == {phone(1): 1, phone(2): 1}
        assert ended[balance.id].state == State.COMPLETED
        assert ended[lookup.id].state == State.COMPLETED
        assert ended[lookup_again.id].state == State.UNKNOWN
        # A busy machine may not even connect within the time that it has: that is no time it was asked.
        assert [one.outcome for one in ended[lookup_again.id].tries if one.outcome != "not_sent"] == ["ambiguous"]
        asked = Counter((row.action, row.msisdn) for row in sandbox.ledger())
        assert asked == {
            ("SEND_MSISDN", phone(1)[1:]): 1,
            ("VERIFICATION", phone(2)[1:]): 1,
            ("CHECK_BALANCE", ""): 3,
            ("HLR", phone(3)[1:]): 2,
            ("HLR", phone(110)[1:]): 2,
        }

    def test_what_it_had_taken_and_not_begun_is_done_by_others(self, deployment: Deployment) -> None:
        """One connection for texts, so that of a chunk one request hangs and the others wait behind it."""
        sandbox, dispatcher = deployment.sandbox, deployment.client()
        first = deployment.worker(name="first", connections="2", **SHORT)
        sandbox.fault("hang-after", times=1)
        batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(60)])
        until(lambda: batch.counts == {"queued": 59, "sending": 1} and len(sandbox.ledger()) == 1)

        first.kill()
        deployment.worker(name="second", **SHORT)
        assert batch.wait(timeout=60) == {"sent": 59, "unknown": 1}
        assert taken_by_number(sandbox) == dict.fromkeys(phones(60), 1)


class TestMessagesLost:
    def test_the_brokers_list_deleted_under_queued_jobs(self, deployment: Deployment) -> None:
        """A campaign's messages are lost as one, and two looks of the clock are enough for all of them."""
        dispatcher, sweep_every = deployment.client(), 5.0
        batch = dispatcher.send_many([Message(one, "Hello") for one in phones(3000)])
        code = dispatcher.verify(phone(1))
        assert deployment.lose_messages() == 2

        deployment.worker(sweep_every=str(sweep_every))
        began, allowed = time.monotonic(), float(deployment.settings["lost_after"]) + 2 * sweep_every + 12
        assert dispatcher.wait(code.id).state == State.SENT
        assert batch.wait(timeout=60) == {"sent": 3000}
        assert time.monotonic() - began < allowed, "looks that find a sixth of it each would take half a minute"
        assert taken_by_number(deployment.sandbox) == dict.fromkeys([*phones(3000), phone(1)], 1)

    def test_that_takes_less_than_ninety_seconds_as_it_comes(self) -> None:
        """The same sum with the times that nobody set: until it counts as lost, two looks, and a slot's width."""
        usual = {name: field.default for name, field in Settings.model_fields.items()}
        assert usual["lost_after"] + 2 * usual["sweep_every"] + 10 <= 90

    def test_a_lost_message_is_found_while_others_come_and_go(self, deployment: Deployment) -> None:
        """The queue is hardly ever empty, so what tells is that later messages were taken. A slot of that is 10 s."""
        dispatcher = deployment.client()
        lost = dispatcher.send(phone(1), "Hello")
        assert deployment.lose_messages() == 1
        deployment.worker()
        others = iter(phones(10_000))

        def found() -> bool:
            dispatcher.send(next(others), "Hello")
            return dispatcher.get(lost.id).settled

        until(found)
        assert dispatcher.get(lost.id).state == State.SENT
        assert taken_by_number(deployment.sandbox)[phone(1)] == 1


class TestRedisRestarted:
    @pytest.fixture
    def own(self, own_valkey: Server, sandbox: Sandbox, tmp_path: Path) -> Iterator[Deployment]:
        one = Deployment(own_valkey.url, sandbox, tmp_path)
        try:
            yield one
        finally:
            one.close()

    def asked(self, sandbox: Sandbox, enough: int) -> bool:
        return len(sandbox.ledger()) >= enough

    def test_under_load(self, own: Deployment, own_valkey: Server) -> None:
        """Killed while texts are on the wire and others wait, twice; all settle, none is sent twice."""
        dispatcher = own.client()
        worker = own.worker(connections="20")
        own.sandbox.fault("latency", seconds=0.1)
        batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(600)])
        for enough in (50, 250):
            until(partial(self.asked, own.sandbox, enough))
            own_valkey.kill()
            time.sleep(0.3)  # so that whoever connects again finds nobody
            own_valkey.start()

        def over() -> dict[str, int]:
            assert worker.popen.poll() is None, "a worker outlives its Redis"
            counts = batch.counts
            return {} if {"queued", "sending"} & set(counts) else counts

        counts = until(over, 60, "the end of all jobs")
        assert sum(counts.values()) == 600
        assert set(counts) <= {"sent", "unknown"}
        taken = taken_by_number(own.sandbox)
        assert max(taken.values()) == 1
        for job in batch.jobs:
            assert job.state == State.UNKNOWN or job.attempts == 1


class TestPoison:
    """A payload that kills the process that touches it."""

    ADAPTER = """
import os

from workers.providers.textgoto import TextGoto


class Poison(TextGoto):
    name = "poison"

    def build(self, jobs):
        if any(getattr(job.request, "text", "") == "poison" for job in jobs):
            os._exit(66)
        return super().build(jobs)
"""

    @pytest.fixture
    def adapter(self, tmp_path: Path) -> str:
        """Install an adapter of one's own the way anybody's is: by an entry point."""
        folder = tmp_path / "installed"
        told = folder / "poison-1.dist-info"
        told.mkdir(parents=True)
        (folder / "poison_adapter.py").write_text(self.ADAPTER)
        (told / "METADATA").write_text("Metadata-Version: 2.1\nName: poison\nVersion: 1\n")
        (told / "entry_points.txt").write_text("[dispatcher.providers]\npoison = poison_adapter:Poison\n")
        return str(folder)

    def test_it_takes_no_other_job_with_it(
        self, deployment: Deployment, adapter: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", adapter)
        deployment.settings["providers__poison__base_url"] = deployment.sandbox.url
        dispatcher = deployment.client(providers={"poison": {"uid": "x"}})
        messages = [Message(one, f"Hello {one}") for one in phones(100)]
        messages[17] = Message(phones(100)[17], "poison")
        batch = dispatcher.send_many(messages)

        deaths = 0
        worker = deployment.start_worker(queues="poison", name="worker0", **SHORT)

        def over() -> bool:
            """Do what a supervisor does: start another one when it died."""
            nonlocal worker, deaths
            if worker.popen.poll() == 66:
                deaths += 1
                worker = deployment.start_worker(queues="poison", name=f"worker{deaths}", **SHORT)
            return not {"queued", "sending"} & set(batch.counts)

        until(over, 90, "the end of all jobs")
        ended = list(batch.jobs)
        poison = ended.pop(17)
        assert (poison.state, poison.failure and poison.failure.kind) == (State.FAILED, "internal")
        others = [(job.state, job.history) for job in ended if job.state != State.SENT]
        assert others == []
        assert deaths == 2, "the third taking ends it"
        rows = accepted(deployment.sandbox.ledger())
        assert Counter(f"+{row.msisdn}" for row in rows) == {one: 1 for one in phones(100) if one != phones(100)[17]}


def test_a_slow_provider_is_no_poison(deployment: Deployment) -> None:
    """Waiting for a free connection for longer than a lease, time and again, is nobody's fault."""
    dispatcher = deployment.client()
    worker = deployment.worker(connections="4", **SHORT)
    deployment.sandbox.fault("latency", seconds=1)
    batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(36)])
    assert batch.wait(timeout=60) == {"sent": 36}
    assert taken_by_number(deployment.sandbox) == dict.fromkeys(phones(36), 1)
    assert {job.attempts for job in batch.jobs} == {1}
    assert len(worker.executed()) >= 1
