"""Follows a log on the store: every object once, in whatever order writers finish them, whatever fails in between."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from drivetrain.store import ObjectStore

_HOUR: Final = timedelta(hours=1)
_FULL_LISTING_EVERY: Final = 10
"""Polls between full listings of an hour, which find writers that nobody named."""
_OLD_HOURS_EVERY: Final = 120
"""Polls between listings of older hours, where only journals of dead replicas turn up."""

_OVERLAP: Final = 100
"""Objects before the last one known of a writer that are listed again: a replica writes several outcomes at once, and
the later ones may be there first. What lands later still is found by a full listing."""


@dataclass(slots=True)
class _Numbers:
    """The numbers of one writer's objects that are known: a range with gaps."""

    first: int
    last: int
    gaps: set[int] = field(default_factory=set)

    def add(self, number: int) -> bool:
        """Whether the number was new."""
        if self.first <= number <= self.last:
            known = number not in self.gaps
            self.gaps.discard(number)
            return not known
        self.gaps.update(range(self.last + 1, number), range(number + 1, self.first))
        self.first, self.last = min(self.first, number), max(self.last, number)
        return True


class LogTail:
    """Lists `<prefix>/<date>/<hour>/<writer>-<number>.parquet` objects; each is told until it was taken."""

    def __init__(self, store: ObjectStore, prefix: str, since: datetime | None) -> None:
        """`since`: nothing whose hour lies before it is read; None reads the whole log."""
        self._store = store
        self._prefix = prefix
        self._since = since
        self._known: dict[str, dict[str, _Numbers]] = {}
        """Hour to writer to what was listed."""
        self._waiting: dict[str, None] = {}
        """Keys that were listed and not taken yet, in order."""
        self._polls = 0

    def poll(self, now: datetime, writers: Iterable[str]) -> list[str]:
        """Keys that were not taken yet. `writers` are those known to be alive."""
        full = self._polls % _FULL_LISTING_EVERY == 0
        old = self._polls % _OLD_HOURS_EVERY == 0
        if self._since is None:
            self._list(f"{self._prefix}/", "")
            self._since = now
        current = (_hour(now - _HOUR), _hour(now))
        for hour in current if not old else (*self._older(now), *current):
            folder = f"{self._prefix}/{hour}/"
            if full or hour not in self._known:
                self._list(folder, "")
                continue
            for writer in {*self._known[hour], *writers}:
                numbers = self._known[hour].get(writer)
                after = f"{folder}{writer}-{max(numbers.last - _OVERLAP, 0):012d}" if numbers is not None else ""
                self._list(f"{folder}{writer}-", after)
        self._polls += 1  # last: a listing that failed is repeated
        return list(self._waiting)

    def took(self, key: str) -> None:
        """Tells a key no longer: what it holds was added."""
        del self._waiting[key]

    def _older(self, now: datetime) -> Iterator[str]:
        """Hours before the last one, from `since` on, at most a week."""
        if self._since is None:
            return
        hour = max(self._since, now - timedelta(days=7)).replace(minute=0, second=0, microsecond=0)
        while hour < now - 2 * _HOUR:
            yield _hour(hour)
            hour += _HOUR

    def _list(self, prefix: str, start_after: str) -> None:
        for info in self._store.list(prefix, start_after):
            parts = info.key.removeprefix(f"{self._prefix}/").split("/")
            writer, _, name = parts[-1].rpartition("-")
            number = name.removesuffix(".parquet")
            if len(parts) != 3 or not number.isdigit():
                continue
            known = self._known.setdefault(f"{parts[0]}/{parts[1]}", {})
            if writer not in known:
                known[writer] = _Numbers(int(number), int(number))
            elif not known[writer].add(int(number)):
                continue
            self._waiting[info.key] = None


def _hour(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d/%H")
