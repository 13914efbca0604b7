"""Decision ids: signed, so that any replica can tell the ones that were issued from made-up ones, without a look-up."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from drivetrain.api import layout
from drivetrain.store import ObjectStore

KEY_BYTES: Final = 32
_BODY: Final = 16
_TAG: Final = 8


class Signer:
    """Issues and checks ids of 32 characters: milliseconds (6 bytes), issuer (6), count (4), and 8 bytes of HMAC."""

    def __init__(self, key: bytes, issuer: bytes) -> None:
        """`issuer` is 6 random bytes, drawn anew by every process: counts start at 0 in each."""
        self._key = key
        self._issuer = issuer
        self._count = 0

    def issue(self, count: int, now: datetime) -> tuple[str, ...]:
        """New ids, unique among all issuers. Not safe to call from several threads at once."""
        head = int(now.timestamp() * 1000).to_bytes(6, "big") + self._issuer
        first, self._count = self._count, self._count + count
        key, digest = self._key, hmac.digest
        bodies = [head + (number & 0xFFFFFFFF).to_bytes(4, "big") for number in range(first, first + count)]
        return tuple(urlsafe_b64encode(body + digest(key, body, "sha256")[:_TAG]).decode() for body in bodies)

    def issued(self, ids: Sequence[str]) -> list[bool]:
        """Which of the ids carry our signature."""
        return [self._checks(text) for text in ids]

    def _checks(self, text: str) -> bool:
        if len(text) != 32 or not text.isascii():
            return False
        try:
            raw = urlsafe_b64decode(text)
        except ValueError:
            return False
        expected = hmac.digest(self._key, raw[:_BODY], "sha256")[:_TAG]
        # Decoding tolerates other spellings of the same bytes; only the one that we issued is a key of the log.
        return hmac.compare_digest(raw[_BODY:], expected) and urlsafe_b64encode(raw).decode() == text


def issued_at(decision_id: str) -> datetime:
    """When an id was issued, to the millisecond, by its own words: check the signature first."""
    return datetime.fromtimestamp(int.from_bytes(urlsafe_b64decode(decision_id)[:6], "big") / 1000, UTC)


def signing_key(store: ObjectStore, proposal: bytes) -> bytes:
    """The project's key: `proposal` (32 random bytes) if no replica proposed one before, else the first one's."""
    store.put_if_absent(layout.SIGNING_KEY, proposal)
    key = store.get(layout.SIGNING_KEY)
    return key if len(key) == KEY_BYTES else hashlib.sha256(key).digest()
