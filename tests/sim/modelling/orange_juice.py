"""The orange juice market as training rows: what a trained policy really earns, as a share of what an oracle could."""

from pathlib import Path

import numpy as np
import polars as pl
import yaml

from drivetrain.api.policy import Policy
from drivetrain.api.runspec import RunSpec
from drivetrain.api.v1alpha1.dataset import Column
from drivetrain.levers.grid import Integers
from drivetrain.pipelines.graph import Session
from drivetrain.pipelines.modelling import BuiltModel, build
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
from drivetrain.pipelines.situations import situations
from drivetrain.pipelines.work import LocalTrials
from examples.orange_juice.history import price_test, visits
from examples.orange_juice.market import (
    Contexts,
    Grid,
    Market,
    best_policy,
    expected_value,
    read_contexts,
    shelf_policy,
)
from tests.support.training_rows import DirectStages, MemoryLog

MANIFEST = Path(__file__).parents[3] / "examples" / "orange_juice" / "project.yaml"


def history(market: Market, count: int, rng: np.random.Generator, *, loyalty: bool) -> pl.DataFrame:
    """Past visits of the price test, with loyalty where it was imported."""
    contexts = read_contexts().draw(count, rng)
    frame = price_test(market, contexts, Grid(), rng)
    return frame.with_columns(loyalty=pl.Series(contexts.loyalty)) if loyalty else frame


def training_rows(frame: pl.DataFrame, rng: np.random.Generator) -> TrainingRows:
    """The frame as the data stages would hand it over."""
    count = frame.height
    return TrainingRows(
        frame.drop("propensity", "visit_id").with_columns(
            pl.col("purchase").cast(pl.Int8),
            pl.Series(PART, rng.choice(["train", "validation", "test"], count, p=[0.6, 0.2, 0.2]).tolist()),
            pl.Series(HALF, rng.integers(0, 2, count).astype(np.int8)),
            pl.lit(1.0).alias(WEIGHT),
            pl.Series(GROUP, np.arange(count)),
            frame["propensity"].alias(PROPENSITY),
            pl.lit(True).alias(EXPLORED),
            pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias(DECIDED_AT),
            pl.lit(False).alias(FALLBACK),
            pl.lit("price_test").alias(SOURCE),
        ),
        "0" * 32,
    )


def run_spec(*, loyalty: bool, **changes: object) -> RunSpec:
    """The demo's project as a run's spec; `changes` replace fields of its training template."""
    project = yaml.safe_load(MANIFEST.read_text())["spec"]
    data, training = project["data"], {**project["training"], **changes}
    spec = RunSpec.model_validate(
        {
            "namespace": "shop",
            "project": "orange-juice",
            "project_uid": "u",
            "run": "orange-juice-1",
            "run_uid": "r",
            "objective": project["objective"],
            "levers": project["levers"],
            "exploration": project["exploration"],
            "decisions": project["decisions"],
            "data": data,
            "spec": {"project": "orange-juice", **training},
        }
    )
    if not loyalty:
        return spec
    column = Column(name="loyalty", role="Context", type="Float")
    return spec.model_copy(
        update={"data": spec.data.model_copy(update={"columns": (*spec.data.columns, column), "to_collect": ()})}
    )


def trained(rows: TrainingRows, spec: RunSpec, folder: Path) -> BuiltModel:
    """The model that the line builds, all stages run through their files."""
    (folder / "model").mkdir(parents=True)
    stages = DirectStages(folder / "stages")
    return build(rows, spec, LocalTrials(), MemoryLog(), stages, champion=None, folder=folder / "model")


def chosen(model: BuiltModel, spec: RunSpec, contexts: Contexts) -> Integers:
    """The grid action that serving would take for each visit."""
    graph = Session((model.folder / "model.onnx").read_bytes())
    frame = visits(contexts, "v").with_columns(
        loyalty=pl.Series(contexts.loyalty), price=pl.lit(1.99), discount=pl.lit(0.0)
    )
    policy = Policy(
        objective=spec.objective, levers=spec.levers, columns=spec.data.columns, target=spec.data.target, model=None
    )
    return situations(graph, frame, model.contract.inputs, policy, model.contract.support).chosen()


def share_of_gap(model: BuiltModel, spec: RunSpec, market: Market, *, sees_loyalty: bool) -> float:
    """What the trained policy earns over shelf prices, as a share of what the oracle of its columns earns over them."""
    contexts, grid = read_contexts(), Grid()
    value = expected_value(market, contexts, grid)
    rows = np.arange(len(contexts))
    shelf = shelf_policy(contexts, grid)
    today = market.purchase_probability(contexts, shelf.price, shelf.discount) * market.margin(
        shelf.price, shelf.discount
    )
    oracle = best_policy(market, contexts, grid, sees_loyalty=sees_loyalty).grid
    own = chosen(model, spec, contexts)
    gap: float = (value[rows, own] - today).mean() / (value[rows, oracle] - today).mean()
    return gap
