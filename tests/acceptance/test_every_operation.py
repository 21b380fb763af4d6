"""Every operation of every provider, by the command line and real workers: how it ends well, and how when refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import pytest

from dispatcher import Dispatcher, Job, Message, State, Unsupported
from tests.acceptance.conftest import KEYS, OTHERS, Four
from tests.acceptance.test_privacy import kept, unpacked
from tests.commands import Run
from tests.support import phone, until
from workers.adapters import available
from workers.operations import COMMANDS

#: The sandbox's cards: all fields of one that is taken, and the number of one that is declined.
CARD: Final = {
    "first_name": "Canary-First-17", "last_name": "Canary-Last-18", "street": "Canary-Street-19", "city": "Canary-City",
    "state": "NY", "zip": "Canary-Zip-20", "country": "US", "credit_card_type_id": "Visa",
    "card_number": "4111111111111111", "security_code": "739", "expiration_month": "11", "expiration_year": "2031",
}  # fmt: skip
DECLINED: Final = CARD | {"card_number": "4000000000000002"}

#: What of a card must be nowhere; the rest of its fields are words that stand everywhere.
CARD_CANARIES: Final = [
    one for name, one in CARD.items() if one.startswith("Canary") or name == "card_number"
]  # fmt: skip

SENT = State.SENT
COMPLETED = State.COMPLETED

#: What an operation is asked with; made by a function where it is about something that has to be there before.
Arguments: TypeAlias = Mapping[str, Any] | Callable[[Dispatcher], Mapping[str, Any]]


def american(ending: int, area: int = 212) -> str:
    """Return a number of which nobody is the owner, where Club Texting reaches."""
    return f"+1{area}5550{ending}"


class Case(NamedTuple):
    """An operation that is done, with what it must end as."""

    account: str
    operation: str
    #: Whom it is for, where it is a text, a verification or a lookup.
    to: str = ""
    arguments: Arguments = MappingProxyType({})
    #: A part of its result, or the kind of its failure.
    result: Any = MappingProxyType({})
    #: A card comes on standard input.
    card: Mapping[str, str] = MappingProxyType({})


def case(label: str, *fields: Any, **more: Any) -> Any:
    one = Case(*fields, **more)
    return pytest.param(one, id=f"{one.account} {one.operation}: {label}")


@pytest.fixture(scope="module", autouse=True)
def _begun(all_four: Four) -> None:
    """Begin with an empty ledger, which these tests fill together."""
    all_four.begin()


def texted(account: str, number: str, name: str, ref: str = "provider_ref") -> Callable[[Dispatcher], dict[str, Any]]:
    """Return what sends a text, and asks by `name` for its provider's id, or by ours."""

    def made(d: Dispatcher) -> dict[str, Any]:
        job = d.wait(d.send(number, "Hello", provider=account).id)
        return {name: job.provider_ref if ref == "provider_ref" else job.id}

    return made


def rented(account: str, keyword: str) -> Callable[[Dispatcher], dict[str, Any]]:
    def made(d: Dispatcher) -> dict[str, Any]:
        arguments = {"keyword": keyword, "stored_credit_card": "1111"}
        assert d.wait(d.operation(account, "keyword.rent", arguments=arguments).id).state == COMPLETED
        return {"keyword": keyword}

    return made


def bought(account: str, number: str) -> Callable[[Dispatcher], dict[str, Any]]:
    def made(d: Dispatcher) -> dict[str, Any]:
        assert d.wait(d.operation(account, "number.buy", number=number).id).state == COMPLETED
        return {"number": number}

    return made


def by_day(account: str, number: str) -> Callable[[Dispatcher], dict[str, Any]]:
    def made(d: Dispatcher) -> dict[str, Any]:
        d.wait(d.send(number, "Hello", provider=account).id)
        return {"number": number, "message_sent_date": f"{datetime.now(UTC):%m-%d-%Y}"}

    return made


def holding(account: str, number: str) -> Callable[[Dispatcher], dict[str, Any]]:
    def made(d: Dispatcher) -> dict[str, Any]:
        bought(account, number)(d)
        return {}

    return made


#: Whatever is there.
ANY: Final = object()


