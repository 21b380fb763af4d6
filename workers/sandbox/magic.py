"""Phone numbers that make things happen, by their last three digits.

They lie in ranges that regulators keep free for drama, so that none is anybody's phone: Ofcom's +44 7700 900
000 to 900 999, and North America's +1 ... 555 0100 to 0199. All other numbers are ordinary phones.

| +44 7700 900 ... | what the provider does (TextGoto's words) |
|---|---|
| 100 | blocked: MSISDN_BLOCKED |
| 101 | invalid: INVALID_MSISDN |
| 102 | refused without a reason: MSISDN_FAILURE |
| 103 | not sent, every time: SEND_FAILURE |
| 104 | not sent the first time, then OK: SEND_FAILURE |
| 105 | nobody knows, and the phone gets nothing: UNKNOWN_ERROR |
| 106 | the whole request is turned away the first time, then OK: SITE_UNAVAILABLE |
| 107 | the whole request is turned away, every time: SITE_UNAVAILABLE |
| 108 | nobody knows, and the phone gets the text: UNKNOWN_ERROR |
| 109 | OK; the code of its verifications is always 012837 |
| 110 | accepted, then no answer: `hang-after` |
| 111 | accepted, then the connection is reset: `reset-after` |
| 112 | the connection is reset before accepting: `reset-before` |
| 113 | accepted, then status 500: `500-after` |
| 114 | status 500 before accepting: `500` |
| 115 | accepted, then half of an answer: `half` |
| 116 | accepted, then bytes that are no HTTP: `garbage` |
| 117 | OK, answered 2 s late: `latency` |
| 118 | accepted, then the connection is closed without an answer: `drop-after` |
| 119 | status 429 with `Retry-After: 1` the first time, then OK |
| 120 | status 503 with `Retry-After: 1` the first time, then OK |
| 121 | no answer, and nothing accepted: `hang-before` |
| 122 | the connection is closed before accepting: `drop-before` |
| 125 | accepted, then a page in place of the answer: `html` |
| 130 | lookup: unreachable for good (UNDELIV, is_perm_err 1) |
| 131 | lookup: unreachable for now (ABSENT-SUB, is_perm_err 0) |
| 132 | lookup: ported to another network |
| 133 | lookup: roaming abroad |

From 110 to 125 the whole request meets the fault, whatever it asks and whoever else is in it; with several
such numbers in one request, the first counts. *The first time* is by provider, action and number, since the
last reset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

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


def _ending(msisdn: str) -> int:
    found = _RESERVED.fullmatch(msisdn)
    return int(found[1]) if found else 0
