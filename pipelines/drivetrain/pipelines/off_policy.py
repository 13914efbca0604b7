"""What the new policy would earn, estimated from logged decisions before any live traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.model import InputColumn
from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.trainingrun import GateResult
from drivetrain.evidence.policy_value import LoggedDecisions, NotIdentified, PolicyValue, Rows, policy_value
from drivetrain.levers.choice import NO_ACTION
from drivetrain.levers.grid import Booleans, Column, Floats
from drivetrain.pipelines.estimators import OFFERS
from drivetrain.pipelines.evaluation import Judged
from drivetrain.pipelines.features import FeaturePlan, feed_of, matrices
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.models import Sample
from drivetrain.pipelines.rows import FALLBACK, PROPENSITY
from drivetrain.pipelines.situations import Situations, situations

NAME = "policy value"
FOLDS = 3
MOST_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Log:
    """Held-out decisions with logged propensity, fallbacks left out."""

    judged: Judged
    plan: FeaturePlan
    policy: Policy

    @classmethod
    def of(cls, judged: Judged, plan: FeaturePlan, policy: Policy) -> "Log":
        """The usable ones among these rows, at most the last MOST_ROWS."""
        usable: NDArray[np.bool_] = (
            (judged.frame[PROPENSITY].is_not_null() & ~judged.frame[FALLBACK]).fill_null(False).to_numpy()
        )
        usable &= np.cumsum(usable[::-1])[::-1] <= MOST_ROWS
        return cls(judged.take(usable), plan, policy)

    def value(
        self,
        graph: Session,
        inputs: Sequence[InputColumn],
        support: Mapping[str, Sequence[str]],
        multipliers: Mapping[str, float],
    ) -> PolicyValue | NotIdentified | None:
        """The mean KPI, in the direction that is better, of acting by this graph; None without rows or folds.

        The nuisance model is a linear one of these rows' own folds: never the one that chooses.
        """
        frame = self.judged.frame
        clusters = self.judged.clusters
        fold = np.abs(clusters) % FOLDS
        if len(np.unique(fold)) < 2:
            return None
        seen = situations(graph, frame, inputs, self.policy, support, multipliers=multipliers)
        chosen = seen.chosen()
        taken = chosen != NO_ACTION
        levers = {lever.name: seen.context[lever.name] for lever in self.policy.levers}
        own = {
            name: np.where(taken, column[chosen], levers[name]) for name, column in seen.valuation.grid.columns.items()
        }
        same = np.logical_and.reduce([_equal(own[name], levers[name]) for name in levers])
        kpi = seen.valuation.sign * seen.valuation.value(self._truth(), seen.context, levers)
        logged = LoggedDecisions(kpi, frame[PROPENSITY].to_numpy(), same.astype(np.float64), clusters, fold)
        return policy_value(logged, lambda fitted, held: self._nuisance(seen, own, fitted, held))

    def _nuisance(self, seen: Situations, own: Mapping[str, Column], fitted: Rows, held: Rows) -> tuple[Floats, Floats]:
        """The KPI expected at the logged and at the policy's action of held rows, by a linear model of the others."""
        target = self.policy.target
        offer = OFFERS["LinearRegression" if target.type == "Regression" else "LogisticRegression"]
        frame = self.judged.frame
        acted = frame.with_columns(
            pl.Series(name, column.tolist()).cast(frame.schema[name]) for name, column in own.items()
        )
        plain, scaled = matrices(self.plan, feed_of(frame, self.plan.inputs))
        sample = Sample(plain, scaled, self.judged.truth, np.ones(len(plain)), (0,) * plain.shape[1])
        model = offer.fit(sample.take(fitted), target, offer.defaults, 1)
        expected = []
        for rows, levers in ((frame, {name: seen.context[name] for name in own}), (acted, own)):
            _, matrix = matrices(self.plan, feed_of(rows[held.tolist()], self.plan.inputs))
            scores = model.scores(matrix, matrix)
            context = {name: column[held] for name, column in seen.context.items()}
            actions = {name: column[held] for name, column in levers.items()}
            expected.append(seen.valuation.sign * seen.valuation.value(scores, context, actions))
        return expected[0], expected[1]

    def _truth(self) -> Floats:
        classes = len(self.policy.target.classes)
        return np.eye(classes)[self.judged.truth.astype(np.int64)] if classes else self.judged.truth


def policy_gate(found: PolicyValue | NotIdentified | None, champion: PolicyValue | NotIdentified | None) -> GateResult:
    """Blocks only a policy that is proved worse than the champion; superiority is for the canary to prove."""
    if found is None:
        return GateResult(name=NAME, verdict="NotIdentified", message="There are no decisions with logged propensity.")
    if isinstance(found, NotIdentified):
        return GateResult(name=NAME, verdict="NotIdentified", message=f"{found.reason}: {found.message}")
    value = found.value
    words = f"{value.estimate:.4g} a decision, {value.lower:.4g} to {value.upper:.4g}, from {found.rows} decisions"
    words += f" worth {found.effective_sample:.0f} (overlap {found.overlap:.0%})."
    if not isinstance(champion, PolicyValue):
        message = f"{words} The champion's value is not identified; nothing to compare with."
        return GateResult(name=NAME, verdict="NotIdentified", value=value.estimate, message=message)
    gain = found.gain_over(champion)
    message = f"{words} Beyond the champion: {gain.estimate:.4g}, {gain.lower:.4g} to {gain.upper:.4g}."
    verdict = "Failed" if gain.upper < 0 else "Passed"
    return GateResult(name=NAME, verdict=verdict, value=gain.upper, bound=0.0, message=message)


def _equal(left: Column, right: Column) -> Booleans:
    if left.dtype == np.object_:
        return np.asarray(left == right, dtype=np.bool_)
    return np.asarray(np.isclose(left.astype(np.float64), right.astype(np.float64), rtol=0, atol=1e-9))
