"""The tree drawn in the docstring is the tree there is; each error carries its facts and says the way out."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from dispatcher import errors
from dispatcher.errors import (
    ConfigurationError,
    CountryLimited,
    CountryRefused,
    CursorExpired,
    DispatcherError,
    IdempotencyConflict,
    IllegalMove,
    InvalidNumber,
    InvalidRequest,
    KeyLimited,
    NotFound,
    NumberLimited,
    NumberTypeRefused,
    PrefixClosed,
    PrefixLimited,
    ResendTooSoon,
    StoreUnavailable,
    UnknownProvider,
    Unsupported,
    VerificationRefused,
    WaitTimeout,
)

CLASSES = {
    one.__name__: one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == "dispatcher.errors"
}

#: One of each, as it is raised.
RAISED = [
    DispatcherError("something"),
    InvalidRequest("text", "is empty; write one"),
    InvalidNumber("to", "+4477009001234", "is too long"),
    Unsupported("operation", "is not offered", "report"),
    IdempotencyConflict("0001", 3),
    NotFound("job", "0001"),
    IllegalMove("0001", "sent", "cancelled"),
    VerificationRefused(30),
    NumberLimited(30),
    PrefixLimited(30),
    KeyLimited(30, "ip"),
    CountryLimited(30),
    CountryRefused(),
    NumberTypeRefused(),
    PrefixClosed(30),
    ResendTooSoon(30),
    WaitTimeout("job 0001", "queued", "settled", 30),
    CursorExpired("1-0", "5-0"),
    ConfigurationError("DISPATCHER_X is not set"),
    UnknownProvider("nobody", ["textgoto"]),
    StoreUnavailable("Redis did not answer"),
]


def drawn() -> dict[str, str]:
    """The tree in the docstring as child -> parent, read by how far each line is indented."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(  |$)", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        while path and path[-1][0] >= depth:
            path.pop()
        parents[name] = path[-1][1] if path else ""
        path.append((depth, name))
    return parents


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    built = {
        name: next((base.__name__ for base in kind.__mro__[1:] if base.__name__ in CLASSES), "")
        for name, kind in CLASSES.items()
    }
    assert drawn() == built


def test_each_class_is_raised_in_the_table_below() -> None:
    assert {type(one).__name__ for one in RAISED} == set(CLASSES)


@pytest.mark.parametrize("error", RAISED, ids=lambda one: type(one).__name__)
def test_one_clause_catches_each_of_them(error: DispatcherError) -> None:
    with pytest.raises(DispatcherError):
        raise error


@pytest.mark.parametrize("error", RAISED, ids=lambda one: type(one).__name__)
def test_an_error_survives_the_way_between_processes(error: DispatcherError) -> None:
    """Applications raise them in pools of processes, Celery's own among them."""
    back: DispatcherError = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize(
    ("error", "python"),
    [
        (InvalidRequest("text", "is empty"), ValueError),
        (NotFound("job", "0001"), LookupError),
        (WaitTimeout("job 0001", "queued", "settled", 30), TimeoutError),
    ],
    ids=["a wrong argument", "a thing that is not there", "a wait that was too short"],
)
def test_who_knows_only_python_catches_them_too(error: DispatcherError, python: type[Exception]) -> None:
    assert isinstance(error, python)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(
            InvalidRequest("text", "is empty; write one"),
            "text: is empty; write one",
            id="a private value is not shown",
        ),
        pytest.param(
            InvalidRequest("lane", "must be high or normal", "low"),
            "lane 'low': must be high or normal",
            id="another value is",
        ),
        pytest.param(
            IdempotencyConflict("0001"),
            "idempotency_key: was used before with another request (job 0001); use a new key",
            id="conflict",
        ),
        pytest.param(
            NotFound("job", "0001"),
            "there is no job 0001; it never existed or its retention has passed",
            id="not found",
        ),
        pytest.param(
            IllegalMove("0001", "sent", "cancelled"), "job 0001 is sent and cannot become cancelled", id="illegal move"
        ),
        pytest.param(
            WaitTimeout("job 1", "queued", "settled", 0.5),
            "job 1 is queued and not settled after 0.5 s; it goes on",
            id="a wait too short",
        ),
        pytest.param(
            CursorExpired("1-0", "5-0"),
            "events after cursor 1-0 are no longer kept, those after 5-0 are.",
            id="an old cursor",
        ),
        pytest.param(
            UnknownProvider("acme", []),
            "provider 'acme' is not known (none is known yet); set DISPATCHER_PROVIDERS__ACME__",
            id="no provider at all",
        ),
        pytest.param(
            UnknownProvider("acme", ["a", "b"]), "provider 'acme' is not known (known: a, b)", id="other providers"
        ),
        pytest.param(
            UnknownProvider("textgotto", ["acme", "textgoto"]),
            "provider 'textgotto' is not known (known: acme, textgoto); did you mean textgoto?",
            id="a mistyped provider",
        ),
    ],
)
def test_its_words_are_for_who_can_do_something_about_it(error: DispatcherError, words: str) -> None:
    assert str(error).startswith(words)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("+4477009001234", "+44*********34"),
        ("+4477009", "+44***09"),
        ("+447700", "*******"),
        ("", ""),
    ],
    ids=["long", "eight characters", "seven: two ends would be most of it", "empty"],
)
def test_a_wrong_number_shows_its_ends_at_most(value: str, shown: str) -> None:
    error = InvalidNumber("to", value, "is wrong")
    assert error.value == shown
    assert value not in str(error) or not value


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("text", "is empty", "x"),
        InvalidNumber("to", "+4477009001234", "is too long"),
        Unsupported("operation", "is not offered", "report"),
        IdempotencyConflict("0001", 3),
    ],
    ids=lambda one: type(one).__name__,
)
def test_inside_a_list_an_error_keeps_its_kind_and_its_facts(error: InvalidRequest) -> None:
    moved = error.at("messages[3]")
    assert type(moved) is type(error)
    assert moved.field == f"messages[3].{error.field}"
    assert str(moved).startswith(f"messages[3].{error.field}")
    assert {**vars(moved), "field": error.field} == vars(error)
    assert not error.field.startswith("messages"), "the first one stays as it was"
