"""What an exception of the engine tells about a request: total, and sure only where it may be."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import socket
import ssl
from contextlib import suppress

import httpx
import pytest

from dispatcher.outcomes import FailureKind
from workers import wire
from workers.transport import classify

#: The types that are raised before a byte of the request is written, and never after. Whoever adds one here
#: says that what raises it may be repeated without sending twice.
SURELY_NOT_SENT = {httpx.ConnectError, httpx.ConnectTimeout, wire.Stale}

CANARY = "447700900123"


def kin(base: type[BaseException]) -> set[type[BaseException]]:
    """`base` and every subclass of it that is loaded."""
    return {base}.union(*(kin(one) for one in base.__subclasses__()))


def named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def made(kind: type[BaseException], cause: BaseException | None = None) -> BaseException:
    """An instance, whatever its constructor asks for, with private words in it."""
    error = kind.__new__(kind, CANARY)
    error.args = (CANARY,)
    error.__cause__ = cause
    return error


HTTPX = sorted(
    {one for one in vars(httpx).values() if inspect.isclass(one) and issubclass(one, BaseException)}
    | kin(httpx.HTTPError)
    | kin(httpx.StreamError),
    key=str,
)
PYTHON = sorted(
    {BaseException, Exception, asyncio.IncompleteReadError, asyncio.LimitOverrunError, EOFError, UnicodeError}
    | {ValueError, RuntimeError, AssertionError, MemoryError, asyncio.CancelledError}
    | {ssl.SSLError, ssl.SSLCertVerificationError}
    | {kind for kind in kin(OSError) if kind.__module__ in {"builtins", "socket", "ssl"}},
    key=str,
)


def test_the_tables_are_not_empty() -> None:
    assert len(HTTPX) > 20
    assert {*HTTPX} >= SURELY_NOT_SENT


@pytest.mark.parametrize("kind", HTTPX, ids=named)
def test_of_the_engines_only_the_listed_prove_that_nothing_was_sent(kind: type[BaseException]) -> None:
    expected = FailureKind.NOT_SENT if kind in SURELY_NOT_SENT else FailureKind.AMBIGUOUS
    assert classify(made(kind)).kind is expected


@pytest.mark.parametrize("kind", PYTHON, ids=named)
@pytest.mark.parametrize("wrapper", [None, httpx.ReadError, wire.Dropped, httpx.PoolTimeout])
def test_what_happened_in_the_system_proves_nothing_by_itself(
    kind: type[BaseException], wrapper: type[BaseException] | None
) -> None:
    """A refused connection is sure where a connection was being made, and nowhere else."""
    error = made(kind) if wrapper is None else made(wrapper, made(kind))
    assert classify(error).kind is FailureKind.AMBIGUOUS


def test_of_all_exceptions_there_are_only_the_listed_prove_that_nothing_was_sent() -> None:
    """Every type that is loaded here: Python's, the libraries', ours; alone, as a cause, and beside one."""
    every: dict[type[BaseException], BaseException] = {}
    for kind in sorted(kin(BaseException), key=str):
        # Some compiled ones ask for more than that; none of them has to do with a request.
        with suppress(Exception):
            every[kind] = made(kind)
    assert len(every) > 300
    assert {*HTTPX, *PYTHON} <= {*every}
    for kind, error in every.items():
        sure = kind in SURELY_NOT_SENT
        assert (classify(error).kind is FailureKind.NOT_SENT) == sure, named(kind)
        for wrapper in (httpx.ReadError, httpx.RemoteProtocolError, httpx.HTTPError):
            wrapped = made(wrapper, error)
            assert classify(wrapped).kind is FailureKind.AMBIGUOUS, named(kind)
            wrapped.__cause__, wrapped.__context__ = None, error
            assert classify(wrapped).kind is FailureKind.AMBIGUOUS, named(kind)
        # What kept a connection from being made says why, and changes nothing about that.
        assert classify(made(httpx.ConnectError, error)).kind is FailureKind.NOT_SENT, named(kind)


@pytest.mark.parametrize("kind", sorted({*HTTPX, *PYTHON}, key=str), ids=named)
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
    failure = classify(made(httpx.ConnectError, system))
    assert (failure.kind, failure.code) == (FailureKind.NOT_SENT, code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (made(httpx.ConnectError, socket.gaierror(socket.EAI_NONAME, "no such name")), "dns"),
        (made(httpx.ConnectError, ssl.SSLCertVerificationError("untrusted")), "tls"),
        (made(httpx.ConnectError), "connect_failed"),
        (made(httpx.ConnectTimeout, TimeoutError()), "connect_timeout"),
        (made(wire.Stale), "stale_connection"),
        (made(httpx.ReadTimeout), "read_timeout"),
        (made(httpx.ReadError, ConnectionResetError()), "reset"),
        (made(wire.Dropped), "dropped"),
        (made(wire.BrokenOff, ConnectionResetError()), "broken_off"),
        (made(wire.Oversize), "oversize"),
        (made(wire.Garbled), "garbled"),
        (made(httpx.RemoteProtocolError), "garbled"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "as if"), "unknown"),
    ],
)
def test_each_has_its_code(error: BaseException, code: str) -> None:
    assert classify(error).code == code
