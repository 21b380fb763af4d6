"""Flower as an operator has it, in a real Chromium and over its API: what it shows, and what it must never show."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import httpx
import pytest
import redis
from celery import Celery
from flower.urls import handlers
from tornado.web import RequestHandler

from dispatcher import Dispatcher, Message, State
from dispatcher.embedded import free_port
from dispatcher.processes import FLOWER, here
from dispatcher.queues import EXECUTE, celery_app, declared
from tests import support
from tests.support import WATCH, Deployment, Process, Server, Worker, listens, until
from tests.system.canaries import KNOWN, WORDS, found, number
from tests.system.chromium import Chromium
from workers.sandbox.magic import KNOWN_CODE

#: Seconds; servers, workers and a browser have to start.
pytestmark = pytest.mark.timeout(300)

NAME: Final = "operator"
PASSWORD: Final = WORDS["Flower's password"]
REDIS_PASSWORD: Final = WORDS["Redis' password"]

#: What an application may say about a message beside its text.
ABOUT: Final[dict[str, Any]] = {
    "sender": WORDS["sender"],
    "reference": WORDS["reference"],
    "metadata": {WORDS["metadata's key"]: WORDS["metadata's value"]},
}

#: The accounts of the application and of the workers; at the second the password is wrong.
ACCOUNTS: Final = {
    "textgoto": {"uid": "sandbox", "pwd": "sandbox"},
    "wrong": {"adapter": "textgoto", "uid": WORDS["account's name"], "pwd": WORDS["account's password"]},
}

KEYS: Final = {"secret_key": WORDS["secret key"], "hash_key": WORDS["hash key"]}


def send(ending: int, provider: str = "textgoto", **more: Any) -> Callable[[Dispatcher], str]:
    """Return what sends a text that has everything a text may have."""
    key = f"{WORDS['idempotency key']}-{ending}-{provider}"
    about = {**ABOUT, "tenant": WORDS["tenant"], "idempotency_key": key, **more}
    return lambda one: one.send(number(ending), WORDS["text"], provider=provider, **about).id


def operate(operation: str, **arguments: Any) -> Callable[[Dispatcher], str]:
    return lambda one: one.operation("textgoto", operation, **arguments).id


#: Jobs whose messages travel alone: how each is enqueued, and the word it is shown with.
SINGLE: Final[dict[str, tuple[Callable[[Dispatcher], str], str]]] = {
    "taken": (send(150), "sent"),
    "a code's lane": (send(151, category="otp"), "sent"),
    "blocked": (send(100), "failed:opted_out"),
    "invalid": (send(101), "failed:invalid"),
    "an option of nobody": (send(152, options={WORDS["option"]: WORDS["option"]}), "failed:invalid"),
    "no answer": (send(108), "unknown"),
    "a wrong password": (send(153, provider="wrong"), "queued:suspended"),
    "a lookup": (lambda one: one.lookup(number(132), provider="textgoto", **_without_sender()).id, "completed"),
    "a lookup of nobody": (lambda one: one.lookup(number(130), provider="textgoto").id, "failed:invalid"),
    "an operation": (operate("list.append", list=WORDS["list"], number=number(154)), "completed"),
    "opting out": (operate("optout.add", numbers=f"{number(155)},{number(156)}"), "completed"),
    "the balance": (operate("balance"), "completed"),
    "a verification": (
        lambda one: one.verify(KNOWN, template=f"{WORDS['template']} [CODE]", provider="textgoto", **ABOUT).id,
        "sent",
    ),
}

#: How many texts a campaign has: a message of a hundred, and one of the rest.
CAMPAIGN: Final = 120


def _without_sender() -> dict[str, Any]:
    return {name: value for name, value in ABOUT.items() if name != "sender"}


class Flower(Process):
    """Flower as `dispatcher up` starts it, on a free port."""

    def __init__(self, folder: Path, name: str, environment: dict[str, str], *options: str) -> None:
        self.port = free_port()
        super().__init__(
            [*here(FLOWER)[1:], *options], {"FLOWER_PORT": str(self.port), **environment}, folder / name, name
        )
        WATCH.port(self.port, name)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listening(self) -> Flower:
        """Return once it takes connections."""

        def there() -> bool:
            assert self.popen.poll() is None, self.output()
            return listens(self.port)

        until(there, support.START, self.name)
        return self

    def client(self, auth: tuple[str, str] | None = (NAME, PASSWORD)) -> httpx.Client:
        return httpx.Client(base_url=self.url, auth=auth, trust_env=False, timeout=30)


class Stage(NamedTuple):
    """A deployment with a canary in every field, and Flower beside it."""

    deployment: Deployment
    dispatcher: Dispatcher
    #: The broker, as the application has it.
    app: Celery
    worker: Worker
    #: The worker's name, as Flower has it.
    node: str
    flower: Flower
    api: httpx.Client
    #: The ids of `SINGLE`, of which Flower has heard.
    jobs: dict[str, str]
    #: Jobs without a message: one for tomorrow, one taken back.
    silent: list[str]
    #: The ids of the campaign.
    campaign: Sequence[str]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("flower")
    with ExitStack() as stack:
        server = stack.enter_context(Server(folder / "valkey"))
        with redis.Redis.from_url(server.url) as open_yet:
            open_yet.config_set("requirepass", REDIS_PASSWORD)
        url = server.url.replace("//", f"//:{REDIS_PASSWORD}@")
        sandbox = stack.enter_context(support.sandbox(folder))
        fields = {
            f"providers__{name}__{field}": value for name, one in ACCOUNTS.items() for field, value in one.items()
        }
        at = {f"providers__{name}__base_url": sandbox.url for name in ACCOUNTS}
        # A deadline that leaves time to look at a request on its way.
        settings = {"sandbox": "", "sandbox_url": "", "deadline": "10", "lease": "25", **KEYS, **fields, **at}
        deployment = Deployment(url, sandbox, folder, settings)
        deployment.cold = True
        stack.callback(deployment.close)
        dispatcher = deployment.client(sandbox=False, providers=ACCOUNTS, **KEYS)
        app = celery_app(dispatcher.settings)
        stack.callback(app.close)
        worker = deployment.worker("-l", "DEBUG", queues="textgoto,wrong", name="first")
        # It gets all that the workers have, as from `dispatcher up`.
        own = {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_BASIC_AUTH": f"{NAME}:{PASSWORD}"}
        flower = Flower(folder, "flower", {**deployment.environment, **own})
        stack.callback(flower.stop)
        api = stack.enter_context(flower.listening().client())
        # Events are not kept for who comes later.
        (node,) = until(lambda: online(api), what="the worker in Flower")
        jobs = {label: enqueue(dispatcher) for label, (enqueue, _) in SINGLE.items()}
        messages = [campaigned(n) for n in range(CAMPAIGN)]
        campaign = dispatcher.send_many(messages, provider="textgoto", tenant=WORDS["tenant"], **ABOUT)
        silent = [send(n, send_at=time.time() + 86400)(dispatcher) for n in (157, 158)]
        dispatcher.cancel(silent[1])
        verify(dispatcher, jobs["a verification"])
        campaign.wait(timeout=60)
        until(lambda: all(ended(api, one) for one in jobs.values()), 30, "the end of every job in Flower")
        yield Stage(deployment, dispatcher, app, worker, node, flower, api, jobs, silent, campaign.jobs.ids)


def campaigned(n: int) -> Message:
    """Return one of a campaign's texts; of the first few one is invalid and one's answer gets lost."""
    ending = {3: 101, 4: 108}.get(n, 170 + n % 30)
    return Message(number(ending), f"{WORDS['text of a batch']} {n // 30}")


def verify(dispatcher: Dispatcher, id_: str) -> None:
    """Type a wrong code, then the right one."""
    assert dispatcher.wait(id_).state == State.SENT
    assert not dispatcher.check(id_, WORDS["wrong code"]).valid
    assert dispatcher.check(id_, KNOWN_CODE).valid


def online(api: httpx.Client) -> list[str]:
    """Return the workers that Flower takes for alive."""
    return [node for node, alive in api.get("/api/workers?status=1").json().items() if alive]


def ended(api: httpx.Client, id_: str, state: str = "SUCCESS") -> bool:
    told = api.get(f"/api/task/info/{id_}")
    return told.status_code == 200 and told.json()["state"] == state


@pytest.fixture(scope="module")
def browser(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Be an operator who has the password."""
    with Chromium(tmp_path_factory.mktemp("browser") / "chromium") as one:
        one.authorize(NAME, PASSWORD)
        yield one


