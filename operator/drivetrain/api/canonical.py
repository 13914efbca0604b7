"""Canonical JSON and the hashes made from it, so that equal meaning gives equal bytes."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

Hashable = BaseModel | Mapping[str, object] | Sequence[object] | str | int | float | bool | None


def canonical_json(value: Hashable) -> str:
    """Sorted keys, no spaces, only what was set or defaulted; decimals and durations in their shortest text."""
    plain = value.model_dump(mode="json", by_alias=True, exclude_none=True) if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def digest(value: Hashable) -> str:
    """The SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    raise TypeError(f"{type(value).__name__} has no canonical JSON")
