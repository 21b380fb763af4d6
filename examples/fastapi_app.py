"""Sign-in by a code sent to a phone: `POST /codes` texts one, `../resend` another, `../check` judges what was typed.

`POST /hooks/dispatcher` is told what becomes of the texts, where `DISPATCHER_CALLBACK_URL` leads here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from standardwebhooks import Webhook, WebhookVerificationError

from dispatcher import (
    Dispatcher,
    IllegalMove,
    InvalidRequest,
    KeyLimited,
    NotFound,
    StoreUnavailable,
    VerificationRefused,
    WaitTimeout,
)
from dispatcher.jobs import new_id

log = logging.getLogger(__name__)


@cache
def dispatcher() -> Dispatcher:
    """Return the one of this process; its settings come from the environment."""
    return Dispatcher()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Refuse to start with settings that cannot work, and close the connections at the end."""
    with dispatcher():
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(InvalidRequest)
def refuse(_: Request, error: InvalidRequest) -> JSONResponse:
    """Say what is wrong with which field; what was typed is not repeated."""
    return JSONResponse({"detail": f"{error.field} {error.reason}"}, 422)


@app.exception_handler(StoreUnavailable)
@app.exception_handler(WaitTimeout)
def come_back(_request: Request, _error: Exception) -> JSONResponse:
    """Ask for patience; what is broken, and where, is not the person's to know."""
    return JSONResponse({"detail": "not now; try again in a moment"}, 503, {"Retry-After": "5"})


#: Stands for a table: the state of each text, and the `seq` of the event that told it.
STATES: dict[str, tuple[str, int]] = {}


@app.post("/hooks/dispatcher", status_code=204)
async def told(request: Request) -> None:
    """Take in what became of a text; it may be told twice, and then changes nothing.

    Signed is the body as it came, so that it is verified before anything is read. Several secrets: the first is ours.
    """
    secret = os.environ["DISPATCHER_CALLBACK_SECRET"].split(",")[0]
    try:
        event = Webhook(secret).verify(await request.body(), dict(request.headers))
    except WebhookVerificationError:
        raise HTTPException(401, "not signed with our secret") from None
    if event["type"].startswith("job."):
        job = event["data"]
        if job["seq"] > STATES.get(job["id"], ("", 0))[1]:
            STATES[job["id"]] = job["state"], job["seq"]


@app.exception_handler(KeyLimited)
def slow_down(_: Request, error: KeyLimited) -> JSONResponse:
    """Tell a visitor that they ask too often: it is about themselves, and about no number."""
    return JSONResponse({"detail": "too many codes; try again later"}, 429, {"Retry-After": str(error.retry_after)})


def visitor(request: Request) -> dict[str, str]:
    """Return what a visitor's codes are counted by. Behind a proxy, let uvicorn read its header: --proxy-headers."""
    return {"ip": request.client.host} if request.client else {}


# Plain `def`: Dispatcher is synchronous and safe to share between the threads that FastAPI runs these in.
@app.post("/codes", status_code=202)
def send_code(request: Request, to: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    """Text a code; the answer's `id` is for checking it. It looks the same where a guard refused the number."""
    try:
        job = dispatcher().verify(
            to, template="Your code for the shop is [CODE]", provider="textgoto", guard_keys=visitor(request)
        )
    except KeyLimited:
        raise
    except VerificationRefused as refused:
        log.warning("no code was sent: %s", refused.code)
        return {"id": new_id()}
    return {"id": job.id}


@app.post("/codes/{id_}/resend", status_code=202)
def send_another(request: Request, id_: str) -> dict[str, str]:
    """Text another code; the one before is dead, and `id` stays. Too soon, or over: the answer is the same."""
    try:
        dispatcher().resend(id_, guard_keys=visitor(request))
    except KeyLimited:
        raise
    except (VerificationRefused, IllegalMove, NotFound) as refused:
        log.warning("no other code was sent: %s", type(refused).__name__)
    return {"id": id_}


@app.post("/codes/{id_}/check")
def check_code(id_: str, code: Annotated[str, Body(embed=True)]) -> dict[str, bool]:
    """Judge a code: wrong, used, too late, tried too often or never sent are all the same `false`."""
    try:
        return {"valid": dispatcher().check(id_, code).valid}
    except (InvalidRequest, NotFound):
        return {"valid": False}
