"""`dispatcher` is the public page: what it names is all there, in order, and light to import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import dispatcher
from dispatcher import errors


def test_the_page_is_sorted() -> None:
    assert dispatcher.__all__ == sorted(dispatcher.__all__)


def test_every_public_name_on_the_page_is_declared_and_there() -> None:
    there = {
        name
        for name, value in vars(dispatcher).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert there == set(dispatcher.__all__)


def test_every_error_can_be_imported_from_the_page() -> None:
    raised = {name for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, Exception)}
    assert raised <= set(dispatcher.__all__)


def test_every_name_on_the_page_explains_itself() -> None:
    assert [name for name in dispatcher.__all__ if not inspect.getdoc(getattr(dispatcher, name))] == []


def test_what_the_contract_names_is_there() -> None:
    verbs = {
        "send", "send_many", "verify", "check", "lookup", "operation", "get", "wait", "cancel", "events", "redrive",
        "resend", "opt_out",
    }  # fmt: skip
    assert verbs - set(dir(dispatcher.Dispatcher)) == set()


def test_every_verb_explains_itself() -> None:
    verbs = [name for name in dir(dispatcher.Dispatcher) if not name.startswith("_")]
    assert [name for name in verbs if not inspect.getdoc(getattr(dispatcher.Dispatcher, name))] == []


def test_an_application_loads_no_http_client_and_no_worker() -> None:
    """It would pay for both at every start, and use neither."""
    program = "import dispatcher, sys; print(*sorted({'httpx', 'aiohttp', 'workers'} & {*sys.modules}))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == []
