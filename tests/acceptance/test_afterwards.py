"""What becomes of jobs afterwards: receipts, lost answers cleared up, people who leave, accounts that stop, crashes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from dispatcher import Dispatcher, Job, Message, State, WaitTimeout
from tests.acceptance.conftest import KEYS, PASSWORD, Four
from tests.acceptance.test_every_operation import american
from tests.acceptance.test_privacy import kept, unpacked
from tests.commands import Run
from tests.support import SHORT, Worker, phone, phones, until

#: Every text of these tests bears it, and nothing but providers and phones may show it.
TEXT: Final = "Canary-Text-71"

#: Seconds until providers send receipts, where a test does without.
NEVER: Final = 3600.0

#: What Club Texting's reports, and those of others, tell of three texts: one arrived, one did not, of one nobody knows.
IN_AMERICA: Final = {american(151): "delivered", american(140): "undelivered", american(144): "sent"}
ELSEWHERE: Final = {phone(1): "delivered", phone(140): "undelivered", phone(144): "sent"}


def now(d: Dispatcher, job: Job) -> str:
    return str(d.get(job.id).state)


def history(d: Dispatcher, job: Job) -> list[tuple[str, str]]:
    return [(str(one.state), one.detail) for one in d.get(job.id).history]


def last(d: Dispatcher, job: Job) -> str:
    return d.get(job.id).history[-1].detail


def callbacks(cli: Run, account: str) -> dict[str, int]:
    """Return what came of an account's callbacks, as `dispatcher status` counts it."""
    accounts = {one["name"]: one for one in cli("status", "--json").document["accounts"]}
    counts: dict[str, int] = accounts[account]["callbacks"]["counts"]
    return counts


# -- receipts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("account", ["mobtexting", "thetexting"])
def test_receipts_are_pushed(account: str, four: Four, d: Dispatcher, cli: Run) -> None:
    """Before the answer and late, twice and never, and one that says what was true before: never back, none lost."""
    ends = {1: "delivered", 140: "undelivered", 141: "delivered", 142: "delivered", 143: "delivered", 145: "delivered"}
    jobs = {n: d.send(phone(n), f"{TEXT} {n}", provider=account) for n in (*ends, 144)}
    until(lambda: {n: now(d, jobs[n]) for n in ends} == ends, what="their receipts")
    until(lambda: sum(callbacks(cli, account).values()) == 8, what="all that came twice or late")
    assert {n: now(d, jobs[n]) for n in ends} == ends
    assert now(d, jobs[144]) == "sent"
    assert d.get(jobs[144].id).receipt == "expected"
    lost = d.get(jobs[140].id)
    assert lost.failure is not None
    assert lost.history[-1].state == "undelivered"
    events = Counter((one.type, one.data["id"]) for one in d.events("0", timeout=0))
    assert set(events.values()) == {1}, "nothing is told twice"


@pytest.mark.parametrize(
    ("account", "after", "numbers"),
    [
        pytest.param("clubtexting", 30, IN_AMERICA, id="Club Texting has no other way"),
        pytest.param("xmlclub", 30, IN_AMERICA, id="nor in XML"),
        # Its log has every text, also where no receipt was sent.
        pytest.param("mobtexting", 300, {**ELSEWHERE, phone(144): "delivered"}, id="MobTexting, receipts got lost"),
        pytest.param("thetexting", 300, ELSEWHERE, id="TheTexting, receipts got lost"),
        pytest.param("xmlthe", 300, ELSEWHERE, id="and in XML"),
    ],
)  # fmt: skip
def test_receipts_are_asked_for(account: str, after: float, numbers: dict[str, str], four: Four, d: Dispatcher) -> None:
    four.sandbox.times(after=NEVER)
    batch = d.send_many([Message(number, TEXT) for number in numbers], provider=account)
    until(lambda: batch.counts == {"sent": len(numbers)}, what="all to be sent")
    jobs = {job.to: job for job in d.jobs(batch=batch.id, reveal=True)}
    time.sleep(1.1)  # the sandbox's reports know a text's fate a second after it
    four.go_on(after, *jobs.values())
    until(lambda: {number: now(d, job) for number, job in jobs.items()} == numbers, what="what became of them")
    (reason,) = {
        job.failure.kind for one in jobs.values() if (job := d.get(one.id)).state == "undelivered" and job.failure
    }
    assert reason
    requests = four.asked(provider_of(account), "report")
    assert requests <= 4 * len(numbers), "they are asked for together"


