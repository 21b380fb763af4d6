"""What every adapter must keep, whichever provider it speaks to: a kit that the tests of a provider's package run.

Needs pytest and hypothesis (`pip install dispatcher[testing]`), and is imported by tests alone. One `Subject` says what
the kit has to know of a provider, and one function runs all of it:

    SUBJECT = Subject(adapter=Acme, settings={"api_key": "canary-key"}, requests={...}, vocabulary=[...])

    @every_check
    def test_it_keeps_what_all_adapters_keep(check):
        check(SUBJECT)

Beside it a file of tests has one table of labelled cases, each a `Case` for `run`. Adapters are pure, so that nothing
here opens a connection or waits.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from itertools import combinations
from math import isfinite
from typing import Any, Final
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from dispatcher import lookups, phone, records
from dispatcher.errors import ConfigurationError, InvalidNumber
from dispatcher.jobs import CARD_FIELDS, CODE, Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.jobs import Request as JobRequest
from dispatcher.outcomes import Accepted, Checked, Failure, FailureKind, Found, Outcome
from dispatcher.states import State
from workers.providers.base import (
    Adapter,
    Answer,
    Callback,
    Capabilities,
    Group,
    Inbound,
    News,
    OptOut,
    Plan,
    Receipt,
    Request,
    Response,
    Told,
)

__all__ = ["CHECKS", "NUMBERS", "Case", "Subject", "answers", "every_check", "response", "run"]

#: Numbers of nobody (Ofcom keeps this range for fiction). None is the start of another.
NUMBERS: Final = tuple(f"+44770090{ending}" for ending in range(1000, 1010))

#: The one-time code that jobs of the kit carry where we make it. Nothing else of theirs has these digits.
_OUR_CODE: Final = "907263"

#: EXAMPLES=20 tries that many times more, and other things each time.
_TIMES: Final = int(os.environ.get("EXAMPLES", "1"))
_FEW: Final = profile(
    max_examples=30 * _TIMES, deadline=None, derandomize=_TIMES == 1, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip

#: Answers that some proxy, some day, gives.
_STRANGE: Final = [
    b"", b" ", b"null", b"0", b'""', b"[]", b"{}", b"OK", b"<html><body>502 Bad Gateway</body></html>", b"\xff\xfe",
    b"\x00", b"\xef\xbb\xbf{}", b'{"', b'{"output":', b'"\\ud83d"', b"NaN", b"1e999", b"9" * 5000, b"[" * 100_000,
    b'{"a":' * 100_000, b"<a>" * 10_000, b"a=%ff&b=%00&=", b"<?xml version='1.0'?><Response/>",
    b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"<a><![CDATA[ ]]></a>", b"<a xmlns='b' c='d'>e<f/>g</a>",
    b"<?xml version='1.0' encoding='utf-16'?><a/>", '{"a":1}'.encode("utf-16"), b'{"a":1,"a":2}', b"[{}]" * 2,
]  # fmt: skip

#: HTTP's own words for: nothing was done here.
_NOT_HERE: Final = frozenset({301, 307, 308, 404, 405})

_TOKEN: Final = re.compile(r"[\w.@+-]+")

_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")

#: What may become of a job by a receipt or by asking; None decides nothing. Who is asked may also say of a message
#: whose answer was lost that there is none.
_OF_MESSAGES: Final = {None, State.SENT, State.DELIVERED, State.UNDELIVERED}
_OF_LOST_MESSAGES: Final = _OF_MESSAGES | {State.FAILED}
_OF_OPERATIONS: Final = {None, State.COMPLETED, State.FAILED}

#: Seconds after which it counts that a provider does not know of something.
_ABSENT: Final = 60.0

#: What a read may be refused for as a whole: the account's other requests would be, too.
_REFUSALS: Final = {FailureKind.UNAUTHORIZED, FailureKind.INSUFFICIENT_FUNDS, FailureKind.THROTTLED}

#: 21-Nov-2026 16:00 UTC, in milliseconds: when jobs of the kit were created.
_CREATED: Final = 1_795_276_800_000


@dataclass(frozen=True)
class Subject:
    """One provider's adapter, and what the checks have to know of it."""

    adapter: type[Adapter]
    #: Settings of an account; credentials are long words that appear nowhere else.
    settings: Mapping[str, str]
    #: One good request for each operation it declares, all to `numbers[0]` where they are to somebody.
    requests: Mapping[str, JobRequest]
    #: Words that its answers and callbacks are made of, keys and values alike.
    vocabulary: Sequence[str]
    #: Puts arbitrary JSON where its answers have their content.
    envelope: Callable[[Any], Any] = lambda content: content
    #: Operations whose request the vendor takes with everything in its URL only.
    in_url: frozenset[str] = field(default_factory=frozenset)
    #: Numbers that the provider serves, four or more, of reserved ranges; none the end or the start of another.
    numbers: Sequence[str] = NUMBERS
    #: Further good requests by operation, such as a purchase with a whole card.
    more: Sequence[tuple[str, JobRequest]] = ()
    #: HTTP codes that the vendor's document calls not processed, beyond those that HTTP does.
    not_processed: frozenset[int] = field(default_factory=frozenset)
    #: What the vendor answered, such as every sample of its document, to be spoilt in all ways: `answers(CASES)`. Asked
    #: for when a check runs, so that a table further down may tell.
    samples: Callable[[], Sequence[Response]] = list
    #: What it called us with, likewise.
    calls: Callable[[], Sequence[Callback]] = list
    #: What the vendor answers to a wrong password, in its own words.
    wrong_password: Response = field(default_factory=lambda: Response(status=401))

    @property
    def secrets(self) -> list[str]:
        """The credentials, which nothing may show."""
        named = re.compile("secret|token|key|password")
        return [value for name, value in self.settings.items() if name in self.adapter.required or named.search(name)]

    @property
    def asked(self) -> list[tuple[str, JobRequest]]:
        """All good requests, each with its operation."""
        return [*self.requests.items(), *self.more]

    def made(self, **settings: str) -> Adapter:
        """Return the adapter of an account `shop_a`, with `settings` beside its own."""
        return self.adapter("shop_a", {**self.settings, **settings})

    def work(self, operation: str, request: JobRequest | None = None, id_: str = "0001", **fields: Any) -> Work:
        """Return a job that a worker would do: the good one of `operation` unless `request` is given."""
        asked = self.requests[operation] if request is None else request
        code = _OUR_CODE if operation == "verify" and self.adapter.capabilities.verification == "ours" else ""
        told = {"code": code} | fields
        return Work(id=id_, provider="shop_a", kind=records.kind_of(asked), operation=operation, request=asked, **told)


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
    """Return the answer of a case as it comes over the wire: JSON unless it is given as text or bytes."""
    answer = case.answer
    text = answer if isinstance(answer, bytes | str) else json.dumps(answer)
    body = text.encode() if isinstance(text, str) else text
    return Response(status=case.status, headers=dict(case.headers), body=body)


