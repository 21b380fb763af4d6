"""Asks accounts for their balance, all at once, to see whether their credentials work: for `dispatcher doctor`."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from dispatcher.errors import ConfigurationError
from dispatcher.findings import Finding, ok, problem, warning
from dispatcher.jobs import Kind, Operation, Work, new_id
from dispatcher.outcomes import Failure, FailureKind, Found, Outcome
from dispatcher.privacy import mask_digits, one_line
from workers.adapters import adapter, configured
from workers.providers.base import Adapter, setting
from workers.sandbox.client import Sandbox, SandboxError
from workers.transport import Transport

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: Seconds that all accounts together have for their answers, and that the sandbox has for its own.
_DEADLINE: Final = 10.0
_SANDBOX: Final = 3.0

_BALANCE: Final = "balance"

#: By the transport's codes, which side of the way is to be looked at.
_LOOK: Final = {
    "dns": "look whether that is the right address ({base_url}), and whether this machine can resolve names",
    "tls": "look whether that is the right address ({base_url}); a proxy that opens TLS must be trusted here",
    "connect_refused": "look whether that is the right address ({base_url}), and whether the provider is up",
}
_LOOK_AROUND: Final = "look whether that is the right address ({base_url}), and whether a proxy or firewall is between"


def accounts(settings: Settings, published: Collection[str] | None) -> Iterator[Finding]:
    """Yield what is found about the sandbox and each account.

    `published` are the accounts that workers have told of; None where Redis did not say.
    """
    if settings.sandbox and settings.sandbox_url:
        yield _sandbox(settings.sandbox_url)
    names = configured(settings)
    ready: list[Adapter] = []
    for name in names:
        try:
            ready.append(adapter(settings, name))
        except ConfigurationError as error:
            yield _unusable(name, str(error))
        except Exception as error:  # noqa: BLE001 - an adapter may be anyone's
            yield _broken(name, error)
    for one, outcome in zip(ready, asyncio.run(_ask(ready)) if ready else (), strict=True):
        yield _broken(one.account, outcome) if isinstance(outcome, BaseException) else judged(one, outcome)
        if in_clear(one.origin):
            yield unencrypted(one)
    yield from elsewhere(names, published)


def elsewhere(names: Collection[str], published: Collection[str] | None) -> Iterator[Finding]:
    """Judge the accounts that are not configured here: a worker has their credentials, or there are none at all."""
    for name in sorted({*(published or ())} - {*names}):
        yield ok(_check(name), f"account {name} is known from its workers, and its credentials are with them")
    if names or published:
        return
    none = "no account is configured here"
    way_out = "set DISPATCHER_PROVIDERS__<NAME>__... as `dispatcher init` shows, or DISPATCHER_SANDBOX=1 to try things"
    if published is None:
        yield warning("account", f"{none}, and only Redis could tell whether workers have any", way_out)
    else:
        yield problem("account", f"{none}, and no worker has told of one", way_out)


def judged(one: Adapter, outcome: Outcome) -> Finding:
    """Say in words what became of asking for the balance."""
    if isinstance(outcome, Failure):
        return _failed(one, outcome)
    return _found(one, outcome.result if isinstance(outcome, Found) else {})


def unencrypted(one: Adapter) -> Finding:
    """Say that an account's credentials travel for everybody on the way to read."""
    base_url = setting(one.account, "base_url")
    return warning(_check(one.account), f"{base_url} is no https: credentials and texts go unencrypted", "write https")


def in_clear(origin: str) -> bool:
    """Say whether what is sent to `origin` leaves this machine and its network unencrypted."""
    parts = urlsplit(origin)
    host = parts.hostname or ""
    try:
        return parts.scheme == "http" and ipaddress.ip_address(host).is_global
    except ValueError:
        # A name without a dot is a neighbour's, as in a compose file.
        return parts.scheme == "http" and "." in host and not host.endswith((".localhost", ".internal", ".local"))


async def _ask(ready: Iterable[Adapter]) -> list[Outcome | BaseException]:
    async with Transport(deadline=_DEADLINE, read=_DEADLINE) as transport:
        return await asyncio.gather(*(_balance(one, transport) for one in ready), return_exceptions=True)


