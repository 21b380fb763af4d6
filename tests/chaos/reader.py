"""A consumer of an event group that dies between reading and acknowledging: `python -m tests.chaos.reader`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from dispatcher import Dispatcher


def main() -> None:
    """Write down each event, and die of one as told: before that or after it, but before being done with it."""
    about: dict[str, Any] = json.loads(os.environ["CHAOS"])
    d = Dispatcher()
    events = d.events("0", group=about["group"], consumer=about["consumer"], take_over=2)
    print("reads", flush=True)
    with Path(about["told"]).open("a") as told:
        for number, one in enumerate(events, 1):
            dies = number == about["die_at"]
            if dies and number % 2 == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if one.type.startswith(("job.", "verification.")):
                print(one.cursor, one.data["id"], one.data["seq"], file=told, flush=True)
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