def club(account: str, area: int) -> list[Any]:
    """What Club Texting does, in the format of this account; keywords and numbers are its own."""
    word = account[:4]
    return [
        case("a text", account, "send", american(151, area)),
        case("delivery by the standard way", account, "send", american(152, area),
             {"message_type_id": "2", "subject": "News"}),
        case("a blocked number", account, "send", american(100, area), result="opted_out"),
        case("a number that is blocked everywhere", account, "send", american(134, area), result="opted_out"),
        case("a number that is none", account, "send", american(101, area), result="invalid"),
        case("a number of another continent", account, "send", phone(1), result="unsupported"),
        case("a number that gets no code", account, "verify", american(101, area), result="invalid"),
        case("a number's carrier", account, "lookup", american(132, area),
             result={"number": american(132, area), "current_network": {"name": "VERIZONUS", "country": "US"},
                     "ported": "unknown", "raw": {"phone_number": american(132, area), "carrier_name": "VERIZONUS"}}),
        case("a number that is nowhere", account, "lookup", american(130, area), result="invalid"),
        case("credits", account, "balance", result={"currency": None, "plan_credits": "0", "available": ANY}),
        case("credits by a stored card", account, "credits.buy",
             arguments={"number_of_credits": "1000", "stored_credit_card": "1111"},
             result={"bought_credits": "1000", "amount": "9.45", "discount": "0.55"}),
        case("credits by a card", account, "credits.buy", arguments={"number_of_credits": "2000"}, card=CARD,
             result={"bought_credits": "2000"}),
        case("a card that is declined", account, "credits.buy", arguments={"number_of_credits": "500"}, card=DECLINED,
             result="invalid"),
        case("a card that is not stored", account, "credits.buy",
             arguments={"number_of_credits": "1000", "stored_credit_card": "2222"}, result="invalid"),
        case("one that is free", account, "keyword.check", arguments={"keyword": f"{word}free"},
             result={"keyword": f"{word}free", "available": True}),
        case("one that is taken", account, "keyword.check", arguments={"keyword": "taken"},
             result={"keyword": "taken", "available": False}),
        case("two words", account, "keyword.check", arguments={"keyword": "two words"}, result="invalid"),
        case("by a stored card", account, "keyword.rent",
             arguments={"keyword": f"{word}honey", "stored_credit_card": "1111"},
             result={"keyword": f"{word}honey", "id": ANY, "enable_double_opt_in": False}),
        case("by a card", account, "keyword.rent", arguments={"keyword": f"{word}jam"}, card=CARD,
             result={"keyword": f"{word}jam"}),
        case("one that is taken", account, "keyword.rent",
             arguments={"keyword": "taken", "stored_credit_card": "1111"}, result="invalid"),
        case("by a card that is declined", account, "keyword.rent", arguments={"keyword": f"{word}tea"}, card=DECLINED,
             result="invalid"),
        case("what it does", account, "keyword.setup",
             arguments=lambda d: rented(account, f"{word}setup")(d) | {
                 "enable_double_opt_in": "true", "join_message": "Welcome", "contact_group_ids": "honey lovers,bees",
                 "forward_url": "",
             },
             result={"keyword": f"{word}setup", "enable_double_opt_in": True, "join_message": "Welcome",
                     "contact_group_ids": ["honey lovers", "bees"], "forward_url": ""}),
        case("one that is not ours", account, "keyword.setup",
             arguments={"keyword": f"{word}none", "join_message": "Welcome"}, result="invalid"),
        case("one of ours", account, "keyword.cancel", arguments=rented(account, f"{word}gone"),
             result={"keyword": f"{word}gone", "cancelled": True}),
        case("one that is not ours", account, "keyword.cancel", arguments={"keyword": f"{word}none"},
             result="invalid"),
        case("counts", account, "report", arguments=texted(account, american(153, area), "id"),
             result={"id": ANY, "delivered": ANY}),
        case("numbers", account, "report",
             arguments=lambda d: texted(account, american(144, area), "id")(d) | {"status": "na"},
             result={"status": "na", "phone_numbers": [american(144, area)]}),
        case("an id that is nobody's", account, "report", arguments={"id": "999"}, result="invalid"),
    ]  # fmt: skip