def answers(table: Iterable[Any]) -> list[Response]:
    """Return the answers of a table of cases, for `Subject.samples`; its rows may be parameters of pytest."""
    cases = [getattr(row, "values", [row])[0] for row in table]
    return [response(case) for case in cases if isinstance(case, Case)]


# -- what it declares --------------------------------------------------------------------------------------------------


def declares_what_it_is(subject: Subject) -> None:
    """Its name is its entry point; https; whatever the sandbox and the matrix need is there."""
    adapter = subject.adapter
    points = {point.name: point for point in entry_points(group="dispatcher.providers")}
    assert adapter.name in points, "there is no such entry point of dispatcher.providers; install the package anew"
    assert points[adapter.name].load() is adapter
    assert adapter.base_url.startswith("https://")
    assert adapter.required, "an account without credentials is nobody's"
    assert set(adapter.required) <= set(adapter.sandbox)
    assert not set(adapter.required) & set(adapter.optional)
    assert 1 <= adapter.group_size <= adapter.capabilities.recipients
    assert adapter.at_once is None or adapter.at_once >= 1


def declares_its_capabilities(subject: Subject) -> None:
    """What the matrix prints is what the methods do."""
    adapter, told = subject.adapter, subject.adapter.capabilities
    assert isinstance(told, Capabilities)
    assert told.receipts in {"none", "push", "poll", "push and poll"}
    assert told.verification in {"provider", "provider checks", "ours"}
    assert told.max_characters is None or told.max_characters > 0
    reads = adapter.read is not Adapter.read
    assert reads == (told.inbound or "push" in told.receipts), "`read` reads what is pushed and comes in"
    if "send" in adapter.operations:
        assert "verify" in adapter.operations, "where the provider makes no code, it is a text with ours in it"
    assert ("verify.check" in adapter.operations) == (told.verification == "provider checks")


def declares_its_operations(subject: Subject) -> None:
    """Each says what it does, where that is known from, and has a good request in the tests."""
    adapter = subject.adapter
    assert set(subject.requests) == set(adapter.operations)
    assert {operation for operation, _ in subject.more} <= set(adapter.operations)
    for name, operation in adapter.operations.items():
        assert operation.about.endswith("."), name
        assert operation.source in {"document", "vendor's code", "inferred"}, name
        assert operation.repeat in {"never", "once", "always"}, name
        assert all(argument.about for argument in operation.arguments.values()), name
        assert not (operation.paid and operation.repeat == "always"), f"{name} costs money each time it is repeated"
        bought = name.endswith((".buy", ".rent")) or CARD_FIELDS & set(operation.arguments)
        assert not (bought and operation.repeat != "never"), f"{name} is bought twice when its answer is lost"
    for name in {"send", "verify"} & set(adapter.operations):
        assert adapter.operations[name].repeat == "never", "nothing is sent to a person twice by itself"


def gives_a_reason_for_what_it_does_not_do(subject: Subject) -> None:
    """What the vendor has and we do not is named with its reason, and is not offered as well."""
    adapter = subject.adapter
    assert not set(adapter.operations) & set(adapter.unsupported)
    for name, reason in adapter.unsupported.items():
        assert name.strip() == name != ""
        assert len(reason.split()) > 1, f"{name}: a reason is a clause"
        assert "\n" not in reason


def calls_a_card_by_the_names_that_are_sealed(subject: Subject) -> None:
    """A card's details under another name would be stored and shown like any other argument."""
    card = re.compile(r"card_?(no|number|code|type|holder)|cvv|cvc|security_code|expiration")
    for name, operation in subject.adapter.operations.items():
        strange = [one for one in operation.arguments if card.search(one) and one not in CARD_FIELDS]
        assert strange == [], f"{name}: call it as dispatcher.jobs.CARD_FIELDS does"


# -- the account -------------------------------------------------------------------------------------------------------


def refuses_to_work_without_its_credentials(subject: Subject) -> None:
    """The setting is named, of the account as it is called here."""
    for name in subject.adapter.required:
        for without in ({}, {name: ""}):
            settings = {key: value for key, value in subject.settings.items() if key != name} | without
            with pytest.raises(ConfigurationError, match=f"DISPATCHER_PROVIDERS__SHOP_A__{name.upper()} is not set"):
                subject.adapter("shop_a", settings)


def goes_to_its_own_address_or_the_one_it_is_told(subject: Subject) -> None:
    """`BASE_URL` is an origin, and every request goes there: those to do something and those to ask."""
    for request in _requests(subject, subject.made()):
        assert request.url.startswith(f"{subject.adapter.base_url}/")
    for request in _requests(subject, subject.made(base_url="http://127.0.0.1:8460/")):
        assert request.url.startswith("http://127.0.0.1:8460/")
        assert "//" not in request.url.removeprefix("http://")
    with pytest.raises(ConfigurationError, match="DISPATCHER_PROVIDERS__SHOP_A__BASE_URL"):
        subject.made(base_url="ftp://127.0.0.1")


# -- requests ----------------------------------------------------------------------------------------------------------


def builds_requests_that_can_be_written(subject: Subject) -> None:
    """Verbs, addresses and headers as HTTP has them; a cost for the limiter to draw."""
    for request in _requests(subject, subject.made()):
        _writable(request)
    for operation, asked in subject.asked:
        _affordable(_only(subject.made().build([subject.work(operation, asked)])))


