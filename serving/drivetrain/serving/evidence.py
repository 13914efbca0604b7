"""All evidence of one endpoint: pure, fed with matured cohorts, the same whatever their batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.report import DriftEvidence, KpiEvidence, RolloutEvidence
from drivetrain.levers.grid import Booleans, Floats
from drivetrain.serving.adjustments import Offset
from drivetrain.serving.arrivals import Arrivals
from drivetrain.serving.comparison import Comparison
from drivetrain.serving.judged import Judged, Realised, promised, realised
from drivetrain.serving.maturation import Cohort
from drivetrain.serving.stability import Stability
from drivetrain.serving.worth import Worth

OFFSET_ROWS: Final = 500
"""Matured decisions of a policy before its expected values are recalibrated."""


@dataclass(slots=True)
class _Moments:
    """Count, sum and sum of squares."""

    count: float = 0.0
    total: float = 0.0
    square: float = 0.0

    def add(self, values: "np.ndarray[Any, np.dtype[np.float64]]") -> None:
        self.count += len(values)
        self.total += float(values.sum())
        self.square += float((values**2).sum())


@dataclass(frozen=True, slots=True)
class Findings:
    """What the evidence says at one moment."""

    rollout: RolloutEvidence | None
    drift: DriftEvidence | None
    kpi: KpiEvidence | None
    matured: int
    explored: int
    explored_since_change: int


class Evidence:
    """Follows one configuration after another; what belongs to another rollout or stable policy starts from nothing."""

    def __init__(self) -> None:
        self._config: EndpointConfig | None = None
        self._policies: Mapping[str, Judged] = {}
        self._comparison: Comparison | None = None
        self._stability: Stability | None = None
        self._worth: Worth | None = None
        self._arrivals: Arrivals | None = None
        self._matured = 0
        self._explored = 0
        self._explored_at: list[list[float]] = []
        self._offsets: dict[str, _Moments] = {}
        self._metrics: dict[str, _Moments] = {}

    def configure(self, config: EndpointConfig, policies: Mapping[str, Judged]) -> None:
        """Takes over a configuration; `policies` holds those that it names, by hash."""
        before = self._config
        self._config, self._policies = config, policies
        candidate = policies.get(config.candidate) if config.candidate is not None else None
        stable = policies[config.stable]
        if config.rollout is None or candidate is None:
            self._comparison = None
        elif self._comparison is None or self._comparison.rollout != config.rollout:
            self._comparison = Comparison(config, stable, candidate)
        else:
            self._comparison.configure(config)
        if (
            before is None
            or self._stability is None
            or (before.stable, before.stable_since)
            != (
                config.stable,
                config.stable_since,
            )
        ):
            self._stability = Stability(config, stable, _instant(config.stable_since))
        else:
            self._stability.configure(config)
        matures_after = stable.policy.objective.kpi.matures_after
        if self._arrivals is None or self._arrivals.matures_after != matures_after:
            self._arrivals = Arrivals(matures_after)
        if before is None or self._worth is None or before.monitoring.window != config.monitoring.window:
            self._worth = Worth(config)
        kept = {config.stable, *([config.candidate] if config.candidate else [])}
        self._offsets = {hash_: moments for hash_, moments in self._offsets.items() if hash_ in kept}
        self._metrics = {hash_: moments for hash_, moments in self._metrics.items() if hash_ in kept}

    def feed(self, cohort: Cohort) -> None:
        """Adds a matured cohort in decision order. Decisions under another objective count, but are not valued."""
        config = self._config
        assert config is not None
        assert self._stability is not None
        assert self._worth is not None
        assert self._arrivals is not None
        stable = self._policies[config.stable]
        missing_is_zero = stable.policy.objective.kpi.when_missing == "Zero"
        doubt = self._arrivals.matured(cohort, stable.policy.target.name, missing_is_zero=missing_is_zero)
        explored = cohort.numbers(log.EXPLORED) == 1
        self._matured += len(cohort)
        self._explored += int(explored.sum())
        self._remember_explored(cohort, explored)
        objectives = cohort.texts(log.OBJECTIVE)
        newest = self._policies.get(config.candidate or "", stable)
        mine = np.asarray(objectives == newest.objective, dtype=bool)
        outcome = None
        if mine.any():
            part = cohort if mine.all() else cohort.where(mine)
            outcome = realised(part, newest)
            if self._comparison is not None:
                self._comparison.feed(part, outcome)
            self._worth.feed(part, outcome)
            certain = ~doubt.rows[mine]
            self._recalibrate(part.where(certain), outcome.where(certain), newest.objective)
        # Stable may still be measured by the objective that it was promoted under.
        same = outcome is not None and newest.objective == stable.objective and bool(mine.all())
        valued = outcome if same and outcome is not None else realised(cohort, stable)
        self._stability.feed(cohort, valued, doubt)

    def late(self, decided: Floats) -> None:
        """Adds outcomes that came after their decisions matured, by when those were made; they enter no evidence."""
        assert self._arrivals is not None
        self._arrivals.late(decided)

    def in_words(self, now: datetime) -> dict[str, str]:
        """What status says of late outcomes and of decisions that people overrode."""
        late = self._arrivals.in_words() if self._arrivals is not None else {}
        return late | (self._worth.compliance(now) if self._worth is not None else {})

    def findings(self, now: datetime, weight: int) -> Findings:
        """What is reported; `weight` is what all replicas apply, 0 while they differ."""
        config = self._config
        assert config is not None
        drift = None
        if self._stability is not None:
            trouble = self._arrivals.trouble if self._arrivals is not None else ""
            drift = self._stability.report(open_since=self._no_verdict(now), trouble=trouble)
        changes = [part.changed_at for part in (drift.covariate, drift.calibration, drift.kpi)] if drift else []
        changed = max((at for at in changes if at is not None), default=None)
        return Findings(
            rollout=self._comparison.report(weight, now) if self._comparison is not None else None,
            drift=drift,
            kpi=self._worth.report(now) if self._worth is not None else None,
            matured=self._matured,
            explored=self._explored,
            explored_since_change=self._explored_since(changed) if changed is not None else 0,
        )

    def offsets(self) -> dict[str, Offset]:
        """Policy to the recalibration of its expected values, where enough has matured."""
        found = {}
        for hash_, moments in self._offsets.items():
            if moments.count >= OFFSET_ROWS:
                mean = moments.total / moments.count
                variance = max(moments.square / moments.count - mean**2, 0.0)
                found[hash_] = Offset(offset=mean, radius=1.96 * float(np.sqrt(variance / moments.count)))
        return found

    def target_means(self) -> dict[str, tuple[int, float]]:
        """Policy to rows and mean of the realised target since it came or was last asked to start anew."""
        return {
            hash_: (int(moments.count), moments.total / moments.count)
            for hash_, moments in self._metrics.items()
            if moments.count
        }

    def restart_target_mean(self, hash_: str) -> None:
        """Begins a policy's target mean anew."""
        self._metrics.pop(hash_, None)

    def state(self) -> dict[str, Any]:
        """What a restarted Monitor needs to go on exactly."""
        config = self._config
        assert config is not None
        return {
            "stable": [config.stable, config.stable_since],
            "comparison": self._comparison.state() if self._comparison is not None else None,
            "stability": self._stability.state() if self._stability is not None else None,
            "worth": self._worth.state() if self._worth is not None else None,
            "arrivals": self._arrivals.state() if self._arrivals is not None else None,
            "matured": self._matured,
            "explored": self._explored,
            "explored_at": self._explored_at,
            "offsets": {hash_: [m.count, m.total, m.square] for hash_, m in self._offsets.items()},
            "metrics": {hash_: [m.count, m.total, m.square] for hash_, m in self._metrics.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, as far as it is about the rollout and stable policy now configured."""
        config = self._config
        assert config is not None
        followed = state["comparison"]
        if self._comparison is not None and followed is not None and followed["rollout"] == self._comparison.rollout:
            self._comparison.restore(followed)
        same_stable = state["stable"] == [config.stable, config.stable_since]
        if self._stability is not None and state["stability"] is not None and same_stable:
            self._stability.restore(state["stability"])
        if self._worth is not None and state["worth"] is not None:
            self._worth.restore(state["worth"])
        if self._arrivals is not None and state["arrivals"] is not None:
            self._arrivals.restore(state["arrivals"])
        self._matured, self._explored = state["matured"], state["explored"]
        self._explored_at = [list(pair) for pair in state["explored_at"]]
        self._offsets = {hash_: _Moments(*sums) for hash_, sums in state["offsets"].items()}
        self._metrics = {hash_: _Moments(*sums) for hash_, sums in state["metrics"].items()}

    def _no_verdict(self, now: datetime) -> str:
        """Why no drift verdict may be given now."""
        config = self._config
        assert config is not None
        if config.candidate is not None:
            return "while a rollout is open"
        since = _instant(config.stable_since)
        matures_after = self._policies[config.stable].policy.objective.kpi.matures_after
        if since is not None and now < since + matures_after:
            return "before the first decisions after the promotion matured"
        return ""

    def _recalibrate(self, cohort: Cohort, outcome: Realised, objective: str) -> None:
        """Collects realised less promised KPI, by each policy's own objective, and the realised target, by policy."""
        config = self._config
        assert config is not None
        policies = cohort.texts(log.POLICY)
        chosen = np.asarray(cohort.texts(log.FALLBACK) == "", dtype=bool) & ~outcome.overridden
        roles = ((config.stable, log.PREDICTION_STABLE), (config.candidate, log.PREDICTION_CANDIDATE))
        for hash_, name in roles:
            judged = self._policies.get(hash_) if hash_ is not None else None
            if judged is None or judged.policy.model is None:
                continue
            rows = chosen & np.asarray(policies == judged.hash, dtype=bool)
            if not rows.any():
                continue
            part = cohort.where(rows)
            own = outcome.where(rows) if judged.objective == objective else realised(part, judged)
            less = own.kpi - promised(part, judged, part.matrix(name))
            self._offsets.setdefault(judged.hash, _Moments()).add(less[np.isfinite(less)])
            target = outcome.target[rows]
            self._metrics.setdefault(judged.hash, _Moments()).add(target[np.isfinite(target)])

    def _remember_explored(self, cohort: Cohort, explored: Booleans) -> None:
        """Explored decisions by the minute, so that those since a change can be counted later."""
        minutes, counts = np.unique(np.floor(cohort.seconds[explored] / 10.0), return_counts=True)
        for minute, count in zip(minutes.tolist(), counts.tolist(), strict=True):
            if self._explored_at and self._explored_at[-1][0] == minute:
                self._explored_at[-1][1] += count
            else:
                self._explored_at.append([minute, count])
        del self._explored_at[:-50_000]

    def _explored_since(self, changed: datetime) -> int:
        return int(sum(count for minute, count in self._explored_at if minute * 10.0 >= changed.timestamp()))


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