def the(account: str, area: int) -> list[Any]:
    """What TheTexting does, in the format of this account."""
    return [
        case("a text", account, "send", phone(1)),
        case("a text in another alphabet", account, "send", phone(2), {"text": "Привет"}),
        case("a number that is none", account, "send", phone(101), result="invalid"),
        case("a number that is refused", account, "send", phone(102), result="invalid"),
        case("a number that gets no code", account, "verify", phone(101), result="invalid"),
        case("a number in another network", account, "lookup", phone(132),
             result={"number": phone(132), "country": "GB", "line_type": "mobile", "ported": True,
                     "original_network": {"name": "Sandbox Mobile", "country": "GB"},
                     "current_network": {"mcc": "234", "mnc": "30"}, "raw": {"lookup_status": "No Error"}}),
        case("a number that is nowhere", account, "lookup", phone(130), result="invalid"),
        case("money", account, "balance", result={"currency": None, "available": ANY}),
        case("numbers that can be bought", account, "number.search",
             arguments={"country_code": "US", "area_code": str(area)}, result={"numbers": ANY}),
        case("a country without numbers", account, "number.search", arguments={"country_code": "FR"},
             result={"numbers": []}),
        case("a country that is none", account, "number.search", arguments={"country_code": "USA"}, result="invalid"),
        case("one on offer", account, "number.buy", arguments={"number": american(151, area)},
             result={"number": american(151, area)}),
        case("one that is not for sale", account, "number.buy", arguments={"number": phone(1)}, result="invalid"),
        case("one of ours", account, "number.cancel", arguments=bought(account, american(152, area)),
             result={"number": american(152, area)}),
        case("one that is not ours", account, "number.cancel", arguments={"number": american(199, area)},
             result="invalid"),
        case("ours", account, "number.list", arguments=holding(account, american(153, area)),
             result={"numbers": ANY}),
        case("an argument too many", account, "number.list", arguments={"country_code": "US"}, result="invalid"),
        case("by id", account, "report", arguments=texted(account, phone(3), "message_id"),
             result={"messages": [ANY]}),
        case("by number and day", account, "report", arguments=by_day(account, american(155, area)),
             result={"messages": [ANY]}),
        case("by nothing", account, "report", result="invalid"),
    ]  # fmt: skip


MOB: Final = [
    case("a text", "mobtexting", "send", phone(1)),
    case("a text that is in Indian registers", "mobtexting", "send", phone(2),
         {"service": "G", "entity_id": "1101", "template_id": "1107", "flash": "1", "tags": "news,spring"}),
    case("a blocked number", "mobtexting", "send", phone(100), result="opted_out"),
    case("a number that is none", "mobtexting", "send", phone(101), result="invalid"),
    case("a sender that nobody approved", "mobtexting", "send", phone(3), {"sender": "NOBODY"}, result="rejected"),
    case("a service that is for calls", "mobtexting", "send", phone(3), {"service": "VOC"}, result="invalid"),
    case("no credit", "brokemob", "send", phone(3), result="insufficient_funds"),
    case("a number that gets no code", "mobtexting", "verify", phone(101), result="invalid"),
    case("a number in another network", "mobtexting", "lookup", phone(132),
         result={"number": phone(132), "country": "GB", "ported": True, "reachable": True,
                 "original_network": {"name": "Sandbox UK"},
                 "current_network": {"name": "Sandbox Mobile", "mcc": "234", "mnc": "99"},
                 "raw": {"phone": phone(132), "status": "SUCCESS"}}),
    case("a number that is nowhere", "mobtexting", "lookup", phone(130), result="invalid"),
    case("credits", "mobtexting", "balance", result={"currency": None, "services": [ANY] * 4}),
    case("a wrong token", "wrongmob", "balance", result="unauthorized"),
    case("a person", "mobtexting", "optout.add", arguments={"number": phone(61)},
         result={"receiver": phone(61), "type": "all", "value": "*", "stopped": True}),
    case("from one sender", "mobtexting", "optout.add",
         arguments={"number": phone(62), "type": "sender", "value": "ACME"}, result={"type": "sender"}),
    case("from one sender, and not from which", "mobtexting", "optout.add",
         arguments={"number": phone(63), "type": "nobody"}, result="invalid"),
    case("by id", "mobtexting", "report", arguments=texted("mobtexting", phone(4), "id"),
         result={"messages": [ANY], "last_page": 1}),
    case("by our reference", "mobtexting", "report", arguments=texted("mobtexting", phone(5), "cid", "ours"),
         result={"messages": [ANY]}),
    case("no permission", "guestmob", "report", arguments={"cid": "x"}, result="unauthorized"),
]  # fmt: skip