class TestJobs:
    def test_one_is_found_by_its_id(self, stage: Stage, browser: Chromium) -> None:
        """As an operator does it: the id into the search field, a click on what is left."""
        id_ = stage.jobs["invalid"]
        browser.visit(f"{stage.flower.url}/tasks")
        assert len(browser.rows("#tasks-table")) > 1
        browser.type("#tasks-table_filter input", id_)
        until(lambda: len(browser.rows("#tasks-table")) == 1, what="one row")
        (row,) = browser.rows("#tasks-table")
        assert {id_, "SUCCESS"} <= {*row}
        browser.follow(f"#tasks-table a[href$='{id_}']")
        shown = browser.text()
        assert id_ in shown
        assert "SUCCESS" in shown
        assert "'failed:invalid'" in shown

    def test_the_result_is_a_short_word(self, stage: Stage) -> None:
        told = {label: stage.api.get(f"/api/task/info/{id_}").json() for label, id_ in stage.jobs.items()}
        assert {label: one["result"] for label, one in told.items()} == {
            label: f"'{word}'" for label, (_, word) in SINGLE.items()
        }
        ids = {label: [one["uuid"], one["args"], one["kwargs"]] for label, one in told.items()}
        assert ids == {label: [id_, f"(['{id_}'],)", "{}"] for label, id_ in stage.jobs.items()}

    def test_those_with_one_word_are_found_by_it(self, stage: Stage, browser: Chromium) -> None:
        browser.visit(f"{stage.flower.url}/tasks")
        browser.type("#tasks-table_filter input", "result:failed:opted_out")
        until(
            lambda: [row[1] for row in browser.rows("#tasks-table")] == [stage.jobs["blocked"]], what="the blocked job"
        )

    def test_a_message_of_many_shows_how_many_ended_how_and_some_of_the_ids(self, stage: Stage) -> None:
        tasks = stage.api.get("/api/tasks").json()
        many = [one for id_, one in tasks.items() if id_ not in stage.jobs.values()]
        counts: dict[str, int] = {}
        for one in many:
            for count, word in re.findall(r"(\d+) ([\w:]+)", one["result"]):
                counts[word] = counts.get(word, 0) + int(count)
        assert sum(counts.values()) >= CAMPAIGN
        assert counts["sent"] > CAMPAIGN / 2
        shown = [id_ for id_ in stage.campaign if any(id_ in one["args"] for one in many)]
        assert 0 < len(shown) < len(stage.campaign)

    def test_of_what_waits_without_a_message_it_knows_nothing(self, stage: Stage, browser: Chromium) -> None:
        """The job store knows: `dispatcher job ID`."""
        for id_ in stage.silent:
            assert stage.api.get(f"/api/task/info/{id_}").status_code == 404
            browser.visit(f"{stage.flower.url}/task/{id_}")
            assert f"Unknown task '{id_}'" in browser.text()
        assert [stage.dispatcher.get(id_).state for id_ in stage.silent] == [State.QUEUED, State.CANCELLED]


