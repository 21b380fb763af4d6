"""Which accounts a job may go to: rules as they are written, and what leaves an account out or puts it last."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pytest

from dispatcher import Dispatcher, IdempotencyConflict, InvalidRequest, Message, State, UnknownProvider, lookups
from dispatcher.accounts import KEY, Account
from dispatcher.errors import ConfigurationError, StoreUnavailable
from dispatcher.jobs import Category, Kind
from dispatcher.memory import LookupCalls
from dispatcher.outcomes import Failure, FailureKind
from dispatcher.routes import Facts, first, parse
from tests.unit.support import NUMBER, OTHER, TEXT, Bench, Clock, leaks, settings

AMERICAN = "+12125550100"


def facts(**told: Any) -> Facts:
    usual = {"kind": Kind.SEND, "category": Category.TRANSACTIONAL, "number": NUMBER, "sender": "", "text": TEXT}
    return Facts(**{**usual, **told})


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "told", "fits"),
    [
        pytest.param("", {}, True, id="none: everything"),
        pytest.param("category=otp", {"category": Category.OTP}, True, id="category"),
        pytest.param("category=otp", {}, False, id="another category"),
        pytest.param("category=otp,transactional", {}, True, id="one of several"),
        pytest.param("kind=verify", {"kind": Kind.VERIFY}, True, id="kind"),
        pytest.param("kind=lookup", {}, False, id="another kind"),
        pytest.param("country=GB", {}, True, id="country"),
        pytest.param("country=gb,ie", {}, True, id="country in small letters"),
        pytest.param("country=US", {}, False, id="another country"),
        pytest.param("country=US", {"number": AMERICAN}, True, id="of a shared calling code"),
        pytest.param("prefix=+4477", {}, True, id="prefix"),
        pytest.param("prefix=+4478,+1", {}, False, id="other prefixes"),
        pytest.param("sender=ACME", {"sender": "ACME"}, True, id="sender"),
        pytest.param("sender=ACME", {"sender": "Acme"}, False, id="a sender is as it is written"),
        pytest.param("sender=ACME", {}, False, id="no sender"),
        pytest.param("country=GB category=otp", {}, False, id="all must hold"),
        pytest.param("country=GB category=transactional kind=send prefix=+44", {}, True, id="all hold"),
    ],
)
def test_a_rule_fits_where_all_its_conditions_hold(conditions: str, told: dict[str, Any], fits: bool) -> None:
    (rule,) = parse([f"{conditions} -> textgoto"])
    assert rule.fits(facts(**told)) == fits


def test_the_first_rule_that_fits_decides() -> None:
    rules = parse(["category=otp -> a", "country=GB -> b", "-> c"])
    chosen = [first(rules, one) for one in (facts(category=Category.OTP), facts(), facts(number=AMERICAN))]
    assert [one.accounts for one in chosen if one] == [["a"], ["b"], ["c"]]
    assert first(rules[:1], facts()) is None


def test_steps_are_in_order_and_the_others_of_a_step_come_right_after_the_chosen_one() -> None:
    (rule,) = parse(["-> a | b*3, c"])
    # Of 4 in all, a has the first.
    assert rule.order(lambda: 0.0) == ["a", "b", "c"]
    assert rule.order(lambda: 0.24) == ["a", "b", "c"]
    assert rule.order(lambda: 0.25) == ["b", "a", "c"]
    assert rule.order(lambda: 0.999) == ["b", "a", "c"]


def test_what_is_chosen_by_weight_is_as_often_as_it_weighs() -> None:
    (rule,) = parse(["-> a | b*3 | c*6"])
    dice = random.Random(1)
    drawn = Counter(tuple(rule.order(dice.random)) for _ in range(10_000))
    firsts = Counter[str]()
    for order, count in drawn.items():
        firsts[order[0]] += count
        assert sorted(order) == ["a", "b", "c"]
    assert all(abs(firsts[name] / 10_000 - share) < 0.02 for name, share in (("a", 0.1), ("b", 0.3), ("c", 0.6)))


FAULTS = {
    "no arrow": ("category=otp textgoto", "it has no arrow; write CONDITIONS -> ACCOUNT"),
    "no target": ("category=otp ->", "it leads nowhere; name accounts after the arrow"),
    "an empty step": ("-> a,,b", "it leads nowhere"),
    "an empty alternative": ("-> a|", "it leads nowhere"),
    "an unknown condition": ("carrier=o2 -> a", "it knows no condition 'carrier'; there are kind, category, country"),
    "no condition at all": ("otp -> a", "it knows no condition 'otp'"),
    "an unknown category": ("category=codes -> a", "it asks for category 'codes'; write otp or transactional"),
    "an unknown kind": ("kind=operation -> a", "it asks for kind 'operation'; write send, verify or lookup"),
    "no country": ("country=UK -> a", "it asks for country 'UK'; write two letters of ISO 3166, such as GB"),
    "no prefix": ("prefix=4477 -> a", "it asks for prefix '4477'; write the first digits"),
    "nothing to ask for": ("sender= -> a", "it asks for sender ''"),
    "a condition twice": ("country=GB country=IE -> a", "it names a condition twice; separate its values by commas"),
    "a weight of nothing": ("-> a*0", "it gives a the weight '0'; write a whole number above 0"),
    "a weight that is no number": ("-> a*x", "it gives a the weight 'x'"),
    "no weight": ("-> a*", "it gives a the weight ''"),
    "no name": ("-> a b", "it leads to 'a b'; the name of an account has letters, digits, _ and -"),
    "an account twice": ("-> a|b, a", "it names a twice; no job goes to an account a second time"),
}


@pytest.mark.parametrize(("rule", "words"), FAULTS.values(), ids=FAULTS)
def test_a_rule_that_makes_no_sense_is_an_error_at_start_that_names_it(rule: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        settings(routes=f"-> textgoto; {rule}")
    told = str(refused.value)
    assert told.startswith(f"DISPATCHER_ROUTES has a rule that cannot be, number 2 ({rule!r}): ")
    assert words in told


@pytest.mark.parametrize(
    "written",
    [" category=otp -> a ; \n -> b;", ["category=otp -> a", "-> b"], ("category=otp->a", "->b")],
    ids=["environment", "toml", "narrow"],
)
def test_rules_are_a_list_or_separated_by_semicolons(written: Any) -> None:
    assert [rule.accounts for rule in settings(routes=written).routing] == [["a"], ["b"]]


def test_rules_that_are_no_words_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_ROUTES must be rules, each a text"):
        settings(routes=[1])


def test_facts_show_nothing_of_the_person() -> None:
    assert not leaks(repr(facts(sender="ACME")), NUMBER, TEXT, "ACME")


# -- where a job goes --------------------------------------------------------------------------------------------------


class Shop:
    """An application with several accounts."""

    def __init__(self, clock: Clock, **more: Any) -> None:
        self.bench = Bench(clock, **more)
        self.dispatcher = Dispatcher(self.bench.settings)
        self.dispatcher._store.redis = self.bench.redis
        self.published: list[tuple[str, list[str]]] = []

    def publish(self, app: object, queue: str, ids: Sequence[str]) -> None:
        if ids:
            self.published.append((queue, list(ids)))

    def serve(self, *names: str, operations: Sequence[str] = ("send", "verify", "lookup"), **capabilities: str) -> None:
        for name in names:
            account = Account(name=name, adapter=name, operations=[*operations], capabilities=capabilities)
            self.bench.redis.hset(KEY, name, msgspec.json.encode(account))

    def route(self, **told: Any) -> list[str]:
        """Where a text would go."""
        return self.dispatcher.send(NUMBER, **{"text": TEXT, **told}).route

    def later(self) -> None:
        """Forget what was read a few seconds ago."""
        self.dispatcher._accounts._until = 0.0
        self.dispatcher._accounts._ailing.clear()


@pytest.fixture
def shop(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    one = Shop(clock, routes="category=promotional -> cheap; country=US -> far, near; -> near, far, cheap")
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    one.serve("near", "far", "cheap")
    return one


def test_who_names_accounts_gets_them_in_order(shop: Shop) -> None:
    job = shop.dispatcher.send(NUMBER, TEXT, provider=["far", "near"])
    assert (job.provider, job.route) == ("far", ["far", "near"])
    assert shop.published == [("far", [job.id])]
    assert shop.dispatcher.get(job.id).route == ["far", "near"]
    assert shop.dispatcher.verify(NUMBER, provider=("near", "far")).route == ["near", "far"]
    assert shop.dispatcher.lookup(NUMBER, provider=["far", "near"]).route == ["far", "near"]
    assert shop.route(provider="cheap") == shop.route(provider=["cheap"]) == ["cheap"]


def test_who_names_none_goes_by_the_rules(shop: Shop) -> None:
    assert shop.route() == ["near", "far", "cheap"]
    assert shop.route(category="promotional") == ["cheap"]
    assert shop.dispatcher.send(AMERICAN, TEXT).route == ["far", "near"]


def test_without_a_rule_that_fits_it_is_as_without_rules(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, routes="category=otp -> near")
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("near")
    assert shop.route() == ["near"]
    shop.serve("far")
    shop.later()
    with pytest.raises(InvalidRequest, match="several accounts can do it: far, near"):
        shop.route()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ([], "must be the name of an account, or a list of them"),
        ({"near"}, "must be the name of an account"),
        (["near", 1], "must be the name of an account"),
        (["near", "near"], "names an account twice"),
    ],
    ids=["none", "no list", "no name", "twice"],
)
def test_what_is_no_list_of_accounts_is_refused(shop: Shop, named: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"provider.*: {words}"):
        shop.route(provider=named)


def test_an_operation_is_done_at_one_account(shop: Shop) -> None:
    shop.serve("near", "far", operations=("balance",))
    with pytest.raises(InvalidRequest, match="must be one account"):
        shop.dispatcher.operation(["near", "far"], "balance")  # type: ignore[arg-type]


def test_a_name_that_nobody_knows_is_refused_with_the_setting_that_has_it(shop: Shop) -> None:
    with pytest.raises(UnknownProvider, match="'nobody' is not known"):
        shop.route(provider=["near", "nobody"])
    shop.bench.redis.hdel(KEY, "far")
    shop.later()
    with pytest.raises(UnknownProvider, match=r"'far' of DISPATCHER_ROUTES \('-> near, far, cheap'\) is not known"):
        shop.route()


def test_what_an_account_cannot_take_it_is_not_asked_for(shop: Shop) -> None:
    shop.serve("near", max_characters="10")
    shop.serve("far", operations=["lookup"])
    assert shop.route() == ["cheap"]
    assert shop.route(text="short") == ["near", "cheap"]
    assert shop.dispatcher.lookup(NUMBER).route == ["near", "far", "cheap"]
    shop.serve("near", characters="shor")
    shop.later()
    assert shop.route(text="short") == ["cheap"]
    assert shop.route(text="horros") == ["near", "cheap"]


def test_a_code_counts_as_long_as_it_will_be(shop: Shop) -> None:
    shop.serve("near", max_characters="12")
    assert shop.dispatcher.verify(NUMBER, template="Code: [CODE]").route == ["near", "far", "cheap"]
    assert shop.dispatcher.verify(NUMBER, template="Codes: [CODE]").route == ["far", "cheap"]


def test_where_nobody_can_the_error_says_why_for_each(shop: Shop) -> None:
    shop.serve("near", max_characters="10")
    shop.serve("far", operations=["lookup"])
    shop.serve("cheap", characters="xyz")
    with pytest.raises(InvalidRequest) as refused:
        shop.route()
    assert str(refused.value) == (
        "provider: has no account that could do this send: near takes 10 characters, and there are 19; far does not "
        "offer send; cheap does not take every character of this text"
    )
    assert shop.bench.members("d:i:near:queued") == set()


def test_who_names_one_account_is_believed(shop: Shop) -> None:
    """Its worker says what is wrong: it knows the vendor's rules to the letter."""
    shop.serve("near", max_characters="10")
    assert shop.route(provider="near") == ["near"]


