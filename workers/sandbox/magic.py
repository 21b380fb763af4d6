"""Phone numbers that make things happen, by their last three digits.

They lie in ranges that regulators keep free for drama, so that none is anybody's phone: Ofcom's +44 7700 900
000 to 900 999, and North America's +1 ... 555 0100 to 0199. All other numbers are ordinary phones.

| +44 7700 900 ... | what the provider does |
|---|---|
| 100 | blocked |
| 101 | invalid |
| 102 | refused without a reason |
| 103 | not sent, every time |
| 104 | not sent the first time, then accepted |
| 105 | nobody knows, and the phone gets nothing |
| 106 | the whole request is turned away the first time, then accepted |
| 107 | the whole request is turned away, every time |
| 108 | nobody knows, and the phone gets the text |
| 109 | accepted; the code of its verifications is always 012837, where the provider makes it |
| 110 | accepted, then no answer: `hang-after` |
| 111 | accepted, then the connection is reset: `reset-after` |
| 112 | the connection is reset before accepting: `reset-before` |
| 113 | accepted, then status 500: `500-after` |
| 114 | status 500 before accepting: `500` |
| 115 | accepted, then half of an answer: `half` |
| 116 | accepted, then bytes that are no HTTP: `garbage` |
| 117 | accepted, answered 2 s late: `latency` |
| 118 | accepted, then the connection is closed without an answer: `drop-after` |
| 119 | status 429 with `Retry-After: 1` the first time, then accepted |
| 120 | status 503 with `Retry-After: 1` the first time, then accepted |
| 121 | no answer, and nothing accepted: `hang-before` |
| 122 | the connection is closed before accepting: `drop-before` |
| 125 | accepted, then a page in place of the answer: `html` |
| 130 | lookup: unreachable for good |
| 131 | lookup: unreachable for now |
| 132 | lookup: ported to another network |
| 133 | lookup: roaming abroad |
| 134 | blocked for all of the provider's customers, where it tells that from 100 (Club Texting) |
| 140 | accepted, but the phone never gets it; the receipt says so |
| 141 | the receipt comes twice |
| 142 | the receipt comes 5 s later than others |
| 143 | the receipt comes before the answer |
| 144 | no receipt, ever |
| 145 | the receipt, and 5 s later one that says it is still on its way |

From 110 to 125 the whole request meets the fault, whatever it asks and whoever else is in it; with several
such numbers in one request, the first counts. *The first time* is by provider, action and number, since the
last reset. From 141 to 145 the text itself arrives like any other; a provider that sends no receipts accepts
these numbers as it accepts all. `docs/sandbox.md` has the words in which each provider answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, Literal

import msgspec

from workers.sandbox.faults import FAULTS, Met
from workers.sandbox.world import Row, World

_RESERVED = re.compile(r"(?:447700900|1\d{3}5550)(1\d\d)")


class Magic(IntEnum):
    """Numbers that a provider itself treats in their own way; the others only meet a fault."""

    BLOCKED = 100
    INVALID = 101
    REFUSED = 102
    NOT_SENT = 103
    NOT_SENT_ONCE = 104
    LOST = 105
    AWAY_ONCE = 106
    AWAY = 107
    TAKEN_AND_LOST = 108
    KNOWN_CODE = 109
    GONE = 130
    ABSENT = 131
    PORTED = 132
    ROAMING = 133
    UNDELIVERED = 140


#: The code of `Magic.KNOWN_CODE`: the example of TextGoto's document, and it begins with a zero.
KNOWN_CODE = "012837"

_MEANINGS = {int(magic): magic for magic in Magic}
#: Met every time, by the last three digits.
FAULTS_BY_NUMBER = {
    110: Met(FAULTS["hang-after"]),
    111: Met(FAULTS["reset-after"]),
    112: Met(FAULTS["reset-before"]),
    113: Met(FAULTS["500-after"]),
    114: Met(FAULTS["500"]),
    115: Met(FAULTS["half"]),
    116: Met(FAULTS["garbage"]),
    117: Met(FAULTS["latency"], 2.0),
    118: Met(FAULTS["drop-after"]),
    121: Met(FAULTS["hang-before"]),
    122: Met(FAULTS["drop-before"]),
    125: Met(FAULTS["html"]),
}
#: Met the first time.
FAULTS_ONCE = {
    119: Met(FAULTS["429"], 1.0),
    120: Met(FAULTS["503"], 1.0),
}

#: When a receipt is sent: with the usual delay, later than that, or before the request is answered. `stale` is late,
#: too, and says what was true earlier: the text is on its way.
When = Literal["usual", "late", "before", "stale"]
USUAL: Final[tuple[When, ...]] = ("usual",)
#: The receipts of a message, by the last three digits.
RECEIPTS_BY_NUMBER: Final[dict[int, tuple[When, ...]]] = {
    141: ("usual", "usual"),
    142: ("late",),
    143: ("before",),
    144: (),
    145: ("usual", "stale"),
}

#: In `Row.data` of the row that a `stale` receipt is made of.
_STALE: Final = "receipt"

#: What a receipt says.
Outcome = Literal["delivered", "undelivered", "waiting"]


def meaning(msisdn: str) -> Magic | None:
    """Return what is special about a number in international digits, if anything."""
    return _MEANINGS.get(_ending(msisdn))


def fault(rows: Iterable[Row], world: World) -> Met | None:
    """Return the fault that a request with these rows meets because of its numbers."""
    for row in rows:
        ending = _ending(row.msisdn)
        if met := FAULTS_BY_NUMBER.get(ending):
            return met
        if ending in FAULTS_ONCE and not world.asked(row.provider, row.action, row.msisdn):
            return FAULTS_ONCE[ending]
    return None


def receipts(msisdn: str) -> tuple[When, ...]:
    """Return the receipts that a message to this number has, if its provider sends any."""
    return RECEIPTS_BY_NUMBER.get(_ending(msisdn), USUAL)


def undelivered(msisdn: str) -> bool:
    """Say whether messages to this number are accepted and never reach the phone."""
    return _ending(msisdn) == Magic.UNDELIVERED


def reaches(row: Row) -> bool:
    """Say whether the message of an accepted row gets to its phone."""
    return not undelivered(row.msisdn)


def stale(row: Row) -> Row:
    """Return the row of which a receipt is made that tells of an earlier moment."""
    return msgspec.structs.replace(row, data=row.data | {_STALE: "waiting"})


def outcome(row: Row) -> Outcome:
    """Return what the receipt of this row has to say."""
    if row.data.get(_STALE) == "waiting":
        return "waiting"
    return "undelivered" if undelivered(row.msisdn) else "delivered"


def _ending(msisdn: str) -> int:
    found = _RESERVED.fullmatch(msisdn)
    return int(found[1]) if found else 0
