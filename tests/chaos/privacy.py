"""Whatever happens, what is private is seen nowhere: also not on Redis' channels, and not in Flower."""

from __future__ import annotations

from typing import Final

from tests.acceptance.test_privacy import Listener
from tests.chaos import private
from tests.chaos.lab import Lab, soon
from tests.chaos.scenario import scenario
from tests.system.test_flower import Flower

#: What Flower is asked.
_PAGES: Final = ("/api/tasks", "/api/workers?refresh=1", "/tasks", "/workers", "/broker", "/metrics")


@scenario(
    "secrets",
    "A worker dies, another has a wrong password, a provider answers nonsense, strangers' numbers go wrong.",
    proves="no key, number, text, code or password is in a log, in Redis, an event, Flower or an append-only file",
    full={"kills": 4},
    short={"kills": 1},
)
def secrets(lab: Lab, kills: int) -> None:
    lab.deployment.settings |= {
        "providers__wrong__adapter": "textgoto",
        "providers__wrong__uid": "sandbox",
        "providers__wrong__pwd": private.PASSWORD,
    }
    heard = Listener(lab.redis)
    flower = Flower(lab.folder, "flower", {**lab.deployment.environment, "FLOWER_UNAUTHENTICATED_API": "true"})
    try:
        flower.listening()
        d = lab.client(providers={"textgoto": {"uid": "sandbox"}, "wrong": {"pwd": private.PASSWORD}})
        refused = [lab.send(client=d, provider="wrong").id]
        with lab.load(rate=60, client=lambda: d):
            for _ in range(kills):
                worker = lab.worker("-l", "DEBUG", queues="textgoto,wrong")
                lab.sandbox.fault(lab.random.choice(("garbage", "html", "half", "500-after")), times=5)
                lab.inject("an answer that is none", 5)
                lab.pause(0.5, 1.5)
                worker.kill()
                lab.inject("kill -9 of the only worker")
        lab.worker("-l", "DEBUG", queues="textgoto,wrong")
        # The first one's worker may have been killed in the middle of it, or its answer have been one that is none.
        lab.sandbox.clear()
        refused.append(lab.send(client=d, provider="wrong").id)
        soon(lambda: (waiting := d.get(refused[1]).waiting) and waiting.reason == "suspended", "a refused password")
        for id_ in refused:
            if d.get(id_).waiting:
                d.cancel(id_)
        lab.settle()
        with flower.client(auth=None) as client:
            pages = {page: client.get(page).text for page in _PAGES}
        ids = list(lab.accepted)
        soon(lambda: any(id_ in pages["/api/tasks"] for id_ in ids), "Flower's news of a job", 1)
    finally:
        flower.stop()
        said = heard.stop().decode("latin-1")
    lab.also({f"Flower's {page}": text for page, text in pages.items()} | {"what is published": said})
