"""What keeps private things private: sealing at rest, keyed hashes, masks, and a string that hides itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from datetime import date
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dispatcher.errors import ConfigurationError

#: A sealed value starts with this byte; JSON never does.
_SEALED: Final = b"\x01"
_KEY_ID: Final = 4
_NONCE: Final = 12

#: Six or more digits, with the separators people write between them: a phone number or a code, until shown otherwise.
_DIGITS: Final = re.compile(r"\+?\d[\d\-(). :]{4,}\d")

#: What looks alike and is nobody's: an amount, a date, a time of day.
_HARMLESS: Final = re.compile(
    r"\d{1,9}\.\d{1,4}"
    r"|(\d{4}-\d\d-\d\d|(0[1-9]|1[0-2])-([0-2]\d|3[01])-20\d\d)? ?(\d{1,2}:\d\d(:\d\d(\.\d{1,6})?)?)?"
)


#: Characters that a message shows of a value, and numbers that are not written out: Python would refuse.
_MOST_SHOWN: Final = 64
_TOO_LARGE: Final = 10**_MOST_SHOWN

#: A job's id: its digits are nobody's number.
_ID: Final = re.compile("[0-9a-v]{26}")

#: A URL: its origin, and what comes after the first slash.
_URL: Final = re.compile(r"(https?://[^\s/?#]+[/?#])[^\s\"']+", re.IGNORECASE)


class Sealer:
    """Seals and opens bytes with AES-256-GCM; the first key seals, every key opens, so keys can be rotated."""

    def __init__(self, secrets: list[str]) -> None:
        """Derive one key of each secret, newest first. Without any, values are stored as they are."""
        keys = [HKDF(SHA256(), 32, None, b"dispatcher payload").derive(secret.encode()) for secret in secrets]
        self._ciphers = {hashlib.sha256(key).digest()[:_KEY_ID]: AESGCM(key) for key in keys}
        self._newest = next(iter(self._ciphers), b"")

    def __bool__(self) -> bool:
        """Say whether there is a key to seal with."""
        return bool(self._ciphers)

    def seal(self, plain: bytes, name: str) -> bytes:
        """Return `plain` sealed for the job `name` (it opens for no other), or as it is when there is no key."""
        return self.seal_each([plain], [name])[0]

    def seal_each(self, plain: Sequence[bytes], names: Sequence[str]) -> list[bytes]:
        """Return each of several values sealed for the job of that name, or as it is when there is no key."""
        if not self._ciphers:
            return [*plain]
        encrypt, head = self._ciphers[self._newest].encrypt, _SEALED + self._newest
        # Chance is drawn for all at once: that takes as long as for one.
        drawn = os.urandom(_NONCE * len(plain))
        nonces = [drawn[at : at + _NONCE] for at in range(0, len(drawn), _NONCE)]
        return [
            head + nonce + encrypt(nonce, one, name.encode())
            for nonce, one, name in zip(nonces, plain, names, strict=True)
        ]

    def open(self, stored: bytes, name: str) -> bytes:
        """Return what was sealed for the job `name`.

        Raises `ConfigurationError` when the key it was sealed with is not among ours.
        """
        if not stored.startswith(_SEALED):
            return stored
        key_id, rest = stored[1 : 1 + _KEY_ID], stored[1 + _KEY_ID :]
        cipher = self._ciphers.get(key_id)
        try:
            if cipher is not None:
                return cipher.decrypt(rest[:_NONCE], rest[_NONCE:], name.encode())
        except (InvalidTag, ValueError):
            # Not what we sealed, or cut short.
            pass
        raise ConfigurationError(
            f"job {name} was sealed with another key than DISPATCHER_SECRET_KEY holds; "
            "add that key behind the newest one (keys are separated by commas)"
        )


def keyed_hash(key: str, *parts: str) -> str:
    """Return 16 characters of HMAC-SHA256 over `parts`: enough to find by, useless without the key."""
    digest = hmac.digest(key.encode(), "\x00".join(parts).encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:12]).decode()


def mask_digits(text: str) -> str:
    """Return `text` with every run of six or more digits reduced to its last two, but for amounts and dates."""
    return _DIGITS.sub(lambda found: _masked(found, 6), text)


def mask_numbers(text: str) -> str:
    """Return `text` with what has the eight digits or more of a phone number reduced to its last two."""
    return _DIGITS.sub(lambda found: _masked(found, 8), text)


def mask_urls(text: str) -> str:
    """Return `text` with what follows the host of a URL left out: there may be a secret in it."""
    return _URL.sub(lambda found: f"{found.group(1)}***", text)


def _masked(found: re.Match[str], digits: int) -> str:
    words = found.group()
    harmless = _HARMLESS.fullmatch(words) or sum(map(str.isdigit, words)) < digits
    return words if harmless else f"***{words[-2:]}"


def one_line(text: str) -> str:
    """Return `text` on one line, without what could move a terminal's cursor."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def shown(value: object) -> str:
    """Return what a message may show of a value that somebody gave: short, on one line, no phone number whole.

    Of what is neither text nor a number nor a moment its type: its words could be anything, and not come at all.
    """
    if isinstance(value, str):
        words = value if _ID.fullmatch(value) else mask_numbers(one_line(value[: 2 * _MOST_SHOWN]))
    elif isinstance(value, int | float | date) and not (isinstance(value, int) and abs(value) >= _TOO_LARGE):
        words = mask_numbers(str(value))
    else:
        words = type(value).__name__
    return words[:_MOST_SHOWN]


def mask_text(text: str) -> str:
    """Return what may be shown of a message's text: how long it is."""
    return f"[{len(text)} character{'' if len(text) == 1 else 's'}]" if text else ""
