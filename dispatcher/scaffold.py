"""`dispatcher init`: a `dispatcher.toml` with every setting in it, commented out.

It is made from `Settings` and from what the adapters declare, so that it says what is so.
"""

from __future__ import annotations

import inspect
import itertools
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from dispatcher.errors import ConfigurationError
from dispatcher.settings import PREFIX, TOML, Settings

_WIDTH: Final = 116

#: What `workers.celery` takes for an account that says nothing.
_CONCURRENCY: Final = 64

#: What stands above a setting in the source, as documentation tools read it, and its name.
_DOCUMENTED: Final = re.compile(r"((?:^ *#: .*\n)+)^ *(\w+): ", re.MULTILINE)

_HEAD: Final = f"""
Settings of Dispatcher, read from the folder that a program is started in. A line that begins with # and a name is a
setting with its default: take the # away and write your own. `dispatcher doctor` says what is missing.

The environment wins over this file: {PREFIX}LEASE=90 over lease. What is secret is better there, or in a file of its
own: {PREFIX}SECRET_KEY_FILE=/run/secrets/key. Put it here, and this file must not be committed or copied about.
"""

_ACCOUNT: Final = """
An account at {name}. Its name is its queue's: `dispatcher worker {name}`. A second account there is a table with a
name of its own that says adapter = "{name}". Applications need none of this; workers do.
"""

#: Settings that every account may have, and what they are.
COMMON: Final = {
    "adapter": "The provider it is at, where its name is another.",
    "base_url": "Where requests go: scheme and host only.",
    "limits": "How fast it may be asked, over all workers: get=1000/60s,concurrency=20; else as its vendor says.",
    "group_size": "Texts in one request at most; a lost answer makes them unknown together.",
    "concurrency": "Jobs that one worker process has in hand at once.",
    "callback_token": "What the provider's callbacks have in their URL; made from the hash key unless set.",
    "price": "What a segment costs, such as 0.0055 USD: before the provider tells, or where it never does.",
    "low_balance": "A balance below this is told of, such as 10 USD.",
}


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter declares of its accounts' settings."""

    name: str
    base_url: str
    group_size: int
    required: Sequence[str] = ()
    optional: Sequence[str] = ()


def written(text: str, *, force: bool) -> tuple[Path, Path | None]:
    """Write `dispatcher.toml` here, for its owner's eyes only; return it, and where the one before it is now.

    Raises `ConfigurationError` where there is one already, unless `force`, and where none can be written.
    """
    file, kept = Path(TOML), None
    try:
        if force and os.path.lexists(file) and not _holds(file, text):
            kept = next(name for n in itertools.count() if not os.path.lexists(name := Path(f"{TOML}.bak{n or ''}")))
            file.rename(kept)
        elif force:
            file.unlink(missing_ok=True)
        with open(file, "x", encoding="utf-8", opener=_private) as fresh:
            fresh.write(text)
    except FileExistsError:
        raise ConfigurationError(
            f"there is a {TOML} here already; edit it, or use --force, which keeps it as {TOML}.bak"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{TOML} cannot be written here: {error.strerror}") from None
    return file, kept


def toml(providers: Iterable[Provider]) -> str:
    """Return the file's text."""
    meanings = _meanings()
    lines = [*_prose(_HEAD)]
    for name, field in Settings.model_fields.items():
        if name != "providers":
            lines += ["", *_setting(name, field, meanings.get(name, ""))]
    for provider in sorted(providers, key=lambda one: one.name):
        lines += ["", *_account(provider)]
    return "\n".join([*lines, ""])


def _setting(name: str, field: FieldInfo, meaning: str) -> Iterator[str]:
    yield from _prose(meaning)
    variable = PREFIX + name.upper()
    if field.annotation is SecretStr:
        make = "whsec_`openssl rand -base64 32`" if name == "callback_secret" else "`openssl rand -base64 32`"
        yield from _prose(f"Make one with {make};")
        yield from _prose(f"better {variable}, or {variable}_FILE.")
    elif not field.repr:
        yield from _prose(f"With a password in it, better {variable}, or {variable}_FILE.")
    default = field.get_default()
    # TOML has no word for nothing.
    yield f"# {name} = ..." if default is None else f"#{name} = {_literal(default)}"


def _account(provider: Provider) -> Iterator[str]:
    yield from _prose(_ACCOUNT.format(name=provider.name))
    yield f"#[providers.{provider.name}]"
    for field in (*provider.required, *provider.optional):
        variable = f"{PREFIX}PROVIDERS__{provider.name.upper()}__{field.upper()}"
        needed = "Needed" if field in provider.required else "Not needed"
        yield from _prose(f"{needed}; better {variable}, or {variable}_FILE.")
        yield f'#{field} = ""'
    nothing = dict.fromkeys(("limits", "callback_token", "price", "low_balance"), "")
    usual = {"adapter": provider.name, "concurrency": _CONCURRENCY, **nothing}
    for field, meaning in COMMON.items():
        yield from _prose(meaning)
        yield f"#{field} = {_literal(usual[field] if field in usual else getattr(provider, field))}"


def _prose(text: str) -> Iterator[str]:
    """Yield text as comments, its paragraphs kept apart."""
    for number, paragraph in enumerate(text.strip().split("\n\n")):
        if number:
            yield "#"
        yield from textwrap.wrap(" ".join(paragraph.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _literal(value: Any) -> str:
    """Return a default as TOML; JSON writes text, numbers and truth as TOML does."""
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    return msgspec.json.encode(str(plain) if isinstance(plain, Path) else plain).decode()


def _meanings() -> dict[str, str]:
    """Return what each setting is, from the words above it in the source."""
    found = _DOCUMENTED.findall(inspect.getsource(Settings))
    return {name: " ".join(line.strip().removeprefix("#: ") for line in words.splitlines()) for words, name in found}


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