class TestPrivacy:
    def test_nothing_private_is_on_any_page_or_in_any_answer(self, stage: Stage, browser: Chromium) -> None:
        """Every page as it is drawn and as it is made, each answer that it needs, and the API, are searched."""
        # One message cannot be executed at all.
        stage.app.send_task(EXECUTE, args=([],), kwargs={"ids": []}, task_id="broken", queue=declared("textgoto"))  # type: ignore[arg-type]  # as in dispatcher.queues
        until(lambda: ended(stage.api, "broken", "FAILURE"), what="the task that fails")
        node = quote(stage.node)
        chunk = next(id_ for id_ in stage.api.get("/api/tasks").json() if id_ not in stage.jobs.values())
        # And one request is under way, since a worker's page shows what it is doing.
        hangs = send(110)(stage.dispatcher)
        until(lambda: stage.api.get(f"/api/task/info/{hangs}").status_code == 200, what="the job that hangs")
        # The list of tasks remembers what was looked for in it.
        browser.forget(stage.flower.url)
        seen: dict[str, str] = {}
        for path in (f"/worker/{node}", *pages(stage), f"/task/{chunk}", f"/task/{hangs}", "/task/broken"):
            browser.visit(stage.flower.url + path)
            seen[path] = browser.held()
            for tab in browser.run("[...document.querySelectorAll('.nav-tabs a')].map(one => one.hash)"):
                browser.click(f'a[href="{tab}"]')
                seen[path + tab] = browser.held()
        assert hangs in seen[f"/worker/{node}#tab-tasks"], "it was under way when it was looked at"
        assert "Traceback" in seen["/task/broken"]
        assert sum(id_ in seen["/tasks"] for id_ in stage.jobs.values()) > 5
        assert {"#tab-config", "#tab-broker", "#tab-queues"} <= {"#" + path.partition("#")[2] for path in seen}
        seen |= {f"{answer.url}#{n}": answer.body for n, answer in enumerate(browser.answers)}
        for path in (
            *answers(stage),
            f"/api/workers?workername={node}",
            *map("/api/task/info/{}".format, (chunk, "broken")),
        ):
            seen[path] = stage.api.get(path).text
        assert not missed({urlsplit(one).path for one in seen}), "pages of which nobody has looked at any"

        # What Flower's package brings is the same for everyone.
        ours = {where: said for where, said in seen.items() if "/static/" not in where}
        assert sorted((field, where) for where, said in ours.items() for field in found(said)) == []

    def test_nor_in_a_log_or_a_command_line(self, stage: Stage) -> None:
        said = {"the worker's log": stage.worker.output(), "Flower's log": stage.flower.output(), **command_lines()}
        assert sorted((field, where) for where, one in said.items() for field in found(one)) == []
        assert {"worker", "flower"} <= {word for line in command_lines().values() for word in line.split()}

    def test_the_canaries_were_there(self, stage: Stage) -> None:
        """What was asked and what is set holds them all, but for what is hashed or not even told to its owner."""
        jobs = [stage.dispatcher.get(one, reveal=True).to_dict() for one in (*stage.jobs.values(), *stage.campaign)]
        known = json.dumps([jobs, stage.deployment.environment, PASSWORD])
        assert {*WORDS, "number"} - found(known) == {"idempotency key", "list", "wrong code"}

    def test_what_flower_is_told_it_shows_and_the_search_finds(self, stage: Stage, browser: Chromium) -> None:
        """Else the tests above would pass whatever happened: an argument with a canary comes to page and API."""
        words = {"kwargs": repr({"to": number(150)}), "result": repr(WORDS["text"])}
        with (
            stage.app.connection_for_write() as broker,
            stage.app.events.Dispatcher(broker, hostname="nobody@here") as events,
        ):
            for kind in ("task-received", "task-started", "task-succeeded"):
                events.send(kind, uuid="leak", name="leak", args="()", runtime=0.1, **words)
        until(lambda: ended(stage.api, "leak"), what="the leak in Flower")
        browser.visit(f"{stage.flower.url}/task/leak")
        answer = stage.api.get("/api/task/info/leak").text
        assert found(browser.held()) == found(browser.text()) == found(answer) == {"number", "text"}


