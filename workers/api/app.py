"""The endpoints: each reads what was asked, says whose it is, calls one verb, and shows the document it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from dispatcher import Message, tokens
from dispatcher.calls import Calls, call_name
from dispatcher.errors import ConfigurationError, DispatcherError, NotFound, StoreUnavailable
from dispatcher.events import wanted
from dispatcher.jobs import Job, new_id
from dispatcher.privacy import shown
from dispatcher.store import AsyncJobStore
from dispatcher.tokens import Right, Token
from workers.api import bodies, description, problems
from workers.api.description import changed, created, found
from workers.api.following import HEARTBEAT, Following
from workers.api.gate import Gate, Known
from workers.api.problems import Problem
from workers.api.repeats import Repeats, read_key
from workers.api.service import Service

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from dispatcher.settings import Settings

T = TypeVar("T")

#: Seconds that Redis may take to tell of a token, and calls that are made at once.
_REDIS: Final = 3.0
_THREADS: Final = 32

#: Connections that may follow events at once.
_MOST_FOLLOWING: Final = 2000

#: Seconds that the name of a batch is a tenant's before it has its first job.
_NAME_KEPT: Final = 86400

#: The right that each kind of job asks for; an operation is nobody's here.
_OF_KIND: Final = {"send": Right.SEND, "verify": Right.VERIFY, "lookup": Right.LOOKUP}

_EVENT_STREAM: Final = "text/event-stream"


class Api:
    """The application; close it when it is over."""

    def __init__(
        self, settings: Settings, *, longest_wait: float = bodies.LONGEST_WAIT, heartbeat: float = HEARTBEAT
    ) -> None:
        """Enqueue with `settings`, as an application does. A long poll takes at most `longest_wait` seconds."""
        settings.require_server("the HTTP API")
        self.longest_wait = longest_wait
        self._settings = settings
        self.service = Service(settings, threads=_THREADS)
        self.store = AsyncJobStore(settings.redis, settings.redis_shown, timeout=_REDIS, fsync=settings.fsync)
        self.following = Following(self.service, heartbeat)
        self.repeats = Repeats(settings, self.store)
        self.known = Known(self.store)
        self._calls = Calls(settings)
        self._entered = False
        self._app = Gate(_application(self), self.known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, as ASGI has it."""
        await self._app(scope, receive, send)

    async def aclose(self) -> None:
        """Let those go who listen, and close the connections."""
        await self.following.close()
        await self.service.aclose()
        await self.store.close()

    async def enter(self) -> None:
        """See that the jobs in this Redis are ours. Raises `ConfigurationError` where not, `StoreUnavailable`."""
        if not self._entered:
            await self.store.run(self._calls.enter())
            self._entered = True

    async def make(
        self,
        token: Token,
        amount: int,
        steps: Callable[[], Awaitable[T]],
        made: Callable[[T, int], int],
        *,
        key: str = "",
    ) -> T:
        """Make jobs by `steps`, out of the budget of a token: it is asked before the first is made.

        `made` says how many of them are new since a moment in ms, for what was there before costs nothing. One job may
        have a `key`, as `key_of` has it: a used-up budget gives what was made by it, and of two requests that bring a
        new one at the same moment, which both find the job new, one pays.
        """
        if not token.windows:
            return await steps()
        call = call_name()
        drawn = await self.store.run(tokens.draw(call, token, amount, key))
        if not drawn.granted:
            raise _used_up(token, drawn.retry_after)
        try:
            answer = await steps()
        except StoreUnavailable:
            # It may have been made: then it counts.
            raise
        except DispatcherError:
            await self.store.run(tokens.give_back(call, amount))
            raise
        unused = amount - made(answer, drawn.at)
        if unused:
            await self.store.run(tokens.give_back(call, unused))
        elif key and isinstance(answer, Job):
            await self.store.run(tokens.give_back(call, amount, answer.id))
        return answer

    def key_of(self, told: Mapping[str, Any], key: str | None) -> str:
        """Return what a job is found by that a tenant's idempotency key made; "" for no key."""
        return "" if key is None else self._settings.keyed("idempotency", told.get("tenant") or "", key)

    async def check_name(self, batch: str, tenant: str) -> None:
        """See that the name of a batch is the tenant's to use. Raises `Problem`."""
        key = f"d:ai:b:{batch}"
        with self.store.errors():
            await self.store.redis.set(key, tenant, nx=True, ex=_NAME_KEPT)
            owner: Any = await self.store.redis.get(key)
        try:
            first = await self.service.tenant_of(batch)
        except NotFound:
            first = tenant
        if first != tenant or (owner is not None and owner.decode() != tenant):
            raise Problem(
                409, "batch_taken", "somebody else has a batch of that name; choose another", field="batch_id"
            )


