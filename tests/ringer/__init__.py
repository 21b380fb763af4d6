"""An invented provider that calls back: TextGoto's API for what is sent, and callbacks that say plainly what they are.

`{"kind": "receipt" | "text" | "stop" | "start" | "nothing" | ...}` as JSON or as a form; what else a kind does to its
reader or to the receiver stands beside it below. Its texts have a reference made of the number.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from dispatcher.outcomes import Accepted, Failure, FailureKind, Outcome
from dispatcher.states import State
from workers.providers.base import (
    Answer,
    Callback,
    Capabilities,
    Group,
    Inbound,
    News,
    OptOut,
    Receipt,
    Response,
    Told,
    same_secret,
)
from workers.providers.textgoto import TextGoto

#: What an installed package is to Python: its name, and the entry point that the adapter is found by.
_METADATA: Final = {
    "METADATA": "Metadata-Version: 2.1\nName: ringer\nVersion: 1.0\n",
    "entry_points.txt": "[dispatcher.providers]\nringer = tests.ringer:Ringer\n",
}


class Ringer(TextGoto):
    """One account."""

    name = "ringer"
    optional = ("secret", "sender")
    not_their_word = frozenset({"REGISTER"})
    capabilities = Capabilities(recipients=100, receipts="push", inbound=True, verification="provider")

    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        told = super().parse(response, group)
        refs = {job.id: f"ref-{job.to[-3:]}" for job in group.jobs}
        return {
            id_: msgspec.structs.replace(one, ref=refs[id_]) if isinstance(one, Accepted) else one
            for id_, one in told.items()
        }

    def trusts(self, callback: Callback) -> bool:
        secret = self.settings.get("secret")
        return not secret or same_secret(callback.headers.get("authorization", ""), secret)

    def read(self, callback: Callback) -> tuple[Told, ...]:
        told = callback.fields()
        kind = told.get("kind", "")
        if kind == "poison":
            raise ValueError("it cannot be read")
        if kind == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "receipt":
            failed = told["state"] == "undelivered"
            failure = Failure(kind=FailureKind.NOT_SENT, code="7", message="the phone is off") if failed else None
            if told.get("refused"):
                failure = Failure(kind=FailureKind.OPTED_OUT, code="BLOCKED")
            news = News(state=State(told["state"]) if told["state"] else None, failure=failure)
            part, parts = int(told.get("part", 1)), int(told.get("parts", 1))
            own = told.get("own", "")
            return (Receipt(news=news, own=own, ref=told["ref"], number=told["number"], part=part, parts=parts),)
        if kind == "text":
            fields = {name: told.get(name, "") for name in ("to", "text", "at", "ref")}
            return (Inbound(sender=told["from"], **fields),)
        if kind in {"stop", "start"}:
            return (OptOut(number=told["number"], out=kind == "stop"),)
        return ()

    def answers_from(self, told: Inbound) -> str:
        return told.to

    def answer(self, callback: Callback) -> Answer:
        told = callback.fields()
        if "die" in told:
            # Between the write and the answer.
            os.kill(os.getpid(), signal.SIGKILL)
        if told.get("kind") == "speechless":
            raise ValueError("it has no answer")
        if "challenge" in told:
            return Answer(status=202, body=told["challenge"].encode(), content_type="text/x-challenge")
        return Answer()


def installed(folder: Path) -> Mapping[str, str]:
    """Make a folder that Python takes for an installed package; return what the environment needs for it."""
    place = folder / "site" / "ringer-1.0.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    for file, text in _METADATA.items():
        (place / file).write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(place.parent), str(Path(__file__).parents[2])])}
