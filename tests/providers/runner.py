"""What every adapter must keep, whichever provider it speaks to; each provider's tests run all of `CHECKS` on theirs.

A provider's file of tests makes one `Subject` and has one table of labelled cases, run by `run`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from dispatcher import records
from dispatcher.errors import ConfigurationError
from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Request as JobRequest
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from workers.providers.base import Adapter, Group, Plan, Request, Response

CASES: Final = Path(__file__).parent / "cases"

#: Numbers of nobody. None is the start of another.
NUMBERS: Final = tuple(f"+44770090{ending}" for ending in range(1000, 1010))

_FEW: Final = profile(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

#: Answers that some proxy, some day, gives.
_STRANGE: Final = [
    b"", b" ", b"null", b"0", b'""', b"[]", b"{}", b"OK", b"<html><body>502 Bad Gateway</body></html>", b"\xff\xfe",
    b"\x00", b"\xef\xbb\xbf{}", b'{"', b'{"output":', b'"\\ud83d"', b"NaN", b"1e999", b"9" * 5000, b"[" * 100_000,
    b'{"a":' * 100_000,
]  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """One provider's adapter, and what the checks have to know of it."""

    adapter: type[Adapter]
    #: Settings of an account; credentials are long words that appear nowhere else.
    settings: Mapping[str, str]
    #: One good request for each operation it declares, all to `NUMBERS[0]` where they are to somebody.
    requests: Mapping[str, JobRequest]
    #: Words that its answers are made of, keys and values alike.
    vocabulary: Sequence[str]
    #: Puts arbitrary JSON where its answers have their content.
    envelope: Callable[[Any], Any] = lambda content: content
    #: Operations whose request the vendor takes with everything in its URL only.
    in_url: frozenset[str] = field(default_factory=frozenset)

    @property
    def secrets(self) -> list[str]:
        return [self.settings[name] for name in self.adapter.required]

    def made(self, **settings: str) -> Adapter:
        return self.adapter("shop_a", {**self.settings, **settings})

    def work(self, operation: str, request: JobRequest | None = None, id_: str = "0001") -> Work:
        asked = self.requests[operation] if request is None else request
        return Work(id=id_, provider="shop_a", kind=records.kind_of(asked), operation=operation, request=asked)


@dataclass(frozen=True)
class Case:
    """What is asked for, the request it makes, an answer, and what that means for each job."""

    jobs: Sequence[Work]
    #: The request as the provider's tests like to compare it; None where the answer alone matters.
    request: Any
    answer: bytes | str | dict[str, Any] | list[Any]
    #: By job, in their order.
    outcomes: Sequence[Outcome]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def run(subject: Subject, case: Case, read: Callable[[Request], Any]) -> None:
    """Build and parse a case; `read` turns a request into what the case compares."""
    adapter = subject.made()
    plan = adapter.build(case.jobs)
    assert (len(plan.groups), plan.refused) == (1, {}), "a case is one request"
    (group,) = plan.groups
    if case.request is not None:
        assert read(group.request) == case.request
    outcomes = adapter.parse(response(case), group)
    assert [outcomes[job.id] for job in case.jobs] == [*case.outcomes]
    # The code of an answer is left out of an outcome's repr, and compared by its value.
    assert [getattr(outcomes[job.id], "code", "") for job in case.jobs] == [
        getattr(one, "code", "") for one in case.outcomes
    ]


def response(case: Case) -> Response:
    answer = case.answer
    text = answer if isinstance(answer, bytes | str) else json.dumps(answer)
    body = text.encode() if isinstance(text, str) else text
    return Response(status=case.status, headers=dict(case.headers), body=body)


def sample(provider: str, name: str, **filled: str) -> str:
    """A sample as the vendor's document prints it, with its placeholders filled."""
    text = (CASES / provider / f"{name}.json").read_text(encoding="utf-8")
    for placeholder, value in filled.items():
        assert f"[{placeholder}]" in text, f"the sample has no [{placeholder}]"
        text = text.replace(f"[{placeholder}]", value)
    return text


# -- what all must keep ------------------------------------------------------------------------------------------------


def declares_what_it_is(subject: Subject) -> None:
    """Its name is its entry point; https; whatever the sandbox and the matrix need is there."""
    adapter = subject.adapter
    points = {point.name: point for point in entry_points(group="dispatcher.providers")}
    assert points[adapter.name].load() is adapter
    assert adapter.base_url.startswith("https://")
    assert adapter.required, "an account without credentials is nobody's"
    assert set(adapter.required) <= set(adapter.sandbox)
    assert not set(adapter.required) & set(adapter.optional)
    assert 1 <= adapter.group_size <= adapter.capabilities.recipients
    assert adapter.capabilities.receipts in {"none", "push", "poll"}
    assert adapter.capabilities.verification in {"provider", "provider checks", "ours"}


def declares_its_operations(subject: Subject) -> None:
    """Each says what it does, where that is known from, and has a good request in the tests."""
    adapter = subject.adapter
    assert set(subject.requests) == set(adapter.operations)
    assert not set(adapter.operations) & set(adapter.unsupported)
    for name, operation in adapter.operations.items():
        assert operation.about.endswith("."), name
        assert operation.source in {"document", "vendor's code", "inferred"}, name
        assert operation.repeat in {"never", "once", "always"}, name
        assert all(argument.about for argument in operation.arguments.values()), name
    for name in {"send", "verify"} & set(adapter.operations):
        assert adapter.operations[name].repeat == "never", "nothing is sent to a person twice by itself"


def refuses_to_work_without_its_credentials(subject: Subject) -> None:
    """The setting is named, of the account as it is called here."""
    for name in subject.adapter.required:
        for without in ({}, {name: ""}):
            settings = {key: value for key, value in subject.settings.items() if key != name} | without
            with pytest.raises(ConfigurationError, match=f"DISPATCHER_PROVIDERS__SHOP_A__{name.upper()} is not set"):
                subject.adapter("shop_a", settings)


def goes_to_its_own_address_or_the_one_it_is_told(subject: Subject) -> None:
    for operation in subject.requests:
        assert _only(subject.made().build([subject.work(operation)])).request.url.startswith(subject.adapter.base_url)
        told = subject.made(base_url="http://127.0.0.1:8460/")
        url = _only(told.build([subject.work(operation)])).request.url
        assert url.startswith("http://127.0.0.1:8460/")
        assert "//" not in url.removeprefix("http://")
    with pytest.raises(ConfigurationError, match="DISPATCHER_PROVIDERS__SHOP_A__BASE_URL"):
        subject.made(base_url="ftp://127.0.0.1")


def builds_requests_that_can_be_written(subject: Subject) -> None:
    for operation in subject.requests:
        group = _only(subject.made().build([subject.work(operation)]))
        request = group.request
        assert request.method in {"GET", "POST", "PUT", "DELETE"}
        assert request.url.isascii()
        assert not any(letter.isspace() for letter in request.url)
        assert isinstance(request.body, bytes)
        for name, value in request.headers.items():
            assert f"{name}{value}".isascii()
            assert not {*"\r\n\0"} & {*f"{name}{value}"}
        assert group.cost
        assert all(isinstance(cost, int) and cost > 0 for cost in group.cost.values())


def keeps_what_is_private_out_of_urls(subject: Subject) -> None:
    """URLs end up in access logs on the way."""
    for operation in set(subject.requests) - subject.in_url:
        url = _only(subject.made().build([subject.work(operation)])).request.url
        assert _seen(url, [*subject.secrets, NUMBERS[0].removeprefix("+")]) == []


def keeps_what_is_private_out_of_reprs(subject: Subject) -> None:
    private = [*subject.secrets, NUMBERS[0].removeprefix("+"), "canary"]
    for operation in subject.requests:
        job = subject.work(operation)
        plan = subject.made().build([job])
        answer = Response(status=200, headers={"x": "canary"}, body=b"canary")
        shown = f"{plan!r} {plan.groups[0].request!r} {job!r} {answer!r} {subject.made()!r}"
        assert _seen(shown, private) == []


