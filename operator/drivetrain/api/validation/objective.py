"""The objective: KPI, value, today's policy, metric and constraints."""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal

from drivetrain.api.errors import ExpressionError, Problem
from drivetrain.api.expression import Binary, Compare, Expression, bounds, is_affine_in, parse
from drivetrain.api.interval import Interval
from drivetrain.api.offers import metrics_of
from drivetrain.api.reach import derived_kpi
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.api.v1alpha1.objective import MINIMIZED_METRICS, Constraint
from drivetrain.api.v1alpha1.project import DrivetrainProjectSpec
from drivetrain.api.validation.names import nearest
from drivetrain.api.validation.scope import Scope

_FIELD = "spec.objective"


def check_objective(spec: DrivetrainProjectSpec, scope: Scope) -> Iterator[Problem]:
    """Everything below `spec.objective`."""
    yield from _value(spec, scope)
    yield from _baseline(spec, scope)
    yield from _unit(spec, scope)
    yield from _metric(spec)
    for index, constraint in enumerate(spec.objective.constraints):
        field = f"{_FIELD}.constraints[{index}]"
        if constraint.expression is not None:
            yield from _per_decision(field, constraint, constraint.expression, scope)
        else:
            yield from _portfolio(field, constraint, spec)


def check_action(
    field: str, action: Mapping[str, Decimal | str], levers: tuple[Lever, ...], *, inside: bool
) -> Iterator[Problem]:
    """An action that sets every lever; `inside`: within the levers' bounds (today's policy may lie outside)."""
    yield from _sets_all(field, action.keys(), levers)
    for lever in levers:
        value = action.get(lever.name)
        if value is None:
            continue
        place = f"{field}.{lever.name}"
        if lever.type == "Categorical":
            if str(value) not in lever.choices:
                yield Problem(place, f"{value} is no choice of {lever.name}.", nearest(str(value), lever.choices))
        elif not isinstance(value, Decimal):
            yield Problem(place, f"{value!r} is not a number.", f"Write a decimal in quotes for {lever.name}.")
        elif inside and not _within(value, lever):
            bounds_of = f"{lever.minimum} to {lever.maximum}"
            yield Problem(place, f"{value} lies outside {bounds_of}.", f"Stay within the bounds of {lever.name}.")


def _value(spec: DrivetrainProjectSpec, scope: Scope) -> Iterator[Problem]:
    kpi, data = spec.objective.kpi, spec.data
    if kpi.minimum is not None and kpi.maximum is not None and kpi.minimum >= kpi.maximum:
        yield Problem(f"{_FIELD}.kpi.minimum", "kpi.minimum must be below kpi.maximum.", "Swap or widen them.")
        return
    field = f"{_FIELD}.value"
    allowed = scope.with_role("Context") | scope.levers | {data.target.name}
    problems = tuple(scope.problems(field, spec.objective.value, allowed))
    yield from problems
    if problems:
        return
    if not is_affine_in(parse(spec.objective.value), {data.target.name}):
        yield Problem(
            field,
            f"The value is not affine in {data.target.name}: its mean is not its value at the predicted mean.",
            f"Let {data.target.name} enter as a factor or summand, outside functions, comparisons and conditions.",
        )
        return
    derived = derived_kpi(spec.objective, spec.levers, data.columns, data.target)
    unbounded = sorted(
        name
        for name in parse(spec.objective.value).names
        if name in scope.intervals and not scope.intervals[name].finite
    )
    cause = f" because {', '.join(unbounded)} is not bounded" if unbounded else ""
    for name, declared, reached, low in (
        ("minimum", kpi.minimum, derived.low, True),
        ("maximum", kpi.maximum, derived.high, False),
    ):
        if declared is None:
            continue
        bound = float(declared)
        inside = Interval(bound, max(bound, reached)) if low else Interval(min(bound, reached), bound)
        if not inside.contains(Interval(reached, reached)):
            yield Problem(
                f"{_FIELD}.kpi.{name}",
                f"The value can reach {reached:g}{cause}, beyond the declared {name} {declared}.",
                "Widen the KPI's bounds, or bound the columns that it is computed from.",
            )