def keeps_what_is_private_out_of_urls(subject: Subject) -> None:
    """URLs end up in access logs on the way."""
    for operation, asked in subject.asked:
        if operation not in subject.in_url:
            job = subject.work(operation, asked)
            url = _only(subject.made().build([job])).request.url
            assert _seen(url, _private(subject, job)) == [], operation
    if not subject.in_url:
        for request in _reads(subject, subject.made()):
            assert _seen(request.url, [*subject.secrets, *map(_end, subject.numbers)]) == []


def keeps_what_is_private_out_of_reprs(subject: Subject) -> None:
    """Reprs end up in tracebacks and logs."""
    for operation, asked in subject.asked:
        job = subject.work(operation, asked)
        plan = subject.made().build([job])
        answer = Response(status=200, headers={"x": "canary"}, body=b"canary")
        shown = f"{plan!r} {plan.groups[0].request!r} {job!r} {answer!r} {subject.made()!r}"
        assert _seen(shown, [*_private(subject, job), "canary"]) == []


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
                assert group.jobs[0].operation != "verify", "a code is one person's"
                assert len({job.to for job in group.jobs}) == len(group.jobs)
        assert adapter.build(jobs) == plan, "the same jobs make the same requests"

    check()


def builds_a_smaller_request_of_what_is_left_of_one(subject: Subject) -> None:
    """A claim may be refused for some of a request's jobs; the rest travel in one that is built anew."""
    adapter = subject.made()
    if min(adapter.group_size, adapter.capabilities.recipients) < _THREE or "send" not in subject.requests:
        return
    jobs = _sends(subject, subject.numbers[:3])
    whole = _only(adapter.build(jobs))
    for size in (1, 2, 3):
        for some in combinations(whole.jobs, size):
            rebuilt = _only(adapter.build(some))
            assert rebuilt.jobs == some
            assert (rebuilt == whole) == (size == _THREE)
            gone = [_end(job.to).encode() for job in jobs if job not in some]
            assert not [number for number in gone if number in rebuilt.request.body]


def obeys_its_group_size(subject: Subject) -> None:
    """`GROUP_SIZE` bounds how many jobs are in doubt when one answer is lost."""
    if "send" not in subject.requests:
        return
    jobs = _sends(subject, subject.numbers)
    for size in (1, 3, 1_000_000):
        most = min(size, subject.adapter.capabilities.recipients)
        groups = subject.made(group_size=str(size)).build(jobs).groups
        assert [len(group.jobs) for group in groups] == _portions(len(jobs), most)


def puts_our_code_into_the_text(subject: Subject) -> None:
    """Where we make the code it stands in the request in place of [CODE], and each of two people gets their own."""
    if "verify" not in subject.requests or subject.adapter.capabilities.verification != "ours":
        return
    for operation, asked in subject.asked:
        if operation == "verify":
            plain = _plain(_only(subject.made().build([subject.work("verify", asked)])).request)
            assert _OUR_CODE in plain
            assert CODE not in plain
    asked = subject.requests["verify"]
    codes = {number: f"90726{at}" for at, number in enumerate(subject.numbers[:3])}
    jobs = [
        subject.work("verify", msgspec.structs.replace(asked, to=number), number, code=code)
        for number, code in codes.items()
    ]
    for group in subject.made().build(jobs).groups:
        (job,) = group.jobs
        assert [code for code in codes.values() if code in _plain(group.request)] == [job.code]


def sends_our_own_reference_where_it_says_so(subject: Subject) -> None:
    """A provider can be asked by our id only for what it was sent with."""
    if subject.adapter.capabilities.own_reference:
        job = subject.work("send", id_="06h00n32pvdoek4tipfuifv0jc")
        assert job.id in _plain(_only(subject.made().build([job])).request)


def refuses_a_text_that_is_too_long(subject: Subject) -> None:
    """The length that the matrix prints is the one that is kept."""
    most = subject.adapter.capabilities.max_characters
    request = subject.requests.get("send")
    if most is None or not isinstance(request, Send):
        return
    long = msgspec.structs.replace(request, text="x" * (most + 1))
    plan = subject.made().build([subject.work("send", long)])
    assert (plan.groups, plan.refused["0001"].kind) == ((), FailureKind.INVALID)


def refuses_what_it_does_not_know(subject: Subject) -> None:
    """An operation or argument of nobody fails without asking the provider, and says which."""
    adapter = subject.made()
    for name in ("nonsense", *subject.adapter.unsupported):
        plan = adapter.build([subject.work(name, OperationRequest())])
        assert (plan.groups, plan.refused["0001"].kind) == ((), FailureKind.UNSUPPORTED)
    for operation, request in subject.asked:
        if isinstance(request, Lookup):
            continue
        where = "arguments" if isinstance(request, OperationRequest) else "options"
        known = getattr(request, where)
        strange = msgspec.structs.replace(request, **{where: {**known, "nonsense": "canary"}})
        refused = adapter.build([subject.work(operation, strange)]).refused["0001"]
        assert (refused.kind, refused.code) == (FailureKind.INVALID, "nonsense")
        assert "canary" not in refused.message


def asks_for_every_argument_it_needs(subject: Subject) -> None:
    """One that is missing is named, before anything is asked of the provider."""
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


def refuses_an_argument_without_repeating_it(subject: Subject) -> None:
    """What was given may be private; the name and the form of what is wanted are enough."""
    canaries = ["canary-canary", "canary\0canary", ["canary-canary"], {"canary-canary": "canary-canary"}, "canary" * 99]
    for operation, request in subject.requests.items():
        if isinstance(request, Lookup):
            continue
        where = "arguments" if isinstance(request, OperationRequest) else "options"
        for name in subject.adapter.operations[operation].arguments:
            for canary in canaries:
                given_ = {**getattr(request, where), name: canary}
                job = subject.work(operation, msgspec.structs.replace(request, **{where: given_}))
                for refused in subject.made().build([job]).refused.values():
                    assert "canary" not in f"{refused.code} {refused.message}", f"{operation} {name}"


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
        for group in plan.groups:
            _writable(group.request)
            before = subject.made().before(group.jobs[0])
            if before is not None:
                _writable(before)

    check()