def sends_every_job_once(subject: Subject) -> None:
    """Whatever comes together: each job in one request or refused, no number twice in a request, none too full."""

    @_FEW
    @given(st.lists(_works(subject), max_size=30))
    def check(asked: list[tuple[str, JobRequest]]) -> None:
        jobs = [subject.work(operation, request, f"{at:04}") for at, (operation, request) in enumerate(asked)]
        adapter = subject.made()
        plan = adapter.build(jobs)
        planned = [job.id for group in plan.groups for job in group.jobs] + list(plan.refused)
        assert sorted(planned) == [job.id for job in jobs]
        for group in plan.groups:
            assert 1 <= len(group.jobs) <= min(adapter.group_size, adapter.capabilities.recipients)
            assert len({job.operation for job in group.jobs}) == 1
            if len(group.jobs) > 1:
                assert len({job.to for job in group.jobs}) == len(group.jobs)
        assert adapter.build(jobs) == plan, "the same jobs make the same requests"

    check()


def builds_a_smaller_request_of_what_is_left_of_one(subject: Subject) -> None:
    """A claim may be refused for some of a request's jobs; the rest travel in one that is built anew."""
    adapter = subject.made()
    if subject.adapter.capabilities.recipients < 3 or "send" not in subject.requests:
        return
    jobs = [subject.work("send", msgspec.structs.replace(subject.requests["send"], to=to), to) for to in NUMBERS[:3]]
    whole = _only(adapter.build(jobs))
    for size in (1, 2, 3):
        for some in combinations(whole.jobs, size):
            rebuilt = _only(adapter.build(some))
            assert rebuilt.jobs == some
            assert (rebuilt == whole) == (size == 3)
            gone = [job.to.removeprefix("+").encode() for job in jobs if job not in some]
            assert not [number for number in gone if number in rebuilt.request.body]


def obeys_its_group_size(subject: Subject) -> None:
    if "send" not in subject.requests:
        return
    jobs = [subject.work("send", msgspec.structs.replace(subject.requests["send"], to=to), to) for to in NUMBERS]
    for size in (1, 3, 1_000_000):
        most = min(size, subject.adapter.capabilities.recipients)
        groups = subject.made(group_size=str(size)).build(jobs).groups
        assert [len(group.jobs) for group in groups] == _portions(len(jobs), most)


def refuses_what_it_does_not_know(subject: Subject) -> None:
    """An operation or argument of nobody fails without asking the provider, and says which."""
    adapter = subject.made()
    for name in ("nonsense", *subject.adapter.unsupported):
        plan = adapter.build([subject.work(name, OperationRequest())])
        assert (plan.groups, plan.refused["0001"].kind) == ((), FailureKind.UNSUPPORTED)
    for operation, request in subject.requests.items():
        if isinstance(request, Lookup):
            continue
        where = "arguments" if isinstance(request, OperationRequest) else "options"
        known = getattr(request, where)
        strange = msgspec.structs.replace(request, **{where: {**known, "nonsense": "canary"}})
        refused = adapter.build([subject.work(operation, strange)]).refused["0001"]
        assert (refused.kind, refused.code) == (FailureKind.INVALID, "nonsense")
        assert "canary" not in refused.message


def asks_for_every_argument_it_needs(subject: Subject) -> None:
    adapter = subject.made()
    for operation, declared in subject.adapter.operations.items():
        request = subject.requests[operation]
        for name, argument in declared.arguments.items():
            if not argument.required or not isinstance(request, OperationRequest):
                continue
            without = {key: value for key, value in request.arguments.items() if key != name}
            plan = adapter.build([subject.work(operation, OperationRequest(arguments=without))])
            assert plan.refused["0001"].kind == FailureKind.INVALID
            assert plan.refused["0001"].code == name


