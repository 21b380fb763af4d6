"""Files of recipients where they lie, or as they come in by standard input, and the files of rejects beside them."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final, NamedTuple, Self, TypeVar

from dispatcher import files
from dispatcher.errors import DispatcherError, InvalidRequest
from dispatcher.privacy import one_line, shown

T = TypeVar("T")

#: How standard input is named.
STDIN: Final = "-"

_STOPS: Final = (signal.SIGINT, signal.SIGTERM)

#: Characters of one line at most: what is longer is no line of recipients.
_LONGEST: Final = 1 << 20
#: Characters of a file's name that an error shows.
_MOST_SHOWN: Final = 200

#: Bytes that are looked through at a time.
_BLOCK: Final = 1 << 18

#: What undecodable bytes become, so that the line they are on can be told. No decoder makes it of sound ones.
_BROKEN: Final = "\udc80"
codecs.register_error("dispatcher.broken", lambda error: (_BROKEN, getattr(error, "end", 0)))


class Interrupted(Exception):
    """Somebody asked to stop."""


class Stop:
    """Ctrl-C and TERM: obeyed at once while input is waited for, else when a portion is done.

    The second one is obeyed as if nobody listened.
    """

    def __init__(self) -> None:
        """Listen from `with` on."""
        self._asked = False
        self._waits = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Listen."""
        self._before = {number: signal.signal(number, self._heard) for number in _STOPS}
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True
        self.__exit__()
        if self._waits:
            raise Interrupted

    def obey(self) -> None:
        """Raise `Interrupted` where a stop was asked for."""
        if self._asked:
            raise Interrupted

    def wait(self, read: Callable[[], T]) -> T:
        """Return what `read` waits for. Raises `Interrupted` as soon as a stop is asked for."""
        self._waits = True
        try:
            self.obey()
            return read()
        finally:
            self._waits = False


# -- the source --------------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """An open file; where it can be read twice, also what is in it."""

    raw: BinaryIO
    name: str
    #: For reading.
    encoding: str
    #: A hash of all that is in it, and how many lines these are; None where it can be read once only.
    digest: str | None
    lines: int | None
    #: It begins with the mark that spreadsheets want to see.
    marked: bool


@contextmanager
def opened(file: str, encoding: str, stop: Stop) -> Iterator[Source]:
    """Open a file, or standard input, and look through it. Raises `InvalidRequest` naming what cannot be read."""
    used = _encoding(encoding)
    mark = codecs.BOM_UTF8
    with ExitStack() as stack:
        try:
            raw: Any = sys.stdin.buffer if file == STDIN else stack.enter_context(Path(file).open("rb"))
            marked = stop.wait(lambda: raw.peek(len(mark))).startswith(mark)
            twice = raw.seekable() and file != STDIN
            digest, lines = _survey(raw, used, stop) if twice else (None, None)
        except OSError as error:
            raise InvalidRequest("FILE", f"cannot be read: {error.strerror}", one_line(file)[:_MOST_SHOWN]) from None
        yield Source(raw, file, used, digest, lines, marked)


def _encoding(name: str) -> str:
    try:
        "".encode(name)
        plain = codecs.lookup(name).name
    except (LookupError, UnicodeError):
        raise InvalidRequest("--encoding", "is none that is known; try utf-8, cp1252 or utf-16", shown(name)) from None
    return "utf-8-sig" if plain == "utf-8" else plain


def _survey(raw: BinaryIO, encoding: str, stop: Stop) -> tuple[str, int]:
    """Return a hash of a file and how many lines it has, having seen that all of them can be read."""
    found, lines = hashlib.sha256(), 0
    decoder = codecs.getincrementaldecoder(encoding)("dispatcher.broken")
    with _sound(encoding):
        while block := stop.wait(lambda: raw.read(_BLOCK)):
            found.update(block)
            text = decoder.decode(block)
            _check_sound(text, lines + 1, encoding)
            lines += _ends(text)
        _check_sound(decoder.decode(b"", final=True), lines + 1, encoding)
    raw.seek(0)
    return found.hexdigest(), lines


