"""The contract of a provider: one pure adapter that builds requests and parses answers.

An adapter never does I/O, never logs, never retries and never looks at a clock. What it leaves out is answered
`unsupported`. `docs/` and `dispatcher providers` print the capability matrix from the declarations made here.

Checked on paper against the four vendors' documents: a request may carry one job (TheTexting, verifications) or many
(Club Texting by set arithmetic, TextGoto by number, MobTexting by id); it may be GET, POST or DELETE with credentials
in header, body or query; an answer may be empty (204), a list, an object, a plain string, and good for some jobs and
bad for others; the code of a verification may be the provider's to make, to check, or neither.
"""

from __future__ import annotations

import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from dispatcher import jobs
from dispatcher.errors import ConfigurationError
from dispatcher.limits import parse as parse_limits
from dispatcher.lookups import Facts
from dispatcher.outcomes import Failure, FailureKind, Outcome
from dispatcher.states import State
from workers.providers.answers import document

if TYPE_CHECKING:
    from dispatcher.jobs import Work


#: Seconds that a vendor may ask us to wait, and digits that make sense for that.
_HOUR: Final = 3600.0
_DIGITS: Final = 10

#: HTTP codes that mean another address, whoever sent them.
_NOT_HERE: Final = frozenset(
    {
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
    }
)

#: What an account is refused for, whatever it asks.
_OF_THE_ACCOUNT: Final = frozenset(
    {FailureKind.UNAUTHORIZED, FailureKind.INSUFFICIENT_FUNDS, FailureKind.THROTTLED},
)

#: A comma after the last entry of an object or a list.
_DANGLING: Final = re.compile(rb",(\s*[}\]])")

_ORIGIN: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, ready to be written. Its repr shows no more than the verb and the host."""

    method: str
    url: str
    headers: dict[str, str] = {}
    body: bytes = b""

    def __repr__(self) -> str:
        """Leave out path, query, headers and body: any of them may carry a number or a password."""
        return f"Request({self.method} {'/'.join(self.url.split('/')[:3])})"


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One whole HTTP answer, of any status. Header names are in lower case."""

    status: int
    headers: dict[str, str] = {}
    body: bytes = b""

    def __repr__(self) -> str:
        """Leave out the body: it may carry a code."""
        return f"Response({self.status}, {len(self.body)} bytes)"

    def retry_after(self) -> float | None:
        """Return the seconds of `Retry-After`, an hour at most; None where it is absent or cannot be read.

        A date counts from the answer's own, `Date`: both are of the vendor's clock (RFC 9110, 10.2.3 and 6.6.1).
        """
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return min(float(value), _HOUR) if len(value) < _DIGITS else None
        until, at = _moment(value), _moment(self.headers.get("date", ""))
        return None if until is None or at is None else min(max(until - at, 0.0), _HOUR)


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs that travel in one request: what `build` answers, what a permit is asked for, what is claimed together."""

    request: Request
    jobs: tuple[Work, ...]
    #: The limiter's buckets that this request draws from, and how much of each: `{"post": 1, "send": 100}`.
    cost: dict[str, int] = {}
    #: It is no request of the jobs' own, but a read just before it.
    before: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `build` makes of jobs: requests to be sent, and jobs refused without asking the provider."""

    groups: tuple[Group, ...] = ()
    refused: dict[str, Failure] = {}


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job afterwards, by a receipt or by asking; `state` None where that decides nothing.

    `evidence` is a line of the job's history that says what was seen, and how strong it is: "number.list holds the
    number: strong".
    """

    #: sent, delivered, undelivered, completed or failed.
    state: State | None = None
    evidence: str = ""
    #: Why, where it was undelivered or failed.
    failure: Failure | None = None
    #: Of an operation that turns out to be completed.
    result: dict[str, Any] = {}
    #: The provider's id, where it was learnt only now.
    ref: str = ""

    def __repr__(self) -> str:
        """Leave the result out: there may be a number in it."""
        return f"News({self.state}, ref={self.ref!r})"


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request that a provider made to us. Header names are in lower case."""

    method: str
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"Callback({self.method}, {len(self.body)} bytes)"

    def json(self) -> Any:
        """Return the body's JSON, whatever its content type says; None where it is none.

        A comma before a closing bracket, which one vendor's samples have, is forgiven.
        """
        told = document(self.body)
        return told if told is not None else document(_DANGLING.sub(rb"\1", self.body))

    def fields(self) -> dict[str, str]:
        """Return query, form and flat JSON as one, names without case, - and _; what the body says wins."""
        told = dict(parse_qsl(self.query, keep_blank_values=True))
        document = self.json()
        if isinstance(document, dict):
            told |= {name: str(one) for name, one in document.items() if isinstance(one, str | int | float)}
        elif document is None:
            told |= dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))
        return {name.lower().replace("-", "").replace("_", ""): value for name, value in told.items()}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider that called us is answered."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's word on what became of a message, found by our own id, or by its reference and number."""

    news: News
    #: Our job's id, where the provider keeps one with a message.
    own: str = ""
    ref: str = ""
    #: In E.164; empty where the provider names none.
    number: str = ""
    #: Of a message in several parts that are told of one by one: which, and of how many.
    part: int = 1
    parts: int = 1

    def __repr__(self) -> str:
        """Leave the number out."""
        return f"Receipt({self.news.state}, ref={self.ref!r})"


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """A text that a person sent to a number or keyword of ours."""

    #: E.164, or as the provider wrote it where that is no number.
    sender: str
    #: The number or short code it was sent to, as the provider wrote it; empty where it does not say.
    to: str = ""
    text: str = ""
    #: The moment as the provider wrote it: none of them names a zone.
    at: str = ""
    #: The provider's id; empty where there is none, and the whole tells one text from another.
    ref: str = ""

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return "Inbound(...)"


