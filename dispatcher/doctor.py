"""`dispatcher doctor`: what is well, what is missing and the way out, from the settings to the accounts.

It goes on after whatever it finds, writes nothing anywhere, and shows no secret.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
from kombu import Connection
from kombu.exceptions import KombuError
from pydantic import SecretStr
from redis.exceptions import RedisError

from dispatcher import endpoints, groups, heartbeats, redis_check
from dispatcher.accounts import Account, Accounts
from dispatcher.calls import Calls
from dispatcher.endpoints import Endpoint
from dispatcher.errors import StoreUnavailable
from dispatcher.findings import Finding, ok, problem, warning
from dispatcher.groups import EventGroup
from dispatcher.limits import LimitState
from dispatcher.notices import NOTIFY
from dispatcher.queues import configuration
from dispatcher.settings import PREFIX, RUNTIME, TOML, Settings, secret_files, usable
from dispatcher.store import JobStore

#: Asks accounts for their balance: given the settings, and the accounts that workers published (None where Redis does
#: not tell), it answers with what it found.
AskAccounts: TypeAlias = Callable[[Settings, Collection[str] | None], Iterable[Finding]]

#: Characters of a key that has been made by chance; `openssl rand -base64 32` writes 44.
_LONG: Final = 32

_MAKE_KEY: Final = "make one with `openssl rand -base64 32` and give the same to every process"

#: What is missing without a key.
_KEYS: Final = {
    "secret_key": "numbers and texts lie in Redis as they are, and no verification can start",
    "hash_key": "jobs cannot be found by number, and no verification can start",
}

#: Seconds that the broker may take to answer.
_BROKER: Final = 5

#: The part of their lifetime after which an event that nobody is done with wants a look.
_LATE: Final = 0.5


def examine(accounts: AskAccounts) -> Iterator[Finding]:
    """Look at everything and yield what is found, as it is found; `accounts` asks what only workers know to ask."""
    settings, faults = usable()
    yield from _settings(settings, faults)
    published = yield from _redis(settings, faults)
    yield from _broker(settings)
    yield from accounts(settings, published)
    if published is not None:
        yield from routes(settings, published)
        yield from _limits(settings, published)
        yield from _callbacks(settings)
        yield from _events(settings)


# -- settings ----------------------------------------------------------------------------------------------------------


def _settings(settings: Settings, faults: Collection[str]) -> Iterator[Finding]:
    document = _document()
    yield sources(os.environ, document, _runtime(settings))
    yield from values(faults)
    yield from unknown_variables(os.environ)
    yield from unknown_names(document or {})
    files: dict[str, Path] = {**secret_files()}
    if document and holds_secret(document):
        files[TOML] = Path(TOML)
    modes = {name: (path, _mode(path)) for name, path in files.items()}
    yield from readable_by_others(modes)
    yield from keys(settings)
    yield sandbox(settings)


def sources(environment: Iterable[str], document: Mapping[str, Any] | None, folder: Path | None) -> Finding:
    """Say where settings come from; `folder` is that of a server whose word is heard."""
    variables = sum(name.upper().startswith(PREFIX) for name in environment)
    found = [f"{variables} variable{'s'[: variables != 1]} of the environment"] if variables else []
    if document is not None:
        found.append(TOML if document else f"{TOML}, in which nothing is set")
    found += [f"what runs in the data folder {folder}"] if folder else []
    if found:
        return ok("settings.sources", f"settings come from {', '.join(found)}")
    return warning(
        "settings.sources",
        f"there are no settings: no variable {PREFIX}..., no {TOML} here, and nothing that runs in the data folder",
        f"write a {TOML} with `dispatcher init`",
    )


def values(faults: Collection[str]) -> Iterator[Finding]:
    """Judge the values: `faults` are the words of those that cannot be used."""
    for fault in faults:
        what, _, way_out = fault.partition("; ")
        yield problem("settings.values", what, way_out or "correct it, or take it out for its default")
    if not faults:
        yield ok("settings.values", "every setting has a value that can be used")


def unknown_variables(environment: Iterable[str]) -> Iterator[Finding]:
    """Name the variables that look like settings and are none."""
    for variable in sorted(environment):
        name = variable.upper().removeprefix(PREFIX).removesuffix("_FILE").lower()
        if not variable.upper().startswith(PREFIX) or _is_setting(name):
            continue
        meant = nearest(name)
        way_out = f"did you mean {PREFIX}{meant.upper()}?" if meant else "unset it"
        yield warning("settings.unknown", f"{variable} is no setting, and nobody heeds it", way_out)


def unknown_names(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Name what `dispatcher.toml` says and nobody heeds; tables that are like none of ours are for others."""
    for name, value in document.items():
        meant = nearest(name.lower())
        if name in Settings.model_fields or (isinstance(value, dict) and not meant):
            continue
        way_out = f"did you mean {meant}?" if meant else "take it out, or put it below its [providers.NAME]"
        yield warning("settings.unknown", f"{name} in {TOML} is no setting, and nobody heeds it", way_out)