GOTO: Final = [
    case("a text", "textgoto", "send", phone(1)),
    case("a blocked number", "textgoto", "send", phone(100), result="opted_out"),
    case("a number that is none", "textgoto", "send", phone(101), result="invalid"),
    case("no credit", "brokegoto", "send", phone(3), result="insufficient_funds"),
    case("a number that gets no code", "textgoto", "verify", phone(101), result="invalid"),
    case("a number in another network", "textgoto", "lookup", phone(132),
         result={"number": phone(132), "country": "GB", "ported": True, "roaming": False,
                 "current_network": {"name": "Sandbox Mobile"}, "raw": {"number": phone(132)[1:]}}),
    case("a number that is nowhere", "textgoto", "lookup", phone(130), result="invalid"),
    case("credits", "textgoto", "balance", result={"currency": None, "available": ANY}),
    case("a wrong password", "wronggoto", "balance", result="unauthorized"),
    case("a person", "textgoto", "list.append", arguments={"list": "friends", "number": phone(4)}),
    case("a number that is none", "textgoto", "list.append", arguments={"list": "friends", "number": phone(101)},
         result="invalid"),
    case("people", "textgoto", "optout.add", arguments={"numbers": f"{phone(64)},{phone(65)}"}),
    case("nobody", "textgoto", "optout.add", result="invalid"),
]  # fmt: skip

CASES: Final = [
    *club("clubtexting", 212),
    *club("xmlclub", 213),
    case("no credits", "brokeclub", "send", american(154), result="insufficient_funds"),
    case("no access", "guestclub", "balance", result="unauthorized"),
    *MOB,
    *GOTO,
    *the("thetexting", 310),
    *the("xmlthe", 312),
    # Its Status 1 may mean anything: nobody can tell that from a text that went out.
    case("no money", "brokethe", "send", phone(5), result="ambiguous"),
    case("a wrong secret", "wrongthe", "balance", result="unauthorized"),
]  # fmt: skip