def provider_of(account: str) -> str:
    return {"xmlclub": "clubtexting", "xmlthe": "thetexting"}.get(account, account)


def test_a_receipt_that_overtakes_a_lost_answer_counts(four: Four, d: Dispatcher) -> None:
    """The provider took it, says so to the receiver, and never answers: what its job ends as is not lost again."""
    job = d.send(phone(110), TEXT, provider="mobtexting")
    assert d.wait(job.id, until="final").state == "delivered"
    assert [state for state, _ in history(d, job)] == ["queued", "sending", "delivered"]
    until(lambda: job.id in four.workers["mobtexting"].executed(), what="the end of its request")
    assert now(d, job) == "delivered"


def test_after_three_days_nobody_asks_any_more(four: Four, d: Dispatcher) -> None:
    jobs = [
        d.send(number, TEXT, provider=one)
        for one, number in (("thetexting", phone(144)), ("clubtexting", american(144)))
    ]
    for job in jobs:
        d.wait(job.id)
    four.go_on(73 * 3600, *jobs)
    until(lambda: [d.get(job.id).receipt for job in jobs] == ["timed_out"] * 2, what="the end of it")
    assert {(now(d, job), last(d, job)) for job in jobs} == {("sent", "no receipt came in time")}
    assert four.rows("report") == []


# -- lost answers ------------------------------------------------------------------------------------------------------

#: At MobTexting, by the number's ending: whether the phone got the text whose answer was lost.
LOST: Final = {110: True, 111: True, 113: True, 115: True, 116: True, 118: True, 125: True,
               112: False, 114: False, 121: False, 122: False}  # fmt: skip


def test_our_own_reference_clears_up_what_nobody_knew(four: Four, d: Dispatcher) -> None:
    """What is in the provider's log was taken, what is not there after ten minutes was not; nothing goes out again."""
    four.sandbox.times(after=NEVER)
    jobs = {n: d.send(phone(n), f"{TEXT} {n}", provider="mobtexting") for n in LOST}
    until(lambda: {now(d, job) for job in jobs.values()} == {"unknown"}, what="all to be unknown")
    four.go_on(12, *jobs.values())
    taken = {n: job for n, job in jobs.items() if LOST[n]}
    until(lambda: {now(d, job) for job in taken.values()} <= {"sent", "delivered"}, what="those that were taken")
    assert {now(d, job) for n, job in jobs.items() if not LOST[n]} == {"unknown"}, "it is too early to say"
    for job in taken.values():
        (lifted,) = [told for state, told in history(d, job) if "our reference" in told][:1]
        assert lifted.endswith("strong")
        assert d.get(job.id).provider_ref
    four.go_on(600, *(job for n, job in jobs.items() if not LOST[n]))
    until(lambda: {now(d, jobs[n]) for n in LOST if not LOST[n]} == {"failed"}, what="those that were not")
    for n in LOST:
        failed = d.get(jobs[n].id)
        if not LOST[n]:
            assert failed.failure is not None
            assert (failed.failure.kind, failed.failure.code) == ("not_sent", "absent")
            assert "does not hold our reference: strong" in failed.history[-1].detail
    assert Counter(row.msisdn for row in four.rows("send")) == dict.fromkeys([phone(n)[1:] for n in LOST], 1)
    time.sleep(1.1)
    four.go_on(300, *taken.values())
    until(lambda: {now(d, job) for job in taken.values()} == {"delivered"}, what="their receipts")


def test_a_text_of_the_same_day_is_no_proof(four: Four, d: Dispatcher) -> None:
    """TheTexting is asked by number and day: it stays unknown, with what was seen; that none is there is proof."""
    four.sandbox.times(after=NEVER)
    taken, not_taken = phone(118), phone(122)
    jobs = [d.send(number, TEXT, provider="thetexting") for number in (taken, not_taken)]
    until(lambda: [now(d, job) for job in jobs] == ["unknown"] * 2, what="both to be unknown")
    four.go_on(601, *jobs)
    until(lambda: now(d, jobs[1]) == "failed", what="the one that was not taken")
    until(lambda: "no proof" in last(d, jobs[0]), what="what was seen")
    assert now(d, jobs[0]) == "unknown"
    assert Counter(row.msisdn for row in four.rows("send")) == {taken[1:]: 1, not_taken[1:]: 1}


