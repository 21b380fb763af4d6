"""What an exception of the HTTP client tells about a request: total, and sure only where it may be."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import ssl
from contextlib import suppress
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import client_exceptions, http_exceptions
from aiohttp.client_reqrep import ConnectionKey

from dispatcher.outcomes import FailureKind
from workers.transport import _Lost, classify

#: The types that are raised before a byte of the request is written, and never after. Whoever adds one here
#: says that what raises it may be repeated without sending twice.
SURELY_NOT_SENT = {
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientConnectorSSLError",
    "ClientConnectorCertificateError",
    "ClientProxyConnectionError",
    "ClientSSLError",
    "ConnectionTimeoutError",
    "UnixClientConnectorError",
    "_Stale",
}

CANARY = "447700900123"


def kin(base: type[BaseException]) -> set[type[BaseException]]:
    """`base` and every subclass of it that is loaded."""
    return {base}.union(*(kin(one) for one in base.__subclasses__()))


def exported(module: ModuleType) -> set[type[BaseException]]:
    return {one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, BaseException)}


def named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def made(kind: type[BaseException]) -> BaseException:
    """An instance, whatever its constructor asks for, with private words in it."""
    error = kind.__new__(kind, CANARY)
    error.args = (CANARY,)
    return error


HTTPX = sorted(exported(httpx) | kin(httpx.HTTPError) | kin(httpx.StreamError), key=str)
AIOHTTP = sorted(
    exported(aiohttp)
    | exported(client_exceptions)
    | exported(http_exceptions)
    | kin(aiohttp.ClientError)
    | kin(http_exceptions.HttpProcessingError),
    key=str,
)
PYTHON = sorted(
    {BaseException, Exception, asyncio.IncompleteReadError, asyncio.LimitOverrunError, EOFError, UnicodeError}
    | {ValueError, RuntimeError, AssertionError, MemoryError, asyncio.CancelledError}
    | {ssl.SSLError, ssl.SSLCertVerificationError}
    | {kind for kind in kin(OSError) if kind.__module__ in {"builtins", "socket", "ssl"}},
    key=str,
)


SURE = {kind for kind in AIOHTTP if kind.__name__ in SURELY_NOT_SENT}


def test_the_tables_below_are_not_empty() -> None:
    assert len(HTTPX) > 20
    assert len(AIOHTTP) > 30
    assert {kind.__name__ for kind in AIOHTTP} >= SURELY_NOT_SENT


@pytest.mark.parametrize("kind", AIOHTTP, ids=named)
def test_of_aiohttp_only_the_listed_prove_that_nothing_was_sent(kind: type[BaseException]) -> None:
    expected = FailureKind.NOT_SENT if kind.__name__ in SURELY_NOT_SENT else FailureKind.AMBIGUOUS
    assert classify(made(kind)).kind is expected


@pytest.mark.parametrize("kind", AIOHTTP, ids=named)
@pytest.mark.parametrize("wrapper", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, _Lost])
def test_the_cause_counts_and_not_what_it_is_wrapped_in(kind: type[BaseException], wrapper: type[Exception]) -> None:
    error = wrapper(CANARY)
    error.__cause__ = made(kind)
    assert classify(error) == classify(made(kind))


@pytest.mark.parametrize("kind", [*HTTPX, *PYTHON, _Lost], ids=named)
def test_everything_else_is_ambiguous(kind: type[BaseException]) -> None:
    assert classify(made(kind)).kind is FailureKind.AMBIGUOUS


#: What their constructors ask for, in one way or another.
REQUEST = httpx.Request("GET", f"https://provider.invalid/{CANARY}")
ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((CANARY,), {}),
    ((CANARY, CANARY), {}),
    ((CANARY,), {"request": REQUEST}),
    ((CANARY,), {"request": REQUEST, "response": httpx.Response(500, request=REQUEST)}),
    ((CANARY, "big"), {}),
    ((), {"code": 400, "message": CANARY, "headers": None}),
    ((None, ()), {"status": 500, "message": CANARY}),
    ((CANARY, CANARY, 400, CANARY), {}),
]


def built(kind: type[BaseException]) -> BaseException:
    """An instance as the libraries build it, in the first way that it can be."""
    system = OSError(errno.ECONNRESET, CANARY)
    own: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((connection_key(), system), {}),
        ((CANARY, connection_key(), system), {}),
    ]
    for arguments, named_ones in own if issubclass(kind, aiohttp.ClientConnectorError) else ARGUMENTS:
        with suppress(TypeError, AttributeError):
            return kind(*arguments, **named_ones)
    raise AssertionError(f"nobody knows how to build {named(kind)}")


@pytest.mark.parametrize("kind", sorted({*HTTPX, *AIOHTTP}, key=str), ids=named)
def test_one_that_is_built_means_what_its_type_does(kind: type[BaseException]) -> None:
    sure = kind in SURE
    assert (classify(built(kind)).kind is FailureKind.NOT_SENT) == sure
    wrapped = httpx.ConnectTimeout(CANARY)
    wrapped.__cause__ = built(kind)
    assert (classify(wrapped).kind is FailureKind.NOT_SENT) == sure
    assert CANARY not in f"{classify(built(kind))!r}{classify(wrapped)!r}"


def test_of_all_exceptions_there_are_only_the_listed_prove_that_nothing_was_sent() -> None:
    """Every type that is loaded here: Python's, the libraries', ours; alone, as a cause, and beside one."""
    every: dict[type[BaseException], BaseException] = {}
    for kind in sorted(kin(BaseException), key=str):
        # Some compiled ones ask for more than that; none of them has to do with a request.
        with suppress(Exception):
            every[kind] = made(kind)
    assert len(every) > 300
    assert {*HTTPX, *AIOHTTP, *PYTHON} <= {*every}
    for kind, error in every.items():
        sure = issubclass(kind, tuple(SURE))
        assert (classify(error).kind is FailureKind.NOT_SENT) == sure, named(kind)
        for wrapper in (httpx.ConnectError, httpx.PoolTimeout, httpx.HTTPError, _Lost):
            wrapped = wrapper(CANARY)
            wrapped.__cause__ = error
            assert (classify(wrapped).kind is FailureKind.NOT_SENT) == sure, named(kind)
            # What came before it is no cause of it.
            aside = wrapper(CANARY)
            aside.__context__ = error
            assert classify(aside).kind is FailureKind.AMBIGUOUS, named(kind)


def test_a_cause_of_a_cause_proves_nothing() -> None:
    """What is wrapped twice was raised by nobody known."""
    middle, outer = httpx.ConnectError(CANARY), httpx.ConnectError(CANARY)
    middle.__cause__ = made(aiohttp.ClientConnectorError)
    outer.__cause__ = middle
    assert classify(outer).kind is FailureKind.AMBIGUOUS


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
def test_httpx_alone_proves_nothing(kind: type[Exception]) -> None:
    error = kind(CANARY)
    error.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, CANARY)
    assert classify(error).code == "unknown"


@pytest.mark.parametrize("kind", sorted({*HTTPX, *AIOHTTP, *PYTHON}, key=str), ids=named)
def test_no_word_of_the_library_is_passed_on(kind: type[BaseException]) -> None:
    failure = classify(made(kind))
    assert CANARY not in repr(failure)
    assert failure.code
    assert failure.message.endswith(("nothing was sent", "the request may have been processed"))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ECONNREFUSED, "connect_refused"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETDOWN, "unreachable"),
        (errno.EHOSTDOWN, "unreachable"),
        (errno.ETIMEDOUT, "connect_timeout"),
        (errno.ECONNRESET, "connect_failed"),  # in the middle of the TLS handshake
        (errno.EMFILE, "connect_failed"),
        (errno.EACCES, "connect_failed"),
        (None, "connect_failed"),  # several addresses failed in different ways
    ],
)
def test_a_connection_that_was_not_made_says_why(number: int | None, code: str) -> None:
    system = OSError("all of them failed") if number is None else OSError(number, os.strerror(number))
    error = aiohttp.ClientConnectorError(connection_key(), system)
    assert (classify(error).kind, classify(error).code) == (FailureKind.NOT_SENT, code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (aiohttp.ClientOSError(errno.ECONNREFUSED, "as if"), "reset"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "as if"), "unknown"),
        (TimeoutError(), "unknown"),
    ],
)
def test_an_errno_counts_only_where_a_connection_was_being_made(error: Exception, code: str) -> None:
    assert (classify(error).kind, classify(error).code) == (FailureKind.AMBIGUOUS, code)


def connection_key() -> ConnectionKey:
    return ConnectionKey(
        "provider.invalid", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
    )