class OptOut(msgspec.Struct, frozen=True, kw_only=True):
    """The provider's own word that a person wants no more texts, or (`out` false) wants them again."""

    number: str
    out: bool = True

    def __repr__(self) -> str:
        """Show nothing of the person."""
        return f"OptOut(out={self.out})"


Told: TypeAlias = Receipt | Inbound | OptOut

Repeat: TypeAlias = Literal["never", "once", "always"]


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One named argument of an operation."""

    #: One sentence: what it is, in which form.
    about: str
    required: bool = True
    #: Turns the caller's text into what the request needs, or raises `ValueError` with the reason.
    parse: Callable[[Any], Any] = str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a provider's API can do."""

    about: str
    #: Where it is known from: "document", "vendor's code" or "inferred"; none is live-verified yet.
    source: str = "document"
    arguments: dict[str, Argument] = {}
    #: Whether it may be done again when nobody knows if it was done: "never", "once" (a charge is possible, so no
    #: more than that), or "always" (twice is the same as once).
    repeat: Repeat = "never"
    #: It costs money: an account without any holds it back.
    paid: bool = False
    #: How a lost answer is cleared up: the read that is asked and what it shows; empty where nobody can tell.
    evidence: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider offers, as the matrix prints it."""

    #: Recipients of the same text that one request may carry.
    recipients: int = 1
    #: The provider keeps our own reference with a message and can be asked by it.
    own_reference: bool = False
    #: How it tells what became of a message: "none", "push", "poll" or "push and poll".
    receipts: Literal["none", "push", "poll", "push and poll"] = "none"
    #: It tells of texts that people send to us.
    inbound: bool = False
    #: Who makes a verification's code: "provider" (and tells us), "provider checks" (and does not), "ours".
    verification: Literal["provider", "provider checks", "ours"] = "ours"
    #: Characters of text that it takes at most; None where its document names no limit.
    max_characters: int | None = None
    #: The only characters that a text may have; empty where it takes any.
    characters: str = ""


class Adapter(ABC):
    """One account at one provider.

    Subclasses declare the class attributes and write `build` and `parse`; a test runs what all must satisfy.
    """

    #: The name of the provider: an account with another name says it as its `ADAPTER`.
    name: ClassVar[str]
    #: The origin requests go to unless `BASE_URL` names another.
    base_url: ClassVar[str]
    #: Settings that must be there before a worker starts, such as ("uid", "pwd"), and those that may.
    required: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    #: The credentials that the sandbox's own account takes.
    sandbox: ClassVar[Mapping[str, str]] = {}
    #: Jobs that travel in one request unless `GROUP_SIZE` says otherwise.
    group_size: ClassVar[int] = 1
    #: What it may be sent how fast unless `LIMITS` says otherwise, as that is written: "get=1000/60s,concurrency=2".
    limits: ClassVar[str] = ""
    #: Requests that a worker process makes at once; None for as many as it has connections, or `LIMITS` allows.
    at_once: ClassVar[int | None] = None
    capabilities: ClassVar[Capabilities] = Capabilities()
    #: Codes of refusals as `opted_out` that are nothing the person said to anybody, such as a register's: the account
    #: blocks them, and they are not on the list.
    not_their_word: ClassVar[frozenset[str]] = frozenset()
    #: By name: `send`, `verify`, `lookup` and what `dispatcher op` reaches.
    operations: ClassVar[Mapping[str, Operation]] = {}
    #: What its documents name and we do not do, with the reason.
    unsupported: ClassVar[Mapping[str, str]] = {}

    def __init__(self, account: str, settings: Mapping[str, str]) -> None:
        """Read the account's own settings; raises `ConfigurationError` naming the first that is missing or unknown."""
        self.account = account
        self.settings = {**settings}
        for field in self.required:
            if not settings.get(field):
                raise ConfigurationError(
                    f"{setting(account, field)} is not set; account {account!r} ({self.name}) cannot work without it"
                )
        together = min(int(settings.get("group_size") or self.group_size), self.capabilities.recipients)
        self.limited = parse_limits(
            settings.get("limits", ""), setting(account, "limits"), self.operations, self.limits, together
        )
        if self.limited.concurrency is not None or settings.get("limits") == "none":
            self.at_once = self.limited.concurrency  # type: ignore[misc]  # of this account only
        self.origin = (settings.get("base_url") or self.base_url).rstrip("/")
        if not _is_origin(self.origin):
            raise ConfigurationError(
                f"{setting(account, 'base_url')} is no origin; write scheme and host only, like {self.base_url}"
            )

    @abstractmethod
    def build(self, jobs: Sequence[Work]) -> Plan:
        """Group `jobs` into requests; never two jobs to one number in a group. Never raises for a job's content."""

    @abstractmethod
    def parse(self, response: Response, group: Group) -> dict[str, Outcome]:
        """Read `response` as an outcome for each job of `group`, by job id. Never raises, whatever the bytes."""

    def validate(self, job: Work) -> Failure | None:
        """Say why the provider could never take this job, or None. Asked before anything is built."""
        name = job.operation
        if name not in self.operations:
            reason = self.unsupported.get(name, f"{self.name} offers no {name}")
            return Failure(kind=FailureKind.UNSUPPORTED, code=name, message=reason)
        return refused_arguments(self.operations[name].arguments, given(job))

    def number_facts(self, raw: Mapping[str, Any], number: str) -> Facts:
        """Return what the result of a lookup, as `parse` made it, says of an E.164 number; unknown what it does not."""
        del raw, number
        return Facts()

    def repeat(self, job: Work) -> Repeat:
        """Say whether `job` may be done again when nobody knows if it was done."""
        return self.operations[job.operation].repeat

    # -- what most adapters build with --------------------------------------------------------------------------------

    def planned(
        self,
        jobs: Sequence[Work],
        request: Callable[[tuple[Work, ...]], Request],
        alike: Callable[[Work], object] | None = None,
    ) -> Plan:
        """Refuse what `validate` does, let sends with an equal `alike` travel together, and everything else alone.

        `request` makes the request of those that travel together. It costs one of its verb, and one of the operation
        for each of them.
        """
        refused = {job.id: failure for job in jobs if (failure := self.validate(job))}
        ready = [job for job in jobs if job.id not in refused]
        size = self.limited.together
        sends = grouped((job for job in ready if job.operation == "send"), alike or _its_own, size)
        others = ((job,) for job in ready if job.operation != "send")
        groups = tuple(costed(request(together), together) for together in (*sends, *others))
        return Plan(groups=groups, refused=refused)

    def arguments(self, job: Work) -> dict[str, Any]:
        """Return what the caller gave, as `Argument.parse` makes it; raises `ValueError` where `validate` refuses."""
        declared = self.operations[job.operation].arguments
        return {name: declared[name].parse(value) for name, value in given(job).items()}

    def choice(self, field: str, *known: str) -> str:
        """Return a setting of few words, the first where it is not set; raises `ConfigurationError` for another."""
        word = self.settings.get(field) or known[0]
        if word not in known:
            raise ConfigurationError(f"{setting(self.account, field)} is {word!r}; write {' or '.join(known)}")
        return word

    # -- what became of it afterwards ---------------------------------------------------------------------------------

    def before(self, job: Work) -> Request | None:
        """Return a read to be made just before `job`, so that a lost answer can be judged by what changed; or None."""
        del job
        return None

    def remember(self, response: Response, job: Work) -> str | Failure:
        """Return what that read showed, in a few words that `Work.baseline` brings back; empty for nothing of use.

        A refusal of the read as a whole is answered as such (`refused_before`): the job would meet the same one.
        """
        del response, job
        return ""

    def inquire(self, jobs: Sequence[Work]) -> tuple[Group, ...]:
        """Return requests that ask what became of jobs that are `sent` or `unknown` (`Work.state`, `.ref`, `.age`).

        What no request asks about, the provider cannot tell. Nothing here has an effect at the provider. A job may be
        in several requests: then it failed only where the news of each of them say so.
        """
        del jobs
        return ()

    def news(self, response: Response, group: Group) -> dict[str, News] | Failure:
        """Read the answer to such a request, by job id; jobs it says nothing of are left out. Never raises.

        A refusal of the request as a whole, such as for a wrong password, is answered as such (`refused_after`).
        """
        del response, group
        return {}

    # -- what the provider tells by itself ----------------------------------------------------------------------------

    def trusts(self, callback: Callback) -> bool:
        """Say whether a request to our receiver bears the secret that was agreed on, where the vendor knows one."""
        del callback
        return True

    def read(self, callback: Callback) -> tuple[Told, ...]:
        """Read what a provider tells us; empty where it is nothing that is understood. Never raises."""
        del callback
        return ()

    def answers_from(self, told: Inbound) -> str:
        """Return the sender of a text that answers `told`: where it was sent to, if that can be named; or "".

        Then it is from the account's own.
        """
        del told
        return ""

    def answer(self, callback: Callback) -> Answer:
        """Return what the provider needs to hear once its word is safe; an empty 200 unless it needs more."""
        del callback
        return Answer()


def refused_arguments(declared: Mapping[str, Argument], given: Mapping[str, Any]) -> Failure | None:
    """Say which argument is missing, unknown or malformed, or None."""
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            return Failure(
                kind=FailureKind.INVALID, code=name, message=f"{name} is not an argument here; known: {known}"
            )
    for name, argument in declared.items():
        if name not in given:
            if argument.required:
                return Failure(kind=FailureKind.INVALID, code=name, message=f"{name} is missing: {argument.about}")
            continue
        try:
            argument.parse(given[name])
        except (TypeError, ValueError) as error:
            return Failure(kind=FailureKind.INVALID, code=name, message=f"{name}: {error}")
    return None


def given(job: Work) -> Mapping[str, Any]:
    """Return what the caller gave beside a number and words: options of a message, arguments of an operation."""
    request = job.request
    return request.arguments if isinstance(request, jobs.Operation) else getattr(request, "options", {})


def refused_before(failure: Failure) -> Failure | None:
    """Return why the read before a job was refused where the job would be for the same; None where it just failed."""
    return failure if failure.kind in _OF_THE_ACCOUNT else None


def refused_after(failure: Failure) -> Failure | None:
    """Return why a question was refused where that concerns all that the account does; None where it just failed.

    That an account may not ask, which a 403 may say, does not say that it may not do.
    """
    only_this = failure.permission or failure.code == str(int(HTTPStatus.FORBIDDEN))
    return failure if failure.kind in _OF_THE_ACCOUNT and not only_this else None


