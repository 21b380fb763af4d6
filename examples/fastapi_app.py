"""Sign-in by a code sent to a phone: `POST /codes` texts one, `POST /codes/ID/check` judges what the person typed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Annotated

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

from dispatcher import Dispatcher, InvalidRequest, NotFound, StoreUnavailable, WaitTimeout


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


# Plain `def`: Dispatcher is synchronous and safe to share between the threads that FastAPI runs these in.
@app.post("/codes", status_code=202)
def send_code(to: Annotated[str, Body(embed=True)]) -> dict[str, str]:
    """Text a code; the answer's `id` is for checking it."""
    return {"id": dispatcher().verify(to, template="Your code for the shop is [CODE]", provider="textgoto").id}


@app.post("/codes/{id_}/check")
def check_code(id_: str, code: Annotated[str, Body(embed=True)]) -> dict[str, bool]:
    """Judge a code: wrong, used, too late, tried too often or never sent are all the same `false`."""
    try:
        return {"valid": dispatcher().check(id_, code).valid}
    except (InvalidRequest, NotFound):
        return {"valid": False}
