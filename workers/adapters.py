"""Which adapters there are, and one for each configured account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from dispatcher import budgets
from dispatcher.accounts import Account, ArgumentSchema, OperationSchema
from dispatcher.errors import ConfigurationError
from workers.providers.base import Adapter, setting

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: The entry-point group that adapters are found by.
GROUP: Final = "dispatcher.providers"

#: Settings that every account may have.
_COMMON: Final = frozenset(
    {"adapter", "base_url", "limits", "concurrency", "group_size", "callback_token", "price", "low_balance"}
)

#: Settings that are amounts of money, and what reads them.
_MONEY: Final[Mapping[str, Callable[[str], object]]] = {"price": budgets.money, "low_balance": budgets.check_threshold}


@cache
def available() -> dict[str, type[Adapter]]:
    """Return the installed adapters by the provider's name."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def shipped() -> list[type[Adapter]]:
    """Return those of the installed adapters that are part of this package, by name."""
    ours = f"{__name__.partition('.')[0]}.providers."
    return [one for _, one in sorted(available().items()) if one.__module__.startswith(ours)]


def configured(settings: Settings) -> list[str]:
    """Return the accounts that can work here: those with settings and, with the sandbox, one of each that it plays."""
    return sorted({*settings.providers, *((one.name for one in shipped()) if settings.sandbox else ())})


def adapter(settings: Settings, account: str) -> Adapter:
    """Return the adapter of one account. Raises `ConfigurationError` naming the setting at fault."""
    own = settings.account(account)
    name = own.get("adapter", account)
    found = available().get(name)
    if found is None:
        known = ", ".join(sorted(available()))
        raise ConfigurationError(
            f"there is no adapter {name!r} (installed: {known}); set {setting(account, 'adapter')} to one of them"
        )
    if settings.sandbox:
        own = _in_sandbox(settings, account, found, own)
    _check(account, own, found)
    return found(account, own)


def adapters(settings: Settings, accounts: Iterable[str]) -> dict[str, Adapter]:
    """Return the adapters of these accounts, by account."""
    return {account: adapter(settings, account) for account in accounts}


def listener(settings: Settings, account: str, name: str = "") -> Adapter:
    """Return an adapter that can tell what an account's provider needs to hear, and send nothing.

    It needs no credentials, so that what listens to the world holds none. `name` is the adapter's where our settings
    do not say. Raises `ConfigurationError` where it is not installed.
    """
    own = settings.account(account)
    name = own.get("adapter") or name or account
    found = available().get(name)
    if found is None:
        raise ConfigurationError(f"there is no adapter {name!r} for the callbacks of {account}; install its package")
    if settings.sandbox and not any(own.get(field) for field in found.required):
        own = {**found.sandbox, **own}
    return found(account, {**own, **{field: own.get(field) or "-" for field in found.required}, "base_url": ""})


def receipt_key(settings: Settings, one: Adapter, ref: str, number: str) -> str:
    """Return what a job is found by when a receipt comes: the hash of the provider's reference.

    The number belongs to it where several recipients may share a reference.
    """
    shared = one.capabilities.recipients > 1
    return settings.keyed("receipt", one.account, ref, number if shared else "")


def schemas(one: Adapter | type[Adapter]) -> dict[str, OperationSchema]:
    """Return what is to be known of each operation by whoever enqueues it."""
    return {
        name: OperationSchema(
            about=told.about,
            source=told.source,
            arguments={
                key: ArgumentSchema(about=argument.about, required=argument.required)
                for key, argument in told.arguments.items()
            },
            repeat=told.repeat,
            paid=told.paid,
            evidence=told.evidence,
        )
        for name, told in one.operations.items()
    }


def described(one: Adapter, *, sandbox: bool) -> Account:
    """Return what a worker publishes of an account."""
    told = one.capabilities
    return Account(
        name=one.account,
        adapter=one.name,
        operations=sorted(one.operations),
        unsupported=dict(one.unsupported),
        capabilities={field: str(getattr(told, field)) for field in told.__struct_fields__},
        sandbox=sandbox,
        schemas=schemas(one),
        limits=one.limited.shown,
    )


def _in_sandbox(settings: Settings, account: str, found: type[Adapter], own: dict[str, str]) -> dict[str, str]:
    """Give an account without credentials the sandbox's, and every one its address."""
    address = own.get("base_url")
    if not address and found not in shipped():
        where = setting(account, "base_url")
        raise ConfigurationError(
            f"the sandbox does not play {found.name}, the adapter of account {account!r}; "
            f"set {where} to a server that does, or leave DISPATCHER_SANDBOX out"
        )
    address = address or settings.sandbox_url
    if not address:
        raise ConfigurationError(
            "DISPATCHER_SANDBOX is on and DISPATCHER_SANDBOX_URL is not set; start `dispatcher sandbox`, give its URL"
        )
    credentials = {} if any(own.get(field) for field in found.required) else found.sandbox
    return {**credentials, **own, "base_url": address}


def _check(account: str, own: dict[str, str], found: type[Adapter]) -> None:
    for field, value in own.items():
        if field not in _COMMON and field not in found.required and field not in found.optional:
            known = ", ".join(sorted({*_COMMON, *found.required, *found.optional}))
            raise ConfigurationError(f"{setting(account, field)} is no setting of {found.name}; there are: {known}")
        if field in {"group_size", "concurrency"} and not (value.isdecimal() and int(value) > 0):
            raise ConfigurationError(f"{setting(account, field)} must be a whole number above 0")
        if field in _MONEY:
            try:
                _MONEY[field](value)
            except ValueError as error:
                raise ConfigurationError(f"{setting(account, field)} {error}") from None
