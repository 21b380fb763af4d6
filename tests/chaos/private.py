"""What is private in a run, and the search for it: quick, since a run leaves megabytes."""

from __future__ import annotations

import re
from typing import Final

from tests.system.canaries import KNOWN, WORDS, coded
from workers.sandbox.magic import KNOWN_CODE

#: With these everything is sealed, as in production.
KEYS: Final = {"secret_key": WORDS["secret key"], "hash_key": WORDS["hash key"]}

#: Begins every text, and is the password of an account that nobody let in.
TEXT: Final = WORDS["text"]
PASSWORD: Final = WORDS["account's password"]

#: What a callback's URL holds that is for its consumer alone, and what signs it.
CALLBACK_TOKEN: Final = "canary-callback-token-71"
CALLBACK_SECRET: Final = "whsec_Y2FuYXJ5LWNhbGxiYWNrLXNlY3JldC00Mi0zMmJ5dGU="

#: Whose verification gets the one code that is known beforehand.
NUMBER_OF_THE_CODE: Final = KNOWN

#: In lower case, however they are written; other numbers of a run are found by what they have in common.
_FORMS: Final = {
    field: {form.lower() for form in {word, *coded(word)}}
    for field, word in {
        "text": TEXT,
        "password": PASSWORD,
        "secret key": KEYS["secret_key"],
        "hash key": KEYS["hash_key"],
        "callback's token": CALLBACK_TOKEN,
        "callback's secret": CALLBACK_SECRET,
        "number": NUMBER_OF_THE_CODE[1:],
    }.items()
}

#: The end of every number of `tests.support.phones`, and what stands before it where it is one.
_ENDS: Final = re.compile(r"5550[01]\d\d(?!\w)")
_BEGINS: Final = re.compile(r"(?<![\w.])(1?[2-9]\d\d)\Z")

#: Not where it is part of a longer number, or behind its point.
_CODE: Final = re.compile(rf"(?<![\d.]){KNOWN_CODE}(?!\d)")


def found(said: str) -> set[str]:
    """Return what is private and stands in `said`."""
    lower = said.lower()
    fields = {field for field, forms in _FORMS.items() if any(form in lower for form in forms)}
    if any(_BEGINS.search(said, max(0, one.start() - 6), one.start()) for one in _ENDS.finditer(said)):
        fields.add("number")
    return fields | ({"code"} if _CODE.search(said) else set())