# -- who is better left alone ------------------------------------------------------------------------------------------


def suspend(shop: Shop, account: str, scope: str, *operations: str) -> None:
    failure = Failure(kind=FailureKind.UNAUTHORIZED, code="X", message="no")
    shop.bench.run(shop.bench.calls.suspend(account, scope, failure, operations))


@pytest.mark.parametrize(
    ("scope", "operations", "order"),
    [
        ("account", (), ["far", "cheap", "near"]),
        ("funds", ("send", "verify"), ["far", "cheap", "near"]),
        ("operation:send", ("send",), ["far", "cheap", "near"]),
        ("operation:lookup", ("lookup",), ["near", "far", "cheap"]),
        ("funds", ("lookup",), ["near", "far", "cheap"]),
    ],
    ids=["account", "funds", "operation", "another operation", "funds for another operation"],
)
def test_what_is_suspended_comes_last(shop: Shop, scope: str, operations: tuple[str, ...], order: list[str]) -> None:
    suspend(shop, "near", scope, *operations)
    assert shop.route() == order


def test_so_does_one_whose_breaker_is_open_until_it_is_time_to_try_it(shop: Shop) -> None:
    until = shop.bench.clock.ms + 5000
    shop.bench.redis.hset("d:lm:near", mapping={"bs": "open", "bu": until * 1000})
    assert shop.route() == ["far", "cheap", "near"]
    shop.bench.clock.advance(5)
    shop.later()
    assert shop.route() == ["near", "far", "cheap"]


