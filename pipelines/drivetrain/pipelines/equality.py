"""Equality of library and graph: the same scores on held-out rows, on generated ones, and right beside every cut."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from drivetrain.api.model import CHOOSE_OUTPUT, MEAN_OUTPUT, VALUE_OUTPUT, InputColumn
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.pipelines.features import FeatureNames, FeaturePlan, feed_of, matrices
from drivetrain.pipelines.graph import Floats, GraphBuilder, Session, Singles, session_of
from drivetrain.pipelines.models import Scorer
from drivetrain.pipelines.response import probe_frame

TOLERANCE = 1e-5
"""Largest difference allowed: of probabilities, or of a Regression's scores relative to the largest of them."""
HELD_OUT_ROWS = 2000
BASE_ROWS = 8
"""Rows from which others are generated."""
CUTS_PER_COLUMN = 40
UNKNOWN = "\x00never seen"


@dataclass(frozen=True, slots=True)
class Equality:
    """The largest difference found, and where."""

    difference: float
    rows: int
    where: str

    @property
    def holds(self) -> bool:
        """Whether the graph may be published. A difference that is not a number does not pass."""
        return self.difference <= TOLERANCE


@dataclass(frozen=True, slots=True)
class Published:
    """A graph and the two library models that it was made from."""

    graph: Session
    plan: FeaturePlan
    choose: Scorer
    value: Scorer


def check_equality(made: Published, held_out: pl.DataFrame, levers: Sequence[Lever]) -> Equality:
    """Compares a published graph with its library models, on held-out rows and on rows generated from them."""
    found = [_compared(made, held_out.head(HELD_OUT_ROWS), "held-out rows")]
    base = held_out.head(BASE_ROWS)
    for lever in levers:
        found.append(_compared(made, probe_frame(base, lever), f"grid of {lever.name}"))
    for column in made.plan.inputs:
        for label, rows in _odd(base, column):
            found.append(_compared(made, rows, label))
    plain, scaled = matrices(made.plan, feed_of(base, made.plan.inputs))
    for name, model in ((CHOOSE_OUTPUT, made.choose), (VALUE_OUTPUT, made.value)):
        found.append(beside_cuts(model, plain, scaled, name))
    worst = max(found, key=lambda one: np.inf if np.isnan(one.difference) else one.difference)
    return Equality(worst.difference, sum(one.rows for one in found), worst.where)


def beside_cuts(model: Scorer, plain: Singles, scaled: Singles, name: str) -> Equality:
    """Compares a model alone where a column lies on a cut, one float32 ulp below it and one above."""
    rows: list[Singles] = []
    for column, cuts in model.thresholds().items():
        chosen = cuts[np.linspace(0, len(cuts) - 1, min(len(cuts), CUTS_PER_COLUMN)).astype(np.int64)]
        around = np.concatenate(
            [chosen, np.nextafter(chosen, np.float32(-np.inf)), np.nextafter(chosen, np.float32(np.inf))]
        )
        moved = plain[np.arange(len(around)) % len(plain)].copy()
        moved[:, column] = around
        rows.append(moved)
    if not rows:
        return Equality(0.0, 0, f"{name} beside cuts")
    matrix = np.concatenate(rows)
    other = scaled[np.arange(len(matrix)) % len(scaled)]
    graph = GraphBuilder()
    inputs = [
        graph.input(InputColumn(name=f"column{number}", role="Context", type="Float"))
        for number in range(2 * plain.shape[1])
    ]
    names = FeatureNames(
        graph.add("Concat", *inputs[: plain.shape[1]], axis=1), graph.add("Concat", *inputs[plain.shape[1] :], axis=1)
    )
    scores = model.scores(matrix, other)
    graph.output(model.add(graph, names), name, 1 if scores.ndim == 1 else scores.shape[1])
    both = np.concatenate([matrix, other], axis=1)
    result = session_of(graph.model()).run({key: both[:, [at]] for at, key in enumerate(inputs)})[name]
    return Equality(_difference(scores, result.reshape(scores.shape)), len(matrix), f"{name} beside cuts")


def _compared(made: Published, rows: pl.DataFrame, where: str) -> Equality:
    feed = feed_of(rows, made.plan.inputs)
    plain, scaled = matrices(made.plan, feed)
    results = made.graph.run(feed)
    first, second = made.choose.scores(plain, scaled), made.value.scores(plain, scaled)
    expected = {CHOOSE_OUTPUT: first, VALUE_OUTPUT: second, MEAN_OUTPUT: (first + second) / 2}
    differences = [_difference(scores, results[name]) for name, scores in expected.items()]
    return Equality(float(np.max(differences)), rows.height, where)


def _difference(expected: Floats, result: Singles) -> float:
    if expected.shape != result.shape:
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return float(np.abs(expected - result).max(initial=0.0)) / scale


def _odd(base: pl.DataFrame, column: InputColumn) -> list[tuple[str, pl.DataFrame]]:
    """Rows with a missing value and, for text, with one never seen and an empty one."""
    kind = base.schema[column.name]
    odd = []
    if column.nullable or column.type == "String":
        nulls = base.with_columns(pl.lit(None, dtype=kind).alias(column.name))
        odd.append((f"{column.name} missing", nulls))
    if column.type == "String":
        for text in (UNKNOWN, ""):
            odd.append((f"{column.name} = {text!r}", base.with_columns(pl.lit(text).alias(column.name))))
    return odd
