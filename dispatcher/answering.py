"""The one text that answers a stop, a start or a call for help: pure."""

from __future__ import annotations

from typing import Final

import msgspec

from dispatcher import drafts
from dispatcher.accounts import Route
from dispatcher.jobs import Category, Lane, Send
from dispatcher.optouts import OptOuts, Text, same_sender
from dispatcher.records import Record
from dispatcher.words import Verdict

#: Seconds after which nobody expects an answer any more.
_USEFUL: Final = 3600.0

#: Segments that any text may have.
_MOST_SEGMENTS: Final = 255

#: What the job of an answer has as its reference.
_REFERENCES: Final[dict[Verdict, str]] = {"out": "answer to STOP", "in": "answer to START", "help": "answer to HELP"}


def answer(made: drafts.Drafts, optouts: OptOuts, told: Text, *, ref: str, callback: str, sender: str) -> Record | None:
    """Return the job that answers a text over the account it came by, None for nobody to be answered.

    `ref` is the provider's id of it, `callback` what it came with: again, it is the same job. The answer is from
    `sender`. Raises `InvalidRequest` for what no text of ours may do, and `ConfigurationError`.
    """
    # A text from oneself is no person's.
    if same_sender(told.sender) == same_sender(told.to):
        return None
    terms = drafts.terms(Category.TRANSACTIONAL, Lane.HIGH, _REFERENCES[told.verdict], None, "", valid_for=_USEFUL)
    text = Send(to=told.sender, text=optouts.answer(told.verdict), sender=sender)
    key = f"answer {callback} {ref} {told.at} {told.text}"
    record = made.record(text, "send", terms, Route((told.provider,), told.provider), key, most=_MOST_SEGMENTS)
    # Whoever stopped, or asks for help, is answered all the same; a start that another stop outlasts is not.
    more = {} if told.verdict == "in" else {"ps": "1"}
    return msgspec.structs.replace(record, more=record.more | more)
