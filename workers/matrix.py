"""The capability matrix as a page: what each provider can do, and how that is known, from the adapters' declarations.

`python -m workers.matrix docs/providers.md` writes it, as `make docs` does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dispatcher.accounts import ArgumentSchema, OperationSchema
from workers.adapters import schemas, shipped

if TYPE_CHECKING:
    from workers.providers.base import Adapter

#: What everybody does comes first, and then the rest by name.
_FIRST: Final = ("send", "verify", "verify.check", "lookup", "balance")

_VERIFICATION: Final = {
    "ours": "Dispatcher, which sends it as a text",
    "provider": "the provider, which tells Dispatcher",
    "provider checks": "the provider, which checks it too",
}

_TOP: Final = """\
# Providers

<!-- Made from the adapters by `make docs`; change those. -->

What can be done at each provider. A cell says how the operation is known: from the vendor's own **document**, from the
**vendor's code** (its client library or plugin), or **inferred** from what these leave open. **None is live-verified
yet**: no live call has been made to any provider. *paid* is paid from the account's balance, and waits while there is
none; *card* is charged to a card; — is not offered, and the provider's section says why where the vendor has it.
"""

_BELOW: Final = """\
`send`, `verify`, `verify.check` and `lookup` are `dispatcher send`, `verify`, `check` and `lookup`, and take their
arguments as `--option NAME=VALUE`. Everything else is `dispatcher op PROVIDER OPERATION NAME=VALUE ...`;
`dispatcher op PROVIDER OPERATION --help` shows the same as this page.
"""

#: What happens when an answer is lost: in the table of facts, and of one operation.
_REPEAT: Final = {
    "always": ("done again", "When its answer is lost it is done again: twice is the same as once"),
    "once": ("done once more", "When its answer is lost it is done once more: no more than a charge is at stake"),
    "never": ("never done again", "When its answer is lost it is not done again behind your back"),
}


def page(adapters: Iterable[type[Adapter]]) -> str:
    """Return the page in Markdown."""
    known = sorted(adapters, key=lambda one: one.name)
    lines = [_TOP, *_table(known), "", _BELOW, *(line for one in known for line in _section(one))]
    return "\n".join(lines).rstrip() + "\n"


def _table(known: list[type[Adapter]]) -> Iterator[str]:
    yield _row(["operation", *(f"[{one.name}](#{one.name})" for one in known)])
    yield "|---" * (len(known) + 1) + "|"
    for name in _in_order({name for one in known for name in one.operations}):
        yield _row([f"`{name}`", *(_cell(schemas(one).get(name)) for one in known)])


def _cell(told: OperationSchema | None) -> str:
    if told is None:
        return "—"
    return f"{told.source}{', *paid*' if told.paid else ''}{', *card*' if told.card else ''}"


def _section(one: type[Adapter]) -> Iterator[str]:
    yield f"## {one.name}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in _facts(one):
        yield _row([name, value])
    yield ""
    for name in _in_order(set(one.operations)):
        yield from _operation(name, schemas(one)[name])
    if one.unsupported:
        yield "### Not done here"
        yield ""
        yield "| | why |"
        yield "|---|---|"
        for name, reason in sorted(one.unsupported.items()):
            yield _row([name, reason])
        yield ""


def _facts(one: type[Adapter]) -> Iterator[tuple[str, str]]:
    told, operations = one.capabilities, schemas(one)
    names = _in_order({*operations})
    optional = f"; optional {_code(map(str.upper, one.optional))}" if one.optional else ""
    yield "settings", f"{_code(map(str.upper, one.required))}{optional}"
    yield "address", f"`{one.base_url}` unless `BASE_URL` names another"
    yield "recipients a request", f"{told.recipients}; {one.group_size} unless `GROUP_SIZE` says otherwise"
    yield "requests at once", "as many as a worker has connections" if one.at_once is None else str(one.at_once)
    yield "limits", f"`{one.limits}` unless `LIMITS` says otherwise" if one.limits else "none unless `LIMITS` sets some"
    yield "keeps our own reference", "yes" if told.own_reference else "no"
    yield "receipts", told.receipts
    yield "inbound texts", "yes" if told.inbound else "no"
    yield "who makes a verification's code", _VERIFICATION[told.verification]
    yield "longest text", f"{told.max_characters} characters" if told.max_characters else "no limit is documented"
    for repeat, (words, _) in _REPEAT.items():
        yield f"{words} when the answer is lost", _code(name for name in names if operations[name].repeat == repeat)
    yield "paid from the balance", _code(name for name in names if operations[name].paid)
    yield "charged to a card", _code(name for name in names if operations[name].card)


def _operation(name: str, told: OperationSchema) -> Iterator[str]:
    yield f"### `{name}`"
    yield ""
    price = f"{' It is paid from the balance.' if told.paid else ''}{' It is charged to a card.' if told.card else ''}"
    yield f"{_text(told.about)} Known from: {told.source}.{price}"
    evidence = _text(told.evidence.rstrip("."))
    if not evidence and told.repeat == "never":
        evidence = "nobody can tell what became of it"
    yield f"{_REPEAT[told.repeat][1]}{'; ' if evidence else ''}{evidence}."
    yield ""
    if told.arguments:
        yield from _arguments(told.arguments)
        yield ""


def _arguments(arguments: Mapping[str, ArgumentSchema]) -> Iterator[str]:
    yield "| argument | | |"
    yield "|---|---|---|"
    for name, one in arguments.items():
        yield _row([f"`{name}`", "required" if one.required else "", one.about])


def _in_order(names: set[str]) -> list[str]:
    first = [name for name in _FIRST if name in names]
    return first + sorted(names.difference(first))


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_text(cell).replace('|', chr(92) + '|') for cell in cells)} |".replace("|  |", "| |")


def _text(words: str) -> str:
    """Return words that are no markup of their own; what stands in backticks is code."""
    return words.replace("<", "&lt;")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(shipped()), encoding="utf-8")