def never_raises_for_what_a_caller_wrote(subject: Subject) -> None:
    """Texts, options and arguments come from outside: what is wrong with them fails that job alone."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))
    names = sorted({name for one in subject.adapter.operations.values() for name in one.arguments})
    given_ = st.dictionaries(st.sampled_from(names) | st.text() if names else st.text(), values, max_size=4)

    @_FEW
    @given(st.sampled_from(sorted(subject.requests)), given_, st.text())
    def check(operation: str, arguments: dict[str, Any], text: str) -> None:
        request = subject.requests[operation]
        try:
            if isinstance(request, OperationRequest):
                request = OperationRequest(arguments=arguments)
            elif isinstance(request, Send):
                request = Send(to=request.to, text=text, options=arguments)
            elif isinstance(request, Verify):
                request = Verify(to=request.to, template=f"{text}[CODE]", options=arguments)
        except ValueError:
            return  # refused where it was built
        plan = subject.made().build([subject.work(operation, request)])
        assert len(plan.groups) + len(plan.refused) == 1
        assert all(isinstance(one, Failure) for one in plan.refused.values())

    check()


def never_raises_for_what_comes_back(subject: Subject) -> None:
    """Any status, any bytes, any JSON, made of its own words or not: an outcome for each job, which can be stored."""
    groups = {operation: _only(subject.made().build([subject.work(operation)])) for operation in subject.requests}

    @_FEW
    @given(st.sampled_from(sorted(groups)), _responses(subject))
    def check(operation: str, answer: Response) -> None:
        judge(subject, groups[operation], answer)

    check()
    for group in groups.values():
        for body in _STRANGE:
            for status in (200, 204, 404, 500):
                judge(subject, group, Response(status=status, body=body))


def judge(subject: Subject, group: Group, answer: Response) -> None:
    """Parse an answer and check what holds for all outcomes."""
    adapter = subject.made()
    outcomes = adapter.parse(answer, group)
    assert set(outcomes) == {job.id for job in group.jobs}
    operation = group.jobs[0].operation
    for outcome in outcomes.values():
        assert isinstance(outcome, _expected(operation)), f"{operation} ended as {type(outcome).__name__}"
        _storable(outcome)
        if isinstance(outcome, Accepted) and operation == "verify":
            assert bool(outcome.code) == (subject.adapter.capabilities.verification == "provider")
    assert adapter.parse(answer, group) == outcomes, "the same answer means the same"


def takes_no_stranger_for_success(subject: Subject) -> None:
    """What something on the way answered is no word of the provider's."""
    pages = [b"", b"<html>Moved</html>", b'{"message":"Forbidden"}', b"OK", b"null"]
    for operation in subject.requests:
        group = _only(subject.made().build([subject.work(operation)]))
        for status in (301, 302, 307, 400, 401, 403, 404, 405, 408, 410, 413, 429, 500, 501, 502, 503, 504, 520):
            for body in pages:
                (outcome,) = subject.made().parse(Response(status=status, body=body), group).values()
                assert isinstance(outcome, Failure), f"{operation} {status} {body!r}"


def takes_a_broken_answer_for_doubt_and_not_for_failure(subject: Subject) -> None:
    """A gateway's error may come after the message was taken: what is not to be repeated is in doubt then."""
    for operation, declared in subject.adapter.operations.items():
        if declared.repeat != "never":
            continue
        group = _only(subject.made().build([subject.work(operation)]))
        for status, body in [(500, b""), (502, b"<html>"), (503, b""), (504, b""), (200, b"<html>"), (200, b'{"out')]:
            (outcome,) = subject.made().parse(Response(status=status, body=body), group).values()
            assert isinstance(outcome, Failure)
            assert outcome.kind == FailureKind.AMBIGUOUS, f"{operation} {status}"


