"""What the Monitor knows about a policy without its graph, and realised values by its objective."""

import math
from dataclasses import dataclass

import numpy as np

from drivetrain.api import decision_log as log
from drivetrain.api.interval import Interval
from drivetrain.api.model import ModelContract, Reference
from drivetrain.api.policy import Policy
from drivetrain.api.reach import kpi_bounds
from drivetrain.api.runspec import objective_hash
from drivetrain.evidence.intervals import Bounds
from drivetrain.levers.grid import Booleans, Column, Floats
from drivetrain.levers.valuation import Valuation
from drivetrain.serving.maturation import Cohort
from drivetrain.serving.rows import objects


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A policy as evidence sees it."""

    hash: str
    policy: Policy
    valuation: Valuation
    objective: str
    contract: ModelContract | None = None
    reference: Reference | None = None

    @classmethod
    def of(
        cls, hash_: str, policy: Policy, contract: ModelContract | None = None, reference: Reference | None = None
    ) -> "Judged":
        """Compiles the policy's objective."""
        return cls(hash_, policy, Valuation.of(policy), objective_hash(policy.objective), contract, reference)

    @property
    def kpi_range(self) -> Interval:
        """What one decision's KPI can be: declared, else derived, else infinite."""
        policy = self.policy
        return kpi_bounds(policy.objective, policy.levers, policy.columns, policy.target)

    @property
    def kpi_bounds(self) -> Bounds | None:
        """The KPI's range, None where it is unbounded."""
        return _bounds(self.kpi_range)

    @property
    def target_bounds(self) -> Bounds | None:
        """The target's range, None for classes and unbounded targets."""
        return _bounds(self.label_range(self.policy.target.name))

    def label_range(self, name: str) -> Interval | None:
        """What an outcome of this name can be; a target includes the 0 that stands for a missing outcome."""
        target = self.policy.target
        if name == target.name:
            if target.type == "Multiclass":
                return None
            low, high = (0.0, 1.0) if target.type == "Binary" else (target.minimum, target.maximum)
            declared = Interval(-math.inf if low is None else low, math.inf if high is None else high)
            return declared.hull(Interval(0.0, 0.0)) if self.policy.objective.kpi.when_missing == "Zero" else declared
        column = next((column for column in self.policy.columns if column.name == name), None)
        if column is None or column.type == "Boolean":
            return None if column is None else Interval(0.0, 1.0)
        low, high = column.minimum, column.maximum
        return Interval(-math.inf if low is None else low, math.inf if high is None else high)

    @property
    def higher_is_better(self) -> bool:
        """Whether more KPI is better."""
        return self.policy.objective.kpi.direction == "Maximize"


def _bounds(range_: Interval | None) -> Bounds | None:
    return (
        Bounds(range_.low, range_.high) if range_ is not None and range_.finite and range_.low < range_.high else None
    )


@dataclass(frozen=True, slots=True, eq=False)
class Realised:
    """What became of a cohort's decisions; NaN where nothing is known, [rows]."""

    kpi: Floats
    target: Floats
    """Binary, Regression: the label. Multiclass: the class's index."""
    overridden: Booleans
    missing: Booleans
    """Whether the decision's KPI was neither reported nor follows from what was."""

    def where(self, rows: Booleans) -> "Realised":
        """Some of the rows."""
        return Realised(self.kpi[rows], self.target[rows], self.overridden[rows], self.missing[rows])


def realised(cohort: Cohort, judged: Judged) -> Realised:
    """KPI and target of each decision by one objective, on the action applied; a missing outcome: `whenMissing`."""
    policy, count = judged.policy, len(cohort)
    objective, target = policy.objective, policy.target
    labels = cohort.reported(log.LABEL_PREFIX + target.name)
    if target.type == "Multiclass":
        place = {name: float(index) for index, name in enumerate(target.classes)}
        y = np.array([place.get(label, np.nan) for label in labels], dtype=np.float64)
    else:
        y = np.array([np.nan if label is None else float(label) for label in labels], dtype=np.float64)
    answered = cohort.answered(target.name)
    overridden = np.zeros(count, dtype=bool)
    action: dict[str, Column] = {}
    for lever in policy.levers:
        taken = cohort.column(log.ACTION_PREFIX + lever.name)
        applied = cohort.reported(log.APPLIED_PREFIX + lever.name)
        given = np.array([value is not None for value in applied], dtype=bool)
        if given.any():
            values = (
                objects(applied)
                if taken.dtype == object
                else np.array([np.nan if value is None else float(value) for value in applied], dtype=np.float64)
            )
            overridden |= given & (values != taken)
            taken = taken.copy()
            taken[given] = values[given]
        action[lever.name] = taken
    context = {
        column.name: cohort.column(log.CONTEXT_PREFIX + column.name)
        for column in policy.columns
        if column.role == "Context"
    }
    if target.type == "Multiclass":
        onehot = np.zeros((count, len(target.classes)))
        known = np.flatnonzero(~np.isnan(y))
        onehot[known, y[known].astype(np.int64)] = 1.0
        kpi = np.where(np.isnan(y), np.nan, judged.valuation.value(onehot, context, action))
    else:
        kpi = np.broadcast_to(judged.valuation.value(y, context, action), (count,)).copy()
    sent = np.array([np.nan if value is None else value for value in cohort.reported(log.KPI)], dtype=np.float64)
    kpi = np.where(np.isnan(sent), kpi, sent)
    missing = ~(answered & np.isfinite(kpi))
    if objective.kpi.when_missing == "Zero":
        kpi = np.where(missing, 0.0, kpi)
        y = y if target.type == "Multiclass" else np.where(answered, y, 0.0)
    return Realised(kpi, y, overridden, missing)


def promised(cohort: Cohort, judged: Judged, predictions: Floats) -> Floats:
    """The KPI that predictions [rows(, classes)] promise at the action taken, before any recalibration, [rows]."""
    policy = judged.policy
    action = {lever.name: cohort.column(log.ACTION_PREFIX + lever.name) for lever in policy.levers}
    context = {
        column.name: cohort.column(log.CONTEXT_PREFIX + column.name)
        for column in policy.columns
        if column.role == "Context"
    }
    return np.broadcast_to(judged.valuation.value(predictions, context, action), (len(cohort),))