#: What costs money or changes the account: who does it, what, with what, the request that gets lost, and a word of the
#: evidence, where it was done and where it was not.
PURCHASES: Final = [
    pytest.param("thetexting", "number.buy", {"number": american(160)}, "number/buy", "not held before, held now",
                 "not held before, not held now", id="a number"),
    pytest.param("xmlthe", "number.buy", {"number": american(161)}, "number/buy", "not held before, held now",
                 "not held before, not held now", id="a number, in XML"),
    pytest.param("thetexting", "number.cancel", {"number": american(162)}, "number/cancel", "held before, not held now",
                 "held before, held now", id="a number that is given back"),
    pytest.param("clubtexting", "credits.buy", {"number_of_credits": "300", "stored_credit_card": "1111"},
                 "POST /billing/credits", "risen by just as many", "the same as just before", id="credits"),
    pytest.param("xmlclub", "credits.buy", {"number_of_credits": "300", "stored_credit_card": "1111"},
                 "POST /billing/credits", "risen by just as many", "the same as just before", id="credits, in XML"),
    pytest.param("clubtexting", "keyword.rent", {"keyword": "honey", "stored_credit_card": "1111"}, "POST /keywords",
                 "available just before, and not any more", "still available", id="a keyword"),
    pytest.param("xmlclub", "keyword.rent", {"keyword": "honey", "stored_credit_card": "1111"}, "POST /keywords",
                 "available just before, and not any more", "still available", id="a keyword, in XML"),
]  # fmt: skip


@pytest.mark.parametrize("fault", ["drop-after", "drop-before"])
@pytest.mark.parametrize(("account", "operation", "arguments", "action", "done", "not_done"), PURCHASES)
def test_a_purchase_whose_answer_is_lost_is_cleared_up_and_never_made_twice(  # noqa: PLR0917 - the table's columns
    account: str,
    operation: str,
    arguments: dict[str, Any],
    action: str,
    done: str,
    not_done: str,
    fault: str,
    four: Four,
    d: Dispatcher,
) -> None:
    provider = provider_of(account)
    if operation == "number.cancel":
        assert d.wait(d.operation(account, "number.buy", arguments=arguments).id).state == State.COMPLETED
    four.sandbox.fault(fault, provider=provider, action=action)
    job = d.operation(account, operation, arguments=arguments)
    until(lambda: now(d, job) == "unknown", what="nobody to know")
    four.sandbox.clear()
    four.go_on(61, job)
    until(lambda: d.get(job.id).state != State.UNKNOWN, what="the evidence")
    ended = d.get(job.id, reveal=True)
    assert str(ended.state) == ("completed" if fault == "drop-after" else "failed"), ended.history
    assert (done if fault == "drop-after" else not_done) in ended.history[-1].detail
    assert "strong" in ended.history[-1].detail
    if ended.failure:
        assert ended.failure.kind == "not_sent"
    else:
        assert ended.result
    assert (four.asked(provider, operation), ended.attempts) == (1, 1)


def test_a_keyword_is_given_up_twice_as_well_as_once(four: Four, d: Dispatcher) -> None:
    """Its answer is lost; asked again the provider finds nothing, and that is success."""
    rent = d.operation("clubtexting", "keyword.rent", arguments={"keyword": "bee", "stored_credit_card": "1111"})
    assert d.wait(rent.id).state == State.COMPLETED
    four.sandbox.fault("drop-after", action="DELETE /keywords/*", times=1)
    job = d.wait(d.operation("clubtexting", "keyword.cancel", keyword="bee").id)
    assert (job.state, job.attempts) == (State.COMPLETED, 2)


