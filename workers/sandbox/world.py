"""What the played providers share: accounts, phones, and the ledger of everything they were asked.

The world is the fold of its ledger: balances, inboxes, opt-outs and counts follow from the rows, one by one.
So a sandbox that was killed goes on where its ledger file ends.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

#: Kinds of rows that put a text on a phone.
MESSAGES: Final = frozenset({"send", "verify"})
FREE: Final = Decimal(0)
#: For a text that is not scheduled.
AT_ONCE: Final = 0.0


class Account(msgspec.Struct, kw_only=True):
    """A customer of a provider: what they may do, what they own and whom they have stopped."""

    provider: str
    name: str
    secret: str
    #: In credits.
    balance: Decimal
    #: What may be spent beyond the balance, in credits.
    credit: Decimal
    #: What this account may do, in its provider's words.
    grants: frozenset[str]
    #: Numbers that must not be sent to any more.
    stopped: set[str] = msgspec.field(default_factory=set)
    #: Numbers it has rented, in international digits, and keywords with how each is set up.
    numbers: set[str] = msgspec.field(default_factory=set)
    keywords: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)

    @property
    def available(self) -> Decimal:
        """Return what can be spent, in credits."""
        return self.balance + self.credit


class Row(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """A line of the ledger: what a provider did, or refused, for one number (or none, as for a balance)."""

    #: The row's number from 1, stamped when it is committed.
    n: int = 0
    #: Seconds since 1970, stamped when it is committed.
    at: float = 0.0
    #: The number of the first row of the same request: rows that travelled together share it.
    request: int = 0
    provider: str
    #: The provider's word for what was asked.
    action: str
    #: Ours: send, verify, lookup, balance, number.buy, ...; empty where the request made no sense.
    kind: str = ""
    account: str = ""
    msisdn: str = ""
    #: The provider did it.
    accepted: bool
    #: The provider's word for how it went, or the fault that came before it.
    result: str
    #: The provider's id for it.
    ref: str = ""
    #: The customer's own reference, where the provider takes one.
    own: str = ""
    #: The text as the phone shows it; for `list.append` the name of the list, for `keyword...` the keyword.
    text: str = ""
    sender: str = ""
    #: The one-time code in `text`.
    code: str = ""
    #: Credits taken from the account; of `credits.buy` below zero.
    cost: Decimal = FREE
    #: Seconds since 1970 when the phone gets the text.
    due: float = AT_ONCE
    #: The fault that the request met, before or after it was accepted.
    fault: str = ""
    #: What else the provider has to remember of it; of a keyword how it is set up.
    data: dict[str, Any] = {}


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A text on a phone."""

    #: Seconds since 1970 when it arrived.
    at: float
    provider: str
    sender: str
    text: str