# -- answers -----------------------------------------------------------------------------------------------------------


def never_raises_for_what_comes_back(subject: Subject) -> None:
    """Any status, any bytes, any JSON, made of its own words or not: an outcome for each job, which can be stored."""
    groups = {operation: _only(subject.made().build([subject.work(operation)])) for operation in subject.requests}

    @_FEW
    @given(st.sampled_from(sorted(groups)), _responses(subject))
    def check(operation: str, answer: Response) -> None:
        _judge(subject, groups[operation], answer)

    check()
    for group in groups.values():
        for answer in _strange_answers():
            _judge(subject, group, answer)


def _judge(subject: Subject, group: Group, answer: Response) -> None:
    """Parse an answer and check what holds for all outcomes."""
    adapter = subject.made()
    outcomes = adapter.parse(answer, group)
    assert set(outcomes) == {job.id for job in group.jobs}
    operation = group.jobs[0].operation
    for outcome in outcomes.values():
        assert isinstance(outcome, _expected(operation)), f"{operation} ended as {type(outcome).__name__}"
        _storable(outcome)
        if operation == "lookup" and isinstance(outcome, Found):
            _normal(adapter, outcome.result, group.jobs[0].to)
        if not _readable(answer):
            _doubted_or_refused(subject, operation, answer, outcome)
        if isinstance(outcome, Accepted) and operation == "verify":
            assert bool(outcome.code) == (subject.adapter.capabilities.verification == "provider")
    assert adapter.parse(answer, group) == outcomes, "the same answer means the same"


def _doubted_or_refused(subject: Subject, operation: str, answer: Response, outcome: Outcome) -> None:
    """Check what became of an answer in which nothing can be read: its HTTP code may tell, and is no success."""
    seen = f"{operation} {answer.status} {answer.body[:60]!r}"
    assert isinstance(outcome, Failure), f"{seen} is no success"
    if outcome.kind == FailureKind.NOT_SENT:
        assert answer.status in _NOT_HERE | subject.not_processed, f"{seen} says of nothing that it was not sent"
    never, fine = subject.adapter.operations[operation].repeat == "never", 200 <= answer.status < 300  # noqa: PLR2004 - HTTP's own classes
    if never and fine and outcome.kind != FailureKind.UNAUTHORIZED:
        assert outcome.kind == FailureKind.AMBIGUOUS, f"{seen} may have been taken"


def takes_an_answer_that_broke_off_for_doubt(subject: Subject) -> None:
    """Cut anywhere, an answer that tells of a success tells of none: it may have been one."""
    adapter = subject.made()
    for operation in subject.requests:
        group = _only(adapter.build([subject.work(operation)]))
        for sample in {one.body for one in subject.samples()}:
            if _kinds(adapter.parse(Response(status=200, body=sample), group)) != {None}:
                continue
            for end in range(len(sample)):
                cut = Response(status=200, body=sample[:end])
                (outcome,) = adapter.parse(cut, group).values()
                if not _readable(cut):
                    _doubted_or_refused(subject, operation, cut, outcome)


def bears_its_own_answers_spoilt(subject: Subject) -> None:
    """What is nearly right tells more than what is all wrong: other values, other types, parts missing or doubled."""
    groups = [_only(subject.made().build([subject.work(operation)])) for operation in subject.requests]
    before = [job for operation, asked in subject.asked if subject.made().before(job := subject.work(operation, asked))]
    questions = _questions(subject)
    samples = [one.body for one in subject.samples()] or [b"{}"]

    @_FEW
    @given(_spoilt(subject, samples), st.just(200) | st.sampled_from([201, 400, 403, 404, 500]))
    def check(body: bytes, status: int) -> None:
        answer = Response(status=status, body=body)
        for group in groups:
            _judge(subject, group, answer)
        for job in before:
            _memorable(subject.made().remember(answer, job))
        for group in questions:
            _weigh(subject, group, answer)

    check()


def reads_a_lookup_in_the_one_shape(subject: Subject) -> None:
    """What a number is, is told alike by all: of each good answer, and of one that says nothing at all."""
    if "lookup" not in subject.adapter.operations:
        return
    adapter = subject.made()
    (job,) = (group := _only(adapter.build([subject.work("lookup")]))).jobs
    found = [adapter.parse(sample, group)[job.id] for sample in subject.samples()]
    answers_ = [one.result for one in found if isinstance(one, Found)]
    assert answers_ or not subject.samples(), "no sample is the answer to a lookup"
    for raw in ({}, *answers_):
        _normal(adapter, raw, job.to)


def _normal(adapter: Adapter, raw: dict[str, Any], number: str) -> None:
    """Check what an adapter says that a lookup found."""
    made = lookups.result(number, adapter.number_facts(raw, number), raw, adapter.account, _CREATED)
    told = msgspec.convert(msgspec.to_builtins(made), lookups.Result)
    assert told == made
    assert (told.number, told.raw, told.cached) == (number, raw, False)
    assert told.line_type in lookups.LINE_TYPES
    for country in (told.country, told.original_network.country, told.current_network.country):
        assert country in {lookups.UNKNOWN, phone.WORLD} or phone.is_country(country)
    for network in (told.original_network, told.current_network):
        assert network.name, "a network that nobody named is unknown"
        assert all(one == lookups.UNKNOWN or one.isdecimal() for one in (network.mcc, network.mnc))
    assert {told.ported, told.roaming, told.reachable} <= {True, False, lookups.UNKNOWN}


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
    """A gateway's error may come after the message was taken: what is not to be repeated is in doubt then.

    So is what may be repeated once, since it may have been paid. But for the codes that the vendor's own document calls
    not processed.
    """
    for operation, declared in subject.adapter.operations.items():
        if declared.repeat == "always":
            continue
        group = _only(subject.made().build([subject.work(operation)]))
        for status, body in [(500, b""), (502, b"<html>"), (503, b""), (504, b""), (200, b"<html>"), (200, b'{"out')]:
            (outcome,) = subject.made().parse(Response(status=status, body=body), group).values()
            assert isinstance(outcome, Failure)
            if status in subject.not_processed:
                assert outcome.kind in {FailureKind.THROTTLED, FailureKind.NOT_SENT}, f"{operation} {status}"
            elif status == _FINE and body == b"<html>":
                # A page where JSON belongs may be known as a login form, which did nothing.
                assert outcome.kind in {FailureKind.AMBIGUOUS, FailureKind.UNAUTHORIZED}, f"{operation} {status}"
            else:
                assert outcome.kind == FailureKind.AMBIGUOUS, f"{operation} {status}"


