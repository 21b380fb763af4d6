"""The ceiling: our transport and nothing else, `python -m benchmarks.bare URL COUNT IN_FLIGHT`."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.rig import messages
from workers.providers.base import Request, Response, posted_json
from workers.transport import Transport


def request(url: str, number: str, text: str) -> Request:
    """Return the request that our adapter makes of one text."""
    header = {"-uid": "sandbox", "-pwd": "sandbox", "-action": "SEND_MSISDN"}
    body = {"msisdn": [number.removeprefix("+")], "msg": text}
    return posted_json(f"{url}/api/jsonapi.aspx", {"campaign": {"header": header, "body": body}})


async def _loop(url: str, count: int, in_flight: int) -> None:
    requests = iter([request(url, text.to, text.text) for text in messages(count)])

    async def send(transport: Transport) -> None:
        for one in requests:
            answer = await transport.send(one)
            assert isinstance(answer, Response), answer

    async with Transport() as transport:
        await asyncio.gather(*(send(transport) for _ in range(in_flight)))


def main() -> None:
    url, count, in_flight = sys.argv[1:]
    asyncio.run(_loop(url, int(count), int(in_flight)))


if __name__ == "__main__":
    main()
