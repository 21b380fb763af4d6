"""What `dispatcher doctor` finds: one thing looked at, how it is, and where it is not well, the way out."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How it is."""

    OK = "ok"
    #: It works, and may not for long, or not for all.
    WARNING = "warning"
    #: Something does not work, or loses jobs.
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. `check` is a stable name such as "redis.eviction"; nothing in it is secret."""

    check: str
    status: Status
    message: str
    #: What to do; empty where all is well.
    way_out: str = ""

    @property
    def words(self) -> str:
        """Message and way out in one sentence."""
        return f"{self.message}; {self.way_out}" if self.way_out else self.message


def ok(check: str, message: str) -> Finding:
    """Return that something is well."""
    return Finding(check=check, status=Status.OK, message=message)


def warning(check: str, message: str, way_out: str) -> Finding:
    """Return that something works and should be looked at."""
    return Finding(check=check, status=Status.WARNING, message=message, way_out=way_out)


def problem(check: str, message: str, way_out: str) -> Finding:
    """Return that something does not work."""
    return Finding(check=check, status=Status.PROBLEM, message=message, way_out=way_out)
