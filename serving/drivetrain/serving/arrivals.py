"""Whether outcomes come as they usually do: too late, or not at all, is not what customers did."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from drivetrain.evidence.silence import Silence
from drivetrain.levers.grid import Booleans, Floats
from drivetrain.serving.lateness import Lateness
from drivetrain.serving.maturation import Cohort


@dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """Decisions whose outcomes may be missing for want of a report; they are not compared with the past."""

    rows: Booleans
    """Which of the cohort's."""
    since: float | None
    """Those of earlier cohorts from then on too; None: none of them."""
    open_since: float
    """Decisions from then on may yet be doubted: what was known before them is to be kept."""


class Arrivals:
    """Outcomes that come late, and stretches in which none comes, by when the decisions were made."""

    def __init__(self, matures_after: timedelta) -> None:
        self.matures_after = matures_after
        self._lateness = Lateness(matures_after)
        self._silence = Silence(matures_after.total_seconds())

    def late(self, decided: Floats) -> None:
        """Adds outcomes that came too late, by when their decisions were made, seconds since 1970."""
        self._lateness.late(decided)

    def matured(self, cohort: Cohort, target: str, *, missing_is_zero: bool) -> Doubt:
        """Adds a matured cohort. A missing outcome that stands for nothing needs no doubt."""
        self._lateness.matured(cohort.seconds)
        rows, since = np.zeros(len(cohort), dtype=bool), None
        if missing_is_zero:
            rows, since = self._silence.update(cohort.seconds, cohort.answered(target))
        if self._lateness.began is not None:
            rows = np.ones(len(cohort), dtype=bool)
            since = self._lateness.began if since is None else min(since, self._lateness.began)
        return Doubt(rows, since, self._silence.open_since)

    @property
    def trouble(self) -> str:
        """Why outcomes cannot be compared with the past now, '' when they can."""
        if self._silence.silent:
            return (
                f"OutcomesMissing: none of the last {self._silence.run} decisions has an outcome, and usually "
                f"{self._silence.usual:.1%} have; no verdict until some come."
            )
        if self._lateness.began is not None:
            share = self._lateness.share
            return f"OutcomesLate: {share:.1%} of the decisions got an outcome after kpi.maturesAfter; no verdict now."
        return ""

    def in_words(self) -> dict[str, str]:
        """What status says: nothing while all come in time."""
        return {"outcomes": self.trouble} if self._silence.silent else self._lateness.in_words()

    def state(self) -> dict[str, Any]:
        """What a restart needs."""
        return {
            "maturesAfter": self.matures_after.total_seconds(),
            "lateness": self._lateness.state(),
            "silence": self._silence.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of the same maturation time."""
        if state["maturesAfter"] == self.matures_after.total_seconds():
            self._lateness.restore(state["lateness"])
            self._silence.restore(state["silence"])
