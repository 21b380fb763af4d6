"""Which adapters there are, and one for each configured account."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from dispatcher.accounts import Account
from dispatcher.errors import ConfigurationError
from workers.providers.base import Adapter, setting

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: The entry-point group that adapters are found by.
GROUP: Final = "dispatcher.providers"

#: Settings that every account may have.
_COMMON: Final = frozenset({"adapter", "base_url", "limits", "concurrency", "group_size", "callback_token"})

#: Settings whose capability a later release brings; silently ignoring them would be worse than refusing.
_LATER: Final = {"limits": "the limiter"}


@cache
def available() -> dict[str, type[Adapter]]:
    """Return the installed adapters by the provider's name."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def configured(settings: Settings) -> list[str]:
    """Return the accounts that can work here: those with settings and, with the sandbox, every adapter's own."""
    return sorted({*settings.providers, *(available() if settings.sandbox else ())})


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
        own = _in_sandbox(settings, found, own)
    _check(account, own, found)
    return found(account, own)


def adapters(settings: Settings, accounts: Iterable[str]) -> dict[str, Adapter]:
    """Return the adapters of these accounts, by account."""
    return {account: adapter(settings, account) for account in accounts}


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
    )


def _in_sandbox(settings: Settings, found: type[Adapter], own: dict[str, str]) -> dict[str, str]:
    """Give an account without credentials the sandbox's, and every one its address."""
    address = own.get("base_url") or settings.sandbox_url
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
        if field in _LATER:
            raise ConfigurationError(
                f"{setting(account, field)} is for {_LATER[field]}, which this release does not have yet; unset it"
            )
        if field in {"group_size", "concurrency"} and not (value.isdecimal() and int(value) > 0):
            raise ConfigurationError(f"{setting(account, field)} must be a whole number above 0")
