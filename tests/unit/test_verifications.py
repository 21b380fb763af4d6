"""Another code for a verification, a code that is taken back, and what each check costs."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher import (
    Check,
    Dispatcher,
    IllegalMove,
    Job,
    NotFound,
    NumberLimited,
    ResendTooSoon,
    Settings,
    VerificationRefused,
    WaitTimeout,
)
from dispatcher.batches import Steps
from dispatcher.outcomes import Checked
from dispatcher.records import stored
from dispatcher.verifications import verdict
from tests.unit import test_client
from tests.unit.support import NUMBER, leaks
from tests.unit.test_client import Shop

shop = test_client.shop
dispatcher = test_client.dispatcher

CODE = "012837"
NEWER = "555555"


def status(job: Job) -> str:
    assert job.verification is not None
    return job.verification.status


def sent_with(shop: Shop, id_: str, code: str) -> None:
    """Let a worker have sent the code."""
    shop.sent(id_, code_ttl=300, vh=shop.bench.settings.hashed("code", id_, code))


@pytest.fixture
def first(shop: Shop) -> Job:
    """A verification whose code was sent, and whose person waits by now."""
    job = shop.verified(CODE)
    shop.clock.advance(30)
    return job


# -- another code ------------------------------------------------------------------------------------------------------


def test_the_newest_of_a_chain_may_be_forgotten_before_the_first(shop: Shop, first: Job) -> None:
    """Late news keep the older one longer. Its code stays dead, and whoever checks it gets an answer."""
    new = shop.dispatcher.resend(first.id)
    shop.bench.redis.delete(f"d:j:{new.id}")
    assert shop.bench.check(first.id, shop.bench.settings.hashed("code", first.id, CODE)) == (0, "cancelled")
    assert shop.dispatcher.check(first.id, CODE) == Check(valid=False, status="cancelled")


def test_another_code_is_a_new_job_asked_for_as_the_first(shop: Shop) -> None:
    terms: dict[str, Any] = {"code_ttl": 300, "tenant": "acme", "reference": "sign-in 7", "metadata": {"a": 1}}
    old = shop.dispatcher.verify(NUMBER, template="[CODE] is it", sender="Shop", on_unknown="resend", **terms)
    shop.clock.advance(30)
    new = shop.dispatcher.resend(old.id)
    assert new.id != old.id
    assert (new.resend_of, old.resend_of) == (old.id, None)
    both = [shop.dispatcher.get(one.id, reveal=True).to_dict() for one in (old, new)]
    for name in ("to", "text", "sender", "tenant", "reference", "metadata", "route", "category", "kind"):
        assert both[0][name] == both[1][name], name
    assert shop.published[-1] == ("textgoto.high", [new.id])


def test_the_old_code_is_dead_at_once_and_the_new_one_right_under_either_id(shop: Shop, first: Job) -> None:
    new = shop.dispatcher.resend(first.id)
    assert shop.dispatcher.check(first.id, CODE) == Check(valid=False, status="pending"), "of the new one, not sent yet"
    assert "vt" not in shop.bench.raw(new.id)
    sent_with(shop, new.id, NEWER)
    assert not shop.dispatcher.check(first.id, CODE).valid
    assert shop.dispatcher.check(first.id, NEWER) == Check(valid=True, status="approved")
    assert shop.dispatcher.check(new.id, NEWER) == Check(valid=False, status="approved")
    old = shop.dispatcher.get(first.id)
    assert (status(old), old.state) == ("cancelled", "sent"), "its text was sent, that cannot be taken back"
    assert {"vh", "vx"}.isdisjoint(shop.bench.raw(first.id))
    assert ("verification.cancelled", first.id) in shop.bench.events()


def test_one_that_still_waits_to_be_sent_is_taken_back(shop: Shop, dispatcher: Dispatcher) -> None:
    """Nobody gets two codes of which one is dead."""
    old = dispatcher.verify(NUMBER)
    shop.clock.advance(30)
    new = dispatcher.resend(old.id)
    assert dispatcher.get(old.id).state == "cancelled"
    assert shop.bench.taken(old.id, new.id) == [new.id]


def test_one_that_is_on_the_wire_is_not_tried_again(shop: Shop, dispatcher: Dispatcher) -> None:
    old = dispatcher.verify(NUMBER)
    token = shop.bench.claim(old.id)
    shop.clock.advance(30)
    dispatcher.resend(old.id)
    assert shop.bench.advance(old.id, token, "queued", wait="retry") == "queued"
    shop.bench.due("textgoto.high")
    assert shop.bench.refused_claim(shop.bench.hold(old.id), old.id) == "cancelled"


def test_a_third_code_may_be_asked_for_by_any_id(shop: Shop, first: Job) -> None:
    second = shop.dispatcher.resend(first.id)
    shop.clock.advance(30)
    third = shop.dispatcher.resend(first.id)
    assert third.resend_of == second.id
    sent_with(shop, third.id, NEWER)
    shop.clock.advance(30)
    assert [shop.dispatcher.check(one.id, "wrong").status for one in (first, second, third)] == ["pending"] * 3
    assert shop.bench.raw(third.id)["vt"] == "3", "the tries of all are one another's"
    assert shop.dispatcher.check(second.id, NEWER).valid


@pytest.mark.parametrize("seconds", [0, 29.999])
def test_too_soon_it_is_refused_with_how_long_to_wait(shop: Shop, dispatcher: Dispatcher, seconds: float) -> None:
    """On Redis' clock, from when the last code was enqueued."""
    old = dispatcher.verify(NUMBER)
    before = len(dispatcher.jobs())
    shop.clock.advance(seconds)
    with pytest.raises(ResendTooSoon) as refused:
        dispatcher.resend(old.id)
    assert refused.value.retry_after == (30 if not seconds else 1)
    assert status(dispatcher.get(old.id)) == "pending"
    assert len(dispatcher.jobs()) == before


def test_the_wait_is_a_setting(shop: Shop, dispatcher: Dispatcher) -> None:
    dispatcher._guarding._settings = dispatcher.settings.model_copy(update={"resend_after": 0.0})
    dispatcher.resend(dispatcher.verify(NUMBER).id)


@pytest.mark.parametrize("seconds", [30.0, 0.0])
def test_of_two_at_the_same_moment_one_wins(shop: Shop, first: Job, seconds: float) -> None:
    """Both had read the old one before either wrote; also where nobody has to wait."""
    shop.dispatcher._guarding._settings = shop.dispatcher.settings.model_copy(update={"resend_after": seconds})
    d, run = shop.dispatcher, shop.dispatcher._store.run
    others: list[Job] = []

    def racing(call: Any) -> Any:
        if call.script.name == "verify" and not others:
            others.append(first)
            others[0] = d.resend(first.id)
        return run(call)

    d._store.run = racing  # type: ignore[method-assign]  # another process comes in between
    with pytest.raises(ResendTooSoon):
        d.resend(first.id)
    assert others[0].resend_of == first.id
    assert len(d.jobs()) == 2


def test_a_resend_whose_answer_was_lost_makes_one_code(shop: Shop, first: Job) -> None:
    d, run = shop.dispatcher, shop.dispatcher._store.run
    d._store.run = lambda call: (run(call), run(call))[1]  # type: ignore[method-assign]  # each call comes twice
    new = d.resend(first.id)
    assert new.resend_of == first.id
    assert len(d.jobs()) == 2


def test_guards_count_it_like_any_other(shop: Shop, first: Job) -> None:
    d = shop.dispatcher
    for _ in range(4):
        d.resend(first.id)
        shop.clock.advance(30)
    with pytest.raises(NumberLimited):
        d.resend(first.id)
    assert isinstance(NumberLimited(), VerificationRefused)