class World:
    """Accounts, phones and the ledger; everything changes by `commit`."""

    def __init__(
        self,
        accounts: Callable[[], Iterable[Account]],
        ledger: Path | None = None,
        now: Callable[[], float] = time.time,
        reaches: Callable[[Row], bool] = lambda _row: True,
    ) -> None:
        """Start with `accounts()`, and where the file `ledger` ends if there is one.

        `reaches` says of the row of an accepted message whether it gets to its phone.
        """
        self.now = now
        self._reaches = reaches
        self._accounts_at_start = accounts
        self._file = _LedgerFile(ledger) if ledger else None
        self._clear()
        if self._file:
            for row in self._file.rows():
                self._apply(row)

    def _clear(self) -> None:
        self._accounts = {(account.provider, account.name): account for account in self._accounts_at_start()}
        self._rows: list[Row] = []
        self._phones: defaultdict[str, list[Row]] = defaultdict(list)
        self._asked: Counter[tuple[str, str, str]] = Counter()
        self._requests: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._referred: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)

    def account(self, provider: str, name: str) -> Account | None:
        """Return the account with this name at `provider`; read it, don't write it."""
        return self._accounts.get((provider, name))

    def asked(self, provider: str, action: str, msisdn: str) -> int:
        """Return how often `provider` was asked to do `action` for this number, whatever came of it."""
        return self._asked[provider, action, msisdn]

    def referred(self, provider: str, ref: str) -> list[Row]:
        """Return the accepted rows that `provider` gave the id `ref`, or a customer the reference."""
        return list(self._referred.get((provider, ref), ()))

    def inbox(self, msisdn: str) -> list[Message]:
        """Return the texts that the phone has received by now, oldest first."""
        now = self.now()
        messages = [
            Message(at=max(row.due, row.at), provider=row.provider, sender=row.sender, text=row.text)
            for row in self._phones.get(msisdn, ())
            if self._reaches(row)
        ]
        return sorted((message for message in messages if message.at <= now), key=lambda message: message.at)

    def rows(self, after: int = 0, limit: int | None = None) -> list[Row]:
        """Return the rows of the ledger with a number above `after`, at most `limit`."""
        return self._rows[after : None if limit is None else after + limit]

    def requests(self) -> dict[str, dict[str, int]]:
        """Return how many requests each provider saw, by action."""
        return {provider: dict(actions) for provider, actions in self._requests.items()}

    def accepted(self) -> dict[str, int]:
        """Return how many messages to each number were accepted, those due later included."""
        return {msisdn: len(messages) for msisdn, messages in self._phones.items()}

    def messages(self) -> dict[str, dict[str, int]]:
        """Return the same for each provider."""
        messages: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for msisdn, rows in self._phones.items():
            for row in rows:
                messages[row.provider][msisdn] += 1
        return {provider: dict(numbers) for provider, numbers in messages.items()}

    def commit(self, rows: Iterable[Row]) -> None:
        """Make the rows of one request true: in the ledger first, its file included, then everywhere."""
        at = self.now()
        first = len(self._rows) + 1
        stamped = list(rows)
        for n, row in enumerate(stamped, first):
            row.n, row.at, row.request = n, at, first
        if self._file:
            self._file.append(stamped)
        for row in stamped:
            self._apply(row)

    def _apply(self, row: Row) -> None:
        self._rows.append(row)
        self._asked[row.provider, row.action, row.msisdn] += 1
        if row.n == row.request:
            self._requests[row.provider][row.action] += 1
        if not row.accepted:
            return
        for ref in {row.ref, row.own} - {""}:
            self._referred[row.provider, ref].append(row)
        if row.kind in MESSAGES:
            self._phones[row.msisdn].append(row)
        if account := self._accounts.get((row.provider, row.account)):
            _charge(account, row)

    def reset(self) -> None:
        """Begin anew: accounts as at the start, no texts, an empty ledger and an empty ledger file."""
        self._clear()
        if self._file:
            self._file.truncate()

    def close(self) -> None:
        """Let go of the ledger file."""
        if self._file:
            self._file.close()


def _charge(account: Account, row: Row) -> None:
    """Write to `account` what an accepted row means for it."""
    account.balance -= row.cost
    match row.kind:
        case "optout.add":
            account.stopped.add(row.msisdn)
        case "number.buy":
            account.numbers.add(row.msisdn)
        case "number.cancel":
            account.numbers.discard(row.msisdn)
        case "keyword.rent" | "keyword.setup":
            account.keywords[row.text] = account.keywords.get(row.text, {}) | row.data
        case "keyword.cancel":
            account.keywords.pop(row.text, None)


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Row)


class _LedgerFile:
    """Rows as JSON lines, written straight to the kernel: what was written survives a kill of the process."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, readable for its owner only: it has numbers, texts and codes in it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = path

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the file; cuts off a last line that a kill left unfinished."""
        whole = 0
        with self._path.open("rb") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                yield _DECODER.decode(line)
        os.ftruncate(self._fd, whole)

    def append(self, rows: Iterable[Row]) -> None:
        """Write the rows at the end of the file, together."""
        data = _ENCODER.encode_lines(rows)
        while data:
            data = data[os.write(self._fd, data) :]

    def truncate(self) -> None:
        """Empty the file."""
        os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
