"""How jobs, lists and accounts look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatcher import endpoints
from dispatcher.accounts import Account, OperationSchema
from dispatcher.budgets import Budget
from dispatcher.callbacks import WORDS
from dispatcher.heartbeats import WELL, Health
from dispatcher.jobs import CARD_FIELDS, Job, Waiting
from dispatcher.privacy import one_line
from dispatcher.states import State
from dispatcher.status import Server, Status
from dispatcher.suspensions import Suspension
from dispatcher.usage import Usage

#: The colour of each state: what is well, what is under way, what wants a look.
COLOURS: Final = {
    State.QUEUED: "cyan",
    State.SENDING: "blue",
    State.SENT: "green",
    State.DELIVERED: "bold green",
    State.COMPLETED: "green",
    State.UNKNOWN: "bold yellow",
    State.UNDELIVERED: "red",
    State.FAILED: "red",
    State.EXPIRED: "magenta",
    State.CANCELLED: "magenta",
}


#: Columns of an account in the matrix, and of what stands left of them.
_CELL: Final = 17
_LEFT: Final = 22

#: What the matrix says of an account below its operations, and how it is called there.
_FACTS: Final = {
    "recipients": "recipients a request",
    "own_reference": "keeps our reference",
    "receipts": "receipts",
    "inbound": "inbound texts",
    "verification": "codes made by",
    "max_characters": "longest text",
}

#: How a card's details are given.
_ASIDE: Final = "--arguments -"

#: Who makes a verification's code, in words.
_MADE_BY: Final = {"ours": "us", "provider": "provider", "provider checks": "provider, checks"}

#: The colour of how a budget stands.
_STANDS: Final = {"ok": "green", "warning": "yellow", "used up": "red"}

_KNOWN: Final = "How each operation is known is what stands there: a vendor's document, a vendor's code, or inferred."
_SOURCES: Final = {"document": "the vendor's document", "vendor's code": "the vendor's own code"}
_REPEATED: Final = {
    "never": "never: when nobody knows if it was done, it is not done again",
    "once": "once more at most, when nobody knows if it was done: a charge is possible",
    "always": "as often as it takes: twice is the same as once",
}

#: Characters that a process' name takes in the common log.
_NAME: Final = 12

#: What is neither well nor wrong.
_UNWELL: Final = {Health.STARTING: "cyan", Health.STOPPING: "magenta"}


#: What is counted of callbacks, where its column says it otherwise.
_COUNTED: Final = {"applied": "receipts applied", "inbound": "texts", "optouts": "opt-outs", "unread": "nothing in it"}


def state_text(state: State) -> Text:
    """Return a state in its colour."""
    return Text(state, COLOURS[state])


def line(job: Job) -> str:
    """Return a job in one line: id, state, provider, what it is, to whom, and why it is not well."""
    words = [job.id, job.state, job.provider, job.operation]
    words += [job.to] if job.to else []
    if job.waiting:
        words.append(f"(waits for {_waiting(job.waiting)})")
    if job.failure:
        words.append(f"- {job.failure.kind}: {job.failure.message}")
    if job.verification:
        words.append(f"[{job.verification.status}]")
    return one_line(" ".join(words))


def print_job(job: Job) -> None:
    """Print a job: its facts, its result, its history."""
    console = Console()
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(job):
        if value:
            # What others wrote is shown as it is: brackets in it are no markup.
            facts.add_row(Text(name, "dim"), value if isinstance(value, Text) else Text(one_line(value)))
    console.print(facts)
    console.print(timeline(job))


def _facts(job: Job) -> Iterator[tuple[str, str | Text | None]]:
    yield "job", job.id
    yield "what", job.operation
    yield "state", state_text(job.state)
    if job.waiting:
        yield "waits for", _waiting(job.waiting)
    yield "provider", f"{job.provider}{' (sandbox)' if job.sandbox else ''}"
    yield "to", job.to
    yield "sender", job.sender
    if job.segments:
        yield "text", f"{job.text}, {job.segments} segment{'' if job.segments == 1 else 's'}"
    yield "category", job.category
    yield "reference", job.reference
    yield "tenant", job.tenant
    yield "batch", job.batch_id
    yield "attempts", str(job.attempts)
    yield "receipt", job.receipt
    yield "provider's id", job.provider_ref
    yield "price", job.price
    if job.verification:
        yield "verification", f"{job.verification.status}, until {job.verification.expires_at:%H:%M:%S %Z}"
    if job.failure:
        yield "failure", job.failure.words
    if job.expires_at:
        yield "useless after", f"{job.expires_at:%Y-%m-%d %H:%M:%S %Z}"
    yield from result_rows(job.result or {})


def result_rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a result row by row: of a list of objects each has its own, and what is not known is left out."""

    def in_words(one: Mapping[str, Any]) -> str:
        return ", ".join(f"{key} {word}" for key, word in one.items() if word is not None and word != "")

    for name, value in result.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for at, one in enumerate(value):
                yield "" if at else name, in_words(one)
        elif isinstance(value, dict):
            yield name, in_words({key: in_words(one) if isinstance(one, dict) else one for key, one in value.items()})
        elif value is not None:
            yield name, str(value)


