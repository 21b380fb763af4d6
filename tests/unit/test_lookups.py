"""What a number says of itself, a result in its one shape, and many lookups enqueued at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dispatcher import InvalidNumber, InvalidRequest, lookups
from dispatcher.lookups import UNKNOWN, Facts, Network, country_called, country_named, describe
from tests.unit import test_client
from tests.unit.support import NUMBER, OTHER, URL
from tests.unit.test_client import Shop

shop = test_client.shop

AMERICAN = "+12125550100"
#: Of London, kept for fiction.
LANDLINE = "+442079460123"


@pytest.mark.parametrize(
    ("written", "region", "told"),
    [
        pytest.param(
            LANDLINE, None,
            {"number": LANDLINE, "national": "020 7946 0123", "international": "+44 20 7946 0123", "country": "GB",
             "line_type": "fixed_line", "valid": True, "time_zones": ["Europe/London"]},
            id="a landline",
        ),
        pytest.param("020 7946 0123", "GB", {"number": LANDLINE}, id="as it is dialled there"),
        pytest.param(
            NUMBER, None, {"country": "GB", "line_type": UNKNOWN, "valid": False},
            id="a range that nobody uses tells nothing",
        ),
        pytest.param(
            AMERICAN, None,
            {"national": "(212) 555-0100", "country": "US", "line_type": "fixed_line_or_mobile",
             "time_zones": ["America/New_York"]},
            id="where no range tells a mobile from a landline",
        ),
        pytest.param("+80012345678", None, {"country": "001", "line_type": "toll_free", "time_zones": []},
                     id="of no country"),
    ],
)  # fmt: skip
def test_a_number_says_of_itself(written: str, region: str | None, told: dict[str, Any]) -> None:
    document = describe(written, region).to_dict(reveal=True)
    assert {name: document[name] for name in told} == told
    assert repr(describe(written, region)) == "Description(...)"
    masked = describe(written, region).to_dict()
    assert masked["number"] == masked["national"] == masked["international"]
    assert "***" in masked["number"]


@pytest.mark.parametrize(("number", "region"), [("nobody", None), ("", "GB"), ("+4477", None)])
def test_what_is_no_number_says_nothing(number: str, region: str | None) -> None:
    with pytest.raises(InvalidNumber):
        describe(number, region)


def test_it_needs_no_redis(shop: Shop) -> None:
    del shop.dispatcher._store.redis
    assert shop.dispatcher.describe("020 7946 0123", "GB").line_type == "fixed_line"
    with pytest.raises(InvalidRequest, match="region 'XX': is not a country's code"):
        shop.dispatcher.describe(LANDLINE, "XX")
    with pytest.raises(InvalidRequest, match=r"^number "):
        shop.dispatcher.describe("nobody")


@pytest.mark.parametrize(
    ("facts", "number", "country", "line_type"),
    [
        pytest.param(Facts(), LANDLINE, "GB", "fixed_line", id="what a vendor does not say, the number does"),
        pytest.param(Facts(country="FR", line_type="voip"), LANDLINE, "FR", "voip", id="what it says wins"),
        pytest.param(Facts(), NUMBER, "GB", UNKNOWN, id="neither of them knows"),
    ],
)
def test_country_and_line_are_filled_in_and_nothing_else(
    facts: Facts, number: str, country: str, line_type: str
) -> None:
    found = lookups.result(number, facts, {"a": 1}, "textgoto", 1_800_000_000_000)
    assert (found.country, found.line_type) == (country, line_type)
    silent = {"name": UNKNOWN, "mcc": UNKNOWN, "mnc": UNKNOWN, "country": UNKNOWN}
    assert msgspec.to_builtins(found) == {
        "number": number, "country": country, "line_type": line_type, "original_network": silent,
        "current_network": silent, "ported": UNKNOWN, "roaming": UNKNOWN, "reachable": UNKNOWN, "provider": "textgoto",
        "asked_at": "2027-01-15T08:00:00Z", "cached": False, "raw": {"a": 1},
    }  # fmt: skip
    assert repr(found) == "Result(textgoto)"


@pytest.mark.parametrize(
    ("words", "code"),
    [("United Kingdom", "GB"), ("india ", "IN"), ("United States", "US"), ("Sandbox", UNKNOWN), ("", UNKNOWN)],
)
def test_a_country_by_its_name(words: str, code: str) -> None:
    assert country_named(words) == code


@pytest.mark.parametrize(
    ("prefix", "code"),
    [("91", "IN"), ("+353", "IE"), ("1", UNKNOWN), ("44", UNKNOWN), ("800", UNKNOWN), ("", UNKNOWN), ("²", UNKNOWN),
     ("9" * 50, UNKNOWN), ("999", UNKNOWN)],
)  # fmt: skip
def test_a_country_by_its_calling_code_where_it_is_the_only_one(prefix: str, code: str) -> None:
    assert country_called(prefix) == code


def test_networks_are_equal_where_nobody_told_of_them() -> None:
    assert Facts().original_network == Facts().current_network == Network()


class TestMany:
    def test_each_number_is_looked_up_once(self, shop: Shop) -> None:
        batch = shop.dispatcher.lookup_many([NUMBER, "+44 7700 900124", NUMBER], batch_id="list", tenant="t")
        assert (batch.id, batch.created, batch.counts) == ("list", 2, {"queued": 2})
        jobs = shop.dispatcher.get_many([*batch.jobs.ids], reveal=True)
        assert [(one.operation, one.to, one.tenant) for one in jobs.values()] == [
            ("lookup", NUMBER, "t"), ("lookup", OTHER, "t"),
        ]  # fmt: skip
        assert shop.published == [("textgoto", [*batch.jobs.ids])]

    def test_more_than_one_portion(self, shop: Shop) -> None:
        numbers = [f"+447700900{number:03}" for number in range(250)]
        batch = shop.dispatcher.lookup_many(iter(numbers), lane="high")
        assert batch.counts == {"queued": 250}
        assert {queue for queue, _ in shop.published} == {"textgoto.high"}

    @pytest.mark.parametrize(
        ("numbers", "options", "words"),
        [
            pytest.param([NUMBER, OTHER, OTHER, "nobody"], {}, r"^numbers\[3\] ", id="a number that is none"),
            pytest.param([NUMBER, None], {}, r"^numbers\[1\] ", id="no text"),
            pytest.param([], {}, "^numbers: is empty", id="none"),
            pytest.param(NUMBER, {}, "^numbers: must be numbers, in a list", id="one, without a list"),
            pytest.param(7, {}, "^numbers: must be numbers, in a list", id="no list at all"),
            pytest.param([NUMBER], {"fresh": "no"}, "^fresh: must be True or False", id="fresh that is no truth"),
            pytest.param([NUMBER], {"batch_id": "a b"}, "^batch_id ", id="a batch's name"),
        ],
    )
    def test_what_can_not_be_is_refused_before_anything_is_stored(
        self, shop: Shop, numbers: Any, options: dict[str, Any], words: str
    ) -> None:
        before = shop.bench.dump()
        with pytest.raises(InvalidRequest, match=words):
            shop.dispatcher.lookup_many(numbers, **options)
        assert shop.bench.dump() == before

    def test_the_error_shows_no_number(self, shop: Shop) -> None:
        with pytest.raises(InvalidRequest) as raised:
            shop.dispatcher.lookup_many([NUMBER, "+447700900123456789"])
        assert "numbers[1] '+44***" in str(raised.value)


def test_fresh_is_part_of_the_request(shop: Shop) -> None:
    """The same key with and without it is another request; it stays with the job until it is done."""
    job = shop.dispatcher.lookup(NUMBER, fresh=True, idempotency_key="k")
    assert shop.dispatcher.lookup(NUMBER, fresh=True, idempotency_key="k").id == job.id
    with pytest.raises(InvalidRequest, match="idempotency"):
        shop.dispatcher.lookup(NUMBER, idempotency_key="k")
    private = shop.bench.settings.sealer().open(shop.bench.redis.hget(f"d:j:{job.id}", "x"), job.id)
    assert msgspec.json.decode(private) == {"kind": "lookup", "to": NUMBER, "fresh": True}
    assert URL not in repr(job)