def _used_up(token: Token, retry_after: int | None) -> Problem:
    if retry_after is None:
        detail = f"is more than the token's budget ({token.budget}) ever lets it make at once"
        return Problem(429, "budget_too_small", detail)
    return Problem(429, "budget_used_up", f"the token's budget ({token.budget}) is used up", retry_after=retry_after)


# -- who asks ----------------------------------------------------------------------------------------------------------


def _token(request: Request) -> Token:
    token: Token = request.state.token
    return token


def _need(token: Token, right: Right | None) -> None:
    if right not in token.rights:
        needed = f"the right {right}" if right else "a right that no token has"
        raise Problem(403, "right_missing", f"this takes {needed}; this token has {', '.join(token.rights)}")


def _with(right: Right) -> Any:
    """Return what a handler gets its token by, which must have a right."""

    def admitted(request: Request) -> Token:
        token = _token(request)
        _need(token, right)
        return token

    return Depends(admitted)


def _revealing(token: Token, *, reveal: bool) -> bool:
    if reveal:
        _need(token, Right.REVEAL)
    return reveal


def _terms(token: Token, body: Any, *without: str) -> dict[str, Any]:
    """Return the arguments that a document holds, on behalf of the token's tenant. Raises `Problem`."""
    told: dict[str, Any] = body.given(*without)
    if told.get("callback_task"):
        _need(token, Right.TASKS)
    if token.tenant is not None:
        if told.get("tenant", token.tenant) != token.tenant:
            raise Problem(403, "tenant_forbidden", "this token is for another tenant; leave it out", field="tenant")
        told["tenant"] = token.tenant
    return told


_Sends = Annotated[Token, _with(Right.SEND)]
_Verifies = Annotated[Token, _with(Right.VERIFY)]
_LooksUp = Annotated[Token, _with(Right.LOOKUP)]
_Reads = Annotated[Token, _with(Right.READ)]
_Anybody = Annotated[Token, Depends(_token)]
_Idempotency = description.idempotency_header


def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


_TheApi = Annotated[Api, Depends(_api)]

v1 = APIRouter(prefix="/v1", dependencies=[Security(HTTPBearer(auto_error=False, description=description.TOKEN))])


# -- enqueuing ---------------------------------------------------------------------------------------------------------


@v1.post("/messages", status_code=201, responses=created("Job", 409), openapi_extra=_Idempotency, tags=["messages"])
async def send_message(body: bodies.SendMessage, request: Request, token: _Sends, api: _TheApi) -> Response:
    """Send one text."""
    told = _terms(token, body)
    key = read_key(request.headers)
    steps = partial(api.service.send, **told, idempotency_key=key)
    return _made(await api.make(token, 1, steps, _is_new, key=api.key_of(told, key)))


