"""The README says what is so: its program, its commands, its settings and their defaults."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from pydantic import SecretStr

import dispatcher
from dispatcher import Batch, Dispatcher, Event, Job, Message, Settings, State
from dispatcher.cli import app
from dispatcher.processes import SANDBOX_PORT
from dispatcher.verifications import CHECKS
from workers.adapters import available

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()

#: Without the blocks.
PROSE: Final = re.sub(r"(?ms)^```.*?^```$", "", README)

COMMANDS: Final[Any] = typer.main.get_command(app)

NUMBERS: Final = {"five": 5}


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def table(first: str) -> list[list[str]]:
    """The cells of the rows of the table whose first heading this is."""
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def code(cell: str) -> list[str]:
    """The words in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# -- the program -------------------------------------------------------------------------------------------------------

#: What the names in the program stand for.
VARIABLES: Final[dict[str, Any]] = {
    "d": Dispatcher,
    "job": Job,
    "v": Job,
    "batch": Batch(Dispatcher.__new__(Dispatcher), "", []),
    "event": Event,
}


@pytest.fixture(scope="module")
def program() -> ast.Module:
    block, *_ = blocks("python")
    return ast.parse(block)


def test_the_program_imports_only_what_is_exported(program: ast.Module) -> None:
    imports = [node for node in ast.walk(program) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in imports if isinstance(node, ast.ImportFrom)] == ["dispatcher"] * len(imports)
    assert {name.name for node in imports for name in node.names} <= set(dispatcher.__all__)


def test_the_program_uses_only_what_there_is(program: ast.Module) -> None:
    for node in ast.walk(program):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.attr in dir(VARIABLES[node.value.id])


def test_the_program_calls_with_arguments_that_are_taken(program: ast.Module) -> None:
    called = []
    for node in ast.walk(program):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) == "print":
            continue
        function: Any = {"Message": Message, "Dispatcher": Dispatcher}.get(ast.unparse(node.func))
        if isinstance(node.func, ast.Attribute):
            function = getattr(Dispatcher, node.func.attr)
        positional = [None] * (len(node.args) + isinstance(node.func, ast.Attribute))
        named = {str(one.arg): None for one in node.keywords}
        signature = inspect.signature(function)
        signature.bind(*positional, **named)
        assert set(named) <= set(signature.parameters), "a method that takes anything refuses it later"
        called.append(ast.unparse(node.func))
    assert {"d.send", "d.wait", "d.verify", "d.check", "d.lookup", "d.send_many", "d.events"} <= set(called)


def test_a_code_has_as_many_tries_as_it_says() -> None:
    (tries,) = re.findall(r"(\w+) tries, one success", README)
    assert NUMBERS[tries] == CHECKS


def test_the_states_are_those_there_are() -> None:
    assert sorted(state for cells in table("state") for state in code(cells[0])) == sorted(State)


# -- commands ----------------------------------------------------------------------------------------------------------


def shown() -> Iterator[list[str]]:
    """The words of each `dispatcher ...` line that is shown to be typed, and of each in a sentence."""
    for block in blocks("console"):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["dispatcher"]:
                yield words[1:]
    for inline in re.findall(r"`dispatcher ([^`]+)`", PROSE):
        yield shlex.split(inline)


SHOWN: Final = {" ".join(words): words for words in shown()}


@pytest.mark.parametrize("words", SHOWN.values(), ids=SHOWN)
def test_a_command_that_is_shown_can_be_typed(words: list[str]) -> None:
    command, rest = COMMANDS, words
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    assert command is not COMMANDS, f"there is no command {words[0]}"
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert [word for word in rest if word.startswith("-") and word not in options] == []


def test_the_table_of_commands_has_them_all() -> None:
    told = [word.removeprefix("dispatcher ") for cells in table("command") for word in code(cells[0])]
    assert sorted(told) == sorted(COMMANDS.commands)


def test_what_make_is_told_to_do_it_can() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = {target for block in blocks("console") for target in re.findall(r"make ([a-z-]+)", block)}
    assert told <= targets
    assert told >= {"demo", "test", "install"}


