"""One run with the times that nobody set; all others have short leases, so that they take seconds."""

from __future__ import annotations

import time

from dispatcher import State
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import TIMES, accepted

#: Seconds within which a dead worker's jobs are settled, and a lost message is found.
_PROMISED = 90.0


@scenario(
    "default-times",
    "With the times as they come, messages are lost, and a worker is killed (-9) with texts on the wire and in hand.",
    proves="a dead worker's jobs are settled, and a lost message is found, within 90 s",
    full={"texts": 20},
)
def default_times(lab: Lab, texts: int) -> None:
    lab.deployment.settings |= dict.fromkeys(TIMES, "")
    lost = [lab.send().id for _ in range(texts)]
    lab.deployment.lose_messages()
    lab.inject("lost message", texts)
    since = time.monotonic()

    # Of the texts in its hands four are on the wire; the others have not begun.
    worker = lab.worker(connections="8", providers__textgoto__concurrency="2", providers__textgoto__group_size="1")
    lab.sandbox.fault("hang-after")
    begun = [lab.send().id for _ in range(texts)]
    soon(lambda: len(accepted(lab.sandbox.ledger())) >= 2, "texts on the wire")
    worker.kill()
    killed = time.monotonic()
    lab.inject("kill -9 of the only worker")
    wire = lab.sending()
    lab.sandbox.clear()
    lab.worker()

    def found() -> bool:
        return {State.SENT} == set(lab.d.states(lost))

    soon(found, "the texts whose message was lost", 120)
    lab.in_time("to find lost messages", time.monotonic() - since, _PROMISED)
    lab.settle(120)
    lab.in_time("to settle a dead worker's jobs", time.monotonic() - killed, _PROMISED)
    unknown = {id_ for id_, state in zip(begun, lab.d.states(begun), strict=True) if state == State.UNKNOWN}
    lab.demand(f"{len(unknown)} are unknown, {len(wire)} were on the wire", holds=unknown == wire)