@v1.post("/batches", status_code=201, responses=created("Batch", 409), openapi_extra=_Idempotency, tags=["batches"])
async def send_batch(body: bodies.SendBatch, request: Request, token: _Sends, api: _TheApi) -> Response:
    """Send many texts.

    All are checked before the first is made. More than one request holds follow with the same `batch_id`, all but the
    last with `more`.
    """
    told = _terms(token, body, "messages", "batch_id", "more")
    key, name = read_key(request.headers), body.batch_id or new_id()
    if body.batch_id is not None and token.tenant is not None:
        await api.check_name(name, token.tenant)

    async def write(name: str) -> dict[str, Any]:
        messages = [_message(one, key, position) for position, one in enumerate(body.messages)]
        steps = partial(api.service.send_many, messages, batch_id=name, more=body.more, **told)
        batch = await api.make(token, len(messages), steps, lambda batch, _: batch.created)
        return {**await batch.to_dict(), "created": batch.created}

    if key is None:
        document = await write(name)
    else:
        asked = msgspec.json.encode(body.model_dump(exclude_unset=True), order="sorted")
        tenant = told.get("tenant", "")
        async with api.repeats.once("batch", tenant, key, asked, name) as turn:
            document = await _batch_again(api, turn.name) if turn.done else await write(turn.name)
    return _json(document, 201, {"Location": f"/v1/batches/{document['id']}"})


async def _batch_again(api: Api, name: str) -> dict[str, Any]:
    state = await api.service.batch_state(name)
    return {**state.to_dict(name), "created": 0}


def _message(one: bodies.BatchMessage, key: str | None, position: int) -> Message:
    """Return one of many, known again by the batch's key where it has none of its own."""
    told = one.given()
    if key is not None:
        told.setdefault("idempotency_key", f"batch\n{position}\n{key}")
    return Message(**told)


@v1.post(
    "/verifications", status_code=201, responses=created("Job", 409), openapi_extra=_Idempotency, tags=["verifications"]
)
async def start_verification(
    body: bodies.StartVerification, request: Request, token: _Verifies, api: _TheApi
) -> Response:
    """Send a one-time code."""
    told = _terms(token, body)
    key = read_key(request.headers)
    steps = partial(api.service.verify, **told, idempotency_key=key)
    return _made(await api.make(token, 1, steps, _is_new, key=api.key_of(told, key)))


@v1.post("/verifications/{id}/check", responses=changed("Check", 404, 409, 504), tags=["verifications"])
async def check_code(id: str, body: bodies.CheckCode, token: _Verifies, api: _TheApi) -> Response:  # noqa: A002 - what the path calls it
    """Judge the code that a person typed: five tries, one success."""
    await _own(api, token, id)
    return _json(msgspec.to_builtins(await api.service.check(id, body.code, timeout=body.timeout)))


@v1.post(
    "/verifications/{id}/resend",
    status_code=201,
    responses=created("Job", 404, 409),
    openapi_extra=_Idempotency,
    tags=["verifications"],
)
async def resend_code(
    id: str,  # noqa: A002 - same
    request: Request,
    token: _Verifies,
    api: _TheApi,
    body: bodies.ResendCode | None = None,
) -> Response:
    """Send another code; the one before is dead."""
    job = await _own(api, token, id)
    key, told = read_key(request.headers), body.given() if body else {}
    if key is None:
        return _made(await _resent(api, token, id, told))
    asked = msgspec.json.encode([id, told], order="sorted")
    newest = await api.service.newest_code(id)
    async with api.repeats.once("resend", job.tenant, key, asked, newest) as turn:
        # Begun when another was the newest, it was made then, though nobody was told: the answer was lost.
        made = turn.name if turn.done else newest if turn.name != newest else None
        job = await (_resent(api, token, id, told) if made is None else api.service.get(made))
        turn.name = job.id
    return _made(job)


async def _resent(api: Api, token: Token, id_: str, told: dict[str, Any]) -> Job:
    return await api.make(token, 1, partial(api.service.resend, id_, **told), _is_new)


@v1.post("/lookups", status_code=201, responses=created("Job", 409), openapi_extra=_Idempotency, tags=["lookups"])
async def look_up(body: bodies.LookUp, request: Request, token: _LooksUp, api: _TheApi) -> Response:
    """Ask a provider what it knows of a number."""
    told = _terms(token, body)
    key = read_key(request.headers)
    steps = partial(api.service.lookup, **told, idempotency_key=key)
    return _made(await api.make(token, 1, steps, _is_new, key=api.key_of(told, key)))