def obeys_too_many_requests(subject: Subject) -> None:
    """429 says by HTTP's own word that nothing was done, and for how long to be quiet."""
    for operation in subject.requests:
        group = _only(subject.made().build([subject.work(operation)]))
        for header, seconds in [
            ("30", 30.0),
            ("0", 0.0),
            ("", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", 90.0),
            ("Wed Oct 21 07:28:00 2026", 90.0),
            ("Wed, 21 Oct 2026 07:26:00 GMT", 0.0),
            ("Wed, 21 Oct 2036 07:28:00 GMT", 3600.0),
            ("Wed, 21 Oct 99999 07:28:00 GMT", None),
            ("²", None),
        ]:
            headers = {"retry-after": header, "date": "Wed, 21 Oct 2026 07:26:30 GMT"}
            answer = Response(status=429, headers=headers, body=b"Too Many Requests")
            (outcome,) = subject.made().parse(answer, group).values()
            assert isinstance(outcome, Failure)
            assert (outcome.kind, outcome.retry_after) == (FailureKind.THROTTLED, seconds)


# -- what became of it afterwards --------------------------------------------------------------------------------------


def remembers_whatever_it_read_before(subject: Subject) -> None:
    """What was read before an operation becomes words that can be stored, or a refusal; it is no reason to raise."""
    adapter = subject.made()
    for operation, asked in subject.asked:
        job = subject.work(operation, asked)
        assert adapter.before(job) == adapter.before(job), "the same job makes the same request"
        if adapter.before(job) is not None:
            _recall(subject, job)


def _recall(subject: Subject, job: Work) -> None:
    """Try any answer to the read before `job`."""
    adapter = subject.made()

    @_FEW
    @given(_responses(subject))
    def check(answer: Response) -> None:
        _memorable(adapter.remember(answer, job))

    check()
    for answer in _strange_answers():
        _memorable(adapter.remember(answer, job))


def tells_when_its_reads_are_refused(subject: Subject) -> None:
    """One wrong password is one request: what a read before or after is refused for, the account is suspended for."""
    adapter = subject.made()
    readers: list[Callable[[Response], Any]] = []
    for operation, asked in subject.asked:
        job = subject.work(operation, asked)
        assert _kinds(adapter.parse(subject.wrong_password, _only(adapter.build([job])))) == {FailureKind.UNAUTHORIZED}
        if adapter.before(job) is not None:
            readers.append(partial(_remembered, adapter, job))
    readers += [partial(_told, adapter, group) for group in _questions(subject)]
    for reader in readers:
        for answer, kind in [
            (subject.wrong_password, FailureKind.UNAUTHORIZED),
            (Response(status=401), FailureKind.UNAUTHORIZED),
            (Response(status=429, body=b"Too Many Requests"), FailureKind.THROTTLED),
        ]:
            told = reader(answer)
            assert isinstance(told, Failure), "a refusal is answered as one"
            assert told.kind == kind
        for answer in (Response(status=500), Response(status=502, body=b"<html>"), Response(status=200, body=b"<a>")):
            assert not reader(answer), "what is merely not there is nobody's refusal"


def _remembered(adapter: Adapter, job: Work, answer: Response) -> Any:
    return adapter.remember(answer, job)


def _told(adapter: Adapter, group: Group, answer: Response) -> Any:
    return adapter.news(answer, group)


def asks_only_about_jobs_that_it_was_given(subject: Subject) -> None:
    """Whatever their age and the provider's id for them; a request that can be written for some of them."""

    @_FEW
    @given(st.lists(_doubted(subject), max_size=12, unique_by=lambda job: job.id))
    def check(jobs: list[Work]) -> None:
        adapter = subject.made()
        groups = adapter.inquire(jobs)
        for group in groups:
            assert group.jobs
            assert all(job in jobs for job in group.jobs)
            _writable(group.request)
            _affordable(group)
        assert adapter.inquire(jobs) == groups, "the same jobs make the same requests"

    check()


def asks_where_it_says_it_does(subject: Subject) -> None:
    """Polled receipts and the evidence for a lost answer are declared where they are asked for, and nowhere else."""
    adapter, told = subject.made(), subject.adapter.capabilities
    for operation, asked in subject.asked:
        declared = subject.adapter.operations[operation]
        doubted = subject.work(operation, asked, state=State.UNKNOWN, age=3600.0, created_at=_CREATED, since=_CREATED)
        if adapter.inquire([doubted]):
            assert declared.evidence, f"{operation} is asked about; `evidence` says what that shows"
        elif declared.evidence and declared.repeat != "always":
            assert adapter.before(doubted) is not None, f"{operation} is never asked about, and declares evidence"
        if _is_message(operation):
            taken = subject.work(operation, asked, state=State.SENT, age=3600.0, ref="17")
            assert bool(adapter.inquire([taken])) == ("poll" in told.receipts), operation


def never_raises_for_news(subject: Subject) -> None:
    """Any answer to what was asked: news of jobs of that request alone, in states that such jobs can have."""
    groups = _questions(subject)
    if not groups:
        return

    @_FEW
    @given(st.sampled_from(range(len(groups))), _responses(subject))
    def check(at: int, answer: Response) -> None:
        _weigh(subject, groups[at], answer)

    check()
    for group in groups:
        for answer in _strange_answers():
            _weigh(subject, group, answer)


def _weigh(subject: Subject, group: Group, answer: Response) -> None:
    """Read news and check what holds for all of them."""
    adapter = subject.made()
    told = adapter.news(answer, group)
    assert adapter.news(answer, group) == told, "the same answer means the same"
    if isinstance(told, Failure):
        assert told.kind in _REFUSALS
        assert not told.permission, "that it may not ask does not say that it may not do"
        _storable(told)
        return
    jobs = {job.id: job for job in group.jobs}
    assert set(told) <= set(jobs)
    assert _readable(answer) or not any(one.state for one in told.values()), "nothing can be read, and nothing is news"
    for id_, news in told.items():
        job = jobs[id_]
        of_messages = _OF_LOST_MESSAGES if job.state == State.UNKNOWN else _OF_MESSAGES
        _newsworthy(news, of_messages if _is_message(job.operation) else _OF_OPERATIONS)
        if news.state is not None and job.state == State.UNKNOWN:
            assert news.evidence, "the history says on what evidence"
        if job.age < _ABSENT:
            assert news.state != State.FAILED, "what is not there yet may still come"


# -- what the provider tells by itself ---------------------------------------------------------------------------------


def never_raises_for_a_callback(subject: Subject) -> None:
    """Anybody may call the receiver, with anything: what is told can be stored, and the answer can be written."""
    for callback in _strange_callbacks():
        _listen(subject, callback)

    @_FEW
    @given(_callbacks(subject))
    def check(callback: Callback) -> None:
        _listen(subject, callback)

    check()


def _listen(subject: Subject, callback: Callback) -> None:
    """Read a callback and check what holds for all that is told."""
    adapter = subject.made()
    assert isinstance(adapter.trusts(callback), bool)
    answer = adapter.answer(callback)
    assert isinstance(answer, Answer)
    assert 200 <= answer.status < 300, "its word is safe by now; a vendor that hears otherwise says it again"  # noqa: PLR2004 - HTTP's own classes
    assert isinstance(answer.body, bytes)
    assert answer.content_type.isascii()
    told = adapter.read(callback)
    assert isinstance(told, tuple)
    for one in told:
        _credible(one)
    assert adapter.read(callback) == told, "the same callback means the same"


def bears_its_own_calls_spoilt(subject: Subject) -> None:
    """As with answers: bodies and queries that are nearly right."""
    calls = [call for call in subject.calls() if call.body] or [Callback(method="POST", body=b"{}")]
    queries = [call.query.encode() for call in subject.calls() if call.query] or [b"a=b"]

    @_FEW
    @given(st.sampled_from(calls), _spoilt(subject, [call.body for call in calls]), _spoilt(subject, queries))
    def check(call: Callback, body: bytes, query: bytes) -> None:
        asked = query.decode("latin-1")
        _listen(subject, msgspec.structs.replace(call, method="POST", body=body, query=asked))
        _listen(subject, msgspec.structs.replace(call, method="GET", body=b"", query=asked))

    check()


CHECKS: Final[list[Callable[[Subject], None]]] = [
    declares_what_it_is,
    declares_its_capabilities,
    declares_its_operations,
    gives_a_reason_for_what_it_does_not_do,
    calls_a_card_by_the_names_that_are_sealed,
    refuses_to_work_without_its_credentials,
    goes_to_its_own_address_or_the_one_it_is_told,
    builds_requests_that_can_be_written,
    keeps_what_is_private_out_of_urls,
    keeps_what_is_private_out_of_reprs,
    sends_every_job_once,
    builds_a_smaller_request_of_what_is_left_of_one,
    obeys_its_group_size,
    puts_our_code_into_the_text,
    sends_our_own_reference_where_it_says_so,
    refuses_a_text_that_is_too_long,
    refuses_what_it_does_not_know,
    asks_for_every_argument_it_needs,
    refuses_an_argument_without_repeating_it,
    never_raises_for_what_a_caller_wrote,
    never_raises_for_what_comes_back,
    bears_its_own_answers_spoilt,
    takes_an_answer_that_broke_off_for_doubt,
    reads_a_lookup_in_the_one_shape,
    takes_no_stranger_for_success,
    takes_a_broken_answer_for_doubt_and_not_for_failure,
    obeys_too_many_requests,
    remembers_whatever_it_read_before,
    tells_when_its_reads_are_refused,
    asks_only_about_jobs_that_it_was_given,
    asks_where_it_says_it_does,
    never_raises_for_news,
    never_raises_for_a_callback,
    bears_its_own_calls_spoilt,
]

#: Decorates the one test function of a provider that takes a `check`: it is run for each of `CHECKS`.
every_check: Final = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.replace("_", " "))