def pages(stage: Stage) -> list[str]:
    """Return the paths of what a person may look at."""
    jobs = [f"/task/{id_}" for id_ in stage.jobs.values()]
    return ["/", "/workers", "/workers?refresh=1", "/tasks", *jobs, "/broker", "/login", "/logout", "/nowhere"]


def answers(stage: Stage) -> list[str]:
    """Return the paths of what a program may ask."""
    id_ = stage.jobs["taken"]
    return [
        *("/api/workers?refresh=1", "/api/workers?status=1", "/api/workers", "/workers?json=1"),
        *("/api/tasks", "/api/tasks?sort_by=-received&limit=5", "/api/tasks?search=sent", "/api/tasks?search=("),
        *(f"/api/task/info/{one}" for one in (*stage.jobs.values(), *stage.silent)),
        *("/api/task/types", "/api/queues/length", f"/api/task/result/{id_}", "/metrics", "/healthcheck"),
    ]


def missed(paths: set[str]) -> list[str]:
    """Return the patterns of Flower's own table of pages that no path fits, of those that answer to GET."""
    table = [(one.regex.pattern, one.handler_class) if hasattr(one, "regex") else one[:2] for one in handlers]
    return [
        pattern
        for pattern, handler in table
        if handler.get is not RequestHandler.get and not any(re.fullmatch(pattern, path) for path in paths)
    ]


