"""What each vendor's answer says of a number, in the one shape: every provider's words, and what it is silent about."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.lookups import UNKNOWN, Facts, Network
from tests.providers import test_clubtexting, test_mobtexting, test_textgoto, test_thetexting
from workers.conformance import Subject

GOTO, MOB, THE, CLUB = (one.SUBJECT for one in (test_textgoto, test_mobtexting, test_thetexting, test_clubtexting))

BRITISH = "+447700900123"
AMERICAN = "+12125550100"

HLR: dict[str, Any] = {
    "number": "447700900123", "country": "United Kingdom", "orig_network": "One", "ported_network": "One",
    "roaming_country": "United Kingdom", "roaming_network": "One", "ported": False, "roaming": False,
    "error_code": "DELIVRD", "is_perm_err": "0",
}  # fmt: skip
REGISTER: dict[str, Any] = {
    "phone": "+919490000000", "mcc_mnc": "40473", "imsi": "404730000000000", "serving_msc": "919000",
    "status": "SUCCESS", "ported": False, "roaming": False,
    "original_network": {
        "network_prefix": "94900", "country_prefix": "91", "network_name": "BSNL", "country_name": "India",
        "state_name": "Andhra Pradesh",
    },
    "ported_network": {
        "ported_network_prefix": None, "ported_country_prefix": None, "ported_network_name": None,
        "ported_country_name": None, "ported_state_name": None,
    },
}  # fmt: skip
PORTED = REGISTER["ported_network"] | {"ported_network_name": "Two", "ported_country_prefix": "91"}
NUMBER_LOOKUP: dict[str, Any] = {
    "international_format_number": BRITISH, "phone_number_iso2_code": "GB", "phone_number_type": "mobile",
    "mccmnc": "23430", "serving_msc": "447700", "imsi": "234300000000000", "lookup_status": "No Error",
    "is_ported": False,
    "original_carrier": {
        "carrier_name": "One", "carrier_prefix": "7700", "carrier_country_name": "United Kingdom",
        "carrier_country_prefix": "44",
    },
}  # fmt: skip

ONE = Network(name="One", country="GB")
MOBILE_ONE = Network(name="One", mcc="234", mnc="30", country="GB")
BSNL = Network(name="BSNL", mcc="404", mnc="73", country="IN")
AT_HOME = Facts(
    country="GB", line_type="mobile", original_network=ONE, current_network=ONE, ported=False, roaming=False,
    reachable=True,
)  # fmt: skip
INDIAN = Facts(
    country="IN", line_type="mobile", original_network=BSNL, current_network=BSNL, ported=False, roaming=False,
    reachable=True,
)  # fmt: skip
CARRIED = Facts(
    country="GB", line_type="mobile", original_network=MOBILE_ONE, current_network=MOBILE_ONE, ported=False,
    roaming=False,
)  # fmt: skip


def but(facts: Facts, **changes: Any) -> Facts:
    """The same facts, some of them changed."""
    return Facts(**{name: getattr(facts, name) for name in Facts.__struct_fields__} | changes)


def without(raw: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in names}


@pytest.mark.parametrize(
    ("subject", "raw", "number", "facts"),
    [
        # -- TextGoto, HLR
        pytest.param(GOTO, HLR, BRITISH, AT_HOME, id="textgoto: at home, and never ported"),
        pytest.param(
            GOTO, HLR | {"ported": True, "ported_network": "Two"}, BRITISH,
            but(AT_HOME, ported=True, current_network=Network(name="Two", country="GB")), id="textgoto: ported",
        ),
        pytest.param(GOTO, HLR | {"roaming": True}, BRITISH, but(AT_HOME, roaming=True), id="textgoto: roaming"),
        pytest.param(
            GOTO, HLR | {"error_code": "ABSENT-SUB"}, BRITISH, but(AT_HOME, reachable=False),
            id="textgoto: out of reach",
        ),
        pytest.param(
            GOTO, without(HLR, "ported_network"), BRITISH, AT_HOME,
            id="textgoto: what is not ported is where it was, whether that is said or not",
        ),
        pytest.param(
            GOTO, without(HLR, "ported", "roaming"), BRITISH, but(AT_HOME, ported=UNKNOWN, roaming=UNKNOWN),
            id="textgoto: silent about ported and roaming",
        ),
        pytest.param(
            GOTO, HLR | {"country": "Nowhere"}, BRITISH,
            but(AT_HOME, country=UNKNOWN, original_network=Network(name="One"), current_network=Network(name="One")),
            id="textgoto: a country that nobody knows",
        ),
        pytest.param(
            GOTO, {"error_code": "DELIVRD"}, BRITISH, Facts(line_type="mobile", reachable=True),
            id="textgoto: nothing but that it is there",
        ),
        # -- MobTexting, lookup/verify
        pytest.param(MOB, REGISTER, "+919490000000", INDIAN, id="mobtexting: the page's own sample"),
        pytest.param(
            MOB, REGISTER | {"ported": True, "ported_network": PORTED}, "+919490000000",
            but(
                INDIAN, ported=True, original_network=Network(name="BSNL", country="IN"),
                current_network=Network(name="Two", mcc="404", mnc="73", country="IN"),
            ),
            id="mobtexting: ported, and the codes are those of the network that serves it",
        ),
        pytest.param(MOB, REGISTER | {"roaming": True}, "+919490000000", but(INDIAN, roaming=True),
                     id="mobtexting: roaming"),
        pytest.param(MOB, REGISTER | {"status": "ABSENT-SUB"}, "+919490000000", but(INDIAN, reachable=False),
                     id="mobtexting: out of reach"),
        pytest.param(
            MOB, REGISTER | {"mcc_mnc": "4"}, "+919490000000",
            but(INDIAN, original_network=Network(name="BSNL", country="IN"),
                current_network=Network(name="BSNL", country="IN")),
            id="mobtexting: codes that are none",
        ),
        pytest.param(
            MOB, without(REGISTER, "ported", "roaming", "original_network", "ported_network"), "+919490000000",
            Facts(line_type="mobile", reachable=True, current_network=Network(mcc="404", mnc="73")),
            id="mobtexting: silent about all but the network's codes",
        ),
        pytest.param(MOB, {"status": "SUCCESS", "original_network": None, "ported_network": "Two"}, "+919490000000",
                     Facts(line_type="mobile", reachable=True), id="mobtexting: networks of another type"),
        # -- TheTexting, NumberLookup
        pytest.param(THE, NUMBER_LOOKUP, BRITISH, CARRIED, id="thetexting: at home, and never ported"),
        pytest.param(
            THE, NUMBER_LOOKUP | {"is_ported": True}, BRITISH,
            but(CARRIED, ported=True, original_network=ONE, current_network=Network(mcc="234", mnc="30")),
            id="thetexting: ported, and nobody says to whom but by the codes",
        ),
        pytest.param(THE, NUMBER_LOOKUP | {"serving_msc": "33609001390"}, BRITISH, but(CARRIED, roaming=True),
                     id="thetexting: an exchange abroad"),
        pytest.param(THE, NUMBER_LOOKUP | {"lookup_status": "Absent Subscriber"}, BRITISH,
                     but(CARRIED, reachable=False), id="thetexting: out of reach"),
        *(
            pytest.param(THE, NUMBER_LOOKUP | {"phone_number_type": word}, BRITISH, but(CARRIED, line_type=kind),
                         id=f"thetexting: {word!r}")
            for word, kind in (("fixed line", "fixed_line"), ("VoIP", "voip"), ("satellite", UNKNOWN), (None, UNKNOWN))
        ),
        pytest.param(
            THE, test_thetexting.LOOKED_UP, AMERICAN,
            Facts(
                country="US", line_type="mobile", ported=False, roaming=False,
                original_network=Network(name="Sandbox Wireless", country="US"),
                current_network=Network(name="Sandbox Wireless", country="US"),
            ),
            id="thetexting: no codes of a number in the United States",
        ),
        pytest.param(
            THE,
            NUMBER_LOOKUP | {"original_carrier": {"carrier_name": "One", "carrier_country_prefix": "353"}},
            BRITISH,
            but(
                CARRIED, original_network=Network(name="One", mcc="234", mnc="30", country="IE"),
                current_network=Network(name="One", mcc="234", mnc="30", country="IE"),
            ),
            id="thetexting: a country by its calling code",
        ),
        pytest.param(THE, {"lookup_status": "No Error"}, BRITISH, Facts(), id="thetexting: nothing but no error"),
        # -- Club Texting, Carrier Lookup
        pytest.param(
            CLUB, {"phone_number": AMERICAN, "carrier_name": "ATTUS"}, AMERICAN,
            Facts(current_network=Network(name="ATTUS", country="US")), id="clubtexting: a carrier's code",
        ),
        pytest.param(CLUB, {"carrier_name": "ROGERSCA"}, AMERICAN,
                     Facts(current_network=Network(name="ROGERSCA", country="CA")), id="clubtexting: in Canada"),
        pytest.param(CLUB, {"carrier_name": "OTHER"}, AMERICAN, Facts(current_network=Network(name="OTHER")),
                     id="clubtexting: a code that tells no country"),
        # -- all
        *(
            pytest.param(subject, {}, BRITISH, facts, id=f"{subject.adapter.name}: silent")
            for subject, facts in (
                (GOTO, Facts(line_type="mobile")), (MOB, Facts(line_type="mobile")), (THE, Facts()), (CLUB, Facts()),
            )
        ),
    ],
)  # fmt: skip
def test_an_answer_says(subject: Subject, raw: dict[str, Any], number: str, facts: Facts) -> None:
    assert subject.made().number_facts(raw, number) == facts
