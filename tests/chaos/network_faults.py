"""What happens between the parts: connections that fall silent without an error, on either side of a worker."""

from __future__ import annotations

import time
from typing import Final

from dispatcher import State
from tests.chaos.lab import Lab, soon
from tests.chaos.proxy import Proxy
from tests.chaos.redis_faults import asked, goes_on
from tests.chaos.scenario import scenario

#: Seconds after which work goes on over new connections when the old ones fell silent.
_HALF_OPEN: Final = 30.0

#: Texts on the wire at least when connections fall silent.
_WIRE: Final = 5

#: Seconds beyond its deadline after which a request that nobody answers has its outcome.
_WRITTEN: Final = 5.0


@scenario(
    "redis-half-open",
    "Connections to Redis fall silent, of workers and of applications, and no error ever tells them.",
    proves="applications are told in time, nothing is sent twice, and work goes on within 30 s",
    full={"times": 3},
    short={"times": 1},
    alone=True,
)
def redis_half_open(lab: Lab, times: int) -> None:
    proxy = _between(lab)
    lab.sandbox.fault("latency", seconds=0.05)
    lab.worker(connections="20")
    with lab.load(rate=60, client=lambda: lab.client(redis_url=_behind(proxy))):
        for _ in range(times):
            lab.pause(0.5, 2)
            lab.inject("connections to Redis silent", proxy.half_open(), over=False)
            goes_on(lab, _HALF_OPEN)
    lab.settle()
    lab.demand("something was swallowed", holds=proxy.swallowed > 0)


@scenario(
    "redis-unreachable",
    "Redis is out of the workers' reach for a while: connections fall silent, and new ones lead nowhere.",
    proves="nothing is sent twice, and work goes on within 30 s once there is a way",
    full={"seconds": 40.0},
    short={"seconds": 3.0},
    alone=True,
)
def redis_unreachable(lab: Lab, seconds: float) -> None:
    proxy = _between(lab)
    lab.sandbox.fault("latency", seconds=0.05)
    lab.worker(connections="20")
    with lab.load(rate=60), asked(lab):
        lab.pause(0.5, 2)
        proxy.go_dark()
        lab.inject("no way to Redis", over=False)
        time.sleep(seconds)
        proxy.come_back()
        goes_on(lab, _HALF_OPEN)
    lab.settle()


@scenario(
    "provider-half-open",
    "Connections to the provider fall silent with texts on the wire; new ones pass.",
    proves="what was on the wire ends unknown by its deadline, the rest is sent, and nothing is sent again",
    full={"times": 5},
    short={"times": 1},
)
def provider_half_open(lab: Lab, times: int) -> None:
    proxy = lab.enter(Proxy(int(lab.sandbox.url.rsplit(":", 1)[1])))
    lab.deployment.settings["sandbox_url"] = f"http://127.0.0.1:{proxy.port}"
    lab.sandbox.fault("latency", seconds=0.3)
    lab.worker(connections="20", providers__textgoto__group_size="1")
    deadline = float(lab.deployment.settings["deadline"])
    held = set[str]()
    with lab.load(rate=60, text=1):
        for _ in range(times):
            lab.pause(0.5, 2)
            soon(lambda: len(lab.sending()) >= _WIRE, "texts on the wire")
            cut = proxy.half_open()
            lab.inject("connections to the provider silent", cut)
            wire = lab.sending()
            held |= wire
            time.sleep(deadline + _WRITTEN)
            still = lab.sending() & wire
            lab.demand(f"{len(still)} of {len(wire)} on the wire had no outcome by the deadline", holds=not still)
    lab.settle()
    ended = {State(one) for one in lab.d.states(list(held)) if one}
    lab.demand(f"what was on the wire is {', '.join(sorted(ended))}", holds=ended <= {State.SENT, State.UNKNOWN})
    lab.demand("something was swallowed", holds=proxy.swallowed > 0)


def _between(lab: Lab) -> Proxy:
    """Put a proxy between the workers that follow and Redis."""
    proxy = lab.enter(Proxy(lab.server.port))
    lab.deployment.settings["redis_url"] = _behind(proxy)
    return proxy


def _behind(proxy: Proxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}/0"