def command_lines() -> dict[str, str]:
    """Return the command line of everything that the tests started but for the browser, by process."""
    groups = {one.popen.pid for one in WATCH.processes}
    lines = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(place.name)) in groups:
                lines[f"process {place.name}"] = (place / "cmdline").read_text().replace("\0", " ").strip()
    return lines


def _base64(word: str) -> str:
    return base64.b64encode(word.encode()).decode()


DISGUISES: Final[dict[str, tuple[str, str]]] = {
    "a word as it is": ("text", f"sent {WORDS['text']}!"),
    "a word in another case": ("text", WORDS["text"].upper()),
    "a word backwards": ("text", WORDS["text"][::-1]),
    "a word in hexadecimal digits": ("text", WORDS["text"].encode().hex()),
    "a word in base64": ("text", _base64(WORDS["text"])),
    "a word in base64 behind one byte": ("text", _base64(f"x{WORDS['text']}yz")),
    "a word in base64 behind two bytes": ("text", _base64(f'"a{WORDS["text"]}"')),
    "a password in a URL": ("Redis' password", f"redis://:{REDIS_PASSWORD}@127.0.0.1/0"),
    "a number": ("number", number(150)),
    "a number in a URL": ("number", quote(number(150))),
    "a number without its plus": ("number", number(150)[1:]),
    "a number as people write it": ("number", "+44 (0) 7700 900 150"),
    "a number at home": ("number", "07700 900150"),
    "a number's last digits": ("number", "to 900150."),
    "a number of which too much is shown": ("number", "***150"),
    "a number in base64": ("number", _base64(json.dumps({"to": number(150)}))),
    "a code": ("code", f"Your code is {KNOWN_CODE}."),
    "a code in base64": ("code", _base64(f"Your code is {KNOWN_CODE}.")),
}


@pytest.mark.parametrize(("field", "said"), DISGUISES.values(), ids=DISGUISES)
def test_the_search_finds(field: str, said: str) -> None:
    assert found(said) == {field}


@pytest.mark.parametrize("said", ["***50", "1790012345.012837", "0.900150", "redis://:**@127.0.0.1:6379/0"])
def test_the_search_finds_nothing_where_nothing_is(said: str) -> None:
    assert found(said) == set()


#: What needs no password: who is asked whether Flower lives, what counts for Prometheus, and pages that say nothing.
OPEN: Final = {"/metrics", "/healthcheck", "/logout", "/login", "/nowhere"}


class TestPassword:
    @pytest.mark.parametrize("auth", [None, (NAME, ""), (NAME, "wrong"), ("", PASSWORD), ("", "")], ids=str)
    def test_without_it_there_is_nothing(self, stage: Stage, auth: tuple[str, str] | None) -> None:
        with stage.flower.client(auth) as stranger:
            told = {path: stranger.get(path) for path in (*pages(stage), *answers(stage), "/tasks/datatable")}
            told["to shut a worker down"] = stranger.post(f"/api/worker/shutdown/{stage.node}")
        assert {path for path, one in told.items() if one.status_code != 401} == OPEN
        said = "".join(one.text for one in told.values())
        assert found(said) == set()
        assert not [id_ for id_ in stage.jobs.values() if id_ in said], "of jobs, the open ones only count"

    def test_browsers_are_told_to_ask_for_it(self, stage: Stage) -> None:
        with stage.flower.client(None) as stranger:
            assert stranger.get("/").headers["WWW-Authenticate"] == 'Basic realm="flower"'


NOBODY: Final = {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}
EVERYWHERE: Final = ["--address=0.0.0.0"]

