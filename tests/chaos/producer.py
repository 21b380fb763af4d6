"""An application that dies between the record of a job and its message: `python -m tests.chaos.producer`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from dispatcher import Dispatcher


def main() -> None:
    """Send texts, write down the id of each that was accepted, and die as told."""
    about: dict[str, Any] = json.loads(os.environ["CHAOS"])
    d = Dispatcher(providers={"textgoto": {"uid": "sandbox"}})
    publish = d._publish
    count = 0

    def dying(queue: str, ids: list[str]) -> None:
        nonlocal count
        if count == about["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        publish(queue, ids)

    d._publish = dying  # type: ignore[method-assign]  # right between the two
    with Path(about["told"]).open("w") as told:
        for number in about["numbers"]:
            print(d.send(number, about["text"], provider="textgoto").id, file=told, flush=True)


if __name__ == "__main__":
    main()
