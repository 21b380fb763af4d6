"""Wall clocks that are wrong: of workers, and of applications. What decides is Redis' own."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime
from typing import Final

from dispatcher import State
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.support import Worker, accepted

#: Seconds that the clocks are wrong by.
_OFF: Final = {"slow": -3600, "fast": 3600}

#: Seconds that the clock of a process may seem to be off, since it writes its log later than we look.
_BLUR: Final = 300

#: How a text ends that was on the wire.
_ENDS: Final = {State.SENT, State.UNKNOWN}

#: Seconds until a text that shall wait is due.
_LATER: Final = 4.0

#: Makes every clock of a process but the monotonic one wrong; Python imports it as it starts. `datetime` is written in
#: C, so that its methods are exchanged in what the type looks them up in.
_WRONG: Final = """
import ctypes, datetime, gc, time

right = {name: getattr(time, name) for name in ("time", "time_ns", "gmtime", "localtime")}
time.time = lambda: right["time"]() + OFF
time.time_ns = lambda: right["time_ns"]() + OFF * 10**9
# Static: logging has one of them as a method of a class.
time.gmtime = staticmethod(lambda at=None: right["gmtime"](time.time() if at is None else at))
time.localtime = staticmethod(lambda at=None: right["localtime"](time.time() if at is None else at))
methods = gc.get_referents(datetime.datetime.__dict__)[0]
methods["now"] = classmethod(lambda kind, tz=None: kind.fromtimestamp(time.time(), tz))
methods["utcnow"] = classmethod(lambda kind: kind.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None))
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))
"""

#: An application that enqueues texts, and tells their ids.
_APPLICATION: Final = """
import os
from dispatcher import Dispatcher

d = Dispatcher(providers={"textgoto": {"uid": "sandbox"}})
for number in os.environ["NUMBERS"].split():
    print("id", d.send(number, os.environ["TEXT"], provider="textgoto", valid_for=120).id, flush=True)
"""


@scenario(
    "clocks-wrong",
    "The clocks of workers and applications are an hour slow or fast, and one of the workers is killed (-9).",
    proves="leases, retries, due times and periods of validity go by Redis' clock alone",
    full={"texts": 300},
    short={"texts": 40},
)
def clocks_wrong(lab: Lab, texts: int) -> None:
    lab.sandbox.fault("latency", seconds=0.1)
    workers = [_worker(lab, off) for off in _OFF]
    for worker in workers:
        worker.ready()
    for worker, off in zip(workers, _OFF.values(), strict=True):
        lab.demand(f"the clock of {worker.name} is wrong", holds=abs(_began(worker) - time.time() - off) < _BLUR)

    lab.sandbox.fault("503", times=5)
    due = time.time() + _LATER
    later = [lab.accepted[lab.send(send_at=due).id] for _ in range(10)]
    enqueued = [id_ for ids in [_enqueue(lab, name, texts) for name in _OFF] for id_ in ids]
    lab.settle()
    lab.demand("none was too late", holds=set(lab.d.states(enqueued)) == {State.SENT})
    at = {f"+{row.msisdn}": row.at - due for row in accepted(lab.sandbox.ledger())}
    lab.demand("none was sent before it was due", holds=all(at[number] >= 0 for number in later))
    lab.in_time("to send what was due", max(at[number] for number in later), 5)

    lab.sandbox.clear()
    lab.sandbox.fault("hang-after")
    held = [lab.send().id for _ in range(20)]
    soon(lambda: len(lab.sending()) > len(held) / 2, "texts on the wire")
    workers[0].kill()
    lab.inject("kill -9 of the worker that is an hour slow")
    lab.sandbox.clear()
    lab.in_time("to settle what it had on the wire", lab.settle(), float(lab.deployment.settings["lease"]) + 10)
    # The other worker's are answered once nothing hangs any more.
    ended = set(lab.d.states(held))
    lab.demand("what the dead worker had on the wire is unknown", holds={State.UNKNOWN} <= ended <= _ENDS)


def _worker(lab: Lab, name: str) -> Worker:
    """Start one in an interpreter of its own: only that reads what makes its clock wrong."""
    lab.inject(f"worker an hour {name}")
    few = {"DISPATCHER_CONNECTIONS": "20", "DISPATCHER_PROVIDERS__TEXTGOTO__GROUP_SIZE": "1"}
    command = ["-m", "celery", "-A", "workers", "worker", "-Q", "textgoto", "-l", "INFO", "-n", f"{name}@%h"]
    one = Worker(command, {**lab.deployment.environment, **few, **_wrong(lab, name)}, lab.folder, f"worker-{name}")
    lab._open.callback(one.kill)
    return one


def _began(worker: Worker) -> float:
    """Return when a worker began, by its own log, in seconds since 1970."""
    said = re.search(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", worker.output())
    assert said is not None
    return datetime.strptime(said[1], "%Y-%m-%d %H:%M:%S").astimezone().timestamp()


def _enqueue(lab: Lab, name: str, texts: int) -> list[str]:
    """Let an application whose clock is wrong enqueue texts; return their ids."""
    numbers = [lab.number() for _ in range(texts)]
    told = {"NUMBERS": " ".join(numbers), "TEXT": lab.text()}
    application = lab.process(["-c", _APPLICATION], f"application-{name}", {**_wrong(lab, name), **told})
    lab.inject(f"application an hour {name}")
    code = application.wait(60)
    ids = re.findall(r"^id (\S+)$", application.output(), re.MULTILINE)
    lab.accepted |= dict(zip(ids, numbers, strict=False))
    lab.demand("the application enqueues all", holds=code == 0 and len(ids) == texts)
    return ids


def _wrong(lab: Lab, name: str) -> dict[str, str]:
    """Return what makes the clock of a process wrong, as environment variables."""
    folder = lab.folder / name
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"OFF = {_OFF[name]}\n{_WRONG}")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}
