"""Two providers, each served by a worker process of its own: what one surely does not take the other sends, once."""

from __future__ import annotations

from collections import Counter

from dispatcher import Message, State
from tests.support import Deployment, accepted, phones, taken_by_number

ROUTE = ["textgoto", "thetexting"]
COUNT = 200

#: Nobody listens there.
NOWHERE = "http://127.0.0.1:1"


def test_where_nobody_listens_all_goes_over_the_next_account(deployment: Deployment) -> None:
    deployment.start_worker(name="first", providers__textgoto__base_url=NOWHERE)
    deployment.start_worker(queues="thetexting", name="second").ready()
    dispatcher = deployment.client()
    batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(COUNT)], provider=ROUTE)
    assert batch.wait(timeout=60) == {"sent": COUNT}
    assert taken_by_number(deployment.sandbox) == dict.fromkeys(phones(COUNT), 1)
    rows = accepted(deployment.sandbox.ledger())
    assert {row.provider for row in rows} == {"thetexting"}
    for job in batch.jobs:
        assert (job.provider, job.route, job.possible_duplicate) == ("thetexting", ROUTE, False)
        assert job.tries[-1].provider == "thetexting"
        (moved,) = [entry for entry in job.history if entry.detail.startswith("moves to thetexting: ")]
        assert (moved.provider, moved.state) == ("textgoto", State.QUEUED)


def test_what_may_have_been_taken_is_sent_nowhere_else(deployment: Deployment) -> None:
    """The first provider takes every text and answers 500: what it got stays with it, the rest is spared."""
    deployment.sandbox.fault("500-after", provider="textgoto")
    deployment.start_worker(name="first", breaker_pause="60")
    deployment.start_worker(queues="thetexting", name="second").ready()
    dispatcher = deployment.client()
    batch = dispatcher.send_many([Message(one, f"Hello {one}") for one in phones(COUNT)], provider=ROUTE)
    counts = batch.wait(timeout=60)
    assert counts["unknown"] + counts.get("sent", 0) == COUNT
    # The sandbox is everybody's: a text that another test enqueued may come to it late.
    taken = {number: count for number, count in taken_by_number(deployment.sandbox).items() if number in phones(COUNT)}
    assert taken == dict.fromkeys(phones(COUNT), 1), "by one of the two, and once"
    ends = Counter((job.state.value, job.provider) for job in batch.jobs)
    assert {*ends} <= {("unknown", "textgoto"), ("sent", "thetexting")}
    for job in batch.jobs:
        if job.state == State.UNKNOWN:
            assert {one.provider for one in job.tries} == {"textgoto"}