def _waiting(waiting: Waiting) -> str:
    # What is suspended goes on as soon as it is mended: the moment says nothing.
    until = waiting.until if waiting.reason != "suspended" else None
    return _reason(waiting) + (f" until {until:%Y-%m-%d %H:%M:%S %Z}" if until else "")


def _reason(waiting: Waiting) -> str:
    said = {"suspended": "its account to be mended", "lookup": "the answer to another lookup of its number"}
    return said.get(waiting.reason, waiting.reason)


def timeline(job: Job) -> Table:
    """Return a job's history, each step with the time since it was created."""
    table = Table.grid(padding=(0, 2))
    for entry in job.history:
        passed = (entry.at - job.created_at).total_seconds()
        table.add_row(Text(f"{passed:8.3f} s", "dim"), state_text(entry.state), Text(one_line(entry.detail)))
    return table


def print_jobs(jobs: Iterable[Job]) -> None:
    """Print jobs as a table."""
    table = Table(box=None, header_style="dim")
    for column in ("id", "state", "provider", "what", "to", "updated", "why"):
        # An id is there to be copied: it is never shortened.
        table.add_column(column, no_wrap=column != "why", min_width=26 if column == "id" else None)
    for job in jobs:
        why = job.failure.message if job.failure else f"waits for {_reason(job.waiting)}" if job.waiting else ""
        updated = f"{job.updated_at:%m-%d %H:%M:%S}"
        words = (job.provider, job.operation, job.to, updated, why)
        table.add_row(job.id, state_text(job.state), *(Text(one_line(word)) for word in words))
    _console().print(table)


