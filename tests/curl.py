"""As much of curl as our documents use, for machines that have none: `python tests/curl.py URL [OPTIONS]`."""

from __future__ import annotations

import argparse
import sys
import time
import urllib.error
import urllib.request

#: What curl ends with when a page failed, and when its time was over.
FAILED, LATE = 22, 28


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    for flag in ("-s", "-S", "-N", "-f", "--fail-with-body"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-X", dest="method", default=None)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("--json", default=None)
    parser.add_argument("--max-time", type=float, default=60.0)
    told = parser.parse_args()
    headers = dict(one.split(": ", 1) for one in told.headers)
    if told.json is not None:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
    body = None if told.json is None else told.json.encode()
    request = urllib.request.Request(told.url, body, headers, method=told.method)  # noqa: S310 - the tests' own
    until = time.monotonic() + told.max_time
    try:
        with urllib.request.urlopen(request, timeout=told.max_time) as answer:  # noqa: S310 - same
            while piece := answer.read1():
                sys.stdout.write(piece.decode())
                sys.stdout.flush()
                if time.monotonic() > until:
                    return LATE
    except urllib.error.HTTPError as error:
        sys.stdout.write(error.read().decode())
        return FAILED
    except TimeoutError:
        return LATE
    return 0


sys.exit(main())
