"""Portfolio constraints priced at publication: Lagrange multipliers solved on the validation rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from drivetrain.api.model import VALUE_OUTPUT, InputColumn
from drivetrain.api.policy import Policy
from drivetrain.levers.grid import Floats
from drivetrain.levers.portfolio import shadow_price
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.situations import situations

ROWS = 1000
"""Validation rows that the prices are solved on, evenly spread."""
SWEEPS = 2
"""With several constraints each is solved again, given the others' prices."""


def solve(
    graph: Session,
    frame: pl.DataFrame,
    inputs: Sequence[InputColumn],
    policy: Policy,
    support: Mapping[str, Sequence[str]],
) -> dict[str, float]:
    """Portfolio metric to its multiplier. Actions are ranked by `choose`, as in serving; means are those of `value`."""
    constraints = [constraint for constraint in policy.objective.constraints if constraint.metric is not None]
    prices: dict[str, float] = {str(constraint.metric): 0.0 for constraint in constraints}
    if not constraints or frame.is_empty():
        return prices
    spread = np.unique(np.linspace(0, frame.height - 1, min(frame.height, ROWS)).astype(np.int64))
    seen = situations(graph, frame[spread.tolist()], inputs, policy, support)
    merit, value = seen.merit(), seen.predictions[VALUE_OUTPUT]
    tall = {name: column[:, None] for name, column in seen.context.items()}
    wide = {name: column[None, :] for name, column in seen.valuation.grid.columns.items()}
    metrics = {term.name: seen.valuation.metric(term, value, tall, wide) for term in seen.valuation.portfolio}
    for _ in range(SWEEPS if len(constraints) > 1 else 1):
        for constraint in constraints:
            name = str(constraint.metric)
            others: Floats = sum(
                (price * metrics[other] for other, price in prices.items() if other != name), start=np.zeros(1)
            )
            found = shadow_price(constraint, merit + others, metrics[name], seen.allowed, seen.distance)
            prices[name] = found.multiplier
    return prices
