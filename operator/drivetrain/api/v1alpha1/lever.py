"""What can be acted on: levers, and how much of the traffic explores them."""

from decimal import Decimal
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivetrain.api.meta import ApiModel, Rule
from drivetrain.api.scalars import Choice, DecimalText, Identifier

GRID_LIMIT = 4096
"""Most actions that the exact search enumerates."""


class Lever(ApiModel):
    """One thing that a decision sets, on a grid."""

    name: Identifier
    """Name of the lever; it is a column of role Lever."""
    type: Literal["Continuous", "Integer", "Categorical"]
    """What its values are."""
    minimum: DecimalText | None = None
    """Least value (Continuous, Integer)."""
    maximum: DecimalText | None = None
    """Greatest value (Continuous, Integer)."""
    step: DecimalText | None = None
    """Distance between neighbouring values; must divide maximum - minimum (Continuous, Integer)."""
    choices: tuple[Choice, ...] = Field(default=(), max_length=64)
    """The values (Categorical), in the order that ties prefer."""
    effect: Literal["Increasing", "Decreasing", "Unknown"] = "Unknown"
    """Known direction of its effect on the predicted target: a monotone constraint, and a gate on the response."""

    cel: ClassVar = (
        Rule(
            "self.type == 'Categorical' ? has(self.choices) && self.choices.size() > 1 && !has(self.minimum) && "
            "!has(self.maximum) && !has(self.step) : has(self.minimum) && has(self.maximum) && has(self.step) && "
            "(!has(self.choices) || self.choices.size() == 0)",
            "a Categorical lever takes at least two choices; other levers take minimum, maximum and step",
        ),
        Rule(
            "!has(self.minimum) || !has(self.maximum) || double(self.minimum) <= double(self.maximum)",
            "lever minimum must not be above its maximum",
            ".minimum",
        ),
        Rule("!has(self.step) || double(self.step) > 0.0", "lever step must be above 0", ".step"),
        Rule(
            "self.type != 'Categorical' || self.effect == 'Unknown'",
            "a Categorical lever has no direction: effect must be Unknown",
            ".effect",
        ),
    )

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        bounds = (self.minimum, self.maximum, self.step)
        if self.type == "Categorical":
            fits = len(self.choices) > 1 and all(bound is None for bound in bounds)
        else:
            fits = not self.choices and all(bound is not None for bound in bounds)
        if not fits:
            raise ValueError(
                "a Categorical lever takes at least two choices; other levers take minimum, maximum and step"
            )
        return self

    def values(self) -> tuple[Decimal, ...] | tuple[str, ...]:
        """Every value on the grid, ascending or in the declared order of choices; exact decimals."""
        if self.minimum is None or self.maximum is None or self.step is None:
            return self.choices
        count = int((self.maximum - self.minimum) / self.step) + 1
        return tuple(self.minimum + index * self.step for index in range(count))


class Exploration(ApiModel):
    """How decisions deviate from the best known action, so that the loop keeps learning."""

    share: float = Field(default=0.05, ge=0, le=1)
    """Share of decisions, outside the holdout, that explore."""
    design: Literal["Local", "Uniform"] = "Local"
    """Local moves the recommended action by up to `steps` feasible steps; Uniform draws any feasible action."""
    steps: int = Field(default=2, ge=1, le=16)
    """Local: how many steps on each lever."""
    max_regret: float = Field(default=0.02, gt=0)
    """Expected KPI lost per decision, averaged over all decisions; steps, then share, are lowered until it holds."""


class Labelling(ApiModel):
    """Who attaches the labels, and how."""

    method: Literal["Manual", "Automatic"] = "Automatic"
    """Manual: people label; Automatic: outcomes are the labels."""
    by: Literal["InHouse", "Outsourced"] = "InHouse"
    """Who does it."""


class Environment(ApiModel):
    """Where decisions are made, and how fast they must be."""

    latency_ms: int = Field(default=50, ge=1, le=60_000)
    """Longest time that one decision's model evaluation may take; measured in each run and gated, and held against
    the mean while a candidate shadows the stable version."""
    accelerator: Literal["None", "GPU"] = "None"
    """What the serving nodes have."""


class ProjectDecisions(ApiModel):
    """Levers of the project itself: declared decisions that change what the pipeline does."""

    labelling: Labelling = Field(default_factory=Labelling)
    """Who labels."""
    start_from: Literal["Scratch", "Champion"] = "Scratch"
    """Whether candidates start from nothing or from the champion's trial log (its best parameters are tried first)."""
    environment: Environment = Field(default_factory=Environment)
    """Where decisions are made."""
