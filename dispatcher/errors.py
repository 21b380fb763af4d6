"""Every error this package raises, drawn by whose fault it is.

    DispatcherError
    ├── InvalidRequest          the caller's request can never work; names the field, the masked value and the way out
    │   ├── InvalidNumber         a phone number that cannot exist
    │   ├── Unsupported           the provider does not offer this
    │   └── IdempotencyConflict   the same idempotency key came with another request
    ├── NotFound                there is no such job, batch or verification
    ├── IllegalMove             the state table forbids this move
    ├── VerificationRefused     a guard does not let this code be sent; says after how many seconds it may be
    │   ├── NumberLimited         this number got as many codes as it may
    │   ├── PrefixLimited         so did its neighbours together
    │   ├── KeyLimited            so did one of the caller's keys: an address, a session
    │   ├── CountryLimited        so did its country
    │   ├── CountryRefused        no codes are sent to its country
    │   ├── NumberTypeRefused     nor to such numbers: premium rate and the like
    │   ├── PrefixClosed          its neighbours got many codes, and hardly anybody typed one
    │   └── ResendTooSoon         the last code was asked for a moment ago
    ├── WaitTimeout             the job is not there yet; nothing was changed
    ├── CursorExpired           events after that cursor were trimmed away
    ├── ConfigurationError      the deployment's settings; names the setting
    │   └── UnknownProvider       no such account is configured here or has ever been published by a worker
    └── StoreUnavailable        Redis did not answer

Imports nothing of ours, so that everything may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any


class DispatcherError(Exception):
    """The base of all errors raised here: `except DispatcherError` catches each of them."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the way between processes, though the arguments of each kind differ."""
        return _restored, (type(self), str(self), self.__dict__)


def _restored(kind: type[DispatcherError], words: str, facts: dict[str, Any]) -> DispatcherError:
    error = kind.__new__(kind)
    Exception.__init__(error, words)
    error.__dict__.update(facts)
    return error


class InvalidRequest(DispatcherError, ValueError):
    """The request can never work as it is.

    `field` is the argument as the caller wrote it (`to`, `messages[3].text`), `value` is shown as given: whoever
    raises this masks it first when it is private.
    """

    def __init__(self, field: str, reason: str, value: str | None = None) -> None:
        """Say what is wrong with `field`; `reason` ends with the way out."""
        self.field = field
        self.value = value
        self.reason = reason
        super().__init__(f"{field}: {reason}" if value is None else f"{field} {value!r}: {reason}")

    def at(self, position: str) -> InvalidRequest:
        """Return the same error for a field inside a list: `to` becomes `messages[3].to`."""
        moved = self.__class__.__new__(self.__class__)
        moved.__dict__.update(self.__dict__)
        InvalidRequest.__init__(moved, f"{position}.{self.field}", self.reason, self.value)
        return moved


class InvalidNumber(InvalidRequest):
    """A phone number that cannot exist; the message shows no more of it than its ends."""

    def __init__(self, field: str, value: str, reason: str) -> None:
        """Mask `value` down to its first three and last two characters."""
        shown = f"{value[:3]}{'*' * (len(value) - 5)}{value[-2:]}" if len(value) > 7 else "*" * len(value)  # noqa: PLR2004 - shorter ones would be shown almost whole
        super().__init__(field, reason, shown)


class Unsupported(InvalidRequest):
    """The provider does not offer this operation or option."""


class IdempotencyConflict(InvalidRequest):
    """The idempotency key was used before, for a request that differed."""

    def __init__(self, job_id: str, position: int = 0) -> None:
        """`job_id` is the job that the first request made, `position` which of many requests met it."""
        self.job_id = job_id
        self.position = position
        super().__init__(
            "idempotency_key",
            f"was used before with another request (job {job_id}); use a new key, or repeat that request unchanged",
        )


class NotFound(DispatcherError, LookupError):
    """There is no such thing, or its retention has passed."""

    def __init__(self, what: str, name: str) -> None:
        """`what` is the kind of thing, such as "job"; `name` its id."""
        self.what = what
        self.name = name
        super().__init__(f"there is no {what} {name}; it never existed or its retention has passed")


class IllegalMove(DispatcherError):
    """The state table does not allow this move from where the job is."""

    def __init__(self, job_id: str, state: str, wanted: str, why: str = "") -> None:
        """The job `job_id` is `state` and cannot become `wanted`; `why` says it where that does not."""
        self.job_id = job_id
        self.state = state
        self.wanted = wanted
        super().__init__(f"job {job_id} is {state}" + (f": {why}" if why else f" and cannot become {wanted}"))