def command(one: Case, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command line that does it."""
    told = [f"{name}={value}" for name, value in arguments.items()]
    if one.operation == "send":
        options = [f"--option={pair}" for pair in told if not pair.startswith(("text=", "sender="))]
        sender = [f"--sender={arguments['sender']}"] if "sender" in arguments else []
        words = ["send", one.to, arguments.get("text", "Hello"), *sender, *options, "--provider", one.account]
    elif one.operation in {"lookup", "verify"}:
        words = [one.operation, one.to, "--provider", one.account]
    else:
        words = ["op", one.account, one.operation, *told]
    return [*words, *(["--arguments", "-"] if one.card else []), "--wait", "--json", "--reveal"]


def alike(told: Any, wanted: Any) -> bool:
    """Say whether an answer has what is wanted; of objects it may have more."""
    if wanted is ANY:
        return told is not None
    if isinstance(wanted, Mapping):
        return isinstance(told, dict) and all(name in told and alike(told[name], one) for name, one in wanted.items())
    if isinstance(wanted, list):
        return isinstance(told, list) and len(told) == len(wanted) and all(map(alike, told, wanted))
    return bool(told == wanted) and type(told) is type(wanted)


def refused_at_last(d: Dispatcher, one: Case, arguments: Mapping[str, Any]) -> Job:
    """Enqueue what the command line would not; return it as it ended, or as it waits for an account to be mended."""
    if one.operation == "send":
        # Another provider may have told that they opted out, and then this one would not be asked.
        d.opt_in(one.to)
        job = d.send(one.to, "Hello", provider=one.account, sender=arguments.get("sender", ""),
                     options={name: value for name, value in arguments.items() if name != "sender"})  # fmt: skip
    elif one.operation in {"verify", "lookup"}:
        job = getattr(d, one.operation)(one.to, provider=one.account)
    else:
        job = d.operation(one.account, one.operation, arguments=dict(arguments))

    def over() -> Job | None:
        now = d.get(job.id)
        return now if now.settled or (now.waiting is not None and now.waiting.reason == "suspended") else None

    return until(over, what="its end") or job


@pytest.mark.parametrize("one", CASES)
def test_an_operation_ends_as_it_must(one: Case, cli: Run, d: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = one.arguments(d) if callable(one.arguments) else one.arguments
    if one.card:
        monkeypatch.setenv("DISPATCHER_ALLOW_CARD_DATA", "1")
    if isinstance(one.result, str) and not one.card:
        job = refused_at_last(d, one, arguments)
        kind = job.failure.kind if job.failure else ""
        assert job.failure is not None, job.history
        assert kind == one.result, (job.failure, job.history)
        return
    ended = cli(*command(one, arguments), stdin=msgspec.json.encode(dict(one.card)).decode())
    told = ended.document
    if isinstance(one.result, str):
        assert (ended.code, told["state"], told["failure"]["kind"]) == (1, "failed", one.result), told
        return
    assert (ended.code, told["state"]) == (0, SENT if one.operation == "send" else COMPLETED), told
    assert alike(told["result"] or {}, one.result), told["result"]


def test_a_case_is_there_for_all_that_an_adapter_declares() -> None:
    """A good end and a refused one, in either format where there are two."""
    cases = [one.values[0] for one in CASES]
    adapters = {name: OTHERS.get(name, {}).get("adapter", name) for name in {one.account for one in cases}}
    wanted = {(name, operation) for name in adapters.values() for operation in available()[name].operations}
    good = {(adapters[one.account], one.operation) for one in cases if not isinstance(one.result, str)}
    good |= {(name, "verify") for name in VERIFIED} | {("mobtexting", "verify.check")}
    refused = {(adapters[one.account], one.operation) for one in cases if isinstance(one.result, str)}
    assert wanted - good == set()
    assert wanted - refused == {("mobtexting", "verify.check")}, "its refusal is the wrong code, below"
    assert set(adapters.values()) == {"clubtexting", "mobtexting", "textgoto", "thetexting"}


# -- one-time codes ----------------------------------------------------------------------------------------------------

#: By account whom a code is sent to.
VERIFIED: Final = {
    "clubtexting": american(156), "mobtexting": phone(71), "textgoto": phone(72), "thetexting": phone(73),
    "xmlclub": american(157), "xmlthe": phone(74),
}  # fmt: skip


@pytest.mark.parametrize(("account", "number"), VERIFIED.items(), ids=VERIFIED)
def test_a_code_is_sent_and_checked(account: str, number: str, all_four: Four, cli: Run) -> None:
    """Whoever makes it, and whoever judges it."""
    words = ["--template", "Canary [CODE] is yours"]
    verification = cli("verify", number, "--provider", account, *words, "--wait", "--json").document
    (text,) = [one.text for one in all_four.sandbox.inbox(number)]
    (code,) = re.fullmatch(r"Canary (\d{6}) is yours", text).groups()  # type: ignore[union-attr]  # it is one
    wrong = f"{(int(code) + 1) % 1_000_000:06}"
    ends = [cli("check", verification["id"], one, "--json") for one in (wrong, code, code)]
    assert [(one.code, one.document["valid"], one.document["status"]) for one in ends] == [
        (1, False, "pending"),
        (0, True, "approved"),
        (1, False, "approved"),
    ]
    seen = unpacked(kept(all_four.redis)) + b"".join(one.output().encode() for one in all_four.workers.values())
    assert not re.search(rf"(?<!\d){code}(?!\d)".encode(), seen)


# -- cards -------------------------------------------------------------------------------------------------------------


def test_a_card_is_nowhere_to_be_found(
    all_four: Four, d: Dispatcher, cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while its job waits nor afterwards, not even after an answer that was lost; and it is then erased."""
    monkeypatch.setenv("DISPATCHER_ALLOW_CARD_DATA", "1")
    buy = ("op", "clubtexting", "credits.buy", "number_of_credits=77", "--arguments", "-", "--json")
    # Nobody serves this account, so that the card lies there until its job is taken back.
    with all_four.client(allow_card_data=True, providers={"unserved": {"adapter": "clubtexting"}}, **KEYS) as buyer:
        waiting = buyer.operation("unserved", "keyword.rent", arguments={"keyword": "waits", **CARD})
        assert all_four.redis.hexists(f"d:j:{waiting.id}", "xc")
        before = unpacked(kept(all_four.redis))
        buyer.cancel(waiting.id)
        assert not all_four.redis.hexists(f"d:j:{waiting.id}", "xc")
    all_four.sandbox.fault("drop-after", action="POST /billing/credits", times=1)
    lost = cli(*buy, "--wait", stdin=msgspec.json.encode(CARD).decode())
    assert (lost.code, lost.document["state"]) == (1, "unknown")
    jobs = d.jobs(provider="clubtexting", limit=1000) + d.jobs(provider="xmlclub", limit=1000)
    assert [job.id for job in jobs if all_four.redis.hexists(f"d:j:{job.id}", "xc")] == []
    everything = {
        "the store before": before,
        "the store": unpacked(kept(all_four.redis)),
        "the server's files": b"".join(one.read_bytes() for one in all_four.server.folder.rglob("*") if one.is_file()),
        "logs": b"".join(one.output().encode() for one in all_four.workers.values()),
        "jobs": msgspec.json.encode([d.get(job.id, reveal=True).to_dict() for job in jobs]),
        "events": msgspec.json.encode([event.data for event in d.events("0", timeout=0, reveal=True)]),
        "the sandbox": msgspec.json.encode(all_four.sandbox.ledger()),
    }
    leaks = {(where, one) for where, what in everything.items() for one in CARD_CANARIES if one.encode() in what}
    assert leaks == set()
    assert all(everything.values())


def test_a_card_is_taken_on_standard_input_only_and_where_that_is_allowed(cli: Run, d: Dispatcher) -> None:
    before = len(d.jobs(limit=1000))
    refused = cli("op", "clubtexting", "keyword.rent", "keyword=x", "--arguments", "-",
                  stdin=msgspec.json.encode(CARD).decode())  # fmt: skip
    assert refused.code == 2
    assert "DISPATCHER_ALLOW_CARD_DATA=1" in refused.err
    refused = cli("op", "clubtexting", "keyword.rent", "keyword=x", "card_number=4111111111111111")
    assert refused.code == 2
    assert "standard input" in refused.err
    assert "4111" not in refused.err
    assert len(d.jobs(limit=1000)) == before


def test_who_left_one_sender_is_not_on_our_list_of_those_who_want_nothing(all_four: Four, cli: Run) -> None:
    assert cli("op", "mobtexting", "optout.add", f"number={phone(66)}", "type=sender", "value=ACME", "--wait").code == 0
    assert cli("send", phone(66), "Hello", "--provider", "textgoto", "--wait").code == 0
    assert cli("op", "mobtexting", "optout.add", f"number={phone(66)}", "--wait").code == 0
    assert "opted_out" in cli("send", phone(66), "Hello", "--provider", "textgoto", "--wait").out


# -- many at once, and later -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "numbers", "counts"),
    [
        pytest.param(
            "clubtexting",
            {american(n, 313): "sent" for n in range(160, 170)}
            | {american(100, 313): "LocalOptOuts", american(134, 313): "GlobalOptOuts", american(171, 313): "list"},
            {"sent": 10, "failed": 3},
            id="Club Texting",
        ),
        pytest.param(
            "xmlclub",
            {american(n, 314): "sent" for n in range(160, 162)} | {american(100, 314): "LocalOptOuts"},
            {"sent": 2, "failed": 1},
            id="Club Texting, in XML",
        ),
        pytest.param(
            "mobtexting",
            {phone(n): "delivered" for n in range(200, 210)}
            | {phone(100): "BLACKLST", phone(101): "INV-NUMBER", phone(211): "list"},
            {"delivered": 10, "failed": 3},
            id="MobTexting",
        ),
        pytest.param(
            "textgoto",
            {phone(n): "sent" for n in range(220, 225)} | {phone(100): "MSISDN_BLOCKED", phone(211): "list"},
            {"sent": 5, "failed": 2},
            id="TextGoto",
        ),
    ],
)
def test_of_many_in_one_request_each_ends_as_it_is_told(
    account: str, numbers: dict[str, str], counts: dict[str, int], all_four: Four, d: Dispatcher
) -> None:
    """Who is on our own list is not in the request at all; who has left the provider's is told in a good answer.

    From then on they are on ours, too.
    """
    for number, end in numbers.items():
        (d.opt_out if end == "list" else d.opt_in)(number)
    seen = len(all_four.sandbox.ledger())
    batch = d.send_many([Message(number, "The doors are open.") for number in numbers], provider=account)
    until(lambda: batch.counts == counts, what=f"{counts}")
    rows = all_four.sandbox.ledger()[seen:]
    assert len({row.request for row in rows if row.kind == "send"}) == 1
    ends = {job.to: job for job in d.jobs(batch=batch.id, reveal=True, limit=100)}
    told = {number: str(job.failure.code) if job.failure else str(job.state) for number, job in ends.items()}
    assert told == numbers
    blocked = {number for number, end in numbers.items() if end in {"LocalOptOuts", "GlobalOptOuts", "MSISDN_BLOCKED"}}
    assert {number for number in numbers if account in d.blocked_by(number)} >= blocked


