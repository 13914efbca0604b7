"""The absolute bounds that a policy's Portfolio constraints put on its mean metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from drivetrain.api.v1alpha1.objective import Constraint


@dataclass(frozen=True, slots=True)
class PortfolioBound:
    """One side of a Portfolio constraint."""

    metric: str
    side: Literal["minimum", "maximum"]
    value: float

    @property
    def name(self) -> str:
        """Its name in reports, such as `purchase minimum`; no metric has it, for none contains a space."""
        return f"{self.metric} {self.side}"


def portfolio_bounds(constraints: Sequence[Constraint]) -> tuple[PortfolioBound, ...]:
    """The strictest minimum and maximum of each metric, in the order in which they are declared first."""
    found: dict[str, PortfolioBound] = {}
    for constraint in constraints:
        if constraint.metric is None:
            continue
        sides: tuple[tuple[Literal["minimum", "maximum"], float | None], ...] = (
            ("minimum", constraint.minimum),
            ("maximum", constraint.maximum),
        )
        for side, value in sides:
            if value is None:
                continue
            bound = PortfolioBound(constraint.metric, side, value)
            other = found.get(bound.name)
            if other is None or (value > other.value if side == "minimum" else value < other.value):
                found[bound.name] = bound
    return tuple(found.values())
