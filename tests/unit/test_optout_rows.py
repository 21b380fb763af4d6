"""The opt-out list as a file: what leaves one deployment and is the same in another, and what is told of bad lines."""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dispatcher import Dispatcher, InvalidRequest
from dispatcher.optout_rows import COLUMNS, cells, key_of
from dispatcher.optouts import LIST
from tests.support import phones
from tests.unit import test_cli, test_client
from tests.unit.support import HASH_KEY, NUMBER, OTHER, SECRET_KEY, Bench, Clock, leaks
from tests.unit.test_cli import Run
from tests.unit.test_client import Shop

shop = test_client.shop
run, away, memory = test_cli.run, test_cli.away, test_cli.memory

TENANTS = [None, "shop-a", "shop-b"]
SENDERS = [None, "ACME", "+442079460000"]


def rows(d: Dispatcher, *, reveal: bool = False) -> list[dict[str, str]]:
    key = key_of(d.settings)
    return [dict(zip(COLUMNS, cells(one, key), strict=True)) for one in d.export_opt_outs(reveal=reveal)]


def answers(d: Dispatcher, numbers: list[str]) -> list[datetime | None]:
    """What every text to these numbers would meet."""
    return [
        d.opted_out(number, tenant=tenant, sender=sender)
        for number in numbers
        for tenant in TENANTS
        for sender in SENDERS
    ]


def another(clock: Clock, **settings: Any) -> Dispatcher:
    return Shop(clock, **{"hash_key": HASH_KEY, "secret_key": SECRET_KEY} | settings).dispatcher


# -- there and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("reveal", [False, True])
def test_what_is_exported_is_the_same_list_elsewhere(shop: Shop, seed: int, reveal: bool) -> None:
    """Whatever the entries are about: every text meets the same answer there, and a second import changes nothing."""
    decide, d, numbers = random.Random(seed), shop.dispatcher, phones(8, 40)
    for _ in range(40):
        number, scope = decide.choice(numbers), {"tenant": decide.choice(TENANTS), "sender": decide.choice(SENDERS)}
        decide.choice([d.opt_out, d.opt_out, d.opt_in])(number, **scope)
        shop.clock.advance(decide.random())
    expected = answers(d, numbers)
    assert {None} < {*expected}, "some are on it, and some are not"
    told = rows(d, reveal=reveal)
    there = another(shop.clock)
    report = there.import_opt_outs(told)
    assert (report.added, report.known, report.refused) == (len(told), 0, 0)
    assert answers(there, numbers) == expected
    again = there.import_opt_outs(told)
    assert (again.added, again.known) == (0, len(told))
    assert sorted(map(str, rows(there, reveal=reveal))) == sorted(map(str, told))


def test_revealed_it_is_of_use_under_another_hash_key_too(shop: Shop) -> None:
    shop.dispatcher.opt_out(NUMBER)
    shop.dispatcher.opt_out(OTHER, tenant="shop-a", sender="+1 (212) 555-0100")
    there = another(shop.clock, hash_key="another")
    report = there.import_opt_outs(rows(shop.dispatcher, reveal=True))
    assert (report.added, report.reasons) == (2, [])
    assert there.opted_out(NUMBER)
    assert there.opted_out(OTHER, tenant="shop-a", sender="12125550100")
    assert not there.opted_out(OTHER)


def test_hashes_of_another_key_are_refused_rather_than_never_found(shop: Shop) -> None:
    shop.dispatcher.opt_out(NUMBER)
    report = another(shop.clock, hash_key="another").import_opt_outs(rows(shop.dispatcher))
    assert report.added == 0
    assert "another DISPATCHER_HASH_KEY" in report.reasons[0]


def test_without_reveal_nobody_is_in_it(shop: Shop) -> None:
    shop.dispatcher.opt_out(NUMBER, tenant="shop-a", sender="ACME")
    assert leaks(str(rows(shop.dispatcher)), NUMBER, "shop-a", "ACME") == []
    (entry,) = shop.dispatcher.opt_outs(NUMBER, reveal=True)
    assert (entry.number, entry.tenant, entry.sender, entry.by) == (NUMBER, "shop-a", "ACME", "application")
    assert leaks(repr(entry), NUMBER) == []


def test_without_a_secret_key_no_number_is_kept(clock: Clock) -> None:
    d = Shop(clock, hash_key=HASH_KEY, secret_key="").dispatcher
    d.opt_out(NUMBER)
    assert leaks(str(d._store.redis.hgetall(LIST)), NUMBER) == []
    (row,) = rows(d, reveal=True)
    assert (row["number"], row["hash"]) == ("", d.settings.hashed("number", NUMBER))