LATER: Final = [
    pytest.param("clubtexting", american(172), lambda at: {"stamp_to_send": f"{at.timestamp():.0f}"}, id="StampToSend"),
    pytest.param("xmlclub", american(173), lambda at: {"stamp_to_send": f"{at.timestamp():.0f}"}, id="the same in XML"),
    pytest.param("mobtexting", phone(75), lambda at: {"time": f"{at:%Y-%m-%d %H:%M:%S}"}, id="MobTexting's time"),
    pytest.param("textgoto", phone(76), lambda at: {"time": f"{at:%Y-%m-%d %H:%M:%S}"}, id="TextGoto's time"),
]


@pytest.mark.parametrize(("account", "number", "option"), LATER)
def test_a_provider_keeps_a_text_until_its_time(
    account: str, number: str, option: Callable[[datetime], dict[str, str]], all_four: Four, cli: Run
) -> None:
    at = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    ((name, value),) = option(at).items()
    ended = cli("send", number, "Tomorrow", "--provider", account, f"--option={name}={value}", "--wait", "--json")
    assert (ended.code, ended.document["state"]) == (0, "sent"), ended
    (row,) = [one for one in all_four.rows("send") if one.msisdn == number[1:]]
    assert row.due == at.timestamp()
    assert all_four.sandbox.inbox(number) == []


