"""Portfolio constraints priced at publication: Lagrange multipliers solved on the validation rows."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.model import CHOOSE_OUTPUT, NULL_TOKEN, VALUE_OUTPUT, InputColumn
from drivetrain.api.policy import Policy
from drivetrain.levers.grid import Column, Floats
from drivetrain.levers.portfolio import shadow_price
from drivetrain.levers.valuation import Valuation, expand
from drivetrain.pipelines.graph import Session

ROWS = 1000
"""Validation rows that the prices are solved on, evenly spread."""
SWEEPS = 2
"""With several constraints each is solved again, given the others' prices."""


def solve(graph: Session, frame: pl.DataFrame, inputs: Sequence[InputColumn], policy: Policy) -> dict[str, float]:
    """Portfolio metric to its multiplier. Actions are ranked by `choose`, as in serving; means are those of `value`."""
    constraints = [constraint for constraint in policy.objective.constraints if constraint.metric is not None]
    prices: dict[str, float] = {str(constraint.metric): 0.0 for constraint in constraints}
    if not constraints or frame.is_empty():
        return prices
    spread = np.unique(np.linspace(0, frame.height - 1, min(frame.height, ROWS)).astype(np.int64))
    sample = frame[spread.tolist()]
    valuation = Valuation.of(policy)
    context = context_of(sample)
    predictions = on_whole_grid(graph, sample, inputs, valuation)
    choose, value = predictions[CHOOSE_OUTPUT], predictions[VALUE_OUTPUT]
    levers = {lever.name: context[lever.name] for lever in policy.levers if lever.name in context}
    sent = levers if policy.objective.baseline.logged else None
    distance = valuation.grid.distance(valuation.today(context, sample.height, sent))
    allowed = valuation.feasible(context, sample.height)
    merit = valuation.merit(choose, context)
    tall = {name: column[:, None] for name, column in context.items()}
    wide = {name: column[None, :] for name, column in valuation.grid.columns.items()}
    metrics = {term.name: valuation.metric(term, value, tall, wide) for term in valuation.portfolio}
    for _ in range(SWEEPS if len(constraints) > 1 else 1):
        for constraint in constraints:
            name = str(constraint.metric)
            others: Floats = sum(
                (price * metrics[other] for other, price in prices.items() if other != name), start=np.zeros(1)
            )
            prices[name] = shadow_price(constraint, merit + others, metrics[name], allowed, distance).multiplier
    return prices


def on_whole_grid(
    graph: Session, frame: pl.DataFrame, inputs: Sequence[InputColumn], valuation: Valuation
) -> dict[str, Floats]:
    """Every output for every grid action of every row, [rows, actions(, classes)]."""
    rows, actions = frame.height, valuation.grid.size
    names = [column.name for column in inputs]
    flat = expand(context_of(frame.select(name for name in names if name in frame.columns)), valuation.grid, rows)
    results = graph.run({name: _tensor(flat[name]) for name in names})
    return {
        name: scores.astype(np.float64).reshape(rows, actions, *scores.shape[1:]) for name, scores in results.items()
    }


def _tensor(column: Column) -> NDArray[np.float32] | NDArray[np.object_]:
    if column.dtype == np.object_:
        texts: NDArray[np.object_] = np.array([NULL_TOKEN if text is None else text for text in column], dtype=object)
        return texts.reshape(-1, 1)
    return column.astype(np.float32).reshape(-1, 1)


def context_of(frame: pl.DataFrame) -> dict[str, Column]:
    """Columns as arrays: numbers and booleans as float64 with NaN for null, text as objects with None."""
    context: dict[str, Column] = {}
    for name in frame.columns:
        values = frame[name]
        if values.dtype == pl.String:
            context[name] = np.array(values.to_list(), dtype=object)
        elif values.dtype.is_numeric() or values.dtype == pl.Boolean:
            context[name] = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return context