# -- settings ----------------------------------------------------------------------------------------------------------


def known(setting: str) -> bool:
    """Say whether a setting, without its prefix, is one."""
    name, *rest = setting.lower().split("__")
    if name not in Settings.model_fields:
        name = name.removesuffix("_file")
    if not rest:
        return name in Settings.model_fields
    account, field = rest
    adapters = [available()[account]] if account in available() else list(available().values())
    fields = {"adapter", "base_url", "limits", "group_size", "concurrency", "callback_token", "price", "low_balance"}
    return name == "providers" and field in fields.union(*({*one.required, *one.optional} for one in adapters))


def test_every_setting_it_names_is_one() -> None:
    named = set(re.findall(r"\bDISPATCHER_([A-Z][A-Z_<>]*[A-Z>])", README))
    assert {name for name in named if not known(name)} == set()
    assert "REDIS_URL" in named


def full_names(cell: str) -> list[str]:
    """The settings of a cell: `PROVIDERS__TEXTGOTO__UID`, `__PWD` share their beginning."""
    names: list[str] = []
    for name in code(cell):
        names.append(f"{names[-1].rpartition('__')[0]}{name}" if name.startswith("__") else name)
    return names


ROWS: Final = [(full_names(cells[0]), cells[1], cells[2]) for cells in table("`DISPATCHER_...`")]


@pytest.mark.parametrize(("names", "default", "about"), ROWS, ids=[row[0][0] for row in ROWS])
def test_a_row_of_the_table_of_settings_is_so(names: list[str], default: str, about: str) -> None:
    assert [name for name in names if not known(name)] == []
    fields = [Settings.model_fields.get(name.lower()) for name in names]
    defaults = [field.get_default() for field in fields if field is not None]
    if names == ["IDEMPOTENCY_RETENTION"]:
        # It is that of the job itself.
        defaults = [Settings.model_fields["retention"].get_default()]
    told = ["" if one in (None, []) else plain(one) for one in defaults]
    assert told == said(default, len(told))
    others = [f"{names[0].rpartition('__')[0]}{name}" for name in code(about) if name.startswith("__")]
    others += [name for name in code(about) if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", name)]
    assert [name for name in others if not known(name)] == []


def plain(default: Any) -> Any:
    return default.get_secret_value() if isinstance(default, SecretStr) else default


def said(default: str, count: int) -> list[Any]:
    """Read a default as the table says it: "60, 5, 0.25", "30, 7 days", "off", words or nothing."""
    if not default or default == "the name":
        return [""] * count
    if default == "off":
        return [False, ""][:count]
    if default.startswith("`"):
        return code(default)
    unit = 86400 if default.endswith(" days") else 1
    return [float(number) * unit for number in default.removesuffix(" days").split(", ")]


def test_the_defaults_of_an_account_are_so() -> None:
    told = {name: int(number) for name, number in re.findall(r"`__([A-Z_]+)` \((\d+)\)", README)}
    # Imported without settings, that module ends the process.
    source = ast.parse((ROOT / "workers" / "celery.py").read_text())
    values = {ast.unparse(node.targets[0]): node.value for node in source.body if isinstance(node, ast.Assign)}
    slots = ast.literal_eval(values["_CONCURRENCY"])
    assert told == {"GROUP_SIZE": available()["textgoto"].group_size, "CONCURRENCY": slots}


def test_the_sandbox_listens_where_it_says() -> None:
    assert set(re.findall(r"sandbox listens at `http://127\.0\.0\.1:(\d+)`", README)) == {str(SANDBOX_PORT)}


# -- places ------------------------------------------------------------------------------------------------------------


def test_what_it_points_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    files = [word for word in code(PROSE) if re.fullmatch(r"[\w/]+\.(py|md|toml)", word) and "/" in word]
    assert [name for name in [*links, *files] if not (ROOT / name).exists()] == []
    assert "workers/execute.py" in files