# -- within ------------------------------------------------------------------------------------------------------------

#: Jobs of which some, but not all, may be gone.
_THREE: Final = 3
_FINE: Final = 200
_NO_CONTENT: Final = 204


def _readable(answer: Response) -> bool:
    """Say whether an answer is a document of any kind, JSON or XML, or says all by its code."""
    if answer.status == _NO_CONTENT:
        return True
    try:
        text = answer.body.decode("utf-8-sig")
        return json.loads(text) is not None
    except UnicodeDecodeError:
        return False
    except (ValueError, RecursionError):
        pass
    try:
        return ET.fromstring(text) is not None  # noqa: S314 - made up here
    except (ET.ParseError, ValueError):
        return False


def _only(plan: Plan) -> Group:
    assert plan.refused == {}
    (group,) = plan.groups
    return group


def _reads(subject: Subject, adapter: Adapter) -> Iterable[Request]:
    """Yield what is asked before and after, of every operation."""
    for operation, asked in subject.asked:
        before = adapter.before(subject.work(operation, asked))
        if before is not None:
            yield before
    for group in _questions(subject, adapter):
        yield group.request


def _requests(subject: Subject, adapter: Adapter) -> Iterable[Request]:
    """Yield every request that good jobs make."""
    for operation, asked in subject.asked:
        yield _only(adapter.build([subject.work(operation, asked)])).request
    yield from _reads(subject, adapter)


def _questions(subject: Subject, adapter: Adapter | None = None) -> tuple[Group, ...]:
    """Return what is asked about good jobs of every operation whose fate may be asked for, young and old ones."""
    states = [(State.SENT, "17"), (State.UNKNOWN, ""), (State.UNKNOWN, "17")]
    every = [(one, state, age) for one in subject.asked for state in states for age in (1.0, 3600.0)]
    jobs = [
        subject.work(
            operation, asked, f"{at:04}", state=state, ref=ref, age=age, created_at=_CREATED, since=_CREATED + 1000
        )
        for at, ((operation, asked), (state, ref), age) in enumerate(every)
        if state != State.SENT or _is_message(operation)
    ]
    return (adapter or subject.made()).inquire(jobs)