def _ends(text: str) -> int:
    """Count line ends: old spreadsheets write a carriage return alone."""
    return max(text.count("\n"), text.count("\r"))


def _check_sound(text: str, line: int, encoding: str) -> None:
    if _BROKEN in text:
        raise _misread(encoding, f"line {line + _ends(text[: text.index(_BROKEN)])}")


@contextmanager
def _sound(encoding: str) -> Iterator[None]:
    """Catch what a decoder cannot go on from, such as UTF-16 that does not begin as it must."""
    try:
        yield
    except UnicodeError:
        raise _misread(encoding, "line 1") from None


def _misread(encoding: str, line: str) -> InvalidRequest:
    name = "utf-8" if encoding == "utf-8-sig" else encoding
    return InvalidRequest("--encoding", f"{line} is not in it; name the file's own, often cp1252 or utf-16", name)


def lines(source: Source, stop: Stop) -> Generator[str]:
    """Yield the lines of a file with their ends. Raises `InvalidRequest` for what cannot be read."""
    text = io.TextIOWrapper(source.raw, source.encoding, "dispatcher.broken", newline="")
    number = 0
    try:
        with _sound(source.encoding):
            while line := stop.wait(lambda: text.readline(_LONGEST)):
                number += 1
                _check_sound(line, number, source.encoding)
                if len(line) >= _LONGEST:
                    raise InvalidRequest("FILE", f"line {number} has over {_LONGEST} characters, and is no recipient")
                yield line
    except OSError as error:
        raise InvalidRequest("FILE", f"cannot be read any further: {error.strerror}", source.name) from None
    finally:
        # The file is closed by whoever opened it.
        text.detach()


# -- rejects -----------------------------------------------------------------------------------------------------------


class Rejects:
    """The file of rejects: there from the first reject on, for its owner's eyes only."""

    def __init__(self, path: Path, source: Source, heading: str) -> None:
        """Raises `InvalidRequest` where something else is in the file's place."""
        self.path = path
        self._heading = heading
        self._encoding = source.encoding
        if source.encoding == "utf-8-sig" and not source.marked:
            self._encoding = "utf-8"
        self._file: io.TextIOWrapper | None = None
        try:
            with path.open("rb") as there:
                start = there.read(256).replace(b"\0", b"")
                same = source.name != STDIN and os.path.sameopenfile(there.fileno(), source.raw.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise InvalidRequest("--rejects", f"cannot be used: {error.strerror}", str(path)) from None
        if same or (start and files.LINE.encode() not in start):
            raise InvalidRequest("--rejects", "is there, and is no file of rejects; name another", str(path))

    def add(self, lines: str) -> None:
        """Write lines to it. Raises `DispatcherError` where they cannot be written."""
        try:
            if self._file is None:
                self._file = _private(self.path, self._encoding)
                self._file.write(self._heading)
            self._file.write(lines)
        except OSError as error:
            raise _unwritten(self.path, error) from None

    def flush(self) -> None:
        """See to it that what was added is there even if we are killed."""
        try:
            if self._file is not None:
                self._file.flush()
        except OSError as error:
            raise _unwritten(self.path, error) from None

    def close(self, *, complete: bool) -> None:
        """Close it; after a `complete` run without rejects one that an earlier run left is removed."""
        if self._file is not None:
            with suppress(OSError):  # it was flushed with each portion
                self._file.close()
        elif complete:
            self.path.unlink(missing_ok=True)


def _private(path: Path, encoding: str) -> io.TextIOWrapper:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(number, 0o600)
    return os.fdopen(number, "w", encoding=encoding, newline="")


def _unwritten(path: Path, error: OSError) -> DispatcherError:
    return DispatcherError(f"{path} cannot be written: {error.strerror}; name another place with --rejects")
