"""`dispatcher doctor` and `dispatcher init` as they are typed, beside a real server and the sandbox."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from tests.acceptance.conftest import Typed
from tests.support import Deployment, Server, clean_environment
from workers.sandbox.client import Sandbox

#: In every secret setting; it is never to be seen.
CANARY: Final = "canary-hunter2"
KEYS: Final = {"secret_key": f"{CANARY} of 32 characters at least", "hash_key": f"another {CANARY} of 32 characters"}


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def findings(self) -> dict[str, dict[str, Any]]:
        """The objects of `--json`, by what was looked at; of several of one kind the worst."""
        found = [msgspec.json.decode(line, type=dict[str, Any]) for line in self.out.splitlines()]
        assert all(set(one) == {"check", "status", "message", "way_out"} for one in found)
        order = ["ok", "warning", "problem"]
        return {one["check"]: one for one in sorted(found, key=lambda one: order.index(one["status"]))}

    @property
    def wrong(self) -> dict[str, str]:
        """What is not well."""
        return {name: one["status"] for name, one in self.findings.items() if one["status"] != "ok"}


Shell = Callable[..., Ended]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Type `dispatcher ARGUMENTS` in an empty folder, with these settings."""

    def shell(*arguments: str, settings: Mapping[str, str] | None = None) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "dispatcher.cli", *arguments],
            cwd=tmp_path,
            env={**clean_environment(), **_environment(settings)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return _ended(ended.returncode, ended.stdout, ended.stderr)

    return shell


@pytest.fixture
def run(typed: Typed) -> Shell:
    """Do the same without waiting for an interpreter to start."""

    def run(*arguments: str, settings: Mapping[str, str] | None = None) -> Ended:
        return _ended(*typed(_environment(settings), *arguments))

    return run


def _environment(settings: Mapping[str, str] | None) -> dict[str, str]:
    return {f"DISPATCHER_{name.upper()}": value for name, value in (settings or {}).items()}


def _ended(code: int, out: str, err: str) -> Ended:
    assert CANARY not in out + err
    assert "Traceback" not in err
    return Ended(code, out, err)


def account(sandbox: Sandbox, uid: str, pwd: str, name: str = "textgoto") -> dict[str, str]:
    """The settings of an account at the sandbox, which is not told that it is one."""
    told = {"adapter": "textgoto", "uid": uid, "pwd": pwd, "base_url": sandbox.url}
    return {f"providers__{name}__{field}": value for field, value in told.items()}


def test_a_deployment_that_is_well_is_told_so(shell: Shell, run: Shell, redis_url: str, sandbox: Sandbox) -> None:
    settings = {"redis_url": redis_url, "sandbox": "1", "sandbox_url": sandbox.url}
    ended = shell("doctor", settings=settings)
    assert (ended.code, ended.err) == (0, "")
    *lines, last = ended.out.splitlines()
    assert all(line.startswith("ok       ") for line in lines)
    assert last == "0 problems, 0 warnings"
    assert "account textgoto: its credentials work; balance 1000000.000, available 1000010.000" in ended.out

    listed = run("doctor", "--json", settings=settings)
    assert (listed.code, listed.err, listed.wrong) == (0, "", {})
    assert len(listed.out.splitlines()) == len(lines)
    assert listed.findings["sandbox"]["message"] == f"the sandbox at {sandbox.url} answers"


def test_live_accounts_are_all_asked_and_each_is_judged(run: Shell, own_valkey: Server, sandbox: Sandbox) -> None:
    place = own_valkey.url.removeprefix("redis://")
    settings = {
        # A server without a password lets anyone in who names none, or any.
        "redis_url": f"redis://default:{CANARY}@{place}",
        "broker_url": f"amqp://user:{CANARY}@127.0.0.1:1//",
        "callback_secret": f"whsec_{base64.b64encode(CANARY.encode().ljust(24, b'.')).decode()}",
        **KEYS,
        **account(sandbox, "sandbox", "sandbox"),
        **account(sandbox, "sandbox", CANARY, "wrong"),
        **account(sandbox, "broke", "sandbox", "broke"),
        **account(Sandbox("http://127.0.0.1:1"), "sandbox", CANARY, "away"),
        "providers__half__adapter": "textgoto",
        "providers__half__uid": CANARY,
    }
    ended = run("doctor", "--json", settings=settings)
    assert ended.code == 1
    assert ended.wrong == {
        "broker.reachable": "problem", "account.wrong": "problem", "account.broke": "problem",
        "account.away": "problem", "account.half": "problem",
    }  # fmt: skip
    way_out = {name: one["way_out"] for name, one in ended.findings.items()}
    assert "DISPATCHER_PROVIDERS__WRONG__PWD" in way_out["account.wrong"]
    assert "top it up" in way_out["account.broke"]
    assert "DISPATCHER_PROVIDERS__AWAY__BASE_URL" in way_out["account.away"]
    assert "DISPATCHER_PROVIDERS__HALF__PWD is not set" in ended.findings["account.half"]["message"]
    assert {row.action for row in sandbox.ledger()} == {"CHECK_BALANCE"}, "nobody is texted to find out"


@pytest.mark.parametrize("fault", ["503", "html", "garbage", "drop-before"])
def test_a_provider_that_does_not_answer_well_is_told(run: Shell, redis_url: str, sandbox: Sandbox, fault: str) -> None:
    sandbox.fault(fault)
    ended = run("doctor", "--json", settings={"redis_url": redis_url, **KEYS, **account(sandbox, "sandbox", CANARY)})
    assert ended.wrong.keys() == {"account.textgoto"}
    assert ended.findings["account.textgoto"]["way_out"]


def test_an_application_needs_no_credentials(run: Shell, running: Deployment) -> None:
    """Its accounts are known from their workers."""
    settings = {"redis_url": running.url, **KEYS}
    ended = run("doctor", "--json", settings=settings)
    assert "its credentials are with them" in ended.findings["account.broke"]["message"]
    assert ended.wrong == {"redis.owner": "problem"}, "and it wants live jobs where the sandbox's are"


def test_it_begins_in_an_empty_folder(run: Shell, tmp_path: Path) -> None:
    begun = run("init")
    assert (begun.code, begun.err) == (0, "")
    assert (tmp_path / "dispatcher.toml").stat().st_mode & 0o777 == 0o600
    looked = run("doctor", "--json")
    assert (looked.code, looked.err) == (1, "")
    assert looked.wrong == {"settings.keys": "warning", "redis.reachable": "problem", "account": "warning"}
    assert "dispatcher.toml" in looked.findings["settings.sources"]["message"]
    way_out = looked.findings["redis.reachable"]["way_out"]
    assert "dispatcher.toml" in way_out
    assert "dispatcher up" in way_out
    again = run("init")
    assert (again.code, again.out) == (1, "")
    assert "--force" in again.err


def test_what_the_file_then_says_is_heard(run: Shell, tmp_path: Path, redis_url: str, sandbox: Sandbox) -> None:
    run("init")
    file = tmp_path / "dispatcher.toml"
    text = file.read_text()
    for name, value in {"redis_url": redis_url, **KEYS}.items():
        text = text.replace(f'#{name} = ""', f'{name} = "{value}"')
    others, _, own = text.partition("#[providers.textgoto]")
    own = own.replace('#uid = ""', 'uid = "sandbox"', 1).replace('#pwd = ""', 'pwd = "sandbox"', 1)
    own = own.replace("#base_url = ", f'base_url = "{sandbox.url}" # ', 1)
    file.write_text(f"{others}[providers.textgoto]{own}")
    ended = run("doctor", "--json")
    assert (ended.code, ended.wrong) == (0, {})
    assert "credentials work" in ended.findings["account.textgoto"]["message"]
    file.chmod(0o644)
    assert run("doctor", "--json").wrong == {"settings.files": "warning"}