def _is_setting(name: str) -> bool:
    head, *rest = name.split("__")
    return head == "providers" if rest else head in Settings.model_fields


def nearest(name: str) -> str:
    """Return the setting that was meant by `name`, in lower case and without prefix; "" where none is like it."""
    head, *rest = name.split("__")
    if head.startswith("providers_"):
        return "providers__<name>__<field>"
    if rest and difflib.get_close_matches(head, ["providers"]):
        return "__".join(["providers", *rest])
    return "".join(difflib.get_close_matches(name.replace("__", "_"), Settings.model_fields, 1))


def holds_secret(document: Mapping[str, Any]) -> bool:
    """Say whether a file of settings has a key, a password or credentials in it."""
    kept = [
        document.get(name)
        for name, field in Settings.model_fields.items()
        if field.annotation is SecretStr or name == "providers"
    ]
    urls = ("redis_url", "broker_url", "callback_broker_url")
    return any(kept) or any("@" in str(document.get(name, "")) for name in urls)


def readable_by_others(files: Mapping[str, tuple[Path, int]]) -> Iterator[Finding]:
    """Judge who may read secrets, from path and mode of each file, by what names it."""
    open_ = {name: path for name, (path, mode) in files.items() if mode & stat.S_IRWXO}
    for name, path in open_.items():
        named = "" if name == TOML else f", which {name} names,"
        yield warning(
            "settings.files", f"{path}{named} has secrets in it and is everybody's to read", f"chmod o-rwx {path}"
        )
    if files and not open_:
        yield ok("settings.files", "no file with secrets in it is everybody's to read")


def keys(settings: Settings) -> Iterator[Finding]:
    """Judge the keys that seal and hash."""
    told = {name: getattr(settings, name).get_secret_value().split(",")[0].strip() for name in _KEYS}
    if settings.sandbox and not any(told.values()):
        yield ok("settings.keys", "no keys are set, and the sandbox needs none: its own are public")
        return
    wrong = False
    for name, key in told.items():
        variable = PREFIX + name.upper()
        if not key and not settings.sandbox:
            wrong = True
            yield warning("settings.keys", f"{variable} is not set: {_KEYS[name]}", _MAKE_KEY)
        elif key and len(key) < _LONG:
            wrong = True
            yield warning("settings.keys", f"{variable} has less than {_LONG} characters and may be guessed", _MAKE_KEY)
    if all(told.values()) and len(set(told.values())) == 1:
        wrong = True
        yield warning("settings.keys", "both keys are the same, and only one of them may ever be changed", _MAKE_KEY)
    if not wrong:
        yield ok("settings.keys", "the keys that seal and hash are set")


