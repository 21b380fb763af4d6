"""Numbers that many ask about at once, with real workers: what each of them costs is what the vendor's ledger says."""

from __future__ import annotations

from collections import Counter
from typing import Final

from dispatcher import Dispatcher, State
from tests.support import Deployment, phone, phones, until

#: Long enough for twenty to come while one is on the wire.
TIMES: Final = {"deadline": "5", "lease": "6", "lost_after": "2"}


def asked(deployment: Deployment) -> Counter[str]:
    """How often the register was asked about each number."""
    return Counter(f"+{row.msisdn}" for row in deployment.sandbox.ledger() if row.action == "HLR")


class TestOneRequestForMany:
    def test_fifty_at_once_and_one_later(self, running: Deployment, dispatcher: Dispatcher) -> None:
        running.sandbox.fault("latency", seconds=0.5)
        ids = [dispatcher.lookup(phone(1), provider="textgoto").id for _ in range(50)]
        found = [dispatcher.wait(id_) for id_ in ids]
        assert {job.state for job in found} == {State.COMPLETED}
        assert asked(running) == {phone(1): 1}
        assert Counter(job.result["cached"] for job in found) == {False: 1, True: 49}
        assert len({job.result["asked_at"] for job in found}) == 1

        running.sandbox.clear()
        later = dispatcher.wait(dispatcher.lookup(phone(1), provider="textgoto").id)
        assert "answered from memory: asked by job" in later.history[-1].detail
        assert (later.attempts, asked(running)) == (0, {phone(1): 1})
        fresh = dispatcher.wait(dispatcher.lookup(phone(1), provider="textgoto", fresh=True).id)
        assert (fresh.result["cached"], asked(running)) == (False, {phone(1): 2})

    def test_a_batch_asks_about_each_number_once(self, running: Deployment, dispatcher: Dispatcher) -> None:
        batch = dispatcher.lookup_many([*phones(20), *phones(20)], provider="textgoto")
        assert batch.wait() == {"completed": 20}
        assert asked(running) == dict.fromkeys(phones(20), 1)
        again = dispatcher.lookup_many(phones(20), provider="textgoto")
        assert again.wait() == {"completed": 20}
        assert asked(running) == dict.fromkeys(phones(20), 1)


def test_a_worker_killed_while_others_wait_for_its_answer(deployment: Deployment) -> None:
    """Whoever asks next does so once, for all; and no number is paid more than twice, wherever its job could go."""
    other = {"adapter": "textgoto", "uid": "sandbox", "pwd": "sandbox"}
    deployment.settings |= {f"providers__other__{name}": value for name, value in other.items()}
    sandbox, dispatcher = deployment.sandbox, deployment.client(providers={"textgoto": other, "other": other})
    first = deployment.worker(queues="textgoto,other", name="first", **TIMES)
    dispatcher.wait(dispatcher.operation("textgoto", "balance").id)
    sandbox.fault("hang-after")
    ids = [dispatcher.lookup(phone(1), provider="textgoto").id for _ in range(20)]
    # This one hangs whenever it is asked, and could go on to another account.
    hopeless = dispatcher.lookup(phone(110), provider=["textgoto", "other"]).id

    def all_wait() -> bool:
        jobs = dispatcher.get_many([*ids, hopeless]).values()
        waits = Counter(job.waiting.reason if job.waiting else str(job.state) for job in jobs)
        return waits == {"sending": 2, "lookup": 19}

    until(all_wait, what="nineteen that wait for one")
    first.kill()
    sandbox.clear()
    deployment.worker(queues="textgoto,other", name="second", **TIMES)
    found = [dispatcher.wait(id_, timeout=60) for id_ in ids]
    assert {job.state for job in found} == {State.COMPLETED}
    ended = dispatcher.wait(hopeless, timeout=60)
    assert (ended.state, ended.attempts, ended.provider) == (State.UNKNOWN, 2, "textgoto")
    assert asked(deployment) == {phone(1): 2, phone(110): 2}