def by_status(response: Response, *, read: bool) -> Failure:
    """Judge an answer that is not in the provider's words by its HTTP code alone, as HTTP itself defines it.

    Something before or behind the API answered, perhaps after it had done its work: only what HTTP defines as not
    processed counts as not sent. `read` says that the request changes nothing.
    """
    code = str(response.status) if response.status != HTTPStatus.OK else "garbage"
    throttled = response.status == HTTPStatus.TOO_MANY_REQUESTS
    if throttled or (read and response.status == HTTPStatus.SERVICE_UNAVAILABLE):
        wait = response.retry_after()
        return Failure(kind=FailureKind.THROTTLED, code=code, message="too many requests", retry_after=wait)
    if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Failure(kind=FailureKind.UNAUTHORIZED, code=code, message="the provider's door is closed to us")
    if response.status in _NOT_HERE:
        return Failure(kind=FailureKind.NOT_SENT, code=code, message="the API is not at this address; see BASE_URL")
    return Failure(kind=FailureKind.AMBIGUOUS, code=code, message="the answer is not in the provider's words")


def same_secret(given: str, expected: str) -> bool:
    """Compare two secrets in a time that tells nothing."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _moment(date: str) -> float | None:
    """Return a date of HTTP's, which is in UTC though one form does not say so, in seconds since 1970; or None."""
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _is_origin(url: str) -> bool:
    """Say whether `url` is a scheme, a host and perhaps a port: no user, no path, nothing that may hold a secret."""
    try:
        port = urlsplit(url).port
    except ValueError:
        return False
    return port != 0 and _ORIGIN.fullmatch(url) is not None