ENDS: list[Any] = [
    pytest.param("pending", True, id="pending"),
    pytest.param("expired", True, id="expired"),
    pytest.param("max_attempts_reached", True, id="tried too often"),
    pytest.param("failed", True, id="never sent"),
    pytest.param("approved", False, id="approved"),
    pytest.param("cancelled", False, id="taken back"),
]


@pytest.mark.parametrize(("end", "may"), ENDS)
def test_what_was_approved_or_taken_back_gets_no_other_code(shop: Shop, end: str, may: bool) -> None:
    d = shop.dispatcher
    if end == "failed":
        job = d.verify(NUMBER)
        shop.bench.advance(job.id, "=queued", "failed")
    else:
        job = shop.verified(CODE)
        shop.clock.advance(301 if end == "expired" else 30)
        for code in {"approved": [CODE], "max_attempts_reached": ["x"] * 5}.get(end, []):
            d.check(job.id, code)
        if end == "cancelled":
            d.cancel(job.id)
    shop.clock.advance(30)
    if may:
        assert d.resend(job.id).resend_of == job.id
        return
    with pytest.raises(IllegalMove, match=f"its verification is {end}"):
        d.resend(job.id)


def test_what_is_no_verification_has_no_other_code(dispatcher: Dispatcher) -> None:
    for id_ in ("gone", dispatcher.send(NUMBER, "Hello").id):
        with pytest.raises(NotFound):
            dispatcher.resend(id_)


def test_it_may_go_by_another_account(shop: Shop, first: Job) -> None:
    shop.serve("other", "verify")
    new = shop.dispatcher.resend(first.id, provider="other")
    assert (new.provider, shop.published[-1]) == ("other", ("other.high", [new.id]))


@pytest.mark.parametrize(("provider", "watched"), [("other", None), (["other"], None), (["other", "textgoto"], 30)])
def test_by_one_account_alone_it_waits_for_no_other(shop: Shop, provider: Any, watched: int | None) -> None:
    """Whoever asks for it cannot take `failover_after` back."""
    shop.serve("other", *test_client.ALL)
    job = shop.dispatcher.verify(NUMBER, provider=["textgoto", "other"], failover_after=30)
    shop.clock.advance(30)
    new = shop.dispatcher.resend(job.id, provider=provider)
    public, _ = stored(new.id, shop.bench.redis.hgetall(f"d:j:{new.id}"), shop.bench.settings.sealer())
    assert public.terms.failover_after == watched


# -- taken back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "options", "then", "goes"),
    [
        pytest.param("textgoto", {"delay": 5}, "other", {}, id="another account"),
        pytest.param("textgoto", {"delay": 5}, "textgoto", {"delay": 5}, id="the same"),
        pytest.param(
            "textgoto", {"delay": 5}, ["other", "textgoto"], {"textgoto": {"delay": 5}}, id="the same among others"
        ),
        pytest.param(
            ["textgoto", "other"], {"textgoto": {"delay": 5}, "other": {"x": 1}}, "other", {"x": 1}, id="one of several"
        ),
        pytest.param(["textgoto", "other"], {"delay": 5}, "other", {"delay": 5}, id="that were for each of several"),
    ],
)  # fmt: skip
def test_by_another_account_each_has_the_options_that_were_its_own(
    shop: Shop, first: Any, options: dict[str, Any], then: Any, goes: dict[str, Any]
) -> None:
    """What one provider knows another refuses: the old code would be dead, and no new one sent."""
    shop.serve("other", *test_client.ALL)
    job = shop.dispatcher.verify(NUMBER, provider=first, options=options)
    shop.clock.advance(30)
    new = shop.dispatcher.resend(job.id, provider=then)
    _, request = stored(new.id, shop.bench.redis.hgetall(f"d:j:{new.id}"), shop.bench.settings.sealer())
    assert getattr(request, "options", None) == goes