# -- reading and taking back -------------------------------------------------------------------------------------------


@v1.get("/jobs", responses=found("Jobs"), tags=["jobs"])
async def list_jobs(query: Annotated[bodies.Jobs, Query()], token: _Reads, api: _TheApi) -> Response:
    """List jobs, the latest to change first.

    `complete` is false where there may be more of a tenant's than were found among the latest of all.
    """
    reveal = _revealing(token, reveal=query.reveal)
    chosen = {"state": query.state, "provider": query.provider, "batch": query.batch, "reveal": reveal}
    jobs, complete = await api.service.jobs_of(token.tenant, limit=query.limit, **chosen)
    return _json({"jobs": [one.to_dict() for one in jobs], "complete": complete})


@v1.get("/jobs/{id}", responses=found("Job", 404), tags=["jobs"])
async def get_job(id: str, query: Annotated[bodies.Revealing, Query()], token: _Reads, api: _TheApi) -> Response:  # noqa: A002 - same
    """Read a job as it is now."""
    job = await api.service.own_job(id, token.tenant, reveal=_revealing(token, reveal=query.reveal))
    return _json(job.to_dict())


@v1.post("/jobs/{id}/cancel", responses=changed("Job", 404, 409), tags=["jobs"])
async def cancel_job(id: str, token: _Anybody, api: _TheApi) -> Response:  # noqa: A002 - same
    """Take a queued job back, or a verification's code; the right is the one that it was made by."""
    job = await _own(api, token, id)
    _need(token, _OF_KIND.get(job.kind))
    return _json((await api.service.cancel(id)).to_dict())


@v1.get("/batches/{id}", responses=found("Batch", 404), tags=["batches"])
async def get_batch(id: str, token: _Reads, api: _TheApi) -> Response:  # noqa: A002 - same
    """Read where a batch stands: its counts add up at every moment."""
    await api.service.check_batch(id, token.tenant)
    return _json(await (await api.service.batch(id)).to_dict())


@v1.get("/batches/{id}/jobs", responses=found("Page", 404), tags=["batches"])
async def list_batch(id: str, query: Annotated[bodies.Page, Query()], token: _Reads, api: _TheApi) -> Response:  # noqa: A002 - same
    """Read the jobs of a batch, a page at a time, in the order they were made."""
    reveal = _revealing(token, reveal=query.reveal)
    await api.service.check_batch(id, token.tenant)
    jobs, following = await api.service.batch_page(id, token.tenant, query.start, query.limit, reveal=reveal)
    return _json({"jobs": [one.to_dict() for one in jobs], "next": following})


@v1.post("/batches/{id}/cancel", responses=changed("Batch", 404), tags=["batches"])
async def cancel_batch(id: str, token: _Sends, api: _TheApi) -> Response:  # noqa: A002 - same
    """Take back what is still queued of a batch, and refuse what comes later."""
    await api.service.check_batch(id, token.tenant)
    await api.service.cancel_batch(id)
    return _json((await api.service.batch_state(id)).to_dict(id))


@v1.post("/batches/{id}/close", responses=changed("Batch", 404), tags=["batches"])
async def close_batch(id: str, token: _Sends, api: _TheApi) -> Response:  # noqa: A002 - same
    """Say that no more messages of a batch follow."""
    await api.service.check_batch(id, token.tenant)
    return _json(await (await api.service.close_batch(id)).to_dict())


async def _own(api: Api, token: Token, id_: str) -> Job:
    return await api.service.own_job(id_, token.tenant)


# -- events ------------------------------------------------------------------------------------------------------------