# -- people who leave --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "number"),
    [("clubtexting", american(181)), ("mobtexting", phone(81)), ("thetexting", phone(82))],
    ids=["clubtexting", "mobtexting", "thetexting"],
)
def test_stop_is_heeded_by_all_and_start_lifts_it(account: str, number: str, four: Four, d: Dispatcher) -> None:
    """Also by what was enqueued before and waits for its time, and at other providers."""
    at = datetime.now(UTC) + timedelta(hours=1)
    before = [d.send(number, TEXT, provider=one, send_at=at) for one in (account, "textgoto")]
    four.sandbox.text(account, number, " stop. ")
    until(lambda: d.opted_out(number), what="the stop")
    for job in (
        d.send(number, TEXT, provider=account),
        d.send(number, TEXT, provider="textgoto"),
        d.verify(number, provider="textgoto"),
        d.verify(number, provider=account),
    ):
        assert (job.state, job.failure and job.failure.kind) == (State.FAILED, "opted_out")
    for job in before:
        # Its time has come.
        four.redis.zadd(f"d:w:{job.provider}", {job.id: 1}, xx=True)
    ended = [d.wait(job.id) for job in before]
    assert [(job.state, job.failure and job.failure.kind, job.attempts) for job in ended] == [
        ("failed", "opted_out", 0)
    ] * 2
    assert four.rows("send") == four.rows("verify") == []
    four.sandbox.text(account, number, "Start")
    until(lambda: not d.opted_out(number), what="the start")
    assert d.wait(d.send(number, TEXT, provider=account).id).good
    four.sandbox.text(account, number, f"{TEXT} please STOP shouting")
    until(lambda: len(inbound(d)) == 3, what="the third text")
    assert [(one["opt_out"], one["from"], one["provider"]) for one in inbound(d)] == [
        ("out", number, account), ("in", number, account), (None, number, account),
    ]  # fmt: skip
    assert not d.opted_out(number)


def inbound(d: Dispatcher) -> list[dict[str, Any]]:
    return [one.data for one in d.events("0", timeout=0, reveal=True) if one.type == "inbound.text"]


# -- accounts that stop, and limits ------------------------------------------------------------------------------------

#: Accounts with a wrong password, by provider.
WRONG: Final = {"clubtexting": "wrongclub", "mobtexting": "wrongmob", "textgoto": "wronggoto", "thetexting": "wrongthe"}


@pytest.mark.parametrize("provider", WRONG)
def test_one_wrong_password_is_one_refusal(provider: str, four: Four, d: Dispatcher, cli: Run) -> None:
    """Fifty jobs of three kinds are ready at once; all of them wait, and `status` says for what."""
    account = WRONG[provider]
    numbers = [american(n, 415) for n in range(150, 190)]
    jobs = [d.send(number, f"{TEXT} {number}", provider=account) for number in numbers]
    jobs += [d.lookup(number, provider=account) for number in numbers[:5]]
    jobs += [d.operation(account, "balance") for _ in range(5)]
    until(lambda: all(waits(d, job) == "suspended" for job in jobs), what="all to wait")
    assert len({row.request for row in four.rows(provider=provider)}) == 1
    assert {d.get(job.id).attempts for job in jobs} == {0}
    details = {last(d, job) for job in jobs}
    assert all(
        re.fullmatch(r"unauthorized .+; waits until that is mended(, no attempt spent)?", one) for one in details
    )
    status = cli("status", "--json")
    assert status.code == 1
    (problem,) = [one for one in status.document["problems"] if one.startswith(f"{account}: its")]
    assert "credentials are refused" in problem
    assert f"dispatcher providers resume {account}" in problem
    assert "waits for its account to be mended" in cli("jobs", "--provider", account, "--state", "queued").out


def test_a_corrected_password_sends_what_waited(four: Four, d: Dispatcher, cli: Run) -> None:
    """A worker with the right one, and a word to it: each text goes out once."""
    fields = {"adapter": "clubtexting", "user": "sandbox", "password": "sandbox", "limits": "address=none"}

    def serve(name: str, **changed: str) -> Worker:
        settings = {f"providers__changed__{field}": value for field, value in {**fields, **changed}.items()}
        return four.start_worker(queues="changed", name=name, **settings)

    numbers = [american(n, 415) for n in range(150, 200)]
    with four.client(providers={"changed": {"adapter": "clubtexting"}}, **KEYS) as application:
        jobs = [application.send(number, f"{TEXT} {number}", provider="changed") for number in numbers]
    workers = serve("wrong", password=PASSWORD), serve("right")
    # It starts meanwhile and is held, so that the wrong one is the first to ask.
    os.kill(workers[1].popen.pid, signal.SIGSTOP)
    until(lambda: all(waits(d, job) == "suspended" for job in jobs), 30, "all to wait")
    workers[0].stop()
    os.kill(workers[1].popen.pid, signal.SIGCONT)
    workers[1].ready()
    assert cli("providers", "resume", "changed").code == 0
    until(lambda: {now(d, job) for job in jobs} == {"sent"}, what="all to be sent")
    assert Counter(row.accepted for row in four.rows("send", "clubtexting")) == {False: 1, True: 50}
    workers[1].kill()


