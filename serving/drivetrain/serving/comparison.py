"""The evidence of one rollout: candidate against stable, by the first decision of each unit."""

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Literal

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.interval import Interval
from drivetrain.api.policy import EndpointConfig
from drivetrain.api.portfolio import portfolio_bounds
from drivetrain.api.report import MetricEvidence, RolloutEvidence
from drivetrain.evidence.canary import Canary, Metric, Outcomes, increments, projected_units
from drivetrain.evidence.intervals import Bounds, OutOfBoundsError
from drivetrain.evidence.sample_ratio import SampleRatio
from drivetrain.levers.assignment import Arm
from drivetrain.levers.grid import Booleans, Floats
from drivetrain.serving.clipping import Clipping
from drivetrain.serving.judged import Judged, Realised
from drivetrain.serving.losing_slices import LosingSlices
from drivetrain.serving.maturation import Cohort, instant
from drivetrain.serving.model_loss import feed_losses, loss_difference

FALLBACK_RATE: Final = "fallbackRate"
Halt = Literal["", "KpiOutOfBounds", "SampleRatioMismatch", "OutcomesMissing"]
_ANEW: Final = "The comparison began anew, since rollout.analysis was changed while the rollout was open."


@dataclass(frozen=True, slots=True)
class _Followed:
    """A metric as declared; `range` has infinite ends where nothing bounds it.

    With a `level` it is the bound of a Portfolio constraint on the outcome `of`.
    """

    name: str
    higher_is_better: bool
    tolerance: float
    range: Interval
    of: str = ""
    level: float | None = None