# -- what the command line tells of it ---------------------------------------------------------------------------------


def test_the_matrix_of_all_accounts(cli: Run) -> None:
    ended = cli("providers")
    assert ended.code == 0
    for name in ("clubtexting", "mobtexting", "textgoto", "thetexting"):
        for operation, one in available()[name].operations.items():
            assert operation in ended.out
            assert one.source in ended.out
        assert all(reason in ended.out for reason in available()[name].unsupported)
    assert "live" in ended.out


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        (name, one)
        for name in ("clubtexting", "mobtexting", "textgoto", "thetexting")
        for one in available()[name].operations
    ],
)
def test_an_operations_help(name: str, operation: str, cli: Run) -> None:
    ended = cli("op", name, operation, "--help")
    assert ended.code == 0
    told = available()[name].operations[operation]
    words = " ".join(ended.out.split())
    assert told.about.rstrip(".") in words
    assert all(argument in words for argument in told.arguments)
    if operation in COMMANDS:
        assert COMMANDS[operation] in words


def test_what_a_vendor_does_not_offer_is_refused_with_the_reason(cli: Run, d: Dispatcher) -> None:
    for name in ("clubtexting", "mobtexting", "textgoto", "thetexting"):
        for operation, reason in available()[name].unsupported.items():
            ended = cli("op", name, operation)
            if operation in COMMANDS:
                continue
            assert ended.code == 2, (name, operation)
            assert reason in " ".join(ended.err.split())
    with pytest.raises(Unsupported):
        d.operation("clubtexting", "number.buy", number=phone(1))
