"""Which accounts there are, which adapter each speaks through, and settings that cannot work, named before a start."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import msgspec
import pytest

from dispatcher.accounts import Account
from dispatcher.errors import ConfigurationError
from tests.unit.support import leaks
from tests.unit.support import settings as made
from workers.adapters import GROUP, adapter, adapters, available, configured, described
from workers.providers.base import setting
from workers.providers.textgoto import TextGoto

SANDBOX = "http://127.0.0.1:8460"
#: What the sandbox plays.
PLAYED = {"thetexting", "clubtexting", "textgoto", "mobtexting"}


def accounts(**fields: str) -> dict[str, dict[str, str]]:
    """Settings of one account, `textgoto`, with credentials."""
    return {"textgoto": {"uid": "acme", "pwd": "canary"} | fields}


def test_adapters_are_found_by_their_entry_points() -> None:
    assert available()["textgoto"] is TextGoto
    assert set(available()) == {point.name for point in entry_points(group=GROUP)}


@pytest.mark.parametrize(
    ("told", "names"),
    [
        pytest.param({}, [], id="nothing is set"),
        pytest.param({"providers": accounts()}, ["textgoto"], id="one account"),
        pytest.param({"providers": {"shop_b": {}, "shop_a": {}}}, ["shop_a", "shop_b"], id="two, in order"),
        pytest.param({"sandbox": True}, sorted(PLAYED), id="in the sandbox every provider that it plays has one"),
        pytest.param(
            {"sandbox": True, "providers": {"shop": {}}}, sorted({"shop", *PLAYED}), id="beside those that are set"
        ),
    ],
)
def test_these_accounts_can_work_here(told: dict[str, Any], names: list[str]) -> None:
    assert configured(made(**told)) == names


# -- the adapter of an account -----------------------------------------------------------------------------------------


def test_an_account_speaks_through_the_adapter_of_its_name() -> None:
    one = adapter(made(providers=accounts()), "textgoto")
    assert isinstance(one, TextGoto)
    assert (one.account, one.settings["uid"], one.origin) == ("textgoto", "acme", "https://textgoto.com")


def test_an_account_of_another_name_says_which_adapter_it_means() -> None:
    told = made(providers={"shop_a": {"adapter": "textgoto", "uid": "a", "pwd": "b"}})
    one = adapter(told, "shop_a")
    assert isinstance(one, TextGoto)
    assert one.account == "shop_a"


def test_two_accounts_at_one_vendor_have_two_adapters() -> None:
    told = made(
        providers={name: {"adapter": "textgoto", "uid": name, "pwd": "b"} for name in ("shop_a", "shop_b")},
    )
    both = adapters(told, ["shop_a", "shop_b"])
    assert {name: one.settings["uid"] for name, one in both.items()} == {"shop_a": "shop_a", "shop_b": "shop_b"}


@pytest.mark.parametrize(
    ("account", "fields", "words"),
    [
        pytest.param(
            "nobody", {}, r"no adapter 'nobody' \(installed: .*textgoto.*\); set DISPATCHER_PROVIDERS__NOBODY__ADAPTER",
            id="an account nobody knows",
        ),
        pytest.param(
            "shop", {"adapter": "nobody", "uid": "a"}, "no adapter 'nobody'.*DISPATCHER_PROVIDERS__SHOP__ADAPTER",
            id="an adapter nobody knows",
        ),
        pytest.param("textgoto", {}, "DISPATCHER_PROVIDERS__TEXTGOTO__UID is not set", id="no credentials"),
        pytest.param(
            "textgoto", {"uid": "acme"}, "DISPATCHER_PROVIDERS__TEXTGOTO__PWD is not set", id="half the credentials"
        ),
        pytest.param(
            "textgoto", {"uid": "a", "pwd": ""}, "DISPATCHER_PROVIDERS__TEXTGOTO__PWD is not set", id="empty password"
        ),
        pytest.param(
            "textgoto", {"uid": "a", "pwd": "canary", "password": "canary"},
            "DISPATCHER_PROVIDERS__TEXTGOTO__PASSWORD is no setting of textgoto; there are: .*pwd.*uid",
            id="a setting nobody knows",
        ),
        pytest.param(
            "textgoto", {"uid": "a", "pwd": "canary", "limits": "send=10/s,gets=1/s"},
            "DISPATCHER_PROVIDERS__TEXTGOTO__LIMITS has 'gets=1/s', which names no bucket that there is; there are: ",
            id="a limit of nothing that there is",
        ),
        *(
            pytest.param(
                "textgoto", {"uid": "a", "pwd": "canary", name: value},
                f"DISPATCHER_PROVIDERS__TEXTGOTO__{name.upper()} must be a whole number above 0",
                id=f"{name} {value!r}",
            )
            for name in ("group_size", "concurrency") for value in ("0", "-1", "1.5", "many", "²", " 5")
        ),
        *(
            pytest.param(
                "textgoto", {"uid": "a", "pwd": "canary", "base_url": value},
                "DISPATCHER_PROVIDERS__TEXTGOTO__BASE_URL", id=f"address {value!r}",
            )
            for value in (
                "textgoto.com", "ftp://textgoto.com", "https://", "https://user:canary@textgoto.com",
                "https://textgoto.com/api?key=canary", "https://textgoto.com/api", "https://text goto.com",
            )
        ),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_work_is_named_and_its_value_is_not(
    account: str, fields: dict[str, str], words: str
) -> None:
    """BASE_URL is an origin: a scheme, a host and perhaps a port."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        adapter(made(providers={account: fields} if fields else {}), account)
    assert not leaks(str(refused.value), "canary")


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({}, "https://textgoto.com"),
        ({"base_url": ""}, "https://textgoto.com"),
        ({"base_url": "http://textgoto.com"}, "http://textgoto.com"),
        ({"base_url": "https://127.0.0.1:8443/"}, "https://127.0.0.1:8443"),
        ({"base_url": "http://[::1]:8460"}, "http://[::1]:8460"),
    ],
    ids=["the vendor's own", "empty: the vendor's own", "plain, asked for", "a trailing slash", "IPv6"],
)
def test_requests_go_to_the_origin_that_is_set(fields: dict[str, str], origin: str) -> None:
    assert adapter(made(providers=accounts(**fields)), "textgoto").origin == origin


