"""What a submitter remembers of a driver: the end of its log, with the values of secrets taken out."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from drivetrain.api.dossier import LOG_LIMIT

HIDDEN: Final = "[hidden]"
_SECRET_ENDINGS: Final = ("_KEY", "_SECRET", "_TOKEN", "_PASSWORD", "_KEY_ID")
_SHORTEST: Final = 6
"""Shorter values occur in ordinary text, and are no secrets worth the name."""


def secret_values(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values in an environment that nobody may read, longest first."""
    found = {value for name, value in env.items() if name.endswith(_SECRET_ENDINGS) and len(value) >= _SHORTEST}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


class Transcript:
    """The last `limit` characters of a log that arrives in pieces, and again from its start after a lost connection."""

    def __init__(self, secrets: Iterable[str], show: Callable[[str], None], limit: int = LOG_LIMIT) -> None:
        """`show` is handed each line once, as it is complete."""
        self._secrets, self._show, self._limit = tuple(secrets), show, limit
        self._lines: deque[str] = deque()
        self._kept = 0
        self._partial = ""
        self._heard = 0
        self._repeated = 0
        self.cut = False

    def hear(self, piece: str) -> None:
        """Takes the next piece; what was heard before the last `rewind` is passed over."""
        known = min(self._repeated, len(piece))
        self._repeated -= known
        fresh = piece[known:]
        self._heard += len(fresh)
        *whole, self._partial = (self._partial + fresh).split("\n")
        for line in whole:
            self._keep(line + "\n")
        if len(self._partial) > self._limit:  # a line without end must not fill the memory
            self._keep(self._partial)
            self._partial = ""

    def rewind(self) -> None:
        """The log begins anew from here on."""
        self._repeated = self._heard

    def text(self) -> str:
        """The end of the log."""
        return ("".join(self._lines) + self.hide(self._partial))[-self._limit :]

    def hide(self, line: str) -> str:
        """The text without the values of secrets."""
        for secret in self._secrets:
            line = line.replace(secret, HIDDEN)
        return line

    def _keep(self, line: str) -> None:
        line = self.hide(line)
        self._show(line)
        self._lines.append(line)
        self._kept += len(line)
        while self._kept > self._limit:
            self._kept -= len(self._lines.popleft())
            self.cut = True
