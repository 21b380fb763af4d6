"""What can be said of an operation before it is enqueued: whether there is such a one, and what it takes.

Of an account whose adapter is installed here everything is known, of another what its workers published: the names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dispatcher.accounts import Account, ArgumentSchema, OperationSchema
from dispatcher.errors import InvalidRequest, Unsupported
from dispatcher.privacy import shown
from workers.adapters import available, schemas

if TYPE_CHECKING:
    from workers.providers.base import Adapter

#: Operations that have a command of their own, which knows more of them than names.
COMMANDS: Final[Mapping[str, str]] = {
    "send": "dispatcher send",
    "verify": "dispatcher verify",
    "verify.check": "dispatcher check",
    "lookup": "dispatcher lookup",
}


def account(name: str, adapter: str, published: Mapping[str, Account]) -> Account | None:
    """Return what is known of the account `name`, which speaks through `adapter` by these settings; None of a stranger.

    What its workers published counts; what they left out, since they are of an earlier release, the adapter installed
    here tells.
    """
    told = published.get(name)
    one = available().get(told.adapter if told else adapter)
    if told is not None:
        return told if told.schemas or one is None else msgspec.structs.replace(told, schemas=schemas(one))
    if one is None:
        return None
    return Account(
        name=name,
        adapter=one.name,
        operations=sorted(one.operations),
        unsupported=dict(one.unsupported),
        schemas=schemas(one),
    )


def schema(known: Account, operation: str) -> OperationSchema:
    """Return what is to be known of an operation; empty where nobody says. Raises `Unsupported`."""
    if operation not in known.operations:
        can = f"{meant(operation, known.operations)}It can do {', '.join(sorted(known.operations))}"
        reason = known.unsupported.get(operation, can)
        raise Unsupported("operation", f"{known.name} does not offer it: {reason}", shown(operation))
    return known.schemas.get(operation, OperationSchema())


def check(known: Account, operation: str, given: Mapping[str, Any]) -> None:
    """Refuse what `operation` could never do with these arguments; their values are repeated to nobody.

    Raises `Unsupported`, and `InvalidRequest` naming the argument that is missing, unknown or malformed.
    """
    told = schema(known, operation)
    if operation not in known.schemas:
        return
    _check_names(operation, told.arguments, given)
    adapter = available().get(known.adapter)
    if adapter is not None and operation in adapter.operations:
        _check_values(adapter, operation, given)


def meant(word: str, known: Iterable[str]) -> str:
    """Return "did you mean ...? " where a known word looks like this one; else nothing."""
    close = get_close_matches(word, [*known], n=1)
    return f"did you mean {close[0]}? " if close else ""


def _check_names(operation: str, arguments: Mapping[str, ArgumentSchema], given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in arguments:
            takes = ", ".join(arguments) or "none"
            reason = f"is none of {operation}; {meant(name, arguments)}Its arguments: {takes}"
            raise InvalidRequest(f"argument {shown(name)}", reason)
    for name, told in arguments.items():
        if told.required and name not in given:
            raise InvalidRequest(f"argument {name}", f"is missing: {told.about}")


def _check_values(adapter: type[Adapter], operation: str, given: Mapping[str, Any]) -> None:
    for name, argument in adapter.operations[operation].arguments.items():
        if name not in given:
            continue
        try:
            argument.parse(given[name])
        except (TypeError, ValueError) as error:
            reason = error.reason if isinstance(error, InvalidRequest) else str(error)
            raise InvalidRequest(f"argument {name}", reason or argument.about) from None
