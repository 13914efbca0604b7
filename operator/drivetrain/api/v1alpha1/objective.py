"""What a team wants: the KPI, what it is worth, today's policy, and what must never happen."""

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivetrain.api.meta import ApiModel, Rule
from drivetrain.api.scalars import Choice, DecimalText, Duration, ExpressionText, Identifier, Text

Direction = Literal["Maximize", "Minimize"]
MetricName = Literal["accuracy", "precision", "recall", "f1", "rocAuc", "logLoss", "mae", "rmse", "r2"]
MINIMIZED_METRICS: frozenset[str] = frozenset({"logLoss", "mae", "rmse"})


class Kpi(ApiModel):
    """The business KPI, measured per decision."""

    name: Identifier
    """Name of the KPI in reports and outcomes."""
    unit: str = Field(min_length=1, max_length=32)
    """Unit per decision, such as USD."""
    direction: Direction = "Maximize"
    """Whether more is better."""
    minimum: DecimalText | None = None
    """Least value that one decision can realise; must contain what the value expression can give."""
    maximum: DecimalText | None = None
    """Greatest value that one decision can realise; must contain what the value expression can give."""
    matures_after: Duration = timedelta(hours=1)
    """Age at which a decision counts: outcomes that arrive later are corrections."""
    when_missing: Literal["Zero", "Exclude", "Fail"] = "Zero"
    """What a matured decision without an outcome means: a KPI and target of 0, no observation, or a broken feed."""

    cel: ClassVar = (
        Rule(
            "!has(self.minimum) || !has(self.maximum) || double(self.minimum) < double(self.maximum)",
            "kpi.minimum must be below kpi.maximum",
            ".minimum",
        ),
    )


class Baseline(ApiModel):
    """Today's policy, exactly one of three forms; the first stable variant and the holdout follow it."""

    action: Mapping[Identifier, DecimalText | Choice] | None = Field(default=None, max_length=8)
    """A fixed action: lever to value."""
    expression: Mapping[Identifier, ExpressionText] | None = Field(default=None, max_length=8)
    """Lever to an expression over Context columns, such as shelf_price."""
    logged: bool | None = None
    """Today's action is only known from the log; callers must send it as `today` with each decision."""

    cel: ClassVar = (
        Rule(
            "[has(self.action), has(self.expression), has(self.logged) && self.logged].filter(x, x).size() == 1",
            "baseline takes exactly one of action, expression or logged: true",
        ),
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if [self.action is not None, self.expression is not None, self.logged is True].count(True) != 1:
            raise ValueError("baseline takes exactly one of action, expression or logged: true")
        return self


class ModelMetric(ApiModel):
    """The model metric that must mirror the KPI; tuning optimises it and the canary shows it."""

    name: MetricName
    """Which metric."""
    direction: Direction
    """Whether more is better."""


class Constraint(ApiModel):
    """A rule on actions (PerDecision) or on a metric over a window (Portfolio)."""

    scope: Literal["PerDecision", "Portfolio"]
    """Whether each decision must satisfy it, or all decisions of a window together."""
    expression: ExpressionText | None = None
    """PerDecision: a comparison over levers and Context columns that every action must satisfy."""
    metric: Identifier | None = None
    """Portfolio: the target or another predicted column whose mean is bounded."""
    minimum: float | None = None
    """Portfolio: least mean of the metric."""
    maximum: float | None = None
    """Portfolio: greatest mean of the metric."""
    window: Duration | None = None
    """Portfolio: the window over which the mean is taken."""

    cel: ClassVar = (
        Rule(
            "self.scope == 'PerDecision' ? has(self.expression) && !has(self.metric) : "
            "has(self.metric) && !has(self.expression) && (has(self.minimum) || has(self.maximum))",
            "a PerDecision constraint takes an expression; "
            "a Portfolio constraint takes a metric with a minimum or maximum",
        ),
    )

    @model_validator(mode="after")
    def _fits_scope(self) -> Self:
        per_decision = self.expression is not None and self.metric is None
        portfolio = (
            self.metric is not None
            and self.expression is None
            and (self.minimum is not None or self.maximum is not None)
        )
        if not (per_decision if self.scope == "PerDecision" else portfolio):
            raise ValueError(
                "a PerDecision constraint takes an expression; "
                "a Portfolio constraint takes a metric with a minimum or maximum"
            )
        return self


class Objective(ApiModel):
    """What the project is for."""

    description: Text = ""
    """The objective in a sentence."""
    kpi: Kpi
    """The business KPI."""
    value: ExpressionText
    """The KPI of one decision: a row-wise expression over the target, levers and Context columns."""
    baseline: Baseline
    """Today's policy."""
    unit: Identifier | None = None
    """Randomisation unit, a field of each request such as customer_id; the decision itself when absent."""
    model_metric: ModelMetric
    """The model metric that must mirror the KPI."""
    constraints: tuple[Constraint, ...] = Field(default=(), max_length=16)
    """What must hold for each action, or for all actions together."""
