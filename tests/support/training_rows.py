"""Small training rows and run specs for modelling tests: a shop with a price, a bonus and a mood that is hidden."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from drivetrain.api.runspec import RunSpec
from drivetrain.pipelines.rows import (
    DECIDED_AT,
    EXPLORED,
    FALLBACK,
    GROUP,
    HALF,
    PART,
    PROPENSITY,
    SOURCE,
    WEIGHT,
    TrainingRows,
)
from drivetrain.pipelines.stage import Stage
from drivetrain.pipelines.trials import TrialRecord

T = TypeVar("T")
CLASSES = ("CH", "MM", "none")


class DirectStages:
    """Runs every stage, through its files, so that what a rerun would read is what the test sees."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ran: list[str] = []

    def run(self, stage: Stage[T]) -> T:
        self.ran.append(str(stage.name))
        folder = self._folder / f"{len(self.ran)}"
        folder.mkdir(parents=True)
        stage.save(stage.run(lambda share: None), folder)
        return stage.load(folder)


class MemoryLog:
    """A trial log in memory."""

    def __init__(self) -> None:
        self.records: dict[str, TrialRecord] = {}

    def finished(self) -> dict[str, TrialRecord]:
        return dict(self.records)

    def append(self, record: TrialRecord) -> None:
        self.records[record.key] = record


def shop_rows(count: int = 1500, *, kind: str = "Binary", seed: int = 1, slope: float = -4.0) -> TrainingRows:
    """Visits with a price on its grid, drawn with logged propensity; `sold` falls with price and rises with bonus."""
    draws = np.random.default_rng(seed)
    price = draws.integers(0, 9, count) * 0.05 + 1.69
    bonus = draws.integers(0, 6, count) * 0.1
    rival = draws.normal(1.85, 0.1, count)
    loyal = draws.uniform(0, 1, count)
    store = draws.choice(np.array(["north", "south", "east"], dtype=object), count)
    area = np.where(draws.uniform(size=count) < 0.1, np.nan, draws.normal(3, 1, count))
    score = 0.5 + slope * (price - bonus - rival) + 2 * loyal + np.where(store == "north", 0.5, 0) - 1
    noise = draws.logistic(size=count)
    targets: dict[str, pl.Series] = {
        "Binary": pl.Series((score + noise > 0).astype(np.int8)),
        "Regression": pl.Series(score + 0.3 * noise),
        "Multiclass": pl.Series(
            np.array(CLASSES, dtype=object)[np.clip(np.round(score + noise + 1), 0, 2).astype(int)].tolist()
        ),
    }
    frame = pl.DataFrame(
        {
            "price": price,
            "bonus": bonus,
            "rival": rival,
            "loyal": loyal,
            "store": store.tolist(),
            "area": pl.Series(area).fill_nan(None),
            "weekend": draws.uniform(size=count) < 0.3,
            "week": draws.integers(1, 50, count),
            "sold": targets[kind],
            PART: draws.choice(["train", "validation", "test"], count, p=[0.6, 0.2, 0.2]).tolist(),
            GROUP: np.arange(count),
            HALF: pl.Series(draws.integers(0, 2, count).astype(np.int8)),
            WEIGHT: np.ones(count),
            PROPENSITY: np.full(count, 1 / 54),
            EXPLORED: np.ones(count, dtype=bool),
            DECIDED_AT: pl.Series([None] * count, dtype=pl.Datetime("us", "UTC")),
            FALLBACK: np.zeros(count, dtype=bool),
            SOURCE: ["visits"] * count,
        }
    )
    return TrainingRows(frame, f"{seed:032x}")


def shop_spec(kind: str = "Binary", **spec: object) -> RunSpec:
    """A run over the shop's rows; keywords go into the TrainingRun's spec."""
    linear = "LinearRegression" if kind == "Regression" else "LogisticRegression"
    metric = "rmse" if kind == "Regression" else "logLoss"
    target: dict[str, object] = {"name": "sold", "type": kind}
    if kind == "Multiclass":
        target["classes"] = CLASSES
    effect = "Unknown" if kind == "Multiclass" else "Decreasing"
    sold = "(sold = 'CH')" if kind == "Multiclass" else "sold"
    return RunSpec.model_validate(
        {
            "namespace": "shop",
            "project": "shop",
            "project_uid": "u1",
            "run": "shop-1",
            "run_uid": "r1",
            "objective": {
                "kpi": {"name": "margin", "unit": "USD"},
                "value": f"{sold} * (price - bonus - 1.1)",
                "baseline": {"action": {"price": "1.99", "bonus": "0"}},
                "model_metric": {"name": metric, "direction": "Minimize"},
            },
            "levers": [
                {
                    "name": "price",
                    "type": "Continuous",
                    "minimum": "1.69",
                    "maximum": "2.09",
                    "step": "0.05",
                    "effect": effect,
                },
                {
                    "name": "bonus",
                    "type": "Continuous",
                    "minimum": "0",
                    "maximum": "0.5",
                    "step": "0.1",
                    "effect": "Unknown" if kind == "Multiclass" else "Increasing",
                },
            ],
            "exploration": {},
            "decisions": {},
            "data": {
                "store": {"uri": "s3://bucket/shop", "credentials": {"secret_name": "s3"}},
                "sources": [{"name": "visits", "uri": "file:///visits.csv", "format": "CSV"}],
                "columns": [
                    {"name": "price", "role": "Lever", "type": "Float"},
                    {"name": "bonus", "role": "Lever", "type": "Float"},
                    {"name": "rival", "role": "Context", "type": "Float", "minimum": 1, "maximum": 3},
                    {"name": "loyal", "role": "Context", "type": "Float"},
                    {"name": "store", "role": "Context", "type": "String"},
                    {"name": "area", "role": "Context", "type": "Float", "nullable": True},
                    {"name": "weekend", "role": "Context", "type": "Boolean"},
                    {"name": "net", "role": "Derived", "type": "Float", "expression": "price - bonus"},
                    {"name": "gap", "role": "Derived", "type": "Float", "expression": "net - rival"},
                    {"name": "week", "role": "Uncontrolled", "type": "Integer"},
                    {"name": "sold", "role": "AfterAction", "type": "String" if kind == "Multiclass" else "Float"},
                ],
                "target": target,
                "slices": ["store"],
            },
            "spec": {
                "project": "shop",
                "candidates": [{"name": "linear", "estimator": linear}],
                "tuning": {"trials": 1},
                **spec,
            },
        }
    )
