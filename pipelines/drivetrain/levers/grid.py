"""The grid of actions: every combination of lever values, or an evenly thinned one where that would be too many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from drivetrain.api.v1alpha1.lever import GRID_LIMIT, Lever

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Booleans: TypeAlias = NDArray[np.bool_]
Column: TypeAlias = NDArray[np.float64] | NDArray[np.object_]
Action: TypeAlias = Mapping[str, float | str]


@dataclass(frozen=True, slots=True, eq=False)
class ActionGrid:
    """Actions 0..size-1, in lexicographic order of the levers as declared."""

    levers: tuple[Lever, ...]
    columns: Mapping[str, Column]
    """Lever to its value in each action, [actions]; text levers hold str objects."""
    positions: Integers
    """Index of each lever's value on its own full grid, [actions, levers]."""
    exact: bool
    """False when the full grid is above GRID_LIMIT and was thinned evenly: the search is bounded, not exact."""
    _near: dict[int, Booleans] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, levers: Sequence[Lever]) -> "ActionGrid":
        """The grid of these levers, at most GRID_LIMIT actions."""
        values = [lever.values() for lever in levers]
        kept = [np.arange(len(column)) for column in values]
        exact = prod(len(column) for column in kept) <= GRID_LIMIT
        while prod(len(column) for column in kept) > GRID_LIMIT:
            longest = max(range(len(kept)), key=lambda index: len(kept[index]))
            size = len(values[longest])
            kept[longest] = np.unique(np.linspace(0, size - 1, (len(kept[longest]) + 1) // 2).round().astype(np.int64))
        positions = np.array(list(product(*kept)), dtype=np.int64).reshape(-1, len(levers))
        columns = {
            lever.name: _column([values[index][position] for position in positions[:, index]])
            for index, lever in enumerate(levers)
        }
        return cls(tuple(levers), columns, positions, exact)

    @property
    def size(self) -> int:
        """Number of actions."""
        return len(self.positions)

    def action(self, index: int) -> Action:
        """The lever values of one action."""
        return {name: column[index] for name, column in self.columns.items()}

    def supported(self, support: Mapping[str, Sequence[str]]) -> Booleans:
        """Actions near which there were enough training rows on every lever, [actions]; unnamed levers support all.

        `support`: lever to its supported values, as text.
        """
        found = np.ones(self.size, dtype=bool)
        for name, texts in support.items():
            values = self.columns[name]
            if values.dtype == object:
                found &= np.isin(values.astype(str), texts)
            else:
                known = np.array([float(text) for text in texts])
                found &= (np.abs(values.astype(np.float64)[:, None] - known[None, :]) < 1e-9).any(axis=1)
        return found

    def distance(self, today: Mapping[str, Column]) -> Floats:
        """Change of each action from today's, [rows, actions]: sum over levers of the share of its range that it moves.

        A text lever that differs counts as its whole range. Today's action need not lie on the grid.
        """
        total: Floats = np.zeros((len(next(iter(today.values()))), self.size))
        for lever in self.levers:
            actions, current = self.columns[lever.name], today[lever.name]
            if lever.minimum is None or lever.maximum is None:
                total += (actions[None, :] != current[:, None]).astype(np.float64)
            else:
                span = float(lever.maximum - lever.minimum) or 1.0
                total += np.abs(actions[None, :] - current[:, None].astype(np.float64)) / span
        return total

    def neighbours(self, steps: int) -> Booleans:
        """Whether action j is within `steps` steps of action i on every lever of this grid, [actions, actions].

        Any other choice of a text lever is one step away. The latest answer is kept (4,096 actions: 16 MiB).
        """
        found = self._near.get(steps)
        if found is None:
            found = self._within(steps)
            self._near.clear()
            self._near[steps] = found
        return found

    def _within(self, steps: int) -> Booleans:
        near = np.ones((self.size, self.size), dtype=bool)
        for index, lever in enumerate(self.levers):
            kept, rank = np.unique(self.positions[:, index], return_inverse=True)
            apart = np.abs(np.arange(len(kept))[:, None] - np.arange(len(kept))[None, :])
            reached = (np.minimum(apart, 1) if lever.type == "Categorical" else apart) <= steps
            near &= reached[rank][:, rank]
        near.setflags(write=False)
        return near


def _column(values: Sequence[object]) -> Column:
    if isinstance(values[0], str):
        column: NDArray[np.object_] = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    return np.array([float(str(value)) for value in values], dtype=np.float64)
