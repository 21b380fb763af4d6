"""How jobs, lists and accounts look in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatcher.accounts import Account
from dispatcher.heartbeats import WELL, Health
from dispatcher.jobs import Job, Waiting
from dispatcher.privacy import one_line
from dispatcher.states import State
from dispatcher.status import Server, Status

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


#: Characters that a process' name takes in the common log.
_NAME: Final = 12

#: What is neither well nor wrong.
_UNWELL: Final = {Health.STARTING: "cyan", Health.STOPPING: "magenta"}


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
        yield "failure", f"{job.failure.kind} {job.failure.code}: {job.failure.message}"
    if job.expires_at:
        yield "useless after", f"{job.expires_at:%Y-%m-%d %H:%M:%S %Z}"
    for name, value in (job.result or {}).items():
        yield name, str(value)


def _waiting(waiting: Waiting) -> str:
    return waiting.reason + (f" until {waiting.until:%Y-%m-%d %H:%M:%S %Z}" if waiting.until else "")


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
        why = job.failure.message if job.failure else f"waits for {job.waiting.reason}" if job.waiting else ""
        updated = f"{job.updated_at:%m-%d %H:%M:%S}"
        words = (job.provider, job.operation, job.to, updated, why)
        table.add_row(job.id, state_text(job.state), *(Text(one_line(word)) for word in words))
    _console().print(table)


def print_providers(accounts: Iterable[Account]) -> None:
    """Print accounts as a table: what each can do, and how."""
    table = Table(box=None, header_style="dim")
    for column in ("account", "provider", "operations", "recipients", "receipts", "codes made by"):
        table.add_column(column)
    for account in accounts:
        told = account.capabilities
        table.add_row(
            f"{account.name}{' (sandbox)' if account.sandbox else ''}",
            account.adapter,
            ", ".join(account.operations),
            *(told.get(field, "") for field in ("recipients", "receipts", "verification")),
        )
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
    if any(one.workers for one in status.accounts):
        console.print(_workers(status))
        console.print()
    for problem in status.problems:
        console.print(Text(problem, "red"))
    if not status.problems:
        console.print(Text("All is well.", "green"))


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
