"""The conformance kit finds what it is for: an adapter that keeps everything, broken in one place at a time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as profile
from hypothesis.errors import HypothesisException

from dispatcher.jobs import Lookup, Send, Verify, Work
from dispatcher.jobs import Operation as OperationRequest
from dispatcher.lookups import Facts
from dispatcher.outcomes import Accepted, Failure, FailureKind, Found
from dispatcher.states import State
from workers import conformance
from workers.conformance import CHECKS, NUMBERS, Subject
from workers.providers.base import (
    Adapter,
    Answer,
    Argument,
    Callback,
    Group,
    Inbound,
    News,
    Operation,
    OptOut,
    Plan,
    Receipt,
    Request,
    Response,
)

#: What the invented vendor answers, and what it calls with.
ANSWER: Final = b'{"id":"m-1","state":"flying","to":"447700901000"}'

FILE: Final = Path(__file__).parents[1] / "fifth_provider" / "dispatcher_pigeonpost.py"


def _loaded() -> ModuleType:
    """The invented provider, without its package: here only its class is of use."""
    spec = importlib.util.spec_from_file_location("dispatcher_pigeonpost", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WHOLE: Final[Any] = _loaded().PigeonPost
SEND: Final = WHOLE.operations["send"]
SENT: Final = News(state=State.SENT, evidence="seen")
TEXT: Final = {"send": Send(to=NUMBERS[0], text="Hello", sender="ACME")}
OTHERS: Final = {"verify": Verify(to=NUMBERS[0], template="[CODE]"), "balance": OperationRequest()}


def subject(changes: Mapping[str, Any], **fields: Any) -> Subject:
    """The whole adapter with some of it changed."""
    words = ["id", "state", "error", "corn", "reference", "from", "to", "text", "m-1", "flying", "returned", "no_corn"]
    usual = {
        "adapter": type("Broken", (WHOLE,), dict(changes)),
        "settings": {"api_key": "canary-key", "webhook_secret": "canary-secret"},
        "requests": TEXT | OTHERS,
        "vocabulary": words,
        "samples": lambda: [Response(status=200, body=ANSWER), Response(status=400, body=b'{"error":"no_corn"}')],
        "calls": lambda: [Callback(method="POST", body=ANSWER)],
    }
    return Subject(**{**usual, **fields})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants the smallest example of what is broken on purpose."""
    few = profile(
        max_examples=200, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    monkeypatch.setattr(conformance, "_FEW", few)


def operations(**changed: Operation) -> dict[str, Any]:
    return {"operations": {**WHOLE.operations, **changed}}


def changed(operation: Operation, **fields: Any) -> Operation:
    return msgspec.structs.replace(operation, **fields)


def group(change: Callable[[Request], Request], cost: dict[str, int] | None = None) -> dict[str, Any]:
    """Change the requests that jobs make."""

    def built(self: Any, job: Work) -> Group:
        whole: Group = WHOLE._group(self, job)
        request = change(whole.request)
        return msgspec.structs.replace(whole, request=request, cost=whole.cost if cost is None else cost)

    return {"_group": built}


def request(**fields: Any) -> dict[str, Any]:
    return group(lambda one: msgspec.structs.replace(one, **fields))


def answers(outcome: Callable[..., Any]) -> dict[str, Any]:
    """Change what answers mean: `outcome(adapter, response, job)`."""
    return {"_outcome": outcome}


def news(told: Callable[[Work], News]) -> dict[str, Any]:
    """Change what became of jobs."""
    return {"news": lambda self, response, group: {job.id: told(job) for job in group.jobs}}


def reads(*told: Any) -> dict[str, Any]:
    return {"read": lambda self, callback: told}


def _twice(self: Any, jobs: Any) -> Plan:
    plan: Plan = WHOLE.build(self, jobs)
    return msgspec.structs.replace(plan, groups=plan.groups * 2)


def _stranger(self: Any, jobs: Any) -> Any:
    return [msgspec.structs.replace(one, jobs=(conformance.Subject.work(subject({}), "send", id_="x"),))
            for one in WHOLE.inquire(self, jobs)]  # fmt: skip


def failure(kind: FailureKind) -> Failure:
    return Failure(kind=kind, code="x", message="x")


LOST: Final = failure(FailureKind.NOT_SENT)
UNSURE: Final = failure(FailureKind.AMBIGUOUS)

#: The check that finds it, and what is broken.
BROKEN: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "an entry point of nobody": ("declares_what_it_is", {"name": "nobody"}),
    "receipts that it cannot read": ("declares_its_capabilities", {"read": Adapter.read}),
    "calls that it does not declare": (
        "declares_its_capabilities",
        {"capabilities": changed(WHOLE.capabilities, inbound=False, receipts="poll")},
    ),
    "codes that nobody checks": (
        "declares_its_capabilities",
        {"capabilities": changed(WHOLE.capabilities, verification="provider checks")},
    ),
    "no way to verify": (
        "declares_its_capabilities",
        {"operations": {name: one for name, one in WHOLE.operations.items() if name != "verify"}},
    ),
    "texts that are sent twice": ("declares_its_operations", operations(send=changed(SEND, repeat="always"))),
    "what costs money each time": (
        "declares_its_operations",
        operations(balance=changed(WHOLE.operations["balance"], paid=True)),
    ),
    "what is bought again": (
        "declares_its_operations",
        operations(balance=changed(
            WHOLE.operations["balance"], arguments={"card_number": Argument(about="a card", required=False)},
        )),
    ),
    "a rumour": ("declares_its_operations", operations(send=changed(SEND, source="a friend"))),
    "a line of its own invention": (
        "reads_a_lookup_in_the_one_shape",
        {
            "operations": {**WHOLE.operations, "lookup": Operation(about="Look up.", repeat="once")},
            "number_facts": lambda self, raw, number: Facts(line_type="pigeon"),
        },
    ),
    "no reason": ("gives_a_reason_for_what_it_does_not_do", {"unsupported": {"lookup": ""}}),
    "offered and not done": ("gives_a_reason_for_what_it_does_not_do", {"unsupported": {"send": "we do not like it"}}),
    "a card under another name": (
        "calls_a_card_by_the_names_that_are_sealed",
        operations(send=changed(SEND, arguments={"card_cvv": Argument(about="three digits", required=False)})),
    ),
    "no credentials": (
        "refuses_to_work_without_its_credentials", {"__init__": lambda self, account, settings: None},
    ),
    "an address of its own": (
        "goes_to_its_own_address_or_the_one_it_is_told", request(url="https://elsewhere.example/v1"),
    ),
    "a header in two lines": ("builds_requests_that_can_be_written", request(headers={"X": "a\r\nb"})),
    "a URL with a blank": ("builds_requests_that_can_be_written", request(url="https://api.pigeonpost.example/a b")),
    "what costs the limiter nothing": ("builds_requests_that_can_be_written", group(lambda one: one, cost={})),
    "a key in the URL": (
        "keeps_what_is_private_out_of_urls", request(url="https://api.pigeonpost.example/?key=canary-key"),
    ),
    "a number in the URL": (
        "keeps_what_is_private_out_of_urls",
        request(url=f"https://api.pigeonpost.example/?to={NUMBERS[0].removeprefix('+44')}"),
    ),
    "a code in the URL": (
        "keeps_what_is_private_out_of_urls",
        group(lambda one: msgspec.structs.replace(one, url=f"{one.url}?{one.body.decode()[-60:]}".replace(" ", ""))),
    ),
    "a repr that tells": ("keeps_what_is_private_out_of_reprs", {"__repr__": lambda self: str(self.settings)}),
    "jobs that travel twice": ("sends_every_job_once", {"build": _twice}),
    "jobs that are forgotten": ("sends_every_job_once", {"build": lambda self, jobs: Plan()}),
    "[CODE] on a phone": (
        "puts_our_code_into_the_text",
        {"_group": lambda self, job: WHOLE._group(self, msgspec.structs.replace(job, code=""))},
    ),
    "a reference that is not sent": ("sends_our_own_reference_where_it_says_so", request(body=b"{}")),
    "no end of a text": ("refuses_a_text_that_is_too_long", {"validate": Adapter.validate}),
    "anything goes": ("refuses_what_it_does_not_know", {"validate": lambda self, job: None}),
    "an argument that is not asked for": (
        "asks_for_every_argument_it_needs",
        operations(balance=changed(WHOLE.operations["balance"], arguments={"of": Argument(about="whose")}))
        | {"validate": lambda self, job: None},
    ),
    "a refusal that repeats": (
        "refuses_an_argument_without_repeating_it",
        operations(send=changed(
            SEND, arguments={"at": Argument(about="when", required=False, parse=datetime.fromisoformat)},
        )),
    ),
    "an argument that raises": (
        "never_raises_for_what_a_caller_wrote",
        operations(send=changed(
            SEND, arguments={"at": Argument(about="when", required=False, parse=lambda at: at["when"]["else"].strip())},
        )) | {"validate": lambda self, job: WHOLE.operations and self._tried(job),
              "_tried": lambda self, job: [self.operations["send"].arguments["at"].parse(job.request.options["at"])]
              if isinstance(job.request, Send) and "at" in job.request.options else None},
    ),
    "an answer that raises": (
        "never_raises_for_what_comes_back",
        {"parse": lambda self, response, group: {job.id: msgspec.json.decode(response.body) for job in group.jobs}},
    ),
    "an answer of nobody": ("never_raises_for_what_comes_back", {"parse": lambda self, response, group: {}}),
    "a text with a result": (
        "never_raises_for_what_comes_back",
        answers(lambda self, response, job: Found(result={})),
    ),
    "what cannot be stored": (
        "never_raises_for_what_comes_back",
        answers(lambda self, response, job: Accepted(ref="\ud83d") if isinstance(job.request, Send | Verify) else LOST),
    ),
    "a sample of which a value is another": (
        "bears_its_own_answers_spoilt",
        answers(lambda self, response, job: WHOLE._outcome(self, response, job) if b"state" not in response.body
                else Accepted(ref=msgspec.json.decode(response.body)["state"])),
    ),
    "half an answer is a success": (
        "takes_an_answer_that_broke_off_for_doubt",
        answers(lambda self, response, job: Accepted(ref="m-1") if b'"m-1"' in response.body
                else WHOLE._outcome(self, response, job)),
    ),
    "half an answer is a failure": (
        "takes_an_answer_that_broke_off_for_doubt",
        answers(lambda self, response, job: LOST if response.body[-1:] != b"}"
                else WHOLE._outcome(self, response, job)),
    ),
    "any page is a success": ("takes_no_stranger_for_success", answers(lambda self, response, job: Accepted())),
    "a broken answer is a failure": (
        "takes_a_broken_answer_for_doubt_and_not_for_failure", answers(lambda self, response, job: LOST),
    ),
    "too fast is in doubt": ("obeys_too_many_requests", answers(lambda self, response, job: UNSURE)),
    "a memory that raises": (
        "remembers_whatever_it_read_before",
        {
            "before": lambda self, job: Request(method="GET", url=f"{self.origin}/v1/corn"),
            "remember": lambda self, response, job: str(msgspec.json.decode(response.body)),
        },
    ),
    "a memory of garbage": (
        "remembers_whatever_it_read_before",
        {
            "before": lambda self, job: Request(method="GET", url=f"{self.origin}/v1/corn"),
            "remember": lambda self, response, job: LOST,
        },
    ),
    "a password that is wrong twice": ("tells_when_its_reads_are_refused", {"news": lambda self, response, group: {}}),
    "a password that is wrong before": (
        "tells_when_its_reads_are_refused",
        {"before": lambda self, job: Request(method="GET", url=f"{self.origin}/v1/corn")},
    ),
    "everything is a refusal": (
        "tells_when_its_reads_are_refused",
        {"news": lambda self, response, group: failure(FailureKind.UNAUTHORIZED)},
    ),
    "a question about somebody else's": ("asks_only_about_jobs_that_it_was_given", {"inquire": _stranger}),
    "a question that raises": (
        "asks_only_about_jobs_that_it_was_given", {"inquire": lambda self, jobs: [int(job.ref) for job in jobs]},
    ),
    "receipts that nobody asks for": ("asks_where_it_says_it_does", {"inquire": Adapter.inquire}),
    "evidence that nobody declared": ("asks_where_it_says_it_does", operations(send=changed(SEND, evidence=""))),
    "news that raise": (
        "never_raises_for_news", {"news": lambda self, response, group: msgspec.json.decode(response.body)},
    ),
    "news of nobody": ("never_raises_for_news", {"news": lambda self, response, group: {"nobody": SENT}}),
    "a text that failed afterwards": (
        "never_raises_for_news", news(lambda job: News(state=State.FAILED, evidence="seen", failure=LOST)),
    ),
    "a question that is not permitted": (
        "never_raises_for_news",
        {"news": lambda self, response, group: Failure(kind=FailureKind.UNAUTHORIZED, permission=True)},
    ),
    "no evidence": ("never_raises_for_news", news(lambda job: News(state=State.SENT))),
    "no reason for what came back": (
        "never_raises_for_news", news(lambda job: News(state=State.UNDELIVERED, evidence="seen")),
    ),
    "a call that raises": (
        "never_raises_for_a_callback", {"read": lambda self, callback: (callback.json()["id"],)},
    ),
    "a receipt for nothing": ("never_raises_for_a_callback", reads(Receipt(news=SENT))),
    "a receipt for a number of the vendor's": (
        "never_raises_for_a_callback", reads(Receipt(news=SENT, ref="m-1", number="447700900001")),
    ),
    "the third part of two": (
        "never_raises_for_a_callback", reads(Receipt(news=SENT, ref="m-1", part=3, parts=2)),
    ),
    "an operation's end by a receipt": (
        "never_raises_for_a_callback", reads(Receipt(news=News(state=State.COMPLETED), ref="m-1")),
    ),
    "a sender that is not in E.164": ("never_raises_for_a_callback", reads(Inbound(sender="+4407700900001"))),
    "an opt-out of nobody": ("never_raises_for_a_callback", reads(OptOut(number="nobody"))),
    "a secret that raises": (
        "never_raises_for_a_callback", {"trusts": lambda self, callback: callback.headers["authorization"] == "x"},
    ),
    "a call of which a part is missing": (
        "bears_its_own_calls_spoilt",
        {"read": lambda self, callback: (Receipt(news=SENT, ref=callback.json()["id"]),) if b"state" in callback.body
         else ()},
    ),
    "an answer that makes them call again": (
        "never_raises_for_a_callback", {"answer": lambda self, callback: Answer(status=500)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("check", "changes"), BROKEN.values(), ids=BROKEN)
def test_the_kit_finds(check: str, changes: dict[str, Any]) -> None:
    (found,) = [one for one in CHECKS if one.__name__ == check]
    if check == "asks_for_every_argument_it_needs":
        fields = {"requests": TEXT | OTHERS | {"balance": OperationRequest(arguments={"of": "x"})}}
    elif check == "reads_a_lookup_in_the_one_shape":
        fields = {"requests": TEXT | OTHERS | {"lookup": Lookup(to=NUMBERS[0])}}
    else:
        fields = {}
    with pytest.raises((AssertionError, pytest.fail.Exception, LookupError, TypeError, ValueError)) as raised:
        found(subject(changes, **fields))
    assert not isinstance(raised.value, HypothesisException), "the kit itself is broken"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.replace("_", " "))
def test_it_finds_nothing_in_what_is_whole(check: Callable[[Subject], None]) -> None:
    """But for its entry point, since its package is not installed here."""
    if check.__name__ != "declares_what_it_is":
        check(subject({}))


def test_every_check_but_few_is_seen_to_find_something() -> None:
    """Groups are broken in the tests of the providers that have them."""
    seen = {check for check, _ in BROKEN.values()}
    groups = {"builds_a_smaller_request_of_what_is_left_of_one", "obeys_its_group_size"}
    assert {one.__name__ for one in CHECKS} - seen == groups


def test_a_code_that_the_vendor_calls_not_processed_is_no_doubt() -> None:
    """As Club Texting's 503: declared of the subject, not of the kit."""

    def outcome(self: Any, response: Any, job: Work) -> Any:
        throttled = Failure(kind=FailureKind.THROTTLED, code="503")
        return throttled if response.status == 503 else WHOLE._outcome(self, response, job)

    (check,) = [one for one in CHECKS if one.__name__.startswith("takes_a_broken_answer")]
    check(subject(answers(outcome), not_processed=frozenset({503})))
    with pytest.raises(AssertionError):
        check(subject(answers(outcome)))
