"""`dispatcher init` writes a `dispatcher.toml` that says what is so: every setting, its meaning and its default."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest
import typer

from dispatcher.cli import app, main
from dispatcher.doctor import holds_secret
from dispatcher.scaffold import COMMON, Provider, toml
from dispatcher.settings import Settings, load
from workers import adapters
from workers.adapters import adapter, available

FILE: Final = Path("dispatcher.toml")

#: A setting that is commented out; words have a blank behind their #.
SETTING: Final = re.compile(r"^#(?=[a-z_]+ = |\[)", re.MULTILINE)

COMMANDS: Final = typer.main.get_command(app)


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Init = Callable[..., Ended]


@pytest.fixture
def init(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Init:
    """Run `dispatcher init OPTIONS` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def init(*options: str) -> Ended:
        monkeypatch.setattr(typer.main, "get_command", lambda _: COMMANDS)
        monkeypatch.setattr(sys, "argv", ["dispatcher", "init", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return init


@pytest.fixture
def text(init: Init) -> str:
    """What is written."""
    assert init().code == 0
    return FILE.read_text(encoding="utf-8")


# -- the text ----------------------------------------------------------------------------------------------------------


def uncommented(text: str) -> dict[str, Any]:
    return tomllib.loads(SETTING.sub("", text))


def test_as_it_is_it_sets_nothing(text: str) -> None:
    assert tomllib.loads(text) == {}
    assert load() == Settings()


def test_every_setting_is_in_it_with_its_default(text: str) -> None:
    FILE.write_text(SETTING.sub("", text), encoding="utf-8")
    read = load()
    untouched = Settings.model_validate({})
    for name, field in Settings.model_fields.items():
        if name != "providers":
            assert getattr(read, name) == getattr(untouched, name), name
            assert (name in uncommented(text)) is (field.get_default() is not None), name
            assert re.search(rf"^#(?: (?=\w+ = \.\.\.))?{name} = ", text, re.MULTILINE), name


def test_every_setting_has_its_meaning_above_it(text: str) -> None:
    """A setting without a `#:` comment in `Settings` is one that nobody explains."""
    for paragraph in text.split("\n\n")[1:]:
        first, *_, last = paragraph.splitlines()
        assert re.match(r"# [A-Z]", first), f"{last} has no meaning; write it above the setting in Settings, after #:"


def test_numbers_have_a_unit(text: str) -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in {int, float}:
            (meaning,) = re.findall(rf"^# (.*)\n#{name} = ", text, re.MULTILINE)
            assert re.match(r"Seconds|Requests|Attempts|Jobs|Bytes|The share|The port", meaning), name


def test_every_adapter_has_a_table_that_its_account_can_have(text: str) -> None:
    tables = uncommented(text)["providers"]
    assert set(tables) == set(available())
    for name, table in tables.items():
        found = available()[name]
        assert set(table) >= {*found.required, *found.optional, *COMMON}
        FILE.write_text(SETTING.sub("", text), encoding="utf-8")
        credentials = {field: f"some-{field}" for field in found.required}
        made = adapter(load(providers={name: credentials}), name)
        assert made.origin == found.base_url
        assert table["group_size"] == found.group_size


def test_common_settings_are_all_that_this_release_knows(text: str) -> None:
    assert set(COMMON) == adapters._COMMON
    source = (Path(adapters.__file__).parent / "celery.py").read_text(encoding="utf-8")
    assert re.search(r"^_CONCURRENCY = 64$", source, re.MULTILINE), "what the file says of an account's concurrency"


def test_what_is_secret_says_where_it_is_better(text: str) -> None:
    secret = [name for name in Settings.model_fields if holds_secret({name: "x:y@z"}) and name != "providers"]
    assert secret == [
        "redis_url", "broker_url", "secret_key", "hash_key", "callback_secret", "callback_broker_url",
    ]  # fmt: skip
    fields = [f"PROVIDERS__TEXTGOTO__{field.upper()}" for field in available()["textgoto"].required]
    for name in [*(one.upper() for one in secret), *fields]:
        assert f"better DISPATCHER_{name}, or DISPATCHER_{name}_FILE" in text
    assert text.count("openssl rand -base64 32") == 3


def test_an_adapter_that_somebody_adds_is_in_it() -> None:
    pigeon = Provider(
        name="pigeon", base_url="https://pigeon.invalid", group_size=1, required=["ring"], optional=["seeds"]
    )
    written = toml([pigeon])
    assert uncommented(written)["providers"]["pigeon"] == {
        "ring": "", "seeds": "", "adapter": "pigeon", "base_url": "https://pigeon.invalid", "group_size": 1,
        "limits": "", "concurrency": 64, "callback_token": "", "price": "", "low_balance": "",
    }  # fmt: skip
    assert "Needed; better DISPATCHER_PROVIDERS__PIGEON__RING" in written
    assert "Not needed; better DISPATCHER_PROVIDERS__PIGEON__SEEDS" in written


def test_lines_are_no_longer_than_a_screen(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 118


# -- the file ----------------------------------------------------------------------------------------------------------


def test_it_is_its_owners_alone_whatever_the_umask(init: Init) -> None:
    before = os.umask(0)
    try:
        ended = init()
    finally:
        os.umask(before)
    assert (ended.code, ended.err) == (0, "")
    assert FILE.stat().st_mode & 0o777 == 0o600


def test_it_tells_the_next_two_steps(init: Init) -> None:
    told = init().out
    assert told.index("dispatcher doctor") < told.index("dispatcher up")
    document = msgspec.json.decode(init("--force", "--json").out)
    assert document == {"file": "dispatcher.toml", "kept": None, "next": ["dispatcher doctor", "dispatcher up"]}


@pytest.mark.parametrize("there", ["a file", "a link to nowhere"])
def test_one_that_is_there_is_left_alone(init: Init, there: str) -> None:
    if there == "a file":
        FILE.write_text("hash_key = 'mine'")
    else:
        FILE.symlink_to("nowhere")
    ended = init()
    assert (ended.code, ended.out) == (1, "")
    assert "--force" in ended.err
    assert ended.err.count("\n") == 1
    assert not FILE.exists() or FILE.read_text() == "hash_key = 'mine'"
    assert not Path("nowhere").exists()


def test_forced_it_keeps_what_was_there(init: Init) -> None:
    """A hash key that is lost is lost for ever."""
    for number, kept in enumerate(("dispatcher.toml.bak", "dispatcher.toml.bak1")):
        FILE.write_text(f"hash_key = 'mine {number}'")
        FILE.chmod(0o600)
        ended = init("--force")
        assert ended.code == 0
        assert f"the one before it is {kept}" in ended.out
        assert Path(kept).read_text() == f"hash_key = 'mine {number}'"
        assert Path(kept).stat().st_mode & 0o777 == 0o600
        assert tomllib.loads(FILE.read_text()) == {}


def test_forced_over_its_own_it_keeps_no_copy(init: Init) -> None:
    init()
    FILE.chmod(0o644)
    assert init("--force").code == 0
    assert [path.name for path in Path().iterdir()] == ["dispatcher.toml"]
    assert FILE.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_told(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dispatcher.scaffold.os.open", refuse)
    ended = init()
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "dispatcher: dispatcher.toml cannot be written here: Permission denied\n"
