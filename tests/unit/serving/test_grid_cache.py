"""Predictions that are kept are those that would be made."""

from collections.abc import Mapping

import numpy as np
import pytest

from drivetrain.levers.grid import ActionGrid, Column, Floats
from drivetrain.serving import grid_cache
from drivetrain.serving.grid_cache import GridCache
from drivetrain.serving.rows import objects
from tests.unit.serving.worlds import LEVERS

GRID = ActionGrid.of(LEVERS)


class Counted:
    """A graph that counts the rows that it is asked for."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, columns: Mapping[str, Column]) -> tuple[Floats, Floats]:
        self.rows += len(columns["price"])
        shop = np.array([hash(value) % 7 for value in columns["store"]], dtype=np.float64)
        choose = columns["price"].astype(float) + np.nan_to_num(columns["x"].astype(float), nan=-1.0) + shop
        return choose, -choose


def context(seed: int, count: int) -> dict[str, Column]:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, count).astype(float)
    x[rng.random(count) < 0.2] = np.nan
    return {"x": x, "store": objects(rng.choice(["a", "b", "c"], count).tolist())}


def test_a_context_that_comes_again_is_not_predicted_again() -> None:
    graph = Counted()
    cache = GridCache(graph, ("x", "store"), GRID, 0)
    for seed in range(5):
        columns = context(seed, 200)
        choose, value = cache.predictions(columns, 200)
        row = np.array([hash(name) % 7 for name in columns["store"]])[:, None]
        expected = GRID.columns["price"].astype(float)[None, :] + np.nan_to_num(columns["x"], nan=-1.0)[:, None] + row
        assert choose == pytest.approx(expected)
        assert value == pytest.approx(-expected)
    assert graph.rows == 5 * 3 * GRID.size


def test_a_full_cache_starts_anew_and_stays_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_cache, "BYTES", 16 * GRID.size * 6)
    cache = GridCache(Counted(), ("x", "store"), GRID, 0)
    fresh = GridCache(Counted(), ("x", "store"), GRID, 0)
    for seed in range(20):
        columns = context(seed, 1 + seed % 5)
        count = len(columns["x"])
        assert np.array_equal(cache.predictions(columns, count), fresh.predictions(columns, count))
    columns = context(1, 50)
    assert cache.predictions(columns, 50).shape == (2, 50, GRID.size)