@pytest.mark.parametrize("name", ["group_size", "concurrency", "callback_token", "adapter"])
def test_settings_that_every_account_may_have_are_taken(name: str) -> None:
    value = "textgoto" if name == "adapter" else "5"
    assert adapter(made(providers=accounts(**{name: value})), "textgoto").settings[name] == value


def test_what_is_set_to_nothing_is_not_set() -> None:
    """So that a compose file can name every setting, whether it has a value or not."""
    one = adapter(made(providers=accounts(group_size="", base_url="")), "textgoto")
    assert not {"group_size", "base_url"} & set(one.settings)


def test_of_several_accounts_one_that_cannot_work_is_enough_to_refuse() -> None:
    told = made(providers=accounts() | {"shop": {"adapter": "textgoto"}})
    with pytest.raises(ConfigurationError, match="DISPATCHER_PROVIDERS__SHOP__UID is not set"):
        adapters(told, ["textgoto", "shop"])


# -- the sandbox -------------------------------------------------------------------------------------------------------


def test_in_the_sandbox_an_account_without_credentials_gets_the_sandboxs() -> None:
    one = adapter(made(sandbox=True, sandbox_url=SANDBOX), "textgoto")
    assert (one.settings["uid"], one.settings["pwd"], one.origin) == ("sandbox", "sandbox", SANDBOX)


def test_in_the_sandbox_an_account_keeps_what_is_set_of_it() -> None:
    told = made(sandbox=True, sandbox_url=SANDBOX, providers=accounts(group_size="3"))
    one = adapter(told, "textgoto")
    assert (one.settings["uid"], one.settings["pwd"], one.settings["group_size"]) == ("acme", "canary", "3")
    assert one.origin == SANDBOX


def test_in_the_sandbox_half_the_credentials_are_still_half() -> None:
    """Mixed with the sandbox's they would be nobody's."""
    told = made(sandbox=True, sandbox_url=SANDBOX, providers={"textgoto": {"uid": "acme"}})
    with pytest.raises(ConfigurationError, match="DISPATCHER_PROVIDERS__TEXTGOTO__PWD is not set"):
        adapter(told, "textgoto")


def test_in_the_sandbox_nothing_goes_to_the_vendor() -> None:
    with pytest.raises(ConfigurationError, match="DISPATCHER_SANDBOX_URL is not set; start `dispatcher sandbox`"):
        adapter(made(sandbox=True), "textgoto")
    told = made(sandbox=True, sandbox_url=SANDBOX, providers=accounts(base_url=""))
    assert adapter(told, "textgoto").origin == SANDBOX, "an empty address is none"