def test_where_all_are_in_trouble_they_stay_in_order(shop: Shop) -> None:
    for name in ("near", "far", "cheap"):
        suspend(shop, name, "account")
    assert shop.route() == ["near", "far", "cheap"]


def test_that_is_read_every_few_seconds_and_never_fails_what_is_enqueued(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shop.route() == ["near", "far", "cheap"]
    suspend(shop, "near", "account")
    assert shop.route() == ["near", "far", "cheap"], "it was read a moment ago"
    shop.later()
    monkeypatch.setattr(shop.dispatcher._accounts, "_look", _away)
    assert shop.route() == ["near", "far", "cheap"]


def _away(*_: object) -> None:
    raise StoreUnavailable("away")


# -- the same request is the same job ----------------------------------------------------------------------------------


def test_an_idempotency_key_finds_its_job_whatever_is_chosen_the_second_time(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(clock, routes="-> near | far")
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("near", "far")
    chances = iter([0.0, 0.9])
    monkeypatch.setattr(shop.dispatcher._accounts, "_chance", lambda: next(chances))
    one = shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k")
    assert one.provider == "near"
    assert shop.dispatcher.send(NUMBER, TEXT, idempotency_key="k").id == one.id
    listed = shop.dispatcher.send(NUMBER, TEXT, provider=["near", "far"], idempotency_key="l")
    suspend(shop, "near", "account")
    shop.later()
    assert shop.dispatcher.send(NUMBER, TEXT, provider=["near", "far"], idempotency_key="l").id == listed.id
    with pytest.raises(IdempotencyConflict):
        shop.dispatcher.send(NUMBER, TEXT, provider=["far", "near"], idempotency_key="l")


def test_options_by_account_do_not_change_with_the_choice_either(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(clock, routes="-> near | far")
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)
    shop.serve("near", "far")
    chances = iter([0.0, 0.9])
    monkeypatch.setattr(shop.dispatcher._accounts, "_chance", lambda: next(chances))
    options = {"near": {"time": "1"}, "far": {}}
    one = shop.dispatcher.send(NUMBER, TEXT, options=options, idempotency_key="k")
    assert shop.dispatcher.send(NUMBER, TEXT, options=options, idempotency_key="k").id == one.id


# -- many --------------------------------------------------------------------------------------------------------------


def test_messages_of_one_batch_go_each_its_own_way(shop: Shop) -> None:
    messages = [Message(NUMBER, "Hi Ann"), Message(AMERICAN, "Hi Bob"), Message(OTHER, "Hi Cy")]
    batch = shop.dispatcher.send_many(messages, batch_id="spring")
    jobs = [shop.dispatcher.get(id_, reveal=True) for id_ in batch.jobs.ids]
    assert [(job.provider, job.text) for job in jobs] == [("near", "Hi Ann"), ("far", "Hi Bob"), ("near", "Hi Cy")]
    assert batch.counts == {"queued": 3}
    assert not shop.dispatcher.batch_state("spring").open
    assert sorted(shop.published) == [("far", [jobs[1].id]), ("near", [jobs[0].id, jobs[2].id])]


def test_a_conflict_in_a_batch_of_several_accounts_names_the_message(shop: Shop) -> None:
    shop.dispatcher.send(AMERICAN, "Another", idempotency_key="k")
    messages = [Message(NUMBER, "Hi Ann"), Message(OTHER, "Hi Cy"), Message(AMERICAN, "Hi Bob", idempotency_key="k")]
    with pytest.raises(IdempotencyConflict, match=r"messages\[2\]"):
        shop.dispatcher.send_many(messages)


def test_a_message_that_no_account_takes_is_named_and_none_is_stored(shop: Shop) -> None:
    shop.serve("near", "far", "cheap", max_characters="10")
    with pytest.raises(InvalidRequest, match=r"messages\[1\].*no account that could do this send"):
        shop.dispatcher.send_many([Message(NUMBER, "Hi Ann"), Message(NUMBER, TEXT)])
    assert shop.dispatcher.jobs() == []


# -- failover_after ----------------------------------------------------------------------------------------------------


def test_failover_after_needs_another_account_and_receipts(shop: Shop) -> None:
    with pytest.raises(InvalidRequest, match=r"failover_after.*: needs an account to go on to; name several"):
        shop.route(provider="near", failover_after=60)
    shop.serve("near", receipts="none")
    shop.later()
    with pytest.raises(InvalidRequest, match="near tells no receipts, and each text would be sent twice; name it last"):
        shop.route(provider=["near", "far"], failover_after=60)
    assert shop.route(provider=["far", "near"], failover_after=60) == ["far", "near"]
    assert shop.route(failover_after=60) == ["near", "far", "cheap"], "of a rule those are watched that tell"


@pytest.mark.parametrize("seconds", [0, -1, True, "60", 86401], ids=repr)
def test_failover_after_is_seconds(shop: Shop, seconds: Any) -> None:
    with pytest.raises(InvalidRequest, match="failover_after"):
        shop.route(provider=["near", "far"], failover_after=seconds)


def test_it_is_part_of_what_a_key_stands_for(shop: Shop) -> None:
    shop.route(provider=["near", "far"], idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        shop.route(provider=["near", "far"], idempotency_key="k", failover_after=60)


def test_every_way_of_asking_for_it_keeps_it_with_the_job(shop: Shop) -> None:
    one = shop.dispatcher.verify(NUMBER, provider=["near", "far"], failover_after=60)
    batch = shop.dispatcher.send_many([Message(NUMBER, TEXT)], provider=["near", "far"], failover_after=90)
    kept = [msgspec.json.decode(shop.bench.redis.hget(f"d:j:{id_}", "d")) for id_ in (one.id, *batch.jobs.ids)]
    assert [(told["failover_after"], told["route"]) for told in kept] == [(60, ["near", "far"]), (90, ["near", "far"])]
    assert shop.dispatcher.get(one.id).state == State.QUEUED


# -- by the kind of line -----------------------------------------------------------------------------------------------

#: Of London, kept for fiction.
LANDLINE = "+442079460123"
NO_LANDLINES = "kind=send line_type=fixed_line,toll_free -> refuse; -> near"


def remembered(shop: Shop, number: str, line_type: str, account: str = "near") -> None:
    """Let a lookup have found what kind of line a number has."""
    at = shop.bench.clock.ms
    found = lookups.result(number, lookups.Facts(line_type=line_type), {}, account, at)
    calls = LookupCalls(shop.bench.settings)
    assert shop.bench.run(calls.remember("0001", calls.hashed(number), at, found)) == 1


@pytest.fixture
def lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Shop:
    one = Shop(clock, routes=NO_LANDLINES)
    monkeypatch.setattr("dispatcher.client.publish", one.publish)
    one.serve("near")
    return one


def test_a_rule_refuses_by_the_kind_of_line(lines: Shop) -> None:
    d = lines.dispatcher
    with pytest.raises(InvalidRequest, match=r"^to: is refused by DISPATCHER_ROUTES \('kind=send line_type=") as raised:
        d.send(LANDLINE, TEXT)
    assert LANDLINE not in str(raised.value)
    assert (d.send(AMERICAN, TEXT).provider, d.send(NUMBER, TEXT).provider) == ("near", "near")
    # Another kind of job, and an account that is named, are none of that rule's business.
    assert (d.lookup(LANDLINE).provider, d.send(LANDLINE, TEXT, provider="near").provider) == ("near", "near")


def test_of_many_the_one_that_is_refused_is_named_and_nothing_stored(lines: Shop) -> None:
    messages = [Message(one, TEXT) for one in (AMERICAN, NUMBER, AMERICAN, LANDLINE)]
    with pytest.raises(InvalidRequest, match=r"^messages\[3\]\.to: is refused"):
        lines.dispatcher.send_many(iter(messages))
    assert lines.published == []
    assert lines.dispatcher.send_many(iter(messages[:3])).counts == {"queued": 3}


def test_what_a_lookup_told_wins_over_the_number(lines: Shop) -> None:
    remembered(lines, AMERICAN, "toll_free")
    remembered(lines, LANDLINE, "voip")
    assert lines.dispatcher.send(LANDLINE, TEXT).provider == "near"
    with pytest.raises(InvalidRequest):
        lines.dispatcher.send(AMERICAN, TEXT)
    with pytest.raises(InvalidRequest, match=r"messages\[1\]"):
        lines.dispatcher.send_many([Message(LANDLINE, TEXT), Message("+1 212 555 0100", TEXT)])
    assert lines.dispatcher.line_types([LANDLINE, NUMBER]) == {LANDLINE: "voip"}


@pytest.mark.parametrize(
    ("told", "refused"),
    [
        pytest.param([("near", "voip", 0), ("far", "toll_free", 1)], True, id="the latest"),
        pytest.param([("near", "toll_free", 0), ("far", "voip", 1)], False, id="the latest, too"),
        pytest.param([("near", "voip", 0), ("far", "unknown", 1)], False, id="of those that know"),
    ],
)
def test_of_several_answers_one_counts(lines: Shop, told: list[tuple[str, str, int]], refused: bool) -> None:
    for account, line_type, seconds in told:
        lines.bench.clock.advance(seconds)
        remembered(lines, LANDLINE, line_type, account)
    if refused:
        with pytest.raises(InvalidRequest):
            lines.dispatcher.send(LANDLINE, TEXT)
    else:
        assert lines.dispatcher.send(LANDLINE, TEXT).provider == "near"


@pytest.mark.parametrize(
    ("rules", "asked"),
    [
        pytest.param("line_type=fixed_line -> refuse; -> near", True, id="it decides"),
        pytest.param("country=US line_type=fixed_line -> refuse; -> near", False, id="of another country"),
        pytest.param("kind=send -> near; line_type=fixed_line -> refuse", False, id="a rule before it decides"),
        pytest.param("-> near", False, id="no rule asks"),
    ],
)
def test_the_memory_is_read_only_where_the_line_decides(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    rules: str,
    asked: bool,
) -> None:
    shop, read = Shop(clock, routes=rules), list[str]()
    monkeypatch.setattr("dispatcher.client.publish", shop.publish)

    def noted(_store: object, _settings: object, numbers: Iterable[str]) -> dict[str, str]:
        read.extend(numbers)
        return {}

    monkeypatch.setattr("dispatcher.accounts.memory.line_types", noted)
    shop.serve("near")
    shop.dispatcher.send(NUMBER, TEXT)
    assert read == ([NUMBER] if asked else [])


@pytest.mark.parametrize(
    ("rule", "why"),
    {
        "a line that is none": ("line_type=landline -> a", "asks for line_type 'landline'; write one of mobile"),
        "refused and led": ("-> refuse, near", "refuses, and leads to accounts as well; write -> refuse alone"),
        "refused with a weight": ("-> near | refuse*3", "refuses, and leads to accounts as well"),
    }.values(),
)
def test_a_rule_about_lines_that_cannot_be(rule: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse([rule])
