"""`dispatcher doctor` beside a real server that is set up well, badly, or lets it ask little; it never writes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from dispatcher import Dispatcher
from dispatcher.accounts import KEY
from dispatcher.doctor import examine
from dispatcher.embedded import binary, free_port
from dispatcher.findings import Finding, Status
from dispatcher.settings import Settings
from tests.support import WATCH, Server, phone, until

PASSWORD: Final = "canary-hunter2"
KEYS: Final[dict[str, Any]] = {"secret_key": "a secret key for tests " * 2, "hash_key": "a hash key for tests " * 2}

#: All that may be asked of Redis: none of it writes.
READING: Final = {
    "ping", "waitaof", "info", "time", "mget", "hkeys", "hget", "hgetall", "exists", "zrange", "zrevrange",
    "eval", "evalsha", "config|get",
    # What the client says of itself when it connects.
    "hello", "auth", "select", "client|setinfo",
}  # fmt: skip


@pytest.fixture
def valkey_client(own_valkey: Server) -> Iterator[Any]:
    with redis.Redis.from_url(own_valkey.url, decode_responses=True) as client:
        yield client


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, own_valkey: Server) -> Any:
    """Look at the server as it is now, by its URL or another; findings by name, accounts left out."""

    def look(url: str = "", **settings: str) -> dict[str, Finding]:
        for name, value in {"redis_url": url or own_valkey.url, **KEYS, **settings}.items():
            monkeypatch.setenv(f"DISPATCHER_{name.upper()}", value)
        found = list(examine(lambda *_: ()))
        assert PASSWORD not in "".join(one.words for one in found)
        return {one.check: one for one in found}

    return look


def wrong(found: dict[str, Finding]) -> dict[str, Status]:
    """What is not well."""
    return {name: one.status for name, one in found.items() if one.status != Status.OK}


def test_our_own_server_is_well(doctor: Any) -> None:
    found = doctor()
    assert wrong(found) == {}
    assert "Valkey 9" in found["redis.version"].message
    assert {name for name in found if name.startswith("redis.")} == {
        "redis.exposure", "redis.reachable", "redis.version", "redis.role", "redis.eviction", "redis.durability",
        "redis.writes", "redis.memory", "redis.fsync", "redis.clock", "redis.scripts", "redis.owner",
    }  # fmt: skip


#: What is configured, and what is found.
CONFIGURED: Final[dict[str, tuple[dict[str, str], dict[str, Status]]]] = {
    "a cache": ({"maxmemory-policy": "allkeys-lru"}, {"redis.eviction": Status.PROBLEM}),
    "forgetful": ({"appendonly": "no"}, {"redis.durability": Status.PROBLEM}),
    "careless": ({"appendfsync": "no"}, {"redis.fsync": Status.WARNING}),
    "full": ({"maxmemory": "1200000"}, {"redis.memory": Status.WARNING}),
    "as it comes": ({"hash-max-listpack-value": "64"}, {"redis.packing": Status.WARNING}),
    "all at once": (
        {"maxmemory-policy": "volatile-lru", "appendonly": "no", "appendfsync": "no"},
        {"redis.eviction": Status.PROBLEM, "redis.durability": Status.PROBLEM, "redis.fsync": Status.WARNING},
    ),
}


@pytest.mark.parametrize(("options", "expected"), CONFIGURED.values(), ids=CONFIGURED)
def test_a_server_that_is_set_up_badly_is_told_of(
    doctor: Any, valkey_client: Any, options: dict[str, str], expected: dict[str, Status]
) -> None:
    for name, value in options.items():
        valkey_client.config_set(name, value)
    found = doctor()
    assert wrong(found) == expected
    assert all(found[name].way_out for name in expected)


def test_whether_it_can_promise_what_durability_asks_is_told(doctor: Any, valkey_client: Any) -> None:
    assert "redis.promise" not in doctor()
    assert doctor(durability="fsync")["redis.promise"].status == Status.OK
    valkey_client.config_set("appendonly", "no")
    found = doctor(durability="fsync")["redis.promise"]
    assert (found.status, "appendonly yes" in found.way_out) == (Status.PROBLEM, True)


def test_a_password_that_is_missing_or_wrong_is_told(doctor: Any, own_valkey: Server, valkey_client: Any) -> None:
    valkey_client.config_set("requirepass", PASSWORD)
    place = own_valkey.url.removeprefix("redis://")
    for url in (own_valkey.url, f"redis://:{PASSWORD[::-1]}@{place}", f"redis://nobody:{PASSWORD}@{place}"):
        found = doctor(url)
        assert wrong(found) == {"redis.reachable": Status.PROBLEM}
        assert "the password is wrong or missing" in found["redis.reachable"].message
    assert wrong(doctor(f"redis://:{PASSWORD}@{place}")) == {}


def test_a_user_who_may_ask_little_learns_what_cannot_be_known(
    doctor: Any, own_valkey: Server, valkey_client: Any
) -> None:
    """As on a hosted server; and one who may not even work is told so."""
    place = own_valkey.url.removeprefix("redis://")
    url = f"redis://app:{PASSWORD}@{place}"
    rights = ["~d:*", "~disp:*", "&*", "+@all", "-@dangerous", f">{PASSWORD}"]
    valkey_client.execute_command("ACL", "SETUSER", "app", "on", *rights)
    assert wrong(doctor(url)) == {"redis.info": Status.WARNING, "redis.config": Status.WARNING}
    valkey_client.execute_command("ACL", "SETUSER", "app", "+info", "-eval", "resetkeys", "~app:*")
    assert wrong(doctor(url)) == {
        "redis.config": Status.WARNING,
        "redis.scripts": Status.PROBLEM,
        "redis.owner": Status.PROBLEM,
    }


def test_a_replica_is_refused(doctor: Any, valkey_client: Any) -> None:
    valkey_client.execute_command("REPLICAOF", "127.0.0.1", "1")
    assert wrong(doctor()) == {"redis.role": Status.PROBLEM}


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Run a server in cluster mode; its URL."""
    port, bus = free_port(), free_port()  # its own choice, port + 10000, is no port where the port is high
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    options += ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
    process = subprocess.Popen([binary(), *options], start_new_session=True, stdout=subprocess.DEVNULL)
    WATCH.group(process.pid, "a cluster")
    url = f"redis://127.0.0.1:{port}/0"

    def answers() -> bool:
        try:
            with redis.Redis.from_url(url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        until(answers, what="the cluster")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def test_a_cluster_is_refused(doctor: Any, tmp_path: Path) -> None:
    with cluster(tmp_path) as url:
        found = doctor(url)
    assert found["redis.role"].status == Status.PROBLEM
    assert "cluster mode off" in found["redis.role"].way_out


def test_a_server_that_is_gone_is_told(doctor: Any, own_valkey: Server) -> None:
    own_valkey.stop()
    found = doctor()
    assert wrong(found) == {"redis.reachable": Status.PROBLEM}
    assert f"127.0.0.1:{own_valkey.port}" in found["redis.reachable"].message


def test_jobs_of_others_are_told(doctor: Any, own_valkey: Server) -> None:
    with Dispatcher(redis_url=own_valkey.url, providers={"textgoto": {"uid": "x"}}, **KEYS) as dispatcher:
        dispatcher.send(phone(1), "Hello", provider="textgoto")
    assert wrong(doctor()) == {}
    assert wrong(doctor(hash_key="another hash key for tests " * 2)) == {"redis.owner": Status.PROBLEM}
    found = doctor(sandbox="1", sandbox_url="http://127.0.0.1:1")
    assert wrong(found) == {"redis.owner": Status.PROBLEM}
    assert "holds live jobs" in found["redis.owner"].message


def test_a_broker_of_its_own_is_asked_too(doctor: Any, own_valkey: Server) -> None:
    found = doctor(broker_url=own_valkey.url.replace("/0", "/7"))
    assert found["broker.reachable"].status == Status.OK


def test_nothing_is_written(
    doctor: Any, own_valkey: Server, valkey_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose jobs a Redis holds is decided by the first to send or to work, not by the first to look."""
    valkey_client.hset(KEY, "theirs", "{}")
    valkey_client.config_resetstat()
    before = valkey_client.info("persistence")["rdb_changes_since_last_save"]
    published: list[Any] = []
    for name, value in {"redis_url": own_valkey.url, **KEYS}.items():
        monkeypatch.setenv(f"DISPATCHER_{name.upper()}", value)

    def accounts(_: Settings, told: Any) -> list[Finding]:
        published.append(told)
        return []

    list(examine(accounts))
    asked = {name.removeprefix("cmdstat_") for name in valkey_client.info("commandstats")}
    assert asked <= READING | {"config|resetstat", "info"}
    assert {"ping", "eval", "mget"} <= asked
    assert valkey_client.keys() == [KEY]
    assert valkey_client.info("persistence")["rdb_changes_since_last_save"] == before
    assert published == [["theirs"]]