def test_a_code_can_be_taken_back_after_it_was_sent(shop: Shop, first: Job) -> None:
    """It is right no more; that it was sent stays so."""
    told = shop.dispatcher.cancel(first.id)
    assert (status(told), told.state) == ("cancelled", "sent")
    assert shop.dispatcher.check(first.id, CODE) == Check(valid=False, status="cancelled")
    assert "vh" not in shop.bench.raw(first.id)
    assert shop.bench.events()[-1] == ("verification.cancelled", first.id)
    again = shop.dispatcher.cancel(first.id)
    assert again == told, "twice is once"


def test_of_a_resent_one_the_newest_is_taken_back(shop: Shop, first: Job) -> None:
    new = shop.dispatcher.resend(first.id)
    assert shop.dispatcher.cancel(first.id).id == new.id
    assert shop.dispatcher.get(new.id).state == "cancelled"


def test_what_is_over_cannot_be_taken_back(shop: Shop, first: Job) -> None:
    shop.dispatcher.check(first.id, CODE)
    with pytest.raises(IllegalMove, match="its verification is approved"):
        shop.dispatcher.cancel(first.id)


def test_a_code_of_which_nobody_knows_whether_it_was_sent_can_be_taken_back(shop: Shop) -> None:
    job = shop.dispatcher.verify(NUMBER)
    hashed = shop.bench.settings.hashed("code", job.id, CODE)
    shop.bench.advance(job.id, shop.bench.claim(job.id), "unknown", fields={"i": 1, "vh": hashed})
    assert shop.dispatcher.cancel(job.id).state == "unknown"
    assert shop.dispatcher.check(job.id, CODE) == Check(valid=False, status="cancelled")


# -- the providers that judge ------------------------------------------------------------------------------------------