class Elsewhere(TextGoto):
    """Somebody else's adapter."""

    name = "elsewhere"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with an adapter that is not ours."""
    everything = available() | {"elsewhere": Elsewhere}
    monkeypatch.setattr("workers.adapters.available", lambda: everything)


@pytest.mark.usefixtures("installed")
def test_in_the_sandbox_an_adapter_that_it_does_not_play_has_no_account_of_itself() -> None:
    assert configured(made(sandbox=True, sandbox_url=SANDBOX)) == sorted(PLAYED)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("fields", [{}, {"uid": "acme", "pwd": "canary"}, {"base_url": ""}])
def test_in_the_sandbox_an_adapter_that_it_does_not_play_needs_an_address(fields: dict[str, str]) -> None:
    """Requests that the sandbox cannot answer would look like a provider that is down."""
    told = made(sandbox=True, sandbox_url=SANDBOX, providers={"shop": {"adapter": "elsewhere", **fields}})
    with pytest.raises(
        ConfigurationError, match=r"does not play elsewhere.*DISPATCHER_PROVIDERS__SHOP__BASE_URL"
    ) as no:
        adapter(told, "shop")
    assert not leaks(str(no.value), "canary")


@pytest.mark.usefixtures("installed")
def test_in_the_sandbox_an_adapter_that_it_does_not_play_works_at_an_address_of_ones_own() -> None:
    account = {"base_url": "http://127.0.0.1:1"}
    told = made(sandbox=True, sandbox_url=SANDBOX, providers={"elsewhere": account})
    one = adapter(told, "elsewhere")
    assert isinstance(one, Elsewhere)
    assert (one.origin, one.settings["uid"]) == ("http://127.0.0.1:1", "sandbox")


def test_in_the_sandbox_an_address_of_ones_own_is_obeyed() -> None:
    told = made(sandbox=True, sandbox_url=SANDBOX, providers=accounts(base_url="http://127.0.0.1:1"))
    assert adapter(told, "textgoto").origin == "http://127.0.0.1:1"


# -- what is published -------------------------------------------------------------------------------------------------


def test_a_worker_publishes_what_an_account_can_do_and_none_of_its_credentials() -> None:
    one = adapter(made(providers=accounts()), "textgoto")
    told = described(one, sandbox=False)
    assert (told.name, told.adapter, told.sandbox) == ("textgoto", "textgoto", False)
    assert told.operations == ["balance", "list.append", "lookup", "optout.add", "send", "verify"]
    assert told.unsupported["report"] == "the JSON API has no call for delivery reports"
    assert told.capabilities["recipients"] == "100"
    assert told.capabilities["verification"] == "provider"
    assert not leaks(repr(told) + msgspec.json.encode(told).decode(), "canary", "acme")


@pytest.mark.parametrize("sandbox", [False, True])
def test_what_is_published_is_read_by_the_applications(sandbox: bool) -> None:
    one = adapter(made(sandbox=sandbox, sandbox_url=SANDBOX, providers=accounts()), "textgoto")
    told = described(one, sandbox=sandbox)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Account) == told


def test_a_worker_publishes_what_each_operation_takes() -> None:
    """An application without adapters shows and checks it."""
    told = described(adapter(made(providers=accounts()), "textgoto"), sandbox=False).schemas
    assert set(told) == set(TextGoto.operations)
    assert {name: one.required for name, one in told["list.append"].arguments.items()} == {
        "list": True,
        "number": True,
    }
    assert (told["balance"].source, told["balance"].repeat, told["balance"].paid) == ("document", "always", False)
    assert told["balance"].about == TextGoto.operations["balance"].about


def test_what_the_release_before_published_is_read() -> None:
    old = b'{"name":"textgoto","adapter":"textgoto","operations":["send"],"capabilities":{"recipients":"100"}}'
    assert msgspec.json.decode(old, type=Account).schemas == {}


def test_the_release_before_reads_what_is_published_now() -> None:
    class Before(msgspec.Struct, kw_only=True):
        name: str
        operations: list[str] = []

    told = described(adapter(made(providers=accounts()), "textgoto"), sandbox=False)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Before).operations == told.operations


def test_a_setting_is_named_as_it_is_set() -> None:
    assert setting("shop_a", "base_url") == "DISPATCHER_PROVIDERS__SHOP_A__BASE_URL"
