"""What providers do: they take texts and do not say so, and they turn texts away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final

from dispatcher import Dispatcher, State
from tests.chaos.lab import NO_BREAKER, Lab, soon
from tests.chaos.scenario import scenario
from workers.sandbox.world import Row

_ALL: Final = ("clubtexting", "mobtexting", "textgoto", "thetexting")

#: How a request may end so that nobody can tell what became of it.
_NOBODY_KNOWS: Final = (
    "hang-after", "reset-after", "drop-after", "half", "garbage", "html", "500-after",
    "hang-before", "reset-before", "drop-before", "500",
)  # fmt: skip


def _requests(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return what was asked for each number, in order."""
    asked: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "send":
            asked[f"+{row.msisdn}"].append(row)
    return asked


def _client(lab: Lab, accounts: Sequence[str]) -> Dispatcher:
    return lab.client(providers={name: {"callback_token": ""} for name in accounts})


@scenario(
    "provider-silent",
    "Providers take texts, or not, and then say nothing, reset, close, answer half, garbage, a login page or 500.",
    proves="such texts are unknown, and never sent again",
    full={"accounts": _ALL, "texts": 10},
    short={"accounts": ("textgoto",), "texts": 3},
)
def silent(lab: Lab, accounts: Sequence[str], texts: int) -> None:
    lab.worker("--concurrency", "16", queues=",".join(accounts), **NO_BREAKER)
    d = _client(lab, accounts)
    faults = list(_NOBODY_KNOWS)
    lab.random.shuffle(faults)
    doubtful: list[str] = []
    for fault in faults:
        lab.sandbox.fault(fault)
        for account in accounts:
            lab.inject(f"text whose answer was lost, in {len(faults)} ways", texts, over=False)
            doubtful += [lab.send(client=d, provider=account).id for _ in range(texts)]
        lab.demand(f"{fault} did not end", holds=lab.settle(30) < 30)
        lab.sandbox.clear()
    lab.heal()
    for account in accounts:
        lab.send(client=d, provider=account)
    lab.settle()
    jobs = lab.jobs()
    # Later a report may tell more, where a provider has one.
    other = [id_ for id_ in doubtful if State.UNKNOWN not in {one.state for one in jobs[id_].history}]
    lab.demand(f"{len(other)} of {len(doubtful)} were never unknown", holds=not other)
    again = [number for number, rows in _requests(lab.sandbox.ledger()).items() if len(rows) > 1]
    lab.demand(f"{len(again)} were asked for again", holds=not again)
    lab.demand(f"there are {len(doubtful)} of them", holds=len(doubtful) == texts * len(accounts) * len(faults))


@scenario(
    "provider-silent-resend",
    "A provider takes texts and says nothing, and the caller had asked for them to be sent again then.",
    proves="they are sent once more and no oftener, and their readers are told that a person may have them twice",
    full={"texts": 30},
    short={"texts": 3},
)
def resend(lab: Lab, texts: int) -> None:
    lab.worker(**NO_BREAKER)
    for fault, times in (("drop-after", 1), ("drop-after", 2)):
        for _ in range(texts):
            lab.sandbox.fault(fault, times=times)
            lab.inject(f"text whose answer was lost {'once' if times == 1 else 'twice'}", over=False)
            asked = lab.send(category="otp", on_unknown="resend")
            soon(partial(_settled, lab, asked.id), "its end")
            lab.sandbox.clear()
            job = lab.d.get(asked.id)
            lab.demand(f"it took {job.attempts} attempts, not two", holds=job.attempts == 2)
            wanted = State.SENT if times == 1 else State.UNKNOWN
            lab.demand(f"it is {job.state}, not {wanted}", holds=job.state == wanted)
            lab.demand("nobody is told that a person may have it twice", holds=job.possible_duplicate)
    lab.heal()
    lab.send()
    lab.settle()


def _settled(lab: Lab, id_: str) -> bool:
    return lab.d.get(id_).settled


@scenario(
    "provider-refuses",
    "A provider refuses connections, answers 429 with Retry-After, or turns a text away, and works again later.",
    proves="what was surely not taken is tried again, not before the provider allows it, and sent once",
    full={"rounds": 5, "texts": 30},
    short={"rounds": 1, "texts": 5},
)
def refuses(lab: Lab, rounds: int, texts: int) -> None:
    lab.worker()
    for _ in range(rounds):
        for _ in range(texts):
            lab.send(category="otp")
        lab.sandbox.fault("429", times=max(1, texts // 2), seconds=1)
        lab.inject("429 with Retry-After: 1", max(1, texts // 2), over=False)
        for _ in range(texts):
            lab.send(category="otp")
        lab.settle(30)
        lab.sandbox.fault("refuse", seconds=1.5)
        lab.inject("connections refused for 1.5 s", over=False)
        for _ in range(texts):
            lab.send(category="otp")
        lab.settle(60)
        lab.heal()
    lab.send()
    lab.settle()
    states = {str(job.state) for job in lab.jobs().values()}
    lab.demand(f"they are {states}", holds=states == {State.SENT})
    early = [
        number
        for number, rows in _requests(lab.sandbox.ledger()).items()
        for before, after in pairwise(rows)
        if before.fault == "429" and after.at - before.at < 1
    ]
    lab.demand(f"{len(early)} were tried again before the provider allowed it", holds=not early)