class Judge:
    """A worker and a provider that judges codes itself: what it says comes when the client looks."""

    def __init__(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shop = shop
        #: What is said of each check, in order: (valid, status), or None where no answer comes in time.
        self.says: list[tuple[bool, str] | None] = []
        self.asked = 0
        shop.serve("textgoto", *test_client.ALL, "verify.check")
        self.job = shop.dispatcher.verify(NUMBER)
        shop.sent(self.job.id, code_ttl=300, m="ref")
        monkeypatch.setattr(shop.dispatcher, "_waiting", self.waiting)

    def waiting(self, id_: str, **options: Any) -> Steps[Job]:
        yield from ()
        self.asked += 1
        said = self.says.pop(0)
        if said is None:
            raise WaitTimeout(id_, "sending", "settled", 5)
        self.answer(id_, said)
        return self.shop.dispatcher.get(id_)

    def answer(self, id_: str, said: tuple[bool, str]) -> None:
        """Let the worker write the job of a check."""
        settings = self.shop.bench.settings
        _, request = stored(id_, self.shop.bench.redis.hgetall(f"d:j:{id_}"), settings.sealer())
        result = settings.sealer().seal(f'{{"valid":{str(said[0]).lower()},"status":"{said[1]}"}}'.encode(), id_)
        self.shop.bench.advance(id_, self.shop.bench.claim(id_), "completed", fields={"r": result})
        outcome = Checked(verification=self.job.id, valid=said[0], status=said[1])
        self.shop.bench.run(verdict(settings, self.shop.bench.calls, request, outcome))


@pytest.fixture
def judge(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Judge:
    return Judge(shop, monkeypatch)


def test_a_provider_that_judges_is_the_same_to_the_caller(judge: Judge) -> None:
    d, id_ = judge.shop.dispatcher, judge.job.id
    judge.says = [*[(False, "pending")] * 4, (True, "approved")]
    assert [d.check(id_, f"{n}") for n in range(4)] == [Check(valid=False, status="pending")] * 4
    assert d.check(id_, CODE) == Check(valid=True, status="approved")
    assert d.check(id_, CODE) == Check(valid=False, status="approved"), "one success"
    assert judge.asked == 5


def test_the_fifth_wrong_code_is_the_last_that_it_is_asked_about(judge: Judge) -> None:
    d, id_ = judge.shop.dispatcher, judge.job.id
    judge.says = [(False, "pending")] * 5
    told = [d.check(id_, f"{n}").status for n in range(7)]
    assert told == ["pending"] * 4 + ["max_attempts_reached"] * 3
    assert judge.asked == 5


@pytest.mark.parametrize("end", ["cancelled", "expired"])
def test_it_is_not_asked_about_what_is_over_here(judge: Judge, end: str) -> None:
    if end == "cancelled":
        judge.shop.dispatcher.cancel(judge.job.id)
    else:
        judge.shop.clock.advance(301)
    assert judge.shop.dispatcher.check(judge.job.id, CODE) == Check(valid=False, status=end)
    assert judge.asked == 0


def test_a_success_that_was_lost_is_told_to_who_types_the_same_again(judge: Judge) -> None:
    """The provider took the code; its answer never came; it answers "already verified" from then on."""
    d, id_ = judge.shop.dispatcher, judge.job.id
    judge.says = [None, (False, "approved"), (False, "approved")]
    with pytest.raises(WaitTimeout):
        d.check(id_, CODE)
    assert d.check(id_, "999999") == Check(valid=False, status="pending"), "that is nobody's who has not typed it"
    assert d.check(id_, CODE) == Check(valid=True, status="approved")
    assert d.check(id_, CODE) == Check(valid=False, status="approved")


def test_where_two_codes_are_in_doubt_a_wrong_one_is_not_taken_for_the_right_one(judge: Judge) -> None:
    """Both were typed while no answer came, and one of them was taken: another code is sent then."""
    d, id_ = judge.shop.dispatcher, judge.job.id
    judge.says = [None, None, (False, "approved"), (False, "approved")]
    for code in ("999999", CODE):
        with pytest.raises(WaitTimeout):
            d.check(id_, code)
    assert [d.check(id_, code).valid for code in ("999999", CODE)] == [False, False]
    judge.shop.clock.advance(31)
    assert d.resend(id_).resend_of == id_


# -- what a check costs ------------------------------------------------------------------------------------------------


def test_wrong_expired_used_and_unknown_cost_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One round trip and one hash each: how long an answer takes tells nothing."""
    d = shop.dispatcher
    ids = {name: shop.verified(CODE).id for name in ("wrong", "used", "tried too often", "expired")}
    d.check(ids["used"], CODE)
    for _ in range(5):
        d.check(ids["tried too often"], "x")
    late = shop.dispatcher.verify(NUMBER[:-2] + "99", code_ttl=1).id
    shop.sent(late, code_ttl=1, vh="hash")
    ids["expired"] = late
    ids |= {"unknown": "gone", "a text": d.send(NUMBER, "Hello").id}
    shop.clock.advance(2)
    work: list[str] = []
    hashed, execute = type(d.settings).hashed, shop.bench.redis.execute_command

    def hashing(settings: Settings, *parts: str) -> str:
        work.append("hash")
        return hashed(settings, *parts)

    def executing(*words: Any, **more: Any) -> Any:
        work.append(words[0])
        return execute(*words, **more)

    monkeypatch.setattr(type(d.settings), "hashed", hashing)
    monkeypatch.setattr(shop.bench.redis, "execute_command", executing)
    cost = {}
    for name, id_ in ids.items():
        work.clear()
        try:
            assert not d.check(id_, "999999").valid
        except NotFound:
            assert name in {"unknown", "a text"}
        cost[name] = [*work]
    assert set(map(tuple, cost.values())) == {("hash", "EVALSHA")}


def test_nothing_of_the_code_or_the_number_is_in_an_error(shop: Shop, first: Job) -> None:
    shop.dispatcher.resend(first.id)
    with pytest.raises(ResendTooSoon) as refused:
        shop.dispatcher.resend(first.id)
    assert not leaks(repr(refused.value), NUMBER, CODE)