def setting(account: str, field: str) -> str:
    """Return the environment variable of one account's setting, as messages name it."""
    return f"DISPATCHER_PROVIDERS__{account.upper()}__{field.upper()}"


def posted_form(
    url: str, fields: Mapping[str, Any] | Sequence[tuple[str, str]], headers: Mapping[str, str] | None = None
) -> Request:
    """Return a POST of a form; of a field that is a list each entry is one."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request(
        method="POST", url=url, headers={**(headers or {}), **kind}, body=urlencode(fields, doseq=True).encode()
    )


def posted_json(url: str, value: Any, headers: Mapping[str, str] | None = None) -> Request:
    """Return a POST of JSON."""
    kind = {"Content-Type": "application/json"}
    return Request(method="POST", url=url, headers={**(headers or {}), **kind}, body=msgspec.json.encode(value))


def costed(request: Request, jobs: tuple[Work, ...], name: str = "") -> Group:
    """Return what travels in `request`, which costs one of its verb and one of `name`.

    Without a name it is the jobs' own operation, and costs one for each of them.
    """
    price = {name: 1} if name else {jobs[0].operation: len(jobs)}
    return Group(request=request, jobs=jobs, cost={request.method.lower(): 1, **price})


def grouped(jobs: Iterable[Work], key: Callable[[Work], object], size: int) -> Iterator[tuple[Work, ...]]:
    """Yield jobs with an equal `key`, at most `size` together and never two to one number, in order of arrival."""
    open_groups: dict[object, list[dict[str, Work]]] = {}
    order: list[dict[str, Work]] = []
    for job in jobs:
        candidates, number = open_groups.setdefault(key(job), []), job.to
        group = next((one for one in candidates if len(one) < size and number not in one), None)
        if group is None:
            group = {}
            candidates.append(group)
            order.append(group)
        group[number] = job
    yield from (tuple(group.values()) for group in order)


def _its_own(job: Work) -> str:
    return job.id