def test_an_entry_of_the_release_before_is_read(shop: Shop) -> None:
    hashed = shop.bench.settings.hashed("number", NUMBER)
    shop.bench.redis.hset(LIST, hashed, "1700000000123 text")
    assert shop.dispatcher.opted_out(NUMBER) == datetime.fromtimestamp(1700000000.123, UTC)
    (row,) = rows(shop.dispatcher, reveal=True)
    assert (row["hash"], row["since"], row["by"]) == (hashed, "2023-11-14T22:13:20.123Z", "text")


def test_sealed_with_a_key_that_is_gone_the_hashes_are_left(shop: Shop) -> None:
    shop.dispatcher.opt_out(NUMBER)
    d = another(shop.clock, secret_key="another")
    d._store.redis = shop.bench.redis
    (row,) = rows(d, reveal=True)
    assert (row["number"], bool(row["hash"])) == ("", True)


# -- taking rows -------------------------------------------------------------------------------------------------------


KEY = "the key of this deployment"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        pytest.param({}, "number: is missing", id="nobody"),
        pytest.param({"number": "12"}, "number: ", id="no number"),
        pytest.param({"number": NUMBER, "since": "yesterday"}, "since: must be a time", id="no time"),
        pytest.param({"number": NUMBER, "since": "2026-01-01T00:00:00"}, "since: has no time zone", id="no zone"),
        pytest.param({"number": NUMBER, "by": "magic"}, "by: must be one of text, provider", id="by nobody we know"),
        pytest.param({"number": NUMBER, "sender": "-"}, "sender: is nobody's", id="no sender"),
        pytest.param({"hash": "abc"}, "hash: says nothing without its key", id="a hash without its key"),
        pytest.param({"hash": "abc", "key": KEY}, "hash: is no hash", id="a hash that is none"),
        pytest.param(
            {"number": NUMBER, "scope": "x" * 16}, "scope: says nothing without", id="a scope without its key"
        ),
        pytest.param({"number": NUMBER, "scope": "x" * 16, "key": KEY, "tenant": "a"}, "scope: is not", id="another's"),
        pytest.param({"number": 4}, "number: must be text", id="no text"),
        pytest.param("+447700900001", "is no row with columns", id="no row"),
    ],
)
def test_a_row_that_cannot_be_taken_is_told_with_the_reason_and_stops_no_other(shop: Shop, row: Any, why: str) -> None:
    d, told = shop.dispatcher, list[str]()
    if isinstance(row, dict):
        row = {name: key_of(d.settings) if value == KEY else value for name, value in row.items()}
    report = d.import_opt_outs([row, {"number": OTHER}], refused=lambda _, reason: told.append(reason))
    assert (report.rows, report.added, report.refused) == (2, 1, 1)
    assert told == report.reasons
    assert told[0].startswith(why)
    assert d.opted_out(OTHER)


def test_nobody_is_on_it_from_a_moment_that_is_still_to_come(shop: Shop) -> None:
    """Else no word of theirs could lift it until then."""
    shop.dispatcher.import_opt_outs([{"number": NUMBER, "since": "2999-01-01T00:00:00Z"}])
    shop.clock.advance(1)
    assert shop.dispatcher.opt_in(NUMBER)


def test_who_is_on_the_list_stays_as_they_are(shop: Shop) -> None:
    d = shop.dispatcher
    d.opt_out(NUMBER)
    since = d.opted_out(NUMBER)
    assert d.import_opt_outs([{"number": NUMBER, "since": "2020-01-01T00:00:00Z", "by": "text"}]).known == 1
    assert d.opted_out(NUMBER) == since


def test_who_wanted_texts_again_since_then_stays_off_it(shop: Shop) -> None:
    """As long as that is remembered: a file of last week changes nothing, one of before does."""
    d = shop.dispatcher
    d.opt_out(NUMBER)
    shop.clock.advance(1)
    d.opt_in(NUMBER)
    shop.clock.advance(d.settings.events_retention - 60)
    assert d.import_opt_outs([{"number": NUMBER, "since": "2027-01-15T08:00:00Z"}]).known == 1
    assert not d.opted_out(NUMBER)
    assert d.import_opt_outs([{"number": NUMBER}]).added == 1, "now is later"


def test_rows_are_taken_a_portion_at_a_time(shop: Shop) -> None:
    """However many there are, no more than some hundred are in memory: what came is written before the next come."""
    d, seen = shop.dispatcher, list[int]()

    def many() -> Any:
        for number in phones(1200):
            seen.append(d._store.redis.hlen(LIST))
            yield {"number": number}

    assert d.import_opt_outs(many()).added == 1200
    assert seen[500] == 500
    assert seen[1000] == 1000


