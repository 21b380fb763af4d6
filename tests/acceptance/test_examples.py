"""The examples, run as their readers would run them, beside a real worker and the sandbox's ledger."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import fastapi_app
import httpx
import pytest
import redis
from celery import Celery

from dispatcher import ConfigurationError, Dispatcher
from dispatcher.embedded import free_port
from tests.consumer import SECRET
from tests.support import WATCH, Deployment, Process, clean_environment, phone, phones, taken_by_number, until

EXAMPLES: Final = Path(__file__).parents[2] / "examples"

#: Nobody listens there.
AWAY: Final = "redis://127.0.0.1:1/0"


@pytest.fixture
def calls_back(running: Deployment, tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Start a worker that calls back, beside the shared one."""
    beside = Deployment(running.url, running.sandbox, tmp_path, {"callback_secret": SECRET})
    yield partial(beside.worker, queues="notify", name="notify")
    beside.close()


@pytest.fixture
def environment(running: Deployment) -> dict[str, str]:
    """What an application is set up with: where Redis is, and that all is played. No credentials."""
    return {"DISPATCHER_REDIS_URL": running.url, "DISPATCHER_SANDBOX": "1", "PYTHONPATH": str(EXAMPLES)}


def python(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run `python ARGUMENTS` to its end and return what it said, its log included."""
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**clean_environment(), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


# -- one Dispatcher before a fork, and after ---------------------------------------------------------------------------

#: Connections to the store and the broker are open when the children are made, and all go on at the same time.
FORKS: Final = """
import json, os, sys
from celery_app import dispatcher

def work(name):
    jobs = [dispatcher().send(to, name, provider="textgoto") for to in sys.argv[1:]]
    return [dispatcher().get(job.id).id for job in jobs] == [job.id for job in jobs]

assert work("before the fork")
children = []
for n in range(4):
    child = os.fork()
    if not child:
        os._exit(0 if work(f"child {n}") else 1)
    children.append(child)
assert work("after the fork")
print(json.dumps([os.waitpid(child, 0)[1] for child in children]))
"""


def test_a_dispatcher_outlives_forks(
    running: Deployment, dispatcher: Dispatcher, environment: dict[str, str], tmp_path: Path
) -> None:
    """As with gunicorn's `preload_app`: each process is answered what it asked, and every text goes once."""
    people = phones(10)
    assert json.loads(python(tmp_path, environment, "-c", FORKS, *people)) == [0, 0, 0, 0]
    jobs = dispatcher.jobs(limit=100)
    assert [dispatcher.wait(job.id).state for job in jobs] == ["sent"] * 60
    assert taken_by_number(running.sandbox) == dict.fromkeys(people, 6)


# -- Django ------------------------------------------------------------------------------------------------------------


#: The view fails after the order was shipped.
ROLLED_BACK: Final = """
from django.db import transaction
from django_shop.texts import ship
try:
    with transaction.atomic():
        ship(Order.objects.get())
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
"""

#: What a task is sent through in a thread that nothing was set for, before and after the shop has its own app.
DEFAULT_APP: Final = """
import threading
from celery import Celery, _state, current_app
from django_shop.texts import dispatcher
dispatcher().providers()
print(_state.default_app)
app = Celery("shop")
print(current_app.main)
thread = threading.Thread(target=lambda: print(current_app.main))
thread.start()
thread.join()
"""


class Shop:
    """A Django shop with a database of its own in `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = {**environment, "DJANGO_SETTINGS_MODULE": "django_shop.settings"}
        self.admin("migrate", "--run-syncdb", "-v", "0")

    def admin(self, *arguments: str) -> str:
        """Run `django-admin ARGUMENTS`."""
        return python(self.folder, self.environment, "-m", "django", *arguments)

    def told(self) -> dict[int, str]:
        """What the orders are marked with."""
        with sqlite3.connect(self.folder / "shop.sqlite3") as database:
            marks = dict(database.execute("SELECT id, text FROM django_shop_order"))
        database.close()
        return marks

    def order(self, *people: str) -> None:
        """Take orders, numbered from 1."""
        self.admin("shell", "-v", "0", "-c", "".join(f"Order.objects.create(phone={one!r});" for one in people))

    @contextmanager
    def served(self, **settings: str) -> Iterator[tuple[httpx.Client, Process]]:
        """Serve its pages."""
        port = free_port()
        told = {
            "DISPATCHER_CALLBACK_SECRET": SECRET,
            "SHOP_CALLBACK_URL": f"http://127.0.0.1:{port}/hooks/dispatcher",
        }
        server = Process(
            ["-m", "django", "runserver", "--noreload", f"127.0.0.1:{port}"],
            {**self.environment, **told, **settings},
            self.folder,
            f"django-{port}",
        )
        WATCH.port(port, "django")
        try:
            server.wait_for("Quit the server")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                yield client, server
        finally:
            server.stop()


@pytest.fixture
def shop(environment: dict[str, str], tmp_path: Path) -> Shop:
    return Shop(tmp_path, environment)


class TestDjango:
    def test_a_shipped_order_is_told_of_once(self, shop: Shop, running: Deployment) -> None:
        """However often the request is repeated."""
        shop.order(phone(1), phone(2))
        with shop.served() as (client, _):
            assert client.get("/orders/1").json() == {"order": 1, "shipped": False, "text": None}
            assert client.get("/orders/1/shipping").status_code == 405
            told = [client.post("/orders/1/shipping").json() for _ in range(5)]
            assert {one["shipped"] for one in told} == {True}
            until(lambda: client.get("/orders/1").json()["text"] == "sent")
            # Once it is sent a request repeated later meets the first text's job still.
            assert client.post("/orders/1/shipping").json() == {"order": 1, "shipped": True, "text": "sent"}
            assert client.post("/orders/3/shipping").status_code == 404
        assert taken_by_number(running.sandbox) == {phone(1): 1}
        assert [one.text for one in running.sandbox.inbox(phone(1))] == ["Your order 1 is on its way"]

    def test_what_is_rolled_back_is_not_told(self, shop: Shop, dispatcher: Dispatcher) -> None:
        shop.order(phone(1))
        shop.admin("shell", "-v", "0", "-c", ROLLED_BACK)
        assert dispatcher.jobs() == []
        with shop.served() as (client, _):
            assert client.get("/orders/1").json() == {"order": 1, "shipped": False, "text": None}

    def test_what_redis_missed_is_told_later(self, shop: Shop, running: Deployment, dispatcher: Dispatcher) -> None:
        """It is shipped all the same, and told of once; who cannot be texted keeps nobody else from being told."""
        shop.order("07700 900468", phone(2), phone(3))
        with shop.served(DISPATCHER_REDIS_URL=AWAY) as (client, server):
            for order in (1, 2):
                answer = client.post(f"/orders/{order}/shipping")
                assert (answer.status_code, answer.json()["shipped"], answer.json()["text"]) == (200, True, None)
            server.wait_for("order-2 is not told of yet")
        told = [shop.admin("tell_customers") for _ in range(2)]
        assert ["order-1 is not told of yet: to" in one for one in told] == [True, True]
        (job,) = dispatcher.jobs()
        assert dispatcher.wait(job.id).state == "sent"
        assert taken_by_number(running.sandbox) == {phone(2): 1}
        assert "468" not in "".join([server.output(), *told])

    def test_redis_away_hides_only_what_became_of_the_text(self, shop: Shop) -> None:
        shop.order(phone(1))
        with shop.served() as (client, _):
            client.post("/orders/1/shipping")
        with shop.served(DISPATCHER_REDIS_URL=AWAY) as (client, _):
            assert client.get("/orders/1").json() == {"order": 1, "shipped": True, "text": "not known just now"}

    def test_a_code_signs_its_person_in_and_a_refusal_looks_like_a_code(self, shop: Shop, running: Deployment) -> None:
        """Each client is a visitor with a session; the sandbox is the phone."""
        with shop.served(DISPATCHER_RESEND_AFTER="0", DISPATCHER_GUARDS="number=2/1h; key=5/1h") as (client, _):

            def post(path: str, **form: str) -> tuple[int, Any]:
                answer = client.post(path, data=form)
                return answer.status_code, answer.json()

            def code(at: int) -> str:
                told = until(lambda: running.sandbox.inbox(phone(1))[at:], what="the code")
                return str(told[0].text).removeprefix("Your code for the shop is ")

            assert post("/codes/check", code="012837") == (200, {"valid": False})
            assert post("/codes", to=phone(1)) == (202, {"sent": True})
            first = code(0)
            assert post("/codes/resend") == (202, {"sent": True})
            second = code(1)
            assert post("/codes/check", code=first) == (200, {"valid": first == second})
            assert post("/codes/resend") == (202, {"sent": True}), "the number has no room, and nobody is told"
            assert post("/codes/check", code=second) == (200, {"valid": True})
            assert post("/codes/check", code=second) == (200, {"valid": False})
            assert post("/codes", to=phone(1)) == (202, {"sent": True}), "nor now"
            assert post("/codes/check", code=second) == (200, {"valid": False})
            assert post("/codes", to="07700 900468")[0] == 422
            for n in (2, 3, 4):
                assert post("/codes", to=phone(n)) == (202, {"sent": True})
            answer = client.post("/codes", data={"to": phone(5)})
            assert (answer.status_code, int(answer.headers["Retry-After"]) > 3000) == (429, True)
        assert running.sandbox.accepted(phone(1)) == 2
        assert running.sandbox.accepted(phone(5)) == 0

    def test_an_order_is_marked_when_its_text_is_told_of(
        self, shop: Shop, calls_back: Callable[..., object], running: Deployment
    ) -> None:
        """By a signed request, which becomes a signal."""
        shop.order(phone(1), phone(100))
        calls_back()
        with shop.served() as (client, _):
            for order in (1, 2):
                client.post(f"/orders/{order}/shipping")
            until(lambda: shop.told() == {1: "sent", 2: "failed"}, what="both callbacks")
            unsigned = client.post("/hooks/dispatcher", json={"type": "job.sent", "data": {}})
            assert unsigned.status_code == 401

    def test_its_own_celery_app_may_come_later(self, shop: Shop) -> None:
        """Celery makes whatever app comes first under Django everybody's default; ours it must not be."""
        assert shop.admin("shell", "-v", "0", "-c", DEFAULT_APP).split() == ["None", "shop", "shop"]


# -- FastAPI -----------------------------------------------------------------------------------------------------------


Story = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def fastapi(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Story], None]]:
    """Run a story with the application, from its start to its end."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    @asynccontextmanager
    async def served() -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(fastapi_app.app, raise_app_exceptions=False)
        lifespan = fastapi_app.app.router.lifespan_context(fastapi_app.app)
        async with lifespan, httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            yield client

    async def play(story: Story) -> None:
        async with served() as client:
            await story(client)

    fastapi_app.dispatcher.cache_clear()
    yield lambda story: asyncio.run(play(story))
    fastapi_app.dispatcher.cache_clear()


async def asked(client: httpx.AsyncClient, path: str, **body: Any) -> tuple[int, Any]:
    """Return status and document of the answer."""
    answer = await client.post(path, json=body)
    return answer.status_code, answer.json()


class TestFastAPI:
    def test_only_the_right_code_is_valid_and_only_once(
        self, fastapi: Callable[[Story], None], running: Deployment, dispatcher: Dispatcher
    ) -> None:
        """A person is told one thing for all that is not valid."""

        async def story(client: httpx.AsyncClient) -> None:
            status, told = await asked(client, "/codes", to=phone(1))
            assert status == 202
            assert dispatcher.wait(told["id"]).state == "sent"
            code = running.sandbox.inbox(phone(1))[0].text.removeprefix("Your code for the shop is ")
            other = dispatcher.send(phone(2), "Hello", provider="textgoto").id
            cases = {
                "wrong": (told["id"], "x"),
                "empty": (told["id"], " "),
                "of nobody": ("nobody", code),
                "of a text": (other, code),
                "right": (told["id"], f" {code}"),
                "used": (told["id"], code),
            }
            answers = {
                label: await asked(client, f"/codes/{id_}/check", code=typed) for label, (id_, typed) in cases.items()
            }
            right = {label: label == "right" for label in cases}
            assert answers == {label: (200, {"valid": valid}) for label, valid in right.items()}

        fastapi(story)

    def test_another_code_and_a_refusal_look_like_the_first(
        self,
        fastapi: Callable[[Story], None],
        running: Deployment,
        dispatcher: Dispatcher,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Who tries numbers learns nothing of them; who asks too often is told so."""
        monkeypatch.setenv("DISPATCHER_RESEND_AFTER", "0")
        monkeypatch.setenv("DISPATCHER_GUARDS", "number=2/1h; key=3/1h")

        async def story(client: httpx.AsyncClient) -> None:
            status, told = await asked(client, "/codes", to=phone(1))
            dispatcher.wait(told["id"])
            again = await asked(client, f"/codes/{told['id']}/resend")
            assert (status, again) == (202, (202, told))
            status, decoy = await asked(client, "/codes", to=phone(1))
            assert (status, len(decoy["id"])) == (202, len(told["id"])), "the number has no room"
            for id_ in (decoy["id"], told["id"]):
                assert await asked(client, f"/codes/{id_}/resend") == (202, {"id": id_})
            codes = until(lambda: [one.text.split()[-1] for one in running.sandbox.inbox(phone(1))][1:], what="both")
            assert await asked(client, f"/codes/{decoy['id']}/check", code=codes[0]) == (200, {"valid": False})
            assert await asked(client, f"/codes/{told['id']}/check", code=codes[0]) == (200, {"valid": True})
            assert (await asked(client, "/codes", to=phone(2)))[0] == 202
            answer = await client.post("/codes", json={"to": phone(3)})
            assert (answer.status_code, int(answer.headers["Retry-After"]) > 3000) == (429, True)

        fastapi(story)
        assert running.sandbox.accepted(phone(1)) == 2
        assert len(dispatcher.jobs()) == 3

    def test_many_at_once_share_one_dispatcher(
        self,
        fastapi: Callable[[Story], None],
        running: Deployment,
        dispatcher: Dispatcher,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """All of them from one address, which is on the list of those that no guard refuses."""
        monkeypatch.setenv("DISPATCHER_GUARD_ALLOW", "ip:127.0.0.1")
        people = phones(40)

        async def story(client: httpx.AsyncClient) -> None:
            told = await asyncio.gather(*(asked(client, "/codes", to=one) for one in people))
            assert [dispatcher.wait(document["id"]).state for _, document in told] == ["sent"] * 40

        fastapi(story)
        assert taken_by_number(running.sandbox) == dict.fromkeys(people, 1)

    def test_what_can_never_work_is_refused_without_repeating_it(
        self, fastapi: Callable[[Story], None], dispatcher: Dispatcher
    ) -> None:
        async def story(client: httpx.AsyncClient) -> None:
            status, told = await asked(client, "/codes", to="07700 900468")
            assert status == 422
            assert told["detail"].startswith("to ")
            assert "468" not in told["detail"]
            assert "*" not in told["detail"]
            assert (await asked(client, "/codes"))[0] == 422

        fastapi(story)
        assert dispatcher.jobs() == []

    def test_redis_away_is_a_matter_of_patience(
        self, fastapi: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is told of what is broken, nor where it is."""
        monkeypatch.setenv("DISPATCHER_REDIS_URL", AWAY)

        async def story(client: httpx.AsyncClient) -> None:
            for path, body in {"/codes": {"to": phone(1)}, "/codes/some-id/check": {"code": "012837"}}.items():
                answer = await client.post(path, json=body)
                assert (answer.status_code, answer.json()) == (503, {"detail": "not now; try again in a moment"})
                assert int(answer.headers["Retry-After"]) > 0

        fastapi(story)

    def test_a_setting_that_cannot_work_stops_the_start(
        self, fastapi: Callable[[Story], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("DISPATCHER_REDIS_URL")

        async def story(_: httpx.AsyncClient) -> None:
            raise AssertionError("it started")

        with pytest.raises(ConfigurationError, match="DISPATCHER_REDIS_URL"):
            fastapi(story)


def test_it_is_called_back(
    environment: dict[str, str], calls_back: Callable[..., object], running: Deployment, tmp_path: Path
) -> None:
    """By the worker's default, since nothing in the application says where."""
    port = free_port()
    arguments = ["-m", "uvicorn", "fastapi_app:app", "--port", str(port)]
    server = Process(arguments, {**environment, "DISPATCHER_CALLBACK_SECRET": SECRET}, tmp_path, f"uvicorn-{port}")
    WATCH.port(port, "uvicorn")
    try:
        server.wait_for("startup complete")
        calls_back(callback_url=f"http://127.0.0.1:{port}/hooks/dispatcher")
        assert httpx.post(f"http://127.0.0.1:{port}/codes", json={"to": phone(1)}, trust_env=False).status_code == 202
        server.wait_for('"POST /hooks/dispatcher HTTP/1.1" 204')
    finally:
        server.stop()


# -- a script ----------------------------------------------------------------------------------------------------------


def test_the_script_tells_what_became_of_a_text(
    environment: dict[str, str], running: Deployment, tmp_path: Path
) -> None:
    state, event = python(tmp_path, environment, str(EXAMPLES / "script.py"), phone(1), "Hello").splitlines()
    assert (state.split(" ", 1)[1], event) == ("is sent", "job.sent")
    assert [one.text for one in running.sandbox.inbox(phone(1))] == ["Hello"]


# -- an application with Celery of its own -----------------------------------------------------------------------------

#: What the shop has beside the example: its own way to log, and a task that says how things stand in its worker.
OWN: Final = """
import json, logging
from celery import _state, current_app, signals
import celery_app

HANDLER = logging.StreamHandler()

@signals.setup_logging.connect
def as_the_shop_does(**_):
    logging.basicConfig(handlers=[HANDLER], level="INFO", format="the shop says: %(message)s")

@celery_app.app.task(name="shop.stand")
def stand():
    celery_app.dispatcher().providers()
    logging.info("stand %s", json.dumps({
        "current": current_app.main,
        "default": _state.default_app and _state.default_app.main,
        "root": logging.root.handlers == [HANDLER],
        "ours": logging.getLogger("dispatcher").handlers,
    }))
"""

#: What that task's line begins with.
STAND: Final = "the shop says: stand "

#: The pool of the shop's worker, and whether it has a database of its own.
WORKERS: Final = {
    "prefork, one database for both": ("prefork", False),
    "threads, a database of its own": ("threads", True),
}


class CeleryShop(NamedTuple):
    """The shop's worker, and where its broker is."""

    worker: Process
    broker: str


@pytest.fixture(params=WORKERS.values(), ids=[*WORKERS])
def celery_shop(
    request: pytest.FixtureRequest, environment: dict[str, str], redis_url: str, tmp_path: Path
) -> Iterator[CeleryShop]:
    """Run the shop's worker; one of its queues is called as one of ours."""
    pool, own = request.param
    (tmp_path / "own.py").write_text(OWN)
    shops = {"PYTHONPATH": f"{EXAMPLES}:{tmp_path}", **({"CELERY_BROKER_URL": redis_url} if own else {})}
    arguments = ["-A", "celery_app", "worker", "-I", "own", "-P", pool, "-c", "2", "-Q", "celery,textgoto"]
    worker = Process(
        ["-m", "celery", *arguments, "-n", "shop@%h", "-l", "INFO"], {**environment, **shops}, tmp_path, "shop"
    )
    try:
        worker.wait_for(" ready.\n")
        yield CeleryShop(worker, redis_url if own else environment["DISPATCHER_REDIS_URL"])
    finally:
        worker.stop()


def test_celery_of_its_own(
    celery_shop: CeleryShop, calls_back: Callable[..., object], running: Deployment, dispatcher: Dispatcher
) -> None:
    """The shop's tasks run in its worker, its texts in ours, even through queues of one name in one database.

    What became of them is told by a task of the shop's.
    """
    worker, broker = celery_shop
    with Celery("caller", broker=broker, set_as_current=False) as caller:
        # Twice each, as Celery may deliver twice.
        asks = [caller.send_task("shop.text_shipped", [order], queue="textgoto") for order in (17, 18) * 2]
        asks.append(caller.send_task("shop.stand"))
        for ask in asks:
            worker.wait_for(f"[{ask.id}] succeeded")
        answers = until(lambda: caller.control.ping(timeout=1) or [], what="a pong")
        pongs = [name for answer in answers for name in answer]
    assert [dispatcher.wait(job.id).state for job in dispatcher.jobs()] == ["sent", "sent"]
    assert taken_by_number(running.sandbox) == {"+447700900017": 1, "+447700900018": 1}
    assert [name.split("@")[0] for name in pongs] == ["shop"], "who controls the shop's workers reaches no others"
    calls_back(callback_broker_url=broker)
    for order in (17, 18):
        worker.wait_for(f"'order-{order} is sent'")
    said = worker.output()
    (stand,) = [line for line in said.splitlines() if line.startswith(STAND)]
    assert json.loads(stand.removeprefix(STAND)) == {"current": "shop", "default": "shop", "root": True, "ours": []}
    assert "unregistered" not in said, "no message of ours came to it"
    assert "447700900" not in said
    if broker != running.url:
        ours = (b"d:", b"disp:")
        with redis.Redis.from_url(broker) as client:
            assert [key for key in client.scan_iter() if key.startswith(ours)] == []
        assert [key for key in running.redis.scan_iter() if not key.startswith(ours)] == []


UNTOUCHED: Final = f"""
import json, logging
from celery import Celery, current_app
logging.basicConfig(level="WARNING", format="mine: %(message)s")
app = Celery("shop")
before = logging.root.level, [*logging.root.handlers]
from dispatcher import Dispatcher
with Dispatcher(broker_url={AWAY!r}) as one:
    one.send({phone(1)!r}, "Hello", provider="textgoto")
after = logging.root.level, [*logging.root.handlers]
print(json.dumps({{"log": before == after, "app": current_app.main}}))
"""


def test_who_uses_it_keeps_default_app_and_log(environment: dict[str, str], tmp_path: Path) -> None:
    """What Dispatcher has to say goes through the application's own handlers."""
    warning, told = python(tmp_path, environment, "-c", UNTOUCHED).splitlines()
    assert warning.startswith("mine: 1 jobs are stored")
    assert json.loads(told) == {"log": True, "app": "shop"}


@pytest.mark.parametrize("results", [AWAY, "elsewhere://"], ids=["that are away", "that only its worker can reach"])
def test_what_the_shops_celery_is_told_is_not_told_to_ours(
    results: str, dispatcher: Dispatcher, environment: dict[str, str], tmp_path: Path
) -> None:
    """Celery lets its environment win over any configuration, which is the shop's to use."""
    shops = {"CELERY_BROKER_URL": AWAY, "CELERY_RESULT_BACKEND": results}
    program = "import celery_app; print('job', celery_app.text_shipped(17))"
    job = python(tmp_path, {**environment, **shops}, "-c", program).partition("job ")[2].strip()
    assert dispatcher.wait(job).state == "sent"


def test_its_follower_goes_on_where_it_stopped(
    dispatcher: Dispatcher, environment: dict[str, str], tmp_path: Path
) -> None:
    """Whatever happened meanwhile is told, what was told before is not, and what concerns others never is."""
    kept = tmp_path / "events.cursor"

    def text(order: int, tenant: str = "shop") -> None:
        job = dispatcher.send(phone(order), "Hello", provider="textgoto", tenant=tenant, reference=f"order-{order}")
        dispatcher.wait(job.id)

    def followed(name: str, until_told: str) -> list[str]:
        follower = Process(["-m", "celery_app"], environment, tmp_path, name)
        try:
            follower.wait_for(until_told)
            last = str(list(dispatcher.events("0", timeout=0))[-1].cursor)
            until(lambda: kept.exists() and kept.read_text() == last)
        finally:
            follower.kill()
        return follower.output().splitlines()

    text(17)
    assert followed("first", "order-17 job.sent\n") == ["order-17 job.sent"]
    text(19, tenant="another")
    text(100)
    text(18)
    assert followed("second", "order-18 job.sent\n") == ["order-100 job.failed", "order-18 job.sent"]