def test_what_is_read_before_a_purchase_meets_the_wrong_password_first(four: Four, d: Dispatcher) -> None:
    job = d.operation("wrongthe", "number.buy", number=american(164))
    until(lambda: waits(d, job) == "suspended", what="it to wait")
    assert [row.kind for row in four.rows(provider="thetexting")] == ["number.list"]
    assert last(d, job).startswith("unauthorized 3: ")


def waits(d: Dispatcher, job: Job) -> str:
    waiting = d.get(job.id).waiting
    return waiting.reason if waiting else ""


def test_club_texting_is_asked_for_two_things_at_once_and_no_more(four: Four, d: Dispatcher) -> None:
    """By one account in one worker process: each of them counts for itself."""
    four.sandbox.fault("latency", provider="clubtexting", seconds=0.1)
    jobs = [d.send(american(150 + n, 412), f"{TEXT} {n}", provider="clubtexting") for n in range(8)]
    jobs += [d.lookup(american(150 + n, 412), provider="clubtexting") for n in range(4)]
    until(lambda: all(d.get(job.id).settled for job in jobs), 30, "all to be done")
    assert {now(d, job) for job in jobs} == {"sent", "completed"}
    rows = four.rows(provider="clubtexting")
    assert {row.result for row in rows if not row.accepted} == set()
    assert len({row.request for row in rows}) == 12


def test_asked_too_often_mobtexting_is_left_alone_for_a_while(four: Four, d: Dispatcher) -> None:
    """No attempt is spent on a 429, and a text, which is no GET, goes out meanwhile."""
    four.sandbox.limits(provider="mobtexting", gets_a_minute=3)
    jobs = [d.operation("mobtexting", "report", cid=f"none{n}") for n in range(8)]
    until(lambda: [now(d, job) for job in jobs].count("completed") == 3, what="three answers")
    late = [job for job in jobs if now(d, job) != "completed"]
    until(lambda: {waits(d, job) for job in late} == {"limit"}, what="the others to wait")
    assert d.wait(d.send(phone(1), TEXT, provider="mobtexting").id).good
    four.sandbox.limits(provider="mobtexting", gets_a_minute=1000)
    until(lambda: {now(d, job) for job in jobs} == {"completed"}, what="all answers")
    assert {d.get(job.id).attempts for job in jobs} == {1}
    assert any(row.result == "429" for row in four.rows("report", "mobtexting"))


# -- codes of ours -----------------------------------------------------------------------------------------------------


def test_the_code_that_arrives_is_the_one_that_checks_though_its_worker_was_killed(four: Four, d: Dispatcher) -> None:
    """Some are on the wire, of which nobody knows; the others go out later; no phone gets two."""
    account = {"providers__victim__adapter": "thetexting", "providers__victim__api_key": "sandbox",
               "providers__victim__api_secret": "sandbox"}  # fmt: skip
    first = four.start_worker(queues="victim", name="victim1", connections="4", **account, **SHORT).ready()
    four.sandbox.fault("hang-after", provider="thetexting")
    with four.client(providers={"victim": {"adapter": "thetexting"}}, **KEYS) as application:
        made = {
            number: application.verify(number, template=f"{TEXT} [CODE]", provider="victim") for number in phones(12)
        }

    def hang() -> bool:
        """Say whether as many hang as it may ask for at once, and all of them are with the provider."""
        claimed = [now(d, job) for job in made.values()].count("sending")
        return claimed == len(four.rows("send", "thetexting")) == 4

    until(hang, what="some on the wire")
    first.kill()
    on_the_wire = {f"+{row.msisdn}" for row in four.rows("send", "thetexting")}
    assert 0 < len(on_the_wire) < 12
    four.sandbox.clear()
    second = four.start_worker(queues="victim", name="victim2", **account, **SHORT).ready()
    until(lambda: all(d.get(job.id).settled for job in made.values()), what="all to be settled")
    assert {number for number, job in made.items() if now(d, job) == "unknown"} == on_the_wire
    for number, job in made.items():
        (text,) = four.sandbox.inbox(number)
        code = text.text.rsplit(" ", 1)[1]
        assert d.check(job.id, code).valid
        assert not d.check(job.id, code).valid
    assert Counter(row.msisdn for row in four.rows("send", "thetexting") if row.accepted) == {
        number[1:]: 1 for number in made
    }
    second.kill()