def _baseline(spec: DrivetrainProjectSpec, scope: Scope) -> Iterator[Problem]:
    baseline, field = spec.objective.baseline, f"{_FIELD}.baseline"
    if baseline.action is not None:
        yield from check_action(f"{field}.action", baseline.action, spec.levers, inside=False)
    if baseline.expression is None:
        return
    yield from _sets_all(f"{field}.expression", baseline.expression.keys(), spec.levers)
    for lever in spec.levers:
        if (text := baseline.expression.get(lever.name)) is None:
            continue
        place = f"{field}.expression.{lever.name}"
        if lever.type == "Categorical":
            remedy = "Use baseline.action for a fixed choice, or baseline.logged: true."
            yield Problem(place, f"{lever.name} is Categorical, and an expression yields a number.", remedy)
        else:
            yield from scope.problems(place, text, scope.with_role("Context"))


def _sets_all(field: str, named: Collection[str], levers: tuple[Lever, ...]) -> Iterator[Problem]:
    names = {lever.name for lever in levers}
    for name in sorted(set(named) - names):
        yield Problem(f"{field}.{name}", f"{name} is not a lever.", nearest(name, names))
    for name in sorted(names - set(named)):
        yield Problem(field, f"Lever {name} is not set.", f"Add {name}.")


def _within(value: Decimal, lever: Lever) -> bool:
    return lever.minimum is None or lever.maximum is None or lever.minimum <= value <= lever.maximum


def _unit(spec: DrivetrainProjectSpec, scope: Scope) -> Iterator[Problem]:
    unit = spec.objective.unit
    column = scope.columns.get(unit) if unit is not None else None
    if column is not None and column.role not in ("Identifier", "Context"):
        cause = f"{unit} has role {column.role}, and the unit is sent with each request."
        yield Problem(f"{_FIELD}.unit", cause, "Declare it Identifier.")


def _metric(spec: DrivetrainProjectSpec) -> Iterator[Problem]:
    metric, field = spec.objective.model_metric, f"{_FIELD}.modelMetric"
    offered = metrics_of(spec.data.target.type)
    if metric.name not in offered:
        cause = f"A {spec.data.target.type} target has no {metric.name}."
        yield Problem(f"{field}.name", cause, f"Use one of {', '.join(offered)}.")
    better = "Minimize" if metric.name in MINIMIZED_METRICS else "Maximize"
    if metric.direction != better:
        yield Problem(f"{field}.direction", f"{metric.name} is better the other way.", f"Write {better}.")


def _per_decision(field: str, constraint: Constraint, text: str, scope: Scope) -> Iterator[Problem]:
    for name, given in (
        ("minimum", constraint.minimum),
        ("maximum", constraint.maximum),
        ("window", constraint.window),
    ):
        if given is not None:
            yield Problem(f"{field}.{name}", "A PerDecision constraint has none.", "State it in the expression.")
    place = f"{field}.expression"
    allowed = scope.with_role("Context", "Lever")
    problems = tuple(scope.problems(place, text, allowed, boolean=True))
    yield from problems
    if not problems and _never(parse(text), scope):
        yield Problem(place, "No action can satisfy it within the declared bounds.", "Loosen it, or widen the levers.")


def _never(expression: Expression, scope: Scope) -> bool:
    """Whether an order between two sides is false wherever one looks."""
    match expression.tree:
        case Compare(">=" | ">" as operator, left, right) | Compare("<=" | "<" as operator, right, left):
            margin = Expression(expression.text, Binary("-", left, right), expression.names)
            try:
                high = bounds(margin, scope.intervals).high
            except ExpressionError:
                return False
            return high < -1e-9 or (operator in ("<", ">") and high <= 0)
    return False


def _portfolio(field: str, constraint: Constraint, spec: DrivetrainProjectSpec) -> Iterator[Problem]:
    target = spec.data.target
    if constraint.metric != target.name:
        cause = f"{constraint.metric} is not predicted, so its mean cannot be steered."
        yield Problem(f"{field}.metric", cause, f"Name the target, {target.name}.")
    elif target.type == "Multiclass":
        cause = f"{target.name} has classes and no mean."
        yield Problem(f"{field}.metric", cause, "Portfolio constraints take a Binary or Regression target.")
    else:
        low, high = (0.0, 1.0) if target.type == "Binary" else (target.minimum, target.maximum)
        if constraint.minimum is not None and high is not None and constraint.minimum > high:
            cause = f"{target.name} cannot exceed {high:g}, so no candidate could pass."
            yield Problem(f"{field}.minimum", cause, "Lower it.")
        if constraint.maximum is not None and low is not None and constraint.maximum < low:
            cause = f"{target.name} cannot fall below {low:g}, so no candidate could pass."
            yield Problem(f"{field}.maximum", cause, "Raise it.")
    if constraint.minimum is not None and constraint.maximum is not None and constraint.minimum > constraint.maximum:
        yield Problem(f"{field}.minimum", "The minimum is above the maximum.", "Swap them.")