def _is_message(operation: str) -> bool:
    return operation in {"send", "verify"}


def _sends(subject: Subject, numbers: Iterable[str]) -> list[Work]:
    """Return sends of one text to these numbers."""
    asked = subject.requests["send"]
    return [subject.work("send", msgspec.structs.replace(asked, to=to), to) for to in numbers]


def _end(number: str) -> str:
    """Return the digits of a number that stand in every form of it, national ones too."""
    return number[-7:]


def _private(subject: Subject, job: Work) -> list[str]:
    """Return what of a job and its account may be seen by nobody."""
    arguments = job.request.arguments if isinstance(job.request, OperationRequest) else {}
    # Of a card, what is too short to be told from anything else is left out.
    card = [str(value) for name, value in arguments.items() if name in CARD_FIELDS and len(str(value)) > _THREE]
    return [*subject.secrets, _end(subject.numbers[0]), *card, *filter(None, [job.code])]


def _seen(shown: str, private: Iterable[str]) -> list[str]:
    return [word for word in private if word in shown or quote(word, safe="") in shown]


def _plain(request: Request) -> str:
    """Return all that a request carries, whichever way it is written: form, JSON or query."""
    told = f"{request.url} {request.body.decode('utf-8', 'replace')}"
    return f"{told} {unquote_plus(told)}"


def _writable(request: Request) -> None:
    """Check that a request is one in HTTP's own terms."""
    assert request.method in {"GET", "POST", "PUT", "DELETE"}
    assert request.url.isascii()
    assert not any(letter.isspace() for letter in request.url)
    assert isinstance(request.body, bytes)
    for name, value in request.headers.items():
        assert f"{name}{value}".isascii()
        assert not {*"\r\n\0"} & {*f"{name}{value}"}


def _affordable(group: Group) -> None:
    assert group.cost
    assert all(isinstance(cost, int) and cost > 0 for cost in group.cost.values())


def _portions(jobs: int, most: int) -> list[int]:
    return [min(most, jobs - start) for start in range(0, jobs, most)]


def _expected(operation: str) -> tuple[type, ...]:
    ends: dict[str, type] = {"send": Accepted, "verify": Accepted, "verify.check": Checked}
    return (ends.get(operation, Found), Failure)


def _stored(words: str) -> None:
    """Check that Redis can take these words."""
    assert isinstance(words, str)
    words.encode()


def _memorable(told: str | Failure) -> None:
    """Check what was remembered: words, or why the read was refused as a whole."""
    if isinstance(told, Failure):
        assert told.kind in _REFUSALS
    else:
        _stored(told)


def _kinds(outcomes: Mapping[str, Outcome]) -> set[FailureKind | None]:
    return {one.kind if isinstance(one, Failure) else None for one in outcomes.values()}


def _storable(outcome: Outcome) -> None:
    """Outcomes are written to Redis: as text, JSON and finite numbers."""
    if isinstance(outcome, Failure):
        assert b"\n" not in records.encode_failure(outcome)
        assert outcome.retry_after is None or (isfinite(outcome.retry_after) and outcome.retry_after >= 0)
        records.line(f"{outcome.code} {outcome.message}").encode()
    elif isinstance(outcome, Found):
        assert msgspec.json.decode(msgspec.json.encode(outcome.result)) == outcome.result
        _stored(f"{outcome.ref}{outcome.price}")
    elif isinstance(outcome, Accepted):
        _stored(f"{outcome.ref}{outcome.price}{outcome.code}")


def _newsworthy(news: News, states: set[State | None]) -> None:
    """Check what holds for all news, by a receipt or by asking."""
    assert news.state in states
    _stored(f"{news.evidence}{news.ref}")
    assert msgspec.json.decode(msgspec.json.encode(news.result)) == news.result
    if news.failure is not None:
        _storable(news.failure)
    if news.state in {State.UNDELIVERED, State.FAILED}:
        assert news.failure is not None, "why"
    if news.state == State.FAILED:
        assert news.failure is not None
        assert news.failure.kind == FailureKind.NOT_SENT, "it surely did not happen"


def _credible(told: Told) -> None:
    """Check what holds for all that a provider tells."""
    if isinstance(told, Receipt):
        _newsworthy(told.news, _OF_MESSAGES)
        assert told.own or told.ref, "nothing says which message it is about"
        assert not told.number or _E164.fullmatch(told.number)
        assert 1 <= told.part <= told.parts
        _stored(f"{told.own}{told.ref}")
    elif isinstance(told, Inbound):
        _stored(f"{told.sender}{told.to}{told.text}{told.at}{told.ref}")
        assert not _is_number(told.sender) or phone.parse(told.sender) == told.sender
    else:
        assert isinstance(told, OptOut)
        assert _E164.fullmatch(told.number)


def _is_number(written: str) -> bool:
    """Say whether this is plus and digits that are a number."""
    try:
        return re.fullmatch(r"\+[0-9]+", written) is not None and bool(phone.parse(written))
    except InvalidNumber:
        return False


# -- strategies --------------------------------------------------------------------------------------------------------


def _works(subject: Subject) -> st.SearchStrategy[tuple[str, JobRequest]]:
    """Jobs of every operation, to a few numbers and with a few texts, so that many would fit together."""

    def made(operation: str, to: str, text: str) -> tuple[str, JobRequest]:
        request = subject.requests[operation]
        if isinstance(request, Send):
            return operation, Send(to=to, text=text)
        if isinstance(request, Lookup):
            return operation, Lookup(to=to)
        return operation, request

    often = ["send"] * 3 if "send" in subject.requests else []
    return st.builds(
        made, st.sampled_from([*subject.requests, *often]), st.sampled_from(subject.numbers[:4]),
        st.sampled_from(["Hello", "Hello again", "Здравствуйте"]),
    )  # fmt: skip


