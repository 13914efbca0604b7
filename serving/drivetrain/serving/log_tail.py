"""Follows a log on the store: every object once, in whatever order writers finish them."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from drivetrain.store import ObjectStore

_HOUR: Final = timedelta(hours=1)
_FULL_LISTING_EVERY: Final = 10
"""Polls between full listings of an hour, which find writers that nobody named."""
_OLD_HOURS_EVERY: Final = 120
"""Polls between listings of older hours, where only journals of dead replicas turn up."""


class LogTail:
    """Lists `<prefix>/<date>/<hour>/<writer>-<sequence>` objects after the last key seen of each writer."""

    def __init__(self, store: ObjectStore, prefix: str, since: datetime | None) -> None:
        """`since`: nothing whose hour lies before it is read; None reads the whole log."""
        self._store = store
        self._prefix = prefix
        self._since = since
        self._last: dict[str, dict[str, str]] = {}
        """Hour to writer to its last key."""
        self._polls = 0

    def poll(self, now: datetime, writers: Iterable[str]) -> list[str]:
        """New keys. `writers` are those known to be alive."""
        first = self._polls == 0
        full = self._polls % _FULL_LISTING_EVERY == 0
        old = self._polls % _OLD_HOURS_EVERY == 0
        self._polls += 1
        keys: list[str] = []
        if first and self._since is None:
            keys += self._listed(f"{self._prefix}/", "")
            self._since = now
        current = (_hour(now - _HOUR), _hour(now))
        for hour in current if not old else (*self._older(now), *current):
            folder = f"{self._prefix}/{hour}/"
            if full or hour not in self._last:
                keys += self._listed(folder, "")
                continue
            for writer in {*self._last[hour], *writers}:
                keys += self._listed(f"{folder}{writer}-", self._last[hour].get(writer, ""))
        return keys

    def _older(self, now: datetime) -> Iterator[str]:
        """Hours before the last one, from `since` on, at most a week."""
        if self._since is None:
            return
        hour = max(self._since, now - timedelta(days=7)).replace(minute=0, second=0, microsecond=0)
        while hour < now - 2 * _HOUR:
            yield _hour(hour)
            hour += _HOUR

    def _listed(self, prefix: str, start_after: str) -> list[str]:
        keys = []
        for info in self._store.list(prefix, start_after):
            parts = info.key.removeprefix(f"{self._prefix}/").split("/")
            if len(parts) != 3:
                continue
            hour, writer = f"{parts[0]}/{parts[1]}", parts[2].rpartition("-")[0]
            seen = self._last.setdefault(hour, {})
            if info.key > seen.get(writer, ""):
                seen[writer] = info.key
                keys.append(info.key)
        return keys


def _hour(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d/%H")