def print_providers(accounts: Iterable[Account]) -> None:
    """Print the matrix of accounts: what each can do, how that is known, and what it cannot."""
    console = _console()
    known = sorted(accounts, key=lambda account: account.name)
    if not known:
        console.print("No account is known yet; one is once its worker has run: dispatcher worker NAME", soft_wrap=True)
        return
    many = max(1, (console.width - _LEFT) // _CELL)
    for start in range(0, len(known), many):
        console.print(_matrix(known[start : start + many]))
        console.print()
    missing = Table(box=None, header_style="dim")
    for column in ("account", "not done here", "why"):
        missing.add_column(column)
    for account in known:
        for at, (name, reason) in enumerate(sorted(account.unsupported.items())):
            missing.add_row(*(Text(one_line(word)) for word in ("" if at else account.name, name, reason)))
    if missing.row_count:
        console.print(missing)
        console.print()
    for words in (
        f"{_KNOWN} None is live-verified yet.",
        "$ is paid from the account's balance, card is charged to a card.",
        "What one of them takes: dispatcher op ACCOUNT OPERATION --help",
    ):
        console.print(Text(words, "dim"))


def _matrix(accounts: Sequence[Account]) -> Table:
    """Return operations by accounts, and the facts of each below."""
    table = Table(box=None, header_style="dim")
    table.add_column("operation", no_wrap=True)
    for account in accounts:
        of = "" if account.adapter == account.name else f" ({account.adapter})"
        table.add_column(Text(one_line(f"{account.name}{of}{' (sandbox)' if account.sandbox else ''}")))
    for name in _in_order({name for account in accounts for name in account.operations}):
        table.add_row(Text(one_line(name)), *(_cell(account, name) for account in accounts))
    table.add_section()
    for fact, words in _FACTS.items():
        told = [account.capabilities.get(fact, "") for account in accounts]
        table.add_row(Text(words, "dim"), *(Text(_fact(fact, one)) for one in told))
    return table


def _in_order(operations: set[str]) -> list[str]:
    """Return what everybody does first, and then the rest by name."""
    first = [name for name in ("send", "verify", "verify.check", "lookup", "balance") if name in operations]
    return first + sorted(operations.difference(first))


def _cell(account: Account, operation: str) -> Text:
    if operation not in account.operations:
        return Text("-", "dim")
    told = account.schemas.get(operation)
    if told is None:
        # Published by a worker of an earlier release.
        return Text("yes", "green")
    price = f"{' $' if told.paid else ''}{' card' if told.card else ''}"
    return Text(f"{told.source}{price}", "green" if told.source == "document" else "yellow")


def _fact(fact: str, told: str) -> str:
    words = _MADE_BY.get(told, told) if fact == "verification" else told
    return {"True": "yes", "False": "no", "None": "-"}.get(words, one_line(words))


def print_operations(account: Account, commands: Mapping[str, str]) -> None:
    """Print what an account can do, a line each; `commands` are those that operations have of their own."""
    console = _console()
    table = Table(box=None, header_style="dim")
    table.add_column("operation", no_wrap=True)
    table.add_column(f"what {account.name} does")
    for name in _in_order({*account.operations}):
        told = account.schemas.get(name, OperationSchema())
        words = f"{told.about}{' Costs money.' if told.paid or told.card else ''}"
        words += f" Its command: {commands[name]}" if name in commands else ""
        table.add_row(Text(name), Text(one_line(words.strip())))
    console.print(table)
    console.print()
    console.print(Text(f"What one of them takes: dispatcher op {account.name} OPERATION --help", "dim"))


def print_operation(account: Account, operation: str, told: OperationSchema, command: str | None) -> None:
    """Print what one operation takes and costs; `command` is the one it has of its own."""
    console = _console()
    console.print(Text(f"Usage: {_usage(account, operation, told, command)}"))
    console.print()
    if not told.about:
        console.print("Its worker is of an earlier release, and told no more of it.")
        return
    console.print(Text(one_line(told.about)))
    facts = Table.grid(padding=(0, 2))
    lost = told.evidence or ("" if told.repeat == "always" else "nobody can tell: it ends unknown")
    for name, value in (
        ("costs money", "yes, charged to a card" if told.card else "yes, from the balance" if told.paid else "no"),
        ("repeated", _REPEATED.get(told.repeat, told.repeat)),
        ("a lost answer", lost),
        ("known from", f"{_SOURCES.get(told.source, told.source)}; not live-verified yet"),
    ):
        if value:
            facts.add_row(Text(name, "dim"), Text(one_line(value)))
    console.print(facts)
    console.print()
    if not told.arguments:
        console.print("It takes no arguments.")
        return
    table = Table(box=None, header_style="dim")
    for column in ("argument", "", "what it is"):
        table.add_column(column, no_wrap=column != "what it is")
    for name, one in told.arguments.items():
        must = "required" if one.required else _ASIDE if name in CARD_FIELDS else ""
        table.add_row(Text(name), Text(must, "red" if one.required else "dim"), Text(one_line(one.about)))
    console.print(table)


def _usage(account: Account, operation: str, told: OperationSchema, command: str | None) -> str:
    """Return how an operation is typed; a card's details are none of it."""
    plain = {name: one for name, one in told.arguments.items() if name not in CARD_FIELDS}
    option = "--option " if command else ""
    words = [f"{command} ..." if command else f"dispatcher op {account.name} {operation}"]
    words += [f"{option}{name}=..." for name, one in plain.items() if one.required]
    words += [f"[{option}{name}=...]" for name, one in plain.items() if not one.required]
    return " ".join([*words, *([f"[{_ASIDE}]"] if len(plain) < len(told.arguments) else [])])


def print_suspensions(suspended: Iterable[Suspension]) -> None:
    """Print what is suspended, and the way out."""
    console = _console()
    for one in suspended:
        console.print(Text(f"{one.provider}: {one.words}; {one.way_out}", "red"))


def print_budgets(budgets: Iterable[Budget]) -> None:
    """Print how budgets stand, each value of a rule with `*` in a line of its own."""
    table = Table(box=None, header_style="dim")
    for column in ("rule", "for", "used", "of", "share", "until", ""):
        table.add_column(column)
    for one in budgets:
        counts_for = " ".join(f"{name}={value}" for name, value in one.counts_for.items())
        share, until = f"{one.share:.0%}", f"{one.period_end:%Y-%m-%d %H:%M %Z}"
        words = (one.rule, counts_for, one.used, one.cap, share, until)
        table.add_row(*(Text(one_line(word)) for word in words), Text(one.state, _STANDS[one.state]))
    _console().print(table)


def print_usage(usage: Sequence[Usage]) -> None:
    """Print sums of what was used, by whatever they are summed by."""
    table = Table(box=None, header_style="dim")
    for column in usage[0].of:
        table.add_column(column)
    for column in ("messages", "segments", "price", "estimated"):
        table.add_column(column, justify="right")
    for one in usage:
        prices = (", ".join(f"{amount} {name}" for name, amount in told.items()) for told in (one.price, one.estimated))
        words = (*one.of.values(), str(one.messages), str(one.segments), *prices)
        table.add_row(*(Text(one_line(word)) for word in words))
    _console().print(table)


def print_status(status: Status) -> None:
    """Print everything on one screen, and what is wrong last."""
    console = _console()
    servers = Table.grid(padding=(0, 2))
    for name, server in (("Redis", status.redis), ("broker", status.broker)):
        servers.add_row(Text(name, "dim"), server.address, _server(server))
    console.print(servers)
    console.print()
    if status.accounts:
        console.print(_accounts(status))
        console.print()
    if any(one.callbacks.waiting or one.callbacks.counts for one in status.accounts):
        console.print(_callbacks(status))
        console.print()
    if any(one.workers for one in status.accounts):
        console.print(_workers(status))
        console.print()
    told = status.notify
    if told.endpoints or told.workers:
        living = sum(one.health in WELL for one in told.workers)
        waiting = endpoints.wait(told.waiting, "to applications")
        words = f"{living} alive; {waiting}, {told.undelivered} were not delivered"
        console.print(Text.assemble(("notify ", "dim"), words))
        console.print()
    for remark in _remarks(status):
        console.print(remark)
    for problem in status.problems:
        console.print(Text(problem, "red"))
    if not status.problems:
        console.print(Text("All is well.", "green"))


def _remarks(status: Status) -> Iterator[Text]:
    """Yield what is worth a line, and no problem."""
    for group in status.event_groups:
        yield Text.assemble(("events ", "dim"), f"{group.name}: {group.words}")
    for account in status.accounts:
        for words in account.slowed:
            yield Text(f"{account.name}: {words}", "yellow")


def _server(server: Server) -> Text:
    if server.problem:
        return Text("cannot be used", "red")
    memory = "" if server.memory is None else f", {server.memory / 1e6:.1f} MB"
    return Text(f"{server.kind} {server.version}{memory}".strip() or "answers")


def _accounts(status: Status) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("account")
    for column in ("workers", "queued", "of these parked", "sending", "unknown"):
        table.add_column(column, justify="right")
    table.add_column("messages (high + normal)", justify="right")
    table.add_column("oldest")
    for account in status.accounts:
        living = sum(one.health in WELL for one in account.workers)
        depths = " + ".join("?" if depth is None else str(depth) for depth in account.queues.values())
        since = account.waiting_since
        table.add_row(
            f"{account.name}{' (sandbox)' if account.sandbox else ''}",
            Text(str(living), "green" if living else "red"),
            str(account.queued),
            str(account.parked),
            str(account.sending),
            Text(str(account.unknown), COLOURS[State.UNKNOWN] if account.unknown else ""),
            depths,
            f"{(status.at - since).total_seconds():.0f} s" if since else "",
        )
    return table


def _callbacks(status: Status) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column("callbacks from")
    for column in ("waiting", *WORDS):
        table.add_column(_COUNTED.get(column, column), justify="right")
    for account in status.accounts:
        told = account.callbacks
        if told.waiting or told.counts:
            table.add_row(account.name, str(told.waiting), *(str(told.counts.get(word, "")) for word in WORDS))
    return table


def _workers(status: Status) -> Table:
    table = Table(box=None, header_style="dim")
    for column in ("worker", "health", "slots taken", "last beat"):
        table.add_column(column)
    by_node = {one.node: one for account in status.accounts for one in account.workers}
    for one in by_node.values():
        ago = max(0.0, (status.at - one.at).total_seconds())
        health = Text(one.health, "green" if one.health in WELL else _UNWELL.get(one.health, "red"))
        table.add_row(one.node, health, f"{one.busy} of {one.slots}", f"{ago:.0f} s ago")
    return table


class _LogConsole(Console):
    """A console that lets its user decide what a closed pipe means; rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Log:
    """The output of several processes as one, a colour for each."""

    _COLOURS: Final = ("cyan", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_yellow")

    def __init__(self) -> None:
        """Print to standard output."""
        self._console = _LogConsole(soft_wrap=True, highlight=False)
        self._styles: dict[str, str] = {}

    def tell(self, name: str, line: str) -> None:
        """Print a line of the process `name`."""
        style = self._styles.setdefault(name, self._COLOURS[len(self._styles) % len(self._COLOURS)])
        shown = "".join(letter if letter.isprintable() else " " for letter in line)
        self._console.print(Text.assemble((f"{name:>{_NAME}} | ", style), shown))


def _console() -> Console:
    """Return a console as wide as the terminal, or wide enough for a file."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
