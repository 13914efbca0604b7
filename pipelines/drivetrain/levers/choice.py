"""Choosing an action: exact search over the grid, ties to the smallest change from today's action."""

import numpy as np

from drivetrain.levers.grid import Booleans, Floats, Integers

NO_ACTION = -1
"""Stands for an action off the grid (today's), and for no feasible action."""
_TIE = 1e-6
"""Graphs compute in float32, so that equal values of actions agree only up to its rounding."""


def best_actions(values: Floats, allowed: Booleans, distance: Floats) -> Integers:
    """The allowed action with the greatest value of each row, [rows]; NO_ACTION where none is allowed and finite.

    Values within 1e-6 (relative to the best one) tie; the smallest `distance` wins, then the lowest index.
    """
    usable = allowed & np.isfinite(values)
    masked = np.where(usable, values, -np.inf)
    best = masked.max(axis=1, keepdims=True)
    tied = usable & (masked >= best - _TIE * np.maximum(1.0, np.abs(np.where(np.isfinite(best), best, 0.0))))
    chosen: Integers = np.where(tied, distance, np.inf).argmin(axis=1).astype(np.int64)
    return np.where(usable.any(axis=1), chosen, NO_ACTION)


def nearest_actions(allowed: Booleans, distance: Floats) -> Integers:
    """The allowed action closest to today's of each row, [rows]; NO_ACTION where none is allowed."""
    chosen: Integers = np.where(allowed, distance, np.inf).argmin(axis=1).astype(np.int64)
    return np.where(allowed.any(axis=1), chosen, NO_ACTION)
