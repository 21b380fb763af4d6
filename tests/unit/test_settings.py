"""Settings come from the environment, secret files, `dispatcher.toml` and a data folder; none ever shows a secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from dispatcher.errors import ConfigurationError
from dispatcher.settings import Settings, load
from tests.unit.support import HASH_KEY, SECRET_KEY, URL, leaks
from tests.unit.support import settings as made

#: Passwords that something on the way might take for something else.
PASSWORDS = [
    pytest.param("1e5", id="a number in disguise"),
    pytest.param("true", id="a truth value"),
    pytest.param("null", id="null"),
    pytest.param("007", id="leading noughts"),
    pytest.param('{"a":1}', id="JSON"),
    pytest.param("[1,2]", id="a JSON list"),
    pytest.param('"quoted"', id="quotes"),
    pytest.param("a,b__c=d e#f$g", id="separators"),
    pytest.param("пароль🙂", id="other alphabets"),
]


#: What may sign callbacks.
SIGNS: Final = f"whsec_{'canary' * 6}"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start where there is no `dispatcher.toml` and no data folder, with none of the developer's own settings."""
    monkeypatch.chdir(tmp_path)
    for name in [one for one in os.environ if one.upper().startswith("DISPATCHER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with nothing of ours but a Redis."""
    monkeypatch.setenv("DISPATCHER_REDIS_URL", URL)
    return monkeypatch


# -- the environment ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("DISPATCHER_REDIS_URL", "redis://127.0.0.1:2/5", "redis_url", "redis://127.0.0.1:2/5"),
        ("DISPATCHER_BROKER_URL", "amqp://127.0.0.1//", "broker_url", "amqp://127.0.0.1//"),
        ("DISPATCHER_SANDBOX", "1", "sandbox", True),
        ("DISPATCHER_SANDBOX_URL", "http://127.0.0.1:3", "sandbox_url", "http://127.0.0.1:3"),
        ("DISPATCHER_DATA", "elsewhere", "data", Path("elsewhere")),
        ("DISPATCHER_SECRET_KEY", "1e5", "secret_key", SecretStr("1e5")),
        ("DISPATCHER_HASH_KEY", "true", "hash_key", SecretStr("true")),
        ("DISPATCHER_CALLBACK_SECRET", SIGNS, "callback_secret", SecretStr(SIGNS)),
        ("DISPATCHER_CALLBACK_URL", "https://hooks.example.com/?a=1", "callback_url", "https://hooks.example.com/?a=1"),
        ("DISPATCHER_ALLOW_CARD_DATA", "true", "allow_card_data", True),
        ("DISPATCHER_LEASE", "90.5", "lease", 90.5),
        ("DISPATCHER_DEADLINE", "5", "deadline", 5.0),
        ("DISPATCHER_RETENTION", "3600", "retention", 3600.0),
        ("DISPATCHER_CONNECTIONS", "16", "connections", 16),
        ("dispatcher_max_attempts", "3", "max_attempts", "3"),
    ],
)
def test_a_setting_is_read_from_its_variable(
    env: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    env.setenv(variable, value)
    assert getattr(load(), field) == expected


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_stays_what_it_is(env: pytest.MonkeyPatch, password: str) -> None:
    env.setenv("DISPATCHER_PROVIDERS__TEXTGOTO__UID", "acme")
    env.setenv("DISPATCHER_PROVIDERS__TEXTGOTO__PWD", password)
    env.setenv("DISPATCHER_SECRET_KEY", password)
    told = load()
    assert told.account("textgoto") == {"uid": "acme", "pwd": password}
    assert told.secret_key.get_secret_value() == password


def test_two_accounts_at_one_vendor_are_two_names(env: pytest.MonkeyPatch) -> None:
    env.setenv("DISPATCHER_PROVIDERS__SHOP_A__ADAPTER", "textgoto")
    env.setenv("DISPATCHER_PROVIDERS__SHOP_A__UID", "a")
    env.setenv("DISPATCHER_PROVIDERS__SHOP_B__ADAPTER", "textgoto")
    env.setenv("DISPATCHER_PROVIDERS__SHOP_B__GROUP_SIZE", "5")
    told = load()
    assert told.account("shop_a") == {"adapter": "textgoto", "uid": "a"}
    assert told.account("shop_b") == {"adapter": "textgoto", "group_size": "5"}
    assert told.account("shop_c") == {}


def test_without_any_settings_there_is_no_redis_and_the_words_say_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_REDIS_URL is not set; point it at your Redis"):
        _ = load().redis
    with pytest.raises(ConfigurationError, match="DISPATCHER_REDIS_URL"):
        _ = load().broker


def test_settings_stay_as_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        made().lease = 1.0  # type: ignore[misc]


# -- secret files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_secret_may_lie_in_a_file(env: pytest.MonkeyPatch, tmp_path: Path, password: str) -> None:
    """Its last line break is the editor's, not the secret's."""
    file = tmp_path / "secret"
    file.write_text(password + "\n", encoding="utf-8")
    env.setenv("DISPATCHER_SECRET_KEY_FILE", str(file))
    env.setenv("DISPATCHER_PROVIDERS__TEXTGOTO__PWD_FILE", str(file))
    told = load()
    assert told.secret_key.get_secret_value() == password
    assert told.account("textgoto") == {"pwd": password}


def test_redis_with_its_password_may_lie_in_a_file_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:canary@127.0.0.1:1/0")
    monkeypatch.setenv("DISPATCHER_REDIS_URL_FILE", str(tmp_path / "url"))
    assert load().redis == "redis://:canary@127.0.0.1:1/0"


def test_a_file_that_is_not_there_is_named_with_its_variable(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env.setenv("DISPATCHER_HASH_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_HASH_KEY_FILE names .*missing, which cannot be read"):
        load()


def test_a_file_that_is_no_text_is_named_and_not_shown(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"canary\xff\xfe")
    env.setenv("DISPATCHER_HASH_KEY_FILE", str(tmp_path / "binary"))
    with pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY_FILE") as refused:
        load()
    assert not leaks(str(refused.value), "canary")


# -- the file ----------------------------------------------------------------------------------------------------------


def toml(text: str) -> None:
    """Write `dispatcher.toml` where the program was started."""
    Path("dispatcher.toml").write_text(text, encoding="utf-8")


def test_settings_are_read_from_a_file_where_the_program_was_started() -> None:
    toml("""
        redis_url = "redis://127.0.0.1:9/0"
        lease = 75
        [providers.textgoto]
        uid = "acme"
        pwd = "true"
        group_size = 50
    """)
    told = load()
    assert (told.redis, told.lease) == ("redis://127.0.0.1:9/0", 75)
    assert told.account("textgoto") == {"uid": "acme", "pwd": "true", "group_size": "50"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("redis_url = ", "dispatcher.toml", id="no TOML"),
        pytest.param("secret_key = 'canary", "dispatcher.toml", id="a quote that never ends"),
        pytest.param("[providers]\ntextgoto = 'canary'", "DISPATCHER_PROVIDERS", id="an account that is no table"),
        pytest.param("providers = 'canary'", "DISPATCHER_PROVIDERS", id="accounts that are no table"),
    ],
)
def test_a_file_that_makes_no_sense_is_a_configuration_error(text: str, words: str) -> None:
    toml(text)
    with pytest.raises(ConfigurationError, match=words) as refused:
        load()
    assert not leaks(str(refused.value), "canary")


def test_what_the_file_says_of_other_things_is_left_alone() -> None:
    toml("[tool.other]\nx = 1")
    assert load(redis_url=URL).redis == URL


# -- precedence --------------------------------------------------------------------------------------------------------


def test_each_source_wins_over_those_behind_it(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Arguments, environment, secret files, `dispatcher.toml`; a default where none says anything."""
    for number, name in enumerate(("sweep_every", "lost_after", "lease", "retention"), start=1):
        (tmp_path / name).write_text(str(300 + number))
        env.setenv(f"DISPATCHER_{name.upper()}_FILE", str(tmp_path / name))
    toml("sweep_every = 400\nlost_after = 400\nlease = 400\nretention = 400\ndeadline = 44")
    env.delenv("DISPATCHER_RETENTION_FILE")
    env.setenv("DISPATCHER_SWEEP_EVERY", "200")
    env.setenv("DISPATCHER_LOST_AFTER", "200")
    told = load(sweep_every=100)
    assert (told.sweep_every, told.lost_after, told.lease, told.retention) == (100, 200, 303, 400)
    assert (told.deadline, told.tick) == (44, 0.25)


def test_an_account_may_be_split_between_the_file_and_the_environment(env: pytest.MonkeyPatch) -> None:
    toml("[providers.textgoto]\nuid = 'from the file'\npwd = 'from the file'\n[providers.other]\nuid = 'x'")
    env.setenv("DISPATCHER_PROVIDERS__TEXTGOTO__PWD", "from the environment")
    told = load()
    assert told.account("textgoto") == {"uid": "from the file", "pwd": "from the environment"}
    assert told.account("other") == {"uid": "x"}


def test_an_argument_of_none_is_not_given(env: pytest.MonkeyPatch) -> None:
    assert load(redis_url=None).redis == URL


# -- the data folder ---------------------------------------------------------------------------------------------------


def runtime(folder: Path, told: Any = None) -> None:
    """Write what a server that runs in `folder` tells."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "redis_url": "redis://127.0.0.1:7/0", "sandbox": True, "sandbox_url": "http://127.0.0.1:8",
        "secret_key": "of the folder", "hash_key": "of the folder too",
    }  # fmt: skip
    (folder / "runtime.json").write_text(json.dumps(usual if told is None else told))


def test_a_server_that_runs_in_the_data_folder_is_found() -> None:
    runtime(Path(".dispatcher"))
    told = load()
    assert (told.redis, told.sandbox, told.sandbox_url) == ("redis://127.0.0.1:7/0", True, "http://127.0.0.1:8")
    assert told.secret_key.get_secret_value() == "of the folder"


@pytest.mark.parametrize("source", ["environment", "file", "argument"])
def test_the_data_folder_may_be_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> None:
    folder = tmp_path / "elsewhere"
    runtime(folder)
    if source == "environment":
        monkeypatch.setenv("DISPATCHER_DATA", str(folder))
    elif source == "file":
        toml(f"data = '{folder}'")
    told = load(data=folder) if source == "argument" else load()
    assert told.redis == "redis://127.0.0.1:7/0"


def test_a_redis_of_ones_own_is_not_the_sandboxs(env: pytest.MonkeyPatch) -> None:
    """Its mode and its keys stay out of it too: live jobs sealed with a demo's key would be a bad surprise."""
    runtime(Path(".dispatcher"))
    told = load()
    assert (told.redis, told.sandbox, told.sandbox_url) == (URL, False, "")
    assert told.secret_key.get_secret_value() == ""


def test_what_the_environment_says_wins_over_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime(Path(".dispatcher"))
    monkeypatch.setenv("DISPATCHER_SANDBOX_URL", "http://127.0.0.1:99")
    told = load()
    assert (told.redis, told.sandbox_url) == ("redis://127.0.0.1:7/0", "http://127.0.0.1:99")


@pytest.mark.parametrize("told", [[], "text", 3, None], ids=["a list", "a text", "a number", "half written"])
def test_a_folder_that_tells_nothing_sensible_tells_nothing(told: Any) -> None:
    runtime(Path(".dispatcher"), told)
    if told is None:
        Path(".dispatcher/runtime.json").write_text('{"redis_url": "redis://')
    with pytest.raises(ConfigurationError, match="DISPATCHER_REDIS_URL is not set"):
        _ = load().redis


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(
            {"redis_url": "canary"}, "DISPATCHER_REDIS_URL is no URL of its kind; write it like redis://", id="no URL"
        ),
        pytest.param({"redis_url": "http://canary/0"}, "DISPATCHER_REDIS_URL", id="a URL of something else"),
        pytest.param({"redis_url": "redis://h:canary/0"}, "DISPATCHER_REDIS_URL", id="a port that is none"),
        pytest.param({"broker_url": "canary"}, "DISPATCHER_BROKER_URL is no URL", id="no URL of a broker"),
        pytest.param({"sandbox_url": "canary"}, "DISPATCHER_SANDBOX_URL is no URL", id="no URL of a sandbox"),
        pytest.param({"broker_url": "rabbit://canary"}, "BROKER_URL is no URL.* or amqp://", id="no broker"),
        pytest.param({"lease": "canary"}, r"DISPATCHER_LEASE must be a valid number; unset it is 60$", id="no number"),
        pytest.param({"lease": 0}, r"DISPATCHER_LEASE must be greater than 0; unset it is 60$", id="nought"),
        pytest.param({"deadline": -1}, "DISPATCHER_DEADLINE", id="below nought"),
        pytest.param({"connections": 0}, "DISPATCHER_CONNECTIONS", id="no connections"),
        pytest.param({"connections": "1.5"}, "DISPATCHER_CONNECTIONS must be a valid int", id="half a connection"),
        pytest.param({"sandbox": "canary"}, "SANDBOX must be 0 or 1; unset it is 0", id="on nor off"),
        pytest.param({"durability": "canary"}, "must be 'redis' or 'fsync'; unset it is redis", id="no choice"),
        pytest.param({"secret_key": 17}, "DISPATCHER_SECRET_KEY", id="a key that is no text"),
        pytest.param({"lease": 20, "deadline": 30}, r"DISPATCHER_LEASE \(20 s\) must be longer than", id="short lease"),
        pytest.param({"lease": 30, "deadline": 30}, r"DISPATCHER_DEADLINE \(30 s\)", id="a lease as long as a call"),
    ],
)
def test_an_error_names_the_setting_and_never_its_value(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        load(**{"redis_url": URL} | given)
    assert not leaks(str(refused.value), "canary")


def test_all_settings_at_fault_are_named_at_once(env: pytest.MonkeyPatch) -> None:
    env.setenv("DISPATCHER_TICK", "soon")
    env.setenv("DISPATCHER_RETENTION", "long")
    with pytest.raises(ConfigurationError, match=r"DISPATCHER_RETENTION.*; DISPATCHER_TICK"):
        load()


def test_a_verification_needs_both_keys() -> None:
    """Without them a code would lie in Redis for everyone to read, or for anyone to guess."""
    made().require_secrets("a verification")
    for name in ("secret_key", "hash_key"):
        with pytest.raises(
            ConfigurationError, match=f"DISPATCHER_{name.upper()} is not set and a verification carries"
        ):
            made(**{name: ""}).require_secrets("a verification")


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_secret_shows_in_a_repr() -> None:
    told = made(
        redis_url="redis://user:canary@127.0.0.1:1/0",
        broker_url="amqp://user:canary@127.0.0.1//",
        secret_key="canary",
        hash_key="canary",
        callback_secret=SIGNS,
        callback_url="https://hooks.example.com/?token=canary",
        callback_broker_url="redis://user:canary@127.0.0.1:1/1",
        providers={"textgoto": {"uid": "canary", "pwd": "canary"}},
    )
    assert not leaks(f"{told!r} {told} {told.providers}", "canary")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:canary@redis.internal:6380/3", "redis.internal:6380"),
        ("redis://redis.internal", "redis.internal:6379"),
        ("rediss://:canary@redis.internal/0", "redis.internal:6379"),
        ("unix:///var/run/redis.sock?db=1&password=canary", "/var/run/redis.sock"),
    ],
)
def test_redis_is_shown_without_its_password(url: str, shown: str) -> None:
    assert made(redis_url=url).redis_shown == shown


