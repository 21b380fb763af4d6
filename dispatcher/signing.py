"""How callbacks are signed: as Standard Webhooks has it, by its public package.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from datetime import UTC, datetime

from standardwebhooks import Webhook

from dispatcher import notices


def signers(secrets: str) -> tuple[Webhook, ...]:
    """Return what signs with each of `DISPATCHER_CALLBACK_SECRET`; nothing for none. Raises `ValueError`."""
    return tuple(map(Webhook, notices.secrets(secrets)))


def signed(signers: tuple[Webhook, ...], id_: str, at: int, body: bytes) -> dict[str, str]:
    """Return the headers of a request: each secret signs, so that a consumer may know the old one or the new."""
    when, text = datetime.fromtimestamp(at, UTC), body.decode()
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(one.sign(id_, when, text) for one in signers),
    }
