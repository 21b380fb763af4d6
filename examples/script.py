"""Text one person, and follow what becomes of it: `python script.py +447700900001 "Your parcel is here"`."""

from __future__ import annotations

import sys

from dispatcher import Dispatcher, InvalidRequest, WaitTimeout


def main(to: str, text: str, *, provider: str = "textgoto", patience: float = 30) -> int:
    """Return what a shell is to know: 0 where it was sent. `patience` is in seconds."""
    with Dispatcher() as d:
        # From before it is sent, so that none of its events is missed.
        news = d.events(timeout=patience)
        try:
            job = d.send(to, text, provider=provider, valid_for=3600)
            job = d.wait(job.id, timeout=patience)
        except InvalidRequest as error:
            print(f"not sent: {error}")
            return 2
        except WaitTimeout as error:
            # It is not lost: it goes on, and `dispatcher job ID` tells.
            print(error)
            return 1
        print(f"{job.id} is {job.state}" + (f": {job.failure.message}" if job.failure else ""))
        for event in news:
            if event.data.get("id") != job.id:
                continue
            print(event.type)
            # A provider that tells no receipts tells no more.
            if event.data["final"] or event.data["receipt"] == "none":
                break
    return 0 if job.state in {"sent", "delivered"} else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
