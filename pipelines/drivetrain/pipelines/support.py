"""What the training rows can say about levers: which grid values they support, and whether effects are experimental."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.scalars import format_decimal
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.pipelines.rows import PROPENSITY

SUPPORTING_ROWS = 20
"""Training rows within one step of a grid value (categorical: that have it) for it to be supported."""


def supported(frame: pl.DataFrame, levers: Sequence[Lever]) -> dict[str, tuple[str, ...]]:
    """Lever to the grid values, as text, that enough rows come near; each lever on its own."""
    return {lever.name: tuple(_values(frame[lever.name], lever)) for lever in levers}


def _values(column: pl.Series, lever: Lever) -> list[str]:
    if lever.step is None:
        counts = dict(column.drop_nulls().value_counts().iter_rows())
        return [str(choice) for choice in lever.choices if counts.get(choice, 0) >= SUPPORTING_ROWS]
    logged: NDArray[np.float64] = column.cast(pl.Float64).drop_nulls().to_numpy()
    reach = float(lever.step) * (1 + 1e-9)  # one step away, in spite of rounding
    found = []
    for value in lever.values():
        if not isinstance(value, str) and np.count_nonzero(np.abs(logged - float(value)) <= reach) >= SUPPORTING_ROWS:
            found.append(format_decimal(value))
    return found


def lever_effect(frame: pl.DataFrame) -> Literal["Experimental", "Observational"]:
    """Whether lever effects rest on a logged assignment.

    Experimental when every row's action has a logged propensity. Rows without one follow reasons that nobody logged,
    and no number of other rows takes those reasons out of what a model fits.
    """
    return "Experimental" if frame[PROPENSITY].null_count() == 0 else "Observational"
