"""Signatures as Standard Webhooks has them, version `v1`."""

import base64
import hmac
from collections.abc import Sequence


def headers(notice_id: str, at: int, body: str, keys: Sequence[bytes]) -> dict[str, str]:
    """The headers that prove to a receiver who sends it, what and when.

    Args:
        notice_id: the same each time the notice is sent.
        at: when it is sent, Unix time in seconds: receivers refuse what is old.
        body: as it is sent.
        keys: to sign with each.
    """
    content = f"{notice_id}.{at}.{body}".encode()
    signatures = (base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys)
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }
