"""Enqueue texts one by one, with pauses: `python pace.py MODULE COUNT LEAST MOST`; prints when each was asked for."""

from __future__ import annotations

import json
import random
import sys
import time
from importlib import import_module

from enqueue import message


def main() -> None:
    module, count, least, most = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    enqueue, asked = import_module(module).enqueue, {}
    for n in range(count):
        number, text = message(n)
        time.sleep(random.uniform(least, most))
        asked[f"{number.lstrip('+')} {text}"] = time.monotonic()
        enqueue([(number, text)])
    print(json.dumps(asked))


if __name__ == "__main__":
    main()
