"""A small project with sources on disk, and a decision log as endpoint replicas write it."""

import io
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drivetrain.api import decision_log as log
from drivetrain.api.layout import DECISIONS, OUTCOMES
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.dataset import Dataset
from drivetrain.api.v1alpha1.objective import Objective
from drivetrain.store import ObjectStore

STORE = {"uri": "s3://bucket/project", "credentials": {"secretName": "s3"}}
COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "visit", "role": "Identifier", "type": "String"},
    {"name": "week", "role": "Uncontrolled", "type": "Integer"},
    {"name": "store", "role": "Context", "type": "String"},
    {"name": "shelf", "role": "Context", "type": "Float", "minimum": 1, "maximum": 3},
    {"name": "price", "role": "Lever", "type": "Float"},
    {"name": "gap", "role": "Derived", "type": "Float", "expression": "price - shelf"},
    {"name": "chance", "role": "Assignment", "type": "Float"},
)


def a_dataset(
    uri: str = "file:///nowhere",
    *,
    columns: Sequence[Mapping[str, Any]] = COLUMNS,
    sources: Sequence[Mapping[str, Any]] = (),
    file_format: str = "Parquet",
    **fields: Any,
) -> Dataset:
    """The shop's contract, reading `uri` unless sources are named."""
    return Dataset.model_validate(
        {
            "store": STORE,
            "sources": list(sources) or [{"name": "visits", "uri": uri, "format": file_format}],
            "columns": list(columns),
            "target": {"name": "sold", "type": "Binary"},
            "slices": ["store"],
            **fields,
        }
    )


def an_objective(**kpi: Any) -> Objective:
    """Margin a visit, decisions mature after an hour."""
    return Objective.model_validate(
        {
            "kpi": {"name": "margin", "unit": "USD", "maturesAfter": "1h", **kpi},
            "value": "sold * (price - 1)",
            "baseline": {"expression": {"price": "shelf"}},
            "unit": "visit",
            "modelMetric": {"name": "logLoss", "direction": "Minimize"},
        }
    )


def a_run(data: Dataset, *, run_uid: str = "uid-1", data_version: str = "newest", **fields: Any) -> RunSpec:
    """A run over the shop with two small candidates."""
    spec = {
        "project": "shop",
        "dataVersion": data_version,
        "candidates": [
            {"name": "line", "estimator": "LogisticRegression"},
            {
                "name": "trees",
                "estimator": "LightGBM",
                "parameters": {"n_estimators": 20, "min_child_samples": 20},
                "search": {"num_leaves": {"choices": [4, 8]}},
            },
        ],
        "tuning": {"trials": 3},
        "evaluation": {"gates": [{"metric": "logLoss", "versus": "Dummy"}]},
        **fields,
    }
    return RunSpec.model_validate(
        {
            "namespace": "default",
            "project": "shop",
            "projectUid": "project-uid",
            "run": "shop-1",
            "runUid": run_uid,
            "objective": an_objective(),
            "levers": [
                {
                    "name": "price",
                    "type": "Continuous",
                    "minimum": "1.7",
                    "maximum": "2.1",
                    "step": "0.1",
                    "effect": "Decreasing",
                }
            ],
            "exploration": {},
            "decisions": {"environment": {"latencyMs": 1000}},
            "data": data,
            "spec": spec,
        }
    )


def visits(count: int, seed: int = 1) -> pl.DataFrame:
    """Past visits at drawn prices, with logged propensity; fewer buy when the price is high."""
    draws = np.random.default_rng(seed)
    price = 1.7 + 0.1 * draws.integers(0, 5, count)
    return pl.DataFrame(
        {
            "visit": [f"v{seed}-{number}" for number in range(count)],
            "week": draws.integers(1, 40, count),
            "store": draws.choice(["north", "south", "west"], count),
            "shelf": draws.choice([1.8, 1.9, 2.0], count),
            "price": price.round(1),
            "chance": np.full(count, 0.2),
            "sold": (draws.random(count) < 1 / (1 + np.exp(8 * (price - 1.9)))).astype(np.int64),
        }
    )


def write_source(frame: pl.DataFrame, path: Path) -> str:
    """Writes a source in the format of its suffix; its uri."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_parquet(path)
    return path.as_uri()


def decisions(count: int, start: datetime, *, seed: int = 5, step: timedelta = timedelta(seconds=1)) -> pl.DataFrame:
    """Decisions, one every `step` from `start`, as replicas log them."""
    draws = np.random.default_rng(seed)
    price = (1.7 + 0.1 * draws.integers(0, 5, count)).round(1)
    return pl.DataFrame(
        {
            log.DECISION_ID: [f"d{number:06d}" for number in range(count)],
            log.DECIDED_AT: pl.Series(
                [start + number * step for number in range(count)], dtype=pl.Datetime("us", "UTC")
            ),
            log.UNIT: [f"u{number}" for number in range(count)],
            log.ARM: ["stable"] * count,
            log.PROPENSITY: np.full(count, 0.2),
            log.EXPLORED: draws.random(count) < 0.2,
            log.FALLBACK: [""] * count,
            log.CONTEXT_PREFIX + "visit": [f"u{number}" for number in range(count)],
            log.CONTEXT_PREFIX + "store": draws.choice(["north", "south", "west"], count),
            log.CONTEXT_PREFIX + "shelf": draws.choice([1.8, 1.9, 2.0], count),
            log.ACTION_PREFIX + "price": price,
            log.DISTRIBUTION_STABLE: [[{"index": 0, "probability": 1.0}]] * count,
        }
    )


def outcomes(ids: Sequence[str], sold: Sequence[float | None], at: datetime, **columns: Any) -> pl.DataFrame:
    """First reports of outcomes."""
    return pl.DataFrame(
        {
            log.DECISION_ID: list(ids),
            log.REPORTED_AT: pl.Series([at] * len(ids), dtype=pl.Datetime("us", "UTC")),
            log.SEQUENCE: [0] * len(ids),
            log.KPI: pl.Series([None] * len(ids), dtype=pl.Float64),
            log.LABEL_PREFIX + "sold": pl.Series(sold, dtype=pl.Float64),
            **columns,
        }
    )


def write_log(store: ObjectStore, decided: pl.DataFrame, reported: pl.DataFrame | None, *, files: int = 1) -> None:
    """Writes a log as several batches."""
    for prefix, frame in ((DECISIONS, decided), (OUTCOMES, reported)):
        if frame is None:
            continue
        size = -(-frame.height // files)
        for number in range(files):
            part = frame.slice(number * size, size)
            if part.height:
                buffer = io.BytesIO()
                part.write_parquet(buffer)
                store.put(f"{prefix}/2026/{number:05d}.parquet", buffer.getvalue())