def test_the_secret_key_seals_and_older_ones_open() -> None:
    sealed = made(secret_key="old").sealer().seal(b"private", "0001")
    assert made(secret_key="new, old").sealer().open(sealed, "0001") == b"private"
    assert made(secret_key="").sealer().seal(b"plain", "0001") == b"plain"


def test_hashes_need_their_key() -> None:
    assert made().hashed("number", "1") == made(secret_key="another").hashed("number", "1") != ""
    assert made(hash_key="another").hashed("number", "1") != made().hashed("number", "1")
    assert made(hash_key="").hashed("number", "1") == ""


def test_the_sandbox_seals_and_hashes_without_being_told_a_key() -> None:
    """It texts nobody, so that its keys are public; everything is sealed as usual."""
    told = made(sandbox=True, secret_key="", hash_key="")
    told.require_secrets("a verification")
    assert told.sealer()
    assert told.hashed("code", "1") != ""
    assert made(sandbox=True).hashed("code", "1") != told.hashed("code", "1"), "a key that is set is used"


def test_the_broker_is_the_same_redis_unless_told_otherwise() -> None:
    assert made().broker == URL
    assert made(broker_url="amqp://127.0.0.1//").broker == "amqp://127.0.0.1//"


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix:///run/redis.sock?db=3&password=a%26b", "redis+socket://:a%26b@/run/redis.sock?virtual_host=3"),
        ("unix://me:a%26b@/run/redis.sock", "redis+socket://me:a%26b@/run/redis.sock"),
    ],
)
def test_celery_has_words_of_its_own_for_a_socket_file(url: str, broker: str) -> None:
    assert made(redis_url=url).broker == broker


def test_every_setting_can_be_given_as_an_argument() -> None:
    told = Settings(redis_url=URL, secret_key=SecretStr(SECRET_KEY), hash_key=SecretStr(HASH_KEY))
    assert told == made()
