"""`dispatcher doctor` judges what it saw: each finding, its words and its way out, and no secret in any of them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import redis.exceptions
from pydantic import SecretStr

from dispatcher import doctor, redis_check
from dispatcher.findings import Finding, Status, ok, problem, warning
from dispatcher.outcomes import Failure, FailureKind, Found
from dispatcher.redis_check import Seen
from dispatcher.settings import Settings
from dispatcher.settings import usable as read
from tests.unit.support import HASH_KEY, SECRET_KEY, URL, leaks, settings
from workers import probe
from workers.adapters import adapter
from workers.providers.base import Adapter

OK, WARNING, PROBLEM = Status.OK, Status.WARNING, Status.PROBLEM

#: A key as `openssl rand -base64 32` makes it, and another.
KEY: Final = "fpWBOtp8uUYwmhHDbWKWuRzSVBv1uBTVFWnNH6bGxOM="
OTHER_KEY: Final = KEY[::-1]
CANARY: Final = "canary-hunter2"


def told(findings: Iterable[Finding]) -> list[tuple[str, Status]]:
    """What was looked at and how it is."""
    return [(one.check, one.status) for one in findings]


def words(findings: Iterable[Finding]) -> str:
    return "\n".join(one.words for one in findings)


def test_a_finding_says_in_one_sentence_what_is_and_what_to_do() -> None:
    assert ok("a", "all is well").words == "all is well"
    assert warning("a", "it is slow", "wait").words == "it is slow; wait"
    assert problem("a", "it is gone", "find it").status == "problem"


# -- Redis: the connection ---------------------------------------------------------------------------------------------


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


#: What the client raises, and words of the finding.
AWAY = {
    "a wrong password": (redis.exceptions.AuthenticationError("WRONGPASS"), "password is wrong or missing"),
    "no rights": (redis.exceptions.NoPermissionError("User app ..."), "allows this user nothing"),
    "loading": (redis.exceptions.BusyLoadingError("LOADING"), "loading its data"),
    "no such host": (caused(redis.exceptions.ConnectionError(), socket.gaierror(-2, "")), "there is no such name"),
    "another's certificate": (
        caused(redis.exceptions.ConnectionError(), ssl.SSLCertVerificationError("self-signed")),
        "ssl_ca_certs",
    ),
    "no TLS": (caused(redis.exceptions.ConnectionError(), ssl.SSLError("WRONG_VERSION_NUMBER")), "write redis://"),
    "nobody": (caused(redis.exceptions.ConnectionError(), ConnectionRefusedError()), "nobody listens"),
    "no socket file": (caused(redis.exceptions.ConnectionError(), FileNotFoundError()), "nobody listens"),
    "silence": (redis.exceptions.TimeoutError("Timeout connecting"), "says nothing for 5 s"),
    "something else": (redis.exceptions.InvalidResponse("Protocol Error: HTTP/1.1"), "is no Redis"),
    "the door": (redis.exceptions.ConnectionError("Connection closed by server."), "closes the connection"),
    "its own words": (redis.exceptions.ResponseError("DB index is out of range"), "DB index is out of range"),
    "what nobody knows": (ValueError(CANARY), "ValueError"),
}


@pytest.mark.parametrize(("error", "named"), AWAY.values(), ids=AWAY)
def test_why_redis_cannot_be_asked_is_said_in_plain_words(error: Exception, named: str) -> None:
    found = redis_check.unreachable(error, "redis.internal:6379")
    assert (found.check, found.status) == ("redis.reachable", PROBLEM)
    assert named in found.words
    assert "redis.internal:6379" in found.message
    assert found.way_out
    assert not leaks(found.words, CANARY)


@pytest.mark.parametrize(("ms", "status"), [(0.2, OK), (49.9, OK), (50.0, WARNING), (900, WARNING)])
def test_a_redis_far_away_is_told(ms: float, status: Status) -> None:
    found = redis_check.reachable(ms, "redis.internal:6379")
    assert found.status == status
    assert f"{ms:.1f} ms" in found.message


PUBLIC: Final = ["8.8.8.8"]

#: A URL, the addresses of its host, and what is found.
EXPOSED: dict[str, tuple[str, list[str], list[tuple[str, Status]]]] = {
    "the loopback": ("redis://127.0.0.1:6379/0", ["127.0.0.1"], [("redis.exposure", OK)]),
    "a private network": ("redis://redis", ["10.0.0.7"], [("redis.exposure", OK)]),
    "a carrier's network": ("redis://redis", ["100.64.0.1"], [("redis.exposure", OK)]),
    "IPv6 of one's own": ("redis://redis", ["fd00::1", "fe80::1%eth0"], [("redis.exposure", OK)]),
    "a socket file": ("unix:///run/redis.sock", [], [("redis.exposure", OK)]),
    "nobody knows where": ("redis://redis.invalid", [], []),
    "public, open": ("redis://redis", PUBLIC, [("redis.exposure", PROBLEM), ("redis.tls", WARNING)]),
    "public, password": (f"redis://:{CANARY}@redis", PUBLIC, [("redis.tls", WARNING)]),
    "public, password behind a question mark": (
        f"redis://redis?password={CANARY}",
        PUBLIC,
        [("redis.tls", WARNING)],
    ),
    "public, TLS": ("rediss://redis", PUBLIC, [("redis.exposure", PROBLEM)]),
    "public, both": (f"rediss://:{CANARY}@redis", PUBLIC, [("redis.exposure", OK)]),
    "public by one of its addresses": ("redis://redis", ["10.0.0.7", "2606:4700::1"], [
        ("redis.exposure", PROBLEM), ("redis.tls", WARNING),
    ]),
}  # fmt: skip


@pytest.mark.parametrize(("url", "addresses", "expected"), EXPOSED.values(), ids=EXPOSED)
def test_a_public_address_wants_a_password_and_tls(
    url: str, addresses: list[str], expected: list[tuple[str, Status]]
) -> None:
    found = list(redis_check.exposure(url, addresses))
    assert told(found) == expected
    assert not leaks(words(found), CANARY)


def test_a_name_that_is_none_has_no_addresses() -> None:
    assert redis_check.addresses("redis://127.0.0.1:6379/0") == ["127.0.0.1"]
    assert redis_check.addresses("redis://redis.invalid") == []
    assert redis_check.addresses("unix:///run/redis.sock") == []


# -- Redis: what it says of itself -------------------------------------------------------------------------------------

MB: Final = 1 << 20

#: What looks, what INFO says, and the finding.
INFO: dict[str, tuple[Any, Mapping[str, Any], Status, str]] = {
    "Redis": (redis_check.version, {"redis_version": "7.4.1"}, OK, "Redis 7.4.1"),
    "Redis, just new enough": (redis_check.version, {"redis_version": "6.2.0"}, OK, "Redis 6.2.0"),
    "Redis, too old": (redis_check.version, {"redis_version": "6.0.16"}, PROBLEM, "Redis 6.2"),
    "Redis, of a build": (redis_check.version, {"redis_version": "255.255.255"}, OK, "255"),
    "Valkey, which says it is Redis 7.2.4": (
        redis_check.version,
        {"redis_version": "7.2.4", "valkey_version": "9.1.2"},
        OK,
        "Valkey 9.1.2",
    ),
    "Valkey, too old": (
        redis_check.version,
        {"redis_version": "7.2.4", "valkey_version": "7.1.0"},
        PROBLEM,
        "Valkey 7.2",
    ),
    "a version in words": (redis_check.version, {"redis_version": "unstable"}, PROBLEM, "unstable"),
    "no version": (redis_check.version, {}, WARNING, "does not tell"),
    "a primary": (redis_check.role, {"role": "master", "redis_mode": "standalone"}, OK, "primary"),
    "a replica": (redis_check.role, {"role": "slave"}, PROBLEM, "primary"),
    "a cluster": (redis_check.role, {"role": "master", "cluster_enabled": 1}, PROBLEM, "cluster mode off"),
    "Valkey's cluster": (redis_check.role, {"role": "master", "server_mode": "cluster"}, PROBLEM, "cluster mode off"),
    "a sentinel": (redis_check.role, {"redis_mode": "sentinel"}, PROBLEM, "Sentinel"),
    "no role": (redis_check.role, {}, WARNING, "replica"),
    "it keeps all": (redis_check.eviction, {"maxmemory_policy": "noeviction"}, OK, "noeviction"),
    "it throws away": (redis_check.eviction, {"maxmemory_policy": "allkeys-lru"}, PROBLEM, "set maxmemory-policy"),
    "it throws some away": (redis_check.eviction, {"maxmemory_policy": "volatile-ttl"}, PROBLEM, "volatile-ttl"),
    "no policy": (redis_check.eviction, {}, WARNING, "maxmemory-policy"),
    "an append-only file": (redis_check.durability, {"aof_enabled": 1}, OK, "append-only"),
    "none": (redis_check.durability, {"aof_enabled": 0}, PROBLEM, "set appendonly yes"),
    "no word of it": (redis_check.durability, {}, WARNING, "append-only"),
    "a disk that takes all": (
        redis_check.writes,
        {"aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok", "aof_last_bgrewrite_status": "ok"},
        OK,
        "disk",
    ),
    "a full disk": (redis_check.writes, {"aof_last_write_status": "err"}, PROBLEM, "append-only file"),
    "no snapshot": (redis_check.writes, {"rdb_last_bgsave_status": "err"}, WARNING, "snapshot"),
    "no rewrite": (redis_check.writes, {"aof_last_bgrewrite_status": "err"}, WARNING, "rewrite"),
    "enough memory": (redis_check.memory, {"used_memory": 70 * MB, "maxmemory": 100 * MB}, OK, "70 MB of 100 MB"),
    "little memory": (redis_check.memory, {"used_memory": 71 * MB, "maxmemory": 100 * MB}, WARNING, "71%"),
    "its machine's": (
        redis_check.memory,
        {"used_memory": 512, "maxmemory": 0, "total_system_memory": 3 << 30},
        OK,
        "512 bytes of 3.0 GB on its machine",
    ),
    "little of its machine's": (
        redis_check.memory,
        {"used_memory": 80 * MB, "maxmemory": 0, "total_system_memory": 100 * MB},
        WARNING,
        "80%",
    ),
    "no limit": (redis_check.memory, {"used_memory": MB, "maxmemory": 0}, OK, "no limit"),
    "no word of memory": (redis_check.memory, {}, WARNING, "memory"),
}  # fmt: skip


@pytest.mark.parametrize(("judge", "info", "status", "named"), INFO.values(), ids=INFO)
def test_what_info_says_is_judged(judge: Any, info: Mapping[str, Any], status: Status, named: str) -> None:
    found = judge(info)
    assert found.status == status
    assert named in found.words
    assert bool(found.way_out) is (status != OK)


#: What CONFIG says, and what is found.
CONFIG: dict[str, tuple[dict[str, str] | None, list[tuple[str, Status]]]] = {
    "as it should be": ({"appendfsync": "everysec", "hash-max-ziplist-value": "1024"}, [("redis.fsync", OK)]),
    "each command": ({"appendfsync": "always", "hash-max-ziplist-value": "2048"}, [("redis.fsync", OK)]),
    "whenever": ({"appendfsync": "no", "hash-max-ziplist-value": "1024"}, [("redis.fsync", WARNING)]),
    "the server's own default": ({"appendfsync": "everysec", "hash-max-ziplist-value": "64"}, [
        ("redis.fsync", OK), ("redis.packing", WARNING),
    ]),
    "not allowed": (None, [("redis.config", WARNING)]),
    "nothing of it": ({}, []),
}  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), CONFIG.values(), ids=CONFIG)
def test_what_only_config_says_is_judged(config: dict[str, str] | None, expected: list[tuple[str, Status]]) -> None:
    assert told(redis_check.configuration(config)) == expected


@pytest.mark.parametrize(
    ("ahead", "status", "named"),
    [(0.0, OK, "agree"), (-1.9, OK, "agree"), (2.1, WARNING, "2 s ahead"), (-3600, WARNING, "3600 s behind"),
     (None, WARNING, "does not tell")],
)  # fmt: skip
def test_clocks_that_differ_are_told(ahead: float | None, status: Status, named: str) -> None:
    found = redis_check.clock(ahead)
    assert found.status == status
    assert named in found.words


def test_a_redis_without_scripts_is_of_no_use() -> None:
    assert redis_check.scripts(allowed=True).status == OK
    assert redis_check.scripts(allowed=False).status == PROBLEM


LIVE: Final = settings()
TAG: Final = LIVE.hashed("hash key").encode()

#: Our settings, `d:mode` and `d:hk`, and the finding.
OWNERS: dict[str, tuple[Settings, list[bytes | None] | None, Status, str]] = {
    "nobody's": (LIVE, [None, None], OK, "no jobs"),
    "ours": (LIVE, [b"live", TAG], OK, "live ones"),
    "ours, before there were keys": (LIVE, [b"live", None], OK, "live ones"),
    "the sandbox's": (LIVE, [b"sandbox", TAG], PROBLEM, "DISPATCHER_SANDBOX"),
    "not the sandbox's": (settings(sandbox=True), [b"live", TAG], PROBLEM, "a Redis (or a database number) of its own"),
    "another key's": (LIVE, [b"live", b"other"], PROBLEM, "DISPATCHER_HASH_KEY"),
    "a key's, and we have none": (settings(hash_key=""), [b"live", TAG], WARNING, "DISPATCHER_HASH_KEY"),
    "behind a door": (LIVE, None, PROBLEM, "~d:*"),
}


@pytest.mark.parametrize(("ours", "here", "status", "named"), OWNERS.values(), ids=OWNERS)
def test_jobs_that_are_not_ours_are_told(
    ours: Settings, here: list[bytes | None] | None, status: Status, named: str
) -> None:
    found = redis_check.owner(ours, here)
    assert (found.check, found.status) == ("redis.owner", status)
    assert named in found.words


def test_what_may_not_be_asked_is_a_warning_and_stops_nothing() -> None:
    shut = Seen(ping_ms=0.1, scripts=False)
    assert told(redis_check.judged(shut, LIVE)) == [
        ("redis.reachable", OK), ("redis.info", WARNING), ("redis.config", WARNING), ("redis.clock", WARNING),
        ("redis.scripts", PROBLEM), ("redis.owner", PROBLEM),
    ]  # fmt: skip


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "document", "folder", "status", "named"),
    [
        ([], None, None, WARNING, "dispatcher init"),
        (["PATH", "DISPATCHER_LEASE"], None, None, OK, "1 variable of the environment"),
        (["DISPATCHER_LEASE", "dispatcher_tick"], {"tick": 1}, None, OK, "2 variables of the environment, dispatcher."),
        ([], {}, None, OK, "nothing is set"),
        ([], None, Path(".dispatcher"), OK, "data folder .dispatcher"),
    ],
    ids=["nowhere", "the environment", "environment and file", "a file with nothing in it", "the data folder"],
)  # fmt: skip
def test_where_settings_come_from_is_said(
    environment: list[str], document: dict[str, Any] | None, folder: Path | None, status: Status, named: str
) -> None:
    found = doctor.sources(environment, document, folder)
    assert found.status == status
    assert named in found.words


#: A variable that nobody heeds, and what was meant.
TYPOS = {
    "DISPATCHER_REDISURL": "DISPATCHER_REDIS_URL",
    "DISPATCHER_REDIS__URL": "DISPATCHER_REDIS_URL",
    "dispatcher_redis_uri": "DISPATCHER_REDIS_URL",
    "DISPATCHER_SECRET_KEYS_FILE": "DISPATCHER_SECRET_KEY",
    "DISPATCHER_PROVIDER__TEXTGOTO__PWD": "DISPATCHER_PROVIDERS__TEXTGOTO__PWD",
    "DISPATCHER_PROVIDERS_TEXTGOTO_PWD": "DISPATCHER_PROVIDERS__<NAME>__<FIELD>",
    "DISPATCHER_COLOUR": "unset it",
}


@pytest.mark.parametrize(("variable", "meant"), TYPOS.items(), ids=TYPOS)
def test_a_variable_that_nobody_heeds_is_told_with_what_was_meant(variable: str, meant: str) -> None:
    (found,) = doctor.unknown_variables([variable, "PATH"])
    assert found.status == WARNING
    assert found.message.startswith(f"{variable} is no setting")
    assert meant in found.way_out


def test_every_setting_is_known_by_its_variables() -> None:
    variables = [f"DISPATCHER_{name.upper()}{ending}" for name in Settings.model_fields for ending in ("", "_FILE")]
    variables += ["DISPATCHER_PROVIDERS__TEXTGOTO__PWD", "DISPATCHER_PROVIDERS__TEXTGOTO__PWD_FILE", "CELERY_X"]
    assert list(doctor.unknown_variables(variables)) == []


@pytest.mark.parametrize(
    ("document", "meant"),
    [
        ({"REDIS_URL": CANARY}, "did you mean redis_url?"),
        ({"provider": {"textgoto": {"pwd": CANARY}}}, "did you mean providers?"),
        ({"uid": CANARY}, "[providers.NAME]"),
    ],
    ids=["in capitals", "a letter short", "outside its table"],
)
def test_a_name_in_the_file_that_nobody_heeds_is_told(document: dict[str, Any], meant: str) -> None:
    (found,) = doctor.unknown_names(document)
    assert found.status == WARNING
    assert meant in found.way_out
    assert not leaks(found.words, CANARY)


def test_what_the_file_holds_for_others_is_left_alone() -> None:
    assert list(doctor.unknown_names({"redis_url": URL, "tool": {"x": 1}, "providers": {}})) == []


@pytest.mark.parametrize(
    ("document", "secret"),
    [
        ({}, False),
        ({"lease": 90, "redis_url": "redis://127.0.0.1"}, False),
        ({"secret_key": ""}, False),
        ({"secret_key": CANARY}, True),
        ({"callback_secret": CANARY}, True),
        ({"redis_url": f"redis://:{CANARY}@redis"}, True),
        ({"broker_url": f"amqp://a:{CANARY}@broker"}, True),
        ({"providers": {"textgoto": {"pwd": CANARY}}}, True),
    ],
)
def test_a_file_with_a_secret_in_it_is_known(document: dict[str, Any], secret: bool) -> None:
    assert doctor.holds_secret(document) is secret


@pytest.mark.parametrize(
    ("mode", "status"),
    [(0o100600, OK), (0o100640, OK), (0o100644, WARNING), (0o100602, WARNING)],
    ids=["its owner's", "its group's", "everybody's to read", "everybody's to write"],
)
def test_a_secret_for_everybody_to_read_is_told(mode: int, status: Status) -> None:
    (found,) = doctor.readable_by_others({"DISPATCHER_SECRET_KEY_FILE": (Path("/run/key"), mode)})
    assert found.status == status
    assert ("chmod o-rwx /run/key" in found.way_out) is (status == WARNING)


#: Keys, and what is found; `sandbox` is off.
KEYS: dict[str, tuple[dict[str, Any], list[tuple[Status, str]]]] = {
    "both": ({"secret_key": KEY, "hash_key": OTHER_KEY}, [(OK, "set")]),
    "several": ({"secret_key": f"{KEY}, old", "hash_key": OTHER_KEY}, [(OK, "set")]),
    "none": ({}, [(WARNING, "SECRET_KEY is not set"), (WARNING, "HASH_KEY is not set")]),
    "one": ({"secret_key": KEY}, [(WARNING, "HASH_KEY is not set")]),
    "a short one": ({"secret_key": CANARY, "hash_key": OTHER_KEY}, [(WARNING, "SECRET_KEY has less than 32")]),
    "the same twice": ({"secret_key": KEY, "hash_key": KEY}, [(WARNING, "both keys are the same")]),
    "none, in the sandbox": ({"sandbox": True}, [(OK, "needs none")]),
    "one, in the sandbox": ({"sandbox": True, "secret_key": KEY}, [(OK, "set")]),
}


@pytest.mark.parametrize(("given", "expected"), KEYS.values(), ids=KEYS)
def test_keys_are_judged(given: dict[str, Any], expected: list[tuple[Status, str]]) -> None:
    found = list(doctor.keys(settings(**{"secret_key": "", "hash_key": ""} | given)))
    assert [one.status for one in found] == [status for status, _ in expected]
    assert all(named in one.words for one, (_, named) in zip(found, expected, strict=True))
    assert all("openssl rand -base64 32" in one.way_out for one in found if one.status != OK)
    assert not leaks(words(found), CANARY, KEY)


@pytest.mark.parametrize(
    ("given", "status", "named"),
    [
        ({}, OK, "reach people"),
        ({"sandbox": True, "sandbox_url": "http://127.0.0.1:8460"}, OK, "nobody is texted"),
        ({"sandbox": True}, PROBLEM, "dispatcher sandbox"),
        ({"sandbox_url": "http://127.0.0.1:8460"}, WARNING, "DISPATCHER_SANDBOX=1"),
    ],
    ids=["off", "on", "on without its address", "off with its address"],
)
def test_whether_people_are_texted_is_said(given: dict[str, Any], status: Status, named: str) -> None:
    found = doctor.sandbox(settings(**given))
    assert found.status == status
    assert named in found.words


# -- all of it, without a Redis ----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An empty folder; accounts are not asked."""
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def examined() -> list[Finding]:
    """What is found where accounts tell what they were handed."""

    def accounts(settings: Settings, published: Any) -> list[Finding]:
        return [ok("account", f"{sorted(settings.providers)} {published}")]

    return list(doctor.examine(accounts))


