"""The opt-out list as rows: what an export has in its columns, and how an import takes them, a portion at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from dispatcher import phone
from dispatcher.calls import MOST, Call, script
from dispatcher.errors import InvalidNumber
from dispatcher.optouts import By, Listed, OptOutEntry, OptOuts, same_sender
from dispatcher.privacy import shown

if TYPE_CHECKING:
    from dispatcher.settings import Settings
    from dispatcher.store import JobStore

#: The columns of an export. `key` tells one hash key from another: hashes are of use under their own alone.
COLUMNS: Final = ("number", "hash", "key", "scope", "tenant", "sender", "since", "by", "provider")

#: Reasons that a report has; whoever wants all of them is called with each.
_TOLD: Final = 20

#: A keyed hash, as `privacy.keyed_hash` makes it.
_HASH: Final = re.compile(r"[A-Za-z0-9_-]{16}")


#: What a spreadsheet takes for a formula, and what it may: hashes begin with anything. A number is none.
_FORMULA: Final = re.compile(r"'*(?:[=\-@\t\r]|\+(?!\d+$))")


class Imported(msgspec.Struct):
    """What came of an import."""

    rows: int = 0
    #: Rows that put somebody on the list.
    added: int = 0
    #: Rows that change nothing: the entry is there, or the person wanted texts again since then.
    known: int = 0
    refused: int = 0
    #: Why, of the first of them.
    reasons: list[str] = []


class _Refused(Exception):
    """A row that cannot be taken; the words say why, with no more of a number than its ends."""


class _Row(msgspec.Struct, frozen=True):
    """A row that can be taken: what its entry is found by and keeps."""

    field: str
    at: str
    by: str
    kept: bytes


def key_of(settings: Settings) -> str:
    """Return what tells one hash key from another."""
    return settings.hashed("hash key")


def cells(entry: OptOutEntry, key: str) -> list[str]:
    """Return an entry as a row of `COLUMNS`."""
    told = (entry.number, entry.hash, key, entry.scope, entry.tenant, entry.sender)
    since = entry.since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return [one or "" for one in (*told, since, entry.by, entry.provider)]


def guarded(cell: str) -> str:
    """Return a cell as a file has it: an apostrophe keeps a spreadsheet from taking it for a formula."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """Return a cell that `guarded` wrote."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class Import:
    """Puts people on the list, some hundred at a time."""

    def __init__(self, settings: Settings, store: JobStore) -> None:
        """Raises `ConfigurationError` without a hash key."""
        settings.require_hash_key("the list of those who opted out")
        self._settings = settings
        self._store = store
        self._optouts = OptOuts(settings)
        self._key = key_of(settings)

    def take(self, rows: Iterable[Mapping[str, str]], refused: Callable[[Mapping[str, str], str], object]) -> Imported:
        """Take rows as they come; one that cannot be taken stops no other. Raises `StoreUnavailable`."""
        report, ready = Imported(), list[_Row]()
        for told in rows:
            report.rows += 1
            try:
                ready.append(self._read(told))
            except _Refused as error:
                report.refused += 1
                if len(report.reasons) < _TOLD:
                    report.reasons.append(str(error))
                refused(told, str(error))
            if len(ready) == MOST:
                self._write(ready, report)
                ready = []
        if ready:
            self._write(ready, report)
        return report

    def _write(self, rows: list[_Row], report: Imported) -> None:
        arguments: list[bytes | str | float] = []
        for one in rows:
            arguments += (one.field, one.at, one.by, one.kept)
        added = self._store.run(Call(script("optouts_import"), arguments, int, durable=True))
        report.added += added
        report.known += len(rows) - added

    def _read(self, told: Mapping[str, str]) -> _Row:
        """Read a row. Raises `_Refused`."""
        if not isinstance(told, Mapping):
            raise _Refused(f"is no row with columns, but {type(told).__name__}")
        if told.get("fault"):
            raise _Refused(told["fault"])
        given = {name: _text(name, told.get(name)) for name in COLUMNS}
        by = given["by"] or By.APPLICATION
        if by not in set(By):
            raise _Refused(f"by: must be one of {', '.join(By)}, and is {shown(by)}")
        number = self._number(given)
        tenant, sender = given["tenant"], given["sender"]
        if sender and not same_sender(sender):
            raise _Refused("sender: is nobody's name or number")
        scope = self._scope(given)
        hashed = self._settings.hashed("number", number) if number else self._hash("hash", given)
        field = f"{hashed} {scope}" if scope else hashed
        listed = Listed(number=number, by=By(by), provider=given["provider"], tenant=tenant, sender=sender)
        # What was hashed for us cannot be told apart any more: then the hash is all that is kept.
        whole = number and (tenant or sender or not scope)
        return _Row(field, _moment(given["since"]), by, self._optouts.kept(listed) if whole else b"")

    def _number(self, given: Mapping[str, str]) -> str:
        if not given["number"]:
            return ""
        try:
            return phone.parse(given["number"])
        except InvalidNumber as error:
            raise _Refused(f"number: {error.value} {error.reason}") from None

    def _scope(self, given: Mapping[str, str]) -> str:
        scope = self._optouts.scope(given["tenant"], given["sender"])
        if scope and given["scope"] and given["key"] == self._key and given["scope"] != scope:
            raise _Refused("scope: is not that of this tenant and sender; leave one of them out")
        return scope or (self._hash("scope", given) if given["scope"] else "")

    def _hash(self, column: str, given: Mapping[str, str]) -> str:
        told = given[column]
        if not told:
            raise _Refused("number: is missing, and so is hash")
        if given["key"] != self._key:
            raise _Refused(
                f"{column}: was made with another DISPATCHER_HASH_KEY, as its key says, and would be found by nobody"
                if given["key"]
                else f"{column}: says nothing without its key, as an export has it; name the number instead"
            )
        if not _HASH.fullmatch(told):
            raise _Refused(f"{column}: is no hash")
        return told


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _Refused(f"{name}: must be text")
    return value.strip()


def _moment(told: str) -> str:
    """Return milliseconds since 1970 as they are written; empty for now. Raises `_Refused`."""
    if not told:
        return ""
    try:
        at = datetime.fromisoformat(told)
    except ValueError:
        raise _Refused("since: must be a time such as 2026-12-24T09:00:00+01:00") from None
    if at.tzinfo is None:
        raise _Refused("since: has no time zone; write it like 2026-12-24T09:00:00+01:00")
    return str(max(0, round(at.timestamp() * 1000)))
