"""An estimate with its bounds, and the error for a value that breaks a declared range."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.errors import DrivetrainError

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Interval:
    """A point estimate and the bounds that cover it; infinite bounds mean that nothing is known yet."""

    estimate: float
    lower: float
    upper: float

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.upper - self.lower) / 2


@dataclass(frozen=True, slots=True)
class Bounds:
    """The declared range of a metric, both ends included."""

    minimum: float
    maximum: float

    def __post_init__(self) -> None:
        if not self.minimum < self.maximum:
            raise DrivetrainError(f"A range needs minimum < maximum, got [{self.minimum}, {self.maximum}].")

    @property
    def width(self) -> float:
        """Maximum minus minimum."""
        return self.maximum - self.minimum

    def require(self, metric: str, values: Floats) -> None:
        """Raise OutOfBoundsError for the first value that is outside the range or not a number."""
        slack = 1e-9 * self.width  # a realised KPI is float arithmetic on bounds that were computed in Decimal
        outside = ~((values >= self.minimum - slack) & (values <= self.maximum + slack))
        if outside.any():
            raise OutOfBoundsError(metric, float(values[outside][0]), self)


class OutOfBoundsError(DrivetrainError):
    """A realised value lies outside the declared bounds, so that no bounded test on it is valid; the canary halts."""

    def __init__(self, metric: str, value: float, bounds: Bounds) -> None:
        super().__init__(
            f"{metric} is {value}, outside [{bounds.minimum}, {bounds.maximum}].",
            remedy="Correct the outcome, or declare wider bounds; changed bounds open a new series.",
        )
        self.metric = metric
        self.value = value
        self.bounds = bounds