def test_without_any_settings_it_says_how_to_begin(here: pytest.MonkeyPatch) -> None:
    found = examined()
    assert told(found) == [
        ("settings.sources", WARNING), ("settings.values", OK), ("settings.keys", WARNING), ("settings.keys", WARNING),
        ("settings.sandbox", OK), ("redis.reachable", PROBLEM), ("account", OK),
    ]  # fmt: skip
    assert "dispatcher init" in words(found)
    assert "dispatcher up" in words(found)


def test_it_goes_on_after_everything_that_is_wrong(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of two accounts one is usable, and it is asked; each fault is told by its name, and none with its value."""
    (tmp_path / "dispatcher.toml").write_text(f"""
        REDIS_URL = "{CANARY}"
        [providers.textgoto]
        pwd = "{CANARY}"
        [providers."not a name"]
        pwd = "{CANARY}"
    """)
    (tmp_path / "dispatcher.toml").chmod(0o644)
    (tmp_path / "key").write_text(CANARY)
    (tmp_path / "key").chmod(0o604)
    for name, value in {
        "REDIS_URL": f"http://:{CANARY}@redis", "TICK": CANARY, "LEASE": "5", "HASH_KEY_FILE": "missing",
        "SECRET_KEY_FILE": "key", "REDISURL": CANARY,
    }.items():  # fmt: skip
        here.setenv(f"DISPATCHER_{name}", value)
    found = examined()
    said = words(found)
    assert not leaks(said, CANARY)
    assert [one.check for one in found if one.status == PROBLEM] == ["settings.values"] * 5, "Redis is told of once"
    for named in (
        "DISPATCHER_REDIS_URL is no URL", "DISPATCHER_TICK", "DISPATCHER_LEASE (5 s)", "'not a name'",
        "DISPATCHER_HASH_KEY_FILE names missing", "DISPATCHER_REDISURL is no setting", "REDIS_URL in dispatcher.toml",
        "chmod o-rwx key", "chmod o-rwx dispatcher.toml", "DISPATCHER_SECRET_KEY has less", "['textgoto'] None",
    ):  # fmt: skip
        assert named in said


@pytest.mark.parametrize("broken", ["x = \n", b"\xff\xfe"], ids=["no TOML", "no text"])
def test_a_file_that_makes_no_sense_is_told_and_the_rest_looked_at(
    here: pytest.MonkeyPatch, tmp_path: Path, broken: str | bytes
) -> None:
    here.setenv("DISPATCHER_BROKER_URL", "nonsense")
    (tmp_path / "dispatcher.toml").write_bytes(broken.encode() if isinstance(broken, str) else broken)
    said = words(examined())
    assert "dispatcher.toml cannot be read" in said
    assert "DISPATCHER_BROKER_URL is no URL" in said


def test_a_server_found_through_the_data_folder_is_said(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".dispatcher").mkdir()
    (tmp_path / ".dispatcher" / "runtime.json").write_text(f'{{"redis_url": "{URL}", "hash_key": "{CANARY}"}}')
    found = examined()
    assert "what runs in the data folder .dispatcher" in found[0].message
    assert "Redis at 127.0.0.1:1 is not there" in words(found)
    assert not leaks(words(found), CANARY)


def test_a_broker_that_cannot_be_used_is_told_without_its_password(here: pytest.MonkeyPatch) -> None:
    for url, shown in (
        (f"amqp://user:{CANARY}@127.0.0.1:1//", "amqp://127.0.0.1:1 cannot be used (ConnectionRefusedError)"),
        (f"redis://:{CANARY}@127.0.0.1:1/3", "redis://127.0.0.1:1 cannot be used"),
    ):
        here.setenv("DISPATCHER_REDIS_URL", URL)
        here.setenv("DISPATCHER_BROKER_URL", url)
        (found,) = [one for one in examined() if one.check == "broker.reachable"]
        assert found.status == PROBLEM
        assert shown in found.message
        assert not leaks(found.words, CANARY)


def test_settings_are_read_as_far_as_they_can_be(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment is as it was afterwards."""
    usable, faults = read()
    assert (usable.model_dump(), faults) == (settings(redis_url="", secret_key="", hash_key="").model_dump(), [])
    here.setenv("DISPATCHER_HASH_KEY_FILE", "missing")
    here.setenv("DISPATCHER_RETENTION", "3600")
    here.setenv("DISPATCHER_LEASE", "1")
    for _ in range(2):
        usable, faults = read()
        assert (usable.retention, usable.lease, usable.hash_key) == (3600, 60, SecretStr(""))
        assert len(faults) == 2


# -- accounts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def textgoto() -> Adapter:
    return adapter(settings(providers={"shop": {"adapter": "textgoto", "uid": "shop-uid", "pwd": CANARY}}), "shop")


def failed(kind: FailureKind, code: str = "", message: str = "") -> Failure:
    return Failure(kind=kind, code=code, message=message)


#: What became of asking for the balance, and the finding.
OUTCOMES: dict[str, tuple[Any, Status, str]] = {
    "an amount": (Found(result={"balance": "10.5", "currency": "EUR"}), OK, "balance 10.5 EUR"),
    "a credit line": (Found(result={"balance": "-5", "available": "5", "currency": None}), OK, "available 5"),
    "nothing left": (Found(result={"balance": "0.000", "available": "0.000"}), PROBLEM, "top it up"),
    "less than nothing": (Found(result={"balance": "-1"}), PROBLEM, "top it up"),
    "an amount in words": (Found(result={"balance": "plenty"}), OK, "plenty"),
    "no amount": (Found(result={}), OK, "its credentials work"),
    "refused": (
        failed(FailureKind.UNAUTHORIZED, "INVALID_LOGIN", "TextGoto answered INVALID_LOGIN"),
        PROBLEM,
        "correct DISPATCHER_PROVIDERS__SHOP__UID, DISPATCHER_PROVIDERS__SHOP__PWD",
    ),
    "refused, repeating them": (
        failed(FailureKind.UNAUTHORIZED, "", f"TextGoto answered BAD_PASSWORD {CANARY}"),
        PROBLEM,
        "its answer repeats a credential and is not shown",
    ),
    "no money": (failed(FailureKind.INSUFFICIENT_FUNDS, "INSUFFICIENT_CREDITS"), PROBLEM, "top it up"),
    "too often": (failed(FailureKind.THROTTLED, "429", "too many requests"), WARNING, "wait"),
    "no such name": (
        failed(FailureKind.NOT_SENT, "dns", "the provider's name could not be resolved; nothing was sent"),
        PROBLEM,
        "resolve names",
    ),
    "no trust": (failed(FailureKind.NOT_SENT, "tls", "no TLS connection could be made"), PROBLEM, "trusted"),
    "nobody there": (failed(FailureKind.NOT_SENT, "connect_refused", "refused"), PROBLEM, "SHOP__BASE_URL"),
    "no way": (failed(FailureKind.NOT_SENT, "unreachable", "unreachable"), PROBLEM, "firewall"),
    "silence": (failed(FailureKind.AMBIGUOUS, "deadline", "no whole answer; it may have been"), PROBLEM, "firewall"),
    "not allowed to": (failed(FailureKind.INVALID, "NOPE", "TextGoto answered NOPE"), PROBLEM, "NOPE"),
    "nothing to ask": (failed(FailureKind.UNSUPPORTED, "balance", "textgoto offers no balance"), OK, "offers nothing"),
}


@pytest.mark.parametrize(("outcome", "status", "named"), OUTCOMES.values(), ids=OUTCOMES)
def test_what_became_of_asking_for_the_balance_is_said(
    textgoto: Adapter, outcome: Any, status: Status, named: str
) -> None:
    found = probe.judged(textgoto, outcome)
    assert (found.check, found.status) == ("account.shop", status)
    assert named in found.words
    assert "may have been" not in found.words, "it is a question, and no message"
    assert not leaks(found.words, CANARY)


@pytest.mark.parametrize(
    ("names", "published", "expected"),
    [
        ([], [], [("account", PROBLEM)]),
        ([], None, [("account", WARNING)]),
        (["shop"], [], []),
        (["shop"], None, []),
        (["shop"], ["shop", "other"], [("account.other", OK)]),
        ([], ["b", "a"], [("account.a", OK), ("account.b", OK)]),
    ],
    ids=["none", "none here", "ours", "ours, without Redis", "ours and a worker's", "workers'"],
)
def test_accounts_may_be_with_their_workers(
    names: list[str], published: list[str] | None, expected: list[tuple[str, Status]]
) -> None:
    assert told(probe.elsewhere(names, published)) == expected


@pytest.mark.parametrize(
    ("origin", "clear"),
    [
        ("https://textgoto.com", False), ("http://textgoto.com", True), ("http://8.8.8.8:80", True),
        ("http://127.0.0.1:8460", False), ("http://10.0.0.7", False), ("http://[::1]:8460", False),
        ("http://localhost:8460", False), ("http://sandbox:8460", False), ("http://sandbox.internal", False),
    ],
)  # fmt: skip
def test_credentials_that_travel_unencrypted_are_told(origin: str, clear: bool) -> None:
    assert probe.in_clear(origin) is clear


class Broken(Adapter):
    """An adapter with a bug."""

    name, base_url = "broken", "https://broken.invalid"

    def build(self, jobs: Any) -> Any:
        raise ZeroDivisionError(CANARY)

    def parse(self, response: Any, group: Any) -> Any:
        raise AssertionError


def test_settings_of_accounts_that_cannot_work_are_told_and_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, textgoto: Adapter
) -> None:
    monkeypatch.setattr("workers.adapters.available", lambda: {"textgoto": type(textgoto), "broken": Broken})
    given = settings(
        providers={
            "textgoto": {"uid": "x"}, "nobody": {"uid": "x"}, "broken": {},
            "typo": {"adapter": "textgoto", "user": "x"},
        }
    )  # fmt: skip
    found = list(probe.accounts(given, []))
    assert {one.check: one.way_out or one.message for one in found if one.status == PROBLEM} == {
        "account.broken": "that is a bug of the adapter; tell whoever wrote it",
        "account.nobody": "set DISPATCHER_PROVIDERS__NOBODY__ADAPTER to one of them",
        "account.textgoto": "set it where this account's workers run",
        "account.typo": "there are: adapter, base_url, callback_token, concurrency, group_size, limits, low_balance, "
        "price, pwd, uid",
    }
    assert not leaks(words(found), CANARY)


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        ("", []),
        ("-> textgoto, other", [(Status.OK, "the rules of DISPATCHER_ROUTES lead to accounts that are known")]),
        (
            "category=otp -> textgoto, nobody; -> textgoto",
            [(Status.PROBLEM, "DISPATCHER_ROUTES leads to nobody ('category=otp -> textgoto, nobody')")],
        ),
    ],
    ids=["none", "known", "nobody"],
)
def test_a_rule_that_leads_to_nobody_is_told(routes: str, expected: list[tuple[Status, str]]) -> None:
    told = settings(routes=routes, providers={"textgoto": {"uid": "x"}})
    found = list(doctor.routes(told, ["other"]))
    assert [one.status for one in found] == [status for status, _ in expected]
    assert all(words in one.message for one, (_, words) in zip(found, expected, strict=True))


def test_keys_of_these_tests_are_no_keys() -> None:
    """They are short, so that a canary of theirs shows."""
    assert len(list(doctor.keys(settings(secret_key=SECRET_KEY, hash_key=HASH_KEY)))) == 2