class VerificationRefused(DispatcherError):
    """A guard does not let this code be sent. Nothing was created, and nothing was drawn from any guard.

    Tell a person the same as for a code that was sent ("if this number can be texted, a code is on its way"), or who
    abuses you learns which number, address or country to try next; an API for programs answers 429, and `retry_after`
    in its header. `code` is for your log. docs/verify.md has both as views.
    """

    #: What refuses, in a word.
    code = ""
    _why = "a guard refuses it"

    def __init__(self, retry_after: int | None = None, key: str = "") -> None:
        """It may be asked for after `retry_after` seconds, None for never; `key` is the name of the caller's key."""
        self.retry_after = retry_after
        self.key = key
        why = self._why.format(key=key)
        super().__init__(why if retry_after is None else f"{why}; a code may be asked for in {retry_after} s")


class NumberLimited(VerificationRefused):
    """This number got as many codes as `DISPATCHER_GUARDS` (`number=`) allows. To a person: as if it had been sent."""

    code = "number_limited"
    _why = "this number got as many codes as DISPATCHER_GUARDS allows"


class PrefixLimited(VerificationRefused):
    """The thousand numbers around it got as many codes as `prefix=` allows. To a person: as if it had been sent."""

    code = "prefix_limited"
    _why = "the numbers that begin like this one got as many codes as DISPATCHER_GUARDS allows"


class KeyLimited(VerificationRefused):
    """One of the caller's keys got as many codes as `key=` allows; `key` names it. An API answers 429."""

    code = "key_limited"
    _why = "guard key {key} got as many codes as DISPATCHER_GUARDS allows"


class CountryLimited(VerificationRefused):
    """Its country got as many codes as `country=` allows. To a person: as if it had been sent; to you: an alarm."""

    code = "country_limited"
    _why = "its country got as many codes as DISPATCHER_GUARDS allows"


class CountryRefused(VerificationRefused):
    """`DISPATCHER_VERIFY_COUNTRIES` does not have its country. A person may be told which ones you serve."""

    code = "country_refused"
    _why = "DISPATCHER_VERIFY_COUNTRIES does not have its country; add it there, or leave that number out"


class NumberTypeRefused(VerificationRefused):
    """Its range is one of `DISPATCHER_VERIFY_REFUSE_TYPES`. A person may be told to give a mobile number."""

    code = "number_type_refused"
    _why = "its range is premium rate or another of DISPATCHER_VERIFY_REFUSE_TYPES"


class PrefixClosed(VerificationRefused):
    """Codes to its neighbours were sent for nothing, so that they get none for a while: `Dispatcher.guards()`.

    To a person: as if it had been sent.
    """

    code = "prefix_closed"
    _why = "the numbers that begin like this one got many codes and hardly any was typed; `dispatcher guards` has it"


class ResendTooSoon(VerificationRefused):
    """Less than `DISPATCHER_RESEND_AFTER` seconds since the last code. A person may see how long: `retry_after`."""

    code = "resend_too_soon"
    _why = "the last code was asked for a moment ago"


class WaitTimeout(DispatcherError, TimeoutError):
    """The job did not get there in time; it goes on by itself."""

    def __init__(self, name: str, state: str, until: str, seconds: float) -> None:
        """The job or batch `name` was still `state` after `seconds`."""
        self.name = name
        self.state = state
        super().__init__(f"{name} is {state} and not {until} after {seconds:g} s; it goes on, wait again or look later")


class CursorExpired(DispatcherError):
    """Events after this cursor were trimmed away by age."""

    def __init__(self, cursor: str, oldest: str, group: str = "") -> None:
        """`oldest` is the cursor after which all events are still kept; `group` the one that missed some, if any."""
        self.cursor = cursor
        self.oldest = oldest
        self.group = group
        way_out = (
            f"Nothing is read in group {group} until you say where it goes on: reset_event_group({group!r}, "
            f"after='0'), or dispatcher events reset {group} --after 0. Read the jobs you missed with get()"
            if group
            else "Start from after='0' and read the jobs you missed with get()"
        )
        super().__init__(f"events after cursor {cursor} are no longer kept, those after {oldest} are. {way_out}")


class ConfigurationError(DispatcherError):
    """The deployment's settings do not allow this; the message names the setting."""


class UnknownProvider(ConfigurationError):
    """No such account: neither in these settings nor ever published by a worker."""

    def __init__(self, name: str, known: list[str], setting: str = "") -> None:
        """`known` are the accounts that may be named instead; `setting` is what names it, where no caller does."""
        self.name = name
        self.known = known
        there = f"known: {', '.join(known)}" if known else "none is known yet"
        where = f" of {setting}" if setting else ""
        close = get_close_matches(name, known, n=1)
        meant = f"did you mean {close[0]}? Otherwise " if close else ""
        super().__init__(
            f"provider {name!r}{where} is not known ({there}); {meant}set DISPATCHER_PROVIDERS__{name.upper()}__... "
            f"or start its worker once: dispatcher worker {name}"
        )


class StoreUnavailable(DispatcherError):
    """Redis did not answer, so nothing can be said about what was asked.

    `job_ids` are the jobs that may have been stored all the same: `get` tells once Redis is back.
    """

    def __init__(self, message: str, job_ids: Sequence[str] = ()) -> None:
        """`message` says where Redis was looked for."""
        self.job_ids = list(job_ids)
        super().__init__(message)
