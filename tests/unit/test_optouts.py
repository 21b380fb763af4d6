"""Who wants no more texts: the words, the list, and that nobody on it is texted by whatever was enqueued."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher import ConfigurationError, Dispatcher, InvalidRequest, Message, UnknownProvider
from dispatcher.calls import Claim
from dispatcher.cli import main
from dispatcher.optouts import By, OptOuts, Said, Text
from tests.unit import test_cli, test_client
from tests.unit.support import HASH_KEY, NUMBER, OTHER, SECRET_KEY, TEXT, Bench, leaks, settings
from tests.unit.test_cli import Run
from tests.unit.test_client import Shop

shop = test_client.shop
run, away, memory = test_cli.run, test_cli.away, test_cli.memory

SHORT_CODE = "60777"


@pytest.fixture
def optouts(bench: Bench) -> OptOuts:
    return OptOuts(bench.settings)


def said(text: str, sender: str = NUMBER, *, at: str = "", received: int = 1, optouts: OptOuts) -> Text:
    verdict = optouts.verdict(text)
    return Text(provider="ringer", sender=sender, to=SHORT_CODE, text=text, at=at, received=received, verdict=verdict)


# -- the words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("STOP", "out", id="as it is printed"),
        pytest.param("stop", "out", id="in small letters"),
        pytest.param("  Stop. \n", "out", id="with a blank and a full stop"),
        pytest.param("“Stop!!!”", "out", id="with quotes and bangs"),
        pytest.param("STOPALL", "out", id="another word"),
        pytest.param("revoke", "out", id="the last word"),
        pytest.param("Please stop", "", id="in a sentence"),
        pytest.param("STOP it", "", id="with another word"),
        pytest.param("nonstop", "", id="within a word"),
        pytest.param("START", "in", id="again"),
        pytest.param("yes", "in", id="yes"),
        pytest.param("", "", id="nothing"),
        pytest.param("...", "", id="no word"),
        pytest.param("Opt  out", "out", id="two words that are one"),
        pytest.param("Help?", "help", id="help"),
        pytest.param("Stop" * 41, "", id="longer than any word"),
        pytest.param("ＳＴＯＰ", "", id="letters that look alike"),
    ],
)  # fmt: skip
def test_a_message_that_is_one_of_the_words_is_meant(optouts: OptOuts, text: str, verdict: str) -> None:
    assert optouts.verdict(text) == verdict


def test_the_words_are_settings() -> None:
    """One that stands in both lists stops: who is in doubt is left alone."""
    mine = OptOuts(settings(stop_words="ARRET, non ,both", start_words="both,OUI"))
    words = ("arret", "Non!", "STOP", "oui", "both")
    assert [mine.verdict(word) for word in words] == ["out", "out", "", "in", "out"]


# -- the list ----------------------------------------------------------------------------------------------------------


class TestList:
    def test_a_number_is_on_it_until_it_is_taken_off(self, shop: Shop) -> None:
        d = shop.dispatcher
        assert d.opted_out(NUMBER) is None
        assert d.opt_out("+44 7700 900123") is True
        assert d.opt_out(NUMBER) is False, "it was on it"
        assert d.opted_out(NUMBER) is not None
        assert d.opted_out(OTHER) is None
        assert d.opt_in(NUMBER) is True
        assert d.opt_in(NUMBER) is False
        assert d.opted_out(NUMBER) is None

    def test_it_holds_no_number_and_stays(self, shop: Shop) -> None:
        shop.dispatcher.opt_out(NUMBER)
        assert leaks(str(shop.bench.dump()), NUMBER) == []
        assert shop.bench.ttl("d:no") is None

    @pytest.mark.parametrize("verb", ["opt_out", "opt_in", "opted_out"])
    def test_a_number_must_be_one(self, shop: Shop, verb: str) -> None:
        with pytest.raises(InvalidRequest, match="number"):
            getattr(shop.dispatcher, verb)("12")

    @pytest.mark.parametrize("verb", ["opt_out", "opt_in", "opted_out"])
    def test_it_needs_the_key_that_hashes(self, verb: str) -> None:
        with Dispatcher(settings(hash_key="")) as d, pytest.raises(ConfigurationError, match="DISPATCHER_HASH_KEY"):
            getattr(d, verb)(NUMBER)

    def test_each_change_is_an_event(self, shop: Shop) -> None:
        d = shop.dispatcher
        for verb in (d.opt_out, d.opt_out, d.opt_in, d.opt_in):
            verb(NUMBER)
        told = [(event.type, event.data["number"], event.data["by"]) for event in d.events("0", timeout=0)]
        assert told == [
            ("optout.added", "+44********23", "application"),
            ("optout.removed", "+44********23", "application"),
        ]
        shown = [event.data["number"] for event in d.events("0", timeout=0, reveal=True)]
        assert shown == [NUMBER, NUMBER]
        assert leaks(str(shop.bench.redis.xrange("d:e")), NUMBER) == []

    def test_an_event_of_another_secret_key_shows_no_more_than_its_id(self, shop: Shop) -> None:
        shop.dispatcher.opt_out(NUMBER)
        with Dispatcher(settings(secret_key="another", hash_key=HASH_KEY)) as other:
            other._store.redis = shop.bench.redis
            (event,) = other.events("0", timeout=0, reveal=True)
        assert event.data.keys() == {"id"}


class TestOrder:
    """What a person said last counts, in whatever order it is read."""

    def put(self, bench: Bench, optouts: OptOuts, text: str, received: int) -> bool:
        call = optouts.said(said(text, at=str(received), received=received, optouts=optouts), f"ref-{received}")
        return bench.run(call).changed

    def listed(self, bench: Bench) -> bool:
        return bool(bench.redis.hexists("d:no", bench.settings.hashed("number", NUMBER)))

    @pytest.mark.parametrize(
        ("words", "out"),
        [
            pytest.param([("STOP", 1), ("START", 2)], False, id="stop, start"),
            pytest.param([("START", 2), ("STOP", 1)], False, id="the same, read the other way round"),
            pytest.param([("START", 1), ("STOP", 2)], True, id="start, stop"),
            pytest.param([("STOP", 2), ("START", 1)], True, id="the same, read the other way round "),
            pytest.param([("STOP", 1), ("STOP", 3), ("START", 2)], True, id="a start between two stops, read last"),
            pytest.param([("START", 3), ("START", 1), ("STOP", 2)], False, id="a stop between two starts, read last"),
        ],
    )
    def test_the_last_word_counts(
        self, bench: Bench, optouts: OptOuts, words: list[tuple[str, int]], out: bool
    ) -> None:
        for word, received in words:
            self.put(bench, optouts, word, received)
        assert self.listed(bench) is out

    def test_what_is_told_again_changes_nothing(self, bench: Bench, optouts: OptOuts) -> None:
        """By its id a STOP that was told before is known again, though they wanted texts since."""
        stop = optouts.said(said("STOP", optouts=optouts), "ref-1")
        assert bench.run(stop) == Said(fresh=True, changed=True, owed=False)
        self.put(bench, optouts, "START", 5)
        assert bench.run(stop) == Said(fresh=False, changed=False, owed=False)
        assert not self.listed(bench)

    def test_without_an_id_a_stop_that_looks_like_the_first_counts(self, bench: Bench, optouts: OptOuts) -> None:
        """It may be another one, and then they are left alone; that it is told as a text once is enough."""
        first, second = (optouts.said(said("STOP", received=ms, optouts=optouts), "") for ms in (1, 9))
        assert bench.run(first).changed
        self.put(bench, optouts, "START", 5)
        assert bench.run(second) == Said(fresh=False, changed=True, owed=False)
        assert self.listed(bench)
        assert [kind for kind, _ in bench.events()].count("inbound.text") == 2

    def test_a_short_code_can_say_what_it_likes(self, bench: Bench, optouts: OptOuts) -> None:
        assert not bench.run(optouts.said(said("STOP", SHORT_CODE, optouts=optouts), "")).changed
        assert not bench.redis.exists("d:no")

    def test_that_they_want_texts_is_not_remembered_for_ever(self, bench: Bench, optouts: OptOuts) -> None:
        self.put(bench, optouts, "START", 1)
        assert bench.ttl(f"d:ni:{bench.settings.hashed('number', NUMBER)}") == bench.settings.events_retention


# -- texts to them -----------------------------------------------------------------------------------------------------


OPTED_OUT = {"kind": "opted_out", "code": "list", "message": "opted_out: they asked for no more texts"}


class TestEnqueuing:
    @pytest.mark.parametrize(
        "enqueue",
        [
            pytest.param(lambda d: d.send(NUMBER, TEXT), id="send"),
            pytest.param(lambda d: d.send(NUMBER, TEXT, send_at=1_800_000_000 + 3600, lane="high"), id="a later send"),
            pytest.param(lambda d: d.verify(NUMBER), id="verify"),
        ],
    )
    def test_a_text_to_them_fails_at_once(self, shop: Shop, enqueue: Any) -> None:
        d, bench = shop.dispatcher, shop.bench
        d.opt_out(NUMBER)
        job = enqueue(d)
        assert (job.state, job.attempts) == ("failed", 0)
        assert bench.failure(job.id) == OPTED_OUT
        assert job.failure.kind == "opted_out"
        assert job == d.get(job.id)
        assert shop.published == [], "nothing is published"
        assert bench.events()[-1] == ("job.failed", job.id)
        waits = [f"d:{one}:{queue}" for one in "ow" for queue in ("textgoto", "textgoto.high")]
        assert {member for key in [*waits, "d:x"] for member in bench.members(key)} == set()

    def test_what_is_no_text_goes_on(self, shop: Shop) -> None:
        d = shop.dispatcher
        d.opt_out(NUMBER)
        assert d.lookup(NUMBER).state == "queued"
        assert d.operation("textgoto", "balance", number=NUMBER).state == "queued"

    def test_the_others_of_a_batch_go_on(self, shop: Shop) -> None:
        d = shop.dispatcher
        d.opt_out(NUMBER)
        batch = d.send_many([Message(one, TEXT) for one in (OTHER, NUMBER, OTHER, NUMBER)], batch_id="b")
        assert batch.counts == {"queued": 2, "failed": 2}
        assert shop.published == [("textgoto", [batch.jobs.ids[0], batch.jobs.ids[2]])]
        assert not d.batch("b").settled

    def test_a_batch_of_them_alone_settles_once(self, shop: Shop) -> None:
        d = shop.dispatcher
        d.opt_out(NUMBER)
        d.send_many([Message(NUMBER, TEXT)] * 3, batch_id="b")
        assert d.batch("b").settled
        types = [event.type for event in d.events("0", timeout=0)]
        assert types == ["optout.added", *["job.failed"] * 3, "batch.settled"]

    def test_an_idempotency_key_finds_what_failed(self, shop: Shop) -> None:
        d = shop.dispatcher
        d.opt_out(NUMBER)
        first = d.send(NUMBER, TEXT, idempotency_key="k")
        d.opt_in(NUMBER)
        assert d.send(NUMBER, TEXT, idempotency_key="k").id == first.id
        assert shop.bench.ttl(f"d:k:{shop.bench.settings.keyed('idempotency', '', 'k')}") is not None

    def test_once_they_want_texts_again_they_get_them(self, shop: Shop) -> None:
        d = shop.dispatcher
        d.opt_out(NUMBER)
        d.opt_in(NUMBER)
        assert d.send(NUMBER, TEXT).state == "queued"

    def test_a_call_whose_answer_was_lost_is_repeated(self, bench: Bench) -> None:
        hashed = bench.settings.hashed("number", NUMBER)
        bench.redis.hset("d:no", hashed, "1 text")
        for _ in range(2):
            made = bench.create("0001", number=hashed, texts=True)
            assert (made.ids, made.refused) == (["0001"], ["0001"])
        assert bench.story("0001") == ["queued: created", "failed: opted_out: they asked for no more texts"]


class TestClaim:
    def claim(self, bench: Bench, *ids: str) -> list[str | None]:
        token, hashed = bench.hold(*ids), bench.settings.hashed("number", NUMBER)
        claims = [Claim(token, one, "never", hashed if one == ids[0] else "") for one in ids]
        return bench.run(bench.calls.claim(claims))

    def test_what_was_enqueued_before_they_said_stop_is_not_sent(self, shop: Shop) -> None:
        d, bench = shop.dispatcher, shop.bench
        to_them, other = d.send(NUMBER, TEXT).id, d.send(OTHER, TEXT).id
        d.opt_out(NUMBER)
        assert self.claim(bench, to_them, other) == ["failed", None]
        assert bench.failure(to_them) == OPTED_OUT
        assert bench.state(other) == "sending"

    def test_one_that_an_earlier_try_may_have_reached_stays_unknown(self, shop: Shop) -> None:
        d, bench = shop.dispatcher, shop.bench
        id_ = d.send(NUMBER, TEXT).id
        bench.advance(id_, bench.claim(id_), "queued", wait="retry", fields={"i": 1})
        d.opt_out(NUMBER)
        bench.due()
        assert self.claim(bench, id_) == ["unknown"]


class TestOperation:
    @pytest.mark.parametrize(
        "arguments",
        [
            pytest.param({"number": NUMBER}, id="one number"),
            pytest.param({"numbers": f"{NUMBER}, {OTHER}"}, id="several, separated by commas"),
            pytest.param({"numbers": [NUMBER]}, id="several, as a list"),
            pytest.param({"number": NUMBER, "numbers": "12,,x"}, id="some that are none"),
        ],
    )
    def test_who_a_provider_is_told_of_is_on_our_list_too(self, shop: Shop, arguments: dict[str, Any]) -> None:
        shop.dispatcher.operation("textgoto", "optout.add", arguments=arguments)
        assert shop.dispatcher.opted_out(NUMBER)
        (event, *_) = shop.dispatcher.events("0", timeout=0)
        assert (event.data["by"], event.data["provider"]) == ("operation", "textgoto")

    def test_without_a_list_the_provider_is_told_alone(self, shop: Shop) -> None:
        with Dispatcher(settings(hash_key="", secret_key=SECRET_KEY, providers={"textgoto": {"uid": "x"}})) as d:
            d._store.redis = shop.bench.redis
            d.operation("textgoto", "optout.add", number=NUMBER)
        assert not shop.bench.redis.exists("d:no")

    def test_nobody_is_put_on_it_for_an_account_that_there_is_not(self, shop: Shop) -> None:
        with pytest.raises(UnknownProvider):
            shop.dispatcher.operation("nobody", "optout.add", number=NUMBER)
        assert shop.dispatcher.opted_out(NUMBER) is None


def test_nothing_of_the_person_is_in_a_repr(optouts: OptOuts) -> None:
    text = said("canary", optouts=optouts)
    call = optouts.put(NUMBER, By.TEXT, out=True)
    assert leaks(repr([text, call, optouts]), NUMBER, "canary") == []


# -- the command line --------------------------------------------------------------------------------------------------


class TestCommands:
    def test_a_number_goes_onto_the_list_and_off_it(self, memory: Bench, run: Run) -> None:
        words = [
            ("check", 0, "is not on the list"),
            ("add", 0, "is on the list"),
            ("add", 0, "was on the list already"),
            ("check", 1, "is on the list since 2027-01-15 08:00:00 UTC"),
            ("remove", 0, "is off the list"),
            ("remove", 0, "was not on the list"),
        ]
        for verb, code, told in words:
            ended = run("optouts", verb, NUMBER)
            assert (ended.code, ended.out) == (code, f"+44********23 {told}\n")

    def test_as_json(self, memory: Bench, run: Run) -> None:
        run("optouts", "add", NUMBER)
        (told,) = run("optouts", "check", NUMBER, "--json").documents
        since = {"since": "2027-01-15T08:00:00Z", "blocked_by": []}
        assert told == {"number": "+44********23", "opted_out": True} | since

    @pytest.mark.parametrize("reveal", [False, True])
    def test_what_people_said_is_shown_when_asked_for(
        self, memory: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reveal: bool
    ) -> None:
        optouts = OptOuts(memory.settings)
        memory.run(optouts.said(said("Stop\nplease", optouts=optouts), "7"))
        monkeypatch.setattr("sys.argv", ["dispatcher", "events", *(["--reveal"] if reveal else [])])
        with pytest.raises(SystemExit):
            main()
        line = capsys.readouterr().out
        shown = f"{NUMBER} to 60777: Stop please" if reveal else "+44********23 to 60777: [11 characters]"
        assert line.strip().endswith(shown)
        assert "inbound.text" in line
