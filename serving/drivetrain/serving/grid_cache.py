"""Predictions of every grid action, kept for contexts that come again: a graph is a pure function of its inputs."""

import threading
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from drivetrain.levers.grid import ActionGrid, Column, Floats, Integers
from drivetrain.levers.valuation import expand

BYTES: Final = 64 * 1024 * 1024
"""Memory of one cache at most; when it is full it starts anew."""

Predict = Callable[[Mapping[str, Column]], tuple[Floats, Floats]]


class GridCache:
    """Both halves' predictions by context, for one graph and one grid. Safe on any thread."""

    def __init__(self, predict: Predict, context: tuple[str, ...], grid: ActionGrid, classes: int) -> None:
        """`predict` maps flat columns to both halves; `classes` is 0 unless the target is Multiclass."""
        self._predict = predict
        self._context = context
        self._grid = grid
        self._shape = (grid.size, classes) if classes else (grid.size,)
        self._capacity = max(1, BYTES // (16 * int(np.prod(self._shape))))
        self._guard = threading.Lock()
        self._places: dict[bytes, int] = {}
        self._texts: dict[object, int] = {}
        self._halves = np.empty((2, 0, *self._shape))

    def predictions(self, columns: Mapping[str, Column], count: int) -> Floats:
        """Both halves of every action, [2, contexts, actions(, classes)]."""
        with self._guard:
            keys = self._keys(columns, count)
            if len(self._places) + len(set(keys)) > self._capacity:
                self._places.clear()
            if count > self._capacity:
                return self._evaluated(columns, np.arange(count))
            fresh = {key: row for row, key in enumerate(keys) if key not in self._places}
            if fresh:
                self._keep(fresh, self._evaluated(columns, np.fromiter(fresh.values(), dtype=np.int64)))
            return self._halves[:, [self._places[key] for key in keys]]

    def _keys(self, columns: Mapping[str, Column], count: int) -> list[bytes]:
        codes = np.empty((count, max(1, len(self._context))), dtype=np.int64)
        codes[:, 0] = 0
        for index, name in enumerate(self._context):
            column = columns[name]
            if column.dtype == object:
                texts = self._texts
                codes[:, index] = [texts.setdefault(value, len(texts)) for value in column.tolist()]
            else:
                codes[:, index] = np.ascontiguousarray(column, dtype=np.float64).view(np.int64)
        if len(self._texts) > 100_000:  # free text as a context: codes must not pile up, and no key may survive them
            self._texts.clear()
            self._places.clear()
            return [row.tobytes() + repr(number).encode() for number, row in enumerate(codes)]
        width = codes.itemsize * codes.shape[1]
        packed = codes.tobytes()
        return [packed[start : start + width] for start in range(0, len(packed), width)]

    def _evaluated(self, columns: Mapping[str, Column], rows: Integers) -> Floats:
        context = {name: columns[name][rows] for name in self._context}
        choose, value = self._predict(expand(context, self._grid, len(rows)))
        return np.stack([choose, value]).reshape(2, len(rows), *self._shape)

    def _keep(self, fresh: Mapping[bytes, int], halves: Floats) -> None:
        start = len(self._places)
        end = start + len(fresh)
        if end > self._halves.shape[1]:
            size = min(self._capacity, max(end, 2 * self._halves.shape[1]))
            larger = np.empty((2, size, *self._shape))
            larger[:, :start] = self._halves[:, :start]
            self._halves = larger
        self._halves[:, start:end] = halves
        for place, key in enumerate(fresh, start=start):
            self._places[key] = place
