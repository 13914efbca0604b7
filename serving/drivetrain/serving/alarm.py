"""When a detector's word counts."""

from dataclasses import dataclass
from typing import Final, Literal

from drivetrain.evidence.calibration import Severity

YEAR_DAYS: Final = 365.0
WARN_FACTOR: Final = 10.0
"""A warning may be wrong ten times as often as a severe alarm."""
NAMES: Final[dict[Severity, Literal["None", "Warn", "Severe"]]] = {
    Severity.NONE: "None",
    Severity.WARN: "Warn",
    Severity.SEVERE: "Severe",
}


@dataclass(slots=True)
class Alarm:
    """Since when, by the time of decisions, a detector has spoken at each severity.

    It counts once it has held for one more maturation time: until then outcomes that come late may still take it back.
    """

    warn: float | None = None
    severe: float | None = None
    latest: float = 0.0

    def heard(self, severity: Severity, at: float) -> None:
        """Takes over what the detector says after the decisions up to `at`."""
        self.latest = at
        self.warn = None if severity < Severity.WARN else at if self.warn is None else self.warn
        self.severe = None if severity < Severity.SEVERE else at if self.severe is None else self.severe

    def confirmed(self, after: float) -> Severity:
        """The severity that has held for `after` seconds."""
        if self.severe is not None and self.latest >= self.severe + after:
            return Severity.SEVERE
        return Severity.WARN if self.warn is not None and self.latest >= self.warn + after else Severity.NONE

    def state(self) -> list[float | None]:
        """What a restart needs."""
        return [self.warn, self.severe, self.latest]