@pytest.mark.parametrize("rows", [None, "number", {"number": NUMBER}, 7])
def test_rows_must_be_rows(shop: Shop, rows: Any) -> None:
    with pytest.raises(InvalidRequest, match="rows"):
        shop.dispatcher.import_opt_outs(rows)


# -- the command line --------------------------------------------------------------------------------------------------


class TestCommands:
    def test_a_list_goes_out_and_comes_back(self, memory: Bench, run: Run, tmp_path: Path) -> None:
        run("optouts", "add", NUMBER, "--tenant", "shop-a")
        run("optouts", "add", OTHER)
        file = tmp_path / "optouts.csv"
        file.write_text(run("optouts", "export").out)
        memory.redis.delete(LIST)
        ended = run("optouts", "import", str(file))
        assert (ended.code, ended.out) == (0, "2 added, 0 known, 0 refused\n")
        assert run("optouts", "check", NUMBER, "--tenant", "shop-a").code == 1
        assert run("optouts", "check", NUMBER).code == 0
        assert run("optouts", "import", str(file)).out == "0 added, 2 known, 0 refused\n"

    @pytest.mark.parametrize(
        ("name", "cell"),
        [
            pytest.param("=HYPERLINK(1)", "'=HYPERLINK(1)", id="a formula"),
            pytest.param("@SUM(1)", "'@SUM(1)", id="another"),
            pytest.param("=1", "'=1", id="a short one"),
            pytest.param("'=1+1", "''=1+1", id="one that is guarded already"),
            pytest.param("+1 (212) 555-0100", "'+1 (212) 555-0100", id="a number as people write it"),
            pytest.param("+12125550100", "+12125550100", id="a number"),
            pytest.param("'quoted'", "'quoted'", id="a quote"),
            pytest.param("shop-a", "shop-a", id="a name"),
        ],
    )
    def test_a_spreadsheet_takes_no_cell_for_a_formula(
        self, memory: Bench, run: Run, tmp_path: Path, name: str, cell: str
    ) -> None:
        """Names may come from somebody else's customers; imported again they are what they were."""
        run("optouts", "add", NUMBER, "--tenant", name, "--sender", name)
        out = run("optouts", "export", "--reveal").out
        (row,) = csv.DictReader(out.splitlines())
        assert (row["number"], row["tenant"], row["sender"]) == (NUMBER, cell, cell)
        (document,) = run("optouts", "export", "--reveal", "--json").documents
        assert document["tenant"] == name
        memory.redis.delete(LIST)
        file = tmp_path / "optouts.csv"
        file.write_text(out)
        assert run("optouts", "import", str(file)).out == "1 added, 0 known, 0 refused\n"
        assert run("optouts", "check", NUMBER, "--tenant", name, "--sender", name).code == 1
        assert run("optouts", "export", "--reveal").out == out

    @pytest.mark.parametrize("reveal", [False, True])
    def test_numbers_are_shown_when_asked_for(self, memory: Bench, run: Run, reveal: bool) -> None:
        run("optouts", "add", NUMBER)
        options = ["--reveal"] if reveal else []
        heading, line = run("optouts", "export", *options).out.splitlines()
        assert heading == ",".join(COLUMNS)
        assert (NUMBER in line) is reveal
        (document,) = run("optouts", "export", "--json", *options).documents
        assert document["number"] == (NUMBER if reveal else "")

    def test_bad_lines_are_told_by_their_number(self, memory: Bench, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "people.csv"
        file.write_text(f'Phone;Since\n{NUMBER};\n12;\n"\n{OTHER};2026-01-01T00:00:00Z\n')
        ended = run("optouts", "import", str(file))
        assert (ended.code, ended.out) == (1, "2 added, 0 known, 2 refused\n")
        assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["line 3", "line 4"]
        assert leaks(ended.err, OTHER) == []

    def test_as_json(self, memory: Bench, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "people.csv"
        file.write_text(f"number\n{NUMBER}\n")
        (told,) = run("optouts", "import", str(file), "--json").documents
        assert told == {"rows": 1, "added": 1, "known": 0, "refused": 0, "reasons": []}

    def test_a_file_without_anybody_in_it_is_refused(self, memory: Bench, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "people.csv"
        file.write_text("name,age\nAnn,7\n")
        ended = run("optouts", "import", str(file))
        assert (ended.code, "no column number" in ended.err) == (2, True)
