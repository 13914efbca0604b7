"""Exploration: the whole distribution from which each decision draws, and what it costs."""

from dataclasses import dataclass

import numpy as np

from drivetrain.api.v1alpha1.lever import Exploration
from drivetrain.levers.choice import NO_ACTION
from drivetrain.levers.grid import ActionGrid, Booleans, Floats, Integers


@dataclass(frozen=True, slots=True, eq=False)
class ActionDistribution:
    """What each row draws from: probabilities over the grid, and over one more atom for an action off the grid."""

    grid: Floats
    """[rows, actions]"""
    off_grid: Floats
    """Probability of today's action where it is the recommended one and lies off the grid, [rows]."""

    def expectation(self, values: Floats, off_grid: Floats | None = None) -> Floats:
        """Mean of `values` [rows, actions] under the distribution, [rows]; `off_grid` [rows] values the extra atom."""
        weighed = np.where(self.grid > 0, self.grid * np.where(np.isfinite(values), values, 0.0), 0.0).sum(axis=1)
        if off_grid is None:
            return np.asarray(weighed)
        return np.asarray(weighed + np.where(self.off_grid > 0, self.off_grid * off_grid, 0.0))

    def draw(self, uniforms: Floats) -> Integers:
        """The action of each row for a uniform number in [0, 1), [rows]; NO_ACTION draws the action off the grid.

        A row without any probability on grid or atom draws NO_ACTION.
        """
        cumulative = np.cumsum(self.grid, axis=1)
        on_grid = cumulative[:, -1]
        target = np.minimum(uniforms, np.nextafter(1.0, 0.0)) * (on_grid + self.off_grid)
        index = (cumulative <= target[:, None]).sum(axis=1)
        last = self.grid.shape[1] - 1 - np.argmax(self.grid[:, ::-1] > 0, axis=1)
        return np.where(target < on_grid, np.minimum(index, last), NO_ACTION).astype(np.int64)

    def probability(self, actions: Integers) -> Floats:
        """Probability of each row's action, [rows]; NO_ACTION asks for the action off the grid."""
        rows = np.arange(len(actions))
        return np.where(actions == NO_ACTION, self.off_grid, self.grid[rows, np.maximum(actions, 0)])


def explore(
    grid: ActionGrid,
    recommended: Integers,
    start: Integers,
    allowed: Booleans,
    exploration: Exploration,
    *,
    exploring: Booleans | None = None,
) -> ActionDistribution:
    """Puts 1 - share on the recommended action and spreads the share over its neighbourhood, itself included.

    `recommended` is NO_ACTION where today's action off the grid is recommended; `start` is the grid action from which
    Local counts its steps there. Local spreads over allowed actions within `steps` of `start` on every lever, Uniform
    over all allowed ones. Rows with `exploring` False (the holdout, fallbacks) keep probability 1 on the recommended
    action. A row without an allowed neighbour keeps it too.
    """
    rows = len(allowed)
    if exploration.design == "Local":
        near = grid.neighbours(exploration.steps)
        reach = allowed & near[np.maximum(start, 0)] & (start != NO_ACTION)[:, None]
    else:
        reach = allowed
    counts = reach.sum(axis=1)
    share = np.where(counts > 0, exploration.share, 0.0)
    if exploring is not None:
        share = np.where(exploring, share, 0.0)
    probabilities = reach * (share / np.maximum(counts, 1))[:, None]
    on_grid = recommended != NO_ACTION
    probabilities[np.arange(rows)[on_grid], recommended[on_grid]] += (1.0 - share)[on_grid]
    return ActionDistribution(probabilities, np.where(on_grid, 0.0, 1.0 - share))


def expected_regret(distribution: ActionDistribution, values: Floats, recommended_value: Floats) -> float:
    """KPI lost per decision by exploring, averaged over all rows; never below 0."""
    explored = distribution.expectation(values, recommended_value)
    return max(0.0, float(np.mean(recommended_value - explored))) if len(explored) else 0.0