@v1.get("/events", responses=description.EVENTS, tags=["events"])
async def get_events(
    query: Annotated[bodies.Events, Query()],
    request: Request,
    token: _Reads,
    api: _TheApi,
    last_event_id: Annotated[
        str | None, Header(description="Where an event stream goes on.", pattern=bodies.CURSOR)
    ] = None,
) -> Response:
    """Read what happened, in order: by long poll, or with `Accept: text/event-stream` as it comes."""
    reveal = _revealing(token, reveal=query.reveal)
    chosen = wanted(query.types.split(",") if query.types else None, token.tenant, query.batch)
    if api.following.listening >= _MOST_FOLLOWING:
        raise Problem(503, "too_many_following", "too many follow events here already", retry_after=5)
    if _EVENT_STREAM in request.headers.get("accept", ""):
        cursor = await api.service.start(last_event_id or query.after)
        stream = api.following.stream(cursor, chosen, reveal=reveal, admitted=_still(api, request))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, headers=headers, media_type=_EVENT_STREAM)
    cursor = await api.service.start(query.after)
    seconds = min(query.wait, api.longest_wait)
    events, cursor = await api.following.poll(cursor, chosen, reveal=reveal, seconds=seconds)
    return _json({"events": msgspec.to_builtins(events), "cursor": cursor}, headers={"Cache-Control": "no-store"})


def _still(api: Api, request: Request) -> Callable[[], Awaitable[bool]]:
    """Return what says whether who listens is still let in."""
    bearer = request.headers["authorization"].split()[-1]

    async def admitted() -> bool:
        return await api.known.find(bearer) == _token(request)

    return admitted


# -- beside ------------------------------------------------------------------------------------------------------------

beside = APIRouter()


@beside.head("/health", include_in_schema=False)
@beside.get("/health", responses=description.HEALTH, tags=["health"])
async def health(api: _TheApi) -> Response:
    """Say whether jobs can be taken; no token is needed."""
    try:
        await api.enter()
        with api.store.errors():
            await api.store.redis.ping()
    except (ConfigurationError, StoreUnavailable) as error:
        raise problems.of(error) from None
    return _json({"ok": True})


def _application(api: Api) -> FastAPI:
    app = application()
    app.state.api = api
    return app


def application() -> FastAPI:
    """Return the endpoints without what they need to run: their description is made of this."""
    app = FastAPI(
        title="Dispatcher",
        version="1",
        description=description.SUMMARY,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.include_router(v1)
    app.include_router(beside)
    for kind in (Problem, DispatcherError, TimeoutError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _not_routed)
    description.describe(app)
    return app


async def _failed(request: Request, error: Exception) -> Response:
    del request
    return problems.of(error).response()


async def _not_valid(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    told: Any = error.errors()[0]
    place = [*told["loc"]]
    if told["type"] == "json_invalid":
        return Problem(400, "invalid_json", "the body is no JSON").response()
    where, *names = place
    if told["type"] == "missing" and not names:
        return Problem(400, "body_missing", "a JSON object is needed as the body").response()
    reason = {"extra_forbidden": "is no field here", "missing": "is missing"}.get(told["type"], told["msg"])
    field = _named(names, header=where == "header") or str(where)
    return Problem(422, "invalid", f"{field}: {reason}", field=field).response()


def _named(names: list[Any], *, header: bool) -> str:
    """Return a field as Python's errors call it: `messages[3].to`; what somebody made up is masked.

    Of a field that may be one of several things pydantic tells which one it tried, too.
    """
    words = ""
    for one in names:
        if isinstance(one, int):
            words += f"[{one}]"
        elif header or (one.isidentifier() and one != "str"):
            words += f"{'.' if words else ''}{shown(one)}"
    return words


async def _not_routed(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    words = {404: "there is no such endpoint", 405: "this endpoint has other methods"}
    code = {404: "no_such_endpoint", 405: "method_not_allowed"}.get(error.status_code, "invalid_json")
    detail = words.get(error.status_code, "the body cannot be read")
    return Problem(error.status_code, code, detail, headers=error.headers).response()


def _is_new(job: Job, at: int) -> int:
    """Say whether a job was made since `at`, in ms."""
    return int(round(job.created_at.timestamp() * 1000) >= at)


def _made(job: Job) -> Response:
    return _json(job.to_dict(), 201, {"Location": f"/v1/jobs/{job.id}"})


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, "application/json")