def _doubted(subject: Subject) -> st.SearchStrategy[Work]:
    """Jobs that are sent or unknown, for however long, with whatever id a provider gave and whatever was read."""
    words = st.just("") | _words(subject) | st.text(max_size=20)
    states = st.sampled_from([State.SENT, State.UNKNOWN])
    moments = st.just(_CREATED) | st.integers(0, 2 * _CREATED)
    told = st.fixed_dictionaries(
        {"state": states, "ref": words, "age": st.floats(0, 1e6), "baseline": words, "created_at": moments,
         "since": moments},
    )  # fmt: skip
    return st.builds(
        lambda asked, id_, told: subject.work(asked[0], asked[1], id_, **told),
        st.sampled_from(subject.asked),
        st.uuids().map(str),
        told,
    )


def _words(subject: Subject) -> st.SearchStrategy[str]:
    return st.sampled_from([*subject.vocabulary, *(number.removeprefix("+") for number in subject.numbers[:2])])


def _content(subject: Subject) -> st.SearchStrategy[Any]:
    """JSON of any shape, made of the provider's words and of others."""
    texts = _words(subject) | st.text(max_size=8)
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
    )


def _responses(subject: Subject) -> st.SearchStrategy[Response]:
    content = _content(subject)
    near = content.map(lambda told: json.dumps(subject.envelope(told)).encode())
    near |= content.map(lambda told: _xml("Response", subject.envelope(told)).encode(errors="replace"))
    waits = st.sampled_from(["0", "30", "-1", "1.5", "²", "9" * 400, "soon", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
    statuses = st.just(200) | st.sampled_from([204, 401, 429, 500, 503]) | st.integers(100, 599)
    names = st.sampled_from(["content-type", "content-encoding", "location", "x-a"]) | st.text(max_size=5)
    values = st.sampled_from(["text/html; charset=\xff", "gzip"]) | st.text(max_size=8)
    others = st.dictionaries(names, values, max_size=3)
    return st.builds(
        Response, status=statuses, headers=st.builds(lambda wait, more: {**more, "retry-after": wait}, waits, others),
        body=near | near | content.map(lambda told: json.dumps(told).encode()) | st.binary(max_size=40),
    )  # fmt: skip


def _xml(name: str, value: Any) -> str:
    """Write any JSON as XML; what is no name is none there either, so that some of it is broken."""
    if isinstance(value, dict):
        inner = "".join(_xml(key, one) for key, one in value.items())
    elif isinstance(value, list):
        inner = "".join(_xml("item", one) for one in value)
    else:
        inner = escape("" if value is None else str(value))
    return f"<{name}>{inner}</{name}>"


@st.composite
def _spoilt(draw: st.DrawFn, subject: Subject, bodies: Sequence[bytes]) -> bytes:
    """One of these bodies with something wrong: a value, a word, an end, a few bytes, its encoding."""
    body = draw(st.sampled_from(bodies))
    how = draw(st.sampled_from(["value", "value", "value", "word", "word", "end", "bytes", "encoding"]))
    if how == "value":
        try:
            document = json.loads(body)
        except ValueError:
            how = "word"
        else:
            return json.dumps(_other(draw, subject, document)).encode()
    if how == "word":
        words = list(_TOKEN.finditer(text := body.decode("latin-1")))
        found = draw(st.sampled_from(words)) if words else None
        told = draw(_words(subject) | st.text(max_size=5)).encode()
        return body[: found.start()] + told + body[found.end() :] if found else told + text.encode("latin-1")
    start, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    if how == "end":
        return body[:end]
    if how == "bytes":
        return body[:start] + draw(st.binary(max_size=4)) + body[end:]
    forms = [
        body * 2, b"\xef\xbb\xbf" + body, b" \n" + body + b"\n ", b"[" + body + b"]", b"<!-- -->" + body, body.upper(),
        body.swapcase(), body.replace(b'"', b"'"), body.decode("latin-1").encode("utf-16"),
    ]  # fmt: skip
    return draw(st.sampled_from(forms))


def _other(draw: st.DrawFn, subject: Subject, document: Any) -> Any:
    """Return a document with one of its values another, gone, or of another name."""
    places: list[tuple[Any, Any]] = []

    def look(value: Any) -> None:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, one in inner:
            places.append((value, key))
            look(one)

    look(document)
    if not places:
        return draw(_content(subject))
    inside, key = draw(st.sampled_from(places))
    before = inside[key]
    how = draw(st.sampled_from(["other", "gone", "within", "renamed"]))
    if how == "other":
        inside[key] = draw(_content(subject))
    elif how == "within":
        inside[key] = draw(st.sampled_from([[before], {"a": before}, [before, before], str(before), [[]]]))
    else:
        del inside[key]
        if how == "renamed" and isinstance(inside, dict):
            inside[draw(_words(subject))] = before
    return document


def _strange_answers() -> Iterable[Response]:
    for body in _STRANGE:
        for status in (200, 204, 404, 500):
            yield Response(status=status, body=body)


def _callbacks(subject: Subject) -> st.SearchStrategy[Callback]:
    """Fields of the provider's words and of others, as query, form or JSON; any JSON; any bytes."""
    words = _words(subject)
    values = words | st.just("canary-text") | st.text(max_size=8)
    fields = st.dictionaries(words | st.text(max_size=8), values, max_size=6)
    forms = fields.map(lambda told: urlencode(told, errors="replace"))
    flat = fields.map(lambda told: json.dumps(told).encode())
    deep = _content(subject).map(lambda told: json.dumps(told).encode())
    headers = st.dictionaries(
        st.sampled_from(["authorization", "content-type", "x-signature"]),
        st.sampled_from(["Bearer canary", "application/json", ""]) | st.text(st.characters(max_codepoint=255)),
    )
    return st.builds(
        Callback, method=st.sampled_from(["GET", "POST"]), query=st.just("") | forms | st.text(max_size=20),
        headers=headers, body=flat | flat | deep | forms.map(str.encode) | st.binary(max_size=40),
    )  # fmt: skip


def _strange_callbacks() -> Iterable[Callback]:
    for body in _STRANGE:
        yield Callback(method="POST", body=body)
        yield Callback(method="GET", query=body[:1000].decode("latin-1"))