#: What is set and what is asked for, where Flower would be open to everyone.
REFUSED: Final[dict[str, tuple[dict[str, str], list[str]]]] = {
    "no password": ({}, EVERYWHERE),
    "no password, by a setting": ({"FLOWER_ADDRESS": "0.0.0.0"}, []),  # noqa: S104 - it must not come so far
    "no password, IPv6": ({}, ["--address=::"]),
    "nothing for a password": ({"FLOWER_BASIC_AUTH": ""}, EVERYWHERE),
    "a name alone": ({"FLOWER_BASIC_AUTH": "name"}, EVERYWHERE),
    "a name and a colon": ({"FLOWER_BASIC_AUTH": "name:"}, EVERYWHERE),
    "a password alone": ({"FLOWER_BASIC_AUTH": ":password"}, EVERYWHERE),
    "half a password, at home": ({"FLOWER_BASIC_AUTH": "name:"}, []),
    "a name for an address": ({}, ["--address=host.example"]),
    "one of two without a password": ({"FLOWER_BASIC_AUTH": "name:password,other:"}, EVERYWHERE),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Flower]]:
    """Start them all at once: each takes seconds to load."""
    folder = tmp_path_factory.mktemp("refused")
    started = {
        label: Flower(folder, f"refused{n}", {**NOBODY, **environment}, *options)
        for n, (label, (environment, options)) in enumerate(REFUSED.items())
    }
    yield started
    for one in started.values():
        one.kill()


class TestWhereItListens:
    @pytest.mark.parametrize("label", REFUSED)
    def test_it_refuses_to_be_open_to_everyone(self, label: str, refused: dict[str, Flower]) -> None:
        """One paragraph that names the setting and the way out."""
        one = refused[label]
        assert one.wait(60) not in {0, None}
        (told,) = [line for line in one.output().splitlines() if line.strip()]
        assert told.startswith("dispatcher: ")
        assert "FLOWER_BASIC_AUTH" in told
        assert "name:password" in told

    def test_left_alone_it_listens_on_the_loopback_only(self, tmp_path: Path) -> None:
        one = Flower(tmp_path, "bare", NOBODY).listening()
        try:
            assert listening_at(one.port) == {"127.0.0.1"}
            for address in own_addresses():
                with pytest.raises(OSError, match="refused"):
                    socket.create_connection((address, one.port), timeout=5).close()
            with one.client(None) as anybody:
                assert anybody.get("/").status_code == 200
                # Another website's script would reach it from the operator's browser.
                assert anybody.get("/api/tasks").status_code == 401
        finally:
            # It would wait for a Redis that is not there.
            one.kill()


def own_addresses() -> list[str]:
    """Return the addresses of this machine at which others reach it; there may be none."""
    told = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout
    return told.split()


def listening_at(port: int) -> set[str]:
    """Return the addresses at which somebody listens on a port, in this machine's tables; proc(5) has their columns."""
    found_at = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        file = Path("/proc/net", table)
        for line in file.read_text().splitlines()[1:] if file.exists() else ():
            _, local, _, state, *_ = line.split()
            address, _, at = local.partition(":")
            if state == "0A" and int(at, 16) == port:
                # Words of 32 bits, each in the order of this machine.
                words = [bytes.fromhex(address[n : n + 8])[::-1] for n in range(0, len(address), 8)]
                found_at.add(socket.inet_ntop(family, b"".join(words)))
    return found_at


