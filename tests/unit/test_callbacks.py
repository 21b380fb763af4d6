"""The road of a callback: kept, taken, read, taken in, forgotten; and every way off it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest
from kombu.exceptions import OperationalError

from dispatcher.callbacks import TRIES, CallbackCalls, Counted, counted
from dispatcher.calls import Call
from dispatcher.errors import StoreUnavailable
from dispatcher.events import EventStream
from tests.commands import in_process
from tests.ringer import Ringer
from tests.unit.support import NUMBER, OTHER, SECRET_KEY, AsyncOnSync, Bench, Clock, leaks
from workers.adapters import receipt_key
from workers.callbacks import Reader, decode, encode
from workers.clock import Clock as WorkersClock
from workers.providers.base import Callback

T = TypeVar("T")

DAY = 86400


class Flaky(AsyncOnSync):
    """A store that does not answer the calls of some scripts."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.away: set[str] = set()
        #: Away for one call of each.
        self.late: set[str] = set()

    async def run(self, call: Call[T]) -> T:
        if call.script.name in self.late:
            self.late.remove(call.script.name)
            raise StoreUnavailable("Redis is late")
        if call.script.name in self.away:
            raise StoreUnavailable("Redis is away")
        return await super().run(call)


class Desk:
    """Callbacks of one account as its worker reads them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.adapter = Ringer("ringer", {"uid": "x", "pwd": "x"})
        self.store = Flaky(bench.store)
        self.calls = CallbackCalls(bench.settings)
        self.published: list[tuple[str, list[str]]] = []
        self.reader = Reader(bench.settings, {"ringer": self.adapter}, self.store, self.publish)
        self.numbers = iter(range(10**6))

    async def publish(self, queue: str, ids: list[str]) -> None:
        self.published.append((queue, ids))

    def put(self, account: str = "ringer", **told: Any) -> str:
        """Keep a callback as the receiver does."""
        id_ = f"{next(self.numbers):026}"
        body = msgspec.json.encode({name.rstrip("_"): value for name, value in told.items()})
        sealed = self.bench.settings.sealer().seal(encode(Callback(method="POST", body=body)), id_)
        self.bench.run(self.calls.put(id_, account, sealed))
        return id_

    def read(self, *ids: str) -> str:
        return asyncio.run(self.reader.read(ids))

    def tell(self, **told: Any) -> str:
        """Keep and read one."""
        return self.read(self.put(**told))

    def receipt(self, state: str, number: str = NUMBER, **more: Any) -> str:
        return self.tell(kind="receipt", state=state, ref=f"ref-{number[-3:]}", number=number, **more)

    def text(self, text: str, sender: str = NUMBER, **more: Any) -> str:
        return self.tell(**{"kind": "text", "from_": sender, "to": "60777", "text": text, **more})

    def sent(self, id_: str, number: str = NUMBER) -> None:
        """Let a text be sent whose receipt is expected."""
        key = receipt_key(self.bench.settings, self.adapter, f"ref-{number[-3:]}", number)
        token = self.bench.started(id_, provider="ringer")
        fields = {"y": "expected", "m": f"ref-{number[-3:]}"}
        self.bench.advance(id_, token, "sent", receipt=key, look=300, fields=fields)

    def lost(self, *, empty: bool = False) -> list[str]:
        return self.bench.run(self.calls.lost("ringer", empty=empty))

    @property
    def counts(self) -> dict[str, int]:
        return self.counted.counts

    @property
    def counted(self) -> Counted:
        return counted(self.bench.store)[0].get("ringer", Counted())

    @property
    def aside(self) -> int:
        return counted(self.bench.store)[1]

    def texts(self, *, reveal: bool = True) -> list[dict[str, Any]]:
        stream = EventStream(self.bench.store, self.bench.settings.sealer(), lambda *_: {})
        return [
            event.data
            for event in stream.told(self.bench.redis.xrange("d:e"), reveal=reveal)
            if event.type == "inbound.text"
        ]


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


def test_a_callback_is_kept_whole() -> None:
    callback = Callback(method="GET", query="a=%20b", headers={"content-type": "x"}, body=b"\x00\xff")
    assert decode(encode(callback)) == callback


def test_what_is_kept_is_sealed(desk: Desk) -> None:
    id_ = desk.put(kind="text", from_=NUMBER, text="canary")
    assert leaks(str(desk.bench.dump()), NUMBER, "canary") == []
    assert desk.counted.waiting == 1
    assert desk.read(id_) == "inbound"
    assert leaks(str(desk.bench.dump()), NUMBER, "canary") == []
    assert desk.counted.waiting == 0
    assert not desk.bench.redis.keys("d:cb:*")


def test_a_message_that_comes_twice_finds_nothing(desk: Desk) -> None:
    id_ = desk.put(kind="text", from_=NUMBER, text="Hi")
    assert [desk.read(id_), desk.read(id_)] == ["inbound", "gone"]


# -- receipts ----------------------------------------------------------------------------------------------------------


class TestReceipts:
    def test_it_moves_its_job(self, desk: Desk) -> None:
        desk.sent("0001")
        assert desk.receipt("delivered") == "applied"
        assert desk.bench.state("0001") == "delivered"
        assert desk.bench.story("0001")[-1] == "delivered: receipt: delivered"

    def test_its_failure_is_the_jobs(self, desk: Desk) -> None:
        desk.sent("0001")
        desk.receipt("undelivered")
        assert desk.bench.state("0001") == "undelivered"
        assert (desk.bench.failure("0001") or {})["message"] == "the phone is off"

    def test_it_is_the_numbers_where_a_reference_is_shared(self, desk: Desk) -> None:
        desk.sent("0001")
        assert desk.tell(kind="receipt", state="delivered", ref="ref-123", number=OTHER) == "early"
        assert desk.bench.state("0001") == "sent"

    def test_it_is_found_by_our_own_id_too(self, desk: Desk) -> None:
        desk.bench.ended("0001", "sent", provider="ringer")
        assert desk.tell(kind="receipt", state="delivered", own="0001", ref="", number="") == "applied"
        assert desk.bench.state("0001") == "delivered"

    def test_another_accounts_job_is_none_of_its_business(self, desk: Desk) -> None:
        desk.bench.ended("0001", "sent", provider="textgoto")
        assert desk.tell(kind="receipt", state="delivered", own="0001", ref="", number="") == "late"
        assert desk.bench.state("0001") == "sent"

    @pytest.mark.parametrize("state", ["delivered", "undelivered", "sent", ""])
    def test_late_news_leads_nowhere(self, desk: Desk, state: str) -> None:
        desk.sent("0001")
        desk.receipt("delivered")
        assert desk.receipt(state) == "late"
        assert desk.bench.state("0001") == "delivered"

    def test_early_it_waits_for_the_sends_own_answer(self, desk: Desk) -> None:
        assert desk.receipt("delivered") == "early"
        desk.sent("0001")
        assert desk.bench.state("0001") == "delivered"

    def test_of_several_parts_all_must_arrive(self, desk: Desk) -> None:
        desk.sent("0001")
        desk.receipt("delivered", part=1, parts=2)
        assert desk.bench.state("0001") == "sent"
        assert desk.receipt("delivered", part=2, parts=2) == "applied"
        assert desk.bench.state("0001") == "delivered"

    def test_what_nobody_wants_is_counted_in_the_end(self, desk: Desk) -> None:
        desk.receipt("delivered", NUMBER)
        desk.receipt("delivered", OTHER)
        desk.sent("0001", OTHER)
        desk.bench.clock.advance(72 * 3600 + 1)
        assert desk.bench.run(desk.calls.sweep()) == ["ringer"]
        assert desk.counts == {"early": 2, "unmatched": 1}
        desk.bench.run(desk.calls.sweep())
        assert desk.counts["unmatched"] == 1
        assert not desk.bench.redis.exists("d:cu")


# -- texts and opt-outs ------------------------------------------------------------------------------------------------


class TestTexts:
    def test_it_becomes_an_event(self, desk: Desk) -> None:
        assert desk.text("Hello", at="Jun 9 2017 09:41 AM", ref="7") == "inbound"
        (shown,), (masked,) = desk.texts(), desk.texts(reveal=False)
        received = shown.pop("received_at")
        assert masked.pop("received_at") == received
        assert received.timestamp() == desk.bench.clock.time()
        told = {"provider": "ringer", "to": "60777", "at": "Jun 9 2017 09:41 AM", "opt_out": None, "id": shown["id"]}
        told |= {"help": False}
        assert shown == {**told, "from": NUMBER, "text": "Hello"}
        assert masked == {**told, "from": "+44********23", "text": "[5 characters]"}

    @pytest.mark.parametrize(
        ("other", "same"),
        [
            pytest.param({}, True, id="everything is the same"),
            pytest.param({"text": "Bye"}, False, id="another text"),
            pytest.param({"sender": OTHER}, False, id="another person"),
            pytest.param({"at": "10:01"}, False, id="another moment"),
            pytest.param({"ref": "8"}, False, id="one with an id"),
        ],
    )
    def test_without_an_id_the_whole_tells_one_from_another(
        self, desk: Desk, other: dict[str, str], same: bool
    ) -> None:
        first = {"text": "Hi", "at": "10:00"}
        desk.text(**first)
        assert desk.text(**first | other) == ("duplicates" if same else "inbound")

    def test_with_an_id_it_is_the_id(self, desk: Desk) -> None:
        assert [desk.text("Hi", ref="7"), desk.text("Hi, mended", ref="7"), desk.text("Hi", ref="8")] == [
            "inbound", "duplicates", "inbound",
        ]  # fmt: skip
        assert desk.counts == {"inbound": 2, "duplicates": 1}

    def test_it_is_remembered_as_long_as_events_are(self, desk: Desk) -> None:
        desk.text("Hi", ref="7")
        (mark,) = desk.bench.redis.keys("d:cd:*")
        assert desk.bench.ttl(mark.decode()) == 7 * DAY

    def test_stop_and_start(self, desk: Desk) -> None:
        hashed = desk.bench.settings.hashed("number", NUMBER)
        assert desk.text("Stop.", ref="1") == "1 inbound, 1 optouts"
        assert desk.bench.redis.hexists("d:no", hashed)
        desk.bench.clock.advance(1)
        assert desk.text("START", ref="2") == "1 inbound, 1 optouts"
        assert not desk.bench.redis.hexists("d:no", hashed)
        assert [one["opt_out"] for one in desk.texts()] == ["out", "in"]

    def test_the_moment_it_came_counts_not_the_one_it_is_read(self, desk: Desk) -> None:
        stop = desk.put(kind="text", from_=NUMBER, to="60777", text="STOP", ref="1")
        desk.bench.clock.advance(1)
        start = desk.put(kind="text", from_=NUMBER, to="60777", text="START", ref="2")
        desk.read(start)
        desk.read(stop)
        assert not desk.bench.redis.exists("d:no")

    def test_the_providers_own_word(self, desk: Desk) -> None:
        hashed = desk.bench.settings.hashed("number", NUMBER)
        assert desk.tell(kind="stop", number=NUMBER) == "optouts"
        assert desk.tell(kind="stop", number=NUMBER) == "duplicates"
        assert desk.bench.redis.hget("d:no", hashed).split()[1] == b"provider"
        desk.bench.clock.advance(1)
        assert desk.tell(kind="start", number=NUMBER) == "optouts"
        assert not desk.bench.redis.exists("d:no")

    def test_what_holds_nothing_is_counted(self, desk: Desk) -> None:
        assert desk.tell(kind="nothing") == "unread"
        assert desk.counts == {"unread": 1}


# -- off the road ------------------------------------------------------------------------------------------------------


class TestPoison:
    def fail(self, desk: Desk, id_: str) -> list[str]:
        """Let it be read, fail, be found by the clock, ..."""
        words = []
        for _ in range(TRIES):
            words.append(desk.read(id_))
            desk.bench.clock.advance(61)
            desk.lost(empty=True)
        return words

    def test_it_is_set_aside_and_not_read_for_ever(self, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
        id_ = desk.put(kind="poison", number=NUMBER)
        assert self.fail(desk, id_) == ["failed", "failed", "aside"]
        assert desk.lost(empty=True) == []
        assert desk.read(id_) == "gone"
        assert (desk.aside, desk.counts, desk.counted.waiting) == (1, {"aside": 1}, 0)
        assert leaks(caplog.text, NUMBER, "cannot be read at all") == []

    def test_nobody_else_waits_for_it(self, desk: Desk) -> None:
        poison = desk.put(kind="poison")
        good = desk.put(kind="text", from_=NUMBER, text="Hi")
        assert desk.read(poison, good) == "1 failed, 1 inbound"

    def test_one_that_kills_its_readers_is_set_aside_unread(self, desk: Desk) -> None:
        id_ = desk.put(kind="deadly")
        for _ in range(TRIES):
            desk.bench.run(desk.calls.take([id_]))
        assert desk.read(id_) == "aside"
        assert desk.aside == 1

    def test_once_its_adapter_is_mended_it_is_read(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        id_ = desk.put(kind="poison")
        self.fail(desk, id_)
        monkeypatch.setattr(desk.adapter, "read", lambda _: ())
        assert desk.bench.run(desk.calls.again()) == {"ringer": [id_]}
        assert desk.bench.ttl(f"d:cb:{id_}") is None
        assert desk.read(id_) == "unread"
        assert desk.bench.run(desk.calls.again()) == {}

    def test_what_the_broker_does_not_take_again_the_clock_finds(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OperationalError("connection refused")

        id_ = desk.put(kind="poison")
        self.fail(desk, id_)
        monkeypatch.setattr("dispatcher.store.JobStore", lambda *_, **__: desk.bench.store)
        monkeypatch.setattr(desk.bench.store, "close", lambda: None)
        monkeypatch.setattr("dispatcher.queues.publish", refuse)
        run = in_process({"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1/0"}, monkeypatch, capsys)
        assert run("receiver", "--again", "--json").out == '{"again":1}\n'
        desk.bench.clock.advance(61)
        assert desk.lost(empty=True) == [id_]

    def test_it_is_forgotten_after_a_while(self, desk: Desk) -> None:
        self.fail(desk, desk.put(kind="poison"))
        desk.bench.clock.advance(7 * DAY + 1)
        desk.bench.run(desk.calls.sweep())
        assert desk.aside == 0
        assert not desk.bench.redis.keys("d:cb:*")


class TestNobodysFault:
    def test_a_redis_that_is_away(self, desk: Desk) -> None:
        id_ = desk.put(kind="receipt", state="delivered", ref="r", number=NUMBER)
        desk.store.away = {"receipts"}
        for _ in range(TRIES + 2):
            with pytest.raises(StoreUnavailable):
                desk.read(id_)
        desk.store.away = set()
        assert desk.read(id_) == "early"

    def test_a_redis_that_is_late_to_hear_what_came_of_it(self, desk: Desk) -> None:
        """Else it would be read again."""
        desk.store.late = {"callbacks_done"}
        assert desk.read(desk.put(kind="receipt", state="delivered", ref="r", number=NUMBER)) == "early"
        assert not desk.bench.redis.keys("d:cb:*")

    def test_a_worker_that_does_not_serve_the_account(self, desk: Desk) -> None:
        id_ = desk.put(account="other", kind="nothing")
        assert [desk.read(id_) for _ in range(TRIES + 2)] == ["left"] * (TRIES + 2)

    def test_a_worker_without_the_key_it_is_sealed_with(self, desk: Desk, clock: Clock) -> None:
        id_ = desk.put(kind="nothing")
        stranger = Bench(clock, secret_key="another")
        stranger.redis, stranger.store = desk.bench.redis, desk.bench.store
        other = Desk(stranger)
        assert [other.read(id_) for _ in range(TRIES + 2)] == ["left"] * (TRIES + 2)
        assert desk.read(id_) == "unread"


class TestLost:
    def test_a_message_that_was_lost_is_found(self, desk: Desk) -> None:
        id_ = desk.put(kind="nothing")
        desk.bench.clock.advance(59)
        assert desk.lost(empty=True) == []
        desk.bench.clock.advance(2)
        assert desk.lost() == [], "it may wait in a backlog"
        assert desk.lost(empty=True) == [id_]
        assert desk.lost(empty=True) == [], "it was published a moment ago"

    def test_one_that_a_later_one_passed_is_lost(self, desk: Desk) -> None:
        first = desk.put(kind="nothing")
        desk.bench.clock.advance(1)
        desk.tell(kind="nothing")
        desk.bench.clock.advance(80)
        assert desk.lost() == [first]

    def test_the_clock_publishes_it_to_the_accounts_queue(self, desk: Desk) -> None:
        id_ = desk.put(kind="nothing")
        desk.bench.clock.advance(61)
        published: list[tuple[str, list[str]]] = []

        async def sweep() -> None:
            async def publish(queue: str, ids: list[str]) -> None:
                published.append((queue, ids))

            async def empty(queue: str) -> bool:
                return True

            store: Any = Store(desk.bench)
            await WorkersClock(desk.bench.settings, store, publish, empty).sweep()

        asyncio.run(sweep())
        assert published == [("ringer.receipts", [id_])]

    def test_what_was_counted_is_not_counted_again(self, desk: Desk) -> None:
        """Done twice, since the first answer was lost."""
        id_ = desk.put(kind="nothing")
        (one,) = desk.bench.run(desk.calls.take([id_]))
        for _ in range(2):
            desk.bench.run(desk.calls.done(one, {"unread": 1}))
        assert desk.counts == {"unread": 1}


class Store(AsyncOnSync):
    """What the clock asks beside calls."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.store)
        self.redis = Commands(bench.redis)


