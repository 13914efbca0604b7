"""Who may call: bearer keys from mounted files, compared in constant time, and a token bucket per replica."""

import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Purpose = Literal["decide", "outcomes"]

_CHECK_SECONDS: Final = 1.0


@dataclass(slots=True)
class Keys:
    """The keys in `folder`, files `decide` and `outcomes`; read again when a file changes, looked at once a second."""

    folder: Path
    _held: dict[Purpose, bytes] = field(default_factory=dict)
    _stamps: dict[Purpose, tuple[int, int]] = field(default_factory=dict)
    _checked: float = float("-inf")

    def allows(self, purpose: Purpose, header: str | None, now: float) -> Literal["yes", "unknown", "forbidden"]:
        """Whether an Authorization header holds this purpose's key; forbidden: it holds the other one's.

        `now` is a monotonic time in seconds.
        """
        self._refresh(now)
        scheme, _, token = (header or "").partition(" ")
        given = token.strip().encode()
        # Both are always compared, so that the time taken does not tell which one matched.
        matches = {name: hmac.compare_digest(key, given) for name, key in self._held.items()}
        if scheme.lower() != "bearer" or not given:
            return "unknown"
        if matches.get(purpose, False):
            return "yes"
        return "forbidden" if any(matches.values()) else "unknown"

    @property
    def ready(self) -> bool:
        """Whether both keys were found."""
        return len(self._held) == 2

    def _refresh(self, now: float) -> None:
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        purposes: tuple[Purpose, ...] = ("decide", "outcomes")
        for purpose in purposes:
            path = self.folder / purpose
            try:
                found = path.stat()
                stamp = (found.st_mtime_ns, found.st_ino)
                if self._stamps.get(purpose) == stamp:
                    continue
                key = path.read_bytes().strip()
            except OSError:
                continue  # a Secret being swapped: the old key holds until the new one is there
            if key:
                self._held[purpose], self._stamps[purpose] = key, stamp


@dataclass(slots=True)
class TokenBucket:
    """Lets `rate` rows a second pass on average, and `burst` at once."""

    rate: float
    burst: float
    _level: float = -1.0
    _at: float = 0.0

    def take(self, rows: int, now: float) -> float:
        """Takes the rows' tokens and returns 0, or takes nothing and returns the seconds to wait."""
        if self._level < 0:
            self._level, self._at = self.burst, now
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if rows <= self._level:
            self._level -= rows
            return 0.0
        return (min(rows, self.burst) - self._level) / self.rate
