"""What columns, levers and the KPI can reach, by interval arithmetic over what is declared."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

from drivetrain.api.errors import ExpressionError
from drivetrain.api.expression import bounds, parse
from drivetrain.api.interval import Interval
from drivetrain.api.v1alpha1.dataset import Column, Target
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.api.v1alpha1.objective import Objective

UNBOUNDED = Interval(-math.inf, math.inf)


def intervals(
    objective: Objective, levers: Sequence[Lever], columns: Sequence[Column], target: Target
) -> dict[str, Interval]:
    """Name to interval, for everything that has one (text has none).

    A lever reaches its bounds and whatever today's policy does, which may lie off its grid. Expressions that cannot be
    parsed or bounded leave their column or lever unbounded; validation reports them.
    """
    found = {column.name: _declared(column) for column in columns if column.type not in ("String", "Timestamp")}
    context = {
        column.name: found[column.name] for column in columns if column.role == "Context" and column.name in found
    }
    for lever in levers:
        if lever.minimum is not None and lever.maximum is not None:
            today = _today(objective, lever, context, found.get(lever.name, UNBOUNDED))
            found[lever.name] = _interval(float(lever.minimum), float(lever.maximum)).hull(today)
    for column in columns:
        if column.role == "Derived":
            found[column.name] = _of(column.expression or "", found)
    if target.type != "Multiclass":
        low, high = (0.0, 1.0) if target.type == "Binary" else (target.minimum, target.maximum)
        found[target.name] = _interval(low, high)
    return found


def derived_kpi(objective: Objective, levers: Sequence[Lever], columns: Sequence[Column], target: Target) -> Interval:
    """What one decision's KPI can be, infinite where a column that it reads is not bounded.

    Raises ExpressionError where the value expression is undefined within the bounds.
    """
    reached = bounds(parse(objective.value), intervals(objective, levers, columns, target))
    return reached.hull(Interval(0.0, 0.0)) if objective.kpi.when_missing == "Zero" else reached


def kpi_bounds(objective: Objective, levers: Sequence[Lever], columns: Sequence[Column], target: Target) -> Interval:
    """The KPI's bounds: declared ones first, derived ones where finite, else unbounded."""
    derived = derived_kpi(objective, levers, columns, target)
    low, high = objective.kpi.minimum, objective.kpi.maximum
    return Interval(derived.low if low is None else float(low), derived.high if high is None else float(high))


def _today(objective: Objective, lever: Lever, context: Mapping[str, Interval], column: Interval) -> Interval:
    baseline = objective.baseline
    if baseline.logged:
        return column
    if baseline.expression is not None and lever.name in baseline.expression:
        return _of(baseline.expression[lever.name], context)
    fixed = (baseline.action or {}).get(lever.name)
    if isinstance(fixed, Decimal):
        return Interval(float(fixed), float(fixed))
    assert lever.minimum is not None  # only numeric levers come here
    return Interval(float(lever.minimum), float(lever.minimum))


def _of(text: str, known: Mapping[str, Interval]) -> Interval:
    try:
        return bounds(parse(text), known)
    except ExpressionError:
        return UNBOUNDED


def _declared(column: Column) -> Interval:
    if column.type == "Boolean":
        return Interval(0.0, 1.0, column.nullable)
    return _interval(column.minimum, column.maximum, nullable=column.nullable)


def _interval(low: float | None, high: float | None, *, nullable: bool = False) -> Interval:
    ends = (-math.inf if low is None else low, math.inf if high is None else high)
    return Interval(min(ends), max(ends), nullable)  # ends in the wrong order are reported by validation