def test_a_code_that_was_turned_away_arrives_later_and_checks(four: Four, d: Dispatcher) -> None:
    """Where the first try was surely not processed."""
    numbers = {"thetexting": phone(119), "clubtexting": american(106), "xmlclub": american(104, 213)}
    jobs = {n: d.verify(n, template=f"{TEXT} [CODE]", provider=account) for account, n in numbers.items()}
    until(lambda: all(d.get(job.id).settled for job in jobs.values()), what="all to be sent")
    for number, job in jobs.items():
        assert len(d.get(job.id).tries) == 2
        (text,) = four.sandbox.inbox(number)
        assert d.check(job.id, text.text.rsplit(" ", 1)[1]).valid


#: What happens to the answer, how often, and the seconds that the person waits for it.
VERDICTS_LOST: Final = {
    "and is asked for again at once": ("drop-after", 1, 20.0, 0.0),
    "for as long as anybody waits": ("drop-after", None, 1.0, 0.0),
    "on its way, and comes too late": ("latency", 1, 0.5, 3.0),
}


@pytest.mark.parametrize(("fault", "times", "patience", "seconds"), VERDICTS_LOST.values(), ids=VERDICTS_LOST)
def test_a_right_code_whose_answer_is_lost_is_right_once(
    four: Four, d: Dispatcher, *, fault: str, times: int | None, patience: float, seconds: float
) -> None:
    """Its provider answers "already verified" from then on, to a wrong code as well."""
    job = d.wait(d.verify(phone(1), template=f"{TEXT} [CODE]", provider="mobtexting").id)
    (text,) = four.sandbox.inbox(phone(1))
    code = text.text.rsplit(" ", 1)[1]
    four.sandbox.fault(fault, provider="mobtexting", action="verify/check", times=times, seconds=seconds)
    valid = []
    with suppress(WaitTimeout):
        valid.append(d.check(job.id, code, timeout=patience).valid)
    four.sandbox.clear()
    if seconds:
        until(lambda: d.get(job.id).verification.status == "approved", what="the late answer")  # type: ignore[union-attr]  # it is one
    valid += [d.check(job.id, one, timeout=20).valid for one in ("x" * len(code), code, code)]
    assert valid[-3:] == ([False, False, False] if patience > 1 else [False, True, False])
    assert valid.count(True) == 1


# -- privacy -----------------------------------------------------------------------------------------------------------


def test_nothing_private_is_seen_anywhere_afterwards(four: Four, all_four: Four, d: Dispatcher, cli: Run) -> None:
    """In the store and its files, events, logs of workers and receiver: of all that the tests of this file did, too."""
    four.sandbox.text("mobtexting", phone(83), f"{TEXT} inbound")
    four.sandbox.text("clubtexting", american(183), f"{TEXT} inbound")
    four.sandbox.text("thetexting", phone(84), "STOP")
    until(lambda: len(inbound(d)) == 3, what="all of them")
    job = d.send(phone(140), TEXT, provider="mobtexting")
    d.operation("thetexting", "number.buy", number=american(163))
    d.wait(job.id, until="final")
    logs = b"".join(one.read_bytes() for one in all_four.folder.glob("*.log") if one.name != "sandbox.log")
    seen = {
        "the store": unpacked(kept(all_four.redis)),
        "the server's files": b"".join(one.read_bytes() for one in all_four.server.folder.rglob("*") if one.is_file()),
        "logs": logs,
        "jobs": msgspec.json.encode([one.to_dict() for one in d.jobs(limit=100)]),
        "events": msgspec.json.encode([one.data for one in d.events("0", timeout=0)]),
        "status": cli("status", "--json").out.encode(),
        "providers": cli("providers", "--json").out.encode(),
    }
    tokens = [address.rsplit("/", 1)[1] for address in all_four.addresses.values()]
    canaries = [TEXT, "7700900", "2125550", "4155550", PASSWORD, *KEYS.values(), *tokens]
    assert {(where, one) for where, what in seen.items() for one in canaries if one.encode() in what} == set()
    assert all(seen.values())
    assert b"d:cb:" in seen["the server's files"]