class Comparison:
    """Fed with matured cohorts; halts, and stays so, when the evidence cannot be trusted."""

    def __init__(self, config: EndpointConfig, stable: Judged, candidate: Judged) -> None:
        assert config.rollout is not None
        self.rollout = config.rollout
        self._config = config
        self._weight = config.weight / 100
        self._stable, self._candidate = stable, candidate
        self._begin()

    def _begin(self, message: str = "") -> None:
        self._halted: Halt = ""
        self._message = message
        self._followed = self._declared()
        self._clipping = Clipping({each.name: each.range for each in self._followed if not each.range.finite})
        self._metrics: tuple[Metric, ...] = ()
        self._canary: Canary | None = None
        self._open()
        self._ratio = SampleRatio()
        self._loss = loss_difference(self._stable, self._candidate)
        self._seen: set[int] = set()
        self._slices = LosingSlices(self._candidate.policy.slices)
        self._first: float | None = None
        self._last = 0.0

    def configure(self, config: EndpointConfig) -> None:
        """Takes over another weight of the same rollout. What is declared otherwise is compared from nothing."""
        declared = self._declaration()
        self._config = config
        self._weight = config.weight / 100
        self._followed = self._declared()
        if self._declaration() != declared:
            self._begin(_ANEW)

    def feed(self, cohort: Cohort, outcome: Realised) -> None:
        """Adds a matured cohort, already valued by the candidate's objective."""
        if self._halted:
            return
        arm, weight = cohort.texts(log.ARM), cohort.numbers(log.WEIGHT)
        mine = np.asarray(cohort.texts(log.ROLLOUT) == self.rollout, dtype=bool)
        mine &= np.asarray((arm == Arm.STABLE.value) | (arm == Arm.CANDIDATE.value), dtype=bool)
        mine &= (weight > 0) & (weight < 1)
        mine &= self._first_of_unit(cohort, mine)
        if not mine.any():
            return
        when_missing = self._candidate.policy.objective.kpi.when_missing
        if when_missing == "Fail" and (outcome.missing & mine).any():
            self._halt("OutcomesMissing", f"{int((outcome.missing & mine).sum())} matured decisions have no outcome.")
            return
        candidate = np.asarray(arm == Arm.CANDIDATE.value, dtype=bool)
        if when_missing == "Exclude":
            mine &= ~outcome.missing
            self._ratio.update(candidate[mine], weight[mine])
            if self._ratio.mismatch:
                self._halt("SampleRatioMismatch", "One arm reports outcomes more often than the other.")
                return
        kept = mine if self._canary is not None else self._measured(cohort, outcome, mine)
        if not kept.any():
            return
        try:
            self._update(cohort.where(kept), outcome.where(kept), candidate[kept], weight[kept])
        except OutOfBoundsError as error:
            self._halt("KpiOutOfBounds", str(error))

    def report(self, weight: int, now: datetime) -> RolloutEvidence:
        """What the rollout has shown; `weight` is what all replicas apply."""
        evidence = self._canary.evidence() if self._canary is not None else ()
        metrics = [
            MetricEvidence(
                metric=found.name,
                role="Kpi" if number == 0 else "Guardrail" if self._followed[number].level is None else "Bound",
                estimate=_finite(found.effect.estimate),
                lower=_finite(found.effect.lower, -1e300),
                upper=_finite(found.effect.upper, 1e300),
            )
            for number, found in enumerate(evidence)
        ]
        if self._loss is not None:
            shown = self._loss.interval()
            metrics.append(
                MetricEvidence(
                    metric=self._candidate.policy.objective.model_metric.name,
                    role="Shown",
                    estimate=_finite(shown.estimate),
                    lower=_finite(shown.lower, -1e300),
                    upper=_finite(shown.upper, 1e300),
                )
            )
        return RolloutEvidence(
            rollout=self.rollout,
            stable=self._stable.hash,
            candidate=self._candidate.hash,
            weight=weight,
            outcomes_stable=evidence[0].stable_units if evidence else 0,
            outcomes_candidate=evidence[0].candidate_units if evidence else 0,
            metrics=tuple(metrics),
            halted=self._halted,
            message=self._message or self._clipping.in_words(),
            projected_verdict_at=self._projected(now),
            losing_slices=tuple(self._slices.names()[:10]),
        )

    def state(self) -> dict[str, Any]:
        """What a restart needs to go on exactly."""
        return {
            "rollout": self.rollout,
            "declared": self._declaration(),
            "halted": [self._halted, self._message],
            "clipping": self._clipping.state(),
            "canary": self._canary.state() if self._canary is not None else None,
            "ratio": self._ratio.state(),
            "loss": self._loss.state() if self._loss is not None else None,
            "seen": _packed(self._seen),
            "slices": self._slices.state(),
            "times": [self._first, self._last],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state of the same rollout; begins anew where that was about other declarations."""
        if state["declared"] != self._declaration():
            self._begin(_ANEW)
            return
        self._halted, self._message = state["halted"]
        self._clipping.restore(state["clipping"])
        self._open()
        if self._canary is not None and state["canary"] is not None:
            self._canary = Canary.from_state(self._metrics, self._config.analysis.alpha, state["canary"])
        self._ratio.restore(state["ratio"])
        if self._loss is not None and state["loss"] is not None:
            self._loss.restore(state["loss"])
        self._seen = _unpacked(state["seen"])
        self._slices.restore(state["slices"])
        self._first, self._last = state["times"]

    def _update(self, cohort: Cohort, outcome: Realised, candidate: Booleans, weight: Floats) -> None:
        assert self._canary is not None
        feeds = self._feeds(cohort, outcome)
        kpi = feeds[self._followed[0].name]
        self._canary.update(candidate, weight, feeds)
        if self._loss is not None:
            feed_losses(self._loss, self._candidate, cohort, outcome.target)
        self._feed_slices(cohort, kpi, candidate, weight)
        seconds = cohort.seconds
        self._first = float(seconds[0]) if self._first is None else self._first
        self._last = float(seconds[-1])

    def _feeds(self, cohort: Cohort, outcome: Realised) -> dict[str, Outcomes]:
        m_stable, m_candidate = cohort.numbers(log.M_STABLE), cohort.numbers(log.M_CANDIDATE)
        feeds = {self._followed[0].name: Outcomes(outcome.kpi, _known(m_stable), _known(m_candidate))}
        for each in self._followed[1:]:
            feeds[each.name] = self._guardrail(each.of or each.name, cohort, outcome)
        return feeds

    def _measured(self, cohort: Cohort, outcome: Realised, kept: Booleans) -> Booleans:
        """Measures clipping ranges on the first units; the rows that are left for the sequences."""
        if not kept.any():
            return kept
        feeds = self._feeds(cohort.where(kept), outcome.where(kept))
        used = self._clipping.add({name: feeds[name].y for name in self._clipping.names})
        self._open()
        rest = kept.copy()
        rest[np.flatnonzero(kept)[:used]] = False
        return rest

    def _open(self) -> None:
        """Begins the sequences once every metric has bounds or a clipping range."""
        if self._canary is not None or not self._clipping.ready:
            return
        self._metrics = tuple(self._metric(each) for each in self._followed)
        self._canary = Canary(self._metrics, self._config.analysis.alpha)

    def _metric(self, each: "_Followed") -> Metric:
        if each.range.finite:
            bounds = Bounds(each.range.low, each.range.high)
            tolerance = min(each.tolerance, bounds.width * 0.999)
            return Metric(each.name, each.higher_is_better, tolerance, bounds, level=each.level)
        clip = self._clipping.bounds(each.name)
        tolerance = min(each.tolerance, clip.width * 0.999)
        return Metric(each.name, each.higher_is_better, tolerance, clip=clip, level=each.level)

    def _guardrail(self, name: str, cohort: Cohort, outcome: Realised) -> Outcomes:
        if name == FALLBACK_RATE:
            return Outcomes(np.asarray(cohort.texts(log.FALLBACK) != "", dtype=np.float64))
        if name == self._candidate.policy.target.name:
            y = np.where(np.isnan(outcome.target), 0.0, outcome.target)
            m = cohort.numbers(log.TARGET_M_STABLE), cohort.numbers(log.TARGET_M_CANDIDATE)
            return Outcomes(y, _known(m[0]), _known(m[1]))
        values = cohort.reported(log.LABEL_PREFIX + name)
        return Outcomes(np.array([0.0 if value is None else float(value) for value in values]))

    def _feed_slices(self, cohort: Cohort, kpi: Outcomes, candidate: Booleans, weight: Floats) -> None:
        zero = np.zeros_like(kpi.y)
        m_stable = zero if kpi.m_stable is None else kpi.m_stable
        m_candidate = zero if kpi.m_candidate is None else kpi.m_candidate
        sign = 1.0 if self._candidate.higher_is_better else -1.0
        effect = sign * increments(candidate, weight, kpi.y, m_stable, m_candidate)
        self._slices.feed(cohort, weight * (1 - weight), effect)

    def _first_of_unit(self, cohort: Cohort, eligible: Booleans) -> Booleans:
        """Whether each eligible row is its unit's first decision in this rollout; remembers the units."""
        if self._candidate.policy.objective.unit is None:
            return eligible
        first = np.zeros(len(cohort), dtype=bool)
        units = cohort.table.column(log.UNIT).to_pylist()
        for row in np.flatnonzero(eligible).tolist():
            key = int.from_bytes(blake2b(units[row].encode(), digest_size=8).digest(), "big")
            if key not in self._seen:
                self._seen.add(key)
                first[row] = True
        return first

    def _projected(self, now: datetime) -> datetime | None:
        if self._canary is None or self._first is None or self._last <= self._first or not 0 < self._weight < 1:
            return None
        found = self._canary.evidence()[0]
        superior = self._config.analysis.goal == "Superior"
        needed = projected_units(found, self._metrics[0], self._weight, superior=superior)
        rate = (found.stable_units + found.candidate_units) / (self._last - self._first)
        if needed is None or rate <= 0 or needed / rate > 10 * 365 * 86400:
            return None
        matures_after = self._candidate.policy.objective.kpi.matures_after
        return max(now, instant(self._last * 1e6) + matures_after + timedelta(seconds=needed / rate))

    def _declared(self) -> tuple[_Followed, ...]:
        """KPI first, then the guardrails and the bounds of Portfolio constraints, each with its range as known."""
        policy, analysis = self._candidate.policy, self._config.analysis
        kpi = policy.objective.kpi
        reached = self._candidate.kpi_range
        followed = [_Followed(kpi.name, kpi.direction == "Maximize", analysis.tolerance, reached)]
        for declared in analysis.metrics:
            low, high = -np.inf, np.inf
            if declared.name == FALLBACK_RATE:
                low, high = 0.0, 1.0
            elif (column := self._candidate.label_range(declared.name)) is not None:
                low, high = column.low, column.high
            low = low if declared.minimum is None else declared.minimum
            high = high if declared.maximum is None else declared.maximum
            range_ = Interval(low, high).hull(Interval(0.0, 0.0))  # an outcome that says nothing of it counts as 0
            followed.append(_Followed(declared.name, declared.better == "Higher", declared.tolerance, range_))
        for bound in portfolio_bounds(policy.objective.constraints):
            known = self._candidate.label_range(bound.metric) or Interval(-np.inf, np.inf)
            # The bound itself belongs to what is possible, so that one outside the range can be judged as well.
            range_ = known.hull(Interval(0.0, 0.0)).hull(Interval(bound.value, bound.value))
            higher = bound.side == "minimum"
            followed.append(_Followed(bound.name, higher, 0.0, range_, of=bound.metric, level=bound.value))
        return tuple(followed)

    def _declaration(self) -> str:
        """Equal for evidence about the same metrics, by the same ranges, tolerances and alpha."""
        return f"{self._config.analysis.alpha} {self._followed}"

    def _halt(self, reason: Halt, message: str) -> None:
        self._halted, self._message = reason, message


def _known(m: Floats) -> Floats:
    """Predictions where there are any; 0 is as valid."""
    return np.where(np.isfinite(m), m, 0.0)


def _finite(value: float, otherwise: float = 0.0) -> float:
    return value if np.isfinite(value) else otherwise


def _packed(keys: set[int]) -> str:
    return base64.b64encode(np.fromiter(sorted(keys), dtype=np.uint64, count=len(keys)).tobytes()).decode()


def _unpacked(text: str) -> set[int]:
    return {int(key) for key in np.frombuffer(base64.b64decode(text), dtype=np.uint64)}
