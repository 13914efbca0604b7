"""How good a published graph is: metrics on the test rows, by slice, the worst cases, responses, and its speed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from drivetrain.api.meta import ApiModel
from drivetrain.api.model import VALUE_OUTPUT, InputColumn
from drivetrain.api.v1alpha1.dataset import Target
from drivetrain.api.v1alpha1.lever import Lever
from drivetrain.api.v1alpha1.objective import MetricName
from drivetrain.api.v1alpha1.trainingrun import SliceMetric
from drivetrain.levers.grid import ActionGrid
from drivetrain.pipelines.features import feed_of
from drivetrain.pipelines.graph import Floats, Session
from drivetrain.pipelines.metrics import badness, losses, measure, row_loss
from drivetrain.pipelines.response import PROBE_ROWS, against, probe_frame

SLICE_VALUES = 50
"""Values of a slice column that are measured, the most frequent first."""
SLICE_ROWS = 30
"""Fewest rows of a slice worth a number."""
WORST_CASES = 20
LATENCY_CALLS = 200
LATENCY_ROUNDS = 3
"""What else the machine does only adds time, mostly for moments: the fastest round is nearest to the graph's."""
TRUTH, PREDICTION, LOSS = "@truth", "@prediction", "@loss"


class Latency(ApiModel):
    """Time of one decision's evaluation, all grid actions of one row, on one core: the round with the least p99."""

    actions: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows with their truth and a model's scores."""

    frame: pl.DataFrame
    truth: Floats
    """[rows]: 0 or 1, index of the class, or the value."""
    scores: Floats
    """[rows] or [rows, classes]: the `value` output."""
    weight: Floats
    clusters: NDArray[np.int64]
    """Names the group of each row; rows of one group go together."""

    def take(self, rows: NDArray[np.bool_]) -> "Judged":
        """These rows."""
        frame = self.frame.filter(pl.Series(rows))
        return Judged(frame, self.truth[rows], self.scores[rows], self.weight[rows], self.clusters[rows])

    def __len__(self) -> int:
        return len(self.truth)


def truth_of(frame: pl.DataFrame, target: Target) -> Floats:
    """The target as numbers, [rows]: 0 or 1, index of the class, or the value."""
    values = frame[target.name]
    if target.type == "Multiclass":
        places = {name: float(number) for number, name in enumerate(target.classes)}
        return np.array([places[value] for value in values.to_list()])
    return values.cast(pl.Float64).to_numpy()


def score(graph: Session, frame: pl.DataFrame, inputs: Sequence[InputColumn], output: str = VALUE_OUTPUT) -> Floats:
    """One output of a published graph on rows."""
    return graph.run(feed_of(frame, inputs))[output].astype(np.float64)


def by_slice(judged: Judged, target: Target, slices: Sequence[str], metric: MetricName) -> tuple[SliceMetric, ...]:
    """The metric on each value of the slice columns, the worst first."""
    found = []
    for column in slices:
        for value, rows in slice_rows(judged.frame, column):
            part = judged.take(rows)
            measured = measure(part.truth, part.scores, part.weight, target).get(metric)
            if measured is not None and len(part) >= SLICE_ROWS:
                name = f"{column}={value}"[:128]
                found.append(SliceMetric(slice=name, metric=metric, value=measured, rows=len(part)))
    return tuple(sorted(found, key=lambda one: (-badness(metric, one.value), one.slice)))


def slice_rows(frame: pl.DataFrame, column: str) -> list[tuple[str, NDArray[np.bool_]]]:
    """The values of a slice column with their rows, the most frequent first."""
    values = frame[column]
    ranked = sorted(values.value_counts().iter_rows(), key=lambda row: (-row[1], str(row[0])))[:SLICE_VALUES]
    return [(str(value), _equal(values, value)) for value, _ in ranked]


def _equal(values: pl.Series, value: object) -> NDArray[np.bool_]:
    if value is None:
        return values.is_null().to_numpy()
    return (values == value).fill_null(False).to_numpy()


def worst_cases(judged: Judged, target: Target) -> pl.DataFrame:
    """The rows with the largest loss, with truth, prediction and loss beside their columns."""
    loss = losses(row_loss(target), judged.truth, judged.scores)
    order = np.lexsort((np.arange(len(loss)), -loss))[:WORST_CASES]
    scores = judged.scores[order]
    prediction = scores if scores.ndim == 1 else scores[np.arange(len(order)), judged.truth[order].astype(np.int64)]
    columns = (pl.Series(TRUTH, judged.truth[order]), pl.Series(PREDICTION, prediction), pl.Series(LOSS, loss[order]))
    worst: pl.DataFrame = judged.frame[order.tolist()]
    return worst.with_columns(*columns)


def responses(
    graph: Session, frame: pl.DataFrame, inputs: Sequence[InputColumn], levers: Sequence[Lever]
) -> Mapping[str, float]:
    """For each lever with a declared effect: share of grid steps, over rows, that go against it. Two outputs count."""
    found = {}
    base = frame.head(PROBE_ROWS)
    for lever in levers:
        results = graph.run(feed_of(probe_frame(base, lever), inputs))
        sign = 1 if lever.effect == "Increasing" else -1
        found[lever.name] = max(against(scores, len(lever.values()), sign) for scores in results.values())
    return found


def latency(graph: Session, frame: pl.DataFrame, inputs: Sequence[InputColumn], levers: Sequence[Lever]) -> Latency:
    """Measures the evaluation of all grid actions of one row, in rounds of calls."""
    grid = ActionGrid.of(levers)
    rows = frame.head(1)[[0] * grid.size].with_columns(
        *(
            pl.Series(name, column.tolist()).cast(frame.schema[name])
            for name, column in grid.columns.items()
            if name in frame.columns
        )
    )
    feed = feed_of(rows, inputs)
    for _ in range(10):  # the first calls allocate
        graph.run(feed)
    middle, high = fastest_round(lambda: graph.run(feed), time.perf_counter)
    return Latency(actions=grid.size, p50_ms=float(f"{middle:.4g}"), p99_ms=float(f"{high:.4g}"))


def fastest_round(call: Callable[[], object], clock: Callable[[], float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds of the clock, of the round of calls with the least of the latter."""
    rounds = []
    for _ in range(LATENCY_ROUNDS):
        times = []
        for _ in range(LATENCY_CALLS):
            started = clock()
            call()
            times.append((clock() - started) * 1000)
        middle, high = np.quantile(times, [0.5, 0.99])
        rounds.append((float(middle), float(high)))
    return min(rounds, key=lambda found: found[1])
