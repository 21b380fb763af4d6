"""`dispatcher status`: alive is who beats, through its consumer and its loop; whose process is there proves nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from dispatcher import State
from dispatcher.heartbeats import Health
from dispatcher.queues import celery_app
from dispatcher.settings import load
from dispatcher.status import Status, look
from tests.acceptance.conftest import Typed
from tests.commands import Ended
from tests.support import Deployment, Worker, phone, phones, until

#: Seconds from beat to beat: of one whose death is to be seen, and of one that a busy machine may hold up.
BEAT: Final = "0.5"
RARELY: Final = "5"


def seen(deployment: Deployment) -> Status:
    return look(load(redis_url=deployment.url, sandbox=True))


def health(deployment: Deployment) -> list[Health]:
    return [worker.health for account in seen(deployment).accounts for worker in account.workers]


def becomes(deployment: Deployment, *wanted: Health) -> None:
    until(lambda: health(deployment) == [*wanted], what=f"{wanted}")


Asked = Callable[..., Ended]


@pytest.fixture
def asked(deployment: Deployment, typed: Typed) -> Asked:
    """Run `dispatcher status ARGUMENTS`."""
    return partial(typed, deployment.environment, "status")


@pytest.fixture
def worker(deployment: Deployment) -> Worker:
    one = deployment.worker(heartbeat=BEAT)
    becomes(deployment, Health.ALIVE)
    return one


class TestAWorker:
    def test_that_works_is_alive(self, deployment: Deployment, asked: Asked) -> None:
        deployment.worker(heartbeat=RARELY)
        becomes(deployment, Health.ALIVE)
        here = asked("--worker", "textgoto", "--here")
        assert here.code == 0
        assert "is alive" in here.out
        whole = asked("--json")
        assert whole.code == 0
        told = json.loads(whole.out.splitlines()[-1])
        assert told["problems"] == []
        assert [one["health"] for one in told["accounts"][0]["workers"]] == ["alive"]

    def test_that_hangs_is_silent_though_its_process_is_there(
        self, worker: Worker, deployment: Deployment, asked: Asked
    ) -> None:
        os.killpg(worker.popen.pid, signal.SIGSTOP)
        try:
            becomes(deployment, Health.SILENT)
            assert worker.popen.poll() is None
            one = asked("--worker", "textgoto")
            assert one.code == 1
            assert "no worker of textgoto is alive" in one.err
            assert "no worker serves it; start one: dispatcher worker textgoto" in asked().out
        finally:
            os.killpg(worker.popen.pid, signal.SIGCONT)
        becomes(deployment, Health.ALIVE)

    def test_that_beats_and_takes_nothing_is_stuck(self, worker: Worker, deployment: Deployment, asked: Asked) -> None:
        """As one whose consumer did not come back after Redis did: its loop runs, its process is there."""
        with celery_app(load(redis_url=deployment.url)) as app:
            for queue in deployment.redis.zrange("d:hb", 0, -1):
                app.control.cancel_consumer(f"{queue.decode()}.beat")
            becomes(deployment, Health.STUCK)
        status = asked()
        assert status.code == 1
        assert "has free slots and takes nothing any more; restart it" in status.out

    def test_whose_slots_are_all_taken_is_full_not_stuck(self, deployment: Deployment) -> None:
        deployment.sandbox.fault("latency", seconds=4)
        deployment.worker("--concurrency", "1", heartbeat="0.2", deadline="20", lease="30")
        becomes(deployment, Health.ALIVE)
        with deployment.client() as dispatcher:
            for number in phones(4):
                dispatcher.send(number, "Hello")
            becomes(deployment, Health.FULL)
            becomes(deployment, Health.ALIVE)

    def test_told_to_stop_it_takes_leave(self, worker: Worker, deployment: Deployment) -> None:
        worker.terminate()
        assert worker.wait() == 0
        assert health(deployment) == []

    def test_killed_it_is_missed_and_another_one_is_enough(
        self, worker: Worker, deployment: Deployment, asked: Asked
    ) -> None:
        other = deployment.worker(heartbeat=BEAT, name="other")
        becomes(deployment, Health.ALIVE, Health.ALIVE)
        worker.kill()
        until(lambda: sorted(health(deployment)) == [Health.ALIVE, Health.SILENT], what="the death to be seen")
        until(lambda: asked().code == 0, what="a look at which no beat is late")
        other.stop()

    def test_an_emptied_redis_learns_of_it_again(self, worker: Worker, deployment: Deployment) -> None:
        deployment.redis.flushdb()
        becomes(deployment, Health.ALIVE)
        with deployment.client(providers={}) as dispatcher:
            assert list(dispatcher.providers()) == ["textgoto"]

    @pytest.mark.parametrize("pool", ["threads", "prefork"])
    def test_a_beat_leaves_no_trace_in_the_log_nor_in_redis(self, pool: str, deployment: Deployment) -> None:
        worker = deployment.worker("--pool", pool, "--concurrency", "2", heartbeat="0.1")
        becomes(deployment, Health.ALIVE)
        first = deployment.redis.hget("d:hb:" + deployment.redis.zrange("d:hb", 0, -1)[0].decode(), "consumed")
        until(lambda: _consumed(deployment) > int(first) + 1000, what="further beats")
        assert "dispatcher.beat" not in worker.output().partition("ready.")[2]
        worker.terminate()
        assert worker.wait() == 0
        assert [key for key in deployment.redis.keys("*") if b"beat" in key or key.startswith(b"d:hb")] == []


def _consumed(deployment: Deployment) -> int:
    (node,) = deployment.redis.zrange("d:hb", 0, -1)
    return int(deployment.redis.hget(b"d:hb:" + node, "consumed"))


class TestWhatWaits:
    def test_depths_parked_sending_and_unknown_are_counted(self, deployment: Deployment) -> None:
        with deployment.client() as dispatcher:
            for number in phones(3):
                dispatcher.send(number, "Hello")
            dispatcher.send(phone(1), "Hello", category="otp")
            dispatcher.send(phone(2), "Later", send_at=load_time(deployment) + 3600)
            (account,) = seen(deployment).accounts
            assert account.queues == {"textgoto.high": 1, "textgoto": 3}
            assert (account.queued, account.parked, account.sending, account.unknown) == (5, 1, 0, 0)
            assert account.waiting_since is not None
            assert not account.served
            assert seen(deployment).problems == [
                "textgoto: 5 jobs wait and no worker serves it; start one: dispatcher worker textgoto"
            ]
            unknown = dispatcher.send(phone(111), "Lost")
            deployment.worker(heartbeat=RARELY)
            assert dispatcher.wait(unknown.id).state == State.UNKNOWN
            becomes(deployment, Health.ALIVE)
            status = seen(deployment)
        (account,) = status.accounts
        assert (account.queued, account.parked, account.unknown) == (1, 1, 1)
        assert account.waiting_since is None
        assert status.problems == []

    def test_an_account_given_up_long_ago_is_no_problem(self, deployment: Deployment) -> None:
        worker = deployment.worker(heartbeat=BEAT)
        becomes(deployment, Health.ALIVE)
        worker.stop()
        assert seen(deployment).problems
        deployment.redis.zadd("d:ha", {"textgoto": 1})
        assert seen(deployment).problems == []


def load_time(deployment: Deployment) -> float:
    return float(deployment.redis.time()[0])


class TestServersAway:
    def test_a_redis_that_is_away_is_told_and_exits_1(self, typed: Typed) -> None:
        one = typed({"DISPATCHER_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "status")
        assert one.code == 1
        assert "Redis at 127.0.0.1:1 did not answer" in one.out
        assert "hunter2" not in one.out + one.err

    def test_a_broker_that_is_away_is_told_and_the_rest_is_shown(self, deployment: Deployment) -> None:
        status = look(load(redis_url=deployment.url, broker_url="redis://:hunter2@127.0.0.1:1/0", sandbox=True))
        assert status.redis.problem == ""
        assert "broker at 127.0.0.1:1" in status.problems[0]
        assert not any("hunter2" in one for one in status.problems)

    def test_nothing_was_ever_served(self, deployment: Deployment, asked: Asked) -> None:
        one = asked()
        assert one.code == 1
        assert "no worker has ever served this Redis" in one.out

    def test_the_server_is_told_by_its_own_name(self, deployment: Deployment) -> None:
        redis = seen(deployment).redis
        assert redis.kind == "Valkey"
        assert redis.version.startswith("9.")


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "named"), [(["--here"], "--here"), (["--worker", "nobody"], "no worker of nobody is alive")]
    )
    def test_what_cannot_be_answered_exits_not_0(
        self, arguments: list[str], named: str, deployment: Deployment, asked: Asked
    ) -> None:
        one = asked(*arguments)
        assert one.code != 0
        assert named in one.err
