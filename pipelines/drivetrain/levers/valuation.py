"""A policy compiled: what today's policy does, which actions are feasible, and what each is worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from drivetrain.api import expression
from drivetrain.api.expression import Binary, Compare, Expression
from drivetrain.api.policy import Policy
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.objective import Constraint
from drivetrain.levers import formula
from drivetrain.levers.formula import Formula
from drivetrain.levers.grid import ActionGrid, Booleans, Column, Floats

Context: TypeAlias = Mapping[str, Column]
"""Request columns, [rows] each: numbers and booleans as float64 with NaN for NULL, text as str objects with None."""

_SLACK = 1e-9
"""Slack of constraints, so that 1.99 - 0.69 >= 1.3 holds in floating point as it does on paper."""


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A PerDecision constraint as a margin: it holds where the margin is at least 0 (`strict`: above 0)."""

    constraint: Constraint
    margin: Formula
    strict: bool

    def holds(self, margin: Floats) -> Booleans:
        """Whether it holds, elementwise; a margin that is NaN does not."""
        return np.asarray(margin > _SLACK if self.strict else margin >= -_SLACK)


@dataclass(frozen=True, slots=True, eq=False)
class PortfolioTerm:
    """A bound on a metric's mean, and its price: what one unit of the metric is worth to the bound."""

    name: str
    metric: Formula
    multiplier: float


@dataclass(frozen=True, slots=True, eq=False)
class Valuation:
    """Values rows and actions under one policy. Compiled once; calls do no parsing."""

    policy: Policy
    grid: ActionGrid
    kpi: Formula
    bounds: tuple[Bound, ...]
    baseline: Mapping[str, Formula]
    portfolio: tuple[PortfolioTerm, ...]

    @classmethod
    def of(cls, policy: Policy, multipliers: Mapping[str, float] | None = None) -> "Valuation":
        """Compiles a policy; `multipliers` maps portfolio metrics to their shadow prices (0 where absent).

        A positive multiplier prices a minimum, a negative one a maximum.
        """
        objective, prices = policy.objective, multipliers or {}
        written = objective.baseline.expression or {}
        return cls(
            policy=policy,
            grid=ActionGrid.of(policy.levers),
            kpi=_compiled(objective.value),
            bounds=tuple(
                _bound(constraint, constraint.expression)
                for constraint in objective.constraints
                if constraint.expression is not None
            ),
            baseline={lever: _compiled(text) for lever, text in written.items()},
            portfolio=tuple(
                PortfolioTerm(constraint.metric, _compiled(constraint.metric), prices.get(constraint.metric, 0.0))
                for constraint in objective.constraints
                if constraint.metric is not None
            ),
        )

    @property
    def sign(self) -> float:
        """1 where more KPI is better, else -1."""
        return 1.0 if self.policy.objective.kpi.direction == "Maximize" else -1.0

    def today(self, context: Context, rows: int, sent: Mapping[str, Column] | None = None) -> dict[str, Column]:
        """Today's action of each row, lever to [rows]: sent with the request, computed, or fixed."""
        if sent is not None:
            return dict(sent)
        fixed = self.policy.objective.baseline.action or {}
        action: dict[str, Column] = {}
        for lever in self.grid.levers:
            if lever.name in self.baseline:
                action[lever.name] = np.broadcast_to(self.baseline[lever.name](context), (rows,)).copy()
            elif lever.type == "Categorical":
                column = np.empty(rows, dtype=object)
                column[:] = str(fixed[lever.name])
                action[lever.name] = column
            else:
                action[lever.name] = np.full(rows, float(fixed[lever.name]))
        return action

    def margins(self, context: Context, actions: Mapping[str, Column]) -> tuple[Floats, ...]:
        """How far each constraint is from binding at the given actions, one array each in the order of `bounds`."""
        columns = {**context, **actions}
        return tuple(bound.margin(columns) for bound in self.bounds)

    def feasible(self, context: Context, rows: int) -> Booleans:
        """Which grid actions satisfy every PerDecision constraint, [rows, actions]."""
        result = np.ones((rows, self.grid.size), dtype=bool)
        columns = {**_tall(context), **_wide(self.grid.columns)}
        for bound in self.bounds:
            result &= bound.holds(bound.margin(columns))
        return result

    def value(self, prediction: Floats, context: Context, actions: Mapping[str, Column]) -> Floats:
        """The KPI of taking `actions`, elementwise, in its own unit and sign.

        `prediction` is the model's (or the realised) target; a Multiclass one has classes on its last axis.
        """
        columns, classes = _with_target(self.policy.target, prediction, {**context, **actions})
        return self.kpi(columns, classes)

    def grid_values(self, prediction: Floats, context: Context) -> Floats:
        """The KPI of every grid action of every row, [rows, actions]; `prediction` is [rows, actions(, classes)]."""
        return self.value(prediction, _tall(context), _wide(self.grid.columns))

    def merit(self, prediction: Floats, context: Context) -> Floats:
        """What the search maximises, [rows, actions]: the signed KPI plus the priced portfolio metrics."""
        merit = self.sign * self.grid_values(prediction, context)
        for term in self.portfolio:
            if term.multiplier:
                merit = merit + term.multiplier * self.metric(
                    term, prediction, _tall(context), _wide(self.grid.columns)
                )
        return merit

    def metric(
        self, term: PortfolioTerm, prediction: Floats, context: Context, actions: Mapping[str, Column]
    ) -> Floats:
        """A portfolio metric, elementwise."""
        columns, classes = _with_target(self.policy.target, prediction, {**context, **actions})
        return term.metric(columns, classes)


def expand(context: Context, grid: ActionGrid, rows: int) -> dict[str, Column]:
    """Every row with every action, flat, actions fastest: columns of length rows * actions, to feed a graph with."""
    row, action = np.divmod(np.arange(rows * grid.size), grid.size)
    flat = {name: column[row] for name, column in context.items()}
    flat.update({name: column[action] for name, column in grid.columns.items()})
    return flat


def _compiled(text: str) -> Formula:
    return formula.compile(expression.parse(text))


def _bound(constraint: Constraint, text: str) -> "Bound":
    """A comparison as left - right, or right - left; any other condition as 0 where it holds and -1 elsewhere."""
    parsed = expression.parse(text)
    match parsed.tree:
        case Compare(">=" | ">" as operator, left, right) | Compare("<=" | "<" as operator, right, left):
            difference = Expression(text, Binary("-", left, right), parsed.names)
            return Bound(constraint, formula.compile(difference), strict=operator in (">", "<"))
    return Bound(constraint, _compiled(f"CASE WHEN {text} THEN 0 ELSE -1 END"), strict=False)


def _tall(columns: Context) -> dict[str, Column]:
    return {name: column[:, None] for name, column in columns.items()}


def _wide(columns: Mapping[str, Column]) -> dict[str, Column]:
    return {name: column[None, :] for name, column in columns.items()}


def _with_target(
    target: Target, prediction: Floats, columns: dict[str, Column]
) -> tuple[dict[str, Column], dict[tuple[str, str], Floats]]:
    if target.type == "Multiclass":
        return columns, {(target.name, name): prediction[..., index] for index, name in enumerate(target.classes)}
    return {**columns, target.name: prediction}, {}