async def _balance(one: Adapter, transport: Transport) -> Outcome:
    """Ask as a worker would, but for the job: nothing is stored, and nothing waits."""
    job = Work(id=new_id(), provider=one.account, kind=Kind.OPERATION, operation=_BALANCE, request=Operation())
    plan = one.build([job])
    if job.id in plan.refused:
        return plan.refused[job.id]
    (group,) = plan.groups
    answer = await transport.send(group.request)
    return answer if isinstance(answer, Failure) else one.parse(answer, group)[job.id]


def _found(one: Adapter, result: Mapping[str, Any]) -> Finding:
    amounts = {name: result.get(name) for name in (_BALANCE, "available")}
    currency = f" {result['currency']}" if result.get("currency") else ""
    told = ", ".join(f"{name} {amount}{currency}" for name, amount in amounts.items() if amount is not None)
    words = f"account {one.account}: its credentials work; {one_line(told)}"
    spendable = next((amount for amount in reversed(amounts.values()) if amount is not None), None)
    if _is_nothing(spendable):
        return problem(_check(one.account), words, "top it up: nothing that costs can be sent")
    return ok(_check(one.account), words)


def _failed(one: Adapter, failure: Failure) -> Finding:
    check, said = _check(one.account), _words(one, failure)
    match failure.kind:
        case FailureKind.UNSUPPORTED:
            return ok(check, f"account {one.account}: its settings are complete; {one.name} offers nothing to try them")
        case FailureKind.THROTTLED:
            return warning(check, f"account {one.account}: the provider is busy: {said}", "wait and try again")
        case FailureKind.UNAUTHORIZED:
            names = ", ".join(setting(one.account, field) for field in one.required)
            what, way_out = "its credentials are refused", f"correct {names}, or ask {one.name}"
        case FailureKind.INSUFFICIENT_FUNDS:
            what, way_out = "there is no money left", "top it up"
        case FailureKind.NOT_SENT | FailureKind.AMBIGUOUS:
            what = f"{one.origin} {'cannot be reached' if failure.kind == FailureKind.NOT_SENT else 'answers badly'}"
            way_out = _LOOK.get(failure.code, _LOOK_AROUND).format(base_url=setting(one.account, "base_url"))
        case _:
            what, way_out = "its balance cannot be read", f"ask {one.name} what the account may do"
    return problem(check, f"account {one.account}: {what}: {said}", way_out)


def _words(one: Adapter, failure: Failure) -> str:
    """Return what was said, without what it means for a message; nothing that repeats one of the account's settings."""
    said = one_line(mask_digits(failure.message or failure.code)).partition(";")[0]
    secrets = [value for field in (*one.required, *one.optional) if (value := one.settings.get(field))]
    return "its answer repeats a credential and is not shown" if any(secret in said for secret in secrets) else said


def _sandbox(url: str) -> Finding:
    try:
        Sandbox(url, timeout=_SANDBOX).counts()
    except (OSError, ValueError, HTTPException, SandboxError, msgspec.MsgspecError):
        return problem(
            "sandbox", f"no sandbox answers at {_origin(url)}", "start `dispatcher sandbox`, and give the URL it shows"
        )
    return ok("sandbox", f"the sandbox at {_origin(url)} answers")


def _unusable(account: str, words: str) -> Finding:
    """Say what is wrong with an account's settings; most words end with the way out."""
    what, _, way_out = words.partition("; ")
    if way_out and not way_out.startswith("account "):
        return problem(_check(account), what, way_out)
    return problem(_check(account), words.replace("; ", ": "), "set it where this account's workers run")


def _broken(account: str, error: BaseException) -> Finding:
    return problem(
        _check(account),
        f"account {account}: its adapter fails with {error.__class__.__name__}",
        "that is a bug of the adapter; tell whoever wrote it",
    )


def _origin(url: str) -> str:
    """Return scheme, host and port alone."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"


def _is_nothing(amount: Any) -> bool:
    try:
        return Decimal(str(amount)) <= 0
    except InvalidOperation:
        return False


def _check(account: str) -> str:
    return f"account.{account}"