def obeys_too_many_requests(subject: Subject) -> None:
    """429 says by HTTP's own word that nothing was done, and for how long to be quiet."""
    for operation in subject.requests:
        group = _only(subject.made().build([subject.work(operation)]))
        for header, seconds in [
            ("30", 30.0),
            ("0", 0.0),
            ("", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("²", None),
        ]:
            answer = Response(status=429, headers={"retry-after": header}, body=b"Too Many Requests")
            (outcome,) = subject.made().parse(answer, group).values()
            assert isinstance(outcome, Failure)
            assert (outcome.kind, outcome.retry_after) == (FailureKind.THROTTLED, seconds)


CHECKS: Final[list[Callable[[Subject], None]]] = [
    declares_what_it_is,
    declares_its_operations,
    refuses_to_work_without_its_credentials,
    goes_to_its_own_address_or_the_one_it_is_told,
    builds_requests_that_can_be_written,
    keeps_what_is_private_out_of_urls,
    keeps_what_is_private_out_of_reprs,
    sends_every_job_once,
    builds_a_smaller_request_of_what_is_left_of_one,
    obeys_its_group_size,
    refuses_what_it_does_not_know,
    asks_for_every_argument_it_needs,
    never_raises_for_what_a_caller_wrote,
    never_raises_for_what_comes_back,
    takes_no_stranger_for_success,
    takes_a_broken_answer_for_doubt_and_not_for_failure,
    obeys_too_many_requests,
]


# -- within ------------------------------------------------------------------------------------------------------------


def _only(plan: Plan) -> Group:
    assert plan.refused == {}
    (group,) = plan.groups
    return group


def _seen(shown: str, private: Iterable[str]) -> list[str]:
    return [word for word in private if word in shown]


def _portions(jobs: int, most: int) -> list[int]:
    return [min(most, jobs - start) for start in range(0, jobs, most)]


def _expected(operation: str) -> tuple[type, ...]:
    ends: dict[str, type] = {"send": Accepted, "verify": Accepted, "verify.check": Checked}
    return (ends.get(operation, Found), Failure)


def _storable(outcome: Outcome) -> None:
    """Outcomes are written to Redis: as text, JSON and finite numbers."""
    if isinstance(outcome, Failure):
        assert b"\n" not in records.encode_failure(outcome)
        assert outcome.retry_after is None or (isfinite(outcome.retry_after) and outcome.retry_after >= 0)
        records.line(f"{outcome.code} {outcome.message}").encode()
    elif isinstance(outcome, Found):
        assert msgspec.json.decode(msgspec.json.encode(outcome.result)) == outcome.result
        f"{outcome.ref}{outcome.price}".encode()
    elif isinstance(outcome, Accepted):
        f"{outcome.ref}{outcome.price}{outcome.code}".encode()


def _works(subject: Subject) -> st.SearchStrategy[tuple[str, JobRequest]]:
    """Jobs of every operation, to a few numbers and with a few texts, so that many would fit together."""

    def made(operation: str, to: str, text: str) -> tuple[str, JobRequest]:
        request = subject.requests[operation]
        if isinstance(request, Send):
            return operation, Send(to=to, text=text)
        if isinstance(request, Lookup):
            return operation, Lookup(to=to)
        return operation, request

    return st.builds(
        made, st.sampled_from([*subject.requests, "send", "send", "send"]), st.sampled_from(NUMBERS[:4]),
        st.sampled_from(["Hello", "Hello again", "Здравствуйте"]),
    )  # fmt: skip


def _responses(subject: Subject) -> st.SearchStrategy[Response]:
    words = st.sampled_from([*subject.vocabulary, *(number.removeprefix("+") for number in NUMBERS[:2])])
    texts = words | st.text(max_size=8)
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
    content = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
    )
    near = content.map(lambda told: json.dumps(subject.envelope(told)).encode())
    waits = st.sampled_from(["0", "30", "-1", "1.5", "²", "9" * 400, "soon", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
    statuses = st.just(200) | st.sampled_from([204, 401, 429, 500, 503]) | st.integers(100, 599)
    return st.builds(
        Response, status=statuses, headers=st.builds(lambda wait: {"retry-after": wait}, waits),
        body=near | near | content.map(lambda told: json.dumps(told).encode()) | st.binary(max_size=40),
    )  # fmt: skip