class Commands:
    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def command(*args: Any) -> Any:
            return getattr(self._redis, name)(*args)

        return command


def test_nothing_of_what_was_told_is_in_a_repr(desk: Desk) -> None:
    desk.put(kind="text", from_=NUMBER, text="canary")
    kept = desk.bench.run(desk.calls.take(["0" * 26]))
    assert kept
    assert leaks(repr([kept, desk.calls.put("1", "ringer", SECRET_KEY.encode())]), NUMBER, "canary", SECRET_KEY) == []


def test_what_stays_does_not_grow(desk: Desk) -> None:
    """Of many callbacks nothing stays but counts and the list of those who want no texts."""
    for number in range(30):
        desk.text("STOP" if number == 7 else "Hi", ref=str(number))
        desk.receipt("delivered", f"+44770090{number:04}")
        desk.tell(kind="nothing")
    for _ in range(TRIES):
        desk.tell(kind="poison")
    desk.bench.clock.advance(73 * 3600)
    desk.bench.run(desk.calls.sweep())
    desk.bench.clock.advance(30 * DAY)
    desk.bench.run(desk.calls.sweep())
    desk.bench.sweep()
    lasting = {"d:ca", "d:cn", "d:no", "d:e", "d:et", "d:g:ringer.receipts"}
    assert {key for key in desk.bench.names() if not key.startswith(("d:co:", "d:cb:"))} == lasting
    assert desk.counts["unmatched"] == 30
