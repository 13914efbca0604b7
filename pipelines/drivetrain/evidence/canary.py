"""The canary: is the candidate harmful, or better, at every look and under every change of its weight.

Each matured unit adds x = m_B - m_A + 1{B}(Y - m_B) / w - 1{A}(Y - m_A) / (1 - w), whose mean is the effect of the
candidate B against stable A, whatever m is. Units of different weights w are combined with weights v = w (1 - w); arm
means are never pooled across weights. |x| <= R / min(w, 1 - w) holds by w alone, R being the width of the metric's
declared bounds, so |v (x - effect)| <= R for every w: one constant bound for a whole ramp.

A metric with a `level` is about the candidate alone: x = m_B - level + 1{B}(Y - m_B) / w, whose mean is the candidate's
own mean less the level, whatever m is. With the same weights |v (x - mean)| <= R holds again: for a unit of B it is
(1 - w) |Y - (1 - w) m_B - w (level + mean)|, and for one of A w (1 - w) |m_B - (level + mean)|.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

import numpy as np

from drivetrain.api.errors import DrivetrainError
from drivetrain.evidence.asymptotic import AsymptoticSequence, AsymptoticState
from drivetrain.evidence.betting import BettingSequence, BettingState, mean_grid
from drivetrain.evidence.intervals import Bools, Bounds, Floats, Interval


class Verdict(StrEnum):
    """What a metric's sequence says, in the metric's good direction; the strongest statement that holds."""

    OPEN = "Open"
    HARM_PROVED = "HarmProved"
    """The sequence lies wholly below -tolerance."""
    HARM_EXCLUDED = "HarmExcluded"
    """The sequence lies wholly above -tolerance: the goal NonInferior."""
    SUPERIOR = "Superior"
    """The sequence lies wholly above 0."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The declaration of a KPI or a guardrail: `bounds` for the betting sequence, or `clip` for the asymptotic one.

    With a `level` it is the candidate's own mean that is compared, with this level, and not its effect against stable.
    """

    name: str
    higher_is_better: bool = True
    tolerance: float = 0.0
    bounds: Bounds | None = None
    clip: Bounds | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        if (self.bounds is None) == (self.clip is None):
            raise DrivetrainError(f"{self.name}: declare either bounds or, for an unbounded KPI, a clipping range.")
        if not 0 <= self.tolerance < self.range.width:
            raise DrivetrainError(f"{self.name}: the tolerance must lie in [0, {self.range.width}).")
        if self.level is None:
            return
        if self.tolerance or (self.bounds and not self.bounds.minimum <= self.level <= self.bounds.maximum):
            raise DrivetrainError(f"{self.name}: a level lies within the bounds and takes no tolerance.")

    @property
    def range(self) -> Bounds:
        """The declared bounds, or the clipping range."""
        bounds = self.bounds or self.clip
        assert bounds is not None  # __post_init__ refused the other case
        return bounds


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One metric of matured units: the outcome and one frozen model's prediction for each arm's own actions.

    All arrays have the shape of `candidate` in Canary.update. Without a prediction, leave m out (0 is used).
    """

    y: Floats
    m_stable: Floats | None = None
    m_candidate: Floats | None = None


@dataclass(frozen=True, slots=True)
class MetricEvidence:
    """What one metric's sequence says now: the candidate's effect in the metric's own unit and direction.

    Of a metric with a level, `effect` is the candidate's mean less that level.
    """

    name: str
    effect: Interval
    stable_units: int
    candidate_units: int
    alpha: float
    verdict: Verdict


class MetricState(TypedDict):
    """What one metric's sequence persists."""

    units: list[float]
    betting: BettingState | None
    asymptotic: AsymptoticState | None


def increments(candidate: Bools, weight: Floats, y: Floats, m_stable: Floats, m_candidate: Floats) -> Floats:
    """The canary's unbiased increment of each unit; all arrays of one shape, 0 < weight < 1."""
    residual = y - np.where(candidate, m_candidate, m_stable)
    return m_candidate - m_stable + np.where(candidate, residual / weight, -residual / (1 - weight))


def level_increments(candidate: Bools, weight: Floats, y: Floats, m_candidate: Floats) -> Floats:
    """Each unit's unbiased increment of the candidate's own mean; all arrays of one shape, 0 < weight < 1."""
    return m_candidate + np.where(candidate, (y - m_candidate) / weight, 0.0)


class MetricSequence:
    """The confidence sequence of one metric's effect over a rollout; `runs` as in BettingSequence.

    A unit enters once per rollout, with its first decision, in decision order and whole cohorts; units of the holdout
    do not enter, fallbacks do.
    """

    def __init__(self, metric: Metric, alpha: float, *, runs: tuple[int, ...] = (), thresholds_only: bool = False):
        self.metric = metric
        self._alpha = alpha
        self._sign = 1.0 if metric.higher_is_better else -1.0
        self._units = np.zeros((*runs, 2))
        width = metric.range.width
        marks = np.unique([-metric.tolerance, 0.0])
        self._betting: BettingSequence | None = None
        self._asymptotic: AsymptoticSequence | None = None
        if metric.bounds is None:
            self._asymptotic = AsymptoticSequence(alpha=alpha, scale=width, runs=runs)
        else:
            means = marks if thresholds_only else mean_grid(width, marks.tolist())
            if metric.level is not None and not thresholds_only:
                # A mean outside the bounds is impossible, and a bet against it would not be bounded.
                ends = [self._sign * (end - metric.level) for end in (metric.bounds.minimum, metric.bounds.maximum)]
                means = np.unique(np.clip(means, min(ends), max(ends)))
            self._betting = BettingSequence(alpha=alpha, bound=width, means=means, runs=runs)

    def update(self, candidate: Bools, weight: Floats, outcomes: Outcomes) -> None:
        """Add matured units in decision order, arrays of shape (*runs, n).

        Raises OutOfBoundsError for an outcome outside the declared bounds and DrivetrainError for a weight outside
        (0, 1); nothing is added then.
        """
        if not np.all((weight > 0) & (weight < 1)):
            raise DrivetrainError("A unit's weight must lie strictly between 0 and 1: one arm alone tells nothing.")
        range_ = self.metric.range
        y = outcomes.y
        if self._betting is not None:
            range_.require(self.metric.name, y)
        # Predictions outside the range would break the bound on x; clipping them is as predictable as they are.
        y, m_stable, m_candidate = (
            np.clip(values, range_.minimum, range_.maximum)
            for values in (y, _or_zero(outcomes.m_stable, y), _or_zero(outcomes.m_candidate, y))
        )
        if self.metric.level is None:
            x = self._sign * increments(candidate, weight, y, m_stable, m_candidate)
        else:
            x = self._sign * (level_increments(candidate, weight, y, m_candidate) - self.metric.level)
        v = weight * (1 - weight)
        if self._betting is not None:
            self._betting.update(x, v)
        elif self._asymptotic is not None:
            self._asymptotic.update(x, v, candidate)
        self._units += np.stack([np.sum(~candidate, axis=-1), np.sum(candidate, axis=-1)], axis=-1)

    @property
    def harm_proved(self) -> Bools:
        """Whether the sequence lies wholly below -tolerance; shape runs."""
        return self._sequence.falls_below(-self.metric.tolerance)

    @property
    def harm_excluded(self) -> Bools:
        """Whether the sequence lies wholly above -tolerance; shape runs."""
        return self._sequence.exceeds(-self.metric.tolerance)

    @property
    def superior(self) -> Bools:
        """Whether the sequence lies wholly above 0, and has no level (to keep one is not to be better); shape runs."""
        above = self._sequence.exceeds(0.0)
        return above if self.metric.level is None else np.zeros_like(above)

    def evidence(self) -> MetricEvidence:
        """Interval, counts and verdict of one run (runs=())."""
        good = self._sequence.interval()
        effect = good if self._sign > 0 else Interval(-good.estimate, -good.upper, -good.lower)
        verdict = Verdict.OPEN
        if self.harm_proved:
            verdict = Verdict.HARM_PROVED
        elif self.superior:
            verdict = Verdict.SUPERIOR
        elif self.harm_excluded:
            verdict = Verdict.HARM_EXCLUDED
        stable, candidate = (int(count) for count in self._units)
        return MetricEvidence(self.metric.name, effect, stable, candidate, self._alpha, verdict)

    def state(self) -> MetricState:
        """The small value from which one run goes on."""
        return {
            "units": self._units.tolist(),
            "betting": None if self._betting is None else self._betting.state(),
            "asymptotic": None if self._asymptotic is None else self._asymptotic.state(),
        }

    def restore(self, state: MetricState) -> None:
        """Go on from a state of the same metric; raises DrivetrainError when it was declared differently."""
        if self._betting is not None and state["betting"] is not None:
            self._betting.restore(state["betting"])
        elif self._asymptotic is not None and state["asymptotic"] is not None:
            self._asymptotic.restore(state["asymptotic"])
        else:
            raise DrivetrainError(f"The stored evidence on {self.metric.name} belongs to another kind of sequence.")
        self._units = np.asarray(state["units"], dtype=np.float64)

    @property
    def _sequence(self) -> BettingSequence | AsymptoticSequence:
        sequence = self._betting or self._asymptotic
        assert sequence is not None  # the constructor made exactly one
        return sequence


class CanaryState(TypedDict):
    """What a canary persists, by metric."""

    metrics: dict[str, MetricState]


class Canary:
    """KPI (first) and guardrails of one rollout, alpha split evenly over them and not over looks."""

    def __init__(self, metrics: Sequence[Metric], alpha: float) -> None:
        if not metrics or len({metric.name for metric in metrics}) < len(metrics):
            raise DrivetrainError("A canary needs at least one metric, each of its own name.")
        share = alpha / len(metrics)
        self._sequences = {metric.name: MetricSequence(metric, share) for metric in metrics}

    def update(self, candidate: Bools, weight: Floats, outcomes: Mapping[str, Outcomes]) -> None:
        """Add the same matured units to every metric, in decision order; see MetricSequence.update for what raises."""
        for name, sequence in self._sequences.items():
            range_ = sequence.metric.bounds
            if range_ is not None:  # checked for all first: a batch enters every metric or none
                range_.require(name, outcomes[name].y)
        for name, sequence in self._sequences.items():
            sequence.update(candidate, weight, outcomes[name])

    def evidence(self) -> tuple[MetricEvidence, ...]:
        """What each metric says now, the KPI first."""
        return tuple(sequence.evidence() for sequence in self._sequences.values())

    def state(self) -> CanaryState:
        """The small value from which the canary goes on."""
        return {"metrics": {name: sequence.state() for name, sequence in self._sequences.items()}}

    @classmethod
    def from_state(cls, metrics: Sequence[Metric], alpha: float, state: CanaryState) -> "Canary":
        """Go on from a state; raises DrivetrainError when the metrics were declared differently."""
        canary = cls(metrics, alpha)
        if set(state["metrics"]) != set(canary._sequences):
            raise DrivetrainError("The stored evidence is about other metrics than those declared.")
        for name, sequence in canary._sequences.items():
            sequence.restore(state["metrics"][name])
        return canary


def projected_units(evidence: MetricEvidence, metric: Metric, weight: float, *, superior: bool) -> float | None:
    """Matured units still needed at `weight` for a verdict if the estimate is right; None when it cannot be foreseen.

    The half-width is taken to shrink with the square root of the information sum w (1 - w). With `superior` the goal is
    a lower bound above 0, else above -tolerance; an estimate below -tolerance is headed for a rejection.
    """
    sign = 1.0 if metric.higher_is_better else -1.0
    estimate = sign * evidence.effect.estimate
    goal = 0.0 if superior and estimate > -metric.tolerance else -metric.tolerance
    distance = abs(estimate - goal)
    reach = evidence.effect.half_width
    units = evidence.stable_units + evidence.candidate_units
    if not units or not np.isfinite(reach) or distance == 0 or (superior and -metric.tolerance <= estimate <= 0):
        return None
    # The information so far, had all units come at the share that the candidate got on average.
    share = evidence.candidate_units / units
    so_far = units * share * (1 - share)
    return max(0.0, so_far * ((reach / distance) ** 2 - 1) / (weight * (1 - weight)))


def _or_zero(values: Floats | None, like: Floats) -> Floats:
    return np.zeros_like(like) if values is None else values