class TestWorkers:
    """Near the end: the first worker does not come back."""

    def test_one_that_dies_is_shown_offline_and_its_queues_fill_until_another_comes(
        self, stage: Stage, browser: Chromium
    ) -> None:
        browser.visit(f"{stage.flower.url}/workers")
        until(lambda: status(browser, stage.node) == "Online", what="the worker online")

        stage.worker.kill()
        # Nobody looks: the page renews itself.
        until(lambda: status(browser, stage.node) == "Offline", 60, "the worker offline")
        waiting = [send(n)(stage.dispatcher) for n in (160, 161, 162)]
        waiting += [send(n, category="otp")(stage.dispatcher) for n in (163, 164)]
        browser.visit(f"{stage.flower.url}/broker")
        depths = {row[0]: row[1] for row in browser.rows("#queue-table")}
        assert (depths["textgoto"], depths["textgoto.high"]) == ("3", "2")
        assert f"{stage.node}.beat" in depths
        lengths = stage.api.get("/api/queues/length").json()["active_queues"]
        assert {one["name"]: str(one["messages"]) for one in lengths} == depths

        browser.visit(f"{stage.flower.url}/workers")
        second = stage.deployment.worker(queues="textgoto,wrong", name="second")
        node = f"second@{stage.node.partition('@')[2]}"
        until(lambda: status(browser, node) == "Online", 60, "the new worker")
        assert status(browser, stage.node) == "Offline"
        assert {stage.dispatcher.wait(id_).state for id_ in waiting} == {State.SENT}
        until(lambda: all(ended(stage.api, id_) for id_ in waiting), what="what it did in Flower")
        browser.visit(f"{stage.flower.url}/broker")
        assert {row[1] for row in browser.rows("#queue-table") if row[0].startswith("textgoto")} == {"0"}
        browser.visit(f"{stage.flower.url}/workers?refresh=1")
        until(lambda: f"{node}.beat" in stage.api.get("/broker").text, what="its own queue, once Flower has asked it")
        second.stop()


def status(browser: Chromium, node: str) -> str:
    """Return how a worker is shown on the page of all."""
    browser.settle()
    shown = {"".join(row[0].split()): row[1] for row in browser.rows("#workers-table") if len(row) > 1}
    return shown.get(node, "nowhere")


#: Settings that the page recommends.
RECOMMENDED: Final = {
    "FLOWER_READ_ONLY": "true",
    "FLOWER_TASKS_COLUMNS": "received,uuid,result,state,worker",
    "FLOWER_URL_PREFIX": "flower",
}

PAGE: Final = Path(__file__).parents[2] / "docs" / "flower.md"


class TestPage:
    """docs/flower.md."""

    def test_what_it_recommends_works(self, stage: Stage, browser: Chromium, tmp_path: Path) -> None:
        """The words in the list of tasks, no button that harms, a place below a proxy's path; and it needs no key."""
        assert {name for name, value in RECOMMENDED.items() if f"{name}={value}" in PAGE.read_text()} == {*RECOMMENDED}
        own = {"FLOWER_ADDRESS": "127.0.0.1", "FLOWER_BASIC_AUTH": f"{NAME}:{PASSWORD}"}
        environment = {"DISPATCHER_REDIS_URL": stage.deployment.url, **own, **RECOMMENDED}
        one = Flower(tmp_path, "recommended", environment).listening()
        worker = stage.deployment.worker(queues="textgoto", name="third")
        try:
            with one.client() as api:
                api.base_url = api.base_url.join("/flower/")
                until(lambda: [node for node in online(api) if node.startswith("third@")], what="the worker")
                id_ = send(165)(stage.dispatcher)
                until(lambda: ended(api, id_), what="the job")
                refused = api.post(f"/api/task/revoke/{id_}")
                assert (refused.status_code, refused.text) == (403, "Read only mode is enabled")
            browser.visit(f"{one.url}/flower/tasks")
            (row,) = browser.rows("#tasks-table")
            assert row[1:4] == [id_, "'sent'", "SUCCESS"]
            browser.visit(f"{one.url}/flower/task/{id_}")
            assert not browser.run("document.querySelectorAll('#task-revoke, #task-terminate').length")
            with one.client() as api:
                assert {api.get(path).status_code for path in ("/", "/tasks", "/metrics")} == {404}
        finally:
            worker.stop()
            one.stop()

    @pytest.mark.parametrize("word", sorted({word for _, word in SINGLE.values()}))
    def test_it_explains_every_word(self, word: str) -> None:
        assert f"| `{word}` |" in PAGE.read_text()

    def test_its_pictures_are_there_and_small(self) -> None:
        pictures = [PAGE.parent / one for one in re.findall(r"!\[.+\]\((.+)\)", PAGE.read_text())]
        assert len(pictures) == 4
        sizes = [(int.from_bytes(one.read_bytes()[16:20]), one.stat().st_size) for one in pictures]
        assert all(width == 1200 and size < 150_000 for width, size in sizes), sizes
