"""Enqueue texts with one of these programs: `python enqueue.py MODULE FIRST COUNT`; prints how many a second."""

from __future__ import annotations

import sys
import time
from importlib import import_module


def message(n: int) -> tuple[str, str]:
    """Return a number that nobody owns, and words that only this text has."""
    return f"+1{200 + n % 40_000 // 54}5550{146 + n % 40_000 % 54}", f"Hello {n}"


def main() -> None:
    module, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    enqueue, messages = import_module(module).enqueue, [message(n) for n in range(first, first + count)]
    # The first one makes connections.
    enqueue(messages[:1])
    began = time.perf_counter()
    enqueue(messages[1:])
    print((count - 1) / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