def sandbox(settings: Settings) -> Finding:
    """Judge whether the right providers are spoken to: the real ones or the sandbox's."""
    if settings.sandbox and settings.sandbox_url:
        return ok("settings.sandbox", f"{PREFIX}SANDBOX is on: providers are played, and nobody is texted")
    if settings.sandbox:
        return problem(
            "settings.sandbox",
            f"{PREFIX}SANDBOX is on and {PREFIX}SANDBOX_URL is not set",
            "start `dispatcher sandbox` and give the URL that it shows; `dispatcher up` does both",
        )
    if settings.sandbox_url:
        return warning(
            "settings.sandbox",
            f"{PREFIX}SANDBOX_URL is set and {PREFIX}SANDBOX is off: texts reach people, and cost money",
            f"set {PREFIX}SANDBOX=1 if that is not what you want; else unset the URL",
        )
    return ok("settings.sandbox", f"{PREFIX}SANDBOX is off: texts reach people")


def _document() -> dict[str, Any] | None:
    """Return what `dispatcher.toml` says: nothing where it cannot be read, None where there is none."""
    if not Path(TOML).is_file():
        return None
    try:
        return tomllib.loads(Path(TOML).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _runtime(settings: Settings) -> Path | None:
    """Return the data folder where what runs in it named the Redis."""
    try:
        told = (settings.data / RUNTIME).read_text()
    except (OSError, ValueError):
        return None
    return settings.data if settings.redis_url and settings.redis_url in told else None


def _mode(path: Path) -> int:
    """Return the mode of a file, 0 for one that is not there."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def routes(settings: Settings, published: Collection[str]) -> Iterator[Finding]:
    """Judge whether rules lead to accounts that somebody has heard of."""
    known = {*settings.providers, *published}
    lost = {account: rule for rule in settings.routing for account in rule.accounts if account not in known}
    for account, rule in lost.items():
        yield problem(
            "routes",
            f"{PREFIX}ROUTES leads to {account} ({rule.words!r}), and nobody has heard of that account",
            f"start its worker once (dispatcher worker {account}), or correct the name",
        )
    if settings.routing and not lost:
        yield ok("routes", f"the rules of {PREFIX}ROUTES lead to accounts that are known")


# -- Redis and broker --------------------------------------------------------------------------------------------------


def _redis(settings: Settings, faults: Collection[str]) -> Generator[Finding, None, list[str] | None]:
    """Yield what is found about Redis; return the accounts that it knows, None where it does not tell."""
    url = settings.redis_url
    if not url:
        if not any(f"{PREFIX}REDIS_URL" in fault for fault in faults):
            yield problem(
                "redis.reachable",
                f"{PREFIX}REDIS_URL is not set",
                f"point it at your Redis, e.g. redis://127.0.0.1:6379/0, in the environment or in {TOML}; "
                "or run `dispatcher up`, which brings its own",
            )
        return None
    yield from redis_check.exposure(url, redis_check.addresses(url))
    try:
        seen = redis_check.look(url)
    except (RedisError, OSError, ValueError) as error:
        yield redis_check.unreachable(error, settings.redis_shown)
        return None
    yield from redis_check.judged(seen, settings)
    return seen.published


@contextmanager
def _reading(settings: Settings) -> Iterator[JobStore]:
    """Read Redis for as long as it answers: that it does not is said where it is looked at."""
    with suppress(StoreUnavailable), closing(JobStore(settings.redis, settings.redis_shown, timeout=_BROKER)) as store:
        yield store


def _limits(settings: Settings, published: Collection[str]) -> Iterator[Finding]:
    """Say of which accounts less goes than their limits let through."""
    told = dict[str, Account]()
    with _reading(settings) as store:
        with suppress(msgspec.MsgspecError):  # written by another release
            told |= Accounts(store, settings).published()
        for name in published:
            yield from slowed(store.run(Calls(settings).limits_shown(name)), told.get(name))


def _callbacks(settings: Settings) -> Iterator[Finding]:
    """Say what keeps applications from being called back."""
    with _reading(settings) as store:
        found = endpoints.read(store)
        with store.errors():
            asked = bool(store.redis.exists(endpoints.MOVED))
        served = bool(heartbeats.serving(heartbeats.read(store), NOTIFY, store.now()))
        yield from called_back(settings, found, asked=asked, served=served)


def _events(settings: Settings) -> Iterator[Finding]:
    """Say which groups read their events too late."""
    with _reading(settings) as store:
        yield from late_groups(groups.listed(store), store.now() // 1000, settings.events_retention)


def late_groups(found: Sequence[EventGroup], now: float, kept: float) -> Iterator[Finding]:
    """Judge whether groups read their events, `kept` for so many seconds, before they are trimmed away."""
    for one in found:
        behind = 0.0 if one.waiting_since is None else now - one.waiting_since.timestamp()
        if one.expired:
            yield warning(
                "events.missed",
                f"group {one.name} of those who read events missed some, which were trimmed away",
                f"`dispatcher events reset {one.name} --after 0` has it go on with those that are kept",
            )
        elif behind > kept * _LATE:
            yield warning(
                "events.late",
                f"group {one.name} has not done with an event for {behind / 3600:.0f} h, and events are kept for "
                f"{kept / 3600:.0f} h",
                f"run more of its consumers, or `dispatcher events delete {one.name}` where nobody reads it any more",
            )


def called_back(settings: Settings, found: Sequence[Endpoint], *, asked: bool, served: bool) -> Iterator[Finding]:
    """Judge whether those are told who are to be: `asked` by a job, or by the settings."""
    if not (asked or settings.callback_url):
        return
    over_http = bool(settings.callback_url) or any(one.endpoint.startswith("http") for one in found)
    wrong = False
    if over_http and not settings.callback_secret.get_secret_value():
        wrong = True
        yield warning(
            "callbacks.secret",
            f"{PREFIX}CALLBACK_SECRET is not set here, and callbacks over HTTP are signed with it",
            'make one with `echo "whsec_$(openssl rand -base64 32)"`, and give it to the notify worker; what waits '
            "already goes at once by dispatcher callbacks resume ENDPOINT",
        )
    if not served:
        wrong = True
        waiting = sum(one.waiting for one in found)
        yield warning(
            "callbacks.worker",
            f"no notify worker is alive, and applications are to be called back ({endpoints.wait(waiting)})",
            f"start one: dispatcher worker {NOTIFY}",
        )
    for one in found:
        if one.state in {endpoints.Health.PAUSED, endpoints.Health.GONE}:
            wrong = True
            yield warning(
                "callbacks.endpoint",
                f"{one.endpoint} is {one.state}, {endpoints.wait(one.waiting)}: {one.error}",
                f"mend it, then: dispatcher callbacks resume {one.id}",
            )
    if not wrong:
        yield ok("callbacks", "applications are called back")


def slowed(one: LimitState, account: Account | None) -> Iterator[Finding]:
    """Judge the breaker and the limits of an account that workers serve."""
    name = f"limits.{one.provider}"
    seen = "see `dispatcher limits`; it goes on by itself"
    if one.breaker.words:
        yield warning(name, f"account {one.provider}: {one.breaker.words}", seen)
    for words in one.slowed:
        yield warning(name, f"account {one.provider}: {words}", seen)
    if account is not None and one.limits and account.limits not in {"", one.limits}:
        differ = f"account {one.provider}: its workers have different LIMITS, {account.limits} and {one.limits}"
        yield warning(name, differ, "give all of them the same, and start them anew")


def _broker(settings: Settings) -> Iterator[Finding]:
    """Judge whether the broker answers, where it is not the same Redis."""
    if settings.broker_url in {"", settings.redis_url}:
        return
    parts = urlsplit(settings.broker_url)
    shown = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    ours = configuration(settings)
    options = ours["broker_transport_options"] | {"socket_connect_timeout": _BROKER}
    try:
        with Connection(
            settings.broker_url, ssl=ours["broker_use_ssl"], connect_timeout=_BROKER, transport_options=options
        ) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_BROKER)
    except KombuError as error:
        yield _unreachable_broker(shown, error.__cause__ or error)
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        yield _unreachable_broker(shown, error)
    else:
        yield ok("broker.reachable", f"the broker at {shown} answers")


def _unreachable_broker(shown: str, error: BaseException) -> Finding:
    return problem(
        "broker.reachable",
        f"the broker at {shown} cannot be used ({type(error).__name__})",
        f"look whether it runs, and whether {PREFIX}BROKER_URL has the right host, port and password",
    )
