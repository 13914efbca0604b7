"""Rows as serving would see them: every grid action's prediction, what is feasible, and which action is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.model import CHOOSE_OUTPUT, NULL_TOKEN, InputColumn
from drivetrain.api.policy import Policy
from drivetrain.levers.choice import best_actions
from drivetrain.levers.grid import Booleans, Column, Floats, Integers
from drivetrain.levers.valuation import Valuation, expand
from drivetrain.pipelines.graph import Session


@dataclass(frozen=True, slots=True)
class Situations:
    """Some rows under one policy and one graph; arrays are [rows, actions]."""

    valuation: Valuation
    context: Mapping[str, Column]
    predictions: Mapping[str, Floats]
    """Each output of the graph; classes on the last axis."""
    allowed: Booleans
    distance: Floats
    """Change from today's action."""

    def merit(self) -> Floats:
        """What the search maximises, by the `choose` output."""
        return self.valuation.merit(self.predictions[CHOOSE_OUTPUT], self.context)

    def chosen(self) -> Integers:
        """The action taken in each row; NO_ACTION where none is feasible."""
        return best_actions(self.merit(), self.allowed, self.distance)


def situations(
    graph: Session,
    frame: pl.DataFrame,
    inputs: Sequence[InputColumn],
    policy: Policy,
    support: Mapping[str, Sequence[str]],
    *,
    multipliers: Mapping[str, float] | None = None,
) -> Situations:
    """Evaluates every grid action of every row; those without `support` are not allowed, as in serving.

    Lever columns of `frame` are today's actions where the log is today.
    """
    valuation, rows = Valuation.of(policy, multipliers), frame.height
    context = context_of(frame)
    names = [column.name for column in inputs]
    flat = expand({name: context[name] for name in names}, valuation.grid, rows)
    results = graph.run({name: _tensor(flat[name]) for name in names})
    predictions = {
        name: scores.astype(np.float64).reshape(rows, valuation.grid.size, *scores.shape[1:])
        for name, scores in results.items()
    }
    logged = {lever.name: context[lever.name] for lever in policy.levers}
    today = valuation.today(context, rows, logged if policy.objective.baseline.logged else None)
    allowed = valuation.feasible(context, rows) & valuation.grid.supported(support)
    return Situations(valuation, context, predictions, allowed, valuation.grid.distance(today))


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


def _tensor(column: Column) -> NDArray[np.float32] | NDArray[np.object_]:
    if column.dtype == np.object_:
        texts: NDArray[np.object_] = np.array([NULL_TOKEN if text is None else text for text in column], dtype=object)
        return texts.reshape(-1, 1)
    return column.astype(np.float32).reshape(-1, 1)
