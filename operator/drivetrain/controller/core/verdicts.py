"""What a rollout's intervals prove, each in its metric's good direction.

The Monitor reports candidate minus stable, or the candidate's mean less the bound of a Portfolio constraint, in the
metric's own unit, by confidence sequences that are valid at every look; here they are only compared with their bounds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drivetrain.api.portfolio import PortfolioBound
from drivetrain.api.report import MetricEvidence, RolloutEvidence
from drivetrain.api.v1alpha1.objective import Kpi
from drivetrain.api.v1alpha1.rollout import Analysis


@dataclass(frozen=True, slots=True)
class Verdict:
    """One metric's interval, turned so that more is better."""

    metric: str
    role: Literal["Kpi", "Guardrail", "Bound", "Shown"]
    lower: float
    upper: float
    tolerance: float
    evidence: MetricEvidence
    bound: PortfolioBound | None = None

    @property
    def harms(self) -> bool:
        """Harm is proved: the whole interval lies below -tolerance, or beyond the bound."""
        return self.role != "Shown" and self.upper < -self.tolerance

    @property
    def harmless(self) -> bool:
        """Harm is excluded: the whole interval lies above -tolerance."""
        return self.role != "Shown" and self.lower > -self.tolerance

    @property
    def better(self) -> bool:
        """The candidate is proved better; to keep a bound is not to be better."""
        return self.role not in ("Bound", "Shown") and self.lower > 0

    @property
    def word(self) -> Literal["Open", "Harm", "NoHarm", "Better"]:
        """The verdict as status shows it."""
        return "Harm" if self.harms else "Better" if self.better else "NoHarm" if self.harmless else "Open"

    def __str__(self) -> str:
        if self.bound is not None:
            side, value = self.bound.side, self.bound.value
            beyond = f"{'below' if side == 'minimum' else 'above'} the {side}" if self.harms else side
            levels = f"[{self.evidence.lower + value:.4g}, {self.evidence.upper + value:.4g}]"
            return f"{self.bound.metric}: candidate in {levels}, {beyond} {value:g}"
        interval = f"[{self.evidence.lower:.4g}, {self.evidence.upper:.4g}]"
        return f"{self.metric}: candidate minus stable in {interval}, tolerance {self.tolerance:g}"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All metrics of one look."""

    all: tuple[Verdict, ...]
    enough: bool
    """minOutcomes are in for each arm."""
    listed: frozenset[str]

    @property
    def kpi(self) -> Verdict | None:
        """The KPI's verdict."""
        return next((each for each in self.all if each.role == "Kpi"), None)

    @property
    def harm(self) -> Verdict | None:
        """The first metric for which harm is proved: the KPI, a listed guardrail or a bound."""
        return next((each for each in self.all if each.harms), None)

    def told(self) -> str:
        """The intervals of KPI and guardrails in words, what is harmed first."""
        return "; ".join(
            str(each) for each in sorted(self.all, key=lambda each: not each.harms) if each.role != "Shown"
        )

    @property
    def may_advance(self) -> bool:
        """Harm is excluded for every listed guardrail, one without an interval included, and outcomes suffice.

        A bound holds up nothing: where it binds, the multiplier puts every good policy right at it, and harm at the
        very bound is never excluded. It rejects what is proved to lie beyond.
        """
        excluded = {each.metric for each in self.all if each.role == "Guardrail" and each.harmless}
        return self.enough and self.listed <= excluded


def verdicts(
    evidence: RolloutEvidence,
    analysis: Analysis,
    kpi: Kpi,
    loss_accepted: float,
    bounds: Sequence[PortfolioBound] = (),
) -> Verdicts:
    """Judge one look. A metric or bound that is not declared is shown only, whatever the report calls it.

    `bounds` are those of the candidate's own objective.
    `loss_accepted` is what earlier promotions by non-inferiority already gave away: it is taken off the tolerance, so
    that many small losses cannot add up to a large one.
    """
    better = {metric.name: metric for metric in analysis.metrics}
    declared = {bound.name: bound for bound in bounds}
    found = []
    for each in evidence.metrics:
        if each.role == "Kpi":
            tolerance = max(analysis.tolerance - loss_accepted, 0.0) if analysis.goal == "NonInferior" else 0.0
            found.append(_turned(each, "Kpi", kpi.direction == "Maximize", tolerance))
        elif each.role == "Guardrail" and each.metric in better:
            rule = better[each.metric]
            found.append(_turned(each, "Guardrail", rule.better == "Higher", rule.tolerance))
        elif each.role == "Bound" and each.metric in declared:
            bound = declared[each.metric]
            found.append(_turned(each, "Bound", bound.side == "minimum", 0.0, bound))
        else:
            found.append(_turned(each, "Shown", True, 0.0))
    enough = min(evidence.outcomes_stable, evidence.outcomes_candidate) >= analysis.min_outcomes
    return Verdicts(tuple(found), enough, frozenset(better))


def _turned(
    evidence: MetricEvidence,
    role: Literal["Kpi", "Guardrail", "Bound", "Shown"],
    more_is_better: bool,
    tolerance: float,
    bound: PortfolioBound | None = None,
) -> Verdict:
    lower, upper = (evidence.lower, evidence.upper) if more_is_better else (-evidence.upper, -evidence.lower)
    return Verdict(evidence.metric, role, lower, upper, tolerance, evidence, bound)
