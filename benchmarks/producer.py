"""One process that enqueues, `python -m benchmarks.producer HOW COUNT`; prints jobs a second.

HOW is `send_many`, `send`, or `publish`: the same message as `send` publishes, ids only, by `apply_async` and no more.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from celery import Celery

from benchmarks.rig import ACCOUNT, messages
from dispatcher import Dispatcher, Message
from dispatcher.queues import EXECUTE
from dispatcher.settings import load

#: Texts that one call of `send_many` enqueues.
_PORTION: Final = 10_000


def _send_many(texts: list[tuple[str, str]]) -> None:
    dispatcher = Dispatcher()
    for start in range(0, len(texts), _PORTION):
        dispatcher.send_many([Message(*text) for text in texts[start : start + _PORTION]], provider=ACCOUNT)


def _send(texts: list[tuple[str, str]]) -> None:
    dispatcher = Dispatcher()
    for text in texts:
        dispatcher.send(*text, provider=ACCOUNT)


def _execute(ids: list[str]) -> None: ...


def _publish(texts: list[tuple[str, str]]) -> None:
    app = Celery("bench", broker=load().broker, set_as_current=False)
    app.conf.task_ignore_result = True
    task = app.task(name=EXECUTE)(_execute)
    for at in range(len(texts)):
        # As long as a job's id.
        id_ = f"{at:032x}"
        task.apply_async(([id_],), task_id=id_, queue=ACCOUNT)


HOW: Final[dict[str, Callable[[list[tuple[str, str]]], None]]] = {
    "send_many": _send_many,
    "send": _send,
    "publish": _publish,
}


def main() -> None:
    how, count = sys.argv[1:]
    texts = [(text.to, text.text) for text in messages(int(count))]
    # The first one makes connections and loads scripts.
    HOW[how](texts[:1])
    began = time.perf_counter()
    HOW[how](texts[1:])
    print((len(texts) - 1) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
